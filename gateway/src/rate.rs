//! How many newcomers a listener takes in a second.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// A limit of newcomers: that many in a second, all of them at once if need be. Kept as the time at which the
/// bucket is full again (the virtual scheduling of ITU-T I.371, also known as GCRA).
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    /// Between two; `None`: no limit.
    interval: Option<Duration>,
    full_at: Option<Instant>,
}

impl Rate {
    pub(crate) fn new(per_second: Option<NonZeroU32>) -> Self {
        Self { interval: per_second.map(|count| SECOND / count.get()), full_at: None }
    }

    /// Whether one more may come now; it counts if so.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        let Some(interval) = self.interval else { return true };
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + interval;
        let admitted = full_at.duration_since(now) <= SECOND;
        if admitted {
            self.full_at = Some(full_at);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_seconds_worth_is_admitted_and_then_one_for_each_interval() {
        let (mut rate, start) = (Rate::new(NonZeroU32::new(4)), Instant::now());

        assert_eq!((0..10).filter(|_| rate.admits(start)).count(), 4);
        let later = start + Duration::from_millis(250);
        assert_eq!((0..10).filter(|_| rate.admits(later)).count(), 1);
        let much_later = start + Duration::from_secs(60);
        assert_eq!((0..10).filter(|_| rate.admits(much_later)).count(), 4);
    }

    #[test]
    fn no_limit_admits_all() {
        let mut rate = Rate::new(None);
        assert!((0..10_000).all(|_| rate.admits(Instant::now())));
    }
}
