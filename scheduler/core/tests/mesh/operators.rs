//! Drains, transit, policies, demand and doubts, in a mesh of fake relays.

use std::time::Duration;

use overway_scheduler_core::{Drain, DrainStage, Drainable, Event, OperatorError};
use overway_topology::{Cuts, Policy, Reason, Resource, RouteKey};
use overway_wire::control::{
    AccessUse, Demand, Line, LineUse, LinkReport, Report, Role, State, Tenant, TenantQuota,
    TenantUse, Window,
};
use overway_wire::{Class, PolicyId, RelayId};

use crate::harness::{World, id, link};

const SECOND: Duration = Duration::from_secs(1);
const BURST: Duration = Duration::from_millis(20);

fn transit(world: &World) -> RelayId {
    world.relays[&id(1)].paths(2, Class::Realtime)[0].first().relay
}

fn in_use(world: &World, class: Class) -> overway_wire::Path {
    world.relays[&id(1)].paths(2, class)[0]
}

fn key(class: Class, policy: u16) -> RouteKey {
    RouteKey { source: id(1), destination: id(2), class, policy: PolicyId(policy) }
}

#[test]
fn a_drained_relay_is_left_at_once_not_used_after_its_deadline_and_comes_back() {
    let mut world = World::running(5);
    let drained = transit(&world);
    let deadline = Some(world.now + 30 * SECOND);
    let target = Drainable::Relay(drained);
    world
        .scheduler
        .handle_drain(target, Some(Drain { deadline, deadline_unix: None }), world.now)
        .unwrap();
    world.advance(BURST);

    assert!(Class::ALL.into_iter().all(|class| !in_use(&world, class).visits(drained)));
    assert!(!world.relays[&id(1)].paths(drained.0, Class::Bulk).is_empty(), "it is still an end");
    let status = world.scheduler.status(world.now);
    assert_eq!((status.drains[0].stage, status.drains[0].routes_on_it), (DrainStage::Leaving, 0));
    world.assert_in_step();

    world.advance(30 * SECOND);
    assert!(world.relays[&id(1)].paths(drained.0, Class::Bulk).is_empty());
    assert!(world.relays[&drained].paths(1, Class::Bulk).is_empty());
    assert!(world.relays[&id(1)].has_peer(drained.0), "it is still probed");
    let over = Event::DrainChanged { target, stage: DrainStage::Over };
    assert!(world.events.contains(&over));
    world.assert_in_step();

    world.scheduler.handle_drain(target, None, world.now).unwrap();
    world.advance(60 * SECOND);
    assert!(!world.relays[&id(1)].paths(drained.0, Class::Bulk).is_empty());
    assert_eq!(transit(&world), drained);
    world.assert_in_step();
}

#[test]
fn a_drained_link_is_left_and_not_used_after_its_deadline() {
    let mut world = World::running(4);
    let drained = transit(&world);
    let target = Drainable::Link(drained, id(1));
    world.scheduler.handle_drain(target, Some(Drain::default()), world.now).unwrap();
    world.advance(BURST);
    assert_ne!(transit(&world), drained);
    assert!(world.scheduler.status(world.now).links.iter().all(|link| link.usable));

    let deadline = Some(world.now);
    world
        .scheduler
        .handle_drain(target, Some(Drain { deadline, deadline_unix: None }), world.now)
        .unwrap();
    world.advance(BURST);
    let status = world.scheduler.status(world.now);
    let closed: Vec<_> =
        status.links.iter().filter(|link| !link.usable).map(|link| link.id).collect();
    assert_eq!(closed, [link(1, drained.0, 0), link(drained.0, 1, 0)]);
    world.assert_in_step();
}

#[test]
fn wishes_that_cannot_be_are_refused_and_change_nothing() {
    let mut world = World::running(3);
    let now = world.now;
    let drain = Some(Drain::default());
    let unknown = OperatorError::UnknownRelay(id(9));
    let refused = world.scheduler.handle_drain(Drainable::Relay(id(9)), drain, now);
    assert_eq!(refused, Err(unknown.clone()));
    let refused = world.scheduler.handle_drain(Drainable::Link(id(1), id(1)), drain, now);
    assert_eq!(refused, Err(OperatorError::SameRelay(id(1))));
    let refused = world.scheduler.handle_drain(Drainable::Link(id(2), id(1)), None, now);
    assert_eq!(refused.unwrap_err().to_string(), "the link r1-r2 is not being drained");
    assert_eq!(world.scheduler.handle_transit(id(9), None, now), Err(unknown));
    let refused = world.scheduler.handle_policy(PolicyId(4), None, now);
    assert_eq!(refused, Err(OperatorError::UnknownPolicy(PolicyId(4))));
    assert_eq!(world.scheduler.status(now).drains, []);
}

