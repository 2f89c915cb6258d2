//! Where clients may attach: what relays say of their access side, and what all relays are told of it, so that each can
//! say which of them are near a client (`overway_dispatch`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use prost::Message;

use super::Location;

/// Addresses of one relay's access side, of each protocol: one of each family; further ones are not read.
pub const ACCESS_ADDRESSES_MAX: usize = 2;
/// The weight of a relay that says none.
pub const ACCESS_WEIGHT_DEFAULT: u32 = 100;
/// The greatest weight.
pub const ACCESS_WEIGHT_MAX: u32 = 10_000;
/// Prefixes in one relay's [`Distances`]; further ones are not read. They stay below 64 KB.
pub const DISTANCES_MAX: usize = 2_048;
/// Relays told of one prefix, the nearest.
pub const PREFIX_RELAYS_MAX: usize = 8;
/// Items among which prefixes are divided: a change sends a two hundred and fifty-sixth of all again.
pub const PREFIX_BUCKETS: u32 = 256;
/// Prefixes of one item; further ones are not read. 16,384 in all.
pub const BUCKET_PREFIXES_MAX: usize = 64;

/// The access side of a relay as it is now.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AccessState {
    /// Where edges attach, `IP:PORT`, at most [`ACCESS_ADDRESSES_MAX`]. None: nowhere.
    #[prost(string, repeated, tag = "1")]
    pub addresses: Vec<String>,
    /// Its share of clients among relays that are about as near, to [`ACCESS_WEIGHT_MAX`]; 0: none while others have
    /// room.
    #[prost(uint32, tag = "2")]
    pub weight: u32,
    /// Edges attached.
    #[prost(uint32, tag = "3")]
    pub attachments: u32,
    /// Edges that it has room for.
    #[prost(uint32, tag = "4")]
    pub attachments_max: u32,
    /// Thousandths of its lines' capacity in use; 0 if not known.
    #[prost(uint32, tag = "5")]
    pub busy_permille: u32,
    /// Whether it sends its edges away.
    #[prost(bool, tag = "6")]
    pub draining: bool,
    /// Where edges attach over TLS on TCP, `IP:PORT`, at most [`ACCESS_ADDRESSES_MAX`]. None: it was not said.
    #[prost(string, repeated, tag = "7")]
    pub tcp_addresses: Vec<String>,
}

/// Round trips from a relay to the networks of its edges: all that it knows, in place of what was said before.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Distances {
    /// At most [`DISTANCES_MAX`].
    #[prost(message, repeated, tag = "1")]
    pub distances: Vec<Distance>,
}

/// The round trip from a relay to a network.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Distance {
    /// The network; see [`NetworkPrefix::from_bytes`].
    #[prost(bytes = "vec", tag = "1")]
    pub prefix: Vec<u8>,
    /// Microseconds.
    #[prost(uint32, tag = "2")]
    pub rtt_us: u32,
}

/// A relay at which clients may attach, as everybody is told of it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AccessRelay {
    /// Its id.
    #[prost(uint32, tag = "1")]
    pub relay: u32,
    /// What it says, its counts rounded.
    #[prost(message, optional, tag = "2")]
    pub state: Option<AccessState>,
    /// Its region.
    #[prost(string, tag = "3")]
    pub region: String,
    /// Its provider.
    #[prost(string, tag = "4")]
    pub provider: String,
    /// Where it is, if it says so.
    #[prost(message, optional, tag = "5")]
    pub location: Option<Location>,
}

/// Which relays are near some networks.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AccessPrefixes {
    /// The bucket, below [`PREFIX_BUCKETS`].
    #[prost(uint32, tag = "1")]
    pub bucket: u32,
    /// At most [`BUCKET_PREFIXES_MAX`], in order of their bytes.
    #[prost(message, repeated, tag = "2")]
    pub prefixes: Vec<PrefixDistances>,
}

/// Which relays are near a network.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PrefixDistances {
    /// The network.
    #[prost(bytes = "vec", tag = "1")]
    pub prefix: Vec<u8>,
    /// The relays, the nearest first, at most [`PREFIX_RELAYS_MAX`].
    #[prost(uint32, repeated, tag = "2")]
    pub relays: Vec<u32>,
    /// The round trip to each, microseconds.
    #[prost(uint32, repeated, tag = "3")]
    pub rtts_us: Vec<u32>,
}

/// A client's network: the first 24 bits of an IPv4 address, the first 48 of an IPv6 address. These are about what one
/// site is given (RFC 6177) and the least that is announced between networks, so that all of one are about as far away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkPrefix {
    /// A /24.
    V4([u8; 3]),
    /// A /48.
    V6([u8; 6]),
}

