//! Loss on the link in use, without any change of its delay.

use std::time::{Duration, Instant};

use overway_wire::Class;

use super::{Quiet, Scene, wait};
use crate::lab::world::{Degradation, Node};

/// How long the loss is left on when nobody leaves the link.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(15);
/// How long what the loss did to the link may still show.
const AFTERMATH: Duration = Duration::from_secs(2);
/// How often the path is asked for.
const LOOK: Duration = Duration::from_millis(50);

/// How a flow left a lossy link, and whether it came back.
#[derive(Clone, Copy, Debug)]
pub struct LossFelt {
    /// The link, as (from, to).
    pub link: (usize, usize),
    /// Time until the flow's path no longer used it; `None` if it never left.
    pub leave: Option<Duration>,
    /// Time from the end of the loss until the path used it again, or for as long as it was watched.
    pub back: Duration,
    /// Whether it was used again.
    pub returned: bool,
}

/// Puts a loss on the first link of a flow's path, and takes it away once the flow has left it. What
/// follows is undisturbed time.
///
/// # Errors
/// A relay does not answer, or the lab was stopped.
pub fn loss(
    scene: &Scene<'_>,
    share: f64,
    watch: Duration,
    quiet: &mut Quiet,
) -> anyhow::Result<LossFelt> {
    let Scene { world, stage, .. } = *scene;
    let (transit, paths) = scene.transit_in_use()?;
    let on_path = |path: &&Vec<usize>| path.get(1) == Some(&transit);
    let path = match paths.iter().flatten().find(on_path) {
        Some(path) => path,
        // Every path has the transit further along: its first link serves as well.
        None => paths.iter().flatten().find(|path| path.contains(&transit)).expect("found in one"),
    };
    let (from, to) = (path[0], path[1]);
    let exit = *path.last().expect("a path has two ends");
    let uses = || -> anyhow::Result<bool> {
        let path = world.path(from, exit, Class::Realtime)?;
        Ok(path.is_some_and(|path| path.get(1) == Some(&to)))
    };
    let name = world.path_text(&[from, to]);
    let lossy = Degradation { loss: Some(share), ..Degradation::default() };
    world.degrade(Node::Relay(from), to, &lossy)?;
    let start = Instant::now();
    let mut leave = None;
    while leave.is_none() && start.elapsed() < LEAVE_TIME_MAX {
        if !uses()? {
            leave = Some(start.elapsed());
        }
        stage.status(format!("{name} loses {:.0} % of its datagrams", share * 100.0));
        stage.pause(LOOK)?;
    }
    // What left at once is to be a decision, not a moment.
    wait(stage, Duration::from_secs(1), &format!("{name} is still lossy"))?;
    world.restore(Node::Relay(from), to)?;
    let start = Instant::now();
    let (mut returned, mut counted) = (false, false);
    while leave.is_some() && !returned && start.elapsed() < watch {
        returned = uses()?;
        if !counted && start.elapsed() > AFTERMATH {
            quiet.begin(world)?;
            counted = true;
        }
        let left = watch.saturating_sub(start.elapsed()).as_secs_f64();
        stage.status(format!("{name} is clean again; does the flow stay away? ({left:.0} s left)"));
        stage.pause(LOOK)?;
    }
    quiet.end(world)?;
    Ok(LossFelt { link: (from, to), leave, back: start.elapsed(), returned })
}
