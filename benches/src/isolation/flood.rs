//! The tenant that floods, a process of its own.
//!
//! It gets what it needs as arguments, floods until its input ends, and then says what it did.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;

use overway_session::{EdgeIdentity, EdgePort, FarEnd, Incoming, SessionConfig, SessionEndpoint};
use overway_wire::{Class, FlowId, Whereabouts};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{ENTRY, EXIT, IsolationArgs, QUOTA_BPS, attach, frame, tenants};
use crate::attach::{Attacher, Backend, Edge};
use crate::chain::Chain;

/// The first argument that makes this executable the flood.
pub(crate) const FLOOD: &str = "flood";
/// Bytes of its frames.
const FRAME_BYTES: usize = 1_200;
/// How often frames are sent: small bursts.
const TICK: Duration = Duration::from_millis(5);
/// Sockets that edges attach from again and again, and edges that do.
const SOCKETS: usize = 4;
const STORMERS: u64 = 64;
/// Attachments under way at once; what is too slow is not tried more often.
const AT_ONCE: usize = 32;
/// What one stream is written at once.
const WRITE_BYTES: usize = 16 << 10;
const SERVICE: &str = "sink";

/// The process, while it floods.
pub(super) struct Flood {
    child: Child,
}

impl Flood {
    pub(super) fn start(args: &IsolationArgs, chain: &Chain) -> anyhow::Result<Self> {
        let exe = std::env::current_exe().context("where this executable is")?;
        let child = Command::new(exe)
            .arg(FLOOD)
            .arg(chain.ca_file())
            .args([ENTRY, EXIT].map(|relay| chain.access(relay).to_string()))
            .args([args.times, args.attach_per_s].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the flood")?;
        Ok(Self { child })
    }

    /// Ends it; what it says that it did.
    pub(super) fn end(mut self) -> anyhow::Result<String> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        let mut output = self.child.stdout.take().context("its output was asked for")?;
        output.read_to_string(&mut said)?;
        if !self.child.wait()?.success() {
            bail!("the flood failed");
        }
        Ok(said.trim().to_owned())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What it has done.
#[derive(Debug, Default)]
struct Done {
    frames: AtomicU64,
    stream_bytes: AtomicU64,
    attached: AtomicU64,
    refused: AtomicU64,
}

/// The flood's own `main`.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let outcome = flood(args);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flood: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn flood(args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let args: Vec<OsString> = args.collect();
    let [ca_file, entry, exit, times, attach_per_s] = &args[..] else {
        bail!("expected CA ENTRY EXIT TIMES ATTACH_PER_S");
    };
    let text = |arg: &OsString| arg.to_str().context("an argument is no text").map(str::to_owned);
    let ca = std::fs::read(PathBuf::from(ca_file))?;
    let relays: [SocketAddr; 2] = [text(entry)?.parse()?, text(exit)?.parse()?];
    let (times, per_second): (u64, u64) = (text(times)?.parse()?, text(attach_per_s)?.parse()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (done, over) = (Arc::<Done>::default(), CancellationToken::new());
    let start = Instant::now();
    let flooding = {
        let (done, over) = (Arc::clone(&done), over.clone());
        runtime.spawn(async move { all(&ca, relays, times, per_second, &done, over).await })
    };
    // The benchmark lets go of the other end when the round is over.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    over.cancel();
    runtime.block_on(flooding)??;
    let seconds = start.elapsed().as_secs_f64();
    let rate = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / seconds;
    writeln!(
        std::io::stdout(),
        "{:.0} frames, {:.2} MB of streams, {:.0} attachments and {:.0} refused ones a second",
        rate(&done.frames),
        rate(&done.stream_bytes) / 1e6,
        rate(&done.attached),
        rate(&done.refused)
    )?;
    Ok(())
}

/// Everything at once, until it is over.
async fn all(
    ca: &[u8],
    [entry, exit]: [SocketAddr; 2],
    times: u64,
    attach_per_s: u64,
    done: &Arc<Done>,
    over: CancellationToken,
) -> anyhow::Result<()> {
    let [_, backend] = tenants();
    let (_sink, sink) = attach(&backend, 2, exit, ca)?;
    let (_source, source) = attach(&backend, 1, entry, ca)?;
    let to = whereabouts(&sink).await;
    whereabouts(&source).await;
    let (near, near_port) = attach(&backend, 3, entry, ca)?;
    let (far, far_port) = attach(&backend, 4, exit, ca)?;
    let at = FarEnd::Edge {
        id: backend.edge(4).key.id(),
        whereabouts: Some(whereabouts(&far_port).await),
    };
    let ends = [(near, sessions(&backend, 3, near_port)?), (far, sessions(&backend, 4, far_port)?)];
    let attacher = Attacher::new(ca, entry, SOCKETS)?;
    tokio::select! {
        () = send_frames(&source, to, times, done) => {}
        () = swallow(sink) => {}
        () = pour(&ends[0].1, at, done) => {}
        () = serve(&ends[1].1) => {}
        () = storm(&backend, &attacher, attach_per_s, done) => {}
        () = over.cancelled() => {}
    }
    Ok(())
}

async fn whereabouts(port: &EdgePort) -> Whereabouts {
    let mut known = port.whereabouts.clone();
    loop {
        let now = *known.borrow_and_update();
        match now {
            Some(whereabouts) => return whereabouts,
            None if known.changed().await.is_err() => std::future::pending().await,
            None => {}
        }
    }
}

fn sessions(backend: &Backend, number: u64, port: EdgePort) -> anyhow::Result<SessionEndpoint> {
    let Edge { key, token } = backend.edge(number);

    let identity = EdgeIdentity {
        key,
        tenant: backend.keys().tenant,
        token: watch::channel(token).1,
        keys: watch::channel(Arc::new(backend.keys())).1,
    };

    Ok(SessionEndpoint::for_edge(SessionConfig::default(), port, identity)?)
}

/// Frames of every class at so many times the quota's rate, every second one of a flow that was never there.
async fn send_frames(port: &EdgePort, to: Whereabouts, times: u64, done: &Done) {
    let payload = Bytes::from(vec![0xff; FRAME_BYTES]);
    let mut tick = tokio::time::interval(TICK);
    let start = Instant::now();
    let mut sent = [0_u64; Class::ALL.len()];
    loop {
        tick.tick().await;
        for class in Class::ALL {
            let at = usize::from(class.code());
            let wanted = start.elapsed().as_nanos() * u128::from(QUOTA_BPS[at] * times / 8)
                / 1_000_000_000
                / FRAME_BYTES as u128;
            while u128::from(sent[at]) < wanted {
                let sequence = sent[at];
                let flow = if sequence % 2 == 0 { 1 } else { fastrand::u32(2..) };
                let frame = frame(class, FlowId(flow), sequence, to, payload.clone());
                sent[at] += 1;
                // What there is no room for in the edge itself is not a flood.
                if port.sender.try_send(&mut vec![frame]).is_ok() {
                    done.frames.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

async fn swallow(mut port: EdgePort) {
    while port.receiver.recv().await.is_some() {}
    std::future::pending::<()>().await;
}

/// Streams of two classes, as fast as they go.
async fn pour(endpoint: &SessionEndpoint, to: FarEnd, done: &Done) {
    let one = async |class: Class| {
        loop {
            let Ok(mut stream) = endpoint.open_stream(to, class, SERVICE).await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            while stream.send.write_all(&[0; WRITE_BYTES]).await.is_ok() {
                done.stream_bytes.fetch_add(WRITE_BYTES as u64, Ordering::Relaxed);
            }
        }
    };
    tokio::join!(one(Class::Interactive), one(Class::Bulk));
}

/// Takes what is poured.
async fn serve(endpoint: &SessionEndpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let Incoming::Stream(stream) = incoming else { continue };
        tokio::spawn(async move {
            let Ok(mut stream) = stream.accept().await else { return };
            while let Ok(Some(_)) = stream.recv.read_chunk(WRITE_BYTES, true).await {}
        });
    }
    std::future::pending::<()>().await;
}

/// Edges that attach again and again, every fourth with a token that does not count.
async fn storm(backend: &Backend, attacher: &Attacher, per_second: u64, done: &Arc<Done>) {
    let edges: Vec<Arc<Edge>> = (100..100 + STORMERS)
        .map(|number| {
            let mut edge = backend.edge(number);
            if number % 4 == 0 {
                edge.token.push('A');
            }
            Arc::new(edge)
        })
        .collect();
    let under_way = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut tick = tokio::time::interval(
        Duration::from_secs(1) / u32::try_from(per_second.max(1)).unwrap_or(u32::MAX),
    );
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    for at in 0_usize.. {
        tick.tick().await;
        let Ok(permit) = Arc::clone(&under_way).try_acquire_owned() else { continue };
        let (edge, attacher, done) =
            (Arc::clone(&edges[at % edges.len()]), attacher.clone(), Arc::clone(done));
        tokio::spawn(async move {
            match attacher.attach(&edge).await {
                Ok(attached) => {
                    done.attached.fetch_add(1, Ordering::Relaxed);
                    attached.close();
                }
                Err(_) => {
                    done.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
            drop(permit);
        });
    }
}
