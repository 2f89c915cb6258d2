//! Hop messages: what one QUIC datagram between two neighbours holds.
//!
//! A link has up to three QUIC connections, its [`Lane`]s. Heartbeats go on the light lane, which is
//! never filled; numbered frames go on the others. Every message starts with a type byte:
//!
//! ```text
//! 0x01 data:       number u32 | frame
//! 0x02 heartbeat:  see Heartbeat
//! 0x03 nack:       lane u8 | ranges u8 | (first u32 | count u16) for each range
//! 0x04 tail probe: lane u8 | next u32
//! 0x05 bundle:     number u32 | (bytes u16 | frame) for each frame
//! 0x06 twin:       number u32 | frame
//! 0x07 received:   lane u8 | received next u32 | complete next u32
//! 0x08 repair:     see Repair
//! 0x09 padding:    anything
//! ```
//!
//! Integers are big-endian. Numbers count up by one per lane and direction from the start of the link's
//! incarnation and wrap; the receiver reads loss from their gaps, asks for what is missing by a NACK, and
//! is sent it again under the number that it had. A tail probe tells it of a last frame that has no
//! successor. A bundle is what as many data messages with consecutive numbers would be: small frames that
//! waited together share a datagram. Where many frames come between two heartbeats, a message of its own tells what was
//! received, so that the sender need not keep them all. A twin is a second copy, which nobody asked for, of a frame that was sent a moment
//! ago; it has a type of its own so that the loss of the first still shows. A repair is computed from several data
//! messages and bundles, of which one that is lost can be computed again. Padding says nothing: it shows whether a long packet
//! gets through.

mod heartbeat;
mod repair;

use bytes::BufMut;

use crate::Class;

pub use heartbeat::{Heard, Heartbeat};
pub use repair::{
    REPAIR_BYTES_MAX, REPAIR_MESSAGES_MAX, REPAIR_PREFIX_BYTES, REPAIRS_MAX, Repair, Slots,
};

/// Bytes of UDP payload that a path must carry to be a link's: the longest message and repair, in a QUIC packet. One
/// number for the whole mesh, since a frame goes on over any link.
pub const LINK_MTU: u16 = 1_304;
/// Bytes before the frame in a data message.
pub const DATA_PREFIX_BYTES: usize = 5;
/// Bytes before the first length of a bundle.
pub const BUNDLE_PREFIX_BYTES: usize = 5;
/// Bytes before each frame of a bundle.
pub const BUNDLE_LENGTH_BYTES: usize = 2;
/// Bytes of the longest hop message: what a link's MTU must carry as one QUIC datagram.
pub const MESSAGE_BYTES_MAX: usize =
    DATA_PREFIX_BYTES + crate::frame::HEADER_BYTES_MAX + crate::frame::PAYLOAD_BYTES_MAX;

const DATA: u8 = 0x01;
const HEARTBEAT: u8 = 0x02;
const NACK: u8 = 0x03;
const TAIL: u8 = 0x04;
const BUNDLE: u8 = 0x05;
const RECEIVED: u8 = 0x07;
const TWIN: u8 = 0x06;
const REPAIR: u8 = 0x08;
const PADDING: u8 = 0x09;
/// No frame is shorter: so a datagram is no bundle of more frames than its bytes could be worth.
const FRAME_BYTES_MIN: usize = crate::frame::FIXED_BYTES + crate::frame::ELEMENT_BYTES;
/// Ranges in one NACK: one burst of scattered losses, in a datagram that any link carries.
pub const NACK_RANGES_MAX: usize = 64;
/// Numbers that one NACK asks for: a sender looks at the first so many and passes over the rest, so that the
/// smallest message cannot ask for the greatest work.
pub const NACK_NUMBERS_MAX: u32 = 512;
const NACK_RANGE_BYTES: usize = 6;

