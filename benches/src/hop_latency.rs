//! `bench hop-latency`: by how much a transit relay delays a frame, beside quinn alone.
//!
//! A thousand voice frames a second, one by one, from a generator to a sink in one process, so that one
//! clock times both. In turn they go over a connection between the two, over a bare relay
//! of quinn, and over a relay ([`crate::forward`] says what these are). What a relay *adds* to a frame is the frame's delay less the
//! median delay of the round's frames without any relay between.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::percentile;
use overway::lab::stage::Stage;
use overway_wire::Class;

use crate::common::Common;
use crate::forward::cores::Cores;
use crate::forward::mesh::Mesh;
use crate::forward::peer::Shape;
use crate::forward::stand::{Kind, Load, Stand};
use crate::forward::traffic::Pace;
use crate::forward::{begin, on_this_thread};

/// A voice frame of 20 ms.
const PAYLOAD_BYTES: usize = 160;
const WARM_UP: Duration = Duration::from_millis(200);
const KINDS: [Kind; 3] = [Kind::Direct, Kind::Quinn, Kind::Relay];

/// Arguments of `bench hop-latency`.
#[derive(Debug, Args)]
pub(crate) struct HopLatencyArgs {
    /// Rounds, in each of which every way is taken once. Default: 5, or 1 with --quick.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Frames a second.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Seconds for each way in a round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
}

/// Microseconds by kind: without a relay the delay, with one what it adds.
#[derive(Debug, Default)]
struct Seen {
    direct: Vec<f64>,
    quinn: Vec<f64>,
    relay: Vec<f64>,
}

/// Measures.
pub(crate) fn run(
    args: &HopLatencyArgs,
    common: &Common,
    stage: &Stage,
) -> anyhow::Result<Figures> {
    let cores = begin(stage)?;
    let rounds = args.rounds.unwrap_or(if common.quick { 1 } else { 5 });
    let seen = on_this_thread(rounds_of(args, rounds, cores, stage))?;
    let mut figures = Figures::default();
    let mut add = |name: &str, values: &[f64], share| {
        figures.add_measured(name, percentile(values, share), Promise::Reported);
    };
    add("added_us_p50", &seen.relay, 0.5);
    add("added_us_p99", &seen.relay, 0.99);
    add("quinn_added_us_p50", &seen.quinn, 0.5);
    add("quinn_added_us_p99", &seen.quinn, 0.99);
    add("direct_us_p50", &seen.direct, 0.5);
    add("direct_us_p99", &seen.direct, 0.99);
    figures.add("frames", seen.relay.len() as f64, Promise::Reported);
    Ok(figures)
}

async fn rounds_of(
    args: &HopLatencyArgs,
    rounds: u16,
    cores: Cores,
    stage: &Stage,
) -> anyhow::Result<Seen> {
    let mesh = Mesh::new()?;
    let mut stands = Vec::new();
    for kind in KINDS {
        let stand = Stand::start(kind, true, &mesh, cores.subject).await;
        stands.push((kind, stand.with_context(|| format!("starting {}", kind.name()))?));
    }
    let shape = Shape { payload: PAYLOAD_BYTES, class: Class::Realtime, flows: 1 };
    let pace = Pace::PerSecond { frames: args.rate, burst: 1 };
    let load = Load { shape, pace, warm_up: WARM_UP, span: Duration::from_secs(args.seconds) };
    let mut seen = Seen::default();
    for round in 1..=rounds {
        let mut without = None;
        for (kind, stand) in &mut stands {
            if stage.stop().is_set() {
                anyhow::bail!("stopped");
            }
            stage.status(format!("round {round} of {rounds}: {}", kind.name()));
            let delays = stand.delays(load).await?;
            let delays: Vec<f64> = delays.iter().map(|delay| delay.as_secs_f64() * 1e6).collect();
            let median = percentile(&delays, 0.5).context("no frame arrived")?;
            let base = *without.get_or_insert(median);
            let added = delays.iter().map(|delay| delay - base);
            match kind {
                Kind::Direct => seen.direct.extend(delays),
                Kind::Quinn => seen.quinn.extend(added),
                Kind::Relay => seen.relay.extend(added),
                Kind::Udp | Kind::Observed => {}
            }
        }
    }
    Ok(seen)
}
