//! What all workers count, put together.

use std::time::Instant;

use overway_relay_core::{Counts, Stats};
use overway_wire::Class;

use super::driver::Driver;
use super::{ShellStats, Snapshot};
use crate::steer::SteerStats;

/// What a worker's shards count together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    pub(super) shell: ShellStats,
}

impl Driver {
    /// What the lead knows, with what all workers count, this one's first.
    pub(super) fn snapshot(&self, tallies: &[Tally], now: Instant) -> Snapshot {
        let destinations = self.core.fib().names.keys().filter(|&&id| id != self.core.local());
        let chosen = destinations
            .flat_map(|&id| Class::ALL.map(|class| (id, class, self.core.choose(id, class, now))))
            .collect();
        let (mut counts, mut shell) = (Counts::default(), ShellStats::default());
        for (at, tally) in tallies.iter().enumerate() {
            if at == 0 {
                counts = tally.counts;
            } else {
                counts.add(&tally.counts);
            }
            shell.add(&tally.shell);
        }
        for line in &self.worker.shared.steering {
            let SteerStats { moved, dropped } = line.stats();
            shell.datagrams_moved += moved;
            shell.datagrams_moved_dropped += dropped;
        }
        let carried = |tally: &Tally| {
            let Stats { frames_received, frames_originated, .. } = tally.counts.stats;
            frames_received + frames_originated
        };
        let Counts { stats, probes, recovery, queues } = counts;
        Snapshot {
            stats,
            probes,
            recovery,
            queues,
            shell,
            workers: tallies.iter().map(carried).collect(),
            links: self.core.link_reports(now),
            chosen,
        }
    }
}
