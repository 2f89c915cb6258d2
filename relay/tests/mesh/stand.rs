//! Relays on loopback: their mesh threads, with a table that a test pushes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use overway_pki::{Authority, Credentials, Identity, PendingKey, Role};
use overway_probe::LocalClock;
use overway_relay::fault::FaultConfig;
use overway_relay::lines::Lines;
use overway_relay::mesh::{Command, Mesh, MeshConfig, MeshOutputs};
use overway_session::{FabricSender as _, Outbound};
use overway_wire::control::{self, Item, Node, Peer, Route, RoutePath, Update};
use overway_wire::{
    Address, AttachmentId, BootId, Class, FlowId, FrameKind, LinkIndex, Millis, Path, PathElement,
    PolicyId, RelayId, Ticks,
};
use tokio::sync::oneshot;

/// Long enough for a machine that does ten other things; nothing waits for it in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Node3 {
    pub(crate) mesh: Mesh,
    pub(crate) outputs: MeshOutputs,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) workers: u8,
    _state_dir: tempfile::TempDir,
}

pub(crate) fn credentials(authority: &Authority, id: u16) -> Arc<Credentials> {
    let (pending, csr) = PendingKey::generate().unwrap();
    let identity = Identity::new(Role::Relay, id, authority.mesh()).unwrap();
    let now = SystemTime::now();
    let chain = authority.issue(&csr, &identity, Duration::from_secs(3_600), now).unwrap();
    Arc::new(Credentials::from_join(&pending, chain, authority.fingerprint(), now).unwrap())
}

pub(crate) fn start(authority: &Authority, id: u16) -> Node3 {
    start_at(authority, id, 1, SocketAddr::from(([127, 0, 0, 1], 0)))
}

pub(crate) fn start_at(authority: &Authority, id: u16, workers: u8, at: SocketAddr) -> Node3 {
    let clock = LocalClock::new(Instant::now(), Ticks(u64::from(id) * 7_000_000_000), 10);
    let listen = vec![at];
    let state_dir = tempfile::tempdir().unwrap();
    let credentials = credentials(authority, id);
    let (mesh, outputs) = Mesh::start(MeshConfig {
        core: overway_relay_core::Config::new(RelayId(id), BootId(u32::from(id)), clock),
        lines: Lines::load(state_dir.path(), &listen, SystemTime::now()),
        workers,
        listen,
        offload: true,
        credentials: Arc::clone(&credentials),
        reset_secret: vec![7; 32],
        fault: Some(FaultConfig::default()),
        restored: None,
    })
    .unwrap();
    Node3 { mesh, outputs, credentials, workers, _state_dir: state_dir }
}

pub(crate) fn steps(relays: &[u16]) -> Vec<u8> {
    let element = |&id| PathElement::new(RelayId(id), LinkIndex::default());
    let path = Path::new(&relays.iter().map(element).collect::<Vec<_>>()).unwrap();
    let mut bytes = Vec::new();
    path.encode(&mut bytes);
    bytes
}

/// Paths from `id`: direct to everyone, but between 1 and 3 through 2 first.
pub(crate) fn state(id: u16, nodes: &[Node3]) -> Update {
    let mut put: Vec<Item> = Vec::new();
    for (other, node) in (1..).zip(nodes).filter(|(other, _)| *other != id) {
        put.push(
            Node { relay: other.into(), name: format!("relay-{other}"), ..Node::default() }.into(),
        );
        put.push(
            Peer {
                neighbour: other.into(),
                remote_address: node.mesh.addresses[0].to_string(),
                workers: node.workers.into(),
                role: control::Role::Candidate.into(),
                ..Peer::default()
            }
            .into(),
        );
        let direct = RoutePath { steps: steps(&[other]), delay_us: 1_000, ..RoutePath::default() };
        let around = RoutePath {
            steps: steps(&[6 - id - other, other]),
            delay_us: 2_000,
            ..RoutePath::default()
        };
        let through_two = id != 2 && other != 2;
        let paths = if through_two { vec![around, direct] } else { vec![direct, around] };
        let route = |class: Class| Route {
            destination: other.into(),
            class: class.code().into(),
            paths: paths.clone(),
            ..Route::default()
        };
        put.extend(Class::ALL.map(|class| Item::from(route(class))));
    }
    Update { epoch_term: 1, epoch_sequence: 1, revision: 1, put, ..Update::default() }
}

pub(crate) async fn connected(authority: &Authority) -> Vec<Node3> {
    connected_with(authority, [1; 3]).await
}

/// Relays with so many workers each.
pub(crate) async fn connected_with(authority: &Authority, workers: [u8; 3]) -> Vec<Node3> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let start = |(id, workers)| start_at(authority, id, workers, any);
    let nodes: Vec<Node3> = (1..).zip(workers).map(start).collect();
    push(&nodes, 1).await;
    nodes
}

/// Gives all relays the table of this revision, and waits until their links stand.
pub(crate) async fn push(nodes: &[Node3], revision: u64) {
    push_without_waiting(nodes, revision).await;
    for node in nodes {
        until(async || links_up(node).await == 2).await;
    }
}

/// Gives all relays the table of this revision.
pub(crate) async fn push_without_waiting(nodes: &[Node3], revision: u64) {
    for (id, node) in (1..).zip(nodes) {
        let (answer, ack) = oneshot::channel();
        let update = Update { epoch_sequence: revision, revision, ..state(id, nodes) };
        let update = Command::Update(Box::new(update), answer);
        node.mesh.commands.send(update).await.unwrap();
        assert!(!ack.await.unwrap().resync);
    }
}

pub(crate) async fn links_up(node: &Node3) -> usize {
    let snapshot = Mesh::snapshot(&node.mesh.commands).await.unwrap();
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

pub(crate) fn frame(to: u16, class: Class, sequence: u64) -> Outbound {
    Outbound {
        kind: FrameKind::Session,
        class,
        policy: PolicyId::default(),
        redundancy: overway_wire::Redundancy::default(),
        destination: Address::new(RelayId(to), AttachmentId::GATEWAY),
        alternate: None,
        flow: FlowId(9),
        sequence,
        budget: Millis(u16::MAX),
        payload: Bytes::from(vec![7; 1_200]),
    }
}

/// Sends frames from 1 to 3 until `count` different ones have arrived.
pub(crate) async fn exchange(nodes: &mut [Node3], class: Class, count: usize) {
    let start = Instant::now();
    let mut arrived = std::collections::BTreeSet::new();
    let first = rand_start();
    for sequence in first.. {
        nodes[0].mesh.local.try_send(&mut vec![frame(3, class, sequence)]).unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        while let Ok(batch) = nodes[2].outputs.delivered.try_recv() {
            for inbound in batch.into_iter().filter(|inbound| inbound.sequence >= first) {
                assert_eq!(inbound.source, Address::new(RelayId(1), AttachmentId::GATEWAY));
                assert_eq!((inbound.payload.len(), inbound.class), (1_200, class));
                arrived.insert(inbound.sequence);
            }
        }
        if arrived.len() >= count {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "only {} of {count} arrived", arrived.len());
    }
}

/// A different range of sequences for each exchange of a test.
pub(crate) fn rand_start() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1_000_000, Ordering::Relaxed)
}

pub(crate) async fn stop(nodes: Vec<Node3>) {
    for node in nodes {
        node.mesh.stop().await;
    }
}
