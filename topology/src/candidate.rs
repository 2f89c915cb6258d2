//! What a route is: an ordered pair, a class and a policy, and the paths that it may take.

use overway_wire::{Class, Micros, Path, PolicyId, RelayId};

use crate::Cost;

/// Paths that a route holds: the one in use, one that shares no relay with it, one that avoids its providers or
/// regions, and the direct one, or a further one where there is no direct link.
pub const CANDIDATES_MAX: usize = 4;

/// Which route: an ordered pair of relays and a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The relay that chooses among the candidates.
    pub source: RelayId,
    /// The relay to which they lead.
    pub destination: RelayId,
    /// The class whose costs count.
    pub class: Class,
    /// Whose relays it may use; 0: any.
    pub policy: PolicyId,
}

/// Why a path is a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The path in use: the cheapest, or one that is not worth leaving.
    Best,
    /// The cheapest of those that share no intermediate with the one in use.
    Disjoint,
    /// The cheapest of those that avoid the providers of the one in use, or else its regions.
    Diverse,
    /// The same relays by other links; there is no disjoint path.
    Parallel,
    /// The direct link, kept as a competitor.
    Direct,
    /// There is no direct link: the cheapest path that shares no relay with the best and the disjoint one, or else
    /// one that shares as few as can be.
    Further,
}

/// A path that a route may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The source route.
    pub path: Path,
    /// Sum of its links' costs.
    pub cost: Cost,
    /// Sum of its links' one-way delays. Only as good as the fit of the clocks: differences between
    /// paths of the same ends are exact, the value itself is an estimate.
    pub delay: Micros,
    /// Why it is here.
    pub reason: Reason,
}

impl Candidate {
    /// Whether no relay is between the ends, whatever the reason for which it is a candidate.
    pub fn is_direct(&self) -> bool {
        self.path.intermediates().is_empty()
    }
}
