//! What an endpoint is made with, and why it may not be made.

use std::time::Duration;

use overway_pki::Role;
use overway_wire::RelayId;

/// Limits of an endpoint. The default fits a mesh that spans the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// For a handshake, either side. Three tries of QUIC's across the longest path take 2 s.
    pub handshake_timeout: Duration,
    /// For opening, with the handshake if there is one, and with the far end's connecting its target.
    pub open_timeout: Duration,
    /// For a far end to say what it wants of a stream that it opened, and for an edge's first word.
    pub request_timeout: Duration,
    /// Handshakes of far ends under way at once; further ones are refused. 1,024 are more than all relays
    /// that could want one at a time; each holds some tens of KiB. One attachment has 128 of them at most.
    pub handshakes_max: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(6),
            open_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(5),
            handshakes_max: 1_024,
        }
    }
}

/// Why an endpoint cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The identity is not a relay's: only relays have gateways.
    #[error("sessions need a relay's certificate, not a {}'s", .0.name())]
    Role(Role),
    /// The certificate is not of the relay whose port this is.
    #[error("the certificate is of relay {certificate}, the port of relay {port}")]
    OtherRelay {
        /// The relay in the certificate.
        certificate: RelayId,
        /// The relay whose port it is.
        port: RelayId,
    },
    /// TLS cannot be set up for QUIC.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// No random bytes could be had.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
    /// Not called within a tokio runtime, or the endpoint cannot start.
    #[error("cannot start the endpoint: {0}")]
    Start(#[from] std::io::Error),
}
