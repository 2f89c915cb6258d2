//! The receiving half of the socket: far ends, their lanes, and what is ready for quinn.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use overway_wire::frame::{FrameEcn, PAYLOAD_BYTES_MAX};
use overway_wire::{Address, Class, FlowId};
use quinn::udp::{EcnCodepoint, RecvMeta};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::{FAR_ENDS_MAX, Restart};
use crate::address;
use crate::fabric::Inbound;
use crate::reorder::{Reorder, Verdict};
use crate::replay::{Replay, ReplayWindow};
use crate::stats::Counters;

/// The receiving half.
pub(super) struct Incoming {
    pub(super) receiver: mpsc::Receiver<Vec<Inbound>>,
    restarts: mpsc::Sender<Restart>,
    far_ends: HashMap<Address, FarEnd>,
    /// Lanes that hold frames.
    holding: BTreeSet<(Address, Class)>,
    ready: VecDeque<Packet>,
    timer: Option<Pin<Box<Sleep>>>,
}

struct FarEnd {
    incarnation: FlowId,
    /// Frames of this one are strays.
    previous: Option<FlowId>,
    lanes: BTreeMap<Class, Lane>,
    heard: Instant,
}

/// The frames of one far end and class.
enum Lane {
    /// Never held back; duplicates are dropped.
    Realtime(Box<ReplayWindow>),
    /// Put back in order.
    Ordered { order: Box<Reorder<Packet>>, gaps_counted: u64 },
}

struct Packet {
    from: SocketAddr,
    ecn: EcnCodepoint,
    payload: Bytes,
}

impl Incoming {
    pub(super) fn new(
        receiver: mpsc::Receiver<Vec<Inbound>>,
        restarts: mpsc::Sender<Restart>,
    ) -> Self {
        Self {
            receiver,
            restarts,
            far_ends: HashMap::new(),
            holding: BTreeSet::new(),
            ready: VecDeque::new(),
            timer: None,
        }
    }

    /// The incarnation that a far end bears now, if it was heard.
    pub(super) fn incarnation_of(&self, far: Address) -> Option<FlowId> {
        self.far_ends.get(&far).map(|far_end| far_end.incarnation)
    }

    /// Puts a session frame in its lane; what is in order becomes ready.
    pub(super) fn sort(&mut self, frame: Inbound, now: Instant, counters: &Counters) {
        let Inbound { source, class, flow, sequence, .. } = frame;
        if frame.payload.len() > PAYLOAD_BYTES_MAX {
            return counters.frames_unexpected.increment();
        }
        self.know(source, flow, now, counters);
        let Some(far_end) = self.far_ends.get_mut(&source) else { return };
        far_end.heard = now;
        if far_end.previous == Some(flow) {
            return counters.frames_stale.increment();
        }
        let bytes = frame.payload.len();
        let from = address::to_socket(source, class);
        let packet = Packet { from, ecn: codepoint(frame.ecn), payload: frame.payload };
        match far_end.lanes.entry(class).or_insert_with(|| Lane::new(class)) {
            Lane::Realtime(window) => match window.insert(sequence) {
                Replay::New => self.ready.push_back(packet),
                Replay::Duplicate | Replay::Old => counters.frames_duplicate.increment(),
            },
            Lane::Ordered { order, gaps_counted } => {
                match order.handle_frame(sequence, bytes, packet, now, &mut self.ready) {
                    Verdict::InOrder => return,
                    Verdict::Held => counters.frames_held.increment(),
                    Verdict::Filled => counters.frames_reordered.increment(),
                    Verdict::Late => counters.frames_late.increment(),
                    Verdict::Duplicate => counters.frames_duplicate.increment(),
                }
                counters.gaps_given_up.add_growth(gaps_counted, order.gaps_given_up());
                if order.poll_timeout().is_some() {
                    self.holding.insert((source, class));
                } else {
                    self.holding.remove(&(source, class));
                }
            }
        }
    }

    /// Makes a place for a far end that was not heard before, or not as this incarnation.
    fn know(&mut self, source: Address, flow: FlowId, now: Instant, counters: &Counters) {
        if let Some(far_end) = self.far_ends.get_mut(&source) {
            if far_end.incarnation == flow || far_end.previous == Some(flow) {
                return;
            }
            for (class, lane) in std::mem::take(&mut far_end.lanes) {
                if let Lane::Ordered { mut order, .. } = lane {
                    order.flush(&mut self.ready);
                }
                self.holding.remove(&(source, class));
            }
            far_end.previous = Some(std::mem::replace(&mut far_end.incarnation, flow));
            counters.far_restarts.increment();
            // Full: the sessions' own time-out finds it out.
            let _ = self.restarts.try_send((source, flow));
            return;
        }
        if self.far_ends.len() >= FAR_ENDS_MAX {
            self.forget_quietest();
        }
        let lanes = BTreeMap::new();
        let far_end = FarEnd { incarnation: flow, previous: None, lanes, heard: now };
        self.far_ends.insert(source, far_end);
    }

    /// Makes room for a far end: the one that was not heard for longest goes.
    fn forget_quietest(&mut self) {
        let quietest = self.far_ends.iter().min_by_key(|(_, far_end)| far_end.heard);
        let Some(address) = quietest.map(|(&address, _)| address) else { return };
        self.far_ends.remove(&address);
        for class in Class::ALL {
            self.holding.remove(&(address, class));
        }
    }

    /// Fills quinn's buffers with what is ready; returns how many.
    pub(super) fn give(
        &mut self,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
        counters: &Counters,
    ) -> usize {
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some(Packet { from, ecn, payload }) = self.ready.pop_front() else { break };
            let len = payload.len().min(buf.len());
            buf[..len].copy_from_slice(&payload[..len]);
            *meta = RecvMeta { addr: from, len, stride: len, ecn: Some(ecn), dst_ip: None };
            count += 1;
        }
        counters.frames_received.add(count as u64);
        count
    }

    /// Gives up gaps that were waited for long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant, counters: &Counters) {
        let Self { far_ends, holding, ready, .. } = self;
        holding.retain(|&(source, class)| {
            let lane = far_ends.get_mut(&source).and_then(|far_end| far_end.lanes.get_mut(&class));
            let Some(Lane::Ordered { order, gaps_counted }) = lane else { return false };
            order.handle_timeout(now, ready);
            counters.gaps_given_up.add_growth(gaps_counted, order.gaps_given_up());
            order.poll_timeout().is_some()
        });
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let deadline = |&(source, class): &(Address, Class)| match self
            .far_ends
            .get(&source)?
            .lanes
            .get(&class)?
        {
            Lane::Realtime(_) => None,
            Lane::Ordered { order, .. } => order.poll_timeout(),
        };
        self.holding.iter().filter_map(deadline).min()
    }

    /// Ready when a gap is to be given up.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.poll_timeout() else { return Poll::Pending };
        let deadline = tokio::time::Instant::from_std(deadline);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

impl Lane {
    fn new(class: Class) -> Self {
        match class {
            Class::Realtime => Self::Realtime(Box::default()),
            Class::Interactive | Class::Bulk => {
                Self::Ordered { order: Box::new(Reorder::new()), gaps_counted: 0 }
            }
        }
    }
}

/// Every session frame was sent by an end that reacts to marks, whatever a relay made of that. Saying so
/// keeps quinn's check of the marks content.
fn codepoint(ecn: FrameEcn) -> EcnCodepoint {
    match ecn {
        FrameEcn::NotCapable | FrameEcn::Capable => EcnCodepoint::Ect0,
        FrameEcn::CongestionExperienced => EcnCodepoint::Ce,
    }
}
