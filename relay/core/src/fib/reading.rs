//! How the pushed state is read into a table: whole, or what an update changed of it.

use std::sync::Arc;
use std::time::Duration;

use overway_wire::control::{
    Item, Key, NodeDrain, PREFIX_BUCKETS, Policy, ROUTE_PATHS_MAX, Role, Route, RoutePath, Sort,
    TENANT_KEYS_MAX, TENANT_REVOKED_KEYS_MAX, TENANT_REVOKED_TOKENS_MAX, Tenant, WEIGHT_SUM,
    WORKERS_MAX, item,
};
use overway_wire::{Class, LinkIndex, NeighbourLink, Path, PolicyId, RelayId};

use super::{Fib, FibDrain, FibPath, FibPolicy, FibTenant, PeerLink, RouteName};
use crate::pushed::{Changed, Pushed};

impl Fib {
    /// Reads the pushed state. Items that make no sense (a path that loops or does not end at its
    /// destination, an address that is none) are left out: the rest still serves.
    pub fn new(pushed: &Pushed, local: RelayId) -> Self {
        let mut fib = Self { epoch: pushed.epoch(), ..Self::default() };
        for item in pushed.items() {
            fib.read(item, local);
        }
        fib.enforce_policies();
        fib
    }

    /// The table after an update that made `pushed` and changed so much: the same as [`Self::new`] makes.
    pub fn updated(&self, pushed: &Pushed, changed: &Changed, local: RelayId) -> Self {
        let Changed::Keys(keys) = changed else { return Self::new(pushed, local) };
        if keys.iter().any(|key| key.sort() == Sort::Policy) {
            // Any route may be concerned, and policies change seldom.
            return Self::new(pushed, local);
        }
        let mut fib = Self { epoch: pushed.epoch(), ..self.clone() };
        for key in keys {
            fib.forget(key);
            if let Some(item) = pushed.get(key) {
                fib.read(item, local);
            }
            if let Some(name) = route_name(key) {
                fib.enforce_policy(name);
            }
        }
        fib
    }

    /// Takes out what the item of this key made.
    fn forget(&mut self, key: &Key) -> Option<()> {
        match key.sort() {
            Sort::Node => {
                let relay = relay_id(key.relay)?;
                Arc::make_mut(&mut self.names).remove(&relay);
                self.drains.remove(&relay);
            }
            Sort::Peer => {
                let index = LinkIndex::new(u8::try_from(key.part).ok()?)?;
                self.peers.remove(&NeighbourLink::new(relay_id(key.relay)?, index));
            }
            Sort::Route => {
                self.routes.remove(&route_name(key)?);
            }
            Sort::Service => {
                self.services.remove(&key.name);
            }
            Sort::Revoked => {
                self.revoked.remove(&relay_id(key.relay)?);
            }
            Sort::Tenant => {
                self.tenants.remove(&policy_id(key.relay)?);
            }
            Sort::TenantService => self.forget_tenant_service(key.relay, &key.name)?,
            Sort::AccessRelay => {
                Arc::make_mut(&mut self.access_relays).remove(&relay_id(key.relay)?);
            }
            Sort::AccessPrefixes => {
                Arc::make_mut(&mut self.access_prefixes).remove(&key.relay);
            }
            Sort::Policy | Sort::Unknown => {}
        }
        Some(())
    }

    /// Leaves out paths that their policy does not allow: a scheduler's mistake must not lead traffic
    /// where it may not go.
    fn enforce_policies(&mut self) {
        let restricted = self.routes.keys().filter(|(_, _, policy)| *policy != PolicyId::default());
        for name in restricted.copied().collect::<Vec<_>>() {
            self.enforce_policy(name);
        }
    }

    fn enforce_policy(&mut self, name: RouteName) {
        let (_, _, policy) = name;
        if policy == PolicyId::default() {
            return;
        }
        let Some(paths) = self.routes.get(&name) else { return };
        let allowed =
            paths.iter().filter(|path| self.policy_allows(policy, &path.path)).copied().collect();
        self.routes.insert(name, allowed);
    }

