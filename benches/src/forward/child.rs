//! The benchmark's side of a measured process.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::subject::{ASK_USAGE, SUBJECT};

/// A process that does not answer by then has failed.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A measured process. Dropping it kills it.
pub(crate) struct Measured {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Kept so that it ends with this.
    _process: Child,
}

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Processor time since its start.
    pub(crate) cpu: Duration,
    /// Resident bytes now, if it says.
    pub(crate) resident_bytes: Option<u64>,
}

impl Measured {
    /// Starts one on a core.
    pub(crate) fn start(
        core: usize,
        args: impl IntoIterator<Item = OsString>,
    ) -> anyhow::Result<Self> {
        Self::start_logging(core, args, Stdio::inherit())
    }

    /// Starts one whose log goes elsewhere.
    pub(crate) fn start_logging(
        core: usize,
        args: impl IntoIterator<Item = OsString>,
        log: Stdio,
    ) -> anyhow::Result<Self> {
        let exe = std::env::current_exe().context("where this executable is")?;
        let mut process = Command::new(exe)
            .args([SUBJECT, "--core", &core.to_string()])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the measured process")?;
        let input = process.stdin.take().expect("it was asked for");
        let output = process.stdout.take().expect("it was asked for");
        Ok(Self { input, output: BufReader::new(output).lines(), _process: process })
    }

    /// What it has used until now.
    pub(crate) async fn usage(&mut self) -> anyhow::Result<Usage> {
        self.input.write_all(format!("{ASK_USAGE}\n").as_bytes()).await?;
        let line = self.line().await?;
        parse(&line).with_context(|| format!("the measured process said {line:?}"))
    }

    /// The address that it says it listens at.
    pub(crate) async fn address(&mut self) -> anyhow::Result<SocketAddr> {
        let line = self.line().await?;
        line.parse().with_context(|| format!("the measured process said {line:?}"))
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        match tokio::time::timeout(ANSWER_MAX, self.output.next_line()).await {
            Ok(line) => line?.context("the measured process has ended"),
            Err(_elapsed) => bail!("the measured process does not answer"),
        }
    }
}

fn parse(line: &str) -> Option<Usage> {
    let (micros, bytes) = line.split_once(' ')?;
    let cpu = Duration::from_micros(micros.parse().ok()?);
    Some(Usage { cpu, resident_bytes: Some(bytes.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_microseconds_and_bytes() {
        let usage = parse("1500 4096").unwrap();
        assert_eq!((usage.cpu, usage.resident_bytes), (Duration::from_micros(1_500), Some(4_096)));
        assert!(parse("listening").is_none());
    }
}
