use std::time::Duration;

use super::*;
use crate::{Cuts, Miss, Policy, RelayAttributes, Sequential, Verdict, WindowSample};
use overway_wire::{ClockDiff, Path};

const KEY: RouteKey = RouteKey {
    source: RelayId(1),
    destination: RelayId(2),
    class: Class::Realtime,
    policy: PolicyId(0),
};

/// A full mesh of four relays. From 1 to 2 the direct link takes 100 ms, over 3 it is 40, over 4 60, over
/// both 70.
struct Bench {
    topology: Topology,
    planner: Planner,
    now: Instant,
}

fn link(from: u16, to: u16) -> LinkId {
    LinkId::new(RelayId(from), RelayId(to), LinkIndex::default())
}

fn clean(delay_ms: u32) -> LinkMeasure {
    let window = WindowSample {
        one_way_diff: ClockDiff(i64::from(delay_ms) * 1_000),
        rtt: Micros(delay_ms * 2_000),
        samples: 1_000,
        ..WindowSample::default()
    };
    let fast = WindowSample { samples: 33, ..window };
    LinkMeasure { usable: true, fast, slow: window, ..LinkMeasure::default() }
}

impl Bench {
    fn new() -> Self {
        let mut topology = Topology::new();
        for id in 1..=4 {
            let transit = RelayAttributes { transit: true, ..RelayAttributes::default() };
            topology.put_relay(RelayId(id), transit).unwrap();
        }
        let planner = Planner::new(PlannerConfig::default());
        let mut bench = Self { topology, planner, now: Instant::now() };
        for (one, other, ms) in
            [(1, 2, 100), (1, 3, 20), (3, 2, 20), (1, 4, 30), (4, 2, 30), (3, 4, 20)]
        {
            bench.put(one, other, clean(ms));
            bench.put(other, one, clean(ms));
        }
        bench
    }

    /// Past the settling of new pairs.
    fn settled() -> Self {
        let mut bench = Self::new();
        bench.run(30);
        bench
    }

    fn put(&mut self, from: u16, to: u16, measure: LinkMeasure) {
        self.topology.put_link(link(from, to), measure).unwrap();
    }

    fn change(&mut self, from: u16, to: u16, change: impl FnOnce(&mut LinkMeasure)) {
        let mut measure = *self.topology.link(link(from, to)).unwrap();
        change(&mut measure);
        self.put(from, to, measure);
    }

    fn usable(&mut self, from: u16, to: u16, usable: bool) {
        self.change(from, to, |measure| measure.usable = usable);
    }

    /// 15 % in both windows, or none.
    fn lossy(&mut self, from: u16, to: u16, lossy: bool) {
        self.change(from, to, |measure| {
            measure.fast.lost = if lossy { 5 } else { 0 };
            measure.slow.lost = if lossy { 150 } else { 0 };
        });
    }

    fn plan(&mut self) -> Vec<RouteKey> {
        let changed = self.planner.plan(&mut self.topology, &Sequential, self.now);
        self.now += Duration::from_secs(1);
        changed
    }

    fn candidates(&mut self) -> Vec<Candidate> {
        self.plan();
        self.planner.candidates(KEY)
    }

    /// Plans once a second; returns the intermediates in use at the end.
    fn run(&mut self, seconds: usize) -> Vec<u16> {
        let last = (0..seconds).map(|_| self.candidates()).last().unwrap();
        via(&last[0].path)
    }

    /// Seconds until the path in use goes over `relay`.
    fn seconds_until_via(&mut self, relay: u16) -> Option<usize> {
        (0..300).find(|_| self.run(1).contains(&relay))
    }
}

fn via(path: &Path) -> Vec<u16> {
    path.intermediates().iter().map(|step| step.relay.0).collect()
}

#[test]
fn the_best_path_comes_first_then_a_disjoint_one_and_direct() {
    let mut bench = Bench::new();

    let candidates = bench.candidates();

    let found: Vec<_> = candidates.iter().map(|c| (via(&c.path), c.delay.0, c.reason)).collect();
    assert_eq!(
        found,
        [
            (vec![3], 40_000, Reason::Best),
            (vec![4], 60_000, Reason::Disjoint),
            (vec![], 100_000, Reason::Direct),
        ]
    );
    assert!((40_400..=40_654).contains(&candidates[0].cost.0));
    assert!(candidates[2].is_direct() && !candidates[0].is_direct());
}

