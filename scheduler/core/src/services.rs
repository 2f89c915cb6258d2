//! Services of tenants: what relays say that edges offer, made into what every relay is told.
//!
//! An edge is attached to two relays, and both say what it offers there: one *endpoint* with two addresses.
//!
//! | a relay | its own offers | addresses at it that other relays tell |
//! | --- | --- | --- |
//! | is there, and has said what it is offered | count | count if it says so too: its own word is the later |
//! | is there, and has not said yet | those of its last session count | count |
//! | is not there | do not count | do not count |
//!
//! *There* is a relay with a session, and one without that others still reach; not one that is about to stop. It is asked
//! of the same links as for services of the mesh, and so after the same doubt.
//!
//! What comes out depends on what was said last by each relay, and not on who said it first. Nothing of it is stored: after
//! a restart relays say it again, before their first report, for which a scheduler that settles waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overway_wire::control::item::Body;
use overway_wire::control::{
    EDGE_ID_BYTES, Endpoint, Item, OFFERS_MAX, Offer, Offers, Place, SERVICE_ENDPOINTS_MAX,
    SERVICE_NAME_BYTES_MAX, TenantService,
};
use overway_wire::{Address, AttachmentId, PolicyId, RelayId};

use crate::push::ItemKey;

/// Services of one tenant that are pushed; the first by name.
const TENANT_SERVICES_MAX: usize = 256;
/// Offers kept of the whole mesh, shared evenly among its relays. 200 MB.
const MESH_OFFERS_MAX: usize = 1 << 20;
/// Names of services that are remembered by number. With more, all is numbered anew, and every relay gets its whole
/// state again.
const SERVICE_NUMBERS_MAX: usize = 1 << 20;

type EdgeId = [u8; EDGE_ID_BYTES];

/// A service of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServiceName {
    pub(crate) tenant: PolicyId,
    pub(crate) name: String,
}

/// What one relay says of one edge's offer of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    own: Address,
    other: Option<Address>,
    second: bool,
    priority: u32,
    weight: u32,
    healthy: bool,
}

/// What stands of a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    there: bool,
    /// It has said in its session what it is offered.
    said: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Services {
    offers: BTreeMap<Arc<ServiceName>, BTreeMap<(EdgeId, RelayId), Said>>,
    /// Which services name a relay, and by whose word: the relay named, the one that says so, the service.
    named: BTreeSet<(RelayId, RelayId, Arc<ServiceName>)>,
    relays: BTreeMap<RelayId, Standing>,
    /// Services to be made anew.
    dirty: BTreeSet<Arc<ServiceName>>,
    items: BTreeMap<ItemKey, Arc<Item>>,
    numbers: BTreeMap<Arc<ServiceName>, u32>,
    names: Vec<Arc<ServiceName>>,
}

/// What changed of the items.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ServicesChange {
    /// Whose service, and its key.
    pub(crate) keys: Vec<(PolicyId, ItemKey)>,
    /// Whether services were numbered anew, so that keys that were not acknowledged mean nothing any more.
    pub(crate) renumbered: bool,
    /// Services left out, of tenants with too many.
    pub(crate) services_refused: u64,
    /// Endpoints left out, of services with too many.
    pub(crate) endpoints_refused: u64,
}

impl Services {
    /// A relay says what it is offered: all of it. `relays` is how many the mesh has. Returns how many offers were
    /// passed over, because they make no sense or are too many.
    pub(crate) fn handle_offers(&mut self, relay: RelayId, offers: &Offers, relays: usize) -> u64 {
        let most = OFFERS_MAX.min(MESH_OFFERS_MAX / relays.max(1));
        let mut said: BTreeMap<ServiceName, BTreeMap<EdgeId, Said>> = BTreeMap::new();
        let mut refused = 0;
        for (at, offer) in offers.offers.iter().enumerate() {
            match read(relay, offer).filter(|_| at < most) {
                Some((name, edge, offer)) => {
                    said.entry(name).or_default().entry(edge).or_insert(offer);
                }
                None => refused += 1,
            }
        }
        self.replace(relay, said);
        self.stand(relay, |standing| standing.said = true);
        refused
    }

    /// A relay's session begins: what it said stands until it says something else.
    pub(crate) fn handle_session(&mut self, relay: RelayId) {
        self.stand(relay, |standing| standing.said = false);
    }

    /// A relay has reported: if it had anything to say of offers, it has said so before.
    pub(crate) fn handle_report(&mut self, relay: RelayId) {
        if !self.relays.get(&relay).is_some_and(|standing| standing.said) {
            self.replace(relay, BTreeMap::new());
            self.stand(relay, |standing| standing.said = true);
        }
    }

    /// A relay is there, or is not.
    pub(crate) fn handle_there(&mut self, relay: RelayId, there: bool) {
        self.stand(relay, |standing| standing.there = there);
    }

    /// A relay is no longer of the mesh.
    pub(crate) fn forget(&mut self, relay: RelayId) {
        self.replace(relay, BTreeMap::new());
        self.stand(relay, |standing| *standing = Standing::default());
        self.relays.remove(&relay);
    }

