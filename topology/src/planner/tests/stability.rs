//! When paths are left and taken.

use super::*;

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
fn a_pair_takes_the_best_freely_for_some_plans_however_long_they_take() {
    // Over 4 it is a millisecond less than over 3, which alone moves no path.
    let moves_after = |plans: usize| {
        let mut bench = Bench::new();
        for _ in 0..plans {
            bench.plan();
            bench.now += Duration::from_secs(60);
        }
        for (from, to) in [(1, 4), (4, 1), (2, 4), (4, 2)] {
            bench.change(from, to, |measure| {
                (measure.fast.one_way_diff.0, measure.slow.one_way_diff.0) = (19_500, 19_500);
            });
        }
        bench.run(1) == [4]
    };
    assert!(moves_after(1) && moves_after(NEW_PLANS));
    assert!(!moves_after(NEW_PLANS + 1));
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

    let mut rows = bench.planner.planes.iter().flat_map(|plane| &plane.rows);
    assert!(rows.all(|row| (0..8).all(|to| row.left.of(to).count() <= left::LEFT_MAX)));
    bench.topology.remove_relay(RelayId(2));
    assert!(bench.candidates().is_empty());
    assert_eq!(bench.planner.keys().count(), 3 * 2 * Class::ALL.len());
}

#[test]
fn a_held_route_is_looked_at_again_when_its_hold_ends_and_not_earlier() {
    let mut bench = Bench::settled();
    let mut all = Bench::new();
    all.planner.set_whole();
    all.run(30);
    for bench in [&mut bench, &mut all] {
        bench.lossy(1, 3, true);
        assert_eq!(bench.run(3), [4]);
        bench.lossy(1, 3, false);
        assert_eq!(bench.run(2), [4]);
    }

    // Nothing changes any more: what is done is due to holds alone.
    let done = bench.planner.stats().routes_done;
    let mut waited = 0;
    while bench.run(1) == [4] {
        assert_eq!(all.run(1), [4]);
        assert_eq!(bench.planner.stats().routes_done, done);
        waited += 1;
        assert!(waited < 60);
    }

    assert_eq!(all.run(1), [3]);
    assert!(waited > 10 && bench.planner.stats().routes_done > done);
    assert_eq!(bench.planner.candidates(KEY), all.planner.candidates(KEY));
}
