//! Flows between ends, and the ends' replay windows.
//!
//! A flow sends a frame each period and numbers them. An end at a relay belongs to that relay's process:
//! if either process of a flow is started anew, the flow is over, and another one takes its place, as a
//! session would be opened anew. An end that is attached to two relays has a process of its own: such a flow
//! outlives both relays, and takes what comes at either as one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use overway_relay_core::{Delivered, LocalFrame};
use overway_wire::{
    Address, BootId, Class, FlowId, FrameKind, Millis, Path, PolicyId, Redundancy, RelayId,
};

/// Numbers below the greatest seen that an end tells apart, as a session's ends do.
const WINDOW: u64 = 1_024;
/// Deliveries that a flow remembers: five seconds at 50 frames a second.
const DELIVERIES_MAX: usize = 256;
/// A frame's budget; longer than anything here takes.
const BUDGET: Millis = Millis(10_000);

/// Which of the recent numbers were seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReplayWindow {
    next: u64,
    /// Of the numbers before `next`, the latest last.
    seen: VecDeque<bool>,
}

impl ReplayWindow {
    /// Whether the number is new; it is not any more.
    pub(crate) fn take(&mut self, sequence: u64) -> bool {
        while self.next <= sequence {
            self.next += 1;
            self.seen.push_back(false);
        }
        while self.seen.len() as u64 > WINDOW {
            self.seen.pop_front();
        }
        let first = self.next - self.seen.len() as u64;
        let place = sequence.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        let seen = place.and_then(|at| self.seen.get_mut(at));
        seen.is_some_and(|seen| !std::mem::replace(seen, true))
    }
}

/// A frame that reached the far end, as the first of its copies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) sequence: u64,
    pub(crate) at: Instant,
    /// The relays that it came over.
    pub(crate) path: Path,
}

/// Where a flow comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    /// The destination's other address, if it is attached twice.
    pub(crate) alternate: Option<Address>,
}

/// A flow.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) id: FlowId,
    pub(crate) ends: Ends,
    /// Whether its frames say so if the destination has another address.
    pub(crate) tells_alternate: bool,
    pub(crate) class: Class,
    /// The number of its tenant; 0: of none.
    pub(crate) policy: PolicyId,
    pub(crate) redundancy: Redundancy,
    pub(crate) period: Duration,
    /// Of each frame's payload.
    pub(crate) bytes: usize,
    /// The processes at both ends when it was opened.
    pub(crate) boots: (BootId, BootId),
    /// The next number.
    pub(crate) next: u64,
    pub(crate) window: ReplayWindow,
    /// Numbers passed to the application, whatever the window says: the truth that it is checked by.
    passed: Vec<u64>,
    pub(crate) deliveries: VecDeque<Delivery>,
}

impl Flow {
    pub(crate) fn new(
        id: FlowId,
        ends: Ends,
        (class, policy, redundancy): (Class, PolicyId, Redundancy),
        (period, bytes): (Duration, usize),
        boots: (BootId, BootId),
    ) -> Self {
        Self {
            id,
            ends,
            tells_alternate: true,
            class,
            policy,
            redundancy,
            period,
            bytes,
            boots,
            next: 0,
            window: ReplayWindow::default(),
            passed: Vec::new(),
            deliveries: VecDeque::new(),
        }
    }

    /// The next frame.
    pub(crate) fn frame(&mut self) -> LocalFrame {
        let sequence = self.next;
        self.next += 1;
        let kind = match self.class {
            Class::Realtime => FrameKind::Datagram,
            Class::Interactive | Class::Bulk => FrameKind::Session,
        };
        LocalFrame {
            source: self.ends.source.attachment,
            destination: self.ends.destination,
            alternate: self.ends.alternate.filter(|_| self.tells_alternate),
            kind,
            class: self.class,
            policy: self.policy,
            redundancy: self.redundancy,
            flow: self.id,
            sequence,
            budget: BUDGET,
            payload: payload(self.id, sequence, self.bytes),
        }
    }

    /// Whether a frame delivered at a relay is one of this flow's, as it was sent and where it was sent.
    pub(crate) fn owns(&self, at: RelayId, delivered: &Delivered) -> bool {
        let address = Address::new(at, delivered.attachment);
        let there = address == self.ends.destination || Some(address) == self.ends.alternate;
        there
            && delivered.source == self.ends.source
            && delivered.class == self.class
            && delivered.policy == self.policy
            && delivered.sequence < self.next
            && delivered.payload == payload(self.id, delivered.sequence, self.bytes)
    }

    /// Notes a frame that passed the window; says whether it is the first with its number.
    pub(crate) fn pass(&mut self, delivery: Delivery) -> bool {
        let (word, bit) = (delivery.sequence / 64, 1 << (delivery.sequence % 64));
        let word = usize::try_from(word).unwrap_or(usize::MAX);
        if self.passed.len() <= word {
            self.passed.resize(word + 1, 0);
        }
        let first = self.passed[word] & bit == 0;
        self.passed[word] |= bit;
        if self.deliveries.len() >= DELIVERIES_MAX {
            self.deliveries.pop_front();
        }
        self.deliveries.push_back(delivery);
        first
    }

    /// Whether the frame with this number was passed on.
    pub(crate) fn has_passed(&self, sequence: u64) -> bool {
        let word = usize::try_from(sequence / 64).unwrap_or(usize::MAX);
        self.passed.get(word).is_some_and(|word| word >> (sequence % 64) & 1 == 1)
    }
}

fn payload(flow: FlowId, sequence: u64, bytes: usize) -> Bytes {
    let mut payload = BytesMut::with_capacity(bytes.max(20));
    payload.put_u32(flow.0);
    payload.put_u64(sequence);
    payload.put_u64(sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(flow.0));
    payload.put_bytes(0, bytes.saturating_sub(20));
    payload.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_takes_each_number_once_and_none_that_is_too_old() {
        let mut window = ReplayWindow::default();

        assert!(window.take(3) && window.take(1) && !window.take(3) && !window.take(1));
        assert!(window.take(5_000));
        assert!(!window.take(2) && window.take(4_999) && !window.take(5_000 - WINDOW));
    }
}
