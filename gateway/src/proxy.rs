//! The PROXY protocol, version 2, of HAProxy (proxy-protocol.txt, section 2.2): how a proxy tells whose
//! connection it passes on.
//!
//! ```text
//! signature (12) | version 2, command | family, transport | length u16 | addresses | TLVs, passed over
//! ```
//!
//! Only the binary version is taken, and only from sources that the configuration trusts.

use std::net::{IpAddr, SocketAddr};

use overway_session::ClientAddresses;
use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_BYTES: usize = 16;
/// Bytes of a header that is taken at most: addresses and TLVs such as a TLS name or a cloud's ids.
pub(crate) const HEADER_BYTES_MAX: usize = 2_048;
const VERSION: u8 = 0x20;
const LOCAL: u8 = VERSION;
const PROXY: u8 = VERSION | 1;
const FAMILY_INET: u8 = 0x10;
const FAMILY_INET6: u8 = 0x20;

/// What the header is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Stream = 1,
    Datagram = 2,
}

/// The header is missing, malformed, cut short or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no proper PROXY header of version 2")]
pub(crate) struct HeaderError;

/// Why no header was read from a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The stream ended or failed before its first byte, as a health check's does.
    Empty,
    Header,
}

/// The header that tells of a client; of nobody (`LOCAL`) if there is none.
pub(crate) fn encode(client: Option<ClientAddresses>, transport: Transport) -> Vec<u8> {
    let mut header = Vec::with_capacity(FIXED_BYTES + 36);
    header.extend_from_slice(&SIGNATURE);
    let Some(ClientAddresses { source, destination }) = client else {
        header.extend_from_slice(&[LOCAL, 0, 0, 0]);
        return header;
    };
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend_from_slice(&[PROXY, FAMILY_INET | transport as u8, 0, 12]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
        }
        (from, to) => {
            header.extend_from_slice(&[PROXY, FAMILY_INET6 | transport as u8, 0, 36]);
            header.extend_from_slice(&mapped(from));
            header.extend_from_slice(&mapped(to));
        }
    }
    header.extend_from_slice(&source.port().to_be_bytes());
    header.extend_from_slice(&destination.port().to_be_bytes());
    header
}

/// The header at the front of `bytes`: whom it tells of, `None` if of nobody or of no IP address, and its length.
pub(crate) fn decode(
    bytes: &[u8],
    transport: Transport,
) -> Result<(Option<ClientAddresses>, usize), HeaderError> {
    let fixed = bytes.first_chunk::<FIXED_BYTES>().ok_or(HeaderError)?;
    let length = whole_length(fixed)?;
    let body = bytes.get(FIXED_BYTES..length).ok_or(HeaderError)?;
    let (command, family) = (fixed[12], fixed[13]);
    let client = match (command, family & 0xf0, family & 0x0f) {
        // What else a LOCAL header says is to be passed over.
        (LOCAL, _, _) => None,
        (PROXY, FAMILY_INET, of) if of == transport as u8 => Some(addresses::<4>(body)?),
        (PROXY, FAMILY_INET6, of) if of == transport as u8 => Some(addresses::<16>(body)?),
        // Unspecified, or a UNIX socket.
        (PROXY, 0 | 0x30, 0..=2) | (PROXY, FAMILY_INET | FAMILY_INET6, 0) => None,
        _ => return Err(HeaderError),
    };
    Ok((client, length))
}

/// Reads a header, and nothing of what follows it.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<ClientAddresses>, ReadError> {
    let mut header = vec![0; FIXED_BYTES];
    header[0] = stream.read_u8().await.map_err(|_| ReadError::Empty)?;
    // Told by its first byte already, most of what is none.
    if header[0] != SIGNATURE[0] {
        return Err(ReadError::Header);
    }
    stream.read_exact(&mut header[1..]).await.map_err(|_| ReadError::Header)?;
    let fixed = header.first_chunk().expect("that many were read");
    let length = whole_length(fixed).map_err(|_| ReadError::Header)?;
    header.resize(length, 0);
    stream.read_exact(&mut header[FIXED_BYTES..]).await.map_err(|_| ReadError::Header)?;
    let (client, _) = decode(&header, Transport::Stream).map_err(|_| ReadError::Header)?;
    Ok(client)
}

fn whole_length(fixed: &[u8; FIXED_BYTES]) -> Result<usize, HeaderError> {
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let known = fixed.starts_with(&SIGNATURE) && matches!(fixed[12], LOCAL | PROXY);
    if known && length <= HEADER_BYTES_MAX { Ok(length) } else { Err(HeaderError) }
}

/// Two addresses of `N` bytes, then two ports.
fn addresses<const N: usize>(body: &[u8]) -> Result<ClientAddresses, HeaderError>
where
    IpAddr: From<[u8; N]>,
{
    let (from, rest) = body.split_first_chunk::<N>().ok_or(HeaderError)?;
    let (to, rest) = rest.split_first_chunk::<N>().ok_or(HeaderError)?;
    let (ports, _tlvs) = rest.split_first_chunk::<4>().ok_or(HeaderError)?;
    let address = |ip: [u8; N], port| SocketAddr::new(IpAddr::from(ip), u16::from_be_bytes(port));
    let source = address(*from, [ports[0], ports[1]]);
    Ok(ClientAddresses { source, destination: address(*to, [ports[2], ports[3]]) })
}

fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(source: &str, destination: &str) -> ClientAddresses {
        ClientAddresses {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn a_header_is_as_the_specification_writes_it() {
        let client = client("192.0.2.1:4660", "198.51.100.2:80");

        let header = encode(Some(client), Transport::Stream);

        let expected = [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0,
            12, 192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 0, 80,
        ];
        assert_eq!(header, expected);
        assert_eq!(encode(None, Transport::Datagram)[12..], [0x20, 0, 0, 0]);
    }

    #[test]
    fn what_is_written_is_read() {
        for transport in [Transport::Stream, Transport::Datagram] {
            for (source, destination) in [
                ("192.0.2.1:1", "198.51.100.2:65535"),
                ("[2001:db8::1]:1", "[2001:db8::2]:2"),
                ("[2001:db8::1]:1", "[::ffff:192.0.2.1]:2"),
            ] {
                let client = client(source, destination);
                let mut bytes = encode(Some(client), transport);
                let length = bytes.len();
                bytes.extend_from_slice(b"data");
                assert_eq!(decode(&bytes, transport), Ok((Some(client), length)));
            }
            assert_eq!(decode(&encode(None, transport), transport), Ok((None, 16)));
        }
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_told_of_as_ipv4() {
        let mapped = client("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2");
        let plain = client("192.0.2.1:1", "192.0.2.2:2");
        assert_eq!(encode(Some(mapped), Transport::Stream), encode(Some(plain), Transport::Stream));
    }

    #[test]
    fn extensions_are_passed_over_and_other_families_tell_of_nobody() {
        let written = client("192.0.2.1:1", "192.0.2.2:2");
        let mut header = encode(Some(written), Transport::Stream);
        header[15] = 12 + 7;
        header.extend_from_slice(&[4, 0, 4, 0, 0, 0, 0]);
        assert_eq!(decode(&header, Transport::Stream), Ok((Some(written), 35)));

        for family in [0x00, 0x01, 0x31, 0x10] {
            header[13] = family;
            assert_eq!(decode(&header, Transport::Stream), Ok((None, 35)), "{family:#x}");
        }
    }

    #[test]
    fn what_is_not_a_header_of_this_version_and_transport_is_refused() {
        let good = encode(Some(client("192.0.2.1:1", "192.0.2.2:2")), Transport::Stream);
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            bad
        };
        let wrong = [
            with(0, b'G'),
            with(12, 0x11),
            with(12, 0x22),
            with(13, 0x12),
            with(13, 0x41),
            with(14, 0xff),
            with(15, 11),
            with(15, 13),
        ];
        for bad in wrong {
            assert_eq!(decode(&bad, Transport::Stream), Err(HeaderError), "{bad:?}");
        }
        for cut in 0..good.len() {
            assert_eq!(decode(&good[..cut], Transport::Stream), Err(HeaderError), "{cut}");
        }
        assert_eq!(
            decode(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Transport::Stream),
            Err(HeaderError)
        );
    }

    #[tokio::test]
    async fn a_stream_is_read_up_to_its_headers_end() {
        let written = client("192.0.2.1:1", "192.0.2.2:2");
        let mut bytes = encode(Some(written), Transport::Stream);
        bytes.extend_from_slice(b"GET");
        let mut stream = &bytes[..];

        assert_eq!(read(&mut stream).await, Ok(Some(written)));
        assert_eq!(stream, b"GET");
        assert_eq!(read(&mut stream).await, Err(ReadError::Header));
        assert_eq!(read(&mut &bytes[..20]).await, Err(ReadError::Header));
        assert_eq!(read(&mut &bytes[..0]).await, Err(ReadError::Empty));
    }

    proptest! {
        #[test]
        fn whatever_bytes_come_a_header_that_is_read_is_within_them(
            mut bytes in prop::collection::vec(any::<u8>(), 0..64),
            signed in any::<bool>(),
        ) {
            if signed {
                bytes.splice(0..bytes.len().min(12), SIGNATURE);
            }
            for transport in [Transport::Stream, Transport::Datagram] {
                if let Ok((_, length)) = decode(&bytes, transport) {
                    prop_assert!((FIXED_BYTES..=bytes.len()).contains(&length));
                }
            }
        }

        #[test]
        fn any_client_is_told_of_as_it_is(from: [u8; 16], to: [u8; 16], ports: (u16, u16)) {
            let source = SocketAddr::from((from, ports.0));
            let written = ClientAddresses { source, destination: SocketAddr::from((to, ports.1)) };
            let header = encode(Some(written), Transport::Datagram);
            let (read, length) = decode(&header, Transport::Datagram).unwrap();
            prop_assert_eq!((read, length), (Some(written), header.len()));
        }
    }
}
