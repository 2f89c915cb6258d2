//! Cheapest paths with at most two intermediates, exactly.
//!
//! For one source at a time, [`Source`] holds the cheapest ways over one relay to each other one (see
//! [`Ways`]). A path to a destination is then the direct link, a way to it, or a way to some relay and that
//! one's link to the destination. A way is only barred by its first relay or that relay's label, and at
//! most two are barred at a time, so one of the three ways kept is always the cheapest allowed: avoiding
//! relays, providers or regions is as exact as avoiding none.
//!
//! Among equal costs fewer hops win, then the last intermediate of the least number, then the first one
//! whose own link is cheapest, then that of the least number.

use super::kernel::{self, Found, Level, NONE, Ways};
use super::labels::{Kind, Labels};
use super::links::Links;
use super::packed::Via;

/// A class's costs for one policy: where paths may lead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terrain<'a> {
    pub(super) links: &'a Links,
    pub(super) class: usize,
    pub(super) carriers: &'a Carriers,
    pub(super) labels: &'a Labels,
    pub(super) level: Level,
    pub(super) stride: usize,
    /// Whether paths may have two intermediates.
    pub(super) two: bool,
}

/// Relays that may be intermediates: zero, others [`NONE`], by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Carriers {
    pub(super) all: Vec<u32>,
    /// Of these, relays whose provider is known.
    pub(super) with_provider: Vec<u32>,
    /// Of these, relays whose region is known.
    pub(super) with_region: Vec<u32>,
}

/// A path and what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) cost: u32,
    pub(super) via: Via,
}

/// What was found of a path that avoids the providers or regions of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Diverse {
    /// There is none.
    None,
    /// The disjoint path is the cheapest such.
    IsDisjoint(By),
    /// Another one.
    Path(By, Choice),
}

/// What a diverse path differs by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Provider,
    /// No path avoids the providers.
    Region,
}

/// The ways from one source.
#[derive(Debug, Default)]
pub(super) struct Source {
    number: usize,
    order: Vec<(u32, u32)>,
    relays: Ways,
    providers: Lazy,
    regions: Lazy,
}

/// Ways by label, made when they are first asked for.
#[derive(Debug, Default)]
struct Lazy {
    ready: bool,
    ways: Ways,
}

impl Carriers {
    pub(super) fn new(all: Vec<u32>, labels: &Labels) -> Self {
        let with_provider = labels.provider.mask(&all);
        let with_region = labels.region.mask(&all);
        Self { all, with_provider, with_region }
    }
}

impl Source {
    /// Finds the ways from a source. What was held before is gone.
    pub(super) fn start(&mut self, terrain: &Terrain<'_>, number: usize) {
        self.number = number;
        terrain.links.cheapest_first(terrain.class, number, &mut self.order);
        self.order.retain(|(_, relay)| terrain.carriers.all[*relay as usize] == 0);
        self.relays.clear(terrain.stride);
        (self.providers.ready, self.regions.ready) = (false, false);
        match terrain.links.rows(terrain.class) {
            Some(rows) => {
                let firsts = kernel::Firsts { order: &self.order };
                kernel::ways(terrain.level, rows, firsts, &mut self.relays);
            }
            None => {
                let own = &terrain.labels.own;
                sparse_ways(terrain, &self.order, own, false, &mut self.relays);
            }
        }
        self.relays.bar(number);
    }

    fn direct(&self, terrain: &Terrain<'_>, to: usize) -> u32 {
        terrain.links.cost(terrain.class, self.number, to)
    }

    /// The cheapest path.
    pub(super) fn best(&self, terrain: &Terrain<'_>, to: usize) -> Option<Choice> {
        let direct = Choice { cost: self.direct(terrain, to), via: Via::DIRECT };
        let one = self.relays.avoiding(to, [u32::MAX; 2]).map(one);
        let bound = one.filter(|one| one.cost < direct.cost).unwrap_or(direct);
        let found = terrain.two.then(|| self.cheapest(terrain, to, bound.cost)).flatten();
        let best = found.map_or(bound, |found| Choice {
            cost: found.cost,
            via: Via::two(self.relays.get(0, found.last).1, found.last),
        });
        (best.cost < NONE).then_some(best)
    }

