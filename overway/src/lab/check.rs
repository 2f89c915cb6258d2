//! `overway lab --check`: every drill once through, unattended, and the promises compared.

use std::sync::Arc;
use std::time::Duration;

use super::drills::{
    self, Blow, Headless, LossFelt, Pairs, Quiet, Sample, Scene, StreamFelt, Strike,
};
use super::figures::{Figures, Promise};
use super::flow::{Flows, percentile};
use super::stage::{Ink, Stage};
use super::world::World;

/// The promise on excess, see the design's promises in numbers.
pub const EXCESS_MS_MAX: f64 = 60.0;
/// Share of datagrams lost in the loss drill.
const LOSS: f64 = 0.15;
/// Undisturbed time before anything is measured: estimates settle, and false alarms show.
const SETTLE: Duration = Duration::from_secs(12);

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Freezes, and as many kills.
    pub strikes: usize,
    /// Bytes of each file.
    pub file_bytes: u64,
    /// Time without a scheduler.
    pub headless: Duration,
    /// How long a flow that has left a lossy link is watched for its return.
    pub watch_return: Duration,
}

impl Extent {
    /// The whole check: about three minutes.
    pub const FULL: Self = Self {
        strikes: 5,
        file_bytes: 200_000_000,
        headless: Duration::from_secs(30),
        watch_return: Duration::from_secs(25),
    };
    /// The same in under a minute.
    pub const QUICK: Self = Self {
        strikes: 1,
        file_bytes: 20_000_000,
        headless: Duration::from_secs(6),
        watch_return: Duration::from_secs(5),
    };
}

/// Runs every drill.
///
/// # Errors
/// Something did not come up or come back, or the lab was stopped.
pub fn check(world: &Arc<World>, stage: &Stage, extent: Extent) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    let mut quiet = Quiet::default();
    let specs = world.wires().iter().flat_map(|wire| [world.voice(wire); 2]).collect();
    let flows = Flows::start(world.sink(), specs)?;
    let scene = Scene { world, stage, flows: &flows };
    scene.wait_flows()?;
    stage.say(format!("{} flows of 50 frames/s run from here to the end", flows.specs().len()));

    quiet.begin(world)?;
    drills::wait(stage, SETTLE, "undisturbed")?;
    report_pairs(stage, world, &mut figures, &drills::pairs(world)?);
    let wire = drills::stream_wire(&scene)?;
    let undisturbed = drills::stream(&scene, &wire, extent.file_bytes, None)?;
    stage.say(undisturbed.text(&scene));
    quiet.end(world)?;

    let mut strikes = Vec::new();
    for _ in 0..extent.strikes {
        for blow in [Blow::Freeze, Blow::Kill] {
            let strike = drills::strike(&scene, blow)?;
            stage.say(strike.text(&scene));
            say_worst(&scene, &strike.samples);
            strikes.push(strike);
        }
    }
    report_strikes(&mut figures, &strikes);

    let mut streams = vec![undisturbed];
    for blow in [Blow::Kill, Blow::Freeze] {
        let wire = drills::stream_wire(&scene)?;
        let felt = drills::stream(&scene, &wire, extent.file_bytes, Some(blow))?;
        stage.say(felt.text(&scene));
        streams.push(felt);
    }
    report_streams(&mut figures, &streams);

    // Before the scheduler restarts: a new one settles first, and is free to move paths meanwhile.
    let felt = drills::loss(&scene, LOSS, extent.watch_return, &mut quiet)?;
    report_loss(&scene, &mut figures, &felt);
    let headless = drills::headless(&scene, extent.headless)?;
    report_headless(&scene, &mut figures, &headless);
    say_worst(&scene, &headless.samples);
    report_whole(&scene, &mut figures, &quiet, &strikes, &headless);
    Ok(figures)
}

/// Shows the flows that waited longest.
fn say_worst(scene: &Scene<'_>, samples: &[Sample]) {
    for sample in samples.iter().filter(|sample| sample.settled_excess_ms > EXCESS_MS_MAX) {
        scene.stage.say(scene.stage.ink(Ink::Red, format!("  {}", sample.text(scene))));
    }
}

fn report_pairs(stage: &Stage, world: &World, figures: &mut Figures, pairs: &Pairs) {
    let Pairs { mesh, exact, improved } = pairs;
    let (share, count) = (mesh.share(), mesh.pairs);
    let gain = mesh.median_gain_ms;
    stage.say(stage.ink(
        Ink::Bold,
        format!(
            "{} of {count} ordered pairs are faster over other relays than directly, by {gain:.1} ms \
             in the median",
            mesh.improved
        ),
    ));
    for pair in improved.iter().take(3) {
        stage.say(format!("  {}", pair.text(world)));
    }
    figures.add("improved_share", share, Promise::Near(exact.share(), 0.02));
    figures.add("improved_share_exact", exact.share(), Promise::Reported);
    figures.add("median_gain_ms", gain, Promise::Near(exact.median_gain_ms, 2.0));
    figures.add("median_gain_ms_exact", exact.median_gain_ms, Promise::Reported);
}

