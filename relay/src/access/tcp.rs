//! Edges that come over TLS on TCP, where UDP is blocked for them.
//!
//! Addresses are proven by TCP itself; that nobody keeps others out by handshakes that never end is what the bounds are
//! for: in all, and for each address.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use overway_access::StreamConnection;
use overway_pki::ClientAuth;
use overway_wire::access::CloseCode;
use overway_wire::access::stream::ALPN_ACCESS_TCP;
use tokio::net::{TcpListener, TcpStream};

use super::AccessParts;
use super::connection::Connection;
use super::listener::{Shared, attach};
use super::places::Places;

/// Handshakes under way at once, TLS and attach; further connections are closed. Each is some tens of kilobytes.
const HANDSHAKES_MAX: usize = 256;
/// Of them from one address, or one /64 of IPv6.
const HANDSHAKES_AT_MAX: usize = 32;
/// Between two attempts to accept when the system gives no socket.
const PAUSE: Duration = Duration::from_millis(50);

/// TLS as edges expect it.
pub(super) fn server_config(parts: &AccessParts) -> Arc<rustls::ServerConfig> {
    overway_pki::server_config(&parts.credentials, &[ALPN_ACCESS_TCP], ClientAuth::None)
}

/// Accepts until the access side stops.
pub(super) async fn accept_all(
    shared: Rc<Shared>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
) {
    let handshakes = Places::new(HANDSHAKES_MAX, HANDSHAKES_AT_MAX);
    while let Some(accepted) = shared.stop.run_until_cancelled(listener.accept()).await {
        let (tcp, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "no connection accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        shared.counters.handshakes.increment();
        let Some(handshake) = handshakes.take(from.ip()) else {
            shared.counters.handshakes_refused.increment();
            continue;
        };
        let (shared, tls) = (Rc::clone(&shared), Arc::clone(&tls));
        tokio::task::spawn_local(async move {
            let connecting = connect(&shared, tls, tcp, from);
            attach(&shared, connecting, handshake).await;
        });
    }
}

async fn connect(
    shared: &Shared,
    tls: Arc<rustls::ServerConfig>,
    tcp: TcpStream,
    from: std::net::SocketAddr,
) -> anyhow::Result<Connection> {
    let connection = StreamConnection::accept(tls, tcp, from, shared.relay).await?;
    let (closing, stop) = (connection.clone(), shared.stop.clone());
    // As an endpoint does for its connections over QUIC.
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => closing.close(CloseCode::Stopping),
            () = closing.closed() => {}
        }
    });
    Ok(Connection::Tcp(connection))
}
