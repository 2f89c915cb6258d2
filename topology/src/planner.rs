//! From the topology to the paths in use, once per epoch.
//!
//! For each ordered pair and class the planner holds the path in use and moves it by these rules, in
//! this order:
//!
//! 1. A path that cannot be used is left for the best there is.
//! 2. While a pair is new it takes the best, whatever it used before.
//! 3. A path is left only for one that is cheaper by an absolute *and* a relative threshold.
//! 4. ... and not for one that was left lately, nor for one with a link that was the reason for leaving:
//!    such a path must first have been cheaper without pause for the hold time. If the path in use has
//!    degraded, this rule falls away: bad news moves at once.
//!
//! A link that failed may be a backup as soon as it is back, but is on no best path until it has held
//! for a while, unless nothing else leads there: then the path has as few such links as can be ([`admission`]).
//!
//! Backups follow: the cheapest path that shares no intermediate with the one in use, the cheapest that avoids
//! its providers (or else its regions), and the direct link; where there is none, the cheapest that shares no relay
//! with the path in use and its disjoint one, or else as few as can be. A backup is likewise kept until another is
//! clearly better, so that noise does not make pushes. Where no disjoint path exists, the same relays by other links
//! serve.
//!
//! ```text
//! topology --changed links--> links: costs by number --which routes can it affect--> dirty rows
//!                                                                                       |
//!   routes that changed <-- table: rows of records <-- rules of the route <-- search <--+
//! ```
//!
//! Relays are numbered ([`numbers`]); per class and policy there is a row of routes for each source ([`plane`]).
//! Costs are kept by number ([`links`]), the search goes over them row by row ([`search`], [`kernel`]), and
//! only for routes which the changed links can affect ([`dirty`]), some sources at a time ([`block`]), each route by
//! its own rules ([`renew`], [`route`]). Rows are independent of one another, and
//! are done in parallel; the result does not depend on how.
//!
//! The clocks' offsets, which make one-way delays of differences, are fitted now and then and hold in between:
//! they shift all paths of a pair alike.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use overway_wire::{Class, LinkId, LinkIndex, Micros, Path, RelayId};

use crate::potentials::Clocks;
use crate::{Candidate, Cost, Executor, LinkDelay, LinkMeasure, Reason, RouteKey, Topology};

mod admission;
mod block;
mod config;
mod dirty;
mod explain;
mod kernel;
mod labels;
mod left;
mod links;
mod numbers;
mod order;
mod packed;
mod plane;
mod prices;
mod renew;
mod route;
mod search;
mod stats;
mod structure;
mod table;
mod uses;
mod what_if;

pub use config::{PlannerConfig, Threshold};
pub use stats::Stats;

use admission::Admission;
use dirty::{Changed, Dirty};
use kernel::Level;
use labels::Labels;
use links::{DENSE_STRIDE_MAX, Line, Links};
use numbers::Numbers;
use packed::Packed;
use plane::{Field, Head, Plane};
use prices::Repriced;
use table::{DIRECT, DISJOINT, DIVERSE, Record};
use uses::Uses;

/// In one plan of so many a row forgets paths that were left long ago.
const FORGET_TURNS: usize = 64;
/// A pair is new for so many plans after its first at least: where plans take long, a mesh that is measured for the first
/// time takes the best freely, too.
const NEW_PLANS: usize = 3;
/// If pairs of a matrix changed for more than one of so many links, everything is done anew: to find out what need not be
/// would take as long. Over lists it never does: of 150,000 links 40 % can change, and four routes of five cannot.
const CHANGES_WHOLE: usize = 50;

