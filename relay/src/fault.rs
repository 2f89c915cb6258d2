//! Fault injection: makes a socket behave as if its peers were far away, or the line between bad.
//!
//! The lab runs a world-wide mesh on one machine, and drills on a real mesh need faults on demand. Both
//! use [`FaultSocket`], a wrapper around the UDP socket of a QUIC endpoint. It needs no privileges and is
//! not there at all unless the configuration has a `[fault]` section.
//!
//! It acts on **receive** only: what a sender that was since frozen or killed had put on the line still
//! arrives, as in a real network. For every source address a [`Rule`] says, in this order:
//!
//! 1. *cut*: nothing arrives, not even what was on its way.
//! 2. *loss*: a share of the datagrams, in bursts of a mean length (Gilbert's two-state model, E. N.
//!    Gilbert 1960: in the bad state everything is lost, in the good one nothing).
//! 3. *rate*: a bottleneck that takes as long as the bytes of the datagram's payload need, behind a
//!    bounded queue that drops its tail.
//! 4. *delay* and *jitter*: a constant, and a uniform random part per datagram, up to `jitter`.
//!
//! **Order is kept** per source: a datagram leaves at the later of its own time and its predecessor's.
//! Real paths delay far more often than they reorder, because jitter is a queue's length, and QUIC takes
//! reordering for loss. On a dense flow the effective delay therefore lies near `delay + jitter`; on a
//! sparse one its mean is `delay + jitter / 2`.
//!
//! Decisions are drawn from a generator per source, seeded by the configuration's seed and the source's
//! address: the n-th datagram from a source meets the same loss and jitter whatever other sources do.
//!
//! Rules are held in a [`FaultTable`], shared by the sockets of a relay and changed at run time: those of the mesh, and
//! that of the control connection, which hears from the addresses of schedulers. Datagrams
//! from a source without a rule pass untouched. Nothing here starts a task: a socket's state lives behind
//! its own lock, which only the endpoint's driver takes, and ends with it.
//!
//! Bounds: [`RULES_MAX`] rules, and per source a number of bytes under way ([`QUEUE_BYTES_MAX`]), above which
//! the newest datagram is dropped and counted.

mod config;
mod queue;
mod random;
mod socket;
mod table;
mod timer;

pub use config::{FaultConfig, FaultConfigError, RawFault, RawRule};
pub use queue::{FaultStats, QUEUE_BYTES_MAX};
pub use socket::FaultSocket;
pub use table::{FaultTable, RULES_MAX, Rule, Rules, TooManyRules};
