use std::net::SocketAddr;

use super::*;
use crate::Destinations;

/// As relay.toml has it among its other sections.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRelay {
    #[serde(default)]
    service: Vec<RawService>,
    #[serde(default)]
    forward: Vec<RawForward>,
    #[serde(default)]
    socks: Vec<RawSocks>,
}

const SERVICE: &str = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\ntarget = \"db:80\"\n";
const FORWARD: &str =
    "[[forward]]\nlisten = \"[::1]:9000\"\nprotocol = \"udp\"\nservice = \"dns\"\n";

fn load(text: &str) -> Result<GatewayConfig, ConfigError> {
    let document = Document::new("relay.toml", text);
    let raw: RawRelay = document.parse()?;
    GatewayConfig::from_raw(&document, &raw.service, &raw.forward, &raw.socks)
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
        told_by: Some(["front".to_owned()].into()),
        ..ServiceConfig::new(Protocol::Tcp, "web", address("127.0.0.1:8080"))
    };
    let allow: Destinations = ["*.example.com:443".parse().unwrap()].into_iter().collect();
    let out = ServiceConfig::new(Protocol::Tcp, "out", allow.clone());
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
    let password = Password::File("alice.password".into());
    let socks = SocksConfig {
        exit: Some(SocksExit { service: "out".to_owned(), allow }),
        users: vec![SocksUser { name: "alice".to_owned(), password }],
        ..SocksConfig::new(address("127.0.0.1:1080"))
    };
    let expected =
        GatewayConfig { services: vec![web, out], forwards: vec![bulk, dns], socks: vec![socks] };
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
            SERVICE.replace("target = \"db:80\"\n", ""),
            "relay.toml:2: service.name: has no target; expected such as target = \
             \"127.0.0.1:8080\"",
        ),
        (
            [SERVICE, "exit = [\"*:443\"]\n"].concat(),
            "relay.toml:5: service.exit: cannot stand beside a target; expected one of the two",
        ),
        (
            SERVICE.replace("target = \"db:80\"", "exit = [\"db\"]"),
            "relay.toml:4: service.exit: \"db\" is neither NAME:PORT, *.NAME:PORT, *:PORT nor \
             NETWORK:PORT; expected such as *.example.com:443",
        ),
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
            [&*tcp, "class = \"bulk\"\nredundancy = \"always\"\n"].concat(),
            "relay.toml:6: forward.redundancy: is not for class \"bulk\", of which nothing goes \
             twice; expected no such key",
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
            [SERVICE, "told_by = [\"front\"]\n"].concat(),
            "relay.toml:5: service.told_by: says whose word on clients is passed on; expected \
             proxy_protocol beside it",
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

const SOCKS: &str = "[[socks]]\nlisten = \"[::1]:1080\"\n";

#[test]
fn a_socks_listener_beyond_this_host_needs_users() {
    let open = "[[socks]]\nlisten = \"0.0.0.0:1080\"\n";
    let user = "[[socks.user]]\nname = \"alice\"\npassword = \"secret\"\n";

    assert_eq!(
        error(open),
        "relay.toml:2: socks.listen: without users, whoever reaches 0.0.0.0:1080 could use every \
         service; add a [[socks.user]], or listen on a loopback address such as 127.0.0.1:1080"
    );
    assert_eq!(load(SOCKS).unwrap().socks, [SocksConfig::new(address("[::1]:1080"))]);
    let config = load(&[open, user].concat()).unwrap();
    assert_eq!(config.socks[0].users[0].password, Password::Inline("secret".to_owned()));
    assert!(!format!("{config:?}").contains("secret"));
}

#[test]
fn a_socks_listeners_limits_and_names_can_be_set() {
    let text = "suffix = \".Mesh.example\"\nservices = [\"web\"]\nclass = \"bulk\"\n\
                redundancy = \"always\"\nclients_max = 3\nclients_per_second = 2\n\
                idle_timeout_s = 5.0\nudp_idle_timeout_s = 7.0\n";

    let socks = &load(&[SOCKS, text].concat()).unwrap().socks[0];

    assert_eq!((&*socks.suffix, socks.class), ("mesh.example", Class::Bulk));
    assert_eq!(socks.services.iter().flatten().collect::<Vec<_>>(), ["web"]);
    assert_eq!(socks.redundancy, Redundancy::Always);
    let limits = Limits { clients_max: 3, clients_per_second: NonZeroU32::new(2) };
    assert_eq!(socks.limits, limits);
    assert_eq!(socks.idle_timeout, Some(Duration::from_secs(5)));
    assert_eq!(socks.flow_idle_timeout, Duration::from_secs(7));
}

#[test]
fn errors_of_socks_listeners_name_line_key_and_what_would_be_right() {
    let user = |rest: &str| [SOCKS, "[[socks.user]]\nname = \"alice\"\n", rest].concat();
    let long = format!("password = \"{}\"\n", "x".repeat(256));
    let cases = [
        (
            [SOCKS, "exit = \"out\"\n"].concat(),
            "relay.toml:3: socks.exit: leads nowhere unless told what is allowed; add such as allow \
             = [\"*:443\"]",
        ),
        (
            [SOCKS, "allow = [\"*:443\"]\n"].concat(),
            "relay.toml:3: socks.allow: needs a service that leads there; add such as exit = \"out\"",
        ),
        (
            [SOCKS, "suffix = \"a..b\"\n"].concat(),
            "relay.toml:3: socks.suffix: \"a..b\" is not the end of a host name; expected such as \
             \"overway\"",
        ),
        (
            [SOCKS, "class = \"realtime\"\n"].concat(),
            "relay.toml:3: socks.class: \"realtime\" is not a class of tcp; expected \"interactive\" \
             or \"bulk\"",
        ),
        (user(""), "relay.toml:4: socks.user.name: needs one of password_file and password"),
        (
            user("password = \"a\"\npassword_file = \"b\"\n"),
            "relay.toml:4: socks.user.name: needs one of password_file and password",
        ),
        (
            user(&long),
            "relay.toml:5: socks.user.password: the password has 256 bytes; expected 1 to 255",
        ),
        (
            [SOCKS, &FORWARD.replace("udp", "tcp").replace("9000", "1080")].concat(),
            "relay.toml:2: socks.listen: [::1]:1080 is given twice; it stands already on line 4",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(error(&text), expected);
    }
}

#[test]
fn of_edges_only_those_that_are_named_are_believed_who_their_clients_are() {
    let (source, destination) = (address("192.0.2.1:4000"), address("192.0.2.2:80"));
    let client = Some(overway_session::ClientAddresses { source, destination });
    let open = ServiceConfig::new(Protocol::Tcp, "web", address("127.0.0.1:8080"));
    let strict = ServiceConfig { told_by: Some(["front".to_owned()].into()), ..open.clone() };

    assert_eq!(open.told(client, Some("phone")), client);
    assert_eq!(strict.told(client, Some("phone")), None);
    assert_eq!(strict.told(client, Some("front")), client);
    assert_eq!(strict.told(client, None), client, "a relay's gateway");
}
