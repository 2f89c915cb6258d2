//! `overway events`.

use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::admin::{AdminArgs, Client};
use super::failure::Failure;
use super::output;
use super::text;

/// How far back without `--since`: all that a scheduler keeps, and when following what explains the moment.
const BACK: Duration = Duration::from_secs(3_600);
const BACK_FOLLOWING: Duration = Duration::from_secs(60);
/// Between two attempts to follow on, once a scheduler went away.
const AGAIN: Duration = Duration::from_secs(1);

/// Show what has happened in the mesh: links and relays that fell silent, routes that moved, drains, joins.
///
/// A scheduler keeps the events of the last hour. With --follow new ones are shown as they come, across a restart of the
/// scheduler, until Ctrl-C or until nobody reads them.
///
/// Examples:
///   overway events
///   overway events --since 10m
///   overway events --follow
///   overway events --follow --json
///
/// Exit code 0: shown, 1: the scheduler does not answer, 2: wrong usage.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct EventsArgs {
    /// Go on with new events as they come.
    #[arg(long, short)]
    follow: bool,
    /// Only those of the last so long, such as 10m. Default: 1h, or 1m with --follow.
    #[arg(long, value_name = "TIME", value_parser = text::parse_duration)]
    since: Option<Duration>,
    /// Print each event as a JSON object on a line of its own.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// An event, as the admin interface has it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Event {
    /// Counts a scheduler's events from 1.
    pub(crate) sequence: u64,
    /// When, in milliseconds since 1970, UTC.
    pub(crate) at_unix_ms: u64,
    /// What, in few words.
    pub(crate) kind: String,
    /// The rest, for people.
    pub(crate) detail: String,
    /// The relay that it is about, or from which its link leads.
    pub(crate) relay: Option<u16>,
    /// The relay to which its link leads.
    pub(crate) to: Option<u16>,
}

#[derive(Debug, Deserialize)]
struct Body {
    events: Vec<Event>,
}

/// Asks the scheduler and prints.
pub(crate) fn run(args: &EventsArgs) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.admin)?;
    let back = args.since.unwrap_or(if args.follow { BACK_FOLLOWING } else { BACK });
    let since_unix_ms = unix_ms(SystemTime::now().checked_sub(back));
    let show = |events: &[Event]| show(events, since_unix_ms, args.json);
    if !args.follow {
        let Body { events } = client.get("/v1/events")?;
        show(&events)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut last = None;
    let mut stream = client.get_stream("/v1/events/stream", None)?;
    while follow(BufReader::new(stream), &mut last, show)? {
        eprintln!("the scheduler at {} went away; waiting for it", client.base());
        stream = loop {
            std::thread::sleep(AGAIN);
            if let Ok(stream) = client.get_stream("/v1/events/stream", last.as_deref()) {
                break stream;
            }
        };
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows what server-sent events (WHATWG HTML, section 9.2) have of events, until their end; keeps the id of the last.
/// Says whether somebody still wants to see more.
fn follow(
    stream: impl BufRead,
    last: &mut Option<String>,
    show: impl Fn(&[Event]) -> Result<bool, Failure>,
) -> Result<bool, Failure> {
    let (mut name, mut id) = (String::new(), None);
    for line in stream.lines() {
        // A connection that broke has ended.
        let Ok(line) = line else { return Ok(true) };
        match line.split_once(": ") {
            Some(("event", value)) => value.clone_into(&mut name),
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("data", value)) if name == "events" => {
                let events: Vec<Event> = serde_json::from_str(value).map_err(|error| {
                    Failure::Failed(format!("the scheduler tells what are no events: {error}"))
                })?;
                if !show(&events)? {
                    return Ok(false);
                }
                *last = id.take().or(last.take());
            }
            Some(_) => {}
            None if line.is_empty() => name.clear(),
            None => {}
        }
    }
    Ok(true)
}

fn show(events: &[Event], since_unix_ms: u64, json: bool) -> Result<bool, Failure> {
    let mut out = String::new();
    for event in events.iter().filter(|event| event.at_unix_ms >= since_unix_ms) {
        if json {
            out.push_str(&serde_json::to_string(event).map_err(Failure::failed)?);
        } else {
            let Event { at_unix_ms, kind, detail, .. } = event;
            let line = format!("{}  {kind:18}  {detail}", text::moment(*at_unix_ms));
            out.push_str(&text::printable(line.trim_end()));
        }
        out.push('\n');
    }
    output::print_on(&out)
}

fn unix_ms(at: Option<SystemTime>) -> u64 {
    let since_1970 = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    since_1970.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn event(sequence: u64) -> Event {
        Event {
            sequence,
            at_unix_ms: 1_000 * sequence,
            kind: "link_down".into(),
            detail: "rome > oslo".into(),
            relay: Some(1),
            to: None,
        }
    }

    #[test]
    fn events_are_taken_out_of_the_stream_and_the_last_id_is_kept() {
        let events = |sequences: &[u64]| {
            let events: Vec<Event> = sequences.iter().map(|&sequence| event(sequence)).collect();
            serde_json::to_string(&events).unwrap()
        };
        let stream = format!(
            "retry: 1000\nevent: boot\ndata: 7\n\nid: 7-2\nevent: events\ndata: {}\n\n: there\n\n\
             event: overview\ndata: {{\"relays\":[]}}\n\nid: 7-3\nevent: events\ndata: {}\n\n",
            events(&[1, 2]),
            events(&[3]),
        );
        let (mut last, seen) = (None, RefCell::new(Vec::new()));

        let more = follow(stream.as_bytes(), &mut last, |events| {
            seen.borrow_mut().extend(events.iter().map(|event| event.sequence));
            Ok(true)
        });

        assert!(more.unwrap());
        assert_eq!((seen.into_inner(), last.as_deref()), (vec![1, 2, 3], Some("7-3")));
    }

    #[test]
    fn it_ends_when_nobody_reads() {
        let events = serde_json::to_string(&[event(1)]).unwrap();
        let stream = format!("event: events\ndata: {events}\n\n").repeat(2);
        let shown = RefCell::new(0);

        let more = follow(stream.as_bytes(), &mut None, |_| {
            *shown.borrow_mut() += 1;
            Ok(false)
        });

        assert_eq!((more.unwrap(), shown.into_inner()), (false, 1));
    }

    #[test]
    fn what_is_no_event_is_a_failure() {
        let stream = "event: events\ndata: 7\n\n".as_bytes();

        assert!(follow(stream, &mut None, |_| Ok(true)).is_err());
    }
}
