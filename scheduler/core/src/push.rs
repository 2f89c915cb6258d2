//! What of its pushed state a relay has.
//!
//! ```text
//!   touch, touch, commit --> revision n   next --> update: base = acked, revision = n    (in flight)
//!                                         ack n --> acked = n
//!        resync, timeout, unknown hello --> acked = 0: the next update is the whole state
//! ```
//!
//! The state itself is nowhere kept: its items are made when an update is. Kept are the keys that changed since
//! the acknowledged revision, in eight bytes each, apart from those that the update in flight holds. A key may be
//! touched though the relay has its item so already; that changes nothing.
//!
//! An update holds at most [`UPDATE_BYTES_MAX`]. What does not fit counts as changed in one revision more, so that
//! the next update, whose base is the first one, brings it: a whole state may take several updates in a row.
//!
//! A revision is the term and a count, so that one of an earlier scheduler never matches by accident.

mod key;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use overway_wire::Epoch;
use overway_wire::control::{Item, Key, Update};
use prost::Message;

pub(crate) use key::{ItemKey, Named};

use crate::session::later;

/// Bits of a revision that count; the term is above them, without its upper bits. At a hundred a second they last
/// 300 years, and leave room for sixteen million terms in a row that all differ.
const COUNT_BITS: u32 = 40;
/// Least time between two whole states for one relay, so that one which asks without end costs little.
const FULL_SPACING: Duration = Duration::from_millis(200);
/// Bytes of items in one update: half of what a message may have. Routes without a policy to 5,000 relays are 1.5 MB.
const UPDATE_BYTES_MAX: usize = overway_wire::control::MESSAGE_BYTES_MAX / 2;
/// What an item takes beside itself: its tag, and its length.
const FRAMING_BYTES: usize = 5;

/// See the module.
#[derive(Debug)]
pub(crate) struct Push {
    /// Whether the relay is registered; otherwise it is to have nothing.
    registered: bool,
    /// Keys that changed after `acked` and are not in flight.
    changed: BTreeSet<ItemKey>,
    /// Keys that the update in flight holds, where its base is not 0.
    sent: Vec<ItemKey>,
    /// Whether something was touched since the last commit.
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
            registered: false,
            changed: BTreeSet::new(),
            sent: Vec::new(),
            touched: false,
            current: term << COUNT_BITS,
            acked: 0,
            in_flight: None,
            last_full: None,
            last_epoch: Epoch::default(),
        }
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

    /// The relay is registered: it is to have a state.
    pub(crate) fn begin(&mut self) {
        self.touched |= !self.registered;
        self.registered = true;
    }

    /// The relay is no longer registered: it is to have nothing.
    pub(crate) fn clear(&mut self) {
        self.touched |= self.registered;
        self.registered = false;
        self.forget();
    }

    /// An item is put, changed or removed; counts from the next [`Self::commit`].
    pub(crate) fn touch(&mut self, key: ItemKey) {
        self.touched = true;
        if self.acked != 0 || self.in_flight.is_some() {
            self.changed.insert(key);
        }
    }

    /// Makes a revision of what was touched, and says whether there was anything. `items` is about how many
    /// items the state has.
    pub(crate) fn commit(&mut self, items: usize) -> bool {
        let touched = std::mem::take(&mut self.touched);
        if touched {
            self.current += 1;
        }
        // A relay that is far behind is cheaper served whole, and this bounds the keys.
        if self.changed.len() > 2 * items {
            self.forget();
        }
        touched
    }

    /// A new session: whether the relay has a revision from which a delta can be made.
    pub(crate) fn resume(&mut self, revision: u64, epoch: Epoch) -> bool {
        self.last_epoch = self.last_epoch.max(epoch);
        if self.ack(revision) == Acked::InFlight {
            return true;
        }
        if revision == 0 || revision != self.acked {
            self.forget();
            return false;
        }
        self.in_flight = None;
        self.changed.extend(self.sent.drain(..));
        true
    }

    /// The relay has this revision.
    pub(crate) fn ack(&mut self, revision: u64) -> Acked {
        if !self.is_in_flight(revision) {
            return Acked::Ignored;
        }
        self.in_flight = None;
        self.acked = revision;
        self.sent.clear();
        Acked::InFlight
    }

    /// What the relay has is not known; the next update is the whole state.
    pub(crate) fn forget(&mut self) {
        self.acked = 0;
        self.in_flight = None;
        self.changed.clear();
        self.sent.clear();
    }

    /// How many items the next update has at most; `None` for the whole state.
    pub(crate) fn items(&self) -> Option<usize> {
        (self.acked != 0).then_some(self.changed.len())
    }

    /// Whether this is the update in flight.
    pub(crate) fn is_in_flight(&self, revision: u64) -> bool {
        self.in_flight.is_some_and(|in_flight| in_flight.revision == revision)
    }

    /// Whether something is left for a further update.
    pub(crate) fn is_behind(&self) -> bool {
        !self.changed.is_empty()
    }

    /// When the update in flight is given up.
    pub(crate) fn ack_deadline(&self, timeout: Duration) -> Option<Instant> {
        Some(self.in_flight?.sent + timeout)
    }

    /// The scheduler did not look for so long: the update in flight counts as sent so much later.
    pub(crate) fn handle_stall(&mut self, late_by: Duration, now: Instant) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.sent = later(in_flight.sent, late_by, now);
        }
    }

    /// When the next update may go, if there is one.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        if self.in_flight.is_some() || !self.registered || self.acked == self.current {
            return None;
        }
        let held = self.last_full.filter(|_| self.acked == 0).map(|last| last + FULL_SPACING);
        Some(held.map_or(now, |held| held.max(now)))
    }

    /// The next update, which is in flight from now on. Only to be asked when [`Self::due`]. `all` gives the keys
    /// of the whole state, `make` an item of it, or the key of one that is not of it.
    pub(crate) fn next(
        &mut self,
        epoch: Epoch,
        now: Instant,
        all: impl FnOnce() -> BTreeSet<ItemKey>,
        mut make: impl FnMut(ItemKey) -> Result<Item, Key>,
    ) -> Update {
        let mut update = Update {
            epoch_term: epoch.term,
            epoch_sequence: epoch.sequence,
            base: self.acked,
            revision: self.current,
            ..Update::default()
        };
        let whole = self.acked == 0;
        if whole {
            self.changed = all();
            self.last_full = Some(now);
        }
        let mut bytes = 0;
        while bytes < UPDATE_BYTES_MAX
            && let Some(key) = self.changed.pop_first()
        {
            self.sent.push(key);
            match make(key) {
                Ok(item) => {
                    bytes += item.encoded_len() + FRAMING_BYTES;
                    update.put.push(item);
                }
                Err(_) if whole => {}
                Err(key) => {
                    bytes += key.encoded_len() + FRAMING_BYTES;
                    update.remove.push(key);
                }
            }
        }
        if whole {
            // If this one is lost, everything is sent again.
            self.sent.clear();
        }
        if !self.changed.is_empty() {
            self.current += 1;
        }
        self.in_flight = Some(InFlight { revision: update.revision, sent: now });
        self.last_epoch = epoch;
        update
    }
}

#[cfg(test)]
mod tests;
