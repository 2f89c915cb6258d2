//! Where else an edge is sought that is silent.
//!
//! An edge that loses all its relays at once says where it is attached next on its sessions, in frames that go to where
//! the far end was. If the far end has lost all of its own too, these find nobody, either way. So an edge of which
//! nothing came from its own addresses for [`SILENT`] is *sought*, where the directory of services, or a frame of its
//! incarnation from another address, hints that it is:
//!
//! ```text
//!   a hint         each session frame goes there too, beside the address that the edge said last
//!   and in turns   what was sent last in vain goes again, and the word where this end is: at once, after 1 s, 2 s, each 4 s
//!   its word, or a frame from its own address: the search is over
//! ```
//!
//! A hint moves nothing: the edge's own word does, as ever. A wrong one costs what a session sends to one that does not
//! answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_wire::Whereabouts;

use super::{packed, unpacked};
use crate::terms::Terms;

/// Silence after which an edge is sought elsewhere: longer than a round trip around the world with what QUIC needs to
/// notice and send again. An idle session is silent for longer, and sends next to nothing.
pub(super) const SILENT: Duration = Duration::from_secs(1);
/// The first pause between two turns, and the last; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// No hint.
const NONE: u64 = 0;

/// The search for one edge.
#[derive(Debug)]
pub(super) struct Search {
    start: Instant,
    /// Milliseconds from the start to the last frame from one of its own addresses.
    heard: AtomicU64,
    /// Where it may be, packed.
    hint: AtomicU64,
    attempts: Mutex<Attempts>,
}

#[derive(Debug, Default)]
struct Attempts {
    next: Option<Instant>,
    pause: Duration,
    /// What was sent last, while it was silent. As many as there are terms: two dozen packets at most.
    unheard: BTreeMap<Terms, Bytes>,
}

impl Search {
    pub(super) fn new(now: Instant) -> Self {
        let (heard, hint) = (AtomicU64::new(0), AtomicU64::new(NONE));
        Self { start: now, heard, hint, attempts: Mutex::default() }
    }

    /// A frame came from one of the edge's own addresses.
    pub(super) fn handle_home(&self, now: Instant) {
        let was_silent = self.is_silent(now);
        self.heard.store(self.since_start(now), Ordering::Relaxed);
        if was_silent {
            self.end();
        }
    }

    /// The edge has said where it is.
    pub(super) fn end(&self) {
        self.hint.store(NONE, Ordering::Relaxed);
        *self.attempts() = Attempts::default();
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
        now.saturating_duration_since(self.start).saturating_sub(heard) >= SILENT
    }

    /// Takes a hint, if the edge is silent. Whether it is this end's turn to say something.
    pub(super) fn handle_hint(&self, hint: Whereabouts, now: Instant) -> bool {
        if !self.is_silent(now) {
            return false;
        }
        self.hint.store(packed(hint), Ordering::Relaxed);
        let mut attempts = self.attempts();
        if attempts.next.is_some_and(|next| now < next) {
            return false;
        }
        attempts.pause = (attempts.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        attempts.next = Some(now + attempts.pause);
        true
    }

    /// Where frames go too.
    pub(super) fn hint(&self, now: Instant) -> Option<Whereabouts> {
        let hint = self.hint.load(Ordering::Relaxed);
        (hint != NONE && self.is_silent(now)).then(|| unpacked(hint))
    }

    /// Takes note of what is sent.
    pub(super) fn note_sent(&self, terms: Terms, payload: &Bytes, now: Instant) {
        if self.is_silent(now) {
            self.attempts().unheard.insert(terms, payload.clone());
        }
    }

    /// What was sent last in vain.
    pub(super) fn unheard(&self) -> Vec<(Terms, Bytes)> {
        let attempts = self.attempts();
        attempts.unheard.iter().map(|(&terms, payload)| (terms, payload.clone())).collect()
    }

    fn since_start(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Each change is one call.
    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use overway_wire::{Address, AttachmentId, Class, RelayId};

    use super::*;

    const HINT: Whereabouts = Whereabouts::at(Address::new(RelayId(3), AttachmentId(4)));
    const TERMS: Terms = Terms::new(Class::Bulk, overway_wire::PolicyId(0));
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn only_a_silent_edge_is_sought_and_until_it_is_heard() {
        let start = Instant::now();
        let search = Search::new(start);
        search.handle_home(start + 500 * MS);
        assert!(!search.handle_hint(HINT, start + 1_499 * MS));
        search.note_sent(TERMS, &Bytes::from_static(b"early"), start + 1_499 * MS);
        assert_eq!(search.hint(start + 1_500 * MS), None);

        let silent = start + 1_500 * MS;
        assert!(search.handle_hint(HINT, silent));
        search.note_sent(TERMS, &Bytes::from_static(b"late"), silent);
        assert_eq!(search.hint(silent), Some(HINT));
        assert_eq!(search.unheard(), [(TERMS, Bytes::from_static(b"late"))]);

        search.handle_home(silent + MS);
        assert_eq!((search.hint(silent + 2_000 * MS), search.unheard()), (None, Vec::new()));
    }

    #[test]
    fn turns_become_rarer_however_many_hints_there_are() {
        let start = Instant::now();
        let search = Search::new(start);
        let is_turn = |ms: &u32| search.handle_hint(HINT, start + *ms * MS);

        let turns: Vec<u32> = (0..20_000).step_by(50).filter(is_turn).collect();

        assert_eq!(turns, [1_000, 2_000, 4_000, 8_000, 12_000, 16_000]);
    }
}
