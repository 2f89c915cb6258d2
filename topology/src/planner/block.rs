//! Routes of some sources of one plane, done anew.
//!
//! The sources take turns: the ways of all to a chunk of relays, then the next chunk; and the routes of all to a
//! chunk of destinations, then the next. So the links to a chunk are read once for all of them.

use super::dirty::Dirty;
use super::kernel::{self, BLOCK, Bounds, CHUNK, Ranks, TILE, Tile};
use super::plane::{Field, Head, Outcome};
use super::renew::Scratch;
use super::search::{Hints, Known};
use super::table::Row;

/// Routes to do anew, of [`TILE`] sources and a chunk of destinations, for which exact bounds are worth their while.
const TILE_ROUTES_MIN: u32 = 128;

/// Some sources of one plane whose routes are to be done anew.
pub(super) struct Block<'a> {
    pub(super) head: &'a Head,
    pub(super) sources: Vec<(usize, &'a mut Row, Dirty)>,
}

/// What one task works with.
pub(super) struct Workshop {
    scratches: Vec<Scratch>,
    tiles: Box<[Tile; TILE]>,
    /// Exact bounds of one source, by destination of a chunk.
    exact: Box<[Bounds; CHUNK]>,
    known: Known,
}

impl Workshop {
    pub(super) fn new() -> Self {
        Self {
            scratches: Vec::new(),
            tiles: Box::new(std::array::from_fn(|_| Tile::default())),
            exact: Box::new(std::array::from_fn(|_| Bounds::default())),
            known: Known::default(),
        }
    }
}

impl Block<'_> {
    /// Does the routes anew.
    pub(super) fn run(mut self, field: &Field<'_>, workshop: &mut Workshop, out: &mut Outcome) {
        let scratches = &mut workshop.scratches;
        scratches.resize_with(scratches.len().max(self.sources.len()), Scratch::default);
        if field.links.rows(self.head.class).is_none() {
            return self.run_lists(field, workshop, out);
        }
        self.find_ways(field, scratches);
        for chunk in 0..field.stride / CHUNK {
            for first in (0..self.sources.len()).step_by(TILE) {
                self.run_chunk(field, workshop, (chunk, first), out);
            }
        }
    }

    /// One source after the other: where links are in lists, the ways from a source are what is to be at hand.
    fn run_lists(self, field: &Field<'_>, workshop: &mut Workshop, out: &mut Outcome) {
        let head = self.head;
        let terrain = field.terrain(head, field.links);
        let Workshop { scratches, known, .. } = workshop;
        let scratch = &mut scratches[0];
        for (source, row, dirty) in self.sources {
            scratch.start(field, head, source);
            for to in dirty.marked().filter(|&to| head.ends[to] && to != source) {
                let mut hints = known.hints(&scratch.all, &terrain, to);
                scratch.route(field, head, row, (source, to), &mut hints, out);
            }
        }
    }

    fn find_ways(&self, field: &Field<'_>, scratches: &mut [Scratch]) {
        let terrain = field.terrain(self.head, field.links);
        let ranks = field.ranks();
        for ((source, ..), scratch) in self.sources.iter().zip(&mut *scratches) {
            scratch.all.begin(&terrain, *source);
            if let Some(admitted) = field.admitted {
                let terrain = field.terrain(self.head, admitted);
                scratch.admitted.start(&terrain, *source, Ranks::One);
            }
        }
        let scratches = &mut scratches[..self.sources.len()];
        for chunk in 0..field.stride / CHUNK {
            scratches.iter_mut().for_each(|scratch| scratch.all.extend(&terrain, chunk, ranks));
        }
        scratches.iter_mut().for_each(|scratch| scratch.all.finish(&terrain));
    }

    /// Does the routes anew that lead from [`TILE`] sources to a chunk of destinations.
    fn run_chunk(
        &mut self,
        field: &Field<'_>,
        workshop: &mut Workshop,
        (chunk, first): (usize, usize),
        out: &mut Outcome,
    ) {
        const WORDS: usize = CHUNK / BLOCK;
        let head = self.head;
        let last = self.sources.len().min(first + TILE);
        let words = chunk * WORDS..(chunk + 1) * WORDS;
        let count = |(_, _, dirty): &(usize, &mut Row, Dirty)| -> u32 {
            dirty.bits[words.clone()].iter().map(|bits| bits.count_ones()).sum()
        };
        let dirty: u32 = self.sources[first..last].iter().map(count).sum();
        let terrain = field.terrain(head, field.links);
        let Workshop { scratches, tiles, exact, known } = workshop;
        let is_exact = match field.links.rows(head.class) {
            Some(rows) if terrain.two && dirty >= TILE_ROUTES_MIN => {
                let near = |at: usize| scratches[(first + at).min(last - 1)].all.near();
                kernel::tiles(field.level, rows, chunk, std::array::from_fn(near), tiles)
            }
            Some(_) | None => false,
        };
        for (at, tile) in (first..last).zip(&**tiles) {
            let (source, row, dirty) = &mut self.sources[at];
            let scratch = &mut scratches[at];
            if is_exact {
                kernel::turn(field.level, tile, field.stride / BLOCK, field.ranks(), exact);
            }
            for word in words.clone() {
                let mut bits = dirty.bits[word];
                while bits != 0 {
                    let to = word * BLOCK + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    if !head.ends[to] || *source == to {
                        continue;
                    }
                    let mut hints = if is_exact {
                        Hints::Dense(&exact[to % CHUNK])
                    } else {
                        known.hints(&scratch.all, &terrain, to)
                    };
                    scratch.route(field, head, row, (*source, to), &mut hints, out);
                }
            }
        }
    }
}
