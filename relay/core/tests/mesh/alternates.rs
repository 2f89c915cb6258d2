//! Ends with two addresses: what is done with their frames when one of the two does not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use overway_relay_core::{DropReason, LocalFrame};
use overway_wire::control::{Item, Policy};
use overway_wire::notice::Notice;
use overway_wire::{Address, AttachmentId, Class, FrameKind, PolicyId, Redundancy, RelayId};
use proptest::prelude::*;

use crate::harness::{DELAY, Mesh, frame, route, weighted_route};

/// The end's attachments at relays 3 and 5.
const FIRST: AttachmentId = AttachmentId(7);
const SECOND: AttachmentId = AttachmentId(9);

type Routes = [(u16, u16, &'static [&'static [u16]])];

/// From 1 by 2 to an end at 3 and 5.
const BY_TWO: &Routes = &[
    (1, 3, &[&[2, 3], &[4, 3]]),
    (1, 5, &[&[2, 5], &[4, 5]]),
    (2, 3, &[&[3], &[4, 3]]),
    (2, 5, &[&[5], &[4, 5]]),
    (4, 5, &[&[5]]),
    (3, 5, &[&[2, 5], &[4, 5]]),
    (2, 1, &[&[1], &[4, 1]]),
];

fn mesh(relays: u16, routes: &Routes) -> Mesh {
    let mut mesh = Mesh::new(relays, 1, routes);
    mesh.relay(3).handle_attached(FIRST);
    mesh.relay(5).handle_attached(SECOND);
    mesh
}

fn to_both(class: Class, sequence: u64) -> LocalFrame {
    LocalFrame {
        destination: Address::new(RelayId(3), FIRST),
        alternate: Some(Address::new(RelayId(5), SECOND)),
        ..frame(3, class, sequence)
    }
}

fn stream(mesh: &mut Mesh, class: Class, from: u64, time: Duration) -> u64 {
    let frames = u64::try_from(time.as_millis() / 20).unwrap();
    for sequence in from..from + frames {
        mesh.send_frame(1, to_both(class, sequence));
        mesh.run(Duration::from_millis(20));
    }
    from + frames
}

fn freeze(mesh: &mut Mesh, relay: u16) {
    mesh.frozen.insert(RelayId(relay));
    mesh.flying.retain(|flying| flying.to != RelayId(relay));
}

/// Everything that was delivered went to one of the end's two attachments; how much to each.
fn arrivals(mesh: &Mesh) -> (usize, usize) {
    let at = |relay, attachment| {
        let here = |(at, it): &&_| {
            let it: &overway_relay_core::Delivered = it;
            (*at, it.attachment) == (RelayId(relay), attachment)
        };
        mesh.delivered.iter().filter(here).count()
    };
    let (first, second) = (at(3, FIRST), at(5, SECOND));
    assert_eq!(first + second, mesh.delivered.len(), "and nowhere else");
    (first, second)
}

#[test]
fn while_all_is_well_the_alternate_gets_nothing() {
    let mut mesh = mesh(5, BY_TWO);
    let end = stream(&mut mesh, Class::Realtime, 0, Duration::from_secs(1));
    mesh.run(Duration::from_millis(100));

    assert_eq!(arrivals(&mesh), (usize::try_from(end).unwrap(), 0));
    assert_eq!(mesh.stats(1).alternates + mesh.stats(2).alternates, 0);
}

#[test]
fn a_frozen_access_relay_costs_no_frame_and_at_most_the_promised_gap() {
    for class in [Class::Realtime, Class::Interactive] {
        for phase in 0..20 {
            let mut mesh = mesh(5, BY_TWO);
            let frozen_at = stream(&mut mesh, class, 0, Duration::from_secs(1));
            mesh.run(Duration::from_millis(phase));
            freeze(&mut mesh, 3);
            let end = stream(&mut mesh, class, frozen_at, Duration::from_secs(1));
            mesh.run(Duration::from_millis(100));

            assert_eq!(mesh.sequences(), (0..end).collect(), "{class} {phase}: nothing is lost");
            let gap = mesh.longest_gap();
            // Spacing and the phase, a round trip of the link in front, and the promise.
            let bound = Duration::from_millis(20 + phase) + DELAY * 2 + Duration::from_millis(60);
            assert!(gap <= bound, "{class} {phase}: healed after {gap:?}");
            assert!(mesh.stats(2).copies > 0, "{class}: copies while 3 is suspect");
            assert!(mesh.stats(2).alternates > 0);
        }
    }
}

