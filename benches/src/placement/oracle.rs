//! The linear program behind a placement, solved exactly by a simplex method.

use std::collections::BTreeMap;

use anyhow::Context;
use microlp::{ComparisonOp, OptimizationDirection, SolveOutcome, Variable};
use overway_topology::{Demand, PathOption, Problem, Resource};
use overway_wire::LinkId;

/// The unit of rates, and that of costs: coefficients shall be near one.
const MBPS: f64 = 1e6;
const MS: f64 = 1e3;

/// The least sum of rate x cost with nothing above its capacity, in bit/s x us; `None` if there is not
/// room for all.
pub(crate) fn least_cost(problem: &Problem) -> anyhow::Result<Option<f64>> {
    let mut program = Program::new(problem, OptimizationDirection::Minimize, |option| {
        f64::from(option.cost.0) / MS
    });
    program.demands(problem, ComparisonOp::Eq);
    match program.solver.solve() {
        Ok(outcome) => {
            let solution = solved(outcome)?;
            Ok(Some(solution.objective() * MBPS * MS))
        }
        Err(microlp::Error::Infeasible) => Ok(None),
        Err(error) => Err(error).context("the least cost"),
    }
}

/// How much of each demand is placed if as much as possible is, in bit/s.
pub(crate) fn most_placed(problem: &Problem) -> anyhow::Result<Vec<f64>> {
    let mut program = Program::new(problem, OptimizationDirection::Maximize, |_| 1.0);
    program.demands(problem, ComparisonOp::Le);
    let outcome = program.solver.solve().context("what can be placed")?;
    let solution = solved(outcome)?;
    let placed = program.options.iter().map(|options| {
        options.iter().map(|&option| solution.var_value(option)).sum::<f64>() * MBPS
    });
    Ok(placed.collect())
}

/// The resources that an option fills, once each.
pub(crate) fn resources(demand: &Demand, option: &PathOption) -> Vec<Resource> {
    let mut from = demand.key.source;
    let mut filled = Vec::new();
    for step in option.path.elements() {
        filled.extend(Resource::on(LinkId::new(from, step.relay, step.link)));
        from = step.relay;
    }
    filled.sort_unstable();
    filled.dedup();
    filled
}

struct Program {
    solver: microlp::Problem,
    /// The rate that each demand sends over each option.
    options: Vec<Vec<Variable>>,
}

impl Program {
    /// Variables, and the capacities.
    fn new(
        problem: &Problem,
        direction: OptimizationDirection,
        worth: impl Fn(&PathOption) -> f64,
    ) -> Self {
        let mut solver = microlp::Problem::new(direction);
        let mut loads: BTreeMap<Resource, Vec<(Variable, f64)>> = BTreeMap::new();
        let mut options = Vec::new();
        for demand in problem.demands() {
            let mut variables = Vec::new();
            for option in &demand.options {
                let variable = solver.add_var(worth(option), (0.0, f64::INFINITY));
                variables.push(variable);
                for resource in resources(demand, option) {
                    loads.entry(resource).or_default().push((variable, 1.0));
                }
            }
            options.push(variables);
        }
        for (resource, load) in loads {
            if let Some(capacity) = problem.capacity(resource) {
                solver.add_constraint(load, ComparisonOp::Le, capacity.0 as f64 / MBPS);
            }
        }
        Self { solver, options }
    }

    fn demands(&mut self, problem: &Problem, relation: ComparisonOp) {
        for (demand, options) in problem.demands().iter().zip(&self.options) {
            let sum = options.iter().map(|&option| (option, 1.0));
            self.solver.add_constraint(sum, relation, demand.rate.0 as f64 / MBPS);
        }
    }
}

fn solved(outcome: SolveOutcome) -> anyhow::Result<microlp::Solution> {
    outcome.into_solution().ok().context("the solver was interrupted without a time limit")
}
