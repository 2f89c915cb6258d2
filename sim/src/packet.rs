//! What travels between two relays: hop messages, and what stands for QUIC's handshakes and closes.
//!
//! ```text
//! dialler --Dial--> acceptor --Accept--> dialler (stands) --Confirm--> acceptor (stands)
//! ```

use bytes::Bytes;
use overway_wire::hop::Lane;
use overway_wire::{BootId, LinkId};

/// Tells connections apart; made by the dialler, and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// One packet on a directed link.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) link: LinkId,
    pub(crate) connection: ConnectionId,
    pub(crate) body: Body,
}

/// What a packet holds.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// A connection is wanted for this lane of the link.
    Dial { lane: Lane, boot: BootId },
    /// It is granted, by this process.
    Accept { boot: BootId },
    /// The dialler's hello on the connection.
    Confirm,
    /// A hop message.
    Datagram(Bytes),
    /// The connection was closed.
    Close,
    /// The connection is not known to this process any more. Believed only of the process that granted or
    /// asked for it, as a stateless reset is.
    Reset { boot: BootId },
}

impl Packet {
    /// Its kind and content, for the trace.
    pub(crate) fn digest(&self) -> (u64, &[u8]) {
        match &self.body {
            Body::Dial { lane, .. } => (u64::from(lane.code()), &[]),
            Body::Accept { .. } => (3, &[]),
            Body::Confirm => (4, &[]),
            Body::Datagram(message) => (5, message),
            Body::Close => (6, &[]),
            Body::Reset { .. } => (7, &[]),
        }
    }
}
