//! The routes of one class and policy, a row per source: what is in use, its backups, and what the rules of
//! [`super::route`] remember, in 72 bytes a route.

use std::collections::BTreeMap;

use overway_wire::Micros;

use super::kernel::NONE;
use super::left::Memory;
use super::links::Links;
use super::packed::{Packed, Via};

/// Places of a record: the path in use, the one that shares no relay with it (or else is parallel to it), the
/// one that avoids its providers or regions, the direct one or else a further one.
pub(super) const PLACES: usize = 4;
/// Place of the path in use.
pub(super) const IN_USE: usize = 0;
/// Place of the disjoint path, or of the parallel one.
pub(super) const DISJOINT: usize = 1;
/// Place of the path that avoids providers or regions, if that is not the disjoint one.
pub(super) const DIVERSE: usize = 2;
/// Place of the direct path, if it is none of the others; of a further path where no link leads there.
pub(super) const DIRECT: usize = 3;

/// Growth or shrinkage of a candidate's delay that is worth a push: a relay uses it for time budgets
/// and for people only, where a fifth does not matter.
const DELAY_CHANGE_PERCENT_MIN: u32 = 20;
/// Below this a change of delay is not worth a push, whatever its share.
const DELAY_CHANGE_MIN: Micros = Micros(5_000);
/// Told delays are kept in units of 64 microseconds, at most four seconds.
const TOLD_UNIT_US: u32 = 64;

/// One route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) paths: [Packed; PLACES],
    /// What the paths cost when they were looked at last.
    pub(super) costs: [u32; PLACES],
    /// The delays as the source was told last.
    told: [u16; PLACES],
    /// What each link of the path in use cost when that was last the best.
    pub(super) normal: [u32; 3],
    /// Milliseconds since the planner's start.
    pub(super) in_use_since: u32,
    /// Milliseconds since the planner's start.
    pub(super) first_seen: u32,
    pub(super) moves: u16,
    /// The path in [`DISJOINT`]'s place takes the same relays as the one in use.
    pub(super) is_parallel: bool,
    /// The path in [`DISJOINT`]'s place avoids the providers or regions too.
    pub(super) disjoint_is_diverse: bool,
}

/// The routes of one source, by number of the destination.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) records: Vec<Record>,
    /// What the cheapest path costs.
    pub(super) best: Vec<u32>,
    /// What the dearest path that was searched for costs: what costs more cannot change the route.
    pub(super) worst: Vec<u32>,
    /// Paths that were left lately.
    pub(super) left: Memory,
    /// Routes that have just moved, or have a better path that was left lately, and when they are looked at again if no
    /// cost changes. In milliseconds since the planner's start.
    pub(super) held: BTreeMap<u16, u32>,
}

/// What a path costs and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Priced {
    pub(super) cost: u32,
    pub(super) delay: u32,
    /// By link.
    pub(super) costs: [u32; 3],
}

impl Record {
    pub(super) const NONE: Self = Self {
        paths: [Packed::NONE; PLACES],
        costs: [0; PLACES],
        told: [0; PLACES],
        normal: [0; 3],
        in_use_since: 0,
        first_seen: 0,
        moves: 0,
        is_parallel: false,
        disjoint_is_diverse: false,
    };

    /// A route that takes this path from now on, for questions.
    pub(super) fn new(path: Packed) -> Self {
        let mut record = Self::NONE;
        record.paths[IN_USE] = path;
        record
    }

    /// Whether the route has a path.
    pub(super) fn exists(&self) -> bool {
        self.paths[IN_USE].exists()
    }

    /// Whether the route exists, without a path that shares no relay with the one in use.
    pub(super) fn lacks_disjoint(&self) -> bool {
        self.exists() && (self.is_parallel || !self.paths[DISJOINT].exists())
    }

    /// Whether the path in [`DIRECT`]'s place is a further one.
    pub(super) fn has_further(&self) -> bool {
        self.paths[DIRECT].exists() && self.paths[DIRECT].via() != Via::DIRECT
    }

    /// Whether the route exists, without a path that avoids the providers or the regions of the one in use.
    pub(super) fn lacks_diverse(&self) -> bool {
        self.exists() && !self.disjoint_is_diverse && !self.paths[DIVERSE].exists()
    }

    /// The record with other numbers; `None` if a relay of the path in use is gone.
    pub(super) fn renumbered(&self, number: &impl Fn(u16) -> Option<u16>) -> Option<Self> {
        let paths = self.paths.map(|path| path.renumbered(number).unwrap_or(Packed::NONE));
        paths[IN_USE].exists().then_some(Self { paths, ..*self })
    }

