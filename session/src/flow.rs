//! Flows: realtime datagrams of one service, sealed end to end, each on time or not at all.
//!
//! A flow is opened by a request on a stream of its session, and lives as long as that stream: either end
//! closes it by ending the stream, and the session's end is its end. Its datagrams do not use the stream.
//! They travel as frames of their own, sealed with the flow's own keys, numbered by the sender, in no
//! order, never sent again.
//!
//! What arrives passes: the table (is there such a flow), the seal (is it authentic), the replay window
//! (is it new: failover sends copies), the joiner (is it whole), and a bounded queue whose oldest goes when
//! the owner does not keep up. Nothing is changed by a frame that is not authentic.
//!
//! Flow ids are chosen by the opener from its 31 bits; frames from the accepting end bear the same id with
//! [`ACCEPTED`] set, so that both ends can open flows without asking whose ids are free.
//!
//! Each datagram bears a stamp of the sender's clock where the far end knows of it; what arrives is measured, see
//! [`crate::felt`].
//!
//! A flow with an edge goes to where the edge is attached now. Its datagrams are taken from any address, by their ids,
//! which edges therefore spread over all 31 bits: the seal says whose they are. Where all of it is to go twice and the edge has
//! two addresses, each datagram goes to both.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use overway_quality::FlowMeter;
use overway_wire::quality::{FlowKind, FlowReport};
use overway_wire::{Address, Class, FlowId, FrameKind, Millis, PolicyId, Redundancy, Whereabouts};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::Notify;

use crate::fabric::{FabricSender, Inbound, Outbound};
use crate::far::Peer;
use crate::felt::{Ended, Reports, Subject};
pub use crate::fragment::DATAGRAM_BYTES_MAX;
use crate::fragment::{self, Joined, Joiner};
use crate::names::Far;
use crate::replay::{Replay, ReplayWindow};
use crate::seal::{FlowKeys, SEQUENCE_MAX};
use crate::stats::Counters;

/// Set in the flow id of frames from the end that accepted the flow.
pub(crate) const ACCEPTED: u32 = 1 << 31;
/// Flows of an endpoint at most; further ones are refused.
const FLOWS_MAX: usize = 65_536;
/// Datagrams that wait for the owner of a flow at most; the oldest goes. Half a second at 1,000 a second.
const QUEUE_MAX: usize = 512;
/// Realtime data that is a second old is worth nothing, unless said otherwise.
const DEADLINE: Duration = Duration::from_secs(1);
/// A datagram may take longer than no path does, and not for ever.
pub(crate) const DEADLINE_MAX: Duration = Duration::from_secs(10);

/// How a flow's datagrams travel, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTerms {
    /// How much of it goes more than once.
    pub redundancy: Redundancy,
    /// How long a datagram is worth carrying: what cannot be there in time is dropped, not delivered late. From 1 ms to
    /// 10 s, in milliseconds; 0 is taken for a second.
    pub deadline: Duration,
}

impl FlowTerms {
    /// Within the bounds.
    pub(crate) fn sound(self) -> Self {
        let deadline = if self.deadline.is_zero() { DEADLINE } else { self.deadline };
        Self { deadline: deadline.clamp(Duration::from_millis(1), DEADLINE_MAX), ..self }
    }
}

impl From<Redundancy> for FlowTerms {
    fn from(redundancy: Redundancy) -> Self {
        Self { redundancy, deadline: DEADLINE }
    }
}

/// One end of a flow. Clones are the same end: one may send while another receives. The flow ends when
/// the last clone is dropped, when the far end closes it, or with the session.
#[derive(Clone, Debug)]
pub struct Flow {
    shared: Arc<Shared>,
    peer: Option<Peer>,
    _held: Arc<Held>,
}

/// Why a datagram cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It is longer than [`DATAGRAM_BYTES_MAX`].
    #[error("datagram is longer than {DATAGRAM_BYTES_MAX} bytes")]
    TooLong,
    /// The flow has ended.
    #[error("the flow has ended")]
    Closed,
}

impl Flow {
    /// Sends a datagram, without waiting. It is dropped and counted if the fabric is full.
    ///
    /// # Errors
    /// It is too long, or the flow has ended.
    pub fn send(&self, datagram: &[u8]) -> Result<(), SendError> {
        self.shared.send(datagram)
    }

