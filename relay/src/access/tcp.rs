//! Edges that come over TLS on TCP, where UDP is blocked for them.
//!
//! Addresses are proven by TCP itself; that nobody keeps others out by handshakes that never end is what the bounds are
//! for: in all, and for each address.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
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

/// Handshakes under way, by whom.
#[derive(Debug, Default)]
struct UnderWay {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// A handshake under way.
struct Handshake {
    under_way: Rc<RefCell<UnderWay>>,
    source: IpAddr,
}

impl Handshake {
    /// Begins one, unless there are too many.
    fn begin(under_way: &Rc<RefCell<UnderWay>>, address: IpAddr) -> Option<Self> {
        let source = source(address);
        let mut counts = under_way.borrow_mut();
        let at = counts.by_source.get(&source).copied().unwrap_or(0);
        if counts.all >= HANDSHAKES_MAX || at >= HANDSHAKES_AT_MAX {
            return None;
        }
        counts.all += 1;
        counts.by_source.insert(source, at + 1);
        Some(Self { under_way: Rc::clone(under_way), source })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut counts = self.under_way.borrow_mut();
        counts.all -= 1;
        if let Some(at) = counts.by_source.get_mut(&self.source) {
            *at -= 1;
            if *at == 0 {
                counts.by_source.remove(&self.source);
            }
        }
    }
}

/// What one customer of a provider has at least.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & (u128::MAX << 64)).into(),
    }
}

/// Accepts until the access side stops.
pub(super) async fn accept_all(
    shared: Rc<Shared>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
) {
    let under_way = Rc::<RefCell<UnderWay>>::default();
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
        let Some(handshake) = Handshake::begin(&under_way, from.ip()) else {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others() {
        let under_way = Rc::<RefCell<UnderWay>>::default();
        let begin = |address: &str| Handshake::begin(&under_way, address.parse().unwrap());
        let mut held: Vec<Handshake> = std::iter::from_fn(|| begin("192.0.2.1")).collect();
        assert_eq!(held.len(), HANDSHAKES_AT_MAX);
        assert!(begin("::ffff:192.0.2.1").is_none(), "the same in other words");

        held.extend((0..HANDSHAKES_AT_MAX).map(|at| begin(&format!("2001:db8::{at}")).unwrap()));
        assert!(begin("2001:db8::ffff").is_none());
        held.push(begin("2001:db8:0:1::").unwrap());
        held.extend((0..).map_while(|at| begin(&format!("198.51.100.{at}"))));
        assert_eq!(held.len(), HANDSHAKES_MAX);

        held.clear();
        assert!(under_way.borrow().by_source.is_empty());
        assert!(begin("192.0.2.1").is_some());
    }
}
