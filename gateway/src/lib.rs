//! TCP and UDP port forwarding over sessions.
//!
//! ```text
//! client -- TCP/UDP --> forward === session over the mesh ===> service -- TCP/UDP --> target
//!                       [[forward]] of one relay               [[service]] of another
//! ```
//!
//! A **forward** listens. Each TCP connection it accepts becomes one session stream to a relay that offers
//! the forward's service; each UDP client, told apart by source address, becomes one sealed flow of
//! datagrams. The [`Resolver`] names the far ends, best first; if one cannot be opened before any byte was
//! sent, the next is tried.
//!
//! A **service** names a target. A gateway connects to the targets that its configuration lists and to
//! nothing else: a stream or flow that asks for any other name is refused, whoever asks.
//!
//! What never happens: a byte of a TCP connection is lost, repeated or reordered; an end or a reset on one
//! side is hidden from the other; a stream is opened again after bytes were sent on it. Datagrams may be
//! lost, and every loss in the gateway is counted.
//!
//! Limits: each forward and each service has a maximum of connections or clients at once, and whoever
//! comes beyond it is turned away. Those who have a place keep it: an attacker with many source addresses
//! can keep newcomers out, but cuts nobody off.
//!
//! Tasks: one per listening socket, one that accepts from the session endpoint, one per connection, one
//! per UDP client, one per served flow. [`Gateway::shutdown`] ends them all: first the listeners, then,
//! after a grace period for running connections, the rest.

mod clients;
mod config;
mod flow;
mod forward;
mod gateway;
mod hedge;
mod idle;
mod listener;
mod open;
mod proxy;
mod race;
mod rate;
mod service;
mod socket;
mod splice;
mod stats;
mod target;
mod udp;

pub use config::{
    ForwardConfig, GatewayConfig, Limits, Protocol, ProxyProtocol, RawForward, RawService,
    ServiceConfig,
};
pub use gateway::{BindError, Gateway, Listening};
pub use open::{Resolver, Resolving};
pub use overway_session::DATAGRAM_BYTES_MAX;
pub use stats::{DatagramDrop, Refusal, Stats};
pub use target::{Target, TargetError};
