//! An edge as an application sees it: services by name, streams and flows.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use overway_session::{
    EdgeIdentity, FarEnd, Flow, FlowTerms, OpenError as SessionError, SessionConfig,
    SessionEndpoint, Terms, Wanted,
};
use overway_tenant::{EdgeId, EdgeKey, TenantKeys};
use overway_wire::{Class, PolicyId, Redundancy};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::directory::{Asker, Directory};
use crate::services::ResolveError;
use crate::token::own_claims;
use crate::{AttachConfig, Attachments, Discovery, StartError, Status, TcpAccess};

mod error;
mod offer;
mod stream;

pub use error::{ConnectError, OfferError, OpenError};
pub use offer::{Incoming, IncomingFlow, IncomingStream, Offer, OfferOptions};
pub use overway_session::OpenError as AcceptError;
pub use stream::{RecvHalf, SendHalf, Stream};

use offer::Offers;

/// How long [`Edge::connect`] waits for a relay: three attempts at each of the first few.
const CONNECT_MAX: Duration = Duration::from_secs(15);

/// Who an edge is, and where it attaches.
#[derive(Clone)]
pub struct EdgeConfig {
    /// Access relays, the best first, 1 to [`RELAYS_MAX`](crate::RELAYS_MAX).
    pub relays: Vec<SocketAddr>,
    /// Where to find them if UDP is blocked; [`Self::new`]: at TCP port 443.
    pub tcp: TcpAccess,
    /// The mesh's CA certificate, PEM, from the mesh's operator.
    pub ca_pem: Vec<u8>,
    /// The edge's own key, made once and kept: it is the edge's identity.
    pub key: Arc<EdgeKey>,
    /// The edge's token, from the tenant's backend. What is sent through the channel later replaces it, and standing
    /// streams and flows go on.
    pub token: watch::Receiver<String>,
    /// The tenant's public keys, by which other edges' tokens are judged; likewise.
    pub tenant_keys: watch::Receiver<Arc<TenantKeys>>,
    /// Whether a better endpoint of a service that is well again (a primary after its backup served) gets what is opened
    /// from the one in use; true in [`Self::new`].
    pub handback: bool,
}

impl EdgeConfig {
    /// The configuration of an edge whose token and keys stay as they are: for one that lives no longer than its token.
    pub fn new(
        relays: Vec<SocketAddr>,
        ca_pem: Vec<u8>,
        key: EdgeKey,
        token: String,
        tenant_keys: TenantKeys,
    ) -> Self {
        let token = watch::Sender::new(token).subscribe();
        let tenant_keys = watch::Sender::new(Arc::new(tenant_keys)).subscribe();
        let tcp = TcpAccess::default();
        Self { relays, tcp, ca_pem, key: Arc::new(key), token, tenant_keys, handback: true }
    }
}

impl fmt::Debug for EdgeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { relays, key, .. } = self;
        f.debug_struct("EdgeConfig")
            .field("relays", relays)
            .field("key", key)
            .finish_non_exhaustive()
    }
}

/// What a stream asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// What its frames ask of the mesh; [`Class::Interactive`] unless said. The token must allow it.
    pub class: Class,
    /// How much of it goes more than once, both ways; of bulk nothing does.
    pub redundancy: Redundancy,
    /// The only far end that will do; any that the tenant lets offer the service unless said.
    pub peer: Option<Required>,
}

/// What a flow of datagrams asks for. Its class is always [`Class::Realtime`], which the token must allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowOptions {
    /// How long a datagram is worth carrying, both ways, 1 ms to 10 s: what would come later is dropped on the way.
    pub deadline: Duration,
    /// How much of it goes more than once.
    pub redundancy: Redundancy,
    /// The only far end that will do.
    pub peer: Option<Required>,
}

impl Default for FlowOptions {
    fn default() -> Self {
        let FlowTerms { redundancy, deadline } = Redundancy::default().into();
        Self { deadline, redundancy, peer: None }
    }
}

/// Who the far end has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Required {
    /// The edge with this key.
    Id(EdgeId),
    /// An edge to which the tenant has given this name, in the claim `sub` of its token.
    Name(String),
}

impl fmt::Display for Required {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "the edge {id}"),
            Self::Name(name) => write!(f, "an edge named \"{name}\""),
        }
    }
}

/// An end outside the mesh: attached to two access relays, with streams and flows to services of its tenant. Clones are
/// the same edge. When the last one is dropped, and every [`Offer`], the edge ends at once; [`Self::close`] is the gentle way.
///
/// Everything is done on the tokio runtime on which the edge was started.
#[derive(Clone)]
pub struct Edge {
    inner: Arc<Inner>,
}

struct Inner {
    config: EdgeConfig,
    attachments: Attachments,
    session: SessionEndpoint,
    directory: Arc<Directory<Asker>>,
    offers: Offers,
    stop: CancellationToken,
    /// Ends the tasks with the last clone.
    _stop: DropGuard,
}

