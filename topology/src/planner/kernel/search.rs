//! The cheapest path over two relays: ways to the last one, and its link to the destination.

use super::masks::Masks;
use super::ways::{Ways, WaysOfLanes};
use super::{BLOCK, BLOCKS_MAX, BLOCKS_STEP, LANES, NONE, part};

/// What a path's last link may come from.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Column<'a> {
    /// Costs of the links to the destination, by sender.
    pub(in super::super) cost: &'a [u32],
    /// Least cost of each block.
    pub(in super::super) least: &'a [u32],
    /// Zero for relays that may be intermediates, [`NONE`] for others.
    pub(in super::super) mask: &'a [u32],
}

/// A bound that was improved on, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Found {
    pub(in super::super) cost: u32,
    /// Number of the relay before the destination.
    pub(in super::super) last: usize,
}

/// What a path over two relays to one destination costs at least, by the block that the last relay is in.
/// Whatever a search bars, it finds nothing cheaper, so that all searches for one pair share these.
#[derive(Clone, Debug)]
pub(in super::super) struct Bounds {
    pub(super) of: [u32; BLOCKS_MAX],
    /// The least of them, and the first block that has it.
    least: u32,
    at: u32,
    /// Whether there is a path that costs as much.
    is_exact: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { of: [u32::MAX; BLOCKS_MAX], least: u32::MAX, at: 0, is_exact: false }
    }
}

impl Bounds {
    /// What a path over two relays costs at least.
    pub(in super::super) fn least(&self) -> u32 {
        self.least
    }

    /// Whether there is a path that costs so much.
    pub(in super::super) fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// In bits, which blocks' bounds are at most `limit`.
    #[inline(always)]
    fn at_most<M: Masks>(&self, limit: u32) -> u64 {
        let mut blocks = 0;
        for (step, bounds) in self.of.chunks_exact(BLOCKS_STEP).enumerate() {
            blocks |= u64::from(M::at_most(part(bounds, 0), limit)) << (step * BLOCKS_STEP);
        }
        blocks
    }

    #[inline(always)]
    pub(super) fn set_exact(&mut self, least: u32, at: u32) {
        (self.least, self.at, self.is_exact) = (least, at, true);
    }

    #[inline(always)]
    fn find_least<M: Masks>(&mut self) {
        let mut lanes = [u32::MAX; BLOCKS_STEP];
        for bounds in self.of.chunks_exact(BLOCKS_STEP) {
            for i in 0..BLOCKS_STEP {
                lanes[i] = lanes[i].min(bounds[i]);
            }
        }
        self.least = least(&lanes);
        self.at = self.at_most::<M>(self.least).trailing_zeros();
        self.is_exact = false;
    }
}

/// From the least cost of each block of ways and of links.
#[inline(always)]
pub(super) fn rough_bounds_body<M: Masks>(ways: &Ways, column: Column<'_>, bounds: &mut Bounds) {
    let firsts = ways.least.chunks_exact(BLOCKS_STEP);
    let lasts = column.least.chunks_exact(BLOCKS_STEP);
    for ((first, last), bounds) in firsts.zip(lasts).zip(bounds.of.chunks_exact_mut(BLOCKS_STEP)) {
        for i in 0..BLOCKS_STEP {
            bounds[i] = first[i] + last[i];
        }
    }
    bounds.find_least::<M>();
}

/// The sums of a search, some lanes at a time. A trait, for a closure would not be compiled for the features of
/// the function that it is in.
trait Sums {
    /// Lower bounds of the sums of some lanes.
    fn bounds(&self, at: usize) -> [u32; LANES];

    /// The sums of some lanes.
    fn sums(&self, at: usize) -> [u32; LANES];
}

/// Looks at the blocks whose bound is low enough: the one of the least bound first, then, as long as that is much
/// less than the best, those nearer to it.
#[inline(always)]
fn search<M: Masks>(bounds: &Bounds, bound: u32, sums: &impl Sums) -> Option<Found> {
    if bounds.least >= bound {
        return None;
    }
    let mut open = bounds.at_most::<M>(bound - 1);
    let mut near = 0;
    let (mut best, mut found) = (bound, usize::MAX);
    let mut block = bounds.at as usize;
    while open != 0 {
        open &= !(1 << block);
        near &= open;
        let at = block * (BLOCK / LANES);
        // What is exact says already that there is something to see, barred or not.
        if bounds.is_exact
            || M::at_most(&sums.bounds(at), best) != 0
            || M::at_most(&sums.bounds(at + 1), best) != 0
        {
            let [low, high] = [sums.sums(at), sums.sums(at + 1)];
            let least = least_of(&low, &high);
            if least < best || least == best && found != usize::MAX && block < found {
                found = block;
                if least < best {
                    best = least;
                    open &= bounds.at_most::<M>(best);
                    near = open & bounds.at_most::<M>(best.midpoint(bounds.least));
                }
            }
        }
        block = if near != 0 { near } else { open }.trailing_zeros() as usize;
    }
    if found == usize::MAX {
        return None;
    }
    Some(Found { cost: best, last: lane_of::<M>(found, best, sums) })
}

