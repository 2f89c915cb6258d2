//! The relay's side of the control plane: one connection to one scheduler at a time.
//!
//! ```text
//! dial (next address) --> hello --> welcome --> [ updates down, reports and acks up ] --> lost --+
//!   ^                                                                                           |
//!   +----------------------------- pause, doubled up to two seconds <---------------------------+
//! ```
//!
//! What the relay says of itself may change while it runs. It then dials again at once and says a new hello, and the old
//! connection stands until the new one is welcomed: the scheduler never misses it.
//!
//! Nothing that runs depends on it: while no scheduler answers the relay goes on with what it holds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use overway_pki::{ALPN_CONTROL, Credentials, PendingKey};
use overway_quality::REPORT_INTERVAL;
use overway_relay_core::Fib;
use overway_wire::control::{
    Goodbye, Hello, MESSAGE_BYTES_MAX, OFFERS_VERSION, Offers, Renewal, Report, ToRelay,
    ToScheduler, Update, VERSION_MAX, VERSION_MIN, to_relay,
};
use prost::Message as _;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

use crate::access::AccessHeard;
use crate::fault::{FaultSocket, FaultTable};
use crate::mesh::Command;
use crate::quality::QualityStore;
use crate::state::StateFile;

/// A scheduler that has not welcomed the relay by then is left for the next.
const WELCOME_MAX: Duration = Duration::from_secs(5);
/// Pauses between attempts: the first and the longest. A restarted scheduler is found within seconds.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A scheduler that is silent for this long is lost.
const IDLE_MAX: Duration = Duration::from_secs(8);
/// How often the certificate's age and the state to save are looked at.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// A request for a certificate that was not answered by then is made again.
const RENEWAL_RETRY: Duration = Duration::from_secs(5);
/// Least time between two words on offers: where many edges come and go, one word tells of several.
const OFFERS_INTERVAL: Duration = Duration::from_millis(100);
/// After a goodbye the scheduler has this long to move paths away.
const GOODBYE_GRACE: Duration = Duration::from_millis(1_500);

/// What the control client works with.
pub struct Control {
    /// Whom it dials, and as what; may change.
    pub said: watch::Receiver<Said>,
    /// The relay's identity.
    pub credentials: Arc<Credentials>,
    /// Where the identity is kept.
    pub state_dir: PathBuf,
    /// To the mesh thread.
    pub commands: mpsc::Sender<Command>,
    /// What edges offer at this relay, all of it.
    pub offers: watch::Receiver<Offers>,
    /// What users feel at this relay.
    pub quality: Arc<QualityStore>,
    /// How the access side stands.
    pub(crate) access: AccessHeard,
    /// What others may ask.
    pub status: Arc<ControlStatus>,
    /// Faults of what is heard from schedulers, if configured.
    pub fault: Option<Arc<FaultTable>>,
}

/// What a reload of the configuration may change.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Addresses of schedulers, tried in turn; at least one.
    pub schedulers: Vec<SocketAddr>,
    /// What the relay says of itself; revision and epoch are filled in at each connection.
    pub hello: Hello,
}

/// How a connection ended in order.
enum Ended {
    /// The relay stops.
    Stopping,
    /// What it says of itself, or to whom, has changed.
    SaysAnew,
}

/// How the control plane stands, for metrics and readiness.
#[derive(Debug, Default)]
pub struct ControlStatus {
    /// Whether a scheduler has welcomed this relay.
    pub connected: AtomicBool,
    /// Connections to schedulers since the start.
    pub connections: AtomicU64,
    /// Attempts that failed, and connections that were lost.
    pub losses: AtomicU64,
    /// Certificates renewed.
    pub renewals: AtomicU64,
}

type Send = FramedWrite<quinn::SendStream, LengthDelimitedCodec>;
type Receive = FramedRead<quinn::RecvStream, LengthDelimitedCodec>;

/// One connection's streams.
struct Session {
    connection: quinn::Connection,
    send: Send,
    receive: Receive,
    /// The control version in use.
    version: u32,
    /// How often the scheduler wants reports, if it says.
    report_interval: Option<Duration>,
}

