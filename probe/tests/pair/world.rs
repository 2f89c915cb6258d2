//! Two probes, their clocks, and the wires between them, in virtual time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overway_probe::{Direction, LinkProbe, LocalClock, ProbeConfig, ProbeEvent, State};
use overway_wire::hop::{Heartbeat, Lane};
use overway_wire::{BootId, Ticks};

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// xorshift64*: enough for tests, and the same everywhere.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to 1.
    pub(crate) fn share(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One direction. Wire `i` carries what end `i` sends.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) delay: Duration,
    /// Each message is delayed by up to this in addition.
    pub(crate) jitter: Duration,
    pub(crate) loss: f64,
    pub(crate) cut: bool,
    /// Heartbeats alone are lost.
    pub(crate) light_lane_cut: bool,
}

impl Wire {
    pub(crate) fn with_delay(delay: Duration) -> Self {
        Self { delay, jitter: Duration::ZERO, loss: 0.0, cut: false, light_lane_cut: false }
    }
}

#[derive(Clone, Copy, Debug)]
enum Message {
    Heartbeat(Heartbeat),
    Data(Lane, u32, usize),
}

/// What an end told, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) at: Instant,
    pub(crate) end: usize,
    pub(crate) event: ProbeEvent,
}

pub(crate) struct End {
    pub(crate) probe: LinkProbe,
    clock: LocalClock,
    /// Spacing of data frames that it sends, if any.
    pub(crate) traffic: Option<Duration>,
    next_frame: Instant,
    frozen: bool,
    backlog: Vec<Message>,
    pub(crate) heartbeat_times: Vec<Instant>,
}

pub(crate) struct Pair {
    pub(crate) base: Instant,
    pub(crate) now: Instant,
    pub(crate) ends: [End; 2],
    pub(crate) wires: [Wire; 2],
    pub(crate) told: Vec<Told>,
    random: Random,
    flying: BTreeMap<(Instant, u64), (usize, Message)>,
    sequence: u64,
}

impl Pair {
    pub(crate) fn new(wires: [Wire; 2], seed: u64) -> Self {
        let base = Instant::now();
        let clocks = [
            LocalClock::new(base, Ticks(86_400_123_500_000), 0),
            LocalClock::new(base, Ticks(17), 0),
        ];
        Self::with_clocks(wires, clocks, base, seed)
    }

    pub(crate) fn with_clocks(
        wires: [Wire; 2],
        clocks: [LocalClock; 2],
        base: Instant,
        seed: u64,
    ) -> Self {
        let end = |at: usize| End {
            probe: LinkProbe::new(ProbeConfig::default(), boot(at, 0), clocks[at], base),
            clock: clocks[at],
            traffic: None,
            next_frame: base,
            frozen: false,
            backlog: Vec::new(),
            heartbeat_times: Vec::new(),
        };
        Self {
            base,
            now: base,
            ends: [end(0), end(1)],
            wires,
            told: Vec::new(),
            random: Random::new(seed),
            flying: BTreeMap::new(),
            sequence: 0,
        }
    }

    pub(crate) fn both(&mut self, mut change: impl FnMut(&mut LinkProbe, Instant)) {
        for end in &mut self.ends {
            change(&mut end.probe, self.now);
        }
    }

    /// Starts or stops a stream of frames from an end.
    pub(crate) fn send_every(&mut self, end: usize, spacing: Option<Duration>) {
        self.ends[end].traffic = spacing;
        self.ends[end].next_frame = self.now;
    }

    /// Replaces an end's process by a new one.
    pub(crate) fn restart(&mut self, end: usize, generation: u32) {
        let clock = LocalClock::new(self.now, Ticks(5), 0);
        self.ends[end].clock = clock;
        self.ends[end].probe =
            LinkProbe::new(ProbeConfig::default(), boot(end, generation), clock, self.now);
    }

    pub(crate) fn freeze(&mut self, end: usize) {
        self.ends[end].frozen = true;
    }

    /// Lets a process run again: it notices that it is late, then reads what waited for it.
    pub(crate) fn thaw(&mut self, end: usize) {
        self.thaw_reading_for(end, Duration::ZERO);
    }

