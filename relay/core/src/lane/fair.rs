//! The frames of one class, with a queue for each tenant: deficit round robin (Shreedhar and Varghese 1996).
//!
//! Tenants with frames that wait take turns. A turn adds a *quantum*, the cost of one full frame, to what the
//! tenant may send; it sends while its next frame fits into that, and keeps the rest for its next turn. A
//! tenant without frames leaves the round and its rest is forgotten. So between two tenants that both
//! always have frames, what they have sent differs by at most three quanta whatever the lengths of their frames,
//! over any time; and to choose a frame takes at most two looks.
//!
//! A tenant is a policy id: tenant and cell, by the pushed table. There are [`TENANTS_MAX`] queues. As long as no more
//! tenants than that have frames that wait, each has its own. The others join the queue whose number is their id
//! modulo that, and share its turn: whoever sends under thousands of ids can take turns from others, never
//! memory or time. A tenant stays in the queue that it shares until that is empty, so its frames keep their order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use overway_wire::{Class, Header, Millis, PolicyId};

use super::codel::{Codel, Law};
use super::store::{Chain, Left, Store};
use super::{COST_MAX, QueueStats, Queued, Shed, Untold};

/// Queues of a class: a place in the round is a byte, and to look through all of them takes well below a
/// microsecond. A mesh has fewer policies.
const TENANTS_MAX: usize = 256;
/// What a turn adds. No frame costs more, so each turn sends at least one.
const QUANTUM: usize = COST_MAX;

/// The queues of one class.
#[derive(Debug)]
pub(super) struct Fair {
    class: Class,
    law: Law,
    /// To whom each queue belongs, or last belonged.
    owners: Vec<PolicyId>,
    /// What the frames of each cost; beside the rest, for whoever looks for the longest.
    costs: Vec<usize>,
    tenants: Vec<Tenant>,
    /// Queues with frames, the one whose turn it is first.
    round: VecDeque<u8>,
    /// Whether the first of the round has had its quantum.
    granted: bool,
    cost: usize,
    stats: QueueStats,
}

#[derive(Debug, Default)]
struct Tenant {
    chain: Chain,
    deficit: usize,
    codel: Codel,
    /// Whether frames of others than the owner may be among those that wait.
    shared: bool,
}

