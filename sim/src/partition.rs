//! Drills of cells: one is cut off from all other relays and from the scheduler while a relay in it fails; one falls
//! apart, so that only its partner joins its relays.
//!
//! Cut off, nothing that its tenant sends from one of its relays to another is lost, and around the failing relay its flows
//! go on as the promise has it.
//! Fallen apart, all of it comes over the partner once that was noticed.

use std::time::Duration;

use overway_wire::{Class, LinkId, RelayId};

use crate::cells::{Cell, SERVICE};
use crate::drill::{Failure, Judged};
use crate::fault::Applied;
use crate::pipe::IDLE_MAX;
use crate::world::{Unrest, World};

/// The cell that is cut off, and the one that falls apart.
pub(crate) const CUT_OFF: usize = 0;
const PARTED: usize = 1;
/// Cut off for so long before a relay fails: its relays have given the scheduler up.
const ALONE: Duration = IDLE_MAX.saturating_add(Duration::from_secs(2));
/// Until a cell that fell apart is joined by its partner, even on links that are probed slowly.
const PARTED_MAX: Duration = Duration::from_secs(5);
/// For so long the frames of such a cell are counted.
const COUNTED: Duration = Duration::from_secs(2);
/// Frames sent before it have arrived after it.
const MARGIN: Duration = Duration::from_millis(1_500);

/// A flow between two relays of a cell, and the number of its next frame.
type Inside = (usize, u64);

impl World {
    /// Holds a drill: a cell is cut off, and the relay over which most of its flows go is frozen or killed meanwhile.
    pub(crate) fn drill_cut_off(&mut self, failure: Failure) {
        let Some(cell) = self.cells.roomy(CUT_OFF).cloned() else { return };
        let inside = self.inside(&cell);
        let applied = self.cut_off(&cell);
        self.say(format_args!("drill: {} relays are cut off", cell.own.1.len()));
        self.run_for(ALONE);
        let last = self.inside(&cell);
        // What is under way to an end at the failing relay is lost with it.
        self.run_for(MARGIN);
        if let Some(failing) = self.busiest_transit(|flow| flow.policy == cell.tenant) {
            let judged = Judged::UntilReturn;
            self.fail(failing, failure, judged, |flow| flow.policy == cell.tenant);
        }
        self.figures.drills_cut_off += 1;
        for (flow, first) in inside {
            let Some(&(_, last)) = last.iter().find(|(other, _)| *other == flow) else { continue };
            if self.all_passed("cut off", flow, (first, last)) {
                self.figures.flows_cut_off += 1;
            }
        }
        self.undo(applied);
    }

    /// Holds a drill: all links between the relays of a cell are cut, which leaves them its partner's.
    pub(crate) fn drill_parted(&mut self) {
        let Some(cell) = self.cells.roomy(PARTED).cloned() else { return };
        let own = |relay: &RelayId| cell.own.1.contains(relay);
        let links = self.network.links().filter(|link| own(&link.from) && own(&link.to));
        let applied = self.cut(links.collect());
        self.say(format_args!("drill: {} relays are parted", cell.own.1.len()));
        self.run_for(PARTED_MAX);
        let inside = self.inside(&cell);
        self.run_for(COUNTED);
        let last = self.inside(&cell);
        self.run_for(MARGIN);
        self.figures.drills_parted += 1;
        for ((flow, first), (_, last)) in inside.into_iter().zip(last) {
            if self.all_passed("parted", flow, (first, last)) {
                self.figures.flows_parted += 1;
            }
        }
        self.undo(applied);
    }

    /// Cuts a cell off from all other relays and from the scheduler.
    pub(crate) fn cut_off(&mut self, cell: &Cell) -> Applied {
        let own = |relay: &RelayId| cell.own.1.contains(relay);
        let links = self.network.links().filter(|link| own(&link.from) != own(&link.to));
        let links: Vec<LinkId> = links.collect();
        links.iter().for_each(|&link| self.network.cut(link));
        let relays: Vec<RelayId> = cell.own.1.iter().copied().collect();
        for &relay in &relays {
            *self.control_cut.entry(relay).or_default() += 1;
        }
        Applied::CutOff { links, relays }
    }

