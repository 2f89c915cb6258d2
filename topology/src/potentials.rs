//! One-way delays out of clocks that disagree.
//!
//! A link's raw one-way difference is its delay plus the receiver's clock offset less the sender's. Take
//! any number per relay (a *potential*) off the clocks and the differences change, but the sum around any
//! circle does not: a pair's round trip stays what it is, and two paths between the same ends differ by
//! what they did before. So comparing paths is exact whatever the potentials are; they only decide
//! what the absolute values look like. They are found in four steps, anew for each plan, which also
//! takes care of drift:
//!
//! 1. **Pairs.** Where both directions of a link are measured, half their difference estimates the
//!    difference of the two clocks, exactly if the delays are symmetric. A pair whose directions do not
//!    sum to about its round trip is stale (one end restarted) and is left out.
//! 2. **Slow window.** A spanning tree of the shortest round trips gives first offsets per connected
//!    component, then Gauss-Seidel sweeps approach the least squares, weighted by 1/RTT: the asymmetry
//!    of a short link is small.
//! 3. **Repair.** Where an offset makes a delay negative, the Bellman-Ford relaxation for difference
//!    constraints (Cormen et al., chapter on shortest paths) lowers the fewest potentials needed. What
//!    remains negative is a contradiction in the measurements and becomes zero.
//! 4. **Fast window.** Its offsets are the slow ones plus the drift since, by the medians of how far
//!    each pair moved. A median, since a sudden change of one link must not look like a clock's.
//!
//! A link that takes part in no component, or contradicts it, counts with half its round trip. Without a
//! round trip either, nothing is known of its delay.

use overway_wire::{LinkId, Micros, RelayId};

use crate::{LinkMeasure, Topology, WindowSample};

mod fit;

use fit::Pair;

/// One-way differences beyond this are no clock's: 35 years. It keeps sums over any path in range.
const DIFF_US_MAX: u64 = 1 << 50;
/// What a pair's sum may be below zero, by jitter between two measurements.
const SUM_SLACK_US: i64 = 5_000;
/// What a pair's sum may exceed twice its round trip by. Both are measured over a window, so that a sudden
/// change does not reach them at once.
const SUM_EXCESS_US: i64 = 250_000;

/// How far below zero a delay may be by noise, before the offsets count as wrong.
const STRAIN_US: i64 = 200;
/// Offsets nearer than this are not worth pricing every link anew.
const CLOSE_US: u64 = 1_000;
/// Pairs per relay that a fit looks at, those of the shortest round trips: the others would weigh little.
const PAIRS_PER_RELAY: usize = 24;

/// One-way delays of a link. Estimates: see the differences between paths of the same ends for what is
/// exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkDelay {
    /// Over the fast window; as the slow one's if the fast one is empty.
    pub fast: Micros,
    /// Over the slow window; as the fast one's if the slow one is empty.
    pub slow: Micros,
}

/// One-way delays of all usable links whose delay is known at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// In order of id.
    links: Vec<(LinkId, LinkDelay)>,
}

/// A usable link, its ends as positions among the relays in order of id.
#[derive(Clone, Copy, Debug)]
struct Timed {
    id: LinkId,
    from: usize,
    to: usize,
    slow: Option<i64>,
    fast: Option<i64>,
    rtt: Micros,
}

impl Delays {
    /// Fits the clocks' offsets to a topology's measurements and takes them out.
    pub fn fit(topology: &Topology) -> Self {
        let clocks = Clocks::fit(topology);
        let usable = topology.links().filter(|(_, measure)| measure.usable);
        let links = usable.filter_map(|(id, measure)| Some((id, clocks.delay(id, measure)?)));
        Self { links: links.collect() }
    }

    /// A link's delays, or `None` if it is not usable or nothing is known of its delay.
    pub fn link(&self, id: LinkId) -> Option<LinkDelay> {
        let at = self.links.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.links[at].1)
    }

    /// Every known delay, in order of link.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (LinkId, LinkDelay)> {
        self.links.iter().copied()
    }
}

