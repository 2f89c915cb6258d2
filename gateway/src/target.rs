//! Where a service is: the only addresses to which a gateway connects.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::destinations::Destinations;
use crate::race::{STAGGER, interleaved, race};
use crate::socket::{SERVED_FLOW_BUFFER_BYTES, bind_udp};
use crate::stats::Refusal;

/// Bytes of the longest host name (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Where a service leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceTarget {
    /// To one target, whatever is asked for.
    Fixed(Target),
    /// To the target that is asked for, if it is listed.
    Exit(Destinations),
}

/// Something to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address, taken as it is.
    Address(SocketAddr),
    /// A name, resolved for each connection or flow.
    Name {
        /// The host's name.
        host: String,
        /// The port.
        port: u16,
    },
}

/// The text is neither `IP:PORT` nor `HOST:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is neither IP:PORT nor HOST:PORT with a port from 1 to 65535")]
pub struct TargetError;

/// Why a target was not reached.
#[derive(Debug)]
pub(crate) struct Unreached {
    pub(crate) refusal: Refusal,
    pub(crate) error: io::Error,
}

impl ServiceTarget {
    /// A connection to the target, to see whether it takes any; `None` if it does not in time, or is none of its own.
    pub async fn reach(&self, within: Duration) -> Option<TcpStream> {
        self.connect_tcp(None, within).await.ok()
    }

    /// Connects: of a name's addresses to the one that accepts first.
    pub(crate) async fn connect_tcp(
        &self,
        asked: Option<&str>,
        within: Duration,
    ) -> Result<TcpStream, Unreached> {
        let connected = async {
            let addresses = self.addresses(asked).await?;
            match race(addresses, STAGGER, TcpStream::connect).await {
                Some(connected) => connected.map_err(Unreached::refused),
                None => Err(none_found()),
            }
        };
        timeout(within, connected).await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// A socket that sends to, and hears only, the first address that can be sent to.
    pub(crate) async fn connect_udp(
        &self,
        asked: Option<&str>,
        within: Duration,
    ) -> Result<UdpSocket, Unreached> {
        let connected = async {
            let mut last = none_found();
            for address in self.addresses(asked).await? {
                match connect_one(address).await {
                    Ok(socket) => return Ok(socket),
                    Err(error) => last = Unreached::refused(error),
                }
            }
            Err(last)
        };
        timeout(within, connected).await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// The addresses to try.
    async fn addresses(&self, asked: Option<&str>) -> Result<Vec<SocketAddr>, Unreached> {
        match (self, asked) {
            (Self::Fixed(target), None) => target.addresses().await,
            (Self::Exit(list), Some(asked)) => list.addresses(asked).await,
            // An exit must be told where to; nobody else may be.
            (Self::Fixed(_), Some(_)) | (Self::Exit(_), None) => Err(not_allowed()),
        }
    }
}

impl Destinations {
    async fn addresses(&self, asked: &str) -> Result<Vec<SocketAddr>, Unreached> {
        let target: Target = asked.parse().map_err(|_| not_allowed())?;
        let found = match &target {
            Target::Address(address) if self.has_address(*address) => return Ok(vec![*address]),
            Target::Name { host, port } if self.has_name(host, *port) => target.addresses().await?,
            Target::Address(_) | Target::Name { .. } => return Err(not_allowed()),
        };
        let allowed: Vec<_> = found.into_iter().filter(|found| self.has_resolved(*found)).collect();
        if allowed.is_empty() { Err(not_allowed()) } else { Ok(allowed) }
    }
}

impl Target {
    async fn addresses(&self) -> Result<Vec<SocketAddr>, Unreached> {
        match self {
            Self::Address(address) => Ok(vec![*address]),
            Self::Name { host, port } => match tokio::net::lookup_host((&**host, *port)).await {
                Ok(found) => Ok(interleaved(found)),
                Err(error) => Err(Unreached { refusal: Refusal::TargetUnresolved, error }),
            },
        }
    }
}

impl Unreached {
    pub(crate) fn refused(error: io::Error) -> Self {
        let refusal = match error.kind() {
            // The kernel's own time-out, should it be shorter than ours.
            io::ErrorKind::TimedOut => Refusal::TargetTimedOut,
            _ => Refusal::TargetRefused,
        };
        Self { refusal, error }
    }
}

async fn connect_one(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = bind_udp(any, SERVED_FLOW_BUFFER_BYTES)?;
    socket.connect(address).await?;
    Ok(socket)
}

fn none_found() -> Unreached {
    let error = io::Error::new(io::ErrorKind::NotFound, "the name has no addresses");
    Unreached { refusal: Refusal::TargetUnresolved, error }
}

fn not_allowed() -> Unreached {
    Unreached { refusal: Refusal::NotAllowed, error: io::ErrorKind::PermissionDenied.into() }
}

fn timed_out() -> Unreached {
    Unreached { refusal: Refusal::TargetTimedOut, error: io::ErrorKind::TimedOut.into() }
}

impl From<Target> for ServiceTarget {
    fn from(target: Target) -> Self {
        Self::Fixed(target)
    }
}

impl From<SocketAddr> for ServiceTarget {
    fn from(address: SocketAddr) -> Self {
        Self::Fixed(address.into())
    }
}

impl From<Destinations> for ServiceTarget {
    fn from(list: Destinations) -> Self {
        Self::Exit(list)
    }
}

impl fmt::Display for ServiceTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(target) => target.fmt(f),
            Self::Exit(list) => list.fmt(f),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(TargetError) } else { Ok(Self::Address(address)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(TargetError)?;
        let port = port.parse().map_err(|_| TargetError)?;
        if port == 0 || !is_host_name(host) {
            return Err(TargetError);
        }
        Ok(Self::Name { host: host.to_owned(), port })
    }
}

/// Letters, digits, hyphens, dots and underscores, with at least one letter, so that a mistyped address
/// is not asked of the DNS.
pub(crate) fn is_host_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    host.len() <= HOST_BYTES_MAX
        && host.bytes().all(allowed)
        && host.bytes().any(|byte| byte.is_ascii_alphabetic())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_with_a_port_are_targets() {
        for text in ["127.0.0.1:8080", "[2001:db8::1]:53", "db.internal:5432", "localhost:1"] {
            assert_eq!(text.parse::<Target>().map(|target| target.to_string()), Ok(text.into()));
        }
        assert!(matches!("[::1]:1".parse(), Ok(Target::Address(_))));
        assert!(matches!("localhost:1".parse(), Ok(Target::Name { .. })));
    }

