//! What a relay's core is told at its start.

use std::sync::Arc;
use std::time::Duration;

use overway_probe::{LocalClock, ProbeConfig};
use overway_wire::{BootId, RelayId};

use crate::{Attachments, Fec, Shard, SharedLines};

/// Configuration of [`crate::Relay`]. The durations and bounds have defaults for production.
#[derive(Clone, Debug)]
pub struct Config {
    /// The relay's id, from its certificate.
    pub local: RelayId,
    /// Drawn at the process's start.
    pub boot: BootId,
    /// The process's clock.
    pub clock: LocalClock,
    /// Which of the relay's cores this is.
    pub shard: Shard,
    /// What the cores of one relay together have sent on each link and line; `None` for a relay that is one core.
    pub lines: Option<Arc<SharedLines>>,
    /// The ends that are attached to the relay; its cores have one between them.
    pub attachments: Arc<Attachments>,
    /// Timers and thresholds of probing.
    pub probe: ProbeConfig,
    /// Whether frames between other relays are carried.
    pub transit: bool,
    /// What each of the relay's lines carries in bits per second, by local address; 0 if not known. Links that share
    /// a line keep to it together.
    pub lines_bps: Vec<u64>,
    /// Whether repairs are sent to neighbours and made use of.
    pub fec: Fec,
    /// How often links are reported.
    pub report_interval: Duration,
    /// How long after its last frame a link still counts as carrying flows. Two seconds bridge the
    /// pauses of speech and of request and answer.
    pub active_for: Duration,
    /// How long a source believes a notice. The scheduler's new routes come within a second or so; a
    /// link that is still down then earns another notice with the first frame.
    pub notice_hold: Duration,
    /// Age at which frames leave the ring: longer than the slowest detection on an active link and than the
    /// third question for a frame on a link with a round trip of a quarter of a second.
    pub ring_age_max: Duration,
    /// Bytes in a lane's ring: a quarter of a second at a gigabit a second. What the neighbour has leaves it with the
    /// next heartbeat, so it is full only where much is sent far.
    pub ring_bytes_max: usize,
    /// Bytes queued in front of a lane, what their datagrams take on the wire included, before frames are
    /// dropped: more than a neighbour leaves
    /// unacknowledged, which is what a detour is handed at once.
    pub queue_bytes_max: usize,
    /// Age at which a queued frame is dropped.
    pub queue_age_max: Duration,
    /// A process that wakes this late throws away what it had queued and what waits to be read.
    pub stale_after: Duration,
}

/// What of the configuration may change while the relay runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether frames between other relays are carried.
    pub transit: bool,
    /// Whether repairs are sent to neighbours and made use of.
    pub fec: Fec,
    /// What each of the relay's lines carries in bits per second, as in [`Config::lines_bps`].
    pub lines_bps: Vec<u64>,
}

impl Config {
    /// What of it may change.
    pub fn settings(&self) -> Settings {
        Settings { transit: self.transit, fec: self.fec, lines_bps: self.lines_bps.clone() }
    }

    /// The production configuration of a relay.
    pub fn new(local: RelayId, boot: BootId, clock: LocalClock) -> Self {
        Self {
            local,
            boot,
            clock,
            shard: Shard::default(),
            lines: None,
            attachments: Arc::default(),
            probe: ProbeConfig::default(),
            transit: true,
            lines_bps: Vec::new(),
            fec: Fec::default(),
            report_interval: Duration::from_secs(1),
            active_for: Duration::from_secs(2),
            notice_hold: Duration::from_secs(5),
            ring_age_max: Duration::from_secs(1),
            ring_bytes_max: 32 << 20,
            queue_bytes_max: 8 << 20,
            queue_age_max: Duration::from_secs(1),
            stale_after: Duration::from_millis(500),
        }
    }
}
