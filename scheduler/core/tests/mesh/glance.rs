//! The mesh at a glance, and the events that only people need.

use std::time::Duration;

use overway_scheduler_core::Event;
use overway_wire::control::{LinkReport, Report, State};

use super::harness::{World, id, link};

/// Above the debounce, below a report's interval.
const BURST: Duration = Duration::from_millis(20);

#[test]
fn a_small_mesh_is_listed_whole() {
    let mut world = World::running(4);
    let overview = world.scheduler.overview(100, world.now);

    assert_eq!((overview.relays.len(), overview.links.len()), (4, 12));
    assert_eq!((overview.counts.usable, overview.counts.unusable), (12, 0));
    let (status, glance) = &overview.relays[0];
    assert_eq!((status.id, glance.links, glance.usable), (id(1), 3, 3));

    world.kill(id(2));
    world.advance(BURST);
    let overview = world.scheduler.overview(100, world.now);
    let usable: Vec<usize> = overview.relays.iter().map(|(_, glance)| glance.usable).collect();
    assert_eq!(usable, [2, 0, 2, 2]);
    assert_eq!((overview.counts.usable, overview.counts.unusable), (6, 6));
}

#[test]
fn of_a_large_mesh_what_is_unwell_and_what_is_busy_is_listed() {
    let mut world = World::running(8);
    world.cut.insert(link(7, 8, 0));
    world.report_all();
    world.advance(BURST);

    let overview = world.scheduler.overview(6, world.now);

    assert_eq!(overview.links.len(), 6);
    let unwell: Vec<_> = overview.links.iter().filter(|link| !link.usable).collect();
    assert!(unwell.iter().any(|status| status.id == link(7, 8, 0)), "{unwell:?}");
    assert_eq!(overview.counts.usable + overview.counts.unusable, 56);
    assert!(overview.links.is_sorted_by_key(|link| link.id));
}

#[test]
fn a_relay_has_its_links_both_ways() {
    let world = World::running(4);

    let ids: Vec<_> = world.scheduler.links_of(id(2)).iter().map(|link| link.id).collect();

    let expected =
        [(1, 2), (2, 1), (2, 3), (2, 4), (3, 2), (4, 2)].map(|(from, to)| link(from, to, 0));
    assert_eq!(ids, expected);
}

#[test]
fn a_dead_relay_is_unreached_once_and_reached_again_once() {
    let mut world = World::running(4);
    let told = |world: &World, wanted: &Event| {
        world.events.iter().filter(|&event| event == wanted).count()
    };

    world.kill(id(3));
    world.advance(Duration::from_secs(2));
    assert_eq!(told(&world, &Event::RelayUnreached { relay: id(3) }), 1);

    world.restart(id(3), true);
    world.connect(id(3)).unwrap();
    world.advance(Duration::from_secs(5));
    assert_eq!(told(&world, &Event::RelayReached { relay: id(3) }), 1);
    assert_eq!(told(&world, &Event::RelayUnreached { relay: id(3) }), 1);
}

#[test]
fn silence_stalls_and_detours_are_told_by_what_a_relay_counts_since_its_last_report() {
    let mut world = World::running(3);
    world.silence(id(1));
    let say = |world: &mut World, sequence, counted, inbound: State| {
        let links =
            vec![LinkReport { neighbour: 2, inbound: inbound.into(), ..LinkReport::default() }];
        let (self_stalls, detours) = (counted, 10 * counted);
        let report = Report { sequence, links, self_stalls, detours, ..Report::default() };
        world.scheduler.handle_message(id(1), report.into(), world.now).unwrap();
        world.pump();
        std::mem::take(&mut world.events)
    };
    say(&mut world, 1_000, 1, State::Up);

    let events = say(&mut world, 1_001, 3, State::Suspect);

    for expected in [
        Event::RelayStalled { relay: id(1), times: 2 },
        Event::Detoured { relay: id(1), frames: 20 },
        Event::LinkSuspect { link: link(2, 1, 0) },
    ] {
        assert!(events.contains(&expected), "{expected:?} in {events:?}");
    }
    let events = say(&mut world, 1_002, 3, State::Suspect);
    assert!(events.iter().all(|event| matches!(event, Event::EpochMade { .. })), "{events:?}");
}
