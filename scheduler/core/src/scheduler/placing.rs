//! Demand, and how it is split over paths.
//!
//! **Lines.** A provider's line carries what its hello says, shared by all links on it, of which demand may take
//! [`ROOM_PERCENT`]. What goes out costs its price, but nothing while the month's commit is not used up, for that is
//! paid anyway. A line whose monthly cap is reached is closed to demand, and its links count as draining: they are
//! used only where nothing else leads there, since a relay that cannot be reached at all is worse than its bill.
//!
//! **Demand.** The greatest demands of the mesh are placed at every plan, on the paths that the planner has for
//! them. Smaller ones take their first path, and are seen as load.

use std::collections::BTreeSet;
use std::time::Instant;

use overway_topology::{Candidate, Cost, Demand, PathOption, Problem, Resource, RouteKey, place};
use overway_wire::control::LineUse;
use overway_wire::{BitsPerSec, LinkId, Path, Permille, PricePerGb, RelayId};

use super::{Scheduler, Urgency};
use crate::links::{link_index, load};
use crate::registration::{LINKS_MAX, Registration};
use crate::session::{LineState, Relay};
use crate::{Event, OverloadStatus};

/// Demands that are placed. Traffic is so skewed that the smaller ones fill no line, and so many take some tens of
/// milliseconds.
const PLACED_MAX: usize = 16_384;
/// Share of a line's capacity that demand may take; the rest is for bursts within a second, and for what is not
/// counted.
const ROOM_PERCENT: u64 = 90;
/// Load of a line from which it counts for all links on it.
const LINE_LOAD_MIN: Permille = Permille(500);
/// Steps in which it counts, so that not every change makes all of them be judged anew.
const LINE_LOAD_STEP: u16 = 100;
/// By how much the load must fall below a step to leave it.
const LINE_LOAD_SLACK: u16 = 50;

impl Scheduler {
    /// Takes what went out over a relay's lines; says whether an overload begins.
    pub(super) fn take_lines(&mut self, id: RelayId, lines: Vec<LineUse>) -> bool {
        let Some(relay) = self.relays.get_mut(&id) else { return false };
        if relay.line_use == lines {
            return false;
        }
        relay.line_use = lines;
        self.refresh_lines(id);
        self.press_lines(id)
    }

