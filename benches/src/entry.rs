//! `entry-failover`: what an application behind an edge feels when the relay by which it enters the mesh freezes or
//! dies, and what it feels when the far edge's does.
//!
//! A lab's mesh, production timers, two edges of one tenant, each attached to two relays out of four that it knows.
//! Voice flows and files go from a forward of one to the servers behind the other. The access relay that comes first in an
//! edge's whereabouts is frozen or killed, in turn, under them; the flows are watched, the relay is restored, and again as
//! soon as both edges are attached twice and the flows' way has held still under a file. The excess is that of `failover`,
//! the attachment being the link in front where the near relay is hit; on loopback it takes no time, so that nothing is
//! subtracted for it.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use overway::lab::drills::{self, Blow, Scene};
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::{Felt, FlowSpec, Flows, felt, percentile};
use overway::lab::profile::Profile;
use overway::lab::stage::{Ink, Stage};
use overway::lab::transfer::{Fetch, Fetched};
use overway::lab::world::{EdgePlan, Node, World, WorldOptions};
use overway_wire::Class;

use crate::common::{self, Common, spread};

/// Freezes, and kills, at each end.
const EACH: usize = 20;
/// Voice flows.
const FLOWS: usize = 8;
/// The promise: excess at p99.
const EXCESS_MS_MAX: f64 = 60.0;
/// Relays that the near edge knows, and the far one: by name, in the default profile.
const NEAR: [&str; 4] = ["frankfurt", "zurich", "ashburn", "chicago"];
const FAR: [&str; 4] = ["tokyo", "mumbai", "sydney", "pune"];
/// The edges, by number.
const CONSUMER: usize = 0;
const PROVIDER: usize = 1;
/// Rate of the file that comes through all the while, and how long it takes undisturbed.
const FILE_MBPS: f64 = 8.0;
const FILE_TIME: Duration = Duration::from_secs(7);
/// How long the file runs before the blow.
const BEFORE_BLOW: Duration = Duration::from_millis(2_500);
/// How long a blow is watched.
const WATCH: Duration = Duration::from_millis(2_500);
/// Arrivals from this long before the blow tell the path's delay before.
const BEFORE_NS: u64 = 2_000_000_000;
/// How long both edges may take to be attached twice again.
const READY_TIME_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// Files in a row under which the flows' way may change before a blow.
const UNSETTLED_MAX: usize = 10;

/// Arguments of `entry-failover`.
#[derive(Debug, Args)]
pub(crate) struct EntryArgs {
    /// Seed of clocks, losses and jitter.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Freezes, and kills, at each end instead of 20.
    #[arg(long, value_name = "COUNT")]
    episodes: Option<u16>,
}

/// Whose access relay is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Entry,
    Exit,
}

/// What one blow did.
struct Outcome {
    end: End,
    /// The way of the flows before it, for people.
    way: String,
    samples: Vec<(Felt, f64)>,
    fetched: Fetched,
}

/// Measures and returns the figures.
pub(crate) fn run(args: &EntryArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let each = args.episodes.map_or(if common.quick { 1 } else { EACH }, usize::from);
    let profile = Profile::world();
    stage.say(format!("profile {}, {}", profile.name(), common::machine()));
    let world = World::start(&options(args.seed, profile)?, stage)?;
    let place = world.edge(CONSUMER);
    let number = |name: &str| relay_named(&world, name);
    let voice = FlowSpec::voice(number(NEAR[0])?, number(FAR[0])?, place.udp);
    let flows = Flows::start(world.sink(), vec![voice; FLOWS])?;
    let scene = Scene { world: &world, stage, flows: &flows };
    let mut outcomes = Vec::new();
    let ended = blows(&scene, each, &mut outcomes);
    if let Err(error) = &ended {
        stage.say(stage.ink(Ink::Red, format!("ended early: {error:#}")));
    }
    stage.clear();
    stage.say(common::machine());
    let duplicates: u64 = (0..FLOWS).map(|flow| flows.duplicates(flow)).sum();
    let own_stall = flows.own_stall(0, u64::MAX);
    let mut figures = Figures::default();
    for end in [End::Entry, End::Exit] {
        add(&mut figures, end, &outcomes, each);
    }
    figures.add("entry_duplicates", duplicates as f64, Promise::AtMost(0.0));
    figures.add("own_stall_ms_max", own_stall.as_secs_f64() * 1e3, Promise::Reported);
    figures.add("completed", ended.is_ok(), Promise::True);
    Ok(figures)
}

