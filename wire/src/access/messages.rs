//! Messages of an attachment's control stream: protobuf (prost, written here by hand), each behind its length as four
//! bytes, big-endian, on the one bidirectional stream of an access connection.
//!
//! The edge opens the stream and says [`Attach`]; the relay answers [`Attached`], or [`Refused`] and closes. From then
//! on the edge may [`Offer`] services, say their [`Health`], [`Resolve`] names, ask for the [`Nearest`] relays, and [`Detach`];
//! the relay answers with [`Offers`], [`Resolved`] and [`AccessRelays`], and says [`Draining`] before it goes. What its flows felt like the edge tells in
//! [`FlowReports`], at most every few seconds.
//!
//! Skew: fields are only added, never renumbered; unknown fields and unknown messages are ignored; both sides give
//! versions, and the greatest common one is used.

use prost::{Enumeration, Message, Oneof};

use crate::quality::FlowReports;

/// Access versions that this build speaks, the least.
pub const VERSION_MIN: u32 = 1;
/// Access versions that this build speaks, the greatest.
pub const VERSION_MAX: u32 = 1;
/// Bytes of the largest message: sixty-four offers of the longest names take a third of it.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Bytes of the longest token.
pub const TOKEN_BYTES_MAX: usize = 4_096;
/// Bytes of an edge's public key (Ed25519).
pub const PUBLIC_KEY_BYTES: usize = 32;
/// Bytes of its signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Bytes of the longest name of a service, and of the software's.
pub const NAME_BYTES_MAX: usize = 255;
/// Services that one edge offers at most; an [`Offer`] of more is refused.
pub const OFFERS_MAX: usize = 64;
/// Endpoints in one answer at most, the best first.
pub const ENDPOINTS_MAX: usize = 32;
/// Relays in one answer at most. They stay below half of [`MESSAGE_BYTES_MAX`].
pub const NEAREST_MAX: usize = 32;
/// Bytes of the longest reason; longer ones are cut.
pub const REASON_BYTES_MAX: usize = 255;

/// From edge to relay.
#[derive(Clone, PartialEq, Message)]
pub struct FromEdge {
    /// What it says. Absent: a message of a later version, ignored.
    #[prost(oneof = "from_edge::Body", tags = "1, 2, 3, 4, 5, 20, 21")]
    pub body: Option<from_edge::Body>,
}

/// The bodies of [`FromEdge`].
pub mod from_edge {
    use super::{Attach, Detach, FlowReports, Health, Nearest, Offer, Oneof, Resolve};

    /// What an edge says.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// The first message.
        #[prost(message, tag = "1")]
        Attach(Attach),
        /// The edge leaves.
        #[prost(message, tag = "2")]
        Detach(Detach),
        /// The services that it offers.
        #[prost(message, tag = "3")]
        Offer(Offer),
        /// Whether one of them is well.
        #[prost(message, tag = "4")]
        Health(Health),
        /// Where a service is.
        #[prost(message, tag = "5")]
        Resolve(Resolve),
        /// What it has felt.
        #[prost(message, tag = "20")]
        FlowReports(FlowReports),
        /// Which relays it should attach to; also before it attaches, once.
        #[prost(message, tag = "21")]
        Nearest(Nearest),
    }
}

/// From relay to edge.
#[derive(Clone, PartialEq, Message)]
pub struct ToEdge {
    /// What it says. Absent: a message of a later version, ignored.
    #[prost(oneof = "to_edge::Body", tags = "1, 2, 3, 4, 5, 6, 21")]
    pub body: Option<to_edge::Body>,
}

/// The bodies of [`ToEdge`].
pub mod to_edge {
    use super::{AccessRelays, Attached, Draining, Limited, Offers, Oneof, Refused, Resolved};

