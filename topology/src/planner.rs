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
//! for a while, unless nothing else leads there ([`admission`]).
//!
//! Backups follow: the cheapest path that shares no intermediate with the one in use, the cheapest that avoids
//! its providers (or else its regions), and the direct link. A backup is likewise kept until another is
//! clearly better, so that noise does not make pushes. Where no disjoint path exists, the same relays by
//! other links serve.
//!
//! ```text
//! topology --changed links--> links: costs by number --which routes can it affect--> dirty rows
//!                                                                                       |
//!   routes that changed <-- table: rows of records <-- rules of the route <-- search <--+
//! ```
//!
//! Relays are numbered ([`numbers`]); per class and policy there is a row of routes for each source ([`plane`]).
//! Costs are kept by number ([`links`]), the search goes over them row by row ([`search`], [`kernel`]), and
//! only for routes which the changed links can affect ([`dirty`]). Rows are independent of one another, and
//! are done in parallel; the result does not depend on how.
//!
//! The clocks' offsets, which make one-way delays of differences, are fitted now and then and hold in between:
//! they shift all paths of a pair alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use overway_wire::{Class, LinkId, LinkIndex, Micros, PolicyId, RelayId};

use crate::cost::is_lossy;
use crate::potentials::Clocks;
use crate::{
    Candidate, Cost, Executor, LinkDelay, LinkMeasure, LinkTerms, Reason, RouteKey, Topology,
};

mod admission;
mod dirty;
mod explain;
mod kernel;
mod labels;
mod links;
mod numbers;
mod packed;
mod plane;
mod route;
mod search;
mod table;
mod what_if;

use admission::Admission;
use dirty::{Changed, Dirty};
use kernel::Level;
use labels::Labels;
use links::{CLASSES, DENSE_STRIDE_MAX, Line, Links};
use numbers::Numbers;
use plane::{Field, Head, Plane};
use search::Carriers;
use table::{DIRECT, DISJOINT, DIVERSE, Record};

/// A difference of costs that counts: more than both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// More than this much.
    pub absolute: Micros,
    /// And more than this share of the greater cost.
    pub percent: u32,
}

impl Threshold {
    /// Whether `dear` exceeds `cheap` by more than the threshold.
    pub fn exceeded(&self, dear: Cost, cheap: Cost) -> bool {
        let difference = dear.0.saturating_sub(cheap.0);
        difference > self.absolute.0
            && u64::from(difference) * 100 > u64::from(dear.0) * u64::from(self.percent)
    }
}

/// When paths are left and taken. The default is for production.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannerConfig {
    /// By how much a path must be better. 1.5 ms is about what a clean path's delay wanders within a window, and
    /// no user feels 4 %; more would give away gain for calm that the hold time gives already (`bench
    /// stability`).
    pub gain: Threshold,
    /// By how much the path in use must have risen since it was last the best, for the hold time not to
    /// count. More than `gain`, since noise here would undo the hold.
    pub degraded: Threshold,
    /// How long a path that was left for loss, or failed, must be better without pause before it is taken again.
    /// Longer than loss comes and goes on a congested line, and long enough for the 30 s window to speak.
    pub return_hold: Duration,
    /// The same for a path that was left for delay alone, of which each packet tells. It doubles each time that
    /// the path is left again, up to [`Self::return_hold`].
    pub return_hold_delay: Duration,
    /// How long a path that was left is remembered. By then what it was left for is its normal state.
    pub return_memory: Duration,
    /// How long a link that failed must be usable before a best path takes it. A relay that comes back
    /// may go again; most that last ten seconds last.
    pub readmission_hold: Duration,
    /// Relays that a path may have between its ends: 1 or 2. A third helps 0.04 % of pairs.
    pub intermediates_max: u8,
    /// Whether backups are found too. Without them a failure waits for the next plan: for measuring what they
    /// cost.
    pub backups: bool,
    /// How long a new pair takes the best freely: the first measurements, of few packets each, need
    /// several rounds to settle, and no flow is old enough to mind.
    pub settle: Duration,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        Self {
            gain: Threshold { absolute: Micros(1_500), percent: 4 },
            degraded: Threshold { absolute: Micros(5_000), percent: 10 },
            return_hold: Duration::from_secs(20),
            return_hold_delay: Duration::from_secs(3),
            return_memory: Duration::from_secs(600),
            readmission_hold: Duration::from_secs(10),
            intermediates_max: 2,
            backups: true,
            settle: Duration::from_secs(10),
        }
    }
}

