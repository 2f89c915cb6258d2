//! `overway drain`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use overway_scheduler::api::{DrainBody, DrainRequest, DrainsBody};

use super::admin::{AdminArgs, Client};
use super::failure::Failure;
use super::output;
use super::text::{Table, count, duration, parse_duration};

/// How often `--wait` asks.
const POLL: Duration = Duration::from_millis(500);
/// How long `--wait` goes on after a deadline: it takes a plan, and its way to the relays.
const AFTER_DEADLINE: Duration = Duration::from_secs(10);
/// How long `--wait` goes on if nothing else is said.
const WAIT_DEFAULT: Duration = Duration::from_secs(300);

/// Lead traffic away from a relay, or from the links between two, before it is stopped.
///
/// Paths leave at once where another way leads there, and edges attach to other relays; nothing is cut
/// off. A drained relay stays an end: its own gateway works on, and so does an edge that finds no other
/// relay. After the deadline it is not used at all, and who is still attached is turned away. --undo takes a drain back at any
/// time. A drain outlasts restarts, and ends with --undo or when the relay is removed. Without a relay:
/// lists what is being drained.
///
/// Examples:
///   overway drain                                      what is being drained, and what is still on it
///   overway drain frankfurt --wait                     and wait until no path and no edge is left
///   overway drain frankfurt --deadline 10m
///   overway drain frankfurt london                     the links between two
///   overway drain frankfurt --undo
///
/// Exit code 0: done (with --wait: no path goes over it and no edge is attached), 1: some still are at the
/// time-out, or no scheduler, 2: no such relay.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct DrainArgs {
    /// The relay, by name or id; two for the links between them.
    #[arg(value_name = "RELAY", num_args = 0..=2)]
    relays: Vec<String>,
    /// When it is not to be used at all any more, even where no other way leads: a number and s, m, h or d.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "relays")]
    deadline: Option<Duration>,
    /// Wait until no path goes over it, and no edge is attached to it.
    #[arg(long, requires = "relays", conflicts_with = "undo")]
    wait: bool,
    /// How long to wait: a number and s, m, h or d. Until after the deadline, or 5m if there is none.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "wait")]
    timeout: Option<Duration>,
    /// Take the drain back: paths may go over it again.
    #[arg(long, requires = "relays", conflicts_with = "deadline")]
    undo: bool,
    /// Print JSON, as `GET /v1/drains` has it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Talks to the scheduler.
