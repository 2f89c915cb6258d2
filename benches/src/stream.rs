//! `stream`: how fast one stream is over three relays and four lines of 30 ms, with and without loss.
//!
//! ```text
//!   server -TCP-> gateway, relay ==== relay ==== relay ==== relay ==== relay, gateway -TCP-> client
//!                                30 ms      30 ms      30 ms      30 ms  round trip each; loss on each, each way
//! ```
//!
//! Each measurement has a mesh of its own, of real processes ([`crate::chain`]). A TCP client behind one gateway pulls from a
//! server behind the other; *goodput* is what the client has read between the end of the warm-up and the end. Beside it in the
//! same run, on the same emulated lines, run plain QUIC nested in QUIC and one QUIC connection from end to end
//! ([`plain`]). They run in turn, in rounds; figures are medians over the rounds, and the spread is printed.
//!
//! Then the middle relay is frozen under a stream at a steady rate, and under a voice flow beside it; another relay stands beside it,
//! two milliseconds farther each way. The stream's longest silence is to be no more than the voice flow's, which is what failover
//! took, and two round trips of the path, in which the ends' QUIC makes good what was on its way.
//!
//! All processes share the machine: their use of it stands beside every measurement.

pub(crate) mod plain;
mod stall;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::percentile;
use overway::lab::stage::{Ink, Stage};

use crate::chain::Chain;
use crate::chain::meter::{self, Moment, Use};
use crate::chain::plan::{Forward, Plan, Protocol, Quality};
use crate::chain::pour::Pourer;
use crate::common::{Common, machine};
use plain::{Kind, Plain};

/// Lines between the ends: three relays stand between two others.
const LINES: usize = 4;
/// The relay in the middle.
const MIDDLE: usize = 2;
/// One way; the round trip of a line is twice that.
const DELAY: Duration = Duration::from_millis(15);
/// What the relays are told of each line, in Mbit/s: a virtual machine's usual uplink. Nothing enforces it.
const CAPACITY_MBPS: f64 = 1_000.0;
/// Steps in which the goodput's course is told.
const COURSE_STEP: Duration = Duration::from_millis(500);
/// Shares of datagrams lost on each line each way, and how figures name them.
const LOSSES: [(&str, f64); 4] = [("0", 0.0), ("0_1", 0.001), ("1", 0.01), ("3", 0.03)];
/// The promise: so much of nested QUIC's goodput without loss.
const OF_NESTED: f64 = 0.9;
/// The promise: so much of the own goodput at 1 % loss.
const OF_CLEAN: f64 = 0.85;
/// The promise: as much as that at 1 % loss.
const MBPS_LOSS_1: f64 = 600.0;

/// Arguments of `stream`.
#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// Rounds in which everything is measured once. Default: 3, or 1 with --quick.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Seconds of each measurement, a third of which is warm-up. Default: 12, or 4 with --quick.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    span_s: Option<u64>,
    /// Times that the middle relay is frozen. Default: 10, or 1 with --quick; 0 leaves this part out.
    #[arg(long, value_name = "COUNT")]
    freezes: Option<u16>,
    /// Only measurements whose name contains this: loss_0, loss_0_1, loss_1, loss_3, nested_0, nested_1, direct_0, direct_1.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Round trip of each line in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 30.0)]
    round_trip_ms: f64,
    /// Seed of losses and clocks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the goodput of each half second, and what the relays counted in each measurement.
    #[arg(long)]
    counters: bool,
}

/// What is measured at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A stream of ours.
    Ours,
    /// What it is compared with.
    Plain(Kind),
}

/// One measurement.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    what: What,
    loss: f64,
}

/// What came of it.
#[derive(Clone, Debug)]
struct Reading {
    mbps: f64,
    /// Processor time of the middle relay for each megabyte of goodput, in milliseconds.
    relay_ms_per_mb: Option<f64>,
    /// Whether every byte was right.
    whole: bool,
}

/// Readings by the case's name, one for each round.
type Readings = BTreeMap<String, Vec<Reading>>;

/// Measures.
pub(crate) fn run(args: &StreamArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let rounds = args.rounds.unwrap_or(if common.quick { 1 } else { 3 });
    let span = Duration::from_secs(args.span_s.unwrap_or(if common.quick { 4 } else { 12 }));
    let freezes = args.freezes.unwrap_or(if common.quick { 1 } else { 10 });
    stage.say(format!("{}; {LINES} lines of {} ms", machine(), args.round_trip_ms));
    let mut readings = Readings::new();
    for round in 1..=rounds {
        for case in cases(args.only.as_deref().unwrap_or("")) {
            stage.status(format!("round {round} of {rounds}: {}", case.name));
            let reading = measure(&case, span, u64::from(round), args, stage)?;
            readings.entry(case.name).or_default().push(reading);
        }
    }
    let stalls = match freezes {
        0 => None,
        _ => Some(stall::measure(quality(args, 0.0), freezes, args.seed, stage)?),
    };
    stage.clear();
    summary(&readings, stage);
    let mut figures = figures(&readings);
    if let Some(stalls) = stalls {
        stall::figures(&stalls, &mut figures, stage);
    }
    stage.say(stage.ink(Ink::Yellow, "TCP is left out: nothing here delays it (netem)"));
    stage.say(machine());
    Ok(figures)
}

