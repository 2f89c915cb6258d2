//! A process's own clock: monotonic, with an origin and a rate that nobody else knows.

use std::time::Instant;

use overway_wire::Ticks;

const PPM: i64 = 1_000_000;

/// Maps `Instant`s to this process's [`Ticks`].
///
/// Production clocks start at a random offset and do not drift on purpose. The lab and the simulator set both,
/// so that nothing can lean on a shared clock unnoticed.
#[derive(Clone, Copy, Debug)]
pub struct LocalClock {
    origin: Instant,
    offset: Ticks,
    rate_ppm: i64,
}

impl LocalClock {
    /// Makes a clock that reads `offset` at `origin` and gains `drift_ppm` microseconds each second. It never
    /// runs backwards: a drift below minus one million stands still.
    pub fn new(origin: Instant, offset: Ticks, drift_ppm: i32) -> Self {
        Self { origin, offset, rate_ppm: (PPM + i64::from(drift_ppm)).max(0) }
    }

    /// The reading at `now`; before the origin it is the offset.
    pub fn read(&self, now: Instant) -> Ticks {
        let elapsed = now.saturating_duration_since(self.origin).as_nanos();
        let nanos_per_micro_at_rate = 1_000 * u128::from(PPM.unsigned_abs());
        let micros = elapsed.saturating_mul(u128::from(self.rate_ppm.unsigned_abs()))
            / nanos_per_micro_at_rate;
        Ticks(self.offset.0.saturating_add(u64::try_from(micros).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_gains_by_its_drift() {
        let origin = Instant::now();
        let clock = LocalClock::new(origin, Ticks(500), 20);

        assert_eq!(clock.read(origin), Ticks(500));
        assert_eq!(clock.read(origin + Duration::from_secs(10)), Ticks(10_000_700));
    }

    #[test]
    fn a_clock_saturates_and_never_runs_backwards() {
        let origin = Instant::now();
        let later = origin + Duration::from_secs(3_600);

        assert_eq!(LocalClock::new(origin, Ticks(u64::MAX - 1), 0).read(later), Ticks(u64::MAX));
        assert_eq!(LocalClock::new(origin, Ticks(7), i32::MIN).read(later), Ticks(7));
        assert_eq!(LocalClock::new(later, Ticks(7), 0).read(origin), Ticks(7));
    }
}
