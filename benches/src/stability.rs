//! `stability`: how calm the planner is under noise of the published kind, what its calm costs, and how soon it
//! follows a real step.
//!
//! In virtual time, with nothing but cores: a mesh whose delays stay what they are ([`noise`]) is measured by the
//! product's estimators ([`probed`]) and planned each second for an hour, by the production configuration and by one
//! without thresholds, holds and memory ([`replay`], [`course`]). Both see the same noise. Counted are the times that a
//! pair's path in use changes; and, each second, what the path in use truly costs beyond what an oracle's does that
//! knows that second before it begins. So the second in which a degradation begins counts, as do those that
//! end before anyone could react, and those in which a planner waits for good news to last.
//!
//! Then the same mesh without episodes gets real steps ([`steps`]): `step_epochs` is the most that a route took to leave
//! a link that was cut or became longer. Loss shows less surely, as a second's 33 heartbeats may happen to lose none or
//! one: it has figures of its own.
//!
//! `cost_above_oracle_*` are shares of the oracle's cost, over every pair, second and class; `_late` is the part of the
//! mean from seconds in which the path in use was in an episode itself, `_away` the rest: from waiting, from thresholds,
//! and from windows that remember. Where several seeds are played, figures are medians over them, and `_min` and `_max`
//! stand beside what is promised.

mod course;
mod noise;
mod probed;
mod replay;
mod steps;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use fastrand::Rng;
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::percentile;
use overway::lab::stage::{Ink, Stage, Stopped};
use overway_topology::{PlannerConfig, Threshold};
use overway_wire::{Class, Micros};

use crate::common::{self, Common};
use crate::input::{self, MeasuredArgs, OneWay};
use course::{Course, Outcome};
use replay::place;
use steps::{Epochs, KINDS};

/// The promise: mean excess over the oracle.
const ABOVE_ORACLE_MAX: f64 = 0.02;
/// Seconds of noise, and with `--quick`.
const SECONDS: [usize; 2] = [3_600, 300];
/// Relays are no nearer to one another than this, one way: what is published of noise is of links between regions,
/// and seconds of delay on a link within one would outweigh everything else.
const APART: Micros = Micros(4_000);
/// Cities of which those of a synthetic mesh are drawn, for each relay.
const CITIES_EACH: usize = 2;
/// Steps of each kind, and with `--quick`.
const STEPS_EACH: [usize; 2] = [12, 2];

/// Arguments of `stability`.
#[derive(Debug, Args)]
pub(crate) struct StabilityArgs {
    #[command(flatten)]
    measured: MeasuredArgs,
    /// Relays of the mesh, drawn from the file, or in cities drawn at random.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(4..=200))]
    relays: u16,
    /// Seeds that are played, this one and those after it: noise, clocks, and which relays of a file.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds; 3 unless quick.
    #[arg(long, value_name = "COUNT")]
    seeds: Option<u64>,
    /// Seconds of noise, instead of an hour.
    #[arg(long)]
    seconds: Option<usize>,
    /// Steps of each kind, instead of 12; 0 leaves this part out.
    #[arg(long, value_name = "COUNT")]
    steps: Option<usize>,
}

/// What one seed gave.
struct Seen {
    course: Course,
    epochs: Epochs,
}

/// Measures, prints the tables, and returns the figures.
pub(crate) fn run(args: &StabilityArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let seeds: Vec<u64> = (0..args.seeds.unwrap_or(if common.quick { 1 } else { 3 }))
        .map(|at| args.seed + at)
        .collect();
    let seconds = args.seconds.unwrap_or(SECONDS[usize::from(common.quick)]);
    let each = args.steps.unwrap_or(STEPS_EACH[usize::from(common.quick)]);
    let measured = args.measured.read()?.map(|rtts| rtts.one_way());
    let relays = usize::from(args.relays);
    stage.say(format!(
        "{relays} relays{}, {seconds} s of noise, {} seeds, {}",
        if measured.is_some() { " of the file" } else { " around the world" },
        seeds.len(),
        common::machine()
    ));
    let play = |seed| {
        let delays = match &measured {
            Some(all) => apart(all, relays, seed),
            None => apart(&input::scattered(relays * CITIES_EACH, seed), relays, seed),
        };
        let course =
            course::play(&delays, [PlannerConfig::default(), raw()], seconds, seed, stage)?;
        let config = PlannerConfig::default();
        let epochs = if each == 0 {
            Epochs::default()
        } else {
            steps::play(&delays, config, each, seed, stage)?
        };
        anyhow::Ok(Seen { course, epochs })
    };
    let seen = in_parallel(&seeds, play)?;
    stage.clear();
    tables(&seen, stage);
    Ok(figures(&seen))
}

