use super::*;
use overway_wire::{Class, PathElement, PolicyId};
use proptest::prelude::*;

const GBPS: u64 = 1_000_000_000;

fn link(from: u16, to: u16) -> LinkId {
    LinkId::new(RelayId(from), RelayId(to), LinkIndex::default())
}

/// A path over these relays.
fn option(relays: &[u16], cost: u32) -> PathOption {
    let element = |&relay: &u16| PathElement::new(RelayId(relay), LinkIndex::default());
    let path = Path::new(&relays.iter().map(element).collect::<Vec<_>>()).unwrap();
    PathOption { path, cost: Cost(cost), price: PricePerGb(cost), previous: Permille(0) }
}

fn demand(source: u16, class: Class, rate: u64, options: &[PathOption]) -> Demand {
    let (source, policy) = (RelayId(source), PolicyId(0));
    let destination = options.first().map_or(RelayId(0), |option| option.path.last().relay);
    let key = RouteKey { source, destination, class, policy };
    Demand { key, rate: BitsPerSec(rate), options: options.to_vec() }
}

fn problem(capacities: &[(Resource, u64)], demands: &[Demand]) -> Problem {
    let mut problem = Problem::new();
    for &(resource, capacity) in capacities {
        problem.limit(resource, BitsPerSec(capacity));
    }
    demands.iter().cloned().for_each(|demand| problem.push(demand));
    problem
}

fn shares(placement: &Placement) -> Vec<Vec<u16>> {
    let numbers = |shares: &Vec<Permille>| shares.iter().map(|share| share.0).collect();
    placement.shares.iter().map(numbers).collect()
}

/// The same problem, its demands with the shares of a placement.
fn again(problem: &Problem, placement: &Placement) -> Problem {
    let mut next = problem.clone();
    for (demand, shares) in next.demands.iter_mut().zip(&placement.shares) {
        for (option, &share) in demand.options.iter_mut().zip(shares) {
            option.previous = share;
        }
    }
    next
}

fn load(problem: &Problem, placement: &Placement, resource: Resource) -> u128 {
    let mut load = 0;
    for (demand, shares) in problem.demands.iter().zip(&placement.shares) {
        for (option, share) in demand.options.iter().zip(shares) {
            if fills(demand, option, resource) {
                load += u128::from(demand.rate.0) * u128::from(share.0);
            }
        }
    }
    load
}

fn fills(demand: &Demand, option: &PathOption, resource: Resource) -> bool {
    let mut from = demand.key.source;
    option.path.elements().iter().any(|step| {
        let link = LinkId::new(from, step.relay, step.link);
        from = step.relay;
        Resource::on(link).contains(&resource)
    })
}

fn cost(problem: &Problem, placement: &Placement) -> u128 {
    let mut cost = 0;
    for (demand, shares) in problem.demands.iter().zip(&placement.shares) {
        for (option, share) in demand.options.iter().zip(shares) {
            cost += u128::from(demand.rate.0) * u128::from(option.cost.0) * u128::from(share.0);
        }
    }
    cost
}

#[test]
fn without_capacities_everything_takes_its_best_path() {
    let options = [option(&[3, 2], 40), option(&[2], 30), option(&[4, 2], 50)];
    let problem = problem(&[], &[demand(1, Class::Bulk, 100 * GBPS, &options)]);

    let placement = place(&problem);

    assert_eq!(shares(&placement), [[0, 1_000, 0]]);
    assert_eq!((placement.overloads, placement.unplaced), (vec![], vec![]));
}

#[test]
fn between_paths_of_equal_cost_the_cheaper_in_money_is_taken() {
    let dear = PathOption { price: PricePerGb(9), ..option(&[2], 30) };
    let cheap = PathOption { price: PricePerGb(8), ..option(&[3, 2], 30) };
    let problem = problem(&[], &[demand(1, Class::Bulk, 1, &[dear, cheap])]);

    assert_eq!(shares(&place(&problem)), [[0, 1_000]]);
}

