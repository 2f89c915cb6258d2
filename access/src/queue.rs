//! What waits to be written: heartbeats first, then frames by class, each on time or, if it is a realtime one, not at all.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_wire::access::AccessDatagram;
use overway_wire::{Class, Millis};
use tokio::sync::Notify;

/// Bytes of frames that wait, some 24 of the longest: more would wait here, where a loss stops everything, instead of
/// where another attachment could take it.
pub(crate) const QUEUE_BYTES_MAX: usize = 32 << 10;
/// Heartbeats that wait; the oldest goes, for a newer one says more.
const HEARTBEATS_MAX: usize = 4;
/// What a realtime frame has if it names no budget.
const BUDGET: Duration = Duration::from_secs(1);

/// The queue of one connection.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    heartbeats: VecDeque<Bytes>,
    classes: [VecDeque<Waiting>; Class::ALL.len()],
    bytes: usize,
    late: u64,
    is_closed: bool,
    /// What waits is still to be written, and nothing more.
    is_ending: bool,
}

#[derive(Debug)]
struct Waiting {
    datagram: Bytes,
    /// Nobody wants it after that.
    until: Option<Instant>,
}

impl Queue {
    /// Bytes that there is room for.
    pub(crate) fn room(&self) -> usize {
        QUEUE_BYTES_MAX.saturating_sub(self.state().bytes)
    }

    /// Puts a datagram in. Where there is no room for a frame, the oldest of the lowest class goes. What is no datagram is
    /// sent behind all others, for the far end to judge.
    pub(crate) fn put(&self, datagram: Bytes, now: Instant) {
        let mut state = self.state();
        if state.is_closed || state.is_ending {
            return;
        }
        match AccessDatagram::decode(&datagram) {
            Ok(AccessDatagram::Heartbeat(_)) => {
                if state.heartbeats.len() == HEARTBEATS_MAX {
                    state.heartbeats.pop_front();
                }
                state.heartbeats.push_back(datagram);
            }
            Ok(AccessDatagram::Frame(header, _)) => {
                let until = (header.class == Class::Realtime).then(|| {
                    let is_said = header.budget != Millis(u16::MAX);
                    now + if is_said { header.budget.into() } else { BUDGET }
                });
                state.put(header.class, Waiting { datagram, until });
            }
            Err(_) => state.put(Class::Bulk, Waiting { datagram, until: None }),
        }
        drop(state);
        self.filled.notify_one();
    }

    /// The next to write. Waits for one; may be cancelled without losing it. `None` after [`Self::end`], when all is taken.
    pub(crate) async fn next(&self) -> Option<Bytes> {
        loop {
            let filled = self.filled.notified();
            if let Some(datagram) = self.take(Instant::now()) {
                return Some(datagram);
            }
            if self.state().is_ending {
                return None;
            }
            filled.await;
        }
    }

    /// The next to write, if there is one. Realtime frames whose time is over are dropped, and counted.
    pub(crate) fn take(&self, now: Instant) -> Option<Bytes> {
        let mut state = self.state();
        let taken = state.take(now);
        drop(state);
        self.freed.notify_one();
        taken
    }

    /// Waits until there is room for so many bytes, or the queue is closed.
    pub(crate) async fn has_room(&self, bytes: usize) {
        loop {
            let freed = self.freed.notified();
            if self.takes_nothing() || self.room() >= bytes {
                return;
            }
            freed.await;
        }
    }

    fn takes_nothing(&self) -> bool {
        let state = self.state();
        state.is_closed || state.is_ending
    }

    /// Realtime frames that were dropped because their time was over.
    pub(crate) fn late(&self) -> u64 {
        self.state().late
    }

    /// Takes nothing more; what waits is still written.
    pub(crate) fn end(&self) {
        self.state().is_ending = true;
        self.filled.notify_one();
        self.freed.notify_one();
    }

