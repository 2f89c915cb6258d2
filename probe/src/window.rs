//! Averages over the recent past, in two windows.
//!
//! Every average weighs a sample by the time that has passed since the one before it, and the past by
//! `exp(-age / constant)`. So a link probed each 30 ms and one probed each second average the same past
//! alike; a drift of the clocks delays both by the same, and the sum along a path stays exact.

use std::time::{Duration, Instant};

use overway_wire::{BitsPerSec, ClockDiff, Micros, control};

use crate::ProbeConfig;
use crate::loss::Tally;

/// Time that the first sample of an average stands for, there being none before it.
const FIRST_SPAN: Duration = Duration::from_millis(30);
/// Counters decay in steps of this, so that a frame costs an addition and not an exponential. A hundredth of
/// the fast window.
const DECAY_STEP: Duration = Duration::from_millis(10);
/// Round trip assumed where none is measured yet: about the longest on Earth.
const RTT_UNKNOWN: Duration = Duration::from_millis(500);
/// One-way differences beyond this, in microseconds, are no clock's. Half of what a scheduler takes.
const DIFF_MAX: u64 = 1 << 59;
/// A one-way difference this far off the mean, in microseconds, is no jitter, as no packet is a minute on its way:
/// the clock jumped, or the neighbour lies.
const DIFF_STEP: f64 = 60e6;
/// Such differences in a row, no further than [`DIFF_STEP`] from the first of them, that are taken for a clock that was
/// set.
const STEP_SAMPLES: u32 = 8;

/// What is known of the inbound direction over one window. All zero until a heartbeat was timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowStats {
    /// Our clock less the neighbour's, plus the one-way delay towards us; see [`ClockDiff`].
    pub one_way_diff: ClockDiff,
    /// Round trip, the neighbour's holding time taken off; zero if not measured yet.
    pub rtt: Micros,
    /// Mean deviation of the round trip.
    pub rtt_var: Micros,
    /// Mean deviation of the one-way difference.
    pub jitter: Micros,
    /// Heartbeats and frames that should have arrived, weighted by age.
    pub samples: u32,
    /// Of these, lost; at most `samples`.
    pub lost: u32,
}

impl From<WindowStats> for control::Window {
    fn from(stats: WindowStats) -> Self {
        let WindowStats { one_way_diff, rtt, rtt_var, jitter, samples, lost } = stats;
        Self {
            one_way_diff_us: one_way_diff.0,
            rtt_us: rtt.0,
            rtt_var_us: rtt_var.0,
            jitter_us: jitter.0,
            samples,
            lost,
        }
    }
}

/// What became of a timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timing {
    /// It counts.
    Taken,
    /// It cannot be true, or is a jump that others must confirm.
    Ignored,
    /// It confirms a jump: what was timed before it no longer counts.
    StartedOver,
}

/// Both windows, and the rate of received frames.
#[derive(Debug)]
pub(crate) struct Windows {
    fast: Window,
    slow: Window,
    step: Option<Step>,
    bytes: Decayed,
    since: Instant,
    /// See [`Self::inbound_deviation`]: it is asked for with every batch of frames, and changes with heartbeats.
    inbound_deviation: Duration,
}

/// One-way differences in a row that are far off the mean, and alike.
#[derive(Clone, Copy, Debug)]
struct Step {
    first: f64,
    samples: u32,
}

impl Windows {
    pub(crate) fn new(config: &ProbeConfig, now: Instant) -> Self {
        Self {
            fast: Window::new(config.fast_window, now),
            slow: Window::new(config.slow_window, now),
            step: None,
            bytes: Decayed::new(config.fast_window, now),
            since: now,
            inbound_deviation: Duration::ZERO,
        }
    }

