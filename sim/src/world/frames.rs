//! The traffic of a world.

use std::ops::Range;
use std::time::Duration;

use overway_relay_core::Delivered;
use overway_wire::{Address, AttachmentId, BootId, Class, FlowId, Path, PolicyId, RelayId};

use super::{Happening, World};
use crate::process::Process;
use crate::scenario::Sabotage;
use crate::site::Site;
use crate::traffic::{Delivery, Ends, Flow};

/// Ends at each relay: its gateway, and attached edges.
const ATTACHMENTS: u16 = 3;
/// Those of an end that is attached to two relays, at the one and at the other.
const TWICE: [AttachmentId; 2] = [AttachmentId(4), AttachmentId(5)];
/// How long such an end takes to attach anew to a relay whose process was started anew.
const ATTACH_TIME: Duration = Duration::from_millis(400);
/// Of 100 flows, those of each class.
const REALTIME_PERCENT: u64 = 50;
const INTERACTIVE_PERCENT: u64 = 30;
/// The pace of voice.
pub(crate) const PERIOD: Duration = Duration::from_millis(20);

impl World {
    /// Opens the flows, each between two relays of its own choice.
    pub(crate) fn open_flows(&mut self) {
        for slot in 0..usize::from(self.scenario.flows) {
            let relays = u64::from(self.scenario.relays);
            let (from, to, policy) = self.draw_relays(slot);
            let end = |relay: u64, attachment: u64| {
                let relay = u16::try_from(relay + 1).expect("relays have ids of 16 bits");
                let attachment = u16::try_from(attachment + 1).expect("attachments are few");
                Address::new(RelayId(relay), AttachmentId(attachment))
            };
            let source = end(from, self.chance.below(ATTACHMENTS.into()));
            let ends = if self.scenario.attached_twice {
                let other = (from + 1..from + relays).map(|relay| relay % relays);
                let others: Vec<u64> = other.filter(|&relay| relay != to).collect();
                let other = self.chance.pick(&others).copied();
                let at = |relay, address: AttachmentId| end(relay, u64::from(address.0) - 1);
                let [first, second] = TWICE;
                let alternate = other.map(|relay| at(relay, second));
                Ends { source, destination: at(to, first), alternate }
            } else {
                let destination = end(to, self.chance.below(ATTACHMENTS.into()));
                Ends { source, destination, alternate: None }
            };
            let draw = self.chance.below(100);
            let class = if draw < REALTIME_PERCENT {
                Class::Realtime
            } else if draw < REALTIME_PERCENT + INTERACTIVE_PERCENT {
                Class::Interactive
            } else {
                Class::Bulk
            };
            self.slots.push(0);
            self.open_flow(slot, ends, (class, policy));
            let phase = self.chance.span(Duration::ZERO, PERIOD);
            self.schedule(phase, Happening::Frame(slot));
        }
    }

    /// Two relays, numbered from 0, and the tenant whose flow goes from the one to the other.
    fn draw_relays(&mut self, slot: usize) -> (u64, u64, PolicyId) {
        let relays = u64::from(self.scenario.relays);
        let cell = (slot % 3).checked_sub(1).and_then(|at| self.cells.roomy(at));
        let Some(cell) = cell else {
            let from = self.chance.below(relays);
            let to = (from + 1 + self.chance.below(relays - 1)) % relays;
            return (from, to, PolicyId::default());
        };
        // Now and then to a partner's relay.
        let ends = if slot.is_multiple_of(4) { &cell.allowed.1 } else { &cell.own.1 };
        let own: Vec<RelayId> = cell.own.1.iter().copied().collect();
        let (tenant, mut ends) = (cell.tenant, Vec::from_iter(ends.iter().copied()));
        let from = self.chance.pick(&own).copied().expect("a roomy cell has relays");
        ends.retain(|&relay| relay != from);
        let to = self.chance.pick(&ends).copied().expect("a roomy cell has others");
        (u64::from(from.0) - 1, u64::from(to.0) - 1, tenant)
    }

    /// Edges attach to a relay's new process.
    pub(super) fn attach_ends(&mut self, relay: RelayId, boot: BootId, first: bool) {
        let attach = |process: &mut Process, edges: &mut dyn Iterator<Item = AttachmentId>| {
            edges.for_each(|edge| process.core.handle_attached(edge));
        };
        let process = self.sites.get_mut(&relay).and_then(|site| site.process.as_mut());
        let Some(process) = process.filter(|process| process.boot == boot) else { return };
        attach(process, &mut (2..=ATTACHMENTS).map(AttachmentId));
        if first {
            attach(process, &mut TWICE.into_iter());
        } else if self.scenario.attached_twice {
            self.schedule(ATTACH_TIME, Happening::Attach(relay, boot));
        }
    }

    fn open_flow(&mut self, slot: usize, ends: Ends, (class, policy): (Class, PolicyId)) {
        let boot = |relay| {
            let process = self.sites.get(&relay).and_then(|site| site.process.as_ref());
            process.map(|process| process.boot).unwrap_or_default()
        };
        let boots = (boot(ends.source.relay), boot(ends.destination.relay));
        // From 1, for notices have the number 0.
        let id = FlowId(u32::try_from(self.flows.len() + 1).expect("flows are few"));
        self.slots[slot] = self.flows.len();
        let modes = self.scenario.redundancy;
        let redundancy = modes[self.flows.len() % modes.len()];
        let pace = (PERIOD, self.scenario.frame_bytes);
        let mut flow = Flow::new(id, ends, (class, policy, redundancy), pace, boots);
        flow.tells_alternate = self.scenario.sabotage != Some(Sabotage::NoAlternate);
        self.flows.push(flow);
    }

