//! An explanation as text: the answer first, then the paths by cost, then the links behind them.

use std::fmt::Write;
use std::time::Duration;

use overway_scheduler::api::{
    ExplainBody, ExplainedBody, ExplainedLinkBody, MissBody, VerdictBody, WindowBody,
};

use crate::cli::paths::path;
use crate::cli::text::{Table, change, cost, duration, millis, percent, rate};

const UNKNOWN: &str = "unknown";

/// Everything.
pub(super) fn text(body: &ExplainBody) -> String {
    let mut out = answer(body);
    let _ = write!(out, "\n{}", costs(body));
    let _ = write!(out, "\n{}", links(body));
    out
}

/// What is in use, since when, and what else a reader wants to know at once.
fn answer(body: &ExplainBody) -> String {
    let ExplainBody { source_name, destination_name, class, policy_name, .. } = body;
    let under = match policy_name.as_str() {
        "" => String::new(),
        name => format!(" under policy {name}"),
    };
    let partners =
        if body.partners { ", with its cell's partners: no path leads there within" } else { "" };
    let mut out = format!("{source_name} > {destination_name}, {class}{under}{partners}\n");
    let mut line = |what: &str, text: String| {
        let _ = writeln!(out, "  {what:<9} {text}");
    };
    let current = &body.current;
    line("in use", format!("{}, {} one way", path(&current.path), millis(current.delay_us)));
    line("because", verdict(&current.verdict));
    line("since", since(body));
    line("direct", direct(body));
    line("backup", backup(body));
    if let Some(split) = split(body) {
        line("split", split);
    }
    if let Some(demand) = body.demand_bps {
        line("asked for", rate(demand));
    }
    for miss in &current.misses {
        line("misses", missing(miss));
    }
    out
}

/// How the traffic is split where not all of it takes the path in use.
fn split(body: &ExplainBody) -> Option<String> {
    let share = |explained: &ExplainedBody| explained.share_permille.filter(|&share| share > 0);
    body.others.iter().find_map(share)?;
    let all = std::iter::once(&body.current).chain(&body.others);
    let parts = all.filter_map(|explained| {
        Some(format!("{} {}", percent(share(explained)?), path(&explained.path)))
    });
    Some(format!("by what was asked for, and the room: {}", parts.collect::<Vec<_>>().join("; ")))
}

fn since(body: &ExplainBody) -> String {
    let moved = match body.moves {
        0 => "never moved".to_owned(),
        1 => "moved once".to_owned(),
        times => format!("moved {times} times"),
    };
    format!("{} ago; {moved} since the scheduler knows the route", elapsed(body.in_use_ms))
}

fn elapsed(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000.. => duration(Duration::from_millis(ms)),
    }
}

fn direct(body: &ExplainBody) -> String {
    match &body.direct {
        None => "there is no direct link that can be used".to_owned(),
        Some(direct) if direct.path == body.current.path => "it is the path in use".to_owned(),
        Some(direct) => {
            let by = i64::from(direct.delay_us) - i64::from(body.current.delay_us);
            format!("would take {} ({})", millis(direct.delay_us), change(by))
        }
    }
}

fn backup(body: &ExplainBody) -> String {
    let is_direct = body.current.path.len() == 1;
    match (body.has_disjoint, body.has_diverse, is_direct) {
        (true, true, _) => {
            "a path that shares no relay is ready, and one by other providers or regions"
        }
        (true, false, _) => {
            "a path that shares no relay is ready; all share a provider and a region"
        }
        (false, true, _) => {
            "none without a relay of this path; one by other providers or regions is ready"
        }
        (false, false, true) => "no other path: should the link fail, so does the route",
        (false, false, false) => {
            "none without a relay of this path: should that fail, so does the route"
        }
    }
    .to_owned()
}

fn missing(miss: &MissBody) -> String {
    let MissBody { kind, value, limit } = miss;
    match kind.as_str() {
        "deadline_us" => {
            format!("the deadline: {} one way, {} at most", millis(*value), millis(*limit))
        }
        "delivery_ppm" => format!("delivery: {} lost, {} at most", share(*value), share(*limit)),
        _ => format!("{kind}: {value}, {limit} at most"),
    }
}

/// Millionths as per cent.
fn share(ppm: u32) -> String {
    format!("{}.{:02}%", ppm / 10_000, ppm % 10_000 / 100)
}

