//! Edges on loopback, attached to real relays: who gets in, that frames cross, and what happens when a line or a relay
//! dies.

mod admission;
mod drain;
mod nearest;
mod quotas;
mod sdk;
mod stand;
mod tcp;

use std::time::{Duration, Instant};

use overway_client::{AttachmentState, ResolveError};
use overway_relay::access::AccessDrop;
use overway_tenant::{Claims, Names};
use overway_wire::access::messages::OfferedService;
use overway_wire::{Address, AttachmentId, Class, Whereabouts};

use stand::{Edge, Line, PATIENCE, Stand, addresses, frame, until};

/// Sends frames from one edge to another until so many different ones have arrived.
async fn exchange(from: &Edge, to: &mut Edge, class: Class, first: u64, count: usize) {
    let start = Instant::now();
    let sources = addresses(from.whereabouts().unwrap());
    let before = to.arrived.len();
    for sequence in first.. {
        from.send(to.whereabouts().unwrap(), class, sequence);
        tokio::time::sleep(Duration::from_millis(2)).await;
        to.take_arrived(&sources);
        if to.arrived.len() - before >= count {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{} of {count}", to.arrived.len() - before);
    }
}

#[tokio::test]
async fn frames_cross_between_edges_of_a_tenant_in_every_class_and_back() {
    let stand = Stand::start().await;
    let [one, two, three] = [0, 1, 2].map(|at: usize| stand.nodes[at].address);
    let mut alice = stand.edge(1, vec![one, two]);
    let mut bob = stand.edge(2, vec![three, two]);
    let whereabouts = alice.attached(2).await;
    assert_ne!(whereabouts.first.relay, whereabouts.second.unwrap().relay);
    bob.attached(2).await;

    for (at, class) in (0..).zip(Class::ALL) {
        exchange(&alice, &mut bob, class, at * 1_000_000, 20).await;
        exchange(&bob, &mut alice, class, at * 1_000_000, 20).await;
    }

    let status = alice.attachments.status();
    assert_eq!(status.attachments.len(), 2);
    assert!(status.attachments.iter().all(|it| it.state == AttachmentState::Up));
    assert_eq!(status.attachments[0].address, alice.whereabouts().unwrap().first);
    until(async || alice.attachments.status().attachments.iter().all(|it| it.rtt.is_some())).await;
    assert!(status.counts.frames_sent >= 60 && status.counts.frames_received >= 60);
    alice.attachments.close().await;
    bob.attachments.close().await;
    for node in &stand.nodes {
        until(async || node.stats().attachments == 0).await;
    }
    stand.stop().await;
}

#[tokio::test]
async fn what_a_silent_line_has_swallowed_goes_over_the_other_and_the_place_is_taken_anew() {
    let stand = Stand::start().await;
    let [one, two, three] = [0, 1, 2].map(|at: usize| stand.nodes[at].address);
    let lines = [Line::to(one).await, Line::to(two).await];
    let alice = stand.edge(1, vec![lines[0].address, lines[1].address, three]);
    let mut bob = stand.edge(2, vec![three]);
    let before = alice.attached(2).await;
    bob.attached(1).await;
    exchange(&alice, &mut bob, Class::Interactive, 0, 20).await;

    // A hundred frames into the dark and after: none of them may be lost.
    let first = usize::from(alice.whereabouts().unwrap().first.relay.0) - 1;
    bob.arrived.clear();
    lines[first].cut(true);
    let sources = addresses(before);
    for sequence in 1_000_000..1_000_100 {
        alice.send(bob.whereabouts().unwrap(), Class::Interactive, sequence);
        tokio::time::sleep(Duration::from_millis(2)).await;
        bob.take_arrived(&sources);
    }
    let start = Instant::now();
    while bob.arrived.len() < 100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        bob.take_arrived(&sources);
        assert!(start.elapsed() < PATIENCE, "{} of 100 arrived", bob.arrived.len());
    }

    let counts = alice.attachments.status().counts;
    assert!(counts.downs >= 1 && counts.copies + counts.resent > 0, "{counts:?}");
    // Nothing comes for three seconds: another relay is taken.
    until(async || {
        let now = alice.whereabouts();
        now.is_some_and(|now| {
            now.second.is_some() && addresses(now).iter().any(|at| at.relay.0 == 3)
        })
    })
    .await;
    assert!(alice.attachments.status().counts.lost >= 1);
    stand.stop().await;
}

