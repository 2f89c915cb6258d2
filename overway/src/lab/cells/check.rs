//! `overway lab --cells --check`: what is promised of cells.

use std::time::Duration;

use super::cut_off::{CutOff, cut_off};
use super::fall::{Fall, fall};
use super::inside::{Inside, Others, inside};
use super::{Cell, Cells, Running};
use crate::lab::check::EXCESS_MS_MAX;
use crate::lab::drills;
use crate::lab::figures::{Figures, Promise};
use crate::lab::stage::Stage;
use crate::lab::world::World;

/// An edge notices after three seconds that all its relays are silent; one of a partner may refuse it once, for five,
/// if it has not noticed yet that the cell is gone.
const ATTACHED_S_MAX: f64 = 15.0;
/// The same, and each end of the tenant's sessions, which is elsewhere at once with the other, is found again.
const SESSIONS_S_MAX: f64 = 20.0;
/// A partner's relay asks its edges to leave at once, and has them leave after 30 s.
const RETURN_S_MAX: f64 = 45.0;
/// How long edges may take to attach twice, and relays to be told of the services that these offer.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);

/// Runs every drill.
///
/// # Errors
/// Something did not come up or come back, or the lab was stopped.
pub(in crate::lab) fn check(
    world: &World,
    stage: &Stage,
    Cells { cells, .. }: &Cells,
) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    report_edges(&mut figures, world, stage, cells)?;
    report_records(&mut figures, world, stage, cells)?;
    let (alone, falling) = victims(cells);
    let running = Running::start(world, stage, cells)?;
    report_cut_off(&mut figures, &cut_off(&running, alone)?);
    report_mixed(&mut figures, &running);
    drop(running);

    // From here on one tenant at a time: an edge that is dead is the only one that surely sends nothing.
    cells.iter().try_for_each(|cell| cell.stop(world))?;
    let mut found = Vec::new();
    for (at, cell) in cells.iter().enumerate() {
        let others = Others::idle(world, stage, &cell.group)?;
        cell.start(world, stage)?;
        let running = Running::start(world, stage, std::slice::from_ref(cell))?;
        found.push(inside(&running, &others)?);
        if at == falling {
            let fall = fall(&running)?;
            report_fall(&mut figures, &fall, others.outside(world, &cell.group)?);
        }
        cell.stop(world)?;
    }
    report_inside(&mut figures, &found);
    Ok(figures)
}

/// The cell that is cut off, without partners if there is one such, and the one whose relays die.
fn victims(cells: &[Cell]) -> (usize, usize) {
    let has_partner = |cell: &Cell| !cell.group.partners.is_empty();
    let falling = cells.iter().position(has_partner).unwrap_or_default();
    let alone = cells.iter().position(|cell| !has_partner(cell));
    (alone.unwrap_or(usize::from(falling == 0)), falling)
}

/// Where the edges are, and that they tried a relay that is of neither their cell nor a partner.
fn report_edges(
    figures: &mut Figures,
    world: &World,
    stage: &Stage,
    cells: &[Cell],
) -> anyhow::Result<()> {
    let attached = || cells.iter().filter(|cell| cell.is_home(world)).count();
    let all = || attached() == cells.len();
    drills::until(stage, SETTLE_TIME_MAX, "edges attach twice", all)?;
    let all: Vec<usize> = (0..world.profile().relays().len()).collect();
    let refused = world.refused_for_cell(&all)?;
    let strangers = cells.iter().filter(|cell| !cell.group.outside.is_empty()).count();
    figures.add("cells", cells.len() as f64, Promise::Reported);
    figures.add("attached_inside", attached() as f64, Promise::AtLeast(cells.len() as f64));
    figures.add("attachments_refused_outside", refused as f64, Promise::AtLeast(strangers as f64));
    Ok(())
}

