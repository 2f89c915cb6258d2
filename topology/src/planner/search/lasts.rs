//! What is known of a destination before any search for it, and searches over lists of neighbours.
//!
//! Of each neighbour that the last link may come from, the cheapest way there and that link are a lower bound, whatever a
//! search bars. So the searches for one pair look at the neighbours in the order of these sums, which is found as
//! far as they ask for it, and end at the first one that is too dear: mostly after a few.

use super::{NONE, Source, Terrain, Wanted};
use crate::planner::kernel::{self, Bounds, Found, LANES, Level, Ways};
use crate::planner::links::Hop;

/// What all searches for one pair share.
#[derive(Debug)]
pub(in crate::planner) enum Hints<'a> {
    /// By block of the matrix.
    Dense(&'a Bounds),
    /// By neighbour of the destination.
    Sparse(&'a mut Lasts),
}

impl Hints<'_> {
    /// What a path over two relays costs at least, whatever is barred.
    pub(super) fn least(&mut self, terrain: &Terrain<'_>, to: usize) -> u32 {
        match self {
            Hints::Dense(bounds) => bounds.least(),
            Hints::Sparse(lasts) => lasts.nth(terrain, to, 0).map_or(NONE, |last| last.least),
        }
    }

    /// The same, if there is a path that costs so much.
    pub(super) fn exact(&mut self, terrain: &Terrain<'_>, to: usize) -> Option<u32> {
        let is_exact = match self {
            Hints::Dense(bounds) => bounds.is_exact(),
            Hints::Sparse(_) => true,
        };
        is_exact.then(|| self.least(terrain, to))
    }
}

/// Room for the hints of one pair.
#[derive(Clone, Debug, Default)]
pub(in crate::planner) struct Known {
    rough: Bounds,
    lasts: Lasts,
}

/// Relays that reach a destination, cheapest first by the cheapest way to them and their link.
#[derive(Clone, Debug, Default)]
pub(in crate::planner) struct Lasts {
    /// By position in the list of neighbours; the greatest number where it is sorted in. Padded to whole lanes.
    sums: Vec<u32>,
    /// Sums and positions; of equals the least position first, which is that of the least number.
    sorted: Vec<(u32, usize)>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    pub(super) relay: usize,
    /// What its link to the destination costs.
    pub(super) link: u32,
    /// What a path over it costs at least.
    pub(super) least: u32,
}

impl Known {
    /// Finds the hints for a destination, quickly.
    pub(in crate::planner) fn hints(
        &mut self,
        source: &Source,
        terrain: &Terrain<'_>,
        to: usize,
    ) -> Hints<'_> {
        let carriers = &terrain.carriers.all;
        match terrain.links.list_to(terrain.class, to) {
            None => {
                if let Some(column) = terrain.links.column(terrain.class, to, carriers) {
                    kernel::rough_bounds(terrain.level, &source.relays, column, &mut self.rough);
                }
                Hints::Dense(&self.rough)
            }
            Some(list) => {
                self.lasts.fill(&source.near, list);
                Hints::Sparse(&mut self.lasts)
            }
        }
    }
}

impl Lasts {
    fn fill(&mut self, near: &[u32], (ends, hops): (&[u16], &[Hop])) {
        self.sorted.clear();
        self.sums.clear();
        let sum = |(end, hop): (&u16, &Hop)| near[usize::from(*end)] + hop.cost;
        self.sums.extend(ends.iter().zip(hops).map(sum));
        self.sums.resize(ends.len().next_multiple_of(LANES), u32::MAX);
    }

    /// The neighbour of a rank, if a path over it may exist.
    #[inline]
    pub(super) fn nth(&mut self, terrain: &Terrain<'_>, to: usize, rank: usize) -> Option<Last> {
        let (least, at) = self.position(terrain.level, rank)?;
        let (ends, hops) = terrain.links.list_to(terrain.class, to)?;
        Some(Last { relay: usize::from(ends[at]), link: hops[at].cost, least })
    }

    #[inline]
    fn position(&mut self, level: Level, rank: usize) -> Option<(u32, usize)> {
        while self.sorted.len() <= rank {
            let found = kernel::take_least(level, &mut self.sums)?;
            self.sorted.push(found);
        }
        Some(self.sorted[rank])
    }

    /// The cheapest path over two relays that costs less than `bound`.
    pub(super) fn cheapest(
        &mut self,
        terrain: &Terrain<'_>,
        to: usize,
        bound: u32,
    ) -> Option<Found> {
        let first = self.nth(terrain, to, 0).filter(|last| last.least < bound)?;
        Some(Found { cost: first.least, last: first.relay })
    }

    /// The same, under bars.
    pub(super) fn cheapest_avoiding(
        &mut self,
        terrain: &Terrain<'_>,
        ways: &Ways,
        wanted: &Wanted<'_>,
        bound: u32,
    ) -> Option<Found> {
        self.cheapest_by(terrain, wanted, bound, |last, _| {
            ways.avoiding(last, wanted.barred).map(|(cost, _)| cost)
        })
    }

    /// The same, by other ways: `way` says what one to a relay costs, if that is less than so much.
    pub(super) fn cheapest_by(
        &mut self,
        terrain: &Terrain<'_>,
        &Wanted { to, carriers, labels, barred }: &Wanted<'_>,
        bound: u32,
        mut way: impl FnMut(usize, u32) -> Option<u32>,
    ) -> Option<Found> {
        let mut search = Search { bound, found: None };
        for rank in 0.. {
            let Some(last) = self.nth(terrain, to, rank).filter(|last| search.may_gain(last))
            else {
                break;
            };
            if carriers[last.relay] != 0 || barred.contains(&labels[last.relay]) {
                continue;
            }
            // One more, for of equals another relay may go first.
            if let Some(way) = way(last.relay, search.bound + 1 - last.link) {
                search.take(Found { cost: way + last.link, last: last.relay });
            }
        }
        search.found
    }
}

/// A search that goes through neighbours by their least cost.
#[derive(Debug)]
pub(super) struct Search {
    /// What is to be less.
    pub(super) bound: u32,
    pub(super) found: Option<Found>,
}

impl Search {
    /// Whether this one or a later one can be better than what was found.
    pub(super) fn may_gain(&self, last: &Last) -> bool {
        last.least < self.bound || last.least == self.bound && self.found.is_some()
    }

    /// Takes in a path: of equals the one with the last relay of the least number. Says whether it is the best.
    pub(super) fn take(&mut self, new: Found) -> bool {
        let first = |found: Found| new.cost == found.cost && new.last < found.last;
        let better = new.cost < self.bound || self.found.is_some_and(first);
        if better {
            (self.bound, self.found) = (new.cost, Some(new));
        }
        better
    }
}
