//! Plain nested QUIC: packets of a session as datagrams of a connection for each line, handed on as they come.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use quinn::congestion::CubicConfig;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Connection, EndpointConfig, TransportConfig, UdpPoller};
use tokio::sync::mpsc;

use super::nodes::{pour, pull, session_transport};
use super::{LINK_MTU, Path};

/// Packets of the session.
const SESSION_MTU: u16 = 1_200;
/// quinn's datagram buffers hold all that is under way, so that none is dropped there.
const DATAGRAM_BUFFER_BYTES: usize = 16 << 20;
/// Between two tries to reach a neighbour whose thread has not begun.
const REDIAL: Duration = Duration::from_millis(100);
/// The one far end that a session's socket knows.
const FAR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);

/// Runs one node until its connections end.
pub(super) async fn run(path: &Path, node: usize) -> anyhow::Result<()> {
    let last = path.addresses.len() - 1;
    let endpoint = path.endpoint(node, link_transport())?;
    let before = match node {
        0 => None,
        _ => Some(endpoint.accept().await.context("no neighbour")?.await?),
    };
    let after = if node == last { None } else { Some(dial(path, node, &endpoint).await?) };
    match (before, after) {
        (Some(before), Some(after)) => {
            tokio::task::spawn_local(hand_on(after.clone(), before.clone()));
            hand_on(before, after).await;
            Ok(())
        }
        (None, Some(link)) => {
            let session = session(path, node, link)?;
            let transport = session_transport(SESSION_MTU);
            let connecting = path.nodes.connect((node, &session), (last, FAR), transport)?;
            pull(&connecting.await?, &path.read).await
        }
        (Some(link), None) => {
            let session = session(path, node, link)?;
            pour(&session.accept().await.context("no client")?.await?).await
        }
        (None, None) => Ok(()),
    }
}

async fn dial(path: &Path, node: usize, endpoint: &quinn::Endpoint) -> anyhow::Result<Connection> {
    // The line's threads all begin at once; a packet that comes too soon is lost as any other.
    tokio::time::sleep(REDIAL).await;
    let to = (node + 1, path.addresses[node + 1]);
    Ok(path.nodes.connect((node, endpoint), to, link_transport())?.await?)
}

/// Hands datagrams on for as long as both connections stand.
async fn hand_on(from: Connection, to: Connection) {
    while let Ok(datagram) = from.read_datagram().await {
        if to.send_datagram(datagram).is_err() {
            return;
        }
    }
}

fn link_transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut acks = quinn::AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(20_u32.into()).max_ack_delay(Some(Duration::from_millis(10)));
    transport
        .initial_mtu(LINK_MTU)
        .min_mtu(LINK_MTU)
        .mtu_discovery_config(None)
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(CubicConfig::default()));
    transport
}

/// An endpoint whose packets are datagrams of a link.
fn session(path: &Path, node: usize, link: Connection) -> anyhow::Result<quinn::Endpoint> {
    let (arrived, arriving) = mpsc::unbounded_channel();
    let reader = link.clone();
    tokio::task::spawn_local(async move {
        while let Ok(datagram) = reader.read_datagram().await {
            if arrived.send(datagram).is_err() {
                return;
            }
        }
    });
    let socket = Arc::new(LinkSocket { link, arriving: Mutex::new(arriving) });
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(SESSION_MTU)?;
    Ok(quinn::Endpoint::new_with_abstract_socket(
        config,
        Some(path.nodes.server(node, session_transport(SESSION_MTU))?),
        socket,
        Arc::new(quinn::TokioRuntime),
    )?)
}

/// What the session's endpoint takes for its socket.
struct LinkSocket {
    link: Connection,
    arriving: Mutex<mpsc::UnboundedReceiver<Bytes>>,
}

impl AsyncUdpSocket for LinkSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Always)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let contents = Bytes::copy_from_slice(transmit.contents);
        let segment = transmit.segment_size.unwrap_or(contents.len()).max(1);
        for start in (0..contents.len()).step_by(segment) {
            let packet = contents.slice(start..contents.len().min(start + segment));
            self.link.send_datagram(packet).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let packet = match arriving.poll_recv(cx) {
                Poll::Ready(Some(packet)) => packet,
                Poll::Ready(None) if count == 0 => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Poll::Ready(None) | Poll::Pending => break,
            };
            let len = packet.len().min(buf.len());
            buf[..len].copy_from_slice(&packet[..len]);
            *meta = RecvMeta { addr: FAR, len, stride: len, ecn: None, dst_ip: None };
            count += 1;
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(FAR)
    }

    fn max_transmit_segments(&self) -> usize {
        10
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for LinkSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSocket").finish_non_exhaustive()
    }
}

/// The link's buffer holds all that may be under way.
#[derive(Debug)]
struct Always;

impl UdpPoller for Always {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
