//! What is not well in a mesh, worst first.

use std::collections::BTreeSet;

use overway_scheduler::api::{LinkBody, RelayBody, StatusBody};

/// Links named one by one; a mesh with more trouble than that is better looked at whole.
const LINKS_SHOWN_MAX: usize = 20;
/// Silence of a connected relay that is worth a word: five reports.
const REPORT_AGE_MS_MAX: u64 = 5_000;

/// One line for each problem.
pub(super) fn of(status: &StatusBody) -> Vec<String> {
    let mut problems: Vec<String> = status.relays.iter().filter_map(relay_problem).collect();
    if status.settling && !status.relays.is_empty() {
        problems.push(
            "the scheduler waits for relays to report, and pushes no routes meanwhile".to_owned(),
        );
    }
    // A relay that is away has nothing but bad links: it is named once, above.
    let away: BTreeSet<u16> =
        status.relays.iter().filter(|relay| !relay.connected).map(|relay| relay.id).collect();
    let bad: Vec<&LinkBody> = status
        .links
        .iter()
        .filter(|link| !link.usable && !away.contains(&link.from) && !away.contains(&link.to))
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

fn link_problem(link: &LinkBody) -> String {
    let LinkBody { from_name, to_name, index, inbound, outbound, .. } = link;
    let what = if inbound == outbound {
        format!("both ends see it {inbound}")
    } else {
        format!("{to_name} sees it {inbound}, {from_name} sees it {outbound}")
    };
    format!("link {from_name} > {to_name} ({index}) carries nothing: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
