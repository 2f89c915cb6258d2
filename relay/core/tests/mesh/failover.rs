//! Links of which some fall silent: what the source, the relay in front and the destination do about it.

use std::time::Duration;

use overway_probe::State;
use overway_relay_core::DropReason;
use overway_wire::hop::Lane;
use overway_wire::{Address, AttachmentId, Class, LinkIndex, NeighbourLink, RelayId};

use crate::harness::{DELAY, Flying, Mesh, STEP};

/// From 1 to 3 through 2, with 4 and then direct as backups; and back.
fn through_two() -> Mesh {
    Mesh::new(
        4,
        1,
        &[
            (1, 3, &[&[2, 3], &[4, 3], &[3]]),
            (2, 3, &[&[3], &[4, 3]]),
            (4, 3, &[&[3], &[2, 3]]),
            (2, 1, &[&[1], &[4, 1]]),
            (3, 1, &[&[2, 1], &[4, 1]]),
        ],
    )
}

#[test]
fn a_frame_takes_the_best_path_and_arrives_once() {
    let mut mesh = through_two();

    mesh.send(1, 3, Class::Realtime, 5);
    mesh.run(Duration::from_millis(50));

    let (at, delivered) = &mesh.delivered[0];
    assert_eq!((mesh.delivered.len(), *at, delivered.sequence), (1, RelayId(3), 5));
    assert_eq!(delivered.source, Address::new(RelayId(1), AttachmentId::GATEWAY));
    assert_eq!((mesh.stats(2).frames_forwarded, mesh.stats(4).frames_forwarded), (1, 0));
}

#[test]
fn a_frozen_transit_relay_costs_no_frame_and_at_most_the_promised_gap() {
    for class in [Class::Realtime, Class::Interactive] {
        for phase in 0..20 {
            let mut mesh = through_two();
            mesh.stream(class, 0, Duration::from_secs(1));
            mesh.run(Duration::from_millis(phase));
            mesh.frozen.insert(RelayId(2));
            mesh.flying.retain(|flying| flying.to != RelayId(2));
            let end = mesh.stream(class, 50, Duration::from_secs(1));
            mesh.run(Duration::from_millis(100));

            assert_eq!(mesh.sequences(), (0..end).collect(), "{class} {phase}: nothing is lost");
            let gap = mesh.longest_gap();
            // Spacing and the phase of the test's own pause, a round trip of the link, and the promise.
            let bound = Duration::from_millis(20 + phase) + DELAY * 2 + Duration::from_millis(60);
            assert!(gap <= bound, "{class} {phase}: healed after {gap:?}");
            assert!(mesh.stats(1).copies > 0, "{class}: copies while suspect");
            assert_eq!((mesh.stats(1).suspects, mesh.stats(1).downs), (1, 1));
        }
    }
}

#[test]
fn bulk_frames_are_not_copied_but_moved_once_the_link_is_down() {
    let mut mesh = through_two();
    let frozen_at = mesh.stream(Class::Bulk, 0, Duration::from_secs(1));
    mesh.frozen.insert(RelayId(2));
    mesh.flying.retain(|flying| flying.to != RelayId(2));
    let end = mesh.stream(Class::Bulk, frozen_at, Duration::from_secs(1));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect());
    assert_eq!(mesh.stats(1).copies, 0);
    assert!(mesh.stats(1).replays > 0);
}

#[test]
fn the_relay_in_front_detours_and_the_source_moves_after_its_notice() {
    let mut mesh = through_two();
    let cut_at = mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    mesh.cut.insert((2, 3, 0));
    mesh.cut.insert((3, 2, 0));
    let end = mesh.stream(Class::Realtime, cut_at, Duration::from_secs(1));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect());
    assert!(mesh.stats(2).detours > 0, "2 goes around its dead link by 4");
    assert!(mesh.stats(1).notices_received > 0);
    let forwarded = mesh.stats(2).frames_forwarded;
    mesh.stream(Class::Realtime, end, Duration::from_millis(200));
    assert_eq!(mesh.stats(2).frames_forwarded, forwarded, "1 now goes by 4 from the start");
}

