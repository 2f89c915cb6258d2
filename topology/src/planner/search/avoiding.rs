//! The search under bars, and the ways over lists of neighbours.

use super::{Hints, Terrain};
use crate::planner::kernel::{self, Found, WAYS, Ways};

/// What a path has to be.
pub(super) struct Wanted<'a> {
    pub(super) to: usize,
    pub(super) carriers: &'a [u32],
    /// By relay, of which no intermediate may have one of those barred.
    pub(super) labels: &'a [u32],
    pub(super) barred: [u32; 2],
}

pub(super) fn cheapest_avoiding(
    terrain: &Terrain<'_>,
    ways: &Ways,
    wanted: &Wanted<'_>,
    hints: &mut Hints<'_>,
    bound: u32,
) -> Option<Found> {
    match hints {
        Hints::Dense(bounds) => {
            let &Wanted { to, carriers, labels, barred } = wanted;
            let column = terrain.links.column(terrain.class, to, carriers)?;
            let level = terrain.level;
            kernel::cheapest_avoiding(level, ways, column, bounds, labels, barred, bound)
        }
        Hints::Sparse(lasts) => lasts.cheapest_avoiding(terrain, ways, wanted, bound),
    }
}

/// The ways over lists of neighbours; what was known before is forgotten. Of equals the earlier one stays, or the one of the lesser label where ways
/// are known by those: as over a matrix.
pub(super) fn sparse_ways(
    terrain: &Terrain<'_>,
    order: &[(u32, u32)],
    labels: &[u32],
    by_label: bool,
    ways: &mut Ways,
) {
    ways.clear_list(terrain.stride);
    for &(first, relay) in order {
        let label = labels[relay as usize];
        let Some((ends, hops)) = terrain.links.list_from(terrain.class, relay as usize) else {
            return;
        };
        for (to, hop) in ends.iter().zip(hops) {
            let (ways, new) = (ways.of_mut(usize::from(*to)), (first + hop.cost, label));
            if by_label { insert(ways, new) } else { insert_other(ways, new) }
        }
    }
}

/// Takes in one way of a label that no way had before.
#[inline]
fn insert_other(ways: &mut [(u32, u32); WAYS], new: (u32, u32)) {
    let [first, second, third] = *ways;
    if new.0 >= third.0 {
        return;
    }
    *ways = if new.0 < first.0 {
        [new, first, second]
    } else if new.0 < second.0 {
        [first, new, second]
    } else {
        [first, second, new]
    };
}

/// Takes in one way, of equals by label.
#[inline]
fn insert(ways: &mut [(u32, u32); WAYS], new: (u32, u32)) {
    let better = |old: (u32, u32)| new.0 < old.0 || new.0 == old.0 && new.1 < old.1;
    let [first, second, third] = *ways;
    if !better(third) {
        return;
    }
    let is_new = |old: (u32, u32)| old.1 != new.1;
    *ways = if better(first) {
        let rest = if is_new(second) { second } else { third };
        if is_new(first) { [new, first, rest] } else { [new, second, third] }
    } else if !is_new(first) {
        return;
    } else if better(second) {
        [first, new, if is_new(second) { second } else { third }]
    } else if is_new(second) {
        [first, second, new]
    } else {
        return;
    };
}
