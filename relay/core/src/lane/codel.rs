//! CoDel (RFC 8289), which marks where the RFC drops.
//!
//! A queue is *good* if it empties again and again: the least time that frames wait in it is small. It is *bad*
//! if for a whole *interval* no frame has waited less than the *target*. Then a frame is marked, and more at
//! the next of the times which the control law sets, `interval / sqrt(count)` apart, until a frame again
//! has waited less than the target or no more than one full frame is left behind it. A queue that turns bad again
//! soon after goes on near the rate at which marking had stopped.
//!
//! It departs from the RFC's pseudo-code in this: a mark takes no frame away, so there is at most one for each
//! frame that leaves (as in Linux' `codel_impl.h`). A mark that falls due on a frame whose ends do not react to
//! marks is not made, and the law goes on as if it had been: marks that were saved up would hit the next flow that
//! reacts all at once. Nothing is dropped here.

use std::time::{Duration, Instant};

/// Target and interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Law {
    pub(super) target: Duration,
    pub(super) interval: Duration,
    /// A queue of no more than this, one full frame, is not bad whatever it waited: the line is that slow.
    pub(super) least_bytes: usize,
}

impl Law {
    /// How long after one mark the next is due.
    fn pause(&self, count: u32) -> Duration {
        let nanos = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        let squared = u128::from(nanos) * u128::from(nanos) / u128::from(count.max(1));
        Duration::from_nanos(u64::try_from(squared.isqrt()).unwrap_or(u64::MAX))
    }
}

/// The state of one queue. The names in brackets are the RFC's.
#[derive(Debug, Default)]
pub(super) struct Codel {
    /// When the queue will have been above the target for an interval (`first_above_time_`).
    bad_at: Option<Instant>,
    /// Whether it is bad (`dropping_`).
    marking: bool,
    /// When the next mark is due (`drop_next_`).
    next: Option<Instant>,
    /// Marks since it turned bad (`count_`).
    count: u32,
    /// `count` when it last turned bad (`lastcount_`).
    last_count: u32,
}

impl Codel {
    /// Whether a frame that leaves now, has waited so long and leaves so much behind it is to be marked.
    #[inline]
    pub(super) fn is_due(
        &mut self,
        law: &Law,
        waited: Duration,
        left_bytes: usize,
        now: Instant,
    ) -> bool {
        let bad = self.is_bad(law, waited, left_bytes, now);
        if self.marking {
            self.marking = bad;
            let due = bad && self.next.is_some_and(|next| next <= now);
            if due {
                self.count = self.count.saturating_add(1);
                self.next = self.next.map(|next| next + law.pause(self.count));
            }
            return due;
        }
        if bad {
            self.begin(law, now);
        }
        bad
    }

    #[inline]
    fn is_bad(&mut self, law: &Law, waited: Duration, left_bytes: usize, now: Instant) -> bool {
        if waited < law.target || left_bytes <= law.least_bytes {
            self.bad_at = None;
            return false;
        }
        now >= *self.bad_at.get_or_insert(now + law.interval)
    }

    fn begin(&mut self, law: &Law, now: Instant) {
        let before = self.count.saturating_sub(self.last_count);
        let soon = |next: Instant| now.saturating_duration_since(next) < law.interval * 16;
        self.count = if before > 1 && self.next.is_some_and(soon) { before } else { 1 };
        self.last_count = self.count;
        self.next = Some(now + law.pause(self.count));
        self.marking = true;
    }

