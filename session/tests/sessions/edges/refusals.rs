//! Who is turned away, and what he is told.

use overway_session::{FlowTerms, Peer, Wanted};

use super::*;

fn refused(error: &OpenError, because: &str) -> bool {
    matches!(error, OpenError::Refused(reason) if reason.contains(because))
}

#[tokio::test]
async fn an_edge_with_another_key_than_was_asked_for_is_not_talked_to() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let elsewhere = FarEnd::Edge { id: key(3).id(), whereabouts: whereabouts(&b.addresses) };

    let opened = soon(a.endpoint.open_stream(elsewhere, Class::Bulk, "echo")).await;

    assert!(matches!(opened, Err(OpenError::Identity)), "{opened:?}");
    assert_eq!((a.endpoint.stats().sessions_opened, b.endpoint.stats().sessions_opened), (0, 0));
}

#[tokio::test]
async fn edges_of_two_tenants_are_strangers() {
    let (mesh, acme, other) = (Mesh::new(1), Tenant::new("acme"), Tenant::new("other"));
    let (a, b) = (acme.edge(&mesh, 1, &[A1, A2]), other.edge(&mesh, 2, &[B1, B2]));

    let error = a.open(&b).await.unwrap_err();

    assert!(refused(&error, "the token is of tenant \"acme\", not of \"other\""), "{error}");
    assert_eq!((a.endpoint.stats().sessions_opened, b.endpoint.stats().sessions_opened), (0, 0));
}

#[tokio::test]
async fn a_token_that_has_expired_or_is_another_edges_or_none_opens_nothing() {
    type Change = fn(&Tenant, EdgeId) -> String;
    let cases: [(Change, &str); 4] = [
        (|tenant, id| tenant.token(id, |claims| claims.expires = now() - 31), "expired"),
        (|tenant, _| tenant.token(key(8).id(), |_| {}), "another key"),
        (|tenant, id| tenant.token(id, |_| {}).replace('.', ""), "not a JSON Web Token"),
        (
            |_, id| {
                Tenant { key: TenantKey::from_seed([8; 32]), ..Tenant::new("acme") }
                    .token(id, |_| {})
            },
            "signature",
        ),
    ];
    for (token, because) in cases {
        let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
        let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
        a.token.send_replace(token(&tenant, a.id));

        let error = a.open(&b).await.unwrap_err();
        assert!(refused(&error, because), "{because}: {error}");

        // The other way the dialler sees it, and closes.
        let error = b.open(&a).await.unwrap_err();
        assert!(
            matches!(&error, OpenError::Token(reason) if reason.contains(because)),
            "{because}: {error}"
        );
        assert!(timeout(Duration::from_millis(50), b.endpoint.accept()).await.is_err());
        assert!(timeout(Duration::from_millis(50), a.endpoint.accept()).await.is_err());
        assert!(b.endpoint.stats().identity_refused >= 2);
    }
}

#[tokio::test]
async fn services_and_classes_that_the_askers_token_does_not_allow_are_refused() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let a = tenant.edge_with(&mesh, 1, &[A1, A2], |claims| {
        claims.services = Names::of(["chat"]);
        claims.classes = [Class::Bulk].into();
    });
    let b = tenant.edge(&mesh, 2, &[B1, B2]);

    let error = a.open(&b).await.unwrap_err();
    assert!(refused(&error, "does not allow this service"), "{error}");

    let opened = soon(a.endpoint.open_stream(b.far(), Class::Interactive, "chat")).await;
    assert!(refused(&opened.unwrap_err(), "does not allow the class interactive"));
    let flow = a.endpoint.open_flow(b.far(), PolicyId(0), Redundancy::Off, "chat");
    assert!(refused(&soon(flow).await.unwrap_err(), "does not allow the class realtime"));

    let opened = a.endpoint.open_stream(b.far(), Class::Bulk, "chat");
    let accepted = async { next_stream(&b.endpoint).await.accept().await };
    let (opened, accepted) = soon(async { tokio::join!(opened, accepted) }).await;
    talk(&mut opened.unwrap(), &mut accepted.unwrap()).await;
}

#[tokio::test]
async fn an_endpoint_whose_token_does_not_offer_the_service_is_not_asked() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let a = tenant.edge(&mesh, 1, &[A1, A2]);
    let b = tenant.edge_with(&mesh, 2, &[B1, B2], |claims| claims.offers = Names::of(["chat"]));

    let error = a.open(&b).await.unwrap_err();

    assert!(matches!(error, OpenError::NotOffered), "{error}");
    assert!(timeout(Duration::from_millis(50), b.endpoint.accept()).await.is_err());
}

