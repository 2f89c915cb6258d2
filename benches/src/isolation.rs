//! `isolation`: what a tenant that floods does to another's realtime flow over the same relays.
//!
//! ```text
//!   calm edge  --+                                                  +-- calm edge
//!                 access relay == transit relay == access relay ----
//!   flooding edges, in a process of their own --+                   +-- flooding edges
//! ```
//!
//! The calm tenant sends 50 frames of 160 bytes a second; *on time* is what comes within 1.5 times the path's delay and
//! 20 ms. The other offers ten times what its quota allows in each class, half of it in ever new flows, pours streams of
//! two classes, and has edges attach again and again, some with tokens that do not count. Lines carry less than its
//! quota, so that it fills them besides. Rounds with and without it take turns, so that the machine does the same to both.

pub(crate) mod flood;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::stage::Stage;
use overway_client::{AttachConfig, Attachments, TcpAccess};
use overway_session::{EdgePort, Outbound};
use overway_tenant::Quota;
use overway_wire::{Class, FlowId, FrameKind, Millis, PolicyId, Redundancy, Whereabouts};
use tokio::sync::watch;

use crate::attach::Backend;
use crate::chain::Chain;
use crate::chain::plan::{Access, Plan, Quality};
use crate::common::{Common, machine};
use flood::Flood;

/// Relays: where both tenants enter, and leave.
const ENTRY: usize = 0;
const EXIT: usize = 2;
/// Lines: one-way delay, and what they carry.
const DELAY: Duration = Duration::from_millis(10);
const RATE_MBPS: f64 = 6.0;
/// The longest wait in front of a line.
const QUEUE: Duration = Duration::from_millis(100);
/// The calm tenant's flow.
const SPACING: Duration = Duration::from_millis(20);
const FRAME_BYTES: usize = 160;
/// What of the flooding tenant's frames a relay takes: more than a line carries.
const QUOTA_BPS: [u64; 3] = [1_000_000, 2_000_000, 4_000_000];
const QUOTA_FLOWS: u32 = 64;
const QUOTA_ATTACHMENTS: u32 = 16;
/// Before frames count, with or without the flood.
const SETTLE: Duration = Duration::from_secs(3);
/// Frames that were sent last in a round have come by then, or are late.
const LATE: Duration = Duration::from_millis(500);
/// Time for edges to attach, and for a first frame to come through.
const READY_MAX: Duration = Duration::from_secs(30);
const ATTACHMENTS_MAX: usize = 1_000;
/// Frames that are remembered: more than a day's.
const FRAMES_MAX: usize = 1 << 24;
const LOOK: Duration = Duration::from_millis(100);
/// The promise.
const DROP_MAX: f64 = 0.01;
/// A flow that is not well alone has nothing to lose.
const ALONE_MIN: f64 = 0.95;

