//! `overway trace`.

mod render;
pub(crate) mod tally;

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use overway_relay::trace::{TraceLine, TraceRequest, TracedRelay};
use tokio::sync::mpsc;

use super::admin::{Client, RelayArgs};
use super::failure::Failure;
use super::output;
use super::paths::TrafficArgs;
use super::runtime;
use tally::{News, Tally};

/// How often the table on a terminal is drawn.
const DRAW: Duration = Duration::from_millis(500);
/// Lines that may wait to be counted.
const LINES_MAX: usize = 4_096;

/// Trace the path that frames of a class take now, as mtr does: per hop delay, loss and underlay address.
///
/// Relay A, whose admin interface --relay names, sends probes to relay B. They take the path, the queues and the
/// recovery that frames of their class take; each relay on the way answers. Without --count it goes on until Ctrl-C.
///
///   LOSS  share of the probes that never reached the relay
///   LINE  share that the line to it lost, before recovery brought most of them after all
///
/// Delays are one-way from A where relays know how their clocks compare (each link's own probes say so, halves of
/// round trips taken for ways), otherwise round trips; the heading says which.
///
/// Examples:
///   overway trace frankfurt tokyo
///   overway trace frankfurt tokyo --class realtime --count 100 --interval 20ms
///   overway trace frankfurt tokyo --count 10 --json
///   overway trace frankfurt tokyo --relay http://127.0.0.1:9411
///
/// Exit code 0: B answered, 1: it did not, or relay A does not answer, 2: no such relay or policy.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct TraceArgs {
    /// The relay where the path begins, by name or id.
    from: String,
    /// The relay where it ends, by name or id.
    to: String,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Send so many probes, then end.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Time between two probes, 10ms to 60s.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// Bytes of a probe's payload, 142 to 1200.
    #[arg(long, value_name = "BYTES")]
    bytes: Option<usize>,
    /// Print the result as JSON when the trace has ended.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    relay: RelayArgs,
}

/// Reads a number and `ms` or `s`.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no interval: give a number and ms or s, such as 200ms");
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1_000),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_millis(number.saturating_mul(unit)))
}

/// Asks the relay, and shows what comes.
pub(crate) fn run(args: &TraceArgs) -> Result<ExitCode, Failure> {
    let client = Client::of_relay(&args.relay)?;
    let request = TraceRequest {
        to: args.to.clone(),
        class: args.traffic.class.clone().unwrap_or_else(|| "interactive".to_owned()),
        policy: args.traffic.tenant.clone(),
        interval_ms: u64::try_from(args.interval.as_millis()).unwrap_or(u64::MAX),
        count: args.count,
        bytes: args.bytes,
    };
    let lines = client.post_stream("/v1/trace", &request)?;
    let (told, mut lines_read) = mpsc::channel(LINES_MAX);
    // Ends with the stream, or with this process.
    std::thread::spawn(move || read_lines(lines, &told));
    let tally = runtime::block_on(follow(args, client.base(), &mut lines_read))??;
    let report = tally.report();
    if args.json {
        output::print_json(&report)?;
    } else if !is_live(args) {
        output::print(&render::text(&report))?;
    }
    Ok(if report.reached { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_lines(lines: impl Read, told: &mpsc::Sender<Result<TraceLine, String>>) {
    for line in BufReader::new(lines).lines() {
        let read = line.map_err(|error| error.to_string()).and_then(|line| {
            serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))
        });
        let failed = read.is_err();
        if told.blocking_send(read).is_err() || failed {
            return;
        }
    }
}

fn is_live(args: &TraceArgs) -> bool {
    !args.json && std::io::stdout().is_terminal()
}

/// Counts lines until the last, or Ctrl-C.
async fn follow(
    args: &TraceArgs,
    base: &str,
    lines: &mut mpsc::Receiver<Result<TraceLine, String>>,
) -> Result<Tally, Failure> {
    let live = is_live(args);
    let mut tally = Tally::default();
    let mut screen = Screen::default();
    let mut drawing = tokio::time::interval(DRAW);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else { break };
                let line = line.map_err(|error| {
                    Failure::Failed(format!("{base} answered what is no trace: {error}"))
                })?;
                if let TraceLine::Begun { from, .. } = &line {
                    check_source(args, base, from)?;
                }
                let ended = matches!(line, TraceLine::Ended);
                if let Some(news) = tally.take(line) {
                    screen.say(&news, live);
                }
                if ended {
                    break;
                }
            }
            _ = &mut interrupt => break,
            _ = drawing.tick(), if live => screen.draw(&tally),
        }
    }
    tally.finish();
    if live {
        screen.draw(&tally);
    }
    Ok(tally)
}

/// The relay that answers is the one that was meant.
fn check_source(args: &TraceArgs, base: &str, from: &TracedRelay) -> Result<(), Failure> {
    if from.name.as_ref() == Some(&args.from) || from.id.to_string() == args.from {
        return Ok(());
    }
    let name = from.name.clone().unwrap_or_else(|| format!("r{}", from.id));
    Err(Failure::Configuration(format!(
        "the relay at {base} is {name}, not {}: --relay has to name the admin interface of the relay \
         where the path begins",
        args.from
    )))
}

/// A table that is drawn over itself.
#[derive(Default)]
struct Screen {
    lines: usize,
    since: Option<Instant>,
}

impl Screen {
    /// Says that the path is another, above the table.
    fn say(&mut self, news: &News, live: bool) {
        let since = self.since.get_or_insert_with(Instant::now);
        let text = render::news(news, since.elapsed());
        if live {
            self.wipe();
            println!("{text}");
        } else {
            eprintln!("{text}");
        }
    }

    fn draw(&mut self, tally: &Tally) {
        self.wipe();
        let text = render::text(&tally.report());
        print!("{text}");
        // A terminal that has gone away is seen by the next read.
        let _ = std::io::stdout().flush();
        self.lines = text.lines().count();
    }

    fn wipe(&mut self) {
        if self.lines > 0 {
            print!("\x1b[{}A\x1b[J", self.lines);
            self.lines = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_a_unit() {
        assert_eq!(parse_interval("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_interval("2s"), Ok(Duration::from_secs(2)));
        for wrong in ["", "ms", "1", "1m", "0.5s", "-1s"] {
            assert!(parse_interval(wrong).is_err(), "{wrong}");
        }
    }
}
