//! Control messages between a relay and a scheduler: protobuf (prost, written here by hand, so that no
//! `protoc` is needed), each behind its length as four bytes, big-endian, on one QUIC stream.
//!
//! The relay opens the stream and says [`Hello`]; the scheduler answers [`Welcome`] or [`Refused`]. From
//! then on the relay sends [`Report`]s and [`Ack`]s, the scheduler [`Update`]s.
//!
//! An `Update` is a set of [`Item`]s to put and keys to remove, by which the relay's pushed state goes
//! from `base` to `revision`. Revision 0 is the empty state, so a full sync is an update whose base is
//! 0. A relay whose revision is not the base changes nothing and asks with an `Ack` whose `resync` is
//! set.
//!
//! Skew: fields are only added, never renumbered; unknown fields and unknown items are ignored; both
//! sides give the versions that they speak, and the greatest common one is used.

use prost::{Message, Oneof};

/// Control versions that this build speaks, the least.
pub const VERSION_MIN: u32 = 1;
/// Control versions that this build speaks, the greatest.
pub const VERSION_MAX: u32 = 1;
/// Bytes of the largest message. A full update for 1,000 relays in three classes is about 400 KB.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// From relay to scheduler.
#[derive(Clone, PartialEq, Message)]
pub struct ToScheduler {
    /// What it says. Absent: a message of a later version, ignored.
    #[prost(oneof = "to_scheduler::Body", tags = "1, 2, 3, 4, 5")]
    pub body: Option<to_scheduler::Body>,
}

/// The bodies of [`ToScheduler`].
pub mod to_scheduler {
    use super::{Ack, Goodbye, Hello, Oneof, Renewal, Report};

    /// What a relay says.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// The first message.
        #[prost(message, tag = "1")]
        Hello(Hello),
        /// Measurements.
        #[prost(message, tag = "2")]
        Report(Report),
        /// An update was applied, or a full one is needed.
        #[prost(message, tag = "3")]
        Ack(Ack),
        /// A new certificate is wanted.
        #[prost(message, tag = "4")]
        Renewal(Renewal),
        /// The relay stops.
        #[prost(message, tag = "5")]
        Goodbye(Goodbye),
    }
}

/// From scheduler to relay.
#[derive(Clone, PartialEq, Message)]
pub struct ToRelay {
    /// What it says. Absent: a message of a later version, ignored.
    #[prost(oneof = "to_relay::Body", tags = "1, 2, 3, 4")]
    pub body: Option<to_relay::Body>,
}

/// The bodies of [`ToRelay`].
pub mod to_relay {
    use super::{Oneof, Refused, Renewed, Update, Welcome};

    /// What a scheduler says.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// The relay is registered.
        #[prost(message, tag = "1")]
        Welcome(Welcome),
        /// It is not, and why.
        #[prost(message, tag = "2")]
        Refused(Refused),
        /// A change of the pushed state.
        #[prost(message, tag = "3")]
        Update(Update),
        /// The new certificate.
        #[prost(message, tag = "4")]
        Renewed(Renewed),
    }
}

/// A relay introduces itself. Its id is the one in its certificate, not said here.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// Least control version that the relay speaks.
    #[prost(uint32, tag = "1")]
    pub version_min: u32,
    /// Greatest control version that the relay speaks.
    #[prost(uint32, tag = "2")]
    pub version_max: u32,
    /// Drawn at the process's start.
    #[prost(uint32, tag = "3")]
    pub boot: u32,
    /// The relay's name, as given by `node add`.
    #[prost(string, tag = "4")]
    pub name: String,
    /// The build, for people.
    #[prost(string, tag = "5")]
    pub software: String,
    /// Addresses as `IP:PORT` at which other relays reach it, one per provider line, at most 16.
    #[prost(string, repeated, tag = "6")]
    pub addresses: Vec<String>,
    /// Region, for policy and for people.
    #[prost(string, tag = "7")]
    pub region: String,
    /// Provider, for diversity.
    #[prost(string, tag = "8")]
    pub provider: String,
    /// Capacity of the relay's line, bits per second; 0 if not said.
    #[prost(uint64, tag = "9")]
    pub capacity_bps: u64,
    /// Price of its outgoing traffic; see [`crate::PricePerGb`].
    #[prost(uint32, tag = "10")]
    pub price_per_gb: u32,
    /// Whether it must not carry others' traffic.
    #[prost(bool, tag = "11")]
    pub no_transit: bool,
    /// Services that its gateway offers.
    #[prost(string, repeated, tag = "12")]
    pub services: Vec<String>,
    /// Term of the last epoch applied, 0 if none.
    #[prost(uint64, tag = "13")]
    pub epoch_term: u64,
    /// Sequence of the last epoch applied.
    #[prost(uint64, tag = "14")]
    pub epoch_sequence: u64,
    /// Revision of the pushed state that it holds, 0 if none.
    #[prost(uint64, tag = "15")]
    pub revision: u64,
}