#[test]
fn bulk_is_not_copied_to_the_alternate_but_moved_there() {
    let mut mesh = mesh(5, BY_TWO);
    let frozen_at = stream(&mut mesh, Class::Bulk, 0, Duration::from_secs(1));
    freeze(&mut mesh, 3);
    let end = stream(&mut mesh, Class::Bulk, frozen_at, Duration::from_secs(1));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect());
    assert_eq!((mesh.stats(2).copies, mesh.stats(2).replays > 0), (0, true));
}

#[test]
fn the_source_takes_the_alternate_itself_once_it_is_told() {
    let mut mesh = mesh(5, BY_TWO);
    let frozen_at = stream(&mut mesh, Class::Realtime, 0, Duration::from_secs(1));
    freeze(&mut mesh, 3);
    let told_at = stream(&mut mesh, Class::Realtime, frozen_at, Duration::from_secs(1));
    let by_four = mesh.stats(4).frames_forwarded;
    let moved = mesh.stats(2).alternates;
    let end = stream(&mut mesh, Class::Realtime, told_at, Duration::from_millis(500));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect());
    assert_eq!(mesh.stats(4).frames_forwarded, by_four, "not by 4 to 3, which looks sound");
    assert_eq!(mesh.stats(2).alternates, moved, "2 has nothing left to move");
    assert!(mesh.stats(1).alternates >= end - told_at);
}

#[test]
fn a_parallel_link_that_is_up_comes_before_the_alternate() {
    let routes: &Routes = &[(1, 3, &[&[3]]), (1, 5, &[&[5]])];
    let mut mesh = Mesh::new(5, 2, routes);
    mesh.relay(3).handle_attached(FIRST);
    mesh.relay(5).handle_attached(SECOND);
    let cut_at = stream(&mut mesh, Class::Bulk, 0, Duration::from_secs(1));
    mesh.cut.extend([(1, 3, 0), (3, 1, 0)]);
    let end = stream(&mut mesh, Class::Bulk, cut_at, Duration::from_secs(1));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect());
    assert_eq!(arrivals(&mesh).1, 0);
}

#[test]
fn a_relay_on_the_way_goes_around_its_neighbour_where_it_can_and_else_to_the_alternate() {
    let around: &Routes =
        &[(1, 3, &[&[2, 4, 3]]), (2, 3, &[&[4, 3], &[6, 3]]), (2, 5, &[&[5]]), (2, 1, &[&[1]])];
    let none: &Routes = &[(1, 3, &[&[2, 4, 3]]), (2, 3, &[&[4, 3]]), (2, 5, &[&[5]])];
    for (routes, expected) in [(around, 3), (none, 5)] {
        let mut mesh = mesh(6, routes);
        let frozen_at = stream(&mut mesh, Class::Interactive, 0, Duration::from_secs(1));
        freeze(&mut mesh, 4);
        let end = stream(&mut mesh, Class::Interactive, frozen_at, Duration::from_secs(1));
        mesh.run(Duration::from_millis(100));

        assert_eq!(mesh.sequences(), (0..end).collect());
        let mut new = mesh.delivered.iter().filter(|(_, it)| it.sequence >= frozen_at);
        assert!(new.all(|(at, _)| *at == RelayId(expected)), "to {expected}");
    }
}

#[test]
fn a_source_without_a_route_to_the_destination_takes_the_alternate() {
    let mut mesh = mesh(5, &[(1, 5, &[&[5]])]);
    let end = stream(&mut mesh, Class::Bulk, 0, Duration::from_millis(200));
    mesh.run(Duration::from_millis(100));

    assert_eq!(arrivals(&mesh), (0, usize::try_from(end).unwrap()));
    let demands = {
        let now = mesh.now;
        mesh.relay(1).handle_scheduler_connected(now);
        mesh.relay(1).poll_report(now).unwrap().demands
    };
    assert!(demands.iter().all(|demand| demand.destination == 5), "asked of the route it took");
}

