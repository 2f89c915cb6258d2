//! Where UDP does not come through: edges over TLS on TCP, and who should not get in that way.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overway_access::StreamConnection;
use overway_client::{
    Discovery, Edge, EdgeConfig, Flow, FlowOptions, Incoming, OfferOptions, StreamOptions,
    TcpAccess, TransportKind,
};
use overway_dispatch::{Answer, Nearest};
use overway_pki::{ACCESS_SERVER_NAME, access_client_config};
use overway_tenant::EdgeKey;
use overway_wire::RelayId;
use overway_wire::access::messages::{Attach, FromEdge, RefusalCode, ToEdge, to_edge};
use overway_wire::access::stream::ALPN_ACCESS_TCP;
use prost::Message as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::stand::{Line, Node3, PATIENCE, Stand, until};

/// An edge whose packets over UDP end at these addresses, one for each relay.
async fn edge(stand: &Stand, seed: u8, udp: &[SocketAddr]) -> Edge {
    let tcp = stand.nodes.iter().map(|node| node.tcp_address);
    let exceptions = udp.iter().copied().zip(tcp).collect();
    let tcp = TcpAccess { port: None, exceptions };
    let config = EdgeConfig { relays: udp.to_vec(), tcp, ..stand.config(seed, |_| {}) };
    let edge = Edge::connect(config).await.unwrap();
    until(async || edge.status().attachments.len() == udp.len()).await;
    edge
}

fn goes_by(edge: &Edge, transport: TransportKind) -> bool {
    let attachments = edge.status().attachments;
    !attachments.is_empty() && attachments.iter().all(|it| it.transport == transport)
}

#[tokio::test]
async fn where_udp_is_blocked_streams_and_flows_go_over_tcp() {
    let stand = Stand::start_with(2).await;
    // They swallow everything, as a firewall does.
    let blocked = [
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
    ];
    let blocked: Vec<_> = blocked.iter().map(|socket| socket.local_addr().unwrap()).collect();
    let (walled, free) = (edge(&stand, 1, &blocked).await, stand.sdk(2).await);
    assert!(goes_by(&walled, TransportKind::Tcp) && goes_by(&free, TransportKind::Quic));
    assert_eq!(walled.status().counts.attached_tcp, 2);
    assert!(stand.nodes.iter().all(|node| node.stats().attached_tcp == 1));

    let mut offer = walled.offer("chat", OfferOptions::default()).unwrap();
    crate::sdk::offered(&free, "chat").await;
    let opened = free.open_stream("chat", StreamOptions::default());
    let (opened, accepted) = tokio::join!(opened, crate::sdk::accepted(&mut offer));
    let (mut read, mut write) = opened.unwrap().into_split();
    let echoing = tokio::spawn(async move {
        let (mut recv, mut send) = accepted.into_split();
        tokio::io::copy(&mut recv, &mut send).await.unwrap();
        send.finish().await.unwrap();
    });
    let sent: Vec<u8> = (0..1_000_000_u32).map(|at| at.to_le_bytes()[0] ^ 7).collect();
    let mut came = Vec::new();
    let (written, _) = timeout(2 * PATIENCE, async {
        tokio::join!(
            async {
                write.write_all(&sent).await.unwrap();
                write.finish().await
            },
            async { read.read_to_end(&mut came).await.unwrap() },
        )
    })
    .await
    .unwrap();
    written.unwrap();
    assert!(came == sent);
    echoing.await.unwrap();

    let opened = free.open_flow("chat", FlowOptions::default());
    let accepted = async {
        let Some(Incoming::Flow(flow)) = offer.accept().await else { panic!("no flow") };
        flow.accept().await.unwrap()
    };
    let (near, away) = tokio::join!(opened, accepted);
    let near = near.unwrap();
    for (from, to) in [(&near, &away), (&away, &near)] {
        let start = Instant::now();
        loop {
            from.send(&[7; 1_400]).unwrap();
            if let Ok(Some(datagram)) = timeout(Duration::from_millis(100), to.recv()).await {
                assert_eq!(datagram[..], [7; 1_400]);
                break;
            }
            assert!(start.elapsed() < PATIENCE);
        }
    }
    walled.close().await;
    for node in &stand.nodes {
        // Only the other edge's.
        until(async || node.stats().attachments == 1).await;
    }
    stand.stop().await;
}

