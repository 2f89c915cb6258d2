//! The endpoint: sessions on demand, requests out and in.
//!
//! Identity: a relay's gateway is dialled by the name of its relay, so that TLS itself takes no other relay's
//! certificate; and on both sides the certificate must be that of the relay in the synthetic address which
//! the packets came from. A session that fails this is closed before anything is asked on it. Edges have keys and
//! tokens instead: see [`greet`].

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use overway_pki::{Credentials, Identity, Role};
use overway_wire::quality::FlowReport;
use overway_wire::{Address, Class, FlowId, PolicyId, RelayId, Whereabouts};
use quinn::VarInt;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, timeout};

use crate::candidates::Candidates;
use crate::config::{SessionConfig, SessionError};
use crate::edge::{EdgeIdentity, EdgePort, LocalEdge, Placed};
use crate::fabric::{FabricPort, FabricSender, Inbound};
use crate::far::FarEnd;
use crate::felt::{Opener, Reports, Streams};
use crate::flow::{Flow, FlowTable, FlowTerms};
use crate::names::Names;
use crate::open::{self, Incoming, OpenError, Request, Stream};
use crate::pool::{Pool, Session};
use crate::socket::{FabricSocket, Naming, Restart, Told};
use crate::stats::{Counters, Stats};
use crate::terms::{self, Terms};
use crate::transport;
use crate::wanted::Wanted;

mod dial;
mod greet;
mod ids;
mod order;
mod seek;
mod serve;

use dial::Opened;
use ids::FlowIds;

/// Requests that wait to be accepted at most; the far ends of further ones wait in QUIC's flow control.
const WAITING_MAX: usize = 1_024;
const CODE_CLOSED: VarInt = VarInt::from_u32(0);
const CODE_IDENTITY: VarInt = VarInt::from_u32(1);
const CODE_RESTARTED: VarInt = VarInt::from_u32(2);
/// An edge's token counts for nothing, or no more; the reason says why.
const CODE_TOKEN: VarInt = VarInt::from_u32(4);
/// The other end serves no more, as far as this one hears; the reason says what was heard.
const CODE_GIVEN_UP: VarInt = VarInt::from_u32(5);
/// Between two looks at who is to be hailed; four fit in the second that finds a far end to have ended.
const HAIL_EVERY: Duration = Duration::from_millis(250);
/// Between two looks at which names are idle; they are for ten seconds before they go.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// After closing, how long is waited for the far ends to be told.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// One end of sessions, on one port of the fabric. Clones are the same endpoint. It lives until
/// [`Self::close`], or until the fabric closes the port.
#[derive(Clone)]
pub struct SessionEndpoint {
    inner: Arc<Inner>,
}

struct Inner {
    config: SessionConfig,
    local: Local,
    endpoint: quinn::Endpoint,
    server: quinn::ServerConfig,
    socket: Arc<FabricSocket>,
    flows: Arc<FlowTable>,
    streams: Arc<Streams>,
    pool: Pool,
    candidates: Candidates,
    flow_ids: FlowIds,
    counters: Arc<Counters>,
    waiting: mpsc::Sender<Incoming>,
    accepting: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
    unattached: tokio::sync::Mutex<mpsc::Receiver<Address>>,
    closed: watch::Sender<bool>,
    /// When the fabric last said that it drops frames of this end, and why.
    limited: Mutex<Option<(Instant, String)>>,
}

/// Which end this is.
enum Local {
    Relay { address: Address, credentials: Arc<Credentials>, client: quinn::ClientConfig },
    Edge(LocalEdge),
}

/// What every end has of the fabric.
type Port = (Arc<dyn FabricSender>, mpsc::Receiver<Vec<Inbound>>);

/// quinn's settings.
struct Quic {
    endpoint: quinn::EndpointConfig,
    server: quinn::ServerConfig,
}

