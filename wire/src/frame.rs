//! The fabric's frame: a header with a source route, then an opaque payload to the end of the datagram.
//!
//! ```text
//!  0               1               2               3
//! +-------+-------+---+---+-+-----+-------+-------+---------------+
//! |version| kind  |cls|ecn|C|A| 0 |hops   | pos.  | path length   |
//! +-------+-------+---+---+-+-----+-------+-------+---------------+
//! |            policy             |         source relay          |
//! +-------------------------------+-------------------------------+
//! |       source attachment       |       destination relay       |
//! +-------------------------------+-------------------------------+
//! |    destination attachment     |         budget in ms          |
//! +-------------------------------+-------------------------------+
//! |                             flow                              |
//! +---------------------------------------------------------------+
//! |                           sequence                            |
//! |                                                               |
//! +---------------------------------------------------------------+
//! |  path: per element relay (16 bits), 0 (4 bits), link (4 bits) |
//! +-------------------------------+-------------------------------+
//! |  if A: alternate relay        |  alternate attachment         |
//! ```
//!
//! Integers are big-endian. The path names every relay after the source, the destination last, each with
//! the link by which it is reached. `position` is the element that holds the frame or is to receive
//! it. What went before stays in the path, so that a detour can avoid every relay already visited.
//!
//! An end that is attached to two relays has two addresses. A frame names the one that it goes to, and the
//! other as its alternate: the relay in front of a silent access relay sends it there instead.

use bytes::BufMut;

use crate::{Address, AttachmentId, Class, FlowId, LinkIndex, Millis, PolicyId, RelayId};

/// The version in every frame. A relay drops frames of versions that it does not know.
pub const FRAME_VERSION: u8 = 1;
/// Relays in a path after the source. Two intermediates and the destination are three; a detour may add
/// as many again.
pub const PATH_ELEMENTS_MAX: usize = 6;
/// Bytes before the path.
pub const FIXED_BYTES: usize = 28;
/// Bytes of one path element.
pub const ELEMENT_BYTES: usize = 3;
/// Bytes of an alternate address.
pub const ALTERNATE_BYTES: usize = 4;
/// Bytes of the longest header: 44 with three intermediates and an alternate.
pub const HEADER_BYTES_MAX: usize =
    FIXED_BYTES + ELEMENT_BYTES * PATH_ELEMENTS_MAX + ALTERNATE_BYTES;
/// Bytes of payload that every link carries in one frame. A session's packets are this long; see
/// DESIGN "Fabric MTU".
pub const PAYLOAD_BYTES_MAX: usize = 1_200;
/// Relays that a frame may cross, whatever detours are made of its path.
pub const HOP_LIMIT: u8 = 8;

const COPY_BIT: u8 = 0b0000_1000;
const ALTERNATE_BIT: u8 = 0b0000_0100;

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// A QUIC packet of an end-to-end session.
    Session,
    /// A sealed realtime datagram of a flow.
    Datagram,
    /// A relay's word to a source relay; see [`crate::notice`].
    Notice,
    /// A probe of the path that frames take, or the answer to one; see [`crate::trace`].
    Trace,
}

impl FrameKind {
    #[inline]
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::Datagram => 2,
            Self::Notice => 3,
            Self::Trace => 4,
        }
    }

    #[inline]
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Session),
            2 => Some(Self::Datagram),
            3 => Some(Self::Notice),
            4 => Some(Self::Trace),
            _ => None,
        }
    }
}

/// Explicit congestion notification as in IP (RFC 3168): two bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameEcn {
    /// The ends do not react to marks.
    #[default]
    NotCapable,
    /// The ends react to marks.
    Capable,
    /// A hop's queue was building up.
    CongestionExperienced,
}

impl FrameEcn {
    #[inline]
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::NotCapable => 0,
            Self::Capable => 2,
            Self::CongestionExperienced => 3,
        }
    }

    #[inline]
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::NotCapable),
            2 => Some(Self::Capable),
            3 => Some(Self::CongestionExperienced),
            _ => None,
        }
    }
}

/// One step of a path: the relay, and the link by which the one before it reaches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathElement {
    /// The relay that this step reaches.
    pub relay: RelayId,
    /// The parallel link taken to it.
    pub link: LinkIndex,
}

