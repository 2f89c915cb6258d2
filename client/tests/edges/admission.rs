//! Who gets in: edges written by hand, so that they can lie.

use std::sync::Arc;
use std::time::{Duration, Instant};

use overway_pki::{ACCESS_SERVER_NAME, access_client_config};
use overway_tenant::{EdgeKey, TenantKey};
use overway_wire::access::messages::{
    Attach, FromEdge, Offer, OfferedService, Offers, RefusalCode, Resolve, Resolved, ToEdge,
    from_edge, to_edge,
};
use overway_wire::access::{ALPN_ACCESS, CloseCode, EXPORTER_LABEL};
use prost::Message as _;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};

use crate::stand::{PATIENCE, Stand, token, until};

const SEED: [u8; 32] = [42; 32];

fn key() -> EdgeKey {
    EdgeKey::from_seed(SEED)
}

/// A connection on which nothing was said yet.
struct Raw {
    connection: Connection,
    _endpoint: Endpoint,
}

impl Raw {
    async fn dial(stand: &Stand) -> Self {
        let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        let connecting = endpoint
            .connect_with(config(stand), stand.nodes[0].address, ACCESS_SERVER_NAME)
            .unwrap();
        Self { connection: connecting.await.unwrap(), _endpoint: endpoint }
    }

    fn exporter(&self) -> [u8; 32] {
        let mut output = [0; 32];
        let relay = 1_u16.to_be_bytes();
        self.connection.export_keying_material(&mut output, EXPORTER_LABEL, &relay).unwrap();
        output
    }

    /// What an honest edge says.
    fn attach(&self, stand: &Stand) -> Attach {
        Attach {
            version_min: 1,
            version_max: 1,
            token: stand.token(key().id(), |_| {}),
            public_key: key().public().0.to_vec(),
            signature: key().sign(&self.exporter()).to_vec(),
            ..Attach::default()
        }
    }

    /// The relay's answer.
    async fn say(&self, attach: Attach) -> (to_edge::Body, SendStream, RecvStream) {
        let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
        write(&mut send, attach).await;
        (read(&mut receive).await, send, receive)
    }

    async fn refused(&self, attach: Attach) -> RefusalCode {
        let (answer, _send, _receive) = self.say(attach).await;
        let to_edge::Body::Refused(refused) = answer else { panic!("{answer:?}") };
        assert!(!refused.reason.is_empty());
        assert_eq!(self.closed().await, CloseCode::Refused as u64);
        refused.code()
    }

    async fn attached(&self, stand: &Stand) -> (u32, SendStream, RecvStream) {
        let (answer, send, receive) = self.say(self.attach(stand)).await;
        let to_edge::Body::Attached(attached) = answer else { panic!("{answer:?}") };
        assert_eq!((attached.relay, attached.tenant, attached.version), (1, 20, 1));
        assert!(attached.attachment >= 2);
        (attached.attachment, send, receive)
    }

    /// The code by which the relay closes.
    async fn closed(&self) -> u64 {
        match tokio::time::timeout(PATIENCE, self.connection.closed()).await.unwrap() {
            ConnectionError::ApplicationClosed(closed) => closed.error_code.into_inner(),
            other => panic!("{other:?}"),
        }
    }
}

fn config(stand: &Stand) -> quinn::ClientConfig {
    let tls = access_client_config(&stand.ca_pem, &[ALPN_ACCESS]).unwrap();
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

async fn write(send: &mut SendStream, message: impl Into<FromEdge>) {
    send.write_all(&bytes_of(&message.into())).await.unwrap();
}

fn bytes_of(message: &FromEdge) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let prefix = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&prefix[..], &bytes].concat()
}

/// Asks who offers a service; says how many.
async fn resolved(send: &mut SendStream, receive: &mut RecvStream, service: &str) -> usize {
    let resolve = Resolve { request: 1, service: service.to_owned(), class: 1 };
    write(send, resolve).await;
    match read(receive).await {
        to_edge::Body::Resolved(resolved) => resolved.endpoints.len(),
        other => panic!("{other:?}"),
    }
}

/// Offers "chat"; says what stands and what was refused.
async fn offered(send: &mut SendStream, receive: &mut RecvStream) -> Offers {
    let chat = OfferedService { name: "chat".into(), ..OfferedService::default() };
    write(send, Offer { services: vec![chat] }).await;
    match read(receive).await {
        to_edge::Body::Offers(offers) => offers,
        other => panic!("{other:?}"),
    }
}

