//! What the scheduler knows, as plain structs for the admin interface.

use std::net::SocketAddr;
use std::time::Duration;

use overway_topology::{Candidate, Explanation, Policy, Resource, RouteKey, WindowSample};
use overway_wire::control::{Location, Role, State};
use overway_wire::{BitsPerSec, Epoch, LinkId, Micros, Permille, PolicyId, PricePerGb, RelayId};

use crate::{DrainStage, Drainable};

/// Everything at one moment but the routes, of which there may be millions:
/// [`crate::Scheduler::routes_from`] gives those of a relay.
#[derive(Clone, Debug)]
pub struct Status {
    /// The last epoch.
    pub epoch: Epoch,
    /// Whether the scheduler is settling, and pushes nothing.
    pub settling: bool,
    /// Every member, by id.
    pub relays: Vec<RelayStatus>,
    /// Every link of the probe plan, by id.
    pub links: Vec<LinkStatus>,
    /// What is being drained, in order.
    pub drains: Vec<DrainStatus>,
    /// Every policy but the unrestricted one, by id.
    pub policies: Vec<PolicyStatus>,
    /// What has to carry more than it can, in order.
    pub overloads: Vec<OverloadStatus>,
    /// What is known of the routes as a whole.
    pub routes: RouteSummary,
    /// What the overlay gains, for realtime traffic.
    pub improvement: Improvement,
}

/// Every relay and a bounded choice of links; see [`crate::Scheduler::overview`].
#[derive(Clone, Debug)]
pub struct Overview {
    /// The last epoch.
    pub epoch: Epoch,
    /// Whether the scheduler is settling, and pushes nothing.
    pub settling: bool,
    /// Every member, by id, with the sums over its links.
    pub relays: Vec<(RelayStatus, RelayGlance)>,
    /// Links, by id.
    pub links: Vec<LinkStatus>,
    /// All links.
    pub counts: LinkCounts,
}

/// Sums over a relay's links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayGlance {
    /// Links on which it receives, those on trial left out.
    pub links: usize,
    /// Of these, links that routes may use.
    pub usable: usize,
    /// What it receives on them.
    pub received: BitsPerSec,
    /// What its neighbours receive from it.
    pub sent: BitsPerSec,
}

/// Links by how they are. Each but the suspect is in one of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Routes may use them.
    pub usable: usize,
    /// Of these, silent for longer than their interval as their receivers last said.
    pub suspect: usize,
    /// Routes may not use them.
    pub unusable: usize,
    /// Neither end is heard.
    pub unknown: usize,
    /// Only measured.
    pub trial: usize,
}

/// Something that is being drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainStatus {
    /// What.
    pub target: Drainable,
    /// How far it is.
    pub stage: DrainStage,
    /// Time to the deadline; zero when it has passed, absent if there is none.
    pub remaining: Option<Duration>,
    /// How many routes still have it on their path in use, of those that [`RouteSummary::looked_at`] counts; of a
    /// relay those of which it is an intermediate.
    pub routes_on_it: usize,
    /// Edges still attached to a relay, as it last reported; 0 where none can attach.
    pub attachments: u32,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// Its number.
    pub id: PolicyId,
    /// What it says.
    pub policy: Policy,
    /// Registered relays that its paths may use.
    pub relays: usize,
}

/// Something that has to carry more than it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverloadStatus {
    /// What.
    pub resource: Resource,
    /// What it carries, or is asked to carry.
    pub rate: BitsPerSec,
    /// What it can carry.
    pub capacity: BitsPerSec,
    /// Since when.
    pub lasts: Duration,
}

/// The routes as a whole. With many of them, those of every so manieth relay are looked at and stand for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteSummary {
    /// Routes looked at.
    pub looked_at: usize,
    /// Of these, routes without a path that shares no relay with the one in use.
    pub without_disjoint: usize,
    /// Of these, routes whose path in use goes over other relays.
    pub indirect: usize,
    /// Routes whose traffic is split over several paths; all are counted.
    pub split: usize,
}

/// Tenants and what their edges offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantSummary {
    /// Tenants.
    pub tenants: usize,
    /// Services that edges offer.
    pub services: usize,
    /// Of these, services of which no endpoint is healthy.
    pub without_endpoint: usize,
}

