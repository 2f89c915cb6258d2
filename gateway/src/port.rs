//! Listening sockets, and what each is for, which a reload may change while it listens.
//!
//! ```text
//! reload --watch--> port's task: accept for this use --changed--> accept for the next --None--> close the socket
//! ```
//!
//! Connections have tasks of their own and go on as they were begun, whatever becomes of the port. Clients of a UDP
//! port go on so too, but end with it, for they share its socket.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{ForwardConfig, Protocol};
use crate::gateway::{BindError, Listening};
use crate::listener::Listener;
use crate::open::Shared;
use crate::socket::{FORWARD_BUFFER_BYTES, bind_udp, listen_tcp};
use crate::udp::UdpForward;
use crate::{forward, socks};

/// What a port is for.
#[derive(Clone)]
pub(crate) enum Use {
    Forward(Arc<ForwardConfig>),
    Socks(Arc<socks::Context>),
}

/// What tells ports apart: the protocol and the address as configured. Those whose port the system chooses are told
/// apart by their order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortKey {
    pub(crate) protocol: Protocol,
    pub(crate) listen: SocketAddr,
}

/// A bound socket that nobody serves yet.
pub(crate) struct Bound {
    key: PortKey,
    address: SocketAddr,
    socket: Socket,
}

enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// A socket that is served.
pub(crate) struct Port {
    pub(crate) key: PortKey,
    address: SocketAddr,
    uses: watch::Sender<Option<Use>>,
    task: JoinHandle<()>,
}

impl Use {
    /// The service to which it leads; `None`: what its clients ask for.
    fn service(&self) -> Option<&str> {
        match self {
            Self::Forward(config) => Some(&config.service),
            Self::Socks(_) => None,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Forward(one), Self::Forward(other)) => one == other,
            (Self::Socks(one), Self::Socks(other)) => one.is_same(other),
            (Self::Forward(_) | Self::Socks(_), Self::Forward(_) | Self::Socks(_)) => false,
        }
    }
}

impl Bound {
    pub(crate) fn new(key: PortKey) -> Result<Self, BindError> {
        let PortKey { protocol, listen } = key;
        let bound = match protocol {
            Protocol::Tcp => {
                listen_tcp(listen).and_then(|tcp| Ok((tcp.local_addr()?, Socket::Tcp(tcp))))
            }
            Protocol::Udp => bind_udp(listen, FORWARD_BUFFER_BYTES)
                .and_then(|udp| Ok((udp.local_addr()?, Socket::Udp(udp)))),
        };
        let named = |source| BindError::Listen { protocol, address: listen, source };
        let (address, socket) = bound.map_err(named)?;
        Ok(Self { key, address, socket })
    }

    /// Begins to serve it.
    pub(crate) fn start(self, now: Use, shared: &Arc<Shared>) -> Port {
        let Self { key, address, socket } = self;
        let (uses, changing) = watch::channel(Some(now));
        let (tasks, ours) = (&shared.background, Arc::clone(shared));
        let task = match socket {
            Socket::Tcp(tcp) => tasks.spawn(serve_tcp(Listener::new(tcp, ours), changing)),
            Socket::Udp(udp) => tasks.spawn(UdpForward::run(udp, changing, ours)),
        };
        Port { key, address, uses, task }
    }
}

impl Port {
    /// What it is for from now on; says whether that is another.
    pub(crate) fn turn(&self, next: Use) -> bool {
        self.uses.send_if_modified(|held| {
            let is_other = held.as_ref().is_none_or(|held| !held.is_same(&next));
            if is_other {
                *held = Some(next);
            }
            is_other
        })
    }

    /// Listens no more; returns once the socket is closed.
    pub(crate) async fn close(self) {
        self.uses.send_replace(None);
        // A panic there has been printed already.
        let _ = self.task.await;
    }

    /// The socket and to which service it leads.
    pub(crate) fn listening(&self) -> Listening {
        let service = self.uses.borrow().as_ref().and_then(Use::service).map(str::to_owned);
        Listening { protocol: self.key.protocol, address: self.address, service }
    }
}

/// For people.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listening { protocol, address, service } = self.listening();
        match service {
            Some(service) => write!(f, "forward {protocol} {address} to {service}"),
            None => write!(f, "SOCKS5 {address}"),
        }
    }
}

async fn serve_tcp(listener: Listener, mut uses: watch::Receiver<Option<Use>>) {
    while !listener.shared().draining.is_cancelled() {
        let now = uses.borrow_and_update().clone();
        // Without a gateway there is nobody who could change it, and it drains.
        let changed = async { drop(uses.changed().await) };
        match now {
            Some(Use::Forward(config)) => forward::run(&listener, &config, changed).await,
            Some(Use::Socks(context)) => socks::run(&listener, &context, changed).await,
            None => return,
        }
    }
}
