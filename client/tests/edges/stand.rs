//! Three relays on loopback with their access sides, a tenant, and lines that can be cut.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use overway_client::{AttachConfig, Attachments, TcpAccess};
use overway_pki::{Authority, Credentials, Identity, PendingKey, Role};
use overway_probe::LocalClock;
use overway_relay::access::{
    Access, AccessConfig, AccessParts, AccessStats, Dispatcher, OwnEdges, OwnSide, PushedTenants,
    TokenAdmission,
};
use overway_relay::lines::Lines;
use overway_relay::mesh::{Command, Mesh, MeshConfig, MeshOutputs};
use overway_session::{EdgeIdentity, EdgePort, Outbound};
use overway_tenant::{Claims, EdgeId, EdgeKey, Names, Quota, Tenant, TenantKey, TenantKeys, mint};
use overway_wire::control::{
    self, AccessRelay, AccessState, Item, Node, NodeDrain, Peer, Route, RoutePath, Update,
};
use overway_wire::{
    Address, BootId, Class, FlowId, FrameKind, LinkIndex, Millis, Path, PathElement, PolicyId,
    Redundancy, RelayId, Ticks, Whereabouts,
};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, oneshot, watch};

/// Long enough for a machine that does ten other things; nothing waits for it in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The tenant's number.
pub(crate) const TENANT: PolicyId = PolicyId(20);
const KID: &str = "k1";

/// A relay with its access side.
pub(crate) struct Node3 {
    pub(crate) mesh: Mesh,
    pub(crate) access: Option<Access>,
    pub(crate) counts: overway_relay::access::AccessCounts,
    pub(crate) address: SocketAddr,
    pub(crate) tcp_address: SocketAddr,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// What an access side at this address begins with.
    parts: Box<dyn Fn(SocketAddr) -> AccessParts + Send>,
    _outputs: MeshOutputs,
    _state_dir: tempfile::TempDir,
}

/// The relays of a mesh, and what was pushed to them.
pub(crate) struct Stand {
    pub(crate) nodes: Vec<Node3>,
    pub(crate) ca_pem: Vec<u8>,
    tenant_key: TenantKey,
    pub(crate) tenant: Tenant,
    drained: Option<(u16, NodeDrain)>,
    revision: u64,
    tells_access: bool,
}

impl Node3 {
    fn start(authority: &Authority, id: u16) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let clock = LocalClock::new(Instant::now(), Ticks(u64::from(id) * 7_000_000_000), 10);
        let boot = BootId(id.into());
        let listen = vec![loopback];
        let state_dir = tempfile::tempdir().unwrap();
        let credentials = credentials(authority, id);
        let (mesh, outputs) = Mesh::start(MeshConfig {
            core: overway_relay_core::Config::new(RelayId(id), boot, clock),
            lines: Lines::load(state_dir.path(), &listen, SystemTime::now()),
            workers: 1,
            listen,
            offload: true,
            credentials: Arc::clone(&credentials),
            reset_secret: vec![7; 32],
            fault: None,
            restored: None,
        })
        .unwrap();
        let tenants = Arc::<PushedTenants>::default();
        tokio::spawn(Arc::clone(&tenants).follow(RelayId(id), mesh.fib.clone()));
        let (fib, local) = (mesh.fib.clone(), Arc::clone(&mesh.local));
        let deliveries = Arc::clone(&mesh.deliveries);
        let parts = move |listen| {
            let config = AccessConfig {
                listen: vec![listen],
                tcp_listen: Some(loopback),
                attachments_max: 16,
                ..AccessConfig::default()
            };
            let own = OwnSide { relay: RelayId(id), name: format!("r{id}"), ..OwnSide::default() };
            let dispatcher = Arc::new(Dispatcher::new(own, &config, fib.clone()).unwrap());
            AccessParts {
                config,
                credentials: Arc::clone(&credentials),
                reset_secret: vec![7; 32],
                boot,
                clock,
                local: Arc::clone(&local),
                deliveries: Arc::clone(&deliveries),
                admission: Arc::new(TokenAdmission::new(Arc::clone(&tenants))),
                directory: Arc::new(OwnEdges::new(RelayId(id))),
                counted: None,
                quality: Arc::default(),
                dispatcher,
            }
        };
        let first = parts(loopback);
        let dispatcher = Arc::clone(&first.dispatcher);
        let access = Access::start(first).unwrap();
        tokio::spawn(access.draining().clone().follow(RelayId(id), mesh.fib.clone()));
        let (address, counts) = (access.addresses[0], access.counts());
        let tcp_address = access.tcp_address.unwrap();
        let access = Some(access);
        Self {
            mesh,
            access,
            counts,
            address,
            tcp_address,
            dispatcher,
            parts: Box::new(parts),
            _outputs: outputs,
            _state_dir: state_dir,
        }
    }

    pub(crate) fn stats(&self) -> AccessStats {
        self.counts.snapshot()
    }

    /// Ends the access side, and starts it anew at the same address.
    pub(crate) async fn restart_access(&mut self) {
        if let Some(access) = self.access.take() {
            access.stop().await;
        }
        let access = Access::start((self.parts)(self.address)).unwrap();
        self.counts = access.counts();
        self.access = Some(access);
    }
}