/// Which of a link's QUIC connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Heartbeats and notices; never filled.
    Light,
    /// Realtime frames.
    Realtime,
    /// Interactive and bulk frames.
    Bulk,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 3] = [Self::Light, Self::Realtime, Self::Bulk];
    /// The lanes that carry numbered frames, in the order of [`Heartbeat`]'s arrays.
    pub const DATA: [Self; 2] = [Self::Realtime, Self::Bulk];

    /// The lane of a class's frames.
    pub const fn of(class: Class) -> Self {
        match class {
            Class::Realtime => Self::Realtime,
            Class::Interactive | Class::Bulk => Self::Bulk,
        }
    }

    /// The number it travels as when a connection says which lane it is.
    pub const fn code(self) -> u8 {
        match self {
            Self::Light => 0,
            Self::Realtime => 1,
            Self::Bulk => 2,
        }
    }

    /// The lane that travels as `code`.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Light),
            1 => Some(Self::Realtime),
            2 => Some(Self::Bulk),
            _ => None,
        }
    }

    /// Its place in [`Self::DATA`], or `None` for the light lane.
    pub const fn data_index(self) -> Option<usize> {
        match self {
            Self::Light => None,
            Self::Realtime => Some(0),
            Self::Bulk => Some(1),
        }
    }

    /// Its name in output and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Realtime => "realtime",
            Self::Bulk => "bulk",
        }
    }
}

/// A hop message, borrowed from its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopMessage<'a> {
    /// A numbered frame.
    Data {
        /// Its number in the lane.
        number: u32,
        /// Header and payload; see [`crate::Header::decode`].
        frame: &'a [u8],
    },
    /// Frames with consecutive numbers.
    Bundle {
        /// The number of the first.
        number: u32,
        /// Each of them.
        frames: BundleFrames<'a>,
    },
    /// A second copy of a numbered frame, which was not asked for.
    Twin {
        /// The frame's number in the lane.
        number: u32,
        /// Header and payload.
        frame: &'a [u8],
    },
    /// What lost data messages and bundles can be computed from.
    Repair(Repair<'a>),
    /// A heartbeat.
    Heartbeat(Heartbeat),
    /// Frames that are missing, to be sent again.
    Nack {
        /// The lane whose numbers these are, never the light one.
        lane: Lane,
        /// Which.
        ranges: NackRanges<'a>,
    },
    /// What a heartbeat says of one lane, between two of them.
    Received {
        /// The lane, never the light one.
        lane: Lane,
        /// As in [`Heartbeat::received_next`].
        received_next: u32,
        /// As in [`Heartbeat::complete_next`].
        complete_next: u32,
    },
    /// Word of the last frame of a burst.
    Tail {
        /// The lane, never the light one.
        lane: Lane,
        /// One more than the last number sent on it.
        next: u32,
    },
    /// Nothing, at length.
    Padding,
}

/// Consecutive numbers, wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NackRange {
    /// The first of them.
    pub first: u32,
    /// How many.
    pub count: u16,
}

/// The ranges of a NACK, read from its datagram: at most [`NACK_RANGES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NackRanges<'a>(&'a [[u8; NACK_RANGE_BYTES]]);

impl NackRanges<'_> {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = NackRange> {
        self.0.iter().map(|&[a, b, c, d, high, low]| NackRange {
            first: u32::from_be_bytes([a, b, c, d]),
            count: u16::from_be_bytes([high, low]),
        })
    }
}

/// The frames of a bundle, read one by one. What is too short to be a frame, or longer than what is left, is told as an
/// error, once, and nothing after it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleFrames<'a>(&'a [u8]);

impl<'a> Iterator for BundleFrames<'a> {
    type Item = Result<&'a [u8], HopError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let frame = self.0.split_first_chunk().and_then(|(bytes, rest)| {
            let bytes = usize::from(u16::from_be_bytes(*bytes));
            rest.split_at_checked(bytes).filter(|_| bytes >= FRAME_BYTES_MIN)
        });
        let Some((frame, rest)) = frame else {
            self.0 = &[];
            return Some(Err(HopError::Truncated));
        };
        self.0 = rest;
        Some(Ok(frame))
    }
}

