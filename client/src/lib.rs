//! The SDK: an edge, an end outside the mesh, that is attached to two access relays at once, so that the death of one is
//! a path change.
//!
//! [`Edge`] is what an application needs: [`Edge::open_stream`] and [`Edge::open_flow`] by a service's name,
//! [`Edge::offer`] to offer one. `examples/echo.rs` has it all in use. Below it are the sessions (`overway-session`) and,
//! below those, [`Attachments`]:
//!
//! ```no_run
//! use overway_client::{Edge, EdgeConfig, StreamOptions};
//! use tokio::io::AsyncWriteExt as _;
//!
//! # async fn run(config: EdgeConfig) -> Result<(), Box<dyn std::error::Error>> {
//! let edge = Edge::connect(config).await?;
//! let mut stream = edge.open_stream("chat", StreamOptions::default()).await?;
//! println!("{} answers", stream.peer().name());
//! stream.write_all(b"hello").await?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!   sessions --frames--> Uplink --+--> attachment 0 == QUIC == access relay A ==+
//!      ^                          +--> attachment 1 == QUIC == access relay B ==+== mesh
//!      |                                     |
//!      +-------- frames, whereabouts --------+
//! ```
//!
//! [`Attachments`] holds two *places*. Each dials relays of a list, never the one that the other place has; attaches, by
//! the edge's token and a proof that it holds the edge's key; serves the attachment; and when that ends begins anew,
//! with a pause that grows for each relay that fails.
//!
//! An attachment is *suspect* when its relay was silent for one and a half heartbeats, and *down* after three: then all
//! goes over the other, and what the relay had not acknowledged too, so that nothing is lost but what the relay itself had
//! in hand. The *first* attachment is the nearer one, with hysteresis; far ends are told where the edge is by the
//! whereabouts.
//!
//! [`Attachments::discover`] has it ask which other relays are near, measure these, and move to one that is clearly and
//! lastingly nearer, as it leaves one that drains.
//!
//! An edge whose address changes keeps its connections (QUIC migrates them). If nothing comes through any, it takes a new
//! socket; if nothing comes for three seconds, it attaches anew, and a relay gives an edge that it still knows its
//! old place. After the machine slept, a sign of life is asked for at once.
//!
//! Where UDP does not come through, an attachment goes over TLS on TCP: it is tried when QUIC has not answered for a
//! second. Every few minutes, and when the network changes, such an attachment looks whether QUIC comes through by now,
//! and then goes over to it, in its old place.
//!
//! Tasks, on the tokio runtime in which [`Edge::start`] is called: one for each place, one that keeps the directory of
//! services, one that gives out what far ends ask for once something is offered, and the sessions'. They end when
//! [`Edge::close`] is called or the last clone is dropped.
//!
//! | queue | bound and policy |
//! | --- | --- |
//! | frames that wait for an attachment | 512 of each class; ends wait |
//! | frames sent and not acknowledged | 4,096, one second; the oldest is forgotten |
//! | frames without an attachment | 4,096, one second; the newest is dropped and counted |
//! | realtime frames, wherever they wait | their budget, a second at most; dropped and counted |
//! | frames that wait for TCP | 32 KiB beside what the system holds; see `overway-access` |
//! | frames for the ends | 1,024 batches; the newest is dropped and counted |

mod attachment;
mod choice;
mod config;
mod directory;
mod discover;
mod edge;
mod limits;
mod relays;
mod ring;
mod services;
mod status;
mod token;
mod transport;
mod uplink;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use overway_probe::{LocalClock, State};
use overway_quality::REPORT_INTERVAL;
use overway_session::{EdgePort, Inbound, SessionEndpoint};
use overway_wire::access::messages::{Attached, Limited, OfferedService};
use overway_wire::quality::{FLOW_REPORTS_BYTES_MAX, FLOW_REPORTS_MAX, FlowReports};
use overway_wire::{Address, BootId, Ticks, Whereabouts};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};

use attachment::{AttachError, Attachment};
use limits::Limits;
use relays::{Next, Relays};
use services::Services;
use status::Counters;
use transport::Transport;
use transport::either::Either;
use uplink::{LINES, LineId, Uplink};

