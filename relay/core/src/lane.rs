//! The queues in front of one lane's connection, and the ring behind it.
//!
//! ```text
//! frame --> class --> tenant's queue --+
//!           class --> tenant's queue --+--> classes --> ages, CoDel --> shaper --> number, ring --> connection
//!                     tenant's queue --+    (share)    (drop) (mark)   (link's)
//! ```
//!
//! **Which class goes next** ([`classes`], [`share`]). The realtime lane holds realtime frames only, so they never
//! wait behind others. On the bulk lane interactive frames go before bulk ones, of which an eighth of the
//! bytes goes first all the same, so that neither waits for ever.
//!
//! **Which tenant** ([`fair`]). Within a class tenants take turns by bytes: deficit round robin.
//!
//! **What has waited too long.** A realtime frame is dropped when its time budget is used up, any frame above a hard
//! age. Nothing else is dropped for waiting. Below that a queue that builds up says so: CoDel ([`codel`]) marks
//! frames whose ends react to marks. Each tenant's queue has a state of its own, as in RFC 8290: frames of a
//! tenant that sends little hardly wait, and one state for all would take that for a good queue and
//! never mark the tenant that fills it.
//!
//! **What when there is no room.** Bytes are bounded for the lane. Room is made in the lowest class that takes more
//! than an eighth of them: what can wait gives way, and yet keeps room for its share. There the tenant whose
//! frames take most gives its oldest one, so that who floods loses his own frames and who comes with a first
//! frame is let in. The oldest, because those behind it are worth more to whoever has waited that long, and
//! its gap tells the sender soonest (RFC 8290 section 4.1.2).
//!
//! **What a frame costs** is its bytes and what its datagram takes on the wire beside. All of the above count in
//! that, so small frames cannot take more of the line, or of memory, than they pay for.
//!
//! What never happens: frames of one tenant and class overtake one another; a frame that comes in looks at more
//! than 256 queues, once, and once more for each frame that gives way to it; an allocation for a frame, beyond the
//! growth of one table.

mod classes;
mod codel;
mod fair;
pub(crate) mod shaper;
mod share;
mod store;

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use overway_wire::frame::{FrameEcn, HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX};
use overway_wire::{Class, Header, Millis, hop};

use crate::ring::{Entry, Ring};
use crate::{Config, DropReason};
use classes::Classes;
pub(crate) use store::Left;

/// What a frame's datagram takes on the wire beside the frame: the hop message's number, what QUIC adds (flags, an
/// eight byte connection id, packet number, frame type and length, tag: 32) and UDP over IPv6 (48).
const DATAGRAM_BYTES: usize = hop::DATA_PREFIX_BYTES + 32 + 48;
/// What the longest frame costs.
const COST_MAX: usize = HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX + DATAGRAM_BYTES;

/// One data lane of a link, as the sender sees it.
#[derive(Debug)]
pub(crate) struct LaneState {
    classes: Classes,
    pub(crate) ring: Ring,
    /// Whether its connection stands.
    pub(crate) open: bool,
    /// Whether the shell has been asked to open it.
    pub(crate) wanted: bool,
}

/// A frame that waits for its connection.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) header: Header,
    pub(crate) payload: Bytes,
    /// Whether a copy has gone over a detour.
    pub(crate) copied: bool,
    /// What it costs the line; its length does not change while it waits.
    cost: u32,
    since: Instant,
}

/// Why a queue dropped a frame that it had taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shed {
    /// It gave way to another.
    Full,
    /// It was older than any frame may be.
    Aged,
    /// Its time budget was used up.
    Expired,
}

impl Shed {
    const ALL: [Self; 3] = [Self::Full, Self::Aged, Self::Expired];

    fn reason(self) -> DropReason {
        match self {
            Self::Full => DropReason::QueueFull,
            Self::Aged => DropReason::QueueAge,
            Self::Expired => DropReason::Expired,
        }
    }
}

/// Counts of dropped frames by [`Shed`].
pub(crate) type Untold = [u64; 3];

/// What the queues of one class have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Frames that were taken in, since the start.
    pub queued: u64,
    /// Frames that wait.
    pub waiting: u64,
    /// What these cost on the wire.
    pub waiting_bytes: u64,
    /// Frames marked because a queue was building up, or marked before when they were due.
    pub marked: u64,
    /// Frames that gave way to others for want of room.
    pub evicted: u64,
    /// Frames dropped because they were older than any may be.
    pub aged: u64,
    /// Frames dropped because their time budget was used up.
    pub expired: u64,
    /// The longest that any frame has waited.
    pub waited_max: Duration,
}

impl QueueStats {
    /// Adds what another queue has seen.
    pub(crate) fn add(&mut self, other: &Self) {
        // Destructured, so that none is forgotten.
        let Self { queued, waiting, waiting_bytes, marked, evicted, aged, expired, waited_max } =
            *other;
        self.queued += queued;
        self.waiting += waiting;
        self.waiting_bytes += waiting_bytes;
        self.marked += marked;
        self.evicted += evicted;
        self.aged += aged;
        self.expired += expired;
        self.waited_max = self.waited_max.max(waited_max);
    }

    fn count(&mut self, shed: Shed) {
        match shed {
            Shed::Full => self.evicted += 1,
            Shed::Aged => self.aged += 1,
            Shed::Expired => self.expired += 1,
        }
    }
}

