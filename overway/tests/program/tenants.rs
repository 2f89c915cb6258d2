//! Tenants, keys and tokens, as an operator and an application's developer handle them.

use std::os::unix::fs::PermissionsExt;

use overway_wire::control::{Item, Update, item};
use prost::Message;
use serde_json::Value;

use super::program::{Done, Place};

fn json(done: &Done) -> Value {
    assert_eq!(done.code(), 0, "{done:?}");
    serde_json::from_str(&done.out()).unwrap()
}

/// A tenant's key `a` and an edge's key; returns the edge's id.
fn keys(place: &Place) -> String {
    let made = place.run(&["tenant", "keygen", "--kid", "a", "--out", "im.key"]);
    assert_eq!(made.code(), 0, "{made:?}");
    let edge = place.run(&["edge", "keygen"]);
    assert_eq!(edge.code(), 0, "{edge:?}");
    edge.out().trim().to_owned()
}

fn mint(place: &Place, more: &[&str]) -> Done {
    let common = ["token", "mint", "--key", "im.key", "--kid", "a", "--tenant", "im"];
    place.run(&[&common[..], more].concat())
}

fn check(place: &Place, token: &str, more: &[&str]) -> Done {
    let common = ["token", "check", "--tenant-keys", "im.jwks.json", token];
    place.run(&[&common[..], more].concat())
}

#[test]
fn a_token_is_minted_for_an_edge_and_checked() {
    let place = Place::new();
    let id = keys(&place);

    let minted = mint(&place, &["--edge-key", "edge.key", "--services", "chat,mail", "--json"]);
    let minted = json(&minted);
    let token = minted["token"].as_str().unwrap();

    assert_eq!(minted["claims"]["cnf"]["jkt"], id.as_str());
    let checked = json(&check(&place, token, &["--jkt", &id, "--tenant", "im", "--json"]));
    assert_eq!(checked, minted["claims"]);
    assert_eq!(checked["services"], serde_json::json!(["chat", "mail"]));
    assert_eq!(checked["exp"].as_u64().unwrap() - checked["iat"].as_u64().unwrap(), 3_600);
    let told = check(&place, token, &[]);
    assert!(told.out().starts_with("the token counts for another "), "{told:?}");
    assert!(told.out().contains("services  chat, mail\noffers    none\n"), "{told:?}");

    let by_id = mint(&place, &["--jkt", &id, "--offers", "*", "--expires", "31d"]);
    assert_eq!(check(&place, by_id.out().trim(), &[]).code(), 0);
    let odd = "-PrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    let odd_token = mint(&place, &["--jkt", odd]);
    assert_eq!(check(&place, odd_token.out().trim(), &["--jkt", odd]).code(), 0, "{odd_token:?}");
}

#[test]
fn a_token_that_does_not_count_is_refused_with_the_reason_and_exit_code_1() {
    let place = Place::new();
    let id = keys(&place);
    let token = mint(&place, &["--jkt", &id]).out().trim().to_owned();
    let other = place.run(&["tenant", "keygen", "--kid", "a", "--out", "other.key"]);
    assert_eq!(other.code(), 0);
    let (head, signature) = token.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let changed = format!("{head}.{other}{}", &signature[1..]);

    let cases = [
        (vec!["--tenant", "him"], token.as_str(), "there is no tenant \"im\""),
        (vec!["--jkt", "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"], &token, "not for kPrK"),
        (vec![], &changed, "signature"),
        (vec![], head, "three parts"),
        (vec![], "e30.e30", "three parts"),
    ];
    for (more, token, words) in cases {
        let refused = check(&place, token, &more);
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert!(refused.err().contains(words), "{words}: {refused:?}");
        assert_eq!(refused.err().lines().count(), 1, "{refused:?}");
    }
    let foreign = place.run(&["token", "check", "--tenant-keys", "other.jwks.json", &token]);
    assert_eq!(foreign.code(), 1);
    assert!(foreign.err().contains("another key signed"), "{foreign:?}");
    for (more, words) in [
        (vec!["--expires", "32d"], "2678400 s is the most"),
        (vec!["--services", "Chat"], "\"Chat\" is no service's name"),
        (vec!["--name", ""], "\"sub\""),
    ] {
        let refused = mint(&place, &[&["--jkt", &id], &more[..]].concat());
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(refused.err().contains(words), "{refused:?}");
    }
}

