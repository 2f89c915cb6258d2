//! Shares in thousandths, and the exact load they put on every resource.

use overway_wire::{BitsPerSec, Class, Permille};

use super::instance::Instance;
use super::{Overload, Placement, Problem, WHOLE};

/// A split, part of which may still wait for a path. Loads are in thousandths of a bit per second, so that
/// they are exact; a share moves only by a [`shift`](Self::shift).
#[derive(Clone, Debug)]
pub(super) struct Ledger<'a> {
    instance: &'a Instance,
    /// Share of each option.
    shares: Vec<u16>,
    /// Share of each demand that is on no path.
    rests: Vec<u16>,
    /// Load of each resource.
    loads: Vec<u128>,
}

impl<'a> Ledger<'a> {
    /// Nothing is on a path.
    fn empty(instance: &'a Instance) -> Self {
        let shares = vec![0; instance.options().len()];
        let rests = vec![WHOLE; instance.demands().len()];
        let loads = vec![0; instance.capacities().len()];
        Self { instance, shares, rests, loads }
    }

    /// The shares that demands had, as far as their paths are still there.
    pub(super) fn previous(instance: &'a Instance) -> Self {
        let mut ledger = Self::empty(instance);
        for (at, demand) in instance.demands().iter().enumerate() {
            for option in demand.options() {
                let share = instance.options()[option].previous.min(ledger.rests[at]);
                ledger.shift(at, None, Some(option), share);
            }
        }
        ledger
    }

    /// Thousandths of shares from 0 to 1, rounded so that each demand's sum is kept.
    pub(super) fn rounded(instance: &'a Instance, shares: &[f64]) -> Self {
        let mut ledger = Self::empty(instance);
        for (at, demand) in instance.demands().iter().enumerate() {
            let placed: f64 = shares[demand.options()].iter().sum();
            let mut missing = thousandths(placed + 0.000_5);
            let mut parts = Vec::with_capacity(demand.options().len());
            for option in demand.options() {
                let down = thousandths(shares[option]).min(missing);
                missing -= down;
                ledger.shift(at, None, Some(option), down);
                parts.push((shares[option] * 1_000.0 - f64::from(down), option));
            }
            parts.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
            for (_, option) in parts.into_iter().cycle().take(usize::from(missing)) {
                ledger.shift(at, None, Some(option), 1);
            }
        }
        ledger
    }

