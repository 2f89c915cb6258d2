//! The messages of SOCKS5 (RFC 1928) and of its login (RFC 1929).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::stats::Refusal;
use crate::target::{Target, is_host_name};

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
pub(super) const METHOD_NONE: u8 = 0;
pub(super) const METHOD_PASSWORD: u8 = 2;
const METHOD_UNACCEPTABLE: u8 = 0xff;
const COMMAND_CONNECT: u8 = 1;
const COMMAND_ASSOCIATE: u8 = 3;
const ADDRESS_V4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_V6: u8 = 4;

/// Reply: done.
pub(super) const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const COMMAND_NOT_SUPPORTED: u8 = 7;
const ADDRESS_NOT_SUPPORTED: u8 = 8;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) command: Command,
    /// The port may be 0.
    pub(super) destination: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Connect,
    Associate,
}

/// Why a message cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The client ended the connection, or it failed.
    Left,
    /// It makes no sense.
    Malformed,
    /// Another command.
    Command,
    /// Another sort of address.
    AddressType,
}

impl Fault {
    /// What a client is answered whose request has it.
    pub(super) const fn code(self) -> Option<u8> {
        match self {
            Self::Left | Self::Malformed => None,
            Self::Command => Some(COMMAND_NOT_SUPPORTED),
            Self::AddressType => Some(ADDRESS_NOT_SUPPORTED),
        }
    }
}

