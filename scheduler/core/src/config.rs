//! What an operator or a simulator may set.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use overway_topology::{Executor, PlannerConfig, Sequential};

use crate::NeighbourConfig;

/// Times and limits of a [`crate::Scheduler`]. The default is for production.
#[derive(Clone)]
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
    /// Up to so many registered relays everybody probes everybody; above, each has a bounded set of
    /// neighbours. A thousand links at a heartbeat a second each are what a relay can well bear.
    pub full_mesh_max: usize,
    /// The bounded sets.
    pub neighbours: NeighbourConfig,
    /// Who runs the planner's work; the shell gives threads.
    pub executor: Arc<dyn Executor + Send + Sync>,
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
            full_mesh_max: 1_000,
            neighbours: NeighbourConfig::default(),
            executor: Arc::new(Sequential),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            epoch_interval,
            debounce,
            settle,
            report_interval,
            report_stale,
            ack_timeout,
            goodbye_absence,
            planner,
            full_mesh_max,
            neighbours,
            executor,
        } = self;
        f.debug_struct("Config")
            .field("epoch_interval", epoch_interval)
            .field("debounce", debounce)
            .field("settle", settle)
            .field("report_interval", report_interval)
            .field("report_stale", report_stale)
            .field("ack_timeout", ack_timeout)
            .field("goodbye_absence", goodbye_absence)
            .field("planner", planner)
            .field("full_mesh_max", full_mesh_max)
            .field("neighbours", neighbours)
            .field("threads", &executor.width())
            .finish()
    }
}