    /// The next datagram from the far end; `None` when the flow has ended and all that came is given out.
    /// May be cancelled without losing a datagram.
    pub async fn recv(&self) -> Option<Bytes> {
        loop {
            let arrived = self.shared.arrived.notified();
            {
                let mut inbox = self.shared.inbox();
                if let Some(datagram) = inbox.queue.pop_front() {
                    return Some(datagram);
                }
                if inbox.ended {
                    return None;
                }
            }
            arrived.await;
        }
    }

    /// The far end's address now.
    pub fn far(&self) -> Address {
        self.shared.far.whereabouts().first
    }

    /// The far end, if it is an edge.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Ends the flow, for all clones and for the far end.
    pub fn close(&self) {
        self.shared.end();
    }
}

/// What the clones of a [`Flow`] hold together.
#[derive(Debug)]
struct Held(Arc<Shared>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Where the datagrams of a flow go.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// To a relay's gateway.
    Gateway(Address),
    /// To an edge, wherever it is.
    Edge(Arc<Far>),
}

impl Target {
    fn whereabouts(&self) -> Whereabouts {
        match self {
            Self::Gateway(address) => Whereabouts::at(*address),
            Self::Edge(far) => far.whereabouts(),
        }
    }

    /// What frames of its flows are found by besides their ids: the source of a gateway's.
    fn source(&self) -> Option<Address> {
        match self {
            Self::Gateway(address) => Some(*address),
            Self::Edge(_) => None,
        }
    }
}

#[derive(Debug)]
struct Shared {
    far: Target,
    policy: PolicyId,
    terms: FlowTerms,
    /// Borne by frames from here.
    id: FlowId,
    keys: FlowKeys,
    sender: Arc<dyn FabricSender>,
    counters: Arc<Counters>,
    /// What it is, for its reports; its beginning is the origin of stamps.
    subject: Subject,
    /// Whose round trip its delays are built on.
    session: Option<Connection>,
    /// Whether the far end knows of stamps.
    stamps: AtomicBool,
    sequence: AtomicU64,
    /// Numbers the datagrams that travel in two parts.
    number: AtomicU32,
    inbox: Mutex<Inbox>,
    arrived: Notify,
    /// Told once, when the flow ends.
    ending: Notify,
}

#[derive(Debug)]
struct Inbox {
    queue: VecDeque<Bytes>,
    replay: ReplayWindow,
    joiner: Joiner,
    incomplete_counted: u64,
    ended: bool,
    meter: FlowMeter,
    /// When its last report was taken.
    taken: Instant,
}

impl Inbox {
    fn new(meter: FlowMeter, now: Instant) -> Self {
        Self {
            queue: VecDeque::new(),
            replay: ReplayWindow::default(),
            joiner: Joiner::default(),
            incomplete_counted: 0,
            ended: false,
            meter,
            taken: now,
        }
    }
}

