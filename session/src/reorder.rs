//! Puts frames of one sender and class back in order, by their sequence, before quinn sees them.
//!
//! quinn discards packets more than 128 numbers late and calls packets lost that were only overtaken. A
//! path change overtakes (to a shorter path) or replays (a detour), hundreds of frames deep. So:
//!
//! - A frame in order goes through at once, at the price of a few compares. Nothing waits behind no gap.
//! - A frame beyond a gap is **held** until the gap is filled or given up; then all up to the next gap go.
//! - A frame that comes after its gap was given up is **late**: it goes through at once, for quinn may still
//!   take it. One that came before is dropped, as is one older than the [`ReplayWindow`].
//! - If nothing comes but what is older, the order was moved on by a sequence that was not the sender's. It
//!   starts anew.
//!
//! How long to wait is learned, because random loss also makes gaps, and these are never filled: waiting
//! there only delays. A gap of at most [`SMALL_GAP`] frames is what random loss looks like and does quinn
//! little harm; a greater one is what path changes look like. Each size has its own [`Patience`], which
//! starts great, shrinks with each gap that was waited for in vain, and grows to what a late frame would have
//! needed. A gap being filled one by one (a replay) is given time anew with each frame, within
//! [`HOLD_MAX`].
//!
//! **How many gaps.** quinn ends a connection when a stream of it has more than 1,024 gaps. Each gap that is given up makes
//! one, until QUIC has sent it again, a round trip or two later. Therefore at most [`GAPS_MAX`] are given up within
//! [`GAPS_SPAN`]. A further one is waited for as long as a frame may be held at all; then all that is held is thrown away
//! with it, but for the frames behind the last gap, so that many gaps become one. QUIC sends that again too: a
//! fabric that loses so much has not much else to carry.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::order_delay::OrderDelay;
use crate::replay::{Outrun, Replay, ReplayWindow};

/// Missing frames that quinn digests by itself: half of its 128.
const SMALL_GAP: u64 = 64;
/// The longest that a frame is held, however the gap is filled: the third answer on a hop of 50 ms, or the
/// first on one of 200. Beyond it quinn's own probe time-out (about RTT + 4 deviations + 25 ms) would fire
/// on most paths anyway.
const HOLD_MAX: Duration = Duration::from_millis(250);
/// Frames held at most; the first gap is given up beyond. [`HOLD_MAX`] at a gigabit a second.
const HELD_FRAMES_MAX: usize = 32_768;
/// Bytes held at most; the first gap is given up beyond. As many full frames.
const HELD_BYTES_MAX: usize = HELD_FRAMES_MAX * 1_200;
/// Gaps given up that are remembered, to learn from what fills them late: those of 40 ms, a recovery, at 60,000
/// frames a second of which 4 % were lost on the way and half in runs.
const GIVEN_UP_MAX: usize = 1_024;

/// Gaps given up within [`GAPS_SPAN`] and the one before it, together; half of what quinn bears in a stream, for a frame sent
/// again may be lost again and split a gap.
const GAPS_MAX: u32 = 512;
/// QUIC makes a gap good within two round trips, here of a path of 250 ms.
const GAPS_SPAN: Duration = Duration::from_millis(500);
/// Numbers told apart: as many as may be held, and a word. What comes later than that is of no use to quinn, but teaches
/// how long to wait.
const SEEN_WORDS: usize = HELD_FRAMES_MAX / 64 + 1;

/// For small gaps: what a hop recovers comes a round trip and its reorder window late, and a second loss
/// makes it two. Most paths teach to wait less.
const PATIENCE_SMALL: Patience =
    Patience::new(Duration::from_millis(2), Duration::from_millis(200));
/// For great gaps: a silent neighbour is down after 90 ms, when what it swallowed is replayed; also a burst that a
/// hop recovers.
const PATIENCE_GREAT: Patience =
    Patience::new(Duration::from_millis(10), Duration::from_millis(200));

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// In order; it went through.
    InOrder,
    /// It waits for an earlier one.
    Held,
    /// It came late and filled a gap, in whole or in part.
    Filled,
    /// It came after its gap had been given up; it went through.
    Late,
    /// It came before, or is too old to tell. Dropped.
    Duplicate,
}

/// How long to wait for gaps of one size, learned from how they end.
#[derive(Clone, Copy, Debug)]
struct Patience {
    least: Duration,
    most: Duration,
    now: Duration,
    /// When it last became less.
    shrunk: Option<Instant>,
}

