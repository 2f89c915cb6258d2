//! `bench trace`: does `overway trace` tell the delays and the losses that lines have?
//!
//! ```text
//!   relay A == 10 ms, 1 % ==> relay == 20 ms, 2 % ==> relay == 15 ms, 0.5 % ==> relay B
//! ```
//!
//! The lines' delay and loss are applied by the receiving relay, the same each way; every relay is a process with a clock
//! of its own. The program itself is run, once for each class, and what it prints is compared: at each hop the median of
//! one-way delays with the sum of the delays so far, and the line's loss before recovery with what was injected.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::stage::Stage;
use serde_json::Value;

use crate::chain::Chain;
use crate::chain::plan::{Line, Plan, Quality};
use crate::common::{Common, EMBEDDED, machine};

/// One-way delay in milliseconds and share lost of each line.
const LINES: [(u64, f64); 3] = [(10, 0.01), (20, 0.02), (15, 0.005)];
/// What the lines are taken to carry.
const CAPACITY_MBPS: f64 = 1_000.0;
const CLASSES: [&str; 3] = ["realtime", "interactive", "bulk"];
/// The promises.
const DELAY_ERROR_MS: f64 = 2.0;
const LOSS_ERROR: f64 = 0.01;
const PROBES_MIN: f64 = 2_000.0;
/// Time for the mesh to come up and its clocks to be compared.
const START_MAX: Duration = Duration::from_secs(30);

/// Arguments of `bench trace`.
#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// Probes of each class. Default: 2500, or 200 with --quick.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    probes: Option<u64>,
    /// Milliseconds between two probes.
    #[arg(long, value_name = "MS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(10..))]
    interval_ms: u64,
    /// Seed of losses and clocks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Measures.
pub(crate) fn run(args: &TraceArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    stage.say(machine());
    let probes = args.probes.unwrap_or(if common.quick { 200 } else { 2_500 });
    let chain = Chain::start(&plan(args.seed))?;
    let end = Instant::now() + START_MAX;
    stage.status("waiting for the mesh");
    while trace(&chain, "interactive", 5, 100).is_err() {
        if Instant::now() > end {
            bail!("no probe comes back; logs end with:\n{}", chain.log_tails());
        }
        stage.pause(Duration::from_millis(500))?;
    }
    // Clocks are compared over a second of heartbeats.
    stage.pause(Duration::from_secs(2))?;
    let (mut delay, mut loss, mut least) = (0.0_f64, 0.0_f64, f64::INFINITY);
    for class in CLASSES {
        stage.status(format!("{probes} probes of class {class}"));
        let report = trace(&chain, class, probes, args.interval_ms)?;
        let seen = Seen::of(&report)?;
        stage.say(format!("{class:11} {}", seen.text()));
        delay = seen.delay_errors_ms().fold(delay, f64::max);
        loss = seen.loss_errors().fold(loss, f64::max);
        least = least.min(seen.probes);
    }
    let mut figures = Figures::default();
    figures.add("trace_delay_error_ms_max", delay, Promise::AtMost(DELAY_ERROR_MS));
    figures.add("trace_loss_error_max", loss, Promise::AtMost(LOSS_ERROR));
    let enough = if common.quick { Promise::Reported } else { Promise::AtLeast(PROBES_MIN) };
    figures.add("trace_probes_min", least, enough);
    Ok(figures)
}

fn plan(seed: u64) -> Plan {
    let line = |(a, (ms, loss)): (usize, (u64, f64))| {
        let quality = Quality {
            delay: Duration::from_millis(ms),
            loss,
            rate_mbps: None,
            queue: Duration::from_millis(100),
            capacity_mbps: CAPACITY_MBPS,
        };
        Line { a, b: a + 1, quality }
    };
    Plan { lines: LINES.into_iter().enumerate().map(line).collect(), seed, ..Plan::default() }
}