/// Chooses paths, and remembers what it needs for choosing calmly.
#[derive(Debug)]
pub struct Planner {
    config: PlannerConfig,
    level: Level,
    /// The longest row for which links are kept in a matrix.
    dense_max: usize,
    #[cfg(test)]
    always_whole: bool,
    /// Time is counted from the first plan.
    origin: Option<Instant>,
    /// When the last plans were made, the earliest first.
    recent: [u32; NEW_PLANS],
    numbers: Numbers,
    labels: Labels,
    links: Links,
    /// The links without those that are barred from best paths, if there are any.
    admitted: Option<Links>,
    admission: Admission,
    draining: BTreeSet<LinkId>,
    /// The same, by number of their ends and index.
    draining_by_number: BTreeSet<(usize, usize, u8)>,
    clocks: Clocks,
    fitted: Option<Instant>,
    strained: bool,
    planes: Vec<Plane>,
    uses: Uses,
    stats: Stats,
}

impl Planner {
    /// Makes a planner that has no routes in use.
    pub fn new(config: PlannerConfig) -> Self {
        let numbers = Numbers::default();
        Self {
            config,
            level: Level::detect(),
            dense_max: DENSE_STRIDE_MAX,
            #[cfg(test)]
            always_whole: false,
            origin: None,
            recent: [0; NEW_PLANS],
            links: Links::new(numbers.stride(), true),
            numbers,
            labels: Labels::default(),
            admitted: None,
            admission: Admission::default(),
            draining: BTreeSet::new(),
            draining_by_number: BTreeSet::new(),
            clocks: Clocks::default(),
            fitted: None,
            strained: false,
            planes: Vec::new(),
            uses: Uses::default(),
            stats: Stats::default(),
        }
    }

    /// The same, without the instructions that only some processors have: for measuring what they gain.
    pub fn portable(config: PlannerConfig) -> Self {
        Self { level: Level::Portable, ..Self::new(config) }
    }

    /// Plans what the changes since the last call can affect; a topology is planned by one planner. Returns the
    /// routes that changed for a relay, in order of key: other paths, or delays by more than a relay would
    /// notice. One without candidates is gone. `now` does not go back from call to call.
    pub fn plan(
        &mut self,
        topology: &mut Topology,
        executor: &dyn Executor,
        now: Instant,
    ) -> Vec<RouteKey> {
        self.stats.plans += 1;
        self.origin.get_or_insert(now);
        if self.planes.is_empty() && topology.links().len() == 0 {
            // There are no routes: what changed until the first link comes is done with it.
            return Vec::new();
        }
        let changes = topology.take_changes();
        let mut gone = Vec::new();
        let mut whole = changes.structure;
        let mut renumbered = false;
        if changes.structure {
            renumbered = self.restructure(topology, &mut gone);
        }
        let mut changed: BTreeSet<LinkId> = changes.links.into_iter().collect();
        let anew = self.reshape(topology) | renumbered;
        if self.fit_clocks(topology, &changed, changes.structure, now) || anew {
            changed.extend(topology.links().map(|(id, _)| id));
            whole = true;
        }
        let was_barring = self.admitted.is_some();
        let readmitted = self.admit(topology, &changed, now);
        changed.extend(readmitted);
        let Repriced { pairs, lines } = self.reprice(topology, &changed, was_barring, executor);
        whole |= self.links.is_matrix() && pairs.len() > topology.links().len() / CHANGES_WHOLE;
        #[cfg(test)]
        {
            whole |= self.always_whole;
        }
        let dirty = self.find_dirty(&pairs, whole, executor, now);
        self.set_pairs(&pairs, &lines);
        self.stats.plans_whole += u64::from(whole);
        let mut keys = self.run(dirty, executor, now);
        self.recent.rotate_left(1);
        self.recent[NEW_PLANS - 1] = self.millis(now);
        if !gone.is_empty() {
            keys.extend(gone);
            keys.sort_unstable();
            keys.dedup();
        }
        keys
    }

    /// The paths of a route, the one in use first; none if there is no route.
    pub fn candidates(&self, key: RouteKey) -> Vec<Candidate> {
        let Some((plane, from, to)) = self.find(key) else { return Vec::new() };
        let Some(record) = plane.rows.get(from).and_then(|row| row.records.get(to)) else {
            return Vec::new();
        };
        self.decode(&self.links, &plane.head, record, (from, to))
    }

