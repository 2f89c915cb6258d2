//! One route's memory, and the rules by which it leaves its path: see the module above.

use std::time::Instant;

use overway_wire::{LinkId, Path, RelayId};

use super::PlannerConfig;
use crate::Cost;
use crate::paths::{Avoid, Mesh, links_of};

/// Paths remembered as left, the last ones: a third alternative takes longer to try than the hold time.
pub(super) const LEFT_MAX: usize = 3;
/// A link that rose by more than this since its path was last the best is a reason for leaving it.
const CULPRIT_RISE: Cost = Cost(1_000);

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

/// What is remembered of a route.
#[derive(Clone, Debug)]
pub(super) struct Route {
    in_use: Path,
    /// What each link of the path cost when the path was last the best.
    normal: Vec<Cost>,
    first_seen: Instant,
    /// Oldest first, at most [`LEFT_MAX`].
    pub(super) left: Vec<Left>,
    backups: Vec<Path>,
}

/// A path that was left.
#[derive(Clone, Debug)]
pub(super) struct Left {
    path: Path,
    /// Links that were the reason. None if a better path came up.
    culprits: Vec<LinkId>,
    at: Instant,
    /// Since when it, or a path over one of the culprits, has been better than the path in use, as far as one
    /// is.
    better_since: Option<Instant>,
}

impl Route {
    /// A new pair's route.
    pub(super) fn new(best: Path, normal: Vec<Cost>, now: Instant) -> Self {
        Self { in_use: best, normal, first_seen: now, left: Vec::new(), backups: Vec::new() }
    }

    /// The path in use.
    pub(super) fn in_use(&self) -> Path {
        self.in_use
    }

    /// Keeps the path in use or takes `best`.
    pub(super) fn consider(
        &mut self,
        source: RelayId,
        best: Path,
        mesh: &Mesh,
        config: &PlannerConfig,
        now: Instant,
    ) -> Move {
        let current = mesh.price(source, &self.in_use).map(|priced| priced.cost);
        self.review_left(source, (&best, current), mesh, config, now);
        let Some(current) = current else {
            self.leave(source, best, mesh, now);
            return Move::LeftUnusable;
        };
        if best == self.in_use {
            self.normal = mesh.link_costs(source, &best);
            return Move::Stayed;
        }
        let cost = mesh.price(source, &best).expect("the search finds usable paths").cost;
        if now.saturating_duration_since(self.first_seen) < config.settle {
            return self.take_if_cheaper(source, best, cost < current, mesh);
        }
        if !config.gain.exceeded(current, cost) {
            return Move::Stayed;
        }
        let normal = self.normal.iter().fold(Cost(0), |sum, &cost| sum + cost);
        if self.is_held(source, &best, config, now) && !config.degraded.exceeded(current, normal) {
            return Move::Held;
        }
        self.leave(source, best, mesh, now);
        Move::LeftForBetter
    }

    fn take_if_cheaper(&mut self, source: RelayId, best: Path, cheaper: bool, mesh: &Mesh) -> Move {
        if !cheaper {
            return Move::Stayed;
        }
        self.take(source, best, mesh);
        Move::LeftForBetter
    }

    fn take(&mut self, source: RelayId, best: Path, mesh: &Mesh) {
        self.in_use = best;
        self.normal = mesh.link_costs(source, &best);
        self.left.retain(|left| left.path != best);
    }

    fn leave(&mut self, source: RelayId, best: Path, mesh: &Mesh, now: Instant) {
        let links = links_of(source, &self.in_use).zip(&self.normal);
        let rose = |&(id, &normal): &(LinkId, &Cost)| {
            mesh.link(id).is_none_or(|link| link.cost > normal + CULPRIT_RISE)
        };
        let culprits = links.filter(rose).map(|(id, _)| id).collect();
        let left = Left { path: self.in_use, culprits, at: now, better_since: None };
        self.take(source, best, mesh);
        self.left.retain(|before| before.path != left.path);
        if self.left.len() >= LEFT_MAX {
            self.left.remove(0);
        }
        self.left.push(left);
    }

    /// Notes which of the paths left are better than the one in use, or stand in the way of `best` which is,
    /// and forgets the oldest.
    fn review_left(
        &mut self,
        source: RelayId,
        (best, current): (&Path, Option<Cost>),
        mesh: &Mesh,
        config: &PlannerConfig,
        now: Instant,
    ) {
        self.left.retain(|left| now.saturating_duration_since(left.at) < config.return_memory);
        let is_better = |path: &Path| {
            let cost = mesh.price(source, path).map(|priced| priced.cost);
            match (cost, current) {
                (Some(cost), Some(current)) => cost < current,
                (Some(_), None) => true,
                (None, _) => false,
            }
        };
        let in_use = self.in_use;
        for left in &mut self.left {
            let better =
                is_better(&left.path) || left.blames(source, best, &in_use) && is_better(best);
            left.better_since = if better { left.better_since.or(Some(now)) } else { None };
        }
    }

    /// Whether `best` was left lately, or has a link for which a path was.
    fn is_held(&self, source: RelayId, best: &Path, config: &PlannerConfig, now: Instant) -> bool {
        let holds = |left: &&Left| left.path == *best || left.blames(source, best, &self.in_use);
        self.left.iter().filter(holds).any(|left| {
            left.better_since
                .is_none_or(|since| now.saturating_duration_since(since) < config.return_hold)
        })
    }

    /// The backup of a slot: the one of the last plan, unless it is not allowed, not usable, or clearly
    /// dearer than `found`.
    pub(super) fn backup(
        &self,
        slot: usize,
        source: RelayId,
        found: Path,
        mesh: &Mesh,
        avoid: &Avoid,
        config: &PlannerConfig,
    ) -> Path {
        let Some(kept) = self.backups.get(slot).filter(|path| avoid.allows(path)) else {
            return found;
        };
        let cost = |path| mesh.price(source, path).map(|priced| priced.cost);
        match (cost(kept), cost(&found)) {
            (Some(kept_cost), Some(cost)) if !config.gain.exceeded(kept_cost, cost) => *kept,
            (Some(_) | None, _) => found,
        }
    }

    /// Remembers the backups of this plan.
    pub(super) fn remember_backups(&mut self, backups: impl Iterator<Item = Path>) {
        self.backups.clear();
        self.backups.extend(backups);
    }
}

impl Left {
    /// Whether `path` has a link for which this one was left, and which is not in use.
    fn blames(&self, source: RelayId, path: &Path, in_use: &Path) -> bool {
        let used = |id: &LinkId| links_of(source, in_use).any(|other| other == *id);
        links_of(source, path).any(|id| self.culprits.contains(&id) && !used(&id))
    }
}
