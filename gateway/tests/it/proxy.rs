//! PROXY protocol: the target hears of the true client, and only trusted proxies are believed.

use std::net::SocketAddr;

use overway_gateway::{
    DatagramDrop, ForwardConfig, Protocol, ProxyProtocol, Refusal, ServiceConfig,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::mesh::{
    LOOPBACK, Mesh, Pair, assert_reset, assert_turned_away, forward, service, soon, udp_client,
    until,
};

const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;

/// A header of version 2, as the specification has it, for IPv4.
fn header(transport: u8, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (source, destination) else {
        panic!("not IPv4")
    };
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    header.extend_from_slice(&[0x10 | transport, 0, 12]);
    header.extend_from_slice(&from.ip().octets());
    header.extend_from_slice(&to.ip().octets());
    header.extend_from_slice(&from.port().to_be_bytes());
    header.extend_from_slice(&to.port().to_be_bytes());
    header
}

fn told(transport: u8, client: u8) -> Vec<u8> {
    let source = SocketAddr::from(([192, 0, 2, client], 4_660));
    header(transport, source, SocketAddr::from(([198, 51, 100, 1], 443)))
}

/// What a connection or a datagram brings.
async fn expect(tcp: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    soon(tcp.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, bytes);
}

async fn expect_datagram(socket: &UdpSocket, bytes: &[u8]) -> SocketAddr {
    let mut buffer = [0; 2_000];
    let (count, from) = soon(socket.recv_from(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..count], bytes);
    from
}

fn accepting(protocol: Protocol, mode: ProxyProtocol, trusted: &str) -> ForwardConfig {
    ForwardConfig {
        proxy_protocol: Some(mode),
        trusted: vec![trusted.parse().unwrap()],
        ..forward(protocol, "told")
    }
}

/// A pair of gateways whose target is told of clients at the front of connections.
async fn tcp_pair(seed: u64, forward: ForwardConfig) -> (Pair, TcpListener) {
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let told = ServiceConfig {
        proxy_protocol: Some(ProxyProtocol::Tcp),
        ..service(Protocol::Tcp, "told", listener.local_addr().unwrap())
    };
    (Mesh::new(seed, 0).pair(told, forward).await, listener)
}

async fn udp_pair(seed: u64, mode: ProxyProtocol, forward: ForwardConfig) -> (Pair, UdpSocket) {
    let target = UdpSocket::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let told = ServiceConfig {
        proxy_protocol: Some(mode),
        ..service(Protocol::Udp, "told", target.local_addr().unwrap())
    };
    (Mesh::new(seed, 0).pair(told, forward).await, target)
}

#[tokio::test]
async fn a_target_that_wants_to_know_is_told_of_the_forwards_own_client() {
    let (pair, listener) = tcp_pair(61, forward(Protocol::Tcp, "told")).await;
    let mut client = soon(TcpStream::connect(pair.entry)).await.unwrap();
    client.write_all(b"hello").await.unwrap();

    let (mut target, _) = soon(listener.accept()).await.unwrap();

    expect(&mut target, &header(STREAM, client.local_addr().unwrap(), pair.entry)).await;
    expect(&mut target, b"hello").await;
}

#[tokio::test]
async fn a_trusted_proxys_client_is_told_of_and_its_data_follows() {
    let accept = accepting(Protocol::Tcp, ProxyProtocol::Tcp, "127.0.0.0/8");
    let (pair, listener) = tcp_pair(62, accept).await;
    let mut proxy = soon(TcpStream::connect(pair.entry)).await.unwrap();
    let told = told(STREAM, 1);
    proxy.write_all(&[&*told, b"hello"].concat()).await.unwrap();

    let (mut target, _) = soon(listener.accept()).await.unwrap();

    expect(&mut target, &told).await;
    expect(&mut target, b"hello").await;
    target.write_all(b"welcome").await.unwrap();
    expect(&mut proxy, b"welcome").await;
}

#[tokio::test]
async fn a_source_that_is_not_trusted_is_refused_whatever_it_would_send() {
    let accept = accepting(Protocol::Tcp, ProxyProtocol::Tcp, "192.0.2.0/24");
    let (pair, _listener) = tcp_pair(63, accept).await;

    // Before it has sent a byte.
    assert_turned_away(pair.entry).await;

    assert_eq!(pair.near.stats().refused[&Refusal::Untrusted], 1);
    assert_eq!(pair.far.stats().connections_served, 0);
}

#[tokio::test]
async fn a_trusted_source_that_sends_no_header_is_refused_at_once_or_in_time() {
    let accept = accepting(Protocol::Tcp, ProxyProtocol::Tcp, "127.0.0.1/32");
    let (pair, _listener) = tcp_pair(64, accept).await;

    let mut silent = soon(TcpStream::connect(pair.entry)).await.unwrap();
    let mut plain = soon(TcpStream::connect(pair.entry)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_reset(&mut plain).await;
    assert_eq!(pair.near.stats().refused[&Refusal::ProxyHeader], 1);
    let mut old = soon(TcpStream::connect(pair.entry)).await.unwrap();
    old.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").await.unwrap();
    assert_reset(&mut old).await;
    assert_eq!(pair.near.stats().refused[&Refusal::ProxyHeader], 2);

    assert_reset(&mut silent).await;
    assert_eq!(pair.near.stats().refused[&Refusal::ProxyHeader], 3);
    assert_eq!(pair.far.stats().connections_served, 0);
}

#[tokio::test]
async fn a_health_check_that_sends_nothing_is_no_bad_header() {
    let accept = accepting(Protocol::Tcp, ProxyProtocol::Tcp, "127.0.0.1/32");
    let (pair, _listener) = tcp_pair(65, accept).await;

    drop(soon(TcpStream::connect(pair.entry)).await.unwrap());

    until(&pair.near, |stats| stats.refused[&Refusal::ClientLeft] == 1).await;
    assert_eq!(pair.near.stats().refused[&Refusal::ProxyHeader], 0);
}

#[tokio::test]
async fn a_datagram_target_is_told_with_the_first_or_with_every_datagram() {
    for (seed, mode) in [(66, ProxyProtocol::UdpFirst), (67, ProxyProtocol::UdpEvery)] {
        let (pair, target) = udp_pair(seed, mode, forward(Protocol::Udp, "told")).await;
        let client = udp_client(pair.entry).await;
        let header = header(DATAGRAM, client.local_addr().unwrap(), pair.entry);

        client.send(b"one").await.unwrap();
        let served = expect_datagram(&target, &[&*header, b"one"].concat()).await;
        client.send(b"two").await.unwrap();
        let second = match mode {
            ProxyProtocol::UdpEvery => [&*header, b"two"].concat(),
            ProxyProtocol::UdpFirst | ProxyProtocol::Tcp => b"two".to_vec(),
        };
        expect_datagram(&target, &second).await;

        // Answers have none.
        target.send_to(b"answer", served).await.unwrap();
        expect_datagram(&client, b"answer").await;
    }
}

#[tokio::test]
async fn a_proxy_that_writes_a_header_in_every_datagram_may_serve_clients_by_one_port() {
    let accept = accepting(Protocol::Udp, ProxyProtocol::UdpEvery, "127.0.0.1/32");
    let (pair, target) = udp_pair(68, ProxyProtocol::UdpFirst, accept).await;
    let proxy = udp_client(pair.entry).await;
    let (alice, bob) = (told(DATAGRAM, 1), told(DATAGRAM, 2));

    proxy.send(&[&*alice, b"alice"].concat()).await.unwrap();
    let to_alice = expect_datagram(&target, &[&*alice, b"alice"].concat()).await;
    proxy.send(&[&*bob, b"bob"].concat()).await.unwrap();
    let to_bob = expect_datagram(&target, &[&*bob, b"bob"].concat()).await;
    proxy.send(&[&*alice, b"more"].concat()).await.unwrap();
    assert_eq!(expect_datagram(&target, b"more").await, to_alice);

    assert_ne!(to_alice, to_bob);
    proxy.send(b"no header").await.unwrap();
    until(&pair.near, |stats| stats.dropped[&DatagramDrop::ProxyHeader] == 1).await;
}

#[tokio::test]
async fn a_proxy_that_writes_a_header_in_the_first_datagram_has_a_port_for_each_client() {
    let accept = accepting(Protocol::Udp, ProxyProtocol::UdpFirst, "127.0.0.1/32");
    let (pair, target) = udp_pair(69, ProxyProtocol::UdpFirst, accept).await;
    let proxy = udp_client(pair.entry).await;
    let alice = told(DATAGRAM, 1);

    proxy.send(b"no header").await.unwrap();
    until(&pair.near, |stats| stats.dropped[&DatagramDrop::ProxyHeader] == 1).await;
    proxy.send(&[&*alice, b"one"].concat()).await.unwrap();
    let served = expect_datagram(&target, &[&*alice, b"one"].concat()).await;
    proxy.send(b"two").await.unwrap();

    assert_eq!(expect_datagram(&target, b"two").await, served);
}

#[tokio::test]
async fn datagrams_of_a_source_that_is_not_trusted_are_dropped() {
    let accept = accepting(Protocol::Udp, ProxyProtocol::UdpEvery, "192.0.2.0/24");
    let (pair, _target) = udp_pair(70, ProxyProtocol::UdpEvery, accept).await;
    let forger = udp_client(pair.entry).await;

    forger.send(&[&*told(DATAGRAM, 1), b"forged"].concat()).await.unwrap();

    until(&pair.near, |stats| stats.dropped[&DatagramDrop::Untrusted] == 1).await;
    assert_eq!(pair.near.stats().flows_opened, 0);
}
