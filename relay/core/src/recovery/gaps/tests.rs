//! What is asked for and when, and that nothing is taken twice.

use std::collections::{BTreeMap, BTreeSet};

use overway_wire::hop::{NACK_NUMBERS_MAX, NackRange};
use proptest::prelude::*;

use super::*;
use crate::recovery::{HASTY, PATIENT};

const RTT: Duration = Duration::from_millis(40);
/// The reorder window of a lane on which nothing was late yet: an eighth of the round trip.
const WINDOW_MS: u64 = 5;

struct Lane {
    gaps: Gaps,
    start: Instant,
    now: Instant,
}

fn lane(manner: Manner) -> Lane {
    let now = Instant::now();
    let mut gaps = Gaps::new(&manner, now);
    gaps.set_round_trip(RTT);
    Lane { gaps, start: now, now }
}

impl Lane {
    fn at(&mut self, millis: u64) -> &mut Self {
        self.now = self.start + Duration::from_millis(millis);
        self
    }

    fn receive(&mut self, numbers: impl IntoIterator<Item = u32>) -> Vec<Arrival> {
        let take = |number| self.gaps.handle_number(number, true, self.now);
        numbers.into_iter().map(take).collect()
    }

    fn tell(&mut self, next: u32) -> &mut Self {
        self.gaps.handle_told(next, true, self.now);
        self
    }

    /// The numbers that are asked for now.
    fn ask(&mut self) -> Vec<u32> {
        let mut ranges = Vec::new();
        self.gaps.ask(self.now, &mut ranges);
        assert!(
            self.gaps.due().is_none_or(|due| due > self.now),
            "it would be woken again at once"
        );
        assert!(ranges.iter().all(|range| u32::from(range.count) <= NACK_NUMBERS_MAX));
        let numbers = |range: NackRange| (0..range.count).map(move |at| (range.first, at));
        let numbers = ranges.into_iter().flat_map(numbers);
        numbers.map(|(first, at)| first.wrapping_add(at.into())).collect()
    }

    /// Asks whenever something is due until nothing is; returns when what was asked for.
    fn ask_all(&mut self) -> Vec<(u64, Vec<u32>)> {
        let mut asked = Vec::new();
        while let Some(due) = self.gaps.due() {
            self.now = self.now.max(due);
            let numbers = self.ask();
            let millis = u64::try_from((self.now - self.start).as_millis()).unwrap();
            if !numbers.is_empty() {
                asked.push((millis, numbers));
            }
        }
        asked
    }
}

#[test]
fn a_gap_is_asked_for_after_the_window_three_times_and_then_given_up() {
    let mut lane = lane(PATIENT);

    assert_eq!(lane.receive([0, 1, 4]), [Arrival::New; 3]);

    let expected = [5, 55, 105].map(|at| (at, vec![2, 3]));
    assert_eq!(lane.ask_all(), expected);
    assert_eq!(lane.now - lane.start, Duration::from_millis(155));
    let RecoveryStats { missing, asked, given_up, recovered, .. } = *lane.gaps.stats();
    assert_eq!((missing, asked, given_up, recovered), (2, 6, 2, 0));
    assert_eq!(lane.gaps.complete_next(), 5);
}

#[test]
fn gaps_that_have_waited_long_enough_are_asked_for_with_the_first_that_is_due() {
    let mut lane = lane(PATIENT);
    lane.receive([0, 2]);
    lane.at(3).receive([4]);
    lane.at(4).receive([6]);
    assert_eq!(lane.at(4).ask(), []);
    // A millisecond at least, for what is read in batches.
    assert_eq!(lane.at(5).ask(), [1, 3, 5]);
    lane.at(50).receive([1, 3, 5]);

    // What comes late is waited for as long as that took.
    lane.at(100).receive([8]);
    assert_eq!(lane.at(103).receive([7]), [Arrival::Late]);
    lane.at(110).receive([10]);
    lane.at(112).receive([12]);
    assert_eq!(lane.at(115).ask(), [9]);
    assert_eq!(lane.at(117).ask(), [11]);
}

#[test]
fn a_realtime_gap_is_asked_for_in_two_pairs() {
    let mut lane = lane(HASTY);

    lane.receive([0, 2]);

    let times: Vec<u64> = lane.ask_all().into_iter().map(|(at, _)| at).collect();
    // The window is 1.25 ms.
    assert_eq!(times, [1, 5, 55, 59]);
}

