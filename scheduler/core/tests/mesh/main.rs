//! The scheduler against a mesh of fake relays.

mod busy;
mod glance;
mod harness;
mod operators;
mod random;
mod services;

use std::time::Duration;

use overway_scheduler_core::{
    Event, HelloError, MESH_RELAYS_MAX, MessageError, ReportError, ReportsRefused,
};
use overway_wire::control::{Ack, Hello, LinkReport, Renewal, Report, Role, State, ToScheduler};
use overway_wire::{Class, Epoch, LinkIndex};

use harness::{World, hello, id, link};

const SECOND: Duration = Duration::from_secs(1);
/// Above the debounce, below a report's interval.
const BURST: Duration = Duration::from_millis(20);

#[test]
fn a_fresh_mesh_gets_links_then_routes() {
    let world = World::running(4);

    world.assert_in_step();
    let first = &world.relays[&id(1)];
    assert_eq!(first.peers().count(), 3);
    for class in Class::ALL {
        let best = first.paths(2, class)[0];
        assert_eq!(best.intermediates().len(), 1, "the direct link is slow");
        assert!(first.paths(2, class).iter().any(|path| path.intermediates().is_empty()));
    }
    assert!(first.is_candidate(3));
    let status = world.scheduler.status(world.now);
    assert!(!status.settling);
    assert_eq!(status.links.len(), 12);
    assert!(status.links.iter().all(|link| link.usable));
    assert_eq!((status.improvement.pairs, status.improvement.improved), (12, 2));
}

#[test]
fn hellos_that_do_not_fit_the_members_are_refused_with_a_reason() {
    let mut world = World::new(2);
    world.remove(id(2));
    let now = world.now;
    let mut refuse = |relay: u16, hello: Hello| world.scheduler.handle_hello(id(relay), hello, now);

    assert_eq!(refuse(7, hello(7, 1)), Err(HelloError::Unknown(id(7))));
    assert_eq!(refuse(2, hello(2, 1)), Err(HelloError::Removed(id(2))));
    let named = refuse(1, hello(3, 1)).unwrap_err();
    assert_eq!(named, HelloError::Name { said: "relay-3".into(), expected: "relay-1".into() });
    assert!(named.to_string().contains("belongs to \"relay-1\""));
    let version = refuse(1, Hello { version_min: 9, version_max: 9, ..hello(1, 1) });
    assert!(matches!(version, Err(HelloError::Version { min: 9, .. })));
    let behind = refuse(1, Hello { epoch_term: 5, ..hello(1, 1) });
    let (relay, scheduler) = (Epoch { term: 5, sequence: 0 }, Epoch { term: 1, sequence: 0 });
    assert_eq!(behind, Err(HelloError::Behind { relay, scheduler }));
    assert_eq!(refuse(1, hello(1, 1)).unwrap().term, 1);
    assert_eq!(world.scheduler.stats().hellos_refused, 5);
}

#[test]
fn a_full_mesh_takes_no_further_relay() {
    let mut world = World::new(0);
    let most = u16::try_from(MESH_RELAYS_MAX).unwrap();
    let addressed =
        |relay: u16| Hello { addresses: vec![format!("10.1.0.1:{relay}")], ..hello(relay, 0) };
    for relay in 1..=most + 1 {
        world.scheduler.handle_member(id(relay), addressed(relay).name);
    }
    let now = world.now;
    let mut greet = |relay| world.scheduler.handle_hello(id(relay), addressed(relay), now);

    assert!((1..=most).all(|relay| greet(relay).is_ok()));
    assert_eq!(greet(most + 1), Err(HelloError::MeshFull(MESH_RELAYS_MAX)));
    assert!(greet(most).is_ok(), "it is registered already");
}

