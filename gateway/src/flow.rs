//! Sending on a flow, which both sides of UDP do.

use overway_session::{Flow, SendError};

use crate::stats::{Counters, DatagramDrop};

/// Sends a datagram and counts what became of it. Whether the flow lives.
pub(crate) fn send(flow: &Flow, datagram: &[u8], counters: &Counters) -> bool {
    match flow.send(datagram) {
        Ok(()) => {
            counters.sent_to_mesh(datagram.len());
            true
        }
        Err(SendError::TooLong) => {
            counters.discard(DatagramDrop::Oversize, 1);
            true
        }
        Err(SendError::Closed) => {
            counters.discard(DatagramDrop::NoFlow, 1);
            false
        }
    }
}
