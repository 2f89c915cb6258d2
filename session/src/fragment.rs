//! A datagram inside its sealed frames: whole in one, or in two parts that are joined at the far end.
//!
//! ```text
//! plaintext:  part u8 = 0 (whole)                   | payload
//!             part u8 = 1 (first half) | number u32 | payload
//!             part u8 = 2 (last half)  | number u32 | payload
//! ```
//!
//! To a far end that knows of it, the part has its highest bit set, and behind it comes a *stamp*: the sender's own clock
//! in microseconds, 32 bits, wrapping, of an origin of its own for each flow. A datagram that fills its frame goes without.
//!
//! Both halves bear the datagram's number and may come in either order. A half that waits longer than
//! [`JOIN_TIME_MAX`], or that more than [`JOINS_MAX`] newer ones overtook, is given up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use overway_wire::frame::PAYLOAD_BYTES_MAX;

use crate::seal::TAG_BYTES;

/// Bytes of a datagram at most: what a UDP packet carries on an Ethernet of 1,500.
pub const DATAGRAM_BYTES_MAX: usize = 1_472;

/// Bytes of plaintext that a frame has room for.
const PLAIN_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - TAG_BYTES;
/// Bytes of a datagram that travels whole.
const WHOLE_BYTES_MAX: usize = PLAIN_BYTES_MAX - 1;
/// Realtime data that is half a second old is worth nothing.
const JOIN_TIME_MAX: Duration = Duration::from_millis(500);
/// Halves that wait at most, per flow: at most 47 KB. The oldest is given up.
const JOINS_MAX: usize = 64;

const WHOLE: u8 = 0;
const FIRST: u8 = 1;
const LAST: u8 = 2;
/// Set in the part of a frame with a stamp.
const STAMPED: u8 = 0x80;
/// Bytes of a stamp.
const STAMP_BYTES: usize = 4;

const _: () = assert!(DATAGRAM_BYTES_MAX.div_ceil(2) + 5 + STAMP_BYTES <= PLAIN_BYTES_MAX);

/// Writes the plaintexts of a datagram of at most [`DATAGRAM_BYTES_MAX`] bytes: one, or two halves of about
/// the same length; with a stamp, if there is one and room for it.
pub(crate) fn split(
    datagram: &[u8],
    number: u32,
    stamp: Option<u32>,
) -> (BytesMut, Option<BytesMut>) {
    let begun = |part: u8, stamp: Option<u32>, length: usize| {
        let mut plain = BytesMut::with_capacity(5 + STAMP_BYTES + length + TAG_BYTES);
        match stamp {
            Some(stamp) => {
                plain.put_u8(part | STAMPED);
                plain.put_u32(stamp);
            }
            None => plain.put_u8(part),
        }
        plain
    };
    if datagram.len() <= WHOLE_BYTES_MAX {
        let stamp = stamp.filter(|_| datagram.len() + STAMP_BYTES <= WHOLE_BYTES_MAX);
        let mut plain = begun(WHOLE, stamp, datagram.len());
        plain.put_slice(datagram);
        return (plain, None);
    }
    let (first, last) = datagram.split_at(datagram.len().div_ceil(2));
    let half = |part: u8, payload: &[u8]| {
        let mut plain = begun(part, stamp, payload.len());
        plain.put_u32(number);
        plain.put_slice(payload);
        plain
    };
    (half(FIRST, first), Some(half(LAST, last)))
}

/// Takes the stamp out of a plaintext that has one, and says of how many frames its datagram is.
pub(crate) fn take_stamp(plain: &mut BytesMut) -> Option<(u32, u32)> {
    let part = *plain.first().filter(|&part| part & STAMPED != 0)?;
    let stamp = plain.get(1..=STAMP_BYTES)?.try_into().expect("four bytes");
    let part = part & !STAMPED;
    plain[STAMP_BYTES] = part;
    plain.advance(STAMP_BYTES);
    Some((u32::from_be_bytes(stamp), if part == WHOLE { 1 } else { 2 }))
}

/// What became of a plaintext.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// A datagram is complete.
    Datagram(Bytes),
    /// The other half is still to come.
    Waiting,
    /// The inner header makes no sense.
    Malformed,
}

#[derive(Debug)]
struct Half {
    part: u8,
    payload: Bytes,
    arrived: Instant,
}

/// Halves that wait for the other one.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    halves: BTreeMap<u32, Half>,
    given_up: u64,
}

impl Joiner {
    /// Takes the plaintext of a frame.
    pub(crate) fn handle_plain(&mut self, mut plain: Bytes, now: Instant) -> Joined {
        let Some(part) = plain.try_get_u8().ok().filter(|&part| part <= LAST) else {
            return Joined::Malformed;
        };
        if part == WHOLE {
            return Joined::Datagram(plain);
        }
        let Ok(number) = plain.try_get_u32() else { return Joined::Malformed };
        self.expire(now);
        match self.halves.remove(&number) {
            Some(other) if other.part != part => {
                let (first, last) =
                    if part == FIRST { (plain, other.payload) } else { (other.payload, plain) };
                if first.len() + last.len() > DATAGRAM_BYTES_MAX {
                    return Joined::Malformed;
                }
                let mut datagram = BytesMut::with_capacity(first.len() + last.len());
                datagram.put(first);
                datagram.put(last);
                Joined::Datagram(datagram.freeze())
            }
            // A second first half: the sender's numbers came round; the older one counts no more.
            Some(_) | None => {
                self.halves.insert(number, Half { part, payload: plain, arrived: now });
                Joined::Waiting
            }
        }
    }

