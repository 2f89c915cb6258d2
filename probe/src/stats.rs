//! What a probe counts.

use crate::loss::Tally;

/// What a probe counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Heartbeats handed out to be sent.
    pub heartbeats_sent: u64,
    /// Heartbeats that arrived and counted.
    pub heartbeats_received: u64,
    /// Heartbeats older than one already received: signs of life, no more.
    pub heartbeats_late: u64,
    /// Heartbeats of the neighbour's life before its restart, ignored.
    pub heartbeats_old_boot: u64,
    /// Numbered frames that arrived.
    pub frames_received: u64,
    /// Bytes in them.
    pub bytes_received: u64,
    /// Frames and heartbeats that should have arrived, those of outages left out.
    pub expected: u64,
    /// Of these, lost, as first counted.
    pub lost: u64,
    /// Counted as lost, and arrived after all.
    pub recovered: u64,
    /// Numbers that arrived twice, or too late to tell.
    pub stale: u64,
    /// Jumps in numbers after which counting started anew.
    pub jumps: u64,
    /// Round trips that were negative or absurd, ignored.
    pub rtt_ignored: u64,
    /// One-way differences that were absurd or far off the mean, ignored.
    pub timings_ignored: u64,
    /// Times that the averages started over because the neighbour's clock, or ours, was set.
    pub clock_steps: u64,
    /// Times that the inbound direction became suspect.
    pub suspects: u64,
    /// Times that the inbound direction went down.
    pub downs: u64,
    /// Times that the neighbour was started anew.
    pub peer_restarts: u64,
    /// Stalls of our own.
    pub stalls: u64,
}

impl Stats {
    pub(crate) fn handle_tally(&mut self, tally: Tally) {
        let Tally { expected, lost, recovered, stale, jumps } = tally;
        self.expected += u64::from(expected);
        self.lost += u64::from(lost);
        self.recovered += u64::from(recovered);
        self.stale += u64::from(stale);
        self.jumps += u64::from(jumps);
    }
}