/// A member.
#[derive(Clone, Debug)]
pub struct RelayStatus {
    /// Its id.
    pub id: RelayId,
    /// Its name.
    pub name: String,
    /// Its region; empty if not registered or not said.
    pub region: String,
    /// Its provider; empty if not registered or not said.
    pub provider: String,
    /// Its build.
    pub software: String,
    /// Where it is, if it says so.
    pub location: Option<Location>,
    /// Addresses of its last hello.
    pub addresses: Vec<SocketAddr>,
    /// Whether it said hello and has links.
    pub registered: bool,
    /// Whether it has a session.
    pub connected: bool,
    /// Whether it said goodbye.
    pub draining: bool,
    /// How far an operator's drain of it is, if there is one.
    pub drain: Option<DrainStage>,
    /// Whether it may be an intermediate, by its own word and an operator's.
    pub transit: bool,
    /// What an operator wants instead of the relay's own word, if anything.
    pub transit_override: Option<bool>,
    /// Relays that it is to probe.
    pub neighbours: usize,
    /// Its addresses in use.
    pub lines: Vec<LineStatus>,
    /// What its own ends asked it to send over the last second, all classes.
    pub demand: BitsPerSec,
    /// Time since its last taken report in this session.
    pub last_report_age: Option<Duration>,
    /// Edges attached there, as last reported; `None` where none can attach, or it is not known.
    pub attachments: Option<u32>,
    /// How often its process woke late.
    pub self_stalls: u64,
    /// Services that its gateway offers.
    pub services: Vec<String>,
    /// The revision that it acknowledged; 0 if none is known.
    pub revision_acked: u64,
    /// The revision that it is to have.
    pub revision_current: u64,
}

/// A provider's line at a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineStatus {
    /// Its provider; empty if not said.
    pub provider: String,
    /// What it carries; 0 if not said.
    pub capacity: BitsPerSec,
    /// Price of what goes out beyond the commit; 0 if not said.
    pub price: PricePerGb,
    /// Gigabytes of each month that are paid for in any case.
    pub commit_gb: u64,
    /// Gigabytes of each month beyond which it is not to be used; 0: no limit.
    pub cap_gb: u64,
    /// Bytes sent this month, as last reported.
    pub sent_bytes_month: u64,
    /// Sent over the last second, as last reported.
    pub sent: BitsPerSec,
    /// Whether this month's volume is spent, so that paths avoid it.
    pub spent: bool,
}

/// A directed link.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// Which.
    pub id: LinkId,
    /// Whether it works, as last judged.
    pub usable: bool,
    /// Whether it is only measured, between relays on trial in bounded sets: no route takes it.
    pub trial: bool,
    /// Whether the scheduler hears either end of it. If not, all else is what was known last.
    pub known: bool,
    /// Its liveness as the receiving relay sees it.
    pub inbound: State,
    /// Its liveness as the sending relay sees it; down too if frames are too long for its path.
    pub outbound: State,
    /// Bytes of the longest UDP payload that its sender knows to get through; 0 if not known.
    pub mtu: u16,
    /// The last second; absent if never measured.
    pub fast: Option<WindowSample>,
    /// The last thirty seconds; absent if never measured.
    pub slow: Option<WindowSample>,
    /// Estimated one-way delay, clock offsets taken out; absent if never measured.
    pub delay: Option<Micros>,
    /// Received rate.
    pub received: BitsPerSec,
    /// The lesser of both ends' capacities; 0 if neither is known.
    pub capacity: BitsPerSec,
    /// Received rate over capacity; 0 if the capacity is not known.
    pub load: Permille,
    /// Whether any path uses it, in either direction.
    pub role: Role,
}

/// The paths of an ordered pair in a class under a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStatus {
    /// Which route.
    pub key: RouteKey,
    /// The path in use first, then its backups.
    pub candidates: Vec<Candidate>,
    /// The shares of the candidates in thousandths; empty where all goes over the first that is usable.
    pub weights: Vec<u16>,
}

/// Why a route is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteExplanation {
    /// The planner's reasons.
    pub explanation: Explanation,
    /// The shares of the candidates as pushed, in thousandths; empty where all goes over the first that is usable.
    pub weights: Vec<u16>,
    /// What the source's ends asked it to send over the route in the last second.
    pub demand: BitsPerSec,
    /// The links of all paths explained, by id.
    pub loads: Vec<LinkLoad>,
}

/// What a link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLoad {
    /// Which.
    pub id: LinkId,
    /// Received rate.
    pub rate: BitsPerSec,
    /// The lesser of both ends'; 0 if neither is known.
    pub capacity: BitsPerSec,
}

/// What the overlay gains over the direct links, by expected delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Improvement {
    /// Ordered pairs that have a direct path and a route.
    pub pairs: usize,
    /// Of these, pairs whose path in use goes over other relays and is faster.
    pub improved: usize,
    /// Median of what these gain.
    pub median_gain: Micros,
}

impl Improvement {
    /// Sums up so many pairs, of which some gain.
    pub(crate) fn of(pairs: usize, mut gains: Vec<Micros>) -> Self {
        gains.sort_unstable();
        let median_gain = gains.get(gains.len() / 2).copied().unwrap_or_default();
        Self { pairs, improved: gains.len(), median_gain }
    }
}
