//! One end of one neighbour link.

use std::cell::Cell;
use std::time::{Duration, Instant};

use overway_wire::hop::{Heard, Heartbeat, Lane};
use overway_wire::{BitsPerSec, BootId, ClockDiff, Micros, Millis, Ticks};

use crate::liveness::{Inbound, Limits, Outbound};
use crate::loss::{Numbers, Tally};
use crate::schedule::Schedule;
use crate::window::{Timing, Windows};
use crate::{Direction, LocalClock, ProbeConfig, Rate, State, Stats, WindowStats};

/// Round trips above this are no measurement: the neighbour's numbers are wrong, or it holds echoes from before an
/// outage.
const RTT_MAX: Duration = Duration::from_secs(60);
/// Least time after a stall of our own in which nothing is measured: what is read now waited for us in a buffer,
/// and part of what arrived meanwhile did not fit into it.
const STALL_SETTLE_MIN: Duration = Duration::from_millis(50);
/// Most of it: the longer the stall the more there is to read, as far as the buffers go.
const STALL_SETTLE_MAX: Duration = Duration::from_millis(300);

/// What a probe has to tell its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeEvent {
    /// The neighbour is a new process: nothing that the old one held or said counts any more.
    PeerRestarted,
    /// The liveness of a direction changed. Changes between two polls are told as one.
    Changed {
        /// Which direction.
        direction: Direction,
        /// The state told last.
        from: State,
        /// The state now.
        to: State,
    },
}

/// Data messages with consecutive numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbered {
    /// The first number.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// Bytes of all.
    pub bytes: usize,
}

/// What the newest heartbeat of the neighbour said of itself.
#[derive(Clone, Copy, Debug)]
struct Peer {
    boot: BootId,
    number: u32,
    sent: Ticks,
}

/// One end of one neighbour link: schedules its heartbeats, judges both directions, measures the inbound one.
///
/// After every call its owner asks [`Self::poll_transmit`], [`Self::poll_event`] and [`Self::poll_timeout`]. It holds a
/// fixed amount of memory, whatever arrives.
#[derive(Debug)]
pub struct LinkProbe {
    config: ProbeConfig,
    boot: BootId,
    clock: LocalClock,
    schedule: Schedule,
    heartbeat_number: u32,
    sent_next: [u32; Lane::ALL.len()],
    acknowledged: [u32; Lane::DATA.len()],
    complete: [u32; Lane::DATA.len()],
    /// Whether the neighbour's last heartbeat said what is complete.
    recovers: bool,
    peer: Option<Peer>,
    boot_before: Option<BootId>,
    /// `sent` of the last heartbeat whose arrival was timed, and when it arrived.
    echo: Option<(Ticks, Instant)>,
    inbound: Inbound,
    /// When the neighbour was last told at what interval it is to send.
    asked: Ticks,
    outbound: Outbound,
    heartbeats: Numbers,
    lanes: [Numbers; Lane::ALL.len()],
    windows: Windows,
    /// The limits that were made last, of this interval and deviation.
    limits: Cell<Option<(Duration, Duration, Limits)>>,
    settling_until: Option<Instant>,
    restart_untold: bool,
    /// The neighbour's numbers began anew since this was last asked.
    renumbered: bool,
    told: [(Direction, State); 2],
    stats: Stats,
}

impl LinkProbe {
    /// Makes a probe at rate [`Rate::Idle`] whose first heartbeat is due at once. `boot` is this process's.
    pub fn new(config: ProbeConfig, boot: BootId, clock: LocalClock, now: Instant) -> Self {
        Self {
            boot,
            clock,
            schedule: Schedule::new(config.interval(Rate::default()), now),
            heartbeat_number: 0,
            sent_next: [0; Lane::ALL.len()],
            acknowledged: [0; Lane::DATA.len()],
            complete: [0; Lane::DATA.len()],
            recovers: false,
            renumbered: false,
            peer: None,
            boot_before: None,
            echo: None,
            inbound: Inbound::new(config.idle),
            asked: Ticks::default(),
            outbound: Outbound::default(),
            heartbeats: Numbers::default(),
            lanes: Default::default(),
            windows: Windows::new(&config, now),
            limits: Cell::new(None),
            settling_until: None,
            restart_untold: false,
            told: [(Direction::Inbound, State::Unknown), (Direction::Outbound, State::Unknown)],
            stats: Stats::default(),
            config,
        }
    }

