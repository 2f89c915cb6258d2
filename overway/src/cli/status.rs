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
    /// Show only what comes from this relay, by name or id; its routes with their backups.
    #[arg(long, value_name = "RELAY")]
    from: Option<String>,
    /// Show only what goes to this relay, by name or id; its routes with their backups.
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
    let ends = [&args.from, &args.to];
    let [from, to] = ends.map(|end| end.as_deref().map(|text| id_of(&status, text)));
    let (from, to) = (from.transpose()?, to.transpose()?);
    // Of the whole mesh: what is looked at does not change how it is.
    let problems = problems::of(&status);
    keep_links(&mut status, from, to);
    if args.json {
        output::print_json(&status)?;
    } else {
        let backups = args.from.is_some() || args.to.is_some();
        output::print(&render::text(&status, &problems, routes.then_some(backups)))?;
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) })
}

/// The relay of that name, or else of that id, as the scheduler reads it.
fn id_of(status: &StatusBody, text: &str) -> Result<u16, Failure> {
    let named = status.relays.iter().find(|relay| relay.name == text);
    let number = text.trim_start_matches('r').parse::<u16>();
    let numbered = || status.relays.iter().find(|relay| number == Ok(relay.id));
    let unknown = || Failure::Configuration(format!("no relay of this mesh is named {text:?}"));
    named.or_else(numbered).map(|relay| relay.id).ok_or_else(unknown)
}

fn keep_links(status: &mut StatusBody, from: Option<u16>, to: Option<u16>) {
    status.links.retain(|link| {
        from.is_none_or(|from| from == link.from) && to.is_none_or(|to| to == link.to)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_scheduler::api::{LinkBody, RelayBody};

    #[test]
    fn links_are_shown_of_a_relay_by_name_or_id() {
        let relay = |id, name: &str| RelayBody { id, name: name.into(), ..RelayBody::default() };
        let link = |from, to| LinkBody { from, to, ..LinkBody::default() };
        let mut status = StatusBody {
            relays: vec![relay(1, "rome"), relay(2, "oslo"), relay(3, "r1")],
            links: vec![link(1, 2), link(2, 1), link(3, 2)],
            ..StatusBody::default()
        };

        let id = |text: &str| id_of(&status, text).ok();
        assert_eq!([id("rome"), id("2"), id("r2"), id("r1")], [Some(1), Some(2), Some(2), Some(3)]);
        assert_eq!((id("bonn"), id("9")), (None, None));

        keep_links(&mut status, Some(1), None);
        assert_eq!(status.links, [link(1, 2)]);
    }
}
