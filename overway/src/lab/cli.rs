//! The command: what there is to say on the command line, and which part does it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, Subcommand};

use super::cells::{self, Cells};
use super::check::{Extent, check};
use super::control::{self, Lab, Request};
use super::figures::{Promise, Verdict};
use super::host::{HostFelt, Witness};
use super::live;
use super::process::Spawner;
use super::profile::{Profile, WORLD};
use super::prometheus;
use super::stage::{Ink, Stage, Stop, Stopped};
use super::world::{Degradation, EdgePlan, World, WorldOptions};

/// Pairs with forwards: enough to have several transit relays in use, few enough to be read.
const WIRES: usize = 6;
/// Exit code of wrong usage or configuration.
const USAGE: u8 = 2;
/// Exit code of a check that did not come to its end, as shells have it for SIGINT.
const INTERRUPTED: u8 = 130;
/// Exit code of a check whose bounds were missed on a machine that stood still: EX_TEMPFAIL of sysexits.h,
/// "try again later".
const NOT_JUDGED: u8 = 75;
/// How long verbs under way may hold the world after its end was asked for.
const VERBS_GRACE: Duration = Duration::from_secs(3);

/// Run a world-wide mesh on this machine, or do something to the one that runs.
///
/// Without a subcommand it starts a scheduler and a dozen relays as real processes on loopback, with
/// measured delays between their cities, shows what the mesh gains, breaks it under running traffic, and
/// stays up until Ctrl-C. The subcommands act on a lab that runs.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LabArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Run all drills unattended, print the figures and what was promised, and end. Exit code 1 if a
    /// promise is broken, 75 if only bounds were missed and the machine itself stood still meanwhile.
    #[arg(long)]
    check: bool,
    /// Write the check's figures to this file.
    #[arg(long, value_name = "FILE", requires = "check")]
    json: Option<PathBuf>,
    /// Fewer repetitions: the check takes under a minute.
    #[arg(long, requires = "check")]
    quick: bool,
    /// The world to emulate; `overway lab profile` prints the default one.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Seed of clocks, losses, jitter and files.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Workers of each relay, 1 to 16: threads that carry frames.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    workers: u8,
    /// Keep keys, configurations and logs in this directory, which must not hold a lab yet. Without it
    /// they are temporary.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Also run two edges, ends outside the mesh, of one tenant: one offers the lab's servers, the other has
    /// forwards to them.
    #[arg(long)]
    edges: bool,
    /// Group the relays into cells as the profile says, with a tenant in each, instead of the forwards between relays; with
    /// --check, prove that a tenant's traffic and services stay in its cell, that a cell that is cut off goes on inside,
    /// and that a partner stands in for one whose relays die, in a good minute.
    #[arg(long, conflicts_with_all = ["edges", "quick"])]
    cells: bool,
    /// Once the mesh is up, write to this file how a Prometheus scrapes its processes.
    #[arg(long, value_name = "FILE")]
    prometheus: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the default profile, to copy and edit.
    Profile,
    /// Show the lab's processes, paths and forwards.
    Status {
        #[command(flatten)]
        at: At,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let nothing pass between two relays.
    Cut {
        #[command(flatten)]
        line: Line,
    },
    /// Make the line between two relays worse.
    Degrade {
        #[command(flatten)]
        line: Line,
        /// Share of datagrams lost, from 0 to 1.
        #[arg(long, value_name = "SHARE")]
        loss: Option<f64>,
        /// Additional one-way delay in milliseconds.
        #[arg(long, value_name = "MS", default_value_t = 0.0)]
        delay: f64,
        /// Additional jitter in milliseconds.
        #[arg(long, value_name = "MS", default_value_t = 0.0)]
        jitter: f64,
        /// A bottleneck in Mbit/s.
        #[arg(long, value_name = "MBPS")]
        rate: Option<f64>,
    },
    /// Let nothing pass between the relays of a cell of the profile and all others, the scheduler included.
    CutOff {
        /// Its name.
        cell: String,
        #[command(flatten)]
        at: At,
    },
    /// Stop a process without its knowledge (SIGSTOP). NAME is a relay's, or `scheduler`.
    Freeze {
        /// Its name.
        name: String,
        #[command(flatten)]
        at: At,
    },
    /// Kill a process (SIGKILL). NAME is a relay's, or `scheduler`.
    Kill {
        /// Its name.
        name: String,
        #[command(flatten)]
        at: At,
    },
    /// Undo what was done: to the process and the lines of NAME, or to everything.
    Restore {
        /// Its name; everything if not given.
        name: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// End the lab.
    Stop {
        #[command(flatten)]
        at: At,
    },
}

/// Which lab.
#[derive(Debug, Args)]
struct At {
    /// The directory of the lab, if it was started with one and several run.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A line between two relays.
#[derive(Debug, Args)]
struct Line {
    /// A relay.
    a: String,
    /// Another.
    b: String,
    /// Only from the first to the second.
    #[arg(long)]
    one_way: bool,
    #[command(flatten)]
    at: At,
}

/// Runs the command. Says itself what went wrong, so that the end of a log is shown line by line.
///
/// # Errors
/// Never, for now; what fails is an exit code.
pub fn run(args: LabArgs) -> anyhow::Result<ExitCode> {
    run_as(args, Spawner::current()?)
}

/// Runs the command with another program as the children's.
///
/// # Errors
/// As [`run`].
pub fn run_as(args: LabArgs, spawner: Spawner) -> anyhow::Result<ExitCode> {
    let check = args.check;
    let outcome = match args.verb {
        Some(verb) => act(verb),
        None => start(&args, spawner),
    };
    Ok(outcome.unwrap_or_else(|error| {
        if error.is::<Stopped>() {
            return if check { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS };
        }
        eprintln!("error: {error:#}");
        let usage = error.is::<overway_config::ConfigError>();
        if usage { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
    }))
}

fn start(args: &LabArgs, spawner: Spawner) -> anyhow::Result<ExitCode> {
    let profile = match &args.profile {
        Some(path) => Profile::load(path)?,
        None => Profile::world(),
    };
    let stage = Stage::new();
    let what = if args.check { "lab check" } else { "lab" };
    let (name, count) = (profile.name(), profile.relays().len());
    let title =
        format!("Overway {what}: {count} relays of the profile {name:?}, seed {}", args.seed);
    stage.say(stage.ink(Ink::Bold, title));
    let _signals = watch_signals(stage.stop().clone())?;
    let cells = args.cells.then(|| Cells::new(&profile, args.seed)).transpose()?;
    let (wires, edges) = match &cells {
        Some(cells) => (Vec::new(), cells.edges()),
        None => (wires(&profile)?, if args.edges { edges(count) } else { Vec::new() }),
    };
    let (seed, workers, dir) = (args.seed, args.workers, args.dir.clone());
    let options = WorldOptions { spawner, profile, seed, dir, wires, edges, workers };
    let world = World::start(&options, &stage)?;
    if let Some(cells) = &cells {
        cells.say(&world, &stage);
    }
    if let Some(path) = &args.prometheus {
        prometheus::write(&world, path)?;
        stage.say(format!("scrape it with prometheus --config.file {}", path.display()));
    }
    let cells = cells.as_ref();
    let outcome = if args.check {
        run_check(args, &world, cells, &stage)
    } else {
        run_live(&world, cells, &stage)
    };
    stage.clear();
    outcome
}

/// The pairs with forwards.
fn wires(profile: &Profile) -> anyhow::Result<Vec<(usize, usize)>> {
    let (name, wires) = (profile.name(), profile.transit_pairs(WIRES));
    if wires.is_empty() {
        bail!(
            "in the profile {name:?} no pair is faster over other relays: there is nothing to show"
        );
    }
    Ok(wires)
}

/// One edge that offers the lab's servers and one that reaches them, each at two relays that the other does not use,
/// where there are as many.
fn edges(relays: usize) -> Vec<EdgePlan> {
    let last = relays.saturating_sub(1);
    let plan = |name: &str, mut access: Vec<usize>, offers: Option<u32>| {
        access.dedup();
        let (name, forwards) = (name.to_owned(), offers.is_none());
        EdgePlan { name, access, offers, target: None, forwards, cell: None }
    };
    vec![
        plan("edge-shop", vec![0, 1.min(last)], Some(1)),
        plan("edge-desk", vec![last.saturating_sub(1), last], None),
    ]
}

fn run_check(
    args: &LabArgs,
    world: &Arc<World>,
    cells: Option<&Cells>,
    stage: &Stage,
) -> anyhow::Result<ExitCode> {
    let witness = Witness::start()?;
    let checked = match cells {
        Some(cells) => cells::check::check(world, stage, cells),
        None => check(world, stage, if args.quick { Extent::QUICK } else { Extent::FULL }),
    };
    let host = witness.felt();
    let mut figures = match checked {
        Ok(figures) => figures,
        // Relays that get no processor find no one, either.
        Err(error) if !error.is::<Stopped>() && !host.is_fit() => {
            stage.say(format!("{error:#}"));
            return Ok(not_judged(stage, &host));
        }
        Err(error) => return Err(error),
    };
    let stall_ms = host.stall.map(|stall| stall.as_secs_f64() * 1e3);
    figures.add_measured("host_stall_ms_max", stall_ms, Promise::Reported);
    figures.add_measured("host_stolen_share", host.stolen, Promise::Reported);
    stage.say("");
    figures.print(stage);
    if let Some(path) = &args.json {
        figures.write(path)?;
    }
    Ok(match figures.verdict(host.is_fit()) {
        Verdict::Kept => {
            stage.say(stage.ink(Ink::Green, "every promise is kept"));
            ExitCode::SUCCESS
        }
        Verdict::Broken => {
            stage.say(stage.ink(Ink::Red, "a promise is BROKEN"));
            ExitCode::FAILURE
        }
        Verdict::NotJudged => not_judged(stage, &host),
    })
}

/// Says that the machine is to blame, as far as can be seen.
fn not_judged(stage: &Stage, host: &HostFelt) -> ExitCode {
    let text = format!("NOT JUDGED: {}; once more, on a machine that runs", host.text());
    stage.say(stage.ink(Ink::Red, text));
    ExitCode::from(NOT_JUDGED)
}

fn run_live(world: &Arc<World>, cells: Option<&Cells>, stage: &Stage) -> anyhow::Result<ExitCode> {
    let lab = Lab::open(world, stage.stop().clone())?;
    match cells {
        Some(cells) => cells::live::run(world, stage, cells)?,
        None => live::run(world, stage)?,
    }
    drop(lab);
    stage.clear();
    stage.say("the lab ends");
    // A verb that is being answered holds the world; the directory goes with its last holder.
    let asked = Instant::now();
    while Arc::strong_count(world) > 1 && asked.elapsed() < VERBS_GRACE {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(ExitCode::SUCCESS)
}

/// Stops the lab at SIGINT, SIGTERM or SIGHUP. The second of them ends this process where it stands;
/// the kernel then ends the children. The runtime that comes back does the watching.
fn watch_signals(stop: Stop) -> anyhow::Result<tokio::runtime::Runtime> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("lab-signals")
        .enable_all()
        .build()?;
    let context = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    runtime.spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        };
        next().await;
        stop.set();
        next().await;
        std::process::exit(1);
    });
    drop(context);
    Ok(runtime)
}

