//! Moves that make a split fit, and then cheaper.
//!
//! 1. [`relieve`](Ledger::relieve): what is above its capacity sends shares to paths with room, those first that lose
//!    least; what is too much then is taken off, lowest class first.
//! 2. [`insert`](Ledger::insert): what was taken off looks for room, highest class first, and makes others
//!    move aside where that gives room, or makes lower classes leave.
//! 3. [`improve`](Ledger::improve): shares move to cheaper paths that have room.
//! 4. [`spill`](Ledger::spill): what found no room goes where it harms least.
//! 5. [`settle`](Ledger::settle): nothing stays above its capacity while another path of a demand on it has
//!    room.
//!
//! No move but a spill puts anything above its capacity.

use std::cmp::Reverse;

use overway_wire::Class;

use super::WHOLE;
use super::instance::number;
use super::ledger::{Ledger, share_for};

/// Rounds over all resources or demands, in which moves make room for others.
const ROUNDS_MAX: usize = 16;
/// Visits of a resource's users by which demands make others move aside. Beyond that what is left is
/// spilled: it is an overload in which most demands on a resource have no other way.
const VISITS_MAX: usize = 400_000;
/// Thousandths that are spilled at once, so that several full paths share what is too much.
const SPILL: u16 = 100;
/// Rounds over the demands in which they get their shares back: one's return makes room for another's.
const RESTORE_ROUNDS: usize = 2;
/// What a share must gain to move while it has a place: microseconds, and a part of its cost.
const MOVE_GAIN_MIN: u32 = 1_000;
const MOVE_GAIN_PERCENT_MIN: u32 = 5;
/// What a full resource is relieved to, and what it is filled to again, in thousandths of its capacity.
const LEAVE_TO: u16 = 960;
const RETURN_TO: u16 = 900;

/// How much a move must be worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reluctance {
    /// Anything.
    None,
    /// It is pushed to relays, and demand changes every second: what must leave leaves for more than that
    /// second, and comes back when there is more room than it needs.
    Settled,
}

impl Reluctance {
    /// What a resource above its capacity is relieved to, in thousandths of it.
    fn leave_to(self) -> u16 {
        match self {
            Self::None => WHOLE,
            Self::Settled => LEAVE_TO,
        }
    }

    /// What a resource is filled to by moves that only gain.
    fn return_to(self) -> u16 {
        match self {
            Self::None => WHOLE,
            Self::Settled => RETURN_TO,
        }
    }

    /// What such a move must gain from this cost.
    fn gain_min(self, cost: u32) -> u32 {
        match self {
            Self::None => 0,
            Self::Settled => MOVE_GAIN_MIN.max(cost / 100 * MOVE_GAIN_PERCENT_MIN),
        }
    }
}

/// A possible move off a resource, the least loss first.
type Move = (i64, usize, usize);

