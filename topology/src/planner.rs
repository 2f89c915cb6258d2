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
//! Backups follow: the cheapest path that shares no intermediate with the one in use, the cheapest that
//! shares none with both, and the direct link. A backup is likewise kept until another is clearly better,
//! so that noise does not make pushes. Where no disjoint path exists, the same relays by other links
//! serve.
//!
//! State is one entry per route of the last plan, and one per link of the topology.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overway_wire::{Class, LinkId, Micros, Path, PolicyId};

use crate::paths::{Avoid, Mesh, Search, links_of};
use crate::plan::{Plan, RouteChange, diff};
use crate::{
    CANDIDATES_MAX, Candidate, Cost, Cuts, Delays, Executor, Explanation, Reason, RouteKey, Topology,
};

mod admission;
mod route;

use admission::Admission;
use route::{Move, Route};

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
    /// By how much a path must be better. 2 ms is what a clean link's delay wanders within a window, and
    /// no user feels 5 %; more would give away gain for calm that the hold time gives already.
    pub gain: Threshold,
    /// By how much the path in use must have risen since it was last the best, for the hold time not to
    /// count. More than `gain`, since noise here would undo the hold.
    pub degraded: Threshold,
    /// How long a path that was left must be better without pause before it is taken again. Longer than
    /// loss comes and goes on a congested line, and long enough for the 30 s window to speak.
    pub return_hold: Duration,
    /// How long a path that was left is remembered. By then what it was left for is its normal state.
    pub return_memory: Duration,
    /// How long a link that failed must be usable before a best path takes it. A relay that comes back
    /// may go again; most that last ten seconds last.
    pub readmission_hold: Duration,
    /// Relays that a path may have between its ends: 1 or 2. A third helps 0.04 % of pairs.
    pub intermediates_max: u8,
    /// How long a new pair takes the best freely: the first measurements, of few packets each, need
    /// several rounds to settle, and no flow is old enough to mind.
    pub settle: Duration,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        Self {
            gain: Threshold { absolute: Micros(2_000), percent: 5 },
            degraded: Threshold { absolute: Micros(5_000), percent: 10 },
            return_hold: Duration::from_secs(20),
            return_memory: Duration::from_secs(600),
            readmission_hold: Duration::from_secs(10),
            intermediates_max: 2,
            settle: Duration::from_secs(10),
        }
    }
}

/// What the planner did since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Plans made.
    pub plans: u64,
    /// Paths left because they could not be used.
    pub left_unusable: u64,
    /// Paths left for a cheaper one, new pairs included.
    pub left_for_better: u64,
    /// Times that a cheaper path was not taken since it had been left lately, once per plan and route.
    pub returns_held: u64,
}

/// Chooses paths, and remembers what it needs for choosing calmly.
#[derive(Debug)]
pub struct Planner {
    config: PlannerConfig,
    admission: Admission,
    routes: BTreeMap<RouteKey, Route>,
    told: Plan,
    latest: Plan,
    stats: Stats,
}

impl Planner {
    /// Makes a planner that has no routes in use.
    pub fn new(config: PlannerConfig) -> Self {
        let (admission, routes) = (Admission::default(), BTreeMap::new());
        let (told, latest) = (Plan::default(), Plan::default());
        Self { config, admission, routes, told, latest, stats: Stats::default() }
    }

    /// Plans what the changes since the last call can affect. Returns the routes that changed for a relay, in
    /// order of key; one without candidates is gone. `now` does not go back from call to call.
    pub fn plan(
        &mut self,
        topology: &mut Topology,
        _executor: &dyn Executor,
        now: Instant,
    ) -> Vec<RouteKey> {
        self.latest = self.plan_all(topology, now);
        let changes = diff(&self.told, &self.latest);
        let keys = changes.iter().map(RouteChange::key).collect();
        changes.into_iter().for_each(|change| self.told.apply(change));
        keys
    }

    /// The paths of a route, the one in use first; none if there is no route.
    pub fn candidates(&self, key: RouteKey) -> Vec<Candidate> {
        self.latest.routes.get(&key).cloned().unwrap_or_default()
    }

    /// Every route, in order.
    pub fn keys(&self) -> impl Iterator<Item = RouteKey> {
        self.latest.routes.keys().copied()
    }

    /// Whether some route's path, the direct competitors left aside, takes the link.
    pub fn is_candidate(&self, link: LinkId) -> bool {
        self.latest.routes.iter().any(|(key, candidates)| {
            candidates.iter().any(|c| links_of(key.source, &c.path).any(|id| id == link))
        })
    }

