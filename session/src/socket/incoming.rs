//! The receiving half of the socket: far ends, their lanes, and what is ready for quinn.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_wire::frame::{FrameEcn, PAYLOAD_BYTES_MAX};
use overway_wire::notice::Notice;
use overway_wire::{Address, AttachmentId, Class, FlowId, PolicyId};
use quinn::udp::{EcnCodepoint, RecvMeta};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::incarnations::{Heard, Incarnations};
use super::{FAR_ENDS_MAX, Naming, Telling};
use crate::address;
use crate::fabric::Inbound;
use crate::names;
use crate::order_delay::Ordered;
use crate::reorder::{Reorder, Verdict};
use crate::replay::{Outrun, Replay, ReplayWindow};
use crate::stats::Counters;
use crate::terms::{self, Terms};

/// A far end with sessions that was not heard for so long is hailed: it may have started anew, and QUIC's
/// own probes become rarer and rarer. Shorter than the keep-alive, for a small frame costs little.
const QUIET: Duration = Duration::from_secs(3);
/// Between two hails of a quiet far end.
const QUIET_HAIL_EVERY: Duration = Duration::from_secs(1);
/// Hails that are due at once at most; those who were hailed last wait.
const HAILS_MAX: usize = 1_024;

/// From so many on, of those whose order connections know, the ones are looked for that nobody knows any more.
const ORDERED_TIDY: usize = 1_024;

/// Lanes of one far end: three classes under a dozen policies, of two incarnations. A frame of a further
/// one takes the place of the lane that was not heard for longest, whose far end loses order, not frames.
const LANES_MAX: usize = 72;

/// The receiving half.
pub(super) struct Incoming {
    pub(super) receiver: mpsc::Receiver<Vec<Inbound>>,
    telling: Telling,
    naming: Naming,
    far_ends: HashMap<Address, FarEnd>,
    /// Lanes that hold frames.
    holding: BTreeSet<(Address, LaneKey)>,
    /// Far ends with an incarnation to be hailed.
    challenged: BTreeSet<Address>,
    /// What connections know of their lanes' order.
    ordered: HashMap<(Address, Terms), Weak<Ordered>>,
    /// From so many on those are looked for that nobody knows any more.
    ordered_max: usize,
    ready: VecDeque<Packet>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Each incarnation numbers its frames by terms.
type LaneKey = (FlowId, Terms);

struct FarEnd {
    incarnations: Incarnations,
    /// Of the incarnations that live, two at most; [`LANES_MAX`] in all.
    lanes: BTreeMap<LaneKey, Lane>,
    heard: Instant,
    hailed: Option<Instant>,
}

/// The frames of one far end, incarnation and terms.
struct Lane {
    heard: Instant,
    order: Order,
}

enum Order {
    /// Never held back; duplicates are dropped.
    Realtime { window: Box<ReplayWindow>, outrun: Outrun },
    /// Put back in order.
    Restored(Box<Restored>),
}

struct Restored {
    order: Reorder<Packet>,
    gaps_counted: u64,
    thrown_counted: u64,
    /// What connections know of it, if there is any.
    ordered: Option<Arc<Ordered>>,
}

struct Packet {
    from: SocketAddr,
    ecn: EcnCodepoint,
    payload: Bytes,
}

impl Incoming {
    pub(super) fn new(
        receiver: mpsc::Receiver<Vec<Inbound>>,
        telling: Telling,
        naming: Naming,
    ) -> Self {
        Self {
            receiver,
            telling,
            naming,
            far_ends: HashMap::new(),
            holding: BTreeSet::new(),
            challenged: BTreeSet::new(),
            ordered: HashMap::new(),
            ordered_max: ORDERED_TIDY,
            ready: VecDeque::new(),
            timer: None,
        }
    }

    /// The incarnation of a far end that was heard last on these terms.
    pub(super) fn incarnation_of(&self, far: Address, terms: Terms) -> Option<FlowId> {
        let lanes = self.far_ends.get(&far)?.lanes.iter().filter(|((_, of), _)| *of == terms);
        lanes.max_by_key(|(_, lane)| lane.heard).map(|(&(flow, _), _)| flow)
    }

