//! `[[service]]`, `[[forward]]` and `[[socks]]`: what may be written, and what it means.
//!
//! ```toml
//! [[service]]
//! name = "web"                  # a-z, 0-9, hyphen; once for each protocol
//! protocol = "tcp"              # or "udp"
//! target = "127.0.0.1:8080"     # or a host name with a port, resolved for each connection
//! proxy_protocol = "tcp"        # tell the target who the client is; udp: "udp-first" or "udp-every"
//! told_by = ["front"]           # edges, by the names in their tokens, that are believed who it is; all unless said
//! clients_max = 4096            # connections or flows at once
//! connect_timeout_s = 5.0       # at most 5
//!
//! [[service]]
//! name = "out"
//! protocol = "tcp"
//! exit = ["*.example.com:443"]  # in place of a target: what SOCKS clients may be led to
//!
//! [[forward]]
//! listen = "127.0.0.1:9000"     # once for each protocol; port 0 lets the system choose
//! protocol = "tcp"
//! service = "web"
//! class = "bulk"                # tcp: "interactive" unless said; udp is always "realtime"
//! policy = "eu-only"            # of those the scheduler has; limits the paths, both ways
//! clients_max = 4096
//! clients_per_second = 100      # new ones; no limit unless said
//! idle_timeout_s = 3600.0       # tcp: never unless said; here and in services
//!
//! [[forward]]
//! listen = "127.0.0.1:9053"
//! protocol = "udp"
//! service = "dns"
//! redundancy = "always"         # how much goes twice, if it is not bulk; "off", "adaptive" unless said, or "always"
//! proxy_protocol = "accept-every" # clients come by a proxy that says who they are; tcp: "accept"
//! trusted = ["127.0.0.1/32"]    # the proxies; all others are refused
//! idle_timeout_s = 60.0
//!
//! [[socks]]
//! listen = "127.0.0.1:1080"     # beyond loopback only with users
//! suffix = "overway"            # web.overway is the service "web"
//! exit = "out"                  # the service that leads to what is none
//! allow = ["*.example.com:443"] # and what that may be
//! [[socks.user]]
//! name = "alice"
//! password_file = "alice.password" # or password
//! ```

use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use overway_config::{ConfigError, Document, Spanned};
use overway_wire::{Class, Redundancy};
use serde::Deserialize;

mod forward;
mod service;
mod socks;
#[cfg(test)]
mod tests;

pub use forward::{ForwardConfig, RawForward};
pub use service::{RawService, ServiceConfig};
pub use socks::{Password, RawSocks, SocksConfig, SocksExit, SocksUser};

/// Connections or clients at once that a listener or service carries unless configured: what a process
/// with a descriptor limit of 16,384 can afford for a few of them.
const CLIENTS_MAX_DEFAULT: usize = 4_096;
/// What can be configured in its place: no more than a session endpoint has flows.
const CLIENTS_MAX_RANGE: RangeInclusive<usize> = 1..=65_536;
/// New ones in a second: more than one thread accepts.
const CLIENTS_PER_SECOND_RANGE: RangeInclusive<u32> = 1..=1_000_000;
/// Silence after which a UDP client is forgotten. RFC 4787 (REQ-5) has NATs wait two minutes; clients
/// that mean to stay send more often than once a minute.
pub(crate) const FLOW_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const IDLE_TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(24 * 3_600);

const SECOND: Duration = Duration::from_secs(1);

/// What is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Where headers of the PROXY protocol, version 2, are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// At the front of each connection.
    Tcp,
    /// In the first datagram of each client.
    UdpFirst,
    /// In every datagram.
    UdpEvery,
}

/// How many a listener lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections or clients at once; further ones are turned away.
    pub clients_max: usize,
    /// New ones in a second, at once if they come so; further ones are turned away. `None`: no limit.
    pub clients_per_second: Option<NonZeroU32>,
}

