use super::*;
use bytes::Bytes;
use overway_wire::{AttachmentId, Millis, PolicyId, RelayId};

pub(crate) fn frame(class: Class, sequence: u64) -> Outbound {
    Outbound {
        kind: FrameKind::Session,
        class,
        policy: PolicyId::default(),
        redundancy: Redundancy::Adaptive,
        destination: address(9),
        alternate: None,
        flow: FlowId(1),
        sequence,
        budget: Millis(u16::MAX),
        payload: Bytes::from_static(b"payload"),
    }
}

fn address(relay: u16) -> Address {
    Address::new(RelayId(relay), AttachmentId(7))
}

fn uplink() -> (Arc<Uplink>, Arc<Counters>) {
    let counters = Arc::<Counters>::default();
    (Uplink::new(Arc::clone(&counters)), counters)
}

/// What an attachment sends now: sequences, and whether they bear the copy mark.
fn sent(uplink: &Uplink, line: LineId) -> Vec<(u64, bool)> {
    let mut number = 0;
    let mut next = || {
        number += 1;
        uplink.take(line, || number - 1, Instant::now())
    };
    std::iter::from_fn(|| next().map(|(_, sent)| (sent.frame.sequence, sent.is_copy))).collect()
}

fn send(uplink: &Uplink, class: Class, sequences: std::ops::Range<u64>) {
    let mut frames = sequences.map(|sequence| frame(class, sequence)).collect();
    uplink.try_send(&mut frames).unwrap();
}

#[test]
fn frames_go_over_the_first_attachment_and_ends_wait_while_there_is_none() {
    let (uplink, _) = uplink();
    let now = Instant::now();
    let mut frames = vec![frame(Class::Bulk, 0)];
    assert_eq!(uplink.try_send(&mut frames), Err(Full));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(uplink.poll_ready(&mut cx).is_pending());

    let (first, _) = uplink.insert(0, address(1), now);
    let (second, _) = uplink.insert(1, address(2), now);
    assert!(uplink.poll_ready(&mut cx).is_ready());
    uplink.try_send(&mut frames).unwrap();
    send(&uplink, Class::Realtime, 1..3);

    assert_eq!(sent(&uplink, first), [(1, false), (2, false), (0, false)], "realtime first");
    assert_eq!(sent(&uplink, second), []);
    let known = *uplink.whereabouts().borrow();
    assert_eq!(known, Some(Whereabouts { first: address(1), second: Some(address(2)) }));
}

#[test]
fn a_queue_that_is_full_makes_ends_wait() {
    let (uplink, _) = uplink();
    let (line, _) = uplink.insert(0, address(1), Instant::now());
    let count = QUEUE_FRAMES_MAX as u64;
    let mut frames: Vec<Outbound> = (0..count + 2).map(|at| frame(Class::Bulk, at)).collect();

    assert_eq!(uplink.try_send(&mut frames), Err(Full));

    assert_eq!(frames.len(), 2);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(uplink.poll_ready(&mut cx).is_pending());
    assert_eq!(sent(&uplink, line).len(), QUEUE_FRAMES_MAX);
    assert!(uplink.poll_ready(&mut cx).is_ready());
}

#[test]
fn a_suspect_attachment_has_the_other_carry_copies_but_of_bulk() {
    let (uplink, counters) = uplink();
    let now = Instant::now();
    let (first, _) = uplink.insert(0, address(1), now);
    let (second, _) = uplink.insert(1, address(2), now);
    send(&uplink, Class::Interactive, 0..4);
    send(&uplink, Class::Bulk, 4..5);
    assert_eq!(sent(&uplink, first).len(), 5);
    uplink.acknowledge(first, 2);

    uplink.judge(first, State::Suspect, None, now);
    send(&uplink, Class::Realtime, 5..6);
    send(&uplink, Class::Bulk, 6..7);

    assert_eq!(sent(&uplink, second), [(5, false), (2, false), (3, false)]);
    assert_eq!(sent(&uplink, first), [(5, false), (6, false)]);
    assert_eq!(counters.snapshot().copies, 3);
}

#[test]
fn after_the_death_of_an_attachment_frames_go_two_ways_from_the_other_for_a_while() {
    let (uplink, _) = uplink();
    let now = Instant::now();
    let (first, _) = uplink.insert(0, address(1), now);
    let (second, _) = uplink.insert(1, address(2), now);
    let with = |class, redundancy, at| Outbound { redundancy, ..frame(class, at) };
    let ways = || {
        let taken = std::iter::from_fn(|| uplink.take(second, || 0, now));
        taken.map(|(_, sent)| (sent.frame.sequence, sent.frame.redundancy)).collect::<Vec<_>>()
    };
    let mut frames = vec![
        with(Class::Realtime, Redundancy::Adaptive, 0),
        with(Class::Realtime, Redundancy::Off, 1),
        with(Class::Bulk, Redundancy::Adaptive, 2),
    ];
    uplink.try_send(&mut frames).unwrap();
    assert_eq!(sent(&uplink, first).len(), 3);

    uplink.judge(first, State::Suspect, None, now);
    assert_eq!(ways(), [(0, Redundancy::Always)]);
    uplink.judge(first, State::Down, None, now);
    send(&uplink, Class::Interactive, 3..4);
    let moved = [(1, Redundancy::Off), (3, Redundancy::Always), (2, Redundancy::Adaptive)];
    assert_eq!(ways(), moved);

    uplink.judge(second, State::Suspect, None, now);
    uplink.judge(second, State::Up, None, now);
    assert!(uplink.lock().is_spread(now), "the first is dead all the same");
    uplink.lock().spread_until = Some(now);
    send(&uplink, Class::Interactive, 4..5);
    assert_eq!(ways(), [(4, Redundancy::Adaptive)]);

    uplink.judge(first, State::Suspect, None, now);
    uplink.judge(first, State::Up, None, now);
    assert_eq!(uplink.lock().spread_until, None, "it was a false alarm");
}

