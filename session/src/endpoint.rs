//! The endpoint: sessions on demand, requests out and in.
//!
//! Identity: a far end is dialled by the name of its relay, so that TLS itself takes no other relay's
//! certificate; and on both sides the certificate must be that of the relay in the synthetic address which
//! the packets came from. A session that fails this is closed before anything is asked on it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use overway_pki::{Credentials, Identity, Role};
use overway_wire::{Address, AttachmentId, Class, FlowId, PolicyId, Redundancy, RelayId};
use quinn::{RecvStream, SendStream, VarInt};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::address;
use crate::config::{SessionConfig, SessionError};
use crate::fabric::FabricPort;
use crate::flow::{ACCEPTED, Flow, FlowTable};
use crate::open::{self, Incoming, OpenError, Request, Stream};
use crate::pool::{Pool, Session};
use crate::socket::{FabricSocket, Restart};
use crate::stats::{Counters, Stats};
use crate::terms::Terms;
use crate::transport;
use crate::wanted::Wanted;

mod serve;

/// Requests that wait to be accepted at most; the far ends of further ones wait in QUIC's flow control.
const WAITING_MAX: usize = 1_024;
const CODE_CLOSED: VarInt = VarInt::from_u32(0);
const CODE_IDENTITY: VarInt = VarInt::from_u32(1);
const CODE_RESTARTED: VarInt = VarInt::from_u32(2);
/// Between two looks at who is to be hailed; four fit in the second that finds a far end to have ended.
const HAIL_EVERY: Duration = Duration::from_millis(250);
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
    local: Address,
    credentials: Arc<Credentials>,
    endpoint: quinn::Endpoint,
    socket: Arc<FabricSocket>,
    flows: Arc<FlowTable>,
    pool: Pool,
    next_flow: AtomicU32,
    counters: Arc<Counters>,
    waiting: mpsc::Sender<Incoming>,
    accepting: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
    closed: tokio::sync::watch::Sender<bool>,
}

impl SessionEndpoint {
    /// Makes the endpoint of a port, and starts its tasks on the current tokio runtime.
    ///
    /// # Errors
    /// The certificate is not of the port's relay, or the system gives no randomness.
    pub fn new(
        config: SessionConfig,
        port: FabricPort,
        credentials: Arc<Credentials>,
    ) -> Result<Self, SessionError> {
        let &Identity { role, id, .. } = credentials.identity();
        let (certificate, local) = (RelayId(id), port.local);
        if role != Role::Relay {
            return Err(SessionError::Role(role));
        }
        if certificate != local.relay {
            return Err(SessionError::OtherRelay { certificate, port: local.relay });
        }
        let counters = Arc::new(Counters::default());
        let flows = Arc::new(FlowTable::new(Arc::clone(&port.sender), Arc::clone(&counters)));
        let (socket, restarts) = FabricSocket::new(
            port,
            FlowId(random_u32()?),
            Arc::clone(&flows),
            Arc::clone(&counters),
        );
        let runtime = quinn::default_runtime()
            .ok_or_else(|| std::io::Error::other("not within a tokio runtime"))?;
        let mut endpoint = quinn::Endpoint::new_with_abstract_socket(
            transport::endpoint_config(),
            Some(transport::server_config(&credentials)?),
            Arc::<FabricSocket>::clone(&socket),
            runtime,
        )?;
        endpoint.set_default_client_config(transport::client_config(&credentials)?);
        let (waiting, accepting) = mpsc::channel(WAITING_MAX);
        let inner = Arc::new(Inner {
            config,
            local,
            credentials,
            endpoint,
            socket,
            flows,
            pool: Pool::default(),
            next_flow: AtomicU32::new(random_u32()?),
            counters,
            waiting,
            accepting: tokio::sync::Mutex::new(accepting),
            closed: tokio::sync::watch::Sender::new(false),
        });
        inner.spawn_tasks(restarts);
        Ok(Self { inner })
    }

    /// The endpoint's own address.
    pub fn local(&self) -> Address {
        self.inner.local
    }

    /// Opens a stream to a service at a far relay, on terms of which a [`Class`] alone means no policy.
    ///
    /// # Errors
    /// [`OpenError::Refused`] by the far end; otherwise it could not be reached, or not in time.
    pub async fn open_stream(
        &self,
        far: RelayId,
        terms: impl Into<Terms>,
        wanted: impl Into<Wanted<'_>>,
    ) -> Result<Stream, OpenError> {
        let request = Request::stream(wanted.into());
        let opened = self.inner.open(far, terms.into(), request, |_, _| Ok(())).await?;
        self.inner.counters.streams.increment();
        Ok(Stream { send: opened.send, recv: opened.recv })
    }