pub use config::{AttachConfig, RELAYS_MAX, StartError, TCP_PORT, TcpAccess};
pub use discover::Discovery;
pub use edge::{
    AcceptError, ConnectError, Edge, EdgeConfig, FlowOptions, Incoming, IncomingFlow,
    IncomingStream, Offer, OfferError, OfferOptions, OpenError, RecvHalf, Required, SendHalf,
    Stream, StreamOptions,
};
pub use overway_probe::State as AttachmentState;
pub use overway_session::{DATAGRAM_BYTES_MAX, Flow, Peer, SendError};
pub use overway_tenant::{EdgeId, EdgeKey, TenantKeys};
pub use overway_wire::{Class, Redundancy};
pub use services::{Offering, ResolveError};
pub use status::{AttachmentStatus, Counts, LimitStatus, Status, TransportKind};
pub use token::{OwnTokenError, own_claims};

/// Batches of frames for the ends.
const DELIVERED_BATCHES_MAX: usize = 1_024;
/// Two new sockets are at least this far apart.
const REFRESH_MIN: Duration = Duration::from_secs(5);
/// How long a place without a relay to dial waits before it looks again; it is also told.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// An edge's attachments to the mesh. Clones are the same.
#[derive(Clone)]
pub struct Attachments {
    shared: Arc<Shared<Either>>,
    /// Ends the tasks with the last clone.
    _stop: Arc<DropGuard>,
    places: Arc<Mutex<Vec<tokio::task::JoinHandle<()>>>>,
}

/// What the places share.
pub(crate) struct Shared<T> {
    transport: T,
    key: Arc<EdgeKey>,
    token: watch::Receiver<String>,
    boot: BootId,
    clock: LocalClock,
    uplink: Arc<Uplink>,
    delivered: mpsc::Sender<Vec<Inbound>>,
    services: Services,
    counters: Arc<Counters>,
    relays: Mutex<Relays>,
    /// A place became free, or a relay known: others may dial what they could not.
    changed: Notify,
    /// Counts how often the network changed, as far as the edge is told.
    networks: watch::Sender<u64>,
    standing: Mutex<Standing>,
    /// The last word on a limit of the tenant's quota.
    limits: watch::Sender<Option<String>>,
    stop: CancellationToken,
}

/// For [`Status`].
#[derive(Default)]
struct Standing {
    places: [Option<Place>; LINES],
    last_error: Option<String>,
    refreshed: Option<Instant>,
    limits: Limits,
}

struct Place {
    since: Instant,
    status: AttachmentStatus,
}

impl Attachments {
    /// Begins to attach, on the current tokio runtime. Whatever fails from then on is tried again. The port is for the
    /// edge's sessions.
    ///
    /// # Errors
    /// The configuration cannot work.
    pub fn start(config: AttachConfig) -> Result<(Self, EdgePort), StartError> {
        let AttachConfig { relays, tcp, ca_pem, key, token } = config;
        if relays.is_empty() || relays.len() > RELAYS_MAX {
            return Err(StartError::Relays(relays.len()));
        }
        let transport = Either::new(&ca_pem, tcp).map_err(StartError::Ca)?;
        let counters = Arc::<Counters>::default();
        let uplink = Uplink::new(Arc::clone(&counters));
        let (delivered, receiver) = mpsc::channel(DELIVERED_BATCHES_MAX);
        let now = Instant::now();
        let shared = Arc::new(Shared {
            transport,
            key,
            token,
            boot: BootId(fastrand::u32(1..)),
            clock: LocalClock::new(now, Ticks(fastrand::u64(..1 << 40)), 0),
            uplink: Arc::clone(&uplink),
            delivered,
            services: Services::new(),
            counters,
            relays: Mutex::new(Relays::new(&relays, now)),
            changed: Notify::new(),
            networks: watch::Sender::new(0),
            standing: Mutex::default(),
            limits: watch::Sender::new(None),
            stop: CancellationToken::new(),
        });
        let whereabouts = uplink.whereabouts();
        let port = EdgePort { sender: uplink, receiver, whereabouts };
        let keep = |place| tokio::spawn(keep_attached(Arc::clone(&shared), place));
        let places = Arc::new(Mutex::new((0..LINES).map(keep).collect()));
        let stop = Arc::new(shared.stop.clone().drop_guard());
        Ok((Self { shared, _stop: stop, places }, port))
    }

