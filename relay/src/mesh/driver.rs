//! The core with its connections: what goes in, and where what comes out is put.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use overway_relay_core::{
    AHEAD, Delivered, Event, Handed, Heir, Load, LocalFrame, Relay, Shard, Transmit,
};
use overway_session::{Inbound, Outbound};
use overway_wire::control::Report;
use overway_wire::hop::Lane;
use overway_wire::{AttachmentId, NeighbourLink};
use tokio::sync::Notify;

use super::alarm::Alarm;
use super::held::LaneConnection;
use super::news::LinkNews;
use super::unused::Unused;
use super::worker::{Shared, Worker, shards};
use super::{Command, ShellStats};
use crate::delivery::Undelivered;
use crate::local::Sourced;

/// One lane of one neighbour link: what a connection is for.
pub(super) type LaneKey = (NeighbourLink, Lane);

/// The core of a shard with its connections.
pub(super) struct Driver {
    pub(super) core: Relay,
    pub(super) worker: Rc<Worker>,
    pub(super) shard: Shard,
    pub(super) stats: ShellStats,
    pub(super) dialing: HashSet<LaneKey>,
    pub(super) wanted: HashSet<LaneKey>,
    pub(super) connections: BTreeMap<LaneKey, LaneConnection>,
    /// What is to be handed to local ends, in order of arrival for each.
    delivered: Vec<(AttachmentId, Vec<Inbound>)>,
    news: LinkNews,
    pub(super) unused: Unused,
    /// Rings when the core wants to be woken, and when that is.
    alarm: Rc<Alarm>,
    armed: Option<Instant>,
    reconnect: Rc<Notify>,
}

impl Driver {
    /// A shard that holds nothing yet; the lead goes on from the last good state.
    pub(super) fn new(worker: Rc<Worker>, shard: Shard) -> Self {
        let config = &worker.shared.config;
        let mut core = Relay::new(overway_relay_core::Config { shard, ..config.core.clone() });
        core.handle_settings(worker.shared.settings.borrow().clone(), Instant::now());
        if let Some(update) = config.restored.clone().filter(|_| shard.is_lead())
            && let Err(error) = core.restore(update, Instant::now())
        {
            tracing::warn!(%error, "the saved state does not apply; waiting for a scheduler");
        }
        Self {
            core,
            worker,
            shard,
            stats: ShellStats::default(),
            dialing: HashSet::new(),
            wanted: HashSet::new(),
            connections: BTreeMap::new(),
            delivered: Vec::new(),
            news: LinkNews::default(),
            unused: Unused::default(),
            alarm: Rc::new(Alarm::new()),
            armed: None,
            reconnect: Rc::default(),
        }
    }

    pub(super) fn is_lead(&self) -> bool {
        self.shard.is_lead()
    }

    pub(super) fn alarm(&self) -> Rc<Alarm> {
        Rc::clone(&self.alarm)
    }

    pub(super) fn reconnect(&self) -> Rc<Notify> {
        Rc::clone(&self.reconnect)
    }

    /// The alarm has rung.
    pub(super) fn timeout(&mut self, now: Instant) {
        self.armed = None;
        self.core.handle_timeout(now);
    }

    /// Takes what came on a lane's connection; what quinn still hands out of one that was replaced is
    /// dropped, for its numbers are of a link that is no more.
    pub(super) fn datagrams(
        &mut self,
        key: LaneKey,
        connection: &quinn::Connection,
        datagrams: impl Iterator<Item = Bytes>,
        now: Instant,
    ) {
        if self.is_current(key, connection) {
            self.core.handle_datagrams(key, datagrams, now);
        }
    }

    pub(super) fn local_frame(&mut self, sourced: Sourced, now: Instant) {
        let Sourced { source, frame } = sourced;
        let Outbound {
            kind,
            class,
            policy,
            redundancy,
            destination,
            alternate,
            flow,
            sequence,
            budget,
            payload,
        } = frame;
        let frame = LocalFrame {
            source,
            destination,
            alternate,
            kind,
            class,
            policy,
            redundancy,
            flow,
            sequence,
            budget,
            payload,
        };
        self.core.handle_frame(frame, now);
    }

    /// What the lead does when it is told to.
    pub(super) fn command(&mut self, command: Command, now: Instant) {
        // An asker that has gone away needs no answer.
        match command {
            Command::Update(update, answer) => {
                let _ = answer.send(self.core.handle_update(*update, now));
            }
            Command::SchedulerConnected(interval) => {
                let interval = interval.unwrap_or(self.worker.shared.config.core.report_interval);
                self.core.set_report_interval(interval);
                self.core.handle_scheduler_connected(now);
            }
            Command::SchedulerLost => self.core.handle_scheduler_lost(),
            // The worker asks all shards.
            Command::Snapshot(answer) => drop(answer),
            Command::Pushed(answer) => {
                let _ = answer.send(self.core.pushed().to_update());
            }
        }
    }

    pub(super) fn shell_stats(&self) -> ShellStats {
        ShellStats { connections: self.connections.len() as u64, ..self.stats }
    }

    /// What the lead is to know of this shard.
    pub(super) fn load(&mut self, now: Instant) -> (u8, Load) {
        (self.shard.index, self.core.load(now))
    }

