//! From links to pushed state: the topology, the plan, and the items made of them.

mod peers;
mod shared;

use std::sync::Arc;
use std::time::Instant;

use overway_topology::{
    CANDIDATES_MAX, Executor, LinkMeasure, Planner, Policy, RelayAttributes, RouteKey, Topology,
    TopologyError,
};
use overway_wire::control::{Item, Route, RoutePath};
use overway_wire::{LinkId, Micros, Path, PolicyId, RelayId};

use crate::Config;

pub(crate) use peers::{Line, lines_between, peer};
pub(crate) use shared::{Member, Shared};

/// The mesh as the planner sees it.
#[derive(Debug)]
pub(crate) struct Mesh {
    topology: Topology,
    planner: Planner,
}

/// What a plan changed.
#[derive(Debug, Default)]
pub(crate) struct Replanned {
    /// Routes that their sources are to be told of.
    pub(crate) routes: Vec<RouteKey>,
    /// Links that came onto a path or left the last one; of parallel ones the first, which stands for all.
    pub(crate) roles: Vec<LinkId>,
}

impl Mesh {
    pub(crate) fn new(config: &Config) -> Self {
        Self { topology: Topology::new(), planner: Planner::new(config.planner) }
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(crate) fn planner(&self) -> &Planner {
        &self.planner
    }

    /// The routes that begin at a relay, in order.
    pub(crate) fn routes_from(&self, source: RelayId) -> Vec<RouteKey> {
        self.planner.keys_from(source)
    }

    /// Whether a link is on some path, in either direction.
    pub(crate) fn is_candidate(&self, link: LinkId) -> bool {
        self.planner.is_candidate(link) || self.planner.is_candidate(link.reversed())
    }

    pub(crate) fn put_relay(&mut self, relay: RelayId, attributes: RelayAttributes) {
        self.topology
            .put_relay(relay, attributes)
            .expect("fewer relays are registered than a topology holds");
    }

    /// Forgets a relay and its links.
    pub(crate) fn remove_relay(&mut self, relay: RelayId) {
        self.topology.remove_relay(relay);
    }

    pub(crate) fn remove_link(&mut self, link: LinkId) {
        self.topology.remove_link(link);
    }

    pub(crate) fn put_link(&mut self, link: LinkId, measure: LinkMeasure) {
        self.topology
            .put_link(link, measure)
            .expect("planned links are between two registered relays, at most two per pair");
    }

    pub(crate) fn put_policy(&mut self, id: PolicyId, policy: Policy) -> Result<(), TopologyError> {
        self.topology.put_policy(id, policy)
    }

    /// Says whether it was there.
    pub(crate) fn remove_policy(&mut self, id: PolicyId) -> bool {
        self.topology.remove_policy(id)
    }

    pub(crate) fn replan(
        &mut self,
        executor: &Arc<dyn Executor + Send + Sync>,
        now: Instant,
    ) -> Replanned {
        let routes = self.planner.plan(&mut self.topology, &**executor, now);
        Replanned { routes, roles: self.planner.take_roles() }
    }
}

/// A route as its source is told of it, or `None` if it has no path. `weights` are the shares of its paths; none where all
/// goes over the first.
pub(crate) fn route(
    key: RouteKey,
    told: impl Iterator<Item = (Path, Micros)>,
    weights: &[u16],
) -> Option<Item> {
    let weight = |at: usize| weights.get(at).copied().unwrap_or(0);
    let mut paths = Vec::with_capacity(CANDIDATES_MAX);
    for (at, (path, delay)) in told.enumerate() {
        let mut steps = Vec::with_capacity(path.encoded_len());
        path.encode(&mut steps);
        paths.push(RoutePath { steps, delay_us: delay.0, weight: weight(at).into() });
    }
    let route = |paths| Route {
        destination: u32::from(key.destination.0),
        class: u32::from(key.class.code()),
        paths,
        policy: u32::from(key.policy.0),
    };
    (!paths.is_empty()).then(|| Item::from(route(paths)))
}
