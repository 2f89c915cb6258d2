//! TCP and UDP port forwarding and SOCKS5 over sessions.
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
//! A **SOCKS listener** is a forward whose clients say for each connection or datagram which service it is for
//! (RFC 1928).
//!
//! A **service** names a target, or is an *exit* with a list of them, of which the opener chooses. A gateway
//! connects to the targets that its configuration lists and to nothing else: a stream or flow that asks for
//! any other is refused, whoever asks.
//!
//! What clients' addresses are is told to the far gateway, and to targets that want to know it (PROXY
//! protocol). A forward behind proxies takes their word, and nobody else's.
//!
//! What never happens: a byte of a TCP connection is lost, repeated or reordered; an end or a reset on one
//! side is hidden from the other; a stream is opened again after bytes were sent on it. Datagrams may be
//! lost, and every loss in the gateway is counted.
//!
//! A gateway can be reloaded: listeners and services come, go and change while the others carry on ([`Gateway::reload`]).
//!
//! Limits: each listener and each service has a maximum of connections or clients at once, a listener also
//! of newcomers in a second, and whoever comes beyond it is turned away. Those who have a place keep it: an attacker with many source addresses
//! can keep newcomers out, but cuts nobody off.
//!
//! Tasks: one per listening socket, one that accepts from the session endpoint, one per connection, one
//! per SOCKS association and one for each of its destinations, one per UDP client, one per served flow. [`Gateway::shutdown`] ends them all: first the listeners, then,
//! after a grace period for running connections, the rest.

mod clients;
mod config;
mod destinations;
mod flow;
mod forward;
mod gateway;
#[doc(hidden)]
pub mod hostile;
mod idle;
mod listener;
mod metrics;
mod open;
mod places;
mod port;
mod proxy;
mod race;
mod rate;
mod service;
mod socket;
mod socks;
mod splice;
mod stats;
mod target;
mod udp;

pub use config::{
    ForwardConfig, GatewayConfig, Limits, Password, Protocol, ProxyProtocol, RawForward,
    RawService, RawSocks, ServiceConfig, SocksConfig, SocksExit, SocksUser,
};
pub use destinations::{Destination, DestinationError, Destinations};
pub use gateway::{BindError, Gateway, Listening};
pub use metrics::export;
pub use open::{Resolver, Resolving};
pub use overway_session::DATAGRAM_BYTES_MAX;
pub use socks::PasswordError;
pub use stats::{DatagramDrop, Refusal, Stats};
pub use target::{ServiceTarget, Target, TargetError};
