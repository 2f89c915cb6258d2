//! How one end knows an attachment: what joins an edge to its access relay.
//!
//! A [`LinkProbe`] with the intervals of an attachment. Heartbeats of an idle one are far apart, so that a phone may
//! sleep, and silence measured against such an interval says nothing for half a minute: an end that begins to need the
//! attachment asks, and has more patience than a relay has with its neighbour, for radios take time to wake up.
//!
//! Both directions count as one: what cannot be answered is as good as what cannot be sent.

use std::time::{Duration, Instant};

use overway_wire::hop::{Heartbeat, Lane};
use overway_wire::{BootId, Micros};

use crate::{LinkProbe, LocalClock, ProbeConfig, Rate, State};

/// The lane whose numbers count an attachment's frames.
const NUMBERED: Lane = Lane::Bulk;
/// Time for an answer beyond the round trip: an interval, and what timers and radios that wake up take.
const ANSWER_GRACE: Duration = Duration::from_millis(50);

/// Silence that makes an attachment suspect, in hundredths of the interval. Sooner than a link: what edges and their
/// forwards add comes on top of it, and a false alarm costs no more than copies by the other access relay.
const SUSPECT_PERCENT: u32 = 125;

/// Timers of an attachment: 30 ms while flows are active, 200 ms while services are offered, 15 s otherwise.
pub fn attachment_config() -> ProbeConfig {
    ProbeConfig {
        idle: Duration::from_secs(15),
        suspect_percent: SUSPECT_PERCENT,
        answer_grace: ANSWER_GRACE,
        ..ProbeConfig::default()
    }
}

/// One end of one attachment. Driven like a [`LinkProbe`]: after each call its owner asks
/// [`Self::poll_transmit`] and [`Self::poll_timeout`], and looks at [`Self::state`].
#[derive(Debug)]
pub struct AttachmentProbe {
    link: LinkProbe,
    heard: Option<Instant>,
}

impl AttachmentProbe {
    /// Makes the probe of an attachment that has just come about; its first heartbeat is due at once.
    pub fn new(config: ProbeConfig, boot: BootId, clock: LocalClock, now: Instant) -> Self {
        Self { link: LinkProbe::new(config, boot, clock, now), heard: Some(now) }
    }

    /// Sets how urgently this end needs to know of a failure; see [`attachment_config`] for what each means.
    pub fn set_rate(&mut self, rate: Rate, now: Instant) {
        self.link.set_rate(rate, now);
    }

    /// Asks for a sign of life at once: the path may have changed, or this process slept.
    pub fn doubt(&mut self, now: Instant) {
        self.link.set_rate(Rate::Idle, now);
        self.link.set_rate(Rate::Active, now);
    }

    /// Takes a heartbeat of the other end. Its fields may be anything.
    pub fn handle_heartbeat(&mut self, heartbeat: &Heartbeat, now: Instant) {
        self.heard = Some(now);
        self.link.handle_heartbeat(heartbeat, now);
    }

    /// Takes note of a frame of the other end, and of its number.
    pub fn handle_frame(&mut self, number: u32, bytes: usize, now: Instant) {
        self.heard = Some(now);
        self.link.handle_frame(NUMBERED, number, bytes, now);
    }

    /// Allocates the number of a frame that is about to be sent.
    pub fn handle_sent(&mut self) -> u32 {
        self.link.handle_sent(NUMBERED)
    }

    /// One more than the greatest number of ours that the other end says it has; wraps.
    pub fn acknowledged(&self) -> u32 {
        self.link.acknowledged(NUMBERED)
    }

    /// This process slept: the silence was its own.
    pub fn handle_stall(&mut self, late_by: Duration, now: Instant) {
        self.link.handle_stall(late_by, now);
    }

