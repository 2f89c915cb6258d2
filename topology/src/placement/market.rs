//! Finds prices at which demands fit: the linear program's dual, and a split near its optimum.
//!
//! Each scarce resource has a price per bit. Demands, one after the other, move share from where cost and
//! prices are dearest to where they are least, as far as that pays: prices move with the load. When the
//! split has come to rest, what a resource is still short of is added to its price for good. This is the method of
//! multipliers (Hestenes 1969; Powell 1969; Bertsekas, "Constrained optimization and Lagrange multiplier
//! methods", 1982), its inner problem solved by coordinate descent, and roughly. Its split may be a little above
//! capacities, which the [`Ledger`](super::ledger::Ledger) mends.
//!
//! At any prices, the sum of what demands would pay at least, less what the resources are worth, is a lower
//! bound of the optimum. It ends the search early.
//!
//! Floating point is confined to the market and its [`Scarcity`]; only addition, multiplication, division
//! and comparison are used, in a fixed order, which IEEE 754 makes the same everywhere.

use overway_wire::Class;

use super::instance::{DemandEntry, Instance};
use super::scarcity::Scarcity;

/// Sweeps over the demands, at most: few demands that each fill much need more of them than many.
const SWEEPS_MAX: usize = 1_000;
/// Sweeps, at least.
const SWEEPS_MIN: usize = 20;
/// Options that are looked at in all sweeps together; about 40 ns each.
const LOOKS_MAX: usize = 800_000;
/// As many sweeps as there may be, over this, pass until multipliers are raised; at most `REST_MAX`.
const SWEEPS_PER_REST: usize = 60;
const REST_MAX: usize = 5;
/// Raises between two looks at the bound, which takes about a sweep's time.
const RAISES_PER_CHECK: usize = 5;
/// Distance from the bound at which the search ends.
const GAP_MAX: f64 = 0.002;
/// Excess, as a part of the limit, that the ledger may mend.
const EXCESS_MAX: f64 = 0.001;
/// What an overload by the whole limit adds to a resource's price, in mean differences between a
/// demand's dearest and cheapest option.
const STIFFNESS: f64 = 4.0;
const STIFFNESS_MIN: f64 = 0.05;
const STIFFNESS_MAX: f64 = 64.0;
/// By what the stiffness changes at once.
const STIFFNESS_STEP: f64 = 1.6;
/// Steps by which the point is sought at which a move between two options stops to pay, and the part of the saving
/// that may be left there.
const SEARCH_STEPS: usize = 20;
const SAVING_LEFT_MAX: f64 = 0.01;

pub(super) struct Market<'a> {
    instance: &'a Instance,
    scarcity: Scarcity,
    contestants: Vec<Contestant>,
    scarce: Vec<Scarce>,
    /// Share of each option, 0 to 1.
    shares: Vec<f64>,
    /// The unit of prices: see [`STIFFNESS`].
    spread: f64,
    stiffness: f64,
    /// Rate x cost of the demands that are not contested.
    settled_cost: f64,
}

/// A demand that has a choice.
#[derive(Clone, Copy, Debug)]
struct Contestant {
    /// Its place in the instance.
    demand: u32,
    rate: f64,
    /// What it costs to stay out: the price up to which it bids.
    out_price: f64,
    /// The share that stays out.
    out_share: f64,
}

/// A resource for which there may be more demand than room. Rates are in bit/s.
#[derive(Clone, Copy, Debug, Default)]
struct Scarce {
    limit: f64,
    load: f64,
    /// Its price as far as it is settled.
    multiplier: f64,
    /// Price per rate above the limit.
    stiffness: f64,
    price: f64,
}

/// Where a share may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    Option(usize),
    Out,
}

impl Scarce {
    fn price_at(&self, load: f64) -> f64 {
        (self.multiplier + self.stiffness * (load - self.limit)).max(0.0)
    }
}

impl<'a> Market<'a> {
    pub(super) fn new(instance: &'a Instance) -> Self {
        let scarcity = Scarcity::of(instance);
        let scarce = |&limit: &f64| Scarce { limit, ..Scarce::default() };
        let mut market = Self {
            instance,
            contestants: Vec::new(),
            scarce: scarcity.limits.iter().map(scarce).collect(),
            scarcity,
            shares: vec![0.0; instance.options().len()],
            spread: 1.0,
            stiffness: STIFFNESS,
            settled_cost: 0.0,
        };
        market.start();
        market
    }

    /// Share of each option, 0 to 1; what is missing to 1 found no room.
    pub(super) fn shares(&self) -> &[f64] {
        &self.shares
    }

    /// Price of each resource, in the unit of costs.
    pub(super) fn prices(&self) -> Vec<u64> {
        let mut prices = vec![0; self.instance.capacities().len()];
        for (scarce, &resource) in self.scarce.iter().zip(&self.scarcity.resources) {
            prices[resource as usize] = whole(scarce.multiplier);
        }
        prices
    }

