//! Control connections.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use overway_pki::{
    ALPN_CONTROL, ALPN_SEEN, Authority, Credentials, Identity, PendingKey, Role, seen_address,
};
use overway_scheduler::init;
use overway_wire::control::to_relay::Body;
use overway_wire::control::{Ack, Goodbye, Hello, LinkReport, Renewal, Report, State, Window};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, ConnectionError, Endpoint};
use rustls::pki_types::CertificateDer;

use super::mesh::{Link, Mesh, Wire, eventually, hello, within};

async fn connected(mesh: &Mesh, name: &str) -> Link {
    let directory = mesh.join(name).await;
    let mut link = mesh.dial(&directory).await.unwrap();
    link.say(hello(name)).await;
    let welcome = link.hear().await;
    assert!(matches!(welcome.body, Some(Body::Welcome(_))), "{welcome:?}");
    link
}

async fn is_connected(mesh: &Mesh) -> bool {
    mesh.status().await["relays"][0]["connected"] == true
}

#[tokio::test]
async fn a_member_says_hello_and_is_welcomed() {
    let mesh = Mesh::start().await;

    let mut link = connected(&mesh, "rome").await;

    assert!(is_connected(&mesh).await);
    link.say(Goodbye {}).await;
    link.connection.close(0_u32.into(), b"");
    eventually(|| async { (!is_connected(&mesh).await).then_some(()) }).await;
    mesh.stop().await;
}

#[tokio::test]
async fn a_hello_under_another_name_is_refused_with_the_reason() {
    let mesh = Mesh::start().await;
    let directory = mesh.join("rome").await;
    let mut link = mesh.dial(&directory).await.unwrap();

    link.say(hello("oslo")).await;

    let Some(Body::Refused(refused)) = link.hear().await.body else { panic!("not refused") };
    assert!(refused.reason.contains("rome"), "{}", refused.reason);
    link.closed().await;
}

#[tokio::test]
async fn a_first_message_that_is_no_hello_ends_the_connection() {
    let mesh = Mesh::start().await;
    let directory = mesh.join("rome").await;
    let mut link = mesh.dial(&directory).await.unwrap();

    link.say(Ack { revision: 1, resync: false }).await;

    assert!(link.closed().await.to_string().contains("hello"));
}

