//! Who offers a tenant's service, and which of them an asker is to try first.
//!
//! In a cell: ends of a partner are left out while one of the cell's own is well and reached; otherwise those that are well
//! and reached come first.
//!
//! The order: who takes new sessions before who does not; the lower priority first; ends of this relay before others;
//! then the nearer by the delay of the best path to either of its addresses. Those that are about as near share askers by
//! weight (RFC 2782 means the same by it): each asker draws its own order, and keeps it while they stay.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use overway_wire::control::{
    EDGE_ID_BYTES, Endpoint, Place, SERVICE_ENDPOINTS_MAX, SERVICE_NAME_BYTES_MAX, TenantService,
};
use overway_wire::{Address, Class, PolicyId, RelayId, Whereabouts};

use super::Fib;
use super::reading::policy_id;
use crate::spread::draw_of;

/// Endpoints no farther than this beyond the nearest are about as near: half of what a person hears.
const NEAR: Duration = Duration::from_millis(5);
/// Or no farther than this part of the nearest one's delay.
const NEAR_SHARE: u32 = 8;

/// The endpoints of tenants' services, by tenant and name, in order of the edges' ids.
pub(super) type TenantServices = BTreeMap<PolicyId, BTreeMap<String, Arc<[FibEndpoint]>>>;

/// An edge that offers a tenant's service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FibEndpoint {
    /// The edge's id: what an asker is to find there.
    pub edge: [u8; EDGE_ID_BYTES],
    /// Where it is attached.
    pub whereabouts: Whereabouts,
    /// The lower goes first.
    pub priority: u32,
    /// Its share among those that are about as near; 0: after the others.
    pub weight: u32,
    /// Whether it takes new sessions.
    pub healthy: bool,
    /// Whether it has no address in the tenant's own cell, but in a partner's.
    pub partner: bool,
}

/// What a relay is to a tenant's cell, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CellStanding {
    /// It is of the cell; or there is none.
    Own,
    /// It is of a partner.
    Partner,
    /// It is of a partner, and the cell itself is reached: edges are to attach there.
    Reserve,
    /// It is of neither.
    Outside,
}

/// What an endpoint is ranked by.
#[derive(Clone, Copy, Debug)]
struct Ranked {
    endpoint: FibEndpoint,
    is_local: bool,
    /// Of the best path to it; `MAX` if there is none.
    delay: Duration,
    /// Whether a partner's ends would come before it: it is unwell or not reached, and the tenant has partners.
    is_behind: bool,
    drawn: u64,
}

impl Fib {
    /// Who offers a tenant's service, in the order in which an asker is to try them. Addresses that the tenant's policy
    /// forbids are left out; of two the nearer comes first. Endpoints to which no path is known come last of their
    /// priority. `local` is this relay, `class` that of the sessions to come; `asker` tells askers apart, between whom
    /// near ones are shared.
    pub fn endpoints(
        &self,
        tenant: PolicyId,
        service: &str,
        class: Class,
        local: RelayId,
        asker: u64,
    ) -> Vec<FibEndpoint> {
        let known = self.tenant_services.get(&tenant).and_then(|services| services.get(service));
        let rank = |endpoint: &FibEndpoint| self.rank(endpoint, (tenant, class, local), asker);
        let mut ranked: Vec<Ranked> =
            known.into_iter().flat_map(|known| known.iter()).filter_map(rank).collect();
        if ranked.iter().any(|it| !it.endpoint.partner && !it.is_behind) {
            ranked.retain(|it| !it.endpoint.partner);
        }
        ranked.sort_by_key(|it| (it.standing(), it.delay, it.endpoint.edge));
        let mut rest = &mut ranked[..];
        while let Some(first) = rest.first() {
            let (standing, delay) = (first.standing(), first.delay);
            let most = delay.saturating_add(NEAR.max(delay / NEAR_SHARE));
            let near = rest.iter().take_while(|it| it.standing() == standing && it.delay <= most);
            let (tied, others) = rest.split_at_mut(near.count());
            tied.sort_by(Ranked::by_draw);
            rest = others;
        }
        ranked.into_iter().map(|it| it.endpoint).collect()
    }

