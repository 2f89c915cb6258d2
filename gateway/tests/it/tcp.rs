//! TCP forwards: bytes, ends and resets arrive as they were sent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overway_gateway::{
    ForwardConfig, Gateway, GatewayConfig, Protocol, Refusal, ServiceConfig, Target,
};
use overway_wire::{Class, RelayId};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::mesh::{
    Everywhere, FAR, LOOPBACK, Mesh, NEAR, ONE_CLIENT, PATIENCE, Pair, assert_reset,
    assert_turned_away, forward, forwarding, offering, pattern, service, soon, until,
};

/// A pair of gateways, a client's connection through them, and the target's end of it.
struct Connected {
    pair: Pair,
    client: TcpStream,
    target: TcpStream,
}

async fn connected(mesh: &Mesh) -> Connected {
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let target = listener.local_addr().unwrap();
    let web = service(Protocol::Tcp, "web", target);
    let pair = mesh.pair(web, forward(Protocol::Tcp, "web")).await;
    let mut client = soon(TcpStream::connect(pair.entry)).await.unwrap();
    let (mut target, _) = soon(listener.accept()).await.unwrap();
    // Once a byte has come through, the stream is open at both ends.
    target.write_all(b"!").await.unwrap();
    assert_eq!(soon(client.read_u8()).await.unwrap(), b'!');
    Connected { pair, client, target }
}

/// A TCP address that refuses connections for as long as the socket lives.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(LOOPBACK)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn reset(tcp: TcpStream) {
    SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
    drop(tcp);
}

async fn read_all(tcp: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon(tcp.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

#[tokio::test]
async fn megabytes_arrive_equal_both_ways_at_once_over_a_fabric_with_faults() {
    let Connected { pair, client, target } = connected(&Mesh::new(3, 2)).await;
    let (up, down) = (pattern(1, 5_000_000), pattern(2, 7_000_000));
    let exchange = async |tcp: TcpStream, out: &[u8]| {
        let (mut read, mut write) = tcp.into_split();
        let mut got = Vec::new();
        let sent = async {
            write.write_all(out).await?;
            write.shutdown().await
        };
        let (sent, read) = soon(async { tokio::join!(sent, read.read_to_end(&mut got)) }).await;
        sent.unwrap();
        read.unwrap();
        got
    };

    let (at_client, at_target) = tokio::join!(exchange(client, &up), exchange(target, &down));

    assert!(at_client == down, "{} bytes of {}", at_client.len(), down.len());
    assert!(at_target == up, "{} bytes of {}", at_target.len(), up.len());
    until(&pair.near, |stats| stats.connections_active == 0).await;
    until(&pair.far, |stats| stats.connections_active == 0).await;
    let stats = pair.near.stats();
    assert_eq!(stats.stream_bytes_to_mesh, up.len() as u64);
    assert_eq!(stats.stream_bytes_from_mesh, 1 + down.len() as u64);
    assert_eq!((stats.connections_accepted, stats.connections_reset), (1, 0));
    assert_eq!(pair.far.stats().connections_served, 1);
}

#[tokio::test]
async fn a_client_that_ends_its_side_still_gets_the_whole_answer() {
    let Connected { pair, mut client, mut target } = connected(&Mesh::new(4, 0)).await;
    let (question, answer) = (pattern(1, 100_000), pattern(2, 1_000_000));

    client.write_all(&question).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(read_all(&mut target).await == question);
    let (answered, got) = tokio::join!(
        async {
            target.write_all(&answer).await.unwrap();
            drop(target);
        },
        read_all(&mut client)
    );

    let () = answered;
    assert!(got == answer);
    until(&pair.near, |stats| stats.connections_active == 0).await;
    assert_eq!(pair.near.stats().connections_reset, 0);
}

#[tokio::test]
async fn a_target_that_ends_its_side_still_gets_everything_from_the_client() {
    let Connected { pair, mut client, mut target } = connected(&Mesh::new(5, 0)).await;
    let (greeting, upload) = (pattern(1, 100_000), pattern(2, 1_000_000));

    target.write_all(&greeting).await.unwrap();
    target.shutdown().await.unwrap();
    assert!(read_all(&mut client).await == greeting);
    let (sent, got) = tokio::join!(
        async {
            client.write_all(&upload).await.unwrap();
            drop(client);
        },
        read_all(&mut target)
    );

    let () = sent;
    assert!(got == upload);
    until(&pair.far, |stats| stats.connections_active == 0).await;
    assert_eq!(pair.far.stats().connections_reset, 0);
}

#[tokio::test]
async fn a_reset_by_the_client_reaches_the_target() {
    let Connected { pair, mut client, mut target } = connected(&Mesh::new(6, 0)).await;
    client.write_all(b"half a request").await.unwrap();
    let mut got = [0; 14];
    soon(target.read_exact(&mut got)).await.unwrap();

    reset(client);

    assert_reset(&mut target).await;
    until(&pair.near, |stats| stats.connections_reset == 1).await;
    until(&pair.far, |stats| stats.connections_active == 0).await;
}

#[tokio::test]
async fn a_reset_by_the_target_reaches_the_client() {
    let Connected { pair, mut client, mut target } = connected(&Mesh::new(7, 0)).await;
    target.write_all(b"half an answer").await.unwrap();
    let mut got = [0; 14];
    soon(client.read_exact(&mut got)).await.unwrap();

    reset(target);

    assert_reset(&mut client).await;
    until(&pair.far, |stats| stats.connections_reset == 1).await;
    until(&pair.near, |stats| stats.connections_active == 0).await;
}

#[tokio::test]
async fn a_reset_after_the_clients_end_reaches_a_target_that_sends_nothing() {
    let Connected { pair, mut client, mut target } = connected(&Mesh::new(8, 0)).await;
    client.shutdown().await.unwrap();
    assert!(read_all(&mut target).await.is_empty());

    reset(client);

    until(&pair.far, |stats| stats.connections_active == 0).await;
    assert_eq!(pair.far.stats().connections_reset, 1);
    let failed = soon(async {
        loop {
            if let Err(error) = target.write_all(b"anybody there?").await {
                return error;
            }
        }
    });
    let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    assert!(kinds.contains(&failed.await.kind()));
}

#[tokio::test]
async fn a_reset_reaches_a_client_that_does_not_read() {
    let Connected { pair, mut client, mut target } = connected(&Mesh::new(9, 0)).await;
    let flood = vec![7; 64 << 20];
    let blocked = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            written = target.write_all(&flood) => panic!("64 MiB fit in buffers: {written:?}"),
            () = until(&pair.near, |stats| stats.stream_bytes_from_mesh > 1) => {}
        }
    });
    blocked.await.unwrap();

    reset(target);

    until(&pair.near, |stats| stats.connections_active == 0).await;
    assert_reset(&mut client).await;
}

