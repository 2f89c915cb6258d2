//! Whether this process itself was late.

use std::time::{Duration, Instant};

/// Notices that the process woke late: it was stopped, stolen from, or swapped out.
///
/// The owner asks it at each timer tick, before any silence is judged. What it returns goes to
/// [`crate::LinkProbe::handle_stall`] of every link.
#[derive(Clone, Debug)]
pub struct StallDetector {
    threshold: Duration,
    stalls: u64,
    longest: Duration,
}

impl StallDetector {
    /// Makes a detector for a process whose fastest heartbeats are `interval` apart. Half of that late is a stall:
    /// less, the silence limits bear; more, and a live neighbour would become suspect for our own fault.
    pub fn new(interval: Duration) -> Self {
        Self { threshold: interval / 2, stalls: 0, longest: Duration::ZERO }
    }

    /// Compares when a tick was due with when it came; returns by how much it was late if that is a stall.
    pub fn handle_tick(&mut self, due: Instant, now: Instant) -> Option<Duration> {
        let late_by = now.saturating_duration_since(due);
        if late_by <= self.threshold {
            return None;
        }
        self.stalls += 1;
        self.longest = self.longest.max(late_by);
        Some(late_by)
    }

    /// Stalls so far, for `self_stalls` in reports.
    pub fn stalls(&self) -> u64 {
        self.stalls
    }

    /// The longest of them.
    pub fn longest(&self) -> Duration {
        self.longest
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_a_heartbeat_late_is_a_stall() {
        let due = Instant::now();
        let mut detector = StallDetector::new(Duration::from_millis(30));

        assert_eq!(detector.handle_tick(due + Duration::from_millis(5), due), None);
        assert_eq!(detector.handle_tick(due, due + Duration::from_millis(15)), None);
        let late_by = Duration::from_millis(16);
        assert_eq!(detector.handle_tick(due, due + late_by), Some(late_by));
        assert_eq!((detector.stalls(), detector.longest()), (1, late_by));
    }
}