fn act(verb: Verb) -> anyhow::Result<ExitCode> {
    let (at, request, json) = match verb {
        Verb::Profile => {
            print!("{WORLD}");
            return Ok(ExitCode::SUCCESS);
        }
        Verb::Status { at, json } => (at, Request::Status, json),
        Verb::Cut { line } => line.request(Degradation::CUT),
        Verb::Degrade { line, loss, delay, jitter, rate } => line.request(Degradation {
            loss,
            delay_ms: delay,
            jitter_ms: jitter,
            rate_mbps: rate,
            cut: false,
        }),
        Verb::CutOff { cell, at } => (at, Request::CutOff { cell }, false),
        Verb::Freeze { name, at } => (at, Request::Freeze { name }, false),
        Verb::Kill { name, at } => (at, Request::Kill { name }, false),
        Verb::Restore { name, at } => (at, Request::Restore { name }, false),
        Verb::Stop { at } => (at, Request::Stop, false),
    };
    let answer = control::ask(at.dir.as_deref(), &request)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&answer.status)?);
    } else {
        println!("{}", answer.text);
    }
    Ok(ExitCode::SUCCESS)
}

impl Line {
    fn request(self, by: Degradation) -> (At, Request, bool) {
        let Self { a, b, one_way, at } = self;
        (at, Request::Degrade { a, b, one_way, by }, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        lab: LabArgs,
    }

    fn parsed(line: &str) -> Result<LabArgs, clap::Error> {
        let words = std::iter::once("lab").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.lab)
    }

    #[test]
    fn every_printed_command_is_understood() {
        for line in [
            "",
            "--check --json lab.json",
            "--check --quick --profile my.toml --seed 7 --dir here",
            "--cells",
            "--cells --check --json cells.json",
            "cut-off asia",
            "--edges --prometheus prometheus.yml",
            "profile",
            "status --json",
            "cut tokyo pune --one-way",
            "degrade tokyo pune --loss 0.15 --delay 100",
            "freeze tokyo",
            "kill scheduler --dir here",
            "restore",
            "restore tokyo",
            "stop",
        ] {
            assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line));
        }
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        for line in [
            "--quick",
            "--json lab.json",
            "--check freeze tokyo",
            "cut tokyo",
            "thaw tokyo",
            "--cells --edges",
            "--cells --check --quick",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_degraded_line_keeps_its_direction_and_numbers() {
        let args = parsed("degrade tokyo pune --loss 0.15 --delay 100 --one-way").unwrap();
        let Some(Verb::Degrade { line, loss, delay, .. }) = args.verb else {
            panic!("another verb")
        };

        assert_eq!((line.a.as_str(), line.b.as_str(), line.one_way), ("tokyo", "pune", true));
        assert_eq!((loss, delay), (Some(0.15), 100.0));
    }
}
