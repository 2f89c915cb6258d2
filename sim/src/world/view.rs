//! Whether the mesh is whole again, and its paths the best there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use overway_probe::State;
use overway_topology::oracle::{self, Exact};
use overway_topology::{Cost, PlannerConfig};
use overway_wire::{Class, LinkId, LinkIndex, Micros, Path, RelayId};

use super::World;
use crate::rng::micros;
use crate::site::Client;

/// What a link costs beside its delay, in a clean mesh: see the topology's costs.
const HOP: Micros = Micros(200);
/// What two windows of measurement may be wrong by along a path: jitter, and what the slow window still
/// remembers.
const MEASURE_SLACK: Micros = Micros(1_500);

/// Why the mesh is not at rest. The first one found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unrest(String);

impl Unrest {
    pub(crate) fn detours() -> Self {
        Self("frames still take detours".to_owned())
    }
}

impl fmt::Display for Unrest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
        Ok(())
    }

    /// How many frames took detours and copies so far: at rest it does not grow.
    pub(crate) fn detours(&self) -> u64 {
        let running = self.sites.values().filter_map(|site| site.process.as_ref());
        let running = running.map(|process| process.core.stats());
        let running: u64 = running.map(|stats| stats.detours + stats.copies + stats.replays).sum();
        self.figures.detours + self.figures.copies + self.figures.replays + running
    }

    /// Whether the paths that frames take are within the hysteresis of the best, by the true delays.
    ///
    /// # Errors
    /// Names a path that is not.
    pub(crate) fn check_best(&self) -> Result<(), Unrest> {
        let exact = self.exact();
        let scheduler = self.scheduler.as_ref().ok_or(Unrest("no scheduler".to_owned()))?;
        let gain = PlannerConfig::default().gain;
        for (&(from, to), best) in &exact {
            let (from, to) = (relay_of(from), relay_of(to));
            let process = self.sites[&from].process.as_ref();
            let Some(process) = process else { continue };
            let split = |class| {
                let mut routes = scheduler.core.routes_between(from, to).into_iter();
                routes.any(|route| route.key.class == class && !route.weights.is_empty())
            };
            for class in Class::ALL.into_iter().filter(|&class| !split(class)) {
                let way = process.core.choose(to, class, self.now);
                let way = way.ok_or_else(|| Unrest(format!("{from} has no path to {to}")))?;
                let cost = self.cost(from, &way.path);
                let best = Cost(best.best.0 + HOP.0 + MEASURE_SLACK.0);
                unless(
                    !gain.exceeded(cost, best),
                    format_args!(
                        "{from} to {to} in {class} goes by {} at {} us where {} us are to be had",
                        way.path, cost.0, best.0
                    ),
                )?;
            }
        }
        Ok(())
    }

    /// The shortest ways over the links that are probed.
    fn exact(&self) -> BTreeMap<(usize, usize), Exact> {
        let probed = self.probed();
        let count = usize::from(self.scenario.relays);
        let shortest =
            |from, to| probed.contains(&(from, to)).then(|| self.shortest(from, to)).flatten();
        let delays: Vec<Vec<Option<Micros>>> = (0..count)
            .map(|from| (0..count).map(|to| shortest(relay_of(from), relay_of(to))).collect())
            .collect();
        oracle::exact(&delays, HOP)
    }

    /// Pairs of relays that have links, by sender and receiver.
    pub(crate) fn probed(&self) -> BTreeSet<(RelayId, RelayId)> {
        let status = self.scheduler.as_ref().map(|scheduler| scheduler.core.status(self.now));
        let links = status.into_iter().flat_map(|status| status.links);
        links.map(|link| (link.id.from, link.id.to)).collect()
    }

    /// The shorter of the parallel links between two relays.
    fn shortest(&self, from: RelayId, to: RelayId) -> Option<Micros> {
        let indices = [0, 1].into_iter().filter_map(LinkIndex::new);
        let delays = indices.filter_map(|index| self.network.delay(LinkId::new(from, to, index)));
        delays.min().map(|delay| Micros::from(delay + self.network.jitter_mean()))
    }

    /// What a path costs by the true delays.
    fn cost(&self, from: RelayId, path: &Path) -> Cost {
        let hops = u32::try_from(path.elements().len()).expect("paths are short");
        let delay = self.path_delay(from, path) + self.network.jitter_mean() * hops;
        Cost(Micros::from(delay).0 + hops * HOP.0)
    }

    /// The true delay of a path, jitter left out.
    pub(crate) fn path_delay(&self, mut from: RelayId, path: &Path) -> Duration {
        let mut sum = Duration::ZERO;
        for step in path.elements() {
            let link = LinkId::new(from, step.relay, step.link);
            sum += self.network.delay(link).unwrap_or_default();
            from = step.relay;
        }
        sum
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

fn relay_of(at: usize) -> RelayId {
    RelayId(u16::try_from(at + 1).expect("relays have ids of 16 bits"))
}
