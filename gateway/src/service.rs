//! The offering side: what other relays' gateways ask for is connected to the target that the
//! configuration lists under that name, or refused.
//!
//! The target is connected first and the stream or flow accepted then, so that an opener that is told
//! yes has a target that answers. UDP targets cannot be asked; there, yes means that the name is listed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use overway_session::{Flow, Incoming, IncomingFlow, IncomingStream};
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::DATAGRAM_BYTES_MAX;
use crate::config::{Protocol, ServiceConfig};
use crate::flow::{Idle, send};
use crate::open::Shared;
use crate::splice::{reset, splice};
use crate::stats::{Counters, DatagramDrop, Present, Refusal};
use crate::target::Unreached;

/// The services of a gateway.
pub(crate) struct Services {
    tcp: BTreeMap<String, Arc<Service>>,
    udp: BTreeMap<String, Arc<Service>>,
    shared: Arc<Shared>,
}

/// One service and its places.
struct Service {
    config: ServiceConfig,
    places: Arc<Semaphore>,
}

impl Services {
    pub(crate) fn new(configs: Vec<ServiceConfig>, shared: Arc<Shared>) -> Self {
        let (mut tcp, mut udp) = (BTreeMap::new(), BTreeMap::new());
        for config in configs {
            let of_protocol = match config.protocol {
                Protocol::Tcp => &mut tcp,
                Protocol::Udp => &mut udp,
            };
            let places = Arc::new(Semaphore::new(config.clients_max));
            of_protocol.insert(config.name.clone(), Arc::new(Service { config, places }));
        }
        Self { tcp, udp, shared }
    }

    /// Answers requests until the endpoint closes or the gateway ends. While it drains, answers are no,
    /// so that the openers try another relay.
    pub(crate) async fn run(self) {
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
        match self.admit(&self.tcp, stream.service()) {
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
        match self.admit(&self.udp, flow.service()) {
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

    fn admit(
        &self,
        listed: &BTreeMap<String, Arc<Service>>,
        name: &str,
    ) -> Result<(Arc<Service>, OwnedSemaphorePermit), Refusal> {
        if self.shared.draining.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        let service = listed.get(name).ok_or(Refusal::Unlisted)?;
        match Arc::clone(&service.places).try_acquire_owned() {
            Ok(place) => Ok((Arc::clone(service), place)),
            Err(_) => Err(Refusal::Full),
        }
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
    _place: OwnedSemaphorePermit,
    incoming: IncomingStream,
) {
    let config = &service.config;
    let _active = Present::new(&shared.counters.connections_active);
    let connected = tokio::select! {
        connected = config.target.connect_tcp(config.connect_timeout) => connected,
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
            let end = splice(&shared, tcp, stream).await;
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
    _place: OwnedSemaphorePermit,
    incoming: IncomingFlow,
) {
    let config = &service.config;
    let _active = Present::new(&shared.counters.flows_active);
    let carried = async {
        let socket = match config.target.connect_udp(config.connect_timeout).await {
            Ok(socket) => socket,
            Err(unreached) => {
                note_unreached(&shared, config, &unreached);
                refuse(Incoming::Flow(incoming), unreached.refusal).await;
                return;
            }
        };
        match incoming.accept().await {
            Ok(flow) => {
                shared.counters.flows_served.increment();
                carry_datagrams(&shared.counters, &socket, flow, config.idle_timeout).await;
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

async fn carry_datagrams(counters: &Counters, socket: &UdpSocket, flow: Flow, idle: Duration) {
    let mut idle = Idle::new(idle);
    // One byte more, so that a datagram which is too long is seen to be.
    let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
    loop {
        tokio::select! {
            asked = flow.recv() => match asked {
                Some(datagram) => {
                    idle.touch();
                    hand_over(counters, socket, &datagram).await;
                }
                None => return,
            },
            answered = socket.recv(&mut buffer) => match answered {
                Ok(count) => {
                    idle.touch();
                    if !send(&flow, &buffer[..count], counters) {
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

async fn hand_over(counters: &Counters, socket: &UdpSocket, datagram: &[u8]) {
    match socket.send(datagram).await {
        Ok(count) => counters.sent_from_mesh(count),
        Err(error) => {
            tracing::trace!(%error, "a datagram was not sent to its target");
            counters.discard(DatagramDrop::Socket, 1);
        }
    }
}
