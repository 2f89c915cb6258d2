//! What a link may send: its lanes together keep to the lesser of the capacities that both ends' lines are configured
//! with. And what a line may send: the same for all its links ([`crate::lines`]).
//!
//! The model is a line that takes a frame's cost at its rate, and so is *busy until* some time (the generic cell rate
//! algorithm, ITU-T I.371). A frame may go if the line is busy for no longer than the *burst*, 2 ms:
//!
//! ```text
//! may go at now  <=>  busy_until <= now + burst          busy_until = max(busy_until, now) + cost / rate
//! ```
//!
//! So in any time `t` at most `rate x (t + burst)` and one frame goes out, and while frames wait the line does not
//! idle, if they are looked at once in a burst. What goes without asking (resent frames) is charged like the rest and
//! makes the others wait.
//!
//! Lanes that are held back are looked at again when half a burst has drained: one wake for many frames, and none
//! for each. A realtime frame that comes when another may go goes at once.
//!
//! **Between the shards** of a link or a line ([`crate::shard`]) *busy until* is one number that all of them read and move forward:
//! they keep to the rate together, up to one frame of each, and one that is alone has all of it. Who is held back waits
//! until half a burst has drained, and in that time a frame of another shard goes at once, realtime or not; so a
//! realtime frame waits for bulk of other shards no longer than half a burst and a timer's grain.
//!
//! **Between the lanes** realtime goes first, and bulk is owed an eighth of the bytes, as interactive owes it (see
//! [`super::share`]). A rate of 0 is none: nothing waits here, and the connection's window is what orders the lanes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use overway_wire::NeighbourLink;
use overway_wire::hop::Lane;

use super::COST_MAX;
use super::share::Share;

/// How far the line may be ahead: above the grain of the shell's timers, a millisecond, so that a late wake
/// idles no line; at 53 Mbit/s a batch of ten full frames.
const BURST: Duration = Duration::from_millis(2);
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// The line as a link's lanes see it.
#[derive(Debug)]
pub(crate) struct Shaper {
    rate_bps: u64,
    busy: Busy,
    /// What the last division left, in parts of a nanosecond by the rate.
    rest: u64,
    /// What bulk is owed by realtime.
    share: Share,
}

/// Until when the line is busy.
#[derive(Debug)]
enum Busy {
    /// With this core's frames alone.
    Own(Instant),
    /// With those of several shards.
    Shared(SharedLine),
}

/// What the shards of a link, or of a relay, know of a line together.
#[derive(Clone, Debug)]
pub(crate) struct SharedLine {
    origin: Instant,
    /// Nanoseconds from the origin until which it is busy.
    busy_nanos: Arc<AtomicU64>,
}

/// What the shards of a relay know of their links and lines together. Asked for one when it is opened, not for each
/// frame.
#[derive(Debug)]
pub struct SharedLines {
    origin: Instant,
    lines: Mutex<BTreeMap<Shares, Arc<AtomicU64>>>,
}

/// What shards keep to together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shares {
    /// The lesser of both ends' lines of a link.
    Link(NeighbourLink),
    /// The relay's line of this local address.
    Line(usize),
}

impl SharedLines {
    /// Idle lines; nothing is sent before `origin`.
    pub fn new(origin: Instant) -> Self {
        Self { origin, lines: Mutex::default() }
    }

    /// What is known of one. Those that no shard uses any more are forgotten.
    pub(crate) fn of(&self, wanted: Shares) -> SharedLine {
        // A panic elsewhere leaves the map whole.
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|&other, line| other == wanted || Arc::strong_count(line) > 1);
        let busy_nanos = Arc::clone(lines.entry(wanted).or_default());
        SharedLine { origin: self.origin, busy_nanos }
    }
}

impl SharedLine {
    fn until(&self) -> Instant {
        self.origin + Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed))
    }

    fn extend(&self, nanos: u64, now: Instant) {
        let now = now.saturating_duration_since(self.origin).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let later = |busy: u64| Some(busy.max(now).saturating_add(nanos));
        // Never refused.
        let _ = self.busy_nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }
}

impl Busy {
    fn new(shared: Option<SharedLine>, now: Instant) -> Self {
        shared.map_or(Self::Own(now), Self::Shared)
    }

    fn until(&self) -> Instant {
        match self {
            Self::Own(until) => *until,
            Self::Shared(line) => line.until(),
        }
    }

    fn extend(&mut self, nanos: u64, now: Instant) {
        match self {
            Self::Own(until) => *until = (*until).max(now) + Duration::from_nanos(nanos),
            Self::Shared(line) => line.extend(nanos, now),
        }
    }
}

/// What a lane with frames may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Send one.
    Now,
    /// Let the other lane send first.
    Other,
    /// Wait; look again then.
    At(Instant),
}

impl Shaper {
    /// A line of this capacity in bits per second, 0 if it has none that is known, that is idle.
    pub(crate) fn new(rate_bps: u64, shared: Option<SharedLine>, now: Instant) -> Self {
        Self { rate_bps, busy: Busy::new(shared, now), rest: 0, share: Share::default() }
    }

    /// Whether the line has a capacity that is known.
    pub(crate) fn is_set(&self) -> bool {
        self.rate_bps != 0
    }

    /// Sets the capacity, and who shares it; what was sent counts as it did.
    pub(crate) fn set_line(&mut self, rate_bps: u64, shared: Option<SharedLine>, now: Instant) {
        if rate_bps != self.rate_bps {
            (self.rate_bps, self.rest) = (rate_bps, 0);
        }
        match (&self.busy, shared) {
            (Busy::Own(_), None) | (Busy::Shared(_), Some(_)) => {}
            (Busy::Own(until), Some(line)) => {
                let ahead = until.saturating_duration_since(now).as_nanos();
                line.extend(u64::try_from(ahead).unwrap_or(u64::MAX), now);
                self.busy = Busy::Shared(line);
            }
            (Busy::Shared(line), None) => self.busy = Busy::Own(line.until()),
        }
    }