    /// Judges by the silence until `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.link.handle_timeout(now);
        // Its changes are read by `state`; they must not pile up.
        while self.link.poll_event().is_some() {}
    }

    /// The heartbeat that is due, if any; it must leave at once.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Heartbeat> {
        self.link.poll_transmit(now)
    }

    /// When to call [`Self::handle_timeout`] and [`Self::poll_transmit`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.link.poll_timeout()
    }

    /// Whether the attachment carries anything: the worse of both directions. One that has just come about is up.
    pub fn state(&self) -> State {
        let state = self.link.inbound().max(self.link.outbound());
        if state == State::Unknown { State::Up } else { state }
    }

    /// The round trip, once it is measured.
    pub fn rtt(&self, now: Instant) -> Option<Duration> {
        let (fast, _) = self.link.windows(now);
        (fast.rtt != Micros(0)).then(|| fast.rtt.into())
    }

    /// Time since anything came.
    pub fn silence(&self, now: Instant) -> Duration {
        self.heard.map_or(Duration::ZERO, |heard| now.saturating_duration_since(heard))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use super::*;
    use overway_wire::Ticks;

    const STEP: Duration = Duration::from_millis(1);
    const FLIGHT: Duration = Duration::from_millis(10);

    /// Two ends and a line of 10 ms each way; heartbeats that are under way arrive unless the line is cut.
    struct Pair {
        ends: [AttachmentProbe; 2],
        flying: Vec<(Instant, usize, Heartbeat)>,
        now: Instant,
        cut: [bool; 2],
        sent: [u32; 2],
    }

    impl Pair {
        fn new() -> Self {
            let now = Instant::now();
            let end = |boot: u32| {
                let clock = LocalClock::new(now, Ticks(u64::from(boot) * 1_000_000), 0);
                AttachmentProbe::new(attachment_config(), BootId(boot), clock, now)
            };
            Self { ends: [end(1), end(2)], flying: Vec::new(), now, cut: [false; 2], sent: [0; 2] }
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.now += STEP;
                let now = self.now;
                for (from, probe) in self.ends.iter_mut().enumerate() {
                    probe.handle_timeout(now);
                    while let Some(heartbeat) = probe.poll_transmit(now) {
                        self.sent[from] += 1;
                        if !self.cut[from] {
                            self.flying.push((now + FLIGHT, 1 - from, heartbeat));
                        }
                    }
                }
                let (arrived, flying) = self.flying.drain(..).partition(|(at, ..)| *at <= now);
                self.flying = flying;
                let arrived: Vec<(Instant, usize, Heartbeat)> = arrived;
                for (_, to, heartbeat) in arrived {
                    self.ends[to].handle_heartbeat(&heartbeat, now);
                }
            }
        }

        fn states(&self) -> [State; 2] {
            [self.ends[0].state(), self.ends[1].state()]
        }
    }

    #[test]
    fn an_idle_attachment_is_left_in_peace_and_stays_up() {
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(1));
        let before = pair.sent;

        pair.run(Duration::from_secs(60));

        assert_eq!(pair.states(), [State::Up; 2]);
        assert!(pair.sent[0] - before[0] <= 8, "{:?}", pair.sent);
        assert_eq!(pair.ends[0].rtt(pair.now).map(|rtt| rtt.as_millis()), Some(20));
    }

    #[test]
    fn an_active_one_goes_suspect_and_down_by_the_short_interval() {
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(1));
        pair.ends[0].set_rate(Rate::Active, pair.now);
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.states(), [State::Up; 2]);

        pair.cut = [true; 2];
        pair.run(Duration::from_millis(75));
        assert_eq!(pair.states(), [State::Suspect; 2]);
        pair.run(Duration::from_millis(60));
        assert_eq!(pair.states(), [State::Down; 2]);
    }

    #[test]
    fn who_needs_an_idle_attachment_whose_other_end_is_gone_knows_soon() {
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(10));
        pair.cut = [true; 2];
        pair.run(Duration::from_millis(100));
        assert_eq!(pair.states(), [State::Up; 2]);

        pair.ends[0].set_rate(Rate::Active, pair.now);
        pair.run(Duration::from_millis(95));
        assert_eq!(pair.ends[0].state(), State::Suspect);
        pair.run(Duration::from_millis(120));

        assert_eq!(pair.states(), [State::Down, State::Up]);
    }

    #[test]
    fn doubt_is_answered_by_whoever_lives() {
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(5));
        pair.ends[0].doubt(pair.now);
        pair.run(Duration::from_millis(300));
        assert_eq!(pair.states(), [State::Up; 2]);

        pair.cut = [false, true];
        pair.run(Duration::from_millis(300));
        assert_eq!(pair.ends[0].state(), State::Down);
        pair.cut = [false; 2];
        pair.run(Duration::from_millis(300));
        assert_eq!(pair.states(), [State::Up; 2], "it came back");
    }

    #[test]
    fn frames_are_acknowledged_by_heartbeats() {
        let mut pair = Pair::new();
        pair.ends[0].set_rate(Rate::Active, pair.now);
        pair.run(Duration::from_millis(200));
        for _ in 0..5 {
            let number = pair.ends[0].handle_sent();
            pair.ends[1].handle_frame(number, 100, pair.now);
        }
        assert_eq!(pair.ends[0].acknowledged(), 0);

        pair.run(Duration::from_millis(100));

        assert_eq!(pair.ends[0].acknowledged(), 5);
    }
}