impl SessionEndpoint {
    /// Makes the endpoint of a relay's port, and starts its tasks on the current tokio runtime.
    ///
    /// # Errors
    /// The certificate is not of the port's relay, or the system gives no randomness.
    pub fn new(
        config: SessionConfig,
        port: FabricPort,
        credentials: Arc<Credentials>,
    ) -> Result<Self, SessionError> {
        let &Identity { role, id, .. } = credentials.identity();
        let (certificate, address) = (RelayId(id), port.local);
        if role != Role::Relay {
            return Err(SessionError::Role(role));
        }
        if certificate != address.relay {
            return Err(SessionError::OtherRelay { certificate, port: address.relay });
        }
        let quic = Quic {
            endpoint: transport::endpoint_config(None),
            server: transport::server_config(&credentials)?,
        };
        let client = transport::client_config(&credentials)?;
        let local = Local::Relay { address, credentials, client };
        let naming = Naming::ByAddress(terms::incarnation(FlowId(u32::from_be_bytes(random()?))));
        let (endpoint, restarts, _) =
            Self::make(config, (port.sender, port.receiver), local, naming, quic)?;
        let inner = &endpoint.inner;
        inner.spawn(Arc::clone(inner).hail_far_ends());
        inner.spawn(Arc::clone(inner).watch_restarts(restarts));
        Ok(endpoint)
    }

    /// Makes the endpoint of an edge, and starts its tasks on the current tokio runtime. It opens to and accepts from
    /// edges of its tenant only. Its frames travel under the policy of the tenant, which relays write: that of
    /// [`Terms`] counts for nothing.
    ///
    /// # Errors
    /// The system gives no randomness, or the endpoint cannot start.
    pub fn for_edge(
        config: SessionConfig,
        port: EdgePort,
        identity: EdgeIdentity,
    ) -> Result<Self, SessionError> {
        let EdgePort { sender, receiver, whereabouts } = port;
        let (placed, places) =
            watch::channel(Placed { number: 0, whereabouts: *whereabouts.borrow() });
        let (edge, reset_key) = LocalEdge::new(identity, places, u64::from_be_bytes(random()?));
        let quic = Quic {
            endpoint: transport::endpoint_config(Some(reset_key)),
            server: transport::edge_server_config(&edge.certified)?,
        };
        let names = Arc::clone(&edge.names);
        let naming = Naming::ByName(Arc::clone(&names));
        let (endpoint, _, sought) =
            Self::make(config, (sender, receiver), Local::Edge(edge), naming, quic)?;
        let inner = &endpoint.inner;
        inner.spawn(Arc::clone(inner).watch_sought(sought));
        inner.spawn(number_changes(whereabouts, placed));
        inner.spawn(sweep(names));
        Ok(endpoint)
    }

