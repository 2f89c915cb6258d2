//! Whether a tenant's frames stay in its cell: it is the only one with traffic, and the relays of all other cells count
//! what they have to do with.

use std::time::{Duration, Instant};

use anyhow::bail;
use overway_wire::Class;

use super::grouping::Group;
use super::{Cell, Running};
use crate::lab::drills;
use crate::lab::stage::Stage;
use crate::lab::transfer::Fetched;
use crate::lab::world::World;

/// How long a tenant is watched.
const ALONE: Duration = Duration::from_secs(4);
/// Counters stand still for so long before they are read: nothing is on its way.
const STILL: Duration = Duration::from_secs(1);
/// How long that may take.
const STILL_TIME_MAX: Duration = Duration::from_secs(15);
/// More than a file of the drill takes.
const FILE_TIME_MAX: Duration = Duration::from_secs(30);

/// The frames that had come to the relays outside of a cell when its tenant became the only one with edges.
#[derive(Clone, Debug)]
pub(super) struct Others {
    partners: u64,
    outside: u64,
}

/// What a tenant alone did to the mesh.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    /// Frames of its flow that came.
    pub(super) frames: usize,
    /// Frames that came to relays of its partners, which stand in where links within fail.
    pub(super) partners: u64,
    /// Frames that came to any other relay.
    pub(super) outside: u64,
    /// The relays of its ends.
    pub(super) ends: (usize, usize),
    /// Whether the path between these that everybody else's frames would take leaves the cell.
    pub(super) others_leave: bool,
    /// The file.
    pub(super) fetched: Fetched,
}

impl Others {
    /// Waits until no relay outside of a cell has anything to do, and reads their counters.
    ///
    /// # Errors
    /// They have, or the lab was stopped.
    pub(super) fn idle(world: &World, stage: &Stage, group: &Group) -> anyhow::Result<Self> {
        let started = Instant::now();
        let count = || -> anyhow::Result<_> {
            Ok([world.frames_in(&group.partners)?, world.frames_in(&group.outside)?])
        };
        let mut last = count()?;
        while started.elapsed() < STILL_TIME_MAX {
            drills::wait(stage, STILL, "the other tenants' last frames arrive")?;
            let now = count()?;
            if now == last {
                let [partners, outside] = now;
                return Ok(Self { partners, outside });
            }
            last = now;
        }
        bail!("relays outside of {} carry frames, though no other tenant has an edge", group.name)
    }

    /// Frames that have come since to relays which are neither of the cell nor of a partner.
    pub(super) fn outside(&self, world: &World, group: &Group) -> anyhow::Result<u64> {
        Ok(world.frames_in(&group.outside)?.saturating_sub(self.outside))
    }
}

/// Watches the first of these cells, the only one whose tenant has edges, for a while.
///
/// # Errors
/// A relay does not answer, or the lab was stopped.
pub(super) fn inside(running: &Running<'_>, others: &Others) -> anyhow::Result<Inside> {
    let Running { world, stage, cells, ref flows } = *running;
    let Cell { group, consumer, provider, .. } = &cells[0];
    let fetch = cells[0].file(world, ALONE)?;
    drills::wait(stage, ALONE, &format!("only the tenant of {} has traffic", group.name))?;
    let fetched = drills::finish(stage, fetch, FILE_TIME_MAX)?;
    let (entry, exit) = (world.access_relay(*consumer)?, world.access_relay(*provider)?);
    let everybodys = world.path(entry, exit, Class::Realtime)?.unwrap_or_default();
    let found = Inside {
        frames: flows[0].arrivals(0, 0, u64::MAX).len(),
        partners: world.frames_in(&group.partners)?.saturating_sub(others.partners),
        outside: others.outside(world, group)?,
        ends: (entry, exit),
        others_leave: everybodys.iter().any(|relay| !group.relays.contains(relay)),
        fetched,
    };
    stage.say(found.text(world, group));
    Ok(found)
}

impl Inside {
    fn text(&self, world: &World, group: &Group) -> String {
        let Self { frames, partners, outside, ends, others_leave, fetched } = self;
        let pair = world.path_text(&[ends.0, ends.1]);
        let others = if *others_leave { "leaves the cell" } else { "stays in it as well" };
        format!(
            "{}: {frames} frames came, and a file {}; {partners} frames came to relays of partners, {outside} to all others; \
             everybody else's path {pair} {others}",
            group.name,
            fetched.text(),
        )
    }
}
