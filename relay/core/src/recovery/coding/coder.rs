//! The sender's side: carries the sums on, ends blocks and sends repairs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use overway_wire::LossPpm;
use overway_wire::hop::{
    Lane, REPAIR_BYTES_MAX, REPAIR_MESSAGES_MAX, REPAIR_PREFIX_BYTES, Repair, Slots,
};

use super::field::Sums;
use super::plan::Plan;
use crate::budget::CopyBudget;
use crate::recovery::quota::Quota;
use crate::recovery::stats::RecoveryStats;
use crate::recovery::{earlier, pop_if};

/// From one repair to the next, and from the block to the first: together as long as most short bursts of loss.
const SPACING: Duration = Duration::from_millis(1);
/// What a repair may come late by beside its block's time: the spacing of three, and a timer's grain.
const BEHIND: Duration = Duration::from_millis(4);
/// So many messages in a block's time are worth blocks rather than twins, which cost twice what the blocks do,
const DENSE_ON: u128 = 6;
/// until there are fewer than these: as much.
const DENSE_OFF: u128 = 4;
/// Repairs take a third of the bytes that the lane carries: what blocks of nine or ten take at a loss of 5 %.
const SHARE: u64 = 3;
/// And so many bytes besides: a sparse lane's.
const BURST_BYTES: u64 = 64 << 10;
/// Repairs that are to be sent; beyond it none is added. What a gigabit a second makes in 15 ms.
const READY_MAX: usize = 256;
/// After this long a repair is of no use: what it would have made up for was asked for.
const LATE_MAX: Duration = Duration::from_millis(100);
/// Longer messages are in no block with bundles, whose repairs must say how many frames each has.
const COUNTED_BYTES_MAX: usize = REPAIR_BYTES_MAX - REPAIR_PREFIX_BYTES - REPAIR_MESSAGES_MAX - 2;

/// A message that has just been written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'a> {
    pub(crate) message: &'a [u8],
    /// The number of its first frame.
    pub(crate) number: u32,
    pub(crate) frames: u8,
    /// Whether any of them is worth a copy.
    pub(crate) worth: bool,
}

/// See the module above.
#[derive(Debug)]
pub(crate) struct Coder {
    plan: Plan,
    /// Whether blocks are only for a lane that fills them.
    dense_only: bool,
    density: Density,
    block: Option<Block>,
    sums: Sums,
    /// Repairs that are not due yet, and those that wait for the lane since they were.
    later: VecDeque<(Instant, Bytes)>,
    ready: VecDeque<(Instant, Bytes)>,
    quota: Quota,
    stats: RecoveryStats,
}

/// The block that is being sent.
#[derive(Debug)]
struct Block {
    slots: Slots,
    bundles: bool,
    due: Instant,
}

/// How many messages go in the time of a block.
#[derive(Debug)]
struct Density {
    since: Instant,
    messages: u32,
    dense: bool,
}

impl Coder {
    pub(crate) fn new(lane: Lane, now: Instant) -> Self {
        Self {
            plan: Plan::new(lane),
            dense_only: lane == Lane::Realtime,
            density: Density { since: now, messages: 0, dense: false },
            block: None,
            sums: Sums::default(),
            later: VecDeque::new(),
            ready: VecDeque::new(),
            quota: Quota::new(SHARE, BURST_BYTES, now),
            stats: RecoveryStats::default(),
        }
    }

    pub(crate) fn stats(&self) -> &RecoveryStats {
        &self.stats
    }

    /// Takes the share of ours that the neighbour finds lost, if it makes use of repairs, and the round trip.
    pub(crate) fn handle_lost(&mut self, lost: Option<LossPpm>, round_trip: Duration) {
        self.plan.handle_lost(lost, round_trip);
    }

    /// A message is about to be written; says whether it is to join a block.
    #[inline]
    pub(crate) fn joins(&mut self, now: Instant) -> bool {
        self.plan.is_on() && (!self.dense_only || self.density.count(self.plan.time(), now))
    }

