//! The relay process: sockets, clocks and disks around [`overway_relay_core::Relay`].
//!
//! Two threads, so that nothing that an application or a scheduler does delays a heartbeat:
//!
//! | thread | runs | ends when |
//! | --- | --- | --- |
//! | mesh ([`mesh`]) | the core, one QUIC endpoint per address, a task per connection, the timer | its command channel closes |
//! | main runtime | control client ([`control`]), gateway, session endpoint, admin HTTP ([`admin`]), state writer | the shutdown token is cancelled |
//!
//! | channel | from, to | bound and policy |
//! | --- | --- | --- |
//! | commands | main to mesh | 64, the sender waits |
//! | local frames | session to mesh | [`local::QUEUE_FRAMES_MAX`] frames, the session waits |
//! | delivered frames | mesh to session | 1,024 batches, the newest is dropped and counted |
//! | reports | mesh to control | 8, the newest is dropped; the next full report mends it |
//! | table | mesh to main | a watch: the latest only |

pub mod admin;
mod config;
pub mod congestion;
pub mod control;
pub mod fault;
pub mod lines;
pub mod local;
pub mod mesh;
mod metrics;
mod run;
pub mod socket;
mod state;

pub use config::Config;
pub use run::run;
