//! Going over from TCP to QUIC, once that comes through: the new connection is attached before the old one is left, and what
//! the relay had given the old one is still taken, so that nothing is lost on the way.
//!
//! ```text
//!   edge  -- QUIC: attach ---------> relay: the place is the new connection's
//!   edge <-- QUIC: attached -------- relay
//!   edge <-- TCP: what was waiting, "replaced" -- relay
//! ```
//!
//! What the edge had sent and the relay had not acknowledged goes by the new connection again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use overway_wire::PolicyId;
use overway_wire::access::{AccessDatagram, CloseCode, Direction};

use super::ATTACH_MAX;
use super::handshake::{Joined, prove};
use crate::Shared;
use crate::status::TransportKind;
use crate::transport::{Connection, Transport};

/// Between two looks whether QUIC comes through where an attachment goes over TCP, and a quarter more or less.
const LOOK_EVERY: Duration = Duration::from_secs(180);
/// Two attachments do not go over to QUIC at once.
const APART: Duration = Duration::from_secs(2);
/// How long what still comes by the old connection is waited for; its relay closes it within a second.
const REST_MAX: Duration = Duration::from_secs(5);

/// What an attachment waits for, that may be replaced by a better one.
pub(super) struct Better<'a, T> {
    pub(super) shared: &'a Arc<Shared<T>>,
    pub(super) transport: TransportKind,
    pub(super) place: usize,
    pub(super) remote: SocketAddr,
    /// Whether one is being attached: the old one may be closed before that is known to have succeeded.
    pub(super) is_attaching: &'a AtomicBool,
}

impl<T: Transport> Better<'_, T> {
    /// Attaches by a better way once one comes through; for ever if this is the best.
    pub(super) async fn attach(self) -> Joined<T::Connection> {
        loop {
            let connection = self.connection().await;
            self.is_attaching.store(true, Ordering::Relaxed);
            let proving = prove(self.shared, self.place, connection);
            let proven = tokio::time::timeout(ATTACH_MAX, proving).await;
            self.is_attaching.store(false, Ordering::Relaxed);
            match proven {
                Ok(Ok(joined)) => return joined,
                Ok(Err(error)) => tracing::debug!(remote = %self.remote, %error, "not by QUIC"),
                Err(_elapsed) => {}
            }
        }
    }

    async fn connection(&self) -> T::Connection {
        match self.transport {
            TransportKind::Quic => std::future::pending().await,
            TransportKind::Tcp => {}
        }
        let mut networks = self.shared.networks.subscribe();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY.mul_f64(0.75 + fastrand::f64() / 2.0)) => {}
                Ok(()) = networks.changed() => {
                    networks.mark_unchanged();
                    let is_first = self.place == 0;
                    tokio::time::sleep(if is_first { Duration::ZERO } else { APART }).await;
                }
            }
            if let Some(connection) = self.shared.transport.dial_better(self.remote).await {
                return connection;
            }
        }
    }
}

/// Takes what still comes by a connection whose place another has, until its relay closes it.
pub(super) fn take_rest<T: Transport>(
    shared: &Arc<Shared<T>>,
    connection: T::Connection,
    tenant: PolicyId,
) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let taking = async {
            while let Some(datagram) = connection.receive().await {
                if let Ok(AccessDatagram::Frame(header, payload)) =
                    AccessDatagram::decode(&datagram)
                    && header.direction == Direction::Down
                {
                    let payload = datagram.slice_ref(payload);
                    shared.deliver(vec![super::inbound(&header, payload, tenant)]);
                }
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(REST_MAX, taking) => {}
            () = shared.stop.cancelled() => {}
        }
        connection.close(CloseCode::Unused);
    });
}
