//! Several cores side by side: one relay with several processors.
//!
//! A *shard* is a core of its own, with links, lanes, numbers and recovery of its own; shard `s` of a relay speaks
//! with shard `s` of its neighbours and with nobody else. A relay with `n` workers runs shard `s` on worker `s mod n`,
//! and a link has as many shards as the end with more workers: so each worker of either end has a shard of each
//! link, and what comes in on a worker goes out on it, however many the others have.
//!
//! ```text
//! relay with 2 workers          relay with 3           a link between them has 3 shards
//!   worker 0: shards 0, 2  ====   worker 0: shard 0
//!   worker 1: shard  1     ====   worker 1: shard 1
//!                          ====   worker 2: shard 2
//! ```
//!
//! Shard 0 is the *lead*. It holds every link and speaks for the relay: it applies updates and gives the table to the
//! others ([`Relay::handle_fib`]), and its reports tell of links as it sees them, with what the others say of load
//! added ([`Relay::handle_load`]). Other shards open links only where traffic goes. So a shard may lack a link, or not
//! have heard the neighbour there yet: that says nothing of the link, and the frame is *handed* to a shard that has it
//! ([`Relay::poll_handed`]). A frame is handed besides where the next link has other shards than the one on which it
//! came, or the flows of small relays would use few of a large one's workers:
//!
//! ```text
//! the next link lacks this shard, or has more than the last  --> by the flow's hash, one of the next link's shards
//!                                                                that run on this worker
//! this shard's link is not there, or was not heard yet       --> the lead
//! no path or detour that this shard knows                    --> the lead
//! ```
//!
//! The first keeps to the thread, and a frame on its way is so handed once: it stays there or goes to the lead, which
//! sends it or drops it.
//!
//! What is silent on a shard that had heard it is avoided there, as in a relay that is one core. A notice is told to
//! all shards. What the shards of a link send together keeps to its capacity ([`crate::SharedLines`]), and so do their
//! copies, of which each makes its part.
//!
//! What never happens: a frame handed on by the lead for want of a link; a link reported by two shards; a frame of a local
//! end counted as asked for by two.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use overway_wire::control::{DEMANDS_MAX, Demand};
use overway_wire::{Header, LinkId, NeighbourLink};

use crate::spread::next_share;
use crate::{LocalFrame, Relay};

/// Which of a relay's cores one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its number; 0 is the lead.
    pub index: u8,
    /// Workers of the relay, at least one.
    pub workers: u8,
}

/// The only one.
impl Default for Shard {
    fn default() -> Self {
        Self { index: 0, workers: 1 }
    }
}

/// What one shard gives to another.
#[derive(Clone, Debug)]
pub enum Handed {
    /// A local end's frame.
    Local(LocalFrame),
    /// A frame on its way.
    Frame(Header, Bytes),
    /// What a notice said to be down.
    Notice(LinkId),
}

/// For whom that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heir {
    /// A shard; and the link that this one lacks and should have, if that is why.
    Shard(u8, Option<NeighbourLink>),
    /// Every other shard.
    Others,
}

/// What a shard adds to the lead's reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// What local ends asked it to send.
    pub demands: Vec<Demand>,
    /// Bits received in a second, by link.
    pub received_bps: Vec<(NeighbourLink, u64)>,
    /// Times that it woke late.
    pub self_stalls: u64,
    /// Frames that took a detour.
    pub detours: u64,
}

impl Shard {
    /// Whether it speaks for the relay.
    pub fn is_lead(self) -> bool {
        self.index == 0
    }
}

impl Relay {
    /// Whether a frame over this link is handed to another shard: this one is not the lead, and has not heard the
    /// neighbour on it.
    pub(crate) fn is_lent(&self, link: NeighbourLink) -> bool {
        !self.config.shard.is_lead() && self.links.get(&link).is_none_or(|link| !link.is_proven())
    }

    /// How many shards a link has.
    fn shards(&self, link: NeighbourLink) -> u8 {
        self.fib.peers.get(&link).map_or(1, |peer| peer.shards(self.config.shard.workers))
    }

    /// The shard of this worker that carries a frame over its next link, if another than this one.
    fn next_shard(&self, header: &Header, link: NeighbourLink) -> Option<u8> {
        let Shard { index, workers } = self.config.shard;
        let (home, workers) = (index % workers.max(1), workers.max(1));
        let here = self.shards(link).saturating_sub(home).div_ceil(workers);
        let shard = home + workers * next_share(header, self.config.local, here);
        (here > 0 && shard != index).then_some(shard)
    }