impl NetworkPrefix {
    /// The network of an address. An IPv4 address mapped into IPv6 is an IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, ..] = address.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }

    /// Reads three bytes of IPv4 or six of IPv6; `None` for any other number.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let v4 = || bytes.try_into().ok().map(Self::V4);
        v4().or_else(|| bytes.try_into().ok().map(Self::V6))
    }

    /// The bytes as they travel.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::V4(bytes) => bytes,
            Self::V6(bytes) => bytes,
        }
    }

    /// Which item tells of it: FNV-1a over its bytes, modulo [`PREFIX_BUCKETS`].
    pub fn bucket(&self) -> u32 {
        let step = |hash: u32, &byte: &u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let hash = self.as_bytes().iter().fold(0x811c_9dc5, step);
        (hash ^ hash >> 16) % PREFIX_BUCKETS
    }
}

impl fmt::Display for NetworkPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4([a, b, c]) => write!(f, "{}/24", Ipv4Addr::new(*a, *b, *c, 0)),
            Self::V6(bytes) => {
                let mut octets = [0; 16];
                octets[..6].copy_from_slice(bytes);
                write!(f, "{}/48", Ipv6Addr::from(octets))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Item, Sort, ToScheduler};

    #[test]
    fn an_access_state_and_distances_have_these_bytes() {
        let state = AccessState {
            addresses: vec!["a".into()],
            weight: 100,
            attachments: 1,
            attachments_max: 300,
            busy_permille: 5,
            draining: true,
            tcp_addresses: vec!["b".into()],
        };
        let bytes = ToScheduler::from(state).encode_to_vec();
        let parts: [&[u8]; 3] = [
            &[0xa2, 1, 17, 0x0a, 1, b'a', 0x10, 100],
            &[0x18, 1, 0x20, 0xac, 2],
            &[0x28, 5, 0x30, 1, 0x3a, 1, b'b'],
        ];
        assert_eq!(bytes, parts.concat());

        let distance = Distance { prefix: vec![10, 1, 2], rtt_us: 300 };
        let bytes = ToScheduler::from(Distances { distances: vec![distance] }).encode_to_vec();
        assert_eq!(bytes, [0xaa, 1, 10, 0x0a, 8, 0x0a, 3, 10, 1, 2, 0x10, 0xac, 2]);
    }

    #[test]
    fn what_is_told_has_these_bytes_and_keys() {
        let relay = AccessRelay { relay: 3, region: "eu".into(), ..AccessRelay::default() };
        let item = Item::from(relay);
        assert_eq!(item.encode_to_vec(), [0xa2, 1, 6, 0x08, 3, 0x1a, 2, b'e', b'u']);
        let key = item.key().unwrap();
        assert_eq!((key.sort(), key.relay, key.part), (Sort::AccessRelay, 3, 0));

        let prefix =
            PrefixDistances { prefix: vec![10, 1, 2], relays: vec![3], rtts_us: vec![300] };
        let item = Item::from(AccessPrefixes { bucket: 7, prefixes: vec![prefix] });
        let parts: [&[u8]; 2] =
            [&[0xaa, 1, 16, 0x08, 7, 0x12, 12, 0x0a, 3, 10, 1, 2], &[0x12, 1, 3, 0x1a, 2, 0xac, 2]];
        assert_eq!(item.encode_to_vec(), parts.concat());
        let key = item.key().unwrap();
        assert_eq!((key.sort(), key.relay, key.part), (Sort::AccessPrefixes, 7, 0));
    }

    #[test]
    fn addresses_of_one_network_have_one_prefix() {
        let of = |address: &str| NetworkPrefix::of(address.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("192.0.2.254"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.9"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:ffff::"));
        assert_ne!(of("2001:db8:1::"), of("2001:db8:2::"));
        assert_eq!(of("192.0.2.1").to_string(), "192.0.2.0/24");
        assert_eq!(of("2001:db8:1:2::3").to_string(), "2001:db8:1::/48");
        for address in ["192.0.2.1", "2001:db8:1:2::3"] {
            let prefix = of(address);
            assert_eq!(NetworkPrefix::from_bytes(prefix.as_bytes()), Some(prefix));
            assert!(prefix.bucket() < PREFIX_BUCKETS);
        }
        assert_eq!(NetworkPrefix::from_bytes(&[1, 2, 3, 4]), None);
    }

    #[test]
    fn prefixes_spread_over_the_buckets() {
        let buckets: std::collections::BTreeSet<u32> = (0..=255_u8)
            .flat_map(|b| (0..16).map(move |c| NetworkPrefix::V4([10, b, c]).bucket()))
            .collect();
        assert_eq!(buckets.len(), PREFIX_BUCKETS as usize);
    }
}
