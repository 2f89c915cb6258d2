//! What an exact computation on a profile says that the mesh should find.

use std::collections::BTreeMap;

use overway_topology::oracle::{self, Exact};
use overway_wire::Micros;

use super::Profile;

/// Shares and gains of pairs whose path over other relays is faster than the direct one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Improvement {
    /// Ordered pairs.
    pub pairs: usize,
    /// Of these, improved.
    pub improved: usize,
    /// Median of what the improved ones gain, in milliseconds; 0 if there are none.
    pub median_gain_ms: f64,
}

impl Improvement {
    /// Improved pairs as a share of all.
    pub fn share(&self) -> f64 {
        if self.pairs == 0 { 0.0 } else { self.improved as f64 / self.pairs as f64 }
    }
}

/// Summarises (direct, overlay) delays of pairs.
pub fn improvement(delays: impl IntoIterator<Item = (Micros, Micros)>) -> Improvement {
    let mut pairs = 0;
    let mut gains_us = Vec::new();
    for (direct, overlay) in delays {
        pairs += 1;
        if overlay < direct {
            gains_us.push(direct.0 - overlay.0);
        }
    }
    gains_us.sort_unstable();
    let middle = match gains_us.len() {
        0 => 0.0,
        len if len % 2 == 1 => f64::from(gains_us[len / 2]),
        len => f64::midpoint(f64::from(gains_us[len / 2 - 1]), f64::from(gains_us[len / 2])),
    };
    Improvement { pairs, improved: gains_us.len(), median_gain_ms: middle / 1e3 }
}

/// Every ordered pair of `count` relays.
pub fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |a| (0..count).filter(move |&b| b != a).map(move |b| (a, b)))
}

impl Profile {
    /// The shortest path of every ordered pair, by average delays, with at most two intermediates.
    pub fn exact(&self) -> BTreeMap<(usize, usize), Exact> {
        let count = self.relays.len();
        let cell = |a: usize, b: usize| (a != b).then(|| self.mean_delay(a, b));
        let row = |a| (0..count).map(|b| cell(a, b)).collect();
        let matrix: Vec<Vec<Option<Micros>>> = (0..count).map(row).collect();
        oracle::exact(&matrix, Micros(0))
    }

    /// What the shortest paths gain over the direct ones.
    pub fn improvement_exact(&self) -> Improvement {
        let exact = self.exact();
        improvement(exact.iter().map(|(&(a, b), found)| (self.mean_delay(a, b), found.best)))
    }

    /// Up to `count` pairs for flows whose transit relays are to fail: those that gain most from a transit
    /// relay, such that none's transit is another's end (an end's death is not what is drilled).
    pub fn transit_pairs(&self, count: usize) -> Vec<(usize, usize)> {
        let exact = self.exact();
        let mut found: Vec<(&(usize, usize), &Exact)> =
            exact.iter().filter(|(_, found)| !found.via.is_empty()).collect();
        let gain = |&(&(a, b), found): &(&(usize, usize), &Exact)| {
            self.mean_delay(a, b).0.saturating_sub(found.best.0)
        };
        found.sort_by_key(|pair| (std::cmp::Reverse(gain(pair)), *pair.0));
        let mut chosen = Vec::new();
        let (mut ends, mut transits) = (Vec::new(), Vec::new());
        for (&(a, b), found) in found {
            let clash = transits.contains(&a)
                || transits.contains(&b)
                || found.via.iter().any(|relay| ends.contains(relay));
            if clash || chosen.len() == count {
                continue;
            }
            chosen.push((a, b));
            ends.extend([a, b]);
            transits.extend(&found.via);
        }
        chosen
    }
}
