//! Which access relays a client should try: the nearest that has room, in an order of the client's own.
//!
//! ```text
//!   relays' words (AccessState, Distances) --> scheduler --> pushed items --> Mesh --+
//!                                                                                    |
//!   client: address, cell, what this relay has measured ---> distance of each -------+--> order --> Answer
//! ```
//!
//! [`Mesh`] is the pushed items, read. [`Mesh::answer`] finds each relay's [`Distance`] from the client and orders them:
//! [`order`] is the whole decision, a pure function. [`Networks`] is the table in which a relay keeps the round trips to
//! its edges' networks. [`Locations`] looks an address up in a file of the MaxMind format.
//!
//! Everything that answers, scheduler or relay, answers from the same items; only what a relay knows of itself is newer
//! there. Nothing here names a clock, a file or a socket.

mod answer;
mod distance;
mod locations;
mod mesh;
mod networks;
mod order;

pub use answer::{Answer, Asked, LIMIT_DEFAULT, LIMIT_MAX, Nearest, Why};
pub use distance::{Basis, Distance, kilometres, rtt_over};
pub use locations::{Locations, LocationsError};
pub use mesh::{AccessSide, Cell, Client, Load, Mesh};
pub use networks::Networks;
pub use order::{Candidate, FULL_PERMILLE, SPILL_PERMILLE, Standing, order};
