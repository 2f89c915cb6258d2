//! From measurements to what links cost: offsets of clocks, admission, and the pairs that cost something else now.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use overway_wire::{Class, LinkId, LinkIndex, RelayId};

use super::admission::while_waiting;
use super::dirty::Changed;
use super::links::{CLASSES, Line};
use super::{Planner, kernel};
use crate::cost::is_lossy;
use crate::potentials::Clocks;
use crate::{LinkTerms, Topology};

/// Least time between two fits of the clocks, where nothing says that they are off, and where something does.
const FIT_INTERVAL: Duration = Duration::from_secs(20);
const FIT_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Relays for which these hold; with more it is so many times as long, as a fit takes time with their square.
const FIT_RELAYS: usize = 64;

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
    ) -> Vec<Changed> {
        let barring = was_barring || self.admitted.is_some();
        let mut pairs: Vec<Changed> = Vec::new();
        let mut last = None;
        for id in changed {
            let ends = (id.from, id.to);
            let numbers = (self.numbers.of(id.from), self.numbers.of(id.to));
            let (Some(from), Some(to)) = numbers else { continue };
            if last.replace(ends) == Some(ends) {
                continue;
            }
            let lines = self.price(topology, ends, |_| true);
            if !barring && self.links.is(from, to, &lines) {
                continue;
            }
            let least = std::array::from_fn(|class| {
                let new = lines.iter().map(|line| line.cost[class]).min().unwrap_or(kernel::NONE);
                new.min(self.links.cost(class, from, to))
            });
            pairs.push(Changed { from, to, least });
        }
        pairs
    }

    /// The usable links of a pair, priced.
    fn price(
        &self,
        topology: &Topology,
        (from, to): (RelayId, RelayId),
        admits: impl Fn(LinkId) -> bool,
    ) -> Vec<Line> {
        let links = topology.links_between(from, to).filter(|(id, _)| admits(*id));
        let priced = links.filter_map(|(id, measure)| {
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

    pub(super) fn set_pairs(&mut self, topology: &Topology, pairs: &[Changed]) {
        for &Changed { from, to, .. } in pairs {
            let (Some(sender), Some(receiver)) = (self.numbers.id(from), self.numbers.id(to))
            else {
                continue;
            };
            let lines = self.price(topology, (sender, receiver), |_| true);
            self.links.set(from, to, &lines);
            if self.admitted.is_some() {
                let drains = |id| self.draining.contains(&id);
                let mut lines = self.price(topology, (sender, receiver), |id| !drains(id));
                for line in &mut lines {
                    let index = LinkIndex::new(line.index).expect("it was that of a link");
                    let id = LinkId::new(sender, receiver, index);
                    if self.admission.waiting().contains(&id) {
                        line.cost = line.cost.map(while_waiting);
                    }
                }
                if let Some(admitted) = &mut self.admitted {
                    admitted.set(from, to, &lines);
                }
            }
        }
    }
}
