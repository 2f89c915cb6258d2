use overway_pki::{
    ACCESS_SERVER_NAME, ALPN_CONTROL, Authority, ClientAuth, IdentityError, Role,
    access_client_config, server_config,
};

use crate::support::{credentials, handshake};

const ALPN: &[u8] = b"overway-access/1";

fn ca_pem(authority: &Authority) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    authority.save(directory.path()).unwrap();
    std::fs::read(directory.path().join("ca.pem")).unwrap()
}

#[test]
fn an_edge_takes_any_relay_of_its_mesh_and_nobody_else() {
    let (ours, theirs) = (Authority::create("blue").unwrap(), Authority::create("blue").unwrap());
    let client = access_client_config(&ca_pem(&ours), &[ALPN]).unwrap();
    let dial = |authority, role, id| {
        let server = server_config(&credentials(authority, role, id), &[ALPN], ClientAuth::None);
        handshake(&client, &server, ACCESS_SERVER_NAME)
    };

    for id in [1, 900] {
        let (_, server) = dial(&ours, Role::Relay, id).unwrap();
        assert_eq!(server.peer_certificates(), None);
    }
    let refused = dial(&ours, Role::Scheduler, 1).unwrap_err();
    assert!(refused.by_client.unwrap().contains("scheduler-1 of mesh blue: that role"));
    assert!(dial(&theirs, Role::Relay, 1).unwrap_err().by_client.is_some());
    let server =
        server_config(&credentials(&ours, Role::Relay, 1), &[ALPN_CONTROL], ClientAuth::None);
    assert!(handshake(&client, &server, ACCESS_SERVER_NAME).is_err(), "another protocol");
}

#[test]
fn what_is_no_ca_of_a_mesh_is_refused() {
    assert_eq!(access_client_config(b"", &[ALPN]).unwrap_err(), IdentityError::Unreadable);
    let junk = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    assert_eq!(access_client_config(junk, &[ALPN]).unwrap_err(), IdentityError::Unreadable);
}
