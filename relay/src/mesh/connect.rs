//! Endpoints, dialling and accepting.
//!
//! For each peer that the scheduler names, the relay with the lower id dials: the light lane first, the
//! data lanes once it stands. The other dials only if nothing came for [`FALLBACK`], or if frames wait
//! for a lane; of two connections dialled at once the lower id's stays. The dialler opens one
//! unidirectional stream and says what the connection is: `version u8 | index u8 | lane u8 | shard u8`. Each
//! shard dials and accepts for itself; the first packet leads to the worker that runs it (`steer`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use overway_pki::{ALPN_MESH, ALPN_SEEN, ClientAuth, Identity, Role, SEEN_CODE, seen_reason};
use overway_relay_core::PeerLink;
use overway_wire::hop::{self, LINK_MTU, Lane};
use overway_wire::{LinkIndex, NeighbourLink, RelayId};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};

use super::MeshConfig;
use super::close::{CloseCode, close as close_connection};
use super::driver::{Driver, LaneKey};
use super::mtu;
use super::worker::Worker;
use crate::congestion::HopConfig;
use crate::datagrams::read_now;
use crate::steer::ids;

/// The hello's version.
const HELLO_VERSION: u8 = 2;
/// Bytes that follow the version.
const HELLO_BYTES: usize = 3;
/// A connection that is not usable by then is given up; twice the longest sane round trip.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long the higher id waits for the lower one to dial.
const FALLBACK: Duration = Duration::from_secs(3);
/// Pause between two dials of the same lane: short, since a relay that was restarted is to be back soon.
const REDIAL: Duration = Duration::from_millis(500);
/// Handshakes under way at once above which addresses must be proven first (QUIC Retry).
const HANDSHAKES_UNPROVEN_MAX: usize = 64;
/// Handshakes under way at once above which newcomers are refused: peers of a large mesh that all come
/// back at once dial again half a second later.
const HANDSHAKES_MAX: usize = 256;
/// A datagram of quinn needs at most this many bytes beside its payload: short header with the
/// connection id and 4-byte number, AEAD tag, frame type and length.
const QUIC_OVERHEAD: usize = 30 + ids::ID_BYTES;
const _: () = assert!(hop::REPAIR_BYTES_MAX + QUIC_OVERHEAD <= LINK_MTU as usize);
/// Packets that quinn hands to the system at once, at most (GSO).
const BATCH: usize = 10;
/// What quinn may hold unsent on a data lane is what the link's line drains in this time, so that what waits does so in
/// the core's queues, where classes and tenants are told apart.
const UNSENT: Duration = Duration::from_millis(2);
/// But at least one batch; and at most six, three times what quinn sends before others get a turn: with one on a fast
/// line, every ten frames cost a task and two wake-ups.
const UNSENT_BYTES: RangeInclusive<usize> =
    BATCH * LINK_MTU as usize..=6 * BATCH * LINK_MTU as usize;
/// On the light lane what is acknowledged goes with the next heartbeat, of which an active link has one every 30 ms.
const LIGHT_ACK_DELAY: Duration = Duration::from_millis(40);
/// What quinn may hold unread: a burst that arrives while the thread is away for some 50 ms at 400 Mbit/s.
const DATAGRAM_RECEIVE_BUFFER: usize = 2 << 20;
/// A silent connection is closed by then; liveness has detoured its frames long before, and a short
/// freeze does not cost a handshake.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// The side that is dialled, for a lane of a link of this capacity in bits per second, 0 if not known.
pub(super) fn server_config(
    config: &MeshConfig,
    capacity_bps: u64,
    lane: Lane,
) -> anyhow::Result<quinn::ServerConfig> {
    let clients = ClientAuth::Required(&[Role::Relay]);
    let tls = overway_pki::server_config(&config.credentials, &[ALPN_SEEN, ALPN_MESH], clients);
    let crypto = QuicServerConfig::try_from(tls).context("the TLS configuration lacks AES-128")?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(transport(capacity_bps, config.offload, lane)));
    Ok(server)
}