impl PathElement {
    /// Makes a step.
    pub const fn new(relay: RelayId, link: LinkIndex) -> Self {
        Self { relay, link }
    }
}

/// A source route: one to [`PATH_ELEMENTS_MAX`] steps, the destination last. No relay appears twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    len: u8,
    elements: [PathElement; PATH_ELEMENTS_MAX],
}

impl Path {
    /// Makes a path of these steps.
    ///
    /// # Errors
    /// [`FrameError::PathLength`] for none or more than [`PATH_ELEMENTS_MAX`], [`FrameError::Loop`] if a
    /// relay appears twice.
    pub fn new(steps: &[PathElement]) -> Result<Self, FrameError> {
        if steps.is_empty() || steps.len() > PATH_ELEMENTS_MAX {
            return Err(FrameError::PathLength);
        }
        let mut elements = [PathElement::default(); PATH_ELEMENTS_MAX];
        for (at, step) in steps.iter().enumerate() {
            if steps[..at].iter().any(|before| before.relay == step.relay) {
                return Err(FrameError::Loop);
            }
            elements[at] = *step;
        }
        let len = u8::try_from(steps.len()).expect("PATH_ELEMENTS_MAX fits in a byte");
        Ok(Self { len, elements })
    }

    /// The steps, the destination last; never empty.
    #[inline]
    pub fn elements(&self) -> &[PathElement] {
        &self.elements[..usize::from(self.len)]
    }

    /// The first step: the relay to which the source hands the frame.
    pub fn first(&self) -> PathElement {
        self.elements[0]
    }

    /// The last step: the destination relay.
    #[inline]
    pub fn last(&self) -> PathElement {
        self.elements[usize::from(self.len) - 1]
    }

    /// The relays between the source and the destination.
    pub fn intermediates(&self) -> &[PathElement] {
        &self.elements[..usize::from(self.len) - 1]
    }

    /// Whether the path goes through or ends at `relay`.
    #[inline]
    pub fn visits(&self, relay: RelayId) -> bool {
        self.elements().iter().any(|element| element.relay == relay)
    }

    /// The same path with another parallel link to the step at `at`; unchanged if there is no such step.
    #[must_use]
    pub fn with_link(mut self, at: usize, link: LinkIndex) -> Self {
        if at < usize::from(self.len) {
            self.elements[at].link = link;
        }
        self
    }

    /// Bytes that it takes on the wire.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        ELEMENT_BYTES * self.elements().len()
    }

    /// Writes the steps, three bytes each: as in a frame, and as in a route (`control::Route`).
    pub fn encode(&self, out: &mut impl BufMut) {
        for element in self.elements() {
            out.put_u16(element.relay.0);
            out.put_u8(element.link.value());
        }
    }

    /// Reads a path that takes up all of `bytes`.
    ///
    /// # Errors
    /// As [`Path::new`], and [`FrameError::Reserved`] for a link index above 15.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (steps, rest) = bytes.as_chunks::<ELEMENT_BYTES>();
        if steps.is_empty() || steps.len() > PATH_ELEMENTS_MAX || !rest.is_empty() {
            return Err(FrameError::PathLength);
        }
        let len = u8::try_from(steps.len()).expect("PATH_ELEMENTS_MAX fits in a byte");
        let mut path = Self { len, elements: [PathElement::default(); PATH_ELEMENTS_MAX] };
        // In one pass: this is done for every frame.
        for (at, &[high, low, link]) in steps.iter().enumerate() {
            let relay = RelayId(u16::from_be_bytes([high, low]));
            if path.elements[..at].iter().any(|before| before.relay == relay) {
                return Err(FrameError::Loop);
            }
            let link = LinkIndex::new(link).ok_or(FrameError::Reserved)?;
            path.elements[at] = PathElement::new(relay, link);
        }
        Ok(path)
    }
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Path({self})")
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, element) in self.elements().iter().enumerate() {
            let separator = if at == 0 { "" } else { " " };
            write!(f, "{separator}{}/{}", element.relay, element.link)?;
        }
        Ok(())
    }
}