/// Runs the program, and returns what it prints.
fn trace(chain: &Chain, class: &str, probes: u64, interval_ms: u64) -> anyhow::Result<Value> {
    let last = (LINES.len() + 1).to_string();
    let output = Command::new(std::env::current_exe().context("where this executable is")?)
        .args([EMBEDDED, "trace", "1", &last, "--json", "--class", class])
        .args(["--count", &probes.to_string(), "--interval", &format!("{interval_ms}ms")])
        .args(["--relay", &format!("http://{}", chain.place(0).admin)])
        .stdin(Stdio::null())
        .output()
        .context("cannot run the program")?;
    if !output.status.success() {
        bail!("overway trace: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What the program says of the hops.
#[derive(Debug, PartialEq)]
struct Seen {
    probes: f64,
    delays_ms: Vec<f64>,
    losses: Vec<f64>,
}

impl Seen {
    /// Of the path that most probes took: while a machine stands still they may go around.
    fn of(report: &Value) -> anyhow::Result<Self> {
        let paths = report["paths"].as_array().context("no paths")?;
        let whole =
            |path: &&Value| path["hops"].as_array().is_some_and(|hops| hops.len() == LINES.len());
        let most = paths.iter().filter(whole).max_by_key(|path| path["probes"].as_u64());
        let path = most.context("no path over both transit relays")?;
        let hops = path["hops"].as_array().context("no hops")?;
        let number = |value: &Value, what: &str| {
            value.as_f64().with_context(|| format!("{what} is not known"))
        };
        let delay = |hop: &Value| number(&hop["one_way"]["median_ms"], "a one-way delay");
        let loss = |hop: &Value| number(&hop["line_loss"], "a loss");
        Ok(Self {
            probes: number(&path["probes"], "the number of probes")?,
            delays_ms: hops.iter().map(delay).collect::<anyhow::Result<_>>()?,
            losses: hops.iter().map(loss).collect::<anyhow::Result<_>>()?,
        })
    }

    fn delay_errors_ms(&self) -> impl Iterator<Item = f64> + '_ {
        let sums = LINES.iter().scan(0.0, |sum, &(ms, _)| {
            *sum += ms as f64;
            Some(*sum)
        });
        self.delays_ms.iter().zip(sums).map(|(seen, real)| (seen - real).abs())
    }

    fn loss_errors(&self) -> impl Iterator<Item = f64> + '_ {
        self.losses.iter().zip(LINES).map(|(seen, (_, real))| (seen - real).abs())
    }

    fn text(&self) -> String {
        let hop = |(ms, loss): (&f64, &f64)| format!("{ms:.1} ms {:.2} %", loss * 100.0);
        let hops: Vec<String> = self.delays_ms.iter().zip(&self.losses).map(hop).collect();
        format!("{} probes: {}", self.probes, hops.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_are_told_by_hop_of_the_path_that_most_took() {
        let hop = |ms: f64, loss: f64| json!({ "one_way": { "median_ms": ms }, "line_loss": loss });
        let hops = [hop(10.5, 0.01), hop(29.0, 0.03), hop(45.0, 0.0)];
        let report = json!({ "paths": [
            { "probes": 3, "hops": [hop(99.0, 0.5), hop(99.0, 0.5), hop(99.0, 0.5)] },
            { "probes": 2_000, "hops": hops },
            { "probes": 9_000, "hops": [hop(1.0, 0.0)] },
        ] });

        let seen = Seen::of(&report).unwrap();

        assert_eq!(seen.delay_errors_ms().collect::<Vec<_>>(), [0.5, 1.0, 0.0]);
        let losses: Vec<f64> = seen.loss_errors().collect();
        assert!(
            losses.iter().zip([0.0, 0.01, 0.005]).all(|(a, b)| (a - b).abs() < 1e-9),
            "{losses:?}"
        );
        assert!(Seen::of(&json!({ "paths": [] })).is_err());
    }
}
