//! The keys of pushed items in eight bytes.
//!
//! Their order is the order of sending: who is of the mesh, then links, services, tenants, and routes, those without a
//! policy first, and where clients attach. So the first part of a state that takes several updates is what the mesh runs on.

use overway_topology::RouteKey;
use overway_wire::control::{
    Key, OFFERS_VERSION, POLICY_VERSION, Sort, TENANT_VERSION, VERSION_MIN,
};
use overway_wire::{Class, LinkIndex, NeighbourLink, PolicyId, RelayId};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ItemKey(u64);

/// What a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Revoked(RelayId),
    Node(RelayId),
    Policy(PolicyId),
    Peer(NeighbourLink),
    /// By its number: see [`crate::plan::Shared`].
    Service(u32),
    Tenant(PolicyId),
    /// By its number: see [`crate::services::Services`].
    TenantService(u32),
    Route {
        destination: RelayId,
        class: Class,
        policy: PolicyId,
    },
    AccessRelay(RelayId),
    AccessPrefixes(u32),
}

impl ItemKey {
    pub(crate) fn revoked(relay: RelayId) -> Self {
        Self::new(0, PolicyId::default(), relay, 0)
    }

    pub(crate) fn node(relay: RelayId) -> Self {
        Self::new(1, PolicyId::default(), relay, 0)
    }

    pub(crate) fn policy(policy: PolicyId) -> Self {
        Self::new(2, policy, RelayId::default(), 0)
    }

    pub(crate) fn peer(link: NeighbourLink) -> Self {
        Self::new(3, PolicyId::default(), link.neighbour, link.index.value())
    }

    pub(crate) fn service(number: u32) -> Self {
        Self(4 << 56 | u64::from(number))
    }

    pub(crate) fn tenant(number: PolicyId) -> Self {
        Self::new(5, number, RelayId::default(), 0)
    }

    pub(crate) fn tenant_service(number: u32) -> Self {
        Self(6 << 56 | u64::from(number))
    }

    pub(crate) fn route(key: RouteKey) -> Self {
        Self::new(7, key.policy, key.destination, key.class.code())
    }

    pub(crate) fn access_relay(relay: RelayId) -> Self {
        Self::new(8, PolicyId::default(), relay, 0)
    }

    pub(crate) fn access_prefixes(bucket: u32) -> Self {
        Self(9 << 56 | u64::from(bucket))
    }

    fn new(rank: u64, policy: PolicyId, relay: RelayId, part: u8) -> Self {
        let (policy, relay) = (u64::from(policy.0), u64::from(relay.0));
        Self(rank << 56 | policy << 24 | relay << 8 | u64::from(part))
    }

    pub(crate) fn named(self) -> Named {
        let [rank, .., part] = self.0.to_be_bytes();
        let [_, _, _, a, b, c, d, _] = self.0.to_be_bytes();
        let policy = PolicyId(u16::from_be_bytes([a, b]));
        let relay = RelayId(u16::from_be_bytes([c, d]));
        match rank {
            0 => Named::Revoked(relay),
            1 => Named::Node(relay),
            2 => Named::Policy(policy),
            3 => {
                let index = LinkIndex::new(part).expect("made of a link's index");
                Named::Peer(NeighbourLink::new(relay, index))
            }
            4 => Named::Service(u32::from_be_bytes([b, c, d, part])),
            5 => Named::Tenant(policy),
            6 => Named::TenantService(u32::from_be_bytes([b, c, d, part])),
            8 => Named::AccessRelay(relay),
            9 => Named::AccessPrefixes(u32::from_be_bytes([b, c, d, part])),
            _ => {
                let class = Class::from_code(part).expect("made of a class's code");
                Named::Route { destination: relay, class, policy }
            }
        }
    }

    /// The key as it travels, for an item to be removed; `service` is the tenant, if any, and the name of a service with
    /// a number.
    pub(crate) fn to_wire(self, service: impl FnOnce(Named) -> (PolicyId, String)) -> Key {
        let key =
            |sort: Sort, relay, part| Key { sort: sort.into(), relay, part, name: String::new() };
        match self.named() {
            Named::Revoked(relay) => key(Sort::Revoked, relay.0.into(), 0),
            Named::Node(relay) => key(Sort::Node, relay.0.into(), 0),
            Named::Policy(policy) => key(Sort::Policy, policy.0.into(), 0),
            Named::Peer(link) => {
                key(Sort::Peer, link.neighbour.0.into(), link.index.value().into())
            }
            named @ Named::Service(_) => Key { name: service(named).1, ..key(Sort::Service, 0, 0) },
            Named::Tenant(number) => key(Sort::Tenant, number.0.into(), 0),
            named @ Named::TenantService(_) => {
                let (tenant, name) = service(named);
                Key { name, ..key(Sort::TenantService, tenant.0.into(), 0) }
            }
            Named::AccessRelay(relay) => key(Sort::AccessRelay, relay.0.into(), 0),
            Named::AccessPrefixes(bucket) => key(Sort::AccessPrefixes, bucket, 0),
            Named::Route { destination, class, policy } => {
                Key::route(destination.0.into(), class.code().into(), policy.0.into())
            }
        }
    }

    /// The control version from which a relay may have it.
    pub(crate) fn version(self) -> u32 {
        match self.named() {
            Named::Policy(_) => POLICY_VERSION,
            Named::Route { policy, .. } if policy != PolicyId::default() => POLICY_VERSION,
            Named::Tenant(_) => TENANT_VERSION,
            Named::TenantService(_) | Named::AccessRelay(_) | Named::AccessPrefixes(_) => {
                OFFERS_VERSION
            }
            Named::Revoked(_)
            | Named::Node(_)
            | Named::Peer(_)
            | Named::Service(_)
            | Named::Route { .. } => VERSION_MIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_what_it_was_made_of_and_unrestricted_routes_come_first() {
        let relay = RelayId(0xabcd);
        let link = NeighbourLink::new(relay, LinkIndex::MAX);
        let route = |policy| RouteKey {
            source: RelayId(1),
            destination: relay,
            class: Class::Bulk,
            policy: PolicyId(policy),
        };
        let named = |policy| Named::Route {
            destination: relay,
            class: Class::Bulk,
            policy: PolicyId(policy),
        };
        let table = [
            (ItemKey::revoked(relay), Named::Revoked(relay)),
            (ItemKey::node(relay), Named::Node(relay)),
            (ItemKey::policy(PolicyId(0x1234)), Named::Policy(PolicyId(0x1234))),
            (ItemKey::peer(link), Named::Peer(link)),
            (ItemKey::service(0x0101_0203), Named::Service(0x0101_0203)),
            (ItemKey::tenant(PolicyId(0x1234)), Named::Tenant(PolicyId(0x1234))),
            (ItemKey::tenant_service(0x0101_0203), Named::TenantService(0x0101_0203)),
            (ItemKey::route(route(0)), named(0)),
            (ItemKey::route(route(0x4321)), named(0x4321)),
            (ItemKey::access_relay(relay), Named::AccessRelay(relay)),
            (ItemKey::access_prefixes(255), Named::AccessPrefixes(255)),
        ];
        for (key, named) in table {
            assert_eq!(key.named(), named);
        }
        assert!(table.is_sorted_by_key(|(key, _)| *key));
        let wire = ItemKey::route(route(2)).to_wire(|_| Default::default());
        assert_eq!(wire, Key::route(0xabcd, 2, 2));
        let wire = ItemKey::tenant(PolicyId(300)).to_wire(|_| Default::default());
        assert_eq!((wire.sort(), wire.relay), (Sort::Tenant, 300));
    }
}