    /// Hands a frame that came over a link on, if another shard is to carry it; gives it back otherwise.
    pub(crate) fn hand_along(
        &mut self,
        from: NeighbourLink,
        header: &Header,
        payload: Bytes,
    ) -> Option<Bytes> {
        if !self.has_shards {
            return Some(payload);
        }
        let to = next_link(header);
        let (last, next) = (self.shards(from), self.shards(to));
        let moves = next > last || next <= self.config.shard.index;
        match self.next_shard(header, to).filter(|_| moves) {
            Some(shard) => {
                self.push_handed(Heir::Shard(shard, None), Handed::Frame(*header, payload));
                None
            }
            None => Some(payload),
        }
    }

    /// Hands a frame to the lead, which has a link that this shard lacks.
    pub(crate) fn hand(&mut self, header: Header, payload: Bytes) {
        let heir = self.lead_instead(next_link(&header));
        self.push_handed(heir, Handed::Frame(header, payload));
    }

    /// Hands a local end's frame on, for want of its first link.
    pub(crate) fn hand_local(&mut self, frame: LocalFrame, header: &Header) {
        let link = next_link(header);
        let heir = match self.next_shard(header, link) {
            Some(shard) if self.shards(link) <= self.config.shard.index => Heir::Shard(shard, None),
            Some(_) | None => self.lead_instead(link),
        };
        self.push_handed(heir, Handed::Local(frame));
    }

    /// Hands a local end's frame to the lead, which may know a way.
    pub(crate) fn hand_to_lead(&mut self, frame: LocalFrame) {
        self.push_handed(Heir::Shard(0, None), Handed::Local(frame));
    }

    fn lead_instead(&self, link: NeighbourLink) -> Heir {
        let is_due = self.config.shard.index < self.shards(link);
        Heir::Shard(0, is_due.then_some(link))
    }

    fn push_handed(&mut self, heir: Heir, handed: Handed) {
        self.stats.handed += 1;
        self.handed.push_back((heir, handed));
    }

    /// Tells the other shards, if there are any, what a notice said to be down.
    pub(crate) fn pass_notice(&mut self, link: LinkId) {
        if self.has_shards {
            self.handed.push_back((Heir::Others, Handed::Notice(link)));
        }
    }

    /// What is to be handed to another shard, if anything, and to which.
    pub fn poll_handed(&mut self) -> Option<(Heir, Handed)> {
        self.handed.pop_front()
    }

    /// Takes what another shard of this relay handed on.
    pub fn handle_handed(&mut self, handed: Handed, now: Instant) {
        match handed {
            Handed::Local(frame) => self.handle_frame(frame, now),
            Handed::Frame(header, payload) => {
                if let Err(reason) = self.send(&header, payload, now) {
                    self.stats.drop(reason);
                }
            }
            Handed::Notice(link) => self.notices.note(link, self.config.notice_hold, now),
        }
    }

    /// What this shard adds to the lead's next reports.
    pub fn load(&mut self, now: Instant) -> Load {
        let received = self.links.iter().map(|(&key, link)| (key, link.probe.received_bps(now).0));
        Load {
            received_bps: received.filter(|&(_, bps)| bps > 0).collect(),
            demands: self.demands.list(now),
            self_stalls: self.stats.self_stalls,
            detours: self.stats.detours,
        }
    }

    /// Takes the word of another shard, in place of the one before.
    pub fn handle_load(&mut self, shard: u8, load: Load) {
        self.loads.insert(shard, load);
    }
}

fn next_link(header: &Header) -> NeighbourLink {
    let receiver = header.receiver();
    NeighbourLink::new(receiver.relay, receiver.link)
}

/// What all shards but the lead said last, by shard.
pub(crate) type Loads = BTreeMap<u8, Load>;

/// Bits per second that other shards receive on a link.
pub(crate) fn received_bps(loads: &Loads, link: NeighbourLink) -> u64 {
    let of = |load: &Load| load.received_bps.iter().find(|&&(key, _)| key == link).map(|of| of.1);
    loads.values().filter_map(of).sum()
}

/// The demands of all shards together, the greatest first, at most [`DEMANDS_MAX`].
pub(crate) fn sum_demands(lead: Vec<Demand>, loads: &Loads) -> Vec<Demand> {
    if loads.values().all(|load| load.demands.is_empty()) {
        return lead;
    }
    let mut sums: BTreeMap<_, u64> = BTreeMap::new();
    for demand in lead.iter().chain(loads.values().flat_map(|load| &load.demands)) {
        let Demand { destination, class, policy, bps } = *demand;
        *sums.entry((destination, class, policy)).or_default() += bps;
    }
    let demand = |((destination, class, policy), bps)| Demand { destination, class, policy, bps };
    let mut demands: Vec<Demand> = sums.into_iter().map(demand).collect();
    demands.sort_by_key(|demand| std::cmp::Reverse(demand.bps));
    demands.truncate(DEMANDS_MAX);
    demands
}
