use std::sync::Arc;
use std::time::SystemTime;

use overway_pki::{
    ALPN_CONTROL, ALPN_JOIN, ALPN_MESH, Authority, ClientAuth, Credentials, Identity,
    JOIN_SERVER_NAME, Role, client_config, join_client_config, peer_identity, server_config,
};
use rustls::{ClientConfig, RootCertStore};

use crate::support::{DAY, LIFETIME, Outcome, credentials, handshake, identity, issued_at, talk};

const RELAYS: ClientAuth = ClientAuth::Required(&[Role::Relay]);

fn mesh() -> Authority {
    Authority::create("blue").unwrap()
}

fn connect(client: &Arc<Credentials>, server: &Arc<Credentials>) -> Outcome {
    handshake(
        &client_config(client, &[ALPN_MESH]),
        &server_config(server, &[ALPN_MESH], RELAYS),
        &server.identity().server_name(),
    )
}

/// What the end that refused has said.
fn refused_by_server(outcome: Outcome) -> String {
    let refused = outcome.expect_err("the server should refuse");
    refused.by_server.expect("the server should be the one that refuses")
}

fn refused_by_client(outcome: Outcome) -> String {
    let refused = outcome.expect_err("the client should refuse");
    refused.by_client.expect("the client should be the one that refuses")
}

/// A client that trusts the mesh's CA but has nothing to show.
fn nobody(authority: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_MESH.to_vec(), ALPN_CONTROL.to_vec(), ALPN_JOIN.to_vec()];
    Arc::new(config)
}

#[test]
fn two_relays_of_a_mesh_know_each_other_after_the_handshake() {
    let authority = mesh();
    let (one, two) =
        (credentials(&authority, Role::Relay, 1), credentials(&authority, Role::Relay, 2));

    let (mut client, mut server) = connect(&one, &two).unwrap();

    let seen = |certs: Option<&[_]>| peer_identity(certs.unwrap()).unwrap();
    assert_eq!(seen(client.peer_certificates()), identity(Role::Relay, 2));
    assert_eq!(seen(server.peer_certificates()), identity(Role::Relay, 1));
    assert_eq!(server.alpn_protocol(), Some(ALPN_MESH));
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(talk(&mut client, &mut server), "hello");
}

#[test]
fn any_scheduler_can_be_dialled_without_its_id() {
    let authority = mesh();
    let relay = credentials(&authority, Role::Relay, 1);
    let scheduler = credentials(&authority, Role::Scheduler, 4);
    let other_relay = credentials(&authority, Role::Relay, 4);
    let client = client_config(&relay, &[ALPN_CONTROL]);
    let name = relay.any_scheduler_name();

    let served = |by: &Arc<Credentials>| {
        handshake(&client, &server_config(by, &[ALPN_CONTROL], RELAYS), &name)
    };

    assert!(served(&scheduler).is_ok());
    assert!(refused_by_client(served(&other_relay)).contains("relay-4 of mesh blue"));
}

#[test]
fn a_server_of_another_name_is_refused() {
    let authority = mesh();
    let (one, two) =
        (credentials(&authority, Role::Relay, 1), credentials(&authority, Role::Relay, 2));

    let outcome = handshake(
        &client_config(&one, &[ALPN_MESH]),
        &server_config(&two, &[ALPN_MESH], RELAYS),
        &identity(Role::Relay, 3).server_name(),
    );

    assert!(
        refused_by_client(outcome).contains(
            "the peer is relay-2 of mesh blue; dialled was relay-3.blue.overway.internal"
        )
    );
}

#[test]
fn a_certificate_of_another_ca_is_refused_by_both_ends() {
    let (ours, theirs) = (mesh(), mesh());
    let (one, two) = (credentials(&ours, Role::Relay, 1), credentials(&theirs, Role::Relay, 2));

    refused_by_client(connect(&one, &two));

    // A client that has taken our CA's word for the server, and shows a certificate of another.
    let mut config = ClientConfig::clone(&nobody(&ours));
    config.client_auth_cert_resolver =
        Arc::clone(&client_config(&two, &[ALPN_MESH]).client_auth_cert_resolver);
    let server = server_config(&one, &[ALPN_MESH], RELAYS);
    let name = one.identity().server_name();
    refused_by_server(handshake(&Arc::new(config), &server, &name));
}

