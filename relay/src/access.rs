//! The access side: where edges, ends outside the mesh, attach to this relay.
//!
//! It has sockets, QUIC endpoints and a thread of its own, so that whatever strangers do there delays no heartbeat of the
//! mesh, and a firewall can close the mesh's port to them.
//!
//! ```text
//!   handshake --(5 s in all)--> Attach: token, key, proof --> attached --> frames up and down, heartbeats
//!       |                             |                          |
//!       refused, retried              Refused                    replaced by a new connection of the same edge;
//!       when there are many                                      silent; expired; revoked; drained; gone
//! ```
//!
//! An edge that attaches anew, from another address perhaps, takes over its place: id, queue and what others know of it
//! stay. Its relay writes the source address and the tenant's number into its frames, and gives it only frames of its
//! own tenant.
//!
//! Clients may ask which relays they should attach to ([`Dispatcher`]): here, before or after they attach, and over HTTP on
//! the main runtime ([`serve_clients`]).
//!
//! Tasks, all on the access thread: one accepts on each address, one for each handshake, two for each attachment (its
//! frames; what is written to its control stream). All end when [`Access`] stops.
//!
//! | channel | from, to | bound and policy |
//! | --- | --- | --- |
//! | local frames | an attachment to the mesh's workers | [`crate::local`]; what there is no room for is dropped and counted |
//! | an edge's frames | the mesh's workers to its attachment | [`crate::delivery`] |
//! | control messages | an attachment to its writer | 16; an edge that does not read is closed |

mod admission;
mod attachment;
mod config;
mod connection;
mod directory;
mod drain;
mod http;
mod kept;
mod listener;
mod nearest;
mod places;
mod pushed;
mod quota;
mod registry;
mod services;
mod stats;
mod tcp;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use overway_pki::Credentials;
use overway_probe::LocalClock;
use overway_wire::BootId;
use overway_wire::control::AccessUse;
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use crate::delivery::Deliveries;
use crate::local::LocalQueues;
use crate::quality::QualityStore;
use crate::socket;

pub use admission::{Admission, Admitted, Refusal, TenantTable, TokenAdmission};
pub use config::AccessConfig;
pub(crate) use config::RawAccess;
pub use directory::MeshDirectory;
pub use drain::{AccessDrain, Drain};
pub use http::serve_clients;
pub use kept::KeptUse;
pub(crate) use nearest::{AccessHeard, AccessTold, told_access};
pub use nearest::{Asker, Dispatcher, OwnSide};
pub use pushed::PushedTenants;
pub use services::{Directory, Offering, OwnEdges};
pub use stats::{AccessDrop, AccessStats, REFUSALS};

/// What the access side needs at its start.
pub struct AccessParts {
    /// Where, and how many.
    pub config: AccessConfig,
    /// The relay's identity.
    pub credentials: Arc<Credentials>,
    /// Keeps stateless resets over restarts, as in the mesh.
    pub reset_secret: Vec<u8>,
    /// This process.
    pub boot: BootId,
    /// Its clock.
    pub clock: LocalClock,
    /// Frames to the mesh.
    pub local: Arc<LocalQueues>,
    /// Frames from it.
    pub deliveries: Arc<Deliveries>,
    /// Who may attach.
    pub admission: Arc<dyn Admission>,
    /// Services of edges.
    pub directory: Arc<dyn Directory>,
    /// What tenants had sent this month before this process began, if that is known.
    pub counted: Option<AccessUse>,
    /// What edges feel.
    pub quality: Arc<QualityStore>,
    /// Answers which relays are near.
    pub dispatcher: Arc<Dispatcher>,
}

/// The main runtime's side of the access thread.
#[derive(Debug)]
pub struct Access {
    /// Addresses bound, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// The TCP address, likewise.
    pub tcp_address: Option<SocketAddr>,
    counters: Arc<stats::Counters>,
    draining: AccessDrain,
    attachments_max: Arc<AtomicUsize>,
    stop: CancellationToken,
    thread: thread::JoinHandle<()>,
}

