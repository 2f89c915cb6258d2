//! The planner checked against a slow and obvious search: every path with at most two intermediates, by
//! every parallel link, walked over the graph's neighbours, then sorted. And the planner that does only
//! what changed, in parallel, by lists or by a matrix, checked against one that does everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use overway_wire::{
    Class, ClockDiff, LinkId, LinkIndex, Micros, Path, PathElement, PolicyId, PricePerGb, RelayId,
};
use petgraph::algo::dijkstra;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use proptest::prelude::*;

use crate::{
    Candidate, Cost, Delays, Executor, LinkMeasure, LinkTerms, Planner, PlannerConfig, Policy,
    Reason, RelayAttributes, RouteKey, Sequential, Topology, WindowSample,
};

/// The policy of the tests that have one.
const POLICY: PolicyId = PolicyId(3);

/// Every path between two relays with its cost, cheapest first, then in the order of the search's ties.
fn every_path(
    topology: &Topology,
    delays: &Delays,
    planner: &Planner,
    key: RouteKey,
) -> Vec<(Cost, Path)> {
    let mut found = Vec::new();
    walk(topology, delays, key, key.source, &mut Vec::new(), Cost(0), &mut found);
    found.sort_by_key(|(cost, path)| {
        let numbers: Vec<_> =
            path.intermediates().iter().map(|step| planner.number(step.relay)).collect();
        let first = LinkId::new(key.source, path.first().relay, path.first().link);
        let last = numbers.get(1).copied();
        (*cost, numbers.len(), last, link_cost(topology, delays, key.class, first), numbers, *path)
    });
    found
}

fn link_cost(topology: &Topology, delays: &Delays, class: Class, id: LinkId) -> Option<Cost> {
    let terms = LinkTerms::of(class, id, topology.link(id)?, delays.link(id)?)?;
    Some(terms.total())
}

fn allowed(topology: &Topology, policy: PolicyId, relay: RelayId) -> bool {
    let attributes = topology.relay(relay).unwrap();
    topology.policies().all(|(id, limits)| id != policy || limits.allows(relay, attributes))
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
    for (id, _) in topology.links_from(at) {
        let seen = id.to == key.source || steps.iter().any(|step| step.relay == id.to);
        let own = link_cost(topology, delays, key.class, id);
        let Some(own) = own.filter(|_| !seen && allowed(topology, key.policy, id.to)) else {
            continue;
        };
        steps.push(PathElement::new(id.to, id.index));
        let relay = topology.relay(id.to).unwrap();
        if id.to == key.destination {
            found.push((cost + own, Path::new(steps).unwrap()));
        } else if steps.len() <= 2 && relay.transit && !relay.draining {
            walk(topology, delays, key, id.to, steps, cost + own, found);
        }
        steps.pop();
    }
}

fn between(path: &Path) -> Vec<RelayId> {
    path.intermediates().iter().map(|step| step.relay).collect()
}

fn disjoint(one: &Path, other: &Path) -> bool {
    let (one, other) = (between(one), between(other));
    let both_direct = one.is_empty() && other.is_empty();
    let shared = one.iter().any(|relay| other.contains(relay));
    !both_direct && !shared
}

/// Whether `path` avoids what the intermediates of `best` have of a label; of a direct one, its ends.
fn avoids(
    topology: &Topology,
    key: RouteKey,
    best: &Path,
    path: &Path,
    label: impl Fn(&RelayAttributes) -> &String,
) -> bool {
    let of = |relay: RelayId| label(topology.relay(relay).unwrap());
    let direct = between(best).is_empty();
    let relays = if direct { vec![key.source, key.destination] } else { between(best) };
    let barred: BTreeSet<&String> = relays.into_iter().map(of).collect();
    let empty = String::new();
    let said = if direct {
        barred.len() > 1 || !barred.contains(&empty)
    } else {
        !barred.contains(&empty)
    };
    said && disjoint(best, path)
        && between(path)
            .into_iter()
            .all(|relay| !of(relay).is_empty() && !barred.contains(of(relay)))
}

/// What a new route should have beside parallel links.
struct Expected {
    best: (Cost, Path),
    disjoint: Option<(Cost, Path)>,
    diverse: Option<(Cost, Path)>,
    direct: Option<(Cost, Path)>,
}

