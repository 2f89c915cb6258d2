//! A member of the mesh, and its session while it is connected.

use std::time::{Duration, Instant};

use crate::push::Push;
use crate::registration::Registration;

/// A member.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) name: String,
    /// What its last hello said. Absent before the first one, and after a goodbye with a long absence.
    pub(crate) registration: Option<Registration>,
    pub(crate) session: Option<Session>,
    /// Since it said goodbye; a new hello ends it.
    pub(crate) draining: bool,
    /// Since when it has no session.
    pub(crate) absent_since: Instant,
    pub(crate) self_stalls: u64,
    pub(crate) push: Push,
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
            absent_since: now,
            self_stalls: 0,
            push,
        }
    }

    /// Whether the relay's own word counts: it is connected and not silent.
    pub(crate) fn fresh(&self, now: Instant, stale: Duration) -> bool {
        self.session.is_some_and(|session| !session.silent(now, stale))
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
