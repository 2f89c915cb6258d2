//! When heartbeats leave.

use std::time::{Duration, Instant};

/// Heartbeats sent at the old cadence that announce a longer interval, after the one sent at once. Losing all
/// of them takes a burst that would be *down* anyway.
const SLOWDOWN_REPEATS: u32 = 3;

/// The periodic schedule of one link's heartbeats.
#[derive(Debug)]
pub(crate) struct Schedule {
    need: Duration,
    wanted: Option<Duration>,
    announced: Duration,
    cadence: Duration,
    repeats_left: u32,
    next: Instant,
    prompt: Option<Instant>,
}

impl Schedule {
    /// Starts with a heartbeat at once.
    pub(crate) fn new(need: Duration, now: Instant) -> Self {
        Self {
            need,
            wanted: None,
            announced: need,
            cadence: need,
            repeats_left: 0,
            next: now,
            prompt: None,
        }
    }

    /// The interval at which this end wants to hear the neighbour.
    pub(crate) fn need(&self) -> Duration {
        self.need
    }

    /// The interval that heartbeats say we use.
    pub(crate) fn announced(&self) -> Duration {
        self.announced
    }

    /// Sets our own need. Returns the cadence left behind if heartbeats now go faster.
    pub(crate) fn set_need(&mut self, need: Duration, now: Instant) -> Option<Duration> {
        if need < self.need {
            self.hurry(now);
        }
        self.need = need;
        self.retarget(now)
    }

    /// Sets what the neighbour wants, `None` while it is not heard. Returns as [`Self::set_need`].
    pub(crate) fn set_wanted(
        &mut self,
        wanted: Option<Duration>,
        now: Instant,
    ) -> Option<Duration> {
        self.wanted = wanted;
        self.retarget(now)
    }

    /// Sends a heartbeat at once, beside the periodic ones.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.prompt.get_or_insert(now);
    }

    /// When the next heartbeat leaves.
    pub(crate) fn due(&self) -> Instant {
        self.prompt.map_or(self.next, |prompt| prompt.min(self.next))
    }

    /// Whether a heartbeat leaves now; if so, the next one is scheduled.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if now < self.due() {
            return false;
        }
        self.prompt = None;
        if now >= self.next {
            self.advance(now);
        }
        true
    }

    fn advance(&mut self, now: Instant) {
        if self.repeats_left > 0 {
            self.repeats_left -= 1;
            if self.repeats_left == 0 {
                self.cadence = self.announced;
            }
        }
        self.next += self.cadence;
        if self.next <= now {
            self.next = now + self.cadence;
        }
    }

    fn retarget(&mut self, now: Instant) -> Option<Duration> {
        let target = self.wanted.map_or(self.need, |wanted| wanted.min(self.need));
        if target == self.announced {
            return None;
        }
        self.announced = target;
        if target < self.cadence {
            let left = std::mem::replace(&mut self.cadence, target);
            self.repeats_left = 0;
            self.next = now;
            return Some(left);
        }
        self.repeats_left = SLOWDOWN_REPEATS;
        self.hurry(now);
        None
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use super::*;

    const ACTIVE: Duration = Duration::from_millis(30);
    const IDLE: Duration = Duration::from_secs(1);

    fn sent_until(schedule: &mut Schedule, base: Instant, end_ms: u64) -> Vec<u128> {
        let end = base + Duration::from_millis(end_ms);
        let mut sent = Vec::new();
        while schedule.due() < end {
            let now = schedule.due();
            assert!(schedule.take(now));
            sent.push(now.duration_since(base).as_millis());
        }
        sent
    }

    #[test]
    fn heartbeats_are_strictly_periodic_and_the_first_leaves_at_once() {
        let base = Instant::now();
        let mut schedule = Schedule::new(ACTIVE, base);

        assert!(schedule.take(base));
        assert!(schedule.take(base + Duration::from_millis(37)));
        assert_eq!(schedule.due(), base + Duration::from_millis(60));
    }

    #[test]
    fn a_schedule_that_fell_behind_sends_no_burst() {
        let base = Instant::now();
        let mut schedule = Schedule::new(ACTIVE, base);
        let late = base + Duration::from_secs(5);

        assert!(schedule.take(late));
        assert!(!schedule.take(late));
        assert_eq!(schedule.due(), late + ACTIVE);
    }

    #[test]
    fn going_faster_sends_at_once_and_names_the_old_cadence() {
        let base = Instant::now();
        let mut schedule = Schedule::new(IDLE, base);
        assert!(schedule.take(base));
        let asked = base + Duration::from_millis(100);

        assert_eq!(schedule.set_wanted(Some(ACTIVE), asked), Some(IDLE));

        assert_eq!(sent_until(&mut schedule, base, 200), [100, 130, 160, 190]);
        assert_eq!(schedule.announced(), ACTIVE);
    }

    #[test]
    fn going_slower_is_announced_at_once_and_repeated_at_the_old_cadence() {
        let base = Instant::now();
        let mut schedule = Schedule::new(ACTIVE, base);
        assert!(schedule.take(base));

        assert_eq!(schedule.set_need(IDLE, base + Duration::from_millis(10)), None);

        assert_eq!(schedule.announced(), IDLE);
        assert_eq!(sent_until(&mut schedule, base, 2_200), [10, 30, 60, 90, 1_090, 2_090]);
    }

    #[test]
    fn the_smaller_of_need_and_wanted_is_used() {
        let base = Instant::now();
        let mut schedule = Schedule::new(ACTIVE, base);

        assert_eq!(schedule.set_wanted(Some(IDLE), base), None);
        assert_eq!(schedule.announced(), ACTIVE);
        schedule.set_need(IDLE * 2, base);
        assert_eq!(schedule.announced(), IDLE);
        schedule.set_wanted(None, base);
        assert_eq!(schedule.announced(), IDLE * 2);
    }
}
