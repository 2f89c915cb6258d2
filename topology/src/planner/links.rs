//! What links cost, by number of their ends: a matrix for a mesh in which nearly everybody has links with
//! everybody, lists of neighbours for a larger one.
//!
//! Between two relays only the cheapest link of each class takes part in the search. The others are known
//! too, for a path may be on one of them.

use std::collections::HashMap;

use overway_wire::Class;

use super::kernel::{BLOCK, BLOCKS_MAX, CHUNK, Column, NONE, Rows, blocks_padded};

/// The longest row of a matrix. Beyond, a matrix would take longer to go through than the lists.
pub(super) const DENSE_STRIDE_MAX: usize = BLOCK * BLOCKS_MAX;
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

/// Rows of `stride`, by class.
#[derive(Clone, Debug)]
struct Dense {
    stride: usize,
    /// By chunk of receivers, then by sender: what is looked at one after the other lies together.
    outward: [Vec<[u32; CHUNK]>; CLASSES],
    outward_least: [Vec<u32>; CLASSES],
    inward: [Vec<u32>; CLASSES],
    inward_least: [Vec<u32>; CLASSES],
    /// By sender, then by receiver: the first and the last link of a path are near those looked at before.
    hops: [Vec<Hop>; CLASSES],
    hops_inward: [Vec<Hop>; CLASSES],
    /// The indices alone, by sender: these stay in the cache.
    index: [Vec<u8>; CLASSES],
    /// How many of them are not zero.
    indexed: [usize; CLASSES],
}

/// Neighbours in order of number.
#[derive(Clone, Debug)]
struct Sparse {
    outward: Vec<Vec<(u16, [Hop; CLASSES])>>,
    inward: Vec<Vec<(u16, [u32; CLASSES])>>,
}

fn narrow(number: usize) -> u16 {
    u16::try_from(number).expect("relays have ids of 16 bits")
}

