//! Recovery among the relay's verbs.

use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use overway_probe::{Numbered, State};
use overway_wire::NeighbourLink;
use overway_wire::hop::{
    self, BundleFrames, Lane, NACK_NUMBERS_MAX, NACK_RANGES_MAX, NackRange, NackRanges,
};

use super::Arrival;
use super::gaps::Spare;
use crate::link::{LaneKey, Link};
use crate::{DropReason, Relay};

impl Relay {
    /// Takes a message with a numbered frame from a neighbour, unless it came before.
    pub(crate) fn handle_data(
        &mut self,
        key: LaneKey,
        number: u32,
        mut message: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        let bytes = message.len() - hop::DATA_PREFIX_BYTES;
        if self.take_next(key, Numbered { first: number, count: 1, bytes }, now) {
            message.advance(hop::DATA_PREFIX_BYTES);
            return self.receive(key.0, key.1, message, false, now);
        }
        self.count_in(key, number, bytes, now)?;
        let (arrival, awaited) = self.arrival(key, number, bytes, Some(&message), now);
        message.advance(hop::DATA_PREFIX_BYTES);
        let taken = self.take_arrived(key, arrival, message, now);
        if awaited {
            self.retry_block(key, number, now);
        }
        taken
    }

    /// Takes the frames of a bundle, but for those that came before.
    pub(crate) fn handle_bundle(
        &mut self,
        (key, lane): LaneKey,
        (number, frames): (u32, BundleFrames<'_>),
        message: &Bytes,
        now: Instant,
    ) {
        let mut run = Numbered { first: number, ..Numbered::default() };
        for frame in frames.flatten() {
            (run.count, run.bytes) = (run.count + 1, run.bytes + frame.len());
        }
        let is_next = self.take_next((key, lane), run, now);
        let awaited = !is_next && self.keep_bundle((key, lane), number, message);
        for (at, frame) in (0..).zip(frames) {
            let taken = match frame.map(|frame| message.slice_ref(frame)) {
                Ok(frame) if is_next => self.receive(key, lane, frame, false, now),
                Ok(frame) => self.handle_bundled((key, lane), number.wrapping_add(at), frame, now),
                Err(_) => Err(DropReason::BadMessage),
            };
            self.count_drop(taken);
        }
        if awaited {
            self.retry_block((key, lane), number, now);
        }
    }

    /// Takes note of frames that are the next on their lane, and says whether they are: nearly all are, and they cost a
    /// fraction of what [`Self::arrival`] takes. Their probe is told once of all that are read together.
    #[inline]
    fn take_next(&mut self, key: LaneKey, run: Numbered, now: Instant) -> bool {
        if self.is_stale(now) {
            return false;
        }
        let link = self.links.get_mut(&key.0);
        let Some((_, recovery)) = link.and_then(|link| link.recovering(key.1)) else {
            return false;
        };
        // What repairs may need is kept one by one.
        if recovery.rebuilder.is_keeping() || !recovery.gaps.handle_next(run.first, run.count, now)
        {
            return false;
        }
        self.stats.frames_received += u64::from(run.count);
        self.stats.bytes_received += run.bytes as u64;
        if self.arrived.first.wrapping_add(self.arrived.count) != run.first {
            self.tell_arrived(key, now);
        }
        let Numbered { first, count, bytes } = self.arrived;
        self.arrived = match count {
            0 => run,
            _ => Numbered { first, count: count + run.count, bytes: bytes + run.bytes },
        };
        true
    }

    /// Tells a link's probe of the frames that came in order.
    pub(crate) fn tell_arrived(&mut self, (key, lane): LaneKey, now: Instant) {
        let arrived = std::mem::take(&mut self.arrived);
        if arrived.count > 0
            && let Some(link) = self.links.get_mut(&key)
        {
            link.handle_frames(lane, arrived, now);
        }
    }

    /// Takes a numbered frame out of a bundle, unless it came before.
    fn handle_bundled(
        &mut self,
        key: LaneKey,
        number: u32,
        frame: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.count_in(key, number, frame.len(), now)?;
        let (arrival, _) = self.arrival(key, number, frame.len(), None, now);
        self.take_arrived(key, arrival, frame, now)
    }

    fn take_arrived(
        &mut self,
        (key, lane): LaneKey,
        arrival: Arrival,
        frame: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        match arrival {
            Arrival::Overtaken | Arrival::Duplicate => Err(DropReason::Duplicate),
            Arrival::New | Arrival::Late | Arrival::Forgotten => {
                self.receive(key, lane, frame, false, now)
            }
            Arrival::Recovered => self.receive(key, lane, frame, true, now),
        }
    }

    /// Takes a second copy of a numbered frame that was not asked for. For the line's loss the first is what counts.
    pub(crate) fn handle_twin(
        &mut self,
        (key, lane): LaneKey,
        number: u32,
        frame: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.count_in((key, lane), number, frame.len(), now)?;
        let link = self.links.get_mut(&key).ok_or(DropReason::UnknownLink)?;
        let chasing = is_chasing(link);
        let (_, recovery) = link.recovering(lane).ok_or(DropReason::WrongLane)?;
        let arrival = recovery.gaps.handle_spare(number, Spare::Twin, chasing, now);
        link.probe.handle_resent(lane, number, frame.len(), now);
        match arrival {
            Arrival::Overtaken | Arrival::Duplicate => Ok(()),
            Arrival::New | Arrival::Late | Arrival::Recovered | Arrival::Forgotten => {
                self.receive(key, lane, frame, true, now)
            }
        }
    }

    /// Counts a frame that was read, unless it waited to be through a long pause of this process.
    fn count_in(
        &mut self,
        key: LaneKey,
        number: u32,
        bytes: usize,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.is_stale(now) {
            self.pass_over(key, number, now);
            return Err(DropReason::Stale);
        }
        self.stats.frames_received += 1;
        self.stats.bytes_received += bytes as u64;
        Ok(())
    }

    /// Takes note of the number of a frame that arrived: for recovery, for loss, and as a sign of life. Keeps its message
    /// if repairs may need it, and says whether one waits for it.
    fn arrival(
        &mut self,
        (key, lane): LaneKey,
        number: u32,
        bytes: usize,
        message: Option<&Bytes>,
        now: Instant,
    ) -> (Arrival, bool) {
        self.tell_arrived((key, lane), now);
        let Some(link) = self.links.get_mut(&key) else { return (Arrival::New, false) };
        let chasing = is_chasing(link);
        let mut awaited = false;
        let arrival = match link.recovering(lane) {
            Some((_, recovery)) => {
                if let Some(message) = message
                    && recovery.rebuilder.is_keeping()
                    && recovery.gaps.is_first(number)
                {
                    awaited = recovery.rebuilder.keep(number, message);
                }
                recovery.gaps.handle_number(number, chasing, now)
            }
            // What is sent on the light lane has no numbers.
            None => Arrival::New,
        };
        match arrival {
            Arrival::New | Arrival::Forgotten => link.probe.handle_frame(lane, number, bytes, now),
            Arrival::Late | Arrival::Overtaken => {
                link.probe.handle_late(lane, number, bytes, now);
            }
            Arrival::Recovered | Arrival::Duplicate => {
                link.probe.handle_resent(lane, number, bytes, now);
            }
        }
        (arrival, awaited)
    }

    /// Takes note of a frame that waited to be read through a long pause of this process. What was lost among such is not
    /// asked for.
    fn pass_over(&mut self, (key, lane): LaneKey, number: u32, now: Instant) {
        let Some(link) = self.links.get_mut(&key) else { return };
        if let Some((_, recovery)) = link.recovering(lane) {
            recovery.gaps.handle_number(number, false, now);
        }
    }

    /// A heartbeat says how many frames were sent.
    pub(crate) fn hear_sent(
        &mut self,
        key: NeighbourLink,
        sent_next: [u32; Lane::DATA.len()],
        now: Instant,
    ) {
        let stale = self.is_stale(now);
        let Some(link) = self.links.get_mut(&key) else { return };
        let anew = link.probe.take_renumbered();
        let chasing = is_chasing(link) && !stale;
        for ((_, recovery), next) in link.recovery().zip(sent_next) {
            if anew {
                recovery.gaps.forget();
                recovery.rebuilder.forget();
            }
            recovery.gaps.handle_told(next, chasing, now);
        }
    }

    /// A tail probe says so of one lane.
    pub(crate) fn hear_tail(&mut self, (key, lane): LaneKey, next: u32, now: Instant) {
        let stale = self.is_stale(now);
        let Some(link) = self.links.get_mut(&key) else { return };
        link.probe.handle_message(now);
        let chasing = is_chasing(link) && !stale;
        let Some((_, recovery)) = link.recovering(lane) else { return };
        recovery.messages.tails_received += 1;
        recovery.gaps.handle_told(next, chasing, now);
    }

    /// The neighbour misses frames.
    pub(crate) fn hear_nack(
        &mut self,
        (key, lane): LaneKey,
        ranges: &NackRanges<'_>,
        now: Instant,
    ) {
        let Some(link) = self.links.get_mut(&key) else { return };
        link.probe.handle_message(now);
        let round_trip = link.delay * 2;
        let Some((state, recovery)) = link.recovering(lane) else { return };
        if recovery.resends.handle_nack(ranges.iter(), &mut state.ring, round_trip, now) {
            self.mark_queued((key, lane));
        }
    }

    /// Does what is due on a link: asks for what is missing, sends again what is asked for, says what was sent
    /// last.
    pub(crate) fn recover(&mut self, key: NeighbourLink, now: Instant) {
        let Some(link) = self.links.get_mut(&key) else { return };
        if link.recovery_due().is_none_or(|due| due > now) {
            return;
        }
        let sent_next = Lane::DATA.map(|lane| link.probe.sent_next(lane));
        let chasing = is_chasing(link);
        let (mut messages, mut ready) = (Vec::new(), Vec::new());
        for ((lane, recovery), next) in link.recovery().zip(sent_next) {
            if !chasing {
                // What an outage swallowed was sent elsewhere.
                recovery.gaps.forgive();
            }
            let mut ranges = Vec::new();
            recovery.gaps.ask(now, &mut ranges);
            let nacks = nacks(lane, &ranges);
            recovery.messages.nacks_sent += nacks.len() as u64;
            messages.extend(nacks);
            if recovery.tail.take(now) {
                recovery.messages.tails_sent += 1;
                let mut message = BytesMut::with_capacity(8);
                hop::encode_tail(lane, next, &mut message);
                messages.push(message.freeze());
            }
            recovery.rebuilder.handle_timeout(now);
            if recovery.resends.handle_timeout(now) | recovery.coder.handle_timeout(now) {
                ready.push(lane);
            }
        }
        messages.into_iter().for_each(|message| self.push_light(key, message));
        ready.into_iter().for_each(|lane| self.mark_queued((key, lane)));
    }
}

/// Whether what is missing is asked for: while the neighbour is heard, if it understands.
pub(super) fn is_chasing(link: &Link) -> bool {
    let heard = match link.probe.inbound() {
        State::Unknown | State::Down => false,
        State::Up | State::Suspect => true,
    };
    heard && link.probe.recovers()
}

/// Puts ranges into as few messages as may hold them.
fn nacks(lane: Lane, ranges: &[NackRange]) -> Vec<Bytes> {
    let mut messages = Vec::new();
    let mut rest = ranges;
    while !rest.is_empty() {
        let mut numbers = 0;
        let fits = |range: &&NackRange| {
            numbers += u32::from(range.count);
            numbers <= NACK_NUMBERS_MAX
        };
        let count = rest.iter().take(NACK_RANGES_MAX).take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        let mut message = BytesMut::with_capacity(8 + 6 * count);
        hop::encode_nack(lane, now, &mut message);
        messages.push(message.freeze());
        rest = later;
    }
    messages
}
