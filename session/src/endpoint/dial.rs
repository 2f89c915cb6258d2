//! The opening half: sessions on demand, and what is asked on them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use overway_pki::{Identity, Role};
use overway_telemetry::SPANS;
use overway_tenant::EdgeId;
use overway_wire::{Address, AttachmentId, RelayId, Whereabouts};
use quinn::{ClientConfig, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use super::{CODE_TOKEN, Inner, Local};
use crate::address;
use crate::edge::{EdgeSession, LocalEdge, tls};
use crate::far::{FarEnd, Party, Peer};
use crate::names::Far;
use crate::open::{self, OpenError, Request};
use crate::pool::Session;
use crate::terms::Terms;
use crate::transport;
use crate::wanted::Wanted;

/// The opener of a stream went away before the answer.
const CODE_ABANDONED: VarInt = VarInt::from_u32(1);

/// An answered request of this end.
pub(super) struct Opened<T> {
    pub(super) prepared: T,
    pub(super) session: Session,
    /// Whether the far end knows of stamps.
    pub(super) stamps: bool,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) peer: Option<Peer>,
}

/// A stream that was opened and is not answered. Where the opener goes away, the far end sees a reset and not the end of
/// a stream that was used.
struct Unanswered(Option<(SendStream, RecvStream)>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some((send, recv)) = &mut self.0 {
            // Both fail only if the far end has ended the stream.
            let _ = send.reset(CODE_ABANDONED);
            let _ = recv.stop(CODE_ABANDONED);
        }
    }
}

impl Inner {
    /// Asks a far end for something, within the time limit. Where nothing comes back because the fabric drops what this
    /// end sends, that is the error.
    pub(super) async fn open<T>(
        self: &Arc<Self>,
        far: FarEnd,
        terms: Terms,
        wanted: Wanted<'_>,
        request: Request,
        prepare: impl Fn(&Session, &Request) -> Result<T, OpenError>,
    ) -> Result<Opened<T>, OpenError> {
        let start = Instant::now();
        match self.open_in_time(far, terms, wanted, request, prepare).await {
            Err(OpenError::TimedOut) => Err(self.why_silent(start)),
            result => result,
        }
    }

    fn why_silent(&self, since: Instant) -> OpenError {
        let limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        match &*limited {
            Some((at, reason)) if *at >= since => OpenError::Limited(reason.clone()),
            Some(_) | None => OpenError::TimedOut,
        }
    }