    /// Of how many endpoints of a tenant's services this relay was told; an edge counts once for each service.
    pub fn endpoints_told(&self, tenant: PolicyId) -> usize {
        let services = self.tenant_services.get(&tenant).into_iter().flatten();
        services.map(|(_, endpoints)| endpoints.len()).sum()
    }

    fn rank(
        &self,
        endpoint: &FibEndpoint,
        (tenant, class, local): (PolicyId, Class, RelayId),
        asker: u64,
    ) -> Option<Ranked> {
        let delay = |address: Address| match self.route(address.relay, class, tenant).first() {
            _ if address.relay == local => Duration::ZERO,
            Some(path) => path.delay,
            None => Duration::MAX,
        };
        let Whereabouts { first, second } = endpoint.whereabouts;
        let addresses = [Some(first), second].into_iter().flatten();
        let place = |address: Address| (self.standing_of(tenant, address.relay), address);
        let mut addresses: Vec<(CellStanding, Address)> =
            addresses.map(place).filter(|(place, _)| *place != CellStanding::Outside).collect();
        addresses.sort_by_key(|&(place, address)| (place, delay(address)));
        let &(place, first) = addresses.first()?;
        let second = addresses.get(1).map(|&(_, address)| address);
        let (whereabouts, partner) =
            (Whereabouts { first, second }, place == CellStanding::Partner);
        let is_reached = endpoint.healthy && delay(first) != Duration::MAX;
        Some(Ranked {
            endpoint: FibEndpoint { whereabouts, partner, ..*endpoint },
            is_local: first.relay == local,
            delay: delay(first),
            is_behind: !is_reached && self.backup_policy(tenant).is_some(),
            drawn: draw_of(asker, &endpoint.edge),
        })
    }

    /// What a relay is to the cell of a tenant, or to the policy of this number. Of a number that is not known every relay
    /// is outside.
    pub fn standing_of(&self, number: PolicyId, relay: RelayId) -> CellStanding {
        let has = |policy: PolicyId| {
            self.policies.get(&policy).is_some_and(|policy| policy.relays.contains(&relay))
        };
        match self.route_policy(number) {
            None => CellStanding::Outside,
            Some(own) if own == PolicyId::default() || has(own) => CellStanding::Own,
            Some(_) if self.backup_policy(number).is_some_and(has) => CellStanding::Partner,
            Some(_) => CellStanding::Outside,
        }
    }

    /// Whether the edges of a tenant may attach at a relay, as far as its cell is concerned: at any of the cell; at one of
    /// a partner if none of the cell is reached from `local`, the relay that asks. A tenant without a cell may attach
    /// anywhere.
    pub fn may_attach(&self, tenant: PolicyId, relay: RelayId, local: RelayId) -> CellStanding {
        let has_cell = self.tenants.get(&tenant).is_some_and(|it| !it.pushed.cell.is_empty());
        if !has_cell {
            return CellStanding::Own;
        }
        match self.standing_of(tenant, relay) {
            CellStanding::Partner if self.reaches_cell(tenant, local) => CellStanding::Reserve,
            standing => standing,
        }
    }

    /// The relays at which the edges of a tenant are to attach, by the rule of [`Self::may_attach`]: those of its cell, or
    /// that its policy allows; and those of partners that stand in now. `None`: at all. Of a tenant that is not known:
    /// none.
    pub fn attachable(
        &self,
        tenant: PolicyId,
        local: RelayId,
    ) -> Option<(BTreeSet<RelayId>, BTreeSet<RelayId>)> {
        let relays = |policy: PolicyId| {
            self.policies.get(&policy).map(|policy| policy.relays.clone()).unwrap_or_default()
        };
        let Some(own) = self.route_policy(tenant) else {
            return Some((BTreeSet::new(), BTreeSet::new()));
        };
        if own == PolicyId::default() {
            return None;
        }
        let own = relays(own);
        let backup = self.backup_policy(tenant).map(relays).unwrap_or_default();
        let stands_in =
            |&relay: &RelayId| self.may_attach(tenant, relay, local) == CellStanding::Partner;
        // Of partners either all stand in or none does.
        let mut partners = backup.difference(&own).copied();
        let partners = match partners.next().filter(stands_in) {
            Some(first) => std::iter::once(first).chain(partners).collect(),
            None => BTreeSet::new(),
        };
        Some((own, partners))
    }