#[test]
fn what_was_only_overtaken_is_not_asked_for_and_widens_the_window() {
    let mut lane = lane(PATIENT);
    lane.receive([0, 2]);
    assert_eq!(lane.at(4).receive([1]), [Arrival::Late]);
    assert_eq!(lane.ask_all(), []);

    lane.at(10).receive([4, 5]);
    assert_eq!(lane.at(22).receive([3]), [Arrival::Late]);
    lane.at(30).receive([7]);

    assert_eq!(lane.ask_all().first(), Some(&(30 + 15, vec![6])));
    assert_eq!(lane.gaps.stats().late, 2);
}

#[test]
fn what_comes_a_round_trip_after_the_question_is_recovered_and_sooner_it_is_late() {
    let mut lane = lane(PATIENT);
    lane.receive([0, 3]);
    assert_eq!(lane.at(WINDOW_MS).ask(), [1, 2]);

    assert_eq!(lane.at(20).receive([1, 1]), [Arrival::Late, Arrival::Duplicate]);
    assert_eq!(lane.at(46).receive([2, 2]), [Arrival::Recovered, Arrival::Duplicate]);

    assert_eq!(lane.ask_all(), []);
    let RecoveryStats { missing, recovered, late, duplicates, given_up, .. } = *lane.gaps.stats();
    assert_eq!((missing, recovered, late, duplicates, given_up), (2, 1, 1, 2, 0));
}

#[test]
fn a_twin_fills_its_gap_and_is_dropped_where_there_is_none() {
    let mut lane = lane(HASTY);
    lane.receive([0, 2]);
    lane.at(1);
    let mut twin = |number| lane.gaps.handle_spare(number, Spare::Twin, true, lane.now);

    assert_eq!(twin(2), Arrival::Duplicate);
    assert_eq!([twin(1), twin(1)], [Arrival::Recovered, Arrival::Duplicate]);
    assert_eq!(twin(3), Arrival::New);

    assert_eq!(
        lane.receive([3, 1, 1]),
        [Arrival::Overtaken, Arrival::Overtaken, Arrival::Duplicate]
    );
    assert_eq!(lane.ask_all(), []);
    let RecoveryStats { spared, missing, recovered, late, .. } = *lane.gaps.stats();
    assert_eq!((spared, missing, recovered, late), (2, 0, 0, 0));
}

#[test]
fn while_repairs_are_expected_nothing_is_asked_for_before_they_come() {
    let mut lane = lane(PATIENT);
    lane.receive([0]);
    lane.gaps.expect_repairs(lane.start + Duration::from_millis(100), Duration::from_millis(24));
    lane.receive([2, 4]);
    assert!(lane.gaps.is_here(2) && !lane.gaps.is_here(3) && !lane.gaps.is_here(5));
    assert!(lane.gaps.is_first(3) && lane.gaps.is_first(5) && !lane.gaps.is_first(2));
    lane.at(20);
    assert_eq!(lane.gaps.missing_for(3, lane.now), Duration::from_millis(20));
    let rebuilt = lane.gaps.handle_spare(3, Spare::Rebuilt, true, lane.now);
    assert_eq!(rebuilt, Arrival::Recovered);
    assert_eq!(lane.at(24 + WINDOW_MS - 1).ask(), []);
    assert_eq!(lane.at(24 + WINDOW_MS).ask(), [1]);
    assert!(!lane.gaps.is_first(1), "what comes now may be an answer");

    lane.at(100).receive([6]);
    assert!(lane.at(100 + WINDOW_MS).ask().contains(&5), "repairs come no more");
    let RecoveryStats { rebuilt, missing, late, spared, .. } = *lane.gaps.stats();
    assert_eq!((rebuilt, missing, late, spared), (1, 2, 0, 0));
}

#[test]
fn a_tail_is_asked_for_when_nothing_comes_for_a_window() {
    let mut lane = lane(PATIENT);
    lane.receive([0]);
    lane.tell(4);
    assert_eq!(lane.at(3).receive([1]), [Arrival::New]);
    assert_eq!(lane.at(5).ask(), []);

    assert_eq!(lane.at(8).ask(), [2, 3]);

    assert_eq!(lane.gaps.complete_next(), 2);
    assert_eq!(lane.at(48).receive([3, 2]), [Arrival::Recovered; 2]);
    assert_eq!(lane.gaps.complete_next(), 4);
}

#[test]
fn the_first_frames_of_a_lane_are_asked_for_and_those_before_its_beginning_are_not() {
    let mut young = lane(PATIENT);
    young.receive([2]);
    assert_eq!(young.at(WINDOW_MS).ask(), [0, 1]);

    let mut old = lane(PATIENT);
    old.tell(90_000);
    assert_eq!(
        old.receive([89_999, 90_000, 89_999]),
        [Arrival::Forgotten, Arrival::New, Arrival::Duplicate]
    );
    assert_eq!(old.ask_all(), []);
}

