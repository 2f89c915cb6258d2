//! Join tokens: what an operator carries from the scheduler to a new node, once.
//!
//! A token is `ovw1-` and the base64url text (RFC 4648 section 5, without padding) of:
//!
//! ```text
//! ca_sha256 [32] | secret [16] | expires u64, Unix seconds | name: length u8, bytes
//! | schedulers: count u8, each: length u8, bytes | checksum: first 4 bytes of the SHA-256 of the above
//! ```
//!
//! Integers are big-endian. The digit in the prefix is the version. The checksum tells a token that was
//! cut or mistyped from one that is refused; it protects nothing else. One use and expiry are kept by the
//! scheduler, which stores the hash of the secret alone.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;

use crate::{NoRandomness, random, sha256};

const PREFIX: &str = "ovw1-";
/// What every version's prefix starts with.
const FAMILY: &str = "ovw";
/// 128 random bits cannot be guessed; more would only make the token longer.
const SECRET_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
/// A DNS label.
const NAME_BYTES_MAX: usize = 63;
/// An address or host name with its port.
const SCHEDULER_BYTES_MAX: usize = 255;
/// More schedulers than a mesh runs.
const SCHEDULERS_MAX: usize = 8;
/// Characters of the longest token and then some; anything longer is not looked into.
const TEXT_BYTES_MAX: usize = 4_096;

/// What a new node needs to join: where the schedulers are, which CA to believe, and the secret that
/// entitles it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JoinToken {
    /// Where to dial, `HOST:PORT` each, 1 to 8.
    pub schedulers: Vec<String>,
    /// The SHA-256 of the mesh's CA certificate.
    pub ca_sha256: [u8; 32],
    /// What the scheduler takes once.
    pub secret: JoinSecret,
    /// The new node's name.
    pub name: String,
    /// When the scheduler will no longer take it, in Unix seconds. For a clear message on the node's
    /// side; it is the scheduler that decides.
    pub expires: u64,
}

impl JoinToken {
    /// Makes a token with a new random secret. Fractions of a second of `expires` are dropped.
    pub fn new(
        schedulers: Vec<String>,
        ca_sha256: [u8; 32],
        name: &str,
        expires: SystemTime,
    ) -> Result<Self, NewTokenError> {
        check_name(name).map_err(NewTokenError::Content)?;
        check_schedulers(&schedulers).map_err(NewTokenError::Content)?;
        let expires =
            expires.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let secret = JoinSecret(random()?);
        Ok(Self { schedulers, ca_sha256, secret, name: name.to_owned(), expires })
    }

    /// The hash of the secret, by which the scheduler knows it.
    pub fn secret_hash(&self) -> [u8; 32] {
        secret_hash(self.secret.as_bytes())
    }

    /// Whether the token has expired by this machine's clock.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
            >= Duration::from_secs(self.expires)
    }

    fn encode(&self) -> Result<Vec<u8>, fmt::Error> {
        let mut bytes = Vec::new();
        bytes.extend(self.ca_sha256);
        bytes.extend(self.secret.0);
        bytes.extend(self.expires.to_be_bytes());
        put_text(&mut bytes, &self.name)?;
        bytes.push(u8::try_from(self.schedulers.len()).map_err(|_| fmt::Error)?);
        for scheduler in &self.schedulers {
            put_text(&mut bytes, scheduler)?;
        }
        bytes.extend(checksum(&bytes));
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, TokenError> {
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Damaged)?;
        if checksum(body) != *sum {
            return Err(TokenError::Damaged);
        }
        let mut rest = body;
        let ca_sha256 = take_array(&mut rest)?;
        let secret = JoinSecret(take_array(&mut rest)?);
        let expires = u64::from_be_bytes(take_array(&mut rest)?);
        let name = take_text(&mut rest)?;
        check_name(&name)?;
        let [count] = take_array(&mut rest)?;
        if usize::from(count) > SCHEDULERS_MAX {
            return Err(TokenError::Schedulers);
        }
        let schedulers = (0..count).map(|_| take_text(&mut rest)).collect::<Result<Vec<_>, _>>()?;
        check_schedulers(&schedulers)?;
        if !rest.is_empty() {
            return Err(TokenError::Layout);
        }
        Ok(Self { schedulers, ca_sha256, secret, name, expires })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&self.encode()?))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or_else(|| match text.split_once('-') {
            Some((version, _)) if version.starts_with(FAMILY) && version.len() <= 8 => {
                TokenError::Version(version.to_owned())
            }
            Some(_) | None => TokenError::NotAToken,
        })?;
        if encoded.len() > TEXT_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        // Before decoding, whose first complaint would be an odd length.
        if let Some(place) = encoded.chars().position(|character| !is_symbol(character)) {
            return Err(TokenError::Symbol { place: PREFIX.len() + place + 1 });
        }
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| TokenError::Damaged)?;
        Self::decode(&bytes)
    }
}

