//! `routes`: how long the planner takes for every route of a full mesh.
//!
//! Meshes of 300 and 1,000 relays with delays of three kinds: measured ones resampled, clustered, and independent of
//! one another. Links also differ in price, load, jitter and loss, so that each class has costs of its own; relays
//! are of eight providers and twenty regions. Once a mesh is planned, one relay starts or ends a drain, which makes the
//! planner do every route anew: that is measured with the path in use alone (`best_*`) and with all candidates
//! (`full_*`), on one thread and on two. Then one per cent of the links change, and the planner does what that can
//! affect (`epoch_*`). All are from the change to the list of routes to tell. Figures are medians of some plans, of the
//! kind of mesh that takes longest.
//!
//! Beside it runs petgraph's Dijkstra over the same costs, from a tenth of the relays, times ten: it finds the cost of
//! the best path of any length, and no backups (`petgraph_1000_ms`).
//!
//! `kernel_*` is what the search gains by the instructions that only some processors have, which calls for `unsafe`:
//! plans of all candidates of 300 relays on one thread, without them and with them in turn, and how many times as long the
//! first take.
//!
//! `delta_1000_*` is the scheduler's own core with 1,000 relays of which one reports one changed link: from the report to
//! the last update encoded, without the wait for the epoch.

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::percentile;
use overway::lab::stage::Stage;
use overway_topology::{Delays, LinkTerms, Planner, PlannerConfig, RelayAttributes, Topology};
use overway_wire::{Class, Micros, Permille, PricePerGb, RelayId};
use petgraph::algo::dijkstra;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::common::{Common, machine};
use crate::input::{self, MeasuredArgs, OneWay, Rtts};
use crate::scale::mesh::{Mesh, Size};
use crate::scale::threads::Threads;

/// Providers and regions of the relays.
const PROVIDERS: usize = 8;
const REGIONS: usize = 20;
/// Links that change in an epoch, one of so many.
const CHANGING: usize = 100;
/// Sources from which petgraph is measured, one of so many.
const PETGRAPH_SOURCES: usize = 10;
/// Relays of the mesh on which the kernels are compared.
const KERNEL_RELAYS: usize = 300;
/// Seconds until the scheduler's mesh stands.
const SETTLING: u32 = 20;

/// Arguments of `routes`.
#[derive(Debug, Args)]
pub(crate) struct RoutesArgs {
    #[command(flatten)]
    measured: MeasuredArgs,
    /// Relays of the larger mesh.
    #[arg(long, default_value_t = 1_000)]
    relays: u16,
    /// Epochs that are measured of each kind.
    #[arg(long, default_value_t = 5)]
    epochs: usize,
    /// Links that change one by one.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// Draws everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A kind of delays.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Measured,
    Clustered,
    Uniform,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Measured, Self::Clustered, Self::Uniform];

    fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured, resampled",
            Self::Clustered => "clustered",
            Self::Uniform => "uniform",
        }
    }

    fn draw(self, measured: Option<&Rtts>, relays: usize, seed: u64) -> OneWay {
        match self {
            Self::Measured => input::planetlab_resampled(measured, relays, seed),
            Self::Clustered => input::clustered(relays, seed),
            Self::Uniform => input::uniform(relays, seed),
        }
    }
}

/// Measures.
pub(crate) fn run(args: &RoutesArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let measured = args.measured.read()?;
    let relays = if common.quick { args.relays.min(300) } else { args.relays };
    let epochs = if common.quick { 2 } else { args.epochs };
    stage.say(format!("{relays} relays, {}", machine()));
    let mut figures = Figures::default();
    let small = worst(measured.as_ref(), 300.min(relays), epochs, args.seed, stage)?;
    figures.add_measured("best_300_ms_2t", small.best[1], Promise::Reported);
    figures.add_measured("full_300_ms_2t", small.full[1], Promise::Reported);
    if relays > 300 {
        let large = worst(measured.as_ref(), relays, epochs, args.seed, stage)?;
        let key = |name: &str, rest: &str| format!("{name}_{relays}_{rest}");
        figures.add_measured(&key("best", "ms_1t"), large.best[0], Promise::Reported);
        figures.add_measured(&key("best", "ms_2t"), large.best[1], Promise::AtMost(250.0));
        figures.add_measured(&key("full", "ms_1t"), large.full[0], Promise::Reported);
        figures.add_measured(&key("full", "ms_2t"), large.full[1], Promise::AtMost(600.0));
        figures.add_measured(&key("epoch", "ms_2t"), large.epoch, Promise::Reported);
        figures.add_measured(&key("petgraph", "ms"), large.petgraph, Promise::Reported);
    }
    stage.status("kernels".to_owned());
    let [portable, simd] = kernels(measured.as_ref(), epochs, args.seed)?;
    figures.add_measured("kernel_portable_ms", portable, Promise::Reported);
    figures.add_measured("kernel_simd_ms", simd, Promise::Reported);
    let factor = portable.zip(simd).map(|(portable, simd)| portable / simd);
    figures.add_measured("kernel_factor", factor, Promise::Reported);
    let deltas = deltas(relays, args, common, stage)?;
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let promise = if name == "p99" { Promise::AtMost(50.0) } else { Promise::Reported };
        figures.add_measured(
            &format!("delta_{relays}_ms_{name}"),
            percentile(&deltas, share),
            promise,
        );
    }
    Ok(figures)
}