impl Ledger<'_> {
    /// Makes everything fit, at the price of taking off what finds no room.
    pub(super) fn relieve(&mut self, prices: &[u64]) {
        self.move_off_overloads(prices, Reluctance::None);
        for resource in 0..self.instance().capacities().len() {
            self.take_off(resource, self.excess(resource), None);
        }
    }

    /// Moves shares off overloads as far as others have room.
    pub(super) fn settle(&mut self, reluctance: Reluctance) {
        self.move_off_overloads(&[], reluctance);
    }

    fn move_off_overloads(&mut self, prices: &[u64], reluctance: Reluctance) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            for resource in 0..self.instance().capacities().len() {
                if self.excess(resource) > 0 {
                    let load = self.excess_over(reluctance.leave_to(), resource);
                    moved |= self.move_off(resource, load, prices, &[]);
                }
            }
            if !moved {
                break;
            }
        }
    }

    /// Moves shares off a resource until `load` has left it, onto options that fill nothing of `spared`.
    fn move_off(&mut self, resource: usize, load: u128, prices: &[u64], spared: &[u32]) -> bool {
        let mut left = load;
        for (_, from, to) in self.moves_off(resource, prices, spared) {
            if left == 0 {
                break;
            }
            let rate = self.instance().demand_of(from).rate;
            let by = self.share(from).min(self.room(Some(from), to)).min(share_for(left, rate));
            self.shift(self.demand(from), Some(from), Some(to), by);
            left = left.saturating_sub(u128::from(rate) * u128::from(by));
        }
        left < load
    }

    fn moves_off(&self, resource: usize, prices: &[u64], spared: &[u32]) -> Vec<Move> {
        let instance = self.instance();
        let name = number(resource);
        let price = |option: usize| {
            let uses = instance.uses(option).iter();
            let prices = uses.filter_map(|&resource| prices.get(resource as usize));
            let cost = u64::from(instance.options()[option].cost);
            prices.fold(cost, |sum, &price| sum.saturating_add(price)).min(1 << 62).cast_signed()
        };
        let mut moves = Vec::new();
        for &from in instance.users(resource) {
            let from = from as usize;
            if self.share(from) == 0 {
                continue;
            }
            for to in instance.others(from) {
                let uses = instance.uses(to);
                let aside = !uses.contains(&name) && !uses.iter().any(|at| spared.contains(at));
                if aside && self.room(Some(from), to) > 0 {
                    moves.push((price(to) - price(from), from, to));
                }
            }
        }
        moves.sort_unstable();
        moves
    }

    /// Takes shares off a resource until `load` has left it: the lowest class first, then the dearest; only
    /// of classes below one, if that is given.
    fn take_off(&mut self, resource: usize, load: u128, below: Option<Class>) {
        if load == 0 {
            return;
        }
        let instance = self.instance();
        let users = instance.users(resource).iter().map(|&option| option as usize);
        let mut users: Vec<_> = users
            .filter(|&option| self.share(option) > 0)
            .map(|option| (instance.demand_of(option).class, instance.preference(option)))
            .filter(|(class, _)| below.is_none_or(|below| *class > below))
            .collect();
        users.sort_unstable_by_key(|&user| Reverse(user));
        let mut left = load;
        for (_, (_, _, option)) in users {
            if left == 0 {
                break;
            }
            let rate = instance.demand_of(option).rate;
            let by = self.share(option).min(share_for(left, rate));
            self.shift(self.demand(option), Some(option), None, by);
            left = left.saturating_sub(u128::from(rate) * u128::from(by));
        }
    }

    /// Finds room for what is on no path.
    pub(super) fn insert(&mut self) {
        let mut visits = 0;
        for class in Class::ALL {
            for demand in 0..self.instance().demands().len() {
                if self.rest(demand) == 0 || self.instance().demands()[demand].class != class {
                    continue;
                }
                let options = self.options_by_preference(demand);
                for &option in &options {
                    self.fill(demand, option);
                }
                for &option in &options {
                    if self.rest(demand) > 0 && visits < VISITS_MAX {
                        visits += self.make_room(demand, option, class);
                        self.fill(demand, option);
                    }
                }
            }
        }
    }

    fn options_by_preference(&self, demand: usize) -> Vec<usize> {
        let mut options: Vec<_> = self.instance().demands()[demand].options().collect();
        options.sort_unstable_by_key(|&option| self.instance().preference(option));
        options
    }

    fn fill(&mut self, demand: usize, option: usize) {
        let by = self.rest(demand).min(self.room(None, option));
        self.shift(demand, None, Some(option), by);
    }

    /// Makes others leave what an option fills, so that the rest of its demand finds room; returns how
    /// many were looked at.
    fn make_room(&mut self, demand: usize, option: usize, class: Class) -> usize {
        let instance = self.instance();
        let wanted = u128::from(instance.demands()[demand].rate) * u128::from(self.rest(demand));
        let mut visits = 0;
        for &resource in instance.uses(option) {
            let resource = resource as usize;
            for lower_leave in [false, true] {
                let missing = wanted.saturating_sub(self.free(resource));
                if missing == 0 || instance.capacities()[resource] == 0 {
                    break;
                }
                visits += instance.users(resource).len();
                match lower_leave {
                    false => {
                        self.move_off(resource, missing, &[], instance.uses(option));
                    }
                    true => self.take_off(resource, missing, Some(class)),
                }
            }
        }
        visits
    }

    /// Moves shares to cheaper options with room.
    pub(super) fn improve(&mut self, reluctance: Reluctance) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            for demand in 0..self.instance().demands().len() {
                moved |= self.improve_one(demand, reluctance);
            }
            if !moved {
                break;
            }
        }
    }

    fn improve_one(&mut self, demand: usize, reluctance: Reluctance) -> bool {
        let instance = self.instance();
        let mut moved = false;
        for from in instance.demands()[demand].options() {
            let cost = instance.options()[from].cost;
            let gain_min = reluctance.gain_min(cost);
            for to in instance.demands()[demand].options() {
                let gains = instance.preference(to) < instance.preference(from)
                    && cost - instance.options()[to].cost >= gain_min;
                if self.share(from) > 0 && gains {
                    let room = self.room_below(reluctance.return_to(), Some(from), to);
                    let by = self.share(from).min(room);
                    self.shift(demand, Some(from), Some(to), by);
                    moved |= by > 0;
                }
            }
        }
        moved
    }

    /// Puts what is on no path where it harms least, highest class first.
    pub(super) fn spill(&mut self) {
        for class in Class::ALL {
            for demand in 0..self.instance().demands().len() {
                let entry = &self.instance().demands()[demand];
                if entry.class != class {
                    continue;
                }
                while self.rest(demand) > 0 {
                    let options = entry.options();
                    let Some(to) = options.min_by_key(|&option| self.harm_key(option)) else {
                        break;
                    };
                    let room = self.room(None, to).max(SPILL.min(WHOLE));
                    self.shift(demand, None, Some(to), self.rest(demand).min(room));
                }
            }
        }
    }

    /// The lower, the less harm more on this option does: nothing closed, few full resources, where it was
    /// before, little filled.
    fn harm_key(&self, option: usize) -> (usize, usize, bool, u128, (u32, u32, usize)) {
        let instance = self.instance();
        let rate = u128::from(instance.demand_of(option).rate);
        let uses = || instance.uses(option).iter().map(|&resource| resource as usize);
        let closed = uses().filter(|&resource| instance.capacities()[resource] == 0).count();
        let full = uses().filter(|&resource| self.free(resource) < rate).count();
        let moves = self.share(option) >= instance.options()[option].previous;
        let utilisation = uses().map(|resource| self.utilisation(resource)).max().unwrap_or(0);
        (closed, full, moves, utilisation, self.money_first(option))
    }

    /// Bulk minds money first, the others cost.
    fn money_first(&self, option: usize) -> (u32, u32, usize) {
        let (cost, price, option) = self.instance().preference(option);
        match self.instance().demand_of(option).class {
            Class::Bulk => (price, cost, option),
            Class::Interactive | Class::Realtime => (cost, price, option),
        }
    }

    /// Gives demands back the shares that they had, where everything still fits and the loss is less than what
    /// a move must gain.
    pub(super) fn restore(&mut self) {
        for _ in 0..RESTORE_ROUNDS {
            for demand in 0..self.instance().demands().len() {
                self.restore_one(demand);
            }
        }
    }

    fn restore_one(&mut self, demand: usize) {
        let options = &self.instance().options()[self.instance().demands()[demand].options()];
        let had: Vec<u16> = options.iter().map(|option| option.previous).collect();
        let has = self.shares_of(demand).to_vec();
        if had == has
            || self.rest(demand) > 0
            || had.iter().map(|&share| u32::from(share)).sum::<u32>() != u32::from(WHOLE)
        {
            return;
        }
        let mean_cost = |shares: &[u16]| {
            let parts = options.iter().zip(shares);
            let sum: u64 =
                parts.map(|(option, &share)| u64::from(option.cost) * u64::from(share)).sum();
            u32::try_from(sum / u64::from(WHOLE)).expect("a mean of costs")
        };
        let loss = mean_cost(&had).saturating_sub(mean_cost(&has));
        if loss < Reluctance::Settled.gain_min(mean_cost(&had)) && !self.take(demand, &had, true) {
            self.take(demand, &has, false);
        }
    }

    /// Moves a demand to these shares, as far as there is room if that is asked; says whether it is all there.
    fn take(&mut self, demand: usize, shares: &[u16], only_into_room: bool) -> bool {
        let instance = self.instance();
        let options = || instance.demands()[demand].options().zip(shares);
        for (option, &share) in options() {
            let by = self.share(option).saturating_sub(share);
            self.shift(demand, Some(option), None, by);
        }
        for (option, &share) in options() {
            let by = share.saturating_sub(self.share(option)).min(self.rest(demand));
            let by = if only_into_room { by.min(self.room(None, option)) } else { by };
            self.shift(demand, None, Some(option), by);
        }
        self.rest(demand) == 0
    }

    fn demand(&self, option: usize) -> usize {
        self.instance().options()[option].demand as usize
    }
}
