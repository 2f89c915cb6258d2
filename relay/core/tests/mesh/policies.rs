//! Frames under a policy: their own routes, detours that the policy allows, and nothing else.

use std::time::Duration;

use overway_relay_core::{DropReason, LocalFrame};
use overway_wire::control::{Item, Policy, Tenant};
use overway_wire::{Class, PolicyId, RelayId};

use crate::harness::{Mesh, frame, route, weighted_route};

const EU: u32 = 9;

fn eu(relays: &[u32]) -> Item {
    Policy { policy: EU, name: "eu-only".into(), relays: relays.to_vec() }.into()
}

fn restricted(class: Class, sequence: u64) -> LocalFrame {
    LocalFrame { policy: PolicyId(9), ..frame(3, class, sequence) }
}

/// From 1 to 3 everybody goes through 4 and those of the policy through 2, where the ways on are through 5
/// and 4. Relays of `told` know the policy, which allows `relays`.
fn mesh(relays: &[u32], told: &[u16]) -> Mesh {
    Mesh::with(5, 1, |id| items(id, relays, told))
}

fn items(id: u16, relays: &[u32], told: &[u16]) -> Vec<Item> {
    let mut items = match id {
        1 => [route(3, &[&[4, 3], &[2, 3]]), weighted_route(3, EU, &[(&[2, 3], 0)])].concat(),
        2 => [route(3, &[&[3], &[4, 3], &[5, 3]]), route(1, &[&[1]])].concat(),
        4 | 5 => route(3, &[&[3]]),
        _ => Vec::new(),
    };
    items.extend(told.contains(&id).then(|| eu(relays)));
    items
}

fn stream(mesh: &mut Mesh, class: Class, sequences: std::ops::Range<u64>) {
    for sequence in sequences {
        mesh.send_frame(1, restricted(class, sequence));
        mesh.run(Duration::from_millis(20));
    }
    mesh.run(Duration::from_millis(100));
}

#[test]
fn a_policys_frames_take_its_own_route_and_say_so_at_the_end() {
    let mut mesh = mesh(&[1, 2, 3], &[1]);

    stream(&mut mesh, Class::Bulk, 0..20);

    assert_eq!(mesh.delivered.len(), 20);
    assert!(mesh.delivered.iter().all(|(at, it)| (*at, it.policy) == (RelayId(3), PolicyId(9))));
    assert_eq!((mesh.stats(2).frames_forwarded, mesh.stats(4).frames_forwarded), (20, 0));
}

#[test]
fn a_policy_that_the_source_does_not_know_is_refused_and_nothing_is_sent() {
    let mut mesh = mesh(&[1, 2, 3], &[2]);

    stream(&mut mesh, Class::Bulk, 0..20);

    assert_eq!(mesh.stats(1).dropped(DropReason::UnknownPolicy), 20);
    assert_eq!((mesh.delivered.len(), mesh.stats(1).frames_sent), (0, 0));
}

#[test]
fn a_detour_goes_only_where_the_policy_allows() {
    for class in [Class::Realtime, Class::Bulk] {
        let mut mesh = mesh(&[1, 2, 3, 5], &[1, 2]);
        stream(&mut mesh, class, 0..50);
        mesh.cut.extend([(2, 3, 0), (3, 2, 0)]);
        stream(&mut mesh, class, 50..100);

        assert!(mesh.stats(2).detours > 0);
        assert_eq!(mesh.sequences(), (0..100).collect(), "{class}");
        assert!(mesh.stats(5).frames_forwarded > 0, "around by 5, which is allowed");
        assert_eq!(mesh.stats(4).frames_forwarded, 0, "and not by 4, which is not");
    }
}

#[test]
fn where_no_allowed_detour_is_left_the_frame_is_dropped_and_counted() {
    let mut mesh = mesh(&[1, 2, 3], &[1, 2]);
    stream(&mut mesh, Class::Realtime, 0..50);
    mesh.cut.extend([(2, 3, 0), (3, 2, 0)]);
    stream(&mut mesh, Class::Realtime, 50..100);

    assert!(mesh.stats(2).dropped(DropReason::PolicyForbids) > 30);
    assert_eq!((mesh.stats(2).copies, mesh.stats(2).detours), (0, 0));
    assert_eq!((mesh.stats(4).frames_forwarded, mesh.stats(5).frames_forwarded), (0, 0));
}

#[test]
fn a_transit_relay_that_does_not_know_the_policy_forwards_and_makes_no_detour() {
    let mut mesh = mesh(&[1, 2, 3, 5], &[1]);
    stream(&mut mesh, Class::Realtime, 0..50);
    assert_eq!(mesh.delivered.len(), 50);
    mesh.cut.extend([(2, 3, 0), (3, 2, 0)]);
    stream(&mut mesh, Class::Realtime, 50..100);

    assert!(mesh.stats(2).dropped(DropReason::PolicyForbids) > 30);
    assert_eq!((mesh.stats(4).frames_forwarded, mesh.stats(5).frames_forwarded), (0, 0));
}

#[test]
fn frames_without_a_policy_are_as_free_as_ever() {
    let mut mesh = mesh(&[1, 2, 3], &[1, 2]);
    mesh.stream(Class::Bulk, 0, Duration::from_secs(1));
    mesh.run(Duration::from_millis(100));

    assert_eq!((mesh.delivered.len(), mesh.stats(4).frames_forwarded), (50, 50));
}

