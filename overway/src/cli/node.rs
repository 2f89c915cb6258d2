//! `overway node add`, `list` and `remove`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use overway_scheduler::api::{NodeBody, NodeRequest, NodesBody, TokenBody};

use super::admin::{AdminArgs, Client};
use super::failure::Failure;
use super::output;
use super::text::{Table, duration, parse_duration};

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Invite a relay: prints a token for `overway relay join`. The token works once.
    Add(AddArgs),
    /// Show members, open invitations and removed nodes.
    List {
        /// Print JSON, as `GET /v1/nodes` has it.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Remove a relay for good: its certificate counts for nothing, everywhere, within two seconds. Or
    /// withdraw an open invitation.
    Remove {
        /// The node's name.
        name: String,
        /// Print JSON: what `list` prints then.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

#[derive(Debug, Args)]
struct AddArgs {
    /// The new relay's name: a-z, 0-9 and hyphen.
    name: String,
    /// How long the token works: a number and s, m, h or d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
    /// Print JSON, as `POST /v1/nodes` answers: the token is in it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Talks to the scheduler.
pub(crate) fn run(args: NodeArgs) -> Result<ExitCode, Failure> {
    match args.command {
        NodeCommand::Add(args) => add(args)?,
        NodeCommand::List { json, admin } => list(&Client::new(&admin)?, json)?,
        NodeCommand::Remove { name, json, admin } => {
            let client = Client::new(&admin)?;
            client.delete(&format!("/v1/nodes/{}", path_segment(&name)?))?;
            match json {
                true => list(&client, true)?,
                false => output::print(&format!("removed {name}\n"))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The token alone goes to standard output, so that scripts can take it.
fn add(args: AddArgs) -> Result<(), Failure> {
    let request = NodeRequest { name: args.name, ttl_s: Some(args.ttl.as_secs()) };
    let answer: TokenBody = Client::new(&args.admin)?.post("/v1/nodes", &request)?;
    if args.json {
        return output::print_json(&answer);
    }
    output::print(&format!("{}\n", answer.token))?;
    eprintln!(
        "on {}'s machine, within {}: overway relay join TOKEN",
        answer.name,
        duration(args.ttl)
    );
    Ok(())
}

fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let body: NodesBody = client.get("/v1/nodes")?;
    if json {
        return output::print_json(&body);
    }
    if body.nodes.is_empty() {
        return output::print("no nodes yet: invite one with `overway node add NAME`\n");
    }
    let mut table = Table::new(&["NAME", "ID", "STATE", "SINCE / UNTIL"]);
    for node in &body.nodes {
        let id = node.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        table.row([node.name.clone(), id, node.state.name().to_owned(), when(node)]);
    }
    output::print(&table.render())
}

fn when(node: &NodeBody) -> String {
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = |from: u64, to: u64| duration(Duration::from_secs(to.saturating_sub(from)));
    match (node.created_unix, node.expires_unix) {
        (Some(created), None | Some(_)) => format!("joined {} ago", seconds(created, now)),
        (None, Some(expires)) => format!("token ends in {}", seconds(now, expires)),
        (None, None) => "unknown".to_owned(),
    }
}

/// Names that could not be a node's would make another path.
fn path_segment(name: &str) -> Result<&str, Failure> {
    match overway_scheduler::check_name(name) {
        Ok(()) => Ok(name),
        Err(error) => Err(Failure::configuration(error)),
    }
}
