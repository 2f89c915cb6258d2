//! `[[service]]` and `[[forward]]`: what may be written, and what it means.
//!
//! ```toml
//! [[service]]
//! name = "web"                  # a-z, 0-9, hyphen; once for each protocol
//! protocol = "tcp"              # or "udp"
//! target = "127.0.0.1:8080"     # or a host name with a port, resolved for each connection
//! clients_max = 4096            # connections or flows at once
//! connect_timeout_s = 5.0       # at most 5
//!
//! [[forward]]
//! listen = "127.0.0.1:9000"     # once for each protocol; port 0 lets the system choose
//! protocol = "tcp"
//! service = "web"
//! class = "bulk"                # tcp: "interactive" unless said; udp is always "realtime"
//! policy = "eu-only"            # of those the scheduler has; limits the paths, both ways
//! clients_max = 4096
//!
//! [[forward]]
//! listen = "127.0.0.1:9053"
//! protocol = "udp"
//! service = "dns"
//! redundancy = "always"         # udp: how much goes twice; "off", "adaptive" unless said, or "always"
//! idle_timeout_s = 60.0         # udp, here and in services
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use overway_config::{ConfigError, Document, Spanned};
use overway_wire::{Class, Redundancy};
use serde::Deserialize;

use crate::target::Target;

/// Connections or clients at once that a forward or service carries unless configured: what a process
/// with a descriptor limit of 16,384 can afford for a few of them.
const CLIENTS_MAX_DEFAULT: usize = 4_096;
/// What can be configured in its place: no more than a session endpoint has flows.
const CLIENTS_MAX_RANGE: RangeInclusive<usize> = 1..=65_536;
/// How long a target may take to accept. Also the most that can be configured, for the opener waits
/// little longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=CONNECT_TIMEOUT;
/// Silence after which a UDP client is forgotten. RFC 4787 (REQ-5) has NATs wait two minutes; clients
/// that mean to stay send more often than once a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const IDLE_TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(24 * 3_600);

const SECOND: Duration = Duration::from_secs(1);

/// A `[[service]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawService {
    name: Spanned<String>,
    protocol: Protocol,
    target: Spanned<String>,
    clients_max: Option<Spanned<usize>>,
    connect_timeout_s: Option<Spanned<f64>>,
    idle_timeout_s: Option<Spanned<f64>>,
}

/// A `[[forward]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawForward {
    listen: Spanned<String>,
    protocol: Protocol,
    service: Spanned<String>,
    class: Option<Spanned<String>>,
    policy: Option<Spanned<String>>,
    redundancy: Option<Spanned<String>>,
    clients_max: Option<Spanned<usize>>,
    idle_timeout_s: Option<Spanned<f64>>,
}

/// What is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What a gateway offers and forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The targets that other relays' clients may reach. No name is there twice for one protocol.
    pub services: Vec<ServiceConfig>,
    /// The addresses to listen on. None is there twice for one protocol, except with port 0.
    pub forwards: Vec<ForwardConfig>,
}

/// A target and the name under which it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// What it speaks.
    pub protocol: Protocol,
    /// The name that forwards ask for.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// TCP connections or UDP flows at once; further ones are refused.
    pub clients_max: usize,
    /// How long the target may take to accept, its name's resolution included.
    pub connect_timeout: Duration,
    /// Silence after which a flow ends (UDP).
    pub idle_timeout: Duration,
}

/// An address to listen on and the service to which it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardConfig {
    /// What its clients speak.
    pub protocol: Protocol,
    /// Where it listens. Port 0: the system chooses one.
    pub listen: SocketAddr,
    /// The service's name.
    pub service: String,
    /// How its streams travel (TCP). Datagrams are always realtime.
    pub class: Class,
    /// The policy that limits its paths, by name; while the relay does not know it, clients are refused.
    pub policy: Option<String>,
    /// How much of its flows goes more than once, both ways (UDP). The packets of all streams between two ends share
    /// sessions, which are always adaptive.
    pub redundancy: Redundancy,
    /// TCP connections or UDP clients at once; further ones are turned away.
    pub clients_max: usize,
    /// Silence after which a client is forgotten (UDP).
    pub idle_timeout: Duration,
}

