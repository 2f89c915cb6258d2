//! A connection per lane: dialling, accepting, replacing, and their end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_probe::State;
use overway_wire::hop::Lane;
use overway_wire::{BootId, NeighbourLink, RelayId};

use super::{LaneKey, Outbox, Process};
use crate::packet::{Body, ConnectionId, Packet};

/// A connection that is not usable by then is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long the higher id waits for the lower one to dial.
const FALLBACK: Duration = Duration::from_secs(3);
/// Pause between two dials of the same lane.
const REDIAL: Duration = Duration::from_millis(500);
/// A silent link's connections end by then.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Datagrams that may arrive before the hello of their connection; further ones are dropped.
const EARLY_MAX: usize = 64;

/// A lane's connection that stands.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    dialer: RelayId,
    /// The process at the other end.
    peer: BootId,
}

/// A connection that was dialled and not granted yet.
#[derive(Debug)]
pub(super) struct Dialling {
    id: ConnectionId,
    since: Instant,
}

/// A connection that was granted and whose hello has not come.
#[derive(Debug)]
pub(super) struct Accepting {
    key: LaneKey,
    peer: BootId,
    since: Instant,
    early: Vec<Bytes>,
}

impl Process {
    pub(super) fn take_packet(&mut self, packet: Packet, now: Instant, out: &mut Outbox) {
        let Packet { link, connection: id, body } = packet;
        let link = NeighbourLink::new(link.from, link.index);
        self.heard.insert(link, now);
        match body {
            Body::Dial { lane, boot } => self.accept((link, lane), id, boot, now, out),
            Body::Accept { boot } => self.accepted(link, id, boot, now, out),
            Body::Confirm => self.confirmed(id, now, out),
            Body::Datagram(message) => self.datagram(link, id, &message, now, out),
            Body::Close => self.closed(id, now, out),
            Body::Reset { boot } => {
                let known = self.connections.values().any(|own| own.id == id && own.peer == boot);
                if known {
                    self.closed(id, now, out);
                }
            }
        }
    }

    fn datagram(
        &mut self,
        link: NeighbourLink,
        id: ConnectionId,
        message: &Bytes,
        now: Instant,
        out: &mut Outbox,
    ) {
        let lanes = Lane::ALL.into_iter().map(|lane| (link, lane));
        let mut keys =
            lanes.filter(|key| self.connections.get(key).is_some_and(|own| own.id == id));
        if let Some(key) = keys.next() {
            return self.deliver(key, message, now, out);
        }
        match self.accepting.get_mut(&id) {
            Some(accepting) if accepting.early.len() < EARLY_MAX => {
                accepting.early.push(message.clone());
            }
            Some(_) => {}
            None => self.send(link, id, Body::Reset { boot: self.boot }, out),
        }
    }

    fn accept(
        &mut self,
        key: LaneKey,
        id: ConnectionId,
        peer: BootId,
        now: Instant,
        out: &mut Outbox,
    ) {
        let stands = self.connections.get(&key).is_some_and(|own| own.id == id);
        if !stands {
            let new = || Accepting { key, peer, since: now, early: Vec::new() };
            self.accepting.entry(id).or_insert_with(new);
        }
        self.send(key.0, id, Body::Accept { boot: self.boot }, out);
    }

    fn accepted(
        &mut self,
        link: NeighbourLink,
        id: ConnectionId,
        peer: BootId,
        now: Instant,
        out: &mut Outbox,
    ) {
        let dialled = self.dialling.iter().find(|(_, dialling)| dialling.id == id);
        if let Some(key) = dialled.map(|(&key, _)| key) {
            self.dialling.remove(&key);
            let dialer = self.local();
            self.send(link, id, Body::Confirm, out);
            self.register(key, Connection { id, dialer, peer }, now, out);
        } else if self.connections.values().any(|own| own.id == id) {
            self.send(link, id, Body::Confirm, out);
        }
    }

    /// The hello of an accepted connection: takes it into use if the scheduler has named its peer.
    fn confirmed(&mut self, id: ConnectionId, now: Instant, out: &mut Outbox) {
        let Some(Accepting { key, peer, early, .. }) = self.accepting.remove(&id) else { return };
        if !self.core.fib().peers.contains_key(&key.0) {
            return self.send(key.0, id, Body::Close, out);
        }
        let connection = Connection { id, dialer: key.0.neighbour, peer };
        if self.register(key, connection, now, out) {
            for message in early {
                self.deliver(key, &message, now, out);
            }
        }
    }

    /// Takes a new connection into use, in place of an old one if there is one.
    fn register(&mut self, key: LaneKey, new: Connection, now: Instant, out: &mut Outbox) -> bool {
        let (link, lane) = key;
        if let Some(old) = self.connections.get(&key) {
            if self.is_heard(link) && old.dialer < new.dialer {
                self.send(link, new.id, Body::Close, out);
                return false;
            }
            self.send(link, old.id, Body::Close, out);
        }
        self.wanted.remove(&key);
        self.connections.insert(key, new);
        if lane == Lane::Light {
            for lane in Lane::DATA {
                self.forget((link, lane), now, out);
            }
            self.core.handle_link_opened(link, now);
            self.dial_missing(now, out);
        } else {
            self.core.handle_lane(key, true, now);
        }
        true
    }

