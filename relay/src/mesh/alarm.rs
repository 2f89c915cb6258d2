//! Wakes a worker when a core of it wants to be woken.
//!
//! Not by the runtime's timers: those give every wait for a socket a timeout. The core's next deadline is nearly always
//! a few milliseconds away (the tail probe of the frame just sent), nearer than anything else that the processor waits for,
//! so that each wait would program its timer anew, which on a virtual machine takes longer than to forward a
//! frame. A timer of its own stands until it rings, however often the thread looks for packets meanwhile. It is set by who
//! feeds the core, without a turn of the task that waits for it: with frames in bursts that is once for each burst.

use std::cell::Cell;
#[cfg(target_os = "linux")]
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Deadlines within so long of one another are one ring: what many links want does not wake the thread for each.
const GRAIN: Duration = Duration::from_micros(500);

/// A timer of the system, or the runtime's where there is none to be had.
#[derive(Debug)]
pub(super) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
    base: Instant,
    /// For the runtime's timers: when it is to ring, and that this is another time now.
    due: Cell<Option<Instant>>,
    changed: Notify,
}

impl Alarm {
    /// Makes one, that is not set, on the runtime at hand.
    pub(super) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            timer: open()
                .inspect_err(|error| {
                    tracing::warn!(%error, "no timer of the system to be had: forwarding costs more");
                })
                .ok(),
            base: Instant::now(),
            due: Cell::new(None),
            changed: Notify::new(),
        }
    }

    /// Has it ring then, or a grain later, and no more at the time that it was set to before.
    pub(super) fn set(&self, due: Instant) {
        let due = rounded(due, self.base);
        #[cfg(target_os = "linux")]
        if let Some(timer) = &self.timer
            && program(timer, due).is_ok()
        {
            return;
        }
        self.due.set(Some(due));
        self.changed.notify_one();
    }

    /// Waits until it rings; it is no longer set then. One task waits at a time.
    pub(super) async fn ring(&self) {
        #[cfg(target_os = "linux")]
        if let Some(timer) = &self.timer {
            tokio::select! {
                rang = rang(timer) => {
                    if rang.is_err() {
                        tokio::time::sleep(GRAIN).await;
                    }
                    return;
                }
                // It could not be set.
                () = self.changed.notified() => {}
            }
        }
        self.ring_by_runtime().await;
    }

    async fn ring_by_runtime(&self) {
        loop {
            let Some(due) = self.due.get() else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => return self.due.set(None),
                () = self.changed.notified() => {}
            }
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

/// Sets the timer; a time that has passed rings at once.
#[cfg(target_os = "linux")]
fn program(timer: &tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>, due: Instant) -> io::Result<()> {
    use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
    // None at all would stop it.
    let wait = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        },
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

/// Waits until it rings.
#[cfg(target_os = "linux")]
async fn rang(timer: &tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = timer.readable().await?;
        let mut rings = [0; 8];
        // Nothing is there to be read if it was set anew in the meantime.
        if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut rings)?)) {
            // All rings are read: the next wait is for another.
            ready.clear_ready();
            return read.map(drop);
        }
    }
}

/// The first moment of the grid at or after a deadline.
fn rounded(due: Instant, base: Instant) -> Instant {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let grain = nanos(GRAIN);
    let after = nanos(due.saturating_duration_since(base)).div_ceil(grain);
    base + Duration::from_nanos(after.saturating_mul(grain))
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

    /// The timer of the system where there is one, and the runtime's.
    fn alarms() -> Vec<Alarm> {
        #[cfg(target_os = "linux")]
        let by_runtime = Alarm { timer: None, ..Alarm::new() };
        #[cfg(not(target_os = "linux"))]
        let by_runtime = Alarm::new();
        vec![Alarm::new(), by_runtime]
    }

    #[tokio::test]
    async fn an_alarm_rings_once_each_time_it_is_set_and_never_early() {
        for alarm in alarms() {
            for wait in [0, 3, 1] {
                let due = Instant::now() + Duration::from_millis(wait);
                alarm.set(due);
                alarm.ring().await;
                assert!(Instant::now() >= due, "{wait}");
            }
            let again = tokio::time::timeout(Duration::from_millis(20), alarm.ring()).await;
            assert!(again.is_err(), "it is not set");
        }
    }

    #[tokio::test]
    async fn an_alarm_that_is_set_anew_rings_then_and_not_before() {
        for alarm in alarms() {
            // Whether it has rung already, or not yet.
            for pause in [5, 0] {
                alarm.set(Instant::now() + Duration::from_millis(2));
                tokio::time::sleep(Duration::from_millis(pause)).await;
                let due = Instant::now() + Duration::from_millis(30);
                alarm.set(due);
                alarm.ring().await;
                assert!(Instant::now() >= due);
            }
            // While somebody waits, sooner and later.
            for (first, then) in [(10_000, 5), (5, 30)] {
                alarm.set(Instant::now() + Duration::from_millis(first));
                let due = Instant::now() + Duration::from_millis(then);
                let set = async {
                    tokio::task::yield_now().await;
                    alarm.set(due);
                };
                tokio::join!(alarm.ring(), set);
                assert!(Instant::now() >= due, "{first}, {then}");
            }
        }
    }
}
