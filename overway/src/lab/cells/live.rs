//! A lab with cells, to watch and to play with.

use std::time::Duration;

use super::{Cell, Cells, Running};
use crate::lab::live::{changes, felt_text, program};
use crate::lab::stage::{Ink, Stage, Stopped};
use crate::lab::world::World;

/// How often what is shown is brought up to date.
const BOARD: Duration = Duration::from_millis(500);

/// Shows each tenant's flow, and says where its edges are, until the lab is stopped.
///
/// # Errors
/// A flow does not come through at the start.
pub(in crate::lab) fn run(world: &World, stage: &Stage, cells: &Cells) -> anyhow::Result<()> {
    match show(world, stage, &cells.cells) {
        Err(error) if error.is::<Stopped>() => Ok(()),
        outcome => outcome,
    }
}

fn show(world: &World, stage: &Stage, cells: &[Cell]) -> anyhow::Result<()> {
    let running = Running::start(world, stage, cells)?;
    stage.say("a flow of 50 frames/s of each tenant runs");
    commands(&running);
    let mut known = changes(world, stage, &[]);
    loop {
        known = changes(world, stage, &known);
        if stage.is_terminal() {
            stage.status("the tenants' flows in the last second:");
            let board = cells.iter().zip(&running.flows);
            let line = |(cell, flows): (&Cell, _)| {
                format!("  {}  {}", felt_text(stage, flows, 0), cell.group.name)
            };
            stage.set_board(board.map(line).collect());
        }
        stage.pause(BOARD)?;
    }
}

/// What to try, with names of this lab.
fn commands(running: &Running<'_>) {
    let Running { world, stage, cells, .. } = *running;
    let has_partner = |cell: &&Cell| !cell.group.partners.is_empty();
    let falling = cells.iter().find(has_partner).unwrap_or(&cells[0]);
    let alone = cells.iter().find(|cell| !has_partner(cell)).unwrap_or(falling);
    let admin = format!("--admin http://{}", world.scheduler_admin());
    let lab = format!("{} lab", program());
    let own = world.edge(alone.consumer).tcp;
    let names: Vec<&str> =
        falling.group.relays.iter().map(|&relay| world.profile().relay_name(relay)).collect();
    stage.say("");
    stage.say(stage.ink(Ink::Bold, "The mesh stays up. From another terminal:"));
    for (command, about) in [
        (format!("curl http://{own}/"), "a page within a cell"),
        (format!("{} cell list {admin}", program()), "the cells"),
        (format!("{} tenant list {admin}", program()), "the tenants"),
        (format!("{lab} cut-off {}", alone.group.name), "no other relay, no scheduler"),
        (format!("for r in {}; do {lab} kill $r; done", names.join(" ")), "it goes to its partner"),
        (format!("{lab} restore"), "undo all of it"),
    ] {
        let about = stage.ink(Ink::Dim, format!("# {about}"));
        stage.say(format!("  {command}  {about}"));
    }
    let logs = world.dir().join("logs");
    stage.say(stage.ink(Ink::Dim, format!("Logs are in {}. Ctrl-C ends the lab.", logs.display())));
}
