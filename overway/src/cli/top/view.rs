//! What a frame shows: a heading, one of three panes, and the keys.

use std::collections::BTreeMap;
use std::time::Duration;

use overway_scheduler::api::{LinkGlanceBody, RelayGlanceBody};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::Look;
use crate::cli::logging;
use crate::cli::text;

/// What is not known.
const UNKNOWN: &str = "unknown";
const KEYS: &str =
    "Tab pane  1 links  2 relays  3 events  s order  Space stop  arrows scroll  q quit";

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    /// Directed links.
    #[default]
    Links,
    /// Relays, with what flows through them.
    Relays,
    /// What happened, the newest first.
    Events,
}

impl Pane {
    /// All, in their order.
    pub(super) const ALL: [Self; 3] = [Self::Links, Self::Relays, Self::Events];

    /// The one after it.
    pub(super) const fn next(self) -> Self {
        match self {
            Self::Links => Self::Relays,
            Self::Relays => Self::Events,
            Self::Events => Self::Links,
        }
    }
}

/// What is shown.
#[derive(Debug, Default)]
pub(super) struct View {
    look: Look,
    /// The pane.
    pub(super) pane: Pane,
    /// By traffic, or as is: the unwell first.
    pub(super) sorted: bool,
    /// New looks are passed over.
    pub(super) paused: bool,
    /// Why the last look found nothing.
    pub(super) problem: Option<String>,
    scroll: usize,
}

impl View {
    /// Takes a look, unless the picture stands.
    pub(super) fn take(&mut self, look: Look) {
        self.problem = None;
        if !self.paused {
            self.look = look;
        }
    }

    /// Changes the pane.
    pub(super) fn show(&mut self, pane: Pane) {
        self.pane = pane;
        self.scroll = 0;
    }

    /// Scrolls towards the end.
    pub(super) fn scroll_down(&mut self, rows: usize) {
        let all = match self.pane {
            Pane::Links => self.look.overview.links.len(),
            Pane::Relays => self.look.overview.relays.len(),
            Pane::Events => self.look.events.len(),
        };
        self.scroll = self.scroll.saturating_add(rows).min(all.saturating_sub(1));
    }

    /// Scrolls towards the begin.
    pub(super) fn scroll_up(&mut self, rows: usize) {
        self.scroll = self.scroll.saturating_sub(rows);
    }