#[test]
fn an_operator_overrides_what_a_relay_says_of_transit() {
    let mut world = World::running(4);
    let through = transit(&world);
    world.scheduler.handle_transit(through, Some(false), world.now).unwrap();
    world.advance(BURST);
    let paths = world.relays[&id(1)].paths(2, Class::Realtime);
    assert!(paths.iter().all(|path| !path.visits(through)), "{paths:?}");
    let status = &world.scheduler.status(world.now).relays[usize::from(through.0) - 1];
    assert_eq!((status.transit, status.transit_override), (false, Some(false)));

    world.scheduler.handle_transit(through, None, world.now).unwrap();
    world.advance(60 * SECOND);
    assert_eq!(transit(&world), through);
}

#[test]
fn a_policy_makes_routes_of_its_own_within_what_it_allows() {
    let mut world = World::new(0);
    for relay in 1..=5 {
        world.add(relay, 1);
        let hello = &mut world.relays.get_mut(&id(relay)).unwrap().hello;
        hello.version_max = if relay == 5 { 1 } else { 2 };
        hello.region = if relay == 3 { "us" } else { "eu" }.into();
    }
    world.connect_all();
    world.advance(15 * SECOND);
    let eu = Policy { name: "eu".into(), regions: ["eu".into()].into(), ..Policy::default() };
    world.scheduler.handle_policy(PolicyId(7), Some(eu), world.now).unwrap();
    world.advance(2 * SECOND);

    world.assert_in_step();
    let first = &world.relays[&id(1)];
    assert_eq!(first.policy(7), [1, 2, 4, 5]);
    let paths = first.paths_of(2, Class::Realtime, 7);
    assert!(!paths.is_empty() && paths.iter().all(|path| !path.visits(id(3))), "{paths:?}");
    assert!(first.paths_of(3, Class::Realtime, 7).is_empty());
    assert_eq!(
        first.paths(2, Class::Realtime)[0].first().relay,
        id(3),
        "without it nothing changed"
    );
    let old = &world.relays[&id(5)];
    assert!(old.policy(7).is_empty() && old.paths_of(2, Class::Realtime, 7).is_empty());

    world.scheduler.handle_policy(PolicyId(7), None, world.now).unwrap();
    world.advance(2 * SECOND);
    assert!(world.relays[&id(1)].paths_of(2, Class::Realtime, 7).is_empty());
    assert!(world.relays[&id(1)].policy(7).is_empty());
    world.assert_in_step();
}

fn tenant(number: u32, route_policy: u32, revoked: &[&str]) -> Tenant {
    let revoked_tokens = revoked.iter().map(|&token| token.to_owned()).collect();
    Tenant { number, name: "im".into(), route_policy, revoked_tokens, ..Tenant::default() }
}

#[test]
fn a_tenant_and_what_is_revoked_of_it_reach_every_relay_that_knows_tenants() {
    let mut world = World::new(0);
    for relay in 1..=4 {
        world.add(relay, 1);
        let hello = &mut world.relays.get_mut(&id(relay)).unwrap().hello;
        hello.version_max = if relay == 4 { 2 } else { 3 };
    }
    world.connect_all();
    world.advance(15 * SECOND);
    let put = |world: &mut World, tenant: Option<Tenant>| {
        world.scheduler.handle_tenant(PolicyId(7), tenant, world.now)
    };

    put(&mut world, Some(tenant(7, 0, &[]))).unwrap();
    world.advance(SECOND);
    for relay in 1..=3 {
        assert_eq!(world.relays[&id(relay)].tenant(7), Some(&tenant(7, 0, &[])));
    }
    assert_eq!(world.relays[&id(4)].tenant(7), None, "an older one is never sent it");

    put(&mut world, Some(tenant(7, 0, &["t1"]))).unwrap();
    world.advance(SECOND);
    for relay in 1..=3 {
        assert_eq!(world.relays[&id(relay)].tenant(7), Some(&tenant(7, 0, &["t1"])));
    }
    world.disconnect(id(4));
    world.relays.get_mut(&id(4)).unwrap().hello.version_max = 3;
    world.connect(id(4)).unwrap();
    world.advance(2 * SECOND);
    assert!(world.relays[&id(4)].tenant(7).is_some(), "one that learns of tenants has it");
    world.assert_in_step();

    put(&mut world, None).unwrap();
    world.advance(SECOND);
    assert!((1..=4).all(|relay| world.relays[&id(relay)].tenant(7).is_none()));
    assert_eq!(put(&mut world, None), Err(OperatorError::UnknownTenant(PolicyId(7))));
    world.assert_in_step();
}

