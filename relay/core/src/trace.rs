//! Traces: probes of the path that frames of a class take now. [`overway_wire::trace`] has what they say.
//!
//! A probe is a frame like any other of its class: it takes the path, the queues, the copies and the recovery that those
//! take. Beside forwarding it a relay writes a record into it and answers its source, over a path of its own. Only
//! relays send and hear them; a relay keeps nothing of them. How many it answers is bounded, for whoever is in the mesh
//! could ask in another's name; what is beyond that is recorded and forwarded all the same.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_wire::frame::FrameEcn;
use overway_wire::trace::{Trace, TraceAnswer, TraceRecord, TraceRecords};
use overway_wire::{
    AttachmentId, ClockDiff, FrameKind, Header, Millis, NeighbourLink, Redundancy, RelayId,
};

use crate::{DropReason, Event, LocalFrame, Relay, Traced};

/// Probes answered in a second by each shard of a relay, and at once: those of ten traces of a hundred a second.
const ANSWERS_PER_SECOND: u32 = 1_000;
/// Time until an answer is worthless: who traces waits no longer.
const ANSWER_BUDGET: Duration = Duration::from_secs(2);

/// A token bucket of answers.
#[derive(Debug, Default)]
pub(crate) struct AnswerBudget {
    spent: u32,
    at: Option<Instant>,
}

impl AnswerBudget {
    /// Takes one, or refuses.
    fn take(&mut self, now: Instant) -> bool {
        let elapsed = self.at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let earned = elapsed.as_micros().saturating_mul(ANSWERS_PER_SECOND.into()) / 1_000_000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.spent = self.spent.saturating_sub(earned);
            self.at = Some(now);
        }
        let is_left = self.spent < ANSWERS_PER_SECOND;
        self.spent += u32::from(is_left);
        is_left
    }
}

impl Relay {
    /// A frame of a trace sets off from here: a probe's first record is written, and whoever traces is told the path.
    /// Returns the payload to send.
    pub(crate) fn begin_trace(
        &mut self,
        header: &Header,
        payload: Bytes,
        now: Instant,
    ) -> Result<Bytes, DropReason> {
        if !is_between_relays(header) {
            return Err(DropReason::BadTrace);
        }
        let trace = Trace::decode(&payload).map_err(|_| DropReason::BadTrace)?;
        let Trace::Probe(_) = trace else { return Ok(payload) };
        let mut records = TraceRecords::default();
        let record = TraceRecord {
            relay: self.config.local,
            clock: self.config.clock.read(now),
            ..TraceRecord::default()
        };
        records.push(record).map_err(|_| DropReason::BadTrace)?;
        let next = self.next_address(header, 0);
        let answer = TraceAnswer { records, path: header.path, steps: 0, next };
        self.tell_traced(self.config.local, header, answer, now);
        Ok(encoded(Trace::Probe(records), payload.len()))
    }

    /// Takes a frame of a trace from a neighbour. A probe gets this relay's record and is answered, and its payload
    /// comes back, to be forwarded; at its end it is done. An answer is heard if it is for this relay, and forwarded
    /// otherwise.
    pub(crate) fn follow_trace(
        &mut self,
        link: NeighbourLink,
        header: &Header,
        payload: Bytes,
        recovered: bool,
        now: Instant,
    ) -> Result<Option<Bytes>, DropReason> {
        if !is_between_relays(header) {
            return Err(DropReason::BadTrace);
        }
        let is_end = header.destination.relay == self.config.local;
        match Trace::decode(&payload).map_err(|_| DropReason::BadTrace)? {
            Trace::Answer(answer) => {
                if !is_end {
                    return Ok(Some(payload));
                }
                self.tell_traced(header.source.relay, header, answer, now);
                Ok(None)
            }
            Trace::Probe(mut records) => {
                let record = TraceRecord {
                    relay: self.config.local,
                    link: link.index,
                    recovered,
                    marked: header.ecn == FrameEcn::CongestionExperienced,
                    copy: header.copy,
                    clock: self.config.clock.read(now),
                    offset: self.clock_offset(link, now),
                };
                records.push(record).map_err(|_| DropReason::BadTrace)?;
                self.answer(header, records, now);
                Ok((!is_end).then(|| encoded(Trace::Probe(records), payload.len())))
            }
        }
    }

    /// Answers a probe's source; an answer that cannot be sent counts as dropped, as any frame of this relay does.
    fn answer(&mut self, header: &Header, records: TraceRecords, now: Instant) {
        if !self.answers.take(now) {
            self.stats.traces_unanswered += 1;
            return;
        }
        self.stats.traces_answered += 1;
        let steps = header.position + 1;
        let next = self.next_address(header, usize::from(steps));
        let answer = TraceAnswer { records, path: header.path, steps, next };
        let frame = LocalFrame {
            source: AttachmentId::RELAY,
            destination: header.source,
            alternate: None,
            kind: FrameKind::Trace,
            class: header.class,
            policy: header.policy,
            redundancy: Redundancy::default(),
            flow: header.flow,
            sequence: header.sequence,
            budget: Millis::from(ANSWER_BUDGET),
            payload: encoded(Trace::Answer(answer), 0),
        };
        if let Err(reason) = self.originate(frame, now) {
            self.stats.drop(reason);
        }
    }

    /// Where frames go over the step at `at` of a path that leads on from here.
    fn next_address(&self, header: &Header, at: usize) -> Option<SocketAddr> {
        let step = header.path.elements().get(at)?;
        let peer = self.fib.peers.get(&NeighbourLink::new(step.relay, step.link))?;
        Some(peer.remote)
    }

    /// This relay's clock less a neighbour's, as the probes of the link say; half of the round trip counts as the way here.
    fn clock_offset(&self, link: NeighbourLink, now: Instant) -> Option<ClockDiff> {
        let (fast, _) = self.links.get(&link)?.probe.windows(now);
        let half = i64::from(fast.rtt.0) / 2;
        (half > 0).then(|| ClockDiff(fast.one_way_diff.0.saturating_sub(half)))
    }

    fn tell_traced(&mut self, from: RelayId, header: &Header, answer: TraceAnswer, now: Instant) {
        let arrived = self.config.clock.read(now);
        let (flow, sequence) = (header.flow, header.sequence);
        let traced = Traced { from, flow, sequence, answer, arrived };
        self.push_event(Event::Traced(Box::new(traced)));
    }
}

fn is_between_relays(header: &Header) -> bool {
    let relay = AttachmentId::RELAY;
    header.source.attachment == relay && header.destination.attachment == relay
}

fn encoded(trace: Trace, bytes: usize) -> Bytes {
    let mut out = Vec::with_capacity(bytes.max(256));
    trace.encode(bytes, &mut out);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_probes_a_second_are_answered() {
        let start = Instant::now();
        let mut budget = AnswerBudget::default();
        let mut taken = |now| (0..5_000).filter(|_| budget.take(now)).count();

        assert_eq!(taken(start), 1_000);
        assert_eq!(taken(start + Duration::from_millis(100)), 100);
        assert_eq!(taken(start + Duration::from_secs(60)), 1_000);
    }
}
