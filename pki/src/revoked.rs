//! The relays whose certificates count for nothing any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{Identity, Role};

/// The ids of revoked relays, as every verifier of one node's [`Credentials`](crate::Credentials) sees
/// them. Replaced as a whole; at most 65,535 ids exist, which bounds it.
///
/// It is asked in handshakes. Who replaces it also closes the connections that stand with the relays
/// in it, and keeps the set on disk if it is to outlast the process. Schedulers are not in it: a
/// scheduler's identity ends with its mesh.
#[derive(Debug, Default)]
pub struct RevokedRelays(ArcSwap<BTreeSet<u16>>);

impl RevokedRelays {
    /// Replaces the set.
    pub fn replace(&self, relays: impl IntoIterator<Item = u16>) {
        self.0.store(Arc::new(relays.into_iter().collect()));
    }

    /// Adds one relay.
    pub fn insert(&self, relay: u16) {
        self.0.rcu(|relays| {
            let mut relays = BTreeSet::clone(relays);
            relays.insert(relay);
            relays
        });
    }

    /// Whether this identity was revoked.
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        match identity.role {
            Role::Relay => self.0.load().contains(&identity.id),
            Role::Scheduler => false,
        }
    }

    /// The set as it is now.
    pub fn relays(&self) -> Arc<BTreeSet<u16>> {
        self.0.load_full()
    }
}
