//! The command line: what there is, and which module does it.

mod access;
mod admin;
mod bundle;
mod check;
mod drain;
mod edge;
mod events;
mod explain;
mod failure;
mod generate;
mod keys;
mod log_level;
mod logging;
mod manager;
mod metrics;
mod node;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod paths;
mod pki;
mod policy;
mod quality;
mod relay;
mod reload;
mod routes;
mod runtime;
mod scheduler;
mod starter;
mod status;
mod tenant;
mod text;
mod token;
mod top;
mod trace;
mod transit;
mod validate;
mod what_if;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use failure::Failure;
use logging::LogFormat;

/// An overlay transport network: relays that carry other programs' traffic along the best path there is
/// right now, and around whatever breaks.
///
/// A mesh in four steps:
///   overway pki init --advertise 203.0.113.5:4400   on the scheduler's machine, once
///   overway scheduler                               and keep it running
///   overway node add frankfurt                      prints a token
///   overway relay join TOKEN && overway relay       on frankfurt's machine
#[derive(Debug, Parser)]
#[command(name = "overway", version, verbatim_doc_comment, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Logging {
    /// What to log to standard error: a level (error, warn, info, debug, trace), or a filter such as
    /// "info,overway_scheduler=debug". Default: what `[log]` of the configuration says, or info.
    #[arg(long, global = true, value_name = "FILTER", env = "OVERWAY_LOG")]
    log: Option<String>,
    /// How to log.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scheduler: relays register with it, it measures the mesh and pushes routes.
    Scheduler(scheduler::SchedulerArgs),
    /// Run a relay, or join one to a mesh.
    Relay(relay::RelayArgs),
    /// Make a new mesh's certificate authority.
    Pki(pki::PkiArgs),
    /// Invite, list and remove relays.
    Node(node::NodeArgs),
    /// Show relays, links and routes, problems first. Exit code 0: healthy, 1: the scheduler cannot be
    /// reached, 3: degraded.
    Status(status::StatusArgs),
    // These teach by their own first lines.
    Routes(routes::RoutesArgs),
    Explain(explain::ExplainArgs),
    WhatIf(what_if::WhatIfArgs),
    Trace(trace::TraceArgs),
    Top(top::TopArgs),
    Events(events::EventsArgs),
    Check(check::CheckArgs),
    SupportBundle(bundle::BundleArgs),
    Drain(drain::DrainArgs),
    Quality(quality::QualityArgs),
    Flow(quality::FlowArgs),
    Policy(policy::PolicyArgs),
    Cell(policy::CellArgs),
    Transit(transit::TransitArgs),
    Access(access::AccessArgs),
    Tenant(tenant::TenantArgs),
    Token(token::TokenArgs),
    Edge(edge::EdgeArgs),
    LogLevel(log_level::LogLevelArgs),
    Reload(reload::ReloadArgs),
    /// Run a world-wide mesh on this machine: real relays on loopback, measured delays, failures on demand.
    Lab(crate::lab::cli::LabArgs),
    /// Check configuration files without running anything. Exit code 2 if one is wrong.
    Validate(validate::ValidateArgs),
    /// Print a shell's completions for this program.
    Completions(generate::CompletionsArgs),
    /// Write a man page for each command.
    Man(generate::ManArgs),
    /// Print the reference of all metrics, as docs/METRICS.md has it.
    #[command(hide = true)]
    Metrics,
}

/// Runs the program with these arguments, its own name first, and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            // If help cannot be printed there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn parse<T: Into<OsString> + Clone>(args: impl IntoIterator<Item = T>) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command().try_get_matches_from(args)?)
}

/// The command line as it is parsed and shown.
fn command() -> clap::Command {
    without_full_stop(Cli::command())
}

