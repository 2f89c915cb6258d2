//! A token bucket: how many bytes of copies a link may carry.

use std::time::Instant;

/// Copies may take a tenth of a detour's capacity, so that many flows whose link is suspect at once do
/// not drown the flows that are at home there.
const COPY_SHARE: u64 = 10;
/// A link of unknown capacity.
const CAPACITY_BPS_DEFAULT: u64 = 1_000_000_000;
/// How much unused share a link saves up: a burst of replayed frames is one round trip's worth.
const BURST_MS: u64 = 500;

/// The share of a link's capacity left for copies.
#[derive(Debug)]
pub(crate) struct CopyBudget {
    bytes_per_sec: u64,
    bytes: u64,
    at: Instant,
}

impl CopyBudget {
    /// A full budget for one of the shards of a link of this capacity, 0 if not known.
    pub(crate) fn new(capacity_bps: u64, shards: u8, now: Instant) -> Self {
        let capacity = if capacity_bps == 0 { CAPACITY_BPS_DEFAULT } else { capacity_bps };
        let bytes_per_sec = capacity / 8 / COPY_SHARE / u64::from(shards.max(1));
        Self { bytes_per_sec, bytes: Self::burst_bytes(bytes_per_sec), at: now }
    }

    fn burst_bytes(bytes_per_sec: u64) -> u64 {
        bytes_per_sec.saturating_mul(BURST_MS) / 1_000
    }

    /// Takes `bytes`, or refuses them.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> bool {
        self.take_above(0, bytes, now)
    }

    /// Takes `bytes` if half of what can be saved up is left after.
    pub(crate) fn take_spare(&mut self, bytes: usize, now: Instant) -> bool {
        self.take_above(Self::burst_bytes(self.bytes_per_sec) / 2, bytes, now)
    }

    fn take_above(&mut self, least: u64, bytes: usize, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_micros();
        let earned = u128::from(self.bytes_per_sec) * elapsed / 1_000_000;
        if earned > 0 {
            let burst = Self::burst_bytes(self.bytes_per_sec);
            self.bytes =
                self.bytes.saturating_add(u64::try_from(earned).unwrap_or(burst)).min(burst);
            self.at = now;
        }
        let left = self.bytes.checked_sub(bytes as u64).filter(|&left| left >= least);
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn copies_take_a_tenth_of_the_capacity_and_no_more() {
        let start = Instant::now();
        let mut budget = CopyBudget::new(8_000_000, 1, start);
        let mut taken = 0;

        for ms in 0..10_000 {
            while budget.take(1_000, start + Duration::from_millis(ms)) {
                taken += 1_000;
            }
        }

        assert!((1_000_000..=1_060_000).contains(&taken), "{taken} bytes in ten seconds");
    }

    #[test]
    fn half_of_what_is_saved_up_is_left_by_those_who_take_what_is_spare() {
        let now = Instant::now();
        let mut budget = CopyBudget::new(8_000_000, 1, now);
        let take =
            |budget: &mut CopyBudget| (0..).take_while(|_| budget.take_spare(1_000, now)).count();

        assert_eq!(take(&mut budget), 25);
        assert_eq!((0..).take_while(|_| budget.take(1_000, now)).count(), 25);
        assert_eq!(take(&mut budget), 0);
    }
}