/// Arguments of `isolation`.
#[derive(Debug, Args)]
pub(crate) struct IsolationArgs {
    /// Rounds with the flood, and as many without. Default: 6, or 1 with --quick.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Seconds that frames count in a round. Default: 20, or 5 with --quick.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    span_s: Option<u64>,
    /// How many times its quota the flood offers.
    #[arg(long, value_name = "TIMES", default_value_t = 10)]
    times: u64,
    /// Attachments that the flood tries a second.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    attach_per_s: u64,
    /// Seed of clocks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The tenant that is to be left alone, and the one that floods.
fn tenants() -> [Backend; 2] {
    let [realtime, interactive, bulk] = QUOTA_BPS.map(Some);
    let quota = Quota {
        attachments: Some(QUOTA_ATTACHMENTS),
        flows: Some(QUOTA_FLOWS),
        bps: [realtime, interactive, bulk],
        bytes_per_month: None,
    };
    [Backend::new("calm", 20, 1), Backend::new("flood", 21, 2).with_quota(quota)]
}

/// Measures.
pub(crate) fn run(args: &IsolationArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let rounds = args.rounds.map_or(if common.quick { 1 } else { 6 }, usize::from);
    let span = Duration::from_secs(args.span_s.unwrap_or(if common.quick { 5 } else { 20 }));
    stage.say(machine());
    let [calm, flooding] = tenants();
    let quality = Quality {
        delay: DELAY,
        loss: 0.0,
        rate_mbps: Some(RATE_MBPS),
        queue: QUEUE,
        capacity_mbps: RATE_MBPS,
    };
    let tenants = vec![calm.pushed(), flooding.pushed()];
    let access = Some(Access { tenants, attachments_max: ATTACHMENTS_MAX });
    let chain = Chain::start(&Plan { access, ..Plan::row(2, quality, args.seed) })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let ca = std::fs::read(chain.ca_file()).context("the mesh's CA")?;
    let flow = Flow::start(&calm, &chain, &ca, stage)?;
    let before = chain.counters(ENTRY)?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let quiet = measure(&flow, span, stage)?;
        let flood = Flood::start(args, &chain)?;
        let loud = measure(&flow, span, stage);
        let said = flood.end()?;
        let loud = loud?;
        stage.say(format!(
            "round {round}: {:.2} % on time alone, {:.2} % beside the flood ({said})",
            quiet * 1e2,
            loud * 1e2
        ));
        alone.push(quiet);
        beside.push(loud);
    }
    let after = chain.counters(ENTRY)?;
    let grown = |start: &str, end: &str| {
        let named = after.iter().filter(|(name, _)| name.starts_with(start) && name.contains(end));
        let by = |(name, value): (&String, &f64)| value - before.get(name).copied().unwrap_or(0.0);
        named.map(by).sum::<f64>()
    };
    let mean = |shares: &[f64]| shares.iter().sum::<f64>() / shares.len() as f64;
    let mut figures = Figures::default();
    figures.add("rounds", rounds as f64, Promise::Reported);
    figures.add("on_time_share", mean(&alone), Promise::AtLeast(ALONE_MIN));
    figures.add("on_time_share_flooded", mean(&beside), Promise::Reported);
    figures.add("on_time_share_drop", mean(&alone) - mean(&beside), Promise::AtMost(DROP_MAX));
    let dropped = |reason: &str| grown("overway_relay_access_frames_dropped_total", reason);
    for (name, reason) in
        [("frames_beyond_rate", "quota_rate"), ("frames_beyond_flows", "quota_flows")]
    {
        figures.add(name, dropped(reason), Promise::AtLeast(1.0));
    }
    let refused = grown("overway_relay_access_refused_total", "");
    figures.add("attachments_refused", refused, Promise::AtLeast(1.0));
    Ok(figures)
}

/// The share of a round's frames that come in time.
fn measure(flow: &Flow, span: Duration, stage: &Stage) -> anyhow::Result<f64> {
    stage.pause(SETTLE)?;
    let from = flow.sent();
    let start = Instant::now();
    while start.elapsed() < span {
        stage.status(format!(
            "{:.0} s of {:.0}",
            start.elapsed().as_secs_f64(),
            span.as_secs_f64()
        ));
        stage.pause(Duration::from_millis(250).min(span))?;
    }
    let to = flow.sent();
    stage.pause(LATE)?;
    Ok(flow.on_time(from..to))
}

/// The calm tenant's flow, from one edge to another, with both ends in this process.
struct Flow {
    _ends: [Attachments; 2],
    sender: Option<std::thread::JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// What the sending thread and the receiving task share.
struct Shared {
    base: Instant,
    sent: AtomicU64,
    is_over: AtomicBool,
    /// By sequence: how long a frame was on its way.
    ages: Mutex<Vec<Option<Duration>>>,
}

impl Flow {
    /// Attaches both edges and waits until frames come through; within a tokio runtime.
    fn start(backend: &Backend, chain: &Chain, ca: &[u8], stage: &Stage) -> anyhow::Result<Self> {
        let (near, near_port) = attach(backend, 1, chain.access(ENTRY), ca)?;
        let (far, far_port) = attach(backend, 2, chain.access(EXIT), ca)?;
        wait_attached(&near_port, stage)?;
        let to = wait_attached(&far_port, stage)?;
        let shared = Arc::new(Shared {
            base: Instant::now(),
            sent: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            ages: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&shared).receive(far_port));
        let sending = Arc::clone(&shared);
        let sender = std::thread::Builder::new()
            .name("bench-calm".into())
            .spawn(move || sending.send(&near_port, to))?;
        let flow = Self { _ends: [near, far], sender: Some(sender), shared };
        while flow.shared.ages().is_empty() {
            if flow.shared.base.elapsed() > READY_MAX {
                bail!("no frame of the calm tenant comes through");
            }
            stage.pause(LOOK)?;
        }
        Ok(flow)
    }

