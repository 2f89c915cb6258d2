//! Joining: a token and a certification request against a certificate.
//!
//! The relay dials with the token's CA fingerprint as its only trust, opens one stream, sends one
//! [`JoinRequest`], and reads one [`JoinResponse`]. The server marks the token used in the same change
//! of the store that makes the member. If the answer is lost, the same key may ask again for a minute.
//! The ALPN is [`overway_pki::ALPN_JOIN`]; messages are framed as on the control stream.

mod client;
mod limit;
mod server;

pub use client::{JoinError, Joined, redeem};
pub(crate) use limit::Limiter;
pub(crate) use server::serve;

use prost::{Message, Oneof};

/// Bytes of the largest message either way: two certificates and two dozen addresses fit many times.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What a relay asks.
#[derive(Clone, PartialEq, Message)]
pub struct JoinRequest {
    /// The token's secret.
    #[prost(bytes = "vec", tag = "1")]
    pub secret: Vec<u8>,
    /// PKCS #10 certification request, DER. Only its public key is read.
    #[prost(bytes = "vec", tag = "2")]
    pub csr_der: Vec<u8>,
}

/// What the scheduler answers.
#[derive(Clone, PartialEq, Message)]
pub struct JoinResponse {
    /// Which answer. Absent: one of a later version, taken as a refusal.
    #[prost(oneof = "join_response::Body", tags = "1, 2")]
    pub body: Option<join_response::Body>,
}

/// The bodies of [`JoinResponse`].
pub mod join_response {
    use super::{Accepted, Oneof, Refused};

    /// An answer.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// The relay is a member.
        #[prost(message, tag = "1")]
        Accepted(Accepted),
        /// It is not, and why.
        #[prost(message, tag = "2")]
        Refused(Refused),
    }
}

/// The relay is a member.
#[derive(Clone, PartialEq, Message)]
pub struct Accepted {
    /// Certificates, DER: the relay's first, the mesh's CA last.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub chain_der: Vec<Vec<u8>>,
    /// The relay's id.
    #[prost(uint32, tag = "2")]
    pub relay: u32,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The mesh's name.
    #[prost(string, tag = "4")]
    pub mesh: String,
    /// Where schedulers listen.
    #[prost(string, repeated, tag = "5")]
    pub schedulers: Vec<String>,
}

/// The relay is not a member.
#[derive(Clone, PartialEq, Message)]
pub struct Refused {
    /// Why, for people.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// Whether the same request may succeed in a moment.
    #[prost(bool, tag = "2")]
    pub retry: bool,
}