#[test]
fn nothing_is_pushed_before_a_restarted_scheduler_knows_the_mesh() {
    let mut world = World::running(4);
    let before: Vec<_> = world.relays.values().map(|relay| relay.revision).collect();
    world.restart_scheduler();

    for relay in 1..=3 {
        world.connect(id(relay)).unwrap();
    }
    world.advance(2 * SECOND);
    let after: Vec<_> = world.relays.values().map(|relay| relay.revision).collect();
    assert_eq!(before, after);

    world.connect(id(4)).unwrap();
    world.advance(BURST);
    world.assert_in_step();
    for relay in world.relays.values() {
        assert!(relay.epoch.term == 2 && relay.peers().count() == 3);
    }
    assert!(!world.relays[&id(1)].paths(2, Class::Realtime).is_empty());
}

#[test]
fn a_member_that_stays_away_delays_a_restarted_scheduler_only_a_while() {
    let mut world = World::running(4);
    world.restart_scheduler();
    for relay in 1..=3 {
        world.connect(id(relay)).unwrap();
    }
    world.advance(4 * SECOND);

    world.assert_in_step();
    assert_eq!(world.relays[&id(1)].epoch.term, 2);
    assert!(!world.relays[&id(1)].has_peer(4));
}

#[test]
fn a_remembered_relay_keeps_its_links_while_it_stays_away() {
    let mut world = World::running(4);
    world.restart_scheduler();
    world.scheduler.handle_remembered(id(4), hello(4, 1), world.now).unwrap();
    for relay in 1..=3 {
        world.connect(id(relay)).unwrap();
    }
    world.advance(4 * SECOND);

    assert_eq!(world.relays[&id(1)].epoch.term, 2);
    assert!(world.relays[&id(1)].has_peer(4));
    assert!(!world.scheduler.status(world.now).relays[3].connected);
}

#[test]
fn a_late_relay_keeps_its_routes_until_its_report_is_planned_with() {
    let mut world = World::running(4);
    world.restart_scheduler();
    world.scheduler.handle_remembered(id(4), hello(4, 1), world.now).unwrap();
    for relay in 1..=3 {
        world.connect(id(relay)).unwrap();
    }
    world.advance(4 * SECOND);
    let held = world.relays[&id(4)].revision;

    let fake = &world.relays[&id(4)];
    let hello = Hello { revision: held, ..fake.hello.clone() };
    world.scheduler.handle_hello(id(4), hello, world.now).unwrap();
    world.relays.get_mut(&id(4)).unwrap().connected = true;
    world.advance(BURST);
    assert_eq!(world.relays[&id(4)].revision, held, "it has not reported");

    world.report(id(4));
    world.advance(BURST);
    assert_ne!(world.relays[&id(4)].revision, held);
    assert_eq!(world.relays[&id(4)].peers().count(), 3);
    assert!(!world.relays[&id(4)].paths(1, Class::Realtime).is_empty());
}

#[test]
fn a_restarted_relay_stays_reachable_until_its_first_report() {
    let mut world = World::running(4);
    world.disconnect(id(4));
    world.restart(id(4), true);
    let hello = world.relays[&id(4)].hello.clone();

    world.scheduler.handle_hello(id(4), hello, world.now).unwrap();
    world.relays.get_mut(&id(4)).unwrap().connected = true;
    world.advance(BURST);

    assert!(world.relays[&id(1)].paths(4, Class::Realtime).len() >= 2);
    assert!(world.scheduler.status(world.now).links.iter().all(|link| link.usable));
}

#[test]
fn a_control_blip_tears_nothing_down() {
    let mut world = World::running(4);
    let sent = world.scheduler.stats().updates_full;

    world.disconnect(id(3));
    world.advance(60 * SECOND);
    assert!(world.relays[&id(1)].has_peer(3));
    assert!(!world.relays[&id(1)].paths(3, Class::Bulk).is_empty());
    assert!(!world.relays[&id(3)].paths(1, Class::Bulk).is_empty());
    assert!(world.scheduler.status(world.now).links.iter().all(|link| link.usable));

    world.connect(id(3)).unwrap();
    world.advance(2 * SECOND);
    world.assert_in_step();
    assert_eq!(world.scheduler.stats().updates_full, sent, "deltas go on where they were");
}

