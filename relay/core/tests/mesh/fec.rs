//! Long lines that lose much: what repairs make of it, and at what price.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use overway_relay_core::{Config, DropReason, Fec, LocalFrame, RecoveryStats};
use overway_wire::control::{Peer, Role};
use overway_wire::hop::{Lane, Repair, Slots};
use overway_wire::{Class, LinkIndex, Millis, NeighbourLink, Redundancy, RelayId};

use crate::harness::{DELAY, Mesh, STEP, frame, route};

/// One way; a round trip is twice as long.
const WAY: Duration = Duration::from_millis(75);
/// What an end can wait for: half the path's delay more than that, and 20 ms.
const DEADLINE: Duration = Duration::from_micros(132_500);
const PAYLOAD: usize = 1_000;

/// From 1 to 2 over a line of 20 Mbit/s and a round trip of 150 ms.
fn long(fec: Fec) -> Mesh {
    long_with(|config| config.fec = fec)
}

fn long_with(configure: impl Fn(&mut Config)) -> Mesh {
    let items = |id: u16| {
        let other = 3 - id;
        let peer = Peer {
            neighbour: other.into(),
            remote_address: format!("127.0.0.1:{other}"),
            role: Role::Candidate.into(),
            capacity_bps: 20_000_000,
            ..Peer::default()
        };
        let mut items = vec![peer.into()];
        items.extend(route(other, &[&[other]]));
        items
    };
    let mut mesh = Mesh::configured(2, 1, items, configure);
    mesh.slower = [1, 2].map(|relay| (RelayId(relay), WAY - DELAY)).into();
    // Until its round trip is known.
    mesh.run(Duration::from_secs(3));
    mesh
}

fn stats(mesh: &Mesh, relay: u16, lane: Lane) -> RecoveryStats {
    mesh.relays[&RelayId(relay)].recovery_stats()[lane.data_index().unwrap()]
}

/// A flow's frames.
#[derive(Clone, Copy)]
struct Flow {
    class: Class,
    redundancy: Redundancy,
    spacing: Duration,
    frames: u64,
}

const DENSE: Flow = Flow {
    class: Class::Realtime,
    redundancy: Redundancy::Adaptive,
    spacing: Duration::from_millis(2),
    frames: 20_000,
};

/// Sends a flow's frames; returns how long each that came took, in their order, the first of its copies.
fn run(mesh: &mut Mesh, flow: Flow) -> BTreeMap<u64, Duration> {
    let (start, first) = (mesh.now, mesh.delivered.len());
    for sequence in 0..flow.frames {
        let payload = Bytes::from(vec![u8::try_from(sequence % 251).unwrap(); PAYLOAD]);
        let Flow { class, redundancy, .. } = flow;
        mesh.send_frame(1, LocalFrame { redundancy, payload, ..frame(2, class, sequence) });
        mesh.run(flow.spacing);
    }
    mesh.run(Duration::from_secs(2));
    let mut took = BTreeMap::new();
    for ((_, delivered), &at) in mesh.delivered.iter().zip(&mesh.times).skip(first) {
        let sequence = delivered.sequence;
        let payload = [u8::try_from(sequence % 251).unwrap(); PAYLOAD];
        assert_eq!(delivered.payload, payload[..], "exactly what was sent");
        let sent = start + flow.spacing * u32::try_from(sequence).unwrap();
        took.entry(sequence).or_insert(at - sent);
    }
    took
}

/// The share of a flow's frames that are in time.
fn on_time(took: &BTreeMap<u64, Duration>, flow: Flow) -> f64 {
    took.values().filter(|&&took| took <= DEADLINE).count() as f64 / flow.frames as f64
}

/// The same for frames that wait for those before them.
fn in_order(took: &BTreeMap<u64, Duration>, flow: Flow) -> f64 {
    let (mut all, mut count) = (Duration::ZERO, 0);
    for sequence in 0..flow.frames {
        let sent = flow.spacing * u32::try_from(sequence).unwrap();
        all = all.max(sent + took.get(&sequence).copied().unwrap_or(Duration::from_secs(1)));
        count += u64::from(all - sent <= DEADLINE);
    }
    count as f64 / flow.frames as f64
}

/// What a flow over a line that loses 2 % comes to.
#[derive(Debug)]
struct Figures {
    on_time: f64,
    in_order: f64,
    /// Bytes of twins and repairs, as a part of the flow's own.
    beside: f64,
    sender: RecoveryStats,
    receiver: RecoveryStats,
}

