//! The relay's verbs: what comes in, what goes out, and when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use overway_probe::{Numbered, ProbeEvent, State};
use overway_wire::control::{Ack, LinkReport, Report, Update};
use overway_wire::hop::{self, DATA_PREFIX_BYTES, HopMessage, Lane};
use overway_wire::{Class, NeighbourLink, RelayId};

use crate::demand::Demands;
use crate::failover::Touched;
use crate::lines::Lines;
use crate::link::{Allowance, LaneKey, Link, PathMtu, Usability};
use crate::notices::Notices;
use crate::pushed::{Pushed, PushedError};
use crate::recovery::RecoveryStats;
use crate::report::{Held, Reporter};
use crate::shard::{self, Handed, Heir, Loads};
use crate::stats::{add_lanes, sum_probes};
use crate::timers::Timers;
use crate::trace::AnswerBudget;
use crate::writer::Writer;
use crate::{
    Config, Counts, DropReason, Event, Fib, LocalFrame, QueueStats, Settings, Stats, Transmit,
};

/// What is due so soon is looked at while this process is awake for frames: heartbeats leave now, and what frames have put
/// off meanwhile rings no more. To be woken costs as much as to forward many frames.
pub const AHEAD: Duration = Duration::from_millis(2);
/// Late by more than half a heartbeat of an active link: this process slept.
const LATE: Duration = Duration::from_millis(15);
/// What waits to be read after a long pause is thrown away for this long at most: it is older than the
/// pause, and the neighbours have sent it elsewhere.
const STALE_READING_MAX: Duration = Duration::from_millis(300);
/// Short messages that wait for the shell; beyond it the oldest is dropped, since the next heartbeat
/// says it better. Bounds a shell that does not poll.
const LIGHT_QUEUE_MAX: usize = 4_096;

/// A relay without its sockets. See the crate's documentation for the model.
#[derive(Debug)]
pub struct Relay {
    pub(crate) config: Config,
    pub(crate) pushed: Pushed,
    pub(crate) fib: Arc<Fib>,
    pub(crate) links: BTreeMap<NeighbourLink, Link>,
    pub(crate) notices: Notices,
    pub(crate) stats: Stats,
    pub(crate) reporter: Reporter,
    pub(crate) demands: Demands,
    /// Links that are suspect or down, since they first were; entries end when the link is up or opened
    /// anew, or is none of this relay's any more.
    pub(crate) silent_since: BTreeMap<NeighbourLink, Instant>,
    events: VecDeque<Event>,
    pub(crate) light: VecDeque<Transmit>,
    /// Lanes with queued frames; realtime before bulk.
    pub(crate) queued: BTreeSet<(Lane, NeighbourLink)>,
    pub(crate) lines: Lines,
    pub(crate) timers: Timers,
    /// What the queues of links that are no more have counted.
    pub(crate) queues_ended: [QueueStats; Class::ALL.len()],
    /// What the probes of links that are no more have counted.
    probes_ended: overway_probe::Stats,
    /// What was recovered on each data lane of these.
    recovery_ended: [RecoveryStats; Lane::DATA.len()],
    stale_until: Option<Instant>,
    /// Where hop messages with frames are written.
    pub(crate) writer: Writer,
    /// What other shards are to take.
    pub(crate) handed: VecDeque<(Heir, Handed)>,
    /// Whether a link has several shards, so that there are several cores.
    pub(crate) has_shards: bool,
    /// What they said of their load.
    pub(crate) loads: Loads,
    /// How many probes of traces may be answered now.
    pub(crate) answers: AnswerBudget,
    /// Of the datagrams that are being read, those that came in order and that the link's probe was not told of yet.
    pub(crate) arrived: Numbered,
    /// The two neighbours touched last: frames that come together touch theirs once.
    pub(crate) touched: [Option<Touched>; 2],
}