#[test]
fn a_scheduler_that_hears_nobody_changes_nothing_and_settles_anew() {
    let mut world = World::running(4);
    for relay in 1..=4 {
        world.disconnect(id(relay));
    }
    world.advance(30 * SECOND);
    assert!(world.scheduler.status(world.now).settling);
    assert_eq!(world.scheduler.stats().blind, 1);

    world.connect(id(1)).unwrap();
    world.advance(BURST);
    world.connect(id(2)).unwrap();
    world.advance(4 * SECOND);
    world.assert_in_step();
    assert!(world.relays[&id(1)].has_peer(4));
    assert!(!world.relays[&id(1)].paths(4, Class::Realtime).is_empty());
}

#[test]
fn a_silent_session_costs_the_relay_nothing_while_its_neighbours_hear_it() {
    let mut world = World::running(3);
    world.relays.get_mut(&id(3)).unwrap().connected = false;
    world.advance(20 * SECOND);

    assert!(world.scheduler.status(world.now).relays[2].connected, "its session is still there");
    assert!(world.scheduler.status(world.now).links.iter().all(|link| link.usable));
    assert!(!world.relays[&id(1)].paths(3, Class::Realtime).is_empty());
}

#[test]
fn a_dead_relay_is_routed_around_at_once() {
    let mut world = World::running(4);
    let through = world.relays[&id(1)].paths(2, Class::Realtime)[0].first().relay;

    world.kill(through);
    world.advance(BURST);

    let paths = world.relays[&id(1)].paths(2, Class::Realtime);
    assert!(!paths.is_empty());
    assert!(paths.iter().all(|path| !path.visits(through)));
    assert!(world.relays[&id(1)].paths(through.0, Class::Realtime).is_empty());
    assert!(world.relays[&id(1)].has_peer(through.0), "it may come back");
    let down = |event: &&Event| matches!(event, Event::LinkChanged { usable: false, .. });
    assert_eq!(world.events.iter().filter(down).count(), 6);
}

#[test]
fn a_one_way_failure_is_believed_from_either_end() {
    let mut world = World::running(4);
    let down = |world: &World| -> Vec<_> {
        let links = world.scheduler.status(world.now).links;
        links.iter().filter(|link| !link.usable).map(|link| link.id).collect()
    };
    world.cut.insert(link(1, 3, 0));

    world.report(id(1));
    world.advance(BURST);
    assert_eq!(down(&world), [link(1, 3, 0)], "the sender says that it is not heard");
    let around = world.relays[&id(1)].paths(3, Class::Realtime);
    assert!(!around.is_empty() && around.iter().all(|path| !path.intermediates().is_empty()));

    world.report(id(3));
    world.advance(BURST);
    let both = [link(1, 3, 0), link(3, 1, 0)];
    assert_eq!(down(&world), both, "who hears nothing cannot know whether it is heard");
}

#[test]
fn a_goodbye_moves_paths_away_and_a_hello_brings_the_relay_back() {
    let mut world = World::running(4);
    let through = world.relays[&id(1)].paths(2, Class::Realtime)[0].first().relay;
    world.relays.get_mut(&through).unwrap().hello.services = vec!["web".into()];
    world.connect(through).unwrap();
    world.advance(BURST);
    assert_eq!(world.relays[&id(1)].service("web"), [u32::from(through.0)]);

    world.goodbye(through);
    world.advance(BURST);
    let paths = world.relays[&id(1)].paths(2, Class::Realtime);
    assert!(paths.iter().all(|path| !path.visits(through)), "{paths:?}");
    assert!(world.relays[&id(1)].has_peer(through.0));
    assert!(world.relays[&id(1)].service("web").is_empty());

    world.kill(through);
    world.advance(599 * SECOND);
    assert!(world.relays[&id(1)].has_peer(through.0));
    world.advance(2 * SECOND);
    assert!(!world.relays[&id(1)].has_peer(through.0));
    assert!(!world.scheduler.status(world.now).relays[usize::from(through.0) - 1].registered);

    world.restart(through, true);
    world.connect(through).unwrap();
    world.advance(30 * SECOND);
    world.assert_in_step();
    assert!(world.relays[&id(1)].has_peer(through.0));
    assert!(!world.relays[&through].paths(1, Class::Realtime).is_empty());
}