    fn read(&mut self, item: &Item, local: RelayId) -> Option<()> {
        match item.body.as_ref()? {
            item::Body::Node(node) => {
                let relay = relay_id(node.relay)?;
                Arc::make_mut(&mut self.names).insert(relay, node.name.clone());
                let deadline_unix = Some(node.drain_deadline).filter(|&deadline| deadline != 0);
                match node.drain() {
                    NodeDrain::None => {}
                    stage @ (NodeDrain::Leaving | NodeDrain::Over) => {
                        let is_over = stage == NodeDrain::Over;
                        self.drains.insert(relay, FibDrain { is_over, deadline_unix });
                    }
                }
            }
            item::Body::Peer(peer) => {
                let index = LinkIndex::new(u8::try_from(peer.index).ok()?)?;
                let neighbour = relay_id(peer.neighbour).filter(|&neighbour| neighbour != local)?;
                let link = PeerLink {
                    local_address: peer.local_address as usize,
                    remote: peer.remote_address.parse().ok()?,
                    candidate: peer.role() == Role::Candidate,
                    capacity_bps: peer.capacity_bps,
                    workers: u8::try_from(peer.workers).unwrap_or(WORKERS_MAX),
                };
                self.peers.insert(NeighbourLink::new(neighbour, index), link);
            }
            item::Body::Route(route) => self.read_route(route, local)?,
            item::Body::Service(service) => {
                let relays = service.relays.iter().filter_map(|&relay| relay_id(relay)).collect();
                self.services.insert(service.name.clone(), relays);
            }
            item::Body::Revoked(revoked) => {
                self.revoked.insert(relay_id(revoked.relay)?);
            }
            item::Body::Policy(policy) => self.read_policy(policy)?,
            item::Body::Tenant(tenant) => self.read_tenant(tenant)?,
            item::Body::TenantService(service) => self.read_tenant_service(service)?,
            item::Body::AccessRelay(relay) => {
                let relays = Arc::make_mut(&mut self.access_relays);
                relays.insert(relay_id(relay.relay)?, relay.clone());
            }
            item::Body::AccessPrefixes(prefixes) => {
                let bucket = Some(prefixes.bucket).filter(|&bucket| bucket < PREFIX_BUCKETS)?;
                let prefixes = Arc::new(prefixes.clone());
                Arc::make_mut(&mut self.access_prefixes).insert(bucket, prefixes);
            }
        }
        Some(())
    }

    fn read_route(&mut self, route: &Route, local: RelayId) -> Option<()> {
        let destination = relay_id(route.destination)?;
        let class = Class::from_code(u8::try_from(route.class).ok()?)?;
        let policy = PolicyId(u16::try_from(route.policy).ok()?);
        let read = |route: &RoutePath| {
            let path = Path::decode(&route.steps).ok()?;
            let fits = path.last().relay == destination && !path.visits(local);
            let delay = Duration::from_micros(u64::from(route.delay_us));
            let weight = u16::try_from(route.weight.min(WEIGHT_SUM)).ok()?;
            fits.then(|| FibPath::new(path, delay, weight))
        };
        let paths = route.paths.iter().take(ROUTE_PATHS_MAX).filter_map(read).collect();
        self.routes.insert((destination, class, policy), paths);
        Some(())
    }

    fn read_policy(&mut self, policy: &Policy) -> Option<()> {
        let id = policy_id(policy.policy)?;
        let relays = policy.relays.iter().filter_map(|&relay| relay_id(relay)).collect();
        self.policies.insert(id, FibPolicy { name: policy.name.clone(), relays });
        Some(())
    }

    /// A tenant with more of something than there can be is none: what was cut off might have been a revocation.
    fn read_tenant(&mut self, tenant: &Tenant) -> Option<()> {
        let number = policy_id(tenant.number)?;
        let route_policy = PolicyId(u16::try_from(tenant.route_policy).ok()?);
        let backup_policy = PolicyId(u16::try_from(tenant.backup_policy).ok()?);
        let bounded = tenant.keys.len() <= TENANT_KEYS_MAX
            && tenant.revoked_keys.len() <= TENANT_REVOKED_KEYS_MAX
            && tenant.revoked_tokens.len() <= TENANT_REVOKED_TOKENS_MAX;
        if bounded {
            let pushed = Arc::new(tenant.clone());
            self.tenants.insert(number, FibTenant { route_policy, backup_policy, pushed });
        }
        Some(())
    }
}

/// The route that a key names, if it is a route's and makes sense.
fn route_name(key: &Key) -> Option<RouteName> {
    let class = Class::from_code(u8::try_from(key.part & 0xff).ok()?)?;
    let policy = PolicyId(u16::try_from(key.part >> 8).ok()?);
    (key.sort() == Sort::Route).then_some((relay_id(key.relay)?, class, policy))
}

pub(super) fn policy_id(id: u32) -> Option<PolicyId> {
    u16::try_from(id).ok().filter(|&id| id != 0).map(PolicyId)
}

fn relay_id(id: u32) -> Option<RelayId> {
    u16::try_from(id).ok().filter(|&id| id != 0).map(RelayId)
}