#[test]
fn a_path_of_which_a_notice_holds_is_a_detour_where_there_is_no_other() {
    let routes: &[(u16, u16, &[&[u16]])] =
        &[(1, 3, &[&[2, 3], &[4, 3]]), (2, 3, &[&[3]]), (2, 1, &[&[1]])];
    let mut mesh = Mesh::new(4, 1, routes);
    let cut_at = mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    mesh.cut.extend([(2, 3, 0), (3, 2, 0)]);
    let mended_at = mesh.stream(Class::Realtime, cut_at, Duration::from_secs(1));
    mesh.cut.clear();
    let frozen_at = mesh.stream(Class::Realtime, mended_at, Duration::from_secs(2));
    assert!(mesh.stats(1).notices_received > 0, "1 goes by 4 while it believes 2 cut off from 3");
    mesh.frozen.insert(RelayId(4));
    mesh.flying.retain(|flying| flying.to != RelayId(4));
    let end = mesh.stream(Class::Realtime, frozen_at, Duration::from_millis(500));
    mesh.run(Duration::from_millis(100));

    let late: Vec<u64> = mesh.sequences().into_iter().filter(|at| *at >= frozen_at).collect();
    assert_eq!(late, (frozen_at..end).collect::<Vec<_>>());
    assert!(mesh.stats(1).copies > 0, "copies while suspect");
}

#[test]
fn a_failure_of_one_direction_is_seen_by_the_end_that_is_not_heard() {
    let mut mesh = through_two();
    let cut_at = mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    mesh.cut.insert((1, 2, 0));
    let end = mesh.stream(Class::Realtime, cut_at, Duration::from_secs(1));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect());
    let link = NeighbourLink::new(RelayId(2), LinkIndex::default());
    let (inbound, outbound) = mesh.relays[&RelayId(1)].link_state(link).unwrap();
    assert_eq!((inbound, outbound), (State::Up, State::Down));
}

#[test]
fn a_parallel_link_is_used_before_a_detour() {
    for class in Class::ALL {
        let mut mesh = Mesh::new(3, 2, &[(1, 3, &[&[2, 3], &[3]]), (2, 3, &[&[3]])]);
        let cut_at = mesh.stream(class, 0, Duration::from_secs(1));
        mesh.cut.extend([(1, 2, 0), (2, 1, 0)]);
        let end = mesh.stream(class, cut_at, Duration::from_secs(1));
        mesh.run(Duration::from_millis(100));

        assert_eq!(mesh.sequences(), (0..end).collect());
        // What was under way when the link fell silent is copied around the neighbour, which may be gone.
        let around = if class == Class::Bulk { 0 } else { 5 };
        assert!(mesh.stats(2).frames_forwarded >= end - around, "{class}: the rest went through 2");
        assert_eq!(mesh.stats(1).notices_sent, 0);
    }
}

#[test]
fn a_frozen_neighbour_costs_no_more_for_having_a_parallel_link() {
    for class in [Class::Realtime, Class::Interactive] {
        let mut mesh = Mesh::new(3, 2, &[(1, 3, &[&[2, 3], &[3]]), (2, 3, &[&[3]])]);
        let frozen_at = mesh.stream(class, 0, Duration::from_secs(1));
        mesh.frozen.insert(RelayId(2));
        mesh.flying.retain(|flying| flying.to != RelayId(2));
        let before = mesh.now;
        let mut next = frozen_at;
        while !mesh.sequences().contains(&frozen_at) {
            next = mesh.stream(class, next, Duration::from_millis(20));
            assert!(mesh.now - before < Duration::from_millis(60 + 40 + 20), "healed in time");
        }
        let end = mesh.stream(class, next, Duration::from_secs(1));
        mesh.run(Duration::from_millis(100));

        assert_eq!(mesh.sequences(), (0..end).collect(), "{class}: nothing is lost");
    }
}

