//! The inner loops of the search over a dense mesh: sums and minima over rows of link costs.
//!
//! Written once in plain Rust over arrays of fixed size, which the compiler vectorises, and compiled three
//! times: for any processor, for AVX2 and for AVX-512. Which one runs is found out at run time. Calling code
//! compiled for features that the processor has is `unsafe`; in a first measurement of these loops AVX-512 took
//! between a third and two thirds of the time that any processor's instructions take. Beside this, [`tiles`] and
//! [`masks`] name instructions.
//!
//! Numbers of relays are positions in rows. Rows are padded to whole [`CHUNK`]s with [`NONE`], so that no loop
//! has a remainder. No sum of three costs overflows: each is at most [`NONE`].

mod masks;
mod search;
mod tiles;
mod ways;

pub(super) use search::{Bounds, Column, Found};
pub(super) use tiles::{TILE, Tile, tiles};
pub(super) use ways::{Groups, Ranks, Ways};

use search::{cheapest_avoiding_body, cheapest_body, rough_bounds_body, take_least_body};
use tiles::turn_body;
use ways::{labelled_ways_body, ways_body};

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
pub(super) const LANES: usize = 16;
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

/// The links of a dense mesh in one class: by chunk of receivers, then by sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) cost: &'a [[u32; CHUNK]],
    /// The least cost of each.
    pub(super) least: &'a [u32],
    pub(super) stride: usize,
}

impl<'a> Rows<'a> {
    /// What links to a chunk of receivers cost, and the least of it, by sender.
    #[inline(always)]
    fn chunk(self, chunk: usize) -> (&'a [[u32; CHUNK]], &'a [u32]) {
        let senders = chunk * self.stride..(chunk + 1) * self.stride;
        (&self.cost[senders.clone()], &self.least[senders])
    }
}

macro_rules! dispatched {
    ($($(#[$doc:meta])* fn $name:ident / $avx512:ident / $avx2:ident = $body:ident $(<$masks:ident>)?
        ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?;)+) => {$(
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        fn $avx512($($arg: $ty),*) $(-> $ret)? {
            $(type $masks = masks::Wide;)?
            $body$(::<$masks>)?($($arg),*)
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn $avx2($($arg: $ty),*) $(-> $ret)? {
            $(type $masks = masks::Plain;)?
            $body$(::<$masks>)?($($arg),*)
        }

        $(#[$doc])*
        #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the level was detected"))]
        pub(super) fn $name(level: Level, $($arg: $ty),*) $(-> $ret)? {
            $(type $masks = masks::Plain;)?
            match level {
                Level::Portable => $body$(::<$masks>)?($($arg),*),
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
    /// Finds the ways from one source to a chunk of relays, over relays that are each a label of their own. These
    /// come with their cost from the source, cheapest first, then by number. Says whether no dearer one would change them.
    fn ways / ways_avx512 / ways_avx2 = ways_body(
        rows: Rows<'_>, chunk: usize, order: &[(u32, u32)], ranks: Ranks, ways: &mut Ways,
    ) -> bool;
    /// Finds the ways from one source to a chunk of relays, over relays by label. Of equals the one of the lesser
    /// label goes first.
    fn labelled_ways / labelled_ways_avx512 / labelled_ways_avx2 = labelled_ways_body(
        rows: Rows<'_>, chunk: usize, groups: &Groups, ways: &mut Ways,
    );
    /// Bounds of one pair, quickly: the least of each block's ways and the least of its links.
    fn rough_bounds / rough_bounds_avx512 / rough_bounds_avx2 = rough_bounds_body<M>(
        ways: &Ways, column: Column<'_>, bounds: &mut Bounds,
    );
    /// The exact bounds of one source, by destination.
    fn turn / turn_avx512 / turn_avx2 = turn_body(
        tile: &Tile, blocks: usize, ranks: Ranks, bounds: &mut [Bounds; CHUNK],
    );
    /// The cheapest path over two relays that costs less than `bound`; of equals the last relay of the least
    /// number.
    fn cheapest / cheapest_avx512 / cheapest_avx2 = cheapest_body<M>(
        ways: &Ways, column: Column<'_>, bounds: &Bounds, bound: u32,
    ) -> Option<Found>;
    /// The same, where neither relay may have one of two labels.
    fn cheapest_avoiding / cheapest_avoiding_avx512 / cheapest_avoiding_avx2 = cheapest_avoiding_body<M>(
        ways: &Ways, column: Column<'_>, bounds: &Bounds, labels: &[u32], barred: [u32; 2], bound: u32,
    ) -> Option<Found>;
    /// Takes the least out of some sums, which are padded to whole lanes; of equals the first. Returns it and where
    /// it was; `None` if there is no path any more.
    fn take_least / take_least_avx512 / take_least_avx2 = take_least_body<M>(
        sums: &mut [u32],
    ) -> Option<(u32, usize)>;
    /// The cheapest of what is known of each relay and of a base plus a link from one relay.
    fn relax / relax_avx512 / relax_avx2 = relax_body(
        rows: Rows<'_>, relay: usize, base: u32, costs: &mut [u32],
    );
    /// Marks, in bits by number, where a base plus the cost of a link from its relay is at most the limit. The
    /// greatest limits come by chunk.
    fn reached / reached_avx512 / reached_avx2 = reached_body(
        rows: Rows<'_>, bases: &[(u32, u32)], limit: (&[u32], &[u32]), bits: &mut [u32],
    );
}

#[inline(always)]
fn part<const N: usize>(row: &[u32], at: usize) -> &[u32; N] {
    row[at..at + N].try_into().expect("the slice has the array's length")
}

#[inline(always)]
fn relax_body(rows: Rows<'_>, relay: usize, base: u32, costs: &mut [u32]) {
    for (chunk, costs) in costs.chunks_exact_mut(CHUNK).enumerate() {
        let next = &rows.cost[chunk * rows.stride + relay];
        for i in 0..CHUNK {
            costs[i] = costs[i].min(base + next[i]);
        }
    }
}

#[inline(always)]
fn reached_body(
    rows: Rows<'_>,
    bases: &[(u32, u32)],
    (limit, most): (&[u32], &[u32]),
    bits: &mut [u32],
) {
    const WORDS: usize = CHUNK / BLOCK;
    for (chunk, (most, bits)) in most.iter().zip(bits.chunks_exact_mut(WORDS)).enumerate() {
        let (cells, least) = rows.chunk(chunk);
        let limit: &[u32; CHUNK] = part(limit, chunk * CHUNK);
        for &(base, relay) in bases {
            if base + least[relay as usize] > *most {
                continue;
            }
            let row = &cells[relay as usize];
            for (word, bits) in bits.iter_mut().enumerate() {
                for i in 0..BLOCK {
                    let at = word * BLOCK + i;
                    *bits |= u32::from(base + row[at] <= limit[at]) << i;
                }
            }
        }
    }
}
