//! When paths are left and taken.

use std::time::Duration;

use overway_wire::Micros;

use crate::Cost;

/// A difference of costs that counts: more than both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// More than this much.
    pub absolute: Micros,
    /// And more than this share of the greater cost.
    pub percent: u32,
}

impl Threshold {
    /// What does not cost less is not exceeded by `dear`.
    pub(super) fn limit(&self, dear: Cost) -> Cost {
        let share = u64::from(dear.0) * u64::from(self.percent) / 100;
        let most = share.max(self.absolute.0.into());
        Cost(dear.0.saturating_sub(u32::try_from(most).unwrap_or(u32::MAX)))
    }

    /// Whether `dear` exceeds `cheap` by more than the threshold.
    pub fn exceeded(&self, dear: Cost, cheap: Cost) -> bool {
        let difference = dear.0.saturating_sub(cheap.0);
        difference > self.absolute.0
            && u64::from(difference) * 100 > u64::from(dear.0) * u64::from(self.percent)
    }
}

/// When paths are left and taken. The default is for production.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannerConfig {
    /// By how much a path must be better. 1.5 ms is about what a clean path's delay wanders within a window, and
    /// no user feels 4 %; more would give away gain for calm that the hold time gives already (`bench
    /// stability`).
    pub gain: Threshold,
    /// By how much the path in use must have risen since it was last the best, for the hold time not to
    /// count. More than `gain`, since noise here would undo the hold.
    pub degraded: Threshold,
    /// How long a path that was left for loss, or failed, must be better without pause before it is taken again.
    /// Longer than loss comes and goes on a congested line, and long enough for the 30 s window to speak.
    pub return_hold: Duration,
    /// The same for a path that was left for delay alone, of which each packet tells. It doubles each time that
    /// the path is left again, up to [`Self::return_hold`].
    pub return_hold_delay: Duration,
    /// How long a path that was left is remembered. By then what it was left for is its normal state.
    pub return_memory: Duration,
    /// How long a link that failed must be usable before a best path takes it. A relay that comes back
    /// may go again; most that last ten seconds last.
    pub readmission_hold: Duration,
    /// Relays that a path may have between its ends: 1 or 2. A third helps 0.04 % of pairs.
    pub intermediates_max: u8,
    /// Whether backups are found too. Without them a failure waits for the next plan: for measuring what they
    /// cost.
    pub backups: bool,
    /// How long a new pair takes the best freely: the first measurements, of few packets each, need
    /// several rounds to settle, and no flow is old enough to mind.
    pub settle: Duration,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        Self {
            gain: Threshold { absolute: Micros(1_500), percent: 4 },
            degraded: Threshold { absolute: Micros(5_000), percent: 10 },
            return_hold: Duration::from_secs(20),
            return_hold_delay: Duration::from_secs(3),
            return_memory: Duration::from_secs(600),
            readmission_hold: Duration::from_secs(10),
            intermediates_max: 2,
            backups: true,
            settle: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_costs_less_than_the_limit_is_what_is_exceeded(
            dear in 0..200_000_u32,
            below in -2..3_i64,
            absolute in 0..5_000_u32,
            percent in 0..20_u32,
        ) {
            let threshold = Threshold { absolute: Micros(absolute), percent };
            let limit = threshold.limit(Cost(dear));
            // Near the limit, where it matters.
            let cheap = Cost(u32::try_from(i64::from(limit.0) - below).unwrap_or(0));
            prop_assert_eq!(threshold.exceeded(Cost(dear), cheap), cheap < limit);
        }
    }
}