    fn is_heard(&self, link: NeighbourLink) -> bool {
        self.core.link_state(link).is_some_and(|(inbound, _)| inbound == State::Up)
    }

    /// A connection has ended; if it is still its lane's, the lane is gone.
    fn closed(&mut self, id: ConnectionId, now: Instant, out: &mut Outbox) {
        self.accepting.remove(&id);
        self.dialling.retain(|_, dialling| dialling.id != id);
        let key = self.connections.iter().find(|(_, own)| own.id == id).map(|(&key, _)| key);
        if let Some(key) = key {
            self.end(key, now, out);
        }
    }

    fn end(&mut self, key: LaneKey, now: Instant, out: &mut Outbox) {
        self.connections.remove(&key);
        if key.1 == Lane::Light {
            for lane in Lane::DATA {
                self.forget((key.0, lane), now, out);
            }
            self.core.handle_link_closed(key.0, now);
        } else {
            self.core.handle_lane(key, false, now);
        }
        self.dial_missing(now, out);
    }

    fn forget(&mut self, key: LaneKey, now: Instant, out: &mut Outbox) {
        if let Some(old) = self.connections.remove(&key) {
            self.send(key.0, old.id, Body::Close, out);
        }
        self.core.handle_lane(key, false, now);
    }

    /// Closes links to relays which the scheduler no longer names.
    pub(super) fn close_strangers(&mut self, now: Instant, out: &mut Outbox) {
        let fib = self.core.fib().clone();
        let strangers = self.connections.keys().filter(|(link, _)| !fib.peers.contains_key(link));
        let strangers: Vec<LaneKey> = strangers.copied().collect();
        for key in strangers {
            if let Some(own) = self.connections.get(&key) {
                self.send(key.0, own.id, Body::Close, out);
                self.end(key, now, out);
            }
        }
    }

    /// Ends the connections of links from which nothing was heard, without a word.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Outbox) {
        let idle = |link: &NeighbourLink| {
            let heard = self.heard.get(link);
            heard.is_none_or(|&at| now.saturating_duration_since(at) >= IDLE_MAX)
        };
        let ended =
            self.connections.keys().filter(|(link, lane)| *lane == Lane::Light && idle(link));
        let ended: Vec<LaneKey> = ended.copied().collect();
        for (link, _) in ended {
            for lane in Lane::DATA {
                self.connections.remove(&(link, lane));
            }
            self.end((link, Lane::Light), now, out);
        }
        let late = |since: Instant| now.saturating_duration_since(since) >= HANDSHAKE_MAX;
        self.dialling.retain(|_, dialling| !late(dialling.since));
        self.accepting.retain(|_, accepting| !late(accepting.since));
    }

    /// Sends again what was not answered.
    pub(super) fn retry(&mut self, now: Instant, out: &mut Outbox) {
        let due = |since: Instant| now.saturating_duration_since(since) >= REDIAL;
        for (key, dialling) in self.dialling.iter().filter(|(_, dialling)| due(dialling.since)) {
            self.send(key.0, dialling.id, Body::Dial { lane: key.1, boot: self.boot }, out);
        }
        for (&id, accepting) in self.accepting.iter().filter(|(_, accept)| due(accept.since)) {
            self.send(accepting.key.0, id, Body::Accept { boot: self.boot }, out);
        }
    }

    /// Dials the lanes that are missing and this relay's to dial.
    pub(super) fn dial_missing(&mut self, now: Instant, out: &mut Outbox) {
        let fib = self.core.fib().clone();
        for &link in fib.peers.keys() {
            let light = self.connections.contains_key(&(link, Lane::Light));
            for lane in Lane::ALL {
                if light || lane == Lane::Light {
                    self.dial_if_missing((link, lane), now, out);
                } else {
                    self.missing_since.remove(&(link, lane));
                }
            }
        }
        self.missing_since.retain(|(link, _), _| fib.peers.contains_key(link));
    }

    fn dial_if_missing(&mut self, key: LaneKey, now: Instant, out: &mut Outbox) {
        if self.connections.contains_key(&key) {
            self.missing_since.remove(&key);
            return;
        }
        let missing = *self.missing_since.entry(key).or_insert(now);
        let since = |at: Instant| now.saturating_duration_since(at);
        let ours = self.local() < key.0.neighbour || since(missing) >= FALLBACK;
        let recent = self.dialled.get(&key).is_some_and(|&at| since(at) < REDIAL);
        let busy = recent || self.dialling.contains_key(&key);
        if busy || !(ours || self.wanted.contains(&key)) {
            return;
        }
        self.dials += 1;
        let id = ConnectionId(u64::from(self.local().0) << 48 | self.dials);
        self.dialled.insert(key, now);
        self.dialling.insert(key, Dialling { id, since: now });
        self.send(key.0, id, Body::Dial { lane: key.1, boot: self.boot }, out);
    }
}
