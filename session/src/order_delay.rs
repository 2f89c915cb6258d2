//! How long frames wait for order at either end of a connection: what a recovered frame costs those behind it.
//!
//! To whoever measures round trips such waiting looks like a queue, and is none. So each end adds up how long its socket held
//! the frames that it has passed on ([`OrderDelay`], in the literature the *resequencing delay*) and tells the other, and
//! the congestion controllers take both off ([`congestion`](crate::congestion) has the model).
//!
//! **The word.** A QUIC datagram with what was held since the connection began; the next one makes a lost one good.
//!
//! ```text
//!   version 0 (1 byte) | microseconds (8) | frames (8)         big endian
//! ```
//!
//! One goes every [`TELL_EVERY`] while frames are held, none else. A far end that tells too much gains what it would by
//! acknowledging what has not come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Between two words: some within a round trip of most paths.
pub(crate) const TELL_EVERY: Duration = Duration::from_millis(10);
/// Bytes of a word.
pub(crate) const WORD_BYTES: usize = 17;
const VERSION: u8 = 0;

/// How long frames were held, all together, and how many passed, held or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OrderDelay {
    pub(crate) micros: u64,
    pub(crate) frames: u64,
}

impl OrderDelay {
    /// Adds a frame that was held for so long.
    pub(crate) fn add(&mut self, held: Duration) {
        let micros = u64::try_from(held.as_micros()).unwrap_or(u64::MAX);
        *self = self.plus(Self { micros, frames: 1 });
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            micros: self.micros.saturating_add(other.micros),
            frames: self.frames.saturating_add(other.frames),
        }
    }

    /// What was added since it was as `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            micros: self.micros.saturating_sub(before.micros),
            frames: self.frames.saturating_sub(before.frames),
        }
    }

    /// How long a frame was held on the mean, where at least so many passed.
    pub(crate) fn mean(self, frames_least: u64) -> Duration {
        let micros = self.micros.checked_div(self.frames.max(frames_least));
        Duration::from_micros(micros.unwrap_or_default())
    }

    /// Writes the word.
    pub(crate) fn encode(self) -> [u8; WORD_BYTES] {
        let mut word = [VERSION; WORD_BYTES];
        word[1..9].copy_from_slice(&self.micros.to_be_bytes());
        word[9..].copy_from_slice(&self.frames.to_be_bytes());
        word
    }

    /// Reads a word; `None` if it is none, or of a version that is not known.
    pub(crate) fn decode(word: &[u8]) -> Option<Self> {
        let (&version, sums) = word.split_first()?;
        let (micros, frames) = sums.split_first_chunk()?;
        let frames = frames.try_into().ok()?;
        (version == VERSION).then_some(Self {
            micros: u64::from_be_bytes(*micros),
            frames: u64::from_be_bytes(frames),
        })
    }
}

/// What the socket passes on in order from one far end on one set of terms.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    delay: Shared,
    /// A frame is held.
    holding: Notify,
}

impl Ordered {
    /// The socket has passed these on.
    pub(crate) fn pass(&self, passed: OrderDelay) {
        self.delay.set(self.delay.get().plus(passed));
    }

    /// The socket holds a frame.
    pub(crate) fn hold(&self) {
        self.holding.notify_waiters();
    }

    /// Waits until a frame is held.
    pub(crate) async fn holding(&self) {
        self.holding.notified().await;
    }

    pub(crate) fn delay(&self) -> OrderDelay {
        self.delay.get()
    }
}

/// The order delay at both ends of a connection.
#[derive(Debug, Default)]
pub(crate) struct OrderDelays {
    pub(crate) here: Arc<Ordered>,
    there: Shared,
}

impl OrderDelays {
    /// Of a connection whose frames the socket puts in order there.
    pub(crate) fn new(here: Arc<Ordered>) -> Self {
        Self { here, there: Shared::default() }
    }

    /// The far end says what it has held. A word that another has overtaken says nothing new.
    pub(crate) fn hear(&self, said: OrderDelay) {
        if said.frames >= self.there.get().frames {
            self.there.set(said);
        }
    }

    /// What was held here, and at the far end as far as it has said so.
    pub(crate) fn both(&self) -> [OrderDelay; 2] {
        [self.here.delay(), self.there.get()]
    }
}

/// An [`OrderDelay`] that one thread at a time writes. Who reads while it does may see one half as it was before.
#[derive(Debug, Default)]
struct Shared {
    micros: AtomicU64,
    frames: AtomicU64,
}

impl Shared {
    fn get(&self) -> OrderDelay {
        OrderDelay {
            micros: self.micros.load(Ordering::Relaxed),
            frames: self.frames.load(Ordering::Relaxed),
        }
    }

    fn set(&self, delay: OrderDelay) {
        self.micros.store(delay.micros, Ordering::Relaxed);
        self.frames.store(delay.frames, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_as_they_were_and_others_are_none() {
        let said = OrderDelay { micros: u64::MAX, frames: 0x0102_0304 };
        let word = said.encode();
        assert_eq!(OrderDelay::decode(&word), Some(said));
        assert_eq!(OrderDelay::decode(&word[..16]), None);
        assert_eq!(OrderDelay::decode(&[&word[..], &[0]].concat()), None);
        assert_eq!(OrderDelay::decode(&[&[1], &word[1..]].concat()), None);
        assert_eq!(OrderDelay::decode(&[]), None);
    }

    #[test]
    fn the_mean_is_over_all_that_passed() {
        let mut delay = OrderDelay::default();
        assert_eq!(delay.mean(0), Duration::ZERO);
        delay.add(Duration::from_millis(30));
        delay.add(Duration::ZERO);
        assert_eq!(delay.mean(0), Duration::from_millis(15));
        assert_eq!(delay.mean(10), Duration::from_millis(3));
    }

    #[test]
    fn a_word_that_was_overtaken_takes_nothing_back() {
        let delays = OrderDelays::default();
        let said = |frames| OrderDelay { micros: frames * 1_000, frames };
        delays.hear(said(7));
        delays.hear(said(5));
        assert_eq!(delays.both(), [OrderDelay::default(), said(7)]);
    }
}
