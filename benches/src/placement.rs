//! `placement`: how near the product's placement of demand is to the optimum.
//!
//! Networks are drawn ([`networks`]): relays strewn over a plane, in clusters, resampled from PlanetLab
//! measurements, and subsets of the hosts of a file of measured round trips if one is given. For each, a linear
//! program says how much of its demand can be placed at all ([`oracle`]). Parts of that, from less than a third
//! to nearly all, are placed by the product and by the program, which finds the optimum; cost and loads of the
//! product's shares are computed anew from the shares ([`judge`]).
//!
//! - `cost_above_lp_*`: excess of rate x cost over the optimum, as a part of it. A cost is mostly delay that no
//!   choice avoids; `lp_above_best_max` says how much the greatest scarcity adds at all.
//! - `capacity_violations`: resources above their capacity, where the program has room for all.
//! - `greedy_unplaced_share_max`: what filling the cheapest paths one demand after the other leaves without
//!   room where the program has room for all.
//! - `place_10000_ms`: ten thousand demands, nearly all contested and too much for their network, best of five.
//! - `moved_share_mean`: routes whose shares change from one second to the next, while each rate wanders by
//!   a tenth.

mod judge;
mod networks;
mod oracle;

use std::time::Instant;

use anyhow::bail;
use clap::Args;
use fastrand::Rng;
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::percentile;
use overway::lab::stage::{Ink, Stage};
use overway_topology::{Placement, Problem, place};

use crate::common::{self, Common};
use crate::input::{self, MeasuredArgs, OneWay};
use networks::Network;

/// Networks of each kind.
const EACH: usize = 8;
/// Networks that make the promise.
const NETWORKS_MIN: f64 = 20.0;
/// Relays of a network, at least and at most: beyond, the program takes long.
const RELAYS: std::ops::Range<usize> = 12..28;
/// Demands that are drawn for a network.
const DEMANDS: usize = 1_500;
/// Parts of what can be placed.
const LOADS: [f64; 5] = [0.3, 0.5, 0.7, 0.85, 0.95];
/// The load at which rates wander, by which part, and how often.
const WANDER_LOAD: f64 = 0.7;
const WANDER: f64 = 0.1;
const WANDER_SECONDS: usize = 6;
/// The network and the demands that are only timed.
const LARGE_RELAYS: usize = 300;
const LARGE_DEMANDS: usize = 10_000;
const LARGE_TIMES: usize = 5;
/// The promises.
const COST_ABOVE_LP_MAX: f64 = 0.05;
const LARGE_MS_MAX: f64 = 100.0;

