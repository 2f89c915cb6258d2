//! What happened, for logs.

use overway_wire::{Epoch, LinkId, RelayId};

use crate::ReportError;

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
}
