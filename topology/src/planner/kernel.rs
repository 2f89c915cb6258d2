//! The inner loops of the search over a dense mesh: sums and minima over rows of link costs.
//!
//! Written once in plain Rust over arrays of fixed size, which the compiler vectorises, and compiled three
//! times: for any processor, for AVX2 and for AVX-512. Which one runs is found out at run time. Calling code
//! compiled for features that the processor has is the only `unsafe` here; in a first measurement of these
//! loops AVX-512 took between a third and two thirds of the time that any processor's instructions take.
//!
//! Numbers of relays are positions in rows. Rows are padded to whole [`CHUNK`]s with [`NONE`], so that no loop
//! has a remainder. No sum of three costs overflows: each is at most [`NONE`].

/// No link, or no path. Link costs are capped so that the sum of any three is below, and three times this, the most
/// that is summed, does not overflow.
pub(super) const NONE: u32 = 1 << 30;
/// Relays that are looked at together when a row is searched; each block's least cost is known, so that most
/// blocks are passed over.
pub(super) const BLOCK: usize = 32;
/// Relays whose ways are computed together.
pub(super) const CHUNK: usize = 64;
/// Blocks of the longest row: their bits fit a word.
pub(super) const BLOCKS_MAX: usize = 64;
/// Blocks are looked at so many together: what is known of a row's blocks is padded to this.
const BLOCKS_STEP: usize = 16;
/// Lanes of the widest registers: loops over so many become one instruction each.
const LANES: usize = 16;
/// Ways kept per relay, over different first relays or labels: one more than can be barred.
pub(super) const WAYS: usize = 3;

/// How much room the least costs of a row's blocks take.
pub(super) const fn blocks_padded(stride: usize) -> usize {
    (stride / BLOCK).next_multiple_of(BLOCKS_STEP)
}

/// Which instructions to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// What every processor of the target has.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best that this processor has.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let has_512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            if has_512 {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// Every level that this processor has.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        if Self::detect() != Self::Portable {
            all.push(Self::Avx2);
        }
        if Self::detect() != *all.last().unwrap() {
            all.push(Self::detect());
        }
        all
    }
}

/// The cheapest ways from one source over one relay to each other relay: the cheapest, the cheapest whose
/// first relay has another label, and the cheapest whose first relay has a third one. As two labels are
/// barred at most, one of the three is always the cheapest that is allowed.
#[derive(Clone, Debug, Default)]
pub(super) struct Ways {
    lanes: Vec<WaysOfLanes>,
    /// Least of the first costs, by block.
    least: Vec<u32>,
}

/// The ways to [`LANES`] relays, by rank: together in memory, since a search looks at all of them.
#[derive(Clone, Copy, Debug)]
struct WaysOfLanes {
    cost: [[u32; LANES]; WAYS],
    /// Labels of the first relays; `u32::MAX` where there is no way.
    label: [[u32; LANES]; WAYS],
}

/// The links of a dense mesh in one class: rows by sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) cost: &'a [u32],
    /// Least cost of each chunk of each row.
    pub(super) least: &'a [u32],
    pub(super) stride: usize,
}

/// Relays that may be first on a way, with what they are labelled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Firsts<'a> {
    /// Cost from the source and number, cheapest first, then by number.
    pub(super) order: &'a [(u32, u32)],
}

/// What a path's last link may come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column<'a> {
    /// Costs of the links to the destination, by sender.
    pub(super) cost: &'a [u32],
    /// Least cost of each block.
    pub(super) least: &'a [u32],
    /// Zero for relays that may be intermediates, [`NONE`] for others.
    pub(super) mask: &'a [u32],
}

/// A bound that was improved on, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) cost: u32,
    /// Number of the relay before the destination.
    pub(super) last: usize,
}

impl Ways {
    /// Makes room for rows of this length, and forgets what was there.
    pub(super) fn clear(&mut self, stride: usize) {
        let none = WaysOfLanes { cost: [[NONE; LANES]; WAYS], label: [[u32::MAX; LANES]; WAYS] };
        self.lanes.clear();
        self.lanes.resize(stride / LANES, none);
        self.least.clear();
        self.least.resize(blocks_padded(stride), NONE);
    }

    /// The way of a rank to a relay: cost and label.
    #[inline]
    pub(super) fn get(&self, rank: usize, relay: usize) -> (u32, u32) {
        let lanes = &self.lanes[relay / LANES];
        (lanes.cost[rank][relay % LANES], lanes.label[rank][relay % LANES])
    }

