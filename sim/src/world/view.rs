//! Whether the mesh is whole again, and its paths the best there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use overway_probe::State;
use overway_topology::oracle::{self, Exact};
use overway_topology::{Cost, LinkDelay, LinkMeasure, LinkTerms, PlannerConfig, RouteKey};
use overway_wire::{Class, LinkId, LinkIndex, Micros, Path, Permille, PolicyId, RelayId};

use super::World;
use super::frames::PERIOD;
use crate::rng::micros;
use crate::site::Client;

/// What a link costs beside its delay, in a clean mesh: see the topology's costs.
const HOP: Micros = Micros(200);
/// What two windows of measurement may be wrong by along a path: jitter, and what the slow window still
/// remembers.
const MEASURE_SLACK: Micros = Micros(1_500);
/// What a frame's datagram takes on a line beside its payload.
const FRAME_BESIDES_BYTES: usize = 120;

/// Why the mesh is not at rest. The first one found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unrest(String);

impl Unrest {
    pub(crate) fn detours() -> Self {
        Self("frames still take detours".to_owned())
    }

    pub(crate) fn of(what: fmt::Arguments<'_>) -> Self {
        Self(what.to_string())
    }
}

impl fmt::Display for Unrest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What links carry, as the scheduler knows it.
struct Loads {
    links: BTreeMap<LinkId, Permille>,
    /// What one flow adds: that much may have come or gone since the last plan.
    flow: Permille,
}

impl Loads {
    /// What the load of a link costs a class, by the planner's own formula; `now` adds a flow or takes one off.
    fn cost(&self, class: Class, id: LinkId, now: impl Fn(u16, u16) -> u16) -> u32 {
        let known = self.links.get(&id).copied().unwrap_or_default();
        let load = Permille(now(known.0, self.flow.0));
        let measure = LinkMeasure { usable: true, load, ..LinkMeasure::default() };
        LinkTerms::of(class, id, &measure, LinkDelay::default()).map_or(0, |terms| terms.load.0)
    }
}

fn unless(holds: bool, why: fmt::Arguments<'_>) -> Result<(), Unrest> {
    if holds { Ok(()) } else { Err(Unrest(why.to_string())) }
}

impl World {
    /// Whether every relay runs, is connected, holds the scheduler's revision, and has all its links up.
    ///
    /// # Errors
    /// Says what is missing.
    pub(crate) fn check_whole(&self) -> Result<(), Unrest> {
        let scheduler = self.scheduler.as_ref().ok_or(Unrest("no scheduler".to_owned()))?;
        let status = scheduler.core.status(self.now);
        unless(!status.settling, format_args!("the scheduler is settling"))?;
        for relay in &status.relays {
            let id = relay.id;
            let site = &self.sites[&id];
            let process = site.process.as_ref().filter(|_| site.is_awake());
            let process = process.ok_or_else(|| Unrest(format!("{id} does not run")))?;
            let up = matches!(site.client, Client::Up { .. });
            unless(up && relay.connected, format_args!("{id} is not connected"))?;
            let held = process.core.pushed().revision();
            let current = relay.revision_current;
            unless(
                held == current && relay.revision_acked == current,
                format_args!("{id} holds revision {held}, not {current}"),
            )?;
            let peers = &process.core.fib().peers;
            let links = status.links.iter().filter(|link| link.id.from == id).count();
            unless(
                peers.len() == links,
                format_args!("{id} has {} links, not {links}", peers.len()),
            )?;
            for &link in peers.keys() {
                let state = process.core.link_state(link);
                unless(
                    state == Some((State::Up, State::Up)),
                    format_args!("{id}: link {link} is {state:?}"),
                )?;
            }
        }
        self.check_records()
    }

    /// How many frames took detours and copies so far: at rest it does not grow.
    pub(crate) fn detours(&self) -> u64 {
        let running = self.sites.values().filter_map(|site| site.process.as_ref());
        let running = running.map(|process| process.core.stats());
        let running: u64 = running.map(|stats| stats.detours + stats.copies + stats.replays).sum();
        self.figures.detours + self.figures.copies + self.figures.replays + running
    }

    /// Whether the paths that frames take are within the hysteresis of the best, by the true delays and by what the
    /// load of links costs: where lines are narrow, the shortest way is not the best for everybody. Those of a cell are to
    /// be the best of its relays.
    ///
    /// # Errors
    /// Names a path that is not.
    pub(crate) fn check_best(&self) -> Result<(), Unrest> {
        self.check_best_under(PolicyId::default(), |_| true)?;
        let mut cells = self.cells.policies().into_iter();
        cells.try_for_each(|(policy, allowed)| {
            self.check_best_under(policy, |relay| allowed.contains(relay))
        })
    }

    fn check_best_under(
        &self,
        policy: PolicyId,
        allows: impl Fn(&RelayId) -> bool,
    ) -> Result<(), Unrest> {
        let loads = self.loads();
        let scheduler = self.scheduler.as_ref().ok_or(Unrest("no scheduler".to_owned()))?;
        let gain = PlannerConfig::default().gain;
        for class in Class::ALL {
            for (&(from, to), best) in &self.exact(class, &loads, &allows) {
                let (from, to) = (relay_of(from), relay_of(to));
                let process = self.sites[&from].process.as_ref();
                let Some(process) = process else { continue };
                let routes = scheduler.core.routes_between(from, to).into_iter();
                let mut routes =
                    routes.filter(|route| (route.key.class, route.key.policy) == (class, policy));
                let Some(route) = routes.find(|route| route.weights.is_empty()) else { continue };
                let way = if policy == PolicyId::default() {
                    process.core.choose(to, class, self.now)
                } else {
                    process.core.fib().route(to, class, policy).first().copied()
                };
                let way = way.ok_or_else(|| Unrest(format!("{from} has no path to {to}")))?;
                let cost = self.cost(class, from, &way.path, &loads);
                let best = Cost(best.best.0) + Cost(HOP.0 + MEASURE_SLACK.0);
                if gain.exceeded(cost, best) {
                    let why = self.why(route.key).unwrap_or_default();
                    return Err(Unrest(format!(
                        "{from} to {to} in {class} goes by {} at {} us where {} us are to be had{why}",
                        way.path, cost.0, best.0
                    )));
                }
            }
        }
        Ok(())
    }

