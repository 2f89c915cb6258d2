//! The result of planning: for each ordered pair and class the path in use and its backups, and what
//! changed since the last one.

use std::collections::BTreeMap;

use overway_wire::{Class, Micros, Path, PolicyId, RelayId};

use crate::Cost;

/// Paths that a route holds: the one in use, two disjoint backups, and the direct one.
pub const CANDIDATES_MAX: usize = 4;

/// Growth or shrinkage of a candidate's delay that is worth a push: a relay uses it for time budgets
/// and for people only, where a fifth does not matter.
const DELAY_CHANGE_PERCENT_MIN: u64 = 20;
/// Below this a change of delay is not worth a push, whatever its share.
const DELAY_CHANGE_MIN: Micros = Micros(5_000);

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

/// Every route: the path in use first, then its backups, at most [`CANDIDATES_MAX`]. A pair without any
/// usable path has no entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Candidates by route; never empty lists.
    pub routes: BTreeMap<RouteKey, Vec<Candidate>>,
}

/// One difference between two plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteChange {
    /// The route is new or has other candidates.
    Put {
        /// Which route.
        key: RouteKey,
        /// Its candidates, the one in use first.
        candidates: Vec<Candidate>,
    },
    /// The route has no path any more.
    Removed {
        /// Which route.
        key: RouteKey,
    },
}

impl Candidate {
    /// Whether no relay is between the ends, whatever the reason for which it is a candidate.
    pub fn is_direct(&self) -> bool {
        self.path.intermediates().is_empty()
    }
}

impl Plan {
    /// Makes the change in this plan.
    pub fn apply(&mut self, change: RouteChange) {
        match change {
            RouteChange::Put { key, candidates } => {
                self.routes.insert(key, candidates);
            }
            RouteChange::Removed { key } => {
                self.routes.remove(&key);
            }
        }
    }
}

/// What must be told to those who hold `old` so that they hold `new`, in order of key.
///
/// Costs are not compared, and delays only beyond what a relay would notice, or every epoch would
/// push everything. Hence keep as `old` the plan that was told ([`Plan::apply`]), not the one computed
/// last, or a slow drift of the delays is never told.
pub(crate) fn diff(old: &Plan, new: &Plan) -> Vec<RouteChange> {
    let removed = old.routes.keys().filter(|key| !new.routes.contains_key(key));
    let removed = removed.map(|&key| RouteChange::Removed { key });
    let put = new.routes.iter().filter(|(key, candidates)| {
        old.routes.get(key).is_none_or(|before| !same_to_a_relay(before, candidates))
    });
    let put =
        put.map(|(&key, candidates)| RouteChange::Put { key, candidates: candidates.clone() });
    let mut changes: Vec<_> = removed.chain(put).collect();
    changes.sort_by_key(RouteChange::key);
    changes
}

impl RouteChange {
    /// Which route changes.
    pub fn key(&self) -> RouteKey {
        match self {
            Self::Put { key, .. } | Self::Removed { key } => *key,
        }
    }
}

fn same_to_a_relay(old: &[Candidate], new: &[Candidate]) -> bool {
    old.len() == new.len()
        && old
            .iter()
            .zip(new)
            .all(|(old, new)| old.path == new.path && !delay_changed(old.delay, new.delay))
}

fn delay_changed(old: Micros, new: Micros) -> bool {
    let change = old.0.abs_diff(new.0);
    change >= DELAY_CHANGE_MIN.0
        && u64::from(change) * 100 >= u64::from(old.0) * DELAY_CHANGE_PERCENT_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::{LinkIndex, PathElement};

    fn candidate(relays: &[u16], delay_us: u32) -> Candidate {
        let steps: Vec<_> =
            relays.iter().map(|&id| PathElement::new(RelayId(id), LinkIndex::default())).collect();
        let path = Path::new(&steps).unwrap();
        Candidate { path, cost: Cost(delay_us), delay: Micros(delay_us), reason: Reason::Best }
    }

    fn key(source: u16, destination: u16) -> RouteKey {
        let (class, policy) = (Class::Realtime, PolicyId::default());
        RouteKey { source: RelayId(source), destination: RelayId(destination), class, policy }
    }

    fn plan(routes: &[(RouteKey, &[Candidate])]) -> Plan {
        Plan { routes: routes.iter().map(|&(key, list)| (key, list.to_vec())).collect() }
    }

    #[test]
    fn applying_the_difference_gives_the_new_plan() {
        let direct = candidate(&[2], 10_000);
        let around = candidate(&[3, 2], 20_000);
        let old = plan(&[(key(1, 2), &[direct]), (key(1, 3), &[candidate(&[3], 500)])]);
        let new = plan(&[(key(1, 2), &[direct, around]), (key(2, 1), &[candidate(&[1], 900)])]);

        let changes = diff(&old, &new);

        let keys: Vec<_> = changes.iter().map(RouteChange::key).collect();
        assert_eq!(keys, [key(1, 2), key(1, 3), key(2, 1)]);
        let mut told = old;
        changes.into_iter().for_each(|change| told.apply(change));
        assert_eq!(told, new);
    }

    #[test]
    fn the_order_of_candidates_is_a_change() {
        let (direct, around) = (candidate(&[2], 10_000), candidate(&[3, 2], 20_000));
        let old = plan(&[(key(1, 2), &[direct, around])]);
        let new = plan(&[(key(1, 2), &[around, direct])]);

        assert_eq!(diff(&old, &new).len(), 1);
        assert_eq!(diff(&new, &new), []);
    }

    #[test]
    fn a_drift_of_the_delay_is_told_once_it_matters() {
        let old = plan(&[(key(1, 2), &[candidate(&[2], 40_000)])]);

        let little = plan(&[(key(1, 2), &[candidate(&[2], 46_000)])]);
        let much = plan(&[(key(1, 2), &[candidate(&[2], 48_000)])]);

        assert_eq!(diff(&old, &little), []);
        assert_eq!(diff(&old, &much).len(), 1);
    }
}