    /// Whether something is to be made anew.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Every item's key.
    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = ItemKey> {
        self.items.keys().copied()
    }

    /// The same, with the tenant whose service each is.
    pub(crate) fn keys_by_tenant(&self) -> impl Iterator<Item = (PolicyId, ItemKey)> {
        let numbered = self.numbers.iter();
        let keys = numbered.map(|(name, &number)| (name.tenant, ItemKey::tenant_service(number)));
        keys.filter(|(_, key)| self.items.contains_key(key))
    }

    pub(crate) fn item(&self, key: ItemKey) -> Option<&Arc<Item>> {
        self.items.get(&key)
    }

    /// The service with this number.
    pub(crate) fn name(&self, number: u32) -> Option<&ServiceName> {
        self.names.get(usize::try_from(number).ok()?).map(|name| &**name)
    }

    /// How many services there are, and how many of them have no healthy endpoint.
    pub(crate) fn count(&self) -> (usize, usize) {
        let ill = |item: &&Arc<Item>| match &item.body {
            Some(Body::TenantService(service)) => !service.endpoints.iter().any(|end| end.healthy),
            Some(_) | None => false,
        };
        (self.items.len(), self.items.values().filter(ill).count())
    }

    /// Makes items of what changed.
    pub(crate) fn remake(&mut self) -> ServicesChange {
        let mut change = ServicesChange::default();
        if self.names.len() > SERVICE_NUMBERS_MAX {
            change.renumbered = true;
            self.names.clear();
            self.numbers.clear();
            self.items.clear();
            self.dirty.extend(self.offers.keys().cloned());
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for tenant in self.crowded(&dirty) {
            // Which of its services are the first may be others now.
            dirty.extend(self.of(tenant).cloned());
        }
        for name in dirty {
            let item = if self.is_beyond(&name) {
                change.services_refused += 1;
                None
            } else {
                self.make(&name, &mut change)
            };
            self.put(&name, item, &mut change);
        }
        change
    }

    fn replace(&mut self, relay: RelayId, mut said: BTreeMap<ServiceName, BTreeMap<EdgeId, Said>>) {
        let own = (relay, relay);
        let before = self.named.range((own.0, own.1, Arc::default())..);
        let before = before.take_while(|(named, by, _)| (*named, *by) == own);
        let before: Vec<Arc<ServiceName>> = before.map(|(.., name)| Arc::clone(name)).collect();
        for name in before {
            let new = said.remove(&*name).unwrap_or_default();
            self.replace_of(relay, name, &new);
        }
        for (name, new) in said {
            let known = self.offers.get_key_value(&name).map(|(name, _)| Arc::clone(name));
            self.replace_of(relay, known.unwrap_or_else(|| Arc::new(name)), &new);
        }
    }

    fn replace_of(&mut self, relay: RelayId, name: Arc<ServiceName>, new: &BTreeMap<EdgeId, Said>) {
        let offers = self.offers.entry(Arc::clone(&name)).or_default();
        let old = offers.iter().filter(|((_, by), _)| *by == relay);
        let old: BTreeMap<EdgeId, Said> = old.map(|(&(edge, _), &said)| (edge, said)).collect();
        if old == *new {
            if offers.is_empty() {
                self.offers.remove(&name);
            }
            return;
        }
        offers.retain(|(_, by), _| *by != relay);
        offers.extend(new.iter().map(|(&edge, &said)| ((edge, relay), said)));
        if offers.is_empty() {
            self.offers.remove(&name);
        }
        let named = |said: &BTreeMap<EdgeId, Said>| {
            let others = said.values().filter_map(|said| said.other).map(|other| other.relay);
            let own = (!said.is_empty()).then_some(relay);
            others.chain(own).collect::<BTreeSet<_>>()
        };
        for other in named(&old) {
            self.named.remove(&(other, relay, Arc::clone(&name)));
        }
        for other in named(new) {
            self.named.insert((other, relay, Arc::clone(&name)));
        }
        self.dirty.insert(name);
    }

    fn stand(&mut self, relay: RelayId, change: impl FnOnce(&mut Standing)) {
        let standing = self.relays.entry(relay).or_default();
        let before = *standing;
        change(standing);
        if *standing == before {
            return;
        }
        let first = (relay, RelayId::default(), Arc::default());
        let named = self.named.range(first..).take_while(|(named, ..)| *named == relay);
        self.dirty.extend(named.map(|(.., name)| Arc::clone(name)));
    }

    /// A tenant's services.
    fn of(&self, tenant: PolicyId) -> impl Iterator<Item = &Arc<ServiceName>> {
        let first = ServiceName { tenant, name: String::new() };
        let services = self.offers.range(Arc::new(first)..).map(|(name, _)| name);
        services.take_while(move |name| name.tenant == tenant)
    }

    /// Tenants of these services that have too many.
    fn crowded(&self, services: &BTreeSet<Arc<ServiceName>>) -> Vec<PolicyId> {
        let tenants: BTreeSet<PolicyId> = services.iter().map(|name| name.tenant).collect();
        let crowded = |&tenant: &PolicyId| {
            let known = self.numbers.range(Arc::new(ServiceName { tenant, name: String::new() })..);
            let known = known.take_while(|(name, _)| name.tenant == tenant);
            known.count().max(self.of(tenant).count()) > TENANT_SERVICES_MAX
        };
        tenants.into_iter().filter(crowded).collect()
    }

    /// Whether a service comes after as many of its tenant's as are pushed.
    fn is_beyond(&self, name: &ServiceName) -> bool {
        let last = self.of(name.tenant).nth(TENANT_SERVICES_MAX - 1);
        last.is_some_and(|last| *name > **last)
    }

    /// A service as everybody is told of it, or `None` if nobody offers it.
    fn make(&self, name: &Arc<ServiceName>, change: &mut ServicesChange) -> Option<Item> {
        let mut edges: BTreeMap<EdgeId, Vec<Said>> = BTreeMap::new();
        for (&(edge, by), said) in self.offers.get(name)? {
            if self.relays.get(&by).is_some_and(|standing| standing.there) {
                edges.entry(edge).or_default().push(*said);
            }
        }
        let endpoints = edges.iter().map(|(edge, said)| self.endpoint(*edge, said));
        let mut endpoints: Vec<Endpoint> = endpoints.collect();
        if endpoints.len() > SERVICE_ENDPOINTS_MAX {
            change.endpoints_refused += (endpoints.len() - SERVICE_ENDPOINTS_MAX) as u64;
            endpoints.sort_by_key(|endpoint| (!endpoint.healthy, endpoint.priority));
            endpoints.truncate(SERVICE_ENDPOINTS_MAX);
            endpoints.sort_by(|one, other| one.edge.cmp(&other.edge));
        }
        let ServiceName { tenant, name } = &**name;
        let service = TenantService { tenant: tenant.0.into(), name: name.clone(), endpoints };
        (!service.endpoints.is_empty()).then(|| service.into())
    }

    /// What relays that are there say of an edge, as one; at least one says something.
    fn endpoint(&self, edge: EdgeId, said: &[Said]) -> Endpoint {
        let mut said: Vec<&Said> = said.iter().collect();
        said.sort_by_key(|said| (said.second, said.own));
        let best = said[0];
        let own = said.iter().map(|said| said.own);
        let told = said.iter().filter_map(|said| said.other).filter(|other| {
            let word = self.relays.get(&other.relay).copied().unwrap_or_default();
            word.there && !word.said
        });
        let told: BTreeSet<Address> = told.collect();
        let mut places: Vec<Address> = Vec::with_capacity(2);
        // One that would rather be reached elsewhere is, if it is attached there.
        let ahead = best.other.filter(|other| best.second && told.contains(other));
        for address in ahead.into_iter().chain(own).chain(told) {
            if places.len() < 2 && places.iter().all(|place| place.relay != address.relay) {
                places.push(address);
            }
        }
        Endpoint {
            edge: edge.to_vec(),
            first: places.first().copied().map(Place::from),
            second: places.get(1).copied().map(Place::from),
            priority: best.priority,
            weight: best.weight,
            healthy: best.healthy,
        }
    }

    fn put(&mut self, name: &Arc<ServiceName>, item: Option<Item>, change: &mut ServicesChange) {
        let number = match self.numbers.get(name) {
            Some(&number) => number,
            None if item.is_none() => return,
            None => {
                let number = u32::try_from(self.names.len()).expect("numbers are bounded");
                self.names.push(Arc::clone(name));
                self.numbers.insert(Arc::clone(name), number);
                number
            }
        };
        let key = ItemKey::tenant_service(number);
        let same = self.items.get(&key).map(|known| &**known) == item.as_ref();
        if same {
            return;
        }
        match item {
            Some(item) => self.items.insert(key, Arc::new(item)),
            None => self.items.remove(&key),
        };
        change.keys.push((name.tenant, key));
    }
}

/// What a relay says of an offer, or `None` if it makes no sense.
fn read(relay: RelayId, offer: &Offer) -> Option<(ServiceName, EdgeId, Said)> {
    let tenant = u16::try_from(offer.tenant).ok().filter(|&tenant| tenant != 0)?;
    let fits = (1..=SERVICE_NAME_BYTES_MAX).contains(&offer.service.len());
    let own = Place { relay: relay.0.into(), attachment: offer.attachment }.address()?;
    // The relay's gateway offers services of the mesh.
    let is_edge = own.attachment != AttachmentId::GATEWAY;
    let other = offer.other.and_then(Place::address).filter(|other| other.relay != relay);
    let edge = offer.edge.as_slice().try_into().ok().filter(|_| fits && is_edge)?;
    let name = ServiceName { tenant: PolicyId(tenant), name: offer.service.clone() };
    let Offer { second, priority, weight, healthy, .. } = *offer;
    Some((name, edge, Said { own, other, second, priority, weight, healthy }))
}

#[cfg(test)]
mod tests;
