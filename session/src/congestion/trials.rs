//! What is tried with a lower window: whether loss goes, and whether delay does.

use std::time::Duration;

use super::state::{Drain, Finding, Trial};
use super::{DOUBT_LEAST, DOUBT_MOST, DRAIN, ROUNDS_TO_SHOW, RateDelay};

impl RateDelay {
    /// Whether a trial is under way. At its end the cut is kept or undone.
    pub(super) fn judge_trial(&mut self, finding: Finding) -> bool {
        let Some(trial) = &mut self.trial else { return false };
        trial.rounds += 1;
        if trial.rounds < ROUNDS_TO_SHOW {
            return true;
        }
        let Trial { window_before, share, .. } = *trial;
        self.trial = None;
        self.lossy_rounds = 0;
        if finding.share >= share * 0.75 {
            self.path_loss = finding.share;
            self.set_window(window_before as f64);
        }
        true
    }

    pub(super) fn try_cut(&mut self, finding: Finding) {
        let window_before = self.window;
        self.trial = Some(Trial { window_before, share: finding.share, rounds: 0 });
        self.leave_startup();
        self.shrink_to(finding.rate * finding.rtt.as_secs_f64() * 0.95);
    }

    /// Whether a drain is under way. At its end the window is what it was, or the fill if that is less now.
    pub(super) fn judge_drain(&mut self) -> bool {
        let Some(Drain { window_before, rounds }) = self.drain else { return false };
        let rounds = rounds + 1;
        if std::mem::take(&mut self.drain_due) {
            // The base fell, who knows how far: a half.
            self.drain_to(window_before, self.path.base() * 2 / 3);
            return true;
        }
        if rounds < ROUNDS_TO_SHOW {
            self.drain = Some(Drain { window_before, rounds });
            return true;
        }
        let window = window_before as f64;
        self.drain = None;
        let fallen = self.path.handle_drained();
        self.doubt = if fallen { DOUBT_LEAST } else { (self.doubt * 2).min(DOUBT_MOST) };
        self.stuck = 0;
        self.set_window(window.min(self.fill()));
        true
    }

    /// Lowers the window to what the rate fills in a part of this base, and in what waits for order, for three rounds.
    pub(super) fn drain_to(&mut self, window_before: u64, base: Duration) {
        self.drain = Some(Drain { window_before, rounds: 0 });
        let span = (base + self.path.spread()).mul_f64(DRAIN) + self.path.held();
        self.set_window((self.rate() * span.as_secs_f64()).min(self.window as f64));
    }
}
