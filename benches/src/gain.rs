//! `gain`: how much the planner's paths gain over the direct ones on measured round trips, and whether they
//! are the cheapest.
//!
//! The file's halves become the one-way delays of a mesh that is clean and idle; the product's planner plans it once,
//! with one intermediate allowed and with two. Every chosen path is then held against
//!
//! - the direct link, in the file's own terms: how many ordered pairs are improved, and by how much;
//! - the cheapest path with the same number of intermediates, found by another search on the same link costs, for all
//!   three classes: `cost_above_exact_max` is the greatest difference, in microseconds, and must be 0;
//! - the cheapest path of any length, by petgraph's Dijkstra on the same link costs.
//!
//! A link costs its delay, 0.2 ms for a relay's work and up to 0.13 ms by lot, so the planner takes no detour that saves
//! less than that. Gains are therefore given three times: of the paths chosen as in production (`chosen_*`); of the
//! paths that the same planner chooses when all delays are stretched until the rest is nothing beside them, which is by
//! delay alone (no prefix); and of the shortest paths by the other search (`exact_*`), which the second are to meet.

use std::time::Instant;

use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::percentile;
use overway::lab::stage::Stage;
use overway_topology::{Delays, LinkTerms, Planner, PlannerConfig, RouteKey, Sequential, Topology};
use overway_wire::{Class, Micros, PolicyId};
use petgraph::algo::dijkstra;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::common::{self, Common};
use crate::exact::{self, NONE, Square};
use crate::input::{self, MeasuredArgs, OneWay};

/// Relays of the synthetic mesh, if no file is given.
const SYNTHETIC: usize = 90;
/// By how much delays are stretched for choosing by delay alone, and what the longest may become then: what a link may
/// cost at most is 268 s.
const STRETCH: u32 = 100;
const STRETCHED_MAX: Micros = Micros(200_000_000);
/// How close the planner's share of improved pairs is to come to the exact one, by delay alone. What remains of a
/// relay's work decides between near-ties.
const IMPROVED_WITHIN: f64 = 0.002;
/// What users begin to notice.
const TEN_MS: f64 = 10.0;

/// Arguments of `gain`.
#[derive(Debug, Args)]
pub(crate) struct GainArgs {
    #[command(flatten)]
    measured: MeasuredArgs,
    /// Seed of the mesh that stands in where no file is given.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What is known of one number of intermediates.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    /// Of the shortest paths.
    exact: Gains,
    /// Of the planner's paths by delay alone.
    by_delay: Gains,
    /// Of the planner's paths.
    chosen: Gains,
    /// Greatest excess over the cheapest path within the bound, over all classes, in microseconds.
    above_exact_us: u64,
    /// Excess over the cheapest path of any length, as a share, of each pair.
    above_unbounded: Vec<f64>,
    /// Ordered pairs for which the planner has no path, though there is one within the bound.
    pairs_missed: usize,
}

/// Gains over the direct link, in ms, of every ordered pair that has one.
#[derive(Clone, Debug, Default, PartialEq)]
struct Gains(Vec<f64>);

impl Gains {
    fn pairs(&self) -> f64 {
        self.0.len() as f64
    }

    fn improved_share(&self) -> Option<f64> {
        self.share(|gain| gain > 0.0)
    }

    /// The median of those that gain at all.
    fn median_ms(&self) -> Option<f64> {
        let improved: Vec<f64> = self.0.iter().copied().filter(|gain| *gain > 0.0).collect();
        percentile(&improved, 0.5)
    }

    fn share(&self, counts: impl Fn(f64) -> bool) -> Option<f64> {
        let count = self.0.iter().filter(|gain| counts(**gain)).count();
        (!self.0.is_empty()).then(|| count as f64 / self.pairs())
    }
}

/// Measures, prints the table, and returns the figures.
pub(crate) fn run(args: &GainArgs, _common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let (lengths, delays) = match args.measured.read()? {
        Some(rtts) => (lengths(&rtts.cells), rtts.one_way()),
        None => {
            let delays = input::clustered(SYNTHETIC, args.seed);
            stage.say(format!("no file given: {SYNTHETIC} relays of a clustered mesh, one-way"));
            (lengths(&delays), delays)
        }
    };
    stage.say(format!("{} relays, {}", delays.len(), common::machine()));
    let rows = [1, 2].map(|intermediates| row(&lengths, &delays, intermediates));
    let rows = rows.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    for line in table(&rows) {
        stage.say(line);
    }
    Ok(figures(&rows))
}

fn lengths(cells: &OneWay) -> Square {
    let mut lengths = Square::new(cells.len());
    for (from, row) in cells.iter().enumerate() {
        for (to, cell) in row.iter().enumerate() {
            lengths.set(from, to, cell.map_or(NONE, |us| u64::from(us.0)));
        }
    }
    lengths
}

