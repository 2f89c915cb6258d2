//! Paths that were left lately, remembered by route.
//!
//! Mostly a route has one or none, but a mesh whose neighbours change together leaves tens of millions at once: so they
//! lie side by side, in twenty bytes each, and a row remembers [`ROW_MAX`].

use std::collections::BTreeMap;

use super::PlannerConfig;
use super::packed::Packed;

/// Paths remembered of a route, the last ones: a third alternative takes longer to try than the hold time.
pub(super) const LEFT_MAX: usize = 3;
/// Paths remembered of all routes of a row: all that a mesh of a thousand relays can leave. What is left beyond may be
/// taken again at once.
pub(super) const ROW_MAX: usize = 4_096;
/// In place of a time.
const NEVER: u32 = u32::MAX;

/// A path that was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) path: Packed,
    /// Links of it that were the reason, by a bit each. None if a better path came up.
    culprits: u8,
    /// Milliseconds since the planner's start, as all times here.
    at: u32,
    /// For how long it has to be better before it is taken again.
    pub(super) hold: u32,
    better_since: u32,
}

/// What a row remembers, by destination and in order of leaving.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    left: BTreeMap<(u16, u8), Left>,
}

impl Left {
    /// A path that is left now, for these of its links.
    pub(super) fn new(path: Packed, culprits: u8, hold: u32, now: u32) -> Self {
        Self { path, culprits, at: now, hold, better_since: NEVER }
    }

    pub(super) fn is_remembered(&self, config: &PlannerConfig, now: u32) -> bool {
        u128::from(now.saturating_sub(self.at)) < config.return_memory.as_millis()
    }

    /// The links that were the reason, of the path between these ends.
    pub(super) fn culprits(
        &self,
        (from, to): (usize, usize),
    ) -> impl Iterator<Item = (usize, usize, u8)> {
        let links = self.path.links(from, to).enumerate();
        let culprits = self.culprits;
        links.filter(move |(at, _)| culprits >> at & 1 == 1).map(|(_, link)| link)
    }

    /// Since when it, or a path over one of the culprits, has been better than the path in use, as far as one
    /// is.
    pub(super) fn better_since(&self) -> Option<u32> {
        (self.better_since != NEVER).then_some(self.better_since)
    }

    /// Notes whether it is better now.
    pub(super) fn note_better(&mut self, better: bool, now: u32) {
        self.better_since = if better { self.better_since.min(now) } else { NEVER };
    }
}

impl Memory {
    pub(super) fn contains(&self, to: u16) -> bool {
        !self.left.is_empty() && self.of(to).next().is_some()
    }

    /// What is remembered of a route, the first that was left first.
    pub(super) fn of(&self, to: u16) -> impl Iterator<Item = &Left> {
        self.left.range((to, 0)..=(to, u8::MAX)).map(|(_, left)| left)
    }

    /// Takes out what is remembered of a route.
    pub(super) fn take(&mut self, to: u16) -> Vec<Left> {
        if !self.contains(to) {
            return Vec::new();
        }
        (0..=u8::MAX).map_while(|nth| self.left.remove(&(to, nth))).collect()
    }

    /// Puts back what is remembered of a route, of which there is nothing in it.
    pub(super) fn put(&mut self, to: u16, left: Vec<Left>) {
        for (nth, left) in (0..).zip(left) {
            if self.left.len() >= ROW_MAX {
                return;
            }
            self.left.insert((to, nth), left);
        }
    }

    /// Forgets the paths that were left too long ago to matter.
    pub(super) fn expire(&mut self, config: &PlannerConfig, now: u32) {
        if self.left.values().all(|left| left.is_remembered(config, now)) {
            return;
        }
        let before = std::mem::take(&mut self.left);
        let mut next = (0, 0);
        for ((to, _), left) in before.into_iter().filter(|(_, it)| it.is_remembered(config, now)) {
            next = if next.0 == to { (to, next.1) } else { (to, 0) };
            self.left.insert(next, left);
            next.1 += 1;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.left.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::packed::Via;

    fn left(relay: u32, at: u32) -> Left {
        Left::new(Packed::new(Via::one(relay), [0; 3]), 0b10, 3_000, at)
    }

    #[test]
    fn what_was_left_is_kept_by_route_and_in_order() {
        let mut memory = Memory::default();
        memory.put(7, vec![left(1, 0), left(2, 5)]);
        memory.put(8, vec![left(3, 5)]);
        assert!(memory.contains(7) && memory.contains(8) && !memory.contains(6));
        assert_eq!(memory.of(7).map(|left| left.at).collect::<Vec<_>>(), [0, 5]);

        // What went is not in the way of what comes.
        let config = PlannerConfig::default();
        let then = u32::try_from(config.return_memory.as_millis()).unwrap() + 1;
        memory.expire(&config, then);
        assert_eq!(memory.take(7), [left(2, 5)]);
        assert_eq!(memory.take(7), []);
        assert_eq!(memory.take(8), [left(3, 5)]);
        assert_eq!(memory.len(), 0);
    }

    #[test]
    fn a_row_remembers_so_many_paths_and_no_more() {
        let mut memory = Memory::default();
        for to in 0..u16::try_from(ROW_MAX).unwrap() {
            memory.put(to, vec![left(1, 0), left(2, 0)]);
        }
        assert_eq!(memory.len(), ROW_MAX);
        assert_eq!(memory.take(0).len(), 2);
        memory.put(9_999, vec![left(1, 0)]);
        assert!(memory.contains(9_999));
    }

    #[test]
    fn culprits_are_links_of_the_path() {
        assert_eq!(left(5, 0).culprits((1, 2)).collect::<Vec<_>>(), [(5, 2, 0)]);
        let mut it = left(5, 0);
        assert_eq!(it.better_since(), None);
        it.note_better(true, 8);
        it.note_better(true, 9);
        assert_eq!(it.better_since(), Some(8));
        it.note_better(false, 10);
        assert_eq!(it.better_since(), None);
    }
}