#[test]
fn a_removed_relay_is_revoked_everywhere_at_once_and_for_good() {
    let mut world = World::running(4);
    world.remove(id(4));
    world.advance(BURST);

    world.assert_in_step();
    assert!(!world.relays[&id(1)].has_peer(4));
    assert!(world.relays[&id(1)].paths(4, Class::Bulk).is_empty());
    let refused = world.scheduler.handle_hello(id(4), hello(4, 1), world.now);
    assert_eq!(refused, Err(HelloError::Removed(id(4))));
    let late = world.scheduler.handle_message(id(4), Report::default().into(), world.now);
    assert_eq!(late, Err(MessageError::NotConnected));

    world.restart_scheduler();
    world.connect_all();
    world.advance(5 * SECOND);
    world.assert_in_step();
    let revoked = |(_, item): (_, overway_wire::control::Item)| matches!(&item.body, Some(overway_wire::control::item::Body::Revoked(revoked)) if revoked.relay == 4);
    assert!(world.scheduler.pushed(id(1)).any(revoked));
}

#[test]
fn a_service_outlives_a_blip_and_not_its_relay() {
    let mut world = World::new(3);
    for relay in [2, 3] {
        world.relays.get_mut(&id(relay)).unwrap().hello.services = vec!["web".into()];
    }
    world.connect_all();
    world.advance(15 * SECOND);
    assert_eq!(world.relays[&id(1)].service("web"), [2, 3]);

    world.disconnect(id(2));
    world.advance(10 * SECOND);
    assert_eq!(world.relays[&id(1)].service("web"), [2, 3]);

    world.kill(id(2));
    world.advance(BURST);
    assert_eq!(world.relays[&id(1)].service("web"), [3]);
}

#[test]
fn parallel_links_are_numbered_alike_at_both_ends() {
    let mut world = World::new(0);
    for (relay, lines) in [(1, 1), (2, 2), (3, 3)] {
        world.add(relay, lines);
    }
    world.connect_all();
    world.advance(15 * SECOND);

    let peers = |relay, neighbour| -> Vec<_> {
        let peers = world.relays[&id(relay)].peers();
        peers
            .filter(|peer| peer.neighbour == neighbour)
            .map(|peer| (peer.index, peer.local_address, peer.remote_address.clone()))
            .collect()
    };
    assert_eq!(peers(1, 2), [(0, 0, "10.0.0.2:4400".into()), (1, 0, "10.0.1.2:4400".into())]);
    assert_eq!(peers(2, 1), [(0, 0, "10.0.0.1:4400".into()), (1, 1, "10.0.0.1:4400".into())]);
    assert_eq!(peers(3, 2), [(0, 0, "10.0.0.2:4400".into()), (1, 1, "10.0.1.2:4400".into())]);

    let now = world.now;
    world.relays.get_mut(&id(2)).unwrap().hello.addresses.truncate(1);
    world.connect(id(2)).unwrap();
    world.advance(BURST);
    assert_eq!(world.relays[&id(1)].peers().filter(|peer| peer.neighbour == 2).count(), 1);
    assert!(world.now > now);
    world.assert_in_step();
}

#[test]
fn a_refused_report_moves_nothing() {
    let mut world = World::running(3);
    let before = world.scheduler.status(world.now);
    let down = LinkReport {
        neighbour: 2,
        inbound: State::Down.into(),
        outbound: State::Down.into(),
        ..LinkReport::default()
    };
    let stranger = LinkReport { neighbour: 900, ..down.clone() };
    let links = vec![down, stranger];
    let report = Report { sequence: 1_000, full: false, links, ..Report::default() };
    let taken = world.scheduler.handle_message(id(1), report.clone().into(), world.now);
    assert_eq!(taken, Err(MessageError::Report(ReportError::NotItsLink)));
    let old = Report { sequence: 1, links: vec![], ..report };
    let taken = world.scheduler.handle_message(id(1), old.into(), world.now);
    assert_eq!(taken, Err(MessageError::Report(ReportError::Sequence)));
    world.pump();
    world.events.clear();
    world.advance(BURST);

    let after = world.scheduler.status(world.now);
    assert!(after.links.iter().all(|link| link.usable));
    assert_eq!(before.epoch, after.epoch);
    let refused = &world.scheduler.stats().reports_refused;
    assert_eq!((refused.not_its_link, refused.sequence), (1, 1));
}