/// Milliseconds for one and for two threads.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    best: [Option<f64>; 2],
    full: [Option<f64>; 2],
    /// On two threads.
    epoch: Option<f64>,
    petgraph: Option<f64>,
}

fn worst(
    measured: Option<&Rtts>,
    relays: u16,
    epochs: usize,
    seed: u64,
    stage: &Stage,
) -> anyhow::Result<Took> {
    let mut worst = Took::default();
    for kind in Kind::ALL {
        if stage.stop().is_set() {
            anyhow::bail!("stopped");
        }
        let delays = kind.draw(measured, usize::from(relays), seed);
        let mesh = Costly::new(&delays, seed)?;
        stage.status(format!("{relays} relays, {}: petgraph", kind.name()));
        let petgraph = petgraph_ms(&mesh.topology);
        stage.status(format!("{relays} relays, {}: best paths", kind.name()));
        let best = mesh.clone().wholes(false, epochs);
        stage.status(format!("{relays} relays, {}: all candidates", kind.name()));
        let full = mesh.clone().wholes(true, epochs);
        stage.status(format!("{relays} relays, {}: changed links", kind.name()));
        let epoch = mesh.epochs(epochs);
        let show = |[one, two]: [Option<f64>; 2]| {
            format!("{:.0} / {:.0} ms", one.unwrap_or(f64::NAN), two.unwrap_or(f64::NAN))
        };
        stage.say(format!(
            "{relays} relays, {:20} one / two threads: best {}, all candidates {}; 1 % of links {:.0} ms; petgraph \
             {petgraph:.0} ms",
            kind.name(),
            show(best),
            show(full),
            epoch.unwrap_or(f64::NAN),
        ));
        let greater = |a: Option<f64>, b: Option<f64>| if a > b { a } else { b };
        for threads in 0..2 {
            worst.best[threads] = greater(worst.best[threads], best[threads]);
            worst.full[threads] = greater(worst.full[threads], full[threads]);
        }
        worst.epoch = greater(worst.epoch, epoch);
        worst.petgraph = greater(worst.petgraph, Some(petgraph));
    }
    Ok(worst)
}

