//! Tokio, and the signals that end a process.

use std::process::ExitCode;
use std::sync::Arc;

use overway_config::ConfigError;
use overway_telemetry::reload::{ReloadError, Reloading, Reloads};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::failure::Failure;
use super::manager::{self, Admin, Manager};

/// Set by a parent that wants its children gone when it goes, however it goes: the lab.
const DIE_WITH_PARENT: &str = "OVERWAY_DIE_WITH_PARENT";

/// Runs a service until it ends by itself, or SIGTERM or SIGINT cancels its token. A second signal ends
/// the process where it stands. SIGHUP has it go on with what `read` reads. A service manager is told by way of the
/// service's `admin` interface.
pub(crate) fn serve<C: 'static, F>(
    admin: Admin,
    read: impl Fn() -> Result<C, ConfigError> + Send + 'static,
    service: impl FnOnce(Reloading<C>, CancellationToken) -> F,
) -> Result<ExitCode, Failure>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    if std::env::var_os(DIE_WITH_PARENT).is_some() {
        die_with_parent();
    }
    runtime.block_on(async {
        let (terminate, interrupt, hangup) = signals().map_err(Failure::failed)?;
        let shutdown = CancellationToken::new();
        let manager = manager::manager();
        if let Some(manager) = &manager {
            manager.start(admin, shutdown.clone());
        }
        let tell = manager.clone();
        let reloading = Reloading::new(
            move || Ok(read()?),
            move |stage| tell.iter().for_each(|manager| manager.reloading(stage)),
        );
        tokio::spawn(hear_hangups(hangup, reloading.reloads()));
        tokio::spawn(watch(terminate, interrupt, manager, shutdown.clone()));
        let ended = service(reloading, shutdown).await;
        #[cfg(feature = "otlp")]
        super::otlp::finish();
        ended?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Runs something short.
pub(crate) fn block_on<T>(task: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    Ok(runtime.block_on(task))
}

/// Asks the kernel to kill this process when the thread that started it ends, even while it is stopped.
#[cfg(target_os = "linux")]
fn die_with_parent() {
    use rustix::process::{Signal, set_parent_process_death_signal};

    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        warn!(%error, "this process will outlive its parent");
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent() {}

fn signals() -> std::io::Result<(Signal, Signal, Signal)> {
    let [terminate, interrupt, hangup] =
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    Ok((terminate?, interrupt?, hangup?))
}

/// Has the configuration read again at each SIGHUP.
async fn hear_hangups(mut hangup: Signal, reloads: Reloads) {
    while hangup.recv().await.is_some() {
        match reloads.reload().await {
            // Told by who reloads.
            Ok(_) | Err(ReloadError::Refused(_)) => {}
            Err(error @ (ReloadError::Busy | ReloadError::Away)) => {
                warn!(%error, "SIGHUP was without effect");
            }
        }
    }
}

async fn watch(
    mut terminate: Signal,
    mut interrupt: Signal,
    manager: Option<Arc<Manager>>,
    shutdown: CancellationToken,
) {
    let mut next = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    let signal = next().await;
    info!(signal, "stopping");
    if let Some(manager) = &manager {
        manager.stopping();
    }
    shutdown.cancel();
    let signal = next().await;
    warn!(signal, "stopping at once");
    std::process::exit(1);
}
