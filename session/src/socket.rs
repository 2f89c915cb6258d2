//! What quinn takes for its UDP socket: its packets go out and come in as frames of kind Session.
//!
//! **Out.** A transmit is split into frames, each numbered per (far end, terms). A frame that got a number
//! is never thrown away here, for a gap in the numbers would make the far end wait: what the fabric does
//! not take stays in the backlog, of one transmit or one round of hails or repeats at most, and quinn is told to wait. One task
//! ([`FabricSocket::flush`]) hands the backlog over when the fabric has room, and wakes those who wait.
//!
//! **In.** Whoever polls takes batches from the fabric's channel and sorts them: datagrams go to the flow
//! table at once; session frames go through the order of their lane (far end and terms) to quinn. Lanes of
//! class realtime are not held back. A relay's gateway that starts anew numbers its frames from
//! zero under another incarnation, drawn at random and carried in the frame's flow field. It has lanes of
//! its own beside the earlier one's, until the earlier one is found to have ended; then the endpoint is
//! told, to close sessions which that far end knows nothing of. QUIC gets the packets of both meanwhile.
//!
//! **Edges** have no addresses that last: their frames are told by [`Names`](crate::names), go to where the name is now,
//! and QUIC sees the name. Frames by any of the name's addresses share its lanes. While an edge is sought, each frame goes
//! to the place of the hint too. An edge that started anew is told
//! by QUIC's stateless resets, whose key it derives from its own, and by its first word; it is not hailed.
//!
//! **Hails.** A hail is a packet of a connection that no end has: QUIC at the far end answers it with a
//! stateless reset, in a frame that bears the incarnation which lives there. It is as short as is
//! answered, so that the answer is not answered in turn.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_wire::{Address, Class, FlowId, FrameKind, Millis, PolicyId, Whereabouts};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::{Notify, mpsc};

use crate::address;
use crate::fabric::{FabricSender, Full, Inbound, Outbound};
use crate::flow::FlowTable;
use crate::names::{Far, Names};
use crate::order_delay::OrderDelays;
use crate::stats::Counters;
use crate::terms::{self, Terms};

mod incarnations;
mod incoming;

use incoming::Incoming;

/// Packets that quinn may hand over in one transmit; quinn itself makes no more.
const SEGMENTS_MAX: usize = 10;
/// Far ends whose numbering is kept. Ids are 16 bits, and few of them ever talk to one another.
const FAR_ENDS_MAX: usize = 16_384;
/// QUIC sends again after about a round trip and a half; a packet that is older has been replaced.
const BUDGET: Duration = Duration::from_secs(2);
/// Far ends that started anew, waiting to be looked at; more are found by their sessions' time-out.
const RESTARTS_MAX: usize = 256;
/// Words of relays that wait to be heeded; what is still so is said again.
const UNATTACHED_MAX: usize = 64;
/// Names of edges that wait to be sought; their next frames say so again.
const SOUGHT_MAX: usize = 64;

/// A packet with a short header (RFC 9000, 17.3.1) and a connection id of zeros, which no end draws. QUIC
/// answers what is longer than the least stateless reset, 21 bytes (10.3).
const HAIL: [u8; 22] = {
    let mut packet = [0; 22];
    packet[0] = 0x40;
    packet
};

/// Hails and their answers are the ends' own and carry nothing of anybody's.
const HAIL_TERMS: Terms = Terms::new(Class::Realtime, PolicyId(0));

/// A far end whose incarnation, this one, ended: another lives there now.
pub(crate) type Restart = (Address, FlowId);

/// What the socket hears beside packets.
pub(crate) struct Told {
    /// Of far ends that started anew.
    pub(crate) restarts: mpsc::Receiver<Restart>,
    /// Addresses at which relays say that nobody is.
    pub(crate) unattached: mpsc::Receiver<Address>,
    /// Names of edges that are sought from now on, or once more, since a frame came from elsewhere.
    pub(crate) sought: mpsc::Receiver<Address>,
}

/// The other end of [`Told`].
struct Telling {
    restarts: mpsc::Sender<Restart>,
    unattached: mpsc::Sender<Address>,
    sought: mpsc::Sender<Address>,
}

/// The socket.
pub(crate) struct FabricSocket {
    local: SocketAddr,
    sender: Arc<dyn FabricSender>,
    flows: Arc<FlowTable>,
    counters: Arc<Counters>,
    outgoing: Mutex<Outgoing>,
    incoming: Mutex<Incoming>,
    backlog_filled: Notify,
}

