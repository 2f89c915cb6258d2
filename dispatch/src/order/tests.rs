use std::collections::BTreeMap;

use overway_wire::Micros;
use proptest::prelude::*;

use super::*;
use crate::Basis;

fn at(relay: u16, rtt_ms: u32) -> Candidate {
    Candidate {
        relay: RelayId(relay),
        distance: Distance::of(Micros(rtt_ms * 1_000), Basis::Measured),
        weight: 100,
        fill_permille: 0,
        is_draining: false,
    }
}

fn place(candidates: &[Candidate], relay: u16, key: u64) -> usize {
    let ordered = order(candidates, key);
    ordered.iter().position(|(it, _)| it.relay == RelayId(relay)).unwrap()
}

/// How many of so many clients have each relay first.
fn firsts(candidates: &[Candidate], clients: u64) -> BTreeMap<u16, u64> {
    let mut firsts = BTreeMap::new();
    for key in 0..clients {
        *firsts.entry(order(candidates, key)[0].0.relay.0).or_default() += 1;
    }
    firsts
}

#[test]
fn the_clearly_nearer_is_first_for_nearly_all_and_equals_are_shared() {
    let shares = firsts(&[at(1, 5), at(2, 80)], 10_000);
    assert_eq!(shares[&1], 10_000);

    let shares = firsts(&[at(1, 20), at(2, 20), at(3, 20), at(4, 200)], 9_000);
    for relay in 1..=3 {
        assert!((2_700..3_300).contains(&shares[&relay]), "{shares:?}");
    }
    assert!(!shares.contains_key(&4), "{shares:?}");
}

#[test]
fn weight_and_room_share_equals_in_proportion() {
    let heavy = Candidate { weight: 300, ..at(1, 20) };
    let shares = firsts(&[heavy, at(2, 20)], 8_000);
    assert!((5_700..6_300).contains(&shares[&1]), "{shares:?}");

    let half = Candidate { fill_permille: 500, ..at(1, 20) };
    let shares = firsts(&[half, at(2, 20)], 9_000);
    assert!((2_700..3_300).contains(&shares[&1]), "{shares:?}");
}

#[test]
fn a_relay_that_fills_up_is_left_by_more_and_more_before_it_is_full() {
    let near = |fill_permille| Candidate { fill_permille, ..at(1, 5) };
    let taken = |fill| firsts(&[near(fill), at(2, 90)], 4_000).get(&1).copied().unwrap_or(0);
    assert_eq!(taken(SPILL_PERMILLE), 4_000);
    assert!((1_850..2_150).contains(&taken(850)));
    assert_eq!(taken(FULL_PERMILLE), 0);
    // With nothing else it is still the one to try.
    assert_eq!(order(&[near(990)], 7)[0].1, Standing::Filling);
}

#[test]
fn standings_come_before_distance() {
    let full = Candidate { fill_permille: 1_000, ..at(1, 1) };
    let draining = Candidate { is_draining: true, ..at(2, 1) };
    let reserve = Candidate { weight: 0, ..at(3, 1) };
    let filling = Candidate { fill_permille: 960, ..at(4, 1) };
    for key in 0..100 {
        let ordered = order(&[full, draining, reserve, filling, at(5, 250)], key);
        let relays: Vec<u16> = ordered.iter().map(|(it, _)| it.relay.0).collect();
        assert_eq!(relays, [5, 4, 3, 1, 2]);
    }
}

#[test]
fn an_unknown_distance_is_behind_a_known_one_of_the_same_continent() {
    let unknown = Candidate { distance: Distance::Unknown, ..at(1, 0) };
    assert_eq!(firsts(&[unknown, at(2, 60)], 1_000)[&2], 1_000);
    assert!(firsts(&[unknown, at(2, 350)], 1_000)[&1] > 990);
}

#[test]
fn if_a_relay_goes_only_its_own_clients_move() {
    let all: Vec<Candidate> = (1..=8).map(|relay| at(relay, 20)).collect();
    for key in 0..500 {
        let before = order(&all, key)[0].0.relay;
        let after = order(&all[1..], key)[0].0.relay;
        assert!(before == RelayId(1) || before == after);
    }
}

