//! How often joining may be tried. A secret cannot be guessed; the limit keeps strangers from keeping
//! the disk and the CA's key busy.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Attempts at once: a whole mesh of this size may be rolled out in one go.
const BURST: u32 = 100;
/// One more attempt is allowed each time that this has passed.
const REFILL: Duration = Duration::from_millis(50);

/// A token bucket (not of join tokens) for all callers together.
#[derive(Debug)]
pub(crate) struct Limiter {
    /// When the bucket, filling since, will be full. In the past: it is.
    full_at: Mutex<Instant>,
}

impl Limiter {
    /// Makes a full bucket.
    pub(crate) fn new(now: Instant) -> Self {
        Self { full_at: Mutex::new(now) }
    }

    /// Takes one attempt, or says that there is none.
    pub(crate) fn admit(&self, now: Instant) -> bool {
        // A panic elsewhere cannot leave half an instant behind.
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let after = (*full_at).max(now) + REFILL;
        let admitted = after.duration_since(now) <= REFILL * BURST;
        if admitted {
            *full_at = after;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_per_interval() {
        let now = Instant::now();
        let limiter = Limiter::new(now);

        let admitted = (0..2 * BURST).filter(|_| limiter.admit(now)).count();

        assert_eq!(admitted, BURST as usize);
        assert!(limiter.admit(now + REFILL));
        assert!(!limiter.admit(now + REFILL));
    }
}
