//! A run: from nothing to a mesh at rest, single failures, a storm, and rest again.

use std::time::{Duration, Instant};

use crate::drill::Failure;
use crate::figures::Figures;
use crate::rng::micros;
use crate::scenario::{Sabotage, Scenario};
use crate::watch::Violation;
use crate::world::{Unrest, World};

/// How often the mesh is looked at while it comes to rest. No divisor of the scheduler's interval, so that
/// not every look finds an update on its way.
const LOOK: Duration = Duration::from_millis(370);
/// Between two drills: links that failed are up again, and paths have moved away from them.
const DRILL_REST_MAX: Duration = Duration::from_secs(12);
/// Any frame between two relays arrives by then.
const TRIAL: Duration = Duration::from_secs(2);

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of everything that happened.
    pub hash: u64,
    /// Counts.
    pub figures: Figures,
    /// What must not happen and did; empty if the seed passes.
    pub violations: Vec<Violation>,
}

/// Runs a seed. `base` is where virtual time starts; `lines` takes the trace's text, if wanted.
pub fn run(
    scenario: &Scenario,
    seed: u64,
    base: Instant,
    lines: Option<&mut dyn FnMut(&str)>,
) -> Outcome {
    let world = World::new(scenario.clone(), seed, lines.is_some(), base);
    let mut run = Run { world, lines };
    run.through();
    let Run { world, .. } = run;
    Outcome {
        hash: world.trace.hash(),
        figures: world.figures,
        violations: world.violations().to_vec(),
    }
}

struct Run<'a> {
    world: World,
    lines: Option<&'a mut dyn FnMut(&str)>,
}

impl Run<'_> {
    fn through(&mut self) {
        let scenario = self.world.scenario.clone();
        self.pass(scenario.warm_up / 2);
        self.world.open_flows();
        self.pass(scenario.warm_up / 2);
        self.until_whole(DRILL_REST_MAX, "before the drills");
        for drill in 0..scenario.drills {
            let failure = if drill % 2 == 0 { Failure::Freeze } else { Failure::Kill };
            // Two of three fail an access relay, where ends have another.
            if scenario.attached_twice && drill % 3 < 2 {
                self.world.drill_access(failure);
            } else {
                self.world.drill(failure);
            }
            self.until_whole(DRILL_REST_MAX, "after a drill");
            self.print();
        }
        self.drill_cells();
        self.world.plan_storm();
        let began = self.world.begin_losses();
        self.pass(scenario.storm + Duration::from_millis(1));
        let lossy = self.world.end_losses(&began);
        self.world.sabotage();
        self.rest(&scenario);
        self.world.judge_losses(&lossy);
        self.try_pairs();
        self.world.close_books();
        self.print();
    }

    /// One cell is cut off, another falls apart.
    fn drill_cells(&mut self) {
        if !self.world.scenario.cells {
            return;
        }
        // As after a storm: all links between two parts of the mesh come back at once.
        let reach = self.world.scenario.reach_bound;
        for failure in [Failure::Freeze, Failure::Kill] {
            self.world.drill_cut_off(failure);
            self.until_whole(reach, "after a cell was cut off");
            self.print();
        }
        self.world.drill_parted();
        self.until_whole(reach, "after a cell fell apart");
        self.print();
    }

    fn pass(&mut self, span: Duration) {
        let end = self.world.now + span;
        while self.world.now < end {
            self.world.run_for(LOOK.min(end - self.world.now));
            self.print();
        }
    }

    fn print(&mut self) {
        let new = self.world.trace.take_lines();
        if let Some(lines) = &mut self.lines {
            new.for_each(|line| lines(&line));
        }
    }

    /// Waits until nothing is amiss, for so long at most.
    fn until_whole(&mut self, at_most: Duration, when: &str) {
        let whole = self.until(at_most, World::check_whole);
        if let Err(unrest) = whole {
            let now = self.world.now;
            self.world.watch.violate(now, format_args!("{when}: {unrest}"));
        }
    }

    /// Looks again and again; returns how long it took.
    fn until(
        &mut self,
        at_most: Duration,
        check: impl Fn(&World) -> Result<(), Unrest>,
    ) -> Result<Duration, Unrest> {
        let began = self.world.now;
        let mut told = None;
        loop {
            let took = self.world.now - began;
            match check(&self.world) {
                Ok(()) => return Ok(took),
                Err(unrest) if took >= at_most => return Err(unrest),
                Err(unrest) => {
                    if told.as_ref() != Some(&unrest) {
                        self.world.say(format_args!("not at rest: {unrest}"));
                        told = Some(unrest);
                    }
                    self.pass(LOOK);
                }
            }
        }
    }

    /// After the storm.
    fn rest(&mut self, scenario: &Scenario) {
        let began = self.world.now;
        match self.until_calm(scenario.reach_bound) {
            Ok(took) => self.world.figures.reach_ms_max = micros(took) / 1_000,
            Err(unrest) => {
                let now = self.world.now;
                let bound = scenario.reach_bound;
                return self.world.watch.violate(
                    now,
                    format_args!("not whole {bound:?} after the last fault: {unrest}"),
                );
            }
        }
        let left = scenario.settle_bound.saturating_sub(self.world.now - began);
        match self.until(left, |world| world.check_whole().and_then(|()| world.check_best())) {
            Ok(_) => {
                let took = self.world.now - began;
                self.world.figures.settle_ms_max = micros(took) / 1_000;
            }
            Err(unrest) => {
                let now = self.world.now;
                let bound = scenario.settle_bound;
                self.world.watch.violate(
                    now,
                    format_args!("not settled {bound:?} after the last fault: {unrest}"),
                );
            }
        }
    }

    /// Until the mesh is whole and no frame takes a detour for as long as a look.
    fn until_calm(&mut self, at_most: Duration) -> Result<Duration, Unrest> {
        let began = self.world.now;
        loop {
            let left = at_most.saturating_sub(self.world.now - began);
            self.until(left, World::check_whole)?;
            let took = self.world.now - began;
            let before = self.world.detours();
            self.pass(LOOK);
            if self.world.detours() == before {
                return Ok(took);
            }
            if took >= at_most {
                return Err(Unrest::detours());
            }
        }
    }

    /// Sends a frame between every ordered pair; each must arrive.
    fn try_pairs(&mut self) {
        let tried = self.world.try_pairs();
        let (wanted, unwanted) = self.world.try_cells();
        self.pass(TRIAL);
        self.world.judge_cells(wanted, unwanted);
        let now = self.world.now;
        for flow in &self.world.flows[tried] {
            if !flow.has_passed(0) {
                let (from, to) = (flow.ends.source.relay, flow.ends.destination.relay);
                let what = format_args!("a frame from {from} to {to} did not arrive");
                self.world.watch.violate(now, what);
            }
        }
    }
}

impl World {
    /// Makes wrong what the scenario wants wrong after the storm.
    fn sabotage(&mut self) {
        match self.scenario.sabotage {
            Some(Sabotage::LastingCut) => {
                let links = self.network.links();
                let links = links.filter(|link| link.from.0 == 1 || link.to.0 == 1).collect();
                self.cut(links);
            }
            Some(Sabotage::DeafRelay) => {
                self.control_cut.insert(overway_wire::RelayId(1), u32::MAX / 2);
            }
            Some(
                Sabotage::NoReplayWindow
                | Sabotage::NoAlternate
                | Sabotage::OpenCells
                | Sabotage::UnnamedCells,
            )
            | None => {}
        }
    }
}
