//! What a host is asked before it runs a relay, or when one does not come up: whether schedulers answer over UDP, and
//! what buffers the kernel gives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use overway_pki::{ALPN_CONTROL, Credentials};
use quinn::crypto::rustls::QuicClientConfig;

use crate::socket::{self, BufferReport};

/// Time for a handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// What CONNECTION_CLOSE says: the end stops.
const CODE_STOPPED: u32 = 0;

/// A scheduler that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The round trip.
    pub rtt: Duration,
    /// This host's address on the way there.
    pub local: IpAddr,
}

/// Does a scheduler's handshake with this certificate, and closes. No hello is said, so that a relay that runs with the
/// same certificate is not disturbed.
///
/// # Errors
/// Nothing answered within five seconds, or either end refused the other.
pub async fn reach(credentials: &Arc<Credentials>, address: SocketAddr) -> anyhow::Result<Reached> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let tls = overway_pki::client_config(credentials, &[ALPN_CONTROL]);
    let crypto = QuicClientConfig::try_from(tls).context("the TLS configuration lacks AES-128")?;
    let endpoint = quinn::Endpoint::client(SocketAddr::new(any, 0))?;
    let name = credentials.any_scheduler_name();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connecting = endpoint.connect_with(config, address, &name)?;
    let connected = tokio::time::timeout(HANDSHAKE_MAX, connecting).await;
    let connection = connected.context("no answer within 5 s")??;
    let reached = Reached { rtt: connection.rtt(), local: local_address(address)? };
    connection.close(CODE_STOPPED.into(), b"");
    endpoint.wait_idle().await;
    Ok(reached)
}

/// The address from which this host sends there; nothing is sent.
fn local_address(to: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind((any, 0))?;
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
mod tests {
    use super::*;
    use overway_pki::{Authority, Identity, PendingKey, Role};
    use std::time::SystemTime;

    #[tokio::test]
    async fn a_silent_port_is_told_as_such() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let authority = Authority::create("test").unwrap();
        let (pending, csr) = PendingKey::generate().unwrap();
        let identity = Identity::new(Role::Relay, 1, authority.mesh()).unwrap();
        let now = SystemTime::now();
        let chain = authority.issue(&csr, &identity, Duration::from_secs(3_600), now).unwrap();
        let credentials =
            Credentials::from_join(&pending, chain, authority.fingerprint(), now).unwrap();

        let failed = reach(&Arc::new(credentials), silent.local_addr().unwrap()).await;

        assert!(failed.unwrap_err().to_string().contains("no answer"));
    }

    #[test]
    fn buffers_and_addresses_are_read() {
        let given = buffers().unwrap();

        assert!(given.receive > 0 && given.send > 0);
        let local = local_address("127.0.0.1:9".parse().unwrap()).unwrap();
        assert!(local.is_loopback());
    }
}