    /// The cheapest path that shares no intermediate with another one, and is not direct if that one is.
    pub(super) fn disjoint(&self, terrain: &Terrain<'_>, to: usize, other: Via) -> Option<Choice> {
        let none = Choice { cost: NONE, via: Via::DIRECT };
        let (barred, direct) = match other.relays() {
            // A way over the destination itself would be cheaper than all others, and come back.
            [] => ([narrow(to); 2], none),
            &[relay] => ([u32::from(relay); 2], self.direct_choice(terrain, to)),
            &[first, second, ..] => {
                ([u32::from(first), u32::from(second)], self.direct_choice(terrain, to))
            }
        };
        let one = self.relays.avoiding(to, barred).map(one);
        let bound = one.filter(|one| one.cost < direct.cost).unwrap_or(direct);
        let own = &terrain.labels.own;
        let found = terrain.two.then(|| {
            let carriers = &terrain.carriers.all;
            cheapest_avoiding(terrain, &self.relays, (to, carriers), own, barred, bound.cost)
        });
        let best = found.flatten().map_or(bound, |found| {
            let way = self.relays.avoiding(found.last, barred);
            let (_, first) = way.expect("the search found this way");
            Choice { cost: found.cost, via: Via::two(first, found.last) }
        });
        (best.cost < NONE).then_some(best)
    }

    /// The cheapest path that avoids the providers of another one's intermediates, or else their regions; of a
    /// direct one, those of its ends. `disjoint` is the cheapest that shares no intermediate with it.
    pub(super) fn diverse(
        &mut self,
        terrain: &Terrain<'_>,
        to: usize,
        other: Via,
        disjoint: Via,
    ) -> Diverse {
        let labels = terrain.labels;
        let carriers = terrain.carriers;
        let kinds = [
            (By::Provider, &labels.provider, &carriers.with_provider, &mut self.providers),
            (By::Region, &labels.region, &carriers.with_region, &mut self.regions),
        ];
        for (by, kind, carriers, lazy) in kinds {
            let Some(barred) = labels_of(kind, other, self.number, to) else { continue };
            if avoids(kind, disjoint, barred) {
                return Diverse::IsDisjoint(by);
            }
            if !lazy.ready {
                lazy.start(terrain, kind, carriers, self.number, &self.order);
            }
            let direct = if other == Via::DIRECT {
                NONE
            } else {
                terrain.links.cost(terrain.class, self.number, to)
            };
            let at = Labelled { kind, carriers, ways: &lazy.ways, order: &self.order };
            if let Some(choice) = at.cheapest(terrain, to, barred, direct) {
                return Diverse::Path(by, choice);
            }
        }
        Diverse::None
    }

    fn direct_choice(&self, terrain: &Terrain<'_>, to: usize) -> Choice {
        Choice { cost: self.direct(terrain, to), via: Via::DIRECT }
    }

    fn cheapest(&self, terrain: &Terrain<'_>, to: usize, bound: u32) -> Option<Found> {
        let carriers = &terrain.carriers.all;
        if let Some(column) = terrain.links.column(terrain.class, to, carriers) {
            return kernel::cheapest(terrain.level, &self.relays, column, bound);
        }
        let mut best = None;
        let mut bound = bound;
        for (last, cost) in terrain.links.to(terrain.class, to) {
            let sum = self.relays.get(0, last).0 + cost;
            if sum < bound && carriers[last] == 0 {
                bound = sum;
                best = Some(Found { cost: sum, last });
            }
        }
        best
    }
}

/// The ways by one kind of label.
struct Labelled<'a> {
    kind: &'a Kind,
    carriers: &'a [u32],
    ways: &'a Ways,
    order: &'a [(u32, u32)],
}

impl Labelled<'_> {
    fn cheapest(
        &self,
        terrain: &Terrain<'_>,
        to: usize,
        barred: [u32; 2],
        direct: u32,
    ) -> Option<Choice> {
        let one = self.ways.avoiding(to, barred).filter(|(cost, _)| *cost < direct);
        let bound = one.map_or(direct, |(cost, _)| cost);
        let labels = &self.kind.of;
        let found = terrain.two.then(|| {
            cheapest_avoiding(terrain, self.ways, (to, self.carriers), labels, barred, bound)
        });
        if let Some(found) = found.flatten() {
            let (cost, label) = self.ways.avoiding(found.last, barred)?;
            let first = self.first(terrain, found.last, cost, label)?;
            return Some(Choice { cost: found.cost, via: Via::two(first, found.last) });
        }
        if let Some((cost, label)) = one {
            let first = self.first(terrain, to, cost, label)?;
            return Some(Choice { cost, via: Via::one(first) });
        }
        (direct < NONE).then_some(Choice { cost: direct, via: Via::DIRECT })
    }

    /// The first relay of a way that is known by its label.
    fn first(&self, terrain: &Terrain<'_>, to: usize, cost: u32, label: u32) -> Option<u32> {
        let mut firsts = self.order.iter().filter(|(_, relay)| {
            self.kind.of[*relay as usize] == label && self.carriers[*relay as usize] == 0
        });
        let leads = |&&(first, relay): &&(u32, u32)| {
            first + terrain.links.cost_to(terrain.class, relay as usize, to) == cost
        };
        firsts.find(leads).map(|(_, relay)| *relay)
    }
}

