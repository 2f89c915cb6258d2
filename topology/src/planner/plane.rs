//! The routes of one class and policy, and the work of doing some of them anew.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use overway_wire::PolicyId;

use super::dirty::{self, Changed, Dirty};
use super::kernel::{BLOCK, Level, NONE};
use super::labels::Labels;
use super::links::Links;
use super::packed::Packed;
use super::route::{Move, Place};
use super::search::{By, Carriers, Choice, Diverse, Source, Terrain, is_diverse};
use super::table::{DIRECT, DISJOINT, DIVERSE, IN_USE, PLACES, Record, Row, by_cheapest, parallel};
use super::{PlannerConfig, Stats};
use crate::Executor;

/// Sources whose routes to one destination are done one after the other: the links to it are then at hand.
pub(super) const SOURCES_PER_BLOCK: usize = 8;

/// The routes of a class and policy.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) head: Head,
    pub(super) rows: Vec<Row>,
}

/// Which routes a plane is of, and where they may lead.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) class: usize,
    pub(super) policy: PolicyId,
    pub(super) carriers: Carriers,
    /// By number: relays that the policy allows.
    pub(super) ends: Vec<bool>,
}

/// What all planes share in one plan.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) links: &'a Links,
    /// Without the links that no best path may take, if there are any.
    pub(super) admitted: Option<&'a Links>,
    /// Links that paths are to leave, by number of their ends and index.
    pub(super) draining: &'a BTreeSet<(usize, usize, u8)>,
    pub(super) labels: &'a Labels,
    pub(super) level: Level,
    pub(super) stride: usize,
    pub(super) config: &'a PlannerConfig,
    /// Milliseconds since the planner's start.
    pub(super) now: u32,
    /// By sender and receiver: how many paths take a link of the pair.
    pub(super) uses: &'a [AtomicU32],
}

/// Some sources of one plane whose routes are to be done anew.
pub(super) struct Block<'a> {
    pub(super) head: &'a Head,
    pub(super) sources: Vec<(usize, &'a mut Row, Dirty)>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Class, policy, source and destination of routes that changed for a relay.
    pub(super) changed: Vec<(usize, PolicyId, usize, usize)>,
    pub(super) stats: Stats,
}

/// What is needed to do routes anew, one at a time.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    all: Source,
    admitted: Source,
}

/// Finds what the changed pairs can affect, by plane and source, and the routes that were held until now.
pub(super) fn find_dirty(
    planes: &[Plane],
    pairs: &[Changed],
    field: &Field<'_>,
    executor: &dyn Executor,
) -> Vec<Vec<Dirty>> {
    let mut dirty: Vec<Vec<Dirty>> =
        planes.iter().map(|plane| vec![Dirty::default(); plane.rows.len()]).collect();
    let mut parts = Vec::new();
    for (plane, dirty) in planes.iter().zip(&mut dirty) {
        let rows = plane.rows.chunks(SOURCES_PER_BLOCK).zip(dirty.chunks_mut(SOURCES_PER_BLOCK));
        for (at, (rows, dirty)) in rows.enumerate() {
            parts.push((&plane.head, at * SOURCES_PER_BLOCK, rows, dirty));
        }
    }
    share(parts, executor, |next| {
        while let Some((head, first, rows, dirty)) = next() {
            for (source, (row, dirty)) in (first..).zip(rows.iter().zip(dirty)) {
                if head.ends[source] && !pairs.is_empty() {
                    *dirty = dirty::find(pairs, field.links, head.class, field.level, (source, row));
                }
                for (to, _) in row.held.iter().filter(|(_, due)| **due <= field.now) {
                    dirty.mark(usize::from(*to), row.worst.len());
                }
            }
        }
    });
    dirty
}

