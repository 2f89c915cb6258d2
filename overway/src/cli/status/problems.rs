//! What is not well in a mesh, worst first.

use std::collections::BTreeSet;
use std::time::Duration;

use overway_scheduler::api::{LinkBody, OverloadBody, RelayBody, StatusBody};
use overway_wire::hop::LINK_MTU;

use crate::cli::text::{duration, rate};

/// Links named one by one; a mesh with more trouble than that is better looked at whole.
const LINKS_SHOWN_MAX: usize = 20;
/// Silence of a connected relay that is worth a word: five reports.
const REPORT_AGE_MS_MAX: u64 = 5_000;

/// One line for each problem.
pub(super) fn of(status: &StatusBody) -> Vec<String> {
    // Traffic is being lost there, or soon will be.
    let overloads = status.overloads.iter().take(LINKS_SHOWN_MAX).map(overload);
    let mut problems: Vec<String> =
        overloads.chain(status.relays.iter().filter_map(relay_problem)).collect();
    if status.settling && !status.relays.is_empty() {
        problems.push(
            "the scheduler waits for relays to report, and pushes no routes meanwhile".to_owned(),
        );
    }
    // A relay that is away has nothing but bad links: it is named once, above. One that is drained has
    // none because the operator wishes it.
    let without_links = |relay: &&RelayBody| !relay.connected || is_over(relay.drain.as_deref());
    let away: BTreeSet<u16> =
        status.relays.iter().filter(without_links).map(|relay| relay.id).collect();
    let drained = |link: &LinkBody| {
        status.drains.iter().any(|drain| {
            is_over(Some(&drain.stage))
                && drain.relays.contains(&link.from_name)
                && drain.relays.contains(&link.to_name)
        })
    };
    let bad: Vec<&LinkBody> = status
        .links
        .iter()
        .filter(|link| !link.usable && !away.contains(&link.from) && !away.contains(&link.to))
        .filter(|link| !drained(link))
        .collect();
    problems.extend(bad.iter().take(LINKS_SHOWN_MAX).map(|link| link_problem(link)));
    if bad.len() > LINKS_SHOWN_MAX {
        problems.push(format!("and {} more links", bad.len() - LINKS_SHOWN_MAX));
    }
    problems
}

fn relay_problem(relay: &RelayBody) -> Option<String> {
    let name = &relay.name;
    match (relay.connected, relay.registered, relay.last_report_age_ms) {
        (false, false, _) => Some(format!("relay {name} has not been heard of since it joined")),
        (false, true, _) => Some(format!("relay {name} is not connected to the scheduler")),
        (true, _, Some(age)) if age > REPORT_AGE_MS_MAX => {
            Some(format!("relay {name} has not reported for {} s", age / 1_000))
        }
        (true, _, _) if relay.draining => Some(format!("relay {name} is about to stop")),
        (true, _, _) => None,
    }
}

/// Whether a drain's deadline has passed.
fn is_over(stage: Option<&str>) -> bool {
    stage == Some("over")
}

fn overload(overload: &OverloadBody) -> String {
    let OverloadBody { kind, relays, index, rate_bps, capacity_bps, lasts_ms } = overload;
    let relays = relays.join(" > ");
    let what = match kind.as_str() {
        "link" => format!("link {relays} ({index})"),
        "sending" => format!("relay {relays}, sending,"),
        "receiving" => format!("relay {relays}, receiving,"),
        "line_sending" => format!("relay {relays}, sending on line {index},"),
        "line_receiving" => format!("relay {relays}, receiving on line {index},"),
        other => format!("{relays} ({other})"),
    };
    let (rate, capacity) = (rate(*rate_bps), rate(*capacity_bps));
    let since = duration(Duration::from_millis(*lasts_ms));
    format!("{what} is overloaded: {rate} of {capacity}, for {since}")
}

fn link_problem(link: &LinkBody) -> String {
    let LinkBody { from_name, to_name, index, inbound, outbound, mtu, .. } = link;
    let narrow = mtu.filter(|&mtu| mtu < LINK_MTU);
    let what = match (inbound.as_str(), outbound.as_str()) {
        ("unknown", "unknown") => "is not measured yet".to_owned(),
        ("up", "up") if link.slow.is_none() => "is up, and not measured yet".to_owned(),
        ("up", "up") => "is up, and routes do not use it yet".to_owned(),
        ("up", "down") if let Some(bytes) = narrow => format!(
            "carries nothing: {to_name} hears {from_name}, but no packets as long as frames need ({bytes} bytes \
             get through)"
        ),
        (inbound, outbound) if inbound == outbound => {
            format!("carries nothing: both ends see it {inbound}")
        }
        (inbound, outbound) => {
            let (inbound, outbound) = (seen(inbound), seen(outbound));
            format!("carries nothing: {to_name} {inbound}, {from_name} {outbound}")
        }
    };
    format!("link {from_name} > {to_name} ({index}) {what}")
}

