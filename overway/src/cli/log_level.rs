//! `overway log-level`.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use overway_telemetry::admin::LogBody;

use super::admin::{self, Client};
use super::failure::Failure;
use super::output;

/// Show or change what a running process logs, until it ends.
///
/// To be run on the process's machine, for admin interfaces listen on loopback.
///
/// Examples:
///   overway log-level relay
///   overway log-level relay info,overway_relay=debug
///   overway log-level 127.0.0.1:9411 info --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct LogLevelArgs {
    /// Which process: relay (127.0.0.1:9401), scheduler (127.0.0.1:9400), edge (127.0.0.1:9403), or its admin
    /// interface's IP:PORT.
    #[arg(value_name = "NODE", value_parser = admin::node_address)]
    node: SocketAddr,
    /// A level (error, warn, info, debug, trace), or a filter such as "info,overway_scheduler=debug". Shows the one in use
    /// if not given.
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Asks the process, or tells it.
pub(crate) fn run(args: LogLevelArgs) -> Result<ExitCode, Failure> {
    let LogLevelArgs { node, filter, json } = args;
    let client = Client::at(&format!("http://{node}"), ("process", "NODE"))?;
    let body: LogBody = match filter {
        Some(filter) => client.put("/v1/log", &LogBody { filter })?,
        None => client.get("/v1/log")?,
    };
    if json {
        output::print_json(&body)?;
    } else {
        output::print(&format!("{}\n", body.filter))?;
    }
    Ok(ExitCode::SUCCESS)
}
