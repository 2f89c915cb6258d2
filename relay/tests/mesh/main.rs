//! Three mesh threads on loopback with real QUIC links: frames arrive, strangers do not get in, and a
//! line that is cut is gone around.

mod stand;
mod workers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use overway_pki::{Authority, Identity, Role};
use overway_relay::fault::Rule;
use overway_relay::mesh::{Command, Mesh};
use overway_session::FabricSender as _;
use overway_wire::Class;
use overway_wire::control::State;
use overway_wire::hop::Lane;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint};
use tokio::sync::oneshot;

use stand::{
    PATIENCE, connected, credentials, exchange, frame, links_up, push, push_without_waiting,
    rand_start, start, state, stop, until,
};

async fn forwarded(node: &stand::Node3) -> u64 {
    Mesh::snapshot(&node.mesh.commands).await.unwrap().stats.frames_forwarded
}

#[tokio::test]
async fn frames_of_every_class_cross_a_transit_relay() {
    let authority = Authority::create("test").unwrap();
    let mut nodes = connected(&authority).await;

    for class in Class::ALL {
        // While a machine stands still links fall silent, and frames go around the transit relay.
        let (start, before) = (Instant::now(), forwarded(&nodes[1]).await);
        while forwarded(&nodes[1]).await < before + 50 {
            exchange(&mut nodes, class, 50).await;
            assert!(start.elapsed() < PATIENCE, "{class}");
        }
    }
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
async fn a_line_too_narrow_for_frames_is_gone_around_and_told() {
    let authority = Authority::create("test").unwrap();
    let narrow = Rule { mtu: Some(1_280), ..Rule::default() };
    let mut nodes: Vec<_> = (1..=3).map(|id| start(&authority, id)).collect();
    let (one, two) = (nodes[0].mesh.addresses[0], nodes[1].mesh.addresses[0]);
    nodes[0].mesh.fault.as_ref().unwrap().set(two, narrow).unwrap();
    nodes[1].mesh.fault.as_ref().unwrap().set(one, narrow).unwrap();

    push_without_waiting(&nodes, 1).await;
    until(async || {
        let links = Mesh::snapshot(&nodes[0].mesh.commands).await.unwrap().links;
        links.iter().any(|link| {
            let heard = link.inbound() == State::Up && link.outbound() == State::Down;
            link.neighbour == 2 && heard && (1_200..=1_280).contains(&link.mtu)
        }) && links.iter().any(|link| link.neighbour == 3 && link.mtu >= 1_304)
    })
    .await;

    exchange(&mut nodes, Class::Bulk, 50).await;

    nodes[0].mesh.fault.as_ref().unwrap().restore(two);
    nodes[1].mesh.fault.as_ref().unwrap().restore(one);
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
    let stranger = start(&Authority::create("test").unwrap(), 1);
    let (answer, ack) = oneshot::channel();
    let update = Box::new(state(1, &nodes));
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

/// What becomes of a connection of relay 3's that says this hello.
async fn answer_to(hello: &[u8]) -> ConnectionError {
    let authority = Authority::create("test").unwrap();
    let node = start(&authority, 1);
    let credentials = credentials(&authority, 3);
    let tls = overway_pki::client_config(&credentials, &[overway_pki::ALPN_MESH]);
    let config = QuicClientConfig::try_from(tls).unwrap();
    let name = Identity::new(Role::Relay, 1, authority.mesh()).unwrap();
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(config));
    let address = node.mesh.addresses[0];
    let dialled = endpoint.connect_with(config, address, &name.server_name()).unwrap();
    let connection = dialled.await.unwrap();
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(hello).await.unwrap();
    stream.finish().unwrap();
    let closed = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
    node.mesh.stop().await;
    closed
}

#[tokio::test]
async fn a_hello_of_another_version_or_for_no_shard_is_refused() {
    for hello in [&[1, 0, 0][..], &[3, 0, 0, 0, 0], &[2, 0, 0, 16], &[2, 0, 9, 0]] {
        let ConnectionError::ApplicationClosed(closed) = answer_to(hello).await else {
            panic!("{hello:?} was not refused")
        };
        assert_eq!((closed.error_code, &closed.reason[..]), (3_u32.into(), &b"bad hello"[..]));
    }
}

#[tokio::test]
async fn a_relay_that_was_restarted_is_linked_again() {
    let authority = Authority::create("test").unwrap();
    let mut nodes = connected(&authority).await;
    let old = nodes.remove(1);
    old.mesh.stop().await;
    let new = start(&authority, 2);
    nodes.insert(1, new);
    push(&nodes, 2).await;

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
