//! Which services the edges offer, and where services are.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use overway_tenant::EdgeId;
use overway_wire::access::messages::{ENDPOINTS_MAX, Endpoint, OfferedService};
use overway_wire::{Address, AttachmentId, Class, PolicyId, RelayId};

/// An end of a tenant's service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offering {
    /// Who offers it.
    pub edge: EdgeId,
    /// Where it is attached.
    pub first: Address,
    /// Where else.
    pub second: Option<Address>,
    /// Whether it is in a partner of the tenant's cell, and not in the cell.
    pub partner: bool,
    /// Whether it is unwell.
    pub unhealthy: bool,
}

/// Knows services: those that edges of this relay offer, and whatever the scheduler tells of others.
pub trait Directory: Send + Sync + 'static {
    /// These are all the services that an edge of this relay offers now; none when it leaves.
    fn offered(
        &self,
        attachment: AttachmentId,
        tenant: PolicyId,
        edge: EdgeId,
        services: &[OfferedService],
    );

    /// Who offers a tenant's service, the best first. Of those that are as good, each asker has another first.
    fn resolve(
        &self,
        tenant: PolicyId,
        service: &str,
        class: Class,
        asker: AttachmentId,
    ) -> Vec<Offering>;
}

/// The directory of a relay that hears of no other: its own edges.
#[derive(Debug)]
pub struct OwnEdges {
    local: RelayId,
    /// Bounded by the attachments of a relay, and the offers of each.
    offers: Mutex<BTreeMap<AttachmentId, Offers>>,
}

#[derive(Debug)]
struct Offers {
    tenant: PolicyId,
    edge: EdgeId,
    services: Vec<OfferedService>,
}

impl OwnEdges {
    /// The directory of this relay.
    pub const fn new(local: RelayId) -> Self {
        Self { local, offers: Mutex::new(BTreeMap::new()) }
    }

    /// Shows each service that an edge offers, in order of attachments.
    pub(super) fn each(
        &self,
        mut show: impl FnMut(AttachmentId, PolicyId, EdgeId, &OfferedService),
    ) {
        for (&attachment, Offers { tenant, edge, services }) in &*self.offers() {
            services.iter().for_each(|service| show(attachment, *tenant, *edge, service));
        }
    }

    /// Who offers a tenant's service here, well or not.
    pub(super) fn all(&self, tenant: PolicyId, service: &str) -> Vec<Offering> {
        let mut found = Vec::new();
        self.each(|attachment, of, edge, offered| {
            if of == tenant && offered.name == service {
                let first = Address::new(self.local, attachment);
                let (partner, unhealthy) = (false, offered.unhealthy);
                found.push(Offering { edge, first, second: None, partner, unhealthy });
            }
        });
        found
    }

    fn offers(&self) -> MutexGuard<'_, BTreeMap<AttachmentId, Offers>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory for OwnEdges {
    fn offered(
        &self,
        attachment: AttachmentId,
        tenant: PolicyId,
        edge: EdgeId,
        services: &[OfferedService],
    ) {
        let mut offers = self.offers();
        if services.is_empty() {
            offers.remove(&attachment);
        } else {
            offers.insert(attachment, Offers { tenant, edge, services: services.to_vec() });
        }
    }

    /// Healthy ones by priority, then by weight.
    fn resolve(
        &self,
        tenant: PolicyId,
        service: &str,
        _class: Class,
        _asker: AttachmentId,
    ) -> Vec<Offering> {
        let offers = self.offers();
        let mut found = Vec::new();
        for (&attachment, offer) in offers.iter().filter(|(_, offer)| offer.tenant == tenant) {
            let named = offer.services.iter().find(|named| named.name == service);
            let Some(named) = named.filter(|named| !named.unhealthy) else { continue };
            let first = Address::new(self.local, attachment);
            let rank = (named.priority, u32::MAX - named.weight.max(1));
            let (edge, partner, unhealthy) = (offer.edge, false, false);
            found.push((rank, Offering { edge, first, second: None, partner, unhealthy }));
        }
        found.sort_unstable();
        found.into_iter().map(|(_, offering)| offering).collect()
    }
}

/// Offerings as they are told to an edge.
pub(crate) fn endpoints(offerings: Vec<Offering>) -> Vec<Endpoint> {
    let packed =
        |address: Address| u32::from(address.relay.0) << 16 | u32::from(address.attachment.0);
    let endpoint = |Offering { edge, first, second, partner, unhealthy }: Offering| Endpoint {
        unhealthy,
        edge: edge.0.to_vec(),
        first: packed(first),
        second: second.map_or(0, packed),
        partner,
    };
    offerings.into_iter().take(ENDPOINTS_MAX).map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, priority: u32, weight: u32) -> OfferedService {
        OfferedService { name: name.into(), priority, weight, unhealthy: false }
    }

    #[test]
    fn a_service_is_found_by_priority_and_weight_where_it_is_well() {
        let directory = OwnEdges::new(RelayId(5));
        let offer = |id, tenant, services: &[OfferedService]| {
            let edge = EdgeId([u8::try_from(id).unwrap(); 32]);
            directory.offered(AttachmentId(id), PolicyId(tenant), edge, services);
        };
        offer(2, 1, &[service("chat", 1, 0), service("mail", 0, 0)]);
        offer(3, 1, &[service("chat", 0, 1)]);
        offer(4, 1, &[service("chat", 0, 9)]);
        offer(6, 1, &[OfferedService { unhealthy: true, ..service("chat", 0, 99) }]);
        offer(7, 2, &[service("chat", 0, 99)]);
        let found = |service| {
            let found =
                directory.resolve(PolicyId(1), service, Class::Interactive, AttachmentId(9));
            found.iter().map(|offering| offering.first.attachment.0).collect::<Vec<_>>()
        };

        assert_eq!(found("chat"), [4, 3, 2]);
        assert_eq!(found("mail"), [2]);
        offer(4, 1, &[]);
        assert_eq!(found("chat"), [3, 2]);
        let told = endpoints(directory.resolve(PolicyId(1), "mail", Class::Bulk, AttachmentId(9)));
        assert_eq!(
            told,
            [Endpoint { edge: vec![2; 32], first: 0x0005_0002, ..Endpoint::default() }]
        );
    }
}
