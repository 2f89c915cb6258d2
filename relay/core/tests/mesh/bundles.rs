//! Small frames that share a datagram.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use overway_relay_core::{DropReason, LocalFrame};
use overway_wire::hop::{self, HopMessage, Lane, MESSAGE_BYTES_MAX};
use overway_wire::{Class, LinkIndex, NeighbourLink, RelayId};

use crate::harness::{Mesh, STEP, frame};

fn two() -> Mesh {
    Mesh::new(2, 1, &[(1, 2, &[&[2]]), (2, 1, &[&[1]])])
}

fn link(neighbour: u16) -> NeighbourLink {
    NeighbourLink::new(RelayId(neighbour), LinkIndex::default())
}

/// Hands a relay frames with payloads of these lengths at once, numbered from `first` on.
fn hand(mesh: &mut Mesh, class: Class, first: u64, payloads: impl IntoIterator<Item = usize>) {
    let now = mesh.now;
    for (sequence, bytes) in (first..).zip(payloads) {
        let payload = Bytes::from(vec![0; bytes]);
        mesh.relay(1).handle_frame(LocalFrame { payload, ..frame(2, class, sequence) }, now);
    }
    mesh.collect();
}

/// How many frames each message with frames holds that is under way.
fn messages(mesh: &Mesh) -> Vec<usize> {
    let flying = mesh.flying.iter().filter(|flying| flying.transmit.lane != Lane::Light);
    let frames = flying.map(|flying| {
        let message = &flying.transmit.message;
        assert!(message.len() <= MESSAGE_BYTES_MAX, "{} bytes", message.len());
        HopMessage::decode(message).unwrap().frames().count()
    });
    frames.collect()
}

#[test]
fn small_frames_that_wait_together_share_a_datagram_and_arrive_in_order() {
    for class in Class::ALL {
        let mut mesh = two();
        hand(&mut mesh, class, 0, [160; 20]);
        // 31 bytes of header and two of length each.
        assert_eq!(messages(&mesh), [6, 6, 6, 2], "{class}");
        mesh.run(Duration::from_millis(50));

        let sequences: Vec<u64> = mesh.delivered.iter().map(|(_, frame)| frame.sequence).collect();
        assert_eq!(sequences, (0..20).collect::<Vec<_>>(), "{class}");
        assert_eq!(mesh.stats(1).frames_sent, 20, "{class}");
        assert_eq!(mesh.stats(2).frames_received, 20, "{class}");
    }
}

#[test]
fn a_frame_alone_and_a_large_one_have_datagrams_of_their_own() {
    let mut mesh = two();
    hand(&mut mesh, Class::Bulk, 0, [160]);
    assert_eq!(messages(&mesh), [1]);
    mesh.run(Duration::from_millis(50));
    hand(&mut mesh, Class::Bulk, 1, [1_200, 1_200, 100, 1_200, 100, 900, 100]);

    // A small one begins what others may share, and what does not fit begins the next.
    assert_eq!(messages(&mesh), [1, 1, 1, 1, 3]);
    mesh.run(Duration::from_millis(50));
    assert_eq!(mesh.sequences().len(), 8);
}

#[test]
fn a_neighbour_that_does_not_know_bundles_is_sent_none() {
    let mut mesh = two();
    mesh.old.insert(RelayId(2));
    mesh.run(Duration::from_secs(1));
    hand(&mut mesh, Class::Bulk, 0, [100; 5]);

    assert_eq!(messages(&mesh), [1; 5]);
}

#[test]
fn every_frame_of_a_lost_bundle_is_recovered() {
    let mut mesh = two();
    mesh.loss_ppm = 50_000;
    for burst in 0..500 {
        hand(&mut mesh, Class::Bulk, burst * 20, [100; 20]);
        mesh.run(Duration::from_millis(2));
    }
    mesh.run(Duration::from_secs(1));

    let recovered = mesh.relays[&RelayId(2)].recovery_stats()[1].recovered;
    assert!(recovered > 200, "{recovered}");
    assert!(mesh.sequences().len() >= 9_990, "{}", mesh.sequences().len());
    assert_eq!(mesh.delivered.len(), mesh.sequences().len(), "nothing is handed on twice");
}

#[test]
fn a_bundle_of_rubbish_costs_no_more_than_its_frames_and_is_dropped_with_a_reason() {
    let mut mesh = two();
    hand(&mut mesh, Class::Bulk, 0, [100; 6]);
    let good = mesh.flying.back().unwrap().transmit.message.clone();
    mesh.run(Duration::from_millis(50));
    let now = mesh.now;
    let mut cut = BytesMut::from(&good[..]);
    cut.put_u16(u16::MAX);
    let mut empty = BytesMut::new();
    hop::encode_bundle_prefix(1_000, &mut empty);
    let mut zeros = empty.clone();
    zeros.put_bytes(0, 60_000);
    for message in [good, cut.freeze(), empty.freeze(), zeros.freeze()] {
        mesh.relay(2).handle_datagram((link(1), Lane::Bulk), &message, now);
    }

    // The two that are whole came before; each of the others has one thing wrong.
    assert_eq!(mesh.stats(2).dropped(DropReason::Duplicate), 12);
    assert_eq!(mesh.stats(2).dropped(DropReason::BadMessage), 2);
    assert_eq!(mesh.delivered.len(), 6);
}

#[test]
fn what_was_received_is_told_between_heartbeats_where_much_is_sent() {
    for phase in 0..8 {
        let mut mesh = Mesh::new(3, 1, &[(1, 2, &[&[2], &[3, 2]]), (3, 2, &[&[2]])]);
        mesh.run(Duration::from_millis(4 * phase));
        for step in 0..200 {
            hand(&mut mesh, Class::Bulk, step * 100, [100; 100]);
            mesh.run(STEP);
        }
        mesh.cut.extend([(1, 2, 0), (2, 1, 0)]);
        mesh.run(Duration::from_millis(500));

        assert_eq!(mesh.sequences().len(), 20_000);
        // What was under way, of which nobody was told, and as many as are told of at once. By heartbeats alone it would
        // be up to 4,000.
        let replays = mesh.stats(1).replays;
        assert!((900..1_600).contains(&replays), "{phase}: {replays}");
    }
}