/// Does the marked routes anew, in parallel; what comes of it does not depend on how.
pub(super) fn run(
    planes: &mut [Plane],
    dirty: Vec<Vec<Dirty>>,
    field: &Field<'_>,
    executor: &dyn Executor,
) -> Outcome {
    let mut blocks = Vec::new();
    for (plane, dirty) in planes.iter_mut().zip(dirty) {
        let head = &plane.head;
        let mut sources = Vec::new();
        for (source, (row, dirty)) in plane.rows.iter_mut().zip(dirty).enumerate() {
            if head.ends[source] && dirty.any() {
                sources.push((source, row, dirty));
            }
            if sources.len() == SOURCES_PER_BLOCK {
                blocks.push(Block { head, sources: std::mem::take(&mut sources) });
            }
        }
        if !sources.is_empty() {
            blocks.push(Block { head, sources });
        }
    }
    let total = Mutex::new(Outcome::default());
    share(blocks, executor, |next| {
        let (mut scratch, mut outcome) = (Vec::new(), Outcome::default());
        while let Some(block) = next() {
            block.run(field, &mut scratch, &mut outcome);
        }
        total.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Shares items out among as many tasks as run at the same time; each takes the next one until there is none.
fn share<T: Send>(
    items: Vec<T>,
    executor: &dyn Executor,
    work: impl Fn(&dyn Fn() -> Option<T>) + Sync,
) {
    let width = executor.width().clamp(1, items.len().max(1));
    let queue = Mutex::new(items.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let task = || work(&next);
    executor.run((0..width).map(|_| Box::new(task) as Box<dyn FnOnce() + Send + '_>).collect());
}

impl Plane {
    /// A plane without routes.
    pub(super) fn new(
        class: usize,
        policy: PolicyId,
        (carriers, ends): (Carriers, Vec<bool>),
        stride: usize,
    ) -> Self {
        let mut rows = vec![Row::default(); stride];
        rows.iter_mut().for_each(|row| row.resize(stride));
        Self { head: Head { class, policy, carriers, ends }, rows }
    }

    /// Moves the routes to other numbers; those of which a relay is gone are dropped.
    pub(super) fn renumber(
        &mut self,
        number: &impl Fn(u16) -> Option<u16>,
        stride: usize,
        uses: &[AtomicU32],
        stats: &mut Stats,
    ) {
        let mut rows = vec![Row::default(); stride];
        rows.iter_mut().for_each(|row| row.resize(stride));
        for (from, old) in (0..).zip(&self.rows) {
            let Some(from) = number(from).map(usize::from) else { continue };
            for (to, record) in (0..).zip(&old.records).filter(|(_, record)| record.exists()) {
                let Some(to) = number(to).map(usize::from) else { continue };
                let Some(record) = record.renumbered(number) else { continue };
                count_uses(uses, stride, [Packed::NONE; PLACES], record.paths, (from, to));
                stats.tally(&Record::NONE, &record);
                rows[from].records[to] = record;
            }
        }
        self.rows = rows;
    }
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.changed.extend(other.changed);
        self.stats.add(&other.stats);
    }
}

impl Field<'_> {
    /// The costs of a plane, with or without the links that no best path may take.
    pub(super) fn terrain<'a>(&'a self, head: &'a Head, links: &'a Links) -> Terrain<'a> {
        Terrain {
            links,
            class: head.class,
            carriers: &head.carriers,
            labels: self.labels,
            level: self.level,
            stride: self.stride,
            two: self.config.intermediates_max > 1,
        }
    }

    /// Where the rules of a route apply.
    pub(super) fn place<'a>(&'a self, head: &'a Head, ends: (usize, usize)) -> Place<'a> {
        Place {
            links: self.links,
            class: head.class,
            carriers: &head.carriers.all,
            ends,
            config: self.config,
            now: self.now,
        }
    }
}

impl Block<'_> {
    /// Does the routes anew.
    pub(super) fn run(mut self, field: &Field<'_>, scratch: &mut Vec<Scratch>, out: &mut Outcome) {
        let head = self.head;
        scratch.resize_with(scratch.len().max(self.sources.len()), Scratch::default);
        for ((source, _, _), scratch) in self.sources.iter().zip(scratch.iter_mut()) {
            scratch.all.start(&field.terrain(head, field.links), *source);
            if let Some(admitted) = field.admitted {
                scratch.admitted.start(&field.terrain(head, admitted), *source);
            }
        }
        for word in 0..field.stride / BLOCK {
            let words = self.sources.iter().map(|(_, _, dirty)| dirty.bits[word]);
            let mut any = words.fold(0, |any, bits| any | bits);
            while any != 0 {
                let bit = any.trailing_zeros();
                any &= any - 1;
                let to = word * BLOCK + bit as usize;
                if !head.ends[to] {
                    continue;
                }
                for ((source, row, dirty), scratch) in self.sources.iter_mut().zip(&mut *scratch) {
                    if dirty.bits[word] >> bit & 1 == 1 && *source != to {
                        scratch.route(field, head, row, (*source, to), out);
                    }
                }
            }
        }
    }
}

impl Scratch {
    /// Starts with one source; for questions about single routes.
    pub(super) fn start(&mut self, field: &Field<'_>, head: &Head, source: usize) {
        self.all.start(&field.terrain(head, field.links), source);
        if let Some(admitted) = field.admitted {
            self.admitted.start(&field.terrain(head, admitted), source);
        }
    }

    /// The cheapest path that may be taken and what it costs, and what the cheapest of all costs.
    pub(super) fn best(
        &self,
        field: &Field<'_>,
        head: &Head,
        (from, to): (usize, usize),
    ) -> Option<((Packed, u32), u32)> {
        let all = self.all.best(&field.terrain(head, field.links), to)?;
        let admitted = field.admitted.and_then(|links| {
            let choice = self.admitted.best(&field.terrain(head, links), to)?;
            Some((by_cheapest(links, head.class, choice.via, (from, to)), choice.cost))
        });
        let any = || (by_cheapest(field.links, head.class, all.via, (from, to)), all.cost);
        Some((admitted.unwrap_or_else(any), all.cost))
    }

    /// Does one route anew.
    fn route(
        &mut self,
        field: &Field<'_>,
        head: &Head,
        row: &mut Row,
        (from, to): (usize, usize),
        out: &mut Outcome,
    ) {
        let before = row.records[to];
        let Some((best, cost)) = self.best(field, head, (from, to)) else {
            row.forget((from, to), field.stride, field.uses, &mut out.stats);
            if before.exists() {
                out.changed.push((head.class, head.policy, from, to));
            }
            return;
        };
        let place = field.place(head, (from, to));
        row.best[to] = cost;
        let drains = |path: Packed| path.links(from, to).any(|link| field.draining.contains(&link));
        let leave = !field.draining.is_empty()
            && before.exists()
            && drains(before.in_use())
            && !drains(best.0);
        let moved = row.consider(&place, to, best, leave);
        out.stats.count(moved);
        let record = &mut row.records[to];
        row.worst[to] = if field.config.backups {
            self.back_up(field, head, record, &place)
        } else {
            record.costs[IN_USE]
        };
        if record.paths != before.paths {
            count_uses(field.uses, field.stride, before.paths, record.paths, (from, to));
        }
        out.stats.tally(&before, record);
        if record.tell(&before, |path| place.price(path).map_or(0, |priced| priced.delay)) {
            out.changed.push((head.class, head.policy, from, to));
        }
    }

    /// Finds the backups of the path in use. Returns what the dearest path that was searched for costs.
    pub(super) fn back_up(
        &mut self,
        field: &Field<'_>,
        head: &Head,
        record: &mut Record,
        place: &Place<'_>,
    ) -> u32 {
        let terrain = field.terrain(head, field.links);
        let (from, to) = place.ends;
        let kept = record.paths;
        let in_use = record.in_use().via();
        let pack = |choice: Choice| {
            (by_cheapest(field.links, head.class, choice.via, (from, to)), choice.cost)
        };
        let disjoint = self.all.disjoint(&terrain, to, in_use).map(|found| {
            let allowed = !record.is_parallel && kept[DISJOINT].via().is_disjoint(in_use);
            place.backup(kept[DISJOINT], allowed, pack(found))
        });
        let diverse = match disjoint {
            Some((disjoint, _)) => self.all.diverse(&terrain, to, in_use, disjoint.via()),
            None => Diverse::None,
        };
        record.disjoint_is_diverse = matches!(diverse, Diverse::IsDisjoint(_));
        // One that differs by region gives way to one that differs by provider, whatever that costs.
        let is_final = match diverse {
            Diverse::Path(By::Provider, _) | Diverse::IsDisjoint(By::Provider) => true,
            Diverse::Path(By::Region, _) | Diverse::IsDisjoint(By::Region) => {
                !field.labels.provider.differ()
            }
            Diverse::None => !field.labels.provider.differ() && !field.labels.region.differ(),
        };
        let diverse = match diverse {
            Diverse::Path(_, choice) => {
                let via = kept[DIVERSE].via();
                let allowed = disjoint.is_none_or(|(path, _)| path != kept[DIVERSE])
                    && is_diverse(field.labels, via, in_use, (from, to));
                Some(place.backup(kept[DIVERSE], allowed, pack(choice)))
            }
            Diverse::IsDisjoint(_) | Diverse::None => None,
        };
        let sibling = match disjoint {
            Some(_) => None,
            None => parallel(field.links, head.class, record.in_use(), (from, to))
                .and_then(|path| Some((path, place.price(path)?.cost))),
        };
        record.is_parallel = sibling.is_some();
        let none = (Packed::NONE, 0);
        let (second, third) = (disjoint.or(sibling).unwrap_or(none), diverse.unwrap_or(none));
        (record.paths[DISJOINT], record.costs[DISJOINT]) = second;
        (record.paths[DIVERSE], record.costs[DIVERSE]) = third;
        (record.paths[DIRECT], record.costs[DIRECT]) =
            direct(field.links, head.class, &record.paths, (from, to));
        if disjoint.is_none() || !is_final {
            return NONE;
        }
        record.costs[IN_USE].max(second.1).max(third.1)
    }
}

/// The direct path, unless one of the others is it.
fn direct(
    links: &Links,
    class: usize,
    paths: &[Packed; PLACES],
    ends: (usize, usize),
) -> (Packed, u32) {
    let others = [paths[IN_USE], paths[DISJOINT], paths[DIVERSE]];
    if others.iter().any(|path| path.exists() && path.via().relays().is_empty()) {
        return (Packed::NONE, 0);
    }
    let cost = links.cost(class, ends.0, ends.1);
    if cost < NONE {
        (by_cheapest(links, class, super::packed::Via::DIRECT, ends), cost)
    } else {
        (Packed::NONE, 0)
    }
}

impl Row {
    /// Drops a route.
    pub(super) fn forget(
        &mut self,
        (from, to): (usize, usize),
        stride: usize,
        uses: &[AtomicU32],
        stats: &mut Stats,
    ) {
        let record = std::mem::replace(&mut self.records[to], Record::NONE);
        count_uses(uses, stride, record.paths, [Packed::NONE; PLACES], (from, to));
        stats.tally(&record, &Record::NONE);
        (self.best[to], self.worst[to]) = (NONE, NONE);
        self.left.remove(&narrow(to));
        self.held.remove(&narrow(to));
    }

    /// Forgets the paths that were left too long ago to matter.
    pub(super) fn forget_left(&mut self, config: &PlannerConfig, now: u32) {
        self.left.retain(|_, left| {
            left.retain(|left| left.is_remembered(config, now));
            !left.is_empty()
        });
    }

    /// Keeps the path in use or takes the best, which costs so much.
    fn consider(&mut self, place: &Place<'_>, to: usize, best: (Packed, u32), leave: bool) -> Move {
        let record = &mut self.records[to];
        if !record.exists() {
            record.paths[IN_USE] = best.0;
            record.costs[IN_USE] = best.1;
            record.normal = place.costs(best.0);
            (record.in_use_since, record.first_seen) = (place.now, place.now);
            return Move::Stayed;
        }
        let mut left = Vec::new();
        if !self.left.is_empty() {
            left = self.left.remove(&narrow(to)).unwrap_or_default();
        }
        let (moved, cost) = place.consider(record, &mut left, best, leave);
        record.costs[IN_USE] = cost;
        if moved == Move::Held {
            let hold = place.is_held(record.in_use(), &left, best.0).unwrap_or(0);
            self.held.insert(narrow(to), place.now.saturating_add(hold));
        } else if !self.held.is_empty() {
            self.held.remove(&narrow(to));
        }
        if !left.is_empty() {
            self.left.insert(narrow(to), left);
        }
        moved
    }
}

/// Counts the paths that take each pair's links: all but the direct competitor.
fn count_uses(
    uses: &[AtomicU32],
    stride: usize,
    old: [Packed; PLACES],
    new: [Packed; PLACES],
    (from, to): (usize, usize),
) {
    for at in [IN_USE, DISJOINT, DIVERSE] {
        if old[at] == new[at] {
            continue;
        }
        for (from, to, _) in old[at].links(from, to).filter(|_| old[at].exists()) {
            uses[from * stride + to].fetch_sub(1, Ordering::Relaxed);
        }
        for (from, to, _) in new[at].links(from, to).filter(|_| new[at].exists()) {
            uses[from * stride + to].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Stats {
    fn count(&mut self, moved: Move) {
        match moved {
            Move::Stayed => {}
            Move::LeftUnusable => self.left_unusable += 1,
            Move::LeftForBetter => self.left_for_better += 1,
            Move::Held => self.returns_held += 1,
        }
        self.routes_done += 1;
    }

    /// Counts a route as it is instead of as it was.
    fn tally(&mut self, before: &Record, after: &Record) {
        let counts = [
            (&mut self.routes, before.exists(), after.exists()),
            (&mut self.routes_without_disjoint, before.lacks_disjoint(), after.lacks_disjoint()),
            (&mut self.routes_without_diverse, before.lacks_diverse(), after.lacks_diverse()),
        ];
        for (count, before, after) in counts {
            // Wraps within one part of the work; the sum of all parts is right.
            *count = count.wrapping_add(u64::from(after)).wrapping_sub(u64::from(before));
        }
    }

    /// Adds what some part of the work counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.left_unusable += other.left_unusable;
        self.left_for_better += other.left_for_better;
        self.returns_held += other.returns_held;
        self.routes_done += other.routes_done;
        let Self { routes, routes_without_disjoint, routes_without_diverse, .. } = other;
        self.routes = self.routes.wrapping_add(*routes);
        self.routes_without_disjoint =
            self.routes_without_disjoint.wrapping_add(*routes_without_disjoint);
        self.routes_without_diverse =
            self.routes_without_diverse.wrapping_add(*routes_without_diverse);
    }
}

fn narrow(number: usize) -> u16 {
    u16::try_from(number).expect("relays have ids of 16 bits")
}
