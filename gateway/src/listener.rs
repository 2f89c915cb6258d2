//! Accepting TCP connections, as many and as fast as the configuration allows.
//!
//! What a listener is for may change while it listens ([`crate::port`]): its socket stays, and so do the places that are
//! taken.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use overway_session::ClientAddresses;
use tokio::net::{TcpListener, TcpStream};

use crate::config::Limits;
use crate::open::Shared;
use crate::places::{Places, Taken};
use crate::rate::Rate;
use crate::splice::reset;
use crate::stats::{Present, Refusal};

/// Pause after the process has run out of descriptors or memory, so that the listener does not spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A bound TCP socket, and how many of its connections there are.
pub(crate) struct Listener {
    tcp: TcpListener,
    places: Places,
    shared: Arc<Shared>,
}

/// Whom a listener lets in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door<'a> {
    pub(crate) limits: Limits,
    /// The only sources that are let in; `None`: all.
    pub(crate) trusted: Option<&'a [IpNet]>,
}

/// A connection that was let in. It counts as long as it is kept.
pub(crate) struct Admitted {
    pub(crate) tcp: TcpStream,
    pub(crate) client: SocketAddr,
    pub(crate) place: Place,
}

/// One of a listener's places, taken.
pub(crate) struct Place {
    _taken: Taken,
    _active: Present,
}

impl Listener {
    pub(crate) fn new(tcp: TcpListener, shared: Arc<Shared>) -> Self {
        Self { tcp, places: Places::default(), shared }
    }

    /// What is shared with the rest of the gateway.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Accepts until `until` is ready, or the gateway drains. Each connection that is let in gets a task of
    /// `connection`; the others are reset, at the cost of no task and no byte read.
    pub(crate) async fn run<F>(
        &self,
        door: Door<'_>,
        until: impl Future<Output = ()>,
        connection: impl Fn(Admitted) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { tcp: listener, places, shared } = self;
        let Door { limits, trusted } = door;
        let mut rate = Rate::new(limits.clients_per_second);
        let mut until = pin!(until);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut until => return,
                () = shared.draining.cancelled() => return,
            };
            let (tcp, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_if_exhausted(listener, &error).await;
                    continue;
                }
            };
            shared.counters.connections_accepted.increment();
            let taken = match trusted {
                Some(trusted) if !contains(trusted, client) => Err(Refusal::Untrusted),
                _ if !rate.admits(Instant::now()) => Err(Refusal::TooFast),
                _ => places.take(limits.clients_max).ok_or(Refusal::Full),
            };
            match taken {
                Ok(taken) => {
                    let active = Present::new(&shared.counters.connections_active);
                    let place = Place { _taken: taken, _active: active };
                    shared.connections.spawn(connection(Admitted { tcp, client, place }));
                }
                Err(reason) => {
                    shared.counters.refuse(reason);
                    tracing::debug!(%client, %reason, "refused");
                    reset(tcp);
                }
            }
        }
    }
}

/// Whether one of the networks has the address.
pub(crate) fn contains(networks: &[IpNet], address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// The addresses of a connection as its listener sees them.
pub(crate) fn addresses_of(tcp: &TcpStream, client: SocketAddr) -> Option<ClientAddresses> {
    // Fails only if the connection is gone already, which is told elsewhere.
    let destination = tcp.local_addr().ok()?;
    Some(ClientAddresses { source: client, destination })
}

/// A connection that failed before it was accepted is nothing to us; having run out of something is.
async fn pause_if_exhausted(listener: &TcpListener, error: &io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
        _ => {
            let listen = listener.local_addr().ok();
            tracing::warn!(?listen, %error, "cannot accept connections");
            tokio::time::sleep(EXHAUSTED_PAUSE).await;
        }
    }
}
