//! What relays are to have, made when it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use overway_topology::RouteKey;
use overway_wire::control::{Item, Key, Tenant, Update};
use overway_wire::{LinkIndex, NeighbourLink, PolicyId, RelayId};
use prost::Message;

use super::Scheduler;
use crate::plan::{peer, route};
use crate::push::{ItemKey, Named, Push};

/// Updates of so many items together are worth threads.
const LARGE_ITEMS: usize = 2_000;
/// Large updates that are written at once, for each thread; they wait in memory.
const UPDATES_PER_THREAD: usize = 4;

/// An update that is being written.
struct Writing {
    id: RelayId,
    push: Push,
    update: Update,
}

impl Scheduler {
    /// The state that a relay is to have, by key; empty if it is not registered.
    pub fn pushed(&self, relay: RelayId) -> impl Iterator<Item = (Key, Item)> {
        let items = self.item_keys(relay).into_iter().filter_map(move |key| self.item(relay, key));
        let keyed = |item: Item| (item.key().expect("items made here have bodies"), item);
        items.map(keyed).collect::<BTreeMap<_, _>>().into_iter()
    }

    /// Makes the next updates of relays that may have one: one, or if it is large some more, on threads.
    pub(super) fn make_updates(&mut self) {
        let (mut writing, mut items) = (Vec::new(), 0);
        let width = self.config.executor.width();
        while let Some(id) = self.ready.pop_first() {
            if let Some(push) = self.take_push(id) {
                items += push.items().unwrap_or(LARGE_ITEMS);
                writing.push(Writing { id, push, update: Update::default() });
            }
            let most = if items >= LARGE_ITEMS { width * UPDATES_PER_THREAD } else { 1 };
            if writing.len() >= most {
                break;
            }
        }
        let queue = Mutex::new(writing.iter_mut());
        let write = || {
            while let Some(writing) = {
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.next()
            } {
                self.write(writing);
            }
        };
        if items >= LARGE_ITEMS {
            let task = || Box::new(write) as Box<dyn FnOnce() + Send + '_>;
            self.config.executor.run((0..width).map(|_| task()).collect());
        } else {
            write();
        }
        for Writing { id, push, update } in writing {
            self.count_update(&update, push.is_behind());
            if let Some(relay) = self.relays.get_mut(&id) {
                relay.push = push;
            }
            self.arm(id);
            self.written.push_back((id, update));
        }
    }

    /// Takes out what a relay has, if it is to be sent an update now; it is put back with the update.
    fn take_push(&mut self, id: RelayId) -> Option<Push> {
        let relay = self.relays.get_mut(&id)?;
        let due = relay.push.due(self.now).is_some_and(|due| due <= self.now);
        if relay.session.is_none() || !due {
            return None;
        }
        // Relays take only greater epochs, also where the same state is sent once more.
        if relay.push.last_epoch() >= self.epoch {
            self.epoch.sequence += 1;
        }
        Some(std::mem::replace(&mut relay.push, Push::new(self.epoch.term)))
    }

    /// Writes an update.
    fn write(&self, Writing { id, push, update }: &mut Writing) {
        let missing = |key: ItemKey| key.to_wire(|named| self.service_name(named));
        let make = |key| self.item(*id, key).ok_or_else(|| missing(key));
        *update = push.next(self.epoch, self.now, || self.item_keys(*id), make);
    }

    /// The tenant and name of a service, of the mesh or a tenant.
    fn service_name(&self, named: Named) -> (PolicyId, String) {
        match named {
            Named::Service(number) => (PolicyId::default(), self.shared.service_name(number)),
            Named::TenantService(number) => {
                let name = self.services.name(number);
                name.map(|name| (name.tenant, name.name.clone())).unwrap_or_default()
            }
            Named::Revoked(_)
            | Named::Node(_)
            | Named::Policy(_)
            | Named::Peer(_)
            | Named::Tenant(_)
            | Named::AccessRelay(_)
            | Named::AccessPrefixes(_)
            | Named::Route { .. } => Default::default(),
        }
    }

    fn count_update(&mut self, update: &Update, partial: bool) {
        let full = update.base == 0;
        let counter =
            if full { &mut self.stats.updates_full } else { &mut self.stats.updates_delta };
        *counter += 1;
        self.stats.updates_partial += u64::from(partial);
        self.stats.update_bytes += u64::try_from(update.encoded_len()).unwrap_or(u64::MAX);
    }

    /// A route changed: its source is to hear of it.
    pub(super) fn touch_route(&mut self, key: RouteKey) {
        let item = ItemKey::route(key);
        if let Some(relay) = self.relays.get_mut(&key.source)
            && relay.may_have(item)
        {
            relay.push.touch(item);
        }
    }

    /// A link of a relay to another changed: it is to hear of it.
    pub(super) fn touch_peer(&mut self, local: RelayId, remote: RelayId, index: LinkIndex) {
        if let Some(relay) =
            self.relays.get_mut(&local).filter(|relay| relay.registration.is_some())
        {
            relay.push.touch(ItemKey::peer(NeighbourLink::new(remote, index)));
        }
    }

    /// The keys of everything that a relay is to have.
    fn item_keys(&self, id: RelayId) -> BTreeSet<ItemKey> {
        let Some(relay) = self.relays.get(&id).filter(|relay| relay.registration.is_some()) else {
            return BTreeSet::new();
        };
        let peers = self.links.of(id).map(ItemKey::peer);
        let routes = self.mesh.routes_from(id).into_iter().map(ItemKey::route);
        let tenants = self.tenants.keys().copied().map(ItemKey::tenant);
        let tenants = tenants.chain(self.services.keys()).chain(self.access.keys());
        let keys = self.shared.keys().chain(peers).chain(tenants).chain(routes);
        keys.filter(|&key| relay.may_have(key)).collect()
    }

    /// An item of a relay's state, if it has it.
    fn item(&self, id: RelayId, key: ItemKey) -> Option<Item> {
        match key.named() {
            Named::Revoked(_) | Named::Node(_) | Named::Policy(_) | Named::Service(_) => {
                self.shared.item(key).map(|item| Item::clone(item))
            }
            Named::TenantService(number) => {
                let tenant = self.services.name(number)?.tenant;
                let item = self.services.item(key).filter(|_| self.records.keeps(id, tenant));
                item.map(|item| Item::clone(item))
            }
            Named::AccessRelay(_) | Named::AccessPrefixes(_) => {
                self.access.item(key).map(|item| Item::clone(item))
            }
            Named::Tenant(number) => self.tenants.get(&number).map(|tenant| {
                let exhausted_month = self.exhausted.get(&number).copied().unwrap_or(0);
                Tenant { exhausted_month, ..tenant.clone() }.into()
            }),
            Named::Peer(link) => {
                // Not by who are neighbours now: links and routes change together, with the next plan.
                let lines =
                    self.links.planned(link.inbound(id)).map(|_| self.lines(id, link.neighbour))?;
                let line = lines[usize::from(link.index.value())]?;
                Some(peer(link, line, self.mesh.is_candidate(link.outbound(id))))
            }
            Named::Route { destination, class, policy } => {
                let key = RouteKey { source: id, destination, class, policy };
                let told = || self.mesh.planner().told(key);
                let weights = self.weights.of_paths(key, told().map(|(path, _)| path));
                route(key, told(), &weights)
            }
        }
    }
}