    fn make(
        config: SessionConfig,
        port: Port,
        local: Local,
        naming: Naming,
        quic: Quic,
    ) -> Result<(Self, mpsc::Receiver<Restart>, mpsc::Receiver<Address>), SessionError> {
        let counters = Arc::new(Counters::default());
        let edges = matches!(local, Local::Edge(_));
        let flows = Arc::new(FlowTable::new(Arc::clone(&port.0), Arc::clone(&counters), edges));
        let (socket, Told { restarts, unattached, sought }) = FabricSocket::new(
            port,
            local.address(),
            naming,
            Arc::clone(&flows),
            Arc::clone(&counters),
        );
        let runtime = quinn::default_runtime()
            .ok_or_else(|| std::io::Error::other("not within a tokio runtime"))?;
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            quic.endpoint,
            Some(quic.server.clone()),
            Arc::<FabricSocket>::clone(&socket),
            runtime,
        )?;
        let start = u32::from_be_bytes(random()?);
        let flow_ids = match &local {
            Local::Relay { .. } => FlowIds::in_order(start),
            Local::Edge(_) => FlowIds::hidden(start, &random()?),
        };
        let (waiting, accepting) = mpsc::channel(WAITING_MAX);
        let inner = Arc::new(Inner {
            config,
            local,
            endpoint,
            server: quic.server,
            socket: Arc::clone(&socket),
            flows,
            streams: Arc::default(),
            pool: Pool::default(),
            candidates: Candidates::default(),
            flow_ids,
            counters,
            waiting,
            accepting: tokio::sync::Mutex::new(accepting),
            unattached: tokio::sync::Mutex::new(unattached),
            closed: watch::Sender::new(false),
            limited: Mutex::default(),
        });
        inner.spawn(async move { socket.flush().await });
        let streams = Arc::clone(&inner.streams);
        inner.spawn(async move { streams.look().await });
        inner.spawn(Arc::clone(&inner).accept_connections());
        Ok((Self { inner }, restarts, sought))
    }

    /// The endpoint's own address; an edge's first one now, and at relay 0 while it is attached nowhere.
    pub fn local(&self) -> Address {
        self.inner.local.address()
    }

    /// Opens a stream to a service at a far end, on terms of which a [`Class`] alone means no policy.
    ///
    /// # Errors
    /// [`OpenError::Refused`] by the far end; otherwise it could not be reached, or not in time.
    pub async fn open_stream(
        &self,
        far: impl Into<FarEnd>,
        terms: impl Into<Terms>,
        wanted: impl Into<Wanted<'_>>,
    ) -> Result<Stream, OpenError> {
        let wanted = wanted.into();
        let request = Request::stream(wanted);
        let opened =
            self.inner.open(far.into(), terms.into(), wanted, request, |_, _| Ok(())).await?;
        self.inner.counters.streams.increment();
        let measured = self.inner.streams.enter(&opened.session, wanted.service, Opener::Here);
        let Opened { send, recv, peer, .. } = opened;
        Ok(Stream { send, recv, peer, measured })
    }

    /// Opens a flow of realtime datagrams to a service at a far end, under a policy. The terms, of which a
    /// [`Redundancy`](overway_wire::Redundancy) alone means the usual deadline, are those of both directions.
    ///
    /// # Errors
    /// As [`Self::open_stream`].
    pub async fn open_flow(
        &self,
        far: impl Into<FarEnd>,
        policy: PolicyId,
        manner: impl Into<FlowTerms>,
        wanted: impl Into<Wanted<'_>>,
    ) -> Result<Flow, OpenError> {
        let inner = &self.inner;
        let (manner, wanted) = (manner.into().sound(), wanted.into());
        let id = inner.flow_ids.draw();
        // Whether the far end knows of stamps its answer says.
        let enter = |session: &Session, request: &Request| {
            inner.enter_flow(session, id, &request.service, (manner, false), true)
        };
        let request = Request::flow(wanted, id, manner);
        let terms = Terms::new(Class::Realtime, policy);
        let opened = inner.open(far.into(), terms, wanted, request, enter).await?;
        inner.counters.flows.increment();
        opened.prepared.set_stamps(opened.stamps);
        Ok(opened.prepared.run(opened.send, opened.recv, opened.peer))
    }

    /// What `open` gives for the first far end at which it succeeds. They are tried in their order, three at most, but
    /// those last that did not answer lately; the next beside one that does not answer within 0.4 s, or of which
    /// nothing is heard in a good round trip where there is a session with it on these terms, which `open` has to use. Each
    /// failure is told. `None`: all failed, or there was none. `open` must send nothing that another may not be sent too.
    pub async fn first<T, F>(
        &self,
        terms: Terms,
        far_ends: Vec<FarEnd>,
        open: impl Fn(FarEnd) -> F,
        failed: impl FnMut(FarEnd, OpenError),
    ) -> Option<T>
    where
        F: Future<Output = Result<T, OpenError>>,
    {
        let terms = self.inner.local.terms(terms);
        let pulse = |far: FarEnd| self.inner.pool.find(far.party(), terms);
        self.inner.candidates.first(far_ends, pulse, open, failed).await
    }

    /// A far end does not answer, as somebody says: [`Self::first`] tries it last for five seconds, and goes on to the next
    /// at once where it waits for this one.
    pub fn shun(&self, far: FarEnd) {
        self.inner.candidates.shun(far.party(), tokio::time::Instant::now());
    }

    /// Whether a far end did not answer lately, as far as [`Self::first`] found or [`Self::shun`] was told.
    pub fn is_shunned(&self, far: FarEnd) -> bool {
        self.inner.candidates.is_shunned(far.party(), tokio::time::Instant::now())
    }

    /// The next request of a far end; `None` when the endpoint is closed. May be cancelled without losing
    /// one.
    pub async fn accept(&self) -> Option<Incoming> {
        let mut closed = self.inner.closed.subscribe();
        let mut accepting = self.inner.accepting.lock().await;
        tokio::select! {
            incoming = accepting.recv() => incoming,
            _ = closed.wait_for(|&closed| closed) => None,
        }
    }

    /// The edges with which there are sessions, and that are not attached, or do not answer, where the last frame for them
    /// sought them: the next of which a relay says so. They may come back, there or elsewhere. Cancelling loses none.
    pub async fn unattached(&self) -> Vec<FarEnd> {
        let mut unattached = self.inner.unattached.lock().await;
        loop {
            match unattached.recv().await.map(|address| self.inner.pool.at(address)) {
                Some(far_ends) if far_ends.is_empty() => {}
                Some(far_ends) => return far_ends,
                None => std::future::pending().await,
            }
        }
    }

    /// Closes every session with a far end, which was revoked.
    pub fn disconnect(&self, far: impl Into<FarEnd>) {
        for session in self.inner.pool.with(far.into().party()) {
            session.connection.close(CODE_IDENTITY, b"revoked");
        }
    }

    /// What the ends here have felt since they were last asked, of at most `count_max` flows and sessions, and about
    /// `bytes_max` bytes as a message; those that were left out longest come first. Of what nothing was felt there is no
    /// report.
    pub fn take_flow_reports(&self, count_max: usize, bytes_max: usize) -> Vec<FlowReport> {
        let now = Instant::now();
        let mut out = Reports::new(count_max / 2, bytes_max);
        // Flows leave room for streams, and take what these do not use.
        self.inner.flows.take_reports(&mut out, now);
        out.count_max = count_max;
        self.inner.streams.take_reports(&mut out, now);
        self.inner.flows.take_reports(&mut out, now);
        out.taken
    }

    /// Closes every session with a far end that serves no more: what is open to it fails at once, for the reason given.
    /// Says how many there were.
    pub fn give_up(&self, far: impl Into<FarEnd>, reason: &str) -> usize {
        let sessions = self.inner.pool.with(far.into().party());
        for session in &sessions {
            session.connection.close(CODE_GIVEN_UP, open::shortened(reason).as_bytes());
        }
        sessions.len()
    }

    /// Ends what was opened here to a service at a far end that does not serve it any more: flows at once, streams by
    /// [`GivenUp`](crate::GivenUp). Sessions stay, with what else is open. Says how many streams and flows there were.
    pub fn give_up_service(&self, far: impl Into<FarEnd>, service: &str) -> usize {
        let party = far.into().party();
        self.inner.streams.give_up(party, service) + self.inner.flows.give_up(party, service)
    }

    /// Whether a stream or flow of a service is open here.
    pub fn is_open(&self, service: &str) -> bool {
        self.inner.streams.has(service) || self.inner.flows.has(service)
    }

    /// The fabric drops frames of this end for the reason given: what cannot be opened meanwhile fails with it.
    pub fn note_limit(&self, reason: &str) {
        let reason = open::shortened(reason).to_owned();
        let mut limited = self.inner.limited.lock().unwrap_or_else(PoisonError::into_inner);
        *limited = Some((Instant::now(), reason));
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        self.inner.counters.snapshot()
    }

    /// Ends every session, flow and task, and waits a moment for the far ends to be told.
    pub async fn close(&self) {
        self.inner.endpoint.close(CODE_CLOSED, b"closed");
        // Late far ends find out by their time-out.
        let _ = timeout(CLOSE_WAIT, self.inner.endpoint.wait_idle()).await;
        self.inner.closed.send_replace(true);
    }
}

