//! Limits of a listener: connections that nobody uses, and newcomers that come too fast.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use overway_gateway::{DatagramDrop, ForwardConfig, Limits, Protocol, Refusal, ServiceConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::mesh::{LOOPBACK, Mesh, assert_reset, forward, service, soon, udp_client, until};

/// An idle time-out that tests can wait for.
const BRIEF: Option<Duration> = Some(Duration::from_millis(200));
const ONE_A_SECOND: Limits = Limits { clients_max: 4_096, clients_per_second: NonZeroU32::new(1) };

/// Resets of a connection that nobody uses, which both its ends must see: how many are the near gateway's and how
/// many the far one's.
async fn idles(seed: u64, near: Option<Duration>, far: Option<Duration>) -> (u64, u64) {
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let target = listener.local_addr().unwrap();
    let web = ServiceConfig { idle_timeout: far, ..service(Protocol::Tcp, "web", target) };
    let way = ForwardConfig { idle_timeout: near, ..forward(Protocol::Tcp, "web") };
    let pair = Mesh::new(seed, 0).pair(web, way).await;
    let mut client = soon(TcpStream::connect(pair.entry)).await.unwrap();
    let (mut target, _) = soon(listener.accept()).await.unwrap();

    assert_reset(&mut client).await;
    assert_reset(&mut target).await;

    until(&pair.near, |stats| stats.connections_active == 0).await;
    until(&pair.far, |stats| stats.connections_active == 0).await;
    (pair.near.stats().connections_expired, pair.far.stats().connections_expired)
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_reset_by_the_forwards_time_out() {
    assert_eq!(idles(51, BRIEF, None).await, (1, 0));
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_reset_by_the_services_time_out() {
    assert_eq!(idles(52, None, BRIEF).await, (0, 1));
}

#[tokio::test]
async fn connections_that_come_too_fast_are_turned_away() {
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let web = service(Protocol::Tcp, "web", listener.local_addr().unwrap());
    let slow = ForwardConfig { limits: ONE_A_SECOND, ..forward(Protocol::Tcp, "web") };
    let pair = Mesh::new(53, 0).pair(web, slow).await;

    let mut clients = Vec::new();
    soon(async {
        while pair.near.stats().refused[&Refusal::TooFast] == 0 {
            // One that is turned away may be so before it knows that it is connected.
            clients.extend(TcpStream::connect(pair.entry).await);
        }
    })
    .await;

    // The first one was let in.
    let (mut target, _) = soon(listener.accept()).await.unwrap();
    clients[0].write_all(b"?").await.unwrap();
    assert_eq!(soon(target.read_u8()).await.unwrap(), b'?');
    assert_eq!(pair.near.stats().refused[&Refusal::Full], 0);
}

#[tokio::test]
async fn udp_clients_that_come_too_fast_have_no_place_and_those_that_have_one_keep_it() {
    let echo = tokio::net::UdpSocket::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let voice = service(Protocol::Udp, "voice", echo.local_addr().unwrap());
    let slow = ForwardConfig { limits: ONE_A_SECOND, ..forward(Protocol::Udp, "voice") };
    let pair = Mesh::new(54, 0).pair(voice, slow).await;
    let first = udp_client(pair.entry).await;
    let mut buffer = [0; 64];
    first.send(b"mine").await.unwrap();
    assert_eq!(soon(echo.recv(&mut buffer)).await.unwrap(), 4);

    soon(async {
        while pair.near.stats().dropped[&DatagramDrop::TooFast] == 0 {
            udp_client(pair.entry).await.send(b"more").await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;

    first.send(b"mine again").await.unwrap();
    soon(async { while echo.recv(&mut buffer).await.unwrap() != 10 {} }).await;
}
