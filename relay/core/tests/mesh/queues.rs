//! Queues in front of a line that is configured with a capacity.

use std::time::Duration;

use bytes::Bytes;
use overway_relay_core::{DropReason, LocalFrame};
use overway_wire::control::{Peer, Role};
use overway_wire::frame::FrameEcn;
use overway_wire::{Class, Millis, RelayId};

use crate::harness::{DELAY, Mesh, STEP, frame, route};

/// Relays 1 and 2 with a line of eight megabits a second: a frame of 1,000 bytes in a little over a millisecond.
fn line() -> Mesh {
    Mesh::with(2, 1, |id| {
        let other = 3 - id;
        let peer = Peer {
            neighbour: other.into(),
            remote_address: format!("127.0.0.1:{other}"),
            role: Role::Candidate.into(),
            capacity_bps: 8_000_000,
            ..Peer::default()
        };
        let mut items = route(other, &[&[other]]);
        items.push(peer.into());
        items
    })
}

fn large(class: Class, sequence: u64) -> LocalFrame {
    LocalFrame { payload: Bytes::from(vec![0; 880]), ..frame(2, class, sequence) }
}

#[test]
fn a_line_carries_its_capacity_and_what_waits_comes_later() {
    let mut mesh = line();
    for sequence in 0..500 {
        mesh.send_frame(1, large(Class::Bulk, sequence));
    }
    mesh.run(DELAY + Duration::from_millis(250));

    // 996 bytes on the wire each, two milliseconds of a burst, one of the harness's clock.
    let arrived = mesh.delivered.len();
    assert!((249..=254).contains(&arrived), "{arrived}");
    let waiting = mesh.relays[&RelayId(1)].queue_stats()[2].waiting;
    assert_eq!(waiting, 500 - mesh.relays[&RelayId(1)].stats().frames_sent);

    mesh.run(Duration::from_millis(300));
    let sequences: Vec<u64> = mesh.delivered.iter().map(|(_, frame)| frame.sequence).collect();
    assert_eq!(sequences, (0..500).collect::<Vec<_>>());
}

#[test]
fn realtime_goes_before_the_bulk_that_waits() {
    let mut mesh = line();
    for sequence in 0..200 {
        mesh.send_frame(1, large(Class::Bulk, sequence));
    }
    mesh.run(Duration::from_millis(50));
    mesh.send(1, 2, Class::Realtime, 1_000);
    let sent = mesh.now;
    mesh.run(Duration::from_millis(300));

    let at = mesh.delivered.iter().position(|(_, frame)| frame.class == Class::Realtime).unwrap();
    assert!(mesh.times[at] - sent <= DELAY + 3 * STEP, "{:?}", mesh.times[at] - sent);
    assert_eq!(mesh.delivered.len(), 201);
}

#[test]
fn a_line_that_is_overrun_marks_and_drops_only_what_has_no_time_left() {
    let mut mesh = line();
    for sequence in 0..600 {
        let realtime = LocalFrame { budget: Millis(100), ..large(Class::Realtime, sequence) };
        mesh.send_frame(1, realtime);
        mesh.send_frame(1, large(Class::Bulk, sequence));
        mesh.run(STEP);
    }
    mesh.run(Duration::from_secs(2));

    let relay = &mesh.relays[&RelayId(1)];
    let [realtime, _, bulk] = relay.queue_stats();
    assert!(realtime.marked > 0 && bulk.marked > 0, "{realtime:?} {bulk:?}");
    assert_eq!(realtime.expired, relay.stats().dropped(DropReason::Expired));
    assert_eq!((realtime.waiting, bulk.waiting, bulk.evicted), (0, 0, 0));
    let marked =
        mesh.delivered.iter().filter(|(_, frame)| frame.ecn == FrameEcn::CongestionExperienced);
    assert!(marked.count() > 0);
    // Bulk keeps an eighth while realtime takes all it can.
    let of = |class| {
        mesh.delivered.iter().zip(&mesh.times).filter(move |((_, frame), _)| frame.class == class)
    };
    let end = *of(Class::Realtime).next_back().unwrap().1;
    let early = of(Class::Bulk).filter(|&(_, &at)| at < end).count();
    assert!((60..=100).contains(&early), "{early}");
}

#[test]
fn interactive_frames_keep_their_pace_while_bulk_overruns_the_line() {
    let mut mesh = line();
    for sequence in 0..300 {
        for _ in 0..2 {
            mesh.send_frame(1, large(Class::Bulk, sequence));
        }
        if sequence % 10 == 0 {
            mesh.send_frame(1, large(Class::Interactive, sequence));
        }
        mesh.run(STEP);
    }
    let interactive: Vec<_> = mesh
        .delivered
        .iter()
        .zip(&mesh.times)
        .filter(|((_, frame), _)| frame.class == Class::Interactive)
        .map(|(_, &at)| at)
        .collect();
    let gaps = interactive.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.max().unwrap() <= 13 * STEP);
}
