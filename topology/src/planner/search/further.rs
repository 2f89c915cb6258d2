//! A further path, for routes without a direct link.
//!
//! A relay that leads a frame around the next relay may use neither that one nor the frame's source: the path in
//! use and its disjoint backup may each have one of them. A third path that shares no relay with either has
//! neither. In a full mesh the direct link is such a path; where there is none, this one takes its place.

use super::first::Firsts;
use super::lasts::{Last, Search};
use super::{Choice, Hints, NONE, Source, Terrain, narrow};
use crate::planner::kernel::Found;
use crate::planner::packed::Via;

/// A further path, and what it has in common with the two before it: 0 is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::planner) struct Further {
    pub(in crate::planner) choice: Choice,
    pub(in crate::planner) shared: u32,
}

/// What a path has in common with the path in use and the disjoint one, if there is one: of the relays one each,
/// of the first one in use another, for only this relay's own source can lead around that.
pub(in crate::planner) fn shared(via: Via, in_use: Via, disjoint: Option<Via>) -> u32 {
    let first = in_use.relays().first();
    let others = disjoint.as_ref().map_or(&[][..], Via::relays);
    let of = |relay: &u16| {
        let is_shared = in_use.relays().contains(relay) || others.contains(relay);
        u32::from(is_shared) + u32::from(first == Some(relay))
    };
    via.relays().iter().map(of).sum()
}

impl Source {
    /// The cheapest path that shares no intermediate with the path in use and the disjoint one. Where there is
    /// none, the cheapest of those that share least, and not all of either. There must be no direct link. With a
    /// limit only a path that shares none and costs less is looked for.
    pub(in crate::planner) fn further(
        &self,
        terrain: &Terrain<'_>,
        to: usize,
        hints: &mut Hints<'_>,
        in_use: Via,
        disjoint: Option<Via>,
        limit: Option<u32>,
    ) -> Option<Further> {
        let others = disjoint.as_ref().map_or(&[][..], Via::relays);
        let barred: Vec<u32> =
            in_use.relays().iter().chain(others).map(|&relay| relay.into()).collect();
        let found = self.sparing(terrain, to, hints, &barred, limit.unwrap_or(NONE));
        if found.is_some() || limit.is_some() {
            return found.map(|choice| Further { choice, shared: 0 });
        }
        let mut found: Option<Further> = None;
        for left_out in 1..1_u32 << barred.len() {
            let spared = (0..).zip(&barred).filter(|(at, _)| left_out >> at & 1 == 0);
            let spared: Vec<u32> = spared.map(|(_, relay)| *relay).collect();
            let spares = |via: &[u16]| via.iter().any(|&relay| spared.contains(&relay.into()));
            if !spares(in_use.relays()) || !(others.is_empty() || spares(others)) {
                continue;
            }
            let Some(choice) = self.sparing(terrain, to, hints, &spared, NONE) else { continue };
            let further = Further { choice, shared: shared(choice.via, in_use, disjoint) };
            let rank = |it: &Further| (it.shared, it.choice.cost);
            if found.is_none_or(|before| rank(&further) < rank(&before)) {
                found = Some(further);
            }
        }
        found
    }

    /// The cheapest path over one or two relays that are none of these, if it costs less than `limit`.
    fn sparing(
        &self,
        terrain: &Terrain<'_>,
        to: usize,
        hints: &mut Hints<'_>,
        barred: &[u32],
        limit: u32,
    ) -> Option<Choice> {
        let firsts = Firsts { source: self.number, ways: &self.relays, order: &self.order };
        let is_allowed = |first: u32| !barred.contains(&first);
        let one = firsts.way(terrain, to, limit, is_allowed);
        let mut best = one.map(|(cost, first)| Choice { cost, via: Via::one(first) });
        if !terrain.two {
            return best;
        }
        let mut search = Search { bound: one.map_or(limit, |(cost, _)| cost), found: None };
        let mut look = |last: Last, search: &mut Search| {
            if terrain.carriers.all[last.relay] != 0 || barred.contains(&narrow(last.relay)) {
                return;
            }
            // One more, for of equals another relay may go first.
            let limit = search.bound + 1 - last.link;
            if let Some((way, first)) = firsts.way(terrain, last.relay, limit, is_allowed)
                && search.take(Found { cost: way + last.link, last: last.relay })
            {
                best = Some(Choice { cost: search.bound, via: Via::two(first, last.relay) });
            }
        };
        match hints {
            Hints::Dense(_) => {
                for (relay, link) in terrain.links.to(terrain.class, to) {
                    if link < search.bound {
                        look(Last { relay, link, least: link }, &mut search);
                    }
                }
            }
            Hints::Sparse(lasts) => {
                for rank in 0.. {
                    let last = lasts.nth(terrain, to, rank);
                    let Some(last) = last.filter(|last| search.may_gain(last)) else { break };
                    look(last, &mut search);
                }
            }
        }
        best
    }
}
