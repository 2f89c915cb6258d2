//! `failover`: how long flows are silent when the transit relay under them freezes or dies.
//!
//! A lab's mesh, production timers. Voice flows run between pairs of relays whose best paths share a
//! transit relay ([`wires`]). After an undisturbed time, in which no link may go down, that relay is
//! frozen or killed, in turn, the flows are watched, the relay is restored; and again, with whichever relay
//! then carries the most flows, as soon as they are calm ([`steady`]). Each flow under each blow is one sample
//! ([`rows`]). Left out, and counted, are only flows whose path had changed within the second before the blow:
//! a link's ends take a moment to agree on the heartbeats of a link in use. Then the same on lines that the flows fill by half ([`loaded`]).
//!
//! Figures hold what the machine did to them: the load average and the measuring process's own lateness
//! stand beside every sample, and nothing is subtracted for them.

mod changes;
mod course;
mod figures;
mod loaded;
mod rows;
mod steady;
mod wires;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use overway::lab::drills::{Blow, Quiet, Scene};
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::{FlowSpec, Flows};
use overway::lab::profile::Profile;
use overway::lab::stage::{Ink, Stage};
use overway::lab::world::{Wire, World, WorldOptions};
use overway_config::Document;

use crate::common::{self, Common};
use course::Course;
use rows::Row;

/// Freezes, and kills.
const EACH: usize = 20;
/// Voice flows on each pair.
const FLOWS_EACH: usize = 8;
/// Flows that a blow must at least hit, so that twenty blows make two hundred samples.
const FLOWS_MIN: usize = 10;
/// Flows of the loaded part.
const LOADED_FLOWS: usize = 10;
/// When the last blow may begin: twenty minutes must do for all, the loaded part needs two of them.
const BLOWS_UNTIL: Duration = Duration::from_secs(1_020);
/// When the last blow under load may begin.
const LOADED_UNTIL: Duration = Duration::from_secs(1_150);

