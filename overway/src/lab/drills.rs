//! The drills: what is broken under running traffic, and what the traffic felt.
//!
//! Each drill leaves the mesh whole again. What it breaks is always a relay that carries others' traffic
//! at that moment, asked of the relays themselves, and never an end of a measured flow: an end's death is
//! nothing that a path could go around.

mod failover;
mod headless;
mod loss;
mod pairs;
mod quiet;
mod streams;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::bail;
use overway_wire::Class;

use super::flow::Flows;
use super::stage::{Stage, Stopped};
use super::transfer::{Fetch, Fetched};
use super::world::{Condition, Node, World};

pub use failover::{Blow, Sample, Strike, strike};
pub use headless::{Headless, headless, wait_connected};
pub use loss::{LossFelt, loss};
pub use pairs::{ImprovedPair, Pairs, pairs};
pub use quiet::{Counters, Quiet};
pub use streams::{StreamFelt, stream, stream_wire};

/// How long a path with a transit relay is waited for.
const TRANSIT_TIME_MAX: Duration = Duration::from_secs(30);
/// How long flows may take to come through after their start.
const FLOWS_TIME_MAX: Duration = Duration::from_secs(20);
/// How long a relay that was restored may take to be whole.
const WHOLE_TIME_MAX: Duration = Duration::from_secs(90);
/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Where drills happen.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The mesh.
    pub world: &'a World,
    /// The console.
    pub stage: &'a Stage,
    /// The flows that run all the while.
    pub flows: &'a Flows,
}

/// The realtime paths that the flows take now, flow by flow; `None` where there is none.
pub type FlowPaths = Vec<Option<Vec<usize>>>;

impl Scene<'_> {
    /// Asks the entry relays for the flows' paths.
    pub fn flow_paths(&self) -> FlowPaths {
        let specs = self.flows.specs();
        let entries: BTreeSet<usize> = specs.iter().map(|spec| spec.entry).collect();
        let statuses: Vec<_> = entries
            .into_iter()
            .filter_map(|entry| Some((entry, self.world.relay_status(entry).ok()?)))
            .collect();
        let path = |entry: usize, exit: usize| {
            let (_, status) = statuses.iter().find(|(relay, _)| *relay == entry)?;
            self.world.path_in(status, entry, exit, Class::Realtime)
        };
        specs.iter().map(|spec| path(spec.entry, spec.exit)).collect()
    }

    /// The relay that carries most of the flows and is no flow's end, and the paths it was found in. Waits
    /// until there is one.
    ///
    /// # Errors
    /// There is none for long, or the lab was stopped.
    pub fn transit_in_use(&self) -> anyhow::Result<(usize, FlowPaths)> {
        let started = Instant::now();
        loop {
            let paths = self.flow_paths();
            if let Some(transit) = busiest_transit(&paths, &self.ends()) {
                return Ok((transit, paths));
            }
            if started.elapsed() > TRANSIT_TIME_MAX {
                bail!("no flow's path has a transit relay that is no flow's end");
            }
            self.stage.status("waiting for a path over a transit relay");
            self.stage.pause(LOOK)?;
        }
    }

    /// Waits until every flow comes through.
    ///
    /// # Errors
    /// One does not, or the lab was stopped.
    pub fn wait_flows(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let now = self.flows.now();
            let since = now.saturating_sub(200_000_000);
            let silent = (0..self.flows.specs().len())
                .find(|&flow| self.flows.arrivals(flow, since, now).len() < 2);
            let Some(silent) = silent else { return Ok(()) };
            if started.elapsed() > FLOWS_TIME_MAX {
                let spec = self.flows.specs()[silent];
                let path = self.world.path_text(&[spec.entry, spec.exit]);
                bail!("the flow {path} does not come through");
            }
            self.stage.status("waiting for the flows");
            self.stage.pause(LOOK)?;
        }
    }

    /// Lets a relay go on, or starts it anew, and waits until its links are up again.
    ///
    /// # Errors
    /// It does not come up, or the lab was stopped.
    pub fn restore(&self, relay: usize) -> anyhow::Result<()> {
        let node = Node::Relay(relay);
        match self.world.condition(node).1 {
            Condition::Frozen => self.world.thaw(node)?,
            Condition::Dead => self.world.restart(node, self.stage)?,
            Condition::Running => {}
        }
        let started = Instant::now();
        let links = self.world.profile().relays().len() - 1;
        loop {
            let up = self
                .world
                .relay_status(relay)
                .map_or(0, |status| status.links.iter().filter(|link| link.is_up()).count());
            if up >= links {
                return Ok(());
            }
            let name = self.world.name(node);
            if started.elapsed() > WHOLE_TIME_MAX {
                let tail = self.world.tail(node);
                bail!("{name} has {up} of {links} links up after its return\n{tail}");
            }
            self.stage.status(format!("{name} comes back: {up} of {links} links up"));
            self.stage.pause(LOOK)?;
        }
    }

    /// Every relay that a flow enters or leaves by.
    pub fn ends(&self) -> BTreeSet<usize> {
        self.flows.specs().iter().flat_map(|spec| [spec.entry, spec.exit]).collect()
    }
}

