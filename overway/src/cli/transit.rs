//! `overway transit`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use overway_scheduler::api::{TransitBody, TransitRequest};

use super::admin::{AdminArgs, Client};
use super::drain::path_segment;
use super::failure::Failure;
use super::output;

/// Say whether a relay may carry traffic between others.
///
/// A relay says so itself in its configuration (`relay.transit`); this overrules it, and outlasts
/// restarts. A relay that may not is still an end for its own gateway.
///
/// Examples:
///   overway transit frankfurt forbid     no path between others goes over it
///   overway transit frankfurt auto       as its configuration says
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct TransitArgs {
    /// The relay, by name or id.
    relay: String,
    /// What it may do.
    wish: Wish,
    /// Print JSON, as `PUT /v1/transit/RELAY` has it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wish {
    /// It may, whatever it says itself.
    Allow,
    /// It may not, whatever it says itself.
    Forbid,
    /// As it says itself.
    Auto,
}

/// Talks to the scheduler.
pub(crate) fn run(args: &TransitArgs) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.admin)?;
    let path = format!("/v1/transit/{}", path_segment(&args.relay)?);
    let relay = args.relay.clone();
    let (body, what) = match args.wish {
        Wish::Allow => {
            let body: TransitBody = client.put(&path, &TransitRequest { allow: true })?;
            (body, "may carry traffic between others")
        }
        Wish::Forbid => {
            let body: TransitBody = client.put(&path, &TransitRequest { allow: false })?;
            (body, "carries no traffic between others")
        }
        Wish::Auto => {
            client.delete(&path)?;
            (TransitBody { relay, allow: None }, "does what its configuration says")
        }
    };
    match args.json {
        true => output::print_json(&body)?,
        false => output::print(&format!("{} {what}\n", body.relay))?,
    }
    Ok(ExitCode::SUCCESS)
}
