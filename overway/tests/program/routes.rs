//! Routes, as operators ask for them and wish them.

use serde_json::{Value, json};

use super::program::Place;

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn every_command_teaches_and_has_json() {
    let place = Place::new();
    for command in ["routes", "explain", "what-if", "drain", "transit", "access"] {
        let help = place.run(&[command, "--help"]);
        assert_eq!(help.code(), 0, "{command}");
        for words in ["Examples:", "--json", "--admin"] {
            assert!(help.out().contains(words), "{words:?} is not in {help:?}");
        }
    }
    for command in ["policy", "cell"] {
        let help = place.run(&[command, "--help"]);
        assert!(help.out().contains("Examples:"), "{help:?}");
        for verb in ["set", "list", "remove"] {
            let help = place.run(&[command, verb, "--help"]);
            assert_eq!(help.code(), 0, "{command} {verb}");
            assert!(help.out().contains("--json"), "{help:?}");
        }
    }
}

#[test]
fn what_is_not_there_is_told_in_one_line_with_what_may_have_been_meant() {
    let place = Place::new();
    place.init();
    let scheduler = place.scheduler();
    for name in ["rome", "oslo"] {
        let added = place.run(&["node", "add", name, "--admin", &scheduler.admin]);
        assert_eq!(place.run(&["relay", "join", added.out().trim()]).code(), 0);
    }
    let cases = [
        (vec!["explain", "rom", "oslo"], 2, "did you mean \"rome\"?"),
        (vec!["explain", "rome", "oslo", "--tenant", "voice"], 2, "overway policy list"),
        (vec!["explain", "rome", "oslo"], 1, "no path leads from rome to oslo"),
        (vec!["what-if", "--cut", "paris"], 2, "overway node list"),
        (vec!["what-if", "--cut", "rome,rome"], 2, "two ends"),
        (vec!["routes", "--to", "osla"], 2, "did you mean \"oslo\"?"),
        (vec!["drain", "romo"], 2, "did you mean \"rome\"?"),
        (vec!["drain", "rome", "--undo"], 2, "not being drained"),
        (vec!["drain", "../x"], 2, "a-z"),
        (vec!["drain", "rome", "--deadline", "90d"], 2, "month"),
        (vec!["policy", "set", "voice"], 2, "restrict nothing"),
        (vec!["policy", "set", "voice", "--cells", "eu"], 2, "overway cell list"),
        (vec!["policy", "remove", "voice"], 2, "overway policy list"),
        (vec!["cell", "remove", "eu"], 2, "overway cell list"),
        (vec!["transit", "rone", "forbid"], 2, "did you mean \"rome\"?"),
        (vec!["node", "add", "bonn", "--ttl", "30d"], 2, "7 days"),
    ];
    for (mut args, code, words) in cases {
        args.extend(["--admin", &scheduler.admin]);
        let done = place.run(&args);
        assert_eq!(done.code(), code, "{args:?}: {done:?}");
        assert!(done.err().contains(words), "{args:?}: {done:?}");
        assert_eq!(done.err().lines().count(), 1, "{args:?}: {done:?}");
    }
}

#[test]
fn policies_and_cells_are_set_listed_and_removed() {
    let place = Place::new();
    place.init();
    let scheduler = place.scheduler();
    let run = |line: &str| {
        let mut args: Vec<&str> = line.split_whitespace().collect();
        args.extend(["--admin", &scheduler.admin]);
        let done = place.run(&args);
        assert_eq!(done.code(), 0, "{line}: {done:?}");
        done.out()
    };
    assert_eq!(run("policy list"), "no policies: every path may use every relay\n");
    assert_eq!(run("cell list"), "no cells\n");

    assert_eq!(run("cell set eu --regions eu-west,eu-north"), "cell eu: 2 regions\n");
    assert!(run("policy set voice --cells eu --providers a b").contains("no relay"));

    assert!(run("policy list").contains("voice   1   -        a,b        eu"));
    let policy = json_of(&run("policy list --json"))["policies"][0].clone();
    assert_eq!(policy["regions_in_force"], json!(["eu-north", "eu-west"]));
    assert_eq!(run("cell set eu --regions eu-west"), "cell eu: 1 region; changed for voice\n");
    assert!(run("cell list").contains("eu    eu-west  -       -         voice"));
    assert_eq!(run("policy remove voice"), "removed policy voice\n");
    assert_eq!(json_of(&run("cell remove eu --json")), json!({"cells": []}));
}

#[test]
fn routes_are_explained_asked_about_and_drained() {
    let place = Place::new();
    place.init();
    let scheduler = place.scheduler();
    let admin = scheduler.admin.as_str();
    let _relays = [("rome", "south"), ("oslo", "north"), ("bonn", "west")]
        .map(|(name, region)| place.relay(&scheduler, name, region));
    for (from, to) in [("rome", "oslo"), ("oslo", "bonn"), ("bonn", "rome")] {
        place.eventually(&["explain", from, to, "--admin", admin]);
    }

    let explained = place.run(&["explain", "rome", "oslo", "--class", "bulk", "--admin", admin]);
    assert!(explained.out().starts_with("rome > oslo, bulk\n  in use    "), "{explained:?}");
    let explained = place.run(&["explain", "1", "2", "--json", "--admin", admin]);
    let explained = json_of(&explained.out());
    assert_eq!(
        (&explained["source_name"], &explained["class"]),
        (&json!("rome"), &json!("interactive"))
    );
    assert!(explained["current"]["links"][0]["slow"]["samples"].is_u64(), "{explained}");

    let ask = ["what-if", "--cut", "bonn", "--cut", "rome,oslo", "--json", "--admin", admin];
    let asked = place.run(&ask);
    let body = json_of(&asked.out());
    assert_eq!((&body["routes"], &body["ends_cut"]), (&json!(18), &json!(12)), "{body}");
    assert_eq!((&body["unreachable"], asked.code()), (&json!(6), 3), "{body}");

    let routes = place.run(&["routes", "--from", "rome", "--to", "oslo", "--admin", admin]);
    assert!(routes.out().starts_with("ROUTE"), "{routes:?}");

    let drained = place.run(&["drain", "bonn", "--deadline", "1h", "--wait", "--admin", admin]);
    assert_eq!(
        (drained.code(), drained.out()),
        (0, "bonn: no path goes over it, and no edge is attached to it\n".to_owned())
    );
    let listed = place.run(&["drain", "--admin", admin]);
    assert!(listed.out().contains("bonn      leaving  none          none   in 59m"), "{listed:?}");
    let status = place.run(&["status", "--admin", admin]);
    assert!(status.out().contains("draining"), "{status:?}");
    let undone = place.run(&["drain", "bonn", "--undo", "--json", "--admin", admin]);
    assert_eq!(json_of(&undone.out()), json!({"drains": []}));

    let forbidden = place.run(&["transit", "bonn", "forbid", "--json", "--admin", admin]);
    assert_eq!(json_of(&forbidden.out()), json!({"relay": "bonn", "allow": false}));
    assert_eq!(place.run(&["transit", "bonn", "auto", "--admin", admin]).code(), 0);
}
