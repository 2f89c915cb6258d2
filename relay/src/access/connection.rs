//! An edge's connection, by whichever transport it came.

use std::net::SocketAddr;
use std::pin::Pin;

use anyhow::Context as _;
use bytes::Bytes;
use overway_access::StreamConnection;
use overway_wire::RelayId;
use overway_wire::access::{CloseCode, EXPORTER_BYTES, EXPORTER_LABEL};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::datagrams::read_now;

/// A connection of an edge; clones are the same.
#[derive(Clone, Debug)]
pub(super) enum Connection {
    Quic(quinn::Connection),
    Tcp(StreamConnection),
}

/// What the control stream is read from.
pub(super) type ControlReader = Pin<Box<dyn AsyncRead>>;
/// What the control stream is written to; shut down, the edge reads to the end.
pub(super) type ControlWriter = Pin<Box<dyn AsyncWrite>>;

impl Connection {
    /// Where the edge is.
    pub(super) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(connection) => connection.remote_address(),
            Self::Tcp(connection) => connection.remote(),
        }
    }

    /// What the edge must have signed for this connection and no other.
    pub(super) fn exporter(&self, relay: RelayId) -> anyhow::Result<[u8; EXPORTER_BYTES]> {
        let connection = match self {
            Self::Quic(connection) => connection,
            Self::Tcp(connection) => return Ok(connection.exporter()),
        };
        let mut output = [0; EXPORTER_BYTES];
        connection
            .export_keying_material(&mut output, EXPORTER_LABEL, &relay.0.to_be_bytes())
            .map_err(|_| anyhow::anyhow!("TLS gives no keying material"))?;
        Ok(output)
    }

    /// The control stream, which the edge opens.
    pub(super) async fn accept_control(&self) -> anyhow::Result<(ControlWriter, ControlReader)> {
        Ok(match self {
            Self::Quic(connection) => {
                let (send, receive) = connection.accept_bi().await?;
                (Box::pin(send), Box::pin(receive))
            }
            Self::Tcp(connection) => {
                let (receive, send) =
                    connection.control().context("there is one control stream")?;
                (Box::pin(send), Box::pin(receive))
            }
        })
    }

    /// Bytes of datagrams, and of what counts beside them, that there is room for.
    pub(super) fn room(&self) -> usize {
        match self {
            Self::Quic(connection) => connection.datagram_send_buffer_space(),
            Self::Tcp(connection) => connection.room(),
        }
    }

    /// Sends a datagram. That the connection is closed is seen by its reader.
    pub(super) fn send(&self, datagram: Bytes) {
        match self {
            Self::Quic(connection) => {
                let _ = connection.send_datagram(datagram);
            }
            Self::Tcp(connection) => connection.send(datagram),
        }
    }

    /// Sends a datagram when there is room for it.
    pub(super) async fn send_when_free(self, datagram: Bytes) {
        match self {
            Self::Quic(connection) => {
                let _ = connection.send_datagram_wait(datagram).await;
            }
            Self::Tcp(connection) => connection.send_when_free(datagram).await,
        }
    }

    /// The next datagram; `None` once the connection is closed. Safe to cancel.
    pub(super) async fn receive(&self) -> Option<Bytes> {
        match self {
            Self::Quic(connection) => connection.read_datagram().await.ok(),
            Self::Tcp(connection) => connection.receive().await,
        }
    }

    /// A datagram that has arrived already.
    pub(super) fn receive_now(&self) -> Option<Bytes> {
        match self {
            Self::Quic(connection) => read_now(connection),
            Self::Tcp(connection) => connection.receive_now(),
        }
    }

    /// Waits until it is closed, by either end.
    pub(super) async fn closed(&self) {
        match self {
            Self::Quic(connection) => {
                connection.closed().await;
            }
            Self::Tcp(connection) => connection.closed().await,
        }
    }

    /// Closes it when all that waits over TCP has been written; waits for that. QUIC loses what it has not sent.
    pub(super) async fn end(&self, code: CloseCode) {
        if let Self::Tcp(connection) = self {
            connection.end(code);
            connection.finished().await;
        }
    }

    /// Closes it, and has the edge told why.
    pub(super) fn close(&self, code: CloseCode) {
        let reason: &[u8] = match code {
            CloseCode::Stopping => b"relay stops",
            CloseCode::Replaced => b"replaced",
            CloseCode::Refused => b"refused",
            CloseCode::Malformed => b"malformed",
            CloseCode::Unused => b"detached",
        };
        match self {
            Self::Quic(connection) => connection.close((code as u32).into(), reason),
            Self::Tcp(connection) => connection.close(code),
        }
    }
}
