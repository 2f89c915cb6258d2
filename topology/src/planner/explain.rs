//! Why a route is what it is: the search once more, for one route, with everything that decides about it.

use std::time::{Duration, Instant};

use overway_wire::{Class, LinkId, LinkIndex, LossPpm, Micros};

use super::Planner;
use super::left::Left;
use super::packed::Packed;
use super::plane::Head;
use super::renew::Scratch;
use super::route::Place;
use super::search::Known;
use super::table::{DIRECT, IN_USE, Record};
use crate::cost::Needs;
use crate::{
    Candidate, Cost, Explained, ExplainedLink, Explanation, LinkTerms, Miss, Reason, RouteKey,
    Topology, Verdict,
};

impl Planner {
    /// Why a route is what it is; `None` if there is none. Takes as long as all routes of one source.
    pub fn explain(&self, topology: &Topology, key: RouteKey, now: Instant) -> Option<Explanation> {
        let (plane, from, to) = self.find(key)?;
        let record = plane.rows.get(from)?.records.get(to).filter(|record| record.exists())?;
        let field = self.field(self.millis(now));
        let mut scratch = Scratch::default();
        scratch.start(&field, &plane.head, from);
        let mut known = Known::default();
        let terrain = field.terrain(&plane.head, field.links);
        let mut hints = known.hints(&scratch.all, &terrain, to);
        let ((best, _), _) = scratch.best(&field, &plane.head, (from, to), &mut hints)?;
        let asked = Asked { planner: self, topology, key, head: &plane.head, record, best };
        let place = field.place(&plane.head, (from, to));
        let mut candidates = self.decode(&self.links, &plane.head, record, (from, to));
        let in_use = candidates.remove(0);
        let shown = |packed: &Packed| record.paths.contains(packed);
        if !shown(&best) {
            candidates.extend(asked.candidate(best, Reason::Best));
        }
        let direct = self.links.hop(plane.head.class, from, to).and_then(|hop| {
            let packed = Packed::new(super::packed::Via::DIRECT, [hop.index, 0, 0]);
            asked.candidate(packed, Reason::Direct)
        });
        let since = self.millis(now).saturating_sub(record.in_use_since);
        Some(Explanation {
            key,
            current: asked.explain(&place, in_use),
            others: candidates.into_iter().map(|other| asked.explain(&place, other)).collect(),
            direct: direct.map(|direct| asked.explain(&place, direct)),
            in_use_for: Duration::from_millis(u64::from(since)),
            moves: u32::from(record.moves),
            has_disjoint: !record.lacks_disjoint(),
            has_diverse: !record.lacks_diverse(),
        })
    }
}

/// One question.
struct Asked<'a> {
    planner: &'a Planner,
    topology: &'a Topology,
    key: RouteKey,
    head: &'a Head,
    record: &'a Record,
    best: Packed,
}