impl Shared {
    fn send(&self, datagram: &[u8]) -> Result<(), SendError> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(SendError::TooLong);
        }
        if self.inbox().ended {
            return Err(SendError::Closed);
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (first, last) = fragment::split(datagram, number, self.stamp());
        let mut frames = Vec::with_capacity(2);
        for plain in std::iter::once(first).chain(last) {
            let frame = self.sealed(plain)?;
            match frame.alternate.filter(|_| self.terms.redundancy == Redundancy::Always) {
                Some(second) => frames.extend(to_both(frame, second)),
                None => frames.push(frame),
            }
        }
        match self.sender.try_send(&mut frames) {
            Ok(()) => self.counters.datagrams_sent.increment(),
            Err(crate::Full) => self.counters.datagrams_dropped_full.increment(),
        }
        Ok(())
    }

    /// The clock that the far end compares its own with; only differences count.
    fn stamp(&self) -> Option<u32> {
        let micros = || self.subject.since.elapsed().as_micros() & u128::from(u32::MAX);
        let stamps = self.stamps.load(Ordering::Relaxed);
        stamps.then(|| u32::try_from(micros()).expect("32 bits"))
    }

    /// What was felt since the last report; `None` if nothing came.
    fn report(&self, ended: bool, now: Instant) -> Option<FlowReport> {
        let rtt = self.session.as_ref().map(Connection::rtt);
        let mut inbox = self.inbox();
        inbox.taken = now;
        if let Some(rtt) = rtt {
            inbox.meter.handle_rtt(rtt, now);
        }
        let felt = inbox.meter.take(now)?;
        drop(inbox);
        let id = self.id.0 & !ACCEPTED;
        Some(self.subject.report((FlowKind::Datagrams, id.into()), &felt, ended, now))
    }

    fn sealed(&self, mut plain: BytesMut) -> Result<Outbound, SendError> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        if sequence >= SEQUENCE_MAX {
            self.end();
            return Err(SendError::Closed);
        }
        self.keys.seal.seal(self.id, sequence, &mut plain);
        let Whereabouts { first, second } = self.far.whereabouts();
        Ok(Outbound {
            kind: FrameKind::Datagram,
            class: Class::Realtime,
            policy: self.policy,
            redundancy: self.terms.redundancy,
            destination: first,
            alternate: second,
            flow: self.id,
            sequence,
            budget: Millis::from(self.terms.deadline),
            payload: plain.freeze(),
        })
    }

    fn handle_frame(&self, frame: Inbound, now: Instant) {
        let mut bytes = frame.payload.try_into_mut().unwrap_or_else(|shared| shared[..].into());
        if self.keys.open.open(frame.flow, frame.sequence, &mut bytes).is_err() {
            return self.counters.datagrams_forged.increment();
        }
        let mut inbox = self.inbox();
        match inbox.replay.insert(frame.sequence) {
            Replay::New => {}
            Replay::Duplicate => return self.counters.datagrams_duplicate.increment(),
            Replay::Old => return self.counters.datagrams_old.increment(),
        }
        let stamped = fragment::take_stamp(&mut bytes);
        let (sequence, stamp) = (frame.sequence, stamped.map(|(stamp, _)| stamp));
        inbox.meter.handle_frame(sequence, stamp, now);
        let joined = inbox.joiner.handle_plain(bytes.freeze(), now);
        let given_up = inbox.joiner.given_up();
        self.counters.datagrams_incomplete.add_growth(&mut inbox.incomplete_counted, given_up);
        match joined {
            Joined::Waiting => {}
            Joined::Malformed => self.counters.datagrams_malformed.increment(),
            Joined::Datagram(_) if inbox.ended => {}
            Joined::Datagram(datagram) => {
                if let Some((stamp, frames)) = stamped {
                    inbox.meter.handle_datagram(sequence, stamp, frames, now);
                }
                if inbox.queue.len() == QUEUE_MAX {
                    inbox.queue.pop_front();
                    self.counters.datagrams_dropped_slow.increment();
                }
                inbox.queue.push_back(datagram);
                drop(inbox);
                self.counters.datagrams_received.increment();
                self.arrived.notify_one();
            }
        }
    }

    /// When its last report was taken.
    fn taken(&self) -> Instant {
        self.inbox().taken
    }

    fn end(&self) {
        self.inbox().ended = true;
        self.arrived.notify_waiters();
        self.ending.notify_one();
    }

    /// A panic elsewhere leaves the inbox whole: each change is one call.
    fn inbox(&self) -> std::sync::MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A frame as any other for the first address, and one that is only its copy for the second.
fn to_both(frame: Outbound, second: Address) -> [Outbound; 2] {
    let copy = Outbound {
        destination: second,
        alternate: None,
        redundancy: Redundancy::Off,
        ..frame.clone()
    };
    [Outbound { redundancy: Redundancy::Adaptive, ..frame }, copy]
}

/// The flows of an endpoint, by the source of a gateway's frames and the id that they bear.
#[derive(Debug)]
pub(crate) struct FlowTable {
    sender: Arc<dyn FabricSender>,
    counters: Arc<Counters>,
    /// Whether the far ends are edges.
    edges: bool,
    flows: RwLock<HashMap<FlowKey, Arc<Shared>>>,
    /// Last reports of flows that are gone.
    ended: Ended,
}

/// How a flow travels, and what it is.
#[derive(Debug)]
pub(crate) struct Manner {
    pub(crate) policy: PolicyId,
    pub(crate) terms: FlowTerms,
    /// Whether the far end is known to know of stamps.
    pub(crate) stamps: bool,
    pub(crate) subject: Subject,
    /// The session that it was opened by.
    pub(crate) session: Option<Connection>,
}

/// What [`Target::source`] says, and the id.
type FlowKey = (Option<Address>, FlowId);