    /// The paths of a route, the one in use first, each with the delay that its source is told: not so far from what it is
    /// that a relay would notice, in units of 64 microseconds and up to four seconds.
    pub fn told(&self, key: RouteKey) -> impl Iterator<Item = (Path, Micros)> {
        let found = self
            .find(key)
            .and_then(|(plane, from, to)| Some((plane.rows.get(from)?.records.get(to)?, from, to)));
        found.into_iter().flat_map(move |(record, from, to)| {
            let path = move |(packed, delay): (Packed, Micros)| {
                Some((packed.path(&self.numbers, from, to)?, delay))
            };
            record.told().filter_map(path)
        })
    }

    /// Every route, in order.
    pub fn keys(&self) -> impl Iterator<Item = RouteKey> {
        self.numbers.iter().flat_map(|(source, _)| self.keys_from(source))
    }

    /// The routes of one source, in order.
    pub fn keys_from(&self, source: RelayId) -> Vec<RouteKey> {
        let Some(from) = self.numbers.of(source) else { return Vec::new() };
        let mut keys = Vec::new();
        for plane in &self.planes {
            let (class, policy) = (Class::ALL[plane.head.class], plane.head.policy);
            let Some(row) = plane.rows.get(from) else { continue };
            let there = self.numbers.iter().filter(|(_, to)| row.records[*to].exists());
            keys.extend(there.map(|(destination, _)| RouteKey {
                source,
                destination,
                class,
                policy,
            }));
        }
        keys.sort_unstable();
        keys
    }

    /// Whether some route's path, the direct competitors left aside, takes a link of this pair in this
    /// direction: parallel links share a role.
    pub fn is_candidate(&self, link: LinkId) -> bool {
        match (self.numbers.of(link.from), self.numbers.of(link.to)) {
            (Some(from), Some(to)) => self.uses.any(from, to),
            (None, _) | (_, None) => false,
        }
    }

    /// Links of which [`Self::is_candidate`] changed since the last call; of parallel ones only the first is
    /// named.
    pub fn take_roles(&mut self) -> Vec<LinkId> {
        let pairs = self.uses.take_changed().into_iter();
        let link = |(from, to)| {
            let (from, to) = (self.numbers.id(from)?, self.numbers.id(to)?);
            Some(LinkId::new(from, to, LinkIndex::default()))
        };
        pairs.filter_map(link).collect()
    }

    /// A link's delays as the planner takes them: by the offsets of the clocks that hold now. `None` if nothing
    /// is known.
    pub fn link_delay(&self, id: LinkId, measure: &LinkMeasure) -> Option<LinkDelay> {
        self.clocks.delay(id, measure)
    }

