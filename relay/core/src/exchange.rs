//! What goes in and comes out of a [`crate::Relay`].

use std::time::Duration;

use bytes::Bytes;
use overway_probe::State;
use overway_wire::frame::FrameEcn;
use overway_wire::hop::Lane;
use overway_wire::trace::TraceAnswer;
use overway_wire::{
    Address, AttachmentId, Class, FlowId, FrameKind, Millis, NeighbourLink, PolicyId, Redundancy,
    RelayId, Ticks,
};

/// A frame from a local end.
#[derive(Clone, Debug)]
pub struct LocalFrame {
    /// Which end.
    pub source: AttachmentId,
    /// Where it goes.
    pub destination: Address,
    /// The destination's other address, if it has one.
    pub alternate: Option<Address>,
    /// What the payload is.
    pub kind: FrameKind,
    /// What it asks of queues and routes.
    pub class: Class,
    /// The tenant's policy.
    pub policy: PolicyId,
    /// How much of its flow goes more than once.
    pub redundancy: Redundancy,
    /// The end's flow.
    pub flow: FlowId,
    /// Position in the flow.
    pub sequence: u64,
    /// Time until it is worthless; `Millis(u16::MAX)` for no limit.
    pub budget: Millis,
    /// At most [`overway_wire::frame::PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Bytes,
}

/// A frame for a local end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Where it comes from, as its access relay wrote it.
    pub source: Address,
    /// Which local end it is for.
    pub attachment: AttachmentId,
    /// What the payload is.
    pub kind: FrameKind,
    /// Its class.
    pub class: Class,
    /// The policy under which it travelled; answers are to travel under the same.
    pub policy: PolicyId,
    /// Congestion marks.
    pub ecn: FrameEcn,
    /// The ends' flow.
    pub flow: FlowId,
    /// Position in the flow.
    pub sequence: u64,
    /// The payload.
    pub payload: Bytes,
}

/// What came back of a probe that a trace of this relay sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The relay that says it; this one of a probe that just set off.
    pub from: RelayId,
    /// Which trace.
    pub flow: FlowId,
    /// Which probe of it.
    pub sequence: u64,
    /// What it says.
    pub answer: TraceAnswer,
    /// This relay's clock when it came.
    pub arrived: Ticks,
}

/// A hop message to send as one QUIC datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// To this neighbour over this link.
    pub link: NeighbourLink,
    /// On this connection of the link.
    pub lane: Lane,
    /// The datagram.
    pub message: Bytes,
}

/// What the shell is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame for a local end.
    Deliver(Delivered),
    /// What came back of a probe of this relay.
    Traced(Box<Traced>),
    /// A direction of a link changed.
    LinkChanged {
        /// The link.
        link: NeighbourLink,
        /// Whether the neighbour is heard.
        inbound: State,
        /// Whether the neighbour hears us.
        outbound: State,
    },
    /// Frames wait for this lane, whose connection does not stand.
    LaneWanted(NeighbourLink, Lane),
    /// The pushed state changed: peers are to be reconciled, the state saved.
    FibChanged,
    /// This process woke late by this much.
    SelfStall(Duration),
}
