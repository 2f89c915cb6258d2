//! The offering side: what other relays' gateways ask for is connected to the target that the
//! configuration lists under that name, or refused.
//!
//! The target is connected first and the stream or flow accepted then, so that an opener that is told
//! yes has a target that answers. UDP targets cannot be asked; there, yes means that the name is listed.
//!
//! The list may change while the gateway runs. What was accepted goes on as it was begun.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use overway_session::{Asked, ClientAddresses, Flow, Incoming, IncomingFlow, IncomingStream, Peer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

use crate::DATAGRAM_BYTES_MAX;
use crate::config::{FLOW_IDLE_TIMEOUT, Protocol, ProxyProtocol, ServiceConfig};
use crate::flow::send;
use crate::idle::Idle;
use crate::open::Shared;
use crate::places::{Places, Taken};
use crate::proxy::{self, Transport};
use crate::splice::{reset, splice};
use crate::stats::{Counters, DatagramDrop, Present, Refusal};
use crate::target::Unreached;

/// The services of a gateway.
pub(crate) struct Services {
    listed: RwLock<Listed>,
    shared: Arc<Shared>,
}

/// By protocol and name.
type Listed = BTreeMap<(Protocol, String), Arc<Service>>;

/// One service and its places.
struct Service {
    config: ServiceConfig,
    places: Places,
}

impl Services {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { listed: RwLock::default(), shared }
    }

    /// Lists these and no others from now on. Says what is another than before, for people.
    pub(crate) fn list(&self, configs: Vec<ServiceConfig>) -> Vec<String> {
        let mut listed = self.listed.write().unwrap_or_else(PoisonError::into_inner);
        let (mut now, mut changes) = (Listed::new(), Vec::new());
        for config in configs {
            let key = (config.protocol, config.name.clone());
            let held = listed.remove(&key);
            let change = match &held {
                None => Some("added"),
                Some(held) if held.config == config => None,
                Some(_) => Some("changed"),
            };
            changes.extend(change.map(|change| format!("service {} ({}) {change}", key.1, key.0)));
            let places = held.map(|held| held.places.clone()).unwrap_or_default();
            now.insert(key, Arc::new(Service { config, places }));
        }
        changes.extend(listed.keys().map(|(of, name)| format!("service {name} ({of}) removed")));
        *listed = now;
        changes
    }

    /// Answers requests until the endpoint closes or the gateway ends. While it drains, answers are no,
    /// so that the openers try another relay.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let incoming = tokio::select! {
                incoming = self.shared.endpoint.accept() => incoming,
                () = self.shared.ending.cancelled() => return,
            };
            match incoming {
                Some(Incoming::Stream(stream)) => self.handle_stream(stream),
                Some(Incoming::Flow(flow)) => self.handle_flow(flow),
                None => return,
            }
        }
    }

    fn handle_stream(&self, stream: IncomingStream) {
        match self.admit(Protocol::Tcp, stream.service()) {
            Ok((service, place)) => {
                let shared = Arc::clone(&self.shared);
                self.shared.connections.spawn(serve_stream(shared, service, place, stream));
            }
            Err(reason) => {
                note_refusal(&self.shared, stream.service(), reason);
                self.shared.background.spawn(refuse(Incoming::Stream(stream), reason));
            }
        }
    }

    fn handle_flow(&self, flow: IncomingFlow) {
        match self.admit(Protocol::Udp, flow.service()) {
            Ok((service, place)) => {
                let shared = Arc::clone(&self.shared);
                self.shared.background.spawn(serve_flow(shared, service, place, flow));
            }
            Err(reason) => {
                note_refusal(&self.shared, flow.service(), reason);
                self.shared.background.spawn(refuse(Incoming::Flow(flow), reason));
            }
        }
    }

    fn admit(&self, protocol: Protocol, name: &str) -> Result<(Arc<Service>, Taken), Refusal> {
        if self.shared.draining.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        let listed = self.listed.read().unwrap_or_else(PoisonError::into_inner);
        let service = listed.get(&(protocol, name.to_owned())).ok_or(Refusal::Unlisted)?;
        let taken = service.places.take(service.config.clients_max).ok_or(Refusal::Full)?;
        Ok((Arc::clone(service), taken))
    }
}

async fn refuse(incoming: Incoming, reason: Refusal) {
    incoming.refuse(&reason.to_string()).await;
}

fn note_refusal(shared: &Shared, service: &str, reason: Refusal) {
    shared.counters.refuse(reason);
    tracing::debug!(service, %reason, "refused");
}

fn note_unreached(
    shared: &Shared,
    config: &ServiceConfig,
    Unreached { refusal, error }: &Unreached,
) {
    shared.counters.refuse(*refusal);
    tracing::debug!(service = config.name, target = %config.target, %error, reason = %refusal, "refused");
}

/// One TCP connection to a target, from its opening to its end.
async fn serve_stream(
    shared: Arc<Shared>,
    service: Arc<Service>,
    _place: Taken,
    incoming: IncomingStream,
) {
    let config = &service.config;
    let _active = Present::new(&shared.counters.connections_active);
    let connected = tokio::select! {
        connected = connect_tcp(config, &incoming) => connected,
        () = shared.ending.cancelled() => return,
    };
    let tcp = match connected {
        Ok(tcp) => tcp,
        Err(unreached) => {
            note_unreached(&shared, config, &unreached);
            refuse(Incoming::Stream(incoming), unreached.refusal).await;
            return;
        }
    };
    let from = incoming.from();
    let accepted = tokio::select! {
        accepted = incoming.accept() => accepted,
        () = shared.ending.cancelled() => return,
    };
    match accepted {
        Ok(stream) => {
            shared.counters.connections_served.increment();
            let end = splice(&shared, tcp, stream, config.idle_timeout).await;
            tracing::debug!(service = config.name, %from, ?end, "over");
        }
        Err(error) => {
            shared.counters.refuse(Refusal::ClientLeft);
            tracing::debug!(service = config.name, %from, %error, "the opener left");
            reset(tcp);
        }
    }
}

