//! A coder and a rebuilder, and what is lost between them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes};
use overway_wire::LossPpm;
use overway_wire::hop::{self, HopMessage, Lane, Repair, Slots};
use proptest::prelude::*;

use super::rebuilder::{BLOCKS_MAX, KEPT, Rebuilder};
use super::{Coder, Written};
use crate::DropReason;
use crate::budget::CopyBudget;

const ROUND_TRIP: Duration = Duration::from_millis(150);
/// The time of a block on such a line.
const TIME: Duration = Duration::from_millis(20);

fn coder(lane: Lane, ppm: u32, now: Instant) -> Coder {
    let mut coder = Coder::new(lane, now);
    coder.handle_lost(Some(LossPpm::new(ppm)), ROUND_TRIP);
    coder
}

/// A message of frames with so many bytes each, the first of which has this number.
fn message(number: u32, frames: &[usize]) -> Bytes {
    let mut message = Vec::new();
    let content = |at: usize, bytes: usize| {
        (0..bytes).map(move |byte| (byte * 7 + at * 31 + 1).to_le_bytes()[0])
    };
    match frames {
        [bytes] => {
            hop::encode_data_prefix(number, &mut message);
            message.extend(content(number as usize, *bytes));
        }
        _ => {
            hop::encode_bundle_prefix(number, &mut message);
            for (at, &bytes) in frames.iter().enumerate() {
                message.put_u16(u16::try_from(bytes).unwrap());
                message.extend(content(number as usize + at, bytes));
            }
        }
    }
    message.into()
}

/// Sends messages in one block's time; returns those that have repairs with their first numbers, and the repairs.
fn sent(
    coder: &mut Coder,
    first: u32,
    each: &[Vec<usize>],
    now: Instant,
) -> (Vec<(u32, Bytes)>, Vec<Bytes>) {
    let mut number = first;
    let mut messages = Vec::new();
    for frames in each {
        let message = message(number, frames);
        assert!(coder.joins(now));
        let frames = u8::try_from(frames.len()).unwrap();
        coder.add(Written { message: &message, number, frames, worth: true }, now);
        messages.push((number, message));
        number = number.wrapping_add(frames.into());
    }
    (messages, repairs(coder, now + TIME))
}

fn repairs(coder: &mut Coder, now: Instant) -> Vec<Bytes> {
    let mut copies = CopyBudget::new(0, 1, now);
    let late = now + TIME;
    coder.handle_timeout(now);
    coder.handle_timeout(late);
    std::iter::from_fn(|| coder.pop(&mut copies, late)).collect()
}

fn read(repair: &Bytes) -> Repair<'_> {
    match HopMessage::decode(repair) {
        Ok(HopMessage::Repair(repair)) => repair,
        other => panic!("no repair: {other:?}"),
    }
}

/// The receiver's side, and the numbers that it has.
#[derive(Default)]
struct Receiver {
    rebuilder: Rebuilder,
    here: BTreeSet<u32>,
}

impl Receiver {
    /// To whom repairs came before.
    fn new(now: Instant) -> Self {
        let mut receiver = Self::default();
        let mut slots = Slots::new(u32::MAX / 2);
        assert!(slots.push(1));
        receiver.here.insert(u32::MAX / 2);
        let repair = Repair { slots, part: 0, wait_ms: 0, sum: &[] };
        let rebuilt = receiver.rebuilder.handle_repair(&repair, |_| true, now).unwrap();
        assert!(rebuilt.is_empty());
        receiver
    }

    fn take(&mut self, message: &Bytes) -> Result<Vec<Bytes>, DropReason> {
        let frames = HopMessage::decode(message).unwrap().frames();
        let numbers: Vec<u32> = frames.map(|(number, _)| number).collect();
        let awaited = self.rebuilder.keep(numbers[0], message);
        self.here.extend(&numbers);
        if !awaited {
            return Ok(Vec::new());
        }
        self.rebuilder.retry(numbers[0], |number| self.here.contains(&number))
    }

