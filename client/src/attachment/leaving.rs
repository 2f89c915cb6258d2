//! When to leave a relay that drains, so that nothing is lost on the way.
//!
//! Once another attachment is the first, far ends are told; what they sent before that still comes here. So the edge
//! stays until nothing has come or gone for a while, and everything that it sent was acknowledged. A flow that goes
//! twice over both attachments is never quiet, and loses nothing by a copy that is lost: hence the longest time.

use std::time::{Duration, Instant};

/// Far ends have heard by then where the edge is now: some round trips around the world.
const STAY_MIN: Duration = Duration::from_secs(1);
/// No frame for so long: what was on its way has come.
const QUIET: Duration = Duration::from_millis(500);
/// Longer than any frame is on its way.
const STAY_MAX: Duration = Duration::from_secs(10);

/// An attachment that is to end.
#[derive(Debug)]
pub(super) struct Leaving {
    /// What the relay leaves of [`STAY_MAX`].
    stay_max: Duration,
    /// Since another attachment is the first.
    elsewhere: Option<Instant>,
}

impl Leaving {
    /// The relay waits for so long, `u32::MAX` for as long as it takes.
    pub(super) fn new(within_ms: u32) -> Self {
        // Not to the last moment: the relay is told, too.
        let within = Duration::from_millis(within_ms.into()) * 3 / 4;
        Self { stay_max: within.min(STAY_MAX), elsewhere: None }
    }

    /// Whether it may end now. `carried`: when the last frame came or went; `is_empty`: nothing waits to be sent or
    /// acknowledged.
    pub(super) fn is_done(
        &mut self,
        elsewhere: bool,
        carried: Instant,
        is_empty: bool,
        now: Instant,
    ) -> bool {
        if !elsewhere {
            self.elsewhere = None;
            return false;
        }
        let stayed = now.saturating_duration_since(*self.elsewhere.get_or_insert(now));
        let is_quiet = is_empty && now.saturating_duration_since(carried) >= QUIET;
        stayed >= self.stay_max || (stayed >= STAY_MIN && is_quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_stays_while_frames_come_and_no_longer_than_the_relay_waits() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut leaving = Leaving::new(u32::MAX);
        assert!(!leaving.is_done(false, start, true, at(60_000)), "there is no other relay");
        assert!(!leaving.is_done(true, at(60_000), true, at(60_000)));
        assert!(!leaving.is_done(true, at(60_800), true, at(61_000)), "a frame came");
        assert!(!leaving.is_done(true, at(60_800), false, at(61_400)), "one was not acknowledged");
        assert!(leaving.is_done(true, at(60_800), true, at(61_400)));
        assert!(leaving.is_done(true, at(69_999), false, at(70_000)));

        let mut hurried = Leaving::new(2_000);
        assert!(!hurried.is_done(true, at(0), false, at(0)));
        assert!(!hurried.is_done(true, at(1_400), false, at(1_400)));
        assert!(hurried.is_done(true, at(1_500), false, at(1_500)));
    }
}
