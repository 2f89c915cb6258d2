//! What must hold at every moment, and what was found not to.
//!
//! A frame's way is checked by induction. Each relay is known to have received frames with certain
//! prefixes of their paths (the relays visited so far). A frame that it sends must continue one of these,
//! or be its own; so the path in a header tells the truth, and since no header's path names a relay twice,
//! no frame visits one twice. In the same way no frame of a tenant leaves its cell, for no relay sends it out of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use overway_relay_core::{DropReason, Fib, Relay};
use overway_wire::control::{Update, item};
use overway_wire::frame::HOP_LIMIT;
use overway_wire::hop::HopMessage;
use overway_wire::{
    AttachmentId, Class, Epoch, FrameKind, Header, LinkId, NeighbourLink, PathElement, PolicyId,
    RelayId,
};

use crate::cells::Cells;

/// Violations kept of a run; further ones tell nothing new.
pub(crate) const VIOLATIONS_MAX: usize = 20;
/// How long a relay may hold a frame: a second in its ring after a second in its queue.
const HOLD_MAX: Duration = Duration::from_secs(3);
/// Relays between a frame's ends by a pushed path.
const INTERMEDIATES_MAX: usize = 2;

/// Something that must not happen, happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Virtual time since the start.
    pub at: Duration,
    /// What, for people.
    pub what: String,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Watch {
    base: Instant,
    /// Whether an end may be gone from a relay to which frames are sent.
    ends_detach: bool,
    cells: Cells,
    /// Tenants of which it was noted already that their records, or paths, leave their cell.
    open: BTreeSet<(PolicyId, Leak)>,
    received: BTreeMap<RelayId, Generations>,
    violations: Vec<Violation>,
}

/// What of a tenant leaves its cell, besides frames. Of each the first is noted, lest it crowd out everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leak {
    Record,
    Path,
}

/// Prefixes received lately: of this generation and the one before.
#[derive(Debug)]
struct Generations {
    new: HashSet<u128>,
    old: HashSet<u128>,
    since: Instant,
}

impl Watch {
    pub(crate) fn new(base: Instant, ends_detach: bool, cells: Cells) -> Self {
        let (open, received) = (BTreeSet::new(), BTreeMap::new());
        Self { base, ends_detach, cells, open, received, violations: Vec::new() }
    }

    pub(crate) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub(crate) fn violate(&mut self, now: Instant, what: fmt::Arguments<'_>) {
        if self.violations.len() < VIOLATIONS_MAX {
            let at = now.saturating_duration_since(self.base);
            self.violations.push(Violation { at, what: what.to_string() });
        }
    }

    fn require(&mut self, holds: bool, now: Instant, what: fmt::Arguments<'_>) {
        if !holds {
            self.violate(now, what);
        }
    }

    /// A relay hands a hop message to a link.
    pub(crate) fn handle_sent(&mut self, link: LinkId, message: &[u8], now: Instant) {
        let Ok(message) = HopMessage::decode(message) else { return };
        let twin = matches!(message, HopMessage::Twin { .. });
        for (_, frame) in message.frames() {
            let Ok((header, _)) = Header::decode(frame) else {
                self.violate(now, format_args!("{link}: sent a frame that cannot be decoded"));
                continue;
            };
            self.check_sent(link, &header, now);
            let worth = header.class == Class::Realtime && !header.copy;
            self.require(
                !twin || worth,
                now,
                format_args!("{link}: a twin that should be none: {header:?}"),
            );
        }
    }

    pub(crate) fn check_sent(&mut self, link: LinkId, header: &Header, now: Instant) {
        let receiver = PathElement::new(link.to, link.index);
        let named = header.sender() == link.from && header.receiver() == receiver;
        self.require(named, now, format_args!("{link}: the path does not name it: {header:?}"));
        let counted = header.hops_left + header.position == HOP_LIMIT;
        self.require(counted, now, format_args!("{link}: hops are not counted: {header:?}"));
        let copyable = header.class != Class::Bulk && header.kind != FrameKind::Notice;
        self.require(
            !header.copy || copyable,
            now,
            format_args!("{link}: a copy that should be none: {header:?}"),
        );
        let allowed = self.cells.allowed(header.policy);
        let inside =
            allowed.is_none_or(|all| [link.from, link.to].iter().all(|relay| all.contains(relay)));
        self.require(inside, now, format_args!("{link}: a frame left its cell: {header:?}"));
        let visited = usize::from(header.position);
        let continues = match visited {
            0 => header.source.relay == link.from,
            _ => self.has_received(link.from, header, visited),
        };
        self.require(
            continues,
            now,
            format_args!("{link}: sent a frame that came no such way: {header:?}"),
        );
    }

    /// A relay read a frame.
    pub(crate) fn handle_received(&mut self, link: LinkId, header: &Header, now: Instant) {
        let empty = || Generations { new: HashSet::new(), old: HashSet::new(), since: now };
        let received = self.received.entry(link.to).or_insert_with(empty);
        if now.saturating_duration_since(received.since) >= HOLD_MAX {
            received.old = std::mem::take(&mut received.new);
            received.since = now;
        }
        received.new.insert(prefix(header, usize::from(header.position) + 1));
    }

