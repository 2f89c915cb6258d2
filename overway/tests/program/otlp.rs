//! What a collector is sent: the feature `otlp`.

mod messages;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prost::Message as _;

use self::messages::{LogsRequest, Span, TraceRequest};
use super::program::{HANG, Place, service};

/// A collector: what came, decoded.
struct Collector {
    /// What it answers.
    status: &'static str,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// Behind the name of the service that sent it.
    spans: Vec<(String, Span)>,
    lines: Vec<(String, String)>,
    requests_of_lines: usize,
}

impl Collector {
    fn start(status: &'static str) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let collector = Arc::new(Self { status, heard: Mutex::default() });
        let collected = Arc::clone(&collector);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let collected = Arc::clone(&collected);
                // A process that is killed leaves a request half said.
                std::thread::spawn(move || drop(collected.serve(stream)));
            }
        });
        (collector, url)
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
            let mut length = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                let header = header.trim().to_ascii_lowercase();
                if header.is_empty() {
                    break;
                }
                if let Some(said) = header.strip_prefix("content-length:") {
                    length = said.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            self.heard.lock().unwrap().take(&path, &body);
            write!(stream, "HTTP/1.1 {}\r\nContent-Length: 0\r\n\r\n", self.status)?;
        }
    }

    /// Waits until what was heard is as it should be, and gives what was asked of it.
    fn hears<T>(&self, what: &str, find: impl Fn(&Heard) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = find(&self.heard.lock().unwrap()) {
                return found;
            }
            if started.elapsed() >= HANG {
                panic!("nothing came of {what}: {:#?}", self.heard.lock().unwrap());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn hears_span(&self, service: &str, name: &str) -> Span {
        self.hears(name, |heard| {
            let mut spans = heard.spans.iter();
            spans.find(|(by, span)| by == service && span.name == name).map(|found| found.1.clone())
        })
    }

    fn hears_line(&self, service: &str, line: &str) {
        self.hears(line, |heard| {
            heard.lines.iter().any(|(by, said)| by == service && said == line).then_some(())
        });
    }
}

impl Heard {
    fn take(&mut self, path: &str, body: &[u8]) {
        match path {
            "/v1/traces" => self.spans.extend(TraceRequest::decode(body).unwrap().spans()),
            "/v1/logs" => {
                self.requests_of_lines += 1;
                self.lines.extend(LogsRequest::decode(body).unwrap().lines());
            }
            other => panic!("a request for {other}"),
        }
    }
}

const SOON: [(&str, &str); 2] =
    [("OTEL_BSP_SCHEDULE_DELAY", "100"), ("OTEL_BLRP_SCHEDULE_DELAY", "100")];

#[test]
fn a_collector_hears_of_plans_sessions_and_failovers_and_of_what_is_logged() {
    let (collector, url) = Collector::start("200 OK");
    let place = Place::new();
    place.init();
    let named = |name| {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
            ("OTEL_SERVICE_NAME", name),
            SOON[0],
            SOON[1],
        ]
    };
    let scheduler = place.scheduler_with(&named("scheduler"));
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
    let rome = place.start_with("rome", &named("rome"));
    let _oslo = place.start_with("oslo", &named("oslo"));
    let forward = place.logged("oslo", "forward protocol=tcp address=");
    let started = Instant::now();
    let served = || {
        let mut text = String::new();
        let read = TcpStream::connect(forward).and_then(|mut tcp| tcp.read_to_string(&mut text));
        read.is_ok() && text == "served\n"
    };
    while !served() {
        assert!(started.elapsed() < HANG, "traffic does not flow");
        std::thread::sleep(Duration::from_millis(100));
    }

    let plan = collector.hears_span("scheduler", "plan");
    assert!(plan.trace_id.len() == 16 && plan.span_id.len() == 8);
    assert!(collector.hears_span("scheduler", "push").says("epoch").is_some());
    assert_eq!(
        collector.hears_span("oslo", "session").says("class").as_deref(),
        Some("interactive")
    );
    collector.hears_line("scheduler", "scheduler ready");
    // A link is down until its neighbour is back.
    drop(rome);
    place.logged_line("oslo", "link is down");
    let _rome = place.start_with("rome", &named("rome"));
    let failover = collector.hears_span("oslo", "failover");
    assert!(failover.start > 0 && failover.end > 0 && failover.says("link").is_some());
}

#[test]
fn what_waits_is_sent_at_the_end() {
    let (collector, url) = Collector::start("200 OK");
    let place = Place::new();
    place.init();
    let hour = "3600000";
    let scheduler = place.scheduler_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ("OTEL_BSP_SCHEDULE_DELAY", hour),
        ("OTEL_BLRP_SCHEDULE_DELAY", hour),
    ]);
    assert_eq!(scheduler.terminate(), Some(0));
    collector.hears_line("overway", "scheduler ready");
}

#[test]
fn a_collector_that_refuses_is_told_of_once() {
    let (collector, url) = Collector::start("503 Service Unavailable");
    let place = Place::new();
    place.init();
    let (endpoint, log) = (("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), "scheduler.log");
    let scheduler = place.scheduler_logging(&[endpoint, SOON[0], SOON[1]], log);
    collector.hears("three times", |heard| (heard.requests_of_lines >= 3).then_some(()));
    assert_ne!(place.run(&["status", "--admin", &scheduler.admin]).code(), 1, "it answers");
    assert_eq!(scheduler.terminate(), Some(0));
    let log = std::fs::read_to_string(place.path().join(log)).unwrap();
    assert_eq!(log.matches("the collector takes no logs").count(), 1, "{log}");
}

#[test]
fn a_collector_that_is_away_holds_nothing_up_and_a_wrong_address_is_told_of() {
    let place = Place::new();
    place.init();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}");
    let scheduler = place.scheduler_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]);
    assert_ne!(place.run(&["status", "--admin", &scheduler.admin]).code(), 1, "it answers");
    assert_eq!(scheduler.terminate(), Some(0));

    let wrong = [("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://127.0.0.1:4317")];
    let refused = place.run_with(&["validate", "scheduler.toml"], &wrong);
    assert_eq!((refused.code(), refused.err().lines().count()), (2, 1), "{refused:?}");
    assert!(refused.err().contains("http://127.0.0.1:4318"), "{refused:?}");
}
