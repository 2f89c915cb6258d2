//! Others stand in the line's queue: how much of the line is held against them.

use std::time::{Duration, Instant};

/// How long a contest lasts at most unless it is found again: the period of cubic's saw tooth at some hundred Mbit/s is
/// seven to ten seconds.
const CONTEST_MAX: Duration = Duration::from_secs(25);
/// How often it is tried whether the queue is our own after all.
const TRIAL_EVERY: Duration = Duration::from_secs(10);
/// So long the queue was empty: the others have gone.
const CALM: Duration = Duration::from_secs(2);

/// A queue of others that was found within this time after one of our own was there all along.
const DOUBTFUL: Duration = Duration::from_secs(5);

/// A queue stood that did not go when the window shrank.
#[derive(Clone, Debug)]
pub(super) struct Contest {
    /// The base RTT before it.
    base: Duration,
    end: Instant,
    /// When it is next tried whose queue it is.
    trial: Instant,
    calm_since: Option<Instant>,
    /// Bytes per second that arrived before the trial.
    rate_before: u64,
}

/// What a round says of a contest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It goes on.
    On,
    /// It is over.
    Over,
    /// It never was one: the queue went with our own window.
    Ours(LineRate),
}

/// What the line carries, as seen when its queue was our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineRate {
    pub(super) bytes_per_s: u64,
    found: Instant,
}

impl LineRate {
    /// Whether it was found so short a time ago that others may just have made room.
    pub(super) fn is_doubtful(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.found) < DOUBTFUL
    }
}

impl Contest {
    pub(super) fn new(base: Duration, now: Instant) -> Self {
        Self {
            base,
            end: now + CONTEST_MAX,
            trial: now + TRIAL_EVERY,
            calm_since: None,
            rate_before: 0,
        }
    }

    /// The base RTT before it.
    pub(super) fn base(&self) -> Duration {
        self.base
    }

    /// Found again.
    pub(super) fn renew(&mut self, now: Instant) {
        self.end = now + CONTEST_MAX;
    }

    /// Whether it is time to try whose queue it is. Bytes arrived at this rate until now.
    pub(super) fn begin_trial(&mut self, rate: u64, now: Instant) -> bool {
        let due = now >= self.trial;
        if due {
            self.trial = now + TRIAL_EVERY;
            self.rate_before = rate;
        }
        due
    }

    /// Judges a round by its least RTT. `tried` says that the window had been lowered to empty our own queue;
    /// `waves`, that the RTT rose and fell of late as no path does.
    pub(super) fn judge(
        &mut self,
        (rtt, target): (Duration, Duration),
        tried: bool,
        waves: bool,
        now: Instant,
    ) -> Outcome {
        let empty = rtt <= self.base + target;
        match (empty, tried) {
            (true, true) => {
                return Outcome::Ours(LineRate { bytes_per_s: self.rate_before, found: now });
            }
            (true, false) => {
                let since = *self.calm_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= CALM {
                    return Outcome::Over;
                }
            }
            (false, true) if waves => self.renew(now),
            (false, _) => {}
        }
        if !empty {
            self.calm_since = None;
        }
        if now >= self.end { Outcome::Over } else { Outcome::On }
    }
}
