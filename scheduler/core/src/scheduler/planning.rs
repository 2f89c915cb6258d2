//! Plans, and what of them goes to whom.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use overway_topology::RouteChange;
use overway_wire::{LinkId, NeighbourLink, RelayId};

use super::{PlanDue, Scheduler, Urgency};
use crate::Event;
use crate::links::link_index;
use crate::plan::{
    Line, Member, Replanned, lines_between, peer, peer_key, route, route_key, shared_items,
};
use crate::registration::LINKS_MAX;
use crate::session::Relay;

/// Least time between two urgent plans, for each registered relay: a plan's work grows with the mesh, and
/// one flapping link must not take the whole processor. Thirty relays are planned every 30 ms at most.
const URGENT_SPACING_PER_RELAY: Duration = Duration::from_millis(1);

impl Scheduler {
    /// Asks for a plan, no later than one that is due already.
    pub(super) fn request_plan(&mut self, urgency: Urgency) {
        let spaced =
            |spacing| self.last_plan.map_or(self.now, |last| (last + spacing).max(self.now));
        let at = match urgency {
            Urgency::Routine => spaced(self.config.epoch_interval),
            Urgency::Urgent => {
                let relays = u32::try_from(self.mesh.topology().relays().len()).unwrap_or(u32::MAX);
                let spacing = URGENT_SPACING_PER_RELAY.saturating_mul(relays);
                spaced(spacing.min(self.config.epoch_interval)).max(self.now + self.config.debounce)
            }
        };
        self.request_plan_at(at, urgency);
    }

    /// As [`Self::request_plan`], at this time.
    pub(super) fn request_plan_at(&mut self, at: Instant, urgency: Urgency) {
        if self.plan_due.is_none_or(|due| at < due.at) {
            self.plan_due = Some(PlanDue { at, urgency });
        }
    }

    /// Asks for a plan where a relay waited long enough for its first update.
    pub(super) fn expire_holds(&mut self) {
        if self.plan_due.is_none() && self.first_hold().is_some_and(|hold| hold <= self.now) {
            self.request_plan(Urgency::Urgent);
        }
    }

    /// When the first relay has waited long enough for its first update.
    pub(super) fn first_hold(&self) -> Option<Instant> {
        self.relays.values().filter_map(|relay| relay.session?.hold_until).min()
    }

    /// Gives up updates that were not acknowledged: the relay gets the whole state.
    pub(super) fn expire_updates(&mut self) {
        for relay in self.relays.values_mut().filter(|relay| relay.session.is_some()) {
            let deadline = relay.push.ack_deadline(self.config.ack_timeout);
            if deadline.is_some_and(|deadline| deadline <= self.now) {
                relay.push.forget();
                self.stats.ack_timeouts += 1;
            }
        }
    }

    /// Marks every relay that may be sent an update.
    pub(super) fn offer_updates(&mut self) {
        let ids: Vec<RelayId> = self.relays.keys().copied().collect();
        for id in ids {
            self.offer_update(id);
        }
    }

    /// Marks a relay if it may be sent an update.
    pub(super) fn offer_update(&mut self, id: RelayId) {
        let held = |relay: &Relay| relay.session.is_none_or(|session| session.hold_until.is_some());
        let Some(relay) = self.relays.get(&id).filter(|relay| !held(relay)) else { return };
        let due = relay.push.due(self.now).is_some_and(|due| due <= self.now);
        if due && self.phase == super::Phase::Planning {
            self.ready.insert(id);
        }
    }

    /// Plans if a plan is due, and makes an epoch of what changed.
    pub(super) fn plan_if_due(&mut self) {
        let Some(due) = self.plan_due.filter(|due| due.at <= self.now) else { return };
        self.plan_due = None;
        self.last_plan = Some(self.now);
        self.stats.plans += 1;
        self.stats.plans_urgent += u64::from(due.urgency == Urgency::Urgent);

        let relinked = std::mem::take(&mut self.relinked);
        self.put_links(&relinked);
        self.judge_links();
        let replanned = self.mesh.replan(self.now);
        self.push_peers(&relinked, &replanned.roles);
        self.push_routes(&replanned);
        self.push_shared();
        self.make_epoch(replanned.routes.len());
        self.release_holds();
    }

    /// Makes the links of these relays anew.
    fn put_links(&mut self, relinked: &BTreeSet<RelayId>) {
        for (local, remote) in self.pairs_with(relinked) {
            let lines = self.lines(local, remote);
            let price = self.relays.get(&local).and_then(|relay| relay.registration.as_ref());
            let price = price.map(|registration| registration.price).unwrap_or_default();
            for (index, line) in lines.into_iter().enumerate() {
                let link = LinkId::new(local, remote, link_index(index));
                match line {
                    Some(line) => self.links.put(link, line.capacity, price),
                    None => {
                        let gone = self.links.remove(link);
                        self.mesh.remove_link(link);
                        if gone.is_some_and(|gone| gone.usable()) {
                            self.emit(Event::LinkChanged { link, usable: false });
                        }
                    }
                }
            }
        }
    }

