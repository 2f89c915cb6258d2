//! A relay that drains: its edges leave without losing anything, nobody else comes in, and it can be taken back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use overway_session::{EdgePort, FarEnd, Flow, Incoming, SessionConfig, SessionEndpoint, Stream};
use overway_wire::control::NodeDrain;
use overway_wire::{Class, PolicyId, Redundancy};

use crate::stand::{PATIENCE, Stand, addresses, until};

/// What is written at once, and between two of these.
const CHUNK: usize = 1_000;
const SPACING: Duration = Duration::from_millis(10);

/// An edge's sessions; the edge is kept for its attachments.
fn sessions(stand: &Stand, edge: &mut crate::stand::Edge) -> SessionEndpoint {
    let (_, nothing) = tokio::sync::mpsc::channel(1);
    let receiver = std::mem::replace(&mut edge.port.receiver, nothing);
    let EdgePort { sender, whereabouts, .. } = &edge.port;
    let (sender, whereabouts) = (std::sync::Arc::clone(sender), whereabouts.clone());
    let port = EdgePort { sender, receiver, whereabouts };
    SessionEndpoint::for_edge(SessionConfig::default(), port, stand.identity(edge)).unwrap()
}

/// A stream and a flow between two edges: what the opener has of them, and the other end.
async fn opened(near: &SessionEndpoint, far: &SessionEndpoint, at: FarEnd) -> (Ends, Ends) {
    let opening = async {
        let stream = near.open_stream(at, Class::Interactive, "chat").await.unwrap();
        let policy = PolicyId::default();
        let flow = near.open_flow(at, policy, Redundancy::Adaptive, "chat").await.unwrap();
        Ends { stream, flow }
    };
    let accepting = async {
        let Some(Incoming::Stream(stream)) = far.accept().await else { panic!("no stream") };
        let stream = stream.accept().await.unwrap();
        let Some(Incoming::Flow(flow)) = far.accept().await else { panic!("no flow") };
        Ends { stream, flow: flow.accept().await.unwrap() }
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(opening, accepting) }).await.unwrap()
}

struct Ends {
    stream: Stream,
    flow: Flow,
}

impl Ends {
    /// Sends numbered chunks and datagrams until it is told to stop; says how many.
    async fn send(&mut self, stop: &tokio_util::sync::CancellationToken) -> u64 {
        let mut count = 0_u64;
        while !stop.is_cancelled() {
            let mut chunk = [0; CHUNK];
            chunk[..8].copy_from_slice(&count.to_be_bytes());
            self.stream.send.write_all(&chunk).await.unwrap();
            self.flow.send(&count.to_be_bytes()).unwrap();
            count += 1;
            tokio::time::sleep(SPACING).await;
        }
        self.stream.send.finish().unwrap();
        count
    }

    /// Reads the stream to its end, and as many datagrams as come until some time after: their numbers.
    async fn receive(&mut self) -> (Vec<u64>, Vec<u64>) {
        let (stream, flow) = (&mut self.stream, &self.flow);
        let over = tokio_util::sync::CancellationToken::new();
        let reading = async {
            let bytes = stream.recv.read_to_end(usize::MAX).await.unwrap();
            over.cancel();
            let number = |chunk: &[u8]| u64::from_be_bytes(chunk[..8].try_into().unwrap());
            bytes.chunks(CHUNK).map(number).collect()
        };
        let hearing = async {
            let mut heard = Vec::new();
            let late = async {
                over.cancelled().await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            };
            tokio::pin!(late);
            loop {
                tokio::select! {
                    datagram = flow.recv() => match datagram {
                        Some(datagram) => {
                            heard.push(u64::from_be_bytes(datagram[..8].try_into().unwrap()));
                        }
                        None => return heard,
                    },
                    () = &mut late => return heard,
                }
            }
        };
        tokio::join!(reading, hearing)
    }
}

