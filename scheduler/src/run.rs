//! Starting and stopping the scheduler.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use overway_pki::{AdminToken, Authority, Credentials, Role};
use overway_scheduler_core::Scheduler;
use overway_telemetry::reload::Reloading;
use overway_wire::RelayId;
use overway_wire::control::{Hello, Tenant};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{self, Admin, Gate, drain, drainable};
use crate::clock::unix_seconds;
use crate::config::Config;
use crate::control::{self, Shared};
use crate::counters::Counters;
use crate::dashboard::{self, Dashboard};
use crate::driver::{Driver, Duties, Input, MEMORIES_MAX, TERMS_MAX};
use crate::join::Limiter;
use crate::registry::{Registry, expanded};
use crate::reload::{Live, Settings};
use crate::store::{DiskStore, Snapshot, Wishes};
use crate::threads::Threads;
use crate::usage;

/// Holds the control endpoint's address while the scheduler runs, for tools: ports may be drawn.
pub const CONTROL_ADDRESS_FILE: &str = "control.addr";
/// Holds the admin interface's address while the scheduler runs.
pub const ADMIN_ADDRESS_FILE: &str = "admin.addr";

/// How often the scheduler's own certificate is looked at, at most.
const RENEWAL_CHECK_MAX: Duration = Duration::from_secs(3_600);
/// Looks within a certificate's life: four fall into the third in which it is renewed.
const RENEWAL_CHECKS: u32 = 12;

/// Runs the scheduler until `shutdown` is cancelled. Meanwhile it reloads for whoever asks.
///
/// # Errors
/// If it cannot start, or one of its tasks fails.
pub async fn run(
    config: Config,
    reloading: Reloading<Config>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let directory = config.state_dir.clone();
    // Of a scheduler that was killed.
    forget_addresses(&directory);
    let (authority, credentials) = identity(&config)?;
    let store = DiskStore::open(&directory)?;
    let registry = Registry::new(Arc::new(store));
    let term = registry.raise_term()?;
    let snapshot = registry.snapshot()?;
    let revoked = snapshot.members.values().filter(|member| member.revoked);
    credentials.revoked().replace(revoked.map(|member| member.id.0));

    // Any secret that stays would do; who has this one has the mesh anyway.
    let secret = std::fs::read(directory.join("ca.key")).context("cannot read ca.key")?;
    let endpoint = control::bind(config.listen, &credentials, &secret)
        .with_context(|| format!("cannot listen on UDP {}", config.listen))?;
    let listener = TcpListener::bind(config.admin_listen)
        .await
        .with_context(|| format!("cannot listen on TCP {}", config.admin_listen))?;
    let control_address = endpoint.local_addr()?;
    let admin_address = listener.local_addr()?;

    // Cancelled by the caller, or by the first task that ends.
    let stop = shutdown.child_token();
    let counters = Arc::new(Counters::default());
    let (core, names) = core(&snapshot, term, Instant::now());
    let (memories, to_remember) = mpsc::channel(MEMORIES_MAX);
    let (terms, to_raise) = mpsc::channel(TERMS_MAX);
    let duties = Duties { memories, terms };
    let (driver, driving) =
        Driver::start(core, names, duties, Arc::clone(&counters), stop.clone())?;
    let shared = Arc::new(Shared {
        authority,
        credentials,
        registry,
        driver,
        counters,
        joins: Limiter::new(Instant::now()),
        settings: ArcSwap::from_pointee(Settings::new(&config, control_address)?),
        sessions: AtomicU64::new(0),
        last_id_seen: AtomicU16::new(0),
        wishes: Mutex::default(),
    });
    let ready = Arc::new(AtomicBool::new(true));
    let dashboard = Arc::new(Dashboard::new());
    let gate = Gate {
        token: AdminToken::load_or_create(&directory)?,
        is_required: config.admin_token_required,
    };
    let admin = Admin::new(&shared, &dashboard, &ready, reloading.reloads(), gate, stop.clone());

    let mut tasks = JoinSet::new();
    tasks.spawn(driving);
    tasks.spawn({
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        async move {
            control::serve(endpoint, shared, stop).await;
            Ok(())
        }
    });
    tasks.spawn(async move { admin::serve(listener, admin).await.context("admin interface") });
    tasks.spawn(dashboard::run(Arc::clone(&shared), dashboard, stop.clone()));
    tasks.spawn(remember(Arc::clone(&shared), to_remember, stop.clone()));
    tasks.spawn(usage::keep(Arc::clone(&shared), stop.clone()));
    tasks.spawn(raise_terms(Arc::clone(&shared), to_raise, stop.clone()));
    let live = Live { held: config, bound: control_address, shared: Arc::clone(&shared) };
    tasks.spawn(live.serve(reloading, stop.clone()));
    tasks.spawn(renew_own(shared, directory.clone(), stop.clone()));

    write_address(&directory, CONTROL_ADDRESS_FILE, control_address)?;
    write_address(&directory, ADMIN_ADDRESS_FILE, admin_address)?;
    info!(control = %control_address, admin = %admin_address, term, "scheduler ready");
    let outcome = supervise(tasks, &ready, &shutdown, &stop).await;
    forget_addresses(&directory);
    info!("scheduler stopped");
    outcome
}

