//! Which relays probe one another.
//!
//! In a small mesh all do. Above [`crate::Config::full_mesh_max`] relays each one *chooses* a few others, and two
//! relays have links if either chose the other:
//!
//! - **long**: those with which the hash of the two ids is least. As if at random, but stable: an arrival changes the
//!   choice of as many relays as it is chosen by itself, and nobody else's. They are about half of all neighbours.
//! - **hubs**: some of those that join everybody: between any two relays there are three paths that share no relay,
//!   with at most two between the ends ([`hubs`]). So no relay's failure parts two others.
//! - **near**: the nearest by what was measured. Whoever is nearer takes a place only if clearly so.
//! - **wide**: one of each region and of each provider that the others leave out, so that there is a path that
//!   avoids what the rest have in common.
//! - **trial**: some that may be near, until the next review: neighbours of near ones, of which the sum of both
//!   distances is least; relays of the same region; now and then anyone. What was measured is remembered. Links of
//!   those that are nothing else are probed, and no route takes them: they would be gone in a moment.
//!
//! A relay is *reviewed* soon after its arrival, several times, and seldom from then on; all but long ones and hubs
//! change only there. A choice of another than those needs room at both ends, so that the only relay of a region does
//! not become everybody's neighbour.
//!
//! Arrivals and departures take time in proportion to the relays, and seldom, where they change who is a hub, to the
//! relays times the hubs; a review takes time in proportion to the neighbours.

mod groups;
mod hash;
mod hubs;
mod review;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use overway_wire::{Micros, RelayId};

use groups::Groups;
use hash::pair_hash;
use hubs::Hubs;

/// A mesh that shrinks probes in full again only below this share of the limit, so that one relay which comes and
/// goes does not rebuild it each time.
const FULL_AGAIN_PERCENT: usize = 90;

/// How many neighbours of which kind a relay chooses in a mesh of more than [`crate::Config::full_mesh_max`]
/// relays. Links are symmetric, so that it has about twice as many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourConfig {
    /// Chosen by ids alone, as if at random: they keep any two relays near.
    pub long: usize,
    /// Hubs of which each relay is a neighbour: as many paths that share no relay are sure between any two. With 0
    /// there are no hubs, and nothing is sure.
    pub hubs: usize,
    /// The nearest that are known.
    pub near: usize,
    /// Regions and providers of which it chooses one, as far as the others leave some out.
    pub wide: usize,
    /// Tried for a while, to learn whether they are near.
    pub trials: usize,
    /// No relay has more neighbours than this because others choose it, long ones and those of hubs left aside.
    pub most: usize,
    /// Time between two reviews of a relay.
    pub review: Duration,
    /// The same for the first ones after its arrival.
    pub review_first: Duration,
}

impl Default for NeighbourConfig {
    fn default() -> Self {
        Self {
            long: 12,
            hubs: 3,
            near: 12,
            wide: 12,
            trials: 2,
            most: 96,
            review: Duration::from_secs(120),
            review_first: Duration::from_secs(5),
        }
    }
}

/// The sets of all relays.
#[derive(Debug)]
pub(crate) struct Neighbours {
    config: NeighbourConfig,
    full_max: usize,
    /// Whether sets are bounded; otherwise everybody is everybody's neighbour.
    bounded: bool,
    sites: BTreeMap<RelayId, Site>,
    groups: Groups,
    hubs: Hubs,
    /// Pairs, the lesser relay first, whose bond may be another, and what it was.
    changed: BTreeMap<(RelayId, RelayId), Bond>,
    /// Whether all began anew.
    anew: bool,
    reviews: BTreeSet<(Instant, RelayId)>,
}

/// What two relays are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bond {
    /// They have no links.
    None,
    /// They have links to be measured.
    Trial,
    /// They have links that routes may take.
    Full,
}

/// A relay and its choice. In a full mesh it has none.
#[derive(Debug)]
struct Site {
    /// Its region and its provider.
    groups: [usize; 2],
    /// In order of the hash.
    long: Vec<(u64, RelayId)>,
    /// Of two hubs only one chooses the other.
    hubs: BTreeSet<RelayId>,
    near: BTreeSet<RelayId>,
    wide: BTreeSet<RelayId>,
    trials: BTreeSet<RelayId>,
    /// Neighbours, and how often they were chosen: by it, by them, for several reasons.
    links: BTreeMap<RelayId, u8>,
    /// Of these, how many it has since one of the two is a hub.
    hub_links: usize,
    /// What was measured to relays that are no longer neighbours; bounded.
    known: BTreeMap<RelayId, Micros>,
    reviews: u32,
    next_review: Instant,
}

