//! Counters of a relay's core; the shell exports them.

use overway_probe::Stats as ProbeStats;
use overway_wire::Class;
use overway_wire::hop::Lane;

use crate::{DropReason, QueueStats, RecoveryStats};

/// Counts since the start. A shell destructures it without `..`, so that none is forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames received from neighbours.
    pub frames_received: u64,
    /// Bytes of these, headers included.
    pub bytes_received: u64,
    /// Frames handed to a link.
    pub frames_sent: u64,
    /// Bytes of these, headers included.
    pub bytes_sent: u64,
    /// Frames from local ends.
    pub frames_originated: u64,
    /// Of these, frames that no demand report counts: too many destinations, classes and policies at once.
    pub demands_uncounted: u64,
    /// Frames given to local ends.
    pub frames_delivered: u64,
    /// Frames carried between two neighbours.
    pub frames_forwarded: u64,
    /// Frames handed to another shard of this relay.
    pub handed: u64,
    /// Second copies sent because a link was suspect.
    pub copies: u64,
    /// Bytes of these, headers included, as often as they cross a link.
    pub copy_bytes: u64,
    /// Frames of local ends sent over a second path because their flow wants all of it twice.
    pub doubles: u64,
    /// Bytes of these, headers included, as often as they cross a link.
    pub double_bytes: u64,
    /// Copies not made because the detour's share was used up.
    pub copies_over_budget: u64,
    /// Frames that took a detour because a link was down.
    pub detours: u64,
    /// Frames and copies sent to their destination's other address.
    pub alternates: u64,
    /// Unacknowledged frames of a silent neighbour sent again over a detour.
    pub replays: u64,
    /// Notices sent to sources.
    pub notices_sent: u64,
    /// Notices that this relay, as a source, acted on.
    pub notices_received: u64,
    /// Probes of traces that were answered.
    pub traces_answered: u64,
    /// Probes of traces that were not, because there were too many.
    pub traces_unanswered: u64,
    /// Times that this process woke late.
    pub self_stalls: u64,
    /// Times that a link became suspect.
    pub suspects: u64,
    /// Times that a link went down.
    pub downs: u64,
    /// Updates applied.
    pub updates_applied: u64,
    /// Updates refused: their base or epoch did not fit.
    pub updates_refused: u64,
    /// Frames and messages dropped, in the order of [`DropReason::ALL`].
    pub drops: [u64; DropReason::ALL.len()],
}

impl Stats {
    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Counts what a queue has dropped.
    pub(crate) fn drop_all(&mut self, shed: impl Iterator<Item = (DropReason, u64)>) {
        shed.for_each(|(reason, count)| self.drops[reason as usize] += count);
    }

    /// How many were dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}

/// What a relay's core counts, of itself and of its links, those that ended included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The core's counters.
    pub stats: Stats,
    /// What the probes of all links counted.
    pub probes: ProbeStats,
    /// What was recovered on each data lane, in the order of [`Lane::DATA`].
    pub recovery: [RecoveryStats; Lane::DATA.len()],
    /// What the queues in front of all links have seen, in the order of [`Class::ALL`].
    pub queues: [QueueStats; Class::ALL.len()],
}

impl Counts {
    /// Adds what another shard of the same relay counts. What befalls the relay or a link as a whole befalls each
    /// shard, and is not added: a stall, updates, and a link's silence, of which the lead's word counts.
    pub fn add(&mut self, other: &Self) {
        let Self { stats, probes, recovery, queues } = other;
        self.stats.add_shard(stats);
        self.probes = sum_probes([&self.probes, probes].into_iter());
        add_lanes(&mut self.recovery, recovery);
        self.queues.iter_mut().zip(queues).for_each(|(sum, queue)| sum.add(queue));
    }
}

impl Stats {
    fn add_shard(&mut self, other: &Self) {
        macro_rules! add {
            ($($field:ident),+ but $($once:ident),+ and drops) => {{
                // Destructured, so that none is forgotten.
                let Self { $($field,)+ $($once: _,)+ drops, self_stalls } = other;
                $(self.$field += $field;)+
                self.self_stalls = self.self_stalls.max(*self_stalls);
                self.drops.iter_mut().zip(drops).for_each(|(sum, drops)| *sum += drops);
            }};
        }
        add!(
            frames_received, bytes_received, frames_sent, bytes_sent, frames_originated,
            demands_uncounted, frames_delivered, frames_forwarded, handed, copies, copy_bytes, doubles,
            double_bytes, copies_over_budget, detours, alternates, replays, notices_sent, notices_received,
            traces_answered, traces_unanswered
            but suspects, downs, updates_applied, updates_refused and drops
        );
    }
}

macro_rules! add_fields {
    ($sum:ident, $stats:ident: $($field:ident),+ $(,)?) => {{
        // Destructured, so that none is forgotten.
        let ProbeStats { $($field),+ } = $stats;
        $($sum.$field += $field;)+
    }};
}

/// Adds what recovery counted on each lane of a link.
pub(crate) fn add_lanes<const LANES: usize>(
    sums: &mut [RecoveryStats; LANES],
    lanes: &[RecoveryStats; LANES],
) {
    sums.iter_mut().zip(lanes).for_each(|(sum, lane)| sum.add(lane));
}

/// The sum of what several probes counted.
pub(crate) fn sum_probes<'a>(all: impl Iterator<Item = &'a ProbeStats>) -> ProbeStats {
    let mut sum = ProbeStats::default();
    for stats in all {
        add_fields!(
            sum, stats: heartbeats_sent, heartbeats_received, heartbeats_late, heartbeats_old_boot,
            frames_received, bytes_received, expected, lost, recovered, stale, jumps, rtt_ignored,
            timings_ignored, clock_steps, suspects, downs, peer_restarts, stalls,
        );
    }
    sum
}
