//! The queues in front of one lane's connection, and the ring behind it.
//!
//! Interactive frames go before bulk ones, of which one in eight goes first all the same, so that neither
//! waits for ever. On the realtime lane there is one queue.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use overway_wire::{Class, Header, Millis, hop};

use crate::ring::{Entry, Ring};
use crate::{Config, DropReason};

/// One frame in this many is bulk when both wait: a floor of an eighth.
const BULK_TURN: u8 = 8;

/// One data lane of a link, as the sender sees it.
#[derive(Debug)]
pub(crate) struct LaneState {
    first: VecDeque<Queued>,
    bulk: VecDeque<Queued>,
    turn: u8,
    queue_bytes: usize,
    queue_bytes_max: usize,
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
    since: Instant,
}

impl Queued {
    fn bytes(&self) -> usize {
        self.header.encoded_len() + self.payload.len()
    }

    /// Takes the time in the queue off the budget. What that uses up is still sent: it is as late as the
    /// end says it may be, and the next hop decides.
    pub(crate) fn spend_waiting(&mut self, now: Instant) {
        if self.header.budget != Millis(u16::MAX) {
            let waited = now.saturating_duration_since(self.since);
            self.header.budget = Duration::from(self.header.budget).saturating_sub(waited).into();
        }
    }
}

impl LaneState {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            first: VecDeque::new(),
            bulk: VecDeque::new(),
            turn: 0,
            queue_bytes: 0,
            queue_bytes_max: config.queue_bytes_max,
            ring: Ring::new(config.ring_bytes_max, config.ring_age_max),
            open: false,
            wanted: false,
        }
    }

    /// Puts a frame at the end of its queue.
    ///
    /// # Errors
    /// [`DropReason::QueueFull`]: the newest is dropped, since those before it are closer to going out.
    pub(crate) fn push(
        &mut self,
        header: Header,
        payload: Bytes,
        copied: bool,
        now: Instant,
    ) -> Result<(), DropReason> {
        let queued = Queued { header, payload, copied, since: now };
        if self.queue_bytes + queued.bytes() > self.queue_bytes_max {
            return Err(DropReason::QueueFull);
        }
        self.queue_bytes += queued.bytes();
        self.queue_of(header.class).push_back(queued);
        Ok(())
    }

    fn queue_of(&mut self, class: Class) -> &mut VecDeque<Queued> {
        match class {
            Class::Realtime | Class::Interactive => &mut self.first,
            Class::Bulk => &mut self.bulk,
        }
    }

    /// Takes the next frame, and counts those dropped for their age before it.
    pub(crate) fn pop(&mut self, config: &Config, now: Instant) -> (Option<Queued>, u64) {
        let mut aged = 0;
        while let Some(queued) = self.take_next() {
            self.queue_bytes -= queued.bytes();
            if now.saturating_duration_since(queued.since) <= config.queue_age_max {
                return (Some(queued), aged);
            }
            aged += 1;
        }
        (None, aged)
    }

    fn take_next(&mut self) -> Option<Queued> {
        if self.bulk.is_empty() || self.first.is_empty() {
            return self.first.pop_front().or_else(|| self.bulk.pop_front());
        }
        self.turn = (self.turn + 1) % BULK_TURN;
        let queue = if self.turn == 0 { &mut self.bulk } else { &mut self.first };
        queue.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.bulk.is_empty()
    }

    /// Every frame that waits, interactive ones first.
    pub(crate) fn waiting(&mut self) -> impl Iterator<Item = &mut Queued> {
        self.first.iter_mut().chain(&mut self.bulk)
    }

    /// Throws the queues away and says how many frames they held.
    pub(crate) fn clear(&mut self) -> usize {
        self.queue_bytes = 0;
        self.first.drain(..).count() + self.bulk.drain(..).count()
    }

    /// Takes everything that the neighbour may not have: the ring, then the queues.
    pub(crate) fn take_unacknowledged(&mut self, now: Instant) -> (Vec<Entry>, Vec<Queued>) {
        self.queue_bytes = 0;
        (self.ring.take(now), self.first.drain(..).chain(self.bulk.drain(..)).collect())
    }

    /// Puts what was sent and not acknowledged back in front of the queues, as far as there is room.
    pub(crate) fn requeue_unacknowledged(&mut self, now: Instant) {
        for entry in self.ring.take(now).into_iter().rev() {
            let Ok((header, payload)) = Header::decode(&entry.frame) else { continue };
            let payload = entry.frame.slice_ref(payload);
            let queued = Queued { header, payload, copied: entry.copied, since: entry.sent };
            if self.queue_bytes + queued.bytes() > self.queue_bytes_max {
                return;
            }
            self.queue_bytes += queued.bytes();
            self.queue_of(header.class).push_front(queued);
        }
    }
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
mod tests {
    use super::*;
    use overway_probe::LocalClock;
    use overway_wire::frame::FrameEcn;
    use overway_wire::{
        Address, BootId, FlowId, FrameKind, LinkIndex, Path, PathElement, PolicyId, RelayId, Ticks,
    };

    fn header(class: Class) -> Header {
        let step = PathElement::new(RelayId(2), LinkIndex::default());
        Header {
            kind: FrameKind::Session,
            class,
            ecn: FrameEcn::Capable,
            copy: false,
            hops_left: 8,
            position: 0,
            policy: PolicyId::default(),
            source: Address::default(),
            destination: Address { relay: RelayId(2), ..Address::default() },
            budget: Millis(300),
            flow: FlowId(1),
            sequence: 0,
            path: Path::new(&[step]).unwrap(),
        }
    }

    fn lane(now: Instant) -> (LaneState, Config) {
        let config = Config::new(RelayId(1), BootId(1), LocalClock::new(now, Ticks(0), 0));
        (LaneState::new(&config), config)
    }

    #[test]
    fn interactive_frames_go_first_and_bulk_ones_get_an_eighth() {
        let now = Instant::now();
        let (mut lane, config) = lane(now);
        for _ in 0..16 {
            lane.push(header(Class::Bulk), Bytes::new(), false, now).unwrap();
            lane.push(header(Class::Interactive), Bytes::new(), false, now).unwrap();
        }

        let first: Vec<Class> =
            (0..16).map(|_| lane.pop(&config, now).0.unwrap().header.class).collect();

        assert_eq!(first.iter().filter(|&&class| class == Class::Bulk).count(), 2);
        assert_eq!(first[..7], [Class::Interactive; 7]);
    }

    #[test]
    fn what_waited_too_long_is_dropped_and_waiting_is_taken_off_the_budget() {
        let now = Instant::now();
        let (mut lane, config) = lane(now);
        lane.push(header(Class::Bulk), Bytes::new(), false, now).unwrap();
        let later = now + config.queue_age_max + Duration::from_millis(1);
        lane.push(header(Class::Bulk), Bytes::new(), false, later).unwrap();

        let (queued, aged) = lane.pop(&config, later + Duration::from_millis(100));
        let mut queued = queued.unwrap();
        queued.spend_waiting(later + Duration::from_millis(100));

        assert_eq!((aged, queued.header.budget), (1, Millis(200)));
        assert!(lane.is_empty() && lane.queue_bytes == 0);
    }
}