    /// A relay's process ended: it holds no frames any more.
    pub(crate) fn handle_ended(&mut self, relay: RelayId) {
        self.received.remove(&relay);
    }

    fn has_received(&self, relay: RelayId, header: &Header, visited: usize) -> bool {
        let prefix = prefix(header, visited);
        let received = self.received.get(&relay);
        received.is_some_and(|received| {
            received.new.contains(&prefix) || received.old.contains(&prefix)
        })
    }

    /// A relay took an update, or refused it.
    pub(crate) fn handle_epoch(
        &mut self,
        relay: RelayId,
        (before, after): (Epoch, Epoch),
        applied: bool,
        now: Instant,
    ) {
        let holds = if applied { after > before } else { after == before };
        self.require(
            holds,
            now,
            format_args!("{relay}: went from epoch {before} to {after}, applied: {applied}"),
        );
    }

    /// A relay is pushed an update: it is told of no tenant's service that is none of its business.
    pub(crate) fn handle_update(&mut self, relay: RelayId, update: &Update, now: Instant) {
        for item in &update.put {
            let Some(item::Body::TenantService(service)) = &item.body else { continue };
            let tenant = PolicyId(u16::try_from(service.tenant).unwrap_or_default());
            let told = self.cells.allowed(tenant).is_none_or(|all| all.contains(&relay));
            if !told && self.open.insert((tenant, Leak::Record)) {
                let (name, tenant) = (&service.name, tenant.0);
                let what = format_args!(
                    "{relay}: is told of {name} of tenant {tenant}, whose cell it is not of"
                );
                self.violate(now, what);
            }
        }
    }

    /// A relay's table changed: its paths start with its own links, end where they should, and are no
    /// longer than they may be.
    pub(crate) fn handle_fib(&mut self, relay: RelayId, fib: &Fib, relays: u16, now: Instant) {
        let others = (1..=relays).map(RelayId).filter(|&other| other != relay);
        for (destination, class) in others.flat_map(|other| Class::ALL.map(|class| (other, class)))
        {
            for way in fib.paths(destination, class) {
                let first = way.path.first();
                let own = fib.peers.contains_key(&NeighbourLink::new(first.relay, first.link));
                let ends = way.path.last().relay == destination && !way.path.visits(relay);
                let short = way.path.intermediates().len() <= INTERMEDIATES_MAX;
                self.require(
                    own && ends && short,
                    now,
                    format_args!("{relay}: has the path {} to {destination}", way.path),
                );
            }
        }
        self.check_cells(relay, fib, relays, now);
    }

    /// The paths that a relay has for tenants in cells touch no relay outside of these.
    fn check_cells(&mut self, relay: RelayId, fib: &Fib, relays: u16, now: Instant) {
        let mut outside = Vec::new();
        for cell in self.cells.iter() {
            let ways = (1..=relays).map(RelayId).flat_map(|to| Class::ALL.map(|class| (to, class)));
            let ways = ways.flat_map(|(to, class)| fib.route(to, class, cell.tenant));
            let leaves = |step: &PathElement| !cell.allowed.1.contains(&step.relay);
            let ways = ways.filter(|way| way.path.elements().iter().any(leaves));
            outside.extend(ways.map(|way| (cell.tenant, way.path)).next());
        }
        for (tenant, path) in outside {
            if !self.open.insert((tenant, Leak::Path)) {
                continue;
            }
            let PolicyId(tenant) = tenant;
            let what =
                format_args!("{relay}: has the path {path} for tenant {tenant}, out of its cell");
            self.violate(now, what);
        }
    }

    /// A relay's counters, at the end of its process or of the run: what only a broken neighbour or a
    /// broken bound can cause has not happened.
    pub(crate) fn handle_counters(&mut self, core: &Relay, now: Instant) {
        for reason in DropReason::ALL {
            let count = core.stats().dropped(reason);
            let allowed = match reason {
                DropReason::BadMessage
                | DropReason::BadFrame
                | DropReason::WrongHop
                | DropReason::WrongLane
                | DropReason::HopLimit
                | DropReason::NoTransit
                | DropReason::QueueFull
                | DropReason::TooLong
                | DropReason::UnknownPolicy
                | DropReason::BadRepair
                | DropReason::BadNotice
                | DropReason::BadTrace => false,
                DropReason::NoAttachment => self.ends_detach,
                DropReason::PolicyForbids => !self.cells.is_empty(),
                DropReason::Expired
                | DropReason::NoPath
                | DropReason::QueueAge
                | DropReason::Duplicate
                | DropReason::Stale
                | DropReason::UnknownLink => true,
            };
            let relay = core.local();
            self.require(
                allowed || count == 0,
                now,
                format_args!("{relay}: dropped {count} as {}", reason.name()),
            );
        }
    }
}

