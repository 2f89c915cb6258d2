//! A mesh in memory: session endpoints joined by a fabric that loses and repeats frames by a seed, and
//! gateways on them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use overway_gateway::{
    ForwardConfig, Gateway, GatewayConfig, Limits, Protocol, Resolver, Resolving, ServiceConfig,
    Stats,
};
use overway_pki::{Authority, Credentials, Identity, PendingKey, Role};
use overway_session::{
    FabricPort, FabricSender, FarEnd, Full, Inbound, Outbound, SessionConfig, SessionEndpoint,
};
use overway_wire::frame::FrameEcn;
use overway_wire::{Address, AttachmentId, PolicyId, RelayId};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;

/// Bound of every wait in these tests: far beyond what any needs, so that only a hang meets it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The relay with the forwards.
pub(crate) const NEAR: RelayId = RelayId(1);
/// The relay with the services.
pub(crate) const FAR: RelayId = RelayId(2);
/// The one policy that relays know.
pub(crate) const KNOWN_POLICY: (PolicyId, &str) = (PolicyId(9), "eu-only");

/// A listener's limits that let one client in.
pub(crate) const ONE_CLIENT: Limits = Limits { clients_max: 1, clients_per_second: None };

/// Frame batches that wait for one endpoint; more are lost.
const BATCHES_MAX: usize = 4_096;
const MESH: &str = "test";
const LIFETIME: Duration = Duration::from_secs(3_600);

/// The parts that endpoints share.
pub(crate) struct Mesh {
    authority: Authority,
    fabric: Arc<Mutex<Fabric>>,
}

/// Two gateways: one that forwards to one service of the other.
pub(crate) struct Pair {
    pub(crate) near: Gateway,
    pub(crate) far: Gateway,
    pub(crate) far_endpoint: SessionEndpoint,
    /// Where the near one listens.
    pub(crate) entry: SocketAddr,
}

/// Every service is offered by these.
pub(crate) struct Everywhere(pub(crate) Vec<RelayId>);

#[derive(Debug)]
struct Fabric {
    inboxes: BTreeMap<Address, mpsc::Sender<Vec<Inbound>>>,
    random: u64,
    /// Frames that went by, by policy.
    policies: BTreeMap<PolicyId, u64>,
    /// Of 1,000 frames, how many are lost, and how many come twice.
    faults_permille: u64,
}

#[derive(Debug)]
struct Port {
    local: Address,
    fabric: Arc<Mutex<Fabric>>,
}

impl Mesh {
    pub(crate) fn new(seed: u64, faults_permille: u64) -> Self {
        let authority = Authority::create(MESH).unwrap();
        let fabric = Fabric {
            inboxes: BTreeMap::new(),
            policies: BTreeMap::new(),
            random: seed,
            faults_permille,
        };
        Self { authority, fabric: Arc::new(Mutex::new(fabric)) }
    }

    /// A new endpoint at a relay, in place of the one that was there.
    pub(crate) fn endpoint(&self, relay: RelayId) -> SessionEndpoint {
        let local = Address::new(relay, AttachmentId::GATEWAY);
        let (inbox, receiver) = mpsc::channel(BATCHES_MAX);
        self.fabric.lock().unwrap().inboxes.insert(local, inbox);
        let sender = Arc::new(Port { local, fabric: Arc::clone(&self.fabric) });
        let port = FabricPort { local, sender, receiver };
        SessionEndpoint::new(SessionConfig::default(), port, self.credentials(relay)).unwrap()
    }

    /// Frames that went by under a policy.
    pub(crate) fn frames_under(&self, policy: PolicyId) -> u64 {
        self.fabric.lock().unwrap().policies.get(&policy).copied().unwrap_or_default()
    }

    fn credentials(&self, relay: RelayId) -> Arc<Credentials> {
        let now = SystemTime::now();
        let (pending, request) = PendingKey::generate().unwrap();
        let identity = Identity::new(Role::Relay, relay.0, MESH).unwrap();
        let chain = self.authority.issue(&request, &identity, LIFETIME, now).unwrap();
        let ca = self.authority.fingerprint();
        Arc::new(Credentials::from_join(&pending, chain, ca, now).unwrap())
    }

