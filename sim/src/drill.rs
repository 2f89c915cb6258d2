//! A drill: one relay fails and nothing else is amiss. What its flows felt is measured exactly. The relay is between
//! the ends of flows; or an end is attached to it, and to another one.
//!
//! ```text
//! excess = longest gap between two arrivals - frame spacing - growth of the path's delay
//!          - one round trip of the link in front of the failed relay
//! ```
//!
//! A flow of which all goes twice has no excess at all, if its source knows a path that has no relay in common
//! with the one in use. Of a flow that wants no copies nothing is promised but that no frame is lost.
//!
//! A flow for which no way leads around the failing relay is left out, and counted: neighbours are chosen such that
//! there is always one. Where an end has two addresses, a way to the other counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use overway_wire::frame::PATH_ELEMENTS_MAX;
use overway_wire::{Class, LinkId, Path, Redundancy, RelayId};

use crate::rng::micros;
use crate::traffic::{Delivery, Ends, Flow};
use crate::world::World;

/// The promise.
const EXCESS_MAX: Duration = Duration::from_millis(60);
/// A flow counts if it took one path through the relay for this long: its links are then probed at the
/// active rate.
const STEADY: Duration = Duration::from_millis(1_500);
/// Frames that arrived in it: two thirds of those sent.
const STEADY_FRAMES_MIN: usize = 50;
/// What a drill looks at after the failure, longer than any gap that would be within the promise.
const AFTER: Duration = Duration::from_millis(2_500);
/// How long before and after that frames must all have arrived.
const MARGIN: Duration = Duration::from_millis(1_500);

/// Links of a way that a route has at most.
const WAY_MAX: usize = 3;

/// How a relay fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Its process gets no time.
    Freeze,
    /// Its process dies, and starts anew.
    Kill,
}

/// Of which frames none may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// Of all.
    Whole,
    /// Of those sent before the relay returns. Where no scheduler has moved paths away meanwhile, neighbours use it half a
    /// round trip before it hears that it is heard, and what comes in between may have no way on.
    UntilReturn,
}

/// A flow over the failed relay.
#[derive(Clone, Copy, Debug)]
struct Subject {
    flow: usize,
    path: Path,
    /// Number of the next frame at the failure.
    next: u64,
    /// The round trip in front of the failed relay.
    round_trip: Duration,
    /// Whether the source knows a path that has no relay in common with the flow's.
    apart: bool,
}

impl World {
    /// Holds a drill: the relay over which most flows go is frozen or killed for a while.
    pub(crate) fn drill(&mut self, failure: Failure) {
        if let Some(failing) = self.busiest_transit(|_| true) {
            self.fail(failing, failure, Judged::Whole, |_| true);
        }
    }

    /// Holds a drill: the relay to which most flows go that have another address is frozen or killed for a while.
    pub(crate) fn drill_access(&mut self, failure: Failure) {
        if let Some(failing) = self.busiest_access() {
            self.figures.drills_access += 1;
            self.fail(failing, failure, Judged::Whole, |_| true);
        }
    }

    /// Has a relay fail, and judges those flows over it that are to be.
    pub(crate) fn fail(
        &mut self,
        failing: RelayId,
        failure: Failure,
        judged: Judged,
        is_judged: impl Fn(&Flow) -> bool,
    ) {
        let mut subjects = self.subjects(failing);
        subjects.retain(|subject| is_judged(&self.flows[subject.flow]));
        let (subjects, parted) = self.split_parted(subjects, failing);
        self.figures.drill_parted += parted;
        let began = self.now;
        self.say(format_args!("drill: {failure:?} of {failing} under {} flows", subjects.len()));
        let lasts = self.chance.span(Duration::from_millis(600), AFTER);
        let applied = self.strike(failure, failing);
        let next = |world: &Self| -> Vec<u64> {
            subjects.iter().map(|subject| world.flows[subject.flow].next).collect()
        };
        self.run_for(lasts);
        let returned = next(self);
        self.undo(applied);
        self.run_for(AFTER.saturating_sub(lasts));
        let last = match judged {
            Judged::Whole => next(self),
            Judged::UntilReturn => returned,
        };
        self.run_for(MARGIN);
        self.figures.drills += 1;
        for (subject, last) in subjects.iter().zip(last) {
            self.judge(subject, failing, began, last);
        }
    }

    /// The relay that is between the ends of most of these flows now.
    pub(crate) fn busiest_transit(&self, is_counted: impl Fn(&Flow) -> bool) -> Option<RelayId> {
        let flows = self.slots.iter().map(|&at| &self.flows[at]).filter(|flow| is_counted(flow));
        let transits = flows.filter_map(|flow| flow.deliveries.back());
        let transits = transits.flat_map(|delivery| {
            delivery.path.intermediates().iter().map(|step| step.relay).collect::<Vec<_>>()
        });
        most(transits)
    }

