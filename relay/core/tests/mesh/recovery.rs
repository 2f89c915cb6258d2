//! Links that lose and reorder: what the two relays at their ends make of it.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use overway_relay_core::{DropReason, LocalFrame, RecoveryStats};
use overway_wire::hop::{self, HopMessage, Lane, NackRange};
use overway_wire::{Class, LinkIndex, Millis, NeighbourLink, RelayId};

use crate::harness::{DELAY, Mesh, STEP, frame};

/// From 1 to 2 and back.
fn two() -> Mesh {
    Mesh::new(2, 1, &[(1, 2, &[&[2]]), (2, 1, &[&[1]])])
}

fn link(neighbour: u16) -> NeighbourLink {
    NeighbourLink::new(RelayId(neighbour), LinkIndex::default())
}

/// Sends so many frames in each step from 1 to 2, and waits for the last.
fn burst(mesh: &mut Mesh, class: Class, budget: Millis, steps: u64, each: u64) -> u64 {
    for step in 0..steps {
        for at in 0..each {
            mesh.send_frame(1, LocalFrame { budget, ..frame(2, class, step * each + at) });
        }
        mesh.run(STEP);
    }
    mesh.run(Duration::from_secs(1));
    steps * each
}

fn stats(mesh: &Mesh, relay: u16, lane: Lane) -> RecoveryStats {
    mesh.relays[&RelayId(relay)].recovery_stats()[lane.data_index().unwrap()]
}

/// Share of the frames lost on the line from 1 to 2, by the receiver's probe.
fn line_loss(mesh: &Mesh) -> f64 {
    let probe = mesh.relays[&RelayId(2)].probe_stats();
    (probe.lost - probe.recovered) as f64 / probe.expected as f64
}

/// When each frame arrived after it was sent, `each` of them in a step since `start`.
fn delays(mesh: &Mesh, start: Instant, each: u64) -> Vec<Duration> {
    let arrivals = mesh.delivered.iter().zip(&mesh.times);
    let delay = |((_, delivered), at): (&(_, overway_relay_core::Delivered), &Instant)| {
        *at - (start + STEP * u32::try_from(delivered.sequence / each).unwrap())
    };
    arrivals.map(delay).collect()
}

#[test]
fn bulk_frames_over_a_lossy_link_arrive_once_but_for_one_in_ten_thousand() {
    for (loss_ppm, jitter) in [(10_000, 0), (10_000, 4), (50_000, 2)] {
        let mut mesh = two();
        mesh.loss_ppm = loss_ppm;
        mesh.jitter = Duration::from_millis(jitter);
        let sent = burst(&mut mesh, Class::Bulk, Millis(5_000), 1_000, 60);

        let (receiver, sender) = (stats(&mesh, 2, Lane::Bulk), stats(&mesh, 1, Lane::Bulk));
        let lost = sent - mesh.sequences().len() as u64;
        assert!(lost * 10_000 <= sent, "{loss_ppm} {jitter}: {lost} of {sent} lost, {receiver:?}");
        assert_eq!(mesh.delivered.len(), mesh.sequences().len(), "nothing is handed on twice");
        assert_eq!(receiver.given_up, lost, "{receiver:?}");
        let line = line_loss(&mesh) * 1e6 / loss_ppm as f64;
        assert!((0.9..1.1).contains(&line), "{loss_ppm} {jitter}: the line's loss is {line} of it");
        assert!(receiver.recovered * 1_000_000 > sent * loss_ppm * 9 / 10, "{receiver:?}");
        assert_eq!(sender.over_budget, 0, "{sender:?}");
        // A question that was put again may cross the word that its answer came.
        assert!(sender.absent * 100 <= sender.wanted, "{sender:?}");
    }
}

