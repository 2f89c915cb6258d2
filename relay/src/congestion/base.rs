//! The base RTT: what the way takes without a queue.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a base RTT is believed (as BBR's, draft-ietf-ccwg-bbr). Also how long a window is kept
/// that is not in use.
pub(super) const BASE_WINDOW: Duration = Duration::from_secs(10);
/// The base window moves in steps of this.
const BASE_STEP: Duration = Duration::from_secs(1);
/// A sample this near to base confirms it: the noise of a busy machine.
const BASE_NOISE_MIN: Duration = Duration::from_millis(1);

/// The least RTT of the last [`BASE_WINDOW`].
#[derive(Clone, Debug)]
pub(super) struct BaseRtt {
    /// The least of each step, oldest first; at most two more than fit the window.
    steps: VecDeque<(Instant, Duration)>,
    /// Steps before this do not count.
    since: Instant,
    /// When a sample last came near the base.
    confirmed: Instant,
}

impl BaseRtt {
    pub(super) fn new(now: Instant) -> Self {
        Self { steps: VecDeque::new(), since: now, confirmed: now }
    }

    pub(super) fn value(&self) -> Option<Duration> {
        self.counting().min()
    }

    /// How far apart the least RTTs of the steps that count are.
    pub(super) fn spread_since(&self) -> Duration {
        let (low, high) = (self.counting().min(), self.counting().max());
        high.unwrap_or_default().saturating_sub(low.unwrap_or_default())
    }

    fn counting(&self) -> impl Iterator<Item = Duration> {
        let counting = self.steps.iter().filter(|&&(started, _)| started >= self.since);
        counting.map(|&(_, least)| least)
    }

    /// How far apart the least RTTs of the window's steps are, those that do not count included.
    pub(super) fn spread(&self) -> Duration {
        let least = self.steps.iter().map(|&(_, least)| least);
        let (low, high) = (least.clone().min(), least.max());
        high.unwrap_or_default().saturating_sub(low.unwrap_or_default())
    }

    pub(super) fn handle_sample(&mut self, now: Instant, rtt: Duration) {
        match self.steps.back_mut() {
            Some((started, least))
                if *started >= self.since
                    && now.saturating_duration_since(*started) < BASE_STEP =>
            {
                *least = rtt.min(*least);
            }
            Some(_) | None => self.steps.push_back((now, rtt)),
        }
        let is_old = |started: Instant| now.saturating_duration_since(started) > BASE_WINDOW;
        while self.steps.front().is_some_and(|&(started, _)| is_old(started)) {
            self.steps.pop_front();
        }
        let base = self.value().unwrap_or(rtt);
        if rtt <= base + BASE_NOISE_MIN.max(base / 32) {
            self.confirmed = now;
        }
    }

    /// How long no sample has come near the base.
    pub(super) fn unconfirmed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.confirmed)
    }

    /// Takes the base for confirmed though no sample was.
    pub(super) fn confirm(&mut self, now: Instant) {
        self.confirmed = now;
    }

    /// Lets nothing count that was before, and starts from `rtt`.
    pub(super) fn rebase(&mut self, now: Instant, rtt: Duration) {
        self.since = now;
        self.handle_sample(now, rtt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_base_is_the_least_until_it_is_too_old() {
        let start = Instant::now();
        let mut base = BaseRtt::new(start);
        assert_eq!(base.value(), None);

        base.handle_sample(start, 40 * MS);
        for tenths in 1..=100 {
            base.handle_sample(start + tenths * 100 * MS, 60 * MS);
            assert_eq!(base.value(), Some(40 * MS));
        }
        base.handle_sample(start + 10_001 * MS, 60 * MS);
        assert_eq!(base.value(), Some(60 * MS));
    }

    #[test]
    fn a_sample_near_the_base_confirms_it() {
        let start = Instant::now();
        let mut base = BaseRtt::new(start);
        base.handle_sample(start, 40 * MS);

        base.handle_sample(start + 2_000 * MS, 45 * MS);
        assert_eq!(base.unconfirmed(start + 2_000 * MS), 2_000 * MS);
        base.handle_sample(start + 3_000 * MS, 41 * MS);
        assert_eq!(base.unconfirmed(start + 3_000 * MS), Duration::ZERO);
    }

    #[test]
    fn a_base_measured_anew_forgets_the_lesser_one() {
        let start = Instant::now();
        let mut base = BaseRtt::new(start);
        base.handle_sample(start, 40 * MS);

        base.rebase(start + MS, 80 * MS);

        assert_eq!(base.value(), Some(80 * MS));
    }
}
