//! The mesh at a glance, bounded however large it is.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Instant;

use overway_topology::Delays;
use overway_wire::control::State;
use overway_wire::{BitsPerSec, LinkId, RelayId};

use super::{Phase, Scheduler};
use crate::neighbours::Bond;
use crate::status::{LinkCounts, Overview, RelayGlance};

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
        for (id, link) in self.links.iter() {
            if self.neighbours.bond(id.from, id.to) == Bond::Trial {
                counts.trial += 1;
                continue;
            }
            let seen = self.links.observed(id);
            let received = seen.map(|seen| seen.received).unwrap_or_default();
            let is_suspect = seen.is_some_and(|seen| seen.inbound == State::Suspect);
            let is_known = self.is_fresh(id.from) || self.is_fresh(id.to);
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
        let delays = Delays::fit(self.mesh.topology());
        let links = chosen.into_iter().filter_map(|id| {
            let link = self.links.planned(id)?;
            Some(self.link_status(id, link, &delays))
        });
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
    pub fn links_of(&self, relay: RelayId) -> Vec<crate::LinkStatus> {
        let delays = Delays::fit(self.mesh.topology());
        let of = self.links.of(relay);
        let mut ids: Vec<LinkId> =
            of.flat_map(|link| [link.inbound(relay), link.outbound(relay)]).collect();
        ids.sort_unstable();
        ids.dedup();
        let status = |id| Some(self.link_status(id, self.links.planned(id)?, &delays));
        ids.into_iter().filter_map(status).collect()
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
