//! SOCKS5: names lead to services, other destinations only where both ends list them.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use overway_gateway::{
    DatagramDrop, Destinations, Gateway, GatewayConfig, Password, Protocol, Refusal, ServiceConfig,
    SocksConfig, SocksExit, SocksUser,
};
use overway_session::SessionEndpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::mesh::{
    Everywhere, FAR, LOOPBACK, Mesh, NEAR, assert_reset, service, soon, udp_client, until,
};

const NO_LOGIN: &[u8] = &[5, 1, 0];
const CONNECT: u8 = 1;
const BIND: u8 = 2;
const ASSOCIATE: u8 = 3;

/// A SOCKS listener and the gateway with the services.
struct Pair {
    mesh: Mesh,
    near: Gateway,
    far: Gateway,
    entry: SocketAddr,
    _endpoint: SessionEndpoint,
}

async fn pair(seed: u64, services: Vec<ServiceConfig>, socks: SocksConfig) -> Pair {
    let mesh = Mesh::new(seed, 0);
    let endpoint = mesh.endpoint(FAR);
    let config = GatewayConfig { services, ..GatewayConfig::default() };
    let nobody = Arc::new(Everywhere(Vec::new()));
    let far = Gateway::bind(config, endpoint.clone(), nobody).await.unwrap();
    let config = GatewayConfig { socks: vec![socks], ..GatewayConfig::default() };
    let resolver = Arc::new(Everywhere(vec![FAR]));
    let near = Gateway::bind(config, mesh.endpoint(NEAR), resolver).await.unwrap();
    let entry = near.local_addrs()[0].address;
    Pair { mesh, near, far, entry, _endpoint: endpoint }
}

fn socks() -> SocksConfig {
    SocksConfig::new(SocketAddr::from(LOOPBACK))
}

fn list(lines: &[String]) -> Destinations {
    lines.iter().map(|line| line.parse().unwrap()).collect()
}

fn name(host: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(host.len()).unwrap();
    [&[3, length], host.as_bytes(), &port.to_be_bytes()].concat()
}

fn address(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(address) = address else { panic!("not IPv4") };
    [&[1][..], &address.ip().octets(), &address.port().to_be_bytes()].concat()
}

/// A connection whose client has logged in without a password and sent a request.
async fn requested(entry: SocketAddr, command: u8, destination: &[u8]) -> TcpStream {
    let mut tcp = soon(TcpStream::connect(entry)).await.unwrap();
    tcp.write_all(NO_LOGIN).await.unwrap();
    expect(&mut tcp, &[5, 0]).await;
    tcp.write_all(&[&[5, command, 0], destination].concat()).await.unwrap();
    tcp
}

/// The reply's code and address.
async fn reply(tcp: &mut TcpStream) -> (u8, SocketAddr) {
    let mut reply = [0; 10];
    soon(tcp.read_exact(&mut reply)).await.unwrap();
    let [5, code, 0, 1, a, b, c, d, high, low] = reply else { panic!("{reply:?}") };
    (code, SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))))
}

async fn expect(tcp: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    soon(tcp.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, bytes);
}

async fn web() -> (TcpListener, ServiceConfig) {
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let web = service(Protocol::Tcp, "web", listener.local_addr().unwrap());
    (listener, web)
}

/// A UDP target that says who it is before what it was asked.
async fn echo(name: &'static str) -> (SocketAddr, ServiceConfig) {
    let socket = UdpSocket::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2_000];
        loop {
            let (count, asker) = socket.recv_from(&mut buffer).await.unwrap();
            let answer = [name.as_bytes(), &buffer[..count]].concat();
            socket.send_to(&answer, asker).await.unwrap();
        }
    });
    (address, service(Protocol::Udp, name, address))
}

async fn ask(client: &UdpSocket, header: &[u8], question: &[u8]) -> Vec<u8> {
    client.send(&[header, question].concat()).await.unwrap();
    let mut buffer = vec![0; 2_000];
    let count = soon(client.recv(&mut buffer)).await.unwrap();
    buffer.truncate(count);
    buffer
}

