//! From measurements to what links cost: offsets of clocks, admission, and the pairs that cost something else now.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use overway_wire::{Class, LinkId, LinkIndex, RelayId};

use super::admission::while_waiting;
use super::dirty::Changed;
use super::links::{CLASSES, Line};
use super::plane::share;
use super::{Planner, kernel};
use crate::cost::is_lossy;
use crate::potentials::Clocks;
use crate::{Executor, LinkTerms, Topology};

/// Least time between two fits of the clocks, where nothing says that they are off, and where something does.
const FIT_INTERVAL: Duration = Duration::from_secs(20);
const FIT_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Relays for which these hold; with more it is so many times as long, as a fit takes time with their square.
const FIT_RELAYS: usize = 64;

/// Pairs that one task prices before it takes more.
const PAIRS_PER_PART: usize = 1_024;

/// Pairs whose links cost something else now, and the usable links of each.
#[derive(Debug, Default)]
pub(super) struct Repriced {
    pub(super) pairs: Vec<Changed>,
    pub(super) lines: Vec<Vec<Line>>,
}

impl Planner {
    /// Fits the clocks' offsets if it is time; returns whether they are others than before.
    pub(super) fn fit_clocks(
        &mut self,
        topology: &Topology,
        changed: &BTreeSet<LinkId>,
        structure: bool,
        now: Instant,
    ) -> bool {
        let strains = |id: &LinkId| {
            let measure = topology.link(*id);
            measure.is_some_and(|measure| measure.usable && self.clocks.strains(*id, measure))
        };
        self.strained |= structure || changed.iter().any(strains);
        let since = self.fitted.map(|fitted| now.saturating_duration_since(fitted));
        let size = u32::try_from(self.numbers.len() / FIT_RELAYS).unwrap_or(u32::MAX).max(1);
        let due = since.is_none_or(|since| {
            since >= FIT_INTERVAL * size || self.strained && since >= FIT_INTERVAL_MIN * size
        });
        if !due || (changed.is_empty() && !self.strained) {
            return false;
        }
        (self.fitted, self.strained) = (Some(now), false);
        self.stats.fits += 1;
        let clocks = Clocks::fit(topology);
        if self.clocks.is_close(&clocks) {
            return false;
        }
        self.clocks = clocks;
        true
    }

    /// Takes over which links best paths may take; returns those that they may take again.
    pub(super) fn admit(
        &mut self,
        topology: &Topology,
        changed: &BTreeSet<LinkId>,
        now: Instant,
    ) -> Vec<LinkId> {
        for id in changed {
            let measure = topology.link(*id);
            self.admission.update(*id, measure.map(|measure| measure.usable), now);
            if measure.is_some_and(|measure| measure.draining) {
                self.draining.insert(*id);
            } else {
                self.draining.remove(id);
            }
        }
        let readmitted = self.admission.expire(self.config.readmission_hold, now);
        if self.admission.waiting().is_empty() && self.draining.is_empty() {
            self.admitted = None;
        } else if self.admitted.is_none() {
            self.admitted = Some(self.links.clone());
        }
        readmitted
    }

    /// Finds the pairs whose links cost something else now, and what they did and do at least.
    pub(super) fn reprice(
        &self,
        topology: &Topology,
        changed: &BTreeSet<LinkId>,
        was_barring: bool,
        executor: &dyn Executor,
    ) -> Repriced {
        let barring = was_barring || self.admitted.is_some();
        let mut ends: Vec<(RelayId, RelayId)> = changed.iter().map(|id| (id.from, id.to)).collect();
        ends.dedup();
        let parts = Mutex::new(Vec::new());
        share(ends.chunks(PAIRS_PER_PART).enumerate().collect(), executor, |next| {
            while let Some((at, ends)) = next() {
                let changed = |ends: &(RelayId, RelayId)| self.changed(topology, *ends, barring);
                let part: Repriced = ends.iter().filter_map(changed).collect();
                parts.lock().unwrap_or_else(PoisonError::into_inner).push((at, part));
            }
        });
        let mut parts = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
        parts.sort_unstable_by_key(|(at, _)| *at);
        let mut all = Repriced::default();
        for (_, part) in parts {
            all.pairs.extend(part.pairs);
            all.lines.extend(part.lines);
        }
        all
    }

    /// A pair whose links cost something else now, and these; any pair, if links are barred or were.
    fn changed(
        &self,
        topology: &Topology,
        ends: (RelayId, RelayId),
        barring: bool,
    ) -> Option<(Changed, Vec<Line>)> {
        let (from, to) = (self.numbers.of(ends.0)?, self.numbers.of(ends.1)?);
        let lines = self.price(topology, ends);
        if !barring && self.links.is(from, to, &lines) {
            return None;
        }
        let least = std::array::from_fn(|class| {
            let new = lines.iter().map(|line| line.cost[class]).min().unwrap_or(kernel::NONE);
            new.min(self.links.cost(class, from, to))
        });
        Some((Changed { from, to, least }, lines))
    }

    /// The usable links of a pair, priced.
    fn price(&self, topology: &Topology, (from, to): (RelayId, RelayId)) -> Vec<Line> {
        let priced = topology.links_between(from, to).filter_map(|(id, measure)| {
            let delay = measure.usable.then(|| self.clocks.delay(id, measure)).flatten()?;
            let mut cost = [kernel::NONE; CLASSES];
            for (cost, class) in cost.iter_mut().zip(Class::ALL) {
                *cost = LinkTerms::of(class, id, measure, delay)?.total().0;
            }
            let (index, delay) = (id.index.value(), delay.effective().0);
            Some(Line { index, cost, delay, lossy: is_lossy(measure) })
        });
        priced.collect()
    }

    /// Takes over what pairs cost now.
    pub(super) fn set_pairs(&mut self, pairs: &[Changed], lines: &[Vec<Line>]) {
        for (&Changed { from, to, .. }, lines) in pairs.iter().zip(lines) {
            self.links.set(from, to, lines);
            let Some(admitted) = &mut self.admitted else { continue };
            let (Some(sender), Some(receiver)) = (self.numbers.id(from), self.numbers.id(to))
            else {
                continue;
            };
            let admits = |mut line: Line| {
                let index = LinkIndex::new(line.index).expect("it was that of a link");
                let id = LinkId::new(sender, receiver, index);
                if self.admission.waiting().contains(&id) {
                    line.cost = line.cost.map(while_waiting);
                }
                (!self.draining.contains(&id)).then_some(line)
            };
            let lines: Vec<Line> = lines.iter().copied().filter_map(admits).collect();
            admitted.set(from, to, &lines);
        }
    }
}

impl FromIterator<(Changed, Vec<Line>)> for Repriced {
    fn from_iter<T: IntoIterator<Item = (Changed, Vec<Line>)>>(changed: T) -> Self {
        let (pairs, lines) = changed.into_iter().unzip();
        Self { pairs, lines }
    }
}
