//! A relay without its sockets: what it knows, and what it does with a frame.
//!
//! The model. A relay holds *neighbour links*, each with a [`overway_probe::LinkProbe`] that says whether
//! the neighbour is up, suspect or down in each direction. It holds the *pushed state* of the last epoch
//! ([`pushed`]) and, made from it, an immutable [`Fib`]: for each destination, class and policy the paths,
//! the one in use first. It keeps nothing per flow.
//!
//! A frame comes from a local end or from a neighbour:
//!
//! ```text
//! local end --> choose path --+
//!                             v
//! neighbour --> check ----> next link: up ------> queue of (link, lane) --> ring --> transmit
//!               once |                                                        ^ asked for again
//!                 |                    suspect -> the same, and a copy over the best detour
//!                 v                    down ----> the detour alone; none: drop; tell the source
//!              deliver
//! ```
//!
//! What a link loses is asked for and sent again by the two relays at its ends ([`RecoveryStats`] counts it), while
//! frames behind it go on as they come. On long lines that lose much, realtime frames are sent twice at once, or followed
//! by repairs from which lost ones are computed ([`Fec`]). How much of
//! a flow goes more than once its owner says: the module `redundancy` has the modes.
//!
//! Where the scheduler gives a route's paths weights, its flows are spread over them by a hash, and a flow
//! whose path is down moves as it would without. A frame under a *policy* takes that policy's routes only,
//! and detours only over relays that the policy allows; a relay that does not know the policy sends none of
//! its own, and makes no detours for others. A *tenant*'s frames carry its number in the policy's place: they take the
//! routes of the policy that it was given, and wait in queues of its own.
//!
//! A lane's frames wait in queues by class and tenant until its connection takes them and its link and line have room: the
//! module `lane` has the model, and says which go first, which are marked and which dropped.
//!
//! A link that turns suspect or down gives what is not acknowledged of its *ring* (frames sent lately) to the detour.
//! A detour avoids the silent neighbour as a node and every relay that the frame has visited, so no
//! frame loops; a hop limit backs that up. A *notice* tells the source, which then chooses a whole
//! better path. An end may have two addresses, at two relays: where one of these does not answer, its frames go to the
//! other (the module `alternate` has the rules). None of this asks the scheduler.
//!
//! A relay with several processors is several such cores side by side, its *shards*: the module `shard` has the model.
//!
//! What never happens: a number of a neighbour's lane taken twice; a frame accepted from a neighbour that its path does
//! not name before us; a copy copied; an allocation that grows with flows; a route taken from anything but the scheduler's update
//! or, for seconds, a notice; a frame sent to a relay that its policy forbids, unless its source says so.

mod alternate;
mod attachments;
mod budget;
mod config;
mod demand;
mod drop_reason;
mod egress;
mod exchange;
mod failover;
mod fib;
mod forward;
mod lane;
mod lines;
mod link;
mod notices;
pub mod pushed;
mod recovery;
mod redundancy;
mod relay;
mod report;
mod ring;
mod shard;
mod spread;
mod stats;
mod timers;
mod trace;
mod writer;

pub use attachments::Attachments;
pub use config::{Config, Settings};
pub use drop_reason::DropReason;
pub use exchange::{Delivered, Event, LocalFrame, Traced, Transmit};
pub use fib::{CellStanding, Fib, FibDrain, FibEndpoint, FibPath, FibPolicy, FibTenant, PeerLink};
pub use lane::QueueStats;
pub use lane::shaper::SharedLines;
pub use link::PathMtu;
pub use recovery::{Fec, RecoveryStats};
pub use relay::{AHEAD, Relay};
pub use report::REPORT_INTERVAL_RANGE;
pub use shard::{Handed, Heir, Load, Shard};
pub use spread::flow_shard;
pub use stats::{Counts, Stats};
