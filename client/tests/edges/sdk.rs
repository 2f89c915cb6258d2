//! Edges as applications use them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use overway_client::{
    Class, Edge, EdgeConfig, FlowOptions, Incoming, Offer, OfferError, OfferOptions, OpenError,
    Redundancy, Required, StartError, Stream, StreamOptions,
};
use overway_tenant::{Claims, EdgeKey, Names};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::stand::{Line, PATIENCE, Stand, until};

#[path = "../../examples/echo.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a program of its own too")]
mod echo;

impl Stand {
    pub(crate) fn config(&self, seed: u8, change: impl FnOnce(&mut Claims)) -> EdgeConfig {
        let relays = self.nodes.iter().map(|node| node.address).collect();
        let key = EdgeKey::from_seed([seed; 32]);
        let token = self.token(key.id(), |claims| {
            claims.name = format!("edge-{seed}");
            claims.offers = Names::Any;
            change(claims);
        });
        EdgeConfig::new(relays, self.ca_pem.clone(), key, token, self.tenant.keys.clone())
    }

    pub(crate) async fn sdk(&self, seed: u8) -> Edge {
        Edge::connect(self.config(seed, |_| {})).await.unwrap()
    }
}

/// Waits until relays know that somebody offers it.
pub(crate) async fn offered(edge: &Edge, service: &str) {
    until(async || edge.resolve(service).await.is_ok_and(|found| !found.is_empty())).await;
}

async fn next(offer: &mut Offer) -> Incoming {
    timeout(PATIENCE, offer.accept()).await.unwrap().unwrap()
}

