//! The search checked against a slow and obvious one: every path with at most two intermediates, by
//! every parallel link, walked over the graph's neighbours, then sorted.

use std::time::{Duration, Instant};

use overway_wire::{
    Class, ClockDiff, LinkId, LinkIndex, Micros, Path, PathElement, PricePerGb, RelayId,
};
use proptest::prelude::*;

use crate::{
    Candidate, Cost, Delays, LinkMeasure, LinkTerms, Planner, PlannerConfig, Reason,
    RelayAttributes, RouteKey, Topology, WindowSample,
};

/// Every path between two relays with its cost, cheapest first, then of fewer hops, then in order of id.
fn every_path(topology: &Topology, delays: &Delays, key: RouteKey) -> Vec<(Cost, Path)> {
    let mut found = Vec::new();
    walk(topology, delays, key, key.source, &mut Vec::new(), Cost(0), &mut found);
    found.sort_by_key(|(cost, path)| {
        let relays: Vec<_> = path.elements().iter().map(|step| step.relay).collect();
        (*cost, relays.len(), relays, *path)
    });
    found
}

fn walk(
    topology: &Topology,
    delays: &Delays,
    key: RouteKey,
    at: RelayId,
    steps: &mut Vec<PathElement>,
    cost: Cost,
    found: &mut Vec<(Cost, Path)>,
) {
    for (id, measure) in topology.links_from(at) {
        let seen = id.to == key.source || steps.iter().any(|step| step.relay == id.to);
        let terms = delays.link(id).and_then(|delay| LinkTerms::of(key.class, measure, delay));
        let Some(terms) = terms.filter(|_| !seen) else { continue };
        let cost = cost + terms.total();
        steps.push(PathElement::new(id.to, id.index));
        let relay = topology.relay(id.to).unwrap();
        if id.to == key.destination {
            found.push((cost, Path::new(steps).unwrap()));
        } else if steps.len() <= 2 && relay.transit && !relay.draining {
            walk(topology, delays, key, id.to, steps, cost, found);
        }
        steps.pop();
    }
}

fn disjoint(one: &Path, other: &Path) -> bool {
    let both_direct = one.intermediates().is_empty() && other.intermediates().is_empty();
    let shared = one
        .intermediates()
        .iter()
        .any(|step| other.intermediates().iter().any(|other| other.relay == step.relay));
    !both_direct && !shared
}

/// The candidates that a new pair should have, without those of [`Reason::Parallel`].
fn expected(topology: &Topology, delays: &Delays, key: RouteKey) -> Vec<(Cost, Path)> {
    let paths = every_path(topology, delays, key);
    let mut chosen: Vec<(Cost, Path)> = paths.first().copied().into_iter().collect();
    for _ in 0..2 {
        let next =
            paths.iter().find(|(_, path)| chosen.iter().all(|(_, before)| disjoint(path, before)));
        chosen.extend(next.filter(|_| !chosen.is_empty()).copied());
    }
    let direct = |(_, path): &&(Cost, Path)| path.intermediates().is_empty();
    if chosen.iter().find(direct).is_none() {
        chosen.extend(paths.iter().find(direct).copied());
    }
    chosen
}

#[derive(Clone, Debug)]
struct Drawn {
    transit: bool,
    draining: bool,
    /// To each relay by each of two links: delay in tenths of milliseconds, or no link.
    links: Vec<[Option<(u32, bool)>; 2]>,
}

fn drawn(relays: usize) -> impl Strategy<Value = Vec<Drawn>> {
    // Few distinct delays, so that ties are common.
    let link = || proptest::option::weighted(0.6, (1..8_u32, proptest::bool::weighted(0.9)));
    let links = proptest::collection::vec([link(), link()], relays);
    let relay = (proptest::bool::weighted(0.8), proptest::bool::weighted(0.1), links)
        .prop_map(|(transit, draining, links)| Drawn { transit, draining, links });
    proptest::collection::vec(relay, relays)
}

fn id(at: usize) -> RelayId {
    RelayId(u16::try_from(at * 7 + 1).unwrap())
}

