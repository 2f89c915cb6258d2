//! A mesh under noise: relays that measure, a planner that plans each second, and what its paths truly cost.
//!
//! A second is played thus: heartbeats cross the lines; at its end every link's windows go into the topology and the
//! planner plans; the paths that it then has in use carry the next second. What a second truly costs is
//! known afterwards, from the mean state of every line in it, by the product's own formulas. The *oracle* takes the
//! cheapest path of the same hop bound by that: it knows each second before it begins, and moves for nothing.

use std::time::{Duration, Instant};

use overway_probe::Rate;
use overway_topology::{
    LinkDelay, LinkMeasure, LinkTerms, Planner, PlannerConfig, Reason, RouteKey, Sequential,
    Topology, WindowSample,
};
use overway_wire::{Class, Micros};

use super::noise::{Noise, State, Step};
use super::probed::Probes;
use crate::exact::{self, NONE, Square};
use crate::input;

/// Packets from which true loss is priced: so many that nothing is left to chance.
const TRUE_SAMPLES: u32 = 1_000_000;

/// Relays, their probes, and the planner.
pub(super) struct Mesh {
    planner: Planner,
    topology: Topology,
    probes: Probes,
    base: Instant,
    /// Rows of the candidates of each route, the path in use first, the direct competitor left out; see
    /// [`Mesh::place`].
    routes: Vec<Vec<Vec<usize>>>,
    /// Routes that use a link, and that have it on a backup, by row of sender and receiver.
    uses: Vec<[u32; 2]>,
    count: usize,
}

impl Mesh {
    /// A mesh that knows nothing yet. `seed` is of its clocks and its heartbeats.
    pub(super) fn new(noise: &Noise, config: PlannerConfig, seed: u64) -> anyhow::Result<Self> {
        let count = noise.count();
        let base = Instant::now();
        Ok(Self {
            planner: Planner::new(config),
            topology: input::topology(&vec![vec![None; count]; count])?,
            probes: Probes::new(noise, base, seed),
            base,
            routes: vec![Vec::new(); Class::ALL.len() * count * count],
            uses: vec![[0; 2]; count * count],
            count,
        })
    }

    /// Plays a second and plans at its end; returns how many routes, by class, then use another path.
    pub(super) fn play(&mut self, noise: &Noise, second: usize) -> anyhow::Result<[u64; 3]> {
        let until = self.base + Duration::from_secs(second as u64 + 1);
        let mut outcome = Ok(());
        let topology = &mut self.topology;
        self.probes.play(noise, until, |from, to, measure| {
            let Some(measure) = measure else { return };
            let id = input::link(from, to);
            if outcome.is_ok() && topology.link(id) != Some(&measure) {
                outcome = topology.put_link(id, measure);
            }
        });
        outcome?;
        let mut moves = [0; 3];
        for key in self.planner.plan(&mut self.topology, &Sequential, until) {
            moves[place(key.class)] += u64::from(self.take(key));
        }
        let (uses, count) = (&self.uses, self.count);
        self.probes.set_rates(|from, to| rate(uses[from * count + to]), until);
        Ok(moves)
    }

    /// Takes over a route's candidates; whether it was in use before and now takes another path.
    fn take(&mut self, key: RouteKey) -> bool {
        let at = self.place(key);
        let candidates = self.planner.candidates(key);
        let probed = candidates.iter().filter(|candidate| candidate.reason != Reason::Direct);
        let new = probed.map(|candidate| exact::rows(key.source, candidate)).collect();
        let old = std::mem::replace(&mut self.routes[at], new);
        for (backup, path) in old.iter().enumerate() {
            links(path).for_each(|(a, b)| self.uses[a * self.count + b][backup.min(1)] -= 1);
        }
        for (backup, path) in self.routes[at].iter().enumerate() {
            links(path).for_each(|(a, b)| self.uses[a * self.count + b][backup.min(1)] += 1);
        }
        old.first().is_some_and(|path| self.routes[at].first() != Some(path))
    }

    fn place(&self, key: RouteKey) -> usize {
        let (from, to) = (input::row(key.source), input::row(key.destination));
        (place(key.class) * self.count + from) * self.count + to
    }

    /// The path in use, as rows from end to end.
    pub(super) fn in_use(&self, class: Class, from: usize, to: usize) -> Option<&[usize]> {
        let at = (place(class) * self.count + from) * self.count + to;
        self.routes[at].first().map(Vec::as_slice)
    }

    /// Links on paths in use, with how many routes use them.
    pub(super) fn links_in_use(&self) -> Vec<((usize, usize), u32)> {
        let uses = self.uses.iter().enumerate().filter(|(_, uses)| uses[0] > 0);
        uses.map(|(at, uses)| ((at / self.count, at % self.count), uses[0])).collect()
    }
}

/// The links of a path.
pub(super) fn links(path: &[usize]) -> impl Iterator<Item = (usize, usize)> + '_ {
    path.windows(2).map(|step| (step[0], step[1]))
}

