//! What the scheduler knows, as plain structs for the admin interface.

use std::net::SocketAddr;
use std::time::Duration;

use overway_topology::{Candidate, WindowSample};
use overway_wire::control::{Role, State};
use overway_wire::{BitsPerSec, Class, Epoch, LinkId, Micros, Permille, RelayId};

/// Everything at one moment.
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
    /// Every route, by source, destination and class.
    pub routes: Vec<RouteStatus>,
    /// What the overlay gains, for realtime traffic.
    pub improvement: Improvement,
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
    /// Addresses of its last hello.
    pub addresses: Vec<SocketAddr>,
    /// Whether it said hello and has links.
    pub registered: bool,
    /// Whether it has a session.
    pub connected: bool,
    /// Whether it said goodbye.
    pub draining: bool,
    /// Time since its last taken report in this session.
    pub last_report_age: Option<Duration>,
    /// How often its process woke late.
    pub self_stalls: u64,
    /// Services that its gateway offers.
    pub services: Vec<String>,
    /// The revision that it acknowledged; 0 if none is known.
    pub revision_acked: u64,
    /// The revision that it is to have.
    pub revision_current: u64,
}

/// A directed link.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// Which.
    pub id: LinkId,
    /// Whether routes may use it, as last judged.
    pub usable: bool,
    /// Whether the scheduler hears either end of it. If not, all else is what was known last.
    pub known: bool,
    /// Its liveness as the receiving relay sees it.
    pub inbound: State,
    /// Its liveness as the sending relay sees it.
    pub outbound: State,
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

/// The paths of an ordered pair in a class.
#[derive(Clone, Debug)]
pub struct RouteStatus {
    /// From.
    pub source: RelayId,
    /// To.
    pub destination: RelayId,
    /// For.
    pub class: Class,
    /// The path in use first, then its backups.
    pub candidates: Vec<Candidate>,
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
    /// Sums up these routes, of one class.
    pub(crate) fn of<'a>(routes: impl Iterator<Item = &'a [Candidate]>) -> Self {
        let mut pairs = 0;
        let mut gains = Vec::new();
        for candidates in routes {
            let direct = candidates
                .iter()
                .filter(|candidate| candidate.path.intermediates().is_empty())
                .map(|candidate| candidate.delay)
                .min();
            let (Some(best), Some(direct)) = (candidates.first(), direct) else { continue };
            pairs += 1;
            if !best.path.intermediates().is_empty() && best.delay < direct {
                gains.push(Micros(direct.0 - best.delay.0));
            }
        }
        gains.sort_unstable();
        let median_gain = gains.get(gains.len() / 2).copied().unwrap_or_default();
        Self { pairs, improved: gains.len(), median_gain }
    }
}
