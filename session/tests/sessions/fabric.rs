//! A fake fabric between ends in one process: frames are lost, doubled, delayed and damaged by a seeded
//! generator. Addresses of edges may die, and a frame that names another goes there instead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use overway_pki::{Authority, Credentials, Identity, PendingKey, Role};
use overway_session::{
    EdgePort, FabricPort, FabricSender, Full, Inbound, Outbound, SessionConfig, SessionEndpoint,
};
use overway_wire::frame::FrameEcn;
use overway_wire::{
    Address, AttachmentId, Class, FlowId, FrameKind, Millis, PolicyId, RelayId, Whereabouts,
};
use tokio::sync::{mpsc, watch};

/// Frames that a port takes before it is full.
const CAPACITY: usize = 64;
/// How long a delayed frame stays behind.
const DELAY: Duration = Duration::from_millis(3);

/// Shares of frames that fare badly.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) lost: f64,
    pub(crate) doubled: f64,
    pub(crate) delayed: f64,
    /// Of session frames: one bit is flipped.
    pub(crate) garbled: f64,
    /// Of datagrams: one bit is flipped.
    pub(crate) damaged: f64,
}

/// A mesh's authority and the fabric that joins its ends.
pub(crate) struct Mesh {
    authority: Authority,
    hub: Arc<Hub>,
}

#[derive(Default)]
struct Hub {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ports: BTreeMap<RelayId, Port>,
    /// Relays that no frame gets to.
    deaf: BTreeSet<RelayId>,
    edges: Vec<Edge>,
    /// Addresses of edges that nothing leaves from and gets to.
    dead: BTreeSet<Address>,
    /// Whether edges send all they send by each of their addresses.
    doubling: bool,
    /// What passed, where somebody listens.
    tapped: Option<Vec<Tapped>>,
    faults: Faults,
    random: u64,
}

/// A frame as a relay on the way sees it.
#[derive(Clone, Debug)]
pub(crate) struct Tapped {
    pub(crate) source: Address,
    pub(crate) frame: Outbound,
}

struct Edge {
    addresses: Vec<Address>,
    deliver: mpsc::UnboundedSender<Vec<Inbound>>,
}

struct Port {
    wire: Arc<Wire>,
    deliver: mpsc::UnboundedSender<Vec<Inbound>>,
}

impl Mesh {
    pub(crate) fn new(seed: u64) -> Self {
        let hub = Arc::new(Hub::default());
        hub.state.lock().unwrap().random = seed;
        Self { authority: Authority::create("test").unwrap(), hub }
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.hub.state.lock().unwrap().faults = faults;
    }

    pub(crate) fn set_deaf(&self, relay: u16, deaf: bool) {
        let relays = &mut self.hub.state.lock().unwrap().deaf;
        if deaf {
            relays.insert(RelayId(relay));
        } else {
            relays.remove(&RelayId(relay));
        }
    }

    /// An endpoint at a relay. An earlier one there is cut off: it hears and sends nothing more.
    pub(crate) fn endpoint(&self, relay: u16) -> SessionEndpoint {
        self.endpoint_with(relay, SessionConfig::default())
    }

    pub(crate) fn endpoint_with(&self, relay: u16, config: SessionConfig) -> SessionEndpoint {
        SessionEndpoint::new(config, self.port(relay), self.credentials(relay)).unwrap()
    }

    /// Delivers a session frame that its source has not sent.
    pub(crate) fn forge(&self, source: u16, destination: u16, flow: FlowId, sequence: u64) {
        let [source, destination] =
            [source, destination].map(|id| Address::new(RelayId(id), AttachmentId::GATEWAY));
        let frame = Outbound {
            kind: FrameKind::Session,
            class: Class::Bulk,
            policy: PolicyId::default(),
            redundancy: overway_wire::Redundancy::default(),
            destination,
            alternate: None,
            flow,
            sequence,
            budget: Millis::default(),
            payload: vec![0x40; 40].into(),
        };
        self.hub.carry(source, frame);
    }

    /// The port of an edge that is attached at these addresses, and at more when it is told so.
    pub(crate) fn edge_port(
        &self,
        addresses: &[Address],
    ) -> (EdgePort, watch::Sender<Option<Whereabouts>>) {
        let (deliver, receiver) = deliveries();
        let wire = Arc::new(Wire::default());
        let state = &mut *self.hub.state.lock().unwrap();
        // An earlier edge there is cut off.
        for edge in &mut state.edges {
            edge.addresses.retain(|address| !addresses.contains(address));
        }
        let number = state.edges.len();
        state.edges.push(Edge { addresses: addresses.to_vec(), deliver });
        tokio::spawn(carry_of_edge(Arc::clone(&self.hub), number, Arc::clone(&wire)));
        let (told, whereabouts) = watch::channel(whereabouts(addresses));
        (EdgePort { sender: wire, receiver, whereabouts }, told)
    }

