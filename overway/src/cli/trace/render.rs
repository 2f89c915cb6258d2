//! A trace as text.

use std::time::Duration;

use overway_relay::trace::{Step, TracedRelay};

use super::tally::{DelayReport, HopReport, News, PathReport, Report};
use crate::cli::text::{self, Table};

/// What is not known.
const UNKNOWN: &str = "unknown";

/// The path now with its hops, and the earlier ones in a line each.
pub(super) fn text(report: &Report) -> String {
    let Report { from, to, class, sent, paths, .. } = report;
    let probes = text::count(*sent, "probe");
    let mut lines = format!("{} to {}, {class}, {probes}\n", name(from), name(to));
    let shown = paths.iter().rev().find(|path| path.current).or(paths.last());
    let Some(shown) = shown else {
        lines.push_str("nothing has come back yet\n");
        return lines;
    };
    for path in paths.iter().filter(|path| !std::ptr::eq(*path, shown)) {
        lines.push_str(&earlier(path));
    }
    lines.push_str(&hops(shown));
    lines
}

/// That the path is another.
pub(super) fn news(news: &News, after: Duration) -> String {
    let after = after.as_secs_f64();
    format!("{after:.1}s: from probe {} the path is {}", news.sequence, steps(&news.path))
}

fn earlier(path: &PathReport) -> String {
    let relays: Vec<String> = path.hops.iter().map(|hop| name(&hop.relay)).collect();
    let probes = text::count(path.probes, "probe");
    let lost = path.hops.last().and_then(|hop| hop.loss);
    format!("earlier: {}, {probes}, {} lost\n", relays.join(", "), percent(lost))
}

fn hops(path: &PathReport) -> String {
    // All of one sort, or columns could not be compared.
    let one_way = path.hops.iter().all(|hop| hop.one_way.is_some() || hop.arrived == 0);
    let sort = if one_way { "one-way" } else { "round trip" };
    let delay = |hop: &HopReport| if one_way { hop.one_way } else { hop.round_trip };
    let mut table = Table::new(&[
        "HOP", "RELAY", "ADDRESS", "LOSS", "LINE", "PROBES", "LAST", "AVG", "BEST", "WORST",
        "STDEV",
    ]);
    for (at, hop) in path.hops.iter().enumerate() {
        let mut cells = vec![
            (at + 1).to_string(),
            relay(hop),
            hop.address.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
            percent(hop.loss),
            percent(hop.line_loss),
            path.probes.to_string(),
        ];
        cells.extend(delays(delay(hop)));
        table.row(cells);
    }
    format!("delays in ms, {sort}\n{}", table.render())
}

fn delays(delay: Option<DelayReport>) -> [String; 5] {
    let Some(delay) = delay else { return [UNKNOWN; 5].map(str::to_owned) };
    let DelayReport { last_ms, avg_ms, best_ms, worst_ms, stdev_ms, .. } = delay;
    [last_ms, avg_ms, best_ms, worst_ms, stdev_ms].map(|ms| format!("{ms:.1}"))
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| UNKNOWN.to_owned(), |share| format!("{:.1}%", share * 100.0))
}

fn name(relay: &TracedRelay) -> String {
    relay.name.clone().unwrap_or_else(|| format!("r{}", relay.id))
}

fn relay(hop: &HopReport) -> String {
    match hop.link {
        0 => name(&hop.relay),
        link => format!("{}/{link}", name(&hop.relay)),
    }
}

fn steps(path: &[Step]) -> String {
    let step = |step: &Step| match step.link {
        0 => name(&step.relay),
        link => format!("{}/{link}", name(&step.relay)),
    };
    path.iter().map(step).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(id: u16, one_way: Option<DelayReport>) -> HopReport {
        HopReport {
            relay: TracedRelay { id, name: (id != 3).then(|| format!("relay-{id}")) },
            link: u8::from(id == 2),
            address: (id == 2).then(|| "192.0.2.2:4433".to_owned()),
            arrived: 10,
            loss: Some(0.0),
            line_loss: Some(0.015),
            marked: Some(0.0),
            one_way,
            round_trip: Some(DelayReport { avg_ms: 20.25, ..delay() }),
            last_link: None,
        }
    }

    fn delay() -> DelayReport {
        DelayReport {
            samples: 10,
            last_ms: 10.0,
            avg_ms: 10.0,
            median_ms: 10.0,
            best_ms: 9.5,
            worst_ms: 30.0,
            stdev_ms: 2.0,
        }
    }

    fn report(hops: Vec<HopReport>) -> Report {
        let relay = |id: u16| TracedRelay { id, name: Some(format!("relay-{id}")) };
        Report {
            from: relay(1),
            to: relay(3),
            class: "bulk".into(),
            interval_ms: 1_000,
            sent: 10,
            reached: true,
            paths: vec![PathReport { current: true, probes: 10, hops }],
        }
    }

    #[test]
    fn hops_line_up_and_what_is_unknown_is_said() {
        let shown = text(&report(vec![hop(2, Some(delay())), hop(3, Some(delay()))]));

        assert_eq!(
            shown,
            "relay-1 to relay-3, bulk, 10 probes\n\
             delays in ms, one-way\n\
             HOP  RELAY      ADDRESS         LOSS  LINE  PROBES  LAST  AVG   BEST  WORST  STDEV\n\
             1    relay-2/1  192.0.2.2:4433  0.0%  1.5%  10      10.0  10.0  9.5   30.0   2.0\n\
             2    r3         unknown         0.0%  1.5%  10      10.0  10.0  9.5   30.0   2.0\n"
        );
    }

    #[test]
    fn one_hop_without_clocks_makes_all_delays_round_trips() {
        let shown = text(&report(vec![hop(2, Some(delay())), hop(3, None)]));

        assert!(shown.contains("delays in ms, round trip") && shown.contains("20.2"), "{shown}");
    }

    #[test]
    fn nothing_heard_is_said() {
        let silent = Report { paths: Vec::new(), ..report(Vec::new()) };

        assert!(text(&silent).ends_with("nothing has come back yet\n"));
    }
}
