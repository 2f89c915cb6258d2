//! Cheapest paths with at most two intermediates, exactly.
//!
//! For one source at a time, [`Source`] holds the cheapest ways over one relay to each other one (see
//! [`Ways`]). A path to a destination is then the direct link, a way to it, or a way to some relay and that
//! one's link to the destination. A way is only barred by its first relay, and at most two are barred at a
//! time, so one of the three ways kept is always the cheapest allowed: avoiding relays is as exact as avoiding
//! none. Where providers or regions are barred, all three may be: see [`labelled`].
//!
//! A backup of the last plan stays unless another is clearly cheaper, so that searches for backups are for what costs
//! less than a *limit*; what the cheapest path costs, whatever is barred, mostly says that there is none.
//!
//! Among equal costs fewer hops win, then the last intermediate of the least number, then the first one
//! whose own link is cheapest, then that of the least number.

use super::kernel::{self, CHUNK, Found, Level, NONE, Ranks, Ways};
use super::labels::Labels;
use super::links::Links;
use super::packed::{Packed, Via};
use super::route::Kept;
use super::table::takes_cheapest;

mod avoiding;
mod first;
mod further;
mod labelled;
mod lasts;
mod nearest;

pub(super) use further::{Further, shared};
pub(super) use lasts::{Hints, Known};

use avoiding::{Wanted, cheapest_avoiding, sparse_ways};
use first::Firsts;
use labelled::{Labelled, State, avoids, labels_of};
use nearest::Nearest;

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
    /// The one of the last plan, as there is none that is clearly cheaper.
    Kept(By, Kept),
    /// Another one.
    Path(By, Choice),
}

impl Diverse {
    pub(super) fn by(&self) -> Option<By> {
        match self {
            Self::None => None,
            Self::IsDisjoint(by) | Self::Kept(by, _) | Self::Path(by, _) => Some(*by),
        }
    }
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
    order: Nearest,
    relays: Ways,
    /// What the cheapest ways to relays cost that may be intermediates; [`NONE`] for others.
    near: Vec<u32>,
    providers: Labelled,
    regions: Labelled,
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
    pub(super) fn start(&mut self, terrain: &Terrain<'_>, number: usize, ranks: Ranks) {
        self.begin(terrain, number);
        (0..terrain.stride / CHUNK).for_each(|chunk| self.extend(terrain, chunk, ranks));
        self.finish(terrain);
    }

    /// Makes ready for a source, of which [`Self::extend`] is to be asked for every chunk of relays: several sources
    /// take turns, so that the links to a chunk are at hand for all.
    pub(super) fn begin(&mut self, terrain: &Terrain<'_>, number: usize) {
        self.number = number;
        let links = terrain.links.from(terrain.class, number);
        let carriers = links.filter(|(relay, _)| terrain.carriers.all[*relay] == 0);
        self.order.fill(carriers.map(|(relay, cost)| (cost, narrow(relay))));
        if terrain.links.rows(terrain.class).is_some() {
            self.relays.clear(terrain.stride);
        }
        self.providers.state = State::Unknown;
        self.regions.state = State::Unknown;
    }

    /// Finds the ways to a chunk of relays.
    pub(super) fn extend(&mut self, terrain: &Terrain<'_>, chunk: usize, ranks: Ranks) {
        let Some(rows) = terrain.links.rows(terrain.class) else { return };
        let (order, rest) = self.order.parts();
        let (level, ways) = (terrain.level, &mut self.relays);
        if !kernel::ways(level, rows, chunk, order, ranks, ways) && !rest.is_empty() {
            self.order.order_all();
            kernel::ways(level, rows, chunk, self.order.parts().0, ranks, ways);
        }
    }

    /// Ends what [`Self::begin`] began.
    pub(super) fn finish(&mut self, terrain: &Terrain<'_>) {
        if terrain.links.rows(terrain.class).is_none() {
            let own = &terrain.labels.own;
            self.order.order_all();
            sparse_ways(terrain, self.order.parts().0, own, false, &mut self.relays);
        }
        self.relays.bar(self.number);
        self.relays.masked(&terrain.carriers.all, &mut self.near);
    }

    /// What the cheapest ways to relays cost that may be intermediates.
    pub(super) fn near(&self) -> &[u32] {
        &self.near
    }

    /// What a path costs, which is known here if it is one of the cheapest: then nothing is to be fetched from afar.
    pub(super) fn cost(&self, terrain: &Terrain<'_>, path: Packed, to: usize) -> Option<u32> {
        let &Terrain { links, class, .. } = terrain;
        if !takes_cheapest(links, class, path, (self.number, to)) {
            return None;
        }
        let cost = match path.via().relays() {
            [] => self.direct(terrain, to),
            &[relay] => self.relays.over(to, relay.into())?,
            &[first, last, ..] => {
                let way = self.relays.over(usize::from(last), first.into())?;
                // By sender: the links to a chunk of receivers were just gone through.
                way + links.cost(class, last.into(), to)
            }
        };
        (cost < NONE).then_some(cost)
    }

