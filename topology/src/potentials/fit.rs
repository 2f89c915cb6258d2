//! The numerical steps of the fit, on relays numbered from zero. All in integers, in a fixed order, so
//! that every platform finds the same offsets.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use overway_wire::Micros;

/// Sweeps over all relays. In a full mesh three suffice; the tree is a good start elsewhere.
const SWEEPS_MAX: usize = 32;
/// Added to each round trip before it is inverted, so that a link of some microseconds does not outweigh
/// all others together.
const RTT_FLOOR_US: i64 = 1_000;
/// Weight of a link with the shortest round trip.
const WEIGHT_MAX: i64 = 1 << 30;

/// A measured difference of two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    from: usize,
    to: usize,
    /// Offset of `to` less that of `from`.
    shift_us: i64,
    rtt: Micros,
}

/// First offsets, and which relays they compare.
pub(super) struct Forest {
    pub(super) offsets: Vec<i64>,
    /// The least relay of each relay's component.
    pub(super) component: Vec<usize>,
}

impl Pair {
    pub(super) fn new(from: usize, to: usize, shift_us: i64, rtt: Micros) -> Self {
        Self { from, to, shift_us, rtt }
    }

    fn weight(&self) -> i64 {
        WEIGHT_MAX / (RTT_FLOOR_US + i64::from(self.rtt.0))
    }
}

/// One neighbour of a relay, as a pair tells it.
#[derive(Clone, Copy)]
struct Neighbour {
    relay: usize,
    /// The relay's offset less this neighbour's.
    shift_us: i64,
    weight: i64,
    rtt: Micros,
}

fn neighbours(relays: usize, pairs: &[Pair]) -> Vec<Vec<Neighbour>> {
    let mut lists = vec![Vec::new(); relays];
    for pair in pairs {
        let (weight, rtt) = (pair.weight(), pair.rtt);
        let mut add = |at: usize, relay, shift_us| {
            lists[at].push(Neighbour { relay, shift_us, weight, rtt });
        };
        add(pair.to, pair.from, pair.shift_us);
        add(pair.from, pair.to, -pair.shift_us);
    }
    lists
}

/// The pairs that are among the shortest `per_relay` of either end.
pub(super) fn shortest(relays: usize, pairs: &[Pair], per_relay: usize) -> Vec<Pair> {
    let mut order: Vec<&Pair> = pairs.iter().collect();
    order.sort_by_key(|pair| (pair.rtt, pair.from, pair.to));
    let mut taken = vec![0; relays];
    let mut kept: Vec<Pair> = Vec::new();
    for pair in order {
        if taken[pair.from].min(taken[pair.to]) < per_relay {
            taken[pair.from] += 1;
            taken[pair.to] += 1;
            kept.push(*pair);
        }
    }
    kept.sort_by_key(|pair| (pair.from, pair.to));
    kept
}

/// Offsets along a tree of the shortest round trips per component (Prim).
pub(super) fn spanning_forest(relays: usize, pairs: &[Pair]) -> Forest {
    let neighbours = neighbours(relays, pairs);
    let mut offsets = vec![0; relays];
    let mut component = vec![usize::MAX; relays];
    for root in 0..relays {
        let mut open = BinaryHeap::from([Reverse((Micros(0), root, 0))]);
        while let Some(Reverse((_, relay, offset))) = open.pop() {
            if component[relay] != usize::MAX {
                continue;
            }
            component[relay] = root;
            offsets[relay] = offset;
            for near in neighbours[relay].iter().filter(|near| component[near.relay] == usize::MAX)
            {
                open.push(Reverse((near.rtt, near.relay, offset - near.shift_us)));
            }
        }
    }
    Forest { offsets, component }
}

/// Moves each offset to the weighted mean of what its neighbours say it is, until nothing moves.
pub(super) fn least_squares(mut offsets: Vec<i64>, pairs: &[Pair]) -> Vec<i64> {
    let neighbours = neighbours(offsets.len(), pairs);
    for _ in 0..SWEEPS_MAX {
        let mut moved = false;
        for (relay, near) in neighbours.iter().enumerate() {
            let own = offsets[relay];
            let sum: i128 = near
                .iter()
                .map(|n| i128::from(n.weight) * i128::from(offsets[n.relay] + n.shift_us - own))
                .sum();
            let weight: i128 = near.iter().map(|n| i128::from(n.weight)).sum();
            let step = if weight == 0 { 0 } else { sum / weight };
            offsets[relay] += i64::try_from(step).expect("a mean is within its range");
            moved |= step != 0;
        }
        if !moved {
            break;
        }
    }
    offsets
}

/// Moves each offset, from zero, to the median of what its neighbours say it is. All count alike, or a
/// change of a relay's shortest link would outvote the rest.
pub(super) fn medians(relays: usize, pairs: &[Pair]) -> Vec<i64> {
    let neighbours = neighbours(relays, pairs);
    let mut offsets = vec![0; relays];
    for _ in 0..SWEEPS_MAX {
        let mut moved = false;
        for (relay, near) in neighbours.iter().enumerate().filter(|(_, near)| !near.is_empty()) {
            let mut said: Vec<i64> = near.iter().map(|n| offsets[n.relay] + n.shift_us).collect();
            said.sort_unstable();
            // Between the two in the middle every value is a median: the nearest one is taken.
            let median = offsets[relay].clamp(said[(said.len() - 1) / 2], said[said.len() / 2]);
            moved |= median != offsets[relay];
            offsets[relay] = median;
        }
        if !moved {
            break;
        }
    }
    offsets
}

/// What to add to the potentials so that no arc `(from, to, us)` is negative any more, where that is
/// possible: potentials are lowered until `us + from - to >= 0` for all, at most once around.
pub(super) fn repair(relays: usize, arcs: &[(usize, usize, i64)]) -> Vec<i64> {
    let mut potentials = vec![0_i64; relays];
    for _ in 0..relays {
        let mut moved = false;
        for &(from, to, us) in arcs {
            let most = potentials[from] + us;
            if potentials[to] > most {
                potentials[to] = most;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    potentials
}