/// A stale file misleads a tool for a moment at worst; if it cannot be removed it cannot be written either.
fn forget_addresses(directory: &Path) {
    for file in [CONTROL_ADDRESS_FILE, ADMIN_ADDRESS_FILE] {
        let _ = std::fs::remove_file(directory.join(file));
    }
}

/// Reads the CA and the scheduler's own credentials, renewing these at once if they have run out while
/// the scheduler did not run.
fn identity(config: &Config) -> anyhow::Result<(Arc<Authority>, Arc<Credentials>)> {
    let directory = &config.state_dir;
    let hint = || format!("no mesh in {}: make one with `overway pki init`", directory.display());
    let authority = Authority::load(directory).with_context(hint)?;
    let credentials = Credentials::load(directory).with_context(hint)?;
    let identity = credentials.identity();
    match identity.role {
        Role::Scheduler => {}
        Role::Relay => bail!("the certificate in {} is {identity}'s", directory.display()),
    }
    renew_if_due(&authority, &credentials, config.certificate_lifetime, directory)?;
    Ok((Arc::new(authority), Arc::new(credentials)))
}

fn renew_if_due(
    authority: &Authority,
    credentials: &Credentials,
    lifetime: Duration,
    directory: &Path,
) -> anyhow::Result<()> {
    let now = SystemTime::now();
    if !credentials.renew_due(now) {
        return Ok(());
    }
    let (pending, csr_der) = credentials.new_request()?;
    let chain = authority.issue(&csr_der, credentials.identity(), lifetime, now)?;
    credentials.replace(&pending, chain, directory, now)?;
    info!("renewed the scheduler's own certificate");
    Ok(())
}

async fn renew_own(
    shared: Arc<Shared>,
    directory: std::path::PathBuf,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let lifetime = shared.settings.load().certificate_lifetime;
        let interval = (lifetime / RENEWAL_CHECKS).min(RENEWAL_CHECK_MAX);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(interval) => {}
        }
        let (shared, directory) = (Arc::clone(&shared), directory.clone());
        let renewal = tokio::task::spawn_blocking(move || {
            renew_if_due(&shared.authority, &shared.credentials, lifetime, &directory)
        });
        if let Err(error) = renewal.await? {
            warn!(error = format!("{error:#}"), "cannot renew the scheduler's own certificate");
        }
    }
}

/// Writes members' hellos to the store, one after the other.
async fn remember(
    shared: Arc<Shared>,
    mut memories: mpsc::Receiver<(RelayId, Hello)>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while let Some(Some((relay, hello))) = stop.run_until_cancelled(memories.recv()).await {
        let hello = hello.encode_to_vec();
        let kept = shared.registry_call(move |registry| registry.remember(relay, &hello)).await;
        if let Err(error) = kept {
            warn!(%relay, %error, "cannot remember a relay's hello");
        }
    }
    Ok(())
}