fn options(seed: u64, profile: Profile) -> anyhow::Result<WorldOptions> {
    let numbers = |names: [&str; 4]| {
        let number = |name: &str| {
            let mut relays = 0..profile.relays().len();
            relays
                .find(|&relay| profile.relay_name(relay) == name)
                .context("a relay of the profile")
        };
        names.into_iter().map(number).collect::<anyhow::Result<Vec<_>>>()
    };
    let edge = |name: &str, access, offers: Option<u32>| EdgePlan {
        name: name.to_owned(),
        access,
        forwards: offers.is_none(),
        target: None,
        cell: None,
        offers,
    };
    let edges =
        vec![edge("consumer", numbers(NEAR)?, None), edge("provider", numbers(FAR)?, Some(1))];
    let spawner = common::spawner("info")?;
    Ok(WorldOptions { spawner, profile, seed, dir: None, wires: Vec::new(), edges, workers: 1 })
}

fn relay_named(world: &World, name: &str) -> anyhow::Result<usize> {
    match world.node(name)? {
        Node::Relay(relay) => Ok(relay),
        Node::Edge(_) | Node::Scheduler => bail!("{name} is no relay"),
    }
}

/// Freezes and kills at both ends in turn.
fn blows(scene: &Scene<'_>, each: usize, outcomes: &mut Vec<Outcome>) -> anyhow::Result<()> {
    for round in 0..each {
        for blow in [Blow::Freeze, Blow::Kill] {
            for end in [End::Entry, End::Exit] {
                let outcome = settled_strike(scene, end, blow)?;
                say(scene, round + 1, blow, &outcome, outcomes);
                outcomes.push(outcome);
            }
        }
    }
    Ok(())
}

/// Waits until both edges are attached twice and every flow comes through.
fn wait_ready(scene: &Scene<'_>) -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    for edge in [CONSUMER, PROVIDER] {
        while !scene.world.is_edge_whole(edge) {
            scene.world.check_alive(Node::Edge(edge))?;
            if started.elapsed() > READY_TIME_MAX {
                let node = Node::Edge(edge);
                let (name, tail) = (scene.world.name(node), scene.world.tail(node));
                bail!("{name} is not attached twice after {READY_TIME_MAX:?}\n{tail}");
            }
            scene.stage.status("waiting for the edges' attachments");
            scene.stage.pause(LOOK)?;
        }
    }
    scene.wait_flows()
}

/// One blow, as soon as the flows' way holds still: what they feel is measured by the way before it.
fn settled_strike(scene: &Scene<'_>, end: End, blow: Blow) -> anyhow::Result<Outcome> {
    for _ in 0..UNSETTLED_MAX {
        wait_ready(scene)?;
        if let Some(outcome) = strike(scene, end, blow)? {
            return Ok(outcome);
        }
        scene.stage.say("the flows' way has changed meanwhile; once more");
    }
    bail!("the flows' way changed each time before a blow, {UNSETTLED_MAX} times in a row")
}

/// By which relays the flows enter and leave the mesh, and the path between them.
fn way(world: &World) -> anyhow::Result<(usize, usize, Vec<usize>)> {
    let (near, far) = (world.access_relay(CONSUMER)?, world.access_relay(PROVIDER)?);
    Ok((near, far, world.path(near, far, Class::Realtime)?.unwrap_or_default()))
}

/// One blow: the file runs, the relay is hit, the flows are watched, the relay comes back. `None`, and no blow, if the
/// flows' way changed while the file ran.
fn strike(scene: &Scene<'_>, end: End, blow: Blow) -> anyhow::Result<Option<Outcome>> {
    let Scene { world, stage, flows } = *scene;
    let before = way(world)?;
    let bytes = FILE_MBPS * 1e6 / 8.0 * FILE_TIME.as_secs_f64();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some megabytes")]
    let bytes = bytes as u64;
    let fetch = Fetch::start(world.edge(CONSUMER).tcp, world.seed(), bytes, Some(FILE_MBPS))?;
    drills::wait(stage, BEFORE_BLOW, "a file runs")?;
    let (near, far, path) = way(world)?;
    if (near, far, &path) != (before.0, before.1, &before.2) {
        drills::finish(stage, fetch, 3 * FILE_TIME)?;
        return Ok(None);
    }
    let victim = match end {
        End::Entry => near,
        End::Exit => far,
    };
    let round_trip = match end {
        End::Entry => Duration::ZERO,
        End::Exit => {
            let front = path.len().checked_sub(2).and_then(|at| path.get(at)).copied();
            world.profile().round_trip(front.unwrap_or(near), far)
        }
    };
    let start = flows.now();
    blow.hit(scene, victim)?;
    let name = world.profile().relay_name(victim);
    let watched = drills::wait(stage, WATCH, &format!("{name} is {}", blow.text()));
    let over = flows.now();
    let fetched =
        watched.is_ok().then(|| drills::finish(stage, fetch, 3 * FILE_TIME)).transpose()?;
    scene.restore(victim)?;
    watched?;
    let felt =
        |flow| felt(&flows.arrivals(flow, start.saturating_sub(BEFORE_NS), over), start, over);
    let excess = |felt: Felt| (felt, felt.excess_ms(flows.specs()[0].spacing, round_trip));
    let samples = (0..FLOWS).filter_map(felt).map(excess).collect();
    let way = format!("{}, {:.0} ms", world.path_text(&path), round_trip.as_secs_f64() * 1e3);
    let fetched = fetched.context("the file was not waited for")?;
    Ok(Some(Outcome { end, way, samples, fetched }))
}

