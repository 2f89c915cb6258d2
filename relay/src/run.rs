//! The relay process from its configuration to its end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use ipnet::IpNet;
use overway_gateway::{Gateway, Resolver, Resolving};
use overway_pki::{Credentials, Role};
use overway_probe::LocalClock;
use overway_quality::REPORT_INTERVAL;
use overway_relay_core::{Fib, Settings};
use overway_session::{FabricPort, FabricSender, FarEnd, SessionConfig, SessionEndpoint};
use overway_telemetry::reload::Reloading;
use overway_wire::control::{Hello, Offers};
use overway_wire::quality::{FLOW_REPORTS_MAX, FlowReports};
use overway_wire::{Address, AttachmentId, BootId, Class, PolicyId, RelayId, Ticks};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::access::{
    Access, AccessParts, AccessTold, Dispatcher, Drain, KeptUse, MeshDirectory, PushedTenants,
    TokenAdmission, serve_clients, told_access,
};
use crate::admin::{self, Admin};
use crate::control::{self, Control, ControlStatus};
use crate::lines::{self, Lines};
use crate::mesh::{Mesh, MeshConfig, MeshOutputs};
use crate::quality::QualityStore;
use crate::reload::{self, Live, Told};
use crate::state::StateFile;
use crate::trace::Tracer;

/// How long running connections of the gateway may go on once the relay has been told to stop.
const GATEWAY_GRACE: Duration = Duration::from_secs(5);

/// How long who is being answered by the admin interface may take then,
const ADMIN_GRACE: Duration = Duration::from_secs(1);
/// and a disk to which something is saved.
const SAVE_GRACE: Duration = Duration::from_secs(10);

/// Reports of the relay's own ends taken at once; what is left out is in the next.
const OWN_REPORTS_MAX: usize = 16_384;

/// What edges are told that they have to attach elsewhere: the time for which updates are applied after the goodbye.
const EDGES_LEAVE: Duration = Duration::from_millis(1_500);

/// Runs a relay until the token is cancelled, then drains and stops. Meanwhile it reloads for whoever asks.
///
/// # Errors
/// It could not start: no identity, or an address that cannot be bound.
pub async fn run(
    config: Config,
    reloading: Reloading<Config>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let credentials = identity(&config.state_dir)?;
    let local = RelayId(credentials.identity().id);
    let file = StateFile::new(&config.state_dir);
    let restored = file.load().unwrap_or_else(|error| {
        tracing::warn!(%error, "the last good state cannot be read; waiting for a scheduler");
        None
    });
    let boot = BootId(fastrand::u32(1..));
    let clock = clock(&config);
    let mut core = overway_relay_core::Config::new(local, boot, clock);
    Settings { transit: core.transit, fec: core.fec, lines_bps: core.lines_bps } =
        reload::settings(&config);
    let lines = Lines::load(&config.state_dir, &config.listen, SystemTime::now());
    let (mesh, outputs) = Mesh::start(MeshConfig {
        core,
        workers: config.workers,
        listen: config.listen.clone(),
        offload: config.offload,
        lines: Arc::clone(&lines),
        credentials: Arc::clone(&credentials),
        reset_secret: reset_secret(&config.state_dir)?,
        fault: config.fault.clone(),
        restored,
    })?;
    for (address, buffers) in mesh.addresses.iter().zip(&mesh.buffers) {
        let hint = buffers.hint();
        let workers = config.workers;
        tracing::info!(%address, relay = %local, name = config.name, workers, "mesh socket");
        if let Some(hint) = hint {
            tracing::warn!(%address, hint, "kernel buffers are too small for bursts");
        }
    }
    tokio::spawn(control::keep_saved(file, mesh.fib.clone(), mesh.commands.downgrade()));
    let saving = CancellationToken::new();
    let saver = tokio::spawn(Arc::clone(&lines).keep_saved(saving.clone()));
    let parts = Parts { config: &config, boot, clock, credentials: &credentials, lines: &lines };
    let served = serve(parts, &mesh, outputs, reloading, shutdown).await;
    mesh.stop().await;
    saving.cancel();
    // The saver ends with its token; a panic there has been printed already.
    let _ = saver.await;
    lines::complain(lines.save(SystemTime::now()));
    served
}