impl Stand {
    /// Relays 1 to 3, joined, that know a tenant.
    pub(crate) async fn start() -> Self {
        Self::start_with(3).await
    }

    pub(crate) async fn start_with(count: u16) -> Self {
        let authority = Authority::create("test").unwrap();
        let directory = tempfile::tempdir().unwrap();
        authority.save(directory.path()).unwrap();
        let ca_pem = std::fs::read(directory.path().join("ca.pem")).unwrap();
        let tenant_key = TenantKey::from_seed([5; 32]);
        let mut keys = TenantKeys::new("acme".parse().unwrap());
        keys.keys.insert(KID.parse().unwrap(), tenant_key.public());
        let tenant = Tenant {
            number: TENANT,
            route_policy: PolicyId::default(),
            backup_policy: PolicyId::default(),
            cell: String::new(),
            keys,
            quota: Quota::default(),
            exhausted: None,
        };
        let nodes = (1..=count).map(|id| Node3::start(&authority, id)).collect();
        let mut stand = Self {
            nodes,
            ca_pem,
            tenant_key,
            tenant,
            drained: None,
            revision: 0,
            tells_access: false,
        };
        stand.push().await;
        for node in &stand.nodes {
            let expected = stand.nodes.len() - 1;
            until(async || links_up(&node.mesh).await == expected).await;
        }
        stand
    }

    /// Changes what relays know of the tenant.
    pub(crate) async fn change(&mut self, change: impl FnOnce(&mut Tenant)) {
        change(&mut self.tenant);
        self.push().await;
    }

    /// Tells all relays where clients may attach.
    pub(crate) async fn tell_access(&mut self) {
        self.tells_access = true;
        self.push().await;
    }

    /// Begins, ends or takes back the drain of a relay.
    pub(crate) async fn drain(&mut self, relay: u16, drain: NodeDrain) {
        self.drained = Some((relay, drain));
        self.push().await;
    }

    async fn push(&mut self) {
        self.revision += 1;
        for (id, node) in (1..).zip(&self.nodes) {
            let mut put = self.table(id);
            if let Some((relay, drain)) = self.drained {
                let (relay, drain) = (relay.into(), drain.into());
                put.push(Node { relay, drain, ..Node::default() }.into());
            }
            put.push(control::Tenant::from(&self.tenant).into());
            if self.tells_access {
                put.extend((1..).zip(&self.nodes).map(|(id, node)| access_relay(id, node)));
            }
            let (epoch_term, epoch_sequence, revision) = (1, self.revision, self.revision);
            let update = Update { epoch_term, epoch_sequence, revision, put, ..Update::default() };
            let (answer, ack) = oneshot::channel();
            let update = Command::Update(Box::new(update), answer);
            node.mesh.commands.send(update).await.unwrap();
            assert!(!ack.await.unwrap().resync);
        }
    }

