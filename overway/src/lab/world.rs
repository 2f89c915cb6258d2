//! A mesh of real processes on loopback that behaves as a profile's world, and the hands to disturb it.
//!
//! [`World::start`] makes a directory with a scheduler's and every relay's keys and configuration, starts
//! them, and waits until every relay has a live link and a route to every other. Everything is done as an
//! operator would: relays join with tokens, links are cut through the fault interface, processes are
//! stopped with signals. Dropping the world kills the processes; a directory that was not asked for goes,
//! unless a start failed.
//!
//! All methods may be called from any thread. Each takes the lock of the processes for a moment only.

mod config;
mod edges;
mod layout;
mod lines;
mod seen;
mod start;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use overway_wire::{Class, RelayId};
use tempfile::TempDir;

use super::admin::{Client, EdgeStatus, RelayStatus};
use super::flow::{FlowSpec, Sink};
use super::process::{Keeper, Process, Spawner, tail};
use super::profile::Profile;
use super::stage::Stage;
use layout::Layout;

pub use config::Targets;
pub use edges::EdgePlan;
pub use layout::{EdgePlace, Wire};
pub use lines::Degradation;

/// Time for a killed process's successor to come up. It reads its keys and binds its sockets.
const RESTART_TIME_MAX: Duration = Duration::from_secs(20);
/// How often a process that is to come up is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Lines of a log that are shown when its process failed.
const TAIL_LINES: usize = 15;

/// What to start.
#[derive(Debug)]
pub struct WorldOptions {
    /// The program.
    pub spawner: Spawner,
    /// The world.
    pub profile: Profile,
    /// Seed of clocks, losses, jitter and files.
    pub seed: u64,
    /// Where to keep keys, configurations and logs; a temporary directory if `None`.
    pub dir: Option<PathBuf>,
    /// Pairs of an entry and an exit relay that get a TCP and a UDP forward.
    pub wires: Vec<(usize, usize)>,
    /// Ends outside the mesh.
    pub edges: Vec<EdgePlan>,
    /// Workers of each relay. One is enough where all relays share a machine.
    pub workers: u8,
}

/// A process of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A relay, by its number in the profile.
    Relay(usize),
    /// An edge, by its number among the options'.
    Edge(usize),
    /// The scheduler.
    Scheduler,
}

/// How a process fares, as far as the lab did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It runs.
    Running,
    /// It was stopped with SIGSTOP.
    Frozen,
    /// It was killed, or has ended by itself.
    Dead,
}

/// A running mesh.
#[derive(Debug)]
pub struct World {
    profile: Profile,
    seed: u64,
    layout: Layout,
    edges: Vec<EdgePlan>,
    /// Relays' ids, by number.
    ids: Vec<RelayId>,
    client: Client,
    sink: Arc<Sink>,
    /// By [`World::slot`].
    processes: Mutex<Vec<Option<Process>>>,
    /// Lines whose rules are not the profile's, to a relay.
    disturbed: Mutex<BTreeSet<(Node, usize)>>,
    keeper: Keeper,
    /// `None` only while it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
    dir: PathBuf,
    /// Removes the directory.
    _temporary: Option<TempDir>,
}

impl World {
    /// Starts a mesh and waits until it is whole.
    ///
    /// # Errors
    /// Something did not come up, said with the end of its log; or the lab was stopped.
    pub fn start(options: &WorldOptions, stage: &Stage) -> anyhow::Result<Arc<Self>> {
        start::start(options, stage)
    }

    /// The profile that it follows.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The seed of its files.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Where its keys, configurations and logs are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The sink of all UDP services.
    pub fn sink(&self) -> &Arc<Sink> {
        &self.sink
    }

    /// The forwards.
    pub fn wires(&self) -> &[Wire] {
        &self.layout.wires
    }

    /// A flow of 50 frames a second over a wire.
    pub fn voice(&self, wire: &Wire) -> FlowSpec {
        FlowSpec::voice(wire.entry, wire.exit, wire.udp)
    }

    /// The runtime that the lab's own servers run on.
    pub(super) fn runtime(&self) -> &tokio::runtime::Handle {
        self.runtime.as_ref().expect("taken by drop alone").handle()
    }

    /// The scheduler's admin interface.
    pub fn scheduler_admin(&self) -> SocketAddr {
        self.layout.scheduler.admin
    }