/// A class's place in arrays of all classes.
pub(super) fn place(class: Class) -> usize {
    match class {
        Class::Realtime => 0,
        Class::Interactive => 1,
        Class::Bulk => 2,
    }
}

/// How often a link is probed that so many routes use, and so many have as a backup: every pair has flows.
fn rate([in_use, backup]: [u32; 2]) -> Rate {
    match (in_use, backup) {
        (0, 0) => Rate::Idle,
        (0, _) => Rate::Backup,
        (_, _) => Rate::Active,
    }
}

/// What every link truly costs each class in a second; [`NONE`] where nothing gets through.
pub(super) fn true_costs(noise: &Noise, second: usize) -> [Square; 3] {
    let count = noise.count();
    let mut costs = [Square::new(count), Square::new(count), Square::new(count)];
    let mut states = vec![State::default(); count * count];
    for (from, to, line) in noise.lines() {
        states[from * count + to] = line.second(second);
    }
    for (from, to, line) in noise.lines() {
        let (state, back) = (states[from * count + to], states[to * count + from]);
        let (measure, delay) = truth(state, back, line.step != Some(Step::Cut));
        for (class, costs) in Class::ALL.into_iter().zip(&mut costs) {
            let cost = LinkTerms::of(class, input::link(from, to), &measure, delay)
                .map(|terms| terms.total().0);
            costs.set(from, to, cost.map_or(NONE, u64::from));
        }
    }
    costs
}

/// What is true of a link, as an estimator would say it that errs in nothing.
fn truth(state: State, back: State, usable: bool) -> (LinkMeasure, LinkDelay) {
    let delay = micros(state.delay_us + state.jitter_us);
    let window = WindowSample {
        rtt: micros(state.delay_us + state.jitter_us + back.delay_us + back.jitter_us),
        jitter: micros(state.deviation_us()),
        samples: TRUE_SAMPLES,
        lost: micros(state.loss * f64::from(TRUE_SAMPLES)).0,
        ..WindowSample::default()
    };
    let measure = LinkMeasure { usable, fast: window, slow: window, ..LinkMeasure::default() };
    (measure, LinkDelay { fast: delay, slow: delay })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, which is what is wanted"
)]
fn micros(us: f64) -> Micros {
    Micros(us.round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_topology::Delays;

    /// Direct 0 to 1 is longer than over 2.
    fn noise() -> Noise {
        let us = |row: [u32; 3]| row.map(|us| (us > 0).then_some(Micros(us))).to_vec();
        let rows = [[0, 90_000, 20_000], [90_000, 0, 20_000], [20_000, 20_000, 0]];
        Noise::new(&rows.map(us).to_vec(), 200, true, 1)
    }

    fn played(noise: &Noise, seconds: usize) -> Mesh {
        let mut mesh = Mesh::new(noise, PlannerConfig::default(), 1).unwrap();
        for second in 0..seconds {
            mesh.play(noise, second).unwrap();
        }
        mesh
    }

    #[test]
    fn estimators_and_clocks_that_disagree_still_show_what_is_true_of_paths() {
        let noise = noise();
        let mesh = played(&noise, 120);

        let delays = Delays::fit(&mesh.topology);
        let measured = |a, b| i64::from(delays.link(input::link(a, b)).unwrap().slow.0);
        let saved = measured(0, 1) - measured(0, 2) - measured(2, 1);
        let mean = |a, b| {
            let state = noise.line(a, b).unwrap().second(119);
            state.delay_us + state.jitter_us
        };
        let truly = mean(0, 1) - mean(0, 2) - mean(2, 1);

        assert!((saved as f64 - truly).abs() < 2_000.0, "{saved} {truly}");
    }

    #[test]
    fn a_cut_link_is_left_at_the_next_epoch_and_costs_everything_until_then() {
        let mut noise = noise();
        let mut mesh = played(&noise, 60);
        assert_eq!(mesh.in_use(Class::Realtime, 0, 1), Some(&[0, 2, 1][..]));

        noise.set_step(0, 2, Some(Step::Cut));

        assert_eq!(true_costs(&noise, 60)[0].along(&[0, 2, 1]), NONE);
        let moves = mesh.play(&noise, 60).unwrap();
        assert_eq!(mesh.in_use(Class::Realtime, 0, 1), Some(&[0, 1][..]));
        assert!(moves.iter().all(|moves| *moves > 0));
    }

    #[test]
    fn links_in_use_are_probed_more_often_than_others() {
        let mesh = played(&noise(), 60);

        let in_use = mesh.links_in_use();

        assert!(in_use.iter().any(|((a, b), routes)| (*a, *b) == (0, 2) && *routes >= 3));
        assert!(!in_use.iter().any(|((a, b), _)| (*a, *b) == (0, 1)));
        assert_eq!(
            [rate([0, 0]), rate([0, 1]), rate([2, 0])],
            [Rate::Idle, Rate::Backup, Rate::Active]
        );
    }
}
