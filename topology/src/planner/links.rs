//! What links cost, by number of their ends: a matrix for a mesh in which many have links with many, lists of
//! neighbours for a larger one and for one in which each has links with few.
//!
//! Between two relays only the cheapest link of each class takes part in the search. The others are known
//! too, for a path may be on one of them.

use std::collections::HashMap;

use overway_wire::Class;

use super::kernel::{BLOCK, BLOCKS_MAX, CHUNK, Column, NONE, Rows, blocks_padded};

mod dense;
mod sparse;

use dense::Dense;
use sparse::Sparse;

/// The longest row of a matrix. Beyond, a matrix would take longer to go through than the lists.
pub(super) const DENSE_STRIDE_MAX: usize = BLOCK * BLOCKS_MAX;
/// A matrix is worth its while where one of so many pairs has a link.
const FILLED_SHARE: usize = 6;
/// And for so few relays in any case.
const SMALL_MAX: usize = 256;
/// Classes.
pub(super) const CLASSES: usize = Class::ALL.len();

/// A link as the search sees it: what it costs each class, and its delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) index: u8,
    pub(super) cost: [u32; CLASSES],
    pub(super) delay: u32,
    /// Whether it loses so much that routes leave it.
    pub(super) lossy: bool,
}

/// The link of a pair that a class takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) cost: u32,
    pub(super) delay: u32,
    pub(super) index: u8,
    pub(super) lossy: bool,
}

impl Hop {
    const NONE: Self = Self { cost: NONE, delay: 0, index: 0, lossy: false };

    fn of(line: &Line, class: usize) -> Self {
        let Line { index, cost, delay, lossy } = *line;
        Self { cost: cost[class], delay, index, lossy }
    }
}

/// The links of a mesh.
#[derive(Clone, Debug)]
pub(super) struct Links {
    pairs: Pairs,
    /// Every link of the pairs that have more than one.
    parallel: HashMap<(u16, u16), Vec<Line>>,
}

#[derive(Clone, Debug)]
enum Pairs {
    Dense(Box<Dense>),
    Sparse(Sparse),
}

fn narrow(number: usize) -> u16 {
    u16::try_from(number).expect("relays have ids of 16 bits")
}

impl Links {
    /// Makes room for relays numbered below `stride`, in a matrix or in lists.
    pub(super) fn new(stride: usize, dense: bool) -> Self {
        let pairs = if dense {
            Pairs::Dense(Box::new(Dense::new(stride)))
        } else {
            Pairs::Sparse(Sparse::new(stride))
        };
        Self { pairs, parallel: HashMap::new() }
    }

    /// Whether a matrix suits so many links of so many relays. Lists are kept until there are clearly more links, and
    /// the other way round, so that a mesh at the limit does not change back and forth.
    pub(super) fn suits_matrix(&self, links: usize, relays: usize) -> bool {
        let share = match &self.pairs {
            Pairs::Dense(_) => FILLED_SHARE * 2,
            Pairs::Sparse(_) => FILLED_SHARE,
        };
        relays <= SMALL_MAX || links * share >= relays * relays
    }

    pub(super) fn is_matrix(&self) -> bool {
        matches!(self.pairs, Pairs::Dense(_))
    }

    /// Sets the usable links of a pair; none takes them away.
    pub(super) fn set(&mut self, from: usize, to: usize, lines: &[Line]) {
        let hops = std::array::from_fn(|class| {
            let cheapest = lines.iter().min_by_key(|line| (line.cost[class], line.index));
            cheapest.map_or(Hop::NONE, |line| Hop::of(line, class))
        });
        match &mut self.pairs {
            Pairs::Dense(dense) => dense.set(from, to, hops),
            Pairs::Sparse(sparse) => sparse.set(from, to, hops),
        }
        let key = (narrow(from), narrow(to));
        if lines.len() > 1 {
            self.parallel.insert(key, lines.to_vec());
        } else {
            self.parallel.remove(&key);
        }
    }

