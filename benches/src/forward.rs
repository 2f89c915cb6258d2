//! `bench forward`: what forwarding a frame costs a transit relay, beside what the same costs quinn alone.
//!
//! ```text
//!           core of the load                      core of the measured process
//!   generator --frames over QUIC-->   relay, as `overway relay` runs it        --> sink
//!   generator --datagrams over QUIC-> bare relay: read_datagram, send_datagram --> sink
//!   generator --datagrams of UDP-->   UDP forwarder                            --> sink
//! ```
//!
//! Each is a process of its own on a core of its own; generator and sink share the other core and are neighbours of the
//! relay by the hop protocol ([`peer`]). The *cost* of a frame is the process's processor time by getrusage, user and system,
//! between two moments, over the frames that the sink counted between them. Its own timers, heartbeats,
//! acknowledgements and frames that were lost are thus in it. A frame's payload is what is said (1,200 or 160 bytes); our headers come on top.
//!
//! *Saturated* is a closed loop ([`traffic`]). At a rate, frames come one by one at 5,000 a second and in bursts at 20,000.
//! Without offload neither the measured process nor the load uses segmentation offload (GSO), as where a
//! network card or a kernel has none.
//!
//! What is compared runs in turn, again and again, at a rate four times in each round. A ratio is the median of the
//! rounds' ratios, so what the machine does to all of a round cancels.

mod bare;
mod child;
pub(crate) mod cores;
pub(crate) mod foreign;
pub(crate) mod mesh;
pub(crate) mod peer;
pub(crate) mod stand;
pub(crate) mod subject;
pub(crate) mod traffic;
mod udp;
mod wireguard;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::percentile;
use overway::lab::stage::{Ink, Stage};
use overway_wire::Class;
use tokio::task::LocalSet;

use crate::common::{Common, machine};
use cores::Cores;
use mesh::Mesh;
use peer::Shape;
use stand::{Kind, Load, Reading, Stand};
use traffic::Pace;

/// Flows that the frames belong to, in turn.
const FLOWS: u32 = 64;
/// Before each measurement, until windows and queues are as they stay.
const WARM_UP: Duration = Duration::from_millis(400);

/// What a sparse frame costs on a virtual machine swings by half within seconds, whatever forwards it.
const TURNS_SPARSE: u32 = 4;

/// Arguments of `bench forward`.
#[derive(Debug, Args)]
pub(crate) struct ForwardArgs {
    /// Rounds in which everything is measured once; figures are medians of them. Default: 7, or 1 with --quick.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Milliseconds of each measurement. Default: 2,000, or 1,000 with --quick.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..))]
    span_ms: Option<u64>,
    /// Only these loads, by the end of their figures' names: 1200, 160, 1200_20k, 1200_5k, 1200_nogso.
    #[arg(long, value_name = "LOAD,...", value_delimiter = ',', value_parser = CASES.map(|case| case.name))]
    only: Vec<String>,
    /// Only these processes, to look at one with a profiler: quinn, relay, udp. A ratio needs two.
    #[arg(long, value_name = "WHAT,...", value_delimiter = ',', value_parser = KINDS.map(Kind::name))]
    what: Vec<String>,
}

/// A load and what is promised of it.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    payload: usize,
    pace: Pace,
    offload: bool,
    /// Most that a relay's cost may be of the bare relay's.
    ratio_max: f64,
}

const CASES: [Case; 5] = [
    Case { name: "1200", payload: 1_200, pace: Pace::Saturated, offload: true, ratio_max: 1.15 },
    Case { name: "160", payload: 160, pace: Pace::Saturated, offload: true, ratio_max: 1.3 },
    Case {
        name: "1200_20k",
        payload: 1_200,
        pace: Pace::PerSecond { frames: 20_000, burst: 20 },
        offload: true,
        ratio_max: 1.2,
    },
    Case {
        name: "1200_5k",
        payload: 1_200,
        pace: Pace::PerSecond { frames: 5_000, burst: 1 },
        offload: true,
        ratio_max: 1.2,
    },
    Case {
        name: "1200_nogso",
        payload: 1_200,
        pace: Pace::Saturated,
        offload: false,
        ratio_max: 1.15,
    },
];

const KINDS: [Kind; 3] = [Kind::Quinn, Kind::Relay, Kind::Udp];