/// How an endpoint tells its far ends.
#[derive(Clone, Debug)]
pub(crate) enum Naming {
    /// By their addresses; its own incarnation is the same for all.
    ByAddress(FlowId),
    /// By names, each with an incarnation of its own.
    ByName(Arc<Names>),
}

struct Outgoing {
    naming: Naming,
    /// Of far ends that are told by their addresses.
    sequences: HashMap<(Address, Terms), u64>,
    backlog: Vec<Outbound>,
    waiting: Vec<Waker>,
}

impl FabricSocket {
    /// Makes the socket of a port.
    pub(crate) fn new(
        (sender, receiver): (Arc<dyn FabricSender>, mpsc::Receiver<Vec<Inbound>>),
        local: Address,
        naming: Naming,
        flows: Arc<FlowTable>,
        counters: Arc<Counters>,
    ) -> (Arc<Self>, Told) {
        let (telling, told) = Telling::channels();
        let socket = Self {
            local: address::to_socket(local, Terms::default()),
            sender,
            flows,
            counters,
            outgoing: Mutex::new(Outgoing::new(naming.clone())),
            incoming: Mutex::new(Incoming::new(receiver, telling, naming)),
            backlog_filled: Notify::new(),
        };
        (Arc::new(socket), told)
    }

    /// The incarnation of a far end that was heard last on these terms.
    pub(crate) fn incarnation_of(&self, far: Address, terms: Terms) -> Option<FlowId> {
        self.incoming().incarnation_of(far, terms)
    }

    /// What a connection with a far end on these terms is to know of the order of frames.
    pub(crate) fn order_delays(&self, far: Address, terms: Terms) -> Arc<OrderDelays> {
        Arc::new(OrderDelays::new(self.incoming().ordered(far, terms)))
    }

    /// Hails far ends whose incarnation is in doubt, and those of `standing`, with whom there are sessions,
    /// that were not heard for a while. Called a few times a second.
    pub(crate) fn hail(&self, standing: &BTreeSet<Address>, now: Instant) {
        if !self.outgoing().backlog.is_empty() {
            // The fabric is full; hails would only add to it.
            return;
        }
        let mut incoming = self.incoming();
        let outgoing = &mut *self.outgoing();
        for far in incoming.hails_due(standing, now) {
            if outgoing.push((far, HAIL_TERMS), &Bytes::from_static(&HAIL), now) {
                self.counters.frames_sent.increment();
                incoming.handle_hail(far, now);
            }
        }
        drop(incoming);
        self.hand_over(outgoing);
    }

    /// Sends again what was sent last in vain to an edge that is sought. QUIC takes what it has had for a duplicate, and
    /// answers what it has not.
    pub(crate) fn repeat(&self, far: &Far, now: Instant) {
        let outgoing = &mut *self.outgoing();
        if !outgoing.backlog.is_empty() {
            return;
        }
        for (terms, payload) in far.unheard() {
            self.push(outgoing, (far.name(), terms), &payload, now);
        }
        self.hand_over(outgoing);
    }

    fn push(&self, outgoing: &mut Outgoing, to: (Address, Terms), payload: &Bytes, now: Instant) {
        let before = outgoing.backlog.len();
        if outgoing.push(to, payload, now) {
            self.counters.frames_sent.increment();
            self.counters.frames_sought.add((outgoing.backlog.len() - before - 1) as u64);
        } else {
            self.counters.frames_unexpected.increment();
        }
    }

    /// Hands the backlog to the fabric; what it does not take waits for [`Self::flush`].
    fn hand_over(&self, outgoing: &mut Outgoing) {
        if outgoing.backlog.is_empty() {
            return;
        }
        match self.sender.try_send(&mut outgoing.backlog) {
            Ok(()) => {}
            Err(Full) => self.backlog_filled.notify_one(),
        }
    }

