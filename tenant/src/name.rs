//! Names: of tenants, of their keys and of their tokens.

use std::fmt;
use std::str::FromStr;

/// Bytes of a tenant's or a service's name: a DNS label.
pub const NAME_BYTES_MAX: usize = 63;
/// Bytes of a `kid`, a `jti` or a `sub`: a UUID or a hash in base64 and to spare.
pub const TEXT_BYTES_MAX: usize = 64;

/// A tenant's name: 1 to [`NAME_BYTES_MAX`] of a-z, 0-9 and hyphen, not starting with a hyphen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantName(String);

/// The name of one of a tenant's keys (`kid`, RFC 7515 section 4.1.4): 1 to [`TEXT_BYTES_MAX`] printable ASCII
/// characters without spaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kid(String);

/// The name of one token (`jti`, RFC 7519 section 4.1.7), by which it can be revoked; of the same form as [`Kid`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(String);

/// Why a text is not the name of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a tenant's name.
    #[error(
        "a tenant's name is 1 to {NAME_BYTES_MAX} of a-z, 0-9 and hyphen, and does not start with a hyphen"
    )]
    Tenant,
    /// Not a key's name.
    #[error(
        "a key's name (kid) is 1 to {TEXT_BYTES_MAX} printable ASCII characters without spaces"
    )]
    Kid,
    /// Not a token's name.
    #[error(
        "a token's name (jti) is 1 to {TEXT_BYTES_MAX} printable ASCII characters without spaces"
    )]
    TokenId,
}

/// Whether a text can be a tenant's or a service's name.
pub(crate) fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
}

fn is_short_text(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

macro_rules! name {
    ($name:ident, $rule:ident, $error:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if $rule(text) { Ok(Self(text.to_owned())) } else { Err(NameError::$error) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(TenantName, is_label, Tenant);
name!(Kid, is_short_text, Kid);
name!(TokenId, is_short_text, TokenId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_form() {
        for good in ["a", "im-eu", "7", &"x".repeat(63)] {
            assert_eq!(good.parse::<TenantName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "Acme", "a b", "a.b", "ä", &"x".repeat(64)] {
            assert_eq!(bad.parse::<TenantName>(), Err(NameError::Tenant), "{bad}");
        }
        assert!("2026-01/a+b=".parse::<Kid>().is_ok());
        for bad in ["", "a b", "a\n", "é", &"x".repeat(65)] {
            assert_eq!(bad.parse::<Kid>(), Err(NameError::Kid), "{bad}");
            assert_eq!(bad.parse::<TokenId>(), Err(NameError::TokenId), "{bad}");
        }
    }
}
