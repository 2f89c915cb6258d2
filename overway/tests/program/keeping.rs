//! A scheduler's disk is lost, and what the service manager hears.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::program::{HANG, Place, Running, service};

/// What comes through a forward before it ends.
fn fetched(forward: SocketAddr) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(forward) {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = stream.read_to_string(&mut text);
    }
    text
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < HANG, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn status(place: &Place, scheduler: &Running) -> Value {
    let shown = place.run(&["status", "--json", "--admin", &scheduler.admin]);
    serde_json::from_str(&shown.out()).unwrap_or_default()
}

fn connected(place: &Place, scheduler: &Running) -> usize {
    let status = status(place, scheduler);
    let relays = status["relays"].as_array().cloned().unwrap_or_default();
    relays.iter().filter(|relay| relay["connected"] == true).count()
}

#[test]
fn relays_carry_on_without_the_schedulers_disk_and_reconnect_to_what_was_restored() {
    let place = Place::new();
    place.init();
    let scheduler = place.scheduler();
    let control = std::fs::read_to_string(place.path().join("scheduler/control.addr")).unwrap();
    place.prepare(&scheduler, "rome", "south");
    place.append(
        "rome.toml",
        &format!("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\ntarget = \"{}\"\n", service()),
    );
    place.prepare(&scheduler, "oslo", "north");
    place.append(
        "oslo.toml",
        "[[forward]]\nlisten = \"127.0.0.1:0\"\nprotocol = \"tcp\"\nservice = \"web\"\n",
    );
    let _rome = place.start("rome");
    let _oslo = place.start("oslo");
    let forward = place.logged("oslo", "forward protocol=tcp address=");
    let admin = place.logged("oslo", "admin: admin address=");
    let set = ["policy", "set", "voice", "--regions", "north,south", "--admin", &scheduler.admin];
    assert_eq!(place.run(&set).code(), 0);
    eventually("traffic does not flow", || fetched(forward) == "served\n");

    let saved = place.run(&["scheduler", "backup", "--out", "mesh.backup"]);
    assert_eq!(saved.code(), 0, "{saved:?}");
    let term = status(&place, &scheduler)["epoch_term"].as_u64().unwrap();
    let again = place.run(&["scheduler", "backup", "--out", "mesh.backup"]);
    assert!(again.err().contains("exists already"), "{again:?}");
    // Of this member the backup does not know.
    place.prepare(&scheduler, "bonn", "west");
    drop(scheduler);
    std::fs::remove_dir_all(place.path().join("scheduler")).unwrap();

    let ready = || {
        let answer = ureq::get(format!("http://{admin}/readyz")).call();
        answer.ok().and_then(|mut answer| answer.body_mut().read_to_string().ok())
    };
    eventually("the relay does not miss its scheduler", || {
        ready().is_some_and(|text| text.starts_with("degraded"))
    });
    assert_eq!(fetched(forward), "served\n");

    let restored = place.run(&["scheduler", "restore", "mesh.backup"]);
    assert_eq!(restored.code(), 0, "{restored:?}");
    let twice = place.run(&["scheduler", "restore", "mesh.backup"]);
    assert!(twice.err().contains("exists already"), "{twice:?}");
    let config = std::fs::read_to_string(place.path().join("scheduler.toml")).unwrap();
    let same = format!("[scheduler]\nlisten = \"{}\"", control.trim());
    let without = config.replace("listen = \"127.0.0.1:0\"\n", "");
    let admin_again = without.replace("[admin]", "[admin]\nlisten = \"127.0.0.1:0\"");
    place.write("scheduler.toml", &admin_again.replace("[scheduler]", &same));
    let scheduler = place.scheduler();

    eventually("relays do not reconnect", || connected(&place, &scheduler) == 2);
    eventually("the mesh is not planned anew", || {
        status(&place, &scheduler)["epoch_term"].as_u64().is_some_and(|now| now > term)
    });
    let policies = place.run(&["policy", "list", "--admin", &scheduler.admin]);
    assert!(policies.out().contains("voice"), "{policies:?}");
    eventually("traffic does not flow any more", || fetched(forward) == "served\n");
    eventually("the relay does not know its scheduler", || {
        ready().is_some_and(|text| text.starts_with("ready"))
    });
}

#[test]
fn a_backup_of_a_scheduler_that_does_not_run_is_the_same() {
    let place = Place::new();
    place.init();
    let saved = place.run(&["scheduler", "backup", "--out", "mesh.backup"]);
    // It has not run yet, so it has no store.
    assert_eq!(saved.code(), 1, "{saved:?}");
    assert_eq!(place.scheduler().terminate(), Some(0));

    assert_eq!(place.run(&["scheduler", "backup", "--out", "mesh.backup"]).code(), 0);

    let restored = place.run(&["scheduler", "restore", "mesh.backup", "--dir", "other"]);
    assert_eq!(restored.code(), 0, "{restored:?}");
    let key = |dir: &str| std::fs::read(place.path().join(dir).join("ca.key")).unwrap();
    assert_eq!(key("scheduler"), key("other"));
}

#[test]
fn what_is_logged_is_changed_while_it_runs() {
    let place = Place::new();
    place.init();
    let scheduler = place.scheduler();
    let node = scheduler.admin.trim_start_matches("http://");

    assert_eq!(place.run(&["log-level", node]).out(), "info\n");
    let changed = place.run(&["log-level", node, "warn,overway_scheduler=debug"]);
    assert_eq!(changed.code(), 0, "{changed:?}");
    let wrong = place.run(&["log-level", node, "overway=loud"]);

    assert_eq!(wrong.code(), 2, "{wrong:?}");
    assert!(wrong.err().contains("give a level"), "{wrong:?}");
    assert_eq!(place.run(&["log-level", node]).out(), "warn,overway_scheduler=debug\n");
}

#[test]
fn a_service_manager_hears_that_it_is_ready_works_and_stops() {
    let place = Place::new();
    place.init();
    let path = place.path().join("notify");
    let heard = UnixDatagram::bind(&path).unwrap();
    heard.set_read_timeout(Some(HANG)).unwrap();
    let next = || {
        let mut word = [0; 64];
        let length = heard.recv(&mut word).unwrap();
        String::from_utf8_lossy(&word[..length]).into_owned()
    };
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];

    let scheduler = place.scheduler_with(&environment);

    assert_eq!(next(), "READY=1");
    assert_eq!(next(), "WATCHDOG=1");
    assert_eq!(scheduler.terminate(), Some(0));
    let mut last = next();
    while last == "WATCHDOG=1" {
        last = next();
    }
    assert_eq!(last, "STOPPING=1");
}
