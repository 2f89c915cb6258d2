//! The forwarding information base: the pushed state as the data plane and the shell read it. Each update
//! makes another; what the update does not change is shared with the one before, for that of a large mesh
//! takes longer to read than a heartbeat should wait.

mod endpoints;

pub use endpoints::{CellStanding, FibEndpoint};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overway_wire::control::{
    AccessPrefixes, AccessRelay, Item, Key, NodeDrain, PREFIX_BUCKETS, Policy, ROUTE_PATHS_MAX,
    Role, Route, RoutePath, Sort, TENANT_KEYS_MAX, TENANT_REVOKED_KEYS_MAX,
    TENANT_REVOKED_TOKENS_MAX, Tenant, WEIGHT_SUM, WORKERS_MAX, item,
};
use overway_wire::{Class, Epoch, LinkIndex, NeighbourLink, Path, PolicyId, RelayId};

use crate::pushed::{Changed, Pushed};
use crate::spread::path_seed;

/// What this relay does with frames, and whom it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fib {
    /// The epoch it is from.
    pub epoch: Epoch,
    /// Paths by destination, class and policy, best first.
    routes: HashMap<RouteName, Arc<[FibPath]>>,
    /// Policies other than none.
    pub policies: BTreeMap<PolicyId, FibPolicy>,
    /// Tenants by their number, under which their frames travel.
    pub tenants: BTreeMap<PolicyId, FibTenant>,
    /// Who offers the services of tenants.
    tenant_services: endpoints::TenantServices,
    /// Links to hold, with their neighbours' addresses.
    pub peers: BTreeMap<NeighbourLink, PeerLink>,
    /// Names of relays.
    pub names: Arc<BTreeMap<RelayId, String>>,
    /// Relays that an operator drains: edges attach elsewhere.
    pub drains: BTreeMap<RelayId, FibDrain>,
    /// Relays that offer a service, in order of id.
    pub services: BTreeMap<String, Vec<RelayId>>,
    /// Relays whose certificates count for nothing.
    pub revoked: BTreeSet<RelayId>,
    /// Relays at which clients may attach, for the shell that answers them.
    pub access_relays: Arc<BTreeMap<RelayId, AccessRelay>>,
    /// Which networks they are near, by bucket.
    pub access_prefixes: Arc<BTreeMap<u32, Arc<AccessPrefixes>>>,
}

type RouteName = (RelayId, Class, PolicyId);

/// One way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FibPath {
    /// The steps.
    pub path: Path,
    /// Expected one-way delay.
    pub delay: Duration,
    /// Share of the route's flows, in thousandths. If every path of the route has 0, all take the best.
    pub weight: u16,
    /// What tells the path from others when flows draw.
    pub(crate) seed: u64,
}

/// What a policy allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FibPolicy {
    /// Its name, as in configuration.
    pub name: String,
    /// The relays that may be on its paths, ends included.
    pub relays: BTreeSet<RelayId>,
}

/// How a relay is being drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FibDrain {
    /// Whether its deadline has passed: nothing goes to it or from it.
    pub is_over: bool,
    /// When it is over, in Unix seconds; `None`: when the operator says so.
    pub deadline_unix: Option<u64>,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibTenant {
    /// The policy whose routes its frames take.
    pub route_policy: PolicyId,
    /// The policy whose routes they take where those lead nowhere; 0: there is none.
    pub backup_policy: PolicyId,
    /// What was pushed, within its bounds: for the access side, which reads its keys.
    pub pushed: Arc<Tenant>,
}

