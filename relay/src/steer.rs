//! One port, several workers: which of them a datagram is for.
//!
//! The workers of a relay share each of its addresses: every one has a socket of its own on it (`SO_REUSEPORT`), and
//! a QUIC endpoint on that. All packets between two relays have the same addresses and ports, so it is the
//! connection id that says which worker a packet is for. Its first byte, modulo the number of workers, is the worker:
//!
//! ```text
//! long header     1xxx xxxx | version u32 | length u8 | destination id ...      byte 6
//! short header    0xxx xxxx | destination id ...                                byte 1
//! ```
//!
//! - Ids that an endpoint issues begin with its worker's number ([`ids`]).
//! - The first packets of a connection bear an id of the dialler's choice: it begins with the shard that the connection is
//!   for, which leads to the worker that runs this shard, of however many the one who is dialled has.
//! - A datagram without such a byte is for worker 0.
//!
//! The kernel steers by a small program on the sockets (`SO_ATTACH_REUSEPORT_CBPF`, [`program`]). It looks at the
//! first of the packets that a network card's receive offload has joined, whose ids may differ; and there are
//! kernels that do not take the program. So each socket looks again, and gives what is another worker's to that one
//! ([`socket`]): a datagram at the wrong endpoint would be answered with a reset that the neighbour believes, for all
//! workers have the same keys. What is nobody's may be the reset of a neighbour that was started anew: it bears no id, and
//! is shown to all workers, within a bound. Without the program all is well, but most datagrams cross a thread.

use std::io;
use std::net::UdpSocket;

pub(crate) mod ids;
mod program;
pub(crate) mod socket;

pub(crate) use socket::SteerStats;

/// Has the kernel steer by connection ids among the sockets of one address, of which this is one; the worker's number is
/// the order in which they were bound.
///
/// # Errors
/// The kernel does not take the program; sockets then get datagrams by a hash of their addresses.
pub(crate) fn attach(socket: &UdpSocket, workers: usize) -> io::Result<()> {
    program::attach(socket, workers)
}

/// The worker that a datagram is for.
fn worker_of(datagram: &[u8], workers: usize) -> usize {
    let at = match datagram.first() {
        Some(first) if first & program::LONG_HEADER != 0 => program::LONG_AT,
        Some(_) | None => program::SHORT_AT,
    };
    datagram.get(at).map_or(0, |&byte| usize::from(byte) % workers.max(1))
}
