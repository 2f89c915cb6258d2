//! Frames sent on a lane and not yet acknowledged: what a detour gets when the neighbour falls silent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Frames of one lane, oldest first, bounded in age and bytes; the oldest leaves first.
#[derive(Debug)]
pub(crate) struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    age_max: Duration,
}

#[derive(Debug)]
pub(crate) struct Entry {
    number: u32,
    pub(crate) sent: Instant,
    pub(crate) frame: Bytes,
    /// Whether a copy has gone over a detour.
    pub(crate) copied: bool,
}

impl Ring {
    pub(crate) fn new(bytes_max: usize, age_max: Duration) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max, age_max }
    }

    /// Keeps a frame that went out as `number`; numbers only rise (wrapping).
    pub(crate) fn push(&mut self, number: u32, frame: Bytes, copied: bool, now: Instant) {
        self.bytes += frame.len();
        self.entries.push_back(Entry { number, sent: now, frame, copied });
        self.trim(now);
    }

    fn trim(&mut self, now: Instant) {
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

    /// Forgets every frame numbered before `next`: the neighbour has it, or has seen a later one.
    pub(crate) fn acknowledge(&mut self, next: u32) {
        while self.entries.front().is_some_and(|oldest| is_before(oldest.number, next)) {
            self.pop();
        }
    }

    /// Every frame that is still young enough, oldest first.
    pub(crate) fn young(&mut self, now: Instant) -> impl Iterator<Item = &mut Entry> {
        self.trim(now);
        self.entries.iter_mut()
    }

    /// Takes out every frame that is still young enough, oldest first.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<Entry> {
        self.trim(now);
        self.bytes = 0;
        self.entries.drain(..).collect()
    }
}

/// Whether `number` comes before `other` in wrapping order (RFC 1982).
fn is_before(number: u32, other: u32) -> bool {
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

        ring.acknowledge(0);

        assert_eq!(frames(ring.take(now)), [frame(2), frame(3)]);
        assert_eq!(ring.bytes, 0);
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
