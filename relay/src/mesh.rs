//! The mesh's threads: cores, endpoints and connections, on runtimes of their own.
//!
//! There is a thread for each *worker*, and each runs the shards of the relay that are its own (see the module `shard`
//! of the core): shard `s` on worker `s mod n`. A shard's core, its connections and their timers stay on one thread, so
//! that none of them needs a lock and a frame on its way crosses no thread. The first worker runs the lead, which
//! takes commands and reports. `mesh/worker.rs` has the tasks and what crosses threads; `steer` how packets find their
//! worker.

mod alarm;
mod close;
mod connect;
mod driver;
mod endpoints;
mod held;
mod mtu;
mod news;
mod snapshot;
mod unused;
mod worker;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use overway_pki::Credentials;
use overway_relay_core::{Fib, FibPath, QueueStats, RecoveryStats, Settings, SharedLines, Stats};
use overway_session::Inbound;
use overway_wire::control::{Ack, LinkReport, Report, Update, WORKERS_MAX};
use overway_wire::hop::Lane;
use overway_wire::{Class, RelayId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use crate::delivery::Deliveries;
use crate::fault::{FaultConfig, FaultSocket, FaultTable};
use crate::lines::Lines;
use crate::local::LocalQueues;
use crate::socket::BufferReport;
use crate::trace::Traces;
use worker::{Mail, Shared, Worker};

const COMMANDS_MAX: usize = 64;
const DELIVERED_BATCHES_MAX: usize = 1_024;
const REPORTS_MAX: usize = 8;

/// What the mesh needs at its start.
pub struct MeshConfig {
    /// The core's configuration, that of the lead; what its shards share is filled in. Its settings are those of the
    /// start ([`Mesh::settings`]).
    pub core: overway_relay_core::Config,
    /// Threads, 1 to [`WORKERS_MAX`].
    pub workers: u8,
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
    /// Frames that each worker took from neighbours and local ends.
    pub workers: Vec<u64>,
    /// Every link that is held, as the lead sees it.
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
    /// Frames for local ends dropped because these did not keep up.
    pub delivered_dropped: u64,
    /// Frames dropped because no such end is attached.
    pub delivered_unknown: u64,
    /// Reports dropped because the control connection did not keep up.
    pub reports_dropped: u64,
    /// Frames dropped on their way from one worker to another, because that did not keep up.
    pub handed_dropped: u64,
    /// Datagrams that the kernel gave to one worker and that were another's.
    pub datagrams_moved: u64,
    /// Of such, those dropped because that worker did not keep up.
    pub datagrams_moved_dropped: u64,
}

impl ShellStats {
    /// Adds what another part of the shell counts.
    fn add(&mut self, other: &Self) {
        macro_rules! add {
            ($($field:ident),+) => {{
                // Destructured, so that none is forgotten.
                let Self { $($field),+ } = other;
                $(self.$field += $field;)+
            }};
        }
        add!(
            connections,
            dials_failed,
            refused,
            delivered_dropped,
            delivered_unknown,
            reports_dropped,
            handed_dropped,
            datagrams_moved,
            datagrams_moved_dropped
        );
    }
}

/// Where the mesh's outputs go.
#[derive(Clone)]
struct Sinks {
    reports: mpsc::Sender<Report>,
    fib: watch::Sender<Arc<Fib>>,
}

/// The main runtime's side of the mesh thread.
#[derive(Debug)]
pub struct Mesh {
    /// Commands to it. Dropping all of these ends the thread.
    pub commands: mpsc::Sender<Command>,
    /// Frames to it.
    pub local: Arc<LocalQueues>,
    /// Where edges that attach have their frames put.
    pub deliveries: Arc<Deliveries>,
    /// Who traces paths from here.
    pub traces: Arc<Traces>,
    /// The table that frames follow.
    pub fib: watch::Receiver<Arc<Fib>>,
    /// What all shards go by from the moment that it is sent.
    pub settings: watch::Sender<Settings>,
    /// Addresses bound, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Kernel buffers of each address.
    pub buffers: Vec<BufferReport>,
    /// Rules of fault injection, if configured.
    pub fault: Option<Arc<FaultTable>>,
    /// The sockets that follow these rules: of each worker, one for each address.
    pub fault_sockets: Vec<Vec<Arc<FaultSocket>>>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// What comes from the mesh thread, to be taken once each.
#[derive(Debug)]
pub struct MeshOutputs {
    /// Frames for the gateway.
    pub delivered: mpsc::Receiver<Vec<Inbound>>,
    /// Reports for the scheduler.
    pub reports: mpsc::Receiver<Report>,
}

impl Mesh {
    /// Binds the addresses and starts the threads.
    ///
    /// # Errors
    /// Says which address cannot be bound, or that there is no thread to be had.
    pub fn start(mut config: MeshConfig) -> anyhow::Result<(Self, MeshOutputs)> {
        config.workers = config.workers.clamp(1, WORKERS_MAX);
        config.core.lines = Some(Arc::new(SharedLines::new(Instant::now())));
        let opened = endpoints::open_sockets(&config)?;
        let endpoints::Opened { addresses, buffers, sockets, steering } = opened;
        let fault = config.fault.as_ref().map(FaultTable::new);
        let (commands, command_rx) = mpsc::channel(COMMANDS_MAX);
        let (delivered_tx, delivered) = mpsc::channel(DELIVERED_BATCHES_MAX);
        let (report_tx, reports) = mpsc::channel(REPORTS_MAX);
        let (fib_tx, fib) = watch::channel(Arc::default());
        let (settings, settings_rx) = watch::channel(config.core.settings());
        let sinks = Sinks { reports: report_tx, fib: fib_tx };
        let deliveries =
            Arc::new(Deliveries::new(delivered_tx, Arc::clone(&config.core.attachments)));
        let local = Arc::new(LocalQueues::new(config.workers));
        let traces = Arc::<Traces>::default();
        let (mailboxes, mail): (Vec<_>, Vec<_>) =
            (0..config.workers).map(|_| mpsc::channel(worker::MAIL_MAX)).unzip();
        let shared = Arc::new(Shared {
            config,
            local: Arc::clone(&local),
            deliveries: Arc::clone(&deliveries),
            traces: Arc::clone(&traces),
            mailboxes,
            fib: fib.clone(),
            settings: settings_rx,
            steering,
            stop: CancellationToken::new(),
        });
        // Dropped if a worker cannot be started: ends those that were.
        let stop = shared.stop.clone().drop_guard();
        let mut mesh = Self {
            commands,
            local,
            deliveries,
            traces,
            fib,
            settings,
            addresses,
            buffers,
            fault,
            fault_sockets: Vec::new(),
            threads: Vec::new(),
        };
        let mut commands = Some(command_rx);
        for (index, (sockets, mail)) in (0..).zip(sockets.into_iter().zip(mail)) {
            let begun = Begun { index, sockets, mail, commands: commands.take() };
            mesh.start_worker(begun, Arc::clone(&shared), sinks.clone())?;
        }
        stop.disarm();
        Ok((mesh, MeshOutputs { delivered, reports }))
    }

    /// Starts a thread, and waits until its endpoints stand.
    fn start_worker(
        &mut self,
        begun: Begun,
        shared: Arc<Shared>,
        sinks: Sinks,
    ) -> anyhow::Result<()> {
        let (ready_tx, ready) = std::sync::mpsc::channel();
        let name = format!("mesh-{}", begun.index);
        let fault = self.fault.clone();
        let main = move || {
            let Begun { index, sockets, mail, commands } = begun;
            let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let bound = made.map_err(anyhow::Error::from).and_then(|runtime| {
                let _inside = runtime.enter();
                let Shared { config, steering, .. } = &*shared;
                let bound = endpoints::bind(config, index, sockets, steering, fault.as_ref())?;
                drop(_inside);
                Ok((runtime, bound))
            });
            // The receiver waits for exactly one message.
            match bound {
                Ok((runtime, (endpoints, fault_sockets))) => {
                    let _ = ready_tx.send(Ok(fault_sockets));
                    let worker = Worker::new(index, shared, sinks, endpoints);
                    LocalSet::new().block_on(&runtime, worker::serve(worker, mail, commands));
                    runtime.shutdown_timeout(Duration::from_millis(200));
                }
                Err(error) => {
                    let _ = ready_tx.send(Err(error));
                }
            }
        };
        self.threads.push(thread::Builder::new().name(name).spawn(main)?);
        let sockets = ready.recv().context("a mesh thread ended at its start")??;
        self.fault_sockets.push(sockets);
        Ok(())
    }

    /// Asks for a snapshot; `None` once the thread has ended.
    pub async fn snapshot(commands: &mpsc::Sender<Command>) -> Option<Snapshot> {
        let (tx, rx) = oneshot::channel();
        commands.send(Command::Snapshot(tx)).await.ok()?;
        rx.await.ok()
    }

    /// Closes every connection and waits for the threads' end.
    pub async fn stop(self) {
        let Self { commands, threads, .. } = self;
        drop(commands);
        let join = || threads.into_iter().map(thread::JoinHandle::join).all(|ended| ended.is_ok());
        if !matches!(tokio::task::spawn_blocking(join).await, Ok(true)) {
            tracing::error!("a mesh thread ended with a panic");
        }
    }
}

/// What a thread begins with.
struct Begun {
    index: u8,
    sockets: Vec<UdpSocket>,
    mail: mpsc::Receiver<Mail>,
    /// The first worker's.
    commands: Option<mpsc::Receiver<Command>>,
}