    /// Takes nothing more, and throws away what waits.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        *state = State { late: state.late, is_closed: true, is_ending: true, ..State::default() };
        drop(state);
        self.filled.notify_one();
        self.freed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, class: Class, waiting: Waiting) {
        while self.bytes + waiting.datagram.len() > QUEUE_BYTES_MAX {
            let lowest = self.classes.iter_mut().rev().find_map(VecDeque::pop_front);
            let Some(Waiting { datagram, .. }) = lowest else { break };
            self.bytes -= datagram.len();
        }
        self.bytes += waiting.datagram.len();
        self.classes[usize::from(class.code())].push_back(waiting);
    }

    fn take(&mut self, now: Instant) -> Option<Bytes> {
        if let Some(heartbeat) = self.heartbeats.pop_front() {
            return Some(heartbeat);
        }
        loop {
            let Waiting { datagram, until } =
                self.classes.iter_mut().find_map(VecDeque::pop_front)?;
            self.bytes -= datagram.len();
            if until.is_none_or(|until| now <= until) {
                return Some(datagram);
            }
            self.late += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use overway_wire::access::{AccessHeader, Direction};
    use overway_wire::frame::FrameEcn;
    use overway_wire::{Address, AttachmentId, FlowId, FrameKind, Redundancy, RelayId};

    use super::*;

    fn frame(class: Class, budget: u16, sequence: u64) -> Bytes {
        let header = AccessHeader {
            direction: Direction::Up,
            number: 0,
            kind: FrameKind::Datagram,
            class,
            ecn: FrameEcn::Capable,
            redundancy: Redundancy::default(),
            copy: false,
            far: Address::new(RelayId(1), AttachmentId(7)),
            alternate: None,
            budget: Millis(budget),
            flow: FlowId(1),
            sequence,
        };
        header.with_payload(&[0; 1_000])
    }

    fn sequences(queue: &Queue, now: Instant) -> Vec<u64> {
        let taken = std::iter::from_fn(|| queue.take(now));
        let sequence = |datagram: Bytes| match AccessDatagram::decode(&datagram) {
            Ok(AccessDatagram::Frame(header, _)) => header.sequence,
            other => panic!("{other:?}"),
        };
        taken.map(sequence).collect()
    }

    #[test]
    fn realtime_goes_first_and_is_dropped_when_its_time_is_over() {
        let (queue, now) = (Queue::default(), Instant::now());
        queue.put(frame(Class::Bulk, 100, 1), now);
        queue.put(frame(Class::Interactive, 100, 2), now);
        queue.put(frame(Class::Realtime, 100, 3), now);
        queue.put(frame(Class::Realtime, 300, 4), now);
        queue.put(frame(Class::Realtime, u16::MAX, 5), now);

        assert_eq!(sequences(&queue, now + Duration::from_millis(200)), [4, 5, 2, 1]);
        assert_eq!((queue.late(), queue.room()), (1, QUEUE_BYTES_MAX));
        queue.put(frame(Class::Realtime, u16::MAX, 6), now);
        assert_eq!(sequences(&queue, now + Duration::from_millis(1_001)), []);
    }

    #[test]
    fn a_full_queue_loses_the_oldest_of_the_lowest_class_and_nothing_above() {
        let (queue, now) = (Queue::default(), Instant::now());
        for sequence in 0..20 {
            queue.put(frame(Class::Bulk, u16::MAX, sequence), now);
        }
        for sequence in 100..120 {
            queue.put(frame(Class::Realtime, u16::MAX, sequence), now);
        }
        let left = sequences(&queue, now);
        let held = QUEUE_BYTES_MAX / frame(Class::Bulk, 0, 0).len();
        let realtime: Vec<u64> = (100..120).collect();
        let bulk: Vec<u64> = (20 - (held as u64 - 20)..20).collect();
        assert_eq!(left, [realtime, bulk].concat());
    }

    #[tokio::test]
    async fn whoever_waits_for_room_is_told() {
        let queue = Queue::default();
        while queue.room() > 1_100 {
            queue.put(frame(Class::Bulk, u16::MAX, 0), Instant::now());
        }
        let taking = async {
            tokio::task::yield_now().await;
            while queue.take(Instant::now()).is_some() {}
        };
        tokio::join!(queue.has_room(10_000), taking);
        queue.close();
        queue.put(frame(Class::Bulk, u16::MAX, 0), Instant::now());
        assert_eq!(queue.take(Instant::now()), None);
    }
}
