//! What an SRE runs: preflight checks, events, a bundle for support.

use super::program::Place;

#[test]
fn a_host_is_checked_events_are_shown_and_a_bundle_is_packed() {
    let place = Place::new();
    place.init();
    let scheduler = place.scheduler();
    let admin = scheduler.admin.clone();
    let _relay = place.relay(&scheduler, "rome", "eu");
    place.eventually(&["status", "--admin", &admin]);

    let checked = place.run(&["check", "--config", "rome.toml", "--json", "--admin", &admin]);
    // Kernel buffers and limits are the machine's.
    assert!([0, 3].contains(&checked.code()), "{checked:?}");
    let found: serde_json::Value = serde_json::from_str(&checked.out()).unwrap();
    let findings = found["findings"].as_array().unwrap();
    let verdict = |check: &str| {
        let finding = findings.iter().find(|it| it["check"].as_str().unwrap().starts_with(check));
        finding.unwrap_or_else(|| panic!("{check} in {found}"))["verdict"].clone()
    };
    for check in ["certificate", "scheduler ", "address", "NAT mapping", "clock", "versions"] {
        assert_eq!(verdict(check), "ok", "{check} in {found}");
    }
    assert!(checked.out().contains("sees it so: no NAT"), "{found}");

    let nobody = "http://127.0.0.1:1";
    let top = place.run(&["top", "--json", "--relay", nobody, "--admin", &admin]);
    let top: serde_json::Value = serde_json::from_str(&top.out()).unwrap();
    assert_eq!(top["overview"]["relays"][0]["name"], "rome");
    let unknown = serde_json::json!([{"url": nobody, "name": null, "flows": null}]);
    assert_eq!(top["flows"], unknown);

    let events = place.run(&["events", "--json", "--admin", &admin]);
    assert_eq!(events.code(), 0, "{events:?}");
    let lines: Vec<serde_json::Value> =
        events.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|event| event["detail"].as_str().unwrap().contains("rome")));

    let config = "rome.toml";
    let packed = place.run(&["support-bundle", "--config", config, "--json", "--admin", &admin]);
    assert_eq!(packed.code(), 0, "{packed:?}");
    let packed: serde_json::Value = serde_json::from_str(&packed.out()).unwrap();
    for name in ["scheduler/status.json", "scheduler/metrics.txt", "config/1-rome.toml"] {
        assert!(packed["contents"].as_array().unwrap().contains(&name.into()), "{name}: {packed}");
    }
    assert!(place.path().join("overway-support.tar.gz").exists());

    assert_eq!(scheduler.terminate(), Some(0));
    let checked = place.run(&["check", "--config", "rome.toml", "--admin", &admin]);
    assert_eq!(checked.code(), 1, "{checked:?}");
    assert!(checked.out().contains("FAILED") && checked.out().contains("unknown"), "{checked:?}");
}

#[test]
fn relays_tell_a_host_how_they_see_it_beside_the_scheduler() {
    let place = Place::new();
    place.init();
    let scheduler = place.scheduler();
    let _relays = ["rome", "oslo"].map(|name| place.relay(&scheduler, name, "eu"));

    let check = ["check", "--config", "rome.toml", "--admin", &scheduler.admin];
    // Its neighbours are those of the last state that was saved.
    let checked = place.until(&check, |done| done.out().contains("of 2 that tell"));
    assert!([0, 3].contains(&checked.code()), "{checked:?}");
    assert!(checked.out().contains("no NAT"), "{checked:?}");
}