/// The transport of a lane of a link of this capacity in bits per second, 0 if not known; with or without
/// segmentation offload.
fn transport(capacity_bps: u64, offload: bool, lane: Lane) -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    let idle = quinn::IdleTimeout::try_from(IDLE_MAX).expect("ten seconds fit in a QUIC varint");
    let mut acks = quinn::AckFrequencyConfig::default();
    // Fewer acknowledgements cost less and delay nothing: recovery is by the core's own numbers.
    let ack_delay = if lane == Lane::Light { LIGHT_ACK_DELAY } else { Duration::from_millis(10) };
    acks.ack_eliciting_threshold(40_u32.into()).max_ack_delay(Some(ack_delay));
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(IDLE_MAX / 4))
        // quinn's black-hole detection would fall below what a frame needs: discovery is the light lane's.
        .initial_mtu(LINK_MTU)
        .min_mtu(LINK_MTU)
        .mtu_discovery_config(None)
        .datagram_send_buffer_size(unsent_bytes(capacity_bps))
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .max_concurrent_bidi_streams(0_u32.into())
        .max_concurrent_uni_streams(1_u32.into())
        .ack_frequency_config(Some(acks))
        .enable_segmentation_offload(offload)
        .congestion_controller_factory(Arc::new(HopConfig::new(capacity_bps)));
    if lane == Lane::Light {
        mtu::seek(&mut transport);
    }
    transport
}

/// What quinn may hold unsent on a lane of a link of this capacity in bits per second; one that is not known is
/// taken for a gigabit, as the copies' budget does.
fn unsent_bytes(capacity_bps: u64) -> usize {
    let capacity_bps = if capacity_bps == 0 { 1_000_000_000 } else { capacity_bps };
    let bytes = u128::from(capacity_bps) * UNSENT.as_micros() / 8_000_000;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    bytes.clamp(*UNSENT_BYTES.start(), *UNSENT_BYTES.end())
}

/// Accepts on every endpoint until it closes.
pub(super) fn spawn_accepting(worker: &Rc<Worker>) {
    let endpoints = worker.endpoints.borrow().clone();
    for endpoint in endpoints {
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            let handshakes = Rc::new(());
            while let Some(incoming) = endpoint.accept().await {
                let under_way = Rc::strong_count(&handshakes);
                if under_way > HANDSHAKES_MAX {
                    incoming.refuse();
                    continue;
                }
                if under_way > HANDSHAKES_UNPROVEN_MAX && !incoming.remote_address_validated() {
                    // Fails only for an address that is validated already.
                    let _ = incoming.retry();
                    continue;
                }
                let (worker, handshake) = (Rc::clone(&worker), Rc::clone(&handshakes));
                tokio::task::spawn_local(async move {
                    let accepting = accept(&worker, incoming);
                    let accepted = tokio::time::timeout(HANDSHAKE_MAX, accepting).await;
                    drop(handshake);
                    match accepted {
                        Ok(Ok(Some((shard, key, connection)))) => {
                            admit(&worker.shard(shard), key, connection).await;
                        }
                        Ok(Ok(None)) => {}
                        Ok(Err(error)) => {
                            tracing::debug!(%error, "incoming connection refused");
                            worker.stats.borrow_mut().refused += 1;
                        }
                        Err(_elapsed) => worker.stats.borrow_mut().refused += 1,
                    }
                });
            }
        });
    }
}

