//! `overway policy` and `overway cell`: which relays a tenant's paths may use.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use overway_scheduler::api::{
    CellBody, CellRequest, CellsBody, PoliciesBody, PolicyBody, PolicyRequest,
};

use super::admin::{AdminArgs, Client};
use super::failure::Failure;
use super::output;
use super::text::{Table, count};

/// Say which relays the paths of some traffic may use.
///
/// A policy allows relays by region and by provider; a path under it touches no other relay, its ends
/// included. What is not named is not restricted. Relays say in their configuration where they are and
/// whose lines they use; `overway status` shows it.
///
/// Examples:
///   overway policy set voice --regions eu-west,eu-north
///   overway policy set voice --cells eu --providers hetzner,ovh
///   overway policy list
///   overway explain frankfurt stockholm --tenant voice
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Add a policy, or replace the one of that name. Paths follow within a second.
    Set {
        /// Its name: a-z, 0-9 and hyphen.
        name: String,
        /// Regions that its paths may touch.
        #[arg(long, value_name = "REGION", value_delimiter = ',', num_args = 1..)]
        regions: Vec<String>,
        /// Providers whose relays its paths may touch.
        #[arg(long, value_name = "PROVIDER", value_delimiter = ',', num_args = 1..)]
        providers: Vec<String>,
        /// Cells whose regions its paths may touch; see `overway cell`.
        #[arg(long, value_name = "CELL", value_delimiter = ',', num_args = 1..)]
        cells: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Show policies, and how many relays each allows.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Remove a policy: traffic under it has no path of its own any more.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

/// Name sets of regions and relays that traffic is to stay in, for tenants and policies.
///
/// The edges of a tenant with a cell attach in the cell, their frames cross no relay outside of it, and no relay outside
/// of it hears of their services. Partners stand in: only where the cell has no path, no endpoint that is well, or no
/// relay that is reached.
///
/// Examples:
///   overway cell set eu --regions eu-west,eu-north --relays zurich
///   overway cell set eu --regions eu-west,eu-north --partners uk
///   overway tenant add im --cell eu
///   overway policy set voice --cells eu
///   overway cell list
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CellArgs {
    #[command(subcommand)]
    command: CellCommand,
}

#[derive(Debug, Subcommand)]
enum CellCommand {
    /// Add a cell, or replace the one of that name; policies and tenants that name it follow.
    Set {
        /// Its name: a-z, 0-9 and hyphen.
        name: String,
        /// Its regions.
        #[arg(long, value_name = "REGION", value_delimiter = ',', num_args = 1..)]
        #[arg(required_unless_present = "relays")]
        regions: Vec<String>,
        /// Its relays in other regions.
        #[arg(long, value_name = "RELAY", value_delimiter = ',', num_args = 1..)]
        relays: Vec<String>,
        /// Cells that stand in for it.
        #[arg(long, value_name = "CELL", value_delimiter = ',', num_args = 1..)]
        partners: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Show cells, and which policies and tenants name them.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Remove a cell that nothing names.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// Print JSON, as the admin interface has it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Talks to the scheduler.
pub(crate) fn run(args: PolicyArgs) -> Result<ExitCode, Failure> {
    match args.command {
        PolicyCommand::Set { name, regions, providers, cells, common } => {
            let request = PolicyRequest { regions, providers, cells };
            let path = format!("/v1/policies/{}", path_segment(&name)?);
            let body: PolicyBody = Client::new(&common.admin)?.put(&path, &request)?;
            answer(&common, &body, &told(&body))?;
        }
        PolicyCommand::List { common } => {
            let body: PoliciesBody = Client::new(&common.admin)?.get("/v1/policies")?;
            let text = match body.policies.as_slice() {
                [] => "no policies: every path may use every relay\n".to_owned(),
                policies => table(policies),
            };
            answer(&common, &body, &text)?;
        }
        PolicyCommand::Remove { name, common } => {
            let client = Client::new(&common.admin)?;
            client.delete(&format!("/v1/policies/{}", path_segment(&name)?))?;
            match common.json {
                true => output::print_json(&client.get::<PoliciesBody>("/v1/policies")?)?,
                false => output::print(&format!("removed policy {name}\n"))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Talks to the scheduler.
pub(crate) fn run_cell(args: CellArgs) -> Result<ExitCode, Failure> {
    match args.command {
        CellCommand::Set { name, regions, relays, partners, common } => {
            let path = format!("/v1/cells/{}", path_segment(&name)?);
            let request = CellRequest { regions, relays, partners };
            let body: CellBody = Client::new(&common.admin)?.put(&path, &request)?;
            answer(&common, &body, &told_cell(&body))?;
        }
        CellCommand::List { common } => {
            let body: CellsBody = Client::new(&common.admin)?.get("/v1/cells")?;
            let text = match body.cells.as_slice() {
                [] => "no cells\n".to_owned(),
                cells => cell_table(cells),
            };
            answer(&common, &body, &text)?;
        }
        CellCommand::Remove { name, common } => {
            let client = Client::new(&common.admin)?;
            client.delete(&format!("/v1/cells/{}", path_segment(&name)?))?;
            match common.json {
                true => output::print_json(&client.get::<CellsBody>("/v1/cells")?)?,
                false => output::print(&format!("removed cell {name}\n"))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(common: &Common, body: &impl serde::Serialize, text: &str) -> Result<(), Failure> {
    if common.json { output::print_json(body) } else { output::print(text) }
}

fn told_cell(cell: &CellBody) -> String {
    let CellBody { name, regions, relays, partners, policies, tenants } = cell;
    let mut text = format!("cell {name}: {}", count(regions.len() as u64, "region"));
    if !relays.is_empty() {
        text.push_str(&format!(" and {}", relays.join(", ")));
    }
    if !partners.is_empty() {
        text.push_str(&format!("; {} stand in", partners.join(", ")));
    }
    let users = [policies.as_slice(), tenants].concat();
    if !users.is_empty() {
        text.push_str(&format!("; changed for {}", users.join(", ")));
    }
    text + "\n"
}

fn cell_table(cells: &[CellBody]) -> String {
    let mut table = Table::new(&["CELL", "REGIONS", "RELAYS", "PARTNERS", "POLICIES", "TENANTS"]);
    for CellBody { name, regions, relays, partners, policies, tenants } in cells {
        let lists = [regions, relays, partners, policies, tenants].map(|list| or_dash(list));
        table.row(std::iter::once(name.clone()).chain(lists));
    }
    table.render()
}

/// Policies with how many relays each allows.
pub(crate) fn table(policies: &[PolicyBody]) -> String {
    let mut table = Table::new(&["POLICY", "ID", "REGIONS", "PROVIDERS", "CELLS", "RELAYS"]);
    for policy in policies {
        table.row([
            policy.name.clone(),
            policy.id.to_string(),
            or_any(&policy.regions, !policy.cells.is_empty()),
            or_any(&policy.providers, false),
            or_dash(&policy.cells),
            policy.relays.len().to_string(),
        ]);
    }
    table.render()
}

fn told(policy: &PolicyBody) -> String {
    let PolicyBody { name, id, relays, .. } = policy;
    let allowed = match relays.as_slice() {
        [] => "no relay of the mesh is allowed, so nothing has a path under it; regions and providers \
               are compared letter by letter with what `overway status` shows"
            .to_owned(),
        [_] => format!("one relay is allowed, {}: no path leads anywhere", relays[0]),
        [_, _, ..] => format!("{} relays are allowed: {}", relays.len(), shortened(relays)),
    };
    format!("policy {name} ({id}): {allowed}\n")
}

/// The first names, and how many more.
fn shortened(names: &[String]) -> String {
    const SHOWN_MAX: usize = 12;
    let shown = names.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn or_any(names: &[String], others: bool) -> String {
    match (names.is_empty(), others) {
        (true, false) => "any".to_owned(),
        (true, true) => "-".to_owned(),
        (false, _) => names.join(","),
    }
}

fn or_dash(names: &[String]) -> String {
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

/// Names that could not be a policy's or a cell's would make another path.
fn path_segment(name: &str) -> Result<&str, Failure> {
    match overway_scheduler::check_name(name) {
        Ok(()) => Ok(name),
        Err(_) => Err(Failure::Configuration(format!(
            "{name:?} is no name of a policy or cell: 1 to 63 of a-z, 0-9 and hyphen, not a hyphen first"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn policy(relays: &[&str]) -> PolicyBody {
        PolicyBody {
            id: 3,
            name: "voice".into(),
            cells: names(&["eu"]),
            relays: names(relays),
            ..PolicyBody::default()
        }
    }

    #[test]
    fn a_policy_that_allows_nothing_says_so() {
        assert!(told(&policy(&[])).contains("nothing has a path under it"));
        assert!(told(&policy(&["rome"])).contains("no path leads anywhere"));
        assert_eq!(
            told(&policy(&["rome", "oslo"])),
            "policy voice (3): 2 relays are allowed: rome, oslo\n"
        );
    }

    #[test]
    fn what_is_not_restricted_is_any() {
        let text = table(&[policy(&["rome"])]);

        assert_eq!(text.lines().nth(1), Some("voice   3   -        any        eu     1"));
    }
}
