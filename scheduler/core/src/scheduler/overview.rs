//! The mesh at a glance, bounded however large it is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use overway_wire::control::State;
use overway_wire::{BitsPerSec, LinkId, RelayId};

use super::{Phase, Scheduler};
use crate::neighbours::Bond;
use crate::status::{LinkCounts, LinkStatus, Overview, RelayGlance};

/// What decides whether a link is among those that an overview lists.
struct Rank {
    id: LinkId,
    received: BitsPerSec,
    is_unwell: bool,
}

impl Scheduler {
    /// Every relay, and at most `links_max` links: all of them if they are so few, else those that carry most and
    /// those that are unwell, half of the room for each. Takes time in proportion to links.
    pub fn overview(&self, links_max: usize, now: Instant) -> Overview {
        let mut counts = LinkCounts::default();
        let mut glances: BTreeMap<RelayId, RelayGlance> = BTreeMap::new();
        let mut ranks = Vec::new();
        let fresh: BTreeSet<RelayId> =
            self.relays.keys().copied().filter(|&id| self.is_fresh(id)).collect();
        let may_be_trial = self.neighbours.is_bounded();
        for (id, link, seen) in self.links.iter_seen() {
            if may_be_trial && self.neighbours.bond(id.from, id.to) == Bond::Trial {
                counts.trial += 1;
                continue;
            }
            let received = seen.map(|seen| seen.received).unwrap_or_default();
            let is_suspect = seen.is_some_and(|seen| seen.inbound == State::Suspect);
            let is_known = fresh.contains(&id.from) || fresh.contains(&id.to);
            match (is_known, link.usable) {
                (false, _) => counts.unknown += 1,
                (true, true) => counts.usable += 1,
                (true, false) => counts.unusable += 1,
            }
            counts.suspect += usize::from(is_known && link.usable && is_suspect);
            let receiver = glances.entry(id.to).or_default();
            receiver.links += 1;
            receiver.usable += usize::from(is_known && link.usable);
            receiver.received = BitsPerSec(receiver.received.0.saturating_add(received.0));
            let sender = glances.entry(id.from).or_default();
            sender.sent = BitsPerSec(sender.sent.0.saturating_add(received.0));
            ranks.push(Rank { id, received, is_unwell: is_known && (!link.usable || is_suspect) });
        }
        let chosen = self.choose(ranks, links_max);
        let links = chosen.into_iter().filter_map(|id| self.link_glance(id));
        let relays = self.relays.iter().map(|(&id, relay)| {
            (self.relay_status(id, relay, now), glances.remove(&id).unwrap_or_default())
        });
        Overview {
            epoch: self.epoch,
            settling: self.phase != Phase::Planning,
            relays: relays.collect(),
            links: links.collect(),
            counts,
        }
    }

    /// The links of a relay, both ways, by id.
    pub fn links_of(&self, relay: RelayId) -> Vec<LinkStatus> {
        let of = self.links.of(relay);
        let mut ids: Vec<LinkId> =
            of.flat_map(|link| [link.inbound(relay), link.outbound(relay)]).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().filter_map(|id| self.link_glance(id)).collect()
    }

    /// A link as a status has it, its delay by the clocks that the last plan fitted: to fit them anew would take
    /// time in proportion to all links.
    fn link_glance(&self, id: LinkId) -> Option<LinkStatus> {
        let measure = self.mesh.topology().link(id).filter(|measure| measure.usable);
        let delay = measure.and_then(|measure| self.mesh.planner().link_delay(id, measure));
        Some(self.link_status(id, self.links.planned(id)?, delay.map(|delay| delay.fast)))
    }

    /// Whether the scheduler hears a relay.
    pub(super) fn is_fresh(&self, relay: RelayId) -> bool {
        self.relays.get(&relay).is_some_and(|relay| relay.word().fresh)
    }

    /// The links to list, in order of id.
    fn choose(&self, mut ranks: Vec<Rank>, links_max: usize) -> Vec<LinkId> {
        if ranks.len() > links_max {
            let unwell = ranks.iter().filter(|rank| rank.is_unwell).count();
            let for_unwell = unwell.min(links_max / 2);
            ranks.retain(|rank| {
                rank.is_unwell || rank.received.0 > 0 || self.mesh.is_candidate(rank.id)
            });
            let (mut unwell, mut well): (Vec<Rank>, Vec<Rank>) =
                ranks.into_iter().partition(|rank| rank.is_unwell);
            well.sort_unstable_by_key(|rank| (Reverse(rank.received.0), rank.id));
            well.truncate(links_max - for_unwell);
            unwell.sort_unstable_by_key(|rank| (Reverse(rank.received.0), rank.id));
            unwell.truncate(links_max - well.len());
            well.append(&mut unwell);
            ranks = well;
        }
        let mut ids: Vec<LinkId> = ranks.into_iter().map(|rank| rank.id).collect();
        ids.sort_unstable();
        ids
    }
}