/// The relays' clocks, fitted at some time. They hold for as long as the clocks do not drift apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clocks {
    /// In order of id.
    relays: Vec<RelayId>,
    offsets: Offsets,
}

impl Clocks {
    /// Fits the clocks' offsets to a topology's measurements.
    pub(crate) fn fit(topology: &Topology) -> Self {
        let relays: Vec<RelayId> = topology.relays().map(|(id, _)| id).collect();
        let timed: Vec<Timed> = topology
            .links()
            .filter(|(_, measure)| measure.usable)
            .filter_map(|(id, measure)| timed(id, measure, &relays))
            .collect();
        let offsets = Offsets::fit(relays.len(), &timed);
        Self { relays, offsets }
    }

    /// The delays of a link, or `None` if nothing is known of them.
    pub(crate) fn delay(&self, id: LinkId, measure: &LinkMeasure) -> Option<LinkDelay> {
        match timed(id, measure, &self.relays) {
            Some(link) => self.offsets.delay(&link),
            None => half(measure),
        }
    }

    /// Whether a link's measurements do not go with these offsets: one end restarted, or its clock drifted
    /// away.
    pub(crate) fn strains(&self, id: LinkId, measure: &LinkMeasure) -> bool {
        let Some(link) = timed(id, measure, &self.relays) else { return true };
        let offsets = &self.offsets;
        let (from, to) = (link.from, link.to);
        if offsets.component[from] != offsets.component[to] {
            return link.slow.or(link.fast).is_some();
        }
        let off = |raw: Option<i64>, by: &[i64]| {
            raw.is_some_and(|raw| {
                let us = raw - (by[to] - by[from]);
                us < -STRAIN_US || !plausible(us, link.rtt)
            })
        };
        off(link.slow, &offsets.slow)
    }

    /// Whether the offsets of another fit are of the same relays and no further from these than a route
    /// would notice.
    pub(crate) fn is_close(&self, other: &Self) -> bool {
        let far = |(a, b): (&i64, &i64)| a.abs_diff(*b) > CLOSE_US;
        let (own, others) = (&self.offsets, &other.offsets);
        self.relays == other.relays
            && own.component == others.component
            && !own.slow.iter().zip(&others.slow).any(far)
            && !own.fast.iter().zip(&others.fast).any(far)
    }
}

/// The relays' potentials: clock offsets, repaired.
#[derive(Clone, Debug, Default)]
struct Offsets {
    /// Relays with the same number have comparable clocks.
    component: Vec<usize>,
    slow: Vec<i64>,
    fast: Vec<i64>,
}

impl Offsets {
    fn fit(relays: usize, timed: &[Timed]) -> Self {
        let all_pairs = pairs(timed, |link| link.slow.or(link.fast));
        let mut slow_pairs = fit::shortest(relays, &all_pairs, PAIRS_PER_RELAY);
        let mut forest = fit::spanning_forest(relays, &slow_pairs);
        if forest.component.iter().any(|root| *root != 0) {
            // What is near is not all that is joined.
            forest = fit::spanning_forest(relays, &all_pairs);
            slow_pairs = all_pairs;
        }
        let mut slow = fit::least_squares(forest.offsets, &slow_pairs);
        let drift = fit::medians(relays, &fit::shortest(relays, &moved(timed), PAIRS_PER_RELAY));
        let component = forest.component;
        let arcs: Vec<_> = timed
            .iter()
            .filter(|link| component[link.from] == component[link.to])
            .filter_map(|link| {
                let us = link.slow.or(link.fast)? - (slow[link.to] - slow[link.from]);
                plausible(us, link.rtt).then_some((link.from, link.to, us))
            })
            .collect();
        for (offset, repair) in slow.iter_mut().zip(fit::repair(relays, &arcs)) {
            *offset += repair;
        }
        let fast = slow.iter().zip(drift).map(|(offset, drift)| offset + drift).collect();
        Self { component, slow, fast }
    }

