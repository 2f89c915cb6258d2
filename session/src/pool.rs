//! The sessions that stand, by far relay and terms.
//!
//! A session is dialled when the first request needs one, once however many wait for it, and used by both
//! ends from then on. When both dial at the same moment there are two, both used by whoever made them;
//! more than [`SESSIONS_MAX`] are never kept: the oldest is closed. A session that ends is taken out by
//! the task that serves it; one that is silent is retired: used for nothing new, but still served, and found by
//! whoever closes sessions.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use overway_wire::{Address, FlowId, RelayId};
use quinn::{Connection, VarInt};

use crate::Terms;

/// Sessions with one far relay on one set of terms at most: one dialled by each end, and as many that are about to
/// be found dead.
const SESSIONS_MAX: usize = 4;

/// Code and reason of a session closed for a newer one.
pub(crate) const CODE_REPLACED: VarInt = VarInt::from_u32(3);

/// One QUIC connection with a far end whose identity was checked.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) far: Address,
    pub(crate) terms: Terms,
    /// The far end's when the session was established.
    pub(crate) incarnation: FlowId,
    /// Whether this end dialled.
    pub(crate) client: bool,
}

#[derive(Debug)]
struct Place {
    session: Session,
    retired: bool,
}

impl Session {
    fn key(&self) -> (RelayId, Terms) {
        (self.far.relay, self.terms)
    }

    fn stands(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

/// The pool.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    slots: Mutex<HashMap<(RelayId, Terms), Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    places: Vec<Place>,
    /// Held by the one that dials.
    dialling: Arc<tokio::sync::Mutex<()>>,
}

impl Pool {
    /// A session that stands and is not retired, the oldest first.
    pub(crate) fn find(&self, far: RelayId, terms: Terms) -> Option<Session> {
        let slots = self.slots();
        let mut places = slots.get(&(far, terms))?.places.iter();
        let place = places.find(|place| !place.retired && place.session.stands())?;
        Some(place.session.clone())
    }

    /// The lock to hold while dialling.
    pub(crate) fn dialling(&self, far: RelayId, terms: Terms) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.slots().entry((far, terms)).or_default().dialling)
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
        if slot.places.is_empty() && Arc::strong_count(&slot.dialling) == 1 {
            slots.remove(&session.key());
        }
    }

    /// Every session with a far relay, on any terms, retired or not.
    pub(crate) fn with(&self, far: RelayId) -> Vec<Session> {
        let slots = self.slots();
        let of_far = slots.iter().filter(|((relay, _), _)| *relay == far);
        of_far.flat_map(|(_, slot)| &slot.places).map(|place| place.session.clone()).collect()
    }

    /// The far ends of all sessions that stand.
    pub(crate) fn far_ends(&self) -> BTreeSet<Address> {
        let slots = self.slots();
        let places = slots.values().flat_map(|slot| &slot.places);
        let standing = places.filter(|place| place.session.stands());
        standing.map(|place| place.session.far).collect()
    }

    /// A panic elsewhere leaves the map whole: each change is one call.
    fn slots(&self) -> MutexGuard<'_, HashMap<(RelayId, Terms), Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