    /// Takes the timing of one heartbeat. Deviations are taken from the fast window's mean in both windows: the
    /// slow one lags so far behind that a drift of the clocks would look like jitter.
    pub(crate) fn handle_timing(
        &mut self,
        diff: ClockDiff,
        rtt: Option<Duration>,
        now: Instant,
    ) -> Timing {
        if diff.0.unsigned_abs() > DIFF_MAX {
            return Timing::Ignored;
        }
        let diff = diff.0 as f64;
        let judged = self.judge(diff);
        match judged {
            Timing::Taken => {}
            Timing::Ignored => return judged,
            Timing::StartedOver => {
                self.fast.forget_timing();
                self.slow.forget_timing();
            }
        }
        let jitter = self.fast.diff.mean().map(|mean| (diff - mean).abs());
        let rtt = rtt.map(|rtt| rtt.as_secs_f64() * 1e6);
        let rtt_var = rtt.zip(self.fast.rtt.mean()).map(|(rtt, mean)| (rtt - mean).abs());
        for window in [&mut self.fast, &mut self.slow] {
            let samples = [
                (&mut window.diff, Some(diff)),
                (&mut window.jitter, jitter),
                (&mut window.rtt, rtt),
                (&mut window.rtt_var, rtt_var),
            ];
            for (average, sample) in samples {
                if let Some(sample) = sample {
                    average.add(sample, window.constant, now);
                }
            }
        }
        let worse = self.fast.jitter.mean_or_zero().max(self.slow.jitter.mean_or_zero());
        self.inbound_deviation = Duration::from(micros(worse));
        judged
    }

    /// Whether a one-way difference fits those before it.
    fn judge(&mut self, diff: f64) -> Timing {
        let far = |from: f64| (diff - from).abs() > DIFF_STEP;
        if !self.fast.diff.mean().is_some_and(far) {
            self.step = None;
            return Timing::Taken;
        }
        let step = match self.step.filter(|step| !far(step.first)) {
            Some(step) => Step { samples: step.samples + 1, ..step },
            None => Step { first: diff, samples: 1 },
        };
        if step.samples < STEP_SAMPLES {
            self.step = Some(step);
            return Timing::Ignored;
        }
        self.step = None;
        Timing::StartedOver
    }

    pub(crate) fn handle_tally(&mut self, tally: Tally, now: Instant) {
        let lost = f64::from(tally.lost) - f64::from(tally.recovered);
        for window in [&mut self.fast, &mut self.slow] {
            window.expected.add(f64::from(tally.expected), now);
            window.lost.add(lost, now);
        }
    }

    pub(crate) fn handle_bytes(&mut self, bytes: usize, now: Instant) {
        self.bytes.add(bytes as f64, now);
    }

    pub(crate) fn stats(&self, now: Instant) -> (WindowStats, WindowStats) {
        (self.fast.stats(now), self.slow.stats(now))
    }

    /// Bits of frames received per second over the fast window.
    pub(crate) fn received(&self, now: Instant) -> BitsPerSec {
        let constant = self.bytes.constant;
        let covered = 1.0 - decay(now.saturating_duration_since(self.since), constant);
        // Until the first step of the window has passed there is no rate to speak of.
        let covered = covered.max(1.0 - decay(DECAY_STEP, constant));
        let seconds = constant.as_secs_f64() * covered;
        BitsPerSec(rounded(self.bytes.value(now) * 8.0 / seconds).unsigned_abs())
    }

    /// Mean deviation of what arrives, the worse of both windows: limits widen fast and narrow slowly.
    pub(crate) fn inbound_deviation(&self) -> Duration {
        self.inbound_deviation
    }

    /// Half the mean deviation of the other direction: what the round trip's has beyond ours, deviations adding
    /// in squares. Half, so that the heartbeat which the neighbour sends on finding us suspect, by limits widened
    /// with its own better measure, exceeds our limits too.
    pub(crate) fn outbound_deviation(&self) -> Duration {
        let round = self.round_trip_deviation().as_secs_f64();
        let inbound = self.inbound_deviation().as_secs_f64();
        let outbound = (round * round - inbound * inbound).max(0.0).sqrt();
        Duration::from(micros(outbound * 1e6 / 2.0))
    }

