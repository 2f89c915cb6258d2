//! What is done about a silent neighbour, without asking anyone.

use std::ops::RangeInclusive;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use overway_wire::frame::{FrameEcn, HOP_LIMIT};
use overway_wire::hop::Lane;
use overway_wire::notice::Notice;
use overway_wire::{
    Address, AttachmentId, Class, FlowId, FrameKind, Header, LinkId, LinkIndex, Millis,
    NeighbourLink, Path, PathElement, PolicyId, Redundancy, RelayId,
};

use crate::alternate::Onward;
use crate::lane::Queued;
use crate::link::{Link, Usability};
use crate::redundancy::bytes_on_links;
use crate::ring::reread;
use crate::{DropReason, FibPath, LocalFrame, Relay};

impl Relay {
    /// Acts on a change of a link: a suspect's unacknowledged frames are copied, a dead one's moved.
    pub(crate) fn react(&mut self, key: NeighbourLink, now: Instant) {
        let Some(link) = self.links.get_mut(&key) else { return };
        let transition = link.transition();
        match link.usability() {
            Usability::Up => {
                self.silent_since.remove(&key);
            }
            Usability::Suspect | Usability::Down => {
                self.silent_since.entry(key).or_insert(now);
            }
        }
        match transition {
            None | Some((Usability::Suspect, Usability::Up)) => {}
            Some((Usability::Up | Usability::Suspect, Usability::Suspect)) => {
                self.stats.suspects += 1;
                self.copy_unacknowledged(key, now);
            }
            Some((_, Usability::Down)) => {
                self.stats.downs += 1;
                link.was_lost = true;
                if let Some(mut link) = self.links.remove(&key) {
                    self.abandon(&mut link, now);
                    self.links.insert(key, link);
                }
                self.reporter.urge(now);
            }
            Some((Usability::Down | Usability::Up, Usability::Up | Usability::Suspect)) => {
                if std::mem::take(&mut link.was_lost) {
                    // A neighbour that slept drops what it reads first.
                    self.notices.doubt(key.neighbour, self.config.notice_hold, now);
                }
                self.reporter.urge(now);
            }
        }
    }

    /// The link to use instead, if another link to the same neighbour is up and was heard since this one
    /// fell silent: else the neighbour itself may have gone, which a slowly probed link shows late.
    pub(crate) fn parallel(&self, key: NeighbourLink) -> Option<NeighbourLink> {
        let since = self.silent_since.get(&key).copied();
        let mut links = self.links.range(links_to(key.neighbour));
        let up = links.find(|&(&other, link)| {
            other != key && link.usability() == Usability::Up && link.heard >= since
        });
        up.map(|(&other, _)| other)
    }

    /// Notes that a flow's frame went or came over a link. Parallel links to the same neighbour are probed
    /// as fast, so that they do not pass for up long after the neighbour itself has gone.
    #[inline]
    pub(crate) fn touch(&mut self, key: NeighbourLink, now: Instant) {
        let touched = Touched { neighbour: key.neighbour, at: now };
        if self.touched[0] != Some(touched) && self.touched[1] != Some(touched) {
            self.touched = [Some(touched), self.touched[0]];
            self.touch_all(key, now);
        }
    }

    fn touch_all(&mut self, key: NeighbourLink, now: Instant) {
        let mut sooner = Vec::new();
        for (&link, state) in self.links.range_mut(links_to(key.neighbour)) {
            if state.touch(self.config.active_for, now) {
                sooner.push(link);
            }
        }
        for link in sooner {
            self.wake(link, now);
        }
    }