    fn repair(&mut self, repair: &Bytes, now: Instant) -> Result<Vec<Bytes>, DropReason> {
        let read = read(repair);
        let is_here = |number| self.here.contains(&number);
        let rebuilt = self.rebuilder.handle_repair(&read, is_here, now)?;
        for message in &rebuilt {
            let frames = HopMessage::decode(message).unwrap().frames();
            self.here.extend(frames.map(|(number, _)| number));
        }
        Ok(rebuilt)
    }
}

#[test]
fn a_sparse_realtime_lane_has_no_blocks_until_it_is_dense() {
    let start = Instant::now();
    let mut coder = coder(Lane::Realtime, 20_000, start);
    let mut joins = |each: u64, count: u64, from: &mut Instant| {
        let joins = |_| {
            *from += Duration::from_millis(each);
            coder.joins(*from)
        };
        (0..count).map(joins).filter(|joins| *joins).count()
    };
    let now = &mut start.clone();

    assert_eq!(joins(20, 50, now), 0, "fifty a second");
    assert_eq!(joins(4, 50, now), 0, "five in 20 ms");
    assert!(joins(2, 100, now) > 80, "ten in 20 ms");
    assert_eq!(joins(4, 50, now), 50, "five in 20 ms, and it was dense");
    assert!(joins(20, 50, now) < 3);
}

#[test]
fn a_bulk_lane_has_blocks_that_begin_with_what_is_worth_it() {
    let now = Instant::now();
    let mut coder = coder(Lane::Bulk, 20_000, now);
    let bulk = message(0, &[900]);
    assert!(coder.joins(now));
    coder.add(Written { message: &bulk, number: 0, frames: 1, worth: false }, now);
    assert_eq!((coder.due(), coder.stats().blocks), (None, 0));

    let (_, repairs) = sent(&mut coder, 1, &[vec![500]], now);

    assert_eq!(repairs.len(), 1);
    let repair = read(&repairs[0]);
    assert_eq!((repair.slots.first(), repair.slots.len(), repair.sum.len()), (1, 1, 507));
    assert_eq!(repair.wait_ms, 24);
}

#[test]
fn a_block_ends_when_it_is_full_or_its_time_is_up_and_its_repairs_follow_one_by_one() {
    let now = Instant::now();
    let mut coder = coder(Lane::Bulk, 20_000, now);
    let mut copies = CopyBudget::new(0, 1, now);
    let add = |coder: &mut Coder, number| {
        let message = message(number, &[100]);
        coder.add(Written { message: &message, number, frames: 1, worth: true }, now)
    };
    assert_eq!(add(&mut coder, 0), Some(now + TIME));
    for number in 1..16 {
        add(&mut coder, number);
    }
    for millis in 1..=3 {
        let due = now + Duration::from_millis(millis);
        assert_eq!(coder.due(), Some(due));
        assert!(!coder.handle_timeout(due - Duration::from_nanos(1)));
        assert!(coder.handle_timeout(due) && coder.pop(&mut copies, due).is_some());
    }
    assert_eq!(coder.due(), None);
}

#[test]
fn repairs_that_the_lane_does_not_take_wake_nobody_and_are_dropped_in_the_end() {
    let now = Instant::now();
    let mut coder = coder(Lane::Bulk, 20_000, now);
    let mut copies = CopyBudget::new(0, 1, now);
    for number in 0..32 {
        let message = message(number, &[100]);
        coder.add(Written { message: &message, number, frames: 1, worth: true }, now);
    }
    let late = now + Duration::from_millis(90);
    assert!(coder.handle_timeout(late));
    assert_eq!(coder.due(), None);

    assert!(coder.pop(&mut copies, late).is_some());
    assert!(coder.pop(&mut copies, late + TIME).is_none());
    assert_eq!((coder.stats().repairs_sent, coder.stats().repairs_unsent), (1, 5));
}

#[test]
fn a_gap_in_the_numbers_and_a_message_that_is_too_long_for_bundles_end_a_block() {
    let now = Instant::now();
    let mut coder = coder(Lane::Bulk, 20_000, now);
    let (_, repairs) = sent(&mut coder, 0, &[vec![40, 40], vec![1_246], vec![1_246]], now);
    let shapes = |repairs: &[Bytes]| -> BTreeSet<(u32, usize)> {
        repairs.iter().map(read).map(|read| (read.slots.first(), read.slots.len())).collect()
    };
    assert_eq!(shapes(&repairs), [(0, 1), (2, 2)].into());
    assert!(repairs.iter().all(|repair| repair.len() <= hop::REPAIR_BYTES_MAX));

    let (_, mut repairs) = sent(&mut coder, 100, &[vec![50]], now);
    repairs.extend(sent(&mut coder, 200, &[vec![50]], now).1);
    assert_eq!(shapes(&repairs), [(100, 1), (200, 1)].into());
}

