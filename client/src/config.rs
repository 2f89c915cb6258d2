//! What an edge needs to attach.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use overway_pki::IdentityError;
use overway_session::SessionError;
use overway_tenant::EdgeKey;
use tokio::sync::watch;

use crate::token::OwnTokenError;

/// Relays that an edge may know: more than it will ever race.
pub const RELAYS_MAX: usize = 64;

/// The port of TLS on TCP unless said: networks that block UDP let web traffic out.
pub const TCP_PORT: u16 = 443;

/// Where relays take attachments over TLS on TCP, for where UDP is blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpAccess {
    /// At the address of every relay that does not say another; `None`: TCP is not tried, but for the exceptions.
    pub port: Option<u16>,
    /// Relays, by their UDP addresses, whose TCP address is another.
    pub exceptions: BTreeMap<SocketAddr, SocketAddr>,
}

impl Default for TcpAccess {
    fn default() -> Self {
        Self { port: Some(TCP_PORT), exceptions: BTreeMap::new() }
    }
}

impl TcpAccess {
    /// The TCP address of a relay, of which this was learnt.
    pub(crate) fn of(&self, relay: SocketAddr, learned: Option<SocketAddr>) -> Option<SocketAddr> {
        let usual = |port| learned.unwrap_or(SocketAddr::new(relay.ip(), port));
        self.exceptions.get(&relay).copied().or_else(|| self.port.map(usual))
    }
}

/// Where and as whom an edge attaches.
#[derive(Clone)]
pub struct AttachConfig {
    /// Access relays, the best first, 1 to [`RELAYS_MAX`].
    pub relays: Vec<SocketAddr>,
    /// Where to find them if UDP does not come through.
    pub tcp: TcpAccess,
    /// The mesh's CA certificate, PEM (`ca.pem` of any of its nodes): any relay of that mesh is taken.
    pub ca_pem: Vec<u8>,
    /// The edge's key.
    pub key: Arc<EdgeKey>,
    /// What the tenant's backend has given the edge; a new one is told to the relays at once.
    pub token: watch::Receiver<String>,
}

/// Why an edge cannot even try.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The edge's own token.
    #[error(transparent)]
    Token(#[from] OwnTokenError),
    /// Sessions.
    #[error("cannot start sessions: {0}")]
    Session(#[from] SessionError),
    /// No relays, or too many.
    #[error("{0} access relays given; expected 1 to {RELAYS_MAX}")]
    Relays(usize),
    /// No CA.
    #[error(
        "the CA certificate given is none of a mesh ({0}); expected ca.pem of one of its nodes"
    )]
    Ca(IdentityError),
}

impl fmt::Debug for AttachConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachConfig")
            .field("relays", &self.relays)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
