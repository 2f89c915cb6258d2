//! Where demand goes: which share of each demand takes which of its paths.
//!
//! ```text
//! Problem --dense numbers--> Instance --prices find a split--> Market --thousandths, exact--> Ledger --> Placement
//! ```
//!
//! **What is counted.** A path's traffic enters every link of it, leaves the sending line of each relay but
//! the last, and enters the receiving line of each but the first: a line sends and receives at its rate at
//! the same time. So a transit relay counts once each way, a source only sends, a destination only
//! receives. What has no capacity in the [`Problem`] is unbounded.
//!
//! **What is sought.** The split with the least sum of rate x cost in which nothing is above its capacity:
//! a linear program. A cost holds delay, loss and price as the class weighs them, so bulk goes where it is
//! cheap and realtime where it is best, and who gives way on a full link is who loses least. Where there is
//! not room for all, precedence decides who is left over: bulk first, realtime last.
//!
//! **How.** Resources that no demand could fill do not count, nor do demands that touch none of the
//! others: they take their best path. For the rest the [`Market`] finds prices and a split near the
//! optimum; the [`Ledger`] makes thousandths of it, relieves what is above its capacity, finds room for
//! what is left over, and moves shares to cheaper paths that have room. What finds no room at all is spread
//! where it harms least, and reported.
//!
//! **Stability.** The previous shares, mended where they break a capacity, stand unless the fresh split
//! is better by more than [`GAIN_PERCENT_MIN`].
//!
//! Time is linear in demands x paths x links of a path, times a bounded number of rounds; ten thousand
//! contested demands of four paths take tens of milliseconds. The same problem gives the same placement.

mod instance;
mod ledger;
mod market;
mod mend;
mod scarcity;

use std::collections::BTreeMap;

use overway_wire::{BitsPerSec, LinkId, LinkIndex, Path, Permille, PricePerGb, RelayId};

use crate::{Cost, RouteKey};
use instance::Instance;
use ledger::Ledger;
use market::Market;
use mend::Reluctance;

/// Paths of a demand that are considered; later ones get no share.
pub const OPTIONS_MAX: usize = 8;

/// What the fresh split must gain over the previous one, in cost or in traffic that finds no room, for
/// shares to move: each move is pushed to relays, and demand changes by more than this every second.
const GAIN_PERCENT_MIN: u128 = 1;

/// In overload, by which part of all demand the traffic that finds no room must shrink for that: one over
/// this.
const HARM_TOLERATED: u128 = 500;

/// The whole of a demand, in thousandths.
const WHOLE: u16 = 1_000;

/// Something with a capacity that traffic can fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// A link.
    Link(LinkId),
    /// What a relay sends, over all its lines.
    Sending(RelayId),
    /// What a relay receives, over all its lines.
    Receiving(RelayId),
    /// What a relay sends over one line: its links of this index.
    LineSending(RelayId, LinkIndex),
    /// What a relay receives over one line.
    LineReceiving(RelayId, LinkIndex),
}

/// A path that a demand may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathOption {
    /// The path, from the demand's source.
    pub path: Path,
    /// What it costs the demand's class, price included.
    pub cost: Cost,
    /// What it costs in money, summed over its links: decides between paths of equal cost.
    pub price: PricePerGb,
    /// The share that it had; all zero where the demand is new.
    pub previous: Permille,
}

/// Traffic that wants to go from one relay to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Its ends, class and policy.
    pub key: RouteKey,
    /// How much it is.
    pub rate: BitsPerSec,
    /// The paths it may take, at most [`OPTIONS_MAX`].
    pub options: Vec<PathOption>,
}

/// Demands, and the capacities they share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    demands: Vec<Demand>,
    capacities: BTreeMap<Resource, BitsPerSec>,
}

/// A resource that gets more than it can carry, because no path around it has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Overload {
    /// Which one.
    pub resource: Resource,
    /// What is placed on it.
    pub rate: BitsPerSec,
    /// What it can carry; zero where it is closed.
    pub capacity: BitsPerSec,
}

/// How demand is split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// For each demand, in the problem's order, the share of each option. They sum to a thousand, unless
    /// the demand has no option.
    pub shares: Vec<Vec<Permille>>,
    /// What is above its capacity, in order of resource.
    pub overloads: Vec<Overload>,
    /// For each demand that has no room for all of it, the part that it puts on full paths nevertheless, or
    /// all if it has no path; by place in the problem, in order.
    pub unplaced: Vec<(usize, BitsPerSec)>,
}

