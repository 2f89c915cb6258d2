//! An end of a load: to the relay under test a neighbour relay, that sends frames or counts them.
//!
//! It speaks the hop protocol: it accepts the lanes, answers heartbeats, numbers its frames, and says in its
//! heartbeats what it has received. It does what costs least, so that one core makes and takes more frames than the relay
//! on the other core can forward. The bare relay has one connection for all lanes, and no heartbeats on it: towards
//! it an end sends datagrams that hold the payload alone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use overway_pki::{ALPN_MESH, ClientAuth, Credentials, Role};
use overway_probe::{LinkProbe, LocalClock, ProbeConfig, Rate, State};
use overway_wire::frame::{FrameEcn, HOP_LIMIT};
use overway_wire::hop::{self, Heartbeat, HopMessage, Lane};
use overway_wire::{
    Address, AttachmentId, BootId, Class, FlowId, FrameKind, Header, LinkIndex, Millis, Path,
    PathElement, PolicyId, RelayId, Ticks,
};
use quinn::crypto::rustls::QuicServerConfig;

use crate::common::socket;

use super::bare;
use super::mesh::{HELLO_VERSION, SINK, SOURCE, TRANSIT};
use super::traffic::{Source, Traffic};

/// Datagrams read before others get a turn.
const READ_BATCH: usize = 64;
/// How often heartbeats are looked at, at least.
const LOOK: Duration = Duration::from_millis(10);
/// A relay tells as often: after so many frames,
const TOLD_EVERY: u32 = 512;
/// or so many bytes,
const TOLD_EVERY_BYTES: usize = 40_000;
/// if they came within this.
const TOLD_SOONEST: Duration = Duration::from_millis(1);
/// A hello is four bytes; of one connection for all lanes there are as many.
const HELLO_BYTES: usize = 4;
const HELLOS_BYTES_MAX: usize = HELLO_BYTES * Lane::ALL.len();

/// One end.
pub(super) struct Peer {
    lanes: RefCell<BTreeMap<Lane, quinn::Connection>>,
    /// `None` towards the bare relay.
    probe: Option<RefCell<LinkProbe>>,
    /// What the relay under test was last told to be received.
    told: Cell<[u32; Lane::DATA.len()]>,
    /// Bytes received since then.
    untold_bytes: Cell<[usize; Lane::DATA.len()]>,
    told_at: Cell<[Instant; Lane::DATA.len()]>,
    traffic: Rc<Traffic>,
    endpoint: quinn::Endpoint,
}

/// What frames look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Bytes of a frame's payload.
    pub(crate) payload: usize,
    /// The class of all frames.
    pub(crate) class: Class,
    /// They belong to so many flows, in turn.
    pub(crate) flows: u32,
}

impl Peer {
    /// Listens and starts its tasks on the local set at hand.
    pub(super) fn start(
        credentials: &Arc<Credentials>,
        traffic: &Rc<Traffic>,
        speaks_hop: bool,
        offload: bool,
    ) -> anyhow::Result<(Rc<Self>, SocketAddr)> {
        let clients = ClientAuth::Required(&[Role::Relay]);
        let tls = overway_pki::server_config(credentials, &[ALPN_MESH], clients);
        let crypto = QuicServerConfig::try_from(tls)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(Arc::new(bare::transport(offload)));
        let endpoint = quinn::Endpoint::new(
            quinn::EndpointConfig::default(),
            Some(server),
            socket()?,
            Arc::new(quinn::TokioRuntime),
        )?;
        let address = endpoint.local_addr()?;
        let now = Instant::now();
        let id = credentials.identity().id;
        let probe = speaks_hop.then(|| {
            let clock = LocalClock::new(now, Ticks(0), 0);
            let mut probe =
                LinkProbe::new(ProbeConfig::default(), BootId(u32::from(id)), clock, now);
            probe.set_rate(Rate::Active, now);
            RefCell::new(probe)
        });
        let peer = Rc::new(Self {
            lanes: RefCell::new(BTreeMap::new()),
            probe,
            told: Cell::default(),
            untold_bytes: Cell::default(),
            told_at: Cell::new([now; Lane::DATA.len()]),
            traffic: Rc::clone(traffic),
            endpoint: endpoint.clone(),
        });
        tokio::task::spawn_local(accept(Rc::clone(&peer), endpoint));
        if speaks_hop {
            tokio::task::spawn_local(keep_alive(Rc::clone(&peer)));
        }
        Ok((peer, address))
    }

