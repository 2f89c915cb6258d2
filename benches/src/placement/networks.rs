//! Networks with prices, capacities and demands, drawn from a seed.
//!
//! A relay has one line or two; links of an index join lines of that index. Lines have a rate and a price per
//! GB; the second is dearer and faster, or cheaper and slower. Half of the links carry less than their
//! lines. Demands join relays with a probability that grows with the weights of both, which are skewed, as
//! rates are: a few demands are most of the traffic.

use fastrand::Rng;
use overway_topology::{
    Cost, Demand, LinkDelay, LinkMeasure, LinkTerms, PathOption, Placement, Problem, Resource,
    RouteKey,
};
use overway_wire::{
    BitsPerSec, Class, LinkId, LinkIndex, Path, PathElement, Permille, PolicyId, PricePerGb,
};

use crate::input::{self, OneWay};

/// Paths that a demand may take.
const OPTIONS: usize = 4;
/// Relays up to which paths with two intermediates are searched for.
const TWO_BETWEEN_MAX: usize = 64;
/// Rates of lines in Mbit/s, and how many thousandths of a cent per GB they may cost at most.
const LINE_MBPS: [u64; 5] = [100, 200, 500, 1_000, 2_000];
const PRICE_MAX: u32 = 9_000;

/// A line of a relay.
#[derive(Clone, Copy, Debug)]
struct Line {
    capacity: BitsPerSec,
    price: PricePerGb,
}

/// A mesh with lines and prices.
#[derive(Debug)]
pub(crate) struct Network {
    delays: OneWay,
    /// One or two for each relay.
    lines: Vec<Vec<Line>>,
    /// Links that carry less than their lines.
    narrow: Vec<(LinkId, BitsPerSec)>,
    /// How much of the demand each relay attracts.
    weights: Vec<f64>,
}

/// A step to a row over a parallel link.
type Step = (usize, usize);

impl Network {
    /// Draws lines, prices and narrow links.
    pub(crate) fn draw(delays: OneWay, rng: &mut Rng) -> Self {
        let lines: Vec<Vec<Line>> = (0..delays.len()).map(|_| lines(rng)).collect();
        let weights = (0..delays.len()).map(|_| pareto(rng, 2.0)).collect();
        let mut network = Self { delays, lines, narrow: Vec::new(), weights };
        for from in 0..network.len() {
            for to in 0..network.len() {
                for index in 0..network.parallel(from, to) {
                    if rng.bool() {
                        let line = network.lines[from][index].capacity.0;
                        let capacity = BitsPerSec(line * rng.u64(20..200) / 1_000);
                        network.narrow.push((link(from, to, index), capacity));
                    }
                }
            }
        }
        network
    }

    fn len(&self) -> usize {
        self.delays.len()
    }

    /// Links from one row to another.
    fn parallel(&self, from: usize, to: usize) -> usize {
        let lines = self.lines[from].len().min(self.lines[to].len());
        if from == to || self.delays[from][to].is_none() { 0 } else { lines }
    }

    /// What is between the ends of a demand of this class, by link cost: row, column, index.
    fn costs(&self, class: Class) -> Vec<Vec<Vec<u32>>> {
        let cost = |from: usize, to: usize, index: usize| {
            let delay = self.delays[from][to].expect("there is a link");
            let back = self.delays[to][from].unwrap_or(delay);
            let price = self.lines[from][index].price;
            let measure = LinkMeasure { price, ..input::clean(delay, back) };
            let delay = LinkDelay { fast: delay, slow: delay };
            LinkTerms::of(class, link(from, to, index), &measure, delay)
                .expect("a clean link is usable")
                .total()
                .0
        };
        let row = |from| {
            let cell = move |to| (0..self.parallel(from, to)).map(move |at| cost(from, to, at));
            (0..self.len()).map(|to| cell(to).collect()).collect()
        };
        (0..self.len()).map(row).collect()
    }