impl Edge {
    /// Begins to attach, and returns at once. Whatever fails from then on is tried again for as long as the edge lives;
    /// [`Self::status`] says what.
    ///
    /// # Errors
    /// The configuration cannot work: the token does not count or is another edge's, there is no relay to dial, or the CA
    /// is none.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(config: EdgeConfig) -> Result<Self, StartError> {
        let EdgeConfig { relays, tcp, ca_pem, key, token, tenant_keys, .. } = config.clone();
        let keys = Arc::clone(&tenant_keys.borrow());
        let claims = own_claims(&token.borrow(), &key, &keys)?;
        tracing::debug!(tenant = %claims.tenant, name = claims.name, edge = %key.id(), "edge");
        let attach =
            AttachConfig { relays, tcp, ca_pem, key: Arc::clone(&key), token: token.clone() };
        let (attachments, port) = Attachments::start(attach)?;
        let identity = EdgeIdentity { key, tenant: claims.tenant, token, keys: tenant_keys };
        let session = SessionEndpoint::for_edge(SessionConfig::default(), port, identity)?;
        let asker = Asker { attachments: attachments.clone(), session: session.clone() };
        let directory = Arc::new(Directory::new(asker, config.handback));
        let stop = CancellationToken::new();
        let keeping = (Arc::clone(&directory), stop.clone());
        tokio::spawn(async move { keeping.1.run_until_cancelled(keeping.0.keep()).await });
        let (felt, until) = ((attachments.clone(), session.clone()), stop.clone());
        tokio::spawn(async move { until.run_until_cancelled(felt.0.report_felt(&felt.1)).await });
        let limits = note_limits(attachments.limits(), session.clone());
        let over = stop.clone();
        tokio::spawn(async move { over.run_until_cancelled(limits).await });
        let inner = Inner {
            config,
            attachments,
            session,
            directory,
            offers: Offers::default(),
            _stop: stop.clone().drop_guard(),
            stop,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts, and waits until a relay has let the edge in.
    ///
    /// # Errors
    /// As [`Self::start`]; or no relay has within 15 s, and the edge has been closed again.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(config: EdgeConfig) -> Result<Self, ConnectError> {
        let edge = Self::start(config)?;
        if timeout(CONNECT_MAX, edge.attached()).await.is_ok() {
            return Ok(edge);
        }
        let why = edge.why_detached();
        edge.close().await;
        Err(ConnectError::Detached(why))
    }

    /// Waits until the edge is attached to at least one relay.
    pub async fn attached(&self) {
        let mut whereabouts = self.inner.attachments.whereabouts();
        // It fails only once the edge is gone, which is held here.
        let _ = whereabouts.wait_for(Option::is_some).await;
    }

    /// The edge's identity, wherever it is.
    pub fn id(&self) -> EdgeId {
        self.inner.config.key.id()
    }

    /// Opens a stream to the best endpoint of a service of the tenant: the nearest healthy one of the highest priority.
    /// If that does not answer within 0.4 s, or is silent for a good round trip where there is a session with it, the next is
    /// asked beside it; three at most.
    ///
    /// Dropping the future leaves nothing behind: a far end that has been asked sees the stream reset.
    ///
    /// # Errors
    /// Nobody that will do offers the service, or can be reached within 15 s; see [`OpenError`].
    pub async fn open_stream(
        &self,
        service: &str,
        options: StreamOptions,
    ) -> Result<Stream, OpenError> {
        let StreamOptions { class, redundancy, peer } = options;
        let session = &self.inner.session;
        let terms = Terms::from(class).with_redundancy(redundancy);
        let open = |far, wanted| session.open_stream(far, terms, wanted);
        self.open(service, peer.as_ref(), terms, open).await.map(Stream::new)
    }

    /// Opens a flow of datagrams to the best endpoint of a service of the tenant, as [`Self::open_stream`] does a stream.
    /// Datagrams are sealed end to end, arrive once or not at all, in any order; sending never waits.
    ///
    /// # Errors
    /// As [`Self::open_stream`].
    pub async fn open_flow(&self, service: &str, options: FlowOptions) -> Result<Flow, OpenError> {
        let FlowOptions { deadline, redundancy, peer } = options;
        let session = &self.inner.session;
        let manner = FlowTerms { redundancy, deadline };
        let open = |far, wanted| session.open_flow(far, PolicyId::default(), manner, wanted);
        self.open(service, peer.as_ref(), Class::Realtime.into(), open).await
    }

    async fn open<'a, T, F>(
        &self,
        service: &'a str,
        peer: Option<&'a Required>,
        terms: Terms,
        open: impl Fn(FarEnd, Wanted<'a>) -> F,
    ) -> Result<T, OpenError>
    where
        F: Future<Output = Result<T, SessionError>>,
    {
        let mut far_ends = match self.resolve(service).await {
            Ok(far_ends) => far_ends,
            Err(ResolveError::Forbidden) => return Err(OpenError::Forbidden(service.to_owned())),
            Err(ResolveError::Unanswered) => return Err(OpenError::Detached(self.why_detached())),
        };
        if far_ends.is_empty() {
            return Err(OpenError::NotOffered(service.to_owned()));
        }
        if let Some(&Required::Id(id)) = peer {
            far_ends.retain(|far| far.party() == overway_session::Party::Edge(id));
        }
        let name = match peer {
            Some(Required::Name(name)) => Some(name.as_str()),
            Some(Required::Id(_)) | None => None,
        };
        let wanted = Wanted { peer: name, ..Wanted::from(service) };
        let mut last = SessionError::Identity;
        let failed = |far: FarEnd, error: SessionError| {
            tracing::debug!(service, %far, %error, "not opened");
            last = error;
        };
        let session = &self.inner.session;
        let opened = session.first(terms, far_ends, |far| open(far, wanted), failed).await;
        opened.ok_or_else(|| OpenError::of(service, peer, last))
    }

