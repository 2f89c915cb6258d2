//! What users feel, on its way up: an end says it of each flow to its relay, a relay of each service to the
//! scheduler. Protobuf (prost, written here by hand).
//!
//! Quantities are counts, which add up, and [`Sketch`]es, which merge; nothing is averaged on the way.

use prost::{Enumeration, Message};

/// Entries of one [`FlowReports`]; further ones are not read. The ends with the most traffic go first.
pub const FLOW_REPORTS_MAX: usize = 64;
/// Bytes that an end puts into one [`FlowReports`]: three quarters of the largest message between edge and relay.
pub const FLOW_REPORTS_BYTES_MAX: usize = 48 << 10;
/// Services of one relay in one interval, those of tenants each for itself; further ones count as *other*.
pub const SERVICES_MAX: usize = 256;
/// Bytes of one [`Quality`]; a relay that has more to say says it in several.
pub const QUALITY_BYTES_MAX: usize = 256 << 10;
/// Bytes of a service's name, as everywhere.
pub const SERVICE_BYTES_MAX: usize = 255;
/// Bytes of a far end's name: a relay's id, or an edge's in base64url.
pub const FAR_BYTES_MAX: usize = 64;
/// Buckets of a sketch, which are all that there are for a `u32`.
pub const SKETCH_BUCKETS: usize = 896;
/// Buckets of a sketch that are written as a list.
pub const SKETCH_LISTED_MAX: usize = 64;

/// How many values fell into each bucket. Bucket *i* is the value *i* below 64; from there on each power of two has 32
/// of equal width: bucket 64 + 32 (e - 6) + s holds the values from (32 + s) 2^(e-5) for e from 6 to 31. A value's
/// bucket is thus known to within 1/64 of the value.
///
/// It is a list, or a run: the list of a sketch with few values is shorter, the run of one with many is read faster, and
/// its length does not grow with the values between the least and the greatest.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Sketch {
    /// The list: buckets that are not empty, the first, then each less the one before. At most [`SKETCH_LISTED_MAX`] are
    /// written, any number is read.
    #[prost(uint32, repeated, tag = "1")]
    pub steps: Vec<u32>,
    /// Values in each, in the same order; never 0.
    #[prost(uint64, repeated, tag = "2")]
    pub counts: Vec<u64>,
    /// The run: its first bucket.
    #[prost(uint32, tag = "3")]
    pub first: u32,
    /// Bytes of each count: 1, 2, 4 or 8.
    #[prost(uint32, tag = "4")]
    pub width: u32,
    /// Values in this bucket and those after it, little-endian; the first and the last are not 0.
    #[prost(bytes = "vec", tag = "5")]
    pub run: Vec<u8>,
}

/// What one end has measured since its last word: it replaces nothing.
#[derive(Clone, PartialEq, Message)]
pub struct FlowReports {
    /// At most [`FLOW_REPORTS_MAX`].
    #[prost(message, repeated, tag = "1")]
    pub flows: Vec<FlowReport>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum FlowKind {
    /// Of a later version.
    Unknown = 0,
    /// Realtime datagrams.
    Datagrams = 1,
    /// The streams of a session that were opened to one service.
    Streams = 2,
}

impl FlowKind {
    /// Its name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Datagrams => "datagrams",
            Self::Streams => "streams",
        }
    }
}

/// A flow, or streams, over the last interval, as the end that receives feels it.
#[derive(Clone, PartialEq, Message)]
pub struct FlowReport {
    /// Of datagrams the flow's id, without the bit of the end that accepted it; of streams a number of the end's own, from 2^32 on.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// What it is.
    #[prost(enumeration = "FlowKind", tag = "2")]
    pub kind: i32,
    /// The service that it was opened to.
    #[prost(string, tag = "3")]
    pub service: String,
    /// The class's code.
    #[prost(uint32, tag = "4")]
    pub class: u32,
    /// The far end, for people.
    #[prost(string, tag = "5")]
    pub far: String,
    /// Since when it is open, in milliseconds.
    #[prost(uint64, tag = "6")]
    pub age_ms: u64,
    /// Set in its last report.
    #[prost(bool, tag = "7")]
    pub ended: bool,
    /// What was felt.
    #[prost(message, optional, tag = "8")]
    pub felt: Option<Felt>,
}