    /// What a relay says.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// The edge is attached.
        #[prost(message, tag = "1")]
        Attached(Attached),
        /// It is not, and why.
        #[prost(message, tag = "2")]
        Refused(Refused),
        /// The relay goes in a moment.
        #[prost(message, tag = "3")]
        Draining(Draining),
        /// Which offers stand.
        #[prost(message, tag = "4")]
        Offers(Offers),
        /// Where a service is.
        #[prost(message, tag = "5")]
        Resolved(Resolved),
        /// Frames were dropped, for the tenant uses what it may.
        #[prost(message, tag = "6")]
        Limited(Limited),
        /// Which relays the edge should attach to.
        #[prost(message, tag = "21")]
        AccessRelays(AccessRelays),
    }
}

/// An edge proves who it is, and what its tenant lets it do.
#[derive(Clone, PartialEq, Message)]
pub struct Attach {
    /// Least access version that the edge speaks.
    #[prost(uint32, tag = "1")]
    pub version_min: u32,
    /// Greatest access version that the edge speaks.
    #[prost(uint32, tag = "2")]
    pub version_max: u32,
    /// What its tenant's backend gave it: a JWT bound to its key, at most [`TOKEN_BYTES_MAX`].
    #[prost(string, tag = "3")]
    pub token: String,
    /// Its public key, Ed25519.
    #[prost(bytes = "vec", tag = "4")]
    pub public_key: Vec<u8>,
    /// That key's signature over what the connection's TLS exporter gives; see [`super::EXPORTER_LABEL`].
    #[prost(bytes = "vec", tag = "5")]
    pub signature: Vec<u8>,
    /// Drawn at the process's start.
    #[prost(uint32, tag = "6")]
    pub boot: u32,
    /// The build, for people.
    #[prost(string, tag = "7")]
    pub software: String,
}

/// The edge is attached.
#[derive(Clone, PartialEq, Message)]
pub struct Attached {
    /// The access version to use.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The relay's id; the one in its certificate.
    #[prost(uint32, tag = "2")]
    pub relay: u32,
    /// The edge's attachment at it, from 2.
    #[prost(uint32, tag = "3")]
    pub attachment: u32,
    /// The tenant's number, which its frames carry as their policy.
    #[prost(uint32, tag = "4")]
    pub tenant: u32,
    /// What the edge may send each second.
    #[prost(message, optional, tag = "5")]
    pub limits: Option<Limits>,
    /// The address from which the relay sees the edge, `IP:PORT`.
    #[prost(string, tag = "6")]
    pub seen_address: String,
    /// Drawn at the relay's start.
    #[prost(uint32, tag = "7")]
    pub boot: u32,
}

/// Bytes per second that an edge may send in each class; 0: no limit.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Limits {
    /// In realtime frames.
    #[prost(uint64, tag = "1")]
    pub realtime_bytes_per_second: u64,
    /// In interactive frames.
    #[prost(uint64, tag = "2")]
    pub interactive_bytes_per_second: u64,
    /// In bulk frames.
    #[prost(uint64, tag = "3")]
    pub bulk_bytes_per_second: u64,
}

impl Limits {
    /// The limit of a class, `None` for no limit.
    pub const fn of(&self, class: crate::Class) -> Option<u64> {
        let limit = match class {
            crate::Class::Realtime => self.realtime_bytes_per_second,
            crate::Class::Interactive => self.interactive_bytes_per_second,
            crate::Class::Bulk => self.bulk_bytes_per_second,
        };
        if limit == 0 { None } else { Some(limit) }
    }
}

/// Why an edge is not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum RefusalCode {
    /// Of a later version; read the reason.
    Unknown = 0,
    /// The message makes no sense, or came too late.
    Malformed = 1,
    /// No common access version.
    Version = 2,
    /// The token is not one, is out of date, or is not signed by a key of its tenant.
    Token = 3,
    /// The token or its key was revoked.
    Revoked = 4,
    /// The token is another key's, or the signature is not for this connection.
    Proof = 5,
    /// The relay does not know the tenant (yet).
    Tenant = 6,
    /// The relay or the tenant has no room.
    Full = 7,
    /// The relay is going.
    Draining = 8,
    /// The relay is not of the tenant's cell, or is of a partner while the cell is reached.
    Cell = 9,
    /// The tenant's quota is used up.
    Quota = 10,
}

