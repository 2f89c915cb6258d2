//! A fake fabric between ends in one process: frames are lost, doubled, delayed and damaged by a seeded
//! generator.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use overway_pki::{Authority, Credentials, Identity, PendingKey, Role};
use overway_session::{
    FabricPort, FabricSender, Full, Inbound, Outbound, SessionConfig, SessionEndpoint,
};
use overway_wire::frame::FrameEcn;
use overway_wire::{Address, AttachmentId, FrameKind, RelayId};
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
    ports: BTreeMap<RelayId, mpsc::UnboundedSender<Vec<Inbound>>>,
    slow: BTreeMap<RelayId, mpsc::UnboundedSender<(tokio::time::Instant, Vec<Inbound>)>>,
    faults: Faults,
    random: u64,
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

    /// An endpoint at a relay; it takes the place of an earlier one there.
    pub(crate) fn endpoint(&self, relay: u16) -> SessionEndpoint {
        SessionEndpoint::new(SessionConfig::default(), self.port(relay), self.credentials(relay))
            .unwrap()
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
        let (slow, mut slowed) = mpsc::unbounded_channel::<(tokio::time::Instant, Vec<Inbound>)>();
        let dl = deliver.clone();
        tokio::spawn(async move {
            while let Some((due, mut batch)) = slowed.recv().await {
                tokio::time::sleep_until(due).await;
                while let Ok((_, more)) = slowed.try_recv() { batch.extend(more); if batch.len() > 64 { break } }
                let _ = dl.send(batch);
            }
        });
        self.hub.state.lock().unwrap().slow.insert(local.relay, slow);
        self.hub.state.lock().unwrap().ports.insert(local.relay, deliver);
        let queue = Arc::new(Queue::default());
        let wire = Arc::new(Wire { queue: Arc::clone(&queue), filled: tokio::sync::Notify::new() });
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
        for frame in frames {
            hub.carry(source, frame);
        }
        tokio::task::yield_now().await;
    }
}

impl Hub {
    fn carry(&self, source: Address, frame: Outbound) {
        let state = &mut *self.state.lock().unwrap();
        let faults = state.faults;
        let Some(port) = state.ports.get(&frame.destination.relay).cloned() else { return };
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
            ecn: FrameEcn::Capable,
            flow: frame.flow,
            sequence: frame.sequence,
            payload,
        };
        let frame_destination = frame.destination.relay;
        let copies = if state.draw() < faults.doubled { 2 } else { 1 };
        for _ in 0..copies {
            if state.draw() < faults.lost {
                continue;
            }
            let batch = vec![inbound.clone()];
            let delayed = state.draw() < faults.delayed;
            let port = port.clone();
            // A port whose end has gone takes nothing.
            if let Some(d) = std::env::var("DELAY").ok() {
                let due = tokio::time::Instant::now() + Duration::from_micros(d.parse().unwrap());
                let _ = state.slow.get(&frame_destination).unwrap().send((due, batch));
            } else if delayed {
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