#[tokio::test]
async fn an_edge_of_another_name_than_was_asked_for_is_asked_for_nothing() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let a = tenant.edge(&mesh, 1, &[A1, A2]);
    let b = tenant.edge_with(&mesh, 2, &[B1, B2], |claims| claims.name = "camera".to_owned());
    let named = |peer| Wanted { peer: Some(peer), ..Wanted::from("echo") };

    let opened = soon(a.endpoint.open_stream(b.far(), Class::Bulk, named("door"))).await;
    assert!(matches!(opened, Err(OpenError::Identity)), "{opened:?}");
    assert!(timeout(Duration::from_millis(50), b.endpoint.accept()).await.is_err());

    let opened = a.endpoint.open_stream(b.far(), Class::Bulk, named("camera"));
    let accepted = async { next_stream(&b.endpoint).await.accept().await };
    let (opened, accepted) = soon(async { tokio::join!(opened, accepted) }).await;
    let (opened, accepted) = (opened.unwrap(), accepted.unwrap());
    assert_eq!(opened.peer.as_ref().map(Peer::name), Some("camera"));
    assert_eq!(accepted.peer.map(|peer| peer.id), Some(a.id));
}

#[tokio::test]
async fn an_opener_that_goes_away_before_the_answer_leaves_a_reset_and_no_stream() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let asked = {
        let opening = a.endpoint.open_stream(b.far(), Class::Bulk, "echo");
        let asked = next_stream(&b.endpoint);
        tokio::select! {
            opened = opening => panic!("nobody has answered: {opened:?}"),
            asked = asked => asked,
        }
    };

    // The answer may still find the way open; then what follows is the reset.
    if let Ok(mut stream) = asked.accept().await {
        let read = soon(stream.recv.read_chunk(10, true)).await;
        assert!(matches!(read, Err(ReadError::Reset(_))), "{read:?}");
    }
    let (mut near, mut away) = stream_between(&a, &b).await;
    talk(&mut near, &mut away).await;
}

#[tokio::test]
async fn a_flows_deadline_is_the_budget_of_its_frames_both_ways() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let terms = FlowTerms { redundancy: Redundancy::Off, deadline: Duration::from_millis(150) };
    let opened = a.endpoint.open_flow(b.far(), PolicyId(0), terms, "voice");
    let accepted = async { next_flow(&b.endpoint).await.accept().await };
    let (near, away) = soon(async { tokio::join!(opened, accepted) }).await;
    let (near, away) = (near.unwrap(), away.unwrap());
    mesh.tap();

    near.send(b"there").unwrap();
    assert_eq!(soon(away.recv()).await.as_deref(), Some(&b"there"[..]));
    away.send(b"and back").unwrap();
    assert_eq!(soon(near.recv()).await.as_deref(), Some(&b"and back"[..]));

    let frames = mesh.tapped();
    let budgets = frames.iter().filter(|it| it.frame.kind == overway_wire::FrameKind::Datagram);
    assert_eq!(budgets.map(|it| it.frame.budget.0).collect::<Vec<_>>(), [150, 150]);
    assert_eq!(away.peer().map(|peer| peer.id), Some(a.id));
}

/// Tokens hold for 30 s beyond their end; this one ends so many seconds from now.
fn ends_in(seconds: u64) -> impl FnOnce(&mut Claims) {
    move |claims| claims.expires = now() + seconds - 30
}

/// An edge that renews its token in time, its stream with `far`, and when its first token ends. Where the machine is too
/// slow for that, another edge tries again.
async fn renewing(mesh: &Mesh, tenant: &Tenant, far: &Edge) -> (Edge, (Stream, Stream), u64) {
    for number in 10..=u8::MAX {
        let end = now() + 6;
        let edge = tenant.edge_with(mesh, number, &[C1], ends_in(6));
        let opened = edge.endpoint.open_stream(far.far(), Class::Bulk, "echo");
        let accepted = async { next_stream(&far.endpoint).await.accept().await };
        let both = timeout(Duration::from_secs(3), async { tokio::join!(opened, accepted) });
        let Ok((Ok(mut near), Ok(mut away))) = both.await else { continue };
        edge.token.send_replace(tenant.token(edge.id, |_| {}));
        talk(&mut near, &mut away).await;
        if now() + 1 < end {
            return (edge, (near, away), end);
        }
    }
    panic!("no edge has renewed its token in time")
}