fn expected(
    topology: &Topology,
    delays: &Delays,
    planner: &Planner,
    key: RouteKey,
) -> Option<Expected> {
    let paths = every_path(topology, delays, planner, key);
    let best = *paths.first()?;
    let cheapest =
        |fits: &dyn Fn(&Path) -> bool| paths.iter().find(|(_, path)| fits(path)).copied();
    let found = cheapest(&|path| disjoint(&best.1, path));
    let provider = cheapest(&|path| avoids(topology, key, &best.1, path, |relay| &relay.provider));
    let region = cheapest(&|path| avoids(topology, key, &best.1, path, |relay| &relay.region));
    Some(Expected {
        best,
        disjoint: found,
        diverse: provider.or(region),
        direct: cheapest(&|path| between(path).is_empty()),
    })
}

#[derive(Clone, Debug)]
struct Drawn {
    transit: bool,
    draining: bool,
    provider: u8,
    region: u8,
    /// To each relay by each of two links: delay in hundredths of milliseconds, or no link.
    links: Vec<[Option<(u32, bool)>; 2]>,
}

fn drawn(relays: usize) -> impl Strategy<Value = Vec<Drawn>> {
    // Few distinct delays, so that what is near a tie is common.
    let link = || proptest::option::weighted(0.6, (1..8_u32, proptest::bool::weighted(0.9)));
    let links = proptest::collection::vec([link(), link()], relays);
    let relay =
        (proptest::bool::weighted(0.8), proptest::bool::weighted(0.1), (0..4_u8, 0..3_u8), links)
            .prop_map(|(transit, draining, (provider, region), links)| Drawn {
                transit,
                draining,
                provider,
                region,
                links,
            });
    proptest::collection::vec(relay, relays)
}

fn id(at: usize) -> RelayId {
    RelayId(u16::try_from(at * 7 + 1).unwrap())
}

