//! A relay's choice, looked at again with what has been measured.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use overway_wire::{Micros, RelayId};

use super::Neighbours;
use super::hash::{mix, pair_hash};

/// Reviews in quick succession after an arrival: each finds neighbours about half as far.
const FIRST_REVIEWS: u32 = 8;
/// One of so many relays is reviewed at once, the first reviews left aside: after a plan that took minutes all would be,
/// and the links that they exchange make the next plan longer.
const LATE_SHARE: usize = 64;
/// Distances kept of relays that are no longer neighbours.
const KNOWN_MAX: usize = 64;
/// What a near neighbour's place is worth: another must be nearer by a fifth and a millisecond.
const PLACE_PERCENT: u64 = 80;
/// See [`PLACE_PERCENT`].
const PLACE: Micros = Micros(1_000);
/// Members of a group that are looked at for one with room.
const TRIED_MAX: usize = 8;
/// How far a relay of the same region is taken to be that nobody near has measured.
const SAME_REGION: Micros = Micros(5_000);
/// Relays of the same region that are looked at for a trial.
const SAME_REGION_MAX: usize = 16;
/// Every so many reviews the trials are anyone, not those that seem near: what seems far may be near.
const ANYONE_EVERY: u32 = 4;

impl Neighbours {
    /// Reviews the relays whose time has come, not too many at once. `distance` is the round trip that was measured between two.
    pub(crate) fn review(
        &mut self,
        now: Instant,
        distance: impl Fn(RelayId, RelayId) -> Option<Micros>,
    ) {
        let mut seldom = self.sites.len() / LATE_SHARE + 1;
        while let Some(&(at, id)) = self.reviews.first()
            && at <= now
        {
            if self.site(id).reviews >= FIRST_REVIEWS {
                if seldom == 0 {
                    return;
                }
                seldom -= 1;
            }
            self.reviews.pop_first();
            self.remember(id, &distance);
            self.choose_near(id, &distance);
            self.choose_trials(id, &distance);
            self.choose_wide(id);
            self.site_mut(id).reviews += 1;
            self.schedule(id, now);
        }
    }

    pub(super) fn schedule(&mut self, id: RelayId, now: Instant) {
        let config = self.config;
        let site = self.site_mut(id);
        let soon = site.reviews < FIRST_REVIEWS;
        site.next_review = now + if soon { config.review_first } else { config.review };
        let at = site.next_review;
        self.reviews.insert((at, id));
    }

    /// Notes how far its neighbours are, for when they are none any more.
    fn remember(&mut self, id: RelayId, distance: &impl Fn(RelayId, RelayId) -> Option<Micros>) {
        let site = self.site_mut(id);
        for &other in site.links.keys() {
            if let Some(far) = distance(id, other) {
                site.known.insert(other, far);
            }
        }
        while site.known.len() > KNOWN_MAX
            && let Some(farthest) = site.known.iter().map(|(&other, &far)| (far, other)).max()
        {
            site.known.remove(&farthest.1);
        }
    }

    fn choose_near(&mut self, id: RelayId, distance: &impl Fn(RelayId, RelayId) -> Option<Micros>) {
        let site = self.site(id);
        let mut ranked: Vec<(u64, RelayId)> = site
            .links
            .keys()
            .filter_map(|&other| Some((other, distance(id, other)?)))
            .chain(site.known.iter().map(|(&other, &far)| (other, far)))
            .map(|(other, far)| {
                let has_place = site.near.contains(&other);
                let less = u64::from(far.0.saturating_sub(PLACE.0)) * PLACE_PERCENT / 100;
                (if has_place { less } else { u64::from(far.0) }, other)
            })
            .collect();
        ranked.sort_unstable();
        let mut chosen = BTreeSet::new();
        for (_, other) in ranked {
            if chosen.len() < self.config.near && self.has_room(id, other) {
                chosen.insert(other);
            }
        }
        let before = std::mem::replace(&mut self.site_mut(id).near, chosen.clone());
        self.exchange(id, &before, &chosen);
    }

    fn choose_trials(
        &mut self,
        id: RelayId,
        distance: &impl Fn(RelayId, RelayId) -> Option<Micros>,
    ) {
        let ranked = if self.site(id).reviews % ANYONE_EVERY == ANYONE_EVERY - 1 {
            self.anyone(id)
        } else {
            self.promising(id, distance)
        };
        let mut chosen = BTreeSet::new();
        for other in ranked {
            if chosen.len() < self.config.trials && self.has_room(id, other) {
                chosen.insert(other);
            }
        }
        let before = self.site(id).trials.clone();
        for &other in before.symmetric_difference(&chosen) {
            self.note(id, other, self.bond(id, other));
        }
        self.site_mut(id).trials.clone_from(&chosen);
        self.exchange(id, &before, &chosen);
    }

