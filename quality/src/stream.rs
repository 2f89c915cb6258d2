//! What the streams of a session feel, by looking at what the session has sent and what was acknowledged.

use std::time::{Duration, Instant};

use crate::felt::Felt;
use crate::{ON_TIME_MAX, STALL_MIN, micros};

/// In a second in which something was under way one delivery was due.
const SECOND: Duration = Duration::from_secs(1);

/// How far a session has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pieces of streams sent, each time that one is.
    pub sent: u64,
    /// Acknowledgements received.
    pub acknowledged: u64,
    /// The round trip now.
    pub rtt: Duration,
}

/// Measures the streams of one session together: they share its path, and what stands still is felt by all.
#[derive(Debug)]
pub struct StreamMeter {
    felt: Felt,
    last: Progress,
    looked: Instant,
    /// When it was first seen that something was sent and nothing acknowledged since.
    waiting: Option<Instant>,
    is_stalled: bool,
    second: Second,
    stalled: Duration,
}

#[derive(Debug)]
struct Second {
    began: Instant,
    is_active: bool,
    has_stall: bool,
}

impl Second {
    fn new(began: Instant) -> Self {
        Self { began, is_active: false, has_stall: false }
    }
}

impl StreamMeter {
    /// A session at this point.
    pub fn new(progress: Progress, now: Instant) -> Self {
        Self {
            felt: Felt::default(),
            last: progress,
            looked: now,
            waiting: None,
            is_stalled: false,
            second: Second::new(now),
            stalled: Duration::ZERO,
        }
    }

    /// Takes a look; says whether anything is under way, so that the next one is to come soon. Where the last look is
    /// longer ago than `late_after`, this process stood still, and blames nobody else.
    pub fn handle_look(&mut self, progress: Progress, late_after: Duration, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.looked);
        let (last, is_late) = (std::mem::replace(&mut self.last, progress), since > late_after);
        self.looked = now;
        let has_sent = progress.sent != last.sent;
        let is_heard = progress.acknowledged != last.acknowledged;
        if is_heard || is_late {
            (self.waiting, self.is_stalled) = (None, false);
        } else if has_sent && self.waiting.is_none() {
            self.waiting = Some(now);
        }
        let waited = self.waiting.map(|since| now.saturating_duration_since(since));
        if let Some(waited) = waited.filter(|&waited| waited >= STALL_MIN + progress.rtt) {
            self.stalled += if self.is_stalled { since } else { waited };
            self.felt.stalls += u64::from(!self.is_stalled);
            (self.is_stalled, self.second.has_stall) = (true, true);
        }
        let is_active = has_sent || is_heard || self.waiting.is_some();
        self.second.is_active |= is_active;
        if now.saturating_duration_since(self.second.began) >= SECOND {
            self.end_second(progress.rtt, now);
        }
        is_active
    }

    /// What was felt since the last time; `None` if nothing was under way.
    pub fn take(&mut self) -> Option<Felt> {
        if self.felt.due == 0 {
            return None;
        }
        let mut felt = std::mem::take(&mut self.felt);
        felt.reports = 1;
        felt.stall_us.add(micros(std::mem::take(&mut self.stalled)));
        Some(felt)
    }

    fn end_second(&mut self, rtt: Duration, now: Instant) {
        let second = std::mem::replace(&mut self.second, Second::new(now));
        if second.is_active {
            let is_on_time = !second.has_stall && rtt / 2 <= ON_TIME_MAX;
            self.felt.due += 1;
            self.felt.on_time += u64::from(is_on_time);
            self.felt.delay_us.add(micros(rtt / 2));
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_millis(300);

    struct Bed {
        meter: StreamMeter,
        now: Instant,
        progress: Progress,
    }

    impl Bed {
        fn new() -> Self {
            let (now, progress) = (Instant::now(), Progress { rtt: RTT, ..Progress::default() });
            Self { meter: StreamMeter::new(progress, now), now, progress }
        }

        fn look(&mut self, sent: u64, acknowledged: u64, after_ms: u64) -> bool {
            self.now += Duration::from_millis(after_ms);
            self.progress.sent += sent;
            self.progress.acknowledged += acknowledged;
            self.meter.handle_look(self.progress, LATE, self.now)
        }
    }

    #[test]
    fn a_stream_that_moves_is_on_time_each_second() {
        let mut bed = Bed::new();
        (0..50).for_each(|_| assert!(bed.look(3, 1, 100)));

        let felt = bed.meter.take().unwrap();

        assert_eq!((felt.reports, felt.one_way, felt.due, felt.on_time), (1, 0, 5, 5));
        assert_eq!((felt.stalls, felt.stall_us.max()), (0, Some(0)));
        assert!(felt.delay_us.max().unwrap().abs_diff(25_000) <= 25_000 / 64);
        assert_eq!(felt.loss_ppm.count(), 0);
    }

    #[test]
    fn a_stream_that_is_silent_has_nothing_to_say() {
        let mut bed = Bed::new();
        (0..50).for_each(|_| assert!(!bed.look(0, 0, 100)));
        assert_eq!(bed.meter.take(), None);
    }

    #[test]
    fn a_stream_stands_still_until_something_is_acknowledged() {
        let mut bed = Bed::new();
        (0..10).for_each(|_| assert!(bed.look(3, 1, 100)));
        bed.look(1, 0, 100);
        (0..20).for_each(|at| assert!(bed.look(at % 2, 0, 100)));
        (0..19).for_each(|_| assert!(bed.look(3, 1, 100)));

        let felt = bed.meter.take().unwrap();

        assert_eq!(felt.stalls, 1);
        assert!(felt.stall_us.max().unwrap().abs_diff(2_000_000) <= 2_000_000 / 64);
        assert_eq!((felt.due, felt.due - felt.on_time), (5, 3));
    }

    #[test]
    fn a_wait_of_a_round_trip_and_a_recovered_frame_is_no_stall() {
        let mut bed = Bed::new();
        bed.look(1, 0, 100);
        bed.look(1, 0, 100);
        bed.look(1, 0, 100);
        bed.look(0, 1, 100);
        (0..10).for_each(|_| assert!(!bed.look(0, 0, 100)));
        assert_eq!(bed.meter.take().unwrap().stalls, 0);
    }

    #[test]
    fn a_process_that_stood_still_blames_itself() {
        let mut bed = Bed::new();
        bed.look(1, 0, 100);
        bed.look(0, 0, 5_000);
        (0..10).for_each(|_| _ = bed.look(0, 0, 100));
        assert_eq!(bed.meter.take().unwrap().stalls, 0);
    }

    #[test]
    fn a_stall_that_lasts_is_told_in_each_report_and_counted_once() {
        let mut bed = Bed::new();
        bed.look(1, 0, 100);
        (0..30).for_each(|_| _ = bed.look(0, 0, 100));
        let first = bed.meter.take().unwrap();
        (0..30).for_each(|_| _ = bed.look(0, 0, 100));
        let second = bed.meter.take().unwrap();

        assert_eq!((first.stalls, second.stalls), (1, 0));
        assert!(second.stall_us.max().unwrap().abs_diff(3_000_000) <= 3_000_000 / 64);
    }
}
