//! What a scheduler pushes: items by key.

use prost::{Message, Oneof};

use super::{AccessPrefixes, AccessRelay, Tenant, TenantService};

/// Shares that the weights of a route's paths sum to: thousandths.
pub const WEIGHT_SUM: u32 = 1_000;
/// Bytes of a policy's name; a longer one is refused by the scheduler.
pub const POLICY_NAME_BYTES_MAX: usize = 64;

/// A change of a relay's pushed state: nodes, probe plan, routes, services, revocations.
#[derive(Clone, PartialEq, Message)]
pub struct Update {
    /// The epoch's term.
    #[prost(uint64, tag = "1")]
    pub epoch_term: u64,
    /// The epoch's sequence.
    #[prost(uint64, tag = "2")]
    pub epoch_sequence: u64,
    /// The revision that this changes; 0 for a full sync.
    #[prost(uint64, tag = "3")]
    pub base: u64,
    /// The revision that it makes.
    #[prost(uint64, tag = "4")]
    pub revision: u64,
    /// Items to put, new or in place of the one with the same key.
    #[prost(message, repeated, tag = "5")]
    pub put: Vec<Item>,
    /// Keys of items to remove.
    #[prost(message, repeated, tag = "6")]
    pub remove: Vec<Key>,
}

/// One piece of pushed state.
#[derive(Clone, PartialEq, Message)]
pub struct Item {
    /// Absent: an item of a later version, ignored.
    #[prost(oneof = "item::Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 20, 21")]
    pub body: Option<item::Body>,
}

/// The bodies of [`Item`].
pub mod item {
    use super::{
        AccessPrefixes, AccessRelay, Node, Oneof, Peer, Policy, Revoked, Route, Service, Tenant,
        TenantService,
    };

    /// A piece of pushed state.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// A relay of the mesh. Key: `(NODE, relay)`.
        #[prost(message, tag = "1")]
        Node(Node),
        /// A link to hold and probe. Key: `(PEER, neighbour, index)`.
        #[prost(message, tag = "2")]
        Peer(Peer),
        /// The paths to a relay in a class under a policy. Key: `(ROUTE, destination, class | policy << 8)`.
        #[prost(message, tag = "3")]
        Route(Route),
        /// A service. Key: `(SERVICE, name)`.
        #[prost(message, tag = "4")]
        Service(Service),
        /// A relay that is no longer of the mesh. Key: `(REVOKED, relay)`.
        #[prost(message, tag = "5")]
        Revoked(Revoked),
        /// A policy. Key: `(POLICY, policy)`.
        #[prost(message, tag = "6")]
        Policy(Policy),
        /// A tenant. Key: `(TENANT, number)`.
        #[prost(message, tag = "7")]
        Tenant(Tenant),
        /// A tenant's service. Key: `(TENANT_SERVICE, tenant, name)`.
        #[prost(message, tag = "8")]
        TenantService(TenantService),
        /// A relay at which clients may attach. Key: `(ACCESS_RELAY, relay)`.
        #[prost(message, tag = "20")]
        AccessRelay(AccessRelay),
        /// Which relays are near some networks. Key: `(ACCESS_PREFIXES, bucket)`.
        #[prost(message, tag = "21")]
        AccessPrefixes(AccessPrefixes),
    }
}

/// Which item.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Message)]
pub struct Key {
    /// What sort of item.
    #[prost(enumeration = "Sort", tag = "1")]
    pub sort: i32,
    /// The relay, neighbour, destination, policy, tenant or bucket; 0 for a service.
    #[prost(uint32, tag = "2")]
    pub relay: u32,
    /// The link index of a peer, `class | policy << 8` of a route; otherwise 0.
    #[prost(uint32, tag = "3")]
    pub part: u32,
    /// The name of a service, of the mesh or a tenant; otherwise empty.
    #[prost(string, tag = "4")]
    pub name: String,
}

/// The sorts of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Sort {
    /// Of a later version.
    Unknown = 0,
    /// [`Node`].
    Node = 1,
    /// [`Peer`].
    Peer = 2,
    /// [`Route`].
    Route = 3,
    /// [`Service`].
    Service = 4,
    /// [`Revoked`].
    Revoked = 5,
    /// [`Policy`].
    Policy = 6,
    /// [`Tenant`].
    Tenant = 7,
    /// [`TenantService`].
    TenantService = 8,
    /// [`AccessRelay`].
    AccessRelay = 20,
    /// [`AccessPrefixes`].
    AccessPrefixes = 21,
}

