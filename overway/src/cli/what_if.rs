//! `overway what-if`.

mod render;

use std::process::ExitCode;

use clap::Args;
use overway_scheduler::api::{WhatIfBody, WhatIfRequest};

use super::admin::{AdminArgs, Client};
use super::failure::Failure;
use super::output;

/// Some route would have no path.
const UNREACHABLE: u8 = 3;

/// Say which paths would change without some relays or links. Nothing in the mesh is touched.
///
/// Looks at every route whose path goes over what is cut, or at those that --from, --to and --class
/// leave. Routes that end at a relay which is cut are counted and not shown.
///
/// Examples:
///   overway what-if --cut frankfurt                    without a relay
///   overway what-if --cut frankfurt,london             without the links between two
///   overway what-if --cut frankfurt --cut paris,rome   without both
///   overway what-if --cut frankfurt --from rome --to oslo --class realtime
///
/// Exit code 0: every route would have a path, 3: some would have none, 1: no scheduler, 2: no such relay.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct WhatIfArgs {
    /// What to take out: a relay by name or id, or two with a comma for the links between them. May be
    /// given several times.
    #[arg(long, value_name = "RELAY[,RELAY]", required = true, value_parser = parse_cut)]
    cut: Vec<Cut>,
    /// Look only at routes from this relay.
    #[arg(long, value_name = "RELAY")]
    from: Option<String>,
    /// Look only at routes to this relay.
    #[arg(long, value_name = "RELAY")]
    to: Option<String>,
    /// Look only at this class: realtime, interactive or bulk.
    #[arg(long, value_name = "CLASS", value_parser = ["realtime", "interactive", "bulk"])]
    class: Option<String>,
    /// Print everything as JSON, as `POST /v1/what-if` has it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cut {
    Relay(String),
    Link(String, String),
}

/// Asks the scheduler and prints.
pub(crate) fn run(args: &WhatIfArgs) -> Result<ExitCode, Failure> {
    let WhatIfArgs { cut, from, to, class, json, admin } = args;
    let (from, to, class) = (from.clone(), to.clone(), class.clone());
    let mut request = WhatIfRequest { from, to, class, ..WhatIfRequest::default() };
    for cut in cut {
        match cut {
            Cut::Relay(relay) => request.relays.push(relay.clone()),
            Cut::Link(one, other) => request.links.push((one.clone(), other.clone())),
        }
    }
    let body: WhatIfBody = Client::new(admin)?.post("/v1/what-if", &request)?;
    if *json {
        output::print_json(&body)?;
    } else {
        output::print(&render::text(&body))?;
    }
    Ok(if body.unreachable == 0 { ExitCode::SUCCESS } else { ExitCode::from(UNREACHABLE) })
}

fn parse_cut(text: &str) -> Result<Cut, String> {
    let ends: Vec<&str> = text.split([',', ' ']).filter(|end| !end.is_empty()).collect();
    match ends.as_slice() {
        [relay] => Ok(Cut::Relay((*relay).to_owned())),
        [one, other] => Ok(Cut::Link((*one).to_owned(), (*other).to_owned())),
        [] | [_, _, _, ..] => Err(format!(
            "{text:?} is neither a relay nor two: give NAME, or NAME,NAME for the links between two"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_a_relay_or_the_links_between_two() {
        let link = Cut::Link("fra".into(), "lon".into());
        assert_eq!(parse_cut("fra"), Ok(Cut::Relay("fra".into())));
        assert_eq!(parse_cut("sao-paulo"), Ok(Cut::Relay("sao-paulo".into())));
        assert_eq!((parse_cut("fra,lon"), parse_cut("fra lon")), (Ok(link.clone()), Ok(link)));
        for wrong in ["", ",", "a,b,c"] {
            assert!(parse_cut(wrong).is_err(), "{wrong}");
        }
    }
}
