//! A relay's process: the core, and a shell around it that does what the real one does with sockets.
//!
//! The shell keeps a connection for each lane of each link that the scheduler names. The relay of the
//! lower id dials, the light lane first; the other dials if nothing came for three seconds or if frames
//! wait. Of two connections dialled at once the lower id's stays. A connection of which nothing was heard
//! for ten seconds ends in silence. See [`connections`].

mod connections;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_probe::State;
use overway_relay_core::{Config, Delivered, Event, LocalFrame, Relay, Transmit};
use overway_wire::control::{Ack, Report, Update};
use overway_wire::hop::{HopMessage, Lane, Slots};
use overway_wire::{BootId, Header, LinkId, NeighbourLink, RelayId};

use crate::packet::{Body, ConnectionId, Packet};
use connections::{Accepting, Connection, Dialling};

/// How often the shell looks after its connections.
pub(crate) const TICK: Duration = Duration::from_millis(500);
/// How often the pushed state is saved, at most.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) type LaneKey = (NeighbourLink, Lane);

/// What a process has for the world.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) packets: Vec<Packet>,
    /// Frames read, by the link over which they came.
    pub(crate) received: Vec<(LinkId, Header)>,
    /// Blocks of which repairs came, and over which lane.
    pub(crate) repairs: Vec<(LinkId, Lane, Slots)>,
    pub(crate) delivered: Vec<Delivered>,
    pub(crate) reports: Vec<Report>,
    pub(crate) fib_changed: bool,
    pub(crate) link_changes: Vec<(NeighbourLink, State, State)>,
    pub(crate) saved: Option<Update>,
}

/// A running relay.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) core: Relay,
    pub(crate) boot: BootId,
    /// When the core's timer is set to.
    pub(crate) armed: Option<Instant>,
    connections: BTreeMap<LaneKey, Connection>,
    dialling: BTreeMap<LaneKey, Dialling>,
    accepting: BTreeMap<ConnectionId, Accepting>,
    wanted: BTreeSet<LaneKey>,
    missing_since: BTreeMap<LaneKey, Instant>,
    dialled: BTreeMap<LaneKey, Instant>,
    heard: BTreeMap<NeighbourLink, Instant>,
    /// Connections dialled by this relay, also by its earlier processes.
    dials: u64,
    saved: Option<Instant>,
    unsaved: bool,
}

impl Process {
    /// Starts a process, with what the disk holds.
    pub(crate) fn start(config: Config, disk: Option<&Update>, dials: u64, now: Instant) -> Self {
        let boot = config.boot;
        let mut core = Relay::new(config);
        if let Some(update) = disk {
            // A new process holds nothing, so everything applies.
            let restored = core.restore(update.clone(), now);
            debug_assert_eq!(restored, Ok(()));
        }
        Self {
            core,
            boot,
            armed: None,
            connections: BTreeMap::new(),
            dialling: BTreeMap::new(),
            accepting: BTreeMap::new(),
            wanted: BTreeSet::new(),
            missing_since: BTreeMap::new(),
            dialled: BTreeMap::new(),
            heard: BTreeMap::new(),
            dials,
            saved: None,
            unsaved: false,
        }
    }

    pub(crate) fn dials(&self) -> u64 {
        self.dials
    }

    /// Reads a packet.
    pub(crate) fn handle_packet(&mut self, packet: Packet, now: Instant, out: &mut Outbox) {
        self.take_packet(packet, now, out);
        self.pump(now, out);
    }

    /// A local end sends a frame.
    pub(crate) fn handle_frame(&mut self, frame: LocalFrame, now: Instant, out: &mut Outbox) {
        self.core.handle_frame(frame, now);
        self.pump(now, out);
    }

    /// An update came.
    pub(crate) fn handle_update(&mut self, update: Update, now: Instant, out: &mut Outbox) -> Ack {
        let ack = self.core.handle_update(update, now);
        self.pump(now, out);
        ack
    }

    /// The control connection stands, or no longer does.
    pub(crate) fn handle_scheduler(&mut self, connected: bool, now: Instant, out: &mut Outbox) {
        if connected {
            self.core.handle_scheduler_connected(now);
        } else {
            self.core.handle_scheduler_lost();
        }
        self.pump(now, out);
    }

    /// The core's timer went off.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        self.core.handle_timeout(now);
        self.pump(now, out);
    }

    /// Looks after connections and the disk.
    pub(crate) fn handle_tick(&mut self, now: Instant, out: &mut Outbox) {
        self.expire(now, out);
        self.retry(now, out);
        self.dial_missing(now, out);
        self.save_if_due(now, out);
        self.pump(now, out);
    }

    /// Puts everything that the core has to say where it belongs.
    pub(crate) fn pump(&mut self, now: Instant, out: &mut Outbox) {
        loop {
            let connections = &self.connections;
            let writable = |link, lane| connections.contains_key(&(link, lane));
            let mut next = self.core.poll_transmit(now, writable);
            if next.is_none() {
                break;
            }
            while let Some(transmit) = next {
                let lane = (transmit.link, transmit.lane);
                self.transmit(transmit, out);
                next = self.core.poll_more(lane, now);
            }
        }
        let mut redial = false;
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Deliver(delivered) => out.delivered.push(delivered),
                Event::LinkChanged { link, inbound, outbound } => {
                    out.link_changes.push((link, inbound, outbound));
                }
                Event::LaneWanted(link, lane) => {
                    self.wanted.insert((link, lane));
                    redial = true;
                }
                Event::FibChanged => {
                    out.fib_changed = true;
                    self.unsaved = true;
                    self.close_strangers(now, out);
                    self.save_if_due(now, out);
                    redial = true;
                }
                Event::Traced(_) | Event::SelfStall(_) => {}
            }
        }
        out.reports.extend(self.core.poll_report(now));
        if redial {
            self.dial_missing(now, out);
        }
    }

    fn transmit(&mut self, transmit: Transmit, out: &mut Outbox) {
        let Transmit { link, lane, message } = transmit;
        if let Some(connection) = self.connections.get(&(link, lane)) {
            let id = connection.id;
            self.send(link, id, Body::Datagram(message), out);
        }
    }

    fn send(&self, link: NeighbourLink, connection: ConnectionId, body: Body, out: &mut Outbox) {
        let link = link.outbound(self.core.local());
        out.packets.push(Packet { link, connection, body });
    }

    fn deliver(&mut self, key: LaneKey, message: &Bytes, now: Instant, out: &mut Outbox) {
        let read = HopMessage::decode(message).into_iter().flat_map(HopMessage::frames);
        let headers = read.filter_map(|(_, frame)| Header::decode(frame).ok());
        let link = key.0.inbound(self.local());
        if let Ok(HopMessage::Repair(repair)) = HopMessage::decode(message) {
            out.repairs.push((link, key.1, repair.slots));
        }
        out.received.extend(headers.map(|(header, _)| (link, header)));
        self.core.handle_datagram(key, message, now);
    }

    fn save_if_due(&mut self, now: Instant, out: &mut Outbox) {
        let recent = |at: Instant| now.saturating_duration_since(at) < SAVE_INTERVAL;
        if self.unsaved && !self.saved.is_some_and(recent) {
            self.saved = Some(now);
            self.unsaved = false;
            out.saved = Some(self.core.pushed().to_update());
        }
    }

    fn local(&self) -> RelayId {
        self.core.local()
    }
}
