//! The QUIC endpoint: relays' control connections, and joins.
//!
//! One socket serves both; TLS's ALPN tells them apart. A certificate is asked for and, if shown, must
//! be a relay's of this mesh. Without one a connection may join and nothing else. One that only asks from where it comes
//! is told, and closed.
//!
//! Strangers can open handshakes, so these are bounded: from half the bound on, each must first show by
//! a QUIC Retry that its address is its own; above the bound they are refused. Established connections
//! hold no place in it, so a flood keeps out newcomers at worst. Joins, which strangers can open too, and
//! control connections have places of their own, so that no stranger takes a relay's.
//!
//! A scheduler that is killed and started anew answers what relays still send on their old connections
//! with QUIC's stateless reset, so that they dial again within a second, all at about the same time,
//! instead of one after the other as their connections time out. For this the key of the resets and
//! that of the connection ids are the same after a restart.

mod connection;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use overway_pki::{
    ALPN_CONTROL, ALPN_JOIN, ALPN_SEEN, Authority, ClientAuth, Credentials, Identity, Role,
    SEEN_CODE, endpoint_config, peer_identity, seen_reason, server_config,
};
use overway_scheduler_core::MESH_RELAYS_MAX;
use overway_wire::RelayId;
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Connection, Endpoint, IdleTimeout, Incoming, ServerConfig, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::counters::Counters;
use crate::driver::{Driver, SessionId};
use crate::join::{self, Limiter};
use crate::registry::{Registry, RegistryError};
use crate::reload::Settings;
use crate::store::StoreError;

/// Everything asked for was done.
pub(crate) const CLOSE_DONE: VarInt = VarInt::from_u32(0);
/// The peer broke the protocol.
pub(crate) const CLOSE_PROTOCOL: VarInt = VarInt::from_u32(1);
/// There are too many; later there may not be.
const CLOSE_BUSY: VarInt = VarInt::from_u32(3);
/// The relay's certificate has expired.
pub(crate) const CLOSE_EXPIRED: VarInt = VarInt::from_u32(4);
/// The scheduler stops.
const CLOSE_STOPPING: VarInt = VarInt::from_u32(2);

/// Handshakes at once. Each costs about 20 KB and a signature; a mesh of 1,000 relays whose scheduler
/// returns is through in a few rounds.
const HANDSHAKES_MAX: usize = 256;
/// Time for a handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Control connections at once: all members of the largest mesh, each twice while it dials anew.
const CONNECTIONS_MAX: usize = 2 * MESH_RELAYS_MAX;
/// Joins at once. Each lasts a round trip or two, and ten seconds at most.
const JOINS_MAX: usize = 256;
/// A relay hears of a dead scheduler, and a scheduler of a dead relay, within this time.
const IDLE_TIME_MAX: Duration = Duration::from_secs(8);
/// A quarter of [`IDLE_TIME_MAX`]: three may be lost.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Bytes that a relay may have on the way: two of the largest reports.
const RECEIVE_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes on the way to a relay: 5,000 relays that take nothing hold 5 GB at worst, and only as long as
/// it takes to find them slow.
const SEND_WINDOW_BYTES: u64 = 1 << 20;
/// Time for connections to end by themselves after the endpoint was closed.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// What every connection needs.
pub(crate) struct Shared {
    pub(crate) authority: Arc<Authority>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) registry: Registry,
    pub(crate) driver: Driver,
    pub(crate) counters: Arc<Counters>,
    pub(crate) joins: Limiter,
    /// What a reload may change.
    pub(crate) settings: ArcSwap<Settings>,
    pub(crate) sessions: AtomicU64,
    /// The greatest relay id of a certificate that was shown.
    pub(crate) last_id_seen: AtomicU16,
    /// Held while the operator's wishes change, so that store and core have them in the same order.
    pub(crate) wishes: Mutex<()>,
}

impl Shared {
    /// Calls the registry on a thread that may block.
    pub(crate) async fn registry_call<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        call: impl FnOnce(&Registry) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let registry = self.registry.clone();
        match tokio::task::spawn_blocking(move || call(&registry)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(StoreError::Medium(Box::new(error)).into()),
        }
    }

    fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }
}

/// Binds the endpoint. `secret` makes the key of stateless resets: only who has it can end relays'
/// connections by a reset.
pub(crate) fn bind(
    listen: SocketAddr,
    credentials: &Arc<Credentials>,
    secret: &[u8],
) -> std::io::Result<Endpoint> {
    let tls = server_config(
        credentials,
        &[ALPN_SEEN, ALPN_CONTROL, ALPN_JOIN],
        ClientAuth::Optional(&[Role::Relay]),
    );
    let tls = QuicServerConfig::try_from(tls)
        .expect("the configuration is TLS 1.3 with QUIC's initial cipher suite");
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(transport()));
    config.max_incoming(HANDSHAKES_MAX);
    let socket = std::net::UdpSocket::bind(listen)?;
    let endpoint = endpoint_config(secret, "control");
    Endpoint::new(endpoint, Some(config), socket, Arc::new(quinn::TokioRuntime))
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIME_MAX).expect("seconds fit in QUIC's idle timeout");
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES);
    transport
}

