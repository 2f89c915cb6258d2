//! What a host is asked before it runs a relay, or when one does not come up: whether schedulers answer over UDP, by which
//! address they see this host, and what buffers the kernel gives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use overway_pki::{ALPN_CONTROL, ALPN_SEEN, Credentials, Identity, Role, SEEN_CODE, seen_address};
use overway_wire::RelayId;
use overway_wire::control::item;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig};

use crate::socket::{self, BufferReport};
use crate::state::StateFile;

/// Time for a handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Time for an answer after the handshake.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Relays that are asked how they see this host: with a scheduler they tell a NAT's ways.
const RELAYS_MAX: usize = 3;
/// What CONNECTION_CLOSE says: the end stops.
const CODE_STOPPED: u32 = 0;

/// A scheduler or a relay that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The round trip.
    pub rtt: Duration,
    /// This host's address and port on the way there.
    pub local: SocketAddr,
    /// The same as the other end sees them; `None` if it does not say, being of an earlier version.
    pub seen: Option<SocketAddr>,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A scheduler.
    Scheduler(SocketAddr),
    /// A relay.
    Relay(RelayId, SocketAddr),
}

impl Asked {
    /// Where it listens.
    pub const fn address(self) -> SocketAddr {
        match self {
            Self::Scheduler(address) | Self::Relay(_, address) => address,
        }
    }
}

/// Relays that this one was last told to have links with, at most three; none if nothing was ever told.
pub fn neighbours(state_dir: &Path) -> Vec<Asked> {
    let Ok(Some(update)) = StateFile::new(state_dir).load() else { return Vec::new() };
    let mut found: Vec<Asked> = Vec::new();
    for item in update.put {
        let Some(item::Body::Peer(peer)) = item.body else { continue };
        let Ok(id) = u16::try_from(peer.neighbour).map(RelayId) else { continue };
        let Ok(address) = peer.remote_address.parse() else { continue };
        let is_known =
            found.iter().any(|asked| matches!(asked, Asked::Relay(known, _) if *known == id));
        if !is_known && found.len() < RELAYS_MAX {
            found.push(Asked::Relay(id, address));
        }
    }
    found
}

/// Does each one's handshake with this certificate, hears by which address it sees this host, and closes. No hello is said, so
/// that a relay that runs with the same certificate is not disturbed. All of one address family are asked from one port,
/// so that what they see can be compared.
///
/// # Errors
/// Of each: nothing answered within five seconds, or either end refused the other.
pub async fn reach(
    credentials: &Arc<Credentials>,
    asked: &[Asked],
) -> Vec<anyhow::Result<Reached>> {
    let (mut v4, mut v6) = (None, None);
    let mut reached = Vec::with_capacity(asked.len());
    for &asked in asked {
        let endpoint = if asked.address().is_ipv4() { &mut v4 } else { &mut v6 };
        reached.push(reach_one(credentials, endpoint, asked).await);
    }
    for endpoint in [v4, v6].into_iter().flatten() {
        endpoint.wait_idle().await;
    }
    reached
}

async fn reach_one(
    credentials: &Arc<Credentials>,
    endpoint: &mut Option<quinn::Endpoint>,
    asked: Asked,
) -> anyhow::Result<Reached> {
    let address = asked.address();
    let endpoint = match endpoint {
        Some(endpoint) => endpoint,
        None => endpoint.insert(quinn::Endpoint::client(SocketAddr::new(any(address), 0))?),
    };
    // A scheduler that does not know how to tell takes it for what a relay dials for.
    let (name, protocols) = match asked {
        Asked::Scheduler(_) => (credentials.any_scheduler_name(), &[ALPN_SEEN, ALPN_CONTROL][..]),
        Asked::Relay(id, _) => {
            let relay = Identity::new(Role::Relay, id.0, &credentials.identity().mesh)?;
            (relay.server_name(), &[ALPN_SEEN][..])
        }
    };
    let tls = overway_pki::client_config(credentials, protocols);
    let crypto = QuicClientConfig::try_from(tls).context("the TLS configuration lacks AES-128")?;
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connecting = endpoint.connect_with(config, address, &name)?;
    let connected = tokio::time::timeout(HANDSHAKE_MAX, connecting).await;
    let connection = connected.context("no answer within 5 s")??;
    let rtt = connection.rtt();
    let seen = match speaks(&connection, ALPN_SEEN) {
        true => tokio::time::timeout(ANSWER_MAX, told(&connection)).await.ok().flatten(),
        false => None,
    };
    let local = SocketAddr::new(local_address(address)?, endpoint.local_addr()?.port());
    connection.close(CODE_STOPPED.into(), b"");
    Ok(Reached { rtt, local, seen })
}