    /// Opens a flow of realtime datagrams to a service at a far relay, under a policy. The redundancy is that of
    /// both directions.
    ///
    /// # Errors
    /// As [`Self::open_stream`].
    pub async fn open_flow(
        &self,
        far: RelayId,
        policy: PolicyId,
        redundancy: Redundancy,
        wanted: impl Into<Wanted<'_>>,
    ) -> Result<Flow, OpenError> {
        let inner = &self.inner;
        let id = FlowId(inner.next_flow.fetch_add(1, Ordering::Relaxed) & !ACCEPTED);
        let enter =
            |session: &Session, _: &Request| inner.enter_flow(session, id, redundancy, true);
        let request = Request::flow(wanted.into(), id, redundancy);
        let terms = Terms::new(Class::Realtime, policy);
        let opened = inner.open(far, terms, request, enter).await?;
        inner.counters.flows.increment();
        Ok(opened.prepared.run(opened.send, opened.recv))
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

    /// Closes every session with a relay, which was revoked.
    pub fn disconnect(&self, far: RelayId) {
        for session in self.inner.pool.with(far) {
            session.connection.close(CODE_IDENTITY, b"revoked");
        }
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
        f.debug_struct("SessionEndpoint").field("local", &self.inner.local).finish_non_exhaustive()
    }
}

/// An answered request of this end.
struct Opened<T> {
    prepared: T,
    send: SendStream,
    recv: RecvStream,
}

impl Inner {
    fn spawn_tasks(self: &Arc<Self>, restarts: mpsc::Receiver<Restart>) {
        let socket = Arc::clone(&self.socket);
        self.spawn(async move { socket.flush().await });
        self.spawn(Arc::clone(self).accept_connections());
        self.spawn(Arc::clone(self).hail_far_ends());
        self.spawn(Arc::clone(self).watch_restarts(restarts));
    }

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

    /// Asks a far end for something, within the time limit. A session that turns out to be dead is replaced
    /// once: the far end cannot have answered on it.
    async fn open<T>(
        self: &Arc<Self>,
        far: RelayId,
        terms: Terms,
        request: Request,
        prepare: impl Fn(&Session, &Request) -> Result<T, OpenError>,
    ) -> Result<Opened<T>, OpenError> {
        if !request.is_sound() {
            return Err(OpenError::Service);
        }
        let deadline = tokio::time::Instant::now() + self.config.open_timeout;
        let mut fresh = false;
        loop {
            let session = match self.pool.find(far, terms) {
                Some(session) => session,
                None => {
                    fresh = true;
                    let dialled = tokio::time::timeout_at(deadline, self.dial(far, terms)).await;
                    dialled.map_err(|_| OpenError::TimedOut)??
                }
            };
            let heard = session.connection.stats().udp_rx.datagrams;
            let asked = self.ask(&session, &request, &prepare);
            match tokio::time::timeout_at(deadline, asked).await {
                Ok(Err(OpenError::Session(error))) if !fresh => {
                    tracing::debug!(%far, %terms, %error, "session was dead; dialling anew");
                    self.pool.remove(&session);
                }
                Ok(result) => {
                    if let Err(OpenError::Refused(_)) = result {
                        self.counters.requests_refused.increment();
                    }
                    return result;
                }
                Err(_) => {
                    if session.connection.stats().udp_rx.datagrams == heard {
                        self.pool.retire(&session);
                    }
                    return Err(OpenError::TimedOut);
                }
            }
        }
    }

    async fn ask<T>(
        &self,
        session: &Session,
        request: &Request,
        prepare: &impl Fn(&Session, &Request) -> Result<T, OpenError>,
    ) -> Result<Opened<T>, OpenError> {
        let (mut send, mut recv) = session.connection.open_bi().await?;
        let prepared = prepare(session, request)?;
        open::ask(&mut send, &mut recv, request).await?;
        Ok(Opened { prepared, send, recv })
    }

    /// Dials a far relay, unless somebody else just has.
    async fn dial(self: &Arc<Self>, far: RelayId, terms: Terms) -> Result<Session, OpenError> {
        let dialling = self.pool.dialling(far, terms);
        let _one_at_a_time = dialling.lock().await;
        if let Some(session) = self.pool.find(far, terms) {
            return Ok(session);
        }
        let address = Address::new(far, AttachmentId::GATEWAY);
        let identity = Identity::new(Role::Relay, far.0, &self.credentials.identity().mesh)
            .map_err(|_| OpenError::Identity)?;
        let connecting = self
            .endpoint
            .connect(address::to_socket(address, terms), &identity.server_name())
            .map_err(|_| OpenError::Closed)?;
        let connection = timeout(self.config.handshake_timeout, connecting)
            .await
            .map_err(|_| OpenError::TimedOut)??;
        self.establish(connection, address, terms, true)
    }
}

fn random_u32() -> Result<u32, SessionError> {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SessionError::NoRandomness)?;
    Ok(u32::from_be_bytes(bytes))
}
