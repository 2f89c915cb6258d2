//! The mesh as a graph, and which paths its traffic should take.
//!
//! ```text
//! reports -> Topology --fit offsets--> one-way delays --cost per class--> cheapest paths --hysteresis--> routes
//!                                                                                demands --placement--> shares
//! ```
//!
//! 1. [`Topology`] holds what is known: relays, and directed links with their latest measurements.
//!    Parallel links between two relays are links of their own.
//! 2. [`Delays`] turns raw one-way differences, which hold the unknown offsets between the relays'
//!    clocks, into one-way delays.
//! 3. [`LinkTerms`] prices each link for a class in microsecond equivalents. A path costs the sum of its
//!    links, so "cheapest" is exact.
//! 4. [`Planner`] finds for every ordered pair, class and policy the cheapest path with at most two
//!    intermediates, keeps the one in use unless leaving it pays, adds backups that share no relay or no
//!    provider with it, and says which routes changed and why each is what it is.
//! 5. [`place`] shares demands out over the candidates, so that no link or relay carries more than it can.
//!
//! Nothing here reads a clock, a socket or a random source: the same inputs give the same plan.
//! [`oracle`] computes shortest paths a second time, plainly, for those who check the mesh's choices.

mod candidate;
mod cost;
mod executor;
mod explain;
mod graph;
pub mod oracle;
mod placement;
mod planner;
mod policy;
mod potentials;

pub use candidate::{CANDIDATES_MAX, Candidate, Reason, RouteKey};
pub use cost::{Cost, LinkTerms};
pub use executor::{Executor, Sequential};
pub use explain::{Cuts, Explained, ExplainedLink, Explanation, Miss, Verdict};
pub use graph::{
    LINKS_MAX, LinkMeasure, RELAYS_MAX, RelayAttributes, Topology, TopologyError, WindowSample,
};
pub use placement::{
    Demand, OPTIONS_MAX, Overload, PathOption, Placement, Problem, Resource, place,
};
pub use planner::{Planner, PlannerConfig, Stats, Threshold};
pub use policy::{POLICIES_MAX, Policy};
pub use potentials::{Delays, LinkDelay};

#[cfg(test)]
mod reference;
