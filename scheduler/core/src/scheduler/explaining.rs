//! Why routes are what they are, and what they would be.

use std::collections::BTreeSet;
use std::time::Instant;

use overway_topology::{Candidate, Cuts, RouteKey};
use overway_wire::{LinkId, RelayId};

use super::Scheduler;
use crate::{LinkLoad, RouteExplanation, RouteStatus};

impl Scheduler {
    /// Why a route is what it is; `None` if there is no such route.
    pub fn explain(&self, key: RouteKey, now: Instant) -> Option<RouteExplanation> {
        let explanation = self.mesh.planner().explain(self.mesh.topology(), key, now)?;
        let all = explanation.others.iter().chain(&explanation.direct);
        let links = all.chain([&explanation.current]).flat_map(|explained| &explained.links);
        let ids: BTreeSet<LinkId> = links.map(|link| link.id).collect();
        let candidates = self.mesh.planner().candidates(key);
        Some(RouteExplanation {
            weights: self.weights.of(key, &candidates),
            demand: self.demand_of(key),
            loads: ids.into_iter().map(|id| self.link_load(id)).collect(),
            explanation,
        })
    }

    /// Of each of these routes what it has now, and what it would have without what is cut, chosen afresh.
    pub fn what_if(
        &self,
        cuts: &Cuts,
        keys: &[RouteKey],
    ) -> Vec<(RouteKey, Vec<Candidate>, Vec<Candidate>)> {
        let then = self.mesh.planner().what_if(cuts, keys);
        let now = keys.iter().map(|key| self.mesh.planner().candidates(*key));
        keys.iter().zip(now).zip(then).map(|((key, now), then)| (*key, now, then)).collect()
    }

    /// The routes that begin at a relay, in order.
    pub fn routes_from(&self, source: RelayId) -> Vec<RouteStatus> {
        let keys = self.mesh.routes_from(source);
        keys.into_iter().map(|key| self.route_status(key)).collect()
    }

    /// The routes from a relay to another, in order.
    pub fn routes_between(&self, source: RelayId, destination: RelayId) -> Vec<RouteStatus> {
        let keys = self.mesh.routes_from(source);
        let keys = keys.into_iter().filter(|key| key.destination == destination);
        keys.map(|key| self.route_status(key)).collect()
    }

    /// Whether paths leave a link where another way leads there, or it is not to be used at all: by an operator's
    /// wish, a doubt about an end, or a line whose volume is spent.
    pub fn is_left(&self, link: LinkId) -> bool {
        self.mesh.topology().link(link).is_some_and(|measure| measure.draining)
    }

    fn route_status(&self, key: RouteKey) -> RouteStatus {
        let candidates = self.mesh.planner().candidates(key);
        let weights = self.weights.of(key, &candidates);
        RouteStatus { key, candidates, weights }
    }

    fn link_load(&self, id: LinkId) -> LinkLoad {
        let rate = self.links.observed(id).map(|seen| seen.received).unwrap_or_default();
        let capacity = self.links.planned(id).map(|link| link.capacity).unwrap_or_default();
        LinkLoad { id, rate, capacity }
    }
}