#[test]
fn what_a_dead_attachment_has_not_brought_over_goes_over_the_other_once() {
    let (uplink, counters) = uplink();
    let now = Instant::now();
    let (first, _) = uplink.insert(0, address(1), now);
    let (second, _) = uplink.insert(1, address(2), now);
    send(&uplink, Class::Bulk, 0..3);
    assert_eq!(sent(&uplink, first).len(), 3);
    uplink.acknowledge(first, 1);
    send(&uplink, Class::Bulk, 3..5);

    uplink.judge(first, State::Suspect, None, now);
    assert_eq!(sent(&uplink, second), []);
    uplink.judge(first, State::Down, None, now);

    assert_eq!(sent(&uplink, second), [1, 2, 3, 4].map(|sequence| (sequence, false)));
    let known = *uplink.whereabouts().borrow();
    assert_eq!(known, Some(Whereabouts::at(address(2))));
    send(&uplink, Class::Bulk, 5..6);
    assert_eq!(sent(&uplink, second), [(5, false)]);
    uplink.remove(first, now);
    assert_eq!(sent(&uplink, second), []);
    assert_eq!(counters.snapshot().resent, 4);
}

#[test]
fn without_any_attachment_frames_wait_for_the_next() {
    let (uplink, _) = uplink();
    let now = Instant::now();
    let (first, _) = uplink.insert(0, address(1), now);
    send(&uplink, Class::Interactive, 0..2);
    assert_eq!(sent(&uplink, first).len(), 2);

    uplink.remove(first, now);
    assert_eq!(*uplink.whereabouts().borrow(), None);
    assert_eq!(uplink.try_send(&mut vec![frame(Class::Bulk, 2)]), Err(Full));
    let (next, _) = uplink.insert(0, address(3), now);

    assert_eq!(sent(&uplink, next), [(0, false), (1, false)]);
    assert_eq!(sent(&uplink, first), [], "the old one has nothing to say any more");
    uplink.remove(first, now);
    assert_eq!(uplink.first(), Some(0));
}

#[test]
fn a_flow_that_wants_all_twice_goes_over_both_and_one_that_wants_no_copies_over_one() {
    let (uplink, _) = uplink();
    let now = Instant::now();
    let (first, _) = uplink.insert(0, address(1), now);
    let (second, _) = uplink.insert(1, address(2), now);
    let with = |redundancy, at| Outbound { redundancy, ..frame(Class::Realtime, at) };
    uplink.judge(first, State::Suspect, None, now);

    uplink.try_send(&mut vec![with(Redundancy::Off, 0)]).unwrap();
    uplink.judge(first, State::Up, None, now);
    uplink.try_send(&mut vec![with(Redundancy::Always, 1)]).unwrap();

    assert_eq!(sent(&uplink, first), [(0, false), (1, false)]);
    assert_eq!(sent(&uplink, second), [(1, true)]);
}

#[test]
fn the_second_of_two_for_both_addresses_goes_over_the_other_attachment() {
    let (uplink, _) = uplink();
    let now = Instant::now();
    let (first, _) = uplink.insert(0, address(1), now);
    let (second, _) = uplink.insert(1, address(2), now);
    let to = |relay, sequence| Outbound {
        redundancy: if relay == 9 { Redundancy::Adaptive } else { Redundancy::Off },
        destination: address(relay),
        ..frame(Class::Realtime, sequence)
    };
    uplink.try_send(&mut vec![to(9, 0), to(8, 0), to(9, 1)]).unwrap();
    uplink.try_send(&mut vec![to(8, 1), to(9, 2)]).unwrap();

    assert_eq!(sent(&uplink, first), [(0, false), (1, false), (2, false)]);
    assert_eq!(sent(&uplink, second), [(0, false), (1, false)]);

    uplink.judge(second, State::Down, None, now);
    uplink.try_send(&mut vec![to(9, 3), to(8, 3)]).unwrap();
    // What the other had not brought over comes first.
    assert_eq!(sent(&uplink, first), [0, 1, 3, 3].map(|sequence| (sequence, false)));
}

#[test]
fn what_an_attachment_had_is_its_own_when_a_better_connection_takes_its_place() {
    let (uplink, counters) = uplink();
    let now = Instant::now();
    let (old, _) = uplink.insert(0, address(1), now);
    let mut whereabouts = uplink.whereabouts();
    send(&uplink, Class::Interactive, 0..3);
    uplink.take(old, || 0, now);
    uplink.take(old, || 1, now);
    uplink.acknowledge(old, 1);
    whereabouts.mark_unchanged();

    let (new, _) = uplink.insert(0, address(1), now);

    assert_eq!(sent(&uplink, old), []);
    assert_eq!(sent(&uplink, new), [(1, false), (2, false)]);
    assert!(!whereabouts.has_changed().unwrap(), "far ends need no word");
    uplink.remove(old, now);
    assert_eq!((uplink.first(), counters.snapshot().resent), (Some(0), 2));
}
