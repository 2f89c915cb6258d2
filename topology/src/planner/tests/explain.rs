//! What the planner says of a route, and of one that is not.

use super::*;

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
