//! `overway status`.

mod problems;
mod render;

use std::process::ExitCode;

use clap::Args;
use overway_scheduler::api::StatusBody;

use super::admin::{AdminArgs, Client};
use super::failure::Failure;
use super::output;

/// The mesh carries traffic, but not all of it is well.
const DEGRADED: u8 = 3;

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print everything as JSON, as `GET /v1/status` has it.
    #[arg(long)]
    json: bool,
    /// Show routes too, as `overway routes` does: for each ordered pair and class the path in use.
    #[arg(long)]
    routes: bool,
    /// Show only what comes from this relay; its routes with their backups.
    #[arg(long, value_name = "RELAY")]
    from: Option<String>,
    /// Show only what goes to this relay; its routes with their backups.
    #[arg(long, value_name = "RELAY")]
    to: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks the scheduler and prints.
pub(crate) fn run(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let routes = args.routes || args.json || args.from.is_some() || args.to.is_some();
    let mut query = vec![("routes", if routes { "true" } else { "false" })];
    query.extend(args.from.as_deref().map(|from| ("from", from)));
    query.extend(args.to.as_deref().map(|to| ("to", to)));
    let mut status: StatusBody = Client::new(&args.admin)?.get_with("/v1/status", &query)?;
    for name in args.from.iter().chain(&args.to) {
        if !status.relays.iter().any(|relay| relay.name == *name) {
            return Err(Failure::Configuration(format!("no relay of this mesh is named {name:?}")));
        }
    }
    // Of the whole mesh: what is looked at does not change how it is.
    let problems = problems::of(&status);
    keep_links(&mut status, args);
    if args.json {
        output::print_json(&status)?;
    } else {
        let backups = args.from.is_some() || args.to.is_some();
        output::print(&render::text(&status, &problems, routes.then_some(backups)))?;
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) })
}

fn keep_links(status: &mut StatusBody, args: &StatusArgs) {
    status.links.retain(|link| {
        args.from.as_ref().is_none_or(|from| *from == link.from_name)
            && args.to.as_ref().is_none_or(|to| *to == link.to_name)
    });
}
