//! The access thread: endpoints, handshakes, and who gets as far as an attachment.

use std::cell::RefCell;
use std::future::Future;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use overway_pki::ClientAuth;
use overway_probe::LocalClock;
use overway_telemetry::SPANS;
use overway_tenant::Month;
use overway_wire::access::messages::{
    AccessRelays, Attach, Attached, FromEdge, Limits, MESSAGE_BYTES_MAX, NAME_BYTES_MAX,
    NEAREST_MAX, Nearest, Refused, ToEdge, cut_reason, from_edge,
};
use overway_wire::access::{ACCESS_MTU, ALPN_ACCESS, CloseCode, EXPORTER_BYTES};
use overway_wire::{BootId, Class, RelayId};
use prost::Message as _;
use quinn::crypto::rustls::QuicServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Admitted, Refusal};
use super::attachment::{self, Attachment};
use super::connection::{Connection, ControlReader, ControlWriter};
use super::drain::Drain;
use super::nearest::{self, Asker, Dispatcher};
use super::registry::{Place, Registry, TookOver};
use super::services::Directory;
use super::stats::Counters;
use super::{AccessParts, tcp};
use crate::local::LocalQueues;
use crate::quality::QualityStore;

pub(super) type Send = FramedWrite<ControlWriter, LengthDelimitedCodec>;
pub(super) type Receive = FramedRead<ControlReader, LengthDelimitedCodec>;

/// From the first packet to the answer to its attach, an edge has this long: some round trips over the worst line.
const ADMISSION_MAX: Duration = Duration::from_secs(5);
/// Handshakes under way at once above which addresses must be proven first (QUIC Retry).
const HANDSHAKES_UNPROVEN_MAX: usize = 64;
/// Handshakes under way at once above which newcomers are turned away; each is a few kilobytes.
const HANDSHAKES_MAX: usize = 1_024;
/// Packets of connections that nobody has looked at yet: as many as there are handshakes, of a few each.
const INCOMING_BYTES_MAX: u64 = 4 << 20;
/// A silent connection is gone by then: three heartbeats of an idle attachment, and some time.
const IDLE_MAX: Duration = Duration::from_secs(50);
/// What quinn may hold unsent for an edge: one batch. More would wait in front of a heartbeat, and in no order of
/// classes.
const UNSENT_BYTES: usize = 10 * ACCESS_MTU as usize;
/// What quinn may hold unread of an edge: a burst of some two hundred frames.
const UNREAD_BYTES: usize = 256 << 10;
/// What an attachment's control stream holds at the least: it is silent mostly, and there are thousands.
const CONTROL_READ_BYTES: usize = 1 << 10;
const CONTROL_WRITE_BYTES: usize = 256;
/// How often it is said what edges use: more than once for each report.
const TELL_USE_EVERY: Duration = Duration::from_millis(500);
/// After a refusal, how long is waited for the edge to have read it.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);

/// What all tasks of the access thread share.
pub(super) struct Shared {
    pub(super) relay: RelayId,
    pub(super) boot: BootId,
    pub(super) clock: LocalClock,
    pub(super) local: Arc<LocalQueues>,
    pub(super) admission: Arc<dyn Admission>,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) quality: Arc<QualityStore>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) counters: Arc<Counters>,
    pub(super) registry: RefCell<Registry>,
    pub(super) draining: watch::Receiver<Drain>,
    pub(super) stop: CancellationToken,
}

/// What the thread begins with.
pub(super) struct Listener {
    parts: AccessParts,
    attachments_max: Arc<AtomicUsize>,
    counters: Arc<Counters>,
    draining: watch::Receiver<Drain>,
    stop: CancellationToken,
}

/// What edges come by.
pub(super) struct Doors {
    endpoints: Vec<quinn::Endpoint>,
    tcp: Option<(tokio::net::TcpListener, Arc<rustls::ServerConfig>)>,
}

impl Listener {
    pub(super) fn new(
        parts: AccessParts,
        attachments_max: Arc<AtomicUsize>,
        counters: Arc<Counters>,
        draining: watch::Receiver<Drain>,
        stop: CancellationToken,
    ) -> Self {
        Self { parts, attachments_max, counters, draining, stop }
    }

