//! Where frames for local ends are put: the gateway's channel, and a queue for each edge that is attached.
//!
//! Read by the mesh's workers for every batch, written when an edge comes or goes: whoever floods the access side with
//! handshakes never gets that far.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
use overway_relay_core::Attachments;
use overway_session::Inbound;
use overway_wire::control::AccessUse;
use overway_wire::{AttachmentId, Class};
use tokio::sync::{Notify, mpsc};

/// Frames of one class that wait for one edge: 300 KB at most, and 25 ms at 100 Mbit/s.
pub const EDGE_FRAMES_MAX: usize = 256;

/// Why frames were not delivered, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The end does not keep up.
    Full(u64),
    /// Nobody is attached there.
    Unknown(u64),
}

/// What takes an edge's frames from the mesh to its connection: realtime before interactive before bulk, for an edge's
/// own line is slower than the mesh. Each class is bounded by [`EDGE_FRAMES_MAX`]; its newest is dropped.
#[derive(Debug, Default)]
pub struct EdgeQueue {
    frames: Mutex<[VecDeque<Inbound>; Class::ALL.len()]>,
    filled: Notify,
}

/// The local ends of a relay. There are no more than attachment ids, and no more edges than the access side lets in.
#[derive(Debug)]
pub struct Deliveries {
    gateway: mpsc::Sender<Vec<Inbound>>,
    /// What the cores go by: frames for an edge that is not in it go to the edge's other address.
    attached: Arc<Attachments>,
    edges: RwLock<HashMap<AttachmentId, Arc<EdgeQueue>>>,
    /// What edges use, for the scheduler; the access side says it.
    access: ArcSwapOption<AccessUse>,
}

impl Deliveries {
    pub(crate) fn new(gateway: mpsc::Sender<Vec<Inbound>>, attached: Arc<Attachments>) -> Self {
        Self { gateway, attached, edges: RwLock::default(), access: ArcSwapOption::empty() }
    }

    /// Says what edges use now.
    pub fn set_access_use(&self, used: AccessUse) {
        self.access.store(Some(Arc::new(used)));
    }

    /// What edges use; `None` where none can attach.
    pub fn access_use(&self) -> Option<AccessUse> {
        self.access.load().as_deref().cloned()
    }

    /// Gives an attachment a queue; an earlier one is used no more.
    pub fn attach(&self, attachment: AttachmentId) -> Arc<EdgeQueue> {
        let queue = Arc::<EdgeQueue>::default();
        let mut edges = self.edges.write().unwrap_or_else(PoisonError::into_inner);
        edges.insert(attachment, Arc::clone(&queue));
        drop(edges);
        self.attached.insert(attachment);
        queue
    }

    /// Whether an attached edge answers. Frames for one that does not go to its other address, if they name one.
    pub fn set_answering(&self, attachment: AttachmentId, answering: bool) {
        if answering {
            self.attached.insert(attachment);
        } else {
            self.attached.remove(attachment);
        }
    }

    /// Takes an attachment's queue away.
    pub fn detach(&self, attachment: AttachmentId) {
        self.attached.remove(attachment);
        let mut edges = self.edges.write().unwrap_or_else(PoisonError::into_inner);
        edges.remove(&attachment);
    }

    /// Hands over frames that came together, in their order.
    ///
    /// # Errors
    /// Says how many were dropped, and why.
    pub fn deliver(
        &self,
        attachment: AttachmentId,
        batch: Vec<Inbound>,
    ) -> Result<(), Undelivered> {
        let count = batch.len() as u64;
        if attachment == AttachmentId::GATEWAY {
            return self.gateway.try_send(batch).map_err(|_| Undelivered::Full(count));
        }
        let edges = self.edges.read().unwrap_or_else(PoisonError::into_inner);
        let queue = edges.get(&attachment).cloned().ok_or(Undelivered::Unknown(count))?;
        drop(edges);
        match queue.put(batch) {
            0 => Ok(()),
            dropped => Err(Undelivered::Full(dropped)),
        }
    }
}

impl EdgeQueue {
    /// Takes frames in; says how many there was no room for.
    fn put(&self, batch: Vec<Inbound>) -> u64 {
        let mut dropped = 0;
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        for frame in batch {
            let class = &mut frames[usize::from(frame.class.code())];
            if class.len() < EDGE_FRAMES_MAX {
                class.push_back(frame);
            } else {
                dropped += 1;
            }
        }
        drop(frames);
        self.filled.notify_one();
        dropped
    }

    /// Waits until there is something to take.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// The frame that has waited longest in the first class that has one.
    pub fn take(&self) -> Option<Inbound> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        frames.iter_mut().find_map(VecDeque::pop_front)
    }

    /// Throws away what waits; says how many frames that were.
    pub fn clear(&self) -> u64 {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        frames.iter_mut().map(|class| class.drain(..).count() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use overway_wire::frame::FrameEcn;
    use overway_wire::{Address, FlowId, FrameKind, PolicyId, RelayId};

    fn frames(sequences: std::ops::Range<u64>) -> Vec<Inbound> {
        let frame = |sequence| Inbound {
            source: Address::new(RelayId(1), AttachmentId::GATEWAY),
            kind: FrameKind::Session,
            class: Class::Bulk,
            policy: PolicyId(0),
            ecn: FrameEcn::Capable,
            flow: FlowId(1),
            sequence,
            payload: Bytes::new(),
        };
        sequences.map(frame).collect()
    }

    #[test]
    fn each_end_gets_its_own_frames_and_what_is_too_much_is_said() {
        let (gateway, mut received) = mpsc::channel(1);
        let attached = Arc::<Attachments>::default();
        let deliveries = Deliveries::new(gateway, Arc::clone(&attached));
        let edge = AttachmentId(7);
        assert_eq!(deliveries.deliver(edge, frames(0..3)), Err(Undelivered::Unknown(3)));
        assert_eq!(
            deliveries.deliver(AttachmentId::RELAY, frames(0..1)),
            Err(Undelivered::Unknown(1))
        );
        let queue = deliveries.attach(edge);
        assert!(attached.contains(edge));
        deliveries.set_answering(edge, false);
        assert!(!attached.contains(edge));

        assert_eq!(deliveries.deliver(AttachmentId::GATEWAY, frames(0..2)), Ok(()));
        let more = deliveries.deliver(AttachmentId::GATEWAY, frames(2..4));
        assert_eq!(more, Err(Undelivered::Full(2)));
        let max = EDGE_FRAMES_MAX as u64;
        assert_eq!(deliveries.deliver(edge, frames(0..max - 1)), Ok(()));
        assert_eq!(deliveries.deliver(edge, frames(max - 1..max + 2)), Err(Undelivered::Full(2)));

        assert_eq!(received.try_recv().unwrap(), frames(0..2));
        let taken: Vec<Inbound> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(taken, frames(0..max));
        let urgent = Inbound { class: Class::Realtime, ..frames(9..10).remove(0) };
        assert_eq!(deliveries.deliver(edge, frames(0..2)), Ok(()));
        assert_eq!(deliveries.deliver(edge, vec![urgent.clone()]), Ok(()));
        assert_eq!(queue.take(), Some(urgent));
        assert_eq!(queue.clear(), 2);
        deliveries.detach(edge);
        assert_eq!(deliveries.deliver(edge, frames(0..1)), Err(Undelivered::Unknown(1)));
    }
}
