//! What local ends asked this relay to send: bits per second by destination relay, class and policy, over
//! the last whole second.
//!
//! Every frame counts that this relay should carry as a source, sent or not: a demand that finds no path is
//! one that the scheduler should find a place for. What a tenant's edges send counts under the policy whose routes it
//! takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overway_wire::control::{DEMANDS_MAX, Demand};
use overway_wire::{Class, PolicyId, RelayId};

/// What a demand is measured over.
const WINDOW: Duration = Duration::from_secs(1);
/// Demands counted in one window; frames of further ones are not counted, until the next window. Four
/// times as many as are told: all destinations of a mesh of 5,000 in three classes.
const COUNTED_MAX: usize = 4 * DEMANDS_MAX;

/// Whose demand it is.
type Key = (RelayId, Class, PolicyId);

/// The demands of a relay's own ends.
#[derive(Debug, Default)]
pub(crate) struct Demands {
    /// When the window that counts now began.
    since: Option<Instant>,
    /// Bytes asked for in it.
    counting: BTreeMap<Key, u64>,
    /// Bytes asked for in the window before it.
    counted: BTreeMap<Key, u64>,
}

impl Demands {
    /// Counts a frame; says whether there was room to.
    pub(crate) fn count(&mut self, key: Key, bytes: usize, now: Instant) -> bool {
        self.turn(now);
        if self.counting.len() >= COUNTED_MAX && !self.counting.contains_key(&key) {
            return false;
        }
        *self.counting.entry(key).or_default() += bytes as u64;
        true
    }

    /// Begins a new window if the one that counts is over. No frame was counted in it after its end, or it
    /// would have turned then.
    fn turn(&mut self, now: Instant) {
        let Some(since) = self.since else {
            self.since = Some(now);
            return;
        };
        let age = now.saturating_duration_since(since);
        if age < WINDOW {
            return;
        }
        self.counted = std::mem::take(&mut self.counting);
        if age >= 2 * WINDOW {
            self.counted.clear();
        }
        self.since = Some(now);
    }

    /// The demands of the last whole window, the greatest first, at most [`DEMANDS_MAX`].
    pub(crate) fn list(&mut self, now: Instant) -> Vec<Demand> {
        self.turn(now);
        let demand = |(&(destination, class, policy), &bytes): (&Key, &u64)| Demand {
            destination: u32::from(destination.0),
            class: u32::from(class.code()),
            policy: u32::from(policy.0),
            bps: bytes.saturating_mul(8),
        };
        let mut demands: Vec<Demand> = self.counted.iter().map(demand).collect();
        // Stable, so that equals stay in the order of their keys.
        demands.sort_by_key(|demand| std::cmp::Reverse(demand.bps));
        demands.truncate(DEMANDS_MAX);
        demands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(relay: u16) -> Key {
        (RelayId(relay), Class::Bulk, PolicyId(3))
    }

    fn demand(relay: u16, bps: u64) -> Demand {
        Demand { destination: relay.into(), class: 2, policy: 3, bps }
    }

    #[test]
    fn demands_are_of_the_last_second_and_the_greatest_comes_first() {
        let start = Instant::now();
        let mut demands = Demands::default();
        for ms in 0..1_000 {
            let now = start + Duration::from_millis(ms);
            assert!(demands.count(key(1), 100, now));
            assert!(demands.count(key(2), 250, now));
        }
        assert_eq!(demands.list(start + Duration::from_millis(999)), []);

        let told = demands.list(start + WINDOW);
        assert_eq!(told, [demand(2, 2_000_000), demand(1, 800_000)]);

        demands.count(key(1), 100, start + WINDOW * 3 / 2);
        assert_eq!(demands.list(start + WINDOW * 2), [demand(1, 800)]);
        assert_eq!(demands.list(start + WINDOW * 3), []);
    }

    #[test]
    fn a_pause_of_a_second_ends_a_demand_whenever_it_is_asked_for() {
        let start = Instant::now();
        let mut demands = Demands::default();
        demands.count(key(1), 100, start);

        assert_eq!(demands.list(start + WINDOW * 60), []);
    }

    #[test]
    fn there_are_never_more_than_the_bounds_and_the_greatest_are_told() {
        let start = Instant::now();
        let mut demands = Demands::default();
        for relay in 0..u16::try_from(COUNTED_MAX).unwrap() {
            assert!(demands.count(key(relay), usize::from(relay), start));
        }
        assert!(!demands.count(key(u16::MAX), 9, start));

        let told = demands.list(start + WINDOW);

        assert_eq!(told.len(), DEMANDS_MAX);
        assert_eq!(told[0].destination as usize, COUNTED_MAX - 1);
        assert_eq!(told[DEMANDS_MAX - 1].destination as usize, COUNTED_MAX - DEMANDS_MAX);
    }
}
