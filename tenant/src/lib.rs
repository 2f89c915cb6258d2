//! Tenants: applications that use the mesh as transport, with their keys, their tokens and their quotas.
//!
//! # Model
//!
//! A [`Tenant`] has signing keys ([`TenantKey`]), each under a name of its own, the `kid`. The public halves
//! ([`TenantKeys`]) are known to every relay and to every edge of the tenant; the private ones never leave the
//! application's backend.
//!
//! An *edge* (an end outside the mesh) makes a key of its own ([`EdgeKey`]). Its identity is that key's thumbprint
//! ([`EdgeId`]); names come and go, the thumbprint does not. It asks the application's backend, in whatever way the
//! application has for logging in, for a *token*: a JSON Web Token (RFC 7519) in which the backend says who the edge
//! is, what it may do ([`Claims`]) and which key it has (`cnf.jkt`: RFC 7800, RFC 9449 section 6.1). [`mint`] makes
//! one, [`verify`] judges one, offline.
//!
//! A token is no secret worth stealing: whoever shows it must prove that it holds the edge's key, by a signature
//! ([`EdgeKey::sign`]) over something that nobody else could have made it sign, such as an exporter of the TLS
//! connection at hand. Whoever checks that compares [`EdgePublicKey::id`] with [`Claims::edge`].
//!
//! # What verification holds to
//!
//! - One algorithm, `EdDSA` with Ed25519 (RFC 8037). The header's `alg` must say so and decides nothing: `none`, HMAC
//!   and everything else are refused before any key is looked up (RFC 8725 section 3.1).
//! - One text for one token: base64url without padding, without bits left over. Every flipped bit is refused.
//! - `kid` names a key of the tenant that the claims name, which has not been revoked; `jti` has not been either.
//! - Times hold within [`LEEWAY`], and no token lives longer than [`LIFETIME_MAX`], so that a list of revoked tokens
//!   may forget.
//! - What arrives is at most [`TOKEN_BYTES_MAX`] long, which is looked at first.
//!
//! The crate is pure: it is told the time and gets its random bytes from whoever makes a key.

mod claims;
mod jwk;
mod key;
mod month;
mod name;
mod tenant;
mod token;

pub use claims::{Claims, ClaimsError, NAMES_MAX, Names};
pub use jwk::{Jwk, JwkError, JwkSet};
pub use key::{EdgeId, EdgeKey, EdgePublicKey, KeyError, TenantKey, TenantPublicKey};
pub use month::{Month, MonthError};
pub use name::{Kid, NAME_BYTES_MAX, NameError, TEXT_BYTES_MAX, TenantName, TokenId};
pub use tenant::{
    CELL_BYTES_MAX, KEYS_MAX, KeySetError, PushedTenantError, Quota, REVOKED_KIDS_MAX,
    REVOKED_TOKENS_MAX, Tenant, TenantKeys, Tenants,
};
pub use token::{LEEWAY, LIFETIME_MAX, TOKEN_BYTES_MAX, TokenError, mint, verify};