fn measured(fec: Fec, flow: Flow) -> Figures {
    let mut mesh = long(fec);
    mesh.loss_ppm = 20_000;
    run(&mut mesh, Flow { frames: 1_000, ..flow });
    let lane = Lane::of(flow.class);
    let bytes = |stats: RecoveryStats| stats.twin_bytes + stats.repair_bytes;
    let before = bytes(stats(&mesh, 1, lane));
    let took = run(&mut mesh, flow);
    let (sender, receiver) = (stats(&mesh, 1, lane), stats(&mesh, 2, lane));
    let own = flow.frames * (PAYLOAD as u64 + 31);
    let beside = (bytes(sender) - before) as f64 / own as f64;
    let (on_time, in_order) = (on_time(&took, flow), in_order(&took, flow));
    println!(
        "{} each {:?}, {fec:?}: {on_time} on time, {in_order} in order, {beside} beside",
        flow.class, flow.spacing
    );
    Figures { on_time, in_order, beside, sender, receiver }
}

#[test]
fn a_dense_realtime_flow_on_a_long_lossy_line_is_in_time_for_a_quarter_of_its_bytes() {
    let (twins, repairs) = (measured(Fec::Off, DENSE), measured(Fec::Adaptive, DENSE));

    // A tenth of the line has room for the twins of half the flow.
    assert!((0.985..0.993).contains(&twins.on_time) && twins.beside > 0.45, "{twins:?}");
    assert!(repairs.on_time >= 0.9995 && repairs.beside < 0.28, "{repairs:?}");
    assert!(repairs.in_order > 0.99, "{repairs:?}");
    let Figures { sender, receiver, .. } = repairs;
    assert!(receiver.rebuilt > 350 && receiver.repairs_vain < 10, "{receiver:?}");
    assert!(
        receiver.nacks_sent * 10 < twins.receiver.nacks_sent,
        "what is rebuilt is not asked for"
    );
    assert!(sender.resent * 10 < twins.sender.resent && sender.repairs_unsent == 0);
}

#[test]
fn a_sparse_realtime_flow_keeps_its_twins() {
    let sparse = Flow { spacing: Duration::from_millis(20), frames: 5_000, ..DENSE };
    let figures = measured(Fec::Adaptive, sparse);

    assert!(figures.on_time >= 0.9995 && figures.beside <= 1.0, "{figures:?}");
    assert_eq!((figures.sender.blocks, figures.sender.repairs_sent), (0, 0));
}

#[test]
fn a_flow_that_wants_no_copies_has_no_repairs_of_its_own() {
    let figures = measured(Fec::Adaptive, Flow { redundancy: Redundancy::Off, ..DENSE });

    assert_eq!((figures.sender.repairs_sent, figures.beside), (0, 0.0));
    assert!((0.975..0.985).contains(&figures.on_time), "{figures:?}");
}

#[test]
fn interactive_frames_do_not_wait_behind_lost_ones() {
    let dense = Flow { class: Class::Interactive, ..DENSE };
    let sparse = Flow { spacing: Duration::from_millis(20), frames: 5_000, ..dense };
    let cases = [(dense, 0.40, 0.97, 0.26, 0.999), (sparse, 0.92, 0.99, 1.0, 0.998)];
    for (flow, asked, rebuilt, most, timely) in cases {
        let (without, with) = (measured(Fec::Off, flow), measured(Fec::Adaptive, flow));

        assert!(without.in_order < asked && without.beside == 0.0, "{without:?}");
        assert!(with.in_order > rebuilt && with.beside < most, "{with:?}");
        assert!(with.on_time > timely && with.on_time > without.on_time, "{with:?}");
    }
}

#[test]
fn bulk_frames_and_a_line_that_loses_nothing_have_no_repairs() {
    let bulk = Flow { class: Class::Bulk, frames: 2_000, ..DENSE };
    assert_eq!(measured(Fec::Adaptive, bulk).sender.repairs_sent, 0);

    for class in [Class::Realtime, Class::Interactive] {
        let mut mesh = long(Fec::Adaptive);
        let took = run(&mut mesh, Flow { class, frames: 2_000, ..DENSE });
        let sender = stats(&mesh, 1, Lane::of(class));
        assert!(took.values().all(|&took| took == WAY) && took.len() == 2_000);
        assert_eq!((sender.blocks, sender.repairs_sent, sender.twins_sent), (0, 0, 0));
    }
}

#[test]
fn a_neighbour_that_makes_no_use_of_repairs_is_sent_none() {
    for off in [1, 2] {
        let mut mesh = long_with(|config| {
            let is_off = config.local == RelayId(off);
            config.fec = if is_off { Fec::Off } else { Fec::Adaptive };
        });
        mesh.loss_ppm = 20_000;
        run(&mut mesh, Flow { frames: 2_000, ..DENSE });
        let sender = stats(&mesh, 1, Lane::Realtime);
        assert_eq!((sender.blocks, sender.repairs_sent), (0, 0), "{off}");
        assert!(sender.twins_sent > 500);
    }
}

