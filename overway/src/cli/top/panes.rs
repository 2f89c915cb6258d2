//! The panes' rows and columns.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::time::Duration;

use overway_relay::quality::{FeltBody, FlowBody};
use overway_scheduler::api::{LinkGlanceBody, OverviewBody, RelayGlanceBody};
use ratatui::style::{Color, Style};

use super::RelayFlows;
use super::columns::{Column, column};
use crate::cli::events::Event;
use crate::cli::{logging, text};

/// A link with its ends' names.
pub(super) struct LinkRow<'a> {
    name: String,
    link: &'a LinkGlanceBody,
}

/// Those that are unwell first, then those that carry most.
pub(super) fn links<'a>(overview: &'a OverviewBody) -> Vec<LinkRow<'a>> {
    let names: BTreeMap<u16, &str> =
        overview.relays.iter().map(|relay| (relay.id, &*relay.name)).collect();
    let name = |id: u16| names.get(&id).map_or_else(|| format!("r{id}"), ToString::to_string);
    let row = |link: &'a LinkGlanceBody| {
        let index = if link.index > 0 { format!("/{}", link.index) } else { String::new() };
        LinkRow { name: format!("{} > {}{index}", name(link.from), name(link.to)), link }
    };
    let mut rows: Vec<_> = overview.links.iter().map(row).collect();
    rows.sort_by_key(|LinkRow { link, .. }| {
        (Reverse((illness(&link.state), link.received_bps)), link.from, link.to, link.index)
    });
    rows
}

pub(super) fn link_columns<'a>() -> [Column<LinkRow<'a>>; 8] {
    [
        column("LINK", (26, 0), |row| Some(row.name.clone()), |a, b| a.name.cmp(&b.name)),
        column(
            "STATE",
            (8, 0),
            |row| Some(row.link.state.clone()),
            |a, b| illness(&b.link.state).cmp(&illness(&a.link.state)),
        ),
        column(
            "DELAY",
            (9, 1),
            |row| row.link.delay_us.map(text::millis),
            |a, b| most_first(a.link.delay_us, b.link.delay_us),
        ),
        column(
            "JITTER",
            (9, 4),
            |row| row.link.jitter_us.map(text::millis),
            |a, b| most_first(a.link.jitter_us, b.link.jitter_us),
        ),
        column(
            "LOSS",
            (7, 1),
            |row| row.link.loss_ppm.map(loss),
            |a, b| most_first(a.link.loss_ppm, b.link.loss_ppm),
        ),
        column(
            "TRAFFIC",
            (12, 2),
            |row| Some(text::rate(row.link.received_bps)),
            |a, b| b.link.received_bps.cmp(&a.link.received_bps),
        ),
        column(
            "LOAD",
            (7, 3),
            |row| row.link.load_permille.map(text::percent),
            |a, b| most_first(a.link.load_permille, b.link.load_permille),
        ),
        column(
            "ON A PATH",
            (10, 5),
            |row| Some(if row.link.candidate { "yes" } else { "no" }.to_owned()),
            |a, b| b.link.candidate.cmp(&a.link.candidate),
        ),
    ]
}

pub(super) fn link_style(row: &LinkRow<'_>) -> Style {
    match illness(&row.link.state) {
        3 => coloured(Color::Red),
        2 => coloured(Color::Yellow),
        _ => Style::default(),
    }
}

/// Those that are not connected first, then those that carry most.
pub(super) fn relays(overview: &OverviewBody) -> Vec<&RelayGlanceBody> {
    let mut rows: Vec<_> = overview.relays.iter().collect();
    rows.sort_by_key(|relay| {
        let carries = relay.sent_bps.saturating_add(relay.received_bps);
        (Reverse((!relay.connected, carries)), relay.id)
    });
    rows
}

