//! Notices: which links this relay, as a source, has been told are down, and which sources it has told.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use overway_wire::{Address, LinkId, Path, RelayId};

/// Entries kept of each; the ones that end first give way.
const ENTRIES_MAX: usize = 1_024;
/// A source hears of the same link at most this often: about once a round trip, which is what it needs
/// to move, whatever its rate of frames.
const NOTICE_INTERVAL: Duration = Duration::from_millis(100);
/// Ends that are told within an interval that another is not attached, at most.
const ENDS_TOLD_MAX: u32 = 64;

/// Things that hold until a time, bounded in number.
#[derive(Debug)]
struct Until<K> {
    entries: HashMap<K, Instant>,
}

impl<K: Copy + Eq + Hash + Ord> Until<K> {
    fn new() -> Self {
        Self { entries: HashMap::new() }
    }

    fn holds(&self, key: &K, now: Instant) -> bool {
        self.entries.get(key).is_some_and(|&until| until > now)
    }

    fn hold(&mut self, key: K, until: Instant, now: Instant) {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&key) {
            self.entries.retain(|_, until| *until > now);
        }
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&key) {
            let first = self.entries.iter().min_by_key(|&(key, until)| (until, key));
            let first = first.map(|(&key, _)| key);
            first.map(|key| self.entries.remove(&key));
        }
        self.entries.insert(key, until);
    }
}

/// Notices heard and sent.
#[derive(Debug)]
pub(crate) struct Notices {
    down: Until<LinkId>,
    /// Relays to which one of these leads, or that were silent themselves.
    doubted: Until<RelayId>,
    told: Until<(RelayId, LinkId)>,
    /// Ends that were told of another.
    told_ends: Until<(Address, Address)>,
    /// How many were since when.
    ends_told: (u32, Option<Instant>),
}

impl Notices {
    pub(crate) fn new() -> Self {
        Self {
            down: Until::new(),
            doubted: Until::new(),
            told: Until::new(),
            told_ends: Until::new(),
            ends_told: (0, None),
        }
    }

    /// Remembers that a link elsewhere is down.
    pub(crate) fn note(&mut self, link: LinkId, hold: Duration, now: Instant) {
        self.down.hold(link, now + hold, now);
        self.doubt(link.to, hold, now);
    }

    /// Has ends that are attached elsewhere too rather be reached there than at this relay.
    pub(crate) fn doubt(&mut self, relay: RelayId, hold: Duration, now: Instant) {
        self.doubted.hold(relay, now + hold, now);
    }

    /// Until when a relay is doubted.
    pub(crate) fn doubted_until(&self, relay: RelayId, now: Instant) -> Option<Instant> {
        self.doubted.entries.get(&relay).copied().filter(|&until| until > now)
    }

    /// Whether a path of `source` uses a link that is said to be down.
    pub(crate) fn condemn(&self, source: RelayId, path: &Path, now: Instant) -> bool {
        if self.down.entries.is_empty() {
            return false;
        }
        let mut from = source;
        path.elements().iter().any(|step| {
            let link = LinkId::new(from, step.relay, step.link);
            from = step.relay;
            self.down.holds(&link, now)
        })
    }

    /// Whether `source` is to be told of `link` now; true at most once an interval.
    pub(crate) fn should_tell(&mut self, source: RelayId, link: LinkId, now: Instant) -> bool {
        let key = (source, link);
        let due = !self.told.holds(&key, now);
        if due {
            self.told.hold(key, now + NOTICE_INTERVAL, now);
        }
        due
    }

    /// Whether an end is to be told that another, for which it sent a frame, is not attached; true at most once an interval
    /// for the two, and [`ENDS_TOLD_MAX`] times for all.
    pub(crate) fn should_tell_end(&mut self, ends: (Address, Address), now: Instant) -> bool {
        let (count, since) = &mut self.ends_told;
        if since.is_none_or(|since| now.saturating_duration_since(since) >= NOTICE_INTERVAL) {
            (*count, *since) = (0, Some(now));
        }
        if *count >= ENDS_TOLD_MAX || self.told_ends.holds(&ends, now) {
            return false;
        }
        *count += 1;
        self.told_ends.hold(ends, now + NOTICE_INTERVAL, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::{AttachmentId, LinkIndex, PathElement};

    fn link(from: u16, to: u16) -> LinkId {
        LinkId::new(RelayId(from), RelayId(to), LinkIndex::default())
    }

    #[test]
    fn a_path_is_condemned_while_a_notice_about_one_of_its_links_holds() {
        let now = Instant::now();
        let hold = Duration::from_secs(5);
        let step = |relay| PathElement::new(RelayId(relay), LinkIndex::default());
        let path = Path::new(&[step(2), step(3)]).unwrap();
        let mut notices = Notices::new();

        notices.note(link(3, 2), hold, now);
        assert!(!notices.condemn(RelayId(1), &path, now), "the other direction is not on the path");
        notices.note(link(2, 3), hold, now);

        assert!(notices.condemn(RelayId(1), &path, now));
        assert!(!notices.condemn(RelayId(1), &path, now + hold));
    }

    #[test]
    fn a_source_is_told_once_an_interval() {
        let now = Instant::now();
        let mut notices = Notices::new();

        assert!(notices.should_tell(RelayId(1), link(2, 3), now));
        assert!(!notices.should_tell(RelayId(1), link(2, 3), now + NOTICE_INTERVAL / 2));
        assert!(notices.should_tell(RelayId(1), link(2, 3), now + NOTICE_INTERVAL));
    }

    #[test]
    fn ends_are_told_once_an_interval_and_not_too_many() {
        let now = Instant::now();
        let end = |number| Address::new(RelayId(1), AttachmentId(number));
        let mut notices = Notices::new();

        assert!(notices.should_tell_end((end(2), end(3)), now));
        assert!(!notices.should_tell_end((end(2), end(3)), now + NOTICE_INTERVAL / 2));
        let told = (0..1_000).filter(|&to| notices.should_tell_end((end(4), end(to)), now)).count();
        assert_eq!(told, ENDS_TOLD_MAX as usize - 1);
        assert!(notices.should_tell_end((end(2), end(3)), now + NOTICE_INTERVAL));
    }

    #[test]
    fn entries_are_bounded() {
        let now = Instant::now();
        let mut notices = Notices::new();
        for from in 0..5_000 {
            notices.note(link(from, 9_999), Duration::from_secs(5), now);
        }
        assert!(notices.down.entries.len() <= ENTRIES_MAX);
    }
}
