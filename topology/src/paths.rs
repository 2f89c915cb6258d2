//! Cheapest paths with at most two intermediates, exactly.
//!
//! [`Mesh`] is one class's view of the topology: relays numbered in order of id, and dense matrices of
//! the cheapest parallel link of each pair. [`Search`] is the scratch of one source at a time. It keeps,
//! for each relay `b`, the cheapest few ways `source → a → b`; a path to any destination `v` is then the
//! direct link, one of `v`'s own ways, or a way to some `b` and the link `b → v`. As a way is only barred
//! by its `a`, and at most [`WAYS`]` - 1` relays are barred at a time, one of the ways kept is always the
//! cheapest allowed: avoiding relays is as exact as not avoiding any.
//!
//! Among equal costs fewer hops win, then the lexicographically least ids. Intermediates must allow
//! transit and not be draining.

use overway_wire::{Class, LinkId, LinkIndex, Micros, Path, PathElement, RelayId};

use crate::cost::LINK_COST_MAX;
use crate::{Cost, Delays, LinkTerms, Topology};

/// No link, or no path. Link costs are capped so that any sum of three is below, and three times this
/// does not overflow.
const NONE: u32 = 1 << 30;
/// In place of the number of a relay that is not of the topology.
const UNKNOWN: u16 = u16::MAX;
/// Relays that a path may be told to avoid: the intermediates of the two candidates before it.
pub(crate) const AVOID_MAX: usize = 4;
/// Ways kept per relay: one more than can be barred, which are those to avoid and the destination.
const WAYS: usize = AVOID_MAX + 2;

/// One class's view of the topology.
pub(crate) struct Mesh {
    /// In order of id; a relay's position is its number.
    relays: Vec<RelayId>,
    /// Numbers of the relays that may be intermediates.
    transit: Vec<usize>,
    /// The cheapest link of each pair, by row of its sender.
    outward: Vec<Hop>,
    /// Their costs once more, by row of the receiver.
    inward: Vec<u32>,
    /// Next cheapest link of each pair, where links are parallel.
    second: Vec<Hop>,
    /// Every usable link, in order of id.
    links: Vec<(LinkId, Priced)>,
    /// Where in `links` each pair's begin, by row of the sender; behind the end where there are none.
    starts: Vec<usize>,
    /// Numbers of the relays, by id; [`UNKNOWN`] for others.
    numbers: Vec<u16>,
}

/// A link between two relays known from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hop {
    cost: u32,
    index: LinkIndex,
}

/// What a link or a path costs and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Priced {
    pub(crate) cost: Cost,
    pub(crate) delay: Micros,
}

/// The relays between the ends, by number. Its order is that of the tie-break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Via {
    Direct,
    One(usize),
    Two(usize, usize),
}

/// What a search must not use: intermediates, and perhaps the direct link.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Avoid {
    relays: [Option<RelayId>; AVOID_MAX],
    len: usize,
    direct: bool,
}

impl Avoid {
    /// Adds a candidate to avoid: its intermediates, or the direct link if it has none.
    pub(crate) fn add(&mut self, path: &Path) {
        self.direct |= path.intermediates().is_empty();
        for step in path.intermediates() {
            if self.len < AVOID_MAX {
                self.relays[self.len] = Some(step.relay);
                self.len += 1;
            }
        }
    }

    /// Whether a path uses nothing that is avoided.
    pub(crate) fn allows(&self, path: &Path) -> bool {
        let between = path.intermediates();
        !(self.direct && between.is_empty())
            && between.iter().all(|step| !self.relays.contains(&Some(step.relay)))
    }
}

impl Mesh {
    /// Prices the links that `admits` lets in for one class.
    pub(crate) fn new(
        topology: &Topology,
        delays: &Delays,
        class: Class,
        admits: impl Fn(LinkId) -> bool,
    ) -> Self {
        let relays: Vec<RelayId> = topology.relays().map(|(id, _)| id).collect();
        let count = relays.len();
        let may_transit = topology.relays().enumerate();
        let transit = may_transit
            .filter(|(_, (_, relay))| relay.transit && !relay.draining)
            .map(|(number, _)| number)
            .collect();
        let none = Hop { cost: NONE, index: LinkIndex::default() };
        let mut mesh = Self {
            transit,
            outward: vec![none; count * count],
            inward: vec![NONE; count * count],
            second: vec![none; count * count],
            links: Vec::with_capacity(delays.iter().len()),
            starts: vec![usize::MAX; count * count],
            numbers: numbers(&relays),
            relays,
        };
        for (id, delay) in delays.iter().filter(|(id, _)| admits(*id)) {
            let terms = topology.link(id).and_then(|link| LinkTerms::of(class, link, delay));
            if let Some(terms) = terms {
                mesh.add(id, Priced { cost: terms.total(), delay: delay.effective() });
            }
        }
        mesh
    }

