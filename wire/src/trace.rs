//! Traces: what a *probe* learns of the path that frames of its class take now, as the payload of frames of kind
//! [`crate::FrameKind::Trace`].
//!
//! ```text
//! probe:  type u8 = 1 | count u8 | records                                                   | zeros
//! answer: type u8 = 2 | count u8 | records | position u8 | path length u8 | path | next address
//! record: relay u16 | link u8 | flags u8 | clock u64 | offset i64
//! next:   0, or 4 or 6, the address in so many bits, and the port u16
//! ```
//!
//! A source relay sends a probe to another relay. Each relay that it reaches, the source first, writes a *record* into it,
//! sends the source an *answer* with the records so far, and forwards the probe as it does any other frame. So the last
//! answer tells of the whole path, and one that is lost on its way back hides nothing of what a later one tells. As with
//! in-situ OAM (RFC 9197), what is measured is the traffic's own path, queues and recovery.
//!
//! A clock is its relay's own. The *offset* is the relay's clock less that of the relay before it, as the probes of the link
//! between them say (the raw difference less half of the round trip, as in RFC 5905 section 8), so that one-way times
//! can be told without synchronised clocks. What of a link's delay is not the same both ways it takes for halves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut};

use crate::frame::PATH_ELEMENTS_MAX;
use crate::{ClockDiff, LinkIndex, Path, RelayId, Ticks};

const PROBE: u8 = 1;
const ANSWER: u8 = 2;
const RECOVERED_BIT: u8 = 0b0001;
const MARKED_BIT: u8 = 0b0010;
const COPY_BIT: u8 = 0b0100;
const OFFSET_BIT: u8 = 0b1000;
const RECORD_BYTES: usize = 20;
/// Relays that write records: the source and every step of a path.
pub const RECORDS_MAX: usize = PATH_ELEMENTS_MAX + 1;
/// Bytes of a probe's payload at least: it has room for every record from the start, so that its length stays.
pub const PROBE_BYTES_MIN: usize = 2 + RECORDS_MAX * RECORD_BYTES;

/// What one relay says of a probe that reached it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceRecord {
    /// The relay.
    pub relay: RelayId,
    /// The parallel link by which the probe came; 0 at the source.
    pub link: LinkIndex,
    /// Whether the line lost it, so that it came when it was sent again, as a twin, or out of repairs.
    pub recovered: bool,
    /// Whether it bore the mark of congestion.
    pub marked: bool,
    /// Whether it bore the copy mark.
    pub copy: bool,
    /// The relay's clock when it came; at the source when it set off.
    pub clock: Ticks,
    /// The relay's clock less that of the relay before it. `None` at the source, and where it is not known.
    pub offset: Option<ClockDiff>,
}

/// At most [`RECORDS_MAX`] records, in the order in which relays wrote them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceRecords {
    len: usize,
    records: [TraceRecord; RECORDS_MAX],
}

impl TraceRecords {
    /// The records.
    pub fn as_slice(&self) -> &[TraceRecord] {
        &self.records[..self.len]
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`TraceError::Records`] if there is no room.
    pub fn push(&mut self, record: TraceRecord) -> Result<(), TraceError> {
        *self.records.get_mut(self.len).ok_or(TraceError::Records)? = record;
        self.len += 1;
        Ok(())
    }

    fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(u8::try_from(self.len).expect("RECORDS_MAX fits in a byte"));
        for record in self.as_slice() {
            let bit = |set: bool, bit: u8| if set { bit } else { 0 };
            out.put_u16(record.relay.0);
            out.put_u8(record.link.value());
            out.put_u8(
                bit(record.recovered, RECOVERED_BIT)
                    | bit(record.marked, MARKED_BIT)
                    | bit(record.copy, COPY_BIT)
                    | bit(record.offset.is_some(), OFFSET_BIT),
            );
            out.put_u64(record.clock.0);
            out.put_i64(record.offset.map_or(0, |offset| offset.0));
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, TraceError> {
        let count = usize::from(bytes.try_get_u8().map_err(|_| TraceError::Truncated)?);
        let mut records = Self::default();
        for _ in 0..count {
            if bytes.len() < RECORD_BYTES {
                return Err(TraceError::Truncated);
            }
            let relay = RelayId(bytes.get_u16());
            let link = LinkIndex::new(bytes.get_u8()).ok_or(TraceError::LinkIndex)?;
            let flags = bytes.get_u8();
            let (clock, offset) = (Ticks(bytes.get_u64()), ClockDiff(bytes.get_i64()));
            records.push(TraceRecord {
                relay,
                link,
                recovered: flags & RECOVERED_BIT != 0,
                marked: flags & MARKED_BIT != 0,
                copy: flags & COPY_BIT != 0,
                clock,
                offset: (flags & OFFSET_BIT != 0).then_some(offset),
            })?;
        }
        Ok(records)
    }
}

/// What a relay tells the source of a probe that reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceAnswer {
    /// What relays up to it wrote, its own record the last.
    pub records: TraceRecords,
    /// The probe's path, with what relays so far have changed of it.
    pub path: Path,
    /// How many of its steps the probe has made: 0 at the source.
    pub steps: u8,
    /// The address to which the relay sends over the next link of the path; `None` at the path's end, and where it does
    /// not know it.
    pub next: Option<SocketAddr>,
}

/// The payload of a frame of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// On its way to the traced relay.
    Probe(TraceRecords),
    /// On its way back.
    Answer(TraceAnswer),
}

/// Why bytes are no payload of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Shorter than it says.
    #[error("trace is too short")]
    Truncated,
    /// A type that this build does not know.
    #[error("unknown trace type")]
    Kind,
    /// More records than a path has relays.
    #[error("trace has more than {RECORDS_MAX} records")]
    Records,
    /// A link index above 15.
    #[error("link index is out of range")]
    LinkIndex,
    /// Its path is none, or has fewer steps than were made.
    #[error("trace has no path")]
    Path,
    /// An address of neither IPv4 nor IPv6.
    #[error("trace has an address of an unknown family")]
    Address,
}

impl Trace {
    /// Writes the payload; a probe with zeros behind it up to `bytes`.
    pub fn encode(&self, bytes: usize, out: &mut Vec<u8>) {
        let begin = out.len();
        match self {
            Self::Probe(records) => {
                out.put_u8(PROBE);
                records.encode(out);
                let written = out.len() - begin;
                out.resize(begin + written.max(bytes), 0);
            }
            Self::Answer(answer) => {
                out.put_u8(ANSWER);
                answer.records.encode(out);
                out.put_u8(answer.steps);
                let steps = answer.path.elements().len();
                out.put_u8(u8::try_from(steps).expect("PATH_ELEMENTS_MAX fits in a byte"));
                answer.path.encode(out);
                encode_address(answer.next, out);
            }
        }
    }

    /// Reads a payload; bytes after the known ones are ignored.
    ///
    /// # Errors
    /// Says why it is none.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, TraceError> {
        let kind = bytes.try_get_u8().map_err(|_| TraceError::Truncated)?;
        if kind != PROBE && kind != ANSWER {
            return Err(TraceError::Kind);
        }
        let records = TraceRecords::decode(&mut bytes)?;
        if kind == PROBE {
            return Ok(Self::Probe(records));
        }
        let steps = bytes.try_get_u8().map_err(|_| TraceError::Truncated)?;
        let length = bytes.try_get_u8().map_err(|_| TraceError::Truncated)?;
        let path_bytes = usize::from(length) * crate::frame::ELEMENT_BYTES;
        let (path, mut rest) = bytes.split_at_checked(path_bytes).ok_or(TraceError::Truncated)?;
        let path = Path::decode(path).map_err(|_| TraceError::Path)?;
        if steps > length {
            return Err(TraceError::Path);
        }
        let next = decode_address(&mut rest)?;
        Ok(Self::Answer(TraceAnswer { records, path, steps, next }))
    }
}

fn encode_address(address: Option<SocketAddr>, out: &mut impl BufMut) {
    let Some(address) = address else { return out.put_u8(0) };
    match address.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16(address.port());
}