/// From where a connection of this relay comes, as the scheduler tells.
async fn seen(mesh: &Mesh, at: SocketAddr, directory: &Path) -> (u16, Option<SocketAddr>) {
    let (connection, port) = mesh.dial_for(&[ALPN_SEEN, ALPN_CONTROL], at, directory).await;
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(closed) => (port, seen_address(&closed.reason)),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn who_asks_is_told_from_where_it_comes_and_no_session_ends() {
    let mesh = Mesh::start().await;
    let session = connected(&mesh, "rome").await;
    let directory = mesh.dir.path().join("rome");
    let mapped = Wire::new().await;
    mapped.plug(Some(mesh.control));

    let (port, address) = seen(&mesh, mesh.control, &directory).await;
    assert_eq!(address, Some(SocketAddr::from(([127, 0, 0, 1], port))));
    let (port, address) = seen(&mesh, mapped.front, &directory).await;
    let address = address.unwrap();
    assert!(address.ip().is_loopback() && address.port() != port, "{address}, from {port}");
    assert!(session.connection.close_reason().is_none() && is_connected(&mesh).await);
}

#[tokio::test]
async fn a_second_connection_replaces_the_first() {
    let mesh = Mesh::start().await;
    let first = connected(&mesh, "rome").await;

    let mut second = mesh.dial(&mesh.dir.path().join("rome")).await.unwrap();
    second.say(hello("rome")).await;
    assert!(matches!(second.hear().await.body, Some(Body::Welcome(_))));

    first.closed().await;
    assert!(is_connected(&mesh).await);
    assert!(second.connection.close_reason().is_none());
}

#[tokio::test]
async fn a_removed_relay_is_cut_off_and_stays_out_over_a_restart() {
    let mesh = Mesh::start().await;
    let link = connected(&mesh, "rome").await;

    assert_eq!(mesh.delete("/v1/nodes/rome").await.0, 204);

    link.closed().await;
    let directory = mesh.dir.path().join("rome");
    assert!(is_turned_away(&mesh, &directory).await);
    let mesh = Mesh::start_in(mesh.stop().await).await;
    let directory = mesh.dir.path().join("rome");
    assert!(is_turned_away(&mesh, &directory).await);
}

#[tokio::test]
async fn an_older_store_gives_no_id_again_whose_relay_has_dialled() {
    let mesh = Mesh::start().await;
    let dir = mesh.stop().await;
    let (state, backup) = (dir.path().join("scheduler/mesh.redb"), dir.path().join("backup"));
    std::fs::copy(&state, &backup).unwrap();
    let mesh = Mesh::start_in(dir).await;
    drop(connected(&mesh, "rome").await);
    let dir = mesh.stop().await;
    std::fs::copy(&backup, &state).unwrap();

    let mesh = Mesh::start_in(dir).await;
    let mut rome = mesh.dial(&mesh.dir.path().join("rome")).await.unwrap();
    rome.say(hello("rome")).await;
    let Some(Body::Refused(refused)) = rome.hear().await.body else { panic!("not refused") };

    assert!(refused.reason.contains("not a member"), "{}", refused.reason);
    let oslo = mesh.join("oslo").await;
    assert_eq!(Credentials::load(&oslo).unwrap().identity().id, 2);
}

/// TLS 1.3 tells a client that its certificate is refused only after its own handshake is done.
async fn is_turned_away(mesh: &Mesh, directory: &std::path::Path) -> bool {
    match mesh.dial(directory).await {
        Err(_) => true,
        Ok(link) => link.closed().await.to_string().contains("certificate"),
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_over_the_control_stream() {
    let mesh = Mesh::start().await;
    let mut link = connected(&mesh, "rome").await;
    let (pending, csr_der) = link.credentials.new_request().unwrap();

    link.say(Renewal { csr_der }).await;

    // Updates may come in between.
    let renewed = loop {
        if let Some(Body::Renewed(renewed)) = link.hear().await.body {
            break renewed;
        }
    };
    let chain = renewed.chain_der.into_iter().map(CertificateDer::from).collect();
    let directory = mesh.dir.path().join("rome");
    link.credentials.replace(&pending, chain, &directory, SystemTime::now()).unwrap();
    assert!(mesh.dial(&directory).await.is_ok());
}

#[tokio::test]
async fn nobody_without_a_certificate_speaks_control() {
    let mesh = Mesh::start().await;
    let token = mesh.invite("rome").await;
    let mut tls = (*overway_pki::join_client_config(token.ca_sha256)).clone();
    tls.alpn_protocols = vec![ALPN_CONTROL.to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();

    let connection =
        within(endpoint.connect_with(config, mesh.control, "x.internal").unwrap()).await.unwrap();

    assert!(within(connection.closed()).await.to_string().contains("certificate is needed"));
}

#[tokio::test]
async fn the_schedulers_own_certificate_is_renewed_when_due() {
    let dir = tempfile::tempdir().unwrap();
    let state_dir = dir.path().join("scheduler");
    let authority: Authority = init(&state_dir, "demo").unwrap();
    let day = Duration::from_secs(86_400);
    let (pending, csr_der) = PendingKey::generate().unwrap();
    let identity = Identity::new(Role::Scheduler, 1, "demo").unwrap();
    let made = SystemTime::now() - 80 * day;
    let chain = authority.issue(&csr_der, &identity, 90 * day, made).unwrap();
    let old = Credentials::load(&state_dir).unwrap();
    old.replace(&pending, chain, &state_dir, SystemTime::now()).unwrap();

    let mesh = Mesh::start_in(dir).await;

    let renewed = Credentials::load(&state_dir).unwrap();
    assert!(renewed.not_after() > old.not_after() + 70 * day);
    mesh.stop().await;
}

#[tokio::test]
async fn what_a_member_said_of_itself_is_known_after_a_restart() {
    let mesh = Mesh::start().await;
    let link = connected(&mesh, "rome").await;
    // Written beside the session, hence perhaps a moment later.
    let store = mesh.dir.path().join("scheduler/mesh.redb");
    eventually(|| async {
        let bytes = std::fs::read(&store).unwrap();
        bytes.windows(14).any(|window| window == b"127.0.0.1:4401").then_some(())
    })
    .await;

    drop(link);
    let mesh = Mesh::start_in(mesh.stop().await).await;

    let status = mesh.status().await;
    assert_eq!(status["relays"][0]["connected"], false);
    assert_eq!(status["relays"][0]["addresses"][0], "127.0.0.1:4401");
}

#[tokio::test]
async fn connections_of_a_scheduler_that_died_are_reset_by_the_next() {
    let mesh = Mesh::start().await;
    let directory = mesh.join("rome").await;
    let wire = Wire::new().await;
    wire.plug(Some(mesh.control));
    let mut link = mesh.dial_at(wire.front, &directory).await.unwrap();
    link.say(hello("rome")).await;
    link.hear().await;

    // The relay hears nothing of the scheduler's end.
    wire.plug(None);
    let mesh = Mesh::start_in(mesh.stop().await).await;
    wire.plug(Some(mesh.control));
    link.say(Ack { revision: 0, resync: true }).await;

    assert_eq!(link.closed().await, quinn::ConnectionError::Reset);
}

#[tokio::test]
async fn a_relay_whose_reports_do_not_count_up_is_made_to_dial_again() {
    let mesh = Mesh::start().await;
    let mut link = connected(&mesh, "rome").await;

    for _ in 0..3 {
        link.say(Report::default()).await;
    }

    link.closed().await;
    let mut again = mesh.dial(&mesh.dir.path().join("rome")).await.unwrap();
    again.say(hello("rome")).await;
    assert!(matches!(again.hear().await.body, Some(Body::Welcome(_))));
}

#[tokio::test]
async fn a_scheduler_that_is_behind_the_mesh_raises_its_term_by_itself() {
    let mesh = Mesh::start().await;
    let rome = connected(&mesh, "rome").await;
    let directory = mesh.join("oslo").await;
    let ahead = Hello { epoch_term: 40, epoch_sequence: 9, ..hello("oslo") };

    let mut oslo = mesh.dial(&directory).await.unwrap();
    oslo.say(ahead.clone()).await;

    let Some(Body::Refused(refused)) = oslo.hear().await.body else { panic!("not refused") };
    assert!(refused.reason.contains("older than the mesh"), "{}", refused.reason);
    rome.closed().await;
    for again in [hello("rome"), ahead] {
        let mut link = mesh.dial(&mesh.dir.path().join(&again.name)).await.unwrap();
        link.say(again).await;
        let Some(Body::Welcome(welcome)) = link.hear().await.body else { panic!("no welcome") };
        assert_eq!(welcome.term, 41);
    }
    let (_, events) = mesh.get("/v1/events").await;
    assert!(events.contains("term_raised"), "{events}");
    let mesh = Mesh::start_in(mesh.stop().await).await;
    assert_eq!(mesh.status().await["epoch_term"], 42);
}

#[tokio::test]
async fn terms_are_raised_rarely_and_not_without_bounds() {
    let mesh = Mesh::start().await;
    let directory = mesh.join("rome").await;
    let claim = async |epoch_term| {
        let mut link = mesh.dial(&directory).await.unwrap();
        link.say(Hello { epoch_term, ..hello("rome") }).await;
        let Some(Body::Refused(refused)) = link.hear().await.body else { panic!("not refused") };
        refused.reason
    };
    let term = async || mesh.status().await["epoch_term"].as_u64().unwrap();

    assert!(claim(u64::MAX).await.contains("no mesh comes that far"));
    assert_eq!(term().await, 1);
    claim(40).await;
    eventually(|| async { (term().await == 41).then_some(()) }).await;
    for another in 50..55 {
        claim(another).await;
    }

    assert_eq!(term().await, 41);
    let (_, metrics) = mesh.get("/metrics").await;
    assert!(metrics.contains("overway_scheduler_terms_absurd_total 1"), "{metrics}");
    assert!(metrics.contains("overway_scheduler_terms_raised_total 1"), "{metrics}");
}

#[tokio::test]
async fn a_connection_lasts_no_longer_than_the_certificate_that_it_showed() {
    let mesh = Mesh::start().await;
    let directory = mesh.join("rome").await;
    let authority = Authority::load(&mesh.dir.path().join("scheduler")).unwrap();
    let credentials = Credentials::load(&directory).unwrap();
    let (pending, csr_der) = credentials.new_request().unwrap();
    let now = SystemTime::now();
    let life = Duration::from_secs(4);
    let chain = authority.issue(&csr_der, credentials.identity(), life, now).unwrap();
    credentials.replace(&pending, chain, &directory, now).unwrap();
    let expired = mesh.dir.path().join("expired");
    std::fs::create_dir(&expired).unwrap();
    credentials.save(&expired).unwrap();

    let mut link = mesh.dial(&directory).await.unwrap();
    link.say(hello("rome")).await;
    let (pending, csr_der) = link.credentials.new_request().unwrap();
    link.say(Renewal { csr_der }).await;
    let renewed = loop {
        if let Some(Body::Renewed(renewed)) = link.hear().await.body {
            break renewed;
        }
    };
    let chain = renewed.chain_der.into_iter().map(CertificateDer::from).collect();
    link.credentials.replace(&pending, chain, &directory, SystemTime::now()).unwrap();
    assert!(link.connection.close_reason().is_none(), "the old one holds until its end");

    assert!(link.closed().await.to_string().contains("expired"));
    assert!(SystemTime::now() + Duration::from_secs(1) >= credentials.not_after());
    assert!(is_turned_away(&mesh, &expired).await);
    let mut again = mesh.dial(&directory).await.unwrap();
    again.say(hello("rome")).await;
    assert!(matches!(again.hear().await.body, Some(Body::Welcome(_))));
}

#[tokio::test]
async fn links_that_no_relay_reports_on_are_not_counted_as_usable() {
    let mesh = Mesh::start().await;
    let mut links = Vec::new();
    for name in ["rome", "oslo"] {
        let directory = mesh.join(name).await;
        let mut link = mesh.dial(&directory).await.unwrap();
        let port = 4_401 + links.len();
        let addresses = vec![format!("127.0.0.1:{port}")];
        link.say(Hello { addresses, ..hello(name) }).await;
        links.push(link);
    }
    let window = Some(Window { rtt_us: 9_000, samples: 30, ..Window::default() });
    for (link, neighbour) in links.iter_mut().zip([2, 1]) {
        let up = State::Up.into();
        let (fast, slow) = (window.clone(), window.clone());
        let report = LinkReport {
            neighbour,
            inbound: up,
            outbound: up,
            fast,
            slow,
            ..LinkReport::default()
        };
        link.say(Report { sequence: 1, full: true, links: vec![report], ..Report::default() })
            .await;
    }
    eventually(|| async { (mesh.status().await["links_usable"] == 2).then_some(()) }).await;

    for link in &links {
        link.connection.close(0_u32.into(), b"");
    }

    let gone = async || {
        let status = mesh.status().await;
        let relays = status["relays"].as_array().unwrap().clone();
        relays.iter().all(|relay| relay["connected"] == false).then_some(status)
    };
    let status = eventually(gone).await;
    assert!(status["links_usable"].is_null(), "{status}");
    for link in status["links"].as_array().unwrap() {
        assert_eq!((&link["known"], &link["usable"]), (&false.into(), &false.into()));
    }
    let (_, metrics) = mesh.get("/metrics").await;
    assert!(metrics.contains("overway_scheduler_links_usable 0"), "{metrics}");
    assert!(metrics.contains("overway_scheduler_links_unknown 2"), "{metrics}");
}