/// A relay of this provider and region that carries others' traffic.
fn relay(provider: &str, region: &str) -> RelayAttributes {
    let (provider, region) = (provider.to_owned(), region.to_owned());
    RelayAttributes { provider, region, transit: true, draining: false }
}

/// A fifth relay, half way between the first two.
fn with_fifth(bench: &mut Bench, delay_ms: u32) {
    bench.topology.put_relay(RelayId(5), relay("", "")).unwrap();
    for other in [1, 2] {
        bench.put(5, other, clean(delay_ms));
        bench.put(other, 5, clean(delay_ms));
    }
}

#[test]
fn a_path_that_avoids_the_provider_of_the_best_is_kept_beside_the_disjoint_one() {
    let mut bench = Bench::new();
    with_fifth(&mut bench, 35);
    for (id, provider) in [(1, "x"), (2, "y"), (3, "a"), (4, "a"), (5, "b")] {
        bench.topology.put_relay(RelayId(id), relay(provider, "")).unwrap();
    }

    let found: Vec<_> = bench.candidates().iter().map(|c| (via(&c.path), c.reason)).collect();

    assert_eq!(
        found,
        [
            (vec![3], Reason::Best),
            (vec![4], Reason::Disjoint),
            (vec![5], Reason::Diverse),
            (vec![], Reason::Direct),
        ]
    );
    assert_eq!(bench.planner.stats().routes_without_disjoint, 0);
}

#[test]
fn where_no_path_avoids_the_provider_one_avoids_the_region() {
    let mut bench = Bench::new();
    with_fifth(&mut bench, 35);
    bench.usable(1, 2, false);
    for (id, region) in [(1, "x"), (2, "y"), (3, "west"), (4, "west"), (5, "east")] {
        bench.topology.put_relay(RelayId(id), relay("a", region)).unwrap();
    }

    let found: Vec<_> = bench.candidates().iter().map(|c| (via(&c.path), c.reason)).collect();

    assert_eq!(found[2], (vec![5], Reason::Diverse));
}

#[test]
fn what_was_not_said_is_not_taken_for_different() {
    let mut bench = Bench::new();
    with_fifth(&mut bench, 35);
    bench.usable(1, 2, false);
    for (id, provider) in [(3, "a"), (4, "")] {
        bench.topology.put_relay(RelayId(id), relay(provider, "")).unwrap();
    }

    let reasons: Vec<_> = bench.candidates().iter().map(|c| c.reason).collect();

    assert_eq!(reasons, [Reason::Best, Reason::Disjoint, Reason::Further]);
    let keys: Vec<_> = bench.planner.keys().collect();
    assert_eq!(bench.planner.stats().routes, u64::try_from(keys.len()).unwrap());
    assert!(bench.planner.stats().routes_without_diverse > 0);
}

#[test]
fn a_policy_has_routes_of_its_own_among_the_relays_that_it_allows() {
    let mut bench = Bench::new();
    for (id, region) in [(1, "eu"), (2, "eu"), (3, "us"), (4, "eu")] {
        bench.topology.put_relay(RelayId(id), relay("a", region)).unwrap();
    }
    let eu = PolicyId(7);
    let policy = Policy { regions: ["eu".to_owned()].into(), ..Policy::default() };
    bench.topology.put_policy(eu, policy).unwrap();
    bench.plan();

    let candidates = bench.planner.candidates(RouteKey { policy: eu, ..KEY });

    assert_eq!(via(&candidates[0].path), [4]);
    assert!(candidates.iter().all(|c| !c.path.visits(RelayId(3))));
    assert_eq!(via(&bench.candidates()[0].path), [3]);
    let to_us = RouteKey { policy: eu, destination: RelayId(3), ..KEY };
    assert_eq!(bench.planner.candidates(to_us), []);

    bench.topology.remove_policy(eu);
    let gone = bench.plan();
    assert!(gone.iter().all(|key| key.policy == eu) && gone.len() == 3 * 2 * Class::ALL.len());
    assert_eq!(bench.planner.keys().filter(|key| key.policy == eu).count(), 0);
}