impl Fair {
    pub(super) fn new(class: Class, law: Law) -> Self {
        Self {
            class,
            law,
            owners: Vec::new(),
            costs: Vec::new(),
            tenants: Vec::new(),
            round: VecDeque::new(),
            granted: false,
            cost: 0,
            stats: QueueStats::default(),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.round.is_empty()
    }

    /// What all frames that wait cost.
    #[inline]
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    pub(super) fn stats(&self) -> QueueStats {
        QueueStats { waiting_bytes: self.cost as u64, ..self.stats }
    }

    #[inline]
    pub(super) fn push_back(&mut self, store: &mut Store, queued: Queued) {
        let tenant = self.enter(&queued);
        store.push_back(&mut tenant.chain, queued);
    }

    /// Puts a frame before those of its tenant.
    pub(super) fn push_front(&mut self, store: &mut Store, queued: Queued) {
        let tenant = self.enter(&queued);
        store.push_front(&mut tenant.chain, queued);
    }

    #[inline]
    fn enter(&mut self, queued: &Queued) -> &mut Tenant {
        let at = self.queue_of(queued.header.policy);
        let cost = queued.cost();
        self.cost += cost;
        self.stats.queued += 1;
        self.stats.waiting += 1;
        let tenant = &mut self.tenants[usize::from(at)];
        if tenant.chain.is_empty() {
            self.round.push_back(at);
        }
        self.costs[usize::from(at)] += cost;
        tenant
    }

    /// The queue for a tenant's next frame. One that owns a queue has no frames in another: it comes to own
    /// it only while the one that it would share is not shared.
    #[inline]
    fn queue_of(&mut self, policy: PolicyId) -> u8 {
        if let Some(own) = self.owners.iter().position(|&owner| owner == policy) {
            return place(own);
        }
        let home = usize::from(policy.0) % TENANTS_MAX;
        if self.tenants.get(home).is_some_and(|tenant| tenant.shared) {
            return place(home);
        }
        if self.round.len() < self.tenants.len() {
            let empty = self.tenants.iter().position(|tenant| tenant.chain.is_empty());
            let empty = empty.expect("one that is not in the round is empty");
            self.owners[empty] = policy;
            self.tenants[empty].codel = Codel::default();
            return place(empty);
        }
        if self.tenants.len() < TENANTS_MAX {
            self.owners.push(policy);
            self.costs.push(0);
            self.tenants.push(Tenant::default());
            return place(self.tenants.len() - 1);
        }
        self.tenants[home].shared = true;
        place(home)
    }

    /// Gives the turn to the first tenant whose next frame fits into what it may send; says which, and what
    /// the frame costs.
    #[inline]
    fn settle(&mut self, store: &Store) -> Option<(usize, usize)> {
        loop {
            let at = usize::from(*self.round.front()?);
            let tenant = &mut self.tenants[at];
            if !std::mem::replace(&mut self.granted, true) {
                tenant.deficit += QUANTUM;
            }
            let next = store.front(tenant.chain).expect("who is in the round has frames").cost();
            if next <= tenant.deficit {
                return Some((at, next));
            }
            self.round.rotate_left(1);
            self.granted = false;
        }
    }

    /// What the next frame costs.
    pub(super) fn next_cost(&mut self, store: &Store) -> Option<usize> {
        self.settle(store).map(|(_, cost)| cost)
    }

    /// Takes the next frame out that is still worth sending, marked if its queue is bad, and drops those before
    /// it that are not; says what it costs. One that costs more than this stays.
    #[inline]
    pub(super) fn pop(
        &mut self,
        store: &mut Store,
        untold: &mut Untold,
        (age_max, cost_max): (Duration, usize),
        now: Instant,
    ) -> Option<(Left, usize)> {
        loop {
            let (at, cost) = self.settle(store)?;
            if cost > cost_max {
                return None;
            }
            let left = self.leave(store, at, cost)?;
            let queued = store.left(&left);
            let waited = queued.waited(now);
            if !waited.is_zero() {
                self.stats.waited_max = self.stats.waited_max.max(waited);
                if let Some(shed) = worthless(self.class, &queued.header, waited, age_max) {
                    self.stats.count(shed);
                    untold[shed as usize] += 1;
                    store.release(left);
                    self.rest(at);
                    continue;
                }
            }
            let tenant = &mut self.tenants[at];
            tenant.deficit -= cost;
            if tenant.codel.is_due(&self.law, waited, self.costs[at], now) {
                self.stats.marked += u64::from(queued.mark());
            }
            self.rest(at);
            return Some((left, cost));
        }
    }

    /// Drops the oldest frame of the tenant whose frames cost most, and says what it cost.
    pub(super) fn evict(&mut self, store: &mut Store) -> Option<usize> {
        let (at, _) = self.costs.iter().enumerate().max_by_key(|&(_, cost)| cost)?;
        let cost = store.front(self.tenants[at].chain)?.cost();
        let left = self.leave(store, at, cost)?;
        store.release(left);
        self.stats.count(Shed::Full);
        self.rest(at);
        Some(cost)
    }

    #[inline]
    fn leave(&mut self, store: &mut Store, at: usize, cost: usize) -> Option<Left> {
        let left = store.leave_front(&mut self.tenants[at].chain)?;
        self.costs[at] -= cost;
        self.cost -= cost;
        self.stats.waiting -= 1;
        Some(left)
    }

    /// Takes a tenant out of the round if it has nothing left.
    #[inline]
    fn rest(&mut self, at: usize) {
        let tenant = &mut self.tenants[at];
        if !tenant.chain.is_empty() {
            return;
        }
        tenant.deficit = 0;
        tenant.shared = false;
        tenant.codel.rest();
        if self.round.front().is_some_and(|&first| usize::from(first) == at) {
            self.round.pop_front();
            self.granted = false;
            return;
        }
        let turn = self.round.iter().position(|&other| usize::from(other) == at);
        if let Some(turn) = turn {
            self.round.remove(turn);
        }
    }

    /// Where every frame that waits is, tenant by tenant.
    pub(super) fn places(&self, store: &Store) -> impl Iterator<Item = u32> {
        let chains = self.round.iter().map(|&at| self.tenants[usize::from(at)].chain);
        chains.flat_map(|chain| store.places(chain))
    }

    /// Takes every frame out, tenant by tenant.
    pub(super) fn drain(&mut self, store: &mut Store) -> Vec<Queued> {
        let mut all = Vec::new();
        while let Some(&at) = self.round.front() {
            let mut chain = std::mem::take(&mut self.tenants[usize::from(at)].chain);
            while let Some(queued) = store.pop_front(&mut chain) {
                all.push(queued);
            }
            self.costs[usize::from(at)] = 0;
            self.rest(at.into());
        }
        self.cost = 0;
        self.stats.waiting = 0;
        all
    }
}

/// A queue's number as the round holds it.
fn place(at: usize) -> u8 {
    u8::try_from(at).expect("there are no more than TENANTS_MAX queues")
}

/// Why a frame is not worth sending after it has waited so long. What is late on the realtime lane is noise; on
/// the others the end still wants it, and asks for it again if it is dropped.
fn worthless(class: Class, header: &Header, waited: Duration, age_max: Duration) -> Option<Shed> {
    let expires = class == Class::Realtime && header.budget != Millis(u16::MAX);
    if expires && waited > Duration::from(header.budget) {
        return Some(Shed::Expired);
    }
    (waited > age_max).then_some(Shed::Aged)
}