    /// What there is.
    pub fn status(&self) -> Status {
        let now = Instant::now();
        let standing = self.shared.standing();
        let mut attachments: Vec<(bool, AttachmentStatus)> = Vec::new();
        let first = self.shared.uplink.first();
        for (at, place) in standing.places.iter().enumerate() {
            let Some(Place { since, status }) = place else { continue };
            let age = now.saturating_duration_since(*since);
            attachments.push((Some(at) != first, AttachmentStatus { age, ..status.clone() }));
        }
        attachments.sort_by_key(|&(is_second, _)| is_second);
        Status {
            attachments: attachments.into_iter().map(|(_, status)| status).collect(),
            counts: self.shared.counters.snapshot(),
            last_error: standing.last_error.clone(),
            limits: standing.limits.status(now),
        }
    }

    /// Where the edge is attached; `None` while it is nowhere.
    pub fn whereabouts(&self) -> watch::Receiver<Option<Whereabouts>> {
        self.shared.uplink.whereabouts()
    }

    /// Offers these services and no others from now on, at every relay to which the edge is attached.
    pub fn offer(&self, services: Vec<OfferedService>) {
        self.shared.services.offer(services);
    }

    /// Asks where a service of the edge's tenant is: the best first, none if nobody offers it.
    ///
    /// # Errors
    /// No relay answers, or the edge may not use the service.
    pub async fn resolve(
        &self,
        service: &str,
        class: Class,
    ) -> Result<Vec<Offering>, ResolveError> {
        let first = self.shared.uplink.first().unwrap_or(0);
        self.shared.services.resolve(service, class, first).await
    }

    /// Tells the nearer relay what the flows of this edge's sessions feel like, every ten seconds, for as long as it is
    /// polled. What no relay can be told for a minute is dropped.
    pub async fn report_felt(&self, session: &SessionEndpoint) {
        let mut ticks = tokio::time::interval(REPORT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let flows = session.take_flow_reports(FLOW_REPORTS_MAX, FLOW_REPORTS_BYTES_MAX);
            if !flows.is_empty() {
                let first = self.shared.uplink.first().unwrap_or(0);
                if !self.shared.services.tell(first, FlowReports { flows }) {
                    self.shared.counters.reports_dropped.increment();
                }
            }
        }
    }

    /// Goes on with another list of relays, 1 to 64, the best first. Attachments to others stay until they end.
    pub fn give_relays(&self, relays: &[SocketAddr]) {
        self.shared.relays().give(relays, Instant::now());
        self.shared.changed.notify_waiters();
    }

    /// Learns of other relays beside those that the edge was given, and has it move to nearer ones; see [`Discovery`].
    /// To be called once, on the tokio runtime.
    pub fn discover(&self, discovery: Discovery) {
        tokio::spawn(discover::run(Arc::clone(&self.shared), discovery));
    }

    /// Tells of limits of the tenant's quota beyond which frames are dropped, for people, each time that a relay says so.
    pub fn limits(&self) -> watch::Receiver<Option<String>> {
        self.shared.limits.subscribe()
    }

    /// The network has changed, or the machine woke up: relays that failed are tried again at once.
    pub fn network_changed(&self) {
        self.shared.relays().forgive(Instant::now());
        self.shared.changed.notify_waiters();
        self.shared.networks.send_modify(|count| *count += 1);
        self.shared.refresh();
    }

    /// Ends the attachments, and waits until the relays have been told.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        self.shared.uplink.close();
        let places =
            std::mem::take(&mut *self.places.lock().unwrap_or_else(PoisonError::into_inner));
        for place in places {
            // A panic there has been printed already.
            let _ = place.await;
        }
        self.shared.transport.finish().await;
    }
}