/// A relay of the mesh.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// Its id.
    #[prost(uint32, tag = "1")]
    pub relay: u32,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// How far an operator's drain of it is.
    #[prost(enumeration = "NodeDrain", tag = "3")]
    pub drain: i32,
    /// When the drain is over, in Unix seconds; 0: when the operator says so.
    #[prost(uint64, tag = "4")]
    pub drain_deadline: u64,
}

/// How far the drain of a relay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum NodeDrain {
    /// It is not being drained.
    None = 0,
    /// Edges attach elsewhere, and paths leave.
    Leaving = 1,
    /// Nothing goes over it, to it or from it.
    Over = 2,
}

/// A link to hold and probe.
#[derive(Clone, PartialEq, Message)]
pub struct Peer {
    /// The relay at the other end.
    #[prost(uint32, tag = "1")]
    pub neighbour: u32,
    /// The link index.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// Which of the receiver's own addresses (of `Hello.addresses`) the link uses.
    #[prost(uint32, tag = "3")]
    pub local_address: u32,
    /// The neighbour's address, `IP:PORT`.
    #[prost(string, tag = "4")]
    pub remote_address: String,
    /// What the link is for; says how often to probe it.
    #[prost(enumeration = "Role", tag = "5")]
    pub role: i32,
    /// Capacity in bits per second, the lesser of the two ends'; 0 if not known.
    #[prost(uint64, tag = "6")]
    pub capacity_bps: u64,
    /// Workers of the neighbour's data plane; 0 if not known, which is one.
    #[prost(uint32, tag = "7")]
    pub workers: u32,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Role {
    /// Measured only.
    Idle = 0,
    /// On a path or a backup of some pair: kept warm.
    Candidate = 1,
}

/// The paths to a relay in a class under a policy, best first.
#[derive(Clone, PartialEq, Message)]
pub struct Route {
    /// The destination relay.
    #[prost(uint32, tag = "1")]
    pub destination: u32,
    /// The class's code.
    #[prost(uint32, tag = "2")]
    pub class: u32,
    /// Best first; at most [`ROUTE_PATHS_MAX`] are read.
    #[prost(message, repeated, tag = "3")]
    pub paths: Vec<RoutePath>,
    /// The policy whose traffic takes them; 0: traffic without limits.
    #[prost(uint32, tag = "4")]
    pub policy: u32,
}

/// Paths that a route may hold; further ones are ignored.
pub const ROUTE_PATHS_MAX: usize = 8;

/// One path of a route.
#[derive(Clone, PartialEq, Message)]
pub struct RoutePath {
    /// Three bytes per step, as in a frame: see [`crate::Path::decode`].
    #[prost(bytes = "vec", tag = "1")]
    pub steps: Vec<u8>,
    /// Expected one-way delay in microseconds, for budgets and for people.
    #[prost(uint32, tag = "2")]
    pub delay_us: u32,
    /// Share of the route's flows in thousandths. Where all of a route's paths have 0, every flow takes
    /// the first that is usable; else a path with 0 is a backup only.
    #[prost(uint32, tag = "3")]
    pub weight: u32,
}

/// A service and where it is offered.
#[derive(Clone, PartialEq, Message)]
pub struct Service {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The relays whose gateway offers it, in order of id.
    #[prost(uint32, repeated, tag = "2")]
    pub relays: Vec<u32>,
}

/// A relay that is no longer of the mesh: its certificate counts for nothing.
#[derive(Clone, PartialEq, Message)]
pub struct Revoked {
    /// Its id.
    #[prost(uint32, tag = "1")]
    pub relay: u32,
}

/// Which relays the paths of a policy's traffic may use.
#[derive(Clone, PartialEq, Message)]
pub struct Policy {
    /// Its number, as in a frame's header; never 0.
    #[prost(uint32, tag = "1")]
    pub policy: u32,
    /// Its name, as in configuration.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The relays that may be on its paths, ends included, in order of id.
    #[prost(uint32, repeated, tag = "3")]
    pub relays: Vec<u32>,
}

impl Key {
    fn new(sort: Sort, relay: u32, part: u32) -> Self {
        Self { sort: sort.into(), relay, part, name: String::new() }
    }

