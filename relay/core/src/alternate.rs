//! Where a frame goes when its destination does not answer: to the destination's other address.
//!
//! An end that is attached to two relays has two addresses, and its frames name both: the *destination* and the
//! *alternate*. The source may exchange the two. A relay on the way that finds that the first leads nowhere makes the
//! second the destination, and leaves none behind: a frame under way is readdressed once, so no two relays pass it to and
//! fro. What it has visited stays in its path.
//!
//! | who | finds | does |
//! | --- | --- | --- |
//! | the source | no path to the destination is as good as one to the alternate | sends it there |
//! | | a notice, or its own links, say that the destination's relay does not answer, and nothing as fresh speaks against the alternate's | sends it there if that path is as good |
//! | the relay in front | the destination's relay is suspect | the frame goes on, a copy to the alternate |
//! | | the destination's relay is down, and no parallel link up | sends it to the alternate |
//! | a relay on the way | its neighbour is suspect or down, and no detour leads to the destination | the same |
//! | the destination's relay | the end is not attached (any more) | sends it on to the alternate |
//!
//! Where the destination's own relay is silent, a detour ends at a relay that may have gone: it is a guess, and comes
//! after the alternate. Where another relay is, a detour leads to an address that is in use, and comes first. A relay that
//! the alternate names is where the frame arrives.

use std::time::Instant;

use bytes::Bytes;
use overway_wire::{Address, AttachmentId, Header, NeighbourLink, Path, PolicyId, RelayId};

use crate::failover::{Around, links_to};
use crate::link::Usability;
use crate::{DropReason, FibPath, LocalFrame, Relay};

/// What becomes of a frame that cannot go where it should.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Onward {
    /// It goes to the next relay of this header's path.
    Link(Header),
    /// It has arrived: its destination is here.
    Here(Header),
}

/// How good the path is that a local end's frame would take to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// There is none.
    Missing,
    /// Its first link is down.
    Down,
    /// A notice says that a link further on is down.
    Doubtful,
    /// Nothing is known against it; or the end is here.
    Clear,
}

/// What speaks against a relay as the place where an end is reached. Of two the later word counts, since the earlier
/// may be over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Doubt {
    /// All links that this relay has to it are down.
    is_silent: bool,
    /// Until when a notice about a link to it holds, or the memory of such a link's return.
    until: Option<Instant>,
}

impl Relay {
    /// An end has attached: frames for it are delivered from now on.
    pub fn handle_attached(&mut self, attachment: AttachmentId) {
        self.config.attachments.insert(attachment);
    }

    /// An end is gone: frames for it go to its other address, or are dropped.
    pub fn handle_detached(&mut self, attachment: AttachmentId) {
        self.config.attachments.remove(attachment);
    }

    pub(crate) fn is_attached(&self, attachment: AttachmentId) -> bool {
        self.config.attachments.contains(attachment)
    }

    /// The path that a local end's frame takes, and the frame as it takes it: to its destination, or to the other
    /// address if a better path leads there.
    pub(crate) fn choose_way(
        &self,
        frame: LocalFrame,
        now: Instant,
    ) -> (LocalFrame, Option<FibPath>) {
        let first = self.standing(&frame, frame.destination, now);
        let Some(alternate) = frame.alternate else { return (frame, first.1) };
        let doubt = self.doubt(frame.destination.relay, now);
        if first.0 == Standing::Clear && doubt == Doubt::default() {
            return (frame, first.1);
        }
        let second = self.standing(&frame, alternate, now);
        let rather = second.0 > Standing::Missing && doubt > self.doubt(alternate.relay, now);
        let moves = second.0 > first.0 || second.0 == first.0 && rather;
        if !moves {
            return (frame, first.1);
        }
        let first = Some(frame.destination);
        (LocalFrame { destination: alternate, alternate: first, ..frame }, second.1)
    }

    fn standing(
        &self,
        frame: &LocalFrame,
        address: Address,
        now: Instant,
    ) -> (Standing, Option<FibPath>) {
        if address.relay == self.config.local {
            let here = self.is_attached(address.attachment);
            return (if here { Standing::Clear } else { Standing::Missing }, None);
        }
        match self.choose_for(frame, address, now) {
            Some((standing, path)) => (standing, Some(path)),
            None => (Standing::Missing, None),
        }
    }