impl Control {
    /// Serves until the token is cancelled; then says goodbye.
    ///
    /// # Errors
    /// The mesh thread has ended. Whatever else goes wrong is tried again.
    pub async fn run(
        mut self,
        mut reports: mpsc::Receiver<Report>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut endpoints = Endpoints { v4: None, v6: None, fault: self.fault.clone() };
        let (mut attempt, mut pause) = (0_usize, PAUSE_MIN);
        let mut standing: Option<Session> = None;
        loop {
            let Said { schedulers, hello } = self.said.borrow_and_update().clone();
            let address = schedulers[attempt % schedulers.len()];
            let connected = tokio::select! {
                connected = self.connect(&mut endpoints, address, hello, &mut reports) => connected,
                () = shutdown.cancelled() => return Ok(()),
            };
            if let Some(old) = standing.take() {
                old.connection.close(0_u32.into(), b"dialled anew");
            }
            let lost = match connected {
                Ok(mut session) => {
                    tracing::info!(%address, "scheduler connected");
                    pause = PAUSE_MIN;
                    let ended = self.serve(&mut session, &mut reports, &shutdown).await;
                    self.status.connected.store(false, Ordering::Relaxed);
                    self.command(Command::SchedulerLost).await?;
                    match ended {
                        Ok(Ended::Stopping) => return Ok(()),
                        Ok(Ended::SaysAnew) => {
                            standing = Some(session);
                            continue;
                        }
                        Err(lost) => lost,
                    }
                }
                Err(error) => error,
            };
            attempt += 1;
            if self.commands.is_closed() {
                return Err(lost);
            }
            tracing::info!(%address, error = format!("{lost:#}"), "no scheduler; will dial again");
            self.status.losses.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn connect(
        &mut self,
        endpoints: &mut Endpoints,
        address: SocketAddr,
        hello: Hello,
        reports: &mut mpsc::Receiver<Report>,
    ) -> anyhow::Result<Session> {
        let endpoint = endpoints.towards(address)?;
        let welcomed = self.hear_welcome(&endpoint, address, hello, reports);
        let session = tokio::time::timeout(WELCOME_MAX, welcomed).await;
        let session =
            session.map_err(|_| anyhow::anyhow!("no answer within {WELCOME_MAX:?}"))??;
        let mut session = session;
        if session.version >= OFFERS_VERSION {
            // Before the first report, from which on the scheduler takes it that there are no others.
            let offers = self.offers.borrow_and_update().clone();
            session.say(offers.into()).await?;
            let state = self.access.state.borrow_and_update().clone();
            if !state.addresses.is_empty() {
                session.say(state.into()).await?;
                let distances = self.access.distances.borrow_and_update().clone();
                session.say(distances.into()).await?;
            }
        }
        self.status.connected.store(true, Ordering::Relaxed);
        self.status.connections.fetch_add(1, Ordering::Relaxed);
        self.command(Command::SchedulerConnected(session.report_interval)).await?;
        Ok(session)
    }

    async fn hear_welcome(
        &self,
        endpoint: &quinn::Endpoint,
        address: SocketAddr,
        hello: Hello,
        reports: &mut mpsc::Receiver<Report>,
    ) -> anyhow::Result<Session> {
        let tls = overway_pki::client_config(&self.credentials, &[ALPN_CONTROL]);
        let crypto =
            QuicClientConfig::try_from(tls).context("the TLS configuration lacks AES-128")?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport()));
        let name = self.credentials.any_scheduler_name();
        let connection = endpoint.connect_with(config, address, &name)?.await?;
        let (send, receive) = connection.open_bi().await?;
        let codec = || {
            let mut builder = LengthDelimitedCodec::builder();
            builder.length_field_length(4).max_frame_length(MESSAGE_BYTES_MAX).new_codec()
        };
        let (send, receive) = (FramedWrite::new(send, codec()), FramedRead::new(receive, codec()));
        let mut session = Session { connection, send, receive, version: 0, report_interval: None };
        let hello = self.complete(hello).await?;
        // The mesh thread has answered, so it has stopped reporting: what is left is of the old connection.
        while reports.try_recv().is_ok() {}
        session.say(hello.into()).await?;
        match session.hear().await?.body {
            Some(to_relay::Body::Welcome(welcome)) => {
                tracing::debug!(term = welcome.term, version = welcome.version, "welcome");
                let wanted = u64::from(welcome.report_interval_ms);
                session.version = welcome.version;
                session.report_interval = (wanted > 0).then(|| Duration::from_millis(wanted));
            }
            Some(to_relay::Body::Refused(refused)) => bail!("refused: {}", refused.reason),
            other => bail!("expected a welcome, got {other:?}"),
        }
        Ok(session)
    }

