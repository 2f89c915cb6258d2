//! Access over TLS on TCP.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use overway_access::StreamConnection;
use overway_pki::{ACCESS_SERVER_NAME, IdentityError, access_client_config, peer_identity};
use overway_wire::RelayId;
use overway_wire::access::stream::ALPN_ACCESS_TCP;
use overway_wire::access::{CloseCode, EXPORTER_BYTES};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{DuplexStream, ReadHalf, WriteHalf};

use super::{ConnectError, Connection, TransportKind};

/// Dials over TCP.
#[derive(Debug)]
pub(crate) struct Tcp {
    config: Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
}

impl Tcp {
    /// Trusts the relays of the mesh whose CA this is.
    pub(crate) fn new(ca_pem: &[u8]) -> Result<Self, IdentityError> {
        let config = access_client_config(ca_pem, &[ALPN_ACCESS_TCP])?;
        let name = ServerName::try_from(ACCESS_SERVER_NAME).expect("it is a name");
        Ok(Self { config, name })
    }

    /// Connects, and checks that the other end is a relay of the mesh.
    pub(crate) async fn dial(&self, remote: SocketAddr) -> Result<StreamConnection, ConnectError> {
        let (config, name) = (Arc::clone(&self.config), self.name.clone());
        let dialled = StreamConnection::dial(config, name, remote, relay_of).await;
        dialled.map_err(|error| ConnectError::Tcp(remote, error))
    }
}

fn relay_of(chain: &[CertificateDer<'static>]) -> io::Result<RelayId> {
    let identity = peer_identity(chain);
    let identity = identity.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(RelayId(identity.id))
}

impl Connection for StreamConnection {
    type Reader = ReadHalf<DuplexStream>;
    type Writer = WriteHalf<DuplexStream>;

    fn transport(&self) -> TransportKind {
        TransportKind::Tcp
    }

    fn relay(&self) -> RelayId {
        Self::relay(self)
    }

    fn exporter(&self) -> Result<[u8; EXPORTER_BYTES], ConnectError> {
        Ok(Self::exporter(self))
    }

    async fn open_control(&self) -> Result<(Self::Reader, Self::Writer), ConnectError> {
        self.control().ok_or(ConnectError::Control)
    }

    fn room(&self) -> usize {
        Self::room(self)
    }

    fn send(&self, datagram: Bytes) {
        Self::send(self, datagram);
    }

    fn send_when_free(&self, datagram: Bytes) -> impl Future<Output = ()> + Send + 'static {
        let connection = self.clone();
        async move { Self::send_when_free(&connection, datagram).await }
    }

    async fn receive(&self) -> Option<Bytes> {
        Self::receive(self).await
    }

    fn receive_now(&self) -> Option<Bytes> {
        Self::receive_now(self)
    }

    fn is_replaced(&self) -> bool {
        self.is_closed_by_other(CloseCode::Replaced)
    }

    fn closed_because(&self) -> String {
        Self::closed_because(self)
    }

    fn close(&self, code: CloseCode) {
        Self::close(self, code);
    }
}
