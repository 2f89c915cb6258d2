//! Explanations.

use overway_scheduler_core::{LinkLoad, RouteExplanation};
use overway_topology::{
    Candidate, Explained, ExplainedLink, Explanation, LinkDelay, LinkMeasure, LinkTerms, Miss,
    RouteKey, Verdict,
};
use overway_wire::RelayId;

use super::{Names, candidate, capacity, millis, name, reason_name, steps, window};
use crate::api::{
    ExplainBody, ExplainedBody, ExplainedLinkBody, MissBody, RelayRefBody, TermsBody, VerdictBody,
    WhatIfRouteBody,
};

/// All of a route's traffic.
const WHOLE_PERMILLE: u16 = 1_000;

impl ExplainBody {
    /// Makes the body of an explanation.
    pub(crate) fn new(route: &RouteExplanation, policy_name: &str, names: &Names) -> Self {
        let RouteExplanation { explanation, weights, demand, loads } = route;
        let Explanation {
            key,
            current,
            others,
            direct,
            in_use_for,
            moves,
            has_disjoint,
            has_diverse,
        } = explanation;
        // Shares are those of the candidates as pushed: the path in use, then its backups. Where there are
        // none the path in use takes all.
        let all_on_first: &[u16] = &[WHOLE_PERMILLE];
        let shares = if weights.is_empty() { all_on_first } else { weights };
        let mut shares = shares.iter().copied();
        let with = Loads { loads, names };
        let current = with.explained(current, shares.next());
        Self {
            source: key.source.0,
            source_name: name(names, key.source),
            destination: key.destination.0,
            destination_name: name(names, key.destination),
            class: key.class.name().to_owned(),
            policy: key.policy.0,
            policy_name: policy_name.to_owned(),
            partners: false,
            in_use_ms: millis(*in_use_for),
            moves: *moves,
            has_disjoint: *has_disjoint,
            has_diverse: *has_diverse,
            demand_bps: (demand.0 > 0).then_some(demand.0),
            current,
            others: others.iter().map(|other| with.explained(other, shares.next())).collect(),
            direct: direct.as_ref().map(|direct| with.explained(direct, None)),
        }
    }
}

impl WhatIfRouteBody {
    /// Makes the body of a route that changes; `None` if it has no path now.
    pub(crate) fn new(
        key: RouteKey,
        now: &[Candidate],
        then: &[Candidate],
        names: &Names,
    ) -> Option<Self> {
        let (now, then) = (now.first()?, then.first());
        let change = |then: &Candidate| i64::from(then.delay.0) - i64::from(now.delay.0);
        Some(Self {
            source: key.source.0,
            source_name: name(names, key.source),
            destination: key.destination.0,
            destination_name: name(names, key.destination),
            class: key.class.name().to_owned(),
            policy: key.policy.0,
            now: candidate(now, names),
            then: then.map(|then| candidate(then, names)),
            delay_change_us: then.map(change),
        })
    }
}

impl RelayRefBody {
    /// Names a relay.
    pub(crate) fn new(relay: RelayId, names: &Names) -> Self {
        Self { id: relay.0, name: name(names, relay) }
    }
}

/// What the links of an explanation carry.
struct Loads<'a> {
    loads: &'a [LinkLoad],
    names: &'a Names,
}

impl Loads<'_> {
    fn explained(&self, explained: &Explained, share_permille: Option<u16>) -> ExplainedBody {
        let Explained { candidate, links, terms: sum, verdict: why, misses } = explained;
        let Candidate { path, cost: _, delay, reason } = candidate;
        ExplainedBody {
            path: steps(path.elements(), self.names),
            reason: reason_name(*reason).to_owned(),
            delay_us: delay.0,
            share_permille,
            terms: terms(*sum),
            verdict: verdict(*why),
            misses: misses.iter().map(|&miss| missed(miss)).collect(),
            links: links.iter().map(|link| self.link(link)).collect(),
        }
    }

    fn link(&self, link: &ExplainedLink) -> ExplainedLinkBody {
        let ExplainedLink { id, terms: priced, delay, measure } = link;
        let LinkDelay { fast: delay_fast, slow: delay_slow } = delay;
        let LinkMeasure { usable, fast, slow, load, capacity: carries, price, draining } = measure;
        let load_of = |found: &&LinkLoad| found.id == *id;
        let rate = self.loads.iter().find(load_of).map(|found| found.rate).unwrap_or_default();
        ExplainedLinkBody {
            from: id.from.0,
            from_name: name(self.names, id.from),
            to: id.to.0,
            to_name: name(self.names, id.to),
            index: id.index.value(),
            terms: terms(*priced),
            delay_fast_us: delay_fast.0,
            delay_slow_us: delay_slow.0,
            fast: window(*fast),
            slow: window(*slow),
            rate_bps: rate.0,
            load_permille: capacity(*carries).map(|_| load.0),
            capacity_bps: capacity(*carries),
            price_millicents_per_gb: price.0,
            usable: *usable,
            draining: *draining,
        }
    }
}

fn terms(terms: LinkTerms) -> TermsBody {
    let LinkTerms { delay, hop, spread, loss, jitter, load, price } = terms;
    TermsBody {
        delay: delay.0,
        hop: hop.0,
        spread: spread.0,
        loss: loss.0,
        jitter: jitter.0,
        load: load.0,
        price: price.0,
        total: terms.total().0,
    }
}

fn verdict(verdict: Verdict) -> VerdictBody {
    let (kind, difference, remaining) = match verdict {
        Verdict::Cheapest => ("cheapest", None, None),
        Verdict::Kept { saving } => ("kept", Some(saving), None),
        Verdict::KeptWhileHeld { saving } => ("kept_while_held", Some(saving), None),
        Verdict::Dearer { by } => ("dearer", Some(by), None),
        Verdict::NotWorthMoving { saving } => ("not_worth_moving", Some(saving), None),
        Verdict::HeldAfterLeaving { saving, remaining } => {
            ("held_after_leaving", Some(saving), Some(remaining))
        }
        Verdict::Draining => ("draining", None, None),
        Verdict::Readmission => ("readmission", None, None),
    };
    VerdictBody {
        kind: kind.to_owned(),
        difference: difference.map(|cost| cost.0),
        remaining_ms: remaining.map(millis),
    }
}

fn missed(miss: Miss) -> MissBody {
    let (kind, value, limit) = match miss {
        Miss::Deadline { delay, limit } => ("deadline_us", delay.0, limit.0),
        Miss::Delivery { loss, limit } => ("delivery_ppm", loss.ppm(), limit.ppm()),
    };
    MissBody { kind: kind.to_owned(), value, limit }
}
