//! Which links may be on a best path: those that have held since they failed last.
//!
//! A link is *new* until it is first usable, and then admitted at once. When an admitted link becomes
//! unusable it has *failed*; usable again, it *waits*, and after the hold it is admitted. A link that
//! is removed from the topology is forgotten.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overway_wire::LinkId;

use crate::Topology;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Admitted,
    Failed,
    Waiting { since: Instant },
}

/// The state of every link of the last topology seen.
#[derive(Debug, Default)]
pub(super) struct Admission {
    links: BTreeMap<LinkId, State>,
    pending: bool,
}

impl Admission {
    /// Takes in whether each link is usable now.
    pub(super) fn update(&mut self, topology: &Topology, hold: Duration, now: Instant) {
        let before = std::mem::take(&mut self.links);
        let links = topology.links().map(|(id, measure)| {
            let state = before.get(&id).copied().unwrap_or(State::New);
            (id, state.next(measure.usable, hold, now))
        });
        self.links = links.collect();
        self.pending = self.links.values().any(|state| matches!(state, State::Waiting { .. }));
    }

    /// Whether any usable link is not admitted.
    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }

    /// Whether a best path may use the link.
    pub(super) fn admits(&self, id: LinkId) -> bool {
        self.links.get(&id) == Some(&State::Admitted)
    }
}

impl State {
    fn next(self, usable: bool, hold: Duration, now: Instant) -> Self {
        match self {
            Self::New if usable => Self::Admitted,
            Self::New => Self::New,
            Self::Admitted if usable => Self::Admitted,
            Self::Failed if usable => Self::Waiting { since: now },
            Self::Waiting { since } if usable => {
                let held = now.saturating_duration_since(since) >= hold;
                if held { Self::Admitted } else { Self::Waiting { since } }
            }
            Self::Admitted | Self::Failed | Self::Waiting { .. } => Self::Failed,
        }
    }
}
