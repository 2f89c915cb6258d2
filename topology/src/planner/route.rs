//! One route's rules for leaving its path: see the module above.

use std::time::Duration;

use super::PlannerConfig;
use super::left::{LEFT_MAX, Left};
use super::links::Links;
use super::packed::Packed;
use super::table::{IN_USE, Priced, Record, cost, price};
use crate::Cost;

/// A link that rose by more than this since its path was last the best is a reason for leaving it.
const CULPRIT_RISE: u32 = 1_000;

/// What became of a route in one plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Its path is still in use.
    Stayed,
    /// Its path could not be used any more.
    LeftUnusable,
    /// Another path is better.
    LeftForBetter,
    /// Another path is better, but was left lately.
    Held,
}

/// A backup of the last plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) path: Packed,
    pub(super) cost: u32,
    /// One that costs less takes its place: nothing else needs to be searched for.
    pub(super) limit: u32,
}

/// Where a route's rules are applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) links: &'a Links,
    pub(super) class: usize,
    /// Zero for relays that may be intermediates.
    pub(super) carriers: &'a [u32],
    pub(super) ends: (usize, usize),
    pub(super) config: &'a PlannerConfig,
    /// Milliseconds since the planner's start.
    pub(super) now: u32,
    /// Pairs that were first planned since then are new.
    pub(super) new_since: u32,
}

