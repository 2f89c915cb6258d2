//! `fairness`: two sessions and one flow of cubic share a line: who gets how much, and how long does the line's queue become?
//!
//! ```text
//!   server -TCP- relay ==\                                  /-TCP- client
//!                          relay ====== [ line ] ====== relay
//!   server -TCP- relay ==/                 ||               \-TCP- client
//!                              cubic ======  ====== cubic
//! ```
//!
//! The line is a [`Bottleneck`]: datagrams go through it at a rate, behind one queue for everybody that drops its
//! tail. The two sessions come from two relays and share the link between the last two; a QUIC connection with cubic takes
//! the same line, with the sessions' delay. Delays are the relays' own fault injection.
//!
//! First the sessions are alone: what waits in the line then, and in the relay before it, is our own doing. Then the
//! cubic flow joins; it fills any queue that it finds, so its queue is told and nothing is promised of it. A flow's share is
//! what its client read over the fair third of what all read.

mod cubic;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::percentile;
use overway::lab::stage::Stage;

use crate::chain::Chain;
use crate::chain::bottleneck::{Bottleneck, Waits};
use crate::chain::meter::Moment;
use crate::chain::plan::{Forward, Line, Plan, Protocol, Quality};
use crate::chain::pour::{Pourer, Pull};
use crate::common::{Common, machine};
use cubic::Cubic;

/// The relays: two that the sessions come from, the one before the line, and the one behind it.
const SOURCES: [usize; 2] = [0, 1];
const BEFORE: usize = 2;
const BEHIND: usize = 3;
/// One way on every link.
const DELAY: Duration = Duration::from_millis(15);
/// The line's longest queue: a round trip of the path and something more.
const QUEUE: Duration = Duration::from_millis(80);

/// The degree to which sessions share fairly, with themselves and with cubic: no flow gets less of its fair share, by the
/// median of rounds.
const FAIR_SHARE_MIN: f64 = 0.5;
/// What sessions alone let wait in front of a full line: the hop's target of 5 ms, what one round of growth overshoots, and
/// what a busy machine's timers add.
const QUEUE_MS_MAX: f64 = 25.0;

/// Arguments of `fairness`.
#[derive(Debug, Args)]
pub(crate) struct FairnessArgs {
    /// Rounds; figures are medians of them. Default: 3, or 1 with --quick.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Seconds that are measured in each half of a round, after a third as much of warm-up. Default: 20, or 8 with --quick.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    span_s: Option<u64>,
    /// Rate of the line in Mbit/s.
    #[arg(long, value_name = "MBPS", default_value_t = 100.0)]
    rate_mbps: f64,
    /// What the relays are told that it carries, in Mbit/s, instead of its rate.
    #[arg(long, value_name = "MBPS")]
    capacity_mbps: Option<f64>,
    /// Seed of clocks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One half of a round.
#[derive(Clone, Debug)]
struct Half {
    /// Of each flow.
    mbps: Vec<f64>,
    waits: Waits,
}

/// Measures.
pub(crate) fn run(args: &FairnessArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let rounds = args.rounds.unwrap_or(if common.quick { 1 } else { 3 });
    let span = Duration::from_secs(args.span_s.unwrap_or(if common.quick { 8 } else { 20 }));
    stage.say(format!("{}; a line of {} Mbit/s", machine(), args.rate_mbps));
    let (mut alone, mut shared) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        stage.status(format!("round {round} of {rounds}"));
        let [first, second] = one_round(args, u64::from(round), span, stage)?;
        alone.push(first);
        shared.push(second);
    }
    stage.say(machine());
    Ok(figures(&alone, &shared, args.rate_mbps))
}

fn one_round(
    args: &FairnessArgs,
    round: u64,
    span: Duration,
    stage: &Stage,
) -> anyhow::Result<[Half; 2]> {
    let line = Arc::new(Bottleneck::start(args.rate_mbps, QUEUE)?);
    let pourer = Pourer::start(None)?;
    let chain = Chain::start(&plan(args, round, &line, &pourer))?;
    let pulls = SOURCES.map(|source| chain.pull(source, stage));
    let [first, second] = pulls;
    let pulls = [first?, second?];
    let bytes = || pulls.iter().map(Pull::bytes).collect::<Vec<u64>>();
    let alone = half(&line, &chain, span, bytes, stage)?;
    let cubic = Cubic::start(&line, 2 * DELAY)?;
    let bytes = || pulls.iter().map(Pull::bytes).chain([cubic.bytes()]).collect::<Vec<u64>>();
    let shared = half(&line, &chain, span, bytes, stage)?;
    anyhow::ensure!(pulls.iter().all(Pull::is_whole), "a stream broke");
    Ok([alone, shared])
}