/// Why in plain words.
fn verdict(verdict: &VerdictBody) -> String {
    let by = || verdict.difference.map_or_else(|| UNKNOWN.to_owned(), millis);
    match verdict.kind.as_str() {
        "cheapest" => "it is the cheapest".to_owned(),
        "kept" => format!("another would save {}, too little to move for", by()),
        "kept_while_held" => {
            format!("another would save {}, but was left lately and has to hold first", by())
        }
        "dearer" => format!("costs {} more", by()),
        "not_worth_moving" => format!("saves {}, too little to move for", by()),
        "held_after_leaving" => {
            let left = verdict.remaining_ms.map_or_else(|| UNKNOWN.to_owned(), elapsed);
            format!("saves {}, but was left lately: has to hold for {left} more", by())
        }
        "draining" => "a relay or link of it is being drained".to_owned(),
        "readmission" => "a link of it failed lately and has to hold first".to_owned(),
        other => other.to_owned(),
    }
}

/// Every path by cost term; the one in use first.
fn costs(body: &ExplainBody) -> String {
    let heading = [
        "COST IN MS",
        "DELAY",
        "HOP",
        "SPREAD",
        "LOSS",
        "JITTER",
        "LOAD",
        "PRICE",
        "TOTAL",
        "SHARE",
        "PATH",
        "WHY",
    ];
    let mut table = Table::new(&heading);
    table.row(cost_row("in use", &body.current));
    for other in &body.others {
        table.row(cost_row(&other.reason, other));
    }
    let among = |direct: &&ExplainedBody| {
        body.current.path != direct.path && body.others.iter().all(|o| o.path != direct.path)
    };
    if let Some(direct) = body.direct.as_ref().filter(among) {
        table.row(cost_row("direct", direct));
    }
    table.render()
}

fn cost_row(what: &str, explained: &ExplainedBody) -> [String; 12] {
    let terms = &explained.terms;
    let misses = explained.misses.iter().map(|miss| format!("; misses {}", missing(miss)));
    [
        what.to_owned(),
        cost(terms.delay),
        cost(terms.hop),
        cost(terms.spread),
        cost(terms.loss),
        cost(terms.jitter),
        cost(terms.load),
        cost(terms.price),
        cost(terms.total),
        explained.share_permille.map_or_else(|| "-".to_owned(), percent),
        path(&explained.path),
        verdict(&explained.verdict) + &misses.collect::<String>(),
    ]
}

/// Every link of every path, once.
fn links(body: &ExplainBody) -> String {
    let heading = [
        "LINK",
        "",
        "DELAY 1 S",
        "30 S",
        "RTT",
        "JITTER",
        "LOSS 1 S",
        "LOSS 30 S",
        "LOAD",
        "CAPACITY",
        "PRICE",
        "COST",
    ];
    let mut table = Table::new(&heading);
    let paths = std::iter::once(&body.current).chain(&body.others).chain(&body.direct);
    let mut shown: Vec<(u16, u16, u8)> = Vec::new();
    for link in paths.flat_map(|explained| &explained.links) {
        let id = (link.from, link.to, link.index);
        if !shown.contains(&id) {
            shown.push(id);
            table.row(link_row(link));
        }
    }
    table.render()
}

fn link_row(link: &ExplainedLinkBody) -> [String; 12] {
    let parallel = if link.index == 0 { String::new() } else { format!("/{}", link.index) };
    let rtt = link.fast.rtt_us.or(link.slow.rtt_us);
    [
        link.from_name.clone(),
        format!("> {}{parallel}", link.to_name),
        millis(link.delay_fast_us),
        millis(link.delay_slow_us),
        or_unknown(rtt.map(millis)),
        millis(link.fast.jitter_us.max(link.slow.jitter_us)),
        loss(&link.fast),
        loss(&link.slow),
        or_unknown(link.load_permille.map(percent)),
        or_unknown(link.capacity_bps.map(rate)),
        price(link.price_millicents_per_gb),
        cost(link.terms.total),
    ]
}

fn or_unknown(text: Option<String>) -> String {
    text.unwrap_or_else(|| UNKNOWN.to_owned())
}

fn loss(window: &WindowBody) -> String {
    let WindowBody { samples, lost, .. } = window;
    if *samples == 0 { UNKNOWN.to_owned() } else { format!("{lost} of {samples}") }
}

