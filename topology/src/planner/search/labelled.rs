//! Paths that avoid labels: providers or regions.
//!
//! The cheapest ways of a source are over first relays of which mostly one is allowed, whatever labels are barred: so
//! they serve here too, under the labels of their first relays ([`State::Signed`]). Where all that are kept of a
//! relay are barred, the last of them is a lower bound; should that look cheapest, the way is looked for among all first
//! relays. If that happens often, the cheapest ways by label are found once for all ([`State::Ready`]).

use super::avoiding::{Wanted, cheapest_avoiding, sparse_ways};
use super::first::Firsts;
use super::{Choice, Hints, Terrain};
use crate::planner::kernel::{self, CHUNK, Found, Groups, WAYS, Ways};
use crate::planner::labels::Kind;
use crate::planner::packed::Via;

/// So many ways are looked for one by one: about what it takes to find the ways by label, over a matrix and over lists. Tests
/// are to see both.
const SCANS_MAX: [u32; 2] = if cfg!(test) { [2, 1] } else { [64, 4] };

/// Ways by label, made when they are first asked for.
#[derive(Debug, Default)]
pub(super) struct Labelled {
    pub(super) state: State,
    groups: Groups,
    ways: Ways,
    /// How often a way was looked for among all first relays.
    scans: u32,
    /// Ways that are left out of a search, and are put back after it.
    hidden: Vec<(usize, [(u32, u32); WAYS])>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is known.
    #[default]
    Unknown,
    /// The cheapest ways, by the label of their first relay.
    Signed,
    /// The cheapest ways of each label.
    Ready,
}

impl Labelled {
    /// The cheapest path that costs less than `limit`; `direct` is what the direct one costs.
    pub(super) fn cheapest(
        &mut self,
        terrain: &Terrain<'_>,
        (kind, firsts): (&Kind, &Firsts<'_>),
        wanted: &Wanted<'_>,
        hints: &mut Hints<'_>,
        (direct, limit): (u32, u32),
    ) -> Option<Choice> {
        let &Wanted { to, barred, .. } = wanted;
        let is_allowed = |first: u32| {
            let label = kind.of[first as usize];
            label != 0 && !barred.contains(&label)
        };
        let most = direct.min(limit);
        let kept = firsts.kept(to, most, is_allowed);
        let bound = kept.flatten().map_or(most, |(cost, _)| cost);
        let mut found = None;
        if terrain.two && hints.least(terrain, to) < bound {
            self.prepare(terrain, (kind, firsts));
            found = match self.state {
                State::Ready => cheapest_avoiding(terrain, &self.ways, wanted, hints, bound),
                State::Signed | State::Unknown => {
                    self.resolve(terrain, firsts, wanted, hints, bound, is_allowed)
                }
            };
        }
        // One more, for of equals fewer hops win.
        let below = found.map_or(most, |found| found.cost + 1);
        let one = kept.unwrap_or_else(|| {
            let by_label = (self.state == State::Ready).then(|| self.ways.avoiding(to, barred));
            if by_label.is_some_and(|way| way.is_none_or(|(cost, _)| cost >= below)) {
                return None;
            }
            self.scans += 1;
            firsts.scan(terrain, to, below, is_allowed)
        });
        if let Some((cost, first)) = one.filter(|(cost, _)| *cost < below) {
            return Some(Choice { cost, via: Via::one(first) });
        }
        if let Some(Found { cost, last }) = found {
            let link = terrain.links.cost_to(terrain.class, last, to);
            // One more than it costs, for it is to be found.
            let way = firsts.way(terrain, last, cost - link + 1, is_allowed);
            let (_, first) = way.expect("the search found this way");
            return Some(Choice { cost, via: Via::two(first, last) });
        }
        (direct < limit).then_some(Choice { cost: direct, via: Via::DIRECT })
    }

    fn prepare(&mut self, terrain: &Terrain<'_>, (kind, firsts): (&Kind, &Firsts<'_>)) {
        let is_matrix = terrain.links.rows(terrain.class).is_some();
        match self.state {
            State::Unknown => {
                self.scans = 0;
                if is_matrix {
                    self.ways.sign(firsts.ways, &kind.of);
                }
                self.state = State::Signed;
            }
            State::Signed if self.scans > SCANS_MAX[usize::from(!is_matrix)] => {
                self.find_all(terrain, kind, firsts);
                self.state = State::Ready;
            }
            State::Signed | State::Ready => {}
        }
    }