    /// Replaces the way of a rank to a relay; for searches that need no least costs.
    #[inline]
    pub(super) fn set(&mut self, rank: usize, relay: usize, (cost, label): (u32, u32)) {
        let lanes = &mut self.lanes[relay / LANES];
        lanes.cost[rank][relay % LANES] = cost;
        lanes.label[rank][relay % LANES] = label;
    }

    /// Bars ways to one relay: the source itself.
    pub(super) fn bar(&mut self, relay: usize) {
        (0..WAYS).for_each(|rank| self.set(rank, relay, (NONE, u32::MAX)));
    }

    /// The cheapest way to a relay whose first relay has none of these labels: cost and label.
    #[inline]
    pub(super) fn avoiding(&self, relay: usize, barred: [u32; 2]) -> Option<(u32, u32)> {
        let mut ways = (0..WAYS).map(|rank| self.get(rank, relay));
        ways.find(|(cost, label)| *cost < NONE && !barred.contains(label))
    }
}

macro_rules! dispatched {
    ($($(#[$doc:meta])* fn $name:ident / $avx512:ident / $avx2:ident = $body:ident
        ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?;)+) => {$(
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        fn $avx512($($arg: $ty),*) $(-> $ret)? {
            $body($($arg),*)
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn $avx2($($arg: $ty),*) $(-> $ret)? {
            $body($($arg),*)
        }

        $(#[$doc])*
        #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the level was detected"))]
        pub(super) fn $name(level: Level, $($arg: $ty),*) $(-> $ret)? {
            match level {
                Level::Portable => $body($($arg),*),
                // SAFETY: `Level::detect` gives this level only where the processor has the features.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { $avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { $avx512($($arg),*) },
            }
        }
    )+};
}

dispatched! {
    /// Finds the ways from one source over relays that are each a label of their own.
    fn ways / ways_avx512 / ways_avx2 = ways_body(rows: Rows<'_>, firsts: Firsts<'_>, ways: &mut Ways);
    /// Finds the ways from one source over relays labelled by number; `labels` are below `count`.
    fn labelled_ways / labelled_ways_avx512 / labelled_ways_avx2 = labelled_ways_body(
        rows: Rows<'_>, firsts: Firsts<'_>, labels: &[u32], count: usize, ways: &mut Ways,
    );
    /// The cheapest path over two relays that costs less than `bound`; of equals the last relay of the least
    /// number.
    fn cheapest / cheapest_avx512 / cheapest_avx2 = cheapest_body(
        ways: &Ways, column: Column<'_>, bound: u32,
    ) -> Option<Found>;
    /// The same, where neither relay may have one of two labels.
    fn cheapest_avoiding / cheapest_avoiding_avx512 / cheapest_avoiding_avx2 = cheapest_avoiding_body(
        ways: &Ways, column: Column<'_>, labels: &[u32], barred: [u32; 2], bound: u32,
    ) -> Option<Found>;
    /// Marks, in bits by number, where `base` plus a row's cost is at most the limit. Least costs and greatest
    /// limits come by chunk.
    fn reached / reached_avx512 / reached_avx2 = reached_body(
        base: u32, row: (&[u32], &[u32]), limit: (&[u32], &[u32]), bits: &mut [u32],
    );
}

/// The best of a chunk, by rank.
#[derive(Clone, Copy)]
struct Chunk {
    cost: [[u32; CHUNK]; WAYS],
    label: [[u32; CHUNK]; WAYS],
}

impl Chunk {
    const EMPTY: Self = Self { cost: [[NONE; CHUNK]; WAYS], label: [[u32::MAX; CHUNK]; WAYS] };

    /// The dearest that is kept of any relay: what is not below it changes nothing.
    #[inline(always)]
    fn worst(&self) -> u32 {
        let mut worst = 0;
        for cost in &self.cost[WAYS - 1] {
            worst = worst.max(*cost);
        }
        worst
    }

    /// Takes in ways over a label that was not taken in before. Of equals the earlier one stays.
    #[inline(always)]
    fn merge(&mut self, new: &[u32; CHUNK], label: u32) {
        let [c0, c1, c2] = &mut self.cost;
        let [l0, l1, l2] = &mut self.label;
        for i in 0..CHUNK {
            let v = new[i];
            let (b0, b1, b2) = (v < c0[i], v < c1[i], v < c2[i]);
            let keep2 = if b2 { label } else { l2[i] };
            l2[i] = if b1 { l1[i] } else { keep2 };
            let keep1 = if b1 { label } else { l1[i] };
            l1[i] = if b0 { l0[i] } else { keep1 };
            l0[i] = if b0 { label } else { l0[i] };
            let r1 = c0[i].max(v);
            c0[i] = c0[i].min(v);
            let r2 = c1[i].max(r1);
            c1[i] = c1[i].min(r1);
            c2[i] = c2[i].min(r2);
        }
    }

    #[inline(always)]
    fn store(&self, at: usize, ways: &mut Ways) {
        for (offset, lanes) in ways.lanes[at / LANES..(at + CHUNK) / LANES].iter_mut().enumerate() {
            for rank in 0..WAYS {
                lanes.cost[rank] = *part(&self.cost[rank], offset * LANES);
                lanes.label[rank] = *part(&self.label[rank], offset * LANES);
            }
        }
        for (block, costs) in self.cost[0].chunks_exact(BLOCK).enumerate() {
            let mut least = NONE;
            for cost in costs {
                least = least.min(*cost);
            }
            ways.least[at / BLOCK + block] = least;
        }
    }
}

#[inline(always)]
fn part<const N: usize>(row: &[u32], at: usize) -> &[u32; N] {
    row[at..at + N].try_into().expect("the slice has the array's length")
}

#[inline(always)]
fn ways_body(rows: Rows<'_>, firsts: Firsts<'_>, ways: &mut Ways) {
    let chunks = rows.stride / CHUNK;
    for chunk in 0..chunks {
        let at = chunk * CHUNK;
        let mut best = Chunk::EMPTY;
        let mut worst = NONE;
        for &(first, relay) in firsts.order {
            if first >= worst {
                break;
            }
            let row = relay as usize;
            if first + rows.least[row * chunks + chunk] >= worst {
                continue;
            }
            let next: &[u32; CHUNK] = part(rows.cost, row * rows.stride + at);
            let mut new = [0; CHUNK];
            let mut better = 0_u32;
            for i in 0..CHUNK {
                new[i] = first + next[i];
                better |= u32::from(new[i] < best.cost[WAYS - 1][i]);
            }
            if better != 0 {
                best.merge(&new, relay);
                worst = best.worst();
            }
        }
        best.store(at, ways);
    }
}

/// Relays looked at before the bound is tightened.
const LABELLED_PART: usize = 64;

#[inline(always)]
fn labelled_ways_body(
    rows: Rows<'_>,
    firsts: Firsts<'_>,
    labels: &[u32],
    count: usize,
    ways: &mut Ways,
) {
    let chunks = rows.stride / CHUNK;
    let mut by_label = vec![[NONE; CHUNK]; count];
    for chunk in 0..chunks {
        let at = chunk * CHUNK;
        by_label.fill([NONE; CHUNK]);
        let mut worst = NONE;
        for (number, part_of) in firsts.order.chunks(LABELLED_PART).enumerate() {
            if part_of.first().is_some_and(|(first, _)| *first >= worst) {
                break;
            }
            for &(first, relay) in part_of {
                let row = relay as usize;
                if first + rows.least[row * chunks + chunk] >= worst {
                    continue;
                }
                let next: &[u32; CHUNK] = part(rows.cost, row * rows.stride + at);
                let best = &mut by_label[labels[row] as usize];
                for i in 0..CHUNK {
                    best[i] = best[i].min(first + next[i]);
                }
            }
            // Twice: each costs as much as some relays.
            if matches!(number, 0 | 3) {
                worst = ranked(&by_label).worst();
            }
        }
        ranked(&by_label).store(at, ways);
    }
}

#[inline(always)]
fn ranked(by_label: &[[u32; CHUNK]]) -> Chunk {
    let mut best = Chunk::EMPTY;
    for (label, costs) in (0..).zip(by_label) {
        best.merge(costs, label);
    }
    best
}

/// Lower bounds of the blocks: where the least is, and in bits which are below `bound`.
#[inline(always)]
fn open_blocks(ways: &Ways, column: Column<'_>, bound: u32) -> (usize, u64) {
    let mut bounds = [u32::MAX; BLOCKS_MAX];
    let mut least = u32::MAX;
    let firsts = ways.least.chunks_exact(BLOCKS_STEP);
    let lasts = column.least.chunks_exact(BLOCKS_STEP);
    for ((first, last), bounds) in firsts.zip(lasts).zip(bounds.chunks_exact_mut(BLOCKS_STEP)) {
        let (first, last): (&[u32; BLOCKS_STEP], &[u32; BLOCKS_STEP]) =
            (part(first, 0), part(last, 0));
        for i in 0..BLOCKS_STEP {
            bounds[i] = first[i] + last[i];
            least = least.min(bounds[i]);
        }
    }
    if least >= bound {
        return (0, 0);
    }
    let (mut open, mut at) = (0_u64, 0_u64);
    for (step, bounds) in bounds.chunks_exact(BLOCKS_STEP).enumerate() {
        let bounds: &[u32; BLOCKS_STEP] = part(bounds, 0);
        let (mut below, mut equal) = (0_u16, 0_u16);
        for (i, sum) in bounds.iter().enumerate() {
            below |= u16::from(*sum < bound) << i;
            equal |= u16::from(*sum == least) << i;
        }
        open |= u64::from(below) << (step * BLOCKS_STEP);
        at |= u64::from(equal) << (step * BLOCKS_STEP);
    }
    (at.trailing_zeros() as usize, open)
}

/// The sums of a search, some lanes at a time. A trait, for a closure would not be compiled for the features of
/// the function that it is in.
trait Sums {
    /// Lower bounds of the sums of some lanes.
    fn bounds(&self, at: usize) -> [u32; LANES];

    /// The sums of some lanes.
    fn sums(&self, at: usize) -> [u32; LANES];
}

/// Looks at the open blocks, the one of the least bound first.
#[inline(always)]
fn search(ways: &Ways, column: Column<'_>, bound: u32, sums: &impl Sums) -> Option<Found> {
    let (first, mut open) = open_blocks(ways, column, bound);
    let (mut best, mut found) = (bound, usize::MAX);
    let mut block = first;
    while open != 0 {
        open &= !(1 << block);
        for at in [block * (BLOCK / LANES), block * (BLOCK / LANES) + 1] {
            if at_most(&sums.bounds(at), best) == 0 {
                continue;
            }
            let sums = sums.sums(at);
            if at_most(&sums, best) != 0 {
                let least = least(&sums);
                if least < best || found != usize::MAX && at < found {
                    (best, found) = (least, at);
                }
            }
        }
        block = open.trailing_zeros() as usize;
    }
    if found == usize::MAX {
        return None;
    }
    // None is below the best.
    let lanes = at_most(&sums.sums(found), best);
    Some(Found { cost: best, last: found * LANES + lanes.trailing_zeros() as usize })
}

/// In bits, which sums are at most `limit`.
#[inline(always)]
fn at_most(sums: &[u32; LANES], limit: u32) -> u16 {
    let mut lanes = 0;
    for (lane, sum) in sums.iter().enumerate() {
        lanes |= u16::from(*sum <= limit) << lane;
    }
    lanes
}

#[inline(always)]
fn least(sums: &[u32; LANES]) -> u32 {
    let mut least = u32::MAX;
    for sum in sums {
        least = least.min(*sum);
    }
    least
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
fn cheapest_body(ways: &Ways, column: Column<'_>, bound: u32) -> Option<Found> {
    search(ways, column, bound, &Free::new(ways, column))
}

#[inline(always)]
fn cheapest_avoiding_body(
    ways: &Ways,
    column: Column<'_>,
    labels: &[u32],
    barred: [u32; 2],
    bound: u32,
) -> Option<Found> {
    let free = Free::new(ways, column);
    let (labels, _) = labels.as_chunks();
    let labels = &labels[..free.ways.len()];
    search(ways, column, bound, &Avoiding { free, labels, barred })
}

#[inline(always)]
fn reached_body(
    base: u32,
    (row, least): (&[u32], &[u32]),
    (limit, most): (&[u32], &[u32]),
    bits: &mut [u32],
) {
    const WORDS: usize = CHUNK / BLOCK;
    for (chunk, (least, most)) in least.iter().zip(most).enumerate() {
        if base + least > *most {
            continue;
        }
        let first = chunk * WORDS;
        for (word, bits) in (first..).zip(&mut bits[first..first + WORDS]) {
            let row: &[u32; BLOCK] = part(row, word * BLOCK);
            let limit: &[u32; BLOCK] = part(limit, word * BLOCK);
            for i in 0..BLOCK {
                *bits |= u32::from(base + row[i] <= limit[i]) << i;
            }
        }
    }
}