    /// Draws a frame.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let [heading, pane, keys] =
            Layout::vertical([Constraint::Length(3), Constraint::Min(1), Constraint::Length(1)])
                .areas(frame.area());
        frame.render_widget(Paragraph::new(self.heading()), heading);
        match self.pane {
            Pane::Links => self.draw_links(frame, pane),
            Pane::Relays => self.draw_relays(frame, pane),
            Pane::Events => self.draw_events(frame, pane),
        }
        frame.render_widget(Paragraph::new(KEYS).style(reversed()), keys);
    }

    fn heading(&self) -> Vec<Line<'static>> {
        let overview = &self.look.overview;
        let connected = overview.relays.iter().filter(|relay| relay.connected).count();
        let counts = &overview.link_counts;
        let at = text::moment(overview.at_unix_ms);
        let paused = if self.paused { "  (stopped)" } else { "" };
        let first = format!("mesh {}  {at}{paused}", overview.mesh);
        let second = format!(
            "{connected} of {} relays connected  links: {} usable, {} suspect, {} unusable, {} unknown",
            overview.relays.len(),
            counts.usable,
            counts.suspect,
            counts.unusable,
            counts.unknown,
        );
        let third = match &self.problem {
            Some(problem) => Line::from(format!("! {problem}")).style(coloured(Color::Red)),
            None if overview.settling => Line::from("the scheduler waits for relays to report"),
            None => Line::default(),
        };
        vec![Line::from(first).style(Modifier::BOLD), Line::from(second), third]
    }

    fn draw_links(&self, frame: &mut Frame<'_>, area: Rect) {
        let names: BTreeMap<u16, &str> =
            self.look.overview.relays.iter().map(|relay| (relay.id, &*relay.name)).collect();
        let name = |id: u16| names.get(&id).map_or_else(|| format!("r{id}"), ToString::to_string);
        let mut links: Vec<&LinkGlanceBody> = self.look.overview.links.iter().collect();
        links.sort_by_key(|link| {
            let ill = if self.sorted { 0 } else { illness(&link.state) };
            (std::cmp::Reverse((ill, link.received_bps)), link.from, link.to, link.index)
        });
        let row = |link: &&LinkGlanceBody| {
            let index = if link.index > 0 { format!("/{}", link.index) } else { String::new() };
            let cells = [
                format!("{} > {}{index}", name(link.from), name(link.to)),
                link.state.clone(),
                link.delay_us.map_or_else(unknown, text::millis),
                link.jitter_us.map_or_else(unknown, text::millis),
                link.loss_ppm.map_or_else(unknown, loss),
                text::rate(link.received_bps),
                link.load_permille.map_or_else(unknown, text::percent),
                if link.candidate { "yes".to_owned() } else { "no".to_owned() },
            ];
            Row::new(cells.map(Cell::from)).style(of_state(&link.state))
        };
        let rows = links.iter().skip(self.scroll).map(row);
        let heading = ["LINK", "STATE", "DELAY", "JITTER", "LOSS", "TRAFFIC", "LOAD", "ON A PATH"];
        draw_table(frame, area, heading, rows, [36, 8, 10, 10, 9, 14, 8, 9]);
    }

    fn draw_relays(&self, frame: &mut Frame<'_>, area: Rect) {
        let mut relays: Vec<&RelayGlanceBody> = self.look.overview.relays.iter().collect();
        relays.sort_by_key(|relay| {
            let ill = !self.sorted && !relay.connected;
            (std::cmp::Reverse((ill, relay.sent_bps + relay.received_bps)), relay.id)
        });
        let row = |relay: &&RelayGlanceBody| {
            let state = state_of(relay);
            let report = relay.last_report_age_ms.map(Duration::from_millis);
            let cells = [
                relay.name.clone(),
                state.to_owned(),
                format!("{}/{}", relay.links_usable, relay.links),
                text::rate(relay.received_bps),
                text::rate(relay.sent_bps),
                text::rate(relay.demand_bps),
                report.map_or_else(unknown, text::duration),
                relay.self_stalls.to_string(),
            ];
            let style = if relay.connected { Style::default() } else { coloured(Color::Red) };
            Row::new(cells.map(Cell::from)).style(style)
        };
        let rows = relays.iter().skip(self.scroll).map(row);
        let heading =
            ["RELAY", "STATE", "LINKS", "RECEIVES", "SENDS", "ITS OWN ASK", "REPORT", "STALLS"];
        draw_table(frame, area, heading, rows, [28, 14, 9, 14, 14, 14, 9, 7]);
    }

    fn draw_events(&self, frame: &mut Frame<'_>, area: Rect) {
        let row = |event: &crate::cli::events::Event| {
            let cells = [text::moment(event.at_unix_ms), event.kind.clone(), event.detail.clone()];
            Row::new(cells.map(Cell::from))
        };
        let rows = self.look.events.iter().rev().skip(self.scroll).map(row);
        draw_table(frame, area, ["TIME", "EVENT", "WHAT"], rows, [25, 20, 200]);
    }
}

fn draw_table<'a, const COLUMNS: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    heading: [&'static str; COLUMNS],
    rows: impl Iterator<Item = Row<'a>>,
    widths: [u16; COLUMNS],
) {
    // What is below the screen is not made.
    let rows = rows.take(usize::from(area.height));
    let table =
        Table::new(rows, widths.map(Constraint::Max)).header(Row::new(heading).style(reversed()));
    frame.render_widget(table, area);
}

fn state_of(relay: &RelayGlanceBody) -> &'static str {
    match (relay.connected, relay.drain.as_deref(), relay.draining) {
        (false, _, _) => "not connected",
        (true, Some("over"), _) => "drained",
        (true, Some(_), _) => "draining",
        (true, None, true) => "stopping",
        (true, None, false) => "connected",
    }
}

fn illness(state: &str) -> u8 {
    match state {
        "down" => 3,
        "suspect" => 2,
        "unknown" => 1,
        _ => 0,
    }
}

fn of_state(state: &str) -> Style {
    match illness(state) {
        3 => coloured(Color::Red),
        2 => coloured(Color::Yellow),
        _ => Style::default(),
    }
}

