//! The mesh at a glance, as the dashboard shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{LinkBody, LocationBody};

/// `GET /v1/overview`: every relay, and of the links a bounded choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverviewBody {
    /// When, in milliseconds since 1970, UTC.
    pub at_unix_ms: u64,
    /// The mesh's name.
    pub mesh: String,
    /// The build of the scheduler.
    pub software: String,
    /// The scheduler's term.
    pub epoch_term: u64,
    /// The last epoch's number within the term.
    pub epoch_sequence: u64,
    /// Whether the scheduler still waits for relays to report, and pushes nothing.
    pub settling: bool,
    /// Every member, by id.
    pub relays: Vec<RelayGlanceBody>,
    /// Links, by id: all of them if they are so few, else those that carry most and those that are unwell.
    pub links: Vec<LinkGlanceBody>,
    /// All links.
    pub link_counts: LinkCountsBody,
}

/// A member, at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayGlanceBody {
    /// Its id.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Its region; empty if not known.
    pub region: String,
    /// Its provider; empty if not known.
    pub provider: String,
    /// Its build; empty if not known.
    pub software: String,
    /// Where it is; `null` if it does not say.
    pub location: Option<LocationBody>,
    /// Whether it said hello and has links.
    pub registered: bool,
    /// Whether it has a control connection.
    pub connected: bool,
    /// Whether it said goodbye.
    pub draining: bool,
    /// How far an operator's drain of it is: `leaving` or `over`; `null` without one.
    pub drain: Option<String>,
    /// Whether it may carry others' traffic.
    pub transit: bool,
    /// Links on which it receives.
    pub links: usize,
    /// Of these, links that routes may use.
    pub links_usable: usize,
    /// What its neighbours receive from it.
    pub sent_bps: u64,
    /// What it receives from them.
    pub received_bps: u64,
    /// What its own ends asked it to send.
    pub demand_bps: u64,
    /// How often its process woke late.
    pub self_stalls: u64,
    /// Time since its last report.
    pub last_report_age_ms: Option<u64>,
    /// Services that its gateway offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
}

/// A directed link, at a glance. Ends are ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkGlanceBody {
    /// The sending relay.
    pub from: u16,
    /// The receiving relay.
    pub to: u16,
    /// Which parallel link.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub index: u8,
    /// `up`, `suspect`, `down`, or `unknown` if neither end is heard.
    pub state: String,
    /// Whether a path uses it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub candidate: bool,
    /// Estimated one-way delay over the last second; `null` if not known.
    pub delay_us: Option<u32>,
    /// Of a million packets of the last thirty seconds, lost; `null` if none was awaited.
    pub loss_ppm: Option<u32>,
    /// Mean deviation of the delay over the last thirty seconds; `null` if not known.
    pub jitter_us: Option<u32>,
    /// Received rate.
    pub received_bps: u64,
    /// Received rate over capacity; `null` if the capacity is not known.
    pub load_permille: Option<u16>,
}

/// Links by how they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCountsBody {
    /// Routes may use them.
    pub usable: usize,
    /// Of these, silent for longer than their interval.
    pub suspect: usize,
    /// Routes may not use them.
    pub unusable: usize,
    /// Neither end is heard.
    pub unknown: usize,
    /// Only measured.
    pub trial: usize,
}

/// `GET /v1/links?relay=RELAY`: a relay's links, both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinksBody {
    /// By id.
    pub links: Vec<LinkBody>,
}

/// `GET /v1/history`: the last hour of a link, a relay, what users feel of a service, or the whole mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryBody {
    /// When samples were taken, in milliseconds since 1970, UTC, oldest first.
    pub at_unix_ms: Vec<u64>,
    /// By name, unit last, a value for each of these; `null` where it is not known.
    ///
    /// Of a link: `delay_us`, `loss_ppm`, `received_bps`. Of a relay: `sent_bps`, `received_bps`. Of the mesh:
    /// `received_bps`, `delay_us` (the median of links), `loss_ppm` (the mean), `links_unusable`. Of what users feel, and of the
    /// mesh for all users together: `felt_delay_p50_us`, `felt_delay_p99_us`, `felt_gap_p99_us`, `felt_loss_ppm` (of all
    /// deliveries), `felt_stall_p99_us`, over the last half minute to minute. Empty if nothing is kept of it.
    pub series: BTreeMap<String, Vec<Option<u64>>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(index: &u8) -> bool {
    *index == 0
}