#[test]
fn numbers_wrap() {
    let mut lane = lane(PATIENT);
    lane.receive([u32::MAX - 2, u32::MAX - 1, 2]);

    assert_eq!(lane.at(WINDOW_MS).ask(), [u32::MAX, 0, 1]);
    assert_eq!(lane.gaps.complete_next(), u32::MAX);
    assert_eq!(lane.at(50).receive([1, u32::MAX, 0]), [Arrival::Recovered; 3]);
    assert_eq!(lane.gaps.complete_next(), 3);
}

#[test]
fn without_chasing_nothing_is_asked_for_and_each_number_is_still_taken_once() {
    let mut lane = lane(PATIENT);
    lane.receive([0]);
    assert_eq!(lane.gaps.handle_number(9, false, lane.now), Arrival::New);
    lane.gaps.handle_told(20, false, lane.now);

    assert_eq!(lane.ask_all(), []);
    assert_eq!(lane.gaps.complete_next(), 20);
    assert_eq!(
        lane.receive([5, 5, 9]),
        [Arrival::Forgotten, Arrival::Duplicate, Arrival::Duplicate]
    );
}

#[test]
fn a_neighbour_that_counts_anew_is_followed() {
    let mut lane = lane(PATIENT);
    lane.receive(5_000_000..5_000_010);

    assert_eq!(lane.receive([3, 4]), [Arrival::New; 2]);
    lane.gaps.forget();
    assert_eq!(lane.receive([4, 3]), [Arrival::New, Arrival::Late]);
    assert_eq!(lane.receive([3, 4]), [Arrival::Duplicate; 2]);
}

#[test]
fn nothing_is_asked_for_while_a_sleeper_reads() {
    let mut lane = lane(PATIENT);
    lane.receive([0, 2]);
    lane.gaps.hold(lane.now + Duration::from_millis(30));

    assert_eq!(lane.at(20).ask(), []);
    assert_eq!(lane.gaps.due(), Some(lane.start + Duration::from_millis(30)));
    assert_eq!(lane.at(30).ask(), [1]);
}

#[test]
fn a_neighbour_that_jumps_ahead_with_every_frame_is_asked_little() {
    let mut lane = lane(PATIENT);
    let mut number = 0_u32;
    let mut asked = 0;
    for millis in 0..1_000 {
        lane.at(millis).receive([number]);
        number = number.wrapping_add(30_000);
        asked += lane.ask().len();
        assert!(lane.gaps.chased <= CHASED_MAX);
    }

    assert!(asked as u64 <= ASK_BURST + 1_000, "{asked} asked");
    assert!(lane.gaps.stages.iter().map(VecDeque::len).sum::<usize>() <= CHASED_MAX as usize);
}

/// What becomes of a frame: sent, and then of each answer.
#[derive(Clone, Debug)]
struct Fate {
    arrives: bool,
    /// Milliseconds beside the way.
    late: u64,
    twice: bool,
    answers: [bool; 3],
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = (any::<bool>(), 0_u64..9, proptest::bool::weighted(0.1), any::<[bool; 3]>());
    let fate =
        fate.prop_map(|(arrives, late, twice, answers)| Fate { arrives, late, twice, answers });
    proptest::collection::vec(fate, 1..400)
}

fn is_new(arrival: Arrival) -> bool {
    match arrival {
        Arrival::New | Arrival::Late | Arrival::Recovered | Arrival::Forgotten => true,
        Arrival::Overtaken | Arrival::Duplicate => false,
    }
}

