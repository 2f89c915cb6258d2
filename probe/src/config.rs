//! Timers of a link probe.

use std::time::Duration;

/// How urgently a link's failure must be noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rate {
    /// The link carries flows.
    Active,
    /// The link is some flow's backup.
    Backup,
    /// The link is only measured.
    #[default]
    Idle,
}

/// Timers of a link probe; the default is what production uses. Intervals travel in whole milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// Heartbeat interval of a link that carries flows. 30 ms gives *suspect* at about 50 ms, which leaves the
    /// failover its promise of 60 ms; faster costs more and flaps on ordinary jitter.
    pub active: Duration,
    /// Heartbeat interval of a backup: its failure need only be known before it is needed.
    pub backup: Duration,
    /// Heartbeat interval of all other links.
    pub idle: Duration,
    /// Shortest interval that a neighbour can make us send at, or expect of it: a limit on its demands.
    pub interval_min: Duration,
    /// Longest interval that a neighbour can announce: a limit on how late its death is noticed.
    pub interval_max: Duration,
    /// Silence after which a direction is suspect, in hundredths of the interval. One heartbeat is missing for
    /// sure at 150.
    pub suspect_percent: u32,
    /// Silence after which a direction is down, in hundredths of the interval; never less than
    /// `suspect_percent`. 300 rides out a burst that swallows two heartbeats.
    pub down_percent: u32,
    /// Mean deviations by which *suspect* widens; *down* widens by twice as many. Four, as in RFC 6298.
    pub widen_deviations: u32,
    /// How long the answer of a neighbour that is asked to send oftener may take beyond the round trip.
    pub answer_grace: Duration,
    /// Signs of life that bring a direction up again from *down*.
    pub recovery_signs: u32,
    /// Time constant of the window for leaving a path.
    pub fast_window: Duration,
    /// Time constant of the window for coming back to one.
    pub slow_window: Duration,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            active: Duration::from_millis(30),
            backup: Duration::from_millis(200),
            idle: Duration::from_secs(1),
            interval_min: Duration::from_millis(10),
            interval_max: Duration::from_secs(15),
            suspect_percent: 150,
            down_percent: 300,
            widen_deviations: 4,
            answer_grace: Duration::ZERO,
            recovery_signs: 3,
            fast_window: Duration::from_secs(1),
            slow_window: Duration::from_secs(30),
        }
    }
}

impl ProbeConfig {
    /// The heartbeat interval of a rate.
    pub fn interval(&self, rate: Rate) -> Duration {
        match rate {
            Rate::Active => self.active,
            Rate::Backup => self.backup,
            Rate::Idle => self.idle,
        }
    }

    /// An interval said by the neighbour, brought within the limits.
    pub(crate) fn bounded(&self, said: Duration) -> Duration {
        said.min(self.interval_max).max(self.interval_min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_cannot_ask_for_absurd_intervals() {
        let config = ProbeConfig::default();

        assert_eq!(config.bounded(Duration::ZERO), Duration::from_millis(10));
        assert_eq!(config.bounded(Duration::from_secs(65)), Duration::from_secs(15));
        assert_eq!(config.bounded(config.active), config.active);
    }
}