    /// Hands the backlog over whenever the fabric has room. Runs for ever, as one task.
    pub(crate) async fn flush(&self) {
        loop {
            self.backlog_filled.notified().await;
            while !self.try_flush() {
                std::future::poll_fn(|cx| self.sender.poll_ready(cx)).await;
                // A fabric that says ready and takes nothing must not starve the others.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whether the backlog is empty now; if so, those who wait are woken.
    fn try_flush(&self) -> bool {
        let mut outgoing = self.outgoing();
        if !outgoing.backlog.is_empty() {
            // Whether all of it was taken is seen by what is left.
            let _ = self.sender.try_send(&mut outgoing.backlog);
        }
        let empty = outgoing.backlog.is_empty();
        if empty {
            outgoing.waiting.drain(..).for_each(Waker::wake);
        }
        empty
    }

    /// A panic elsewhere leaves both states whole enough to go on: packets may be lost, as they always may.
    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outgoing {
    fn new(naming: Naming) -> Self {
        Self { naming, sequences: HashMap::new(), backlog: Vec::new(), waiting: Vec::new() }
    }

    /// Numbers a frame and puts it in the backlog, and its copy for where an edge is sought. False: there are too many far
    /// ends, or none of that name.
    fn push(&mut self, (far, terms): (Address, Terms), payload: &Bytes, now: Instant) -> bool {
        let numbered = match &self.naming {
            Naming::ByAddress(incarnation) => {
                let incarnation = *incarnation;
                let sequence = self.next_sequence((far, terms));
                sequence.map(|sequence| (incarnation, sequence, Whereabouts::at(far), None))
            }
            Naming::ByName(names) => names.find(far).map(|edge| {
                edge.note_sent(terms, payload, now);
                let (incarnation, sequence) = (edge.own_incarnation(), edge.next_sequence(terms));
                (incarnation, sequence, edge.whereabouts(), edge.sought_at(now))
            }),
        };
        let Some((incarnation, sequence, place, sought)) = numbered else { return false };
        for to in std::iter::once(place).chain(sought) {
            self.backlog.push(Outbound {
                kind: FrameKind::Session,
                class: terms.class,
                policy: terms.policy,
                redundancy: terms.redundancy,
                destination: to.first,
                alternate: to.second,
                flow: terms::marked(incarnation, terms.redundancy),
                sequence,
                budget: Millis::from(BUDGET),
                payload: payload.clone(),
            });
        }
        true
    }

    /// The sequence of the next frame for a far end that is told by its address.
    fn next_sequence(&mut self, lane: (Address, Terms)) -> Option<u64> {
        if self.sequences.len() >= FAR_ENDS_MAX && !self.sequences.contains_key(&lane) {
            return None;
        }
        let next = self.sequences.entry(lane).or_default();
        let sequence = *next;
        *next += 1;
        Some(sequence)
    }
}

impl Telling {
    fn channels() -> (Self, Told) {
        let (restarts, restarted) = mpsc::channel(RESTARTS_MAX);
        let (unattached, not_there) = mpsc::channel(UNATTACHED_MAX);
        let (sought, to_seek) = mpsc::channel(SOUGHT_MAX);
        let told = Told { restarts: restarted, unattached: not_there, sought: to_seek };
        (Self { restarts, unattached, sought }, told)
    }
}

impl AsyncUdpSocket for FabricSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some((destination, terms)) = address::from_socket(transmit.destination) else {
            // quinn answers only whom it heard, and whom the endpoint dialled.
            self.counters.frames_unexpected.increment();
            return Ok(());
        };
        let outgoing = &mut *self.outgoing();
        if !outgoing.backlog.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (contents, now) = (Bytes::copy_from_slice(transmit.contents), Instant::now());
        let segment = transmit.segment_size.unwrap_or(contents.len()).max(1);
        let mut at = 0;
        while at < contents.len() {
            let end = contents.len().min(at + segment);
            self.push(outgoing, (destination, terms), &contents.slice(at..end), now);
            at = end;
        }
        self.hand_over(outgoing);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let incoming = &mut *self.incoming();
        loop {
            let count = incoming.give(bufs, meta, &self.counters);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            match incoming.receiver.poll_recv(cx) {
                Poll::Ready(Some(batch)) => {
                    let now = Instant::now();
                    for frame in batch {
                        match frame.kind {
                            FrameKind::Session => incoming.sort(frame, now, &self.counters),
                            FrameKind::Datagram => self.flows.handle_frame(frame, now),
                            FrameKind::Notice => incoming.hear_notice(&frame, &self.counters),
                            FrameKind::Trace => self.counters.frames_unexpected.increment(),
                        }
                    }
                    incoming.handle_timeout(now, &self.counters);
                }
                Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Poll::Pending => {
                    if incoming.poll_timer(cx).is_pending() {
                        return Poll::Pending;
                    }
                    incoming.handle_timeout(Instant::now(), &self.counters);
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS_MAX
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Tells one connection when the backlog is empty.
#[derive(Debug)]
struct Poller(Arc<FabricSocket>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outgoing = self.0.outgoing();
        if outgoing.backlog.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if !outgoing.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            outgoing.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl fmt::Debug for FabricSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FabricSocket").field("local", &self.local).finish_non_exhaustive()
    }
}
