//! Why a route is what it is, and what it would be without parts of the mesh.

use serde::{Deserialize, Serialize};

use super::{CandidateBody, StepBody, WindowBody};

/// `GET /v1/explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainBody {
    /// From, by id.
    pub source: u16,
    /// From, by name.
    pub source_name: String,
    /// To, by id.
    pub destination: u16,
    /// To, by name.
    pub destination_name: String,
    /// `realtime`, `interactive` or `bulk`.
    pub class: String,
    /// The policy's id; 0: any relay may be on the path.
    pub policy: u16,
    /// The policy's name; empty for policy 0.
    pub policy_name: String,
    /// Whether these are routes of the cell and its partners, because none within the tenant's cell leads there.
    #[serde(default)]
    pub partners: bool,
    /// For how long the path has been in use.
    pub in_use_ms: u64,
    /// How often the route moved since the scheduler knows it.
    pub moves: u32,
    /// Whether some path shares no relay with the one in use.
    pub has_disjoint: bool,
    /// Whether some path avoids the providers, or the regions, of the one in use.
    pub has_diverse: bool,
    /// What the source asked to send over the last second; `null` if it said nothing of this route.
    pub demand_bps: Option<u64>,
    /// The path in use.
    pub current: ExplainedBody,
    /// What competes with it: backups, and the cheapest now where that is neither.
    pub others: Vec<ExplainedBody>,
    /// The direct link, also where it is one of the others; `null` where there is none.
    pub direct: Option<ExplainedBody>,
}

/// A path with everything that decides about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedBody {
    /// The relays after the source, the destination last.
    pub path: Vec<StepBody>,
    /// `best`, `disjoint`, `diverse`, `parallel`, `direct` or `further`.
    pub reason: String,
    /// Expected one-way delay.
    pub delay_us: u32,
    /// Share of the route's traffic that it carries, in thousandths; `null` if it is not pushed.
    pub share_permille: Option<u16>,
    /// Sum of its links' terms.
    pub terms: TermsBody,
    /// What became of it.
    pub verdict: VerdictBody,
    /// What it misses of what the class needs; empty if nothing.
    pub misses: Vec<MissBody>,
    /// Its links, in order.
    pub links: Vec<ExplainedLinkBody>,
}

/// A cost by term, in microsecond equivalents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermsBody {
    /// One-way delay.
    pub delay: u32,
    /// Relays' work.
    pub hop: u32,
    /// What spreads near-ties; next to nothing.
    #[serde(default)]
    pub spread: u32,
    /// Loss, beyond what ignorance explains.
    pub loss: u32,
    /// Jitter, beyond what buffers hide.
    pub jitter: u32,
    /// Queueing to come.
    pub load: u32,
    /// Money.
    pub price: u32,
    /// All of them.
    pub total: u32,
}

/// Why a path is in use or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictBody {
    /// `cheapest`, `kept` or `kept_while_held` of the path in use; `dearer`, `not_worth_moving`,
    /// `held_after_leaving`, `draining` or `readmission` of others.
    pub kind: String,
    /// By how much the other costs more or less, in microsecond equivalents; `null` where cost did not
    /// decide.
    pub difference: Option<u32>,
    /// How long it still has to hold; `null` where nothing holds.
    pub remaining_ms: Option<u64>,
}

/// What a path misses of what its class needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissBody {
    /// `deadline_us` (one-way delay) or `delivery_ppm` (loss).
    pub kind: String,
    /// What it has.
    pub value: u32,
    /// What the class needs: at most this.
    pub limit: u32,
}

/// A link of a path, with what was measured of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedLinkBody {
    /// The sending relay's id.
    pub from: u16,
    /// Its name.
    pub from_name: String,
    /// The receiving relay's id.
    pub to: u16,
    /// Its name.
    pub to_name: String,
    /// Which parallel link.
    pub index: u8,
    /// What it costs the class.
    pub terms: TermsBody,
    /// One-way delay over the last second, clock offsets taken out.
    pub delay_fast_us: u32,
    /// One-way delay over the last thirty seconds.
    pub delay_slow_us: u32,
    /// The last second.
    pub fast: WindowBody,
    /// The last thirty seconds.
    pub slow: WindowBody,
    /// What it carries now.
    pub rate_bps: u64,
    /// Share of the capacity in use; `null` if the capacity is not known.
    pub load_permille: Option<u16>,
    /// Its capacity; `null` if not known.
    pub capacity_bps: Option<u64>,
    /// Its price per gigabyte, in thousandths of a cent.
    pub price_millicents_per_gb: u32,
    /// Whether routes may use it.
    pub usable: bool,
    /// Whether it is being drained.
    pub draining: bool,
}

/// `POST /v1/what-if`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhatIfRequest {
    /// Relays to take out, by name or id.
    #[serde(default)]
    pub relays: Vec<String>,
    /// Pairs of relays whose links to take out, both ways.
    #[serde(default)]
    pub links: Vec<(String, String)>,
    /// Only routes from this relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Only routes to this relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Only routes of this class; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

/// A relay that was asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRefBody {
    /// Its id.
    pub id: u16,
    /// Its name.
    pub name: String,
}

/// The answer to `POST /v1/what-if`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatIfBody {
    /// The relays that were taken out.
    pub cut_relays: Vec<RelayRefBody>,
    /// The pairs whose links were taken out.
    pub cut_links: Vec<(RelayRefBody, RelayRefBody)>,
    /// Routes that were looked at.
    pub routes: u64,
    /// Of these, routes that begin or end at a relay that was taken out: there is nothing to be said of them.
    pub ends_cut: u64,
    /// Of the others, routes whose path in use would change, the unreachable ones included.
    pub changed: u64,
    /// Of these, routes of which it was worked out to what they would change; all, unless there are very
    /// many.
    pub evaluated: u64,
    /// Of these, routes that would have no path.
    pub unreachable: u64,
    /// Median of the others' change of delay.
    pub delay_change_us_median: Option<i64>,
    /// The greatest change of delay.
    pub delay_change_us_max: Option<i64>,
    /// Routes that change: the unreachable first, then by how much slower they get. Bounded.
    pub changes: Vec<WhatIfRouteBody>,
    /// Routes that change and are not listed.
    pub omitted: u64,
}

/// A route that would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatIfRouteBody {
    /// From, by id.
    pub source: u16,
    /// From, by name.
    pub source_name: String,
    /// To, by id.
    pub destination: u16,
    /// To, by name.
    pub destination_name: String,
    /// `realtime`, `interactive` or `bulk`.
    pub class: String,
    /// The policy's id; 0: any relay may be on the path.
    pub policy: u16,
    /// The path in use.
    pub now: CandidateBody,
    /// The path that would be used; `null` if there is none.
    pub then: Option<CandidateBody>,
    /// How much slower it would be; `null` if there is none.
    pub delay_change_us: Option<i64>,
}
