//! The forwarding information base: the pushed state as the data plane and the shell read it. Each update
//! makes another; what the update does not change is shared with the one before, for that of a large mesh
//! takes longer to read than a heartbeat should wait. How it is read is in `reading`, here is how it is asked.

mod endpoints;
mod reading;

pub use endpoints::{CellStanding, FibEndpoint};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overway_wire::control::{AccessPrefixes, AccessRelay, Tenant, WORKERS_MAX};
use overway_wire::{Class, Epoch, NeighbourLink, Path, PolicyId, RelayId};

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

    /// The number of the tenant of that name.
    pub fn tenant_named(&self, name: &str) -> Option<PolicyId> {
        self.tenants.iter().find(|(_, tenant)| tenant.pushed.name == name).map(|(&id, _)| id)
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

#[cfg(test)]
mod tests;