    /// Sets how urgently this end needs to know of a failure. The neighbour is told at once if that is more urgent
    /// than before; if it does not answer within a round trip and half an interval it is suspect, and
    /// down two intervals and a round trip later.
    pub fn set_rate(&mut self, rate: Rate, now: Instant) {
        let need = self.config.interval(rate);
        if need != self.schedule.need() {
            self.asked = self.clock.read(now);
            let patience = self.windows.round_trip_bound().saturating_add(self.config.answer_grace);
            self.inbound.ask(need, patience, now);
        }
        let left = self.schedule.set_need(need, now);
        self.excuse_slower_cadence(left, now);
    }

    /// Takes a heartbeat of the neighbour. Its fields may be anything.
    pub fn handle_heartbeat(&mut self, heartbeat: &Heartbeat, now: Instant) {
        if self.peer.is_some() && self.boot_before == Some(heartbeat.boot) {
            self.stats.heartbeats_old_boot += 1;
            return;
        }
        match self.peer {
            None => self.schedule.hurry(now),
            Some(peer) if peer.boot != heartbeat.boot => self.handle_restart(peer.boot, now),
            Some(peer) => {
                let counts_on = heartbeat.number.wrapping_sub(peer.number).cast_signed() > 0;
                let is_later = heartbeat.sent > peer.sent;
                if !counts_on && !is_later {
                    self.stats.heartbeats_late += 1;
                    self.handle_life(now);
                    self.count(now, |probe, counting, tally| {
                        probe.heartbeats.handle_number(heartbeat.number, counting, now, tally);
                    });
                    return;
                }
                if !counts_on {
                    // The same process made a new probe of this link, which counts from zero.
                    self.forget_numbers();
                }
            }
        }
        self.stats.heartbeats_received += 1;
        let Heartbeat { boot, number, sent, .. } = *heartbeat;
        self.peer = Some(Peer { boot, number, sent });
        self.inbound.set_interval(self.config.bounded(heartbeat.interval.into()));
        if heartbeat.heard.is_some_and(|heard| heard.echo >= self.asked) {
            self.inbound.end_question();
        }
        self.handle_life(now);
        let left =
            self.schedule.set_wanted(Some(self.config.bounded(heartbeat.wanted.into())), now);
        self.excuse_slower_cadence(left, now);
        self.handle_timing(heartbeat, now);
        self.handle_numbers(heartbeat, now);
        self.handle_acknowledged(heartbeat);
        self.handle_report(heartbeat, now);
    }

    /// Takes note of an authenticated data message: a sign of life, a number, and `bytes` for the received rate.
    pub fn handle_frame(&mut self, lane: Lane, number: u32, bytes: usize, now: Instant) {
        self.handle_frames(lane, Numbered { first: number, count: 1, bytes }, now);
    }

    /// Takes note of authenticated data messages with consecutive numbers that were read at the same moment, as
    /// [`Self::handle_frame`] does of each.
    pub fn handle_frames(&mut self, lane: Lane, run: Numbered, now: Instant) {
        self.count_frames(run.count, run.bytes, now);
        self.count(now, |probe, counting, tally| {
            probe.lanes[place(lane)].handle_run((run.first, run.count), counting, now, tally);
        });
    }

    /// Takes note of an authenticated data message that was overtaken, of which the caller knows that it did not come
    /// before: as [`Self::handle_frame`] does, however late it is.
    pub fn handle_late(&mut self, lane: Lane, number: u32, bytes: usize, now: Instant) {
        self.count_frames(1, bytes, now);
        self.count(now, |probe, counting, tally| {
            probe.lanes[place(lane)].handle_late(number, counting, now, tally);
        });
    }

    /// Takes note of an authenticated data message that was sent again, or came twice: a sign of life, and `bytes`
    /// for the received rate. For the line's loss the first of its kind is what counts, and that was lost.
    pub fn handle_resent(&mut self, lane: Lane, number: u32, bytes: usize, now: Instant) {
        self.count_frames(1, bytes, now);
        self.lanes[place(lane)].handle_resent(number);
    }

    /// Takes the neighbour's word, between two heartbeats, of what it has received of a data lane and what of that is
    /// complete; it moves what a heartbeat would.
    pub fn handle_received(
        &mut self,
        lane: Lane,
        received_next: u32,
        complete_next: u32,
        now: Instant,
    ) {
        self.handle_life(now);
        self.acknowledge(lane, received_next, complete_next);
    }

