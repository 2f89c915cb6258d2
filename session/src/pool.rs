//! The sessions that stand, by far relay and class.
//!
//! A session is dialled when the first request needs one, once however many wait for it, and used by both
//! ends from then on. When both dial at the same moment there are two, both used by whoever made them;
//! more than [`SESSIONS_MAX`] are never kept: the oldest is closed. A session that ends is taken out by
//! the task that serves it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use overway_wire::{Address, Class, FlowId, RelayId};
use quinn::{Connection, VarInt};

/// Sessions with one far relay in one class at most: one dialled by each end, and as many that are about to
/// be found dead.
const SESSIONS_MAX: usize = 4;

/// Code and reason of a session closed for a newer one.
pub(crate) const CODE_REPLACED: VarInt = VarInt::from_u32(3);

/// One QUIC connection with a far end whose identity was checked.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) far: Address,
    pub(crate) class: Class,
    /// The far end's when the session was established.
    pub(crate) incarnation: FlowId,
    /// Whether this end dialled.
    pub(crate) client: bool,
}

impl Session {
    fn key(&self) -> (RelayId, Class) {
        (self.far.relay, self.class)
    }

    fn stands(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

/// The pool.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    slots: Mutex<HashMap<(RelayId, Class), Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    sessions: Vec<Session>,
    /// Held by the one that dials.
    dialling: Arc<tokio::sync::Mutex<()>>,
}

impl Pool {
    /// A session that stands, the oldest first.
    pub(crate) fn find(&self, far: RelayId, class: Class) -> Option<Session> {
        let slots = self.slots();
        slots.get(&(far, class))?.sessions.iter().find(|session| session.stands()).cloned()
    }

    /// The lock to hold while dialling.
    pub(crate) fn dialling(&self, far: RelayId, class: Class) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.slots().entry((far, class)).or_default().dialling)
    }

    /// Puts in a session. The oldest is closed if there are too many.
    pub(crate) fn insert(&self, session: Session) {
        let mut slots = self.slots();
        let sessions = &mut slots.entry(session.key()).or_default().sessions;
        sessions.retain(Session::stands);
        if sessions.len() == SESSIONS_MAX {
            sessions.remove(0).connection.close(CODE_REPLACED, b"too many sessions");
        }
        sessions.push(session);
    }

    /// Takes out a session; it may still stand, and is then not used for anything new.
    pub(crate) fn remove(&self, session: &Session) {
        let id = session.connection.stable_id();
        if let Some(slot) = self.slots().get_mut(&session.key()) {
            slot.sessions.retain(|other| other.connection.stable_id() != id);
        }
    }

    /// Every session with a far relay, in any class.
    pub(crate) fn with(&self, far: RelayId) -> Vec<Session> {
        let slots = self.slots();
        let of = |class: Class| slots.get(&(far, class)).map(|slot| slot.sessions.clone());
        Class::ALL.into_iter().filter_map(of).flatten().collect()
    }

    /// A panic elsewhere leaves the map whole: each change is one call.
    fn slots(&self) -> MutexGuard<'_, HashMap<(RelayId, Class), Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
