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
//! ```
//!
//! Integers are big-endian. Numbers count up by one per lane and direction from the start of the link's
//! incarnation and wrap; the receiver reads loss from their gaps, asks for what is missing by a NACK, and
//! is sent it again under the number that it had. A tail probe tells it of a last frame that has no
//! successor. A bundle is what as many data messages with consecutive numbers would be: small frames that
//! waited together share a datagram. Where many frames come between two heartbeats, a message of its own tells what was
//! received, so that the sender need not keep them all. A twin is a second copy, which nobody asked for, of a frame that was sent a moment
//! ago; it has a type of its own so that the loss of the first still shows.

use bytes::{Buf, BufMut};

use crate::{BootId, Class, LossPpm, Micros, Millis, Ticks};

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
/// No frame is shorter: so a datagram is no bundle of more frames than its bytes could be worth.
const FRAME_BYTES_MIN: usize = crate::frame::FIXED_BYTES + crate::frame::ELEMENT_BYTES;
/// After the type byte, up to the fields that every version has.
const HEARTBEAT_BYTES: usize = 4 + 4 + 8 + 1 + 8 + 4 + 4 + 2 + 2 + 4 * 4;
const HEARD_BIT: u8 = 1;

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

/// Sent on the light lane of every link in both directions: life, timing, and what was received. The
/// idea is BFD's (RFC 5880): each end says how often it sends and how often it wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The sending process; a change means that it was started anew and all counters with it.
    pub boot: BootId,
    /// Counts the heartbeats of this link and direction from zero; gaps are loss.
    pub number: u32,
    /// The sender's clock as it sent this.
    pub sent: Ticks,
    /// What the sender heard of the receiver, if anything yet.
    pub heard: Option<Heard>,
    /// The interval at which the sender now sends heartbeats.
    pub interval: Millis,
    /// The interval at which the sender wants to receive them; the receiver sends at the smaller of this
    /// and its own need.
    pub wanted: Millis,
    /// Per data lane, how many frames were sent so far (the next number), wrapping. Shows the receiver
    /// that the last of a burst was lost.
    pub sent_next: [u32; 2],
    /// Per data lane, one more than the greatest number received, wrapping; zero if none. Frames from
    /// this on are unacknowledged and are replayed over a detour if the receiver falls silent.
    pub received_next: [u32; 2],
    /// Per data lane, the first number that the sender may still ask for again, wrapping: what is before it
    /// need not be kept. `None` from a neighbour that recovers nothing, and understands no NACK.
    pub complete_next: Option<[u32; 2]>,
    /// Of what the receiver sent lately, the share that the sender found lost, before any of it was recovered. `None`
    /// from a neighbour that does not say; written only with `complete_next`.
    pub lost: Option<LossPpm>,
}

/// What a heartbeat's sender last heard of its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// `sent` of the last heartbeat that arrived, in the receiver's own clock.
    pub echo: Ticks,
    /// How long the sender held it before it sent this: RTT is now less echo less held.
    pub held: Micros,
    /// Time since any authenticated frame arrived: how a receiver learns that only its own direction
    /// failed.
    pub silence: Micros,
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
            Self::Heartbeat(_) | Self::Nack { .. } | Self::Tail { .. } | Self::Received { .. } => {
                (0, None, None)
            }
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

impl Heartbeat {
    /// Writes the whole hop message.
    pub fn encode(&self, out: &mut impl BufMut) {
        let heard =
            self.heard.unwrap_or(Heard { echo: Ticks(0), held: Micros(0), silence: Micros(0) });
        out.put_u8(HEARTBEAT);
        out.put_u32(self.boot.0);
        out.put_u32(self.number);
        out.put_u64(self.sent.0);
        out.put_u8(if self.heard.is_some() { HEARD_BIT } else { 0 });
        out.put_u64(heard.echo.0);
        out.put_u32(heard.held.0);
        out.put_u32(heard.silence.0);
        out.put_u16(self.interval.0);
        out.put_u16(self.wanted.0);
        for count in self.sent_next.into_iter().chain(self.received_next) {
            out.put_u32(count);
        }
        let Some(complete_next) = self.complete_next else { return };
        complete_next.into_iter().for_each(|count| out.put_u32(count));
        if let Some(lost) = self.lost {
            out.put_u32(lost.ppm());
        }
    }

    fn decode(mut rest: &[u8]) -> Result<Self, HopError> {
        if rest.len() < HEARTBEAT_BYTES {
            return Err(HopError::Truncated);
        }
        let boot = BootId(rest.get_u32());
        let number = rest.get_u32();
        let sent = Ticks(rest.get_u64());
        let has_heard = rest.get_u8() & HEARD_BIT != 0;
        let heard = Heard {
            echo: Ticks(rest.get_u64()),
            held: Micros(rest.get_u32()),
            silence: Micros(rest.get_u32()),
        };
        let (interval, wanted) = (Millis(rest.get_u16()), Millis(rest.get_u16()));
        let sent_next = [rest.get_u32(), rest.get_u32()];
        let received_next = [rest.get_u32(), rest.get_u32()];
        let complete_next = (rest.len() >= 8).then(|| [rest.get_u32(), rest.get_u32()]);
        // What is left of a field that was cut is not the next one.
        let has_lost = complete_next.is_some() && rest.len() >= 4;
        Ok(Self {
            boot,
            number,
            sent,
            heard: has_heard.then_some(heard),
            interval,
            wanted,
            sent_next,
            received_next,
            complete_next,
            lost: has_lost.then(|| LossPpm::new(rest.get_u32())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn heartbeat() -> Heartbeat {
        Heartbeat {
            boot: BootId(0x0102_0304),
            number: 5,
            sent: Ticks(0x1112_1314_1516_1718),
            heard: Some(Heard { echo: Ticks(9), held: Micros(7), silence: Micros(3) }),
            interval: Millis(30),
            wanted: Millis(200),
            sent_next: [1, 2],
            received_next: [3, 4],
            complete_next: Some([5, 6]),
            lost: Some(LossPpm::new(0x0102)),
        }
    }

    fn encoded(heartbeat: &Heartbeat) -> Vec<u8> {
        let mut bytes = Vec::new();
        heartbeat.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_heartbeat_has_these_bytes() {
        let golden = [
            0x02, 0x01, 0x02, 0x03, 0x04, 0, 0, 0, 5, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
            0x18, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 3, 0, 30, 0, 200, 0, 0, 0, 1, 0,
            0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 1, 2,
        ];

        assert_eq!(encoded(&heartbeat()), golden);
        assert_eq!(HopMessage::decode(&golden), Ok(HopMessage::Heartbeat(heartbeat())));
    }

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

    #[test]
    fn a_cut_heartbeat_is_refused_and_a_longer_one_is_read() {
        let mut bytes = encoded(&heartbeat());
        for length in 0..=HEARTBEAT_BYTES {
            assert_eq!(HopMessage::decode(&bytes[..length]), Err(HopError::Truncated));
        }
        for old in [
            Heartbeat { complete_next: None, lost: None, ..heartbeat() },
            Heartbeat { lost: None, ..heartbeat() },
        ] {
            let length = encoded(&old).len();
            assert_eq!(HopMessage::decode(&bytes[..length]), Ok(HopMessage::Heartbeat(old)));
            assert_eq!(HopMessage::decode(&bytes[..length + 3]), Ok(HopMessage::Heartbeat(old)));
        }
        bytes.extend_from_slice(&[1, 2, 3]);
        assert_eq!(HopMessage::decode(&bytes), Ok(HopMessage::Heartbeat(heartbeat())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            let _ = HopMessage::decode(&bytes);
        }
    }
}
