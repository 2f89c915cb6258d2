//! Configurations that are read again while a process runs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::program::{Done, HANG, Place};

/// Sends back what it hears, on every connection.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
                // It ends with its client, however that goes.
                let _ = std::io::copy(&mut from, &mut to);
            });
        }
    });
    address
}

/// Whether what is written comes back.
fn echoes(stream: &mut TcpStream, word: &[u8]) -> bool {
    let mut heard = vec![0; word.len()];
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let answered = stream.write_all(word).and_then(|()| stream.read_exact(&mut heard));
    answered.is_ok() && heard == word
}

/// A connection that carries bytes, once there is one.
fn connected(entry: SocketAddr) -> TcpStream {
    let started = Instant::now();
    loop {
        let stream = TcpStream::connect(entry).ok();
        if let Some(mut stream) = stream
            && echoes(&mut stream, b"hello")
        {
            return stream;
        }
        assert!(started.elapsed() < HANG, "{entry} leads nowhere");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn service(name: &str, target: SocketAddr) -> String {
    format!("[[service]]\nname = \"{name}\"\nprotocol = \"tcp\"\ntarget = \"{target}\"\n")
}

fn forward(service: &str) -> String {
    format!("[[forward]]\nlisten = \"127.0.0.1:0\"\nprotocol = \"tcp\"\nservice = \"{service}\"\n")
}

fn reload(place: &Place, node: &str) -> (Done, Value) {
    let done = place.run(&["reload", node, "--json"]);
    let told = serde_json::from_str(&done.out()).unwrap_or_default();
    (done, told)
}

fn words(told: &Value, of: &str) -> Vec<String> {
    let words = told[of].as_array().cloned().unwrap_or_default();
    words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_a_reload_adds_works_and_streams_that_run_are_left_alone() {
    let place = Place::new();
    place.init();
    let scheduler = place.scheduler();
    place.prepare(&scheduler, "rome", "south");
    place.append("rome.toml", &service("one", echo()));
    place.prepare(&scheduler, "oslo", "north");
    place.append("oslo.toml", &forward("one"));
    let (rome, oslo) = (place.start("rome"), place.start("oslo"));
    let first = place.logged("oslo", "forward protocol=tcp address=");
    let admin = place.logged("oslo", "admin: admin address=").to_string();
    let mut running = connected(first);

    // Of a service that rome does not offer yet, and that it is to say that it does.
    place.append("oslo.toml", &forward("two"));
    let price = std::fs::read_to_string(place.path().join("oslo.toml")).unwrap();
    place.write("oslo.toml", &price.replace("# price_per_gb = 0.01", "price_per_gb = 7.0"));
    let (done, told) = reload(&place, &admin);
    assert_eq!(done.code(), 0, "{done:?}");
    let applied = words(&told, "applied");
    assert_eq!(applied.len(), 2, "{applied:?}");
    assert_eq!(applied[1], "relay.price_per_gb");
    let second = applied[0].strip_prefix("forward tcp ").unwrap();
    let second: SocketAddr = second.strip_suffix(" to two added").unwrap().parse().unwrap();
    place.append("rome.toml", &service("two", echo()));
    rome.signal(Signal::HUP);

    connected(second);
    assert!(echoes(&mut running, b"still there"));
    let log = std::fs::read_to_string(place.path().join("rome.log")).unwrap();
    assert!(log.contains("applied=\"service two (tcp) added\""), "{log}");
    // A relay that says hello anew has not been away.
    let events = place.run(&["events", "--json", "--admin", &scheduler.admin]);
    assert!(!events.out().contains("relay_lost"), "{events:?}");

    let good = std::fs::read_to_string(place.path().join("oslo.toml")).unwrap();
    place.write("oslo.toml", &good.replace("service = \"one\"", "service = 1"));
    let (bad, _) = reload(&place, &admin);
    assert_eq!(bad.code(), 2, "{bad:?}");
    assert!(bad.err().contains("oslo.toml:") && bad.err().contains("service"), "{bad:?}");
    assert_eq!(bad.err().lines().count(), 1, "{bad:?}");
    assert!(echoes(&mut running, b"and still"));
    connected(first);
    connected(second);

    // Without its forwards, and with what cannot change.
    let (head, _) = good.split_once("[[forward]]").unwrap();
    place.write("oslo.toml", &head.replace("name = \"oslo\"", "name = \"bergen\""));
    let (done, told) = reload(&place, &admin);
    assert_eq!(words(&told, "needs_restart"), ["relay.name"], "{done:?}");
    assert!(TcpStream::connect(first).is_err() && TcpStream::connect(second).is_err());
    assert!(echoes(&mut running, b"to its end"));
    drop((rome, oslo));
}

#[test]
fn a_scheduler_goes_on_with_another_configuration_and_tells_its_manager() {
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
    let scheduler = place.scheduler_with(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(next(), "READY=1");

    let text = std::fs::read_to_string(place.path().join("scheduler.toml")).unwrap();
    let other = text.replace("lifetime_days = 90", "lifetime_days = 30");
    let advertised = "advertise = [\"192.0.2.7:4400\"]\n[admin]";
    let other = other.replace("[admin]", advertised) + "\n[log]\nfilter = \"warn\"\n";
    place.write("scheduler.toml", &other);
    let (done, told) = reload(&place, "scheduler.toml");

    let applied = ["scheduler.advertise", "certificates.lifetime_days", "log.filter"];
    assert_eq!(words(&told, "applied"), applied, "{done:?}");
    assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(next(), "READY=1");
    let node = scheduler.admin.trim_start_matches("http://").to_owned();
    assert_eq!(place.run(&["log-level", &node]).out(), "warn\n");
    let added = place.run(&["node", "add", "rome", "--admin", &scheduler.admin]);
    let token: overway_pki::JoinToken = added.out().trim().parse().unwrap();
    assert_eq!(token.schedulers, ["192.0.2.7:4400"]);

    place.write("scheduler.toml", &other.replace("[log]", "[lgo]"));
    let (bad, _) = reload(&place, &node);
    assert_eq!((bad.code(), bad.err().lines().count()), (2, 1), "{bad:?}");
    assert!(bad.err().contains("lgo"), "{bad:?}");
}