/// Arguments of `failover`.
#[derive(Debug, Args)]
pub(crate) struct FailoverArgs {
    /// A lab profile instead of the default one; `overway lab profile` prints that.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Seed of clocks, losses and jitter.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Freezes, and kills, instead of 20 each; 0 leaves this part out.
    #[arg(long, value_name = "COUNT")]
    episodes: Option<u16>,
    /// Freezes under load, instead of 5; 0 leaves this part out.
    #[arg(long, value_name = "COUNT")]
    loaded: Option<u16>,
    /// Write every sample to this file, as CSV.
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Extent {
    undisturbed: Duration,
    /// Freezes, and kills.
    each: usize,
    /// Freezes under load.
    loaded: usize,
}

/// What a benchmark has seen so far.
#[derive(Debug, Default)]
struct Seen {
    rows: Vec<Row>,
    quiet: Quiet,
    /// Time in which links that do not touch a victim were watched, and their downs.
    bystanders: (Duration, u64),
    /// Flows left out because their path had just changed when the blow fell.
    unsettled: usize,
    duplicates: u64,
    own_stall: Duration,
}

/// Measures, prints where the time went, and returns the figures.
pub(crate) fn run(args: &FailoverArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let started = Instant::now();
    let extent = extent(args, common.quick);
    let (name, text) = loaded::text(args.profile.as_deref())?;
    let profile = Profile::parse(&Document::new(&name, &text))?;
    let pairs = wires::choose(&profile);
    if pairs.is_empty() {
        bail!("{name}: no path has a transit relay");
    }
    stage.say(format!("profile {}, {}", profile.name(), common::machine()));
    let mut seen = Seen::default();
    // What was measured until something went wrong is worth its table.
    let outcome = idle(args, extent, &profile, &pairs, started, &mut seen, stage).and_then(|()| {
        let thin = loaded::thin(&name, &text)?;
        under_load(args, extent, thin, &pairs, started, &mut seen, stage)
    });
    if let Err(error) = &outcome {
        stage.say(stage.ink(Ink::Red, format!("ended early: {error:#}")));
    }
    stage.clear();
    for line in rows::phases_text(&seen.rows, &profile) {
        stage.say(line);
    }
    stage.say(format!("after {:.0} s: {}", started.elapsed().as_secs_f64(), common::machine()));
    if let Some(path) = &args.samples {
        rows::write(path, &seen.rows, &profile)?;
    }
    let enough = extent.each >= EACH;
    let mut figures = figures::figures(&seen, &profile, enough);
    figures.add("completed", outcome.is_ok(), Promise::True);
    Ok(figures)
}

fn extent(args: &FailoverArgs, quick: bool) -> Extent {
    let whole = match quick {
        true => Extent { undisturbed: Duration::from_secs(8), each: 1, loaded: 1 },
        false => Extent { undisturbed: Duration::from_secs(90), each: EACH, loaded: 5 },
    };
    Extent {
        each: args.episodes.map_or(whole.each, usize::from),
        loaded: args.loaded.map_or(whole.loaded, usize::from),
        ..whole
    }
}

/// Voice flows on the world as it is.
fn idle(
    args: &FailoverArgs,
    extent: Extent,
    profile: &Profile,
    pairs: &[(usize, usize)],
    started: Instant,
    seen: &mut Seen,
    stage: &Stage,
) -> anyhow::Result<()> {
    if extent.each == 0 {
        return Ok(());
    }
    let world = start(args.seed, profile.clone(), pairs, stage)?;
    let each = |wire: &Wire| vec![world.voice(wire); FLOWS_EACH];
    let flows = Flows::start(world.sink(), world.wires().iter().flat_map(each).collect())?;
    let flows_min = FLOWS_MIN.min(flows.specs().len());
    let scene = Scene { world: &world, stage, flows: &flows };
    let mut course = Course::new(scene, flows_min, false)?;
    course.undisturbed(extent.undisturbed, &mut seen.quiet)?;
    let blows: Vec<Blow> = [Blow::Freeze, Blow::Kill].repeat(extent.each);
    let outcome = course.run(&blows, started + BLOWS_UNTIL, seen);
    seen.bystanders = course.bystanders()?;
    outcome
}

/// Heavy flows over one link, which they fill by half.
fn under_load(
    args: &FailoverArgs,
    extent: Extent,
    thin: Profile,
    pairs: &[(usize, usize)],
    started: Instant,
    seen: &mut Seen,
    stage: &Stage,
) -> anyhow::Result<()> {
    if extent.loaded == 0 {
        return Ok(());
    }
    stage.say(stage.ink(Ink::Bold, "the same with the link in use half full"));
    let world = start(args.seed, thin, &pairs[..1], stage)?;
    let spacing = loaded::spacing(LOADED_FLOWS);
    let heavy = |wire: &Wire| FlowSpec { spacing, bytes: loaded::FRAME_BYTES, ..world.voice(wire) };
    let wire = wires::one_way(world.wires()).first().context("no wire")?;
    let flows = Flows::start(world.sink(), vec![heavy(wire); LOADED_FLOWS])?;
    let scene = Scene { world: &world, stage, flows: &flows };
    let mut course = Course::new(scene, LOADED_FLOWS, true)?;
    course.run(&vec![Blow::Freeze; extent.loaded], started + LOADED_UNTIL, seen)
}

fn start(
    seed: u64,
    profile: Profile,
    pairs: &[(usize, usize)],
    stage: &Stage,
) -> anyhow::Result<Arc<World>> {
    let spawner = common::spawner(changes::LOG_FILTER)?;
    let options = WorldOptions {
        spawner,
        profile,
        seed,
        dir: None,
        wires: pairs.to_vec(),
        edges: Vec::new(),
        workers: 1,
    };
    World::start(&options, stage)
}