impl Queued {
    #[inline]
    fn new(header: &Header, payload: Bytes, copied: bool, since: Instant) -> Self {
        let cost = header.encoded_len() + payload.len() + DATAGRAM_BYTES;
        let cost = u32::try_from(cost).expect("a frame came in a datagram or is shorter than one");
        Self { header: *header, payload, copied, cost, since }
    }

    fn cost(&self) -> usize {
        self.cost as usize
    }

    /// Bytes of header and payload.
    pub(crate) fn bytes(&self) -> usize {
        self.cost() - DATAGRAM_BYTES
    }

    /// Takes the time in the queue off the budget. What that uses up is still sent: it is as late as the
    /// end says it may be, and the next hop decides.
    pub(crate) fn spend_waiting(&mut self, now: Instant) {
        let waited = self.waited(now);
        if self.header.budget != Millis(u16::MAX) && !waited.is_zero() {
            self.header.budget = Duration::from(self.header.budget).saturating_sub(waited).into();
        }
    }

    /// Nearly always nothing at all: what comes in goes out at the same moment.
    fn waited(&self, now: Instant) -> Duration {
        if self.since == now { Duration::ZERO } else { now.saturating_duration_since(self.since) }
    }

    /// Marks it as having met a queue that was building up; says whether its ends react to that.
    fn mark(&mut self) -> bool {
        match self.header.ecn {
            FrameEcn::NotCapable => return false,
            FrameEcn::Capable | FrameEcn::CongestionExperienced => {}
        }
        self.header.ecn = FrameEcn::CongestionExperienced;
        true
    }
}

impl LaneState {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            classes: Classes::new(config.queue_bytes_max),
            ring: Ring::new(config.ring_bytes_max, config.ring_age_max),
            open: false,
            wanted: false,
        }
    }

    /// Puts a frame at the end of its queue. If there is no room others give way, which
    /// [`Self::take_shed`] tells.
    ///
    /// # Errors
    /// [`DropReason::QueueFull`]: there is no room, and no class that takes more than its share of it has
    /// anything to give.
    #[inline]
    pub(crate) fn push(
        &mut self,
        header: &Header,
        payload: Bytes,
        copied: bool,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.classes.push_back(Queued::new(header, payload, copied, now))
    }

    /// Takes the next frame out, marked if its queue is building up; `None` if there is none, or if its header and
    /// payload are longer than this. [`Self::release`] is to follow.
    #[inline]
    pub(crate) fn pop(&mut self, config: &Config, bytes_max: usize, now: Instant) -> Option<Left> {
        let cost_max = bytes_max.saturating_add(DATAGRAM_BYTES);
        self.classes.pop(config.queue_age_max, cost_max, now)
    }

    /// A frame that was taken out.
    #[inline]
    pub(crate) fn left(&mut self, left: &Left) -> &mut Queued {
        self.classes.left(left)
    }

    /// Drops a frame that was taken out.
    #[inline]
    pub(crate) fn release(&mut self, left: Left) {
        self.classes.release(left);
    }

    /// Whether anything was dropped since the last time that was asked.
    #[inline]
    pub(crate) fn has_shed(&self) -> bool {
        self.classes.has_untold()
    }

    /// What was dropped since the last time, by reason.
    pub(crate) fn take_shed(&mut self) -> impl Iterator<Item = (DropReason, u64)> + use<> {
        let untold = self.classes.take_untold();
        Shed::ALL.into_iter().map(move |shed| (shed.reason(), untold[shed as usize]))
    }

    /// What the queue of a class has seen.
    pub(crate) fn stats(&self, class: Class) -> QueueStats {
        self.classes.stats(class)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Every frame that waits, higher classes first, and each tenant's in order.
    pub(crate) fn waiting(&mut self) -> impl Iterator<Item = &mut Queued> {
        self.classes.waiting()
    }

    /// Throws the queues away and says how many frames they held.
    pub(crate) fn clear(&mut self) -> usize {
        self.classes.drain().len()
    }

    /// Takes everything that the neighbour may not have: the ring, then the queues.
    pub(crate) fn take_unacknowledged(&mut self, now: Instant) -> (Vec<Entry>, Vec<Queued>) {
        (self.ring.take(now), self.classes.drain())
    }

    /// Puts what was sent and not acknowledged back in front of the queues, the newest as far as there is
    /// room.
    pub(crate) fn requeue_unacknowledged(&mut self, now: Instant) {
        for entry in self.ring.take(now).into_iter().rev() {
            let Ok((header, payload)) = Header::decode(&entry.frame) else { continue };
            let payload = entry.frame.slice_ref(payload);
            let queued = Queued::new(&header, payload, entry.copied, entry.sent);
            if !self.classes.push_front(queued) {
                return;
            }
        }
    }
}

/// What a hop message with a frame costs the line.
pub(crate) fn message_cost(message: &Bytes) -> usize {
    message.len() - hop::DATA_PREFIX_BYTES + DATAGRAM_BYTES
}

/// Writes a numbered frame as a hop message.
pub(crate) fn encode(number: u32, header: &Header, payload: &[u8]) -> Bytes {
    let bytes = hop::DATA_PREFIX_BYTES + header.encoded_len() + payload.len();
    let mut message = BytesMut::with_capacity(bytes);
    hop::encode_data_prefix(number, &mut message);
    header.encode(&mut message);
    message.put_slice(payload);
    message.freeze()
}

#[cfg(test)]
pub(crate) mod tests;
