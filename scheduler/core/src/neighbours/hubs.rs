//! Hubs: why any two relays have three paths that share no relay, whatever the hashes are.
//!
//! Hubs are the relays that carry others' traffic and of which the own hash is least. All are neighbours of one
//! another, and every other relay chooses [`NeighbourConfig::hubs`](super::NeighbourConfig::hubs) of them. Between two
//! relays there are then as many paths without a relay in common, each with at most two between its ends:
//!
//! ```text
//!   a -- h -- b         for each hub that both chose
//!   a -- h -- i -- b    for each pair of the others
//! ```
//!
//! Where one of the two is a hub itself they are shorter. So a relay that fails leaves two ways between the others,
//! and a relay that has to lead a frame around the next one finds a way that does not go back to its source.
//!
//! `n` relays that choose `k` hubs each leave a hub least to do with the square root of `k n` hubs, each with about
//! twice as many neighbours for it: 123 and 240 for 5,000 relays.

use std::collections::BTreeSet;

use overway_wire::RelayId;

use super::Neighbours;
use super::hash::{mix, pair_hash};

/// Hubs stay until there is one of so many too many, so that a relay which comes and goes does not make and
/// unmake one each time.
const SPARE_SHARE: usize = 8;
/// Sets the hash that makes a hub apart from others.
const HUB: u64 = 0x6875_6273 << 32;

/// Who is a hub.
#[derive(Debug, Default)]
pub(super) struct Hubs {
    /// All relays that may be hubs, in the order in which they become hubs.
    ranked: BTreeSet<(u64, RelayId)>,
    count: usize,
    members: BTreeSet<RelayId>,
}

impl Hubs {
    pub(super) fn insert(&mut self, id: RelayId) {
        self.ranked.insert((rank(id), id));
    }

    pub(super) fn remove(&mut self, id: RelayId) {
        self.ranked.remove(&(rank(id), id));
    }

    /// Chooses the hubs anew, for relays that choose so many each; says whether they are others.
    fn elect(&mut self, each: usize) -> bool {
        let most = if each == 0 { 0 } else { (each * self.ranked.len()).isqrt() + 1 };
        if most > self.count || most + self.count / SPARE_SHARE < self.count {
            self.count = most;
        }
        let members: BTreeSet<RelayId> =
            self.ranked.iter().take(self.count).map(|&(_, id)| id).collect();
        let changed = members != self.members;
        self.members = members;
        changed
    }

    /// Those that a relay chooses. Of two hubs the lesser one chooses the other.
    fn of(&self, id: RelayId, each: usize) -> BTreeSet<RelayId> {
        if self.members.contains(&id) {
            return self.members.iter().copied().filter(|&other| other > id).collect();
        }
        let mut hashes: Vec<(u64, RelayId)> =
            self.members.iter().map(|&hub| (pair_hash(id, hub), hub)).collect();
        hashes.sort_unstable();
        hashes.into_iter().take(each).map(|(_, hub)| hub).collect()
    }
}

impl Neighbours {
    /// Says whether a relay carries others' traffic: a hub has to. One of which it was not said may.
    pub(crate) fn set_transit(&mut self, id: RelayId, transit: bool) {
        let entry = (rank(id), id);
        let may = self.hubs.ranked.contains(&entry);
        if !self.sites.contains_key(&id) || may == transit {
            return;
        }
        if transit {
            self.hubs.insert(id);
        } else {
            self.hubs.remove(id);
        }
        if self.bounded {
            self.choose_hubs(None);
        }
    }

    /// Chooses hubs, and by each relay of which they may be others. `new` has not chosen yet.
    pub(super) fn choose_hubs(&mut self, new: Option<RelayId>) {
        let each = self.config.hubs;
        let ids: Vec<RelayId> = if self.hubs.elect(each) {
            self.sites.keys().copied().collect()
        } else {
            new.into_iter().collect()
        };
        for id in ids {
            let after = self.hubs.of(id, each);
            let before = std::mem::replace(&mut self.site_mut(id).hubs, after.clone());
            for &other in after.difference(&before) {
                self.choose(id, other);
                self.site_mut(id).hub_links += 1;
                self.site_mut(other).hub_links += 1;
            }
            for &other in before.difference(&after) {
                self.unchoose(id, other);
                self.site_mut(id).hub_links -= 1;
                self.site_mut(other).hub_links -= 1;
            }
        }
    }

    /// Takes a relay that goes out of a neighbour's choice of hubs, and the neighbour out of its.
    pub(super) fn part(&mut self, id: RelayId, other: RelayId) {
        let chose = self.site_mut(id).hubs.remove(&other);
        let site = self.site_mut(other);
        let was_chosen = site.hubs.remove(&id);
        site.hub_links -= usize::from(chose) + usize::from(was_chosen);
    }

    /// Nobody is a hub any more.
    pub(super) fn dismiss_hubs(&mut self) {
        (self.hubs.count, self.hubs.members) = (0, BTreeSet::new());
    }
}

fn rank(id: RelayId) -> u64 {
    mix(HUB | u64::from(id.0))
}
