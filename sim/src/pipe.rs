//! A control connection: two ordered, reliable streams of messages with a delay, of which either end may
//! disappear without the other's knowing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use overway_wire::control::{ToRelay, ToScheduler};
use overway_wire::{BootId, RelayId};

/// A silent end is given up by the other after this long.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(8);
/// A scheduler that has not welcomed the relay by then is left for the next.
pub(crate) const WELCOME_MAX: Duration = Duration::from_secs(5);
/// Pauses between attempts: the first and the longest.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(200);
/// See [`PAUSE_MIN`].
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Tells control connections apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PipeId(pub(crate) u64);

/// Which way a parcel goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToRelay,
    ToScheduler,
}

/// What goes through a pipe.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    /// The handshake is through.
    Ready,
    Up(ToScheduler),
    Down(ToRelay),
    /// The other end closed the connection.
    Close,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) relay: RelayId,
    /// The relay's process.
    pub(crate) boot: BootId,
    /// The scheduler's process.
    pub(crate) term: u64,
    pub(crate) delay: Duration,
    pub(crate) relay_open: bool,
    pub(crate) scheduler_open: bool,
    /// When each end last heard the other.
    pub(crate) relay_heard: Instant,
    pub(crate) scheduler_heard: Instant,
    /// When the last parcel arrives.
    last: [Instant; 2],
    /// Parcels that cannot arrive yet: the way is cut, or the receiver frozen.
    pub(crate) held: [VecDeque<Parcel>; 2],
}

impl Way {
    pub(crate) fn place(self) -> usize {
        match self {
            Self::ToRelay => 0,
            Self::ToScheduler => 1,
        }
    }
}

impl Pipe {
    pub(crate) fn new(
        (relay, boot): (RelayId, BootId),
        term: u64,
        delay: Duration,
        now: Instant,
    ) -> Self {
        Self {
            relay,
            boot,
            term,
            delay,
            relay_open: true,
            scheduler_open: true,
            relay_heard: now,
            scheduler_heard: now,
            last: [now; 2],
            held: Default::default(),
        }
    }

    /// When a parcel sent now arrives: never before one that was sent earlier.
    pub(crate) fn arrival(&mut self, way: Way, now: Instant) -> Instant {
        let last = &mut self.last[way.place()];
        *last = (*last).max(now + self.delay);
        *last
    }

    pub(crate) fn is_over(&self) -> bool {
        !self.relay_open && !self.scheduler_open
    }
}