/// Who is told which edges offer the tenants' services.
fn report_records(
    figures: &mut Figures,
    world: &World,
    stage: &Stage,
    cells: &[Cell],
) -> anyhow::Result<()> {
    let allowed = |cell: &Cell| [&cell.group.relays[..], &cell.group.partners].concat();
    let told = |of: &dyn Fn(&Cell) -> Vec<usize>| -> anyhow::Result<usize> {
        cells.iter().map(|cell| world.told_of(&cell.group.name, &of(cell))).sum()
    };
    let due: usize = cells.iter().map(|cell| allowed(cell).len()).sum();
    let all_told = || told(&allowed).is_ok_and(|told| told == due);
    drills::until(stage, SETTLE_TIME_MAX, "relays are told of services", all_told)?;
    let (inside, outside) = (told(&allowed)?, told(&|cell| cell.group.outside.clone())?);
    figures.add("records_told_inside", inside as f64, Promise::AtLeast(due as f64));
    figures.add("records_told_outside", outside as f64, Promise::Zero);
    stage.say(format!(
        "{inside} of {due} times a relay of a tenant's cell or its partner knows who offers its service, {outside} times \
         another relay does"
    ));
    Ok(())
}

fn report_cut_off(figures: &mut Figures, found: &CutOff) {
    let lost = found.felt.map(|felt| felt.lost as f64);
    let gap = found.felt.map(|felt| felt.gap_ms());
    figures.add("cut_off_known_s", found.noticed.as_secs_f64(), Promise::Reported);
    figures.add_measured("cut_off_lost", lost, Promise::AtMost(0.0));
    figures.add_measured("cut_off_gap_ms_max", gap, Promise::Reported);
    let bound = Promise::AtMost(EXCESS_MS_MAX);
    figures.add_measured("cut_off_excess_ms_max", found.excess_ms, bound);
    let stall = found.file.stall.as_secs_f64() * 1e3;
    figures.add("cut_off_stall_ms_max", stall, Promise::Reported);
    figures.add("cut_off_streams_ok", found.is_whole(), Promise::True);
}

/// Whether the tenants' servers, behind services of one name, had their own tenants' flows alone, each frame once.
fn report_mixed(figures: &mut Figures, running: &Running<'_>) {
    let foreign: u64 = running.cells.iter().map(|cell| cell.sink.foreign()).sum();
    let duplicates: u64 = running.flows.iter().map(|flows| flows.duplicates(0)).sum();
    figures.add("mixed_frames", foreign as f64, Promise::Zero);
    figures.add("duplicates", duplicates as f64, Promise::Zero);
}

fn report_fall(figures: &mut Figures, found: &Fall, touched_outside: u64) {
    let mut within = |name: &str, span: Option<Duration>, most| {
        figures.add_measured(name, span.map(|it| it.as_secs_f64()), Promise::AtMost(most));
    };
    within("fall_attached_s", found.attached, ATTACHED_S_MAX);
    within("fall_answered_s", found.answered, SESSIONS_S_MAX);
    within("fall_flow_s", found.flowed, SESSIONS_S_MAX);
    within("return_s", found.back, RETURN_S_MAX);
    let stall = found.file.stall.as_secs_f64();
    figures.add("fall_stall_s_max", stall, Promise::Reported);
    figures.add("fall_stream_ok", found.file.is_whole(), Promise::True);
    figures.add("fall_touched_outside", touched_outside as f64, Promise::Zero);
    figures.add("fall_told_outside", found.told_outside as f64, Promise::Zero);
}

fn report_inside(figures: &mut Figures, found: &[Inside]) {
    let sum = |of: fn(&Inside) -> u64| found.iter().map(of).sum::<u64>() as f64;
    let least = found.iter().map(|it| it.frames).min().unwrap_or(0);
    figures.add("whole_frames_arrived_min", least as f64, Promise::AtLeast(1.0));
    figures.add("whole_touched_outside", sum(|it| it.outside), Promise::Zero);
    // A machine that makes links within a cell fail has its partner stand in.
    figures.add("whole_touched_partners", sum(|it| it.partners), Promise::AtMost(0.0));
    let leave = sum(|it| u64::from(it.others_leave));
    figures.add("whole_cells_others_would_leave", leave, Promise::Reported);
    let whole = found.iter().all(|it| it.fetched.is_whole());
    figures.add("whole_streams_ok", whole, Promise::True);
}