    /// Draws `count` demands and their paths; capacities are those of lines and narrow links.
    pub(crate) fn problem(&self, count: usize, rng: &mut Rng) -> Problem {
        let costs = Class::ALL.map(|class| self.costs(class));
        let mut problem = Problem::new();
        for (row, lines) in self.lines.iter().enumerate() {
            for (index, line) in lines.iter().enumerate() {
                let (relay, index) = (input::relay(row), index_of(index));
                problem.limit(Resource::LineSending(relay, index), line.capacity);
                problem.limit(Resource::LineReceiving(relay, index), line.capacity);
            }
        }
        for &(link, capacity) in &self.narrow {
            problem.limit(Resource::Link(link), capacity);
        }
        for _ in 0..count {
            let (from, to) = (self.draw_relay(rng), self.draw_relay(rng));
            if from == to {
                continue;
            }
            let class = [Class::Realtime, Class::Interactive, Class::Bulk, Class::Bulk];
            let class = class[rng.usize(..class.len())];
            let source = input::relay(from);
            let key =
                RouteKey { source, destination: input::relay(to), class, policy: PolicyId(0) };
            let rate = BitsPerSec(whole(2e6 * pareto(rng, 1.2).min(50.0)));
            let options = self.options(from, to, &costs[usize::from(class.code())]);
            problem.push(Demand { key, rate, options });
        }
        problem
    }

    fn draw_relay(&self, rng: &mut Rng) -> usize {
        let mut at = rng.f64() * self.weights.iter().sum::<f64>();
        for (row, weight) in self.weights.iter().enumerate() {
            at -= weight;
            if at < 0.0 {
                return row;
            }
        }
        self.len() - 1
    }

    /// The cheapest path, then the cheapest that share no relay with those before, the direct one, and
    /// the cheapest of the others.
    fn options(&self, from: usize, to: usize, costs: &[Vec<Vec<u32>>]) -> Vec<PathOption> {
        let found = self.paths(from, to, costs);
        let mut chosen: Vec<&(u32, Vec<Step>)> = Vec::new();
        for path in &found {
            let disjoint = |other: &&(u32, Vec<Step>)| {
                let middle = &path.1[..path.1.len() - 1];
                middle.iter().all(|step| other.1.iter().all(|other| other.0 != step.0))
                    && (middle.len() + other.1.len() > 1)
            };
            if chosen.len() + 1 < OPTIONS && chosen.iter().all(disjoint) {
                chosen.push(path);
            }
        }
        chosen.extend(found.iter().find(|path| path.1.len() == 1 && !chosen.contains(path)));
        for path in &found {
            if chosen.len() < OPTIONS && !chosen.contains(&path) {
                chosen.push(path);
            }
        }
        chosen.into_iter().map(|(cost, steps)| self.option(from, *cost, steps)).collect()
    }

    fn option(&self, from: usize, cost: u32, steps: &[Step]) -> PathOption {
        let mut price = 0;
        let mut at = from;
        for &(to, index) in steps {
            price += self.lines[at][index].price.0;
            at = to;
        }
        let elements: Vec<_> = steps
            .iter()
            .map(|&(row, index)| PathElement::new(input::relay(row), index_of(index)))
            .collect();
        let path = Path::new(&elements).expect("a search visits no relay twice");
        PathOption { path, cost: Cost(cost), price: PricePerGb(price), previous: Permille(0) }
    }

    /// Every path with at most one intermediate, and those with two by the cheapest links, cheapest first.
    fn paths(&self, from: usize, to: usize, costs: &[Vec<Vec<u32>>]) -> Vec<(u32, Vec<Step>)> {
        let mut found = Vec::new();
        let direct = costs[from][to].iter().enumerate();
        found.extend(direct.map(|(index, &cost)| (cost, vec![(to, index)])));
        let cheapest = |from: usize, to: usize| {
            let links = costs[from][to].iter().enumerate();
            links.map(|(index, &cost)| (cost, index)).min()
        };
        for middle in (0..self.len()).filter(|&middle| middle != from && middle != to) {
            for (first, &cost) in costs[from][middle].iter().enumerate() {
                for (second, &other) in costs[middle][to].iter().enumerate() {
                    found.push((cost + other, vec![(middle, first), (to, second)]));
                }
            }
            let Some((cost, first)) = cheapest(from, middle) else { continue };
            if self.len() > TWO_BETWEEN_MAX {
                continue;
            }
            for next in (0..self.len()).filter(|next| ![from, middle, to].contains(next)) {
                let (Some((second, by)), Some((third, last))) =
                    (cheapest(middle, next), cheapest(next, to))
                else {
                    continue;
                };
                let steps = vec![(middle, first), (next, by), (to, last)];
                found.push((cost + second + third, steps));
            }
        }
        found.sort_unstable();
        found.truncate(64);
        let direct = costs[from][to].iter().enumerate();
        found.extend(direct.map(|(index, &cost)| (cost, vec![(to, index)])));
        found.dedup();
        found
    }
}

