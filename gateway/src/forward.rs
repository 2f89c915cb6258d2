//! The listening side of TCP: each accepted connection becomes one session stream.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overway_session::Terms;
use overway_wire::Class;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::ForwardConfig;
use crate::open::{self, Shared, open_first};
use crate::splice::{reset, socket_error, splice};
use crate::stats::{Present, Refusal};

/// Pause after the process has run out of descriptors or memory, so that the listener does not spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A bound TCP forward.
pub(crate) struct TcpForward {
    listener: TcpListener,
    config: ForwardConfig,
    shared: Arc<Shared>,
}

/// What a forward's connections need of it.
struct Way {
    to: open::Way,
    class: Class,
    shared: Arc<Shared>,
}

impl TcpForward {
    pub(crate) fn new(listener: TcpListener, config: ForwardConfig, shared: Arc<Shared>) -> Self {
        Self { listener, config, shared }
    }

    /// Accepts until the gateway drains.
    pub(crate) async fn run(self) {
        let Self { listener, config, shared } = self;
        let places = Arc::new(Semaphore::new(config.clients_max));
        let ForwardConfig { service, policy, redundancy, .. } = config;
        let to = open::Way { service, policy, redundancy };
        let way = Arc::new(Way { to, class: config.class, shared });
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = way.shared.draining.cancelled() => return,
            };
            match accepted {
                Ok((tcp, client)) => admit(&way, &places, tcp, client),
                Err(error) => pause_if_exhausted(config.listen, &error).await,
            }
        }
    }
}

/// Starts the connection's task if there is a place for it.
fn admit(way: &Arc<Way>, places: &Arc<Semaphore>, tcp: TcpStream, client: SocketAddr) {
    let counters = &way.shared.counters;
    counters.connections_accepted.increment();
    match Arc::clone(places).try_acquire_owned() {
        Ok(place) => {
            way.shared.connections.spawn(connect(Arc::clone(way), tcp, client, place));
        }
        Err(_) => {
            counters.refuse(Refusal::Full);
            tracing::debug!(service = way.to.service, %client, reason = %Refusal::Full, "refused");
            reset(tcp);
        }
    }
}

/// One connection, from its opening to its end.
async fn connect(way: Arc<Way>, tcp: TcpStream, client: SocketAddr, _place: OwnedSemaphorePermit) {
    let shared = &*way.shared;
    let _active = Present::new(&shared.counters.connections_active);
    let open = open_first(shared, &way.to, |far, policy| {
        shared.endpoint.open_stream(far, Terms::new(way.class, policy), &way.to.service)
    });
    let opened = tokio::select! {
        opened = open => opened,
        _ = socket_error(&tcp) => Err(Refusal::ClientLeft),
        () = shared.ending.cancelled() => Err(Refusal::Stopping),
    };
    match opened {
        Ok(stream) => {
            let end = splice(shared, tcp, stream).await;
            tracing::debug!(service = way.to.service, %client, ?end, "over");
        }
        Err(reason) => {
            shared.counters.refuse(reason);
            tracing::debug!(service = way.to.service, %client, %reason, "refused");
            reset(tcp);
        }
    }
}

/// A connection that failed before it was accepted is nothing to us; having run out of something is.
async fn pause_if_exhausted(listen: SocketAddr, error: &io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
        _ => {
            tracing::warn!(%listen, %error, "cannot accept connections");
            tokio::time::sleep(EXHAUSTED_PAUSE).await;
        }
    }
}
