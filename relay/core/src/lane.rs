//! The queue in front of one lane's connection, and the ring behind it.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use overway_wire::Header;

use crate::ring::{Entry, Ring};
use crate::{Config, DropReason};

/// One data lane of a link, as the sender sees it.
#[derive(Debug)]
pub(crate) struct LaneState {
    queue: VecDeque<Queued>,
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

impl LaneState {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            queue: VecDeque::new(),
            queue_bytes: 0,
            queue_bytes_max: config.queue_bytes_max,
            ring: Ring::new(config.ring_bytes_max, config.ring_age_max),
            open: false,
            wanted: false,
        }
    }

    /// Puts a frame at the end of the queue.
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
        let bytes = header.encoded_len() + payload.len();
        if self.queue_bytes + bytes > self.queue_bytes_max {
            return Err(DropReason::QueueFull);
        }
        self.queue_bytes += bytes;
        self.queue.push_back(Queued { header, payload, copied, since: now });
        Ok(())
    }

    /// Takes the next frame, and counts those dropped for their age before it.
    pub(crate) fn pop(&mut self, config: &Config, now: Instant) -> (Option<Queued>, u64) {
        let mut aged = 0;
        while let Some(queued) = self.queue.pop_front() {
            self.queue_bytes -= queued.header.encoded_len() + queued.payload.len();
            if now.saturating_duration_since(queued.since) <= config.queue_age_max {
                return (Some(queued), aged);
            }
            aged += 1;
        }
        (None, aged)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Throws the queue away and says how many frames it held.
    pub(crate) fn clear(&mut self) -> usize {
        self.queue_bytes = 0;
        self.queue.drain(..).count()
    }

    /// Takes everything that the neighbour may not have: the ring, then the queue.
    pub(crate) fn take_unacknowledged(&mut self, now: Instant) -> (Vec<Entry>, Vec<Queued>) {
        self.queue_bytes = 0;
        (self.ring.take(now), self.queue.drain(..).collect())
    }
}
