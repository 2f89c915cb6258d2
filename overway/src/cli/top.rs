//! `overway top`.

mod screen;
mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use overway_scheduler::api::OverviewBody;
use serde::{Deserialize, Serialize};

use super::admin::{AdminArgs, Client};
use super::events::Event;
use super::failure::Failure;
use super::output;
use view::{Pane, View};

/// Columns and rows of a frame that no terminal shows.
const FRAME: (u16, u16) = (120, 40);

/// Watch the mesh on a full screen: links, relays with what flows through them, and events as they come.
///
/// Keys: Tab or 1, 2, 3 change the pane, arrows and Page keys scroll, s changes the order, Space stops the picture, q ends.
///
/// Examples:
///   overway top
///   overway top --once
///   overway top --json
///
/// Exit code 0: shown, 1: the scheduler does not answer, or there is no terminal, 2: wrong usage.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct TopArgs {
    /// Print one frame as text, and end.
    #[arg(long, conflicts_with = "json")]
    once: bool,
    /// Print what one frame is made of as JSON, and end: `overview` and `events`, as the admin interface has them.
    #[arg(long)]
    json: bool,
    /// Seconds between two looks, 1 to 60.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What one look at the mesh finds.
#[derive(Clone, Debug, Default, Serialize)]
struct Look {
    overview: OverviewBody,
    events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
struct EventsAnswer {
    events: Vec<Event>,
}

/// Shows one frame, or one after the other.
pub(crate) fn run(args: &TopArgs) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.admin)?;
    let first = look(&client)?;
    if args.json {
        output::print_json(&first)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut view = View::default();
    view.take(first);
    if args.once {
        output::print(&all_panes(&mut view)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !std::io::stdout().is_terminal() {
        let text = "standard output is no terminal: --once prints one frame, --json its data";
        return Err(Failure::Failed(text.to_owned()));
    }
    let (tell, looks) = mpsc::sync_channel(1);
    let every = Duration::from_secs(args.every);
    // Ends with this process, or once nobody looks.
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(every);
            if tell.send(look(&client).map_err(|failure| failure.text().to_owned())).is_err() {
                return;
            }
        }
    });
    screen::run(view, &looks)?;
    Ok(ExitCode::SUCCESS)
}

fn look(client: &Client) -> Result<Look, Failure> {
    let overview = client.get("/v1/overview")?;
    let EventsAnswer { events } = client.get("/v1/events")?;
    Ok(Look { overview, events })
}

/// A frame of each pane as text.
fn all_panes(view: &mut View) -> Result<String, Failure> {
    let mut text = String::new();
    for pane in Pane::ALL {
        view.pane = pane;
        text.push_str(&screen::as_text(view, FRAME).map_err(Failure::failed)?);
    }
    Ok(text)
}