/// A frame's header. See the module's picture for its place on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the payload is.
    pub kind: FrameKind,
    /// What the frame asks of queues and routes.
    pub class: Class,
    /// Congestion marks.
    pub ecn: FrameEcn,
    /// Whether this is a second copy, sent over a detour; it is never copied again.
    pub copy: bool,
    /// Relays that it may still cross, 0 to 15; see [`HOP_LIMIT`].
    pub hops_left: u8,
    /// Index in the path of the relay that is to receive it.
    pub position: u8,
    /// Tenant and cell, by the pushed table.
    pub policy: PolicyId,
    /// Where answers go. Written by the access relay, not by the end.
    pub source: Address,
    /// Where it goes; its relay is the path's last.
    pub destination: Address,
    /// Time left until it is worthless. Each hop takes off residence and link delay.
    pub budget: Millis,
    /// The ends' flow.
    pub flow: FlowId,
    /// Position in the flow, for order and replay protection at the ends.
    pub sequence: u64,
    /// The source route.
    pub path: Path,
    /// The destination's other address, at another relay, if it has one.
    pub alternate: Option<Address>,
}

/// Why bytes are no frame. Also the label of the metric that counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum FrameError {
    /// Shorter than its header.
    #[error("frame is shorter than its header")]
    Truncated,
    /// A version that this build does not know.
    #[error("unknown frame version")]
    Version,
    /// An unknown kind.
    #[error("unknown frame kind")]
    Kind,
    /// An unknown class.
    #[error("unknown class")]
    Class,
    /// Reserved bits are set.
    #[error("reserved bits are set")]
    Reserved,
    /// The path is empty, too long, or not a whole number of elements.
    #[error("path has no element or more than {PATH_ELEMENTS_MAX}")]
    PathLength,
    /// The path visits a relay twice, or returns to its source.
    #[error("path visits a relay twice")]
    Loop,
    /// The position is outside the path, or the path does not end at the destination.
    #[error("position or destination does not fit the path")]
    Position,
    /// The alternate is at the same relay as the destination.
    #[error("alternate is at the destination's own relay")]
    Alternate,
}

impl Header {
    /// Bytes that it takes on the wire, at most [`HEADER_BYTES_MAX`].
    #[inline]
    pub fn encoded_len(&self) -> usize {
        let alternate = if self.alternate.is_some() { ALTERNATE_BYTES } else { 0 };
        FIXED_BYTES + self.path.encoded_len() + alternate
    }

    /// Writes the header; the payload follows it.
    pub fn encode(&self, out: &mut impl BufMut) {
        // Written where nothing grows, and handed on at once: this is done for every frame.
        let mut bytes = [0; HEADER_BYTES_MAX];
        let copy = if self.copy { COPY_BIT } else { 0 };
        bytes[0] = FRAME_VERSION << 4 | self.kind.code();
        let alternate = if self.alternate.is_some() { ALTERNATE_BIT } else { 0 };
        bytes[1] = self.class.code() << 6 | self.ecn.code() << 4 | copy | alternate;
        bytes[2] = self.hops_left.min(15) << 4 | self.position & 0x0f;
        bytes[3] = self.path.len;
        bytes[4..6].copy_from_slice(&self.policy.0.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.source.relay.0.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.source.attachment.0.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.destination.relay.0.to_be_bytes());
        bytes[12..14].copy_from_slice(&self.destination.attachment.0.to_be_bytes());
        bytes[14..16].copy_from_slice(&self.budget.0.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.flow.0.to_be_bytes());
        bytes[20..FIXED_BYTES].copy_from_slice(&self.sequence.to_be_bytes());
        let (steps, _) = bytes[FIXED_BYTES..].as_chunks_mut();
        for ([high, low, link], step) in steps.iter_mut().zip(self.path.elements()) {
            [*high, *low] = step.relay.0.to_be_bytes();
            *link = step.link.value();
        }
        if let Some(Address { relay, attachment }) = self.alternate {
            let at = FIXED_BYTES + self.path.encoded_len();
            bytes[at..at + 2].copy_from_slice(&relay.0.to_be_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&attachment.0.to_be_bytes());
        }
        out.put_slice(&bytes[..self.encoded_len()]);
    }

    /// Whether a frame bears the copy mark, without a look at anything else of it.
    #[inline]
    pub fn is_copy(frame: &[u8]) -> bool {
        frame.get(1).is_some_and(|flags| flags & COPY_BIT != 0)
    }

