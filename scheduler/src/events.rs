//! What happened lately, for people: a ring with sequence numbers, so that a reader can go on from
//! where it stopped and sees when it missed some, and a feed for those who follow.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use overway_wire::RelayId;
use serde::Serialize;
use tokio::sync::broadcast;

/// Events kept; the oldest goes first. A mesh of a hundred relays makes 200 when a relay goes, and each takes about 150
/// bytes.
pub(crate) const EVENTS_MAX: usize = 10_000;
/// Events are kept for so long.
pub(crate) const EVENTS_AGE_MAX: Duration = Duration::from_secs(3_600);
/// Events that wait for one follower. One that is further behind is let go, and may come again.
pub(crate) const FEED_MAX: usize = 4_096;

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
    /// The relay that it is about, or from which its link leads; `null` if there is none.
    pub relay: Option<u16>,
    /// The relay to which its link leads; `null` if there is none.
    pub to: Option<u16>,
}

/// The events of the last [`EVENTS_AGE_MAX`], at most [`EVENTS_MAX`].
#[derive(Debug)]
pub(crate) struct EventRing {
    last: u64,
    ring: VecDeque<EventRecord>,
    feed: broadcast::Sender<EventRecord>,
}

impl Default for EventRing {
    fn default() -> Self {
        Self { last: 0, ring: VecDeque::new(), feed: broadcast::Sender::new(FEED_MAX) }
    }
}

/// What one who follows gets: what was, and what comes.
#[derive(Debug)]
pub(crate) struct Following {
    /// Oldest first.
    pub(crate) past: Vec<EventRecord>,
    /// Without a gap after `past`.
    pub(crate) feed: broadcast::Receiver<EventRecord>,
}

impl EventRing {
    /// Adds an event.
    pub(crate) fn push(&mut self, kind: &'static str, detail: String) {
        self.push_about(kind, detail, &[]);
    }

    /// Adds an event about a relay, or a link from one to another.
    pub(crate) fn push_about(&mut self, kind: &'static str, detail: String, about: &[RelayId]) {
        self.push_at(kind, detail, about, SystemTime::now());
    }

    fn push_at(&mut self, kind: &'static str, detail: String, about: &[RelayId], at: SystemTime) {
        let at_unix_ms = unix_ms(at);
        self.last += 1;
        let [relay, to] = [about.first(), about.get(1)].map(|id| id.map(|id| id.0));
        let event = EventRecord { sequence: self.last, at_unix_ms, kind, detail, relay, to };
        let oldest = at_unix_ms.saturating_sub(unix_ms(SystemTime::UNIX_EPOCH + EVENTS_AGE_MAX));
        while self.ring.len() == EVENTS_MAX
            || self.ring.front().is_some_and(|event| event.at_unix_ms < oldest)
        {
            self.ring.pop_front();
        }
        self.ring.push_back(event.clone());
        // Nobody may be following.
        let _ = self.feed.send(event);
    }

    /// The events after `since` that are still held, oldest first.
    pub(crate) fn since(&self, since: u64) -> Vec<EventRecord> {
        self.ring.iter().filter(|event| event.sequence > since).cloned().collect()
    }

    /// The events after `since`, those to come included.
    pub(crate) fn follow(&self, since: u64) -> Following {
        Following { past: self.since(since), feed: self.feed.subscribe() }
    }
}

/// Milliseconds since 1970, UTC; 0 before.
pub(crate) fn unix_ms(at: SystemTime) -> u64 {
    let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH);
    since_1970.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_goes_on_from_where_it_stopped() {
        let mut ring = EventRing::default();
        ring.push("relay_up", "rome".into());
        ring.push_about("link", "oslo".into(), &[RelayId(3), RelayId(4)]);

        let after_first = ring.since(1);

        assert_eq!(after_first.len(), 1);
        assert_eq!((after_first[0].sequence, after_first[0].detail.as_str()), (2, "oslo"));
        assert_eq!((after_first[0].relay, after_first[0].to), (Some(3), Some(4)));
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

    #[test]
    fn what_is_older_than_an_hour_goes() {
        let mut ring = EventRing::default();
        let start = SystemTime::UNIX_EPOCH + EVENTS_AGE_MAX;
        ring.push_at("a", String::new(), &[], start);
        ring.push_at("b", String::new(), &[], start + Duration::from_secs(1));
        ring.push_at("c", String::new(), &[], start + EVENTS_AGE_MAX + Duration::from_millis(500));

        let kinds: Vec<&str> = ring.since(0).iter().map(|event| event.kind).collect();

        assert_eq!(kinds, ["b", "c"]);
    }

    #[test]
    fn a_follower_misses_nothing_and_one_that_falls_behind_is_told() {
        let mut ring = EventRing::default();
        ring.push("a", String::new());
        let mut following = ring.follow(0);
        ring.push("b", String::new());

        assert_eq!(following.past[0].sequence, 1);
        assert_eq!(following.feed.try_recv().unwrap().sequence, 2);
        for _ in 0..=FEED_MAX {
            ring.push("c", String::new());
        }
        let behind = following.feed.try_recv().unwrap_err();
        assert!(matches!(behind, broadcast::error::TryRecvError::Lagged(_)));
    }
}