fn decode_address(bytes: &mut &[u8]) -> Result<Option<SocketAddr>, TraceError> {
    let truncated = |_| TraceError::Truncated;
    let ip = match bytes.try_get_u8().map_err(truncated)? {
        0 => return Ok(None),
        4 => IpAddr::V4(Ipv4Addr::from_bits(bytes.try_get_u32().map_err(truncated)?)),
        6 => IpAddr::V6(Ipv6Addr::from_bits(bytes.try_get_u128().map_err(truncated)?)),
        _ => return Err(TraceError::Address),
    };
    Ok(Some(SocketAddr::new(ip, bytes.try_get_u16().map_err(truncated)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PathElement;
    use proptest::prelude::*;

    fn records() -> TraceRecords {
        let mut records = TraceRecords::default();
        records
            .push(TraceRecord {
                relay: RelayId(0x0102),
                link: LinkIndex::MAX,
                recovered: true,
                marked: false,
                copy: true,
                clock: Ticks(0x0304),
                offset: Some(ClockDiff(-2)),
            })
            .unwrap();
        records
    }

    fn record_bytes() -> Vec<u8> {
        let mut bytes = vec![1, 1, 2, 15, 0b1101, 0, 0, 0, 0, 0, 0, 3, 4];
        bytes.extend([0xff; 7]);
        bytes.push(0xfe);
        bytes
    }

    fn encoded(trace: Trace, bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        trace.encode(bytes, &mut out);
        out
    }

    #[test]
    fn a_probe_has_these_bytes_and_keeps_its_length() {
        let bytes = encoded(Trace::Probe(records()), PROBE_BYTES_MIN);

        assert_eq!(bytes[0], 1);
        assert_eq!(bytes[1..22], record_bytes());
        assert!(bytes.len() == PROBE_BYTES_MIN && bytes[22..].iter().all(|&byte| byte == 0));
        assert_eq!(Trace::decode(&bytes), Ok(Trace::Probe(records())));
    }

    #[test]
    fn an_answer_has_these_bytes() {
        let path = Path::new(&[PathElement::new(RelayId(0x0506), LinkIndex::default())]).unwrap();
        let next = Some("192.0.2.1:4433".parse().unwrap());
        let answer = Trace::Answer(TraceAnswer { records: records(), path, steps: 0, next });
        let bytes = encoded(answer, 0);

        assert_eq!(bytes[0], 2);
        assert_eq!(bytes[1..22], record_bytes());
        assert_eq!(bytes[22..], [0, 1, 5, 6, 0, 4, 192, 0, 2, 1, 0x11, 0x51]);
        assert_eq!(Trace::decode(&bytes), Ok(answer));
        for length in 0..bytes.len() {
            assert_eq!(Trace::decode(&bytes[..length]), Err(TraceError::Truncated), "{length}");
        }
    }

    #[test]
    fn an_address_may_be_of_ipv6_or_missing() {
        let path = Path::new(&[PathElement::new(RelayId(5), LinkIndex::default())]).unwrap();
        for next in [Some("[2001:db8::1]:4433".parse().unwrap()), None] {
            let answer = Trace::Answer(TraceAnswer { records: records(), path, steps: 1, next });
            assert_eq!(Trace::decode(&encoded(answer, 0)), Ok(answer));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        let whole = encoded(Trace::Probe(records()), 0);
        let cases = [
            (0, 3, TraceError::Kind),
            (1, 2, TraceError::Truncated),
            (4, 16, TraceError::LinkIndex),
        ];
        for (at, value, error) in cases {
            let mut bytes = whole.clone();
            bytes[at] = value;
            assert_eq!(Trace::decode(&bytes), Err(error), "byte {at} set to {value}");
        }
        let mut many = vec![1, 8];
        many.extend([0; 8 * RECORD_BYTES]);
        assert_eq!(Trace::decode(&many), Err(TraceError::Records));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(
            kind in 0_u8..4,
            bytes in proptest::collection::vec(any::<u8>(), 0..220),
        ) {
            let bytes = [&[kind][..], &bytes].concat();
            if let Ok(trace) = Trace::decode(&bytes) {
                prop_assert_eq!(Trace::decode(&encoded(trace, 0)), Ok(trace));
            }
        }
    }
}
