//! A forward's policy: its frames travel under it both ways, or not at all.

use std::net::SocketAddr;

use overway_gateway::{ForwardConfig, Protocol, Refusal};
use overway_wire::PolicyId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::mesh::{KNOWN_POLICY, Mesh, forward, service, soon, until};

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

fn under(policy: &str, protocol: Protocol, service: &str) -> ForwardConfig {
    ForwardConfig { policy: Some(policy.to_owned()), ..forward(protocol, service) }
}

#[tokio::test]
async fn connections_and_flows_of_a_forward_with_a_policy_use_no_frame_without_it() {
    let mesh = Mesh::new(1, 0);
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let web = service(Protocol::Tcp, "web", listener.local_addr().unwrap());
    let pair = mesh.pair(web, under(KNOWN_POLICY.1, Protocol::Tcp, "web")).await;
    let mut client = soon(TcpStream::connect(pair.entry)).await.unwrap();
    client.write_all(b"?").await.unwrap();
    let (mut target, _) = soon(listener.accept()).await.unwrap();
    assert_eq!(soon(target.read_u8()).await.unwrap(), b'?');
    target.write_all(b"!").await.unwrap();
    assert_eq!(soon(client.read_u8()).await.unwrap(), b'!');

    let echo = UdpSocket::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let voice = service(Protocol::Udp, "voice", echo.local_addr().unwrap());
    let pair = mesh.pair(voice, under(KNOWN_POLICY.1, Protocol::Udp, "voice")).await;
    let client = UdpSocket::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    client.send_to(b"hello", pair.entry).await.unwrap();
    let mut buffer = [0; 64];
    let (count, asker) = soon(echo.recv_from(&mut buffer)).await.unwrap();
    echo.send_to(&buffer[..count], asker).await.unwrap();
    assert_eq!(soon(client.recv(&mut buffer)).await.unwrap(), 5);

    assert!(mesh.frames_under(KNOWN_POLICY.0) > 10);
    assert_eq!(mesh.frames_under(PolicyId::default()), 0);
}

#[tokio::test]
async fn clients_of_a_policy_that_is_not_known_are_refused_and_nothing_is_sent() {
    let mesh = Mesh::new(2, 0);
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let web = service(Protocol::Tcp, "web", nobody);
    let pair = mesh.pair(web, under("us-only", Protocol::Tcp, "web")).await;
    let mut client = soon(TcpStream::connect(pair.entry)).await.unwrap();
    assert!(soon(client.read_u8()).await.is_err());
    until(&pair.near, |stats| stats.refused[&Refusal::UnknownPolicy] == 1).await;

    let voice = service(Protocol::Udp, "voice", nobody);
    let pair = mesh.pair(voice, under("us-only", Protocol::Udp, "voice")).await;
    let client = UdpSocket::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    client.send_to(b"hello", pair.entry).await.unwrap();
    until(&pair.near, |stats| stats.refused[&Refusal::UnknownPolicy] == 1).await;

    assert_eq!(mesh.frames_under(PolicyId::default()), 0);
}