pub(crate) async fn accepted(offer: &mut Offer) -> Stream {
    match next(offer).await {
        Incoming::Stream(asked) => asked.accept().await.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A stream between two edges, opener's end first.
async fn stream(from: &Edge, offer: &mut Offer) -> (Stream, Stream) {
    let service = offer.service().to_owned();
    offered(from, &service).await;
    let opened = from.open_stream(&service, StreamOptions::default());
    let (opened, accepted) = tokio::join!(opened, accepted(offer));
    (opened.unwrap(), accepted)
}

#[tokio::test]
async fn the_example_of_the_docs_works() {
    let stand = Stand::start_with(2).await;
    let (alice, bob) = (stand.sdk(1).await, stand.sdk(2).await);
    let serving = alice.clone();
    let serving = tokio::spawn(async move { echo::serve(&serving).await.unwrap() });
    offered(&bob, "echo").await;

    assert_eq!(echo::say(&bob, "over and back").await.unwrap(), "over and back");
    assert!(echo::ping(&bob).await.unwrap() < PATIENCE);

    // Ends the offer, and so the example.
    alice.close().await;
    timeout(PATIENCE, serving).await.unwrap().unwrap();
    bob.close().await;
    stand.stop().await;

    let example = include_str!("../../examples/echo.rs");
    let docs = include_str!("../../../docs/SERVICES.md");
    for part in ["pub async fn serve", "pub async fn say", "pub async fn ping"] {
        let at = example.find(part).unwrap();
        let part = &example[at..at + example[at..].find("\n}\n").unwrap() + 3];
        assert!(docs.contains(part), "docs/SERVICES.md has another text of:\n{part}");
    }
}

#[tokio::test]
async fn each_end_knows_the_other_and_may_take_no_other() {
    let stand = Stand::start_with(2).await;
    let (alice, bob) = (stand.sdk(1).await, stand.sdk(2).await);
    let mut offer = alice.offer("chat", OfferOptions::default()).unwrap();
    let (opened, accepted_end) = stream(&bob, &mut offer).await;
    assert_eq!((opened.peer().name(), opened.peer().id), ("edge-1", alice.id()));
    assert_eq!((accepted_end.peer().name(), accepted_end.peer().id), ("edge-2", bob.id()));

    for required in [Required::Name("edge-1".to_owned()), Required::Id(alice.id())] {
        let (class, redundancy) = (Class::Interactive, Redundancy::Always);
        let options = StreamOptions { peer: Some(required), class, redundancy };
        let opened = bob.open_stream("chat", options);
        let (opened, _accepted) = tokio::join!(opened, accepted(&mut offer));
        assert_eq!(opened.unwrap().peer().id, alice.id());
    }
    for required in [Required::Name("edge-3".to_owned()), Required::Id(bob.id())] {
        let options = StreamOptions { peer: Some(required.clone()), ..Default::default() };
        let refused = bob.open_stream("chat", options).await.unwrap_err();
        assert!(matches!(refused, OpenError::OtherPeer { .. }), "{refused}");
        let options = FlowOptions { peer: Some(required), ..Default::default() };
        let refused = bob.open_flow("chat", options).await.unwrap_err();
        assert!(matches!(refused, OpenError::OtherPeer { .. }), "{refused}");
    }

    // And the end that is asked, by what the token says.
    let asking = bob.open_stream("chat", StreamOptions::default());
    let refusing = async {
        let asked = next(&mut offer).await;
        assert_eq!(asked.peer().claims.edge, bob.id());
        asked.refuse("members only").await;
    };
    let (refused, ()) = tokio::join!(asking, refusing);
    let refused = refused.unwrap_err();
    assert!(matches!(&refused, OpenError::Refused { reason, .. } if reason == "members only"));
    assert!(!refused.is_temporary());
    stand.stop().await;
}

#[tokio::test]
async fn what_cannot_be_had_is_said_with_what_to_do() {
    let stand = Stand::start_with(1).await;
    let may_little = |claims: &mut Claims| {
        (claims.services, claims.offers) = (Names::of(["chat"]), Names::of(["chat"]));
    };
    let edge = Edge::connect(stand.config(1, may_little)).await.unwrap();
    let open =
        async |service| edge.open_stream(service, StreamOptions::default()).await.unwrap_err();
    let absent = open("chat").await;
    assert!(matches!(absent, OpenError::NotOffered(_)) && absent.is_temporary(), "{absent}");
    let forbidden = open("mail").await;
    assert!(forbidden.to_string().contains("add it to `services`"), "{forbidden}");
    let refused = edge.offer("mail", OfferOptions::default()).unwrap_err();
    assert_eq!(refused, OfferError::NotAllowed("mail".to_owned()));
    let offer = edge.offer("chat", OfferOptions::default()).unwrap();
    let taken = edge.offer("chat", OfferOptions::default()).unwrap_err();
    assert_eq!(taken, OfferError::Taken("chat".to_owned()));
    drop(offer);
    drop(edge.offer("chat", OfferOptions::default()).unwrap());

    let wrong =
        EdgeConfig { key: Arc::new(EdgeKey::from_seed([9; 32])), ..stand.config(1, |_| {}) };
    let wrong = Edge::start(wrong).unwrap_err();
    assert!(matches!(wrong, StartError::Token(_)), "{wrong}");
    assert!(wrong.to_string().contains("another key"), "{wrong}");
    edge.close().await;
    stand.stop().await;
}

#[tokio::test]
async fn an_offer_ends_when_it_is_dropped_and_an_unhealthy_one_is_not_used() {
    let stand = Stand::start_with(2).await;
    let (alice, bob) = (stand.sdk(1).await, stand.sdk(2).await);
    let mut offer = alice.offer("chat", OfferOptions::default()).unwrap();
    let (mut near, mut away) = stream(&bob, &mut offer).await;
    let gone = async || bob.resolve("chat").await.is_ok_and(|found| found.is_empty());

    offer.set_healthy(false);
    until(gone).await;
    offer.set_healthy(true);
    offered(&bob, "chat").await;
    drop(offer);
    until(gone).await;

    // What stands goes on.
    near.write_all(b"still here").await.unwrap();
    let mut read = [0; 10];
    timeout(PATIENCE, away.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"still here");
    stand.stop().await;
}

#[tokio::test]
async fn what_is_open_to_an_unwell_endpoint_ends_and_what_is_open_of_its_other_service_goes_on() {
    let stand = Stand::start_with(2).await;
    let (alice, bob, carol) = (stand.sdk(1).await, stand.sdk(2).await, stand.sdk(3).await);
    let first = OfferOptions::default();
    let mut chat = alice.offer("chat", first).unwrap();
    let mut mail = alice.offer("mail", first).unwrap();
    let (mut chatting, _far_chatting) = stream(&carol, &mut chat).await;
    let (mut mailing, mut far_mailing) = stream(&carol, &mut mail).await;
    let flowing = carol.open_flow("chat", FlowOptions::default());
    let accepting = async {
        match next(&mut chat).await {
            Incoming::Flow(asked) => asked.accept().await.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let (flowing, _flow_end) = tokio::join!(flowing, accepting);
    let second = OfferOptions { priority: 2, ..first };
    let _backups = [bob.offer("chat", second).unwrap(), bob.offer("mail", second).unwrap()];
    until(async || carol.resolve("chat").await.is_ok_and(|found| found.len() == 2)).await;
    until(async || carol.resolve("mail").await.is_ok_and(|found| found.len() == 2)).await;

    chat.set_healthy(false);

    let mut byte = [0];
    let read = timeout(PATIENCE, chatting.read(&mut byte)).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(timeout(PATIENCE, flowing.unwrap().recv()).await.unwrap(), None);
    mailing.write_all(b"m").await.unwrap();
    timeout(PATIENCE, far_mailing.read_exact(&mut byte)).await.unwrap().unwrap();
    assert_eq!(&byte, b"m");
    for edge in [alice, bob, carol] {
        edge.close().await;
    }
    stand.stop().await;
}

#[tokio::test]
async fn a_writer_waits_for_a_reader_and_may_give_up_waiting() {
    let stand = Stand::start_with(2).await;
    let (alice, bob) = (stand.sdk(1).await, stand.sdk(2).await);
    let mut offer = alice.offer("chat", OfferOptions::default()).unwrap();
    let (near, away) = stream(&bob, &mut offer).await;
    let (_, mut send) = near.into_split();
    let (mut recv, _) = away.into_split();

    // Nobody reads: at some point nothing more is taken in, and that write may be cancelled.
    let mut written = 0_usize;
    while let Ok(wrote) = timeout(Duration::from_secs(1), send.write(&[7; 65_536])).await {
        written += wrote.unwrap();
        assert!(written < 1 << 30, "no bound");
    }
    let finishing = tokio::spawn(send.finish());
    let mut read = 0;
    let mut buffer = vec![0; 65_536];
    loop {
        let got = timeout(PATIENCE, recv.read(&mut buffer)).await.unwrap().unwrap();
        if got == 0 {
            break;
        }
        assert!(buffer[..got].iter().all(|&byte| byte == 7));
        read += got;
    }
    finishing.await.unwrap().unwrap();
    assert_eq!(read, written);

    // An aborted way fails at the other end.
    let (near, mut away) = stream(&bob, &mut offer).await;
    let (_recv, send) = near.into_split();
    send.abort();
    let failed = timeout(PATIENCE, away.read(&mut buffer)).await.unwrap().unwrap_err();
    assert_eq!(failed.kind(), std::io::ErrorKind::ConnectionReset);
    stand.stop().await;
}

/// How long a stream of numbered bytes stood still at most while `change` was done to the network. Every byte arrives,
/// in order.
async fn stall(near: Stream, away: Stream, change: impl AsyncFnOnce()) -> Duration {
    let (_near_recv, mut send) = near.into_split();
    let (mut recv, _away_send) = away.into_split();
    let writing = tokio::spawn(async move {
        for number in 0..=u8::MAX {
            send.write_all(&[number]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        send.finish().await.unwrap();
    });
    let reading = tokio::spawn(async move {
        let (mut last, mut worst, mut all) = (Instant::now(), Duration::ZERO, Vec::new());
        let mut buffer = [0; 64];
        loop {
            let got = recv.read(&mut buffer).await.unwrap();
            worst = worst.max(last.elapsed());
            last = Instant::now();
            if got == 0 {
                assert_eq!(all, (0..=u8::MAX).collect::<Vec<u8>>());
                return worst;
            }
            all.extend_from_slice(&buffer[..got]);
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    change().await;
    writing.await.unwrap();
    timeout(2 * PATIENCE, reading).await.unwrap().unwrap()
}

/// An edge that is attached to the first two relays through lines, and may go to the others.
async fn lined(stand: &Stand, seed: u8) -> (Edge, [Line; 2]) {
    let (first, others) = stand.nodes.split_at(2);
    let lines = [Line::to(first[0].address).await, Line::to(first[1].address).await];
    let relays = lines.iter().map(|line| line.address);
    let relays = relays.chain(others.iter().map(|node| node.address)).collect();
    let config = EdgeConfig { relays, ..stand.config(seed, |_| {}) };
    let edge = Edge::connect(config).await.unwrap();
    until(async || relays_of(&edge) == [1, 2]).await;
    (edge, lines)
}

/// The relays that an edge is attached to, in order.
fn relays_of(edge: &Edge) -> Vec<u16> {
    let mut relays: Vec<u16> =
        edge.status().attachments.iter().map(|attachment| attachment.relay.0).collect();
    relays.sort_unstable();
    relays
}

/// An edge whose packets go through lines, and one that offers it a service.
async fn behind_lines(stand: &Stand) -> (Edge, [Line; 2], Edge, Offer) {
    let (edge, lines) = lined(stand, 2).await;
    let far = stand.sdk(1).await;
    let offer = far.offer("chat", OfferOptions::default()).unwrap();
    (edge, lines, far, offer)
}

#[tokio::test]
async fn an_edge_whose_address_changes_keeps_its_streams() {
    let stand = Stand::start_with(2).await;
    let (edge, lines, _far, mut offer) = behind_lines(&stand).await;
    let before = edge.status();
    let (near, away) = stream(&edge, &mut offer).await;

    // Relays see another address from now on, as when a phone goes from Wi-Fi to another network.
    let stall = stall(near, away, async || lines.iter().for_each(Line::rebind)).await;

    let after = edge.status();
    let places = |status: &overway_client::Status| {
        let mut places: Vec<_> = status.attachments.iter().map(|it| it.address).collect();
        places.sort_unstable();
        places
    };
    assert_eq!(places(&after), places(&before), "the edge stays where it is");
    assert_eq!(after.counts.lost, 0);
    assert!(stall < RESUME_MAX, "{stall:?}");
    // The edge's own socket may change too.
    edge.network_changed();
    let (mut near, mut away) = stream(&edge, &mut offer).await;
    near.write_all(b"x").await.unwrap();
    assert_eq!(timeout(PATIENCE, away.read_u8()).await.unwrap().unwrap(), b'x');
    assert!(edge.status().counts.rebinds >= 1);
    stand.stop().await;
}

#[tokio::test]
async fn an_edge_that_slept_goes_on_with_its_streams() {
    let stand = Stand::start_with(2).await;
    let (edge, lines, _far, mut offer) = behind_lines(&stand).await;
    let (near, away) = stream(&edge, &mut offer).await;
    let asleep = Duration::from_secs(6);

    let stall = stall(near, away, async || {
        lines.iter().for_each(|line| line.cut(true));
        tokio::time::sleep(asleep).await;
        // It wakes where the network is another.
        lines.iter().for_each(|line| {
            line.rebind();
            line.cut(false);
        });
        edge.network_changed();
    })
    .await;

    assert!(stall >= asleep - Duration::from_secs(1), "{stall:?}: it did sleep");
    assert!(stall < asleep + RESUME_MAX, "{stall:?}");
    assert!(edge.status().counts.lost >= 1, "the attachments were given up meanwhile");
    until(async || edge.status().attachments.len() == 2).await;
    stand.stop().await;
}

#[tokio::test]
async fn a_stream_goes_on_when_both_ends_lose_all_their_relays_at_once() {
    let stand = Stand::start_with(4).await;
    let ((alice, of_alice), (bob, of_bob)) = (lined(&stand, 1).await, lined(&stand, 2).await);
    let mut offer = alice.offer("chat", OfferOptions::default()).unwrap();
    let (near, away) = stream(&bob, &mut offer).await;

    // Neither can tell the other where it is next. All bytes arrive, sooner than a session is given up.
    stall(near, away, async || {
        of_alice.iter().chain(&of_bob).for_each(|line| line.cut(true));
        until(async || relays_of(&alice) == [3, 4] && relays_of(&bob) == [3, 4]).await;
    })
    .await;

    let counts = [&alice, &bob].map(|edge| edge.session().stats());
    assert!(counts.iter().all(|it| (it.sessions_opened, it.sessions_closed) == (1, 0)));
    assert!(counts.iter().any(|it| it.frames_sought > 0), "{counts:?}");
    stand.stop().await;
}

/// What docs/SERVICES.md says, and time for a machine that does ten other things.
const RESUME_MAX: Duration = Duration::from_secs(15);
