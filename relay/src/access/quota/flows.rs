//! The flows that a tenant's edges have open at a relay.
//!
//! A flow is open from its first frame that an edge sends until nothing of it has come for [`IDLE`], or the edge's
//! attachment ends; each end of a flow counts at its own relay. Where as many are open as may be, the next is refused
//! until one is over. What is open is never refused. Only tenants with such a quota have a table.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overway_wire::{AttachmentId, Class, FlowId, FrameKind};

/// Some keep-alives of a session, which come every five seconds.
const IDLE: Duration = Duration::from_secs(20);
/// Least time between two looks for flows that are over.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Flows of one tenant, whatever its quota: 100 MB.
const FLOWS_MAX: usize = 1 << 20;

/// Which flow a frame of an edge belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlowName {
    pub(crate) attachment: AttachmentId,
    pub(crate) kind: FrameKind,
    pub(crate) class: Class,
    pub(crate) flow: FlowId,
}

/// Open flows, and when a frame of each came last.
#[derive(Debug, Default)]
pub(super) struct Flows {
    open: BTreeMap<FlowName, Instant>,
    swept: Option<Instant>,
}

impl Flows {
    /// A frame has come; false if it begins a flow, and `max` are open.
    pub(super) fn note(&mut self, name: FlowName, max: u32, now: Instant) -> bool {
        if let Some(last) = self.open.get_mut(&name) {
            *last = now;
            return true;
        }
        let max = usize::try_from(max).unwrap_or(usize::MAX).min(FLOWS_MAX);
        if self.open.len() >= max {
            self.sweep(now);
        }
        let has_room = self.open.len() < max;
        if has_room {
            self.open.insert(name, now);
        }
        has_room
    }

    /// Forgets the flows of an attachment.
    pub(super) fn forget(&mut self, attachment: AttachmentId) {
        // Not by looking at all: there may be a million of others, and edges leave together.
        let (kind, class) = (FrameKind::Session, Class::Realtime);
        let first = FlowName { attachment, kind, class, flow: FlowId(0) };
        let of_it = self.open.range(first..).take_while(|(name, _)| name.attachment == attachment);
        for name in of_it.map(|(&name, _)| name).collect::<Vec<_>>() {
            self.open.remove(&name);
        }
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    /// How many are open.
    pub(super) fn count(&mut self, now: Instant) -> u32 {
        self.sweep(now);
        u32::try_from(self.open.len()).unwrap_or(u32::MAX)
    }

    fn sweep(&mut self, now: Instant) {
        let recent = |at: Instant| now.saturating_duration_since(at) < SWEEP_EVERY;
        if self.swept.is_some_and(recent) {
            return;
        }
        self.swept = Some(now);
        self.open.retain(|_, last| now.saturating_duration_since(*last) < IDLE);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::flow;
    use super::*;

    #[test]
    fn a_flow_is_over_when_it_was_idle_or_its_attachment_ended() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut flows = Flows::default();
        assert!(flows.note(flow(7, Class::Bulk, 1), 2, start));
        assert!(flows.note(flow(8, Class::Bulk, 1), 2, start), "another edge's");
        assert!(!flows.note(flow(8, Class::Realtime, 1), 2, at(10)));
        assert!(flows.note(flow(7, Class::Bulk, 1), 2, at(15)));

        assert!(flows.note(flow(8, Class::Realtime, 1), 2, at(21)), "the second is over");
        assert_eq!(flows.count(at(21)), 2);
        flows.forget(AttachmentId(7));
        assert_eq!(flows.count(at(23)), 1);
        assert_eq!(flows.count(at(60)), 0);

        for (attachment, class) in
            [(6, Class::Bulk), (7, Class::Realtime), (7, Class::Bulk), (8, Class::Realtime)]
        {
            assert!(flows.note(flow(attachment, class, 0), 9, at(70)));
        }
        flows.forget(AttachmentId(7));
        assert_eq!(flows.count(at(72)), 2);
    }
}