/// Clients come one after another and take the first relay that lets them in; what is known of loads is made new only
/// after so many. Returns the relays' counts, and how many clients were turned away by a relay before they got in.
fn fill(relays: &[Candidate], room: &[u32], clients: u64, stale_for: u64) -> (Vec<u32>, u64) {
    let mut attached = vec![0; relays.len()];
    let (mut known, mut turned_away) = (relays.to_vec(), 0);
    for client in 0..clients {
        if client.is_multiple_of(stale_for) {
            for (at, candidate) in known.iter_mut().enumerate() {
                candidate.fill_permille = attached[at] * 1_000 / room[at];
            }
        }
        for (candidate, _) in order(&known, mix(client)) {
            let at = relays.iter().position(|it| it.relay == candidate.relay).unwrap();
            if attached[at] < room[at] {
                attached[at] += 1;
                break;
            }
            turned_away += 1;
        }
    }
    (attached, turned_away)
}

#[test]
fn equals_fill_up_together_by_stale_word_and_none_is_overfilled() {
    let relays: Vec<Candidate> =
        (1..=10).map(|relay| at(relay, 18 + u32::from(relay) % 3)).collect();
    let room = [500; 10];
    // Nine tenths of all room, told of ten times.
    let (attached, turned_away) = fill(&relays, &room, 4_500, 450);
    assert_eq!(turned_away, 0, "{attached:?}");
    assert!(attached.iter().all(|&count| count < 500), "{attached:?}");
}

#[test]
fn relays_of_different_size_fill_up_in_proportion() {
    let relays = [at(1, 20), at(2, 20), at(3, 20)].map(|it| match it.relay.0 {
        1 => Candidate { weight: 1_000, ..it },
        2 => Candidate { weight: 300, ..it },
        _ => it,
    });
    let (attached, turned_away) = fill(&relays, &[5_000, 1_500, 500], 5_600, 300);
    assert_eq!(turned_away, 0, "{attached:?}");
}

#[test]
fn a_lone_near_relay_spills_before_it_is_full() {
    let relays = [at(1, 5), at(2, 90), at(3, 95), at(4, 100)];
    // A fifth of the near one's room comes between two words.
    let (attached, turned_away) = fill(&relays, &[500, 1_000, 1_000, 1_000], 3_000, 100);
    assert_eq!(turned_away, 0, "{attached:?}");
    assert!((475..500).contains(&attached[0]), "{attached:?}");
}

#[test]
fn those_who_come_all_at_once_do_not_all_go_to_the_emptiest() {
    let mut relays: Vec<Candidate> =
        (1..=10).map(|relay| Candidate { fill_permille: 400, ..at(relay, 20) }).collect();
    relays[0].fill_permille = 350;
    let shares = firsts(&relays, 10_000);
    assert!(shares[&1] < 1_300, "{shares:?}");
}

prop_compose! {
    fn candidates()(figures in proptest::collection::vec(
        (0..400_u32, 0..500_u32, 0..1_100_u32, any::<bool>()), 1..12,
    )) -> Vec<Candidate> {
        let candidate = |(relay, &(rtt, weight, fill_permille, drains)): (u16, &(u32, u32, u32, bool))| Candidate {
            weight,
            fill_permille,
            is_draining: drains && rtt % 4 == 0,
            ..at(relay, rtt)
        };
        (1..).zip(&figures).map(candidate).collect()
    }
}

proptest! {
    /// Worse in anything: never further forward, for any client.
    #[test]
    fn worse_figures_never_move_a_relay_forward(
        candidates in candidates(), chosen in any::<usize>(), key: u64, by in 1..500_u32,
    ) {
        let chosen = chosen % candidates.len();
        let relay = candidates[chosen].relay.0;
        let before = place(&candidates, relay, key);
        let worse = |change: &dyn Fn(&mut Candidate)| {
            let mut changed = candidates.clone();
            change(&mut changed[chosen]);
            place(&changed, relay, key)
        };
        let rtt = candidates[chosen].distance.rtt().unwrap().0 + by * 1_000;
        prop_assert!(worse(&|it| it.distance = Distance::of(Micros(rtt), Basis::Measured)) >= before);
        prop_assert!(worse(&|it| it.fill_permille += by) >= before);
        prop_assert!(worse(&|it| it.weight = it.weight.saturating_sub(by)) >= before);
        prop_assert!(worse(&|it| it.is_draining = true) >= before);
    }

    /// Everybody is in the order, once, and the order does not depend on that of the input.
    #[test]
    fn the_order_is_a_permutation_that_the_inputs_order_does_not_change(
        candidates in candidates(), key: u64,
    ) {
        let ordered = order(&candidates, key);
        let mut reversed = candidates.clone();
        reversed.reverse();
        prop_assert_eq!(&ordered, &order(&reversed, key));
        let mut relays: Vec<RelayId> = ordered.iter().map(|(it, _)| it.relay).collect();
        relays.sort();
        prop_assert_eq!(relays, candidates.iter().map(|it| it.relay).collect::<Vec<_>>());
    }
}