#[test]
fn relays_are_told_the_month_in_which_a_tenant_has_sent_what_it_may_until_it_may_send_more() {
    let mut world = World::new(0);
    for relay in 1..=2 {
        world.add(relay, 1);
        world.relays.get_mut(&id(relay)).unwrap().hello.version_max = 3;
    }
    world.connect_all();
    world.advance(15 * SECOND);
    let quota = |bytes_per_month| Some(TenantQuota { bytes_per_month, ..TenantQuota::default() });
    let put = |world: &mut World, bytes| {
        let tenant = Tenant { quota: quota(bytes), ..tenant(7, 0, &[]) };
        world.scheduler.handle_tenant(PolicyId(7), Some(tenant), world.now).unwrap();
        world.advance(2 * SECOND);
    };
    let told = |world: &World| {
        [1, 2].map(|relay| world.relays[&id(relay)].tenant(7).unwrap().exhausted_month)
    };
    let sends = |world: &mut World, relay, sent_bytes| {
        let tenants = vec![TenantUse { tenant: 7, sent_bytes, ..TenantUse::default() }];
        let access = AccessUse { tenants, boot: 3, month: 24_322, ..AccessUse::default() };
        world.relays.get_mut(&id(relay)).unwrap().access = Some(access);
        world.advance(3 * SECOND);
    };
    put(&mut world, 1_000);

    sends(&mut world, 1, 600);
    assert_eq!(told(&world), [0, 0]);
    sends(&mut world, 2, 400);
    assert_eq!(told(&world), [24_322, 24_322]);
    assert!(world.scheduler.tenant_usage(PolicyId(7)).is_exhausted);
    world.assert_in_step();

    // Another scheduler that takes over with what was kept tells the same.
    let kept: Vec<_> = world.scheduler.usage().collect();
    assert_eq!(kept.len(), 1);
    put(&mut world, 2_000);
    assert_eq!(told(&world), [0, 0]);
    world.scheduler.handle_tenant(PolicyId(7), None, world.now).unwrap();
    world.relays.values_mut().for_each(|relay| relay.access = None);
    put(&mut world, 1_000);
    assert_eq!(told(&world), [0, 0]);
    for (number, usage) in kept {
        world.scheduler.handle_usage(number, usage);
    }
    world.advance(2 * SECOND);
    assert_eq!(told(&world), [24_322, 24_322]);
}

#[test]
fn a_policy_of_a_tenant_is_not_removed() {
    let mut world = World::running(3);
    let all = Policy { name: "all".into(), ..Policy::default() };
    let now = world.now;
    let scheduler = &mut world.scheduler;
    let refused = scheduler.handle_tenant(PolicyId(7), Some(tenant(7, 1, &[])), now);
    assert_eq!(refused, Err(OperatorError::TenantPolicy(1)));
    scheduler.handle_policy(PolicyId(1), Some(all), now).unwrap();
    scheduler.handle_tenant(PolicyId(7), Some(tenant(7, 1, &[])), now).unwrap();

    let refused = scheduler.handle_policy(PolicyId(1), None, now);

    let in_use = OperatorError::PolicyInUse { policy: PolicyId(1), tenant: PolicyId(7) };
    assert_eq!(refused, Err(in_use));
    scheduler.handle_tenant(PolicyId(7), Some(tenant(7, 0, &[])), now).unwrap();
    scheduler.handle_policy(PolicyId(1), None, now).unwrap();
}

#[test]
fn a_relay_that_learns_of_policies_gets_their_routes() {
    let mut world = World::running(3);
    world
        .scheduler
        .handle_policy(
            PolicyId(1),
            Some(Policy { name: "all".into(), ..Policy::default() }),
            world.now,
        )
        .unwrap();
    world.advance(2 * SECOND);
    assert!(world.relays[&id(1)].policy(1).is_empty());

    world.disconnect(id(1));
    world.relays.get_mut(&id(1)).unwrap().hello.version_max = 2;
    world.connect(id(1)).unwrap();
    world.advance(2 * SECOND);

    assert_eq!(world.relays[&id(1)].policy(1), [1, 2, 3]);
    assert!(!world.relays[&id(1)].paths_of(2, Class::Bulk, 1).is_empty());
    world.assert_in_step();
}