impl Place<'_> {
    /// What a path costs, or `None` if a link or a relay of it cannot be used.
    pub(super) fn price(&self, path: Packed) -> Option<Priced> {
        if self.carries(path) { price(self.links, self.class, path, self.ends) } else { None }
    }

    /// What a path costs, or `None` if a link or a relay of it cannot be used. It may be known if all can.
    pub(super) fn cost(&self, path: Packed, known: Option<u32>) -> Option<u32> {
        if !self.carries(path) {
            return None;
        }
        known.or_else(|| cost(self.links, self.class, path, self.ends))
    }

    fn carries(&self, path: Packed) -> bool {
        path.via().relays().iter().all(|relay| self.carriers[usize::from(*relay)] == 0)
    }

    fn links_of(&self, path: Packed) -> impl Iterator<Item = (usize, usize, u8)> {
        path.links(self.ends.0, self.ends.1)
    }

    /// Keeps the path in use or takes `best`, which costs so much; certainly if the path in use is to be left.
    /// Returns what the path in use costs then.
    pub(super) fn consider(
        &self,
        record: &mut Record,
        left: &mut Vec<Left>,
        (best, cost): (Packed, u32),
        leave: bool,
    ) -> (Move, u32) {
        if best == record.in_use() {
            self.review_left(record, left, best, Some(cost));
            self.normalise(record, cost);
            return (Move::Stayed, cost);
        }
        let current = self.cost(record.in_use(), None).filter(|_| !leave);
        self.review_left(record, left, best, current);
        let Some(current) = current else {
            self.leave(record, left, best);
            return (Move::LeftUnusable, cost);
        };
        if self.is_near(record, current, cost) {
            return (Move::Stayed, current);
        }
        if self.is_new(record) {
            self.take(record, left, best);
            return (Move::LeftForBetter, cost);
        }
        let normal = Cost(record.normal.iter().sum());
        if self.is_held(record.in_use(), left, best).is_some()
            && !self.config.degraded.exceeded(Cost(current), normal)
        {
            return (Move::Held, current);
        }
        self.leave(record, left, best);
        (Move::LeftForBetter, cost)
    }

    /// Whether a path in use that costs so much stays though the best costs less.
    pub(super) fn is_near(&self, record: &Record, current: u32, best: u32) -> bool {
        if self.is_new(record) {
            best >= current
        } else {
            !self.config.gain.exceeded(Cost(current), Cost(best))
        }
    }

    /// While a pair is new, it takes the best freely.
    fn is_new(&self, record: &Record) -> bool {
        record.first_seen >= self.new_since
    }

    /// Notes what the links of the path in use cost, which is the best for so much.
    pub(super) fn normalise(&self, record: &mut Record, cost: u32) {
        if record.normal.iter().sum::<u32>() != cost {
            record.normal = self.costs(record.in_use());
        }
    }

    /// What each link of a path costs.
    pub(super) fn costs(&self, path: Packed) -> [u32; 3] {
        self.price(path).map_or([0; 3], |priced| priced.costs)
    }

    fn take(&self, record: &mut Record, left: &mut Vec<Left>, best: Packed) {
        record.paths[IN_USE] = best;
        record.normal = self.costs(best);
        record.in_use_since = self.now;
        record.moves = record.moves.saturating_add(1);
        left.retain(|left| left.path != best);
    }

    fn leave(&self, record: &mut Record, left: &mut Vec<Left>, best: Packed) {
        let path = record.in_use();
        let links = self.links_of(path).zip(record.normal);
        let mut culprits = 0;
        for (at, ((from, to, index), normal)) in links.enumerate() {
            let hop = self.links.line(self.class, from, to, index);
            let rose = hop.is_none_or(|hop| hop.cost > normal + CULPRIT_RISE);
            culprits |= u8::from(rose) << at;
        }
        let mut new = Left::new(path, culprits, 0, self.now);
        new.hold = self.hold(&new, left);
        self.take(record, left, best);
        left.retain(|before| before.path != path);
        if left.len() >= LEFT_MAX {
            left.remove(0);
        }
        left.push(new);
    }

    /// How long a path that is left has to hold: the whole time if one of the links for which it is loses or failed,
    /// else for delay, twice as long as last time if one of them was left for before.
    fn hold(&self, new: &Left, left: &[Left]) -> u32 {
        let millis = |hold: Duration| u32::try_from(hold.as_millis()).unwrap_or(u32::MAX);
        let most = millis(self.config.return_hold);
        let loses = |(from, to, index): (usize, usize, u8)| {
            self.links.line(self.class, from, to, index).is_none_or(|hop| hop.lossy)
        };
        if new.culprits(self.ends).any(loses) {
            return most;
        }
        let again = |before: &&Left| {
            let blamed = |link| new.culprits(self.ends).any(|culprit| culprit == link);
            before.culprits(self.ends).any(blamed)
        };
        let twice = left.iter().filter(again).map(|before| before.hold.saturating_mul(2)).max();
        twice.unwrap_or(millis(self.config.return_hold_delay)).min(most)
    }

    /// Notes which of the paths left are better than the one in use, or stand in the way of `best` which is,
    /// and forgets the oldest.
    fn review_left(
        &self,
        record: &Record,
        left: &mut Vec<Left>,
        best: Packed,
        current: Option<u32>,
    ) {
        if left.is_empty() {
            return;
        }
        left.retain(|left| left.is_remembered(self.config, self.now));
        let is_better = |path: Packed| match (self.cost(path, None), current) {
            (Some(cost), Some(current)) => cost < current,
            (Some(_), None) => true,
            (None, _) => false,
        };
        for left in left {
            let blamed = self.blames(left, best, record.in_use()) && is_better(best);
            let better = is_better(left.path) || blamed;
            left.note_better(better, self.now);
        }
    }

    /// Whether `path` has a link for which a path was left, and which is not in use.
    fn blames(&self, left: &Left, path: Packed, in_use: Packed) -> bool {
        let used = |link| self.links_of(in_use).any(|other| other == link);
        let blamed = |link| left.culprits(self.ends).any(|culprit| culprit == link);
        self.links_of(path).any(|link| blamed(link) && !used(link))
    }

    /// If `best` was left lately, or has a link for which a path was: for how many milliseconds more it is
    /// not to be taken again.
    pub(super) fn is_held(&self, in_use: Packed, left: &[Left], best: Packed) -> Option<u32> {
        let holds = |left: &&Left| left.path == best || self.blames(left, best, in_use);
        let remaining = left.iter().filter(holds).map(|left| {
            let held = left.better_since().map_or(0, |since| self.now.saturating_sub(since));
            left.hold.saturating_sub(held)
        });
        remaining.max().filter(|remaining| *remaining > 0)
    }

    /// A backup of the last plan that stays unless one is found that is clearly cheaper; `None` if it cannot be used.
    /// What it costs may be known.
    pub(super) fn keep(&self, path: Packed, known: Option<u32>) -> Option<Kept> {
        let cost = self.cost(path, known)?;
        Some(Kept { path, cost, limit: self.config.gain.limit(Cost(cost)).0 })
    }
}