fn seen(state: &str) -> String {
    match state {
        "unknown" => "has not measured it yet".to_owned(),
        state => format!("sees it {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_scheduler::api::DrainBody;

    fn relay(id: u16, connected: bool) -> RelayBody {
        let name = format!("r{id}");
        RelayBody { id, name, connected, registered: true, ..RelayBody::default() }
    }

    fn link(from: u16, to: u16, usable: bool) -> LinkBody {
        let state = || if usable { "up".to_owned() } else { "down".to_owned() };
        LinkBody {
            from,
            to,
            from_name: format!("r{from}"),
            to_name: format!("r{to}"),
            usable,
            inbound: state(),
            outbound: state(),
            ..LinkBody::default()
        }
    }

    #[test]
    fn a_mesh_without_relays_has_no_problem() {
        assert!(of(&StatusBody { settling: true, ..StatusBody::default() }).is_empty());
    }

    #[test]
    fn a_relay_that_is_away_is_named_once_and_its_links_are_not() {
        let status = StatusBody {
            relays: vec![relay(1, true), relay(2, false)],
            links: vec![link(1, 2, false), link(2, 1, false)],
            ..StatusBody::default()
        };

        assert_eq!(of(&status), ["relay r2 is not connected to the scheduler"]);
    }

    #[test]
    fn links_between_connected_relays_that_carry_nothing_are_named_to_a_bound() {
        let status = StatusBody {
            relays: vec![relay(1, true), relay(2, true)],
            links: vec![link(1, 2, false); LINKS_SHOWN_MAX + 3],
            ..StatusBody::default()
        };

        let problems = of(&status);

        assert_eq!(problems[0], "link r1 > r2 (0) carries nothing: both ends see it down");
        assert_eq!(problems[LINKS_SHOWN_MAX], "and 3 more links");
    }

    #[test]
    fn what_is_overloaded_comes_first() {
        let overload = OverloadBody {
            kind: "link".into(),
            relays: vec!["rome".into(), "oslo".into()],
            index: 1,
            rate_bps: 1_200_000_000,
            capacity_bps: 1_000_000_000,
            lasts_ms: 90_000,
        };
        let status = StatusBody {
            relays: vec![relay(1, false)],
            overloads: vec![overload],
            ..StatusBody::default()
        };

        assert_eq!(
            of(&status)[0],
            "link rome > oslo (1) is overloaded: 1.2 Gbit/s of 1 Gbit/s, for 1m 30s"
        );
    }

    #[test]
    fn links_that_nobody_has_measured_yet_are_told_as_such() {
        let between = |inbound: &str, outbound: &str| LinkBody {
            inbound: inbound.into(),
            outbound: outbound.into(),
            ..link(1, 2, false)
        };

        let told = [("unknown", "unknown"), ("up", "up"), ("unknown", "down")]
            .map(|(inbound, outbound)| link_problem(&between(inbound, outbound)));

        assert_eq!(
            told,
            [
                "link r1 > r2 (0) is not measured yet",
                "link r1 > r2 (0) is up, and not measured yet",
                "link r1 > r2 (0) carries nothing: r2 has not measured it yet, r1 sees it down"
            ]
        );
    }

    #[test]
    fn a_link_that_is_too_narrow_says_so() {
        let narrow = LinkBody {
            inbound: "up".into(),
            outbound: "down".into(),
            mtu: Some(1_280),
            ..link(1, 2, false)
        };

        let said = link_problem(&narrow);

        let what = "carries nothing: r2 hears r1, but no packets as long as frames need (1280 bytes get through)";
        assert_eq!(said, format!("link r1 > r2 (0) {what}"));
    }

    #[test]
    fn links_of_what_is_drained_are_no_problem() {
        let drained = RelayBody { drain: Some("over".into()), ..relay(2, true) };
        let drain = DrainBody {
            stage: "over".into(),
            relays: vec!["r1".into(), "r3".into()],
            ..DrainBody::default()
        };
        let status = StatusBody {
            relays: vec![relay(1, true), drained, relay(3, true)],
            links: vec![link(1, 2, false), link(3, 1, false)],
            drains: vec![drain],
            ..StatusBody::default()
        };

        assert_eq!(of(&status), Vec::<String>::new());
    }
}