impl Lazy {
    fn start(
        &mut self,
        terrain: &Terrain<'_>,
        kind: &Kind,
        carriers: &[u32],
        source: usize,
        order: &[(u32, u32)],
    ) {
        let known = order.iter().filter(|(_, relay)| carriers[*relay as usize] == 0);
        let order: Vec<(u32, u32)> = known.copied().collect();
        self.ways.clear(terrain.stride);
        match terrain.links.rows(terrain.class) {
            Some(rows) => {
                let firsts = kernel::Firsts { order: &order };
                let ways = &mut self.ways;
                kernel::labelled_ways(terrain.level, rows, firsts, &kind.of, kind.count, ways);
            }
            None => sparse_ways(terrain, &order, &kind.of, true, &mut self.ways),
        }
        self.ways.bar(source);
        self.ready = true;
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("relays have ids of 16 bits")
}

fn one((cost, relay): (u32, u32)) -> Choice {
    Choice { cost, via: Via::one(relay) }
}

/// The labels to avoid, or `None` if one of them was not said, or none is known.
fn labels_of(kind: &Kind, via: Via, source: usize, to: usize) -> Option<[u32; 2]> {
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
pub(super) fn is_diverse(
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
fn avoids(kind: &Kind, via: Via, barred: [u32; 2]) -> bool {
    via.relays().iter().all(|relay| {
        let label = kind.of[usize::from(*relay)];
        label != 0 && !barred.contains(&label)
    })
}

fn cheapest_avoiding(
    terrain: &Terrain<'_>,
    ways: &Ways,
    (to, carriers): (usize, &[u32]),
    labels: &[u32],
    barred: [u32; 2],
    bound: u32,
) -> Option<Found> {
    if let Some(column) = terrain.links.column(terrain.class, to, carriers) {
        return kernel::cheapest_avoiding(terrain.level, ways, column, labels, barred, bound);
    }
    let mut best = None;
    let mut bound = bound;
    for (last, cost) in terrain.links.to(terrain.class, to) {
        if ways.get(0, last).0 + cost >= bound
            || carriers[last] != 0
            || barred.contains(&labels[last])
        {
            continue;
        }
        if let Some((way, _)) = ways.avoiding(last, barred)
            && way + cost < bound
        {
            bound = way + cost;
            best = Some(Found { cost: bound, last });
        }
    }
    best
}

/// The ways over lists of neighbours. Of equals the earlier one stays, or the one of the lesser label where ways
/// are known by those: as over a matrix.
fn sparse_ways(
    terrain: &Terrain<'_>,
    order: &[(u32, u32)],
    labels: &[u32],
    by_label: bool,
    ways: &mut Ways,
) {
    for &(first, relay) in order {
        let label = labels[relay as usize];
        for (to, cost) in terrain.links.from(terrain.class, relay as usize) {
            insert(ways, to, (first + cost, label), by_label);
        }
    }
}

/// Takes in one way.
fn insert(ways: &mut Ways, to: usize, new: (u32, u32), by_label: bool) {
    let better = |old: (u32, u32)| new.0 < old.0 || by_label && new.0 == old.0 && new.1 < old.1;
    let [first, second, third] = [0, 1, 2].map(|rank| ways.get(rank, to));
    if !better(third) {
        return;
    }
    let is_new = |old: (u32, u32)| old.1 != new.1;
    if better(first) {
        if is_new(first) {
            if is_new(second) {
                ways.set(2, to, second);
            }
            ways.set(1, to, first);
        }
        ways.set(0, to, new);
    } else if is_new(first) && better(second) {
        if is_new(second) {
            ways.set(2, to, second);
        }
        ways.set(1, to, new);
    } else if is_new(first) && is_new(second) {
        ways.set(2, to, new);
    }
}