/// What the process is made of before it serves.
struct Parts<'a> {
    config: &'a Config,
    boot: BootId,
    clock: LocalClock,
    credentials: &'a Arc<Credentials>,
    lines: &'a Arc<Lines>,
}

/// Everything on the main runtime, from binding to the goodbye.
async fn serve(
    parts: Parts<'_>,
    mesh: &Mesh,
    outputs: MeshOutputs,
    reloading: Reloading<Config>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Parts { config, boot, credentials, lines, .. } = parts;
    let local = RelayId(credentials.identity().id);
    let MeshOutputs { delivered, reports } = outputs;
    let sender: Arc<dyn FabricSender> = Arc::clone(&mesh.local) as _;
    let address = Address::new(local, AttachmentId::GATEWAY);
    let port = FabricPort { local: address, sender, receiver: delivered };
    let session = SessionEndpoint::new(SessionConfig::default(), port, Arc::clone(credentials))?;
    tokio::spawn(end_revoked(session.clone(), mesh.fib.clone()));
    let resolver = Arc::new(FibResolver { local, fib: mesh.fib.clone() });
    let gateway = Gateway::bind(config.gateway.clone(), session.clone(), resolver).await?;
    let gateway = tell_listening(Arc::new(gateway));
    let (told, offers) = watch::channel(Offers::default());
    let quality = start_quality(&session, &shutdown);
    let (told_access, access_told) = told_access();
    let dispatcher = dispatcher(&parts, mesh)?;
    let access = start_access(&parts, mesh, told, &quality, &dispatcher)?;
    let kept = KeptUse::new(&config.state_dir);
    let counted = Ending::begin(|stop| kept.keep_saved(Arc::clone(&mesh.deliveries), stop));
    let stop_admin = CancellationToken::new();
    let http_trust = watch::Sender::new(config.access.clone().unwrap_or_default().http_trust);
    let http = (told_access, http_trust.subscribe());
    answer_clients(&parts, mesh, &dispatcher, http, &stop_admin).await?;
    let status = Arc::new(ControlStatus::default());
    let admin = Admin {
        local,
        name: config.name.clone(),
        commands: mesh.commands.clone(),
        tracer: Tracer::of(mesh, local, &config.name),
        fib: mesh.fib.clone(),
        control: Arc::clone(&status),
        credentials: Arc::clone(credentials),
        session: session.clone(),
        gateway: Arc::clone(&gateway),
        fault: mesh.fault.clone(),
        fault_sockets: mesh.fault_sockets.clone(),
        access: access.as_ref().map(Access::counts),
        quality: Arc::clone(&quality),
        dispatcher: Arc::clone(&dispatcher),
        lines: Arc::clone(lines),
        buffers_short: mesh.buffers.iter().filter(|report| report.hint().is_some()).count(),
        reloads: reloading.reloads(),
    };
    let admin = admin::serve(config.admin, admin, stop_admin.clone()).await?;
    let admin = Ending { stop: stop_admin, task: tokio::spawn(admin) };
    let said = watch::Sender::new(reload::saying(config, boot, &mesh.addresses));
    let control = Control {
        said: said.subscribe(),
        credentials: Arc::clone(credentials),
        state_dir: config.state_dir.clone(),
        commands: mesh.commands.clone(),
        offers,
        quality,
        access: access_told,
        status,
        fault: mesh.fault.clone(),
    };
    let attachments_max = access.as_ref().map(Access::attachments_max);
    let told = Told { said, dispatcher, attachments_max, http_trust };
    let mut live = live(&parts, mesh, gateway, told);
    let serving = control.run(reports, shutdown.clone());
    let reloads = reloading.serve(&mut live);
    until_stopped(serving, reloads, access.as_ref(), &shutdown).await?;
    end_access(access, counted).await;
    admin.end(ADMIN_GRACE).await;
    end_sessions(live.gateway, session).await;
    Ok(())
}

/// What of the relay may change while it runs.
fn live(parts: &Parts<'_>, mesh: &Mesh, gateway: Arc<Gateway>, told: Told) -> Live {
    Live {
        held: parts.config.clone(),
        boot: parts.boot,
        addresses: mesh.addresses.clone(),
        credentials: Arc::clone(parts.credentials),
        gateway,
        settings: mesh.settings.clone(),
        told,
        fault: mesh.fault.clone(),
    }
}