/// A planner that always takes the cheapest.
fn raw() -> PlannerConfig {
    let none = Threshold { absolute: Micros(0), percent: 0 };
    PlannerConfig {
        gain: none,
        degraded: none,
        return_hold: Duration::ZERO,
        return_memory: Duration::ZERO,
        readmission_hold: Duration::ZERO,
        settle: Duration::ZERO,
        ..PlannerConfig::default()
    }
}

/// So many hosts, at random, of which no two are nearer than [`APART`]; fewer if there are no more.
fn apart(all: &OneWay, relays: usize, seed: u64) -> OneWay {
    let mut rows: Vec<usize> = (0..all.len()).collect();
    Rng::with_seed(seed).shuffle(&mut rows);
    let mut drawn: Vec<usize> = Vec::new();
    for row in rows {
        let near = |&other: &usize| {
            [all[row][other], all[other][row]].iter().flatten().any(|delay| *delay < APART)
        };
        if drawn.len() < relays && !drawn.iter().any(near) {
            drawn.push(row);
        }
    }
    drawn.sort_unstable();
    let row = |&from: &usize| drawn.iter().map(|&to| all[from][to]).collect();
    drawn.iter().map(row).collect()
}

/// Does the seeds' work, as many at a time as there are cores.
fn in_parallel(
    seeds: &[u64],
    play: impl Fn(u64) -> anyhow::Result<Seen> + Sync,
) -> anyhow::Result<Vec<Seen>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..cores.min(seeds.len()) {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let seen = play(seed);
                    done.lock().expect("no worker panics while it holds this").push((seed, seen));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker panics while it holds this");
    done.sort_by_key(|(seed, _)| *seed);
    let seen = done.into_iter().map(|(seed, seen)| seen.with_context(|| format!("seed {seed}")));
    seen.collect()
}

/// An error if the benchmark was asked to stop.
fn go_on(stage: &Stage) -> anyhow::Result<()> {
    if stage.stop().is_set() { Err(Stopped.into()) } else { Ok(()) }
}

fn tables(seen: &[Seen], stage: &Stage) {
    stage.say(stage.ink(Ink::Bold, "noise: published are over 0.6, 100, 0.13 and 2.8"));
    for Seen { course, .. } in seen {
        let noise = course.published;
        stage.say(format!(
            "  seed {}: asymmetric {:.2} of the time, {:.0} episodes under 30 s for each longer, p99.9 loss {:.3} and delay {:.2} s",
            course.seed, noise.asymmetric_share, noise.short_per_long, noise.loss_p999, noise.delay_p999_s
        ));
    }
    let head =
        "changes of path in use per pair and hour; true cost above the oracle's, mean and p99";
    stage.say(stage.ink(Ink::Bold, head));
    for Seen { course, .. } in seen {
        for (name, outcome) in [("calm", &course.outcomes[0]), ("raw", &course.outcomes[1])] {
            for class in Class::ALL {
                let excess = &outcome.excess[place(class)];
                stage.say(format!(
                    "  seed {} {name:5} {:12} {:>9.2}  {:>8}  {:>8}",
                    course.seed,
                    class.name(),
                    outcome.moves[place(class)] as f64 / course.pair_hours(),
                    text(excess.mean()),
                    text(excess.percentile(0.99)),
                ));
            }
            if let Some((late, away)) = outcome.late_and_away() {
                stage.say(format!(
                    "  seed {} {name:5} of the mean, {late:.4} on paths in an episode, {away:.4} on others",
                    course.seed
                ));
            }
        }
    }
    stage.say(stage.ink(Ink::Bold, "epochs until a route has left a link that became worse"));
    for (kind, described) in KINDS.iter().enumerate() {
        let all: Vec<_> = seen.iter().flat_map(|seen| &seen.epochs[kind]).collect();
        let left: Vec<f64> = all.iter().filter_map(|e| e.map(|epochs| epochs as f64)).collect();
        let (p50, p99) = (percentile(&left, 0.5), percentile(&left, 0.99));
        let most = left.iter().copied().reduce(f64::max);
        let [p50, p99, most] =
            [p50, p99, most].map(|epochs| epochs.map_or("-".into(), |e| format!("{e:.0}")));
        stage.say(format!(
            "  {:10} {:>6} routes, p50 {p50}, p99 {p99}, most {most}, never {}",
            described.name,
            all.len(),
            all.len() - left.len()
        ));
    }
}

fn text(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.4}"))
}

