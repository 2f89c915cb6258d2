//! Which of two attachments is the first: where far ends send to, and what is sent over while both are well.

use std::time::{Duration, Instant};

/// The other must be nearer by this much and this part, so that two like ones do not take turns,
const NEARER_BY: Duration = Duration::from_millis(5);
const NEARER_PERCENT: u32 = 20;
/// and for this long: a move tells every far end, and a Wi-Fi's hiccup lasts seconds.
const NEARER_FOR: Duration = Duration::from_secs(10);

/// What is known of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Whether it carries anything.
    pub(crate) is_usable: bool,
    /// Its round trip, once it is measured.
    pub(crate) rtt: Option<Duration>,
}

/// The choice, with what it remembers.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    first: Option<usize>,
    nearer_since: Option<Instant>,
}

impl Choice {
    /// The place of the first attachment, `None` if there is none at all.
    pub(crate) fn first(&self) -> Option<usize> {
        self.first
    }

    /// Chooses anew. One that cannot be used is left at once, if the other can; a nearer one is taken when it has been
    /// nearer for a while.
    pub(crate) fn choose(&mut self, candidates: [Option<Candidate>; 2], now: Instant) {
        let usable = |at: usize| candidates[at].is_some_and(|candidate| candidate.is_usable);
        let held = self.first.filter(|&at| candidates[at].is_some());
        let Some(held) = held else {
            self.nearer_since = None;
            let best = (0..2).filter(|&at| usable(at)).min_by_key(|&at| rtt(candidates[at]));
            self.first = best.or_else(|| (0..2).find(|&at| candidates[at].is_some()));
            return;
        };
        let other = 1 - held;
        if usable(other) && !usable(held) {
            (self.first, self.nearer_since) = (Some(other), None);
            return;
        }
        if !usable(other) || !is_nearer(candidates[other], candidates[held]) {
            self.nearer_since = None;
            return;
        }
        let since = *self.nearer_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= NEARER_FOR {
            (self.first, self.nearer_since) = (Some(other), None);
        }
    }
}

fn rtt(candidate: Option<Candidate>) -> Duration {
    candidate.and_then(|candidate| candidate.rtt).unwrap_or(Duration::MAX)
}

fn is_nearer(one: Option<Candidate>, than: Option<Candidate>) -> bool {
    let (one, than) = (rtt(one), rtt(than));
    let gain = than.saturating_sub(one);
    than != Duration::MAX && gain >= NEARER_BY && gain >= than * NEARER_PERCENT / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn candidate(is_usable: bool, rtt_ms: u64) -> Option<Candidate> {
        Some(Candidate { is_usable, rtt: Some(Duration::from_millis(rtt_ms)) })
    }

    #[test]
    fn the_nearer_usable_one_is_the_first() {
        let now = Instant::now();
        let first = |candidates| {
            let mut choice = Choice::default();
            choice.choose(candidates, now);
            choice.first()
        };
        assert_eq!(first([None, None]), None);
        assert_eq!(first([None, candidate(true, 9)]), Some(1));
        assert_eq!(first([candidate(true, 9), candidate(true, 8)]), Some(1));
        assert_eq!(first([candidate(true, 9), candidate(false, 8)]), Some(0));
        assert_eq!(first([None, candidate(false, 8)]), Some(1), "better than none");
    }

    #[test]
    fn one_that_carries_nothing_is_left_at_once_and_not_taken_again_for_little() {
        let now = Instant::now();
        let mut choice = Choice::default();
        choice.choose([candidate(true, 10), candidate(true, 12)], now);
        assert_eq!(choice.first(), Some(0));

        choice.choose([candidate(false, 10), candidate(true, 12)], now);
        assert_eq!(choice.first(), Some(1));
        for after in [0, 60] {
            let now = now + Duration::from_secs(after);
            choice.choose([candidate(true, 10), candidate(true, 12)], now);
            assert_eq!(choice.first(), Some(1));
        }
        choice.choose([candidate(false, 10), candidate(false, 12)], now);
        assert_eq!(choice.first(), Some(1), "the other is no better");
    }

    #[test]
    fn a_much_nearer_one_is_taken_when_it_stays_nearer() {
        let now = Instant::now();
        let mut choice = Choice::default();
        choice.choose([candidate(true, 50), None], now);
        let at = |choice: &mut Choice, seconds, rtt| {
            let now = now + Duration::from_secs(seconds);
            choice.choose([candidate(true, 50), candidate(true, rtt)], now);
            choice.first()
        };
        assert_eq!(at(&mut choice, 0, 20), Some(0));
        assert_eq!(at(&mut choice, 9, 20), Some(0));
        assert_eq!(at(&mut choice, 9, 46), Some(0), "a pause: it begins anew");
        assert_eq!(at(&mut choice, 10, 20), Some(0));
        assert_eq!(at(&mut choice, 19, 20), Some(0));
        assert_eq!(at(&mut choice, 20, 20), Some(1));
    }
}
