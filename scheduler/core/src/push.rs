//! The pushed state of one relay, and what of it the relay has.
//!
//! ```text
//!   set, set, commit --> revision n      next --> update: base = acked, revision = n    (in flight)
//!                                        ack n --> acked = n
//!        resync, timeout, unknown hello --> acked = 0: the next update is the whole state
//! ```
//!
//! Not the acknowledged state is kept, only the keys that changed since, each with the revision in which
//! it last did. A key may be put or removed though the relay has it so already; that changes nothing.
//!
//! A revision is the term and a count, so that one of an earlier scheduler never matches by accident.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overway_wire::Epoch;
use overway_wire::control::{Item, Key, Update};

/// Bits of a revision that count; the term is above them, without its upper bits. At a hundred a second they last
/// 300 years, and leave room for sixteen million terms in a row that all differ.
const COUNT_BITS: u32 = 40;
/// Least time between two whole states for one relay, so that one which asks without end costs little.
const FULL_SPACING: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug)]
pub(crate) struct Push {
    items: BTreeMap<Key, Arc<Item>>,
    /// Keys that changed after `acked`, and the revision in which they last did.
    changed: BTreeMap<Key, u64>,
    /// Whether something was set since the last commit.
    touched: bool,
    current: u64,
    /// 0: not known, or nothing.
    acked: u64,
    in_flight: Option<InFlight>,
    last_full: Option<Instant>,
    /// The last epoch that the relay was sent, or said that it has.
    last_epoch: Epoch,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    revision: u64,
    sent: Instant,
}

/// What an acknowledgement was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acked {
    /// It is of the update in flight.
    InFlight,
    /// It is of no update in flight.
    Ignored,
}

impl Push {
    pub(crate) fn new(term: u64) -> Self {
        Self {
            items: BTreeMap::new(),
            changed: BTreeMap::new(),
            touched: false,
            current: term << COUNT_BITS,
            acked: 0,
            in_flight: None,
            last_full: None,
            last_epoch: Epoch::default(),
        }
    }

    /// The state that the relay is to have.
    pub(crate) fn items(&self) -> &BTreeMap<Key, Arc<Item>> {
        &self.items
    }

    pub(crate) fn current(&self) -> u64 {
        self.current
    }

    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    pub(crate) fn last_epoch(&self) -> Epoch {
        self.last_epoch
    }

