//! Bringing a mesh up.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use overway_pki::JoinToken;
use overway_wire::RelayId;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::config::{self, Targets};
use super::layout::{self, Layout};
use super::{LOOK, Node, World, WorldOptions, edges};
use crate::lab::admin::Client;
use crate::lab::flow::Sink;
use crate::lab::process::Keeper;
use crate::lab::stage::{Ink, Stage, Stopped};
use crate::lab::transfer;

/// Starts with other ports after another program took one between our letting go and our child's
/// binding it.
const TRIES_MAX: u32 = 3;
/// Time for the scheduler to listen.
const SCHEDULER_TIME_MAX: Duration = Duration::from_secs(20);
/// Time for all links and routes, on a machine of two slow cores.
const MESH_TIME_MAX: Duration = Duration::from_secs(90);
/// The mesh's name in its certificates.
const MESH: &str = "lab";

/// Starts a mesh, with other ports if one was taken.
pub(super) fn start(options: &WorldOptions, stage: &Stage) -> anyhow::Result<Arc<World>> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_start(options, stage) {
            Err(error) if tries < TRIES_MAX && is_port_taken(&error) => {
                stage.say("a port was taken by another program; starting again with others");
            }
            outcome => return outcome,
        }
    }
}

/// Whether a process ended because an address was in use: its log's end is in the error.
fn is_port_taken(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}").to_lowercase();
    text.contains("address already in use") || text.contains("address in use")
}

fn try_start(options: &WorldOptions, stage: &Stage) -> anyhow::Result<Arc<World>> {
    let WorldOptions { spawner, profile, seed, dir, wires, edges, workers } = options;
    let seed = *seed;
    let (dir, temporary) = directory(dir.as_deref())?;
    let count = profile.relays().len();
    let mut layout = Layout::new(count, wires, edges.len()).context("no free ports")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("lab-servers")
        .enable_all()
        .build()?;
    let sink = Sink::start()?;
    let web = runtime.block_on(transfer::serve(seed))?;
    let targets = Targets { sink: sink.address(), web };
    config::write(&dir, profile, &layout, targets, seed, *workers)?;
    overway_scheduler::init(&layout::state_dir(&dir, "scheduler"), MESH)?;
    layout.release(Node::Scheduler);
    let mut world = World {
        profile: profile.clone(),
        seed,
        layout,
        edges: edges.clone(),
        ids: Vec::new(),
        client: Client::new(),
        sink,
        processes: Mutex::new((0..=count + edges.len()).map(|_| None).collect()),
        disturbed: Mutex::default(),
        keeper: Keeper::new(spawner.clone())?,
        runtime: Some(runtime),
        dir,
        _temporary: temporary,
    };
    match bring_up(&mut world, stage).and_then(|()| edges::bring_up(&mut world, targets, stage)) {
        Ok(()) => Ok(Arc::new(world)),
        Err(error) => {
            // The logs say more than the error: they stay, unless a person ended it.
            if !error.is::<Stopped>()
                && let Some(temporary) = world._temporary.take()
            {
                let kept = temporary.keep();
                stage.say(format!("logs and configurations are kept in {}", kept.display()));
            }
            Err(error)
        }
    }
}

