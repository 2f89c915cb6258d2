//! The mesh thread: the core, its endpoints and its connections, on a runtime of their own.
//!
//! Everything here runs on one thread, so the core needs no lock. Tasks: one accepts on each endpoint,
//! one dials what is missing (`connect`), one reads each connection, one waits for the core's next
//! timeout, one takes local frames, one takes commands. All end when the command channel closes.

mod close;
mod connect;
mod driver;
mod news;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use overway_pki::Credentials;
use overway_relay_core::{Fib, FibPath, QueueStats, RecoveryStats, Stats};
use overway_session::Inbound;
use overway_wire::control::{Ack, LinkReport, Report, Update};
use overway_wire::hop::Lane;
use overway_wire::{Class, RelayId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;

use crate::fault::{FaultConfig, FaultSocket, FaultTable};
use crate::lines::Lines;
use crate::local::LocalQueue;
use crate::socket::BufferReport;
use driver::Driver;

const COMMANDS_MAX: usize = 64;
const DELIVERED_BATCHES_MAX: usize = 1_024;
const REPORTS_MAX: usize = 8;

/// What the mesh thread needs at its start.
pub struct MeshConfig {
    /// The core's configuration.
    pub core: overway_relay_core::Config,
    /// One address per provider line.
    pub listen: Vec<SocketAddr>,
    /// Whether batches are cut into packets by the system, where it can (GSO).
    pub offload: bool,
    /// What the lines have carried, one for each address.
    pub lines: Arc<Lines>,
    /// The relay's identity.
    pub credentials: Arc<Credentials>,
    /// The same at each start: neighbours of a relay that was killed and started anew then learn with
    /// their next packet that their connections are gone.
    pub reset_secret: Vec<u8>,
    /// Delay, loss and cuts of what arrives, if any.
    pub fault: Option<FaultConfig>,
    /// The last good state from disk.
    pub restored: Option<Update>,
}

/// What the main runtime asks of the mesh thread.
#[derive(Debug)]
pub enum Command {
    /// Apply an update.
    Update(Box<Update>, oneshot::Sender<Ack>),
    /// A scheduler is connected: report, as often as it asks, if it does.
    SchedulerConnected(Option<Duration>),
    /// None is: do not.
    SchedulerLost,
    /// Say what there is.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Hand out the pushed state, to save.
    Pushed(oneshot::Sender<Update>),
}

/// The mesh thread's state at a moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The core's counters.
    pub stats: Stats,
    /// What the probes of all links counted, those that ended included.
    pub probes: overway_probe::Stats,
    /// What was recovered on each data lane, those of links that ended included.
    pub recovery: [RecoveryStats; Lane::DATA.len()],
    /// What the queues in front of all links have seen, by class in the order of [`Class::ALL`].
    pub queues: [QueueStats; Class::ALL.len()],
    /// The shell's counters.
    pub shell: ShellStats,
    /// Every link that is held.
    pub links: Vec<LinkReport>,
    /// The path that frames would take now, by destination and class.
    pub chosen: Vec<(RelayId, Class, Option<FibPath>)>,
}

/// Counters of the mesh thread's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShellStats {
    /// Connections that stand, all lanes.
    pub connections: u64,
    /// Connections dialled that failed.
    pub dials_failed: u64,
    /// Connections refused: not a peer, revoked, or a bad hello.
    pub refused: u64,
    /// Batches of frames for local ends dropped because these did not keep up.
    pub delivered_dropped: u64,
    /// Reports dropped because the control connection did not keep up.
    pub reports_dropped: u64,
}

/// The main runtime's side of the mesh thread.
#[derive(Debug)]
pub struct Mesh {
    /// Commands to it. Dropping all of these ends the thread.
    pub commands: mpsc::Sender<Command>,
    /// Frames to it.
    pub local: Arc<LocalQueue>,
    /// The table that frames follow.
    pub fib: watch::Receiver<Arc<Fib>>,
    /// Addresses bound, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Kernel buffers of each address.
    pub buffers: Vec<BufferReport>,
    /// Rules of fault injection, if configured.
    pub fault: Option<Arc<FaultTable>>,
    /// The sockets that follow these rules.
    pub fault_sockets: Vec<Arc<FaultSocket>>,
    thread: thread::JoinHandle<()>,
}

