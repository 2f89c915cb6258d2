//! Repairs among the relay's verbs.

use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use overway_wire::Header;
use overway_wire::hop::{HopMessage, Repair};

use super::Arrival;
use super::driving::is_chasing;
use super::gaps::Spare;
use crate::forward::UNLIMITED;
use crate::link::LaneKey;
use crate::{DropReason, Relay};

/// Repairs are expected for so long after the last: longer than a block takes.
const EXPECT_FOR: Duration = Duration::from_secs(1);
/// Nothing is held back for longer because of them.
const WAIT_MAX: Duration = Duration::from_millis(100);

impl Relay {
    /// Takes a repair, and what can be computed now.
    pub(crate) fn handle_repair(
        &mut self,
        (key, lane): LaneKey,
        repair: &Repair<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.is_stale(now) {
            return Err(DropReason::Stale);
        }
        let link = self.links.get_mut(&key).ok_or(DropReason::UnknownLink)?;
        link.probe.handle_message(now);
        if !link.takes_repairs() {
            return Err(DropReason::BadRepair);
        }
        let (_, recovery) = link.recovering(lane).ok_or(DropReason::WrongLane)?;
        let gaps = &mut recovery.gaps;
        let wait = Duration::from_millis(repair.wait_ms.into()).min(WAIT_MAX);
        gaps.expect_repairs(now + EXPECT_FOR, wait);
        let is_here = |number| gaps.is_here(number);
        let rebuilt = recovery.rebuilder.handle_repair(repair, is_here, now)?;
        self.take_rebuilt((key, lane), rebuilt, now);
        Ok(())
    }

    /// Keeps a bundle if repairs may need it, and says whether one waits for it.
    pub(crate) fn keep_bundle(
        &mut self,
        (key, lane): LaneKey,
        number: u32,
        message: &Bytes,
    ) -> bool {
        let link = self.links.get_mut(&key);
        let Some((_, recovery)) = link.and_then(|link| link.recovering(lane)) else { return false };
        recovery.rebuilder.keep(number, message)
    }

    /// A message came that a block waits for.
    pub(crate) fn retry_block(&mut self, (key, lane): LaneKey, number: u32, now: Instant) {
        let link = self.links.get_mut(&key);
        let Some((_, recovery)) = link.and_then(|link| link.recovering(lane)) else { return };
        let gaps = &recovery.gaps;
        match recovery.rebuilder.retry(number, |number| gaps.is_here(number)) {
            Ok(rebuilt) => self.take_rebuilt((key, lane), rebuilt, now),
            Err(reason) => self.stats.drop(reason),
        }
    }

    fn take_rebuilt(&mut self, key: LaneKey, rebuilt: Vec<Bytes>, now: Instant) {
        for message in rebuilt {
            let Ok(frames) = HopMessage::decode(&message).map(HopMessage::frames) else { continue };
            for (number, frame) in frames {
                if let Err(reason) =
                    self.take_rebuilt_frame(key, number, message.slice_ref(frame), now)
                {
                    self.stats.drop(reason);
                }
            }
        }
    }

    /// As the neighbour's frame, which it is: for the line's loss it did not come.
    fn take_rebuilt_frame(
        &mut self,
        (key, lane): LaneKey,
        number: u32,
        frame: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        let link = self.links.get_mut(&key).ok_or(DropReason::UnknownLink)?;
        let chasing = is_chasing(link);
        let (_, recovery) = link.recovering(lane).ok_or(DropReason::WrongLane)?;
        let late = recovery.gaps.missing_for(number, now);
        let arrival = recovery.gaps.handle_spare(number, Spare::Rebuilt, chasing, now);
        link.probe.handle_resent(lane, number, frame.len(), now);
        match arrival {
            Arrival::Overtaken | Arrival::Duplicate => Ok(()),
            Arrival::New | Arrival::Late | Arrival::Recovered | Arrival::Forgotten => {
                self.stats.frames_received += 1;
                self.stats.bytes_received += frame.len() as u64;
                self.receive(key, lane, aged(frame, late)?, true, now)
            }
        }
    }
}

/// The frame, this time taken off its budget.
fn aged(frame: Bytes, late: Duration) -> Result<Bytes, DropReason> {
    let (mut header, payload) = Header::decode(&frame).map_err(|_| DropReason::BadFrame)?;
    if header.budget == UNLIMITED || late.is_zero() {
        return Ok(frame);
    }
    let left = Duration::from(header.budget).checked_sub(late);
    header.budget = left.ok_or(DropReason::Expired)?.into();
    let mut aged = BytesMut::with_capacity(frame.len());
    header.encode(&mut aged);
    aged.put_slice(payload);
    Ok(aged.freeze())
}
