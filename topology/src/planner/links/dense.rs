//! The links of a mesh in which nearly everybody has links with everybody.

use super::{BLOCK, CHUNK, CLASSES, Hop, NONE, blocks_padded};

/// Rows of `stride`, by class.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    pub(super) stride: usize,
    /// By chunk of receivers, then by sender: what is looked at one after the other lies together.
    pub(super) outward: [Vec<[u32; CHUNK]>; CLASSES],
    pub(super) outward_least: [Vec<u32>; CLASSES],
    pub(super) inward: [Vec<u32>; CLASSES],
    pub(super) inward_least: [Vec<u32>; CLASSES],
    /// By sender, then by receiver: the first and the last link of a path are near those looked at before.
    pub(super) hops: [Vec<Hop>; CLASSES],
    pub(super) hops_inward: [Vec<Hop>; CLASSES],
    /// The indices alone, by sender: these stay in the cache.
    pub(super) index: [Vec<u8>; CLASSES],
    /// How many of them are not zero.
    pub(super) indexed: [usize; CLASSES],
}

impl Dense {
    pub(super) fn new(stride: usize) -> Self {
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
    pub(super) fn row(&self, class: usize, from: usize) -> impl Iterator<Item = &u32> {
        self.outward[class].iter().skip(from).step_by(self.stride).flatten()
    }

    pub(super) fn set(&mut self, from: usize, to: usize, hops: [Hop; CLASSES]) {
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