impl Asked<'_> {
    fn candidate(&self, packed: Packed, reason: Reason) -> Option<Candidate> {
        let mut alone = Record::new(packed);
        alone.paths[DIRECT] = Packed::NONE;
        let ends = self.ends();
        let decoded = self.planner.decode(&self.planner.links, self.head, &alone, ends);
        decoded.into_iter().next().map(|candidate| Candidate { reason, ..candidate })
    }

    fn ends(&self) -> (usize, usize) {
        let numbers = &self.planner.numbers;
        let number = |id| numbers.of(id).expect("the route was found by its ends' numbers");
        (number(self.key.source), number(self.key.destination))
    }

    fn explain(&self, place: &Place<'_>, candidate: Candidate) -> Explained {
        let links = self.links(&candidate);
        let terms = links.iter().fold(LinkTerms::default(), |sum, link| sum.plus(link.terms));
        let verdict = self.verdict(place, &candidate);
        let misses = misses(self.key.class, &candidate, &links);
        Explained { candidate, links, terms, verdict, misses }
    }

    fn links(&self, candidate: &Candidate) -> Vec<ExplainedLink> {
        let mut at = self.key.source;
        let mut links = Vec::new();
        for step in candidate.path.elements() {
            let id = LinkId::new(at, step.relay, step.link);
            at = step.relay;
            let Some(measure) = self.topology.link(id) else { continue };
            let Some(delay) = self.planner.clocks.delay(id, measure) else { continue };
            let Some(terms) = LinkTerms::of(self.key.class, id, measure, delay) else { continue };
            links.push(ExplainedLink { id, terms, delay, measure: *measure });
        }
        links
    }

    fn pack(&self, candidate: &Candidate) -> Option<Packed> {
        let numbers = &self.planner.numbers;
        let mut indices = [LinkIndex::default(); 3];
        let steps = candidate.path.elements();
        for (index, step) in indices.iter_mut().zip(steps) {
            *index = step.link;
        }
        let number = |at: usize| {
            let step = candidate.path.intermediates().get(at)?;
            u32::try_from(numbers.of(step.relay)?).ok()
        };
        let via = match (number(0), number(1)) {
            (Some(first), Some(second)) => super::packed::Via::two(first, second as usize),
            (Some(first), None) => super::packed::Via::one(first),
            (None, _) => super::packed::Via::DIRECT,
        };
        Some(Packed::new(via, indices.map(LinkIndex::value)))
    }

    fn verdict(&self, place: &Place<'_>, candidate: &Candidate) -> Verdict {
        let cost = |packed| place.price(packed).map_or(Cost(u32::MAX), |priced| Cost(priced.cost));
        let in_use = self.record.paths[IN_USE];
        let (current, best) = (cost(in_use), cost(self.best));
        let saving = |cheap: Cost| Cost(current.0.saturating_sub(cheap.0));
        let left = self.planner.left(self.head, place.ends);
        let held = |packed| place.is_held(in_use, &left, packed);
        let packed = self.pack(candidate);
        if packed == Some(in_use) {
            return match held(self.best) {
                _ if best >= current => Verdict::Cheapest,
                Some(_) => Verdict::KeptWhileHeld { saving: saving(best) },
                None => Verdict::Kept { saving: saving(best) },
            };
        }
        if candidate.cost >= current {
            return Verdict::Dearer { by: Cost(candidate.cost.0 - current.0) };
        }
        let barred = |id: &LinkId, set: &std::collections::BTreeSet<LinkId>| set.contains(id);
        let links = self.links(candidate);
        if links.iter().any(|link| barred(&link.id, &self.planner.draining)) {
            return Verdict::Draining;
        }
        if links.iter().any(|link| barred(&link.id, self.planner.admission.waiting())) {
            return Verdict::Readmission;
        }
        match packed.and_then(held) {
            Some(remaining) => Verdict::HeldAfterLeaving {
                saving: saving(candidate.cost),
                remaining: Duration::from_millis(u64::from(remaining)),
            },
            None => Verdict::NotWorthMoving { saving: saving(candidate.cost) },
        }
    }
}

impl Planner {
    fn left(&self, head: &Head, (from, to): (usize, usize)) -> Vec<Left> {
        let plane = self.planes.iter().find(|plane| std::ptr::eq(&raw const plane.head, head));
        let row = plane.and_then(|plane| plane.rows.get(from));
        let to = u16::try_from(to).expect("relays have ids of 16 bits");
        row.map_or_else(Vec::new, |row| row.left.of(to).copied().collect())
    }
}

/// What a path misses of what its class needs.
fn misses(class: Class, candidate: &Candidate, links: &[ExplainedLink]) -> Vec<Miss> {
    let needs = Needs::of(class);
    let mut misses = Vec::new();
    let Micros(delay) = candidate.delay;
    if delay > needs.deadline.0 {
        misses.push(Miss::Deadline { delay: candidate.delay, limit: needs.deadline });
    }
    let arriving = links.iter().fold(1_000_000_u64, |arriving, link| {
        arriving * u64::from(1_000_000 - link.measure.slow.loss().ppm()) / 1_000_000
    });
    let loss = LossPpm::new(u32::try_from(1_000_000 - arriving).unwrap_or(u32::MAX));
    if loss > needs.loss {
        misses.push(Miss::Delivery { loss, limit: needs.loss });
    }
    misses
}
