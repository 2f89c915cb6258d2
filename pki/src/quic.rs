//! The part of a QUIC endpoint's configuration that is to be the same after a restart.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::{EndpointConfig, HashedConnectionIdGenerator};
use ring::hmac;

/// Pause between two stateless resets: a thousand peers are through in a second.
const RESET_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Makes a configuration whose stateless resets (RFC 9000, section 10.3) outlast the process: peers of
/// one that was killed and started anew learn with their next packet that its connections are gone, and
/// dial again at once, instead of one after the other as their connections time out.
///
/// `secret` is the same at each start; who has it can end the endpoint's connections by a reset.
/// `purpose` keeps endpoints apart that share a secret.
pub fn endpoint_config(secret: &[u8], purpose: &str) -> EndpointConfig {
    let key = connection_id_key(secret, purpose);
    let resets = derive(secret, purpose, "stateless resets");
    let resets = hmac::Key::new(hmac::HMAC_SHA256, resets.as_ref());
    let mut config = EndpointConfig::new(Arc::new(resets));
    config
        .min_reset_interval(RESET_INTERVAL_MIN)
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    config
}

/// The key by which the endpoint of [`endpoint_config`] knows its own connection ids.
pub fn connection_id_key(secret: &[u8], purpose: &str) -> u64 {
    let key = derive(secret, purpose, "connection ids");
    u64::from_be_bytes(*key.as_ref().first_chunk().expect("an HMAC-SHA256 has 32 bytes"))
}

fn derive(secret: &[u8], purpose: &str, part: &str) -> hmac::Tag {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&secret, format!("overway {purpose}: QUIC {part}").as_bytes())
}
