//! How many paths take the links of each pair of relays.
//!
//! What routes begin or cease to take is noted by each task and counted together, block by block: the counts of a large
//! mesh are in no cache, and to count one after the other from several threads would wait for memory each time.

use std::sync::{Mutex, PoisonError};

use super::packed::{Packed, Via};
use super::table::{DIRECT, DISJOINT, DIVERSE, IN_USE, PLACES};

/// So many changes are noted before they are counted.
const NOTED: usize = 1 << 16;

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Uses {
    stride: usize,
    /// By sender and receiver.
    counts: Vec<u32>,
    /// The same: whether the pair was taken when last asked.
    roles: Vec<bool>,
    /// Pairs that may be taken otherwise than when last asked, some more than once.
    touched: Vec<u32>,
    /// Of these so many are kept before what stands there twice is dropped.
    touched_max: usize,
}

/// Changes to be counted: a pair, and whether one path more or one less takes it.
#[derive(Debug, Default)]
pub(super) struct Noted {
    changes: Vec<u32>,
}

impl Uses {
    pub(super) fn new(stride: usize) -> Self {
        let (counts, roles) = (vec![0; stride * stride], vec![false; stride * stride]);
        Self { stride, counts, roles, touched: Vec::new(), touched_max: NOTED }
    }

    /// Whether a path takes a link of a pair.
    pub(super) fn any(&self, from: usize, to: usize) -> bool {
        self.counts.get(from * self.stride + to).is_some_and(|count| *count > 0)
    }

    /// Counts what was noted.
    pub(super) fn count(&mut self, noted: &mut Noted) {
        for change in noted.changes.drain(..) {
            let count = &mut self.counts[(change >> 1) as usize];
            let before = *count;
            *count = if change & 1 == 0 { before - 1 } else { before + 1 };
            if before == 0 || *count == 0 {
                self.touched.push(change >> 1);
            }
        }
        if self.touched.len() > self.touched_max {
            self.touched.sort_unstable();
            self.touched.dedup();
            self.touched_max = NOTED.max(2 * self.touched.len());
        }
    }

    /// Pairs that are taken and were not when last asked, or the other way round, in order.
    pub(super) fn take_changed(&mut self) -> Vec<(usize, usize)> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        touched.retain(|&at| {
            let is = self.counts[at as usize] > 0;
            std::mem::replace(&mut self.roles[at as usize], is) != is
        });
        let ends = |at: u32| (at as usize / self.stride, at as usize % self.stride);
        touched.into_iter().map(ends).collect()
    }
}

impl Noted {
    /// Notes which pairs' links a route takes now, and took before: with all paths but the direct competitor, which
    /// a further path is not.
    pub(super) fn note(
        &mut self,
        stride: usize,
        old: [Packed; PLACES],
        new: [Packed; PLACES],
        (from, to): (usize, usize),
    ) {
        for at in [IN_USE, DISJOINT, DIVERSE, DIRECT] {
            if old[at] == new[at] {
                continue;
            }
            for (path, more) in [(old[at], 0), (new[at], 1)] {
                if !path.exists() || at == DIRECT && path.via() == Via::DIRECT {
                    continue;
                }
                for (from, to, _) in path.links(from, to) {
                    let pair = u32::try_from(from * stride + to)
                        .expect("a topology has fewer relays than half of these bits allow");
                    self.changes.push(pair << 1 | more);
                }
            }
        }
    }

    /// Counts what was noted, if it is much.
    pub(super) fn settle(&mut self, uses: &Mutex<Uses>) {
        if self.changes.len() >= NOTED {
            self.settle_all(uses);
        }
    }

    /// Counts what was noted.
    pub(super) fn settle_all(&mut self, uses: &Mutex<Uses>) {
        if !self.changes.is_empty() {
            uses.lock().unwrap_or_else(PoisonError::into_inner).count(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_named_once_when_its_first_path_comes_and_once_when_the_last_one_goes() {
        let mut uses = Uses::new(64);
        let mut noted = Noted::default();
        let none = [Packed::NONE; PLACES];
        let mut one = none;
        one[IN_USE] = Packed::new(Via::one(7), [0; 3]);
        noted.note(64, none, one, (3, 5));
        noted.note(64, none, one, (3, 6));
        uses.count(&mut noted);
        assert_eq!(uses.take_changed(), [(3, 7), (7, 5), (7, 6)]);

        noted.note(64, one, none, (3, 6));
        uses.count(&mut noted);
        assert_eq!(uses.take_changed(), [(7, 6)]);
        assert!(uses.any(3, 7) && uses.any(7, 5) && !uses.any(7, 6));

        noted.note(64, one, none, (3, 5));
        noted.note(64, none, one, (3, 5));
        uses.count(&mut noted);
        assert_eq!(uses.take_changed(), []);
    }
}
