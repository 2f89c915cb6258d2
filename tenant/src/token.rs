//! Tokens: JSON Web Tokens (RFC 7519) in compact form (RFC 7515 section 7.1), signed with Ed25519 (RFC 8037).

use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::claims::{Claims, ClaimsError};
use crate::key::TenantKey;
use crate::name::{Kid, NameError, TenantName, TokenId};
use crate::tenant::Tenants;

/// Bytes of the longest token: 64 names in each list and to spare. A longer one is not looked into.
pub const TOKEN_BYTES_MAX: usize = 4_096;
/// By how much the clocks of a backend and of whoever verifies may differ: hosts that keep time by NTP are within a
/// second of one another, and those whose NTP has been down for a month within about this.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// From a token's `iat` to its `exp` at most, so that a revoked token may be forgotten after so long.
pub const LIFETIME_MAX: Duration = Duration::from_secs(31 * 24 * 3_600);

/// The one algorithm.
const ALG: &str = "EdDSA";
const TYP: &str = "JWT";

/// Why a token counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not looked into.
    #[error("the token has {0} bytes; {TOKEN_BYTES_MAX} is the most")]
    TooLong(usize),
    /// Not three parts.
    #[error("this is not a JSON Web Token: that is three parts of base64url with dots between")]
    Parts,
    /// A part in another encoding, cut or padded.
    #[error("the token's {0} is not base64url without padding; was the token copied whole?")]
    Encoding(&'static str),
    /// A header that is none.
    #[error("the token's header is not a JSON object with each member once: {0}")]
    Header(String),
    /// Signed in another way, or not at all.
    #[error("the token's alg is {0}; only \"EdDSA\" (Ed25519) is taken")]
    Algorithm(String),
    /// Something else than a token.
    #[error("the token's typ is {0}; expected \"JWT\"")]
    Type(String),
    /// Extensions (RFC 7515 section 4.1.11), of which none is known here.
    #[error("the token's header has \"crit\", which asks for extensions that are not known here")]
    Critical,
    /// No key is named.
    #[error("the token's header has no \"kid\"; set it to the name of the key that signs")]
    NoKid,
    /// The key's name is none.
    #[error("the token's header: {0}")]
    Kid(NameError),
    /// What it says is not understood.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// Nobody of that name.
    #[error("there is no tenant \"{0}\"")]
    UnknownTenant(TenantName),
    /// No such key.
    #[error("tenant \"{tenant}\" has no key \"{kid}\"; add it, or sign with one that is there")]
    UnknownKey {
        /// Whose.
        tenant: TenantName,
        /// Which.
        kid: Kid,
    },
    /// The key counts no more.
    #[error("the key \"{0}\" has been revoked; sign with another")]
    RevokedKey(Kid),
    /// Signed by somebody else, or changed since.
    #[error(
        "the signature is not that of key \"{0}\": another key signed, or the token was changed"
    )]
    Signature(Kid),
    /// Its time is over.
    #[error("the token has expired {0} s ago; ask the backend for a new one")]
    Expired(u64),
    /// Its time has not come.
    #[error("the token is not valid for another {0} s; are the clocks right?")]
    NotYet(u64),
    /// Made in the future.
    #[error("the token was issued {0} s in the future; is the backend's clock right?")]
    IssuedLater(u64),
    /// It would be valid for too long.
    #[error("the token is valid for {0} s from iat to exp; {max} s is the most", max = LIFETIME_MAX.as_secs())]
    LivesTooLong(u64),
    /// It counts no more.
    #[error("the token \"{0}\" has been revoked; ask the backend for a new one")]
    Revoked(TokenId),
}

impl TokenError {
    /// The reason in a word or two, for a metric's label.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "too_long",
            Self::Parts | Self::Encoding(_) | Self::Header(_) | Self::Type(_) | Self::Critical => {
                "malformed"
            }
            Self::Algorithm(_) => "algorithm",
            Self::NoKid | Self::Kid(_) | Self::UnknownKey { .. } => "unknown_key",
            Self::Claims(_) => "claims",
            Self::UnknownTenant(_) => "unknown_tenant",
            Self::RevokedKey(_) => "revoked_key",
            Self::Signature(_) => "signature",
            Self::Expired(_) => "expired",
            Self::NotYet(_) | Self::IssuedLater(_) => "not_yet",
            Self::LivesTooLong(_) => "lives_too_long",
            Self::Revoked(_) => "revoked",
        }
    }
}

