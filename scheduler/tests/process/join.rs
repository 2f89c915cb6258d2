//! Joining over QUIC.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use overway_pki::{Credentials, JoinToken, Role};
use overway_scheduler::join::{self, JoinError};
use overway_wire::RelayId;

use super::mesh::Mesh;

#[tokio::test]
async fn a_token_becomes_a_certificate_and_works_once() {
    let mesh = Mesh::start().await;
    let token = mesh.invite("rome").await;
    let directory = mesh.dir.path().join("rome");

    let joined = join::redeem(&token, &directory).await.unwrap();

    assert_eq!((joined.relay, joined.name.as_str()), (RelayId(1), "rome"));
    assert_eq!(joined.schedulers, [mesh.control.to_string()]);
    let credentials = Credentials::load(&directory).unwrap();
    assert_eq!((credentials.identity().role, credentials.identity().id), (Role::Relay, 1));
    let mode = directory.join("node.key").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let again = join::redeem(&token, &mesh.dir.path().join("other")).await;
    let Err(JoinError::Refused(reason)) = again else { panic!("{again:?}") };
    assert!(reason.contains("used already"), "{reason}");
    let over = join::redeem(&token, &directory).await;
    assert!(matches!(over, Err(JoinError::AlreadyJoined(_))), "{over:?}");
}

#[tokio::test]
async fn a_used_token_stays_used_and_the_term_rises_over_a_restart() {
    let mesh = Mesh::start().await;
    let token = mesh.invite("rome").await;
    join::redeem(&token, &mesh.dir.path().join("rome")).await.unwrap();

    let mesh = Mesh::start_in(mesh.stop().await).await;

    let mut again = token;
    again.schedulers = vec![mesh.control.to_string()];
    let refused = join::redeem(&again, &mesh.dir.path().join("other")).await;
    assert!(matches!(refused, Err(JoinError::Refused(_))), "{refused:?}");
    let status = mesh.status().await;
    assert_eq!(status["epoch_term"], 2);
    assert_eq!(status["relays"][0]["name"], "rome");
    assert_eq!(status["relays"][0]["connected"], false);
}

#[tokio::test]
async fn a_token_of_another_mesh_does_not_trust_this_scheduler() {
    let mesh = Mesh::start().await;
    let here = vec![mesh.control.to_string()];
    let soon = SystemTime::now() + Duration::from_secs(60);
    let token = JoinToken::new(here, [7; 32], "rome", soon).unwrap();

    let refused = join::redeem(&token, &mesh.dir.path().join("rome")).await;

    let Err(JoinError::Unreachable(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("fingerprint"), "{why}");
    assert!(!mesh.dir.path().join("rome").exists());
}

#[tokio::test]
async fn a_secret_that_was_never_given_is_refused() {
    let mesh = Mesh::start().await;
    let known = mesh.invite("rome").await;
    let soon = SystemTime::now() + Duration::from_secs(60);
    let guess = JoinToken::new(known.schedulers, known.ca_sha256, "rome", soon).unwrap();

    let refused = join::redeem(&guess, &mesh.dir.path().join("rome")).await;

    let Err(JoinError::Refused(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("not known"), "{reason}");
}
