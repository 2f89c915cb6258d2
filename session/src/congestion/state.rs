//! What the controller remembers from one round to the next.

use std::time::{Duration, Instant};

/// A cut made for loss, until it shows whether it helped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    pub(super) window_before: u64,
    pub(super) share: f64,
    pub(super) rounds: u32,
}

/// The RTT is above the target, and the window shrinks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Risen {
    pub(super) since: Instant,
    pub(super) rounds: u32,
    /// The window and the rate in the second of these rounds: the first one saw the change itself.
    pub(super) window: u64,
    pub(super) rate: f64,
    pub(super) rtt_least: Duration,
}

/// The window is lowered to see the base RTT.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    pub(super) window_before: u64,
    pub(super) rounds: u32,
}

/// The verdict of a finished round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finding {
    pub(super) rate: f64,
    pub(super) rtt: Duration,
    pub(super) queue: Duration,
    pub(super) share: f64,
    pub(super) lossy: bool,
    pub(super) limited: bool,
    pub(super) marked: bool,
}
