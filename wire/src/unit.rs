//! Units as they travel. In memory durations are [`Duration`]; conversions saturate, never wrap.

use std::fmt;
use std::time::Duration;

/// A span of time in microseconds, at most about 71 minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u32);

impl Micros {
    /// The greatest span.
    pub const MAX: Self = Self(u32::MAX);
}

impl From<Duration> for Micros {
    fn from(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX))
    }
}

impl From<Micros> for Duration {
    fn from(micros: Micros) -> Self {
        Self::from_micros(u64::from(micros.0))
    }
}

/// A span of time in milliseconds, at most about 65 seconds: a frame's remaining budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u16);

impl From<Duration> for Millis {
    fn from(duration: Duration) -> Self {
        Self(u16::try_from(duration.as_millis()).unwrap_or(u16::MAX))
    }
}

impl From<Millis> for Duration {
    fn from(millis: Millis) -> Self {
        Self::from_millis(u64::from(millis.0))
    }
}

/// A reading of one process's own monotonic clock, in microseconds since a point that only it knows.
/// Only differences of readings of the same clock mean time; see [`ClockDiff`] for the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(pub u64);

impl Ticks {
    /// This reading less `earlier`, of the same clock, zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// The receiver's clock less the sender's, in microseconds: a one-way delay plus the unknown difference
/// of the two clocks. Along any path these differences sum to one constant per pair of ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClockDiff(pub i64);

impl ClockDiff {
    /// What `received` (receiver's clock) less `sent` (sender's clock) is.
    pub fn between(sent: Ticks, received: Ticks) -> Self {
        Self(received.0.wrapping_sub(sent.0).cast_signed())
    }
}

/// A share of lost packets in parts per million, 0 to 1,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LossPpm(u32);

impl LossPpm {
    /// Everything is lost.
    pub const ALL: Self = Self(1_000_000);

    /// Makes a share, at most [`Self::ALL`].
    pub const fn new(ppm: u32) -> Self {
        if ppm > Self::ALL.0 { Self::ALL } else { Self(ppm) }
    }

    /// Parts per million.
    pub const fn ppm(self) -> u32 {
        self.0
    }
}

/// A share in thousandths; above 1,000 is overload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permille(pub u16);

/// A rate in bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitsPerSec(pub u64);

/// A price in thousandths of a cent per gigabyte (10^9 bytes), whatever the currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PricePerGb(pub u32);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}ms", self.0 / 1_000, self.0 % 1_000)
    }
}

impl fmt::Display for LossPpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04}%", self.0 / 10_000, self.0 % 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_beyond_the_range_saturate() {
        assert_eq!(Micros::from(Duration::from_secs(10_000)), Micros::MAX);
        assert_eq!(Millis::from(Duration::from_secs(100)), Millis(u16::MAX));
    }

    #[test]
    fn a_clock_difference_may_be_negative() {
        assert_eq!(ClockDiff::between(Ticks(1_000), Ticks(400)), ClockDiff(-600));
    }

    #[test]
    fn loss_never_exceeds_everything() {
        assert_eq!(LossPpm::new(2_000_000), LossPpm::ALL);
    }
}
