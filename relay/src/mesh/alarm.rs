//! Wakes a worker when a core of it wants to be woken.
//!
//! Not by the runtime's timers: those give every wait for a socket a timeout. The core's next deadline is nearly always
//! a few milliseconds away (the tail probe of the frame just sent), nearer than anything else that the processor waits for,
//! so that each wait would program its timer anew, which on a virtual machine takes longer than to forward a
//! frame. A timer of its own stands until it rings, however often the thread looks for packets meanwhile.

#[cfg(target_os = "linux")]
use std::io;
use std::time::{Duration, Instant};

/// Deadlines within so long of one another are one ring: what many links want does not wake the thread for each.
const GRAIN: Duration = Duration::from_micros(500);

/// A timer of the system, or the runtime's where there is none to be had.
#[cfg(target_os = "linux")]
pub(super) struct Alarm {
    timer: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
    base: Instant,
}

#[cfg(target_os = "linux")]
impl Alarm {
    /// Makes one on the runtime at hand.
    pub(super) fn new() -> Self {
        let timer = open().inspect_err(|error| {
            tracing::warn!(%error, "no timer of the system to be had: forwarding costs more");
        });
        Self { timer: timer.ok(), base: Instant::now() }
    }

    /// Waits until then, or a grain longer.
    pub(super) async fn ring(&self, due: Instant) {
        let due = rounded(due, self.base);
        let rang = match &self.timer {
            Some(timer) => ring(timer, due).await.is_ok(),
            None => false,
        };
        if !rang {
            tokio::time::sleep_until(due.into()).await;
        }
    }
}

#[cfg(target_os = "linux")]
#[expect(
    deprecated,
    reason = "its successor is unsafe for types whose descriptor may change; this one's does not"
)]
fn open() -> io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    tokio::io::unix::AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)
}

/// Waits until then.
#[cfg(target_os = "linux")]
async fn ring(
    timer: &tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
    due: Instant,
) -> io::Result<()> {
    use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
    let wait = due.saturating_duration_since(Instant::now());
    if wait.is_zero() {
        tokio::task::yield_now().await;
        return Ok(());
    }
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        },
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    loop {
        let mut ready = timer.readable().await?;
        let mut rings = [0; 8];
        if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut rings)?)) {
            // All rings are read: the next wait is for another.
            ready.clear_ready();
            return read.map(drop);
        }
    }
}

/// The runtime's timers.
#[cfg(not(target_os = "linux"))]
pub(super) struct Alarm {
    base: Instant,
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    /// Makes one.
    pub(super) fn new() -> Self {
        Self { base: Instant::now() }
    }

    /// Waits until then, or a grain longer.
    pub(super) async fn ring(&self, due: Instant) {
        tokio::time::sleep_until(rounded(due, self.base).into()).await;
    }
}

/// The first moment of the grid at or after a deadline.
fn rounded(due: Instant, base: Instant) -> Instant {
    let grain = GRAIN.as_nanos();
    let nanos = due.saturating_duration_since(base).as_nanos().div_ceil(grain) * grain;
    base + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_met_on_a_grid_and_never_early() {
        let base = Instant::now();
        let at = |micros| base + Duration::from_micros(micros);
        for (due, rings) in [(0, 0), (1, 500), (499, 500), (500, 500), (501, 1_000), (7_200, 7_500)]
        {
            assert_eq!(rounded(at(due), base), at(rings), "{due}");
        }
    }

    #[tokio::test]
    async fn an_alarm_rings_when_it_is_due_and_again_when_it_is_set_anew() {
        let alarm = Alarm::new();
        for wait in [0, 3, 1] {
            let due = Instant::now() + Duration::from_millis(wait);
            alarm.ring(due).await;
            assert!(Instant::now() >= due, "{wait}");
        }
        // One that was given up does not ring for the next.
        let soon = alarm.ring(Instant::now() + Duration::from_millis(2));
        let given_up = tokio::time::timeout(Duration::ZERO, soon).await;
        assert!(given_up.is_err());
        let due = Instant::now() + Duration::from_millis(20);
        alarm.ring(due).await;
        assert!(Instant::now() >= due);
    }
}