#[tokio::test]
async fn the_death_of_an_access_side_loses_nothing_that_was_sent_before() {
    let mut stand = Stand::start().await;
    let [one, two, three] = [0, 1, 2].map(|at: usize| stand.nodes[at].address);
    let alice = stand.edge(1, vec![one, two]);
    let mut bob = stand.edge(2, vec![three]);
    let before = alice.attached(2).await;
    bob.attached(1).await;
    exchange(&alice, &mut bob, Class::Bulk, 0, 20).await;
    bob.arrived.clear();
    let sources = addresses(before);

    let before = alice.whereabouts().unwrap();
    let first = usize::from(before.first.relay.0) - 1;
    let dying = stand.nodes[first].access.take().unwrap();
    let dying = tokio::spawn(dying.stop());
    for sequence in 1_000_000..1_000_100 {
        alice.send(bob.whereabouts().unwrap(), Class::Bulk, sequence);
        tokio::time::sleep(Duration::from_millis(2)).await;
        bob.take_arrived(&sources);
    }
    dying.await.unwrap();
    let start = Instant::now();
    while bob.arrived.len() < 100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        bob.take_arrived(&sources);
        assert!(start.elapsed() < PATIENCE, "{} of 100 arrived", bob.arrived.len());
    }
    let now = addresses(alice.whereabouts().unwrap());
    assert!(now.iter().all(|at| at.relay != before.first.relay), "{now:?}");
    stand.stop().await;
}

/// Its last word is lost. An idle edge would find that out by silence after 45 s; QUIC's stateless reset tells it with
/// the first packet that it sends.
#[tokio::test]
async fn an_access_side_that_was_killed_and_started_anew_tells_its_edges_so() {
    let mut stand = Stand::start_with(1).await;
    let line = Line::to(stand.nodes[0].address).await;
    let edge = stand.edge(1, vec![line.address]);
    edge.attached(1).await;
    line.cut(true);
    stand.nodes[0].restart_access().await;
    line.cut(false);

    // A question is a packet, and no reason to listen more closely.
    let asked = edge.attachments.resolve("chat", Class::Bulk);
    let anew =
        until(async || edge.attachments.status().counts.lost == 1 && edge.whereabouts().is_some());
    tokio::join!(asked, anew).1;

    let attached = || stand.nodes[0].stats();
    until(async || attached().attachments == 1).await;
    assert_eq!((attached().handshakes, edge.attachments.status().counts.downs), (1, 0));
    stand.stop().await;
}

#[tokio::test]
async fn frames_for_an_edge_that_left_one_relay_reach_it_by_the_other() {
    let stand = Stand::start().await;
    let [one, two, three] = [0, 1, 2].map(|at: usize| stand.nodes[at].address);
    let lines = [Line::to(one).await, Line::to(two).await];
    let alice = stand.edge(1, vec![three]);
    let mut bob = stand.edge(2, lines.iter().map(|line| line.address).collect());
    alice.attached(1).await;
    let whereabouts = bob.attached(2).await;
    exchange(&alice, &mut bob, Class::Interactive, 0, 5).await;

    // Its relay finds it silent, and sends what names the other address there.
    lines[usize::from(whereabouts.first.relay.0) - 1].cut(true);
    bob.arrived.clear();
    let (sources, start) = (addresses(alice.whereabouts().unwrap()), Instant::now());
    for sequence in 1_000_000.. {
        alice.send(whereabouts, Class::Interactive, sequence);
        tokio::time::sleep(Duration::from_millis(2)).await;
        bob.take_arrived(&sources);
        if bob.arrived.len() >= 50 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{} arrived", bob.arrived.len());
    }
    stand.stop().await;
}

