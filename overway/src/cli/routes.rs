//! `overway routes`.

use std::process::ExitCode;

use clap::Args;
use overway_scheduler::api::{CandidateBody, RouteBody, RoutesBody};

use super::admin::{AdminArgs, Client};
use super::failure::Failure;
use super::output;
use super::paths::{TrafficArgs, path};
use super::text::{Table, millis};

/// Show the paths in use, and their backups.
///
/// Examples:
///   overway routes                                  the path in use of each ordered pair and class
///   overway routes --from frankfurt --to tokyo      one pair, with its backups
///   overway routes --to tokyo --class bulk
///   overway routes --tenant voice                   under a policy
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct RoutesArgs {
    /// Only routes from this relay, with their backups; by name or id.
    #[arg(long, value_name = "RELAY")]
    from: Option<String>,
    /// Only routes to this relay, with their backups; by name or id.
    #[arg(long, value_name = "RELAY")]
    to: Option<String>,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Print everything as JSON, as `GET /v1/routes` has it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks the scheduler and prints.
pub(crate) fn run(args: &RoutesArgs) -> Result<ExitCode, Failure> {
    let mut query: Vec<(&str, &str)> = args.traffic.query().collect();
    query.extend(args.from.as_deref().map(|from| ("from", from)));
    query.extend(args.to.as_deref().map(|to| ("to", to)));
    let body: RoutesBody = Client::new(&args.admin)?.get_with("/v1/routes", &query)?;
    if args.json {
        output::print_json(&body)?;
    } else {
        let backups = args.from.is_some() || args.to.is_some();
        output::print(&text(&body.routes, body.truncated, backups))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The path in use of each route, with its backups or without.
pub(crate) fn text(routes: &[RouteBody], truncated: bool, backups: bool) -> String {
    if routes.is_empty() {
        return "no routes\n".to_owned();
    }
    let mut table = Table::new(&["ROUTE", "", "CLASS", "DELAY", "DIRECT", "PATH", "WHY"]);
    for route in routes {
        let shown = if backups { route.candidates.len() } else { 1 };
        for (at, candidate) in route.candidates.iter().take(shown).enumerate() {
            table.row(row(route, candidate, at == 0));
        }
    }
    let mut out = table.render();
    if truncated {
        out.push_str("and more: --from, --to and --class leave fewer\n");
    }
    out
}

fn row(route: &RouteBody, candidate: &CandidateBody, in_use: bool) -> [String; 7] {
    let direct = route.candidates.iter().find(|candidate| candidate.path.len() == 1);
    let (source, destination, class) = if in_use {
        (route.source_name.clone(), format!("> {}", route.destination_name), route.class.clone())
    } else {
        (String::new(), String::new(), "backup".to_owned())
    };
    let direct = match (in_use, direct) {
        (true, Some(direct)) => millis(direct.delay_us),
        (true, None) => "unknown".to_owned(),
        (false, _) => String::new(),
    };
    let (path, why) = (path(&candidate.path), candidate.reason.clone());
    [source, destination, class, millis(candidate.delay_us), direct, path, why]
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_scheduler::api::StepBody;

    fn route() -> RouteBody {
        let step = |name: &&str| StepBody { relay: 1, name: (*name).to_owned(), link: 0 };
        let candidate = |steps: &[&str], delay_us, reason: &str| CandidateBody {
            path: steps.iter().map(step).collect(),
            cost: 1,
            delay_us,
            reason: reason.into(),
        };
        RouteBody {
            source_name: "oslo".into(),
            destination_name: "rome".into(),
            class: "realtime".into(),
            candidates: vec![
                candidate(&["bonn", "rome"], 20_000, "best"),
                candidate(&["rome"], 45_600, "direct"),
            ],
            ..RouteBody::default()
        }
    }

    #[test]
    fn a_route_is_shown_with_the_direct_delay_and_its_backups_if_wanted() {
        let (short, long) = (text(&[route()], false, false), text(&[route()], false, true));

        assert!(short.contains("20.0 ms  45.6 ms  via bonn, rome  best"), "{short}");
        assert!(!short.contains("backup"));
        assert!(long.contains("direct to rome"), "{long}");
    }

    #[test]
    fn a_list_that_was_cut_says_so() {
        assert!(
            text(&[route()], true, false)
                .ends_with("and more: --from, --to and --class leave fewer\n")
        );
    }
}
