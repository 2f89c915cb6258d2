//! A transit relay freezes or dies under flows.

use std::time::Duration;

use anyhow::bail;

use super::Scene;
use crate::lab::flow::{Felt, felt};
use crate::lab::world::Node;

/// Arrivals from this long before the blow tell the path's delay before.
const BEFORE_NS: u64 = 2_000_000_000;
/// How long after the blow flows are watched: failover takes tenths of a second, the source's own better
/// path a round trip more, and the scheduler's new epoch about a second.
const WATCH: Duration = Duration::from_millis(2_500);

/// For how long a flow must have been on its path to be counted. A link that has just become active is
/// still watched at its old rate for a round trip, and the median delay before would be another path's.
const ON_PATH: Duration = Duration::from_secs(1);
/// How often flows may change their path while a relay to be hit is looked for.
const SETTLE_TRIES_MAX: u32 = 20;

/// What happens to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Blow {
    /// Its process is stopped (SIGSTOP): sockets stay, nothing answers.
    Freeze,
    /// Its process is killed (SIGKILL).
    Kill,
}

/// What a blow did to one flow whose path led over the relay.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Which flow.
    pub flow: usize,
    /// Its path before the blow.
    pub path: Vec<usize>,
    /// What it felt.
    pub felt: Felt,
    /// See [`Felt::excess_ms`].
    pub excess_ms: f64,
    /// See [`Felt::settled_excess_ms`].
    pub settled_excess_ms: f64,
}

/// A blow and what it did.
#[derive(Clone, Debug)]
pub struct Strike {
    /// The relay.
    pub victim: usize,
    /// What happened to it.
    pub blow: Blow,
    /// The flows that led over it.
    pub samples: Vec<Sample>,
    /// Flows that are not among them since their path had changed within the second before.
    pub unsettled: usize,
    /// How late the measuring process itself was at worst meanwhile; 0 if never by more than 5 ms.
    pub own_stall: Duration,
}

impl Blow {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Freeze => "frozen",
            Self::Kill => "killed",
        }
    }

    /// Strikes a relay.
    ///
    /// # Errors
    /// It does not run.
    pub fn hit(self, scene: &Scene<'_>, relay: usize) -> anyhow::Result<()> {
        match self {
            Self::Freeze => scene.world.freeze(Node::Relay(relay)),
            Self::Kill => scene.world.kill(Node::Relay(relay)),
        }
    }
}

impl Sample {
    /// One line for people.
    pub fn text(&self, scene: &Scene<'_>) -> String {
        let path = scene.world.path_text(&self.path);
        let Felt { lost, delay_before, delay_detour, delay_settled, .. } = self.felt;
        let [before, detour, settled] =
            [delay_before, delay_detour, delay_settled].map(|delay| delay.as_secs_f64() * 1e3);
        let (gap, excess) = (self.felt.gap_ms(), self.excess_ms);
        format!(
            "{path}: gap {gap:.0} ms (excess {excess:.0} ms), {lost} lost, path delay {before:.0} ms, \
             {detour:.0} ms on the detour, then {settled:.0} ms"
        )
    }
}

impl Strike {
    /// The worst excess in milliseconds, if any flow was hit.
    pub fn excess_ms_max(&self) -> Option<f64> {
        self.samples.iter().map(|sample| sample.excess_ms).max_by(f64::total_cmp)
    }

    /// One line for people.
    pub fn text(&self, scene: &Scene<'_>) -> String {
        let name = scene.world.profile().relay_name(self.victim);
        let gaps: Vec<f64> = self.samples.iter().map(|sample| sample.felt.gap_ms()).collect();
        let gap = gaps.iter().copied().max_by(f64::total_cmp).unwrap_or(0.0);
        let lost: u64 = self.samples.iter().map(|sample| sample.felt.lost).sum();
        let twice: u64 = self.samples.iter().map(|sample| sample.felt.duplicates).sum();
        let excess = self.excess_ms_max().unwrap_or(0.0);
        let (what, flows) = (self.blow.text(), self.samples.len());
        let mut text = format!(
            "{name} {what} under {flows} flows: gap {gap:.0} ms at most (excess {excess:.0} ms), \
             {lost} frames lost, {twice} repeated"
        );
        if self.unsettled > 0 {
            let flows = self.unsettled;
            text.push_str(&format!(
                "; {flows} more had just changed their path and are not counted"
            ));
        }
        if !self.own_stall.is_zero() {
            let late = self.own_stall.as_secs_f64() * 1e3;
            text.push_str(&format!("; the lab itself was {late:.0} ms late meanwhile"));
        }
        text
    }
}