    /// The queue is empty (`dodequeue` of an empty queue).
    pub(super) fn rest(&mut self) {
        self.bad_at = None;
        self.marking = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LAW: Law = Law {
        target: Duration::from_millis(5),
        interval: Duration::from_millis(100),
        least_bytes: 1_500,
    };

    /// The pseudo-code of RFC 8289 section 5.5 in nanoseconds, word for word but that a packet which it would
    /// drop goes out marked, so that there is no other to look at in its place.
    #[derive(Default)]
    struct Reference {
        first_above_time: u64,
        drop_next: u64,
        count: u32,
        lastcount: u32,
        dropping: bool,
    }

    impl Reference {
        fn control_law(t: u64, count: u32) -> u64 {
            let pause = Duration::from_secs_f64(0.1 / f64::from(count).sqrt());
            t + u64::try_from(pause.as_nanos()).unwrap()
        }

        fn dodequeue(&mut self, sojourn_time: u64, bytes: usize, now: u64) -> bool {
            if sojourn_time < 5_000_000 || bytes <= 1_500 {
                self.first_above_time = 0;
            } else if self.first_above_time == 0 {
                self.first_above_time = now + 100_000_000;
            } else if now >= self.first_above_time {
                return true;
            }
            false
        }

        fn deque(&mut self, sojourn_time: u64, bytes: usize, now: u64) -> bool {
            let ok_to_drop = self.dodequeue(sojourn_time, bytes, now);
            if self.dropping {
                if !ok_to_drop {
                    self.dropping = false;
                }
                if self.dropping && now >= self.drop_next {
                    self.count += 1;
                    self.drop_next = Self::control_law(self.drop_next, self.count);
                    return true;
                }
            } else if ok_to_drop {
                self.dropping = true;
                let delta = self.count - self.lastcount;
                self.count = 1;
                if delta > 1 && now - self.drop_next < 16 * 100_000_000 {
                    self.count = delta;
                }
                self.drop_next = Self::control_law(now, self.count);
                self.lastcount = self.count;
                return true;
            }
            false
        }
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// When a queue whose frames wait so long is marked, in ms after its first frame left.
    fn marks(waited: Duration, ms: std::ops::Range<u64>, codel: &mut Codel) -> Vec<u64> {
        let start = Instant::now();
        ms.filter(|&at| codel.is_due(&LAW, waited, 10_000, start + millis(at))).collect()
    }

    #[test]
    fn a_queue_that_stands_is_marked_ever_more_often() {
        // 100, then 100/sqrt(1), 100/sqrt(2), 100/sqrt(3), ... later, each at the next frame.
        let expected = [100, 200, 271, 329, 379, 424, 464, 502, 538, 571];
        assert_eq!(marks(millis(6), 0..600, &mut Codel::default()), expected);
    }

    #[test]
    fn a_queue_below_the_target_or_of_one_frame_is_never_marked() {
        assert_eq!(marks(millis(4), 0..5_000, &mut Codel::default()), []);
        let (mut codel, start) = (Codel::default(), Instant::now());
        let due = |at| codel.is_due(&LAW, millis(50), LAW.least_bytes, start + millis(at));
        assert!(!(0..5_000).any(due));
    }

    #[test]
    fn one_frame_in_time_ends_marking_and_a_queue_that_is_bad_again_is_marked_sooner() {
        let (mut codel, start) = (Codel::default(), Instant::now());
        let mut look = |at, waited| codel.is_due(&LAW, millis(waited), 10_000, start + millis(at));
        let first = (0..1_000).filter(|&at| look(at, 6)).count();
        assert!(!look(1_000, 4));
        let again: Vec<u64> = (1_001..1_300).filter(|&at| look(at, 6)).collect();

        // Of its 27 marks all but the first came after it had turned bad: it goes on with 100 / sqrt(26).
        assert_eq!((first, &again[..3]), (27, &[1_101, 1_121, 1_140][..]));
    }

    #[test]
    fn an_empty_queue_is_good() {
        let mut codel = Codel::default();
        assert_eq!(marks(millis(6), 0..99, &mut codel), []);
        codel.rest();
        assert_eq!(marks(millis(6), 99..198, &mut codel), []);
    }

    proptest! {
        #[test]
        fn marks_are_those_of_the_rfcs_pseudo_code(
            steps in proptest::collection::vec(
                (1_u64..40_000, prop_oneof![8 => 4_000_u64..30_000, 1 => 0_u64..6_000], 0_usize..30_000),
                1..1_000,
            ),
        ) {
            let start = Instant::now();
            let (mut codel, mut reference) = (Codel::default(), Reference::default());
            // Zero means never in the pseudo-code.
            let mut micros = 1_000_000;
            for (pause, waited, left) in steps {
                micros += pause;
                let now = start + Duration::from_micros(micros);
                let left = if left < 1_000 { left } else { left + 1_500 };
                let due = codel.is_due(&LAW, Duration::from_micros(waited), left, now);
                prop_assert_eq!(due, reference.deque(waited * 1_000, left, micros * 1_000));
            }
        }
    }
}
