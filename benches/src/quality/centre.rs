//! The centre: a process with the scheduler's core, which reads what relays say.
//!
//! Each message on its standard input is a relay (u16), a time in milliseconds (u32) and a length (u32), little-endian, and
//! so many bytes. Relay 0 asks something: without bytes what was used, which is answered on standard output by a line; with
//! one byte for all quantiles, which are computed and thrown away.

use std::hint::black_box;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use overway_scheduler_core::{Config, QUALITY_WINDOW_MAX, Scheduler};
use overway_wire::RelayId;
use overway_wire::control::{Hello, ToScheduler, VERSION_MAX, VERSION_MIN};
use prost::Message as _;

use crate::forward::cores;

/// The first argument that makes this executable the centre.
pub(crate) const CENTRE: &str = "quality-centre";
/// Regions in which the relays are.
const REGIONS: u16 = 10;
/// Quantiles asked of each sketch.
const SHARES: [f64; 3] = [0.5, 0.95, 0.99];

/// What the centre has used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
    pub(super) records: u64,
}

/// The centre as its relays see it. Dropping it ends it.
pub(super) struct Centre {
    input: Option<BufWriter<ChildStdin>>,
    output: BufReader<ChildStdout>,
    process: Child,
}

impl Centre {
    pub(super) fn start(relays: u16) -> anyhow::Result<Self> {
        let exe = std::env::current_exe().context("where this executable is")?;
        let mut process = Command::new(exe)
            .args([CENTRE, &relays.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the centre")?;
        let input = process.stdin.take().context("it was asked for")?;
        let output = process.stdout.take().context("it was asked for")?;
        let input = Some(BufWriter::new(input));
        Ok(Self { input, output: BufReader::new(output), process })
    }

    /// What a relay says.
    pub(super) fn tell(&mut self, relay: u16, time: Duration, bytes: &[u8]) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("the centre has ended")?;
        input.write_all(&relay.to_le_bytes())?;
        input.write_all(&u32::try_from(time.as_millis())?.to_le_bytes())?;
        input.write_all(&u32::try_from(bytes.len())?.to_le_bytes())?;
        input.write_all(bytes)?;
        Ok(())
    }

    /// Has all quantiles computed.
    pub(super) fn scrape(&mut self, time: Duration) -> anyhow::Result<()> {
        self.tell(0, time, &[1])
    }

    /// What it has used until all that was told is read.
    pub(super) fn usage(&mut self) -> anyhow::Result<Usage> {
        self.tell(0, Duration::ZERO, &[])?;
        self.input.as_mut().context("the centre has ended")?.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        parse(&line).with_context(|| format!("the centre said {line:?}"))
    }
}

impl Drop for Centre {
    fn drop(&mut self) {
        // Its input's end is its own.
        self.input = None;
        let _ = self.process.wait();
    }
}

fn parse(line: &str) -> Option<Usage> {
    let mut numbers = line.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let cpu = Duration::from_micros(next()?);
    Some(Usage { cpu, resident_bytes: next()?, records: next()? })
}

/// The scheduler's core with relays that say nothing else.
pub(super) struct Core {
    scheduler: Scheduler,
    base: Instant,
}

impl Core {
    pub(super) fn new(relays: u16, base: Instant) -> Self {
        let mut scheduler = Scheduler::new(Config::default(), 1, base);
        for id in 1..=relays {
            let name = format!("relay-{id}");
            scheduler.handle_member(RelayId(id), name.clone());
            let [high, low] = id.to_be_bytes();
            let hello = Hello {
                version_min: VERSION_MIN,
                version_max: VERSION_MAX,
                boot: 1,
                name,
                software: "bench".to_owned(),
                addresses: vec![format!("10.0.{high}.{low}:4400")],
                region: format!("region-{}", id % REGIONS),
                ..Hello::default()
            };
            scheduler.handle_hello(RelayId(id), hello, base).expect("the hello is of a member");
        }
        Self { scheduler, base }
    }

    pub(super) fn handle(
        &mut self,
        relay: u16,
        time: Duration,
        bytes: &[u8],
    ) -> anyhow::Result<()> {
        let message = ToScheduler::decode(bytes)?;
        self.scheduler.handle_message(RelayId(relay), message, self.base + time)?;
        Ok(())
    }

    /// Reports that are in the window.
    #[cfg(test)]
    pub(super) fn reports(&self, time: Duration) -> u64 {
        let felt = self.scheduler.quality(QUALITY_WINDOW_MAX, self.base + time);
        felt.iter().map(|status| status.felt.reports).sum()
    }

    fn scrape(&self, time: Duration) {
        for status in self.scheduler.quality(QUALITY_WINDOW_MAX, self.base + time) {
            let felt = &status.felt;
            for sketch in [&felt.delay_us, &felt.gap_us, &felt.loss_ppm, &felt.stall_us] {
                black_box(SHARES.map(|share| sketch.quantile(share)));
            }
        }
    }

    fn records(&self) -> usize {
        self.scheduler.quality(Duration::ZERO, self.base).len()
    }
}

/// Runs the centre; `args` are those after [`CENTRE`].
pub(crate) fn main(mut args: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let relays = args.next().and_then(|count| count.to_str()?.parse().ok());
    let run = || {
        let relays = relays.context("the number of relays is missing")?;
        serve(Core::new(relays, Instant::now()), &mut BufReader::new(std::io::stdin().lock()))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut core: Core, input: &mut impl Read) -> anyhow::Result<()> {
    let (mut head, mut bytes) = ([0; 10], Vec::new());
    loop {
        match input.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let [a, b, c, d, e, f, g, h, i, j] = head;
        let relay = u16::from_le_bytes([a, b]);
        let time = Duration::from_millis(u32::from_le_bytes([c, d, e, f]).into());
        bytes.resize(usize::try_from(u32::from_le_bytes([g, h, i, j]))?, 0);
        input.read_exact(&mut bytes)?;
        match (relay, bytes.len()) {
            (0, 0) => {
                let (cpu, resident) = (cores::used()?.as_micros(), cores::resident_bytes()?);
                println!("{cpu} {resident} {}", core.records());
            }
            (0, _) => core.scrape(time),
            (relay, _) => core.handle(relay, time, &bytes)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_microseconds_bytes_and_records() {
        let usage = parse("1500 4096 7\n").unwrap();
        assert_eq!((usage.cpu, usage.resident_bytes), (Duration::from_micros(1_500), 4_096));
        assert_eq!(usage.records, 7);
        assert!(parse("1500 x").is_none());
    }
}