    /// What a lane with frames may do. `contended` says whether the other lane has frames as well and its
    /// connection takes them.
    pub(crate) fn turn(&self, lane: Lane, contended: bool, now: Instant) -> Turn {
        if self.rate_bps == 0 {
            return Turn::Now;
        }
        let busy_until = self.busy.until();
        if busy_until > now + BURST {
            return Turn::At(busy_until - BURST / 2);
        }
        match lane {
            Lane::Realtime if contended && self.share.is_due(COST_MAX) => Turn::Other,
            Lane::Light | Lane::Realtime | Lane::Bulk => Turn::Now,
        }
    }

    /// Charges a frame that goes out. `contended` as in [`Self::turn`].
    pub(crate) fn charge(&mut self, lane: Lane, cost: usize, contended: bool, now: Instant) {
        if self.rate_bps == 0 {
            return;
        }
        // No message has a gigabyte, with which this would overflow.
        let total = (cost as u64 * 8 * NANOS_PER_SEC).saturating_add(self.rest);
        self.rest = total % self.rate_bps;
        self.busy.extend(total / self.rate_bps, now);
        match lane {
            Lane::Realtime if contended => self.share.pass(cost),
            Lane::Realtime => self.share.close(),
            Lane::Bulk => self.share.pay(cost),
            Lane::Light => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE_BPS: u64 = 100_000_000;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let mut shaper = Shaper::new(RATE_BPS, None, start);
        let mut sent_bytes = 0;
        let mut now = start;
        let mut wakes = 0;
        while now < start + Duration::from_secs(1) {
            match shaper.turn(Lane::Bulk, false, now) {
                Turn::Now => {
                    shaper.charge(Lane::Bulk, 1_000, false, now);
                    sent_bytes += 1_000;
                }
                Turn::At(due) => {
                    assert!(due > now);
                    now = due;
                    wakes += 1;
                }
                Turn::Other => panic!("there is no other"),
            }
        }
        // A second's worth, two milliseconds' and a frame.
        assert!((12_500_000..=12_526_000).contains(&sent_bytes), "{sent_bytes}");
        assert!(wakes <= 1_000, "{wakes}");
    }

    #[test]
    fn without_a_capacity_nothing_waits() {
        let now = Instant::now();
        let mut shaper = Shaper::new(0, None, now);
        for _ in 0..1_000_000 {
            shaper.charge(Lane::Realtime, COST_MAX, true, now);
        }
        assert_eq!(shaper.turn(Lane::Realtime, true, now), Turn::Now);
    }

    #[test]
    fn realtime_goes_first_and_bulk_keeps_an_eighth() {
        let mut now = Instant::now();
        let mut shaper = Shaper::new(RATE_BPS, None, now);
        let mut sent = [0_usize; 2];
        for _ in 0..100_000 {
            let (lane, cost) = match shaper.turn(Lane::Realtime, true, now) {
                Turn::Now => (Lane::Realtime, 200),
                Turn::Other => (Lane::Bulk, COST_MAX),
                Turn::At(due) => {
                    now = due;
                    continue;
                }
            };
            shaper.charge(lane, cost, true, now);
            sent[lane.data_index().unwrap()] += cost;
        }
        let [realtime, bulk] = sent;
        assert!(bulk.abs_diff(realtime / 7) <= COST_MAX, "{sent:?}");
    }

    #[test]
    fn a_capacity_that_is_lowered_counts_from_then_on() {
        let now = Instant::now();
        let mut shaper = Shaper::new(RATE_BPS, None, now);
        shaper.charge(Lane::Bulk, 1_000, false, now);
        shaper.set_line(RATE_BPS / 1_000, None, now);
        assert_eq!(shaper.turn(Lane::Bulk, false, now), Turn::Now);
        shaper.charge(Lane::Bulk, 1_000, false, now);

        let due = now + Duration::from_micros(80_080) - BURST / 2;
        assert_eq!(shaper.turn(Lane::Bulk, false, now), Turn::At(due));
    }

    proptest! {
        #[test]
        fn no_time_holds_more_than_the_rate_a_burst_and_a_frame(
            rate_bps in 100_000_u64..10_000_000_000,
            steps in proptest::collection::vec((0_u64..5_000_000, 1_usize..=COST_MAX, 1_u8..20), 1..30),
        ) {
            let start = Instant::now();
            let mut shaper = Shaper::new(rate_bps, None, start);
            let mut now = start;
            let mut sent: Vec<(Instant, usize)> = Vec::new();
            for (pause, cost, frames) in steps {
                now += Duration::from_nanos(pause);
                for _ in 0..frames {
                    let lane = if cost % 2 == 0 { Lane::Realtime } else { Lane::Bulk };
                    if shaper.turn(lane, false, now) == Turn::Now {
                        shaper.charge(lane, cost, false, now);
                        sent.push((now, cost));
                    }
                }
            }
            for first in 0..sent.len() {
                let mut bytes = 0_u128;
                for &(at, cost) in &sent[first..] {
                    bytes += cost as u128;
                    let time = at - sent[first].0 + BURST;
                    let most = u128::from(rate_bps) * time.as_nanos() / 8 / u128::from(NANOS_PER_SEC);
                    prop_assert!(bytes <= most + cost as u128 + 1, "{bytes} > {most}");
                }
            }
        }
    }
}
