//! What is wrong is told in one line, with the right exit code.

use super::program::Place;

const SCHEDULER: &str = "\
[scheduler]
state_dir = \"state\"
listen = \"127.0.0.1:0\"
[admin]
listen = \"127.0.0.1:0\"
";

#[test]
fn a_wrong_configuration_has_exit_code_2_and_names_its_line() {
    let place = Place::new();
    place.write("unknown.toml", &SCHEDULER.replace("state_dir", "state_dri"));
    place.write("address.toml", &SCHEDULER.replace("127.0.0.1:0", "127.0.0.1"));
    place.write(
        "public.toml",
        &format!(
            "{}\n",
            SCHEDULER.replace("[admin]\nlisten = \"127.0.0.1", "[admin]\nlisten = \"10.0.0.1")
        ),
    );
    place.write("neither.toml", "[teapot]\n");
    place.write("broken.toml", "[scheduler\n");
    let cases = [
        (vec!["validate", "unknown.toml"], "unknown.toml:2"),
        (vec!["scheduler", "--config", "unknown.toml"], "unknown.toml:2"),
        (vec!["validate", "address.toml"], "address.toml:3: scheduler.listen"),
        (vec!["validate", "public.toml"], "public.toml:5: admin.listen"),
        (vec!["validate", "neither.toml"], "neither.toml"),
        (vec!["validate", "broken.toml"], "broken.toml:1"),
        (vec!["validate", "missing.toml"], "missing.toml"),
        (vec!["relay", "--config", "missing.toml"], "missing.toml"),
        (vec!["status", "--admin", "ftp://x"], "--admin"),
        (vec!["node", "remove", "../status"], "a-z"),
        (vec!["--log", "shout=everything=now", "status"], "--log"),
    ];
    for (args, words) in cases {
        let done = place.run(&args);
        assert_eq!(done.code(), 2, "{args:?}: {done:?}");
        assert!(done.err().contains(words), "{args:?}: {done:?}");
        assert_eq!(done.err().lines().count(), 1, "{args:?}: {done:?}");
    }
}

#[test]
fn wrong_usage_has_exit_code_2_and_help_has_0() {
    let place = Place::new();

    assert_eq!(place.run(&["fly"]).code(), 2);
    assert_eq!(place.run(&["relay", "join", "ovw1-short"]).code(), 2);
    let help = place.run(&["--help"]);
    assert_eq!(help.code(), 0);
    assert!(help.out().contains("overway pki init"), "{help:?}");
}

#[test]
fn a_scheduler_that_cannot_be_reached_has_exit_code_1() {
    let place = Place::new();
    // Bound and dropped: nobody listens there now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();

    let done = place.run(&["status", "--admin", &format!("http://127.0.0.1:{port}")]);

    assert_eq!(done.code(), 1);
    assert!(done.err().contains("no scheduler answers"), "{done:?}");
    assert_eq!(done.err().lines().count(), 1, "{done:?}");
}

#[test]
fn a_scheduler_without_a_mesh_says_how_to_make_one() {
    let place = Place::new();
    place.write("scheduler.toml", SCHEDULER);

    let done = place.run(&["scheduler"]);

    assert_eq!(done.code(), 1);
    assert!(done.err().contains("overway pki init"), "{done:?}");
}