impl fmt::Debug for SessionEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionEndpoint").field("local", &self.local()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Runs a task until it or the endpoint ends.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut closed = self.closed.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                _ = closed.wait_for(|&closed| closed) => {}
            }
        });
    }
}

impl Local {
    /// The terms on which its sessions travel: those of an edge under the policy of its tenant, which relays write.
    fn terms(&self, terms: Terms) -> Terms {
        match self {
            Self::Relay { .. } => terms,
            Self::Edge(_) => Terms { policy: PolicyId::default(), ..terms },
        }
    }

    fn address(&self) -> Address {
        match self {
            Self::Relay { address, .. } => *address,
            Self::Edge(edge) => {
                edge.places.borrow().whereabouts.map_or(Address::default(), |at| at.first)
            }
        }
    }
}

/// Counts the changes of where an edge is attached, for its far ends to know which is the last.
async fn number_changes(
    mut whereabouts: watch::Receiver<Option<Whereabouts>>,
    placed: watch::Sender<Placed>,
) {
    while whereabouts.changed().await.is_ok() {
        let now = *whereabouts.borrow_and_update();
        placed.send_if_modified(|last| {
            let changed = last.whereabouts != now;
            if changed {
                *last = Placed { number: last.number + 1, whereabouts: now };
            }
            changed
        });
    }
}

/// Gives up names that nobody needs.
async fn sweep(names: Arc<Names>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        names.sweep(Instant::now());
    }
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], SessionError> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SessionError::NoRandomness)?;
    Ok(bytes)
}