/// A token's secret. Printed by nothing but the token itself.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinSecret([u8; SECRET_BYTES]);

impl JoinSecret {
    /// The secret, to be sent to the scheduler inside TLS.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(..)")
    }
}

/// The hash of a secret that a node has sent: what the scheduler stores and looks up. A plain SHA-256 is
/// enough, for the secret has 128 random bits; and as the look-up is by hash, its timing tells nothing.
pub fn secret_hash(secret: &[u8]) -> [u8; 32] {
    sha256(secret)
}

/// Why a text is not a join token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing was given.
    #[error("the token is empty; expected what `overway node add NAME` prints")]
    Empty,
    /// It does not start as a token does.
    #[error("this is not a join token: it does not start with \"ovw1-\"")]
    NotAToken,
    /// It is of a version that this program does not know.
    #[error("the token is of version \"{0}\"; this program knows \"ovw1\" only")]
    Version(String),
    /// No token is that long.
    #[error("this is not a join token: it is too long")]
    TooLong,
    /// A character that tokens do not have.
    #[error(
        "character {place} does not belong in a join token; was it copied whole, and nothing else?"
    )]
    Symbol {
        /// Counted from 1.
        place: usize,
    },
    /// The checksum does not fit.
    #[error("the token is damaged: a part is missing or mistyped; copy it again, whole")]
    Damaged,
    /// The checksum fits, but not the layout.
    #[error("the token's content is malformed; make a new one")]
    Layout,
    /// The name in it is not one.
    #[error("a node name is 1 to 63 of a-z, 0-9 and hyphen, and does not start with a hyphen")]
    Name,
    /// The schedulers in it are too many, too few, or not addresses.
    #[error("a token names 1 to 8 schedulers, each as HOST:PORT")]
    Schedulers,
}

/// Why a token could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NewTokenError {
    /// The name or a scheduler's address is not one.
    #[error(transparent)]
    Content(TokenError),
    /// The operating system gives no random bytes.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

fn is_symbol(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '-' || character == '_'
}

fn check_name(name: &str) -> Result<(), TokenError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-');
    if good { Ok(()) } else { Err(TokenError::Name) }
}

fn check_schedulers(schedulers: &[String]) -> Result<(), TokenError> {
    let good = (1..=SCHEDULERS_MAX).contains(&schedulers.len())
        && schedulers.iter().all(|scheduler| is_host_port(scheduler));
    if good { Ok(()) } else { Err(TokenError::Schedulers) }
}

fn is_host_port(text: &str) -> bool {
    let good_bytes =
        text.len() <= SCHEDULER_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
    good_bytes
        && text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    *sha256(bytes).first_chunk().expect("a SHA-256 is longer than the checksum")
}

fn put_text(bytes: &mut Vec<u8>, text: &str) -> fmt::Result {
    bytes.push(u8::try_from(text.len()).map_err(|_| fmt::Error)?);
    bytes.extend(text.as_bytes());
    Ok(())
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], TokenError> {
    let (array, rest) = bytes.split_first_chunk::<N>().ok_or(TokenError::Layout)?;
    *bytes = rest;
    Ok(*array)
}

