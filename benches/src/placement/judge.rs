//! What a placement is worth, computed anew from its shares.

use std::collections::BTreeMap;

use overway_topology::{Placement, Problem, Resource};

use super::oracle;

/// A whole, in thousandths.
const WHOLE: u128 = 1_000;

/// The sum of rate x cost, in bit/s x us.
pub(crate) fn cost(problem: &Problem, placement: &Placement) -> f64 {
    let mut sum = 0;
    for (demand, shares) in problem.demands().iter().zip(&placement.shares) {
        for (option, share) in demand.options.iter().zip(shares) {
            sum += u128::from(demand.rate.0) * u128::from(option.cost.0) * u128::from(share.0);
        }
    }
    sum as f64 / WHOLE as f64
}

/// Resources above their capacity, and demands whose shares do not sum to a whole.
pub(crate) fn violations(problem: &Problem, placement: &Placement) -> usize {
    let mut loads: BTreeMap<Resource, u128> = BTreeMap::new();
    let mut broken = 0;
    for (demand, shares) in problem.demands().iter().zip(&placement.shares) {
        for (option, share) in demand.options.iter().zip(shares) {
            for resource in oracle::resources(demand, option) {
                *loads.entry(resource).or_default() +=
                    u128::from(demand.rate.0) * u128::from(share.0);
            }
        }
        let sum: u128 = shares.iter().map(|share| u128::from(share.0)).sum();
        broken += usize::from(sum != WHOLE);
    }
    let above = problem.capacities().filter(|(resource, capacity)| {
        loads.get(resource).is_some_and(|&load| load > u128::from(capacity.0) * WHOLE)
    });
    above.count() + broken
}

/// The sum of rate x cost if everything took its best path, whatever that carries.
pub(crate) fn best_cost(problem: &Problem) -> f64 {
    let best = problem.demands().iter().filter_map(|demand| {
        let cost = demand.options.iter().map(|option| option.cost.0).min()?;
        Some(demand.rate.0 as f64 * f64::from(cost))
    });
    best.sum()
}

/// How much of the demand finds no room if demands, the highest class first, fill their cheapest paths one
/// after the other: what a plain method leaves.
pub(crate) fn greedy_unplaced_share(problem: &Problem) -> f64 {
    let mut free: BTreeMap<Resource, u64> =
        problem.capacities().map(|(resource, capacity)| (resource, capacity.0)).collect();
    let mut demands: Vec<_> = problem.demands().iter().collect();
    demands.sort_by_key(|demand| demand.key.class);
    let (mut unplaced, mut all) = (0, 0);
    for demand in demands {
        let mut left = demand.rate.0;
        let mut options: Vec<_> = demand.options.iter().collect();
        options.sort_by_key(|option| option.cost);
        for option in options {
            let resources = oracle::resources(demand, option);
            let rooms = resources.iter().filter_map(|resource| free.get(resource).copied());
            let by = rooms.min().unwrap_or(u64::MAX).min(left);
            for resource in &resources {
                if let Some(free) = free.get_mut(resource) {
                    *free -= by;
                }
            }
            left -= by;
        }
        unplaced += left;
        all += demand.rate.0;
    }
    unplaced as f64 / all.max(1) as f64
}
