//! Ed25519 keys (RFC 8032): of edges and of tenants.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::jwk::{Jwk, JwkError, thumbprint};

/// A PKCS #8 version 1 key up to its seed (RFC 8410 section 7), which every tool reads and writes.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// Where the part of a PKCS #8 key begins that both versions have: algorithm and seed.
const PKCS8_ALGORITHM: usize = 5;
/// A SubjectPublicKeyInfo up to the key (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
const PRIVATE_TAG: &str = "PRIVATE KEY";
const PUBLIC_TAG: &str = "PUBLIC KEY";

/// Who an edge is: the thumbprint (RFC 7638, SHA-256) of its public key as a JSON Web Key (RFC 8037). Shown as
/// base64url, 43 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeId(pub [u8; 32]);

/// An edge's public key, in the 32 bytes of RFC 8032. Any 32 bytes: those that are no key verify nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgePublicKey(pub [u8; 32]);

/// A tenant's public key, in the 32 bytes of RFC 8032.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantPublicKey(pub [u8; 32]);

/// An edge's private key.
pub struct EdgeKey(PrivateKey);

/// A tenant's private key, with which its backend signs tokens.
pub struct TenantKey(PrivateKey);

/// Why something is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a private key.
    #[error(
        "this is not an Ed25519 private key in PKCS #8; `openssl genpkey -algorithm ed25519` makes one"
    )]
    Pkcs8,
    /// Not a public key.
    #[error("this is not an Ed25519 public key (SubjectPublicKeyInfo, RFC 8410)")]
    Spki,
    /// Not PEM, or PEM of something else.
    #[error("expected PEM that begins with \"-----BEGIN {0}-----\"")]
    Pem(&'static str),
    /// Not the name of an edge.
    #[error("an edge's id is the thumbprint of its key: 43 characters of base64url")]
    EdgeId,
}

/// A seed and the key made of it. The seed stays, because a key is written and given to TLS as PKCS #8.
struct PrivateKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl PrivateKey {
    fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a seed");
        Self { seed, pair }
    }

    fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::Pkcs8)?;
        // Both versions have the seed in the same place; ring has checked what is around it, and the comparison
        // below that it was the seed.
        let same =
            der.get(PKCS8_ALGORITHM..PKCS8_PREFIX.len()) == Some(&PKCS8_PREFIX[PKCS8_ALGORITHM..]);
        let seed = der
            .get(PKCS8_PREFIX.len()..)
            .and_then(|rest| rest.first_chunk::<32>())
            .filter(|_| same)
            .ok_or(KeyError::Pkcs8)?;
        let key = Self::from_seed(*seed);
        let agrees = key.pair.public_key().as_ref() == pair.public_key().as_ref();
        if agrees { Ok(key) } else { Err(KeyError::Pkcs8) }
    }

    fn public(&self) -> [u8; 32] {
        self.pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes")
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(message);
        signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

macro_rules! private_key {
    ($key:ident, $public:ident) => {
        impl $key {
            /// The key of a seed: 32 bytes from a source that nobody can guess.
            pub fn from_seed(seed: [u8; 32]) -> Self {
                Self(PrivateKey::from_seed(seed))
            }

            /// Reads PKCS #8 DER (RFC 8410), version 1 or 2.
            pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
                PrivateKey::from_pkcs8_der(der).map(Self)
            }

            /// Reads PKCS #8 in PEM, `-----BEGIN PRIVATE KEY-----`.
            pub fn from_pkcs8_pem(text: &str) -> Result<Self, KeyError> {
                Self::from_pkcs8_der(&unarmoured(text, PRIVATE_TAG)?)
            }

            /// The key as PKCS #8 DER, version 1. Secret.
            pub fn to_pkcs8_der(&self) -> Vec<u8> {
                [&PKCS8_PREFIX[..], &self.0.seed].concat()
            }

            /// The key as PKCS #8 in PEM. Secret.
            pub fn to_pkcs8_pem(&self) -> String {
                armoured(PRIVATE_TAG, self.to_pkcs8_der())
            }

            /// The public half.
            pub fn public(&self) -> $public {
                $public(self.0.public())
            }

            /// Signs `message` (RFC 8032, Ed25519).
            pub fn sign(&self, message: &[u8]) -> [u8; 64] {
                self.0.sign(message)
            }
        }

        impl fmt::Debug for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($key)).field(&self.public()).finish()
            }
        }

        impl $public {
            /// Whether `signature` is this key's for `message`. False for a signature of any other length.
            pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
                UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
            }

            /// Reads a SubjectPublicKeyInfo, DER (RFC 8410 section 4), which TLS calls a raw public key (RFC 7250).
            pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
                der.strip_prefix(&SPKI_PREFIX)
                    .and_then(|key| key.try_into().ok())
                    .map(Self)
                    .ok_or(KeyError::Spki)
            }

            /// Reads a SubjectPublicKeyInfo in PEM, `-----BEGIN PUBLIC KEY-----`.
            pub fn from_spki_pem(text: &str) -> Result<Self, KeyError> {
                Self::from_spki_der(&unarmoured(text, PUBLIC_TAG)?)
            }

            /// The key as a SubjectPublicKeyInfo, DER.
            pub fn to_spki_der(&self) -> Vec<u8> {
                [&SPKI_PREFIX[..], &self.0].concat()
            }

            /// The key as a SubjectPublicKeyInfo in PEM.
            pub fn to_spki_pem(&self) -> String {
                armoured(PUBLIC_TAG, self.to_spki_der())
            }

            /// The key as a JSON Web Key (RFC 8037 section 2), without a `kid`.
            pub fn to_jwk(&self) -> Jwk {
                Jwk::new(self.0)
            }

            /// The key that a JSON Web Key holds.
            pub fn from_jwk(jwk: &Jwk) -> Result<Self, JwkError> {
                jwk.public_key().map(Self)
            }
        }

        impl fmt::Debug for $public {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($public), BASE64URL_NOPAD.encode(&self.0))
            }
        }
    };
}