/// Waits, showing what for and how long still.
///
/// # Errors
/// The lab was stopped.
pub fn wait(stage: &Stage, span: Duration, about: &str) -> Result<(), Stopped> {
    let end = Instant::now() + span;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        stage.status(format!("{about} ({:.0} s left)", left.as_secs_f64().ceil()));
        stage.pause(left.min(Duration::from_millis(200)))?;
    }
}

/// Waits until something is so, `limit` at the most; how long that took, `None` if it was not so in time.
///
/// # Errors
/// The lab was stopped.
pub fn until(
    stage: &Stage,
    limit: Duration,
    about: &str,
    mut is_so: impl FnMut() -> bool,
) -> Result<Option<Duration>, Stopped> {
    let started = Instant::now();
    loop {
        if is_so() {
            return Ok(Some(started.elapsed()));
        }
        if started.elapsed() > limit {
            return Ok(None);
        }
        stage.status(about);
        stage.pause(LOOK)?;
    }
}

/// Waits until a file has come, or `limit` is over since its start; what came of it.
///
/// # Errors
/// The lab was stopped.
pub fn finish(stage: &Stage, fetch: Fetch, limit: Duration) -> Result<Fetched, Stopped> {
    let left = limit.saturating_sub(fetch.elapsed());
    until(stage, left, "the rest of a file comes", || fetch.is_over())?;
    fetch.end();
    Ok(fetch.join())
}

/// The relay in the middle of most paths that is no end; the lowest among equals.
fn busiest_transit(paths: &FlowPaths, ends: &BTreeSet<usize>) -> Option<usize> {
    let mut counts = std::collections::BTreeMap::new();
    for path in paths.iter().flatten() {
        for &relay in path.iter().skip(1).take(path.len().saturating_sub(2)) {
            if !ends.contains(&relay) {
                *counts.entry(relay).or_insert(0_usize) += 1;
            }
        }
    }
    counts
        .into_iter()
        .max_by_key(|&(relay, count)| (count, std::cmp::Reverse(relay)))
        .map(|(relay, _)| relay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_transit_is_no_flows_end() {
        let paths = vec![
            Some(vec![0, 5, 1]),
            Some(vec![0, 5, 6, 2]),
            Some(vec![3, 0, 6, 2]),
            Some(vec![3, 0, 1]),
            Some(vec![2, 4]),
            None,
        ];
        let ends = [0, 1, 2, 3, 4].into();

        assert_eq!(busiest_transit(&paths, &ends), Some(5));
        assert_eq!(busiest_transit(&vec![Some(vec![0, 1])], &ends), None);
    }
}