#[test]
fn a_role_that_is_not_allowed_is_refused() {
    let authority = mesh();
    let scheduler = credentials(&authority, Role::Scheduler, 1);
    let relay = credentials(&authority, Role::Relay, 2);

    let reason = refused_by_server(connect(&scheduler, &relay));

    assert!(reason.contains("scheduler-1 of mesh blue: that role is not allowed here"), "{reason}");
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let authority = mesh();
    let relay = credentials(&authority, Role::Relay, 1);

    let outcome = handshake(
        &nobody(&authority),
        &server_config(&relay, &[ALPN_MESH], RELAYS),
        &relay.identity().server_name(),
    );

    assert!(refused_by_server(outcome).contains("no certificates"));
}

#[test]
fn an_expired_certificate_is_refused_by_both_ends() {
    let authority = mesh();
    let good = credentials(&authority, Role::Relay, 1);
    let expired = issued_at(&authority, Role::Relay, 2, SystemTime::now() - 91 * DAY);

    assert!(refused_by_client(connect(&good, &expired)).contains("expired"));
    assert!(refused_by_server(connect(&expired, &good)).contains("expired"));
}

#[test]
fn a_certificate_whose_time_has_not_come_is_refused() {
    let authority = mesh();
    let good = credentials(&authority, Role::Relay, 1);
    let early = issued_at(&authority, Role::Relay, 2, SystemTime::now() + DAY);

    refused_by_client(connect(&good, &early));
    refused_by_server(connect(&early, &good));
}

#[test]
fn a_revoked_relay_is_refused_by_both_ends_at_once_and_by_endpoints_made_before() {
    let authority = mesh();
    let (one, two) =
        (credentials(&authority, Role::Relay, 1), credentials(&authority, Role::Relay, 2));
    let client = client_config(&one, &[ALPN_MESH]);
    let server = server_config(&one, &[ALPN_MESH], RELAYS);
    let dial = || {
        handshake(
            &client,
            &server_config(&two, &[ALPN_MESH], RELAYS),
            &two.identity().server_name(),
        )
    };
    let accept =
        || handshake(&client_config(&two, &[ALPN_MESH]), &server, &one.identity().server_name());
    assert!(dial().is_ok() && accept().is_ok());

    one.revoked().insert(2);
    assert!(refused_by_client(dial()).contains("relay-2 of mesh blue, which was removed"));
    assert!(refused_by_server(accept()).contains("relay-2 of mesh blue, which was removed"));

    one.revoked().replace([3, 4]);
    assert!(dial().is_ok() && accept().is_ok());
}

#[test]
fn revoking_a_relay_leaves_the_scheduler_of_that_number_alone() {
    let authority = mesh();
    let relay = credentials(&authority, Role::Relay, 2);
    let scheduler = credentials(&authority, Role::Scheduler, 1);

    relay.revoked().insert(1);

    assert!(connect(&relay, &scheduler).is_ok());
}

#[test]
fn a_renewal_shows_in_the_next_handshake_of_endpoints_made_before() {
    let authority = mesh();
    let directory = tempfile::tempdir().unwrap();
    let (one, two) =
        (credentials(&authority, Role::Relay, 1), credentials(&authority, Role::Relay, 2));
    let client = client_config(&one, &[ALPN_MESH]);
    let server = server_config(&two, &[ALPN_MESH], RELAYS);
    let name = two.identity().server_name();
    let before = (one.chain().remove(0), two.chain().remove(0));

    for node in [&one, &two] {
        let (pending, csr) = node.new_request().unwrap();
        let now = SystemTime::now();
        let chain = authority.issue(&csr, node.identity(), LIFETIME, now).unwrap();
        node.replace(&pending, chain, directory.path(), now).unwrap();
    }
    let (client, server) = handshake(&client, &server, &name).unwrap();

    assert_eq!(server.peer_certificates().unwrap(), one.chain());
    assert_eq!(client.peer_certificates().unwrap(), two.chain());
    assert_ne!(before, (one.chain().remove(0), two.chain().remove(0)));
}