pub(super) fn relay_columns<'a>() -> [Column<&'a RelayGlanceBody>; 8] {
    [
        column("RELAY", (16, 0), |relay| Some(relay.name.clone()), |a, b| a.name.cmp(&b.name)),
        column(
            "STATE",
            (13, 0),
            |relay| Some(state_of(relay).to_owned()),
            |a, b| state_of(b).cmp(state_of(a)),
        ),
        column(
            "LINKS",
            (7, 1),
            |relay| Some(format!("{}/{}", relay.links_usable, relay.links)),
            |a, b| a.links_usable.cmp(&b.links_usable),
        ),
        column(
            "RECEIVES",
            (12, 1),
            |relay| Some(text::rate(relay.received_bps)),
            |a, b| b.received_bps.cmp(&a.received_bps),
        ),
        column(
            "SENDS",
            (12, 1),
            |relay| Some(text::rate(relay.sent_bps)),
            |a, b| b.sent_bps.cmp(&a.sent_bps),
        ),
        column(
            "ITS OWN ASK",
            (12, 4),
            |relay| Some(text::rate(relay.demand_bps)),
            |a, b| b.demand_bps.cmp(&a.demand_bps),
        ),
        column(
            "REPORT",
            (8, 2),
            |relay| relay.last_report_age_ms.map(age),
            |a, b| most_first(a.last_report_age_ms, b.last_report_age_ms),
        ),
        column(
            "STALLS",
            (7, 3),
            |relay| Some(relay.self_stalls.to_string()),
            |a, b| b.self_stalls.cmp(&a.self_stalls),
        ),
    ]
}

fn age(ms: u64) -> String {
    text::duration(Duration::from_millis(ms))
}

pub(super) fn relay_style(relay: &&RelayGlanceBody) -> Style {
    if relay.connected { Style::default() } else { coloured(Color::Red) }
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

/// A flow at a relay; `None`: what flows there is not known.
pub(super) struct FlowRow<'a> {
    relay: &'a str,
    flow: Option<&'a FlowBody>,
}

impl FlowRow<'_> {
    fn by(&self, other: &Self, of: impl Fn(&FlowBody) -> String) -> Ordering {
        self.flow.map(&of).cmp(&other.flow.map(&of))
    }

    fn last(&self) -> Option<&FeltBody> {
        self.flow.map(|flow| &flow.last)
    }

    fn delay(&self) -> Option<f64> {
        self.last()?.delay_ms.p50
    }

    fn p99(&self) -> Option<f64> {
        self.last()?.delay_ms.p99
    }

    fn gap(&self) -> Option<f64> {
        self.last()?.gap_ms.max
    }

    fn loss(&self) -> Option<f64> {
        self.last()?.loss
    }

    fn longest(&self) -> Option<f64> {
        self.last()?.stall_ms_max
    }

    /// Of streams: datagrams do not stand still.
    fn stalls(&self) -> Option<u64> {
        let flow = self.flow?;
        (flow.kind == "streams").then_some(flow.last.stalls)
    }

    /// How little is well: not told, then open flows that stood still, lost, had gaps, were slow.
    fn illness(&self, other: &Self) -> Ordering {
        let open = |row: &Self| row.flow.is_none_or(|flow| !flow.ended);
        let told = |row: &Self| row.flow.is_some();
        told(self)
            .cmp(&told(other))
            .then_with(|| open(other).cmp(&open(self)))
            .then_with(|| most_first(self.stalls(), other.stalls()))
            .then_with(|| most(self.loss(), other.loss()))
            .then_with(|| most(self.gap(), other.gap()))
            .then_with(|| most(self.p99(), other.p99()))
    }
}

/// Relays that do not tell first, then flows by how unwell they are.
pub(super) fn flows(relays: &[RelayFlows]) -> Vec<FlowRow<'_>> {
    let mut rows: Vec<FlowRow<'_>> = Vec::new();
    for RelayFlows { url, name, flows } in relays {
        let relay = name.as_deref().unwrap_or(url);
        match flows {
            Some(flows) => {
                rows.extend(flows.iter().map(|flow| FlowRow { relay, flow: Some(flow) }));
            }
            None => rows.push(FlowRow { relay, flow: None }),
        }
    }
    rows.sort_by(FlowRow::illness);
    rows
}