    /// The key of the route to `destination` of a class's code and a policy.
    pub fn route(destination: u32, class: u32, policy: u32) -> Self {
        Self::new(Sort::Route, destination, class | (policy << 8))
    }
}

impl Item {
    /// The key under which a relay keeps the item, or `None` for an item of a later version.
    pub fn key(&self) -> Option<Key> {
        Some(match self.body.as_ref()? {
            item::Body::Node(node) => Key::new(Sort::Node, node.relay, 0),
            item::Body::Peer(peer) => Key::new(Sort::Peer, peer.neighbour, peer.index),
            item::Body::Route(route) => Key::route(route.destination, route.class, route.policy),
            item::Body::Service(service) => {
                Key { name: service.name.clone(), ..Key::new(Sort::Service, 0, 0) }
            }
            item::Body::Revoked(revoked) => Key::new(Sort::Revoked, revoked.relay, 0),
            item::Body::Policy(policy) => Key::new(Sort::Policy, policy.policy, 0),
            item::Body::Tenant(tenant) => Key::new(Sort::Tenant, tenant.number, 0),
            item::Body::TenantService(service) => {
                let key = Key::new(Sort::TenantService, service.tenant, 0);
                Key { name: service.name.clone(), ..key }
            }
            item::Body::AccessRelay(relay) => Key::new(Sort::AccessRelay, relay.relay, 0),
            item::Body::AccessPrefixes(prefixes) => {
                Key::new(Sort::AccessPrefixes, prefixes.bucket, 0)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ToRelay;

    #[test]
    fn an_update_has_these_bytes() {
        let update = Update {
            epoch_term: 1,
            epoch_sequence: 2,
            base: 3,
            revision: 4,
            put: vec![Node { relay: 7, name: "a".into(), ..Node::default() }.into()],
            remove: vec![Key::route(3, 1, 9)],
        };

        let bytes = ToRelay::from(update).encode_to_vec();

        let parts: [&[u8]; 3] = [
            &[0x1a, 26, 0x08, 1, 0x10, 2, 0x18, 3, 0x20, 4],
            &[0x2a, 7, 0x0a, 5, 0x08, 7, 0x12, 1, b'a'],
            &[0x32, 7, 0x08, 3, 0x10, 3, 0x18, 0x81, 18],
        ];
        assert_eq!(bytes, parts.concat());
    }

    #[test]
    fn a_route_has_these_bytes() {
        let path =
            RoutePath { steps: vec![0, 2, 0, 0, 3, 1], delay_us: 300, ..RoutePath::default() };
        let route = Route { destination: 3, class: 1, paths: vec![path], ..Route::default() };

        let bytes = Item::from(route).encode_to_vec();

        assert_eq!(
            bytes,
            [0x1a, 17, 0x08, 3, 0x10, 1, 0x1a, 11, 0x0a, 6, 0, 2, 0, 0, 3, 1, 0x10, 0xac, 2]
        );
    }

    #[test]
    fn a_weight_and_a_policy_have_these_bytes() {
        let path = RoutePath { steps: vec![0, 3, 0], weight: 600, ..RoutePath::default() };
        let route = Route { destination: 3, class: 1, paths: vec![path], policy: 9 };
        let bytes = Item::from(route).encode_to_vec();
        let path = [0x1a, 8, 0x0a, 3, 0, 3, 0, 0x18, 0xd8, 4];
        assert_eq!(bytes, [&[0x1a, 16, 0x08, 3, 0x10, 1], &path[..], &[0x20, 9]].concat());

        let policy = Policy { policy: 9, name: "eu".into(), relays: vec![1, 3] };
        let bytes = Item::from(policy).encode_to_vec();
        assert_eq!(bytes, [0x32, 10, 0x08, 9, 0x12, 2, b'e', b'u', 0x1a, 2, 1, 3]);
    }

    #[test]
    fn a_drained_node_has_these_bytes() {
        let drain = NodeDrain::Leaving.into();
        let node = Node { relay: 3, name: "a".into(), drain, drain_deadline: 300 };
        let bytes = Item::from(node).encode_to_vec();
        assert_eq!(bytes, [0x0a, 10, 0x08, 3, 0x12, 1, b'a', 0x18, 1, 0x20, 0xac, 2]);
    }

    #[test]
    fn items_of_different_sorts_have_different_keys() {
        let node = Item::from(Node { relay: 3, ..Node::default() });
        let revoked = Item::from(Revoked { relay: 3 });
        let service = Item::from(Service { name: "web".into(), relays: vec![3] });

        assert_ne!(node.key(), revoked.key());
        assert_eq!(service.key().unwrap().name, "web");
        assert_eq!(Item { body: None }.key(), None);
    }

    #[test]
    fn routes_to_a_relay_have_a_key_for_each_class_and_policy() {
        let keys: std::collections::BTreeSet<Key> = [(0, 0), (2, 0), (0, 1), (2, 1), (0, 65_535)]
            .into_iter()
            .map(|(class, policy)| {
                let route = Route { destination: 3, class, policy, ..Route::default() };
                Item::from(route).key().unwrap()
            })
            .collect();

        assert_eq!(keys.len(), 5);
        assert!(keys.contains(&Key::route(3, 2, 1)));
    }
}