#[test]
fn a_parallel_link_not_heard_since_is_no_way_around() {
    let mut mesh = Mesh::new(3, 2, &[(1, 3, &[&[2, 3], &[3]]), (2, 3, &[&[3]])]);
    mesh.frozen.insert(RelayId(2));
    mesh.flying.retain(|flying| flying.to != RelayId(2));
    let end = mesh.stream(Class::Bulk, 0, Duration::from_secs(2));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect(), "the idle link passes for up much longer");
}

#[test]
fn a_detour_is_put_together_of_two_paths_where_each_alone_leads_back() {
    // Around 4, relay 2 only knows a path that begins with the source; but it has one to 5, to which that leads.
    let mut mesh = Mesh::new(
        6,
        1,
        &[
            (1, 3, &[&[2, 4, 3], &[5, 3]]),
            (2, 3, &[&[4, 3], &[1, 5, 3]]),
            (2, 5, &[&[1, 5], &[6, 5]]),
            (2, 1, &[&[1]]),
        ],
    );
    mesh.frozen.insert(RelayId(4));
    mesh.flying.retain(|flying| flying.to != RelayId(4));
    let end = mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect(), "nothing is lost");
    assert!(mesh.stats(6).frames_forwarded > 0, "by 2, 6, 5 and 3");
    assert_eq!(mesh.stats(2).dropped(DropReason::NoPath), 0);
}

#[test]
fn a_closed_link_hands_its_frames_to_the_detour_at_once() {
    let mut mesh = through_two();
    mesh.stream(Class::Interactive, 0, Duration::from_millis(200));
    mesh.send(1, 3, Class::Interactive, 10);
    mesh.flying.clear();
    let link = NeighbourLink::new(RelayId(2), LinkIndex::default());
    let now = mesh.now;
    mesh.relays.get_mut(&RelayId(1)).unwrap().handle_link_closed(link, now);
    mesh.run(Duration::from_millis(50));

    assert!(mesh.sequences().contains(&10));
}

#[test]
fn a_destination_that_is_gone_ends_in_a_counted_drop_and_no_loop() {
    let mut mesh = through_two();
    let frozen_at = mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    mesh.frozen.insert(RelayId(3));
    mesh.stream(Class::Realtime, frozen_at, Duration::from_secs(2));
    let sent: u64 = (1..=4).map(|id| mesh.stats(id).frames_sent).sum();
    mesh.stream(Class::Realtime, 1_000, Duration::from_secs(1));

    let drops: u64 = (1..=4).map(|id| mesh.stats(id).dropped(DropReason::NoPath)).sum();
    let more: u64 = (1..=4).map(|id| mesh.stats(id).frames_sent).sum::<u64>() - sent;
    assert!(drops >= 50, "{drops} dropped for want of a path");
    assert!(more <= 50 * 3, "{more} frames sent for 50 that cannot arrive");
}

#[test]
fn a_process_that_slept_blames_itself() {
    for slept in [100, 400, 700, 2_000] {
        let mut mesh = through_two();
        mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
        let before = mesh.stats(1).downs;
        mesh.frozen.insert(RelayId(1));
        mesh.run(Duration::from_millis(slept));
        mesh.frozen.remove(&RelayId(1));
        mesh.run(Duration::from_millis(500));

        assert!(mesh.stats(1).self_stalls > 0);
        let link = NeighbourLink::new(RelayId(4), LinkIndex::default());
        let (inbound, _) = mesh.relays[&RelayId(1)].link_state(link).unwrap();
        assert_eq!(inbound, State::Up, "{slept} ms: it hears the others");
        let called_down = mesh
            .states
            .iter()
            .filter(|(at, _, inbound, _)| *at == RelayId(1) && *inbound == State::Down)
            .count();
        assert_eq!(called_down, 0, "{slept} ms: it calls nobody down");
        assert!(mesh.stats(1).downs >= before);
    }
}