    fn exit(lines: &[&str]) -> ServiceTarget {
        let list = lines.iter().map(|line| line.parse::<crate::Destination>().unwrap());
        ServiceTarget::Exit(list.collect())
    }

    async fn refusal(target: ServiceTarget, asked: Option<&str>) -> Option<Refusal> {
        target.addresses(asked).await.err().map(|unreached| unreached.refusal)
    }

    #[tokio::test]
    async fn an_exit_leads_to_what_is_listed_and_asked_for_and_a_target_asks_nothing() {
        let only = exit(&["127.0.0.1:80", "localhost:81"]);
        let addresses = only.addresses(Some("127.0.0.1:80")).await.unwrap();
        assert_eq!(addresses, [SocketAddr::from(([127, 0, 0, 1], 80))]);
        for asked in ["127.0.0.1:81", "127.0.0.2:80", "example.com:80", "nonsense", ""] {
            assert_eq!(refusal(only.clone(), Some(asked)).await, Some(Refusal::NotAllowed));
        }
        assert_eq!(refusal(only, None).await, Some(Refusal::NotAllowed));

        let fixed = ServiceTarget::from(SocketAddr::from(([127, 0, 0, 1], 80)));
        assert_eq!(refusal(fixed, Some("127.0.0.1:80")).await, Some(Refusal::NotAllowed));
    }

    #[tokio::test]
    async fn a_listed_name_that_leads_to_this_host_needs_its_address_listed_too() {
        let asked = Some("localhost:81");
        assert_eq!(refusal(exit(&["localhost:81"]), asked).await, Some(Refusal::NotAllowed));

        let both = exit(&["localhost:81", "127.0.0.0/8:81", "[::1]:81"]);
        assert_eq!(refusal(both, asked).await, None);
    }

    #[test]
    fn what_cannot_be_connected_to_is_no_target() {
        for text in [
            "",
            "8080",
            ":8080",
            "db.internal",
            "127.0.0.1",
            "127.0.0.1:0",
            "db:0",
            "db:65536",
            "db:http",
            "::1:80",
            "300.0.0.1:80",
            "http://db:80",
            "a b:80",
        ] {
            assert_eq!(text.parse::<Target>(), Err(TargetError), "{text:?}");
        }
    }
}
