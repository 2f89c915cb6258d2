//! What a run is made of. Everything else is drawn from the seed.

use std::time::Duration;

use overway_probe::ProbeConfig;

/// A run's size and phases. The default is what every seed must pass.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Relays, all members from the start.
    pub relays: u16,
    /// Flows at any time.
    pub flows: u16,
    /// From nothing to a mesh at rest.
    pub warm_up: Duration,
    /// Failures of one transit relay with nothing else amiss, measured one by one.
    pub drills: u16,
    /// How long faults of every kind overlap.
    pub storm: Duration,
    /// Mean time between the beginnings of two faults of the storm.
    pub fault_spacing: Duration,
    /// After the storm: how long until every pair reaches one another and all relays are in step.
    pub reach_bound: Duration,
    /// After the storm: how long until the paths are within the hysteresis of the best. Longer, since the
    /// slow window forgets by a third in half a minute, and a path that was left waits before it is taken
    /// again.
    pub settle_bound: Duration,
    /// Timers of the probes.
    pub probe: ProbeConfig,
    /// What is made wrong on purpose.
    pub sabotage: Option<Sabotage>,
}

/// Something made wrong on purpose, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Ends have no replay window.
    NoReplayWindow,
    /// A relay is cut off for good, without being counted as a fault.
    LastingCut,
    /// Control connections carry nothing to one relay after the storm.
    DeafRelay,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            relays: 30,
            flows: 40,
            warm_up: Duration::from_secs(16),
            drills: 3,
            storm: Duration::from_secs(25),
            fault_spacing: Duration::from_millis(600),
            reach_bound: Duration::from_secs(45),
            settle_bound: Duration::from_secs(180),
            probe: ProbeConfig::default(),
            sabotage: None,
        }
    }
}
