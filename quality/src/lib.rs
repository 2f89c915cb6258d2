//! What users feel, from one datagram to the whole mesh, without clocks and sockets.
//!
//! ```text
//!   end:        FlowMeter, StreamMeter --> Felt of each flow, every 10 s
//!   relay:      Fold: Felt of each (tenant, service, class)     ; the flows' own stay there
//!   scheduler:  Felt of each (tenant, service, region, class), over windows; quantiles
//! ```
//!
//! A [`Felt`] is counts and [`Sketch`]es, so that two of them merge into one without losing anything, in any order.
//! What goes up from a relay grows with its services, not with its users.
//!
//! - *Delay*: of datagrams one way, by the stamps in them: what a datagram took more than the fastest of late, on top of
//!   half of the least round trip, for the two ends' clocks are strangers. Of streams half of the round trip.
//! - *Lost*: a datagram's frame that was missing [`LOST_AFTER`] after a later one had come.
//! - *Gap*: the time between one datagram and the next less the sender's spacing.
//! - *Stall*: a stream's bytes were under way, and for [`STALL_MIN`] on top of a round trip nothing was acknowledged.
//! - *On time*: delivered within [`ON_TIME_MAX`].

mod felt;
mod flow;
mod fold;
mod sketch;
mod stream;

use std::time::Duration;

pub use felt::{Felt, FeltError};
pub use flow::FlowMeter;
pub use fold::{Fold, Key, OTHER, TENANT_SERVICES_MAX};
pub use sketch::{Sketch, SketchError};
pub use stream::{Progress, StreamMeter};

/// How often an end reports to its relay, and a relay to its scheduler.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The longest delay that most applications bear (ITU-T G.114: 400 ms one way is the limit for planning networks).
pub const ON_TIME_MAX: Duration = Duration::from_millis(400);
/// A gap is good up to here: what the mesh promises when a relay or link fails.
pub const GAP_GOOD_MAX: Duration = Duration::from_millis(60);
/// Realtime data that is a second late is worth nothing; its frames' budget is as long.
pub const LOST_AFTER: Duration = Duration::from_secs(1);
/// A stream has stalled when nothing was acknowledged for so long and a round trip: a frame that one hop recovers, and
/// the far end's delay of an acknowledgement, are no stall.
pub const STALL_MIN: Duration = Duration::from_millis(250);

/// Microseconds of a duration, as long as 71 minutes.
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