/// What changed since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Whether all began anew; then the pairs mean nothing.
    pub(crate) anew: bool,
    /// Pairs that are something else to each other now, the lesser relay first.
    pub(crate) pairs: Vec<(RelayId, RelayId)>,
}

impl Neighbours {
    pub(crate) fn new(config: NeighbourConfig, full_max: usize) -> Self {
        Self {
            config,
            full_max,
            bounded: false,
            sites: BTreeMap::new(),
            groups: Groups::default(),
            hubs: Hubs::default(),
            changed: BTreeMap::new(),
            anew: false,
            reviews: BTreeSet::new(),
        }
    }

    /// Takes a relay, or its new region and provider.
    pub(crate) fn insert(&mut self, id: RelayId, region: &str, provider: &str, now: Instant) {
        let groups = self.groups.of(region, provider);
        if let Some(site) = self.sites.get_mut(&id) {
            let before = std::mem::replace(&mut site.groups, groups);
            self.groups.remove(id, before);
            self.groups.insert(id, groups);
            return;
        }
        self.groups.insert(id, groups);
        self.hubs.insert(id);
        self.sites.insert(id, Site::new(groups, now));
        if self.bounded {
            self.join(id, now);
        } else if self.sites.len() > self.full_max {
            self.bound(now);
        }
    }

    pub(crate) fn remove(&mut self, id: RelayId) {
        let Some(site) = self.sites.get(&id) else { return };
        self.groups.remove(id, site.groups);
        self.reviews.remove(&(site.next_review, id));
        self.hubs.remove(id);
        if self.bounded {
            self.leave(id);
        }
        self.sites.remove(&id);
        if self.bounded {
            self.choose_hubs(None);
        }
        if self.bounded && self.sites.len() < self.full_max * FULL_AGAIN_PERCENT / 100 {
            self.unbound();
        }
    }

    /// Whether two relays have links with one another.
    pub(crate) fn are(&self, a: RelayId, b: RelayId) -> bool {
        let Some(site) = self.sites.get(&a) else { return false };
        if self.bounded {
            site.links.contains_key(&b)
        } else {
            a != b && self.sites.contains_key(&b)
        }
    }

    /// What two relays are to each other.
    pub(crate) fn bond(&self, a: RelayId, b: RelayId) -> Bond {
        if !self.bounded {
            return if self.are(a, b) { Bond::Full } else { Bond::None };
        }
        let times = |site: &Site| site.links.get(&b).copied();
        let Some(times) = self.sites.get(&a).and_then(times) else { return Bond::None };
        let tries = |id, other| u8::from(self.site(id).trials.contains(&other));
        if times > tries(a, b) + tries(b, a) { Bond::Full } else { Bond::Trial }
    }

    /// A relay's neighbours, in order.
    pub(crate) fn of(&self, id: RelayId) -> Vec<RelayId> {
        match self.sites.get(&id) {
            None => Vec::new(),
            Some(site) if self.bounded => site.links.keys().copied().collect(),
            Some(_) => self.sites.keys().copied().filter(|&other| other != id).collect(),
        }
    }

    /// How many these are.
    pub(crate) fn count(&self, id: RelayId) -> usize {
        match self.sites.get(&id) {
            None => 0,
            Some(site) if self.bounded => site.links.len(),
            Some(_) => self.sites.len() - 1,
        }
    }

    /// Whether sets are bounded.
    pub(crate) fn is_bounded(&self) -> bool {
        self.bounded
    }

    /// When the next relay is to be reviewed, if any is.
    pub(crate) fn next_review(&self) -> Option<Instant> {
        self.reviews.first().map(|(at, _)| *at)
    }

    /// What changed since the last call.
    pub(crate) fn take_change(&mut self) -> Change {
        let changed = std::mem::take(&mut self.changed);
        let anew = std::mem::take(&mut self.anew);
        let differs = |&((a, b), before): &((RelayId, RelayId), Bond)| self.bond(a, b) != before;
        let pairs = if anew {
            Vec::new()
        } else {
            changed.into_iter().filter(differs).map(|(pair, _)| pair).collect()
        };
        Change { anew, pairs }
    }

    /// From a full mesh to bounded sets.
    fn bound(&mut self, now: Instant) {
        self.bounded = true;
        self.anew = true;
        let ids: Vec<RelayId> = self.sites.keys().copied().collect();
        for id in ids {
            let long = self.least(id);
            for &(_, other) in &long {
                self.choose(id, other);
            }
            self.site_mut(id).long = long;
            self.schedule(id, now);
        }
        self.choose_hubs(None);
        self.changed.clear();
    }

    fn unbound(&mut self) {
        self.bounded = false;
        self.anew = true;
        self.reviews.clear();
        self.dismiss_hubs();
        for site in self.sites.values_mut() {
            *site = Site::new(site.groups, site.next_review);
        }
        self.changed.clear();
    }

