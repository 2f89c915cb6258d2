//! An edge that was given one relay learns of the others, attaches to two, moves when one drains, and finds its relays
//! again after a restart.

use std::collections::BTreeSet;
use std::time::Duration;

use overway_client::Discovery;
use overway_relay::access::serve_clients;
use overway_wire::Whereabouts;
use overway_wire::control::NodeDrain;
use tokio_util::sync::CancellationToken;

use crate::stand::{Edge, Stand, addresses, until};

fn relays(whereabouts: Option<Whereabouts>) -> BTreeSet<u16> {
    whereabouts.into_iter().flat_map(addresses).map(|address| address.relay.0).collect()
}

async fn attached_to_two(edge: &Edge) -> BTreeSet<u16> {
    until(async || relays(edge.whereabouts()).len() == 2).await;
    relays(edge.whereabouts())
}

#[tokio::test]
async fn an_edge_given_one_relay_attaches_to_two_and_leaves_one_that_drains_for_the_third() {
    let mut stand = Stand::start().await;
    stand.tell_access().await;
    let edge = stand.edge(1, vec![stand.nodes[0].address]);
    edge.attachments.discover(Discovery::default());

    let before = attached_to_two(&edge).await;
    let drained = *before.first().unwrap();
    stand.drain(drained, NodeDrain::Leaving).await;

    until(async || {
        let now = relays(edge.whereabouts());
        now.len() == 2 && !now.contains(&drained)
    })
    .await;
    edge.attachments.close().await;
    stand.stop().await;
}

#[tokio::test]
async fn what_an_edge_has_learnt_outlasts_a_restart_and_the_relay_that_it_was_given() {
    let mut stand = Stand::start().await;
    stand.tell_access().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.json");
    let discovery = Discovery { file: Some(file.clone()), ..Discovery::default() };
    let given = stand.nodes[0].address;
    let edge = stand.edge(1, vec![given]);
    edge.attachments.discover(discovery.clone());
    attached_to_two(&edge).await;
    until(async || file.exists()).await;
    edge.attachments.close().await;

    stand.nodes[0].access.take().unwrap().stop().await;
    let edge = stand.edge(1, vec![given]);
    edge.attachments.discover(discovery);

    assert_eq!(attached_to_two(&edge).await, BTreeSet::from([2, 3]));
    edge.attachments.close().await;
    stand.stop().await;
}

#[tokio::test]
async fn a_url_is_asked_when_the_given_relay_is_not_there() {
    let mut stand = Stand::start().await;
    stand.tell_access().await;
    let (any, stop) = (([127, 0, 0, 1], 0).into(), CancellationToken::new());
    let dispatcher = stand.nodes[1].dispatcher.clone();
    let trust = tokio::sync::watch::channel(Vec::new()).1;
    let serving = serve_clients(any, trust, dispatcher, stop.clone()).await.unwrap();
    tokio::spawn(serving.1);
    let nowhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let edge = stand.edge(1, vec![nowhere.local_addr().unwrap()]);
    let urls = vec!["http://127.0.0.1:1".to_owned(), format!("http://{}", serving.0)];
    edge.attachments.discover(Discovery { urls, ..Discovery::default() });

    attached_to_two(&edge).await;

    stop.cancel();
    edge.attachments.close().await;
    stand.stop().await;
}

#[tokio::test]
async fn relays_measure_the_networks_of_their_edges() {
    let mut stand = Stand::start().await;
    stand.tell_access().await;
    let edge = stand.edge(1, vec![stand.nodes[0].address, stand.nodes[1].address]);
    edge.attached(2).await;

    let dispatcher = stand.nodes[0].dispatcher.clone();
    until(async || {
        let asked = overway_dispatch::Asked::default();
        let answer = dispatcher.asked(&asked, [127, 0, 0, 9].into(), None);
        answer.relays.iter().any(|near| near.relay == 1 && near.why[0].reason == "measured")
    })
    .await;
    assert!(
        edge.attachments.status().attachments.iter().all(|it| it.age < Duration::from_secs(60))
    );
    edge.attachments.close().await;
    stand.stop().await;
}
