//! Word of the last frame of a burst, which no later number shows to be lost.

use std::time::{Duration, Instant};

/// Whether the last frame sent on a lane still needs a word.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Frames that follow one another sooner than this need no word.
    after: Duration,
    last: Option<Instant>,
}

impl Tail {
    pub(crate) fn new(after: Duration) -> Self {
        Self { after, last: None }
    }

    /// A frame was sent; returns when to be woken, if nobody is waiting for that yet.
    pub(crate) fn handle_sent(&mut self, now: Instant) -> Option<Instant> {
        self.last.replace(now).is_none().then(|| now + self.after)
    }

    /// Something else told the neighbour how many frames were sent.
    pub(crate) fn handle_told(&mut self) {
        self.last = None;
    }

    /// When a word is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.last.map(|last| last + self.after)
    }

    /// Whether a word is due now, once.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.last.take_if(|last| *last + self.after <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_follows_the_last_frame_of_a_burst() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut tail = Tail::new(Duration::from_millis(5));

        assert_eq!(tail.handle_sent(at(0)), Some(at(5)));
        assert_eq!(tail.handle_sent(at(4)), None);
        assert!(!tail.take(at(5)));
        assert_eq!(tail.due(), Some(at(9)));
        assert!(tail.take(at(9)) && !tail.take(at(99)));

        assert_eq!(tail.handle_sent(at(100)), Some(at(105)));
        tail.handle_told();
        assert_eq!(tail.due(), None);
    }
}