    fn delay(&self, link: &Timed) -> Option<LinkDelay> {
        let half = (link.rtt.0 > 0).then_some(Micros(link.rtt.0 / 2));
        if self.component[link.from] != self.component[link.to] {
            return half.map(|half| LinkDelay { fast: half, slow: half });
        }
        let adjusted = |raw: Option<i64>, offsets: &[i64]| {
            let us = raw? - (offsets[link.to] - offsets[link.from]);
            plausible(us, link.rtt).then(|| micros(us)).or(half)
        };
        let (slow, fast) = (adjusted(link.slow, &self.slow), adjusted(link.fast, &self.fast));
        Some(LinkDelay { fast: fast.or(slow).or(half)?, slow: slow.or(fast).or(half)? })
    }
}

/// A link with its ends' positions, or `None` if one is not among the relays.
fn timed(id: LinkId, measure: &LinkMeasure, relays: &[RelayId]) -> Option<Timed> {
    let at = |relay: &RelayId| relays.binary_search(relay).ok();
    Some(Timed {
        id,
        from: at(&id.from)?,
        to: at(&id.to)?,
        slow: raw(&measure.slow),
        fast: raw(&measure.fast),
        rtt: round_trip(measure),
    })
}

fn round_trip(measure: &LinkMeasure) -> Micros {
    if measure.slow.rtt.0 > 0 { measure.slow.rtt } else { measure.fast.rtt }
}

/// Half the round trip, both ways alike, if it is known.
fn half(measure: &LinkMeasure) -> Option<LinkDelay> {
    let rtt = round_trip(measure);
    let half = Micros(rtt.0 / 2);
    (rtt.0 > 0).then_some(LinkDelay { fast: half, slow: half })
}

/// A window's one-way difference, if a packet arrived in it and the value may be a clock's.
fn raw(window: &WindowSample) -> Option<i64> {
    let diff_us = window.one_way_diff.0;
    (window.samples > window.lost && diff_us.unsigned_abs() < DIFF_US_MAX).then_some(diff_us)
}

/// Links with both directions measured, by `of`, and consistent.
fn pairs(timed: &[Timed], of: impl Fn(&Timed) -> Option<i64>) -> Vec<Pair> {
    both_directions(timed)
        .filter_map(|(there, back)| {
            let (out, home) = (of(there)?, of(back)?);
            let rtt = there.rtt.max(back.rtt);
            let shift = (out - home) / 2;
            consistent(out + home, rtt).then(|| Pair::new(there.from, there.to, shift, rtt))
        })
        .collect()
}

/// By how much the clocks of each pair moved from the slow window to the fast one.
fn moved(timed: &[Timed]) -> Vec<Pair> {
    both_directions(timed)
        .filter_map(|(there, back)| {
            let (out, home) = (there.fast?, back.fast?);
            let (out_slow, home_slow) = (there.slow?, back.slow?);
            let rtt = there.rtt.max(back.rtt);
            let shift = ((out - out_slow) - (home - home_slow)) / 2;
            (consistent(out + home, rtt) && consistent(out_slow + home_slow, rtt))
                .then(|| Pair::new(there.from, there.to, shift, rtt))
        })
        .collect()
}

fn both_directions(timed: &[Timed]) -> impl Iterator<Item = (&Timed, &Timed)> {
    timed.iter().filter(|link| link.from < link.to).filter_map(|there| {
        let back = timed.binary_search_by_key(&there.id.reversed(), |link| link.id).ok()?;
        Some((there, &timed[back]))
    })
}

/// Whether the two directions' differences can be of the same two clocks: these cancel in the sum.
fn consistent(sum_us: i64, rtt: Micros) -> bool {
    (-SUM_SLACK_US..=2 * i64::from(rtt.0) + SUM_EXCESS_US).contains(&sum_us)
}

/// Whether a delay can be that of a link with this round trip. It may still be a little negative.
fn plausible(us: i64, rtt: Micros) -> bool {
    let most = 2 * i64::from(rtt.0) + SUM_EXCESS_US;
    (-most..=most).contains(&us)
}

fn micros(us: i64) -> Micros {
    Micros(u32::try_from(us.max(0)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