fn price(millicents: u32) -> String {
    match millicents {
        0 => "-".to_owned(),
        _ => format!("{}.{:02} ct/GB", millicents / 1_000, millicents % 1_000 / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_scheduler::api::{StepBody, TermsBody};

    fn step(name: &str, link: u8) -> StepBody {
        StepBody { relay: 1, name: name.into(), link }
    }

    fn explained(steps: &[StepBody], delay_us: u32, kind: &str) -> ExplainedBody {
        ExplainedBody {
            path: steps.to_vec(),
            reason: "disjoint".into(),
            delay_us,
            terms: TermsBody {
                delay: delay_us,
                hop: 400,
                total: delay_us + 400,
                ..TermsBody::default()
            },
            verdict: VerdictBody {
                kind: kind.into(),
                difference: Some(39_700),
                remaining_ms: Some(12_000),
            },
            ..ExplainedBody::default()
        }
    }

    fn body() -> ExplainBody {
        let link = ExplainedLinkBody {
            from: 1,
            from_name: "rome".into(),
            to: 2,
            to_name: "bonn".into(),
            delay_fast_us: 10_100,
            delay_slow_us: 10_000,
            slow: WindowBody { samples: 300, lost: 2, ..WindowBody::default() },
            price_millicents_per_gb: 2_500,
            ..ExplainedLinkBody::default()
        };
        let current = ExplainedBody {
            links: vec![link.clone()],
            share_permille: Some(1_000),
            ..explained(&[step("bonn", 0), step("oslo", 0)], 20_400, "cheapest")
        };
        let miss = MissBody { kind: "deadline_us".into(), value: 300_000, limit: 150_000 };
        let other = ExplainedBody {
            links: vec![link],
            misses: vec![miss],
            ..explained(&[step("kiev", 1), step("oslo", 0)], 60_100, "held_after_leaving")
        };
        ExplainBody {
            source_name: "rome".into(),
            destination_name: "oslo".into(),
            class: "realtime".into(),
            in_use_ms: 252_000,
            moves: 3,
            has_disjoint: true,
            demand_bps: Some(12_400_000),
            current,
            others: vec![other],
            direct: Some(explained(&[step("oslo", 0)], 60_100, "dearer")),
            ..ExplainBody::default()
        }
    }

    #[test]
    fn the_answer_comes_first() {
        let text = text(&body());

        let lines: Vec<&str> = text.lines().take(7).collect();
        assert_eq!(
            lines,
            [
                "rome > oslo, realtime",
                "  in use    via bonn, oslo, 20.4 ms one way",
                "  because   it is the cheapest",
                "  since     4m 12s ago; moved 3 times since the scheduler knows the route",
                "  direct    would take 60.1 ms (+39.7 ms)",
                "  backup    a path that shares no relay is ready; all share a provider and a region",
                "  asked for 12.4 Mbit/s",
            ]
        );
    }

    #[test]
    fn every_path_stands_with_its_costs_and_why_it_lost() {
        let text = costs(&body());

        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 4, "{text}");
        assert!(rows[1].starts_with("in use") && rows[1].contains("20.40"), "{text}");
        assert!(rows[1].contains("20.80  100.0%  via bonn, oslo"), "{text}");
        assert!(rows[2].contains("via kiev/1, oslo"), "{text}");
        assert!(rows[2].contains("was left lately: has to hold for 12s more"), "{text}");
        assert!(rows[2].ends_with("misses the deadline: 300.0 ms one way, 150.0 ms at most"));
        assert!(rows[3].starts_with("direct") && rows[3].ends_with("costs 39.7 ms more"), "{text}");
    }

    #[test]
    fn a_link_of_two_paths_is_shown_once_and_what_is_not_known_is_said_so() {
        let text = links(&body());

        assert_eq!(text.lines().count(), 2, "{text}");
        let link = text.lines().nth(1).unwrap();
        assert!(link.contains("unknown") && link.contains("2 of 300"), "{link}");
        assert!(link.contains("2.50 ct/GB"), "{link}");
    }

    #[test]
    fn traffic_that_is_split_is_told_with_its_shares() {
        let mut shared = body();
        assert_eq!(split(&shared), None);
        shared.current.share_permille = Some(400);
        shared.others[0].share_permille = Some(600);

        let text = split(&shared).unwrap();

        assert!(text.ends_with("40.0% via bonn, oslo; 60.0% via kiev/1, oslo"), "{text}");
    }

    #[test]
    fn a_route_without_backup_says_what_that_means() {
        let alone = ExplainBody { has_disjoint: false, direct: None, ..body() };

        let text = answer(&alone);

        assert!(text.contains("should that fail, so does the route"), "{text}");
        assert!(text.contains("there is no direct link"), "{text}");
    }

    #[test]
    fn a_kind_of_a_later_version_is_shown_as_it_is() {
        let later = VerdictBody { kind: "too_blue".into(), ..VerdictBody::default() };

        assert_eq!(verdict(&later), "too_blue");
    }
}