/// Answers every question for access relays with these words; a URL to ask.
async fn answering(body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut asker, _)) = listener.accept().await {
            let mut asked = [0; 2_048];
            let length = body.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            // Whoever leaves before the answer is not answered.
            let _ = asker.read(&mut asked).await;
            let _ = asker.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn where_udp_is_blocked_an_edge_is_told_at_which_tcp_addresses_relays_are() {
    let stand = Stand::start_with(2).await;
    let blocked = [
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
    ];
    let relay = |(id, node): (u16, &Node3)| Nearest {
        relay: id,
        name: format!("r{id}"),
        addresses: vec![blocked[usize::from(id) - 1].local_addr().unwrap()],
        tcp_addresses: vec![node.tcp_address],
        region: String::new(),
        provider: String::new(),
        rtt_ms: None,
        state: "open".to_owned(),
        partner: false,
        why: Vec::new(),
    };
    let relays = (1..).zip(&stand.nodes).map(relay).collect();
    let url = answering(serde_json::to_string(&Answer { client: None, relays }).unwrap()).await;
    // Nobody is at the port at which TCP is tried unless something else is said.
    let tcp = TcpAccess { port: Some(1), ..TcpAccess::default() };
    let given = vec![blocked[0].local_addr().unwrap()];
    let config = EdgeConfig { relays: given, tcp, ..stand.config(1, |_| {}) };
    let edge = Edge::start(config).unwrap();

    edge.discover(Discovery { urls: vec![url], ..Discovery::default() });

    until(async || edge.status().counts.attached_tcp >= 1).await;
    assert!(stand.nodes.iter().any(|node| node.stats().attached_tcp == 1));
    edge.close().await;
    stand.stop().await;
}

#[tokio::test]
async fn an_attachment_over_tcp_goes_back_to_quic_in_its_old_place() {
    let stand = Stand::start_with(1).await;
    let line = Line::to(stand.nodes[0].address).await;
    line.cut(true);
    let (walled, free) = (edge(&stand, 1, &[line.address]).await, stand.sdk(2).await);
    assert!(goes_by(&walled, TransportKind::Tcp));
    let place = walled.status().attachments[0].address;
    let mut offer = free.offer("chat", OfferOptions::default()).unwrap();
    crate::sdk::offered(&walled, "chat").await;
    let opened = walled.open_stream("chat", StreamOptions::default());
    let (opened, mut accepted) = tokio::join!(opened, crate::sdk::accepted(&mut offer));
    let mut opened = opened.unwrap();

    let options = FlowOptions { deadline: Duration::from_secs(10), ..FlowOptions::default() };
    let opened_flow = walled.open_flow("chat", options);
    let accepted_flow = async {
        let Some(Incoming::Flow(flow)) = offer.accept().await else { panic!("no flow") };
        flow.accept().await.unwrap()
    };
    let (near, away) = tokio::join!(opened_flow, accepted_flow);
    let near = near.unwrap();

    line.cut(false);
    let stop = CancellationToken::new();
    let going = async {
        // It would look by itself every few minutes.
        walled.network_changed();
        until(async || goes_by(&walled, TransportKind::Quic)).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.cancel();
    };
    let (up, down) = (carry(&near, &away, &stop), carry(&away, &near, &stop));
    let ((), (sent_up, came_up), (sent_down, came_down)) = tokio::join!(going, up, down);
    assert!(sent_up > 100 && sent_down > 100);
    assert_eq!(came_up, (0..sent_up).collect::<BTreeSet<_>>());
    assert_eq!(came_down, (0..sent_down).collect::<BTreeSet<_>>());

    assert_eq!(walled.status().attachments[0].address, place);
    assert_eq!(stand.nodes[0].stats().replaced, 1);
    opened.write_all(b"still here").await.unwrap();
    let mut read = [0; 10];
    timeout(PATIENCE, accepted.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"still here");
    stand.stop().await;
}

/// Sends a number each millisecond until told to stop; says how many, and which of them came.
async fn carry(from: &Flow, to: &Flow, stop: &CancellationToken) -> (u64, BTreeSet<u64>) {
    let (mut sent, mut came) = (0_u64, BTreeSet::new());
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let is_over = |came: &BTreeSet<u64>, sent| stop.is_cancelled() && came.len() as u64 == sent;
    while !is_over(&came, sent) {
        tokio::select! {
            _ = tick.tick(), if !stop.is_cancelled() => {
                from.send(&sent.to_be_bytes()).unwrap();
                sent += 1;
            }
            datagram = timeout(Duration::from_secs(3), to.recv()) => match datagram {
                Ok(datagram) => {
                    let number = u64::from_be_bytes(datagram.unwrap()[..].try_into().unwrap());
                    assert!(came.insert(number), "{number} came twice");
                }
                Err(_elapsed) => break,
            },
        }
    }
    (sent, came)
}

fn tls(stand: &Stand) -> Arc<rustls::ClientConfig> {
    access_client_config(&stand.ca_pem, &[ALPN_ACCESS_TCP]).unwrap()
}

async fn dial(stand: &Stand) -> StreamConnection {
    let name = ServerName::try_from(ACCESS_SERVER_NAME).unwrap();
    let relay_of = |_: &[_]| Ok(RelayId(1));
    StreamConnection::dial(tls(stand), name, stand.nodes[0].tcp_address, relay_of).await.unwrap()
}

async fn say(connection: &StreamConnection, attach: Attach) -> to_edge::Body {
    let (mut read, mut write) = connection.control().unwrap();
    let bytes = FromEdge::from(attach).encode_to_vec();
    write.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).await.unwrap();
    write.write_all(&bytes).await.unwrap();
    let length = timeout(PATIENCE, read.read_u32()).await.unwrap().unwrap();
    let mut bytes = vec![0; length as usize];
    read.read_exact(&mut bytes).await.unwrap();
    ToEdge::decode(&bytes[..]).unwrap().body.unwrap()
}

