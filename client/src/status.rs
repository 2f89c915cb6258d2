//! What an edge's attachments are doing, for programs and people.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use overway_probe::State;
use overway_wire::{Address, RelayId};

/// A snapshot of the attachments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Each that stands, the first one first.
    pub attachments: Vec<AttachmentStatus>,
    /// Counts since the start.
    pub counts: Counts,
    /// Why the last attempt to attach failed, until one succeeds; for people.
    pub last_error: Option<String>,
    /// Limits of the tenant's quota that frames were beyond in the last seconds.
    pub limits: Vec<LimitStatus>,
}

/// A limit of the tenant's quota that frames of this edge were beyond: relays drop them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitStatus {
    /// Which: `flows`, `rate`, `month`, or `unknown` where the relay is of a later version.
    pub limit: &'static str,
    /// The limit with its value, for people.
    pub reason: String,
    /// How long ago a relay said so.
    pub age: Duration,
}

/// An attachment that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentStatus {
    /// The relay's address.
    pub remote: SocketAddr,
    /// By what it goes.
    pub transport: TransportKind,
    /// The relay.
    pub relay: RelayId,
    /// The edge's own address there.
    pub address: Address,
    /// Whether it carries anything.
    pub state: State,
    /// The round trip, once it is measured.
    pub rtt: Option<Duration>,
    /// Since when it stands.
    pub age: Duration,
    /// Whether the relay has said that it goes.
    pub is_draining: bool,
}

/// By what an attachment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    /// QUIC on UDP.
    Quic,
    /// TLS on TCP, where UDP does not come through: what is lost holds up what follows.
    Tcp,
}

impl TransportKind {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Quic, Self::Tcp];

    /// Its name, also as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The live counters behind [`Counts`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Counts {
                Counts { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

/// One counter. Relaxed: counters order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }
}

counters! {
    /// Attachments that came about.
    attached,
    /// Attachments that ended.
    lost,
    /// Attempts to attach that failed.
    failed,
    /// Of these, refused by a relay.
    refused,
    /// Attachments that came about over TLS on TCP.
    attached_tcp,
    /// Times that a relay said that frames are beyond a limit of the tenant's quota; once a second at most for each.
    limited,
    /// Times that an attachment fell silent for one and a half intervals.
    suspects,
    /// Times that one fell silent for three.
    downs,
    /// Times that the edge's socket was made anew, since nothing came through it.
    rebinds,
    /// Frames sent.
    frames_sent,
    /// Frames received.
    frames_received,
    /// Second copies of frames, over the other attachment.
    copies,
    /// Frames moved from an attachment that carried nothing.
    resent,
    /// Of these, frames that there was no room for.
    stranded_dropped,
    /// Realtime frames dropped because they waited longer than they are worth.
    expired,
    /// Frames dropped because they are too long for the mesh.
    too_long,
    /// Frames received and dropped because the edge did not keep up.
    received_dropped,
    /// Reports of what flows feel like that no relay could be told.
    reports_dropped,
    /// Datagrams from relays that made no sense.
    malformed,
}
