//! The way of a frame: from a local end or a neighbour, to a local end or a link's queue.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use overway_wire::frame::{ELEMENT_BYTES, FIXED_BYTES, FrameEcn, HOP_LIMIT, PAYLOAD_BYTES_MAX};
use overway_wire::hop::Lane;
use overway_wire::notice::Notice;
use overway_wire::{
    Address, AttachmentId, Class, FrameKind, Header, Millis, NeighbourLink, Path, Redundancy,
    RelayId,
};

use crate::alternate::Standing;
use crate::lane::encode;
use crate::link::Usability;
use crate::redundancy::is_marked;
use crate::spread::{draw, flow_hash};
use crate::{Delivered, DropReason, Event, FibPath, LocalFrame, Relay};

/// A budget without an end: it is not counted down.
pub(crate) const UNLIMITED: Millis = Millis(u16::MAX);

impl Relay {
    /// Takes a frame from a local end, chooses its path and sends it on its way.
    pub(crate) fn originate(&mut self, frame: LocalFrame, now: Instant) -> Result<(), DropReason> {
        if frame.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(DropReason::TooLong);
        }
        let source = Address::new(self.config.local, frame.source);
        let alternate = frame.alternate.filter(|other| other.relay != frame.destination.relay);
        let frame = LocalFrame { alternate, ..frame };
        let known = self.fib.knows(frame.policy);
        let (frame, chosen) = if known { self.choose_way(frame, now) } else { (frame, None) };
        if frame.destination.relay == self.config.local {
            self.stats.frames_originated += 1;
            if frame.kind == FrameKind::Trace {
                return Err(DropReason::BadTrace);
            }
            let (end, policy) = (frame.destination, frame.policy);
            let delivered = self.deliver_here(source, frame);
            if delivered == Err(DropReason::NoAttachment) {
                self.tell_unattached(source, end, policy, now);
            }
            return delivered;
        }
        match chosen {
            Some(way) if self.is_lent(first_link(&way)) => {
                let header = header(&frame, source, way.path);
                self.hand_local(frame, &header);
                return Ok(());
            }
            // A table that has just come is the lead's first.
            None if !self.config.shard.is_lead() => {
                self.hand_to_lead(frame);
                return Ok(());
            }
            Some(_) | None => {}
        }
        self.stats.alternates += u64::from(alternate == Some(frame.destination));
        self.stats.frames_originated += 1;
        if !known {
            return Err(DropReason::UnknownPolicy);
        }
        if !matches!(frame.kind, FrameKind::Trace | FrameKind::Notice) {
            self.count_demand(&frame, chosen.as_ref(), now);
        }
        let path = chosen.ok_or(DropReason::NoPath)?.path;
        let header = header(&frame, source, path);
        if frame.kind == FrameKind::Trace {
            let payload = self.begin_trace(&header, frame.payload, now)?;
            return self.send(&header, payload, now);
        }
        match frame.redundancy {
            Redundancy::Off | Redundancy::Adaptive => {}
            Redundancy::Always => self.double(&header, &frame.payload, now),
        }
        self.send(&header, frame.payload, now)
    }

    fn deliver_here(&mut self, source: Address, frame: LocalFrame) -> Result<(), DropReason> {
        if !self.is_attached(frame.destination.attachment) {
            return Err(DropReason::NoAttachment);
        }
        self.stats.frames_delivered += 1;
        self.push_event(Event::Deliver(Delivered {
            source,
            attachment: frame.destination.attachment,
            kind: frame.kind,
            class: frame.class,
            policy: frame.policy,
            ecn: FrameEcn::Capable,
            flow: frame.flow,
            sequence: frame.sequence,
            payload: frame.payload,
        }));
        Ok(())
    }

    /// Counts what a local end asks for, whether or not there is a path.
    fn count_demand(&mut self, frame: &LocalFrame, chosen: Option<&FibPath>, now: Instant) {
        let steps = chosen.map_or(1, |way| way.path.elements().len());
        let bytes = FIXED_BYTES + ELEMENT_BYTES * steps + frame.payload.len();
        // Under the policy whose routes it takes, for those are what the scheduler splits.
        let policy = self.fib.policy_to(frame.destination.relay, frame.class, frame.policy);
        let policy = policy.unwrap_or(frame.policy);
        let key = (frame.destination.relay, frame.class, policy);
        if !self.demands.count(key, bytes, now) {
            self.stats.demands_uncounted += 1;
        }
    }

    /// The path that a flow without a policy takes now to `destination` where its route has no weights: the
    /// best whose first link is not down and of which no notice says otherwise; failing that, the best
    /// whose first link is not down.
    pub fn choose(&self, destination: RelayId, class: Class, now: Instant) -> Option<FibPath> {
        let paths = self.fib.paths(destination, class);
        let clear = paths.iter().find(|path| self.is_open(path) && self.is_clear(path, now));
        clear.or_else(|| paths.iter().find(|path| self.is_open(path))).or(paths.first()).copied()
    }

    /// The path that a local end's frame takes now to an address, and how good it is: among the route's paths that
    /// [`Self::choose`] would take as well the one that the flow draws by their weights, or the best if none of them has
    /// one.
    pub(crate) fn choose_for(
        &self,
        frame: &LocalFrame,
        address: Address,
        now: Instant,
    ) -> Option<(Standing, FibPath)> {
        let paths = self.fib.route(address.relay, frame.class, frame.policy);
        let flow = flow_hash(frame.source, address, frame.flow);
        let usable = |path: &&FibPath| self.is_open(path) && self.is_clear(path, now);
        if let Some(drawn) = draw(paths.iter(), flow).filter(usable) {
            // Nearly always: what a flow draws among all, it draws among some.
            return Some((Standing::Clear, *drawn));
        }
        let as_good = |standing| move |path: &FibPath| (standing, *path);
        best(paths.iter().filter(usable), flow)
            .map(as_good(Standing::Clear))
            .or_else(|| {
                let open = best(paths.iter().filter(|path| self.is_open(path)), flow);
                open.map(as_good(Standing::Doubtful))
            })
            .or_else(|| best(paths.iter(), flow).map(as_good(Standing::Down)))
    }

    /// Whether a path's first link, or one beside it, is not down.
    pub(crate) fn is_open(&self, path: &FibPath) -> bool {
        let link = first_link(path);
        self.usability(link) != Usability::Down
            || self.parallel(link).is_some()
            || self.is_lent(link)
    }

    /// Whether no notice says that a link of the path is down.
    pub(crate) fn is_clear(&self, path: &FibPath, now: Instant) -> bool {
        !self.notices.condemn(self.config.local, &path.path, now)
    }

    /// Takes a frame from a neighbour; `recovered` says whether the line had lost it.
    pub(crate) fn receive(
        &mut self,
        link: NeighbourLink,
        lane: Lane,
        mut frame: Bytes,
        recovered: bool,
        now: Instant,
    ) -> Result<(), DropReason> {
        let (mut header, payload) = Header::decode(&frame).map_err(|_| DropReason::BadFrame)?;
        frame.advance(frame.len() - payload.len());
        let mut payload = frame;
        let notice = header.kind == FrameKind::Notice;
        if lane != if notice { Lane::Light } else { Lane::of(header.class) } {
            return Err(DropReason::WrongLane);
        }
        let receiver = header.receiver();
        let ours = receiver.relay == self.config.local && receiver.link == link.index;
        if !ours || header.sender() != link.neighbour || payload.len() > PAYLOAD_BYTES_MAX {
            return Err(DropReason::WrongHop);
        }
        self.spend(&mut header, link)?;
        if !notice {
            self.touch(link, now);
        }
        if header.kind == FrameKind::Trace {
            match self.follow_trace(link, &header, payload, recovered, now)? {
                Some(onward) => payload = onward,
                None => return Ok(()),
            }
        }
        if header.destination.relay == self.config.local {
            return self.arrive(link, &header, payload, now);
        }
        if !self.config.transit {
            return Err(DropReason::NoTransit);
        }
        header.position += 1;
        header.hops_left = header.hops_left.checked_sub(1).ok_or(DropReason::HopLimit)?;
        self.stats.frames_forwarded += 1;
        match self.hand_along(link, &header, payload) {
            Some(payload) => self.send(&header, payload, now),
            None => Ok(()),
        }
    }

    /// Takes the link's delay off the budget.
    fn spend(&self, header: &mut Header, link: NeighbourLink) -> Result<(), DropReason> {
        if header.budget == UNLIMITED {
            return Ok(());
        }
        let delay = self.links.get(&link).map_or(Duration::ZERO, |link| link.delay);
        let left = Duration::from(header.budget).checked_sub(delay);
        header.budget = left.ok_or(DropReason::Expired)?.into();
        Ok(())
    }

    fn arrive(
        &mut self,
        link: NeighbourLink,
        header: &Header,
        payload: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        if header.kind == FrameKind::Notice {
            return self.hear_notice(header, payload, now);
        }
        if self.is_attached(header.destination.attachment) {
            self.deliver(header, payload);
            return Ok(());
        }
        let passed = self.pass_on(link, header, payload, now);
        if passed == Err(DropReason::NoAttachment) {
            self.tell_unattached(header.source, header.destination, header.policy, now);
        }
        passed
    }

    /// Gives a frame to the local end that it is for.
    pub(crate) fn deliver(&mut self, header: &Header, payload: Bytes) {
        self.stats.frames_delivered += 1;
        self.push_event(Event::Deliver(Delivered {
            source: header.source,
            attachment: header.destination.attachment,
            kind: header.kind,
            class: header.class,
            policy: header.policy,
            ecn: header.ecn,
            flow: header.flow,
            sequence: header.sequence,
            payload,
        }));
    }

    /// Believes a notice if it is from the relay in front of the link that it is about, and hands on to a local end what
    /// the relay at which it sought another says of that.
    fn hear_notice(
        &mut self,
        header: &Header,
        payload: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        let notice = Notice::decode(&payload).map_err(|_| DropReason::BadNotice)?;
        let from = |relay| header.source == Address::new(relay, AttachmentId::RELAY);
        let ours = header.destination.attachment == AttachmentId::RELAY;
        match notice {
            Notice::Unreachable { link, .. } if ours && from(link.from) => {
                self.stats.notices_received += 1;
                self.notices.note(link, self.config.notice_hold, now);
                self.pass_notice(link);
                Ok(())
            }
            Notice::Unattached(end) if !ours && from(end.relay) => {
                if !self.is_attached(header.destination.attachment) {
                    return Err(DropReason::NoAttachment);
                }
                self.deliver(header, payload);
                Ok(())
            }
            Notice::Unreachable { .. } | Notice::Unattached(_) => Err(DropReason::BadNotice),
        }
    }

    /// Sends a frame to the relay at its position: over the link that the path names, a parallel one,
    /// or a detour, as the link's state demands.
    pub(crate) fn send(
        &mut self,
        header: &Header,
        payload: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        let receiver = header.receiver();
        let link = NeighbourLink::new(receiver.relay, receiver.link);
        let usability = self.usability(link);
        if usability == Usability::Up {
            return self.enqueue(header, payload, false, now);
        }
        if self.is_lent(link) {
            self.hand(*header, payload);
            return Ok(());
        }
        if let Some(parallel) = self.parallel(link) {
            // Whether the link or the neighbour fails is not known before the parallel link is due.
            let copied = usability == Usability::Suspect && self.copy(header, &payload, now);
            let path = header.path.with_link(usize::from(header.position), parallel.index);
            return self.enqueue(&Header { path, ..*header }, payload, copied, now);
        }
        match usability {
            Usability::Up => self.enqueue(header, payload, false, now),
            Usability::Suspect => {
                let copied = self.copy(header, &payload, now);
                self.enqueue(header, payload, copied, now)
            }
            Usability::Down => self.avoid(*header, payload, now),
        }
    }

    /// Puts a frame into the queue of its next link.
    pub(crate) fn enqueue(
        &mut self,
        header: &Header,
        payload: Bytes,
        copied: bool,
        now: Instant,
    ) -> Result<(), DropReason> {
        let receiver = header.receiver();
        let key = NeighbourLink::new(receiver.relay, receiver.link);
        if header.kind == FrameKind::Notice {
            self.push_light(key, encode(0, header, &payload));
            return Ok(());
        }
        self.touch(key, now);
        let link = self.links.get_mut(&key).ok_or(DropReason::UnknownLink)?;
        let state = link.lane_of(header.class);
        let lane = Lane::of(header.class);
        let is_marked = !state.is_empty();
        let pushed = state.push(header, payload, copied, now);
        if state.has_shed() {
            self.stats.drop_all(state.take_shed());
        }
        pushed?;
        let wanted = !state.open && !std::mem::replace(&mut state.wanted, true);
        if !is_marked {
            self.mark_queued((key, lane));
        }
        if wanted {
            self.push_event(Event::LaneWanted(key, lane));
        }
        Ok(())
    }
}

/// The header of a local end's frame at its source.
fn header(frame: &LocalFrame, source: Address, path: Path) -> Header {
    Header {
        kind: frame.kind,
        class: frame.class,
        ecn: FrameEcn::Capable,
        copy: is_marked(frame.redundancy, frame.class),
        hops_left: HOP_LIMIT,
        position: 0,
        policy: frame.policy,
        source,
        destination: frame.destination,
        budget: frame.budget,
        flow: frame.flow,
        sequence: frame.sequence,
        path,
        alternate: frame.alternate,
    }
}

fn first_link(path: &FibPath) -> NeighbourLink {
    let first = path.path.first();
    NeighbourLink::new(first.relay, first.link)
}

/// The path that a flow draws of these by their weights; the first if none has a weight.
fn best<'a>(
    mut paths: impl Iterator<Item = &'a FibPath> + Clone,
    flow: u64,
) -> Option<&'a FibPath> {
    draw(paths.clone(), flow).or_else(|| paths.next())
}