/// The connection and what it is of; `None` if it asked only from where it comes.
async fn accept(
    worker: &Worker,
    incoming: quinn::Incoming,
) -> anyhow::Result<Option<(u8, LaneKey, quinn::Connection)>> {
    let from = incoming.remote_address();
    let capacity_bps = {
        let fib = worker.shared.fib.borrow();
        fib.peers.values().find(|peer| peer.remote == from).map_or(0, |peer| peer.capacity_bps)
    };
    let lane = ids::first_lane(&incoming.orig_dst_cid()).unwrap_or(Lane::Bulk);
    let server = server_config(&worker.shared.config, capacity_bps, lane)?;
    let connection = incoming.accept_with(Arc::new(server))?.await?;
    let peer = identity(&connection)?;
    if asks_address(&connection) {
        connection.close(SEEN_CODE.into(), seen_reason(from).as_bytes());
        return Ok(None);
    }
    let mut stream = connection.accept_uni().await?;
    let (mut version, mut hello) = ([0], [0; HELLO_BYTES]);
    stream.read_exact(&mut version).await?;
    if version != [HELLO_VERSION] {
        close_connection(&connection, CloseCode::BadHello);
        let [version] = version;
        anyhow::bail!("relay {} says hello in version {version}; this is {HELLO_VERSION}", peer.id);
    }
    stream.read_exact(&mut hello).await?;
    let [index, lane, shard] = hello;
    match (LinkIndex::new(index), Lane::from_code(lane), worker.runs(shard)) {
        (Some(index), Some(lane), true) => {
            Ok(Some((shard, (NeighbourLink::new(RelayId(peer.id), index), lane), connection)))
        }
        _ => {
            close_connection(&connection, CloseCode::BadHello);
            anyhow::bail!("bad hello {hello:?} from relay {}", peer.id)
        }
    }
}

fn asks_address(connection: &quinn::Connection) -> bool {
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    data.and_then(|data| data.protocol).is_some_and(|protocol| protocol == ALPN_SEEN)
}

fn identity(connection: &quinn::Connection) -> anyhow::Result<Identity> {
    let chain = connection.peer_identity().context("the peer showed no certificate")?;
    let chain = chain
        .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
        .map_err(|_| anyhow::anyhow!("the peer's identity is no certificate chain"))?;
    Ok(overway_pki::peer_identity(&chain)?)
}

/// Takes an accepted connection into use if the scheduler has named its peer.
async fn admit(driver: &Rc<RefCell<Driver>>, key: LaneKey, connection: quinn::Connection) {
    let now = Instant::now();
    let taken = driver.borrow_mut().admit(key, &connection, key.0.neighbour, now);
    if taken {
        Driver::pump(driver, now);
        read(driver, key, connection).await;
    }
}

/// Dials what is missing, when something changes and now and then.
pub(super) async fn keep_connected(driver: Rc<RefCell<Driver>>) {
    let reconnect = driver.borrow().reconnect();
    let mut missing_since: HashMap<LaneKey, Instant> = HashMap::new();
    let mut dialled: HashMap<LaneKey, Instant> = HashMap::new();
    loop {
        let now = Instant::now();
        driver.borrow_mut().close_unused(now);
        driver.borrow_mut().look_at_mtus(now);
        Driver::pump(&driver, now);
        let due = due_dials(&driver.borrow(), &mut missing_since, &mut dialled, now);
        for (key, peer) in due {
            driver.borrow_mut().dialing.insert(key);
            tokio::task::spawn_local(dial(Rc::clone(&driver), key, peer));
        }
        // A dial that failed, or a fallback, is looked at again after the pause.
        let _ = tokio::time::timeout(REDIAL, reconnect.notified()).await;
    }
}