fn speaks(connection: &quinn::Connection, protocol: &[u8]) -> bool {
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    data.and_then(|data| data.protocol).is_some_and(|spoken| spoken == protocol)
}

/// By which address the other end sees this one, as it says when it closes.
async fn told(connection: &quinn::Connection) -> Option<SocketAddr> {
    match connection.closed().await {
        quinn::ConnectionError::ApplicationClosed(closed)
            if closed.error_code == SEEN_CODE.into() =>
        {
            seen_address(&closed.reason)
        }
        _ => None,
    }
}

fn any(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The address from which this host sends there; nothing is sent.
fn local_address(to: SocketAddr) -> std::io::Result<IpAddr> {
    let socket = std::net::UdpSocket::bind((any(to), 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// What the kernel gives of the buffers that a mesh socket asks for.
///
/// # Errors
/// No socket can be had.
pub fn buffers() -> anyhow::Result<BufferReport> {
    Ok(socket::open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use overway_pki::{Authority, Identity, PendingKey, Role};
    use std::time::SystemTime;

    /// What a relay of some mesh shows.
    pub(crate) fn credentials() -> Arc<Credentials> {
        let authority = Authority::create("test").unwrap();
        let (pending, csr) = PendingKey::generate().unwrap();
        let identity = Identity::new(Role::Relay, 1, authority.mesh()).unwrap();
        let now = SystemTime::now();
        let chain = authority.issue(&csr, &identity, Duration::from_secs(3_600), now).unwrap();
        let joined = Credentials::from_join(&pending, chain, authority.fingerprint(), now);
        Arc::new(joined.unwrap())
    }

    #[tokio::test]
    async fn a_silent_port_is_told_as_such() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let asked = [Asked::Scheduler(silent.local_addr().unwrap())];
        let reached = reach(&credentials(), &asked).await;

        assert_eq!(reached.len(), 1);
        assert!(reached[0].as_ref().unwrap_err().to_string().contains("no answer"));
    }

    #[test]
    fn buffers_and_addresses_are_read() {
        let given = buffers().unwrap();

        assert!(given.receive > 0 && given.send > 0);
        let local = local_address("127.0.0.1:9".parse().unwrap()).unwrap();
        assert!(local.is_loopback());
    }

    #[test]
    fn neighbours_are_read_from_the_last_state_each_once_and_few() {
        use overway_wire::control::{Item, Peer, Update};
        let peer = |neighbour: u32, remote_address: &str| {
            Item::from(Peer { neighbour, remote_address: remote_address.into(), ..Peer::default() })
        };
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(neighbours(dir.path()), []);
        let address = "192.0.2.1:4401";
        let items = [
            (70_000, address),
            (2, "rome"),
            (2, address),
            (2, address),
            (3, address),
            (4, address),
            (5, address),
        ];
        let items = items.map(|(id, address)| peer(id, address)).to_vec();
        StateFile::new(dir.path()).save(&Update { put: items, ..Update::default() }).unwrap();

        let relay = |id| Asked::Relay(RelayId(id), address.parse().unwrap());
        assert_eq!(neighbours(dir.path()), [relay(2), relay(3), relay(4)]);
    }
}