    /// Direct links and paths from one relay to all others.
    fn table(&self, id: u16) -> Vec<Item> {
        let mut put: Vec<Item> = Vec::new();
        for (other, node) in (1_u16..).zip(&self.nodes).filter(|(other, _)| *other != id) {
            put.push(
                Node { relay: other.into(), name: format!("relay-{other}"), ..Node::default() }
                    .into(),
            );
            let peer = Peer {
                neighbour: other.into(),
                remote_address: node.mesh.addresses[0].to_string(),
                workers: 1,
                role: control::Role::Candidate.into(),
                ..Peer::default()
            };
            put.push(peer.into());
            let element = PathElement::new(RelayId(other), LinkIndex::default());
            let mut steps = Vec::new();
            Path::new(&[element]).unwrap().encode(&mut steps);
            let path = RoutePath { steps, delay_us: 1_000, ..RoutePath::default() };
            let route = |class: Class| Route {
                destination: other.into(),
                class: class.code().into(),
                paths: vec![path.clone()],
                ..Route::default()
            };
            put.extend(Class::ALL.map(|class| Item::from(route(class))));
        }
        put
    }

    /// A token for a key, with changes.
    pub(crate) fn token(&self, edge: EdgeId, change: impl FnOnce(&mut Claims)) -> String {
        token(&self.tenant_key, edge, change)
    }

    /// What an edge's sessions need to know others by.
    pub(crate) fn identity(&self, edge: &Edge) -> EdgeIdentity {
        EdgeIdentity {
            key: Arc::clone(&edge.key),
            tenant: self.tenant.name().clone(),
            token: edge.renew.subscribe(),
            keys: watch::channel(Arc::new(self.tenant.keys.clone())).1,
        }
    }

    /// An edge that attaches to these addresses.
    pub(crate) fn edge(&self, seed: u8, relays: Vec<SocketAddr>) -> Edge {
        let key = Arc::new(EdgeKey::from_seed([seed; 32]));
        let (renew, token) = watch::channel(self.token(key.id(), |_| {}));
        let ca_pem = self.ca_pem.clone();
        let tcp = TcpAccess { port: None, ..TcpAccess::default() };
        let config = AttachConfig { relays, tcp, ca_pem, key: Arc::clone(&key), token };
        let (attachments, port) = Attachments::start(config).unwrap();
        Edge { attachments, port, key, renew, arrived: BTreeSet::new() }
    }

    pub(crate) async fn stop(self) {
        for node in self.nodes {
            if let Some(access) = node.access {
                access.stop().await;
            }
            node.mesh.stop().await;
        }
    }
}

/// What a scheduler would tell of a relay's access side.
fn access_relay(id: u32, node: &Node3) -> Item {
    let state = AccessState {
        addresses: vec![node.address.to_string()],
        weight: 100,
        attachments_max: 16,
        ..AccessState::default()
    };
    AccessRelay { relay: id, state: Some(state), ..AccessRelay::default() }.into()
}

/// A token of the tenant, signed by any key.
pub(crate) fn token(key: &TenantKey, edge: EdgeId, change: impl FnOnce(&mut Claims)) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = Claims {
        tenant: "acme".parse().unwrap(),
        name: "phone".to_owned(),
        services: Names::Any,
        offers: Names::of(["chat"]),
        classes: Class::ALL.into(),
        issued: now,
        not_before: None,
        expires: now + 3_600,
        id: "t1".parse().unwrap(),
        edge,
    };
    change(&mut claims);
    mint(&claims, key, &KID.parse().unwrap()).unwrap()
}

/// An edge under test.
pub(crate) struct Edge {
    pub(crate) attachments: Attachments,
    pub(crate) port: EdgePort,
    pub(crate) key: Arc<EdgeKey>,
    pub(crate) renew: watch::Sender<String>,
    /// Sequences that have arrived.
    pub(crate) arrived: BTreeSet<u64>,
}

impl Edge {
    pub(crate) fn whereabouts(&self) -> Option<Whereabouts> {
        *self.port.whereabouts.borrow()
    }