#[test]
fn one_bad_neighbour_costs_its_victims_the_link_to_it_and_nothing_else() {
    let mut world = World::running(4);
    world.absurd_jitter_of = Some(id(4));

    world.advance(10 * SECOND);

    let status = world.scheduler.status(world.now);
    for relay in &status.relays {
        assert!(relay.last_report_age.unwrap() <= SECOND, "{} is heard", relay.id);
    }
    for link in &status.links {
        assert_eq!(link.usable, link.id.from != id(4), "{}", link.id);
    }
    let paths = world.relays[&id(1)].paths(2, Class::Realtime);
    assert!(!paths.is_empty() && paths.iter().all(|path| !path.visits(id(4))), "{paths:?}");
    let stats = world.scheduler.stats();
    assert!(stats.absurd.jitter > 20 && stats.reports_refused == ReportsRefused::default());
}

#[test]
fn a_relay_whose_reports_do_not_count_up_loses_its_session_and_begins_anew() {
    let mut world = World::running(3);
    let now = world.now;
    let mut say = |sequence| {
        let report = Report { sequence, full: false, links: vec![], ..Report::default() };
        world.scheduler.handle_message(id(1), report.into(), now)
    };
    let out_of_step = Err(MessageError::Report(ReportError::Sequence));
    assert_eq!([say(1), say(2)], [out_of_step, out_of_step]);
    assert_eq!(say(1_000), Ok(()), "one that counts up ends the row");
    assert_eq!([say(1), say(2)], [out_of_step, out_of_step]);
    assert_eq!(say(3), Err(MessageError::NotConnected));
    assert!(!world.scheduler.status(now).relays[0].connected);

    world.connect(id(1)).unwrap();
    world.advance(2 * SECOND);

    let status = world.scheduler.status(world.now);
    assert!(status.relays[0].connected && status.relays[0].last_report_age <= Some(SECOND));
    assert_eq!(world.scheduler.stats().sessions_out_of_step, 1);
    world.assert_in_step();
}

#[test]
fn a_scheduler_that_is_behind_the_mesh_goes_on_with_a_greater_term() {
    let mut world = World::running(4);
    world.remove(id(4));
    world.advance(SECOND);
    // The store is an old copy, in which the term is long past; a relay has connected before the others.
    let far = Epoch { term: 41, sequence: 700 };
    for relay in [1, 2] {
        world.relays.get_mut(&id(relay)).unwrap().epoch = far;
        world.disconnect(id(relay));
    }
    let scheduler = world.scheduler.status(world.now).epoch;
    assert_eq!(world.connect(id(1)), Err(HelloError::Behind { relay: far, scheduler }));

    world.raise_term(far.term + 1);

    assert!(world.events.contains(&Event::RelayLost { relay: id(3), draining: false }));
    let status = world.scheduler.status(world.now);
    assert!(status.settling && status.relays.iter().all(|relay| relay.registered));
    assert!(world.relays.values().all(|relay| !relay.items.is_empty()), "they keep what they hold");
    world.connect_all();
    world.advance(5 * SECOND);
    assert_eq!(world.scheduler.status(world.now).epoch.term, 42);
    assert!(world.relays.values().all(|relay| relay.epoch.term == 42));
    let refused = world.scheduler.handle_hello(id(4), hello(4, 1), world.now);
    assert_eq!(refused, Err(HelloError::Removed(id(4))));
    world.assert_in_step();
}

#[test]
fn a_term_that_no_mesh_comes_to_is_refused_and_counted() {
    let mut world = World::running(2);
    let now = world.now;
    let mut claim = |epoch_term| {
        world.scheduler.handle_hello(id(1), Hello { epoch_term, ..hello(1, 1) }, now).unwrap_err()
    };

    assert!(matches!(claim(1 + (1 << 32)), HelloError::Behind { .. }));
    for term in [2 + (1 << 32), u64::MAX] {
        assert_eq!(claim(term), HelloError::AbsurdTerm { relay: term, scheduler: 1 });
    }
    assert_eq!(world.scheduler.stats().terms_absurd, 2);
    assert_eq!(world.scheduler.stats().hellos_refused, 3);
}