/// Medians of plans of everything on one thread, in milliseconds: with the instructions of every processor of this
/// kind, and with the best that this one has.
fn kernels(measured: Option<&Rtts>, plans: usize, seed: u64) -> anyhow::Result<[Option<f64>; 2]> {
    let mesh = Costly::new(&Kind::Measured.draw(measured, KERNEL_RELAYS, seed), seed)?;
    let config = PlannerConfig::default();
    let mut kernels = [Planner::portable(config), Planner::new(config)]
        .map(|planner| (planner, mesh.clone(), Vec::new()));
    let mut now = Instant::now();
    for (planner, mesh, _) in &mut kernels {
        planner.plan(&mut mesh.topology, &Threads(1), now);
    }
    for _ in 0..plans {
        now += Duration::from_millis(500);
        for (planner, mesh, took) in &mut kernels {
            mesh.toggle_drain()?;
            let began = Instant::now();
            planner.plan(&mut mesh.topology, &Threads(1), now);
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(kernels.map(|(_, _, took)| percentile(&took, 0.5)))
}

/// A mesh whose links differ in everything that costs.
#[derive(Clone)]
struct Costly {
    topology: Topology,
    relays: usize,
    rng: fastrand::Rng,
}

impl Costly {
    fn new(delays: &OneWay, seed: u64) -> anyhow::Result<Self> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let relays = delays.len();
        let mut topology = Topology::new();
        for at in 0..relays {
            let attributes = RelayAttributes {
                provider: format!("provider-{}", rng.usize(..PROVIDERS)),
                region: format!("region-{}", rng.usize(..REGIONS)),
                transit: true,
                draining: false,
            };
            topology.put_relay(input::relay(at), attributes)?;
        }
        let prices: Vec<u32> = (0..relays).map(|_| rng.u32(..5_000)).collect();
        for (from, row) in delays.iter().enumerate() {
            for (to, delay) in row.iter().enumerate() {
                let Some(delay) = delay.filter(|_| from != to) else { continue };
                let mut link = input::clean(delay, delays[to][from].unwrap_or(delay));
                link.price = PricePerGb(prices[from]);
                link.load = Permille(rng.u16(..600));
                link.slow.jitter = Micros(rng.u32(..8_000));
                link.slow.lost = if rng.u32(..50) == 0 { rng.u32(..30) } else { 0 };
                topology.put_link(input::link(from, to), link)?;
            }
        }
        Ok(Self { topology, relays, rng })
    }

    /// Medians of some plans of everything, on one thread and on two, in turn.
    fn wholes(mut self, backups: bool, plans: usize) -> [Option<f64>; 2] {
        let mut planner = Planner::new(PlannerConfig { backups, ..PlannerConfig::default() });
        let threads = [Threads(1), Threads(2)];
        let mut now = Instant::now();
        planner.plan(&mut self.topology, &threads[1], now);
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..plans {
            for (threads, took) in threads.iter().zip(&mut took) {
                self.toggle_drain().expect("the relay is known");
                now += Duration::from_millis(500);
                let began = Instant::now();
                planner.plan(&mut self.topology, threads, now);
                took.push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
        took.map(|took| percentile(&took, 0.5))
    }

    /// One relay begins or ends a drain.
    fn toggle_drain(&mut self) -> anyhow::Result<()> {
        let drained = input::relay(0);
        let mut changed = self.topology.relay(drained).cloned().context("the mesh has relays")?;
        changed.draining = !changed.draining;
        self.topology.put_relay(drained, changed)?;
        Ok(())
    }

    /// Median of some epochs in which some links changed, on two threads.
    fn epochs(mut self, epochs: usize) -> Option<f64> {
        let mut planner = Planner::new(PlannerConfig::default());
        let mut now = Instant::now();
        planner.plan(&mut self.topology, &Threads(2), now);
        let mut took = Vec::new();
        for _ in 0..epochs {
            self.change();
            now += Duration::from_secs(1);
            let began = Instant::now();
            planner.plan(&mut self.topology, &Threads(2), now);
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        percentile(&took, 0.5)
    }

    /// Some links get up to a hundredth slower or faster.
    fn change(&mut self) {
        for _ in 0..self.relays * self.relays / CHANGING {
            let id = input::link(self.rng.usize(..self.relays), self.rng.usize(..self.relays));
            let Some(mut link) = self.topology.link(id).copied() else { continue };
            let by = i64::from(link.slow.rtt.0) / 200;
            let by = if by > 0 { self.rng.i64(-by..=by) } else { 0 };
            link.fast.one_way_diff.0 += by;
            link.slow.one_way_diff.0 += by;
            self.topology.put_link(id, link).expect("the link is known");
        }
    }
}

/// The cost of the best path of any length between all pairs, for all classes, by petgraph.
fn petgraph_ms(topology: &Topology) -> f64 {
    let delays = Delays::fit(topology);
    let mut ms = 0.0;
    for class in Class::ALL {
        let mut graph: DiGraph<RelayId, u32> = DiGraph::new();
        let nodes: Vec<NodeIndex> = topology.relays().map(|(id, _)| graph.add_node(id)).collect();
        for (id, measure) in topology.links() {
            let terms = delays.link(id).and_then(|delay| LinkTerms::of(class, id, measure, delay));
            if let Some(terms) = terms {
                let (from, to) = (nodes[input::row(id.from)], nodes[input::row(id.to)]);
                graph.add_edge(from, to, terms.total().0);
            }
        }
        let began = Instant::now();
        for source in nodes.iter().step_by(PETGRAPH_SOURCES) {
            std::hint::black_box(dijkstra(&graph, *source, None, |edge| *edge.weight()));
        }
        ms += began.elapsed().as_secs_f64() * 1e3;
    }
    ms * 10.0
}

/// Milliseconds from a report of one changed link to the last update.
fn deltas(
    relays: u16,
    args: &RoutesArgs,
    common: &Common,
    stage: &Stage,
) -> anyhow::Result<Vec<f64>> {
    let size = Size { relays, changing: 0.0, threads: 2, demands: 4, seed: args.seed };
    let mut mesh = Mesh::new(size);
    mesh.connect();
    for second in 0..SETTLING {
        stage.status(format!("{relays} relays at the scheduler: second {second} of {SETTLING}"));
        mesh.pass_second();
    }
    let changes = if common.quick { args.changes.min(20) } else { args.changes };
    let mut took = Vec::new();
    for at in 0..changes {
        if stage.stop().is_set() {
            anyhow::bail!("stopped");
        }
        stage.status(format!("one link changes: {at} of {changes}"));
        took.push(mesh.one_link_changes());
    }
    Ok(took)
}