/// What comes from the mesh thread, to be taken once each.
#[derive(Debug)]
pub struct MeshOutputs {
    /// Frames for local ends.
    pub delivered: mpsc::Receiver<Vec<Inbound>>,
    /// Reports for the scheduler.
    pub reports: mpsc::Receiver<Report>,
}

impl Mesh {
    /// Binds the addresses and starts the thread.
    ///
    /// # Errors
    /// Says which address cannot be bound, or that there is no thread to be had.
    pub fn start(config: MeshConfig) -> anyhow::Result<(Self, MeshOutputs)> {
        let (commands, command_rx) = mpsc::channel(COMMANDS_MAX);
        let (delivered_tx, delivered) = mpsc::channel(DELIVERED_BATCHES_MAX);
        let (report_tx, reports) = mpsc::channel(REPORTS_MAX);
        let (fib_tx, fib) = watch::channel(Arc::default());
        let (ready_tx, ready) = std::sync::mpsc::channel();
        let local = Arc::new(LocalQueue::default());
        let sinks = driver::Sinks { delivered: delivered_tx, reports: report_tx, fib: fib_tx };
        let queue = Arc::clone(&local);
        let main = move || match connect::bind(&config) {
            Ok((runtime, endpoints, started)) => {
                // The receiver waits for exactly this message.
                let _ = ready_tx.send(Ok(started));
                let driver = Driver::new(config, endpoints, sinks);
                LocalSet::new().block_on(&runtime, serve(driver, queue, command_rx));
                runtime.shutdown_timeout(Duration::from_millis(200));
            }
            Err(error) => {
                let _ = ready_tx.send(Err(error));
            }
        };
        let thread = thread::Builder::new().name("mesh".into()).spawn(main)?;
        let started = ready.recv().context("the mesh thread ended at its start")??;
        let connect::Started { addresses, buffers, fault, fault_sockets } = started;
        let mesh = Self { commands, local, fib, addresses, buffers, fault, fault_sockets, thread };
        Ok((mesh, MeshOutputs { delivered, reports }))
    }

    /// Asks for a snapshot; `None` once the thread has ended.
    pub async fn snapshot(commands: &mpsc::Sender<Command>) -> Option<Snapshot> {
        let (tx, rx) = oneshot::channel();
        commands.send(Command::Snapshot(tx)).await.ok()?;
        rx.await.ok()
    }

    /// Closes every connection and waits for the thread's end.
    pub async fn stop(self) {
        let Self { commands, thread, .. } = self;
        drop(commands);
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the mesh thread ended with a panic");
        }
    }
}

/// Serves until the command channel closes.
async fn serve(driver: Driver, queue: Arc<LocalQueue>, mut commands: mpsc::Receiver<Command>) {
    let driver = Rc::new(RefCell::new(driver));
    connect::spawn_accepting(&driver);
    tokio::task::spawn_local(connect::keep_connected(Rc::clone(&driver)));
    tokio::task::spawn_local(keep_time(Rc::clone(&driver)));
    tokio::task::spawn_local(take_local(Rc::clone(&driver), queue));
    Driver::pump(&driver, Instant::now());
    while let Some(command) = commands.recv().await {
        driver.borrow_mut().command(command, Instant::now());
        Driver::pump(&driver, Instant::now());
    }
    let endpoints = driver.borrow_mut().close();
    for endpoint in endpoints {
        // A peer that does not answer is not waited for: it will notice by silence.
        let _ = tokio::time::timeout(Duration::from_millis(300), endpoint.wait_idle()).await;
    }
}

/// Wakes the core when it wants to be woken.
async fn keep_time(driver: Rc<RefCell<Driver>>) {
    let rearm = driver.borrow().rearm();
    loop {
        let due = driver.borrow_mut().arm();
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {
                driver.borrow_mut().timeout(Instant::now());
                Driver::pump(&driver, Instant::now());
            }
            () = rearm.notified() => {}
        }
    }
}

/// Frames taken from local ends before others get a turn.
const LOCAL_BATCH: usize = 64;

async fn take_local(driver: Rc<RefCell<Driver>>, queue: Arc<LocalQueue>) {
    let mut frames = Vec::with_capacity(LOCAL_BATCH);
    loop {
        queue.filled().await;
        while queue.take(LOCAL_BATCH, &mut frames) || !frames.is_empty() {
            let now = Instant::now();
            driver.borrow_mut().local_frames(frames.drain(..), now);
            Driver::pump(&driver, now);
            tokio::task::yield_now().await;
        }
    }
}
