//! Which relays a tenant's paths may use.

use std::collections::BTreeSet;

use crate::RelayAttributes;

/// Policies that a topology holds, besides the unrestricted one: each has routes of its own for the pairs
/// that it allows.
pub const POLICIES_MAX: usize = 16;

/// What the relays of a path must be, its ends included. An empty set restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Its name, for people.
    pub name: String,
    /// Regions that a path may touch.
    pub regions: BTreeSet<String>,
    /// Providers that a path may touch.
    pub providers: BTreeSet<String>,
}

impl Policy {
    /// Whether a relay may be on a path.
    pub fn allows(&self, relay: &RelayAttributes) -> bool {
        (self.regions.is_empty() || self.regions.contains(&relay.region))
            && (self.providers.is_empty() || self.providers.contains(&relay.provider))
    }
}