    /// Puts or removes an item; counts from the next [`Self::commit`].
    pub(crate) fn set(&mut self, key: Key, item: Option<Arc<Item>>) {
        let same = match (&item, self.items.get(&key)) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old) || new == old,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if same {
            return;
        }
        match item {
            Some(item) => self.items.insert(key.clone(), item),
            None => self.items.remove(&key),
        };
        self.touched = true;
        if self.acked != 0 || self.in_flight.is_some() {
            self.changed.insert(key, self.current + 1);
        }
    }

    /// Removes everything: the relay is no longer registered.
    pub(crate) fn clear(&mut self) {
        self.touched |= !self.items.is_empty();
        self.items.clear();
        self.forget();
    }

    /// Makes a revision of what was set, and says whether there was anything.
    pub(crate) fn commit(&mut self) -> bool {
        let touched = std::mem::take(&mut self.touched);
        if touched {
            self.current += 1;
        }
        // A relay that is far behind is cheaper served whole, and this bounds the map.
        if self.changed.len() > 2 * self.items.len() {
            self.forget();
        }
        touched
    }

    /// A new session: whether the relay has a revision from which a delta can be made.
    pub(crate) fn resume(&mut self, revision: u64, epoch: Epoch) -> bool {
        self.last_epoch = self.last_epoch.max(epoch);
        let acked = self.ack(revision);
        self.in_flight = None;
        if acked == Acked::InFlight || (revision != 0 && revision == self.acked) {
            return true;
        }
        self.forget();
        false
    }

    /// The relay has this revision.
    pub(crate) fn ack(&mut self, revision: u64) -> Acked {
        if self.in_flight.is_none_or(|in_flight| in_flight.revision != revision) {
            return Acked::Ignored;
        }
        self.in_flight = None;
        self.acked = revision;
        self.changed.retain(|_, changed| *changed > revision);
        Acked::InFlight
    }

    /// What the relay has is not known; the next update is the whole state.
    pub(crate) fn forget(&mut self) {
        self.acked = 0;
        self.in_flight = None;
        self.changed.clear();
    }

    /// When the update in flight is given up.
    pub(crate) fn ack_deadline(&self, timeout: Duration) -> Option<Instant> {
        Some(self.in_flight?.sent + timeout)
    }

    /// When the next update may go, if there is one.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        if self.in_flight.is_some() || self.items.is_empty() || self.acked == self.current {
            return None;
        }
        let held = self.last_full.filter(|_| self.acked == 0).map(|last| last + FULL_SPACING);
        Some(held.map_or(now, |held| held.max(now)))
    }

    /// The next update, which is in flight from now on. Only to be asked when [`Self::due`].
    pub(crate) fn next(&mut self, epoch: Epoch, now: Instant) -> Update {
        let mut update = Update {
            epoch_term: epoch.term,
            epoch_sequence: epoch.sequence,
            base: self.acked,
            revision: self.current,
            ..Update::default()
        };
        if self.acked == 0 {
            update.put = self.items.values().map(|item| Item::clone(item)).collect();
            self.last_full = Some(now);
        } else {
            for key in self.changed.keys() {
                match self.items.get(key) {
                    Some(item) => update.put.push(Item::clone(item)),
                    None => update.remove.push(key.clone()),
                }
            }
        }
        self.in_flight = Some(InFlight { revision: self.current, sent: now });
        self.last_epoch = epoch;
        update
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::control::Node;

    const EPOCH: Epoch = Epoch { term: 3, sequence: 1 };

    fn node(relay: u32, name: &str) -> (Key, Option<Arc<Item>>) {
        let item = Item::from(Node { relay, name: name.into() });
        (item.key().unwrap(), Some(Arc::new(item)))
    }

    fn put(push: &mut Push, relay: u32, name: &str) {
        let (key, item) = node(relay, name);
        push.set(key, item);
    }

    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_first_update_is_whole_and_the_next_holds_what_changed() {
        let now = start();
        let mut push = Push::new(3);
        put(&mut push, 1, "a");
        put(&mut push, 2, "b");
        assert!(push.commit());
        let full = push.next(EPOCH, now);
        assert_eq!((full.base, full.put.len()), (0, 2));
        assert_eq!(push.ack(full.revision), Acked::InFlight);

        put(&mut push, 2, "c");
        push.set(node(1, "").0, None);
        assert!(push.commit());
        let delta = push.next(EPOCH, now);

        assert_eq!(delta.base, full.revision);
        assert_eq!((delta.put.len(), delta.remove.len()), (1, 1));
    }

    #[test]
    fn a_change_while_an_update_is_in_flight_goes_with_the_next() {
        let now = start();
        let mut push = Push::new(3);
        put(&mut push, 1, "a");
        push.commit();
        let first = push.next(EPOCH, now);
        put(&mut push, 2, "b");
        push.commit();
        assert_eq!(push.due(now), None);
        push.ack(first.revision);

        assert_eq!(push.due(now), Some(now));
        let second = push.next(EPOCH, now);
        assert_eq!((second.base, second.put.len()), (first.revision, 1));
    }

    #[test]
    fn setting_the_same_again_makes_no_revision() {
        let mut push = Push::new(3);
        put(&mut push, 1, "a");
        assert!(push.commit());
        put(&mut push, 1, "a");
        assert!(!push.commit());
    }

    #[test]
    fn a_relay_that_has_the_update_in_flight_goes_on_from_there() {
        let now = start();
        let mut push = Push::new(3);
        put(&mut push, 1, "a");
        push.commit();
        let lost_ack = push.next(EPOCH, now).revision;

        assert!(push.resume(lost_ack, EPOCH));
        assert_eq!(push.acked(), lost_ack);
        assert!(push.resume(lost_ack, EPOCH));
        assert!(!push.resume(lost_ack - 1, EPOCH));
        assert_eq!(push.acked(), 0);
    }

    #[test]
    fn revisions_of_different_terms_differ() {
        let mut old = Push::new(3);
        let mut new = Push::new(4);
        for push in [&mut old, &mut new] {
            put(push, 1, "a");
            push.commit();
        }
        assert_ne!(old.current(), new.current());
        assert!(!new.resume(old.current(), EPOCH));
    }

    #[test]
    fn whole_states_keep_their_distance() {
        let now = start();
        let mut push = Push::new(3);
        put(&mut push, 1, "a");
        push.commit();
        push.next(EPOCH, now);
        push.forget();

        assert_eq!(push.due(now), Some(now + FULL_SPACING));
    }
}
