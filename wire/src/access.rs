//! What travels between an edge and its access relay: frames and heartbeats as QUIC datagrams, and the messages of the
//! control stream ([`messages`]).
//!
//! ```text
//!  0               1               2               3
//! +---------------+-------+---+---+---+-+-+-------+---------------+
//! | type          | kind  |cls|ecn|red|C|A|   0   |     number    |
//! +---------------+-------+---+---+---+-+-+-------+---------------+
//! |                number, continued              |   far relay   |
//! +-----------------------------------------------+---------------+
//! |  ... far attachment, budget in ms, flow, sequence             |
//! +---------------------------------------------------------------+
//! |  if A: alternate relay        |  alternate attachment         |
//! ```
//!
//! Integers are big-endian. *Up* goes from the edge to the relay and names the destination; *down* goes the other way
//! and names the source. The relay writes the edge's own address and its tenant's number itself, so that an edge can
//! claim neither. A heartbeat is that of a link ([`crate::hop::Heartbeat`]); frames of every class are numbered
//! together, each direction from zero, and heartbeats say what came in the place of the bulk lane.

use bytes::{Buf, BufMut};

use crate::frame::{FrameEcn, PAYLOAD_BYTES_MAX};
use crate::hop::{Heartbeat, HopMessage};
use crate::{Address, AttachmentId, Class, FlowId, FrameKind, Millis, Redundancy, RelayId};

pub mod messages;
pub mod stream;

/// Protocol of the TLS handshake (ALPN).
pub const ALPN_ACCESS: &[u8] = b"overway-access/1";
/// Label of the TLS exporter (RFC 8446, 7.5) whose output an edge signs when it attaches. The context is the relay's
/// id, two bytes; the output has [`EXPORTER_BYTES`].
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-overway-attach";
/// Bytes of the exporter's output.
pub const EXPORTER_BYTES: usize = 32;
/// Bytes before a frame's payload, without an alternate.
pub const FRAME_FIXED_BYTES: usize = 25;
/// Bytes of the longest frame: header, alternate and payload. With QUIC's own it fits any access relay's MTU.
pub const FRAME_BYTES_MAX: usize =
    FRAME_FIXED_BYTES + crate::frame::ALTERNATE_BYTES + PAYLOAD_BYTES_MAX;
/// Bytes of UDP payload of every packet of an access connection, the same as on links; there is no discovery.
pub const ACCESS_MTU: u16 = 1_304;
/// A datagram in a QUIC packet takes at most this many bytes beside its own: short header with a connection id of 20
/// bytes and a number of 4, AEAD tag, frame type and length.
pub const QUIC_OVERHEAD_MAX: usize = 1 + 20 + 4 + 16 + 1 + 8;
const _: () = assert!(FRAME_BYTES_MAX + QUIC_OVERHEAD_MAX <= ACCESS_MTU as usize);

/// How either end closes an access connection: QUIC application error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum CloseCode {
    /// The relay or the edge stops.
    Stopping = 0,
    /// Another connection of the same edge took this one's place.
    Replaced = 1,
    /// The edge was refused, or is let in no more; the control stream said why.
    Refused = 2,
    /// The control stream made no sense.
    Malformed = 3,
    /// The edge has no use for this attachment.
    Unused = 4,
}

const UP: u8 = 0x11;
const DOWN: u8 = 0x12;
const COPY_BIT: u8 = 0b0010_0000;
const ALTERNATE_BIT: u8 = 0b0001_0000;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the edge to its relay.
    Up,
    /// From the relay to the edge.
    Down,
}

/// What stands before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessHeader {
    /// Which way it goes.
    pub direction: Direction,
    /// Counts the frames of this attachment and direction from zero, wrapping.
    pub number: u32,
    /// A session's packet or a sealed datagram; down, also a relay's notice.
    pub kind: FrameKind,
    /// What the frame asks of queues and routes.
    pub class: Class,
    /// Congestion marks. Up: nothing has marked it yet; the relay begins with *capable*.
    pub ecn: FrameEcn,
    /// How much of the flow goes more than once; down, always the default.
    pub redundancy: Redundancy,
    /// Up: a second copy of a frame that went over the edge's other attachment; it is not copied again.
    pub copy: bool,
    /// Up: the destination. Down: the source.
    pub far: Address,
    /// Up: the destination's other address, at another relay, if it has one.
    pub alternate: Option<Address>,
    /// How long it is still worth carrying.
    pub budget: Millis,
    /// The ends' flow.
    pub flow: FlowId,
    /// Position in the flow.
    pub sequence: u64,
}

/// One datagram between an edge and its relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessDatagram<'a> {
    /// A frame, with its payload.
    Frame(AccessHeader, &'a [u8]),
    /// Life and timing, and what came.
    Heartbeat(Heartbeat),
}

/// Why bytes are no access datagram. Also the label of the metric that counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum AccessError {
    /// Shorter than what it should hold.
    #[error("access datagram is cut short")]
    Truncated,
    /// A type of datagram, or a kind of frame, that does not travel here.
    #[error("unknown type of access datagram")]
    Kind,
    /// An unknown class.
    #[error("unknown class")]
    Class,
    /// Reserved bits are set.
    #[error("reserved bits are set")]
    Reserved,
    /// The payload is longer than every link carries.
    #[error("payload is longer than {PAYLOAD_BYTES_MAX} bytes")]
    TooLong,
    /// The alternate is at the same relay as the destination.
    #[error("alternate is at the destination's own relay")]
    Alternate,
}

