//! Control messages between a relay and a scheduler: protobuf (prost, written here by hand, so that no
//! `protoc` is needed), each behind its length as four bytes, big-endian, on one QUIC stream.
//!
//! The relay opens the stream and says [`Hello`]; the scheduler answers [`Welcome`] or [`Refused`]. From
//! then on the relay sends [`AccessState`], [`Distances`], [`Offers`], [`Report`]s, [`Quality`] and [`Ack`]s, the scheduler
//! [`Update`]s.
//!
//! An `Update` is a set of [`Item`]s to put and keys to remove, by which the relay's pushed state goes
//! from `base` to `revision`. Revision 0 is the empty state, so a full sync is an update whose base is
//! 0. A relay whose revision is not the base changes nothing and asks with an `Ack` whose `resync` is
//! set.
//!
//! Skew: fields are only added, never renumbered; unknown fields and unknown items are ignored; both
//! sides give the versions that they speak, and the greatest common one is used.

use prost::{Message, Oneof};

use crate::quality::Quality;

mod access;
mod pushed;
mod report;
mod services;
mod tenant;

pub use access::{
    ACCESS_ADDRESSES_MAX, ACCESS_WEIGHT_DEFAULT, ACCESS_WEIGHT_MAX, AccessPrefixes, AccessRelay,
    AccessState, BUCKET_PREFIXES_MAX, DISTANCES_MAX, Distance, Distances, NetworkPrefix,
    PREFIX_BUCKETS, PREFIX_RELAYS_MAX, PrefixDistances,
};
pub use pushed::{
    Item, Key, Node, NodeDrain, POLICY_NAME_BYTES_MAX, Peer, Policy, ROUTE_PATHS_MAX, Revoked,
    Role, Route, RoutePath, Service, Sort, Update, WEIGHT_SUM, item,
};
pub use report::{
    AccessUse, DEMANDS_MAX, Demand, LineUse, LinkReport, Report, State, TenantUse, Window,
};
pub use services::{
    EDGE_ID_BYTES, Endpoint, OFFERS_MAX, Offer, Offers, Place, SERVICE_ENDPOINTS_MAX,
    SERVICE_NAME_BYTES_MAX, TenantService,
};
pub use tenant::{
    TENANT_KEYS_MAX, TENANT_REVOKED_KEYS_MAX, TENANT_REVOKED_TOKENS_MAX, Tenant, TenantKey,
    TenantQuota,
};

/// Control versions that this build speaks, the least.
pub const VERSION_MIN: u32 = 1;
/// Control versions that this build speaks, the greatest.
pub const VERSION_MAX: u32 = 3;
/// The control version from which a relay keeps routes apart by policy. One of an earlier version would
/// take a policy's route for everybody's: it is never sent a policy, nor a route of one.
pub const POLICY_VERSION: u32 = 2;
/// The control version from which a relay knows tenants. One of an earlier version is never sent one: it would carry
/// their frames as those of a policy that it has not been told of.
pub const TENANT_VERSION: u32 = 3;
/// The control version from which a relay says what edges offer there, and knows services of tenants.
pub const OFFERS_VERSION: u32 = 3;
/// Bytes of the largest message. A full update for 1,000 relays in three classes is about 400 KB.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Workers of one relay, and shards of one link: sixteen processors carry what a relay's lines do, and a shard takes
/// three connections. A relay that says more counts as having so many.
pub const WORKERS_MAX: u8 = 16;
/// Lines of one relay, as many as addresses; further ones are ignored.
pub const LINES_MAX: usize = 16;

/// From relay to scheduler.
#[derive(Clone, PartialEq, Message)]
pub struct ToScheduler {
    /// What it says. Absent: a message of a later version, ignored.
    #[prost(oneof = "to_scheduler::Body", tags = "1, 2, 3, 4, 5, 6, 20, 21, 30")]
    pub body: Option<to_scheduler::Body>,
}

/// The bodies of [`ToScheduler`].
pub mod to_scheduler {
    use super::{
        AccessState, Ack, Distances, Goodbye, Hello, Offers, Oneof, Quality, Renewal, Report,
    };

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
        /// What edges offer there.
        #[prost(message, tag = "6")]
        Offers(Offers),
        /// How its access side stands.
        #[prost(message, tag = "20")]
        AccessState(AccessState),
        /// How far its edges' networks are.
        #[prost(message, tag = "21")]
        Distances(Distances),
        /// What users feel there.
        #[prost(message, tag = "30")]
        Quality(Quality),
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
    /// What is known of the line behind each address, in their order; empty if nothing more than the
    /// relay's own capacity and price, which then count for each.
    #[prost(message, repeated, tag = "16")]
    pub lines: Vec<Line>,
    /// Workers of its data plane, at most [`WORKERS_MAX`]; 0 if not said, which is one.
    #[prost(uint32, tag = "17")]
    pub workers: u32,
    /// Where it is, for maps; absent if not said.
    #[prost(message, optional, tag = "20")]
    pub location: Option<Location>,
}

/// A place on the earth (WGS 84), in millionths of a degree: a tenth of a metre, where a city is enough.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Location {
    /// North of the equator, -90,000,000 to 90,000,000.
    #[prost(sint32, tag = "1")]
    pub latitude_e6: i32,
    /// East of Greenwich, -180,000,000 to 180,000,000.
    #[prost(sint32, tag = "2")]
    pub longitude_e6: i32,
}

impl Location {
    /// Makes a location of degrees; `None` if they are no place on the earth.
    #[expect(clippy::cast_possible_truncation, reason = "checked: 180 million at most")]
    pub fn from_degrees(latitude: f64, longitude: f64) -> Option<Self> {
        let micro = |degrees: f64| (degrees * 1e6).round() as i32;
        let on_earth = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        on_earth.then(|| Self { latitude_e6: micro(latitude), longitude_e6: micro(longitude) })
    }

