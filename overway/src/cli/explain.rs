//! `overway explain`.

mod render;

use std::process::ExitCode;

use clap::Args;
use overway_scheduler::api::ExplainBody;

use super::admin::{AdminArgs, Client};
use super::failure::Failure;
use super::output;
use super::paths::TrafficArgs;

/// Say why traffic between two relays takes the path that it takes.
///
/// Shows the path in use and since when, every path that it competes with, what each costs by term and
/// why it lost, and what was measured of each link. Costs are in milliseconds: how much longer a path
/// might be and still be as good.
///
/// Examples:
///   overway explain frankfurt tokyo
///   overway explain frankfurt tokyo --class bulk
///   overway explain frankfurt tokyo --tenant voice-eu --json
///
/// Exit code 0: shown, 1: there is no path now, or no scheduler, 2: no such relay or policy.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ExplainArgs {
    /// The relay where the traffic begins, by name or id.
    from: String,
    /// The relay where it ends, by name or id.
    to: String,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Print everything as JSON, as `GET /v1/explain` has it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks the scheduler and prints.
pub(crate) fn run(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let mut query = vec![("from", args.from.as_str()), ("to", args.to.as_str())];
    query.extend(args.traffic.query());
    let body: ExplainBody = Client::new(&args.admin)?.get_with("/v1/explain", &query)?;
    if args.json {
        output::print_json(&body)?;
    } else {
        output::print(&render::text(&body))?;
    }
    Ok(ExitCode::SUCCESS)
}
