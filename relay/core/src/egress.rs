//! Which lane sends next, as its link's line allows, and what its queues have counted.

use std::time::Instant;

use overway_wire::hop::Lane;
use overway_wire::{Class, NeighbourLink};

use crate::lane::shaper::Turn;
use crate::link::{LaneKey, Link};
use crate::{QueueStats, Relay};

impl Relay {
    /// The first lane with frames, realtime before bulk, that its connection and its link's line let send; and
    /// whether the link's other lane competes with it for the line. A link whose line is busy is woken when that has
    /// drained.
    pub(crate) fn next_ready(
        &mut self,
        now: Instant,
        writable: impl Fn(NeighbourLink, Lane) -> bool,
    ) -> Option<(LaneKey, bool)> {
        for &(lane, key) in self.queued.iter().filter(|&&(lane, key)| writable(key, lane)) {
            let Some(link) = self.links.get(&key) else { return Some(((key, lane), false)) };
            let competes = |&other: &Lane| {
                other != lane && self.queued.contains(&(other, key)) && writable(key, other)
            };
            let contended = link.shaper.is_set() && Lane::DATA.iter().any(competes);
            match link.shaper.turn(lane, contended, now) {
                Turn::Now => return Some(((key, lane), contended)),
                Turn::Other => {}
                Turn::At(due) => self.timers.wake(key, due),
            }
        }
        None
    }

    /// What the queues of each class have seen on all links since the start, those that ended included, in the
    /// order of [`Class::ALL`].
    pub fn queue_stats(&self) -> [QueueStats; Class::ALL.len()] {
        let mut sums = self.queues_ended;
        self.links.values().for_each(|link| add_queues(&mut sums, link));
        sums
    }

    /// Keeps what the queues of a link that ends have counted.
    pub(crate) fn end_queues(&mut self, link: &Link) {
        add_queues(&mut self.queues_ended, link);
        // What still waits there moves elsewhere.
        for ended in &mut self.queues_ended {
            (ended.waiting, ended.waiting_bytes) = (0, 0);
        }
    }
}

fn add_queues(sums: &mut [QueueStats; Class::ALL.len()], link: &Link) {
    for (sum, class) in sums.iter_mut().zip(Class::ALL) {
        link.lanes().for_each(|lane| sum.add(&lane.stats(class)));
    }
}
