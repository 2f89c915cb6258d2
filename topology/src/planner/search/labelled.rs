//! Paths that avoid labels: providers or regions.

use std::num::NonZeroU16;

use super::avoiding::{Wanted, cheapest_avoiding, sparse_ways};
use super::{Choice, Hints, Terrain};
use crate::planner::kernel::{self, CHUNK, Groups, NONE, WAYS, Ways};
use crate::planner::labels::{Kind, Labels};
use crate::planner::packed::Via;

/// Ways by label, made when they are first asked for.
#[derive(Debug, Default)]
pub(super) struct Labelled {
    pub(super) state: State,
    groups: Groups,
    ways: Ways,
    /// By relay and rank: the first relay of the way to it, if that was found out.
    firsts: Vec<[Option<NonZeroU16>; WAYS]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is known.
    #[default]
    Unknown,
    /// The ways are being found chunk by chunk.
    Begun,
    Ready,
}

impl Labelled {
    pub(super) fn start(
        &mut self,
        terrain: &Terrain<'_>,
        (kind, carriers): (&Kind, &[u32]),
        source: usize,
        order: &[(u32, u32)],
    ) {
        self.begin(terrain, (kind, carriers), order);
        (0..terrain.stride / CHUNK).for_each(|chunk| self.extend(terrain, chunk));
        self.finish(terrain, kind, source);
    }

    pub(super) fn begin(
        &mut self,
        terrain: &Terrain<'_>,
        (kind, carriers): (&Kind, &[u32]),
        order: &[(u32, u32)],
    ) {
        self.state = State::Begun;
        let known = order.iter().filter(|(_, relay)| carriers[*relay as usize] == 0);
        self.groups.fill(known.copied(), &kind.of, kind.count);
        self.firsts.clear();
        self.firsts.resize(terrain.stride, [None; WAYS]);
        if terrain.links.rows(terrain.class).is_some() {
            self.ways.clear(terrain.stride);
        }
    }

    pub(super) fn extend(&mut self, terrain: &Terrain<'_>, chunk: usize) {
        if let Some(rows) = terrain.links.rows(terrain.class) {
            kernel::labelled_ways(terrain.level, rows, chunk, &self.groups, &mut self.ways);
        }
    }

    pub(super) fn finish(&mut self, terrain: &Terrain<'_>, kind: &Kind, source: usize) {
        if terrain.links.rows(terrain.class).is_none() {
            sparse_ways(terrain, self.groups.all(), &kind.of, true, &mut self.ways);
        }
        self.ways.bar(source);
        self.state = State::Ready;
    }

    pub(super) fn cheapest(
        &mut self,
        terrain: &Terrain<'_>,
        wanted: &Wanted<'_>,
        hints: &mut Hints<'_>,
        direct: u32,
    ) -> Option<Choice> {
        let &Wanted { to, barred, .. } = wanted;
        let one = self.ways.avoiding(to, barred).filter(|(cost, _)| *cost < direct);
        let bound = one.map_or(direct, |(cost, _)| cost);
        let found =
            terrain.two.then(|| cheapest_avoiding(terrain, &self.ways, wanted, hints, bound));
        if let Some(found) = found.flatten() {
            let first = self.first(terrain, found.last, barred)?;
            return Some(Choice { cost: found.cost, via: Via::two(first, found.last) });
        }
        if let Some((cost, _)) = one {
            return Some(Choice { cost, via: Via::one(self.first(terrain, to, barred)?) });
        }
        (direct < NONE).then_some(Choice { cost: direct, via: Via::DIRECT })
    }

    /// The first relay of the cheapest way to a relay that has none of these labels: the cheapest from the source
    /// of those with which the way costs as much.
    fn first(&mut self, terrain: &Terrain<'_>, to: usize, barred: [u32; 2]) -> Option<u32> {
        let (rank, (cost, label)) = self.ways.rank_avoiding(to, barred)?;
        // One more than the number, since zero is none.
        if let Some(known) = self.firsts[to][rank] {
            return Some(u32::from(known.get()) - 1);
        }
        let mut firsts = self.groups.of(label).iter();
        let next = terrain.links.inward(terrain.class, to);
        let next = |relay: u32| match next {
            Some(next) => next[relay as usize],
            None => terrain.links.cost(terrain.class, relay as usize, to),
        };
        let (_, relay) = firsts.find(|(first, relay)| first + next(*relay) == cost)?;
        let known =
            u16::try_from(relay + 1).expect("relays have ids of 16 bits, of which one is none");
        self.firsts[to][rank] = NonZeroU16::new(known);
        Some(*relay)
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

/// Whether a path avoids the providers of another one's intermediates, or else their regions.
pub(in super::super) fn is_diverse(
    labels: &Labels,
    via: Via,
    other: Via,
    (source, to): (usize, usize),
) -> bool {
    let avoids_kind = |kind| {
        let barred = labels_of(kind, other, source, to);
        barred.is_some_and(|barred| avoids(kind, via, barred))
    };
    via != other && (avoids_kind(&labels.provider) || avoids_kind(&labels.region))
}

/// Whether no intermediate of a path has one of these labels, and all are known.
pub(super) fn avoids(kind: &Kind, via: Via, barred: [u32; 2]) -> bool {
    via.relays().iter().all(|relay| {
        let label = kind.of[usize::from(*relay)];
        label != 0 && !barred.contains(&label)
    })
}
