//! Plans, and what of them goes to whom.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use overway_wire::{LinkId, RelayId};

use super::{PlanDue, Rest, Scheduler, Urgency};
use crate::access::Surroundings;
use crate::links::{self, Standing, link_index};
use crate::neighbours::Bond;
use crate::plan::{Line, Member, Replanned, lines_between};
use crate::registration::LINKS_MAX;
use crate::{DrainStage, Event};

/// Least time between two urgent plans, for each registered relay: a plan's work grows with the mesh, and
/// one flapping link must not take the whole processor. Thirty relays are planned every 30 ms at most.
const URGENT_SPACING_PER_RELAY: Duration = Duration::from_millis(1);

/// After a plan that took long there is a rest of one of so many parts of that time. What relays of a large mesh report
/// takes a few hundredths of the time; and what changes meanwhile makes the next plan longer.
const REST_SHARE: u32 = 4;

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
        self.request_plan_at(at.max(self.rest.until(urgency)), urgency);
    }

    /// The last plan took so long: leaves time for messages before the next one.
    pub(super) fn begin_rest(&mut self, took: Duration) {
        let rest = took / REST_SHARE;
        let urgent = rest.min(self.config.epoch_interval);
        self.rest = Rest { routine: self.now + rest, urgent: self.now + urgent };
        if let Some(due) = &mut self.plan_due {
            due.at = due.at.max(self.rest.until(due.urgency));
        }
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
        let held = self.held.iter().filter_map(|id| self.relays.get(id)?.session?.hold_until);
        held.min()
    }

    /// Marks every relay that may be sent an update.
    pub(super) fn offer_updates(&mut self) {
        let ids: Vec<RelayId> = self.relays.keys().copied().collect();
        for id in ids {
            self.offer_update(id);
            self.arm(id);
        }
    }

    /// Marks a relay if it may be sent an update.
    pub(super) fn offer_update(&mut self, id: RelayId) {
        let Some(relay) = self.relays.get(&id) else { return };
        let held = relay.session.is_none_or(|session| session.hold_until.is_some());
        let due = relay.push.due(self.now).is_some_and(|due| due <= self.now);
        if !held && due && self.phase == super::Phase::Planning {
            self.ready.insert(id);
        }
    }

    /// Plans if a plan is due, and makes an epoch of what changed; says whether it did.
    pub(super) fn plan_if_due(&mut self) -> bool {
        let Some(due) = self.plan_due.filter(|due| due.at <= self.now) else { return false };
        self.plan_due = None;
        self.last_plan = Some(self.now);
        self.stats.plans += 1;
        self.stats.plans_urgent += u64::from(due.urgency == Urgency::Urgent);

        self.put_links();
        self.reprice_links();
        self.judge_links();
        let replanned = self.mesh.replan(&self.config.executor, self.now);
        self.push_roles(&replanned.roles);
        self.push_routes(&replanned);
        self.place_demand(!replanned.routes.is_empty());
        self.push_shared();
        self.push_services();
        self.push_access();
        self.make_epoch(replanned.routes.len());
        self.release_holds();
        true
    }

    /// Makes links anew where relays became neighbours, ceased to be, or said something new of their lines.
    fn put_links(&mut self) {
        self.review_neighbours();
        let mut relinked = std::mem::take(&mut self.relinked);
        let mut pairs = std::mem::take(&mut self.parting);
        if std::mem::take(&mut self.relink_all) {
            let strangers =
                self.links.iter().map(|(id, _)| (id.from.min(id.to), id.from.max(id.to)));
            pairs.extend(strangers.filter(|&(a, b)| !self.neighbours.are(a, b)));
            relinked.extend(self.mesh.topology().relays().map(|(id, _)| id));
        }
        for id in relinked {
            let others = self.neighbours.of(id).into_iter();
            pairs.extend(others.map(|other| (id.min(other), id.max(other))));
        }
        for (a, b) in pairs {
            match self.neighbours.bond(a, b) {
                Bond::Full => self.put_pair(a, b),
                Bond::Trial => {
                    self.put_pair(a, b);
                    self.withdraw_pair(a, b);
                }
                Bond::None => self.remove_pair(a, b),
            }
        }
    }

    /// Between plans that take long: relays learn of new neighbours at once, so that the next plan knows how near they
    /// are. Those that are none any more keep their links until then, for routes take them.
    pub(super) fn introduce_if_due(&mut self) {
        if self.introduction().is_none_or(|at| at > self.now) {
            return;
        }
        self.last_introduction = Some(self.now);
        self.review_neighbours();
        self.make_epoch(0);
        self.offer_updates();
    }

    /// When neighbours are to be reviewed before the next plan, if they are.
    pub(super) fn introduction(&self) -> Option<Instant> {
        let due = self.neighbours.next_review()?;
        let spaced = self.last_introduction.map(|last| last + self.config.epoch_interval);
        let at = spaced.map_or(due, |spaced| spaced.max(due));
        (at < self.rest.routine && !self.relink_all).then_some(at)
    }

    /// Reviews neighbours, and links those that are new.
    fn review_neighbours(&mut self) {
        let links = &self.links;
        self.neighbours.review(self.now, |a, b| links.round_trip(a, b));
        let change = self.neighbours.take_change();
        self.relink_all |= change.anew;
        for (a, b) in change.pairs {
            match self.neighbours.bond(a, b) {
                Bond::Full => {
                    self.put_pair(a, b);
                    // It may have been measured as a trial.
                    self.links.suspect_pair(a, b);
                }
                Bond::Trial => {
                    self.put_pair(a, b);
                    self.parting.insert((a, b));
                }
                Bond::None => {
                    self.parting.insert((a, b));
                }
            }
        }
    }

    /// Makes the links between two neighbours anew.
    fn put_pair(&mut self, a: RelayId, b: RelayId) {
        self.put_lines(a, b);
        self.put_lines(b, a);
    }

    /// Makes the links from a relay to a neighbour anew.
    fn put_lines(&mut self, local: RelayId, remote: RelayId) {
        for (index, line) in self.lines(local, remote).into_iter().enumerate() {
            let link = LinkId::new(local, remote, link_index(index));
            if let Some(line) = line {
                let price = self.price(local, index);
                let line = links::Line { capacity: line.capacity, price };
                self.stats.links_added += u64::from(self.links.put(link, line));
                self.touch_peer(local, remote, link.index);
            } else {
                self.remove_link(link);
            }
        }
    }

    /// Tells the links of relays of which a line costs something else now, or is used otherwise.
    fn reprice_links(&mut self) {
        for id in std::mem::take(&mut self.repriced) {
            for remote in self.neighbours.of(id) {
                for (index, line) in self.lines(id, remote).into_iter().enumerate() {
                    let Some(line) = line else { continue };
                    let link = LinkId::new(id, remote, link_index(index));
                    let price = self.price(id, index);
                    self.links.put(link, links::Line { capacity: line.capacity, price });
                    self.links.suspect(link);
                }
            }
        }
    }

    /// Two relays are no longer to have links with one another.
    pub(super) fn remove_pair(&mut self, a: RelayId, b: RelayId) {
        for index in (0..LINKS_MAX).map(link_index) {
            self.remove_link(LinkId::new(a, b, index));
            self.remove_link(LinkId::new(b, a, index));
        }
    }

    /// Routes are to take no link of two relays any more, which goes on being measured.
    fn withdraw_pair(&mut self, a: RelayId, b: RelayId) {
        for index in (0..LINKS_MAX).map(link_index) {
            self.mesh.remove_link(LinkId::new(a, b, index));
            self.mesh.remove_link(LinkId::new(b, a, index));
        }
    }

    fn remove_link(&mut self, link: LinkId) {
        let Some(usable) = self.links.remove(link) else { return };
        self.stats.links_removed += 1;
        self.mesh.remove_link(link);
        self.touch_peer(link.from, link.to, link.index);
        if usable {
            self.emit(Event::LinkChanged { link, usable: false });
        }
    }

    fn judge_links(&mut self) {
        let topology = self.mesh.topology();
        let before = |id| topology.link(id).copied();
        let mut links = std::mem::take(&mut self.links);
        let judged = links.judge(|id| self.standing(id), before);
        self.links = links;
        self.stats.links_judged += u64::try_from(judged.len()).unwrap_or(u64::MAX);
        let mut turned = BTreeSet::new();
        for judged in judged {
            if self.neighbours.bond(judged.id.from, judged.id.to) == Bond::Trial {
                continue;
            }
            self.mesh.put_link(judged.id, judged.measure);
            if judged.changed {
                self.shared_changed = true;
                let usable = judged.measure.usable;
                self.emit(Event::LinkChanged { link: judged.id, usable });
                turned.insert(judged.id.to);
            }
        }
        for relay in turned {
            self.judge_reach(relay);
        }
    }

    /// Says so if no usable link leads to a relay any more, or one does again.
    fn judge_reach(&mut self, relay: RelayId) {
        if !self.links.is_reached(relay) {
            if self.unreached.insert(relay) {
                self.emit(Event::RelayUnreached { relay });
            }
        } else if self.unreached.remove(&relay) {
            self.emit(Event::RelayReached { relay });
        }
    }

    /// What operators, doubts and the sender's line say of a link.
    fn standing(&self, link: LinkId) -> Standing {
        let drain = self.drains.link(link);
        let sender = self.relays.get(&link.from);
        let line = sender.map(|relay| relay.line_states[usize::from(link.index.value())]);
        let line = line.unwrap_or_default();
        let doubted = self.doubts.contains(link.from) || self.doubts.contains(link.to);
        Standing {
            closed: drain == Some(DrainStage::Over),
            draining: drain.is_some() || line.spent || doubted && !self.mesh.is_candidate(link),
            line_load: line.load,
        }
    }

    /// Tells the ends of links that came onto a path or left the last one.
    fn push_roles(&mut self, roles: &[LinkId]) {
        for link in roles {
            for index in (0..LINKS_MAX).map(link_index) {
                let link = LinkId { index, ..*link };
                if self.links.planned(link).is_some() {
                    self.touch_peer(link.from, link.to, index);
                    self.touch_peer(link.to, link.from, index);
                }
            }
        }
    }

    fn push_routes(&mut self, replanned: &Replanned) {
        for &key in &replanned.routes {
            self.touch_route(key);
        }
    }

    /// Nodes, policies, services and revocations. A service is to be had where its relay is connected, or still
    /// reached by others; not where it is about to stop, and from a drained relay only where no other has it.
    fn push_shared(&mut self) {
        if !std::mem::take(&mut self.shared_changed) {
            return;
        }
        let mut theres = Vec::with_capacity(self.relays.len());
        let mut sides = Vec::with_capacity(self.relays.len());
        let members = self.relays.iter().map(|(&id, relay)| {
            let there = relay.session.is_some() || self.links.is_reached(id);
            let drain = self.drains.relay(id);
            let there = there && !relay.draining && drain != Some(DrainStage::Over);
            let registration = relay.registration.as_ref().filter(|_| there);
            theres.push((id, registration.is_some()));
            sides.push((
                id,
                registration.map(|registration| Surroundings::of(registration, drain.is_some())),
            ));
            let services = registration.map(|registration| &registration.services);
            let deadline = self.drains.deadline(id);
            let drain = drain.map(|stage| (stage, deadline));
            Member { id, name: &relay.name, services, drain }
        });
        let change = self.shared.replace(members, &self.revoked, self.mesh.topology());
        self.follow_cells();
        theres.into_iter().for_each(|(id, there)| self.services.handle_there(id, there));
        sides.into_iter().for_each(|(id, around)| self.access.handle_surroundings(id, around));
        for relay in self.relays.values_mut().filter(|relay| relay.registration.is_some()) {
            if change.renumbered {
                relay.push.forget();
            }
            for &key in &change.keys {
                if relay.may_have(key) {
                    relay.push.touch(key);
                }
            }
        }
    }

    /// Services of tenants, as far as they changed.
    fn push_services(&mut self) {
        if !self.services.is_dirty() {
            return;
        }
        let change = self.services.remake();
        self.stats.services_refused += change.services_refused;
        self.stats.endpoints_refused += change.endpoints_refused;
        for (&id, relay) in self.relays.iter_mut().filter(|(_, relay)| relay.registration.is_some())
        {
            if change.renumbered {
                relay.push.forget();
            }
            for &(tenant, key) in &change.keys {
                if relay.may_have(key) && self.records.keeps(id, tenant) {
                    relay.push.touch(key);
                }
            }
        }
    }

    /// Where clients may attach, as far as it changed.
    fn push_access(&mut self) {
        let (keys, refused) = self.access.remake();
        self.stats.prefixes_refused += refused;
        if keys.is_empty() {
            return;
        }
        for relay in self.relays.values_mut().filter(|relay| relay.registration.is_some()) {
            for &key in &keys {
                if relay.may_have(key) {
                    relay.push.touch(key);
                }
            }
        }
    }

    /// Makes an epoch if some relay's state changed.
    fn make_epoch(&mut self, changed_routes: usize) {
        let registered = self.mesh.topology().relays().len();
        let policies = self.mesh.topology().policies().len();
        // Routes in three classes, and links with everybody.
        let alike = self.shared.keys().len() + self.tenants.len() + self.services.keys().len();
        let alike = alike + self.access.keys().count();
        let items = alike + registered * (3 * (1 + policies) + LINKS_MAX);
        let pushes = self.relays.values_mut().filter(|relay| relay.registration.is_some());
        let updates = pushes.filter_map(|relay| relay.push.commit(items).then_some(())).count();
        self.stats.routes_changed += u64::try_from(changed_routes).unwrap_or(u64::MAX);
        if updates > 0 {
            self.epoch.sequence += 1;
            self.stats.epochs += 1;
            self.emit(Event::EpochMade { epoch: self.epoch, changed_routes, updates });
        }
    }

    /// Lets relays have updates whose state is now as whole as it will be.
    fn release_holds(&mut self) {
        let now = self.now;
        for id in std::mem::take(&mut self.held) {
            let Some(relay) = self.relays.get_mut(&id) else { continue };
            let Some(session) = relay.session.as_mut() else { continue };
            if session.may_push(now) {
                session.hold_until = None;
            } else {
                self.held.insert(id);
            }
        }
    }

    /// The parallel links of a pair from the view of `local`, by index, as far as there are any.
    pub(super) fn lines(&self, local: RelayId, remote: RelayId) -> [Option<Line>; LINKS_MAX] {
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
