//! Where the frames of a lane wait: one table for all of its queues, each of which is a chain through it.
//!
//! A queue that is empty holds no memory, however many there were, and a frame that comes takes the place that
//! was left last, which the processor still has at hand. A frame that leaves its queue is read where it stands. The table
//! grows with the most frames that ever waited at once; when the last one leaves a table that a flood has made long, it is
//! given back.

use super::Queued;

/// No place.
const NONE: u32 = u32::MAX;
/// Places that an empty table keeps: a batch or two of each of many flows, and about 150 KB.
const KEPT_PLACES: usize = 1_024;

/// The frames of a lane.
#[derive(Debug)]
pub(super) struct Store {
    places: Vec<Place>,
    /// The first of the chain of empty places.
    free: u32,
    waiting: usize,
}

#[derive(Debug)]
struct Place {
    queued: Option<Queued>,
    next: u32,
}

/// The place of a frame that has left its queue. [`Store::release`] or [`Store::take`] is to follow.
#[derive(Debug)]
pub(crate) struct Left(u32);

/// A queue's first and last place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    first: u32,
    last: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl Chain {
    pub(super) fn is_empty(&self) -> bool {
        self.first == NONE
    }
}

impl Store {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), free: NONE, waiting: 0 }
    }

    #[inline]
    pub(super) fn push_back(&mut self, chain: &mut Chain, queued: Queued) {
        let at = self.put(queued, NONE);
        match self.places.get_mut(chain.last as usize) {
            Some(last) => last.next = at,
            None => chain.first = at,
        }
        chain.last = at;
    }

    pub(super) fn push_front(&mut self, chain: &mut Chain, queued: Queued) {
        let at = self.put(queued, chain.first);
        if chain.is_empty() {
            chain.last = at;
        }
        chain.first = at;
    }

    #[inline]
    fn put(&mut self, queued: Queued, next: u32) -> u32 {
        self.waiting += 1;
        let place = Place { queued: Some(queued), next };
        match self.places.get_mut(self.free as usize) {
            Some(free) => {
                let at = std::mem::replace(&mut self.free, free.next);
                *free = place;
                at
            }
            None => {
                self.places.push(place);
                u32::try_from(self.places.len() - 1).expect("a lane's bytes bound its frames")
            }
        }
    }

    #[inline]
    pub(super) fn front(&self, chain: Chain) -> Option<&Queued> {
        self.places.get(chain.first as usize)?.queued.as_ref()
    }

    /// Takes the first frame out of its queue.
    #[inline]
    pub(super) fn leave_front(&mut self, chain: &mut Chain) -> Option<Left> {
        let next = self.places.get(chain.first as usize)?.next;
        let left = std::mem::replace(&mut chain.first, next);
        if next == NONE {
            chain.last = NONE;
        }
        Some(Left(left))
    }

    /// A frame that has left its queue.
    #[inline]
    pub(super) fn left(&mut self, left: &Left) -> &mut Queued {
        let place = &mut self.places[left.0 as usize];
        place.queued.as_mut().expect("a place that was left is held until it is released")
    }

    /// Gives the place of a frame back that has left its queue, and drops the frame.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "it is given back once")]
    pub(super) fn release(&mut self, left: Left) {
        let place = &mut self.places[left.0 as usize];
        place.queued = None;
        place.next = std::mem::replace(&mut self.free, left.0);
        self.waiting -= 1;
        if self.waiting == 0 && self.places.len() > KEPT_PLACES {
            *self = Self::new();
        }
    }

    /// Gives the place of a frame back that has left its queue, and the frame.
    pub(super) fn take(&mut self, left: Left) -> Option<Queued> {
        let queued = self.places.get_mut(left.0 as usize)?.queued.take();
        self.release(left);
        queued
    }

    pub(super) fn pop_front(&mut self, chain: &mut Chain) -> Option<Queued> {
        let left = self.leave_front(chain)?;
        self.take(left)
    }

    /// The places of a queue, first to last.
    pub(super) fn places(&self, chain: Chain) -> impl Iterator<Item = u32> {
        let next = |&at: &u32| self.places.get(at as usize).map(|place| place.next);
        std::iter::successors(Some(chain.first), next).take_while(|&at| at != NONE)
    }

    /// The frames at these places, in this order. Takes a list as long as the table; for what happens seldom.
    pub(super) fn frames(&mut self, places: Vec<u32>) -> impl Iterator<Item = &mut Queued> {
        let mut frames: Vec<Option<&mut Queued>> =
            self.places.iter_mut().map(|place| place.queued.as_mut()).collect();
        places.into_iter().filter_map(move |at| frames.get_mut(at as usize)?.take())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::super::tests::queued;
    use super::*;
    use overway_wire::Class;
    use proptest::prelude::*;

    #[test]
    fn a_table_that_a_flood_has_made_long_is_given_back_when_it_is_empty() {
        let (mut store, mut chain) = (Store::new(), Chain::default());
        for sequence in 0..5_000 {
            store.push_back(&mut chain, queued(Class::Bulk, 0, sequence, 0));
        }
        for sequence in 0..5_000 {
            assert_eq!(store.pop_front(&mut chain).unwrap().header.sequence, sequence);
        }
        assert!(chain.is_empty() && store.places.capacity() == 0);
    }

    proptest! {
        #[test]
        fn chains_through_one_table_are_queues(
            steps in proptest::collection::vec((0_usize..3, 0_u8..5), 0..300),
        ) {
            let mut store = Store::new();
            let mut chains = [Chain::default(); 3];
            let mut expected: [VecDeque<u64>; 3] = Default::default();
            for (sequence, (at, step)) in (0..).zip(steps) {
                let (chain, expected) = (&mut chains[at], &mut expected[at]);
                match step {
                    0 | 1 => {
                        store.push_back(chain, queued(Class::Bulk, 0, sequence, 0));
                        expected.push_back(sequence);
                    }
                    2 => {
                        store.push_front(chain, queued(Class::Bulk, 0, sequence, 0));
                        expected.push_front(sequence);
                    }
                    _ => {
                        let popped = store.pop_front(chain).map(|queued| queued.header.sequence);
                        prop_assert_eq!(popped, expected.pop_front());
                    }
                }
                prop_assert_eq!(store.front(*chain).map(|queued| queued.header.sequence), expected.front().copied());
            }
            for (chain, expected) in chains.into_iter().zip(expected) {
                let places = store.places(chain).collect();
                let frames = store.frames(places).map(|queued| queued.header.sequence);
                prop_assert_eq!(frames.collect::<VecDeque<_>>(), expected);
            }
        }
    }
}
