//! The scheduler without IO: relays register and report, the mesh's routes come out.
//!
//! ```text
//!   Hello   --> registration --> neighbours: which links exist ----+
//!   Report  --> checked      --> links: usable or not, windows ----+--> topology --> planner --> placement
//!   Goodbye --> draining: paths leave the relay first -------------+                   |
//!                                                                                      v
//!   Update  <-- delta from the acknowledged revision <-- pushed state of each relay <-- epoch
//! ```
//!
//! A **member** is a relay that the store knows. It is **registered** once it said hello: its addresses
//! are known, and it has links with its **neighbours**, which in a small mesh are all registered relays and in a
//! large one some that the scheduler chooses. It is **connected** while it has a
//! session. Losing the session changes nothing by itself: the relay's links live on its neighbours'
//! reports. Only removal, or a goodbye followed by a long absence, ends a registration.
//!
//! The scheduler is **settling** after its start, and whenever it hears no relay at all, for then it is
//! the scheduler that is cut off. While settling it takes hellos and reports and pushes nothing, so that
//! a half-known mesh never replaces a whole one. It settles when every member is connected and has
//! reported, or after a fixed time.
//!
//! Then it **plans**: once per epoch interval if anything changed, and at once, after a short debounce,
//! when a link went down or came up. A plan that changes some relay's pushed state makes an **epoch**.
//! Each relay has at most one update in flight; the next one holds what changed since the revision which
//! the relay acknowledged, or everything if that revision is not known.
//!
//! Relays also report what their own ends ask them to send. After each plan the greatest **demands** are placed on the
//! candidates of their routes, within what the relays' lines can carry; where the first path is not enough, the
//! route's **weights** split its traffic. What has to carry more than it can is **overloaded**, and is planned for at once.
//!
//! Relays say what edges **offer** there; of that the scheduler makes tenants' **services**, which every relay is pushed. So is
//! where clients may **attach**, how full each such relay is, and which networks it is near.
//!
//! What users feel relays have **folded** by service; here it is merged by service, region and class, within bounds
//! that do not know how many users there are.
//!
//! Operators may have a relay or a link **drained**, override whether a relay carries others' traffic, and limit paths
//! by **policies**, each with routes of its own.
//!
//! Work and memory follow what changes, not the size of the mesh: a link is judged when something about it changed,
//! a relay's state is kept as eight bytes for each key that it has not acknowledged, and its items are made
//! when they are sent. A mesh has up to [`MESH_RELAYS_MAX`] relays.
//!
//! A scheduler whose store is older than the mesh hears of it from relays that have a later epoch. It may then go on
//! with a greater **term**, as if started anew with the members that it knows.
//!
//! What never happens: a report that is refused moves a route; a link without measurements carries one;
//! two updates to one relay carry the same epoch.

mod access;
mod config;
mod doubts;
mod error;
mod event;
mod links;
mod neighbours;
mod operator;
mod overloads;
mod plan;
mod push;
mod quality;
mod registration;
mod report;
mod scheduler;
mod services;
mod session;
mod stats;
mod status;
mod usage;
mod weights;

pub use config::Config;
pub use error::{HelloError, MessageError, OperatorError, ReportError};
pub use event::{DrainStage, Event};
pub use neighbours::NeighbourConfig;
pub use operator::{DRAINS_MAX, Drain, Drainable, POLICY_TERMS_MAX, TENANTS_MAX};
pub use quality::{QUALITY_WINDOW_MAX, QualityKey, QualityStatus};
pub use registration::{ADDRESSES_MAX, MESH_RELAYS_MAX, NAME_BYTES_MAX, SERVICES_MAX};
pub use scheduler::Scheduler;
pub use stats::{Absurd, ReportsRefused, Stats};
pub use status::{
    DrainStatus, Improvement, LineStatus, LinkCounts, LinkLoad, LinkStatus, OverloadStatus,
    Overview, PolicyStatus, RelayGlance, RelayStatus, RouteExplanation, RouteStatus, RouteSummary,
    Status, TenantSummary,
};
pub use usage::{RelayUsage, TenantUsage};
