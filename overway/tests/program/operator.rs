//! What an operator does, in order.

use super::program::Place;

#[test]
fn from_an_empty_directory_to_a_relay_that_has_joined() {
    let place = Place::new();
    place.init();
    let scheduler = place.scheduler();
    let admin = scheduler.admin.as_str();

    let empty = place.run(&["status", "--admin", admin]);
    assert_eq!(empty.code(), 0, "{empty:?}");
    assert!(empty.out().contains("no relays yet"), "{empty:?}");

    let added = place.run(&["node", "add", "rome", "--ttl", "5m", "--admin", admin]);
    assert_eq!(added.code(), 0, "{added:?}");
    let token = added.out().trim().to_owned();
    let joined = place.run(&["relay", "join", &token]);
    assert_eq!(joined.code(), 0, "{joined:?}");
    for file in ["node.pem", "node.key", "ca.pem"] {
        assert!(place.path().join("rome").join(file).exists(), "{file}");
    }
    let valid = place.run(&["validate", "relay.toml", "scheduler.toml"]);
    assert_eq!(valid.out(), "OK relay.toml (relay)\nOK scheduler.toml (scheduler)\n", "{valid:?}");

    let listed = place.run(&["node", "list", "--admin", admin]);
    assert!(listed.out().contains("member"), "{listed:?}");
    let degraded = place.run(&["status", "--admin", admin]);
    assert_eq!(degraded.code(), 3, "{degraded:?}");
    assert!(degraded.out().starts_with("! relay rome has not been heard of"), "{degraded:?}");
    let json = place.run(&["status", "--json", "--admin", admin]);
    let json: serde_json::Value = serde_json::from_str(&json.out()).unwrap();
    assert_eq!(json["relays"][0]["name"], "rome");

    assert_eq!(place.run(&["node", "remove", "rome", "--admin", admin]).code(), 0);
    assert_eq!(place.run(&["status", "--admin", admin]).code(), 0);
    assert_eq!(scheduler.terminate(), Some(0));
    assert!(!place.path().join("scheduler/admin.addr").exists());
}

#[test]
fn a_token_that_was_used_is_refused_in_one_line() {
    let place = Place::new();
    place.init();
    let scheduler = place.scheduler();
    let added = place.run(&["node", "add", "rome", "--admin", &scheduler.admin]);
    let token = added.out().trim().to_owned();
    assert_eq!(place.run(&["relay", "join", &token]).code(), 0);

    let again = place.run(&["relay", "join", &token, "--dir", "elsewhere"]);

    assert_eq!(again.code(), 1);
    assert!(again.err().contains("used already"), "{again:?}");
    assert_eq!(again.err().lines().count(), 1, "{again:?}");
}

#[test]
fn a_second_init_overwrites_nothing() {
    let place = Place::new();
    place.init();
    let key = std::fs::read(place.path().join("scheduler/ca.key")).unwrap();

    let again = place.run(&["pki", "init"]);

    assert_eq!(again.code(), 1);
    assert!(again.err().contains("ca.key exists already"), "{again:?}");
    assert_eq!(std::fs::read(place.path().join("scheduler/ca.key")).unwrap(), key);
}

#[test]
fn two_schedulers_do_not_share_a_directory() {
    let place = Place::new();
    place.init();
    let _scheduler = place.scheduler();

    let second = place.run(&["scheduler"]);

    assert_eq!(second.code(), 1);
    assert!(second.err().contains("another scheduler"), "{second:?}");
}

#[test]
fn a_scheduler_that_wants_the_admin_token_takes_changes_with_it_alone() {
    let place = Place::new();
    place.init();
    let config = place.path().join("scheduler.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replacen("[admin]", "[admin]\nrequire_token = true", 1);
    std::fs::write(config, text).unwrap();
    let scheduler = place.scheduler();
    let add = |more: &[&str]| {
        let words = ["node", "add", "rome", "--admin", scheduler.admin.as_str()];
        place.run(&[&words[..], more].concat())
    };

    let without = add(&[]);
    assert_eq!(without.code(), 2, "{without:?}");
    assert!(without.err().contains("--admin-token-file"), "{without:?}");
    let wrong = add(&["--admin-token-file", "scheduler.toml"]);
    assert_eq!(wrong.code(), 2, "{wrong:?}");
    assert!(wrong.err().contains("no admin token"), "{wrong:?}");
    let with = add(&["--admin-token-file", "scheduler/admin.token"]);
    assert_eq!(with.code(), 0, "{with:?}");
}