fn cases(only: &str) -> Vec<Case> {
    let ours = LOSSES.map(|(name, loss)| (format!("loss_{name}"), What::Ours, loss));
    let plain = [Kind::Nested, Kind::Direct].into_iter().flat_map(|kind| {
        let kind_name = if kind == Kind::Nested { "nested" } else { "direct" };
        [LOSSES[0], LOSSES[2]]
            .map(|(name, loss)| (format!("{kind_name}_{name}"), What::Plain(kind), loss))
    });
    let all = ours.into_iter().chain(plain).map(|(name, what, loss)| Case { name, what, loss });
    // The comparison is next to what it is compared with.
    let mut all: Vec<Case> = all.filter(|case| case.name.contains(only)).collect();
    all.sort_by(|a, b| a.loss.total_cmp(&b.loss));
    all
}

fn quality(args: &StreamArgs, loss: f64) -> Quality {
    Quality {
        delay: DELAY.mul_f64(args.round_trip_ms / 30.0),
        loss,
        rate_mbps: None,
        queue: Duration::from_millis(200),
        capacity_mbps: CAPACITY_MBPS,
    }
}

fn measure(
    case: &Case,
    span: Duration,
    round: u64,
    args: &StreamArgs,
    stage: &Stage,
) -> anyhow::Result<Reading> {
    let seed = args.seed.wrapping_mul(1_000).wrapping_add(round);
    let line = quality(args, case.loss);
    let kind = match case.what {
        What::Ours => return ours(case, line, span, seed, args.counters, stage),
        What::Plain(kind) => kind,
    };
    let path = Plain::start(kind, LINES, line, seed, stage)?;
    let (mbps, used, course) = window(span, &[path.pid()], || path.bytes(), stage)?;
    stage.say(format!("{:10} {mbps:7.1} Mbit/s; CPU: {}", case.name, used.text()));
    if args.counters {
        stage.say(course);
    }
    Ok(Reading { mbps, relay_ms_per_mb: None, whole: true })
}

fn ours(
    case: &Case,
    line: Quality,
    span: Duration,
    seed: u64,
    counters: bool,
    stage: &Stage,
) -> anyhow::Result<Reading> {
    let pourer = Pourer::start(None)?;
    let mut plan = Plan::row(LINES, line, seed);
    plan.forwards.push(Forward {
        entry: 0,
        exit: LINES,
        protocol: Protocol::Tcp,
        target: pourer.address(),
        class: None,
        more: String::new(),
    });
    let chain = Chain::start(&plan)?;
    let pull = chain.pull(0, stage)?;
    let looked = [0, MIDDLE, LINES];
    let before = looked.map(|relay| chain.counters(relay).unwrap_or_default());
    let (mbps, used, course) = window(span, &chain.pids(), || pull.bytes(), stage)?;
    let trouble = pull.trouble();
    let note = trouble.map_or(String::new(), |trouble| format!("; {trouble}"));
    stage.say(format!("{:10} {mbps:7.1} Mbit/s; CPU of relays: {}{note}", case.name, used.text()));
    if counters {
        stage.say(course);
        for (relay, before) in looked.into_iter().zip(&before) {
            let grown = meter::growth(before, &chain.counters(relay).unwrap_or_default());
            stage.say(format!("  relay {relay}: {}", grown.join(", ")));
        }
    }
    let megabytes = mbps / 8.0 * used.span.as_secs_f64();
    let relay_ms = used.used.get(MIDDLE).map_or(0.0, |used| used.as_secs_f64() * 1e3);
    Ok(Reading { mbps, relay_ms_per_mb: Some(relay_ms / megabytes), whole: trouble.is_none() })
}

/// Lets a third of the span pass, and measures over the rest: the goodput, what was used, and the goodput's course.
fn window(
    span: Duration,
    pids: &[u32],
    bytes: impl Fn() -> u64,
    stage: &Stage,
) -> anyhow::Result<(f64, Use, String)> {
    let (begun, mut course, mut last) = (Instant::now(), String::from("  "), bytes());
    let mut wait = |until: Duration| -> anyhow::Result<()> {
        while begun.elapsed() < until {
            let looked = Instant::now();
            stage.pause(COURSE_STEP.min(until.saturating_sub(begun.elapsed())))?;
            let (now, took) = (bytes(), looked.elapsed());
            write!(course, " {:.0}", (now - last) as f64 * 8.0 / 1e6 / took.as_secs_f64())?;
            last = now;
        }
        Ok(())
    };
    wait(span / 3)?;
    let (start, before, earlier) = (Instant::now(), bytes(), Moment::now(pids));
    wait(span)?;
    let (took, came) = (start.elapsed(), bytes() - before);
    let used = earlier.until(&Moment::now(pids));
    Ok((came as f64 * 8.0 / 1e6 / took.as_secs_f64(), used, course))
}