impl Problem {
    /// Makes a problem without demands, in which everything is unbounded.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a demand; its number is how many were there before.
    pub fn push(&mut self, demand: Demand) {
        self.demands.push(demand);
    }

    /// Says what a resource can carry. Zero means that it is not known, hence unbounded.
    pub fn limit(&mut self, resource: Resource, capacity: BitsPerSec) {
        if capacity.0 > 0 {
            self.capacities.insert(resource, capacity);
        }
    }

    /// Says that a resource is to carry nothing: its volume of this month is spent.
    pub fn close(&mut self, resource: Resource) {
        self.capacities.insert(resource, BitsPerSec(0));
    }

    /// The demands, in order of their numbers.
    pub fn demands(&self) -> &[Demand] {
        &self.demands
    }

    /// What is bounded, in order of resource.
    pub fn capacities(&self) -> impl ExactSizeIterator<Item = (Resource, BitsPerSec)> {
        self.capacities.iter().map(|(&resource, &capacity)| (resource, capacity))
    }

    /// What a resource can carry, zero if it is closed; `None` if it is unbounded.
    pub fn capacity(&self, resource: Resource) -> Option<BitsPerSec> {
        self.capacities.get(&resource).copied()
    }
}

impl Resource {
    /// What traffic on a link fills: the link, the sender's lines and the receiver's.
    pub fn on(link: LinkId) -> [Self; 5] {
        let LinkId { from, to, index } = link;
        [
            Self::Link(link),
            Self::Sending(from),
            Self::LineSending(from, index),
            Self::Receiving(to),
            Self::LineReceiving(to, index),
        ]
    }
}

/// Splits every demand over its paths. See the module's first lines.
pub fn place(problem: &Problem) -> Placement {
    let instance = Instance::of(problem);
    let kept = instance.has_previous().then(|| kept(&instance));
    let best = match kept {
        Some(kept) if kept.overloads().next().is_none() && is_near_least(&kept, &instance) => kept,
        Some(kept) => {
            let mut fresh = fresh(&instance);
            if is_worth(&kept, &fresh, &instance) {
                fresh.restore();
                fresh
            } else {
                kept
            }
        }
        None => fresh(&instance),
    };
    best.placement(problem)
}

/// The previous shares, mended.
fn kept(instance: &Instance) -> Ledger<'_> {
    let mut kept = Ledger::previous(instance);
    kept.settle(Reluctance::Settled);
    kept.insert();
    kept.improve(Reluctance::Settled);
    kept.spill();
    kept.settle(Reluctance::Settled);
    kept
}

/// A split that knows nothing of the previous one.
fn fresh(instance: &Instance) -> Ledger<'_> {
    let mut market = Market::new(instance);
    market.clear();
    let mut fresh = Ledger::rounded(instance, market.shares());
    fresh.relieve(&market.prices());
    fresh.insert();
    fresh.improve(Reluctance::None);
    fresh.spill();
    fresh.settle(Reluctance::None);
    fresh
}

/// Whether no split can be clearly cheaper, for every demand's best path hardly is.
fn is_near_least(kept: &Ledger, instance: &Instance) -> bool {
    !exceeds(kept.cost(), instance.least_cost())
}

/// Whether the fresh split is clearly better: it harms less, or costs less.
fn is_worth(kept: &Ledger, fresh: &Ledger, instance: &Instance) -> bool {
    let tolerated = instance.rate() * u128::from(WHOLE) / HARM_TOLERATED;
    let (kept_harm, fresh_harm) = (kept.harm(), fresh.harm());
    if fresh_harm == [0; 3] && kept_harm != [0; 3] {
        return true;
    }
    for (kept, fresh) in kept_harm.into_iter().zip(fresh_harm) {
        if kept > fresh + tolerated {
            return true;
        }
        if fresh > kept + tolerated {
            return false;
        }
    }
    exceeds(kept.cost(), fresh.cost())
}

fn exceeds(value: u128, other: u128) -> bool {
    value * 100 > other * (100 + GAIN_PERCENT_MIN)
}

#[cfg(test)]
mod tests;
