//! One relay's process.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::EMBEDDED;

/// Tells a child to ask the kernel to end it when the thread that started it ends.
const DIE_WITH_PARENT: &str = "OVERWAY_DIE_WITH_PARENT";
/// Lines of a log that tell why its process failed.
const TAIL_LINES: usize = 8;

/// A running relay. Dropping it kills it.
pub(super) struct Process {
    id: u32,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts a relay with this configuration file; its log is beside that.
    pub(super) fn relay(config: &Path) -> anyhow::Result<Self> {
        let exe = std::env::current_exe().context("where this executable is")?;
        let log = config.with_extension("log");
        let out = OpenOptions::new().create(true).append(true).open(&log)?;
        let child = Command::new(exe)
            .args([EMBEDDED, "--log", "info", "relay", "--config"])
            .arg(config)
            .env(DIE_WITH_PARENT, "1")
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out)
            .spawn()
            .context("cannot start a relay")?;
        Ok(Self { id: child.id(), child: Mutex::new(child), log })
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(child.try_wait(), Ok(None))
    }

    pub(super) fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    pub(super) fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.id).ok().and_then(Pid::from_raw).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// The end of its log.
    pub(super) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // An error means that it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}