    /// Asks a far end for something, within the time limit. A session that turns out to be dead is replaced
    /// once: the far end cannot have answered on it.
    async fn open_in_time<T>(
        self: &Arc<Self>,
        far: FarEnd,
        terms: Terms,
        wanted: Wanted<'_>,
        request: Request,
        prepare: impl Fn(&Session, &Request) -> Result<T, OpenError>,
    ) -> Result<Opened<T>, OpenError> {
        if !request.is_sound() {
            return Err(OpenError::Service);
        }
        let terms = self.local.terms(terms);
        let deadline = tokio::time::Instant::now() + self.config.open_timeout;
        let mut fresh = false;
        loop {
            let session = match self.pool.find(far.party(), terms) {
                Some(session) => session,
                None => {
                    fresh = true;
                    let dialled = tokio::time::timeout_at(deadline, self.dial(far, terms)).await;
                    dialled.map_err(|_| OpenError::TimedOut)??
                }
            };
            let heard = session.connection.stats().udp_rx.datagrams;
            let asked = self.ask(&session, wanted, &request, &prepare);
            match tokio::time::timeout_at(deadline, asked).await {
                Ok(Err(OpenError::Session(error))) if !fresh => {
                    tracing::debug!(%far, %terms, %error, "session was dead; dialling anew");
                    self.pool.remove(&session);
                }
                Ok(result) => {
                    let result = result.map_err(turned_away);
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
        wanted: Wanted<'_>,
        request: &Request,
        prepare: &impl Fn(&Session, &Request) -> Result<T, OpenError>,
    ) -> Result<Opened<T>, OpenError> {
        let offers = |edge: &EdgeSession| edge.claims().offers.allow(&request.service);
        if !session.edge.as_deref().is_none_or(offers) {
            return Err(OpenError::NotOffered);
        }
        let peer = session.peer();
        let is_named = |name| peer.as_ref().is_some_and(|peer| peer.name() == name);
        if !wanted.peer.is_none_or(is_named) {
            return Err(OpenError::Identity);
        }
        let mut stream = Unanswered(Some(session.connection.open_bi().await?));
        let prepared = prepare(session, request)?;
        let stamps = match &mut stream.0 {
            Some((send, recv)) => open::ask(send, recv, request).await?,
            None => false,
        };
        let (send, recv) = stream.0.take().expect("it is taken once");
        Ok(Opened { prepared, session: session.clone(), stamps, send, recv, peer })
    }

    /// Dials a far end, unless somebody else just has.
    async fn dial(self: &Arc<Self>, far: FarEnd, terms: Terms) -> Result<Session, OpenError> {
        let dialling = self.pool.dialling(far.party(), terms);
        let _one_at_a_time = dialling.lock().await;
        if let Some(session) = self.pool.find(far.party(), terms) {
            return Ok(session);
        }
        // Never entered: what runs a connection would keep the span that it began in.
        let class = terms.class.name();
        let _dialling = tracing::debug_span!(target: SPANS, "session", %far, class);
        match (&self.local, far) {
            (Local::Relay { credentials, client, .. }, FarEnd::Relay(relay)) => {
                self.dial_relay((&credentials.identity().mesh, client), relay, terms).await
            }
            (Local::Edge(edge), FarEnd::Edge { id, whereabouts }) => {
                self.dial_edge(edge, id, whereabouts, terms).await
            }
            (Local::Relay { .. }, FarEnd::Edge { .. }) | (Local::Edge(_), FarEnd::Relay(_)) => {
                Err(OpenError::OtherSort)
            }
        }
    }

    async fn dial_relay(
        self: &Arc<Self>,
        (mesh, client): (&str, &ClientConfig),
        far: RelayId,
        terms: Terms,
    ) -> Result<Session, OpenError> {
        let address = Address::new(far, AttachmentId::GATEWAY);
        let identity = Identity::new(Role::Relay, far.0, mesh).map_err(|_| OpenError::Identity)?;
        let mut config = client.clone();
        let delays = self.socket.order_delays(address, terms);
        config.transport_config(transport::relay_transport(delays));
        let connecting = self
            .endpoint
            .connect_with(config, address::to_socket(address, terms), &identity.server_name())
            .map_err(|_| OpenError::Closed)?;
        let connection = timeout(self.config.handshake_timeout, connecting)
            .await
            .map_err(|_| OpenError::TimedOut)??;
        self.establish(connection, address, terms, true)
    }

    /// Dials an edge, by the name of a session that is used. If that leads nowhere, what was said of where it is counts
    /// again, as for one that is new here.
    async fn dial_edge(
        self: &Arc<Self>,
        edge: &LocalEdge,
        id: EdgeId,
        whereabouts: Option<Whereabouts>,
        terms: Terms,
    ) -> Result<Session, OpenError> {
        if let Some(session) = self.pool.find_on_any(Party::Edge(id))
            && let Some(known) = &session.edge
        {
            match self.dial_name(edge, Arc::clone(&known.far), id, terms).await {
                Err(OpenError::TimedOut) if whereabouts.is_some() => self.pool.retire(&session),
                result => return result,
            }
        }
        let whereabouts = whereabouts.ok_or(OpenError::Nowhere)?;
        let far = edge.names.dial(whereabouts, Instant::now()).ok_or(OpenError::TooMany)?;
        self.dial_name(edge, far, id, terms).await
    }

    async fn dial_name(
        self: &Arc<Self>,
        edge: &LocalEdge,
        far: Arc<Far>,
        id: EdgeId,
        terms: Terms,
    ) -> Result<Session, OpenError> {
        // Fails only without cipher suites, which would have kept the endpoint from starting.
        let delays = self.socket.order_delays(far.name(), terms);
        let (config, other_answered) = transport::edge_client_config(&edge.certified, id, delays)
            .map_err(|_| OpenError::Closed)?;
        let connecting = self
            .endpoint
            .connect_with(config, address::to_socket(far.name(), terms), tls::SERVER_NAME)
            .map_err(|_| OpenError::Closed)?;
        let connection = timeout(self.config.handshake_timeout, connecting)
            .await
            .map_err(|_| OpenError::TimedOut)?
            .map_err(|error| {
                let other = other_answered.load(Ordering::Relaxed);
                if other { OpenError::Identity } else { OpenError::Session(error) }
            })?;
        self.greet(edge, connection, far, terms, true).await
    }
}

/// An edge that does not take the token closes the session, with the reason.
pub(super) fn turned_away(error: OpenError) -> OpenError {
    match error {
        OpenError::Session(ConnectionError::ApplicationClosed(close))
            if close.error_code == CODE_TOKEN =>
        {
            let reason = String::from_utf8_lossy(&close.reason);
            OpenError::Refused(open::shortened(&reason).to_owned())
        }
        other => other,
    }
}
