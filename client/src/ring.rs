//! Frames that were sent over an attachment and of which its relay has not said that they came.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use overway_session::Outbound;
use overway_wire::{Class, Millis, Redundancy};

/// Frames kept at most, 5 MB; beyond it the oldest is forgotten.
const FRAMES_MAX: usize = 4_096;
/// What is older has been replaced by whoever sent it, as on links.
const AGE_MAX: Duration = Duration::from_secs(1);

/// A frame on its way to a relay.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) frame: Outbound,
    /// When it was taken in.
    pub(crate) at: Instant,
    /// Whether it is the second of two.
    pub(crate) is_copy: bool,
    /// Whether the other attachment has had it too.
    pub(crate) is_covered: bool,
}

/// The frames, by the numbers that the attachment gave them.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    frames: VecDeque<(u32, Sent)>,
}

impl Ring {
    /// Takes note of a frame that is sent now.
    pub(crate) fn push(&mut self, number: u32, sent: Sent, now: Instant) {
        while self.frames.len() >= FRAMES_MAX || self.oldest_is_stale(now) {
            self.frames.pop_front();
        }
        self.frames.push_back((number, sent));
    }

    /// Everything before `next` has come, or is lost and the ends' business.
    pub(crate) fn acknowledge(&mut self, next: u32) {
        let is_before = |number: u32| next.wrapping_sub(number).cast_signed() > 0;
        while self.frames.front().is_some_and(|&(number, _)| is_before(number)) {
            self.frames.pop_front();
        }
    }

    /// Copies of the frames that the other attachment has not had, of those that want copies.
    pub(crate) fn copy(&mut self, now: Instant) -> Vec<Sent> {
        let frames = self.frames.iter_mut().map(|(_, sent)| sent);
        let mut copies = Vec::new();
        for sent in frames.filter(|sent| !sent.is_covered && wants_copies(&sent.frame)) {
            sent.is_covered = true;
            copies.extend(aged(sent.clone(), now));
        }
        copies
    }

    /// Takes out the frames that the other attachment has not had.
    pub(crate) fn drain(&mut self, now: Instant) -> Vec<Sent> {
        let frames = self.frames.drain(..).map(|(_, sent)| sent);
        frames.filter(|sent| !sent.is_covered).filter_map(|sent| aged(sent, now)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn oldest_is_stale(&self, now: Instant) -> bool {
        let oldest = self.frames.front();
        oldest.is_some_and(|(_, sent)| now.saturating_duration_since(sent.at) > AGE_MAX)
    }
}

/// Whether a frame may go over two attachments, or two ways.
pub(crate) fn wants_copies(frame: &Outbound) -> bool {
    match frame.redundancy {
        Redundancy::Off => false,
        Redundancy::Adaptive | Redundancy::Always => frame.class != Class::Bulk,
    }
}

/// A frame with the time since it was taken in off its budget; `None` if that is used up, or the frame too old.
pub(crate) fn aged(mut sent: Sent, now: Instant) -> Option<Sent> {
    let age = now.saturating_duration_since(sent.at);
    if age > AGE_MAX {
        return None;
    }
    if sent.frame.budget != Millis(u16::MAX) {
        let left = Duration::from(sent.frame.budget).checked_sub(age)?;
        sent.frame.budget = left.into();
        sent.at = now;
    }
    Some(sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::tests::frame;
    use overway_wire::Class;

    fn sent(sequence: u64, at: Instant) -> Sent {
        Sent { frame: frame(Class::Realtime, sequence), at, is_copy: false, is_covered: false }
    }

    fn sequences(frames: Vec<Sent>) -> Vec<u64> {
        frames.into_iter().map(|sent| sent.frame.sequence).collect()
    }

    #[test]
    fn what_was_acknowledged_is_not_sent_again_and_nothing_is_copied_twice() {
        let now = Instant::now();
        let mut ring = Ring::default();
        for (number, sequence) in [(u32::MAX - 1, 0), (u32::MAX, 1), (0, 2), (1, 3)] {
            ring.push(number, sent(sequence, now), now);
        }
        ring.acknowledge(0);
        ring.acknowledge(u32::MAX);

        assert_eq!(sequences(ring.copy(now)), [2, 3]);
        ring.push(2, sent(4, now), now);
        assert_eq!(sequences(ring.copy(now)), [4]);
        ring.push(3, sent(5, now), now);
        assert_eq!(sequences(ring.drain(now)), [5]);
        assert!(ring.drain(now).is_empty());
    }

    #[test]
    fn what_is_old_is_forgotten_and_time_comes_off_the_budget() {
        let start = Instant::now();
        let mut ring = Ring::default();
        let limited = |sequence, budget, at| {
            let mut sent = sent(sequence, at);
            sent.frame.budget = Millis(budget);
            sent
        };
        ring.push(0, sent(0, start), start);
        ring.push(1, limited(1, 50, start), start);
        ring.push(2, limited(2, 500, start), start);
        let now = start + Duration::from_millis(100);
        let copies = ring.copy(now);
        assert_eq!(copies[1].frame.budget, Millis(400));
        assert_eq!(sequences(copies), [0, 2]);

        let late = start + Duration::from_millis(1_001);
        ring.push(3, sent(3, late), late);
        for number in 4..10_000 {
            ring.push(number, sent(number.into(), late), late);
        }
        let left = sequences(ring.drain(late));
        assert_eq!((left.len(), left[0]), (FRAMES_MAX, 10_000 - FRAMES_MAX as u64));
    }
}