    /// The tenant's flows that are in use between two relays of its own cell.
    fn inside(&self, cell: &Cell) -> Vec<Inside> {
        let inside = |flow: &usize| {
            let flow = &self.flows[*flow];
            let ends = [flow.ends.source, flow.ends.destination].map(|end| end.relay);
            flow.policy == cell.tenant && ends.iter().all(|relay| cell.own.1.contains(relay))
        };
        let inside = self.slots.iter().copied().filter(inside);
        inside.map(|flow| (flow, self.flows[flow].next)).collect()
    }

    fn all_passed(&mut self, what: &str, flow: usize, (first, last): (u64, u64)) -> bool {
        let of = &self.flows[flow];
        let lost = (first..last).filter(|&sequence| !of.has_passed(sequence)).count();
        let (source, destination) = (of.ends.source.relay, of.ends.destination.relay);
        let (id, class, redundancy) = (of.id.0, of.class, of.redundancy.name());
        if lost > 0 || first == last {
            let told = format_args!(
                "{what}: flow {id} ({class}, {redundancy}) from {source} to {destination} inside a cell lost {lost} \
                 of {} frames",
                last - first
            );
            self.watch.violate(self.now, told);
        }
        lost == 0 && first < last
    }

    /// Sends a frame of each tenant between all relays that its cell allows, and from the cell to every other relay;
    /// returns the flows' places: of those that must arrive, and of those that must not.
    pub(crate) fn try_cells(&mut self) -> (Vec<usize>, Vec<usize>) {
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for cell in self.cells.clone().iter() {
            let others = self.sites.keys().filter(|relay| !cell.allowed.1.contains(relay));
            let others: Vec<RelayId> = others.copied().collect();
            let pairs = |to: &[RelayId]| {
                let own = cell.own.1.iter();
                own.flat_map(|&from| to.iter().map(move |&to| (from, to))).collect()
            };
            let allowed: Vec<RelayId> = cell.allowed.1.iter().copied().collect();
            wanted.extend(self.try_of(cell.tenant, pairs(&allowed)));
            unwanted.extend(self.try_of(cell.tenant, pairs(&others)));
        }
        (wanted, unwanted)
    }

    /// Looks at what became of these. Between relays of its own cell a frame goes over no partner's.
    pub(crate) fn judge_cells(&mut self, wanted: Vec<usize>, unwanted: Vec<usize>) {
        let mut wrong = Vec::new();
        for at in wanted {
            let flow = &self.flows[at];
            let (from, to) = (flow.ends.source.relay, flow.ends.destination.relay);
            let cell = self.cells.of_tenant(flow.policy).expect("sent for a cell");
            let own = |relay: &RelayId| cell.own.1.contains(relay);
            match flow.deliveries.back().map(|delivery| delivery.path) {
                None => {
                    wrong.push(format!("in its cell a frame from {from} to {to} did not arrive"));
                }
                Some(path) if own(&to) && !path.elements().iter().all(|step| own(&step.relay)) => {
                    wrong.push(format!("a frame from {from} went by {path} through a partner"));
                }
                Some(_) => {}
            }
        }
        for at in unwanted {
            let flow = &self.flows[at];
            let (from, to) = (flow.ends.source.relay, flow.ends.destination.relay);
            if flow.has_passed(0) {
                wrong.push(format!(
                    "a frame of a cell went from {from} to {to}, which is not of it"
                ));
            }
        }
        let now = self.now;
        wrong.iter().for_each(|what| self.watch.violate(now, format_args!("{what}")));
    }

    /// Whether every relay of a cell and its partner knows who offers the tenant's service, and prefers its own cell's.
    ///
    /// # Errors
    /// Names a relay that does not.
    pub(crate) fn check_records(&self) -> Result<(), Unrest> {
        for cell in self.cells.iter() {
            for relay in &cell.allowed.1 {
                let process = self.sites.get(relay).and_then(|site| site.process.as_ref());
                let Some(process) = process else { continue };
                let class = Class::Interactive;
                let fib = process.core.fib();
                let found = fib.endpoints(cell.tenant, SERVICE, class, *relay, 0);
                let own = found
                    .iter()
                    .filter(|it| cell.own.1.contains(&it.whereabouts.first.relay) && !it.partner);
                if own.count() != cell.own.1.len() || found.len() != cell.own.1.len() {
                    let (found, all) = (found.len(), cell.own.1.len());
                    return Err(Unrest::of(format_args!(
                        "{relay} knows {found} of {all} ends that offer a service in its cell"
                    )));
                }
            }
        }
        Ok(())
    }
}