fn say(scene: &Scene<'_>, round: usize, blow: Blow, outcome: &Outcome, before: &[Outcome]) {
    let Outcome { end, way, samples, fetched } = outcome;
    let end = end.name();
    let worst = |value: fn(&(Felt, f64)) -> f64| {
        samples.iter().map(value).max_by(f64::total_cmp).unwrap_or(f64::NAN)
    };
    let (gap, excess) = (worst(|(felt, _)| felt.gap_ms()), worst(|(_, excess)| *excess));
    let (delay_before, delay_after) = (
        median_ms(samples, |felt| felt.delay_before),
        median_ms(samples, |felt| felt.delay_detour),
    );
    let stall = fetched.stall.as_secs_f64() * 1e3;
    let file = if fetched.is_whole() { "whole" } else { "NOT WHOLE" };
    let problem = fetched.problem.as_deref().map_or(String::new(), |text| format!(" ({text})"));
    let same = before.iter().filter(|other| other.end == outcome.end);
    let all: Vec<f64> =
        same.flat_map(|other| other.samples.iter().map(|(_, excess)| *excess)).collect();
    scene.stage.say(format!(
        "{round}: {end} relay {} ({way} round trip in front): gap {gap:.0} ms at most, delay {delay_before:.0} to \
         {delay_after:.0} ms (excess {excess:.0} ms; p50 / p99 before {}), file {file}{problem}, longest stall {stall:.0} ms",
        blow.text(),
        spread(&all),
    ));
}

fn median_ms(samples: &[(Felt, f64)], value: fn(&Felt) -> Duration) -> f64 {
    let all: Vec<f64> = samples.iter().map(|(felt, _)| value(felt).as_secs_f64() * 1e3).collect();
    percentile(&all, 0.5).unwrap_or(f64::NAN)
}

impl End {
    const fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Exit => "exit",
        }
    }
}

fn add(figures: &mut Figures, end: End, outcomes: &[Outcome], each: usize) {
    let ours: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.end == end).collect();
    let samples = || ours.iter().flat_map(|outcome| &outcome.samples);
    let gaps: Vec<f64> = samples().map(|(felt, _)| felt.gap_ms()).collect();
    let excess: Vec<f64> = samples().map(|(_, excess)| *excess).collect();
    let stalls: Vec<f64> =
        ours.iter().map(|outcome| outcome.fetched.stall.as_secs_f64() * 1e3).collect();
    let lost: u64 = samples().map(|(felt, _)| felt.lost).sum();
    let whole = !ours.is_empty() && ours.iter().all(|outcome| outcome.fetched.is_whole());
    let name = |what: &str| format!("{}_{what}", end.name());
    let blows = if each >= EACH { Promise::AtLeast(2.0 * EACH as f64) } else { Promise::Reported };
    figures.add(&name("blows"), ours.len() as f64, blows);
    figures.add(&name("samples"), gaps.len() as f64, Promise::Reported);
    figures.add(&name("stream_ok"), whole, Promise::True);
    figures.add_measured(&name("gap_ms_p99"), percentile(&gaps, 0.99), Promise::Reported);
    figures.add_measured(&name("excess_ms_p50"), percentile(&excess, 0.5), Promise::Reported);
    let bound = Promise::AtMost(EXCESS_MS_MAX);
    figures.add_measured(&name("excess_ms_p99"), percentile(&excess, 0.99), bound);
    figures.add(&name("lost"), lost as f64, Promise::Reported);
    figures.add_measured(&name("stall_ms_p99"), percentile(&stalls, 0.99), Promise::Reported);
}