    /// The relay to which most flows with two addresses come now.
    fn busiest_access(&self) -> Option<RelayId> {
        let twice = self.slots.iter().map(|&at| &self.flows[at]);
        let twice = twice.filter(|flow| flow.ends.alternate.is_some());
        most(twice.filter_map(|flow| Some(flow.deliveries.back()?.path.last().relay)))
    }

    /// Flows that have taken one path over the relay for long enough.
    fn subjects(&self, failing: RelayId) -> Vec<Subject> {
        let steady = |&flow: &usize| {
            let of = &self.flows[flow];
            let path = of.deliveries.back()?.path;
            let ends_twice = of.ends.alternate.is_some();
            let steps = if ends_twice { path.elements() } else { path.intermediates() };
            let at = steps.iter().position(|step| step.relay == failing)?;
            let since = self.now - STEADY;
            let lately = of.deliveries.iter().rev().take_while(|delivery| delivery.at >= since);
            let same = lately.clone().all(|delivery| delivery.path == path);
            let many = lately.count() >= STEADY_FRAMES_MIN;
            let before = at.checked_sub(1).map(|at| path.elements()[at].relay);
            let front = before.unwrap_or(of.ends.source.relay);
            let link = LinkId::new(front, failing, path.elements()[at].link);
            let delay = |link| self.network.delay(link).unwrap_or_default();
            let round_trip = delay(link) + delay(link.reversed());
            let apart = self.knows_apart(of, &path);
            (same && many).then_some(Subject { flow, path, next: of.next, round_trip, apart })
        };
        self.slots.iter().filter_map(steady).collect()
    }

    /// Whether a flow's source has another path that shares no relay with this one: to the other address, if there is
    /// one.
    fn knows_apart(&self, flow: &Flow, path: &Path) -> bool {
        let Ends { source, destination, alternate } = flow.ends;
        let process = self.sites.get(&source.relay).and_then(|site| site.process.as_ref());
        let Some(process) = process else { return false };
        if alternate.is_some() && path.last().relay != destination.relay {
            // What came is the second copy; how that shares with the first is not known here.
            return false;
        }
        let to = alternate.unwrap_or(destination).relay;
        let fails_both = alternate.is_some() && path.visits(to);
        let paths = process.core.fib().route(to, flow.class, flow.policy);
        let apart = paths.iter().any(|other| {
            let shared = other.path.intermediates().iter().any(|step| path.visits(step.relay));
            !shared && other.path != *path
        });
        apart && !fails_both
    }

    /// Leaves out those for which no way leads around the failing relay, and says how many.
    fn split_parted(&self, mut subjects: Vec<Subject>, failing: RelayId) -> (Vec<Subject>, u64) {
        let before = subjects.len();
        let probed = self.probed();
        subjects.retain(|subject| {
            let flow = &self.flows[subject.flow];
            let Ends { source, destination, alternate } = flow.ends;
            let allowed = self.cells.allowed(flow.policy);
            let allows = |relay: &RelayId| allowed.is_none_or(|allowed| allowed.contains(relay));
            let probed = probed.iter().copied().filter(|(from, to)| allows(from) && allows(to));
            let probed: BTreeSet<_> = probed.collect();
            let around = [Some(destination), alternate].into_iter().flatten();
            around
                .map(|to| to.relay)
                .filter(|&to| to != failing)
                .any(|to| leads_around(&probed, source.relay, &subject.path, (failing, to)))
        });
        let parted = before - subjects.len();
        (subjects, parted as u64)
    }

    fn judge(&mut self, subject: &Subject, failing: RelayId, began: Instant, last: u64) {
        let flow = &self.flows[subject.flow];
        let (id, class, redundancy) = (flow.id.0, flow.class, flow.redundancy);
        let first = subject.next.saturating_sub(micros(MARGIN) / micros(flow.period));
        let lost = (first..last).filter(|&sequence| !flow.has_passed(sequence)).count();
        let Some((before, after)) = first_around(flow, &subject.path, began) else { return };
        let gap = after.at.saturating_duration_since(before.at);
        let source = flow.ends.source.relay;
        let growth = self
            .path_delay(source, &after.path)
            .saturating_sub(self.path_delay(source, &subject.path));
        let expected = flow.period + growth + subject.round_trip;
        let excess = gap.saturating_sub(expected);
        self.figures.drill_flows += 1;
        self.figures.drill_lost += lost as u64;
        let later = longest_gap(flow, began).map_or(Duration::ZERO, |(before, after)| {
            let delay = |path| self.path_delay(source, path);
            let growth = delay(&after.path).saturating_sub(delay(&before.path));
            (after.at - before.at).saturating_sub(flow.period + growth + subject.round_trip)
        });
        let what = format!(
            "drill: {failing} failed under flow {id} ({class}, {}) from {source} by {}: gap {gap:?} from \
             frame {} to frame {} by {}, excess {excess:?}, {lost} frames lost, longest \
             excess {later:?}",
            redundancy.name(),
            subject.path,
            before.sequence,
            after.sequence,
            after.path
        );
        self.say(format_args!("{what}"));
        let promised = match (class, redundancy) {
            (Class::Realtime | Class::Interactive, Redundancy::Always) if subject.apart => {
                Some(Duration::ZERO)
            }
            (Class::Realtime | Class::Interactive, Redundancy::Adaptive | Redundancy::Always) => {
                Some(EXCESS_MAX)
            }
            // Not copied while a link is suspect; it waits until that is down.
            (Class::Realtime | Class::Interactive, Redundancy::Off) | (Class::Bulk, _) => None,
        };
        if promised.is_some() {
            let max = &mut self.figures.drill_excess_us_max;
            *max = (*max).max(micros(excess));
            let max = &mut self.figures.drill_longest_us_max;
            *max = (*max).max(micros(later));
        }
        if lost > 0 || promised.is_some_and(|most| excess > most) {
            self.watch.violate(self.now, format_args!("{what}"));
        }
    }
}

