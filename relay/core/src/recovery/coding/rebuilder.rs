//! The receiver's side: keeps messages while repairs come, and computes what is missing from them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_wire::hop::{HopMessage, Repair, Slots};

use super::field::solve;
use crate::DropReason;
use crate::recovery::stats::RecoveryStats;

/// Messages are kept for so long after a repair: longer than any block takes and than a flow pauses.
const KEEP_FOR: Duration = Duration::from_secs(2);
/// Messages whose first numbers are among the last so many are kept: at a hundred thousand frames a second those of
/// ten milliseconds, at ten thousand more than any block takes.
pub(super) const KEPT: usize = 1_024;
/// Blocks that wait for another repair or for a message that was overtaken; the oldest leaves first.
pub(super) const BLOCKS_MAX: usize = 32;
/// They wait this long: no more reordering is allowed for anywhere.
const BLOCK_FOR: Duration = Duration::from_millis(100);

/// See the module above.
#[derive(Debug, Default)]
pub(crate) struct Rebuilder {
    /// The neighbour sends repairs, and messages are kept until then.
    until: Option<Instant>,
    /// By number; empty while nothing is kept.
    pub(super) kept: Vec<Option<Kept>>,
    pub(super) blocks: VecDeque<Block>,
    stats: RecoveryStats,
}

#[derive(Debug)]
pub(super) struct Kept {
    number: u32,
    message: Bytes,
}

/// A block of which more is missing than its repairs make up for.
#[derive(Debug)]
pub(super) struct Block {
    slots: Slots,
    sums: Vec<(u8, Bytes)>,
    until: Instant,
}

impl Rebuilder {
    pub(crate) fn stats(&self) -> &RecoveryStats {
        &self.stats
    }

    /// Whether [`Self::keep`] keeps anything.
    pub(crate) fn is_keeping(&self) -> bool {
        self.until.is_some()
    }

    /// Keeps a message that came as it went out for the first time; says whether a block waits for it.
    pub(crate) fn keep(&mut self, number: u32, message: &[u8]) -> bool {
        if !self.is_keeping() {
            return false;
        }
        if self.kept.is_empty() {
            self.kept.resize_with(KEPT, || None);
        }
        // What is kept must not hold on to the whole of what a socket was read into.
        let message = Bytes::copy_from_slice(message);
        self.kept[place(number)] = Some(Kept { number, message });
        self.blocks.iter().any(|block| block.slots.contains(number))
    }

    /// Takes a repair, of a block of which `is_here` tells what came; returns the data messages and bundles that can be
    /// computed now.
    ///
    /// # Errors
    /// [`DropReason::BadRepair`] if it does not fit what came of the block.
    pub(crate) fn handle_repair(
        &mut self,
        repair: &Repair<'_>,
        is_here: impl Fn(u32) -> bool,
        now: Instant,
    ) -> Result<Vec<Bytes>, DropReason> {
        self.until = Some(now + KEEP_FOR);
        self.stats.repairs_received += 1;
        self.expire(now);
        if is_complete(&repair.slots, &is_here) {
            self.stats.repairs_spare += 1;
            return Ok(Vec::new());
        }
        let known =
            self.blocks.iter().position(|block| block.slots.first() == repair.slots.first());
        let mut block = match known.and_then(|at| self.blocks.remove(at)) {
            Some(block) if block.slots == repair.slots => block,
            Some(other) => {
                self.stats.repairs_vain += other.sums.len() as u64;
                return Err(DropReason::BadRepair);
            }
            None => Block { slots: repair.slots, sums: Vec::new(), until: now + BLOCK_FOR },
        };
        if !block.sums.iter().any(|(part, _)| *part == repair.part) {
            block.sums.push((repair.part, Bytes::copy_from_slice(repair.sum)));
        }
        self.rebuild(block, &is_here)
    }

