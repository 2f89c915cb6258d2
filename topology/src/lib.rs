//! The mesh as a graph, and which paths its traffic should take.
//!
//! ```text
//! reports -> Topology --fit offsets--> one-way delays --cost per class--> cheapest paths --hysteresis--> Plan
//! ```
//!
//! 1. [`Topology`] holds what is known: relays, and directed links with their latest measurements.
//!    Parallel links between two relays are links of their own.
//! 2. [`Delays`] turns raw one-way differences, which hold the unknown offsets between the relays'
//!    clocks, into one-way delays.
//! 3. [`LinkTerms`] prices each link for a class in microsecond equivalents. A path costs the sum of its
//!    links, so "cheapest" is exact.
//! 4. [`Planner`] finds for every ordered pair and class the cheapest path with at most two
//!    intermediates, keeps the one in use unless leaving it pays, and adds backups that share no
//!    relay with it.
//! 5. [`diff`] says what changed between two [`Plan`]s.
//!
//! Nothing here reads a clock, a socket or a random source: the same inputs give the same plan.
//! [`oracle`] computes shortest paths a second time, plainly, for those who check the mesh's choices.

mod cost;
mod executor;
mod explain;
mod graph;
pub mod oracle;
mod paths;
mod plan;
mod planner;
mod policy;
mod potentials;

pub use cost::{Cost, LinkTerms};
pub use executor::{Executor, Sequential};
pub use explain::{Cuts, Explained, ExplainedLink, Explanation, Miss, Verdict};
pub use graph::{
    LINKS_MAX, LinkMeasure, RELAYS_MAX, RelayAttributes, Topology, TopologyError, WindowSample,
};
pub use plan::{CANDIDATES_MAX, Candidate, Reason, RouteKey};
pub use planner::{Planner, PlannerConfig, Stats, Threshold, what_if};
pub use policy::{POLICIES_MAX, Policy};
pub use potentials::{Delays, LinkDelay};

#[cfg(test)]
mod reference;
