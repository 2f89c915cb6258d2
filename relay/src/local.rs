//! Where local ends meet the mesh's workers: bounded queues of frames with back-pressure, one for each worker. A flow's
//! frames go to one of them, by a hash, so that they stay in order. A frame carries the attachment that it is from: the
//! gateway's, as a [`FabricSender`], or an edge's.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use overway_relay_core::flow_shard;
use overway_session::{FabricSender, Full, Outbound};
use overway_wire::AttachmentId;
use tokio::sync::Notify;

/// Frames that wait for a worker. At 1,200 bytes each this is 5 MB, and 40 ms at 1 Gbit/s: longer
/// than the thread should ever be away.
pub const QUEUE_FRAMES_MAX: usize = 4_096;
/// Tasks that may wait for room; one per session connection. Beyond it the oldest is woken early, which
/// costs it a look and nothing else.
const WAITING_MAX: usize = 4_096;

/// A frame, and the local end that it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sourced {
    pub(crate) source: AttachmentId,
    pub(crate) frame: Outbound,
}

/// The queues between local ends and all workers.
#[derive(Debug)]
pub struct LocalQueues {
    queues: Vec<LocalQueue>,
    /// What flows are spread over: as many as the link with most of them has.
    shards: AtomicU8,
}

impl LocalQueues {
    pub(crate) fn new(workers: u8) -> Self {
        let queues = (0..workers.max(1)).map(|_| LocalQueue::default()).collect();
        Self { queues, shards: AtomicU8::new(1) }
    }

    /// Spreads flows over so many shards from now on.
    pub(crate) fn set_shards(&self, shards: u8) {
        self.shards.store(shards.max(1), Ordering::Relaxed);
    }

    /// The shard that a flow is carried by.
    pub(crate) fn shard_of(&self, frame: &Outbound) -> u8 {
        let shards = self.shards.load(Ordering::Relaxed);
        let Outbound { destination, class, policy, flow, .. } = frame;
        flow_shard(*destination, *class, *policy, *flow, shards)
    }

    /// A worker's queue.
    pub(crate) fn of(&self, worker: u8) -> &LocalQueue {
        &self.queues[usize::from(worker)]
    }

    fn worker_of(&self, frame: &Outbound) -> usize {
        usize::from(self.shard_of(frame)) % self.queues.len()
    }
}

impl LocalQueues {
    /// Takes frames of a local end from the front of `frames`, as many as fit, and removes these.
    ///
    /// # Errors
    /// [`Full`] if frames are left.
    pub fn try_send_from(
        &self,
        source: AttachmentId,
        frames: &mut Vec<Outbound>,
    ) -> Result<(), Full> {
        if let [queue] = &self.queues[..] {
            let all = frames.len();
            return queue.put(source, frames, all);
        }
        while let Some(first) = frames.first() {
            let worker = self.worker_of(first);
            let run = frames.iter().take_while(|frame| self.worker_of(frame) == worker).count();
            self.queues[worker].put(source, frames, run)?;
        }
        Ok(())
    }
}

/// The gateway's way in.
impl FabricSender for LocalQueues {
    fn try_send(&self, frames: &mut Vec<Outbound>) -> Result<(), Full> {
        self.try_send_from(AttachmentId::GATEWAY, frames)
    }

    /// Ready when every queue has room: the caller does not say which it waits for.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let full = self.queues.iter().any(|queue| queue.poll_ready(cx).is_pending());
        if full { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// The queue between local ends and a worker.
#[derive(Debug, Default)]
pub(crate) struct LocalQueue {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Sourced>,
    waiting: VecDeque<Waker>,
}

impl LocalQueue {
    /// Waits until there is something to take.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes at most `count` frames into `out` and lets waiting senders go on; says whether more wait.
    pub(crate) fn take(&self, count: usize, out: &mut Vec<Sourced>) -> bool {
        let mut state = self.lock();
        let taken = count.min(state.frames.len());
        out.extend(state.frames.drain(..taken));
        let waiting = std::mem::take(&mut state.waiting);
        let more = !state.frames.is_empty();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        more
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LocalQueue {
    /// Takes the first `count` frames in, or as many as there is room for.
    fn put(
        &self,
        source: AttachmentId,
        frames: &mut Vec<Outbound>,
        count: usize,
    ) -> Result<(), Full> {
        let mut state = self.lock();
        let room = QUEUE_FRAMES_MAX - state.frames.len();
        let taken = room.min(count);
        let taken_in = frames.drain(..taken).map(|frame| Sourced { source, frame });
        state.frames.extend(taken_in);
        drop(state);
        if taken > 0 {
            self.filled.notify_one();
        }
        if taken == count { Ok(()) } else { Err(Full) }
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.frames.len() < QUEUE_FRAMES_MAX {
            return Poll::Ready(());
        }
        if state.waiting.len() >= WAITING_MAX
            && let Some(oldest) = state.waiting.pop_front()
        {
            oldest.wake();
        }
        state.waiting.push_back(cx.waker().clone());
        Poll::Pending
    }
}
