//! Writes hop messages with frames.
//!
//! Messages are written one after another into blocks of memory, of which each takes its part: some fifty large
//! ones share an allocation, and a block is given back when the last of them is.
//!
//! **Bundles.** Small frames that wait at the same time share a message, as many as fit, so that what each datagram
//! costs (the connection, the frame type, the length) is paid once for all of them. No frame waits for others: a
//! bundle is what was there.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use overway_wire::Header;
use overway_wire::hop::{self, MESSAGE_BYTES_MAX};

/// Bytes of a block.
const BLOCK_BYTES: usize = 64 << 10;
/// No header and payload that is longer than this begins a shared message: two of them would not fit. A longer one may
/// join what a short one began.
const BUNDLED_BYTES_MAX: usize =
    (MESSAGE_BYTES_MAX - hop::BUNDLE_PREFIX_BYTES) / 2 - hop::BUNDLE_LENGTH_BYTES;

/// Writes one message at a time.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    block: BytesMut,
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
            self.block = BytesMut::with_capacity(BLOCK_BYTES);
        }
        self.is_bundle = is_bundle;
        self.pieces.clear();
        match is_bundle {
            true => hop::encode_bundle_prefix(number, &mut self.block),
            false => hop::encode_data_prefix(number, &mut self.block),
        }
    }

    /// How many bytes of header and payload still fit.
    pub(crate) fn room(&self) -> usize {
        let length = if self.is_bundle { hop::BUNDLE_LENGTH_BYTES } else { 0 };
        MESSAGE_BYTES_MAX.saturating_sub(self.block.len() + length)
    }

    /// Adds a frame. The number is one more than that of the last.
    pub(crate) fn add(&mut self, number: u32, header: &Header, payload: &[u8], copied: bool) {
        let bytes = header.encoded_len() + payload.len();
        if self.is_bundle {
            let bytes = u16::try_from(bytes).expect("a frame is shorter than a datagram");
            self.block.extend_from_slice(&bytes.to_be_bytes());
        }
        let start = self.block.len();
        header.encode(&mut self.block);
        self.block.extend_from_slice(payload);
        self.pieces.push(Piece { number, copied, place: start..start + bytes });
    }

    /// The message, and where its frames are.
    pub(crate) fn finish(&mut self) -> (Bytes, std::vec::Drain<'_, Piece>) {
        (self.block.split().freeze(), self.pieces.drain(..))
    }
}