    /// Sends a second copy the best way on ([`crate::alternate`]), or over a parallel link where there is none, if the
    /// class is worth it and the way's share for copies allows; says whether it did. The way on comes first: the
    /// neighbour may have gone, with all its links.
    pub(crate) fn copy(&mut self, header: &Header, payload: &Bytes, now: Instant) -> bool {
        if header.copy || header.class == Class::Bulk || header.kind == FrameKind::Notice {
            return false;
        }
        let onward = self.onward(header, now).or_else(|| self.beside(header).map(Onward::Link));
        let Some(onward) = onward else { return false };
        self.stats.alternates += u64::from(onward.is_moved(header));
        let around = match onward {
            Onward::Link(around) => around,
            Onward::Here(_) => {
                let sent = self.go_on(onward, payload.clone(), now);
                return self.count(sent, |stats| &mut stats.copies);
            }
        };
        let first = around.receiver();
        let key = NeighbourLink::new(first.relay, first.link);
        let bytes = around.encoded_len() + payload.len();
        let within = self.links.get_mut(&key).is_some_and(|link| link.copies.take(bytes, now));
        if !within {
            self.stats.copies_over_budget += 1;
            return false;
        }
        let copy = Header { copy: true, ..around };
        let on_links = bytes_on_links(&copy, payload);
        let sent = self.enqueue(&copy, payload.clone(), false, now);
        self.stats.copy_bytes += if sent.is_ok() { on_links } else { 0 };
        self.count(sent, |stats| &mut stats.copies)
    }

    /// Sends a frame around its next link, which is down, or to its other address, and tells the source.
    pub(crate) fn avoid(
        &mut self,
        header: Header,
        payload: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        let onward = self.sure_onward(&header, now);
        if onward.is_none() && !self.config.shard.is_lead() {
            self.hand(header, payload);
            return Ok(());
        }
        self.tell_source(&header, onward.is_some(), now);
        let onward = onward.ok_or_else(|| self.why_no_detour(&header, now))?;
        self.go_on(onward, payload, now)?;
        self.stats.alternates += u64::from(onward.is_moved(&header));
        self.stats.detours += 1;
        Ok(())
    }

    /// What becomes of a frame whose next link is down. Only the lead knows that there is no better way: another shard
    /// may lack the link that leads there.
    fn sure_onward(&self, header: &Header, now: Instant) -> Option<Onward> {
        if self.config.shard.is_lead() {
            self.onward(header, now)
        } else {
            self.first_onward(header, now)
        }
    }

    /// The header for a parallel link to the same neighbour.
    fn beside(&self, header: &Header) -> Option<Header> {
        let receiver = header.receiver();
        let parallel = self.parallel(NeighbourLink::new(receiver.relay, receiver.link))?;
        let path = header.path.with_link(usize::from(header.position), parallel.index);
        Some(Header { path, ..*header })
    }

    /// The header for the best way around the relay at the frame's position: of the paths from here to
    /// the destination the first that is up and avoids that relay (unless it is the destination), every
    /// relay already visited, and every relay that the frame's policy forbids. Failing that, one that is put
    /// together of two. Last comes a path of which a notice says that it is broken further on: a notice holds
    /// for seconds, and what it is about may be back long before. Partners of the frame's cell come after all that.
    pub(crate) fn detour(&self, header: &Header, now: Instant) -> Option<Header> {
        let mut limits = self.fib.limits(header.policy);
        limits.find_map(|policy| self.detour_under(policy, header, now))
    }

    fn detour_under(&self, policy: PolicyId, header: &Header, now: Instant) -> Option<Header> {
        let around = Around::silent(header);
        let paths = self.fib.detours(header.destination.relay, header.class, policy);
        let open =
            |usability| paths.clone().filter(move |path| self.leads(path, &around, usability));
        let join = |path: &FibPath| around.join(&path.path, None);
        let clear = |path: &&FibPath| self.is_clear(path, now);
        let path = open(Usability::Up)
            .filter(clear)
            .find_map(join)
            .or_else(|| open(Usability::Suspect).filter(clear).find_map(join))
            .or_else(|| self.splice(policy, header, &around, now))
            .or_else(|| open(Usability::Up).find_map(join))?;
        Some(Header { path, ..*header })
    }

    /// Whether a path has a first link other than the silent one, good for this much, and leads around.
    fn leads(&self, path: &FibPath, around: &Around<'_>, usability: Usability) -> bool {
        let first = path.path.first();
        Some(first) != around.silent
            && around.spares(&path.path)
            && self.usability(NeighbourLink::new(first.relay, first.link)) == usability
    }

