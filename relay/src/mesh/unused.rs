//! Which of a shard's links have been of no use for so long that they are given up.
//!
//! The lead holds every link. The other shards dial those on a path, and those that frames asked for; without an end to
//! that they would in time hold every link as well, in a large mesh many thousands of connections.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overway_wire::NeighbourLink;

/// A link that was on no path and carried nothing for so long is given up: longer than routes flap and calls pause.
const UNUSED_MAX: Duration = Duration::from_secs(30);

/// Since when links have been of no use.
#[derive(Debug, Default)]
pub(super) struct Unused {
    since: BTreeMap<NeighbourLink, Instant>,
}

impl Unused {
    /// Takes the links that are of no use now; says which are to be given up.
    pub(super) fn handle_idle(
        &mut self,
        idle: impl Iterator<Item = NeighbourLink>,
        now: Instant,
    ) -> Vec<NeighbourLink> {
        let before = std::mem::take(&mut self.since);
        self.since = idle.map(|link| (link, before.get(&link).map_or(now, |&at| at))).collect();
        let old = |&at: &Instant| now.saturating_duration_since(at) >= UNUSED_MAX;
        self.since.iter().filter(|(_, at)| old(at)).map(|(&link, _)| link).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::{LinkIndex, RelayId};

    #[test]
    fn a_link_that_was_of_no_use_for_long_without_a_break_is_given_up() {
        let link = |relay| NeighbourLink::new(RelayId(relay), LinkIndex::default());
        let (mut unused, start) = (Unused::default(), Instant::now());
        let mut idle = |links: &[u16], after| {
            unused.handle_idle(links.iter().map(|&relay| link(relay)), start + after)
        };

        assert_eq!(idle(&[1, 2], Duration::ZERO), []);
        assert_eq!(idle(&[1], UNUSED_MAX / 2), []);
        assert_eq!(idle(&[1, 2], UNUSED_MAX), [link(1)]);
        assert_eq!(idle(&[2], 2 * UNUSED_MAX), [link(2)]);
    }
}
