//! The relay process: sockets, clocks and disks around [`overway_relay_core::Relay`].
//!
//! The mesh has threads of its own, so that nothing that an application or a scheduler does delays a heartbeat:
//!
//! | thread | runs | ends when |
//! | --- | --- | --- |
//! | workers ([`mesh`]) | shards of the core, a QUIC endpoint per address, a task per connection, timers | the command channel closes |
//! | main runtime | control client ([`control`]), gateway, session endpoint, admin HTTP ([`admin`]), state writer, reloads of the configuration | the shutdown token is cancelled |
//!
//! | channel | from, to | bound and policy |
//! | --- | --- | --- |
//! | commands | main to the first worker | 64, the sender waits |
//! | local frames | session to each worker | [`local::QUEUE_FRAMES_MAX`] frames, the session waits |
//! | mail | worker to worker | 4,096, the newest is dropped and counted |
//! | delivered frames | workers to session | 1,024 batches, the newest is dropped and counted |
//! | an edge's frames | workers to its attachment | [`delivery::EDGE_FRAMES_MAX`] frames, the newest is dropped and counted |
//! | what is heard of probes | workers to a trace | [`trace::HEARD_MAX`], the newest is dropped |
//! | reports | the first worker to control | 8, the newest is dropped; the next full report mends it |
//! | table | the first worker to the others and to main | a watch: the latest only |
//! | settings, what the scheduler is told | a reload of the configuration to the workers, to control | a watch each |

pub mod access;
pub mod admin;
pub mod check;
mod config;
pub mod congestion;
pub mod control;
mod datagrams;
pub mod delivery;
pub mod fault;
pub mod lines;
pub mod local;
pub mod mesh;
mod metrics;
pub mod quality;
mod reload;
mod run;
pub mod socket;
mod state;
mod steer;
pub mod trace;

pub use config::Config;
pub use metrics::sample as metrics_sample;
pub use run::run;
