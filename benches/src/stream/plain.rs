//! What a stream is compared with: quinn and nothing else, on the same emulated lines.
//!
//! This executable with [`PLAIN`] as its first argument is a whole path in one process, a thread for each node:
//!
//! ```text
//!   nested:  client ==== node ==== node ==== node ==== server    a QUIC connection for each line, and one whose packets
//!            |<--------------- session ---------------->|        travel as their datagrams ([`nested`])
//!   direct:  client ===================================== server one connection; delay and loss of all lines together
//! ```
//!
//! Every connection has quinn's cubic, and the transport's other settings are those of our own links and sessions
//! (packet sizes, acknowledgements, windows), but for what makes these bear loss. Sockets delay and lose by the relays' own fault
//! injection. Every [`TELL`] the process says how many bytes its client has read; it ends when its input closes.

mod nested;
pub(crate) mod nodes;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use overway::lab::stage::Stage;
use overway_relay::fault::Rule;
use quinn::TransportConfig;

use crate::chain::plan::Quality;
use crate::common::socket;
use nodes::{Nodes, pour, pull, session_transport};

/// The first argument that makes this executable a path of plain QUIC.
pub(crate) const PLAIN: &str = "plain-quic";

/// How often the process says what its client has.
const TELL: Duration = Duration::from_millis(20);
/// Time until the first byte.
const START_MAX: Duration = Duration::from_secs(30);
/// Packets of a link.
const LINK_MTU: u16 = 1_300;

/// What is between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// Connections for each line, and one inside.
    Nested,
    /// One connection.
    Direct,
}

/// Runs a path of plain QUIC.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    kind: Kind,
    #[arg(long)]
    lines: usize,
    #[arg(long)]
    delay_us: u64,
    #[arg(long)]
    loss: f64,
    #[arg(long)]
    seed: u64,
}

/// A running path. Dropping it kills the process.
pub(super) struct Plain {
    child: Child,
    bytes: Arc<AtomicU64>,
}

impl Plain {
    /// Starts one over so many lines, and waits until a byte has come.
    pub(super) fn start(
        kind: Kind,
        lines: usize,
        line: Quality,
        seed: u64,
        stage: &Stage,
    ) -> anyhow::Result<Self> {
        let exe = std::env::current_exe().context("where this executable is")?;
        let kind_name = kind.to_possible_value().expect("no kind is hidden");
        let mut child = Command::new(exe)
            .args([PLAIN, "--kind", kind_name.get_name()])
            .args(["--lines", &lines.to_string(), "--seed", &seed.to_string()])
            .args(["--delay-us", &line.delay.as_micros().to_string()])
            .args(["--loss", &line.loss.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a path of plain QUIC")?;
        let output = child.stdout.take().expect("it was asked for");
        let bytes = Arc::new(AtomicU64::new(0));
        let inner = Arc::clone(&bytes);
        std::thread::Builder::new().name("bench-plain".into()).spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(count) = line.parse() {
                    inner.store(count, Ordering::Relaxed);
                }
            }
        })?;
        let plain = Self { child, bytes };
        let end = Instant::now() + START_MAX;
        while plain.bytes() == 0 {
            stage.pause(TELL)?;
            anyhow::ensure!(Instant::now() < end, "nothing comes through {kind:?}");
        }
        Ok(plain)
    }

    /// Bytes that its client has read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the process; `args` are those after [`PLAIN`].
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args = Args::parse_from(std::iter::once(PLAIN.into()).chain(args));
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Args) -> anyhow::Result<()> {
    let read = Arc::new(AtomicU64::new(0));
    let path = Path::new(args, Arc::clone(&read))?;
    let nodes = path.sockets.len();
    let path = Arc::new(path);
    for node in 0..nodes {
        let path = Arc::clone(&path);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                match path.kind {
                    Kind::Direct => path.direct(node).await,
                    Kind::Nested => nested::run(&path, node).await,
                }
            })
        };
        std::thread::Builder::new().name(format!("plain-{node}")).spawn(move || {
            let ended: anyhow::Result<()> = run();
            if let Err(error) = ended {
                eprintln!("error: node {node}: {error:#}");
            }
        })?;
    }
    std::thread::Builder::new().name("plain-input".into()).spawn(|| {
        // The benchmark writes nothing: the end of input is its end.
        let _ = std::io::stdin().lock().lines().count();
        std::process::exit(0);
    })?;
    let mut out = std::io::stdout().lock();
    loop {
        std::thread::sleep(TELL);
        writeln!(out, "{}", read.load(Ordering::Relaxed))?;
        out.flush()?;
    }
}

/// A path: its sockets, from the client's to the server's, and what they are told.
struct Path {
    kind: Kind,
    sockets: Vec<UdpSocket>,
    addresses: Vec<SocketAddr>,
    rule: Rule,
    nodes: Nodes,
    read: Arc<AtomicU64>,
}

impl Path {
    fn new(args: &Args, read: Arc<AtomicU64>) -> anyhow::Result<Self> {
        let &Args { kind, lines, delay_us, loss, seed } = args;
        let delay = Duration::from_micros(delay_us);
        let count = u32::try_from(lines).context("too many lines")?;
        let (nodes, rule) = match kind {
            Kind::Nested => (lines + 1, Rule { delay, loss, ..Rule::default() }),
            Kind::Direct => {
                let passed = (1.0 - loss).powi(count.cast_signed());
                (2, Rule { delay: delay * count, loss: 1.0 - passed, ..Rule::default() })
            }
        };
        let sockets = (0..nodes).map(|_| socket()).collect::<anyhow::Result<Vec<_>>>()?;
        let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?;
        Ok(Self { kind, sockets, addresses, rule, nodes: Nodes::new(nodes, seed)?, read })
    }

    /// The endpoint of a node, on a socket that delays and loses what comes from its neighbours.
    fn endpoint(&self, node: usize, transport: TransportConfig) -> anyhow::Result<quinn::Endpoint> {
        let neighbours = [node.checked_sub(1), Some(node + 1)].into_iter().flatten();
        let rules = neighbours.filter_map(|other| Some((*self.addresses.get(other)?, self.rule)));
        self.nodes.endpoint(node, self.sockets[node].try_clone()?, rules.collect(), transport)
    }

    async fn direct(&self, node: usize) -> anyhow::Result<()> {
        let endpoint = self.endpoint(node, session_transport(LINK_MTU))?;
        if node > 0 {
            return pour(&endpoint.accept().await.context("no client")?.await?).await;
        }
        let transport = session_transport(LINK_MTU);
        let connecting = self.nodes.connect((0, &endpoint), (1, self.addresses[1]), transport)?;
        pull(&connecting.await?, &self.read).await
    }
}
