//! What the host did to this machine meanwhile: whether others had its processors.
//!
//! Promises in milliseconds are the mesh's only on a machine that runs. The witness is a thread with the
//! highest priority that this process may take: what the lab's own processes use up hardly delays it, a
//! virtual machine that stands still does. Beside it stands the kernel's count of what a hypervisor took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the witness looks.
const LOOK: Duration = Duration::from_millis(2);
/// Lateness of the witness beyond which the machine stood still.
const STALL_MAX: Duration = Duration::from_millis(20);
/// Share of the processors' time taken by others beyond which promises are not judged.
const STOLEN_MAX: f64 = 0.05;
/// The highest priority below the real-time classes, see setpriority(2).
const NICE: i32 = -20;

/// A thread that notes how late it is woken.
#[derive(Debug)]
pub struct Witness {
    shared: Arc<Shared>,
    begin: Option<Jiffies>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ending: AtomicBool,
    /// Whether the thread has its priority: without it, lateness may be the lab's own doing.
    raised: AtomicBool,
    late_nanos: AtomicU64,
}

/// What the witness saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostFelt {
    /// The longest that the machine stood still; `None` if the priority was refused.
    pub stall: Option<Duration>,
    /// Share of all processors' time that went to other machines; `None` if the kernel does not say.
    pub stolen: Option<f64>,
}

/// Processors' time since the machine's start, in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Jiffies {
    stolen: u64,
    all: u64,
}

impl Witness {
    /// Starts to watch.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let inner = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("lab-witness".into()).spawn(move || inner.watch())?;
        Ok(Self { shared, begin: Jiffies::now(), thread: Some(thread) })
    }

    /// What was seen since the start.
    pub fn felt(&self) -> HostFelt {
        let late = Duration::from_nanos(self.shared.late_nanos.load(Ordering::Relaxed));
        let stolen = self.begin.zip(Jiffies::now()).and_then(|(from, to)| from.stolen_until(to));
        HostFelt { stall: self.shared.raised.load(Ordering::Relaxed).then_some(late), stolen }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked; that was printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn watch(&self) {
        // The kernel takes the calling thread for "this process" (setpriority(2), "C library/kernel
        // differences").
        let raised = rustix::process::setpriority_process(None, NICE).is_ok();
        self.raised.store(raised, Ordering::Relaxed);
        while !self.ending.load(Ordering::Relaxed) {
            let before = Instant::now();
            std::thread::sleep(LOOK);
            let late = before.elapsed().saturating_sub(LOOK);
            let nanos = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
            self.late_nanos.fetch_max(nanos, Ordering::Relaxed);
        }
    }
}

impl HostFelt {
    /// Whether the machine ran well enough for promises in milliseconds to be judged.
    pub fn is_fit(&self) -> bool {
        self.stall.is_none_or(|stall| stall <= STALL_MAX)
            && self.stolen.is_none_or(|stolen| stolen <= STOLEN_MAX)
    }

    /// In words.
    pub fn text(&self) -> String {
        let stall = self.stall.map_or_else(
            || "an unknown time".to_owned(),
            |stall| format!("{:.0} ms", stall.as_secs_f64() * 1e3),
        );
        let stolen = self
            .stolen
            .map_or_else(|| "an unknown share".to_owned(), |share| format!("{:.1} %", share * 1e2));
        format!("this machine stood still for up to {stall}, and others had {stolen} of it")
    }
}

impl Jiffies {
    fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// The first line of proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.lines().next()?.split_whitespace();
        (words.next()? == "cpu").then_some(())?;
        let ticks: Vec<u64> = words.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        let stolen = *ticks.get(7)?;
        Some(Self { stolen, all: ticks.iter().fold(0, |sum, &tick| sum.saturating_add(tick)) })
    }

    fn stolen_until(self, to: Self) -> Option<f64> {
        let all = to.all.checked_sub(self.all).filter(|&all| all > 0)?;
        Some(to.stolen.saturating_sub(self.stolen) as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_the_eighth_number() {
        let from = Jiffies::parse("cpu  100 0 50 800 0 0 10 40 0 0\ncpu0 1 2 3").unwrap();
        assert_eq!(from, Jiffies { stolen: 40, all: 1_000 });
        let to = Jiffies::parse("cpu 110 0 60 860 0 0 10 60 7 7").unwrap();

        assert_eq!(from.stolen_until(to), Some(0.2));
        assert_eq!(from.stolen_until(from), None, "no time has passed");
        assert_eq!(to.stolen_until(from), None, "time does not run backwards");
    }

    #[test]
    fn what_is_not_the_processors_line_says_nothing() {
        for text in ["", "cpu", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7 x"] {
            assert_eq!(Jiffies::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_machine_that_stood_still_or_was_shared_is_not_fit() {
        let felt = |stall, stolen| HostFelt { stall: Some(Duration::from_millis(stall)), stolen };
        assert!(felt(20, Some(0.05)).is_fit() && felt(3, None).is_fit());
        assert!(!felt(21, Some(0.0)).is_fit() && !felt(0, Some(0.06)).is_fit());
        assert!(HostFelt { stall: None, stolen: None }.is_fit());
    }

    #[test]
    fn the_witness_sees_itself_sleep() {
        let witness = Witness::start().unwrap();
        let started = Instant::now();
        while witness.shared.late_nanos.load(Ordering::Relaxed) == 0 {
            assert!(started.elapsed() < Duration::from_secs(20), "no sleep is exact");
            std::thread::sleep(LOOK);
        }
    }
}