    /// Whether it is on the earth; what others say need not be.
    pub fn is_valid(&self) -> bool {
        self.latitude_e6.unsigned_abs() <= 90_000_000
            && self.longitude_e6.unsigned_abs() <= 180_000_000
    }
}

/// A provider's line at a relay: what it carries and what its outgoing traffic costs. Zero: not said.
#[derive(Clone, PartialEq, Message)]
pub struct Line {
    /// Capacity in bits per second.
    #[prost(uint64, tag = "1")]
    pub capacity_bps: u64,
    /// Price of what goes out beyond the commit; see [`crate::PricePerGb`].
    #[prost(uint32, tag = "2")]
    pub price_per_gb: u32,
    /// Gigabytes (10^9 bytes) of each calendar month (UTC) that are paid for in any case.
    #[prost(uint64, tag = "3")]
    pub commit_gb: u64,
    /// Gigabytes of each month beyond which the line is not to be used.
    #[prost(uint64, tag = "4")]
    pub cap_gb: u64,
    /// Who provides it, for diversity; empty: the relay's own provider.
    #[prost(string, tag = "5")]
    pub provider: String,
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

into_message!(ToScheduler, to_scheduler::Body: Hello, Report, Ack, Renewal, Goodbye, Offers, AccessState, Distances, Quality);
into_message!(ToRelay, to_relay::Body: Welcome, Refused, Update, Renewed);
into_message!(Item, item::Body: Node, Peer, Route, Service, Revoked, Policy, Tenant, TenantService, AccessRelay, AccessPrefixes);

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
    fn the_lines_of_a_hello_have_these_bytes() {
        let line = Line {
            capacity_bps: 1_000,
            price_per_gb: 5,
            commit_gb: 2,
            cap_gb: 3,
            provider: "x".into(),
        };
        let hello = Hello { lines: vec![line], ..Hello::default() };

        let bytes = hello.encode_to_vec();

        let line = [0x08, 0xe8, 7, 0x10, 5, 0x18, 2, 0x20, 3, 0x2a, 1, b'x'];
        assert_eq!(bytes, [&[0x82, 1, 12], &line[..]].concat());
    }

    #[test]
    fn the_workers_of_a_relay_have_these_bytes() {
        let hello = Hello { workers: 4, ..Hello::default() };
        assert_eq!(hello.encode_to_vec(), [0x88, 1, 4]);

        let peer = Peer { neighbour: 3, workers: 4, ..Peer::default() };
        assert_eq!(peer.encode_to_vec(), [0x08, 3, 0x38, 4]);
    }

    #[test]
    fn the_location_of_a_relay_has_these_bytes_and_is_on_the_earth() {
        let location = Location::from_degrees(0.000_002, -0.000_001);
        let hello = Hello { location, ..Hello::default() };
        assert_eq!(hello.encode_to_vec(), [0xa2, 1, 4, 0x08, 4, 0x10, 1]);

        let [north, east] = [90_000_000, 180_000_000];
        assert!(Location { latitude_e6: -north, longitude_e6: -east }.is_valid());
        assert!(!Location { latitude_e6: north + 1, longitude_e6: 0 }.is_valid());
        assert!(!Location { latitude_e6: 0, longitude_e6: i32::MIN }.is_valid());
        for (latitude, longitude) in [(90.1, 0.0), (0.0, -180.1), (f64::NAN, 0.0)] {
            assert_eq!(Location::from_degrees(latitude, longitude), None);
        }
    }

    #[test]
    fn a_welcome_and_an_ack_have_these_bytes() {
        let welcome = Welcome { version: 2, term: 3, report_interval_ms: 1_000 };
        let bytes = ToRelay::from(welcome).encode_to_vec();
        assert_eq!(bytes, [0x0a, 7, 0x08, 2, 0x10, 3, 0x18, 0xe8, 7]);

        let bytes = ToScheduler::from(Ack { revision: 7, resync: true }).encode_to_vec();
        assert_eq!(bytes, [0x1a, 4, 0x08, 7, 0x10, 1]);
    }

    #[test]
    fn a_refusal_a_renewal_and_a_goodbye_have_these_bytes() {
        let bytes = ToRelay::from(Refused { reason: "no".into() }).encode_to_vec();
        assert_eq!(bytes, [0x12, 4, 0x0a, 2, b'n', b'o']);

        let bytes = ToScheduler::from(Renewal { csr_der: vec![1, 2] }).encode_to_vec();
        assert_eq!(bytes, [0x22, 4, 0x0a, 2, 1, 2]);

        let bytes = ToRelay::from(Renewed { chain_der: vec![vec![1], vec![2]] }).encode_to_vec();
        assert_eq!(bytes, [0x22, 6, 0x0a, 1, 1, 0x0a, 1, 2]);

        assert_eq!(ToScheduler::from(Goodbye {}).encode_to_vec(), [0x2a, 0]);
    }

    #[test]
    fn fields_of_a_later_version_are_ignored() {
        let mut bytes = ToScheduler::from(Ack { revision: 7, resync: false }).encode_to_vec();
        bytes.extend_from_slice(&[0xf8, 0x07, 0x01]);

        let decoded = ToScheduler::decode(&bytes[..]).unwrap();

        assert_eq!(decoded, ToScheduler::from(Ack { revision: 7, resync: false }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ToRelay::decode(&bytes[..]);
            let _ = ToScheduler::decode(&bytes[..]);
        }
    }
}
