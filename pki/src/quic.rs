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
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let derive =
        |part: &str| hmac::sign(&secret, format!("overway {purpose}: QUIC {part}").as_bytes());
    let ids = derive("connection ids");
    let ids = *ids.as_ref().first_chunk().expect("an HMAC-SHA256 has 32 bytes");
    let resets = hmac::Key::new(hmac::HMAC_SHA256, derive("stateless resets").as_ref());
    let mut config = EndpointConfig::new(Arc::new(resets));
    config.min_reset_interval(RESET_INTERVAL_MIN).cid_generator(move || {
        Box::new(HashedConnectionIdGenerator::from_key(u64::from_be_bytes(ids)))
    });
    config
}