impl Patience {
    const fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, now: most, shrunk: None }
    }

    /// A quarter less, once within its own length: what a burst lost is one lesson, however many gaps it made. After eight
    /// lessons a tenth is left.
    fn in_vain(&mut self, now: Instant) {
        if self.shrunk.is_none_or(|shrunk| now.saturating_duration_since(shrunk) >= self.now) {
            self.now = (self.now * 3 / 4).max(self.least);
            self.shrunk = Some(now);
        }
    }

    /// `needed` would have been enough; a quarter more is kept.
    fn needed(&mut self, needed: Duration) {
        self.now = self.now.max((needed * 5 / 4).min(self.most));
    }
}

/// How many gaps were given up of late.
#[derive(Clone, Copy, Debug, Default)]
struct GapCount {
    since: Option<Instant>,
    /// In this span, and in the one before.
    counts: [u32; 2],
}

impl GapCount {
    /// Whether another one would be too many.
    fn is_full(&self, now: Instant) -> bool {
        let spans = self.since.map_or(u128::MAX, |since| {
            now.saturating_duration_since(since).as_nanos() / GAPS_SPAN.as_nanos()
        });
        let recent = match spans {
            0 => self.counts[0] + self.counts[1],
            1 => self.counts[0],
            2.. => 0,
        };
        recent >= GAPS_MAX
    }

    fn note(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed >= GAPS_SPAN {
            let before = if passed < 2 * GAPS_SPAN { self.counts[0] } else { 0 };
            (self.since, self.counts) = (Some(now), [0, before]);
        }
        self.counts[0] = self.counts[0].saturating_add(1);
    }
}

#[derive(Debug)]
struct Held<T> {
    item: T,
    bytes: usize,
    arrived: Instant,
}

/// The wait for the first gap.
#[derive(Clone, Copy, Debug)]
struct Wait {
    great: bool,
    noticed: Instant,
    /// When the gap was last filled in part.
    progress: Instant,
}

#[derive(Clone, Copy, Debug)]
struct GivenUp {
    first: u64,
    end: u64,
    noticed: Instant,
    great: bool,
}

/// The buffer of one sender and class.
#[derive(Debug)]
pub(crate) struct Reorder<T> {
    /// The next sequence in order, once a frame has come.
    next: Option<u64>,
    seen: Box<ReplayWindow<SEEN_WORDS>>,
    outrun: Outrun,
    held: BTreeMap<u64, Held<T>>,
    held_bytes: usize,
    wait: Option<Wait>,
    small: Patience,
    great: Patience,
    given_up: VecDeque<GivenUp>,
    gaps: GapCount,
    gaps_given_up: u64,
    thrown_away: u64,
    /// Of what has passed since that was last taken.
    delay: OrderDelay,
}

impl<T> Reorder<T> {
    /// Makes an empty buffer. The first frame that comes is in order, whatever its sequence.
    pub(crate) fn new() -> Self {
        Self {
            next: None,
            seen: Box::default(),
            outrun: Outrun::default(),
            held: BTreeMap::new(),
            held_bytes: 0,
            wait: None,
            small: PATIENCE_SMALL,
            great: PATIENCE_GREAT,
            given_up: VecDeque::new(),
            gaps: GapCount::default(),
            gaps_given_up: 0,
            thrown_away: 0,
            delay: OrderDelay::default(),
        }
    }

    /// Takes a frame; appends to `out` what may go through now, in order.
    pub(crate) fn handle_frame(
        &mut self,
        sequence: u64,
        bytes: usize,
        item: T,
        now: Instant,
        out: &mut VecDeque<T>,
    ) -> Verdict {
        let next = *self.next.get_or_insert(sequence);
        if sequence < next {
            return self.handle_late(sequence, item, now, out);
        }
        self.outrun.handle_verdict(Replay::New, now);
        if sequence > next {
            return self.hold(sequence, next, Held { item, bytes, arrived: now }, out);
        }
        if self.seen.insert(sequence) != Replay::New {
            return Verdict::Duplicate;
        }
        self.next = Some(next + 1);
        self.delay.add(Duration::ZERO);
        out.push_back(item);
        let Some(wait) = &mut self.wait else { return Verdict::InOrder };
        wait.progress = now;
        let Wait { great, noticed, .. } = *wait;
        self.patience(great).needed(now.saturating_duration_since(noticed));
        self.release(now, out);
        Verdict::Filled
    }

