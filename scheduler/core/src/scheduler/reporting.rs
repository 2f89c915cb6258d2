//! What relays report, taken or refused.

use overway_topology::{Resource, RouteKey};
use overway_wire::control::{AccessState, Distances, OFFERS_VERSION, Offers, Report};
use overway_wire::{BitsPerSec, LinkId, NeighbourLink, RelayId};

use super::{Scheduler, Urgency};
use crate::doubts::{Doubts, Witness};
use crate::links::Observed;
use crate::report::{self, Neighbour, Observation};
use crate::session::Demanded;
use crate::{Event, MessageError, ReportError};

/// Reports in a row, refused for their sequence, after which a relay's session ends. Without this a relay that counts
/// from a lower number again would not be heard for as long as it takes to count up.
const OUT_OF_STEP_MAX: u32 = 3;
/// Demands kept of the whole mesh, shared evenly among its relays: the smallest are left out first, and what they
/// need is small beside what is measured on the links. 24 MB.
const MESH_DEMANDS_MAX: usize = 1 << 20;
/// What is shared evenly is shared among so many at least.
const MESH_SHARES_MIN: usize = 256;
/// Demands of one report that are looked at for a sudden rise.
const RISES_MAX: usize = 16;
/// Share of the own line that a rise must be of to be looked at.
const RISE_PERCENT: u64 = 5;

impl Scheduler {
    pub(super) fn take_report(&mut self, id: RelayId, report: &Report) -> Result<(), ReportError> {
        let neighbour = |neighbour| match &neighbour {
            neighbour if self.relays.contains_key(neighbour) => Neighbour::Member,
            neighbour if self.revoked.contains(neighbour) => Neighbour::Removed,
            _ => Neighbour::Unknown,
        };
        let sequence =
            self.relays.get(&id).and_then(|relay| relay.session).map_or(0, |s| s.sequence);
        let topology = self.mesh.topology();
        let has_policy = |policy| topology.policies().any(|(id, _)| id == policy);
        let checked = report::check(id, report, sequence, neighbour, has_policy)?;
        self.stats.reports += 1;
        self.stats.absurd.add(checked.absurd);
        self.stats.report_links_ignored += u64::try_from(checked.ignored).unwrap_or(u64::MAX);
        self.stats.report_demands_ignored +=
            u64::try_from(checked.demands_ignored).unwrap_or(u64::MAX);
        let Some(relay) = self.relays.get_mut(&id) else { return Ok(()) };
        let stalls = std::mem::replace(&mut relay.self_stalls, report.self_stalls);
        let detours = std::mem::replace(&mut relay.detours, report.detours);
        relay.attachments = report.access.as_ref().map(|access| access.attachments);
        let Some(session) = relay.session.as_mut() else { return Ok(()) };
        let awaited = session.stale || session.hold_until.is_some();
        session.sequence = report.sequence;
        session.out_of_step = 0;
        let is_first = session.reported.is_none();
        session.reported = Some(self.now);
        // What a session's first report counts may be of long ago.
        if !is_first {
            self.emit_counted(id, report, stalls, detours);
        }
        if let Some(access) = &report.access {
            self.take_usage(id, access);
        }
        self.hear(id);
        self.services.handle_report(id);
        self.access.handle_report(id);
        let pressed = self.press_links(id, &checked.links);
        self.hear_of(id, &checked.links);
        let observed = self.links.observe(id, report.full, checked.links);
        self.doubt(id, &observed);
        for &link in &observed.suspected {
            self.emit(Event::LinkSuspect { link });
        }
        let pressed = self.take_lines(id, checked.lines) || pressed;
        let pressed = self.take_demands(id, checked.demands) || pressed;
        // In bounded sets links come up all the time, to see whether they are better than others.
        let met = observed.met && !self.neighbours.is_bounded();
        let urgent = observed.turned || met || awaited || pressed;
        self.request_plan(if urgent { Urgency::Urgent } else { Urgency::Routine });
        Ok(())
    }

    /// Makes events of what a relay counts and was at these numbers before.
    fn emit_counted(&mut self, relay: RelayId, report: &Report, stalls: u64, detours: u64) {
        let times = report.self_stalls.saturating_sub(stalls);
        if times > 0 {
            self.emit(Event::RelayStalled { relay, times });
        }
        let frames = report.detours.saturating_sub(detours);
        if frames > 0 {
            self.emit(Event::Detoured { relay, frames });
        }
    }

    /// Takes what a relay is offered. A relay of an earlier version has no edges.
    pub(super) fn take_offers(&mut self, id: RelayId, offers: &Offers) {
        if self.relays.get(&id).is_none_or(|relay| relay.version < OFFERS_VERSION) {
            return;
        }
        let relays = self.mesh.topology().relays().len().max(MESH_SHARES_MIN);
        self.stats.offers += 1;
        self.stats.offers_refused += self.services.handle_offers(id, offers, relays);
        self.hear(id);
        if self.services.is_dirty() {
            self.request_plan(Urgency::Urgent);
        }
    }

    /// Takes how a relay's access side stands.
    pub(super) fn take_access_state(&mut self, id: RelayId, state: &AccessState) {
        self.hear(id);
        if self.access.handle_state(id, state) {
            self.request_plan(Urgency::Routine);
        }
    }

    /// Takes how far a relay's edges' networks are.
    pub(super) fn take_distances(&mut self, id: RelayId, distances: &Distances) {
        self.hear(id);
        let relays = self.mesh.topology().relays().len().max(MESH_SHARES_MIN);
        self.stats.distances_refused += self.access.handle_distances(id, distances, relays);
        if self.access.is_dirty() {
            self.request_plan(Urgency::Routine);
        }
    }

