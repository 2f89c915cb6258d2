//! The serving half: connections in, their identity, and the requests on them.

use std::sync::Arc;
use std::time::Instant;

use overway_pki::Role;
use overway_tenant::Claims;
use overway_wire::{Address, FlowId, RelayId};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, ServerConfig};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, timeout};

use super::{CODE_IDENTITY, CODE_RESTARTED, HAIL_EVERY, Inner, Local, order};
use crate::address;
use crate::far::Party;
use crate::felt::Subject;
use crate::flow::{ACCEPTED, FlowLife, FlowTerms, Manner, Target};
use crate::open::{self, Asked, Incoming, IncomingFlow, IncomingStream, OpenError, Request, Sort};
use crate::pool::Session;
use crate::seal::{self, FlowKeys, SECRET_BYTES};
use crate::socket::Restart;
use crate::terms::Terms;
use crate::transport;

impl Inner {
    /// Makes a session of a connection, if its far end is the relay that it has to be, and starts to serve it.
    pub(super) fn establish(
        self: &Arc<Self>,
        connection: Connection,
        far: Address,
        terms: Terms,
        client: bool,
    ) -> Result<Session, OpenError> {
        if !is_relay(&connection, far.relay) {
            self.counters.identity_refused.increment();
            tracing::warn!(%far, "a session's certificate is not of the relay that it came from");
            connection.close(CODE_IDENTITY, b"not the relay of this address");
            return Err(OpenError::Identity);
        }
        let incarnation = self.socket.incarnation_of(far, terms).unwrap_or_default();
        let session = Session { connection, far, terms, incarnation, edge: None, client };
        self.begin(&session);
        Ok(session)
    }

    /// Serves a session whose far end is known.
    pub(super) fn begin(self: &Arc<Self>, session: &Session) {
        self.counters.sessions_opened.increment();
        self.pool.insert(session.clone());
        self.spawn(Arc::clone(self).serve(session.clone()));
        self.spawn(order::exchange(session.connection.clone(), Arc::clone(&self.counters)));
    }

    pub(super) async fn accept_connections(self: Arc<Self>) {
        let handshakes = Arc::new(Semaphore::new(self.config.handshakes_max));
        while let Some(incoming) = self.endpoint.accept().await {
            let Some((far, terms)) = address::from_socket(incoming.remote_address()) else {
                incoming.ignore();
                continue;
            };
            let Ok(place) = Arc::clone(&handshakes).try_acquire_owned() else {
                tracing::debug!(%far, "too many handshakes under way");
                incoming.refuse();
                continue;
            };
            let handshake = match &self.local {
                Local::Relay { .. } => None,
                Local::Edge(edge) => {
                    let handshake = edge.names.begin_handshake(far);
                    if handshake.is_none() {
                        tracing::debug!(%far, "too many handshakes of one edge under way");
                        incoming.refuse();
                        continue;
                    }
                    handshake
                }
            };
            let inner = Arc::clone(&self);
            self.spawn(async move {
                let _held = (place, handshake);
                let config = inner.server_config(far, terms);
                let Ok(connecting) = incoming.accept_with(config) else { return };
                match timeout(inner.config.handshake_timeout, connecting).await {
                    Ok(Ok(connection)) => inner.take_connection(connection, far, terms).await,
                    Ok(Err(error)) => tracing::debug!(%far, %error, "handshake failed"),
                    Err(_) => tracing::debug!(%far, "handshake took too long"),
                }
            });
        }
        // The fabric closed the port: whoever waits in `accept` is told.
        self.closed.send_replace(true);
    }

    /// quinn's settings for a connection that this far end dials.
    fn server_config(&self, far: Address, terms: Terms) -> Arc<ServerConfig> {
        let delays = self.socket.order_delays(far, terms);
        let mut config = self.server.clone();
        config.transport_config(match &self.local {
            Local::Relay { .. } => transport::relay_transport(delays),
            Local::Edge(_) => transport::edge_transport(delays),
        });
        Arc::new(config)
    }

    /// A refusal is counted where it happens.
    async fn take_connection(self: &Arc<Self>, connection: Connection, far: Address, terms: Terms) {
        match &self.local {
            Local::Relay { .. } => {
                let _ = self.establish(connection, far, terms, false);
            }
            Local::Edge(edge) => {
                let Some(far) = edge.names.find(far) else { return };
                let _ = self.greet(edge, connection, far, terms, false).await;
            }
        }
    }

    /// Closes the sessions that an earlier incarnation of a far end had.
    pub(super) async fn watch_restarts(self: Arc<Self>, mut restarts: mpsc::Receiver<Restart>) {
        while let Some((far, ended)) = restarts.recv().await {
            tracing::info!(%far, "a far end started anew");
            for session in self.pool.with(Party::Relay(far.relay)) {
                if session.far == far && session.incarnation == ended {
                    session.connection.close(CODE_RESTARTED, b"the far end started anew");
                }
            }
        }
    }