    /// The hello, with the revision that the mesh thread holds now.
    async fn complete(&self, hello: Hello) -> anyhow::Result<Hello> {
        let held = self.pushed().await?;
        Ok(Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            epoch_term: held.epoch_term,
            epoch_sequence: held.epoch_sequence,
            revision: held.revision,
            ..hello
        })
    }

    async fn pushed(&self) -> anyhow::Result<Update> {
        let (answer, pushed) = oneshot::channel();
        self.command(Command::Pushed(answer)).await?;
        pushed.await.context("the mesh thread has ended")
    }

    async fn command(&self, command: Command) -> anyhow::Result<()> {
        self.commands.send(command).await.context("the mesh thread has ended")
    }

    /// Serves one connection. An error means that the scheduler was lost.
    async fn serve(
        &mut self,
        session: &mut Session,
        reports: &mut mpsc::Receiver<Report>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
        let mut felt = tokio::time::interval(REPORT_INTERVAL);
        felt.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut pending, mut asked) = (None, None);
        let mut offers_due = Instant::now() + OFFERS_INTERVAL;
        loop {
            tokio::select! {
                heard = session.hear() => match heard?.body {
                    Some(to_relay::Body::Update(update)) => {
                        let (answer, ack) = oneshot::channel();
                        self.command(Command::Update(Box::new(update), answer)).await?;
                        let ack = ack.await.context("the mesh thread has ended")?;
                        session.say(ack.into()).await?;
                    }
                    Some(to_relay::Body::Renewed(renewed)) => {
                        self.renewed(renewed.chain_der, pending.take());
                    }
                    Some(to_relay::Body::Refused(refused)) => bail!("refused: {}", refused.reason),
                    Some(to_relay::Body::Welcome(_)) | None => {}
                },
                offers = next_offers(&mut self.offers, offers_due),
                    if session.version >= OFFERS_VERSION =>
                {
                    session.say(offers.into()).await?;
                    offers_due = Instant::now() + OFFERS_INTERVAL;
                }
                _ = felt.tick() => {
                    // What is on its way when a scheduler is lost is lost too: ten seconds of what users felt.
                    for word in self.quality.take_words(Instant::now()) {
                        session.say(word.into()).await?;
                    }
                }
                state = next(&mut self.access.state), if session.version >= OFFERS_VERSION => {
                    session.say(state.into()).await?;
                }
                distances = next(&mut self.access.distances),
                    if session.version >= OFFERS_VERSION =>
                {
                    session.say(distances.into()).await?;
                }
                Some(report) = reports.recv() => session.say(report.into()).await?,
                _ = upkeep.tick() => {
                    let waits = asked.is_some_and(|at: Instant| at.elapsed() < RENEWAL_RETRY);
                    if !waits && self.credentials.renew_due(SystemTime::now()) {
                        let (key, csr_der) = self.credentials.new_request()?;
                        session.say(Renewal { csr_der }.into()).await?;
                        (pending, asked) = (Some(key), Some(Instant::now()));
                    }
                }
                Ok(()) = self.said.changed() => return Ok(Ended::SaysAnew),
                () = shutdown.cancelled() => {
                    session.say(Goodbye {}.into()).await?;
                    self.leave(session).await;
                    return Ok(Ended::Stopping);
                }
            }
        }
    }

    /// Puts a new certificate to use; a bad one changes nothing, and the next attempt is a second away.
    fn renewed(&self, chain: Vec<Vec<u8>>, pending: Option<PendingKey>) {
        let Some(pending) = pending else { return };
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        match self.credentials.replace(&pending, chain, &self.state_dir, SystemTime::now()) {
            Ok(()) => {
                self.status.renewals.fetch_add(1, Ordering::Relaxed);
                tracing::info!("certificate renewed");
            }
            Err(error) => tracing::warn!(%error, "the new certificate cannot be used"),
        }
    }

    /// After the goodbye: applies what still comes, so that paths away from here are in use everywhere
    /// before the links close.
    async fn leave(&self, session: &mut Session) {
        let last = async {
            while let Ok(message) = session.hear().await {
                if let Some(to_relay::Body::Update(update)) = message.body {
                    let (answer, ack) = oneshot::channel();
                    if self.command(Command::Update(Box::new(update), answer)).await.is_err() {
                        return;
                    }
                    let Ok(ack) = ack.await else { return };
                    if session.say(ack.into()).await.is_err() {
                        return;
                    }
                }
            }
        };
        // The grace ends it as a rule: the scheduler has no reason to close first.
        let _ = tokio::time::timeout(GOODBYE_GRACE, last).await;
        session.connection.close(0_u32.into(), b"relay stops");
    }
}

