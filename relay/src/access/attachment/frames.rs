//! An edge's frames, up and down.

use std::time::Instant;

use bytes::Bytes;
use overway_session::{Inbound, Outbound};
use overway_wire::access::{AccessDatagram, AccessHeader, Direction};
use overway_wire::{AttachmentId, Redundancy};

use super::super::quota::{Beyond, FlowName};
use super::super::stats::AccessDrop;
use super::{Attachment, Sending};

/// Datagrams taken from one edge, and frames sent to it, before others get a turn.
const BATCH: usize = 64;
/// What quinn counts in its buffer for a datagram beside its bytes: that which holds them.
const BUFFERED_EXTRA: usize = size_of::<Bytes>();

impl Attachment {
    /// Sends what waits as far as quinn has room; otherwise the first that it has none for is what comes back.
    pub(super) fn send_waiting(&mut self, now: Instant) -> Option<Sending> {
        let mut room = self.connection.room();
        for _ in 0..BATCH {
            let inbound = self.place.queue.take()?;
            let Some(datagram) = self.encode_down(&inbound, now) else { continue };
            let needed = datagram.len() + BUFFERED_EXTRA;
            if room >= needed {
                room -= needed;
                self.connection.send(datagram);
                continue;
            }
            let connection = self.connection.clone();
            return Some(Box::pin(connection.send_when_free(datagram)));
        }
        // More may wait: come back after the others.
        Some(Box::pin(tokio::task::yield_now()))
    }

    fn encode_down(&mut self, inbound: &Inbound, now: Instant) -> Option<Bytes> {
        let Inbound { source, kind, class, policy, ecn, flow, sequence, ref payload } = *inbound;
        if policy != self.admitted.tenant {
            self.shared.counters.drop_frames(AccessDrop::OtherTenant, 1);
            return None;
        }
        self.handle_activity(now);
        self.shared.counters.frames_down.increment();
        self.shared.counters.bytes_down.add(payload.len() as u64);
        let header = AccessHeader {
            direction: Direction::Down,
            number: self.probe.handle_sent(),
            kind,
            class,
            ecn,
            redundancy: Redundancy::default(),
            copy: false,
            far: source,
            alternate: None,
            budget: overway_wire::Millis(u16::MAX),
            flow,
            sequence,
        };
        Some(header.with_payload(payload))
    }

    /// Takes what the edge sent, and what came with it.
    pub(super) fn take_datagrams(&mut self, first: Bytes) {
        let now = Instant::now();
        let mut frames = Vec::new();
        let connection = self.connection.clone();
        let others = std::iter::from_fn(|| connection.receive_now()).take(BATCH - 1);
        for datagram in std::iter::once(first).chain(others) {
            match AccessDatagram::decode(&datagram) {
                Ok(AccessDatagram::Heartbeat(heartbeat)) => {
                    self.probe.handle_heartbeat(&heartbeat, now);
                }
                Ok(AccessDatagram::Frame(header, payload)) if header.direction == Direction::Up => {
                    let payload = datagram.slice_ref(payload);
                    self.probe.handle_frame(header.number, datagram.len(), now);
                    match self.passed(&header) {
                        Ok(()) => match self.within_quota(&header, payload.len(), now) {
                            Ok(()) => frames.push(self.outbound(&header, payload)),
                            Err(beyond) => self.limit(beyond, now),
                        },
                        Err(reason) => self.shared.counters.drop_frames(reason, 1),
                    }
                }
                Ok(AccessDatagram::Frame(..)) | Err(_) => {
                    self.shared.counters.drop_frames(AccessDrop::Malformed, 1);
                }
            }
        }
        self.follow_state();
        if frames.is_empty() {
            return;
        }
        self.handle_activity(now);
        let (count, bytes) = (frames.len() as u64, sum_bytes(&frames));
        let refused = self.shared.local.try_send_from(self.place.attachment, &mut frames).is_err();
        let left = if refused { frames.len() as u64 } else { 0 };
        self.shared.counters.drop_frames(AccessDrop::MeshFull, left);
        self.shared.counters.frames_up.add(count - left);
        self.shared.counters.bytes_up.add(bytes - sum_bytes(&frames));
    }

    /// Whether an edge's frame may go into the mesh.
    fn passed(&self, header: &AccessHeader) -> Result<(), AccessDrop> {
        let ends = [Some(header.far), header.alternate];
        if ends.into_iter().flatten().any(|end| end.attachment <= AttachmentId::GATEWAY) {
            return Err(AccessDrop::Destination);
        }
        if !self.admitted.claims.classes.contains(&header.class) {
            return Err(AccessDrop::Class);
        }
        Ok(())
    }

    /// Whether its tenant may send it; if so it is counted.
    fn within_quota(
        &self,
        header: &AccessHeader,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Beyond> {
        let &AccessHeader { kind, class, flow, .. } = header;
        let name = FlowName { attachment: self.place.attachment, kind, class, flow };
        self.place.allowance.borrow_mut().pass(name, bytes, now)
    }

    fn outbound(&self, header: &AccessHeader, payload: Bytes) -> Outbound {
        // A copy is not copied again, which is what this mode says.
        let redundancy = if header.copy { Redundancy::Off } else { header.redundancy };
        Outbound {
            kind: header.kind,
            class: header.class,
            policy: self.admitted.tenant,
            redundancy,
            destination: header.far,
            alternate: header.alternate,
            flow: header.flow,
            sequence: header.sequence,
            budget: header.budget,
            payload,
        }
    }
}

fn sum_bytes(frames: &[Outbound]) -> u64 {
    frames.iter().map(|frame| frame.payload.len() as u64).sum()
}
