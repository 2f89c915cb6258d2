//! The status as text. What is not known is written `unknown`, never left out or shown as zero.

use std::fmt::Write;

use overway_scheduler::api::{
    ImprovementBody, LinkBody, RelayBody, RouteSummaryBody, StatusBody, WindowBody,
};

use crate::cli::text::{Table, count, millis};
use crate::cli::{drain, policy, routes};

const UNKNOWN: &str = "unknown";

/// Everything; routes if wanted, with their backups or without.
pub(super) fn text(
    status: &StatusBody,
    problems: &[String],
    routes_with_backups: Option<bool>,
) -> String {
    let mut out = String::new();
    for problem in problems {
        let _ = writeln!(out, "! {problem}");
    }
    if !problems.is_empty() {
        out.push('\n');
    }
    out.push_str(&summary(status));
    if status.relays.is_empty() {
        out.push_str("\nno relays yet: invite one with `overway node add NAME`\n");
        return out;
    }
    let _ = write!(out, "\n{}", relays(&status.relays));
    if !status.links.is_empty() {
        let _ = write!(out, "\n{}", links(status));
    }
    if !status.drains.is_empty() {
        let _ = write!(out, "\n{}", drain::table(&status.drains));
    }
    if !status.policies.is_empty() {
        let _ = write!(out, "\n{}", policy::table(&status.policies));
    }
    if let Some(backups) = routes_with_backups {
        let _ = write!(out, "\n{}", routes::text(&status.routes, status.routes_truncated, backups));
    }
    out
}

fn summary(status: &StatusBody) -> String {
    let connected = status.relays.iter().filter(|relay| relay.connected).count();
    let usable = or_unknown(status.links_usable.map(|count| count.to_string()));
    format!(
        "mesh {}: {connected} of {} relays connected, {usable} of {} links usable, epoch {}.{}\n{}{}",
        status.mesh,
        status.relays.len(),
        status.links.len(),
        status.epoch_term,
        status.epoch_sequence,
        improvement(status.improvement),
        backups(status.routes_summary),
    )
}

/// How many routes hang on one relay. Nothing is known of none.
fn backups(summary: RouteSummaryBody) -> String {
    let RouteSummaryBody { looked_at, without_disjoint, indirect: _, split } = summary;
    if looked_at == 0 {
        return String::new();
    }
    let split = match split {
        0 => String::new(),
        split => format!("; {} split over several paths", count(split as u64, "route")),
    };
    format!(
        "without a path that shares no relay: {without_disjoint} of {looked_at} routes{split}\n"
    )
}

fn improvement(improvement: ImprovementBody) -> String {
    let ImprovementBody { pairs, improved, median_gain_us } = improvement;
    match (pairs, improved) {
        (0, _) => format!("faster than direct: {UNKNOWN}, no pair has been measured yet\n"),
        (_, 0) => format!("faster than direct: none of {pairs} ordered pairs\n"),
        (_, _) => format!(
            "faster than direct: {improved} of {pairs} ordered pairs ({}%), by {} in the median\n",
            improved * 100 / pairs,
            millis(median_gain_us)
        ),
    }
}

fn relays(relays: &[RelayBody]) -> String {
    let heading =
        ["RELAY", "ID", "STATE", "REGION", "PROVIDER", "REPORTED", "ADDRESSES", "SERVICES"];
    let mut table = Table::new(&heading);
    // Those away first, then by name.
    let mut sorted: Vec<&RelayBody> = relays.iter().collect();
    sorted.sort_by(|a, b| (a.connected, &a.name).cmp(&(b.connected, &b.name)));
    for relay in sorted {
        let reported = relay.last_report_age_ms;
        table.row([
            relay.name.clone(),
            relay.id.to_string(),
            relay_state(relay).to_owned(),
            known(&relay.region),
            known(&relay.provider),
            reported.map_or_else(
                || UNKNOWN.to_owned(),
                |ms| format!("{}.{} s ago", ms / 1_000, ms % 1_000 / 100),
            ),
            known(&relay.addresses.join(" ")),
            if relay.services.is_empty() { "-".to_owned() } else { relay.services.join(" ") },
        ]);
    }
    table.render()
}

fn relay_state(relay: &RelayBody) -> &'static str {
    match (relay.connected, relay.registered, relay.drain.as_deref()) {
        (false, true, _) => "away",
        (false, false, _) => "never seen",
        (true, _, _) if relay.draining => "stopping",
        (true, _, Some("over")) => "drained",
        (true, _, Some(_)) => "draining",
        (true, _, None) if relay.transit_override == Some(false) => "no transit",
        (true, _, None) => "connected",
    }
}