#[tokio::test]
async fn a_relay_that_drains_is_left_for_another_and_no_byte_is_lost_or_comes_twice() {
    let mut stand = Stand::start().await;
    let relays: Vec<_> = stand.nodes.iter().map(|node| node.address).collect();
    let mut alice = stand.edge(1, relays.clone());
    let mut bob = stand.edge(2, relays);
    let before = alice.attached(2).await;
    let at = FarEnd::Edge { id: bob.key.id(), whereabouts: Some(bob.attached(2).await) };
    let (near, far) = (sessions(&stand, &mut alice), sessions(&stand, &mut bob));
    let (mut of_alice, mut of_bob) = opened(&near, &far, at).await;
    let stop = tokio_util::sync::CancellationToken::new();

    let drained = before.first.relay;
    let draining = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stand.drain(drained.0, NodeDrain::Leaving).await;
        let left = async || {
            [&alice, &bob].into_iter().filter_map(crate::stand::Edge::whereabouts).all(|now| {
                now.second.is_some() && addresses(now).iter().all(|at| at.relay != drained)
            })
        };
        until(left).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.cancel();
    };
    let sending = of_alice.send(&stop);
    let start = Instant::now();
    let (sent, (bytes, datagrams), ()) = tokio::join!(sending, of_bob.receive(), draining);

    assert!(start.elapsed() < PATIENCE);
    let all: Vec<u64> = (0..sent).collect();
    assert_eq!(bytes, all, "the stream");
    // Datagrams are not sent again: a machine that starves these threads may lose some, the move none.
    let once: BTreeSet<u64> = datagrams.iter().copied().collect();
    assert_eq!(once.len(), datagrams.len(), "a datagram came twice");
    assert!(once.len() * 10 >= all.len() * 9, "{} of {} datagrams", once.len(), all.len());
    let relay = &stand.nodes[usize::from(drained.0) - 1];
    assert_eq!(relay.stats().attachments, 0);
    let told = || relay.mesh.deliveries.access_use().map(|used| used.attachments);
    until(async || told() == Some(0)).await;
    stand.stop().await;
}

#[tokio::test]
async fn nobody_comes_in_while_a_relay_drains_and_who_has_no_other_stays_until_it_is_over() {
    let mut stand = Stand::start_with(1).await;
    let relay = stand.nodes[0].address;
    let alice = stand.edge(1, vec![relay]);
    alice.attached(1).await;

    stand.drain(1, NodeDrain::Leaving).await;
    until(async || alice.attachments.status().attachments.first().is_some_and(|it| it.is_draining))
        .await;
    let late = stand.edge(9, vec![relay]);
    until(async || late.attachments.status().counts.refused > 0).await;
    assert!(late.attachments.status().last_error.unwrap().contains("draining"));
    assert_eq!(stand.nodes[0].stats().attachments, 1, "there is no other relay");

    stand.drain(1, NodeDrain::None).await;
    until(async || {
        alice.attachments.status().attachments.first().is_some_and(|it| !it.is_draining)
    })
    .await;
    late.attachments.network_changed();
    late.attached(1).await;

    stand.drain(1, NodeDrain::Over).await;
    until(async || stand.nodes[0].stats().attachments == 0).await;
    until(async || {
        alice.attachments.status().last_error.is_some_and(|error| error.contains("draining"))
    })
    .await;
    stand.stop().await;
}

#[tokio::test]
async fn who_is_let_in_no_more_does_not_stay_because_the_relay_drains() {
    let mut stand = Stand::start_with(1).await;
    let alice = stand.edge(1, vec![stand.nodes[0].address]);
    alice.attached(1).await;
    stand.drain(1, NodeDrain::Leaving).await;
    until(async || alice.attachments.status().attachments.first().is_some_and(|it| it.is_draining))
        .await;

    let revoked = "t1".parse().unwrap();
    stand.change(|tenant| assert!(tenant.keys.revoked_tokens.insert(revoked))).await;

    until(async || stand.nodes[0].stats().attachments == 0).await;
    until(async || {
        alice.attachments.status().last_error.is_some_and(|error| error.contains("revoked"))
    })
    .await;
    stand.stop().await;
}
