//! Repairs: forward error correction between two neighbours.
//!
//! A *block* is one to sixteen data messages and bundles that went out one after another on a lane, and so bear
//! consecutive numbers. After it go up to three repairs, from any `n` of which any `n` messages of the block can be
//! computed:
//!
//! ```text
//! first u32 | messages u8 | part u8 | wait u8 | (frames u8 for each message) | sum, to the end of the datagram
//! ```
//!
//! `first` is the number of the block's first frame. The top bit of `messages` says that how many frames each message
//! has stands before the sum; without it each has one.
//!
//! **The sum.** Each message is written as `length u16 | message`, with zeros behind it up to the length of the longest
//! of the block. Of these strings `d[0]` to `d[k - 1]` the sum of part `p` is, byte by byte in GF(2^8) modulo
//! x^8 + x^4 + x^3 + x^2 + 1, the polynomial with the coefficients `d` at the point 2^p:
//!
//! ```text
//! d[0] x^(k-1) + d[1] x^(k-2) + ... + d[k-1]        x = 1, 2, 4 for part 0, 1, 2
//! ```
//!
//! So part 0 is the exclusive or of all. Any three columns of three such rows, and any two of two, are independent, which
//! is why any lost messages can be computed from as many repairs.

use bytes::BufMut;

use super::{HopError, MESSAGE_BYTES_MAX, REPAIR};

/// Messages of one block.
pub const REPAIR_MESSAGES_MAX: usize = 16;
/// Repairs of one block.
pub const REPAIRS_MAX: usize = 3;
/// Bytes before the sum in a repair of messages with one frame each.
pub const REPAIR_PREFIX_BYTES: usize = 8;
/// Bytes of the longest repair: of the longest data message, and its length. Longer than any other hop message.
pub const REPAIR_BYTES_MAX: usize = REPAIR_PREFIX_BYTES + 2 + MESSAGE_BYTES_MAX;

const COUNTED_BIT: u8 = 0x80;

/// One repair, borrowed from its datagram. See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair<'a> {
    /// The block.
    pub slots: Slots,
    /// Which of its repairs, below [`REPAIRS_MAX`].
    pub part: u8,
    /// The last repair of a block goes at most so many milliseconds after the block's first message: until then nothing
    /// need be asked for.
    pub wait_ms: u8,
    /// Computed from the messages.
    pub sum: &'a [u8],
}

/// Which numbers each message of a block has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    first: u32,
    /// How many frames each message has; zero behind the last.
    frames: [u8; REPAIR_MESSAGES_MAX],
    len: u8,
}

impl Slots {
    /// An empty block whose first frame has this number.
    pub const fn new(first: u32) -> Self {
        Self { first, frames: [0; REPAIR_MESSAGES_MAX], len: 0 }
    }

    /// Adds a message of so many frames; says whether there was room for it.
    pub fn push(&mut self, frames: u8) -> bool {
        let slot = self.frames.get_mut(usize::from(self.len)).filter(|_| frames > 0);
        let added = slot.map(|slot| *slot = frames).is_some();
        self.len += u8::from(added);
        added
    }

    /// How many messages there are.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of the first frame.
    pub const fn first(&self) -> u32 {
        self.first
    }

    /// One more than the number of the last frame.
    pub fn next(&self) -> u32 {
        self.iter().last().map_or(self.first, |(number, frames)| number.wrapping_add(frames.into()))
    }

    /// Of each message the number of its first frame, and how many it has.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u8)> + use<> {
        let counts = self.frames.into_iter().take(self.len());
        counts.scan(self.first, |next, frames| {
            let number = *next;
            *next = number.wrapping_add(frames.into());
            Some((number, frames))
        })
    }

    /// Whether a frame of the block has this number.
    pub fn contains(&self, number: u32) -> bool {
        number.wrapping_sub(self.first) < self.next().wrapping_sub(self.first)
    }

    fn is_counted(&self) -> bool {
        self.iter().any(|(_, frames)| frames != 1)
    }

    /// Bytes before the sum.
    pub fn prefix_bytes(&self) -> usize {
        REPAIR_PREFIX_BYTES + if self.is_counted() { self.len() } else { 0 }
    }
}