    /// Relays that may be near and of which nothing is known, the most promising first.
    fn promising(
        &self,
        id: RelayId,
        distance: &impl Fn(RelayId, RelayId) -> Option<Micros>,
    ) -> Vec<RelayId> {
        let site = self.site(id);
        let mut far: BTreeMap<RelayId, Micros> = BTreeMap::new();
        let region = self.groups.members(site.groups[0]);
        let start = RelayId(u16::try_from(mix(self.seed(id)) & 0xffff).expect("16 bits"));
        let region = region.range(start..).chain(region.range(..start)).take(SAME_REGION_MAX);
        far.extend(region.map(|&other| (other, SAME_REGION)));
        for &middle in &site.near {
            let Some(first) = site.known.get(&middle) else { continue };
            for &other in &self.site(middle).near {
                let Some(second) = distance(middle, other) else { continue };
                let sum = Micros(first.0.saturating_add(second.0));
                let known = far.entry(other).or_insert(sum);
                *known = sum.min(*known);
            }
        }
        let new = |other: &RelayId| *other != id && !site.known.contains_key(other);
        let mut ranked: Vec<(Micros, u64, RelayId)> = far
            .into_iter()
            .filter(|(other, _)| new(other) && !site.links.contains_key(other))
            .map(|(other, far)| (far, pair_hash(id, other), other))
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(.., other)| other).collect()
    }

    /// Some relays as if at random, others in each review.
    fn anyone(&self, id: RelayId) -> Vec<RelayId> {
        let count = u64::try_from(TRIED_MAX).expect("a small number");
        let picks = (0..count).filter_map(|pick| {
            let start = RelayId(u16::try_from(mix(self.seed(id) + (pick << 48)) & 0xffff).ok()?);
            let others = self.sites.range(start..).chain(self.sites.range(..start));
            others.map(|(&other, _)| other).next()
        });
        picks.filter(|&other| other != id && !self.are(id, other)).collect()
    }

    fn seed(&self, id: RelayId) -> u64 {
        u64::from(self.site(id).reviews) << 16 | u64::from(id.0)
    }

    /// One of each region and provider that it has no other neighbour of.
    fn choose_wide(&mut self, id: RelayId) {
        let before = std::mem::take(&mut self.site_mut(id).wide);
        before.iter().for_each(|&other| self.unchoose(id, other));
        let covered: BTreeSet<usize> = self
            .site(id)
            .links
            .keys()
            .flat_map(|&other| self.site(other).groups)
            .chain(self.site(id).groups)
            .collect();
        // In an order of its own, so that each group is chosen by some where there are too many for all.
        let missing = self.groups.iter().filter(|(group, _)| !covered.contains(group));
        let order = |group: usize| mix(u64::from(id.0) << 32 | u64::try_from(group).unwrap_or(0));
        let mut missing: Vec<(u64, usize)> =
            missing.map(|(group, _)| (order(group), group)).collect();
        missing.sort_unstable();
        let mut chosen = BTreeSet::new();
        for (_, group) in missing {
            let has = |other: &RelayId| self.site(*other).groups.contains(&group);
            if chosen.len() >= self.config.wide || chosen.iter().any(has) {
                continue;
            }
            if let Some(other) = self.member_with_room(id, group, &before) {
                self.choose(id, other);
                chosen.insert(other);
            }
        }
        self.site_mut(id).wide = chosen;
    }

    /// A member of a group, the one before if it still is.
    fn member_with_room(
        &self,
        id: RelayId,
        group: usize,
        before: &BTreeSet<RelayId>,
    ) -> Option<RelayId> {
        let members = self.groups.members(group);
        if let Some(&kept) = before.iter().find(|other| members.contains(other)) {
            return Some(kept);
        }
        let start = mix(u64::from(id.0) << 32 | u64::try_from(group).unwrap_or(0)) & 0xffff;
        let start = RelayId(u16::try_from(start).expect("16 bits"));
        let round = members.range(start..).chain(members.range(..start)).take(TRIED_MAX);
        round.copied().find(|&other| other != id && self.has_room(id, other))
    }

    fn exchange(&mut self, id: RelayId, before: &BTreeSet<RelayId>, after: &BTreeSet<RelayId>) {
        after.difference(before).for_each(|&other| self.choose(id, other));
        before.difference(after).for_each(|&other| self.unchoose(id, other));
    }
}