    /// Adds a message to its block; returns when to be woken for it, if anything is to be done then.
    pub(crate) fn add(&mut self, written: Written<'_>, now: Instant) -> Option<Instant> {
        let Written { message, number, frames, worth } = written;
        self.quota.earn(message.len() as u64, now);
        if self.block.as_ref().is_some_and(|block| {
            block.due <= now || block.slots.next() != number || !self.fits(block, &written)
        }) {
            self.end(now);
        }
        if self.block.is_none() {
            if !worth || !is_short(frames > 1, message.len()) {
                return self.due();
            }
            self.sums.begin(self.plan.repairs(self.plan.messages()));
            let due = now + self.plan.time();
            self.block = Some(Block { slots: Slots::new(number), bundles: false, due });
        }
        let block = self.block.as_mut()?;
        block.slots.push(frames);
        block.bundles |= frames > 1;
        self.sums.add(message);
        if block.slots.len() >= self.plan.messages() {
            self.end(now);
        }
        self.due()
    }

    fn fits(&self, block: &Block, written: &Written<'_>) -> bool {
        let longest = written.message.len().max(self.sums.len().saturating_sub(2));
        is_short(block.bundles || written.frames > 1, longest)
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        let repair = self.later.front().map(|&(due, _)| due);
        earlier(self.block.as_ref().map(|block| block.due), repair)
    }

    /// Ends the block whose time is up; says whether there is something to send now.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.block.as_ref().is_some_and(|block| block.due <= now) {
            self.end(now);
        }
        while let Some(repair) = pop_if(&mut self.later, |&(due, _)| due <= now) {
            self.ready.push_back(repair);
        }
        !self.ready.is_empty()
    }

    /// The lane's connection is another: what the old one lost comes under new numbers.
    pub(crate) fn forget(&mut self) {
        self.block = None;
        self.later.clear();
        self.ready.clear();
    }

    /// The next repair to send, if copies leave room for it on the line.
    pub(crate) fn pop(&mut self, copies: &mut CopyBudget, now: Instant) -> Option<Bytes> {
        while let Some((due, repair)) = self.ready.pop_front() {
            let bytes = repair.len() as u64;
            let in_time = now.saturating_duration_since(due) <= LATE_MAX;
            if in_time && self.quota.take(bytes, now) && copies.take_spare(repair.len(), now) {
                self.stats.repairs_sent += 1;
                self.stats.repair_bytes += bytes;
                return Some(repair);
            }
            self.stats.repairs_unsent += 1;
        }
        None
    }

    fn end(&mut self, now: Instant) {
        let Some(Block { slots, .. }) = self.block.take() else { return };
        self.stats.blocks += 1;
        let wait = (self.plan.time() + BEHIND).as_millis();
        let wait_ms = u8::try_from(wait).unwrap_or(u8::MAX);
        // What was planned for a full block, if less was lost when this one began.
        let repairs = self.plan.repairs(slots.len()).min(self.sums.parts());
        let mut due = now;
        for part in 0..repairs {
            if self.later.len() + self.ready.len() >= READY_MAX {
                self.stats.repairs_unsent += 1;
                continue;
            }
            due += SPACING;
            let sum = self.sums.part(part);
            let part = u8::try_from(part).expect("below three");
            let mut message = BytesMut::with_capacity(slots.prefix_bytes() + sum.len());
            Repair { slots, part, wait_ms, sum }.encode(&mut message);
            self.later.push_back((due, message.freeze()));
        }
    }
}

/// Whether a block may have messages of this length.
fn is_short(bundles: bool, bytes: usize) -> bool {
    !bundles || bytes <= COUNTED_BYTES_MAX
}

impl Density {
    /// Counts a message; says whether there are many.
    fn count(&mut self, time: Duration, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= time {
            let each = u128::from(self.messages) * time.as_micros() / elapsed.as_micros().max(1);
            self.dense = each >= if self.dense { DENSE_OFF } else { DENSE_ON };
            (self.since, self.messages) = (now, 0);
        }
        self.messages = self.messages.saturating_add(1);
        self.dense
    }
}