#[test]
fn a_draining_link_is_left_while_another_way_leads_there() {
    let mut bench = Bench::settled();
    bench.change(1, 3, |measure| measure.draining = true);
    assert_eq!(bench.run(1), [4]);
    bench.usable(1, 4, false);
    assert_eq!(bench.run(1), []);
    bench.usable(1, 2, false);

    assert_eq!(bench.run(1), [3]);
    for other in [2, 4] {
        bench.usable(1, other, true);
    }
    bench.change(1, 3, |measure| measure.draining = false);
    assert_eq!(bench.seconds_until_via(3), Some(0));
}

#[test]
fn roles_follow_the_paths_and_direct_competitors_have_none() {
    let mut bench = Bench::new();
    bench.plan();

    let roles = bench.planner.take_roles();

    assert!(roles.contains(&link(1, 3)) && roles.contains(&link(3, 2)));
    assert!(roles.iter().all(|id| bench.planner.is_candidate(*id)));
    assert!(!bench.planner.is_candidate(link(1, 2)));
    assert_eq!(bench.planner.take_roles(), []);
    bench.topology.remove_relay(RelayId(3));
    bench.plan();
    assert!(bench.planner.take_roles().contains(&link(1, 2)));
    assert!(bench.planner.is_candidate(link(1, 2)));
}

#[test]
fn a_relay_that_is_removed_takes_its_routes_along() {
    let mut bench = Bench::settled();
    bench.topology.remove_relay(RelayId(3));

    let changed = bench.plan();

    let gone = |key: &&RouteKey| bench.planner.candidates(**key).is_empty();
    assert_eq!(changed.iter().filter(gone).count(), 6 * Class::ALL.len());
    assert_eq!(via(&bench.planner.candidates(KEY)[0].path), [4]);
    assert_eq!(bench.planner.stats().routes, 6 * 3);
}

#[test]
fn what_if_answers_without_touching_the_mesh() {
    let mut bench = Bench::settled();
    let before = bench.candidates();
    let relays = Cuts { relays: [RelayId(3)].into(), ..Cuts::default() };
    let links = Cuts { links: [(RelayId(2), RelayId(3))].into(), ..Cuts::default() };

    let without_relay = bench.planner.what_if(&relays, &[KEY]);
    let without_link = bench.planner.what_if(&links, &[KEY]);

    assert_eq!(via(&without_relay[0][0].path), [4]);
    assert_eq!(via(&without_link[0][0].path), [4]);
    let cut = Cuts { relays: [RelayId(2)].into(), ..Cuts::default() };
    assert_eq!(bench.planner.what_if(&cut, &[KEY]), [vec![]]);
    assert_eq!(bench.candidates(), before);
}

#[test]
fn an_explanation_has_every_term_and_says_why_the_others_lost() {
    let mut bench = Bench::settled();
    bench.change(3, 2, |measure| measure.price = overway_wire::PricePerGb(1_000));
    bench.plan();

    let found = bench.planner.explain(&bench.topology, KEY, bench.now).unwrap();

    assert_eq!(via(&found.current.candidate.path), [3]);
    assert_eq!(found.current.verdict, Verdict::Cheapest);
    assert_eq!(found.current.terms.total(), found.current.candidate.cost);
    assert_eq!(found.current.terms.price, Cost(10));
    assert_eq!(found.current.links.len(), 2);
    assert!(matches!(found.others[0].verdict, Verdict::Dearer { by } if by > Cost(19_000)));
    assert!(found.direct.unwrap().candidate.is_direct());
    assert!(found.in_use_for >= Duration::from_secs(29) && found.has_disjoint);
}