    /// Dials another end, so that nothing stands between.
    pub(super) async fn dial(
        &self,
        credentials: &Arc<Credentials>,
        to: RelayId,
        address: SocketAddr,
    ) -> anyhow::Result<()> {
        let connection = bare::connect(&self.endpoint, credentials, to, address, true).await?;
        let lanes = Lane::DATA.into_iter().map(|lane| (lane, connection.clone()));
        self.lanes.borrow_mut().extend(lanes);
        Ok(())
    }

    /// Whether frames of this class may be sent, or will be received.
    pub(super) fn is_ready(&self, class: Class) -> bool {
        let stands = self.lanes.borrow().contains_key(&Lane::of(class));
        let lives = |probe: &RefCell<LinkProbe>| {
            let probe = probe.borrow();
            probe.inbound() == State::Up && probe.outbound() == State::Up
        };
        stands && self.probe.as_ref().is_none_or(lives)
    }

    /// What sends frames of this shape.
    pub(super) fn source(self: &Rc<Self>, shape: Shape) -> Box<dyn Source> {
        // A bare relay hands on what it gets, so there each frame is a datagram.
        let bundled = if self.probe.is_some() { bundled(shape.payload) } else { 1 };
        Box::new(FrameSource { peer: Rc::clone(self), shape, bundled, flow: 0 })
    }

    fn take(&self, lane: Lane, datagram: &[u8], now: Instant) {
        let Some(probe) = &self.probe else { return self.traffic.arrive(datagram, now) };
        match HopMessage::decode(datagram) {
            Ok(message @ (HopMessage::Data { .. } | HopMessage::Bundle { .. })) => {
                for (number, frame) in message.frames() {
                    probe.borrow_mut().handle_frame(lane, number, frame.len(), now);
                    self.traffic.arrive(frame, now);
                }
                if let Some(at) = lane.data_index() {
                    let mut untold = self.untold_bytes.get();
                    untold[at] += datagram.len();
                    self.untold_bytes.set(untold);
                }
            }
            Ok(HopMessage::Heartbeat(heartbeat)) => {
                probe.borrow_mut().handle_heartbeat(&heartbeat, now);
                self.beat(probe, now);
            }
            // What is lost is counted, neither asked for nor sent again. What is of a later version is for others.
            Ok(HopMessage::Received { lane, received_next, complete_next }) => {
                probe.borrow_mut().handle_received(lane, received_next, complete_next, now);
            }
            Ok(
                HopMessage::Twin { .. }
                | HopMessage::Nack { .. }
                | HopMessage::Repair(_)
                | HopMessage::Tail { .. }
                | HopMessage::Padding,
            )
            | Err(_) => {}
        }
    }

    /// Says what was received, as often as a relay would.
    fn tell_received(&self, lane: Lane, now: Instant) {
        let (Some(probe), Some(at)) = (&self.probe, lane.data_index()) else { return };
        let next = probe.borrow().received_next(lane);
        let (mut told, mut untold) = (self.told.get(), self.untold_bytes.get());
        let mut told_at = self.told_at.get();
        let is_fast = untold[at] >= TOLD_EVERY_BYTES && now - told_at[at] <= TOLD_SOONEST;
        if next.wrapping_sub(told[at]) < TOLD_EVERY && !is_fast {
            return;
        }
        (told[at], untold[at], told_at[at]) = (next, 0, now);
        self.told.set(told);
        self.untold_bytes.set(untold);
        self.told_at.set(told_at);
        let mut message = BytesMut::new();
        hop::encode_received(lane, next, next, &mut message);
        if let Some(connection) = self.lanes.borrow().get(&lane) {
            // Fails only if the connection is closed, which its reader notices.
            let _ = connection.send_datagram(message.freeze());
        }
    }

    /// Sends the heartbeats that are due.
    fn beat(&self, probe: &RefCell<LinkProbe>, now: Instant) {
        let mut probe = probe.borrow_mut();
        while probe.poll_event().is_some() {}
        let lanes = self.lanes.borrow();
        while let Some(heartbeat) = probe.poll_transmit(now) {
            // Towards an end that says what is complete the relay does all that recovery takes.
            let complete_next = Some(heartbeat.received_next);
            let mut message = BytesMut::new();
            Heartbeat { complete_next, ..heartbeat }.encode(&mut message);
            if let Some(light) = lanes.get(&Lane::Light) {
                // Fails only if the connection is closed, which its reader notices.
                let _ = light.send_datagram(message.freeze());
            }
        }
    }
}