/// The methods that the client offers, at most 255.
pub(super) async fn read_methods(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Fault> {
    if read_byte(from).await? != VERSION {
        return Err(Fault::Malformed);
    }
    read_counted(from).await
}

/// A name and a password.
pub(super) async fn read_credentials(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    if read_byte(from).await? != LOGIN_VERSION {
        return Err(Fault::Malformed);
    }
    Ok((read_counted(from).await?, read_counted(from).await?))
}

/// A request. It is read whole even if its command is not supported, so that the reply is not lost to a reset.
pub(super) async fn read_request(from: &mut (impl AsyncRead + Unpin)) -> Result<Request, Fault> {
    let mut front = [0; 5];
    read_exact(from, &mut front).await?;
    let [version, command, _reserved, sort, first] = front;
    if version != VERSION {
        return Err(Fault::Malformed);
    }
    let length = target_length(sort, first).ok_or(Fault::AddressType)?;
    let mut address = vec![0; length];
    (address[0], address[1]) = (sort, first);
    read_exact(from, &mut address[2..]).await?;
    let (destination, _) = parse_target(&address)?;
    let command = match command {
        COMMAND_CONNECT => Command::Connect,
        COMMAND_ASSOCIATE => Command::Associate,
        _ => return Err(Fault::Command),
    };
    Ok(Request { command, destination })
}

/// The destination of a UDP datagram and the length of its header. Fragments are not taken.
pub(super) fn parse_datagram(bytes: &[u8]) -> Result<(Target, usize), Fault> {
    match bytes {
        [0, 0, 0, address @ ..] => {
            let (target, length) = parse_target(address)?;
            Ok((target, 3 + length))
        }
        _ => Err(Fault::Malformed),
    }
}

/// An address at the front of `bytes`, and its length. A name that is an address is one.
fn parse_target(bytes: &[u8]) -> Result<(Target, usize), Fault> {
    let &[sort, first, ..] = bytes else { return Err(Fault::Malformed) };
    let length = target_length(sort, first).ok_or(Fault::AddressType)?;
    let whole = bytes.get(1..length).ok_or(Fault::Malformed)?;
    let (host, port) = whole.split_last_chunk::<2>().ok_or(Fault::Malformed)?;
    let port = u16::from_be_bytes(*port);
    let ip = if let Ok(octets) = <[u8; 4]>::try_from(host)
        && sort == ADDRESS_V4
    {
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    } else if let Ok(octets) = <[u8; 16]>::try_from(host)
        && sort == ADDRESS_V6
    {
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    } else {
        None
    };
    let target = match ip {
        Some(ip) => Target::Address(SocketAddr::new(ip, port)),
        // The first byte is the length.
        None => named(&host[1..], port)?,
    };
    Ok((target, length))
}

fn named(host: &[u8], port: u16) -> Result<Target, Fault> {
    let host = str::from_utf8(host).map_err(|_| Fault::Malformed)?;
    if let Ok(ip) = host.parse() {
        return Ok(Target::Address(SocketAddr::new(ip, port)));
    }
    if !is_host_name(host) {
        return Err(Fault::Malformed);
    }
    Ok(Target::Name { host: host.to_owned(), port })
}

/// Bytes of an address with its sort and port, by its first two.
fn target_length(sort: u8, first: u8) -> Option<usize> {
    match sort {
        ADDRESS_V4 => Some(1 + 4 + 2),
        ADDRESS_V6 => Some(1 + 16 + 2),
        ADDRESS_NAME => Some(1 + 1 + usize::from(first) + 2),
        _ => None,
    }
}

/// The answer to methods.
pub(super) fn method(method: Option<u8>) -> [u8; 2] {
    [VERSION, method.unwrap_or(METHOD_UNACCEPTABLE)]
}

/// The answer to a login.
pub(super) fn status(known: bool) -> [u8; 2] {
    [LOGIN_VERSION, u8::from(!known)]
}

/// The answer to a request, with the address that it got.
pub(super) fn reply(code: u8, bound: SocketAddr) -> Vec<u8> {
    let mut reply = vec![VERSION, code, 0];
    match bound.ip() {
        IpAddr::V4(ip) => {
            reply.push(ADDRESS_V4);
            reply.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            reply.push(ADDRESS_V6);
            reply.extend_from_slice(&ip.octets());
        }
    }
    reply.extend_from_slice(&bound.port().to_be_bytes());
    reply
}

/// How a refusal is told.
pub(super) const fn code(reason: Refusal) -> u8 {
    match reason {
        Refusal::NotAllowed | Refusal::Untrusted | Refusal::SocksCredentials | Refusal::Limited => {
            NOT_ALLOWED
        }
        Refusal::NoRelay
        | Refusal::Unreachable
        | Refusal::TargetUnresolved
        | Refusal::TargetTimedOut => HOST_UNREACHABLE,
        Refusal::Declined | Refusal::Unlisted | Refusal::TargetRefused => REFUSED,
        Refusal::SocksCommand => COMMAND_NOT_SUPPORTED,
        Refusal::Full
        | Refusal::TooFast
        | Refusal::ProxyHeader
        | Refusal::SocksMalformed
        | Refusal::SocksTimedOut
        | Refusal::UnknownPolicy
        | Refusal::ClientLeft
        | Refusal::Stopping => GENERAL_FAILURE,
    }
}

/// A byte that says how many follow, and those.
async fn read_counted(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Fault> {
    let mut bytes = vec![0; usize::from(read_byte(from).await?)];
    read_exact(from, &mut bytes).await?;
    Ok(bytes)
}

async fn read_byte(from: &mut (impl AsyncRead + Unpin)) -> Result<u8, Fault> {
    from.read_u8().await.map_err(|_| Fault::Left)
}

async fn read_exact(from: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> Result<(), Fault> {
    from.read_exact(bytes).await.map(drop).map_err(|_| Fault::Left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    fn named(name: &str) -> Vec<u8> {
        let length = u8::try_from(name.len()).unwrap();
        [&[ADDRESS_NAME, length], name.as_bytes(), &[0, 80]].concat()
    }

    async fn request(bytes: &[u8]) -> Result<Request, Fault> {
        read_request(&mut &*bytes).await
    }

    #[tokio::test]
    async fn requests_have_addresses_of_three_sorts() {
        let v4 = [5, 1, 0, 1, 192, 0, 2, 1, 0, 80];
        let command = Command::Connect;
        let destination = target("192.0.2.1:80");
        assert_eq!(request(&v4).await, Ok(Request { command, destination }));

        let mut v6 = vec![5, 3, 0, 4];
        v6.extend_from_slice(&Ipv6Addr::LOCALHOST.octets());
        v6.extend_from_slice(&[0, 0]);
        let command = Command::Associate;
        let destination = Target::Address(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
        assert_eq!(request(&v6).await, Ok(Request { command, destination }));

        let name = [&[5, 1, 0][..], &named("web.overway")].concat();
        let command = Command::Connect;
        let destination = target("web.overway:80");
        assert_eq!(request(&name).await, Ok(Request { command, destination }));
        let literal = [&[5, 1, 0][..], &named("192.0.2.1")].concat();
        assert_eq!(request(&literal).await.unwrap().destination, target("192.0.2.1:80"));
    }

    #[tokio::test]
    async fn what_is_cut_short_or_makes_no_sense_is_refused() {
        let good = [&[5, 1, 0][..], &named("web.overway")].concat();
        for cut in 0..good.len() {
            assert_eq!(request(&good[..cut]).await, Err(Fault::Left), "{cut}");
        }
        assert_eq!(request(b"\x04\x01\x00\x50\xc0\x00\x02\x01\x00").await, Err(Fault::Malformed));
        assert_eq!(request(&[5, 1, 0, 2, 0, 0, 0]).await, Err(Fault::AddressType));
        for name in ["", "-.-", "a b", "a\0b", "300.0.0.1"] {
            let bytes = [&[5, 1, 0][..], &named(name)].concat();
            assert_eq!(request(&bytes).await, Err(Fault::Malformed), "{name:?}");
        }
        let bind = [5, 2, 0, 1, 192, 0, 2, 1, 0, 80];
        assert_eq!(request(&bind).await, Err(Fault::Command));
        assert_eq!(read_methods(&mut &b"GET / HTTP/1.1\r\n"[..]).await, Err(Fault::Malformed));
        assert_eq!(read_methods(&mut &[5, 2, 0, 2][..]).await, Ok(vec![0, 2]));
    }

    #[tokio::test]
    async fn credentials_are_two_counted_texts() {
        let mut bytes = &b"\x01\x05alice\x06secret"[..];
        let (name, password) = read_credentials(&mut bytes).await.unwrap();
        assert_eq!((&*name, &*password), (&b"alice"[..], &b"secret"[..]));
        assert_eq!(read_credentials(&mut &b"\x05\x05alice"[..]).await, Err(Fault::Malformed));
    }

    #[test]
    fn a_datagrams_header_is_told_from_its_data_and_fragments_are_refused() {
        let header = [&[0, 0, 0][..], &named("dns.overway")].concat();
        let datagram = [&*header, b"question"].concat();

        let (destination, length) = parse_datagram(&datagram).unwrap();

        assert_eq!((destination, length), (target("dns.overway:80"), header.len()));
        let mut fragment = datagram;
        fragment[2] = 1;
        assert_eq!(parse_datagram(&fragment), Err(Fault::Malformed));
        for cut in 0..header.len() {
            assert!(parse_datagram(&header[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn replies_are_as_the_rfc_writes_them() {
        let v4 = reply(SUCCEEDED, "192.0.2.1:4660".parse().unwrap());
        assert_eq!(v4, [5, 0, 0, 1, 192, 0, 2, 1, 0x12, 0x34]);
        let v6 = reply(code(Refusal::NotAllowed), "[::1]:80".parse().unwrap());
        assert_eq!((v6.len(), &v6[..4]), (22, &[5, 2, 0, 4][..]));
        assert_eq!(method(None), [5, 0xff]);
        assert_eq!((status(true), status(false)), ([1, 0], [1, 1]));
    }

    proptest! {
        #[test]
        fn whatever_bytes_come_a_datagrams_header_is_within_them(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            sort in prop::sample::select(vec![ADDRESS_V4, ADDRESS_NAME, ADDRESS_V6, 9]),
        ) {
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&[0, 0, 0, sort]);
            }
            if let Ok((_, length)) = parse_datagram(&bytes) {
                prop_assert!((10..=bytes.len()).contains(&length) || sort == ADDRESS_NAME);
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