fn directory(dir: Option<&Path>) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    let (path, temporary) = match dir {
        Some(dir) => {
            if dir.join("scheduler").exists() {
                bail!("{} has a lab's keys already; give an empty or new directory", dir.display());
            }
            (dir.to_owned(), None)
        }
        None => {
            let temporary = tempfile::Builder::new().prefix("overway-lab-").tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let logs = path.join("logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    Ok((path.canonicalize()?, temporary))
}

fn bring_up(world: &mut World, stage: &Stage) -> anyhow::Result<()> {
    let started = Instant::now();
    world.spawn(Node::Scheduler)?;
    while !world.client.is_ready(world.scheduler_admin()) {
        world.check_alive(Node::Scheduler)?;
        if started.elapsed() > SCHEDULER_TIME_MAX {
            bail!("the scheduler is not ready\n{}", world.tail(Node::Scheduler));
        }
        stage.status("starting the scheduler");
        stage.pause(LOOK)?;
    }
    stage.say(format!(
        "scheduler ready, its dashboard and admin interface at http://{}",
        world.scheduler_admin()
    ));
    let token = layout::state_dir(&world.dir, "scheduler").join(overway_pki::ADMIN_TOKEN_FILE);
    stage.say(format!("the dashboard's sign-in takes the token in {}", token.display()));
    world.ids = join_all(world)?;
    let count = world.profile.relays().len();
    stage.say(format!("{count} relays have joined, each with a token of its own"));
    for relay in 0..count {
        world.layout.release(Node::Relay(relay));
        world.spawn(Node::Relay(relay))?;
    }
    wait_whole(world, stage)?;
    let took = started.elapsed().as_secs_f64();
    let links = count * (count - 1);
    let text = format!("the mesh is up after {took:.1} s: {count} relays, {links} links");
    stage.say(stage.ink(Ink::Green, text));
    Ok(())
}

/// Every relay redeems a token of its own, all at once; their ids by number.
fn join_all(world: &World) -> anyhow::Result<Vec<RelayId>> {
    let mut tokens = Vec::new();
    for relay in world.profile.relays() {
        let text = world.client.invite(world.scheduler_admin(), &relay.name)?;
        let token: JoinToken = text.parse()?;
        tokens.push((token, layout::state_dir(&world.dir, &relay.name)));
    }
    world.runtime().block_on(async {
        let mut joins = JoinSet::new();
        for (number, (token, dir)) in tokens.into_iter().enumerate() {
            joins.spawn(
                async move { (number, overway_scheduler::join::redeem(&token, &dir).await) },
            );
        }
        let mut ids = vec![RelayId::default(); world.profile.relays().len()];
        while let Some(joined) = joins.join_next().await {
            let (number, joined) = joined?;
            let joined = joined
                .with_context(|| format!("{} cannot join", world.profile.relay_name(number)))?;
            ids[number] = joined.relay;
        }
        Ok(ids)
    })
}

/// How far a mesh has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    connected: usize,
    links_up: usize,
    routes: usize,
}

/// Waits until every relay has a live link and a route to every other.
fn wait_whole(world: &World, stage: &Stage) -> anyhow::Result<()> {
    let started = Instant::now();
    let count = world.profile.relays().len();
    let pairs = count * (count - 1);
    // Three classes each.
    let whole = Progress { connected: count, links_up: pairs, routes: 3 * pairs };
    loop {
        let progress = world.progress();
        if progress == whole {
            return Ok(());
        }
        for relay in 0..count {
            world.check_alive(Node::Relay(relay))?;
        }
        world.check_alive(Node::Scheduler)?;
        let Progress { connected, links_up, routes } = progress;
        if started.elapsed() > MESH_TIME_MAX {
            bail!("{}", world.incomplete());
        }
        let all_routes = 3 * pairs;
        stage.status(format!(
            "{connected}/{count} relays connected, {links_up}/{pairs} links up, {routes}/{all_routes} routes"
        ));
        stage.pause(LOOK)?;
    }
}

impl World {
    /// Counts what is there, over the relays that answer.
    pub(super) fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        for relay in 0..self.profile.relays().len() {
            let Ok(status) = self.relay_status(relay) else { continue };
            progress.connected += usize::from(status.scheduler_connected);
            progress.links_up += status.links.iter().filter(|link| link.is_up()).count();
            progress.routes += status.paths.iter().filter(|path| path.path.is_some()).count();
        }
        progress
    }

    /// What is missing, and the end of the log of the first relay that misses something.
    fn incomplete(&self) -> String {
        let count = self.profile.relays().len();
        let mut text = format!("the mesh is not whole after {MESH_TIME_MAX:?}:\n");
        let mut first = None;
        for relay in 0..count {
            let name = self.profile.relay_name(relay);
            let line = match self.relay_status(relay) {
                Err(error) => format!("{name} does not answer: {error:#}"),
                Ok(status) => {
                    let down = status.links.iter().filter(|link| !link.is_up()).count();
                    let without = status.paths.iter().filter(|path| path.path.is_none()).count();
                    let links = status.links.len();
                    if links == count - 1 && down == 0 && without == 0 && status.scheduler_connected
                    {
                        continue;
                    }
                    let connected = if status.scheduler_connected { "" } else { "no scheduler, " };
                    format!(
                        "{name}: {connected}{links} links of which {down} not up, {without} routes missing"
                    )
                }
            };
            first.get_or_insert(Node::Relay(relay));
            text.push_str(&line);
            text.push('\n');
        }
        let shown = first.unwrap_or(Node::Scheduler);
        text.push_str(&format!("the end of {}'s log:\n{}", self.name(shown), self.tail(shown)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_from_other_failures() {
        let taken =
            anyhow::anyhow!("oslo has ended; its log: Address already in use (os error 98)");

        assert!(is_port_taken(&taken));
        assert!(!is_port_taken(&anyhow::anyhow!("no identity in oslo")));
    }

    #[test]
    fn a_directory_with_a_mesh_is_not_used_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(directory(Some(dir.path())).is_ok());
        std::fs::create_dir(dir.path().join("scheduler")).unwrap();

        let error = directory(Some(dir.path())).unwrap_err();

        assert!(error.to_string().contains("already"));
    }
}
