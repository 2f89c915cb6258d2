//! Which routes a change can affect.
//!
//! A link that changed can only matter to a route if some path over it costs no more than the dearest path
//! that the route has. With the lesser of its old and new costs the bound below holds for paths that lose
//! by the change and for paths that gain:
//!
//! - as the first link: all routes of its sender are done anew;
//! - in the middle, `i → from → to → j`: the cost of the three links;
//! - as the last: the cheapest path to `from` that is known, and the link.
//!
//! The other costs are those after all changes, each the lesser of old and new, so that several changes on one
//! path are found by the first of them.

use super::kernel::{self, BLOCK, Level, NONE};
use super::links::{CLASSES, Links};
use super::table::Row;

/// A pair whose links changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changed {
    pub(super) from: usize,
    pub(super) to: usize,
    /// The lesser of the cheapest link's old and new cost.
    pub(super) least: [u32; CLASSES],
}

/// What is to be done anew of one row.
#[derive(Clone, Debug, Default)]
pub(super) struct Dirty {
    /// By number of the destination, in words of [`BLOCK`] bits; empty if nothing is.
    pub(super) bits: Vec<u32>,
}

impl Dirty {
    /// Marks everything.
    pub(super) fn all(stride: usize) -> Self {
        Self { bits: vec![u32::MAX; stride / BLOCK] }
    }

    pub(super) fn mark(&mut self, to: usize, stride: usize) {
        self.bits.resize(stride / BLOCK, 0);
        self.bits[to / BLOCK] |= 1 << (to % BLOCK);
    }

    fn unmark(&mut self, to: usize) {
        if let Some(word) = self.bits.get_mut(to / BLOCK) {
            *word &= !(1 << (to % BLOCK));
        }
    }

    fn mark_all(&mut self, stride: usize) {
        self.bits.clear();
        self.bits.resize(stride / BLOCK, u32::MAX);
    }

    pub(super) fn any(&self) -> bool {
        self.bits.iter().any(|word| *word != 0)
    }
}

/// Marks what the changed pairs can affect of one class and policy.
pub(super) fn mark(
    changes: &[Changed],
    links: &Links,
    class: usize,
    level: Level,
    rows: &[Row],
    dirty: &mut [Dirty],
) {
    let stride = dirty.len();
    for change in changes {
        let &Changed { from, to, least } = change;
        dirty[from].mark_all(stride);
        for (source, (row, dirty)) in rows.iter().zip(dirty.iter_mut()).enumerate() {
            let before = row.best.get(from).copied().unwrap_or(NONE);
            if before < NONE && before + least[class] <= row.worst[to] {
                dirty.mark(to, stride);
            }
            let first = if source == to { NONE } else { links.cost(class, source, from) };
            if first < NONE {
                mark_middle(first + least[class], to, (links, class, level), row, dirty, stride);
            }
            dirty.unmark(source);
        }
    }
}

fn mark_middle(
    base: u32,
    over: usize,
    (links, class, level): (&Links, usize, Level),
    row: &Row,
    dirty: &mut Dirty,
    stride: usize,
) {
    if row.worst.is_empty() || base >= NONE {
        return;
    }
    if let Some(rows) = links.rows(class) {
        dirty.bits.resize(stride / BLOCK, 0);
        let next = &rows.cost[over * stride..(over + 1) * stride];
        kernel::reached(level, base, next, &row.worst, &mut dirty.bits);
        return;
    }
    for (last, cost) in links.from(class, over) {
        if base + cost <= row.worst[last] {
            dirty.mark(last, stride);
        }
    }
}