/// Plans and judges with at most so many intermediates. `lengths` are in the file's terms, in microseconds.
fn row(lengths: &Square, delays: &OneWay, intermediates: u8) -> anyhow::Result<Row> {
    let links_max = usize::from(intermediates) + 1;
    let mut row = Row { exact: exact_gains(lengths, links_max), ..Row::default() };
    let (planner, topology) = planned(&stretched(delays), intermediates)?;
    row.by_delay = gains(&planner, lengths);
    judge(&mut row, &planner, &topology, links_max);
    let (planner, topology) = planned(delays, intermediates)?;
    row.chosen = gains(&planner, lengths);
    judge(&mut row, &planner, &topology, links_max);
    row.above_unbounded = above_unbounded(&planner, &topology);
    Ok(row)
}

fn planned(delays: &OneWay, intermediates: u8) -> anyhow::Result<(Planner, Topology)> {
    let mut topology = input::topology(delays)?;
    let config = PlannerConfig { intermediates_max: intermediates, ..PlannerConfig::default() };
    let mut planner = Planner::new(config);
    planner.plan(&mut topology, &Sequential, Instant::now());
    Ok((planner, topology))
}

/// Longer delays in the same proportions.
fn stretched(delays: &OneWay) -> OneWay {
    let longest = delays.iter().flatten().flatten().max().map_or(1, |delay| delay.0.max(1));
    let factor = (STRETCHED_MAX.0 / longest).clamp(1, STRETCH);
    let stretch =
        |delay: &Option<Micros>| delay.map(|delay| Micros(delay.0.saturating_mul(factor)));
    delays.iter().map(|row| row.iter().map(stretch).collect()).collect()
}

/// Holds every path, of every class, against the cheapest with as many links.
fn judge(row: &mut Row, planner: &Planner, topology: &Topology, links_max: usize) {
    for class in Class::ALL {
        let costs = link_costs(topology, class);
        let best = exact::cheapest(&costs, links_max);
        for (from, to) in pairs(costs.count()) {
            match chosen(planner, from, to, class) {
                Some(rows) => {
                    let excess = costs.along(&rows).abs_diff(best.at(from, to));
                    row.above_exact_us = row.above_exact_us.max(excess);
                }
                None => row.pairs_missed += usize::from(best.at(from, to) < NONE),
            }
        }
    }
}

/// In a clean and idle mesh all classes cost the same: realtime stands for them.
fn above_unbounded(planner: &Planner, topology: &Topology) -> Vec<f64> {
    let costs = link_costs(topology, Class::Realtime);
    let unbounded = unbounded(&costs);
    let above = pairs(costs.count()).filter_map(|(from, to)| {
        let rows = chosen(planner, from, to, Class::Realtime)?;
        Some(costs.along(&rows) as f64 / unbounded.at(from, to).max(1) as f64 - 1.0)
    });
    above.collect()
}

/// What the paths in use gain over direct links.
fn gains(planner: &Planner, lengths: &Square) -> Gains {
    let direct = pairs(lengths.count()).filter(|&(from, to)| lengths.at(from, to) < NONE);
    let gain = |(from, to)| {
        let rows = chosen(planner, from, to, Class::Realtime)?;
        Some(gain_ms(lengths.at(from, to), lengths.along(&rows)))
    };
    Gains(direct.filter_map(gain).collect())
}

fn exact_gains(lengths: &Square, links_max: usize) -> Gains {
    let best = exact::cheapest(lengths, links_max);
    let direct = pairs(lengths.count()).filter(|&(from, to)| lengths.at(from, to) < NONE);
    Gains(direct.map(|(from, to)| gain_ms(lengths.at(from, to), best.at(from, to))).collect())
}

fn gain_ms(direct_us: u64, path_us: u64) -> f64 {
    (direct_us as f64 - path_us as f64) / 1e3
}

/// The rows of the path in use, if there is a route.
fn chosen(planner: &Planner, from: usize, to: usize, class: Class) -> Option<Vec<usize>> {
    let (source, destination) = (input::relay(from), input::relay(to));
    let key = RouteKey { source, destination, class, policy: PolicyId::default() };
    Some(exact::rows(source, planner.candidates(key).first()?))
}

/// What each link costs a class.
fn link_costs(topology: &Topology, class: Class) -> Square {
    let delays = Delays::fit(topology);
    let mut costs = Square::new(topology.relays().len());
    for (id, measure) in topology.links() {
        let terms = delays.link(id).and_then(|delay| LinkTerms::of(class, id, measure, delay));
        if let Some(terms) = terms {
            costs.set(input::row(id.from), input::row(id.to), u64::from(terms.total().0));
        }
    }
    costs
}

/// The least cost of any path, by petgraph.
fn unbounded(costs: &Square) -> Square {
    let count = costs.count();
    let edges = pairs(count).filter(|&(from, to)| costs.at(from, to) < NONE);
    let edges = edges.map(|(from, to)| (node(from), node(to), costs.at(from, to)));
    let graph = DiGraph::<(), u64>::from_edges(edges);
    let mut best = Square::new(count);
    for from in 0..count.min(graph.node_count()) {
        for (to, cost) in dijkstra(&graph, node(from), None, |edge| *edge.weight()) {
            best.set(from, to.index(), cost);
        }
    }
    best
}

fn node(row: usize) -> NodeIndex {
    NodeIndex::new(row)
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count * count).map(move |at| (at / count, at % count)).filter(|(from, to)| from != to)
}

