//! The scheduler's knowledge for people.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use overway_topology::{Candidate, Delays, Reason, RouteKey};
use overway_wire::control::{Item, Role, State};
use overway_wire::{Class, LinkId, Micros, PolicyId, RelayId};

use super::{Phase, Scheduler};
use crate::links::{Link, load};
use crate::neighbours::Bond;
use crate::session::Relay;
use crate::status::{
    DrainStatus, Improvement, LinkStatus, PolicyStatus, RelayStatus, RouteSummary, Status,
    TenantSummary,
};
use crate::{DrainStage, Drainable};

/// Routes that are looked at for one status; of a greater mesh those of every so manieth relay. A hundred thousand
/// take some tens of milliseconds.
const ROUTES_LOOKED_AT_MAX: usize = 100_000;

/// What a look at the routes finds.
#[derive(Default)]
struct Survey {
    summary: RouteSummary,
    /// Pairs with a direct path and a route, in the realtime class.
    pairs: usize,
    gains: Vec<Micros>,
    /// By drain: routes whose path in use goes over it.
    on_drains: Vec<usize>,
}

impl Scheduler {
    /// Where clients may attach, as every relay is told of it.
    pub fn access_items(&self) -> Vec<Arc<Item>> {
        self.access.items().cloned().collect()
    }

    /// The registered relays that a policy allows; `None` if there is no such policy.
    pub fn allowed_by(&self, policy: PolicyId) -> Option<BTreeSet<RelayId>> {
        let topology = self.mesh.topology();
        let (_, policy) = topology.policies().find(|&(id, _)| id == policy)?;
        let allowed = topology.relays().filter(|(id, relay)| policy.allows(*id, relay));
        Some(allowed.map(|(id, _)| id).collect())
    }

    /// Whether a relay is registered and takes part: it has a session, or others still reach it.
    pub fn is_there(&self, relay: RelayId) -> bool {
        let known = self.relays.get(&relay).filter(|known| known.registration.is_some());
        known.is_some_and(|known| known.session.is_some() || self.links.is_reached(relay))
    }

    /// Everything that is known at this moment but the routes; takes time in proportion to links.
    pub fn status(&self, now: Instant) -> Status {
        let delays = Delays::fit(self.mesh.topology());
        let survey = self.survey();
        let mut links: Vec<LinkStatus> = self
            .links
            .iter()
            .map(|(id, link)| self.link_status(id, link, delays.link(id).map(|delay| delay.fast)))
            .collect();
        links.sort_by_key(|link| link.id);
        let drains = self.drains.iter().zip(&survey.on_drains);
        let drains = drains.map(|((target, drain, stage), &routes_on_it)| DrainStatus {
            target,
            stage,
            remaining: drain.deadline.map(|at| at.saturating_duration_since(now)),
            routes_on_it,
            attachments: self.attachments_at(target),
        });
        let topology = self.mesh.topology();
        let policies = topology.policies().map(|(id, policy)| PolicyStatus {
            id,
            policy: policy.clone(),
            relays: topology.relays().filter(|(id, relay)| policy.allows(*id, relay)).count(),
        });
        Status {
            epoch: self.epoch,
            settling: self.phase != Phase::Planning,
            relays: self
                .relays
                .iter()
                .map(|(&id, relay)| self.relay_status(id, relay, now))
                .collect(),
            links,
            drains: drains.collect(),
            policies: policies.collect(),
            overloads: self.overload_status(now),
            routes: survey.summary,
            improvement: Improvement::of(survey.pairs, survey.gains),
        }
    }

    /// How many tenants there are, and what their edges offer; takes time in proportion to that.
    pub fn tenant_summary(&self) -> TenantSummary {
        let (services, without_endpoint) = self.services.count();
        TenantSummary { tenants: self.tenants.len(), services, without_endpoint }
    }

    /// Edges attached to a relay that is drained.
    fn attachments_at(&self, target: Drainable) -> u32 {
        match target {
            Drainable::Relay(relay) => {
                self.relays.get(&relay).and_then(|relay| relay.attachments).unwrap_or(0)
            }
            Drainable::Link(..) => 0,
        }
    }

    /// Looks at the routes, or at those of every so manieth relay.
    fn survey(&self) -> Survey {
        let sources: Vec<RelayId> = self.mesh.topology().relays().map(|(id, _)| id).collect();
        let routes = sources.len() * sources.len() * Class::ALL.len();
        let step = routes.div_ceil(ROUTES_LOOKED_AT_MAX).max(1);
        let drains: Vec<Drainable> = self.drains.iter().map(|(target, ..)| target).collect();
        let mut survey = Survey { on_drains: vec![0; drains.len()], ..Survey::default() };
        for &source in sources.iter().step_by(step) {
            for key in self.mesh.routes_from(source) {
                self.look_at(key, &drains, &mut survey);
            }
        }
        survey.summary.split = self.weights.len();
        survey
    }