/// Why a flow cannot be entered in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableError {
    #[error("too many flows")]
    Full,
    #[error("flow id is in use")]
    InUse,
}

impl FlowTable {
    pub(crate) fn new(sender: Arc<dyn FabricSender>, counters: Arc<Counters>, edges: bool) -> Self {
        Self { sender, counters, edges, flows: RwLock::default(), ended: Ended::default() }
    }

    /// Enters a flow: from now on its datagrams are taken.
    pub(crate) fn enter(
        self: &Arc<Self>,
        far: Target,
        manner: Manner,
        id: FlowId,
        opened_here: bool,
        keys: FlowKeys,
    ) -> Result<FlowLife, TableError> {
        let accepted = FlowId(id.0 | ACCEPTED);
        let (own, its) = if opened_here { (id, accepted) } else { (accepted, id) };
        let key = (far.source(), its);
        let Manner { policy, terms, stamps, subject, session } = manner;
        let now = subject.since;
        let mut meter = FlowMeter::new(now);
        if let Some(session) = &session {
            meter.handle_rtt(session.rtt(), now);
        }
        let shared = Arc::new(Shared {
            far,
            policy,
            terms,
            id: own,
            keys,
            sender: Arc::clone(&self.sender),
            counters: Arc::clone(&self.counters),
            subject,
            session,
            stamps: AtomicBool::new(stamps),
            sequence: AtomicU64::new(0),
            number: AtomicU32::new(0),
            inbox: Mutex::new(Inbox::new(meter, now)),
            arrived: Notify::new(),
            ending: Notify::new(),
        });
        let mut flows = self.flows.write().unwrap_or_else(PoisonError::into_inner);
        if flows.len() >= FLOWS_MAX {
            return Err(TableError::Full);
        }
        if flows.contains_key(&key) {
            return Err(TableError::InUse);
        }
        flows.insert(key, Arc::clone(&shared));
        drop(flows);
        Ok(FlowLife { shared, entry: Entry { table: Arc::clone(self), key } })
    }

    /// Takes reports: of flows that are gone first, then of those that were taken longest ago.
    pub(crate) fn take_reports(&self, out: &mut Reports, now: Instant) {
        self.ended.take(out);
        let flows: Vec<Arc<Shared>> = {
            let flows = self.flows.read().unwrap_or_else(PoisonError::into_inner);
            flows.values().map(Arc::clone).collect()
        };
        let mut waiting: Vec<(Instant, Arc<Shared>)> =
            flows.into_iter().map(|flow| (flow.taken(), flow)).collect();
        // What has just been taken is not taken again.
        waiting.retain(|&(taken, _)| taken < now);
        waiting.sort_unstable_by_key(|&(taken, _)| taken);
        for (_, flow) in waiting {
            if !out.has_room() {
                return;
            }
            flow.report(false, now).into_iter().for_each(|report| out.push(report));
        }
    }

    /// Whether a flow of a service is open.
    pub(crate) fn has(&self, service: &str) -> bool {
        let flows = self.flows.read().unwrap_or_else(PoisonError::into_inner);
        flows.values().any(|flow| flow.subject.service == service)
    }

    /// Takes a frame of kind Datagram.
    pub(crate) fn handle_frame(&self, frame: Inbound, now: Instant) {
        let key = (Some(frame.source).filter(|_| !self.edges), frame.flow);
        let flow =
            self.flows.read().unwrap_or_else(PoisonError::into_inner).get(&key).map(Arc::clone);
        match flow {
            Some(flow) => flow.handle_frame(frame, now),
            None => self.counters.datagrams_unknown_flow.increment(),
        }
    }
}

/// A flow's place in the table; dropping it takes the flow out.
#[derive(Debug)]
struct Entry {
    table: Arc<FlowTable>,
    key: FlowKey,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut flows = self.table.flows.write().unwrap_or_else(PoisonError::into_inner);
        let flow = flows.remove(&self.key);
        drop(flows);
        self.table.ended.push(flow.and_then(|flow| flow.report(true, Instant::now())));
    }
}

/// A flow that is in the table and whose stream is still being answered.
#[derive(Debug)]
pub(crate) struct FlowLife {
    shared: Arc<Shared>,
    entry: Entry,
}

impl FlowLife {
    /// The far end has said that it knows of stamps.
    pub(crate) fn set_stamps(&self, stamps: bool) {
        self.shared.stamps.store(stamps, Ordering::Relaxed);
    }

