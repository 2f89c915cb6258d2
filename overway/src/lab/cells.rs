//! `overway lab --cells`: the relays grouped into cells as the profile says, and a tenant in each.
//!
//! ```text
//! cell "south", partner "north"
//!   consumer --forward to "lab"--> relays of the cell --> provider --> a sink and a web server of the tenant's own
//! ```
//!
//! Cells, tenants and keys are made by the scheduler's admin interface, as an operator makes them. Every tenant has two
//! edges and one service, which all tenants call the same. Edges are told of a relay that is of neither their cell nor a
//! partner, and try it first. Relays have no services and forwards of their own here, so that every frame in the mesh is a
//! tenant's.
//!
//! | part | does |
//! | --- | --- |
//! | [`grouping`] | chooses relays and ends, without any IO |
//! | [`check`] | the drills, and what is promised of them |
//! | [`live`] | the same mesh to play with |

pub(super) mod check;
mod cut_off;
mod fall;
mod grouping;
mod inside;
pub(super) mod live;

use std::sync::Arc;
use std::time::Duration;

use super::drills::Scene;
use super::flow::{FlowSpec, Flows, Sink};
use super::profile::Profile;
use super::stage::Stage;
use super::transfer::{self, Fetch};
use super::world::{EdgePlan, Node, Targets, World};
use grouping::Group;

/// The rate of files that are on their way while things are broken.
const FILE_MBPS: f64 = 2.0;
/// The files' bytes are drawn from the lab's seed and this, times the cell's number.
const SEED_STEP: u64 = 0x6c65_6c6c;

/// A cell of a lab.
#[derive(Debug)]
struct Cell {
    group: Group,
    /// Its edges, by number.
    consumer: usize,
    provider: usize,
    /// What its web server answers with, and none of another cell.
    seed: u64,
    sink: Arc<Sink>,
    targets: Targets,
}

/// The cells of a lab, and the servers behind their services.
#[derive(Debug)]
pub(super) struct Cells {
    cells: Vec<Cell>,
    /// Runs the web servers.
    _runtime: tokio::runtime::Runtime,
}

/// Some cells of a mesh that runs, each with a flow.
struct Running<'a> {
    world: &'a World,
    stage: &'a Stage,
    cells: &'a [Cell],
    /// By cell.
    flows: Vec<Flows>,
}

impl Cells {
    /// Groups a profile's relays, and starts what the tenants' services lead to.
    ///
    /// # Errors
    /// The profile cannot be grouped, or there are no sockets to be had.
    pub(super) fn new(profile: &Profile, seed: u64) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("lab-cells")
            .enable_all()
            .build()?;
        let mut cells = Vec::new();
        for (at, group) in (0_u8..).zip(grouping::groups(profile)?) {
            let seed = seed.wrapping_add(SEED_STEP * (u64::from(at) + 1));
            // The world's own has none.
            let sink = Sink::start_numbered(at + 1)?;
            let web = runtime.block_on(transfer::serve(seed))?;
            let targets = Targets { sink: sink.address(), web };
            let consumer = 2 * usize::from(at);
            cells.push(Cell { group, consumer, provider: consumer + 1, seed, sink, targets });
        }
        Ok(Self { cells, _runtime: runtime })
    }

    /// The edges of all cells, in the order of their numbers.
    pub(super) fn edges(&self) -> Vec<EdgePlan> {
        self.cells.iter().flat_map(Cell::edges).collect()
    }

    /// Says which relays each cell has, and where its edges are.
    pub(super) fn say(&self, world: &World, stage: &Stage) {
        for Cell { group, consumer, provider, .. } in &self.cells {
            let Group { name, relays, partners, .. } = group;
            let relays = world.names_text(relays);
            let partners = match partners.as_slice() {
                [] => "no partner".to_owned(),
                relays => format!("over {} if need be", world.names_text(relays)),
            };
            let [entry, exit] =
                [consumer, provider].map(|&edge| world.names_text(&world.attached(edge)));
            stage.say(format!(
                "cell {name}: {relays}; {partners}; its tenant's consumer is at {entry}, the provider at {exit}"
            ));
        }
    }
}

impl Cell {
    fn edges(&self) -> [EdgePlan; 2] {
        let [consumer, provider] = self.group.access();
        let name = &self.group.name;
        let plan = |what: &str, access, offers: Option<u32>| EdgePlan {
            name: format!("{name}-{what}"),
            access,
            offers,
            target: Some(self.targets),
            forwards: offers.is_none(),
            cell: Some(name.clone()),
        };
        [plan("consumer", consumer, None), plan("provider", provider, Some(1))]
    }

    /// Both edges, in the order in which they are started.
    fn ends(&self) -> [usize; 2] {
        [self.provider, self.consumer]
    }

    /// Ends both edges.
    fn stop(&self, world: &World) -> anyhow::Result<()> {
        self.ends().into_iter().try_for_each(|edge| world.kill(Node::Edge(edge)))
    }

    /// Starts both edges again.
    fn start(&self, world: &World, stage: &Stage) -> anyhow::Result<()> {
        self.ends().into_iter().try_for_each(|edge| world.restart(Node::Edge(edge), stage))
    }

    /// Starts its flow of 50 frames a second.
    fn flow(&self, world: &World) -> std::io::Result<Flows> {
        let (entry, exit) = self.group.ends;
        let spec = FlowSpec::voice(entry, exit, world.edge(self.consumer).udp);
        Flows::start(&self.sink, vec![spec])
    }

    /// Starts a file that takes so long undisturbed.
    fn file(&self, world: &World, span: Duration) -> std::io::Result<Fetch> {
        let forward = world.edge(self.consumer).tcp;
        Fetch::start(forward, self.seed, bytes_of(span), Some(FILE_MBPS))
    }

    /// Whether both edges are attached twice at relays of the cell.
    fn is_home(&self, world: &World) -> bool {
        let is_own = |relay: &usize| self.group.relays.contains(relay);
        let is_home = |edge| world.is_edge_whole(edge) && world.attached(edge).iter().all(is_own);
        self.ends().into_iter().all(is_home)
    }
}

impl<'a> Running<'a> {
    /// Starts the flows of these cells, and waits until each comes through.
    fn start(world: &'a World, stage: &'a Stage, cells: &'a [Cell]) -> anyhow::Result<Self> {
        let flows = cells.iter().map(|cell| cell.flow(world)).collect::<Result<_, _>>()?;
        let running = Self { world, stage, cells, flows };
        (0..cells.len()).try_for_each(|cell| running.scene(cell).wait_flows())?;
        Ok(running)
    }

    fn scene(&self, cell: usize) -> Scene<'_> {
        Scene { world: self.world, stage: self.stage, flows: &self.flows[cell] }
    }
}

/// Bytes that come in so long at the files' rate.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive rate times a positive time"
)]
fn bytes_of(span: Duration) -> u64 {
    (FILE_MBPS * 1e6 / 8.0 * span.as_secs_f64()) as u64
}