    fn look_at(&self, key: RouteKey, drains: &[Drainable], survey: &mut Survey) {
        let candidates = self.mesh.planner().candidates(key);
        let Some(best) = candidates.first() else { return };
        survey.summary.looked_at += 1;
        survey.summary.indirect += usize::from(!best.is_direct());
        let disjoint = |reason: Reason| reason == Reason::Disjoint;
        let has_disjoint = candidates.iter().any(|candidate| disjoint(candidate.reason));
        // A direct path shares no relay with any other.
        let lone =
            !has_disjoint && (best.is_direct() || !candidates.iter().any(Candidate::is_direct));
        survey.summary.without_disjoint += usize::from(lone);
        for (count, drain) in survey.on_drains.iter_mut().zip(drains) {
            *count += usize::from(is_on(key, &best.path, *drain));
        }
        if key.class != Class::Realtime || key.policy != PolicyId::default() {
            return;
        }
        let direct = candidates.iter().filter(|candidate| candidate.is_direct());
        if let Some(direct) = direct.map(|candidate| candidate.delay).min() {
            survey.pairs += 1;
            if !best.is_direct() && best.delay < direct {
                survey.gains.push(Micros(direct.0 - best.delay.0));
            }
        }
    }

    pub(super) fn link_status(&self, id: LinkId, link: Link, delay: Option<Micros>) -> LinkStatus {
        let receiver = self.links.observed(id);
        let sender = self.links.observed(id.reversed());
        let received = receiver.map(|receiver| receiver.received).unwrap_or_default();
        let candidate = self.mesh.is_candidate(id);
        LinkStatus {
            id,
            usable: link.usable,
            trial: self.neighbours.bond(id.from, id.to) == Bond::Trial,
            known: self.is_fresh(id.from) || self.is_fresh(id.to),
            inbound: receiver.map_or(State::Unknown, |receiver| receiver.inbound),
            outbound: sender.map_or(State::Unknown, |sender| sender.outbound),
            mtu: sender.map_or(0, |sender| sender.mtu),
            fast: receiver.and_then(|receiver| receiver.fast),
            slow: receiver.and_then(|receiver| receiver.slow),
            delay,
            received,
            capacity: link.capacity,
            load: load(received, link.capacity),
            role: if candidate { Role::Candidate } else { Role::Idle },
        }
    }

    pub(super) fn relay_status(&self, id: RelayId, relay: &Relay, now: Instant) -> RelayStatus {
        let registration = relay.registration.as_ref();
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        let reported = relay.session.and_then(|session| session.reported);
        let drain = self.drains.relay(id);
        RelayStatus {
            id,
            name: relay.name.clone(),
            region: text(registration.map(|registration| &registration.region)),
            provider: text(registration.map(|registration| &registration.provider)),
            software: text(registration.map(|registration| &registration.software)),
            location: registration.and_then(|registration| registration.location),
            addresses: registration
                .map(|registration| registration.addresses.clone())
                .unwrap_or_default(),
            registered: registration.is_some(),
            connected: relay.session.is_some(),
            draining: relay.draining,
            drain,
            transit: relay.may_transit() && drain != Some(DrainStage::Over),
            transit_override: relay.transit_override,
            neighbours: self.neighbours.count(id),
            lines: relay.line_status(),
            demand: relay.demand(),
            last_report_age: reported.map(|reported| now.saturating_duration_since(reported)),
            attachments: relay.attachments,
            self_stalls: relay.self_stalls,
            services: registration
                .map(|registration| registration.services.iter().cloned().collect())
                .unwrap_or_default(),
            revision_acked: relay.push.acked(),
            revision_current: relay.push.current(),
        }
    }
}

/// Whether a path goes over something: a relay between its ends, or a link.
fn is_on(key: RouteKey, path: &overway_wire::Path, target: Drainable) -> bool {
    match target {
        Drainable::Relay(relay) => path.intermediates().iter().any(|step| step.relay == relay),
        Drainable::Link(a, b) => {
            let mut at = key.source;
            path.elements().iter().any(|step| {
                let from = std::mem::replace(&mut at, step.relay);
                (from, step.relay) == (a, b) || (from, step.relay) == (b, a)
            })
        }
    }
}