/// What of a tenant's quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum QuotaLimit {
    /// Of a later version; read the reason.
    Unknown = 0,
    /// Flows open at one relay.
    Flows = 1,
    /// Bytes per second in a class at one relay.
    Rate = 2,
    /// Bytes in a month, in the whole mesh.
    Month = 3,
}

/// Frames of the edge are dropped, for its tenant uses what it may. Said once a second at most for each limit.
#[derive(Clone, PartialEq, Message)]
pub struct Limited {
    /// Which limit.
    #[prost(enumeration = "QuotaLimit", tag = "1")]
    pub limit: i32,
    /// For people, with the limit's name and value; at most [`REASON_BYTES_MAX`] bytes.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// The edge is not attached.
#[derive(Clone, PartialEq, Message)]
pub struct Refused {
    /// Why, for programs.
    #[prost(enumeration = "RefusalCode", tag = "1")]
    pub code: i32,
    /// Why, for people, at most [`REASON_BYTES_MAX`] bytes.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// When to try this relay again, in milliseconds; 0: not with the same token.
    #[prost(uint32, tag = "3")]
    pub retry_after_ms: u32,
}

/// The relay goes; the edge is to attach to another one.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Draining {
    /// Until then, in milliseconds; [`u32::MAX`]: no time is set, and one that finds no other relay may stay.
    #[prost(uint32, tag = "1")]
    pub within_ms: u32,
    /// The relay stays after all.
    #[prost(bool, tag = "2")]
    pub undone: bool,
}

/// The edge leaves; its attachment ends at once.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Detach {}

/// All the services that the edge offers now; what is not named is offered no more.
#[derive(Clone, PartialEq, Message)]
pub struct Offer {
    /// At most [`OFFERS_MAX`].
    #[prost(message, repeated, tag = "1")]
    pub services: Vec<OfferedService>,
}

/// A service that an edge offers.
#[derive(Clone, PartialEq, Message)]
pub struct OfferedService {
    /// Its name within the tenant, 1 to [`NAME_BYTES_MAX`] bytes.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Endpoints of a greater priority are used only where none of a smaller one is well.
    #[prost(uint32, tag = "2")]
    pub priority: u32,
    /// Share among endpoints of one priority; 0 counts as 1.
    #[prost(uint32, tag = "3")]
    pub weight: u32,
    /// Whether it is unwell now.
    #[prost(bool, tag = "4")]
    pub unhealthy: bool,
}

/// Whether an offered service is well.
#[derive(Clone, PartialEq, Message)]
pub struct Health {
    /// Its name.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Whether it takes requests.
    #[prost(bool, tag = "2")]
    pub healthy: bool,
}

/// Which offers stand, in answer to an [`Offer`].
#[derive(Clone, PartialEq, Message)]
pub struct Offers {
    /// Names that are offered now.
    #[prost(string, repeated, tag = "1")]
    pub standing: Vec<String>,
    /// Names that the edge's token does not allow, or that are none.
    #[prost(string, repeated, tag = "2")]
    pub refused: Vec<String>,
}

/// Where is a service of the edge's tenant?
#[derive(Clone, PartialEq, Message)]
pub struct Resolve {
    /// Drawn by the edge; comes back in the answer.
    #[prost(uint32, tag = "1")]
    pub request: u32,
    /// Its name.
    #[prost(string, tag = "2")]
    pub service: String,
    /// The class in which it will be used; see [`crate::Class::code`].
    #[prost(uint32, tag = "3")]
    pub class: u32,
}

/// Where a service is.
#[derive(Clone, PartialEq, Message)]
pub struct Resolved {
    /// That of the [`Resolve`].
    #[prost(uint32, tag = "1")]
    pub request: u32,
    /// The best first, at most [`ENDPOINTS_MAX`]; empty: nobody offers it.
    #[prost(message, repeated, tag = "2")]
    pub endpoints: Vec<Endpoint>,
    /// Set if the edge's token does not let it use the service.
    #[prost(bool, tag = "3")]
    pub forbidden: bool,
}