#[test]
fn what_a_full_link_cannot_carry_takes_the_next_path() {
    let options = [option(&[2], 30), option(&[3, 2], 40)];
    let problem = problem(
        &[(Resource::Link(link(1, 2)), GBPS)],
        &[demand(1, Class::Interactive, 4 * GBPS, &options)],
    );

    let placement = place(&problem);

    assert!(placement.overloads.is_empty());
    let [direct, around] = shares(&placement)[0][..] else { panic!("two options") };
    assert!((245..=250).contains(&direct) && direct + around == 1_000, "{direct}");
}

#[test]
fn who_loses_least_leaves_a_full_link() {
    let stays = demand(1, Class::Realtime, GBPS, &[option(&[2], 30), option(&[3, 2], 90)]);
    let leaves = demand(1, Class::Bulk, GBPS, &[option(&[2], 30), option(&[4, 2], 40)]);
    let problem = problem(&[(Resource::Link(link(1, 2)), 11 * GBPS / 10)], &[leaves, stays]);

    let shares = shares(&place(&problem));

    assert_eq!(shares[1], [1_000, 0]);
    assert!(shares[0][0] <= 100 && shares[0][0] >= 90, "{shares:?}");
}

#[test]
fn a_relay_in_between_counts_once_each_way_and_an_end_only_once() {
    let through = [option(&[2, 3], 10), option(&[3], 90)];
    for (resource, counts) in [
        (Resource::Sending(RelayId(1)), false),
        (Resource::Receiving(RelayId(1)), false),
        (Resource::Receiving(RelayId(2)), true),
        (Resource::Sending(RelayId(2)), true),
        (Resource::LineSending(RelayId(2), LinkIndex::default()), true),
        (Resource::LineReceiving(RelayId(2), LinkIndex::MAX), false),
        (Resource::Link(link(2, 1)), false),
        (Resource::Link(link(2, 3)), true),
    ] {
        let demands = [demand(1, Class::Bulk, GBPS, &through)];
        let placement = place(&problem(&[(resource, GBPS / 2)], &demands));

        let around = shares(&placement)[0][1];
        assert_eq!(around > 0, counts, "{resource:?}: {around}");
    }
}

#[test]
fn a_source_whose_line_is_too_slow_is_an_overload_and_keeps_its_best_path() {
    let options = [option(&[2], 30), option(&[3, 2], 40)];
    let problem = problem(
        &[(Resource::Sending(RelayId(1)), GBPS)],
        &[demand(1, Class::Realtime, 3 * GBPS, &options)],
    );

    let placement = place(&problem);

    let rate = BitsPerSec(3 * GBPS);
    let resource = Resource::Sending(RelayId(1));
    assert_eq!(placement.overloads, [Overload { resource, rate, capacity: BitsPerSec(GBPS) }]);
    assert_eq!(placement.unplaced, [(0, BitsPerSec(2 * GBPS))]);
    assert_eq!(shares(&placement), [[1_000, 0]]);
}

#[test]
fn where_not_all_have_room_the_lowest_class_is_left_over() {
    let only = [option(&[2], 30)];
    let around = [option(&[2], 30), option(&[3, 2], 40)];
    let problem = problem(
        &[(Resource::Link(link(1, 2)), GBPS), (Resource::Link(link(1, 3)), GBPS)],
        &[
            demand(1, Class::Bulk, GBPS, &around),
            demand(1, Class::Realtime, GBPS, &only),
            demand(1, Class::Interactive, GBPS, &around),
        ],
    );

    let placement = place(&problem);

    let [(0, left_over)] = placement.unplaced[..] else {
        panic!("only bulk is left over: {placement:?}")
    };
    assert!(left_over.0.abs_diff(GBPS) < GBPS / 100, "{placement:?}");
    assert!(shares(&placement)[2][1] >= 990, "{placement:?}");
}

#[test]
fn a_closed_link_carries_nothing_while_there_is_another_way() {
    let options = [option(&[2], 30), option(&[3, 2], 4_000)];
    let mut problem = problem(&[], &[demand(1, Class::Realtime, GBPS, &options)]);
    problem.close(Resource::Link(link(1, 2)));

    assert_eq!(shares(&place(&problem)), [[0, 1_000]]);
}