    /// Reads a header from the front of `bytes`; returns it with what follows it, the payload.
    ///
    /// # Errors
    /// Says why the bytes are no frame. A header that comes out is consistent: its path has no loop, ends
    /// at the destination, and holds the position.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), FrameError> {
        let (fixed, rest) =
            bytes.split_first_chunk::<FIXED_BYTES>().ok_or(FrameError::Truncated)?;
        if fixed[0] >> 4 != FRAME_VERSION {
            return Err(FrameError::Version);
        }
        if fixed[1] & 0b0000_0011 != 0 {
            return Err(FrameError::Reserved);
        }
        let path_bytes = usize::from(fixed[3]) * ELEMENT_BYTES;
        let (path, rest) = rest.split_at_checked(path_bytes).ok_or(FrameError::Truncated)?;
        let (alternate, payload) = alternate(fixed[1] & ALTERNATE_BIT != 0, rest)?;
        let u16_at = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let address_at =
            |at: usize| Address::new(RelayId(u16_at(at)), AttachmentId(u16_at(at + 2)));
        let sequence = fixed[20..28].try_into().expect("the slice has eight bytes");
        let flow = fixed[16..20].try_into().expect("the slice has four bytes");
        let header = Self {
            kind: FrameKind::from_code(fixed[0] & 0x0f).ok_or(FrameError::Kind)?,
            class: Class::from_code(fixed[1] >> 6).ok_or(FrameError::Class)?,
            ecn: FrameEcn::from_code(fixed[1] >> 4 & 0b11).ok_or(FrameError::Reserved)?,
            copy: fixed[1] & COPY_BIT != 0,
            hops_left: fixed[2] >> 4,
            position: fixed[2] & 0x0f,
            policy: PolicyId(u16_at(4)),
            source: address_at(6),
            destination: address_at(10),
            budget: Millis(u16_at(14)),
            flow: FlowId(u32::from_be_bytes(flow)),
            sequence: u64::from_be_bytes(sequence),
            path: Path::decode(path)?,
            alternate,
        };
        header.check()?;
        Ok((header, payload))
    }

    #[inline]
    fn check(&self) -> Result<(), FrameError> {
        let ends_there = self.path.last().relay == self.destination.relay;
        if usize::from(self.position) >= self.path.elements().len() || !ends_there {
            return Err(FrameError::Position);
        }
        if self.path.visits(self.source.relay) {
            return Err(FrameError::Loop);
        }
        if self.alternate.is_some_and(|other| other.relay == self.destination.relay) {
            return Err(FrameError::Alternate);
        }
        Ok(())
    }

    /// The relay that is to receive the frame.
    #[inline]
    pub fn receiver(&self) -> PathElement {
        self.path.elements[usize::from(self.position)]
    }

    /// The relay that sends the frame to [`Self::receiver`].
    #[inline]
    pub fn sender(&self) -> RelayId {
        match self.position.checked_sub(1) {
            Some(before) => self.path.elements[usize::from(before)].relay,
            None => self.source.relay,
        }
    }
}