    /// Works out anew what a relay's lines cost and may carry; its links follow with the next plan.
    pub(super) fn refresh_lines(&mut self, id: RelayId) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let Some(registration) = &relay.registration else { return };
        let mut states = [LineState::default(); LINKS_MAX];
        for (index, state) in states.iter_mut().enumerate() {
            let line = index.min(registration.lines() - 1);
            let tariff = registration.line(line);
            let used = relay.line_use.get(line).copied().unwrap_or_default();
            *state = LineState {
                price: tariff.price_after(used.sent_bytes_month),
                spent: tariff.is_spent(used.sent_bytes_month),
                load: step(
                    load(BitsPerSec(used.sent_bps), tariff.capacity),
                    relay.line_states[index].load,
                ),
            };
        }
        if std::mem::replace(&mut relay.line_states, states) != states {
            self.repriced.insert(id);
            self.demand_changed = true;
        }
    }

    fn press_lines(&mut self, id: RelayId) -> bool {
        let Some(relay) = self.relays.get(&id) else { return false };
        let Some(registration) = &relay.registration else { return false };
        let used = relay.line_use.iter().zip(&registration.tariffs).enumerate();
        let used: Vec<_> = used
            .map(|(index, (used, tariff))| (index, BitsPerSec(used.sent_bps), tariff.capacity))
            .collect();
        let mut pressed = false;
        for (index, rate, capacity) in used {
            pressed |= self.press(Resource::LineSending(id, link_index(index)), rate, capacity);
        }
        pressed
    }

    /// What goes out over a relay's line costs now.
    pub(super) fn price(&self, relay: RelayId, line: usize) -> PricePerGb {
        self.relays.get(&relay).map(|relay| relay.line_states[line].price).unwrap_or_default()
    }

    /// What a relay can send over all its lines; 0 if not known.
    pub(super) fn sending_capacity(&self, relay: RelayId) -> BitsPerSec {
        let registration = self.relays.get(&relay).and_then(|relay| relay.registration.as_ref());
        registration.map(Registration::total_capacity).unwrap_or_default()
    }

    /// What a relay's own ends ask it to send.
    pub(super) fn demand_from(&self, relay: RelayId) -> BitsPerSec {
        self.relays.get(&relay).map(Relay::demand).unwrap_or_default()
    }

    /// Something is to carry so much; says whether an overload begins, which is told at once.
    pub(super) fn press(
        &mut self,
        resource: Resource,
        rate: BitsPerSec,
        capacity: BitsPerSec,
    ) -> bool {
        let begins = self.overloads.press(resource, rate, capacity, self.now);
        if begins {
            self.stats.overloads += 1;
            self.demand_changed = true;
            self.emit(Event::Overloaded { resource, rate, capacity });
            self.request_plan(Urgency::Urgent);
        }
        begins
    }

    /// Splits demand over the paths of the last plan, if anything about it changed.
    pub(super) fn place_demand(&mut self, replanned: bool) {
        if std::mem::take(&mut self.demand_changed) || replanned && self.weights.len() > 0 {
            let problem = self.problem();
            if !problem.demands().is_empty() || self.weights.len() > 0 {
                self.split(&problem);
            }
        }
        self.end_overloads();
    }

    fn split(&mut self, problem: &Problem) {
        self.stats.placements += 1;
        let placement = place(problem);
        let mut demanded = BTreeSet::new();
        let mut changed = Vec::new();
        for (demand, shares) in problem.demands().iter().zip(&placement.shares) {
            demanded.insert(demand.key);
            let shares: Vec<u16> = shares.iter().map(|share| share.0).collect();
            let candidates = self.mesh.planner().candidates(demand.key);
            if self.weights.set(demand.key, &candidates, &shares, self.now) {
                changed.push(demand.key);
            }
        }
        changed.extend(self.weights.keep(&demanded, self.now));
        self.stats.weights_changed += u64::try_from(changed.len()).unwrap_or(u64::MAX);
        changed.into_iter().for_each(|key| self.touch_route(key));
        for overload in placement.overloads {
            let whole = BitsPerSec(overload.capacity.0.saturating_mul(100) / ROOM_PERCENT);
            let begins = self.overloads.press(overload.resource, overload.rate, whole, self.now);
            if begins {
                self.stats.overloads += 1;
                let (resource, rate) = (overload.resource, overload.rate);
                self.emit(Event::Overloaded { resource, rate, capacity: whole });
            }
        }
    }

    /// The greatest demands, and the lines that they share; without demands if no line has a known limit.
    fn problem(&self) -> Problem {
        let mut problem = Problem::new();
        let limited = self.limit_lines(&mut problem);
        if !limited {
            return problem;
        }
        let demands = self.relays.values().flat_map(|relay| &relay.demands);
        let mut demands: Vec<_> = demands.filter(|demand| demand.rate.0 > 0).copied().collect();
        if demands.len() > PLACED_MAX {
            demands.select_nth_unstable_by_key(PLACED_MAX, |demand| {
                (std::cmp::Reverse(demand.rate), demand.key)
            });
            demands.truncate(PLACED_MAX);
        }
        demands.sort_unstable_by_key(|demand| demand.key);
        for demand in demands {
            let options = self.options(demand.key);
            if !options.is_empty() {
                problem.push(Demand { key: demand.key, rate: demand.rate, options });
            }
        }
        problem
    }

    fn options(&self, key: RouteKey) -> Vec<PathOption> {
        let candidates = self.mesh.planner().candidates(key);
        let mut shares = self.weights.of(key, &candidates);
        if shares.is_empty() {
            shares = (0..candidates.len()).map(|at| if at == 0 { 1_000 } else { 0 }).collect();
        }
        // The planner leaves a path for a cheaper one by its own rules, calmly. Demand is only to move for want of
        // room, so no other path counts as cheaper than the one in use.
        let in_use = candidates.first().map_or(Cost(0), |candidate| candidate.cost);
        let option = |(candidate, share): (&Candidate, u16)| {
            let is_first = Some(candidate) == candidates.first();
            let floor = if is_first { Cost(0) } else { in_use + Cost(1) };
            let prices = links_of(key, &candidate.path)
                .map(|link| self.price(link.from, usize::from(link.index.value())).0);
            PathOption {
                path: candidate.path,
                cost: candidate.cost.max(floor),
                price: PricePerGb(prices.fold(0, u32::saturating_add)),
                previous: Permille(share),
            }
        };
        candidates.iter().zip(shares).map(option).collect()
    }

    /// Says what the relays' lines can carry, and whether anything limits demand.
    fn limit_lines(&self, problem: &mut Problem) -> bool {
        let room = |capacity: BitsPerSec| BitsPerSec(capacity.0 / 100 * ROOM_PERCENT);
        let mut limited = false;
        for (&id, relay) in &self.relays {
            let Some(registration) = &relay.registration else { continue };
            let whole = room(registration.total_capacity());
            problem.limit(Resource::Sending(id), whole);
            problem.limit(Resource::Receiving(id), whole);
            limited |= whole.0 > 0;
            let single = registration.lines() == 1;
            for (index, tariff) in registration.tariffs.iter().enumerate() {
                let link = link_index(index);
                let spent = relay.line_states[index].spent;
                limited |= spent || tariff.capacity.0 > 0;
                if single && spent {
                    problem.close(Resource::Sending(id));
                } else if !single {
                    problem.limit(Resource::LineSending(id, link), room(tariff.capacity));
                    problem.limit(Resource::LineReceiving(id, link), room(tariff.capacity));
                    if spent {
                        problem.close(Resource::LineSending(id, link));
                    }
                }
            }
        }
        limited
    }

    /// Looks at what lasts by what is measured now, and tells what has ended.
    fn end_overloads(&mut self) {
        let lasting: Vec<_> = self.overloads.iter().collect();
        for (resource, overload) in lasting {
            let rate = self.pressure(resource);
            self.overloads.press(resource, rate, overload.capacity, self.now);
        }
        for resource in self.overloads.expire(self.now) {
            self.emit(Event::OverloadEnded { resource });
        }
        // Otherwise nobody would look again where nothing changes.
        if self.overloads.iter().next().is_some() {
            self.request_plan(Urgency::Routine);
        }
    }

    /// What something carries, or is asked to, as far as that is measured; what only a placement can tell is 0.
    fn pressure(&self, resource: Resource) -> BitsPerSec {
        match resource {
            Resource::Link(link) => {
                self.links.observed(link).map(|seen| seen.received).unwrap_or_default()
            }
            Resource::Sending(relay) => self.demand_from(relay),
            Resource::LineSending(relay, index) => {
                let lines = self.relays.get(&relay).map_or(&[][..], |relay| &relay.line_use);
                let line = lines.get(usize::from(index.value()));
                BitsPerSec(line.map_or(0, |line| line.sent_bps))
            }
            Resource::Receiving(_) | Resource::LineReceiving(..) => BitsPerSec(0),
        }
    }

    /// What the source's ends asked it to send over a route in the last second.
    pub(super) fn demand_of(&self, key: RouteKey) -> BitsPerSec {
        let demands = self.relays.get(&key.source).map_or(&[][..], |relay| &relay.demands);
        let at = demands.binary_search_by_key(&key, |demand| demand.key);
        at.map(|at| demands[at].rate).unwrap_or_default()
    }

    pub(super) fn overload_status(&self, now: Instant) -> Vec<OverloadStatus> {
        let status =
            |(resource, overload): (Resource, crate::overloads::Overload)| OverloadStatus {
                resource,
                rate: overload.rate,
                capacity: overload.capacity,
                lasts: now.saturating_duration_since(overload.since),
            };
        self.overloads.iter().map(status).collect()
    }
}

/// The links of a path, in order.
pub(super) fn links_of(key: RouteKey, path: &Path) -> impl Iterator<Item = LinkId> {
    let mut at = key.source;
    path.elements().iter().map(move |step| {
        let from = std::mem::replace(&mut at, step.relay);
        LinkId::new(from, step.relay, step.link)
    })
}

/// A line's load in steps, of which the one before is left only when the load is clearly below.
fn step(load: Permille, before: Permille) -> Permille {
    if load >= before || load.0 + LINE_LOAD_SLACK < before.0 {
        let whole = load.0 / LINE_LOAD_STEP * LINE_LOAD_STEP;
        return if load < LINE_LOAD_MIN { Permille(0) } else { Permille(whole) };
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_of_a_line_counts_in_steps_that_are_not_left_for_a_little() {
        let table = [(400, 0, 0), (499, 0, 0), (500, 0, 500), (649, 500, 600), (560, 600, 600)];
        for (load, before, after) in table {
            assert_eq!(step(Permille(load), Permille(before)), Permille(after), "{load}");
        }
        assert_eq!(step(Permille(549), Permille(600)), Permille(500));
        assert_eq!(step(Permille(440), Permille(500)), Permille(0));
    }
}
