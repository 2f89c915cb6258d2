//! What the shell counts, beside the core's own [`Stats`](overway_scheduler_core::Stats).

use std::sync::atomic::{AtomicU64, Ordering};

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
