//! The gateway as a whole: binding, reloading, tasks, shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overway_session::SessionEndpoint;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ForwardConfig, GatewayConfig, Protocol, SocksConfig};
use crate::open::{Complaints, Resolver, Shared};
use crate::port::{Bound, Port, PortKey, Use};
use crate::service::Services;
use crate::socks::{self, PasswordError};
use crate::stats::{Counters, Stats};

/// A running gateway. Dropping it ends everything at once; [`Self::shutdown`] is the gentle way.
pub struct Gateway {
    shared: Arc<Shared>,
    services: Arc<Services>,
    /// The forwards in the order of the configuration, then the SOCKS listeners.
    ports: Mutex<Vec<Port>>,
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

/// What is to be served: by a port that is there, or by a new one.
enum Serving {
    Held(usize),
    New(Bound),
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
        let shared = Arc::new(Shared {
            endpoint,
            resolver,
            counters: Counters::default(),
            complaints: Complaints::default(),
            connections: TaskTracker::new(),
            background: TaskTracker::new(),
            draining: CancellationToken::new(),
            ending: CancellationToken::new(),
        });
        let services = Arc::new(Services::new(Arc::clone(&shared)));
        let gateway = Self { shared, services: Arc::clone(&services), ports: Mutex::default() };
        gateway.reload(config).await?;
        gateway.shared.background.spawn(services.run());
        Ok(gateway)
    }

    /// Goes on with another configuration; says what is another, for people. Listeners and services that are in both
    /// stay, and take newcomers as the new one says. Connections go on as they were begun, those of what is removed
    /// too; but clients of a UDP listener end with it. Passwords in files are read again.
    ///
    /// # Errors
    /// As [`Self::bind`]; nothing has changed then.
    pub async fn reload(&self, config: GatewayConfig) -> Result<Vec<String>, BindError> {
        let (mut changes, removed) = self.change(config)?;
        for port in removed {
            changes.push(format!("{port} removed"));
            port.close().await;
        }
        Ok(changes)
    }

    /// Changes everything but for closing the ports that are no longer wanted.
    fn change(&self, config: GatewayConfig) -> Result<(Vec<String>, Vec<Port>), BindError> {
        let GatewayConfig { services, forwards, socks } = config;
        let wanted = self.wanted(forwards, &socks)?;
        let mut ports = self.ports();
        let serving = serving(&ports, &wanted)?;
        // Nothing fails from here on.
        let mut held: Vec<Option<Port>> = ports.drain(..).map(Some).collect();
        let mut changes = Vec::new();
        for (serving, (_, next)) in serving.into_iter().zip(wanted) {
            let port = match serving {
                Serving::Held(at) => {
                    let port = held[at].take().expect("each is named once");
                    if port.turn(next) {
                        changes.push(format!("{port} changed"));
                    }
                    port
                }
                Serving::New(bound) => {
                    let port = bound.start(next, &self.shared);
                    changes.push(format!("{port} added"));
                    port
                }
            };
            ports.push(port);
        }
        changes.extend(self.services.list(services));
        Ok((changes, held.into_iter().flatten().collect()))
    }

    /// What is to be listened on, and for what.
    fn wanted(
        &self,
        forwards: Vec<ForwardConfig>,
        socks: &[SocksConfig],
    ) -> Result<Vec<(PortKey, Use)>, PasswordError> {
        let forward = |config: ForwardConfig| {
            let key = PortKey { protocol: config.protocol, listen: config.listen };
            Ok((key, Use::Forward(Arc::new(config))))
        };
        let socks = socks.iter().map(|config| {
            let key = PortKey { protocol: Protocol::Tcp, listen: config.listen };
            Ok((key, Use::Socks(Arc::new(socks::Context::new(config, &self.shared)?))))
        });
        forwards.into_iter().map(forward).chain(socks).collect()
    }

    fn ports(&self) -> MutexGuard<'_, Vec<Port>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listening sockets: the forwards in the order of the configuration, then the SOCKS listeners.
    pub fn local_addrs(&self) -> Vec<Listening> {
        self.ports().iter().map(Port::listening).collect()
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

/// Finds the ports that serve what is wanted, and binds those that are not there.
fn serving(ports: &[Port], wanted: &[(PortKey, Use)]) -> Result<Vec<Serving>, BindError> {
    let mut free: Vec<bool> = vec![true; ports.len()];
    let serve = |(key, _): &(PortKey, Use)| {
        let held = ports.iter().zip(&free).position(|(port, &free)| free && port.key == *key);
        match held {
            Some(at) => {
                free[at] = false;
                Ok(Serving::Held(at))
            }
            None => Bound::new(*key).map(Serving::New),
        }
    };
    wanted.iter().map(serve).collect()
}
