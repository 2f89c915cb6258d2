//! From links to pushed state: the topology, the plan, and the items made of them.

mod peers;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use overway_topology::{
    Candidate, LinkMeasure, Plan, Planner, PlannerConfig, RelayAttributes, RouteChange, RouteKey,
    Topology, diff,
};
use overway_wire::control::{Item, Key, Route, RoutePath, Sort};
use overway_wire::{LinkId, NeighbourLink, RelayId};

pub(crate) use peers::{Line, lines_between, peer, peer_key};
pub(crate) use shared::{Member, shared_items};

/// The mesh as the planner sees it, and what the relays were told of it.
#[derive(Debug)]
pub(crate) struct Mesh {
    topology: Topology,
    planner: Planner,
    /// The routes as last put into the relays' states: older than the last plan where only costs and
    /// small changes of delay differ.
    told: Plan,
    /// The last plan.
    latest: Plan,
    /// Links on some path, each in the direction from its lesser relay.
    candidates: BTreeSet<LinkId>,
}

/// What a plan changed.
#[derive(Debug, Default)]
pub(crate) struct Replanned {
    pub(crate) routes: Vec<RouteChange>,
    /// Links that came onto a path or left the last one, each in the direction from its lesser relay.
    pub(crate) roles: Vec<LinkId>,
}

impl Mesh {
    pub(crate) fn new(config: PlannerConfig) -> Self {
        Self {
            topology: Topology::new(),
            planner: Planner::new(config),
            told: Plan::default(),
            latest: Plan::default(),
            candidates: BTreeSet::new(),
        }
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The routes of the last plan.
    pub(crate) fn routes(&self) -> &BTreeMap<RouteKey, Vec<Candidate>> {
        &self.latest.routes
    }

    /// Whether a link is on some path, in either direction.
    pub(crate) fn is_candidate(&self, link: LinkId) -> bool {
        self.candidates.contains(&undirected(link))
    }

    pub(crate) fn put_relay(&mut self, relay: RelayId, attributes: RelayAttributes) {
        self.topology
            .put_relay(relay, attributes)
            .expect("fewer relays are registered than a topology holds");
    }

    /// Forgets a relay, its links and the routes from it.
    pub(crate) fn remove_relay(&mut self, relay: RelayId) {
        self.topology.remove_relay(relay);
        self.told.routes.retain(|key, _| key.source != relay);
    }

    pub(crate) fn remove_link(&mut self, link: LinkId) {
        self.topology.remove_link(link);
    }

    pub(crate) fn put_link(&mut self, link: LinkId, measure: LinkMeasure) {
        self.topology
            .put_link(link, measure)
            .expect("planned links are between two registered relays, at most two per pair");
    }

    /// Plans, and takes the plan as told.
    pub(crate) fn replan(&mut self, now: Instant) -> Replanned {
        self.latest = self.planner.plan(&self.topology, now);
        let routes = diff(&self.told, &self.latest);
        if routes.is_empty() {
            return Replanned::default();
        }
        for change in &routes {
            self.told.apply(change.clone());
        }
        let candidates: BTreeSet<LinkId> = self
            .told
            .routes
            .iter()
            .flat_map(|(key, candidates)| links_of(*key, candidates))
            .collect();
        let roles = self.candidates.symmetric_difference(&candidates).copied().collect();
        self.candidates = candidates;
        Replanned { routes, roles }
    }
}

/// The same link, in the direction from its lesser relay.
pub(crate) fn undirected(link: LinkId) -> LinkId {
    if link.from <= link.to { link } else { link.reversed() }
}

/// The links of a route's paths, each in the direction from its lesser relay.
fn links_of(key: RouteKey, candidates: &[Candidate]) -> impl Iterator<Item = LinkId> {
    candidates.iter().flat_map(move |candidate| {
        let mut at = key.source;
        candidate.path.elements().iter().map(move |step| {
            let link = NeighbourLink::new(step.relay, step.link).outbound(at);
            at = step.relay;
            undirected(link)
        })
    })
}

/// The key of a route in its source's pushed state.
pub(crate) fn route_key(key: RouteKey) -> Key {
    Key {
        sort: Sort::Route.into(),
        relay: u32::from(key.destination.0),
        part: u32::from(key.class.code()),
        name: String::new(),
    }
}

/// A route as its source is told of it.
pub(crate) fn route(key: RouteKey, candidates: &[Candidate]) -> Arc<Item> {
    let paths = candidates.iter().map(|candidate| {
        let mut steps = Vec::new();
        candidate.path.encode(&mut steps);
        RoutePath { steps, delay_us: candidate.delay.0 }
    });
    Arc::new(Item::from(Route {
        destination: u32::from(key.destination.0),
        class: u32::from(key.class.code()),
        paths: paths.collect(),
    }))
}