async fn read(receive: &mut RecvStream) -> to_edge::Body {
    let mut prefix = [0; 4];
    let came = tokio::time::timeout(PATIENCE, receive.read_exact(&mut prefix)).await;
    came.expect("the relay says something").unwrap();
    let mut bytes = vec![0; u32::from_be_bytes(prefix) as usize];
    receive.read_exact(&mut bytes).await.unwrap();
    ToEdge::decode(&bytes[..]).unwrap().body.unwrap()
}

#[tokio::test]
async fn an_edge_without_all_of_token_key_and_proof_is_refused() {
    let stand = Stand::start_with(1).await;
    let other = EdgeKey::from_seed([43; 32]);
    let forger = TenantKey::from_seed([66; 32]);
    let elsewhere = Raw::dial(&stand).await.exporter();
    type Lie<'a> = Box<dyn Fn(Attach, &Raw) -> Attach + 'a>;
    let lies: Vec<(RefusalCode, Lie<'_>)> = vec![
        (RefusalCode::Token, Box::new(|good, _| Attach { token: "a.b.c".into(), ..good })),
        (
            RefusalCode::Token,
            Box::new(|good, _| Attach { token: token(&forger, key().id(), |_| {}), ..good }),
        ),
        (
            RefusalCode::Tenant,
            Box::new(|good, _| {
                let unknown = |claims: &mut overway_tenant::Claims| {
                    claims.tenant = "nobody".parse().unwrap();
                };
                Attach { token: stand.token(key().id(), unknown), ..good }
            }),
        ),
        // A good token of somebody else, with a proof of the own key: what a relay that saw it could try.
        (
            RefusalCode::Proof,
            Box::new(|good, _| Attach { token: stand.token(other.id(), |_| {}), ..good }),
        ),
        // The other's key, but no signature of it.
        (
            RefusalCode::Proof,
            Box::new(|good, _| {
                let public_key = other.public().0.to_vec();
                Attach { token: stand.token(other.id(), |_| {}), public_key, ..good }
            }),
        ),
        // A signature that was made for another connection.
        (
            RefusalCode::Proof,
            Box::new(|good, _| Attach { signature: key().sign(&elsewhere).to_vec(), ..good }),
        ),
        (RefusalCode::Malformed, Box::new(|good, _| Attach { public_key: vec![1; 31], ..good })),
        (
            RefusalCode::Version,
            Box::new(|good, _| Attach { version_min: 2, version_max: 9, ..good }),
        ),
    ];
    let count = lies.len() as u64;
    for (code, lie) in lies {
        let raw = Raw::dial(&stand).await;
        assert_eq!(raw.refused(lie(raw.attach(&stand), &raw)).await, code);
    }

    let raw = Raw::dial(&stand).await;
    raw.attached(&stand).await;
    let stats = stand.nodes[0].stats();
    assert_eq!((stats.attached, stats.refused.iter().sum::<u64>()), (1, count));
    stand.stop().await;
}

#[tokio::test]
async fn who_says_nothing_or_nonsense_is_closed_in_time() {
    let stand = Stand::start_with(1).await;
    let silent = Raw::dial(&stand).await;
    let nonsense = Raw::dial(&stand).await;
    let (mut send, _receive) = nonsense.connection.open_bi().await.unwrap();
    send.write_all(&[0, 0, 0, 3, 0xff, 0xff, 0xff]).await.unwrap();
    let long = Raw::dial(&stand).await;
    let (mut send, _receive) = long.connection.open_bi().await.unwrap();
    send.write_all(&[0xff; 8]).await.unwrap();
    let early = Raw::dial(&stand).await;
    let (mut send, _receive) = early.connection.open_bi().await.unwrap();
    let resolve = from_edge::Body::Detach(overway_wire::access::messages::Detach {});
    write(&mut send, FromEdge { body: Some(resolve) }).await;

    for raw in [nonsense, long, early, silent] {
        assert_eq!(raw.closed().await, CloseCode::Malformed as u64);
    }

    until(async || stand.nodes[0].stats().handshakes_failed == 4).await;
    assert_eq!(stand.nodes[0].stats().attached, 0);
    stand.stop().await;
}

#[tokio::test]
async fn an_edge_that_attaches_anew_keeps_its_place() {
    let stand = Stand::start_with(1).await;
    let old = Raw::dial(&stand).await;
    let (attachment, _send, _receive) = old.attached(&stand).await;

    let new = Raw::dial(&stand).await;
    let (again, mut send, _receive) = new.attached(&stand).await;

    assert_eq!(again, attachment);
    assert_eq!(old.closed().await, CloseCode::Replaced as u64);
    until(async || stand.nodes[0].stats().ended == 1).await;
    let stats = stand.nodes[0].stats();
    assert_eq!((stats.attachments, stats.attached, stats.replaced), (1, 2, 1));
    // Once it has left, another place is given.
    let detach = overway_wire::access::messages::Detach {};
    write(&mut send, detach).await;
    assert_eq!(new.closed().await, CloseCode::Unused as u64);
    until(async || stand.nodes[0].stats().attachments == 0).await;
    let third = Raw::dial(&stand).await;
    assert_ne!(third.attached(&stand).await.0, attachment);
    stand.stop().await;
}