#[test]
fn an_explanation_says_that_a_better_path_is_held_or_not_worth_a_move() {
    let mut bench = Bench::settled();
    bench.lossy(1, 3, true);
    assert_eq!(bench.run(5), [4]);
    bench.lossy(1, 3, false);
    bench.run(3);

    let held = bench.planner.explain(&bench.topology, KEY, bench.now).unwrap();

    assert!(matches!(held.current.verdict, Verdict::KeptWhileHeld { .. }));
    let others: Vec<_> = held.others.iter().map(|other| other.verdict).collect();
    assert!(
        matches!(others[0], Verdict::HeldAfterLeaving { remaining, .. }
        if remaining > Duration::from_secs(10)),
        "{others:?}"
    );

    let mut bench = Bench::settled();
    for (from, to, ms) in [(1, 4, 20), (4, 1, 20), (4, 2, 19), (2, 4, 19)] {
        bench.put(from, to, clean(ms));
    }
    assert_eq!(bench.run(1), [3]);
    let kept = bench.planner.explain(&bench.topology, KEY, bench.now).unwrap();
    assert!(matches!(kept.current.verdict, Verdict::Kept { saving } if saving > Cost(700)));
    assert!(matches!(kept.others[0].verdict, Verdict::NotWorthMoving { .. }));
}

#[test]
fn an_explanation_says_what_a_path_misses() {
    let mut bench = Bench::new();
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (4, 1)] {
        bench.put(from, to, clean(450));
        bench.lossy(from, to, true);
        bench.change(from, to, |measure| measure.slow.lost = 400);
    }
    bench.plan();

    let found = bench.planner.explain(&bench.topology, KEY, bench.now).unwrap();

    assert!(matches!(found.current.misses[..], [Miss::Deadline { .. }, Miss::Delivery { .. }]));
}

#[test]
fn parallel_links_serve_where_no_disjoint_path_exists() {
    let mut topology = Topology::new();
    for id in [1, 2] {
        topology.put_relay(RelayId(id), RelayAttributes::default()).unwrap();
    }
    for index in [0, 1, 2] {
        let index = LinkIndex::new(index).unwrap();
        let delay_ms = 30 - 5 * u32::from(index.value());
        let id = LinkId::new(RelayId(1), RelayId(2), index);
        topology.put_link(id, clean(delay_ms)).unwrap();
        topology.put_link(id.reversed(), clean(delay_ms)).unwrap();
    }

    let mut planner = Planner::new(PlannerConfig::default());
    planner.plan(&mut topology, &Sequential, Instant::now());

    let found: Vec<_> =
        planner.candidates(KEY).iter().map(|c| (c.path.first().link.value(), c.reason)).collect();
    assert_eq!(found, [(2, Reason::Best), (1, Reason::Parallel)]);
}

#[test]
fn small_noise_does_not_move_a_path() {
    let mut bench = Bench::settled();
    bench.put(1, 4, clean(10));
    bench.put(4, 1, clean(10));
    assert_eq!(bench.run(1), [3]);

    for second in 0..200_i64 {
        let noise = (second * 7 % 5 - 2) * 900;
        bench.change(1, 3, |measure| {
            measure.fast.one_way_diff.0 = 20_000 + noise;
            measure.slow.one_way_diff.0 = 20_000 + noise / 3;
        });
        assert_eq!(bench.run(1), [3], "second {second}");
    }
}

#[test]
fn a_clearly_better_path_is_taken_at_once() {
    let mut bench = Bench::settled();

    bench.put(1, 2, clean(30));
    bench.put(2, 1, clean(30));

    assert_eq!(bench.run(1), []);
    assert_eq!(bench.planner.stats().left_unusable, 0);
}

#[test]
fn a_gain_must_pass_both_thresholds() {
    let threshold = PlannerConfig::default().gain;

    assert!(!threshold.exceeded(Cost(10_000), Cost(8_500)));
    assert!(!threshold.exceeded(Cost(200_000), Cost(193_000)));
    assert!(threshold.exceeded(Cost(10_000), Cost(7_900)));
    assert!(threshold.exceeded(Cost(200_000), Cost(189_000)));
    assert!(!threshold.exceeded(Cost(1_000), Cost(200_000)));
}

#[test]
fn a_link_that_begins_to_lose_is_left_in_the_next_plan() {
    let mut bench = Bench::settled();

    bench.change(1, 3, |measure| measure.fast.lost = 5);

    assert_eq!(bench.run(1), [4]);
}