/// The first lane of a block whose sum is as low as that.
#[inline(always)]
fn lane_of<M: Masks>(block: usize, cost: u32, sums: &impl Sums) -> usize {
    let at = block * (BLOCK / LANES);
    let low = u32::from(M::at_most(&sums.sums(at), cost));
    let high = u32::from(M::at_most(&sums.sums(at + 1), cost));
    block * BLOCK + (low | high << LANES).trailing_zeros() as usize
}

#[inline(always)]
fn least(sums: &[u32; LANES]) -> u32 {
    let mut least = u32::MAX;
    for sum in sums {
        least = least.min(*sum);
    }
    least
}

#[inline(always)]
fn least_of(low: &[u32; LANES], high: &[u32; LANES]) -> u32 {
    let mut lanes = [0; LANES];
    for i in 0..LANES {
        lanes[i] = low[i].min(high[i]);
    }
    least(&lanes)
}

/// Of the cheapest ways.
struct Free<'a> {
    ways: &'a [WaysOfLanes],
    last: &'a [[u32; LANES]],
    mask: &'a [[u32; LANES]],
}

impl<'a> Free<'a> {
    #[inline(always)]
    fn new(ways: &'a Ways, column: Column<'a>) -> Self {
        // All as long as one another, so that one comparison of a position serves all.
        let count = ways.lanes.len();
        let (last, _) = column.cost.as_chunks();
        let (mask, _) = column.mask.as_chunks();
        Self { ways: &ways.lanes[..count], last: &last[..count], mask: &mask[..count] }
    }
}

impl Sums for Free<'_> {
    #[inline(always)]
    fn bounds(&self, at: usize) -> [u32; LANES] {
        let (first, last, mask) = (&self.ways[at].cost[0], &self.last[at], &self.mask[at]);
        let mut sums = [0; LANES];
        for i in 0..LANES {
            sums[i] = first[i] + last[i] + mask[i];
        }
        sums
    }

    #[inline(always)]
    fn sums(&self, at: usize) -> [u32; LANES] {
        self.bounds(at)
    }
}

/// Of the cheapest ways that have none of two labels.
struct Avoiding<'a> {
    free: Free<'a>,
    labels: &'a [[u32; LANES]],
    barred: [u32; 2],
}

impl Sums for Avoiding<'_> {
    /// The cheapest ways, barred or not, at a third of the work.
    #[inline(always)]
    fn bounds(&self, at: usize) -> [u32; LANES] {
        self.free.bounds(at)
    }

    #[inline(always)]
    fn sums(&self, at: usize) -> [u32; LANES] {
        let [p, q] = self.barred;
        let WaysOfLanes { cost, label } = &self.free.ways[at];
        let (own, last, mask) = (&self.labels[at], &self.free.last[at], &self.free.mask[at]);
        let mut sums = [0; LANES];
        for i in 0..LANES {
            // All are loaded, or the compiler would choose among addresses.
            let [best, second, third] = [cost[0][i], cost[1][i], cost[2][i]];
            let [best_label, second_label] = [label[0][i], label[1][i]];
            let second = if (second_label == p) | (second_label == q) { third } else { second };
            let way = if (best_label == p) | (best_label == q) { second } else { best };
            let sum = way + last[i] + mask[i];
            sums[i] = if (own[i] == p) | (own[i] == q) { NONE } else { sum };
        }
        sums
    }
}

#[inline(always)]
pub(super) fn cheapest_body<M: Masks>(
    ways: &Ways,
    column: Column<'_>,
    bounds: &Bounds,
    bound: u32,
) -> Option<Found> {
    let sums = Free::new(ways, column);
    if !bounds.is_exact {
        return search::<M>(bounds, bound, &sums);
    }
    if bounds.least >= bound {
        return None;
    }
    let last = lane_of::<M>(bounds.at as usize, bounds.least, &sums);
    Some(Found { cost: bounds.least, last })
}

#[inline(always)]
pub(super) fn cheapest_avoiding_body<M: Masks>(
    ways: &Ways,
    column: Column<'_>,
    bounds: &Bounds,
    labels: &[u32],
    barred: [u32; 2],
    bound: u32,
) -> Option<Found> {
    let free = Free::new(ways, column);
    let (labels, _) = labels.as_chunks();
    let labels = &labels[..free.ways.len()];
    search::<M>(bounds, bound, &Avoiding { free, labels, barred })
}

#[inline(always)]
pub(super) fn take_least_body<M: Masks>(sums: &mut [u32]) -> Option<(u32, usize)> {
    let (lanes, _) = sums.as_chunks_mut::<LANES>();
    let mut by_lane = [u32::MAX; LANES];
    for sums in &*lanes {
        for i in 0..LANES {
            by_lane[i] = by_lane[i].min(sums[i]);
        }
    }
    let cost = least(&by_lane);
    if cost >= NONE {
        return None;
    }
    for (at, sums) in lanes.iter_mut().enumerate() {
        let mask = M::at_most(sums, cost);
        if mask != 0 {
            let lane = mask.trailing_zeros() as usize;
            sums[lane] = u32::MAX;
            return Some((cost, at * LANES + lane));
        }
    }
    None
}
