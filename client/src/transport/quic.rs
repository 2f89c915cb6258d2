//! Access over QUIC: one socket for each address family, from which all relays are dialled.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use overway_pki::{ACCESS_SERVER_NAME, IdentityError, access_client_config, peer_identity};
use overway_wire::RelayId;
use overway_wire::access::{ACCESS_MTU, ALPN_ACCESS, CloseCode, EXPORTER_BYTES, EXPORTER_LABEL};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::CertificateDer;

use super::{ConnectError, Connection, TransportKind};

/// A silent connection is gone by then, as at the relay's end.
const IDLE_MAX: Duration = Duration::from_secs(50);
/// What quinn may hold unsent: one batch. More would wait in front of a heartbeat, and in no order of classes.
const UNSENT_BYTES: usize = 10 * ACCESS_MTU as usize;
/// What quinn may hold unread: a burst of a thousand frames.
const UNREAD_BYTES: usize = 1 << 20;
/// What quinn counts in its buffer for a datagram beside its bytes: that which holds them.
const BUFFERED_EXTRA: usize = size_of::<Bytes>();

/// Dials over QUIC.
#[derive(Debug)]
pub(crate) struct Quic {
    config: quinn::ClientConfig,
    /// For IPv4 and IPv6, once used.
    endpoints: Mutex<[Option<quinn::Endpoint>; 2]>,
}

impl Quic {
    /// Trusts the relays of the mesh whose CA this is.
    pub(crate) fn new(ca_pem: &[u8]) -> Result<Self, IdentityError> {
        let tls = access_client_config(ca_pem, &[ALPN_ACCESS])?;
        let crypto = QuicClientConfig::try_from(tls).expect("ring has the suites of QUIC");
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = quinn::TransportConfig::default();
        let idle = quinn::IdleTimeout::try_from(IDLE_MAX).expect("fifty seconds fit in a varint");
        transport
            .max_idle_timeout(Some(idle))
            .initial_mtu(ACCESS_MTU)
            .min_mtu(ACCESS_MTU)
            .mtu_discovery_config(None)
            .datagram_send_buffer_size(UNSENT_BYTES)
            .datagram_receive_buffer_size(Some(UNREAD_BYTES))
            .max_concurrent_bidi_streams(0_u32.into())
            .max_concurrent_uni_streams(0_u32.into());
        config.transport_config(Arc::new(transport));
        Ok(Self { config, endpoints: Mutex::default() })
    }

    fn endpoint(&self, remote: SocketAddr) -> Result<quinn::Endpoint, ConnectError> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let held = &mut endpoints[usize::from(remote.is_ipv6())];
        if let Some(endpoint) = held {
            return Ok(endpoint.clone());
        }
        let endpoint = quinn::Endpoint::client(any_port(remote.is_ipv6()))
            .map_err(|error| ConnectError::Socket(remote, error))?;
        Ok(held.insert(endpoint).clone())
    }
}

impl Quic {
    /// Connects, and checks that the other end is a relay of the mesh.
    pub(crate) async fn dial(&self, remote: SocketAddr) -> Result<QuicConnection, ConnectError> {
        let endpoint = self.endpoint(remote)?;
        let connecting = endpoint.connect_with(self.config.clone(), remote, ACCESS_SERVER_NAME)?;
        let connection = connecting.await?;
        let chain = connection.peer_identity().ok_or(IdentityError::NoCertificate)?;
        let chain = chain.downcast::<Vec<CertificateDer<'static>>>();
        let chain = chain.map_err(|_| IdentityError::Unreadable)?;
        let relay = RelayId(peer_identity(&chain)?.id);
        Ok(QuicConnection { connection, relay })
    }

    /// Takes new sockets; says whether there are any. A network that went away may have taken the socket's route or the NAT's mapping with it. QUIC carries the
    /// connections over (RFC 9000, 9).
    pub(crate) fn refresh(&self) -> bool {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refreshed = false;
        for (is_ipv6, endpoint) in [false, true].into_iter().zip(endpoints.iter()) {
            let Some(endpoint) = endpoint else { continue };
            let rebound = UdpSocket::bind(any_port(is_ipv6)).and_then(|it| endpoint.rebind(it));
            refreshed |= rebound.is_ok();
        }
        refreshed
    }

    /// Waits a moment for what was said last to leave.
    pub(crate) async fn finish(&self) {
        let endpoints = {
            let held = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
            held.clone()
        };
        for endpoint in endpoints.into_iter().flatten() {
            // A relay that does not answer is not waited for.
            let _ = tokio::time::timeout(IDLE_MAX / 100, endpoint.wait_idle()).await;
        }
    }
}

/// A QUIC connection to a relay.
#[derive(Clone, Debug)]
pub(crate) struct QuicConnection {
    connection: quinn::Connection,
    relay: RelayId,
}

impl Connection for QuicConnection {
    type Reader = quinn::RecvStream;
    type Writer = quinn::SendStream;

    fn transport(&self) -> TransportKind {
        TransportKind::Quic
    }

    fn relay(&self) -> RelayId {
        self.relay
    }

    fn exporter(&self) -> Result<[u8; EXPORTER_BYTES], ConnectError> {
        let mut output = [0; EXPORTER_BYTES];
        let context = self.relay.0.to_be_bytes();
        self.connection
            .export_keying_material(&mut output, EXPORTER_LABEL, &context)
            .map_err(|_| ConnectError::Exporter)?;
        Ok(output)
    }

    async fn open_control(&self) -> Result<(quinn::RecvStream, quinn::SendStream), ConnectError> {
        let (send, receive) = self.connection.open_bi().await?;
        Ok((receive, send))
    }

    fn room(&self) -> usize {
        self.connection.datagram_send_buffer_space().saturating_sub(BUFFERED_EXTRA)
    }

    fn send(&self, datagram: Bytes) {
        // An error means that the connection is closed, which its reader handles.
        let _ = self.connection.send_datagram(datagram);
    }

    fn send_when_free(&self, datagram: Bytes) -> impl Future<Output = ()> + Send + 'static {
        let connection = self.connection.clone();
        async move {
            let _ = connection.send_datagram_wait(datagram).await;
        }
    }

    async fn receive(&self) -> Option<Bytes> {
        self.connection.read_datagram().await.ok()
    }

    fn receive_now(&self) -> Option<Bytes> {
        let next = pin!(self.connection.read_datagram());
        match next.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(datagram) => datagram.ok(),
            Poll::Pending => None,
        }
    }

    fn is_replaced(&self) -> bool {
        let replaced = quinn::VarInt::from_u32(CloseCode::Replaced as u32);
        match self.connection.close_reason() {
            Some(quinn::ConnectionError::ApplicationClosed(close)) => close.error_code == replaced,
            Some(_) | None => false,
        }
    }

    fn closed_because(&self) -> String {
        self.connection.close_reason().map_or_else(String::new, |reason| reason.to_string())
    }

    fn close(&self, code: CloseCode) {
        self.connection.close((code as u32).into(), b"");
    }
}

fn any_port(is_ipv6: bool) -> SocketAddr {
    let ip: IpAddr = match is_ipv6 {
        true => Ipv6Addr::UNSPECIFIED.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}