#[test]
fn wishes_outlive_a_greater_term() {
    let mut world = World::running(4);
    let drained = transit(&world);
    let target = Drainable::Relay(drained);
    world.scheduler.handle_drain(target, Some(Drain::default()), world.now).unwrap();
    let policy = Policy { name: "all".into(), ..Policy::default() };
    world.scheduler.handle_policy(PolicyId(1), Some(policy), world.now).unwrap();
    world.raise_term(9);
    world.connect_all();
    world.advance(15 * SECOND);

    let status = world.scheduler.status(world.now);
    assert_eq!((status.drains.len(), status.policies.len()), (1, 1));
    assert_ne!(transit(&world), drained);
}

/// Relay 1 has narrow lines and sends so much to relay 2.
fn say_demand(world: &mut World, bps: u64) {
    let sequence = 1_000_000 + world.scheduler.stats().reports;
    let demands = vec![Demand { destination: 2, class: 0, policy: 0, bps }];
    let report = Report { sequence, demands, ..Report::default() };
    world.scheduler.handle_message(id(1), report.into(), world.now).unwrap();
}

#[test]
fn a_sudden_overload_is_told_and_planned_at_once_and_ends() {
    let mut world = World::running(4);
    world.silence(id(1));
    say_demand(&mut world, 100_000_000);
    world.advance(2 * SECOND);
    world.events.clear();
    let plans = world.scheduler.stats().plans;

    say_demand(&mut world, 2_000_000_000);
    world.advance(BURST);

    let overloaded = |event: &&Event| matches!(event, Event::Overloaded { .. });
    let told: Vec<_> = world.events.iter().filter(overloaded).copied().collect();
    assert!(
        told.iter().any(|event| matches!(
            event,
            Event::Overloaded { resource: Resource::Sending(RelayId(1)), .. }
        )),
        "{told:?}"
    );
    assert_eq!(world.scheduler.stats().plans, plans + 1);
    assert!(!world.scheduler.status(world.now).overloads.is_empty());

    say_demand(&mut world, 0);
    world.advance(10 * SECOND);
    let ended = Event::OverloadEnded { resource: Resource::Sending(id(1)) };
    assert!(world.events.contains(&ended));
    assert_eq!(world.scheduler.status(world.now).overloads, []);
}

#[test]
fn demand_beyond_a_transit_relays_line_is_split_and_comes_together_again() {
    let mut world = World::running(4);
    let narrow = transit(&world);
    world.relays.get_mut(&narrow).unwrap().hello.capacity_bps = 100_000_000;
    world.connect(narrow).unwrap();
    world.silence(id(1));
    world.advance(2 * SECOND);
    say_demand(&mut world, 150_000_000);
    world.advance(2 * SECOND);

    let routes = world.scheduler.routes_between(id(1), id(2));
    let route = routes.iter().find(|route| route.key == key(Class::Realtime, 0)).unwrap();
    assert_eq!(route.weights.iter().sum::<u16>(), 1_000, "{route:?}");
    let through: u16 = route
        .candidates
        .iter()
        .zip(&route.weights)
        .filter(|(candidate, _)| candidate.path.visits(narrow))
        .map(|(_, weight)| *weight)
        .sum();
    assert!(through <= 600, "{through} thousandths of 150 Mbit/s on a line of 100");
    let pushed = world.relays[&id(1)].weights(2, Class::Realtime);
    assert_eq!(pushed, route.weights.iter().map(|&weight| weight.into()).collect::<Vec<u32>>());
    world.assert_in_step();

    say_demand(&mut world, 10_000);
    for _ in 0..20 {
        world.advance(SECOND);
        let plans = world.scheduler.stats().plans;
        say_demand(&mut world, 10_000 + plans);
    }
    world.advance(2 * SECOND);
    assert!(world.relays[&id(1)].weights(2, Class::Realtime).iter().all(|weight| *weight == 0));
    world.assert_in_step();
}

#[test]
fn a_line_whose_volume_is_spent_is_left_where_another_way_leads_there() {
    let mut world = World::running(4);
    let spent = transit(&world);
    let line = Line { capacity_bps: 1_000_000_000, cap_gb: 10, ..Line::default() };
    world.relays.get_mut(&spent).unwrap().hello.lines = vec![line];
    world.connect(spent).unwrap();
    world.advance(SECOND);
    assert_eq!(transit(&world), spent);

    let lines = vec![LineUse { sent_bytes_month: 10_000_000_000, sent_bps: 0 }];
    let report = Report { sequence: 1_000_000, lines, ..Report::default() };
    world.scheduler.handle_message(spent, report.into(), world.now).unwrap();
    world.silence(spent);
    world.advance(3 * SECOND);

    assert_ne!(transit(&world), spent);
    assert!(!world.relays[&spent].paths(1, Class::Bulk).is_empty(), "its own ends still send");
    let status = world.scheduler.status(world.now);
    assert!(status.relays[usize::from(spent.0) - 1].lines[0].spent);
}

