//! How fast an edge may speak on its control stream.

use std::time::{Duration, Instant};

/// So many at once, and so many a second from then on. Kept as the time at which all may be said at once again (GCRA,
/// ITU-T I.371).
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// What a whole burst takes to come back.
    burst: Duration,
    full_at: Instant,
}

impl Pace {
    /// # Panics
    /// If `per_second` is 0.
    pub(super) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_second;
        Self { interval, burst: interval * burst, full_at: now }
    }

    /// Whether one more may be said now.
    pub(super) fn may(&self, now: Instant) -> bool {
        self.full_at + self.interval <= now + self.burst
    }

    /// One has been said that counts as so many.
    pub(super) fn note(&mut self, count: u32, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval * count;
    }

    /// When the next may be said, if it was not now.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        (!self.may(now)).then(|| now + (self.full_at + self.interval - (now + self.burst)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_may_be_said_at_once_and_then_one_for_each_interval() {
        let start = Instant::now();
        let mut pace = Pace::new(10, 5, start);
        let mut said = |now| {
            let mut count = 0;
            while pace.may(now) {
                pace.note(1, now);
                count += 1;
            }
            assert_eq!(pace.next(now), Some(now + Duration::from_millis(200)));
            count
        };

        assert_eq!(said(start), 10);
        assert_eq!(said(start + Duration::from_millis(200)), 1);
        assert_eq!(said(start + Duration::from_millis(1_200)), 5);
        assert_eq!(said(start + Duration::from_secs(3_600)), 10);
        assert_eq!(Pace::new(1, 1, start).next(start), None);

        let mut pace = Pace::new(10, 5, start);
        pace.note(20, start);
        assert_eq!(pace.next(start), Some(start + Duration::from_millis(2_200)));
    }
}