    /// How many frames have been sent.
    fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    fn on_time(&self, sequences: Range<u64>) -> f64 {
        let limit = DELAY * 3 + Duration::from_millis(20);
        let ages = self.shared.ages();
        let is_on_time = |sequence: &u64| {
            let at = usize::try_from(*sequence).unwrap_or(usize::MAX);
            ages.get(at).copied().flatten().is_some_and(|age| age <= limit)
        };
        let count = sequences.end.saturating_sub(sequences.start).max(1);
        sequences.filter(is_on_time).count() as f64 / count as f64
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            // A panic there has been printed already.
            let _ = sender.join();
        }
    }
}

impl Shared {
    fn ages(&self) -> MutexGuard<'_, Vec<Option<Duration>>> {
        self.ages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn send(&self, port: &EdgePort, to: Whereabouts) {
        for sequence in 0_u64.. {
            let due = self.base + SPACING * u32::try_from(sequence).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let mut payload = vec![0; FRAME_BYTES];
            payload[..8].copy_from_slice(&sequence.to_be_bytes());
            payload[8..16].copy_from_slice(&self.nanos().to_be_bytes());
            let mut frames = vec![frame(Class::Realtime, FlowId(1), sequence, to, payload.into())];
            // One that there is no room for counts as late.
            let _ = port.sender.try_send(&mut frames);
            self.sent.store(sequence + 1, Ordering::Relaxed);
        }
    }

    async fn receive(self: Arc<Self>, mut port: EdgePort) {
        while let Some(batch) = port.receiver.recv().await {
            for frame in batch {
                self.note(&frame.payload);
            }
        }
    }

    /// Notes a frame's age, and nothing of one that comes again.
    fn note(&self, payload: &[u8]) {
        let number =
            |at: usize| Some(u64::from_be_bytes(payload.get(at..at + 8)?.try_into().ok()?));
        let (Some(sequence), Some(sent)) = (number(0), number(8)) else { return };
        let Some(at) = usize::try_from(sequence).ok().filter(|&at| at < FRAMES_MAX) else { return };
        let age = Duration::from_nanos(self.nanos().saturating_sub(sent));
        let mut ages = self.ages();
        if at >= ages.len() {
            ages.resize(at + 1, None);
        }
        ages[at].get_or_insert(age);
    }
}

/// Attaches an edge to one relay.
fn attach(
    backend: &Backend,
    number: u64,
    relay: SocketAddr,
    ca_pem: &[u8],
) -> anyhow::Result<(Attachments, EdgePort)> {
    let edge = backend.edge(number);
    // Nobody renews it; a channel without a sender keeps its value.
    let (_, token) = watch::channel(edge.token);
    let config = AttachConfig {
        relays: vec![relay],
        tcp: TcpAccess::default(),
        ca_pem: ca_pem.to_vec(),
        key: edge.key,
        token,
    };
    Ok(Attachments::start(config)?)
}

fn wait_attached(port: &EdgePort, stage: &Stage) -> anyhow::Result<Whereabouts> {
    let start = Instant::now();
    loop {
        let known = *port.whereabouts.borrow();
        match known {
            Some(whereabouts) => return Ok(whereabouts),
            None if start.elapsed() > READY_MAX => bail!("an edge is not attached"),
            None => stage.pause(LOOK)?,
        }
    }
}

/// A frame of an edge, as if a session had made it.
fn frame(class: Class, flow: FlowId, sequence: u64, to: Whereabouts, payload: Bytes) -> Outbound {
    Outbound {
        kind: FrameKind::Datagram,
        class,
        policy: PolicyId::default(),
        redundancy: Redundancy::Adaptive,
        destination: to.first,
        alternate: to.second,
        flow,
        sequence,
        budget: Millis(u16::MAX),
        payload,
    }
}
