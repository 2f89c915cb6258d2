//! Child processes: spawned, stopped with signals, and gone when the lab is.
//!
//! One thread, the keeper, spawns them all. It lives as long as [`Processes`], because the kernel ends a
//! child that asked to die with its parent when the *thread* which spawned it ends. Children are put
//! into process groups of their own, so that Ctrl-C reaches the lab alone, which then ends them.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};

/// Tells a child to ask the kernel to end it when its parent dies.
const DIE_WITH_PARENT: &str = "OVERWAY_DIE_WITH_PARENT";
/// Bytes at the end of a log that are looked at for its last lines.
const TAIL_BYTES: u64 = 16 << 10;

/// How to start the `overway` program.
#[derive(Clone, Debug)]
pub struct Spawner {
    /// The executable.
    pub exe: PathBuf,
    /// Arguments before the subcommand, for a program that embeds `overway`.
    pub prefix: Vec<OsString>,
}

impl Spawner {
    /// The running executable itself.
    ///
    /// # Errors
    /// The system does not say what it is.
    pub fn current() -> io::Result<Self> {
        Ok(Self { exe: std::env::current_exe()?, prefix: Vec::new() })
    }

    /// The command that runs a subcommand with a configuration file, its output going to `log`.
    fn command(&self, subcommand: &str, config: &Path, log: &Path) -> io::Result<Command> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(&self.exe);
        command
            .args(&self.prefix)
            .arg(subcommand)
            .arg("--config")
            .arg(config)
            .env(DIE_WITH_PARENT, "1")
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out)
            .process_group(0);
        Ok(command)
    }
}

/// Spawns commands from one thread.
#[derive(Debug)]
pub(super) struct Keeper {
    spawner: Spawner,
    orders: mpsc::Sender<Order>,
}

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

impl Keeper {
    /// Starts the thread; it ends with the keeper.
    pub(super) fn new(spawner: Spawner) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::Builder::new().name("lab-keeper".into()).spawn(move || {
            while let Ok((mut command, answer)) = inbox.recv() {
                // Nobody waits any longer: the child is dropped here, and ends with this thread.
                let _ = answer.send(command.spawn());
            }
        })?;
        Ok(Self { spawner, orders })
    }

    /// Starts a subcommand.
    pub(super) fn spawn(&self, subcommand: &str, config: &Path, log: &Path) -> io::Result<Process> {
        let command = self.spawner.command(subcommand, config, log)?;
        let (answer, result) = mpsc::sync_channel(1);
        let gone = |_| io::Error::other("the keeper's thread has ended");
        self.orders.send((command, answer)).map_err(|_| io::Error::other("no keeper"))?;
        let child = result.recv().map_err(gone)??;
        Ok(Process { child, frozen: false })
    }
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    frozen: bool,
}

impl Process {
    /// Its id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is stopped by [`Self::freeze`].
    pub(super) fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Stops it without its knowledge (SIGSTOP).
    pub(super) fn freeze(&mut self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        self.frozen = true;
        Ok(())
    }

    /// Lets it go on (SIGCONT).
    pub(super) fn thaw(&mut self) -> io::Result<()> {
        self.signal(Signal::CONT)?;
        self.frozen = false;
        Ok(())
    }

    /// How it ended, if it has.
    pub(super) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Itself, unless it has ended.
    pub(super) fn living(&mut self) -> Option<&mut Self> {
        self.exited().is_none().then_some(self)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("not a process id"))?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a log file; what is known of it if it cannot be read.
pub(super) fn tail(log: &Path, lines: usize) -> String {
    match read_tail(log) {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({} cannot be read: {error})", log.display()),
    }
}

fn read_tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("a.log");
        std::fs::write(&log, "one\ntwo\nthree\n").unwrap();

        assert_eq!(tail(&log, 2), "two\nthree");
        assert!(tail(&directory.path().join("none"), 2).contains("cannot be read"));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("child");
        std::fs::write(&script, "").unwrap();
        let spawner =
            Spawner { exe: "/bin/sh".into(), prefix: vec!["-c".into(), "sleep 60".into()] };
        let keeper = Keeper::new(spawner).unwrap();
        let mut process =
            keeper.spawn("relay", &script, &directory.path().join("child.log")).unwrap();
        let pid = Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();

        process.freeze().unwrap();
        assert!(process.is_frozen() && process.exited().is_none());
        drop(process);

        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
