//! What goes more than once, and what does not.

use std::time::Duration;

use overway_relay_core::{LocalFrame, RecoveryStats};
use overway_wire::hop::{HopMessage, Lane};
use overway_wire::{Class, Header, Redundancy, RelayId};

use crate::harness::{DELAY, Mesh, STEP, frame};

/// A voice flow's spacing.
const SPACING: Duration = Duration::from_millis(20);

/// From 1 to 5 over 2 and 3, or over 4; the third path shares 2 with the first.
fn fork() -> Mesh {
    let ways: &[&[u16]] = &[&[2, 3, 5], &[2, 5], &[4, 5]];
    Mesh::new(5, 1, &[(1, 5, ways), (2, 5, &[&[3, 5], &[5]]), (3, 5, &[&[5]]), (4, 5, &[&[5]])])
}

fn two() -> Mesh {
    Mesh::new(2, 1, &[(1, 2, &[&[2]]), (2, 1, &[&[1]])])
}

/// Sends a frame each 20 ms; returns how long each that came took, the first of its copies.
fn voice(
    mesh: &mut Mesh,
    to: u16,
    (class, redundancy): (Class, Redundancy),
    frames: u64,
) -> Vec<Duration> {
    let (start, first) = (mesh.now, mesh.delivered.len());
    for sequence in 0..frames {
        mesh.send_frame(1, LocalFrame { redundancy, ..frame(to, class, sequence) });
        mesh.run(SPACING);
    }
    mesh.run(Duration::from_secs(1));
    let mut took = std::collections::BTreeMap::new();
    for ((_, delivered), &at) in mesh.delivered.iter().zip(&mesh.times).skip(first) {
        let sequence = delivered.sequence;
        let sent = start + SPACING * u32::try_from(sequence).unwrap();
        took.entry(sequence).or_insert(at - sent);
    }
    took.into_values().collect()
}

fn stats(mesh: &Mesh, relay: u16) -> RecoveryStats {
    mesh.relays[&RelayId(relay)].recovery_stats()[Lane::Realtime.data_index().unwrap()]
}

fn within(took: &[Duration], bound: Duration, of: u64) -> f64 {
    took.iter().filter(|&&took| took <= bound).count() as f64 / of as f64
}

const ADAPTIVE: (Class, Redundancy) = (Class::Realtime, Redundancy::Adaptive);

#[test]
fn on_a_long_line_that_loses_much_what_is_lost_comes_by_its_twin() {
    let frames = 20_000;
    let mut mesh = two();
    mesh.loss_ppm = 10_000;
    voice(&mut mesh, 2, ADAPTIVE, 500);
    let took = voice(&mut mesh, 2, ADAPTIVE, frames);

    let (sender, receiver) = (stats(&mesh, 1), stats(&mesh, 2));
    assert_eq!(took.len() as u64, frames);
    // The twin, and the grain of a timer.
    let share = within(&took, DELAY + Duration::from_millis(3) + STEP, frames);
    assert!(share >= 0.9995, "{share} by twins");
    // Both copies lost: the tail probe, a window, a round trip, and timers' grains.
    let late = DELAY * 3 + Duration::from_millis(2 + 1) + STEP * 3;
    assert!(within(&took, late, frames) >= 0.9999, "{:?}", took.iter().max());
    assert!(sender.twins_sent >= frames && receiver.spared > frames / 200, "{receiver:?}");
    assert!(receiver.nacks_sent < 60, "hardly anything is asked for: {receiver:?}");
    assert_eq!(mesh.sequences().len() as u64, frames);
    assert_eq!(mesh.delivered.len() as u64, frames + 500, "nothing is handed on twice");
    let probe = mesh.relays[&RelayId(2)].probe_stats();
    let line = (probe.lost - probe.recovered) as f64 / probe.expected as f64;
    assert!((0.008..0.012).contains(&line), "the loss of the line still shows: {line}");
}

/// Three lines of 15 ms that lose 1 % each way, and three others that are 1 ms longer.
fn six_lossy_lines() -> Mesh {
    let ways: &[&[u16]] = &[&[2, 3, 4], &[5, 6, 4]];
    let routes: [(u16, u16, &[&[u16]]); 5] =
        [(1, 4, ways), (2, 4, &[&[3, 4]]), (3, 4, &[&[4]]), (5, 4, &[&[6, 4]]), (6, 4, &[&[4]])];
    let mut mesh = Mesh::new(6, 1, &routes);
    let slower = |relay| Duration::from_millis(if relay > 4 { 6 } else { 5 });
    mesh.slower = (1..=6).map(|relay| (RelayId(relay), slower(relay))).collect();
    mesh.loss_ppm = 10_000;
    mesh
}