#[test]
fn no_frame_is_sent_to_a_process_that_slept_before_it_reads_again() {
    let mut mesh = through_two();
    let slept = mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    mesh.frozen.insert(RelayId(2));
    let woken = mesh.stream(Class::Realtime, slept, Duration::from_millis(700));
    mesh.frozen.remove(&RelayId(2));
    mesh.run(STEP);
    let read =
        |mesh: &Mesh| (mesh.stats(2).dropped(DropReason::Stale), mesh.stats(2).frames_forwarded);
    let (stale, forwarded) = read(&mesh);

    mesh.stream(Class::Realtime, woken, Duration::from_secs(1));

    assert_eq!(read(&mesh).0, stale, "sent to it and thrown away");
    assert!(read(&mesh).1 > forwarded, "it is used again");
}

#[test]
fn frames_behind_a_full_lane_are_copied_as_soon_as_the_link_is_suspect() {
    let mut mesh = through_two();
    let frozen_at = mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    mesh.frozen.insert(RelayId(2));
    mesh.flying.retain(|flying| flying.to != RelayId(2));
    mesh.full = Some((RelayId(1), RelayId(2)));
    let sent = mesh.now;
    mesh.send(1, 3, Class::Realtime, frozen_at);
    while !mesh.sequences().contains(&frozen_at) {
        mesh.run(STEP);
        assert!(mesh.now - sent < Duration::from_millis(60) + DELAY * 2, "copied while suspect");
    }
}

#[test]
fn a_lane_that_is_replaced_sends_again_what_was_under_way() {
    let mut mesh = through_two();
    mesh.stream(Class::Interactive, 0, Duration::from_millis(200));
    mesh.send(1, 3, Class::Interactive, 10);
    mesh.flying.retain(|flying| flying.transmit.lane == Lane::Light);
    let key = (NeighbourLink::new(RelayId(2), LinkIndex::default()), Lane::Bulk);
    let now = mesh.now;
    let relay = mesh.relays.get_mut(&RelayId(1)).unwrap();
    relay.handle_lane(key, false, now);
    relay.handle_lane(key, true, now);
    mesh.run(Duration::from_millis(50));

    assert!(mesh.sequences().contains(&10));
}

#[test]
fn a_backlog_that_is_read_after_a_stall_makes_one_stall() {
    let mut mesh = through_two();
    mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    let waiting: Vec<Flying> = mesh.flying.drain(..).filter(|it| it.to == RelayId(1)).collect();
    mesh.now += Duration::from_secs(4);
    let before = mesh.stats(1).self_stalls;

    let now = mesh.now;
    let relay = mesh.relays.get_mut(&RelayId(1)).unwrap();
    for Flying { from, transmit, .. } in &waiting {
        let key = (NeighbourLink::new(*from, transmit.link.index), transmit.lane);
        relay.handle_datagram(key, &transmit.message, now);
    }

    assert!(waiting.len() >= 2, "{} wait", waiting.len());
    assert_eq!(mesh.stats(1).self_stalls, before + 1);
}

#[test]
fn frames_that_do_not_name_their_sender_are_dropped() {
    let mut mesh = through_two();
    let now = mesh.now;
    mesh.send(1, 3, Class::Realtime, 5);
    let message = mesh.flying.back().unwrap().transmit.message.clone();
    let relay = mesh.relays.get_mut(&RelayId(2)).unwrap();
    let from_four = NeighbourLink::new(RelayId(4), LinkIndex::default());
    let before = relay.stats().dropped(DropReason::WrongHop);

    relay.handle_datagram((from_four, Lane::Realtime), &message, now);
    assert_eq!(relay.stats().dropped(DropReason::WrongHop), before + 1);

    let from_one = NeighbourLink::new(RelayId(1), LinkIndex::default());
    relay.handle_datagram((from_one, Lane::Bulk), &message, now);
    assert_eq!(relay.stats().dropped(DropReason::WrongLane), 1);
}
