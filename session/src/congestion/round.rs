//! What the controller gathers: a round of acknowledgements, and the greatest rate of the last seconds.

use std::time::{Duration, Instant};

/// Rounds are at least this long, so that on a path of microseconds noise does not pass for a rate.
const ROUND_MIN: Duration = Duration::from_millis(5);
/// Half of what the greatest rate is taken over.
const PEAK_PERIOD: Duration = Duration::from_secs(5);

/// What is gathered in a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) start: Instant,
    pub(super) over: bool,
    pub(super) acked: u64,
    pub(super) acked_idle: u64,
    pub(super) lost: u64,
    pub(super) marked: bool,
    pub(super) in_flight_peak: u64,
    pub(super) batch: u64,
    rtt_sum: Duration,
    rtt_samples: u32,
    /// The least of its later half.
    rtt_late: Option<Duration>,
}

impl Round {
    /// A round that starts now.
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            over: false,
            acked: 0,
            acked_idle: 0,
            lost: 0,
            marked: false,
            in_flight_peak: 0,
            batch: 0,
            rtt_sum: Duration::ZERO,
            rtt_samples: 0,
            rtt_late: None,
        }
    }

    /// Takes the acknowledgement of one packet; `base` is the base RTT.
    pub(super) fn handle_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        base: Duration,
    ) {
        let rtt = now.saturating_duration_since(sent);
        self.batch += bytes;
        self.acked += bytes;
        if app_limited {
            self.acked_idle += bytes;
        }
        self.rtt_sum += rtt;
        self.rtt_samples += 1;
        let length = now.saturating_duration_since(self.start);
        if length >= base / 2 {
            self.rtt_late = Some(self.rtt_late.map_or(rtt, |least| least.min(rtt)));
        }
        self.over |= sent >= self.start && length >= ROUND_MIN;
    }

    /// Packets that were acknowledged.
    pub(super) fn packets(&self) -> u64 {
        self.rtt_samples.into()
    }

    /// The mean RTT, if a packet was acknowledged.
    pub(super) fn rtt_mean(&self) -> Option<Duration> {
        self.rtt_sum.checked_div(self.rtt_samples)
    }

    /// The least RTT of its later half, if a packet was acknowledged in it.
    pub(super) fn rtt_late(&self) -> Option<Duration> {
        self.rtt_late
    }
}

/// The greatest rate in this period of 5 s and the one before, in bytes per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeakRate {
    period_start: Instant,
    current: f64,
    previous: f64,
}

impl PeakRate {
    pub(super) fn new(now: Instant) -> Self {
        Self { period_start: now, current: 0.0, previous: 0.0 }
    }

    pub(super) fn handle_rate(&mut self, rate: f64, now: Instant) {
        if now.saturating_duration_since(self.period_start) >= PEAK_PERIOD {
            *self = Self { period_start: now, current: rate, previous: self.current };
        }
        self.current = self.current.max(rate);
    }

    pub(super) fn get(&self) -> f64 {
        self.current.max(self.previous)
    }
}
