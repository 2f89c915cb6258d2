//! Three mesh threads on loopback with real QUIC links: frames arrive, strangers do not get in, and a
//! line that is cut is gone around.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use overway_pki::{Authority, Credentials, Identity, PendingKey, Role};
use overway_probe::LocalClock;
use overway_relay::fault::{FaultConfig, Rule};
use overway_relay::lines::Lines;
use overway_relay::mesh::{Command, Mesh, MeshConfig, MeshOutputs};
use overway_session::{FabricSender as _, Outbound};
use overway_wire::control::{self, Item, Node, Peer, Route, RoutePath, Update};
use overway_wire::hop::Lane;
use overway_wire::{
    Address, AttachmentId, BootId, Class, FlowId, FrameKind, LinkIndex, Millis, Path, PathElement,
    PolicyId, RelayId, Ticks,
};
use tokio::sync::oneshot;

/// Long enough for a machine that does ten other things; nothing waits for it in vain.
const PATIENCE: Duration = Duration::from_secs(30);

struct Node3 {
    mesh: Mesh,
    outputs: MeshOutputs,
    _state_dir: tempfile::TempDir,
}

fn credentials(authority: &Authority, id: u16) -> Arc<Credentials> {
    let (pending, csr) = PendingKey::generate().unwrap();
    let identity = Identity::new(Role::Relay, id, authority.mesh()).unwrap();
    let now = SystemTime::now();
    let chain = authority.issue(&csr, &identity, Duration::from_secs(3_600), now).unwrap();
    Arc::new(Credentials::from_join(&pending, chain, authority.fingerprint(), now).unwrap())
}

fn start(authority: &Authority, id: u16) -> Node3 {
    let clock = LocalClock::new(Instant::now(), Ticks(u64::from(id) * 7_000_000_000), 10);
    let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let state_dir = tempfile::tempdir().unwrap();
    let (mesh, outputs) = Mesh::start(MeshConfig {
        core: overway_relay_core::Config::new(RelayId(id), BootId(u32::from(id)), clock),
        lines: Lines::load(state_dir.path(), &listen, SystemTime::now()),
        listen,
        offload: true,
        credentials: credentials(authority, id),
        reset_secret: vec![7; 32],
        fault: Some(FaultConfig::default()),
        restored: None,
    })
    .unwrap();
    Node3 { mesh, outputs, _state_dir: state_dir }
}

fn steps(relays: &[u16]) -> Vec<u8> {
    let element = |&id| PathElement::new(RelayId(id), LinkIndex::default());
    let path = Path::new(&relays.iter().map(element).collect::<Vec<_>>()).unwrap();
    let mut bytes = Vec::new();
    path.encode(&mut bytes);
    bytes
}