    /// A relay comes into bounded sets: it chooses, and is chosen.
    fn join(&mut self, id: RelayId, now: Instant) {
        let long = self.least(id);
        for &(_, other) in &long {
            self.choose(id, other);
        }
        self.site_mut(id).long = long;
        let others: Vec<RelayId> =
            self.sites.keys().copied().filter(|&other| other != id).collect();
        for other in others {
            let hash = pair_hash(id, other);
            let most = self.config.long;
            let long = &mut self.site_mut(other).long;
            let at = long.partition_point(|(known, _)| *known < hash);
            if at >= most {
                continue;
            }
            long.insert(at, (hash, id));
            let dropped = if long.len() > most { long.pop() } else { None };
            self.choose(other, id);
            if let Some((_, dropped)) = dropped {
                self.unchoose(other, dropped);
            }
        }
        self.choose_hubs(Some(id));
        self.schedule(id, now);
    }

    /// A relay goes: those that had chosen it choose another.
    fn leave(&mut self, id: RelayId) {
        for other in self.of(id) {
            self.note(id, other, Bond::Full);
            self.part(id, other);
            let site = self.site_mut(other);
            site.links.remove(&id);
            for chosen in [&mut site.near, &mut site.wide, &mut site.trials] {
                chosen.remove(&id);
            }
            let chose = site.long.iter().any(|(_, chosen)| *chosen == id);
            if chose {
                self.choose_long(other, id);
            }
        }
        let site = self.site_mut(id);
        site.links.clear();
        site.hub_links = 0;
        for site in self.sites.values_mut() {
            site.known.remove(&id);
        }
    }

    /// Fills the place of a long neighbour that goes.
    fn choose_long(&mut self, id: RelayId, gone: RelayId) {
        let long = self.site(id).long.iter().filter(|(_, chosen)| *chosen != gone);
        let mut long: Vec<(u64, RelayId)> = long.copied().collect();
        let last = long.last().copied();
        let others = self.sites.keys().filter(|&&other| other != id && other != gone);
        let next = others.map(|&other| (pair_hash(id, other), other));
        if let Some(next) = next.filter(|next| last.is_none_or(|last| *next > last)).min() {
            long.push(next);
            self.choose(id, next.1);
        }
        self.site_mut(id).long = long;
    }

    /// The relays with which the hash is least.
    fn least(&self, id: RelayId) -> Vec<(u64, RelayId)> {
        let others = self.sites.keys().filter(|&&other| other != id);
        let mut hashes: Vec<_> = others.map(|&other| (pair_hash(id, other), other)).collect();
        let most = self.config.long.min(hashes.len());
        if most < hashes.len() {
            hashes.select_nth_unstable(most);
        }
        hashes.truncate(most);
        hashes.sort_unstable();
        hashes
    }

    /// Whether a relay may be chosen otherwise than by its hash.
    fn has_room(&self, id: RelayId, other: RelayId) -> bool {
        let room = |site: &Site| site.links.len() < self.config.most + site.hub_links;
        self.are(id, other) || (room(self.site(id)) && room(self.site(other)))
    }

    fn choose(&mut self, id: RelayId, other: RelayId) {
        self.note(id, other, self.bond(id, other));
        for (from, to) in [(id, other), (other, id)] {
            *self.site_mut(from).links.entry(to).or_default() += 1;
        }
    }

    fn unchoose(&mut self, id: RelayId, other: RelayId) {
        self.note(id, other, self.bond(id, other));
        for (from, to) in [(id, other), (other, id)] {
            let links = &mut self.site_mut(from).links;
            if let Some(times) = links.get_mut(&to) {
                *times -= 1;
                if *times == 0 {
                    links.remove(&to);
                }
            }
        }
    }

    fn note(&mut self, a: RelayId, b: RelayId, before: Bond) {
        self.changed.entry((a.min(b), a.max(b))).or_insert(before);
    }

    fn site(&self, id: RelayId) -> &Site {
        self.sites.get(&id).expect("neighbours are relays of the mesh")
    }

    fn site_mut(&mut self, id: RelayId) -> &mut Site {
        self.sites.get_mut(&id).expect("neighbours are relays of the mesh")
    }
}

impl Site {
    fn new(groups: [usize; 2], now: Instant) -> Self {
        Self {
            groups,
            long: Vec::new(),
            hubs: BTreeSet::new(),
            near: BTreeSet::new(),
            wide: BTreeSet::new(),
            trials: BTreeSet::new(),
            links: BTreeMap::new(),
            hub_links: 0,
            known: BTreeMap::new(),
            reviews: 0,
            next_review: now,
        }
    }
}

#[cfg(test)]
mod tests;
