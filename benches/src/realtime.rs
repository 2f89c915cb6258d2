//! `realtime`: the share of a voice flow's frames that come in time over three lines that lose 1 %, each way.
//!
//! ```text
//!            == relay ==== relay ==             30 ms of round trip each, the first path
//!   entry ==                        == exit
//!            == relay ==== relay ==             2 ms farther on each line: what `always` sends over too
//! ```
//!
//! One flow of 50 frames of 160 bytes a second; *on time* is what comes within 1.5 times the first path's delay and 20 ms. *Bulk* are
//! two streams of that class, one each way, which fill the lines of the first path: these have a rate, so that the line
//! is what is scarce and not the machine. The mode of redundancy is a key of the flow's forward; modes
//! that this build's configuration does not know are left out, and what it does without a word is taken for `adaptive`.
//!
//! Without bulk all modes run at once, each in meshes of its own, so that the machine does the same to all; more meshes of each make more
//! frames in the same time, without a flow becoming denser. With bulk one mesh runs after the other, for a machine of two cores has no
//! more to give: where it is starved, every mode is late alike (*own lateness*). *Overhead* is what all relays sent on all lines for each frame of the flow, less
//! the frame's payload on the lines of its path, without bulk: heartbeats and datagrams' headers are most of it. *Redundant*
//! is what relays sent more than once of their own accord, for each frame of the flow.

mod path;

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::percentile;
use overway::lab::stage::{Ink, Stage};

use crate::chain::files::understands;
use crate::common::{Common, machine};
use path::{Heard, Setting, Trial};

/// The promise for `adaptive` on lines that carry nothing else.
const ON_TIME: f64 = 0.9999;
/// The same on lines that bulk fills.
const ON_TIME_BULK: f64 = 0.9995;
/// Before frames count.
const SETTLE: Duration = Duration::from_secs(4);

/// Arguments of `realtime`.
#[derive(Debug, Args)]
pub(crate) struct RealtimeArgs {
    /// Seconds that frames are counted, without bulk and for each mode with it. Default: 100, or 10 with --quick.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    span_s: Option<u64>,
    /// Meshes of each mode at once, without bulk.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    meshes: u16,
    /// Only this mode: off, adaptive or always.
    #[arg(long, value_name = "MODE")]
    only: Option<String>,
    /// Share of datagrams lost on each line each way.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    loss: f64,
    /// Rate of each line in Mbit/s.
    #[arg(long, value_name = "MBPS", default_value_t = 20.0)]
    rate_mbps: f64,
    /// Seed of losses and clocks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print what the first mesh's relays counted.
    #[arg(long)]
    counters: bool,
}

/// How much of a flow goes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing.
    Off,
    /// Where a link on the way has a problem.
    Adaptive,
    /// All.
    Always,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Off, Self::Adaptive, Self::Always];

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Adaptive => "adaptive",
            Self::Always => "always",
        }
    }

    /// The end of a figure's name: `adaptive` is what flows have unless told otherwise.
    fn suffix(self) -> &'static str {
        match self {
            Self::Off => "_off",
            Self::Adaptive => "",
            Self::Always => "_always",
        }
    }

    /// The keys of the flow's forward; `None` if this build does not know the mode.
    fn keys(self) -> Option<String> {
        let key = format!("redundancy = \"{}\"\n", self.name());
        match self {
            _ if understands(&key) => Some(key),
            Self::Adaptive => Some(String::new()),
            Self::Off | Self::Always => None,
        }
    }
}

/// Measures.
pub(crate) fn run(args: &RealtimeArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let span = Duration::from_secs(args.span_s.unwrap_or(if common.quick { 10 } else { 100 }));
    let mut modes = Vec::new();
    for mode in Mode::ALL {
        if args.only.as_deref().is_some_and(|only| only != mode.name()) {
            continue;
        }
        match mode.keys() {
            Some(keys) => modes.push((mode, keys)),
            None => {
                let text =
                    format!("{} is left out: forwards have no key for redundancy", mode.name());
                stage.say(stage.ink(Ink::Yellow, text));
            }
        }
    }
    if modes.is_empty() {
        bail!("no mode to measure: expected off, adaptive or always, as far as they are known");
    }
    stage.say(machine());
    let mut figures = Figures::default();
    for (bulk, at_a_time) in [(false, modes.len()), (true, 1)] {
        for modes in modes.chunks(at_a_time) {
            let heard = at_once(args, modes, bulk, span, stage)?;
            for ((mode, _), heard) in modes.iter().zip(&heard) {
                say(*mode, bulk, heard, stage);
                add(*mode, bulk, heard, &mut figures);
            }
        }
    }
    stage.say(machine());
    Ok(figures)
}