#[test]
fn key_files_are_their_owners_alone_and_are_never_overwritten() {
    let place = Place::new();
    keys(&place);

    for file in ["im.key", "edge.key"] {
        let mode = std::fs::metadata(place.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let before = std::fs::read(place.path().join("edge.key")).unwrap();
    let again = place.run(&["edge", "keygen"]);
    assert_eq!(again.code(), 1);
    assert!(again.err().contains("exists already"), "{again:?}");
    assert_eq!(std::fs::read(place.path().join("edge.key")).unwrap(), before);
    let tenant = place.run(&["tenant", "keygen", "--kid", "b", "--out", "im.key"]);
    assert!(tenant.err().contains("exists already"), "{tenant:?}");
}

#[test]
fn a_tenant_from_its_making_to_its_end() {
    let place = Place::new();
    place.init();
    keys(&place);
    let scheduler = place.scheduler();
    let _relay = place.relay(&scheduler, "rome", "eu-south");
    let admin = ["--admin", scheduler.admin.as_str()];
    let run = |args: &[&str]| place.run(&[args, &admin[..]].concat());

    assert!(run(&["tenant", "list"]).out().contains("no tenants"));
    let added = run(&["tenant", "add", "im", "--flows", "100"]);
    assert!(added.out().starts_with("tenant im (1) takes everybody's routes"), "{added:?}");
    let key = run(&["tenant", "key", "add", "im", "--key", "im.jwks.json"]);
    assert!(key.out().contains("key a, added"), "{key:?}");
    let private = run(&["tenant", "key", "add", "im", "--key", "im.key", "--kid", "x"]);
    assert_eq!(private.code(), 2);
    assert!(private.err().contains("stays with the backend"), "{private:?}");

    assert_eq!(run(&["policy", "set", "eu", "--regions", "eu-south"]).code(), 0);
    let policy = run(&["tenant", "policy", "im", "eu"]);
    assert_eq!(policy.out(), "tenant im takes the routes of policy eu\n", "{policy:?}");
    assert_eq!(run(&["policy", "remove", "eu"]).code(), 1, "a tenant has it");
    let quota = run(&["tenant", "quota", "im", "--bulk-bps", "50000000"]);
    assert_eq!(quota.out(), "tenant im: at most 50 Mbit/s bulk\n", "{quota:?}");
    assert_eq!(run(&["tenant", "token", "revoke", "im", "t-1"]).code(), 0);
    relay_has(&place, 1);
    let revoked = run(&["tenant", "key", "revoke", "im", "a"]);
    assert!(revoked.out().starts_with("im has no key"), "{revoked:?}");
    let shown = json(&run(&["tenant", "show", "im", "--json"]));
    assert_eq!(shown["revoked_keys"][0]["kid"], "a");
    assert_eq!(shown["revoked_tokens"][0]["jti"], "t-1");
    assert_eq!((&shown["policy"], &shown["quota"]["flows"]), (&"eu".into(), &Value::Null));
    relay_has(&place, 0);

    let wrong = run(&["tenant", "show", "in"]);
    assert_eq!(wrong.code(), 2);
    assert!(wrong.err().contains("did you mean \"im\"?"), "{wrong:?}");
    assert_eq!(run(&["tenant", "remove", "im"]).code(), 0);
    assert_eq!(json(&run(&["tenant", "list", "--json"]))["tenants"], serde_json::json!([]));
}

/// Waits until what the relay keeps on its disk has the tenant with so many keys.
fn relay_has(place: &Place, keys: usize) {
    let started = std::time::Instant::now();
    loop {
        let state = std::fs::read(place.path().join("rome/pushed.bin")).unwrap_or_default();
        let items = Update::decode(&state[..]).unwrap().put;
        let has = |item: &Item| match &item.body {
            Some(item::Body::Tenant(tenant)) => tenant.keys.len() == keys,
            Some(_) | None => false,
        };
        if items.iter().any(has) {
            return;
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(30), "it does not come");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
