//! Services of tenants: what relays are offered by edges, and what all relays are told of it.

use prost::Message;

use crate::{Address, AttachmentId, RelayId};

/// Offers of one relay; the rest is not read. They stay below half a megabyte.
pub const OFFERS_MAX: usize = 4_096;
/// Bytes of a service's name, at least one.
pub const SERVICE_NAME_BYTES_MAX: usize = 64;
/// Endpoints of a service; further ones are not pushed, and not read.
pub const SERVICE_ENDPOINTS_MAX: usize = 64;
/// Bytes of an edge's id: a SHA-256 thumbprint (RFC 7638) of its key.
pub const EDGE_ID_BYTES: usize = 32;

/// What the edges that are attached to a relay offer now: all of it, in place of what was said before.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Offers {
    /// At most [`OFFERS_MAX`], of an edge one for each service.
    #[prost(message, repeated, tag = "1")]
    pub offers: Vec<Offer>,
}

/// That an edge offers a service.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Offer {
    /// The number of the edge's tenant; never 0.
    #[prost(uint32, tag = "1")]
    pub tenant: u32,
    /// The service's name.
    #[prost(string, tag = "2")]
    pub service: String,
    /// The edge's id, [`EDGE_ID_BYTES`] long.
    #[prost(bytes = "vec", tag = "3")]
    pub edge: Vec<u8>,
    /// Its attachment at the relay that says so.
    #[prost(uint32, tag = "4")]
    pub attachment: u32,
    /// Its address at another relay, if it says that it has one.
    #[prost(message, optional, tag = "5")]
    pub other: Option<Place>,
    /// Whether the other address is the one at which it would rather be reached.
    #[prost(bool, tag = "6")]
    pub second: bool,
    /// The lower goes first.
    #[prost(uint32, tag = "7")]
    pub priority: u32,
    /// Its share among those of its priority that are about as near; 0: only where no other is.
    #[prost(uint32, tag = "8")]
    pub weight: u32,
    /// Whether the edge takes new sessions for it.
    #[prost(bool, tag = "9")]
    pub healthy: bool,
}

/// Where an end is attached.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Place {
    /// The access relay.
    #[prost(uint32, tag = "1")]
    pub relay: u32,
    /// The end attached to it.
    #[prost(uint32, tag = "2")]
    pub attachment: u32,
}

/// A tenant's service and who offers it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TenantService {
    /// The tenant's number; never 0.
    #[prost(uint32, tag = "1")]
    pub tenant: u32,
    /// The service's name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// In order of the edges' ids; at most [`SERVICE_ENDPOINTS_MAX`].
    #[prost(message, repeated, tag = "3")]
    pub endpoints: Vec<Endpoint>,
}

/// An edge that offers a service.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Endpoint {
    /// The edge's id, [`EDGE_ID_BYTES`] long.
    #[prost(bytes = "vec", tag = "1")]
    pub edge: Vec<u8>,
    /// Its address.
    #[prost(message, optional, tag = "2")]
    pub first: Option<Place>,
    /// Its other address, at another relay, if it has one.
    #[prost(message, optional, tag = "3")]
    pub second: Option<Place>,
    /// As [`Offer::priority`].
    #[prost(uint32, tag = "4")]
    pub priority: u32,
    /// As [`Offer::weight`].
    #[prost(uint32, tag = "5")]
    pub weight: u32,
    /// As [`Offer::healthy`].
    #[prost(bool, tag = "6")]
    pub healthy: bool,
}

impl Place {
    /// The address, or `None` if there can be no such end: of no relay, or the relay itself.
    pub fn address(self) -> Option<Address> {
        let relay = u16::try_from(self.relay).ok().filter(|&relay| relay != 0)?;
        let attachment = AttachmentId(u16::try_from(self.attachment).ok()?);
        (attachment != AttachmentId::RELAY).then(|| Address::new(RelayId(relay), attachment))
    }
}

impl From<Address> for Place {
    fn from(address: Address) -> Self {
        Self { relay: address.relay.0.into(), attachment: address.attachment.0.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Item, Sort, ToScheduler};

    #[test]
    fn offers_have_these_bytes() {
        let offer = Offer {
            tenant: 300,
            service: "im".into(),
            edge: vec![7; 2],
            attachment: 5,
            other: Some(Place { relay: 3, attachment: 4 }),
            second: true,
            priority: 1,
            weight: 2,
            healthy: true,
        };

        let bytes = ToScheduler::from(Offers { offers: vec![offer] }).encode_to_vec();

        let parts: [&[u8]; 4] = [
            &[0x32, 29, 0x0a, 27, 0x08, 0xac, 2, 0x12, 2, b'i', b'm', 0x1a, 2, 7, 7],
            &[0x20, 5, 0x2a, 4, 0x08, 3, 0x10, 4],
            &[0x30, 1, 0x38, 1, 0x40, 2],
            &[0x48, 1],
        ];
        assert_eq!(bytes, parts.concat());
        assert_eq!(ToScheduler::from(Offers::default()).encode_to_vec(), [0x32, 0]);
    }

    #[test]
    fn a_tenants_service_has_these_bytes_and_a_key_of_its_own() {
        let endpoint = Endpoint {
            edge: vec![7],
            first: Some(Place { relay: 3, attachment: 4 }),
            second: Some(Place { relay: 2, attachment: 9 }),
            priority: 1,
            weight: 2,
            healthy: true,
        };
        let service = TenantService { tenant: 300, name: "im".into(), endpoints: vec![endpoint] };
        let item = Item::from(service);

        let parts: [&[u8]; 3] = [
            &[0x42, 30, 0x08, 0xac, 2, 0x12, 2, b'i', b'm', 0x1a, 21],
            &[0x0a, 1, 7, 0x12, 4, 0x08, 3, 0x10, 4, 0x1a, 4, 0x08, 2, 0x10, 9],
            &[0x20, 1, 0x28, 2, 0x30, 1],
        ];
        assert_eq!(item.encode_to_vec(), parts.concat());
        let key = item.key().unwrap();
        assert_eq!(
            (key.sort(), key.relay, key.part, &*key.name),
            (Sort::TenantService, 300, 0, "im")
        );
        assert_eq!(key.encode_to_vec(), [0x08, 8, 0x10, 0xac, 2, 0x22, 2, b'i', b'm']);
    }

    #[test]
    fn an_end_is_attached_to_a_relay_and_is_not_the_relay() {
        let place = |relay, attachment| Place { relay, attachment }.address();

        let address = Address::new(RelayId(3), AttachmentId(4));
        assert_eq!(place(3, 4), Some(address));
        assert_eq!(Place::from(address).address(), Some(address));
        assert_eq!([place(0, 4), place(3, 0), place(65_536, 4), place(3, 65_536)], [None; 4]);
    }
}
