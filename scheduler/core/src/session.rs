//! A member of the mesh, and its session while it is connected.

use std::time::{Duration, Instant};

use overway_topology::{RelayAttributes, RouteKey};
use overway_wire::control::LineUse;
use overway_wire::{BitsPerSec, Permille, PricePerGb};

use crate::links::Word;
use crate::push::{ItemKey, Push};
use crate::registration::{LINKS_MAX, Registration, Tariff};
use crate::{DrainStage, LineStatus};

/// A member.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) name: String,
    /// What its last hello said. Absent before the first one, and after a goodbye with a long absence.
    pub(crate) registration: Option<Registration>,
    pub(crate) session: Option<Session>,
    /// Since it said goodbye; a new hello ends it.
    pub(crate) draining: bool,
    /// The control version of its last session; 0 before the first.
    pub(crate) version: u32,
    /// What an operator wants instead of the relay's own word on transit.
    pub(crate) transit_override: Option<bool>,
    /// Since when it has no session.
    pub(crate) absent_since: Instant,
    pub(crate) self_stalls: u64,
    /// Frames that it sent around dead links since its start.
    pub(crate) detours: u64,
    /// What its own ends asked it to send over the last second, in order of key.
    pub(crate) demands: Vec<Demanded>,
    /// What went out over its addresses in use, in their order; empty if not said.
    pub(crate) line_use: Vec<LineUse>,
    /// Edges attached there, as last reported; `None` where none can attach, or it is not known.
    pub(crate) attachments: Option<u32>,
    /// What follows from that for the links of each index.
    pub(crate) line_states: [LineState; LINKS_MAX],
    pub(crate) push: Push,
    /// When the scheduler is to look after the relay's timers; no later than any is due.
    pub(crate) armed: Option<Instant>,
}

/// What a line costs and may carry now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LineState {
    pub(crate) price: PricePerGb,
    /// Whether this month's volume is used up.
    pub(crate) spent: bool,
    /// Its load, in steps, as far as it counts for the links on it.
    pub(crate) load: Permille,
}

/// What a relay's own ends asked it to send over a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demanded {
    pub(crate) key: RouteKey,
    pub(crate) rate: BitsPerSec,
}

/// A connection with a relay, from its hello on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    /// When the relay was last heard, by hello, report or acknowledgement.
    pub(crate) heard: Instant,
    /// When its last taken report came.
    pub(crate) reported: Option<Instant>,
    /// Sequence of the last taken report.
    pub(crate) sequence: u64,
    /// Reports in a row that were refused for their sequence.
    pub(crate) out_of_step: u32,
    /// Whether the relay holds routes of an earlier term, which must not be replaced before its first
    /// report: without it there are none that start at the relay.
    pub(crate) holds_state: bool,
    /// Nothing is pushed until a plan that is no earlier than this, or that knows the relay's report.
    pub(crate) hold_until: Option<Instant>,
    /// Whether its silence is already accounted for in the links.
    pub(crate) stale: bool,
}

impl Relay {
    pub(crate) fn new(name: String, push: Push, now: Instant) -> Self {
        Self {
            name,
            registration: None,
            session: None,
            draining: false,
            version: 0,
            transit_override: None,
            absent_since: now,
            self_stalls: 0,
            detours: 0,
            demands: Vec::new(),
            line_use: Vec::new(),
            attachments: None,
            line_states: [LineState::default(); LINKS_MAX],
            push,
            armed: None,
        }
    }

    /// The scheduler did not look for so long: what it holds against the relay by its clock is so much younger.
    pub(crate) fn handle_stall(&mut self, late_by: Duration, now: Instant) {
        if let Some(session) = &mut self.session {
            session.heard = later(session.heard, late_by, now);
        }
        self.absent_since = later(self.absent_since, late_by, now);
        self.push.handle_stall(late_by, now);
    }

    /// What the topology is to know of the relay, if it is registered.
    pub(crate) fn attributes(&self, drain: Option<DrainStage>) -> Option<RelayAttributes> {
        let registration = self.registration.as_ref()?;
        Some(RelayAttributes {
            provider: registration.provider.clone(),
            region: registration.region.clone(),
            transit: self.may_transit() && drain != Some(DrainStage::Over),
            draining: self.draining || drain.is_some(),
        })
    }

    /// Whether its control version knows what the item is; otherwise it must not have it.
    pub(crate) fn may_have(&self, key: ItemKey) -> bool {
        self.version >= key.version()
    }

    /// Whether it may be an intermediate, by its own word and an operator's.
    pub(crate) fn may_transit(&self) -> bool {
        let own = self.registration.as_ref().is_none_or(|registration| registration.transit);
        self.transit_override.unwrap_or(own)
    }

    /// What its own ends ask it to send.
    pub(crate) fn demand(&self) -> BitsPerSec {
        let rates = self.demands.iter().map(|demand| demand.rate.0);
        BitsPerSec(rates.fold(0, u64::saturating_add))
    }

    /// Its addresses in use, for people.
    pub(crate) fn line_status(&self) -> Vec<LineStatus> {
        let lines = self.registration.iter().flat_map(|registration| &registration.tariffs);
        let status = |(index, tariff): (usize, &Tariff)| {
            let used = self.line_use.get(index).copied().unwrap_or_default();
            LineStatus {
                provider: tariff.provider.clone(),
                capacity: tariff.capacity,
                price: tariff.price,
                commit_gb: tariff.commit_gb,
                cap_gb: tariff.cap_gb,
                sent_bytes_month: used.sent_bytes_month,
                sent: BitsPerSec(used.sent_bps),
                spent: tariff.is_spent(used.sent_bytes_month),
            }
        };
        lines.enumerate().map(status).collect()
    }

    /// How much the relay's own word counts.
    pub(crate) fn word(&self) -> Word {
        let session = self.session;
        let fresh = session.is_some_and(|session| !session.stale);
        Word { connected: session.is_some(), fresh }
    }

    /// Whether there is nothing more to wait for before a plan.
    pub(crate) fn settled(&self) -> bool {
        self.session.is_some_and(|session| !session.holds_state || session.reported.is_some())
    }

    /// When the registration ends.
    pub(crate) fn registration_end(&self, goodbye_absence: Duration) -> Option<Instant> {
        let gone = self.draining && self.session.is_none() && self.registration.is_some();
        gone.then(|| self.absent_since + goodbye_absence)
    }
}

/// So much later, and not in the future.
pub(crate) fn later(at: Instant, by: Duration, now: Instant) -> Instant {
    at.checked_add(by).map_or(now, |at| at.min(now))
}

impl Session {
    /// Whether nothing was heard for longer than `stale`.
    pub(crate) fn silent(&self, now: Instant, stale: Duration) -> bool {
        now.saturating_duration_since(self.heard) >= stale
    }

    /// Whether a plan made at `now` may be pushed.
    pub(crate) fn may_push(&self, now: Instant) -> bool {
        self.reported.is_some() || self.hold_until.is_none_or(|until| now >= until)
    }
}
