//! The gateway as a whole: binding, tasks, shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overway_session::{Candidates, SessionEndpoint};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ForwardConfig, GatewayConfig, Protocol, SocksConfig};
use crate::forward::TcpForward;
use crate::open::{Complaints, Resolver, Shared};
use crate::service::Services;
use crate::socket::{FORWARD_BUFFER_BYTES, bind_udp, listen_tcp};
use crate::socks::{PasswordError, Socks, Users};
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
    /// The service to which it leads; `None`: SOCKS, to what its clients ask for.
    pub service: Option<String>,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address cannot be listened on.
    #[error("cannot listen on {protocol} {address}: {source}")]
    Listen {
        /// The protocol.
        protocol: Protocol,
        /// The address, as configured.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A password cannot be read.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

/// A listener that is bound and does not run yet.
enum Bound {
    Tcp(TcpListener, ForwardConfig),
    Udp(UdpSocket, ForwardConfig),
    Socks(TcpListener, SocksConfig, Users),
}

impl Gateway {
    /// Binds every listener, then starts to carry. Either all addresses are bound or none stays so.
    ///
    /// The gateway is the only one that accepts from `endpoint`; closing the endpoint is left to the caller,
    /// after the shutdown.
    ///
    /// # Errors
    /// Names the first address that cannot be bound, or password that cannot be read.
    pub async fn bind(
        config: GatewayConfig,
        endpoint: SessionEndpoint,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Self, BindError> {
        let GatewayConfig { services, forwards, socks } = config;
        let mut listeners = Vec::with_capacity(forwards.len() + socks.len());
        for forward in forwards {
            listeners.push(Bound::forward(forward)?);
        }
        for socks in socks {
            listeners.push(Bound::socks(socks)?);
        }
        let shared = Arc::new(Shared {
            endpoint,
            resolver,
            counters: Counters::default(),
            complaints: Complaints::default(),
            candidates: Candidates::default(),
            connections: TaskTracker::new(),
            background: TaskTracker::new(),
            draining: CancellationToken::new(),
            ending: CancellationToken::new(),
        });
        let mut listening = Vec::with_capacity(listeners.len());
        for (bound, address) in listeners {
            listening.push(address);
            bound.start(&shared);
        }
        let services = Services::new(services, Arc::clone(&shared));
        shared.background.spawn(services.run());
        Ok(Self { shared, listening })
    }

    /// The listening sockets: the forwards in the order of the configuration, then the SOCKS listeners.
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
    fn forward(forward: ForwardConfig) -> Result<(Self, Listening), BindError> {
        let ForwardConfig { protocol, listen, .. } = forward;
        let service = Some(forward.service.clone());
        let bound = match protocol {
            Protocol::Tcp => listen_tcp(listen)
                .and_then(|listener| Ok((listener.local_addr()?, Self::Tcp(listener, forward)))),
            Protocol::Udp => bind_udp(listen, FORWARD_BUFFER_BYTES)
                .and_then(|socket| Ok((socket.local_addr()?, Self::Udp(socket, forward)))),
        };
        match bound {
            Ok((address, bound)) => Ok((bound, Listening { protocol, address, service })),
            Err(source) => Err(BindError::Listen { protocol, address: listen, source }),
        }
    }

    fn socks(config: SocksConfig) -> Result<(Self, Listening), BindError> {
        let users = Users::load(&config.users)?;
        let (protocol, listen) = (Protocol::Tcp, config.listen);
        let bound = listen_tcp(listen).and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((address, listener)) => {
                let listening = Listening { protocol, address, service: None };
                Ok((Self::Socks(listener, config, users), listening))
            }
            Err(source) => Err(BindError::Listen { protocol, address: listen, source }),
        }
    }

    fn start(self, shared: &Arc<Shared>) {
        let (ours, tasks) = (Arc::clone(shared), &shared.background);
        match self {
            Self::Tcp(listener, config) => {
                tasks.spawn(TcpForward::new(listener, config, ours).run());
            }
            Self::Udp(socket, config) => {
                tasks.spawn(UdpForward::new(socket, config, ours).run());
            }
            Self::Socks(listener, config, users) => {
                tasks.spawn(Socks::new(listener, config, users, ours).run());
            }
        }
    }
}
