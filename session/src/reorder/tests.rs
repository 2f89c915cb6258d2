use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

struct Bench {
    order: Reorder<u64>,
    now: Instant,
    out: VecDeque<u64>,
}

impl Bench {
    fn new() -> Self {
        Self { order: Reorder::new(), now: Instant::now(), out: VecDeque::new() }
    }

    fn frame(&mut self, sequence: u64) -> Verdict {
        self.order.handle_timeout(self.now, &mut self.out);
        self.order.handle_frame(sequence, 1_200, sequence, self.now, &mut self.out)
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.order.handle_timeout(self.now, &mut self.out);
    }

    fn taken(&mut self) -> Vec<u64> {
        self.out.drain(..).collect()
    }
}

#[test]
fn frames_in_order_pass_at_once_and_leave_nothing_waiting() {
    let mut bench = Bench::new();
    for sequence in 1_000..1_100 {
        assert_eq!(bench.frame(sequence), Verdict::InOrder);
        assert_eq!(bench.taken(), [sequence]);
        assert_eq!(bench.order.poll_timeout(), None);
    }
}

#[test]
fn what_frames_were_held_for_is_added_up_however_the_gap_ends() {
    let mut bench = Bench::new();
    let held = |bench: &mut Bench| {
        let OrderDelay { micros, frames } = bench.order.take_delay();
        (micros / 1_000, frames)
    };
    bench.frame(0);
    bench.frame(2);
    bench.wait(3 * MS);
    bench.frame(3);
    assert_eq!(held(&mut bench), (0, 1));
    bench.wait(2 * MS);
    bench.frame(1);
    assert_eq!(held(&mut bench), (5 + 2, 3));

    bench.frame(5);
    bench.wait(HOLD_MAX);
    assert_eq!(bench.taken().last(), Some(&5));
    // The frames before have taught nothing: so long is waited for a small gap at first.
    assert_eq!(held(&mut bench), (250, 1));
}

#[test]
fn a_gap_that_is_filled_gives_everything_in_order() {
    let mut bench = Bench::new();
    bench.frame(0);
    assert_eq!(bench.frame(2), Verdict::Held);
    assert_eq!(bench.frame(3), Verdict::Held);
    assert_eq!(bench.frame(2), Verdict::Duplicate);
    assert_eq!(bench.taken(), [0]);

    assert_eq!(bench.frame(1), Verdict::Filled);

    assert_eq!(bench.taken(), [1, 2, 3]);
    assert_eq!(bench.order.poll_timeout(), None);
}

#[test]
fn a_gap_that_is_not_filled_is_given_up_in_time() {
    let mut bench = Bench::new();
    bench.frame(0);
    bench.frame(2);
    bench.wait(199 * MS);
    assert_eq!(bench.taken(), [0]);

    bench.wait(2 * MS);

    assert_eq!(bench.taken(), [2]);
    assert_eq!(bench.order.gaps_given_up(), 1);
    assert_eq!(bench.frame(1), Verdict::Late);
    assert_eq!(bench.frame(1), Verdict::Duplicate);
    assert_eq!(bench.taken(), [1]);
}

#[test]
fn random_loss_teaches_not_to_wait_and_late_frames_teach_to_wait_again() {
    let mut bench = Bench::new();
    let mut sequence = 0;
    for _ in 0..20 {
        bench.frame(sequence);
        bench.frame(sequence + 2);
        bench.wait(HOLD_MAX);
        sequence += 3;
    }
    bench.frame(sequence);
    bench.frame(sequence + 2);
    let patience = bench.order.poll_timeout().unwrap() - bench.now;
    assert_eq!(patience, 2 * MS);

    bench.wait(10 * MS);
    assert_eq!(bench.frame(sequence + 1), Verdict::Late);
    bench.frame(sequence + 4);
    let patience = bench.order.poll_timeout().unwrap() - bench.now;
    assert_eq!(patience, Duration::from_micros(12_500));
}

#[test]
fn a_burst_of_gaps_in_vain_is_one_lesson() {
    let mut bench = Bench::new();
    for sequence in (0..200).step_by(2) {
        bench.frame(sequence);
    }
    bench.wait(HOLD_MAX);
    assert_eq!(bench.order.gaps_given_up(), 99);

    bench.frame(200);
    let patience = bench.order.poll_timeout().unwrap() - bench.now;
    assert_eq!(patience, 150 * MS);
}

#[test]
fn however_much_is_lost_quic_is_left_with_fewer_gaps_than_it_bears() {
    // Every second frame is lost for good, at 10,000 frames a second; QUIC mends a gap half a second after it has seen it.
    let (mut bench, mut open, mut next) = (Bench::new(), VecDeque::new(), 0);
    for sequence in 0..100_000 {
        bench.wait(MS / 10);
        if sequence % 2 == 0 {
            bench.frame(sequence);
        }
        for taken in bench.taken() {
            if taken != next {
                open.push_back(bench.now + 500 * MS);
            }
            next = taken + 1;
        }
        while open.pop_front_if(|mended| *mended <= bench.now).is_some() {}
        assert!(open.len() <= 600, "{} gaps at once, at frame {sequence}", open.len());
        assert!(bench.order.held.len() <= 10_000);
    }
    assert!(next > 90_000, "QUIC got no further than {next}");
}

