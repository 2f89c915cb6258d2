//! The cheapest ways from one source over one relay to each other one.

use super::{BLOCK, CHUNK, LANES, NONE, Rows, WAYS, blocks_padded, part};

/// The cheapest ways from one source over one relay to each other relay: the cheapest, the cheapest whose
/// first relay has another label, and the cheapest whose first relay has a third one. As two labels are
/// barred at most, one of the three is always the cheapest that is allowed.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Ways {
    pub(super) lanes: Vec<WaysOfLanes>,
    /// Least of the first costs, by block.
    pub(super) least: Vec<u32>,
    /// In place of these, where links are in lists: a relay's ways by rank, which are asked for relay by relay. Else
    /// empty.
    list: Vec<[(u32, u32); WAYS]>,
}

/// The ways to [`LANES`] relays, by rank: together in memory, since a search looks at all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaysOfLanes {
    pub(super) cost: [[u32; LANES]; WAYS],
    /// Labels of the first relays; `u32::MAX` where there is no way.
    pub(super) label: [[u32; LANES]; WAYS],
}

impl WaysOfLanes {
    /// Lets each way without a label give way to the next, and leaves its cost in the end as a lower bound.
    fn close_up(&mut self) {
        for lane in 0..LANES {
            let mut kept = 0;
            for rank in 0..WAYS {
                if self.label[rank][lane] != 0 {
                    self.cost[kept][lane] = self.cost[rank][lane];
                    self.label[kept][lane] = self.label[rank][lane];
                    kept += 1;
                }
            }
            for rank in kept..WAYS {
                self.cost[rank][lane] = self.cost[WAYS - 1][lane];
                self.label[rank][lane] = 0;
            }
        }
    }
}

/// How many ways are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Ranks {
    /// The cheapest, for searches that bar nothing.
    One,
    /// All of [`WAYS`].
    All,
}

/// Relays that may be first on a way, by label.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Groups {
    /// Cost from the source and number; within a label cheapest first, then by number.
    order: Vec<(u32, u32)>,
    /// Label, and where its relays end in the order; labels by their cheapest relay.
    ends: Vec<(u32, usize)>,
    /// By label: one more than its place among the above, or zero.
    places: Vec<u32>,
}

impl Groups {
    /// Groups relays that come cheapest first; labels are below `count`.
    pub(in super::super) fn fill(
        &mut self,
        firsts: impl Iterator<Item = (u32, u32)> + Clone,
        labels: &[u32],
        count: usize,
    ) {
        self.places.clear();
        self.places.resize(count, 0);
        self.ends.clear();
        for (_, relay) in firsts.clone() {
            let label = labels[relay as usize];
            let place = &mut self.places[label as usize];
            if *place == 0 {
                self.ends.push((label, 0));
                *place =
                    u32::try_from(self.ends.len()).expect("there are fewer labels than relays");
            }
            self.ends[*place as usize - 1].1 += 1;
        }
        // From counts to starts; filling moves each start to its end.
        let mut start = 0;
        for (_, count) in &mut self.ends {
            start += std::mem::replace(count, start);
        }
        self.order.clear();
        self.order.resize(start, (NONE, 0));
        for first in firsts {
            let place = self.places[labels[first.1 as usize] as usize];
            let end = &mut self.ends[place as usize - 1].1;
            self.order[*end] = first;
            *end += 1;
        }
    }

    /// All of them, by label.
    pub(in super::super) fn all(&self) -> &[(u32, u32)] {
        &self.order
    }

    fn slice(&self, place: usize) -> &[(u32, u32)] {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before].1);
        &self.order[start..self.ends[place].1]
    }
}

impl Ways {
    /// Makes room for rows of this length, and forgets what was there.
    pub(in super::super) fn clear(&mut self, stride: usize) {
        let none = WaysOfLanes { cost: [[NONE; LANES]; WAYS], label: [[u32::MAX; LANES]; WAYS] };
        self.list.clear();
        self.lanes.clear();
        self.lanes.resize(stride / LANES, none);
        self.least.clear();
        self.least.resize(blocks_padded(stride), NONE);
    }

    /// The same, for searches over lists.
    pub(in super::super) fn clear_list(&mut self, stride: usize) {
        self.lanes.clear();
        self.least.clear();
        self.list.clear();
        self.list.resize(stride, [(NONE, u32::MAX); WAYS]);
    }

    /// A relay's ways by rank, cost and label each, for searches over lists.
    #[inline]
    pub(in super::super) fn of_mut(&mut self, relay: usize) -> &mut [(u32, u32); WAYS] {
        &mut self.list[relay]
    }

    /// The way of a rank to a relay: cost and label.
    #[inline]
    pub(in super::super) fn get(&self, rank: usize, relay: usize) -> (u32, u32) {
        if let Some(ways) = self.list.get(relay) {
            return ways[rank];
        }
        let lanes = &self.lanes[relay / LANES];
        (lanes.cost[rank][relay % LANES], lanes.label[rank][relay % LANES])
    }