    /// The order of a far end's frames on these terms, for a connection to know.
    pub(super) fn ordered(&mut self, far: Address, terms: Terms) -> Arc<Ordered> {
        if self.ordered.len() >= self.ordered_max {
            self.ordered.retain(|_, ordered| ordered.strong_count() > 0);
            self.ordered_max = ORDERED_TIDY.max(self.ordered.len() * 2);
        }
        let known = self.ordered.entry((far, terms)).or_default();
        let ordered = known.upgrade().unwrap_or_default();
        *known = Arc::downgrade(&ordered);
        let lanes = self.far_ends.get_mut(&far).into_iter().flat_map(|far| &mut far.lanes);
        for (_, lane) in lanes.filter(|((_, of), _)| *of == terms) {
            if let Order::Restored(lane) = &mut lane.order {
                lane.ordered = Some(Arc::clone(&ordered));
            }
        }
        ordered
    }

    /// Takes a relay's word that nobody is where a frame went, of that relay's own ends only.
    pub(super) fn hear_notice(&self, frame: &Inbound, counters: &Counters) {
        match Notice::decode(&frame.payload) {
            Ok(Notice::Unattached(end))
                if frame.source == Address::new(end.relay, AttachmentId::RELAY) =>
            {
                // Full: it is said again with the next frames.
                let _ = self.telling.unattached.try_send(end);
            }
            Ok(Notice::Unattached(_) | Notice::Unreachable { .. }) | Err(_) => {
                counters.frames_unexpected.increment();
            }
        }
    }

    /// Puts a session frame in its lane; what is in order becomes ready.
    pub(super) fn sort(&mut self, frame: Inbound, now: Instant, counters: &Counters) {
        let Inbound { class, sequence, .. } = frame;
        let (flow, redundancy) = (terms::incarnation(frame.flow), terms::redundancy(frame.flow));
        if frame.payload.len() > PAYLOAD_BYTES_MAX {
            return counters.frames_unexpected.increment();
        }
        let Some((source, policy, from)) = self.name_of(&frame, now) else {
            return counters.frames_stale.increment();
        };
        let key = (flow, Terms { class, policy, redundancy });
        match from {
            names::From::Home => {}
            names::From::NewHome => self.drop_lanes(source, now, |_, _| false),
            names::From::Elsewhere | names::From::Sought => {
                if from == names::From::Sought {
                    // Full: a later frame says it again.
                    let _ = self.telling.sought.try_send(source);
                }
                let from = address::to_socket(source, key.1);
                let ecn = codepoint(frame.ecn);
                return self.ready.push_back(Packet { from, ecn, payload: frame.payload });
            }
        }
        if !self.know(source, flow, now, counters) {
            return counters.frames_stale.increment();
        }
        self.make_room(source, key, now);
        let Some(far_end) = self.far_ends.get_mut(&source) else { return };
        far_end.heard = now;
        let bytes = frame.payload.len();
        let from = address::to_socket(source, key.1);
        let packet = Packet { from, ecn: codepoint(frame.ecn), payload: frame.payload };
        let lane = far_end.lanes.entry(key).or_insert_with(|| {
            let ordered = self.ordered.get(&(source, key.1)).and_then(Weak::upgrade);
            Lane::new(class, ordered, now)
        });
        lane.heard = now;
        match &mut lane.order {
            Order::Realtime { window, outrun } => {
                match window.insert_or_restart(outrun, sequence, now) {
                    Replay::New => self.ready.push_back(packet),
                    Replay::Duplicate | Replay::Old => counters.frames_duplicate.increment(),
                }
            }
            Order::Restored(lane) => {
                let verdict =
                    lane.order.handle_frame(sequence, bytes, packet, now, &mut self.ready);
                lane.tell(verdict);
                match verdict {
                    Verdict::InOrder => return,
                    Verdict::Held => counters.frames_held.increment(),
                    Verdict::Filled => counters.frames_reordered.increment(),
                    Verdict::Late => counters.frames_late.increment(),
                    Verdict::Duplicate => counters.frames_duplicate.increment(),
                }
                lane.count(counters);
                if lane.order.poll_timeout().is_some() {
                    self.holding.insert((source, key));
                } else {
                    self.holding.remove(&(source, key));
                }
            }
        }
    }