    /// A relay's admin interface.
    pub fn relay_admin(&self, relay: usize) -> SocketAddr {
        self.layout.relays[relay].admin
    }

    /// An edge's addresses.
    pub fn edge(&self, edge: usize) -> EdgePlace {
        self.layout.edges[edge]
    }

    /// Whether an edge is attached twice and knows whom its forwards lead to.
    pub fn is_edge_whole(&self, edge: usize) -> bool {
        self.edge_status(edge).is_ok_and(|status| status.ready && status.second.is_some())
    }

    /// The relays that an edge is attached to, the first first; none if it does not answer.
    pub fn attached(&self, edge: usize) -> Vec<usize> {
        let Ok(status) = self.edge_status(edge) else { return Vec::new() };
        let relays = [status.first, status.second].into_iter().flatten();
        relays.filter_map(|relay| self.number(relay)).collect()
    }

    fn edge_status(&self, edge: usize) -> anyhow::Result<EdgeStatus> {
        self.client.get(self.edge(edge).admin, "/v1/status")
    }

    /// The relay that comes first in an edge's whereabouts, by its number.
    ///
    /// # Errors
    /// The edge does not answer, or is attached nowhere.
    pub fn access_relay(&self, edge: usize) -> anyhow::Result<usize> {
        let first = self.edge_status(edge)?.first.and_then(|relay| self.number(relay));
        first.with_context(|| format!("{} is attached nowhere", self.name(Node::Edge(edge))))
    }