impl std::fmt::Debug for Attachments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachments").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl<T: Transport> Shared<T> {
    fn relays(&self) -> MutexGuard<'_, Relays> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attached(
        &self,
        place: usize,
        (remote, transport): (SocketAddr, TransportKind),
        attached: &Attached,
        address: Address,
    ) {
        self.counters.attached.increment();
        if transport == TransportKind::Tcp {
            self.counters.attached_tcp.increment();
        }
        self.relays().succeeded(place);
        // The other place now knows which relay not to dial.
        self.changed.notify_waiters();
        let (relay, tenant) = (address.relay, attached.tenant);
        tracing::info!(%remote, %relay, %address, tenant, seen = attached.seen_address, transport = transport.name(), "attached");
        let status = AttachmentStatus {
            remote,
            transport,
            relay,
            address,
            state: State::Up,
            rtt: None,
            age: Duration::ZERO,
            is_draining: false,
        };
        let mut standing = self.standing();
        standing.places[place] = Some(Place { since: Instant::now(), status });
        standing.last_error = None;
    }

    fn judged(&self, place: usize, state: State, rtt: Option<Duration>) {
        if let Some(place) = &mut self.standing().places[place] {
            place.status.state = state;
            place.status.rtt = rtt;
        }
    }

    /// Whether a place should move to a nearer relay: only while the other is attached and stays.
    fn is_bettered(&self, place: usize, rtt: Option<Duration>, now: Instant) -> bool {
        let age = {
            let standing = self.standing();
            let (own, other) = (&standing.places[place], &standing.places[1 - place]);
            let (Some(own), Some(other)) = (own, other) else { return false };
            if other.status.is_draining || other.status.state != State::Up {
                return false;
            }
            now.saturating_duration_since(own.since)
        };
        rtt.is_some_and(|rtt| self.relays().is_bettered(place, rtt, age, now))
    }

    fn draining(&self, place: usize, line: LineId, is_draining: bool) {
        self.uplink.drain(line, is_draining, Instant::now());
        if let Some(place) = &mut self.standing().places[place] {
            place.status.is_draining = is_draining;
        }
    }

    fn detached(&self, place: usize) {
        self.counters.lost.increment();
        self.standing().places[place] = None;
    }

    /// Gives frames to the ends.
    fn deliver(&self, frames: Vec<Inbound>) {
        let count = frames.len() as u64;
        self.counters.frames_received.add(count);
        if let Err(mpsc::error::TrySendError::Full(_)) = self.delivered.try_send(frames) {
            self.counters.received_dropped.add(count);
        }
    }

    /// A relay drops frames that are beyond the tenant's quota.
    fn limited(&self, remote: SocketAddr, limited: Limited) {
        self.counters.limited.increment();
        let now = Instant::now();
        let is_news = self.standing().limits.note(&limited, now);
        if is_news {
            tracing::warn!(%remote, reason = limited.reason, "frames are dropped");
        }
        self.limits.send_replace(Some(limited.reason));
    }

    /// Takes a new socket, if the last one is not that new.
    fn refresh(&self) {
        let now = Instant::now();
        let mut standing = self.standing();
        let recent = |at: Instant| now.saturating_duration_since(at) < REFRESH_MIN;
        if standing.refreshed.is_some_and(recent) {
            return;
        }
        standing.refreshed = Some(now);
        drop(standing);
        if self.transport.refresh() {
            self.counters.rebinds.increment();
            tracing::info!("nothing comes through; a new socket");
        }
    }

    /// What ended an attachment, or kept it from coming about.
    fn failed(&self, place: usize, remote: SocketAddr, error: &AttachError) {
        let now = Instant::now();
        match error {
            AttachError::Same(_) => return self.relays().passed_over(place),
            AttachError::Stopped => return,
            AttachError::Refused { .. } => {
                self.counters.refused.increment();
                tracing::warn!(%remote, %error, "a relay refuses this edge");
            }
            AttachError::Replaced => tracing::warn!(%remote, %error, "attachment lost"),
            AttachError::Moved => {
                tracing::info!(%remote, "left for a nearer relay");
                self.relays().left(place, now);
                return self.changed.notify_waiters();
            }
            AttachError::Closed(_) | AttachError::Silent | AttachError::Drained => {
                tracing::info!(%remote, %error, "attachment lost");
            }
            AttachError::Connect(_) | AttachError::TimedOut | AttachError::Control(_) => {
                tracing::debug!(%remote, %error, "not attached");
            }
        }
        self.counters.failed.increment();
        self.relays().failed(place, error.refused(), fastrand::f64(), now);
        self.standing().last_error = Some(format!("{remote}: {error}"));
        self.changed.notify_waiters();
    }
}

/// Keeps one place attached until the edge stops.
async fn keep_attached<T: Transport>(shared: Arc<Shared<T>>, place: usize) {
    let mut token = shared.token.clone();
    while !shared.stop.is_cancelled() {
        // Made before looking, so that no change is missed.
        let changed = shared.changed.notified();
        let now = Instant::now();
        let next = shared.relays().next(place, now);
        let until = match next {
            Next::Dial(remote) => {
                let error = Attachment::run(&shared, place, remote).await;
                shared.failed(place, remote, &error);
                continue;
            }
            Next::Wait(until) => until,
            Next::Nowhere => now + LOOK_AGAIN,
        };
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = changed => {}
            Ok(()) = token.changed() => shared.relays().forgive(Instant::now()),
            () = shared.stop.cancelled() => {}
        }
    }
    shared.uplink.close();
}