fn take_text(bytes: &mut &[u8]) -> Result<String, TokenError> {
    let [length] = take_array(bytes)?;
    let (text, rest) = bytes.split_at_checked(usize::from(length)).ok_or(TokenError::Layout)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).map_err(|_| TokenError::Layout)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            schedulers: vec!["127.0.0.1:4400".to_owned(), "[2001:db8::1]:4400".to_owned()],
            ca_sha256: [0xca; 32],
            secret: JoinSecret([0x5e; SECRET_BYTES]),
            name: "frankfurt".to_owned(),
            expires: 1_800_000_000,
        }
    }

    /// The text of a token with this body, whose checksum is good.
    fn sealed(body: &[u8]) -> String {
        let bytes = [body, &checksum(body)].concat();
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    fn parse(text: &str) -> Result<JoinToken, TokenError> {
        text.parse()
    }

    /// Tokens that are on paper when a program is upgraded must still be read.
    #[test]
    fn the_text_of_a_token_stays_as_it_is() {
        let golden = "ovw1-ysrKysrKysrKysrKysrKysrKysrKysrKysrKysrKyspeXl5eXl5eXl5eXl5eXl5eAAAAAGtJ\
                      0gAJZnJhbmtmdXJ0Ag4xMjcuMC4wLjE6NDQwMBJbMjAwMTpkYjg6OjFdOjQ0MDDz7zWQ";
        assert_eq!(token().to_string(), golden);
        assert_eq!(parse(&token().to_string()), Ok(token()));
    }

    #[test]
    fn spaces_around_a_token_do_not_matter() {
        assert_eq!(parse(&format!("  {}\n", token())), Ok(token()));
    }

    #[test]
    fn two_tokens_have_two_secrets() {
        let new = || {
            let schedulers = vec!["scheduler.example:4400".to_owned()];
            JoinToken::new(schedulers, [0; 32], "tokyo", SystemTime::now()).unwrap()
        };
        let (one, two) = (new(), new());

        assert_ne!(one.secret, two.secret);
        assert_ne!(one.secret_hash(), two.secret_hash());
        assert_eq!(one.secret_hash(), secret_hash(one.secret.as_bytes()));
    }

    #[test]
    fn a_token_expires() {
        let token = token();
        let expiry = SystemTime::UNIX_EPOCH + Duration::from_secs(token.expires);

        assert!(!token.is_expired(expiry - Duration::from_secs(1)));
        assert!(token.is_expired(expiry));
    }

    #[test]
    fn printing_a_token_for_debugging_shows_no_secret() {
        let printed = format!("{:?}", token());

        assert!(printed.contains("JoinSecret(..)"), "{printed}");
        assert!(!printed.contains("94"), "{printed}"); // 0x5e
    }

    #[test]
    fn garbage_is_refused_with_the_reason() {
        let good = token().to_string();
        let mistyped = good.replacen("ysr", "ysx", 1);
        for (text, reason) in [
            ("", TokenError::Empty),
            (" \n", TokenError::Empty),
            ("hello", TokenError::NotAToken),
            ("ovw1", TokenError::NotAToken),
            ("-----BEGIN CERTIFICATE-----", TokenError::NotAToken),
            ("ovw2-ysrK", TokenError::Version("ovw2".to_owned())),
            ("ovw1-", TokenError::Damaged),
            ("ovw1-AAAA", TokenError::Damaged),
            ("ovw1-AA AA", TokenError::Symbol { place: 8 }),
            ("ovw1-AAAA==", TokenError::Symbol { place: 10 }),
            (&good[..good.len() - 4], TokenError::Damaged),
            (&good[..good.len() - 1], TokenError::Damaged),
            (&mistyped, TokenError::Damaged),
            (&format!("ovw1-{}", "A".repeat(5_000)), TokenError::TooLong),
        ] {
            assert_eq!(parse(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn a_body_that_is_sealed_but_malformed_is_refused() {
        let body = |token: &JoinToken| {
            let mut bytes = token.encode().unwrap();
            bytes.truncate(bytes.len() - CHECKSUM_BYTES);
            bytes
        };
        let good = body(&token());
        assert_eq!(parse(&sealed(&good)), Ok(token()));

        assert_eq!(parse(&sealed(&good[..good.len() - 1])), Err(TokenError::Layout));
        assert_eq!(parse(&sealed(&[&good[..], b"x"].concat())), Err(TokenError::Layout));
        assert_eq!(parse(&sealed(b"")), Err(TokenError::Layout));
        let nameless = JoinToken { name: String::new(), ..token() };
        assert_eq!(parse(&sealed(&body(&nameless))), Err(TokenError::Name));
        let lost = JoinToken { schedulers: vec!["nowhere".to_owned()], ..token() };
        assert_eq!(parse(&sealed(&body(&lost))), Err(TokenError::Schedulers));
    }

    #[test]
    fn a_token_is_not_made_of_what_would_not_be_read() {
        let new = |schedulers: &[&str], name: &str| {
            let schedulers = schedulers.iter().map(|&text| text.to_owned()).collect();
            JoinToken::new(schedulers, [0; 32], name, SystemTime::now())
        };
        let good = "127.0.0.1:4400";

        for name in ["", "Tokyo", "-tokyo", "to kyo", &"t".repeat(64)] {
            assert_eq!(new(&[good], name), Err(NewTokenError::Content(TokenError::Name)));
        }
        for schedulers in
            [&[][..], &[good; 9], &["tokyo"], &[":4400"], &["tokyo:99999"], &["to kyo:1"]]
        {
            let outcome = new(schedulers, "tokyo");
            assert_eq!(outcome, Err(NewTokenError::Content(TokenError::Schedulers)));
        }
        let longest = format!("{}:65535", "h".repeat(249));
        let token = new(&[longest.as_str(); 8], &"t".repeat(63)).unwrap();
        assert_eq!(parse(&token.to_string()), Ok(token));
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_refused(text in any::<String>(), body in any::<Vec<u8>>()) {
            let _ = parse(&text);
            let _ = parse(&format!("{PREFIX}{text}"));
            let _ = parse(&sealed(&body));
        }

        #[test]
        fn every_token_is_read_back(
            ca_sha256 in any::<[u8; 32]>(),
            secret in any::<[u8; SECRET_BYTES]>(),
            expires in any::<u64>(),
            name in "[a-z0-9][a-z0-9-]{0,62}",
            ports in proptest::collection::vec(any::<u16>(), 1..=SCHEDULERS_MAX),
        ) {
            let schedulers = ports.iter().map(|port| format!("[::1]:{port}")).collect();
            let secret = JoinSecret(secret);
            let token = JoinToken { schedulers, ca_sha256, secret, name, expires };
            assert_eq!(parse(&token.to_string()), Ok(token));
        }
    }
}
