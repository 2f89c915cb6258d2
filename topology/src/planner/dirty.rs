//! Which routes a change can affect.
//!
//! A link that changed can only matter to a route if some path over it costs no more than the dearest path
//! that the route has. With the lesser of its old and new costs the bound below holds for paths that lose
//! by the change and for paths that gain:
//!
//! - as the first link of a path: the link, and any one or two links after it;
//! - as the second: a link before it, and any one after it;
//! - as the last: the cheapest path to its sender that is known, and the link.
//!
//! The other costs are those after all changes, each the lesser of old and new, so that several changes on one
//! path are found by the first of them.

use super::kernel::{self, BLOCK, CHUNK, Level, NONE};
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

    /// Marks one route of a row of this length.
    pub(super) fn mark(&mut self, to: usize, stride: usize) {
        self.bits.resize(stride / BLOCK, 0);
        self.bits[to / BLOCK] |= 1 << (to % BLOCK);
    }

    fn unmark(&mut self, to: usize) {
        if let Some(word) = self.bits.get_mut(to / BLOCK) {
            *word &= !(1 << (to % BLOCK));
        }
    }

    /// How many are marked.
    pub(super) fn count(&self) -> usize {
        self.bits.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn any(&self) -> bool {
        self.bits.iter().any(|word| *word != 0)
    }
}

/// Finds what the changed pairs can affect of one source's routes in one class.
pub(super) fn find(
    changes: &[Changed],
    links: &Links,
    class: usize,
    level: Level,
    (source, row): (usize, &Row),
) -> Dirty {
    let stride = row.worst.len();
    let mut dirty = Dirty { bits: vec![0; stride / BLOCK] };
    // What it costs at least to come to a relay over a changed link: that alone, or one more before or after it.
    let (mut by_one, mut by_two) = (vec![NONE; stride], vec![NONE; stride]);
    for &Changed { from, to, least } in changes {
        let least = least[class];
        if from == source {
            dirty.mark(to, stride);
            by_one[to] = by_one[to].min(least);
            match links.rows(class) {
                _ if least >= NONE => {}
                Some(rows) => kernel::relax(level, rows, to, least, &mut by_two),
                None => {
                    for (next, cost) in links.from(class, to) {
                        by_two[next] = by_two[next].min(least + cost);
                    }
                }
            }
        } else if to != source {
            let first = links.cost(class, source, from);
            by_two[to] = by_two[to].min(first + least);
        }
    }
    for &Changed { from, to, least } in changes {
        let before = row.best[from].min(by_one[from]).min(by_two[from]);
        if before < NONE && before + least[class] <= row.worst[to] {
            dirty.mark(to, stride);
        }
    }
    let most: Vec<u32> =
        row.worst.chunks(CHUNK).map(|chunk| chunk.iter().copied().max().unwrap_or(0)).collect();
    let bases = by_one.iter().zip(&by_two).map(|(one, two)| *one.min(two));
    let bases: Vec<(u32, u32)> =
        bases.zip(0..).filter(|(base, relay)| *base < NONE && *relay as usize != source).collect();
    match links.rows(class) {
        Some(rows) => {
            kernel::reached(level, rows, &bases, (&row.worst, &most), &mut dirty.bits);
        }
        None => {
            for (base, relay) in bases {
                for (last, cost) in links.from(class, relay as usize) {
                    if base + cost <= row.worst[last] {
                        dirty.mark(last, stride);
                    }
                }
            }
        }
    }
    dirty.unmark(source);
    dirty
}