fn label(number: u8) -> String {
    if number == 0 { String::new() } else { number.to_string() }
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

/// Makes a topology what was drawn, as changes of what it is.
fn change(topology: &mut Topology, drawn: &[Drawn]) {
    for (at, relay) in drawn.iter().enumerate() {
        let (transit, draining) = (relay.transit, relay.draining);
        let (provider, region) = (label(relay.provider), label(relay.region));
        let attributes = RelayAttributes { provider, region, transit, draining };
        topology.put_relay(id(at), attributes).unwrap();
    }
    for (from, relay) in drawn.iter().enumerate() {
        for (to, links) in relay.links.iter().enumerate().filter(|(to, _)| *to != from) {
            if to >= drawn.len() {
                continue;
            }
            for (index, link) in (0..).zip(links) {
                let link_id = LinkId::new(id(from), id(to), LinkIndex::new(index).unwrap());
                match *link {
                    Some((tenths, usable)) => {
                        topology.put_link(link_id, measure(tenths, usable)).unwrap();
                    }
                    None => {
                        topology.remove_link(link_id);
                    }
                }
            }
        }
    }
}

fn topology(drawn: &[Drawn]) -> Topology {
    let mut topology = Topology::new();
    let regions = ["1".to_owned(), "2".to_owned()].into();
    let policy = Policy { name: "some".to_owned(), regions, ..Policy::default() };
    topology.put_policy(POLICY, policy).unwrap();
    change(&mut topology, drawn);
    topology
}

fn keys(relays: usize) -> impl Iterator<Item = RouteKey> {
    let ends = move |from| (0..relays).filter(move |to| *to != from).map(move |to| (from, to));
    (0..relays).flat_map(ends).flat_map(|(from, to)| {
        let of =
            move |class, policy| RouteKey { source: id(from), destination: id(to), class, policy };
        Class::ALL.into_iter().flat_map(move |class| [PolicyId(0), POLICY].map(|p| of(class, p)))
    })
}

fn check_route(
    topology: &Topology,
    delays: &Delays,
    planner: &Planner,
    key: RouteKey,
) -> Result<(), TestCaseError> {
    let found = planner.candidates(key);
    let ends = [key.source, key.destination];
    let expected = expected(topology, delays, planner, key)
        .filter(|_| ends.iter().all(|end| allowed(topology, key.policy, *end)));
    let Some(expected) = expected else {
        prop_assert_eq!(found, vec![]);
        return Ok(());
    };
    let of = |reason| found.iter().find(|c| c.reason == reason);
    let pair = |candidate: &Candidate| (candidate.cost, candidate.path);
    prop_assert_eq!(of(Reason::Best).map(pair), Some(expected.best));
    prop_assert_eq!(of(Reason::Disjoint).map(pair), expected.disjoint);
    match (of(Reason::Diverse), expected.diverse) {
        (Some(diverse), Some(expected)) => prop_assert_eq!(pair(diverse), expected),
        // Then the disjoint path is it.
        (None, Some(expected)) => prop_assert_eq!(of(Reason::Disjoint).map(pair), Some(expected)),
        (found, None) => prop_assert_eq!(found, None),
    }
    let has_direct = found.iter().any(Candidate::is_direct);
    prop_assert_eq!(has_direct, expected.direct.is_some());
    check_further(topology, delays, planner, key, &found)?;
    if let Some(parallel) = of(Reason::Parallel) {
        prop_assert_eq!(between(&parallel.path), between(&found[0].path));
        prop_assert_eq!(expected.disjoint, None);
    }
    Ok(())
}

/// What a path has in common with the best and the disjoint one; their first relay counts twice.
fn in_common(path: &Path, best: &Path, disjoint: Option<&Path>) -> usize {
    let (best, others) = (between(best), disjoint.map_or(vec![], between));
    let shared = |relay: &&RelayId| best.contains(relay) || others.contains(relay);
    let all = between(path);
    let first = all.iter().filter(|relay| best.first() == Some(relay)).count();
    all.iter().filter(shared).count() + first
}

/// A further path is there where there is no direct link and the others are not three that share no relay, and none
/// shares less or costs less.
fn check_further(
    topology: &Topology,
    delays: &Delays,
    planner: &Planner,
    key: RouteKey,
    found: &[Candidate],
) -> Result<(), TestCaseError> {
    let of = |reason| found.iter().find(|c| c.reason == reason);
    let path_of = |reason| of(reason).map(|candidate| candidate.path);
    let (best, further) = (found[0].path, of(Reason::Further));
    let (other, diverse) = (path_of(Reason::Disjoint), path_of(Reason::Diverse));
    let common = |path: &Path| in_common(path, &best, other.as_ref());
    let three = diverse.is_some_and(|path| common(&path) == 0);
    if found.iter().any(Candidate::is_direct) || three {
        prop_assert_eq!(further, None);
        return Ok(());
    }
    let spares = |path: &Path, other: &Path| {
        between(other).iter().any(|relay| !between(path).contains(relay))
    };
    let paths = every_path(topology, delays, planner, key).into_iter();
    let paths = paths
        .filter(|(_, path)| spares(path, &best) && other.is_none_or(|other| spares(path, &other)));
    let least = paths.map(|(cost, path)| (common(&path), cost)).min();
    match (further, least) {
        (Some(further), least) => {
            prop_assert_eq!(Some((common(&further.path), further.cost)), least);
        }
        // Then the diverse path is it.
        (None, Some((shared, cost))) => {
            let diverse = of(Reason::Diverse).map(|c| (common(&c.path), c.cost));
            prop_assert_eq!(diverse, Some((shared, cost)));
        }
        (None, None) => {}
    }
    Ok(())
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

/// Splits work as if there were threads, and does the last part first.
struct Reversed;

impl Executor for Reversed {
    fn width(&self) -> usize {
        3
    }

    fn run(&self, tasks: Vec<Box<dyn FnOnce() + Send + '_>>) {
        tasks.into_iter().rev().for_each(|task| task());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_new_routes_candidates_are_those_of_the_reference(
        drawn in (2..9_usize).prop_flat_map(drawn),
        sparse in any::<bool>(),
    ) {
        let mut topology = topology(&drawn);
        let mut planner = Planner::new(PlannerConfig::default());
        planner.set_sparse(sparse);

        planner.plan(&mut topology, &Sequential, Instant::now());

        let delays = Delays::fit(&topology);
        for key in keys(drawn.len()) {
            check_route(&topology, &delays, &planner, key)?;
            let found = planner.candidates(key);
            if !found.is_empty() {
                check_candidates(&found, key);
            }
        }
    }

    #[test]
    fn doing_what_changed_comes_to_the_same_as_doing_everything(
        steps in proptest::collection::vec((drawn(6), 0..15_u64, 0..36_usize), 2..14),
        sparse in any::<bool>(),
    ) {
        let mut planners = [0, 1].map(|_| Planner::new(PlannerConfig::default()));
        planners[0].set_sparse(sparse);
        planners[1].set_whole();
        let mut topologies = [topology(&steps[0].0), topology(&steps[0].0)];
        let mut now = Instant::now();
        for (drawn, seconds, pair) in &steps {
            now += Duration::from_secs(*seconds);
            // Mostly a single pair changes, now and then everything.
            let (from, to) = (pair / 6, pair % 6);
            for topology in &mut topologies {
                if *seconds == 0 {
                    change(topology, drawn);
                } else if from != to {
                    for (index, link) in (0..).zip(&drawn[from].links[to]) {
                        let index = LinkIndex::new(index).unwrap();
                        let link_id = LinkId::new(id(from), id(to), index);
                        if let Some((tenths, usable)) = *link {
                            topology.put_link(link_id, measure(tenths, usable)).unwrap();
                        }
                    }
                }
            }
            let [little, all] = &mut planners;
            let changed = little.plan(&mut topologies[0], &Reversed, now);
            let again = all.plan(&mut topologies[1], &Sequential, now);

            prop_assert_eq!(changed, again);
            for key in keys(6) {
                let (found, same) = (little.candidates(key), all.candidates(key));
                prop_assert_eq!(&found, &same);
                prop_assert_eq!(little.is_candidate(LinkId::new(key.source, key.destination, LinkIndex::default())),
                    all.is_candidate(LinkId::new(key.source, key.destination, LinkIndex::default())));
                if !found.is_empty() {
                    check_candidates(&found, key);
                }
            }
            prop_assert_eq!(little.stats().routes, all.stats().routes);
            prop_assert_eq!(little.stats().routes_without_disjoint, all.stats().routes_without_disjoint);
        }
    }

    #[test]
    fn the_path_in_use_is_usable_if_any_is(
        steps in proptest::collection::vec((drawn(5), 0..30_u64), 2..12)
    ) {
        let mut planner = Planner::new(PlannerConfig::default());
        let mut topology = topology(&steps[0].0);
        let mut now = Instant::now();
        for (drawn, seconds) in steps {
            now += Duration::from_secs(seconds);
            change(&mut topology, &drawn);

            planner.plan(&mut topology, &Sequential, now);

            let delays = Delays::fit(&topology);
            for key in keys(5).filter(|key| key.policy == PolicyId(0)) {
                let usable = every_path(&topology, &delays, &planner, key);
                let found = planner.candidates(key);
                prop_assert_eq!(found.is_empty(), usable.is_empty());
                let paths: BTreeSet<Path> = usable.into_iter().map(|(_, path)| path).collect();
                prop_assert!(found.iter().all(|candidate| paths.contains(&candidate.path)));
            }
        }
    }
}

/// A mesh of a few blocks of relays, with delays drawn by a multiplicative generator from a seed.
fn large(relays: usize, seed: u64) -> Topology {
    let mut state = seed;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut topology = Topology::new();
    for at in 0..relays {
        let attributes = RelayAttributes {
            provider: (draw(3) + 1).to_string(),
            region: (draw(6) + 1).to_string(),
            transit: draw(10) > 0,
            draining: false,
        };
        topology.put_relay(id(at), attributes).unwrap();
    }
    for (from, to) in (0..relays).flat_map(|from| (0..relays).map(move |to| (from, to))) {
        if from != to && draw(20) > 0 {
            let us = u32::try_from(1_000 + draw(150_000)).unwrap();
            let mut link = measure(1, true);
            for window in [&mut link.fast, &mut link.slow] {
                window.one_way_diff = ClockDiff(i64::from(us));
                window.rtt = Micros(2 * us);
            }
            let between = LinkId::new(id(from), id(to), LinkIndex::default());
            topology.put_link(between, link).unwrap();
        }
    }
    topology
}

#[test]
fn every_level_of_the_kernel_and_the_lists_find_the_same_over_many_blocks() {
    for (seed, backups) in [(1, true), (2, true), (3, true), (4, false)] {
        let config = PlannerConfig { backups, ..PlannerConfig::default() };
        let mut planners = Planner::of_every_kind(config);
        let now = Instant::now();
        for planner in &mut planners {
            planner.plan(&mut large(150, seed), &Sequential, now);
        }
        let (first, others) = planners.split_first().unwrap();
        for key in first.keys() {
            let found = first.candidates(key);
            assert!(others.iter().all(|other| other.candidates(key) == found), "{key:?}");
        }
    }
}

#[test]
fn best_paths_alone_are_those_that_are_found_with_backups() {
    let (mut with, mut without) = (large(150, 6), large(150, 6));
    let mut planner = Planner::new(PlannerConfig::default());
    let config = PlannerConfig { backups: false, ..PlannerConfig::default() };
    let mut alone = Planner::new(config);
    let now = Instant::now();
    planner.plan(&mut with, &Sequential, now);
    alone.plan(&mut without, &Sequential, now);

    for key in planner.keys() {
        let found = alone.candidates(key);
        assert_eq!(found, planner.candidates(key)[..1], "{key:?}");
    }
}

#[test]
fn many_blocks_are_planned_as_the_reference_would() {
    let mut topology = large(100, 8);
    topology.put_policy(POLICY, Policy::default()).unwrap();
    let mut planners = Planner::of_every_kind(PlannerConfig::default());
    let delays = Delays::fit(&topology);
    for planner in &mut planners {
        let mut same = topology.clone();
        planner.plan(&mut same, &Sequential, Instant::now());
        // Every path is tried: of few pairs, in all parts of the mesh.
        for (from, to) in (0..100).map(|at| (at, (at * 37 + 11) % 100)).step_by(9) {
            let class = Class::ALL[from % Class::ALL.len()];
            let (source, destination) = (id(from), id(to));
            let key = RouteKey { source, destination, class, policy: PolicyId(0) };
            check_route(&topology, &delays, planner, key).unwrap();
        }
    }
}

#[test]
fn costs_are_those_of_three_rounds_of_relaxation_and_never_below_the_shortest_paths() {
    let mut topology = large(60, 9);
    let mut planner = Planner::new(PlannerConfig::default());
    planner.plan(&mut topology, &Sequential, Instant::now());
    let delays = Delays::fit(&topology);
    for (source, _) in topology.relays() {
        let mut graph: DiGraph<RelayId, u32> = DiGraph::new();
        let nodes: BTreeMap<RelayId, NodeIndex> =
            topology.relays().map(|(id, _)| (id, graph.add_node(id))).collect();
        for (link, _) in topology.links() {
            let cost = link_cost(&topology, &delays, Class::Realtime, link).unwrap();
            if link.from == source || topology.relay(link.from).unwrap().transit {
                graph.add_edge(nodes[&link.from], nodes[&link.to], cost.0);
            }
        }
        let unbounded = dijkstra(&graph, nodes[&source], None, |edge| *edge.weight());
        let mut bounded = BTreeMap::from([(nodes[&source], 0)]);
        for _ in 0..3 {
            let before = bounded.clone();
            for edge in graph.edge_references() {
                if let Some(sum) = before.get(&edge.source()).map(|cost| cost + edge.weight()) {
                    let known = bounded.entry(edge.target()).or_insert(sum);
                    *known = sum.min(*known);
                }
            }
        }
        for (destination, node) in nodes.iter().filter(|(to, _)| **to != source) {
            let (class, policy) = (Class::Realtime, PolicyId(0));
            let key = RouteKey { source, destination: *destination, class, policy };
            let found = planner.candidates(key)[0];
            assert_eq!(Some(&found.cost.0), bounded.get(node), "{key:?}");
            assert!(found.cost.0 >= unbounded[node]);
        }
    }
}

#[test]
fn many_changes_at_once_over_many_blocks_come_to_the_same_as_doing_everything() {
    let mut planners = [0, 1, 2].map(|_| Planner::new(PlannerConfig::default()));
    planners[1].set_sparse(true);
    planners[2].set_whole();
    let mut topologies = [0, 1, 2].map(|_| large(150, 5));
    let mut now = Instant::now();
    let mut state = 77_u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % below
    };
    for round in 0..6 {
        let changes: Vec<(usize, usize, u32)> = (0..300)
            .map(|_| (draw(150), draw(150), u32::try_from(draw(90_000)).unwrap()))
            .collect();
        for topology in &mut topologies {
            for &(from, to, us) in changes.iter().filter(|_| round > 0) {
                let link = LinkId::new(id(from), id(to), LinkIndex::default());
                let Some(mut measure) = topology.link(link).copied() else { continue };
                measure.usable = us > 2_000;
                measure.slow.one_way_diff = ClockDiff(i64::from(us) + 1_000);
                measure.fast.one_way_diff = measure.slow.one_way_diff;
                topology.put_link(link, measure).unwrap();
            }
        }
        now += Duration::from_secs(1);
        let [one, two, all] =
            [0, 1, 2].map(|at: usize| planners[at].plan(&mut topologies[at], &Sequential, now));
        assert_eq!((&one, &two), (&all, &all), "round {round}");
        for key in planners[2].keys() {
            let found = planners[2].candidates(key);
            assert_eq!(
                (&planners[0].candidates(key), &planners[1].candidates(key)),
                (&found, &found)
            );
        }
    }
    assert!(planners[0].stats().routes_done < planners[2].stats().routes_done * 9 / 10);
}