#[tokio::test]
async fn services_are_offered_and_found_and_only_as_tokens_allow() {
    let stand = Stand::start_with(1).await;
    let relay = stand.nodes[0].address;
    let (alice, bob) = (stand.edge(1, vec![relay]), stand.edge(2, vec![relay]));
    alice.attached(1).await;
    bob.attached(1).await;
    let service = |name: &str| OfferedService { name: name.into(), ..OfferedService::default() };
    bob.attachments.offer(vec![service("chat"), service("forbidden")]);

    until(async || {
        alice.attachments.resolve("chat", Class::Interactive).await.is_ok_and(|it| !it.is_empty())
    })
    .await;
    let found = alice.attachments.resolve("chat", Class::Interactive).await.unwrap();
    assert_eq!((found[0].edge, Some(found[0].whereabouts)), (bob.key.id(), bob.whereabouts()));
    assert_eq!(alice.attachments.resolve("forbidden", Class::Bulk).await, Ok(Vec::new()));

    // A new token takes the right to use it away.
    let none = |claims: &mut Claims| claims.services = Names::none();
    alice.renew.send(stand.token(alice.key.id(), none)).unwrap();
    until(async || {
        alice.attachments.resolve("chat", Class::Bulk).await == Err(ResolveError::Forbidden)
    })
    .await;
    bob.attachments.close().await;
    until(async || stand.nodes[0].stats().attachments == 1).await;
    stand.stop().await;
}

#[tokio::test]
async fn an_edge_whose_token_is_revoked_is_dismissed_and_one_with_a_new_token_let_in() {
    let mut stand = Stand::start_with(1).await;
    let alice = stand.edge(1, vec![stand.nodes[0].address]);
    alice.attached(1).await;

    stand
        .change(|tenant| {
            tenant.keys.revoked_tokens.insert("t1".parse().unwrap());
        })
        .await;
    until(async || alice.whereabouts().is_none()).await;
    assert!(stand.nodes[0].stats().ended_by_relay >= 1);

    alice
        .renew
        .send(stand.token(alice.key.id(), |claims| claims.id = "t2".parse().unwrap()))
        .unwrap();
    alice.attached(1).await;
    stand.stop().await;
}

#[tokio::test]
async fn frames_beyond_the_quota_or_the_tokens_classes_or_for_no_edge_are_dropped_and_counted() {
    let mut stand = Stand::start_with(1).await;
    stand.change(|tenant| tenant.quota.bps[usize::from(Class::Bulk.code())] = Some(8)).await;
    let alice = stand.edge(1, vec![stand.nodes[0].address]);
    let here = alice.attached(1).await;
    let only_bulk = |claims: &mut Claims| {
        claims.classes = [Class::Bulk].into();
    };
    alice.renew.send(stand.token(alice.key.id(), only_bulk)).unwrap();

    let gateway = Address::new(here.first.relay, AttachmentId::GATEWAY);
    let dropped = |reason: AccessDrop| stand.nodes[0].stats().dropped[reason as usize];
    let start = Instant::now();
    for sequence in 0.. {
        alice.send(here, Class::Bulk, sequence);
        alice.send(here, Class::Realtime, sequence);
        alice.send(Whereabouts::at(gateway), Class::Bulk, sequence);
        tokio::time::sleep(Duration::from_millis(2)).await;
        let all = [AccessDrop::QuotaRate, AccessDrop::Class, AccessDrop::Destination].map(dropped);
        if all.iter().all(|&count| count > 0) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{all:?}");
    }
    let mut too_long = frame(here, Class::Bulk, 0);
    too_long.payload = vec![0; 1_201].into();
    alice.port.sender.try_send(&mut vec![too_long]).unwrap();
    assert_eq!(alice.attachments.status().counts.too_long, 1);
    stand.stop().await;
}