    /// A way around that is none of this relay's paths: the end of one that begins where the frame may not go,
    /// and a path from here to where that end begins. Where relays have few neighbours, the only other path of
    /// a relay in front often leads back to where the frame came from.
    pub(crate) fn splice(
        &self,
        policy: PolicyId,
        header: &Header,
        around: &Around<'_>,
        now: Instant,
    ) -> Option<Path> {
        let paths = |to| self.fib.allowed(to, header.class, policy);
        for path in paths(header.destination.relay) {
            let steps = path.path.elements();
            for at in (0..steps.len() - 1).rev() {
                let (middle, end) = (steps[at].relay, Path::new(&steps[at + 1..]).ok()?);
                if !around.spares(&end)
                    || !around.allows(middle)
                    || self.notices.condemn(middle, &end, now)
                {
                    continue;
                }
                let heads = paths(middle).filter(|head| {
                    self.leads(head, around, Usability::Up) && self.is_clear(head, now)
                });
                let mut ways = heads.filter_map(|head| around.join(&head.path, Some(&end)));
                if let Some(way) = ways.next() {
                    return Some(way);
                }
            }
        }
        None
    }

    /// Why a frame that cannot go on is dropped: for want of a detour, or of one that its policy allows.
    fn why_no_detour(&self, header: &Header, now: Instant) -> DropReason {
        let unrestricted = Header { policy: PolicyId::default(), ..*header };
        if header.policy != unrestricted.policy && self.detour(&unrestricted, now).is_some() {
            DropReason::PolicyForbids
        } else {
            DropReason::NoPath
        }
    }

    /// Copies over detours what a suspect neighbour has not acknowledged.
    fn copy_unacknowledged(&mut self, key: NeighbourLink, now: Instant) {
        let Some(mut link) = self.links.remove(&key) else { return };
        for lane in Lane::DATA {
            let Some(state) = link.lane(lane) else { continue };
            for entry in state.ring.young(now).filter(|entry| !entry.copied) {
                let Some((header, payload)) = reread(entry, now) else { continue };
                entry.copied = self.copy(&header, &payload, now);
                self.stats.replays += u64::from(entry.copied);
            }
            for queued in state.waiting().filter(|queued| !queued.copied) {
                queued.copied = self.copy(&queued.header, &queued.payload, now);
            }
        }
        self.links.insert(key, link);
    }

    /// Moves to detours what a dead neighbour has not acknowledged, and what still waited for it.
    pub(crate) fn abandon(&mut self, link: &mut Link, now: Instant) {
        for lane in Lane::DATA {
            let Some(state) = link.lane(lane) else { continue };
            let (ring, queue) = state.take_unacknowledged(now);
            for entry in ring.iter().filter(|entry| !entry.copied) {
                let Some((header, payload)) = reread(entry, now) else { continue };
                let sent = self.resend(header, payload, now);
                self.count(sent, |stats| &mut stats.replays);
            }
            let queue = queue.into_iter().filter(|queued| !queued.copied);
            for Queued { header, payload, .. } in queue {
                let sent = self.resend(header, payload, now);
                self.count(sent, |stats| &mut stats.detours);
            }
        }
    }

    fn resend(&mut self, header: Header, payload: Bytes, now: Instant) -> Result<(), DropReason> {
        let onward = self.beside(&header).map(Onward::Link);
        let onward = onward.or_else(|| self.sure_onward(&header, now));
        if onward.is_none() && !self.config.shard.is_lead() {
            self.hand(header, payload);
            return Ok(());
        }
        let onward = onward.ok_or_else(|| self.why_no_detour(&header, now))?;
        self.stats.alternates += u64::from(onward.is_moved(&header));
        self.go_on(onward, payload, now)
    }

    fn count(
        &mut self,
        sent: Result<(), DropReason>,
        counter: impl FnOnce(&mut crate::Stats) -> &mut u64,
    ) -> bool {
        match sent {
            Ok(()) => *counter(&mut self.stats) += 1,
            Err(reason) => self.stats.drop(reason),
        }
        sent.is_ok()
    }

