//! The measured process: this executable with [`SUBJECT`] as its first argument.
//!
//! It stays on one core and runs a relay, or what a relay is compared with. A thread of its own answers on
//! standard output what is asked on standard input: `usage` with microseconds of processor time and
//! resident bytes. When its input closes the process ends, so none outlives the benchmark.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{bare, cores, udp};
use crate::common::EMBEDDED;

/// The first argument that makes this executable a measured process.
pub(crate) const SUBJECT: &str = "measured-process";
/// What the benchmark asks.
pub(super) const ASK_USAGE: &str = "usage";

/// Runs what is measured, on one core.
#[derive(Debug, Parser)]
struct Args {
    /// The core.
    #[arg(long)]
    core: usize,
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// A whole relay, as `overway relay` runs it.
    Relay {
        #[arg(long)]
        config: PathBuf,
        /// Log everything but what is of each packet, as JSON; else errors alone.
        #[arg(long)]
        observed: bool,
    },
    /// Two QUIC connections and nothing between them.
    Quinn(bare::BareArgs),
    /// A UDP socket that sends on what it gets.
    Udp {
        /// Where to.
        #[arg(long)]
        to: SocketAddr,
        /// One datagram a system call.
        #[arg(long)]
        single: bool,
    },
}

/// Runs the measured process; `args` are those after [`SUBJECT`].
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let Args { core, kind } = Args::parse_from(std::iter::once(SUBJECT.into()).chain(args));
    let run = || {
        cores::pin(core)?;
        std::thread::Builder::new().name("bench-usage".into()).spawn(answer)?;
        match kind {
            Kind::Relay { config, observed } => {
                let level = if observed { "debug" } else { "error" };
                let args = [EMBEDDED, "--log", level, "--log-format", "json", "relay"];
                let args = args.map(std::ffi::OsStr::new);
                let config = ["--config".as_ref(), config.as_os_str()];
                return Ok(overway::run(args.into_iter().chain(config).map(OsString::from)));
            }
            Kind::Quinn(args) => bare::run(&args)?,
            Kind::Udp { to, single: false } => udp::forward_batches(to)?,
            Kind::Udp { to, single: true } => udp::forward_each(to)?,
        }
        anyhow::Ok(ExitCode::SUCCESS)
    };
    run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Says something to the benchmark.
pub(super) fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Answers until the benchmark is gone; then the process has no reason to be.
fn answer() {
    for line in std::io::stdin().lock().lines() {
        let told = match line {
            Ok(asked) if asked == ASK_USAGE => usage(),
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if told.is_err() {
            break;
        }
    }
    std::process::exit(0);
}

fn usage() -> anyhow::Result<()> {
    let line = format!("{} {}", cores::used()?.as_micros(), cores::resident_bytes()?);
    Ok(say(&line)?)
}
