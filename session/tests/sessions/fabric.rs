//! A fake fabric between ends in one process: frames are lost, doubled, delayed and damaged by a seeded
//! generator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use overway_pki::{Authority, Credentials, Identity, PendingKey, Role};
use overway_session::{
    FabricPort, FabricSender, Full, Inbound, Outbound, SessionConfig, SessionEndpoint,
};
use overway_wire::frame::FrameEcn;
use overway_wire::{Address, AttachmentId, Class, FlowId, FrameKind, Millis, PolicyId, RelayId};
use tokio::sync::mpsc;

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
    faults: Faults,
    random: u64,
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
        // The queue to the end is bounded in a relay; here what is under way is, by QUIC.
        let (deliver, mut delivered) = mpsc::unbounded_channel();
        let (batches, receiver) = mpsc::channel(1_024);
        tokio::spawn(async move {
            while let Some(batch) = delivered.recv().await {
                if batches.send(batch).await.is_err() {
                    return;
                }
            }
        });
        let queue = Arc::new(Queue::default());
        let wire = Arc::new(Wire { queue: Arc::clone(&queue), filled: tokio::sync::Notify::new() });
        let port = Port { wire: Arc::clone(&wire), deliver };
        self.hub.state.lock().unwrap().ports.insert(local.relay, port);
        tokio::spawn(carry(Arc::clone(&self.hub), local, Arc::clone(&wire)));
        FabricPort { local, sender: wire, receiver }
    }
}

#[derive(Debug, Default)]
struct Queue(Mutex<(Vec<Outbound>, Option<Waker>)>);

#[derive(Debug)]
struct Wire {
    queue: Arc<Queue>,
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
        wire.filled.notified().await;
        let (frames, waker) = {
            let (queue, waker) = &mut *wire.queue.0.lock().unwrap();
            (std::mem::take(queue), waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if !hub.has(source.relay, &wire) {
            return;
        }
        for frame in frames {
            hub.carry(source, frame);
        }
        tokio::task::yield_now().await;
    }
}

impl Hub {
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
        let Some(port) = state.ports.get(&frame.destination.relay) else { return };
        let port = port.deliver.clone();
        let mut payload = frame.payload;
        if frame.kind == FrameKind::Datagram && state.draw() < faults.damaged {
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
    /// Numerical Recipes' 64-bit linear congruential generator; from 0 to 1.
    fn draw(&mut self) -> f64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 40) as f64 / (1_u64 << 24) as f64
    }
}
