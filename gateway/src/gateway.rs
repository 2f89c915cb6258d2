//! The gateway as a whole: binding, tasks, shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overway_session::SessionEndpoint;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ForwardConfig, GatewayConfig, Protocol};
use crate::forward::TcpForward;
use crate::open::{Complaints, Resolver, Shared, Shunned};
use crate::service::Services;
use crate::socket::{FORWARD_BUFFER_BYTES, bind_udp, listen_tcp};
use crate::stats::{Counters, Stats};
use crate::udp::UdpForward;

/// A running gateway. Dropping it ends everything at once; [`Self::shutdown`] is the gentle way.
pub struct Gateway {
    shared: Arc<Shared>,
    listening: Vec<Listening>,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The protocol.
    pub protocol: Protocol,
    /// The address, with the port that was chosen if the configuration says 0.
    pub address: SocketAddr,
    /// The service to which it leads.
    pub service: String,
}

/// An address of a forward cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {protocol} {address}: {source}")]
pub struct BindError {
    /// The protocol.
    pub protocol: Protocol,
    /// The address, as configured.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// A bound forward whose task does not run yet.
enum Bound {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Gateway {
    /// Binds every forward, then starts to carry. Either all addresses are bound or none stays so.
    ///
    /// The gateway is the only one that accepts from `endpoint`; closing the endpoint is left to the caller,
    /// after the shutdown.
    ///
    /// # Errors
    /// Names the first address that cannot be bound.
    pub async fn bind(
        config: GatewayConfig,
        endpoint: SessionEndpoint,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Self, BindError> {
        let mut forwards = Vec::with_capacity(config.forwards.len());
        let mut listening = Vec::with_capacity(config.forwards.len());
        for forward in config.forwards {
            let (bound, address) = Bound::new(&forward)?;
            let (protocol, service) = (forward.protocol, forward.service.clone());
            listening.push(Listening { protocol, address, service });
            forwards.push((bound, forward));
        }
        let shared = Arc::new(Shared {
            endpoint,
            resolver,
            counters: Counters::default(),
            complaints: Complaints::default(),
            shunned: Shunned::default(),
            connections: TaskTracker::new(),
            background: TaskTracker::new(),
            draining: CancellationToken::new(),
            ending: CancellationToken::new(),
        });
        for (bound, forward) in forwards {
            bound.start(forward, &shared);
        }
        let services = Services::new(config.services, Arc::clone(&shared));
        shared.background.spawn(services.run());
        Ok(Self { shared, listening })
    }

    /// The listening sockets, in the order of the configuration.
    pub fn local_addrs(&self) -> &[Listening] {
        &self.listening
    }

    /// What was counted until now.
    pub fn stats(&self) -> Stats {
        self.shared.counters.snapshot()
    }

    /// Stops listening and answers no to new requests at once; waits until running TCP connections have
    /// finished, at most for `grace`; then ends what is left, TCP connections by reset. UDP clients, which
    /// have no end to wait for, are served until then.
    pub async fn shutdown(self, grace: Duration) {
        let Shared { connections, background, draining, ending, .. } = &*self.shared;
        draining.cancel();
        connections.close();
        if timeout(grace, connections.wait()).await.is_err() {
            tracing::info!(
                connections = connections.len(),
                "ends connections after the grace period"
            );
        }
        ending.cancel();
        connections.wait().await;
        background.close();
        background.wait().await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.draining.cancel();
        self.shared.ending.cancel();
    }
}

impl Bound {
    fn new(forward: &ForwardConfig) -> Result<(Self, SocketAddr), BindError> {
        let &ForwardConfig { protocol, listen: address, .. } = forward;
        let bound = match protocol {
            Protocol::Tcp => listen_tcp(address)
                .and_then(|listener| Ok((listener.local_addr()?, Self::Tcp(listener)))),
            Protocol::Udp => bind_udp(address, FORWARD_BUFFER_BYTES)
                .and_then(|socket| Ok((socket.local_addr()?, Self::Udp(socket)))),
        };
        match bound {
            Ok((local, bound)) => Ok((bound, local)),
            Err(source) => Err(BindError { protocol, address, source }),
        }
    }

    fn start(self, forward: ForwardConfig, shared: &Arc<Shared>) {
        let ours = Arc::clone(shared);
        match self {
            Self::Tcp(listener) => {
                shared.background.spawn(TcpForward::new(listener, forward, ours).run());
            }
            Self::Udp(socket) => {
                shared.background.spawn(UdpForward::new(socket, forward, ours).run());
            }
        }
    }
}