    /// Whether these are the usable links of a pair.
    pub(super) fn is(&self, from: usize, to: usize, lines: &[Line]) -> bool {
        let parallel = self.parallel.get(&(narrow(from), narrow(to)));
        match lines {
            [] => (0..CLASSES).all(|class| self.cost(class, from, to) >= NONE),
            [line] => {
                let same = |class| self.hop(class, from, to) == Some(Hop::of(line, class));
                parallel.is_none() && (0..CLASSES).all(same)
            }
            lines => parallel.is_some_and(|known| known == lines),
        }
    }

    /// The cheapest link of a pair, if any is usable.
    #[inline]
    pub(super) fn hop(&self, class: usize, from: usize, to: usize) -> Option<Hop> {
        let hop = match &self.pairs {
            Pairs::Dense(dense) => dense.hops[class][from * dense.stride + to],
            Pairs::Sparse(sparse) => sparse.hop(class, from, to),
        };
        (hop.cost < NONE).then_some(hop)
    }

    /// What the cheapest link of a pair costs; [`NONE`] if there is none.
    #[inline]
    pub(super) fn cost(&self, class: usize, from: usize, to: usize) -> u32 {
        match &self.pairs {
            Pairs::Dense(dense) => {
                dense.outward[class][to / CHUNK * dense.stride + from][to % CHUNK]
            }
            Pairs::Sparse(sparse) => sparse.cost(class, from, to),
        }
    }

    /// The same, where the links that reach one relay are asked for one after the other.
    #[inline]
    pub(super) fn cost_to(&self, class: usize, from: usize, to: usize) -> u32 {
        match &self.pairs {
            Pairs::Dense(dense) => dense.inward[class][to * dense.stride + from],
            Pairs::Sparse(sparse) => sparse.hop_to(class, from, to).cost,
        }
    }

    /// Whether the cheapest link of every pair is the one of index 0.
    #[inline]
    pub(super) fn is_plain(&self, class: usize) -> bool {
        match &self.pairs {
            Pairs::Dense(dense) => dense.indexed[class] == 0,
            Pairs::Sparse(_) => false,
        }
    }

    /// The index of the cheapest link of a pair that has one.
    #[inline]
    pub(super) fn index(&self, class: usize, from: usize, to: usize) -> u8 {
        match &self.pairs {
            Pairs::Dense(dense) if dense.indexed[class] == 0 => 0,
            Pairs::Dense(dense) => dense.index[class][from * dense.stride + to],
            Pairs::Sparse(sparse) => sparse.index(class, from, to),
        }
    }

    /// What links to a relay cost, by sender, if there is a matrix.
    #[inline]
    pub(super) fn inward(&self, class: usize, to: usize) -> Option<&[u32]> {
        match &self.pairs {
            Pairs::Dense(dense) => {
                Some(&dense.inward[class][to * dense.stride..(to + 1) * dense.stride])
            }
            Pairs::Sparse(_) => None,
        }
    }

    /// A certain link of a pair, if it is usable.
    #[inline]
    pub(super) fn line(&self, class: usize, from: usize, to: usize, index: u8) -> Option<Hop> {
        let cheapest = self.hop(class, from, to)?;
        self.by_index(cheapest, class, (from, to), index)
    }

    /// The same, where the links that reach one relay are asked for one after the other.
    #[inline]
    pub(super) fn line_to(&self, class: usize, from: usize, to: usize, index: u8) -> Option<Hop> {
        let cheapest = match &self.pairs {
            Pairs::Dense(dense) => dense.hops_inward[class][to * dense.stride + from],
            Pairs::Sparse(sparse) => sparse.hop_to(class, from, to),
        };
        if cheapest.cost < NONE { self.by_index(cheapest, class, (from, to), index) } else { None }
    }