#[test]
fn a_capacity_of_zero_is_not_known() {
    let mut problem = Problem::new();
    problem.limit(Resource::Sending(RelayId(1)), BitsPerSec(0));
    assert_eq!(problem.capacity(Resource::Sending(RelayId(1))), None);
    problem.close(Resource::Sending(RelayId(1)));
    assert_eq!(problem.capacity(Resource::Sending(RelayId(1))), Some(BitsPerSec(0)));
}

#[test]
fn a_demand_without_a_path_is_unplaced_and_one_without_a_rate_has_a_path() {
    let idle = demand(1, Class::Bulk, 0, &[option(&[3, 2], 40), option(&[2], 30)]);
    let problem = problem(&[], &[demand(1, Class::Bulk, 5, &[]), idle]);

    let placement = place(&problem);

    assert_eq!(shares(&placement), [vec![], vec![0, 1_000]]);
    assert_eq!(placement.unplaced, [(0, BitsPerSec(5))]);
}

#[test]
fn options_beyond_the_bound_get_nothing() {
    let mut options: Vec<_> = (3..12).map(|relay| option(&[relay, 2], 1_000)).collect();
    options[OPTIONS_MAX].cost = Cost(1);
    let problem = problem(&[], &[demand(1, Class::Bulk, 5, &options)]);

    let shares = &shares(&place(&problem))[0];

    assert_eq!((shares.len(), shares[0]), (OPTIONS_MAX + 1, 1_000));
}

#[test]
fn rates_beyond_all_lines_do_not_overflow() {
    let options = [option(&[2], u32::MAX), option(&[3, 2], u32::MAX)];
    let huge = || demand(1, Class::Bulk, u64::MAX, &options);
    let problem = problem(
        &[(Resource::Link(link(1, 2)), u64::MAX / 2), (Resource::Link(link(1, 3)), 1)],
        &[huge(), huge(), huge()],
    );

    let placement = place(&again(&problem, &place(&problem)));

    assert!(shares(&placement).iter().all(|shares| shares.iter().sum::<u16>() == 1_000));
    assert!(!placement.overloads.is_empty());
}

#[test]
fn shares_stay_where_little_is_gained_and_leave_what_is_above_its_capacity() {
    let mut options = [option(&[2], 30_000), option(&[3, 2], 30_500)];
    options[1].previous = Permille(1_000);
    let capacity = (Resource::Link(link(3, 2)), GBPS);
    let stays = problem(&[capacity], &[demand(1, Class::Realtime, GBPS, &options)]);
    let too_much = problem(&[capacity], &[demand(1, Class::Realtime, 2 * GBPS, &options)]);
    options[1].cost = Cost(45_000);
    let gains = problem(&[capacity], &[demand(1, Class::Realtime, GBPS, &options)]);

    assert_eq!(shares(&place(&stays)), [[0, 1_000]]);
    assert_eq!(shares(&place(&gains)), [[1_000, 0]]);
    let placement = place(&too_much);
    assert!(placement.overloads.is_empty());
    assert!(shares(&placement)[0][1] >= 450, "{placement:?}");
}

/// Options of a demand: the relays in between and a cost for each.
type Drawn = (u16, u16, usize, u64, Vec<(Vec<u16>, u32)>);

fn drawn() -> impl Strategy<Value = Problem> {
    let relay = || 1_u16..7;
    let path = (prop::collection::vec(relay(), 0..3), 1_000_u32..200_000);
    let one = (relay(), relay(), 0_usize..3, 1_u64..800, prop::collection::vec(path, 1..6));
    let demands = prop::collection::vec(one, 1..25);
    let links = prop::collection::vec((relay(), relay(), 5_u64..800), 0..30);
    let relays = prop::collection::vec((relay(), any::<bool>(), 50_u64..2_000), 0..6);
    (demands, links, relays).prop_map(|(demands, links, relays)| {
        let mut problem = Problem::new();
        for (from, to, mbps) in links {
            problem.limit(Resource::Link(link(from, to)), BitsPerSec(mbps * 1_000_000));
        }
        for (relay, sends, mbps) in relays {
            let relay = RelayId(relay);
            let way = if sends { Resource::Sending(relay) } else { Resource::Receiving(relay) };
            problem.limit(way, BitsPerSec(mbps * 1_000_000));
        }
        demands.into_iter().filter_map(demand_of).for_each(|demand| problem.push(demand));
        problem
    })
}