fn report_strikes(figures: &mut Figures, strikes: &[Strike]) {
    for (blow, name) in [(Blow::Freeze, "freeze"), (Blow::Kill, "kill")] {
        let samples: Vec<&Sample> = strikes
            .iter()
            .filter(|strike| strike.blow == blow)
            .flat_map(|strike| &strike.samples)
            .collect();
        let gaps: Vec<f64> = samples.iter().map(|sample| sample.felt.gap_ms()).collect();
        let excesses: Vec<f64> = samples.iter().map(|sample| sample.excess_ms).collect();
        let lost: Vec<f64> = samples.iter().map(|sample| sample.felt.lost as f64).collect();
        let mut add = |what: &str, value: Option<f64>, promise| {
            figures.add_measured(&format!("{name}_{what}"), value, promise);
        };
        add("samples", Some(samples.len() as f64), Promise::AtLeast(1.0));
        add("gap_ms_p50", percentile(&gaps, 0.5), Promise::Reported);
        add("gap_ms_p99", percentile(&gaps, 0.99), Promise::Reported);
        add("excess_ms_p50", percentile(&excesses, 0.5), Promise::Reported);
        add("excess_ms_p99", percentile(&excesses, 0.99), Promise::AtMost(EXCESS_MS_MAX));
        let settled: Vec<f64> = samples.iter().map(|sample| sample.settled_excess_ms).collect();
        add("settled_excess_ms_p99", percentile(&settled, 0.99), Promise::Reported);
        add("lost_p50", percentile(&lost, 0.5), Promise::Reported);
    }
}

fn report_streams(figures: &mut Figures, streams: &[StreamFelt]) {
    for felt in streams {
        let name = match felt.victim {
            None => "tcp_ok_undisturbed",
            Some((_, Blow::Kill)) => "tcp_ok_killed",
            Some((_, Blow::Freeze)) => "tcp_ok_frozen",
        };
        figures.add(name, felt.is_ok(), Promise::True);
    }
    let stall = streams.iter().map(|felt| felt.fetched.stall).max().unwrap_or_default();
    figures.add("stream_stall_ms_max", stall.as_secs_f64() * 1e3, Promise::Reported);
    let slowest = streams.iter().map(|felt| felt.fetched.mbps()).min_by(f64::total_cmp);
    figures.add_measured("stream_mbps_min", slowest, Promise::Reported);
}

fn report_headless(scene: &Scene<'_>, figures: &mut Figures, headless: &Headless) {
    let excess = headless.excess_ms_max;
    let whole = headless.fetched.is_whole();
    let name = scene.world.profile().relay_name(headless.victim);
    let text = format!(
        "without any scheduler, {name} killed: {} flows went on with an excess of {:.0} ms at most; \
         the file {}",
        scene.flows.specs().len(),
        excess.unwrap_or(f64::NAN),
        if whole { "came whole" } else { "did NOT come whole" },
    );
    scene.stage.say(text);
    figures.add_measured("headless_excess_ms_max", excess, Promise::AtMost(EXCESS_MS_MAX));
    figures.add("headless_streams_ok", whole, Promise::True);
}

fn report_loss(scene: &Scene<'_>, figures: &mut Figures, felt: &LossFelt) {
    let LossFelt { link, leave, back, returned } = *felt;
    let leave_s = leave.map(|leave| leave.as_secs_f64());
    let link = scene.world.path_text(&[link.0, link.1]);
    let left = leave_s.map_or("never".to_owned(), |s| format!("after {s:.2} s"));
    let back_s = back.as_secs_f64();
    let came = if returned { "came back after" } else { "had not come back after" };
    scene
        .stage
        .say(format!("15 % loss on {link}: the flow left it {left}, and {came} {back_s:.1} s"));
    figures.add_measured("loss_leave_s", leave_s, Promise::AtMost(3.0));
    let stayed = if returned { Promise::AtLeast(20.0) } else { Promise::Reported };
    figures.add_measured("loss_return_s", leave_s.map(|_| back_s), stayed);
    figures.add("loss_returned", returned, Promise::Reported);
}

/// What holds of the whole run.
fn report_whole(
    scene: &Scene<'_>,
    figures: &mut Figures,
    quiet: &Quiet,
    strikes: &[Strike],
    headless: &Headless,
) {
    let flows = 0..scene.flows.specs().len();
    let duplicates: u64 = flows.map(|flow| scene.flows.duplicates(flow)).sum();
    figures.add("duplicates", duplicates as f64, Promise::Zero);
    figures.add("false_downs_per_hour", quiet.downs_per_hour(), Promise::AtMost(0.0));
    figures.add("undisturbed_s", quiet.total().as_secs_f64(), Promise::Reported);
    let stalls = strikes.iter().map(|strike| strike.own_stall).chain([headless.own_stall]);
    let worst = stalls.max().unwrap_or_default();
    figures.add("own_stall_ms_max", worst.as_secs_f64() * 1e3, Promise::Reported);
}