#[tokio::test]
async fn a_proof_counts_for_its_own_connection_over_tcp_too() {
    let stand = Stand::start_with(1).await;
    let key = EdgeKey::from_seed([42; 32]);
    let attach = |signed: &StreamConnection| Attach {
        version_min: 1,
        version_max: 1,
        token: stand.token(key.id(), |_| {}),
        public_key: key.public().0.to_vec(),
        signature: key.sign(&signed.exporter()).to_vec(),
        ..Attach::default()
    };
    let (one, other) = (dial(&stand).await, dial(&stand).await);

    let answer = say(&one, attach(&other)).await;
    let to_edge::Body::Refused(refused) = answer else { panic!("{answer:?}") };
    assert_eq!(refused.code(), RefusalCode::Proof);
    timeout(PATIENCE, one.closed()).await.unwrap();
    assert_eq!(one.closed_because(), "closed by the other end (code 2)");

    let answer = say(&other, attach(&other)).await;
    assert!(matches!(answer, to_edge::Body::Attached(_)), "{answer:?}");
    assert_eq!(stand.nodes[0].stats().attached_tcp, 1);
    stand.stop().await;
}

/// Reads until the relay closes, which it does in time.
async fn closed(mut stream: impl tokio::io::AsyncRead + Unpin) -> Duration {
    let start = Instant::now();
    let mut read = Vec::new();
    // An error is an end as well.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut read)).await.unwrap();
    start.elapsed()
}

#[tokio::test]
async fn nonsense_on_the_tcp_port_is_closed_in_time_and_keeps_nobody_out() {
    let stand = Stand::start_with(1).await;
    let relay = stand.nodes[0].tcp_address;
    let name = || ServerName::try_from(ACCESS_SERVER_NAME).unwrap();

    // No TLS at all, and TLS that does not speak of access.
    let mut web = TcpStream::connect(relay).await.unwrap();
    web.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    closed(web).await;
    let other = access_client_config(&stand.ca_pem, &[b"h2"]).unwrap();
    let other = tokio_rustls::TlsConnector::from(other);
    let tcp = TcpStream::connect(relay).await.unwrap();
    assert!(other.connect(name(), tcp).await.is_err());

    // Within TLS: a frame that is too long, of no kind, and a control message that is too long.
    for bytes in [&[0xff, 0xff, 1][..], &[0, 2, 9, 9], &[0, 5, 0, 0xff, 0xff, 0xff, 0xff]] {
        let tcp = TcpStream::connect(relay).await.unwrap();
        let tls = tokio_rustls::TlsConnector::from(tls(&stand));
        let mut tls = tls.connect(name(), tcp).await.unwrap();
        tls.write_all(bytes).await.unwrap();
        closed(tls).await;
    }
    until(async || stand.nodes[0].stats().handshakes_failed == 5).await;

    // Connections that say nothing, and one that says it slowly: an address has only so many, for five seconds.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(relay).await.unwrap());
    }
    until(async || stand.nodes[0].stats().handshakes == 105).await;
    assert!(stand.nodes[0].stats().handshakes_refused >= 60, "{:?}", stand.nodes[0].stats());
    let ends = silent.into_iter().map(|stream| tokio::spawn(closed(stream)));
    for end in ends.collect::<Vec<_>>() {
        end.await.unwrap();
    }
    let mut slow = TcpStream::connect(relay).await.unwrap();
    let start = Instant::now();
    // The head of a TLS record, one byte in a while.
    for byte in [0x16, 0x03, 0x01, 0x02].into_iter().chain(std::iter::repeat(0)) {
        if slow.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(start.elapsed() < PATIENCE, "never closed");
    }

    let blocked = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let good = edge(&stand, 1, &[blocked.local_addr().unwrap()]).await;
    assert!(goes_by(&good, TransportKind::Tcp));
    stand.stop().await;
}
