//! Which paths a route holds.

use super::*;

#[test]
fn the_routes_that_changed_come_in_order_of_key() {
    let mut bench = Bench::new();
    let eu = Policy { name: "eu".to_owned(), ..Policy::default() };
    bench.topology.put_policy(PolicyId(7), eu).unwrap();

    let changed = bench.plan();

    assert!(changed.is_sorted() && changed.len() == 2 * Class::ALL.len() * 4 * 3);
    assert_eq!(changed, bench.planner.keys().collect::<Vec<_>>());
    assert_eq!(bench.plan(), []);
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