/// What a gateway offers and forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The targets that other relays' clients may reach. No name is there twice for one protocol.
    pub services: Vec<ServiceConfig>,
    /// The addresses to listen on. None is there twice for one protocol, those of `socks` included, except
    /// with port 0.
    pub forwards: Vec<ForwardConfig>,
    /// The SOCKS listeners.
    pub socks: Vec<SocksConfig>,
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
        socks: &[RawSocks],
    ) -> Result<Self, ConfigError> {
        for protocol in Protocol::ALL {
            let ours = services.iter().filter(|service| service.protocol == protocol);
            document.unique(ours.map(|service| &service.name))?;
            let ours = forwards.iter().filter(|raw| raw.protocol == protocol);
            let socks = socks.iter().filter(|_| protocol == Protocol::Tcp);
            check_listens(
                document,
                ours.map(|raw| &raw.listen).chain(socks.map(|raw| &raw.listen)),
            )?;
        }
        let service = |raw| ServiceConfig::from_raw(document, raw);
        let forward = |raw| ForwardConfig::from_raw(document, raw);
        let sock = |raw| SocksConfig::from_raw(document, raw);
        Ok(Self {
            services: services.iter().map(service).collect::<Result<_, _>>()?,
            forwards: forwards.iter().map(forward).collect::<Result<_, _>>()?,
            socks: socks.iter().map(sock).collect::<Result<_, _>>()?,
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

/// No two listen on the same address, unless the system chooses the port.
fn check_listens<'a>(
    document: &Document,
    listens: impl Iterator<Item = &'a Spanned<String>>,
) -> Result<(), ConfigError> {
    let address =
        |listen: &Spanned<String>| Ok(Spanned::new(listen.span(), document.address(listen)?));
    let listens = listens.map(address).collect::<Result<Vec<_>, ConfigError>>()?;
    document.unique(listens.iter().filter(|listen| listen.get_ref().port() != 0))
}

impl Limits {
    fn from_raw(
        document: &Document,
        clients_max: Option<&Spanned<usize>>,
        clients_per_second: Option<&Spanned<u32>>,
    ) -> Result<Self, ConfigError> {
        let mut limits = Self::default();
        if let Some(number) = clients_max {
            limits.clients_max = document.in_range(number, CLIENTS_MAX_RANGE)?;
        }
        if let Some(number) = clients_per_second {
            let number = document.in_range(number, CLIENTS_PER_SECOND_RANGE)?;
            limits.clients_per_second = NonZeroU32::new(number);
        }
        Ok(limits)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { clients_max: CLIENTS_MAX_DEFAULT, clients_per_second: None }
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

fn redundancy(document: &Document, name: &Spanned<String>) -> Result<Redundancy, ConfigError> {
    let given = name.get_ref();
    Redundancy::from_name(given).ok_or_else(|| {
        let message =
            format!("{given:?} is no redundancy; expected \"off\", \"adaptive\" or \"always\"");
        document.error(name.span(), message)
    })
}

fn idle_timeout(document: &Document, number: &Spanned<f64>) -> Result<Duration, ConfigError> {
    document.duration(number, SECOND, IDLE_TIMEOUT_RANGE)
}

/// The mode of that name, if the protocol has it.
fn proxy_protocol(
    document: &Document,
    protocol: Protocol,
    name: &Spanned<String>,
    modes: [(&str, ProxyProtocol); 3],
) -> Result<ProxyProtocol, ConfigError> {
    let given = name.get_ref();
    let ours = modes.iter().filter(|(_, mode)| mode.protocol() == protocol);
    if let Some((_, mode)) = ours.clone().find(|(name, _)| name == given) {
        return Ok(*mode);
    }
    let expected: Vec<_> = ours.map(|(name, _)| format!("{name:?}")).collect();
    let message = format!(
        "{given:?} is no way to carry PROXY headers in {protocol}; expected {}",
        expected.join(" or ")
    );
    Err(document.error(name.span(), message))
}

impl ProxyProtocol {
    const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::UdpFirst | Self::UdpEvery => Protocol::Udp,
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