/// The relay is registered.
#[derive(Clone, PartialEq, Message)]
pub struct Welcome {
    /// The control version to use.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The scheduler's term.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// How often to report, in milliseconds.
    #[prost(uint32, tag = "3")]
    pub report_interval_ms: u32,
}

/// The scheduler will not have this relay.
#[derive(Clone, PartialEq, Message)]
pub struct Refused {
    /// Why, for people.
    #[prost(string, tag = "1")]
    pub reason: String,
}

/// The relay stops in a moment; its links are to be left first.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Goodbye {}

/// A new certificate is wanted for the relay's new key.
#[derive(Clone, PartialEq, Message)]
pub struct Renewal {
    /// PKCS #10 certification request, DER. Only its public key is read.
    #[prost(bytes = "vec", tag = "1")]
    pub csr_der: Vec<u8>,
}

/// The new certificate.
#[derive(Clone, PartialEq, Message)]
pub struct Renewed {
    /// Certificates, DER, the relay's first.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub chain_der: Vec<Vec<u8>>,
}

/// An update was applied, or a full one is needed.
#[derive(Clone, PartialEq, Message)]
pub struct Ack {
    /// The revision that the relay now holds.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    /// Set if the relay's state is not the base of the update: a full one is needed.
    #[prost(bool, tag = "2")]
    pub resync: bool,
}

/// Measurements of a relay, of the links on which it receives.
#[derive(Clone, PartialEq, Message)]
pub struct Report {
    /// Counts this connection's reports from 1; a scheduler refuses one that does not count up.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// Whether `links` are all links; otherwise those that changed.
    #[prost(bool, tag = "2")]
    pub full: bool,
    /// One per link on which the relay receives.
    #[prost(message, repeated, tag = "3")]
    pub links: Vec<LinkReport>,
    /// How often the process woke late since its start.
    #[prost(uint64, tag = "4")]
    pub self_stalls: u64,
}

/// One neighbour link, as its receiving end sees it.
#[derive(Clone, PartialEq, Message)]
pub struct LinkReport {
    /// The neighbour: measurements are of what it sends to the reporter.
    #[prost(uint32, tag = "1")]
    pub neighbour: u32,
    /// The link index.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// Whether the reporter hears the neighbour.
    #[prost(enumeration = "State", tag = "3")]
    pub inbound: i32,
    /// Whether the neighbour hears the reporter, by the neighbour's heartbeats.
    #[prost(enumeration = "State", tag = "4")]
    pub outbound: i32,
    /// Over about the last second.
    #[prost(message, optional, tag = "5")]
    pub fast: Option<Window>,
    /// Over about the last thirty seconds.
    #[prost(message, optional, tag = "6")]
    pub slow: Option<Window>,
    /// Frames' bits received per second over the last second, for load.
    #[prost(uint64, tag = "7")]
    pub received_bps: u64,
}

/// Measurements over a window. Times are in microseconds.
#[derive(Clone, PartialEq, Message)]
pub struct Window {
    /// Receiver's clock less sender's: see [`crate::ClockDiff`].
    #[prost(sint64, tag = "1")]
    pub one_way_diff_us: i64,
    /// Round trip of the link, both directions.
    #[prost(uint32, tag = "2")]
    pub rtt_us: u32,
    /// Mean deviation of the round trip (RFC 6298's RTTVAR).
    #[prost(uint32, tag = "3")]
    pub rtt_var_us: u32,
    /// Mean deviation of the one-way difference.
    #[prost(uint32, tag = "4")]
    pub jitter_us: u32,
    /// Packets that should have arrived, weighted by age: the effective number of samples.
    #[prost(uint32, tag = "5")]
    pub samples: u32,
    /// Of these, lost.
    #[prost(uint32, tag = "6")]
    pub lost: u32,
}

/// Liveness of one direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum State {
    /// Nothing heard yet.
    Unknown = 0,
    /// Heard in time.
    Up = 1,
    /// Silent for one and a half intervals.
    Suspect = 2,
    /// Silent for three.
    Down = 3,
}

impl State {
    /// Its name in output and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

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
    #[prost(oneof = "item::Body", tags = "1, 2, 3, 4, 5")]
    pub body: Option<item::Body>,
}

