//! What both sides of a UDP flow share: the idle clock, and sending.

use std::pin::Pin;
use std::time::Duration;

use overway_session::{Flow, SendError};
use tokio::time::{Instant, Sleep, sleep};

use crate::stats::{Counters, DatagramDrop};

/// Tells when nothing has happened for a while. A touch only notes the time; the timer is moved when it
/// fires, not with each datagram.
#[derive(Debug)]
pub(crate) struct Idle {
    timeout: Duration,
    touched: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, touched: Instant::now(), timer: Box::pin(sleep(timeout)) }
    }

    /// Something happened.
    pub(crate) fn touch(&mut self) {
        self.touched = Instant::now();
    }

    /// Ends when nothing has happened for the time-out. May be dropped and called again.
    pub(crate) async fn expired(&mut self) {
        loop {
            self.timer.as_mut().await;
            let due = self.touched + self.timeout;
            if due <= Instant::now() {
                return;
            }
            self.timer.as_mut().reset(due);
        }
    }
}

/// Sends a datagram and counts what became of it. Whether the flow lives.
pub(crate) fn send(flow: &Flow, datagram: &[u8], counters: &Counters) -> bool {
    match flow.send(datagram) {
        Ok(()) => {
            counters.sent_to_mesh(datagram.len());
            true
        }
        Err(SendError::TooLong) => {
            counters.discard(DatagramDrop::Oversize, 1);
            true
        }
        Err(SendError::Closed) => {
            counters.discard(DatagramDrop::NoFlow, 1);
            false
        }
    }
}
