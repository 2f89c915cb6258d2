//! How an edge reaches an access relay: QUIC ([`quic`]), TLS on TCP ([`tcp`]), or whichever of them comes through
//! ([`either`]). Another way is another implementation of these traits, with the same messages.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use overway_wire::RelayId;
use overway_wire::access::{CloseCode, EXPORTER_BYTES};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::status::TransportKind;

pub(crate) mod either;
pub(crate) mod quic;
pub(crate) mod tcp;

/// Dials access relays.
pub(crate) trait Transport: Send + Sync + 'static {
    /// A connection to a relay.
    type Connection: Connection;

    /// Connects, and checks that the other end is a relay of the mesh.
    fn dial(
        &self,
        remote: SocketAddr,
    ) -> impl Future<Output = Result<Self::Connection, ConnectError>> + Send;

    /// Takes in place of what was learnt before where relays take attachments by other ways than at their address: pairs
    /// of an address of [`Self::dial`] and one over TLS on TCP.
    fn learn_tcp(&self, learned: BTreeMap<SocketAddr, SocketAddr>);

    /// A connection to a relay by a better way than that by which another goes, if that comes through now.
    fn dial_better(
        &self,
        remote: SocketAddr,
    ) -> impl Future<Output = Option<Self::Connection>> + Send;

    /// Nothing comes through any connection: takes another socket, if that could help. Says whether it did.
    fn refresh(&self) -> bool;

    /// Waits a moment for what was said last to leave.
    fn finish(&self) -> impl Future<Output = ()> + Send;
}

/// A connection to a relay: datagrams, and a control stream.
pub(crate) trait Connection: Clone + Send + Sync + 'static {
    /// What the control stream is read from and written to.
    type Reader: AsyncRead + Send + Unpin;
    /// See [`Self::Reader`].
    type Writer: AsyncWrite + Send + Unpin;

    /// By what it goes.
    fn transport(&self) -> TransportKind;

    /// The relay, by its certificate.
    fn relay(&self) -> RelayId;

    /// What both ends of this connection alone can compute; see [`overway_wire::access::EXPORTER_LABEL`].
    fn exporter(&self) -> Result<[u8; EXPORTER_BYTES], ConnectError>;

    /// Opens the control stream.
    fn open_control(
        &self,
    ) -> impl Future<Output = Result<(Self::Reader, Self::Writer), ConnectError>> + Send;

    /// Bytes of datagrams that may be handed over now.
    fn room(&self) -> usize;

    /// Sends a datagram; where there is no room for it, another is lost.
    fn send(&self, datagram: Bytes);

    /// Sends a datagram when there is room.
    fn send_when_free(&self, datagram: Bytes) -> impl Future<Output = ()> + Send + 'static;

    /// The next datagram; `None` once the connection is closed. Safe to cancel.
    fn receive(&self) -> impl Future<Output = Option<Bytes>> + Send;

    /// A datagram that has arrived already.
    fn receive_now(&self) -> Option<Bytes>;

    /// Whether the relay closed it because another connection of the edge took its place.
    fn is_replaced(&self) -> bool;

    /// Why the connection is closed, for people.
    fn closed_because(&self) -> String;

    /// Closes it.
    fn close(&self, code: CloseCode);
}

/// Why a relay was not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The system has no socket for the address.
    #[error("no socket for {0}: {1}")]
    Socket(SocketAddr, std::io::Error),
    /// The dialling itself.
    #[error("cannot dial: {0}")]
    Dial(#[from] quinn::ConnectError),
    /// The connection.
    #[error("no connection: {0}")]
    Connection(#[from] quinn::ConnectionError),
    /// The other end's certificate says nothing of use.
    #[error("the relay's certificate: {0}")]
    Identity(#[from] overway_pki::IdentityError),
    /// TLS on TCP.
    #[error("TCP to {0}: {1}")]
    Tcp(SocketAddr, std::io::Error),
    /// Neither way comes through.
    #[error("{0}; {1}")]
    Both(Box<Self>, Box<Self>),
    /// A connection has one control stream.
    #[error("the control stream is open already")]
    Control,
    /// TLS gave nothing to sign.
    #[error("TLS gives no keying material")]
    Exporter,
}

impl ConnectError {
    /// This, and what happened to the other way.
    pub(crate) fn and(self, other: Self) -> Self {
        Self::Both(Box::new(self), Box::new(other))
    }
}