    fn direct(&self, terrain: &Terrain<'_>, to: usize) -> u32 {
        terrain.links.cost(terrain.class, self.number, to)
    }

    /// What the cheapest path costs, if the hints tell without a search.
    pub(super) fn least(
        &self,
        terrain: &Terrain<'_>,
        to: usize,
        hints: &mut Hints<'_>,
    ) -> Option<u32> {
        let one = self.direct(terrain, to).min(self.relays.get(0, to).0);
        if !terrain.two {
            return Some(one);
        }
        hints.exact(terrain, to).map(|least| least.min(one))
    }

    /// The cheapest path. `hints` are those for the destination, here and below.
    pub(super) fn best(
        &self,
        terrain: &Terrain<'_>,
        to: usize,
        hints: &mut Hints<'_>,
    ) -> Option<Choice> {
        let direct = Choice { cost: self.direct(terrain, to), via: Via::DIRECT };
        let one = self.relays.avoiding(to, [u32::MAX; 2]).map(one);
        let bound = one.filter(|one| one.cost < direct.cost).unwrap_or(direct);
        let found = terrain.two.then(|| self.cheapest(terrain, to, hints, bound.cost)).flatten();
        let best = found.map_or(bound, |found| Choice {
            cost: found.cost,
            via: Via::two(self.relays.get(0, found.last).1, found.last),
        });
        (best.cost < NONE).then_some(best)
    }

    /// The cheapest path that shares no intermediate with another one, and is not direct if that one is, if it costs
    /// less than `limit`.
    pub(super) fn disjoint(
        &self,
        terrain: &Terrain<'_>,
        to: usize,
        hints: &mut Hints<'_>,
        other: Via,
        limit: u32,
    ) -> Option<Choice> {
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
        let below = bound.cost.min(limit);
        let found = terrain.two.then(|| {
            let carriers = &terrain.carriers.all;
            let wanted = Wanted { to, carriers, labels: own, barred };
            cheapest_avoiding(terrain, &self.relays, &wanted, hints, below)
        });
        let best = found.flatten().map_or(bound, |found| {
            let way = self.relays.avoiding(found.last, barred);
            let (_, first) = way.expect("the search found this way");
            Choice { cost: found.cost, via: Via::two(first, found.last) }
        });
        (best.cost < limit).then_some(best)
    }

    /// The cheapest path that avoids the providers of another one's intermediates, or else their regions; of a
    /// direct one, those of its ends. `disjoint` shares no intermediate with it. `kept` is such a path of the last plan, if
    /// there is one.
    pub(super) fn diverse(
        &mut self,
        terrain: &Terrain<'_>,
        to: usize,
        hints: &mut Hints<'_>,
        (other, disjoint): (Via, Via),
        kept: Option<Kept>,
    ) -> Diverse {
        let labels = terrain.labels;
        let carriers = terrain.carriers;
        let firsts = Firsts { source: self.number, ways: &self.relays, order: &self.order };
        let kinds = [
            (By::Provider, &labels.provider, &carriers.with_provider, &mut self.providers),
            (By::Region, &labels.region, &carriers.with_region, &mut self.regions),
        ];
        for (by, kind, carriers, labelled) in kinds {
            let Some(barred) = labels_of(kind, other, self.number, to) else { continue };
            if avoids(kind, disjoint, barred) {
                return Diverse::IsDisjoint(by);
            }
            let direct = if other == Via::DIRECT {
                NONE
            } else {
                terrain.links.cost(terrain.class, self.number, to)
            };
            let kept = kept.filter(|kept| avoids(kind, kept.path.via(), barred));
            let limit = kept.map_or(NONE, |kept| kept.limit);
            let least = direct.min(self.relays.get(0, to).0);
            if least < limit || terrain.two && hints.least(terrain, to) < limit {
                let wanted = Wanted { to, carriers, labels: &kind.of, barred };
                let costs = (direct, limit);
                let found = labelled.cheapest(terrain, (kind, &firsts), &wanted, hints, costs);
                if let Some(choice) = found {
                    return Diverse::Path(by, choice);
                }
            }
            if let Some(kept) = kept {
                return Diverse::Kept(by, kept);
            }
        }
        Diverse::None
    }

    fn direct_choice(&self, terrain: &Terrain<'_>, to: usize) -> Choice {
        Choice { cost: self.direct(terrain, to), via: Via::DIRECT }
    }

    fn cheapest(
        &self,
        terrain: &Terrain<'_>,
        to: usize,
        hints: &mut Hints<'_>,
        bound: u32,
    ) -> Option<Found> {
        match hints {
            Hints::Dense(bounds) => {
                let carriers = &terrain.carriers.all;
                let column = terrain.links.column(terrain.class, to, carriers)?;
                kernel::cheapest(terrain.level, &self.relays, column, bounds, bound)
            }
            Hints::Sparse(lasts) => lasts.cheapest(terrain, to, bound),
        }
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("relays have ids of 16 bits")
}

fn one((cost, relay): (u32, u32)) -> Choice {
    Choice { cost, via: Via::one(relay) }
}
