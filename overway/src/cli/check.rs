//! `overway check`.

mod judge;
mod nat;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;
use overway_pki::Credentials;
use overway_relay::Config;
use overway_relay::check::{self, Asked, Reached};
use overway_scheduler::api::StatusBody;
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use super::admin::{AdminArgs, Client};
use super::failure::Failure;
use super::text::Table;
use super::{output, runtime};

/// Warnings, and nothing worse.
const WARNED: u8 = 3;

/// Check a relay's host before it runs, or when it does not come up.
///
/// Looks at the certificate, at each scheduler over UDP (a whole handshake), at the address that the host has on the way
/// there and by which schedulers and up to three relays see it, at whether a NAT on the way maps it differently for each, at kernel
/// buffers and the limit of open files; and where the scheduler's admin interface answers, at clocks and versions. What
/// cannot be found out is printed as unknown. A relay that runs is not disturbed.
///
/// Examples:
///   overway check
///   overway check --config /etc/overway/relay.toml --json
///
/// Exit code 0: nothing is wrong, 1: something failed, 2: wrong usage or configuration, 3: warnings only.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CheckArgs {
    /// The relay's configuration file.
    #[arg(long, value_name = "FILE", default_value = "relay.toml")]
    config: PathBuf,
    /// Print all findings as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// How something is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Unknown,
    Warning,
    Failed,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: String,
    verdict: Verdict,
    found: String,
    /// What to do about it.
    hint: Option<String>,
}

impl Finding {
    fn new(check: &str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { check: check.to_owned(), verdict, found: found.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What is asked of a scheduler's overview.
#[derive(Deserialize)]
struct Clock {
    at_unix_ms: u64,
}

/// Looks at everything and prints.
pub(crate) fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let config = Config::load(&args.config).map_err(Failure::configuration)?;
    let mut findings = Vec::new();
    let credentials = Credentials::load(&config.state_dir);
    match credentials {
        Ok(credentials) => {
            let left = credentials.not_after().duration_since(SystemTime::now()).ok();
            findings.push(judge::certificate(left));
            findings.extend(schedulers(&config, &Arc::new(credentials))?);
        }
        Err(error) => {
            let finding = Finding::new("certificate", Verdict::Failed, error.to_string());
            findings.push(finding.hint("join with `overway relay join TOKEN`"));
            let unknown = Finding::new("schedulers", Verdict::Unknown, "not asked");
            findings.push(unknown.hint("a scheduler answers only who has a certificate"));
        }
    }
    findings.push(match overway_relay::check::buffers() {
        Ok(report) => judge::buffers(report.hint()),
        Err(error) => Finding::new("kernel buffers", Verdict::Failed, error.to_string()),
    });
    findings.push(judge::files(getrlimit(Resource::Nofile).current));
    findings.extend(from_admin(&args.admin)?);
    print(&findings, args.json)?;
    let worst = findings.iter().map(|finding| finding.verdict).max();
    Ok(match worst.unwrap_or(Verdict::Ok) {
        Verdict::Ok | Verdict::Unknown => ExitCode::SUCCESS,
        Verdict::Warning => ExitCode::from(WARNED),
        Verdict::Failed => ExitCode::FAILURE,
    })
}

/// Asks each scheduler, and with some relays also by which address it sees this host.
fn schedulers(config: &Config, credentials: &Arc<Credentials>) -> Result<Vec<Finding>, Failure> {
    let schedulers = config.schedulers.iter().map(|&address| Asked::Scheduler(address));
    let asked: Vec<Asked> = schedulers.chain(check::neighbours(&config.state_dir)).collect();
    let (mut findings, mut views) = (Vec::new(), Vec::new());
    for (&asked, reached) in asked.iter().zip(runtime::block_on(check::reach(credentials, &asked))?)
    {
        let who = match asked {
            Asked::Scheduler(address) => format!("scheduler {address}"),
            Asked::Relay(id, address) => format!("relay {id} at {address}"),
        };
        if let Ok(Reached { local, seen, .. }) = reached {
            views.push(nat::View { who, local, seen });
        }
        // A relay may be away, or of an earlier version, without anything being wrong here.
        if let Asked::Scheduler(address) = asked {
            findings.push(judge::scheduler(address, reached.map(|reached| reached.rtt)));
        }
    }
    findings.extend(nat::judge(&views, &config.advertise));
    Ok(findings)
}

/// What a scheduler's admin interface tells of clocks and versions, if it answers from here.
fn from_admin(args: &AdminArgs) -> Result<Vec<Finding>, Failure> {
    let client = Client::new(args)?;
    let asked = SystemTime::now();
    let clock = client.get::<Clock>("/v1/overview").ok();
    let answered = SystemTime::now();
    let status = client.get_with::<StatusBody>("/v1/status", &[("routes", "false")]).ok();
    let others = status.map(|status| {
        status.relays.into_iter().map(|relay| (relay.name, relay.software)).collect::<Vec<_>>()
    });
    let own = concat!("overway ", env!("CARGO_PKG_VERSION"));
    Ok(vec![
        judge::clock(clock.map(|clock| clock.at_unix_ms), asked, answered),
        judge::versions(own, others.as_deref()),
    ])
}

fn print(findings: &[Finding], json: bool) -> Result<(), Failure> {
    if json {
        return output::print_json(&serde_json::json!({ "findings": findings }));
    }
    output::print(&text(findings))
}

/// The worst first; a hint under what it is about.
fn text(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
    let mut table = Table::new(&["", "CHECK", "FOUND"]);
    for Finding { check, verdict, found, hint } in sorted {
        let word = match verdict {
            Verdict::Ok => "ok",
            Verdict::Unknown => "unknown",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        table.row([word.to_owned(), check.clone(), found.clone()]);
        if let Some(hint) = hint.as_ref().filter(|_| *verdict != Verdict::Ok) {
            table.row([String::new(), String::new(), format!("-> {hint}")]);
        }
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_with_its_hint_below() {
        let findings = [
            Finding::new("clock", Verdict::Ok, "fine").hint("none"),
            Finding::new("scheduler", Verdict::Failed, "no answer").hint("open UDP"),
            Finding::new("versions", Verdict::Unknown, "not told"),
        ];

        let shown = text(&findings);

        let lines: Vec<&str> = shown.lines().skip(1).map(str::trim).collect();
        assert!(lines[0].starts_with("FAILED") && lines[1] == "-> open UDP", "{shown}");
        assert!(lines[2].starts_with("unknown") && lines[3].starts_with("ok"), "{shown}");
        assert_eq!(lines.len(), 4);
    }
}