/// The lanes to dial now; keeps note of what has been missing since when, and what was dialled.
fn due_dials(
    driver: &Driver,
    missing_since: &mut HashMap<LaneKey, Instant>,
    dialled: &mut HashMap<LaneKey, Instant>,
    now: Instant,
) -> Vec<(LaneKey, PeerLink)> {
    let local = driver.core.local();
    let mut due = Vec::new();
    let peers = &driver.core.fib().peers;
    for (&link, &peer) in peers.iter().filter(|&(&link, peer)| driver.is_due(link, peer)) {
        let light = driver.is_connected((link, Lane::Light));
        for lane in Lane::ALL {
            let key = (link, lane);
            let ready = light || lane == Lane::Light;
            if !ready || driver.is_connected(key) {
                missing_since.remove(&key);
                continue;
            }
            let missing = *missing_since.entry(key).or_insert(now);
            let ours = local < link.neighbour || now.duration_since(missing) >= FALLBACK;
            let recent = dialled.get(&key).is_some_and(|&at| now.duration_since(at) < REDIAL);
            let wanted = driver.wanted.contains(&key);
            if (ours || wanted) && !recent && !driver.dialing.contains(&key) {
                dialled.insert(key, now);
                due.push((key, peer));
            }
        }
    }
    missing_since.retain(|(link, _), _| driver.core.fib().peers.contains_key(link));
    dialled.retain(|_, at| now.duration_since(*at) < REDIAL);
    due
}

async fn dial(driver: Rc<RefCell<Driver>>, key: LaneKey, peer: PeerLink) {
    let local = driver.borrow().core.local();
    let connecting = open(&driver, key, peer);
    let connected = match tokio::time::timeout(HANDSHAKE_MAX, connecting).await {
        Ok(connected) => connected,
        Err(_elapsed) => Err(anyhow::anyhow!("no answer within {HANDSHAKE_MAX:?}")),
    };
    let now = Instant::now();
    driver.borrow_mut().dialing.remove(&key);
    match connected {
        Ok(connection) => {
            let taken = driver.borrow_mut().admit(key, &connection, local, now);
            if taken {
                Driver::pump(&driver, now);
                read(&driver, key, connection).await;
            }
        }
        Err(error) => {
            driver.borrow_mut().stats.dials_failed += 1;
            tracing::debug!(link = %key.0, lane = key.1.name(), %error, "dialling failed");
        }
    }
}

async fn open(
    driver: &Rc<RefCell<Driver>>,
    (link, lane): LaneKey,
    peer: PeerLink,
) -> anyhow::Result<quinn::Connection> {
    let (endpoint, tls, name, offload, shard) = {
        let held = driver.borrow();
        let endpoints = held.worker.endpoints.borrow();
        let at = peer.local_address.min(endpoints.len().saturating_sub(1));
        let endpoint = endpoints.get(at).context("the relay is stopping")?.clone();
        let MeshConfig { credentials, offload, .. } = &held.worker.shared.config;
        let tls = overway_pki::client_config(credentials, &[ALPN_MESH]);
        let neighbour = Identity::new(Role::Relay, link.neighbour.0, &credentials.identity().mesh)?;
        (endpoint, tls, neighbour.server_name(), *offload, held.shard.index)
    };
    let crypto = QuicClientConfig::try_from(tls).context("the TLS configuration lacks AES-128")?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport(peer.capacity_bps, offload, lane)))
        .initial_dst_cid_provider(Arc::new(move || ids::first_id(shard, lane)));
    let connection = endpoint.connect_with(config, peer.remote, &name)?.await?;
    let mut stream = connection.open_uni().await?;
    stream.write_all(&[HELLO_VERSION, link.index.value(), lane.code(), shard]).await?;
    stream.finish()?;
    Ok(connection)
}

/// Datagrams taken from one connection before others get a turn.
const READ_BATCH: usize = 64;

/// Reads a connection until it closes.
async fn read(driver: &Rc<RefCell<Driver>>, key: LaneKey, connection: quinn::Connection) {
    while let Ok(first) = connection.read_datagram().await {
        let now = Instant::now();
        let others = std::iter::from_fn(|| read_now(&connection)).take(READ_BATCH - 1);
        let datagrams = std::iter::once(first).chain(others);
        driver.borrow_mut().datagrams(key, &connection, datagrams, now);
        Driver::pump(driver, now);
    }
    let now = Instant::now();
    let reason = connection.close_reason();
    tracing::debug!(link = %key.0, lane = key.1.name(), ?reason, "connection closed");
    driver.borrow_mut().closed(key, &connection, now);
    Driver::pump(driver, now);
}
