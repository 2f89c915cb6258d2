//! `attach`: how many edges a second attach to one relay, and what an idle one costs it in memory.
//!
//! The relay is a process of its own; all edges are in this one, on a few sockets, so that on a machine of two cores each
//! has one. The processor's time of the relay is told apart: bare handshakes first, connections that are made and closed;
//! then attachments; and what judging a token costs is measured here, by the relay's own code. Memory is what the relay's
//! resident size grows by from before the attachments, when it has done handshakes already, until some time after.

mod edges;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::stage::Stage;
use overway_relay::access::{Admission as _, TenantTable, TokenAdmission};
use overway_relay_core::CellStanding;
use overway_tenant::{Tenant, TenantName};
use overway_wire::PolicyId;
use overway_wire::access::EXPORTER_BYTES;

use crate::chain::Chain;
use crate::chain::meter::Moment;
use crate::chain::plan::{Access, Plan, Quality};
use crate::common::{Common, machine};
pub(crate) use edges::{Attacher, Backend, Edge};

const ATTACHMENTS: usize = 10_000;
const ATTACHMENTS_QUICK: usize = 1_000;
/// Room beside them at the relay.
const SPARE: usize = 1_000;
/// Bare handshakes, and tokens that are judged.
const SAMPLES: usize = 500;
/// Until what handshakes left has been let go, and the first heartbeats have gone.
const CALM: Duration = Duration::from_secs(4);
/// Time for the relay to let the first edge in: it reads its state first.
const READY_MAX: Duration = Duration::from_secs(20);
/// The promises: kilobytes of an idle attachment, and the share of handshake and token in what attaching costs.
const KB_MAX: f64 = 40.0;
const KNOWN_SHARE_MIN: f64 = 0.5;

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Edges. Default: 10,000, or 1,000 with --quick.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=15_000))]
    attachments: Option<u16>,
    /// Sockets of the edges.
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    sockets: u16,
    /// Attachments under way at once. From 64 on the relay has addresses prove themselves first.
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    at_once: u16,
}

/// Measures.
pub(crate) fn run(args: &AttachArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let usual = if common.quick { ATTACHMENTS_QUICK } else { ATTACHMENTS };
    let count = args.attachments.map_or(usual, usize::from);
    stage.say(machine());
    let backend = Backend::new("bench", 20, 1);
    let quality = Quality {
        delay: Duration::ZERO,
        loss: 0.0,
        rate_mbps: None,
        queue: Duration::ZERO,
        capacity_mbps: 1_000.0,
    };
    let tenants = vec![backend.pushed()];
    let access = Some(Access { tenants, attachments_max: count + SPARE });
    let chain = Chain::start(&Plan { access, ..Plan::row(1, quality, 1) })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let ca = std::fs::read(chain.ca_file()).context("the mesh's CA")?;
    let attacher = Attacher::new(&ca, chain.access(0), usize::from(args.sockets))?;
    let relay = chain.pids()[0];
    let at_once = usize::from(args.at_once);

    stage.status("makes keys and tokens");
    let edges: Vec<_> = (0..count).map(|number| backend.edge(number as u64)).collect();
    let first = backend.edge(u64::MAX);
    let ready = Instant::now();
    while let Err(error) = runtime.block_on(attacher.attach(&first)) {
        if ready.elapsed() > READY_MAX {
            bail!("the relay lets nobody in: {error:#}");
        }
        stage.pause(Duration::from_millis(200))?;
    }

    stage.status("shakes hands");
    let before = Moment::now(&[relay]);
    runtime.block_on(attacher.shake_hands(SAMPLES, at_once))?;
    let handshake = per(before.until(&Moment::now(&[relay])).used[0], SAMPLES);
    stage.pause(CALM)?;

    let size_before = resident_bytes(relay)?;
    let (start, before) = (Instant::now(), Moment::now(&[relay]));
    let progress = |done| stage.status(format!("{done} of {count} are attached"));
    let held = runtime.block_on(attacher.attach_all(&edges, at_once, progress))?;
    let took = start.elapsed();
    let attach = per(before.until(&Moment::now(&[relay])).used[0], count);
    stage.pause(CALM)?;
    let grown = resident_bytes(relay)?.saturating_sub(size_before);
    let counters = chain.counters(0)?;
    let attached = counters.get("overway_relay_access_attachments").copied();
    let attached = attached.context("the relay does not say how many are attached")?;
    let lost = held.iter().filter(|it| it.is_closed()).count();

    stage.status("judges tokens");
    let token = judged(&backend, &edges[0])?;
    let kb = grown as f64 / 1_024.0 / count as f64;
    let share = |part: Duration| part.as_secs_f64() / attach.as_secs_f64();
    stage.say(format!(
        "{count} edges in {took:.1?}; of the relay's {attach:.0?} for each, the handshake takes {handshake:.0?} and the \
         token {token:.0?}; {kb:.1} KB each"
    ));
    let mut figures = Figures::default();
    figures.add("attachments", attached, Promise::AtLeast(count as f64));
    figures.add("attachments_lost", lost as f64, Promise::AtMost(0.0));
    figures.add("attach_per_s", count as f64 / took.as_secs_f64(), Promise::Reported);
    figures.add("attach_cpu_us", attach.as_secs_f64() * 1e6, Promise::Reported);
    figures.add("handshake_share", share(handshake), Promise::Reported);
    figures.add("token_share", share(token), Promise::Reported);
    let known = share(handshake) + share(token);
    figures.add("handshake_and_token_share", known, Promise::AtLeast(KNOWN_SHARE_MIN));
    figures.add("kb_per_attachment", kb, Promise::AtMost(KB_MAX));
    Ok(figures)
}

fn per(used: Duration, count: usize) -> Duration {
    used / u32::try_from(count).unwrap_or(u32::MAX)
}

/// What judging a token, and the proof of its key, costs.
fn judged(backend: &Backend, edge: &Edge) -> anyhow::Result<Duration> {
    let admission = TokenAdmission::new(One(Arc::new(backend.tenant())));
    let exporter = [7; EXPORTER_BYTES];
    let attach = edge.attach(&exporter);
    let before = Moment::now(&[]);
    for _ in 0..SAMPLES {
        admission.admit(&attach, &exporter, SystemTime::now())?;
    }
    Ok(per(before.until(&Moment::now(&[])).own, SAMPLES))
}

struct One(Arc<Tenant>);

impl TenantTable for One {
    fn tenant(&self, name: &TenantName) -> Option<Arc<Tenant>> {
        (self.0.name() == name).then(|| Arc::clone(&self.0))
    }

    fn standing(&self, _tenant: &Tenant) -> CellStanding {
        CellStanding::Own
    }

    fn generation(&self) -> u64 {
        0
    }

    fn changed_in(&self, _tenant: PolicyId) -> u64 {
        0
    }
}

/// The resident size of a process.
fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let size = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = size.and_then(|size| size.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.context("the system does not tell a process's size")? * 1_024)
}
