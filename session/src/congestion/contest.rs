//! Whether others fill a line that the session shares with them; see the model.

use std::time::{Duration, Instant};

use super::state::Finding;
use super::{ROUNDS_TO_SHOW, RateDelay};

/// How long a contest lasts from its beginning, and from each mark.
const LASTS: Duration = Duration::from_secs(10);
/// A queue that has been short for so long is nobody's.
const SHORT: Duration = Duration::from_secs(2);

/// A queue of others' stands somewhere on the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contest {
    until: Instant,
    short_since: Option<Instant>,
}

impl Contest {
    fn new(now: Instant) -> Self {
        Self { until: now + LASTS, short_since: None }
    }

    /// Takes a round, whether it was marked, and whether its queue was short. Whether the contest goes on.
    fn handle_round(&mut self, marked: bool, short: bool, now: Instant) -> bool {
        if marked {
            self.until = now + LASTS;
        }
        self.short_since = short.then(|| self.short_since.unwrap_or(now));
        let short = self.short_since.map(|since| now.saturating_duration_since(since));
        now < self.until && short < Some(SHORT)
    }
}

impl RateDelay {
    /// Whether a contest goes on; in one nothing is looked for.
    pub(super) fn judge_contest(&mut self, finding: Finding, now: Instant) -> bool {
        self.unmarked = if finding.marked { 0 } else { self.unmarked.saturating_add(1) };
        let short = !self.is_queued();
        self.contest.take_if(|contest| !contest.handle_round(finding.marked, short, now));
        self.drain_due &= self.contest.is_none();
        self.contest.is_some()
    }

    /// A delay that stays is none of ours; if no relay has marked either, others may fill the line.
    pub(super) fn suspect_others(&mut self, now: Instant) {
        if self.unmarked >= ROUNDS_TO_SHOW {
            self.contest = Some(Contest::new(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contest_ends_without_marks_or_without_a_queue() {
        let start = Instant::now();
        let rounds = |marked_until: u64, short_from: u64| {
            let mut contest = Contest::new(start);
            let goes_on = |second: &u64| {
                let now = start + Duration::from_secs(*second);
                contest.handle_round(*second <= marked_until, *second >= short_from, now)
            };
            (1..).take_while(goes_on).count()
        };
        assert_eq!(rounds(0, 1_000), 9);
        assert_eq!(rounds(25, 1_000), 34);
        assert_eq!(rounds(25, 20), 21);
        assert_eq!(rounds(0, 1), 2);
    }

    #[test]
    fn a_queue_that_is_short_now_and_then_ends_no_contest() {
        let start = Instant::now();
        let mut contest = Contest::new(start);
        for round in 1..100 {
            let now = start + Duration::from_millis(100 * round);
            assert!(contest.handle_round(false, round % 20 != 0, now), "round {round}");
        }
    }
}
