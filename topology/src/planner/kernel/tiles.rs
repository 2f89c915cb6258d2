//! Exact bounds of many pairs at a time: a product of two matrices, of which sums are minima and products sums.
//!
//! Only with the widest registers do these come cheaper than looking at more blocks. The compiler does not keep the
//! sums in registers over three loops, so these name the instructions: what it made of the same loops over arrays
//! took seven times as long, and the whole plan twice.

use super::search::Bounds;
use super::{BLOCKS_MAX, CHUNK, Level, Ranks, Rows};

/// Sources whose bounds are computed together: for each link cost that is loaded, so many sums are made.
pub(in super::super) const TILE: usize = 8;

/// Exact bounds of all pairs of one source and a chunk of destinations.
#[derive(Clone, Debug)]
pub(in super::super) struct Tile {
    /// By block of the last relay.
    of: [[u32; CHUNK]; BLOCKS_MAX],
}

impl Default for Tile {
    fn default() -> Self {
        Self { of: [[u32::MAX; CHUNK]; BLOCKS_MAX] }
    }
}

/// What the cheapest path over two relays costs, of which the last is in a certain block: for all blocks, of some
/// sources whose cheapest ways cost `firsts`, and a chunk of destinations. Returns false, and does nothing, if
/// this is not worth its while with the processor's instructions.
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the level was detected"))]
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(unused_variables, reason = "there is no such level")
)]
pub(in super::super) fn tiles(
    level: Level,
    rows: Rows<'_>,
    chunk: usize,
    firsts: [&[u32]; TILE],
    tiles: &mut [Tile; TILE],
) -> bool {
    match level {
        Level::Portable => false,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => false,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // SAFETY: `Level::detect` gives this level only where the processor has the features.
            unsafe { wide::tiles(rows, chunk, firsts, tiles) };
            true
        }
    }
}

/// Turns a tile's rows into the bounds of each destination: all of them, or what a search needs that bars nothing.
#[inline(always)]
pub(super) fn turn_body(tile: &Tile, blocks: usize, ranks: Ranks, bounds: &mut [Bounds; CHUNK]) {
    let (mut least, mut at) = ([u32::MAX; CHUNK], [0; CHUNK]);
    for (block, row) in (0..).zip(&tile.of[..blocks]) {
        for i in 0..CHUNK {
            at[i] = if row[i] < least[i] { block } else { at[i] };
            least[i] = least[i].min(row[i]);
        }
    }
    for i in 0..CHUNK {
        bounds[i].set_exact(least[i], at[i]);
    }
    match ranks {
        Ranks::One => {}
        Ranks::All => {
            for (block, row) in tile.of[..blocks].iter().enumerate() {
                for i in 0..CHUNK {
                    bounds[i].of[block] = row[i];
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_min_epu32, _mm512_set1_epi32,
        _mm512_storeu_si512,
    };

    use super::super::{BLOCK, CHUNK, LANES, NONE, Rows, part};
    use super::{TILE, Tile};

    /// Destinations of a part of a tile: two registers for each source.
    const PART: usize = 2 * LANES;

    #[target_feature(enable = "avx512f")]
    pub(super) fn tiles(
        rows: Rows<'_>,
        chunk: usize,
        firsts: [&[u32]; TILE],
        tiles: &mut [Tile; TILE],
    ) {
        let (cells, _) = rows.chunk(chunk);
        for at in (0..CHUNK).step_by(PART) {
            for (block, cells) in cells.chunks_exact(BLOCK).enumerate() {
                let firsts = firsts.map(|first| part::<BLOCK>(first, block * BLOCK));
                let mut least = [[broadcast(NONE); 2]; TILE];
                for last in 0..BLOCK {
                    let cells = &cells[last];
                    let cells = [load(part(cells, at)), load(part(cells, at + LANES))];
                    for source in 0..TILE {
                        let first = broadcast(firsts[source][last]);
                        for half in 0..2 {
                            let sums = _mm512_add_epi32(first, cells[half]);
                            least[source][half] = _mm512_min_epu32(least[source][half], sums);
                        }
                    }
                }
                for (tile, least) in tiles.iter_mut().zip(least) {
                    let (row, _) = tile.of[block][at..at + PART].as_chunks_mut();
                    row.iter_mut().zip(least).for_each(|(row, least)| store(row, least));
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn broadcast(value: u32) -> __m512i {
        _mm512_set1_epi32(value.cast_signed())
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "there is no safe load")]
    fn load(from: &[u32; LANES]) -> __m512i {
        // SAFETY: the array is as long as the register, and need not be aligned.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "there is no safe store")]
    fn store(to: &mut [u32; LANES], lanes: __m512i) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), lanes) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BLOCK, turn};
    use super::*;

    #[test]
    fn exact_bounds_are_the_least_sums_over_each_block() {
        const STRIDE: usize = 3 * CHUNK;
        let mut state = 5_u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u32::try_from((state >> 33) % 10_000).unwrap()
        };
        let cost: Vec<[u32; CHUNK]> =
            (0..3 * STRIDE).map(|_| std::array::from_fn(|_| draw())).collect();
        let least = vec![0; cost.len()];
        let rows = Rows { cost: &cost, least: &least, stride: STRIDE };
        let firsts: Vec<Vec<u32>> =
            (0..TILE).map(|_| (0..STRIDE).map(|_| draw()).collect()).collect();
        let mut found: Box<[Tile; TILE]> = Box::new(std::array::from_fn(|_| Tile::default()));
        for (level, chunk) in Level::all().into_iter().flat_map(|level| [(level, 0), (level, 2)]) {
            let firsts = std::array::from_fn(|at| &firsts[at][..]);
            if !tiles(level, rows, chunk, firsts, &mut found) {
                continue;
            }
            for (tile, first) in found.iter().zip(firsts) {
                let mut bounds = std::array::from_fn(|_| Bounds::default());
                turn(level, tile, STRIDE / BLOCK, Ranks::All, &mut bounds);
                for (to, bounds) in bounds.iter().enumerate() {
                    for block in 0..STRIDE / BLOCK {
                        let lasts = block * BLOCK..(block + 1) * BLOCK;
                        let sums = lasts.map(|last| first[last] + cost[chunk * STRIDE + last][to]);
                        assert_eq!(Some(bounds.of[block]), sums.min());
                    }
                }
            }
        }
    }
}
