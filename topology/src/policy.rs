//! Which relays a tenant's paths may use.

use std::collections::BTreeSet;

use overway_wire::RelayId;

use crate::RelayAttributes;

/// Policies that a topology holds, besides the unrestricted one: each has routes of its own for the pairs
/// that it allows.
pub const POLICIES_MAX: usize = 16;

/// What the relays of a path must be, its ends included: in one of the regions or one of the relays, and of one of the
/// providers. What names nothing restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Its name, for people.
    pub name: String,
    /// Regions that a path may touch.
    pub regions: BTreeSet<String>,
    /// Relays that a path may touch wherever they are.
    pub relays: BTreeSet<RelayId>,
    /// Providers that a path may touch.
    pub providers: BTreeSet<String>,
}

impl Policy {
    /// Whether a relay may be on a path.
    pub fn allows(&self, id: RelayId, relay: &RelayAttributes) -> bool {
        let anywhere = self.regions.is_empty() && self.relays.is_empty();
        (anywhere || self.regions.contains(&relay.region) || self.relays.contains(&id))
            && (self.providers.is_empty() || self.providers.contains(&relay.provider))
    }
}
