//! `overway reload`.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use overway_telemetry::reload::Reloaded;
use serde_json::json;

use super::admin::{self, Client};
use super::failure::Failure;
use super::validate::{self, Kind};
use super::{output, scheduler};

/// Have a running process read its configuration again, as SIGHUP does, and say what came of it.
///
/// The file is read and checked whole. A file that is wrong changes nothing: exit code 2. What can change while the process runs is
/// applied, and leaves connections as they are; what cannot is named, and counts from the next start on.
///
/// To be run on the process's machine, for admin interfaces listen on loopback.
///
/// Examples:
///   overway reload relay
///   overway reload /etc/overway/relay.toml
///   overway reload 127.0.0.1:9411 --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ReloadArgs {
    /// Which process: relay (127.0.0.1:9401), scheduler (127.0.0.1:9400), edge (127.0.0.1:9403), its admin interface's
    /// IP:PORT, or its configuration file, which says where that is.
    #[arg(value_name = "NODE")]
    node: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Asks the process, and prints what it answers.
pub(crate) fn run(args: &ReloadArgs) -> Result<ExitCode, Failure> {
    let address = address(&args.node)?;
    let client = Client::at(&format!("http://{address}"), ("process", "NODE"))?;
    let reloaded: Reloaded = client.post("/v1/reload", &json!({}))?;
    if args.json {
        output::print_json(&reloaded)?;
    } else {
        output::print(&text(&reloaded))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(Reloaded { applied, needs_restart }: &Reloaded) -> String {
    let mut text: String = applied.iter().map(|what| format!("{what}\n")).collect();
    if text.is_empty() {
        text.push_str("nothing to apply\n");
    }
    if !needs_restart.is_empty() {
        text += &format!("needs a restart: {}\n", needs_restart.join(", "));
    }
    text
}

/// Where the admin interface is.
fn address(node: &str) -> Result<String, Failure> {
    match admin::node_address(node) {
        Ok(address) => Ok(address.to_string()),
        Err(_) if Path::new(node).exists() => file_address(Path::new(node)),
        Err(hint) => {
            let message = format!("{node:?} is no process and no file: {hint}, or its file");
            Err(Failure::Configuration(message))
        }
    }
}

/// Where that of the process of a configuration is. The file is checked, so that one that is wrong is told of at once.
fn file_address(file: &Path) -> Result<String, Failure> {
    let admin = match validate::validate(file)? {
        Kind::Relay => overway_relay::Config::load(file).map(|config| Some(config.admin)),
        Kind::Edge => overway_edge::Config::load(file).map(|config| config.admin),
        Kind::Scheduler => {
            let config = overway_scheduler::Config::load(file).map_err(Failure::configuration)?;
            return scheduler::admin_address(&config);
        }
        Kind::Lab => Ok(None),
    };
    let admin = admin.map_err(Failure::configuration)?.filter(|address| address.port() != 0);
    let hint = || {
        let file = file.display();
        Failure::Configuration(format!(
            "{file} does not say where its process answers ([admin] listen); send the process SIGHUP, or \
             give IP:PORT"
        ))
    };
    admin.map(|address| address.to_string()).ok_or_else(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_applied_and_what_was_not_is_said() {
        assert_eq!(text(&Reloaded::default()), "nothing to apply\n");
        let reloaded = Reloaded {
            applied: vec!["relay.transit".to_owned(), "line".to_owned()],
            needs_restart: vec!["mesh.listen".to_owned(), "admin.listen".to_owned()],
        };
        let expected = "relay.transit\nline\nneeds a restart: mesh.listen, admin.listen\n";
        assert_eq!(text(&reloaded), expected);
    }
}
