//! UDP forwards: each client has its own flow and gets its own answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use overway_gateway::{
    DATAGRAM_BYTES_MAX, DatagramDrop, ForwardConfig, Protocol, Refusal, ServiceConfig,
};
use tokio::net::UdpSocket;

use crate::mesh::{
    FAR, LOOPBACK, Mesh, ONE_CLIENT, forward, offering, pattern, service, soon,
    udp_client as client, until,
};

/// An idle time-out that tests can wait for.
const BRIEF: Duration = Duration::from_millis(50);
/// How long a client waits for an answer before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A target that sends back what it gets, and knows who asked.
struct Echo {
    address: SocketAddr,
    askers: Arc<Mutex<BTreeSet<SocketAddr>>>,
}

impl Echo {
    async fn start() -> Self {
        let socket = UdpSocket::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let askers = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = Arc::clone(&askers);
        tokio::spawn(async move {
            let mut buffer = [0; 2 * DATAGRAM_BYTES_MAX];
            loop {
                let (count, asker) = socket.recv_from(&mut buffer).await.unwrap();
                noted.lock().unwrap().insert(asker);
                socket.send_to(&buffer[..count], asker).await.unwrap();
            }
        });
        Self { address, askers }
    }

    fn askers(&self) -> usize {
        self.askers.lock().unwrap().len()
    }
}

async fn answer(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 2 * DATAGRAM_BYTES_MAX];
    let count = soon(client.recv(&mut buffer)).await.unwrap();
    buffer.truncate(count);
    buffer
}

