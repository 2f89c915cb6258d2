//! Another configuration while a gateway runs: what it adds works, what it removes is gone, and nobody else notices.

use std::net::SocketAddr;

use overway_gateway::{
    BindError, DatagramDrop, ForwardConfig, Gateway, GatewayConfig, Limits, Protocol, Refusal,
    ServiceConfig,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::mesh::{
    LOOPBACK, Mesh, ONE_CLIENT, Pair, assert_reset, assert_turned_away, forward, service, soon,
    udp_client, until,
};

/// A target that says its name, and then what it hears.
async fn target(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(name.as_bytes()).await.unwrap();
                let (mut from, mut to) = stream.split();
                // It ends with its client, however that goes.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// Connects, and hears the target's name.
async fn named(entry: SocketAddr, name: &str) -> TcpStream {
    let mut client = soon(TcpStream::connect(entry)).await.unwrap();
    let mut heard = vec![0; name.len()];
    soon(client.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, name.as_bytes());
    client
}

/// Fails unless what is written comes back.
async fn echoes(client: &mut TcpStream) {
    client.write_all(b"still there").await.unwrap();
    let mut heard = [0; 11];
    soon(client.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"still there");
}

fn entries(gateway: &Gateway) -> Vec<SocketAddr> {
    gateway.local_addrs().iter().map(|listening| listening.address).collect()
}

fn forwards(forwards: impl Into<Vec<ForwardConfig>>) -> GatewayConfig {
    GatewayConfig { forwards: forwards.into(), ..GatewayConfig::default() }
}

fn services(services: impl Into<Vec<ServiceConfig>>) -> GatewayConfig {
    GatewayConfig { services: services.into(), ..GatewayConfig::default() }
}

/// A pair whose far gateway offers "one" and "two".
async fn pair_of_two(seed: u64) -> Pair {
    let one = service(Protocol::Tcp, "one", target("one").await);
    let two = service(Protocol::Tcp, "two", target("two").await);
    let pair = Mesh::new(seed, 0).pair(one.clone(), forward(Protocol::Tcp, "one")).await;
    assert_eq!(pair.far.reload(services([one, two])).await.unwrap(), ["service two (tcp) added"]);
    pair
}

#[tokio::test]
async fn a_forward_that_is_added_works_and_a_connection_of_another_goes_on() {
    let pair = pair_of_two(61).await;
    let mut running = named(pair.entry, "one").await;

    let both = [forward(Protocol::Tcp, "one"), forward(Protocol::Tcp, "two")];
    let changes = pair.near.reload(forwards(both)).await.unwrap();

    let entries = entries(&pair.near);
    assert_eq!(entries[0], pair.entry);
    assert_eq!(changes, [format!("forward tcp {} to two added", entries[1])]);
    named(entries[1], "two").await;
    named(pair.entry, "one").await;
    echoes(&mut running).await;
}

#[tokio::test]
async fn a_forward_that_is_removed_listens_no_more_and_its_connections_end_by_themselves() {
    let pair = pair_of_two(62).await;
    let mut running = named(pair.entry, "one").await;

    let changes = pair.near.reload(forwards([])).await.unwrap();

    assert_eq!(changes, [format!("forward tcp {} to one removed", pair.entry)]);
    assert!(soon(TcpStream::connect(pair.entry)).await.is_err());
    echoes(&mut running).await;
    // The address is free again at once.
    let again = ForwardConfig { listen: pair.entry, ..forward(Protocol::Tcp, "two") };
    pair.near.reload(forwards([again])).await.unwrap();
    named(pair.entry, "two").await;
    echoes(&mut running).await;
}

#[tokio::test]
async fn a_forward_that_changes_takes_newcomers_by_the_new_terms_and_keeps_the_others() {
    let pair = pair_of_two(63).await;
    let mut running = named(pair.entry, "one").await;

    let other = ForwardConfig {
        limits: Limits { clients_max: 2, ..ONE_CLIENT },
        ..forward(Protocol::Tcp, "two")
    };
    let changes = pair.near.reload(forwards([other.clone()])).await.unwrap();
    assert_eq!(changes, [format!("forward tcp {} to two changed", pair.entry)]);
    assert_eq!(pair.near.reload(forwards([other])).await.unwrap(), [""; 0]);

    let _second = named(pair.entry, "two").await;
    // The one that came before has a place, too.
    assert_turned_away(pair.entry).await;
    assert_eq!(pair.near.stats().refused[&Refusal::Full], 1);
    echoes(&mut running).await;
}

#[tokio::test]
async fn an_address_that_cannot_be_had_changes_nothing() {
    let pair = pair_of_two(64).await;
    let taken = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let listen = taken.local_addr().unwrap();
    let mut running = named(pair.entry, "one").await;

    let wanted =
        [forward(Protocol::Tcp, "two"), ForwardConfig { listen, ..forward(Protocol::Tcp, "one") }];
    let error = pair.near.reload(forwards(wanted)).await.unwrap_err();

    assert!(matches!(error, BindError::Listen { address, .. } if address == listen), "{error}");
    assert_eq!(entries(&pair.near), [pair.entry]);
    named(pair.entry, "one").await;
    echoes(&mut running).await;
}

#[tokio::test]
async fn a_service_that_is_removed_refuses_newcomers_and_keeps_its_connections() {
    let pair = pair_of_two(65).await;
    let mut running = named(pair.entry, "one").await;

    let changes = pair.far.reload(services([])).await.unwrap();

    assert_eq!(changes, ["service one (tcp) removed", "service two (tcp) removed"]);
    assert_reset(&mut soon(TcpStream::connect(pair.entry)).await.unwrap()).await;
    assert_eq!(pair.far.stats().refused[&Refusal::Unlisted], 1);
    echoes(&mut running).await;
}

#[tokio::test]
async fn places_of_a_service_that_are_taken_count_when_its_limit_changes() {
    let pair = pair_of_two(66).await;
    let _running = named(pair.entry, "one").await;
    let one = service(Protocol::Tcp, "one", target("one").await);

    let full = ServiceConfig { clients_max: 1, ..one.clone() };
    pair.far.reload(services([full])).await.unwrap();
    assert_reset(&mut soon(TcpStream::connect(pair.entry)).await.unwrap()).await;
    assert_eq!(pair.far.stats().refused[&Refusal::Full], 1);

    pair.far.reload(services([ServiceConfig { clients_max: 2, ..one }])).await.unwrap();
    named(pair.entry, "one").await;
}

/// Sends until the echo hears it, as a client does that knows UDP.
async fn heard(client: &UdpSocket, echo: &UdpSocket, what: &[u8]) {
    let mut buffer = [0; 64];
    soon(async {
        loop {
            client.send(what).await.unwrap();
            let wait = std::time::Duration::from_millis(200);
            let heard = tokio::time::timeout(wait, echo.recv(&mut buffer)).await;
            if heard.is_ok_and(|count| &buffer[..count.unwrap()] == what) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn udp_clients_keep_their_flow_when_their_forward_changes_and_end_when_it_goes() {
    let echo = UdpSocket::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let voice = service(Protocol::Udp, "voice", echo.local_addr().unwrap());
    let pair = Mesh::new(67, 0).pair(voice, forward(Protocol::Udp, "voice")).await;
    let client = udp_client(pair.entry).await;
    heard(&client, &echo, b"one").await;

    let one = ForwardConfig { limits: ONE_CLIENT, ..forward(Protocol::Udp, "voice") };
    pair.near.reload(forwards([one])).await.unwrap();
    heard(&client, &echo, b"two").await;
    assert_eq!(pair.near.stats().flows_opened, 1);
    udp_client(pair.entry).await.send(b"no place").await.unwrap();
    until(&pair.near, |stats| stats.dropped[&DatagramDrop::NoPlace] > 0).await;

    pair.near.reload(forwards([])).await.unwrap();
    UdpSocket::bind(pair.entry).await.expect("the address is free");
}