#[tokio::test]
async fn an_answer_before_a_half_reset_is_delivered_first() {
    let Connected { pair, mut client, mut target } = connected(&Mesh::new(10, 0)).await;
    let answer = pattern(1, 200_000);
    client.write_all(b"question").await.unwrap();
    let mut got = [0; 8];
    soon(target.read_exact(&mut got)).await.unwrap();

    target.write_all(&answer).await.unwrap();
    drop(target);
    let mut received = vec![0; answer.len()];
    soon(client.read_exact(&mut received)).await.unwrap();
    assert!(received == answer);

    // Nobody reads this: the target's system answers with a reset.
    let failed = soon(async {
        loop {
            if let Err(error) = client.write_all(b"more").await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    });
    let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    assert!(kinds.contains(&failed.await.kind()));
    until(&pair.near, |stats| stats.connections_active == 0).await;
}

#[tokio::test]
async fn a_service_that_is_not_listed_is_refused() {
    let mesh = Mesh::new(11, 0);
    let (_held, target) = refusing();
    let listed = service(Protocol::Tcp, "web", target);
    let pair = mesh.pair(listed, forward(Protocol::Tcp, "database")).await;

    let mut client = soon(TcpStream::connect(pair.entry)).await.unwrap();

    assert_reset(&mut client).await;
    assert_eq!(pair.near.stats().refused[&Refusal::Declined], 1);
    assert_eq!(pair.far.stats().refused[&Refusal::Unlisted], 1);
    assert_eq!(pair.far.stats().connections_served, 0);
}

#[tokio::test]
async fn a_udp_service_is_not_offered_to_tcp_clients() {
    let mesh = Mesh::new(12, 0);
    let (_held, target) = refusing();
    let pair =
        mesh.pair(service(Protocol::Udp, "dns", target), forward(Protocol::Tcp, "dns")).await;

    let mut client = soon(TcpStream::connect(pair.entry)).await.unwrap();

    assert_reset(&mut client).await;
    assert_eq!(pair.far.stats().refused[&Refusal::Unlisted], 1);
}

#[tokio::test]
async fn a_client_of_a_target_that_is_down_sees_a_reset() {
    let mesh = Mesh::new(13, 0);
    let (_held, target) = refusing();
    let pair =
        mesh.pair(service(Protocol::Tcp, "web", target), forward(Protocol::Tcp, "web")).await;

    let mut client = soon(TcpStream::connect(pair.entry)).await.unwrap();

    assert_reset(&mut client).await;
    assert_eq!(pair.near.stats().refused[&Refusal::Declined], 1);
    assert_eq!(pair.far.stats().refused[&Refusal::TargetRefused], 1);
}

#[tokio::test]
async fn a_client_of_a_service_that_no_relay_offers_sees_a_reset() {
    let mesh = Mesh::new(14, 0);
    let near = forwarding(forward(Protocol::Tcp, "web"), mesh.endpoint(NEAR), Vec::new()).await;

    let mut client = soon(TcpStream::connect(near.local_addrs()[0].address)).await.unwrap();

    assert_reset(&mut client).await;
    assert_eq!(near.stats().refused[&Refusal::NoRelay], 1);
}

#[tokio::test]
async fn the_next_relay_is_asked_when_the_first_refuses() {
    let mesh = Mesh::new(15, 0);
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let (_held, down) = refusing();
    let third = RelayId(3);
    let broken = offering(service(Protocol::Tcp, "web", down), mesh.endpoint(FAR)).await;
    let target = listener.local_addr().unwrap();
    let _working = offering(service(Protocol::Tcp, "web", target), mesh.endpoint(third)).await;
    let bulk = ForwardConfig { class: Class::Bulk, ..forward(Protocol::Tcp, "web") };
    let near = forwarding(bulk, mesh.endpoint(NEAR), vec![FAR, third]).await;

    let mut client = soon(TcpStream::connect(near.local_addrs()[0].address)).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut accepted, _) = soon(listener.accept()).await.unwrap();

    assert_eq!(read_all(&mut accepted).await, b"hello");
    assert_eq!(broken.stats().refused[&Refusal::TargetRefused], 1);
    assert!(near.stats().refused.values().all(|count| *count == 0));
}

