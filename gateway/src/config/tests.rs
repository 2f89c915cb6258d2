use std::net::SocketAddr;

use super::*;

/// As relay.toml has it among its other sections.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRelay {
    #[serde(default)]
    service: Vec<RawService>,
    #[serde(default)]
    forward: Vec<RawForward>,
}

const SERVICE: &str = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\ntarget = \"db:80\"\n";
const FORWARD: &str =
    "[[forward]]\nlisten = \"[::1]:9000\"\nprotocol = \"udp\"\nservice = \"dns\"\n";

fn load(text: &str) -> Result<GatewayConfig, ConfigError> {
    let document = Document::new("relay.toml", text);
    let raw: RawRelay = document.parse()?;
    GatewayConfig::from_raw(&document, &raw.service, &raw.forward)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn error(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn the_example_of_the_documentation_is_good() {
    let source = include_str!("../config.rs").lines().skip_while(|line| *line != "//! ```toml");
    let example = source.skip(1).take_while(|line| *line != "//! ```");
    let text: Vec<_> = example.map(|line| line.trim_start_matches("//!")).collect();

    let config = load(&text.join("\n")).unwrap();

    let web = ServiceConfig {
        proxy_protocol: Some(ProxyProtocol::Tcp),
        ..ServiceConfig::new(Protocol::Tcp, "web", address("127.0.0.1:8080"))
    };
    let bulk = ForwardConfig {
        class: Class::Bulk,
        policy: Some("eu-only".to_owned()),
        limits: Limits { clients_per_second: NonZeroU32::new(100), ..Limits::default() },
        idle_timeout: Some(Duration::from_secs(3_600)),
        ..ForwardConfig::new(Protocol::Tcp, address("127.0.0.1:9000"), "web")
    };
    let dns = ForwardConfig {
        redundancy: Redundancy::Always,
        proxy_protocol: Some(ProxyProtocol::UdpEvery),
        trusted: vec!["127.0.0.1/32".parse().unwrap()],
        ..ForwardConfig::new(Protocol::Udp, address("127.0.0.1:9053"), "dns")
    };
    let expected = GatewayConfig { services: vec![web], forwards: vec![bulk, dns] };
    assert_eq!(config, expected);
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = load(&[SERVICE, FORWARD].concat()).unwrap();

    let service = &config.services[0];
    assert_eq!(service.clients_max, 4_096);
    assert_eq!(service.connect_timeout, Duration::from_secs(5));
    let forward = &config.forwards[0];
    assert_eq!((forward.limits.clients_max, forward.class), (4_096, Class::Realtime));
    assert_eq!(forward.limits.clients_per_second, None);
    assert_eq!(forward.redundancy, Redundancy::Adaptive);
    assert_eq!((service.idle_timeout, forward.idle_timeout), (None, Some(FLOW_IDLE_TIMEOUT)));
    assert_eq!(load("").unwrap(), GatewayConfig::default());
}

#[test]
fn limits_can_be_set() {
    let limits = "clients_max = 1\nidle_timeout_s = 0.25\n";
    let udp = SERVICE.replace("tcp", "udp");
    let config =
        load(&[&udp, limits, "connect_timeout_s = 0.5\n", FORWARD, limits].concat()).unwrap();

    let (service, forward) = (&config.services[0], &config.forwards[0]);
    assert_eq!((service.clients_max, forward.limits.clients_max), (1, 1));
    assert_eq!(service.connect_timeout, Duration::from_millis(500));
    let brief = Some(Duration::from_millis(250));
    assert_eq!((service.idle_timeout, forward.idle_timeout), (brief, brief));
}

#[test]
fn a_name_may_be_given_once_for_each_protocol() {
    let both = [SERVICE, &SERVICE.replace("tcp", "udp")].concat();
    assert_eq!(load(&both).unwrap().service_names(), ["web"]);

    assert_eq!(
        error(&[SERVICE, SERVICE].concat()),
        "relay.toml:6: service.name: \"web\" is given twice; it stands already on line 2"
    );
}

#[test]
fn an_address_may_be_given_once_for_each_protocol_however_it_is_written() {
    let same = FORWARD.replace("[::1]", "[0:0::1]");
    assert!(load(&[FORWARD, &same.replace("udp", "tcp")].concat()).is_ok());

    assert_eq!(
        error(&[FORWARD, &same].concat()),
        "relay.toml:6: forward.listen: [::1]:9000 is given twice; it stands already on line 2"
    );
    let any = FORWARD.replace("9000", "0");
    assert!(load(&[&*any, &any].concat()).is_ok());
}

#[test]
fn errors_name_line_key_and_what_would_be_right() {
    let tcp = FORWARD.replace("udp", "tcp");
    let cases = [
        (
            [FORWARD, "clients_per_second = 0\n"].concat(),
            "relay.toml:5: forward.clients_per_second: 0 is out of range; expected 1 to 1000000",
        ),
        (
            SERVICE.replace("db:80", "db"),
            "relay.toml:4: service.target: \"db\" is neither IP:PORT nor HOST:PORT with a port \
             from 1 to 65535; expected such as 127.0.0.1:8080",
        ),
        (
            [FORWARD, "class = \"bulk\"\n"].concat(),
            "relay.toml:5: forward.class: \"bulk\" is not a class of udp; expected \"realtime\"",
        ),
        (
            [&*tcp, "class = \"realtime\"\n"].concat(),
            "relay.toml:5: forward.class: \"realtime\" is not a class of tcp; expected \
             \"interactive\" or \"bulk\"",
        ),
        (
            [FORWARD, "policy = \"EU\"\n"].concat(),
            "relay.toml:5: forward.policy: \"EU\" is not a name; expected 1 to 63 of a-z, 0-9 and \
             hyphen, with no hyphen first",
        ),
        (
            [FORWARD, "redundancy = \"on\"\n"].concat(),
            "relay.toml:5: forward.redundancy: \"on\" is no redundancy; expected \"off\", \
             \"adaptive\" or \"always\"",
        ),
        (
            [&*tcp, "redundancy = \"off\"\n"].concat(),
            "relay.toml:5: forward.redundancy: is for udp only; expected no such key for tcp",
        ),
        (
            [SERVICE, "connect_timeout_s = 5.5\n"].concat(),
            "relay.toml:5: service.connect_timeout_s: 5.5 is out of range; expected 0.001 to 5",
        ),
        (
            [SERVICE, "clients_max = 0\n"].concat(),
            "relay.toml:5: service.clients_max: 0 is out of range; expected 1 to 65536",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(error(&text), expected);
    }
    assert!(error(&SERVICE.replace("tcp", "sctp")).starts_with("relay.toml:3: "));
    assert!(error(&[SERVICE, "taget = 1\n"].concat()).starts_with("relay.toml:5: "));
}

#[test]
fn errors_about_proxies_name_line_key_and_what_would_be_right() {
    let tcp = FORWARD.replace("udp", "tcp");
    let accept = "proxy_protocol = \"accept-first\"\n";
    let cases = [
        (
            [&*tcp, accept].concat(),
            "relay.toml:5: forward.proxy_protocol: \"accept-first\" is no way to carry PROXY headers \
             in tcp; expected \"accept\"",
        ),
        (
            [SERVICE, "proxy_protocol = \"udp-every\"\n"].concat(),
            "relay.toml:5: service.proxy_protocol: \"udp-every\" is no way to carry PROXY headers in \
             tcp; expected \"tcp\"",
        ),
        (
            [FORWARD, accept].concat(),
            "relay.toml:5: forward.proxy_protocol: needs the proxies' addresses; add such as trusted \
             = [\"192.0.2.7/32\"]",
        ),
        (
            [FORWARD, "trusted = [\"::1\"]\n"].concat(),
            "relay.toml:5: forward.trusted: says whose PROXY headers are taken; expected \
             proxy_protocol beside it",
        ),
        (
            [FORWARD, accept, "trusted = [\"::1\", \"10.0.0.0/33\"]\n"].concat(),
            "relay.toml:6: forward.trusted: \"10.0.0.0/33\" is no network; expected such as \
             192.0.2.0/24",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(error(&text), expected);
    }
}
