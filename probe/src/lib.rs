//! How one relay knows a link to a neighbour: when to send heartbeats, whether each direction lives, and
//! how long, how steady and how lossy the direction towards it is.
//!
//! A [`LinkProbe`] is one end of one neighbour link. It holds no socket and reads no clock: its owner hands
//! it what arrived and the time, sends the heartbeats that it hands back, and wakes it when it asks.
//!
//! **Liveness**, per direction, after BFD (RFC 5880):
//!
//! ```text
//!            first sign of life            silent 1.5 intervals            silent 3 intervals
//!   Unknown --------------------> Up ------------------------> Suspect ----------------------> Down
//!                                 ^ ^------------------------------+                             |
//!                                 |       any sign of life                                       |
//!                                 +--------------------------------------------------------------+
//!                                   several signs of life, over at least one interval
//! ```
//!
//! - *Inbound*: any authenticated frame is a sign of life. The interval is the one which the neighbour says it
//!   uses; one that we asked for holds a round trip later, for the answer comes at once. A link on which traffic comes
//!   up, and whose neighbour was last heard of at a slower rate, is thus judged as fast as what it carries now needs.
//! - *Outbound*: only the neighbour knows. Its heartbeats say how long it has not heard us, and that is compared
//!   with the interval which we say we use. When its heartbeats cease we cannot know, and what is not known to
//!   arrive is treated as lost: a frame sent into the dark is worse than a needless detour.
//! - Both limits widen with measured jitter. A direction never heard stays `Unknown`; it is not `Down`, for
//!   nothing was lost.
//! - A process that woke late blames itself ([`LinkProbe::handle_stall`]): its own silence limits are moved by as
//!   much, what the neighbour then says about our silence is excused, and until the backlog is read what arrives is
//!   a sign of life and no measurement.
//!
//! **Heartbeats** leave strictly periodically, at the smaller of our own need and what the neighbour wants. Going
//! faster starts with a heartbeat at once. Going slower is announced first, several times at the old cadence,
//! so that the loss of one announcement does not look like silence. A change of inbound liveness is told at once
//! too, so that the other end learns of a one-way failure no later than by one flight.
//!
//! **Measures**, of the inbound direction, in two windows (1 s for leaving, 30 s for coming back): the raw
//! one-way difference of the two clocks, the round trip, the mean deviations of both, and loss with its number
//! of samples, from gaps in the numbers of heartbeats and frames. Averages weigh a sample by the time that it
//! stands for, so that links probed at different rates average over the same past, and clock differences sum
//! along a path to one constant for each pair of ends, drift included.
//!
//! A neighbour's clock may be anything, and may jump. A one-way difference a minute off the mean is not
//! averaged in, so that jitter never exceeds a minute; several such in a row that agree with one another are a clock
//! that was set, and the averages start over.
//!
//! What an outage swallowed is not loss: liveness has dealt with it. Loss is counted only while the neighbour is
//! heard, and counting starts afresh after *down* or after a stall of our own.

mod attachment;
mod clock;
mod config;
mod link;
mod liveness;
mod loss;
mod schedule;
mod stats;
mod window;

pub use attachment::{AttachmentProbe, attachment_config};
pub use clock::LocalClock;
pub use config::{ProbeConfig, Rate};
pub use link::{LinkProbe, Numbered, ProbeEvent};
pub use liveness::{Direction, State};
pub use stats::Stats;
pub use window::WindowStats;