    /// Looks for prices at which everything fits.
    pub(super) fn clear(&mut self) {
        if self.contestants.is_empty() {
            return;
        }
        let options = |one: &Contestant| self.demand(one).options().len();
        let looks: usize = self.contestants.iter().map(options).sum();
        let sweeps = (LOOKS_MAX / looks).clamp(SWEEPS_MIN, SWEEPS_MAX);
        let rest = (sweeps / SWEEPS_PER_REST).clamp(1, REST_MAX);
        let raises = sweeps / rest;
        for raise in 1..=raises {
            for _ in 0..rest {
                (0..self.contestants.len()).for_each(|at| self.split(at));
            }
            self.raise_multipliers();
            if raise % RAISES_PER_CHECK == 0 {
                // Anew, lest what is lost in additions adds up.
                self.count_loads();
                let (excess, gap) = (self.excess(), self.gap());
                if excess <= EXCESS_MAX && gap <= GAP_MAX {
                    break;
                }
                self.balance(excess, gap, raise * 4 > raises * 3);
            }
        }
    }

    /// Everything on its best path.
    fn start(&mut self) {
        let (mut spreads, mut rates) = (0.0, 0.0);
        for demand in self.instance.demands() {
            if let Some(best) = self.instance.best(demand) {
                self.shares[best] = 1.0;
                self.settled_cost += demand.rate as f64 * self.cost(best);
            }
        }
        for &at in &self.scarcity.contested {
            let demand = &self.instance.demands()[at as usize];
            let best = self.instance.best(demand).expect("a contested demand has options");
            let rate = demand.rate as f64;
            self.settled_cost -= rate * self.cost(best);
            spreads += rate * self.spread_of(demand);
            rates += rate;
        }
        if spreads > rates {
            self.spread = spreads / rates;
        }
        let contestants = self.scarcity.contested.iter().map(|&demand| {
            let entry = &self.instance.demands()[demand as usize];
            let (rate, out_price) = (entry.rate as f64, self.out_price(entry));
            Contestant { demand, rate, out_price, out_share: 0.0 }
        });
        self.contestants = contestants.collect();
        self.count_loads();
        self.set_prices();
    }