    pub(super) fn instance(&self) -> &'a Instance {
        self.instance
    }

    pub(super) fn share(&self, option: usize) -> u16 {
        self.shares[option]
    }

    /// The shares of a demand's options.
    pub(super) fn shares_of(&self, demand: usize) -> &[u16] {
        &self.shares[self.instance.demands()[demand].options()]
    }

    /// The share of a demand that is on no path.
    pub(super) fn rest(&self, demand: usize) -> u16 {
        self.rests[demand]
    }

    /// Moves a share of a demand between two options, or from or to the rest.
    pub(super) fn shift(&mut self, demand: usize, from: Option<usize>, to: Option<usize>, by: u16) {
        let load = u128::from(self.instance.demands()[demand].rate) * u128::from(by);
        match from {
            Some(option) => {
                self.shares[option] -= by;
                for &resource in self.instance.uses(option) {
                    self.loads[resource as usize] -= load;
                }
            }
            None => self.rests[demand] -= by,
        }
        match to {
            Some(option) => {
                self.shares[option] += by;
                for &resource in self.instance.uses(option) {
                    self.loads[resource as usize] += load;
                }
            }
            None => self.rests[demand] += by,
        }
    }

    fn capacity(&self, resource: usize) -> u128 {
        u128::from(self.instance.capacities()[resource]) * u128::from(WHOLE)
    }

    /// What a resource can take yet.
    pub(super) fn free(&self, resource: usize) -> u128 {
        self.capacity(resource).saturating_sub(self.loads[resource])
    }

    /// What a resource has above its capacity.
    pub(super) fn excess(&self, resource: usize) -> u128 {
        self.loads[resource].saturating_sub(self.capacity(resource))
    }

    /// What a resource has above a part of its capacity, in thousandths.
    pub(super) fn excess_over(&self, part: u16, resource: usize) -> u128 {
        let capacity = u128::from(self.instance.capacities()[resource]) * u128::from(part);
        self.loads[resource].saturating_sub(capacity)
    }

    /// Load in thousandths of the capacity.
    pub(super) fn utilisation(&self, resource: usize) -> u128 {
        self.loads[resource] / u128::from(self.instance.capacities()[resource].max(1))
    }

    /// How much of an option's demand may move to it without anything above its capacity, if what moves
    /// leaves `from`.
    pub(super) fn room(&self, from: Option<usize>, to: usize) -> u16 {
        self.room_below(WHOLE, from, to)
    }

    /// As [`room`](Self::room), without anything above a part of its capacity, in thousandths.
    pub(super) fn room_below(&self, part: u16, from: Option<usize>, to: usize) -> u16 {
        let free = |resource: usize| {
            let capacity = u128::from(self.instance.capacities()[resource]) * u128::from(part);
            capacity.saturating_sub(self.loads[resource])
        };
        let left = from.map_or(&[][..], |from| self.instance.uses(from));
        let entered = self.instance.uses(to).iter().filter(|resource| !left.contains(resource));
        let free = entered.map(|&resource| free(resource as usize)).min();
        free.map_or(WHOLE, |free| share_of(free, self.instance.demand_of(to).rate))
    }

    /// Resources above their capacity.
    pub(super) fn overloads(&self) -> impl Iterator<Item = usize> {
        (0..self.loads.len()).filter(|&resource| self.excess(resource) > 0)
    }

    /// The sum of rate x cost, in thousandths.
    pub(super) fn cost(&self) -> u128 {
        let options = self.instance.options().iter().zip(&self.shares).enumerate();
        options
            .map(|(at, (option, &share))| {
                let rate = u128::from(self.instance.demand_of(at).rate);
                rate * u128::from(option.cost) * u128::from(share)
            })
            .sum()
    }

    /// What full resources must drop of each class, if they drop the lowest first; realtime stands first.
    pub(super) fn harm(&self) -> [u128; 3] {
        let mut harm = [0; 3];
        for resource in self.overloads() {
            for (sum, (dropped, _)) in harm.iter_mut().zip(self.dropped(resource)) {
                *sum += dropped;
            }
        }
        harm
    }

    /// What a resource drops of each class, and what it gets of it.
    fn dropped(&self, resource: usize) -> [(u128, u128); 3] {
        let mut by_class = [(0, 0); 3];
        for &option in self.instance.users(resource) {
            let demand = self.instance.demand_of(option as usize);
            let share = u128::from(self.shares[option as usize]);
            by_class[usize::from(demand.class.code())].1 += u128::from(demand.rate) * share;
        }
        let mut excess = self.excess(resource);
        for class in Class::ALL.into_iter().rev() {
            let (dropped, load) = &mut by_class[usize::from(class.code())];
            *dropped = excess.min(*load);
            excess -= *dropped;
        }
        by_class
    }

    /// The result, for those who asked.
    pub(super) fn placement(&self, problem: &Problem) -> Placement {
        let demands = problem.demands().iter().zip(self.instance.demands());
        let shares = demands.map(|(asked, demand)| {
            let mut shares: Vec<_> =
                self.shares[demand.options()].iter().map(|&share| Permille(share)).collect();
            shares.resize(asked.options.len(), Permille(0));
            shares
        });
        let shares = shares.collect();
        let mut overloads: Vec<_> = self
            .overloads()
            .map(|resource| Overload {
                resource: self.instance.names()[resource],
                rate: whole(self.loads[resource]),
                capacity: BitsPerSec(self.instance.capacities()[resource]),
            })
            .collect();
        overloads.sort_unstable();
        Placement { shares, overloads, unplaced: self.unplaced(problem) }
    }

    /// What of each demand finds no room: of each option, what the fullest resource drops.
    fn unplaced(&self, problem: &Problem) -> Vec<(usize, BitsPerSec)> {
        let mut lost = vec![0_u128; self.shares.len()];
        for resource in self.overloads() {
            let dropped = self.dropped(resource);
            for &option in self.instance.users(resource) {
                let demand = self.instance.demand_of(option as usize);
                let (dropped, of) = dropped[usize::from(demand.class.code())];
                let option = option as usize;
                let load = u128::from(demand.rate) * u128::from(self.shares[option]);
                // Both are below 2^96 unless rates are beyond all lines; then what is lost saturates.
                let part = load.checked_mul(dropped).map_or(load, |part| part / of.max(1));
                lost[option] = lost[option].max(part);
            }
        }
        let demands = self.instance.demands().iter().zip(problem.demands()).enumerate();
        demands
            .map(|(at, (demand, asked))| match demand.options().is_empty() {
                true => (at, asked.rate),
                false => (at, whole(lost[demand.options()].iter().sum())),
            })
            .filter(|(_, rate)| rate.0 > 0)
            .collect()
    }
}

/// How many thousandths of `rate` fit into a load, at most all.
pub(super) fn share_of(load: u128, rate: u64) -> u16 {
    // Loads that matter fit into 64 bits, whose division is much faster.
    let share = match u64::try_from(load) {
        Ok(load) => u128::from(load / rate),
        Err(_) => load / u128::from(rate),
    };
    u16::try_from(share).map_or(WHOLE, |share| share.min(WHOLE))
}

/// How many thousandths of `rate` make at least a load, at most all.
pub(super) fn share_for(load: u128, rate: u64) -> u16 {
    share_of(load.saturating_add(u128::from(rate - 1)), rate)
}

/// A load in whole bits per second.
fn whole(load: u128) -> BitsPerSec {
    BitsPerSec(u64::try_from(load / u128::from(WHOLE)).unwrap_or(u64::MAX))
}

/// Thousandths of a share from 0 to 1, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0 to 1,000; not-a-number gives 0"
)]
fn thousandths(share: f64) -> u16 {
    (share * 1_000.0).clamp(0.0, 1_000.0) as u16
}
