//! How an end tells another from where its connection comes ([`ALPN_SEEN`](crate::ALPN_SEEN)): it closes the connection
//! after the handshake, with code 0, and the reason is the address. Nothing is read, kept or opened for it.

use std::net::SocketAddr;

/// The code with which such a connection is closed.
pub const SEEN_CODE: u32 = 0;

/// The reason that tells an address: `IP:PORT`, of an IPv4 address never the form that is mapped into IPv6.
pub fn seen_reason(address: SocketAddr) -> String {
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}

/// The address that a reason tells; `None` if it tells none.
pub fn seen_address(reason: &[u8]) -> Option<SocketAddr> {
    std::str::from_utf8(reason).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_told_in_its_own_form() {
        for (address, told) in [
            ("203.0.113.5:7", "203.0.113.5:7"),
            ("[::ffff:203.0.113.5]:7", "203.0.113.5:7"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
        ] {
            assert_eq!(seen_reason(address.parse().unwrap()), told);
            assert_eq!(seen_address(told.as_bytes()), Some(told.parse().unwrap()));
        }
        for wrong in ["", "done", "203.0.113.5", "rome:7", "203.0.113.5:70000"] {
            assert_eq!(seen_address(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_told_nothing_panics(reason: Vec<u8>) {
            let _ = seen_address(&reason);
        }
    }
}