/// Serves and reloads until the relay is to stop and has said goodbye to the scheduler.
async fn until_stopped(
    serving: impl Future<Output = anyhow::Result<()>>,
    reloads: impl Future<Output = ()>,
    access: Option<&Access>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let mut serving = pin!(serving);
    tokio::select! {
        served = &mut serving => served?,
        () = reloads => anyhow::bail!("nobody can ask for a reload any more"),
        () = shutdown.cancelled() => {
            if let Some(access) = access {
                access.draining().set(Drain::Leaving(Some(EDGES_LEAVE)));
            }
            serving.await?;
        }
    }
    tracing::info!("stopping");
    Ok(())
}

/// A task, and the token with which it ends.
struct Ending {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Ending {
    fn begin<F>(run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(stop.clone()));
        Self { stop, task }
    }

    /// Ends it, and waits for so long at the most.
    async fn end(self, within: Duration) {
        self.stop.cancel();
        let aborting = self.task.abort_handle();
        // A panic in it has been printed already.
        if timeout(within, self.task).await.is_err() {
            aborting.abort();
        }
    }
}

/// The access side, then what saves its counts.
async fn end_access(access: Option<Access>, counted: Ending) {
    if let Some(access) = access {
        access.stop().await;
    }
    counted.end(SAVE_GRACE).await;
}

/// The gateway first: its connections may end in order as long as there are sessions.
async fn end_sessions(gateway: Arc<Gateway>, session: SessionEndpoint) {
    if let Ok(gateway) = Arc::try_unwrap(gateway) {
        gateway.shutdown(GATEWAY_GRACE).await;
    }
    session.close().await;
}

fn tell_listening(gateway: Arc<Gateway>) -> Arc<Gateway> {
    for listening in gateway.local_addrs() {
        let (protocol, address) = (listening.protocol, listening.address);
        match &listening.service {
            Some(service) => tracing::info!(%protocol, %address, service, "forward"),
            None => tracing::info!(%address, "SOCKS5"),
        }
    }
    gateway
}

/// Opens the access side, if there is to be one; what its edges offer is put into `told`.
fn start_access(
    parts: &Parts<'_>,
    mesh: &Mesh,
    told: watch::Sender<Offers>,
    quality: &Arc<QualityStore>,
    dispatcher: &Arc<Dispatcher>,
) -> anyhow::Result<Option<Access>> {
    let Some(config) = &parts.config.access else { return Ok(None) };
    let tenants = Arc::<PushedTenants>::default();
    let local = RelayId(parts.credentials.identity().id);
    tokio::spawn(Arc::clone(&tenants).follow(local, mesh.fib.clone()));
    let access = Access::start(AccessParts {
        config: config.clone(),
        credentials: Arc::clone(parts.credentials),
        reset_secret: reset_secret(&parts.config.state_dir)?,
        boot: parts.boot,
        clock: parts.clock,
        local: Arc::clone(&mesh.local),
        deliveries: Arc::clone(&mesh.deliveries),
        admission: Arc::new(TokenAdmission::new(tenants)),
        directory: Arc::new(MeshDirectory::new(local, mesh.fib.clone(), told)),
        counted: KeptUse::new(&parts.config.state_dir).load(),
        quality: Arc::clone(quality),
        dispatcher: Arc::clone(dispatcher),
    })?;
    tokio::spawn(access.draining().clone().follow(local, mesh.fib.clone()));
    for address in &access.addresses {
        tracing::info!(%address, "access");
    }
    if let Some(address) = access.tcp_address {
        tracing::info!(%address, "access over TCP");
    }
    Ok(Some(access))
}

/// Tells the scheduler how the access side stands, and answers clients over HTTP if they may ask.
async fn answer_clients(
    parts: &Parts<'_>,
    mesh: &Mesh,
    dispatcher: &Arc<Dispatcher>,
    (told, trust): (AccessTold, watch::Receiver<Vec<IpNet>>),
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(config) = &parts.config.access else { return Ok(()) };
    let (lines, settings) = (Arc::clone(parts.lines), mesh.settings.subscribe());
    tokio::spawn(Arc::clone(dispatcher).keep_told(lines, settings, told));
    if let Some(address) = config.http_listen {
        let dispatcher = Arc::clone(dispatcher);
        let (_, serving) = serve_clients(address, trust, dispatcher, stop.clone()).await?;
        tokio::spawn(serving);
    }
    Ok(())
}

