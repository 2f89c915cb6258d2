//! Relays joined by virtual links in virtual time: what they do with frames, and what they report.

mod alternates;
mod bundles;
mod failover;
mod fec;
mod harness;
mod policies;
mod queues;
mod recovery;
mod redundancy;
mod reports;
mod spreading;
mod tracing;