    pub(super) fn in_use(&self) -> Packed {
        self.paths[IN_USE]
    }

    /// The paths that there are, and what the source was told of how long each takes.
    pub(super) fn told(&self) -> impl Iterator<Item = (Packed, Micros)> {
        let told = self.told.map(|told| Micros(u32::from(told) * TOLD_UNIT_US));
        self.paths.into_iter().zip(told).filter(|(path, _)| path.exists())
    }

    /// Says whether the route is to be told after it was `before`: paths are others, or a delay differs much from
    /// what was told. A path that costs what it did takes as long as it did.
    pub(super) fn tell(&mut self, before: &Self, delay: impl Fn(Packed) -> u32) -> bool {
        let same_paths = self.paths == before.paths;
        if same_paths && self.costs == before.costs {
            return false;
        }
        let mut news = !same_paths;
        let mut told = self.told;
        for (at, told) in told.iter_mut().enumerate() {
            let (path, before_there) = (self.paths[at], before.paths[at]);
            if path == before_there && self.costs[at] == before.costs[at] {
                continue;
            }
            let new = if path.exists() { delay(path) } else { 0 };
            let old = u32::from(*told) * TOLD_UNIT_US;
            let change = old.abs_diff(new);
            news |= change >= DELAY_CHANGE_MIN.0 && change >= old / 100 * DELAY_CHANGE_PERCENT_MIN;
            *told = u16::try_from(new / TOLD_UNIT_US).unwrap_or(u16::MAX);
        }
        if news {
            self.told = told;
        }
        news
    }
}

impl Row {
    /// Makes room for destinations numbered below `stride`.
    pub(super) fn resize(&mut self, stride: usize) {
        self.records.resize(stride, Record::NONE);
        self.best.resize(stride, NONE);
        self.worst.resize(stride, NONE);
    }
}

/// What a path costs and takes, or `None` if a link of it is not usable.
pub(super) fn price(
    links: &Links,
    class: usize,
    path: Packed,
    (from, to): (usize, usize),
) -> Option<Priced> {
    let mut sum = Priced { cost: 0, delay: 0, costs: [0; 3] };
    for (at, (sender, receiver, index)) in path.links(from, to).enumerate() {
        let hop = if at > 0 && receiver == to {
            links.line_to(class, sender, receiver, index)?
        } else {
            links.line(class, sender, receiver, index)?
        };
        sum.cost += hop.cost;
        sum.delay = sum.delay.saturating_add(hop.delay);
        sum.costs[at] = hop.cost;
    }
    path.exists().then_some(sum)
}

/// What a path costs, or `None` if a link of it is not usable: without its delay, which lies elsewhere.
#[inline]
pub(super) fn cost(
    links: &Links,
    class: usize,
    path: Packed,
    (from, to): (usize, usize),
) -> Option<u32> {
    let mut sum = 0;
    let cheapest = path.is_plain() && links.is_plain(class);
    for (sender, receiver, index) in path.links(from, to) {
        sum += if !cheapest && links.index(class, sender, receiver) != index {
            links.line(class, sender, receiver, index)?.cost
        } else if receiver == to {
            links.cost_to(class, sender, receiver)
        } else {
            links.cost(class, sender, receiver)
        };
    }
    (path.exists() && sum < NONE).then_some(sum)
}

/// Whether each link of a path is the cheapest of its pair.
#[inline]
pub(super) fn takes_cheapest(
    links: &Links,
    class: usize,
    path: Packed,
    (from, to): (usize, usize),
) -> bool {
    let is_cheapest = |(from, to, index)| links.index(class, from, to) == index;
    path.is_plain() && links.is_plain(class) || path.links(from, to).all(is_cheapest)
}

/// A path that the search found, by the links that it took.
pub(super) fn by_cheapest(
    links: &Links,
    class: usize,
    via: Via,
    (from, to): (usize, usize),
) -> Packed {
    let mut indices = [0; 3];
    if !links.is_plain(class) {
        for (index, (from, to)) in indices.iter_mut().zip(via.hops(from, to)) {
            *index = links.index(class, from, to);
        }
    }
    Packed::new(via, indices)
}

/// The same relays, by the cheapest other link at every hop that has one; `None` if no hop has.
pub(super) fn parallel(
    links: &Links,
    class: usize,
    path: Packed,
    (from, to): (usize, usize),
) -> Option<Packed> {
    let mut indices = [0; 3];
    let mut other = false;
    for (at, (from, to, index)) in path.links(from, to).enumerate() {
        indices[at] = index;
        if let Some(hop) = links.other_line(class, from, to, index) {
            indices[at] = hop.index;
            other = true;
        }
    }
    other.then(|| Packed::new(path.via(), indices))
}