fn summary(readings: &Readings, stage: &Stage) {
    let head = format!("{:10} {:>28} {:>18}", "case", "Mbit/s, median (least-most)", "relay ms/MB");
    stage.say(stage.ink(Ink::Bold, head));
    for (name, rounds) in readings {
        let mbps: Vec<f64> = rounds.iter().map(|reading| reading.mbps).collect();
        let at = |share| percentile(&mbps, share).unwrap_or(f64::NAN);
        let spread = format!("{:.1} ({:.1}-{:.1})", at(0.5), at(0.0), at(1.0));
        let cost = relay_ms_per_mb(rounds).map_or(String::new(), |cost| format!("{cost:.2}"));
        stage.say(format!("{name:10} {spread:>28} {cost:>18}"));
    }
}

fn median_mbps(readings: &Readings, name: &str) -> Option<f64> {
    let rounds = readings.get(name)?;
    percentile(&rounds.iter().map(|reading| reading.mbps).collect::<Vec<_>>(), 0.5)
}

fn relay_ms_per_mb(rounds: &[Reading]) -> Option<f64> {
    let costs: Vec<f64> = rounds.iter().filter_map(|reading| reading.relay_ms_per_mb).collect();
    percentile(&costs, 0.5)
}

/// The median over rounds of what one case is of another in the same round.
fn ratio(readings: &Readings, of: &str, to: &str) -> Option<f64> {
    let pairs = readings.get(of)?.iter().zip(readings.get(to)?);
    percentile(&pairs.map(|(of, to)| of.mbps / to.mbps).collect::<Vec<_>>(), 0.5)
}

/// Nothing is promised of what was left out of a run.
fn figures(readings: &Readings) -> Figures {
    let mut figures = Figures::default();
    let mut add = |name: &str, value: Option<f64>, promise| {
        figures.add_measured(name, value, value.map_or(Promise::Reported, |_| promise));
    };
    for (name, _) in LOSSES {
        let promise = match name {
            "1" => Promise::AtLeast(MBPS_LOSS_1),
            _ => Promise::Reported,
        };
        let mbps = median_mbps(readings, &format!("loss_{name}"));
        add(&format!("goodput_mbps_loss_{name}"), mbps, promise);
    }
    let plain = |name| median_mbps(readings, name);
    add("nested_cubic_mbps_loss_0", plain("nested_0"), Promise::Reported);
    add("nested_cubic_mbps_loss_1", plain("nested_1"), Promise::Reported);
    add("direct_quic_mbps_loss_0", plain("direct_0"), Promise::Reported);
    add("direct_quic_mbps_loss_1", plain("direct_1"), Promise::Reported);
    let of_nested = ratio(readings, "loss_0", "nested_0");
    add("share_of_nested_loss_0", of_nested, Promise::AtLeast(OF_NESTED));
    add("share_of_clean_loss_1", ratio(readings, "loss_1", "loss_0"), Promise::AtLeast(OF_CLEAN));
    let cost = |name: &str| readings.get(name).and_then(|rounds| relay_ms_per_mb(rounds));
    add("relay_ms_per_mb", cost("loss_0"), Promise::Reported);
    add("relay_ms_per_mb_loss_1", cost("loss_1"), Promise::Reported);
    let whole = readings.values().flatten().all(|reading| reading.whole);
    figures.add("streams_whole", whole, Promise::True);
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_names_that_are_promised() {
        let reading = |mbps| Reading { mbps, relay_ms_per_mb: Some(2.0), whole: true };
        let mut readings = Readings::new();
        for case in cases("") {
            readings.insert(case.name, vec![reading(700.0), reading(800.0), reading(650.0)]);
        }

        let figures = figures(&readings);

        let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
        for name in [
            "goodput_mbps_loss_0",
            "goodput_mbps_loss_0_1",
            "goodput_mbps_loss_1",
            "goodput_mbps_loss_3",
            "nested_cubic_mbps_loss_0",
            "direct_quic_mbps_loss_1",
            "share_of_clean_loss_1",
            "relay_ms_per_mb",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(figures.are_kept());
    }

    #[test]
    fn what_was_left_out_breaks_no_promise_and_what_was_too_slow_does() {
        let reading = Reading { mbps: 650.0, relay_ms_per_mb: None, whole: true };
        let readings = Readings::from([("loss_1".to_owned(), vec![reading.clone()])]);
        assert!(figures(&readings).are_kept());

        let slow = Reading { mbps: 550.0, ..reading };
        assert!(!figures(&Readings::from([("loss_1".to_owned(), vec![slow])])).are_kept());
    }

    #[test]
    fn what_is_compared_runs_next_to_one_another() {
        let names: Vec<String> = cases("").into_iter().map(|case| case.name).collect();

        assert_eq!(names[..3], ["loss_0", "nested_0", "direct_0"]);
        assert_eq!(cases("nested").len(), 2);
    }
}