impl GatewayConfig {
    /// Checks what is written in `document`.
    ///
    /// # Errors
    /// The first value that is wrong, by its line.
    pub fn from_raw(
        document: &Document,
        services: &[RawService],
        forwards: &[RawForward],
    ) -> Result<Self, ConfigError> {
        for protocol in Protocol::ALL {
            let ours = services.iter().filter(|service| service.protocol == protocol);
            document.unique(ours.map(|service| &service.name))?;
            check_listens(document, forwards.iter().filter(|raw| raw.protocol == protocol))?;
        }
        let service = |raw| ServiceConfig::from_raw(document, raw);
        let forward = |raw| ForwardConfig::from_raw(document, raw);
        Ok(Self {
            services: services.iter().map(service).collect::<Result<_, _>>()?,
            forwards: forwards.iter().map(forward).collect::<Result<_, _>>()?,
        })
    }

    /// The names of the services, in order, each once.
    pub fn service_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.services.iter().map(|service| service.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// No two forwards listen on the same address, unless the system chooses the port.
fn check_listens<'a>(
    document: &Document,
    forwards: impl Iterator<Item = &'a RawForward>,
) -> Result<(), ConfigError> {
    let address =
        |raw: &RawForward| Ok(Spanned::new(raw.listen.span(), document.address(&raw.listen)?));
    let listens = forwards.map(address).collect::<Result<Vec<_>, ConfigError>>()?;
    document.unique(listens.iter().filter(|listen| listen.get_ref().port() != 0))
}

impl ServiceConfig {
    fn from_raw(document: &Document, raw: &RawService) -> Result<Self, ConfigError> {
        let target = raw.target.get_ref().parse().map_err(|error| {
            let given = raw.target.get_ref();
            let message = format!("{given:?} {error}; expected such as 127.0.0.1:8080");
            document.error(raw.target.span(), message)
        })?;
        let mut config = Self::new(raw.protocol, document.name(&raw.name)?, target);
        if let Some(number) = &raw.clients_max {
            config.clients_max = document.in_range(number, CLIENTS_MAX_RANGE)?;
        }
        if let Some(number) = &raw.connect_timeout_s {
            config.connect_timeout = document.duration(number, SECOND, CONNECT_TIMEOUT_RANGE)?;
        }
        if let Some(number) = &raw.idle_timeout_s {
            config.idle_timeout = idle_timeout(document, raw.protocol, number)?;
        }
        Ok(config)
    }

    /// A service with the default limits.
    pub fn new(protocol: Protocol, name: impl Into<String>, target: Target) -> Self {
        Self {
            protocol,
            name: name.into(),
            target,
            clients_max: CLIENTS_MAX_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
        }
    }
}

impl ForwardConfig {
    fn from_raw(document: &Document, raw: &RawForward) -> Result<Self, ConfigError> {
        let service = document.name(&raw.service)?;
        let mut config = Self::new(raw.protocol, document.address(&raw.listen)?, service);
        if let Some(name) = &raw.class {
            config.class = class(document, raw.protocol, name)?;
        }
        config.policy = raw.policy.as_ref().map(|name| document.name(name)).transpose()?;
        if let Some(name) = &raw.redundancy {
            config.redundancy = redundancy(document, raw.protocol, name)?;
        }
        if let Some(number) = &raw.clients_max {
            config.clients_max = document.in_range(number, CLIENTS_MAX_RANGE)?;
        }
        if let Some(number) = &raw.idle_timeout_s {
            config.idle_timeout = idle_timeout(document, raw.protocol, number)?;
        }
        Ok(config)
    }

