//! Lists of what may be connected to: an exit's, and a SOCKS listener's.
//!
//! ```text
//! example.com:443            that name
//! *.example.com:443          every name below it
//! *:443                      every name, and every public address
//! 192.0.2.1:22               that address
//! 192.0.2.0/24:8000-8999     a network, and a range of ports
//! [2001:db8::/32]:*          any port
//! ```
//!
//! A name does not open a way into the operator's own network: whoever owns a listed name decides where it leads, so
//! an address that is not public must be listed as such, too.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

use crate::target::is_host_name;

/// What may be connected to; nothing, if it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations(Vec<Destination>);

/// One line of [`Destinations`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    hosts: Hosts,
    ports: RangeInclusive<u16>,
}

/// The text is no destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is neither NAME:PORT, *.NAME:PORT, *:PORT nor NETWORK:PORT")]
pub struct DestinationError;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// In lower case.
    Name(String),
    /// The rest of the name, with its dot, in lower case.
    Below(String),
    Network(IpNet),
    All,
}

impl Destinations {
    /// Whether a name may be asked for; where it leads is another question.
    pub(crate) fn has_name(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.of_port(port).any(|destination| match &destination.hosts {
            Hosts::Name(name) => *name == host,
            Hosts::Below(rest) => host.len() > rest.len() && host.ends_with(rest),
            Hosts::All => true,
            Hosts::Network(_) => false,
        })
    }

    /// Whether an address may be connected to that was asked for as such.
    pub(crate) fn has_address(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.of_port(address.port()).any(|destination| match &destination.hosts {
            Hosts::Network(network) => network.contains(&ip),
            Hosts::All => is_public(ip),
            Hosts::Name(_) | Hosts::Below(_) => false,
        })
    }

    /// Whether an address may be connected to that a listed name has.
    pub(crate) fn has_resolved(&self, address: SocketAddr) -> bool {
        is_public(address.ip().to_canonical()) || self.has_address(address)
    }

    fn of_port(&self, port: u16) -> impl Iterator<Item = &Destination> {
        self.0.iter().filter(move |destination| destination.ports.contains(&port))
    }
}

impl FromIterator<Destination> for Destinations {
    fn from_iter<I: IntoIterator<Item = Destination>>(list: I) -> Self {
        Self(list.into_iter().collect())
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let (hosts, ports) = text.rsplit_once(':').ok_or(DestinationError)?;
        let ports = match ports.split_once('-') {
            None if ports == "*" => 1..=u16::MAX,
            None => port(ports)?..=port(ports)?,
            Some((first, last)) => port(first)?..=port(last)?,
        };
        let hosts = hosts.parse()?;
        if ports.is_empty() { Err(DestinationError) } else { Ok(Self { hosts, ports }) }
    }
}

impl FromStr for Hosts {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        if let Some(network) = network(bracketed.unwrap_or(text)) {
            let fits = network.addr().is_ipv6() == bracketed.is_some();
            return if fits { Ok(Self::Network(network)) } else { Err(DestinationError) };
        }
        if text == "*" {
            return Ok(Self::All);
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if !is_host_name(name) {
            return Err(DestinationError);
        }
        let name = name.to_ascii_lowercase();
        Ok(if below { Self::Below(format!(".{name}")) } else { Self::Name(name) })
    }
}

impl fmt::Display for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an exit with {} destinations", self.0.len())
    }
}

/// A network, `192.0.2.0/24`, or an address, which is a network of one.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn port(text: &str) -> Result<u16, DestinationError> {
    text.parse().ok().filter(|port| *port != 0).ok_or(DestinationError)
}

/// Whether an address is anybody's on the internet: none of a host, a link, a site, a group, a document or a
/// translator (IANA's registries of special-purpose addresses). Of IPv6 only what is handed out for unicast is.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                || a == 0
                || a >= 224
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (b == 18 || b == 19))
                || (a == 192 && b == 0 && c == 0)
                || (a == 192 && b == 88 && c == 99))
        }
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            let unicast = first & 0xe000 == 0x2000;
            // Teredo and its neighbours up to 2001:1ff::, documentation, 6to4.
            let special = (first == 0x2001 && (second < 0x0200 || second == 0x0db8))
                || first == 0x2002
                || (first == 0x3fff && second < 0x1000);
            unicast && !special && ip != Ipv6Addr::UNSPECIFIED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lines: &[&str]) -> Destinations {
        lines.iter().map(|line| line.parse::<Destination>().unwrap()).collect()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_empty_list_has_nothing() {
        let none = Destinations::default();
        assert!(!none.has_name("example.com", 443));
        assert!(!none.has_address(address("8.8.8.8:53")));
    }

    #[test]
    fn names_are_listed_whole_or_by_their_ends() {
        let list = list(&["Example.com:443", "*.example.org:80-81"]);

        for (host, port) in [
            ("example.com", 443),
            ("EXAMPLE.com.", 443),
            ("a.example.org", 80),
            ("a.b.example.org", 81),
        ] {
            assert!(list.has_name(host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("example.com", 80),
            ("a.example.com", 443),
            ("example.org", 80),
            ("badexample.org", 80),
            (".example.org", 80),
            ("a.example.org", 82),
        ] {
            assert!(!list.has_name(host, port), "{host}:{port}");
        }
    }

    #[test]
    fn networks_are_listed_with_their_ports() {
        let list = list(&["192.0.2.0/24:8000-8999", "[2001:db8::/32]:*", "127.0.0.1:22"]);

        for text in
            ["192.0.2.77:8500", "[::ffff:192.0.2.1]:8000", "[2001:db8:1::1]:1", "127.0.0.1:22"]
        {
            assert!(list.has_address(address(text)), "{text}");
        }
        for text in
            ["192.0.2.77:80", "192.0.3.1:8500", "[2001:db9::1]:1", "127.0.0.2:22", "8.8.8.8:53"]
        {
            assert!(!list.has_address(address(text)), "{text}");
        }
        assert!(!list.has_name("localhost", 22));
    }

    #[test]
    fn everything_is_all_names_and_public_addresses_only() {
        let list = list(&["*:443", "10.1.0.0/16:443"]);

        assert!(list.has_name("anything.example", 443));
        assert!(
            list.has_address(address("8.8.8.8:443")) && list.has_address(address("[2600::1]:443"))
        );
        assert!(list.has_resolved(address("10.1.2.3:443")));
        for text in [
            "127.0.0.1:443",
            "0.0.0.0:443",
            "10.0.0.1:443",
            "172.16.0.1:443",
            "192.168.1.1:443",
            "169.254.169.254:443",
            "100.64.0.1:443",
            "224.0.0.1:443",
            "255.255.255.255:443",
            "[::]:443",
            "[::1]:443",
            "[::ffff:127.0.0.1]:443",
            "[fe80::1]:443",
            "[fd00::1]:443",
            "[ff02::1]:443",
            "[64:ff9b::7f00:1]:443",
            "[2002:7f00:1::]:443",
            "[2001:db8::1]:443",
        ] {
            assert!(!list.has_address(address(text)), "{text}");
            assert!(!list.has_resolved(address(text)), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "example.com",
            "example.com:0",
            "example.com:2-1",
            "example.com:1-",
            "*example.com:1",
            "a.*.com:1",
            "192.0.2.0/33:1",
            "2001:db8::/32:1",
            "[192.0.2.1]:1",
            "300.0.0.1:1",
            ":1",
        ] {
            assert_eq!(text.parse::<Destination>(), Err(DestinationError), "{text:?}");
        }
    }
}