/// A token with these claims, signed by `key`, whose name is `kid`. Fails if [`verify`] would refuse it at the time
/// of issue, but for what only a tenant's state can tell.
pub fn mint(claims: &Claims, key: &TenantKey, kid: &Kid) -> Result<String, TokenError> {
    let header = json!({ "alg": ALG, "kid": kid.as_str(), "typ": TYP }).to_string();
    let payload = claims.to_json();
    check_lifetime(&Claims::from_json(&payload)?)?;
    let encoded = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let input = format!("{}.{}", encoded(header.as_bytes()), encoded(&payload));
    let token = format!("{input}.{}", encoded(&key.sign(input.as_bytes())));
    if token.len() > TOKEN_BYTES_MAX { Err(TokenError::TooLong(token.len())) } else { Ok(token) }
}

/// What a token says, if it counts at `now` for the tenant that it names. Whether whoever shows it holds the edge's
/// key is left to the caller: see [`Claims::is_for`].
pub fn verify(token: &str, tenants: &impl Tenants, now: SystemTime) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLong(token.len()));
    }
    let (input, signature) = token.rsplit_once('.').ok_or(TokenError::Parts)?;
    let (header, payload) = input.split_once('.').ok_or(TokenError::Parts)?;
    if payload.contains('.') {
        return Err(TokenError::Parts);
    }
    let kid = kid(&decoded("header", header)?)?;
    let claims = Claims::from_json(&decoded("payload", payload)?)?;

    let unknown = || TokenError::UnknownTenant(claims.tenant.clone());
    let keys = tenants.keys_of(&claims.tenant).ok_or_else(unknown)?;
    // Whatever the look-up gave, the claim and the key's owner are one.
    if keys.tenant != claims.tenant {
        return Err(unknown());
    }
    if keys.revoked_kids.contains(&kid) {
        return Err(TokenError::RevokedKey(kid));
    }
    let Some(key) = keys.keys.get(&kid) else {
        return Err(TokenError::UnknownKey { tenant: claims.tenant, kid });
    };
    if !key.verify(input.as_bytes(), &decoded("signature", signature)?) {
        return Err(TokenError::Signature(kid));
    }
    check_times(&claims, now)?;
    if keys.revoked_tokens.contains(&claims.id) {
        return Err(TokenError::Revoked(claims.id));
    }
    Ok(claims)
}

#[derive(Deserialize)]
struct RawHeader {
    alg: Option<Value>,
    kid: Option<Value>,
    typ: Option<Value>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

/// True for any value, null too.
fn is_there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// The name of the key that a header says has signed.
fn kid(header: &[u8]) -> Result<Kid, TokenError> {
    let raw: RawHeader =
        serde_json::from_slice(header).map_err(|error| TokenError::Header(error.to_string()))?;
    let alg = raw.alg.unwrap_or_default();
    if alg != ALG {
        return Err(TokenError::Algorithm(alg.to_string()));
    }
    // RFC 7519 section 5.1 recommends capitals, for the sake of old programs, and does not demand them.
    if let Some(typ) = raw.typ
        && !typ.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case(TYP))
    {
        return Err(TokenError::Type(typ.to_string()));
    }
    if raw.crit {
        return Err(TokenError::Critical);
    }
    let kid = raw.kid.ok_or(TokenError::NoKid)?;
    kid.as_str().unwrap_or_default().parse().map_err(TokenError::Kid)
}

fn decoded(part: &'static str, text: &str) -> Result<Vec<u8>, TokenError> {
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| TokenError::Encoding(part))
}

fn check_times(claims: &Claims, now: SystemTime) -> Result<(), TokenError> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let leeway = LEEWAY.as_secs();
    if now >= claims.expires.saturating_add(leeway) {
        return Err(TokenError::Expired(now - claims.expires));
    }
    let not_before = claims.not_before.unwrap_or(0);
    if not_before > now.saturating_add(leeway) {
        return Err(TokenError::NotYet(not_before - now));
    }
    if claims.issued > now.saturating_add(leeway) {
        return Err(TokenError::IssuedLater(claims.issued - now));
    }
    check_lifetime(claims)
}

fn check_lifetime(claims: &Claims) -> Result<(), TokenError> {
    let seconds = claims.expires.saturating_sub(claims.issued);
    if seconds > LIFETIME_MAX.as_secs() { Err(TokenError::LivesTooLong(seconds)) } else { Ok(()) }
}
