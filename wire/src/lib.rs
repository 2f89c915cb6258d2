//! What travels between Overway's processes: identifiers, units, the fabric's frame header, the hop
//! messages between neighbours, and the control messages between relay and scheduler.
//!
//! Three layers, outermost first:
//!
//! 1. A **hop message** ([`hop`]) is one QUIC datagram between two neighbours: a numbered frame or a
//!    heartbeat.
//! 2. A **frame** ([`frame`]) is what the fabric forwards: a header with a source route, and an opaque
//!    payload which relays never read. **Notices** ([`notice`]) and **traces** ([`trace`]) are the payloads made by relays.
//! 3. **Control messages** ([`control`]) are protobuf, length-delimited, on a stream between a relay and
//!    a scheduler.
//!
//! An edge outside the mesh speaks with its relay in [`access`] datagrams, which carry frames without a path, and in
//! messages of its own. What users feel ([`quality`]) goes up by both.
//!
//! Decoding takes any bytes without panicking, and allocates nothing on the data path; control messages
//! allocate at most a small multiple of [`control::MESSAGE_BYTES_MAX`]. `docs/WIRE.md` is the
//! specification for other implementations.

pub mod access;
pub mod control;
pub mod frame;
pub mod hop;
mod id;
pub mod notice;
pub mod quality;
mod redundancy;
pub mod trace;
mod unit;

pub use frame::{FrameError, FrameKind, Header, Path, PathElement};
pub use id::{
    Address, AttachmentId, BootId, Class, Epoch, FlowId, LinkId, LinkIndex, NeighbourLink,
    PolicyId, RelayId, Whereabouts,
};
pub use redundancy::Redundancy;
pub use unit::{BitsPerSec, ClockDiff, LossPpm, Micros, Millis, Permille, PricePerGb, Ticks};
