//! Whether a link's realtime frames are sent twice without being asked for.
//!
//! A hop that loses a frame hands it on late by what noticing takes, and a round trip: by the tail probe (2 ms), the
//! window (1 ms on a line that does not reorder), the round trip `r`, and what timers and queues add, some 2 ms:
//!
//! ```text
//! late by r + 5 ms                        with a twin: 3 ms and a timer's grain
//! ```
//!
//! Say that voice can wait for half the path's delay and 20 ms, which over three hops of round trip `r` is 3/4 r + 20 ms.
//! One loss is made good in time up to a round trip of 60 ms; two of one frame only where 2 (r + 5) <= 3/4 r + 20, up to
//! 8 ms. Where each hop loses a share `p`, two of the three lose the same frame in 3 p^2 of all cases, and one loses
//! the frame and its tail probe, which costs a frame's spacing more, in as many: at 1 %, 6 frames in 10,000 are late.
//! With twins a hop asks only if both copies are lost, and a frame is late if the tail probe is lost, too: 3 p^3, 3 in a
//! million.
//!
//! So twins are worth their bytes where the round trip is [`ROUND_TRIP_MIN`] or more and the line loses
//! [`LOST_ON`] or more; below, 6 p^2 is one frame in 40,000. What is lost is the neighbour's word, in which twins make
//! up for nothing.

use std::time::Duration;

use overway_probe::WindowStats;
use overway_wire::LossPpm;

/// Least round trip: below, two losses are made good in time.
const ROUND_TRIP_MIN: Duration = Duration::from_millis(8);
/// Twins begin where this share is lost.
const LOST_ON: LossPpm = LossPpm::new(2_000);
/// They end below this. One loss in thirty seconds of heartbeats is a share of a thousandth.
const LOST_OFF: LossPpm = LossPpm::new(1_500);

/// The decision for one link, which changes with each heartbeat at most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Twins {
    on: bool,
}

impl Twins {
    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    /// Takes the share of ours that the neighbour finds lost, if it says so, and the link's round trip.
    pub(crate) fn handle_lost(&mut self, lost: Option<LossPpm>, round_trip: Duration) {
        let limit = if self.on { LOST_OFF } else { LOST_ON };
        self.on = lost.is_some_and(|lost| lost >= limit) && round_trip >= ROUND_TRIP_MIN;
    }
}

/// The share lost by the worse of two windows: what is lost now counts at once, and what is lost now and then counts.
pub(crate) fn lost_share((fast, slow): (WindowStats, WindowStats)) -> LossPpm {
    let share = |window: WindowStats| {
        let ppm = u64::from(window.lost) * 1_000_000 / u64::from(window.samples.max(1));
        LossPpm::new(u32::try_from(ppm).unwrap_or(u32::MAX))
    };
    share(fast).max(share(slow))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_window_counts_and_an_empty_one_lost_nothing() {
        let window = |samples, lost| WindowStats { samples, lost, ..WindowStats::default() };

        assert_eq!(lost_share((window(0, 0), window(1_000, 2))), LossPpm::new(2_000));
        assert_eq!(lost_share((window(50, 1), window(1_000, 1))), LossPpm::new(20_000));
        assert_eq!(lost_share((window(3, 3), window(0, 0))), LossPpm::ALL);
    }

    #[test]
    fn twins_begin_and_end_with_the_loss_that_the_neighbour_finds() {
        let mut twins = Twins::default();
        let mut after = |ppm: Option<u32>, millis| {
            twins.handle_lost(ppm.map(LossPpm::new), Duration::from_millis(millis));
            twins.is_on()
        };

        assert!(!after(Some(1_999), 30) && after(Some(2_000), 30));
        assert!(after(Some(1_500), 30) && !after(Some(1_499), 30) && !after(Some(1_999), 30));
        assert!(!after(Some(50_000), 7) && after(Some(50_000), 8));
        assert!(!after(None, 30), "a neighbour of the version before takes no twins");
    }
}
