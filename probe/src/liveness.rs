//! Whether each direction of a link lives. The crate's documentation has the state diagram.

use std::time::{Duration, Instant};

use overway_wire::control;

use crate::ProbeConfig;

/// Least that *suspect* widens: timers and schedulers are not better than this.
const SUSPECT_WIDEN_MIN: Duration = Duration::from_millis(1);
/// Most that *suspect* widens, in hundredths of the interval: 12 ms at the active rate. Beyond it the failover
/// promise would be broken, and a false *suspect* costs only some copies.
const SUSPECT_WIDEN_MAX_PERCENT: u32 = 40;
/// Least that *down* widens, in hundredths of the interval: 5 ms at the active rate. Without it the third
/// heartbeat, due exactly at three intervals, would race with the limit.
const DOWN_WIDEN_MIN_PERCENT: u32 = 17;
/// Most that *down* widens, in hundredths of the interval. A false *down* moves traffic; it may wait longer.
const DOWN_WIDEN_MAX_PERCENT: u32 = 100;
/// Heartbeat intervals for which an excuse holds besides the time of flight: the frame that ends the
/// excused silence may itself be lost, and its successor.
const EXCUSE_INTERVALS: u32 = 3;

/// Liveness of one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Never known to carry anything.
    #[default]
    Unknown,
    /// Heard in time.
    Up,
    /// Silent for one and a half intervals.
    Suspect,
    /// Silent for three.
    Down,
}

impl From<State> for control::State {
    fn from(state: State) -> Self {
        match state {
            State::Unknown => Self::Unknown,
            State::Up => Self::Up,
            State::Suspect => Self::Suspect,
            State::Down => Self::Down,
        }
    }
}

/// One direction of a link, as one end names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the neighbour to us.
    Inbound,
    /// From us to the neighbour.
    Outbound,
}

/// How much silence makes a direction suspect, and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) suspect: Duration,
    pub(crate) down: Duration,
}

impl Limits {
    /// The limits for frames expected every `interval` with this mean deviation.
    pub(crate) fn new(config: &ProbeConfig, interval: Duration, deviation: Duration) -> Self {
        let widen = deviation.saturating_mul(config.widen_deviations);
        let suspect_widen =
            widen.min(percent(interval, SUSPECT_WIDEN_MAX_PERCENT)).max(SUSPECT_WIDEN_MIN);
        let down_widen = widen
            .saturating_mul(2)
            .min(percent(interval, DOWN_WIDEN_MAX_PERCENT))
            .max(percent(interval, DOWN_WIDEN_MIN_PERCENT));
        let suspect = percent(interval, config.suspect_percent).saturating_add(suspect_widen);
        let down = percent(interval, config.down_percent).saturating_add(down_widen);
        Self { suspect, down: down.max(suspect) }
    }

    fn excused(self, extra: Duration) -> Self {
        Self { suspect: self.suspect.saturating_add(extra), down: self.down.saturating_add(extra) }
    }
}

fn percent(of: Duration, hundredths: u32) -> Duration {
    of.saturating_mul(hundredths) / 100
}

/// The state machine that both directions share.
#[derive(Debug, Default)]
struct Watch {
    state: State,
    recovery: Option<Recovery>,
}

/// Signs of life since a direction went down.
#[derive(Clone, Copy, Debug)]
struct Recovery {
    since: Instant,
    last: Instant,
    signs: u32,
}

impl Watch {
    fn handle_sign(
        &mut self,
        config: &ProbeConfig,
        interval: Duration,
        limits: Limits,
        now: Instant,
    ) {
        match self.state {
            State::Unknown | State::Up | State::Suspect => self.state = State::Up,
            State::Down => {
                let fresh = Recovery { since: now, last: now, signs: 0 };
                let mut recovery = self
                    .recovery
                    .filter(|r| now.saturating_duration_since(r.last) < limits.suspect)
                    .unwrap_or(fresh);
                recovery.last = now;
                recovery.signs = recovery.signs.saturating_add(1);
                let lasted = now.saturating_duration_since(recovery.since) >= interval;
                if recovery.signs >= config.recovery_signs && lasted {
                    *self = Self { state: State::Up, recovery: None };
                } else {
                    self.recovery = Some(recovery);
                }
            }
        }
    }