/// Freezes or kills the transit relay that most flows use now, watches, and restores it.
///
/// # Errors
/// There is no transit relay in use, the relay does not come back, or the lab was stopped.
pub fn strike(scene: &Scene<'_>, blow: Blow) -> anyhow::Result<Strike> {
    let (victim, paths, unsettled) = settled_victim(scene)?;
    let start = scene.flows.now();
    blow.hit(scene, victim)?;
    let name = scene.world.profile().relay_name(victim);
    let watched = super::wait(scene.stage, WATCH, &format!("{name} is {}", blow.text()));
    let end = scene.flows.now();
    scene.restore(victim)?;
    watched?;
    Ok(Strike {
        victim,
        blow,
        samples: samples(scene, &paths, victim, start, end),
        unsettled,
        own_stall: scene.flows.own_stall(start, end),
    })
}

/// The transit relay that most flows use, their paths without those that have just changed, and how many
/// these are.
fn settled_victim(scene: &Scene<'_>) -> anyhow::Result<(usize, super::FlowPaths, usize)> {
    for _ in 0..SETTLE_TRIES_MAX {
        let (victim, earlier) = scene.transit_in_use()?;
        let name = scene.world.profile().relay_name(victim);
        super::wait(scene.stage, ON_PATH, &format!("{name} is in use"))?;
        let mut paths = scene.flow_paths();
        let unsettled = forget_changed(&mut paths, &earlier, victim);
        if paths.iter().flatten().any(|path| in_front(path, victim).is_some()) {
            return Ok((victim, paths, unsettled));
        }
    }
    bail!("no flow stays on a path over a transit relay for {ON_PATH:?}")
}

/// Removes the paths over the relay that were other paths earlier, and counts them.
fn forget_changed(
    paths: &mut super::FlowPaths,
    earlier: &super::FlowPaths,
    victim: usize,
) -> usize {
    let mut count = 0;
    for (path, before) in paths.iter_mut().zip(earlier) {
        let over = path.as_ref().is_some_and(|path| in_front(path, victim).is_some());
        if over && path != before {
            *path = None;
            count += 1;
        }
    }
    count
}

/// What the flows felt whose paths led over the relay.
pub(super) fn samples(
    scene: &Scene<'_>,
    paths: &super::FlowPaths,
    victim: usize,
    start: u64,
    end: u64,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (flow, path) in paths.iter().enumerate() {
        let Some(path) = path else { continue };
        let Some(front) = in_front(path, victim) else { continue };
        let round_trip = scene.world.profile().round_trip(front, victim);
        let arrivals = scene.flows.arrivals(flow, start.saturating_sub(BEFORE_NS), end);
        if let Some(felt) = felt(&arrivals, start, end) {
            let spacing = scene.flows.specs()[flow].spacing;
            samples.push(Sample {
                flow,
                path: path.clone(),
                felt,
                excess_ms: felt.excess_ms(spacing, round_trip),
                settled_excess_ms: felt.settled_excess_ms(spacing, round_trip),
            });
        }
    }
    samples
}

/// The relay before `victim` on a path in whose middle it is.
fn in_front(path: &[usize], victim: usize) -> Option<usize> {
    let at = path.iter().position(|&relay| relay == victim)?;
    (at > 0 && at + 1 < path.len()).then(|| path[at - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_has_just_changed_its_path_is_not_counted() {
        let earlier = vec![Some(vec![0, 5, 1]), Some(vec![0, 1]), None, Some(vec![0, 1])];
        let mut paths = vec![
            Some(vec![0, 5, 1]),
            Some(vec![0, 5, 1]),
            Some(vec![0, 5, 1]),
            Some(vec![0, 6, 1]),
        ];

        assert_eq!(forget_changed(&mut paths, &earlier, 5), 2);
        assert_eq!(paths, [Some(vec![0, 5, 1]), None, None, Some(vec![0, 6, 1])]);
    }

    #[test]
    fn the_relay_in_front_is_the_one_before_the_victim() {
        assert_eq!(in_front(&[0, 5, 6, 1], 6), Some(5));
        assert_eq!(in_front(&[0, 5, 1], 5), Some(0));
        assert_eq!(in_front(&[0, 5, 1], 1), None);
        assert_eq!(in_front(&[0, 5, 1], 7), None);
    }
}
