//! What happened lately, for people: a ring with sequence numbers, so that a reader can go on from
//! where it stopped and sees when it missed some.

use std::collections::VecDeque;
use std::time::SystemTime;

use serde::Serialize;

/// Events kept; the oldest goes first.
pub(crate) const EVENTS_MAX: usize = 1_000;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventRecord {
    /// Counts this process's events from 1.
    pub sequence: u64,
    /// When, in milliseconds since 1970, UTC.
    pub at_unix_ms: u64,
    /// What, in few words.
    pub kind: &'static str,
    /// The rest, for people.
    pub detail: String,
}

/// The last [`EVENTS_MAX`] events.
#[derive(Debug, Default)]
pub(crate) struct EventRing {
    last: u64,
    ring: VecDeque<EventRecord>,
}

impl EventRing {
    /// Adds an event.
    pub(crate) fn push(&mut self, kind: &'static str, detail: String) {
        if self.ring.len() == EVENTS_MAX {
            self.ring.pop_front();
        }
        self.last += 1;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let at_unix_ms =
            since_1970.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self.ring.push_back(EventRecord { sequence: self.last, at_unix_ms, kind, detail });
    }

    /// The events after `since` that are still held, oldest first.
    pub(crate) fn since(&self, since: u64) -> Vec<EventRecord> {
        self.ring.iter().filter(|event| event.sequence > since).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_goes_on_from_where_it_stopped() {
        let mut ring = EventRing::default();
        ring.push("relay_up", "rome".into());
        ring.push("relay_up", "oslo".into());

        let after_first = ring.since(1);

        assert_eq!(after_first.len(), 1);
        assert_eq!((after_first[0].sequence, after_first[0].detail.as_str()), (2, "oslo"));
        assert_eq!(ring.since(2), []);
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut ring = EventRing::default();
        for _ in 0..EVENTS_MAX + 5 {
            ring.push("epoch", String::new());
        }

        let held = ring.since(0);

        assert_eq!((held.len(), held[0].sequence), (EVENTS_MAX, 6));
    }
}