    fn handle_silence(&mut self, silence: Duration, limits: Limits) {
        match self.state {
            State::Unknown => {}
            State::Up | State::Suspect | State::Down => {
                if silence >= limits.down {
                    *self = Self { state: State::Down, recovery: None };
                } else if silence >= limits.suspect && self.state != State::Down {
                    self.state = State::Suspect;
                }
            }
        }
    }

    fn handle_stall(&mut self, late_by: Duration, now: Instant) {
        if let Some(recovery) = &mut self.recovery {
            recovery.since = moved(recovery.since, late_by, now);
            recovery.last = moved(recovery.last, late_by, now);
        }
    }
}

/// A moment moved by a stall of our own, at most to `now`.
fn moved(moment: Instant, late_by: Duration, now: Instant) -> Instant {
    moment.checked_add(late_by).map_or(now, |moved| moved.min(now))
}

/// What we hear of the neighbour.
#[derive(Debug)]
pub(crate) struct Inbound {
    watch: Watch,
    interval: Duration,
    silent_since: Option<Instant>,
    question: Option<Question>,
}

/// The neighbour was asked to send oftener, and has not done so yet.
#[derive(Clone, Copy, Debug)]
struct Question {
    /// The interval asked for.
    interval: Duration,
    /// One such interval before the answer is due: it counts as if a heartbeat had come then.
    since: Instant,
    /// What *down* takes longer: the round trip is that of a line at rest, and traffic may have moved it.
    down_extra: Duration,
}

impl Inbound {
    /// Starts unheard. Until a heartbeat says otherwise the neighbour is taken to send each `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { watch: Watch::default(), interval, silent_since: None, question: None }
    }

    pub(crate) fn state(&self) -> State {
        self.watch.state
    }

    /// The interval at which the neighbour says it sends.
    pub(crate) fn announced(&self) -> Duration {
        self.interval
    }

    /// The interval by which it is judged: what it says, or what it was asked for until it answers.
    pub(crate) fn interval(&self) -> Duration {
        self.question.map_or(self.interval, |question| question.interval)
    }

    pub(crate) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// The neighbour is asked to send at this interval. If that is oftener than it does, its answer is due after so
    /// much patience.
    pub(crate) fn ask(&mut self, interval: Duration, patience: Duration, now: Instant) {
        match self.watch.state {
            State::Up | State::Suspect if interval < self.interval => {
                let due = now.checked_add(patience).unwrap_or(now);
                let since = due.checked_sub(interval).unwrap_or(now);
                self.question = Some(Question { interval, since, down_extra: patience });
            }
            State::Up | State::Suspect | State::Unknown | State::Down => self.question = None,
        }
    }

    /// The neighbour has answered, or nothing is asked any more.
    pub(crate) fn end_question(&mut self) {
        self.question = None;
    }

    /// Whether the neighbour was asked to send oftener, and has not answered.
    pub(crate) fn is_asking(&self) -> bool {
        self.question.is_some()
    }

    /// From when on silence is judged, and how.
    fn judged(&self, limits: Limits) -> Option<(Instant, Limits)> {
        let since = self.silent_since?;
        Some(match self.question {
            None => (since, limits),
            Some(Question { since: asked, down_extra, .. }) => {
                let down = limits.down.saturating_add(down_extra);
                (asked.max(since), Limits { down, ..limits })
            }
        })
    }

    /// Time since the last sign of life, our own stalls left out.
    pub(crate) fn silence(&self, now: Instant) -> Option<Duration> {
        self.silent_since.map(|since| now.saturating_duration_since(since))
    }

    pub(crate) fn handle_sign(&mut self, config: &ProbeConfig, limits: Limits, now: Instant) {
        self.watch.handle_sign(config, self.interval, limits, now);
        self.silent_since = Some(now);
    }

    pub(crate) fn handle_timeout(&mut self, limits: Limits, now: Instant) {
        if let Some((since, limits)) = self.judged(limits) {
            self.watch.handle_silence(now.saturating_duration_since(since), limits);
        }
    }

    pub(crate) fn handle_stall(&mut self, late_by: Duration, now: Instant) {
        self.silent_since = self.silent_since.map(|since| moved(since, late_by, now));
        if let Some(question) = &mut self.question {
            question.since = question.since.checked_add(late_by).unwrap_or(now);
        }
        self.watch.handle_stall(late_by, now);
    }

    pub(crate) fn poll_timeout(&self, limits: Limits) -> Option<Instant> {
        match self.watch.state {
            State::Unknown | State::Down => None,
            State::Up | State::Suspect => {
                let (since, limits) = self.judged(limits)?;
                let is_up = self.watch.state == State::Up;
                since.checked_add(if is_up { limits.suspect } else { limits.down })
            }
        }
    }
}