impl<'a> Repair<'a> {
    /// Writes the whole hop message.
    pub fn encode(&self, out: &mut impl BufMut) {
        let counted = self.slots.is_counted();
        out.put_u8(REPAIR);
        out.put_u32(self.slots.first);
        out.put_u8(self.slots.len | if counted { COUNTED_BIT } else { 0 });
        out.put_u8(self.part);
        out.put_u8(self.wait_ms);
        if counted {
            out.put_slice(&self.slots.frames[..self.slots.len()]);
        }
        out.put_slice(self.sum);
    }

    /// Reads what follows the type byte.
    pub(super) fn decode(rest: &'a [u8]) -> Result<Self, HopError> {
        let (&[a, b, c, d, messages, part, wait_ms], rest) =
            rest.split_first_chunk().ok_or(HopError::Truncated)?;
        let len = messages & !COUNTED_BIT;
        if !(1..=REPAIR_MESSAGES_MAX).contains(&len.into()) || usize::from(part) >= REPAIRS_MAX {
            return Err(HopError::Block);
        }
        let mut slots = Slots::new(u32::from_be_bytes([a, b, c, d]));
        let ones = [1; REPAIR_MESSAGES_MAX];
        let (counts, sum) = match messages & COUNTED_BIT {
            0 => (&ones[..len.into()], rest),
            _ => rest.split_at_checked(len.into()).ok_or(HopError::Truncated)?,
        };
        if !counts.iter().all(|&frames| slots.push(frames)) {
            return Err(HopError::Block);
        }
        Ok(Self { slots, part, wait_ms, sum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::HopMessage;

    fn slots(first: u32, frames: &[u8]) -> Slots {
        let mut slots = Slots::new(first);
        assert!(frames.iter().all(|&frames| slots.push(frames)));
        slots
    }

    fn encoded(repair: &Repair<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        repair.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_repair_has_these_bytes() {
        let single = Repair { slots: slots(258, &[1; 12]), part: 2, wait_ms: 24, sum: &[5, 6] };
        let bundles =
            Repair { slots: slots(u32::MAX, &[1, 37, 2]), part: 0, wait_ms: 5, sum: &[7] };
        for (repair, golden) in [
            (single, &[8, 0, 0, 1, 2, 12, 2, 24, 5, 6][..]),
            (bundles, &[8, 255, 255, 255, 255, 0x83, 0, 5, 1, 37, 2, 7]),
        ] {
            assert_eq!(encoded(&repair), golden);
            assert_eq!(HopMessage::decode(golden), Ok(HopMessage::Repair(repair)));
        }
    }

    #[test]
    fn a_block_knows_the_numbers_of_its_messages() {
        let slots = slots(u32::MAX, &[1, 37, 2]);

        assert_eq!(slots.iter().collect::<Vec<_>>(), [(u32::MAX, 1), (0, 37), (37, 2)]);
        assert_eq!((slots.first(), slots.next()), (u32::MAX, 39));
        assert!(slots.contains(u32::MAX) && slots.contains(0) && slots.contains(38));
        assert!(!slots.contains(39) && !slots.contains(u32::MAX - 1));
    }

    #[test]
    fn an_impossible_block_is_refused() {
        let golden = [8, 0, 0, 1, 2, 0x82, 2, 24, 1, 1, 9];
        assert!(HopMessage::decode(&golden).is_ok());
        for length in 1..10 {
            assert_eq!(HopMessage::decode(&golden[..length]), Err(HopError::Truncated));
        }
        for (at, byte) in [(5, 0x80), (5, 0), (5, 17), (5, 0xff), (6, 3), (8, 0)] {
            let mut bytes = golden;
            bytes[at] = byte;
            assert_eq!(HopMessage::decode(&bytes), Err(HopError::Block), "{byte} at {at}");
        }
    }

    #[test]
    fn the_longest_message_has_a_repair_and_a_block_has_its_bound() {
        let mut slots = slots(0, &[1; REPAIR_MESSAGES_MAX]);
        assert!(!slots.push(1));
        let sum = [0; 2 + MESSAGE_BYTES_MAX];
        let repair = Repair { slots, part: 0, wait_ms: 0, sum: &sum };
        assert_eq!(encoded(&repair).len(), REPAIR_BYTES_MAX);
    }
}
