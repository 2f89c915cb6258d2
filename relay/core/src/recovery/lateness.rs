//! How late numbers come that are out of order, and therefore how long a gap may be mere reordering.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// In this time the worst lateness seen counts for half as much: a path that has changed is believed within
/// seconds, and a single straggler costs no more than these.
const HALF_LIFE: Duration = Duration::from_secs(2);
/// Least time that a gap is given: sockets are read in batches, and timers go off at milliseconds.
const FLOOR: Duration = Duration::from_millis(1);
/// Most that a gap is given: a round trip, in which a frame sent again would have come, but never more than
/// this.
const CEILING: Duration = Duration::from_millis(100);

/// The worst lateness of late, fading.
#[derive(Debug)]
pub(crate) struct Lateness {
    /// The least window is this part of the round trip.
    floor_part: u32,
    worst: Duration,
    at: Option<Instant>,
}

impl Lateness {
    pub(crate) fn new(floor_part: u32) -> Self {
        Self { floor_part, worst: Duration::ZERO, at: None }
    }

    /// Takes note of a number that came `late` after a greater one.
    pub(crate) fn note(&mut self, late: Duration, now: Instant) {
        if late >= self.faded(now) {
            (self.worst, self.at) = (late, Some(now));
        }
    }

    /// How long to wait for a number that is missing: a quarter more than the worst.
    pub(crate) fn window(&self, round_trip: Duration, now: Instant) -> Duration {
        let bounds = bounds(round_trip, self.floor_part);
        let worst = self.faded(now);
        (worst + worst / 4).clamp(*bounds.start(), *bounds.end())
    }

    /// How long to wait at least: a quarter more than the worst, whatever the round trip.
    pub(crate) fn needed(&self, now: Instant) -> Duration {
        let worst = self.faded(now);
        (worst + worst / 4).max(FLOOR)
    }

    fn faded(&self, now: Instant) -> Duration {
        let age = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let halvings = age.as_millis() / HALF_LIFE.as_millis();
        self.worst / 2_u32.saturating_pow(u32::try_from(halvings).unwrap_or(u32::MAX))
    }
}

fn bounds(round_trip: Duration, floor_part: u32) -> RangeInclusive<Duration> {
    let floor = FLOOR.max(round_trip / floor_part).min(CEILING);
    let ceiling = if round_trip.is_zero() { CEILING } else { round_trip.clamp(floor, CEILING) };
    floor..=ceiling
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_window_follows_the_worst_lateness_and_comes_back() {
        let now = Instant::now();
        let mut lateness = Lateness::new(8);
        assert_eq!(lateness.window(ms(40), now), ms(5));

        lateness.note(ms(16), now);
        lateness.note(ms(2), now + ms(10));

        assert_eq!(lateness.window(ms(40), now + ms(20)), ms(20));
        assert_eq!(lateness.window(ms(40), now + HALF_LIFE), ms(10));
        assert_eq!(lateness.window(ms(40), now + HALF_LIFE * 100), ms(5));
    }

    #[test]
    fn the_window_has_bounds_whatever_the_round_trip_is() {
        let now = Instant::now();
        let mut lateness = Lateness::new(8);
        assert_eq!(lateness.window(Duration::ZERO, now), FLOOR);
        assert_eq!(lateness.window(Duration::from_secs(60), now), CEILING);
        lateness.note(Duration::from_secs(9), now);
        assert_eq!(lateness.window(Duration::ZERO, now), CEILING);
        assert_eq!(lateness.window(Duration::from_micros(200), now), FLOOR);
        assert_eq!(lateness.window(ms(30), now), ms(30));
    }
}
