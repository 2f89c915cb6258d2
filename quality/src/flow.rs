//! What the receiver of a flow of datagrams feels.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::felt::Felt;
use crate::{GAP_GOOD_MAX, LOST_AFTER, ON_TIME_MAX, micros};

/// Runs of missing frames that are waited for; beyond it the oldest is lost at once. A second at 1,000 frames with a
/// quarter of them missing one by one.
const MISSING_MAX: usize = 256;
/// The fastest datagram is that of one to two such windows: a path that has become longer counts as longer for a minute
/// at most, and clocks that drift apart by 50 ppm are off by 3 ms.
const WINDOW: Duration = Duration::from_secs(30);
/// After a pause of so long nothing is compared with what was before: stamps go around in 71 minutes.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Measures one flow at its receiving end. Frames bear sequence numbers, and datagrams the sender's clock in
/// microseconds, wrapping, if both ends know of it.
#[derive(Debug)]
pub struct FlowMeter {
    felt: Felt,
    /// The base of this end's stamps.
    start: Instant,
    /// One more than the greatest sequence number that came.
    next: Option<u64>,
    missing: VecDeque<Missing>,
    base: Option<Base>,
    last: Option<Last>,
    fastest: Least,
    least_rtt: Least,
    has_stamps: bool,
}

/// Frames that have not come.
#[derive(Debug)]
struct Missing {
    first: u64,
    end: u64,
    since: Instant,
}

/// What clock differences are compared with.
#[derive(Clone, Copy, Debug)]
struct Base {
    /// This end's clock less the sender's, wrapping, at the first stamp.
    difference: u32,
    /// When the last stamp came.
    heard: Instant,
}

/// The datagram that came last, of those in order.
#[derive(Clone, Copy, Debug)]
struct Last {
    at: Instant,
    stamp: u32,
    sequence: u64,
}

/// The least of what was seen in one to two windows.
#[derive(Debug, Default)]
struct Least {
    since: Option<Instant>,
    now: Option<i64>,
    before: Option<i64>,
}

impl Least {
    fn see(&mut self, value: i64, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= WINDOW {
            self.before = self.now.take();
            self.since = Some(now);
        }
        self.now = Some(self.now.map_or(value, |least| least.min(value)));
    }

    fn value(&self) -> Option<i64> {
        self.now.into_iter().chain(self.before).min()
    }
}