/// Why a datagram is no hop message. Also the label of the metric that counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum HopError {
    /// Empty, or shorter than its type needs.
    #[error("hop message is too short")]
    Truncated,
    /// A type that this build does not know.
    #[error("unknown hop message type")]
    Kind,
    /// About a lane that is none, or has no numbers.
    #[error("hop message about no data lane")]
    Lane,
    /// A repair of nothing, of more than one may be of, or one too many.
    #[error("repair of an impossible block")]
    Block,
}

/// Writes what stands before a frame in a data message.
pub fn encode_data_prefix(number: u32, out: &mut impl BufMut) {
    out.put_u8(DATA);
    out.put_u32(number);
}

/// Writes what stands before the first length of a bundle.
pub fn encode_bundle_prefix(number: u32, out: &mut impl BufMut) {
    out.put_u8(BUNDLE);
    out.put_u32(number);
}

/// Writes what stands before a frame in a twin: as many bytes as in a data message.
pub fn encode_twin_prefix(number: u32, out: &mut impl BufMut) {
    out.put_u8(TWIN);
    out.put_u32(number);
}

/// Writes a NACK. Of more than [`NACK_RANGES_MAX`] ranges the first are written.
pub fn encode_nack(lane: Lane, ranges: &[NackRange], out: &mut impl BufMut) {
    let ranges = &ranges[..ranges.len().min(NACK_RANGES_MAX)];
    out.put_u8(NACK);
    out.put_u8(lane.code());
    out.put_u8(u8::try_from(ranges.len()).expect("at most 64, see above"));
    for range in ranges {
        out.put_u32(range.first);
        out.put_u16(range.count);
    }
}

/// Writes a tail probe.
pub fn encode_tail(lane: Lane, next: u32, out: &mut impl BufMut) {
    out.put_u8(TAIL);
    out.put_u8(lane.code());
    out.put_u32(next);
}

/// Writes padding: a message of so many bytes, at least one.
pub fn encode_padding(bytes: usize, out: &mut impl BufMut) {
    out.put_u8(PADDING);
    out.put_bytes(0, bytes.saturating_sub(1));
}

/// Writes what was received of a lane.
pub fn encode_received(lane: Lane, received_next: u32, complete_next: u32, out: &mut impl BufMut) {
    out.put_u8(RECEIVED);
    out.put_u8(lane.code());
    out.put_u32(received_next);
    out.put_u32(complete_next);
}

impl<'a> HopMessage<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// Says why it is none. Bytes after the known fields are ignored except in data, so that later versions
    /// may add some.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, HopError> {
        let (&kind, rest) = datagram.split_first().ok_or(HopError::Truncated)?;
        match kind {
            DATA => {
                let (number, frame) = rest.split_first_chunk().ok_or(HopError::Truncated)?;
                Ok(Self::Data { number: u32::from_be_bytes(*number), frame })
            }
            BUNDLE => {
                let (number, frames) = rest.split_first_chunk().ok_or(HopError::Truncated)?;
                let number = u32::from_be_bytes(*number);
                Ok(Self::Bundle { number, frames: BundleFrames(frames) })
            }
            TWIN => {
                let (number, frame) = rest.split_first_chunk().ok_or(HopError::Truncated)?;
                Ok(Self::Twin { number: u32::from_be_bytes(*number), frame })
            }
            REPAIR => Repair::decode(rest).map(Self::Repair),
            HEARTBEAT => Heartbeat::decode(rest).map(Self::Heartbeat),
            NACK => {
                let (lane, rest) = data_lane(rest)?;
                let (&count, rest) = rest.split_first().ok_or(HopError::Truncated)?;
                let (ranges, _) = rest.as_chunks();
                let ranges = ranges.get(..usize::from(count)).ok_or(HopError::Truncated)?;
                let ranges = NackRanges(&ranges[..ranges.len().min(NACK_RANGES_MAX)]);
                Ok(Self::Nack { lane, ranges })
            }
            RECEIVED => {
                let (lane, rest) = data_lane(rest)?;
                let (received_next, rest) = rest.split_first_chunk().ok_or(HopError::Truncated)?;
                let (complete_next, _) = rest.split_first_chunk().ok_or(HopError::Truncated)?;
                let received_next = u32::from_be_bytes(*received_next);
                let complete_next = u32::from_be_bytes(*complete_next);
                Ok(Self::Received { lane, received_next, complete_next })
            }
            TAIL => {
                let (lane, rest) = data_lane(rest)?;
                let (next, _) = rest.split_first_chunk().ok_or(HopError::Truncated)?;
                Ok(Self::Tail { lane, next: u32::from_be_bytes(*next) })
            }
            PADDING => Ok(Self::Padding),
            _ => Err(HopError::Kind),
        }
    }
}