/// Asks until the answer comes, as a client does that knows UDP.
async fn ask(client: &UdpSocket, question: &[u8]) {
    soon(async {
        loop {
            client.send(question).await.unwrap();
            let mut buffer = vec![0; 2 * DATAGRAM_BYTES_MAX];
            let waited = tokio::time::timeout(ASK_AGAIN, client.recv(&mut buffer)).await;
            if waited.is_ok_and(|count| buffer[..count.unwrap()] == *question) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn full_datagrams_of_several_clients_are_answered_to_each_his_own() {
    let echo = Echo::start().await;
    let mesh = Mesh::new(31, 0);
    let pair = mesh
        .pair(service(Protocol::Udp, "echo", echo.address), forward(Protocol::Udp, "echo"))
        .await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(client(pair.entry).await);
    }

    // The first round is sent before any flow is open.
    for round in 0..10 {
        for (who, client) in (0_u64..).zip(&clients) {
            let question = pattern(100 * round + who, DATAGRAM_BYTES_MAX);
            client.send(&question).await.unwrap();
        }
        for (who, client) in (0_u64..).zip(&clients) {
            assert!(answer(client).await == pattern(100 * round + who, DATAGRAM_BYTES_MAX));
        }
    }

    assert_eq!(echo.askers(), 5);
    let stats = pair.near.stats();
    assert_eq!((stats.flows_opened, stats.flows_active), (5, 5));
    assert_eq!((stats.datagrams_to_mesh, stats.datagrams_from_mesh), (50, 50));
    assert_eq!(stats.datagram_bytes_to_mesh, 50 * DATAGRAM_BYTES_MAX as u64);
    assert!(stats.dropped.values().all(|count| *count == 0));
}

#[tokio::test]
async fn datagrams_sent_while_the_flow_opens_are_kept_up_to_a_bound() {
    let echo = Echo::start().await;
    let mesh = Mesh::new(32, 0);
    let pair = mesh
        .pair(service(Protocol::Udp, "echo", echo.address), forward(Protocol::Udp, "echo"))
        .await;
    let client = client(pair.entry).await;

    for number in 0..40_u8 {
        client.send(&[number]).await.unwrap();
    }

    for number in 0..40_u8 {
        assert_eq!(answer(&client).await, [number]);
    }
}

#[tokio::test]
async fn an_empty_datagram_is_carried_and_one_that_is_too_long_is_dropped() {
    let echo = Echo::start().await;
    let mesh = Mesh::new(33, 0);
    let pair = mesh
        .pair(service(Protocol::Udp, "echo", echo.address), forward(Protocol::Udp, "echo"))
        .await;
    let client = client(pair.entry).await;

    client.send(&[7; DATAGRAM_BYTES_MAX + 1]).await.unwrap();
    client.send(&[]).await.unwrap();

    assert!(answer(&client).await.is_empty());
    assert_eq!(pair.near.stats().dropped[&DatagramDrop::Oversize], 1);
}

#[tokio::test]
async fn an_idle_client_gives_up_its_place_and_gets_a_new_one() {
    let echo = Echo::start().await;
    let mesh = Mesh::new(34, 0);
    let brief = ForwardConfig { idle_timeout: Some(BRIEF), ..forward(Protocol::Udp, "echo") };
    let pair = mesh.pair(service(Protocol::Udp, "echo", echo.address), brief).await;
    let client = client(pair.entry).await;
    ask(&client, b"first").await;

    until(&pair.near, |stats| stats.flows_active == 0).await;
    until(&pair.far, |stats| stats.flows_active == 0).await;
    assert!(pair.near.stats().flows_expired >= 1);

    ask(&client, b"second").await;
    assert!(pair.near.stats().flows_opened >= 2);
}

#[tokio::test]
async fn a_served_flow_that_is_idle_ends_and_is_opened_again_for_the_next_datagram() {
    let echo = Echo::start().await;
    let mesh = Mesh::new(35, 0);
    let brief =
        ServiceConfig { idle_timeout: Some(BRIEF), ..service(Protocol::Udp, "echo", echo.address) };
    let pair = mesh.pair(brief, forward(Protocol::Udp, "echo")).await;
    let client = client(pair.entry).await;
    ask(&client, b"first").await;

    until(&pair.far, |stats| stats.flows_active == 0).await;
    ask(&client, b"second").await;

    assert!(pair.far.stats().flows_expired >= 1);
    assert_eq!(pair.near.stats().flows_active, 1);
    assert!(pair.near.stats().flows_opened >= 2);
}

#[tokio::test]
async fn a_client_is_answered_again_after_the_far_gateway_started_anew() {
    let echo = Echo::start().await;
    let mesh = Mesh::new(36, 0);
    let offered = service(Protocol::Udp, "echo", echo.address);
    let pair = mesh.pair(offered.clone(), forward(Protocol::Udp, "echo")).await;
    let client = client(pair.entry).await;
    ask(&client, b"before").await;

    pair.far.shutdown(Duration::ZERO).await;
    soon(pair.far_endpoint.close()).await;
    let _far = offering(offered, mesh.endpoint(FAR)).await;

    ask(&client, b"after").await;
    assert_eq!(pair.near.stats().flows_active, 1);
}

#[tokio::test]
async fn a_service_that_is_not_listed_gets_no_datagrams() {
    let echo = Echo::start().await;
    let mesh = Mesh::new(37, 0);
    let listed = service(Protocol::Udp, "echo", echo.address);
    let pair = mesh.pair(listed, forward(Protocol::Udp, "secret")).await;
    let client = client(pair.entry).await;

    client.send(b"knock").await.unwrap();

    until(&pair.near, |stats| stats.dropped[&DatagramDrop::NoFlow] == 1).await;
    assert_eq!(pair.near.stats().refused[&Refusal::Declined], 1);
    assert_eq!(pair.far.stats().refused[&Refusal::Unlisted], 1);
    assert_eq!(echo.askers(), 0);
}

#[tokio::test]
async fn a_client_beyond_the_maximum_has_no_place_until_another_leaves() {
    let echo = Echo::start().await;
    let mesh = Mesh::new(38, 0);
    let one = ForwardConfig {
        limits: ONE_CLIENT,
        idle_timeout: Some(BRIEF),
        ..forward(Protocol::Udp, "echo")
    };
    let pair = mesh.pair(service(Protocol::Udp, "echo", echo.address), one).await;
    let (first, second) = (client(pair.entry).await, client(pair.entry).await);

    soon(async {
        while pair.near.stats().dropped[&DatagramDrop::NoPlace] == 0 {
            first.send(b"mine").await.unwrap();
            second.send(b"mine too").await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;

    until(&pair.near, |stats| stats.flows_active == 0).await;
    ask(&second, b"now").await;
}