/// What the neighbour says that it hears of us.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    watch: Watch,
    reported_at: Option<Instant>,
    excuse: Option<Excuse>,
}

/// Silence that the neighbour may report and that is our own fault.
#[derive(Clone, Copy, Debug)]
struct Excuse {
    extra: Duration,
    until: Instant,
}

impl Outbound {
    /// By the neighbour's reports alone.
    pub(crate) fn reported(&self) -> State {
        self.watch.state
    }

    /// Excuses `extra` of reported silence for as long as it may still be reported.
    pub(crate) fn excuse(
        &mut self,
        extra: Duration,
        flight: Duration,
        interval: Duration,
        now: Instant,
    ) {
        let lasts = flight.saturating_add(interval.saturating_mul(EXCUSE_INTERVALS));
        let until = now.checked_add(lasts).unwrap_or(now);
        // Not their sum: each fault of ours ended with a heartbeat, so the silences do not join.
        let excuse = match self.excuse.filter(|before| now < before.until) {
            Some(before) => {
                Excuse { extra: extra.max(before.extra), until: until.max(before.until) }
            }
            None => Excuse { extra, until },
        };
        self.excuse = Some(excuse);
    }

    fn current_excuse(&self, now: Instant) -> Duration {
        self.excuse.filter(|excuse| now < excuse.until).map_or(Duration::ZERO, |e| e.extra)
    }

    /// Takes a heartbeat's word on how long the neighbour had not heard us when it sent it. `limits` are those
    /// of our own interval. Time of flight adds nothing: the silence is as the neighbour saw it.
    pub(crate) fn handle_report(
        &mut self,
        config: &ProbeConfig,
        silence: Duration,
        interval: Duration,
        limits: Limits,
        now: Instant,
    ) {
        self.reported_at = Some(now);
        let limits = limits.excused(self.current_excuse(now));
        if silence < limits.suspect {
            // The limit on the gap between signs is the neighbour's cadence, not ours, and
            // `handle_timeout` watches that.
            let gap = Limits { suspect: Duration::MAX, down: Duration::MAX };
            self.watch.handle_sign(config, interval, gap, now);
        } else {
            self.watch.recovery = None;
            self.watch.handle_silence(silence, limits);
        }
    }

    /// The neighbour has not heard us at all in this life of its. That is no failure yet.
    pub(crate) fn handle_unheard(&mut self) {
        self.reported_at = None;
        self.watch.recovery = None;
        match self.watch.state {
            State::Unknown | State::Up | State::Suspect => self.watch.state = State::Unknown,
            State::Down => {}
        }
    }

    /// The neighbour is no longer heard, so nothing is known of what it hears.
    pub(crate) fn handle_inbound_down(&mut self) {
        self.watch.handle_silence(
            Duration::MAX,
            Limits { suspect: Duration::ZERO, down: Duration::ZERO },
        );
    }

