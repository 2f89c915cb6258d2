//! `overway pki init`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::{output, starter};

#[derive(Debug, Args)]
pub(crate) struct PkiArgs {
    #[command(subcommand)]
    command: PkiCommand,
}

#[derive(Debug, Subcommand)]
enum PkiCommand {
    /// Make a mesh: its CA, the scheduler's certificate, and a scheduler.toml to start from. Overwrites
    /// nothing. Whoever has the CA's key (ca.key) owns the mesh: keep a copy where nobody finds it.
    Init(InitArgs),
}

#[derive(Debug, Args)]
struct InitArgs {
    /// Where to put the keys and certificates.
    #[arg(long, value_name = "DIR", default_value = "scheduler")]
    dir: PathBuf,
    /// The mesh's name: a-z, 0-9 and hyphen.
    #[arg(long, value_name = "NAME", default_value = "overway")]
    mesh: String,
    /// Where relays will reach the scheduler, one address for each of its lines; the port is UDP.
    #[arg(long, value_name = "IP:PORT", num_args = 1.., default_value = "127.0.0.1:4400")]
    advertise: Vec<SocketAddr>,
    /// The configuration file to write, if there is none.
    #[arg(long, value_name = "FILE", default_value = "scheduler.toml")]
    config: PathBuf,
}

/// Makes the mesh.
pub(crate) fn run(args: PkiArgs) -> Result<ExitCode, Failure> {
    match args.command {
        PkiCommand::Init(args) => init(&args),
    }
}

fn init(args: &InitArgs) -> Result<ExitCode, Failure> {
    overway_scheduler::init(&args.dir, &args.mesh).map_err(Failure::failed)?;
    let state_dir = starter::state_dir(&args.dir, &args.config)?;
    let wrote = starter::write(&args.config, &starter::scheduler(&state_dir, &args.advertise))?;
    let (dir, config) = (args.dir.display(), args.config.display());
    let verb = if wrote { "wrote" } else { "kept as it is:" };
    output::print(&format!(
        "made mesh {} in {dir}; {verb} {config}\nnext:\n  overway scheduler --config {config}\n  \
         overway node add NAME\n",
        args.mesh
    ))?;
    Ok(ExitCode::SUCCESS)
}
