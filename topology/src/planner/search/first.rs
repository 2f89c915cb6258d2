//! The way to a relay over the first relay of some kind.

use super::nearest::Nearest;
use super::{NONE, Terrain};
use crate::planner::kernel::{WAYS, Ways};

/// What ways from a source may begin with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Firsts<'a> {
    pub(super) source: usize,
    /// The cheapest over each of three first relays.
    pub(super) ways: &'a Ways,
    /// All first relays with what their own links cost.
    pub(super) order: &'a Nearest,
}

impl Firsts<'_> {
    /// The cheapest way to a relay whose first relay is allowed, if it costs less than so much: cost and first relay.
    /// Mostly it is one of those kept.
    pub(super) fn way(
        &self,
        terrain: &Terrain<'_>,
        to: usize,
        limit: u32,
        is_allowed: impl Fn(u32) -> bool + Copy,
    ) -> Option<(u32, u32)> {
        let kept = self.kept(to, limit, is_allowed);
        kept.unwrap_or_else(|| self.scan(terrain, to, limit, is_allowed))
    }

    /// The same, if those kept tell.
    #[inline]
    pub(super) fn kept(
        &self,
        to: usize,
        limit: u32,
        is_allowed: impl Fn(u32) -> bool,
    ) -> Option<Option<(u32, u32)>> {
        for rank in 0..WAYS {
            let (cost, first) = self.ways.get(rank, to);
            if cost >= limit.min(NONE) {
                return Some(None);
            }
            if is_allowed(first) {
                return Some(Some((cost, first)));
            }
        }
        None
    }

    /// The same, looked for among all first relays.
    pub(super) fn scan(
        &self,
        terrain: &Terrain<'_>,
        to: usize,
        limit: u32,
        is_allowed: impl Fn(u32) -> bool,
    ) -> Option<(u32, u32)> {
        let inward = terrain.links.inward(terrain.class, to);
        let cost_over = |(own, first): (u32, u32)| {
            own + match inward {
                Some(costs) => costs[first as usize],
                None => terrain.links.cost(terrain.class, first as usize, to),
            }
        };
        let (ordered, others) = self.order.parts();
        let mut best = None;
        let mut bound = limit.min(NONE);
        for &(own, first) in ordered {
            if own >= bound {
                return best.map(|(cost, _, first)| (cost, first));
            }
            if !is_allowed(first) {
                continue;
            }
            let cost = cost_over((own, first));
            if cost < bound {
                bound = cost;
                best = Some((cost, own, first));
            }
        }
        for &(own, first) in others {
            // One that costs as much as the best may still go before it, by its own link.
            if own > bound || !is_allowed(first) {
                continue;
            }
            let new = (cost_over((own, first)), own, first);
            if new.0 < bound || best.is_some_and(|best| new < best) {
                bound = new.0;
                best = Some(new);
            }
        }
        best.map(|(cost, _, first)| (cost, first))
    }
}