impl Links {
    /// Makes room for relays numbered below `stride`; in a matrix, if that is not above `dense_max`.
    pub(super) fn new(stride: usize, dense_max: usize) -> Self {
        let pairs = if stride <= dense_max {
            Pairs::Dense(Box::new(Dense::new(stride)))
        } else {
            let (outward, inward) = (vec![Vec::new(); stride], vec![Vec::new(); stride]);
            Pairs::Sparse(Sparse { outward, inward })
        };
        Self { pairs, parallel: HashMap::new() }
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
            Pairs::Sparse(sparse) => sparse.hop(class, from, to).cost,
        }
    }

    /// The index of the cheapest link of a pair that has one.
    #[inline]
    pub(super) fn index(&self, class: usize, from: usize, to: usize) -> u8 {
        match &self.pairs {
            Pairs::Dense(dense) if dense.indexed[class] == 0 => 0,
            Pairs::Dense(dense) => dense.index[class][from * dense.stride + to],
            Pairs::Sparse(sparse) => sparse.hop(class, from, to).index,
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
            Pairs::Sparse(sparse) => sparse.hop(class, from, to),
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

    /// The links that leave a relay, cheapest first, then by number.
    pub(super) fn cheapest_first(&self, class: usize, from: usize, order: &mut Vec<(u32, u32)>) {
        order.clear();
        match &self.pairs {
            Pairs::Dense(dense) => {
                let chunks = dense.outward[class].iter().skip(from).step_by(dense.stride);
                for (chunk, cells) in (0..).step_by(CHUNK).zip(chunks) {
                    let known = (chunk..).zip(cells).filter(|(_, cost)| **cost < NONE);
                    order.extend(known.map(|(to, cost)| (*cost, to)));
                }
            }
            Pairs::Sparse(sparse) => {
                let row = sparse.outward[from].iter();
                order.extend(row.map(|(to, hops)| (hops[class].cost, u32::from(*to))));
            }
        }
        order.sort_unstable();
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
        let (row, list) = match &self.pairs {
            Pairs::Dense(dense) => (Some(dense.row(class, from)), &[][..]),
            Pairs::Sparse(sparse) => (None, &sparse.outward[from][..]),
        };
        let row = row.into_iter().flatten().copied();
        let dense = row.enumerate().filter(|(_, cost)| *cost < NONE);
        let sparse = list.iter().map(move |(to, hops)| (usize::from(*to), hops[class].cost));
        dense.chain(sparse)
    }

    /// The links that reach a relay: the other end's number and the cost.
    pub(super) fn to(&self, class: usize, to: usize) -> impl Iterator<Item = (usize, u32)> {
        let (row, list) = match &self.pairs {
            Pairs::Dense(dense) => {
                (&dense.inward[class][to * dense.stride..(to + 1) * dense.stride], &[][..])
            }
            Pairs::Sparse(sparse) => (&[][..], &sparse.inward[to][..]),
        };
        let dense = row.iter().copied().enumerate().filter(|(_, cost)| *cost < NONE);
        let sparse = list.iter().map(move |(from, costs)| (usize::from(*from), costs[class]));
        dense.chain(sparse)
    }
}

impl Dense {
    fn new(stride: usize) -> Self {
        let cells = || std::array::from_fn(|_| vec![NONE; stride * stride]);
        Self {
            stride,
            outward: std::array::from_fn(|_| vec![[NONE; CHUNK]; stride * stride / CHUNK]),
            outward_least: std::array::from_fn(|_| vec![NONE; stride * stride / CHUNK]),
            inward: cells(),
            inward_least: std::array::from_fn(|_| vec![NONE; stride * blocks_padded(stride)]),
            hops: std::array::from_fn(|_| vec![Hop::NONE; stride * stride]),
            hops_inward: std::array::from_fn(|_| vec![Hop::NONE; stride * stride]),
            index: std::array::from_fn(|_| vec![0; stride * stride]),
            indexed: [0; CLASSES],
        }
    }

    /// What links from a relay cost, by receiver.
    fn row(&self, class: usize, from: usize) -> impl Iterator<Item = &u32> {
        self.outward[class].iter().skip(from).step_by(self.stride).flatten()
    }

    fn set(&mut self, from: usize, to: usize, hops: [Hop; CLASSES]) {
        for (class, hop) in hops.into_iter().enumerate() {
            let at = from * self.stride + to;
            self.hops[class][at] = hop;
            self.hops_inward[class][to * self.stride + from] = hop;
            let before = std::mem::replace(&mut self.index[class][at], hop.index);
            self.indexed[class] += usize::from(hop.index != 0);
            self.indexed[class] -= usize::from(before != 0);
            let group = to / CHUNK * self.stride + from;
            let cells = &mut self.outward[class][group];
            replace(cells, &mut self.outward_least[class][group], to % CHUNK, hop.cost);
            let group = to * blocks_padded(self.stride) + from / BLOCK;
            let start = to * self.stride + from / BLOCK * BLOCK;
            let cells = &mut self.inward[class][start..start + BLOCK];
            replace(cells, &mut self.inward_least[class][group], from % BLOCK, hop.cost);
        }
    }
}

/// Sets one of some cells of which the least is known.
fn replace(cells: &mut [u32], least: &mut u32, at: usize, cost: u32) {
    let before = std::mem::replace(&mut cells[at], cost);
    if cost <= *least {
        *least = cost;
    } else if before == *least {
        *least = cells.iter().copied().min().unwrap_or(NONE);
    }
}

impl Sparse {
    fn hop(&self, class: usize, from: usize, to: usize) -> Hop {
        let row = &self.outward[from];
        let at = row.binary_search_by_key(&to, |(to, _)| usize::from(*to));
        at.map_or(Hop::NONE, |at| row[at].1[class])
    }

    fn set(&mut self, from: usize, to: usize, hops: [Hop; CLASSES]) {
        let usable = hops.iter().any(|hop| hop.cost < NONE);
        put(&mut self.outward[from], narrow(to), usable.then_some(hops));
        put(&mut self.inward[to], narrow(from), usable.then_some(hops.map(|hop| hop.cost)));
    }
}

fn put<T>(list: &mut Vec<(u16, T)>, key: u16, value: Option<T>) {
    match (list.binary_search_by_key(&key, |(key, _)| *key), value) {
        (Ok(at), Some(value)) => list[at].1 = value,
        (Ok(at), None) => {
            list.remove(at);
        }
        (Err(at), Some(value)) => list.insert(at, (key, value)),
        (Err(_), None) => {}
    }
}
