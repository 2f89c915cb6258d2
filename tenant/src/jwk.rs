//! Public keys as JSON Web Keys: RFC 7517, for Ed25519 RFC 8037 section 2.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use crate::name::Kid;

const KTY: &str = "OKP";
const CRV: &str = "Ed25519";
const ALG: &str = "EdDSA";

/// A public Ed25519 key as a JSON Web Key. Members that are not named here are ignored, but for `d`, the private
/// half: a file that holds it is not one to hand on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// The key, base64url.
    pub x: String,
    /// The key's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// `EdDSA`, if it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// `sig`, if it is said.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    #[serde(default, skip_serializing)]
    d: Option<serde::de::IgnoredAny>,
}

/// JSON Web Keys together (RFC 7517 section 5).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JwkSet {
    /// The keys.
    pub keys: Vec<Jwk>,
}

/// Why a JSON Web Key is not a key for us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// Of another kind.
    #[error("the key has kty \"{kty}\" and crv \"{crv}\"; expected \"OKP\" and \"Ed25519\"")]
    Kind {
        /// What it says.
        kty: String,
        /// What it says.
        crv: String,
    },
    /// For something else.
    #[error("the key is for alg \"{0}\"; expected \"EdDSA\"")]
    Algorithm(String),
    /// For something else.
    #[error("the key is for use \"{0}\"; expected \"sig\"")]
    Purpose(String),
    /// No key.
    #[error("x is not 32 bytes in base64url")]
    Key,
    /// With its private half.
    #[error("the key has a \"d\", which is its private half: give the public key only")]
    Private,
}

impl Jwk {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self {
            kty: KTY.to_owned(),
            crv: CRV.to_owned(),
            x: BASE64URL_NOPAD.encode(&key),
            kid: None,
            alg: Some(ALG.to_owned()),
            purpose: Some("sig".to_owned()),
            d: None,
        }
    }

    /// The same key with its name.
    #[must_use]
    pub fn named(self, kid: &Kid) -> Self {
        Self { kid: Some(kid.to_string()), ..self }
    }

    /// The key's 32 bytes.
    pub(crate) fn public_key(&self) -> Result<[u8; 32], JwkError> {
        if self.d.is_some() {
            return Err(JwkError::Private);
        }
        if self.kty != KTY || self.crv != CRV {
            return Err(JwkError::Kind { kty: self.kty.clone(), crv: self.crv.clone() });
        }
        if let Some(other) = self.alg.as_ref().filter(|alg| *alg != ALG && *alg != CRV) {
            return Err(JwkError::Algorithm(other.clone()));
        }
        if let Some(other) = self.purpose.as_ref().filter(|purpose| *purpose != "sig") {
            return Err(JwkError::Purpose(other.clone()));
        }
        let bytes = BASE64URL_NOPAD.decode(self.x.as_bytes()).map_err(|_| JwkError::Key)?;
        bytes.try_into().map_err(|_| JwkError::Key)
    }
}

/// The thumbprint of a key: the SHA-256 of its required members, in the order of their names, as JSON without
/// spaces (RFC 7638 section 3). The members' values are base64url or registered names, which JSON need not escape.
pub(crate) fn thumbprint(members: &[(&str, &str)]) -> [u8; 32] {
    let members: Vec<_> =
        members.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
    let json = format!("{{{}}}", members.join(","));
    let digest = ring::digest::digest(&ring::digest::SHA256, json.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{EdgePublicKey, TenantPublicKey};

    /// RFC 8037, A.2.
    const PUBLIC: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn read(json: &str) -> Result<EdgePublicKey, JwkError> {
        EdgePublicKey::from_jwk(&serde_json::from_str(json).unwrap())
    }

    /// RFC 7638, 3.1.
    #[test]
    fn the_thumbprint_of_an_rsa_key_is_that_of_rfc_7638() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_\
                 BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_\
                 FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4\
                 vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let n: String = n.split_whitespace().collect();

        let thumbprint = thumbprint(&[("e", "AQAB"), ("kty", "RSA"), ("n", &n)]);

        let text = BASE64URL_NOPAD.encode(&thumbprint);
        assert_eq!(text, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn the_key_of_rfc_8037_is_read_and_written() {
        let key = read(PUBLIC).unwrap();

        assert_eq!(key.id().to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(EdgePublicKey::from_jwk(&key.to_jwk()), Ok(key));
        let named = TenantPublicKey(key.0).to_jwk().named(&"2026-01".parse().unwrap());
        let json = serde_json::to_string(&named).unwrap();
        let rest = r#","kid":"2026-01","alg":"EdDSA","use":"sig"}"#;
        assert_eq!(json, PUBLIC.replace('}', rest));
    }

    #[test]
    fn keys_for_something_else_are_refused() {
        let more = |member: &str| PUBLIC.replace('}', &format!(",{member}}}"));

        let alg = JwkError::Algorithm("HS256".to_owned());
        assert_eq!(read(&more(r#""alg":"HS256""#)), Err(alg));
        let purpose = JwkError::Purpose("enc".to_owned());
        assert_eq!(read(&more(r#""use":"enc""#)), Err(purpose));
        assert_eq!(read(&more(r#""d":"nWGxne""#)), Err(JwkError::Private));
        assert_eq!(read(&PUBLIC.replace("11qY", "11q")), Err(JwkError::Key));
        let kind = JwkError::Kind { kty: "OKP".to_owned(), crv: "X25519".to_owned() };
        assert_eq!(read(&PUBLIC.replace("Ed25519", "X25519")), Err(kind));
    }
}
