//! What the shell counts, beside the core's own [`Stats`](overway_scheduler_core::Stats).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters that any task may raise.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Handshakes answered with a Retry, because many were open.
    pub(crate) handshakes_retried: Counter,
    /// Handshakes refused, because too many were open.
    pub(crate) handshakes_refused: Counter,
    /// Handshakes that failed or took too long.
    pub(crate) handshakes_failed: Counter,
    /// Connections refused after their handshake, because too many of their purpose were open.
    pub(crate) connections_refused: Counter,
    /// Control connections ended because the relay's certificate had expired.
    pub(crate) certificates_expired: Counter,
    /// Control connections of relays that did not take what was sent in time.
    pub(crate) slow_relays: Counter,
    /// Control connections closed because they broke the protocol.
    pub(crate) protocol_errors: Counter,
    /// Attempts to join.
    pub(crate) join_attempts: Counter,
    /// Of these, those that led to a certificate.
    pub(crate) joins: Counter,
    /// Of these, those turned away unread because there were too many.
    pub(crate) joins_limited: Counter,
    /// Certificates renewed for relays.
    pub(crate) renewals: Counter,
    /// Renewals refused.
    pub(crate) renewals_refused: Counter,
    /// How long plans took, with the pushing of what they changed.
    pub(crate) plan_times: Times,
}

/// A number that only goes up.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub(crate) fn raise(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bounds of [`Times`]' buckets. A mesh of a hundred relays plans in the first ones; an epoch is a second.
pub(crate) const TIMES_US: [u64; 11] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000];

/// How often something took how long.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// By the first bound that it did not exceed; the last is for what exceeded all.
    counts: [AtomicU64; TIMES_US.len() + 1],
    sum_us: AtomicU64,
}

impl Times {
    /// Counts one.
    pub(crate) fn add(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = TIMES_US.partition_point(|&bound| bound < us);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many did not exceed each bound, how many there were, and their sum in microseconds.
    pub(crate) fn read(&self) -> ([u64; TIMES_US.len()], u64, u64) {
        let mut within = [0; TIMES_US.len()];
        let mut count = 0;
        for (at, counter) in self.counts.iter().enumerate() {
            count += counter.load(Ordering::Relaxed);
            if let Some(within) = within.get_mut(at) {
                *within = count;
            }
        }
        (within, count, self.sum_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_up_to_each_bound() {
        let times = Times::default();
        for ms in [1, 3, 3, 5_000] {
            times.add(Duration::from_millis(ms));
        }

        let (within, count, sum_us) = times.read();

        assert_eq!(&within[..5], [0, 1, 1, 3, 3]);
        assert_eq!((within[10], count, sum_us), (3, 4, 5_007_000));
    }
}
