//! How the window grows: startup, and the search for room after it.

use super::state::Finding;
use super::{
    CAUTIOUS_BYTES, ROUNDS_TO_SHOW, RateDelay, STEP_BYTES_MAX, STEP_LEAST, STEP_MOST, STEP_PACKETS,
    STEP_STARTUP,
};

impl RateDelay {
    /// There is no more queue than the target: grow if there is use for it.
    pub(super) fn judge_room(&mut self, finding: Finding, grew: bool) {
        if !finding.limited || finding.lossy {
            return;
        }
        let (startup, contested) = (self.step >= STEP_STARTUP, self.contest.is_some());
        let queued = self.is_queued();
        self.stuck += u32::from(queued && !contested);
        self.drain_due |= self.stuck >= self.doubt;
        if startup && !grew && queued && !self.doubted() {
            // One round may be as unlucky as this.
        } else if startup && !grew && (queued || self.plateau.1 >= ROUNDS_TO_SHOW) {
            self.leave_startup();
            self.shrink_to(self.fill());
        } else if startup {
            let step = self.window as f64 * self.startup_step();
            self.set_window(self.window as f64 + step.min(STEP_BYTES_MAX as f64));
        } else if queued && !contested {
            self.step = (self.step / 2.0).max(STEP_LEAST);
        } else {
            let step = if queued { 0.0 } else { self.step };
            let grown = self.window as f64 * (1.0 + step) + (STEP_PACKETS * self.mtu) as f64;
            self.set_window(grown.min(self.room()).max(self.window as f64));
            self.step = if queued { STEP_LEAST } else { (self.step * 2.0).min(STEP_MOST) };
        }
    }

    /// What growth outside of startup stops at: two fills, or one and what a relay's queue has room for.
    fn room(&self) -> f64 {
        let fill = self.fill();
        fill + fill.min(STEP_BYTES_MAX as f64)
    }

    /// Whether startup has lasted, or lasts, two rounds since the rate last grew.
    pub(super) fn doubted(&self) -> bool {
        self.step < STEP_STARTUP || self.plateau.1 >= 2
    }

    /// Whether the rate has just grown by a quarter in startup: whatever delays packets then, it is no queue.
    pub(super) fn judge_startup(&mut self, finding: Finding) -> bool {
        let (greatest, rounds) = self.plateau;
        if self.step < STEP_STARTUP || !finding.limited {
            return false;
        }
        let share = if finding.queue > self.target() { 0.5 } else { 0.25 };
        let grew = finding.rate >= greatest * (1.0 + self.startup_step() * share);
        if grew {
            self.plateau = (finding.rate, 0);
        } else {
            self.plateau = (greatest, rounds + 1);
        }
        grew
    }

    pub(super) fn startup_step(&self) -> f64 {
        if self.window < CAUTIOUS_BYTES { STEP_STARTUP } else { STEP_MOST }
    }

    pub(super) fn leave_startup(&mut self) {
        self.plateau = (0.0, 0);
        self.step = STEP_LEAST;
    }
}