async fn accept(peer: Rc<Peer>, endpoint: quinn::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let peer = Rc::clone(&peer);
        tokio::task::spawn_local(async move {
            // A connection that fails is dialled again by the other side.
            let Ok(connection) = incoming.await else { return };
            let Ok(mut stream) = connection.accept_uni().await else { return };
            let Ok(hellos) = stream.read_to_end(HELLOS_BYTES_MAX).await else { return };
            let lane = |hello: &[u8]| match *hello {
                [HELLO_VERSION, _link, lane, _shard] => Lane::from_code(lane),
                _ => None,
            };
            let mut last = None;
            for lane in hellos.chunks(HELLO_BYTES).filter_map(lane) {
                peer.lanes.borrow_mut().insert(lane, connection.clone());
                last = Some(lane);
            }
            if let Some(lane) = last {
                read(&peer, lane, &connection).await;
            }
        });
    }
}

async fn read(peer: &Peer, lane: Lane, connection: &quinn::Connection) {
    while let Ok(first) = connection.read_datagram().await {
        let now = Instant::now();
        peer.take(lane, &first, now);
        let others = std::iter::from_fn(|| read_now(connection)).take(READ_BATCH - 1);
        others.for_each(|datagram| peer.take(lane, &datagram, now));
        peer.tell_received(lane, now);
        peer.traffic.settle();
    }
}

/// A datagram that has arrived already.
fn read_now(connection: &quinn::Connection) -> Option<Bytes> {
    let next = pin!(connection.read_datagram());
    match next.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(datagram) => datagram.ok(),
        Poll::Pending => None,
    }
}

async fn keep_alive(peer: Rc<Peer>) {
    let probe = peer.probe.as_ref().expect("it is started for peers that have one");
    loop {
        let now = Instant::now();
        probe.borrow_mut().handle_timeout(now);
        peer.beat(probe, now);
        tokio::time::sleep(LOOK).await;
    }
}

/// Sends frames as the neighbour of the relay under test.
struct FrameSource {
    peer: Rc<Peer>,
    shape: Shape,
    /// Frames of a message.
    bundled: u64,
    flow: u32,
}

impl Source for FrameSource {
    fn emit(&mut self, traffic: &Traffic, count: u64) {
        let lane = Lane::of(self.shape.class);
        let Some(connection) = self.peer.lanes.borrow().get(&lane).cloned() else { return };
        let now = Instant::now();
        let mut left = count;
        while left > 0 {
            let bundled = left.min(self.bundled);
            left -= bundled;
            let message = self.message(traffic, lane, bundled, now);
            // Fails only if the connection is closed; then nothing arrives, which is the figure.
            let _ = connection.send_datagram(message);
        }
    }
}

impl FrameSource {
    /// A message with so many frames; to the bare relay a datagram with the payload of one.
    fn message(&mut self, traffic: &Traffic, lane: Lane, frames: u64, now: Instant) -> Bytes {
        let mut message = BytesMut::with_capacity(hop::MESSAGE_BYTES_MAX);
        for at in 0..frames {
            self.flow = (self.flow + 1) % self.shape.flows;
            if let Some(probe) = &self.peer.probe {
                let number = probe.borrow_mut().handle_sent(lane);
                let header = header(self.shape.class, self.flow, traffic.counts().0);
                let bytes = header.encoded_len() + self.shape.payload;
                match (frames, at) {
                    (1, _) => hop::encode_data_prefix(number, &mut message),
                    (_, 0) => hop::encode_bundle_prefix(number, &mut message),
                    _ => {}
                }
                if frames > 1 {
                    message.put_u16(u16::try_from(bytes).expect("it fits into a message"));
                }
                header.encode(&mut message);
            }
            let payload = message.len();
            message.put_bytes(0, self.shape.payload);
            traffic.stamp(&mut message[payload..], now);
        }
        message.freeze()
    }
}

/// How many frames of a payload a neighbour puts into one message where they are made at once.
fn bundled(payload: usize) -> u64 {
    let header = header(Class::Bulk, 0, 0).encoded_len();
    let each = hop::BUNDLE_LENGTH_BYTES + header + payload;
    let room = hop::MESSAGE_BYTES_MAX - hop::BUNDLE_PREFIX_BYTES;
    (room / each).max(1) as u64
}

/// A frame on its way over the relay under test.
fn header(class: Class, flow: u32, sequence: u64) -> Header {
    let end = |relay: RelayId| Address::new(relay, AttachmentId::GATEWAY);
    let step = |relay| PathElement::new(relay, LinkIndex::default());
    Header {
        kind: FrameKind::Session,
        class,
        ecn: FrameEcn::Capable,
        copy: false,
        hops_left: HOP_LIMIT,
        position: 0,
        policy: PolicyId::default(),
        source: end(SOURCE),
        destination: end(SINK),
        budget: Millis(2_000),
        flow: FlowId(flow),
        sequence,
        path: Path::new(&[step(TRANSIT), step(SINK)]).expect("two relays are no loop"),
        alternate: None,
    }
}
