//! Relays with several workers, and with others' numbers of them beside theirs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use overway_pki::Authority;
use overway_relay::fault::Rule;
use overway_relay::mesh::{Mesh, Snapshot};
use overway_session::{FabricPort, Incoming, SessionConfig, SessionEndpoint};
use overway_wire::{Address, AttachmentId, Class, PolicyId, Redundancy, RelayId};

use crate::stand::{
    Node3, PATIENCE, connected_with, exchange, links_up, push, start_at, stop, until,
};

/// Flows of each direction: so many that none of three workers is left out but by one in ten million.
const FLOWS: usize = 48;
/// Frames that show that a worker carries some.
const CARRIED: u64 = 100;
const STREAM_BYTES: usize = 200_000;

/// An end on top of a relay, that echoes what it is asked for.
fn end(id: u16, node: Node3) -> (SessionEndpoint, Mesh) {
    let Node3 { mesh, outputs, credentials, .. } = node;
    let local = Address::new(RelayId(id), AttachmentId::GATEWAY);
    let sender = Arc::clone(&mesh.local);
    let port = FabricPort { local, sender, receiver: outputs.delivered };
    let endpoint = SessionEndpoint::new(SessionConfig::default(), port, credentials).unwrap();
    tokio::spawn(echo(endpoint.clone()));
    (endpoint, mesh)
}

async fn echo(endpoint: SessionEndpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            match incoming {
                Incoming::Stream(stream) => {
                    let mut stream = stream.accept().await.unwrap();
                    // The test ends when the other end has what it wants.
                    let _ = tokio::io::copy(&mut stream.recv, &mut stream.send).await;
                    let _ = stream.send.finish();
                }
                Incoming::Flow(flow) => {
                    let flow = flow.accept().await.unwrap();
                    while let Some(datagram) = flow.recv().await {
                        let _ = flow.send(&datagram);
                    }
                }
            }
        });
    }
}

/// Streams of every class bring back what was sent.
async fn use_streams(from: &SessionEndpoint, to: u16) {
    for class in Class::ALL {
        let mut stream = from.open_stream(RelayId(to), class, "echo").await.unwrap();
        let sent: Vec<u8> = (0..=250).cycle().take(STREAM_BYTES).collect();
        let writing = async {
            stream.send.write_all(&sent).await.unwrap();
            stream.send.finish().unwrap();
        };
        let reading = stream.recv.read_to_end(STREAM_BYTES + 1);
        let (_, came) =
            tokio::time::timeout(PATIENCE, async { tokio::join!(writing, reading) }).await.unwrap();
        assert!(came.unwrap() == sent, "{class} came back otherwise");
    }
}

async fn snapshots(meshes: &[&Mesh]) -> Vec<Snapshot> {
    let mut all = Vec::new();
    for mesh in meshes {
        all.push(Mesh::snapshot(&mesh.commands).await.unwrap());
    }
    all
}

/// Flows between the ends until every worker of every relay carries frames.
async fn use_flows(ends: [&SessionEndpoint; 2], meshes: &[&Mesh]) {
    let mut flows = Vec::new();
    for (from, to) in [(0, 3), (1, 1)] {
        for _ in 0..FLOWS {
            let open = ends[from].open_flow(
                RelayId(to),
                PolicyId::default(),
                Redundancy::default(),
                "echo",
            );
            flows.push(open.await.unwrap());
        }
    }
    let (start, mut echoed) = (Instant::now(), vec![0; flows.len()]);
    loop {
        for (flow, echoed) in flows.iter().zip(&mut echoed) {
            flow.send(&[5; 400]).unwrap();
            let came = tokio::time::timeout(Duration::from_millis(200), flow.recv()).await;
            *echoed += usize::from(matches!(came, Ok(Some(_))));
        }
        let all = snapshots(meshes).await;
        let carried = |snapshot: &Snapshot| snapshot.workers.iter().all(|&it| it >= CARRIED);
        if all.iter().all(carried) && echoed.iter().all(|&count| count > 0) {
            return;
        }
        let workers: Vec<_> = all.iter().map(|snapshot| &snapshot.workers).collect();
        assert!(start.elapsed() < PATIENCE, "{workers:?}, {echoed:?}");
    }
}

async fn everything_crosses(workers: [u8; 3]) {
    let authority = Authority::create("test").unwrap();
    let mut nodes = connected_with(&authority, workers).await;
    let (there, transit) = (nodes.pop().unwrap(), nodes.pop().unwrap().mesh);
    let (here, one) = end(1, nodes.pop().unwrap());
    let (there, three) = end(3, there);

    use_streams(&here, 3).await;
    use_streams(&there, 1).await;
    use_flows([&here, &there], &[&one, &transit, &three]).await;

    for (snapshot, workers) in snapshots(&[&one, &transit, &three]).await.iter().zip(workers) {
        assert_eq!(snapshot.workers.len(), usize::from(workers));
        let taken = snapshot.stats.frames_received + snapshot.stats.frames_originated;
        assert_eq!(snapshot.workers.iter().sum::<u64>(), taken);
        assert_eq!(snapshot.shell.handed_dropped, 0);
        if cfg!(target_os = "linux") {
            assert_eq!(snapshot.shell.datagrams_moved, 0, "the kernel steers");
        }
    }
    here.close().await;
    there.close().await;
    for mesh in [one, transit, three] {
        mesh.stop().await;
    }
}

#[tokio::test]
async fn ends_with_one_worker_and_two_reach_each_other_through_three() {
    everything_crosses([1, 3, 2]).await;
}

#[tokio::test]
async fn ends_with_two_workers_and_three_reach_each_other_through_one() {
    everything_crosses([2, 1, 3]).await;
}

#[tokio::test]
async fn frames_go_around_a_line_that_is_cut_for_all_workers() {
    let authority = Authority::create("test").unwrap();
    let mut nodes = connected_with(&authority, [3, 2, 3]).await;
    exchange(&mut nodes, Class::Realtime, 20).await;
    let cut = Rule { cut: true, ..Rule::default() };
    let (one, two) = (nodes[0].mesh.addresses[0], nodes[1].mesh.addresses[0]);
    nodes[0].mesh.fault.as_ref().unwrap().set(two, cut).unwrap();
    nodes[1].mesh.fault.as_ref().unwrap().set(one, cut).unwrap();

    exchange(&mut nodes, Class::Realtime, 100).await;

    until(async || links_up(&nodes[0]).await == 1).await;
    stop(nodes).await;
}

#[tokio::test]
async fn a_relay_that_was_killed_is_linked_again_with_another_number_of_workers() {
    let authority = Authority::create("test").unwrap();
    let mut nodes = connected_with(&authority, [2, 3, 2]).await;
    exchange(&mut nodes, Class::Interactive, 50).await;
    // Nobody hears its goodbye.
    let at = nodes[1].mesh.addresses[0];
    let faults: Vec<_> = [0, 2].map(|at| Arc::clone(nodes[at].mesh.fault.as_ref().unwrap())).into();
    for fault in &faults {
        fault.set(at, Rule { cut: true, ..Rule::default() }).unwrap();
    }
    nodes.remove(1).mesh.stop().await;
    faults.iter().for_each(|fault| fault.restore(at));
    nodes.insert(1, start_at(&authority, 2, 2, at));

    push(&nodes, 2).await;

    exchange(&mut nodes, Class::Interactive, 50).await;
    let transit = Mesh::snapshot(&nodes[1].mesh.commands).await.unwrap();
    assert!(transit.stats.frames_forwarded > 0, "{:?}", transit.stats);
    stop(nodes).await;
}