/// A link to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLink {
    /// Which of our own addresses it uses.
    pub local_address: usize,
    /// The neighbour's address.
    pub remote: SocketAddr,
    /// Whether it is on a path or a backup of some pair.
    pub candidate: bool,
    /// Its capacity in bits per second, 0 if not known.
    pub capacity_bps: u64,
    /// Workers of the neighbour, 0 if not known.
    pub workers: u8,
}

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

    /// The policy whose routes frames of this number take: a policy's own, or a tenant's. `None` if neither is known:
    /// such frames go nowhere, least of all over the routes of everybody.
    pub fn route_policy(&self, number: PolicyId) -> Option<PolicyId> {
        let none = PolicyId::default();
        if number == none || self.policies.contains_key(&number) {
            return Some(number);
        }
        let policy = self.tenants.get(&number)?.route_policy;
        (policy == none || self.policies.contains_key(&policy)).then_some(policy)
    }

    /// The policies that limit frames of this number, by preference: that of [`Self::route_policy`], and that of the cell's
    /// partners where a tenant has one. None if the number is not known.
    pub(crate) fn limits(&self, number: PolicyId) -> impl Iterator<Item = PolicyId> + use<> {
        let own = self.route_policy(number);
        own.into_iter().chain(own.and_then(|_| self.backup_policy(number)))
    }

    /// The policy of the cell and its partners, for a tenant's number; never that of everybody.
    fn backup_policy(&self, number: PolicyId) -> Option<PolicyId> {
        if self.policies.contains_key(&number) {
            return None;
        }
        let backup = self.tenants.get(&number)?.backup_policy;
        self.policies.contains_key(&backup).then_some(backup)
    }

    /// The policy whose routes frames of this number take to a relay: the cell's own, or that of the cell and its partners
    /// where only that leads there.
    pub fn policy_to(
        &self,
        destination: RelayId,
        class: Class,
        number: PolicyId,
    ) -> Option<PolicyId> {
        let own = self.route_policy(number)?;
        let leads = |policy| {
            self.routes.get(&(destination, class, policy)).is_some_and(|it| !it.is_empty())
        };
        let backup = || self.backup_policy(number).filter(|&backup| leads(backup));
        if leads(own) { Some(own) } else { backup().or(Some(own)) }
    }

    /// The paths of traffic without a policy to a relay in a class, best first; empty if there is none.
    pub fn paths(&self, destination: RelayId, class: Class) -> &[FibPath] {
        self.route(destination, class, PolicyId::default())
    }

    /// The paths to a relay in a class under a policy or a tenant's number, best first; empty if there is none.
    pub fn route(&self, destination: RelayId, class: Class, number: PolicyId) -> &[FibPath] {
        let Some(policy) = self.policy_to(destination, class, number) else { return &[] };
        self.routes.get(&(destination, class, policy)).map_or(&[], |paths| &**paths)
    }

    /// Paths that a frame of this class may take from here as a detour under one of its [`Self::limits`]: its own
    /// route's first, then those of other classes, then those of everybody that the policy allows.
    pub(crate) fn detours(
        &self,
        destination: RelayId,
        class: Class,
        policy: PolicyId,
    ) -> impl Iterator<Item = &FibPath> + Clone {
        let own = self.route_policy(policy);
        let everybody = Some(PolicyId::default()).filter(|&everybody| Some(everybody) != own);
        let policies = [own, everybody].into_iter().flatten();
        let classes = move || {
            let others = Class::ALL.into_iter().filter(move |&other| other != class);
            std::iter::once(class).chain(others)
        };
        policies
            .flat_map(move |policy| classes().map(move |class| (class, policy)))
            .flat_map(move |(class, policy)| self.route(destination, class, policy))
            .filter(move |path| self.allows(policy, &path.path))
    }

    /// The paths of one route, as far as the policy that it is under allows them.
    pub(crate) fn allowed(
        &self,
        destination: RelayId,
        class: Class,
        number: PolicyId,
    ) -> impl Iterator<Item = &FibPath> {
        let policy = self.policy_to(destination, class, number);
        let paths = policy.and_then(|policy| self.routes.get(&(destination, class, policy)));
        let allows = move |path: &&FibPath| {
            policy.is_some_and(|policy| self.policy_allows(policy, &path.path))
        };
        paths.into_iter().flat_map(|paths| paths.iter()).filter(allows)
    }

    /// Whether a policy or tenant of this number is known; that there is none always is.
    pub fn knows(&self, number: PolicyId) -> bool {
        self.route_policy(number).is_some()
    }

    /// Whether a policy or tenant is known and a path allowed to it.
    fn allows(&self, number: PolicyId, path: &Path) -> bool {
        self.route_policy(number).is_some_and(|policy| self.policy_allows(policy, path))
    }

    fn policy_allows(&self, policy: PolicyId, path: &Path) -> bool {
        let none = policy == PolicyId::default();
        none || self.policies.get(&policy).is_some_and(|policy| policy.allows(path))
    }

    /// The policy of that name.
    pub fn policy_named(&self, name: &str) -> Option<PolicyId> {
        self.policies.iter().find(|(_, policy)| policy.name == name).map(|(&id, _)| id)
    }

    /// The relays that offer a service and that a policy or tenant allows, the nearest by its best path first.
    /// `local`, if among them, is the first.
    pub fn service(
        &self,
        name: &str,
        class: Class,
        policy: PolicyId,
        local: RelayId,
    ) -> Vec<RelayId> {
        let delay = |relay: RelayId| match self.route(relay, class, policy).first() {
            _ if relay == local => Duration::ZERO,
            Some(path) => path.delay,
            None => Duration::MAX,
        };
        let mut relays = self.services.get(name).cloned().unwrap_or_default();
        let own = self.route_policy(policy);
        if own != Some(PolicyId::default()) {
            let allowed = own.and_then(|own| self.policies.get(&own)).map(|policy| &policy.relays);
            relays.retain(|relay| allowed.is_some_and(|allowed| allowed.contains(relay)));
        }
        relays.sort_by_key(|&relay| (delay(relay), relay));
        relays
    }
}