    /// Ties the flow to its stream, on a task that ends with both.
    pub(crate) fn run(
        self,
        mut send: SendStream,
        mut recv: RecvStream,
        peer: Option<Peer>,
    ) -> Flow {
        let Self { shared, entry } = self;
        let held = Arc::new(Held(Arc::clone(&shared)));
        let flow = Flow { shared: Arc::clone(&shared), peer, _held: held };
        tokio::spawn(async move {
            tokio::select! {
                () = shared.ending.notified() => {}
                // The far end says nothing on this stream: whatever comes is its end.
                _ = recv.read_chunk(1, true) => {}
            }
            drop(entry);
            shared.end();
            // Both fail only if the stream has ended already.
            let _ = send.finish();
            let _ = recv.stop(VarInt::from_u32(0));
        });
        flow
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use overway_wire::{AttachmentId, RelayId};

    use crate::Full;
    use crate::seal::SECRET_BYTES;

    use super::*;

    const GATEWAY: Target = Target::Gateway(Address::new(RelayId(0), AttachmentId(0)));
    const POLICY: PolicyId = PolicyId(9);

    fn manner() -> Manner {
        let (service, far) = ("voice".to_owned(), "r5".to_owned());
        let subject = Subject { service, class: Class::Realtime, far, since: Instant::now() };
        let terms = FlowTerms { redundancy: Redundancy::Always, deadline: DEADLINE };
        Manner { policy: POLICY, terms, stamps: true, subject, session: None }
    }

    /// Keeps what is sent; takes nothing when it is told to be full.
    #[derive(Debug, Default)]
    struct Kept {
        frames: Mutex<Vec<Outbound>>,
        full: bool,
    }

    impl FabricSender for Kept {
        fn try_send(&self, frames: &mut Vec<Outbound>) -> Result<(), Full> {
            if self.full {
                return Err(Full);
            }
            self.frames.lock().unwrap().append(frames);
            Ok(())
        }

        fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    struct End {
        wire: Arc<Kept>,
        table: Arc<FlowTable>,
        counters: Arc<Counters>,
        life: FlowLife,
    }

    fn end(client: bool, full: bool) -> End {
        let wire = Arc::new(Kept { full, ..Kept::default() });
        let counters = Arc::new(Counters::default());
        let sender: Arc<dyn FabricSender> = Arc::<Kept>::clone(&wire);
        let table = Arc::new(FlowTable::new(sender, Arc::clone(&counters), false));
        let keys = FlowKeys::new(&[5; SECRET_BYTES], client);
        let life = table.enter(GATEWAY, manner(), FlowId(1), client, keys).unwrap();
        End { wire, table, counters, life }
    }

    fn carry(from: &End, to: &End) -> Vec<Inbound> {
        let frames: Vec<Inbound> =
            from.wire.frames.lock().unwrap().drain(..).map(|frame| inbound(&frame)).collect();
        for frame in &frames {
            to.table.handle_frame(frame.clone(), Instant::now());
        }
        frames
    }

    fn inbound(frame: &Outbound) -> Inbound {
        Inbound {
            source: frame.destination,
            kind: frame.kind,
            class: frame.class,
            policy: frame.policy,
            ecn: overway_wire::frame::FrameEcn::NotCapable,
            flow: frame.flow,
            sequence: frame.sequence,
            payload: frame.payload.clone(),
        }
    }

    fn taken(end: &End) -> Vec<Bytes> {
        end.life.shared.inbox().queue.drain(..).collect()
    }

    #[test]
    fn datagrams_arrive_once_however_often_their_frames_do() {
        let (opener, acceptor) = (end(true, false), end(false, false));
        let datagram = [9; DATAGRAM_BYTES_MAX];
        opener.life.shared.send(&datagram).unwrap();
        let modes: Vec<Redundancy> =
            opener.wire.frames.lock().unwrap().iter().map(|frame| frame.redundancy).collect();
        assert_eq!(modes, [Redundancy::Always; 2]);

        let frames = carry(&opener, &acceptor);
        assert!(frames.iter().all(|frame| frame.policy == POLICY));
        for frame in frames {
            acceptor.table.handle_frame(frame, Instant::now());
        }

        assert_eq!(taken(&acceptor), [&datagram[..]]);
        assert_eq!(acceptor.counters.snapshot().datagrams_duplicate, 2);
    }

    #[test]
    fn what_comes_and_what_does_not_is_reported_also_of_a_flow_that_ended() {
        let (opener, acceptor) = (end(true, false), end(false, false));
        for number in 0..10_u8 {
            opener.life.shared.send(&[number; 20]).unwrap();
            if number == 4 {
                opener.wire.frames.lock().unwrap().pop();
            }
        }
        carry(&opener, &acceptor);
        let End { table, life, .. } = acceptor;
        let later = Instant::now() + Duration::from_secs(2);

        let take = || {
            let mut out = Reports::new(9, 9_999);
            table.take_reports(&mut out, later);
            out.taken
        };

        let report = take().remove(0);

        let felt = report.felt.clone().unwrap();
        assert_eq!((felt.due, felt.on_time, felt.lost), (10, 9, 1));
        assert_eq!((felt.gaps, report.ended, report.kind()), (8, false, FlowKind::Datagrams));
        assert_eq!((&*report.service, &*report.far, report.id), ("voice", "r5", 1));
        assert_eq!(take(), [], "nothing new");

        opener.life.shared.send(&[7]).unwrap();
        for frame in opener.wire.frames.lock().unwrap().drain(..) {
            table.handle_frame(inbound(&frame), Instant::now());
        }
        drop(life);
        let last = take();
        assert_eq!((last.len(), last[0].ended), (1, true));
        assert_eq!(last[0].felt.as_ref().unwrap().due, 1);
    }

    #[test]
    fn a_flipped_bit_is_dropped_and_the_true_frame_still_counts() {
        let (opener, acceptor) = (end(true, false), end(false, false));
        acceptor.life.shared.send(b"answer").unwrap();
        let true_frame = inbound(&acceptor.wire.frames.lock().unwrap()[0]);
        let mut flipped = true_frame.payload.to_vec();
        flipped[0] ^= 1;

        let forged = Inbound { payload: flipped.into(), ..true_frame.clone() };
        opener.table.handle_frame(forged, Instant::now());
        opener.table.handle_frame(true_frame, Instant::now());

        assert_eq!(taken(&opener), [&b"answer"[..]]);
        assert_eq!(opener.counters.snapshot().datagrams_forged, 1);
    }

    #[test]
    fn frames_of_no_flow_and_of_a_flow_that_is_gone_are_counted() {
        let (opener, acceptor) = (end(true, false), end(false, false));
        opener.life.shared.send(b"late").unwrap();
        let End { table, counters, life, .. } = acceptor;
        let frame = inbound(&opener.wire.frames.lock().unwrap()[0]);

        table.handle_frame(Inbound { flow: FlowId(2), ..frame.clone() }, Instant::now());
        assert_eq!(counters.snapshot().datagrams_unknown_flow, 1);

        drop(life);
        table.handle_frame(frame, Instant::now());
        assert_eq!(counters.snapshot().datagrams_unknown_flow, 2);
    }

    #[test]
    fn a_full_fabric_and_a_slow_owner_cost_datagrams_not_memory() {
        let full = end(true, true);
        full.life.shared.send(b"dropped").unwrap();
        assert_eq!(full.counters.snapshot().datagrams_dropped_full, 1);

        let (opener, acceptor) = (end(true, false), end(false, false));
        for number in 0..=QUEUE_MAX {
            opener.life.shared.send(&number.to_be_bytes()).unwrap();
        }
        carry(&opener, &acceptor);
        let taken = taken(&acceptor);
        assert_eq!(taken.len(), QUEUE_MAX);
        assert_eq!(taken[0], 1_usize.to_be_bytes()[..]);
        assert_eq!(acceptor.counters.snapshot().datagrams_dropped_slow, 1);
    }

    #[test]
    fn a_datagram_too_long_is_refused() {
        let opener = end(true, false);

        let sent = opener.life.shared.send(&[0; DATAGRAM_BYTES_MAX + 1]);

        assert_eq!(sent, Err(SendError::TooLong));
    }

    #[test]
    fn a_flow_id_in_use_is_refused() {
        let opener = end(true, false);
        let keys = FlowKeys::new(&[5; SECRET_BYTES], true);

        let again = opener.table.enter(GATEWAY, manner(), FlowId(1), true, keys);

        assert_eq!(again.err(), Some(TableError::InUse));
    }
}
