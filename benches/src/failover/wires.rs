//! Which pairs of relays the flows run between, from the profile alone.
//!
//! Wanted are flows that share a transit relay, and share another one as soon as that has failed, and so
//! on: then every failure is felt by many flows at once, and the next one need not wait until the mesh
//! takes the first relay again. So, first, the two relays whose traffic *both ways* finds a new transit
//! relay most often while the last two to fail are out. Then a pair further away, with two intermediates:
//! it reaches the first transit relay over another, so that a failure there is met by a relay in the
//! middle and not by the source itself.

use std::collections::BTreeSet;

use overway::lab::profile::{Profile, pairs};
use overway::lab::world::Wire;

/// Failures in a row that are looked at: the third may use the first's relay again.
const FAILURES: usize = 6;
/// Relays that are out at the same time: the one that fails and the one before, which is not yet trusted.
const OUT: usize = 2;

/// Pairs for the flows, as (entry, exit): a pair both ways, and one with two intermediates if there is one.
/// Empty if no path of the profile has a transit relay.
pub(super) fn choose(profile: &Profile) -> Vec<(usize, usize)> {
    let count = profile.relays().len();
    let score = |&(a, b): &(usize, usize)| {
        let (there, back) = (transits(profile, a, b, &[]), transits(profile, b, a, &[]));
        let common = there.iter().zip(&back).filter(|(one, other)| one == other).count();
        let delay = profile.mean_delay(a, b).0.saturating_add(profile.mean_delay(b, a).0);
        (there.len().min(back.len()), common, std::cmp::Reverse(delay))
    };
    let both_ways = pairs(count).filter(|(a, b)| a < b).max_by_key(score);
    let Some((a, b)) = both_ways.filter(|pair| score(pair).0 > 0) else { return Vec::new() };
    let mut chosen = vec![(a, b), (b, a)];
    chosen.extend(farther(profile, a, b));
    chosen
}

/// The wires that flows over the same links use: the first pair's, one way.
pub(super) fn one_way(wires: &[Wire]) -> &[Wire] {
    &wires[..wires.len().min(1)]
}

/// A pair whose best path reaches the first transit relay of (a, b) or (b, a) as its second intermediate.
fn farther(profile: &Profile, a: usize, b: usize) -> Option<(usize, usize)> {
    let sequences = [transits(profile, a, b, &[]), transits(profile, b, a, &[])];
    let first: BTreeSet<usize> = sequences.iter().filter_map(|all| all.first()).copied().collect();
    let transit: BTreeSet<usize> = sequences.into_iter().flatten().collect();
    let fits = |&(from, to): &(usize, usize)| {
        let best = best(profile, from, to, &[]);
        let apart = !transit.contains(&from) && !transit.contains(&to);
        let middle = &best[1..best.len() - 1];
        apart && middle.len() == 2 && first.contains(&middle[1]) && ![a, b].contains(&middle[0])
    };
    let gain = |&(from, to): &(usize, usize)| {
        let overlay = profile.path_delay(&best(profile, from, to, &[]));
        let lasting = transits(profile, from, to, &[a, b]).len();
        (lasting, profile.mean_delay(from, to).0.saturating_sub(overlay.0))
    };
    pairs(profile.relays().len()).filter(fits).max_by_key(gain)
}

/// The relays that fail one after the other, each the last transit relay of the then best path; ends when
/// that is direct.
fn transits(profile: &Profile, from: usize, to: usize, spared: &[usize]) -> Vec<usize> {
    let mut failed: Vec<usize> = Vec::new();
    while failed.len() < FAILURES {
        let out = &failed[failed.len().saturating_sub(OUT)..];
        let path = best(profile, from, to, out);
        let middle = &path[1..path.len() - 1];
        match middle.iter().rev().find(|relay| !spared.contains(relay)) {
            Some(&relay) => failed.push(relay),
            None => break,
        }
    }
    failed
}

/// The shortest path with at most two intermediates, none of them `out`.
fn best(profile: &Profile, from: usize, to: usize, out: &[usize]) -> Vec<usize> {
    let free = |relay: &usize| *relay != from && *relay != to && !out.contains(relay);
    let middle: Vec<usize> = (0..profile.relays().len()).filter(free).collect();
    let two = middle
        .iter()
        .flat_map(|&x| middle.iter().filter(move |&&y| y != x).map(move |&y| vec![from, x, y, to]));
    let one = middle.iter().map(|&x| vec![from, x, to]);
    let all = std::iter::once(vec![from, to]).chain(one).chain(two);
    all.min_by_key(|path| profile.path_delay(path)).expect("the direct path is one of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: &Profile, path: &[usize]) -> Vec<String> {
        path.iter().map(|&relay| profile.relay_name(relay).to_owned()).collect()
    }

    #[test]
    fn the_default_profile_has_a_pair_that_finds_new_transits_both_ways() {
        let profile = Profile::world();
        let chosen = choose(&profile);

        assert_eq!(chosen.len(), 3, "{chosen:?}");
        assert_eq!(chosen[1], (chosen[0].1, chosen[0].0));
        for &(from, to) in &chosen[..2] {
            assert_eq!(transits(&profile, from, to, &[]).len(), FAILURES);
        }
        let first = transits(&profile, chosen[0].0, chosen[0].1, &[])[0];
        let path = best(&profile, chosen[2].0, chosen[2].1, &[]);
        assert_eq!((path.len(), path[2]), (4, first), "{:?}", names(&profile, &path));
    }

    #[test]
    fn no_end_of_a_flow_is_another_flows_transit() {
        let profile = Profile::world();
        let chosen = choose(&profile);
        let ends: BTreeSet<usize> = chosen.iter().flat_map(|&(a, b)| [a, b]).collect();

        for &(from, to) in &chosen[..2] {
            assert!(transits(&profile, from, to, &[]).iter().all(|relay| !ends.contains(relay)));
        }
    }

    #[test]
    fn a_failed_relay_is_avoided() {
        let profile = Profile::world();
        let (from, to) = choose(&profile)[0];

        let path = best(&profile, from, to, &[]);
        let around = best(&profile, from, to, &path[1..2]);

        assert!(!around.contains(&path[1]));
        assert!(profile.path_delay(&around) > profile.path_delay(&path));
    }
}