    /// What the scheduler says of a route.
    fn why(&self, key: RouteKey) -> Option<String> {
        let explained = self.scheduler.as_ref()?.core.explain(key, self.now)?.explanation;
        let cheapest = explained.others.last()?;
        let (kept, other) = (explained.current.verdict, cheapest.verdict);
        let path = cheapest.candidate.path;
        Some(format!("; in use: {kept:?}, {path}: {other:?}"))
    }

    fn loads(&self) -> Loads {
        let status = self.scheduler.as_ref().map(|scheduler| scheduler.core.status(self.now));
        let links = status.into_iter().flat_map(|status| status.links);
        let links = links.map(|link| (link.id, link.load)).collect();
        let bits = (self.scenario.frame_bytes + FRAME_BESIDES_BYTES) as u64 * 8;
        let flow = bits * 1_000 * 1_000_000 / micros(PERIOD) / self.scenario.capacity_bps.max(1);
        Loads { links, flow: Permille(u16::try_from(flow).unwrap_or(u16::MAX)) }
    }

    /// The best ways for a class over the links that are probed, between relays that are allowed.
    fn exact(
        &self,
        class: Class,
        loads: &Loads,
        allows: impl Fn(&RelayId) -> bool,
    ) -> BTreeMap<(usize, usize), Exact> {
        let probed = self.probed();
        let count = usize::from(self.scenario.relays);
        let shortest = |from, to| {
            let probed = probed.contains(&(from, to)) && allows(&from) && allows(&to);
            probed.then(|| self.shortest(class, from, to, loads)).flatten()
        };
        let delays: Vec<Vec<Option<Micros>>> = (0..count)
            .map(|from| (0..count).map(|to| shortest(relay_of(from), relay_of(to))).collect())
            .collect();
        oracle::exact(&delays, HOP)
    }

    /// Pairs of relays that have links which routes may take, by sender and receiver.
    pub(crate) fn probed(&self) -> BTreeSet<(RelayId, RelayId)> {
        let status = self.scheduler.as_ref().map(|scheduler| scheduler.core.status(self.now));
        let links = status.into_iter().flat_map(|status| status.links);
        links.filter(|link| !link.trial).map(|link| (link.id.from, link.id.to)).collect()
    }

    /// What the better of the parallel links between two relays costs, a hop's share left out, with a flow more.
    fn shortest(&self, class: Class, from: RelayId, to: RelayId, loads: &Loads) -> Option<Micros> {
        let links = [0, 1].into_iter().filter_map(LinkIndex::new);
        let cost = |link: LinkId| {
            let delay = Micros::from(self.network.delay(link)? + self.network.jitter_mean());
            let load = loads.cost(class, link, u16::saturating_add);
            Some(Micros(delay.0.saturating_add(load)))
        };
        links.filter_map(|index| cost(LinkId::new(from, to, index))).min()
    }

    /// What a path costs by the true delays and by its load, with a flow less.
    fn cost(&self, class: Class, from: RelayId, path: &Path, loads: &Loads) -> Cost {
        let hops = u32::try_from(path.elements().len()).expect("paths are short");
        let delay = self.path_delay(from, path) + self.network.jitter_mean() * hops;
        let load = links_of(from, path).map(|link| loads.cost(class, link, u16::saturating_sub));
        load.fold(Cost(Micros::from(delay).0 + hops * HOP.0), |sum, load| sum + Cost(load))
    }

    /// The true delay of a path, jitter left out.
    pub(crate) fn path_delay(&self, from: RelayId, path: &Path) -> Duration {
        links_of(from, path).map(|link| self.network.delay(link).unwrap_or_default()).sum()
    }

    /// Adds the counters of what still runs; once, at the end.
    pub(crate) fn close_books(&mut self) {
        let now = self.now;
        for site in self.sites.values() {
            if let Some(process) = &site.process {
                self.watch.handle_counters(&process.core, now);
                self.figures.count_process(&process.core);
            }
        }
        if let Some(scheduler) = self.scheduler.take() {
            self.count_scheduler(&scheduler.core);
        }
        self.figures.frames_lost = self.figures.frames_sent - self.figures.frames_passed;
        self.figures.events = self.trace.events();
        self.figures.virtual_ms = micros(self.elapsed()) / 1_000;
    }
}

/// The links of a path from a relay.
fn links_of(from: RelayId, path: &Path) -> impl Iterator<Item = LinkId> {
    let steps = path.elements().iter();
    let before = std::iter::once(from).chain(steps.clone().map(|step| step.relay));
    before.zip(steps).map(|(from, step)| LinkId::new(from, step.relay, step.link))
}

fn relay_of(at: usize) -> RelayId {
    RelayId(u16::try_from(at + 1).expect("relays have ids of 16 bits"))
}