    /// All ways to a relay, by rank.
    pub(in super::super) fn of(&self, relay: usize) -> [(u32, u32); WAYS] {
        std::array::from_fn(|rank| self.get(rank, relay))
    }

    /// Sets all ways to a relay, by rank.
    pub(in super::super) fn put(&mut self, relay: usize, ways: [(u32, u32); WAYS]) {
        (0..).zip(ways).for_each(|(rank, way)| self.set(rank, relay, way));
    }

    /// Takes over the ways of another, over a matrix, each under the label of its first relay. A way over one without a
    /// label, which is zero, is as dear as the next, and zero stays.
    pub(in super::super) fn sign(&mut self, other: &Self, labels: &[u32]) {
        self.list.clear();
        self.least.clone_from(&other.least);
        self.lanes.clone_from(&other.lanes);
        for lanes in &mut self.lanes {
            for label in lanes.label.as_flattened_mut() {
                *label = labels.get(*label as usize).copied().unwrap_or(u32::MAX);
            }
            if lanes.label.as_flattened().contains(&0) {
                lanes.close_up();
            }
        }
    }

    fn set(&mut self, rank: usize, relay: usize, (cost, label): (u32, u32)) {
        if let Some(ways) = self.list.get_mut(relay) {
            ways[rank] = (cost, label);
            return;
        }
        let lanes = &mut self.lanes[relay / LANES];
        lanes.cost[rank][relay % LANES] = cost;
        lanes.label[rank][relay % LANES] = label;
    }

    /// Bars ways to one relay: the source itself.
    pub(in super::super) fn bar(&mut self, relay: usize) {
        (0..WAYS).for_each(|rank| self.set(rank, relay, (NONE, u32::MAX)));
    }

    /// The cheapest way to a relay whose first relay has none of these labels: cost and label.
    #[inline]
    pub(in super::super) fn avoiding(&self, relay: usize, barred: [u32; 2]) -> Option<(u32, u32)> {
        self.rank_avoiding(relay, barred).map(|(_, way)| way)
    }

    /// The same, and of which rank it is.
    #[inline]
    pub(in super::super) fn rank_avoiding(
        &self,
        relay: usize,
        barred: [u32; 2],
    ) -> Option<(usize, (u32, u32))> {
        let mut ways = (0..WAYS).map(|rank| (rank, self.get(rank, relay)));
        ways.find(|(_, (cost, label))| *cost < NONE && !barred.contains(label))
    }

    /// What the way to a relay over this first one costs, if it is one of those kept.
    #[inline]
    pub(in super::super) fn over(&self, relay: usize, first: u32) -> Option<u32> {
        let mut ways = (0..WAYS).map(|rank| self.get(rank, relay));
        ways.find(|(_, label)| *label == first).map(|(cost, _)| cost)
    }

    /// What the cheapest ways cost, by relay, with what `mask` adds.
    pub(in super::super) fn masked(&self, mask: &[u32], costs: &mut Vec<u32>) {
        costs.clear();
        let listed = self.list.iter().zip(mask);
        costs.extend(listed.map(|(ways, mask)| (ways[0].0 + mask).min(NONE)));
        for (lanes, mask) in self.lanes.iter().zip(mask.chunks_exact(LANES)) {
            costs
                .extend(lanes.cost[0].iter().zip(mask).map(|(cost, mask)| (cost + mask).min(NONE)));
        }
    }
}

/// The best of a chunk, by rank. Only the first `RANKS` are kept.
#[derive(Clone, Copy)]
struct Chunk<const RANKS: usize> {
    cost: [[u32; CHUNK]; RANKS],
    label: [[u32; CHUNK]; RANKS],
}

impl<const RANKS: usize> Chunk<RANKS> {
    const EMPTY: Self = Self { cost: [[NONE; CHUNK]; RANKS], label: [[u32::MAX; CHUNK]; RANKS] };

    /// The dearest that is kept of any relay: what is not below it changes nothing.
    #[inline(always)]
    fn worst(&self) -> u32 {
        let mut worst = 0;
        for cost in &self.cost[RANKS - 1] {
            worst = worst.max(*cost);
        }
        worst
    }

    #[inline(always)]
    fn store(&self, at: usize, ways: &mut Ways) {
        for (offset, lanes) in ways.lanes[at / LANES..(at + CHUNK) / LANES].iter_mut().enumerate() {
            for rank in 0..RANKS {
                lanes.cost[rank] = *part(&self.cost[rank], offset * LANES);
                lanes.label[rank] = *part(&self.label[rank], offset * LANES);
            }
        }
        for (block, costs) in self.cost[0].chunks_exact(BLOCK).enumerate() {
            let mut least = NONE;
            for cost in costs {
                least = least.min(*cost);
            }
            ways.least[at / BLOCK + block] = least;
        }
    }
}

/// Takes in ways over labels that were not taken in before.
trait Merge {
    /// Of equals the earlier one stays.
    fn merge(&mut self, new: &[u32; CHUNK], label: u32);
}

