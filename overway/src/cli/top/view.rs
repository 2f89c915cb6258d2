//! What a frame shows: a heading, one of four panes, and the keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::columns::{self, Sorting, reversed};
use super::panes::{self, coloured};
use super::{Look, News, RelayFlows};
use crate::cli::text;

/// As wide as the narrowest terminal that people have: 80.
const KEYS: &str = "Tab 1 links 2 relays 3 events 4 flows  s sort r reverse  Space stop  arrows  q";

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
    /// Flows, as the ends at relays feel them.
    Flows,
}

impl Pane {
    /// All, in their order.
    pub(super) const ALL: [Self; 4] = [Self::Links, Self::Relays, Self::Events, Self::Flows];

    /// The one after it.
    pub(super) const fn next(self) -> Self {
        match self {
            Self::Links => Self::Relays,
            Self::Relays => Self::Events,
            Self::Events => Self::Flows,
            Self::Flows => Self::Links,
        }
    }

    /// The one before it.
    pub(super) const fn before(self) -> Self {
        self.next().next().next()
    }
}

/// What is shown.
#[derive(Debug, Default)]
pub(super) struct View {
    look: Look,
    flows: Vec<RelayFlows>,
    /// The pane.
    pub(super) pane: Pane,
    /// By what each pane is sorted.
    sorting: [Sorting; Pane::ALL.len()],
    /// New looks are passed over.
    pub(super) paused: bool,
    /// Why the last look found nothing.
    problem: Option<String>,
    scroll: usize,
}

