//! What an operator or a simulator may set.

use std::time::Duration;

use overway_topology::PlannerConfig;

/// Times and limits of a [`crate::Scheduler`]. The default is for production.
#[derive(Clone, Debug)]
pub struct Config {
    /// Least time between two plans for measurements alone.
    pub epoch_interval: Duration,
    /// How long a link's going down or coming up waits for others of the same event, which a dead relay's
    /// neighbours report within a few milliseconds of one another.
    pub debounce: Duration,
    /// How long to wait for the rest of the mesh after the first hello, before the first plan.
    pub settle: Duration,
    /// How often relays are asked to report.
    pub report_interval: Duration,
    /// Silence after which a connected relay counts as unheard. Five reports: one lost is no news.
    pub report_stale: Duration,
    /// Time for an update to be acknowledged; then everything is sent again.
    pub ack_timeout: Duration,
    /// Absence after a goodbye that ends the registration: a restart or an upgrade is shorter.
    pub goodbye_absence: Duration,
    /// Costs and hysteresis.
    pub planner: PlannerConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            epoch_interval: Duration::from_secs(1),
            debounce: Duration::from_millis(10),
            settle: Duration::from_secs(3),
            report_interval: Duration::from_secs(1),
            report_stale: Duration::from_secs(5),
            ack_timeout: Duration::from_secs(5),
            goodbye_absence: Duration::from_secs(600),
            planner: PlannerConfig::default(),
        }
    }
}
