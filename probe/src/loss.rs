//! Loss, read from gaps in numbers.
//!
//! A lane's numbers fall into three parts:
//!
//! ```text
//!   ... counted ... | judged  ... settling, a bit each ...  | end   not yet expected ...
//! ```
//!
//! A missing number is counted as lost when [`WINDOW`] later ones are known of, or when it has been missing for
//! [`SETTLE`], or when the heartbeat after the one that spoke of it arrives, whichever is first. One that
//! comes after all is taken back. Numbers behind the bits are too late to matter and change nothing.

use std::time::{Duration, Instant};

/// Numbers whose arrival is remembered, counted or not.
const WINDOW: u32 = u128::BITS;
/// Least time for which a number may be missing before it counts as lost, at most twice as long: a gap is
/// usually closed within milliseconds if it was mere reordering.
const SETTLE: Duration = Duration::from_millis(20);
/// A jump of more numbers than this, either way, is a neighbour that counts anew or lies, not loss: at ten
/// gigabits a second it would take a second of silence, which is *down* long before.
const JUMP_MAX: u32 = 1_000_000;

/// What receiving numbers has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Numbers counted: they should have arrived.
    pub(crate) expected: u32,
    /// Of these, missing.
    pub(crate) lost: u32,
    /// Counted as lost before, and arrived now.
    pub(crate) recovered: u32,
    /// Arrived twice, or too late to tell.
    pub(crate) stale: u32,
    /// Jumps after which counting started anew.
    pub(crate) jumps: u32,
}

/// One sequence of numbers as its receiver sees it.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    received_next: Option<u32>,
    announced: Option<u32>,
    span: Option<Span>,
}

impl Numbers {
    /// One more than the greatest number received, zero if none.
    pub(crate) fn received_next(&self) -> u32 {
        self.received_next.unwrap_or(0)
    }

    /// Starts counting afresh at the next number. What is missing now is never counted.
    pub(crate) fn forgive(&mut self) {
        self.announced = None;
        self.span = None;
    }

    /// Takes a number that arrived; counts only if `counting`.
    pub(crate) fn handle_number(
        &mut self,
        number: u32,
        counting: bool,
        now: Instant,
        tally: &mut Tally,
    ) {
        let next = number.wrapping_add(1);
        self.handle_resent(number);
        if !counting {
            self.forgive();
            return;
        }
        match &mut self.span {
            Some(span) if !is_jump(span.end, next) => span.handle_number(number, now, tally),
            Some(_) => {
                tally.jumps += 1;
                self.forgive();
                self.span = Some(Span::with_first(number, now));
            }
            None => self.span = Some(Span::with_first(number, now)),
        }
    }

    /// Takes a first number and so many after it that arrived together; counts only if `counting`.
    pub(crate) fn handle_run(
        &mut self,
        (first, count): (u32, u32),
        counting: bool,
        now: Instant,
        tally: &mut Tally,
    ) {
        let in_order = counting
            && (1..=WINDOW).contains(&count)
            && self.received_next == Some(first)
            && self.span.as_ref().is_some_and(|span| span.end == first);
        match &mut self.span {
            Some(span) if in_order => {
                self.received_next = Some(first.wrapping_add(count));
                span.extend(count, now, tally);
            }
            Some(_) | None => (0..count).for_each(|at| {
                self.handle_number(first.wrapping_add(at), counting, now, tally);
            }),
        }
    }

    /// Takes a number that arrived only when it was sent again, or once more: it is here, and it stays lost.
    pub(crate) fn handle_resent(&mut self, number: u32) {
        let next = number.wrapping_add(1);
        if self.received_next.is_none_or(|before| is_jump(before, next) || is_after(before, next)) {
            self.received_next = Some(next);
        }
    }

    /// Takes a number of which the caller knows that it was missing and that this is the first of its kind: it is
    /// taken back also when it comes too late for the bits to tell.
    pub(crate) fn handle_late(
        &mut self,
        number: u32,
        counting: bool,
        now: Instant,
        tally: &mut Tally,
    ) {
        match &self.span {
            Some(span) if counting && span.is_forgotten(number) => tally.recovered += 1,
            Some(_) | None => self.handle_number(number, counting, now, tally),
        }
    }