    /// Watches for heartbeats that cease while frames still arrive. They are given twice the time: something of
    /// the line lives, and a data frame is as good a sign of that. `limits` are those of the neighbour's interval.
    pub(crate) fn handle_timeout(&mut self, limits: Limits, now: Instant) {
        if let Some(reported_at) = self.reported_at {
            let age = now.saturating_duration_since(reported_at);
            self.watch.handle_silence(age, Self::age_limits(limits));
        }
    }

    pub(crate) fn handle_stall(&mut self, late_by: Duration, now: Instant) {
        self.reported_at = self.reported_at.map(|at| moved(at, late_by, now));
        self.watch.handle_stall(late_by, now);
    }

    pub(crate) fn poll_timeout(&self, limits: Limits) -> Option<Instant> {
        let limits = Self::age_limits(limits);
        match self.watch.state {
            State::Unknown | State::Down => None,
            State::Up => self.reported_at?.checked_add(limits.suspect),
            State::Suspect => self.reported_at?.checked_add(limits.down),
        }
    }

    fn age_limits(limits: Limits) -> Limits {
        Limits { suspect: limits.down, down: limits.down.saturating_mul(2) }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn limits_follow_interval_and_jitter() {
        let config = ProbeConfig::default();
        let micros = Duration::from_micros;
        let cases = [
            // interval, mean deviation, suspect, down
            (ms(30), ms(0), ms(46), micros(95_100)),
            (ms(30), ms(1), ms(49), ms(98)),
            (ms(30), ms(3), ms(57), ms(114)),
            (ms(30), ms(50), ms(57), ms(120)),
            (ms(200), ms(0), ms(301), ms(634)),
            (ms(200), ms(10), ms(340), ms(680)),
            (ms(200), ms(90), ms(380), ms(800)),
            (ms(1_000), ms(0), ms(1_501), ms(3_170)),
            (ms(1_000), ms(500), ms(1_900), ms(4_000)),
        ];
        for (interval, deviation, suspect, down) in cases {
            let limits = Limits::new(&config, interval, deviation);
            assert_eq!(limits, Limits { suspect, down }, "{interval:?} with {deviation:?}");
        }
    }

    #[test]
    fn absurd_durations_saturate() {
        let limits = Limits::new(&ProbeConfig::default(), Duration::MAX, Duration::MAX);

        assert!(limits.suspect <= limits.down);
    }

    #[test]
    fn a_direction_never_heard_is_never_down() {
        let base = Instant::now();
        let config = ProbeConfig::default();
        let limits = Limits::new(&config, ms(30), ms(0));
        let mut inbound = Inbound::new(ms(30));

        inbound.handle_timeout(limits, base + Duration::from_secs(60));

        assert_eq!(inbound.state(), State::Unknown);
        assert_eq!(inbound.poll_timeout(limits), None);
    }

    #[test]
    fn down_ends_only_after_three_signs_over_an_interval() {
        let base = Instant::now();
        let config = ProbeConfig::default();
        let limits = Limits::new(&config, ms(30), ms(0));
        let mut inbound = Inbound::new(ms(30));
        inbound.handle_sign(&config, limits, base);
        inbound.handle_timeout(limits, base + ms(100));
        assert_eq!(inbound.state(), State::Down);

        // A burst, a lone sign after a pause, then a steady stream.
        let signs =
            [(200, 0), (201, 0), (202, 0), (203, 0), (300, 0), (310, 0), (320, 0), (330, 1)];
        for (at, up) in signs {
            inbound.handle_sign(&config, limits, base + ms(at));
            let expected = if up == 1 { State::Up } else { State::Down };
            assert_eq!(inbound.state(), expected, "after the sign at {at} ms");
        }
    }

    #[test]
    fn suspect_ends_with_one_sign() {
        let base = Instant::now();
        let config = ProbeConfig::default();
        let limits = Limits::new(&config, ms(30), ms(0));
        let mut inbound = Inbound::new(ms(30));
        inbound.handle_sign(&config, limits, base);
        inbound.handle_timeout(limits, base + ms(50));
        assert_eq!(inbound.state(), State::Suspect);

        inbound.handle_sign(&config, limits, base + ms(51));

        assert_eq!(inbound.state(), State::Up);
    }
}
