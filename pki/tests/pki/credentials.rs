use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use overway_pki::{Authority, Credentials, CredentialsError, PendingKey, Role};

use crate::support::{DAY, LIFETIME, credentials, identity, issued_at};

fn mesh() -> Authority {
    Authority::create("blue").unwrap()
}

/// The bytes of a node's three files.
fn files(directory: &Path) -> [Vec<u8>; 3] {
    ["node.pem", "node.key", "ca.pem"].map(|name| fs::read(directory.join(name)).unwrap())
}

#[test]
fn credentials_that_were_saved_are_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("frankfurt");
    let authority = mesh();
    let made = credentials(&authority, Role::Relay, 7);
    made.save(&state).unwrap();

    let loaded = Credentials::load(&state).unwrap();

    assert_eq!(*loaded.identity(), identity(Role::Relay, 7));
    assert_eq!(loaded.chain(), made.chain());
    assert_eq!(loaded.not_after(), made.not_after());
    assert_eq!(loaded.ca_fingerprint(), authority.fingerprint());
}

#[test]
fn the_key_is_its_owners_alone_and_nothing_temporary_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("frankfurt");
    credentials(&mesh(), Role::Relay, 7).save(&state).unwrap();

    let mode = |name: &str| state.join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("node.key"), mode("node.pem"), mode("ca.pem")], [0o600, 0o644, 0o644]);
    assert_eq!(state.read_dir().unwrap().count(), 3);
}

#[test]
fn a_renewal_is_due_when_a_third_of_the_life_is_left() {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let made = issued_at(&mesh(), Role::Relay, 7, start);

    assert_eq!(made.not_after(), start + 90 * DAY);
    assert!(!made.renew_due(start));
    assert!(!made.renew_due(start + 59 * DAY));
    assert!(made.renew_due(start + 60 * DAY));
    assert!(made.renew_due(start + 200 * DAY));
}

#[test]
fn a_life_of_seconds_keeps_its_shape() {
    let authority = mesh();
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let (pending, csr) = PendingKey::generate().unwrap();
    let chain =
        authority.issue(&csr, &identity(Role::Relay, 7), Duration::from_secs(30), start).unwrap();
    let made = Credentials::from_join(&pending, chain, authority.fingerprint(), start).unwrap();

    assert!(!made.renew_due(start));
    assert!(!made.renew_due(start + Duration::from_secs(15)));
    assert!(made.renew_due(start + Duration::from_secs(20)));
}

#[test]
fn a_renewal_is_used_and_saved() {
    let directory = tempfile::tempdir().unwrap();
    let authority = mesh();
    let start = SystemTime::now();
    let made = issued_at(&authority, Role::Relay, 7, start);
    made.save(directory.path()).unwrap();
    let before = files(directory.path());

    let later = start + 60 * DAY;
    let (pending, csr) = made.new_request().unwrap();
    let chain = authority.issue(&csr, made.identity(), LIFETIME, later).unwrap();
    made.replace(&pending, chain.clone(), directory.path(), later).unwrap();

    assert_eq!(made.chain(), chain);
    assert!(made.not_after() > start + 149 * DAY);
    assert!(!made.renew_due(later));
    assert_eq!(Credentials::load(directory.path()).unwrap().chain(), chain);
    let after = files(directory.path());
    assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2]);
    assert_eq!(directory.path().read_dir().unwrap().count(), 3);
}

#[test]
fn what_is_put_into_the_directory_is_taken_when_it_is_adopted_and_another_nodes_never() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, now) = (mesh(), SystemTime::now());
    let made = credentials(&authority, Role::Relay, 7);
    made.save(directory.path()).unwrap();
    assert!(matches!(made.reread(directory.path(), now), Ok(None)));

    let next = credentials(&authority, Role::Relay, 7);
    next.save(directory.path()).unwrap();
    let reread = made.reread(directory.path(), now).unwrap().unwrap();
    assert_ne!(made.chain(), next.chain(), "not yet");
    made.adopt(reread);
    assert_eq!(made.chain(), next.chain());

    let reread = |node: &Credentials, at| {
        node.save(directory.path()).unwrap();
        made.reread(directory.path(), at).err().unwrap()
    };
    let other = reread(&credentials(&authority, Role::Relay, 8), now);
    assert!(matches!(other, CredentialsError::OtherIdentity { .. }), "{other}");
    let other = reread(&credentials(&mesh(), Role::Relay, 7), now);
    assert!(matches!(other, CredentialsError::OtherCa), "{other}");
    let late = reread(&credentials(&authority, Role::Relay, 7), now + 2 * LIFETIME);
    assert!(matches!(late, CredentialsError::Expired), "{late}");
    assert_eq!(made.chain(), next.chain());
}