    /// The same, and reading takes this long, during which nothing else reaches it.
    pub(crate) fn thaw_reading_for(&mut self, end: usize, reading: Duration) {
        let now = self.now;
        let backlog = {
            let end = &mut self.ends[end];
            end.frozen = false;
            let due = end.probe.poll_timeout().unwrap();
            // Half a heartbeat late is what owners of probes take for a stall.
            let late_by = now.saturating_duration_since(due);
            if late_by > ProbeConfig::default().active / 2 {
                end.probe.handle_stall(late_by, now);
            }
            end.next_frame = end.next_frame.max(now);
            std::mem::take(&mut end.backlog)
        };
        let spacing = reading / u32::try_from(backlog.len().max(1)).unwrap();
        for message in backlog {
            self.deliver(end, message);
            self.drive(end);
            self.now += spacing;
        }
        self.drive(end);
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(next) = self.next_moment().filter(|next| *next < until) {
            self.now = self.now.max(next);
            while let Some(arrival) = self.flying.first_entry() {
                if arrival.key().0 > self.now {
                    break;
                }
                let (to, message) = arrival.remove();
                self.deliver(to, message);
            }
            for end in [0, 1] {
                self.drive(end);
            }
        }
        self.now = until;
    }

    /// When an end first told that a direction became so, since `since`.
    pub(crate) fn first(
        &self,
        end: usize,
        direction: Direction,
        to: State,
        since: Instant,
    ) -> Option<Duration> {
        self.told.iter().filter(|told| told.end == end && told.at >= since).find_map(|told| {
            match told.event {
                ProbeEvent::Changed { direction: which, to: state, .. }
                    if which == direction && state == to =>
                {
                    Some(told.at - since)
                }
                ProbeEvent::Changed { .. } | ProbeEvent::PeerRestarted => None,
            }
        })
    }

    /// Changes to *suspect* or *down* that an end told since `since`.
    pub(crate) fn alarms(&self, end: usize, since: Instant) -> Vec<Told> {
        let is_alarm = |event| match event {
            ProbeEvent::Changed { to, .. } => matches!(to, State::Suspect | State::Down),
            ProbeEvent::PeerRestarted => false,
        };
        let of_end = self.told.iter().filter(|told| told.end == end && told.at >= since);
        of_end.filter(|told| is_alarm(told.event)).copied().collect()
    }

    fn next_moment(&self) -> Option<Instant> {
        let running = self.ends.iter().filter(|end| !end.frozen);
        let due = running.flat_map(|end| {
            [end.probe.poll_timeout(), end.traffic.map(|_| end.next_frame)].into_iter().flatten()
        });
        due.chain(self.flying.keys().next().map(|key| key.0)).min()
    }

    fn deliver(&mut self, to: usize, message: Message) {
        let now = self.now;
        let end = &mut self.ends[to];
        if end.frozen {
            end.backlog.push(message);
            return;
        }
        match message {
            Message::Heartbeat(heartbeat) => end.probe.handle_heartbeat(&heartbeat, now),
            Message::Data(lane, number, bytes) => end.probe.handle_frame(lane, number, bytes, now),
        }
        self.collect_events(to);
    }

    fn drive(&mut self, at: usize) {
        let now = self.now;
        if self.ends[at].frozen {
            return;
        }
        self.ends[at].probe.handle_timeout(now);
        if let Some(spacing) = self.ends[at].traffic {
            while self.ends[at].next_frame <= now {
                self.ends[at].next_frame += spacing;
                let number = self.ends[at].probe.handle_sent(Lane::Realtime);
                self.send(at, Message::Data(Lane::Realtime, number, 200));
            }
        }
        while let Some(heartbeat) = self.ends[at].probe.poll_transmit(now) {
            self.ends[at].heartbeat_times.push(now);
            self.send(at, Message::Heartbeat(heartbeat));
        }
        self.collect_events(at);
    }

    fn send(&mut self, from: usize, message: Message) {
        let wire = &self.wires[from];
        let is_heartbeat = matches!(message, Message::Heartbeat(_));
        let lost = self.random.share() < wire.loss;
        if lost || wire.cut || wire.light_lane_cut && is_heartbeat {
            return;
        }
        let arrival = self.now + wire.delay + wire.jitter.mul_f64(self.random.share());
        self.sequence += 1;
        self.flying.insert((arrival, self.sequence), (1 - from, message));
    }

    fn collect_events(&mut self, end: usize) {
        while let Some(event) = self.ends[end].probe.poll_event() {
            self.told.push(Told { at: self.now, end, event });
        }
    }
}

pub(crate) fn boot(end: usize, generation: u32) -> BootId {
    BootId(u32::try_from(end).unwrap() + 1 + 10 * generation)
}
