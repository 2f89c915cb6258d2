//! Services of tenants: what edges offer at relays, as every relay is told of it.

use std::time::Duration;

use overway_topology::Policy;
use overway_wire::PolicyId;
use overway_wire::control::{EDGE_ID_BYTES, Offer, Place, Tenant};

use crate::harness::{World, id};

const TENANT: u32 = 20;

/// Edge 7 offers "chat" at a relay, and is attached to another one too.
fn offer(other: Option<u32>) -> Offer {
    Offer {
        tenant: TENANT,
        service: "chat".into(),
        edge: vec![7; EDGE_ID_BYTES],
        attachment: 9,
        other: other.map(|relay| Place { relay, attachment: 9 }),
        second: other == Some(1),
        weight: 1,
        healthy: true,
        ..Offer::default()
    }
}

/// Relays 1 to 4, of which 4 speaks control version 2. An edge is attached to 1 and 2.
fn world() -> World {
    let mut world = World::new(4);
    for (relay, fake) in &mut world.relays {
        fake.hello.version_max = if *relay == id(4) { 2 } else { 3 };
    }
    world.connect_all();
    world.advance(Duration::from_secs(15));
    world.offer(id(2), vec![offer(Some(1))]);
    world.offer(id(1), vec![offer(Some(2))]);
    world.advance(Duration::from_millis(100));
    world
}

fn chat(world: &World, relay: u16) -> Vec<Vec<(u32, u32)>> {
    world.relays[&id(relay)].endpoints(TENANT, "chat")
}

#[test]
fn what_edges_offer_is_pushed_to_every_relay_that_knows_of_it() {
    let world = world();

    for relay in 1..=3 {
        assert_eq!(chat(&world, relay), [[(1, 9), (2, 9)]]);
    }
    assert!(chat(&world, 4).is_empty(), "of the version before");
    world.assert_in_step();
    assert_eq!(world.scheduler.stats().offers, 5, "empty ones at the start, and two");
}

#[test]
fn what_is_said_again_makes_no_epoch_and_what_is_withdrawn_is_removed() {
    let mut world = world();
    let epoch = world.relays[&id(3)].epoch;
    world.offer(id(1), vec![offer(Some(2))]);
    world.advance(Duration::from_millis(500));
    assert_eq!(world.relays[&id(3)].epoch, epoch);

    world.offer(id(1), Vec::new());
    world.advance(Duration::from_millis(100));
    assert_eq!(chat(&world, 3), [[(2, 9)]]);
    world.offer(id(2), Vec::new());
    world.advance(Duration::from_millis(100));
    assert!(chat(&world, 3).is_empty());
    world.assert_in_step();
}

#[test]
fn a_dead_relay_takes_its_address_along_and_one_without_a_session_does_not() {
    let mut world = world();
    world.disconnect(id(2));
    world.advance(Duration::from_secs(10));
    assert_eq!(chat(&world, 3), [[(1, 9), (2, 9)]], "its neighbours hear it");

    world.kill(id(2));
    world.advance(Duration::from_secs(10));
    assert_eq!(chat(&world, 3), [[(1, 9)]]);

    world.restart(id(2), true);
    world.relays.get_mut(&id(2)).unwrap().offers.clear();
    world.connect(id(2)).unwrap();
    world.advance(Duration::from_secs(10));
    assert_eq!(chat(&world, 3), [[(1, 9)]], "the edge has not attached anew");
    world.offer(id(2), vec![offer(Some(1))]);
    world.advance(Duration::from_millis(100));
    assert_eq!(chat(&world, 3), [[(1, 9), (2, 9)]]);
    world.assert_in_step();
}

#[test]
fn a_removed_relay_takes_its_edges_along() {
    let mut world = world();
    world.remove(id(1));
    world.advance(Duration::from_secs(1));

    assert_eq!(chat(&world, 3), [[(2, 9)]]);
}

#[test]
fn a_restarted_scheduler_takes_no_service_from_anyone_before_relays_had_the_time_to_speak() {
    let mut world = world();
    world.restart_scheduler();
    world.connect(id(3)).unwrap();
    for _ in 0..5 {
        world.advance(Duration::from_millis(500));
        assert_eq!(chat(&world, 3), [[(1, 9), (2, 9)]], "while the scheduler settles");
    }
    world.connect(id(1)).unwrap();
    world.connect(id(2)).unwrap();
    world.connect(id(4)).unwrap();
    for _ in 0..50 {
        world.advance(Duration::from_millis(100));
        assert_eq!(chat(&world, 3), [[(1, 9), (2, 9)]], "and after");
    }
    world.assert_in_step();
}

#[test]
fn a_relay_that_reports_without_a_word_on_offers_has_none() {
    let mut world = world();
    world.disconnect(id(2));
    let fake = world.relays.get_mut(&id(2)).unwrap();
    fake.hello.version_max = 2;
    world.connect(id(2)).unwrap();
    world.advance(Duration::from_secs(2));

    assert_eq!(chat(&world, 3), [[(1, 9)]]);
}

/// The tenant in a cell of some relays, with partners or without.
fn put_cell(world: &mut World, own: &[u16], partners: &[u16]) {
    let relays = |relays: &[u16]| relays.iter().map(|&relay| id(relay)).collect();
    let all = [own, partners].concat();
    for (policy, relays) in [(9, relays(own)), (10, relays(&all))] {
        let policy_of = Policy { name: policy.to_string(), relays, ..Policy::default() };
        let put = world.scheduler.handle_policy(PolicyId(policy), Some(policy_of), world.now);
        put.unwrap();
    }
    let tenant = Tenant {
        number: TENANT,
        name: "im".into(),
        route_policy: 9,
        backup_policy: 10,
        cell: "eu".into(),
        ..Tenant::default()
    };
    world.scheduler.handle_tenant(PolicyId(20), Some(tenant), world.now).unwrap();
    world.advance(Duration::from_secs(2));
}

#[test]
fn records_of_a_tenant_with_a_cell_stay_in_it_and_with_its_partners() {
    let mut world = World::new(5);
    world.relays.values_mut().for_each(|fake| fake.hello.version_max = 3);
    world.connect_all();
    world.advance(Duration::from_secs(15));
    put_cell(&mut world, &[1, 2], &[3]);
    world.offer(id(2), vec![offer(Some(1))]);
    world.offer(id(1), vec![offer(Some(2))]);
    world.advance(Duration::from_millis(100));
    let told =
        |world: &World| (1..=5).filter(|&relay| !chat(world, relay).is_empty()).collect::<Vec<_>>();
    assert_eq!(told(&world), [1, 2, 3]);
    world.assert_in_step();

    put_cell(&mut world, &[1, 2], &[4]);
    assert_eq!(told(&world), [1, 2, 4], "3 forgets them, 4 learns them");
    world.assert_in_step();
    world.offer(id(1), vec![Offer { healthy: false, ..offer(Some(2)) }]);
    world.advance(Duration::from_millis(100));
    assert_eq!(told(&world), [1, 2, 4]);

    let term = world.relays[&id(1)].epoch.term;
    world.raise_term(term + 1);
    world.connect_all();
    world.advance(Duration::from_secs(15));
    assert!(world.relays[&id(5)].tenant(TENANT).is_some(), "a new term knows tenants still");
    assert_eq!(told(&world), [1, 2, 4]);
    world.assert_in_step();
}
