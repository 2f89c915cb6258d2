//! `overway relay` and `overway relay join`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use overway_pki::JoinToken;
use overway_relay::Config;
use overway_scheduler::join;

use super::failure::Failure;
use super::{logging, output, runtime, starter};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RelayArgs {
    /// The configuration file; `overway relay join` writes one.
    #[arg(long, value_name = "FILE", default_value = "relay.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<RelayCommand>,
}

#[derive(Debug, Subcommand)]
enum RelayCommand {
    /// Redeem a token of `overway node add`: makes a key, gets its certificate, and writes a
    /// configuration to start from.
    Join(JoinArgs),
}

#[derive(Debug, Args)]
struct JoinArgs {
    /// The token, whole.
    token: JoinToken,
    /// Where to keep the key and certificates. Default: a directory of the relay's name.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The configuration file to write, if there is none.
    #[arg(long, value_name = "FILE", default_value = "relay.toml")]
    config: PathBuf,
}

/// Runs the relay until a signal, or joins.
pub(crate) fn run(args: RelayArgs) -> Result<ExitCode, Failure> {
    match args.command {
        None => serve(&args.config),
        Some(RelayCommand::Join(args)) => redeem(&args),
    }
}

fn serve(config: &Path) -> Result<ExitCode, Failure> {
    let path = config.to_owned();
    let config = Config::load(&path).map_err(Failure::configuration)?;
    logging::configure(config.log.as_deref())?;
    let admin = config.admin;
    let read = move || Config::load(&path);
    runtime::serve(Some(Box::new(move || Some(admin))), read, |reloading, shutdown| {
        overway_relay::run(config, reloading, shutdown)
    })
}

fn redeem(args: &JoinArgs) -> Result<ExitCode, Failure> {
    let directory = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.token.name));
    let joined =
        runtime::block_on(join::redeem(&args.token, &directory))?.map_err(Failure::failed)?;
    let text = starter::relay(&joined, &starter::state_dir(&directory, &args.config)?);
    let wrote = starter::write(&args.config, &text)?;
    let (config, directory) = (args.config.display(), directory.display());
    let next = if wrote {
        format!("wrote {config}: set its addresses, region and provider, then\n")
    } else {
        format!("kept {config} as it is: its state_dir is to be {directory}; then\n")
    };
    output::print(&format!(
        "{} joined mesh {} as {}; its key and certificate are in {directory}\n{next}  overway \
         relay --config {config}\n",
        joined.name, joined.mesh, joined.relay,
    ))?;
    Ok(ExitCode::SUCCESS)
}
