//! What would change, as text: how much, then each route, the worst first.

use std::fmt::Write;

use overway_scheduler::api::{WhatIfBody, WhatIfRouteBody};

use crate::cli::paths::path;
use crate::cli::text::{Table, change, count, millis};

/// Routes shown. More do not fit a screen; `--json` has them.
const SHOWN_MAX: usize = 40;

/// Everything.
pub(super) fn text(body: &WhatIfBody) -> String {
    let mut out = summary(body);
    if body.changes.is_empty() {
        return out;
    }
    let mut table = Table::new(&["ROUTE", "", "CLASS", "CHANGE", "DELAY", "NOW", "DELAY", "THEN"]);
    for route in body.changes.iter().take(SHOWN_MAX) {
        table.row(row(route));
    }
    let _ = write!(out, "\n{}", table.render());
    let listed = body.changes.len();
    let hidden = u64::try_from(listed.saturating_sub(SHOWN_MAX)).unwrap_or(u64::MAX);
    if hidden + body.omitted > 0 {
        let _ = writeln!(
            out,
            "and {}: --from, --to and --class leave fewer, --json lists {listed}",
            count(hidden + body.omitted, "more route")
        );
    }
    out
}

fn summary(body: &WhatIfBody) -> String {
    let relays = body.cut_relays.iter().map(|relay| relay.name.clone());
    let links =
        body.cut_links.iter().map(|(a, b)| format!("the links between {} and {}", a.name, b.name));
    let cut: Vec<String> = relays.chain(links).collect();
    let mut out = format!("without {}:\n", cut.join(" and "));
    if body.unreachable > 0 {
        let _ = writeln!(out, "! {} would have no path", count(body.unreachable, "route"));
    }
    let looked = body.routes.saturating_sub(body.ends_cut);
    let _ = writeln!(out, "  {} of {} would change", body.changed, count(looked, "route"));
    if let (Some(median), Some(max)) = (body.delay_change_us_median, body.delay_change_us_max) {
        let (median, max) = (change(median), change(max));
        let _ = writeln!(out, "  delay: {median} in the median, {max} at most");
    }
    if body.evaluated < body.changed {
        let evaluated = body.evaluated;
        let _ = writeln!(out, "  worked out for {evaluated} of them: --from and --to leave fewer");
    }
    if body.ends_cut > 0 {
        let _ = writeln!(out, "  {} more begin or end there", body.ends_cut);
    }
    out
}

fn row(route: &WhatIfRouteBody) -> [String; 8] {
    let none = || "-".to_owned();
    [
        route.source_name.clone(),
        format!("> {}", route.destination_name),
        route.class.clone(),
        route.delay_change_us.map_or_else(|| "no path".to_owned(), change),
        millis(route.now.delay_us),
        path(&route.now.path),
        route.then.as_ref().map_or_else(none, |then| millis(then.delay_us)),
        route.then.as_ref().map_or_else(none, |then| path(&then.path)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_scheduler::api::{CandidateBody, RelayRefBody, StepBody};

    fn candidate(steps: &[&str], delay_us: u32) -> CandidateBody {
        let step = |name: &&str| StepBody { relay: 1, name: (*name).to_owned(), link: 0 };
        let path = steps.iter().map(step).collect();
        CandidateBody { path, delay_us, ..CandidateBody::default() }
    }

    fn body(routes: usize) -> WhatIfBody {
        let route = WhatIfRouteBody {
            source_name: "rome".into(),
            destination_name: "oslo".into(),
            class: "bulk".into(),
            now: candidate(&["bonn", "oslo"], 20_000),
            then: Some(candidate(&["oslo"], 45_600)),
            delay_change_us: Some(25_600),
            ..WhatIfRouteBody::default()
        };
        WhatIfBody {
            cut_relays: vec![RelayRefBody { id: 3, name: "bonn".into() }],
            routes: 132,
            ends_cut: 22,
            changed: routes as u64,
            evaluated: routes as u64,
            delay_change_us_median: Some(25_600),
            delay_change_us_max: Some(25_600),
            changes: vec![route; routes],
            ..WhatIfBody::default()
        }
    }

    #[test]
    fn the_counts_come_first_and_then_each_route() {
        let text = text(&body(1));

        assert!(text.starts_with("without bonn:\n  1 of 110 routes would change\n"), "{text}");
        assert!(text.contains("22 more begin or end there"), "{text}");
        assert!(
            text.contains("+25.6 ms  20.0 ms  via bonn, oslo  45.6 ms  direct to oslo"),
            "{text}"
        );
    }

    #[test]
    fn a_route_without_a_path_is_an_alarm() {
        let mut cut = body(1);
        cut.unreachable = 1;
        cut.changes[0].then = None;
        cut.changes[0].delay_change_us = None;

        let text = text(&cut);

        assert!(text.contains("! 1 route would have no path"), "{text}");
        assert!(text.contains("no path  20.0 ms  via bonn, oslo  -"), "{text}");
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let text = text(&body(SHOWN_MAX + 2));

        assert!(text.ends_with(
            "and 2 more routes: --from, --to and --class leave fewer, --json lists 42\n"
        ));
    }
}