#[test]
fn a_source_whose_first_links_are_all_down_takes_the_alternate() {
    let mut mesh = mesh(5, &[(1, 3, &[&[2, 3], &[4, 3]]), (1, 5, &[&[5]]), (2, 3, &[&[3]])]);
    stream(&mut mesh, Class::Interactive, 0, Duration::from_secs(1));
    mesh.cut.extend([(1, 2, 0), (2, 1, 0), (1, 4, 0), (4, 1, 0)]);
    let cut_at = stream(&mut mesh, Class::Interactive, 50, Duration::from_secs(4));
    let before = mesh.stats(1).detours;
    let end = stream(&mut mesh, Class::Interactive, cut_at, Duration::from_millis(200));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect());
    assert_eq!(mesh.stats(1).detours, before, "chosen, not found on the way");
}

#[test]
fn an_end_that_is_gone_gets_its_frames_at_the_other_address_by_a_way_that_visits_nothing_twice() {
    let mut mesh = mesh(5, BY_TWO);
    mesh.relay(3).handle_detached(FIRST);
    let end = stream(&mut mesh, Class::Interactive, 0, Duration::from_millis(200));
    mesh.run(Duration::from_millis(100));

    assert_eq!(arrivals(&mesh), (0, usize::try_from(end).unwrap()));
    assert_eq!(mesh.stats(3).alternates, end);
    assert_eq!(mesh.stats(4).frames_forwarded, end, "by 4, for they came by 2");
}

#[test]
fn a_frame_for_an_end_that_is_gone_and_has_no_other_address_is_dropped_and_counted() {
    let mut mesh = mesh(5, BY_TWO);
    mesh.relay(3).handle_detached(FIRST);
    let to_first = LocalFrame { alternate: None, ..to_both(Class::Bulk, 1) };
    mesh.send_frame(1, to_first.clone());
    mesh.send_frame(3, to_first.clone());
    mesh.send_frame(1, to_both(Class::Bulk, 2));
    mesh.relay(5).handle_detached(SECOND);
    mesh.run(Duration::from_millis(100));

    assert!(mesh.delivered.is_empty());
    assert_eq!(mesh.stats(3).dropped(DropReason::NoAttachment), 2);
    assert_eq!(mesh.stats(5).dropped(DropReason::NoAttachment), 1);

    mesh.relay(3).handle_attached(FIRST);
    mesh.send_frame(1, to_first);
    mesh.run(Duration::from_millis(100));
    assert_eq!(arrivals(&mesh), (1, 0));
}

#[test]
fn an_end_is_told_by_the_last_relay_that_the_other_is_at_neither_address() {
    const OWN: AttachmentId = AttachmentId(8);
    let routes: &Routes = &[
        (1, 3, &[&[2, 3]]),
        (1, 5, &[&[2, 5]]),
        (3, 5, &[&[5]]),
        (3, 1, &[&[2, 1]]),
        (5, 1, &[&[2, 1]]),
    ];
    let mut mesh = mesh(5, routes);
    mesh.relay(1).handle_attached(OWN);
    let send = |mesh: &mut Mesh, times: u64| {
        for sequence in 0..times {
            let frame = LocalFrame { source: OWN, ..to_both(Class::Interactive, sequence) };
            mesh.send_frame(1, frame);
        }
        mesh.run(Duration::from_millis(90));
    };
    mesh.relay(3).handle_detached(FIRST);
    send(&mut mesh, 3);
    assert_eq!(arrivals(&mesh), (0, 3), "the other address serves");

    mesh.delivered.clear();
    mesh.relay(5).handle_detached(SECOND);
    send(&mut mesh, 10);
    let [(at, notice)] = &mesh.delivered[..] else { panic!("one notice: {:?}", mesh.delivered) };
    assert_eq!((*at, notice.attachment, notice.kind), (RelayId(1), OWN, FrameKind::Notice));
    assert_eq!(notice.source, Address::new(RelayId(5), AttachmentId::RELAY));
    let end = Address::new(RelayId(5), SECOND);
    assert_eq!(Notice::decode(&notice.payload), Ok(Notice::Unattached(end)));

    mesh.delivered.clear();
    mesh.run(Duration::from_millis(100));
    send(&mut mesh, 1);
    assert_eq!(mesh.delivered.len(), 1, "and again as long as it sends there");

    mesh.delivered.clear();
    mesh.relay(1).handle_detached(OWN);
    mesh.run(Duration::from_millis(200));
    send(&mut mesh, 1);
    assert!(mesh.delivered.is_empty());
}