/// Accepts connections until `shutdown`, then closes all.
pub(crate) async fn serve(endpoint: Endpoint, shared: Arc<Shared>, shutdown: CancellationToken) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let places = Arc::new(Places::new());
    let tasks = TaskTracker::new();
    loop {
        let incoming = tokio::select! {
            () = shutdown.cancelled() => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let Some((incoming, permit)) = admit(incoming, &handshakes, &shared.counters) else {
            continue;
        };
        tasks.spawn(accept(incoming, permit, Arc::clone(&places), Arc::clone(&shared)));
    }
    // Connection tasks hear it through their connections.
    endpoint.close(CLOSE_STOPPING, b"the scheduler stops");
    tasks.close();
    let ended = async {
        tasks.wait().await;
        endpoint.wait_idle().await;
    };
    if tokio::time::timeout(CLOSE_TIME_MAX, ended).await.is_err() {
        debug!("left some connections to time out");
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Control,
    Join,
}

/// The places of established connections, by purpose.
struct Places {
    control: Semaphore,
    joins: Semaphore,
}

impl Places {
    fn new() -> Self {
        Self { control: Semaphore::new(CONNECTIONS_MAX), joins: Semaphore::new(JOINS_MAX) }
    }

    /// Takes a place, or says that there is none.
    fn take(&self, purpose: Purpose) -> Option<SemaphorePermit<'_>> {
        let places = match purpose {
            Purpose::Control => &self.control,
            Purpose::Join => &self.joins,
        };
        places.try_acquire().ok()
    }
}

fn admit(
    incoming: Incoming,
    handshakes: &Arc<Semaphore>,
    counters: &Counters,
) -> Option<(Incoming, OwnedSemaphorePermit)> {
    let crowded = handshakes.available_permits() < HANDSHAKES_MAX / 2;
    if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
        counters.handshakes_retried.raise();
        // Fails only for those that may not retry.
        let _ = incoming.retry();
        return None;
    }
    let Ok(handshake) = Arc::clone(handshakes).try_acquire_owned() else {
        counters.handshakes_refused.raise();
        incoming.refuse();
        return None;
    };
    Some((incoming, handshake))
}

async fn accept(
    incoming: Incoming,
    handshake: OwnedSemaphorePermit,
    places: Arc<Places>,
    shared: Arc<Shared>,
) {
    let from = incoming.remote_address();
    let established = async { incoming.accept()?.await };
    let connection = match tokio::time::timeout(HANDSHAKE_TIME_MAX, established).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            shared.counters.handshakes_failed.raise();
            debug!(%from, %error, "handshake failed");
            return;
        }
        Err(_) => {
            shared.counters.handshakes_failed.raise();
            debug!(%from, "handshake took too long");
            return;
        }
    };
    drop(handshake);
    let member = Certified::of(&connection);
    let purpose = match (alpn(&connection).as_deref(), &member) {
        (Some(ALPN_SEEN), Some(_)) => {
            connection.close(SEEN_CODE.into(), seen_reason(from).as_bytes());
            return;
        }
        (Some(ALPN_CONTROL), Some(_)) => Purpose::Control,
        (Some(ALPN_JOIN), Some(_) | None) => Purpose::Join,
        (Some(_) | None, Some(_) | None) => {
            shared.counters.handshakes_failed.raise();
            connection.close(CLOSE_PROTOCOL, b"a relay's certificate is needed");
            return;
        }
    };
    let Some(_place) = places.take(purpose) else {
        shared.counters.connections_refused.raise();
        debug!(%from, ?purpose, "refused a connection, there being too many");
        connection.close(CLOSE_BUSY, b"too many connections");
        return;
    };
    if let Some(member) = &member {
        note_id(RelayId(member.identity.id), &shared).await;
    }
    match (purpose, member) {
        (Purpose::Control, Some(member)) => connection::serve(connection, &member, &shared).await,
        (Purpose::Join | Purpose::Control, Some(_) | None) => {
            join::serve(connection, &shared).await;
        }
    }
}

/// Has an id that this store did not give, being older than the mesh, never given again.
async fn note_id(relay: RelayId, shared: &Shared) {
    // The store is asked only about ids above any that it was asked about.
    if shared.last_id_seen.fetch_max(relay.0, Ordering::Relaxed) >= relay.0 {
        return;
    }
    let saw = shared.registry_call::<_, RegistryError>(move |registry| registry.saw(relay)).await;
    match saw {
        Ok(false) => {}
        Ok(true) => warn!(%relay, "the store is older than the mesh: it did not give this id"),
        Err(error) => {
            warn!(%relay, %error, "cannot keep an id from being given again");
            shared.last_id_seen.store(0, Ordering::Relaxed);
        }
    }
}

/// Who the peer is by the certificate that it has shown.
struct Certified {
    identity: Identity,
    /// When the certificate stops being valid: a second after its last, which is included.
    ends: SystemTime,
}

impl Certified {
    fn of(connection: &Connection) -> Option<Self> {
        let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        let identity = peer_identity(&chain).ok()?;
        let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
        Some(Self { identity, ends: UNIX_EPOCH + Duration::from_secs(seconds + 1) })
    }
}

fn alpn(connection: &Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    data.protocol
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_joins_take_no_place_of_a_relay() {
        let places = Places::new();
        let joins: Vec<_> = std::iter::from_fn(|| places.take(Purpose::Join)).collect();
        assert_eq!(joins.len(), JOINS_MAX);

        let control: Vec<_> = std::iter::from_fn(|| places.take(Purpose::Control)).collect();
        assert_eq!(control.len(), CONNECTIONS_MAX);
    }
}
