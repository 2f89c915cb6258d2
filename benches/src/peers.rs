//! `bench peers`: what forwarding a datagram costs programs that are found everywhere, beside a relay.
//!
//! socat and nginx, where they are installed, forward plain UDP from the generator to the sink, each on
//! the core of its own that a relay and quinn alone have in turn ([`crate::forward`] says what these are, and what a load is). Theirs is the
//! lesser task: they neither encrypt nor authenticate nor know more than one way. wireguard-go, where it may make its
//! tunnels, decrypts and encrypts as a relay does; two more of it around the measured one share the load's core.
//!
//! The processor time of a program of others is what its threads have run by `/proc`. A program that is not installed is
//! left out, and has no figure.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::stage::{Ink, Stage};
use overway_wire::Class;

use crate::common::Common;
use crate::forward::cores::Cores;
use crate::forward::foreign::Program;
use crate::forward::mesh::Mesh;
use crate::forward::peer::Shape;
use crate::forward::stand::{Kind, Load, Reading, Stand};
use crate::forward::traffic::Pace;
use crate::forward::{begin, median, on_this_thread};

const WARM_UP: Duration = Duration::from_millis(400);
const SPAN: Duration = Duration::from_millis(1_500);
/// Programs of others start while this thread waits for them, and answers no heartbeat: a relay that was started before them
/// has its ends back after three, a second apart.
const SETTLE: Duration = Duration::from_secs(5);
const PROGRAMS: [Program; 2] = [Program::Socat, Program::Nginx];
/// Loads: name, payload bytes, pace.
const LOADS: [(&str, usize, Pace); 2] = [
    ("1200", 1_200, Pace::Saturated),
    ("1200_20k", 1_200, Pace::PerSecond { frames: 20_000, burst: 20 }),
];

/// Arguments of `bench peers`.
#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    /// Rounds, in each of which every program is measured once. Default: 5, or 1 with --quick.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
}

/// Readings by load and program, one for each round.
type Readings = BTreeMap<(&'static str, &'static str), Vec<Reading>>;

/// Measures.
pub(crate) fn run(args: &PeersArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let rounds = args.rounds.unwrap_or(if common.quick { 1 } else { 5 });
    let cores = begin(stage)?;
    let readings = on_this_thread(rounds_of(rounds, cores, stage))?;
    let mut figures = Figures::default();
    for ((load, name), rounds) in &readings {
        let mut add = |what: &str, value: fn(&Reading) -> f64| {
            let name = format!("{name}_{what}_{load}");
            figures.add_measured(&name, median(rounds, value), Promise::Reported);
        };
        add("us", |reading| reading.us_per_frame);
        add("frames_per_s", |reading| reading.frames_per_s);
        add("lost_share", |reading| reading.lost);
    }
    Ok(figures)
}

fn left_out(stage: &Stage, error: &anyhow::Error) {
    stage.say(stage.ink(Ink::Yellow, format!("left out: {error:#}")));
}

async fn rounds_of(rounds: u16, cores: Cores, stage: &Stage) -> anyhow::Result<Readings> {
    let mesh = Mesh::new()?;
    let mut stands = Vec::new();
    for kind in [Kind::Relay, Kind::Quinn] {
        let stand = Stand::start(kind, true, &mesh, cores.subject).await;
        stands.push((kind.name(), stand.with_context(|| format!("starting {}", kind.name()))?));
    }
    for program in PROGRAMS {
        match Stand::start_foreign(program, cores).await {
            Ok(stand) => stands.push((program.name(), stand)),
            Err(error) => left_out(stage, &error),
        }
    }
    match Stand::start_wireguard(cores).await {
        Ok(stand) => stands.push(("wireguard_go", stand)),
        Err(error) => left_out(stage, &error),
    }
    tokio::time::sleep(SETTLE).await;
    let mut readings = Readings::new();
    for round in 1..=rounds {
        for (load, payload, pace) in LOADS {
            for (name, stand) in &mut stands {
                if stage.stop().is_set() {
                    anyhow::bail!("stopped");
                }
                stage.status(format!("round {round} of {rounds}: {name}, {load}"));
                let shape = Shape { payload, class: Class::Bulk, flows: 64 };
                let reading = stand.measure(Load { shape, pace, warm_up: WARM_UP, span: SPAN });
                let reading = reading.await.with_context(|| format!("{name}, {load}"))?;
                readings.entry((load, name)).or_default().push(reading);
            }
        }
    }
    Ok(readings)
}
