//! Where local ends meet the mesh thread: a bounded queue of frames with back-pressure.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use overway_session::{FabricSender, Full, Outbound};
use tokio::sync::Notify;

/// Frames that wait for the mesh thread. At 1,200 bytes each this is 5 MB, and 40 ms at 1 Gbit/s: longer
/// than the thread should ever be away.
pub const QUEUE_FRAMES_MAX: usize = 4_096;
/// Tasks that may wait for room; one per session connection. Beyond it the oldest is woken early, which
/// costs it a look and nothing else.
const WAITING_MAX: usize = 4_096;

/// The queue between local ends and the mesh thread.
#[derive(Debug, Default)]
pub struct LocalQueue {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Outbound>,
    waiting: VecDeque<Waker>,
}

impl LocalQueue {
    /// Waits until there is something to take.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes at most `count` frames into `out` and lets waiting senders go on; says whether more wait.
    pub(crate) fn take(&self, count: usize, out: &mut Vec<Outbound>) -> bool {
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

impl FabricSender for LocalQueue {
    fn try_send(&self, frames: &mut Vec<Outbound>) -> Result<(), Full> {
        let mut state = self.lock();
        let room = QUEUE_FRAMES_MAX - state.frames.len();
        let taken = room.min(frames.len());
        state.frames.extend(frames.drain(..taken));
        drop(state);
        if taken > 0 {
            self.filled.notify_one();
        }
        if frames.is_empty() { Ok(()) } else { Err(Full) }
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