    /// Finds the cheapest ways of each label.
    fn find_all(&mut self, terrain: &Terrain<'_>, kind: &Kind, firsts: &Firsts<'_>) {
        let (ordered, others) = firsts.order.parts();
        let mut others = others.to_vec();
        others.sort_unstable();
        let all = ordered.iter().chain(&others);
        let known = all.filter(|(_, relay)| kind.of[*relay as usize] != 0);
        self.groups.fill(known.copied(), &kind.of, kind.count);
        match terrain.links.rows(terrain.class) {
            Some(rows) => {
                self.ways.clear(terrain.stride);
                for chunk in 0..terrain.stride / CHUNK {
                    kernel::labelled_ways(terrain.level, rows, chunk, &self.groups, &mut self.ways);
                }
            }
            None => sparse_ways(terrain, self.groups.all(), &kind.of, true, &mut self.ways),
        }
        self.ways.bar(firsts.source);
    }

    /// Searches over the ways that are signed, and looks for those that none of these is.
    fn resolve(
        &mut self,
        terrain: &Terrain<'_>,
        firsts: &Firsts<'_>,
        wanted: &Wanted<'_>,
        hints: &mut Hints<'_>,
        bound: u32,
        is_allowed: impl Fn(u32) -> bool + Copy,
    ) -> Option<Found> {
        let scans = &mut self.scans;
        let mut way = |last: usize, limit: u32| {
            firsts.kept(last, limit, is_allowed).unwrap_or_else(|| {
                *scans += 1;
                firsts.scan(terrain, last, limit, is_allowed)
            })
        };
        if let Hints::Sparse(lasts) = hints {
            return lasts.cheapest_by(terrain, wanted, bound, |last, limit| {
                way(last, limit).map(|(cost, _)| cost)
            });
        }
        let mut best: Option<Found> = None;
        loop {
            // One more, for of equals another relay may go first.
            let limit = best.map_or(bound, |best| best.cost + 1);
            let found = cheapest_avoiding(terrain, &self.ways, wanted, hints, limit);
            let Some(Found { last, .. }) = found else { break };
            let link = terrain.links.cost_to(terrain.class, last, wanted.to);
            if let Some((cost, _)) = way(last, limit - link) {
                let new = Found { cost: cost + link, last };
                let rank = |found: Found| (found.cost, found.last);
                if best.is_none_or(|best| rank(new) < rank(best)) {
                    best = Some(new);
                }
            }
            if found == best {
                break;
            }
            self.hidden.push((last, self.ways.of(last)));
            self.ways.bar(last);
        }
        for (last, ways) in self.hidden.drain(..) {
            self.ways.put(last, ways);
        }
        best
    }
}

/// The labels to avoid, or `None` if one of them was not said, or none is known.
pub(super) fn labels_of(kind: &Kind, via: Via, source: usize, to: usize) -> Option<[u32; 2]> {
    match via.relays() {
        [] => match [kind.of[source], kind.of[to]] {
            [0, 0] => None,
            [0, label] | [label, 0] => Some([label; 2]),
            both => Some(both),
        },
        &[relay] => Some([kind.of[usize::from(relay)]; 2]).filter(|[label, _]| *label != 0),
        &[first, second, ..] => {
            let both = [kind.of[usize::from(first)], kind.of[usize::from(second)]];
            Some(both).filter(|both| !both.contains(&0))
        }
    }
}

/// Whether no intermediate of a path has one of these labels, and all are known.
pub(super) fn avoids(kind: &Kind, via: Via, barred: [u32; 2]) -> bool {
    via.relays().iter().all(|relay| {
        let label = kind.of[usize::from(*relay)];
        label != 0 && !barred.contains(&label)
    })
}