impl FlowMeter {
    /// A flow that begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            felt: Felt::default(),
            start: now,
            next: None,
            missing: VecDeque::new(),
            base: None,
            last: None,
            fastest: Least::default(),
            least_rtt: Least::default(),
            has_stamps: false,
        }
    }

    /// Takes the round trip between the ends, as their session measures it.
    pub fn handle_rtt(&mut self, rtt: Duration, now: Instant) {
        self.least_rtt.see(micros(rtt).into(), now);
    }

    /// Takes a frame that has not come before, with the sender's clock if it bears one.
    pub fn handle_frame(&mut self, sequence: u64, stamp: Option<u32>, now: Instant) {
        self.expire(now);
        let delay = stamp.and_then(|stamp| self.delay(stamp, now));
        if let Some(delay) = delay {
            self.felt.delay_us.add(delay);
        }
        if self.follow(sequence, now) {
            let is_late = delay.is_some_and(|delay| delay > micros(ON_TIME_MAX));
            self.felt.due += 1;
            self.felt.on_time += u64::from(!is_late);
        }
    }

    /// Takes a datagram that is whole now: the number of the last of its frames to come, the stamp in it, and how many
    /// frames it travelled in. Compares the time since the one before with the sender's own.
    pub fn handle_datagram(&mut self, sequence: u64, stamp: u32, frames: u32, now: Instant) {
        let next = Last { at: now, stamp, sequence };
        let Some(last) = self.last.replace(next) else { return };
        let interval = now.saturating_duration_since(last.at);
        if interval >= PAUSE_MAX {
            return;
        }
        let Ok(sent) = u32::try_from(stamp.wrapping_sub(last.stamp).cast_signed()) else {
            // Overtaken: it ended the silence, and says nothing of the spacing.
            self.last = Some(Last { at: now, ..last });
            return;
        };
        let apart = sequence.saturating_sub(last.sequence).max(1);
        let spacing = (u64::from(sent) * u64::from(frames) / apart).min(sent.into());
        let gap = interval.saturating_sub(Duration::from_micros(spacing));
        self.felt.gap_us.add(micros(gap));
        self.felt.gaps += 1;
        self.felt.gaps_good += u64::from(gap <= GAP_GOOD_MAX);
    }

    /// What was felt since the last time; `None` if nothing was due.
    pub fn take(&mut self, now: Instant) -> Option<Felt> {
        self.expire(now);
        if self.felt.due == 0 {
            return None;
        }
        let mut felt = std::mem::take(&mut self.felt);
        felt.reports = 1;
        felt.one_way = u64::from(!felt.delay_us.is_empty());
        let half_rtt = self.half_rtt().filter(|_| !self.has_stamps);
        if let Some(half_rtt) = half_rtt {
            felt.delay_us.add(half_rtt);
        }
        let ppm = felt.lost.saturating_mul(1_000_000) / felt.due;
        felt.loss_ppm.add(u32::try_from(ppm).unwrap_or(1_000_000));
        Some(felt)
    }

    /// Whether a frame is one that counts: new, or missing and not given up.
    fn follow(&mut self, sequence: u64, now: Instant) -> bool {
        let next = *self.next.get_or_insert(sequence);
        if sequence >= next {
            if sequence > next {
                self.miss(Missing { first: next, end: sequence, since: now });
            }
            self.next = Some(sequence.saturating_add(1));
            return true;
        }
        let among = |run: &Missing| (run.first..run.end).contains(&sequence);
        let Some(at) = self.missing.iter().position(among) else { return false };
        let run = &mut self.missing[at];
        let rest = Missing { first: sequence + 1, ..*run };
        run.end = sequence;
        if run.first == run.end {
            self.missing.remove(at);
            if rest.first < rest.end {
                self.missing.insert(at, rest);
            }
        } else if rest.first < rest.end {
            self.missing.insert(at + 1, rest);
        }
        true
    }

    fn miss(&mut self, run: Missing) {
        if self.missing.len() >= MISSING_MAX
            && let Some(oldest) = self.missing.pop_front()
        {
            self.lose(&oldest);
        }
        self.missing.push_back(run);
    }

    fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.missing.front()
            && now.saturating_duration_since(oldest.since) >= LOST_AFTER
            && let Some(oldest) = self.missing.pop_front()
        {
            self.lose(&oldest);
        }
    }

    fn lose(&mut self, run: &Missing) {
        self.felt.lost = self.felt.lost.saturating_add(run.end - run.first);
        self.felt.due = self.felt.due.saturating_add(run.end - run.first);
    }

    /// The delay in microseconds, once a round trip is known.
    fn delay(&mut self, stamp: u32, now: Instant) -> Option<u32> {
        self.has_stamps = true;
        let difference = self.clock(now).wrapping_sub(stamp);
        let known = self.base.filter(|base| now.saturating_duration_since(base.heard) < PAUSE_MAX);
        if known.is_none() {
            self.fastest = Least::default();
        }
        let base = known.map_or(difference, |base| base.difference);
        self.base = Some(Base { difference: base, heard: now });
        let relative = i64::from(difference.wrapping_sub(base).cast_signed());
        self.fastest.see(relative, now);
        let over = relative - self.fastest.value().unwrap_or(relative);
        let delay = over + i64::from(self.half_rtt()?);
        Some(u32::try_from(delay.max(0)).unwrap_or(u32::MAX))
    }

    fn clock(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.start).as_micros();
        u32::try_from(since & u128::from(u32::MAX)).expect("32 bits")
    }

    fn half_rtt(&self) -> Option<u32> {
        u32::try_from(self.least_rtt.value()? / 2).ok()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RTT: Duration = Duration::from_millis(80);
    const SPACING: u64 = 20;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    struct Bed {
        meter: FlowMeter,
        base: Instant,
    }

    impl Bed {
        fn new() -> Self {
            let base = Instant::now();
            let mut meter = FlowMeter::new(base);
            meter.handle_rtt(RTT, base);
            Self { meter, base }
        }

        /// The datagram `number` of a sender whose clock is near its end, after `delay` on the way.
        fn comes(&mut self, number: u64, delay: u64) {
            let sent = number * SPACING;
            let stamp = (u32::MAX - 50_000).wrapping_add(u32::try_from(sent * 1_000).unwrap());
            let at = self.base + ms(sent + delay);
            self.meter.handle_frame(number, Some(stamp), at);
            self.meter.handle_datagram(number, stamp, 1, at);
        }

        fn felt_at(&mut self, millis: u64) -> Felt {
            self.meter.take(self.base + ms(millis)).unwrap()
        }
    }

    fn near(micros: Option<u32>, millis: u32) -> bool {
        micros.is_some_and(|found| found.abs_diff(millis * 1_000) <= millis * 16)
    }

    #[test]
    fn a_smooth_flow_has_half_the_round_trip_no_loss_and_no_gaps() {
        let mut bed = Bed::new();
        (0..100).for_each(|number| bed.comes(number, 300));

        let felt = bed.felt_at(3_000);

        assert_eq!((felt.reports, felt.one_way, felt.due, felt.on_time), (1, 1, 100, 100));
        assert_eq!((felt.lost, felt.gaps, felt.gaps_good), (0, 99, 99));
        assert!(near(felt.delay_us.max(), 40), "{:?}", felt.delay_us.max());
        assert_eq!(felt.gap_us.max(), Some(0));
        assert_eq!(felt.loss_ppm.quantile(1.0), Some(0));
    }

    #[test]
    fn what_a_datagram_takes_longer_is_delay_and_gap() {
        let mut bed = Bed::new();
        (0..50).for_each(|number| bed.comes(number, 100));
        bed.comes(50, 200);
        (51..60).for_each(|number| bed.comes(number, 200));

        let felt = bed.felt_at(2_000);

        assert!(near(felt.delay_us.max(), 140), "{:?}", felt.delay_us.max());
        assert!(near(felt.delay_us.quantile(0.5), 40));
        assert!(near(felt.gap_us.max(), 100), "{:?}", felt.gap_us.max());
        assert_eq!((felt.gaps, felt.gaps_good), (59, 58));
    }

    #[test]
    fn a_sender_that_pauses_makes_no_gap() {
        let mut bed = Bed::new();
        bed.comes(0, 100);
        bed.meter.handle_datagram(1, 4_950_000 - 1, 1, bed.base + ms(5_100));

        let felt = bed.felt_at(6_000);

        assert_eq!((felt.gaps, felt.gap_us.max()), (1, Some(0)));
    }

    #[test]
    fn frames_that_stay_away_are_lost_and_leave_a_gap_of_their_number() {
        let mut bed = Bed::new();
        (0..10).for_each(|number| bed.comes(number, 50));
        (15..100).for_each(|number| bed.comes(number, 50));

        let felt = bed.felt_at(3_000);

        assert_eq!((felt.due, felt.on_time, felt.lost), (100, 95, 5));
        assert_eq!(felt.loss_ppm.count(), 1);
        assert!(felt.loss_ppm.max().unwrap().abs_diff(50_000) <= 50_000 / 64);
        assert!(near(felt.gap_us.max(), 100), "{:?}", felt.gap_us.max());
        assert_eq!(felt.gaps - felt.gaps_good, 1);
    }

    #[test]
    fn a_frame_that_fills_its_gap_in_time_is_not_lost_and_one_that_does_not_is() {
        let mut bed = Bed::new();
        bed.comes(0, 50);
        bed.comes(3, 50);
        bed.comes(1, 500);
        (4..70).for_each(|number| bed.comes(number, 50));
        bed.comes(2, 1_600);

        let felt = bed.felt_at(2_000);

        assert_eq!((felt.due, felt.lost), (70, 1));
        // 450 ms more than the fastest and half a round trip: late.
        assert_eq!(felt.on_time, 68);
        assert!(bed.meter.take(bed.base + ms(2_100)).is_none(), "nothing new");
    }

    #[test]
    fn a_longer_path_counts_as_the_flows_own_after_a_while() {
        let mut bed = Bed::new();
        (0..100).for_each(|number| bed.comes(number, 50));
        (100..4_000).for_each(|number| bed.comes(number, 150));
        bed.felt_at(80_200);
        (4_020..4_100).for_each(|number| bed.comes(number, 150));

        let felt = bed.felt_at(83_000);

        assert!(near(felt.delay_us.max(), 40), "{:?}", felt.delay_us.max());
    }

    #[test]
    fn datagrams_of_two_frames_have_no_gaps_of_their_own() {
        let mut bed = Bed::new();
        for number in 0..50_u64 {
            let at = bed.base + ms(number * SPACING + 70);
            let stamp = u32::try_from(number * SPACING * 1_000).unwrap();
            bed.meter.handle_frame(2 * number, Some(stamp), at);
            bed.meter.handle_frame(2 * number + 1, None, at);
            bed.meter.handle_datagram(2 * number + 1, stamp, 2, at);
        }
        let felt = bed.felt_at(1_100);
        assert_eq!(felt.due, 100);
        assert_eq!((felt.gaps, felt.gap_us.max()), (49, Some(0)));
    }

    #[test]
    fn without_stamps_delay_is_half_the_round_trip_and_said_to_be() {
        let mut bed = Bed::new();
        (0..10).for_each(|number| bed.meter.handle_frame(number, None, bed.base));

        let felt = bed.felt_at(100);

        assert_eq!((felt.one_way, felt.gaps, felt.delay_us.count()), (0, 0, 1));
        assert!(near(felt.delay_us.max(), 40));
        assert_eq!(felt.delay_basis(), Some("half_rtt"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_counted_once_and_adds_up(
            frames in proptest::collection::vec((0_u64..400, any::<u32>(), 0_u64..300), 1..300),
        ) {
            let mut bed = Bed::new();
            let (mut at, mut seen) = (0, std::collections::BTreeSet::new());
            let mut total = Felt::default();
            for (sequence, stamp, wait) in frames {
                at += wait;
                if seen.insert(sequence) {
                    bed.meter.handle_frame(sequence, Some(stamp), bed.base + ms(at));
                    bed.meter.handle_datagram(sequence, stamp, 1, bed.base + ms(at));
                }
                if let Some(felt) = bed.meter.take(bed.base + ms(at)) {
                    prop_assert!(felt.on_time + felt.lost <= felt.due);
                    total.merge(&felt);
                }
            }
            if let Some(felt) = bed.meter.take(bed.base + ms(at + 1_000)) {
                total.merge(&felt);
            }
            let (least, most) = (seen.first().unwrap(), seen.last().unwrap());
            prop_assert!(total.due <= most - least + 1);
            prop_assert!(total.due >= 1 && total.gaps_good <= total.gaps);
        }

        #[test]
        fn a_far_jump_costs_no_memory(sequence in any::<u64>()) {
            let mut bed = Bed::new();
            bed.meter.handle_frame(0, None, bed.base);
            bed.meter.handle_frame(sequence.max(1), None, bed.base);
            prop_assert!(bed.meter.missing.len() <= 1);
            prop_assert!(bed.meter.take(bed.base + ms(1_000)).is_some());
        }
    }
}
