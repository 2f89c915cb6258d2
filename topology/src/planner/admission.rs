//! Which links may be on a best path: those that have held since they failed last.
//!
//! A link is *new* until it is first usable, and then admitted at once. When an admitted link becomes
//! unusable it has *failed*; usable again, it *waits*, and after the hold it is admitted. A link that
//! is removed from the topology is forgotten.
//!
//! A best path takes links that wait only where nothing else leads, as few as can be: all links of a relay that
//! has come back wait, and a path to it is not to go over another relay that came back just now.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use overway_wire::LinkId;

use super::kernel::NONE;
use crate::cost::LINK_COST_MAX;

/// What a link costs more while it waits: more than any good path does.
pub(super) const WAIT_COST: u32 = LINK_COST_MAX / 4;

/// What a link counts for in the choice of a best path while it waits. Not more than any link may cost.
pub(super) fn while_waiting(cost: u32) -> u32 {
    if cost < NONE { cost.min(LINK_COST_MAX - WAIT_COST) + WAIT_COST } else { cost }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Admitted,
    Failed,
    Waiting { since: Instant },
}

/// The state of every link that was ever usable.
#[derive(Debug, Default)]
pub(super) struct Admission {
    links: HashMap<LinkId, State>,
    waiting: BTreeSet<LinkId>,
}

impl Admission {
    /// Takes in whether a link is usable now; `None` if it is gone.
    pub(super) fn update(&mut self, id: LinkId, usable: Option<bool>, now: Instant) {
        let Some(usable) = usable else {
            self.links.remove(&id);
            self.waiting.remove(&id);
            return;
        };
        let next = match (self.links.get(&id), usable) {
            (None | Some(State::Admitted), true) => State::Admitted,
            (None, false) => return,
            (Some(State::Failed), true) => State::Waiting { since: now },
            (Some(State::Waiting { since }), true) => State::Waiting { since: *since },
            (Some(State::Admitted | State::Failed | State::Waiting { .. }), false) => State::Failed,
        };
        match next {
            State::Waiting { .. } => self.waiting.insert(id),
            State::Admitted | State::Failed => self.waiting.remove(&id),
        };
        self.links.insert(id, next);
    }

    /// Admits the links that have held for long enough, and says which.
    pub(super) fn expire(&mut self, hold: Duration, now: Instant) -> Vec<LinkId> {
        let held = |id: &&LinkId| match self.links.get(id) {
            Some(State::Waiting { since }) => now.saturating_duration_since(*since) >= hold,
            Some(State::Admitted | State::Failed) | None => true,
        };
        let admitted: Vec<LinkId> = self.waiting.iter().filter(held).copied().collect();
        for id in &admitted {
            self.waiting.remove(id);
            self.links.insert(*id, State::Admitted);
        }
        admitted
    }

    /// Usable links that no best path may take yet.
    pub(super) fn waiting(&self) -> &BTreeSet<LinkId> {
        &self.waiting
    }
}
