//! `overway top`.

mod columns;
mod panes;
mod screen;
mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use clap::Args;
use overway_relay::quality::FlowBody;
use overway_scheduler::api::OverviewBody;
use serde::{Deserialize, Serialize};

use super::admin::{AdminArgs, Client};
use super::events::Event;
use super::failure::Failure;
use super::output;
use view::{Pane, View};

/// Columns and rows of a frame that no terminal shows.
const FRAME: (u16, u16) = (120, 40);
/// Relays that are asked for flows: each costs a request at each look.
const RELAYS_MAX: usize = 64;

/// Watch the mesh on a full screen: links, relays with what flows through them, events as they come, and flows as their
/// ends at a relay feel them.
///
/// Flows are known to the relays at which they begin and end: give --relay for each whose flows are to be shown.
///
/// Keys: Tab or 1 to 4 change the pane, s sorts by the next column, r the other way round, arrows and Page keys scroll, Space
/// stops the picture, q ends. At first what is unwell is above.
///
/// Examples:
///   overway top
///   overway top --relay http://10.0.0.1:9401 --relay http://10.0.0.2:9401
///   overway top --once
///   overway top --json
///
/// Exit code 0: shown, 1: the scheduler does not answer, or there is no terminal, 2: wrong usage.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct TopArgs {
    /// Print one frame of each pane as text, and end.
    #[arg(long, conflicts_with = "json")]
    once: bool,
    /// Print what one frame is made of as JSON, and end: `overview`, `events` and `flows`.
    #[arg(long)]
    json: bool,
    /// Seconds between two looks, 1 to 60.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
    /// The admin interface of a relay whose flows are to be shown; may be given several times.
    #[arg(
        long,
        value_name = "URL",
        env = "OVERWAY_RELAY_ADMIN",
        default_value = "http://127.0.0.1:9401",
        value_delimiter = ','
    )]
    relay: Vec<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What one look at the mesh finds.
#[derive(Clone, Debug, Default, Serialize)]
struct Look {
    overview: OverviewBody,
    events: Vec<Event>,
}

/// What one relay tells of flows.
#[derive(Clone, Debug, Default, Serialize)]
struct RelayFlows {
    /// Where it was asked.
    url: String,
    /// The relay's name; `null` if it never answered.
    name: Option<String>,
    /// Flows of its ends, those heard of last; `null` if it did not answer.
    flows: Option<Vec<FlowBody>>,
}

/// What comes while a screen is shown.
#[derive(Debug)]
enum News {
    Look(Look),
    Flows(Vec<RelayFlows>),
    /// Why there was no look.
    Problem(String),
}

#[derive(Debug, Deserialize)]
struct EventsAnswer {
    events: Vec<Event>,
}

/// What is read of a relay's status.
#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// A relay that is asked for flows.
struct Relay {
    client: Client,
    name: Option<String>,
}

/// Shows one frame, or one after the other.
pub(crate) fn run(args: &TopArgs) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.admin)?;
    let mut relays = relays(&args.relay)?;
    let first = look(&client)?;
    if args.json {
        let Look { overview, events } = first;
        let flows = flows(&mut relays);
        output::print_json(
            &serde_json::json!({ "overview": overview, "events": events, "flows": flows }),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut view = View::default();
    view.take(News::Look(first));
    if args.once {
        view.take(News::Flows(flows(&mut relays)));
        output::print(&all_panes(&mut view)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !std::io::stdout().is_terminal() {
        let text = "standard output is no terminal: --once prints one frame, --json its data";
        return Err(Failure::Failed(text.to_owned()));
    }
    let (tell, news) = mpsc::sync_channel(1);
    let every = Duration::from_secs(args.every);
    // A relay that hangs keeps nobody from seeing links.
    again_and_again(every, tell.clone(), move || News::Flows(flows(&mut relays)));
    again_and_again(every, tell, move || match look(&client) {
        Ok(look) => News::Look(look),
        Err(failure) => News::Problem(failure.text().to_owned()),
    });
    screen::run(view, &news)?;
    Ok(ExitCode::SUCCESS)
}

/// Tells from a thread of its own, which ends with this process, or once nobody looks.
fn again_and_again(
    every: Duration,
    tell: SyncSender<News>,
    mut ask: impl FnMut() -> News + Send + 'static,
) {
    std::thread::spawn(move || {
        while tell.send(ask()).is_ok() {
            std::thread::sleep(every);
        }
    });
}

fn look(client: &Client) -> Result<Look, Failure> {
    let overview = client.get("/v1/overview")?;
    let EventsAnswer { events } = client.get("/v1/events")?;
    Ok(Look { overview, events })
}

fn relays(urls: &[String]) -> Result<Vec<Relay>, Failure> {
    if urls.len() > RELAYS_MAX {
        let text = format!("{} relays are given, and at most {RELAYS_MAX} are asked", urls.len());
        return Err(Failure::Configuration(text));
    }
    let relay = |url: &String| {
        Client::at(url, ("relay", "--relay")).map(|client| Relay { client, name: None })
    };
    urls.iter().map(relay).collect()
}

/// Asks one after the other; who does not answer tells nothing.
fn flows(relays: &mut [Relay]) -> Vec<RelayFlows> {
    let ask = |relay: &mut Relay| {
        let Relay { client, name } = relay;
        let flows = client.get("/v1/flows").ok();
        if name.is_none() && flows.is_some() {
            *name = client.get::<Named>("/v1/status").ok().map(|named| named.name);
        }
        RelayFlows { url: client.base().to_owned(), name: name.clone(), flows }
    };
    relays.iter_mut().map(ask).collect()
}

/// A frame of each pane as text.
fn all_panes(view: &mut View) -> Result<String, Failure> {
    let mut text = String::new();
    for pane in Pane::ALL {
        view.show(pane);
        text.push_str(&screen::as_text(view, FRAME).map_err(Failure::failed)?);
    }
    Ok(text)
}