    /// A round trip that is hardly ever exceeded.
    pub(crate) fn round_trip_bound(&self) -> Duration {
        let mean = self.fast.rtt.mean().map_or(RTT_UNKNOWN, |rtt| Duration::from(micros(rtt)));
        mean.saturating_add(self.round_trip_deviation().saturating_mul(4))
    }

    fn round_trip_deviation(&self) -> Duration {
        let worse = self.fast.rtt_var.mean_or_zero().max(self.slow.rtt_var.mean_or_zero());
        Duration::from(micros(worse))
    }
}

#[derive(Debug)]
struct Window {
    constant: Duration,
    diff: Average,
    jitter: Average,
    rtt: Average,
    rtt_var: Average,
    expected: Decayed,
    lost: Decayed,
}

impl Window {
    fn new(constant: Duration, now: Instant) -> Self {
        Self {
            constant,
            diff: Average::default(),
            jitter: Average::default(),
            rtt: Average::default(),
            rtt_var: Average::default(),
            expected: Decayed::new(constant, now),
            lost: Decayed::new(constant, now),
        }
    }

    /// Starts all averages over. What was counted stays.
    fn forget_timing(&mut self) {
        for average in [&mut self.diff, &mut self.jitter, &mut self.rtt, &mut self.rtt_var] {
            *average = Average::default();
        }
    }

    fn stats(&self, now: Instant) -> WindowStats {
        let Some(diff) = self.diff.mean() else {
            return WindowStats::default();
        };
        let samples = whole(self.expected.value(now));
        WindowStats {
            one_way_diff: ClockDiff(rounded(diff)),
            rtt: micros(self.rtt.mean_or_zero()),
            rtt_var: micros(self.rtt_var.mean_or_zero()),
            jitter: micros(self.jitter.mean_or_zero()),
            samples,
            lost: whole(self.lost.value(now)).min(samples),
        }
    }
}

/// An average weighted by time. Divided by the weight gathered so far, so that the first samples count in full.
#[derive(Debug, Default)]
struct Average {
    sum: f64,
    weight: f64,
    at: Option<Instant>,
}

impl Average {
    fn add(&mut self, sample: f64, constant: Duration, now: Instant) {
        let span = self.at.map_or(FIRST_SPAN, |at| now.saturating_duration_since(at));
        let kept = decay(span, constant);
        self.sum = self.sum * kept + sample * (1.0 - kept);
        self.weight = self.weight * kept + (1.0 - kept);
        self.at = Some(now);
    }

    fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    fn mean_or_zero(&self) -> f64 {
        self.mean().unwrap_or(0.0)
    }
}

/// A count that decays with age.
#[derive(Debug)]
struct Decayed {
    constant: Duration,
    value: f64,
    at: Instant,
    /// When it decays next: comparing costs less than counting, and is done for every frame.
    next: Instant,
}

impl Decayed {
    fn new(constant: Duration, now: Instant) -> Self {
        Self { constant, value: 0.0, at: now, next: now + DECAY_STEP }
    }

    fn add(&mut self, amount: f64, now: Instant) {
        if now >= self.next {
            self.value = self.value(now);
            (self.at, self.next) = (now, now + DECAY_STEP);
        }
        self.value = (self.value + amount).max(0.0);
    }

    fn value(&self, now: Instant) -> f64 {
        self.value * decay(now.saturating_duration_since(self.at), self.constant)
    }
}