    /// Attaches the edge that is at `there` at `addresses` too.
    pub(crate) fn attach(&self, there: Address, addresses: &[Address]) {
        let state = &mut *self.hub.state.lock().unwrap();
        let mut edges = state.edges.iter_mut();
        let edge = edges.find(|edge| edge.addresses.contains(&there)).unwrap();
        edge.addresses.extend(addresses);
    }

    pub(crate) fn kill(&self, address: Address) {
        self.hub.state.lock().unwrap().dead.insert(address);
    }

    pub(crate) fn revive(&self, address: Address) {
        self.hub.state.lock().unwrap().dead.remove(&address);
    }

    pub(crate) fn set_doubling(&self, doubling: bool) {
        self.hub.state.lock().unwrap().doubling = doubling;
    }

    /// Listens from now on.
    pub(crate) fn tap(&self) {
        self.hub.state.lock().unwrap().tapped = Some(Vec::new());
    }

    /// What was heard since.
    pub(crate) fn tapped(&self) -> Vec<Tapped> {
        let state = &mut *self.hub.state.lock().unwrap();
        std::mem::take(state.tapped.as_mut().unwrap())
    }

    /// Delivers a frame once more, or one that nobody sent.
    pub(crate) fn inject(&self, Tapped { source, frame }: Tapped) {
        self.hub.carry(source, frame);
    }

    pub(crate) fn credentials(&self, relay: u16) -> Arc<Credentials> {
        let identity = Identity::new(Role::Relay, relay, "test").unwrap();
        let (pending, csr) = PendingKey::generate().unwrap();
        let (now, lifetime) = (SystemTime::now(), Duration::from_secs(3_600));
        let chain = self.authority.issue(&csr, &identity, lifetime, now).unwrap();
        let ca = self.authority.fingerprint();
        Arc::new(Credentials::from_join(&pending, chain, ca, now).unwrap())
    }

    pub(crate) fn port(&self, relay: u16) -> FabricPort {
        let local = Address::new(RelayId(relay), AttachmentId::GATEWAY);
        let (deliver, receiver) = deliveries();
        let wire = Arc::new(Wire::default());
        let port = Port { wire: Arc::clone(&wire), deliver };
        self.hub.state.lock().unwrap().ports.insert(local.relay, port);
        tokio::spawn(carry(Arc::clone(&self.hub), local, Arc::clone(&wire)));
        FabricPort { local, sender: wire, receiver }
    }
}

/// The first two of an edge's addresses.
pub(crate) fn whereabouts(addresses: &[Address]) -> Option<Whereabouts> {
    let first = *addresses.first()?;
    Some(Whereabouts { first, second: addresses.get(1).copied() })
}

/// The queue to an end. It is bounded in a relay; here what is under way is, by QUIC.
fn deliveries() -> (mpsc::UnboundedSender<Vec<Inbound>>, mpsc::Receiver<Vec<Inbound>>) {
    let (deliver, mut delivered) = mpsc::unbounded_channel();
    let (batches, receiver) = mpsc::channel(1_024);
    tokio::spawn(async move {
        while let Some(batch) = delivered.recv().await {
            if batches.send(batch).await.is_err() {
                return;
            }
        }
    });
    (deliver, receiver)
}

#[derive(Debug, Default)]
struct Queue(Mutex<(Vec<Outbound>, Option<Waker>)>);

#[derive(Debug, Default)]
struct Wire {
    queue: Queue,
    filled: tokio::sync::Notify,
}