    /// A gateway that offers `service` at [`FAR`] and one that forwards to it at [`NEAR`].
    pub(crate) async fn pair(&self, service: ServiceConfig, forward: ForwardConfig) -> Pair {
        let far_endpoint = self.endpoint(FAR);
        let far = offering(service, far_endpoint.clone()).await;
        let near = forwarding(forward, self.endpoint(NEAR), vec![FAR]).await;
        let entry = near.local_addrs()[0].address;
        Pair { near, far, far_endpoint, entry }
    }
}

/// Clients that may come from anywhere on this host.
pub(crate) const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// A gateway with one service.
pub(crate) async fn offering(service: ServiceConfig, endpoint: SessionEndpoint) -> Gateway {
    let config = GatewayConfig { services: vec![service], ..GatewayConfig::default() };
    Gateway::bind(config, endpoint, Arc::new(Everywhere(Vec::new()))).await.unwrap()
}

/// A gateway with one forward, to services at `relays`.
pub(crate) async fn forwarding(
    forward: ForwardConfig,
    endpoint: SessionEndpoint,
    relays: Vec<RelayId>,
) -> Gateway {
    let config = GatewayConfig { forwards: vec![forward], ..GatewayConfig::default() };
    Gateway::bind(config, endpoint, Arc::new(Everywhere(relays))).await.unwrap()
}

/// A UDP socket of a client of `entry`.
pub(crate) async fn udp_client(entry: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    socket.connect(entry).await.unwrap();
    socket
}

/// Connects, and fails unless that is reset, be it before the connection is known to stand.
pub(crate) async fn assert_turned_away(entry: SocketAddr) {
    match soon(TcpStream::connect(entry)).await {
        Ok(mut tcp) => assert_reset(&mut tcp).await,
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

/// Fails unless the connection was reset.
pub(crate) async fn assert_reset(tcp: &mut TcpStream) {
    let error = soon(tcp.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

pub(crate) fn service(protocol: Protocol, name: &str, target: SocketAddr) -> ServiceConfig {
    ServiceConfig::new(protocol, name, target)
}

pub(crate) fn forward(protocol: Protocol, service: &str) -> ForwardConfig {
    ForwardConfig::new(protocol, SocketAddr::from(([127, 0, 0, 1], 0)), service)
}

/// Waits until a gateway's counters satisfy `condition`.
pub(crate) async fn until(gateway: &Gateway, condition: impl Fn(&Stats) -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition(&gateway.stats()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    if waited.await.is_err() {
        panic!("not within {PATIENCE:?}: {:?}", gateway.stats());
    }
}

/// Awaits a future that must end.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("something hangs")
}

/// Bytes that differ by seed and position.
pub(crate) fn pattern(seed: u64, count: usize) -> Vec<u8> {
    let mut random = seed;
    let words = std::iter::repeat_with(|| next(&mut random).to_le_bytes());
    words.flatten().take(count).collect()
}

impl Resolver for Everywhere {
    fn far_ends<'a>(&'a self, _service: &'a str, _policy: PolicyId) -> Resolving<'a> {
        let all = self.0.iter().copied().map(FarEnd::from).collect();
        Box::pin(std::future::ready(all))
    }

    fn policy(&self, name: &str) -> Option<PolicyId> {
        (name == KNOWN_POLICY.1).then_some(KNOWN_POLICY.0)
    }
}

impl FabricSender for Port {
    fn try_send(&self, frames: &mut Vec<Outbound>) -> Result<(), Full> {
        self.fabric.lock().unwrap().deliver(self.local, frames.drain(..));
        Ok(())
    }

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

impl Fabric {
    fn deliver(&mut self, source: Address, frames: impl Iterator<Item = Outbound>) {
        let mut batches: BTreeMap<Address, Vec<Inbound>> = BTreeMap::new();
        for frame in frames {
            *self.policies.entry(frame.policy).or_default() += 1;
            let batch = batches.entry(frame.destination).or_default();
            let arrived = arrived(source, frame);
            let draw = next(&mut self.random) % 1_000;
            if draw >= self.faults_permille {
                batch.push(arrived.clone());
            }
            if draw >= 1_000 - self.faults_permille {
                batch.push(arrived);
            }
        }
        for (destination, batch) in batches {
            if let Some(inbox) = self.inboxes.get(&destination) {
                let _ = inbox.try_send(batch);
            }
        }
    }
}

fn arrived(source: Address, frame: Outbound) -> Inbound {
    let Outbound { kind, class, policy, flow, sequence, payload, .. } = frame;
    Inbound { source, kind, class, policy, ecn: FrameEcn::Capable, flow, sequence, payload }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