    fn add(&mut self, id: LinkId, priced: Priced) {
        let (from, to) = (self.number(id.from), self.number(id.to));
        let (Some(from), Some(to)) = (from, to) else { return };
        let hop = Hop { cost: priced.cost.0, index: id.index };
        let count = self.len();
        let at = from * count + to;
        self.starts[at] = self.starts[at].min(self.links.len());
        self.links.push((id, priced));
        let (first, second) = (&mut self.outward[at], &mut self.second[at]);
        if hop < *first {
            *second = std::mem::replace(first, hop);
        } else if hop < *second {
            *second = hop;
        }
        self.inward[to * count + from] = self.outward[at].cost;
    }

    /// Relays.
    pub(crate) fn len(&self) -> usize {
        self.relays.len()
    }

    /// The relay of a number.
    pub(crate) fn relay(&self, number: usize) -> RelayId {
        self.relays[number]
    }

    fn number(&self, relay: RelayId) -> Option<usize> {
        let number = self.numbers.get(usize::from(relay.0)).copied();
        number.filter(|&number| number != UNKNOWN).map(usize::from)
    }

    /// What a link costs and takes, or `None` if it is not usable.
    pub(crate) fn link(&self, id: LinkId) -> Option<Priced> {
        let at = self.number(id.from)? * self.len() + self.number(id.to)?;
        let parallel = self.links.get(self.starts[at]..)?.iter();
        let mut parallel =
            parallel.take_while(|(link, _)| (link.from, link.to) == (id.from, id.to));
        parallel.find(|(link, _)| link.index == id.index).map(|(_, priced)| *priced)
    }

    /// What each link of a path costs; the dearest there is for one that is not usable.
    pub(crate) fn link_costs(&self, source: RelayId, path: &Path) -> Vec<Cost> {
        let cost = |id| self.link(id).map_or(Cost(LINK_COST_MAX), |link| link.cost);
        links_of(source, path).map(cost).collect()
    }

    /// What a path costs and takes, or `None` if a link of it is not usable or a relay between its ends
    /// does not carry others' traffic.
    pub(crate) fn price(&self, source: RelayId, path: &Path) -> Option<Priced> {
        let mut carriers = path.intermediates().iter().map(|step| self.number(step.relay));
        if !carriers.all(|n| n.is_some_and(|n| self.transit.binary_search(&n).is_ok())) {
            return None;
        }
        let mut sum = Priced::default();
        for id in links_of(source, path) {
            let link = self.link(id)?;
            sum.cost = sum.cost + link.cost;
            sum.delay = Micros(sum.delay.0.saturating_add(link.delay.0));
        }
        Some(sum)
    }

    /// The direct path by the cheapest link.
    pub(crate) fn direct(&self, source: usize, destination: usize) -> Option<Path> {
        let hop = self.outward[source * self.len() + destination];
        (hop.cost < NONE).then(|| self.path(source, destination, Via::Direct))
    }

    /// The same relays, by the cheapest other link at every hop that has one; `None` if no hop has.
    pub(crate) fn parallel(&self, source: RelayId, path: &Path) -> Option<Path> {
        let mut steps = path.elements().to_vec();
        let mut other = false;
        for (step, id) in steps.iter_mut().zip(links_of(source, path)) {
            let at = self.number(id.from)? * self.len() + self.number(id.to)?;
            let hops = [self.outward[at], self.second[at]];
            if let Some(hop) = hops.iter().find(|hop| hop.cost < NONE && hop.index != id.index) {
                step.link = hop.index;
                other = true;
            }
        }
        if other { Path::new(&steps).ok() } else { None }
    }

