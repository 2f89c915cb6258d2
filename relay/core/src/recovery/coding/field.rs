//! The code itself: sums over GF(2^8), as the wire format has them, and what is computed from them.
//!
//! Additions are exclusive ors. The points of the sums are 1, 2 and 4, so that a sum is carried on, message by message,
//! by no, one or two doublings of each byte, which compilers do for many bytes at once.

use overway_wire::hop::REPAIRS_MAX;

/// x^8 = x^4 + x^3 + x^2 + 1.
const POLYNOMIAL: u8 = 0x1d;

/// The sums of a block so far.
#[derive(Debug, Default)]
pub(super) struct Sums {
    sums: [Vec<u8>; REPAIRS_MAX],
    /// How many of them are carried.
    parts: usize,
}

impl Sums {
    /// Begins a block that is to have so many sums.
    pub(super) fn begin(&mut self, parts: usize) {
        self.parts = parts.min(REPAIRS_MAX);
        self.sums.iter_mut().for_each(Vec::clear);
    }

    /// Carries on by a message.
    pub(super) fn add(&mut self, message: &[u8]) {
        let length = length_bytes(message);
        for (part, sum) in self.sums.iter_mut().take(self.parts).enumerate() {
            carry(sum, part, length, message);
        }
    }

    /// How many sums are carried.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    pub(super) fn part(&self, part: usize) -> &[u8] {
        &self.sums[part]
    }

    /// How long each is.
    pub(super) fn len(&self) -> usize {
        self.sums[0].len()
    }
}

/// Computes the strings that are missing in a block of which `known` has the messages that are here, from as many
/// repairs as messages are missing: each a part and its sum. `None` if there are fewer, or if they do not fit together.
pub(super) fn solve(
    known: &[Option<&[u8]>],
    repairs: &[(u8, &[u8])],
) -> Option<Vec<(usize, Vec<u8>)>> {
    let missing: Vec<usize> = (0..known.len()).filter(|&slot| known[slot].is_none()).collect();
    let repairs = repairs.get(..missing.len())?;
    let length = repairs.first()?.1.len();
    let fits = |message: &&[u8]| 2 + message.len() <= length;
    if repairs.iter().any(|(_, sum)| sum.len() != length) || !known.iter().flatten().all(fits) {
        return None;
    }
    let mut rows: Vec<(Vec<u8>, Vec<u8>)> = repairs
        .iter()
        .map(|&(part, sum)| {
            let point = 1 << part;
            let exponent = |&slot: &usize| power(point, known.len() - 1 - slot);
            (missing.iter().map(exponent).collect(), remainder(known, part.into(), sum))
        })
        .collect();
    eliminate(&mut rows)?;
    Some(missing.into_iter().zip(rows.into_iter().map(|(_, string)| string)).collect())
}

/// What a sum has of the messages that are missing.
fn remainder(known: &[Option<&[u8]>], part: usize, sum: &[u8]) -> Vec<u8> {
    let mut carried = vec![0; sum.len()];
    for message in known {
        match message {
            Some(message) => carry(&mut carried, part, length_bytes(message), message),
            None => carry(&mut carried, part, [0; 2], &[]),
        }
    }
    add(&mut carried, sum);
    carried
}

/// Gauss and Jordan: of rows with coefficients and what they sum up to, makes rows of one unknown each.
fn eliminate(rows: &mut [(Vec<u8>, Vec<u8>)]) -> Option<()> {
    for column in 0..rows.len() {
        let pivot = (column..rows.len()).find(|&row| rows[row].0[column] != 0)?;
        rows.swap(column, pivot);
        let inverse = invert(rows[column].0[column]);
        scale(&mut rows[column].0, inverse);
        scale(&mut rows[column].1, inverse);
        let (coefficients, string) = rows[column].clone();
        for row in (0..rows.len()).filter(|&row| row != column) {
            let by = rows[row].0[column];
            add_scaled(&mut rows[row].0, &coefficients, by);
            add_scaled(&mut rows[row].1, &string, by);
        }
    }
    Some(())
}

fn length_bytes(message: &[u8]) -> [u8; 2] {
    u16::try_from(message.len()).expect("a message came in a datagram or is one").to_be_bytes()
}

/// Multiplies a sum by the point of its part, and adds a message with its length.
fn carry(sum: &mut Vec<u8>, part: usize, length: [u8; 2], message: &[u8]) {
    if sum.len() < 2 + message.len() {
        sum.resize(2 + message.len(), 0);
    }
    match part {
        0 => {}
        1 => sum.iter_mut().for_each(|byte| *byte = double(*byte)),
        _ => sum.iter_mut().for_each(|byte| *byte = double(double(*byte))),
    }
    let (front, rest) = sum.split_at_mut(2);
    add(front, &length);
    add(rest, message);
}

fn add(sum: &mut [u8], bytes: &[u8]) {
    sum.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum ^= byte);
}

fn add_scaled(sum: &mut [u8], bytes: &[u8], by: u8) {
    sum.iter_mut().zip(bytes).for_each(|(sum, &byte)| *sum ^= multiply(byte, by));
}

