//! Cheapest paths once more, to hold the planner's against: written anew, plainly, and sharing nothing with it.
//!
//! [`cheapest`] is the relaxation of Bellman and Ford, stopped after as many rounds as a path may have links. Costs
//! are not negative, so no circle pays, and the cheapest walk is a path.

use overway_topology::Candidate;
use overway_wire::RelayId;

use crate::input;

/// No link, or no path. Four of them still sum without overflow.
pub(crate) const NONE: u64 = u64::MAX / 4;

/// A value for every ordered pair of relays, by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Square {
    count: usize,
    cells: Vec<u64>,
}

impl Square {
    /// [`NONE`] everywhere.
    pub(crate) fn new(count: usize) -> Self {
        Self { count, cells: vec![NONE; count * count] }
    }

    /// Rows.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// A cell; [`NONE`] or more if there is nothing.
    pub(crate) fn at(&self, from: usize, to: usize) -> u64 {
        self.cells[from * self.count + to]
    }

    /// Changes a cell.
    pub(crate) fn set(&mut self, from: usize, to: usize, value: u64) {
        self.cells[from * self.count + to] = value;
    }

    /// A row.
    pub(crate) fn row(&self, from: usize) -> &[u64] {
        &self.cells[from * self.count..][..self.count]
    }

    /// What a path costs whose cells these are: its rows from end to end.
    pub(crate) fn along(&self, rows: &[usize]) -> u64 {
        rows.windows(2).map(|step| self.at(step[0], step[1])).sum::<u64>().min(NONE)
    }
}

/// The least cost of a path with at most `links_max` links, for every ordered pair.
pub(crate) fn cheapest(links: &Square, links_max: usize) -> Square {
    let count = links.count();
    let mut best = links.clone();
    for _ in 1..links_max {
        let before = best.clone();
        for from in 0..count {
            let row = &mut best.cells[from * count..][..count];
            for via in (0..count).filter(|&via| via != from) {
                let so_far = before.at(from, via);
                for (cost, &link) in row.iter_mut().zip(links.row(via)) {
                    *cost = (*cost).min(so_far + link);
                }
            }
            row[from] = NONE;
        }
    }
    best
}

/// The rows that a candidate visits, its source first.
pub(crate) fn rows(source: RelayId, candidate: &Candidate) -> Vec<usize> {
    let steps = candidate.path.elements().iter().map(|step| step.relay);
    std::iter::once(source).chain(steps).map(input::row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    /// Every path there is, one by one.
    fn by_trial(links: &Square, from: usize, to: usize, links_left: usize, seen: &[usize]) -> u64 {
        let direct = links.at(from, to);
        if links_left == 1 {
            return direct;
        }
        let between = (0..links.count()).filter(|via| *via != to && !seen.contains(via));
        let around = between.map(|via| {
            let seen = [seen, &[via]].concat();
            links.at(from, via) + by_trial(links, via, to, links_left - 1, &seen)
        });
        around.chain([direct]).min().expect("direct is one").min(NONE)
    }

    #[test]
    fn it_finds_what_trying_every_path_finds() {
        for seed in 0..20 {
            let mut rng = Rng::with_seed(seed);
            let mut links = Square::new(7);
            for (from, to) in (0..49).map(|at| (at / 7, at % 7)).filter(|(a, b)| a != b) {
                if rng.f64() < 0.6 {
                    links.set(from, to, rng.u64(..100));
                }
            }
            for links_max in 1..=3 {
                let best = cheapest(&links, links_max);
                for (from, to) in (0..49).map(|at| (at / 7, at % 7)).filter(|(a, b)| a != b) {
                    let expected = by_trial(&links, from, to, links_max, &[from]);
                    assert_eq!(best.at(from, to).min(NONE), expected, "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn a_path_over_a_link_that_is_not_there_costs_nothing_less_than_none() {
        let mut links = Square::new(3);
        links.set(0, 1, 5);
        links.set(1, 2, 7);

        assert_eq!(links.along(&[0, 1, 2]), 12);
        assert_eq!(links.along(&[0, 2, 1]), NONE);
    }
}