    fn path(&self, source: usize, destination: usize, via: Via) -> Path {
        let numbers: &[usize] = match via {
            Via::Direct => &[destination],
            Via::One(relay) => &[relay, destination],
            Via::Two(first, second) => &[first, second, destination],
        };
        let mut steps = [PathElement::default(); 3];
        let mut from = source;
        for (step, &to) in steps.iter_mut().zip(numbers) {
            *step = PathElement::new(self.relays[to], self.outward[from * self.len() + to].index);
            from = to;
        }
        Path::new(&steps[..numbers.len()]).expect("the search visits no relay twice")
    }
}

/// The number of each relay, by id.
fn numbers(relays: &[RelayId]) -> Vec<u16> {
    let mut numbers = vec![UNKNOWN; relays.last().map_or(0, |last| usize::from(last.0) + 1)];
    for (number, relay) in (0..UNKNOWN).zip(relays) {
        numbers[usize::from(relay.0)] = number;
    }
    numbers
}

/// The links of a path.
pub(crate) fn links_of(source: RelayId, path: &Path) -> impl Iterator<Item = LinkId> {
    let steps = path.elements();
    (0..steps.len()).map(move |at| {
        let from = if at == 0 { source } else { steps[at - 1].relay };
        LinkId::new(from, steps[at].relay, steps[at].link)
    })
}

/// A way `source → relay → b` to some `b`.
#[derive(Clone, Copy)]
struct Way {
    cost: u32,
    relay: usize,
}

/// The ways from one source; see the module's first lines.
#[derive(Default)]
pub(crate) struct Search {
    source: usize,
    /// Per relay, cheapest first, then by number.
    ways: Vec<[Way; WAYS]>,
    /// Cost of the last way of each relay, apart so that the scan over it is tight.
    worst: Vec<u32>,
}

impl Search {
    /// Finds the ways from `source`. Whatever the search held before is gone.
    pub(crate) fn start(&mut self, mesh: &Mesh, source: usize) {
        let count = mesh.len();
        self.source = source;
        self.ways.clear();
        self.ways.resize(count, [Way { cost: NONE, relay: usize::MAX }; WAYS]);
        self.worst.clear();
        self.worst.resize(count, NONE);
        for &relay in &mesh.transit {
            let first = mesh.outward[source * count + relay].cost;
            if relay == source || first >= NONE {
                continue;
            }
            let row = &mesh.outward[relay * count..(relay + 1) * count];
            for (to, (hop, worst)) in row.iter().zip(&mut self.worst).enumerate() {
                let cost = first + hop.cost;
                if cost < *worst {
                    *worst = insert(&mut self.ways[to], Way { cost, relay });
                }
            }
        }
    }

    /// The cheapest path to `destination` that uses nothing of `avoid`.
    pub(crate) fn best(&self, mesh: &Mesh, destination: usize, avoid: &Avoid) -> Option<Path> {
        let count = mesh.len();
        let mut barred = [usize::MAX; AVOID_MAX + 1];
        for (bar, relay) in barred.iter_mut().zip(&avoid.relays[..avoid.len]) {
            *bar = relay.and_then(|relay| mesh.number(relay)).unwrap_or(usize::MAX);
        }
        barred[AVOID_MAX] = destination;
        let mut best = (NONE, Via::Direct);
        if !avoid.direct {
            best.0 = mesh.outward[self.source * count + destination].cost;
        }
        if let Some(way) = self.way(destination, &barred) {
            best = best.min((way.cost, Via::One(way.relay)));
        }
        let into = &mesh.inward[destination * count..(destination + 1) * count];
        for &second in &mesh.transit {
            let last = into[second];
            if self.ways[second][0].cost + last > best.0
                || last >= NONE
                || second == self.source
                || barred.contains(&second)
            {
                continue;
            }
            if let Some(way) = self.way(second, &barred) {
                best = best.min((way.cost + last, Via::Two(way.relay, second)));
            }
        }
        (best.0 < NONE).then(|| mesh.path(self.source, destination, best.1))
    }

    /// The cheapest way to `relay` over none of the barred.
    fn way(&self, relay: usize, barred: &[usize]) -> Option<Way> {
        let mut ways = self.ways[relay].iter();
        ways.find(|way| way.cost < NONE && !barred.contains(&way.relay)).copied()
    }
}

/// Puts a way after those as cheap, drops the last, and returns the new last one's cost.
fn insert(ways: &mut [Way; WAYS], way: Way) -> u32 {
    let at = ways.partition_point(|kept| kept.cost <= way.cost);
    ways[at..].rotate_right(1);
    ways[at] = way;
    ways[WAYS - 1].cost
}
