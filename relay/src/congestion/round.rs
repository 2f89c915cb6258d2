//! What the acknowledgements of one round show.

use std::time::{Duration, Instant};

/// Losses below this share of a round, one in ten, are not congestion.
pub(super) const LOSS_SHARE: u64 = 10;
/// Nor are fewer than this many packets: a sparse round would call one of five heavy.
const LOSS_PACKETS_MIN: u64 = 8;

/// What a round has shown so far.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) started: Instant,
    /// A packet sent in this round was acknowledged.
    pub(super) seen: bool,
    pub(super) rtt: Option<Duration>,
    pub(super) acked_bytes: u64,
    pub(super) lost_bytes: u64,
    pub(super) in_flight_max: u64,
    pub(super) marked: bool,
}

impl Round {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            seen: false,
            rtt: None,
            acked_bytes: 0,
            lost_bytes: 0,
            in_flight_max: 0,
            marked: false,
        }
    }

    /// Bytes per second that arrived until now.
    pub(super) fn rate(&self, now: Instant) -> u64 {
        let micros = now.saturating_duration_since(self.started).as_micros().max(1);
        let rate = u128::from(self.acked_bytes) * 1_000_000 / micros;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    pub(super) fn is_lossy(&self, packet_bytes: u64) -> bool {
        self.lost_bytes >= LOSS_PACKETS_MIN * packet_bytes
            && self.lost_bytes * LOSS_SHARE >= self.acked_bytes + self.lost_bytes
    }
}

/// Half of the time for which a rate counts: a saw tooth of cubic's at some hundred Mbit/s.
const PEAK_PERIOD: Duration = Duration::from_secs(10);

/// The greatest rate in this period and the one before, in bytes per second: of each two rounds the lesser one's, for a path
/// that gets shorter delivers twice at once for a moment.
#[derive(Clone, Debug)]
pub(super) struct PeakRate {
    started: Instant,
    last: u64,
    now: u64,
    before: u64,
}

impl PeakRate {
    pub(super) fn new(started: Instant) -> Self {
        Self { started, last: 0, now: 0, before: 0 }
    }

    pub(super) fn handle_rate(&mut self, now: Instant, rate: u64) {
        if now.saturating_duration_since(self.started) >= PEAK_PERIOD {
            *self = Self { started: now, last: self.last, now: 0, before: self.now };
        }
        self.now = self.now.max(rate.min(self.last));
        self.last = rate;
    }

    pub(super) fn value(&self) -> u64 {
        self.now.max(self.before)
    }
}