#[tokio::test]
async fn a_name_leads_to_the_service_and_bytes_go_both_ways_to_their_end() {
    let (listener, web) = web().await;
    let pair = pair(81, vec![web], socks()).await;

    let mut client = requested(pair.entry, CONNECT, &name("WEB.overway", 8_080)).await;
    assert_eq!(reply(&mut client).await.0, 0);
    let (mut target, _) = soon(listener.accept()).await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(target.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"question");
    target.write_all(b"answer").await.unwrap();
    drop(target);

    got.clear();
    soon(client.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"answer");
    until(&pair.near, |stats| stats.connections_active == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_a_page_by_the_services_name_with_a_password() {
    let (listener, web) = web().await;
    let password = Password::Inline("secret".to_owned());
    let users = vec![SocksUser { name: "alice".to_owned(), password }];
    let pair = pair(82, vec![web], SocksConfig { users, ..socks() }).await;
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(tcp.read_u8().await.unwrap());
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\na page\n";
        tcp.write_all(answer).await.unwrap();
    });
    let proxy = pair.entry.to_string();
    let curl = move || {
        let arguments = ["-sS", "--proxy-user", "alice:secret", "--socks5-hostname", &proxy];
        Command::new("curl").args(arguments).arg("http://web.overway/").env("NO_PROXY", "").output()
    };

    let output = soon(tokio::task::spawn_blocking(curl)).await.unwrap();

    match output {
        Ok(output) => {
            assert_eq!(output.stdout, b"a page\n", "{}", String::from_utf8_lossy(&output.stderr));
        }
        // The other tests speak SOCKS by themselves.
        Err(error) => eprintln!("curl is not here: {error}"),
    }
}

#[tokio::test]
async fn a_client_without_the_password_gets_nowhere() {
    let (_listener, web) = web().await;
    let password = Password::Inline("secret".to_owned());
    let users = vec![SocksUser { name: "alice".to_owned(), password }];
    let pair = pair(83, vec![web], SocksConfig { users, ..socks() }).await;

    let mut nobody = soon(TcpStream::connect(pair.entry)).await.unwrap();
    nobody.write_all(NO_LOGIN).await.unwrap();
    expect(&mut nobody, &[5, 0xff]).await;
    assert_eq!(soon(nobody.read(&mut [0])).await.unwrap(), 0);

    let mut wrong = soon(TcpStream::connect(pair.entry)).await.unwrap();
    wrong.write_all(&[5, 2, 0, 2]).await.unwrap();
    expect(&mut wrong, &[5, 2]).await;
    wrong.write_all(b"\x01\x05alice\x06public").await.unwrap();
    expect(&mut wrong, &[1, 1]).await;
    assert_eq!(soon(wrong.read(&mut [0])).await.unwrap(), 0);

    until(&pair.near, |stats| stats.refused[&Refusal::SocksCredentials] == 2).await;
    assert_eq!(pair.far.stats().connections_served, 0);
}

#[tokio::test]
async fn what_is_no_service_is_refused_unless_the_operator_allows_more() {
    let (listener, web) = web().await;
    let only = SocksConfig { services: Some(["web".to_owned()].into()), ..socks() };
    let pair = pair(84, vec![web], only).await;
    let target = listener.local_addr().unwrap();

    let elsewhere = [
        address(target),
        name("localhost", target.port()),
        name("127.0.0.1", target.port()),
        name("other.overway", 80),
        name("a.web.overway", 80),
        name("overway", 80),
    ];
    for destination in &elsewhere {
        let mut client = requested(pair.entry, CONNECT, destination).await;
        assert_eq!(reply(&mut client).await.0, 2, "{destination:?}");
        assert_eq!(soon(client.read(&mut [0])).await.unwrap(), 0);
    }

    let refused = pair.near.stats().refused[&Refusal::NotAllowed];
    assert_eq!(refused, elsewhere.len() as u64);
    assert_eq!(pair.mesh.frames_under(overway_wire::PolicyId::default()), 0);
}