#[test]
fn nothing_is_resumed() {
    let authority = mesh();
    let (one, two) =
        (credentials(&authority, Role::Relay, 1), credentials(&authority, Role::Relay, 2));
    let client = client_config(&one, &[ALPN_MESH]);
    let server = server_config(&two, &[ALPN_MESH], RELAYS);
    let name = two.identity().server_name();

    for _ in 0..3 {
        let (mut client, mut server) = handshake(&client, &server, &name).unwrap();
        talk(&mut client, &mut server);
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_joining_node_believes_the_scheduler_of_the_tokens_ca_and_nobody_else() {
    let (ours, theirs) = (mesh(), mesh());
    let scheduler = credentials(&ours, Role::Scheduler, 1);
    let other_scheduler = credentials(&theirs, Role::Scheduler, 1);
    let relay = credentials(&ours, Role::Relay, 1);
    let join = join_client_config(ours.fingerprint());
    let dial = |server: &Arc<Credentials>| {
        handshake(&join, &server_config(server, &[ALPN_JOIN], ClientAuth::None), JOIN_SERVER_NAME)
    };

    let (client, server) = dial(&scheduler).unwrap();
    assert_eq!(server.alpn_protocol(), Some(ALPN_JOIN));
    assert_eq!(server.peer_certificates(), None);
    assert_eq!(
        peer_identity(client.peer_certificates().unwrap()).unwrap(),
        identity(Role::Scheduler, 1)
    );

    assert!(refused_by_client(dial(&other_scheduler)).contains("fingerprint"));
    assert!(refused_by_client(dial(&relay)).contains("role is not allowed"));
}

#[test]
fn a_ca_certificate_that_is_only_shown_vouches_for_nobody() {
    // A server that holds a copy of our CA's certificate, but not one that it has signed.
    let (ours, theirs) = (mesh(), mesh());
    let impostor = credentials(&theirs, Role::Scheduler, 1);
    let key = rustls::sign::CertifiedKey::new(
        vec![impostor.chain().remove(0), ours.certificate().clone()],
        Arc::new(Unsigning),
    );
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    server.alpn_protocols = vec![ALPN_JOIN.to_vec()];

    let outcome =
        handshake(&join_client_config(ours.fingerprint()), &Arc::new(server), JOIN_SERVER_NAME);

    let reason = refused_by_client(outcome);
    assert!(reason.contains("certificate"), "{reason}");
}

/// Signs with nonsense: the chain is refused before a signature would be.
#[derive(Debug)]
struct Unsigning;

impl rustls::sign::SigningKey for Unsigning {
    fn choose_scheme(
        &self,
        _offered: &[rustls::SignatureScheme],
    ) -> Option<Box<dyn rustls::sign::Signer>> {
        Some(Box::new(Self))
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        rustls::SignatureAlgorithm::ED25519
    }
}

impl rustls::sign::Signer for Unsigning {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(vec![0; 64])
    }

    fn scheme(&self) -> rustls::SignatureScheme {
        rustls::SignatureScheme::ED25519
    }
}

#[test]
fn one_listener_can_take_members_and_nodes_that_join() {
    let authority = mesh();
    let scheduler = credentials(&authority, Role::Scheduler, 1);
    let relay = credentials(&authority, Role::Relay, 1);
    let listener =
        server_config(&scheduler, &[ALPN_CONTROL, ALPN_JOIN], ClientAuth::Optional(&[Role::Relay]));

    let join = join_client_config(authority.fingerprint());
    let (_, server) = handshake(&join, &listener, JOIN_SERVER_NAME).unwrap();
    assert_eq!(server.alpn_protocol(), Some(ALPN_JOIN));
    assert!(server.peer_certificates().is_none());

    let member = client_config(&relay, &[ALPN_CONTROL]);
    let (_, server) = handshake(&member, &listener, &relay.any_scheduler_name()).unwrap();
    assert_eq!(server.alpn_protocol(), Some(ALPN_CONTROL));
    assert_eq!(
        peer_identity(server.peer_certificates().unwrap()).unwrap(),
        Identity::new(Role::Relay, 1, "blue").unwrap()
    );
}

#[test]
fn a_protocol_that_is_not_served_is_refused() {
    let authority = mesh();
    let (one, two) =
        (credentials(&authority, Role::Relay, 1), credentials(&authority, Role::Relay, 2));

    let outcome = handshake(
        &client_config(&one, &[ALPN_CONTROL]),
        &server_config(&two, &[ALPN_MESH], RELAYS),
        &two.identity().server_name(),
    );

    refused_by_server(outcome);
}