    /// Makes the endpoints on the runtime in which it is called.
    pub(super) fn bind(
        &self,
        sockets: Vec<UdpSocket>,
        tcp: Option<TcpListener>,
    ) -> anyhow::Result<Doors> {
        let server = server_config(&self.parts)?;
        let endpoint = |(line, socket): (usize, UdpSocket)| {
            let secret = &self.parts.reset_secret;
            let config = overway_pki::endpoint_config(secret, &format!("access line {line}"));
            let runtime = Arc::new(quinn::TokioRuntime);
            Ok(quinn::Endpoint::new(config, Some(server.clone()), socket, runtime)?)
        };
        let endpoints = sockets.into_iter().enumerate().map(endpoint);
        let endpoints = endpoints.collect::<anyhow::Result<_>>()?;
        let tcp = tcp.map(tokio::net::TcpListener::from_std).transpose()?;
        let tcp = tcp.map(|listener| (listener, tcp::server_config(&self.parts)));
        Ok(Doors { endpoints, tcp })
    }

    /// Serves until it is told to stop.
    pub(super) async fn serve(self, Doors { endpoints, tcp }: Doors) {
        let Self { parts, attachments_max, counters, draining, stop } = self;
        let mut registry = Registry::new(parts.deliveries, attachments_max, fastrand::u16(..));
        let counted = parts.counted.unwrap_or_default();
        let counting = registry.restore(&counted, Instant::now()).unwrap_or(parts.boot);
        let shared = Rc::new(Shared {
            relay: RelayId(parts.credentials.identity().id),
            boot: parts.boot,
            clock: parts.clock,
            local: parts.local,
            admission: parts.admission,
            directory: parts.directory,
            quality: parts.quality,
            dispatcher: parts.dispatcher,
            counters,
            registry: RefCell::new(registry),
            draining,
            stop,
        });
        for endpoint in endpoints.clone() {
            tokio::task::spawn_local(accept_all(Rc::clone(&shared), endpoint));
        }
        if let Some((listener, tls)) = tcp {
            tokio::task::spawn_local(tcp::accept_all(Rc::clone(&shared), listener, tls));
        }
        tokio::select! {
            () = keep_use_told(&shared, counting) => {}
            () = shared.stop.cancelled() => {}
        }
        tell_use(&shared, counting);
        for endpoint in &endpoints {
            endpoint.close((CloseCode::Stopping as u32).into(), b"relay stops");
        }
        for endpoint in &endpoints {
            // An edge that does not answer is not waited for: it will notice by silence.
            let _ = tokio::time::timeout(Duration::from_millis(300), endpoint.wait_idle()).await;
        }
    }
}

fn server_config(parts: &AccessParts) -> anyhow::Result<quinn::ServerConfig> {
    let tls = overway_pki::server_config(&parts.credentials, &[ALPN_ACCESS], ClientAuth::None);
    let crypto = QuicServerConfig::try_from(tls).context("the TLS configuration lacks AES-128")?;
    let mut transport = quinn::TransportConfig::default();
    let idle = quinn::IdleTimeout::try_from(IDLE_MAX).expect("fifty seconds fit in a QUIC varint");
    transport
        .max_idle_timeout(Some(idle))
        .initial_mtu(ACCESS_MTU)
        .min_mtu(ACCESS_MTU)
        .mtu_discovery_config(None)
        .datagram_send_buffer_size(UNSENT_BYTES)
        .datagram_receive_buffer_size(Some(UNREAD_BYTES))
        .max_concurrent_bidi_streams(1_u32.into())
        .max_concurrent_uni_streams(0_u32.into())
        .receive_window((2 * u32::try_from(MESSAGE_BYTES_MAX).unwrap_or(u32::MAX)).into());
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(Arc::new(transport))
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX);
    Ok(server)
}

/// Says what edges use, for reports to the scheduler, for ever.
async fn keep_use_told(shared: &Shared, counting: BootId) {
    let mut tick = tokio::time::interval(TELL_USE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        tell_use(shared, counting);
    }
}

fn tell_use(shared: &Shared, counting: BootId) {
    let (month, now) = (Month::of(SystemTime::now()), Instant::now());
    shared.registry.borrow_mut().tell_use(counting, month, now);
}

