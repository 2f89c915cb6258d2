//! Relays that one neighbour has lost, and of which nobody else has spoken since.
//!
//! ```text
//!   a neighbour hears it no longer --> doubted --> it speaks, or a neighbour that probes it often hears it: trusted
//!                                         |
//!                                         +--> four seconds pass: every neighbour has spoken by now
//! ```
//!
//! Links that no path takes are probed once a second, so that after a relay's death their far ends believe in it for
//! some seconds, while the ends of links in use have said within a tenth of one that it is gone. Without doubt
//! paths would move onto just those links. As long as a relay is doubted, its links that no path takes count as
//! draining: nothing moves onto them where another way leads there. Paths in use stay; their links tell by
//! themselves.
//!
//! A relay that lost many of its neighbours at once more likely has a problem of its own, and makes nobody doubted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overway_wire::RelayId;

/// After this a relay is trusted again unless its links have fallen: three heartbeats of a second, and a report.
const DOUBT_MAX: Duration = Duration::from_secs(4);
/// What a doubted relay says so soon after may have been on its way when it died.
const OWN_WORD_MIN: Duration = Duration::from_millis(300);
/// What a neighbour that probes five times a second or more says so soon after may be of before.
const NEIGHBOUR_WORD_MIN: Duration = Duration::from_millis(1_000);
/// Neighbours that a relay may lose at once before it is its own problem, and the share of all.
const LOST_MAX: usize = 2;
/// See [`LOST_MAX`].
const LOST_SHARE: usize = 4;

/// See the module. There is at most one doubt for each relay.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubts(BTreeMap<RelayId, Instant>);

/// Who says that a relay is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Witness {
    /// The relay itself: it says that it lost the neighbour that lost it, so that it was there later.
    Proof,
    /// The relay itself says anything.
    Itself,
    /// A neighbour that probes it often.
    Neighbour,
}

impl Doubts {
    /// Whether a report by which the reporter lost so many of its neighbours makes these doubted.
    pub(crate) fn are_due(lost: usize, neighbours: usize) -> bool {
        lost <= LOST_MAX.max(neighbours / LOST_SHARE)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, relay: RelayId) -> bool {
        self.0.contains_key(&relay)
    }

    /// Doubts a relay; says whether it was trusted.
    pub(crate) fn begin(&mut self, relay: RelayId, now: Instant) -> bool {
        self.0.insert(relay, now).is_none()
    }

    /// Somebody says that a relay is there; says whether it was doubted and no longer is.
    pub(crate) fn hear(&mut self, relay: RelayId, witness: Witness, now: Instant) -> bool {
        let Some(since) = self.0.get(&relay) else { return false };
        let least = match witness {
            Witness::Proof => Duration::ZERO,
            Witness::Itself => OWN_WORD_MIN,
            Witness::Neighbour => NEIGHBOUR_WORD_MIN,
        };
        let late = now.saturating_duration_since(*since) >= least;
        late && self.0.remove(&relay).is_some()
    }

    /// Trusts a relay, or forgets one that is gone.
    pub(crate) fn forget(&mut self, relay: RelayId) {
        self.0.remove(&relay);
    }

    /// Takes those that were doubted long enough.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<RelayId> {
        let over = |since: &Instant| now.saturating_duration_since(*since) >= DOUBT_MAX;
        let expired: Vec<RelayId> =
            self.0.iter().filter(|(_, since)| over(since)).map(|(&relay, _)| relay).collect();
        expired.iter().for_each(|&relay| self.forget(relay));
        expired
    }

    /// When the next one is trusted again.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.0.values().min().map(|since| *since + DOUBT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: RelayId = RelayId(7);

    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn doubt_ends_by_proof_at_once_by_its_own_word_soon_and_by_itself_in_the_end() {
        let now = start();
        let at = |millis| now + Duration::from_millis(millis);
        let mut doubts = Doubts::default();
        assert!(doubts.begin(RELAY, now));
        assert!(!doubts.begin(RELAY, now));
        assert!(doubts.hear(RELAY, Witness::Proof, now));

        doubts.begin(RELAY, now);
        assert!(!doubts.hear(RELAY, Witness::Itself, at(299)));
        assert!(doubts.hear(RELAY, Witness::Itself, at(300)));
        assert!(!doubts.hear(RELAY, Witness::Itself, at(300)), "it is trusted already");

        doubts.begin(RELAY, now);
        assert!(!doubts.hear(RELAY, Witness::Neighbour, at(999)));
        assert_eq!(doubts.next_deadline(), Some(at(4_000)));
        assert_eq!(doubts.expire(at(3_999)), []);
        assert_eq!(doubts.expire(at(4_000)), [RELAY]);
        assert!(doubts.is_empty());
    }

    #[test]
    fn who_loses_many_at_once_makes_nobody_doubted() {
        assert!(Doubts::are_due(2, 3));
        assert!(!Doubts::are_due(3, 3));
        assert!(Doubts::are_due(16, 64));
        assert!(!Doubts::are_due(17, 64));
    }
}