/// The alternate address at the front of `bytes`, if there is to be one, and what follows it.
#[inline]
fn alternate(is_there: bool, bytes: &[u8]) -> Result<(Option<Address>, &[u8]), FrameError> {
    if !is_there {
        return Ok((None, bytes));
    }
    let (&[a, b, c, d], rest) =
        bytes.split_first_chunk::<ALTERNATE_BYTES>().ok_or(FrameError::Truncated)?;
    let (relay, attachment) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Ok((Some(Address::new(RelayId(relay), AttachmentId(attachment))), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(relay: u16, link: u8) -> PathElement {
        PathElement::new(RelayId(relay), LinkIndex::new(link).unwrap())
    }

    fn header() -> Header {
        Header {
            kind: FrameKind::Datagram,
            class: Class::Realtime,
            ecn: FrameEcn::Capable,
            copy: true,
            hops_left: HOP_LIMIT,
            position: 1,
            policy: PolicyId(0x0102),
            source: Address::new(RelayId(1), AttachmentId(0x1112)),
            destination: Address::new(RelayId(3), AttachmentId(0x2122)),
            budget: Millis(500),
            flow: FlowId(0xa1a2_a3a4),
            sequence: 0xb1b2_b3b4_b5b6_b7b8,
            path: Path::new(&[step(2, 1), step(3, 0)]).unwrap(),
            alternate: None,
        }
    }

    fn encoded(header: &Header) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_header_has_these_bytes() {
        let golden = [
            0x12, 0x28, 0x81, 0x02, 0x01, 0x02, 0x00, 0x01, 0x11, 0x12, 0x00, 0x03, 0x21, 0x22,
            0x01, 0xf4, 0xa1, 0xa2, 0xa3, 0xa4, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8,
            0x00, 0x02, 0x01, 0x00, 0x03, 0x00,
        ];

        assert_eq!(encoded(&header()), golden);
        assert_eq!(Header::decode(&golden), Ok((header(), &[][..])));
    }

    #[test]
    fn a_header_with_three_intermediates_fits_in_48_bytes() {
        let path = Path::new(&[step(2, 0), step(4, 0), step(5, 0), step(3, 0)]).unwrap();

        let alternate = Some(Address::new(RelayId(6), AttachmentId(1)));
        assert!(Header { path, alternate, ..header() }.encoded_len() <= 48);
    }

    #[test]
    fn every_cut_of_a_header_is_refused() {
        let whole = encoded(&header());

        for length in 0..whole.len() {
            assert_eq!(Header::decode(&whole[..length]), Err(FrameError::Truncated));
        }
    }

    #[test]
    fn inconsistent_headers_are_refused_with_the_reason() {
        let cases: [(usize, u8, FrameError); 9] = [
            (0, 0x22, FrameError::Version),
            (0, 0x19, FrameError::Kind),
            (1, 0xe8, FrameError::Class),
            (1, 0x29, FrameError::Reserved),
            (1, 0x2c, FrameError::Truncated),
            (2, 0x82, FrameError::Position),
            (3, 0x00, FrameError::PathLength),
            (7, 0x02, FrameError::Loop),
            (30, 0x10, FrameError::Reserved),
        ];
        for (at, value, error) in cases {
            let mut bytes = encoded(&header());
            bytes[at] = value;
            assert_eq!(Header::decode(&bytes), Err(error), "byte {at} set to {value:#x}");
        }
    }

    #[test]
    fn an_alternate_follows_the_path() {
        let alternate = Address::new(RelayId(0x3132), AttachmentId(0x3334));
        let with = Header { alternate: Some(alternate), ..header() };

        let bytes = encoded(&with);

        assert_eq!(bytes[1], 0x2c);
        assert_eq!(bytes[34..], [0x31, 0x32, 0x33, 0x34]);
        assert_eq!(Header::decode(&bytes), Ok((with, &[][..])));
        for length in 34..bytes.len() {
            assert_eq!(Header::decode(&bytes[..length]), Err(FrameError::Truncated));
        }
        let same = Address::new(with.destination.relay, AttachmentId(9));
        let bytes = encoded(&Header { alternate: Some(same), ..header() });
        assert_eq!(Header::decode(&bytes), Err(FrameError::Alternate));
    }

    #[test]
    fn a_path_that_visits_a_relay_twice_is_refused() {
        assert_eq!(Path::new(&[step(2, 0), step(3, 0), step(2, 1)]), Err(FrameError::Loop));
        assert_eq!(Path::new(&[]), Err(FrameError::PathLength));
        assert_eq!(Path::new(&[step(1, 0); 7]), Err(FrameError::PathLength));
    }

    #[test]
    fn sender_and_receiver_follow_the_position() {
        let first = Header { position: 0, ..header() };

        assert_eq!((first.sender(), first.receiver()), (RelayId(1), step(2, 1)));
        assert_eq!((header().sender(), header().receiver()), (RelayId(2), step(3, 0)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok((header, payload)) = Header::decode(&bytes) {
                let mut again = encoded(&header);
                again.extend_from_slice(payload);
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn flipped_bits_never_panic(at in 0_usize..34, bit in 0_u8..8) {
            let mut bytes = encoded(&header());
            bytes[at] ^= 1 << bit;
            if let Ok((header, _)) = Header::decode(&bytes) {
                prop_assert_eq!(encoded(&header), bytes);
            }
        }
    }
}
