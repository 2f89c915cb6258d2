//! What happened, for logs.

use overway_topology::Resource;
use overway_wire::{BitsPerSec, Epoch, LinkId, PolicyId, RelayId};

use crate::{Drainable, ReportError};

/// Events kept until polled. A mesh of 100 relays that goes down whole makes 40,000 link changes; a log
/// needs not all of them. Further ones are dropped and counted.
pub(crate) const EVENTS_MAX: usize = 10_000;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A relay said hello and was taken.
    RelayConnected {
        /// Which.
        relay: RelayId,
    },
    /// A relay's session ended. Its links live on as its neighbours see them.
    RelayLost {
        /// Which.
        relay: RelayId,
        /// Whether it had said goodbye.
        draining: bool,
    },
    /// A link became usable for routes, or stopped being so.
    LinkChanged {
        /// The directed link.
        link: LinkId,
        /// What it is now.
        usable: bool,
    },
    /// A relay's word is that a link is silent for longer than its interval, and not yet down.
    LinkSuspect {
        /// The directed link; its receiver says so.
        link: LinkId,
    },
    /// No usable link leads to a relay any more.
    RelayUnreached {
        /// Which.
        relay: RelayId,
    },
    /// A usable link leads again to a relay that was unreached.
    RelayReached {
        /// Which.
        relay: RelayId,
    },
    /// A relay sent frames around a dead link by itself.
    Detoured {
        /// Which.
        relay: RelayId,
        /// How many, since its last report.
        frames: u64,
    },
    /// A relay's process woke late.
    RelayStalled {
        /// Which.
        relay: RelayId,
        /// How often, since its last report.
        times: u64,
    },
    /// Some relay's pushed state changed.
    EpochMade {
        /// The new epoch.
        epoch: Epoch,
        /// Routes whose paths changed.
        changed_routes: usize,
        /// Relays whose pushed state changed.
        updates: usize,
    },
    /// A report was refused.
    ReportRefused {
        /// Whose.
        relay: RelayId,
        /// Why.
        reason: ReportError,
    },
    /// A link or a relay has to carry more than it can.
    Overloaded {
        /// Which.
        resource: Resource,
        /// What it carries, or is asked to carry.
        rate: BitsPerSec,
        /// What it can carry.
        capacity: BitsPerSec,
    },
    /// What was overloaded has had room for a while.
    OverloadEnded {
        /// Which.
        resource: Resource,
    },
    /// An operator had something drained, or its deadline has come.
    DrainChanged {
        /// What.
        target: Drainable,
        /// What becomes of it now.
        stage: DrainStage,
    },
    /// A policy was put or removed.
    PolicyChanged {
        /// Which.
        policy: PolicyId,
    },
    /// A tenant was put, changed or removed.
    TenantChanged {
        /// Its number.
        tenant: PolicyId,
    },
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrainStage {
    /// Paths leave it where another way leads there.
    Leaving,
    /// Its deadline has passed: it is not used at all.
    Over,
    /// It was undone.
    Undone,
}