#[test]
fn realtime_frames_over_a_lossy_link_arrive_within_their_budget() {
    for (loss_ppm, on_time_min) in [(10_000, 0.9999), (50_000, 0.999)] {
        let mut mesh = two();
        (mesh.loss_ppm, mesh.jitter) = (loss_ppm, Duration::from_millis(1));
        let start = mesh.now;
        let sent = burst(&mut mesh, Class::Realtime, Millis(200), 6_000, 2);

        let delays = delays(&mesh, start, 2);
        let late = *delays.iter().max().unwrap();
        assert!(late <= Duration::from_millis(200), "{loss_ppm}: {late:?}");
        assert_eq!(delays.len(), mesh.sequences().len(), "nothing is handed on twice");
        // A link's delay and jitter, the next frame, a window, a round trip, and timers' grains.
        let bound = DELAY * 3 + Duration::from_millis(12);
        let on_time = delays.iter().filter(|&&delay| delay <= bound).count();
        let share = on_time as f64 / sent as f64;
        assert!(share >= on_time_min, "{loss_ppm}: {share} within {bound:?}");
    }
}

#[test]
fn the_only_frame_of_a_burst_is_recovered_by_its_tail_probe() {
    for class in [Class::Realtime, Class::Bulk] {
        let mut mesh = two();
        mesh.send(1, 2, class, 0);
        for phase in 1..40 {
            mesh.run(Duration::from_millis(100 + phase));
            let start = mesh.now;
            mesh.send(1, 2, class, phase);
            mesh.flying.retain(|flying| flying.transmit.lane == Lane::Light);
            mesh.run(Duration::from_millis(100));

            assert_eq!(mesh.delivered.len() as u64, 1 + phase, "{class}");
            let took = *mesh.times.last().unwrap() - start;
            // The tail probe, the window, and timers' grains.
            let bound = DELAY * 3 + Duration::from_millis(5 + 3 + 3);
            assert!(took <= bound, "{class} {phase}: {took:?}");
        }
        let lane = Lane::of(class);
        let sent = stats(&mesh, 1, lane).tails_sent;
        // Now and then a heartbeat says it first.
        assert!((25..=40).contains(&sent), "{sent}");
        assert_eq!(stats(&mesh, 2, lane).given_up, 0);
    }
}

#[test]
fn a_frame_that_another_follows_needs_no_tail_probe() {
    let mut mesh = two();
    for sequence in 0..100 {
        mesh.send(1, 2, Class::Bulk, sequence);
        mesh.run(Duration::from_millis(3));
    }
    mesh.run(Duration::from_millis(100));

    let stats = stats(&mesh, 1, Lane::Bulk);
    assert!(stats.tails_sent <= 1 && stats.nacks_received == 0, "{stats:?}");
}

#[test]
fn a_neighbour_of_the_version_before_is_asked_for_nothing_and_replayed_as_before() {
    for old in [1, 2] {
        let mut mesh = Mesh::new(3, 1, &[(1, 2, &[&[2], &[3, 2]]), (3, 2, &[&[2]])]);
        mesh.old.insert(RelayId(old));
        mesh.run(Duration::from_secs(1));
        mesh.puzzling = 0;
        mesh.loss_ppm = 50_000;
        for sequence in 0..400 {
            mesh.send(1, 2, Class::Bulk, sequence);
            mesh.run(Duration::from_millis(7));
        }

        assert_eq!(mesh.puzzling, 0, "{old} is old");
        let replays = mesh.stats(1).replays;
        mesh.loss_ppm = 0;
        mesh.run(Duration::from_secs(1));
        mesh.cut.extend([(1, 2, 0), (2, 1, 0)]);
        mesh.send(1, 2, Class::Bulk, 400);
        mesh.run(Duration::from_millis(300));
        assert!(mesh.sequences().contains(&400), "{old} is old");
        assert_eq!(mesh.stats(1).replays - replays, 1, "{old} is old");
    }
}

#[test]
fn what_is_acknowledged_is_not_replayed_though_it_is_kept() {
    let mut mesh = Mesh::new(3, 1, &[(1, 2, &[&[2], &[3, 2]]), (3, 2, &[&[2]])]);
    let mut sequence = 0;
    let mut send = |mesh: &mut Mesh, frames| {
        for _ in 0..frames {
            mesh.send(1, 2, Class::Bulk, sequence);
            mesh.run(Duration::from_millis(5));
            sequence += 1;
        }
    };
    send(&mut mesh, 100);
    // Two are missing, so that for a while nothing after them is complete.
    mesh.flying.retain(|flying| flying.transmit.lane == Lane::Light);
    send(&mut mesh, 4);
    mesh.cut.extend([(1, 2, 0), (2, 1, 0)]);
    send(&mut mesh, 100);
    mesh.run(Duration::from_millis(200));

    assert_eq!(mesh.sequences().len(), 204);
    // A round trip, a heartbeat's interval, and until the link is down: nothing of what came before.
    assert!(mesh.stats(1).replays <= 40, "{} replayed", mesh.stats(1).replays);
}