fn known(text: &str) -> String {
    if text.is_empty() { UNKNOWN.to_owned() } else { text.to_owned() }
}

fn links(status: &StatusBody) -> String {
    let heading = ["LINK", "", "", "STATE", "DELAY", "RTT", "JITTER", "LOSS 30 S", "LOAD", "USE"];
    let mut table = Table::new(&heading);
    let heard =
        |link: &LinkBody| status.relays.iter().any(|relay| relay.id == link.to && relay.connected);
    let mut sorted: Vec<&LinkBody> = status.links.iter().collect();
    sorted.sort_by_key(|link| (link.usable, &link.from_name, &link.to_name, link.index));
    for link in sorted {
        table.row(link_row(link, heard(link)));
    }
    table.render()
}

/// A link is measured where it arrives: if that relay is not `heard`, all numbers are old.
fn link_row(link: &LinkBody, heard: bool) -> [String; 10] {
    let fast = link.fast.filter(|_| heard);
    [
        link.from_name.clone(),
        format!("> {}", link.to_name),
        link.index.to_string(),
        link_state(link, heard),
        or_unknown(link.delay_us.filter(|_| heard).map(millis)),
        or_unknown(fast.and_then(|window| window.rtt_us).map(millis)),
        or_unknown(fast.map(|window| millis(window.jitter_us))),
        loss(link.slow.filter(|_| heard)),
        or_unknown(
            link.load_permille
                .filter(|_| heard)
                .map(|load| format!("{}.{}%", load / 10, load % 10)),
        ),
        link.role.clone(),
    ]
}

fn link_state(link: &LinkBody, heard: bool) -> String {
    match (heard, link.usable, link.inbound == link.outbound) {
        (false, _, _) => UNKNOWN.to_owned(),
        (true, false, true) if link.inbound == UNKNOWN => "not measured yet".to_owned(),
        (true, true, true) => link.inbound.clone(),
        (true, _, _) => format!("{}/{}", link.inbound, link.outbound),
    }
}

fn or_unknown(text: Option<String>) -> String {
    text.unwrap_or_else(|| UNKNOWN.to_owned())
}

/// With its sample count, without which a share of loss says little.
fn loss(window: Option<WindowBody>) -> String {
    match window {
        Some(WindowBody { samples, lost, .. }) if samples > 0 => {
            let permille = u64::from(lost) * 1_000 / u64::from(samples);
            format!("{}.{}% of {samples}", permille / 10, permille % 10)
        }
        Some(_) | None => UNKNOWN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh() -> StatusBody {
        let relay = |id: u16, name: &str, connected| RelayBody {
            id,
            name: name.into(),
            connected,
            registered: true,
            ..RelayBody::default()
        };
        let link = LinkBody {
            from: 2,
            from_name: "oslo".into(),
            to: 1,
            to_name: "rome".into(),
            inbound: "up".into(),
            outbound: "up".into(),
            usable: true,
            role: "idle".into(),
            ..LinkBody::default()
        };
        StatusBody {
            mesh: "demo".into(),
            relays: vec![relay(1, "rome", true), relay(2, "oslo", false)],
            links: vec![link],
            ..StatusBody::default()
        }
    }

    #[test]
    fn problems_come_first_and_what_is_not_known_is_said_so() {
        let text = text(&mesh(), &["relay oslo is away".into()], None);

        assert!(text.starts_with("! relay oslo is away\n\nmesh demo: 1 of 2 relays"), "{text}");
        let link = text.lines().find(|line| line.starts_with("oslo  > rome")).unwrap();
        assert_eq!(link.matches(UNKNOWN).count(), 5, "{link}");
        assert!(!text.contains("PATH"));
    }

    #[test]
    fn a_link_whose_receiver_is_away_is_unknown() {
        let mut status = mesh();
        status.relays[0].connected = false;

        let text = links(&status);

        assert!(text.lines().nth(1).unwrap().starts_with("oslo  > rome  0  unknown"), "{text}");
    }

    #[test]
    fn relays_that_are_away_stand_above_the_others() {
        let text = relays(&mesh().relays);

        let names: Vec<&str> =
            text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["oslo", "rome"]);
    }

    #[test]
    fn an_empty_mesh_says_what_to_do() {
        let status = StatusBody { mesh: "demo".into(), ..StatusBody::default() };

        let text = text(&status, &[], None);

        assert!(text.contains("0 of 0 relays") && text.contains("overway node add"), "{text}");
    }

    #[test]
    fn loss_is_told_with_its_samples() {
        let window = WindowBody { samples: 200, lost: 3, ..WindowBody::default() };

        assert_eq!(loss(Some(window)), "1.5% of 200");
        assert_eq!(loss(Some(WindowBody::default())), UNKNOWN);
    }
}
