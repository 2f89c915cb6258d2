//! The whole mesh from the cores, in virtual time, from one seed.
//!
//! Thirty relays (the relay's core, each with a clock of its own that drifts), a scheduler of which one
//! serves at a time, control connections that break, and a network of directed links that are cut, lose,
//! and slow down. A run goes through four phases:
//!
//! ```text
//! warm-up --> drills: single transit relays fail --> storm: faults of all kinds overlap --> rest
//! ```
//!
//! Safety is checked at every event ([`Violation`]): no frame visits a relay twice or crosses too many, none
//! is passed to a flow twice or to the wrong end, no relay goes back to an earlier epoch, no table holds a
//! loop, nothing is dropped for a reason that only a broken neighbour can give. In drills, where nothing
//! else is amiss, every flow's gap is held against the promise and no frame may be lost. After the storm
//! the mesh must come to rest within bounds: all links up, all relays in step with the scheduler, no
//! detour, every ordered pair reached, every path within the hysteresis of the exact optimum.
//!
//! Besides the default scenario there are one of forty relays that are too many to probe one another in full
//! ([`Scenario::bounded`]), one of the same on lines that a few flows fill ([`Scenario::narrow`]), in which demand
//! is split over paths, one whose storm is loss on every link and nothing else ([`Scenario::lossy`]), which the
//! hops recover, and one with tenants in cells ([`Scenario::in_cells`]): their frames and the records of their services
//! must not leave them, and go on inside a cell that is cut off.
//!
//! The same seed gives the same trace; a failing one is replayed with
//! `cargo run --release -p overway-sim -- --seed N --trace`.

mod cells;
mod drill;
mod fault;
mod figures;
mod geography;
mod network;
mod packet;
mod partition;
mod pipe;
mod process;
mod repaired;
mod rng;
mod run;
mod scenario;
mod site;
mod trace;
mod traffic;
mod watch;
mod world;

pub use figures::Figures;
pub use run::{Outcome, run};
pub use scenario::{Sabotage, Scenario};
pub use watch::Violation;
