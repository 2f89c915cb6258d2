//! The one source of chance: a seeded generator (SplitMix64; Steele, Lea and Flood, "Fast splittable
//! pseudorandom number generators", OOPSLA 2014).

use std::time::Duration;

const MILLION: u64 = 1_000_000;

/// A seeded generator. The same seed gives the same draws on every machine: nothing here is floating.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Makes a generator.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Makes another generator that draws independently, for a part whose number of draws may change
    /// without changing those of other parts.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    /// Any 64 bits.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.draw()) * u128::from(bound)) >> 64).unwrap_or(0)
    }

    /// True in `ppm` of a million cases.
    pub(crate) fn chance(&mut self, ppm: u64) -> bool {
        self.below(MILLION) < ppm
    }

    /// A number of `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A span of `low..=high`, in microseconds.
    pub(crate) fn span(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_micros(self.between(micros(low), micros(high)))
    }

    /// A span of `low..=high` of which every doubling is as likely as the next: many short, few long.
    pub(crate) fn scale(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (micros(low).max(1), micros(high).max(1));
        let octaves = u64::from((high / low).max(1).ilog2()) + 1;
        let start = low << self.below(octaves);
        Duration::from_micros(self.between(start, (start * 2).min(high)).min(high))
    }

    /// One of the items; `None` if there is none.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let at = self.below(items.len() as u64);
        items.get(usize::try_from(at).unwrap_or(0))
    }
}

/// A span in whole microseconds.
pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_published_sequence() {
        let mut rng = Rng::new(1_234_567);

        assert_eq!(rng.draw(), 6_457_827_717_110_365_317);
        assert_eq!(rng.draw(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn spans_stay_within_their_limits() {
        let mut rng = Rng::new(7);
        let (low, high) = (Duration::from_millis(20), Duration::from_secs(12));
        for _ in 0..1_000 {
            assert!((low..=high).contains(&rng.scale(low, high)));
            assert!((low..=high).contains(&rng.span(low, high)));
        }
    }
}