/// Paths from `id`: direct to everyone, but between 1 and 3 through 2 first.
fn state(id: u16, addresses: &[SocketAddr]) -> Update {
    let mut put: Vec<Item> = Vec::new();
    for (other, address) in (1..).zip(addresses).filter(|(other, _)| *other != id) {
        put.push(Node { relay: other.into(), name: format!("relay-{other}") }.into());
        put.push(
            Peer {
                neighbour: other.into(),
                remote_address: address.to_string(),
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

async fn connected(authority: &Authority) -> Vec<Node3> {
    let nodes: Vec<Node3> = (1..=3).map(|id| start(authority, id)).collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.mesh.addresses[0]).collect();
    for (id, node) in (1..).zip(&nodes) {
        let (answer, ack) = oneshot::channel();
        let update = Box::new(state(id, &addresses));
        node.mesh.commands.send(Command::Update(update, answer)).await.unwrap();
        assert!(!ack.await.unwrap().resync);
    }
    for node in &nodes {
        until(async || links_up(node).await == 2).await;
    }
    nodes
}

async fn links_up(node: &Node3) -> usize {
    let snapshot = Mesh::snapshot(&node.mesh.commands).await.unwrap();
    let up = control::State::Up;
    snapshot.links.iter().filter(|link| link.inbound() == up && link.outbound() == up).count()
}

async fn until(condition: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn frame(to: u16, class: Class, sequence: u64) -> Outbound {
    Outbound {
        kind: FrameKind::Session,
        class,
        policy: PolicyId::default(),
        redundancy: overway_wire::Redundancy::default(),
        destination: Address::new(RelayId(to), AttachmentId::GATEWAY),
        flow: FlowId(9),
        sequence,
        budget: Millis(u16::MAX),
        payload: Bytes::from(vec![7; 1_200]),
    }
}

/// Sends frames from 1 to 3 until `count` different ones have arrived.
async fn exchange(nodes: &mut [Node3], class: Class, count: usize) {
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
fn rand_start() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1_000_000, Ordering::Relaxed)
}

async fn stop(nodes: Vec<Node3>) {
    for node in nodes {
        node.mesh.stop().await;
    }
}

#[tokio::test]
async fn frames_of_every_class_cross_a_transit_relay() {
    let authority = Authority::create("test").unwrap();
    let mut nodes = connected(&authority).await;

    for class in Class::ALL {
        exchange(&mut nodes, class, 50).await;
    }

    let transit = Mesh::snapshot(&nodes[1].mesh.commands).await.unwrap();
    assert!(transit.stats.frames_forwarded >= 150, "{:?}", transit.stats);
    stop(nodes).await;
}

#[tokio::test]
async fn a_line_that_is_cut_is_gone_around() {
    let authority = Authority::create("test").unwrap();
    let mut nodes = connected(&authority).await;
    exchange(&mut nodes, Class::Realtime, 20).await;
    let cut = Rule { cut: true, ..Rule::default() };
    let (one, two) = (nodes[0].mesh.addresses[0], nodes[1].mesh.addresses[0]);
    nodes[0].mesh.fault.as_ref().unwrap().set(two, cut).unwrap();
    nodes[1].mesh.fault.as_ref().unwrap().set(one, cut).unwrap();

    exchange(&mut nodes, Class::Realtime, 100).await;

    let entry = Mesh::snapshot(&nodes[0].mesh.commands).await.unwrap();
    assert!(entry.stats.downs > 0);
    stop(nodes).await;
}

#[tokio::test]
async fn what_a_long_lossy_line_loses_is_rebuilt_from_repairs() {
    let authority = Authority::create("test").unwrap();
    let mut nodes = connected(&authority).await;
    let rule = Rule { delay: Duration::from_millis(30), loss: 0.03, ..Rule::default() };
    let (one, two) = (nodes[0].mesh.addresses[0], nodes[1].mesh.addresses[0]);
    nodes[0].mesh.fault.as_ref().unwrap().set(two, rule).unwrap();
    nodes[1].mesh.fault.as_ref().unwrap().set(one, rule).unwrap();

    let start = Instant::now();
    let bulk = Lane::Bulk.data_index().unwrap();
    loop {
        exchange(&mut nodes, Class::Interactive, 200).await;
        let transit = Mesh::snapshot(&nodes[1].mesh.commands).await.unwrap().recovery[bulk];
        if transit.rebuilt > 0 {
            // Of frames whose messages are as long as any.
            assert!(transit.repairs_received > transit.repairs_vain);
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{transit:?}");
    }
    stop(nodes).await;
}

#[tokio::test]
async fn a_relay_of_another_mesh_gets_nothing() {
    let authority = Authority::create("test").unwrap();
    let nodes = connected(&authority).await;
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.mesh.addresses[0]).collect();
    let stranger = start(&Authority::create("test").unwrap(), 1);
    let (answer, ack) = oneshot::channel();
    let update = Box::new(state(1, &addresses));
    stranger.mesh.commands.send(Command::Update(update, answer)).await.unwrap();
    ack.await.unwrap();

    until(async || {
        let snapshot = Mesh::snapshot(&stranger.mesh.commands).await.unwrap();
        snapshot.shell.dials_failed >= 2
    })
    .await;

    assert_eq!(links_up(&stranger).await, 0);
    for node in &nodes {
        assert_eq!(links_up(node).await, 2, "the mesh does not mind");
    }
    stranger.mesh.stop().await;
    stop(nodes).await;
}

#[tokio::test]
async fn a_relay_that_was_restarted_is_linked_again() {
    let authority = Authority::create("test").unwrap();
    let mut nodes = connected(&authority).await;
    let old = nodes.remove(1);
    old.mesh.stop().await;
    let new = start(&authority, 2);
    nodes.insert(1, new);
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.mesh.addresses[0]).collect();
    for (id, node) in (1..).zip(&nodes) {
        let (answer, ack) = oneshot::channel();
        let update = Box::new(Update { epoch_sequence: 2, revision: 2, ..state(id, &addresses) });
        node.mesh.commands.send(Command::Update(update, answer)).await.unwrap();
        assert!(!ack.await.unwrap().resync);
    }
    for node in &nodes {
        until(async || links_up(node).await == 2).await;
    }

    exchange(&mut nodes, Class::Interactive, 20).await;
    stop(nodes).await;
}

#[tokio::test]
async fn a_report_tells_what_was_asked_for_and_what_the_line_carried() {
    let authority = Authority::create("test").unwrap();
    let mut nodes = connected(&authority).await;
    let interval = Some(Duration::from_millis(200));
    nodes[0].mesh.commands.send(Command::SchedulerConnected(interval)).await.unwrap();
    let start = Instant::now();

    for sequence in rand_start().. {
        nodes[0].mesh.local.try_send(&mut vec![frame(3, Class::Bulk, sequence)]).unwrap();
        // Nobody is at 9: asked for all the same.
        nodes[0].mesh.local.try_send(&mut vec![frame(9, Class::Bulk, sequence)]).unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        let Ok(report) = nodes[0].outputs.reports.try_recv() else { continue };
        let demands: Vec<(u32, u32)> =
            report.demands.iter().map(|demand| (demand.destination, demand.class)).collect();
        let line = report.lines[0];
        if demands == [(3, 2), (9, 2)] && line.sent_bps > 0 && line.sent_bytes_month > 10_000 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{report:?}");
    }

    stop(nodes).await;
}