    /// Datagrams given up so far.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Gives up what waits for too long, and the oldest where there is no room for one more.
    fn expire(&mut self, now: Instant) {
        let before = self.halves.len();
        self.halves.retain(|_, half| now.saturating_duration_since(half.arrived) <= JOIN_TIME_MAX);
        if self.halves.len() >= JOINS_MAX {
            let oldest = self.halves.iter().min_by_key(|(_, half)| half.arrived);
            if let Some(number) = oldest.map(|(&number, _)| number) {
                self.halves.remove(&number);
            }
        }
        self.given_up += (before - self.halves.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base() -> Instant {
        Instant::now()
    }

    #[test]
    fn what_fits_one_frame_travels_whole() {
        let (plain, second) = split(&[7; WHOLE_BYTES_MAX], 1, Some(9));

        assert_eq!(plain.len(), PLAIN_BYTES_MAX);
        assert_eq!(second, None);
    }

    #[test]
    fn a_half_whose_other_half_comes_too_late_is_given_up() {
        let (mut joiner, now) = (Joiner::default(), base());
        let (first, last) = split(&[7; DATAGRAM_BYTES_MAX], 1, None);
        let late = now + JOIN_TIME_MAX + Duration::from_millis(1);

        assert_eq!(joiner.handle_plain(first.freeze(), now), Joined::Waiting);
        assert_eq!(joiner.handle_plain(last.unwrap().freeze(), late), Joined::Waiting);
        assert_eq!(joiner.given_up(), 1);
    }

    #[test]
    fn lonely_halves_take_bounded_room() {
        let (mut joiner, now) = (Joiner::default(), base());
        for number in 0..1_000 {
            let (first, _) = split(&[7; DATAGRAM_BYTES_MAX], number, None);
            joiner.handle_plain(first.freeze(), now);
            assert!(joiner.halves.len() <= JOINS_MAX);
        }
        assert_eq!(joiner.given_up() + joiner.halves.len() as u64, 1_000);
    }

    #[test]
    fn a_stamp_that_is_cut_short_is_none_and_the_plaintext_makes_no_sense() {
        let mut plain = BytesMut::from(&[STAMPED, 1, 2, 3][..]);
        assert_eq!(take_stamp(&mut plain), None);
        assert_eq!(Joiner::default().handle_plain(plain.freeze(), base()), Joined::Malformed);
    }

    proptest! {
        #[test]
        fn datagrams_of_any_length_come_back_in_either_order(
            length in 0..=DATAGRAM_BYTES_MAX, swap: bool, number: u32, stamp: Option<u32>,
        ) {
            let datagram: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0]).collect();
            let (mut joiner, now) = (Joiner::default(), base());
            let (first, last) = split(&datagram, number, stamp);
            let mut parts = vec![first];
            parts.extend(last);
            if swap {
                parts.reverse();
            }
            let mut joined = Joined::Waiting;
            let frames = u32::try_from(parts.len()).unwrap();
            for mut part in parts {
                prop_assert!(part.len() <= PLAIN_BYTES_MAX);
                let fits = length <= WHOLE_BYTES_MAX - STAMP_BYTES || length > WHOLE_BYTES_MAX;
                let stamp = stamp.filter(|_| fits).map(|stamp| (stamp, frames));
                prop_assert_eq!(take_stamp(&mut part), stamp);
                prop_assert_eq!(joined, Joined::Waiting);
                joined = joiner.handle_plain(part.freeze(), now);
            }
            prop_assert_eq!(joined, Joined::Datagram(datagram.into()));
        }

        /// Headers of every sort, few numbers, and plaintexts cut short.
        #[test]
        fn any_plaintext_is_joined_or_refused(
            plains in proptest::collection::vec((0_u8..4, 0_u32..3, 0_usize..12), 0..40),
        ) {
            let (mut joiner, now) = (Joiner::default(), base());
            let mut waiting = BTreeMap::new();
            for (part, number, bytes) in plains {
                let [a, b, c, d] = number.to_be_bytes();
                let plain = Bytes::copy_from_slice(&[part, a, b, c, d, part, 8, 8, 8, 8, 8][..bytes.min(11)]);
                let expected = if bytes == 0 || part > LAST || (part != WHOLE && bytes < 5) {
                    Joined::Malformed
                } else if part == WHOLE {
                    Joined::Datagram(plain.slice(1..))
                } else {
                    let payload = plain.slice(5..);
                    match waiting.remove(&number) {
                        Some((FIRST, first)) if part == LAST => {
                            Joined::Datagram([first, payload].concat().into())
                        }
                        Some((LAST, last)) if part == FIRST => {
                            Joined::Datagram([payload, last].concat().into())
                        }
                        Some(_) | None => {
                            waiting.insert(number, (part, payload));
                            Joined::Waiting
                        }
                    }
                };
                prop_assert_eq!(joiner.handle_plain(plain, now), expected);
            }
        }
    }
}