/// Has commands' descriptions in lists end as those of options do, which is without a full stop. Texts that teach are kept
/// by clap as they are written, and these end with one.
fn without_full_stop(command: clap::Command) -> clap::Command {
    let about = command.get_about().map(ToString::to_string);
    let bare = about.as_deref().and_then(|about| about.strip_suffix('.')).map(str::to_owned);
    let command = match bare {
        Some(bare) => command.about(bare),
        None => command,
    };
    command.mut_subcommands(without_full_stop)
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    logging::init(cli.logging.log.as_deref(), cli.logging.log_format)?;
    match cli.command {
        Command::Scheduler(args) => scheduler::run(&args),
        Command::Relay(args) => relay::run(args),
        Command::Pki(args) => pki::run(args),
        Command::Node(args) => node::run(args),
        Command::Status(args) => status::run(&args),
        Command::Routes(args) => routes::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::WhatIf(args) => what_if::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Check(args) => check::run(&args),
        Command::SupportBundle(args) => bundle::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Quality(args) => quality::run(&args),
        Command::Flow(args) => quality::run_flow(&args),
        Command::Policy(args) => policy::run(args),
        Command::Cell(args) => policy::run_cell(args),
        Command::Transit(args) => transit::run(&args),
        Command::Access(args) => access::run(&args),
        Command::Tenant(args) => tenant::run(args),
        Command::Token(args) => token::run(args),
        Command::Edge(args) => edge::run(args),
        Command::LogLevel(args) => log_level::run(args),
        Command::Reload(args) => reload::run(&args),
        Command::Lab(args) => crate::lab::cli::run(args).map_err(Failure::failed),
        Command::Validate(args) => validate::run(&args),
        Command::Completions(args) => generate::completions(&args, command()),
        Command::Man(args) => generate::man(&args, command()),
        Command::Metrics => metrics::run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        parse(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn descriptions_of_commands_and_options_end_without_a_full_stop() {
        let (mut waiting, mut seen) = (vec![command()], 0);
        while let Some(command) = waiting.pop() {
            waiting.extend(command.get_subcommands().cloned());
            let options = command.get_arguments().filter_map(clap::Arg::get_help);
            for text in command.get_about().into_iter().chain(options) {
                let (text, name) = (text.to_string(), command.get_name());
                assert!(!text.ends_with('.'), "{name}: {text}");
                assert!(text.starts_with(char::is_uppercase), "{name}: {text}");
                seen += 1;
            }
        }
        assert!(seen > 100, "only {seen} were found");
    }

    #[test]
    fn every_documented_command_is_understood() {
        for line in [
            "overway pki init",
            "overway pki init --dir s --mesh demo --advertise 203.0.113.5:4400 203.0.113.6:4400",
            "overway scheduler",
            "overway scheduler --config s.toml --log debug --log-format json",
            "overway scheduler backup --config s.toml --out mesh.backup",
            "overway scheduler restore mesh.backup --dir there",
            "overway log-level relay",
            "overway reload relay --json",
            "overway reload relay.toml",
            "overway log-level 127.0.0.1:9411 info,overway_relay=debug --json",
            "overway relay",
            "overway relay --config r.toml",
            "overway node add frankfurt --ttl 30m --json",
            "overway node list --json --admin http://127.0.0.1:9999",
            "overway node remove frankfurt --json",
            "overway status --json",
            "overway status --routes --from rome --to oslo",
            "overway routes --from rome --class bulk --tenant voice",
            "overway explain rome oslo",
            "overway explain rome oslo --class bulk --tenant voice --json",
            "overway what-if --cut bonn --cut rome,oslo --from rome --to oslo --class realtime",
            "overway drain",
            "overway quality --service voice --region eu --class realtime --window 1m --json",
            "overway flow 1289345 --json",
            "overway flow --service voice --relay http://127.0.0.1:9402",
            "overway drain bonn --deadline 10m --wait --timeout 1m --json",
            "overway drain bonn rome --undo",
            "overway policy set voice --regions eu-west,eu-north --providers a --cells eu",
            "overway policy list --json",
            "overway policy remove voice",
            "overway cell set eu --regions eu-west,eu-north",
            "overway cell list",
            "overway cell remove eu",
            "overway transit bonn forbid",
            "overway tenant add im --policy eu --attachments 10 --bulk-bps 1000000 --json",
            "overway tenant list",
            "overway tenant show im --json",
            "overway tenant remove im",
            "overway tenant key add im --key im.jwks.json --replaces 2025-12",
            "overway tenant key revoke im 2026-01",
            "overway tenant token revoke im 1b-x",
            "overway tenant quota im --flows 100",
            "overway tenant policy im eu",
            "overway tenant policy im",
            "overway tenant keygen --kid 2026-01 --out im.key",
            "overway token mint --key im.key --kid 2026-01 --tenant im --edge-key edge.key --services a,b \
             --offers c --classes realtime,bulk --expires 1h",
            "overway token mint --key im.key --kid 2026-01 --tenant im --services * \
             --jkt kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            "overway token check --tenant-keys im.jwks.json a.b.c",
            "overway edge keygen --out edge.key --json",
            "overway trace rome oslo --class bulk --count 10 --interval 200ms --json",
            "overway events",
            "overway events --follow --since 10m --json",
            "overway check --config r.toml --json",
            "overway support-bundle --out b.tar.gz --config r.toml --config s.toml --log-file l --json",
            "overway top --once --every 2",
            "overway completions bash",
            "overway man --out man",
            "overway metrics",
            "overway validate a.toml b.toml",
        ] {
            assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line));
        }
    }

    #[test]
    fn every_example_of_a_commands_help_is_understood() {
        let mut waiting: Vec<clap::Command> = command().get_subcommands().cloned().collect();
        let mut examples = 0;
        while let Some(command) = waiting.pop() {
            waiting.extend(command.get_subcommands().cloned());
            let help = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  overway ")) {
                // What it does stands behind it, after a gap.
                let line = line.trim_start().split("  ").next().unwrap_or_default();
                assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line));
                examples += 1;
            }
        }
        assert!(examples > 20, "only {examples} were found");
    }

    /// Words in capitals stand for names.
    fn filled(line: &str) -> String {
        let placeholder = |word: &str| word.chars().all(|letter| letter.is_ascii_uppercase());
        let fill = |word: &str| match word.strip_prefix("ADDRESS:") {
            Some(port) => format!("203.0.113.5:{port}"),
            None if placeholder(word) => word.to_lowercase(),
            None => word.to_owned(),
        };
        line.split_whitespace().map(fill).collect::<Vec<_>>().join(" ")
    }

    /// Commands on lines of their own in a page's blocks, whoever runs them.
    fn commands(page: &std::path::Path) -> Vec<String> {
        let text = std::fs::read_to_string(page).unwrap();
        let commands = text.lines().map(|line| line.trim_start_matches("sudo -u overway "));
        commands.filter(|line| line.starts_with("overway ")).map(filled).collect()
    }

    #[test]
    fn every_command_of_runbooks_and_operations_is_understood() {
        let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let runbooks = std::fs::read_dir(docs.join("runbooks")).unwrap();
        let mut pages: Vec<_> = runbooks.map(|page| page.unwrap().path()).collect();
        pages.push(docs.join("OPERATIONS.md"));
        let mut count = 0;
        for page in pages {
            // A token is more than a word; how one is read has its own test.
            for line in commands(&page).iter().filter(|line| !line.contains("relay join")) {
                assert!(parsed(line).is_ok(), "{}: {:?}", page.display(), parsed(line));
                count += 1;
            }
        }
        assert!(count > 50, "only {count} were found");
    }

    #[test]
    fn a_join_takes_a_whole_token() {
        let schedulers = vec!["203.0.113.5:4400".to_owned()];
        let now = std::time::SystemTime::UNIX_EPOCH;
        let token = overway_pki::JoinToken::new(schedulers, [7; 32], "rome", now).unwrap();
        let line = format!("overway relay join {token} --dir there --config r.toml");

        assert!(parsed(&line).is_ok(), "{line}");
        assert!(parsed(&line.replace("ovw1-", "ovw1-x")).is_err());
    }

    #[test]
    fn wrong_usage_has_exit_code_2() {
        for line in [
            "overway relay join",
            "overway node add frankfurt --ttl soon",
            "overway pki init --advertise 203.0.113.5",
            "overway validate",
            "overway explain rome",
            "overway explain rome oslo --class fast",
            "overway what-if",
            "overway what-if --cut a,b,c",
            "overway drain --wait",
            "overway flow seven",
            "overway flow 7 --service voice",
            "overway quality --by weather",
            "overway drain bonn --undo --deadline 1m",
            "overway drain a b c",
            "overway transit bonn maybe",
            "overway cell set eu",
            "overway log-level rome debug",
            "overway scheduler backup",
            "overway tenant add Im",
            "overway tenant quota im --flows 0",
            "overway tenant key add im",
            "overway token mint --key im.key --kid 2026-01 --tenant im",
            "overway token mint --key im.key --kid a --tenant im --jkt short",
            "overway fly",
        ] {
            assert_eq!(parsed(line).map(|_| ()).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