    /// Counts a refused report, and ends the session if the relay is out of step.
    pub(super) fn refuse_report(
        &mut self,
        id: RelayId,
        reason: ReportError,
    ) -> Result<(), MessageError> {
        self.stats.reports_refused.count(reason);
        self.emit(Event::ReportRefused { relay: id, reason });
        let session = self.relays.get_mut(&id).and_then(|relay| relay.session.as_mut());
        if let (Some(session), ReportError::Sequence) = (session, reason) {
            session.out_of_step += 1;
            if session.out_of_step >= OUT_OF_STEP_MAX {
                self.stats.sessions_out_of_step += 1;
                self.handle_disconnected(id, self.now);
                return Err(MessageError::NotConnected);
            }
        }
        Err(reason.into())
    }

    /// Links that carry as much as they can.
    fn press_links(&mut self, id: RelayId, links: &[(NeighbourLink, Observation)]) -> bool {
        let mut pressed = false;
        for (link, seen) in links.iter().filter(|(_, seen)| seen.received.0 > 0) {
            let link = link.inbound(id);
            let capacity = self.links.planned(link).map(|link| link.capacity).unwrap_or_default();
            pressed |= self.press(Resource::Link(link), seen.received, capacity);
        }
        pressed
    }

    /// Ends doubts about relays that the reporter hears, and about itself.
    fn hear_of(&mut self, id: RelayId, links: &[(NeighbourLink, Observation)]) {
        if self.doubts.is_empty() {
            return;
        }
        self.trust(id, Witness::Itself);
        for (link, seen) in links {
            let up = seen.inbound == overway_wire::control::State::Up;
            if up && self.mesh.is_candidate(link.inbound(id)) {
                self.trust(link.neighbour, Witness::Neighbour);
            }
        }
    }

    /// Begins doubts about relays that the reporter lost.
    fn doubt(&mut self, id: RelayId, observed: &Observed) {
        if observed.turned_down {
            self.trust(id, Witness::Proof);
        }
        if !Doubts::are_due(observed.lost.len(), self.neighbours.count(id)) {
            return;
        }
        for &lost in &observed.lost {
            // A relay that has lost the reporter too was there to say so.
            if !self.links.has_lost(lost, id) && self.doubts.begin(lost, self.now) {
                self.stats.doubts += 1;
                self.links.suspect_relay(lost);
            }
        }
    }

    fn trust(&mut self, relay: RelayId, witness: Witness) {
        if self.doubts.hear(relay, witness, self.now) {
            self.links.suspect_relay(relay);
        }
    }

    /// Ends doubts that lasted long enough.
    pub(super) fn expire_doubts(&mut self) {
        for relay in self.doubts.expire(self.now) {
            self.links.suspect_relay(relay);
            self.request_plan(Urgency::Routine);
        }
    }

    /// Takes what a relay's ends ask it to send; says whether an overload begins.
    fn take_demands(&mut self, id: RelayId, mut demands: Vec<Demanded>) -> bool {
        let most = MESH_DEMANDS_MAX / self.mesh.topology().relays().len().max(MESH_SHARES_MIN);
        if demands.len() > most {
            demands.sort_unstable_by_key(|demand| std::cmp::Reverse(demand.rate));
            demands.truncate(most);
            demands.sort_unstable_by_key(|demand| demand.key);
        }
        let Some(relay) = self.relays.get_mut(&id) else { return false };
        if relay.demands == demands {
            return false;
        }
        let before = std::mem::replace(&mut relay.demands, demands);
        self.demand_changed = true;
        let (capacity, demand) = (self.sending_capacity(id), self.demand_from(id));
        let pressed = self.press(Resource::Sending(id), demand, capacity);
        self.press_rises(id, &before, capacity) || pressed
    }

    /// Links on the way of demands that rose suddenly, which would have to carry more than they can.
    fn press_rises(&mut self, id: RelayId, before: &[Demanded], capacity: BitsPerSec) -> bool {
        let Some(relay) = self.relays.get(&id) else { return false };
        let old = |key: RouteKey| {
            let at = before.binary_search_by_key(&key, |demand| demand.key);
            at.map_or(0, |at| before[at].rate.0)
        };
        let least = capacity.0 / 100 * RISE_PERCENT;
        let rises = relay.demands.iter().map(|demand| {
            let old = old(demand.key);
            (demand.rate.0.saturating_sub(old), old, demand.key)
        });
        let mut rises: Vec<(u64, u64, RouteKey)> =
            rises.filter(|&(rise, old, _)| rise > old && rise > least).collect();
        rises.sort_unstable_by_key(|&(rise, _, key)| (std::cmp::Reverse(rise), key));
        rises.truncate(RISES_MAX);
        let mut pressed = false;
        for (rise, _, key) in rises {
            for link in self.links_in_use(key) {
                let Some(line) = self.links.planned(link) else { continue };
                let now = self.links.observed(link).map(|seen| seen.received).unwrap_or_default();
                let rate = BitsPerSec(now.0.saturating_add(rise));
                pressed |= self.press(Resource::Link(link), rate, line.capacity);
            }
        }
        pressed
    }

    /// The links of a route's first path.
    fn links_in_use(&self, key: RouteKey) -> Vec<LinkId> {
        let candidates = self.mesh.planner().candidates(key);
        candidates
            .first()
            .map(|best| super::placing::links_of(key, &best.path).collect())
            .unwrap_or_default()
    }
}
