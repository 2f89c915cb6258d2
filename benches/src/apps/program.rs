//! The program that is both ends of an application: its start, what it is told, and what it says.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use overway::lab::stage::Stage;
use overway::lab::world::World;

use super::{App, PROGRAMS, Told};

const READY_TIME_MAX: Duration = Duration::from_secs(60);
const END_TIME_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// A running program; killed when dropped.
pub(super) struct Program {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Program {
    pub(super) fn start(
        app: App,
        python: &Path,
        world: &World,
        target: SocketAddr,
    ) -> anyhow::Result<Self> {
        let script = Path::new(PROGRAMS).join(format!("{}.py", app.name()));
        let log = world.dir().join(format!("{}.log", app.name()));
        let log = std::fs::File::create(&log).context("cannot make the program's log")?;
        let ports = app.ports(world, target);
        let ports = ports.into_iter().map(|port| OsString::from(port.to_string()));
        let mut child = Command::new(python)
            .arg(&script)
            .args(ports)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", script.display()))?;
        let input = child.stdin.take().context("the program's input")?;
        let lines = read_lines(child.stdout.take().context("the program's output")?)?;
        Ok(Self { child, input, lines })
    }

    pub(super) fn wait_ready(&mut self, stage: &Stage) -> anyhow::Result<()> {
        let line = self.line(READY_TIME_MAX, stage, "the application connects")?;
        if line == "ready" { Ok(()) } else { bail!("the program said {line:?} instead of ready") }
    }

    /// Waits until what the program carries comes evenly.
    pub(super) fn wait_steady(&mut self, stage: &Stage, about: &str) -> anyhow::Result<()> {
        self.tell("steady")?;
        match self.line(READY_TIME_MAX, stage, "waiting for an even flow")?.as_str() {
            "steady" => Ok(()),
            state => {
                bail!("{about}: what the program carries has not come evenly for 20 s: {state}")
            }
        }
    }

    pub(super) fn tell(&mut self, word: &str) -> anyhow::Result<()> {
        writeln!(self.input, "{word}").context("the program has ended")
    }

    pub(super) fn end(&mut self, stage: &Stage) -> anyhow::Result<Told> {
        self.tell("end")?;
        let line = self.line(END_TIME_MAX, stage, "the last messages arrive")?;
        serde_json::from_str(&line).with_context(|| format!("the program said {line:?}"))
    }

    fn line(&mut self, most: Duration, stage: &Stage, about: &str) -> anyhow::Result<String> {
        let end = Instant::now() + most;
        loop {
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => stage.pause(LOOK)?,
                Err(RecvTimeoutError::Timeout) => bail!("the program says nothing for {most:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("the program has ended by itself"),
            }
            stage.status(about);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that a program writes; the thread ends with it.
fn read_lines(output: ChildStdout) -> anyhow::Result<Receiver<String>> {
    let (lines, read) = mpsc::channel();
    let forward = move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("bench-app".into()).spawn(forward)?;
    Ok(read)
}
