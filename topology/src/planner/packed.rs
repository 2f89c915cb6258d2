//! Paths in six bytes: the numbers of the relays between the ends, and the links taken.

use overway_wire::{LinkIndex, Path, PathElement};

use super::numbers::Numbers;

/// In place of an intermediate that is not there.
const NOBODY: u16 = u16::MAX;
/// Set in the links of a path that exists.
const EXISTS: u16 = 1 << 15;
/// Bits of a link's index.
const INDEX_BITS: u32 = 4;

/// The relays between a path's ends, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Via([u16; 2]);

/// A path between two known ends, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    via: Via,
    links: u16,
}

fn narrow(number: u32) -> u16 {
    u16::try_from(number).expect("relays have ids of 16 bits")
}

impl Via {
    pub(super) const DIRECT: Self = Self([NOBODY; 2]);

    pub(super) fn one(relay: u32) -> Self {
        Self([narrow(relay), NOBODY])
    }

    pub(super) fn two(first: u32, second: usize) -> Self {
        Self([narrow(first), u16::try_from(second).expect("relays have ids of 16 bits")])
    }

    /// None, one or two.
    #[inline]
    pub(super) fn relays(&self) -> &[u16] {
        match self.0 {
            [NOBODY, _] => &[],
            [_, NOBODY] => &self.0[..1],
            [_, _] => &self.0,
        }
    }

    /// Whether the paths share no intermediate, and are not both direct.
    pub(super) fn is_disjoint(self, other: Self) -> bool {
        (self != Self::DIRECT || other != Self::DIRECT)
            && self.relays().iter().all(|relay| !other.relays().contains(relay))
    }

    /// The ends of the path's links.
    #[inline]
    pub(super) fn hops(self, from: usize, to: usize) -> impl Iterator<Item = (usize, usize)> {
        let [first, second] = self.0.map(usize::from);
        let count = self.relays().len();
        let steps = match count {
            0 => [(from, to); 3],
            1 => [(from, first), (first, to), (first, to)],
            _ => [(from, first), (first, second), (second, to)],
        };
        steps.into_iter().take(count + 1)
    }
}

impl Packed {
    pub(super) const NONE: Self = Self { via: Via::DIRECT, links: 0 };

    /// Packs a path, by the index of each link in order.
    pub(super) fn new(via: Via, indices: [u8; 3]) -> Self {
        let mut links = EXISTS;
        for (at, index) in (0..).zip(indices) {
            links |= u16::from(index & 15) << (at * INDEX_BITS);
        }
        Self { via, links }
    }

    pub(super) fn exists(self) -> bool {
        self.links & EXISTS != 0
    }

    pub(super) fn via(self) -> Via {
        self.via
    }

    /// The path by other numbers; `None` if a relay of it has none.
    pub(super) fn renumbered(self, number: &impl Fn(u16) -> Option<u16>) -> Option<Self> {
        let mut via = self.via;
        for relay in via.0.iter_mut().filter(|relay| **relay != NOBODY) {
            *relay = number(*relay)?;
        }
        Some(Self { via, links: self.links })
    }

    /// Whether each link of the path is the one of index 0.
    #[inline]
    pub(super) fn is_plain(self) -> bool {
        self.links == EXISTS
    }

    /// The index of the path's link in this place.
    #[inline]
    pub(super) fn index(self, at: usize) -> u8 {
        u8::try_from(self.links >> (4 * at) & 15).expect("four bits were kept")
    }

    /// The links of the path: their ends and index.
    #[inline]
    pub(super) fn links(self, from: usize, to: usize) -> impl Iterator<Item = (usize, usize, u8)> {
        let hops = self.via.hops(from, to).enumerate();
        hops.map(move |(at, (from, to))| (from, to, self.index(at)))
    }

    /// As a source route; `None` if a relay of it is gone.
    pub(super) fn path(self, numbers: &Numbers, from: usize, to: usize) -> Option<Path> {
        let mut steps = [PathElement::default(); 3];
        let mut len = 0;
        for (step, (_, to, index)) in steps.iter_mut().zip(self.links(from, to)) {
            *step = PathElement::new(numbers.id(to)?, LinkIndex::new(index)?);
            len += 1;
        }
        Path::new(&steps[..len]).ok()
    }
}
