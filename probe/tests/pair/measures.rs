use std::time::{Duration, Instant};

use overway_probe::{LocalClock, Rate};
use overway_wire::Ticks;
use overway_wire::control::Window;
use proptest::prelude::*;

use crate::world::{Pair, Wire, ms, secs};

#[test]
fn round_trip_and_one_way_differences_are_right_with_clocks_apart() {
    let wires = [Wire::with_delay(ms(40)), Wire::with_delay(ms(55))];
    let mut pair = Pair::new(wires, 1);
    pair.both(|probe, now| probe.set_rate(Rate::Active, now));

    pair.run_for(secs(10));

    let offset = 86_400_123_500_000_i64 - 17;
    let (fast, slow) = pair.ends[1].probe.windows(pair.now);
    for stats in [fast, slow] {
        assert_eq!(stats.rtt.0, 95_000);
        assert_eq!((stats.rtt_var.0, stats.jitter.0, stats.lost), (0, 0, 0));
        assert!((stats.one_way_diff.0 + offset).abs_diff(40_000) <= 1, "{stats:?}");
    }
    let (other, _) = pair.ends[0].probe.windows(pair.now);
    assert!((other.one_way_diff.0 - offset).abs_diff(55_000) <= 1, "{other:?}");
    assert!((30..=34).contains(&fast.samples), "{fast:?}");
}

#[test]
fn a_window_travels_whole() {
    let mut pair = Pair::new([Wire::with_delay(ms(40)), Wire::with_delay(ms(55))], 1);
    pair.run_for(secs(10));

    let (fast, _) = pair.ends[0].probe.windows(pair.now);
    let window = Window::from(fast);

    assert_eq!(window.one_way_diff_us, fast.one_way_diff.0);
    assert_eq!((window.rtt_us, window.samples, window.lost), (95_000, fast.samples, 0));
}

#[test]
fn jitter_is_measured_in_the_direction_that_has_it() {
    let mut wires = [Wire::with_delay(ms(40)), Wire::with_delay(ms(40))];
    wires[0].jitter = ms(8);
    let mut pair = Pair::new(wires, 2);
    pair.both(|probe, now| probe.set_rate(Rate::Active, now));

    pair.run_for(secs(120));

    // The mean deviation of an even spread is a quarter of it.
    let (_, slow) = pair.ends[1].probe.windows(pair.now);
    assert!((1_800..2_300).contains(&slow.jitter.0), "{slow:?}");
    assert!((1_800..2_300).contains(&slow.rtt_var.0), "{slow:?}");
    let (_, slow) = pair.ends[0].probe.windows(pair.now);
    assert!(slow.jitter.0 == 0, "{slow:?}");
}

#[test]
fn the_received_rate_is_measured() {
    let mut pair = Pair::new([Wire::with_delay(ms(40)), Wire::with_delay(ms(40))], 2);
    pair.send_every(0, Some(ms(2)));

    pair.run_for(secs(10));

    let bps = pair.ends[1].probe.received_bps(pair.now).0;
    assert!((780_000..830_000).contains(&bps), "200 bytes each 2 ms are {bps} bit/s");
}

fn pair_of(clocks: [LocalClock; 2], base: Instant, delay: Duration, rate: Rate, seed: u64) -> Pair {
    let wires = [Wire::with_delay(delay), Wire::with_delay(delay)];
    let mut pair = Pair::with_clocks(wires, clocks, base, seed);
    pair.both(|probe, now| probe.set_rate(rate, now));
    pair
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn one_way_differences_telescope_along_a_path_whatever_the_clocks(
        offsets in [0_u64..1 << 50, 0_u64..1 << 50, 0_u64..1 << 50],
        drifts in [-100_i32..100, -100_i32..100, -100_i32..100],
        delays in [1_u64..200, 1_u64..200, 1_u64..200],
        rates in [0_usize..3, 0_usize..3, 0_usize..3],
    ) {
        let base = Instant::now();
        let clock = |at: usize| LocalClock::new(base, Ticks(offsets[at]), drifts[at]);
        let all = [Rate::Active, Rate::Backup, Rate::Idle];
        let ends = [(0, 1), (1, 2), (0, 2)];
        let mut fast = [0_i64; 3];
        let mut slow = [0_i64; 3];
        for (at, (from, to)) in ends.into_iter().enumerate() {
            let clocks = [clock(from), clock(to)];
            let mut pair = pair_of(clocks, base, ms(delays[at]), all[rates[at]], 1);
            pair.run_for(secs(180));
            let (now_fast, now_slow) = pair.ends[1].probe.windows(pair.now);
            (fast[at], slow[at]) = (now_fast.one_way_diff.0, now_slow.one_way_diff.0);
        }

        let truth = i64::try_from(1_000 * (delays[0] + delays[1])).unwrap()
            - i64::try_from(1_000 * delays[2]).unwrap();
        // Two links of different cadence differ in lag by up to half a second, at up to 200 ppm each.
        for diffs in [fast, slow] {
            let found = diffs[0] + diffs[1] - diffs[2];
            prop_assert!(found.abs_diff(truth) <= 250, "{found} is not {truth}: {diffs:?}");
        }
    }

    #[test]
    fn loss_is_estimated_near_the_truth(
        loss in 0.0_f64..0.3, jitter in 0_u64..15, seed in any::<u64>(),
    ) {
        let mut wires = [Wire::with_delay(ms(40)), Wire::with_delay(ms(40))];
        (wires[0].loss, wires[0].jitter) = (loss, ms(jitter));
        let mut pair = Pair::new(wires, seed);
        pair.both(|probe, now| probe.set_rate(Rate::Active, now));
        pair.send_every(0, Some(ms(20)));
        pair.run_for(secs(150));

        let (_, slow) = pair.ends[1].probe.windows(pair.now);
        let samples = f64::from(slow.samples);
        prop_assert!((2_350.0..2_650.0).contains(&samples), "{:?}", slow);
        let found = f64::from(slow.lost) / samples;
        let deviation = (loss * (1.0 - loss) / (2.0 * samples)).sqrt();
        prop_assert!((found - loss).abs() <= 6.0 * deviation + 0.002, "{found} is not {loss}");
        let (_, back) = pair.ends[0].probe.windows(pair.now);
        prop_assert_eq!(back.lost, 0);
    }
}
