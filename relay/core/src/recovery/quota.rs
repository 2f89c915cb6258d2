//! An allowance that grows with what it is a share of.

use std::time::{Duration, Instant};

/// What is earned and spent is remembered for one to two of these.
const SPAN: Duration = Duration::from_secs(1);

/// Lets so much be spent over the last second or two as is a share of what was earned in them, and a burst
/// besides, without which a sparse flow could not recover its only frame.
#[derive(Debug)]
pub(crate) struct Quota {
    share: u64,
    burst: u64,
    /// When this span began, and when it ends: comparing costs less than counting, and is done for every frame.
    since: Instant,
    until: Instant,
    /// In this span and in the one before.
    earned: [u64; 2],
    spent: [u64; 2],
}

impl Quota {
    /// An allowance of one `share`th and a `burst`.
    pub(crate) fn new(share: u64, burst: u64, now: Instant) -> Self {
        Self { share, burst, since: now, until: now + SPAN, earned: [0; 2], spent: [0; 2] }
    }

    /// Notes what the allowance is a share of.
    pub(crate) fn earn(&mut self, amount: u64, now: Instant) {
        self.turn(now);
        self.earned[0] = self.earned[0].saturating_add(amount);
    }

    /// Spends `amount`, or says that there is not so much left.
    pub(crate) fn take(&mut self, amount: u64, now: Instant) -> bool {
        self.turn(now);
        let sum = |of: [u64; 2]| of[0].saturating_add(of[1]);
        let spent = sum(self.spent).saturating_add(amount);
        let allowed = spent <= self.burst.saturating_add(sum(self.earned) / self.share);
        if allowed {
            self.spent[0] += amount;
        }
        allowed
    }

    fn turn(&mut self, now: Instant) {
        if now < self.until {
            return;
        }
        let passed = now.saturating_duration_since(self.since);
        let kept = |of: [u64; 2]| if passed < 2 * SPAN { [0, of[0]] } else { [0; 2] };
        (self.earned, self.spent) = (kept(self.earned), kept(self.spent));
        (self.since, self.until) = (now, now + SPAN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_is_spent_beside_the_burst_and_an_idle_second_restores_the_burst() {
        let start = Instant::now();
        let mut quota = Quota::new(5, 1_000, start);
        let mut spent = 0;
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            quota.earn(100, now);
            while quota.take(10, now) {
                spent += 10;
            }
        }
        // Ten seconds of 100,000 each, and a burst for every two at the least.
        assert!((200_000..=212_000).contains(&spent), "{spent}");

        let later = start + Duration::from_secs(20);
        assert!(quota.take(1_000, later));
        assert!(!quota.take(1, later));
    }
}