    /// One more than the greatest number received of a lane, zero if none.
    #[inline]
    pub fn received_next(&self, lane: Lane) -> u32 {
        self.lanes[place(lane)].received_next()
    }

    /// Takes note of an authenticated message that says nothing about the link: a sign of life.
    pub fn handle_message(&mut self, now: Instant) {
        self.handle_life(now);
    }

    /// Whether the neighbour began to count anew since this was last asked: its process was started anew, or made
    /// a new probe of this link.
    pub fn take_renumbered(&mut self) -> bool {
        std::mem::take(&mut self.renumbered)
    }

    /// Allocates the number of a data message that is about to be sent.
    #[inline]
    pub fn handle_sent(&mut self, lane: Lane) -> u32 {
        let next = &mut self.sent_next[place(lane)];
        let number = *next;
        *next = number.wrapping_add(1);
        number
    }

    /// How many data messages were sent on a lane: the next number, wrapping.
    pub fn sent_next(&self, lane: Lane) -> u32 {
        self.sent_next[place(lane)]
    }

    /// Judges both directions by the silence until `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let before = self.inbound.state();
        self.inbound.handle_timeout(self.inbound_limits(), now);
        let after = self.inbound.state();
        if before != after {
            // The other end learns at once that it is not heard, not only with the next periodic heartbeat.
            self.schedule.hurry(now);
            match after {
                State::Unknown | State::Up => {}
                State::Suspect => self.stats.suspects += 1,
                State::Down => self.handle_inbound_down(now),
            }
        }
        self.outbound.handle_timeout(self.report_limits(), now);
    }

    /// This process slept: moves all silence limits by `late_by`, excuses what the neighbour will say about our own
    /// silence, and measures nothing until the backlog is read.
    pub fn handle_stall(&mut self, late_by: Duration, now: Instant) {
        self.stats.stalls += 1;
        self.inbound.handle_stall(late_by, now);
        self.outbound.handle_stall(late_by, now);
        let settle = late_by.clamp(STALL_SETTLE_MIN, STALL_SETTLE_MAX);
        self.excuse(late_by, settle, now);
        self.settling_until = now.checked_add(settle);
    }

    /// The heartbeat that is due, if any. Its times are those of this moment: it must leave at once. Whoever recovers
    /// frames adds what is complete.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Heartbeat> {
        self.poll_transmit_due(now, now)
    }

    /// As [`Self::poll_transmit`], with one that is due at `due` at the latest, later than `now`: whoever is awake anyway
    /// need not be woken for it. The next one leaves when it would have.
    pub fn poll_transmit_due(&mut self, due: Instant, now: Instant) -> Option<Heartbeat> {
        if !self.schedule.take(due) {
            return None;
        }
        self.stats.heartbeats_sent += 1;
        let number = self.heartbeat_number;
        self.heartbeat_number = number.wrapping_add(1);
        let heard = self.echo.map(|(echo, at)| Heard {
            echo,
            held: Micros::from(now.saturating_duration_since(at)),
            silence: self.inbound.silence(now).map_or(Micros::MAX, Micros::from),
        });
        Some(Heartbeat {
            boot: self.boot,
            number,
            sent: self.clock.read(now),
            heard,
            interval: Millis::from(self.schedule.announced()),
            wanted: Millis::from(self.schedule.need()),
            sent_next: Lane::DATA.map(|lane| self.sent_next(lane)),
            received_next: Lane::DATA.map(|lane| self.received_next(lane)),
            complete_next: None,
            lost: None,
            repairs: false,
        })
    }

    /// The next thing to tell, if any.
    pub fn poll_event(&mut self) -> Option<ProbeEvent> {
        if std::mem::take(&mut self.restart_untold) {
            return Some(ProbeEvent::PeerRestarted);
        }
        let (inbound, outbound) = (self.inbound(), self.outbound());
        for (direction, told) in &mut self.told {
            let to = match direction {
                Direction::Inbound => inbound,
                Direction::Outbound => outbound,
            };
            let from = std::mem::replace(told, to);
            if from != to {
                return Some(ProbeEvent::Changed { direction: *direction, from, to });
            }
        }
        None
    }

    /// When a heartbeat is due or silence must be judged. A moment that has passed means now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [
            self.inbound.poll_timeout(self.inbound_limits()),
            self.outbound.poll_timeout(self.report_limits()),
        ];
        deadlines.into_iter().flatten().chain([self.schedule.due()]).min()
    }

    /// Whether we hear the neighbour.
    #[inline]
    pub fn inbound(&self) -> State {
        self.inbound.state()
    }

    /// Whether the neighbour was asked to send oftener and has not answered yet: it may have gone since it was last heard,
    /// which was long enough ago for what the link carries now.
    #[inline]
    pub fn is_asking(&self) -> bool {
        self.inbound.is_asking()
    }

    /// Whether the neighbour hears us, by its heartbeats. Never better than *suspect* or *down* while the inbound
    /// direction is: then we cannot know. `Unknown` until it said so once since its start.
    #[inline]
    pub fn outbound(&self) -> State {
        let reported = self.outbound.reported();
        match (reported, self.inbound.state()) {
            (State::Unknown, _) | (_, State::Unknown | State::Up) => reported,
            (State::Up | State::Suspect | State::Down, inbound) => reported.max(inbound),
        }
    }

    /// One more than the greatest number of a lane that the neighbour says it received; frames from this on are
    /// unacknowledged. Always zero for the light lane, whose notices are never replayed.
    pub fn acknowledged(&self, lane: Lane) -> u32 {
        lane.data_index().map_or(0, |at| self.acknowledged[at])
    }

    /// The first number of a lane that the neighbour may still ask for again; what is before it need not be kept.
    /// One that recovers nothing asks for nothing.
    pub fn complete(&self, lane: Lane) -> u32 {
        if !self.recovers {
            return self.acknowledged(lane);
        }
        lane.data_index().map_or(0, |at| self.complete[at])
    }

    /// Whether the neighbour asks for frames that it misses, and answers such questions.
    #[inline]
    pub fn recovers(&self) -> bool {
        self.recovers
    }

    /// The inbound direction over the fast and the slow window.
    pub fn windows(&self, now: Instant) -> (WindowStats, WindowStats) {
        self.windows.stats(now)
    }

    /// Bits of frames received per second over the fast window.
    pub fn received_bps(&self, now: Instant) -> BitsPerSec {
        self.windows.received(now)
    }

    /// What was counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn count_frames(&mut self, count: u32, bytes: usize, now: Instant) {
        self.stats.frames_received += u64::from(count);
        self.stats.bytes_received = self.stats.bytes_received.saturating_add(bytes as u64);
        self.windows.handle_bytes(bytes, now);
        self.handle_life(now);
    }

    fn handle_life(&mut self, now: Instant) {
        // What is read together is one sign of life.
        let heard_now = self.inbound.silence(now) == Some(Duration::ZERO);
        if heard_now && self.inbound.state() == State::Up {
            return;
        }
        self.inbound.handle_sign(&self.config, self.inbound_limits(), now);
    }

    /// Counts nothing of the outage as loss, and stops sending at the rate that a neighbour wanted who is gone.
    fn handle_inbound_down(&mut self, now: Instant) {
        self.stats.downs += 1;
        self.inbound.end_question();
        self.outbound.handle_inbound_down();
        self.schedule.set_wanted(None, now);
        self.heartbeats.forgive();
        for lane in &mut self.lanes {
            lane.forgive();
        }
    }

    fn handle_restart(&mut self, old: BootId, now: Instant) {
        self.stats.peer_restarts += 1;
        self.boot_before = Some(old);
        self.restart_untold = true;
        self.echo = None;
        self.windows = Windows::new(&self.config, now);
        self.inbound.end_question();
        self.outbound.handle_unheard();
        self.forget_numbers();
        self.schedule.hurry(now);
    }

    fn forget_numbers(&mut self) {
        self.renumbered = true;
        self.heartbeats = Numbers::default();
        self.lanes = Default::default();
    }

    fn handle_timing(&mut self, heartbeat: &Heartbeat, now: Instant) {
        if self.is_settling(now) {
            return;
        }
        let ticks = self.clock.read(now);
        self.echo = Some((heartbeat.sent, now));
        let rtt = heartbeat.heard.and_then(|heard| {
            let held = Duration::from(heard.held);
            let round = ticks.0.checked_sub(heard.echo.0).map(Duration::from_micros);
            let rtt = round.and_then(|round| round.checked_sub(held)).filter(|r| *r <= RTT_MAX);
            if rtt.is_none() {
                self.stats.rtt_ignored += 1;
            }
            rtt
        });
        match self.windows.handle_timing(ClockDiff::between(heartbeat.sent, ticks), rtt, now) {
            Timing::Taken => {}
            Timing::Ignored => self.stats.timings_ignored += 1,
            Timing::StartedOver => self.stats.clock_steps += 1,
        }
    }

    fn handle_numbers(&mut self, heartbeat: &Heartbeat, now: Instant) {
        self.count(now, |probe, counting, tally| {
            probe.heartbeats.handle_number(heartbeat.number, counting, now, tally);
            for (lane, sent_next) in Lane::DATA.into_iter().zip(heartbeat.sent_next) {
                probe.lanes[place(lane)].handle_announced(sent_next, counting, now, tally);
            }
        });
    }

    fn handle_acknowledged(&mut self, heartbeat: &Heartbeat) {
        self.recovers = heartbeat.complete_next.is_some();
        let complete_next = heartbeat.complete_next.unwrap_or(self.complete);
        for (at, lane) in Lane::DATA.into_iter().enumerate() {
            self.acknowledge(lane, heartbeat.received_next[at], complete_next[at]);
        }
    }

    /// An acknowledgement may only move forward, and not beyond what was sent.
    fn acknowledge(&mut self, lane: Lane, received_next: u32, complete_next: u32) {
        let Some(at) = lane.data_index() else { return };
        let sent_next = self.sent_next[place(lane)];
        let said =
            [(&mut self.acknowledged[at], received_next), (&mut self.complete[at], complete_next)];
        for (known, said) in said {
            let was_sent = sent_next.wrapping_sub(said).cast_signed() >= 0;
            let is_newer = said.wrapping_sub(*known).cast_signed() > 0;
            if was_sent && is_newer {
                *known = said;
            }
        }
    }

    fn handle_report(&mut self, heartbeat: &Heartbeat, now: Instant) {
        let Some(heard) = heartbeat.heard else {
            self.outbound.handle_unheard();
            return;
        };
        let interval = self.schedule.announced();
        let limits = Limits::new(&self.config, interval, self.windows.outbound_deviation());
        self.outbound.handle_report(&self.config, heard.silence.into(), interval, limits, now);
    }

    /// After going faster, the neighbour still reports the silence of the old cadence for a round trip.
    fn excuse_slower_cadence(&mut self, left: Option<Duration>, now: Instant) {
        if let Some(cadence) = left {
            self.excuse(cadence, Duration::ZERO, now);
        }
    }

    /// Excuses `extra` of reported silence; what is read within `reading` may have been waiting here.
    fn excuse(&mut self, extra: Duration, reading: Duration, now: Instant) {
        let flight = self.windows.round_trip_bound().saturating_add(reading);
        self.outbound.excuse(extra, flight, self.schedule.announced(), now);
    }

    fn inbound_limits(&self) -> Limits {
        self.limits(self.inbound.interval())
    }

    /// The limits for the reports that the neighbour sends with its heartbeats.
    fn report_limits(&self) -> Limits {
        self.limits(self.inbound.announced())
    }

    fn limits(&self, interval: Duration) -> Limits {
        let deviation = self.windows.inbound_deviation();
        match self.limits.get() {
            Some((of, at, limits)) if (of, at) == (interval, deviation) => limits,
            _ => {
                let limits = Limits::new(&self.config, interval, deviation);
                self.limits.set(Some((interval, deviation, limits)));
                limits
            }
        }
    }

    fn is_settling(&self, now: Instant) -> bool {
        self.settling_until.is_some_and(|until| now < until)
    }

    /// Lets `take` count numbers: nothing before the first heartbeat, while down, or after a stall of our own.
    fn count(&mut self, now: Instant, take: impl FnOnce(&mut Self, bool, &mut Tally)) {
        let heard = match self.inbound.state() {
            State::Unknown | State::Down => false,
            State::Up | State::Suspect => self.peer.is_some(),
        };
        let counting = heard && !self.is_settling(now);
        let mut tally = Tally::default();
        take(self, counting, &mut tally);
        if tally == Tally::default() {
            return;
        }
        self.stats.handle_tally(tally);
        self.windows.handle_tally(tally, now);
    }
}

/// A lane's place in arrays of all lanes.
const fn place(lane: Lane) -> usize {
    lane.code() as usize
}
