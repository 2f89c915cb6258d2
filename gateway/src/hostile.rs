//! What bytes of strangers are put through, for fuzzers and tests.
//!
//! Each function reads bytes as the gateway does, panics if something holds that must not, and says whether they were
//! anything at all.

use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use overway_session::ClientAddresses;

use crate::proxy::{HEADER_BYTES_MAX, Transport, decode, encode, read};

pub use crate::socks::hostile::socks;

/// A PROXY header that is read lies within the bytes, tells of the same client when it is written anew, and is the same
/// on a stream, of which no byte more is taken.
///
/// # Panics
/// If that does not hold.
pub fn proxy_header(bytes: &[u8]) -> bool {
    let mut is_read = false;
    for transport in [Transport::Stream, Transport::Datagram] {
        let Ok((client, length)) = decode(bytes, transport) else { continue };
        is_read = true;
        assert!(length <= bytes.len().min(HEADER_BYTES_MAX));
        let written = encode(client, transport);
        let (again, whole) = decode(&written, transport).expect("one that was written");
        assert_eq!((again.map(plain), whole), (client.map(plain), written.len()));
    }
    let mut rest = bytes;
    let streamed = ready(read(&mut rest)).ok();
    let decoded = decode(bytes, Transport::Stream).ok();
    assert_eq!(streamed, decoded.map(|(client, _)| client));
    if let Some((_, length)) = decoded {
        assert_eq!(rest, &bytes[length..]);
    }
    is_read
}

/// Addresses of IPv4 written as such.
fn plain(client: ClientAddresses) -> [SocketAddr; 2] {
    [client.source, client.destination]
        .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// What a future comes to that reads bytes which are there.
pub(crate) fn ready<T>(reading: impl Future<Output = T>) -> T {
    match pin!(reading).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read,
        Poll::Pending => unreachable!("bytes in memory keep nobody waiting"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_of_each_family_is_read() {
        let client = |source: &str, destination: &str| ClientAddresses {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        for client in [
            None,
            Some(client("192.0.2.1:1", "192.0.2.2:2")),
            Some(client("[2001:db8::1]:1", "[::ffff:192.0.2.2]:2")),
        ] {
            assert!(proxy_header(&encode(client, Transport::Stream)), "{client:?}");
            assert!(proxy_header(&encode(client, Transport::Datagram)), "{client:?}");
        }
        assert!(!proxy_header(b"GET / HTTP/1.1\r\n\r\n"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn headers_that_were_changed_hold(
            from: [u8; 16],
            to: [u8; 16],
            is_v4 in any::<bool>(),
            changes in prop::collection::vec((0..60_usize, any::<u8>()), 0..4),
            length in 0..60_usize,
            rest in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let ip = |ip: [u8; 16]| match is_v4 {
                true => std::net::IpAddr::from([ip[0], ip[1], ip[2], ip[3]]),
                false => std::net::IpAddr::from(ip),
            };
            let (source, destination) = (SocketAddr::new(ip(from), 1), SocketAddr::new(ip(to), 2));
            let client = ClientAddresses { source, destination };
            let mut bytes = encode(Some(client), Transport::Stream);
            bytes.truncate(length.max(16));
            bytes.extend(rest);
            for (at, byte) in changes {
                if let Some(changed) = bytes.get_mut(at) {
                    *changed = byte;
                }
            }
            proxy_header(&bytes);
        }
    }
}