/// The tenant's number, and where it is told beside the policy.
const TENANT: PolicyId = PolicyId(20);

fn of_tenant(class: Class, sequence: u64) -> LocalFrame {
    LocalFrame { policy: TENANT, ..frame(3, class, sequence) }
}

/// The mesh of above, where relays of `told` know the tenant as well, whose routes are those of `route_policy`.
fn tenants_mesh(route_policy: u32, told: &[u16]) -> Mesh {
    let tenant = Tenant {
        number: u32::from(TENANT.0),
        name: "im".into(),
        route_policy,
        ..Tenant::default()
    };
    Mesh::with(5, 1, |id| {
        let mut items = items(id, &[1, 2, 3, 5], &[1, 2]);
        items.extend(told.contains(&id).then(|| tenant.clone().into()));
        items
    })
}

#[test]
fn a_tenants_frames_take_its_policys_routes_under_its_own_number() {
    let mut mesh = tenants_mesh(EU, &[1]);

    for sequence in 0..60 {
        mesh.send_frame(1, of_tenant(Class::Bulk, sequence));
        mesh.run(Duration::from_millis(20));
    }
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.delivered.len(), 60);
    assert!(mesh.delivered.iter().all(|(at, it)| (*at, it.policy) == (RelayId(3), TENANT)));
    assert_eq!((mesh.stats(2).frames_forwarded, mesh.stats(4).frames_forwarded), (60, 0));
}

#[test]
fn a_tenant_without_a_policy_takes_everybodys_routes() {
    let mut mesh = tenants_mesh(0, &[1]);

    for sequence in 0..20 {
        mesh.send_frame(1, of_tenant(Class::Bulk, sequence));
        mesh.run(Duration::from_millis(20));
    }
    mesh.run(Duration::from_millis(100));

    assert_eq!((mesh.delivered.len(), mesh.stats(4).frames_forwarded), (20, 20));
}

#[test]
fn a_tenant_that_the_source_does_not_know_is_refused_and_so_is_one_of_an_unknown_policy() {
    for mut mesh in [tenants_mesh(EU, &[2]), tenants_mesh(8, &[1, 2])] {
        for sequence in 0..20 {
            mesh.send_frame(1, of_tenant(Class::Bulk, sequence));
        }
        mesh.run(Duration::from_millis(100));

        assert_eq!(mesh.stats(1).dropped(DropReason::UnknownPolicy), 20);
        assert_eq!((mesh.delivered.len(), mesh.stats(1).frames_sent), (0, 0));
    }
}

#[test]
fn a_detour_of_a_tenants_frames_goes_only_where_its_policy_allows() {
    let mut mesh = tenants_mesh(EU, &[1, 2]);
    for sequence in 0..100 {
        if sequence == 50 {
            mesh.cut.extend([(2, 3, 0), (3, 2, 0)]);
        }
        mesh.send_frame(1, of_tenant(Class::Bulk, sequence));
        mesh.run(Duration::from_millis(20));
    }
    mesh.run(Duration::from_millis(100));

    assert!(mesh.stats(2).detours > 0);
    assert_eq!(mesh.sequences(), (0..100).collect());
    assert!(mesh.stats(5).frames_forwarded > 0, "around by 5, which is allowed");
    assert_eq!(mesh.stats(4).frames_forwarded, 0, "and not by 4, which is not");
}

/// The mesh of above, where the cell is 1, 2 and 3, and 5 is of a partner; the tenant's frames go from 1 to 3.
fn cell_mesh() -> Mesh {
    const BOTH: u32 = 10;
    let tenant = Tenant {
        number: u32::from(TENANT.0),
        name: "im".into(),
        route_policy: EU,
        backup_policy: BOTH,
        cell: "eu".into(),
        ..Tenant::default()
    };
    let both: Item =
        Policy { policy: BOTH, name: "eu and partners".into(), relays: vec![1, 2, 3, 5] }.into();
    Mesh::with(5, 1, |id| {
        let mut items = items(id, &[1, 2, 3], &[1, 2]);
        if id <= 2 {
            items.extend([both.clone(), tenant.clone().into()]);
        }
        items
    })
}

#[test]
fn a_partner_of_the_cell_carries_frames_only_where_the_cell_has_no_path_and_no_other_ever_does() {
    for class in [Class::Realtime, Class::Bulk] {
        let mut mesh = cell_mesh();
        let stream = |mesh: &mut Mesh, sequences: std::ops::Range<u64>| {
            for sequence in sequences {
                mesh.send_frame(1, of_tenant(class, sequence));
                mesh.run(Duration::from_millis(20));
            }
            mesh.run(Duration::from_millis(100));
        };
        stream(&mut mesh, 0..50);
        assert_eq!((mesh.delivered.len(), mesh.stats(5).frames_forwarded), (50, 0));

        mesh.cut.extend([(2, 3, 0), (3, 2, 0)]);
        stream(&mut mesh, 50..100);

        assert_eq!(mesh.sequences(), (0..100).collect(), "{class}");
        assert!(mesh.stats(5).frames_forwarded > 0, "around by the partner");
        assert_eq!(mesh.stats(4).frames_forwarded, 0, "never by a stranger");
    }
}