#[test]
fn repairs_take_a_third_of_the_lane_and_what_copies_leave() {
    let start = Instant::now();
    let mut coder = coder(Lane::Bulk, 90_000, start);
    let mut copies = CopyBudget::new(0, 1, start);
    let (mut number, mut carried, mut spent) = (0, 0, 0);
    for millis in 0..20_000 {
        let now = start + Duration::from_millis(millis);
        let message = message(number, &[1_200]);
        coder.add(Written { message: &message, number, frames: 1, worth: true }, now);
        (number, carried) = (number + 1, carried + message.len());
        coder.handle_timeout(now);
        spent += std::iter::from_fn(|| coder.pop(&mut copies, now))
            .map(|repair| repair.len())
            .sum::<usize>();
    }
    // And a burst for every one or two seconds.
    assert!((carried / 3..carried / 3 + 20 * (64 << 10)).contains(&spent), "{spent} for {carried}");
    assert!(coder.stats().repairs_unsent > 0);

    let mut none = CopyBudget::new(8, 1, start);
    let (_, repairs) = sent(&mut coder, number, &[vec![500]], start + Duration::from_secs(30));
    assert_eq!(repairs.len(), 1);
    let message = message(number + 1, &[500]);
    let now = start + Duration::from_secs(40);
    coder.add(Written { message: &message, number: number + 1, frames: 1, worth: true }, now);
    coder.handle_timeout(now + TIME);
    assert!(coder.handle_timeout(now + TIME * 2) && coder.pop(&mut none, now + TIME * 2).is_none());
}

#[test]
fn what_is_overtaken_by_its_repair_is_waited_for() {
    let now = Instant::now();
    let (messages, repairs) = sent(
        &mut coder(Lane::Bulk, 3_000 * 2, now),
        7,
        &[vec![50], vec![60], vec![70], vec![80]],
        now,
    );
    let mut receiver = Receiver::new(now);
    assert_eq!(receiver.take(&messages[0].1), Ok(vec![]));
    assert_eq!(receiver.take(&messages[1].1), Ok(vec![]));

    assert_eq!(receiver.repair(&repairs[0], now), Ok(vec![]));
    assert_eq!(receiver.take(&messages[3].1), Ok(vec![messages[2].1.clone()]));
    assert_eq!(receiver.rebuilder.blocks.len(), 0);
}

#[test]
fn a_repair_of_what_is_here_is_spare_and_one_of_too_little_is_in_vain() {
    let now = Instant::now();
    let (messages, repairs) =
        sent(&mut coder(Lane::Bulk, 6_000, now), 7, &[vec![50], vec![60], vec![70]], now);
    let mut receiver = Receiver::new(now);
    messages.iter().for_each(|(_, message)| assert_eq!(receiver.take(message), Ok(vec![])));
    assert_eq!(receiver.repair(&repairs[0], now), Ok(vec![]));
    assert_eq!(receiver.rebuilder.stats().repairs_spare, 2, "and the one of the beginning");

    let mut receiver = Receiver::new(now);
    assert_eq!(receiver.repair(&repairs[0], now), Ok(vec![]));
    receiver.rebuilder.handle_timeout(now + Duration::from_secs(2));
    assert_eq!(receiver.rebuilder.stats().repairs_vain, 1);
    assert!(!receiver.rebuilder.is_keeping() && receiver.rebuilder.due().is_none());
}