/// Least time between two fits of the clocks, where nothing says that they are off, and where something does.
const FIT_INTERVAL: Duration = Duration::from_secs(20);
const FIT_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Relays for which these hold; with more it is so many times as long, as a fit takes time with their square.
const FIT_RELAYS: usize = 64;
/// In one plan of so many a row forgets paths that were left long ago.
const FORGET_TURNS: u64 = 64;
/// If more than one of so many pairs changed, everything is done anew: to find out what need not be would take as
/// long.
const CHANGES_WHOLE: usize = 10;

/// What the planner did since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Plans made.
    pub plans: u64,
    /// Of these, plans for which every route was looked at.
    pub plans_whole: u64,
    /// Routes looked at.
    pub routes_done: u64,
    /// Routes now.
    pub routes: u64,
    /// Of these, routes without a path that shares no relay with the one in use.
    pub routes_without_disjoint: u64,
    /// Of these, routes without a path that avoids the providers or the regions of the one in use.
    pub routes_without_diverse: u64,
    /// Fits of the clocks' offsets.
    pub fits: u64,
    /// Paths left because they could not be used.
    pub left_unusable: u64,
    /// Paths left for a cheaper one, new pairs included.
    pub left_for_better: u64,
    /// Times that a route was looked at, and a cheaper path not taken since it had been left lately.
    pub returns_held: u64,
}

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
    uses: Vec<AtomicU32>,
    /// By sender and receiver: whether a path took a link of the pair when last asked.
    roles: Vec<bool>,
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
            links: Links::new(numbers.stride(), DENSE_STRIDE_MAX),
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
            uses: Vec::new(),
            roles: Vec::new(),
            stats: Stats::default(),
        }
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
        let changes = topology.take_changes();
        let mut gone = Vec::new();
        let mut whole = changes.structure;
        let mut renumbered = false;
        if changes.structure {
            renumbered = self.restructure(topology, &mut gone);
        }
        let mut changed: BTreeSet<LinkId> = changes.links.into_iter().collect();
        if self.fit_clocks(topology, &changed, changes.structure, now) || renumbered {
            changed.extend(topology.links().map(|(id, _)| id));
            whole = true;
        }
        let was_barring = self.admitted.is_some();
        let readmitted = self.admit(topology, &changed, now);
        changed.extend(readmitted);
        let pairs = self.reprice(topology, &changed, was_barring);
        whole |= pairs.len() > self.numbers.len() * self.numbers.len() / CHANGES_WHOLE;
        #[cfg(test)]
        {
            whole |= self.always_whole;
        }
        let dirty = self.find_dirty(&pairs, whole, executor, now);
        self.set_pairs(topology, &pairs);
        self.stats.plans_whole += u64::from(whole);
        let mut keys = self.run(dirty, executor, now);
        keys.extend(gone);
        keys.sort_unstable();
        keys.dedup();
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
        let Some(at) = self.pair(link.from, link.to) else { return false };
        self.uses.get(at).is_some_and(|uses| uses.load(Ordering::Relaxed) > 0)
    }

    /// Links of which [`Self::is_candidate`] changed since the last call; of parallel ones only the first is
    /// named.
    pub fn take_roles(&mut self) -> Vec<LinkId> {
        let stride = self.numbers.stride();
        self.roles.resize(stride * stride, false);
        let mut changed = Vec::new();
        for (at, (role, uses)) in self.roles.iter_mut().zip(&self.uses).enumerate() {
            let used = uses.load(Ordering::Relaxed) > 0;
            if used != *role {
                *role = used;
                let ends = (self.numbers.id(at / stride), self.numbers.id(at % stride));
                if let (Some(from), Some(to)) = ends {
                    changed.push(LinkId::new(from, to, LinkIndex::default()));
                }
            }
        }
        changed
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
            uses: &self.uses,
        }
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

    fn pair(&self, from: RelayId, to: RelayId) -> Option<usize> {
        Some(self.numbers.of(from)? * self.numbers.stride() + self.numbers.of(to)?)
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
        let decode = |(at, packed): (usize, &packed::Packed)| {
            let priced = table::price(links, head.class, *packed, (from, to))?;
            let path = packed.path(&self.numbers, from, to)?;
            let reason = match at {
                DISJOINT if record.is_parallel => Reason::Parallel,
                DISJOINT => Reason::Disjoint,
                DIVERSE => Reason::Diverse,
                DIRECT => Reason::Direct,
                _ => Reason::Best,
            };
            let (cost, delay) = (Cost(priced.cost), Micros(priced.delay));
            Some(Candidate { path, cost, delay, reason })
        };
        record.paths.iter().enumerate().filter_map(decode).collect()
    }

    /// Takes over relays and policies. Returns whether relays were numbered anew.
    fn restructure(&mut self, topology: &Topology, gone: &mut Vec<RouteKey>) -> bool {
        let known: Vec<RelayId> = self.numbers.iter().map(|(id, _)| id).collect();
        for id in known.into_iter().filter(|id| topology.relay(*id).is_none()) {
            self.remove_relay(id, gone);
        }
        let new: Vec<RelayId> = topology
            .relays()
            .map(|(id, _)| id)
            .filter(|id| self.numbers.of(*id).is_none())
            .collect();
        let fits = self.numbers.len() > 0 && new.iter().all(|id| self.numbers.add(*id).is_some());
        let renumber = !fits && !new.is_empty();
        if renumber {
            self.renumber(topology);
        }
        self.labels = Labels::new(topology, &self.numbers);
        self.make_planes(topology, gone);
        renumber
    }

    /// Drops routes.
    fn forget(&mut self, gone: &mut Vec<RouteKey>, which: impl Fn(&Head, usize, usize) -> bool) {
        let stride = self.numbers.stride();
        for Plane { head, rows } in &mut self.planes {
            let (class, policy) = (Class::ALL[head.class], head.policy);
            for (from, row) in rows.iter_mut().enumerate() {
                for to in 0..stride {
                    if !row.records[to].exists() || !which(head, from, to) {
                        continue;
                    }
                    row.forget((from, to), stride, &self.uses, &mut self.stats);
                    if let (Some(source), Some(destination)) =
                        (self.numbers.id(from), self.numbers.id(to))
                    {
                        gone.push(RouteKey { source, destination, class, policy });
                    }
                }
            }
        }
    }

    fn remove_relay(&mut self, id: RelayId, gone: &mut Vec<RouteKey>) {
        let Some(number) = self.numbers.of(id) else { return };
        self.forget(gone, |_, from, to| from == number || to == number);
        self.numbers.remove(id);
        for other in 0..self.numbers.stride() {
            for (from, to) in [(number, other), (other, number)] {
                self.links.set(from, to, &[]);
                if let Some(admitted) = &mut self.admitted {
                    admitted.set(from, to, &[]);
                }
            }
        }
    }

    /// Numbers all relays anew. Routes are chosen as if for the first time, but for those whose relays are all
    /// still there.
    fn renumber(&mut self, topology: &Topology) {
        let relays: Vec<RelayId> = topology.relays().map(|(id, _)| id).collect();
        let near = |from: usize, to: usize| {
            let measures = topology.links_between(relays[from], relays[to]);
            let usable = measures.filter(|(_, measure)| measure.usable);
            usable.map(|(_, measure)| measure.slow.rtt.0 / 2).min().unwrap_or(kernel::NONE)
        };
        let old = std::mem::replace(&mut self.numbers, Numbers::new(&relays, near));
        let stride = self.numbers.stride();
        self.links = Links::new(stride, self.dense_max);
        self.admitted = None;
        self.uses = std::iter::repeat_with(AtomicU32::default).take(stride * stride).collect();
        self.roles = vec![false; stride * stride];
        let number = |at: u16| {
            let id = old.id(usize::from(at))?;
            u16::try_from(self.numbers.of(id)?).ok()
        };
        for count in [
            &mut self.stats.routes,
            &mut self.stats.routes_without_disjoint,
            &mut self.stats.routes_without_diverse,
        ] {
            *count = 0;
        }
        for plane in &mut self.planes {
            plane.renumber(&number, stride, &self.uses, &mut self.stats);
        }
    }

    /// Makes the planes that there are to be, and drops the others.
    fn make_planes(&mut self, topology: &Topology, gone: &mut Vec<RouteKey>) {
        let policies: Vec<PolicyId> = std::iter::once(PolicyId::default())
            .chain(topology.policies().map(|(id, _)| id))
            .collect();
        let grounds: BTreeMap<PolicyId, (Carriers, Vec<bool>)> =
            policies.iter().map(|policy| (*policy, self.ground(topology, *policy))).collect();
        self.forget(gone, |head, from, to| {
            grounds.get(&head.policy).is_none_or(|(_, ends)| !ends[from] || !ends[to])
        });
        self.planes.retain(|plane| grounds.contains_key(&plane.head.policy));
        let stride = self.numbers.stride();
        for (policy, ground) in grounds {
            for class in 0..CLASSES {
                let (carriers, ends) = ground.clone();
                let mut planes = self.planes.iter_mut();
                match planes.find(|p| p.head.class == class && p.head.policy == policy) {
                    Some(plane) => (plane.head.carriers, plane.head.ends) = (carriers, ends),
                    None => self.planes.push(Plane::new(class, policy, (carriers, ends), stride)),
                }
            }
        }
        self.planes.sort_by_key(|plane| (plane.head.policy, plane.head.class));
    }

    /// Which relays may be intermediates under a policy, and which may be ends.
    fn ground(&self, topology: &Topology, policy: PolicyId) -> (Carriers, Vec<bool>) {
        let stride = self.numbers.stride();
        let (mut carriers, mut ends) = (vec![kernel::NONE; stride], vec![false; stride]);
        let policy = topology.policies().find(|(id, _)| *id == policy).map(|(_, policy)| policy);
        for (id, number) in self.numbers.iter() {
            let Some(relay) = topology.relay(id) else { continue };
            if policy.is_none_or(|policy| policy.allows(relay)) {
                ends[number] = true;
                carriers[number] = if relay.transit && !relay.draining { 0 } else { kernel::NONE };
            }
        }
        (Carriers::new(carriers, &self.labels), ends)
    }

    /// Fits the clocks' offsets if it is time; returns whether they are others than before.
    fn fit_clocks(
        &mut self,
        topology: &Topology,
        changed: &BTreeSet<LinkId>,
        structure: bool,
        now: Instant,
    ) -> bool {
        let strains = |id: &LinkId| {
            let measure = topology.link(*id);
            measure.is_some_and(|measure| measure.usable && self.clocks.strains(*id, measure))
        };
        self.strained |= structure || changed.iter().any(strains);
        let since = self.fitted.map(|fitted| now.saturating_duration_since(fitted));
        let size = u32::try_from(self.numbers.len() / FIT_RELAYS).unwrap_or(u32::MAX).max(1);
        let due = since.is_none_or(|since| {
            since >= FIT_INTERVAL * size || self.strained && since >= FIT_INTERVAL_MIN * size
        });
        if !due || (changed.is_empty() && !self.strained) {
            return false;
        }
        (self.fitted, self.strained) = (Some(now), false);
        self.stats.fits += 1;
        let clocks = Clocks::fit(topology);
        if self.clocks.is_close(&clocks) {
            return false;
        }
        self.clocks = clocks;
        true
    }

    /// Takes over which links best paths may take; returns those that they may take again.
    fn admit(
        &mut self,
        topology: &Topology,
        changed: &BTreeSet<LinkId>,
        now: Instant,
    ) -> Vec<LinkId> {
        for id in changed {
            let measure = topology.link(*id);
            self.admission.update(*id, measure.map(|measure| measure.usable), now);
            if measure.is_some_and(|measure| measure.draining) {
                self.draining.insert(*id);
            } else {
                self.draining.remove(id);
            }
        }
        let readmitted = self.admission.expire(self.config.readmission_hold, now);
        if self.admission.waiting().is_empty() && self.draining.is_empty() {
            self.admitted = None;
        } else if self.admitted.is_none() {
            self.admitted = Some(self.links.clone());
        }
        readmitted
    }

    /// Finds the pairs whose links cost something else now, and what they did and do at least.
    fn reprice(
        &self,
        topology: &Topology,
        changed: &BTreeSet<LinkId>,
        was_barring: bool,
    ) -> Vec<Changed> {
        let barring = was_barring || self.admitted.is_some();
        let mut pairs: Vec<Changed> = Vec::new();
        let mut last = None;
        for id in changed {
            let ends = (id.from, id.to);
            let numbers = (self.numbers.of(id.from), self.numbers.of(id.to));
            let (Some(from), Some(to)) = numbers else { continue };
            if last.replace(ends) == Some(ends) {
                continue;
            }
            let lines = self.price(topology, ends, |_| true);
            if !barring && self.links.is(from, to, &lines) {
                continue;
            }
            let least = std::array::from_fn(|class| {
                let new = lines.iter().map(|line| line.cost[class]).min().unwrap_or(kernel::NONE);
                new.min(self.links.cost(class, from, to))
            });
            pairs.push(Changed { from, to, least });
        }
        pairs
    }

    /// The usable links of a pair, priced.
    fn price(
        &self,
        topology: &Topology,
        (from, to): (RelayId, RelayId),
        admits: impl Fn(LinkId) -> bool,
    ) -> Vec<Line> {
        let links = topology.links_between(from, to).filter(|(id, _)| admits(*id));
        let priced = links.filter_map(|(id, measure)| {
            let delay = measure.usable.then(|| self.clocks.delay(id, measure)).flatten()?;
            let mut cost = [kernel::NONE; CLASSES];
            for (cost, class) in cost.iter_mut().zip(Class::ALL) {
                *cost = LinkTerms::of(class, id, measure, delay)?.total().0;
            }
            let (index, delay) = (id.index.value(), delay.effective().0);
            Some(Line { index, cost, delay, lossy: is_lossy(measure) })
        });
        priced.collect()
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

    fn set_pairs(&mut self, topology: &Topology, pairs: &[Changed]) {
        for &Changed { from, to, .. } in pairs {
            let (Some(sender), Some(receiver)) = (self.numbers.id(from), self.numbers.id(to))
            else {
                continue;
            };
            let lines = self.price(topology, (sender, receiver), |_| true);
            self.links.set(from, to, &lines);
            if self.admitted.is_some() {
                let barred =
                    |id| self.admission.waiting().contains(&id) || self.draining.contains(&id);
                let lines = self.price(topology, (sender, receiver), |id| !barred(id));
                if let Some(admitted) = &mut self.admitted {
                    admitted.set(from, to, &lines);
                }
            }
        }
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
        let field = self.field(self.millis(now));
        let turn = usize::try_from(self.stats.plans % FORGET_TURNS).expect("it is small");
        for plane in &mut planes {
            let rows = plane.rows.iter_mut().skip(turn).step_by(FORGET_TURNS as usize);
            rows.for_each(|row| row.forget_left(field.config, field.now));
        }
        let outcome = plane::run(&mut planes, dirty, &field, executor);
        self.planes = planes;
        self.stats.add(&outcome.stats);
        let key = |&(class, policy, from, to): &(usize, PolicyId, usize, usize)| {
            let (source, destination) = (self.numbers.id(from)?, self.numbers.id(to)?);
            Some(RouteKey { source, destination, class: Class::ALL[class], policy })
        };
        outcome.changed.iter().filter_map(key).collect()
    }
}

#[cfg(test)]
mod tests;
