//! Shortest paths once more, for checking the mesh's choices against an exact computation from known
//! delays. Shares no code with the planner, and is written to be obviously right rather than fast: it
//! tries every path, so its time grows with the fourth power of the number of relays (100 relays: about
//! a second, optimised).

use std::collections::BTreeMap;

use overway_wire::Micros;

/// What the shortest way between an ordered pair is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exact {
    /// Delay of the direct link, if there is one.
    pub direct: Option<Micros>,
    /// Delay of the shortest path with at most two intermediates, direct included.
    pub best: Micros,
    /// The intermediates of that path, as rows of the matrix.
    pub via: Vec<usize>,
}

/// Tries every path with at most two intermediates between every ordered pair.
///
/// `delays[a][b]` is the one-way delay from `a` to `b`, `None` where there is no link; missing rows and
/// columns count as `None`, the diagonal is not looked at. `per_hop` is added for each intermediate.
/// Pairs without any path have no entry. Among equals the first in order of (intermediates, ids) wins.
pub fn exact(delays: &[Vec<Option<Micros>>], per_hop: Micros) -> BTreeMap<(usize, usize), Exact> {
    let count = delays.len();
    let mut result = BTreeMap::new();
    for from in 0..count {
        for to in (0..count).filter(|&to| to != from) {
            let mut best: Option<(u64, Vec<usize>)> = None;
            let mut consider = |via: &[usize]| {
                if let Some(delay) = delay_along(delays, from, via, to, per_hop)
                    && best.as_ref().is_none_or(|(least, _)| delay < *least)
                {
                    best = Some((delay, via.to_vec()));
                }
            };
            let between = |at: &usize| *at != from && *at != to;
            consider(&[]);
            for first in (0..count).filter(between) {
                consider(&[first]);
            }
            for first in (0..count).filter(between) {
                for second in (0..count).filter(between).filter(|&second| second != first) {
                    consider(&[first, second]);
                }
            }
            if let Some((delay, via)) = best {
                let direct = delay_of(delays, from, to);
                result.insert((from, to), Exact { direct, best: micros(delay), via });
            }
        }
    }
    result
}

fn delay_along(
    delays: &[Vec<Option<Micros>>],
    from: usize,
    via: &[usize],
    to: usize,
    per_hop: Micros,
) -> Option<u64> {
    let mut total = 0;
    let mut at = from;
    for &next in via {
        total += u64::from(delay_of(delays, at, next)?.0) + u64::from(per_hop.0);
        at = next;
    }
    Some(total + u64::from(delay_of(delays, at, to)?.0))
}

fn delay_of(delays: &[Vec<Option<Micros>>], from: usize, to: usize) -> Option<Micros> {
    *delays.get(from)?.get(to)?
}

fn micros(delay_us: u64) -> Micros {
    Micros(u32::try_from(delay_us).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: &[&[u32]]) -> Vec<Vec<Option<Micros>>> {
        let cell = |&delay: &u32| (delay != 0).then_some(Micros(delay));
        rows.iter().map(|row| row.iter().map(cell).collect()).collect()
    }

    #[test]
    fn a_detour_over_two_relays_is_found_where_it_is_shorter() {
        let delays = matrix(&[&[0, 10, 90, 99], &[0, 0, 10, 90], &[0, 0, 0, 10], &[0, 0, 0, 0]]);

        let result = exact(&delays, Micros(0));

        let expected = Exact { direct: Some(Micros(99)), best: Micros(30), via: vec![1, 2] };
        assert_eq!(result[&(0, 3)], expected);
        assert!(!result.contains_key(&(3, 0)));
    }

    #[test]
    fn a_price_per_hop_keeps_near_ties_direct() {
        let delays = matrix(&[&[0, 10, 25], &[10, 0, 10], &[25, 10, 0]]);

        assert_eq!(exact(&delays, Micros(4))[&(0, 2)].via, [1]);
        assert_eq!(exact(&delays, Micros(5))[&(0, 2)].via, []);
    }
}