    /// After a message came that a block waits for: returns what can be computed now.
    pub(crate) fn retry(
        &mut self,
        number: u32,
        is_here: impl Fn(u32) -> bool,
    ) -> Result<Vec<Bytes>, DropReason> {
        let waits = |block: &Block| block.slots.contains(number);
        let at = self.blocks.iter().position(waits);
        let Some(block) = at.and_then(|at| self.blocks.remove(at)) else { return Ok(Vec::new()) };
        if is_complete(&block.slots, &is_here) {
            self.stats.repairs_spare += block.sums.len() as u64;
            return Ok(Vec::new());
        }
        self.rebuild(block, &is_here)
    }

    /// Computes what is missing of a block if its repairs are enough, or puts it back.
    fn rebuild(
        &mut self,
        block: Block,
        is_here: impl Fn(u32) -> bool,
    ) -> Result<Vec<Bytes>, DropReason> {
        let known: Vec<Option<&[u8]>> =
            block.slots.iter().map(|(number, _)| self.kept(number)).collect();
        let missing = known.iter().filter(|message| message.is_none()).count();
        if missing > block.sums.len() {
            self.put_back(block);
            return Ok(Vec::new());
        }
        let sums: Vec<(u8, &[u8])> =
            block.sums.iter().map(|(part, sum)| (*part, sum.as_ref())).collect();
        let computed = solve(&known, &sums).ok_or(DropReason::BadRepair)?;
        let slots: Vec<(u32, u8)> = block.slots.iter().collect();
        let mut rebuilt = Vec::new();
        for (slot, string) in computed {
            let (number, frames) = slots[slot];
            let message = read(string, number, frames).ok_or(DropReason::BadRepair)?;
            if !numbers(number, frames).all(&is_here) {
                rebuilt.push(message);
            }
        }
        Ok(rebuilt)
    }

    fn kept(&self, number: u32) -> Option<&[u8]> {
        let kept = self.kept.get(place(number))?.as_ref()?;
        (kept.number == number).then_some(kept.message.as_ref())
    }

    fn put_back(&mut self, block: Block) {
        if self.blocks.len() >= BLOCKS_MAX {
            self.give_up();
        }
        self.blocks.push_back(block);
    }

    fn give_up(&mut self) {
        let sums = self.blocks.pop_front().map_or(0, |block| block.sums.len());
        self.stats.repairs_vain += sums as u64;
    }

    fn expire(&mut self, now: Instant) {
        while self.blocks.front().is_some_and(|block| block.until <= now) {
            self.give_up();
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.until
    }

    /// Forgets everything once no more repairs come.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            self.forget();
        }
    }

    /// The neighbour counts anew, or sends no more repairs.
    pub(crate) fn forget(&mut self) {
        while !self.blocks.is_empty() {
            self.give_up();
        }
        (self.until, self.kept) = (None, Vec::new());
    }
}

/// Where the message with this number is kept.
fn place(number: u32) -> usize {
    number as usize % KEPT
}

fn numbers(first: u32, frames: u8) -> impl Iterator<Item = u32> {
    (0..u32::from(frames)).map(move |at| first.wrapping_add(at))
}

fn is_complete(slots: &Slots, is_here: impl Fn(u32) -> bool) -> bool {
    slots.iter().all(|(first, frames)| numbers(first, frames).all(&is_here))
}

/// Reads a computed string: a message with these numbers, behind its length, and nothing but zeros behind it.
fn read(string: Vec<u8>, number: u32, frames: u8) -> Option<Bytes> {
    let string = Bytes::from(string);
    let (length, rest) = string.split_first_chunk()?;
    let (message, zeros) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let begins = match HopMessage::decode(message).ok()? {
        HopMessage::Data { number, .. } | HopMessage::Bundle { number, .. } => Some(number),
        HopMessage::Twin { .. }
        | HopMessage::Repair(_)
        | HopMessage::Heartbeat(_)
        | HopMessage::Nack { .. }
        | HopMessage::Received { .. }
        | HopMessage::Tail { .. }
        | HopMessage::Padding => None,
    };
    let holds = HopMessage::decode(message).ok()?.frames().count();
    let fits = begins == Some(number) && holds == usize::from(frames);
    (fits && zeros.iter().all(|&byte| byte == 0)).then(|| string.slice_ref(message))
}
