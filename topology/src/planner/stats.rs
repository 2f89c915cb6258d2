//! What the planner counts.

use super::route::Move;
use super::table::Record;

/// What the planner did since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Plans made.
    pub plans: u64,
    /// Of these, plans for which every route was looked at.
    pub plans_whole: u64,
    /// Routes looked at.
    pub routes_done: u64,
    /// Routes now.
    pub routes: u64,
    /// Of these, routes without a path that shares no relay with the one in use.
    pub routes_without_disjoint: u64,
    /// Of these, routes without a path that avoids the providers or the regions of the one in use.
    pub routes_without_diverse: u64,
    /// Fits of the clocks' offsets.
    pub fits: u64,
    /// Paths left because they could not be used.
    pub left_unusable: u64,
    /// Paths left for a cheaper one, new pairs included.
    pub left_for_better: u64,
    /// Times that a route was looked at, and a cheaper path not taken since it had been left lately.
    pub returns_held: u64,
}

impl Stats {
    pub(super) fn count(&mut self, moved: Move) {
        match moved {
            Move::Stayed => {}
            Move::LeftUnusable => self.left_unusable += 1,
            Move::LeftForBetter => self.left_for_better += 1,
            Move::Held => self.returns_held += 1,
        }
        self.routes_done += 1;
    }

    /// Counts a route as it is instead of as it was.
    pub(super) fn tally(&mut self, before: &Record, after: &Record) {
        let counts = [
            (&mut self.routes, before.exists(), after.exists()),
            (&mut self.routes_without_disjoint, before.lacks_disjoint(), after.lacks_disjoint()),
            (&mut self.routes_without_diverse, before.lacks_diverse(), after.lacks_diverse()),
        ];
        for (count, before, after) in counts {
            // Wraps within one part of the work; the sum of all parts is right.
            *count = count.wrapping_add(u64::from(after)).wrapping_sub(u64::from(before));
        }
    }

    /// Adds what some part of the work counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.left_unusable += other.left_unusable;
        self.left_for_better += other.left_for_better;
        self.returns_held += other.returns_held;
        self.routes_done += other.routes_done;
        let Self { routes, routes_without_disjoint, routes_without_diverse, .. } = other;
        self.routes = self.routes.wrapping_add(*routes);
        self.routes_without_disjoint =
            self.routes_without_disjoint.wrapping_add(*routes_without_disjoint);
        self.routes_without_diverse =
            self.routes_without_diverse.wrapping_add(*routes_without_diverse);
    }
}
