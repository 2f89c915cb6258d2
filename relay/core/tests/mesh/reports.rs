//! What relays report, and how little when there is nothing to say.

use std::time::Duration;

use overway_relay_core::LocalFrame;
use overway_wire::control::{Item, Policy, Report, State, Tenant};
use overway_wire::{Class, FlowId, PolicyId, RelayId};

use crate::harness::{Mesh, frame};

/// Runs a while and collects the reports of relay 1.
fn reports(mesh: &mut Mesh, time: Duration) -> Vec<Report> {
    let end = mesh.now + time;
    let mut reports = Vec::new();
    while mesh.now < end {
        mesh.run(Duration::from_millis(10));
        let now = mesh.now;
        reports.extend(mesh.relay(1).poll_report(now));
    }
    reports
}

fn connected(jitter: Duration) -> Mesh {
    let mut mesh = Mesh::new(8, 1, &[(1, 3, &[&[3], &[2, 3]])]);
    mesh.jitter = jitter;
    // Time for the slow window to know the jitter.
    mesh.run(Duration::from_secs(60));
    let now = mesh.now;
    mesh.relay(1).handle_scheduler_connected(now);
    mesh
}

#[test]
fn a_mesh_at_rest_reports_next_to_nothing_between_full_reports() {
    let mut mesh = connected(Duration::from_millis(2));

    let reports = reports(&mut mesh, Duration::from_secs(60));

    assert!((58..=62).contains(&reports.len()), "one each second: {}", reports.len());
    let (full, partial): (Vec<_>, Vec<_>) = reports.iter().partition(|report| report.full);
    assert_eq!(full.len(), 3);
    assert!(full.iter().all(|report| report.links.len() == 7));
    let told: usize = partial.iter().map(|report| report.links.len()).sum();
    assert!(told <= 20, "{told} of 7 links in a minute");
}

#[test]
fn a_slower_link_is_told_at_once_and_one_that_falls_silent_too() {
    let mut mesh = connected(Duration::from_millis(2));
    reports(&mut mesh, Duration::from_secs(5));
    mesh.slower.insert(RelayId(1), Duration::from_millis(8));
    let told = reports(&mut mesh, Duration::from_secs(3));
    let neighbours: std::collections::BTreeSet<u32> =
        told.iter().flat_map(|report| &report.links).map(|link| link.neighbour).collect();
    assert_eq!(neighbours, (2..=8).collect(), "all have become slower");

    mesh.frozen.insert(RelayId(5));
    let told = reports(&mut mesh, Duration::from_secs(1));
    let down = |link: &overway_wire::control::LinkReport| {
        link.neighbour == 5 && link.inbound() == State::Down
    };
    assert!(told.iter().any(|report| report.links.iter().any(down)));
}

#[test]
fn demands_are_what_was_asked_for_with_or_without_a_path() {
    let mut mesh = connected(Duration::ZERO);
    let mut told = Vec::new();
    for sequence in 0..300 {
        let of_policy = LocalFrame { policy: PolicyId(4), ..frame(3, Class::Bulk, sequence) };
        let astray = LocalFrame { flow: FlowId(2), ..frame(9, Class::Realtime, sequence) };
        for frame in [frame(3, Class::Bulk, sequence), astray, of_policy] {
            mesh.send_frame(1, frame);
        }
        told.extend(reports(&mut mesh, Duration::from_millis(10)));
    }

    let demands = &told.last().unwrap().demands;
    let keys: Vec<_> = demands.iter().map(|it| (it.destination, it.class, it.policy)).collect();
    assert_eq!(keys, [(3, 2, 0), (9, 0, 0)], "an unknown policy's traffic is nobody's demand");
    // A hundred frames a second of seven bytes behind a header of one step.
    assert!(demands.iter().all(|it| it.bps.abs_diff(100 * 8 * 38) <= 8 * 38), "{demands:?}");

    let quiet = reports(&mut mesh, Duration::from_secs(4));
    assert!(quiet.last().unwrap().demands.is_empty());
}

#[test]
fn what_a_tenant_asks_for_counts_under_the_policy_whose_routes_it_takes() {
    let policy: Item = Policy { policy: 4, name: "eu".into(), relays: vec![1, 2, 3] }.into();
    let tenant = |number, route_policy| Tenant { number, route_policy, ..Tenant::default() };
    let mut mesh = Mesh::with(3, 1, |id| match id {
        1 => vec![policy.clone(), tenant(20, 4).into(), tenant(21, 4).into(), tenant(22, 0).into()],
        _ => Vec::new(),
    });
    let mut told = Vec::new();
    let now = mesh.now;
    mesh.relay(1).handle_scheduler_connected(now);
    for sequence in 0..300 {
        for number in [20, 21, 22] {
            let policy = PolicyId(number);
            mesh.send_frame(1, LocalFrame { policy, ..frame(3, Class::Bulk, sequence) });
        }
        told.extend(reports(&mut mesh, Duration::from_millis(10)));
    }

    let demands = &told.last().unwrap().demands;
    let keys: Vec<_> = demands.iter().map(|it| (it.destination, it.policy)).collect();
    assert_eq!(keys, [(3, 4), (3, 0)], "the policy's is that of both its tenants");
    assert!(demands[0].bps.abs_diff(2 * demands[1].bps) <= 4 * 8 * 38, "{demands:?}");
}

#[test]
fn the_schedulers_interval_is_kept() {
    let mut mesh = connected(Duration::ZERO);
    mesh.relay(1).set_report_interval(Duration::from_millis(500));
    let now = mesh.now;
    mesh.relay(1).handle_scheduler_connected(now);

    let count = reports(&mut mesh, Duration::from_secs(10)).len();

    assert!((19..=21).contains(&count), "{count}");
}
