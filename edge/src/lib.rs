//! The sidecar: an end outside the mesh, for applications that speak TCP and UDP.
//!
//! ```text
//! application --TCP, UDP, SOCKS--> gateway -- overway_client::Edge ==two access relays==> mesh
//! application <------------------- gateway (services) <----------------------------------------/
//! ```
//!
//! It is a relay's gateway on top of sessions between edges instead of between relays. Who offers a service is asked of
//! an access relay, again every second while somebody uses it; what was known last counts while no relay answers.
//!
//! Tasks, all ending with the process's token: the client's (see `overway-client`), one that follows the token's and the
//! keys' files, one for each service that is checked, the gateway's, one for admin HTTP,
//! one that goes on with another configuration when it is asked to.

mod admin;
mod check;
mod config;
mod identity;
mod offers;
mod reload;
mod run;
mod services;

pub use admin::metrics_sample;
pub use config::{Check, Config, OfferConfig};
pub use run::run;