    /// A slot's time has come: its flow sends, or another takes its place.
    pub(super) fn send_frame(&mut self, slot: usize) {
        let flow = &self.flows[self.slots[slot]];
        let (ends, kind) = (flow.ends, (flow.class, flow.policy));
        let (boots, period) = (flow.boots, flow.period);
        let boot = |relay: RelayId| {
            let site = self.sites.get(&relay)?;
            site.process.as_ref().map(|process| process.boot)
        };
        let (from, to) = (boot(ends.source.relay), boot(ends.destination.relay));
        // An end that is attached twice outlives its relays' processes.
        let to = if ends.alternate.is_some() { Some(boots.1) } else { to };
        if let (Some(from), Some(to)) = (from, to)
            && (from, to) != boots
        {
            self.open_flow(slot, ends, kind);
        }
        let at = self.slots[slot];
        let source = self.sites.get(&ends.source.relay);
        if source.is_some_and(Site::is_awake) && from == Some(self.flows[at].boots.0) {
            self.send_of(at);
        }
        self.schedule(period, Happening::Frame(slot));
    }

    fn send_of(&mut self, at: usize) {
        let frame = self.flows[at].frame();
        self.figures.frames_sent += 1;
        let source = self.flows[at].ends.source.relay;
        self.with_process(source, |process, out, now| process.handle_frame(frame, now, out));
    }

    /// Opens a flow for one frame between every ordered pair, and sends it; returns the flows' places.
    pub(crate) fn try_pairs(&mut self) -> Range<usize> {
        let ids: Vec<RelayId> = self.sites.keys().copied().collect();
        let pairs = ids.iter().flat_map(|&from| ids.iter().map(move |&to| (from, to)));
        let tried = self.try_of(PolicyId::default(), pairs.collect());
        self.figures.pairs_tried += tried.len() as u64;
        tried
    }

    /// Opens a flow of a tenant for one frame between each of these pairs, and sends it; returns the flows' places. A
    /// relay sends none to itself.
    pub(crate) fn try_of(
        &mut self,
        policy: PolicyId,
        pairs: Vec<(RelayId, RelayId)>,
    ) -> Range<usize> {
        let first = self.flows.len();
        self.slots.push(0);
        let slot = self.slots.len() - 1;
        for (from, to) in pairs.into_iter().filter(|(from, to)| from != to) {
            let end = |relay| Address::new(relay, AttachmentId::GATEWAY);
            let ends = Ends { source: end(from), destination: end(to), alternate: None };
            self.open_flow(slot, ends, (Class::Realtime, policy));
            self.send_of(self.flows.len() - 1);
        }
        self.slots.pop();
        first..self.flows.len()
    }

    /// A frame for a local end of a relay.
    pub(super) fn deliver(&mut self, at: RelayId, frame: &Delivered, path: Option<Path>) {
        let now = self.now;
        let place = usize::try_from(frame.flow.0).ok().and_then(|flow| flow.checked_sub(1));
        let flow = place.and_then(|place| self.flows.get_mut(place));
        let boot = self.sites.get(&at).and_then(|site| site.process.as_ref()).map(|p| p.boot);
        let Some((flow, path)) = flow.zip(path) else {
            return self.watch.violate(now, format_args!("{at}: a frame of no flow: {frame:?}"));
        };
        if !flow.owns(at, frame) {
            return self
                .watch
                .violate(now, format_args!("{at}: a frame that was not sent there: {frame:?}"));
        }
        if flow.ends.alternate.is_none() && boot != Some(flow.boots.1) {
            // To an end of an earlier process, whose session nobody knows any more.
            return;
        }
        let new = flow.window.take(frame.sequence);
        if !new && self.scenario.sabotage != Some(Sabotage::NoReplayWindow) {
            self.figures.duplicates_filtered += 1;
            return;
        }
        let delivery = Delivery { sequence: frame.sequence, at: now, path: as_far_as(at, path) };
        if !flow.pass(delivery) {
            let (flow, sequence) = (flow.id.0, frame.sequence);
            let what = format_args!("{at}: flow {flow} got frame {sequence} twice");
            return self.watch.violate(now, what);
        }
        self.figures.frames_passed += 1;
        let (policy, path) = (flow.policy, delivery.path);
        if let Some(cell) = self.cells.of_tenant(policy) {
            self.figures.frames_in_cells += 1;
            let own = path.elements().iter().all(|step| cell.own.1.contains(&step.relay));
            self.figures.frames_by_partners += u64::from(!own);
        }
    }
}

/// The part of a path that ends at a relay on it: there an alternate may end it early.
fn as_far_as(at: RelayId, path: Path) -> Path {
    let place = path.elements().iter().position(|step| step.relay == at);
    place.and_then(|place| Path::new(&path.elements()[..=place]).ok()).unwrap_or(path)
}
