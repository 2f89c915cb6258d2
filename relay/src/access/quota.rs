//! What a tenant's edges may send: a token bucket for each class, shared by all its attachments at this relay.

use std::time::{Duration, Instant};

use overway_tenant::Quota;
use overway_wire::Class;

/// What may be saved up: a quarter of a second at the full rate,
const BURST: Duration = Duration::from_millis(250);
/// and at least this much, some fifty frames, so that a slow rate can still send an answer at once.
const BURST_BYTES_MIN: u64 = 64 << 10;

/// A tenant's buckets. A frame takes its bytes from its class's, or does not go.
#[derive(Debug)]
pub(crate) struct Buckets {
    quota: Quota,
    buckets: [Option<Bucket>; Class::ALL.len()],
}

/// Fills at a rate up to a burst.
#[derive(Debug)]
struct Bucket {
    bytes_per_second: u64,
    burst: u64,
    level: u64,
    filled: Instant,
}

impl Buckets {
    pub(crate) fn new(quota: Quota, now: Instant) -> Self {
        let bucket = |class| quota.bps_in(class).map(|bps| Bucket::new(bps / 8, now));
        Self { quota, buckets: Class::ALL.map(bucket) }
    }

    /// Takes a quota that may have changed; buckets of one that has start full.
    pub(crate) fn follow(&mut self, quota: Quota, now: Instant) {
        if quota != self.quota {
            *self = Self::new(quota, now);
        }
    }

    /// Whether a frame of so many bytes may go.
    pub(crate) fn take(&mut self, class: Class, bytes: usize, now: Instant) -> bool {
        self.buckets[usize::from(class.code())]
            .as_mut()
            .is_none_or(|bucket| bucket.take(bytes as u64, now))
    }
}

impl Bucket {
    fn new(bytes_per_second: u64, now: Instant) -> Self {
        let saved = u128::from(bytes_per_second) * BURST.as_millis() / 1_000;
        let burst = u64::try_from(saved).unwrap_or(u64::MAX).max(BURST_BYTES_MIN);
        Self { bytes_per_second, burst, level: burst, filled: now }
    }

    fn take(&mut self, bytes: u64, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled);
        let grown = elapsed.as_nanos() * u128::from(self.bytes_per_second) / 1_000_000_000;
        // Less than a byte is not lost: it waits for more.
        if grown > 0 {
            let grown = u64::try_from(grown).unwrap_or(u64::MAX);
            self.level = self.level.saturating_add(grown).min(self.burst);
            self.filled = now;
        }
        let enough = self.level >= bytes;
        if enough {
            self.level -= bytes;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_sends_at_its_rate_beyond_its_burst_and_others_are_free() {
        let start = Instant::now();
        let quota = Quota { bps: [None, Some(8_000_000), Some(0)], ..Quota::default() };
        let mut buckets = Buckets::new(quota, start);
        // Five frames each millisecond, for a second.
        let mut sent = |class| -> usize {
            let tries = (0..1_000).map(|ms| start + Duration::from_millis(ms));
            tries.map(|now| (0..5).filter(|_| buckets.take(class, 1_000, now)).count()).sum()
        };

        assert_eq!(sent(Class::Realtime), 5_000);
        // One a millisecond, and 250 that were saved up.
        assert_eq!(sent(Class::Interactive), 1_249);
        // A rate of nothing leaves the least burst.
        assert_eq!(sent(Class::Bulk), 65);
    }

    #[test]
    fn slow_rates_fill_by_and_by_and_a_new_quota_starts_anew() {
        let start = Instant::now();
        let quota = Quota { bps: [Some(80), None, None], ..Quota::default() };
        let mut buckets = Buckets::new(quota, start);
        assert!(buckets.take(Class::Realtime, 64 << 10, start));

        for step in 1..1_000 {
            let now = start + Duration::from_millis(step);
            assert!(!buckets.take(Class::Realtime, 10, now), "{step}");
        }
        assert!(buckets.take(Class::Realtime, 10, start + Duration::from_secs(1)));

        let now = start + Duration::from_secs(1);
        buckets.follow(quota, now);
        assert!(!buckets.take(Class::Realtime, 10, now));
        buckets.follow(Quota::default(), now);
        assert!(buckets.take(Class::Realtime, usize::MAX, now));
    }
}