/// A report of relay `reporter` on the link from another.
fn hears(world: &mut World, reporter: u16, neighbour: u16, state: State) {
    let window = Window { rtt_us: 22_000, samples: 30, ..Window::default() };
    let said = LinkReport {
        neighbour: neighbour.into(),
        inbound: state.into(),
        outbound: state.into(),
        fast: Some(window.clone()),
        slow: Some(window),
        ..LinkReport::default()
    };
    let sequence = 1_000_000 + world.scheduler.stats().reports;
    let report = Report { sequence, links: vec![said], ..Report::default() };
    world.scheduler.handle_message(id(reporter), report.into(), world.now).unwrap();
}

#[test]
fn a_relay_that_one_neighbour_lost_is_doubted_until_it_speaks() {
    let mut world = World::running(6);
    world.advance(20 * SECOND);
    world.silence_all();
    // The slow direct link between 1 and 2 is on no path.
    let (lost, idle) = (2, link(1, 2, 0));
    let links = world.scheduler.status(world.now).links;
    assert!(links.iter().any(|link| link.id == idle && link.role == Role::Idle));

    hears(&mut world, 5, lost, State::Down);
    world.advance(2 * BURST);
    assert_eq!(world.scheduler.stats().doubts, 1);
    assert!(world.scheduler.is_left(idle));

    world.advance(Duration::from_millis(500));
    assert!(world.scheduler.is_left(idle));
    hears(&mut world, lost, 3, State::Up);
    world.advance(2 * SECOND);
    assert!(!world.scheduler.is_left(idle));
}

#[test]
fn who_says_that_it_lost_the_neighbour_too_is_not_doubted() {
    let mut world = World::running(6);
    world.silence_all();
    hears(&mut world, 5, 1, State::Down);
    hears(&mut world, 1, 5, State::Down);
    world.advance(BURST);

    assert_eq!(world.scheduler.stats().doubts, 1, "the first one to be lost, until it spoke");
    let links = world.scheduler.status(world.now).links;
    assert!(links.iter().all(|link| !world.scheduler.is_left(link.id)));
}

#[test]
fn a_route_is_explained_and_a_question_changes_nothing() {
    let mut world = World::running(4);
    let through = transit(&world);
    let before = world.scheduler.status(world.now).epoch;
    let explained = world.scheduler.explain(key(Class::Realtime, 0), world.now).unwrap();
    assert!(explained.explanation.current.candidate.path.visits(through));
    assert!(explained.loads.len() >= 3 && explained.weights.is_empty());

    let cuts = Cuts { relays: [through].into(), ..Cuts::default() };
    let answer = world.scheduler.what_if(&cuts, &[key(Class::Realtime, 0)]);
    let [(_, now, then)] = &answer[..] else { panic!("one key, one answer") };
    assert!(now[0].path.visits(through));
    assert!(!then.is_empty() && then.iter().all(|candidate| !candidate.path.visits(through)));
    assert!(then.iter().any(|candidate| candidate.reason == Reason::Best));
    world.advance(BURST);
    assert_eq!(world.scheduler.status(world.now).epoch, before);
}

#[test]
fn a_relay_that_comes_back_is_on_no_best_path_for_a_while() {
    let mut world = World::running(5);
    world.advance(20 * SECOND);
    let through = transit(&world);
    world.kill(through);
    world.advance(2 * SECOND);
    assert_ne!(transit(&world), through);

    world.restart(through, true);
    world.connect(through).unwrap();
    world.report_all();
    world.advance(5 * SECOND);
    assert_ne!(transit(&world), through, "its links have held for five seconds");
    world.advance(40 * SECOND);
    assert_eq!(transit(&world), through);
}

#[test]
fn a_relay_that_froze_is_on_no_best_path_for_a_while_either() {
    let mut world = World::running(5);
    world.advance(20 * SECOND);
    let through = transit(&world);
    world.relays.get_mut(&through).unwrap().alive = false;
    world.report_all();
    world.advance(Duration::from_millis(600));
    assert_ne!(transit(&world), through);

    world.relays.get_mut(&through).unwrap().alive = true;
    world.report_all();
    world.advance(5 * SECOND);
    assert_ne!(transit(&world), through, "its links have held for five seconds");
}