    /// Tells an end that sent a frame that the end which the frame was for is not here, unless it was just told. Whoever
    /// sends to ends that there never were is told no faster than others need.
    pub(crate) fn tell_unattached(
        &mut self,
        source: Address,
        end: Address,
        policy: PolicyId,
        now: Instant,
    ) {
        if source.attachment <= AttachmentId::GATEWAY
            || !self.notices.should_tell_end((source, end), now)
        {
            return;
        }
        let mut payload = BytesMut::with_capacity(8);
        Notice::Unattached(end).encode(&mut payload);
        let notice = LocalFrame {
            source: AttachmentId::RELAY,
            destination: source,
            alternate: None,
            kind: FrameKind::Notice,
            class: Class::Interactive,
            policy,
            redundancy: Redundancy::Off,
            flow: FlowId::default(),
            sequence: 0,
            budget: Millis(u16::MAX),
            payload: payload.freeze(),
        };
        let sent = self.originate(notice, now);
        self.count(sent, |stats| &mut stats.notices_sent);
    }

    /// Tells a frame's source that its next link is down, unless it is this relay or was just told.
    fn tell_source(&mut self, header: &Header, detoured: bool, now: Instant) {
        let source = header.source.relay;
        let receiver = header.receiver();
        let link = LinkId::new(self.config.local, receiver.relay, receiver.link);
        let own = source == self.config.local || header.kind == FrameKind::Notice;
        if own || !self.notices.should_tell(source, link, now) {
            return;
        }
        let Some(way) = self.choose(source, Class::Realtime, now) else { return };
        let mut payload = BytesMut::with_capacity(8);
        Notice::Unreachable { link, detoured }.encode(&mut payload);
        let notice = Header {
            kind: FrameKind::Notice,
            class: Class::Realtime,
            ecn: FrameEcn::NotCapable,
            copy: false,
            hops_left: HOP_LIMIT,
            position: 0,
            policy: PolicyId::default(),
            source: Address::new(self.config.local, AttachmentId::RELAY),
            destination: Address::new(source, AttachmentId::RELAY),
            budget: Millis(u16::MAX),
            flow: FlowId::default(),
            sequence: 0,
            path: way.path,
            alternate: None,
        };
        let first = way.path.first();
        let sent = if self.is_lent(NeighbourLink::new(first.relay, first.link)) {
            self.hand(notice, payload.freeze());
            Ok(())
        } else {
            self.enqueue(&notice, payload.freeze(), false, now)
        };
        self.count(sent, |stats| &mut stats.notices_sent);
    }
}

/// A neighbour over whose links a flow's frame went or came at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touched {
    at: Instant,
    neighbour: RelayId,
}

/// What a frame's way on has to lead around.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    /// Steps that the frame has made already.
    visited: &'a [PathElement],
    source: RelayId,
    /// The next step, if that is what does not answer.
    silent: Option<PathElement>,
    destination: RelayId,
}

impl<'a> Around<'a> {
    /// The next relay, and where the frame has been.
    fn silent(header: &'a Header) -> Self {
        Self { silent: Some(header.receiver()), ..Self::seen(header) }
    }

    /// Where the frame has been.
    pub(crate) fn seen(header: &'a Header) -> Self {
        Self {
            visited: &header.path.elements()[..usize::from(header.position)],
            source: header.source.relay,
            silent: None,
            destination: header.destination.relay,
        }
    }

    /// Whether the frame may go to a relay: not to the silent one unless that is its end, and nowhere twice.
    fn allows(&self, relay: RelayId) -> bool {
        let silent = self.silent.is_some_and(|silent| silent.relay == relay);
        let seen = self.visited.iter().any(|before| before.relay == relay);
        (!silent || relay == self.destination) && !seen && relay != self.source
    }

    /// Whether it may go to every relay of a path.
    pub(crate) fn spares(&self, path: &Path) -> bool {
        path.elements().iter().all(|step| self.allows(step.relay))
    }

    /// The frame's whole path with what is ahead replaced; `None` if that names a relay twice or is too long.
    pub(crate) fn join(&self, way: &Path, end: Option<&Path>) -> Option<Path> {
        let end = end.map_or(&[][..], Path::elements);
        let steps = self.visited.iter().chain(way.elements()).chain(end);
        let steps: Vec<_> = steps.copied().collect();
        Path::new(&steps).ok()
    }
}

/// Every link to a neighbour.
pub(crate) fn links_to(neighbour: RelayId) -> RangeInclusive<NeighbourLink> {
    let link = |index| NeighbourLink::new(neighbour, index);
    link(LinkIndex::default())..=link(LinkIndex::MAX)
}