#[tokio::test]
async fn a_flood_of_handshakes_has_to_prove_its_addresses_and_keeps_nobody_out() {
    let stand = Stand::start_with(1).await;
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let config = config(&stand);
    // Connections that stand and say nothing: each is a handshake under way, for five seconds.
    let mut silent = Vec::new();
    let start = Instant::now();
    while stand.nodes[0].stats().handshakes_retried == 0 {
        let relay = stand.nodes[0].address;
        let connecting = endpoint.connect_with(config.clone(), relay, ACCESS_SERVER_NAME).unwrap();
        silent.push(tokio::spawn(connecting));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(start.elapsed() < PATIENCE, "{:?}", stand.nodes[0].stats());
    }

    let good = Raw::dial(&stand).await;
    good.attached(&stand).await;

    assert!(silent.len() > 60, "{}", silent.len());
    stand.stop().await;
}

#[tokio::test]
async fn an_edge_may_say_much_at_once_and_each_question_is_answered() {
    let stand = Stand::start_with(1).await;
    let raw = Raw::dial(&stand).await;
    let (_, mut send, mut receive) = raw.attached(&stand).await;
    // More than is answered before the edge reads, and than may be said at once.
    let questions = 600;
    let question = |request| Resolve { request, service: "chat".into(), class: 1 };
    let bytes: Vec<u8> = (0..questions).flat_map(|it| bytes_of(&question(it).into())).collect();
    let asking = async { send.write_all(&bytes).await.unwrap() };
    let hearing = async {
        for expected in 0..questions {
            match read(&mut receive).await {
                to_edge::Body::Resolved(Resolved { request, .. }) => assert_eq!(request, expected),
                other => panic!("{other:?}"),
            }
        }
    };

    tokio::join!(asking, hearing);

    assert_eq!(stand.nodes[0].stats().ended, 0);
    stand.stop().await;
}

#[tokio::test]
async fn what_an_edges_earlier_process_offered_is_not_what_the_next_one_offers() {
    let stand = Stand::start_with(1).await;
    let attached = async |boot| {
        let raw = Raw::dial(&stand).await;
        let (answer, send, receive) = raw.say(Attach { boot, ..raw.attach(&stand) }).await;
        assert!(matches!(answer, to_edge::Body::Attached(_)), "{answer:?}");
        (raw, send, receive)
    };
    let (_first, mut send, mut receive) = attached(7).await;
    assert_eq!(offered(&mut send, &mut receive).await.standing, ["chat"]);

    let (_same, mut send, mut receive) = attached(7).await;
    assert_eq!(resolved(&mut send, &mut receive, "chat").await, 1);
    let (_other, mut send, mut receive) = attached(8).await;
    assert_eq!(resolved(&mut send, &mut receive, "chat").await, 0);
    stand.stop().await;
}

#[tokio::test]
async fn what_a_newer_token_does_not_let_an_edge_offer_is_withdrawn() {
    let stand = Stand::start_with(1).await;
    let raw = Raw::dial(&stand).await;
    let (_, mut send, mut receive) = raw.attached(&stand).await;
    assert_eq!(offered(&mut send, &mut receive).await.standing, ["chat"]);

    let fewer = |claims: &mut overway_tenant::Claims| claims.offers = overway_tenant::Names::none();
    let token = stand.token(key().id(), fewer);
    write(&mut send, Attach { token, ..raw.attach(&stand) }).await;

    let to_edge::Body::Offers(offers) = read(&mut receive).await else { panic!("no word") };
    assert_eq!((offers.standing.len(), &offers.refused[..]), (0, &["chat".to_owned()][..]));
    assert_eq!(resolved(&mut send, &mut receive, "chat").await, 0);
    stand.stop().await;
}

#[tokio::test]
async fn a_process_whose_place_another_takes_with_its_key_says_so() {
    let stand = Stand::start_with(1).await;
    let relay = stand.nodes[0].address;
    let one = stand.edge(1, vec![relay]);
    one.attached(1).await;

    let other = stand.edge(1, vec![relay]);
    other.attached(1).await;

    let said = |error: String| error.contains("another process") && error.contains("keygen");
    until(async || one.attachments.status().last_error.is_some_and(said)).await;
    assert_eq!(stand.nodes[0].stats().attachments, 1);
    stand.stop().await;
}
