//! The links of a mesh in which each relay has links with few others.

use super::{CLASSES, Hop, narrow};

/// Lists up to this length are looked through from end to end.
const COUNTED_MAX: usize = 192;

/// Neighbours of each relay in order of number.
#[derive(Clone, Debug)]
pub(super) struct Sparse {
    outward: Vec<Neighbours>,
    inward: Vec<Neighbours>,
    /// How many pairs' cheapest link has another index than zero, by class.
    indexed: [usize; CLASSES],
}

/// The links between a relay and its neighbours in one direction. What is looked for lies apart, so that it stays in
/// the cache; what costs are looked at brings along what is asked for next.
#[derive(Clone, Debug, Default)]
pub(super) struct Neighbours {
    ends: Vec<u16>,
    hops: [Vec<Hop>; CLASSES],
}

impl Sparse {
    pub(super) fn new(stride: usize) -> Self {
        let none = || vec![Neighbours::default(); stride];
        Self { outward: none(), inward: none(), indexed: [0; CLASSES] }
    }

    /// The cheapest link of a pair, looked for among those that leave the sender.
    #[inline]
    pub(super) fn hop(&self, class: usize, from: usize, to: usize) -> Hop {
        self.outward[from].hop(class, to)
    }

    /// The same, among those that reach the receiver.
    #[inline]
    pub(super) fn hop_to(&self, class: usize, from: usize, to: usize) -> Hop {
        self.inward[to].hop(class, from)
    }

    #[inline]
    pub(super) fn cost(&self, class: usize, from: usize, to: usize) -> u32 {
        self.hop(class, from, to).cost
    }

    #[inline]
    pub(super) fn index(&self, class: usize, from: usize, to: usize) -> u8 {
        if self.indexed[class] == 0 { 0 } else { self.hop(class, from, to).index }
    }

    /// The links that leave a relay: the others' numbers, and the links.
    #[inline]
    pub(super) fn from(&self, class: usize, from: usize) -> (&[u16], &[Hop]) {
        self.outward[from].all(class)
    }

    /// The links that reach a relay.
    #[inline]
    pub(super) fn to(&self, class: usize, to: usize) -> (&[u16], &[Hop]) {
        self.inward[to].all(class)
    }

    pub(super) fn set(&mut self, from: usize, to: usize, hops: [Hop; CLASSES]) {
        let usable = hops.iter().any(|hop| hop.cost < Hop::NONE.cost).then_some(hops);
        let before = self.outward[from].put(narrow(to), usable);
        self.inward[to].put(narrow(from), usable);
        for (hops, is_new) in [(before, false), (usable, true)] {
            for (count, hop) in self.indexed.iter_mut().zip(hops.into_iter().flatten()) {
                match is_new {
                    true => *count += usize::from(hop.index != 0),
                    false => *count -= usize::from(hop.index != 0),
                }
            }
        }
    }
}

impl Neighbours {
    /// Where a neighbour stands. In a short list those before it are counted, which takes no guess of the processor's
    /// and half the time of a search by halves.
    #[inline]
    fn find(&self, end: usize) -> Option<usize> {
        let end = narrow(end);
        if self.ends.len() > COUNTED_MAX {
            return self.ends.binary_search(&end).ok();
        }
        let before: u16 = self.ends.iter().map(|other| u16::from(*other < end)).sum();
        let at = usize::from(before);
        (self.ends.get(at) == Some(&end)).then_some(at)
    }

    #[inline]
    fn hop(&self, class: usize, end: usize) -> Hop {
        self.find(end).map_or(Hop::NONE, |at| self.hops[class][at])
    }

    #[inline]
    fn all(&self, class: usize) -> (&[u16], &[Hop]) {
        (&self.ends, &self.hops[class])
    }

    /// Sets what leads to or from a neighbour; returns what did before.
    fn put(&mut self, end: u16, hops: Option<[Hop; CLASSES]>) -> Option<[Hop; CLASSES]> {
        match (self.ends.binary_search(&end), hops) {
            (Ok(at), Some(hops)) => {
                let before = std::array::from_fn(|class| self.hops[class][at]);
                for (class, hop) in hops.into_iter().enumerate() {
                    self.hops[class][at] = hop;
                }
                Some(before)
            }
            (Ok(at), None) => {
                self.ends.remove(at);
                Some(std::array::from_fn(|class| self.hops[class].remove(at)))
            }
            (Err(at), Some(hops)) => {
                self.ends.insert(at, end);
                for (class, hop) in hops.into_iter().enumerate() {
                    self.hops[class].insert(at, hop);
                }
                None
            }
            (Err(_), None) => None,
        }
    }
}