impl Relay {
    /// Makes a relay that knows nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            reporter: Reporter::new(config.local, config.report_interval),
            demands: Demands::default(),
            config,
            pushed: Pushed::default(),
            fib: Arc::default(),
            links: BTreeMap::new(),
            notices: Notices::new(),
            stats: Stats::default(),
            silent_since: BTreeMap::new(),
            events: VecDeque::new(),
            light: VecDeque::new(),
            queued: BTreeSet::new(),
            lines: Lines::default(),
            timers: Timers::default(),
            queues_ended: Default::default(),
            probes_ended: overway_probe::Stats::default(),
            recovery_ended: Default::default(),
            stale_until: None,
            writer: Writer::default(),
            handed: VecDeque::new(),
            has_shards: false,
            loads: Loads::new(),
            answers: AnswerBudget::default(),
            arrived: Numbered::default(),
            touched: [None; 2],
        }
    }

    /// This relay's id.
    pub fn local(&self) -> RelayId {
        self.config.local
    }

    /// The table that frames follow now.
    pub fn fib(&self) -> &Arc<Fib> {
        &self.fib
    }

    /// The pushed state, to save and to say hello with.
    pub fn pushed(&self) -> &Pushed {
        &self.pushed
    }

    /// Counters since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What the probes of all links counted since the start, those that ended included.
    pub fn probe_stats(&self) -> overway_probe::Stats {
        let live = self.links.values().map(|link| link.probe.stats());
        sum_probes(live.chain([&self.probes_ended]))
    }

    /// What recovery counted on all links since the start, those that ended included: for each data lane, in the
    /// order of [`Lane::DATA`].
    pub fn recovery_stats(&self) -> [RecoveryStats; Lane::DATA.len()] {
        let mut sums = self.recovery_ended;
        self.links.values().for_each(|link| add_lanes(&mut sums, &link.recovery_stats()));
        sums
    }

    /// All of these counters, and those of the queues.
    pub fn counts(&self) -> Counts {
        Counts {
            stats: self.stats,
            probes: self.probe_stats(),
            recovery: self.recovery_stats(),
            queues: self.queue_stats(),
        }
    }

    /// What recovery counted on one link since it was opened, for each data lane.
    pub fn link_recovery(&self, link: NeighbourLink) -> Option<[RecoveryStats; Lane::DATA.len()]> {
        self.links.get(&link).map(Link::recovery_stats)
    }

    /// Every link that is held or should be, as the scheduler is told of it.
    pub fn link_reports(&self, now: Instant) -> Vec<LinkReport> {
        self.held().describe(now)
    }

    /// Whether a flow's frame went or came over a link lately.
    pub fn is_active(&self, link: NeighbourLink) -> bool {
        self.links.get(&link).is_some_and(|link| link.active_until().is_some())
    }

    /// State of a link's two directions, inbound first, or `None` while its light lane does not stand.
    pub fn link_state(&self, link: NeighbourLink) -> Option<(State, State)> {
        self.links.get(&link).map(|link| (link.probe.inbound(), link.outbound()))
    }

    /// Applies an update, or says that a full one is needed.
    pub fn handle_update(&mut self, update: Update, now: Instant) -> Ack {
        match self.restore(update, now) {
            Ok(()) => Ack { revision: self.pushed.revision(), resync: false },
            Err(_) => Ack { revision: self.pushed.revision(), resync: true },
        }
    }

    /// Applies an update, or says why not: for the state read from disk at start.
    ///
    /// # Errors
    /// As [`Pushed::apply`].
    pub fn restore(&mut self, update: Update, now: Instant) -> Result<(), PushedError> {
        self.notice_stall(now);
        let applied = self.pushed.apply(update);
        let changed = applied.inspect_err(|_| self.stats.updates_refused += 1)?;
        self.stats.updates_applied += 1;
        let fib = self.fib.updated(&self.pushed, &changed, self.config.local);
        self.follow(Arc::new(fib), now);
        Ok(())
    }

    /// Follows a table that the lead of this relay's shards has made of an update.
    pub fn handle_fib(&mut self, fib: Arc<Fib>, now: Instant) {
        self.notice_stall(now);
        self.follow(fib, now);
    }

    fn follow(&mut self, fib: Arc<Fib>, now: Instant) {
        self.silent_since.retain(|key, _| fib.peers.contains_key(key));
        for (&key, link) in &mut self.links {
            let peer = fib.peers.get(&key);
            link.set_candidate(peer.is_some_and(|peer| peer.candidate), now);
            link.allow(Allowance::new(&self.config, key, peer), now);
            link.line = self.lines.of(peer.map_or(0, |peer| peer.local_address));
        }
        let workers = self.config.shard.workers;
        self.has_shards =
            self.config.lines.is_some() && fib.peers.values().any(|peer| peer.shards(workers) > 1);
        self.fib = fib;
        self.settle_all(now);
        self.events.push_back(Event::FibChanged);
    }

    /// Goes on with other settings. Links and what is queued stay; what was already sent on a line counts as it did.
    pub fn handle_settings(&mut self, settings: Settings, now: Instant) {
        self.notice_stall(now);
        let Settings { transit, fec, lines_bps } = settings;
        (self.config.transit, self.config.fec, self.config.lines_bps) = (transit, fec, lines_bps);
        self.links.values_mut().for_each(|link| link.set_fec(fec));
        self.lines.set(&self.config, now);
        self.settle_all(now);
    }

    /// A scheduler's control connection stands: reports start anew, with a full one at once.
    pub fn handle_scheduler_connected(&mut self, now: Instant) {
        self.notice_stall(now);
        self.reporter.start(now);
    }

    /// How often the scheduler wants reports, from now on; kept within [`crate::REPORT_INTERVAL_RANGE`].
    pub fn set_report_interval(&mut self, interval: Duration) {
        self.reporter.set_interval(interval);
    }

    /// The report that was polled last could not be handed on: what it said is said again.
    pub fn handle_report_lost(&mut self, now: Instant) {
        self.reporter.repeat(now);
    }

    /// No scheduler is connected: nothing is reported, nothing else changes.
    pub fn handle_scheduler_lost(&mut self) {
        self.reporter.stop();
    }

    /// A link's light lane stands, anew: its measurements and numbers start over.
    pub fn handle_link_opened(&mut self, key: NeighbourLink, now: Instant) {
        self.notice_stall(now);
        let was_lost = self.links.contains_key(&key) || self.silent_since.contains_key(&key);
        self.handle_link_closed(key, now);
        self.silent_since.remove(&key);
        let peer = self.fib.peers.get(&key);
        let candidate = peer.is_some_and(|peer| peer.candidate);
        self.lines.open(&self.config, now);
        let allowance = Allowance::new(&self.config, key, peer);
        let mut link = Link::new(&self.config, allowance, candidate, now);
        link.line = self.lines.of(peer.map_or(0, |peer| peer.local_address));
        link.was_lost = was_lost;
        self.links.insert(key, link);
        self.touched = [None; 2];
        self.settle(key, now);
    }

    /// The shell found out how long a packet gets through to a neighbour. Frames avoid a link that is too narrow for
    /// them, and the scheduler is told at once.
    pub fn handle_mtu(&mut self, key: NeighbourLink, mtu: PathMtu, now: Instant) {
        self.notice_stall(now);
        let changed = self.links.get_mut(&key).is_some_and(|link| link.set_mtu(mtu));
        if changed {
            self.reporter.urge(now);
            self.settle(key, now);
        }
    }

    /// A link's light lane is gone: what the neighbour has not acknowledged takes a detour.
    pub fn handle_link_closed(&mut self, key: NeighbourLink, now: Instant) {
        self.notice_stall(now);
        if let Some(mut link) = self.links.remove(&key) {
            self.timers.cancel(key);
            self.probes_ended = sum_probes([&self.probes_ended, link.probe.stats()].into_iter());
            add_lanes(&mut self.recovery_ended, &link.recovery_stats());
            self.reporter.urge(now);
            // A process that was started anew has no ends at first.
            self.notices.doubt(key.neighbour, self.config.notice_hold, now);
            self.end_queues(&link);
            self.abandon(&mut link, now);
            let (inbound, outbound) = (State::Down, State::Down);
            self.events.push_back(Event::LinkChanged { link: key, inbound, outbound });
        }
    }

    /// A data lane's connection stands, or no longer does. What a connection that was replaced had not
    /// brought over is sent again on the new one.
    pub fn handle_lane(&mut self, (key, lane): LaneKey, open: bool, now: Instant) {
        let Some((state, recovery)) =
            self.links.get_mut(&key).and_then(|link| link.recovering(lane))
        else {
            return;
        };
        state.open = open;
        state.wanted = false;
        if open {
            recovery.coder.forget();
            state.requeue_unacknowledged(now);
            if !state.is_empty() {
                self.mark_queued((key, lane));
            }
        }
    }

    /// A datagram came from an authenticated neighbour.
    pub fn handle_datagram(&mut self, key: LaneKey, datagram: &Bytes, now: Instant) {
        self.handle_datagrams(key, std::iter::once(datagram.clone()), now);
    }

    /// Datagrams that were read together came from an authenticated neighbour, in this order.
    pub fn handle_datagrams(
        &mut self,
        (key, lane): LaneKey,
        datagrams: impl Iterator<Item = Bytes>,
        now: Instant,
    ) {
        self.notice_stall(now);
        let Some(link) = self.links.get_mut(&key) else {
            return datagrams.for_each(|_| self.stats.drop(DropReason::UnknownLink));
        };
        link.heard = Some(now);
        datagrams.for_each(|datagram| self.take_datagram((key, lane), datagram, now));
        self.tell_arrived((key, lane), now);
        self.tell_received((key, lane), now);
        self.settle(key, now);
        self.look_ahead(now);
    }

    /// See [`AHEAD`].
    fn look_ahead(&mut self, now: Instant) {
        let soon = now + AHEAD;
        while let Some(key) = self.timers.take_soon(now, soon) {
            self.settle_due(key, soon, now);
            if self.timers.first().is_some_and(|first| first <= soon) {
                // What is left has to wait for its time.
                return;
            }
        }
    }

    /// Tells a neighbour what was received of a lane, if much was since it was last told.
    fn tell_received(&mut self, (key, lane): LaneKey, now: Instant) {
        let received = self.links.get_mut(&key).and_then(|link| link.poll_received(lane, now));
        if let Some((received_next, complete_next)) = received {
            let mut message = BytesMut::with_capacity(16);
            hop::encode_received(lane, received_next, complete_next, &mut message);
            // On that very lane: there it shares a packet with what QUIC acknowledges.
            self.push_first(Transmit { link: key, lane, message: message.freeze() });
        }
    }

    fn take_datagram(&mut self, (key, lane): LaneKey, mut datagram: Bytes, now: Instant) {
        match HopMessage::decode(&datagram) {
            Ok(HopMessage::Heartbeat(heartbeat)) if lane == Lane::Light => {
                if let Some(link) = self.links.get_mut(&key) {
                    link.probe.handle_heartbeat(&heartbeat, now);
                    link.acknowledge(&heartbeat, now);
                }
                self.hear_sent(key, heartbeat.sent_next, now);
            }
            Ok(HopMessage::Nack { lane: about, ranges }) if lane == Lane::Light => {
                self.hear_nack((key, about), &ranges, now);
            }
            Ok(HopMessage::Tail { lane: about, next }) if lane == Lane::Light => {
                self.hear_tail((key, about), next, now);
            }
            Ok(HopMessage::Received { lane: about, received_next, complete_next })
                if lane == Lane::Light || lane == about =>
            {
                if let Some(link) = self.links.get_mut(&key) {
                    link.probe.handle_received(about, received_next, complete_next, now);
                    link.forget_complete(about);
                }
            }
            Ok(
                HopMessage::Heartbeat(_)
                | HopMessage::Nack { .. }
                | HopMessage::Received { .. }
                | HopMessage::Tail { .. },
            ) => self.stats.drop(DropReason::WrongLane),
            Ok(HopMessage::Padding) => {}
            Ok(HopMessage::Data { number, .. }) => {
                let taken = self.handle_data((key, lane), number, datagram, now);
                self.count_drop(taken);
            }
            Ok(HopMessage::Repair(repair)) => {
                let taken = self.handle_repair((key, lane), &repair, now);
                self.count_drop(taken);
            }
            Ok(HopMessage::Twin { number, .. }) => {
                datagram.advance(DATA_PREFIX_BYTES);
                let taken = self.handle_twin((key, lane), number, datagram, now);
                self.count_drop(taken);
            }
            Ok(HopMessage::Bundle { number, frames }) => {
                self.handle_bundle((key, lane), (number, frames), &datagram, now);
            }
            Err(_) => self.stats.drop(DropReason::BadMessage),
        }
    }

    pub(crate) fn count_drop(&mut self, taken: Result<(), DropReason>) {
        if let Err(reason) = taken {
            self.stats.drop(reason);
        }
    }

    /// A local end sends a frame.
    pub fn handle_frame(&mut self, frame: LocalFrame, now: Instant) {
        self.notice_stall(now);
        if let Err(reason) = self.originate(frame, now) {
            self.stats.drop(reason);
        }
    }

    /// Does what is due: heartbeats, liveness, the end of a link's active time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.notice_stall(now);
        if self.stale_until.is_some_and(|until| until <= now) {
            self.stale_until = None;
        }
        for key in self.timers.take_due(now) {
            let Some(link) = self.links.get_mut(&key) else { continue };
            link.expire_activity(now);
            link.probe.handle_timeout(now);
            self.recover(key, now);
            self.settle(key, now);
        }
    }

    /// When [`Self::handle_timeout`] is next due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.first(), self.reporter.due()].into_iter().flatten().min()
    }

    /// The next datagram to send. `writable` says whether a data lane takes one now; a lane that does
    /// not keeps its queue, and is asked again at the next call.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        writable: impl Fn(NeighbourLink, Lane) -> bool,
    ) -> Option<Transmit> {
        if let Some(transmit) = self.light.pop_front() {
            let free = transmit.lane == Lane::Light || writable(transmit.link, transmit.lane);
            let lane = if free { transmit.lane } else { Lane::Light };
            return Some(Transmit { lane, ..transmit });
        }
        while let Some(ready) = self.next_ready(now, &writable) {
            if let Some(transmit) = self.dequeue(ready, now) {
                return Some(transmit);
            }
        }
        None
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The report that is due now, if any.
    pub fn poll_report(&mut self, now: Instant) -> Option<Report> {
        let held = Held { links: &self.links, fib: &self.fib, loads: &self.loads };
        let report = self.reporter.poll(held, now)?;
        let demands = shard::sum_demands(self.demands.list(now), &self.loads);
        // A process that sleeps does so with all its shards.
        let self_stalls = self.loads.values().map(|load| load.self_stalls);
        let self_stalls = self_stalls.fold(self.stats.self_stalls, u64::max);
        let detours = self.loads.values().map(|load| load.detours);
        let detours = detours.fold(self.stats.detours, u64::saturating_add);
        Some(Report { demands, self_stalls, detours, ..report })
    }

    fn held(&self) -> Held<'_> {
        Held { links: &self.links, fib: &self.fib, loads: &self.loads }
    }

    /// Whether what is read now has waited through a long pause of this process.
    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        self.stale_until.is_some_and(|until| now < until)
    }

    pub(crate) fn push_event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn push_light(&mut self, link: NeighbourLink, message: Bytes) {
        self.push_first(Transmit { link, lane: Lane::Light, message });
    }

    /// Has a short message sent before any frame.
    fn push_first(&mut self, transmit: Transmit) {
        if self.light.len() >= LIGHT_QUEUE_MAX {
            self.light.pop_front();
        }
        self.light.push_back(transmit);
    }

    pub(crate) fn mark_queued(&mut self, (key, lane): LaneKey) {
        self.queued.insert((lane, key));
    }

    /// What a link is good for now; one that does not stand is down.
    #[inline]
    pub(crate) fn usability(&self, key: NeighbourLink) -> Usability {
        self.links.get(&key).map_or(Usability::Down, Link::usability)
    }

    /// If the armed timeout has passed by more than half a heartbeat, this process slept: silence is its
    /// own fault, and after a long sleep so is the backlog.
    fn notice_stall(&mut self, now: Instant) {
        let armed = self.poll_timeout().unwrap_or(now);
        let late = now.saturating_duration_since(armed);
        if late <= LATE {
            return;
        }
        self.timers.restart(self.links.keys().copied(), now);
        self.reporter.postpone(now);
        self.stats.self_stalls += 1;
        for link in self.links.values_mut() {
            link.handle_stall(late, now);
        }
        if late >= self.config.stale_after {
            let frames: usize = self.links.values_mut().map(Link::clear_queues).sum();
            self.stats.drops[DropReason::Stale as usize] += frames as u64;
            self.queued.clear();
            self.stale_until = Some(now + late.min(STALE_READING_MAX));
        }
        self.events.push_back(Event::SelfStall(late));
    }

    fn settle_all(&mut self, now: Instant) {
        let keys: Vec<NeighbourLink> = self.links.keys().copied().collect();
        for key in keys {
            self.settle(key, now);
        }
    }

    /// Takes what a link's probe has to say: heartbeats to send, changes of state to act on.
    fn settle(&mut self, key: NeighbourLink, now: Instant) {
        self.settle_due(key, now, now);
    }

    /// The same with a heartbeat that is due at `due`.
    fn settle_due(&mut self, key: NeighbourLink, due: Instant, now: Instant) {
        let Some(link) = self.links.get_mut(&key) else { return };
        let mut changed = None;
        while let Some(event) = link.probe.poll_event() {
            match event {
                ProbeEvent::Changed { to, .. } => changed = changed.max(Some(to)),
                ProbeEvent::PeerRestarted => changed = changed.max(Some(State::Unknown)),
            }
        }
        let heartbeat = link.poll_heartbeat(due, now);
        let (inbound, outbound) = (link.probe.inbound(), link.outbound());
        let dues = [link.probe.poll_timeout(), link.active_until(), link.recovery_due()];
        if let Some(next) = dues.into_iter().flatten().min() {
            // What a stall left undone is due now, and no second stall.
            self.timers.wake(key, next.max(now));
        }
        // Not before what comes is read again: neighbours would send here what is thrown away.
        if let Some(heartbeat) = heartbeat.filter(|_| !self.is_stale(now)) {
            let mut message = BytesMut::with_capacity(64);
            heartbeat.encode(&mut message);
            self.push_light(key, message.freeze());
        }
        if changed.is_some() {
            self.events.push_back(Event::LinkChanged { link: key, inbound, outbound });
            self.react(key, now);
        }
    }

    /// Looks at a link as soon as possible.
    pub(crate) fn wake(&mut self, key: NeighbourLink, now: Instant) {
        self.timers.wake(key, now);
    }
}
