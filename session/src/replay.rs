//! Which of the recent sequence numbers were seen (RFC 6479's bitmap ring).
//!
//! The window ends at the greatest number seen and reaches so many numbers back as its words have bits, but for
//! one word. A number above it moves it; a number in it is new once; a number below it is too old to tell.

use std::time::{Duration, Instant};

const BITS: u64 = 64;
/// Words of a window of 1,024 numbers. The copies that a failover makes come within a detour's extra delay: 1,024
/// frames are 100 ms at 10,000 frames a second. One word more than the window needs, so that the word being
/// cleared is never inside it.
const WORDS: usize = 17;

/// Numbers below the window, one after the other, that make it suspicious.
const OUTRUN_MIN: u32 = 64;
/// So long no number was in the window. What a detour replays comes among others, which are.
const OUTRUN_TIME: Duration = Duration::from_millis(200);

/// The verdict on a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// Not seen before; it is now.
    New,
    /// Seen before.
    Duplicate,
    /// Below the window.
    Old,
}

/// The window.
#[derive(Clone, Debug)]
pub(crate) struct ReplayWindow<const LENGTH: usize = WORDS> {
    /// One above the greatest number seen; zero when none was.
    end: u64,
    words: [u64; LENGTH],
}

impl<const LENGTH: usize> Default for ReplayWindow<LENGTH> {
    fn default() -> Self {
        Self { end: 0, words: [0; LENGTH] }
    }
}

impl<const LENGTH: usize> ReplayWindow<LENGTH> {
    /// Numbers below the greatest seen that are still told apart.
    pub(crate) const REACH: u64 = (LENGTH as u64 - 1) * BITS;

    /// Judges `sequence`, and marks it if it is new. The greatest number of all, which could not be
    /// followed by another, counts as old.
    pub(crate) fn insert(&mut self, sequence: u64) -> Replay {
        if sequence == u64::MAX || sequence.saturating_add(Self::REACH) < self.end {
            return Replay::Old;
        }
        if sequence >= self.end {
            self.advance(sequence);
        }
        let (word, bit) = Self::place(sequence);
        if self.words[word] & bit != 0 {
            return Replay::Duplicate;
        }
        self.words[word] |= bit;
        Replay::New
    }

    /// As [`Self::insert`], but starts anew with `sequence` once the window is out of its sender's reach.
    pub(crate) fn insert_or_restart(
        &mut self,
        outrun: &mut Outrun,
        sequence: u64,
        now: Instant,
    ) -> Replay {
        let verdict = self.insert(sequence);
        if !outrun.handle_verdict(verdict, now) {
            return verdict;
        }
        *self = Self::default();
        self.insert(sequence)
    }

    fn advance(&mut self, sequence: u64) {
        let first_new = if self.end == 0 { 0 } else { (self.end - 1) / BITS + 1 };
        let last_new = sequence / BITS;
        let clear_from = first_new.max(last_new.saturating_sub(LENGTH as u64 - 1));
        for number in clear_from..=last_new {
            self.words[Self::place(number * BITS).0] = 0;
        }
        self.end = sequence + 1;
    }

    fn place(sequence: u64) -> (usize, u64) {
        let word = (sequence / BITS) % LENGTH as u64;
        (usize::try_from(word).expect("a remainder of LENGTH fits"), 1 << (sequence % BITS))
    }
}

/// Tells when a window was moved out of its sender's reach, by a number that is not the sender's: then all
/// that comes is old, and nothing else does. For numbers that nobody vouches for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outrun {
    old: u32,
    /// When a number was in the window, or the first was below it.
    since: Option<Instant>,
}

impl Outrun {
    /// Takes notice of a verdict; whether the window should start anew.
    pub(crate) fn handle_verdict(&mut self, verdict: Replay, now: Instant) -> bool {
        match verdict {
            Replay::New | Replay::Duplicate => *self = Self { old: 0, since: Some(now) },
            Replay::Old => {
                self.old = self.old.saturating_add(1);
                let since = *self.since.get_or_insert(now);
                if self.old >= OUTRUN_MIN && now.saturating_duration_since(since) >= OUTRUN_TIME {
                    *self = Self::default();
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const WINDOW: u64 = <ReplayWindow>::REACH;

    #[test]
    fn a_number_is_new_once_and_old_when_the_window_has_passed() {
        let mut window = <ReplayWindow>::default();

        assert_eq!(window.insert(0), Replay::New);
        assert_eq!(window.insert(0), Replay::Duplicate);
        assert_eq!(window.insert(WINDOW), Replay::New);
        assert_eq!(window.insert(1), Replay::New);
        assert_eq!(window.insert(0), Replay::Old);
    }

    #[test]
    fn the_end_of_the_numbers_is_survived() {
        let mut window = <ReplayWindow>::default();

        assert_eq!(window.insert(u64::MAX - 1), Replay::New);
        assert_eq!(window.insert(u64::MAX - 1), Replay::Duplicate);
        assert_eq!(window.insert(u64::MAX), Replay::Old);
    }

    #[test]
    fn a_window_moved_out_of_reach_starts_anew_and_one_in_use_does_not() {
        let (mut window, mut outrun) = (<ReplayWindow>::default(), Outrun::default());
        let mut now = Instant::now();
        assert_eq!(window.insert_or_restart(&mut outrun, 9, now), Replay::New);
        assert_eq!(window.insert_or_restart(&mut outrun, u64::MAX - 1, now), Replay::New);

        let mut sequence = 10;
        while window.insert_or_restart(&mut outrun, sequence, now) == Replay::Old {
            (sequence, now) = (sequence + 1, now + Duration::from_millis(1));
            assert!(sequence < 1_000);
        }
        assert_eq!(sequence, 10 + 200);
        assert_eq!(window.insert_or_restart(&mut outrun, sequence, now), Replay::Duplicate);

        // Old ones are many, but not alone.
        assert_eq!(window.insert_or_restart(&mut outrun, 100_000, now), Replay::New);
        for number in 1..1_000 {
            now += Duration::from_millis(5);
            let verdict = window.insert_or_restart(&mut outrun, number, now);
            assert_eq!(verdict, Replay::Old);
            if number % 30 == 0 {
                window.insert_or_restart(&mut outrun, 100_000 + number, now);
            }
        }
    }

    #[test]
    fn few_old_numbers_do_not_start_a_window_anew_however_long_they_take() {
        let (mut window, mut outrun) = (<ReplayWindow>::default(), Outrun::default());
        let now = Instant::now();
        window.insert_or_restart(&mut outrun, 100_000, now);
        for number in 1..OUTRUN_MIN {
            let now = now + Duration::from_secs(u64::from(number));
            let verdict = window.insert_or_restart(&mut outrun, u64::from(number), now);
            assert_eq!(verdict, Replay::Old);
        }
    }

    proptest! {
        #[test]
        fn verdicts_are_those_of_a_plain_set(
            steps in proptest::collection::vec((0_u64..3_000, prop::bool::weighted(0.05)), 0..600),
        ) {
            let mut window = <ReplayWindow>::default();
            let (mut seen, mut base) = (BTreeSet::new(), 0);
            for (offset, jump) in steps {
                base += if jump { 5_000 } else { 10 };
                let sequence = base + offset;
                let end = seen.last().map_or(0, |last| last + 1);
                let expected = if sequence + WINDOW < end {
                    Replay::Old
                } else if seen.insert(sequence) {
                    Replay::New
                } else {
                    Replay::Duplicate
                };
                prop_assert_eq!(window.insert(sequence), expected);
            }
        }
    }
}