impl AccessHeader {
    /// Bytes that it takes on the wire.
    pub const fn encoded_len(&self) -> usize {
        let alternate = if self.alternate.is_some() { crate::frame::ALTERNATE_BYTES } else { 0 };
        FRAME_FIXED_BYTES + alternate
    }

    /// Writes the header; the payload follows it.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(match self.direction {
            Direction::Up => UP,
            Direction::Down => DOWN,
        });
        out.put_u8(self.kind.code() << 4 | self.class.code() << 2 | self.ecn.code());
        let copy = if self.copy { COPY_BIT } else { 0 };
        let alternate = if self.alternate.is_some() { ALTERNATE_BIT } else { 0 };
        out.put_u8(redundancy_bits(self.redundancy) | copy | alternate);
        out.put_u32(self.number);
        put_address(self.far, out);
        out.put_u16(self.budget.0);
        out.put_u32(self.flow.0);
        out.put_u64(self.sequence);
        if let Some(alternate) = self.alternate {
            put_address(alternate, out);
        }
    }

    /// The bytes of a frame with this header.
    ///
    /// # Panics
    /// If the payload is longer than [`PAYLOAD_BYTES_MAX`].
    pub fn with_payload(&self, payload: &[u8]) -> bytes::Bytes {
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "payload of {} bytes", payload.len());
        let mut bytes = bytes::BytesMut::with_capacity(self.encoded_len() + payload.len());
        self.encode(&mut bytes);
        bytes.put_slice(payload);
        bytes.freeze()
    }

    fn decode(direction: Direction, mut rest: &[u8]) -> Result<(Self, &[u8]), AccessError> {
        if rest.len() < FRAME_FIXED_BYTES - 1 {
            return Err(AccessError::Truncated);
        }
        let (what, flags) = (rest.get_u8(), rest.get_u8());
        let number = rest.get_u32();
        let far = address(&mut rest);
        let budget = Millis(rest.get_u16());
        let flow = FlowId(rest.get_u32());
        let sequence = rest.get_u64();
        let alternate = if flags & ALTERNATE_BIT == 0 {
            None
        } else if rest.len() < crate::frame::ALTERNATE_BYTES {
            return Err(AccessError::Truncated);
        } else {
            Some(address(&mut rest))
        };
        let travels = |kind: &FrameKind| match kind {
            FrameKind::Session | FrameKind::Datagram => true,
            FrameKind::Notice => direction == Direction::Down,
            // Between relays.
            FrameKind::Trace => false,
        };
        let kind = FrameKind::from_code(what >> 4).filter(travels);
        let header = Self {
            direction,
            number,
            kind: kind.ok_or(AccessError::Kind)?,
            class: Class::from_code(what >> 2 & 0b11).ok_or(AccessError::Class)?,
            ecn: FrameEcn::from_code(what & 0b11).ok_or(AccessError::Reserved)?,
            redundancy: redundancy(flags).ok_or(AccessError::Reserved)?,
            copy: flags & COPY_BIT != 0,
            far,
            alternate,
            budget,
            flow,
            sequence,
        };
        if flags & 0x0f != 0 {
            return Err(AccessError::Reserved);
        }
        if rest.len() > PAYLOAD_BYTES_MAX {
            return Err(AccessError::TooLong);
        }
        if alternate.is_some_and(|alternate| alternate.relay == far.relay) {
            return Err(AccessError::Alternate);
        }
        Ok((header, rest))
    }
}

impl<'a> AccessDatagram<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// Says why the bytes are none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, AccessError> {
        let (direction, rest) = match bytes.split_first() {
            None => return Err(AccessError::Truncated),
            Some((&UP, rest)) => (Direction::Up, rest),
            Some((&DOWN, rest)) => (Direction::Down, rest),
            Some(_) => {
                return match HopMessage::decode(bytes) {
                    Ok(HopMessage::Heartbeat(heartbeat)) => Ok(Self::Heartbeat(heartbeat)),
                    Err(crate::hop::HopError::Truncated) => Err(AccessError::Truncated),
                    Ok(_) | Err(_) => Err(AccessError::Kind),
                };
            }
        };
        let (header, payload) = AccessHeader::decode(direction, rest)?;
        Ok(Self::Frame(header, payload))
    }
}

fn put_address(Address { relay, attachment }: Address, out: &mut impl BufMut) {
    out.put_u16(relay.0);
    out.put_u16(attachment.0);
}

fn address(rest: &mut &[u8]) -> Address {
    Address::new(RelayId(rest.get_u16()), AttachmentId(rest.get_u16()))
}

const fn redundancy_bits(redundancy: Redundancy) -> u8 {
    (match redundancy {
        Redundancy::Adaptive => 0,
        Redundancy::Off => 1,
        Redundancy::Always => 2,
    }) << 6
}

const fn redundancy(flags: u8) -> Option<Redundancy> {
    match flags >> 6 {
        0 => Some(Redundancy::Adaptive),
        1 => Some(Redundancy::Off),
        2 => Some(Redundancy::Always),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