    /// The far end of a frame, the policy of its terms, and where it comes from. The policy under which an edge's
    /// frames travel is its tenant's, written by relays, and no term of its sessions.
    fn name_of(
        &mut self,
        frame: &Inbound,
        now: Instant,
    ) -> Option<(Address, PolicyId, names::From)> {
        let names = match &self.naming {
            Naming::ByAddress(_) => {
                return Some((frame.source, frame.policy, names::From::Home));
            }
            Naming::ByName(names) => Arc::clone(names),
        };
        let heard = names.hear(frame.source, terms::incarnation(frame.flow), now);
        for dropped in names.take_dropped() {
            self.forget(dropped);
        }
        match heard {
            names::Heard::Name { name, from } => Some((name, PolicyId::default(), from)),
            names::Heard::Nobody => None,
        }
    }

    /// Makes a place for a far end that was not heard before, or not as this incarnation. Whether its
    /// frame is to be taken.
    fn know(&mut self, source: Address, flow: FlowId, now: Instant, counters: &Counters) -> bool {
        let Some(far_end) = self.far_ends.get_mut(&source) else {
            if self.far_ends.len() >= FAR_ENDS_MAX {
                self.forget_quietest();
            }
            let (incarnations, lanes) = (Incarnations::new(flow), BTreeMap::new());
            let far_end = FarEnd { incarnations, lanes, heard: now, hailed: None };
            self.far_ends.insert(source, far_end);
            return true;
        };
        match far_end.incarnations.handle_frame(flow, now) {
            Heard::Known => {}
            Heard::Stray => return false,
            Heard::Changed => self.drop_lanes(source, now, Incarnations::lives),
            Heard::Ended(ended) => {
                self.drop_lanes(source, now, Incarnations::lives);
                counters.far_restarts.increment();
                // Full: the sessions' own time-out finds it out.
                let _ = self.telling.restarts.try_send((source, ended));
            }
        }
        if self.far_ends.get(&source).is_some_and(|far_end| far_end.incarnations.is_challenged(now))
        {
            self.challenged.insert(source);
        } else {
            self.challenged.remove(&source);
        }
        true
    }

    /// Makes room for a far end's new lane, if this is one and there are too many.
    fn make_room(&mut self, source: Address, key: LaneKey, now: Instant) {
        let Self { far_ends, holding, ready, .. } = self;
        let Some(FarEnd { lanes, .. }) = far_ends.get_mut(&source) else { return };
        if lanes.len() < LANES_MAX || lanes.contains_key(&key) {
            return;
        }
        let quietest = lanes.iter().min_by_key(|(_, lane)| lane.heard).map(|(&key, _)| key);
        let Some(quietest) = quietest else { return };
        if let Some(Lane { order: Order::Restored(mut lane), .. }) = lanes.remove(&quietest) {
            lane.order.flush(now, ready);
        }
        holding.remove(&(source, quietest));
    }

    /// Drops the lanes of incarnations that are not to stay; QUIC gets what they held.
    fn drop_lanes(
        &mut self,
        source: Address,
        now: Instant,
        stays: impl Fn(&Incarnations, FlowId) -> bool,
    ) {
        let Self { far_ends, holding, ready, .. } = self;
        let Some(FarEnd { incarnations, lanes, .. }) = far_ends.get_mut(&source) else { return };
        lanes.retain(|&key, lane| {
            if stays(incarnations, key.0) {
                return true;
            }
            if let Order::Restored(lane) = &mut lane.order {
                lane.order.flush(now, ready);
            }
            holding.remove(&(source, key));
            false
        });
    }