/// Waits until what edges offer is another than was last said, and until it may be said.
async fn next_offers(offers: &mut watch::Receiver<Offers>, due: Instant) -> Offers {
    if due > Instant::now() {
        tokio::time::sleep_until(due.into()).await;
    }
    next(offers).await
}

/// Waits until something else is to be said.
async fn next<T: Clone>(said: &mut watch::Receiver<T>) -> T {
    if said.changed().await.is_err() {
        // Nobody is left to say anything else.
        std::future::pending::<()>().await;
    }
    said.borrow_and_update().clone()
}

/// Saves the state after each change, at most once an upkeep interval, until the mesh thread ends.
pub(crate) async fn keep_saved(
    file: StateFile,
    mut fib: watch::Receiver<Arc<Fib>>,
    commands: mpsc::WeakSender<Command>,
) {
    while fib.changed().await.is_ok() {
        let (answer, pushed) = oneshot::channel();
        let Some(commands) = commands.upgrade() else { return };
        if commands.send(Command::Pushed(answer)).await.is_err() {
            return;
        }
        drop(commands);
        let Ok(update) = pushed.await else { return };
        let file = file.clone();
        let saved = tokio::task::spawn_blocking(move || file.save(&update)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the last good state cannot be saved");
        }
        tokio::time::sleep(UPKEEP_INTERVAL).await;
    }
}

impl Session {
    async fn say(&mut self, message: ToScheduler) -> anyhow::Result<()> {
        use futures_util::SinkExt as _;
        let mut bytes = BytesMut::with_capacity(message.encoded_len());
        message.encode(&mut bytes)?;
        Ok(self.send.send(bytes.freeze() as Bytes).await?)
    }

    async fn hear(&mut self) -> anyhow::Result<ToRelay> {
        use futures_util::StreamExt as _;
        let bytes = self.receive.next().await.context("the scheduler closed the stream")??;
        Ok(ToRelay::decode(bytes)?)
    }
}

/// Sockets to dial from, one per address family, made when first needed.
struct Endpoints {
    v4: Option<quinn::Endpoint>,
    v6: Option<quinn::Endpoint>,
    fault: Option<Arc<FaultTable>>,
}

impl Endpoints {
    fn towards(&mut self, address: SocketAddr) -> anyhow::Result<quinn::Endpoint> {
        let (place, any): (_, SocketAddr) = if address.is_ipv4() {
            (&mut self.v4, (std::net::Ipv4Addr::UNSPECIFIED, 0).into())
        } else {
            (&mut self.v6, (std::net::Ipv6Addr::UNSPECIFIED, 0).into())
        };
        if let Some(endpoint) = place {
            return Ok(endpoint.clone());
        }
        let endpoint = match &self.fault {
            Some(table) => faulty_client(any, table),
            None => quinn::Endpoint::client(any),
        };
        let endpoint = endpoint.context("no local UDP socket for the control connection")?;
        Ok(place.insert(endpoint).clone())
    }
}