    /// Takes a heartbeat's word that all numbers before `sent_next` were sent. Those that the heartbeat before it
    /// spoke of must have arrived by now.
    pub(crate) fn handle_announced(
        &mut self,
        sent_next: u32,
        counting: bool,
        now: Instant,
        tally: &mut Tally,
    ) {
        if !counting {
            self.forgive();
            return;
        }
        match (&mut self.span, self.announced) {
            (Some(span), Some(before)) if !is_jump(span.end, before) => span.close(before, tally),
            (Some(_), Some(_)) => {
                tally.jumps += 1;
                self.span = Some(Span::starting_at(sent_next, now));
            }
            (Some(_), None) => {}
            (None, _) => self.span = Some(Span::starting_at(sent_next, now)),
        }
        self.announced = Some(sent_next);
    }
}

/// Whether `b` is after `a`, numbers wrapping.
fn is_after(a: u32, b: u32) -> bool {
    b.wrapping_sub(a).cast_signed() > 0
}

/// Whether `b` is too far from `a` for both to belong to the same counting.
fn is_jump(a: u32, b: u32) -> bool {
    b.wrapping_sub(a).cast_signed().unsigned_abs() > JUMP_MAX
}

/// The numbers that are settling, and the bits of the last [`WINDOW`].
#[derive(Debug)]
struct Span {
    /// One more than the greatest number known of.
    end: u32,
    /// The first number not counted yet, at most `WINDOW` before `end`.
    judged: u32,
    /// Bit `i`: the number `end - 1 - i` arrived. All set at the start: what came before is nobody's loss.
    seen: u128,
    /// `end` at `aged_at`.
    aged: u32,
    aged_at: Instant,
}

impl Span {
    fn starting_at(next: u32, now: Instant) -> Self {
        Self { end: next, judged: next, seen: u128::MAX, aged: next, aged_at: now }
    }

    fn with_first(number: u32, now: Instant) -> Self {
        Self { end: number.wrapping_add(1), ..Self::starting_at(number, now) }
    }

    fn handle_number(&mut self, number: u32, now: Instant, tally: &mut Tally) {
        let next = number.wrapping_add(1);
        if is_after(self.end, next) {
            self.advance(next, tally);
            self.seen |= 1;
        } else {
            self.fill(number, tally);
        }
        self.age(now, tally);
    }

    /// Takes the next numbers, one to [`WINDOW`].
    fn extend(&mut self, count: u32, now: Instant, tally: &mut Tally) {
        self.advance(self.end.wrapping_add(1), tally);
        self.seen |= 1;
        self.age(now, tally);
        let others = count - 1;
        if others > 0 {
            self.advance(self.end.wrapping_add(others), tally);
            self.seen |= u128::MAX >> (WINDOW - others);
        }
    }

    /// Counts what has settled for long enough.
    fn age(&mut self, now: Instant, tally: &mut Tally) {
        if now.saturating_duration_since(self.aged_at) >= SETTLE {
            self.judge(self.aged, tally);
            (self.aged, self.aged_at) = (self.end, now);
        }
    }

    /// Counts everything before `next`, whether or not it arrived.
    fn close(&mut self, next: u32, tally: &mut Tally) {
        if is_after(self.end, next) {
            self.advance(next, tally);
        }
        self.judge(next, tally);
    }

    /// Whether a number is behind the bits.
    fn is_forgotten(&self, number: u32) -> bool {
        let back = self.end.wrapping_sub(1).wrapping_sub(number);
        (WINDOW..=JUMP_MAX).contains(&back)
    }

    /// A number at or before the greatest.
    fn fill(&mut self, number: u32, tally: &mut Tally) {
        let back = self.end.wrapping_sub(1).wrapping_sub(number);
        let bit = 1_u128.checked_shl(back).unwrap_or(0);
        if bit == 0 || self.seen & bit != 0 {
            tally.stale += 1;
            return;
        }
        self.seen |= bit;
        if is_after(number, self.judged) {
            tally.recovered += 1;
        }
    }

    /// Moves the end on to `next`; what leaves the bits uncounted is counted.
    fn advance(&mut self, next: u32, tally: &mut Tally) {
        let oldest_kept = next.wrapping_sub(WINDOW);
        if is_after(self.judged, oldest_kept) {
            let known = if is_after(self.end, oldest_kept) { self.end } else { oldest_kept };
            self.judge(known, tally);
            let beyond = oldest_kept.wrapping_sub(known);
            tally.expected += beyond;
            tally.lost += beyond;
            self.judged = oldest_kept;
        }
        let step = next.wrapping_sub(self.end);
        self.seen = self.seen.checked_shl(step).unwrap_or(0);
        self.end = next;
    }