fn demand_of((source, destination, class, mbps, paths): Drawn) -> Option<Demand> {
    let mut options: Vec<PathOption> = Vec::new();
    for (mut relays, cost) in paths {
        relays.push(destination);
        let distinct = (0..relays.len()).all(|at| !relays[..at].contains(&relays[at]));
        if distinct && !relays.contains(&source) {
            options.push(option(&relays, cost));
        }
    }
    let found = !options.is_empty() && source != destination;
    found.then(|| demand(source, Class::ALL[class], mbps * 1_000_000, &options))
}

/// Whether a thousandth of a demand could leave a resource above its capacity for an option on which
/// everything has room.
fn is_avoidable(problem: &Problem, placement: &Placement, resource: Resource) -> bool {
    problem.demands.iter().zip(&placement.shares).any(|(demand, shares)| {
        let on = |(option, share): &(&PathOption, &Permille)| {
            share.0 > 0 && fills(demand, option, resource)
        };
        demand.options.iter().zip(shares).filter(on).any(|(from, _)| {
            demand.options.iter().any(|to| {
                !fills(demand, to, resource)
                    && problem.capacities().all(|(other, capacity)| {
                        !fills(demand, to, other)
                            || fills(demand, from, other)
                            || load(problem, placement, other) + u128::from(demand.rate.0)
                                <= u128::from(capacity.0) * 1_000
                    })
            })
        })
    })
}

proptest! {
    #[test]
    fn shares_sum_to_a_thousand(problem in drawn()) {
        for shares in shares(&place(&problem)) {
            prop_assert_eq!(shares.iter().sum::<u16>(), 1_000);
        }
    }

    #[test]
    fn nothing_is_above_its_capacity_while_another_way_has_room(problem in drawn()) {
        let first = place(&problem);
        let problem_then = again(&problem, &first);
        for placement in [place(&problem_then), first] {
            for overload in &placement.overloads {
                prop_assert!(!is_avoidable(&problem, &placement, overload.resource), "{overload:?}");
            }
        }
    }

    #[test]
    fn overloads_are_what_is_above_its_capacity(problem in drawn()) {
        let placement = place(&problem);
        let above = problem.capacities().filter_map(|(resource, capacity)| {
            let load = load(&problem, &placement, resource);
            let rate = BitsPerSec(u64::try_from(load / 1_000).unwrap());
            (load > u128::from(capacity.0) * 1_000).then_some(Overload { resource, rate, capacity })
        });

        prop_assert_eq!(above.collect::<Vec<_>>(), &placement.overloads[..]);
        prop_assert_eq!(placement.overloads.is_empty(), placement.unplaced.is_empty());
    }

    #[test]
    fn the_same_problem_gives_the_same_placement(problem in drawn()) {
        prop_assert_eq!(place(&problem), place(&problem.clone()));
    }

    #[test]
    fn what_fits_stays_when_nothing_changes(problem in drawn()) {
        let first = place(&problem);
        if first.overloads.is_empty() {
            prop_assert_eq!(place(&again(&problem, &first)).shares, first.shares);
        }
    }

    #[test]
    fn more_capacity_never_costs_more(problem in drawn()) {
        let narrow = place(&problem);
        let mut wide = problem.clone();
        for capacity in wide.capacities.values_mut() {
            capacity.0 *= 2;
        }
        let placement = place(&wide);
        if narrow.overloads.is_empty() {
            prop_assert!(placement.overloads.is_empty());
            // Both are within a few per cent of the optimum.
            prop_assert!(cost(&wide, &placement) * 100 <= cost(&problem, &narrow) * 103);
        }
    }
}