/// Accepts on an endpoint until it closes.
async fn accept_all(shared: Rc<Shared>, endpoint: quinn::Endpoint) {
    let handshakes = Rc::new(());
    while let Some(incoming) = endpoint.accept().await {
        shared.counters.handshakes.increment();
        let under_way = Rc::strong_count(&handshakes);
        if under_way > HANDSHAKES_MAX {
            shared.counters.handshakes_refused.increment();
            incoming.refuse();
            continue;
        }
        if under_way > HANDSHAKES_UNPROVEN_MAX && !incoming.remote_address_validated() {
            shared.counters.handshakes_retried.increment();
            // Fails only for an address that is validated already.
            let _ = incoming.retry();
            continue;
        }
        let (shared, handshake) = (Rc::clone(&shared), Rc::clone(&handshakes));
        tokio::task::spawn_local(async move {
            let connecting = async { Ok(Connection::Quic(incoming.accept()?.await?)) };
            attach(&shared, connecting, handshake).await;
        });
    }
}

/// Takes a newcomer from the handshake, which is counted until then, to the end of its attachment.
pub(super) async fn attach(
    shared: &Rc<Shared>,
    connecting: impl Future<Output = anyhow::Result<Connection>>,
    handshake: impl Sized,
) {
    // In a place of its own, which is given back: an attachment is smaller, and lives long.
    let admitting = Box::pin(async {
        let connection = connecting.await?;
        let from = connection.remote_address();
        let _admitting = tracing::debug_span!(target: SPANS, "admit", %from);
        admit(shared, connection).await
    });
    let admitted = tokio::time::timeout(ADMISSION_MAX, admitting).await;
    drop(handshake);
    match admitted {
        Ok(Ok(Some(attachment))) => attachment.serve().await,
        // Refused, and said so.
        Ok(Ok(None)) => {}
        Ok(Err(error)) => {
            tracing::debug!(%error, "edge not attached");
            shared.counters.handshakes_failed.increment();
        }
        Err(_elapsed) => shared.counters.handshakes_failed.increment(),
    }
}

/// Takes a connection as far as an attachment, or refuses it.
async fn admit(
    shared: &Rc<Shared>,
    connection: Connection,
) -> anyhow::Result<Option<Box<Attachment>>> {
    // Dropped before it is attached: closed.
    let guard = CloseUnattached(Some(connection.clone()));
    let (send, receive) = connection.accept_control().await?;
    let mut send = FramedWrite::with_capacity(send, codec(), CONTROL_WRITE_BYTES);
    let mut receive = FramedRead::with_capacity(receive, codec(), CONTROL_READ_BYTES);
    let mut said = hear(&mut receive).await?;
    if let Some(from_edge::Body::Nearest(asked)) = &said {
        shared.counters.asked.increment();
        let relays = nearest_for_stranger(shared, asked, connection.remote_address());
        send.send(encoded(&relays.into())).await?;
        // Whoever asks need not attach.
        let Ok(next) = hear(&mut receive).await else { return Ok(None) };
        said = next;
    }
    let attach = match said {
        Some(from_edge::Body::Attach(attach)) => attach,
        other => bail!("expected an attach, got {other:?}"),
    };
    let exporter = connection.exporter(shared.relay)?;
    let judged = judge_newcomer(shared, &attach, &exporter).and_then(|admitted| {
        let now = Instant::now();
        Ok((shared.registry.borrow_mut().attach(&admitted, BootId(attach.boot), now)?, admitted))
    });
    match judged {
        Ok((place, admitted)) => {
            if place.took_over == TookOver::FromEarlierProcess {
                // What that one offered nobody answers for now.
                let Admitted { tenant, edge, .. } = admitted;
                shared.directory.offered(place.attachment, tenant, edge, &[]);
            }
            count_attached(shared, &place, &connection);
            let from = connection.remote_address();
            let attached = attached(shared, &place, &admitted, from);
            let attachment = Attachment::new(
                Rc::clone(shared),
                guard.keep(),
                attachment::Proof { attach, exporter },
                admitted,
                place,
                (send, receive),
            );
            attachment.say(&attached.into());
            // Moved by its address alone: each task that it went through would have room for another.
            Ok(Some(Box::new(attachment)))
        }
        Err(refusal) => {
            shared.counters.refuse(refusal.code());
            tracing::info!(from = %connection.remote_address(), %refusal, "edge refused");
            send.send(encoded(&refused(&refusal).into())).await?;
            send.get_mut().shutdown().await?;
            let _ = tokio::time::timeout(REFUSAL_WAIT, connection.closed()).await;
            connection.close(CloseCode::Refused);
            Ok(None)
        }
    }
}