#[test]
fn terms_whose_low_bits_are_zero_push_as_any_other() {
    let mut world = World::new(3);
    world.raise_term(1 << 24);
    world.connect_all();
    world.advance(15 * SECOND);

    assert!(world.relays.values().all(|relay| relay.epoch.term == 1 << 24));
    world.assert_in_step();
}

#[test]
fn what_no_relay_reports_is_not_known() {
    let mut world = World::running(3);
    let known = |world: &World| {
        let links = world.scheduler.status(world.now).links;
        links.iter().filter(|link| link.known).map(|link| link.id).collect::<Vec<_>>()
    };
    assert_eq!(known(&world).len(), 6);

    world.disconnect(id(1));
    world.disconnect(id(2));
    let half = [link(1, 3, 0), link(2, 3, 0), link(3, 1, 0), link(3, 2, 0)];
    assert_eq!(known(&world), half);

    world.disconnect(id(3));
    assert_eq!(known(&world), []);
}

#[test]
fn messages_out_of_place_are_refused_or_passed_over() {
    let mut world = World::running(2);
    let now = world.now;
    let mut say = |message: ToScheduler| world.scheduler.handle_message(id(1), message, now);

    assert_eq!(say(hello(1, 1).into()), Err(MessageError::SecondHello));
    assert_eq!(say(Renewal { csr_der: vec![1] }.into()), Ok(()));
    assert_eq!(say(ToScheduler { body: None }), Ok(()));
    assert_eq!(say(Ack { revision: 12_345, resync: false }.into()), Ok(()));
    assert_eq!(world.scheduler.stats().acks_ignored, 1);
    world.advance(SECOND);
    world.assert_in_step();
}

#[test]
fn an_update_that_is_lost_or_does_not_fit_is_followed_by_the_whole_state() {
    let mut world = World::running(3);
    world.lose_updates = 3;
    world.kill(id(3));
    world.advance(BURST);
    assert!(world.relays[&id(1)].paths(3, Class::Bulk).iter().any(|path| path.visits(id(3))));
    let full = world.scheduler.stats().updates_full;
    world.lose_updates = 0;
    world.advance(6 * SECOND);
    assert!(world.scheduler.stats().updates_full > full);
    assert!(world.scheduler.stats().ack_timeouts > 0);
    world.assert_in_step();

    world.relays.get_mut(&id(1)).unwrap().items.clear();
    let resync = Ack { revision: 0, resync: true };
    world.scheduler.handle_message(id(1), resync.into(), world.now).unwrap();
    world.advance(SECOND);
    assert_eq!(world.scheduler.stats().resyncs, 1);
    world.assert_in_step();
}

#[test]
fn a_steady_mesh_makes_no_epochs() {
    let mut world = World::running(4);
    world.advance(30 * SECOND);
    world.events.clear();
    let (epoch, plans) = (world.scheduler.status(world.now).epoch, world.scheduler.stats().plans);
    world.advance(10 * SECOND);

    assert_eq!(world.scheduler.status(world.now).epoch, epoch);
    assert!((9..=11).contains(&(world.scheduler.stats().plans - plans)));
    assert_eq!(world.events, []);
}

#[test]
fn a_link_that_no_path_uses_is_probed_at_leisure() {
    let mut world = World::running(3);
    world.advance(30 * SECOND);
    let status = world.scheduler.status(world.now);
    let idle = status.links.iter().filter(|link| link.role == Role::Idle).count();
    let idle_peers = world.relays.values().flat_map(harness::FakeRelay::peers);
    let idle_peers = idle_peers.filter(|peer| peer.role() == Role::Idle).count();

    assert_eq!(idle, idle_peers);
    assert_eq!(status.links[0].id.index, LinkIndex::default());
}
