use super::*;
use crate::RelayAttributes;
use overway_wire::{ClockDiff, LinkIndex};
use proptest::prelude::*;

fn link(from: usize, to: usize) -> LinkId {
    let id = |at: usize| RelayId(u16::try_from(at + 1).unwrap());
    LinkId::new(id(from), id(to), LinkIndex::default())
}

fn window(diff_us: i64, rtt_us: u32) -> WindowSample {
    WindowSample {
        one_way_diff: ClockDiff(diff_us),
        rtt: Micros(rtt_us),
        samples: 30,
        ..WindowSample::default()
    }
}

fn usable(fast: WindowSample, slow: WindowSample) -> LinkMeasure {
    LinkMeasure { usable: true, fast, slow, ..LinkMeasure::default() }
}

fn of_relays(count: usize) -> Topology {
    let mut topology = Topology::new();
    for at in 0..count {
        topology.put_relay(link(at, at).from, RelayAttributes::default()).unwrap();
    }
    topology
}

/// A full mesh with these delays and clocks, both windows alike.
fn mesh(delays: &[Vec<u32>], clocks: &[i64]) -> Topology {
    let mut topology = of_relays(clocks.len());
    for from in 0..clocks.len() {
        for to in (0..clocks.len()).filter(|&to| to != from) {
            let diff = i64::from(delays[from][to]) + clocks[to] - clocks[from];
            let sample = window(diff, delays[from][to] + delays[to][from]);
            topology.put_link(link(from, to), usable(sample, sample)).unwrap();
        }
    }
    topology
}

fn slow(delays: &Delays, from: usize, to: usize) -> i64 {
    i64::from(delays.link(link(from, to)).unwrap().slow.0)
}

#[test]
fn symmetric_delays_are_found_exactly_whatever_the_clocks() {
    let truth = vec![vec![0, 30_000, 80_000], vec![30_000, 0, 900], vec![80_000, 900, 0]];
    let clocks = [0, 86_400_123_500_000, -77];

    let delays = Delays::fit(&mesh(&truth, &clocks));

    for (id, delay) in delays.iter() {
        let at = |relay: RelayId| usize::from(relay.0) - 1;
        assert_eq!(delay.slow.0, truth[at(id.from)][at(id.to)]);
        assert_eq!(delay.fast, delay.slow);
    }
}

#[test]
fn a_sudden_change_of_one_link_does_not_look_like_a_clock() {
    let truth: Vec<Vec<u32>> = vec![vec![20_000; 6]; 6];
    let mut topology = mesh(&truth, &[0, 5, -9, 1_000_000, 70, 3]);
    let mut changed = *topology.link(link(0, 1)).unwrap();
    changed.fast.one_way_diff.0 += 50_000;
    topology.put_link(link(0, 1), changed).unwrap();

    let delays = Delays::fit(&topology);

    for (id, delay) in delays.iter() {
        let expected = if id == link(0, 1) { 70_000 } else { 20_000 };
        assert_eq!((id, delay.fast), (id, Micros(expected)));
        assert_eq!(delay.slow, Micros(20_000));
    }
}

#[test]
fn a_clock_that_drifts_between_the_windows_does_not_look_like_a_change() {
    let truth: Vec<Vec<u32>> = vec![vec![20_000; 5]; 5];
    let mut topology = mesh(&truth, &[0, 5, -9, 1_000_000, 70]);
    for other in 1..5 {
        for (id, drift) in [(link(0, other), -600), (link(other, 0), 600)] {
            let mut drifted = *topology.link(id).unwrap();
            drifted.fast.one_way_diff.0 += drift;
            topology.put_link(id, drifted).unwrap();
        }
    }

    let delays = Delays::fit(&topology);

    assert!(delays.iter().all(|(_, delay)| delay.fast == Micros(20_000)));
}

