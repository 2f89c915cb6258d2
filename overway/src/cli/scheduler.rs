//! `overway scheduler`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use overway_scheduler::Config;

use super::failure::Failure;
use super::runtime;

#[derive(Debug, Args)]
pub(crate) struct SchedulerArgs {
    /// The configuration file; `overway pki init` writes one.
    #[arg(long, value_name = "FILE", default_value = "scheduler.toml")]
    config: PathBuf,
}

/// Runs the scheduler until a signal.
pub(crate) fn run(args: &SchedulerArgs) -> Result<ExitCode, Failure> {
    let config = Config::load(&args.config).map_err(Failure::configuration)?;
    runtime::serve(|shutdown| overway_scheduler::run(config, shutdown))
}
