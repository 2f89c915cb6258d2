//! The connections that a shard holds: which it is to have, which of two stays, and what their end means to the core.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_relay_core::{PathMtu, PeerLink, Shard};
use overway_wire::hop::Lane;
use overway_wire::{NeighbourLink, RelayId};

use super::close::{CloseCode, close};
use super::driver::{Driver, LaneKey};

/// A connection counts as alive for this long before anything must have come over it: a round trip and
/// the handshake's end.
const PROVING_TIME: Duration = Duration::from_secs(1);

/// What quinn counts in its buffer for a datagram beside its bytes: that which holds them.
const BUFFERED_EXTRA: usize = size_of::<Bytes>();

/// A lane's connection.
pub(super) struct LaneConnection {
    pub(super) connection: quinn::Connection,
    pub(super) dialer: RelayId,
    pub(super) since: Instant,
    /// A frame waits for room in quinn's buffer.
    pub(super) blocked: bool,
    /// Bytes that this buffer has room for at least; quinn is asked when they are used up.
    pub(super) room: usize,
    /// What the core was last told of the path's MTU; of a light lane.
    pub(super) mtu: Option<PathMtu>,
    /// When padding last went out.
    pub(super) padded: Instant,
}

impl LaneConnection {
    /// Hands a message to quinn, or back if there is no room for it: quinn drops its oldest datagram in silence when its
    /// buffer is full, so that a data lane is blocked then. A light lane may lose its oldest heartbeat.
    pub(super) fn send(&mut self, message: Bytes, (link, lane): LaneKey) -> Option<Bytes> {
        let needed = message.len() + BUFFERED_EXTRA;
        if self.room < needed {
            self.room = self.connection.datagram_send_buffer_space();
        }
        if lane != Lane::Light && self.room < needed {
            (self.blocked, self.room) = (true, 0);
            return Some(message);
        }
        self.room = self.room.saturating_sub(needed);
        if let Err(error) = self.connection.send_datagram(message) {
            tracing::trace!(%error, %link, "datagram not sent");
        }
        None
    }
}

impl Driver {
    /// Whether this shard is to have a link: the lead has every one, the others those on a path, and those for which
    /// frames were handed on.
    pub(super) fn is_due(&self, link: NeighbourLink, peer: &PeerLink) -> bool {
        let Shard { index, workers } = self.shard;
        let used = peer.candidate
            || self.wanted.contains(&(link, Lane::Light))
            || self.is_connected((link, Lane::Light));
        self.is_lead() || index < peer.shards(workers) && used
    }

    /// Whether a lane's connection stands.
    pub(super) fn is_connected(&self, key: LaneKey) -> bool {
        self.connections.contains_key(&key)
    }

    /// Takes a new connection into use, in place of an old one if there is one. Of two that both ends
    /// dialled at once the one of the lower id stays, so that both keep the same.
    fn register(
        &mut self,
        key: LaneKey,
        connection: quinn::Connection,
        dialer: RelayId,
        now: Instant,
    ) -> bool {
        if let Some(old) = self.connections.get(&key) {
            let young = now.saturating_duration_since(old.since) < PROVING_TIME;
            let alive = old.connection.close_reason().is_none() && (young || self.is_heard(key.0));
            if alive && old.dialer < dialer {
                close(&connection, CloseCode::Replaced);
                return false;
            }
            close(&old.connection, CloseCode::Replaced);
        }
        let (link, lane) = key;
        self.wanted.remove(&key);
        let lane_connection = LaneConnection {
            connection,
            dialer,
            since: now,
            blocked: false,
            room: 0,
            mtu: None,
            padded: now,
        };
        self.connections.insert(key, lane_connection);
        if lane == Lane::Light {
            // The link starts over, its numbers too: frames of the old lanes must not be counted.
            for lane in Lane::DATA {
                self.forget((link, lane), now);
            }
            self.core.handle_link_opened(link, now);
            self.reconnect().notify_one();
        } else {
            self.core.handle_lane(key, true, now);
        }
        true
    }

    /// Takes a connection into use if the scheduler has named its peer.
    pub(super) fn admit(
        &mut self,
        key: LaneKey,
        connection: &quinn::Connection,
        dialer: RelayId,
        now: Instant,
    ) -> bool {
        let known = self.core.fib().peers.contains_key(&key.0);
        if !known {
            self.stats.refused += 1;
            close(connection, CloseCode::NotAPeer);
        }
        known && self.register(key, connection.clone(), dialer, now)
    }

    fn is_heard(&self, link: NeighbourLink) -> bool {
        let state = self.core.link_state(link);
        state.is_some_and(|(inbound, _)| inbound == overway_probe::State::Up)
    }

    pub(super) fn is_current(&self, key: LaneKey, connection: &quinn::Connection) -> bool {
        let current = self.connections.get(&key);
        current.is_some_and(|lane| lane.connection.stable_id() == connection.stable_id())
    }

    /// A connection has ended; if it is still the lane's, the lane is gone.
    pub(super) fn closed(&mut self, key: LaneKey, connection: &quinn::Connection, now: Instant) {
        if !self.is_current(key, connection) {
            return;
        }
        self.connections.remove(&key);
        self.wanted.remove(&key);
        if key.1 == Lane::Light {
            for lane in Lane::DATA {
                self.forget((key.0, lane), now);
            }
            self.core.handle_link_closed(key.0, now);
        } else {
            self.core.handle_lane(key, false, now);
        }
        self.reconnect().notify_one();
    }

    fn forget(&mut self, key: LaneKey, now: Instant) {
        self.wanted.remove(&key);
        if let Some(lane) = self.connections.remove(&key) {
            close(&lane.connection, CloseCode::Replaced);
        }
        self.core.handle_lane(key, false, now);
    }

    /// Gives up links that this shard dialled and has no use for. One that the neighbour dialled is its business: it
    /// may see the link on a path.
    pub(super) fn close_unused(&mut self, now: Instant) {
        if self.is_lead() {
            return;
        }
        let (core, peers) = (&self.core, &self.core.fib().peers);
        let idle = self.connections.iter().filter_map(|(&(link, lane), held)| {
            let ours = lane == Lane::Light && held.dialer == core.local();
            let used = peers.get(&link).is_some_and(|peer| peer.candidate) || core.is_active(link);
            (ours && !used).then_some(link)
        });
        for link in self.unused.handle_idle(idle, now) {
            if let Some(light) = self.connections.get(&(link, Lane::Light)) {
                close(&light.connection, CloseCode::Unused);
            }
        }
    }

    /// Closes links to relays which the scheduler no longer names.
    pub(super) fn close_strangers(&mut self, peers: &BTreeMap<NeighbourLink, PeerLink>) {
        let strangers = self.connections.iter().filter(|((link, _), _)| !peers.contains_key(link));
        for (_, lane) in strangers {
            close(&lane.connection, CloseCode::NotAPeer);
        }
    }
}
