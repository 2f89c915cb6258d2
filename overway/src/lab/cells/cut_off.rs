//! A cell is cut off from all other relays and from the scheduler, and goes on inside.

use std::time::Duration;

use anyhow::bail;

use super::Running;
use crate::lab::drills;
use crate::lab::flow::{Felt, felt};
use crate::lab::transfer::Fetched;
use crate::lab::world::Node;

/// Arrivals from this long before tell the path's delay before.
const BEFORE_NS: u64 = 2_000_000_000;
/// How long relays may take to notice: they give a silent scheduler up after eight seconds.
const NOTICED_MAX: Duration = Duration::from_secs(30);
/// How long they take on a machine that is well.
const NOTICED: Duration = Duration::from_secs(9);
/// How long the cell stays cut off once it knows.
const ALONE: Duration = Duration::from_secs(5);
/// How long the file runs before the cut.
const LEAD: Duration = Duration::from_secs(2);
/// A file that is asked for while the cell is alone.
const FRESH: Duration = Duration::from_secs(1);
/// More than any of these takes.
const FILE_TIME_MAX: Duration = Duration::from_secs(60);

/// What a cell's tenant felt while it was cut off.
#[derive(Clone, Debug)]
pub(super) struct CutOff {
    /// How long until each of its relays knew that it was.
    pub(super) noticed: Duration,
    /// Its flow, from before the cut on; `None` if nothing came.
    pub(super) felt: Option<Felt>,
    /// See [`Felt::excess_ms`]: nothing of its path is to blame.
    pub(super) excess_ms: Option<f64>,
    /// A file that was on its way.
    pub(super) file: Fetched,
    /// One that an edge asked for which was started meanwhile.
    pub(super) fresh: Fetched,
    /// One of each other tenant, asked for meanwhile.
    pub(super) others: Vec<Fetched>,
}

/// Cuts a cell off until it has been alone for a while, and starts its consumer anew before it is joined again.
///
/// # Errors
/// The cell does not notice, does not come back, or the lab was stopped.
pub(super) fn cut_off(running: &Running<'_>, at: usize) -> anyhow::Result<CutOff> {
    let Running { world, stage, cells, ref flows } = *running;
    let (cell, flows) = (&cells[at], &flows[at]);
    let (name, relays) = (&cell.group.name, &cell.group.relays);
    let fetch = cell.file(world, LEAD + NOTICED + ALONE)?;
    drills::wait(stage, LEAD, "a file comes")?;
    let start = flows.now();
    world.cut_off(relays)?;
    let about = format!("{name} is cut off from all other relays and the scheduler");
    let noticed = drills::until(stage, NOTICED_MAX, &about, || world.is_cut_off(relays))?;
    let Some(noticed) = noticed else {
        bail!("the relays of {name} hear others still, {NOTICED_MAX:?} after the cut");
    };
    drills::wait(stage, ALONE, &about)?;
    let file = drills::finish(stage, fetch, FILE_TIME_MAX)?;
    let end = flows.now();
    let felt = felt(&flows.arrivals(0, start.saturating_sub(BEFORE_NS), end), start, end);
    let excess_ms = felt.map(|felt| felt.excess_ms(flows.specs()[0].spacing, Duration::ZERO));

    let consumer = Node::Edge(cell.consumer);
    world.kill(consumer)?;
    world.restart(consumer, stage)?;
    let fresh = |cell: &super::Cell| -> anyhow::Result<Fetched> {
        Ok(drills::finish(stage, cell.file(world, FRESH)?, FILE_TIME_MAX)?)
    };
    let (own, others) = (fresh(cell)?, cells.iter().filter(|it| it.consumer != cell.consumer));
    let others = others.map(fresh).collect::<anyhow::Result<_>>()?;
    if !world.is_cut_off(relays) {
        bail!("{name} was joined again before the end of the drill");
    }
    world.rejoin(relays)?;
    drills::wait_connected(&running.scene(at))?;
    let found = CutOff { noticed, felt, excess_ms, file, fresh: own, others };
    stage.say(found.text(name));
    Ok(found)
}

impl CutOff {
    /// Whether all files came whole.
    pub(super) fn is_whole(&self) -> bool {
        [&self.file, &self.fresh].into_iter().chain(&self.others).all(Fetched::is_whole)
    }

    fn text(&self, name: &str) -> String {
        let Self { noticed, felt, file, fresh, others, .. } = self;
        let lost = felt.map_or("?".to_owned(), |felt| felt.lost.to_string());
        let gap = felt.map_or(f64::NAN, |felt| felt.gap_ms());
        let whole = others.iter().filter(|it| it.is_whole()).count();
        format!(
            "{name} cut off, known to its relays after {:.1} s: {lost} frames lost, longest gap {gap:.0} ms; the file that \
             was on its way {}; one of an edge that was started meanwhile {}; of other tenants {whole} of {} whole",
            noticed.as_secs_f64(),
            file.text(),
            fresh.text(),
            others.len(),
        )
    }
}