/// Whether the relay in front of the failing one has a way to a relay that a frame may take: one that avoids where it
/// has been, and that its header has room for.
fn leads_around(
    probed: &BTreeSet<(RelayId, RelayId)>,
    source: RelayId,
    path: &Path,
    (failing, to): (RelayId, RelayId),
) -> bool {
    let steps: Vec<RelayId> = path.elements().iter().map(|step| step.relay).collect();
    let at = steps.iter().position(|&relay| relay == failing).unwrap_or(0);
    let front = at.checked_sub(1).map_or(source, |at| steps[at]);
    let mut reached: BTreeSet<RelayId> = [front].into();
    let barred =
        |relay: &RelayId| *relay == failing || *relay == source || steps[..at].contains(relay);
    for _ in 0..WAY_MAX.min(PATH_ELEMENTS_MAX - at) {
        let next = probed.iter().filter(|(from, to)| reached.contains(from) && !barred(to));
        let next: Vec<RelayId> = next.map(|&(_, to)| to).collect();
        reached.extend(next);
    }
    reached.contains(&to)
}

/// The relay that is named most often, the greatest of several.
fn most(relays: impl Iterator<Item = RelayId>) -> Option<RelayId> {
    let mut counts = BTreeMap::<RelayId, usize>::new();
    relays.for_each(|relay| *counts.entry(relay).or_default() += 1);
    counts.into_iter().max_by_key(|&(relay, count)| (count, relay)).map(|(relay, _)| relay)
}

/// The first frame that came another way, and the last one that did not.
fn first_around(flow: &Flow, path: &Path, began: Instant) -> Option<(Delivery, Delivery)> {
    let around = flow.deliveries.iter().filter(|it| it.at >= began && it.path != *path);
    let first = around.min_by_key(|it| it.sequence)?;
    let before = flow.deliveries.iter().filter(|it| it.sequence < first.sequence);
    Some((*before.max_by_key(|it| it.sequence)?, *first))
}

/// The longest pause between two arrivals of which the second is after `began`.
fn longest_gap(flow: &Flow, began: Instant) -> Option<(Delivery, Delivery)> {
    let deliveries = flow.deliveries.iter().copied();
    let pairs = deliveries.clone().zip(deliveries.skip(1)).filter(|(_, after)| after.at >= began);
    pairs.max_by_key(|(before, after)| after.at - before.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::{LinkIndex, PathElement};

    fn leads(links: &[(u16, u16)], relays: &[u16], failing: u16) -> bool {
        let both = links.iter().flat_map(|&(a, b)| [(a, b), (b, a)]);
        let probed = both.map(|(a, b)| (RelayId(a), RelayId(b))).collect();
        let step = |&relay: &u16| PathElement::new(RelayId(relay), LinkIndex::default());
        let path = Path::new(&relays.iter().map(step).collect::<Vec<_>>()).unwrap();
        leads_around(&probed, RelayId(1), &path, (RelayId(failing), path.last().relay))
    }

    #[test]
    fn a_way_around_leads_neither_back_to_the_source_nor_too_far() {
        let way = [(1, 2), (2, 3), (3, 9)];
        assert!(!leads(&way, &[2, 3, 9], 3));
        let over_source = [&way[..], &[(1, 4), (4, 9)]].concat();
        assert!(!leads(&over_source, &[2, 3, 9], 3), "only back over 1");
        assert!(leads(&over_source, &[2, 3, 9], 2), "from 1 itself");
        let other = [&way[..], &[(2, 4), (4, 5), (5, 9)]].concat();
        assert!(leads(&other, &[2, 3, 9], 3));
        let far = [&way[..], &[(2, 4), (4, 5), (5, 6), (6, 9)]].concat();
        assert!(!leads(&far, &[2, 3, 9], 3));
    }
}