#[test]
fn messages_of_another_block_compute_to_nothing() {
    let now = Instant::now();
    let mut coder = coder(Lane::Bulk, 6_000, now);
    let each = [vec![50], vec![60], vec![70]];
    let (_, repairs) = sent(&mut coder, 7, &each, now);
    let mut receiver = Receiver::new(now);
    // As long and with the right number, but not what was sent.
    let mut forged = message(7, &[50]).to_vec();
    *forged.last_mut().unwrap() ^= 1;
    forged[3] ^= 1;
    receiver.here.extend([7, 9]);
    receiver.rebuilder.keep(7, &forged);
    receiver.rebuilder.keep(9, &message(9, &[70]));

    assert_eq!(receiver.repair(&repairs[0], now), Err(DropReason::BadRepair));
    assert_eq!(receiver.rebuilder.blocks.len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn as_many_losses_as_repairs_are_rebuilt_exactly(
        first in prop_oneof![Just(u32::MAX - 3), Just(0), any::<u32>()],
        each in prop::collection::vec(prop_oneof![
            3 => prop::collection::vec(31_usize..1_200, 1),
            1 => prop::collection::vec(31_usize..60, 2..20),
        ], 1..=16),
        ppm in 5_000_u32..100_000,
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..=3),
        order in any::<u64>(),
    ) {
        let now = Instant::now();
        let (messages, repairs) = sent(&mut coder(Lane::Bulk, ppm, now), first, &each, now);
        let mut receiver = Receiver::new(now);
        let lost: BTreeSet<usize> = lost.iter().map(|at| at.index(messages.len())).collect();
        let mut rebuilt = BTreeSet::new();
        // Of each block no more is lost than it has repairs; one of those may come before the rest of its messages.
        let mut spent = BTreeSet::new();
        let mut missing = BTreeSet::new();
        for &at in &lost {
            let (number, message) = &messages[at];
            let of_block = |repair: &&Bytes| read(repair).slots.contains(*number);
            let block: Vec<&Bytes> = repairs.iter().filter(of_block).collect();
            let first = block.first().map(|repair| read(repair).slots.first()).unwrap();
            if spent.iter().filter(|(of, _)| *of == first).count() < block.len() {
                spent.insert((first, at));
                missing.insert(message.clone());
            }
        }
        let mut all: Vec<(u64, &Bytes, bool)> = Vec::new();
        let key = |at: usize| order.rotate_left(u32::try_from(at % 64).unwrap()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        all.extend(messages.iter().enumerate().filter(|(_, (_, message))| !missing.contains(message))
            .map(|(at, (_, message))| (key(at), message, false)));
        all.extend(repairs.iter().enumerate().map(|(at, repair)| (key(at + 31), repair, true)));
        all.sort();
        for (_, datagram, is_repair) in all {
            let more = if is_repair { receiver.repair(datagram, now) } else { receiver.take(datagram) };
            let more = more.unwrap();
            for message in more {
                receiver.here.extend(HopMessage::decode(&message).unwrap().frames().map(|(number, _)| number));
                rebuilt.insert(message);
            }
        }
        // What comes after its repairs made it up may be among them.
        prop_assert!(missing.is_subset(&rebuilt), "{} of {}", rebuilt.len(), missing.len());
        let sent: BTreeSet<Bytes> = messages.into_iter().map(|(_, message)| message).collect();
        prop_assert!(rebuilt.is_subset(&sent), "only what was sent");
        prop_assert!(repairs.iter().all(|repair| repair.len() <= hop::REPAIR_BYTES_MAX));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_is_bounded_and_nothing_panics(
        steps in prop::collection::vec((
            0_u32..40, prop::collection::vec(0_u8..4, 1..=16), 0_u8..3,
            prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..60), any::<bool>(),
        ), 0..200),
    ) {
        let mut now = Instant::now();
        let mut receiver = Receiver::new(now);
        for (number, frames, part, bytes, is_repair) in steps {
            now += Duration::from_millis(1);
            if !is_repair {
                receiver.rebuilder.keep(number.wrapping_mul(77), &bytes);
                continue;
            }
            let mut slots = Slots::new(number);
            for frames in frames {
                slots.push(frames);
            }
            if slots.is_empty() {
                continue;
            }
            let repair = Repair { slots, part, wait_ms: 255, sum: &bytes };
            let here = |number: u32| number.is_multiple_of(3);
            let _ = receiver.rebuilder.handle_repair(&repair, here, now);
            prop_assert!(receiver.rebuilder.blocks.len() <= BLOCKS_MAX);
            prop_assert!(receiver.rebuilder.kept.len() <= KEPT);
        }
    }
}