pub(crate) fn run(args: &DrainArgs) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.admin)?;
    let path = match args.relays.as_slice() {
        [] => {
            list(&client, args.json)?;
            return Ok(ExitCode::SUCCESS);
        }
        [relay] => format!("/v1/drains/relay/{}", path_segment(relay)?),
        [one, other, ..] => {
            format!("/v1/drains/link/{}/{}", path_segment(one)?, path_segment(other)?)
        }
    };
    if args.undo {
        client.delete(&path)?;
        match args.json {
            true => list(&client, true)?,
            false => output::print(&format!("{} may carry traffic again\n", named(&args.relays)))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let request = DrainRequest { deadline_s: args.deadline.map(|deadline| deadline.as_secs()) };
    let mut drain: DrainBody = client.put(&path, &request)?;
    if args.wait {
        drain = wait(&client, drain, args)?;
    }
    match args.json {
        true => output::print_json(&drain)?,
        false => output::print(&told(&drain))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let body: DrainsBody = client.get("/v1/drains")?;
    if json {
        return output::print_json(&body);
    }
    if body.drains.is_empty() {
        return output::print("nothing is being drained\n");
    }
    output::print(&table(&body.drains))
}

/// What is being drained and how far it is.
pub(crate) fn table(drains: &[DrainBody]) -> String {
    let mut table = Table::new(&["DRAINING", "STAGE", "ROUTES ON IT", "EDGES", "DEADLINE"]);
    for drain in drains {
        table.row([
            named(&drain.relays),
            drain.stage.clone(),
            or_none(drain.routes_left),
            or_none(drain.attachments_left.into()),
            deadline(drain),
        ]);
    }
    table.render()
}

fn or_none(left: u64) -> String {
    if left == 0 { "none".to_owned() } else { left.to_string() }
}

/// What is still on something that is drained.
fn left(drain: &DrainBody) -> String {
    let routes = (drain.routes_left > 0).then(|| count(drain.routes_left, "route"));
    let edges = drain.attachments_left.into();
    let edges = (edges > 0).then(|| count(edges, "attached edge"));
    let left: Vec<String> = [routes, edges].into_iter().flatten().collect();
    if left.is_empty() { "nothing".to_owned() } else { left.join(" and ") }
}

fn deadline(drain: &DrainBody) -> String {
    match (drain.stage.as_str(), drain.deadline_in_ms) {
        ("over", _) => "passed".to_owned(),
        (_, Some(ms)) => format!("in {}", duration(Duration::from_millis(ms))),
        (_, None) => "none".to_owned(),
    }
}

/// Asks until no path goes over it; tells each change on standard error.
fn wait(client: &Client, first: DrainBody, args: &DrainArgs) -> Result<DrainBody, Failure> {
    let what = named(&first.relays);
    let longest = args
        .timeout
        .or_else(|| args.deadline.map(|deadline| deadline + AFTER_DEADLINE))
        .unwrap_or(WAIT_DEFAULT);
    let started = Instant::now();
    let mut drain = first;
    let mut told = None;
    while !drain.empty {
        let on_it = left(&drain);
        if told.as_ref() != Some(&on_it) {
            eprintln!("{what}: {on_it} still on it");
            told = Some(on_it);
        }
        let remaining = longest.saturating_sub(started.elapsed());
        if remaining.is_zero() {
            return Err(Failure::Failed(still_on_it(&what, &drain, longest)));
        }
        std::thread::sleep(POLL.min(remaining));
        let body: DrainsBody = client.get("/v1/drains")?;
        let same = |found: &DrainBody| found.kind == drain.kind && found.relays == drain.relays;
        drain = body.drains.into_iter().find(same).ok_or_else(|| {
            Failure::Failed(format!("the drain of {what} was taken back meanwhile"))
        })?;
    }
    Ok(drain)
}

/// Why what is left does not leave, and what to do.
fn still_on_it(what: &str, drain: &DrainBody, longest: Duration) -> String {
    let (on_it, relays) = (left(drain), drain.relays.join(","));
    let why = match (drain.routes_left, drain.attachments_left) {
        (0, _) => {
            "these edges reach no other access relay; a --deadline turns them away".to_owned()
        }
        (_, _) => {
            format!("no other way leads there (`overway what-if --cut {relays}` shows which)")
        }
    };
    format!("{what} still has {on_it} on it after {}: {why}", duration(longest))
}

fn told(drain: &DrainBody) -> String {
    let what = named(&drain.relays);
    if drain.empty {
        return match drain.kind.as_str() {
            "relay" => format!("{what}: no path goes over it, and no edge is attached to it\n"),
            _ => format!("{what}: no path goes over it\n"),
        };
    }
    let left = left(drain);
    format!("{what}: traffic leaves; {left} on it now (`overway drain` follows, --wait waits)\n")
}

fn named(relays: &[String]) -> String {
    match relays {
        [one, other] => format!("{one} - {other}"),
        [] | [_] | [_, _, ..] => relays.join(" - "),
    }
}

/// Names and ids that could not be a relay's would make another path.
pub(crate) fn path_segment(relay: &str) -> Result<&str, Failure> {
    match overway_scheduler::check_name(relay) {
        Ok(()) => Ok(relay),
        Err(error) => Err(Failure::configuration(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(relays: &[&str], routes_left: u64) -> DrainBody {
        DrainBody {
            kind: if relays.len() == 1 { "relay".into() } else { "link".into() },
            relays: relays.iter().map(|&relay| relay.to_owned()).collect(),
            stage: "leaving".into(),
            routes_left,
            attachments_left: 0,
            empty: routes_left == 0,
            deadline_in_ms: Some(600_000),
        }
    }

    #[test]
    fn drains_are_listed_with_what_is_still_on_them() {
        let over = DrainBody { stage: "over".into(), ..drain(&["rome", "oslo"], 0) };

        let text = table(&[drain(&["bonn"], 12), over]);

        let rows: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            rows,
            [
                "bonn         leaving  12            none   in 10m",
                "rome - oslo  over     none          none   passed"
            ]
        );
    }

    #[test]
    fn what_is_told_depends_on_what_is_left() {
        let gone = "bonn: no path goes over it, and no edge is attached to it\n";
        assert_eq!(told(&drain(&["bonn"], 0)), gone);
        let edges = DrainBody { attachments_left: 1, empty: false, ..drain(&["bonn"], 0) };
        assert!(told(&edges).contains("; 1 attached edge on it now"), "{}", told(&edges));
        let stuck = still_on_it("bonn", &edges, Duration::from_secs(60));
        assert!(stuck.contains("reach no other access relay"), "{stuck}");
        let stuck = still_on_it("bonn", &drain(&["bonn"], 2), Duration::from_secs(60));
        assert!(stuck.contains("what-if --cut bonn"), "{stuck}");
        assert!(told(&drain(&["bonn"], 1)).starts_with("bonn: traffic leaves; 1 route on it now"));
    }
}