    /// Whether a path leads from here to a relay of a tenant's own cell, or this is one.
    fn reaches_cell(&self, tenant: PolicyId, local: RelayId) -> bool {
        let own = self.route_policy(tenant).and_then(|own| self.policies.get(&own));
        // A relay of neither the cell nor a partner has no routes of the tenant's.
        let is_outside = self.standing_of(tenant, local) == CellStanding::Outside;
        let routes_of = if is_outside { PolicyId::default() } else { tenant };
        let leads = |relay: RelayId| {
            let class = |class| !self.route(relay, class, routes_of).is_empty();
            relay == local || Class::ALL.into_iter().any(class)
        };
        own.is_some_and(|own| own.relays.iter().any(|&relay| leads(relay)))
    }

    /// A service with more endpoints than there can be has the first of them; an endpoint that makes no sense is none.
    pub(super) fn read_tenant_service(&mut self, service: &TenantService) -> Option<()> {
        let tenant = policy_id(service.tenant)?;
        let fits = (1..=SERVICE_NAME_BYTES_MAX).contains(&service.name.len());
        let endpoints = service.endpoints.iter().take(SERVICE_ENDPOINTS_MAX);
        let endpoints: Arc<[FibEndpoint]> = endpoints.filter_map(read_endpoint).collect();
        if fits {
            let services = self.tenant_services.entry(tenant).or_default();
            services.insert(service.name.clone(), endpoints);
        }
        Some(())
    }

    pub(super) fn forget_tenant_service(&mut self, tenant: u32, name: &str) -> Option<()> {
        let tenant = policy_id(tenant)?;
        let services = self.tenant_services.get_mut(&tenant)?;
        services.remove(name);
        if services.is_empty() {
            self.tenant_services.remove(&tenant);
        }
        Some(())
    }
}

impl Ranked {
    /// Less is better.
    fn standing(&self) -> (bool, bool, u32, bool) {
        (self.is_behind, !self.endpoint.healthy, self.endpoint.priority, !self.is_local)
    }

    /// The least quotient of draw and weight goes first (see [`crate::spread`]); those without a weight last.
    fn by_draw(&self, other: &Self) -> Ordering {
        let (own, its) = (self.endpoint.weight, other.endpoint.weight);
        let quotient = |drawn: u64, weight: u32| u128::from(drawn) * u128::from(weight);
        let drawn = match (own, its) {
            (0, 0) => self.drawn.cmp(&other.drawn),
            (_, 0) => Ordering::Less,
            (0, _) => Ordering::Greater,
            (_, _) => quotient(self.drawn, its).cmp(&quotient(other.drawn, own)),
        };
        drawn.then_with(|| self.endpoint.edge.cmp(&other.endpoint.edge))
    }
}

