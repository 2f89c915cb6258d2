//! Which pairs the mesh serves better than their direct lines.

use overway_wire::{Class, Micros};

use crate::lab::profile::{self, Improvement};
use crate::lab::world::World;

/// A pair whose overlay path is faster, by the profile's delays.
#[derive(Clone, Debug, PartialEq)]
pub struct ImprovedPair {
    /// The relays of the path.
    pub path: Vec<usize>,
    /// The direct line's delay.
    pub direct: Micros,
    /// The path's.
    pub overlay: Micros,
}

/// What the mesh found, and what an exact computation finds.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// By the paths that realtime frames would take now.
    pub mesh: Improvement,
    /// By the shortest paths.
    pub exact: Improvement,
    /// The improved pairs, the most improved first.
    pub improved: Vec<ImprovedPair>,
}

impl ImprovedPair {
    /// One line for people.
    pub fn text(&self, world: &World) -> String {
        let [direct, overlay] = [self.direct, self.overlay].map(|delay| f64::from(delay.0) / 1e3);
        let gain = direct - overlay;
        let path = world.path_text(&self.path);
        format!("{path}: {overlay:.0} ms instead of {direct:.0} ms, {gain:.0} ms less")
    }
}

/// Asks every relay for its paths, and looks up their true delays in the profile.
///
/// # Errors
/// A relay does not answer.
pub fn pairs(world: &World) -> anyhow::Result<Pairs> {
    let profile = world.profile();
    let count = profile.relays().len();
    let (mut delays, mut improved) = (Vec::new(), Vec::new());
    for from in 0..count {
        let status = world.relay_status(from)?;
        for to in (0..count).filter(|&to| to != from) {
            let direct = profile.mean_delay(from, to);
            // A pair without a path is served no better than directly.
            let path = world.path_in(&status, from, to, Class::Realtime).unwrap_or(vec![from, to]);
            let overlay = profile.path_delay(&path);
            delays.push((direct, overlay));
            if overlay < direct {
                improved.push(ImprovedPair { path, direct, overlay });
            }
        }
    }
    improved.sort_by_key(|pair| std::cmp::Reverse(pair.direct.0 - pair.overlay.0));
    Ok(Pairs { mesh: profile::improvement(delays), exact: profile.improvement_exact(), improved })
}