impl FabricSender for Wire {
    fn try_send(&self, frames: &mut Vec<Outbound>) -> Result<(), Full> {
        let (queue, _) = &mut *self.queue.0.lock().unwrap();
        let taken = frames.len().min(CAPACITY - queue.len());
        queue.extend(frames.drain(..taken));
        self.filled.notify_one();
        if frames.is_empty() { Ok(()) } else { Err(Full) }
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (queue, waker) = &mut *self.queue.0.lock().unwrap();
        if queue.len() < CAPACITY {
            return Poll::Ready(());
        }
        *waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Carries the frames of one port.
async fn carry(hub: Arc<Hub>, source: Address, wire: Arc<Wire>) {
    loop {
        let frames = wire.filled().await;
        if !hub.has(source.relay, &wire) {
            return;
        }
        for frame in frames {
            hub.carry(source, frame);
        }
        tokio::task::yield_now().await;
    }
}

/// Carries the frames of an edge, from the first of its addresses that lives, or from each.
async fn carry_of_edge(hub: Arc<Hub>, number: usize, wire: Arc<Wire>) {
    loop {
        for frame in wire.filled().await {
            let (mut sources, doubling) = hub.sources(number);
            sources.truncate(if doubling { 2 } else { 1 });
            for source in sources {
                hub.carry(source, hub.readdressed(frame.clone()));
            }
        }
        tokio::task::yield_now().await;
    }
}

impl Wire {
    async fn filled(&self) -> Vec<Outbound> {
        self.filled.notified().await;
        let (queue, waker) = &mut *self.queue.0.lock().unwrap();
        if let Some(waker) = waker.take() {
            waker.wake();
        }
        std::mem::take(queue)
    }
}

impl Hub {
    /// The addresses of an edge that live, the first first.
    fn sources(&self, number: usize) -> (Vec<Address>, bool) {
        let state = self.state.lock().unwrap();
        let addresses = state.edges[number].addresses.iter();
        let live = addresses.filter(|address| !state.dead.contains(address));
        (live.copied().collect(), state.doubling)
    }

    /// As the relay in front of a dead one does it.
    fn readdressed(&self, mut frame: Outbound) -> Outbound {
        let state = self.state.lock().unwrap();
        if state.dead.contains(&frame.destination)
            && let Some(alternate) = frame.alternate.take()
        {
            frame.destination = alternate;
        }
        frame
    }

    /// Whether this wire is still the relay's.
    fn has(&self, relay: RelayId, wire: &Arc<Wire>) -> bool {
        let state = self.state.lock().unwrap();
        state.ports.get(&relay).is_some_and(|port| Arc::ptr_eq(&port.wire, wire))
    }

    fn carry(&self, source: Address, frame: Outbound) {
        let state = &mut *self.state.lock().unwrap();
        let faults = state.faults;
        if state.deaf.contains(&frame.destination.relay) {
            return;
        }
        let Some(port) = state.port_at(frame.destination) else { return };
        if let Some(tapped) = &mut state.tapped {
            tapped.push(Tapped { source, frame: frame.clone() });
        }
        let mut payload = frame.payload;
        let damaged = match frame.kind {
            FrameKind::Datagram => state.draw() < faults.damaged,
            FrameKind::Session | FrameKind::Notice | FrameKind::Trace => {
                faults.garbled > 0.0 && state.draw() < faults.garbled
            }
        };
        if damaged {
            let mut bytes = payload.to_vec();
            state.draw();
            let at = usize::try_from(state.random >> 33).unwrap() % bytes.len();
            bytes[at] ^= 0x10;
            payload = bytes.into();
        }
        let inbound = Inbound {
            source,
            kind: frame.kind,
            class: frame.class,
            policy: frame.policy,
            ecn: FrameEcn::Capable,
            flow: frame.flow,
            sequence: frame.sequence,
            payload,
        };
        let copies = if state.draw() < faults.doubled { 2 } else { 1 };
        for _ in 0..copies {
            if state.draw() < faults.lost {
                continue;
            }
            let batch = vec![inbound.clone()];
            let delayed = state.draw() < faults.delayed;
            let port = port.clone();
            // A port whose end has gone takes nothing.
            if delayed {
                tokio::spawn(async move {
                    tokio::time::sleep(DELAY).await;
                    let _ = port.send(batch);
                });
            } else {
                let _ = port.send(batch);
            }
        }
    }
}

impl State {
    /// Where frames for an address are to be delivered.
    fn port_at(&self, address: Address) -> Option<mpsc::UnboundedSender<Vec<Inbound>>> {
        if let Some(port) = self.ports.get(&address.relay) {
            return Some(port.deliver.clone());
        }
        let live = !self.dead.contains(&address);
        let edge = self.edges.iter().find(|edge| edge.addresses.contains(&address));
        edge.filter(|_| live).map(|edge| edge.deliver.clone())
    }

    /// Numerical Recipes' 64-bit linear congruential generator; from 0 to 1.
    fn draw(&mut self) -> f64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 40) as f64 / (1_u64 << 24) as f64
    }
}