#[tokio::test]
async fn what_is_no_socks_is_reset_and_counted() {
    let (_listener, web) = web().await;
    let pair = pair(85, vec![web], socks()).await;

    let garbage: [&[u8]; 3] =
        [b"GET / HTTP/1.1\r\n\r\n", b"\x04\x01\x00\x50\x7f\0\0\x01\0", &[0; 600]];
    for bytes in garbage {
        let mut client = soon(TcpStream::connect(pair.entry)).await.unwrap();
        client.write_all(bytes).await.unwrap();
        assert_reset(&mut client).await;
    }
    until(&pair.near, |stats| stats.refused[&Refusal::SocksMalformed] == 3).await;

    let mut bind = requested(pair.entry, BIND, &name("web.overway", 80)).await;
    assert_eq!(reply(&mut bind).await.0, 7);
    let mut unknown = requested(pair.entry, CONNECT, &[9, 0, 0, 0]).await;
    assert_eq!(reply(&mut unknown).await.0, 8);
    until(&pair.near, |stats| stats.refused[&Refusal::SocksCommand] == 2).await;
}

#[tokio::test]
async fn a_client_that_does_not_say_what_it_wants_is_reset_in_time() {
    let (_listener, web) = web().await;
    let pair = pair(86, vec![web], socks()).await;
    let mut slow = soon(TcpStream::connect(pair.entry)).await.unwrap();
    slow.write_all(&[5]).await.unwrap();

    assert_reset(&mut slow).await;

    assert_eq!(pair.near.stats().refused[&Refusal::SocksTimedOut], 1);
}

#[tokio::test]
async fn a_service_that_nobody_offers_is_told_as_refused() {
    let pair = pair(87, Vec::new(), socks()).await;

    let mut client = requested(pair.entry, CONNECT, &name("web.overway", 80)).await;

    assert_eq!(reply(&mut client).await.0, 5);
    until(&pair.near, |stats| stats.refused[&Refusal::Declined] == 1).await;
}

#[tokio::test]
async fn an_exit_leads_to_what_both_ends_list() {
    let (listener, _) = web().await;
    let (other, _) = self::web().await;
    let (listed, here_only) = (listener.local_addr().unwrap(), other.local_addr().unwrap());
    let exit = list(&[listed.to_string()]);
    let allow = list(&[listed.to_string(), here_only.to_string()]);
    let out = ServiceConfig::new(Protocol::Tcp, "out", exit);
    let exit = Some(SocksExit { service: "out".to_owned(), allow });
    let pair = pair(88, vec![out], SocksConfig { exit, ..socks() }).await;

    let mut client = requested(pair.entry, CONNECT, &address(listed)).await;
    assert_eq!(reply(&mut client).await.0, 0);
    let (mut target, _) = soon(listener.accept()).await.unwrap();
    client.write_all(b"!").await.unwrap();
    assert_eq!(soon(target.read_u8()).await.unwrap(), b'!');

    let mut client = requested(pair.entry, CONNECT, &address(here_only)).await;
    assert_eq!(reply(&mut client).await.0, 5);
    assert_eq!(pair.far.stats().refused[&Refusal::NotAllowed], 1);
    let mut client = requested(pair.entry, CONNECT, &name("localhost", listed.port())).await;
    assert_eq!(reply(&mut client).await.0, 2);
    assert_eq!(pair.near.stats().refused[&Refusal::NotAllowed], 1);
}

#[tokio::test]
async fn an_exit_cannot_be_asked_for_as_a_service() {
    let exit = list(&["*:443".to_owned()]);
    let out = ServiceConfig::new(Protocol::Tcp, "out", exit);
    let pair = pair(89, vec![out], socks()).await;

    let mut client = requested(pair.entry, CONNECT, &name("out.overway", 443)).await;

    assert_eq!(reply(&mut client).await.0, 5);
    assert_eq!(pair.far.stats().refused[&Refusal::NotAllowed], 1);
}

