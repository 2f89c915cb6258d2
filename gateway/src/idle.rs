//! Noticing that nothing is sent any more.

use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// The idle clock of a flow. A touch only notes the time; the timer is moved when it fires, not with each
/// datagram.
#[derive(Debug)]
pub(crate) struct Idle {
    timeout: Duration,
    touched: Instant,
    timer: Pin<Box<Sleep>>,
}

/// The idle clock of a connection, which both its directions touch.
#[derive(Debug)]
pub(crate) struct Activity {
    since: Instant,
    /// Milliseconds after `since`.
    touched: AtomicU64,
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

impl Activity {
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), touched: AtomicU64::new(0) }
    }

    /// Something happened.
    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.touched.store(now, Ordering::Relaxed);
    }

    /// Ends when nothing has happened for `timeout`; never if there is none.
    pub(crate) async fn expired(&self, timeout: Option<Duration>) {
        let Some(timeout) = timeout else { return pending().await };
        loop {
            let touched = Duration::from_millis(self.touched.load(Ordering::Relaxed));
            let due = self.since + touched + timeout;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn a_connection_is_idle_no_sooner_than_the_time_out_after_its_last_byte() {
        let activity = Activity::new();
        sleep(TIMEOUT / 2).await;
        let touched = Instant::now();
        activity.touch();

        activity.expired(Some(TIMEOUT)).await;

        // Activity is noted in whole milliseconds.
        assert!(touched.elapsed() >= TIMEOUT - Duration::from_millis(1));
    }

    #[tokio::test]
    async fn a_connection_without_a_time_out_is_never_idle() {
        let never = Activity::new();
        tokio::select! {
            () = never.expired(None) => panic!("it was idle"),
            () = sleep(TIMEOUT) => {}
        }
    }
}