private_key!(EdgeKey, EdgePublicKey);
private_key!(TenantKey, TenantPublicKey);

impl EdgeKey {
    /// Who the edge is.
    pub fn id(&self) -> EdgeId {
        self.public().id()
    }
}

impl EdgePublicKey {
    /// Who the edge is: the key's thumbprint.
    pub fn id(&self) -> EdgeId {
        let x = BASE64URL_NOPAD.encode(&self.0);
        EdgeId(thumbprint(&[("crv", "Ed25519"), ("kty", "OKP"), ("x", &x)]))
    }
}

impl FromStr for EdgeId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| KeyError::EdgeId)?;
        bytes.try_into().map(Self).map_err(|_| KeyError::EdgeId)
    }
}

impl fmt::Display for EdgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for EdgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EdgeId({self})")
    }
}

fn armoured(tag: &str, der: Vec<u8>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, der), config)
}

fn unarmoured(text: &str, tag: &'static str) -> Result<Vec<u8>, KeyError> {
    let block = pem::parse(text).map_err(|_| KeyError::Pem(tag))?;
    if block.tag() == tag { Ok(block.into_contents()) } else { Err(KeyError::Pem(tag)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(base64url: &str) -> [u8; N] {
        BASE64URL_NOPAD.decode(base64url.as_bytes()).unwrap().try_into().unwrap()
    }

    /// RFC 8037, A.1.
    fn rfc_key() -> EdgeKey {
        EdgeKey::from_seed(bytes("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
    }

    #[test]
    fn the_public_key_and_thumbprint_are_those_of_rfc_8037() {
        let public = EdgePublicKey(bytes("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"));

        assert_eq!(rfc_key().public(), public);
        assert_eq!(public.id().to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(public.id().to_string().parse(), Ok(public.id()));
    }

    #[test]
    fn the_signature_is_that_of_rfc_8037() {
        let input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature: [u8; 64] = bytes(
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        );

        assert_eq!(rfc_key().sign(input), signature);
        assert!(rfc_key().public().verify(input, &signature));
        assert!(!rfc_key().public().verify(b"something else", &signature));
        assert!(!rfc_key().public().verify(input, &signature[1..]));
    }

    /// RFC 8410, 10.3: the same key in both versions.
    #[test]
    fn the_private_keys_of_rfc_8410_are_read() {
        let first = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\n\
            MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
            -----END PUBLIC KEY-----\n";

        let key = TenantKey::from_pkcs8_pem(first).unwrap();

        assert_eq!(key.public(), TenantPublicKey::from_spki_pem(public).unwrap());
        assert_eq!(key.to_pkcs8_pem(), first);
        assert_eq!(key.public().to_spki_pem(), public);
        let pair = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let second = EdgeKey::from_pkcs8_der(pair.as_ref()).unwrap();
        assert_eq!(EdgeKey::from_pkcs8_der(&second.to_pkcs8_der()).unwrap().id(), second.id());
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason() {
        let der = rfc_key().to_pkcs8_der();
        assert_eq!(EdgeKey::from_pkcs8_der(&der[..47]).unwrap_err(), KeyError::Pkcs8);
        assert_eq!(EdgeKey::from_pkcs8_der(&[]).unwrap_err(), KeyError::Pkcs8);
        let public = rfc_key().public().to_spki_pem();
        assert_eq!(EdgeKey::from_pkcs8_pem(&public).unwrap_err(), KeyError::Pem("PRIVATE KEY"));
        assert_eq!(EdgePublicKey::from_spki_der(&der).unwrap_err(), KeyError::Spki);
        assert_eq!("kPrK".parse::<EdgeId>(), Err(KeyError::EdgeId));
    }

    #[test]
    fn printing_a_key_for_debugging_shows_no_secret() {
        let printed = format!("{:?}", rfc_key());

        let public = "EdgePublicKey(11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo)";
        assert_eq!(printed, format!("EdgeKey({public})"));
    }
}
