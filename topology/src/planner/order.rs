//! The routes that a plan changed, in order of key.
//!
//! A first plan of thousands of relays changes tens of millions: they are put in place by source, and each source's
//! are sorted for themselves, in parallel.

use overway_wire::{Class, PolicyId, RelayId};

use super::numbers::Numbers;
use super::plane::{Told, share};
use crate::{Executor, RouteKey};

/// Sorts the parts of what changed into one list.
pub(super) fn in_order(
    parts: &[Vec<Told>],
    numbers: &Numbers,
    executor: &dyn Executor,
) -> Vec<RouteKey> {
    // By number: the place among the sources in order of id, and the id.
    let mut of: Vec<Option<(usize, RelayId)>> = vec![None; numbers.stride()];
    for (place, (id, number)) in numbers.iter().enumerate() {
        of[number] = Some((place, id));
    }
    let known = |told: &Told| {
        let ((place, source), (_, destination)) =
            (of[usize::from(told.from)]?, of[usize::from(told.to)]?);
        let class = Class::ALL[usize::from(told.class)];
        Some((place, RouteKey { source, destination, class, policy: told.policy }))
    };
    let mut starts = vec![0; numbers.len() + 1];
    for (place, _) in parts.iter().flatten().filter_map(known) {
        starts[place + 1] += 1;
    }
    for place in 1..starts.len() {
        starts[place] += starts[place - 1];
    }
    let nothing = RouteKey {
        source: RelayId(0),
        destination: RelayId(0),
        class: Class::ALL[0],
        policy: PolicyId::default(),
    };
    let mut keys = vec![nothing; *starts.last().unwrap_or(&0)];
    let mut next = starts.clone();
    for (place, key) in parts.iter().flatten().filter_map(known) {
        keys[next[place]] = key;
        next[place] += 1;
    }
    let mut sources = Vec::new();
    let mut rest = &mut keys[..];
    for ends in starts.windows(2).filter(|ends| ends[1] - ends[0] > 1) {
        let skipped = rest.len() - (starts[numbers.len()] - ends[0]);
        let (source, after) = rest.split_at_mut(skipped).1.split_at_mut(ends[1] - ends[0]);
        sources.push(source);
        rest = after;
    }
    share(sources, executor, |next| {
        while let Some(source) = next() {
            source.sort_unstable_by_key(|key| {
                u64::from(key.destination.0) << 32
                    | u64::from(key.class.code()) << 16
                    | u64::from(key.policy.0)
            });
        }
    });
    keys
}