impl PeerLink {
    /// Shards of the link, for a relay with so many workers of its own. A neighbour of which nothing is known has one.
    pub fn shards(&self, own_workers: u8) -> u8 {
        if self.workers == 0 { 1 } else { self.workers.max(own_workers).min(WORKERS_MAX) }
    }
}

impl FibPath {
    /// A path of a route, with its share of the flows in thousandths.
    pub fn new(path: Path, delay: Duration, weight: u16) -> Self {
        Self { path, delay, weight, seed: path_seed(&path) }
    }
}

impl FibPolicy {
    /// Whether every relay of a path, its end included, is allowed.
    pub fn allows(&self, path: &Path) -> bool {
        path.elements().iter().all(|step| self.relays.contains(&step.relay))
    }
}

/// The route that a key names, if it is a route's and makes sense.
fn route_name(key: &Key) -> Option<RouteName> {
    let class = Class::from_code(u8::try_from(key.part & 0xff).ok()?)?;
    let policy = PolicyId(u16::try_from(key.part >> 8).ok()?);
    (key.sort() == Sort::Route).then_some((relay_id(key.relay)?, class, policy))
}

fn policy_id(id: u32) -> Option<PolicyId> {
    u16::try_from(id).ok().filter(|&id| id != 0).map(PolicyId)
}

