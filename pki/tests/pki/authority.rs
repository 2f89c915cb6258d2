use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use overway_pki::{
    Authority, AuthorityError, Credentials, FileError, LIFETIME_MAX, PendingKey, Role,
    peer_identity,
};

use crate::support::{DAY, LIFETIME, identity};

#[test]
fn an_authority_that_was_saved_signs_as_before() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("scheduler");
    let authority = Authority::create("blue").unwrap();
    authority.save(&state).unwrap();

    let loaded = Authority::load(&state).unwrap();
    let (pending, csr) = PendingKey::generate().unwrap();
    let now = SystemTime::now();
    let chain = loaded.issue(&csr, &identity(Role::Relay, 7), LIFETIME, now).unwrap();

    assert_eq!(loaded.mesh(), "blue");
    assert_eq!(chain[1], *authority.certificate());
    assert_eq!(peer_identity(&chain).unwrap(), identity(Role::Relay, 7));
    Credentials::from_join(&pending, chain, authority.fingerprint(), now).unwrap();
}

#[test]
fn the_key_is_its_owners_alone_and_nothing_temporary_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("scheduler");
    Authority::create("blue").unwrap().save(&state).unwrap();

    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("ca.key")), 0o600);
    assert_eq!(mode(&state.join("ca.pem")), 0o644);
    assert_eq!(state.read_dir().unwrap().count(), 2);
}

#[test]
fn an_authority_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create("blue").unwrap();
    authority.save(directory.path()).unwrap();

    let error = Authority::create("green").unwrap().save(directory.path()).unwrap_err();

    assert!(matches!(error, AuthorityError::File(FileError::Exists { .. })), "{error}");
    assert_eq!(Authority::load(directory.path()).unwrap().fingerprint(), authority.fingerprint());
}

#[test]
fn a_key_of_another_authority_is_noticed() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Authority::create("blue").unwrap().save(one.path()).unwrap();
    Authority::create("blue").unwrap().save(two.path()).unwrap();
    std::fs::copy(two.path().join("ca.key"), one.path().join("ca.key")).unwrap();

    assert!(matches!(Authority::load(one.path()), Err(AuthorityError::OtherKey)));
}

#[test]
fn a_missing_or_spoilt_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Authority::load(directory.path()).unwrap_err().to_string();
    assert!(missing.contains("ca.pem: read: No such file"), "{missing}");

    Authority::create("blue").unwrap().save(directory.path()).unwrap();
    std::fs::write(directory.path().join("ca.key"), "not a key").unwrap();
    let spoilt = Authority::load(directory.path()).unwrap_err().to_string();
    assert!(spoilt.ends_with("ca.key: holds no PKCS #8 private key in PEM"), "{spoilt}");
}

#[test]
fn of_a_request_nothing_but_the_key_is_taken() {
    // The requester asks for another role, another name and to be a CA.
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params =
        rcgen::CertificateParams::new(vec!["scheduler-1.blue.overway.internal".to_owned()])
            .unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "scheduler-1");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&key).unwrap();
    let authority = Authority::create("blue").unwrap();

    let chain =
        authority.issue(csr.der(), &identity(Role::Relay, 7), LIFETIME, SystemTime::now()).unwrap();

    assert_eq!(peer_identity(&chain).unwrap(), identity(Role::Relay, 7));
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    assert!(!leaf.is_ca());
    assert_eq!(leaf.subject().to_string(), "CN=relay-7");
    let uses = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(uses.server_auth && uses.client_auth && !uses.any);
}

#[test]
fn a_request_that_its_key_has_not_signed_is_refused() {
    let authority = Authority::create("blue").unwrap();
    let (_, mut csr) = PendingKey::generate().unwrap();
    *csr.last_mut().unwrap() ^= 1;

    for bad in [&csr[..], b"", b"nonsense", &[0x30; 5_000]] {
        let outcome = authority.issue(bad, &identity(Role::Relay, 7), LIFETIME, SystemTime::now());
        assert!(matches!(outcome, Err(AuthorityError::Request)));
    }
}

#[test]
fn a_key_of_another_algorithm_is_refused() {
    let authority = Authority::create("blue").unwrap();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();

    let outcome =
        authority.issue(csr.der(), &identity(Role::Relay, 7), LIFETIME, SystemTime::now());

    assert!(matches!(outcome, Err(AuthorityError::Algorithm)));
}

#[test]
fn another_mesh_and_impossible_lifetimes_are_refused() {
    let authority = Authority::create("green").unwrap();
    let (_, csr) = PendingKey::generate().unwrap();
    let now = SystemTime::now();

    let other = authority.issue(&csr, &identity(Role::Relay, 7), LIFETIME, now).unwrap_err();
    assert_eq!(
        other.to_string(),
        "relay-7 of mesh blue cannot be signed by the authority of mesh green"
    );

    let authority = Authority::create("blue").unwrap();
    for lifetime in [Duration::ZERO, LIFETIME_MAX + DAY, Duration::MAX] {
        let outcome = authority.issue(&csr, &identity(Role::Relay, 7), lifetime, now);
        assert!(matches!(outcome, Err(AuthorityError::Lifetime)));
    }
}

#[test]
fn a_name_that_is_no_dns_label_makes_no_mesh() {
    for bad in ["", "Blue", "blue.green", "-blue", "blue-", "bl_ue", &"b".repeat(33)] {
        assert!(matches!(Authority::create(bad), Err(AuthorityError::Identity(_))), "{bad}");
    }
    for good in ["b", "blue-2", &"b".repeat(32)] {
        assert_eq!(Authority::create(good).unwrap().mesh(), good);
    }
}

#[test]
fn the_longest_names_fit_a_certificate() {
    let mesh = "b".repeat(32);
    let authority = Authority::create(&mesh).unwrap();
    let identity = overway_pki::Identity::new(Role::Scheduler, u16::MAX, &mesh).unwrap();
    let (pending, csr) = PendingKey::generate().unwrap();
    let now = SystemTime::now();

    let chain = authority.issue(&csr, &identity, LIFETIME_MAX, now).unwrap();

    let made = Credentials::from_join(&pending, chain, authority.fingerprint(), now).unwrap();
    assert_eq!(*made.identity(), identity);
}
