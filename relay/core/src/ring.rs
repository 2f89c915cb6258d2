//! Frames sent on a lane: what a neighbour may ask for again, and what a detour gets when it falls silent.
//!
//! ```text
//!   ... forgotten ... | may be asked for again ... | not acknowledged ...
//!                complete                     acknowledged
//! ```
//!
//! Before *complete* the neighbour has everything or has given it up. Between the two it lacks some, and says
//! which; from *acknowledged* on it is not known to have anything. A detour gets the latter, and what the
//! neighbour said it lacks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_wire::{Header, Millis};

/// So many frames are kept beyond their age for want of a look.
const TRIMMED_EVERY: usize = 32;

/// Frames of one lane, oldest first, bounded in age and bytes; the oldest leaves first.
#[derive(Debug)]
pub(crate) struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    age_max: Duration,
    /// One more than the greatest number that the neighbour has.
    acknowledged: u32,
}

#[derive(Debug)]
pub(crate) struct Entry {
    number: u32,
    pub(crate) sent: Instant,
    pub(crate) frame: Bytes,
    /// Whether a copy has gone over a detour.
    pub(crate) copied: bool,
    /// The neighbour has asked for it.
    pub(crate) missing: bool,
    /// How often it was sent again, and when last.
    pub(crate) tries: u8,
    pub(crate) resent: Option<Instant>,
}

impl Ring {
    pub(crate) fn new(bytes_max: usize, age_max: Duration) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max, age_max, acknowledged: 0 }
    }

    /// Keeps a frame that went out as `number`, the one after the last (wrapping).
    pub(crate) fn push(&mut self, number: u32, frame: Bytes, copied: bool, now: Instant) {
        self.bytes += frame.len();
        let (missing, tries, resent) = (false, 0, None);
        self.entries.push_back(Entry { number, sent: now, frame, copied, missing, tries, resent });
        // Ages are looked at now and then, and whenever frames are taken out.
        if self.bytes > self.bytes_max || self.entries.len().is_multiple_of(TRIMMED_EVERY) {
            self.trim(now);
        }
    }

    /// Forgets what is too old, and the oldest while there is too much.
    pub(crate) fn trim(&mut self, now: Instant) {
        while let Some(oldest) = self.entries.front() {
            let old = now.saturating_duration_since(oldest.sent) > self.age_max;
            if !old && self.bytes <= self.bytes_max {
                break;
            }
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.frame.len();
        Some(entry)
    }

    /// The neighbour has seen a frame right before `next`, and asks for none before `complete`.
    pub(crate) fn acknowledge(&mut self, next: u32, complete: u32) {
        self.acknowledged = next;
        while self.entries.front().is_some_and(|oldest| is_before(oldest.number, complete)) {
            self.pop();
        }
    }

    /// The frame with this number, if it is kept.
    pub(crate) fn entry(&mut self, number: u32) -> Option<&mut Entry> {
        let at = number.wrapping_sub(self.entries.front()?.number);
        let entry = self.entries.get_mut(usize::try_from(at).ok()?);
        entry.filter(|entry| entry.number == number)
    }

    /// Every frame that is young enough and that the neighbour may lack, oldest first.
    pub(crate) fn young(&mut self, now: Instant) -> impl Iterator<Item = &mut Entry> {
        self.trim(now);
        let acknowledged = self.acknowledged;
        self.entries.iter_mut().filter(move |entry| entry.is_lacking(acknowledged))
    }

    /// Forgets everything; returns what [`Self::young`] would.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<Entry> {
        self.trim(now);
        self.bytes = 0;
        let acknowledged = self.acknowledged;
        self.entries.drain(..).filter(|entry| entry.is_lacking(acknowledged)).collect()
    }
}

impl Entry {
    fn is_lacking(&self, acknowledged: u32) -> bool {
        self.missing || !is_before(self.number, acknowledged)
    }
}

/// The header and payload of a frame that was sent before, its budget less the time since; `None` if
/// that is used up.
pub(crate) fn reread(entry: &Entry, now: Instant) -> Option<(Header, Bytes)> {
    let (mut header, payload) = Header::decode(&entry.frame).ok()?;
    if header.budget != Millis(u16::MAX) {
        let waited = now.saturating_duration_since(entry.sent);
        header.budget = Duration::from(header.budget).checked_sub(waited)?.into();
    }
    Some((header, entry.frame.slice_ref(payload)))
}

/// Whether `number` comes before `other` in wrapping order (RFC 1982).
pub(crate) fn is_before(number: u32, other: u32) -> bool {
    number.wrapping_sub(other).cast_signed() < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE_MAX: Duration = Duration::from_millis(100);

    fn frame(byte: u8) -> Bytes {
        Bytes::from(vec![byte; 10])
    }

    fn frames(entries: Vec<Entry>) -> Vec<Bytes> {
        entries.into_iter().map(|entry| entry.frame).collect()
    }

    #[test]
    fn acknowledged_frames_are_not_replayed_even_across_the_wrap() {
        let now = Instant::now();
        let mut ring = Ring::new(1_000, AGE_MAX);
        for (byte, number) in (0..).zip([u32::MAX - 1, u32::MAX, 0, 1]) {
            ring.push(number, frame(byte), false, now);
        }

        ring.acknowledge(0, 0);

        assert_eq!(frames(ring.take(now)), [frame(2), frame(3)]);
        assert_eq!(ring.bytes, 0);
    }

    #[test]
    fn what_is_acknowledged_is_kept_until_it_is_complete_and_replayed_only_if_it_was_asked_for() {
        let now = Instant::now();
        let mut ring = Ring::new(1_000, AGE_MAX);
        for (byte, number) in (0..).zip([u32::MAX - 1, u32::MAX, 0, 1, 2]) {
            ring.push(number, frame(byte), false, now);
        }

        ring.acknowledge(1, u32::MAX);
        ring.entry(0).unwrap().missing = true;

        assert_eq!(ring.bytes, 40);
        assert!(ring.entry(u32::MAX - 1).is_none() && ring.entry(3).is_none());
        assert_eq!(ring.entry(u32::MAX).unwrap().frame, frame(1));
        assert_eq!(ring.young(now).count(), 3);
        assert_eq!(frames(ring.take(now)), [frame(2), frame(3), frame(4)]);
        assert!(ring.entry(u32::MAX).is_none());
    }

    #[test]
    fn the_oldest_leave_when_bytes_or_age_run_out() {
        let now = Instant::now();
        let mut ring = Ring::new(25, AGE_MAX);
        for number in 0..3_u8 {
            ring.push(number.into(), frame(number), false, now);
        }
        assert_eq!(ring.bytes, 20);

        let later = now + AGE_MAX * 2;
        ring.push(3, frame(3), false, later);

        assert_eq!(frames(ring.take(later)), [frame(3)]);
    }
}
