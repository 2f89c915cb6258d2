//! QUIC where it comes through, and TLS on TCP where it does not.
//!
//! QUIC is tried first. If it has not answered within a second, or cannot even be tried, TCP is tried beside it; the
//! first that stands is used. An attachment over TCP looks every few minutes whether QUIC comes through by now.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use overway_access::StreamConnection;
use overway_pki::IdentityError;
use overway_wire::RelayId;
use overway_wire::access::{CloseCode, EXPORTER_BYTES};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::quic::{Quic, QuicConnection};
use super::tcp::Tcp;
use super::{ConnectError, Connection, Transport, TransportKind};
use crate::TcpAccess;

/// How long QUIC is tried alone: three round trips around the world. Where UDP is blocked each attachment takes that much
/// longer.
const QUIC_ALONE: Duration = Duration::from_secs(1);
/// How long an attachment over TCP waits for a handshake of QUIC, to go over to that.
const PROBE_MAX: Duration = Duration::from_secs(3);
/// Connections over TCP whose last words are waited for, at most; more than an edge has.
const CLOSING_MAX: usize = 16;

/// Dials by whichever transport comes through.
#[derive(Debug)]
pub(crate) struct Either {
    quic: Quic,
    tcp: Tcp,
    addresses: TcpAccess,
    /// What relays said of one another; fewer than they may name in an answer.
    learned: Mutex<BTreeMap<SocketAddr, SocketAddr>>,
    /// Connections over TCP, for [`Transport::finish`].
    streams: Mutex<Vec<StreamConnection>>,
}

impl Either {
    /// Trusts the relays of the mesh whose CA this is.
    pub(crate) fn new(ca_pem: &[u8], addresses: TcpAccess) -> Result<Self, IdentityError> {
        let (quic, tcp) = (Quic::new(ca_pem)?, Tcp::new(ca_pem)?);
        Ok(Self { quic, tcp, addresses, learned: Mutex::default(), streams: Mutex::default() })
    }

    fn tcp_of(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        self.addresses.of(remote, learned.get(&remote).copied())
    }

    async fn dial_tcp(&self, remote: SocketAddr) -> Result<EitherConnection, ConnectError> {
        let connection = self.tcp.dial(remote).await?;
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.closed_because().is_empty());
        if streams.len() < CLOSING_MAX {
            streams.push(connection.clone());
        }
        Ok(EitherConnection::Tcp(connection))
    }
}

impl Transport for Either {
    type Connection = EitherConnection;

    async fn dial(&self, remote: SocketAddr) -> Result<EitherConnection, ConnectError> {
        let mut quic = pin!(self.quic.dial(remote));
        let Some(tcp) = self.tcp_of(remote) else {
            return quic.await.map(EitherConnection::Quic);
        };
        let failed = match tokio::time::timeout(QUIC_ALONE, &mut quic).await {
            Ok(Ok(connection)) => return Ok(EitherConnection::Quic(connection)),
            Ok(Err(error)) => Some(error),
            Err(_elapsed) => None,
        };
        let mut tcp = pin!(self.dial_tcp(tcp));
        if let Some(error) = failed {
            return tcp.await.map_err(|tcp| error.and(tcp));
        }
        tokio::select! {
            connected = &mut quic => match connected {
                Ok(connection) => Ok(EitherConnection::Quic(connection)),
                Err(error) => tcp.await.map_err(|tcp| error.and(tcp)),
            },
            connected = &mut tcp => match connected {
                Ok(connection) => Ok(connection),
                Err(error) => match quic.await {
                    Ok(connection) => Ok(EitherConnection::Quic(connection)),
                    Err(quic) => Err(quic.and(error)),
                },
            },
        }
    }

    fn learn_tcp(&self, learned: BTreeMap<SocketAddr, SocketAddr>) {
        *self.learned.lock().unwrap_or_else(PoisonError::into_inner) = learned;
    }

    async fn dial_better(&self, remote: SocketAddr) -> Option<EitherConnection> {
        let dialled = tokio::time::timeout(PROBE_MAX, self.quic.dial(remote)).await;
        dialled.ok()?.ok().map(EitherConnection::Quic)
    }

