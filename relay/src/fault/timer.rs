//! A timer for releases.
//!
//! tokio's own timer counts whole milliseconds. On a path of several hops that would add up to more than
//! the differences which routing is to find, so on Linux a timerfd does it, to some ten microseconds.

#[cfg(target_os = "linux")]
pub(super) use self::linux::Timer;
#[cfg(not(target_os = "linux"))]
pub(super) use self::portable::Timer;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::task::{Context, Poll, ready};
    use std::time::{Duration, Instant};

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// One timer, waited for by one task.
    #[derive(Debug)]
    pub(in super::super) struct Timer {
        fd: AsyncFd<OwnedFd>,
        armed: Option<Instant>,
    }

    impl Timer {
        /// Creates the timer on the current tokio runtime.
        pub(in super::super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            #[expect(
                deprecated,
                reason = "the successor is unsafe, with a contract that an OwnedFd meets by its type"
            )]
            let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
            Ok(Self { fd, armed: None })
        }

        /// Is ready once `at` has passed, and wakes the task then.
        pub(in super::super) fn poll(
            &mut self,
            cx: &mut Context<'_>,
            at: Instant,
        ) -> Poll<io::Result<()>> {
            let wait = at.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Poll::Ready(Ok(()));
            }
            if self.armed != Some(at) {
                timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once_after(wait))?;
                self.armed = Some(at);
            }
            loop {
                let mut guard = ready!(self.fd.poll_read_ready(cx))?;
                let mut expirations = [0; 8];
                let read = guard.try_io(|fd| Ok(rustix::io::read(fd, &mut expirations)?));
                if let Ok(read) = read {
                    read?;
                    self.armed = None;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn once_after(wait: Duration) -> Itimerspec {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
        let value = Timespec { tv_sec: seconds, tv_nsec: wait.subsec_nanos().into() };
        Itimerspec { it_interval: zero, it_value: value }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::future::Future;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Instant;

    use tokio::time::{Sleep, sleep_until};

    /// One timer, waited for by one task.
    #[derive(Debug)]
    pub(in super::super) struct Timer {
        sleep: Pin<Box<Sleep>>,
    }

    impl Timer {
        /// Creates the timer on the current tokio runtime.
        pub(in super::super) fn new() -> io::Result<Self> {
            Ok(Self { sleep: Box::pin(sleep_until(Instant::now().into())) })
        }

        /// Is ready once `at` has passed, and wakes the task then.
        pub(in super::super) fn poll(
            &mut self,
            cx: &mut Context<'_>,
            at: Instant,
        ) -> Poll<io::Result<()>> {
            if at <= Instant::now() {
                return Poll::Ready(Ok(()));
            }
            if self.sleep.deadline() != at.into() {
                self.sleep.as_mut().reset(at.into());
            }
            self.sleep.as_mut().poll(cx).map(Ok)
        }
    }
}