pub(super) fn flow_columns<'a>() -> [Column<FlowRow<'a>>; 13] {
    [
        column("RELAY", (13, 0), |row| Some(row.relay.to_owned()), |a, b| a.relay.cmp(b.relay)),
        column("SERVICE", (14, 0), |row| row.flow.map(service), |a, b| a.by(b, service)),
        column("CLASS", (11, 2), |row| row.flow.map(class), |a, b| a.by(b, class)),
        column(
            "FLOW",
            (12, 7),
            |row| row.flow.map(|flow| flow.id.to_string()),
            |a, b| a.flow.map(|flow| flow.id).cmp(&b.flow.map(|flow| flow.id)),
        ),
        column("FAR END", (14, 5), |row| row.flow.map(far), |a, b| a.by(b, far)),
        column("DELAY", (9, 4), |row| row.delay().map(ms), |a, b| most(a.delay(), b.delay())),
        column("P99", (9, 1), |row| row.p99().map(ms), |a, b| most(a.p99(), b.p99())),
        column("GAP", (9, 1), |row| row.gap().map(ms), |a, b| most(a.gap(), b.gap())),
        column("LOST", (8, 1), |row| row.loss().map(lost), |a, b| most(a.loss(), b.loss())),
        column(
            "STALLS",
            (7, 3),
            |row| row.stalls().map(|stalls| stalls.to_string()),
            |a, b| most_first(a.stalls(), b.stalls()),
        ),
        column(
            "LONGEST",
            (9, 6),
            |row| row.longest().map(ms),
            |a, b| most(a.longest(), b.longest()),
        ),
        column(
            "OPEN FOR",
            (9, 8),
            |row| row.flow.and_then(|flow| seconds(flow.age_s)),
            |a, b| most(a.flow.map(|flow| flow.age_s), b.flow.map(|flow| flow.age_s)),
        ),
        column(
            "HEARD",
            (8, 9),
            |row| row.flow.and_then(heard),
            |a, b| most(a.flow.map(|flow| flow.heard_s), b.flow.map(|flow| flow.heard_s)),
        ),
    ]
}

pub(super) fn flow_style(row: &FlowRow<'_>) -> Style {
    let Some(FlowBody { last, ended, .. }) = row.flow else { return coloured(Color::Yellow) };
    let gaps_bad = last.gaps > last.gaps_good;
    match (ended, last.stalls > 0 || last.lost > 0, gaps_bad) {
        (true, _, _) | (false, false, false) => Style::default(),
        (false, true, _) => coloured(Color::Red),
        (false, false, true) => coloured(Color::Yellow),
    }
}

fn class(flow: &FlowBody) -> String {
    flow.class.clone()
}

fn far(flow: &FlowBody) -> String {
    flow.far.clone()
}

fn heard(flow: &FlowBody) -> Option<String> {
    if flow.ended { Some("ended".to_owned()) } else { seconds(flow.heard_s) }
}

fn service(flow: &FlowBody) -> String {
    let tenant = flow.tenant.map_or_else(String::new, |tenant| format!("{tenant}/"));
    format!("{tenant}{}", flow.service)
}

/// The newest first.
pub(super) fn events(events: &[Event]) -> Vec<&Event> {
    events.iter().rev().collect()
}

pub(super) fn event_columns<'a>() -> [Column<&'a Event>; 3] {
    [
        column(
            "TIME",
            (24, 0),
            |event| Some(text::moment(event.at_unix_ms)),
            |a, b| b.sequence.cmp(&a.sequence),
        ),
        column("EVENT", (17, 0), |event| Some(event.kind.clone()), |a, b| a.kind.cmp(&b.kind)),
        column("WHAT", (37, 0), |event| Some(event.detail.clone()), |a, b| a.detail.cmp(&b.detail)),
    ]
}

fn illness(state: &str) -> u8 {
    match state {
        "down" => 3,
        "suspect" => 2,
        "unknown" => 1,
        _ => 0,
    }
}

/// The greatest first.
fn most_first<T: Copy + Ord>(a: Option<T>, b: Option<T>) -> Ordering {
    b.cmp(&a)
}

/// The same of numbers that have no order of their own.
fn most(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// A colour, where there may be one.
pub(super) fn coloured(colour: Color) -> Style {
    if logging::has_colours(&std::io::stdout()) {
        Style::default().fg(colour)
    } else {
        Style::default()
    }
}

fn loss(ppm: u32) -> String {
    format!("{}.{:02}%", ppm / 10_000, ppm % 10_000 / 100)
}

fn lost(share: f64) -> String {
    format!("{:.2}%", share * 1e2)
}

fn ms(value: f64) -> String {
    format!("{value:.1} ms")
}

/// A time that a relay tells; one that is no time is not known.
fn seconds(seconds: f64) -> Option<String> {
    Duration::try_from_secs_f64(seconds).ok().map(text::duration)
}