/// What is left after `span`; nothing if the constant is zero.
fn decay(span: Duration, constant: Duration) -> f64 {
    if constant.is_zero() { 0.0 } else { (-span.as_secs_f64() / constant.as_secs_f64()).exp() }
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what is wanted")]
fn rounded(value: f64) -> i64 {
    value.round() as i64
}

fn whole(value: f64) -> u32 {
    u32::try_from(rounded(value).max(0)).unwrap_or(u32::MAX)
}

fn micros(value: f64) -> Micros {
    Micros(whole(value))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use super::*;

    fn windows() -> (Windows, Instant) {
        let now = Instant::now();
        (Windows::new(&ProbeConfig::default(), now), now)
    }

    #[test]
    fn nothing_is_known_before_the_first_heartbeat() {
        let (mut windows, now) = windows();
        windows.handle_tally(Tally { expected: 9, ..Tally::default() }, now);

        assert_eq!(windows.stats(now), (WindowStats::default(), WindowStats::default()));
    }

    #[test]
    fn the_first_sample_counts_in_full() {
        let (mut windows, now) = windows();

        windows.handle_timing(ClockDiff(-777_000_123), Some(Duration::from_millis(80)), now);

        for stats in <[WindowStats; 2]>::from(windows.stats(now)) {
            assert_eq!(stats.one_way_diff, ClockDiff(-777_000_123));
            assert_eq!((stats.rtt, stats.jitter), (Micros(80_000), Micros(0)));
        }
    }

    #[test]
    fn the_deviation_is_that_of_the_worse_window_after_every_heartbeat() {
        let (mut windows, mut now) = windows();
        for at in 0..200 {
            // Calm, then not, then calm again.
            let late = if (50..100).contains(&at) { at % 7 * 3_000 } else { 0 };
            windows.handle_timing(ClockDiff(late), None, now);
            let jitters = <[WindowStats; 2]>::from(windows.stats(now)).map(|stats| stats.jitter);
            let worse = jitters.into_iter().max().unwrap();
            assert_eq!(windows.inbound_deviation(), Duration::from(worse), "heartbeat {at}");
            now += Duration::from_millis(30);
        }
    }

    #[test]
    fn the_fast_window_follows_a_change_and_the_slow_one_waits() {
        let (mut windows, start) = windows();
        for step in 0..1_000_u32 {
            let delay = if step < 900 { 10_000 } else { 50_000 };
            let now = start + Duration::from_millis(30) * step;
            windows.handle_timing(ClockDiff(delay), None, now);
        }

        let (fast, slow) = windows.stats(start + Duration::from_secs(30));

        assert!((47_000..50_000).contains(&fast.one_way_diff.0), "{fast:?}");
        assert!((13_000..17_500).contains(&slow.one_way_diff.0), "{slow:?}");
    }

    #[test]
    fn different_cadences_average_the_same_past_alike() {
        let mean = |interval_ms: u32| {
            let (mut windows, start) = windows();
            for step in 0..(120_000 / interval_ms) {
                let at = Duration::from_millis(u64::from(interval_ms * step));
                // 100 ppm of drift, which both windows follow with their lag.
                let diff = i64::try_from(at.as_micros() / 10_000).unwrap();
                windows.handle_timing(ClockDiff(diff), None, start + at);
            }
            let (fast, slow) = windows.stats(start + Duration::from_secs(120));
            (fast.one_way_diff.0, slow.one_way_diff.0, slow.jitter.0)
        };

        let (often, seldom) = (mean(30), mean(1_000));

        assert!(often.0.abs_diff(seldom.0) <= 100, "{often:?} {seldom:?}");
        assert!(often.1.abs_diff(seldom.1) <= 100, "{often:?} {seldom:?}");
        assert!(often.2 <= 200, "drift looks like jitter: {often:?}");
    }

    #[test]
    fn loss_decays_with_its_samples() {
        let (mut windows, now) = windows();
        windows.handle_timing(ClockDiff(0), None, now);
        windows.handle_tally(Tally { expected: 1_000, lost: 100, ..Tally::default() }, now);

        let (fast, slow) = windows.stats(now + Duration::from_secs(3));

        assert_eq!((fast.samples, fast.lost), (50, 5));
        assert_eq!((slow.samples, slow.lost), (905, 90));
    }

    #[test]
    fn the_received_rate_is_right_from_early_on() {
        let (mut windows, start) = windows();
        for millis in 0..5_000_u32 {
            let now = start + Duration::from_millis(1) * millis;
            windows.handle_bytes(1_250, now);
            if millis > 100 {
                let mbit = windows.received(now).0 as f64 / 1e6;
                assert!((9.5..10.6).contains(&mbit), "{mbit} Mbit/s after {millis} ms");
            }
        }
        assert!(windows.received(start + Duration::from_secs(30)).0 < 1_000);
    }

    #[test]
    fn jumps_of_minutes_do_not_become_jitter() {
        let (mut windows, start) = windows();
        for step in 0..1_000_u32 {
            let diff = if step % 2 == 0 { 20_000 } else { i64::from(step) * 600_000_000 };
            let now = start + Duration::from_millis(30) * step;
            let taken = windows.handle_timing(ClockDiff(diff), None, now);
            assert_eq!(taken == Timing::Taken, step % 2 == 0, "sample {step}");
        }

        for stats in <[WindowStats; 2]>::from(windows.stats(start + Duration::from_secs(30))) {
            assert_eq!((stats.one_way_diff, stats.jitter), (ClockDiff(20_000), Micros(0)));
        }
    }

    #[test]
    fn jitter_never_exceeds_what_a_minute_allows() {
        let (mut windows, start) = windows();
        for step in 0..2_000_u32 {
            let diff = i64::from(step % 2) * 59_999_999 - i64::from(step) * 1_000_000;
            windows.handle_timing(ClockDiff(diff), None, start + Duration::from_millis(10) * step);
            for stats in <[WindowStats; 2]>::from(windows.stats(start)) {
                assert!(stats.jitter <= Micros(60_000_000), "{stats:?}");
            }
        }
    }

    #[test]
    fn a_clock_that_was_set_starts_the_averages_over_after_eight_samples() {
        let (mut windows, now) = windows();
        let set = 3_600_000_000;
        windows.handle_timing(ClockDiff(20_000), Some(Duration::from_millis(70)), now);
        windows.handle_tally(Tally { expected: 40, lost: 3, ..Tally::default() }, now);

        let timings: Vec<Timing> = (0..9)
            .map(|sample| {
                let rtt = Some(Duration::from_millis(80));
                windows.handle_timing(ClockDiff(set + sample), rtt, now)
            })
            .collect();

        assert_eq!(timings[..7], [Timing::Ignored; 7]);
        assert_eq!(timings[7..], [Timing::StartedOver, Timing::Taken]);
        let (fast, slow) = windows.stats(now);
        assert!((fast.one_way_diff.0 - set).abs() < 10, "{fast:?}");
        assert!((slow.one_way_diff.0 - set).abs() < 10, "{slow:?}");
        assert_eq!((fast.rtt, fast.samples, fast.lost), (Micros(80_000), 40, 3));
    }

    #[test]
    fn a_difference_of_no_clock_is_ignored_even_as_the_first() {
        let (mut windows, now) = windows();
        for diff in [i64::MAX, i64::MIN, (1 << 59) + 1, -(1 << 59) - 1] {
            for _ in 0..20 {
                assert_eq!(windows.handle_timing(ClockDiff(diff), None, now), Timing::Ignored);
            }
        }
        assert_eq!(windows.stats(now), (WindowStats::default(), WindowStats::default()));

        assert_eq!(windows.handle_timing(ClockDiff(-(1 << 59)), None, now), Timing::Taken);
    }

    #[test]
    fn absurd_samples_saturate() {
        let (mut windows, now) = windows();
        for diff in [1 << 59, -(1 << 59), 1 << 59] {
            windows.handle_timing(ClockDiff(diff), Some(Duration::MAX), now);
            let tally = Tally { expected: u32::MAX, lost: u32::MAX, ..Tally::default() };
            windows.handle_tally(tally, now);
        }

        let (fast, _) = windows.stats(now);

        assert!(fast.lost <= fast.samples);
        assert_eq!(fast.rtt, Micros::MAX);
    }
}