/// Raises the store's term above those that relays know of, and tells the driver.
async fn raise_terms(
    shared: Arc<Shared>,
    mut terms: mpsc::Receiver<u64>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while let Some(Some(known)) = stop.run_until_cancelled(terms.recv()).await {
        match shared.registry_call(move |registry| registry.raise_term_above(known)).await {
            // If the driver has stopped, the next start takes the term from the store.
            Ok(term) => drop(shared.driver.send(Input::TermRaised { term }).await),
            Err(error) => warn!(known, %error, "cannot raise the term"),
        }
    }
    Ok(())
}

/// Makes the core and tells it who is, and who no longer is, of the mesh.
fn core(snapshot: &Snapshot, term: u64, now: Instant) -> (Scheduler, BTreeMap<RelayId, String>) {
    let config = overway_scheduler_core::Config {
        executor: Arc::new(Threads::available()),
        ..overway_scheduler_core::Config::default()
    };
    let mut core = Scheduler::new(config, term, now);
    let mut names = BTreeMap::new();
    for member in snapshot.members.values() {
        names.insert(member.id, member.name.clone());
        if member.revoked {
            core.handle_removed(member.id, now);
        } else {
            core.handle_member(member.id, member.name.clone());
            let hello = snapshot.hellos.get(&member.id).map(|hello| Hello::decode(&hello[..]));
            if let Some(Ok(hello)) = hello
                && let Err(error) = core.handle_remembered(member.id, hello, now)
            {
                info!(relay = %member.id, %error, "what is remembered of a relay is not usable");
            }
        }
    }
    wish_again(&mut core, &snapshot.wishes, now);
    for (&number, record) in &snapshot.usage {
        core.handle_usage(number, usage::decode(record));
    }
    (core, names)
}

/// Tells the core what the operator wished before.
fn wish_again(core: &mut Scheduler, wishes: &Wishes, now: Instant) {
    let unix = unix_seconds();
    for (&target, record) in &wishes.drains {
        let drain = drain(record, unix, now);
        if let Err(error) = core.handle_drain(drainable(target), Some(drain), now) {
            warn!(?target, %error, "a drain that was wished for is not possible");
        }
    }
    for (&relay, &transit) in &wishes.transit {
        if let Err(error) = core.handle_transit(relay, Some(transit), now) {
            warn!(%relay, %error, "what was wished for a relay's transit is not possible");
        }
    }
    for (&id, record) in &wishes.policies {
        if let Err(error) = core.handle_policy(id, Some(expanded(wishes, record)), now) {
            warn!(policy = record.name, %error, "a policy is not possible");
        }
    }
    for (&number, record) in &wishes.tenants {
        let tenant = Tenant::from(&record.tenant(number));
        if let Err(error) = core.handle_tenant(number, Some(tenant), now) {
            warn!(tenant = %record.name, %error, "a tenant is not possible");
        }
    }
}

/// Waits until the caller stops the scheduler or a task ends, then for the other tasks.
async fn supervise(
    mut tasks: JoinSet<anyhow::Result<()>>,
    ready: &AtomicBool,
    shutdown: &CancellationToken,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ok(())) if shutdown.is_cancelled() => Ok(()),
            Ok(Ok(())) => Err(anyhow::anyhow!("a task of the scheduler ended by itself")),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error.into()),
        },
    };
    ready.store(false, Ordering::Relaxed);
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(error.into()));
        outcome = outcome.and(ended);
    }
    outcome
}

/// Writes whole or not at all: tools read it as soon as it is there.
fn write_address(directory: &Path, file: &str, address: SocketAddr) -> anyhow::Result<()> {
    let path = directory.join(file);
    let temporary = directory.join(format!("{file}.tmp"));
    let written = std::fs::File::create(&temporary)
        .and_then(|mut file| writeln!(file, "{address}"))
        .and_then(|()| std::fs::rename(&temporary, &path));
    written.with_context(|| format!("cannot write {}", path.display()))
}
