//! Waiting until the flows run calmly over a common transit relay, so that the next blow finds them so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::bail;
use overway::lab::drills::{FlowPaths, Scene};

/// How long paths must have stayed as they are. The path's delay before a blow is measured in it.
const CALM: Duration = Duration::from_millis(1_500);
/// How long calm is waited for. A relay that failed is on a best path again ten seconds after it came back,
/// and a path that was left is taken again after having been better for twenty.
const TIME_MAX: Duration = Duration::from_secs(75);
/// How often the paths are asked for.
const LOOK: Duration = Duration::from_millis(250);
/// Share of its frames that a flow must have received in the calm: lines lose a per cent.
const RECEIVED: f64 = 0.9;

/// Waits for it.
///
/// # Errors
/// It does not come, or the benchmark was stopped.
pub(super) fn wait(scene: &Scene<'_>, flows_min: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    let ends = scene.ends();
    let (mut since, mut before) = (Instant::now(), FlowPaths::new());
    loop {
        let paths = scene.flow_paths();
        let most = most_over_one(&paths, &ends);
        if paths != before || most < flows_min {
            (since, before) = (Instant::now(), paths);
        }
        let silent = silent(scene);
        if since.elapsed() >= CALM && silent.is_none() {
            return Ok(());
        }
        let mut text = format!("{most} flows share a transit relay, {flows_min} are wanted");
        if let Some(flow) = silent {
            text.push_str(&format!("; flow {flow} misses frames"));
        }
        if started.elapsed() > TIME_MAX {
            bail!("no calm after {TIME_MAX:?}: {text}");
        }
        scene.stage.status(format!("waiting for calm: {text}"));
        scene.stage.pause(LOOK)?;
    }
}

/// How many paths the relay carries that carries the most and is no end.
fn most_over_one(paths: &FlowPaths, ends: &BTreeSet<usize>) -> usize {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for relay in paths.iter().flatten().flatten().filter(|relay| !ends.contains(relay)) {
        *counts.entry(*relay).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

/// A flow that misses frames of the calm.
fn silent(scene: &Scene<'_>) -> Option<usize> {
    let now = scene.flows.now();
    let from = now.saturating_sub(u64::try_from(CALM.as_nanos()).unwrap_or(u64::MAX));
    let specs = scene.flows.specs().iter().enumerate();
    let mut few = specs.filter(|(flow, spec)| {
        let wanted = CALM.as_secs_f64() / spec.spacing.as_secs_f64() * RECEIVED;
        (scene.flows.arrivals(*flow, from, now).len() as f64) < wanted
    });
    few.next().map(|(flow, _)| flow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_that_most_flows_share_is_no_end() {
        let paths = vec![Some(vec![0, 5, 1]), Some(vec![2, 6, 5, 1]), Some(vec![0, 1]), None];

        assert_eq!(most_over_one(&paths, &[0, 1, 2].into()), 2);
        assert_eq!(most_over_one(&paths, &[0, 1, 2, 5].into()), 1);
        assert_eq!(most_over_one(&vec![Some(vec![0, 1])], &[0, 1].into()), 0);
    }
}
