//! When which link wants to be woken: a wake costs the logarithm of the number of links, not the number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use overway_wire::NeighbourLink;

/// One timer per link. A timer may ring early, since a frame that moves a deadline later does not move its
/// timer; whoever wakes sets it anew.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    order: BTreeSet<(Instant, NeighbourLink)>,
    set: BTreeMap<NeighbourLink, Instant>,
}

impl Timers {
    /// Sees to it that the link is woken no later than at `due`.
    pub(crate) fn wake(&mut self, link: NeighbourLink, due: Instant) {
        let old = self.set.get(&link).copied();
        if old.is_some_and(|old| old <= due) {
            return;
        }
        if let Some(old) = old {
            self.order.remove(&(old, link));
        }
        self.order.insert((due, link));
        self.set.insert(link, due);
    }

    /// Ends a link's timer.
    pub(crate) fn cancel(&mut self, link: NeighbourLink) {
        if let Some(due) = self.set.remove(&link) {
            self.order.remove(&(due, link));
        }
    }

    /// Sets one timer for each of these links, all at `now`, and ends all others.
    pub(crate) fn restart(&mut self, links: impl Iterator<Item = NeighbourLink>, now: Instant) {
        self.set = links.map(|link| (link, now)).collect();
        self.order = self.set.keys().map(|&link| (now, link)).collect();
    }

    /// When the first rings.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.order.first().map(|&(due, _)| due)
    }

    /// Ends the first timer, and says whose it was, if it would ring after `now` and no later than `soon`.
    pub(crate) fn take_soon(&mut self, now: Instant, soon: Instant) -> Option<NeighbourLink> {
        let &(due, link) = self.order.first()?;
        if due <= now || due > soon {
            return None;
        }
        self.order.pop_first();
        self.set.remove(&link);
        Some(link)
    }

    /// Takes out the links whose timers have rung.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<NeighbourLink> {
        let mut due = Vec::new();
        while let Some(&(at, link)) = self.order.first()
            && at <= now
        {
            self.order.pop_first();
            self.set.remove(&link);
            due.push(link);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use overway_wire::{LinkIndex, RelayId};

    fn link(relay: u16) -> NeighbourLink {
        NeighbourLink::new(RelayId(relay), LinkIndex::default())
    }

    #[test]
    fn the_earliest_wish_of_a_link_counts_until_it_was_woken() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.wake(link(1), at(20));
        timers.wake(link(1), at(10));
        timers.wake(link(1), at(30));
        timers.wake(link(2), at(15));
        timers.wake(link(3), at(5));
        timers.cancel(link(3));

        assert_eq!(timers.first(), Some(at(10)));
        assert_eq!(timers.take_soon(now, at(9)), None);
        assert_eq!(timers.take_soon(at(10), at(12)), None);
        assert_eq!(timers.take_soon(at(9), at(10)), Some(link(1)));
        timers.wake(link(1), at(10));
        assert_eq!(timers.take_due(at(15)), [link(1), link(2)]);
        assert_eq!((timers.first(), timers.take_due(at(99))), (None, vec![]));
    }
}
