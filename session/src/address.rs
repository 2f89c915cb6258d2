//! Synthetic addresses: what quinn takes for the far end's UDP address.
//!
//! One for each (far relay, attachment, class, policy, redundancy), in IPv6's range for private use, and constant for ever:
//! whatever path the frames take, QUIC sees no migration. They never leave the process. For an edge the relay is 0, and
//! the attachment the number of its name (see [`names`](crate::names)).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use overway_wire::{Address, AttachmentId, Class, PolicyId, Redundancy, RelayId};

use crate::Terms;

/// `fd` is IPv6's unique local range; the rest spells "overway" as far as three segments reach.
const PREFIX: [u16; 3] = [0xfd6f, 0x7665, 0x7277];
/// QUIC wants a port other than zero; the number means nothing.
const PORT: u16 = 443;

/// The synthetic address of a far end on these terms.
pub(crate) fn to_socket(address: Address, terms: Terms) -> SocketAddr {
    let [a, b, c] = PREFIX;
    let redundancy = u8::try_from(terms.redundancy.code()).expect("there are three modes");
    let (policy, manner) = (terms.policy.0, u16::from_be_bytes([redundancy, terms.class.code()]));
    let ip = Ipv6Addr::new(a, b, c, policy, manner, address.relay.0, address.attachment.0, 1);
    SocketAddr::new(ip.into(), PORT)
}

/// The far end and terms that a synthetic address stands for, or `None` for any other address.
pub(crate) fn from_socket(socket: SocketAddr) -> Option<(Address, Terms)> {
    let IpAddr::V6(ip) = socket.ip() else { return None };
    let [a, b, c, policy, manner, relay, attachment, 1] = ip.segments() else { return None };
    if [a, b, c] != PREFIX || socket.port() != PORT {
        return None;
    }
    let [redundancy, class] = manner.to_be_bytes();
    let class = Class::from_code(class)?;
    let redundancy = Redundancy::from_code(redundancy.into());
    let terms = Terms { class, policy: PolicyId(policy), redundancy };
    Some((Address::new(RelayId(relay), AttachmentId(attachment)), terms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synthetic_address_comes_back_as_end_and_terms() {
        for class in Class::ALL {
            for (policy, redundancy) in [0, 7, u16::MAX].into_iter().zip(Redundancy::ALL) {
                let terms = Terms { class, policy: PolicyId(policy), redundancy };
                let address = Address::new(RelayId(0xfffe), AttachmentId::GATEWAY);
                assert_eq!(from_socket(to_socket(address, terms)), Some((address, terms)));
            }
        }
    }

    #[test]
    fn other_addresses_stand_for_nobody() {
        for text in ["127.0.0.1:443", "[::1]:443", "[fd6f:7665:7277:0:3:1:1:1]:443"] {
            assert_eq!(from_socket(text.parse().unwrap()), None, "{text}");
        }
    }
}
