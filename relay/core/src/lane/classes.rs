//! The classes of a lane: which goes next, and which gives way when there is no room.

use std::time::{Duration, Instant};

use overway_wire::Class;

use super::codel::Law;
use super::fair::Fair;
use super::share::{SHARE, Share};
use super::store::{Left, Store};
use super::{COST_MAX, QueueStats, Queued, Shed, Untold};
use crate::DropReason;

/// RFC 8289 section 4.4: five percent of a round trip of 100 ms, the longest that most paths have.
const LAW: Law = Law {
    target: Duration::from_millis(5),
    interval: Duration::from_millis(100),
    least_bytes: COST_MAX,
};
/// A realtime frame has some 300 ms for its whole path, so that a queue which stands for 100 ms at each of
/// three hops would have used it up before the first mark. Thirty is one and a half spacings of a voice flow. The
/// target is the grain of the timers that wake a lane and the line's own jitter.
const LAW_REALTIME: Law = Law {
    target: Duration::from_millis(2),
    interval: Duration::from_millis(30),
    least_bytes: COST_MAX,
};

/// The queues of a lane. The realtime lane has frames of one class, the bulk lane of two.
#[derive(Debug)]
pub(super) struct Classes {
    store: Store,
    /// In the order of [`Class::ALL`].
    queues: [Fair; Class::ALL.len()],
    /// What bulk is owed by interactive.
    share: Share,
    cost_max: usize,
    untold: Untold,
}

impl Classes {
    pub(super) fn new(cost_max: usize) -> Self {
        let queues = Class::ALL.map(|class| match class {
            Class::Realtime => Fair::new(class, LAW_REALTIME),
            Class::Interactive | Class::Bulk => Fair::new(class, LAW),
        });
        Self {
            store: Store::new(),
            queues,
            share: Share::default(),
            cost_max,
            untold: Untold::default(),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(Fair::is_empty)
    }

    #[inline]
    pub(super) fn cost(&self) -> usize {
        self.queues.iter().map(Fair::cost).sum()
    }

    pub(super) fn stats(&self, class: Class) -> QueueStats {
        self.queues[index(class)].stats()
    }

    /// Puts a frame at the end of its queue, where need be in place of others.
    #[inline]
    pub(super) fn push_back(&mut self, queued: Queued) -> Result<(), DropReason> {
        let (class, cost) = (index(queued.header.class), queued.cost());
        while self.cost() + cost > self.cost_max {
            self.evict(class, cost).ok_or(DropReason::QueueFull)?;
        }
        self.queues[class].push_back(&mut self.store, queued);
        Ok(())
    }

    /// Makes room for a frame of this class and cost in the lowest class that takes more than its share; `None` if
    /// that has nothing to give.
    fn evict(&mut self, class: usize, cost: usize) -> Option<usize> {
        let floor = self.cost_max / SHARE;
        let crowds =
            |&at: &usize| self.queues[at].cost() + if at == class { cost } else { 0 } > floor;
        let lowest = (0..self.queues.len()).rev().find(crowds)?;
        let freed = self.queues[lowest].evict(&mut self.store)?;
        self.untold[Shed::Full as usize] += 1;
        Some(freed)
    }

    /// Puts a frame before those of its tenant and class, or says that there is no room.
    pub(super) fn push_front(&mut self, queued: Queued) -> bool {
        let room = self.cost() + queued.cost() <= self.cost_max;
        if room {
            self.queues[index(queued.header.class)].push_front(&mut self.store, queued);
        }
        room
    }

    /// Takes the next frame out that is worth sending, if it costs no more than this.
    #[inline]
    pub(super) fn pop(&mut self, age_max: Duration, cost_max: usize, now: Instant) -> Option<Left> {
        while let Some(class) = self.next_class() {
            let queue = &mut self.queues[index(class)];
            let popped = queue.pop(&mut self.store, &mut self.untold, (age_max, cost_max), now);
            if let Some((left, cost)) = popped {
                self.account(class, cost);
                return Some(left);
            }
            if !queue.is_empty() {
                return None;
            }
        }
        None
    }

    /// A frame that was taken out.
    #[inline]
    pub(super) fn left(&mut self, left: &Left) -> &mut Queued {
        self.store.left(left)
    }

    /// Drops a frame that was taken out.
    #[inline]
    pub(super) fn release(&mut self, left: Left) {
        self.store.release(left);
    }

    #[cfg(test)]
    pub(super) fn take(&mut self, left: Left) -> Option<Queued> {
        self.store.take(left)
    }

    #[inline]
    fn next_class(&mut self) -> Option<Class> {
        let [realtime, interactive, bulk] = &mut self.queues;
        if !realtime.is_empty() {
            return Some(Class::Realtime);
        }
        match (interactive.is_empty(), bulk.is_empty()) {
            (true, true) => return None,
            (true, false) => return Some(Class::Bulk),
            (false, true) => return Some(Class::Interactive),
            (false, false) => {}
        }
        let due = bulk.next_cost(&self.store).is_some_and(|cost| self.share.is_due(cost));
        Some(if due { Class::Bulk } else { Class::Interactive })
    }

    #[inline]
    fn account(&mut self, class: Class, cost: usize) {
        match class {
            Class::Realtime => {}
            Class::Interactive => self.share.pass(cost),
            Class::Bulk => self.share.pay(cost),
        }
        if self.queues[index(Class::Bulk)].is_empty() {
            self.share.close();
        }
    }

    /// Whether anything was dropped and not told yet.
    #[inline]
    pub(super) fn has_untold(&self) -> bool {
        self.untold != Untold::default()
    }

    /// What was dropped and not told yet.
    pub(super) fn take_untold(&mut self) -> Untold {
        std::mem::take(&mut self.untold)
    }

    /// Every frame that waits, higher classes first.
    pub(super) fn waiting(&mut self) -> impl Iterator<Item = &mut Queued> {
        let places = self.queues.iter().flat_map(|queue| queue.places(&self.store)).collect();
        self.store.frames(places)
    }

    /// Takes every frame out, higher classes first.
    pub(super) fn drain(&mut self) -> Vec<Queued> {
        self.share.close();
        self.queues.iter_mut().flat_map(|queue| queue.drain(&mut self.store)).collect()
    }
}

/// A class's place in [`Class::ALL`].
fn index(class: Class) -> usize {
    usize::from(class.code())
}
