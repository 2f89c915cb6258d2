//! The listening side of UDP: each client, by its source address, has one flow.
//!
//! ```text
//! socket --> reader --> queue of the client (64) --> its task --> flow --> mesh
//!    ^-------------------------------------------------'  ^---------'
//! ```
//!
//! One task reads the socket and finds the client; each client has a task that owns its flow and answers
//! by the same socket ([`crate::clients`]).
//!
//! Behind a proxy that writes PROXY headers, a source address is the proxy's. If only the first datagram has a
//! header, the proxy must use a port for each client. If every datagram has one, clients are told apart by it,
//! too, and one port may serve many of them, as long as the proxy knows answers apart.
//!
//! On a host with several addresses, listen on one of them and not on all, for otherwise the kernel
//! chooses which address answers come from.
//!
//! What a forward is for may change while it listens ([`crate::port`]). Clients that have a flow keep it as it was
//! begun, until they are idle.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use overway_session::ClientAddresses;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::DATAGRAM_BYTES_MAX;
use crate::clients::{Client, Clients, Way};
use crate::config::{FLOW_IDLE_TIMEOUT, ForwardConfig, Limits, ProxyProtocol};
use crate::listener::contains;
use crate::open::{self, Shared};
use crate::port::Use;
use crate::proxy::{self, HEADER_BYTES_MAX, Transport};
use crate::stats::DatagramDrop;

/// A UDP forward as it is for now.
pub(crate) struct UdpForward {
    way: Arc<Way>,
    /// Where it listens.
    local: Option<SocketAddr>,
    limits: Limits,
    proxy_protocol: Option<ProxyProtocol>,
    trusted: Vec<IpNet>,
    shared: Arc<Shared>,
}

/// What tells clients apart: where they are, and whom the header of each datagram tells of.
type Key = (SocketAddr, Option<ClientAddresses>);

impl UdpForward {
    fn new(socket: Arc<UdpSocket>, config: ForwardConfig, shared: Arc<Shared>) -> Self {
        let ForwardConfig { service, policy, redundancy, idle_timeout, .. } = config;
        let to = open::Way { service, policy, redundancy };
        let local = socket.local_addr().ok();
        let idle_timeout = idle_timeout.unwrap_or(FLOW_IDLE_TIMEOUT);
        let way = Arc::new(Way { socket, to, idle_timeout });
        let ForwardConfig { limits, proxy_protocol, trusted, .. } = config;
        Self { way, local, limits, proxy_protocol, trusted, shared }
    }

    /// Carries datagrams for what the socket is for, until it is for nothing or the gateway ends. Clients' tasks end
    /// with it.
    pub(crate) async fn run(
        socket: UdpSocket,
        mut uses: watch::Receiver<Option<Use>>,
        shared: Arc<Shared>,
    ) {
        let (socket, mut clients) = (Arc::new(socket), Clients::new(Arc::clone(&shared)));
        loop {
            let now = uses.borrow_and_update().clone();
            // SOCKS listens on TCP.
            let Some(Use::Forward(config)) = now else { break };
            let forward =
                Self::new(Arc::clone(&socket), ForwardConfig::clone(&config), Arc::clone(&shared));
            clients.limit(forward.limits);
            tokio::select! {
                () = forward.carry(&mut clients) => break,
                // Without a gateway there is nobody who could change it.
                changed = uses.changed() => if changed.is_err() { break },
            }
        }
        clients.end().await;
    }

    /// Carries datagrams until the gateway ends.
    async fn carry(&self, clients: &mut Clients<Key>) {
        // One byte more, so that a datagram which is too long is seen to be.
        let mut buffer = vec![0; HEADER_BYTES_MAX + DATAGRAM_BYTES_MAX + 1];
        loop {
            tokio::select! {
                received = self.way.socket.recv_from(&mut buffer) => match received {
                    Ok((count, source)) => {
                        self.handle_datagram(clients, source, &buffer[..count]);
                    }
                    // An earlier answer did not reach its client; the next datagram is not concerned.
                    Err(error) => tracing::debug!(%error, "a UDP socket was told of an error"),
                },
                () = clients.forget_ended() => {}
                () = self.shared.ending.cancelled() => return,
            }
        }
    }

    fn handle_datagram(&self, clients: &mut Clients<Key>, source: SocketAddr, datagram: &[u8]) {
        let own = self.local.map(|destination| ClientAddresses { source, destination });
        let Some(mode) = self.proxy_protocol else {
            return clients
                .handle_datagram((source, None), datagram, || Ok(self.client(source, own)));
        };
        if !contains(&self.trusted, source) {
            return self.shared.counters.discard(DatagramDrop::Untrusted, 1);
        }
        if mode != ProxyProtocol::UdpEvery && clients.has(&(source, None)) {
            // If the client is gone this very moment, nobody knows whose the datagram is.
            let gone = || Err(DatagramDrop::ProxyHeader);
            return clients.handle_datagram((source, None), datagram, gone);
        }
        let Ok((told, length)) = proxy::decode(datagram, Transport::Datagram) else {
            return self.shared.counters.discard(DatagramDrop::ProxyHeader, 1);
        };
        let key = (source, told.filter(|_| mode == ProxyProtocol::UdpEvery));
        let client = || Ok(self.client(source, told.or(own)));
        clients.handle_datagram(key, &datagram[length..], client);
    }

    fn client(&self, address: SocketAddr, addresses: Option<ClientAddresses>) -> Client {
        let (way, prefix) = (Arc::clone(&self.way), Bytes::new());
        Client { way, address, addresses, target: None, prefix }
    }
}