    /// Links of which [`Self::is_candidate`] changed since the last call.
    pub fn take_roles(&mut self) -> Vec<LinkId> {
        Vec::new()
    }

    /// Why a route is what it is; `None` if there is none.
    pub fn explain(
        &self,
        _topology: &Topology,
        _key: RouteKey,
        _now: Instant,
    ) -> Option<Explanation> {
        None
    }

    pub(crate) fn plan_all(&mut self, topology: &Topology, now: Instant) -> Plan {
        self.stats.plans += 1;
        let delays = Delays::fit(topology);
        self.admission.update(topology, self.config.readmission_hold, now);
        let mut plan = Plan::default();
        let mut before = std::mem::take(&mut self.routes);
        for class in Class::ALL {
            let all = Mesh::new(topology, &delays, class, |_| true);
            let admitted = self
                .admission
                .is_pending()
                .then(|| Mesh::new(topology, &delays, class, |id| self.admission.admits(id)));
            self.plan_class(class, &all, admitted.as_ref(), &mut before, &mut plan, now);
        }
        plan
    }

    /// Counters since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn plan_class(
        &mut self,
        class: Class,
        all: &Mesh,
        admitted: Option<&Mesh>,
        before: &mut BTreeMap<RouteKey, Route>,
        plan: &mut Plan,
        now: Instant,
    ) {
        let (mut search, mut narrow) = (Search::default(), Search::default());
        for source in 0..all.len() {
            search.start(all, source);
            if let Some(admitted) = admitted {
                narrow.start(admitted, source);
            }
            for destination in (0..all.len()).filter(|&destination| destination != source) {
                let freely = Avoid::default();
                let best = admitted
                    .and_then(|mesh| narrow.best(mesh, destination, &freely))
                    .or_else(|| search.best(all, destination, &freely));
                let Some(best) = best else { continue };
                let (from, to) = (all.relay(source), all.relay(destination));
                let key = RouteKey { source: from, destination: to, class, policy: PolicyId::default() };
                let mut route = match before.remove(&key) {
                    Some(route) => self.moved(route, key, best, all, now),
                    None => Route::new(best, all.link_costs(key.source, &best), now),
                };
                let ends = (source, destination);
                let candidates = candidates(all, &search, ends, &mut route, &self.config);
                plan.routes.insert(key, candidates);
                self.routes.insert(key, route);
            }
        }
    }

    fn moved(
        &mut self,
        mut route: Route,
        key: RouteKey,
        best: Path,
        all: &Mesh,
        now: Instant,
    ) -> Route {
        match route.consider(key.source, best, all, &self.config, now) {
            Move::Stayed => {}
            Move::LeftUnusable => self.stats.left_unusable += 1,
            Move::LeftForBetter => self.stats.left_for_better += 1,
            Move::Held => self.stats.returns_held += 1,
        }
        route
    }
}

/// The candidates of a route in a mesh without what is cut, as if chosen for the first time.
pub fn what_if(_topology: &Topology, _cuts: &Cuts, _key: RouteKey) -> Vec<Candidate> {
    Vec::new()
}

/// The path in use and its backups; remembers the backups in the route.
fn candidates(
    mesh: &Mesh,
    search: &Search,
    (source, destination): (usize, usize),
    route: &mut Route,
    config: &PlannerConfig,
) -> Vec<Candidate> {
    let from = mesh.relay(source);
    let mut avoid = Avoid::default();
    let mut chosen = vec![(route.in_use(), Reason::Best)];
    avoid.add(&route.in_use());
    for slot in 0..CANDIDATES_MAX - 2 {
        let Some(found) = search.best(mesh, destination, &avoid) else { break };
        let path = route.backup(slot, from, found, mesh, &avoid, config);
        avoid.add(&path);
        chosen.push((path, Reason::Disjoint));
    }
    if chosen.len() == 1 {
        let other = mesh.parallel(from, &route.in_use());
        chosen.extend(other.map(|path| (path, Reason::Parallel)));
    }
    if chosen.iter().all(|(path, _)| !path.intermediates().is_empty()) {
        let direct = mesh.direct(source, destination);
        chosen.extend(direct.map(|path| (path, Reason::Direct)));
    }
    route.remember_backups(chosen[1..].iter().map(|(path, _)| *path));
    let priced = chosen.into_iter().filter_map(|(path, reason)| {
        let priced = mesh.price(from, &path)?;
        Some(Candidate { path, cost: priced.cost, delay: priced.delay, reason })
    });
    priced.collect()
}

#[cfg(test)]
mod tests;
