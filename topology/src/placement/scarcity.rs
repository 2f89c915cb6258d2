//! Which resources demand could fill, and which demands have a choice among them.

use super::instance::{DemandEntry, Instance, Lists, number};

/// Part of a capacity that is left free for what the search and the rounding are off by.
const SLACK: f64 = 0.001;
/// The most that is left free for rounding, as a part of the capacity.
const GRAIN_MAX: f64 = 0.01;
/// The grain of shares.
const GRAIN: f64 = 0.001;

/// What the market is about.
#[derive(Debug)]
pub(super) struct Scarcity {
    /// Demands that have a choice of which something scarce is a part.
    pub contested: Vec<u32>,
    /// Places in `limits` of what each option fills, less what all options of its demand fill.
    pub uses: Lists,
    /// For each scarce resource what is left of its capacity by those who cannot avoid it, in bit/s.
    pub limits: Vec<f64>,
    /// Which resources they are.
    pub resources: Vec<u32>,
}

/// What demands may bring to a resource, in bit/s.
#[derive(Clone, Copy, Debug, Default)]
struct Claims {
    possible: f64,
    /// Of that, what cannot go elsewhere.
    certain: f64,
    /// The greatest demand that can.
    greatest: f64,
}

/// A place that stands for no scarce resource.
const NONE: u32 = u32::MAX;

/// Counts on how many options of one demand each resource is.
struct Counter<'a> {
    instance: &'a Instance,
    counts: Vec<usize>,
}

impl<'a> Counter<'a> {
    fn new(instance: &'a Instance) -> Self {
        Self { instance, counts: vec![0; instance.capacities().len()] }
    }

    /// Tells every resource of a demand, once, and whether all its options fill it.
    fn each(&mut self, demand: &DemandEntry, mut tell: impl FnMut(usize, bool)) {
        self.count(demand);
        for option in demand.options() {
            for &resource in self.instance.uses(option) {
                let count = std::mem::take(&mut self.counts[resource as usize]);
                if count > 0 {
                    tell(resource as usize, count == demand.options().len());
                }
            }
        }
    }

    fn count(&mut self, demand: &DemandEntry) {
        for option in demand.options() {
            for &resource in self.instance.uses(option) {
                self.counts[resource as usize] += 1;
            }
        }
    }
}

impl Scarcity {
    pub(super) fn of(instance: &Instance) -> Self {
        let mut counter = Counter::new(instance);
        let mut claims = vec![Claims::default(); instance.capacities().len()];
        for demand in instance.demands() {
            let rate = demand.rate as f64;
            counter.each(demand, |resource, is_certain| {
                let claims = &mut claims[resource];
                claims.possible += rate;
                match is_certain {
                    true => claims.certain += rate,
                    false => claims.greatest = claims.greatest.max(rate),
                }
            });
        }
        let (mut limits, mut resources) = (Vec::new(), Vec::new());
        let mut numbers = vec![NONE; claims.len()];
        for (resource, claims) in claims.iter().enumerate() {
            let capacity = instance.capacities()[resource] as f64;
            if claims.possible > capacity && claims.greatest > 0.0 {
                numbers[resource] = number(limits.len());
                let grain = (claims.greatest * GRAIN).min(capacity * GRAIN_MAX);
                limits.push((capacity * (1.0 - SLACK) - grain - claims.certain).max(0.0));
                resources.push(number(resource));
            }
        }
        let (contested, uses) = choices(instance, &numbers, &mut counter);
        Self { contested, uses, limits, resources }
    }
}

/// The demands that have a choice, and the scarce resources of each option.
fn choices(instance: &Instance, numbers: &[u32], counter: &mut Counter) -> (Vec<u32>, Lists) {
    let (mut contested, mut uses) = (Vec::new(), Lists::default());
    for (at, demand) in instance.demands().iter().enumerate() {
        counter.count(demand);
        let before = uses.items();
        for option in demand.options() {
            let resources = instance.uses(option).iter().map(|&resource| resource as usize);
            let avoidable = resources.filter(|&at| counter.counts[at] < demand.options().len());
            uses.push(avoidable.map(|at| numbers[at]).filter(|&number| number != NONE));
        }
        counter.clear(demand);
        if uses.items() > before {
            contested.push(number(at));
        }
    }
    (contested, uses)
}

impl Counter<'_> {
    fn clear(&mut self, demand: &DemandEntry) {
        for option in demand.options() {
            for &resource in self.instance.uses(option) {
                self.counts[resource as usize] = 0;
            }
        }
    }
}
