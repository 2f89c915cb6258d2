//! The search under bars, and the ways over lists of neighbours.

use super::Terrain;
use crate::planner::kernel::{self, Bounds, Found, Ways};

/// What a path has to be.
pub(super) struct Wanted<'a> {
    pub(super) to: usize,
    pub(super) bounds: &'a Bounds,
    pub(super) carriers: &'a [u32],
    /// By relay, of which no intermediate may have one of those barred.
    pub(super) labels: &'a [u32],
    pub(super) barred: [u32; 2],
}

pub(super) fn cheapest_avoiding(
    terrain: &Terrain<'_>,
    ways: &Ways,
    wanted: &Wanted<'_>,
    bound: u32,
) -> Option<Found> {
    let &Wanted { to, bounds, carriers, labels, barred } = wanted;
    if let Some(column) = terrain.links.column(terrain.class, to, carriers) {
        let level = terrain.level;
        return kernel::cheapest_avoiding(level, ways, column, bounds, labels, barred, bound);
    }
    let mut best = None;
    let mut bound = bound;
    for (last, cost) in terrain.links.to(terrain.class, to) {
        if ways.get(0, last).0 + cost >= bound
            || carriers[last] != 0
            || barred.contains(&labels[last])
        {
            continue;
        }
        if let Some((way, _)) = ways.avoiding(last, barred)
            && way + cost < bound
        {
            bound = way + cost;
            best = Some(Found { cost: bound, last });
        }
    }
    best
}

/// The ways over lists of neighbours. Of equals the earlier one stays, or the one of the lesser label where ways
/// are known by those: as over a matrix.
pub(super) fn sparse_ways(
    terrain: &Terrain<'_>,
    order: &[(u32, u32)],
    labels: &[u32],
    by_label: bool,
    ways: &mut Ways,
) {
    for &(first, relay) in order {
        let label = labels[relay as usize];
        for (to, cost) in terrain.links.from(terrain.class, relay as usize) {
            insert(ways, to, (first + cost, label), by_label);
        }
    }
}

/// Takes in one way.
fn insert(ways: &mut Ways, to: usize, new: (u32, u32), by_label: bool) {
    let better = |old: (u32, u32)| new.0 < old.0 || by_label && new.0 == old.0 && new.1 < old.1;
    let [first, second, third] = [0, 1, 2].map(|rank| ways.get(rank, to));
    if !better(third) {
        return;
    }
    let is_new = |old: (u32, u32)| old.1 != new.1;
    if better(first) {
        if is_new(first) {
            if is_new(second) {
                ways.set(2, to, second);
            }
            ways.set(1, to, first);
        }
        ways.set(0, to, new);
    } else if is_new(first) && better(second) {
        if is_new(second) {
            ways.set(2, to, second);
        }
        ways.set(1, to, new);
    } else if is_new(first) && is_new(second) {
        ways.set(2, to, new);
    }
}
