//! The routes of one class and policy, and the work of doing some of them anew.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, PoisonError};

use overway_wire::PolicyId;

use super::block::{Block, Workshop};
use super::dirty::{self, Changed, Dirty};
use super::kernel::{Level, Ranks};
use super::labels::Labels;
use super::links::Links;
use super::packed::Packed;
use super::renew::count_uses;
use super::route::Place;
use super::search::{Carriers, Terrain};
use super::table::{PLACES, Record, Row};
use super::{PlannerConfig, Stats};
use crate::Executor;

/// Sources that take turns: the links that one reads are then at hand for the others.
pub(super) const SOURCES_PER_BLOCK: usize = 16;

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

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Class, policy, source and destination of routes that changed for a relay.
    pub(super) changed: Vec<(usize, PolicyId, usize, usize)>,
    pub(super) stats: Stats,
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
                    *dirty =
                        dirty::find(pairs, field.links, head.class, field.level, (source, row));
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
        let (mut workshop, mut outcome) = (Workshop::new(), Outcome::default());
        while let Some(block) = next() {
            block.run(field, &mut workshop, &mut outcome);
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

    /// How many ways to each relay a plan asks for.
    pub(super) fn ranks(&self) -> Ranks {
        if self.config.backups { Ranks::All } else { Ranks::One }
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
