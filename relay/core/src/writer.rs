//! Writes hop messages with frames.
//!
//! Messages are written one after another into blocks of memory, of which each takes its part: some fifty large
//! ones share an allocation. A block is written again when the last of them is forgotten, the one that was filled last
//! first, for that is the nearest to the processor: blocks that a burst has filled once lie idle until the next one.
//!
//! **Bundles.** Small frames that wait at the same time share a message, as many as fit, so that what each datagram
//! costs (the connection, the frame type, the length) is paid once for all of them. No frame waits for others: a
//! bundle is what was there.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use overway_wire::hop::{self, MESSAGE_BYTES_MAX};

use crate::lane::Queued;

/// Bytes of a block.
const BLOCK_BYTES: usize = 64 << 10;
/// Blocks that are kept in sight, full or free again, two megabytes; the rest is the allocator's.
const BLOCKS_MAX: usize = 32;
/// No header and payload that is longer than this begins a shared message: two of them would not fit. A longer one may
/// join what a short one began.
const BUNDLED_BYTES_MAX: usize =
    (MESSAGE_BYTES_MAX - hop::BUNDLE_PREFIX_BYTES) / 2 - hop::BUNDLE_LENGTH_BYTES;

/// Writes one message at a time.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    block: BytesMut,
    /// Blocks with messages that may still be kept, the one that was filled first in front.
    full: VecDeque<BytesMut>,
    /// Blocks whose messages are all forgotten, the one that was filled last on top.
    free: Vec<BytesMut>,
    pieces: Vec<Piece>,
    is_bundle: bool,
}

/// A frame within the message.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) number: u32,
    /// Whether a copy of it has gone over a detour.
    pub(crate) copied: bool,
    pub(crate) place: Range<usize>,
}

/// Whether a frame of so many bytes may begin a shared message.
pub(crate) fn is_small(bytes: usize) -> bool {
    bytes <= BUNDLED_BYTES_MAX
}

impl Writer {
    /// Begins a message whose first frame has this number: a bundle, or one of a single frame.
    pub(crate) fn begin(&mut self, number: u32, is_bundle: bool) {
        if self.block.capacity() < MESSAGE_BYTES_MAX {
            self.turn();
        }
        self.is_bundle = is_bundle;
        self.pieces.clear();
        match is_bundle {
            true => hop::encode_bundle_prefix(number, &mut self.block),
            false => hop::encode_data_prefix(number, &mut self.block),
        }
    }

    /// Goes on in another block: one that is free again, or a new one.
    #[cold]
    fn turn(&mut self) {
        for _ in 0..self.full.len() {
            let Some(mut block) = self.full.pop_front() else { break };
            match block.try_reclaim(BLOCK_BYTES) {
                true => self.free.push(block),
                false => self.full.push_back(block),
            }
        }
        let next = self.free.pop().unwrap_or_else(|| BytesMut::with_capacity(BLOCK_BYTES));
        let full = std::mem::replace(&mut self.block, next);
        if full.capacity() == 0 {
            return;
        }
        // None is free then.
        if self.full.len() == BLOCKS_MAX {
            self.full.pop_front();
        }
        self.full.push_back(full);
    }

    /// How many bytes of header and payload still fit.
    pub(crate) fn room(&self) -> usize {
        let length = if self.is_bundle { hop::BUNDLE_LENGTH_BYTES } else { 0 };
        MESSAGE_BYTES_MAX.saturating_sub(self.block.len() + length)
    }

    /// Adds a frame. The number is one more than that of the last.
    #[inline]
    pub(crate) fn add(&mut self, number: u32, queued: &Queued) {
        let bytes = queued.bytes();
        if self.is_bundle {
            let bytes = u16::try_from(bytes).expect("a frame is shorter than a datagram");
            self.block.extend_from_slice(&bytes.to_be_bytes());
        }
        let start = self.block.len();
        queued.header.encode(&mut self.block);
        self.block.extend_from_slice(&queued.payload);
        self.pieces.push(Piece { number, copied: queued.copied, place: start..start + bytes });
    }

    /// The message, and where its frames are.
    pub(crate) fn finish(&mut self) -> (Bytes, std::vec::Drain<'_, Piece>) {
        (self.block.split().freeze(), self.pieces.drain(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::tests::queued;
    use overway_wire::Class;

    fn written(writer: &mut Writer, number: u32) -> Bytes {
        writer.begin(number, false);
        writer.add(number, &queued(Class::Bulk, 0, number.into(), 1_000));
        writer.finish().0
    }

    #[test]
    fn blocks_are_written_again_when_their_messages_are_forgotten_and_not_before() {
        let mut writer = Writer::default();
        let mut kept: VecDeque<(Bytes, Vec<u8>)> = VecDeque::new();
        let mut places = std::collections::BTreeSet::new();
        for number in 0..10_000 {
            let message = written(&mut writer, number);
            places.insert(message.as_ptr() as usize / BLOCK_BYTES);
            let copy = message.to_vec();
            kept.push_back((message, copy));
            if kept.len() > 200 {
                let (message, copy) = kept.pop_front().unwrap();
                assert_eq!(message, copy, "what is kept is not written to");
            }
        }
        // 200 messages take four blocks; each lies in one or two of these places.
        assert!(places.len() <= 14, "{} places", places.len());
        assert!(writer.full.len() + writer.free.len() <= 6);
    }

    #[test]
    fn what_a_burst_has_filled_lies_idle_after_it() {
        let mut writer = Writer::default();
        let burst: Vec<Bytes> = (0..1_000).map(|number| written(&mut writer, number)).collect();
        drop(burst);
        let mut places = std::collections::BTreeSet::new();
        let mut last = None;
        for number in 0..10_000 {
            let message = written(&mut writer, number);
            places.insert(message.as_ptr() as usize / BLOCK_BYTES);
            last = Some(message);
        }
        assert!(last.is_some() && places.len() <= 6, "{} places", places.len());
    }

    #[test]
    fn a_message_that_is_never_forgotten_costs_its_block_and_no_other() {
        let mut writer = Writer::default();
        let held = written(&mut writer, 0);
        let copy = held.to_vec();
        for number in 1..10_000 {
            written(&mut writer, number);
        }
        assert_eq!(held, copy);
        assert!(writer.full.len() + writer.free.len() <= 3);
    }

    #[test]
    fn blocks_out_of_sight_are_bounded() {
        let mut writer = Writer::default();
        let kept: Vec<Bytes> = (0..10_000).map(|number| written(&mut writer, number)).collect();
        assert_eq!(writer.full.len(), BLOCKS_MAX);
        assert_eq!(kept.len(), 10_000);
    }
}
