//! The routes of one class and policy, and the work of doing some of them anew.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use overway_wire::PolicyId;

use super::block::{Block, Workshop};
use super::dirty::{self, Changed, Changes, Dirty};
use super::kernel::{Level, Ranks};
use super::labels::Labels;
use super::links::Links;
use super::packed::Packed;
use super::route::Place;
use super::search::{Carriers, Terrain};
use super::table::{PLACES, Record, Row};
use super::uses::{Noted, Uses};
use super::{PlannerConfig, Stats};
use crate::Executor;

/// Sources that take turns: the links that one reads are then at hand for the others.
pub(super) const SOURCES_PER_BLOCK: usize = 24;

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
    /// Pairs that were first planned since then are new.
    pub(super) new_since: u32,
}

/// A route that changed for a relay: there may be many at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) class: u8,
    pub(super) policy: PolicyId,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Routes that changed for a relay.
    pub(super) changed: Vec<Told>,
    pub(super) stats: Stats,
    /// What is yet to be counted.
    pub(super) noted: Noted,
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
    let changes = Changes::new(pairs, field.stride);
    share(parts, executor, |next| {
        while let Some((head, first, rows, dirty)) = next() {
            for (source, (row, dirty)) in (first..).zip(rows.iter().zip(dirty)) {
                if head.ends[source] && !pairs.is_empty() {
                    *dirty =
                        dirty::find(&changes, field.links, head.class, field.level, (source, row));
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
    uses: &Mutex<Uses>,
    executor: &dyn Executor,
) -> Vec<Outcome> {
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
    let total = Mutex::new(Vec::new());
    share(blocks, executor, |next| {
        let (mut workshop, mut outcome) = (Workshop::new(), Outcome::default());
        while let Some(block) = next() {
            block.run(field, &mut workshop, &mut outcome);
            outcome.noted.settle(uses);
        }
        outcome.noted.settle_all(uses);
        total.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Shares items out among as many tasks as run at the same time; each takes the next one until there is none.
pub(super) fn share<T: Send>(
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
        noted: &mut Noted,
        stats: &mut Stats,
    ) {
        let mut rows = vec![Row::default(); stride];
        rows.iter_mut().for_each(|row| row.resize(stride));
        for (from, old) in (0..).zip(&self.rows) {
            let Some(from) = number(from).map(usize::from) else { continue };
            for (to, record) in (0..).zip(&old.records).filter(|(_, record)| record.exists()) {
                let Some(to) = number(to).map(usize::from) else { continue };
                let Some(record) = record.renumbered(number) else { continue };
                noted.note(stride, [Packed::NONE; PLACES], record.paths, (from, to));
                stats.tally(&Record::NONE, &record);
                rows[from].records[to] = record;
            }
        }
        self.rows = rows;
    }
}

impl Told {
    pub(super) fn new(head: &Head, (from, to): (usize, usize)) -> Self {
        let narrow = |number| u16::try_from(number).expect("relays have ids of 16 bits");
        let class = u8::try_from(head.class).expect("classes are few");
        Self { from: narrow(from), to: narrow(to), class, policy: head.policy }
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
            new_since: self.new_since,
        }
    }
}
