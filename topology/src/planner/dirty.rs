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

/// The changed pairs by class, in order of sender.
#[derive(Debug)]
pub(super) struct Changes {
    of: [Vec<Less>; CLASSES],
    /// Where the changes of a sender begin, and those of the next one.
    starts: Vec<usize>,
    /// The senders and the receivers, each once.
    senders: Vec<u16>,
    receivers: Vec<u16>,
}

/// A changed pair in one class.
#[derive(Clone, Copy, Debug)]
struct Less {
    from: u16,
    to: u16,
    least: u32,
}

impl Changes {
    pub(super) fn new(pairs: &[Changed], stride: usize) -> Self {
        let narrow = |number| u16::try_from(number).expect("relays have ids of 16 bits");
        let mut order: Vec<&Changed> = pairs.iter().collect();
        order.sort_unstable_by_key(|pair| (pair.from, pair.to));
        let starts = (0..=stride).map(|from| order.partition_point(|pair| pair.from < from));
        let starts = starts.collect();
        let less = |class: usize| {
            let less = |&&Changed { from, to, least }: &&Changed| Less {
                from: narrow(from),
                to: narrow(to),
                least: least[class],
            };
            order.iter().map(less).collect()
        };
        let mut receivers: Vec<u16> = order.iter().map(|pair| narrow(pair.to)).collect();
        receivers.sort_unstable();
        receivers.dedup();
        let mut senders: Vec<u16> = order.iter().map(|pair| narrow(pair.from)).collect();
        senders.dedup();
        Self { of: std::array::from_fn(less), starts, senders, receivers }
    }

    fn of(&self, class: usize, from: usize) -> &[Less] {
        &self.of[class][self.starts[from]..self.starts[from + 1]]
    }
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

    /// Destinations that are marked, in order.
    pub(super) fn marked(&self) -> impl Iterator<Item = usize> {
        self.bits.iter().enumerate().flat_map(|(word, &bits)| {
            let rest = std::iter::successors(Some(bits), |bits| Some(bits & bits.wrapping_sub(1)));
            let rest = rest.take_while(|bits| *bits != 0);
            rest.map(move |bits| word * BLOCK + bits.trailing_zeros() as usize)
        })
    }

    pub(super) fn any(&self) -> bool {
        self.bits.iter().any(|word| *word != 0)
    }
}

/// Finds what the changed pairs can affect of one source's routes in one class.
pub(super) fn find(
    changes: &Changes,
    links: &Links,
    class: usize,
    level: Level,
    (source, row): (usize, &Row),
) -> Dirty {
    let stride = row.worst.len();
    let mut dirty = Dirty { bits: vec![0; stride / BLOCK] };
    // What it costs at least to come to a relay over a changed link: that alone, or one more before or after it.
    let mut over = vec![NONE; stride];
    for &Less { to, least, .. } in changes.of(class, source) {
        let to = usize::from(to);
        dirty.mark(to, stride);
        over[to] = over[to].min(least);
        match links.rows(class) {
            _ if least >= NONE => {}
            Some(rows) => kernel::relax(level, rows, to, least, &mut over),
            None => {
                for (next, cost) in links.from(class, to) {
                    over[next] = over[next].min(least + cost);
                }
            }
        }
    }
    for first in changes.senders.iter().map(|sender| usize::from(*sender)) {
        let cost = links.cost(class, source, first);
        for &Less { to, least, .. } in changes.of(class, first).iter().filter(|_| cost < NONE) {
            let over = &mut over[usize::from(to)];
            *over = (*over).min(cost + least);
        }
    }
    over[source] = NONE;
    for &Less { from, to, least } in &changes.of[class] {
        let before = row.best[usize::from(from)].min(over[usize::from(from)]);
        if before < NONE && before + least <= row.worst[usize::from(to)] {
            dirty.mark(usize::from(to), stride);
        }
    }
    let base = |relay: usize| (over[relay] < NONE).then(|| (over[relay], number(relay)));
    let bases: Vec<(u32, u32)> = if changes.of(class, source).is_empty() {
        changes.receivers.iter().filter_map(|relay| base(usize::from(*relay))).collect()
    } else {
        (0..stride).filter_map(base).collect()
    };
    reached(links, class, level, (&bases, &row.worst), &mut dirty);
    dirty.unmark(source);
    dirty
}

/// Marks where it does not cost too much to come to one of some relays over a changed link, and over one link more.
fn reached(
    links: &Links,
    class: usize,
    level: Level,
    (bases, worst): (&[(u32, u32)], &[u32]),
    dirty: &mut Dirty,
) {
    if bases.is_empty() {
        return;
    }
    match links.rows(class) {
        Some(rows) => {
            let most = worst.chunks(CHUNK).map(|chunk| chunk.iter().copied().max().unwrap_or(0));
            let most: Vec<u32> = most.collect();
            kernel::reached(level, rows, bases, (worst, &most), &mut dirty.bits);
        }
        None => {
            for &(base, relay) in bases {
                for (last, cost) in links.from(class, relay as usize) {
                    if base + cost <= worst[last] {
                        dirty.mark(last, worst.len());
                    }
                }
            }
        }
    }
}

fn number(relay: usize) -> u32 {
    u32::try_from(relay).expect("relays have ids of 16 bits")
}