#[tokio::test]
async fn a_session_ends_with_the_token_unless_there_was_a_newer_one() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let [a, d] = [(1, A1), (4, D1)].map(|(number, at)| tenant.edge(&mesh, number, &[at]));
    let b = tenant.edge(&mesh, 2, &[B1, B2]);
    let (mut of_a, mut at_b) = stream_between(&a, &b).await;
    let (_of_d, mut at_b_later) = stream_between(&d, &b).await;
    let (_c, (mut of_c, mut at_b_too), end_of_c) = renewing(&mesh, &tenant, &b).await;

    a.token.send_replace(tenant.token(a.id, ends_in(1)));
    d.token.send_replace(tenant.token(d.id, |claims| claims.expires = end_of_c + 1 - 30));

    assert_ended(soon(of_a.recv.read_chunk(10, true)).await, 4);
    let read = soon(at_b.recv.read_chunk(10, true)).await;
    assert!(matches!(read, Err(ReadError::ConnectionLost(_))), "{read:?}");
    // The first token of c had a second less than that of d, whose session ends.
    let read = soon(at_b_later.recv.read_chunk(10, true)).await;
    assert!(matches!(read, Err(ReadError::ConnectionLost(_))), "{read:?}");
    talk(&mut of_c, &mut at_b_too).await;

    let error = a.open(&b).await.unwrap_err();
    assert!(refused(&error, "expired"), "{error}");
    a.token.send_replace(tenant.token(a.id, |_| {}));
    let (mut near, mut away) = stream_between(&a, &b).await;
    talk(&mut near, &mut away).await;
}

/// QUIC says once why it closes a connection. Where that is lost, the next packet is answered with a reset.
#[tokio::test]
async fn an_end_that_did_not_hear_why_its_session_was_closed_learns_soon_that_it_was() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1]), tenant.edge(&mesh, 2, &[B1, B2]));
    let (mut of_a, mut at_b) = stream_between(&a, &b).await;

    mesh.kill(A1);
    b.endpoint.disconnect(a.id);
    let read = soon(at_b.recv.read_chunk(10, true)).await;
    assert!(matches!(read, Err(ReadError::ConnectionLost(_))), "{read:?}");
    // Longer than three probe time-outs, for which QUIC would say it again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    mesh.revive(A1);
    of_a.send.write_all(b"anybody there?").await.unwrap();

    match soon(of_a.recv.read_chunk(10, true)).await {
        Err(ReadError::ConnectionLost(ConnectionError::Reset)) => {}
        read => assert_ended(read, 1),
    }
}

#[tokio::test]
async fn what_the_tenant_revokes_ends_at_once() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let a = tenant.edge_with(&mesh, 1, &[A1, A2], |claims| claims.id = "stolen".parse().unwrap());
    let (b, c) = (tenant.edge(&mesh, 2, &[B1, B2]), tenant.edge(&mesh, 3, &[C1]));
    let (mut of_a, _at_b) = stream_between(&a, &b).await;
    let (mut of_c, mut at_b) = stream_between(&c, &b).await;

    tenant.keys.send_modify(|keys| {
        Arc::make_mut(keys).revoked_tokens.insert("stolen".parse().unwrap());
    });

    let read = soon(of_a.recv.read_chunk(10, true)).await;
    let Err(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(close))) = read else {
        panic!("{read:?}")
    };
    assert!(String::from_utf8_lossy(&close.reason).contains("revoked"), "{close}");
    talk(&mut of_c, &mut at_b).await;
}

#[tokio::test]
async fn an_edge_that_is_disconnected_loses_its_sessions() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let (_near, mut away) = stream_between(&a, &b).await;

    a.endpoint.disconnect(b.id);

    assert_ended(soon(away.recv.read_chunk(10, true)).await, 1);
}

#[tokio::test]
async fn nobody_is_sought_who_is_nowhere_or_of_another_sort() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (edge, gateway) = (tenant.edge(&mesh, 1, &[A1, A2]), mesh.endpoint(B));

    let nowhere = edge.endpoint.open_stream(key(2).id(), Class::Bulk, "echo").await;
    assert!(matches!(nowhere, Err(OpenError::Nowhere)), "{nowhere:?}");
    let relay = edge.endpoint.open_stream(RelayId(B), Class::Bulk, "echo").await;
    assert!(matches!(relay, Err(OpenError::OtherSort)), "{relay:?}");
    let opened = gateway.open_stream(edge.far(), Class::Bulk, "echo").await;
    assert!(matches!(opened, Err(OpenError::OtherSort)), "{opened:?}");
}