    /// Offers a service to the tenant's other edges, until the [`Offer`] is dropped. The token must allow it (claim
    /// `offers`).
    ///
    /// # Errors
    /// The token does not allow it, or this edge offers it already, or too many.
    pub fn offer(&self, service: &str, options: OfferOptions) -> Result<Offer, OfferError> {
        let EdgeConfig { key, token, tenant_keys, .. } = &self.inner.config;
        let keys = Arc::clone(&tenant_keys.borrow());
        let claims = own_claims(&token.borrow(), key, &keys)?;
        if !claims.offers.allow(service) {
            return Err(OfferError::NotAllowed(service.to_owned()));
        }
        let (incoming, is_first) = self.inner.offers.insert(service, options)?;
        if is_first {
            tokio::spawn(dispatch(
                Arc::downgrade(&self.inner),
                self.inner.session.clone(),
                self.inner.stop.clone(),
            ));
        }
        self.announce();
        Ok(Offer::new(self.clone(), service.to_owned(), incoming))
    }

    /// Tells the relays what is offered now.
    fn announce(&self) {
        self.inner.attachments.offer(self.inner.offers.list());
    }

    /// What there is: the attachments, by which transport they go, and why the last attempt to attach failed.
    pub fn status(&self) -> Status {
        self.inner.attachments.status()
    }

    /// The network has changed, or the machine woke up: what may be gone is tried again at once. Streams stay. Without
    /// this call the edge finds out by itself, within seconds.
    pub fn network_changed(&self) {
        self.inner.attachments.network_changed();
    }

    /// Offers nothing more, ends every stream and flow, and detaches; waits at most two seconds for the others to be told.
    /// What was written and not yet acknowledged may be lost: end streams first ([`SendHalf::finish`]).
    pub async fn close(&self) {
        let Inner { attachments, session, offers, stop, .. } = &*self.inner;
        offers.clear();
        self.announce();
        stop.cancel();
        session.close().await;
        attachments.close().await;
    }

    /// Who offers a service, the best first: what relays said last, kept up to date while the service is in use.
    ///
    /// # Errors
    /// Nothing is known, and no relay answers or the edge may not use it.
    pub async fn resolve(&self, service: &str) -> Result<Vec<FarEnd>, ResolveError> {
        self.inner.directory.find(service).await
    }

    /// Keeps a service at hand from now on, used or not; false if there is no room for it (1,024 services).
    pub fn keep_at_hand(&self, service: &str) -> bool {
        self.inner.directory.fix(service)
    }

    /// Keeps a service at hand no longer than it is used.
    pub fn let_go(&self, service: &str) {
        self.inner.directory.release(service);
    }

    /// How many far ends offer each service that is at hand.
    pub fn services(&self) -> std::collections::BTreeMap<String, usize> {
        self.inner.directory.counts()
    }

    /// The sessions, for a gateway that takes what comes in by itself. It cannot go together with [`Self::offer`].
    pub fn session(&self) -> &SessionEndpoint {
        &self.inner.session
    }

    /// Learns of other relays beside those that it was given, and moves to nearer ones; see [`Discovery`], whose tenant is
    /// the edge's own unless said. To be called once.
    pub fn discover(&self, discovery: Discovery) {
        let own = || self.inner.config.tenant_keys.borrow().tenant.to_string();
        let tenant = Some(discovery.tenant.unwrap_or_else(own));
        self.inner.attachments.discover(Discovery { tenant, ..discovery });
    }

    /// The attachments, likewise: a gateway tells them what it offers.
    pub fn attachments(&self) -> &Attachments {
        &self.inner.attachments
    }

    fn why_detached(&self) -> String {
        let last = self.inner.attachments.status().last_error;
        last.unwrap_or_else(|| "none has answered yet".to_owned())
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Has what cannot be opened for want of quota say so, until the attachments are gone.
async fn note_limits(mut limits: watch::Receiver<Option<String>>, session: SessionEndpoint) {
    while limits.changed().await.is_ok() {
        if let Some(reason) = &*limits.borrow_and_update() {
            session.note_limit(reason);
        }
    }
}

/// Gives what far ends ask for to those who offer it, until the edge ends.
async fn dispatch(edge: Weak<Inner>, session: SessionEndpoint, stop: CancellationToken) {
    while let Some(Some(incoming)) = stop.run_until_cancelled(session.accept()).await {
        let Some(edge) = edge.upgrade() else { return };
        edge.offers.pass(incoming);
    }
}