/// An edge that offers a service, and where it is attached.
#[derive(Clone, PartialEq, Message)]
pub struct Endpoint {
    /// Its key's id, 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub edge: Vec<u8>,
    /// Its first address: relay (high 16 bits) and attachment (low 16 bits).
    #[prost(uint32, tag = "2")]
    pub first: u32,
    /// Its second address, 0 if it has none.
    #[prost(uint32, tag = "3")]
    pub second: u32,
    /// Whether it is in a partner of the tenant's cell: there is none in the cell that is well and reached.
    #[prost(bool, tag = "4")]
    pub partner: bool,
    /// Whether it is unwell: it comes after those that are not, and takes requests perhaps.
    #[prost(bool, tag = "5")]
    pub unhealthy: bool,
}

/// Which access relays should the edge try?
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Nearest {
    /// Drawn by the edge; comes back in the answer.
    #[prost(uint32, tag = "1")]
    pub request: u32,
    /// Relays in the answer, at most [`NEAREST_MAX`]; 0: as many as the relay thinks right.
    #[prost(uint32, tag = "2")]
    pub limit: u32,
    /// Tells the edge from others of its address, before it has attached; at most [`NAME_BYTES_MAX`].
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// The edge's tenant, before it has attached: relays of its cell alone are answered, if it is known.
    #[prost(string, tag = "4")]
    pub tenant: String,
}

/// Access relays, in the order in which the edge should try them.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AccessRelays {
    /// That of the [`Nearest`].
    #[prost(uint32, tag = "1")]
    pub request: u32,
    /// At most [`NEAREST_MAX`].
    #[prost(message, repeated, tag = "2")]
    pub relays: Vec<NearRelay>,
}

/// An access relay, for an edge.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NearRelay {
    /// Its id.
    #[prost(uint32, tag = "1")]
    pub relay: u32,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where edges attach, `IP:PORT` (UDP).
    #[prost(string, repeated, tag = "3")]
    pub addresses: Vec<String>,
    /// Its region.
    #[prost(string, tag = "4")]
    pub region: String,
    /// Its provider.
    #[prost(string, tag = "5")]
    pub provider: String,
    /// The round trip to the edge, measured or estimated, in microseconds; 0 if nothing is known.
    #[prost(uint32, tag = "6")]
    pub rtt_us: u32,
    /// How it stands for the edge: `open`, `filling`, `reserve`, `full` or `draining`.
    #[prost(string, tag = "7")]
    pub state: String,
    /// Why it is where it is, for people.
    #[prost(string, tag = "8")]
    pub why: String,
    /// Where edges attach over TLS on TCP, `IP:PORT`. None: it was not said.
    #[prost(string, repeated, tag = "9")]
    pub tcp_addresses: Vec<String>,
    /// Whether it is of a partner of the edge's cell, of which no relay is reached.
    #[prost(bool, tag = "10")]
    pub partner: bool,
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

into_message!(FromEdge, from_edge::Body: Attach, Detach, Offer, Health, Resolve, FlowReports, Nearest);
into_message!(
    ToEdge, to_edge::Body: Attached, Refused, Draining, Offers, Resolved, Limited, AccessRelays
);

