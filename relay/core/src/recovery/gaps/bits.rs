//! A bit for each of the last numbers.

/// Numbers of which it is known whether they came: as many as a ring of 32 MiB holds full frames.
pub(crate) const WINDOW: u32 = 32_768;
const WORDS: usize = WINDOW as usize / 64;

/// Which of the last [`WINDOW`] numbers arrived. Takes no memory until one did.
#[derive(Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(super) fn has(&self, number: u32) -> bool {
        let (word, bit) = place(number);
        self.words.get(word).is_some_and(|word| word >> bit & 1 == 1)
    }

    pub(super) fn set(&mut self, number: u32) {
        self.words.resize(WORDS, 0);
        let (word, bit) = place(number);
        self.words[word] |= 1 << bit;
    }

    /// Makes these numbers ones that arrived.
    #[inline]
    pub(super) fn set_all(&mut self, first: u32, count: u32) {
        if self.words.is_empty() {
            self.words.resize(WORDS, 0);
        }
        for (word, mask) in masks(first, count) {
            self.words[word] |= mask;
        }
    }

    /// Makes these numbers ones that did not arrive.
    #[inline]
    pub(super) fn clear(&mut self, first: u32, count: u32) {
        if self.words.is_empty() {
            return;
        }
        for (word, mask) in masks(first, count) {
            self.words[word] &= !mask;
        }
    }

    /// Of these numbers those that did not arrive, as firsts and counts.
    pub(super) fn missing(&self, first: u32, count: u32) -> impl Iterator<Item = (u32, u32)> {
        let (mut first, mut left) = (first, count);
        std::iter::from_fn(move || {
            let here = self.alike(first, left, true);
            let gap = first.wrapping_add(here);
            let missing = self.alike(gap, left - here, false);
            (first, left) = (gap.wrapping_add(missing), left - here - missing);
            (missing > 0).then_some((gap, missing))
        })
    }

    /// How many of these numbers, from the first on, all arrived or all did not.
    fn alike(&self, first: u32, count: u32, arrived: bool) -> u32 {
        let mut alike = 0;
        while alike < count {
            let (word, bit) = place(first.wrapping_add(alike));
            let word = self.words.get(word).copied().unwrap_or(0);
            let others = if arrived { !word } else { word } >> bit;
            let run = others.trailing_zeros().min(64 - bit);
            alike += run;
            if run < 64 - bit {
                break;
            }
        }
        alike.min(count)
    }
}

/// The words that these numbers are in, and their bits there.
#[inline]
fn masks(mut first: u32, count: u32) -> impl Iterator<Item = (usize, u64)> {
    let mut left = count.min(WINDOW);
    std::iter::from_fn(move || {
        let (word, bit) = place(first);
        let part = left.min(64 - bit);
        let mask = u64::MAX.checked_shr(64 - part)? << bit;
        (first, left) = (first.wrapping_add(part), left - part);
        Some((word, mask))
    })
}

#[inline]
fn place(number: u32) -> (usize, u32) {
    let at = number % WINDOW;
    ((at / 64) as usize, at % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_set_and_cleared_is_found_as_in_a_set(
            start in any::<u32>(),
            changes in proptest::collection::vec((0_u32..400, 0_u32..300, any::<bool>()), 0..60),
        ) {
            let mut bits = Bits::default();
            let mut model = std::collections::BTreeSet::new();
            for (at, count, set) in changes {
                if set && count % 2 == 0 {
                    bits.set(start.wrapping_add(at));
                    model.insert(at);
                } else if set {
                    bits.set_all(start.wrapping_add(at), count);
                    model.extend(at..at + count);
                } else {
                    bits.clear(start.wrapping_add(at), count);
                    model.retain(|&it| it < at || it >= at + count);
                }
            }
            let missing: Vec<u32> = bits
                .missing(start, 700)
                .flat_map(|(first, count)| (0..count).map(move |at| first.wrapping_add(at)))
                .map(|number| number.wrapping_sub(start))
                .collect();
            let expected: Vec<u32> = (0..700).filter(|at| !model.contains(at)).collect();
            prop_assert_eq!(missing, expected);
            prop_assert!(model.iter().all(|&at| bits.has(start.wrapping_add(at))));
        }
    }
}
