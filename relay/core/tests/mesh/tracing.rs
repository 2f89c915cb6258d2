//! Traces: what probes tell of the path that frames take.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use overway_relay_core::{DropReason, LocalFrame, Traced};
use overway_wire::trace::{PROBE_BYTES_MIN, Trace, TraceRecord, TraceRecords};
use overway_wire::{Address, AttachmentId, Class, FlowId, FrameKind, RelayId};

use crate::harness::{DELAY, Mesh, frame};

const SPACING: Duration = Duration::from_millis(20);

fn probe(to: u16, class: Class, sequence: u64) -> LocalFrame {
    let mut payload = Vec::new();
    Trace::Probe(TraceRecords::default()).encode(PROBE_BYTES_MIN, &mut payload);
    LocalFrame {
        source: AttachmentId::RELAY,
        destination: Address::new(RelayId(to), AttachmentId::RELAY),
        kind: FrameKind::Trace,
        flow: FlowId(9),
        payload: Bytes::from(payload),
        ..frame(to, class, sequence)
    }
}

/// Four relays in a row, each beside all others; from 1 to 4 and back over 2 and 3.
fn chain() -> Mesh {
    Mesh::new(
        4,
        1,
        &[
            (1, 4, &[&[2, 3, 4], &[4]]),
            (1, 2, &[&[2]]),
            (1, 3, &[&[2, 3]]),
            (2, 1, &[&[1]]),
            (2, 4, &[&[3, 4], &[4]]),
            (3, 1, &[&[2, 1]]),
            (3, 4, &[&[4]]),
            (4, 1, &[&[3, 2, 1], &[1]]),
        ],
    )
}

/// Sends probes and returns all that is heard of them.
fn traced(mesh: &mut Mesh, class: Class, probes: u64) -> Vec<Traced> {
    for sequence in 0..probes {
        mesh.send_frame(1, probe(4, class, sequence));
        mesh.run(SPACING);
    }
    mesh.run(Duration::from_secs(1));
    std::mem::take(&mut mesh.traced)
}

fn told_by(traced: &[Traced], relay: u16) -> Vec<&Traced> {
    traced.iter().filter(|told| told.from == RelayId(relay)).collect()
}

fn last(told: &Traced) -> TraceRecord {
    *told.answer.records.as_slice().last().unwrap()
}

/// The one-way time to the relay that answered, by its clock and the offsets on the way.
fn one_way_us(told: &Traced) -> i64 {
    let records = told.answer.records.as_slice();
    let offsets: i64 = records[1..].iter().map(|record| record.offset.unwrap().0).sum();
    last(told).clock.0.cast_signed() - records[0].clock.0.cast_signed() - offsets
}

#[test]
fn every_relay_of_the_path_answers_with_what_was_written_before_it() {
    for class in Class::ALL {
        let mut mesh = chain();

        let heard = traced(&mut mesh, class, 100);

        for relay in 1..=4_u16 {
            let told = told_by(&heard, relay);
            assert_eq!(told.len(), 100, "{class}: relay {relay}");
            for answer in told {
                let relays: Vec<u16> =
                    answer.answer.records.as_slice().iter().map(|one| one.relay.0).collect();
                assert_eq!(relays, (1..=relay).collect::<Vec<_>>());
                assert_eq!(u16::from(answer.answer.steps) + 1, relay);
                assert_eq!(answer.answer.path.elements().len(), 3);
                let next = (relay < 4).then(|| format!("127.0.0.1:{}", relay + 1));
                assert_eq!(answer.answer.next.map(|next| next.to_string()), next);
                if relay > 1 {
                    let expected = i64::try_from(DELAY.as_micros()).unwrap() * i64::from(relay - 1);
                    assert!((one_way_us(answer) - expected).abs() < 2_000, "{answer:?}");
                    assert!(!last(answer).recovered);
                }
            }
        }
        assert!(mesh.delivered.is_empty(), "no end hears of a trace");
    }
}

#[test]
fn what_a_line_loses_is_told_although_recovery_brings_it() {
    let mut mesh = chain();
    mesh.loss_ppm = 50_000;

    let probes = 1_000;
    let heard = traced(&mut mesh, Class::Interactive, probes);

    let told = told_by(&heard, 4);
    let distinct: BTreeSet<u64> = told.iter().map(|one| one.sequence).collect();
    assert!(distinct.len() > 990, "{} of {probes} came", distinct.len());
    for hop in 1..=3 {
        let lost = told.iter().filter(|one| one.answer.records.as_slice()[hop].recovered).count()
            as u64
            + (probes - distinct.len() as u64);
        let ppm = lost * 1_000_000 / probes;
        assert!((25_000..80_000).contains(&ppm), "{ppm} ppm were lost on hop {hop}");
    }
}

#[test]
fn a_change_of_the_path_shows_in_the_answers() {
    let mut mesh = chain();
    assert!(!told_by(&traced(&mut mesh, Class::Realtime, 5), 3).is_empty());
    mesh.frozen.insert(RelayId(2));
    mesh.run(Duration::from_secs(1));

    let heard = traced(&mut mesh, Class::Realtime, 20);

    let told = told_by(&heard, 4);
    // The first answer may be lost where the far relay learns that its own way back is broken.
    assert!(told.len() >= 19, "{}", told.len());
    assert!(told.iter().all(|one| one.answer.path.elements().len() == 1));
    let begun = told_by(&heard, 1);
    assert_eq!(begun.len(), 20);
    assert!(begun.iter().all(|one| one.answer.path.elements().len() == 1));
}

#[test]
fn ends_neither_send_traces_nor_hear_them() {
    let mut mesh = chain();
    let from_gateway = LocalFrame { source: AttachmentId::GATEWAY, ..probe(4, Class::Bulk, 1) };
    let to_gateway = LocalFrame {
        destination: Address::new(RelayId(4), AttachmentId::GATEWAY),
        ..probe(4, Class::Bulk, 2)
    };
    let garbage = LocalFrame { payload: Bytes::from_static(b"?"), ..probe(4, Class::Bulk, 3) };
    for frame in [from_gateway, to_gateway, garbage, probe(1, Class::Bulk, 4)] {
        mesh.send_frame(1, frame);
    }
    mesh.run(Duration::from_secs(1));

    assert_eq!(mesh.stats(1).dropped(DropReason::BadTrace), 4);
    assert!(mesh.traced.is_empty() && mesh.delivered.is_empty());
}

#[test]
fn beyond_a_thousand_a_second_probes_go_on_without_an_answer() {
    let mut mesh = chain();
    for sequence in 0..3_000 {
        mesh.send_frame(1, probe(4, Class::Bulk, sequence));
    }
    mesh.run(Duration::from_millis(500));

    assert!(mesh.stats(2).traces_unanswered > 1_000, "{}", mesh.stats(2).traces_unanswered);
    assert!(mesh.stats(2).frames_forwarded >= 3_000);
    assert!(told_by(&mesh.traced, 2).len() < 1_700);
}