    #[inline]
    fn by_index(
        &self,
        cheapest: Hop,
        class: usize,
        (from, to): (usize, usize),
        index: u8,
    ) -> Option<Hop> {
        if cheapest.index == index {
            return Some(cheapest);
        }
        let lines = self.parallel.get(&(narrow(from), narrow(to)))?;
        let line = lines.iter().find(|line| line.index == index)?;
        Some(Hop::of(line, class))
    }

    /// The cheapest link of a pair beside a certain one.
    pub(super) fn other_line(
        &self,
        class: usize,
        from: usize,
        to: usize,
        index: u8,
    ) -> Option<Hop> {
        let lines = self.parallel.get(&(narrow(from), narrow(to)))?.iter();
        let others = lines.filter(|line| line.index != index);
        let line = others.min_by_key(|line| (line.cost[class], line.index))?;
        Some(Hop::of(line, class))
    }

    /// The matrix by sender, if there is one.
    pub(super) fn rows(&self, class: usize) -> Option<Rows<'_>> {
        match &self.pairs {
            Pairs::Dense(dense) => Some(Rows {
                cost: &dense.outward[class],
                least: &dense.outward_least[class],
                stride: dense.stride,
            }),
            Pairs::Sparse(_) => None,
        }
    }

    /// The links to a relay as a column of the matrix, if there is one.
    pub(super) fn column<'a>(
        &'a self,
        class: usize,
        to: usize,
        mask: &'a [u32],
    ) -> Option<Column<'a>> {
        let Pairs::Dense(dense) = &self.pairs else { return None };
        let (stride, blocks) = (dense.stride, blocks_padded(dense.stride));
        Some(Column {
            cost: &dense.inward[class][to * stride..(to + 1) * stride],
            least: &dense.inward_least[class][to * blocks..(to + 1) * blocks],
            mask,
        })
    }

    /// The links that leave a relay: the other end's number and the cost.
    pub(super) fn from(&self, class: usize, from: usize) -> impl Iterator<Item = (usize, u32)> {
        let (row, (ends, hops)) = match &self.pairs {
            Pairs::Dense(dense) => (Some(dense.row(class, from)), (&[][..], &[][..])),
            Pairs::Sparse(sparse) => (None, sparse.from(class, from)),
        };
        let row = row.into_iter().flatten().copied();
        let dense = row.enumerate().filter(|(_, cost)| *cost < NONE);
        dense.chain(ends.iter().zip(hops).map(|(end, hop)| (usize::from(*end), hop.cost)))
    }

    /// The links that reach a relay: the other end's number and the cost.
    pub(super) fn to(&self, class: usize, to: usize) -> impl Iterator<Item = (usize, u32)> {
        let (row, (ends, hops)) = match &self.pairs {
            Pairs::Dense(dense) => {
                let row = &dense.inward[class][to * dense.stride..(to + 1) * dense.stride];
                (row, (&[][..], &[][..]))
            }
            Pairs::Sparse(sparse) => (&[][..], sparse.to(class, to)),
        };
        let dense = row.iter().copied().enumerate().filter(|(_, cost)| *cost < NONE);
        dense.chain(ends.iter().zip(hops).map(|(end, hop)| (usize::from(*end), hop.cost)))
    }

    /// The links that leave a relay as lists, if there is no matrix: numbers in order, and links.
    #[inline]
    pub(super) fn list_from(&self, class: usize, from: usize) -> Option<(&[u16], &[Hop])> {
        match &self.pairs {
            Pairs::Dense(_) => None,
            Pairs::Sparse(sparse) => Some(sparse.from(class, from)),
        }
    }

    /// The same of the links that reach a relay.
    #[inline]
    pub(super) fn list_to(&self, class: usize, to: usize) -> Option<(&[u16], &[Hop])> {
        match &self.pairs {
            Pairs::Dense(_) => None,
            Pairs::Sparse(sparse) => Some(sparse.to(class, to)),
        }
    }
}