impl View {
    /// Takes news, unless the picture stands.
    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Problem(problem) => self.problem = Some(problem),
            News::Look(look) => {
                self.problem = None;
                if !self.paused {
                    self.look = look;
                }
            }
            News::Flows(flows) if !self.paused => self.flows = flows,
            News::Flows(_) => {}
        }
    }

    /// Changes the pane.
    pub(super) fn show(&mut self, pane: Pane) {
        self.pane = pane;
        self.scroll = 0;
    }

    /// By what the pane is sorted.
    pub(super) fn sorting(&self) -> Sorting {
        self.sorting[self.pane as usize]
    }

    /// Sorts the pane by its next column.
    pub(super) fn sort_by_next(&mut self) {
        let columns = match self.pane {
            Pane::Links => panes::link_columns().len(),
            Pane::Relays => panes::relay_columns().len(),
            Pane::Events => panes::event_columns().len(),
            Pane::Flows => panes::flow_columns().len(),
        };
        self.sorting[self.pane as usize] = self.sorting().next(columns);
        self.scroll = 0;
    }

    /// Sorts the pane the other way round.
    pub(super) fn reverse(&mut self) {
        let sorting = &mut self.sorting[self.pane as usize];
        sorting.reversed = !sorting.reversed;
        self.scroll = 0;
    }

    /// Scrolls towards the end.
    pub(super) fn scroll_down(&mut self, rows: usize) {
        let all = match self.pane {
            Pane::Links => self.look.overview.links.len(),
            Pane::Relays => self.look.overview.relays.len(),
            Pane::Events => self.look.events.len(),
            Pane::Flows => panes::flows(&self.flows).len(),
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
        self.draw_pane(frame, pane);
        frame.render_widget(Paragraph::new(KEYS).style(reversed()), keys);
    }

    fn draw_pane(&self, frame: &mut Frame<'_>, area: Rect) {
        let (sorting, scroll) = (self.sorting(), self.scroll);
        match self.pane {
            Pane::Links => {
                let (rows, columns) =
                    (panes::links(&self.look.overview), &panes::link_columns()[..]);
                let pane = columns::Pane { columns, rows, style: panes::link_style, grows: 0 };
                pane.draw(frame, area, sorting, scroll);
            }
            Pane::Relays => {
                let (rows, columns) =
                    (panes::relays(&self.look.overview), &panes::relay_columns()[..]);
                let pane = columns::Pane { columns, rows, style: panes::relay_style, grows: 0 };
                pane.draw(frame, area, sorting, scroll);
            }
            Pane::Events => {
                let (rows, columns) =
                    (panes::events(&self.look.events), &panes::event_columns()[..]);
                let pane = columns::Pane { columns, rows, style: |_| Style::default(), grows: 2 };
                pane.draw(frame, area, sorting, scroll);
            }
            Pane::Flows => {
                let (rows, columns) = (panes::flows(&self.flows), &panes::flow_columns()[..]);
                let pane = columns::Pane { columns, rows, style: panes::flow_style, grows: 1 };
                pane.draw(frame, area, sorting, scroll);
            }
        }
    }

    fn heading(&self) -> Vec<Line<'static>> {
        let overview = &self.look.overview;
        let connected = overview.relays.iter().filter(|relay| relay.connected).count();
        let counts = &overview.link_counts;
        let at = text::moment(overview.at_unix_ms);
        let paused = if self.paused { "  (stopped)" } else { "" };
        let first = format!("mesh {}  {at}{paused}", overview.mesh);
        let second = format!(
            "{connected} of {} relays up  links: {} usable, {} suspect, {} unusable, {} unknown",
            overview.relays.len(),
            counts.usable,
            counts.suspect,
            counts.unusable,
            counts.unknown,
        );
        let third = match &self.problem {
            Some(problem) => Line::from(format!("! {problem}")).style(coloured(Color::Red)),
            None if overview.settling => Line::from("the scheduler waits for relays to report"),
            None => self.told_of_flows(),
        };
        vec![Line::from(first).style(Modifier::BOLD), Line::from(second), third]
    }

    /// How many relays tell of flows, where that is what is looked at.
    fn told_of_flows(&self) -> Line<'static> {
        if self.pane != Pane::Flows {
            return Line::default();
        }
        let told = self.flows.iter().filter_map(|relay| relay.flows.as_ref());
        let (relays, flows) = (told.clone().count(), told.map(Vec::len).sum::<usize>());
        Line::from(format!(
            "{flows} flows, as {relays} of {} relays that were asked tell (--relay)",
            self.flows.len()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::screen::as_text;
    use super::*;
    use crate::cli::events::Event;
    use overway_relay::quality::{FeltBody, FlowBody, QuantilesBody};
    use overway_scheduler::api::{LinkGlanceBody, RelayGlanceBody};

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

    fn flow(service: &str, lost: u64, gap_ms: Option<f64>) -> FlowBody {
        let quantiles = |max| QuantilesBody { p99: max, max, ..QuantilesBody::default() };
        let last = FeltBody {
            due: 100,
            lost,
            loss: Some(f64::from(u32::try_from(lost).unwrap()) / 100.0),
            delay_ms: quantiles(Some(41.0)),
            gap_ms: quantiles(gap_ms),
            ..FeltBody::default()
        };
        let (service, class, kind) = (service.into(), "realtime".into(), "datagrams".into());
        FlowBody { id: 7, kind, service, class, last, ..FlowBody::default() }
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
        view.take(News::Look(look));
        let flows = vec![flow("chat", 0, Some(3.0)), flow("voice", 2, None), flow("mail", 0, None)];
        let url = "http://127.0.0.1:9401".to_owned();
        view.take(News::Flows(vec![
            RelayFlows { url: url.clone(), name: Some("rome".into()), flows: Some(flows) },
            RelayFlows { url, name: Some("oslo".into()), flows: None },
        ]));
        view
    }

    fn sized(view: &mut View, size: (u16, u16)) -> Vec<String> {
        as_text(view, size).unwrap().lines().map(str::to_owned).collect()
    }

    fn shown(view: &mut View) -> Vec<String> {
        sized(view, (120, 12))
    }

    #[test]
    fn links_that_are_down_come_first_and_what_is_unknown_is_said() {
        let mut view = view();
        let lines = shown(&mut view);

        assert!(lines[0].starts_with("mesh demo  1970-01-01T"), "{lines:#?}");
        assert!(lines[1].starts_with("1 of 2 relays up"), "{lines:#?}");
        assert!(lines[3].starts_with("LINK") && lines[11].starts_with("Tab 1 links"), "{lines:#?}");
        assert!(lines[4].starts_with("relay-2 > relay-1") && lines[4].contains("down"));
        assert!(lines[5].starts_with("relay-1 > r3") && lines[5].contains("10 Mbit/s"));
        assert!(lines[6].contains("12.3 ms") && lines[6].contains("1.50%"), "{}", lines[6]);
        assert!(lines[6].contains("unknown"), "{}", lines[6]);
    }

    #[test]
    fn a_pane_is_sorted_by_each_of_its_columns_and_the_other_way_round() {
        let mut view = view();
        view.sort_by_next();
        let lines = shown(&mut view);
        assert!(lines[3].starts_with("LINK▼"), "{}", lines[3]);
        assert!(lines[4].starts_with("relay-1 > r3"), "{lines:#?}");
        view.reverse();
        let lines = shown(&mut view);
        assert!(lines[3].starts_with("LINK▲") && lines[4].starts_with("relay-2 >"), "{lines:#?}");
        for _ in 0..5 {
            view.sort_by_next();
        }
        let lines = shown(&mut view);
        assert!(lines[3].contains("TRAFFIC▼"), "{}", lines[3]);
        assert!(lines[4].contains("10 Mbit/s") && lines[5].contains("9 Mbit/s"), "{lines:#?}");
        view.show(Pane::Flows);
        assert_eq!(view.sorting(), Sorting::default(), "each pane has its own");
    }

    #[test]
    fn flows_that_lose_come_first_after_relays_that_do_not_tell() {
        let mut view = view();
        view.show(Pane::Flows);
        let lines = shown(&mut view);

        assert_eq!(lines[2], "3 flows, as 1 of 2 relays that were asked tell (--relay)");
        assert!(lines[3].starts_with("RELAY         SERVICE"), "{lines:#?}");
        assert!(lines[4].starts_with("oslo          unknown"), "{lines:#?}");
        assert!(lines[5].contains("voice") && lines[5].contains("2.00%"), "{lines:#?}");
        assert!(lines[6].contains("chat") && lines[6].contains("3.0 ms"), "{lines:#?}");
        assert!(lines[7].contains("mail") && lines[7].contains("unknown"), "{lines:#?}");
        view.sort_by_next();
        view.sort_by_next();
        let lines = shown(&mut view);
        assert!(lines[3].contains("SERVICE▼"), "{lines:#?}");
        assert!(lines[4].contains("chat") && lines[5].contains("mail"), "{lines:#?}");
        assert!(lines[7].starts_with("oslo          unknown"), "{lines:#?}");
        view.reverse();
        let lines = shown(&mut view);
        assert!(lines[4].contains("voice") && lines[5].contains("mail"), "{lines:#?}");
        assert!(lines[7].starts_with("oslo          unknown"), "{lines:#?}");
    }

    #[test]
    fn eighty_columns_show_what_matters_of_every_pane() {
        let mut view = view();
        let wanted = [
            &["LINK", "STATE", "DELAY", "LOSS", "TRAFFIC", "down", "1.50%", "10 Mbit/s"][..],
            &[
                "RELAY",
                "STATE",
                "LINKS",
                "RECEIVES",
                "SENDS",
                "REPORT",
                "not connected",
                "1 Mbit/s",
            ],
            &["TIME", "EVENT", "WHAT", "1970-01-01T00:01:40.000Z link_down", "detail 100"],
            &["RELAY", "SERVICE", "CLASS", "P99", "GAP", "LOST", "STALLS", "realtime", "41.0 ms"],
        ];
        for (pane, wanted) in Pane::ALL.into_iter().zip(wanted) {
            view.show(pane);
            let lines = sized(&mut view, (80, 24));
            let all = lines.join("\n");
            assert!(lines.iter().all(|line| line.chars().count() <= 80), "{all}");
            for word in wanted {
                assert!(all.contains(word), "{pane:?} has no {word:?} in\n{all}");
            }
            assert_eq!(lines.last().unwrap(), KEYS, "{all}");
        }
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
        view.take(News::Look(Look::default()));
        view.take(News::Flows(Vec::new()));
        view.take(News::Problem("no scheduler answers".into()));
        let lines = shown(&mut view);

        assert!(lines[0].contains("demo") && lines[0].contains("(stopped)"));
        assert_eq!(lines[2], "! no scheduler answers");
        view.show(Pane::Flows);
        assert!(shown(&mut view).iter().any(|line| line.contains("voice")));
    }

    #[test]
    fn any_size_of_terminal_is_drawn() {
        for pane in Pane::ALL {
            for size in [(1, 1), (10, 3), (300, 100)] {
                let mut view = view();
                view.show(pane);
                as_text(&mut view, size).unwrap();
            }
        }
    }
}