fn read_endpoint(endpoint: &Endpoint) -> Option<FibEndpoint> {
    let first = endpoint.first?.address()?;
    let second = endpoint.second.and_then(Place::address);
    let second = second.filter(|second| second.relay != first.relay);
    Some(FibEndpoint {
        edge: endpoint.edge.as_slice().try_into().ok()?,
        whereabouts: Whereabouts { first, second },
        priority: endpoint.priority,
        weight: endpoint.weight,
        healthy: endpoint.healthy,
        partner: false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fib, route, steps};
    use super::*;
    use overway_wire::AttachmentId;
    use overway_wire::control::{Item, Policy, Tenant};
    use proptest::prelude::*;

    const LOCAL: RelayId = RelayId(1);

    /// An edge at these relays.
    fn edge(name: u8, relays: &[u32]) -> Endpoint {
        let mut places = relays.iter().map(|&relay| Place { relay, attachment: 7 });
        Endpoint {
            edge: vec![name; EDGE_ID_BYTES],
            first: places.next(),
            second: places.next(),
            priority: 0,
            weight: 1,
            healthy: true,
        }
    }

    /// Of a relay that is so many milliseconds away from those of these numbers, and has no route to others.
    fn near(endpoints: Vec<Endpoint>, delays: &[(u16, u32)], more: Vec<Item>) -> Fib {
        let routes =
            delays.iter().map(|&(to, ms)| route(to.into(), vec![(steps(&[to]), ms * 1_000)]));
        let tenant = Tenant { number: 20, name: "im".into(), ..Tenant::default() };
        let service = TenantService { tenant: 20, name: "chat".into(), endpoints };
        let items = routes.chain([tenant.into(), service.into()]).chain(more);
        fib(items.collect())
    }

    fn order(fib: &Fib, asker: u64) -> Vec<u8> {
        let all = fib.endpoints(PolicyId(20), "chat", Class::Realtime, LOCAL, asker);
        all.iter().map(|endpoint| endpoint.edge[0]).collect()
    }

    #[test]
    fn the_healthy_come_first_then_the_lower_priority_then_the_nearer() {
        let backup = Endpoint { priority: 1, ..edge(1, &[2]) };
        let sick = Endpoint { healthy: false, ..edge(2, &[2]) };
        let endpoints = vec![edge(5, &[9]), sick, backup, edge(4, &[4]), edge(3, &[3])];
        let fib = near(endpoints, &[(2, 1), (3, 20), (4, 60)], Vec::new());

        assert_eq!(order(&fib, 1), [3, 4, 5, 1, 2], "5 has no path");
        let of = |tenant, name| fib.endpoints(PolicyId(tenant), name, Class::Bulk, LOCAL, 1).len();
        assert_eq!((of(20, "chat"), of(20, "other"), of(21, "chat"), of(0, "chat")), (5, 0, 0, 0));
        assert_eq!([20, 21].map(|tenant| fib.endpoints_told(PolicyId(tenant))), [5, 0]);
    }

    #[test]
    fn an_edge_counts_by_the_nearer_of_its_addresses_and_is_tried_there() {
        let fib = near(vec![edge(1, &[2]), edge(2, &[4, 3])], &[(2, 50), (3, 10), (4, 90)], vec![]);

        assert_eq!(order(&fib, 1), [2, 1]);
        let first = fib.endpoints(PolicyId(20), "chat", Class::Realtime, LOCAL, 1)[0];
        let at = |relay| Address::new(RelayId(relay), AttachmentId(7));
        assert_eq!(first.whereabouts, Whereabouts { first: at(3), second: Some(at(4)) });
    }

    #[test]
    fn an_edge_of_this_relay_comes_before_one_that_is_as_near() {
        let heavy = Endpoint { weight: 1_000, ..edge(1, &[2]) };
        let fib = near(vec![heavy, edge(2, &[3, 1])], &[(2, 1), (3, 1)], Vec::new());

        assert!((0..50).all(|asker| order(&fib, asker) == [2, 1]));
    }

    #[test]
    fn those_that_are_about_as_near_share_askers_by_weight() {
        let three = Endpoint { weight: 3, ..edge(1, &[2]) };
        let none = Endpoint { weight: 0, ..edge(3, &[2]) };
        let endpoints = vec![three, edge(2, &[3]), none, edge(4, &[4])];
        let fib = near(endpoints, &[(2, 40), (3, 44), (4, 60)], Vec::new());

        let orders: Vec<Vec<u8>> = (0..4_000).map(|asker| order(&fib, asker)).collect();

        let first = |edge| orders.iter().filter(|order| order[0] == edge).count();
        assert!((2_850..3_150).contains(&first(1)), "{} of 4,000", first(1));
        assert_eq!(first(1) + first(2), 4_000);
        assert!(orders.iter().all(|order| order[2..] == [3, 4]));
    }

    #[test]
    fn addresses_that_the_tenants_policy_forbids_are_left_out() {
        let eu = Policy { policy: 9, name: "eu".into(), relays: vec![1, 3] };
        let tenant = Tenant { number: 20, name: "im".into(), route_policy: 9, ..Tenant::default() };
        let more = vec![eu.into(), tenant.into()];
        let fib = near(vec![edge(1, &[2, 3]), edge(2, &[2])], &[(2, 1), (3, 9)], more);

        let all = fib.endpoints(PolicyId(20), "chat", Class::Realtime, LOCAL, 1);

        let [only] = all[..] else { panic!("{all:?}") };
        assert_eq!((only.edge[0], only.whereabouts.first.relay), (1, RelayId(3)));
        assert_eq!(only.whereabouts.second, None);
    }

    /// A tenant whose cell's policy is the 9th, and with partners the 10th.
    fn in_a_cell() -> Tenant {
        Tenant {
            number: 20,
            name: "im".into(),
            route_policy: 9,
            backup_policy: 10,
            cell: "eu".into(),
            ..Tenant::default()
        }
    }

    /// A tenant in a cell of relays 1 to 3, with a partner of which relay 5 is.
    fn celled(endpoints: Vec<Endpoint>, delays: &[(u16, u32)]) -> Fib {
        let policy = |policy, relays| Policy { policy, name: policy.to_string(), relays };
        let tenant = in_a_cell();
        let under = |policy| {
            let routes = delays.iter().filter(move |(to, _)| policy == 10 || *to <= 3);
            routes.map(move |&(to, ms)| {
                let item = route(to.into(), vec![(steps(&[to]), ms * 1_000)]);
                match item.body {
                    Some(overway_wire::control::item::Body::Route(route)) => {
                        overway_wire::control::Route { policy, ..route }.into()
                    }
                    body => Item { body },
                }
            })
        };
        let limits = [policy(9, vec![1, 2, 3]).into(), policy(10, vec![1, 2, 3, 5]).into()];
        let more = limits.into_iter().chain([tenant.into()]).chain(under(9)).chain(under(10));
        near(endpoints, &[], more.collect())
    }

    #[test]
    fn a_partners_ends_are_offered_only_while_none_of_the_cell_is_well_and_reached() {
        let partner = Endpoint { priority: 0, ..edge(7, &[5]) };
        let sick = Endpoint { healthy: false, ..edge(1, &[2]) };
        let own = Endpoint { priority: 1, ..edge(2, &[3, 5]) };
        let foreign = edge(8, &[4]);
        let delays = [(2, 1), (3, 50), (4, 1), (5, 1)];
        let all = vec![partner.clone(), sick.clone(), own.clone(), foreign];

        assert_eq!(order(&celled(all.clone(), &delays), 1), [2, 1]);
        assert_eq!(order(&celled(all, &[(2, 1), (5, 1)]), 1), [7, 2, 1], "2 is not reached");
        let fib = celled(vec![partner, sick], &delays);
        let told = fib.endpoints(PolicyId(20), "chat", Class::Realtime, LOCAL, 1);
        let partners: Vec<_> = told.iter().map(|it| (it.edge[0], it.partner)).collect();
        assert_eq!(partners, [(7, true), (1, false)]);
        let both = celled(vec![own], &[(3, 90), (5, 1)]);
        let [only] = both.endpoints(PolicyId(20), "chat", Class::Realtime, LOCAL, 1)[..] else {
            panic!("there is one")
        };
        assert_eq!((only.whereabouts.first.relay, only.partner), (RelayId(3), false));
    }

    #[test]
    fn edges_attach_in_their_cell_or_at_a_partner_that_reaches_none_of_it() {
        use CellStanding::{Outside, Own, Partner, Reserve};
        let whole = celled(Vec::new(), &[(2, 1), (5, 1)]);
        let may =
            |fib: &Fib, relay, local| fib.may_attach(PolicyId(20), RelayId(relay), RelayId(local));

        assert_eq!([1, 3, 4].map(|relay| may(&whole, relay, 9)), [Own, Own, Outside]);
        assert_eq!(may(&whole, 5, 5), Reserve, "2 is reached");
        assert_eq!(may(&celled(Vec::new(), &[]), 5, 5), Partner);
        assert_eq!(may(&celled(Vec::new(), &[]), 5, 1), Reserve, "1 is of the cell itself");
        let free = near(Vec::new(), &[], Vec::new());
        assert_eq!(may(&free, 4, 4), Own, "a tenant without a cell");
    }

    #[test]
    fn clients_are_told_of_partners_only_where_these_stand_in() {
        let whole = celled(Vec::new(), &[(2, 1), (5, 1)]);
        let cut_off = celled(Vec::new(), &[(5, 1)]);
        let set = |relays: &[u16]| -> BTreeSet<RelayId> {
            relays.iter().map(|&relay| RelayId(relay)).collect()
        };
        let told = |fib: &Fib, local| fib.attachable(PolicyId(20), RelayId(local));

        assert_eq!(told(&whole, 1), Some((set(&[1, 2, 3]), set(&[]))));
        assert_eq!(told(&whole, 5), Some((set(&[1, 2, 3]), set(&[]))));
        assert_eq!(told(&cut_off, 5), Some((set(&[1, 2, 3]), set(&[5]))));
        assert_eq!(whole.attachable(PolicyId(0), RelayId(1)), None);
        assert_eq!(whole.attachable(PolicyId(77), RelayId(1)), Some((set(&[]), set(&[]))));
    }

    #[test]
    fn a_relay_of_neither_knows_by_its_own_routes_whether_a_cell_is_reached() {
        let policy = |policy, relays| Policy { policy, name: policy.to_string(), relays };
        let tenant = in_a_cell();
        let items = |routes: Vec<Item>| -> Vec<Item> {
            let limits =
                [policy(9, vec![2]).into(), policy(10, vec![2, 5]).into(), tenant.clone().into()];
            limits.into_iter().chain(routes).collect()
        };
        let partners = |routes| {
            let fib = fib(items(routes));
            fib.attachable(PolicyId(20), RelayId(1)).unwrap().1.len()
        };

        assert_eq!(partners(vec![route(2, vec![(steps(&[2]), 1_000)])]), 0);
        assert_eq!(partners(vec![route(5, vec![(steps(&[5]), 1_000)])]), 1);
    }

    #[test]
    fn endpoints_that_make_no_sense_and_those_beyond_the_bound_are_not_read() {
        let short = Endpoint { edge: vec![1; 31], ..edge(1, &[2]) };
        let mut endpoints = vec![short, edge(2, &[]), edge(3, &[70_000]), edge(4, &[2, 2])];
        endpoints.extend((5..100).map(|name| edge(name, &[2])));
        let fib = near(endpoints, &[(2, 1)], Vec::new());

        let all = fib.endpoints(PolicyId(20), "chat", Class::Realtime, LOCAL, 1);

        assert_eq!(all.len(), SERVICE_ENDPOINTS_MAX - 3);
        let four = all.iter().find(|endpoint| endpoint.edge[0] == 4).unwrap();
        assert_eq!(four.whereabouts.second, None, "a second address is at another relay");
    }

    proptest! {
        #[test]
        fn every_endpoint_is_listed_once_in_an_order_that_does_not_depend_on_theirs(
            endpoints in proptest::collection::vec(
                (2_u32..6, 0_u32..3, 0_u32..4, any::<bool>()), 1..20),
            asker in any::<u64>(),
        ) {
            let make = |(name, &(relay, priority, weight, healthy))| {
                Endpoint { priority, weight, healthy, ..edge(name, &[relay]) }
            };
            let endpoints: Vec<Endpoint> = (1..).zip(&endpoints).map(make).collect();
            let reversed = endpoints.iter().rev().cloned().collect();
            let delays = [(2, 1), (3, 5), (4, 30)];

            let listed = order(&near(endpoints.clone(), &delays, Vec::new()), asker);

            prop_assert_eq!(&listed, &order(&near(reversed, &delays, Vec::new()), asker));
            let mut sorted = listed;
            sorted.sort_unstable();
            let all = endpoints.iter().map(|endpoint| endpoint.edge[0]);
            prop_assert_eq!(sorted, all.collect::<Vec<_>>());
        }
    }
}
