//! `GET /v1/access`: what relays say of their access sides, as a client is answered.

use overway_dispatch::Answer;
use overway_wire::control::{
    AccessState, Ack, Distance, Distances, Hello, Location, Report, VERSION_MAX, item, to_relay,
};
use serde_json::json;

use super::mesh::{Link, Mesh, eventually, hello, within};

async fn relay(mesh: &Mesh, name: &str, region: &str, state: Option<AccessState>) -> Link {
    let mut link = mesh.dial(&mesh.join(name).await).await.unwrap();
    let location = Location::from_degrees(50.0, 8.0);
    let said = hello(name);
    link.say(Hello { version_max: VERSION_MAX, region: region.into(), location, ..said }).await;
    if let Some(state) = state {
        link.say(state).await;
    }
    link.say(Report { sequence: 1, full: true, ..Report::default() }).await;
    link
}

fn state(port: u16, attachments: u32) -> AccessState {
    AccessState {
        addresses: vec![format!("203.0.113.1:{port}")],
        weight: 100,
        attachments,
        attachments_max: 100,
        ..AccessState::default()
    }
}

async fn answer(mesh: &Mesh, query: &str) -> Answer {
    let (code, body) = mesh.get(&format!("/v1/access{query}")).await;
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Asks until the answer names these relays in this order.
async fn ordered(mesh: &Mesh, query: &str, names: &[&str]) -> Answer {
    eventually(|| async {
        let answer = answer(mesh, query).await;
        let named: Vec<&str> = answer.relays.iter().map(|relay| relay.name.as_str()).collect();
        (named == names).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn clients_are_answered_by_what_relays_say_and_measure() {
    let mesh = Mesh::start().await;
    let mut rome = relay(&mesh, "rome", "eu", Some(state(1, 10))).await;
    let mut oslo = relay(&mesh, "oslo", "no", Some(state(2, 10))).await;
    let _bonn = relay(&mesh, "bonn", "eu", None).await;
    let near = |rtt_us| Distances { distances: vec![Distance { prefix: vec![192, 0, 2], rtt_us }] };
    rome.say(near(80_000)).await;
    oslo.say(near(4_000)).await;

    let answered = ordered(&mesh, "?client=192.0.2.7", &["oslo", "rome"]).await;
    assert_eq!(answered.client, "192.0.2.7".parse().ok());
    assert_eq!(answered.relays[0].addresses, ["203.0.113.1:2".parse().unwrap()]);
    let reasons: Vec<&str> = answered.relays[0].why.iter().map(|why| why.reason.as_str()).collect();
    assert_eq!(reasons, ["measured", "load", "weight"]);
    assert_eq!(answer(&mesh, "?client=192.0.2.7&limit=1").await.relays.len(), 1);
    assert!(answer(&mesh, "").await.client.unwrap().is_loopback());

    // Its cell leaves one; a relay that is drained, or full, goes behind.
    mesh.put("/v1/policies/eu", json!({"regions": ["eu"]})).await;
    mesh.post("/v1/tenants", r#"{"name":"shop","policy":"eu"}"#).await;
    ordered(&mesh, "?client=192.0.2.7&tenant=shop", &["rome"]).await;
    mesh.put("/v1/drains/relay/oslo", json!({})).await;
    let answered = ordered(&mesh, "?client=192.0.2.7", &["rome", "oslo"]).await;
    assert_eq!(answered.relays[1].state, "draining");
    mesh.delete("/v1/drains/relay/oslo").await;
    ordered(&mesh, "?client=192.0.2.7", &["oslo", "rome"]).await;
    oslo.say(state(2, 100)).await;
    let answered = ordered(&mesh, "?client=192.0.2.7", &["rome", "oslo"]).await;
    assert_eq!(answered.relays[1].state, "full");
}

#[tokio::test]
async fn relays_are_pushed_where_clients_may_attach() {
    let mesh = Mesh::start().await;
    let mut rome = relay(&mesh, "rome", "eu", None).await;
    let mut oslo = relay(&mesh, "oslo", "no", Some(state(2, 10))).await;
    oslo.say(Distances { distances: vec![Distance { prefix: vec![192, 0, 2], rtt_us: 5 }] }).await;
    let (mut side, mut near) = (None, None);
    within(async {
        while side.is_none() || near.is_none() {
            let Some(to_relay::Body::Update(update)) = rome.hear().await.body else { continue };
            rome.say(Ack { revision: update.revision, resync: false }).await;
            for item in update.put {
                match item.body {
                    Some(item::Body::AccessRelay(relay)) => side = Some(relay),
                    Some(item::Body::AccessPrefixes(prefixes)) => near = Some(prefixes),
                    _ => {}
                }
            }
        }
    })
    .await;
    let side = side.unwrap();
    assert_eq!((side.region.as_str(), side.state), ("no", Some(state(2, 10))));
    assert_eq!(near.unwrap().prefixes[0].rtts_us, [5]);
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_with_the_reason() {
    let mesh = Mesh::start().await;
    assert_eq!(answer(&mesh, "?client=192.0.2.7").await.relays, []);
    for (query, code, words) in [
        ("?client=here", 400, "client"),
        ("?limit=-1", 400, "limit"),
        ("?near=me", 400, "near"),
        ("?tenant=shop", 404, "shop"),
    ] {
        let (answered, body) = mesh.get(&format!("/v1/access{query}")).await;
        assert_eq!(answered, code, "{query}: {body}");
        assert!(body.contains(words), "{query}: {body}");
    }
}
