//! What the service manager is told, if one started this process (sd_notify(3)): that it is ready, that it still works,
//! that it reads its configuration again, that it stops.
//!
//! *Ready* is the admin interface answering: then everything is bound and runs. A relay that no scheduler answers is
//! ready all the same, since a restart would not help it. The *watchdog* is fed only by an answer of `/metrics`, for
//! which the threads that carry frames or plan routes have to speak up; a process whose HTTP server alone lives is
//! restarted. Without an admin interface there is nothing to ask, and the watchdog is fed as long as the process lives.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::Arc;
use std::time::{Duration, Instant};

use overway_telemetry::reload::Stage;
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often it is looked whether the process has to stop, or is ready.
const LOOK: Duration = Duration::from_millis(100);
/// Time for an answer. Metrics of a thousand relays' links take a tenth of it.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// Where the process's admin interface is, once that is known; `None` if there is none.
pub(crate) type Admin = Option<Box<dyn Fn() -> Option<SocketAddr> + Send>>;

/// Whom to tell, if a service manager started this process.
pub(crate) fn manager() -> Option<Arc<Manager>> {
    let socket = std::env::var_os("NOTIFY_SOCKET")?;
    match connect(&socket) {
        Ok(socket) => Some(Arc::new(Manager { socket, watchdog: watchdog() })),
        Err(error) => {
            warn!(%error, "NOTIFY_SOCKET is set, and cannot be used");
            None
        }
    }
}

/// A path, or a name in Linux's abstract namespace, which begins with `@`.
fn connect(name: &OsStr) -> std::io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => UnixAddr::from_abstract_name(name)?,
        None => UnixAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// The manager's patience, if it wants to hear of this process again and again (sd_watchdog_enabled(3)).
fn watchdog() -> Option<Duration> {
    let own = |pid: String| pid == std::process::id().to_string();
    if !std::env::var("WATCHDOG_PID").map_or(true, own) {
        return None;
    }
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

/// The service manager.
pub(crate) struct Manager {
    socket: UnixDatagram,
    watchdog: Option<Duration>,
}

impl Manager {
    /// Tells it that the process is ready and works, on a thread of its own, until it is to stop.
    pub(crate) fn start(self: &Arc<Self>, admin: Admin, shutdown: CancellationToken) {
        let manager = Arc::clone(self);
        let started = std::thread::Builder::new().name("manager".into());
        if let Err(error) = started.spawn(move || manager.follow(&admin, &shutdown)) {
            warn!(%error, "the service manager is told nothing");
        }
    }

    /// Tells it that the process stops.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Tells it that the process reads its configuration again, or has.
    pub(crate) fn reloading(&self, stage: Stage) {
        match stage {
            Stage::Begun => {
                let now = clock_gettime(ClockId::Monotonic);
                let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
                self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
            }
            Stage::Over => self.say("READY=1"),
        }
    }

    fn follow(&self, admin: &Admin, shutdown: &CancellationToken) {
        // A proxy of the environment's does not lead to this process.
        let config = ureq::Agent::config_builder().proxy(None);
        let config = config.timeout_global(Some(ANSWER_TIME_MAX)).max_redirects(0);
        let agent: ureq::Agent = config.build().into();
        let answers = |path: &str| match admin {
            None => true,
            Some(address) => address().is_some_and(|address| {
                let mut answer = agent.get(format!("http://{address}{path}")).call();
                // Read to its end, so that the connection is used again.
                answer.as_mut().is_ok_and(|answer| answer.body_mut().read_to_vec().is_ok())
            }),
        };
        let mut ready = false;
        let mut fed = Instant::now();
        while !shutdown.is_cancelled() {
            if !ready && answers("/livez") {
                ready = true;
                self.say("READY=1");
            }
            // Three times within its patience: one slow answer is not the end.
            if let Some(patience) = self.watchdog
                && ready
                && fed.elapsed() >= patience / 3
                && answers("/metrics")
            {
                fed = Instant::now();
                self.say("WATCHDOG=1");
            }
            std::thread::sleep(LOOK);
        }
    }

    fn say(&self, state: &str) {
        if let Err(error) = self.socket.send(state.as_bytes()) {
            warn!(%error, state, "the service manager cannot be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_or_abstract() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _bound = UnixDatagram::bind(&path).unwrap();
        let name = format!("overway-test-{}", std::process::id());
        let _held = UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();

        assert!(connect(path.as_os_str()).is_ok());
        assert!(connect(OsStr::new(&format!("@{name}"))).is_ok());
        assert!(connect(OsStr::new("/nowhere/notify")).is_err());
    }
}