    /// Far ends to be hailed now: whose incarnation is challenged, and those of `standing` that were not
    /// heard for a while.
    pub(super) fn hails_due(&mut self, standing: &BTreeSet<Address>, now: Instant) -> Vec<Address> {
        let Self { far_ends, challenged, .. } = self;
        challenged.retain(|address| {
            far_ends.get(address).is_some_and(|far_end| far_end.incarnations.is_challenged(now))
        });
        let is_quiet =
            |address: &&Address| far_ends.get(address).is_some_and(|far_end| far_end.is_quiet(now));
        let mut due: Vec<_> =
            challenged.iter().chain(standing.difference(challenged).filter(is_quiet)).collect();
        due.sort_by_key(|&address| far_ends.get(address).and_then(|far_end| far_end.hailed));
        due.truncate(HAILS_MAX);
        due.into_iter().copied().collect()
    }

    /// Takes notice of a hail that was sent.
    pub(super) fn handle_hail(&mut self, far: Address, now: Instant) {
        if let Some(far_end) = self.far_ends.get_mut(&far) {
            far_end.hailed = Some(now);
            far_end.incarnations.handle_hail();
        }
    }

    /// Makes room for a far end: the one that was not heard for longest goes.
    fn forget_quietest(&mut self) {
        let quietest = self.far_ends.iter().min_by_key(|(_, far_end)| far_end.heard);
        let Some(address) = quietest.map(|(&address, _)| address) else { return };
        self.forget(address);
    }

    fn forget(&mut self, address: Address) {
        let lanes = self.far_ends.remove(&address).map(|far_end| far_end.lanes);
        for key in lanes.into_iter().flat_map(BTreeMap::into_keys) {
            self.holding.remove(&(address, key));
        }
        self.challenged.remove(&address);
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
        holding.retain(|(source, key)| {
            let lane = far_ends.get_mut(source).and_then(|far_end| far_end.lanes.get_mut(key));
            let Some(Order::Restored(lane)) = lane.map(|lane| &mut lane.order) else {
                return false;
            };
            lane.order.handle_timeout(now, ready);
            lane.tell(Verdict::Filled);
            lane.count(counters);
            lane.order.poll_timeout().is_some()
        });
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let deadline = |(source, key): &(Address, LaneKey)| match &self
            .far_ends
            .get(source)?
            .lanes
            .get(key)?
            .order
        {
            Order::Realtime { .. } => None,
            Order::Restored(lane) => lane.order.poll_timeout(),
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

impl FarEnd {
    fn is_quiet(&self, now: Instant) -> bool {
        let since = |then: Instant| now.saturating_duration_since(then);
        since(self.heard) >= QUIET
            && self.hailed.is_none_or(|hailed| since(hailed) >= QUIET_HAIL_EVERY)
    }
}

impl Lane {
    fn new(class: Class, ordered: Option<Arc<Ordered>>, now: Instant) -> Self {
        let order = match class {
            Class::Realtime => {
                Order::Realtime { window: Box::default(), outrun: Outrun::default() }
            }
            Class::Interactive | Class::Bulk => Order::Restored(Box::new(Restored {
                order: Reorder::new(),
                gaps_counted: 0,
                thrown_counted: 0,
                ordered,
            })),
        };
        Self { heard: now, order }
    }
}

impl Restored {
    /// Tells the lane's connections how long what passes was held, and that something is.
    fn tell(&mut self, verdict: Verdict) {
        let passed = self.order.take_delay();
        let Some(ordered) = &self.ordered else { return };
        ordered.pass(passed);
        if verdict == Verdict::Held {
            ordered.hold();
        }
    }

    fn count(&mut self, counters: &Counters) {
        counters.gaps_given_up.add_growth(&mut self.gaps_counted, self.order.gaps_given_up());
        counters.frames_thrown_away.add_growth(&mut self.thrown_counted, self.order.thrown_away());
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

#[cfg(test)]
mod tests;
