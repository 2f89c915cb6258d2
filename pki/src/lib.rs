//! Who is who in a mesh: its certificate authority, the identities in certificates, credentials that
//! renew themselves while in use, the TLS configurations made from them, and join tokens.
//!
//! # Model
//!
//! A mesh has one [`Authority`]: a key, and a CA certificate which every node of the mesh trusts and
//! which nothing else vouches for. The authority signs certificates for [`Identity`]s; an identity is a
//! [`Role`], an id and the mesh's name, and stands in the certificate as its one DNS name.
//!
//! A node holds [`Credentials`]: its key, its certificate and the CA's. Every TLS configuration made by
//! [`server_config`] and [`client_config`] looks them up anew in each handshake, so that a renewal
//! applies to every endpoint at once and disturbs no connection that stands. A renewal makes a new key;
//! private keys never leave the node that made them.
//!
//! Both ends of every connection show a certificate. Each end checks that the other's chains to the CA,
//! is in date, names an identity of this mesh in a role that is allowed there, and is not in the set of
//! [`RevokedRelays`]. Ids are never used twice, so revoking an id revokes every certificate it ever had.
//!
//! The one connection of a node without a client certificate is that of one which joins. It holds a
//! [`JoinToken`], which names the CA by its fingerprint ([`join_client_config`]) and has a secret that
//! the scheduler takes once. What comes back becomes credentials by [`Credentials::from_join`]; after
//! that nothing depends on the token.
//!
//! An *edge*, an end outside the mesh, has no certificate either: it takes any relay of the mesh whose CA it was given
//! ([`access_client_config`]), and proves itself by other means.
//!
//! # Choices
//!
//! - Keys are Ed25519: signing draws no random numbers, so that a weak random source cannot leak the key;
//!   keys and signatures are small, so that a server's first flight of QUIC stays within three times the
//!   client's first packet; one algorithm only leaves nothing to negotiate.
//! - TLS is 1.3 only, with ring, always passed explicitly: a process default that somebody else installs
//!   changes nothing here.
//! - Sessions are never resumed. A resumed handshake shows no certificate, hence would step around a
//!   revocation, the end of a certificate and the check of its role; and connections here last for days,
//!   so that one saved signature is worth nothing. Without resumption there is no 0-RTT data either,
//!   which could be replayed.

mod admin_token;
mod authority;
mod credentials;
mod files;
mod identity;
mod quic;
mod revoked;
mod seen;
mod tls;
mod token;

pub use admin_token::{ADMIN_TOKEN_FILE, AdminToken, AdminTokenError, read_admin_token};
pub use authority::{Authority, LIFETIME_MAX, fingerprint};
pub use credentials::{Credentials, CredentialsError, PendingKey, Reread};
pub use files::FileError;
pub use identity::{Identity, IdentityError, MESH_NAME_BYTES_MAX, Role, peer_identity};
pub use quic::{connection_id_key, endpoint_config};
pub use revoked::RevokedRelays;
pub use seen::{SEEN_CODE, seen_address, seen_reason};
pub use tls::{
    ACCESS_SERVER_NAME, ClientAuth, JOIN_SERVER_NAME, access_client_config, client_config,
    join_client_config, server_config,
};
pub use token::{JoinSecret, JoinToken, NewTokenError, TokenError, secret_hash};

pub use authority::AuthorityError;

/// Between relays: hop messages.
pub const ALPN_MESH: &[u8] = b"overway-mesh/1";
/// From a relay to a scheduler.
pub const ALPN_CONTROL: &[u8] = b"overway-control/1";
/// From a node that joins to a scheduler; the one protocol without a client certificate.
pub const ALPN_JOIN: &[u8] = b"overway-join/1";
/// From a relay's host to a scheduler or a relay: from where does this connection come? See [`seen_reason`].
pub const ALPN_SEEN: &[u8] = b"overway-seen/1";
/// Between two ends, through the fabric.
pub const ALPN_SESSION: &[u8] = b"overway-session/1";

/// No random bytes could be had from the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoRandomness;

fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    ring::rand::generate(&ring::rand::SystemRandom::new())
        .map(ring::rand::Random::expose)
        .map_err(|_| NoRandomness)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, bytes)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}