    fn doubt(&self, relay: RelayId, now: Instant) -> Doubt {
        let is_down = |link| !self.is_lent(link) && self.usability(link) == Usability::Down;
        let mut own = self.fib.peers.range(links_to(relay)).map(|(&link, _)| link).peekable();
        let is_silent = own.peek().is_some() && own.all(is_down);
        Doubt { is_silent, until: self.notices.doubted_until(relay, now) }
    }

    /// What becomes of a frame whose next relay is silent, by preference.
    pub(crate) fn onward(&self, header: &Header, now: Instant) -> Option<Onward> {
        self.first_onward(header, now).or_else(|| {
            if ends_next(header) {
                self.around_it(header, now)
            } else {
                self.to_alternate(header, now)
            }
        })
    }

    /// The better of the two ways on, and none if there is only the other.
    pub(crate) fn first_onward(&self, header: &Header, now: Instant) -> Option<Onward> {
        if ends_next(header) { self.to_alternate(header, now) } else { self.around_it(header, now) }
    }

    fn around_it(&self, header: &Header, now: Instant) -> Option<Onward> {
        self.detour(header, now).map(Onward::Link)
    }

    fn to_alternate(&self, header: &Header, now: Instant) -> Option<Onward> {
        let moved = readdressed(header)?;
        let Address { relay, attachment } = moved.destination;
        if relay == self.config.local {
            return self.is_attached(attachment).then_some(Onward::Here(moved));
        }
        self.detour(&moved, now).map(Onward::Link)
    }

    /// Sends a frame the way that was found for it.
    pub(crate) fn go_on(
        &mut self,
        onward: Onward,
        payload: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        match onward {
            Onward::Link(header) => self.enqueue(&header, payload, false, now),
            Onward::Here(header) => {
                self.deliver(&header, payload);
                Ok(())
            }
        }
    }

    /// Sends a frame whose end is not attached here on to its other address.
    pub(crate) fn pass_on(
        &mut self,
        from: NeighbourLink,
        header: &Header,
        payload: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        let moved = readdressed(header).ok_or(DropReason::NoAttachment)?;
        let position = moved.position + 1;
        let hops_left = moved.hops_left.checked_sub(1).ok_or(DropReason::HopLimit)?;
        let moved = Header { position, hops_left, ..moved };
        let path = self.way_from_here(&moved, now).ok_or(DropReason::NoPath)?;
        self.stats.alternates += 1;
        self.stats.frames_forwarded += 1;
        let header = Header { path, ..moved };
        match self.hand_along(from, &header, payload) {
            Some(payload) => self.send(&header, payload, now),
            None => Ok(()),
        }
    }

    /// The path of a frame that goes on from here to its destination, with what it has visited.
    fn way_from_here(&self, header: &Header, now: Instant) -> Option<Path> {
        let mut limits = self.fib.limits(header.policy);
        limits.find_map(|policy| self.way_under(policy, header, now))
    }

    fn way_under(&self, policy: PolicyId, header: &Header, now: Instant) -> Option<Path> {
        let around = Around::seen(header);
        let ways = self.fib.detours(header.destination.relay, header.class, policy);
        let ways = ways.filter(|way| around.spares(&way.path));
        let first = |is_good: &dyn Fn(&FibPath) -> bool| {
            let mut good = ways.clone().filter(|way| is_good(way));
            good.find_map(|way| around.join(&way.path, None))
        };
        first(&|way| self.is_open(way) && self.is_clear(way, now))
            .or_else(|| self.splice(policy, header, &around, now))
            .or_else(|| first(&|way| self.is_open(way)))
            .or_else(|| first(&|_| true))
    }
}

impl Onward {
    /// Whether the frame goes to another address than it did.
    pub(crate) fn is_moved(&self, from: &Header) -> bool {
        let (Self::Link(to) | Self::Here(to)) = self;
        to.destination != from.destination
    }
}

/// Whether the next relay is the destination's.
fn ends_next(header: &Header) -> bool {
    header.alternate.is_some() && header.receiver().relay == header.destination.relay
}

/// The frame for its other address, if it has one; its path is still the one to the first.
fn readdressed(header: &Header) -> Option<Header> {
    header.alternate.map(|destination| Header { destination, alternate: None, ..*header })
}