/// A socket to dial from that hears by the rules of a table.
fn faulty_client(any: SocketAddr, table: &Arc<FaultTable>) -> std::io::Result<quinn::Endpoint> {
    let runtime: Arc<dyn quinn::Runtime> = Arc::new(quinn::TokioRuntime);
    let socket = runtime.wrap_udp_socket(std::net::UdpSocket::bind(any)?)?;
    let socket = FaultSocket::new(socket, Arc::clone(table))?;
    quinn::Endpoint::new_with_abstract_socket(
        quinn::EndpointConfig::default(),
        None,
        socket,
        runtime,
    )
}

fn transport() -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    let idle = quinn::IdleTimeout::try_from(IDLE_MAX).expect("eight seconds fit in a QUIC varint");
    transport.max_idle_timeout(Some(idle)).keep_alive_interval(Some(IDLE_MAX / 4));
    transport
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::credentials;
    use crate::fault::{FaultConfig, Rule};
    use futures_util::FutureExt as _;
    use overway_wire::control::Offer;

    /// What a relay dials a scheduler with.
    fn dialling() -> quinn::ClientConfig {
        let tls = overway_pki::client_config(&credentials(), &[ALPN_CONTROL]);
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
    }

    /// A Version Negotiation packet (RFC 9000 section 17.2.1) in answer to a first packet: no version of the client's.
    fn no_version(first: &[u8]) -> Vec<u8> {
        let (destination, rest) = first[6..].split_at(first[5].into());
        let source = &rest[1..=usize::from(rest[0])];
        let id = |id: &[u8]| [&[u8::try_from(id.len()).unwrap()], id].concat();
        [&[0x80, 0, 0, 0, 0][..], &id(source), &id(destination), &[0x0a; 4]].concat()
    }

    #[tokio::test]
    async fn what_comes_from_a_scheduler_whose_address_is_cut_is_not_heard() {
        let scheduler = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = scheduler.local_addr().unwrap();
        let table = FaultTable::new(&FaultConfig::default());
        table.set(address, Rule { cut: true, ..Rule::default() }).unwrap();
        let mut endpoints = Endpoints { v4: None, v6: None, fault: Some(Arc::clone(&table)) };
        let endpoint = endpoints.towards(address).unwrap();
        let mut connecting = endpoint.connect_with(dialling(), address, "scheduler").unwrap();
        let mut first = [0; 2_048];
        let (length, from) = scheduler.recv_from(&mut first).await.unwrap();
        let answer = no_version(&first[..length]);

        scheduler.send_to(&answer, from).await.unwrap();
        // It sends again only because it heard nothing.
        let mut second = [0; 2_048];
        tokio::select! {
            heard = &mut connecting => panic!("{heard:?}"),
            again = scheduler.recv_from(&mut second) => assert_eq!(again.unwrap().1, from),
        }
        table.restore(address);
        scheduler.send_to(&answer, from).await.unwrap();

        assert_eq!(connecting.await.unwrap_err(), quinn::ConnectionError::VersionMismatch);
    }

    #[tokio::test]
    async fn offers_are_said_when_they_change_and_not_once_nobody_makes_any() {
        let (tx, mut offers) = watch::channel(Offers::default());
        let now = Instant::now();
        assert_eq!(next_offers(&mut offers, now).now_or_never(), None);

        tx.send_replace(Offers { offers: vec![Offer::default()] });
        let far = now + Duration::from_secs(3_600);
        assert_eq!(next_offers(&mut offers, far).now_or_never(), None, "not yet");
        let said = next_offers(&mut offers, now).now_or_never();
        assert_eq!(said, Some(Offers { offers: vec![Offer::default()] }));
        assert_eq!(next_offers(&mut offers, now).now_or_never(), None, "once");

        drop(tx);
        assert_eq!(next_offers(&mut offers, now).now_or_never(), None);
    }
}
