//! Nodes of plain QUIC: identities, endpoints on sockets with faults, and the two ends of a stream.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use bytes::Bytes;
use overway_pki::{ALPN_MESH, Authority, ClientAuth, Credentials, Identity, Role};
use overway_relay::fault::{FaultConfig, FaultSocket, FaultTable, Rules};
use overway_wire::RelayId;
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Runtime, TransportConfig, VarInt};

use crate::chain::files::credentials;

/// Flow control as of a session.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const WINDOW_BYTES: u32 = 64 << 20;
/// Bytes written to the stream at once.
const WRITE_BYTES: usize = 64 << 10;

/// Identities of one authority.
pub(crate) struct Nodes {
    credentials: Vec<Arc<Credentials>>,
    seed: u64,
}

impl Nodes {
    pub(crate) fn new(count: usize, seed: u64) -> anyhow::Result<Self> {
        let authority = Authority::create("bench")?;
        let identity = |node| {
            let id = RelayId(u16::try_from(node + 1).context("too many nodes")?);
            Ok(Arc::new(credentials(&authority, id)?))
        };
        Ok(Self { credentials: (0..count).map(identity).collect::<anyhow::Result<_>>()?, seed })
    }

    /// An endpoint of a node, on a socket that treats by these rules what comes.
    pub(crate) fn endpoint(
        &self,
        node: usize,
        socket: UdpSocket,
        rules: Rules,
        transport: TransportConfig,
    ) -> anyhow::Result<quinn::Endpoint> {
        let seed = self.seed.wrapping_mul(31).wrapping_add(node as u64);
        let fault = FaultConfig { seed, rules, ..FaultConfig::default() };
        let runtime: Arc<dyn Runtime> = Arc::new(quinn::TokioRuntime);
        let socket = runtime.wrap_udp_socket(socket)?;
        let socket = FaultSocket::new(socket, FaultTable::new(&fault))?;
        Ok(quinn::Endpoint::new_with_abstract_socket(
            quinn::EndpointConfig::default(),
            Some(self.server(node, transport)?),
            socket,
            runtime,
        )?)
    }

    pub(super) fn server(
        &self,
        node: usize,
        transport: TransportConfig,
    ) -> anyhow::Result<quinn::ServerConfig> {
        let clients = ClientAuth::Required(&[Role::Relay]);
        let tls = overway_pki::server_config(&self.credentials[node], &[ALPN_MESH], clients);
        let mut server =
            quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        server.transport_config(Arc::new(transport));
        Ok(server)
    }

    /// Dials one node as another.
    pub(crate) fn connect(
        &self,
        (from, endpoint): (usize, &quinn::Endpoint),
        (to, address): (usize, SocketAddr),
        transport: TransportConfig,
    ) -> anyhow::Result<quinn::Connecting> {
        let tls = overway_pki::client_config(&self.credentials[from], &[ALPN_MESH]);
        let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        client.transport_config(Arc::new(transport));
        let identity = self.credentials[to].identity();
        let name = Identity::new(Role::Relay, identity.id, &identity.mesh)?.server_name();
        Ok(endpoint.connect_with(client, address, &name)?)
    }
}

/// Opens a stream, and counts what comes for ever.
pub(crate) async fn pull(connection: &quinn::Connection, read: &AtomicU64) -> anyhow::Result<()> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(b"GET").await?;
    let mut pieces = [const { Bytes::new() }; 64];
    while let Some(count) = recv.read_chunks(&mut pieces).await? {
        let length: usize = pieces[..count].iter().map(Bytes::len).sum();
        pieces[..count].fill(Bytes::new());
        read.fetch_add(length as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Writes to the client's stream for ever.
pub(crate) async fn pour(connection: &quinn::Connection) -> anyhow::Result<()> {
    let (mut send, _recv) = connection.accept_bi().await?;
    let bytes = Bytes::from(vec![0; WRITE_BYTES]);
    loop {
        send.write_chunk(bytes.clone()).await?;
    }
}

/// The transport of a connection from end to end.
pub(crate) fn session_transport(mtu: u16) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut acks = quinn::AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(10));
    transport
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .initial_mtu(mtu)
        .min_mtu(mtu)
        .mtu_discovery_config(None)
        .ack_frequency_config(Some(acks))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(CubicConfig::default()));
    transport
}