    fn demand(&self, contestant: &Contestant) -> &'a DemandEntry {
        &self.instance.demands()[contestant.demand as usize]
    }

    fn cost(&self, option: usize) -> f64 {
        f64::from(self.instance.options()[option].cost)
    }

    /// By how much a demand's dearest option costs more than its cheapest.
    fn spread_of(&self, demand: &DemandEntry) -> f64 {
        let costs = || demand.options().map(|option| self.instance.options()[option].cost);
        f64::from(costs().max().unwrap_or(0) - costs().min().unwrap_or(0))
    }

    /// What staying out costs: more for those that have precedence, and more than a demand's own dearest
    /// option, so that nobody stays out who has a way.
    fn out_price(&self, demand: &DemandEntry) -> f64 {
        let best = self.instance.best(demand).expect("a contested demand has options");
        let precedence = match demand.class {
            Class::Realtime => 256.0,
            Class::Interactive => 64.0,
            Class::Bulk => 16.0,
        };
        self.cost(best) + precedence * self.spread + 2.0 * self.spread_of(demand)
    }

    /// Moves one demand's share from the dearest spot that it has to the cheapest one.
    fn split(&mut self, at: usize) {
        let contestant = self.contestants[at];
        let out = (contestant.out_price, Spot::Out);
        let mut cheapest = out;
        let mut dearest = (contestant.out_share > 0.0).then_some(out);
        for option in self.demand(&contestant).options() {
            let prices = self.scarcity.uses.list(option).iter();
            let price =
                prices.fold(self.cost(option), |sum, &at| sum + self.scarce[at as usize].price);
            if price < cheapest.0 {
                cheapest = (price, Spot::Option(option));
            }
            if self.shares[option] > 0.0 && dearest.is_none_or(|dearest| price > dearest.0) {
                dearest = Some((price, Spot::Option(option)));
            }
        }
        let (dear_price, from) = dearest.expect("all of a demand is somewhere");
        let (cheap_price, to) = cheapest;
        let saving = dear_price - cheap_price;
        if from == to || saving <= self.spread * 1e-6 {
            return;
        }
        let share = match from {
            Spot::Option(option) => self.shares[option],
            Spot::Out => contestant.out_share,
        };
        let part = self.part_to_move(from, to, contestant.rate * share, saving);
        self.put(at, from, -share * part);
        self.put(at, to, share * part);
    }

    fn uses(&self, spot: Spot) -> &[u32] {
        match spot {
            Spot::Option(option) => self.scarcity.uses.list(option),
            Spot::Out => &[],
        }
    }

    /// The part of `rate` whose move from one spot to another pays, given what it saves at first.
    fn part_to_move(&self, from: Spot, to: Spot, rate: f64, saving_at_first: f64) -> f64 {
        let (from, to) = (self.uses(from), self.uses(to));
        let saving_after = |part: f64| {
            let moved = part * rate;
            let change = |at: &u32, load: f64| {
                let scarce = &self.scarce[*at as usize];
                scarce.price_at(scarce.load + load) - scarce.price
            };
            let left = from.iter().filter(|at| !to.contains(at)).map(|at| change(at, -moved));
            let entered = to.iter().filter(|at| !from.contains(at)).map(|at| change(at, moved));
            saving_at_first + left.sum::<f64>() - entered.sum::<f64>()
        };
        let (mut low, mut low_saving) = (0.0, saving_at_first);
        let (mut high, mut high_saving) = (1.0, saving_after(1.0));
        if high_saving >= 0.0 {
            return 1.0;
        }
        // The saving falls along straight pieces: false position, and every third step bisects, for else
        // an end may stand still.
        for step in 0..SEARCH_STEPS {
            let part = match step % 3 {
                2 => 0.5 * (low + high),
                _ => low + (high - low) * low_saving / (low_saving - high_saving),
            };
            let saving = saving_after(part);
            if saving >= 0.0 {
                (low, low_saving) = (part, saving);
            } else {
                (high, high_saving) = (part, saving);
            }
            if low > 0.0 && low_saving <= saving_at_first * SAVING_LEFT_MAX {
                break;
            }
        }
        low
    }

    /// Adds to the share that a demand has at a spot.
    fn put(&mut self, at: usize, spot: Spot, share: f64) {
        let contestant = &mut self.contestants[at];
        match spot {
            Spot::Option(option) => {
                self.shares[option] = (self.shares[option] + share).max(0.0);
                for &resource in self.scarcity.uses.list(option) {
                    let scarce = &mut self.scarce[resource as usize];
                    scarce.load += share * contestant.rate;
                    scarce.price = scarce.price_at(scarce.load);
                }
            }
            Spot::Out => contestant.out_share = (contestant.out_share + share).max(0.0),
        }
    }

    fn raise_multipliers(&mut self) {
        for scarce in &mut self.scarce {
            scarce.multiplier = scarce.price_at(scarce.load);
        }
        self.set_prices();
    }

    fn count_loads(&mut self) {
        for scarce in &mut self.scarce {
            scarce.load = 0.0;
        }
        for contestant in &self.contestants {
            for option in self.demand(contestant).options() {
                let load = self.shares[option] * contestant.rate;
                if load > 0.0 {
                    for &resource in self.scarcity.uses.list(option) {
                        self.scarce[resource as usize].load += load;
                    }
                }
            }
        }
    }

    fn set_prices(&mut self) {
        for scarce in &mut self.scarce {
            // What is closed repels like what carries one bit a second.
            scarce.stiffness = self.stiffness * self.spread / scarce.limit.max(1.0);
            scarce.price = scarce.price_at(scarce.load);
        }
    }

    /// The greatest excess, as a part of the limit.
    fn excess(&self) -> f64 {
        let excess = |scarce: &Scarce| (scarce.load - scarce.limit - 1.0) / scarce.limit.max(1.0);
        self.scarce.iter().map(excess).fold(0.0, f64::max)
    }

    /// How far the split's cost is above the bound, as a part of it. An excess makes it seem smaller.
    fn gap(&self) -> f64 {
        let (mut cost, mut bound) = (self.settled_cost, self.settled_cost);
        for contestant in &self.contestants {
            let mut least = contestant.out_price;
            let mut paid = contestant.out_share * contestant.out_price;
            for option in self.demand(contestant).options() {
                paid += self.shares[option] * self.cost(option);
                let uses = self.scarcity.uses.list(option).iter();
                let price = uses
                    .fold(self.cost(option), |sum, &at| sum + self.scarce[at as usize].multiplier);
                least = least.min(price);
            }
            cost += contestant.rate * paid;
            bound += contestant.rate * least;
        }
        for scarce in &self.scarce {
            bound -= scarce.multiplier * scarce.limit;
        }
        (cost - bound) / bound.max(1.0)
    }

    /// Stiff prices keep loads within limits, but let demands trade places in small steps only.
    fn balance(&mut self, excess: f64, gap: f64, is_late: bool) {
        if excess > EXCESS_MAX {
            self.stiffness = (self.stiffness * STIFFNESS_STEP).min(STIFFNESS_MAX);
        } else if gap > GAP_MAX && !is_late {
            self.stiffness = (self.stiffness / STIFFNESS_STEP).max(STIFFNESS_MIN);
        }
        self.set_prices();
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "prices are not negative, and saturate"
)]
fn whole(price: f64) -> u64 {
    price as u64
}