    /// Puts everything that the core has to say where it belongs.
    pub(super) fn pump(driver: &Rc<RefCell<Self>>, now: Instant) {
        let mut held = driver.borrow_mut();
        let this = &mut *held;
        while let Some(transmit) = this.next_transmit(now) {
            this.transmit(driver, transmit, now);
        }
        while let Some(event) = this.core.poll_event() {
            this.event(event, now);
        }
        for (attachment, batch) in this.delivered.drain(..) {
            match this.worker.shared.deliveries.deliver(attachment, batch) {
                Ok(()) => {}
                Err(Undelivered::Full(frames)) => this.stats.delivered_dropped += frames,
                Err(Undelivered::Unknown(frames)) => this.stats.delivered_unknown += frames,
            }
        }
        if let Some(mut report) = this.core.poll_report(now) {
            report.lines = this.worker.shared.config.lines.report(now, SystemTime::now());
            report.access = this.worker.shared.deliveries.access_use();
            this.report(report, now);
        }
        let due = this.core.poll_timeout();
        // Later only where the alarm would ring soon, and in vain: to set it costs less than to be woken.
        let is_soon = |armed| armed <= now + AHEAD;
        let is_other =
            |due| this.armed.is_none_or(|armed| due < armed || (due > armed && is_soon(armed)));
        if let Some(due) = due.filter(|&due| is_other(due)) {
            this.armed = Some(due);
            this.alarm.set(due);
        }
        let Some(first) = this.core.poll_handed() else { return };
        let mut handed = vec![first];
        while let Some(next) = this.core.poll_handed() {
            handed.push(next);
        }
        this.dial_lent(&handed);
        let (worker, from) = (Rc::clone(&this.worker), this.shard.index);
        drop(held);
        for (heir, handed) in handed {
            worker.give(from, heir, handed, now);
        }
    }

    /// Has links dialled for want of which frames are handed on.
    fn dial_lent(&mut self, handed: &[(Heir, Handed)]) {
        for (heir, _) in handed {
            let Heir::Shard(_, Some(link)) = *heir else { continue };
            let key = (link, Lane::Light);
            if !self.is_connected(key) && self.wanted.insert(key) {
                self.reconnect.notify_one();
            }
        }
    }

    fn report(&mut self, report: Report, now: Instant) {
        if self.worker.sinks.reports.try_send(report).is_err() {
            self.stats.reports_dropped += 1;
            self.core.handle_report_lost(now);
        }
    }

    fn next_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let connections = &self.connections;
        self.core.poll_transmit(now, |link, lane| {
            connections.get(&(link, lane)).is_some_and(|lane| !lane.blocked)
        })
    }

    /// Hands a message to quinn, and what follows it on its lane.
    fn transmit(&mut self, driver: &Rc<RefCell<Self>>, transmit: Transmit, now: Instant) {
        let key = (transmit.link, transmit.lane);
        let Some(lane) = self.connections.get_mut(&key) else { return };
        let mut next = Some(transmit);
        while let Some(Transmit { message, .. }) = next {
            if let Some(message) = lane.send(message, key) {
                let connection = lane.connection.clone();
                Self::send_later(Rc::clone(driver), key, connection, message);
                return;
            }
            next = self.core.poll_more(key, now);
        }
    }

    /// A lane waits for room with one message in hand.
    fn send_later(
        driver: Rc<RefCell<Self>>,
        key: LaneKey,
        connection: quinn::Connection,
        message: Bytes,
    ) {
        tokio::task::spawn_local(async move {
            // An error means that the connection is closed, which its reader handles.
            let _ = connection.send_datagram_wait(message).await;
            let id = connection.stable_id();
            driver.borrow_mut().unblock(key, id);
            Self::pump(&driver, Instant::now());
        });
    }

    fn unblock(&mut self, key: LaneKey, id: usize) {
        if let Some(lane) = self.connections.get_mut(&key)
            && lane.connection.stable_id() == id
        {
            lane.blocked = false;
        }
    }

    fn event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Deliver(delivered) => self.deliver(delivered),
            Event::Traced(traced) => self.worker.shared.traces.tell(*traced),
            Event::LinkChanged { link, inbound, outbound } => {
                let name = self.core.fib().names.get(&link.neighbour).cloned().unwrap_or_default();
                let shard = self.shard.index;
                tracing::debug!(%link, shard, name, ?inbound, ?outbound, "link changed");
                if self.is_lead() {
                    self.news.tell(link, &name, (inbound, outbound), now);
                }
            }
            Event::LaneWanted(link, lane) => {
                self.wanted.insert((link, lane));
                self.reconnect.notify_one();
            }
            Event::FibChanged => {
                let fib = Arc::clone(self.core.fib());
                self.wanted.retain(|(link, _)| fib.peers.contains_key(link));
                self.news.keep(|link| fib.peers.contains_key(link));
                self.close_strangers(&fib.peers);
                if self.is_lead() {
                    let Shared { config, local, .. } = &*self.worker.shared;
                    let revoked = config.credentials.revoked();
                    revoked.replace(fib.revoked.iter().map(|relay| relay.0));
                    let spread = shards(&fib, self.shard.workers);
                    self.worker.sinks.fib.send_replace(fib);
                    // After the table, which the shards are to have that frames come to.
                    local.set_shards(spread);
                }
                self.reconnect.notify_one();
            }
            Event::SelfStall(late) if self.shard.index == self.worker.index => {
                let worker = self.worker.index;
                tracing::info!(?late, worker, "this process was stopped or starved");
            }
            Event::SelfStall(_) => {}
        }
    }

    fn deliver(&mut self, delivered: Delivered) {
        let Delivered { source, attachment, kind, class, policy, ecn, flow, sequence, payload } =
            delivered;
        let inbound = Inbound { source, kind, class, policy, ecn, flow, sequence, payload };
        // Few ends at a time: what is polled at once came in one batch of datagrams.
        match self.delivered.iter_mut().find(|(to, _)| *to == attachment) {
            Some((_, batch)) => batch.push(inbound),
            None => self.delivered.push((attachment, vec![inbound])),
        }
    }
}