#[test]
fn a_sudden_delay_is_left_in_the_next_plan() {
    let mut bench = Bench::settled();

    bench.change(3, 2, |measure| measure.fast.one_way_diff.0 += 50_000);

    assert_eq!(bench.run(1), [4]);
}

#[test]
fn a_path_left_for_loss_is_not_taken_again_until_it_was_better_for_the_hold_time() {
    for lossy_seconds in [5, 60] {
        let mut bench = Bench::settled();
        bench.lossy(1, 3, true);
        assert_eq!(bench.run(lossy_seconds), [4]);

        bench.lossy(1, 3, false);

        assert_eq!(bench.seconds_until_via(3), Some(20));
        assert!(bench.planner.stats().returns_held > 0);
    }
}

#[test]
fn a_detour_over_the_link_that_was_lossy_is_held_too() {
    let mut bench = Bench::settled();
    bench.lossy(1, 3, true);
    bench.run(5);
    // Over the link that lost, and on by another: as good as the path that was left.
    bench.put(3, 4, clean(9));
    bench.put(4, 2, clean(9));
    bench.put(2, 4, clean(9));
    bench.put(4, 3, clean(9));
    bench.put(1, 4, clean(40));
    bench.put(4, 1, clean(40));

    bench.lossy(1, 3, false);

    assert_eq!(bench.seconds_until_via(3), Some(20));
}

#[test]
fn a_path_over_a_link_that_was_left_is_held_no_longer_than_the_hold_time() {
    let mut bench = Bench::settled();
    bench.lossy(1, 3, true);
    assert_eq!(bench.run(1), [4]);

    // The link is well again, the path that was left for it is not: another one over it is the best.
    bench.lossy(1, 3, false);
    bench.put(1, 3, clean(5));
    bench.put(3, 4, clean(5));
    bench.put(3, 2, clean(80));

    assert_eq!(bench.run(20), [4]);
    assert_eq!(bench.run(2), [3, 4]);
}

#[test]
fn a_path_left_lately_is_taken_again_if_the_one_in_use_degrades_or_fails() {
    for fails in [false, true] {
        let mut bench = Bench::settled();
        bench.lossy(1, 3, true);
        assert_eq!(bench.run(5), [4]);
        bench.lossy(1, 3, false);
        bench.run(2);

        if fails {
            bench.usable(4, 2, false);
        } else {
            bench.lossy(4, 2, true);
        }

        assert_eq!(bench.run(1), [3]);
    }
}

#[test]
fn a_failed_path_is_left_in_the_next_plan_and_its_link_waits_for_readmission() {
    let mut bench = Bench::settled();
    bench.usable(1, 3, false);
    assert_eq!(bench.run(1), [4]);
    bench.usable(1, 3, true);

    // As a backup at once.
    assert_eq!(via(&bench.candidates()[1].path), [3]);

    // Also for those who never used it: the pair from 1 to 3.
    let key = RouteKey { destination: RelayId(3), ..KEY };
    let mut until_direct = 0;
    while !via(&bench.planner.candidates(key)[0].path).is_empty() {
        until_direct += 1;
        bench.plan();
    }
    assert!((9..=20).contains(&until_direct), "{until_direct} s");
}

#[test]
fn a_path_to_a_relay_that_came_back_avoids_another_that_came_back_since() {
    let mut bench = Bench::settled();
    let set = |bench: &mut Bench, relay, others: &[u16], up| {
        for &other in others {
            bench.usable(relay, other, up);
            bench.usable(other, relay, up);
        }
        bench.plan();
    };
    set(&mut bench, 2, &[1, 3, 4], false);
    set(&mut bench, 2, &[1, 3, 4], true);
    assert_eq!(bench.run(1), [3], "all links of 2 wait");
    set(&mut bench, 3, &[1, 2, 4], false);
    assert_eq!(bench.run(1), [4]);
    set(&mut bench, 3, &[1, 2, 4], true);

    assert_eq!(bench.run(2), [4], "of the way over 3 two links wait");
}