    /// Hails far ends that may have started anew; their answers tell.
    pub(super) async fn hail_far_ends(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(HAIL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.socket.hail(&self.pool.far_ends(), Instant::now());
        }
    }

    /// Takes the requests of a session until it ends.
    async fn serve(self: Arc<Self>, session: Session) {
        let error: ConnectionError = loop {
            match session.connection.accept_bi().await {
                Ok((send, recv)) => {
                    let (inner, session) = (Arc::clone(&self), session.clone());
                    self.spawn(async move { inner.take_request(&session, send, recv).await });
                }
                Err(error) => break error,
            }
        };
        self.pool.remove(&session);
        self.counters.sessions_closed.increment();
        tracing::debug!(far = %session.far, terms = %session.terms, %error, "session ended");
    }

    async fn take_request(&self, session: &Session, send: SendStream, mut recv: RecvStream) {
        let read = timeout(self.config.request_timeout, open::read::<Request>(&mut recv)).await;
        let request = match read {
            Ok(Ok(request)) if request.is_sound() => request,
            Ok(_) | Err(_) => return self.counters.requests_invalid.increment(),
        };
        let peer = session.peer();
        let sort = request.sort();
        let flow = FlowId(request.flow & !ACCEPTED);
        let (terms, stamps) = (request.flow_terms(), request.stamps);
        let client = request.client();
        let asked = Asked {
            from: session.far_end(),
            peer,
            terms: session.terms,
            service: request.service,
            client,
            target: request.target,
            send,
            recv,
            counters: Arc::clone(&self.counters),
            session: session.clone(),
            streams: Arc::clone(&self.streams),
        };
        let claims = asked.peer.as_ref().map(|peer| &*peer.claims);
        let forbidden = claims.and_then(|claims| forbidden(claims, session.terms, &asked.service));
        if let Some(reason) = forbidden {
            return asked.refuse(&reason).await;
        }
        let incoming = match sort {
            Sort::Stream => Incoming::Stream(IncomingStream { asked }),
            Sort::Flow => {
                match self.enter_flow(session, flow, &asked.service, (terms, stamps), false) {
                    Ok(life) => Incoming::Flow(IncomingFlow { asked, life }),
                    Err(error) => return asked.refuse(&error.to_string()).await,
                }
            }
            Sort::Unknown => return asked.refuse("unknown sort of request").await,
        };
        // Fails only when the endpoint is closed, and all its sessions with it.
        let _ = self.waiting.send(incoming).await;
    }

    pub(super) fn enter_flow(
        &self,
        session: &Session,
        id: FlowId,
        service: &str,
        (terms, stamps): (FlowTerms, bool),
        opened_here: bool,
    ) -> Result<FlowLife, OpenError> {
        let mut secret = [0; SECRET_BYTES];
        let context = seal::context(session.client == opened_here, id);
        session
            .connection
            .export_keying_material(&mut secret, seal::LABEL, &context)
            .map_err(|_| OpenError::Closed)?;
        let keys = FlowKeys::new(&secret, session.client);
        let target = match &session.edge {
            None => Target::Gateway(session.far),
            Some(edge) => Target::Edge(Arc::clone(&edge.far)),
        };
        let manner = Manner {
            policy: session.terms.policy,
            terms,
            stamps,
            subject: Subject::new(session, service, Instant::now()),
            session: Some(session.connection.clone()),
        };
        self.flows
            .enter(target, manner, id, opened_here, keys)
            .map_err(|error| OpenError::Refused(error.to_string()))
    }
}

/// Why an edge may not ask for this service in this class, by its token.
fn forbidden(claims: &Claims, terms: Terms, service: &str) -> Option<String> {
    let name = &claims.name;
    if !claims.services.allow(service) {
        return Some(format!("the token of \"{name}\" does not allow this service"));
    }
    if !claims.classes.contains(&terms.class) {
        let class = terms.class;
        return Some(format!("the token of \"{name}\" does not allow the class {class}"));
    }
    None
}

/// Whether the far end has shown the certificate of this relay.
fn is_relay(connection: &Connection, relay: RelayId) -> bool {
    let Some(shown) = connection.peer_identity() else { return false };
    let Ok(certificates) = shown.downcast::<Vec<CertificateDer<'static>>>() else { return false };
    match overway_pki::peer_identity(&certificates) {
        Ok(identity) => identity.role == Role::Relay && identity.id == relay.0,
        Err(_) => false,
    }
}