#[test]
fn a_pair_of_which_one_end_restarted_spoils_no_other() {
    let truth: Vec<Vec<u32>> = vec![vec![10_000; 4]; 4];
    let mut topology = mesh(&truth, &[0, 7_000, -3_000_000, 12]);
    let stale = window(900_000_000_000, 20_000);
    topology.put_link(link(0, 1), usable(stale, stale)).unwrap();

    let delays = Delays::fit(&topology);

    assert!(delays.iter().all(|(_, delay)| delay.slow == Micros(10_000)));
}

#[test]
fn one_direction_alone_counts_with_the_clocks_known_from_elsewhere() {
    let truth: Vec<Vec<u32>> = vec![vec![10_000; 3]; 3];
    let mut topology = mesh(&truth, &[0, 7_000, -3_000_000]);
    topology.remove_link(link(2, 0));
    let mut slower = *topology.link(link(0, 2)).unwrap();
    slower.slow.one_way_diff.0 += 4_000;
    topology.put_link(link(0, 2), slower).unwrap();

    let delays = Delays::fit(&topology);

    assert_eq!(slow(&delays, 0, 2), 14_000);
}

#[test]
fn without_comparable_clocks_a_delay_is_half_the_round_trip() {
    let mut topology = of_relays(2);
    let sample = window(123_456_789, 30_000);
    topology.put_link(link(0, 1), usable(sample, sample)).unwrap();
    assert_eq!(slow(&Delays::fit(&topology), 0, 1), 15_000);

    let unknown = window(123_456_789, 0);
    topology.put_link(link(0, 1), usable(unknown, unknown)).unwrap();
    assert_eq!(Delays::fit(&topology).link(link(0, 1)), None);
}

#[test]
fn an_empty_window_takes_the_others_value() {
    let truth = vec![vec![0, 10_000], vec![10_000, 0]];
    let mut topology = mesh(&truth, &[0, 50]);
    let mut quiet = *topology.link(link(0, 1)).unwrap();
    quiet.fast = WindowSample::default();
    topology.put_link(link(0, 1), quiet).unwrap();

    let delay = Delays::fit(&topology).link(link(0, 1)).unwrap();

    assert_eq!((delay.fast, delay.slow), (Micros(10_000), Micros(10_000)));
}

#[test]
fn absurd_differences_do_not_overflow() {
    let mut topology = of_relays(3);
    for (id, diff) in [
        (link(0, 1), i64::MAX),
        (link(1, 0), i64::MIN),
        (link(1, 2), 1 << 49),
        (link(2, 1), -(1 << 49)),
        (link(2, 0), -(1 << 49)),
        (link(0, 2), 1 << 49),
    ] {
        let sample = window(diff, u32::MAX);
        topology.put_link(id, usable(sample, sample)).unwrap();
    }

    assert!(Delays::fit(&topology).iter().all(|(_, delay)| delay.slow <= Micros::MAX));
}

proptest! {
    #[test]
    fn path_comparisons_and_round_trips_are_exact_and_no_delay_is_negative(
        delays in proptest::collection::vec(proptest::collection::vec(1..200_000_u32, 7), 7),
        clocks in proptest::collection::vec(-(1_i64 << 45)..(1 << 45), 2..7),
    ) {
        let count = clocks.len();
        let fitted = Delays::fit(&mesh(&delays, &clocks));
        let truth = |from: usize, to: usize| i64::from(delays[from][to]);

        for from in 0..count {
            for to in (0..count).filter(|&to| to != from) {
                prop_assert_eq!(
                    slow(&fitted, from, to) + slow(&fitted, to, from),
                    truth(from, to) + truth(to, from)
                );
                for via in (0..count).filter(|&via| via != from && via != to) {
                    let gain = |f: &dyn Fn(usize, usize) -> i64| {
                        f(from, to) - f(from, via) - f(via, to)
                    };
                    prop_assert_eq!(gain(&|a, b| slow(&fitted, a, b)), gain(&truth));
                }
            }
        }
    }
}