fn measure(tenths: u32, usable: bool) -> LinkMeasure {
    let delay_us = tenths * 10_000;
    let window = WindowSample {
        one_way_diff: ClockDiff(i64::from(delay_us)),
        rtt: Micros(2 * delay_us),
        samples: 30,
        ..WindowSample::default()
    };
    let price = PricePerGb(tenths * 100);
    LinkMeasure { usable, fast: window, slow: window, price, ..LinkMeasure::default() }
}

fn topology(drawn: &[Drawn]) -> Topology {
    let mut topology = Topology::new();
    for (at, relay) in drawn.iter().enumerate() {
        let (transit, draining) = (relay.transit, relay.draining);
        let attributes = RelayAttributes { transit, draining, ..RelayAttributes::default() };
        topology.put_relay(id(at), attributes).unwrap();
    }
    for (from, relay) in drawn.iter().enumerate() {
        for (to, links) in relay.links.iter().enumerate().filter(|(to, _)| *to != from) {
            for (index, link) in (0..).zip(links) {
                let Some((tenths, usable)) = *link else { continue };
                let link = LinkId::new(id(from), id(to), LinkIndex::new(index).unwrap());
                topology.put_link(link, measure(tenths, usable)).unwrap();
            }
        }
    }
    topology
}

fn keys(relays: usize) -> impl Iterator<Item = RouteKey> {
    let ends = move |from| (0..relays).filter(move |to| *to != from).map(move |to| (from, to));
    (0..relays).flat_map(ends).flat_map(|(from, to)| {
        Class::ALL.map(|class| RouteKey { source: id(from), destination: id(to), class })
    })
}

fn check_candidates(candidates: &[Candidate], key: RouteKey) {
    assert!(!candidates.is_empty() && candidates.len() <= crate::CANDIDATES_MAX);
    for (at, candidate) in candidates.iter().enumerate() {
        assert_eq!(candidate.path.last().relay, key.destination);
        assert!(!candidate.path.visits(key.source));
        assert!(candidates[..at].iter().all(|before| before.path != candidate.path));
        assert_eq!(at == 0, candidate.reason == Reason::Best);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_new_pairs_candidates_are_those_of_the_reference(
        drawn in (2..8_usize).prop_flat_map(drawn)
    ) {
        let topology = topology(&drawn);
        let delays = Delays::fit(&topology);

        let plan = Planner::new(PlannerConfig::default()).plan(&topology, Instant::now());

        for key in keys(drawn.len()) {
            let found = plan.routes.get(&key).map_or(&[][..], Vec::as_slice);
            let exact: Vec<_> = found
                .iter()
                .filter(|candidate| candidate.reason != Reason::Parallel)
                .map(|candidate| (candidate.cost, candidate.path))
                .collect();
            prop_assert_eq!(&exact, &expected(&topology, &delays, key));
            if !found.is_empty() {
                check_candidates(found, key);
            }
            let parallel = found.iter().find(|candidate| candidate.reason == Reason::Parallel);
            if let Some(parallel) = parallel {
                let best = found[0].path;
                let relays = |path: &Path| path.elements().iter().map(|s| s.relay).collect::<Vec<_>>();
                prop_assert_eq!(relays(&parallel.path), relays(&best));
                prop_assert!(found.iter().all(|c| c.reason != Reason::Disjoint));
            }
        }
    }

    #[test]
    fn whatever_happens_the_path_in_use_is_usable_if_any_is(
        steps in proptest::collection::vec((drawn(5), 0..30_u64), 2..12)
    ) {
        let mut planners = [PlannerConfig::default(); 2].map(Planner::new);
        let mut now = Instant::now();
        for (drawn, seconds) in steps {
            now += Duration::from_secs(seconds);
            let topology = topology(&drawn);
            let delays = Delays::fit(&topology);

            let [plan, again] = [0, 1].map(|at: usize| planners[at].plan(&topology, now));

            prop_assert_eq!(&plan, &again);
            for key in keys(drawn.len()) {
                let usable = every_path(&topology, &delays, key);
                let found = plan.routes.get(&key);
                prop_assert_eq!(found.is_some(), !usable.is_empty());
                for candidate in found.into_iter().flatten() {
                    prop_assert!(usable.contains(&(candidate.cost, candidate.path)));
                }
                if let Some(found) = found {
                    check_candidates(found, key);
                }
            }
        }
    }
}