/// Readings by case and kind, one for each round.
type Readings = BTreeMap<(&'static str, Kind), Vec<Reading>>;

/// Measures.
pub(crate) fn run(args: &ForwardArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let rounds = args.rounds.unwrap_or(if common.quick { 1 } else { 7 });
    let span =
        Duration::from_millis(args.span_ms.unwrap_or(if common.quick { 1_000 } else { 2_000 }));
    let wanted =
        |list: &[String], name: &str| list.is_empty() || list.iter().any(|one| one == name);
    let cases: Vec<&Case> = CASES.iter().filter(|case| wanted(&args.only, case.name)).collect();
    let kinds: Vec<Kind> =
        KINDS.into_iter().filter(|kind| wanted(&args.what, kind.name())).collect();
    let cores = begin(stage)?;
    let readings = on_this_thread(rounds_of(&cases, &kinds, (rounds, span), cores, stage))?;
    Ok(figures(&cases, &readings, stage))
}

/// Says what runs where, and stays on the load's core from now on.
pub(crate) fn begin(stage: &Stage) -> anyhow::Result<Cores> {
    let cores = Cores::choose()?;
    stage.say(format!(
        "{}; measured process on core {}, load on core {}",
        machine(),
        cores.subject,
        cores.load
    ));
    if cores.are_shared() {
        stage.say(stage.ink(Ink::Yellow, "one core for both: the load disturbs what is measured"));
    }
    cores::pin(cores.load)?;
    Ok(cores)
}

/// Runs a future and the tasks that it starts on this thread alone.
pub(crate) fn on_this_thread<T>(
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

/// Everything that takes part, by what it is and whether it uses segmentation offload.
type Stands = BTreeMap<(Kind, bool), Stand>;

/// Starts what the cases need. What does not start is left out, and said.
async fn stands(
    cases: &[&Case],
    kinds: &[Kind],
    mesh: &Mesh,
    cores: Cores,
    stage: &Stage,
) -> Stands {
    let mut stands = Stands::new();
    for offload in [true, false] {
        let needed = cases.iter().any(|case| case.offload == offload);
        for &kind in kinds.iter().filter(|_| needed) {
            match Stand::start(kind, offload, mesh, cores.subject).await {
                Ok(stand) => drop(stands.insert((kind, offload), stand)),
                Err(error) => {
                    let text = format!("left out: {}, offload {offload}: {error:#}", kind.name());
                    stage.say(stage.ink(Ink::Yellow, text));
                }
            }
        }
    }
    stands
}

async fn rounds_of(
    cases: &[&Case],
    kinds: &[Kind],
    (rounds, span): (u16, Duration),
    cores: Cores,
    stage: &Stage,
) -> anyhow::Result<Readings> {
    let mesh = Mesh::new()?;
    let mut stands = stands(cases, kinds, &mesh, cores, stage).await;
    let mut readings = Readings::new();
    for round in 1..=rounds {
        for case in cases {
            let turns = case.turns();
            let mut parts = BTreeMap::<Kind, Vec<Reading>>::new();
            for _ in 0..turns {
                for &kind in kinds.iter().filter(|&&kind| case.is_for(kind)) {
                    let Some(stand) = stands.get_mut(&(kind, case.offload)) else { continue };
                    if stage.stop().is_set() {
                        anyhow::bail!("stopped");
                    }
                    let name = kind.name();
                    stage.status(format!("round {round} of {rounds}: {name}, {}", case.name));
                    let shape = Shape { payload: case.payload, class: Class::Bulk, flows: FLOWS };
                    let span = span / turns;
                    let load = Load { shape, pace: case.pace, warm_up: WARM_UP, span };
                    let reading = stand.measure(load).await;
                    let reading = reading.with_context(|| format!("{name}, {}", case.name))?;
                    parts.entry(kind).or_default().push(reading);
                }
            }
            for (kind, parts) in parts {
                readings.entry((case.name, kind)).or_default().extend(Reading::mean(&parts));
            }
        }
    }
    Ok(readings)
}

impl Case {
    /// How often those that are compared take turns within a round.
    fn turns(&self) -> u32 {
        match self.pace {
            Pace::Saturated => 1,
            Pace::PerSecond { .. } => TURNS_SPARSE,
        }
    }

    /// Plain UDP shows what the kernel takes for a packet: once with and once without offload.
    fn is_for(&self, kind: Kind) -> bool {
        kind != Kind::Udp || (self.pace == Pace::Saturated && self.payload == 1_200)
    }
}

fn figures(cases: &[&Case], readings: &Readings, stage: &Stage) -> Figures {
    stage.clear();
    let head = format!(
        "{:12} {:>8} {:>22} {:>12} {:>7} {:>8}",
        "load", "what", "us a frame (min-max)", "frames/s", "busy", "lost"
    );
    stage.say(stage.ink(Ink::Bold, head));
    for case in cases {
        for kind in KINDS {
            let Some(rounds) = readings.get(&(case.name, kind)) else { continue };
            stage.say(row(case, kind, rounds));
        }
    }
    let mut figures = Figures::default();
    for case in cases {
        let of = |kind| readings.get(&(case.name, kind)).map_or(&[][..], Vec::as_slice);
        let (relay, quinn, udp) = (of(Kind::Relay), of(Kind::Quinn), of(Kind::Udp));
        let ratios: Vec<f64> = relay
            .iter()
            .zip(quinn)
            .map(|(relay, quinn)| relay.us_per_frame / quinn.us_per_frame)
            .collect();
        let mut add = |prefix: &str, value, promise| {
            figures.add_measured(&format!("{prefix}_{}", case.name), value, promise);
        };
        add("ratio", percentile(&ratios, 0.5), Promise::AtMost(case.ratio_max));
        add("ratio_min", percentile(&ratios, 0.0), Promise::Reported);
        add("ratio_max", percentile(&ratios, 1.0), Promise::Reported);
        let cost = |reading: &Reading| reading.us_per_frame;
        add("us", median(relay, cost), Promise::Reported);
        add("us_quinn", median(quinn, cost), Promise::Reported);
        if !udp.is_empty() {
            add("us_raw_udp", median(udp, cost), Promise::Reported);
        }
        let rate = |reading: &Reading| reading.frames_per_s;
        add("frames_per_s", median(relay, rate), Promise::Reported);
        add("quinn_frames_per_s", median(quinn, rate), Promise::Reported);
        add("lost_share", median(relay, |reading| reading.lost), Promise::Reported);
        add("quinn_lost_share", median(quinn, |reading| reading.lost), Promise::Reported);
    }
    figures
}

fn row(case: &Case, kind: Kind, rounds: &[Reading]) -> String {
    let name = kind.name();
    let costs: Vec<f64> = rounds.iter().map(|reading| reading.us_per_frame).collect();
    let at = |share| percentile(&costs, share).unwrap_or(f64::NAN);
    let of = |value: fn(&Reading) -> f64| median(rounds, value).unwrap_or(f64::NAN);
    format!(
        "{:12} {name:>8} {:>8.2} ({:.2}-{:.2}) {:>12.0} {:>6.0}% {:>7.2}%",
        case.name,
        at(0.5),
        at(0.0),
        at(1.0),
        of(|reading| reading.frames_per_s),
        of(|reading| reading.busy) * 100.0,
        of(|reading| reading.lost) * 100.0,
    )
}

/// The median of something over rounds.
pub(crate) fn median(rounds: &[Reading], value: impl Fn(&Reading) -> f64) -> Option<f64> {
    percentile(&rounds.iter().map(value).collect::<Vec<_>>(), 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_names_that_are_promised() {
        let reading =
            |us_per_frame| Reading { us_per_frame, frames_per_s: 1.0, busy: 1.0, lost: 0.0 };
        let mut readings = Readings::new();
        readings.insert(("1200", Kind::Relay), vec![reading(3.0), reading(4.0)]);
        readings.insert(("1200", Kind::Quinn), vec![reading(3.0), reading(2.0)]);
        readings.insert(("1200", Kind::Udp), vec![reading(1.0)]);
        let cases: Vec<&Case> = CASES.iter().collect();

        let figures = figures(&cases, &readings, &Stage::silent());

        let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
        for name in [
            "ratio_1200",
            "ratio_160",
            "ratio_1200_20k",
            "ratio_1200_5k",
            "ratio_1200_nogso",
            "us_1200",
            "us_160",
            "us_raw_udp_1200",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(!figures.are_kept());
    }
}
