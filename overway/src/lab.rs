//! `overway lab`: a world-wide mesh on one machine, of real processes, to watch and to break.
//!
//! ```text
//! profile --> world: a scheduler and relays on loopback --> drills: flows and files under failures --> figures
//!             ^ verbs: cut, degrade, freeze, kill, restore       ^ the check, or the live view
//! ```
//!
//! 1. A [`profile::Profile`] says who is where and what lies between.
//! 2. A [`world::World`] is the running mesh, and the hands to disturb it. It needs no privileges: relays
//!    delay and lose what they receive by their own fault injection.
//! 3. [`flow::Flows`] and [`transfer::Fetch`] are an application's traffic, measured where it comes out.
//! 4. [`drills`] break things under that traffic and say what it felt, as [`figures::Figures`]; `cells` does so with the
//!    relays grouped into cells, a tenant in each.
//!
//! The first four are a library for other programs that measure; [`cli`] is the command on top.
//!
//! | thread | does | ends when |
//! | --- | --- | --- |
//! | main | the drills, one after the other | they are done, or Ctrl-C |
//! | lab-keeper | spawns children | the world is dropped |
//! | lab-servers | web server, verbs, signals | the world is dropped |
//! | lab-sink, lab-sender, lab-fetch | traffic | see [`flow`] and [`transfer`] |

mod admin;
mod cells;
pub mod check;
pub mod cli;
mod control;
pub mod drills;
pub mod figures;
pub mod flow;
pub mod host;
mod live;
mod ports;
mod process;
pub mod profile;
mod prometheus;
pub mod stage;
pub mod transfer;
pub mod world;

pub use admin::{LinkStatus, PathStatus, RelayStatus};
pub use process::Spawner;