/// Reads what the access side counts.
#[derive(Clone, Debug)]
pub struct AccessCounts(Arc<stats::Counters>);

impl AccessCounts {
    /// The counts now.
    pub fn snapshot(&self) -> AccessStats {
        self.0.snapshot()
    }
}

/// Changes how many edges may be attached at once.
#[derive(Clone, Debug)]
pub(crate) struct AttachmentsMax(Arc<AtomicUsize>);

impl AttachmentsMax {
    /// From now on; those that are attached stay.
    pub(crate) fn set(&self, max: usize) {
        self.0.store(max, Ordering::Relaxed);
    }
}

impl Access {
    /// Binds the addresses and starts the thread.
    ///
    /// # Errors
    /// Says which address cannot be bound, or that there is no thread to be had.
    pub fn start(parts: AccessParts) -> anyhow::Result<Self> {
        let opened = parts.config.listen.iter().map(|&address| socket::open(address));
        let mut sockets = Vec::new();
        for opened in opened {
            let (socket, buffers) = opened?;
            if let Some(hint) = buffers.hint() {
                let address = socket.local_addr()?;
                tracing::warn!(%address, hint, "kernel buffers are too small for bursts");
            }
            sockets.push(socket);
        }
        let addresses =
            sockets.iter().map(std::net::UdpSocket::local_addr).collect::<Result<Vec<_>, _>>()?;
        let tcp = parts.config.tcp_listen.map(listen_tcp).transpose()?;
        let tcp_address = tcp.as_ref().map(TcpListener::local_addr).transpose()?;
        let counters = Arc::<stats::Counters>::default();

        let (draining, drains) = watch::channel(Drain::No);
        let bound = (&addresses[..], tcp_address);
        parts.dispatcher.started(bound, Arc::clone(&counters), drains.clone());
        let stop = CancellationToken::new();
        let attachments_max = Arc::new(AtomicUsize::new(parts.config.attachments_max));
        let listener = listener::Listener::new(
            parts,
            Arc::clone(&attachments_max),
            Arc::clone(&counters),
            drains,
            stop.clone(),
        );
        let (ready_tx, ready) = std::sync::mpsc::channel();
        let main = move || {
            let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let bound = made.map_err(anyhow::Error::from).and_then(|runtime| {
                let _inside = runtime.enter();
                let doors = listener.bind(sockets, tcp)?;
                drop(_inside);
                Ok((runtime, doors))
            });
            // The receiver waits for exactly one message.
            match bound {
                Ok((runtime, doors)) => {
                    let _ = ready_tx.send(Ok(()));
                    LocalSet::new().block_on(&runtime, listener.serve(doors));
                    runtime.shutdown_timeout(Duration::from_millis(200));
                }
                Err(error) => {
                    let _ = ready_tx.send(Err(error));
                }
            }
        };
        let thread = thread::Builder::new().name("access".to_owned()).spawn(main)?;
        ready.recv().context("the access thread ended at its start")??;
        let draining = AccessDrain::new(draining);
        Ok(Self { addresses, tcp_address, counters, draining, attachments_max, stop, thread })
    }

    /// What is counted.
    pub fn counts(&self) -> AccessCounts {
        AccessCounts(Arc::clone(&self.counters))
    }

    /// Changes how many edges may be attached at once.
    pub(crate) fn attachments_max(&self) -> AttachmentsMax {
        AttachmentsMax(Arc::clone(&self.attachments_max))
    }

    /// Has edges leave, or turns them away.
    pub const fn draining(&self) -> &AccessDrain {
        &self.draining
    }

    /// Ends all attachments and waits for the thread's end.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::task::spawn_blocking(|| self.thread.join()).await.is_ok_and(|end| end.is_err()) {
            tracing::error!("the access thread ended with a panic");
        }
    }
}

/// A listener for the access thread's runtime.
fn listen_tcp(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address);
    let listener = bound.with_context(|| format!("cannot listen on TCP {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