#[test]
fn late_frames_of_a_fast_sender_still_teach_to_wait() {
    let mut bench = Bench::new();
    bench.order.small.now = 2 * MS;
    bench.frame(0);
    for sequence in 2..6_000 {
        bench.wait(MS / 100);
        bench.frame(sequence);
    }
    assert_eq!(bench.frame(1), Verdict::Late);
    assert!(bench.order.small.now > 50 * MS, "{:?}", bench.order.small.now);
}

#[test]
fn what_a_dead_relay_swallowed_is_waited_for_and_put_before_the_rest() {
    let mut bench = Bench::new();
    bench.frame(0);
    for sequence in 1_001..1_100 {
        assert_eq!(bench.frame(sequence), Verdict::Held);
    }
    bench.wait(90 * MS);
    for sequence in 1..1_001 {
        bench.wait(MS / 20);
        bench.frame(sequence);
    }
    assert_eq!(bench.taken(), (0..1_100).collect::<Vec<_>>());
}

#[test]
fn a_gap_that_is_filled_for_ever_is_given_up_all_the_same() {
    let mut bench = Bench::new();
    bench.frame(0);
    bench.frame(1_000);
    for sequence in 1..=20 {
        bench.wait(20 * MS);
        bench.frame(sequence);
    }
    assert_eq!(bench.order.gaps_given_up(), 1);
    assert!(bench.taken().contains(&1_000));
}

#[test]
fn what_is_held_is_bounded() {
    let mut bench = Bench::new();
    bench.frame(0);
    for sequence in 2..2 * HELD_FRAMES_MAX as u64 {
        bench.frame(sequence);
        assert!(bench.order.held.len() <= HELD_FRAMES_MAX);
    }
    assert_eq!(bench.order.gaps_given_up(), 1);
}

#[test]
fn the_end_of_the_numbers_is_survived() {
    let mut bench = Bench::new();
    bench.frame(u64::MAX - 3);
    for sequence in [u64::MAX - 1, u64::MAX, u64::MAX - 1, u64::MAX] {
        bench.frame(sequence);
    }
    bench.wait(200 * MS);
    bench.frame(u64::MAX);
    assert_eq!(bench.taken(), [u64::MAX - 3, u64::MAX - 1]);
}

#[test]
fn a_forged_sequence_stops_the_sender_for_a_moment_only() {
    for forged in [100_000, u64::MAX - 1, u64::MAX] {
        let mut bench = Bench::new();
        bench.frame(0);
        bench.frame(forged);
        for sequence in 1..1_000 {
            bench.wait(MS);
            bench.frame(sequence);
        }
        let taken = bench.taken();
        let missing = 1_000 - taken.iter().filter(|&&sequence| sequence < 1_000).count();
        assert!(missing <= 250, "{forged}: {missing}");
        assert!(taken.ends_with(&[997, 998, 999]));
    }
}

#[test]
fn old_frames_among_others_do_not_start_the_order_anew() {
    let mut bench = Bench::new();
    for sequence in 100_000..101_000 {
        bench.wait(5 * MS);
        assert_eq!(bench.frame(sequence), Verdict::InOrder);
        for old in 0..3 {
            assert_eq!(bench.frame(old), Verdict::Duplicate);
        }
    }
}

proptest! {
    /// Frames shuffled within a span, some lost, some doubled; time passes now and then.
    #[test]
    fn every_frame_comes_out_once_and_in_order_unless_late(
        steps in proptest::collection::vec((0_u64..40, 0_u64..4, 0_u64..6), 1..400),
    ) {
        let mut bench = Bench::new();
        let (mut given, mut late) = (BTreeSet::new(), BTreeSet::new());
        for (at, (back, copies, pause)) in steps.iter().enumerate() {
            let sequence = (at as u64 + 100).saturating_sub(*back);
            for _ in 0..*copies {
                let verdict = bench.frame(sequence);
                prop_assert_eq!(verdict == Verdict::Duplicate, !given.insert(sequence));
                if verdict == Verdict::Late {
                    late.insert(sequence);
                }
            }
            bench.wait(MS * u32::try_from(*pause).unwrap());
        }
        bench.wait(2 * HOLD_MAX);
        prop_assert_eq!(bench.order.poll_timeout(), None);
        let taken = bench.taken();
        prop_assert_eq!(taken.iter().copied().collect::<BTreeSet<_>>(), given.clone());
        prop_assert_eq!(taken.len(), given.len());
        let in_time: Vec<_> = taken.into_iter().filter(|sequence| !late.contains(sequence)).collect();
        prop_assert!(in_time.is_sorted());
    }

    #[test]
    fn nothing_is_held_longer_than_the_bound(
        steps in proptest::collection::vec((1_u64..200, 0_u64..30), 1..200),
    ) {
        let mut bench = Bench::new();
        let mut sequence = 0;
        for (ahead, pause) in steps {
            sequence += ahead;
            bench.frame(sequence);
            if let Some(deadline) = bench.order.poll_timeout() {
                prop_assert!(deadline <= bench.now + HOLD_MAX);
            }
            bench.wait(MS * u32::try_from(pause).unwrap());
            let oldest = bench.order.held.values().map(|held| held.arrived).min();
            prop_assert!(oldest.is_none_or(|arrived| arrived + HOLD_MAX > bench.now));
        }
    }
}
