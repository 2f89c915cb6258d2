//! The shares of the routes that are split over several paths.
//!
//! Most routes have none: all of their traffic takes the first path. Shares move at once where a split asks for it,
//! and not for less than [`STEP_MIN`]; all traffic goes back to the first path only after that has been asked for
//! without pause for [`RETURN_HOLD`], since demand comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use overway_topology::{Candidate, RouteKey};
use overway_wire::Path;
use overway_wire::control::WEIGHT_SUM;

/// A change of a share that is worth a push, in thousandths: less is lost in how flows happen to be spread.
const STEP_MIN: u16 = 30;
/// The same for a split that moved lately: demand wavers from second to second.
const FRESH_STEP_MIN: u16 = 150;
/// For how long it counts as such.
const MOVE_SPACING: Duration = Duration::from_secs(5);
/// How long a split is kept that is no longer needed. Bursts of users' traffic come again within seconds.
const RETURN_HOLD: Duration = Duration::from_secs(10);

/// See the module. Routes that are split are a few of those that have demand, of which the scheduler takes a bounded
/// number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weights(BTreeMap<RouteKey, Split>);

#[derive(Clone, Debug)]
struct Split {
    shares: Vec<(Path, u16)>,
    moved: Instant,
    /// Since when it is no longer needed.
    idle_since: Option<Instant>,
}

impl Weights {
    /// Routes that are split.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The shares of a route's candidates; empty where all goes over the first.
    pub(crate) fn of(&self, key: RouteKey, candidates: &[Candidate]) -> Vec<u16> {
        self.of_paths(key, candidates.iter().map(|candidate| candidate.path))
    }

    /// The same by the candidates' paths.
    pub(crate) fn of_paths(&self, key: RouteKey, paths: impl Iterator<Item = Path>) -> Vec<u16> {
        let Some(split) = self.0.get(&key) else { return Vec::new() };
        let share = |path: Path| {
            let known = split.shares.iter().find(|(known, _)| *known == path);
            known.map_or(0, |(_, share)| *share)
        };
        let mut shares: Vec<u16> = paths.map(share).collect();
        let whole = u16::try_from(WEIGHT_SUM).expect("thousandths are few");
        let Some(first) = shares.first().copied() else { return shares };
        // What was on a path that is gone takes the first.
        let left: u16 = shares.iter().sum();
        shares[0] = first + whole.saturating_sub(left);
        if shares[0] == whole { Vec::new() } else { shares }
    }

    /// Takes the shares that a route is to have; says whether they change for its source.
    pub(crate) fn set(
        &mut self,
        key: RouteKey,
        candidates: &[Candidate],
        shares: &[u16],
        now: Instant,
    ) -> bool {
        let before = self.of(key, candidates);
        if shares.iter().skip(1).all(|share| *share == 0) {
            return self.relax(key, !before.is_empty(), now);
        }
        if let Some(split) = self.0.get_mut(&key) {
            split.idle_since = None;
            let fresh = now.saturating_duration_since(split.moved) < MOVE_SPACING;
            let step = if fresh { FRESH_STEP_MIN } else { STEP_MIN };
            let near = |(a, b): (&u16, &u16)| a.abs_diff(*b) < step;
            if before.len() == shares.len() && before.iter().zip(shares).all(near) {
                return false;
            }
        }
        let paths = candidates.iter().map(|candidate| candidate.path);
        let shares = paths.zip(shares.iter().copied()).collect();
        self.0.insert(key, Split { shares, moved: now, idle_since: None });
        true
    }

    /// Routes other than these have no demand any more; returns those that change for their source.
    pub(crate) fn keep(&mut self, demanded: &BTreeSet<RouteKey>, now: Instant) -> Vec<RouteKey> {
        let gone = self.0.keys().filter(|key| !demanded.contains(key));
        let gone: Vec<RouteKey> = gone.copied().collect();
        gone.into_iter().filter(|&key| self.relax(key, true, now)).collect()
    }

    /// A route's split is not needed now; says whether it ends.
    fn relax(&mut self, key: RouteKey, shown: bool, now: Instant) -> bool {
        let Some(split) = self.0.get_mut(&key) else { return false };
        let since = *split.idle_since.get_or_insert(now);
        if shown && now.saturating_duration_since(since) < RETURN_HOLD {
            return false;
        }
        self.0.remove(&key);
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_topology::{Cost, Reason};
    use overway_wire::{Class, LinkIndex, Micros, PathElement, PolicyId, RelayId};

    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn key() -> RouteKey {
        RouteKey {
            source: RelayId(1),
            destination: RelayId(2),
            class: Class::Bulk,
            policy: PolicyId::default(),
        }
    }

    fn over(relays: &[u16]) -> Candidate {
        let steps: Vec<_> = relays
            .iter()
            .map(|&relay| PathElement::new(RelayId(relay), LinkIndex::default()))
            .collect();
        let path = Path::new(&steps).unwrap();
        Candidate { path, cost: Cost(1), delay: Micros(1), reason: Reason::Best }
    }

    #[test]
    fn a_split_is_taken_at_once_and_left_after_a_while() {
        let now = start();
        let paths = [over(&[2]), over(&[3, 2])];
        let mut weights = Weights::default();
        assert!(!weights.set(key(), &paths, &[1_000, 0], now));
        assert!(weights.set(key(), &paths, &[700, 300], now));
        assert!(!weights.set(key(), &paths, &[690, 310], now), "too little");
        assert_eq!(weights.of(key(), &paths), [700, 300]);
        assert!(!weights.set(key(), &paths, &[600, 400], now), "it moved just now");
        assert!(weights.set(key(), &paths, &[500, 500], now));
        assert!(weights.set(key(), &paths, &[600, 400], now + MOVE_SPACING));
        let now = now + MOVE_SPACING;

        assert!(!weights.set(key(), &paths, &[1_000, 0], now));
        assert!(!weights.set(key(), &paths, &[1_000, 0], now + RETURN_HOLD / 2));
        assert_eq!(weights.of(key(), &paths), [600, 400]);
        assert!(weights.set(key(), &paths, &[1_000, 0], now + RETURN_HOLD));
        assert_eq!((weights.of(key(), &paths), weights.len()), (vec![], 0));
    }

    #[test]
    fn shares_follow_their_paths_and_what_is_gone_takes_the_first() {
        let now = start();
        let mut weights = Weights::default();
        weights.set(key(), &[over(&[2]), over(&[3, 2]), over(&[4, 2])], &[500, 300, 200], now);

        assert_eq!(weights.of(key(), &[over(&[4, 2]), over(&[2])]), [500, 500]);
        assert_eq!(weights.of(key(), &[over(&[2]), over(&[5, 2])]), Vec::<u16>::new());
    }

    #[test]
    fn routes_without_demand_lose_their_split_in_the_end() {
        let now = start();
        let mut weights = Weights::default();
        weights.set(key(), &[over(&[2]), over(&[3, 2])], &[500, 500], now);

        assert_eq!(weights.keep(&BTreeSet::new(), now), []);
        assert_eq!(weights.keep(&BTreeSet::new(), now + RETURN_HOLD), [key()]);
        assert_eq!(weights.len(), 0);
    }
}