/// What was felt: of a flow over an interval, or of a service's flows together. All of it adds up.
#[derive(Clone, PartialEq, Message)]
pub struct Felt {
    /// Reports in it: 1 in a flow's own.
    #[prost(uint64, tag = "1")]
    pub reports: u64,
    /// Of these, those whose delays are one way, by stamps; the others' are half of round trips.
    #[prost(uint64, tag = "2")]
    pub one_way: u64,
    /// Deliveries that were due: frames, or seconds in which a stream had something under way.
    #[prost(uint64, tag = "3")]
    pub due: u64,
    /// Of these, on time.
    #[prost(uint64, tag = "4")]
    pub on_time: u64,
    /// Of these, lost: missing when their deadline was over.
    #[prost(uint64, tag = "5")]
    pub lost: u64,
    /// Intervals between one datagram and the next.
    #[prost(uint64, tag = "6")]
    pub gaps: u64,
    /// Of these, within 60 ms of the sender's spacing.
    #[prost(uint64, tag = "7")]
    pub gaps_good: u64,
    /// Times that a stream stood still.
    #[prost(uint64, tag = "8")]
    pub stalls: u64,
    /// Delays of deliveries, in microseconds.
    #[prost(message, optional, tag = "9")]
    pub delay_us: Option<Sketch>,
    /// Intervals between datagrams less the sender's spacing, in microseconds.
    #[prost(message, optional, tag = "10")]
    pub gap_us: Option<Sketch>,
    /// Shares lost, in millionths: one value for each report of datagrams.
    #[prost(message, optional, tag = "11")]
    pub loss_ppm: Option<Sketch>,
    /// Time for which a stream stood still, in microseconds: one value for each report of a stream.
    #[prost(message, optional, tag = "12")]
    pub stall_us: Option<Sketch>,
}

/// From relay to scheduler: what the ends attached there have felt since its last word.
#[derive(Clone, PartialEq, Message)]
pub struct Quality {
    /// At most [`SERVICES_MAX`].
    #[prost(message, repeated, tag = "1")]
    pub services: Vec<ServiceQuality>,
    /// How long ago the first of it was told, in milliseconds: ten seconds as a rule, and longer where no scheduler
    /// heard it.
    #[prost(uint64, tag = "2")]
    pub span_ms: u64,
}

/// A service's share of it.
#[derive(Clone, PartialEq, Message)]
pub struct ServiceQuality {
    /// The tenant's number; 0 for the mesh's own services.
    #[prost(uint32, tag = "1")]
    pub tenant: u32,
    /// Its name; empty: all those that there was no room for.
    #[prost(string, tag = "2")]
    pub service: String,
    /// The class's code.
    #[prost(uint32, tag = "3")]
    pub class: u32,
    /// What was felt.
    #[prost(message, optional, tag = "4")]
    pub felt: Option<Felt>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::messages::FromEdge;
    use crate::control::ToScheduler;

    fn felt() -> Felt {
        let sketch = Sketch { steps: vec![3, 300], counts: vec![1, 2], ..Sketch::default() };
        let run = Sketch { first: 300, width: 2, run: vec![1, 0, 0, 3], ..Sketch::default() };
        Felt {
            reports: 1,
            one_way: 2,
            due: 3,
            on_time: 4,
            lost: 5,
            gaps: 6,
            gaps_good: 7,
            stalls: 8,
            delay_us: Some(sketch),
            gap_us: Some(run),
            ..Felt::default()
        }
    }

    const FELT: [u8; 40] = [
        8, 1, 0x10, 2, 0x18, 3, 0x20, 4, 0x28, 5, 0x30, 6, 0x38, 7, 0x40, 8, 0x4a, 9, 0x0a, 3, 3,
        0xac, 2, 0x12, 2, 1, 2, 0x52, 11, 0x18, 0xac, 2, 0x20, 2, 0x2a, 4, 1, 0, 0, 3,
    ];

    #[test]
    fn what_an_end_has_felt_has_these_bytes() {
        let flow = FlowReport {
            id: 300,
            kind: FlowKind::Datagrams.into(),
            service: "v".into(),
            class: 2,
            far: "r5".into(),
            age_ms: 9,
            ended: true,
            felt: Some(felt()),
        };

        let bytes = FromEdge::from(FlowReports { flows: vec![flow] }).encode_to_vec();

        let before = [8, 0xac, 2, 0x10, 1, 0x1a, 1, b'v', 0x20, 2, 0x2a, 2, b'r', b'5', 0x30, 9];
        let outer: &[u8] = &[0xa2, 1, 62, 0x0a, 60];
        assert_eq!(bytes, [outer, &before, &[0x38, 1, 0x42, 40], &FELT].concat());
    }

    #[test]
    fn what_a_service_feels_like_has_these_bytes() {
        let service =
            ServiceQuality { tenant: 300, service: "v".into(), class: 1, felt: Some(felt()) };

        let bytes =
            ToScheduler::from(Quality { services: vec![service], span_ms: 9 }).encode_to_vec();

        let outer: &[u8] = &[0xf2, 1, 54, 0x0a, 50];
        let before = [8, 0xac, 2, 0x12, 1, b'v', 0x18, 1, 0x22, 40];
        assert_eq!(bytes, [outer, &before, &FELT, &[0x10, 9]].concat());
    }
}