    /// Waits until the edge is attached to so many relays.
    pub(crate) async fn attached(&self, count: usize) -> Whereabouts {
        let two = |it: Whereabouts| count == 1 || it.second.is_some();
        until(async || self.whereabouts().is_some_and(two)).await;
        self.whereabouts().unwrap()
    }

    pub(crate) fn send(&self, to: Whereabouts, class: Class, sequence: u64) {
        let mut frames = vec![frame(to, class, sequence)];
        // What there is no room for is offered again by whoever sends in earnest.
        let _ = self.port.sender.try_send(&mut frames);
        assert!(frames.is_empty(), "no room for one frame");
    }

    /// Notes what has arrived.
    pub(crate) fn take_arrived(&mut self, from: &[Address]) {
        while let Ok(batch) = self.port.receiver.try_recv() {
            for inbound in batch {
                assert!(from.contains(&inbound.source), "{inbound:?} is not from {from:?}");
                assert_eq!((inbound.policy, &inbound.payload[..]), (TENANT, &[7; 1_200][..]));
                self.arrived.insert(inbound.sequence);
            }
        }
    }
}

/// All addresses of an edge.
pub(crate) fn addresses(whereabouts: Whereabouts) -> Vec<Address> {
    std::iter::once(whereabouts.first).chain(whereabouts.second).collect()
}

pub(crate) fn frame(to: Whereabouts, class: Class, sequence: u64) -> Outbound {
    Outbound {
        kind: FrameKind::Session,
        class,
        policy: PolicyId::default(),
        redundancy: Redundancy::default(),
        destination: to.first,
        alternate: to.second,
        flow: FlowId(9),
        sequence,
        budget: Millis(u16::MAX),
        payload: Bytes::from(vec![7; 1_200]),
    }
}

fn credentials(authority: &Authority, id: u16) -> Arc<Credentials> {
    let (pending, csr) = PendingKey::generate().unwrap();
    let identity = Identity::new(Role::Relay, id, authority.mesh()).unwrap();
    let now = SystemTime::now();
    let chain = authority.issue(&csr, &identity, Duration::from_secs(3_600), now).unwrap();
    Arc::new(Credentials::from_join(&pending, chain, authority.fingerprint(), now).unwrap())
}

async fn links_up(mesh: &Mesh) -> usize {
    let snapshot = Mesh::snapshot(&mesh.commands).await.unwrap();
    let up = control::State::Up;
    snapshot.links.iter().filter(|link| link.inbound() == up && link.outbound() == up).count()
}

pub(crate) async fn until(condition: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A UDP line between one edge and a relay; it can be cut, and then swallows everything.
pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    cut: Arc<AtomicBool>,
    rebind: Arc<Notify>,
}

impl Line {
    pub(crate) async fn to(relay: SocketAddr) -> Self {
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut far = towards(relay).await;
        let (address, cut) = (near.local_addr().unwrap(), Arc::<AtomicBool>::default());
        let is_cut = Arc::clone(&cut);
        let rebind = Arc::<Notify>::default();
        let rebound = Arc::clone(&rebind);
        tokio::spawn(async move {
            let (mut up, mut down) = ([0; 2_048], [0; 2_048]);
            let mut edge = None;
            loop {
                tokio::select! {
                    () = rebound.notified() => far = towards(relay).await,
                    Ok((length, from)) = near.recv_from(&mut up) => {
                        edge = Some(from);
                        if !is_cut.load(Ordering::Relaxed) {
                            let _ = far.send(&up[..length]).await;
                        }
                    }
                    Ok(length) = far.recv(&mut down) => {
                        if let Some(edge) = edge
                            && !is_cut.load(Ordering::Relaxed)
                        {
                            let _ = near.send_to(&down[..length], edge).await;
                        }
                    }
                }
            }
        });
        Self { address, cut, rebind }
    }

    /// From now on the relay sees the edge at another address.
    pub(crate) fn rebind(&self) {
        self.rebind.notify_one();
    }

    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

async fn towards(relay: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(relay).await.unwrap();
    socket
}
