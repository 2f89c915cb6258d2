//! Two probes joined by a virtual link, or one probe and a hostile neighbour.
#![expect(clippy::disallowed_methods, reason = "a base for virtual time")]

mod hostile;
mod liveness;
mod measures;
mod world;
