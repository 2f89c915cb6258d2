//! What a session needs of the fabric below it: a way to hand frames over, and a channel of frames that
//! arrived. A relay gives this to its own gateway, an edge's attachments to the edge; a test gives two ends a fake of it.

use std::fmt::Debug;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use overway_wire::frame::FrameEcn;
use overway_wire::{Address, Class, FlowId, FrameKind, Millis, PolicyId, Redundancy};
use tokio::sync::mpsc;

/// An attachment to the fabric, as its relay hands it to one end.
#[derive(Debug)]
pub struct FabricPort {
    /// The end's own address.
    pub local: Address,
    /// Takes frames for the fabric.
    pub sender: Arc<dyn FabricSender>,
    /// Frames for this end, in the batches in which they came. Closed: the relay stops.
    pub receiver: mpsc::Receiver<Vec<Inbound>>,
}

/// Takes frames for the fabric, without waiting.
pub trait FabricSender: Debug + Send + Sync + 'static {
    /// Takes frames from the front of `frames`, as many as fit, and removes these. The second of two in a row of the same
    /// kind, flow and sequence is a copy for another address: whoever has two attachments sends it by the other one.
    ///
    /// # Errors
    /// [`Full`] if frames are left; they are to be offered again once [`Self::poll_ready`] is ready.
    fn try_send(&self, frames: &mut Vec<Outbound>) -> Result<(), Full>;

    /// Ready when there is room for at least one frame; otherwise the task is woken when there is. The
    /// task that polled last is the only one that needs to be woken.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// The fabric takes no more frames now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fabric takes no more frames now")]
pub struct Full;

/// A frame to send; the relay adds source and path. The ends react to congestion marks, so it
/// travels as [`FrameEcn::Capable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// What the payload is.
    pub kind: FrameKind,
    /// What the frame asks of queues and routes.
    pub class: Class,
    /// What its path may use. For an edge's frames it is 0, and the relay that takes them writes the tenant's.
    pub policy: PolicyId,
    /// How much of its flow goes more than once.
    pub redundancy: Redundancy,
    /// Where it goes.
    pub destination: Address,
    /// The far end's other address, if it has one.
    pub alternate: Option<Address>,
    /// For sessions the incarnation and the redundancy, for datagrams the flow.
    pub flow: FlowId,
    /// Position among the sender's frames of this kind, far end, class, policy and flow.
    pub sequence: u64,
    /// How long it is worth carrying.
    pub budget: Millis,
    /// At most [`overway_wire::frame::PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Bytes,
}

/// A frame that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Where answers go.
    pub source: Address,
    /// What the payload is.
    pub kind: FrameKind,
    /// The class in which it travelled.
    pub class: Class,
    /// The policy under which it travelled.
    pub policy: PolicyId,
    /// Congestion marks that it collected.
    pub ecn: FrameEcn,
    /// For sessions the incarnation and the redundancy, for datagrams the flow.
    pub flow: FlowId,
    /// Position among the sender's frames of this kind, class, policy and flow.
    pub sequence: u64,
    /// What it carries.
    pub payload: Bytes,
}
