//! `overway scheduler`, and the backup of what it must not lose.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use overway_scheduler::backup::{self, Backup, BackupError};
use overway_scheduler::{ADMIN_ADDRESS_FILE, Config, StoreError};

use super::admin::Client;
use super::failure::Failure;
use super::{logging, output, runtime};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SchedulerArgs {
    /// The configuration file; `overway pki init` writes one.
    #[arg(long, value_name = "FILE", default_value = "scheduler.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<SchedulerCommand>,
}

#[derive(Debug, Subcommand)]
enum SchedulerCommand {
    /// Put all that a scheduler must not lose into one file, while it runs or not: the mesh's CA, its own key, members,
    /// policies, tenants. Whoever has the file owns the mesh; its owner alone may read it. To be run on the scheduler's
    /// machine, by its user.
    ///
    /// Example:
    ///   overway scheduler backup --out mesh.backup
    #[command(verbatim_doc_comment)]
    Backup {
        /// The scheduler's configuration file.
        #[arg(long, value_name = "FILE", default_value = "scheduler.toml")]
        config: PathBuf,
        /// The file to write, which must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make a state directory from a backup. Overwrites nothing. The scheduler that is started on it must be reached at
    /// the old address, or relays be told another.
    ///
    /// Example:
    ///   overway scheduler restore mesh.backup --dir scheduler
    #[command(verbatim_doc_comment)]
    Restore {
        /// The backup.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The state directory, as `state_dir` of the configuration names it.
        #[arg(long, value_name = "DIR", default_value = "scheduler")]
        dir: PathBuf,
    },
}

/// Runs the scheduler until a signal, or saves or restores what it keeps.
pub(crate) fn run(args: &SchedulerArgs) -> Result<ExitCode, Failure> {
    match &args.command {
        None => serve(&args.config),
        Some(SchedulerCommand::Backup { config, out }) => save(config, out),
        Some(SchedulerCommand::Restore { file, dir }) => restore(file, dir),
    }
}

fn serve(config: &Path) -> Result<ExitCode, Failure> {
    let path = config.to_owned();
    let config = Config::load(&path).map_err(Failure::configuration)?;
    logging::configure(config.log.as_deref())?;
    // The port may be drawn; the file is there once it is.
    let file = config.state_dir.join(ADMIN_ADDRESS_FILE);
    let admin = move || std::fs::read_to_string(&file).ok()?.trim().parse().ok();
    let read = move || Config::load(&path);
    runtime::serve(Some(Box::new(admin)), read, |reloading, shutdown| {
        overway_scheduler::run(config, reloading, shutdown)
    })
}

fn save(config: &Path, out: &Path) -> Result<ExitCode, Failure> {
    let config = Config::load(config).map_err(Failure::configuration)?;
    let store = match backup::stored(&config.state_dir) {
        Err(BackupError::Store(StoreError::InUse(_))) => running(&config)?,
        stored => stored.map_err(Failure::failed)?,
    };
    let backup = Backup::of(&config.state_dir, store).map_err(Failure::failed)?;
    backup.write(out).map_err(Failure::failed)?;
    output::print(&format!(
        "saved mesh {} in {}: keep it where nobody finds it, and not on this machine\n",
        backup.mesh,
        out.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The store of a scheduler that runs.
fn running(config: &Config) -> Result<Vec<u8>, Failure> {
    let address = admin_address(config)?;
    Client::at(&format!("http://{address}"), ("scheduler", "admin.addr"))?.bytes("/v1/state")
}

/// Where a scheduler that runs has its admin interface.
pub(super) fn admin_address(config: &Config) -> Result<String, Failure> {
    let path = config.state_dir.join(ADMIN_ADDRESS_FILE);
    let address = std::fs::read_to_string(&path).map_err(|error| {
        let path = path.display();
        Failure::Failed(format!("{path}: {error}: the scheduler starts or stops; try again"))
    })?;
    Ok(address.trim().to_owned())
}

fn restore(file: &Path, dir: &Path) -> Result<ExitCode, Failure> {
    let backup = Backup::read(file).map_err(Failure::failed)?;
    backup.restore(dir).map_err(Failure::failed)?;
    output::print(&format!(
        "restored mesh {} of {} in {}, as it was {} ago\nnext:\n  overway scheduler --config FILE\n",
        backup.mesh,
        backup.software,
        dir.display(),
        super::text::duration(backup.age())
    ))?;
    Ok(ExitCode::SUCCESS)
}