#[test]
fn over_three_lossy_lines_voice_keeps_its_deadline() {
    let frames = 20_000;
    let deadline = Duration::from_micros(87_500);
    for (redundancy, least) in
        [(Redundancy::Off, 0.99), (Redundancy::Adaptive, 0.9999), (Redundancy::Always, 0.9999)]
    {
        let mut mesh = six_lossy_lines();
        voice(&mut mesh, 4, (Class::Realtime, redundancy), 500);
        let took = voice(&mut mesh, 4, (Class::Realtime, redundancy), frames);

        let share = within(&took, deadline, frames);
        println!("{redundancy:?}: {share} on time, {:?} at most", took.iter().max());
        assert!(share >= least, "{redundancy:?}: {share} on time");
        assert!(took.len() as u64 >= frames - 2, "{redundancy:?}");
    }
}

#[test]
fn twins_end_with_the_loss_and_never_are_on_a_clean_or_a_short_line() {
    let mut mesh = two();
    voice(&mut mesh, 2, ADAPTIVE, 200);
    assert_eq!(stats(&mesh, 1).twins_sent, 0, "a clean line");

    mesh.loss_ppm = 20_000;
    voice(&mut mesh, 2, ADAPTIVE, 500);
    assert!(stats(&mesh, 1).twins_sent > 300);

    mesh.loss_ppm = 0;
    mesh.run(Duration::from_secs(120));
    let before = stats(&mesh, 1).twins_sent;
    voice(&mut mesh, 2, ADAPTIVE, 200);
    assert_eq!(stats(&mesh, 1).twins_sent, before, "a line that is clean again");
}

#[test]
fn neither_a_flow_that_wants_no_copies_nor_another_class_has_twins() {
    for way in [(Class::Realtime, Redundancy::Off), (Class::Interactive, Redundancy::Adaptive)] {
        let mut mesh = two();
        mesh.loss_ppm = 20_000;
        let took = voice(&mut mesh, 2, way, 1_000);

        assert_eq!(stats(&mesh, 1).twins_sent, 0, "{way:?}");
        assert_eq!(took.len(), 1_000, "what is lost is still recovered");
    }
}

#[test]
fn what_wants_all_twice_goes_over_the_path_that_shares_least_as_well() {
    let mut mesh = fork();
    let took = voice(&mut mesh, 5, (Class::Realtime, Redundancy::Always), 100);

    assert_eq!(mesh.delivered.len(), 200);
    assert_eq!(mesh.stats(1).doubles, 100);
    assert_eq!(mesh.stats(4).frames_forwarded, 100, "over 4, though the path over 2 is better");
    // Header and payload over two links.
    assert_eq!(mesh.stats(1).double_bytes, 100 * 2 * (28 + 2 * 3 + 7));
    assert!(took.iter().all(|&took| took == DELAY * 2), "the first copy that comes counts");
    for relay in 1..=4 {
        assert_eq!(mesh.stats(relay).copies, 0);
    }
}

#[test]
fn the_second_copy_bears_the_mark_and_bulk_has_none() {
    for (class, copies) in [(Class::Realtime, 1), (Class::Interactive, 1), (Class::Bulk, 0)] {
        let mut mesh = fork();
        mesh.send_frame(1, LocalFrame { redundancy: Redundancy::Always, ..frame(5, class, 0) });
        let messages = mesh.flying.iter().map(|flying| flying.transmit.message.clone());
        let marks: Vec<bool> = messages
            .filter_map(|message| {
                let frames = HopMessage::decode(&message).unwrap();
                frames.frames().next().map(|(_, frame)| Header::decode(frame).unwrap().0.copy)
            })
            .collect();

        assert_eq!(marks.len(), 1 + copies, "{class}");
        assert_eq!(marks.iter().filter(|&&mark| mark).count(), copies, "{class}");
    }
}

#[test]
fn a_silent_relay_leaves_no_gap_where_all_goes_twice() {
    let gap = |redundancy| {
        let mut mesh = fork();
        voice(&mut mesh, 5, (Class::Realtime, redundancy), 50);
        let (froze, before) = (mesh.now, mesh.times.len());
        mesh.frozen.insert(RelayId(2));
        voice(&mut mesh, 5, (Class::Realtime, redundancy), 50);
        let first = *mesh.times[before..].iter().min().unwrap();
        first - froze
    };

    assert_eq!(gap(Redundancy::Always), DELAY * 2);
    assert!(gap(Redundancy::Adaptive) > DELAY * 3);
    assert!(gap(Redundancy::Off) > gap(Redundancy::Adaptive));
}

#[test]
fn a_flow_that_wants_no_copies_has_none_while_a_link_is_suspect_and_loses_nothing() {
    let mut mesh = fork();
    let off = (Class::Realtime, Redundancy::Off);
    voice(&mut mesh, 5, off, 50);
    mesh.frozen.insert(RelayId(2));
    let took = voice(&mut mesh, 5, off, 50);

    assert_eq!(mesh.stats(1).copies, 0);
    assert_eq!(took.len(), 50);
    assert!(mesh.stats(1).replays > 0);
}

#[test]
fn with_one_path_alone_nothing_goes_twice() {
    let mut mesh = two();
    let took = voice(&mut mesh, 2, (Class::Realtime, Redundancy::Always), 50);

    assert_eq!((took.len(), mesh.delivered.len()), (50, 50));
    assert_eq!(mesh.stats(1).doubles, 0);
}
