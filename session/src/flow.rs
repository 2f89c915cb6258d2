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

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use overway_quality::FlowMeter;
use overway_wire::quality::{FlowKind, FlowReport};
use overway_wire::{Address, Class, FlowId, FrameKind, Millis, PolicyId, Redundancy, Whereabouts};
use quinn::Connection;
use tokio::sync::Notify;

use crate::fabric::{FabricSender, Inbound, Outbound};
use crate::far::Peer;
use crate::felt::Subject;
pub use crate::fragment::DATAGRAM_BYTES_MAX;
use crate::fragment::{self, Joined, Joiner};
use crate::names::Far;
use crate::replay::{Replay, ReplayWindow};
use crate::seal::{FlowKeys, SEQUENCE_MAX};
use crate::stats::Counters;

mod table;

pub(crate) use table::{FlowLife, FlowTable, Manner};

/// Set in the flow id of frames from the end that accepted the flow.
pub(crate) const ACCEPTED: u32 = 1 << 31;
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

#[cfg(test)]
mod tests;