#[test]
fn forged_questions_cost_the_budget_at_most() {
    let mut mesh = two();
    for sequence in 0..500 {
        mesh.send(1, 2, Class::Bulk, sequence);
        mesh.run(STEP);
    }
    let sent = mesh.stats(1).bytes_sent;
    let mut question = BytesMut::new();
    let everything = [NackRange { first: 0, count: u16::MAX }; 64];
    hop::encode_nack(Lane::Bulk, &everything, &mut question);
    let question = question.freeze();
    for _ in 0..1_000 {
        let now = mesh.now;
        mesh.relay(1).handle_datagram((link(2), Lane::Light), &question, now);
        mesh.collect();
        mesh.run(STEP);
    }

    let stats = stats(&mesh, 1, Lane::Bulk);
    assert!(stats.wanted <= 1_000 * 512);
    let resent = mesh.stats(1).bytes_sent - sent;
    assert!(resent <= sent / 5 + (64 << 10), "{resent} bytes for {sent}");
    assert_eq!(mesh.sequences().len(), mesh.delivered.len(), "nothing is handed on twice");
    assert_eq!(mesh.stats(2).dropped(DropReason::Duplicate), stats.resent);
}

#[test]
fn questions_and_tail_probes_belong_on_the_light_lane() {
    let mut mesh = two();
    let now = mesh.now;
    let (mut nack, mut tail) = (BytesMut::new(), BytesMut::new());
    hop::encode_nack(Lane::Bulk, &[NackRange { first: 0, count: 1 }], &mut nack);
    hop::encode_tail(Lane::Bulk, 7, &mut tail);
    for message in [nack.freeze(), tail.freeze()] {
        mesh.relay(1).handle_datagram((link(2), Lane::Bulk), &message, now);
    }

    assert_eq!(mesh.stats(1).dropped(DropReason::WrongLane), 2);
    assert_eq!(stats(&mesh, 1, Lane::Bulk), RecoveryStats::default());
}

#[test]
fn numbers_of_a_link_that_was_made_anew_are_taken() {
    let mut mesh = two();
    for sequence in 0..300 {
        mesh.send(1, 2, Class::Bulk, sequence);
        mesh.run(STEP);
    }
    mesh.run(DELAY * 2);
    let now = mesh.now;
    for (id, other) in [(1, 2), (2, 1)] {
        let relay = mesh.relay(id);
        relay.handle_link_opened(link(other), now);
        Lane::DATA.into_iter().for_each(|lane| relay.handle_lane((link(other), lane), true, now));
    }
    mesh.run(Duration::from_secs(1));
    for sequence in 300..600 {
        mesh.send(1, 2, Class::Bulk, sequence);
        mesh.run(STEP);
    }
    mesh.run(DELAY * 2);

    assert_eq!(mesh.sequences().len(), 600);
    assert_eq!(mesh.stats(2).dropped(DropReason::Duplicate), 0);
    let stats = stats(&mesh, 2, Lane::Bulk);
    assert_eq!((stats.missing, stats.nacks_sent), (0, 0), "{stats:?}");
}

#[test]
fn a_frame_in_order_is_one_datagram_and_no_question() {
    let mut mesh = two();
    mesh.send(1, 2, Class::Bulk, 0);
    let data: Vec<Bytes> =
        mesh.flying.iter().map(|flying| flying.transmit.message.clone()).collect();
    let frames =
        |message: &&Bytes| matches!(HopMessage::decode(message), Ok(HopMessage::Data { .. }));
    assert_eq!(data.iter().filter(frames).count(), 1);
    mesh.run(Duration::from_secs(1));
    let (sender, receiver) = (stats(&mesh, 1, Lane::Bulk), stats(&mesh, 2, Lane::Bulk));
    assert_eq!((sender.resent, receiver.nacks_sent, receiver.missing), (0, 0, 0));
}