impl Merge for Chunk<1> {
    #[inline(always)]
    fn merge(&mut self, new: &[u32; CHUNK], label: u32) {
        let ([cost], [known]) = (&mut self.cost, &mut self.label);
        for i in 0..CHUNK {
            known[i] = if new[i] < cost[i] { label } else { known[i] };
            cost[i] = cost[i].min(new[i]);
        }
    }
}

impl Merge for Chunk<WAYS> {
    #[inline(always)]
    fn merge(&mut self, new: &[u32; CHUNK], label: u32) {
        let [c0, c1, c2] = &mut self.cost;
        let [l0, l1, l2] = &mut self.label;
        for i in 0..CHUNK {
            let v = new[i];
            let (b0, b1, b2) = (v < c0[i], v < c1[i], v < c2[i]);
            let keep2 = if b2 { label } else { l2[i] };
            l2[i] = if b1 { l1[i] } else { keep2 };
            let keep1 = if b1 { label } else { l1[i] };
            l1[i] = if b0 { l0[i] } else { keep1 };
            l0[i] = if b0 { label } else { l0[i] };
            let r1 = c0[i].max(v);
            c0[i] = c0[i].min(v);
            let r2 = c1[i].max(r1);
            c1[i] = c1[i].min(r1);
            c2[i] = c2[i].min(r2);
        }
    }
}

impl Chunk<WAYS> {
    /// The same, but that of equals the one of the lesser label goes first.
    #[inline(always)]
    fn merge_by_label(&mut self, new: &[u32; CHUNK], label: u32) {
        let [c0, c1, c2] = &mut self.cost;
        let [l0, l1, l2] = &mut self.label;
        for i in 0..CHUNK {
            let v = new[i];
            let b0 = (v < c0[i]) | (v == c0[i]) & (label < l0[i]);
            let b1 = (v < c1[i]) | (v == c1[i]) & (label < l1[i]);
            let b2 = (v < c2[i]) | (v == c2[i]) & (label < l2[i]);
            let keep2 = if b2 { label } else { l2[i] };
            l2[i] = if b1 { l1[i] } else { keep2 };
            let keep1 = if b1 { label } else { l1[i] };
            l1[i] = if b0 { l0[i] } else { keep1 };
            l0[i] = if b0 { label } else { l0[i] };
            let r1 = c0[i].max(v);
            c0[i] = c0[i].min(v);
            let r2 = c1[i].max(r1);
            c1[i] = c1[i].min(r1);
            c2[i] = c2[i].min(r2);
        }
    }
}

/// `order` holds cost from the source and number, cheapest first, then by number.
#[inline(always)]
pub(super) fn ways_body(
    rows: Rows<'_>,
    chunk: usize,
    order: &[(u32, u32)],
    ranks: Ranks,
    ways: &mut Ways,
) -> bool {
    match ranks {
        Ranks::One => ways_of::<1>(rows, chunk, order, ways),
        Ranks::All => ways_of::<WAYS>(rows, chunk, order, ways),
    }
}

#[inline(always)]
fn ways_of<const RANKS: usize>(
    rows: Rows<'_>,
    chunk: usize,
    order: &[(u32, u32)],
    ways: &mut Ways,
) -> bool
where
    Chunk<RANKS>: Merge,
{
    let (cells, least) = rows.chunk(chunk);
    let mut best = Chunk::<RANKS>::EMPTY;
    let mut worst = NONE;
    for &(first, relay) in order {
        if first >= worst {
            break;
        }
        if first + least[relay as usize] >= worst {
            continue;
        }
        let next = &cells[relay as usize];
        let mut new = [0; CHUNK];
        let mut better = 0_u32;
        for i in 0..CHUNK {
            new[i] = first + next[i];
            better |= u32::from(new[i] < best.cost[RANKS - 1][i]);
        }
        if better != 0 {
            best.merge(&new, relay);
            worst = best.worst();
        }
    }
    best.store(chunk * CHUNK, ways);
    order.last().is_none_or(|(first, _)| *first >= worst)
}

#[inline(always)]
pub(super) fn labelled_ways_body(rows: Rows<'_>, chunk: usize, groups: &Groups, ways: &mut Ways) {
    let (cells, least) = rows.chunk(chunk);
    let mut best = Chunk::<WAYS>::EMPTY;
    let mut worst = NONE;
    for (place, (label, _)) in groups.ends.iter().enumerate() {
        let mut of_label = [NONE; CHUNK];
        let mut any = false;
        for &(first, relay) in groups.slice(place) {
            // One that costs as much may still go before another label's.
            if first > worst {
                break;
            }
            if first + least[relay as usize] > worst {
                continue;
            }
            any = true;
            let next = &cells[relay as usize];
            for i in 0..CHUNK {
                of_label[i] = of_label[i].min(first + next[i]);
            }
        }
        if any {
            best.merge_by_label(&of_label, *label);
            worst = best.worst();
        }
    }
    best.store(chunk * CHUNK, ways);
}
