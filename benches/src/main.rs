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

/// As in the `overway` program.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod apps;
mod attach;
mod chain;
mod common;
mod entry;
mod exact;
mod failover;
mod fairness;
mod flows;
mod forward;
mod gain;
mod hop_latency;
mod input;
mod isolation;
mod observe;
mod peers;
mod placement;
mod quality;
mod realtime;
mod routes;
mod scale;
mod service;
mod stability;
mod stream;
mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use overway::lab::figures::Figures;
use overway::lab::stage::Stage;

use common::{Common, EMBEDDED};
use forward::subject::SUBJECT;
use isolation::flood::FLOOD;
use quality::CENTRE;
use stream::plain::PLAIN;

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
    /// Attaches thousands of edges to one relay: how many a second, and what does one cost in memory?
    Attach(attach::AttachArgs),
    /// Freezes and kills the transit relay under flows of 50 frames a second: how long are they silent?
    Failover(failover::FailoverArgs),
    /// Freezes and kills the access relays of edges under flows and files: what do their applications feel?
    EntryFailover(entry::EntryArgs),
    /// Ten to a million flows through a transit relay: does its memory grow?
    Flows(flows::FlowsArgs),
    /// Two sessions and a cubic flow on one line: how is it shared, and how long is its queue?
    Fairness(fairness::FairnessArgs),
    /// Loads a transit relay, quinn alone and a UDP forwarder in turn: what does a frame cost each?
    Forward(forward::ForwardArgs),
    /// Plans a mesh with measured round trips: how much do the paths gain, and are they the cheapest?
    Gain(gain::GainArgs),
    /// Frames one by one over a transit relay, and over quinn alone: how much later do they arrive?
    HopLatency(hop_latency::HopLatencyArgs),
    /// A transit relay whose metrics are read and that logs, beside one that is left alone: what do both cost?
    Observe(observe::ObserveArgs),
    /// A tenant floods the relays that another uses: how many of the other's frames come in time?
    Isolation(isolation::IsolationArgs),
    /// socat and nginx, where installed, beside a relay: what does a datagram cost each?
    Peers(peers::PeersArgs),
    /// Places demand on paths with capacities: how near is that to the linear program's optimum?
    Placement(placement::PlacementArgs),
    /// A million users' reports, folded at a hundred relays: what does the centre pay, and what for ten times as many?
    Quality(quality::QualityArgs),
    /// A voice flow over lines that lose frames, alone and beside bulk: what share comes in time?
    Realtime(realtime::RealtimeArgs),
    /// Plans every route of a full mesh: how long does that take, and how long after one link changed?
    Routes(routes::RoutesArgs),
    /// The scheduler with thousands of relays: how long does an epoch take, and what does it push?
    Scale(scale::ScaleArgs),
    /// An MQTT broker and its clients behind edges, while relays freeze and die: is a message or a connection lost?
    Mqtt(apps::AppArgs),
    /// Kills and freezes the edge that offers a service: when does a consumer's next request succeed?
    ServiceFailover(service::ServiceArgs),
    /// An hour of noise on a steady mesh, then real steps: how calm are the paths, and what does it cost?
    Stability(stability::StabilityArgs),
    /// Streams over three relays with delay and loss, beside plain QUIC: how fast, and what does a frozen relay cost?
    Stream(stream::StreamArgs),
    /// A WebRTC call behind edges, while relays freeze and die: how long is it silent?
    Webrtc(apps::AppArgs),
    /// `overway trace` over lines with delay and loss: does it tell what they have?
    Trace(trace::TraceArgs),
}

impl Bench {
    fn measure(self, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
        match self {
            Self::Attach(args) => attach::run(&args, common, stage),
            Self::Failover(args) => failover::run(&args, common, stage),
            Self::EntryFailover(args) => entry::run(&args, common, stage),
            Self::Flows(args) => flows::run(&args, common, stage),
            Self::Fairness(args) => fairness::run(&args, common, stage),
            Self::Forward(args) => forward::run(&args, common, stage),
            Self::Gain(args) => gain::run(&args, common, stage),
            Self::HopLatency(args) => hop_latency::run(&args, common, stage),
            Self::Observe(args) => observe::run(&args, common, stage),
            Self::Isolation(args) => isolation::run(&args, common, stage),
            Self::Peers(args) => peers::run(&args, common, stage),
            Self::Placement(args) => placement::run(&args, common, stage),
            Self::Quality(args) => quality::run(&args, common, stage),
            Self::Realtime(args) => realtime::run(&args, common, stage),
            Self::Routes(args) => routes::run(&args, common, stage),
            Self::Scale(args) => scale::run(&args, common, stage),
            Self::ServiceFailover(args) => service::run(&args, common, stage),
            Self::Stability(args) => stability::run(&args, common, stage),
            Self::Stream(args) => stream::run(&args, common, stage),
            Self::Mqtt(args) => apps::run(apps::App::Mqtt, &args, common, stage),
            Self::Webrtc(args) => apps::run(apps::App::Webrtc, &args, common, stage),
            Self::Trace(args) => trace::run(&args, common, stage),
        }
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek().is_some_and(|first| first == EMBEDDED) {
        return overway::run(args);
    }
    if args.next_if(|first| first == SUBJECT).is_some() {
        return forward::subject::main(args);
    }
    if args.next_if(|first| first == FLOOD).is_some() {
        return isolation::flood::main(args);
    }
    if args.next_if(|first| first == PLAIN).is_some() {
        return stream::plain::main(args);
    }
    if args.next_if(|first| first == CENTRE).is_some() {
        return quality::centre_main(args);
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