    /// Gives up gaps that were waited for long enough.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<T>) {
        while self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            match &mut self.wait {
                Some(wait) if self.gaps.is_full(now) && wait.noticed + HOLD_MAX > now => {
                    wait.progress = now;
                }
                Some(_) | None => self.give_up(now, out),
            }
        }
    }

    /// When the first gap is to be given up, or looked at again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let Wait { great, noticed, progress } = self.wait?;
        let patience = if great { self.great } else { self.small };
        Some((progress + patience.now).min(noticed + HOLD_MAX))
    }

    /// Gives everything out that is held: its sender is gone.
    pub(crate) fn flush(&mut self, now: Instant, out: &mut VecDeque<T>) {
        while self.wait.is_some() {
            self.give_up(now, out);
        }
    }

    /// Gaps given up so far.
    pub(crate) fn gaps_given_up(&self) -> u64 {
        self.gaps_given_up
    }

    /// Frames thrown away so far, since there were too many gaps.
    pub(crate) fn thrown_away(&self) -> u64 {
        self.thrown_away
    }

    /// How long frames were held that have passed since this was last asked.
    pub(crate) fn take_delay(&mut self) -> OrderDelay {
        std::mem::take(&mut self.delay)
    }

    fn hold(&mut self, sequence: u64, next: u64, held: Held<T>, out: &mut VecDeque<T>) -> Verdict {
        if sequence == u64::MAX || self.held.contains_key(&sequence) {
            return Verdict::Duplicate;
        }
        let arrived = held.arrived;
        // A frame that lands inside the gap, before all that is held, fills it in part.
        let fills = self.held.first_key_value().is_some_and(|(&first, _)| sequence < first);
        self.held_bytes += held.bytes;
        self.held.insert(sequence, held);
        match &mut self.wait {
            Some(wait) if fills => wait.progress = arrived,
            Some(_) => {}
            None => {
                let great = sequence - next > SMALL_GAP;
                self.wait = Some(Wait { great, noticed: arrived, progress: arrived });
            }
        }
        while self.held.len() > HELD_FRAMES_MAX || self.held_bytes > HELD_BYTES_MAX {
            self.give_up(arrived, out);
        }
        if fills { Verdict::Filled } else { Verdict::Held }
    }

    fn handle_late(
        &mut self,
        sequence: u64,
        item: T,
        now: Instant,
        out: &mut VecDeque<T>,
    ) -> Verdict {
        let verdict = self.seen.insert(sequence);
        if self.outrun.handle_verdict(verdict, now) {
            self.flush(now, out);
            *self.seen = ReplayWindow::default();
            self.seen.insert(sequence);
            self.next = Some(sequence + 1);
            self.given_up.clear();
            out.push_back(item);
            return Verdict::InOrder;
        }
        if verdict != Replay::New {
            return Verdict::Duplicate;
        }
        let gap = self.given_up.iter().find(|gap| (gap.first..gap.end).contains(&sequence));
        if let Some(&GivenUp { noticed, great, .. }) = gap {
            self.patience(great).needed(now.saturating_duration_since(noticed));
        }
        out.push_back(item);
        Verdict::Late
    }

    /// Releases what is in order now, and starts the wait for the next gap if something is still held.
    fn release(&mut self, now: Instant, out: &mut VecDeque<T>) {
        let Some(mut next) = self.next else { return };
        let waited_for = next;
        while let Some(held) = self.held.remove(&next) {
            self.held_bytes -= held.bytes;
            self.seen.insert(next);
            self.delay.add(now.saturating_duration_since(held.arrived));
            out.push_back(held.item);
            next += 1;
        }
        self.next = Some(next);
        match self.held.first_key_value() {
            None => self.wait = None,
            Some(_) if next == waited_for => {}
            Some((&first, held)) => {
                let great = first - next > SMALL_GAP;
                self.wait = Some(Wait { great, noticed: held.arrived, progress: held.arrived });
            }
        }
    }

    /// Gives the first gap up, or all that is held if that would be one gap too many.
    fn give_up(&mut self, now: Instant, out: &mut VecDeque<T>) {
        let (Some(wait), Some(next)) = (self.wait, self.next) else { return };
        let Some((&first, _)) = self.held.first_key_value() else { return };
        let Wait { noticed, great, .. } = wait;
        self.patience(great).in_vain(now);
        let end = if self.gaps.is_full(now) { self.throw_away() } else { first };
        self.gaps.note(now);
        self.gaps_given_up += 1;
        if self.given_up.len() == GIVEN_UP_MAX {
            self.given_up.pop_front();
        }
        self.given_up.push_back(GivenUp { first: next, end, noticed, great });
        self.next = Some(end);
        self.release(now, out);
    }

    /// Throws away what is held, but for the frames behind the last gap. Returns the first of these.
    fn throw_away(&mut self) -> u64 {
        let mut held = self.held.keys().rev();
        let mut first = *held.next().expect("a gap is before what is held");
        while held.next().is_some_and(|&before| before + 1 == first) {
            first -= 1;
        }
        let kept = self.held.split_off(&first);
        self.thrown_away += self.held.len() as u64;
        self.held = kept;
        self.held_bytes = self.held.values().map(|held| held.bytes).sum();
        first
    }

    fn patience(&mut self, great: bool) -> &mut Patience {
        if great { &mut self.great } else { &mut self.small }
    }
}

#[cfg(test)]
mod tests;