/// What answers which relays are near; without an access side, of the others.
fn dispatcher(parts: &Parts<'_>, mesh: &Mesh) -> anyhow::Result<Arc<Dispatcher>> {
    let own = reload::own_side(parts.config, parts.credentials);
    let side = parts.config.access.clone().unwrap_or_default();
    Ok(Arc::new(Dispatcher::new(own, &side, mesh.fib.clone())?))
}

/// Reads the relay's certificate and key.
fn identity(state_dir: &Path) -> anyhow::Result<Arc<Credentials>> {
    let credentials = Credentials::load(state_dir).with_context(|| {
        format!("no identity in {}: join with `overway relay join TOKEN`", state_dir.display())
    })?;
    let identity = credentials.identity();
    if identity.role != Role::Relay {
        anyhow::bail!("the certificate in {} is not a relay's", state_dir.display());
    }
    if credentials.not_after() <= SystemTime::now() {
        let dir = state_dir.display();
        anyhow::bail!("the certificate in {dir} has expired: join again with a new token");
    }
    Ok(Arc::new(credentials))
}

/// Any secret that stays would do. This one changes when the certificate is renewed, which costs a relay
/// that is killed just then some seconds.
fn reset_secret(state_dir: &Path) -> anyhow::Result<Vec<u8>> {
    let path = state_dir.join("node.key");
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The process's clock, with the offset and drift that a `[fault]` section gives it.
fn clock(config: &Config) -> LocalClock {
    let (offset, drift) = match &config.fault {
        Some(fault) => (fault.clock_offset, fault.clock_drift_ppm),
        None => (Ticks(0), 0),
    };
    LocalClock::new(Instant::now(), offset, drift)
}

/// What the relay says of itself, being bound to these addresses.
pub(crate) fn hello(config: &Config, boot: BootId, bound: &[SocketAddr]) -> Hello {
    let addresses = if config.advertise.is_empty() { bound } else { &config.advertise };
    Hello {
        boot: boot.0,
        name: config.name.clone(),
        software: concat!("overway ", env!("CARGO_PKG_VERSION")).to_owned(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        region: config.region.clone(),
        provider: config.provider.clone(),
        location: config.location,
        capacity_bps: config.capacity.0,
        price_per_gb: config.price.0,
        no_transit: !config.transit,
        services: config.gateway.service_names(),
        lines: config.lines.clone(),
        workers: config.workers.into(),
        ..Hello::default()
    }
}

/// Ends the sessions with relays that were revoked; links are the mesh thread's business.
async fn end_revoked(session: SessionEndpoint, mut fib: watch::Receiver<Arc<Fib>>) {
    let mut ended = BTreeSet::new();
    while fib.changed().await.is_ok() {
        let revoked = fib.borrow_and_update().revoked.clone();
        for &relay in revoked.difference(&ended) {
            session.disconnect(relay);
        }
        ended = revoked;
    }
}

/// Begins to take what the gateway's own ends feel.
fn start_quality(session: &SessionEndpoint, shutdown: &CancellationToken) -> Arc<QualityStore> {
    let quality = Arc::<QualityStore>::default();
    let reporting = report_felt(session.clone(), Arc::clone(&quality));
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(reporting));
    quality
}

async fn report_felt(session: SessionEndpoint, quality: Arc<QualityStore>) {
    let mut ticks = tokio::time::interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reports = session.take_flow_reports(OWN_REPORTS_MAX, usize::MAX);
        for flows in reports.chunks(FLOW_REPORTS_MAX) {
            let reports = FlowReports { flows: flows.to_vec() };
            quality.take_reports(AttachmentId::GATEWAY, PolicyId(0), reports, Instant::now());
        }
    }
}

/// Resolves services from the pushed state, the nearest relay first.
struct FibResolver {
    local: RelayId,
    fib: watch::Receiver<Arc<Fib>>,
}

impl Resolver for FibResolver {
    fn far_ends<'a>(&'a self, service: &'a str, policy: PolicyId) -> Resolving<'a> {
        let relays = self.fib.borrow().service(service, Class::Interactive, policy, self.local);
        Box::pin(std::future::ready(relays.into_iter().map(FarEnd::from).collect()))
    }

    fn policy(&self, name: &str) -> Option<PolicyId> {
        self.fib.borrow().policy_named(name)
    }
}