/// A colour, where there may be one.
fn coloured(colour: Color) -> Style {
    if logging::has_colours(&std::io::stdout()) {
        Style::default().fg(colour)
    } else {
        Style::default()
    }
}

fn reversed() -> Style {
    Style::default().add_modifier(Modifier::REVERSED)
}

fn unknown() -> String {
    UNKNOWN.to_owned()
}

fn loss(ppm: u32) -> String {
    format!("{}.{:02}%", ppm / 10_000, ppm % 10_000 / 100)
}

#[cfg(test)]
mod tests {
    use super::super::screen::as_text;
    use super::*;
    use crate::cli::events::Event;

    fn relay(id: u16, connected: bool) -> RelayGlanceBody {
        let name = format!("relay-{id}");
        RelayGlanceBody { id, name, connected, sent_bps: 1_000_000, ..RelayGlanceBody::default() }
    }

    fn link(from: u16, to: u16, state: &str, received_bps: u64) -> LinkGlanceBody {
        let (delay_us, loss_ppm) = (Some(12_300), Some(15_000));
        LinkGlanceBody {
            from,
            to,
            state: state.into(),
            delay_us,
            loss_ppm,
            received_bps,
            ..LinkGlanceBody::default()
        }
    }

    fn view() -> View {
        let mut view = View::default();
        let mut look = Look::default();
        look.overview.mesh = "demo".into();
        look.overview.relays = vec![relay(1, true), relay(2, false)];
        look.overview.links =
            vec![link(1, 2, "up", 9_000_000), link(2, 1, "down", 0), link(1, 3, "up", 10_000_000)];
        let event = |sequence: u64| Event {
            sequence,
            at_unix_ms: sequence * 1_000,
            kind: "link_down".into(),
            detail: format!("detail {sequence}"),
            relay: None,
            to: None,
        };
        look.events = (1..=100).map(event).collect();
        view.take(look);
        view
    }

    fn shown(view: &mut View) -> Vec<String> {
        as_text(view, (120, 12)).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn links_that_are_down_come_first_and_what_is_unknown_is_said() {
        let mut view = view();
        let lines = shown(&mut view);

        assert!(lines[0].starts_with("mesh demo  1970-01-01T"), "{lines:#?}");
        assert!(lines[1].starts_with("1 of 2 relays connected"), "{lines:#?}");
        assert!(lines[3].starts_with("LINK") && lines[11].starts_with("Tab pane"), "{lines:#?}");
        assert!(lines[4].starts_with("relay-2 > relay-1") && lines[4].contains("down"));
        assert!(lines[5].starts_with("relay-1 > r3") && lines[5].contains("10 Mbit/s"));
        assert!(lines[6].contains("12.3 ms") && lines[6].contains("1.50%"), "{}", lines[6]);
        assert!(lines[6].contains("unknown"), "{}", lines[6]);
        view.sorted = true;
        assert!(shown(&mut view)[4].starts_with("relay-1 > r3"));
    }

    #[test]
    fn relays_and_events_have_panes_and_scroll() {
        let mut view = view();
        view.show(Pane::Relays);
        let lines = shown(&mut view);
        assert!(lines[4].starts_with("relay-2") && lines[4].contains("not connected"));
        view.show(Pane::Events);
        assert!(shown(&mut view)[4].contains("detail 100"));
        view.scroll_down(10);
        assert!(shown(&mut view)[4].contains("detail 90"));
        view.scroll_down(usize::MAX);
        assert!(shown(&mut view)[4].contains("detail 1"));
        view.scroll_up(usize::MAX);
        assert!(shown(&mut view)[4].contains("detail 100"));
    }

    #[test]
    fn a_picture_that_stands_stays_and_a_problem_shows() {
        let mut view = view();
        view.paused = true;
        view.take(Look::default());
        view.problem = Some("no scheduler answers".into());
        let lines = shown(&mut view);

        assert!(lines[0].contains("demo") && lines[0].contains("(stopped)"));
        assert_eq!(lines[2], "! no scheduler answers");
    }

    #[test]
    fn any_size_of_terminal_is_drawn() {
        for size in [(1, 1), (10, 3), (300, 100)] {
            as_text(&mut view(), size).unwrap();
        }
    }
}