/// Arguments of `placement`.
#[derive(Debug, Args)]
pub(crate) struct PlacementArgs {
    #[command(flatten)]
    measured: MeasuredArgs,
    /// Seed of the networks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A kind of network, and the delays of each of that kind.
type Kind = (&'static str, Vec<OneWay>);

/// One placement beside the optimum.
#[derive(Clone, Copy, Debug)]
struct Row {
    load: f64,
    demands: usize,
    /// Parts of the optimum.
    above_lp: f64,
    lp_above_best: f64,
    violations: usize,
    greedy_unplaced: f64,
    place_ms: f64,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
struct Seen {
    networks: usize,
    rows: Vec<Row>,
    /// Parts of the routes.
    moved: Vec<f64>,
    large_ms: Option<f64>,
}

/// Measures, prints the table, and returns the figures.
pub(crate) fn run(args: &PlacementArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let mut rng = Rng::with_seed(args.seed);
    let each = if common.quick { 2 } else { EACH };
    stage.say(common::machine());
    stage.say(stage.ink(Ink::Bold, head()));
    let mut seen = Seen::default();
    for (kind, all) in kinds(args, each, &mut rng)? {
        let mut rows = Vec::new();
        for delays in all {
            if stage.stop().is_set() {
                bail!("stopped");
            }
            stage.status(format!("{kind}, {} relays", delays.len()));
            rows.extend(measure(delays, &mut seen, &mut rng)?);
        }
        stage.clear();
        for load in LOADS {
            let rows: Vec<_> = rows.iter().filter(|row| row.load == load).copied().collect();
            stage.say(line(kind, load, &rows));
        }
        seen.rows.extend(rows);
    }
    seen.large_ms = Some(large_ms(&mut rng));
    Ok(figures(&seen, !common.quick))
}

fn kinds(args: &PlacementArgs, each: usize, rng: &mut Rng) -> anyhow::Result<Vec<Kind>> {
    let measured = args.measured.read()?;
    let mut draw = |make: &dyn Fn(usize, &mut Rng) -> OneWay| -> Vec<OneWay> {
        (0..each).map(|_| make(rng.usize(RELAYS), rng)).collect()
    };
    let mut kinds: Vec<Kind> = vec![
        ("geometric", draw(&networks::geometric)),
        ("clustered", draw(&|count, rng| input::clustered(count, rng.u64(..)))),
        ("planetlab", draw(&|count, rng| input::planetlab_resampled(None, count, rng.u64(..)))),
    ];
    if let Some(rtts) = measured {
        let delays = rtts.one_way();
        kinds.push(("measured", draw(&|count, rng| networks::subset(&delays, count, rng))));
    }
    Ok(kinds)
}

/// Places parts of what a network can carry.
fn measure(delays: OneWay, seen: &mut Seen, rng: &mut Rng) -> anyhow::Result<Vec<Row>> {
    let problem = Network::draw(delays, rng).problem(DEMANDS, rng);
    let placeable = oracle::most_placed(&problem)?;
    let part = |load: f64| -> Vec<f64> { placeable.iter().map(|rate| rate * load).collect() };
    let mut rows = Vec::new();
    for load in LOADS {
        let problem = networks::with_rates(&problem, &part(load));
        let Some(least) = oracle::least_cost(&problem)? else {
            bail!("the program finds no room for {load} of what it placed before");
        };
        let started = Instant::now();
        let placement = place(&problem);
        rows.push(Row {
            load,
            place_ms: started.elapsed().as_secs_f64() * 1e3,
            demands: problem.demands().len(),
            above_lp: judge::cost(&problem, &placement) / least - 1.0,
            lp_above_best: least / judge::best_cost(&problem) - 1.0,
            violations: judge::violations(&problem, &placement),
            greedy_unplaced: judge::greedy_unplaced_share(&problem),
        });
    }
    let problem = networks::with_rates(&problem, &part(WANDER_LOAD));
    seen.moved.extend(moved(&problem, rng));
    seen.networks += 1;
    Ok(rows)
}

/// Which part of the routes changes in each second, while rates wander.
fn moved(problem: &Problem, rng: &mut Rng) -> Vec<f64> {
    let mut before: Option<Placement> = None;
    let mut moved = Vec::new();
    for _ in 0..WANDER_SECONDS {
        let problem = networks::wandered(problem, before.as_ref(), WANDER, rng);
        let now = place(&problem);
        if let Some(before) = before {
            let pairs = before.shares.iter().zip(&now.shares);
            let changed = pairs.filter(|(before, now)| before != now).count();
            moved.push(changed as f64 / now.shares.len() as f64);
        }
        before = Some(now);
    }
    moved
}

/// The shortest of some placements of many demands: what else the machine does only adds to it.
fn large_ms(rng: &mut Rng) -> f64 {
    let delays = networks::geometric(LARGE_RELAYS, rng);
    let problem = Network::draw(delays, rng).problem(LARGE_DEMANDS, rng);
    let time = |_| {
        let started = Instant::now();
        std::hint::black_box(place(&problem));
        started.elapsed().as_secs_f64() * 1e3
    };
    (0..LARGE_TIMES).map(time).fold(f64::INFINITY, f64::min)
}

fn head() -> String {
    format!(
        "{:<10} {:>5} {:>9} {:>8} {:>13} {:>13} {:>10} {:>9} {:>9}",
        "networks",
        "load",
        "count",
        "demands",
        "lp over best",
        "ours over lp",
        "violations",
        "greedy",
        "ms"
    )
}

/// A row of the table: one kind at one load, the worst of all networks.
fn line(kind: &str, load: f64, rows: &[Row]) -> String {
    let worst = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).fold(0.0, f64::max);
    format!(
        "{kind:<10} {load:>5.2} {:>9} {:>8} {:>12.2}% {:>12.3}% {:>10} {:>8.2}% {:>9.2}",
        rows.len(),
        rows.iter().map(|row| row.demands).max().unwrap_or(0),
        100.0 * worst(&|row| row.lp_above_best),
        100.0 * worst(&|row| row.above_lp),
        rows.iter().map(|row| row.violations).sum::<usize>(),
        100.0 * worst(&|row| row.greedy_unplaced),
        worst(&|row| row.place_ms),
    )
}

/// The figures; `enough` says whether there were networks for the promise.
fn figures(seen: &Seen, enough: bool) -> Figures {
    let mut figures = Figures::default();
    let values = |of: &dyn Fn(&Row) -> f64| -> Vec<f64> { seen.rows.iter().map(of).collect() };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let enough = if enough { Promise::AtLeast(NETWORKS_MIN) } else { Promise::Reported };
    figures.add("networks", seen.networks as f64, enough);
    figures.add("placements", seen.rows.len() as f64, Promise::Reported);
    let above = values(&|row| row.above_lp);
    let bound = Promise::AtMost(COST_ABOVE_LP_MAX);
    figures.add_measured("cost_above_lp_max", percentile(&above, 1.0), bound);
    figures.add("cost_above_lp_mean", mean(&above), Promise::Reported);
    let violations = values(&|row| row.violations as f64);
    let violations = (!violations.is_empty()).then(|| violations.iter().sum());
    figures.add_measured("capacity_violations", violations, Promise::AtMost(0.0));
    let scarcity = values(&|row| row.lp_above_best);
    figures.add_measured("lp_above_best_max", percentile(&scarcity, 1.0), Promise::Reported);
    let greedy = values(&|row| row.greedy_unplaced);
    let greedy = percentile(&greedy, 1.0);
    figures.add_measured("greedy_unplaced_share_max", greedy, Promise::Reported);
    figures.add("moved_share_mean", mean(&seen.moved), Promise::Reported);
    let times = values(&|row| row.place_ms);
    figures.add_measured("place_ms_p50", percentile(&times, 0.5), Promise::Reported);
    figures.add_measured("place_ms_max", percentile(&times, 1.0), Promise::Reported);
    let large = Promise::AtMost(LARGE_MS_MAX);
    figures.add_measured("place_10000_ms", seen.large_ms, large);
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_names_that_are_promised() {
        let figures = figures(&Seen::default(), true);

        let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
        for name in [
            "cost_above_lp_max",
            "cost_above_lp_mean",
            "capacity_violations",
            "networks",
            "place_ms_p50",
            "place_ms_max",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(!figures.are_kept());
    }

    #[test]
    fn a_small_network_is_placed_within_the_promise() {
        let mut rng = Rng::with_seed(1);
        let delays = networks::geometric(8, &mut rng);
        let mut seen = Seen::default();

        let rows = measure(delays, &mut seen, &mut rng).unwrap();

        assert_eq!((rows.len(), seen.networks), (LOADS.len(), 1));
        for row in rows {
            assert!(row.above_lp <= COST_ABOVE_LP_MAX && row.violations == 0, "{row:?}");
        }
    }
}
