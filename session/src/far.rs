//! Who the far end of a session is.

use std::fmt;
use std::sync::Arc;

use overway_tenant::{Claims, EdgeId};
use overway_wire::{RelayId, Whereabouts};

/// A far end, as whoever opens something names it. Gateways have sessions with gateways, edges with edges of
/// their tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FarEnd {
    /// The gateway of a relay.
    Relay(RelayId),
    /// An edge.
    Edge {
        /// Who it has to prove to be.
        id: EdgeId,
        /// Where it was last known to be attached. Once there is a session the edge itself says it.
        whereabouts: Option<Whereabouts>,
    },
}

/// A far end without where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The gateway of a relay.
    Relay(RelayId),
    /// An edge.
    Edge(EdgeId),
}

/// A far edge, as it has proven to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// By its key.
    pub id: EdgeId,
    /// What its tenant says of it, in a token that was verified.
    pub claims: Arc<Claims>,
}

impl Peer {
    /// Its tenant's name for it.
    pub fn name(&self) -> &str {
        &self.claims.name
    }
}

impl FarEnd {
    /// Who it is, wherever it is.
    pub fn party(self) -> Party {
        match self {
            Self::Relay(relay) => Party::Relay(relay),
            Self::Edge { id, .. } => Party::Edge(id),
        }
    }
}

impl From<RelayId> for FarEnd {
    fn from(relay: RelayId) -> Self {
        Self::Relay(relay)
    }
}

impl From<EdgeId> for FarEnd {
    /// An edge with which there is a session already, or nothing can be opened.
    fn from(id: EdgeId) -> Self {
        Self::Edge { id, whereabouts: None }
    }
}

impl fmt::Display for FarEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.party().fmt(f)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(relay) => relay.fmt(f),
            Self::Edge(id) => id.fmt(f),
        }
    }
}
