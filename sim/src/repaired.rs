//! What a relay may have computed from repairs: frames that never came, and yet are read.
//!
//! The world sees what each link is handed. When a repair reaches a relay, the frames of its block, as the neighbour
//! sent them first, are what the relay may read from then on; it may not read anything else that did not come.

use std::collections::{BTreeMap, VecDeque};

use overway_wire::hop::{HopMessage, Lane, Slots};
use overway_wire::{FrameKind, Header, LinkId, RelayId};

/// Frames of a lane that are remembered: many times those of the longest block.
const SENT_MAX: usize = 2_048;
/// Frames that a relay may have read from repairs: those of a hundred milliseconds and more, in which a block waits.
const READABLE_MAX: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Repaired {
    sent: BTreeMap<(LinkId, Lane), VecDeque<(u32, Header)>>,
    readable: BTreeMap<RelayId, VecDeque<Header>>,
}

impl Repaired {
    /// A relay hands a hop message to a link.
    pub(crate) fn handle_sent(&mut self, link: LinkId, message: &[u8]) {
        let Ok(message) = HopMessage::decode(message) else { return };
        for (number, frame) in message.frames() {
            let Ok((header, _)) = Header::decode(frame) else { continue };
            if header.kind != FrameKind::Notice {
                let sent = self.sent.entry((link, Lane::of(header.class))).or_default();
                push(sent, (number, header), SENT_MAX);
            }
        }
    }

    /// A repair reached the end of a link; returns what its block has.
    pub(crate) fn handle_repair(&mut self, link: LinkId, lane: Lane, slots: &Slots) -> Vec<Header> {
        let Some(sent) = self.sent.get(&(link, lane)) else { return Vec::new() };
        let block = sent.iter().filter(|(number, _)| slots.contains(*number));
        let block: Vec<Header> = block.map(|&(_, header)| header).collect();
        let readable = self.readable.entry(link.to).or_default();
        block.iter().for_each(|&header| push(readable, header, READABLE_MAX));
        block
    }

    /// A relay read a frame: it may deliver it much later, if that is how it comes to know that the frame goes no
    /// further.
    pub(crate) fn handle_read(&mut self, relay: RelayId, header: Header) {
        push(self.readable.entry(relay).or_default(), header, READABLE_MAX);
    }

    /// The newest frame that this relay may have read from repairs, or read before, and of which this holds.
    pub(crate) fn find(&self, relay: RelayId, is: impl Fn(&&Header) -> bool) -> Option<&Header> {
        self.readable.get(&relay)?.iter().rev().find(is)
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(item);
}
