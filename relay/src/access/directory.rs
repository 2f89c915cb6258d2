//! Services as the whole mesh offers them: what this relay's edges offer is told to the scheduler, and what the scheduler
//! has pushed is resolved.
//!
//! What this relay knows itself counts more than what was pushed: an edge of its own that offers no more is left out at
//! once, and one that nobody has told of yet comes after those that were. Without a scheduler the last pushed state
//! counts, and so do the relay's own edges. At a relay that is only a partner of a tenant's cell, what its own edges offer
//! counts where nobody in the cell does.

use std::fmt;
use std::sync::Arc;

use overway_relay_core::{CellStanding, Fib, FibEndpoint};
use overway_tenant::EdgeId;
use overway_wire::access::messages::OfferedService;
use overway_wire::control::{OFFERS_MAX, Offer, Offers};
use overway_wire::{Address, AttachmentId, Class, PolicyId, RelayId, Whereabouts};
use tokio::sync::watch;

use super::services::{Directory, Offering, OwnEdges};

/// The directory of a relay in a mesh.
pub struct MeshDirectory {
    local: RelayId,
    own: OwnEdges,
    fib: watch::Receiver<Arc<Fib>>,
    told: watch::Sender<Offers>,
}

impl MeshDirectory {
    /// The directory of this relay, by its table; what its edges offer is put into `told`.
    pub const fn new(
        local: RelayId,
        fib: watch::Receiver<Arc<Fib>>,
        told: watch::Sender<Offers>,
    ) -> Self {
        Self { local, own: OwnEdges::new(local), fib, told }
    }

    /// As many of all that is offered here as the scheduler is told of.
    fn first_offers(&self) -> Vec<Offer> {
        let mut offers = Vec::new();
        self.own.each(|attachment, tenant, edge, service| {
            if offers.len() < OFFERS_MAX {
                offers.push(offer(attachment, tenant, edge, service));
            }
        });
        offers
    }

    /// The endpoint without the address of an edge of this relay that offers the service no more.
    fn standing(&self, endpoint: &FibEndpoint, own: &[Offering]) -> Option<Offering> {
        let edge = EdgeId(endpoint.edge);
        let stands = |address: &Address| {
            address.relay != self.local || own.iter().any(|offering| offering.first == *address)
        };
        let Whereabouts { first, second } = endpoint.whereabouts;
        let mut addresses = [Some(first), second].into_iter().flatten().filter(stands);
        let (first, second) = (addresses.next()?, addresses.next());
        let (partner, unhealthy) = (endpoint.partner, !endpoint.healthy);
        Some(Offering { edge, first, second, partner, unhealthy })
    }
}

impl Directory for MeshDirectory {
    fn offered(
        &self,
        attachment: AttachmentId,
        tenant: PolicyId,
        edge: EdgeId,
        services: &[OfferedService],
    ) {
        self.own.offered(attachment, tenant, edge, services);
        let new: Vec<Offer> =
            services.iter().map(|service| offer(attachment, tenant, edge, service)).collect();
        self.told.send_if_modified(|Offers { offers }| {
            // They are in order of attachments. Only this one's are made anew: edges come by the thousand.
            let number = u32::from(attachment.0);
            let start = offers.partition_point(|offer| offer.attachment < number);
            let end = offers.partition_point(|offer| offer.attachment <= number);
            let changed = offers[start..end] != new;
            let was_full = offers.len() >= OFFERS_MAX;
            if changed {
                offers.splice(start..end, new);
            }
            if was_full || offers.len() > OFFERS_MAX {
                *offers = self.first_offers();
            }
            changed || was_full
        });
    }

    fn resolve(
        &self,
        tenant: PolicyId,
        service: &str,
        class: Class,
        asker: AttachmentId,
    ) -> Vec<Offering> {
        let own = self.own.all(tenant, service);
        let fib = Arc::clone(&self.fib.borrow());
        let pushed = fib.endpoints(tenant, service, class, self.local, asker.0.into());
        let mut found: Vec<Offering> =
            pushed.iter().filter_map(|endpoint| self.standing(endpoint, &own)).collect();
        let partner = match fib.standing_of(tenant, self.local) {
            CellStanding::Own => false,
            CellStanding::Partner if found.iter().all(|known| known.partner) => true,
            CellStanding::Partner | CellStanding::Reserve | CellStanding::Outside => return found,
        };
        for offering in self.own.resolve(tenant, service, class, asker) {
            let offering = Offering { partner, ..offering };
            if found.iter().all(|known| known.edge != offering.edge) {
                found.push(offering);
            }
        }
        found
    }
}

fn offer(
    attachment: AttachmentId,
    tenant: PolicyId,
    edge: EdgeId,
    service: &OfferedService,
) -> Offer {
    let OfferedService { name, priority, weight, unhealthy } = service;
    Offer {
        tenant: tenant.0.into(),
        service: name.clone(),
        edge: edge.0.to_vec(),
        attachment: attachment.0.into(),
        other: None,
        second: false,
        priority: *priority,
        weight: (*weight).max(1),
        healthy: !unhealthy,
    }
}