/// Delays of relays strewn over a plane of 150 ms by 75 ms, with a detour factor for each direction.
pub(crate) fn geometric(count: usize, rng: &mut Rng) -> OneWay {
    let places: Vec<_> = (0..count).map(|_| (rng.f64() * 150e3, rng.f64() * 75e3)).collect();
    let cell = |from: usize, to: usize, factor: f64| {
        let (dx, dy) = (places[from].0 - places[to].0, places[from].1 - places[to].1);
        (from != to).then(|| overway_wire::Micros(micros(500.0 + dx.hypot(dy) * factor)))
    };
    let row = |from, rng: &mut Rng| {
        (0..count).map(|to| cell(from, to, 1.0 + pareto(rng, 2.0).min(5.0) / 5.0)).collect()
    };
    (0..count).map(|from| row(from, rng)).collect()
}

/// Some hosts of a measured set.
pub(crate) fn subset(delays: &OneWay, count: usize, rng: &mut Rng) -> OneWay {
    let rows = rng.choose_multiple(0..delays.len(), count);
    rows.iter().map(|&from| rows.iter().map(|&to| delays[from][to]).collect()).collect()
}

/// The same problem with other rates; demands of rate zero are left out.
pub(crate) fn with_rates(problem: &Problem, rates: &[f64]) -> Problem {
    let mut changed = Problem::new();
    for (resource, capacity) in problem.capacities() {
        changed.limit(resource, capacity);
    }
    for (demand, &rate) in problem.demands().iter().zip(rates) {
        if rate >= 1.0 {
            changed.push(Demand { rate: BitsPerSec(whole(rate)), ..demand.clone() });
        }
    }
    changed
}

/// The same problem with each rate changed by up to a part of it, and the shares that its demands had.
pub(crate) fn wandered(
    problem: &Problem,
    before: Option<&Placement>,
    part: f64,
    rng: &mut Rng,
) -> Problem {
    let mut changed = Problem::new();
    for (resource, capacity) in problem.capacities() {
        changed.limit(resource, capacity);
    }
    for (at, demand) in problem.demands().iter().enumerate() {
        let mut demand = demand.clone();
        let factor = 1.0 + part * (2.0 * rng.f64() - 1.0);
        demand.rate = BitsPerSec(whole(demand.rate.0 as f64 * factor));
        if let Some(before) = before {
            for (option, &share) in demand.options.iter_mut().zip(&before.shares[at]) {
                option.previous = share;
            }
        }
        changed.push(demand);
    }
    changed
}

fn lines(rng: &mut Rng) -> Vec<Line> {
    let count = if rng.u8(..3) == 0 { 1 } else { 2 };
    let line = |_| Line {
        capacity: BitsPerSec(LINE_MBPS[rng.usize(..LINE_MBPS.len())] * 1_000_000),
        price: PricePerGb(rng.u32(..PRICE_MAX)),
    };
    (0..count).map(line).collect()
}

/// At least 1, with a heavy tail.
fn pareto(rng: &mut Rng, shape: f64) -> f64 {
    (1.0 - rng.f64()).powf(-1.0 / shape)
}

fn link(from: usize, to: usize, index: usize) -> LinkId {
    LinkId::new(input::relay(from), input::relay(to), index_of(index))
}

fn index_of(index: usize) -> LinkIndex {
    u8::try_from(index).ok().and_then(LinkIndex::new).expect("there are at most two lines")
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn whole(number: f64) -> u64 {
    number as u64
}

fn micros(us: f64) -> u32 {
    u32::try_from(whole(us)).unwrap_or(u32::MAX)
}