#[tokio::test]
async fn datagrams_of_an_association_go_where_each_says_until_its_connection_ends() {
    let (_, one) = echo("one").await;
    let (outside, _) = echo("outside").await;
    let (_, two) = echo("two").await;
    let listed = list(&[outside.to_string()]);
    let out = ServiceConfig::new(Protocol::Udp, "out", listed.clone());
    let exit = Some(SocksExit { service: "out".to_owned(), allow: listed });
    let pair = pair(90, vec![one, two, out], SocksConfig { exit, ..socks() }).await;
    let nowhere = address(SocketAddr::from(([0, 0, 0, 0], 0)));
    let mut control = requested(pair.entry, ASSOCIATE, &nowhere).await;
    let (code, relay) = reply(&mut control).await;
    assert_eq!(code, 0);
    let client = udp_client(relay).await;
    let header = |destination: &[u8]| [&[0, 0, 0], destination].concat();
    let to_one = header(&name("one.overway", 53));
    let to_two = header(&name("two.overway", 1));
    let to_outside = header(&address(outside));

    for question in [&b"?"[..], b""] {
        assert_eq!(ask(&client, &to_one, question).await, [&*to_one, b"one", question].concat());
        assert_eq!(ask(&client, &to_two, question).await, [&*to_two, b"two", question].concat());
        let answer = ask(&client, &to_outside, question).await;
        assert_eq!(answer, [&*to_outside, b"outside", question].concat());
    }
    assert_eq!(pair.near.stats().flows_opened, 3);

    drop(control);
    until(&pair.near, |stats| stats.flows_active == 0 && stats.connections_active == 0).await;
    until(&pair.far, |stats| stats.flows_active == 0).await;
}

#[tokio::test]
async fn datagrams_that_an_association_does_not_carry_are_counted() {
    let (address_of_one, one) = echo("one").await;
    let pair = pair(91, vec![one], socks()).await;
    let mine = UdpSocket::bind(SocketAddr::from(LOOPBACK)).await.unwrap();
    let declared = address(mine.local_addr().unwrap());
    let mut control = requested(pair.entry, ASSOCIATE, &declared).await;
    let (_, relay) = reply(&mut control).await;
    mine.connect(relay).await.unwrap();
    let stranger = udp_client(relay).await;
    let header = [&[0, 0, 0][..], &name("one.overway", 53)].concat();

    stranger.send(&header).await.unwrap();
    until(&pair.near, |stats| stats.dropped[&DatagramDrop::Untrusted] == 1).await;
    let mut fragment = header.clone();
    fragment[2] = 1;
    for bytes in [&*fragment, b"", b"\0\0\0\x03\xffshort", b"\0\0\0\x09\0\0\0\0\0\0\0\0"] {
        mine.send(bytes).await.unwrap();
    }
    until(&pair.near, |stats| stats.dropped[&DatagramDrop::SocksMalformed] == 4).await;
    mine.send(&[&[0, 0, 0][..], &address(address_of_one)].concat()).await.unwrap();
    until(&pair.near, |stats| stats.dropped[&DatagramDrop::NotAllowed] == 1).await;

    assert_eq!(ask(&mine, &header, b"?").await, [&*header, b"one?"].concat());
    assert_eq!(pair.near.stats().flows_opened, 1);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_associations() {
    let (_, one) = echo("one").await;
    let pair = pair(92, vec![one], socks()).await;
    let nowhere = address(SocketAddr::from(([0, 0, 0, 0], 0)));
    let mut control = requested(pair.entry, ASSOCIATE, &nowhere).await;
    assert_eq!(reply(&mut control).await.0, 0);

    // With an hour's grace: only what is waited for would take it.
    soon(pair.near.shutdown(std::time::Duration::from_secs(3_600))).await;

    assert_eq!(soon(control.read(&mut [0])).await.unwrap_or(0), 0);
}