/// Starts all meshes, lets them run together, and gathers what each mode's flows felt.
fn at_once(
    args: &RealtimeArgs,
    modes: &[(Mode, String)],
    bulk: bool,
    span: Duration,
    stage: &Stage,
) -> anyhow::Result<Vec<Heard>> {
    let mut trials: Vec<Vec<Trial>> = Vec::new();
    let meshes = if bulk { 1 } else { args.meshes };
    for (mode, keys) in modes {
        stage.status(format!("starting meshes of {}", mode.name()));
        let start = |mesh: u16| {
            let setting = Setting {
                loss: args.loss,
                rate_mbps: args.rate_mbps,
                keys: keys.clone(),
                bulk,
                seed: args.seed.wrapping_mul(1_000) + *mode as u64 * 100 + u64::from(mesh),
            };
            Trial::start(&setting, stage)
        };
        trials.push((0..meshes).map(start).collect::<anyhow::Result<_>>()?);
    }
    stage.status(if bulk { "frames and bulk" } else { "frames alone" });
    stage.pause(SETTLE)?;
    trials.iter_mut().flatten().for_each(Trial::begin);
    stage.pause(span)?;
    trials.iter_mut().flatten().for_each(Trial::end);
    stage.pause(Duration::from_secs(1))?;
    if args.counters {
        for line in
            trials.first().and_then(|trials| trials.first()).map(Trial::counted).iter().flatten()
        {
            stage.say(line);
        }
    }
    Ok(trials.iter().map(|trials| trials.iter().map(Trial::heard).sum()).collect())
}

fn say(mode: Mode, bulk: bool, heard: &Heard, stage: &Stage) {
    let at = |share| percentile(&heard.delays_ms, share).unwrap_or(f64::NAN);
    let mut text = format!(
        "{:8}{} {} frames: {:.5} on time, {} lost, delay {:.1} / {:.1} / {:.1} ms (p50 / p99.9 / most), own lateness {:.0} ms",
        mode.name(),
        if bulk { " bulk" } else { "     " },
        heard.sent,
        heard.on_time_share(),
        heard.lost(),
        at(0.5),
        at(0.999),
        at(1.0),
        heard.own_stall.as_secs_f64() * 1e3,
    );
    if bulk {
        let rates: Vec<String> = heard.bulk_mbps.iter().map(|mbps| format!("{mbps:.1}")).collect();
        write!(text, ", bulk {} Mbit/s", rates.join(" ")).expect("a string takes everything");
    }
    stage.say(text);
}

fn add(mode: Mode, bulk: bool, heard: &Heard, figures: &mut Figures) {
    let with = if bulk { "_bulk" } else { "" };
    let promise = match (mode, bulk) {
        (Mode::Adaptive, false) => Promise::AtLeast(ON_TIME),
        (Mode::Adaptive, true) => Promise::AtLeast(ON_TIME_BULK),
        (Mode::Off | Mode::Always, _) => Promise::Reported,
    };
    let suffix = mode.suffix();
    figures.add(&format!("on_time_share{suffix}{with}"), heard.on_time_share(), promise);
    if bulk {
        let mbps = percentile(&heard.bulk_mbps, 0.5);
        figures.add_measured(&format!("bulk_mbps{suffix}"), mbps, Promise::Reported);
    } else {
        let bytes = heard.overhead_bytes();
        figures.add(&format!("overhead_bytes{suffix}"), bytes, Promise::Reported);
    }
    let redundant = heard.redundant_bytes();
    figures.add(&format!("redundant_bytes{suffix}{with}"), redundant, Promise::Reported);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_names_that_are_promised() {
        let mut figures = Figures::default();
        let heard = Heard { sent: 2, on_time: 2, ..Heard::default() };
        for mode in Mode::ALL {
            add(mode, false, &heard, &mut figures);
            add(mode, true, &heard, &mut figures);
        }

        let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
        for name in [
            "on_time_share_off",
            "on_time_share",
            "on_time_share_always",
            "on_time_share_off_bulk",
            "on_time_share_bulk",
            "on_time_share_always_bulk",
            "overhead_bytes_off",
            "overhead_bytes",
            "overhead_bytes_always",
            "redundant_bytes_off",
            "redundant_bytes_bulk",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(figures.are_kept());
    }

    #[test]
    fn what_flows_have_by_themselves_is_always_measured() {
        assert!(Mode::Adaptive.keys().is_some());
    }
}