proptest! {
    /// What is next may be taken in runs: nothing shows the difference.
    #[test]
    fn runs_are_taken_as_their_numbers_are_one_by_one(
        first in any::<u32>(),
        steps in proptest::collection::vec((0_u32..8, 1_u32..200, 0_u64..30, any::<bool>()), 1..60),
    ) {
        let (mut whole, mut single) = (lane(PATIENT), lane(PATIENT));
        (single.start, single.now) = (whole.start, whole.now);
        let (mut next, mut millis) = (first, 0);
        for (skip, count, wait, tells) in steps {
            millis += wait;
            let run = next.wrapping_add(skip.saturating_sub(4));
            whole.at(millis);
            if !whole.gaps.handle_next(run, count, whole.now) {
                whole.receive((0..count).map(|at| run.wrapping_add(at)));
            }
            single.at(millis).receive((0..count).map(|at| run.wrapping_add(at)));
            next = run.wrapping_add(count);
            if tells {
                whole.tell(next.wrapping_add(2));
                single.tell(next.wrapping_add(2));
            }
            prop_assert_eq!(whole.ask(), single.ask());
            prop_assert_eq!(whole.gaps.complete_next(), single.gaps.complete_next());
            prop_assert_eq!(whole.gaps.due(), single.gaps.due());
            prop_assert_eq!(whole.gaps.stats(), single.gaps.stats());
        }
    }

    /// Frames and answers take 20 ms; questions are never lost.
    #[test]
    fn each_frame_is_taken_once_if_it_or_an_answer_arrives(
        first in prop_oneof![Just(0_u32), Just(u32::MAX - 100), any::<u32>()],
        fates in fates(),
    ) {
        let mut lane = lane(PATIENT);
        let mut events = BTreeMap::<u64, Vec<u32>>::new();
        for (millis, fate) in (0_u64..).zip(&fates) {
            let number = first.wrapping_add(u32::try_from(millis).unwrap());
            // The first comes in time, so that it says where the lane begins.
            if fate.arrives || millis == 0 {
                events.entry(20 + millis + if millis == 0 { 0 } else { fate.late }).or_default().push(number);
            }
            if fate.twice {
                events.entry(60 + millis).or_default().push(number);
            }
        }
        let sent = u32::try_from(fates.len()).unwrap();
        let place = |number: u32| number.wrapping_sub(first) as usize;
        let mut taken = BTreeSet::new();
        let mut tries = vec![0; fates.len()];
        for millis in 0..1_500 {
            lane.at(millis);
            for number in events.remove(&millis).unwrap_or_default() {
                let new = is_new(lane.receive([number])[0]);
                prop_assert_eq!(new, taken.insert(number), "{}", number);
            }
            if millis == u64::from(sent) + 30 {
                lane.tell(first.wrapping_add(sent));
            }
            let complete = lane.gaps.complete_next();
            for number in lane.ask() {
                prop_assert!(!taken.contains(&number), "asked for {} which is here", number);
                prop_assert!(!is_before(number, complete), "asked for {} which is complete", number);
                let answers = fates[place(number)].answers;
                if answers[tries[place(number)]] {
                    events.entry(millis + 40).or_default().push(number);
                }
                tries[place(number)] += 1;
            }
        }
        for (at, fate) in fates.iter().enumerate() {
            let arrives = at == 0 || fate.arrives || fate.twice || fate.answers.contains(&true);
            let number = first.wrapping_add(u32::try_from(at).unwrap());
            prop_assert_eq!(taken.contains(&number), arrives, "{} of {}", at, sent);
        }
        let stats = *lane.gaps.stats();
        prop_assert_eq!(lane.gaps.chased, 0);
        prop_assert_eq!(lane.gaps.complete_next(), first.wrapping_add(sent));
        prop_assert!(stats.recovered + stats.given_up <= stats.missing);
    }

    /// Whatever comes: memory is bounded, nothing is taken twice, and the timer makes progress.
    #[test]
    fn anything_may_arrive(
        start in any::<u32>(),
        calls in proptest::collection::vec((0_u8..9, any::<u32>(), 0_u64..60), 0..300),
        hasty in any::<bool>(),
    ) {
        let mut lane = lane(if hasty { HASTY } else { PATIENT });
        let mut taken = BTreeSet::new();
        let (mut millis, mut last) = (0, start);
        lane.gaps.handle_told(start, false, lane.now);
        for (kind, value, wait) in calls {
            millis += wait;
            lane.at(millis);
            let number = match kind {
                0 | 1 => last.wrapping_add(value % 4),
                2 => last.wrapping_add(value % 2_000),
                3 | 7 => last.wrapping_sub(value % 2_000),
                _ => last,
            };
            match kind {
                0..=3 => {
                    // Never so far that numbering starts anew: then nothing is known of what came.
                    if number.wrapping_sub(start) > 900_000 {
                        continue;
                    }
                    if is_new(lane.receive([number])[0]) {
                        prop_assert!(taken.insert(number), "{} twice", number);
                    }
                    last = number;
                }
                7 => {
                    let spare = if value & 1 == 0 { Spare::Twin } else { Spare::Rebuilt };
                    let twin = number.wrapping_sub(start) <= 900_000
                        && is_new(lane.gaps.handle_spare(number, spare, true, lane.now));
                    prop_assert!(!twin || taken.insert(number), "{} twice", number);
                }
                4 => { lane.tell(last.wrapping_add(value % 500)); }
                5 => lane.gaps.hold(lane.now + Duration::from_millis(value as u64 % 50)),
                6 if value % 8 == 0 => lane.gaps.forgive(),
                _ => { lane.ask(); }
            }
            let runs: usize = lane.gaps.stages.iter().map(VecDeque::len).sum();
            prop_assert!(lane.gaps.chased <= CHASED_MAX && runs <= 2 * CHASED_MAX as usize);
        }
        lane.ask_all();
        prop_assert_eq!(lane.gaps.chased, 0);
    }
}