impl fmt::Debug for MeshDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshDirectory").field("local", &self.local).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use overway_relay_core::pushed::{Changed, Pushed};
    use overway_wire::control::{Endpoint, Item, Place, Tenant, TenantService, Update};

    use super::*;

    const LOCAL: RelayId = RelayId(5);
    const TENANT: PolicyId = PolicyId(20);

    /// A table with a tenant's service at these endpoints: of each edge its addresses.
    fn fib(edges: &[(u8, &[(u32, u32)])]) -> Arc<Fib> {
        let place = |&(relay, attachment): &(u32, u32)| Place { relay, attachment };
        let endpoint = |&(edge, places): &(u8, &[(u32, u32)])| Endpoint {
            edge: vec![edge; 32],
            first: places.first().map(place),
            second: places.get(1).map(place),
            priority: 1,
            weight: 1,
            healthy: true,
        };
        let endpoints = edges.iter().map(endpoint).collect();
        let put: Vec<Item> = vec![
            Tenant { number: 20, name: "im".into(), ..Tenant::default() }.into(),
            TenantService { tenant: 20, name: "chat".into(), endpoints }.into(),
        ];
        let mut pushed = Pushed::default();
        pushed.apply(Update { revision: 1, put, ..Update::default() }).unwrap();
        Arc::new(Fib::default().updated(&pushed, &Changed::Everything, LOCAL))
    }

    fn service(name: &str) -> OfferedService {
        OfferedService { name: name.into(), priority: 0, weight: 0, unhealthy: false }
    }

    fn found(directory: &MeshDirectory) -> Vec<(u8, u16, Option<u16>)> {
        let found = directory.resolve(TENANT, "chat", Class::Interactive, AttachmentId(9));
        let relays =
            |it: &Offering| (it.edge.0[0], it.first.relay.0, it.second.map(|at| at.relay.0));
        found.iter().map(relays).collect()
    }

    #[test]
    fn an_edge_of_this_relay_that_offers_no_more_is_left_out_before_the_scheduler_knows() {
        let pushed = fib(&[(1, &[(5, 7), (6, 2)]), (2, &[(5, 8)])]);
        let (told, offers) = watch::channel(Offers::default());
        let directory = MeshDirectory::new(LOCAL, watch::channel(pushed).1, told);
        let edges = [(7, 1), (8, 2)].map(|(at, id)| (AttachmentId(at), EdgeId([id; 32])));
        for (attachment, edge) in edges {
            directory.offered(attachment, TENANT, edge, &[service("chat")]);
        }
        assert_eq!(offers.borrow().offers.len(), 2);
        assert_eq!(offers.borrow().offers[0].weight, 1);
        let mut all = found(&directory);
        all.sort_unstable();
        assert_eq!(all, [(1, 5, Some(6)), (2, 5, None)]);

        for (attachment, edge) in edges {
            directory.offered(attachment, TENANT, edge, &[]);
        }
        assert_eq!(found(&directory), [(1, 6, None)]);
        assert!(offers.borrow().offers.is_empty());
    }

    #[test]
    fn the_scheduler_is_told_of_each_edges_offers_in_order_and_of_so_many_at_most() {
        let (told, mut offers) = watch::channel(Offers::default());
        let directory = MeshDirectory::new(LOCAL, watch::channel(fib(&[])).1, told);
        let offer = |at: u16, names: &[&str]| {
            let services: Vec<_> = names.iter().map(|name| service(name)).collect();
            directory.offered(AttachmentId(at), TENANT, EdgeId([1; 32]), &services);
        };
        let told = |offers: &mut watch::Receiver<Offers>| {
            assert!(offers.has_changed().unwrap());
            let offers = &offers.borrow_and_update().offers;
            offers.iter().map(|it| (it.attachment, it.service.clone())).collect::<Vec<_>>()
        };
        let pair = |at, name: &str| (at, name.to_owned());

        offer(9, &["web"]);
        offer(7, &["chat", "web"]);
        assert_eq!(told(&mut offers), [pair(7, "chat"), pair(7, "web"), pair(9, "web")]);
        offer(7, &["web"]);
        assert_eq!(told(&mut offers), [pair(7, "web"), pair(9, "web")]);
        offer(7, &["web"]);
        assert!(!offers.has_changed().unwrap(), "nothing new");

        let names: Vec<String> = (0..64).map(|name| format!("s{name}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let full = 10..10 + u16::try_from(OFFERS_MAX / 64).unwrap();
        full.for_each(|at| offer(at, &names));
        assert_eq!(offers.borrow_and_update().offers.len(), OFFERS_MAX);
        offer(7, &[]);
        offer(9, &[]);
        let told = offers.borrow_and_update();
        assert_eq!(
            (told.offers.len(), told.offers[0].attachment),
            (OFFERS_MAX, 10),
            "room is used"
        );
    }

    #[test]
    fn an_edge_of_this_relay_is_found_before_the_scheduler_tells_of_it() {
        let (told, _offers) = watch::channel(Offers::default());
        let directory = MeshDirectory::new(LOCAL, watch::channel(fib(&[(2, &[(6, 8)])])).1, told);
        directory.offered(AttachmentId(7), TENANT, EdgeId([1; 32]), &[service("chat")]);
        assert_eq!(found(&directory), [(2, 6, None), (1, 5, None)]);
    }
}
