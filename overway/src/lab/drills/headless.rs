//! The mesh without any scheduler, and a transit relay that dies meanwhile.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::failover::samples;
use super::{Blow, LOOK, Sample, Scene, WHOLE_TIME_MAX, stream_wire};
use crate::lab::flow::felt;
use crate::lab::transfer::{Fetch, Fetched};
use crate::lab::world::Node;

/// When the relay dies, after the scheduler.
const BLOW_AFTER: Duration = Duration::from_secs(8);
/// The rate of the file that is on its way all the while.
const STREAM_MBPS: f64 = 8.0;

/// What flows and a file felt.
#[derive(Clone, Debug)]
pub struct Headless {
    /// The relay that died.
    pub victim: usize,
    /// The flows that led over it.
    pub samples: Vec<Sample>,
    /// The worst excess of any flow at any time without a scheduler.
    pub excess_ms_max: Option<f64>,
    /// The file.
    pub fetched: Fetched,
    /// How late the measuring process itself was at worst.
    pub own_stall: Duration,
}

/// Kills the scheduler for a while and a transit relay in the middle of it; a paced file flows all along.
/// Restores both.
///
/// # Errors
/// Something does not come back, or the lab was stopped.
pub fn headless(scene: &Scene<'_>, span: Duration) -> anyhow::Result<Headless> {
    let Scene { world, stage, flows } = *scene;
    let wire = stream_wire(scene)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive rate times a positive time"
    )]
    let bytes = (STREAM_MBPS * 1e6 / 8.0 * span.as_secs_f64()) as u64;
    let fetch = Fetch::start(wire.tcp, world.seed(), bytes, Some(STREAM_MBPS))?;
    let begin = flows.now();
    world.kill(Node::Scheduler)?;
    let lead = BLOW_AFTER.min(span / 3);
    super::wait(stage, lead, "no scheduler runs; flows and a file go on")?;
    let (victim, paths) = scene.transit_in_use()?;
    let start = flows.now();
    Blow::Kill.hit(scene, victim)?;
    let name = world.profile().relay_name(victim);
    super::wait(
        stage,
        span.saturating_sub(lead),
        &format!("no scheduler runs, and {name} is dead"),
    )?;
    let end = flows.now();

    let samples = samples(scene, &paths, victim, start, end);
    let hit: Vec<usize> = samples.iter().map(|sample| sample.flow).collect();
    let spared = (0..flows.specs().len()).filter(|flow| !hit.contains(flow)).filter_map(|flow| {
        let arrivals = flows.arrivals(flow, begin.saturating_sub(2_000_000_000), end);
        let felt = felt(&arrivals, begin, end)?;
        Some(felt.excess_ms(flows.specs()[flow].spacing, Duration::ZERO))
    });
    let excess = samples.iter().map(|sample| sample.excess_ms).chain(spared);
    let excess_ms_max = excess.max_by(f64::total_cmp);
    let own_stall = flows.own_stall(begin, end);

    world.restart(Node::Scheduler, stage)?;
    let grace = Instant::now();
    while !fetch.is_over() && grace.elapsed() < WHOLE_TIME_MAX {
        stage.status("the end of the file comes through");
        stage.pause(LOOK)?;
    }
    fetch.end();
    let fetched = fetch.join();
    scene.restore(victim)?;
    wait_connected(scene)?;
    Ok(Headless { victim, samples, excess_ms_max, fetched, own_stall })
}

/// Waits until every relay has a scheduler again.
///
/// # Errors
/// One has none for long, or the lab was stopped.
pub fn wait_connected(scene: &Scene<'_>) -> anyhow::Result<()> {
    let started = Instant::now();
    let count = scene.world.profile().relays().len();
    loop {
        let connected = (0..count)
            .filter(|&relay| scene.world.relay_status(relay).is_ok_and(|s| s.scheduler_connected))
            .count();
        if connected == count {
            return Ok(());
        }
        if started.elapsed() > WHOLE_TIME_MAX {
            bail!("{connected} of {count} relays have found the scheduler again");
        }
        let text = format!("{connected} of {count} relays are with the scheduler again");
        scene.stage.status(text);
        scene.stage.pause(LOOK)?;
    }
}