    /// A forward with the default class, redundancy and limits, and no policy.
    pub fn new(protocol: Protocol, listen: SocketAddr, service: impl Into<String>) -> Self {
        let class = match protocol {
            Protocol::Tcp => Class::Interactive,
            Protocol::Udp => Class::Realtime,
        };
        Self {
            protocol,
            listen,
            service: service.into(),
            class,
            policy: None,
            redundancy: Redundancy::default(),
            clients_max: CLIENTS_MAX_DEFAULT,
            idle_timeout: IDLE_TIMEOUT,
        }
    }
}

fn class(
    document: &Document,
    protocol: Protocol,
    name: &Spanned<String>,
) -> Result<Class, ConfigError> {
    let given = name.get_ref();
    let error = |expected: &str| {
        let message = format!("{given:?} is not a class of {protocol}; expected {expected}");
        Err(document.error(name.span(), message))
    };
    match (protocol, Class::from_name(given)) {
        (Protocol::Tcp, Some(class @ (Class::Interactive | Class::Bulk))) => Ok(class),
        (Protocol::Tcp, Some(Class::Realtime) | None) => error("\"interactive\" or \"bulk\""),
        (Protocol::Udp, Some(class @ Class::Realtime)) => Ok(class),
        (Protocol::Udp, Some(Class::Interactive | Class::Bulk) | None) => error("\"realtime\""),
    }
}

fn redundancy(
    document: &Document,
    protocol: Protocol,
    name: &Spanned<String>,
) -> Result<Redundancy, ConfigError> {
    let given = name.get_ref();
    let error = |message| Err(document.error(name.span(), message));
    match (protocol, Redundancy::from_name(given)) {
        (Protocol::Udp, Some(mode)) => Ok(mode),
        (Protocol::Udp, None) => error(format!(
            "{given:?} is no redundancy; expected \"off\", \"adaptive\" or \"always\""
        )),
        (Protocol::Tcp, _) => error("is for udp only; expected no such key for tcp".to_owned()),
    }
}

fn idle_timeout(
    document: &Document,
    protocol: Protocol,
    number: &Spanned<f64>,
) -> Result<Duration, ConfigError> {
    match protocol {
        Protocol::Udp => document.duration(number, SECOND, IDLE_TIMEOUT_RANGE),
        // A TCP connection is as old as its ends want it to be.
        Protocol::Tcp => {
            Err(document.error(number.span(), "is for udp only; expected no such key for tcp"))
        }
    }
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

#[cfg(test)]
mod tests {
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

    fn error(text: &str) -> String {
        load(text).unwrap_err().to_string()
    }

    #[test]
    fn the_example_of_the_documentation_is_good() {
        let source = include_str!("config.rs").lines().skip_while(|line| *line != "//! ```toml");
        let example = source.skip(1).take_while(|line| *line != "//! ```");
        let text: Vec<_> = example.map(|line| line.trim_start_matches("//!")).collect();

        let config = load(&text.join("\n")).unwrap();

        let web = ServiceConfig::new(Protocol::Tcp, "web", "127.0.0.1:8080".parse().unwrap());
        let listen = "127.0.0.1:9000".parse().unwrap();
        let bulk = ForwardConfig {
            class: Class::Bulk,
            policy: Some("eu-only".to_owned()),
            ..ForwardConfig::new(Protocol::Tcp, listen, "web")
        };
        let listen = "127.0.0.1:9053".parse().unwrap();
        let dns = ForwardConfig {
            redundancy: Redundancy::Always,
            ..ForwardConfig::new(Protocol::Udp, listen, "dns")
        };
        assert_eq!(config, GatewayConfig { services: vec![web], forwards: vec![bulk, dns] });
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let config = load(&[SERVICE, FORWARD].concat()).unwrap();

        let service = &config.services[0];
        assert_eq!(service.clients_max, 4_096);
        assert_eq!(service.connect_timeout, Duration::from_secs(5));
        let forward = &config.forwards[0];
        assert_eq!((forward.clients_max, forward.class), (4_096, Class::Realtime));
        assert_eq!(forward.redundancy, Redundancy::Adaptive);
        assert_eq!(forward.idle_timeout, Duration::from_secs(60));
        assert_eq!(load("").unwrap(), GatewayConfig::default());
    }

    #[test]
    fn limits_can_be_set() {
        let limits = "clients_max = 1\nidle_timeout_s = 0.25\n";
        let udp = SERVICE.replace("tcp", "udp");
        let config =
            load(&[&udp, limits, "connect_timeout_s = 0.5\n", FORWARD, limits].concat()).unwrap();

        let (service, forward) = (&config.services[0], &config.forwards[0]);
        assert_eq!((service.clients_max, forward.clients_max), (1, 1));
        assert_eq!(service.connect_timeout, Duration::from_millis(500));
        assert_eq!(service.idle_timeout, Duration::from_millis(250));
        assert_eq!(forward.idle_timeout, Duration::from_millis(250));
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
                [&*tcp, "idle_timeout_s = 5.0\n"].concat(),
                "relay.toml:5: forward.idle_timeout_s: is for udp only; expected no such key for tcp",
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
}