    /// Counts the numbers before `to`, which is at most the end.
    fn judge(&mut self, to: u32, tally: &mut Tally) {
        if !is_after(self.judged, to) {
            return;
        }
        let count = to.wrapping_sub(self.judged);
        let mask = u128::MAX.checked_shr(WINDOW.saturating_sub(count)).unwrap_or(0);
        let recent = self.end.wrapping_sub(to);
        let arrived = (self.seen.checked_shr(recent).unwrap_or(0) & mask).count_ones();
        tally.expected += count;
        tally.lost += count.saturating_sub(arrived);
        self.judged = to;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Lane {
        numbers: Numbers,
        now: Instant,
        tally: Tally,
    }

    impl Lane {
        fn new() -> Self {
            Self { numbers: Numbers::default(), now: Instant::now(), tally: Tally::default() }
        }

        fn receive(&mut self, numbers: impl IntoIterator<Item = u32>) {
            for number in numbers {
                self.numbers.handle_number(number, true, self.now, &mut self.tally);
            }
        }

        fn announce(&mut self, sent_next: u32) {
            self.numbers.handle_announced(sent_next, true, self.now, &mut self.tally);
        }

        fn wait(&mut self, millis: u64) {
            self.now += Duration::from_millis(millis);
        }

        fn counted(&self) -> (u32, u32) {
            (self.tally.expected, self.tally.lost)
        }
    }

    #[test]
    fn a_gap_that_is_filled_in_time_is_no_loss() {
        let mut lane = Lane::new();

        lane.receive([0, 1, 3, 2, 4, 6, 5]);
        lane.announce(7);
        lane.announce(7);

        assert_eq!(lane.counted(), (7, 0));
    }

    #[test]
    fn a_gap_is_lost_once_it_is_old() {
        let mut lane = Lane::new();
        lane.receive([0, 1, 3]);
        lane.wait(20);
        lane.receive([4]);
        assert_eq!(lane.tally.lost, 0);
        lane.wait(20);

        lane.receive([5]);

        assert_eq!(lane.counted(), (5, 1));
    }

    #[test]
    fn a_gap_is_lost_once_many_later_numbers_came() {
        let mut lane = Lane::new();

        lane.receive([0]);
        lane.receive(2..2 + WINDOW);

        assert_eq!(lane.tally.lost, 1);
    }

    #[test]
    fn the_tail_of_a_burst_is_lost_when_the_next_heartbeat_comes() {
        let mut lane = Lane::new();
        lane.announce(0);
        lane.receive([0, 1, 2]);
        lane.announce(5);
        assert_eq!(lane.tally.lost, 0);

        lane.announce(5);

        assert_eq!(lane.counted(), (5, 2));
        lane.receive([5]);
        lane.announce(6);
        lane.announce(6);
        assert_eq!(lane.counted(), (6, 2));
    }

    #[test]
    fn a_lane_of_which_nothing_arrives_is_all_loss() {
        let mut lane = Lane::new();

        for sent in [100, 150, 200, 200] {
            lane.announce(sent);
        }

        assert_eq!(lane.counted(), (100, 100));
        assert_eq!(lane.numbers.received_next(), 0);
    }

    #[test]
    fn a_number_that_comes_after_all_is_taken_back() {
        let mut lane = Lane::new();
        lane.announce(0);
        lane.receive([0]);
        lane.announce(3);
        lane.announce(3);
        assert_eq!(lane.tally.lost, 2);

        lane.receive([2]);

        assert_eq!(lane.tally.recovered, 1);
    }

    #[test]
    fn what_comes_too_late_for_the_bits_is_taken_back_if_it_is_known_to_have_been_missing() {
        let mut lane = Lane::new();
        lane.receive([0]);
        lane.receive(2..1_000);
        assert_eq!(lane.tally.lost, 1);

        lane.numbers.handle_late(1, true, lane.now, &mut lane.tally);

        assert_eq!((lane.tally.recovered, lane.tally.stale), (1, 0));
    }

    #[test]
    fn what_was_sent_again_is_received_and_stays_lost() {
        let mut lane = Lane::new();
        lane.announce(0);
        lane.receive([0, 1, 3]);
        lane.numbers.handle_resent(2);
        lane.announce(5);
        lane.numbers.handle_resent(4);
        lane.announce(5);

        assert_eq!((lane.counted(), lane.tally.recovered), ((5, 2), 0));
        assert_eq!(lane.numbers.received_next(), 5);
    }

    #[test]
    fn duplicates_and_numbers_before_the_start_count_for_nothing() {
        let mut lane = Lane::new();

        lane.receive([10, 11, 11, 9, 10]);
        lane.announce(12);
        lane.announce(12);

        assert_eq!(lane.counted(), (2, 0));
        assert_eq!((lane.tally.stale, lane.tally.recovered), (3, 0));
    }

    #[test]
    fn a_long_gap_is_counted_whole() {
        let mut lane = Lane::new();

        lane.receive([0, 5_000]);
        lane.announce(5_001);
        lane.announce(5_001);

        assert_eq!(lane.counted(), (5_001, 4_999));
    }

    #[test]
    fn a_jump_starts_anew_without_loss() {
        for to in [2_000_000, u32::MAX - 5_000_000, i32::MAX.cast_unsigned()] {
            let mut lane = Lane::new();
            lane.receive([0, to]);
            lane.receive([to + 1]);
            lane.announce(to + 2);
            lane.announce(to + 2);

            assert_eq!((lane.tally.lost, lane.tally.jumps), (0, 1), "jump to {to}");
            assert_eq!(lane.numbers.received_next(), to + 2);
        }
    }

    #[test]
    fn what_was_missed_while_not_counting_is_forgiven() {
        let mut lane = Lane::new();
        lane.receive([0, 1]);
        lane.numbers.handle_number(9_000, false, lane.now, &mut lane.tally);
        assert_eq!(lane.numbers.received_next(), 9_001);

        lane.receive([9_050, 9_051]);
        lane.announce(9_052);
        lane.announce(9_052);

        assert_eq!(lane.counted(), (2, 0));
    }

    #[test]
    fn numbers_wrap() {
        let mut lane = Lane::new();

        lane.receive([u32::MAX - 1, u32::MAX, 1, 2]);
        lane.announce(3);
        lane.announce(3);

        assert_eq!(lane.counted(), (5, 1));
        assert_eq!(lane.numbers.received_next(), 3);
    }

    proptest! {
        #[test]
        fn reordered_and_lost_numbers_are_counted_exactly(
            start in any::<u32>(),
            fates in proptest::collection::vec((any::<bool>(), 0_u32..20), 1..500),
        ) {
            let mut lane = Lane::new();
            lane.announce(start);
            let sent = u32::try_from(fates.len()).unwrap();
            let mut arrivals: Vec<(u32, u32)> = (0..sent)
                .zip(&fates)
                .filter(|(_, fate)| fate.0)
                .map(|(at, fate)| (at + fate.1, at))
                .collect();
            arrivals.sort_unstable();

            lane.receive(arrivals.iter().map(|&(_, at)| start.wrapping_add(at)));
            lane.announce(start.wrapping_add(sent));
            lane.announce(start.wrapping_add(sent));

            let lost = sent - u32::try_from(arrivals.len()).unwrap();
            prop_assert_eq!(lane.counted(), (sent, lost));
            prop_assert_eq!((lane.tally.recovered, lane.tally.stale), (0, 0));
        }

        #[test]
        fn runs_count_as_their_numbers_do_one_by_one(
            start in any::<u32>(),
            steps in proptest::collection::vec((0_u32..6, 0_u32..300, 0_u64..15, any::<bool>()), 1..60),
        ) {
            let (mut whole, mut single) = (Lane::new(), Lane::new());
            single.now = whole.now;
            let mut next = start;
            for (skip, count, wait, announces) in steps {
                whole.wait(wait);
                single.wait(wait);
                let first = next.wrapping_add(skip.saturating_sub(3));
                whole.numbers.handle_run((first, count), true, whole.now, &mut whole.tally);
                single.receive((0..count).map(|at| first.wrapping_add(at)));
                next = first.wrapping_add(count);
                if announces {
                    whole.announce(next);
                    single.announce(next);
                }
                prop_assert_eq!(whole.tally, single.tally);
                prop_assert_eq!(whole.numbers.received_next(), single.numbers.received_next());
            }
        }

        #[test]
        fn any_numbers_leave_a_sane_tally(
            events in proptest::collection::vec((any::<u32>(), 0_u8..5, 0_u64..100), 0..300),
        ) {
            let mut lane = Lane::new();
            let mut last = 0_u32;
            for (value, kind, wait) in events {
                lane.wait(wait);
                match kind {
                    0 => { lane.receive([value]); last = value; }
                    1 => { last = last.wrapping_add(value % 300); lane.receive([last]); }
                    2 => lane.receive([last.wrapping_sub(value % 300)]),
                    3 => lane.announce(last.wrapping_add(value % 2_000_000)),
                    _ => lane.announce(value),
                }
                let tally = std::mem::take(&mut lane.tally);
                prop_assert!(tally.lost <= tally.expected);
                prop_assert!(tally.expected <= 2 * JUMP_MAX + WINDOW);
            }
        }
    }
}