fn scale(bytes: &mut [u8], by: u8) {
    bytes.iter_mut().for_each(|byte| *byte = multiply(*byte, by));
}

fn double(byte: u8) -> u8 {
    let overflow = 0_u8.wrapping_sub(byte >> 7);
    (byte << 1) ^ (POLYNOMIAL & overflow)
}

fn multiply(byte: u8, by: u8) -> u8 {
    let (mut product, mut doubled) = (0, byte);
    for bit in 0..8 {
        product ^= doubled & 0_u8.wrapping_sub(by >> bit & 1);
        doubled = double(doubled);
    }
    product
}

fn power(point: u8, exponent: usize) -> u8 {
    (0..exponent).fold(1, |power, _| multiply(power, point))
}

/// By Fermat: the field has 255 elements beside zero.
fn invert(byte: u8) -> u8 {
    power(byte, 254)
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::hop::REPAIR_MESSAGES_MAX;
    use proptest::prelude::*;

    fn sums(messages: &[Vec<u8>]) -> Sums {
        let mut sums = Sums::default();
        sums.begin(REPAIRS_MAX);
        messages.iter().for_each(|message| sums.add(message));
        sums
    }

    /// A message as it stands in the sums.
    fn string(message: &[u8], length: usize) -> Vec<u8> {
        let mut string = length_bytes(message).to_vec();
        string.extend_from_slice(message);
        string.resize(length, 0);
        string
    }

    fn assert_rebuilt(messages: &[Vec<u8>], sums: &Sums, lost: &[usize], parts: &[u8]) {
        let known: Vec<Option<&[u8]>> = (0..messages.len())
            .map(|slot| (!lost.contains(&slot)).then_some(messages[slot].as_slice()))
            .collect();
        let repairs: Vec<(u8, &[u8])> =
            parts.iter().map(|&part| (part, sums.part(part.into()))).collect();
        let rebuilt = solve(&known, &repairs).unwrap();
        let expected: Vec<(usize, Vec<u8>)> =
            lost.iter().map(|&slot| (slot, string(&messages[slot], sums.len()))).collect();
        assert_eq!(rebuilt, expected, "{lost:?} of {} by {parts:?}", messages.len());
    }

    /// All sets of `count` of the numbers below `of`.
    fn choices(of: usize, count: usize) -> Vec<Vec<usize>> {
        (0..1_u32 << of)
            .filter(|set| set.count_ones() as usize == count)
            .map(|set| (0..of).filter(|at| set >> at & 1 == 1).collect())
            .collect()
    }

    #[test]
    fn the_sums_of_two_messages_have_these_bytes() {
        let sums = sums(&[vec![1, 0x80], vec![3]]);

        assert_eq!(sums.part(0), [0, 2 ^ 1, 1 ^ 3, 0x80]);
        assert_eq!(sums.part(1), [0, 4 ^ 1, 2 ^ 3, 0x1d]);
        assert_eq!(sums.part(2), [0, 8 ^ 1, 4 ^ 3, 0x3a]);
    }

    #[test]
    fn every_byte_but_zero_has_an_inverse() {
        for byte in 1..=u8::MAX {
            assert_eq!(multiply(byte, invert(byte)), 1);
        }
    }

    #[test]
    fn any_losses_are_computed_from_any_as_many_repairs() {
        for count in 1..=REPAIR_MESSAGES_MAX {
            let message = |slot: usize| vec![u8::try_from(37 * slot % 251).unwrap() + 1; 1 + slot];
            let messages: Vec<Vec<u8>> = (0..count).map(message).collect();
            let sums = sums(&messages);
            for losses in 1..=REPAIRS_MAX.min(count) {
                for parts in choices(REPAIRS_MAX, losses) {
                    let parts: Vec<u8> =
                        parts.into_iter().map(|part| u8::try_from(part).unwrap()).collect();
                    for lost in choices(count, losses) {
                        assert_rebuilt(&messages, &sums, &lost, &parts);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_in_the_messages_is_computed_exactly(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1_300), 1..=16),
            order in Just(vec![0_u8, 1, 2]).prop_shuffle(),
            losses in prop::collection::vec(any::<prop::sample::Index>(), 1..=3),
        ) {
            let sums = sums(&messages);
            let mut lost: Vec<usize> = losses.iter().map(|at| at.index(messages.len())).collect();
            lost.sort_unstable();
            lost.dedup();
            assert_rebuilt(&messages, &sums, &lost, &order[..lost.len()]);
        }

        #[test]
        fn what_does_not_fit_together_is_refused_or_computed_and_never_panics(
            known in prop::collection::vec(
                prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), 1..=16),
            repairs in prop::collection::vec((0_u8..3, prop::collection::vec(any::<u8>(), 0..40)), 0..4),
        ) {
            let known: Vec<Option<&[u8]>> = known.iter().map(Option::as_deref).collect();
            let repairs: Vec<(u8, &[u8])> =
                repairs.iter().map(|(part, sum)| (*part, sum.as_slice())).collect();
            let missing = known.iter().filter(|message| message.is_none()).count();
            if let Some(rebuilt) = solve(&known, &repairs) {
                prop_assert!(missing > 0 && rebuilt.len() == missing);
            }
        }
    }
}
