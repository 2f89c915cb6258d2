//! End-to-end sessions over the fabric: QUIC whose packets travel as frames, and sealed datagrams beside it.
//!
//! ```text
//!   gateway        open_stream / accept                 open_flow / accept
//!                          |                                    |
//!   endpoint       one QUIC connection per (far relay, terms)   |  keys from the connection's TLS
//!                          |                                    |
//!   socket         synthetic address, order restored      flow: seal, fragments, replay window
//!                          |                                    |
//!   fabric         frames of kind Session               frames of kind Datagram
//! ```
//!
//! The [`Terms`] of a session are its class and its policy.
//!
//! A relay on the way sees addresses, classes and lengths, nothing else. Its death is a path change
//! underneath: QUIC sees loss at most, a flow loses what was on the way.
//!
//! - [`FabricPort`] is the seam to the relay: what a gateway's endpoint needs of it. [`EdgePort`] is that to an
//!   edge's attachments.
//! - A far end ([`FarEnd`]) is a relay's gateway, known by its certificate and its address, or an edge, known by its
//!   key and its tenant's token, wherever it is attached.
//! - The socket shows quinn one constant address per (far end, terms), numbers what it sends, and restores
//!   order in what arrives before quinn sees it.
//! - [`SessionEndpoint`] keeps a pool of connections, opened on demand and opened again when they die.
//! - A request names a service and is answered with ok or a reason; then the stream is the caller's, or the
//!   stream's lifetime is that of a [`Flow`] of datagrams.
//!
//! Tasks of a gateway's endpoint: one that flushes what the fabric did not take at once, one that accepts connections, one that
//! hails far ends that may have started anew, one that closes the sessions of those that have, per connection one that accepts its streams and ends with it and one that says and hears how long frames wait for order, per
//! request one that reads it within a time limit, one that looks at what streams feel like, per flow one that waits for its end. An edge's hails nobody and
//! watches for no new starts; it has one that counts changes of where it is, one that gives up idle names, one that answers
//! silent edges where frames of theirs come from, and per connection one that says and hears what changes. Closing the endpoint ends them all.

mod address;
mod candidates;
mod config;
mod congestion;
mod edge;
mod endpoint;
mod fabric;
mod far;
mod felt;
mod flow;
mod fragment;
mod hedge;
#[doc(hidden)]
pub mod hostile;
mod metrics;
mod names;
mod open;
mod order_delay;
mod pool;
mod reorder;
mod replay;
mod seal;
mod socket;
mod stats;
mod terms;
mod transport;
mod wanted;

pub use config::{SessionConfig, SessionError};
pub use edge::{EdgeIdentity, EdgePort};
pub use endpoint::SessionEndpoint;
pub use fabric::{FabricPort, FabricSender, Full, Inbound, Outbound};
pub use far::{FarEnd, Party, Peer};
pub use felt::{GivenUp, Measured};
pub use flow::{DATAGRAM_BYTES_MAX, Flow, FlowTerms, SendError};
pub use metrics::export;
pub use open::{
    Asked, Incoming, IncomingFlow, IncomingStream, OpenError, REASON_BYTES_MAX, SERVICE_BYTES_MAX,
    Stream,
};
pub use stats::Stats;
pub use terms::Terms;
pub use wanted::{ClientAddresses, TARGET_BYTES_MAX, Wanted};