#[test]
fn small_frames_that_share_datagrams_are_rebuilt() {
    let mut mesh = long(Fec::Adaptive);
    mesh.loss_ppm = 20_000;
    let mut sequence = 0;
    for _ in 0..10_000 {
        let now = mesh.now;
        for _ in 0..5 {
            mesh.relay(1).handle_frame(frame(2, Class::Interactive, sequence), now);
            sequence += 1;
        }
        mesh.collect();
        mesh.run(STEP * 2);
    }
    mesh.run(Duration::from_secs(2));

    let (sender, receiver) = (stats(&mesh, 1, Lane::Bulk), stats(&mesh, 2, Lane::Bulk));
    assert!(sender.repairs_sent > 1_500, "{sender:?}");
    assert!(receiver.rebuilt > 700 && receiver.rebuilt > 9 * receiver.recovered, "{receiver:?}");
    assert_eq!(mesh.sequences().len(), mesh.delivered.len(), "nothing is handed on twice");
    assert_eq!(mesh.sequences().len() as u64, sequence);
}

#[test]
fn a_line_that_reorders_and_loses_hands_nothing_on_twice() {
    let mut mesh = long(Fec::Adaptive);
    (mesh.loss_ppm, mesh.jitter) = (30_000, Duration::from_millis(15));
    let took = run(&mut mesh, Flow { redundancy: Redundancy::Adaptive, ..DENSE });

    let receiver = stats(&mesh, 2, Lane::Realtime);
    assert!(receiver.rebuilt > 350 && receiver.late > 5_000, "{receiver:?}");
    assert_eq!(took.len(), mesh.delivered.len());
    assert!(on_time(&took, DENSE) > 0.998, "{}", on_time(&took, DENSE));
    let probe = mesh.relays[&RelayId(2)].probe_stats();
    let line = (probe.lost - probe.recovered) as f64 / probe.expected as f64;
    assert!((0.025..0.035).contains(&line), "the loss of the line still shows: {line}");
}

#[test]
fn a_rebuilt_frame_has_the_time_that_passed_off_its_budget() {
    let mut mesh = long(Fec::Adaptive);
    mesh.loss_ppm = 20_000;
    let budget = Millis(77);
    for sequence in 0..5_000 {
        mesh.send_frame(1, LocalFrame { budget, ..frame(2, Class::Realtime, sequence) });
        mesh.run(STEP * 2);
    }
    mesh.run(Duration::from_secs(1));

    let receiver = stats(&mesh, 2, Lane::Realtime);
    assert!(receiver.rebuilt > 50, "{receiver:?}");
    // Of these most came too late for 2 ms beyond the way.
    assert!(mesh.stats(2).dropped(DropReason::Expired) * 2 > receiver.rebuilt);
}

#[test]
fn forged_repairs_are_dropped_and_change_nothing() {
    let mut mesh = long(Fec::Adaptive);
    run(&mut mesh, Flow { frames: 500, ..DENSE });
    let now = mesh.now;
    let key = (NeighbourLink::new(RelayId(1), LinkIndex::default()), Lane::Realtime);
    let forged = |first: u32, messages: usize, part, sum: &[u8]| {
        let mut slots = Slots::new(first);
        assert!((0..messages).all(|_| slots.push(255)));
        let mut message = BytesMut::new();
        Repair { slots, part, wait_ms: 255, sum }.encode(&mut message);
        message.freeze()
    };
    let delivered = mesh.delivered.len();
    for (at, part) in (0..10_000_u32).zip([0, 1, 2].into_iter().cycle()) {
        for (messages, sum) in [(1, &[][..]), (1, &[0, 9, 1]), (16, &[7; 1_200]), (3, &[255; 3])] {
            let message = forged(at.wrapping_mul(2_654_435_761), messages, part, sum);
            mesh.relay(2).handle_datagram(key, &message, now);
        }
    }
    mesh.collect();

    assert!(mesh.stats(2).dropped(DropReason::BadRepair) >= 10_000);
    assert_eq!(mesh.delivered.len(), delivered);
    let light = forged(0, 1, 0, &[]);
    mesh.relay(2).handle_datagram((key.0, Lane::Light), &light, now);
    assert_eq!(mesh.stats(2).dropped(DropReason::WrongLane), 1);
    run(&mut mesh, Flow { frames: 500, ..DENSE });
    assert_eq!(mesh.delivered.len(), 2 * delivered, "the lane goes on");
}
