//! What a finished round does to the window.

use std::time::{Duration, Instant};

use super::base::BASE_WINDOW;
use super::contest::{Contest, Outcome};
use super::round::{LOSS_SHARE, Round};
use super::{DRAIN_AFTER, HopController, Suspicion, scale, target};

impl HopController {
    /// Changes the window by what a round has shown.
    pub(super) fn judge(&mut self, round: &Round, now: Instant) {
        let (Some(base), Some(rtt)) = (self.base.value(), round.rtt) else { return };
        let queue = rtt.saturating_sub(base);
        let target = target(base);
        let rate = round.rate(now);
        self.peak.handle_rate(now, rate);
        if let Some(line) = &mut self.line_rate {
            line.bytes_per_s = line.bytes_per_s.max(rate);
        }
        let is_used = round.in_flight_max >= self.window / 4 * 3;
        if is_used {
            self.last_used = now;
        }
        if self.draining.is_none() {
            self.judge_contest(rtt, false, now);
        }
        let held = self.held(rtt);

        if round.is_lossy(self.packet_bytes) {
            self.reduce(70, now);
        } else if round.marked {
            self.reduce(85, now);
        } else if self.settling {
            self.settling = false;
        } else if self.regaining && self.window < self.floor() && queue <= target {
            self.window = (self.window / 2 * 3).min(self.floor());
        } else if self.end_drain() {
            self.judge_contest(rtt, true, now);
            self.base.confirm(now);
            self.settling = true;
        } else if !is_used {
            self.rest(round, now);
        } else if self.contest.as_mut().is_some_and(|contest| contest.begin_trial(rate, now)) {
            self.drain(rtt);
        } else if self.window < held {
            if queue > target {
                // The line has carried twice as much.
                self.contend(base, now);
            }
            self.window = (self.window / 2 * 3).min(held);
            self.settling = true;
        } else if queue > target {
            self.shrink(base, rtt, now);
        } else if self.base.unconfirmed(now) >= DRAIN_AFTER {
            self.drain(rtt);
        } else if self.contest.is_some() && self.base.spread_since() > 2 * target {
            self.window = held;
            self.settling = true;
        } else {
            self.grow(base, rtt, round);
        }
        self.window = self.window.clamp(self.least(), self.cap());
    }

    /// Lowers the window a little below what empties our own queue, for two rounds.
    fn drain(&mut self, rtt: Duration) {
        let base = self.base.value().unwrap_or(rtt);
        let base = self.contest.as_ref().map_or(base, Contest::base);
        self.draining = Some(self.window);
        self.window = scale(self.window, base, rtt) / 4 * 3;
        self.settling = true;
    }

    /// Others' queue was found: a contest begins, or goes on.
    fn contend(&mut self, base: Duration, now: Instant) {
        self.contest.get_or_insert_with(|| Contest::new(base, now)).renew(now);
        // So soon again? Then it was not our own queue a moment ago.
        self.line_rate.take_if(|line| line.is_doubtful(now));
    }

    fn judge_contest(&mut self, rtt: Duration, tried: bool, now: Instant) {
        let Some(contest) = &mut self.contest else { return };
        let target = target(contest.base());
        let waves = self.base.spread() > 2 * target;
        match contest.judge((rtt, target), tried, waves, now) {
            Outcome::On => {}
            Outcome::Over => self.contest = None,
            Outcome::Ours(line_rate) => {
                self.contest = None;
                self.line_rate = Some(line_rate);
            }
        }
    }

    /// The window that no delay takes: what carries, at this RTT, three fifths of the line in a contest, and half of the
    /// greatest rate of late outside one.
    fn held(&self, rtt: Duration) -> u64 {
        let capacity = self.capacity.0 / 8;
        let rate = if self.contest.is_some() {
            self.line_rate.map_or(capacity, |line| line.bytes_per_s.min(capacity)) / 5 * 3
        } else {
            self.peak.value().min(capacity) / 2
        };
        scale(rate, rtt, Duration::from_secs(1)).min(self.cap())
    }

    /// Answers loss or a mark, whose packets were sent with the window as it was.
    fn reduce(&mut self, percent: u64, now: Instant) {
        self.end_drain();
        self.window = self.window / 100 * percent;
        self.regaining = true;
        self.settling = true;
        self.reduced = Some(now);
    }

    fn grow(&mut self, base: Duration, rtt: Duration, round: &Round) {
        self.suspicion = None;
        let (queue, target) = (rtt.saturating_sub(base), target(base));
        let step = if queue < target / 4 {
            self.window / 4
        } else {
            // Half of what is missing: the whole would overshoot by what others add meanwhile.
            scale(self.window, target - queue, rtt) / 2
        };
        let step = step.min(self.window / 4);
        // The nearer the losses of the round to what counts as congestion, the smaller.
        let tolerated = (round.acked_bytes + round.lost_bytes) / LOSS_SHARE;
        let spared = tolerated.saturating_sub(round.lost_bytes);
        let step = u128::from(step) * u128::from(spared) / u128::from(tolerated.max(1));
        self.window += u64::try_from(step).expect("it did not grow");
        self.settling = true;
    }

    fn shrink(&mut self, base: Duration, rtt: Duration, now: Instant) {
        self.regaining = false;
        let queue = rtt.saturating_sub(base);
        let suspicion = match self.suspicion {
            None => Suspicion { window: self.window, queue },
            Some(known) => Suspicion { queue: known.queue.max(queue), ..known },
        };
        // A window of four fifths of the line's content cannot make a queue.
        let harmless = scale(suspicion.window, base, base + suspicion.queue) / 5 * 4;
        // Nor can one that is held, of which the line has carried twice as much, or the least.
        let held = self.held(rtt);
        let harmless = harmless.max(held).max(self.least());
        if self.window <= harmless && queue >= suspicion.queue / 4 * 3 {
            self.window = if self.contest.is_some() { held } else { suspicion.window };
            self.contend(base, now);
            self.base.rebase(now, rtt);
            self.regaining = true;
            self.suspicion = None;
        } else {
            self.suspicion = Some(suspicion);
            let least = held.max(self.window / 2);
            self.window = scale(self.window, base + target(base), rtt).max(least).min(self.window);
        }
        self.settling = true;
    }

    /// A window that has long not been filled says nothing about the line any more.
    fn rest(&mut self, round: &Round, now: Instant) {
        if now.saturating_duration_since(self.last_used) >= BASE_WINDOW {
            self.window = self.window.min(2 * round.in_flight_max).max(self.floor());
            self.suspicion = None;
        }
    }

    /// Gives back what a drain took; false if there was none.
    pub(super) fn end_drain(&mut self) -> bool {
        let before = self.draining.take();
        self.window = before.unwrap_or(self.window);
        before.is_some()
    }
}