fn table(rows: &[Row]) -> Vec<String> {
    let mut lines = vec![
        "gain over the direct link, in the file's terms, with at most so many intermediates:"
            .to_owned(),
        "  chosen    by the planner, for which a link costs its delay and 0.2 to 0.33 ms"
            .to_owned(),
        "  by delay  by the planner, delays stretched until these 0.33 ms are nothing".to_owned(),
        "  exact     the shortest path, by another search".to_owned(),
        format!(
            "{:>13}  {:8}  {:>8}  {:>9}  {:>8}  {:>11}  {:>14}",
            "intermediates",
            "",
            "improved",
            "median ms",
            ">= 10 ms",
            "above exact",
            "above any path"
        ),
    ];
    for (at, row) in rows.iter().enumerate() {
        let above = text(percentile(&row.above_unbounded, 0.999), 5);
        let beside = format!("{:>8} us  {above:>14}", row.above_exact_us);
        let kinds = [("chosen", &row.chosen), ("by delay", &row.by_delay), ("exact", &row.exact)];
        for (line, (name, gains)) in kinds.into_iter().enumerate() {
            let shares = [gains.improved_share(), gains.share(|gain| gain >= TEN_MS)];
            let [improved, much] = shares.map(|share| text(share, 3));
            let median = text(gains.median_ms(), 1);
            let beside = if line == 0 { beside.as_str() } else { "" };
            let line = format!(
                "{:>13}  {name:8}  {improved:>8}  {median:>9}  {much:>8}  {beside}",
                at + 1
            );
            lines.push(line.trim_end().to_owned());
        }
    }
    lines
}

fn text(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

/// The row of one intermediate has the plain names, that of two `_2` at their ends.
fn figures(rows: &[Row]) -> Figures {
    let mut figures = Figures::default();
    for (row, suffix) in rows.iter().zip(["", "_2"]) {
        let mut add = |name: &str, value, promise| {
            figures.add_measured(&format!("{name}{suffix}"), value, promise);
        };
        let reported = Promise::Reported;
        let exact = row.exact.improved_share().unwrap_or(f64::NAN);
        add("pairs", Some(row.exact.pairs()), reported);
        for (kind, gains, promise) in [
            ("", &row.by_delay, Promise::Near(exact, IMPROVED_WITHIN)),
            ("exact_", &row.exact, reported),
            ("chosen_", &row.chosen, reported),
        ] {
            add(&format!("{kind}improved_share"), gains.improved_share(), promise);
            add(&format!("{kind}median_gain_ms"), gains.median_ms(), reported);
            add(&format!("{kind}gain_10ms_share"), gains.share(|gain| gain >= TEN_MS), reported);
        }
        add("pairs_missed", Some(row.pairs_missed as f64), Promise::AtMost(0.0));
        add("cost_above_exact_max", Some(row.above_exact_us as f64), Promise::AtMost(0.0));
        let above = percentile(&row.above_unbounded, 0.999);
        add("cost_above_unbounded_p999", above, reported);
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0 to 1 is best over 2 and 3; 1 to 0 is not measured.
    fn delays() -> OneWay {
        let us = |row: [u32; 4]| row.map(|us| (us > 0).then_some(Micros(us))).to_vec();
        vec![
            us([0, 90_000, 10_000, 60_000]),
            us([0, 0, 30_000, 30_000]),
            us([30_000, 40_000, 0, 10_000]),
            us([30_000, 10_000, 10_000, 0]),
        ]
    }

    #[test]
    fn gains_are_of_the_shortest_paths_with_as_many_intermediates() {
        let lengths = lengths(&delays());

        let [one, two] = [2, 3].map(|links_max| exact_gains(&lengths, links_max));

        assert_eq!(one.0[0], 40.0);
        assert_eq!(two.0[0], 60.0);
        assert_eq!(one.pairs(), 11.0);
    }

    #[test]
    fn medians_are_of_what_gains_at_all() {
        let gains = Gains(vec![0.0, 0.0, 5.0, 20.0, -1.0]);

        assert_eq!(gains.median_ms(), Some(5.0));
        assert_eq!(gains.improved_share(), Some(0.4));
        assert_eq!(Gains::default().improved_share(), None);
    }

    #[test]
    fn the_planner_meets_the_exact_search_within_two_intermediates() {
        let delays = input::clustered(15, 3);
        let row = row(&lengths(&delays), &delays, 2).unwrap();

        assert_eq!((row.above_exact_us, row.pairs_missed), (0, 0));
        assert!(row.chosen.improved_share() <= row.exact.improved_share());
        assert!(row.above_unbounded.iter().all(|above| *above >= 0.0));
    }

    #[test]
    fn figures_have_the_names_that_are_promised() {
        let figures = figures(&[Row::default(), Row::default()]);

        let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
        for name in [
            "pairs",
            "improved_share",
            "median_gain_ms",
            "gain_10ms_share",
            "cost_above_exact_max",
            "cost_above_unbounded_p999",
            "improved_share_2",
        ] {
            assert!(names.contains(&name), "{name}");
        }
    }
}