    /// All processes, the scheduler first.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        let relays = (0..self.profile.relays().len()).map(Node::Relay);
        let edges = (0..self.edges.len()).map(Node::Edge);
        std::iter::once(Node::Scheduler).chain(relays).chain(edges)
    }

    /// A process's name.
    pub fn name(&self, node: Node) -> &str {
        match node {
            Node::Relay(relay) => self.profile.relay_name(relay),
            Node::Edge(edge) => &self.edges[edge].name,
            Node::Scheduler => "scheduler",
        }
    }

    /// The process of that name.
    ///
    /// # Errors
    /// There is none; the error says which there are.
    pub fn node(&self, name: &str) -> anyhow::Result<Node> {
        let found = self.nodes().find(|&node| self.name(node) == name);
        found.with_context(|| {
            let names: Vec<&str> = self.nodes().map(|node| self.name(node)).collect();
            format!("there is no {name:?} here; there are {}", names.join(", "))
        })
    }

    /// A process's log.
    pub fn log(&self, node: Node) -> PathBuf {
        layout::log_file(&self.dir, self.name(node))
    }

    /// A process's id and condition.
    pub fn condition(&self, node: Node) -> (Option<u32>, Condition) {
        let mut processes = self.processes();
        let living = processes[self.slot(node)].as_mut().and_then(Process::living);
        match living {
            Some(process) if process.is_frozen() => (Some(process.id()), Condition::Frozen),
            Some(process) => (Some(process.id()), Condition::Running),
            None => (None, Condition::Dead),
        }
    }

    /// Stops a process without its knowledge.
    ///
    /// # Errors
    /// It is not running.
    pub fn freeze(&self, node: Node) -> anyhow::Result<()> {
        self.running(node, |process| Ok(process.freeze()?))
    }

    /// Lets a frozen process go on.
    ///
    /// # Errors
    /// It is dead.
    pub fn thaw(&self, node: Node) -> anyhow::Result<()> {
        self.running(node, |process| Ok(process.thaw()?))
    }

    /// Ends a process at once, without its knowledge.
    ///
    /// # Errors
    /// It is dead already.
    pub fn kill(&self, node: Node) -> anyhow::Result<()> {
        self.running(node, |_| Ok(()))?;
        let process = self.processes()[self.slot(node)].take();
        drop(process);
        Ok(())
    }

    /// Starts a process that is dead, and waits until it is ready.
    ///
    /// # Errors
    /// It runs already or does not come up.
    pub fn restart(&self, node: Node, stage: &Stage) -> anyhow::Result<()> {
        if self.condition(node).1 != Condition::Dead {
            bail!("{} runs", self.name(node));
        }
        if let Node::Relay(relay) = node {
            self.forget_disturbed(relay);
        }
        self.spawn(node)?;
        let end = Instant::now() + RESTART_TIME_MAX;
        while !self.client.is_ready(self.admin(node)) {
            self.check_alive(node)?;
            if Instant::now() > end {
                bail!(
                    "{} is not ready after {RESTART_TIME_MAX:?}\n{}",
                    self.name(node),
                    self.tail(node)
                );
            }
            stage.pause(LOOK)?;
        }
        Ok(())
    }

    /// What a relay says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn relay_status(&self, relay: usize) -> anyhow::Result<RelayStatus> {
        self.client.relay_status(self.relay_admin(relay))
    }

    /// The relays of the path that a class's frames would take now, both ends included; `None` if the
    /// entry relay knows no path.
    ///
    /// # Errors
    /// The entry relay does not answer.
    pub fn path(
        &self,
        entry: usize,
        exit: usize,
        class: Class,
    ) -> anyhow::Result<Option<Vec<usize>>> {
        Ok(self.path_in(&self.relay_status(entry)?, entry, exit, class))
    }

    /// The same from a status that was asked for already.
    pub fn path_in(
        &self,
        status: &RelayStatus,
        entry: usize,
        exit: usize,
        class: Class,
    ) -> Option<Vec<usize>> {
        let destination = self.ids.get(exit)?.0;
        let found = status
            .paths
            .iter()
            .find(|path| path.destination == destination && path.class == class.name())?;
        let steps = found.path.as_ref()?.iter().map(|&id| self.number(id));
        std::iter::once(Some(entry)).chain(steps).collect()
    }

    /// Names along a path, for people.
    pub fn path_text(&self, path: &[usize]) -> String {
        self.joined(path, " > ")
    }

    /// Names of relays in no particular order, for people.
    pub fn names_text(&self, relays: &[usize]) -> String {
        self.joined(relays, ", ")
    }

    fn joined(&self, relays: &[usize], by: &str) -> String {
        let names: Vec<&str> = relays.iter().map(|&relay| self.profile.relay_name(relay)).collect();
        names.join(by)
    }

    /// Fails with the end of its log if a process has ended by itself.
    ///
    /// # Errors
    /// It has.
    pub fn check_alive(&self, node: Node) -> anyhow::Result<()> {
        let exited = self.processes()[self.slot(node)].as_mut().and_then(Process::exited);
        match exited {
            Some(status) => {
                let (name, tail) = (self.name(node), self.tail(node));
                bail!("{name} has ended by itself ({status}); the end of its log:\n{tail}")
            }
            None => Ok(()),
        }
    }

    /// The end of a process's log.
    pub fn tail(&self, node: Node) -> String {
        tail(&self.log(node), TAIL_LINES)
    }

    fn number(&self, id: u16) -> Option<usize> {
        self.ids.iter().position(|known| known.0 == id)
    }

    /// A process's admin interface.
    pub(super) fn admin(&self, node: Node) -> SocketAddr {
        match node {
            Node::Relay(relay) => self.relay_admin(relay),
            Node::Edge(edge) => self.edge(edge).admin,
            Node::Scheduler => self.scheduler_admin(),
        }
    }

    fn spawn(&self, node: Node) -> anyhow::Result<()> {
        let name = self.name(node);
        let subcommand = match node {
            Node::Relay(_) => "relay",
            Node::Edge(_) => "edge",
            Node::Scheduler => "scheduler",
        };
        let config = layout::config_file(&self.dir, name);
        let spawned = self.keeper.spawn(subcommand, &config, &self.log(node));
        let process = spawned.with_context(|| format!("cannot start {name}"))?;
        self.processes()[self.slot(node)] = Some(process);
        Ok(())
    }

    fn running<T>(
        &self,
        node: Node,
        act: impl FnOnce(&mut Process) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut processes = self.processes();
        match processes[self.slot(node)].as_mut().and_then(Process::living) {
            Some(process) => act(process),
            None => bail!("{} is dead; restore it first", self.name(node)),
        }
    }

    fn processes(&self) -> MutexGuard<'_, Vec<Option<Process>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, node: Node) -> usize {
        match node {
            Node::Scheduler => 0,
            Node::Relay(relay) => relay + 1,
            Node::Edge(edge) => self.profile.relays().len() + edge + 1,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Before the directory that they write to.
        self.processes().clear();
        // A verb's thread, which may be the last to hold the world, is the runtime's own: it must not wait
        // for itself.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