#[test]
fn without_a_direct_link_a_further_path_avoids_the_two_others() {
    let mut bench = Bench::new();
    with_fifth(&mut bench, 35);
    bench.usable(1, 2, false);

    let candidates = bench.candidates();

    let found: Vec<_> = candidates.iter().map(|c| (via(&c.path), c.reason)).collect();
    let expected =
        [(vec![3], Reason::Best), (vec![4], Reason::Disjoint), (vec![5], Reason::Further)];
    assert_eq!(found, expected);
    assert!(bench.planner.is_candidate(link(1, 5)), "it is probed as a backup");
}

#[test]
fn where_all_paths_share_their_last_relay_a_further_one_avoids_the_first() {
    let mut bench = Bench::new();
    for relay in [1, 4] {
        bench.usable(relay, 2, false);
    }
    // To 2 leads only 3, to that 1 itself and 4.
    let candidates = bench.candidates();
    let found: Vec<_> = candidates.iter().map(|c| (via(&c.path), c.reason)).collect();
    assert_eq!(found, [(vec![3], Reason::Best)], "nothing avoids 3");

    with_fifth(&mut bench, 5);
    bench.usable(5, 2, false);
    bench.usable(1, 3, false);
    for (one, other) in [(5, 3), (3, 5)] {
        bench.put(one, other, clean(5));
    }
    let candidates = bench.candidates();
    let found: Vec<_> = candidates.iter().map(|c| (via(&c.path), c.reason)).collect();
    assert_eq!(found, [(vec![5, 3], Reason::Best), (vec![4, 3], Reason::Further)]);
}

#[test]
fn a_link_not_yet_readmitted_is_used_where_nothing_else_leads() {
    let mut bench = Bench::settled();
    for other in [1, 3, 4] {
        bench.usable(2, other, false);
        bench.usable(other, 2, false);
    }
    assert!(bench.candidates().is_empty());

    bench.usable(3, 2, true);
    bench.usable(2, 3, true);

    assert_eq!(bench.run(1), [3]);
}

#[test]
fn a_new_pair_takes_the_best_freely() {
    let mut bench = Bench::new();
    for (ms, expected) in [(19, 3), (31, 4), (29, 3), (31, 4), (25, 3)] {
        bench.put(3, 2, clean(ms));
        bench.put(2, 3, clean(ms));
        bench.put(1, 3, clean(30));
        bench.put(3, 1, clean(30));

        assert_eq!(bench.run(1), [expected]);
    }
}

#[test]
fn a_draining_relay_is_left_in_the_next_plan_and_reached_still() {
    let mut bench = Bench::settled();
    let draining = RelayAttributes { transit: true, draining: true, ..RelayAttributes::default() };
    bench.topology.put_relay(RelayId(3), draining).unwrap();

    bench.plan();

    assert_eq!(via(&bench.planner.candidates(KEY)[0].path), [4]);
    let to_it = RouteKey { destination: RelayId(3), ..KEY };
    assert_eq!(via(&bench.planner.candidates(to_it)[0].path), []);
    let through_it = |c: Candidate| via(&c.path).contains(&3);
    let keys = bench.planner.keys();
    assert!(!keys.flat_map(|key| bench.planner.candidates(key)).any(through_it));
}

#[test]
fn backups_are_kept_through_noise_and_left_when_they_fail() {
    let mut bench = Bench::settled();
    with_fifth(&mut bench, 29);
    assert_eq!(via(&bench.candidates()[1].path), [4]);

    bench.usable(4, 2, false);

    assert_eq!(via(&bench.candidates()[1].path), [5]);
}

#[test]
fn what_is_remembered_of_a_route_is_bounded() {
    let mut bench = Bench::settled();
    for round in 0..50_u32 {
        for (relay, turn) in [(3, 0), (4, 1)] {
            bench.lossy(1, relay, round % 3 == turn);
        }
        bench.run(25);
    }

    let rows = bench.planner.planes.iter().flat_map(|plane| &plane.rows);
    assert!(rows.flat_map(|row| row.left.values()).all(|left| left.len() <= route::LEFT_MAX));
    bench.topology.remove_relay(RelayId(2));
    assert!(bench.candidates().is_empty());
    assert_eq!(bench.planner.keys().count(), 3 * 2 * Class::ALL.len());
}
