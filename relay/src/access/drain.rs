//! Draining the access side: edges attach elsewhere before they leave here, and nobody else comes in.
//!
//! ```text
//!   No --> Leaving: edges are told; newcomers are refused, and told to go elsewhere --> Over: who is left is dismissed
//!    ^----------------------------- taken back at any time -----------------------------|
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overway_relay_core::{Fib, FibDrain};
use overway_wire::RelayId;
use overway_wire::access::messages::Draining;
use tokio::sync::watch;

/// How far the drain of a relay's access side is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    /// Edges come and stay.
    #[default]
    No,
    /// Edges are to attach elsewhere; within this time, if any is set.
    Leaving(Option<Duration>),
    /// Nobody stays.
    Over,
}

impl Drain {
    /// What edges are told of a drain that is not over.
    pub(super) fn told(self) -> Draining {
        let undone = self == Self::No;
        let within_ms = match self {
            Self::No | Self::Over => 0,
            Self::Leaving(None) => u32::MAX,
            // The greatest means something else.
            Self::Leaving(Some(within)) => {
                u32::try_from(within.as_millis()).unwrap_or(u32::MAX).min(u32::MAX - 1)
            }
        };
        Draining { within_ms, undone }
    }

    /// What is pushed of a relay, at this moment.
    fn pushed(drain: Option<&FibDrain>, now: SystemTime) -> Self {
        match drain {
            None => Self::No,
            Some(FibDrain { is_over: true, .. }) => Self::Over,
            Some(FibDrain { is_over: false, deadline_unix }) => {
                let left = |deadline: u64| {
                    let deadline = UNIX_EPOCH.checked_add(Duration::from_secs(deadline));
                    deadline.and_then(|at| at.duration_since(now).ok()).unwrap_or_default()
                };
                Self::Leaving(deadline_unix.map(left))
            }
        }
    }
}

/// Drains the access side. Clones are the same.
#[derive(Clone, Debug)]
pub struct AccessDrain {
    drain: watch::Sender<Drain>,
}

impl AccessDrain {
    pub(super) const fn new(drain: watch::Sender<Drain>) -> Self {
        Self { drain }
    }

    /// Begins, changes or takes back a drain.
    pub fn set(&self, drain: Drain) {
        self.drain.send_replace(drain);
    }

    /// Follows what operators wish of this relay, by its table, until the mesh ends.
    pub async fn follow(self, local: RelayId, mut fib: watch::Receiver<Arc<Fib>>) {
        let mut known = None;
        loop {
            let wished = fib.borrow_and_update().drains.get(&local).copied();
            if wished != known {
                known = wished;
                let drain = Drain::pushed(wished.as_ref(), SystemTime::now());
                tracing::info!(?drain, "drain of the access side");
                self.set(drain);
            }
            if fib.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_told_as_the_time_that_is_left() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let told = |is_over, deadline_unix| {
            Drain::pushed(Some(&FibDrain { is_over, deadline_unix }), now).told()
        };
        let draining = |within_ms| Draining { within_ms, undone: false };

        assert_eq!(Drain::pushed(None, now).told(), Draining { within_ms: 0, undone: true });
        assert_eq!(told(false, None), draining(u32::MAX));
        assert_eq!(told(false, Some(1_060)), draining(60_000));
        assert_eq!(told(false, Some(900)), draining(0));
        assert_eq!(told(false, Some(u64::MAX)), draining(0), "no moment at all");
        assert_eq!(
            Drain::pushed(Some(&FibDrain { is_over: true, ..FibDrain::default() }), now),
            Drain::Over
        );
    }
}