fn half(
    line: &Bottleneck,
    chain: &Chain,
    span: Duration,
    bytes: impl Fn() -> Vec<u64>,
    stage: &Stage,
) -> anyhow::Result<Half> {
    stage.pause(span / 3)?;
    // What waited until now does not count.
    line.take_waits();
    let pids = chain.pids();
    let (started, before, used) = (Instant::now(), bytes(), Moment::now(&pids));
    stage.pause(span)?;
    let (seconds, after) = (started.elapsed().as_secs_f64(), bytes());
    let used = used.until(&Moment::now(&pids));
    let rate = |(after, before): (&u64, &u64)| (after - before) as f64 * 8.0 / 1e6 / seconds;
    let mbps: Vec<f64> = after.iter().zip(&before).map(rate).collect();
    let half = Half { mbps, waits: line.take_waits() };
    stage.say(format!(
        "{} Mbit/s; queue {:.1} / {:.1} / {:.1} ms (p50 / p99 / most), {} dropped; CPU of relays: {}",
        half.mbps.iter().map(|mbps| format!("{mbps:.1}")).collect::<Vec<_>>().join(" "),
        half.queue(0.5),
        half.queue(0.99),
        half.queue(1.0),
        half.waits.dropped,
        used.text(),
    ));
    Ok(half)
}

fn plan(args: &FairnessArgs, round: u64, line: &Arc<Bottleneck>, pourer: &Pourer) -> Plan {
    let open = Quality {
        delay: DELAY,
        loss: 0.0,
        rate_mbps: None,
        queue: QUEUE,
        capacity_mbps: 10.0 * args.rate_mbps,
    };
    let capacity_mbps = args.capacity_mbps.unwrap_or(args.rate_mbps);
    let narrow = Quality { capacity_mbps, ..open };
    let mut plan = Plan { seed: args.seed.wrapping_mul(1_000) + round, ..Plan::default() };
    plan.lines.extend(SOURCES.map(|a| Line { a, b: BEFORE, quality: open }));
    plan.lines.push(Line { a: BEFORE, b: BEHIND, quality: narrow });
    plan.bottleneck = Some((BEFORE, BEHIND, Arc::clone(line)));
    plan.forwards.extend(SOURCES.map(|exit| Forward {
        entry: BEHIND,
        exit,
        protocol: Protocol::Tcp,
        target: pourer.address(),
        class: Some("bulk"),
        more: String::new(),
    }));
    plan
}

impl Half {
    fn queue(&self, share: f64) -> f64 {
        percentile(&self.waits.ms, share).unwrap_or(f64::NAN)
    }

    /// The least of the flows, over the fair part of what all had.
    fn fair_share(&self) -> f64 {
        let fair = self.mbps.iter().sum::<f64>() / self.mbps.len() as f64;
        self.mbps.iter().copied().fold(f64::INFINITY, f64::min) / fair
    }

    /// What the cubic flow, the last, has of its fair part.
    fn cubic_share(&self) -> f64 {
        let fair = self.mbps.iter().sum::<f64>() / self.mbps.len() as f64;
        self.mbps.last().map_or(f64::NAN, |mbps| mbps / fair)
    }
}

fn figures(alone: &[Half], shared: &[Half], rate_mbps: f64) -> Figures {
    let median = |halves: &[Half], value: &dyn Fn(&Half) -> f64| {
        percentile(&halves.iter().map(value).collect::<Vec<_>>(), 0.5)
    };
    let mut figures = Figures::default();
    let mut add = |name: &str, value, promise| figures.add_measured(name, value, promise);
    let fair = median(shared, &Half::fair_share);
    add("fair_share_min", fair, Promise::AtLeast(FAIR_SHARE_MIN));
    add("fair_share_cubic", median(shared, &Half::cubic_share), Promise::Reported);
    add(
        "fair_share_min_sessions",
        median(alone, &Half::fair_share),
        Promise::AtLeast(FAIR_SHARE_MIN),
    );
    add("queue_ms_p99", median(alone, &|half| half.queue(0.99)), Promise::AtMost(QUEUE_MS_MAX));
    add("queue_ms_p50", median(alone, &|half| half.queue(0.5)), Promise::Reported);
    add("queue_ms_p99_cubic", median(shared, &|half| half.queue(0.99)), Promise::Reported);
    let filled = |half: &Half| half.mbps.iter().sum::<f64>() / rate_mbps;
    add("filled_share_sessions", median(alone, &filled), Promise::Reported);
    add("filled_share_all", median(shared, &filled), Promise::Reported);
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_share_is_told_as_a_part_of_the_fair_one() {
        let half = |mbps: &[f64]| {
            let waits = Waits { ms: vec![1.0], dropped: 0 };
            Half { mbps: mbps.to_vec(), waits }
        };
        assert!((half(&[20.0, 30.0, 40.0]).fair_share() - 2.0 / 3.0).abs() < 1e-9);

        let figures = figures(&[half(&[40.0, 40.0])], &[half(&[20.0, 30.0, 40.0])], 100.0);

        let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
        assert!(names.contains(&"fair_share_min") && names.contains(&"queue_ms_p99"));
        assert!(figures.are_kept());
    }
}
