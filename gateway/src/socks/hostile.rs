//! What bytes of strangers a SOCKS listener reads; see [`crate::hostile`].

use super::message::{
    Fault, Request, parse_datagram, read_credentials, read_methods, read_request,
};
use crate::hostile::ready;
use crate::target::Target;

/// The longest of the messages: a name and a password with their lengths.
const MESSAGE_BYTES_MAX: usize = 3 + 2 * 255;

/// Whatever is read of a SOCKS client, from its stream or of its datagram, lies within the bytes, and no more of them is
/// taken than a message has; where a client wants to go to is an address or the name of a host.
///
/// # Panics
/// If that does not hold.
pub fn socks(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let methods = ready(read_methods(&mut rest));
    if let Ok(methods) = &methods {
        assert_eq!(bytes.len() - rest.len(), 2 + methods.len());
    }
    let mut rest = bytes;
    let credentials = ready(read_credentials(&mut rest));
    if let Ok((name, password)) = &credentials {
        assert_eq!(bytes.len() - rest.len(), 3 + name.len() + password.len());
    }
    let mut rest = bytes;
    let request = ready(read_request(&mut rest));
    assert!(bytes.len() - rest.len() <= MESSAGE_BYTES_MAX);
    match &request {
        Ok(Request { destination, .. }) => check(destination),
        // A client that could be answered has been read to the end of its request.
        Err(Fault::Command) => assert!(bytes.len() - rest.len() >= 7),
        Err(Fault::Left | Fault::Malformed | Fault::AddressType) => {}
    }
    let datagram = parse_datagram(bytes);
    if let Ok((destination, length)) = &datagram {
        assert!((7..=bytes.len()).contains(length));
        check(destination);
    }
    methods.is_ok() || credentials.is_ok() || request.is_ok() || datagram.is_ok()
}

fn check(target: &Target) {
    match target {
        Target::Address(_) | Target::Name { port: 0, .. } => {}
        Target::Name { host, .. } => {
            assert!(host.len() <= 255 && host.parse::<std::net::IpAddr>().is_err());
            assert_eq!(target.to_string().parse::<Target>().as_ref(), Ok(target), "{target:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_message_of_the_protocol_is_read() {
        let messages: [&[u8]; 6] = [
            &[5, 2, 0, 2],
            b"\x01\x05alice\x06secret",
            &[5, 1, 0, 1, 192, 0, 2, 1, 0, 80],
            b"\x05\x03\x00\x03\x0bweb.overway\x00\x50",
            &[5, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80],
            b"\x00\x00\x00\x03\x0bdns.overway\x00\x35question",
        ];
        for message in messages {
            assert!(socks(message), "{message:?}");
        }
        assert!(!socks(b"GET / HTTP/1.1\r\n\r\n"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn messages_hold_whatever_is_in_them(
            front in prop::sample::select(vec![
                &[5_u8, 1, 0, 3][..], &[5, 3, 0, 1], &[5, 1, 0, 4], &[0, 0, 0, 3], &[0, 0, 0, 1], &[1], &[5],
            ]),
            host in "[a-zA-Z0-9.:_-]{0,260}",
            counted in any::<bool>(),
            rest in prop::collection::vec(any::<u8>(), 0..30),
        ) {
            let mut bytes = front.to_vec();
            if counted {
                bytes.push(u8::try_from(host.len()).unwrap_or(u8::MAX));
            }
            bytes.extend(host.bytes());
            bytes.extend(rest);
            socks(&bytes);
        }
    }
}
