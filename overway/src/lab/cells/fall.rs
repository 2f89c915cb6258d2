//! All relays of a cell die: its tenant goes on over the partner, and comes back when they do.

use std::time::{Duration, Instant};

use super::{Cell, Running};
use crate::lab::drills;
use crate::lab::flow::Flows;
use crate::lab::transfer::Fetched;
use crate::lab::world::{Node, World};

/// How long a file runs before the relays die.
const LEAD: Duration = Duration::from_secs(2);
/// How long the tenant stays with the partner.
const STAY: Duration = Duration::from_secs(3);
/// Something came within this time: the flow runs.
const LATELY_NS: u64 = 200_000_000;
/// How long the edges' way to the partner is waited for, and that back.
const FALL_TIME_MAX: Duration = Duration::from_secs(90);
const RETURN_TIME_MAX: Duration = Duration::from_secs(120);
/// Requests at the partner follow one another until one is answered within this time.
const REQUEST: Duration = Duration::from_millis(100);
const REQUEST_TIME_MAX: Duration = Duration::from_secs(3);
/// More than the file takes.
const FILE_TIME_MAX: Duration = Duration::from_secs(90);

/// What a tenant felt; how long it took is `None` where it was not in time.
#[derive(Clone, Debug)]
pub(super) struct Fall {
    /// From the relays' death until both edges were attached in the partner,
    pub(super) attached: Option<Duration>,
    /// until a new request succeeded there,
    pub(super) answered: Option<Duration>,
    /// and until the flow ran that had run before.
    pub(super) flowed: Option<Duration>,
    /// A file that was on its way when they died.
    pub(super) file: Fetched,
    /// From the relays' start until both edges were attached twice in their cell again.
    pub(super) back: Option<Duration>,
    /// Relays of other cells that were told who offers the tenant's service while it was at the partner.
    pub(super) told_outside: usize,
}

/// Kills all relays of the first of these cells, and starts them again once its tenant has been with the partner for a while.
///
/// # Errors
/// A relay does not come back, or the lab was stopped.
pub(super) fn fall(running: &Running<'_>) -> anyhow::Result<Fall> {
    let Running { world, stage, cells, ref flows } = *running;
    let (cell, flows) = (&cells[0], &flows[0]);
    let (name, relays) = (&cell.group.name, &cell.group.relays);
    let fetch = cell.file(world, LEAD + STAY)?;
    drills::wait(stage, LEAD, "a file comes")?;
    relays.iter().try_for_each(|&relay| world.kill(Node::Relay(relay)))?;
    let about = format!("all relays of {name} are dead");
    let died = Instant::now();
    let attached = drills::until(stage, FALL_TIME_MAX, &about, || is_at_partner(world, cell))?;
    let answered = answered(running, cell, died)?;
    let flowed = drills::until(stage, FALL_TIME_MAX, &about, || runs(flows))?;
    let flowed = flowed.map(|_| died.elapsed());
    drills::wait(stage, STAY, &format!("{name} is with its partner"))?;
    let file = drills::finish(stage, fetch, FILE_TIME_MAX)?;
    let told_outside = world.told_of(name, &cell.group.outside)?;

    let started = Instant::now();
    relays.iter().try_for_each(|&relay| world.restart(Node::Relay(relay), stage))?;
    let about = format!("the relays of {name} are back");
    let back = drills::until(stage, RETURN_TIME_MAX, &about, || cell.is_home(world))?;
    let back = back.map(|_| started.elapsed());
    let found = Fall { attached, answered, flowed, file, back, told_outside };
    stage.say(found.text(name));
    Ok(found)
}

/// Whether both edges are attached, and nowhere but in the partner.
fn is_at_partner(world: &World, cell: &Cell) -> bool {
    let is_partners = |relay: &usize| cell.group.partners.contains(relay);
    let mut at = cell.ends().into_iter().map(|edge| world.attached(edge));
    at.all(|relays| !relays.is_empty() && relays.iter().all(is_partners))
}

/// How long after the relays' death a request was answered that was made after it.
fn answered(running: &Running<'_>, cell: &Cell, died: Instant) -> anyhow::Result<Option<Duration>> {
    while died.elapsed() < FALL_TIME_MAX {
        let fetch = cell.file(running.world, REQUEST)?;
        if drills::finish(running.stage, fetch, REQUEST_TIME_MAX)?.is_whole() {
            return Ok(Some(died.elapsed()));
        }
    }
    Ok(None)
}

fn runs(flows: &Flows) -> bool {
    let now = flows.now();
    let since = now.saturating_sub(LATELY_NS);
    flows.arrivals(0, since, now).iter().filter(|arrival| arrival.received >= since).count() > 1
}

impl Fall {
    fn text(&self, name: &str) -> String {
        let Self { attached, answered, flowed, file, back, .. } = self;
        let took = |span: &Option<Duration>| {
            span.map_or("NOT in time".to_owned(), |it| format!("after {:.1} s", it.as_secs_f64()))
        };
        format!(
            "all relays of {name} killed: its edges were attached in the partner {}, a new request was answered there {}, the \
             flow went on {}; the file that was on its way {}; relays started again: the edges were back {}",
            took(attached),
            took(answered),
            took(flowed),
            file.text(),
            took(back),
        )
    }
}
