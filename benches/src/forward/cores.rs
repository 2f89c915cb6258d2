//! Which core a process runs on, and what it has used of it.

use std::time::Duration;

use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;

/// The cores of a measurement: one for what is measured, one for what loads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// What is measured has it for itself.
    pub(crate) subject: usize,
    /// Generator and sink share it.
    pub(crate) load: usize,
}

impl Cores {
    /// The last two cores that this process may use: the first is where a system's own work goes as a rule.
    /// With one core alone both are the same.
    pub(crate) fn choose() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("which cores may be used")?;
        let mut cores = (0..CpuSet::count()).rev().filter(|&core| allowed.is_set(core) == Ok(true));
        let subject = cores.next().context("no core may be used")?;
        Ok(Self { subject, load: cores.next().unwrap_or(subject) })
    }

    /// Whether load and subject disturb one another.
    pub(crate) fn are_shared(self) -> bool {
        self.subject == self.load
    }
}

/// Keeps the calling thread, and threads and processes that it starts from now on, on one core.
pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .with_context(|| format!("cannot stay on core {core}"))
}

/// What this process has used so far of its cores, in its own code and in the kernel on its behalf.
pub(crate) fn used() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("getrusage")?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(Duration::from_micros(micros.try_into().unwrap_or(0)))
}

/// Resident bytes of this process.
pub(crate) fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    parse_resident(&status).context("/proc/self/status has no VmRSS")
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_size_and_what_it_used() {
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(parse_resident("Name:\tx\n"), None);
        assert!(resident_bytes().unwrap() > 0);
        assert!(used().is_ok());
    }
}