/// One flow to a target, until it is idle, its session ends or the gateway does.
async fn serve_flow(
    shared: Arc<Shared>,
    service: Arc<Service>,
    _place: Taken,
    incoming: IncomingFlow,
) {
    let config = &service.config;
    let _active = Present::new(&shared.counters.flows_active);
    let carried = async {
        let target = incoming.target();
        let socket = match config.target.connect_udp(target, config.connect_timeout).await {
            Ok(socket) => socket,
            Err(unreached) => {
                note_unreached(&shared, config, &unreached);
                refuse(Incoming::Flow(incoming), unreached.refusal).await;
                return;
            }
        };
        let mut header = Header::new(config.proxy_protocol, told(config, &incoming));
        match incoming.accept().await {
            Ok(flow) => {
                shared.counters.flows_served.increment();
                let idle = Idle::new(config.idle_timeout.unwrap_or(FLOW_IDLE_TIMEOUT));
                carry_datagrams(&shared.counters, &socket, &flow, idle, &mut header).await;
            }
            Err(error) => {
                shared.counters.refuse(Refusal::ClientLeft);
                tracing::debug!(service = config.name, %error, "the opener left");
            }
        }
    };
    tokio::select! {
        () = carried => {}
        () = shared.ending.cancelled() => {}
    }
}

async fn carry_datagrams(
    counters: &Counters,
    socket: &UdpSocket,
    flow: &Flow,
    mut idle: Idle,
    header: &mut Header,
) {
    // One byte more, so that a datagram which is too long is seen to be.
    let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
    loop {
        tokio::select! {
            asked = flow.recv() => match asked {
                Some(datagram) => {
                    idle.touch();
                    hand_over(counters, socket, header, datagram).await;
                }
                None => return,
            },
            answered = socket.recv(&mut buffer) => match answered {
                Ok(count) => {
                    idle.touch();
                    if !send(flow, &buffer[..count], counters) {
                        return;
                    }
                }
                // An earlier datagram found nobody listening (ICMP); perhaps soon somebody will be.
                Err(error) => {
                    tracing::trace!(%error, "a target's socket was told of an error");
                    counters.discard(DatagramDrop::Socket, 1);
                }
            },
            () = idle.expired() => {
                counters.flows_expired.increment();
                return;
            }
        }
    }
}

async fn hand_over(counters: &Counters, socket: &UdpSocket, header: &mut Header, datagram: Bytes) {
    let length = datagram.len();
    match socket.send(&header.before(datagram)).await {
        Ok(_) => counters.sent_from_mesh(length),
        Err(error) => {
            tracing::trace!(%error, "a datagram was not sent to its target");
            counters.discard(DatagramDrop::Socket, 1);
        }
    }
}

/// Connects to the target, and tells it whose connection it is if it wants to know.
async fn connect_tcp(
    config: &ServiceConfig,
    incoming: &IncomingStream,
) -> Result<TcpStream, Unreached> {
    let mut tcp = config.target.connect_tcp(incoming.target(), config.connect_timeout).await?;
    if config.proxy_protocol.is_some() {
        let header = proxy::encode(told(config, incoming), Transport::Stream);
        // A new connection's buffer has room for it.
        tcp.write_all(&header).await.map_err(Unreached::refused)?;
    }
    Ok(tcp)
}

/// What the target is told of the client.
fn told(config: &ServiceConfig, asked: &Asked) -> Option<ClientAddresses> {
    config.told(asked.client(), asked.peer().map(Peer::name))
}

/// The PROXY headers of a flow's datagrams to their target.
struct Header {
    bytes: Vec<u8>,
    /// The datagrams that are still to have it; `None`: all.
    left: Option<u32>,
}

impl Header {
    fn new(mode: Option<ProxyProtocol>, client: Option<ClientAddresses>) -> Self {
        let left = match mode {
            None => Some(0),
            Some(ProxyProtocol::Tcp | ProxyProtocol::UdpFirst) => Some(1),
            Some(ProxyProtocol::UdpEvery) => None,
        };
        Self { bytes: proxy::encode(client, Transport::Datagram), left }
    }

    /// The datagram with what goes before it.
    fn before(&mut self, datagram: Bytes) -> Bytes {
        match &mut self.left {
            Some(0) => return datagram,
            Some(left) => *left -= 1,
            None => {}
        }
        [&*self.bytes, &*datagram].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_says_which_datagrams_have_a_header() {
        let header = proxy::encode(None, Transport::Datagram);
        let with_header = |mode| {
            let mut headers = Header::new(mode, None);
            [b"one", b"two"].map(|datagram| {
                let sent = headers.before(Bytes::from_static(datagram));
                assert!(sent.ends_with(datagram));
                sent.starts_with(&header)
            })
        };

        assert_eq!(with_header(None), [false, false]);
        assert_eq!(with_header(Some(ProxyProtocol::UdpFirst)), [true, false]);
        assert_eq!(with_header(Some(ProxyProtocol::UdpEvery)), [true, true]);
    }
}
