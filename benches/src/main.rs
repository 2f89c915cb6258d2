//! Benchmarks: what the project promises in numbers, measured on the machine at hand.
//!
//! ```text
//! cargo run --release -p overway-benches -- failover [--quick] [--json FILE]
//! ```
//!
//! Each benchmark is one module with its arguments and a `run`, which measures and returns [`Figures`];
//! what they share is in [`common`]. To add one: a file, a variant of [`Bench`], and an arm in
//! [`Bench::measure`].
//!
//! Benchmarks that need a mesh start this very executable as its relays and scheduler: with `overway` as
//! the first argument it is the `overway` program.
//!
//! Exit codes: 0 measured and every promise kept, 1 otherwise, 2 wrong usage.

mod common;
mod exact;
mod failover;
mod gain;
mod input;
mod placement;
mod routes;
mod scale;
mod stability;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use overway::lab::figures::Figures;
use overway::lab::stage::Stage;

use common::{Common, EMBEDDED};

/// Measures what the project promises in numbers.
#[derive(Debug, Parser)]
#[command(name = "overway-benches", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Freezes and kills the transit relay under flows of 50 frames a second: how long are they silent?
    Failover(failover::FailoverArgs),
    /// Plans a mesh with measured round trips: how much do the paths gain, and are they the cheapest?
    Gain(gain::GainArgs),
    /// Places demand on paths with capacities: how near is that to the linear program's optimum?
    Placement(placement::PlacementArgs),
    /// Plans every route of a full mesh: how long does that take, and how long after one link changed?
    Routes(routes::RoutesArgs),
    /// The scheduler with thousands of relays: how long does an epoch take, and what does it push?
    Scale(scale::ScaleArgs),
    /// An hour of noise on a steady mesh, then real steps: how calm are the paths, and what does it cost?
    Stability(stability::StabilityArgs),
}

impl Bench {
    fn measure(self, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
        match self {
            Self::Failover(args) => failover::run(&args, common, stage),
            Self::Gain(args) => gain::run(&args, common, stage),
            Self::Placement(args) => placement::run(&args, common, stage),
            Self::Routes(args) => routes::run(&args, common, stage),
            Self::Scale(args) => scale::run(&args, common, stage),
            Self::Stability(args) => stability::run(&args, common, stage),
        }
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek().is_some_and(|first| first == EMBEDDED) {
        return overway::run(args);
    }
    let Cli { common, bench } = Cli::parse();
    let outcome = common::stage().and_then(|stage| {
        let figures = bench.measure(&common, &stage)?;
        common.finish(&figures, &stage)
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn common_arguments_stand_before_or_after_the_benchmark() {
        for line in [
            "bench failover --quick --json f.json",
            "bench --quick --json f.json failover",
            "bench failover --profile p.toml --seed 3 --samples s.csv --episodes 5",
        ] {
            assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line));
        }
        assert!(parsed("bench failover --episodes -1").is_err());
    }
}
