//! What an opener wants of a far end: a service, and what the far end is told of the client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a [`Wanted::target`] at most: a host name of 253, a colon, a port.
pub const TARGET_BYTES_MAX: usize = 259;

/// A service, and for whom it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The service's name.
    pub service: &'a str,
    /// The client, if there is one. The far end takes the opener's word for it.
    pub client: Option<ClientAddresses>,
    /// Where an exit is to connect to: `HOST:PORT`, of at most [`TARGET_BYTES_MAX`] bytes. Other services have a
    /// target of their own.
    pub target: Option<&'a str>,
    /// The only name, in its token, that a far edge may have; it is asked for nothing if it has another.
    pub peer: Option<&'a str>,
}

/// A client's connection or flow, as the listener saw it: what the PROXY protocol tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddresses {
    /// The client's address.
    pub source: SocketAddr,
    /// The address that it used.
    pub destination: SocketAddr,
}

impl<'a> From<&'a str> for Wanted<'a> {
    fn from(service: &'a str) -> Self {
        Self { service, client: None, target: None, peer: None }
    }
}

impl<'a> From<&'a String> for Wanted<'a> {
    fn from(service: &'a String) -> Self {
        service.as_str().into()
    }
}

/// An address as requests carry it: four or sixteen bytes, and two of the port, big-endian.
pub(crate) fn encode(address: SocketAddr) -> Bytes {
    let mut bytes = BytesMut::with_capacity(18);
    match address.ip() {
        IpAddr::V4(ip) => bytes.put_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes.put_slice(&ip.octets()),
    }
    bytes.put_u16(address.port());
    bytes.freeze()
}

/// The address, if the bytes are one.
pub(crate) fn decode(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = if let Ok(octets) = <[u8; 4]>::try_from(ip) {
        IpAddr::V4(Ipv4Addr::from(octets))
    } else {
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?))
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_carried_whole() {
        for text in ["192.0.2.1:80", "[2001:db8::1]:65535", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(decode(&encode(address)), Some(address));
        }
    }

    #[test]
    fn bytes_of_another_length_are_no_address() {
        for length in (0..=20).filter(|length| ![6, 18].contains(length)) {
            assert_eq!(decode(&vec![1; length]), None);
        }
    }
}