    fn judge_links(&mut self) {
        let liveness = self.liveness();
        for judged in self.links.judge(&liveness) {
            self.mesh.put_link(judged.id, judged.measure);
            if judged.changed {
                let usable = judged.measure.usable;
                self.emit(Event::LinkChanged { link: judged.id, usable });
            }
        }
    }

    fn push_peers(&mut self, relinked: &BTreeSet<RelayId>, roles: &[LinkId]) {
        let role_pairs = roles.iter().flat_map(|link| [(link.from, link.to), (link.to, link.from)]);
        let mut pairs: BTreeSet<(RelayId, RelayId)> = role_pairs.collect();
        pairs.extend(self.pairs_with(relinked));
        for (local, remote) in pairs {
            for (index, line) in self.lines(local, remote).into_iter().enumerate() {
                let link = NeighbourLink::new(remote, link_index(index));
                let candidate = self.mesh.is_candidate(link.outbound(local));
                let item = line.map(|line| peer(link, line, candidate));
                if let Some(relay) = self.relays.get_mut(&local) {
                    relay.push.set(peer_key(link), item);
                }
            }
        }
    }

    fn push_routes(&mut self, replanned: &Replanned) {
        for change in &replanned.routes {
            let (key, item) = match change {
                RouteChange::Put { key, candidates } => (*key, Some(route(*key, candidates))),
                RouteChange::Removed { key } => (*key, None),
            };
            if let Some(relay) = self.relays.get_mut(&key.source) {
                relay.push.set(route_key(key), item);
            }
        }
    }

    /// Nodes, services and revocations. A service is to be had where its relay is connected, or still
    /// reached by others; not where it is about to stop.
    fn push_shared(&mut self) {
        let usable = self.links.planned().iter().filter(|(_, link)| link.usable());
        let reached: BTreeSet<RelayId> = usable.map(|(link, _)| link.to).collect();
        let members = self.relays.iter().map(|(&id, relay)| {
            let there = !relay.draining && (relay.session.is_some() || reached.contains(&id));
            let registration = relay.registration.as_ref().filter(|_| there);
            let services = registration.map(|registration| &registration.services);
            Member { id, name: &relay.name, services }
        });
        let items = shared_items(members, &self.revoked);
        let removed = self.shared.keys().filter(|key| !items.contains_key(key));
        let removed = removed.map(|key| (key.clone(), None));
        let put = items.iter().filter(|(key, item)| self.shared.get(key) != Some(item));
        let put = put.map(|(key, item)| (key.clone(), Some(item.clone())));
        let changes: Vec<_> = removed.chain(put).collect();
        self.shared = items;
        for relay in self.relays.values_mut().filter(|relay| relay.registration.is_some()) {
            for (key, item) in &changes {
                relay.push.set(key.clone(), item.clone());
            }
        }
    }

    /// Makes an epoch if some relay's state changed.
    fn make_epoch(&mut self, changed_routes: usize) {
        let registered = self.relays.values_mut().filter(|relay| relay.registration.is_some());
        let updates = registered.filter_map(|relay| relay.push.commit().then_some(())).count();
        if updates > 0 {
            self.epoch.sequence += 1;
            self.stats.epochs += 1;
            self.emit(Event::EpochMade { epoch: self.epoch, changed_routes, updates });
        }
    }

    /// Lets relays have updates whose state is now as whole as it will be.
    fn release_holds(&mut self) {
        let now = self.now;
        for session in self.relays.values_mut().filter_map(|relay| relay.session.as_mut()) {
            if session.may_push(now) {
                session.hold_until = None;
            }
        }
    }

    /// Every ordered pair of registered relays of which one is among these.
    fn pairs_with(&self, ids: &BTreeSet<RelayId>) -> BTreeSet<(RelayId, RelayId)> {
        let registered: Vec<RelayId> = self.mesh.topology().relays().map(|(id, _)| id).collect();
        let pairs = ids.iter().flat_map(|&id| {
            let others = registered.iter().filter(move |&&other| other != id);
            others.flat_map(move |&other| [(id, other), (other, id)])
        });
        pairs.collect()
    }

    /// The parallel links of a pair from the view of `local`, by index, as far as there are any.
    fn lines(&self, local: RelayId, remote: RelayId) -> [Option<Line>; LINKS_MAX] {
        let mut lines = [None; LINKS_MAX];
        let registration = |id| self.relays.get(&id).and_then(|relay| relay.registration.as_ref());
        if let (Some(local), Some(remote)) = (registration(local), registration(remote)) {
            lines
                .iter_mut()
                .zip(lines_between(local, remote))
                .for_each(|(to, line)| *to = Some(line));
        }
        lines
    }
}