fn figures(seen: &[Seen]) -> Figures {
    let mut figures = Figures::default();
    let reported = Promise::Reported;
    let over = |of: &dyn Fn(&Course) -> Option<f64>| -> Vec<f64> {
        seen.iter().filter_map(|seen| of(&seen.course)).collect()
    };
    let [calm, raw] = [0, 1].map(|which| {
        over(&move |course: &Course| Some(course.outcomes[which].changes_per_pair_hour(course)))
    });
    figures.add_measured("changes_per_pair_hour", percentile(&calm, 0.5), reported);
    figures.add_measured("changes_per_pair_hour_raw", percentile(&raw, 0.5), reported);
    for (suffix, which) in [("", 0), ("_raw", 1)] {
        let all = |course: &Course| course.outcomes[which].excess_of_all();
        let means = over(&|course| all(course).mean());
        let tails = over(&|course| all(course).percentile(0.99));
        let bound = if which == 0 { Promise::AtMost(ABOVE_ORACLE_MAX) } else { reported };
        let mut add = |name: &str, value, promise| {
            figures.add_measured(&format!("cost_above_oracle_{name}{suffix}"), value, promise);
        };
        add("mean", percentile(&means, 0.5), bound);
        add("mean_min", means.iter().copied().reduce(f64::min), reported);
        add("mean_max", means.iter().copied().reduce(f64::max), bound);
        add("p99", percentile(&tails, 0.5), reported);
        let parts = |course: &Course| course.outcomes[which].late_and_away();
        let late = over(&|course| parts(course).map(|(late, _)| late));
        let away = over(&|course| parts(course).map(|(_, away)| away));
        add("late", percentile(&late, 0.5), reported);
        add("away", percentile(&away, 0.5), reported);
    }
    for class in Class::ALL {
        let of = |outcome: &Outcome| outcome.excess[place(class)].mean();
        let means = over(&|course| of(&course.outcomes[0]));
        let name = format!("cost_above_oracle_mean_{}", class.name());
        figures.add_measured(&name, percentile(&means, 0.5), reported);
    }
    if seen.iter().any(|seen| seen.epochs.iter().any(|epochs| !epochs.is_empty())) {
        let sure = step_epochs(seen, true);
        figures.add_measured("step_epochs", sure.last().copied(), Promise::AtMost(1.0));
        figures.add_measured("step_routes", Some(sure.len() as f64), reported);
        let loss = step_epochs(seen, false);
        figures.add_measured("step_epochs_loss_p50", percentile(&loss, 0.5), reported);
        figures.add_measured("step_epochs_loss_p90", percentile(&loss, 0.9), reported);
    }
    figures
}

/// Epochs of every route under the steps that show for sure, or the others, in order; infinite if it did not leave.
fn step_epochs(seen: &[Seen], sure: bool) -> Vec<f64> {
    let kinds = || KINDS.iter().enumerate().filter(|(_, kind)| kind.sure == sure);
    let all = seen.iter().flat_map(|seen| kinds().flat_map(|(at, _)| &seen.epochs[at]));
    let mut all: Vec<f64> =
        all.map(|epochs| epochs.map_or(f64::INFINITY, |epochs| epochs as f64)).collect();
    all.sort_by(f64::total_cmp);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(row: [u32; 3]) -> Vec<Option<Micros>> {
        row.map(|ms| (ms > 0).then_some(Micros(ms * 1_000))).to_vec()
    }

    #[test]
    fn relays_of_a_mesh_are_of_different_regions() {
        let all = vec![ms([0, 1, 50]), ms([1, 0, 50]), ms([50, 50, 0])];

        for seed in 0..10 {
            let drawn = apart(&all, 3, seed);
            assert_eq!(drawn, [[None, Some(Micros(50_000))], [Some(Micros(50_000)), None]]);
        }
    }

    #[test]
    fn figures_have_the_names_that_are_promised() {
        let delays = apart(&input::scattered(12, 1), 6, 1);
        let stage = Stage::silent();
        let configs = [PlannerConfig::default(), raw()];
        let course = course::play(&delays, configs, 20, 1, &stage).unwrap();
        let epochs = steps::play(&delays, PlannerConfig::default(), 1, 1, &stage).unwrap();

        let figures = figures(&[Seen { course, epochs }]);

        let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
        for name in [
            "changes_per_pair_hour",
            "changes_per_pair_hour_raw",
            "cost_above_oracle_mean",
            "cost_above_oracle_p99",
            "step_epochs",
        ] {
            assert!(names.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_route_that_never_left_took_for_ever() {
        let course = Course {
            seed: 1,
            pairs: 0,
            seconds: 0,
            published: noise::Published::default(),
            outcomes: [Outcome::default(), Outcome::default()],
        };
        let mut epochs = Epochs::default();
        epochs[0] = vec![Some(1), None, Some(2)];

        let seen = [Seen { course, epochs }];

        assert_eq!(step_epochs(&seen, true), [1.0, 2.0, f64::INFINITY]);
        assert!(step_epochs(&seen, false).is_empty());
    }
}