#[test]
fn a_renewal_that_does_not_fit_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, other) = (mesh(), mesh());
    let now = SystemTime::now();
    let made = credentials(&authority, Role::Relay, 7);
    made.save(directory.path()).unwrap();
    let before = (files(directory.path()), made.chain());

    let (pending, csr) = made.new_request().unwrap();
    let (_, another_csr) = made.new_request().unwrap();
    let own = made.identity();
    let issue = |by: &Authority, csr: &[u8], id: u16, at: SystemTime| {
        by.issue(csr, &identity(Role::Relay, id), LIFETIME, at).unwrap()
    };
    let refusal = |chain| made.replace(&pending, chain, directory.path(), now).unwrap_err();

    assert!(matches!(refusal(issue(&authority, &another_csr, 7, now)), CredentialsError::OtherKey));
    assert!(matches!(
        refusal(issue(&authority, &csr, 8, now)),
        CredentialsError::OtherIdentity { own: told, .. } if told == *own
    ));
    assert!(matches!(refusal(issue(&other, &csr, 7, now)), CredentialsError::OtherCa));
    assert!(matches!(
        refusal(issue(&authority, &csr, 7, now - 91 * DAY)),
        CredentialsError::Expired
    ));
    assert!(matches!(
        refusal(issue(&authority, &csr, 7, now + DAY)),
        CredentialsError::NotYetValid
    ));
    assert!(matches!(refusal(Vec::new()), CredentialsError::Identity(_)));
    assert!(matches!(refusal(vec![vec![1, 2, 3].into()]), CredentialsError::Identity(_)));
    assert!(matches!(
        refusal(vec![authority.certificate().clone()]),
        CredentialsError::Identity(_)
    ));

    assert_eq!((files(directory.path()), made.chain()), before);
    let chain = issue(&authority, &csr, 7, now);
    made.replace(&pending, chain, directory.path(), now).unwrap();
}

#[test]
fn a_renewal_that_cannot_be_saved_changes_nothing() {
    let authority = mesh();
    let now = SystemTime::now();
    let made = credentials(&authority, Role::Relay, 7);
    let before = made.chain();
    let (pending, csr) = made.new_request().unwrap();
    let chain = authority.issue(&csr, made.identity(), LIFETIME, now).unwrap();

    let error = made.replace(&pending, chain, Path::new("/nonexistent/overway"), now).unwrap_err();

    assert!(matches!(error, CredentialsError::File(_)), "{error}");
    assert_eq!(made.chain(), before);
}

/// A renewal writes `node.key.new`, then `node.pem`, then renames `node.key.new` to `node.key`.
#[test]
fn a_renewal_cut_short_at_any_step_leaves_credentials_that_load() {
    let authority = mesh();
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    credentials(&authority, Role::Relay, 7).save(old.path()).unwrap();
    credentials(&authority, Role::Relay, 7).save(new.path()).unwrap();
    let chain_of = |directory: &Path| Credentials::load(directory).unwrap().chain();
    let (old_chain, new_chain) = (chain_of(old.path()), chain_of(new.path()));

    fs::copy(new.path().join("node.key"), old.path().join("node.key.new")).unwrap();
    assert_eq!(chain_of(old.path()), old_chain);

    fs::copy(new.path().join("node.pem"), old.path().join("node.pem")).unwrap();
    assert_eq!(chain_of(old.path()), new_chain);
    assert!(!old.path().join("node.key.new").exists());
    assert_eq!(files(old.path()), files(new.path()));
}

#[test]
fn a_left_over_new_key_that_is_spoilt_does_not_stop_a_start() {
    let directory = tempfile::tempdir().unwrap();
    credentials(&mesh(), Role::Relay, 7).save(directory.path()).unwrap();
    fs::write(directory.path().join("node.key.new"), "").unwrap();

    Credentials::load(directory.path()).unwrap();
}

#[test]
fn what_a_join_returns_must_be_of_the_tokens_ca() {
    let (authority, other) = (mesh(), mesh());
    let (pending, csr) = PendingKey::generate().unwrap();
    let now = SystemTime::now();
    let issue = |by: &Authority| by.issue(&csr, &identity(Role::Relay, 7), LIFETIME, now).unwrap();

    let wrong = Credentials::from_join(&pending, issue(&other), authority.fingerprint(), now);
    assert!(matches!(wrong, Err(CredentialsError::OtherCa)));

    let mut mixed = issue(&other);
    mixed[1] = authority.certificate().clone();
    let wrong = Credentials::from_join(&pending, mixed, authority.fingerprint(), now);
    assert!(matches!(wrong, Err(CredentialsError::OtherCa)));

    Credentials::from_join(&pending, issue(&authority), authority.fingerprint(), now).unwrap();
}

#[test]
fn files_that_do_not_belong_together_do_not_load() {
    let (authority, other) = (mesh(), mesh());
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mix = |name: &str| {
        credentials(&authority, Role::Relay, 7).save(one.path()).unwrap();
        credentials(&other, Role::Relay, 7).save(two.path()).unwrap();
        fs::copy(two.path().join(name), one.path().join(name)).unwrap();
        Credentials::load(one.path()).unwrap_err()
    };

    assert!(matches!(mix("node.key"), CredentialsError::OtherKey));
    assert!(matches!(mix("ca.pem"), CredentialsError::OtherCa));
}

#[test]
fn expired_credentials_load_and_tell_when_they_ended() {
    let directory = tempfile::tempdir().unwrap();
    let start = SystemTime::now() - 100 * DAY;
    issued_at(&mesh(), Role::Relay, 7, start).save(directory.path()).unwrap();

    let loaded = Credentials::load(directory.path()).unwrap();

    assert!(loaded.not_after() < SystemTime::now());
    assert!(loaded.renew_due(SystemTime::now()));
}

#[test]
fn printing_credentials_shows_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let authority = mesh();
    let made = credentials(&authority, Role::Relay, 7);
    made.save(directory.path()).unwrap();
    let (pending, _) = PendingKey::generate().unwrap();

    let printed = format!("{made:?} {pending:?} {authority:?}");

    assert!(printed.contains("Relay") && printed.len() < 400, "{printed}");
}
