//! What the relays measure of each line: the product's own estimators, fed with heartbeats that crossed the noise.
//!
//! At the receiving end of each line stands a [`LinkProbe`] with its two windows. The sender's side is played: it
//! sends heartbeats at the interval of the line's role, each is lost or delayed as is true of the line at that moment,
//! and they arrive in order. Every relay's clock has an offset and a drift of its own. Frames are left out, so that
//! loss is known from heartbeats alone.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fastrand::Rng;
use overway_probe::{LinkProbe, LocalClock, ProbeConfig, Rate, State as Life, WindowStats};
use overway_topology::{LinkMeasure, WindowSample};
use overway_wire::hop::{Heard, Heartbeat};
use overway_wire::{BootId, Micros, Millis, Ticks};

use super::noise::{Line, Noise, State, exponential};

/// Clocks run fast or slow by up to this.
const DRIFT_PPM_MAX: i32 = 20;
/// Clocks start anywhere within these microseconds.
const OFFSET_MAX: u64 = 1 << 40;
/// Mean length of a burst of losses, in seconds.
const BURST_S: f64 = 0.06;
/// Heartbeats at the old cadence that announce a slower one.
const ANNOUNCED: u32 = 3;

/// The measuring ends of every line.
pub(super) struct Probes {
    ends: Vec<End>,
    config: ProbeConfig,
    base: Instant,
    rng: Rng,
}

/// The receiving end of a line, and what is on its way there.
struct End {
    from: usize,
    to: usize,
    probe: LinkProbe,
    clocks: [LocalClock; 2],
    /// What heartbeats say, and at what they are sent.
    interval: Duration,
    cadence: Duration,
    /// Heartbeats still to be sent at the old cadence.
    announcing: u32,
    next: Instant,
    number: u32,
    /// When a heartbeat was last lost or not, and which, while the line loses in bursts.
    burst: Option<(Instant, bool)>,
    /// In order of arrival.
    flying: VecDeque<Flying>,
}

struct Flying {
    arrival: Instant,
    delay: Duration,
    heartbeat: Heartbeat,
}

impl Probes {
    /// Probes for every line, all of them idle.
    pub(super) fn new(noise: &Noise, base: Instant, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let config = ProbeConfig::default();
        let clocks: Vec<LocalClock> = (0..noise.count())
            .map(|_| {
                let drift = rng.i32(-DRIFT_PPM_MAX..=DRIFT_PPM_MAX);
                LocalClock::new(base, Ticks(rng.u64(..OFFSET_MAX)), drift)
            })
            .collect();
        let ends = noise.lines().map(|(from, to, _)| {
            let interval = config.interval(Rate::Idle);
            End {
                from,
                to,
                probe: LinkProbe::new(config.clone(), BootId(2), clocks[to], base),
                clocks: [clocks[from], clocks[to]],
                interval,
                cadence: interval,
                announcing: 0,
                next: base + interval.mul_f64(rng.f64()),
                number: 0,
                burst: None,
                flying: VecDeque::new(),
            }
        });
        Self { ends: ends.collect(), config, base, rng }
    }

    /// Sets how often each line is probed.
    pub(super) fn set_rates(&mut self, rate: impl Fn(usize, usize) -> Rate, now: Instant) {
        for end in &mut self.ends {
            end.set_interval(self.config.interval(rate(end.from, end.to)), now);
        }
    }

    /// Plays a second that ends at `until`, and says what every link's receiver then reports.
    pub(super) fn play(
        &mut self,
        noise: &Noise,
        until: Instant,
        mut report: impl FnMut(usize, usize, Option<LinkMeasure>),
    ) {
        for end in &mut self.ends {
            let line = noise.line(end.from, end.to).expect("ends are of lines");
            let back = noise.line(end.to, end.from);
            let at_s = until.duration_since(self.base).as_secs_f64() - 0.5;
            let back = back.map_or(Duration::ZERO, |back| {
                let State { delay_us, jitter_us, .. } = back.at(at_s);
                Duration::from_secs_f64((delay_us + jitter_us) / 1e6)
            });
            end.send(line, self.base, until, &mut self.rng);
            end.receive(back, until);
            report(end.from, end.to, end.measure(until));
        }
    }
}