    /// Counters since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What routes are chosen from, for questions about single ones.
    fn field(&self, now: u32) -> Field<'_> {
        Field {
            links: &self.links,
            admitted: self.admitted.as_ref(),
            draining: &self.draining_by_number,
            labels: &self.labels,
            level: self.level,
            stride: self.numbers.stride(),
            config: &self.config,
            now,
            new_since: self.new_since(now),
        }
    }

    /// Pairs that were first planned since then are new.
    fn new_since(&self, now: u32) -> u32 {
        let settle = u32::try_from(self.config.settle.as_millis()).unwrap_or(u32::MAX);
        let settled = now.saturating_add(1).saturating_sub(settle);
        if settle == 0 { settled } else { settled.min(self.recent[0]) }
    }

    /// The number of a relay, by which ties are broken.
    #[cfg(test)]
    pub(crate) fn number(&self, relay: RelayId) -> Option<usize> {
        self.numbers.of(relay)
    }

    /// Keeps links in lists, as for a mesh that is too large for a matrix.
    #[cfg(test)]
    pub(crate) fn set_sparse(&mut self, sparse: bool) {
        self.dense_max = if sparse { 0 } else { self.dense_max };
    }

    /// Does everything anew in each plan.
    #[cfg(test)]
    pub(crate) fn set_whole(&mut self) {
        self.always_whole = true;
    }

    /// One planner for each way to search.
    #[cfg(test)]
    pub(crate) fn of_every_kind(config: PlannerConfig) -> Vec<Self> {
        let mut planners: Vec<Self> =
            Level::all().into_iter().map(|level| Self { level, ..Self::new(config) }).collect();
        let mut sparse = Self::new(config);
        sparse.set_sparse(true);
        planners.push(sparse);
        planners
    }

    fn find(&self, key: RouteKey) -> Option<(&Plane, usize, usize)> {
        let class = usize::from(key.class.code());
        let plane = self
            .planes
            .iter()
            .find(|plane| plane.head.class == class && plane.head.policy == key.policy)?;
        Some((plane, self.numbers.of(key.source)?, self.numbers.of(key.destination)?))
    }

    fn millis(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.origin.unwrap_or(now));
        u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX)
    }

    fn decode(
        &self,
        links: &Links,
        head: &Head,
        record: &Record,
        (from, to): (usize, usize),
    ) -> Vec<Candidate> {
        let decode = |(at, packed): (usize, &Packed)| {
            let priced = table::price(links, head.class, *packed, (from, to))?;
            let path = packed.path(&self.numbers, from, to)?;
            let reason = match at {
                DISJOINT if record.is_parallel => Reason::Parallel,
                DISJOINT => Reason::Disjoint,
                DIVERSE => Reason::Diverse,
                DIRECT if record.has_further() => Reason::Further,
                DIRECT => Reason::Direct,
                _ => Reason::Best,
            };
            let (cost, delay) = (Cost(priced.cost), Micros(priced.delay));
            Some(Candidate { path, cost, delay, reason })
        };
        record.paths.iter().enumerate().filter_map(decode).collect()
    }

    /// Which routes are to be done anew, by plane and source. Marks with each pair at its least.
    fn find_dirty(
        &mut self,
        pairs: &[Changed],
        whole: bool,
        executor: &dyn Executor,
        now: Instant,
    ) -> Vec<Vec<Dirty>> {
        let stride = self.numbers.stride();
        if whole {
            let all = |_: &Plane| vec![Dirty::all(stride); stride];
            return self.planes.iter().map(all).collect();
        }
        for pair in pairs {
            let line = Line { index: 0, cost: pair.least, delay: 0, lossy: false };
            self.links.set(pair.from, pair.to, &[line]);
        }
        plane::find_dirty(&self.planes, pairs, &self.field(self.millis(now)), executor)
    }

    fn run(
        &mut self,
        dirty: Vec<Vec<Dirty>>,
        executor: &dyn Executor,
        now: Instant,
    ) -> Vec<RouteKey> {
        let draining = self.draining.iter().filter_map(|id| {
            Some((self.numbers.of(id.from)?, self.numbers.of(id.to)?, id.index.value()))
        });
        self.draining_by_number = draining.collect();
        let mut planes = std::mem::take(&mut self.planes);
        let uses = Mutex::new(std::mem::take(&mut self.uses));
        let field = self.field(self.millis(now));
        let turn = usize::try_from(self.stats.plans % FORGET_TURNS as u64).expect("it is small");
        for plane in &mut planes {
            let rows = plane.rows.iter_mut().skip(turn).step_by(FORGET_TURNS);
            rows.for_each(|row| row.left.expire(field.config, field.now));
        }
        let outcomes = plane::run(&mut planes, dirty, &field, &uses, executor);
        self.uses = uses.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.planes = planes;
        outcomes.iter().for_each(|outcome| self.stats.add(&outcome.stats));
        let parts: Vec<_> = outcomes.into_iter().map(|outcome| outcome.changed).collect();
        order::in_order(&parts, &self.numbers, executor)
    }
}

#[cfg(test)]
mod tests;