#[tokio::test]
async fn a_client_beyond_the_maximum_is_turned_away_until_another_leaves() {
    let mesh = Mesh::new(16, 0);
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let web = service(Protocol::Tcp, "web", listener.local_addr().unwrap());
    let one = ForwardConfig { limits: ONE_CLIENT, ..forward(Protocol::Tcp, "web") };
    let pair = mesh.pair(web, one).await;
    let first = soon(TcpStream::connect(pair.entry)).await.unwrap();
    let (_first_target, _) = soon(listener.accept()).await.unwrap();

    assert_turned_away(pair.entry).await;
    assert_eq!(pair.near.stats().refused[&Refusal::Full], 1);

    reset(first);
    until(&pair.near, |stats| stats.connections_active == 0).await;
    let _third = soon(TcpStream::connect(pair.entry)).await.unwrap();
    soon(listener.accept()).await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_session_resets_the_client() {
    let Connected { pair, mut client, target: _target } = connected(&Mesh::new(17, 0)).await;

    soon(pair.far_endpoint.close()).await;

    assert_reset(&mut client).await;
    until(&pair.near, |stats| stats.connections_lost == 1).await;
}

#[tokio::test]
async fn a_shutdown_lets_connections_finish_but_takes_no_new_ones() {
    let Connected { pair, mut client, mut target } = connected(&Mesh::new(18, 0)).await;
    let Pair { near, far: _far, entry, .. } = pair;
    let stopping = tokio::spawn(near.shutdown(PATIENCE));
    soon(async { while TcpStream::connect(entry).await.is_ok() {} }).await;

    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut target).await, b"last words");
    target.write_all(b"goodbye").await.unwrap();
    drop(target);

    assert_eq!(read_all(&mut client).await, b"goodbye");
    soon(stopping).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_resets_what_outlives_the_grace_period() {
    let Connected { pair, mut client, mut target } = connected(&Mesh::new(19, 0)).await;

    soon(pair.near.shutdown(Duration::ZERO)).await;

    assert_reset(&mut client).await;
    assert_reset(&mut target).await;
}

#[tokio::test]
async fn a_targets_name_leads_to_that_of_its_addresses_which_accepts() {
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let name = format!("localhost:{}", listener.local_addr().unwrap().port());
    let web = ServiceConfig::new(Protocol::Tcp, "web", name.parse::<Target>().unwrap());
    let pair = Mesh::new(21, 0).pair(web, forward(Protocol::Tcp, "web")).await;

    let mut client = soon(TcpStream::connect(pair.entry)).await.unwrap();
    client.write_all(b"!").await.unwrap();
    let (mut target, _) = soon(listener.accept()).await.unwrap();

    assert_eq!(soon(target.read_u8()).await.unwrap(), b'!');
}

#[tokio::test]
async fn an_address_in_use_is_named_by_the_error() {
    let taken = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let address = taken.local_addr().unwrap();
    let busy = ForwardConfig { listen: address, ..forward(Protocol::Tcp, "web") };
    let config = GatewayConfig { forwards: vec![busy], ..GatewayConfig::default() };
    let resolver = Arc::new(Everywhere(Vec::new()));

    let error = Gateway::bind(config, Mesh::new(20, 0).endpoint(NEAR), resolver).await.err();

    let text = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(text.starts_with(&format!("cannot listen on tcp {address}: ")), "{text}");
}