impl End {
    fn set_interval(&mut self, interval: Duration, now: Instant) {
        if interval < self.interval {
            (self.cadence, self.announcing, self.next) = (interval, 0, now);
        } else if interval > self.interval {
            self.announcing = ANNOUNCED;
        }
        self.interval = interval;
    }

    /// Puts on the line what is due before `until`.
    fn send(&mut self, line: &Line, base: Instant, until: Instant, rng: &mut Rng) {
        while self.next < until {
            let now = self.next;
            let state = line.at(now.duration_since(base).as_secs_f64());
            let heartbeat = self.heartbeat(now);
            if !self.is_lost(state.loss, now, rng) {
                let delay_us = state.delay_us + exponential(state.jitter_us, rng);
                let arrival = now + Duration::from_secs_f64(delay_us / 1e6);
                let arrival = self.flying.back().map_or(arrival, |last| arrival.max(last.arrival));
                self.flying.push_back(Flying { arrival, delay: arrival - now, heartbeat });
            }
            self.announcing = self.announcing.saturating_sub(1);
            if self.announcing == 0 {
                self.cadence = self.interval;
            }
            self.next += self.cadence;
        }
    }

    fn heartbeat(&mut self, now: Instant) -> Heartbeat {
        let number = self.number;
        self.number = number.wrapping_add(1);
        Heartbeat {
            boot: BootId(1),
            number,
            sent: self.clocks[0].read(now),
            heard: None,
            interval: Millis::from(self.interval),
            wanted: Millis::from(self.interval),
            sent_next: [0; 2],
            received_next: [0; 2],
            complete_next: None,
            lost: None,
            repairs: false,
        }
    }

    /// Loss comes in bursts, by Gilbert's model in continuous time: the state is remembered for as long as a burst
    /// lasts.
    fn is_lost(&mut self, share: f64, now: Instant, rng: &mut Rng) -> bool {
        if share <= 0.001 || share >= 1.0 {
            self.burst = None;
            return rng.f64() < share;
        }
        let chance = match self.burst {
            None => share,
            Some((at, lost)) => {
                let age_s = now.duration_since(at).as_secs_f64();
                let kept = (-age_s / (BURST_S * (1.0 - share))).exp();
                share + (f64::from(u8::from(lost)) - share) * kept
            }
        };
        let lost = rng.f64() < chance;
        self.burst = Some((now, lost));
        lost
    }

    /// Takes what has arrived. The way back, of which the round trip is half, is as long as it is on average.
    fn receive(&mut self, back: Duration, until: Instant) {
        while self.flying.front().is_some_and(|first| first.arrival <= until) {
            let Some(Flying { arrival, delay, mut heartbeat }) = self.flying.pop_front() else {
                break;
            };
            let ticks = self.clocks[1].read(arrival);
            let rtt = Micros::from(delay + back);
            let echo = Ticks(ticks.0.saturating_sub(u64::from(rtt.0)));
            heartbeat.heard = Some(Heard { echo, held: Micros(0), silence: Micros(0) });
            self.probe.handle_timeout(arrival);
            self.probe.handle_heartbeat(&heartbeat, arrival);
        }
        self.probe.handle_timeout(until);
    }

    fn measure(&self, now: Instant) -> Option<LinkMeasure> {
        let usable = match self.probe.inbound() {
            Life::Up | Life::Suspect => true,
            Life::Unknown | Life::Down => false,
        };
        let (fast, slow) = self.probe.windows(now);
        let said = |window: WindowStats| (window.samples > 0).then(|| sample(window));
        let (fast, slow) = (said(fast), said(slow));
        let measure = LinkMeasure { usable, ..LinkMeasure::default() };
        Some(LinkMeasure { fast: fast.or(slow)?, slow: slow.or(fast)?, ..measure })
    }
}

fn sample(window: WindowStats) -> WindowSample {
    let WindowStats { one_way_diff, rtt, rtt_var: _, jitter, samples, lost } = window;
    WindowSample { one_way_diff, rtt, jitter, samples, lost }
}