    fn refresh(&self) -> bool {
        self.quic.refresh()
    }

    async fn finish(&self) {
        let streams =
            std::mem::take(&mut *self.streams.lock().unwrap_or_else(PoisonError::into_inner));
        for stream in streams.into_iter().filter(|stream| !stream.closed_because().is_empty()) {
            stream.finished().await;
        }
        self.quic.finish().await;
    }
}

/// A connection by either.
#[derive(Clone, Debug)]
pub(crate) enum EitherConnection {
    Quic(QuicConnection),
    Tcp(StreamConnection),
}

/// Either's control stream, as it is read.
#[derive(Debug)]
pub(crate) enum EitherReader {
    Quic(<QuicConnection as Connection>::Reader),
    Tcp(<StreamConnection as Connection>::Reader),
}

/// Either's control stream, as it is written.
#[derive(Debug)]
pub(crate) enum EitherWriter {
    Quic(<QuicConnection as Connection>::Writer),
    Tcp(<StreamConnection as Connection>::Writer),
}

macro_rules! either {
    ($this:expr, $connection:ident => $call:expr) => {
        match $this {
            EitherConnection::Quic($connection) => $call,
            EitherConnection::Tcp($connection) => $call,
        }
    };
}

impl Connection for EitherConnection {
    type Reader = EitherReader;
    type Writer = EitherWriter;

    fn transport(&self) -> TransportKind {
        either!(self, connection => Connection::transport(connection))
    }

    fn relay(&self) -> RelayId {
        either!(self, connection => Connection::relay(connection))
    }

    fn exporter(&self) -> Result<[u8; EXPORTER_BYTES], ConnectError> {
        either!(self, connection => Connection::exporter(connection))
    }

    async fn open_control(&self) -> Result<(EitherReader, EitherWriter), ConnectError> {
        Ok(match self {
            Self::Quic(connection) => {
                let (reader, writer) = connection.open_control().await?;
                (EitherReader::Quic(reader), EitherWriter::Quic(writer))
            }
            Self::Tcp(connection) => {
                let (reader, writer) = connection.open_control().await?;
                (EitherReader::Tcp(reader), EitherWriter::Tcp(writer))
            }
        })
    }

    fn room(&self) -> usize {
        either!(self, connection => Connection::room(connection))
    }

    fn send(&self, datagram: Bytes) {
        either!(self, connection => Connection::send(connection, datagram));
    }

    fn send_when_free(&self, datagram: Bytes) -> impl Future<Output = ()> + Send + 'static {
        let connection = self.clone();
        async move {
            match connection {
                Self::Quic(connection) => Connection::send_when_free(&connection, datagram).await,
                Self::Tcp(connection) => Connection::send_when_free(&connection, datagram).await,
            }
        }
    }

    async fn receive(&self) -> Option<Bytes> {
        either!(self, connection => Connection::receive(connection).await)
    }

    fn receive_now(&self) -> Option<Bytes> {
        either!(self, connection => Connection::receive_now(connection))
    }

    fn is_replaced(&self) -> bool {
        either!(self, connection => Connection::is_replaced(connection))
    }

    fn closed_because(&self) -> String {
        either!(self, connection => Connection::closed_because(connection))
    }

    fn close(&self, code: CloseCode) {
        either!(self, connection => Connection::close(connection, code));
    }
}

impl AsyncRead for EitherReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Quic(reader) => AsyncRead::poll_read(Pin::new(reader), cx, buffer),
            Self::Tcp(reader) => Pin::new(reader).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for EitherWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Quic(writer) => AsyncWrite::poll_write(Pin::new(writer), cx, bytes),
            Self::Tcp(writer) => Pin::new(writer).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Quic(writer) => AsyncWrite::poll_flush(Pin::new(writer), cx),
            Self::Tcp(writer) => Pin::new(writer).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Quic(writer) => AsyncWrite::poll_shutdown(Pin::new(writer), cx),
            Self::Tcp(writer) => Pin::new(writer).poll_shutdown(cx),
        }
    }
}
