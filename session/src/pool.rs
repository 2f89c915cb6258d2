//! The sessions that stand, by far end and terms.
//!
//! A session is dialled when the first request needs one, once however many wait for it, and used by both
//! ends from then on. When both dial at the same moment there are two, both used by whoever made them;
//! more than [`SESSIONS_MAX`] are never kept: the oldest is closed. A session that ends is taken out by
//! the task that serves it; one that is silent is retired: used for nothing new, but still served, and found by
//! whoever closes sessions.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use overway_wire::{Address, FlowId, Whereabouts};
use quinn::{Connection, VarInt};

use crate::Terms;
use crate::candidates::Pulse;
use crate::edge::EdgeSession;
use crate::far::{FarEnd, Party, Peer};

/// Sessions with one far end on one set of terms at most: one dialled by each end, and as many that are about to
/// be found dead.
const SESSIONS_MAX: usize = 4;

/// From so many slots on those are looked for which dials that failed have left.
const SLOTS_TIDY: usize = 1_024;

/// Code and reason of a session closed for a newer one.
pub(crate) const CODE_REPLACED: VarInt = VarInt::from_u32(3);

/// One QUIC connection with a far end whose identity was checked.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    /// A relay's address, an edge's name.
    pub(crate) far: Address,
    pub(crate) terms: Terms,
    /// The far end's when the session was established, if it is a relay's.
    pub(crate) incarnation: FlowId,
    /// What else there is to know of an edge.
    pub(crate) edge: Option<Arc<EdgeSession>>,
    /// Whether this end dialled.
    pub(crate) client: bool,
}

#[derive(Debug)]
struct Place {
    session: Session,
    retired: bool,
}

impl Session {
    /// The far end, for whoever is to know.
    pub(crate) fn far_end(&self) -> FarEnd {
        match &self.edge {
            None => FarEnd::Relay(self.far.relay),
            Some(edge) => FarEnd::Edge { id: edge.id, whereabouts: Some(edge.far.whereabouts()) },
        }
    }

    /// The far edge, if it is one.
    pub(crate) fn peer(&self) -> Option<Peer> {
        self.edge.as_ref().map(|edge| Peer { id: edge.id, claims: edge.claims() })
    }

    fn key(&self) -> (Party, Terms) {
        (self.far_end().party(), self.terms)
    }

    pub(crate) fn stands(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

impl Pulse for Session {
    fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    fn heard(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }
}

impl Slot {
    fn is_needed(&self) -> bool {
        !self.places.is_empty() || Arc::strong_count(&self.dialling) > 1
    }
}

/// The pool.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    slots: Mutex<HashMap<(Party, Terms), Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    places: Vec<Place>,
    /// Held by the one that dials.
    dialling: Arc<tokio::sync::Mutex<()>>,
}

impl Pool {
    /// A session that stands and is not retired, the oldest first.
    pub(crate) fn find(&self, far: Party, terms: Terms) -> Option<Session> {
        let slots = self.slots();
        let mut places = slots.get(&(far, terms))?.places.iter();
        let place = places.find(|place| !place.retired && place.session.stands())?;
        Some(place.session.clone())
    }

    /// As [`Self::find`], on any terms.
    pub(crate) fn find_on_any(&self, far: Party) -> Option<Session> {
        let slots = self.slots();
        let of_far = slots.iter().filter(|((party, _), _)| *party == far);
        let mut places = of_far.flat_map(|(_, slot)| &slot.places);
        let place = places.find(|place| !place.retired && place.session.stands())?;
        Some(place.session.clone())
    }

    /// The lock to hold while dialling.
    pub(crate) fn dialling(&self, far: Party, terms: Terms) -> Arc<tokio::sync::Mutex<()>> {
        let mut slots = self.slots();
        if slots.len() >= SLOTS_TIDY && !slots.contains_key(&(far, terms)) {
            slots.retain(|_, slot| slot.is_needed());
        }
        Arc::clone(&slots.entry((far, terms)).or_default().dialling)
    }

    /// Puts in a session. The oldest is closed if there are too many.
    pub(crate) fn insert(&self, session: Session) {
        let mut slots = self.slots();
        let places = &mut slots.entry(session.key()).or_default().places;
        places.retain(|place| place.session.stands());
        if places.len() == SESSIONS_MAX {
            places.remove(0).session.connection.close(CODE_REPLACED, b"too many sessions");
        }
        places.push(Place { session, retired: false });
    }

    /// Sees to it that a session is used for nothing new. What it carries may still get through.
    pub(crate) fn retire(&self, session: &Session) {
        let id = session.connection.stable_id();
        if let Some(slot) = self.slots().get_mut(&session.key()) {
            let mut places = slot.places.iter_mut();
            if let Some(place) = places.find(|place| place.session.connection.stable_id() == id) {
                place.retired = true;
            }
        }
    }

    /// Takes out a session that ended, and its slot if nobody needs it: a far end may choose among 65,536
    /// policies.
    pub(crate) fn remove(&self, session: &Session) {
        let id = session.connection.stable_id();
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(&session.key()) else { return };
        slot.places.retain(|other| other.session.connection.stable_id() != id);
        if !slot.is_needed() {
            slots.remove(&session.key());
        }
    }

    /// Every session with a far end, on any terms, retired or not.
    pub(crate) fn with(&self, far: Party) -> Vec<Session> {
        let slots = self.slots();
        let of_far = slots.iter().filter(|((party, _), _)| *party == far);
        of_far.flat_map(|(_, slot)| &slot.places).map(|place| place.session.clone()).collect()
    }

    /// The sessions with an edge, by its name.
    pub(crate) fn by_name(&self, name: Address) -> Vec<Session> {
        self.standing(|session| session.far == name)
    }

    /// The sessions with edges of which nothing came for a while.
    pub(crate) fn silent(&self, now: Instant) -> Vec<Session> {
        self.standing(|session| session.edge.as_ref().is_some_and(|it| it.far.is_silent(now)))
    }

    fn standing(&self, is_such: impl Fn(&Session) -> bool) -> Vec<Session> {
        let slots = self.slots();
        let sessions = slots.values().flat_map(|slot| &slot.places).map(|place| &place.session);
        sessions.filter(|session| is_such(session) && session.stands()).cloned().collect()
    }

    /// The edges with which there are sessions that say they are attached at this address.
    pub(crate) fn at(&self, address: Address) -> Vec<FarEnd> {
        let slots = self.slots();
        let mut found: Vec<FarEnd> = Vec::new();
        for place in slots.values().flat_map(|slot| &slot.places) {
            let Some(edge) = &place.session.edge else { continue };
            let Whereabouts { first, second } = edge.far.whereabouts();
            let is_new = found.iter().all(|far| far.party() != Party::Edge(edge.id));
            if is_new && (first == address || second == Some(address)) {
                found.push(place.session.far_end());
            }
        }
        found
    }

    /// The far ends of all sessions that stand.
    pub(crate) fn far_ends(&self) -> BTreeSet<Address> {
        let slots = self.slots();
        let places = slots.values().flat_map(|slot| &slot.places);
        let standing = places.filter(|place| place.session.stands());
        standing.map(|place| place.session.far).collect()
    }

    /// A panic elsewhere leaves the map whole: each change is one call.
    fn slots(&self) -> MutexGuard<'_, HashMap<(Party, Terms), Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