/// Cuts a reason to [`REASON_BYTES_MAX`] bytes, between characters.
pub fn cut_reason(mut reason: String) -> String {
    let end =
        (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|&at| reason.is_char_boundary(at));
    reason.truncate(end.unwrap_or(0));
    reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_attach_has_these_bytes() {
        let attach = Attach {
            version_min: 1,
            version_max: 2,
            token: "t".into(),
            public_key: vec![3, 4],
            signature: vec![5],
            boot: 6,
            software: "s".into(),
        };

        let bytes = FromEdge::from(attach).encode_to_vec();

        let inner =
            [8, 1, 0x10, 2, 0x1a, 1, b't', 0x22, 2, 3, 4, 0x2a, 1, 5, 0x30, 6, 0x3a, 1, b's'];
        assert_eq!(bytes, [&[0x0a, 19][..], &inner].concat());
    }

    #[test]
    fn the_answers_have_these_bytes() {
        let limits = Limits { realtime_bytes_per_second: 1, ..Limits::default() };
        let attached = Attached {
            version: 1,
            relay: 2,
            attachment: 3,
            tenant: 4,
            limits: Some(limits),
            seen_address: "a".into(),
            boot: 5,
        };
        let inner = [8, 1, 0x10, 2, 0x18, 3, 0x20, 4, 0x2a, 2, 8, 1, 0x32, 1, b'a', 0x38, 5];
        let bytes = ToEdge::from(attached).encode_to_vec();
        assert_eq!(bytes, [&[0x0a, 17][..], &inner].concat());

        let code = RefusalCode::Proof.into();
        let refused = Refused { code, reason: "r".into(), retry_after_ms: 7 };
        let bytes = ToEdge::from(refused).encode_to_vec();
        assert_eq!(bytes, [0x12, 7, 8, 5, 0x12, 1, b'r', 0x18, 7]);

        let limited = Limited { limit: QuotaLimit::Month.into(), reason: "r".into() };
        assert_eq!(ToEdge::from(limited).encode_to_vec(), [0x32, 5, 8, 3, 0x12, 1, b'r']);
        let draining = Draining { within_ms: 9, undone: false };
        assert_eq!(ToEdge::from(draining).encode_to_vec(), [0x1a, 2, 8, 9]);
        let undone = Draining { within_ms: 0, undone: true };
        assert_eq!(ToEdge::from(undone).encode_to_vec(), [0x1a, 2, 0x10, 1]);
        assert_eq!(FromEdge::from(Detach {}).encode_to_vec(), [0x12, 0]);
    }

    #[test]
    fn services_have_these_bytes() {
        let service = OfferedService { name: "n".into(), priority: 1, weight: 2, unhealthy: true };
        let bytes = FromEdge::from(Offer { services: vec![service] }).encode_to_vec();
        assert_eq!(bytes, [0x1a, 11, 0x0a, 9, 0x0a, 1, b'n', 0x10, 1, 0x18, 2, 0x20, 1]);

        let health = Health { service: "n".into(), healthy: true };
        assert_eq!(FromEdge::from(health).encode_to_vec(), [0x22, 5, 0x0a, 1, b'n', 0x10, 1]);

        let resolve = Resolve { request: 3, service: "n".into(), class: 2 };
        let bytes = FromEdge::from(resolve).encode_to_vec();
        assert_eq!(bytes, [0x2a, 7, 8, 3, 0x12, 1, b'n', 0x18, 2]);

        let offers = Offers { standing: vec!["a".into()], refused: vec!["b".into()] };
        assert_eq!(ToEdge::from(offers).encode_to_vec(), [0x22, 6, 0x0a, 1, b'a', 0x12, 1, b'b']);

        let endpoint =
            Endpoint { edge: vec![9], first: 1, second: 2, partner: true, unhealthy: true };
        let resolved = Resolved { request: 3, endpoints: vec![endpoint], forbidden: true };
        let bytes = ToEdge::from(resolved).encode_to_vec();
        let inner = [0x0a, 1, 9, 0x10, 1, 0x18, 2, 0x20, 1, 0x28, 1];
        assert_eq!(bytes, [&[0x2a, 17, 8, 3, 0x12, 11][..], &inner, &[0x18, 1]].concat());
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let limits = Limits { bulk_bytes_per_second: 8, ..Limits::default() };
        assert_eq!(crate::Class::ALL.map(|class| limits.of(class)), [None, None, Some(8)]);
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(cut_reason("short".into()), "short");
        let cut = cut_reason("é".repeat(200));
        assert_eq!(cut.len(), 254);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = FromEdge::decode(&bytes[..]);
            let _ = ToEdge::decode(&bytes[..]);
        }
    }
}