/// The bodies of [`Item`].
pub mod item {
    use super::{Node, Oneof, Peer, Revoked, Route, Service};

    /// A piece of pushed state.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// A relay of the mesh. Key: `(NODE, relay)`.
        #[prost(message, tag = "1")]
        Node(Node),
        /// A link to hold and probe. Key: `(PEER, neighbour, index)`.
        #[prost(message, tag = "2")]
        Peer(Peer),
        /// The paths to a relay in a class. Key: `(ROUTE, destination, class)`.
        #[prost(message, tag = "3")]
        Route(Route),
        /// A service. Key: `(SERVICE, name)`.
        #[prost(message, tag = "4")]
        Service(Service),
        /// A relay that is no longer of the mesh. Key: `(REVOKED, relay)`.
        #[prost(message, tag = "5")]
        Revoked(Revoked),
    }
}

/// Which item.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Message)]
pub struct Key {
    /// What sort of item.
    #[prost(enumeration = "Sort", tag = "1")]
    pub sort: i32,
    /// The relay, neighbour or destination; 0 for a service.
    #[prost(uint32, tag = "2")]
    pub relay: u32,
    /// The link index of a peer, the class code of a route; otherwise 0.
    #[prost(uint32, tag = "3")]
    pub part: u32,
    /// The name of a service; otherwise empty.
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

/// The paths to a relay in a class, best first.
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

impl Item {
    /// The key under which a relay keeps the item, or `None` for an item of a later version.
    pub fn key(&self) -> Option<Key> {
        let key =
            |sort: Sort, relay, part| Key { sort: sort.into(), relay, part, name: String::new() };
        Some(match self.body.as_ref()? {
            item::Body::Node(node) => key(Sort::Node, node.relay, 0),
            item::Body::Peer(peer) => key(Sort::Peer, peer.neighbour, peer.index),
            item::Body::Route(route) => key(Sort::Route, route.destination, route.class),
            item::Body::Service(service) => {
                Key { name: service.name.clone(), ..key(Sort::Service, 0, 0) }
            }
            item::Body::Revoked(revoked) => key(Sort::Revoked, revoked.relay, 0),
        })
    }
}

macro_rules! into_message {
    ($outer:ident, $body:path: $($variant:ident),+) => {$(
        impl From<$variant> for $outer {
            fn from(body: $variant) -> Self {
                use $body as Body;
                Self { body: Some(Body::$variant(body)) }
            }
        }
    )+};
}

into_message!(ToScheduler, to_scheduler::Body: Hello, Report, Ack, Renewal, Goodbye);
into_message!(ToRelay, to_relay::Body: Welcome, Refused, Update, Renewed);
into_message!(Item, item::Body: Node, Peer, Route, Service, Revoked);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hello_has_these_bytes() {
        let hello =
            Hello { version_min: 1, version_max: 2, name: "fra".into(), ..Hello::default() };

        let bytes = ToScheduler::from(hello).encode_to_vec();

        assert_eq!(bytes, [0x0a, 9, 0x08, 1, 0x10, 2, 0x22, 3, b'f', b'r', b'a']);
    }

    #[test]
    fn a_route_has_these_bytes() {
        let path = RoutePath { steps: vec![0, 2, 0, 0, 3, 1], delay_us: 300 };
        let route = Route { destination: 3, class: 1, paths: vec![path] };

        let bytes = Item::from(route).encode_to_vec();

        assert_eq!(
            bytes,
            [0x1a, 17, 0x08, 3, 0x10, 1, 0x1a, 11, 0x0a, 6, 0, 2, 0, 0, 3, 1, 0x10, 0xac, 2]
        );
    }

    #[test]
    fn fields_of_a_later_version_are_ignored() {
        let mut bytes = ToScheduler::from(Ack { revision: 7, resync: false }).encode_to_vec();
        bytes.extend_from_slice(&[0xf8, 0x07, 0x01]);

        let decoded = ToScheduler::decode(&bytes[..]).unwrap();

        assert_eq!(decoded, ToScheduler::from(Ack { revision: 7, resync: false }));
    }

    #[test]
    fn items_of_different_sorts_have_different_keys() {
        let node = Item::from(Node { relay: 3, name: String::new() });
        let revoked = Item::from(Revoked { relay: 3 });
        let service = Item::from(Service { name: "web".into(), relays: vec![3] });

        assert_ne!(node.key(), revoked.key());
        assert_eq!(service.key().unwrap().name, "web");
        assert_eq!(Item { body: None }.key(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ToRelay::decode(&bytes[..]);
            let _ = ToScheduler::decode(&bytes[..]);
        }
    }
}