/// A frame and the relays that it has visited, as one number.
fn prefix(header: &Header, visited: usize) -> u128 {
    let notice = header.source.attachment == AttachmentId::RELAY;
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    let mut eat = |number: u64| {
        hash = (hash ^ u128::from(number)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        hash ^= hash >> 61;
    };
    eat(u64::from(header.flow.0));
    eat(header.sequence);
    eat(u64::from(header.source.relay.0) << 1 | u64::from(notice));
    // Of others the destination may change on the way; flows tell them apart.
    eat(if notice { u64::from(header.destination.relay.0) } else { 0 });
    for element in header.path.elements().iter().take(visited) {
        eat(u64::from(element.relay.0) << 8 | u64::from(element.link.value()));
    }
    hash
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use super::*;
    use overway_wire::frame::FrameEcn;
    use overway_wire::{Address, FlowId, LinkIndex, Millis, Path};

    fn link(from: u16, to: u16) -> LinkId {
        LinkId::new(RelayId(from), RelayId(to), LinkIndex::default())
    }

    /// From 1 over 2 and 3 to 4, on its way to the relay at `position`.
    fn header(position: u8) -> Header {
        let step = |relay| PathElement::new(RelayId(relay), LinkIndex::default());
        let end = |relay| Address::new(RelayId(relay), AttachmentId::GATEWAY);
        Header {
            kind: FrameKind::Datagram,
            class: Class::Realtime,
            ecn: FrameEcn::Capable,
            copy: false,
            hops_left: HOP_LIMIT - position,
            position,
            policy: PolicyId::default(),
            source: end(1),
            destination: end(4),
            budget: Millis(1_000),
            flow: FlowId(7),
            sequence: 9,
            path: Path::new(&[step(2), step(3), step(4)]).unwrap(),
            alternate: None,
        }
    }

    fn found(act: impl FnOnce(&mut Watch, Instant)) -> usize {
        let now = Instant::now();
        let mut watch = Watch::new(now, false, Cells::default());
        watch.handle_received(link(1, 2), &header(0), now);
        act(&mut watch, now);
        watch.violations().len()
    }

    #[test]
    fn a_frame_that_follows_its_path_is_no_violation() {
        assert_eq!(found(|watch, now| watch.check_sent(link(1, 2), &header(0), now)), 0);
        assert_eq!(found(|watch, now| watch.check_sent(link(2, 3), &header(1), now)), 0);
    }

    #[test]
    fn a_frame_that_came_no_such_way_is_one() {
        assert_eq!(found(|watch, now| watch.check_sent(link(3, 4), &header(2), now)), 1);
        let other = Header { sequence: 10, ..header(1) };
        assert_eq!(found(|watch, now| watch.check_sent(link(2, 3), &other, now)), 1);
        let ended = |watch: &mut Watch, now| {
            watch.handle_ended(RelayId(2));
            watch.check_sent(link(2, 3), &header(1), now);
        };
        assert_eq!(found(ended), 1);
    }

    #[test]
    fn a_wrong_link_an_uncounted_hop_and_a_copy_of_bulk_are_violations() {
        assert_eq!(found(|watch, now| watch.check_sent(link(2, 4), &header(1), now)), 1);
        let uncounted = Header { hops_left: HOP_LIMIT, ..header(1) };
        assert_eq!(found(|watch, now| watch.check_sent(link(2, 3), &uncounted, now)), 1);
        let copied = Header { copy: true, class: Class::Bulk, ..header(1) };
        assert_eq!(found(|watch, now| watch.check_sent(link(2, 3), &copied, now)), 1);
    }

    #[test]
    fn a_tenants_frame_that_leaves_its_cell_is_a_violation_and_anybody_elses_is_none() {
        let places = crate::geography::places(40, &mut crate::rng::Rng::new(1));
        let cells = Cells::of(&places);
        let left = cells.roomy(0).unwrap().clone();
        let inside: Vec<RelayId> = left.own.1.iter().copied().collect();
        let outside = places.iter().find(|place| !left.own.1.contains(&place.id)).unwrap().id;
        let found = |policy, via: RelayId| {
            let now = Instant::now();
            let mut watch = Watch::new(now, false, cells.clone());
            let steps = [via, inside[1]].map(|relay| PathElement::new(relay, LinkIndex::default()));
            let source = Address::new(inside[0], AttachmentId::GATEWAY);
            let path = Path::new(&steps).unwrap();
            let header = Header { policy, source, path, ..header(0) };
            watch.check_sent(LinkId::new(inside[0], via, LinkIndex::default()), &header, now);
            watch.violations().len()
        };

        assert_eq!(found(left.tenant, inside[2]), 0);
        assert_eq!(found(left.tenant, outside), 1);
        assert_eq!(found(PolicyId::default(), outside), 0);
    }

    #[test]
    fn an_epoch_that_does_not_rise_is_a_violation() {
        let epoch = |term, sequence| Epoch { term, sequence };
        let went = |before, after, applied| {
            found(|watch, now| watch.handle_epoch(RelayId(1), (before, after), applied, now))
        };

        assert_eq!(went(epoch(1, 9), epoch(2, 1), true), 0);
        assert_eq!(went(epoch(2, 1), epoch(1, 9), true), 1);
        assert_eq!(went(epoch(2, 1), epoch(2, 1), true), 1);
        assert_eq!(went(epoch(2, 1), epoch(2, 2), false), 1);
    }
}