fn relay_id(id: u32) -> Option<RelayId> {
    u16::try_from(id).ok().filter(|&id| id != 0).map(RelayId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::PathElement;
    use overway_wire::control::{
        Endpoint, Node, Peer, Place, Revoked, Service, TenantService, Update,
    };
    use proptest::prelude::*;

    pub(super) fn steps(relays: &[u16]) -> Vec<u8> {
        let element = |&relay| PathElement::new(RelayId(relay), LinkIndex::default());
        let path = Path::new(&relays.iter().map(element).collect::<Vec<_>>()).unwrap();
        let mut bytes = Vec::new();
        path.encode(&mut bytes);
        bytes
    }

    pub(super) fn fib(put: Vec<Item>) -> Fib {
        let mut pushed = Pushed::default();
        pushed.apply(Update { revision: 1, put, ..Update::default() }).unwrap();
        Fib::new(&pushed, RelayId(1))
    }

    pub(super) fn route(destination: u32, paths: Vec<(Vec<u8>, u32)>) -> Item {
        let path = |(steps, delay_us)| RoutePath { steps, delay_us, ..RoutePath::default() };
        Route { destination, paths: paths.into_iter().map(path).collect(), ..Route::default() }
            .into()
    }

    #[test]
    fn paths_that_loop_or_end_elsewhere_are_left_out() {
        let good = steps(&[2, 3]);
        let paths = vec![
            (steps(&[2, 4]), 1),
            (steps(&[1, 3]), 1),
            (vec![0, 2, 0, 0, 2, 0], 1),
            (vec![1, 2], 1),
            (good.clone(), 7_000),
        ];

        let fib = fib(vec![route(3, paths)]);

        let path = Path::decode(&good).unwrap();
        let expected = FibPath::new(path, Duration::from_millis(7), 0);
        assert_eq!(fib.paths(RelayId(3), Class::Realtime), [expected]);
        assert!(fib.paths(RelayId(3), Class::Bulk).is_empty());
    }

    fn policy_route(policy: u32, paths: &[&[u16]]) -> Item {
        let path = |relays: &&[u16]| RoutePath { steps: steps(relays), ..RoutePath::default() };
        let paths = paths.iter().map(path).collect();
        Route { destination: 3, paths, policy, ..Route::default() }.into()
    }

    #[test]
    fn a_policys_paths_are_its_own_and_those_that_it_forbids_are_left_out() {
        let eu = Policy { policy: 9, name: "eu".into(), relays: vec![1, 2, 3] };
        let fib = fib(vec![
            eu.into(),
            policy_route(0, &[&[4, 3]]),
            policy_route(9, &[&[4, 3], &[2, 3]]),
            policy_route(8, &[&[2, 3]]),
        ]);

        let first = |policy| {
            let paths = fib.route(RelayId(3), Class::Realtime, PolicyId(policy));
            paths.iter().map(|path| path.path.first().relay.0).collect::<Vec<_>>()
        };
        assert_eq!((first(0), first(9), first(8)), (vec![4], vec![2], vec![]));
        assert_eq!((fib.policy_named("eu"), fib.policy_named("us")), (Some(PolicyId(9)), None));
        assert!(fib.knows(PolicyId(0)) && fib.knows(PolicyId(9)) && !fib.knows(PolicyId(8)));
    }

    fn tenant(number: u32, route_policy: u32) -> Tenant {
        Tenant { number, name: "im".into(), route_policy, ..Tenant::default() }
    }

    #[test]
    fn a_tenants_frames_take_the_routes_of_its_policy() {
        let eu = Policy { policy: 9, name: "eu".into(), relays: vec![1, 2, 3] };
        let fib = fib(vec![
            eu.into(),
            policy_route(0, &[&[4, 3]]),
            policy_route(9, &[&[4, 3], &[2, 3]]),
            policy_route(21, &[&[5, 3]]),
            Service { name: "web".into(), relays: vec![3, 4] }.into(),
            tenant(20, 9).into(),
            tenant(21, 0).into(),
            tenant(22, 8).into(),
            tenant(9, 0).into(),
        ]);

        let first = |number| {
            let paths = fib.route(RelayId(3), Class::Realtime, PolicyId(number));
            paths.iter().map(|path| path.path.first().relay.0).collect::<Vec<_>>()
        };
        assert_eq!((first(20), first(21)), (vec![2], vec![4]));
        assert_eq!(first(22), [], "its policy is not known: not the routes of everybody");
        assert_eq!(first(9), [2], "a tenant takes no policy's number from it");
        let detours = |number| {
            let ways = fib.detours(RelayId(3), Class::Bulk, PolicyId(number));
            ways.map(|path| path.path.first().relay.0).collect::<Vec<_>>()
        };
        assert_eq!((detours(20), detours(21), detours(22)), (vec![2], vec![4], vec![]));
        let web = |number| fib.service("web", Class::Bulk, PolicyId(number), RelayId(1));
        assert_eq!(web(20), [RelayId(3)]);
        assert_eq!((web(21).len(), web(22).len()), (2, 0));
        let known = [20, 21, 22, 23].map(|number| fib.knows(PolicyId(number)));
        assert_eq!(known, [true, true, false, false]);
        assert_eq!(fib.policy_named("im"), None);
    }

    #[test]
    fn a_tenant_with_too_much_of_something_is_none() {
        let texts = |count: usize| (0..count).map(|n| n.to_string()).collect();
        let key = |kid| overway_wire::control::TenantKey { kid, key: vec![0; 32] };
        let keys = |count| Vec::from_iter(Vec::<String>::into_iter(texts(count)).map(key));
        let full = Tenant {
            keys: keys(TENANT_KEYS_MAX),
            revoked_keys: texts(TENANT_REVOKED_KEYS_MAX),
            revoked_tokens: texts(TENANT_REVOKED_TOKENS_MAX),
            ..tenant(20, 0)
        };
        let more = [
            Tenant { keys: keys(TENANT_KEYS_MAX + 1), ..full.clone() },
            Tenant { revoked_keys: texts(TENANT_REVOKED_KEYS_MAX + 1), ..full.clone() },
            Tenant { revoked_tokens: texts(TENANT_REVOKED_TOKENS_MAX + 1), ..full.clone() },
            Tenant { number: 0, ..full.clone() },
            Tenant { number: 65_556, ..full.clone() },
            Tenant { route_policy: 65_536, ..full.clone() },
        ];

        for more in more {
            assert!(fib(vec![more.into()]).tenants.is_empty());
        }
        let fib = fib(vec![full.clone().into()]);
        assert_eq!(*fib.tenants[&PolicyId(20)].pushed, full);
    }

    #[test]
    fn a_detour_takes_the_policys_own_paths_first_and_then_any_that_it_allows() {
        let eu = Policy { policy: 9, name: "eu".into(), relays: vec![1, 2, 3, 5] };
        let fib =
            fib(vec![eu.into(), policy_route(0, &[&[4, 3], &[5, 3]]), policy_route(9, &[&[2, 3]])]);

        let first = |policy| {
            let ways = fib.detours(RelayId(3), Class::Bulk, PolicyId(policy));
            ways.map(|path| path.path.first().relay.0).collect::<Vec<_>>()
        };
        assert_eq!((first(0), first(9), first(8)), (vec![4, 5], vec![2, 5], vec![]));
    }

    /// Few ids, so that items meet; some make no sense.
    fn any_item() -> impl Strategy<Value = Item> {
        let relay = 0_u32..6;
        let path = proptest::collection::vec(2_u16..6, 0..4);
        let route = (relay.clone(), 0_u32..4, 0_u32..3, proptest::collection::vec(path, 0..3));
        prop_oneof![
            relay
                .clone()
                .prop_map(|relay| Node { relay, name: "a".into(), ..Node::default() }.into()),
            (relay.clone(), 0_u32..18).prop_map(|(neighbour, index)| {
                let remote_address = "127.0.0.1:1".into();
                Peer { neighbour, index, remote_address, ..Peer::default() }.into()
            }),
            route.prop_map(|(destination, class, policy, paths)| {
                let steps = |relays: Vec<u16>| {
                    relays.iter().flat_map(|relay| [0, relay.to_be_bytes()[1], 0]).collect()
                };
                let path = |relays| RoutePath { steps: steps(relays), ..RoutePath::default() };
                let paths = paths.into_iter().map(path).collect();
                Route { destination, class, policy, paths }.into()
            }),
            (0_u32..3, proptest::collection::vec(relay.clone(), 0..6))
                .prop_map(|(policy, relays)| Policy { policy, name: "p".into(), relays }.into()),
            proptest::collection::vec(relay.clone(), 0..3).prop_map(|relays| Service {
                name: "web".into(),
                relays
            }
            .into()),
            relay.prop_map(|relay| Revoked { relay }.into()),
            (0_u32..3, 0_u32..3).prop_map(|(number, policy)| tenant(number, policy).into()),
            (0_u32..3, "[ab]?", 0_u32..4).prop_map(|(tenant, name, relay)| {
                let first = Some(Place { relay, attachment: 7 });
                let endpoint = Endpoint { edge: vec![7; 32], first, ..Endpoint::default() };
                TenantService { tenant, name, endpoints: vec![endpoint] }.into()
            }),
        ]
    }

    proptest! {
        #[test]
        fn an_updated_table_is_the_one_that_is_made_anew(
            updates in proptest::collection::vec(
                (proptest::collection::vec(any_item(), 0..8), proptest::collection::vec(any_item(), 0..4)),
                1..8,
            ),
        ) {
            let (mut pushed, mut fib) = (Pushed::default(), Fib::default());
            for (revision, (put, remove)) in (1..).zip(updates) {
                let remove = remove.iter().filter_map(Item::key).collect();
                let (base, epoch_sequence) = (revision - 1, revision);
                let update = Update { epoch_term: 1, epoch_sequence, base, revision, put, remove };
                let changed = pushed.apply(update).unwrap();
                fib = fib.updated(&pushed, &changed, RelayId(1));
                prop_assert_eq!(&fib, &Fib::new(&pushed, RelayId(1)));
            }
        }
    }

    #[test]
    fn the_nearest_relay_of_a_service_comes_first_and_one_without_a_path_last() {
        let service = Service { name: "web".into(), relays: vec![2, 3, 4, 70_000] };
        let eu = Policy { policy: 9, name: "eu".into(), relays: vec![1, 2, 4] };
        let fib = fib(vec![
            eu.into(),
            route(2, vec![(steps(&[2]), 9_000)]),
            route(3, vec![(steps(&[3]), 5_000)]),
            service.into(),
        ]);

        let relays = fib.service("web", Class::Realtime, PolicyId(0), RelayId(1));

        assert_eq!(relays, [RelayId(3), RelayId(2), RelayId(4)]);
        let of_policy = |policy| fib.service("web", Class::Realtime, PolicyId(policy), RelayId(1));
        assert_eq!((of_policy(9), of_policy(8)), (vec![RelayId(2), RelayId(4)], vec![]));
        assert!(fib.service("other", Class::Realtime, PolicyId(0), RelayId(1)).is_empty());
    }
}