#[test]
fn the_relay_that_fell_silent_last_is_the_one_that_is_avoided() {
    let mut mesh = mesh(5, &[(1, 3, &[&[3], &[4, 3]]), (1, 5, &[&[5], &[4, 5]])]);
    let mut end = stream(&mut mesh, Class::Interactive, 0, Duration::from_secs(1));
    for relay in [5, 3, 5, 3] {
        freeze(&mut mesh, relay);
        end = stream(&mut mesh, Class::Interactive, end, Duration::from_secs(1));
        mesh.frozen.remove(&RelayId(relay));
        // What it reads in its first moment it drops.
        end = stream(&mut mesh, Class::Interactive, end, Duration::from_secs(1));
    }
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect(), "nothing is lost");
    end = stream(&mut mesh, Class::Interactive, end, Duration::from_secs(6));
    let before = arrivals(&mesh);
    stream(&mut mesh, Class::Interactive, end, Duration::from_secs(1));
    assert!(arrivals(&mesh).0 > before.0, "back at the first address");
    assert!(arrivals(&mesh).1 <= before.1 + 1);
}

#[test]
fn a_frame_that_comes_to_the_alternates_own_relay_has_arrived() {
    // 5 is in front of 3.
    let routes: &Routes = &[(1, 3, &[&[5, 3]]), (5, 3, &[&[3]]), (5, 1, &[&[1]])];
    let mut mesh = mesh(5, routes);
    let frozen_at = stream(&mut mesh, Class::Realtime, 0, Duration::from_secs(1));
    freeze(&mut mesh, 3);
    let end = stream(&mut mesh, Class::Realtime, frozen_at, Duration::from_secs(1));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect());
    assert!(arrivals(&mesh).1 > 40);
}

#[test]
fn an_end_of_the_sources_own_relay_gets_what_its_other_relay_cannot_take() {
    let mut mesh = mesh(5, &[(1, 3, &[&[3]])]);
    mesh.relay(1).handle_attached(AttachmentId(4));
    let to = |sequence| LocalFrame {
        alternate: Some(Address::new(RelayId(1), AttachmentId(4))),
        ..to_both(Class::Interactive, sequence)
    };
    mesh.send_frame(1, to(1));
    mesh.run(Duration::from_millis(100));
    assert_eq!(arrivals(&mesh), (1, 0), "the first address while it answers");
    mesh.cut.extend([(1, 3, 0), (3, 1, 0)]);
    mesh.run(Duration::from_secs(4));
    mesh.send_frame(1, to(2));

    let (at, delivered) = mesh.delivered.last().unwrap();
    assert_eq!((*at, delivered.attachment, delivered.sequence), (RelayId(1), AttachmentId(4), 2));
}

#[test]
fn what_a_flow_wants_twice_goes_to_both_addresses() {
    let mut mesh = mesh(5, BY_TWO);
    let mut end = 0;
    let mut stream = |mesh: &mut Mesh| {
        for _ in 0..50 {
            let frame = to_both(Class::Realtime, end);
            mesh.send_frame(1, LocalFrame { redundancy: Redundancy::Always, ..frame });
            mesh.run(Duration::from_millis(20));
            end += 1;
        }
    };
    stream(&mut mesh);
    assert_eq!(arrivals(&mesh), (50, 50));
    assert_eq!(mesh.stats(4).frames_forwarded, 50, "over a relay of its own");
    let before = mesh.times.len();
    freeze(&mut mesh, 3);
    stream(&mut mesh);
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..100).collect());
    let gaps = mesh.times[before - 1..].windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.max().unwrap() <= Duration::from_millis(20), "without a gap");
}