impl<'a> HopMessage<'a> {
    /// The frames that it holds, with their numbers: none, one, or those of a bundle that are whole.
    pub fn frames(self) -> impl Iterator<Item = (u32, &'a [u8])> {
        let (number, one, bundle) = match self {
            Self::Data { number, frame } | Self::Twin { number, frame } => {
                (number, Some(frame), None)
            }
            Self::Bundle { number, frames } => (number, None, Some(frames)),
            Self::Heartbeat(_)
            | Self::Nack { .. }
            | Self::Repair(_)
            | Self::Tail { .. }
            | Self::Received { .. }
            | Self::Padding => (0, None, None),
        };
        let frames = one.into_iter().chain(bundle.into_iter().flatten().flatten());
        (0..).zip(frames).map(move |(at, frame)| (number.wrapping_add(at), frame))
    }
}

/// Reads the code of a lane that has numbers.
fn data_lane(message: &[u8]) -> Result<(Lane, &[u8]), HopError> {
    let (&code, rest) = message.split_first().ok_or(HopError::Truncated)?;
    let lane = Lane::from_code(code).filter(|lane| lane.data_index().is_some());
    Ok((lane.ok_or(HopError::Lane)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_nack_has_these_bytes() {
        let ranges = [NackRange { first: u32::MAX, count: 3 }, NackRange { first: 7, count: 1 }];
        let golden = [3, 2, 2, 255, 255, 255, 255, 0, 3, 0, 0, 0, 7, 0, 1];
        let mut bytes = Vec::new();
        encode_nack(Lane::Bulk, &ranges, &mut bytes);

        assert_eq!(bytes, golden);
        for appended in [&[][..], &[9; 7]] {
            bytes.truncate(golden.len());
            bytes.extend_from_slice(appended);
            let Ok(HopMessage::Nack { lane, ranges: read }) = HopMessage::decode(&bytes) else {
                panic!("not a NACK: {bytes:?}");
            };
            assert_eq!((lane, read.iter().collect::<Vec<_>>()), (Lane::Bulk, ranges.to_vec()));
        }
    }

    #[test]
    fn a_tail_probe_has_these_bytes() {
        let mut bytes = Vec::new();
        encode_tail(Lane::Realtime, 0x0a0b_0c0d, &mut bytes);

        assert_eq!(bytes, [4, 1, 0x0a, 0x0b, 0x0c, 0x0d]);
        let expected = HopMessage::Tail { lane: Lane::Realtime, next: 0x0a0b_0c0d };
        assert_eq!(HopMessage::decode(&bytes), Ok(expected));
    }

    #[test]
    fn word_of_what_was_received_has_these_bytes() {
        let mut bytes = Vec::new();
        encode_received(Lane::Bulk, 0x0a0b_0c0d, 0x0102_0304, &mut bytes);

        assert_eq!(bytes, [7, 2, 0x0a, 0x0b, 0x0c, 0x0d, 1, 2, 3, 4]);
        let expected = HopMessage::Received {
            lane: Lane::Bulk,
            received_next: 0x0a0b_0c0d,
            complete_next: 0x0102_0304,
        };
        assert_eq!(HopMessage::decode(&bytes), Ok(expected));
        assert_eq!(HopMessage::decode(&bytes[..9]), Err(HopError::Truncated));
        assert_eq!(HopMessage::decode(&[7, 0]), Err(HopError::Lane));
    }

    #[test]
    fn a_nack_holds_so_many_ranges_and_fits_any_link() {
        let many = [NackRange { first: 1, count: 1 }; 2 * NACK_RANGES_MAX];
        let mut bytes = Vec::new();
        encode_nack(Lane::Bulk, &many, &mut bytes);
        assert!(bytes.len() <= MESSAGE_BYTES_MAX);

        bytes[2] = u8::MAX;
        assert_eq!(HopMessage::decode(&bytes), Err(HopError::Truncated));
        bytes.resize(2_000, 0);
        let Ok(HopMessage::Nack { ranges, .. }) = HopMessage::decode(&bytes) else {
            panic!("not a NACK");
        };
        assert_eq!(ranges.iter().count(), NACK_RANGES_MAX);
    }

    #[test]
    fn a_lane_without_numbers_and_a_cut_message_are_refused() {
        for code in [0, 3, 255] {
            assert_eq!(HopMessage::decode(&[3, code, 0]), Err(HopError::Lane));
            assert_eq!(HopMessage::decode(&[4, code, 0, 0, 0, 0]), Err(HopError::Lane));
        }
        for cut in [&[3][..], &[3, 1], &[3, 1, 1, 0, 0, 0, 0, 0], &[4], &[4, 1, 0, 0, 0]] {
            assert_eq!(HopMessage::decode(cut), Err(HopError::Truncated));
        }
    }

    #[test]
    fn a_data_message_has_these_bytes() {
        let mut bytes = Vec::new();
        encode_data_prefix(0x0a0b_0c0d, &mut bytes);
        bytes.extend_from_slice(b"frame");

        assert_eq!(bytes[..DATA_PREFIX_BYTES], [1, 0x0a, 0x0b, 0x0c, 0x0d]);
        let expected = HopMessage::Data { number: 0x0a0b_0c0d, frame: b"frame" };
        assert_eq!(HopMessage::decode(&bytes), Ok(expected));
    }

    #[test]
    fn a_bundle_has_these_bytes() {
        let frames = [[7; FRAME_BYTES_MIN], [8; FRAME_BYTES_MIN]];
        let mut bytes = Vec::new();
        encode_bundle_prefix(u32::MAX, &mut bytes);
        for frame in &frames {
            bytes.extend_from_slice(&[0, 31]);
            bytes.extend_from_slice(frame);
        }

        assert_eq!(bytes[..BUNDLE_PREFIX_BYTES], [5, 255, 255, 255, 255]);
        let read: Vec<_> = HopMessage::decode(&bytes).unwrap().frames().collect();
        assert_eq!(read, [(u32::MAX, &frames[0][..]), (0, &frames[1][..])]);
    }

    #[test]
    fn what_is_wrong_with_a_bundle_is_told_once_and_ends_it() {
        let short = [&[0, 3, 1, 2, 3][..], &[0, 0, 0, 0], &[0], &[0, 40, 1], &[255, 255, 1, 2]];
        for wrong in short {
            let mut bytes = Vec::new();
            encode_bundle_prefix(1, &mut bytes);
            bytes.extend_from_slice(&[0, 31]);
            bytes.extend_from_slice(&[9; FRAME_BYTES_MIN]);
            bytes.extend_from_slice(wrong);

            let Ok(HopMessage::Bundle { frames, .. }) = HopMessage::decode(&bytes) else {
                panic!("no bundle: {bytes:?}");
            };
            let read: Vec<_> = frames.collect();
            assert_eq!(read, [Ok(&[9; FRAME_BYTES_MIN][..]), Err(HopError::Truncated)]);
        }
        assert_eq!(HopMessage::decode(&[5, 0, 0, 0]), Err(HopError::Truncated));
    }

    #[test]
    fn a_twin_has_these_bytes() {
        let mut bytes = Vec::new();
        encode_twin_prefix(0x0a0b_0c0d, &mut bytes);
        bytes.extend_from_slice(b"frame");

        assert_eq!(bytes[..DATA_PREFIX_BYTES], [6, 0x0a, 0x0b, 0x0c, 0x0d]);
        let expected = HopMessage::Twin { number: 0x0a0b_0c0d, frame: b"frame" };
        assert_eq!(HopMessage::decode(&bytes), Ok(expected));
        assert_eq!(HopMessage::decode(&bytes[..4]), Err(HopError::Truncated));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            let _ = HopMessage::decode(&bytes);
        }
    }
}