/// What somebody is answered who has shown nothing yet.
fn nearest_for_stranger(shared: &Shared, asked: &Nearest, from: SocketAddr) -> AccessRelays {
    let key = &asked.key[..asked.key.len().min(NAME_BYTES_MAX)];
    let address = from.ip().to_canonical();
    let text = address.to_string();
    let key = if key.is_empty() { text.as_bytes() } else { key };
    let tenant = shared.dispatcher.tenant(&asked.tenant);
    let asker = Asker { address, key, tenant, measured: None };
    nearest::message(asked.request, &shared.dispatcher.answer(asker, asked_limit(asked)))
}

pub(super) fn asked_limit(asked: &Nearest) -> usize {
    match asked.limit {
        0 => overway_dispatch::LIMIT_DEFAULT,
        limit => usize::try_from(limit).unwrap_or(NEAREST_MAX).min(NEAREST_MAX),
    }
}

/// Whether an edge may attach.
fn judge_newcomer(
    shared: &Shared,
    attach: &Attach,
    exporter: &[u8; EXPORTER_BYTES],
) -> Result<Admitted, Refusal> {
    if *shared.draining.borrow() != Drain::No {
        return Err(Refusal::Draining);
    }
    shared.admission.admit(attach, exporter, SystemTime::now())?.into_newcomer()
}

fn count_attached(shared: &Shared, place: &Place, connection: &Connection) {
    shared.counters.attached.increment();
    if let Connection::Tcp(_) = connection {
        shared.counters.attached_tcp.increment();
    }
    if place.took_over != TookOver::Nothing {
        shared.counters.replaced.increment();
    }
    shared.counters.attachments.set(shared.registry.borrow().len() as u64);
}

fn attached(shared: &Shared, place: &Place, admitted: &Admitted, from: SocketAddr) -> Attached {
    Attached {
        version: admitted.version,
        relay: shared.relay.0.into(),
        attachment: place.attachment.0.into(),
        tenant: admitted.tenant.0.into(),
        limits: Some(limits(admitted)),
        seen_address: from.to_string(),
        boot: shared.boot.0,
    }
}

fn limits(admitted: &Admitted) -> Limits {
    // A limit of less than a byte is still one.
    let of = |class| admitted.quota.bps_in(class).map_or(0, |bps| (bps / 8).max(1));
    Limits {
        realtime_bytes_per_second: of(Class::Realtime),
        interactive_bytes_per_second: of(Class::Interactive),
        bulk_bytes_per_second: of(Class::Bulk),
    }
}

pub(super) fn refused(refusal: &Refusal) -> Refused {
    Refused {
        code: refusal.code().into(),
        reason: cut_reason(refusal.to_string()),
        retry_after_ms: refusal.retry_after_ms(),
    }
}

fn codec() -> LengthDelimitedCodec {
    let mut builder = LengthDelimitedCodec::builder();
    builder.length_field_length(4).max_frame_length(MESSAGE_BYTES_MAX).new_codec()
}

/// The next message, `None` for one of a later version. Safe to cancel.
pub(super) async fn hear(receive: &mut Receive) -> anyhow::Result<Option<from_edge::Body>> {
    let bytes = receive.next().await.context("the control stream ended")??;
    Ok(FromEdge::decode(bytes)?.body)
}

pub(super) fn encoded(message: &ToEdge) -> bytes::Bytes {
    message.encode_to_vec().into()
}

/// Closes a connection that does not become an attachment.
struct CloseUnattached(Option<Connection>);

impl CloseUnattached {
    fn keep(mut self) -> Connection {
        self.0.take().expect("it is taken once")
    }
}

impl Drop for CloseUnattached {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.close(CloseCode::Malformed);
        }
    }
}