#[test]
fn a_policy_forbids_the_way_to_the_alternate_too() {
    let policy = |relays: &[u32]| -> Item {
        Policy { policy: 9, name: "eu".into(), relays: relays.to_vec() }.into()
    };
    for (allowed, dropped) in [(&[1, 2, 3, 4, 5][..], false), (&[1, 2, 3][..], true)] {
        let mut mesh = Mesh::with(5, 1, |id| match id {
            1 => [weighted_route(3, 9, &[(&[2, 3], 0)]), vec![policy(allowed)]].concat(),
            2 => [route(3, &[&[3]]), route(5, &[&[5]]), vec![policy(allowed)]].concat(),
            _ => vec![policy(allowed)],
        });
        mesh.relay(3).handle_attached(FIRST);
        mesh.relay(5).handle_attached(SECOND);
        mesh.cut.extend([(2, 3, 0), (3, 2, 0)]);
        mesh.run(Duration::from_secs(4));
        let to = LocalFrame { policy: PolicyId(9), ..to_both(Class::Bulk, 1) };
        mesh.send_frame(1, to);
        mesh.run(Duration::from_millis(100));

        assert_eq!(mesh.delivered.is_empty(), dropped, "{allowed:?}");
        assert_eq!(mesh.stats(2).dropped(DropReason::PolicyForbids), 0, "no other way at all");
    }
}

#[test]
fn a_frame_is_readdressed_once() {
    // Both of the end's relays are gone.
    let mut mesh = mesh(5, BY_TWO);
    let frozen_at = stream(&mut mesh, Class::Realtime, 0, Duration::from_secs(1));
    freeze(&mut mesh, 3);
    freeze(&mut mesh, 5);
    let from = stream(&mut mesh, Class::Realtime, frozen_at, Duration::from_secs(4));
    let sent: u64 = (1..=5).map(|id| mesh.stats(id).frames_sent).sum();
    stream(&mut mesh, Class::Realtime, from, Duration::from_secs(1));

    let more: u64 = (1..=5).map(|id| mesh.stats(id).frames_sent).sum::<u64>() - sent;
    assert!(more <= 50 * 4, "{more} frames sent for 50 that cannot arrive");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever routes there are and whoever fails: what a relay sends, the next one takes.
    #[test]
    fn no_relay_refuses_what_another_has_readdressed(
        ways in proptest::collection::vec(
            (1_u16..=6, prop_oneof![Just(3_u16), Just(5)], proptest::collection::vec(1_u16..=6, 0..3)),
            1..24,
        ),
        frozen in 2_u16..=6,
        detached in any::<bool>(),
    ) {
        let mut routes: BTreeMap<(u16, u16), Vec<Vec<u16>>> = BTreeMap::new();
        for (from, to, mut by) in ways {
            by.retain(|&relay| relay != from && relay != to);
            by.dedup();
            let again = by.len() == 2 && by[0] == by[1];
            if from != to && !again {
                routes.entry((from, to)).or_default().push([by, vec![to]].concat());
            }
        }
        let mut mesh = Mesh::with(6, 1, |id| {
            let own = routes.iter().filter(|((from, _), _)| *from == id);
            let item = |(&(_, to), paths): (&(u16, u16), &Vec<Vec<u16>>)| {
                let paths: Vec<&[u16]> = paths.iter().take(8).map(Vec::as_slice).collect();
                route(to, &paths)
            };
            own.flat_map(item).collect()
        });
        mesh.relay(5).handle_attached(SECOND);
        if !detached {
            mesh.relay(3).handle_attached(FIRST);
        }
        stream(&mut mesh, Class::Realtime, 0, Duration::from_millis(200));
        freeze(&mut mesh, frozen);
        stream(&mut mesh, Class::Interactive, 100, Duration::from_millis(400));
        mesh.run(Duration::from_millis(100));

        arrivals(&mesh);
        for id in 1..=6 {
            for reason in [DropReason::BadFrame, DropReason::WrongHop, DropReason::HopLimit] {
                prop_assert_eq!(mesh.stats(id).dropped(reason), 0, "{} at {}", reason.name(), id);
            }
        }
    }
}
