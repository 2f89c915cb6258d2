//! Queues in front of a line that is configured with a capacity.

use std::time::Duration;

use bytes::Bytes;
use overway_relay_core::{DropReason, Fec, LocalFrame, Settings};
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

/// Relay 1 with a line of eight megabits a second, or of unknown capacity, and links to others with lines of these.
fn shared(line_bps: Option<u64>, others: &[u64]) -> Mesh {
    let peer = |relay: usize, capacity_bps| Peer {
        neighbour: u32::try_from(relay).unwrap(),
        remote_address: format!("127.0.0.1:{relay}"),
        role: Role::Candidate.into(),
        capacity_bps,
        ..Peer::default()
    };
    let relays = u16::try_from(others.len()).unwrap() + 1;
    let items = |id: u16| {
        let peers = (2..).zip(others).map(|(other, &bps)| match id {
            1 => peer(other, bps),
            _ => peer(1, bps),
        });
        let routes = (2..=relays).filter(|_| id == 1).flat_map(|other| route(other, &[&[other]]));
        peers.map(Into::into).chain(routes).collect()
    };
    Mesh::configured(relays, 1, items, |config| {
        if config.local == RelayId(1) {
            config.lines_bps = line_bps.into_iter().collect();
        }
    })
}

/// Sends so many large frames to a relay at once.
fn flood(mesh: &mut Mesh, to: u16, class: Class, frames: u64) {
    for sequence in 0..frames {
        let payload = Bytes::from(vec![0; 880]);
        mesh.send_frame(1, LocalFrame { payload, ..frame(to, class, sequence) });
    }
}

/// How many frames of a class have arrived at each of the other relays.
fn arrived(mesh: &Mesh, class: Class) -> Vec<usize> {
    let of = |relay: &RelayId| {
        let mut all = mesh.delivered.iter();
        all.by_ref().filter(|(at, frame)| at == relay && frame.class == class).count()
    };
    mesh.relays.keys().skip(1).map(of).collect()
}

#[test]
fn links_that_share_a_line_keep_to_it_together_and_take_turns() {
    let mut mesh = shared(Some(8_000_000), &[8_000_000; 3]);
    for to in 2..=4 {
        flood(&mut mesh, to, Class::Bulk, 300);
    }
    mesh.run(DELAY + Duration::from_millis(300));
    let shares = arrived(&mesh, Class::Bulk);
    assert!((299..=305).contains(&shares.iter().sum::<usize>()), "{shares:?}");
    // Whose frames came first has the burst.
    assert!(shares.iter().all(|share| (99..=103).contains(share)), "{shares:?}");

    mesh.run(Duration::from_secs(1));
    assert_eq!(arrived(&mesh, Class::Bulk), [300; 3], "nothing is left behind");
}

#[test]
fn a_line_keeps_to_the_capacity_that_it_is_given_while_it_runs() {
    let mut mesh = shared(Some(8_000_000), &[80_000_000; 2]);
    let settings = Settings { transit: true, fec: Fec::Adaptive, lines_bps: vec![16_000_000] };
    let now = mesh.now;
    mesh.relays.get_mut(&RelayId(1)).unwrap().handle_settings(settings, now);

    (2..=3).for_each(|to| flood(&mut mesh, to, Class::Bulk, 400));
    mesh.run(DELAY + Duration::from_millis(300));

    let shares = arrived(&mesh, Class::Bulk);
    assert!((599..=610).contains(&shares.iter().sum::<usize>()), "{shares:?}");
}

#[test]
fn a_line_of_unknown_capacity_leaves_each_link_its_own() {
    let mut mesh = shared(None, &[8_000_000; 2]);
    (2..=3).for_each(|to| flood(&mut mesh, to, Class::Bulk, 300));
    mesh.run(DELAY + Duration::from_millis(100));

    let shares = arrived(&mesh, Class::Bulk);
    assert!(shares.iter().all(|share| (99..=104).contains(share)), "{shares:?}");
}

#[test]
fn realtime_of_one_link_goes_before_the_bulk_of_others_which_keeps_an_eighth() {
    let mut mesh = shared(Some(8_000_000), &[8_000_000; 3]);
    flood(&mut mesh, 2, Class::Realtime, 400);
    (3..=4).for_each(|to| flood(&mut mesh, to, Class::Bulk, 100));
    mesh.run(DELAY + Duration::from_millis(320));

    let (realtime, bulk) = (arrived(&mesh, Class::Realtime), arrived(&mesh, Class::Bulk));
    assert!((278..=290).contains(&realtime[0]), "{realtime:?}");
    assert!((35..=45).contains(&bulk.iter().sum::<usize>()), "{bulk:?}");
    assert!(bulk[1].abs_diff(bulk[2]) <= 1, "{bulk:?}");
}

#[test]
fn a_far_end_with_a_narrow_line_holds_up_nobody_else() {
    for class in [Class::Realtime, Class::Bulk] {
        let mut mesh = shared(Some(8_000_000), &[800_000, 8_000_000]);
        (2..=3).for_each(|to| flood(&mut mesh, to, class, 400));
        flood(&mut mesh, 2, Class::Bulk, 100);
        mesh.run(DELAY + Duration::from_millis(300));

        let total: usize = [Class::Realtime, Class::Bulk]
            .map(|class| arrived(&mesh, class).iter().sum())
            .iter()
            .sum();
        assert!((299..=305).contains(&total), "{class}: {total}");
        assert!(
            (265..=275).contains(&arrived(&mesh, class)[1]),
            "{class}: {:?}",
            arrived(&mesh, class)
        );
        assert!(arrived(&mesh, Class::Bulk)[0] >= 2, "its bulk keeps an eighth");
    }
}
