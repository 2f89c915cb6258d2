//! Edges of a lab: tenants with keys of their own, and sidecars that attach with tokens which these keys signed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use overway_scheduler::api::CellRequest;
use overway_tenant::{Claims, EdgeKey, JwkSet, Kid, Names, TenantKey};
use overway_wire::Class;
use serde::Serialize;

use super::config::{Forward, Listen, Service, Targets, write_file};
use super::layout;
use super::{LOOK, Node, World};
use crate::lab::stage::{Ink, Stage};

const KEY_FILE: &str = "edge.key";
const TOKEN_FILE: &str = "edge.jwt";
const TENANT_KEYS_FILE: &str = "tenant.jwks.json";
const CA_FILE: &str = "ca.pem";
/// The tenant of edges that are of no cell.
const TENANT: &str = "lab";
/// The service that edges offer one another. All tenants call it so.
const SERVICE: &str = "lab";
const KID: &str = "lab-1";
/// Longer than any lab runs.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// Time for all edges to attach, and to know the services.
const ATTACH_TIME_MAX: Duration = Duration::from_secs(30);

/// An end outside the mesh.
#[derive(Clone, Debug)]
pub struct EdgePlan {
    /// Its name, which no relay has.
    pub name: String,
    /// The relays whose access it knows.
    pub access: Vec<usize>,
    /// Whether it offers the lab's servers, and with which priority.
    pub offers: Option<u32>,
    /// What it offers instead of the lab's servers.
    pub target: Option<Targets>,
    /// Whether it has forwards to them.
    pub forwards: bool,
    /// The cell of the profile that it is of; its tenant has the cell's name.
    pub cell: Option<String>,
}

#[derive(Debug, Serialize)]
struct EdgeFile<'a> {
    edge: EdgeSection<'a>,
    access: Access,
    admin: Listen,
    offer: Vec<Offer>,
    service: Vec<Service>,
    forward: Vec<Forward>,
}

#[derive(Debug, Serialize)]
struct EdgeSection<'a> {
    tenant: &'a str,
    key_file: PathBuf,
    token_file: PathBuf,
    tenant_keys_file: PathBuf,
}

#[derive(Debug, Serialize)]
struct Access {
    relays: Vec<SocketAddr>,
    /// Drills kill the relays that the plan names.
    nearest: bool,
    ca_file: PathBuf,
}

#[derive(Debug, Serialize)]
struct Offer {
    service: &'static str,
    priority: u32,
}

/// Makes the tenants, starts the edges, and waits until each is attached and knows whom its forwards lead to.
pub(super) fn bring_up(world: &mut World, targets: Targets, stage: &Stage) -> anyhow::Result<()> {
    if world.edges.is_empty() {
        return Ok(());
    }
    let started = Instant::now();
    let mut random = fastrand::Rng::with_seed(world.seed);
    let kid: Kid = KID.parse()?;
    let tenants = add_tenants(world, &mut random, &kid)?;
    let ca = std::fs::read_to_string(layout::state_dir(&world.dir, "scheduler").join("ca.pem"))?;
    for edge in 0..world.edges.len() {
        let key = EdgeKey::from_seed(std::array::from_fn(|_| random.u8(..)));
        let plan = &world.edges[edge];
        let dir = layout::state_dir(&world.dir, &plan.name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let (backend, keys) = &tenants[plan.tenant()];
        let token = overway_tenant::mint(&claims(plan, &key)?, backend, &kid)?;
        for (name, text) in [
            (KEY_FILE, &key.to_pkcs8_pem()),
            (TOKEN_FILE, &token),
            (TENANT_KEYS_FILE, keys),
            (CA_FILE, &ca),
        ] {
            write_file(&dir.join(name), text)?;
        }
        let text = toml::to_string(&world.edge_file(edge, targets, &dir))?;
        write_file(&layout::config_file(&world.dir, &plan.name), &text)?;
        world.layout.release(Node::Edge(edge));
        world.spawn(Node::Edge(edge))?;
    }
    wait_attached(world, started, stage)?;
    let (count, took) = (world.edges.len(), started.elapsed().as_secs_f64());
    stage.say(stage.ink(Ink::Green, format!("{count} edges are attached after {took:.1} s")));
    Ok(())
}

/// Makes the tenants of all edges as an operator does, before them their cells. By name: each one's key, and its public
/// half as edges read it.
fn add_tenants(
    world: &World,
    random: &mut fastrand::Rng,
    kid: &Kid,
) -> anyhow::Result<BTreeMap<String, (TenantKey, String)>> {
    let (scheduler, cells) = (world.scheduler_admin(), world.profile.cells());
    if world.edges.iter().any(|plan| plan.cell.is_some()) {
        // A partner has to be there before it is named.
        let alone = cells.iter().map(|cell| (cell, Vec::new()));
        for (cell, partners) in alone.chain(cells.iter().map(|cell| (cell, cell.partners.clone())))
        {
            let (regions, relays) = (cell.regions.clone(), Vec::new());
            let request = CellRequest { regions, relays, partners };
            world.client.put_cell(scheduler, &cell.name, &request)?;
        }
    }
    let mut tenants = BTreeMap::new();
    for plan in &world.edges {
        if tenants.contains_key(plan.tenant()) {
            continue;
        }
        let backend = TenantKey::from_seed(std::array::from_fn(|_| random.u8(..)));
        let keys = JwkSet { keys: vec![backend.public().to_jwk().named(kid)] };
        world.client.add_tenant(scheduler, plan.tenant(), plan.cell.as_deref(), &keys)?;
        tenants.insert(plan.tenant().to_owned(), (backend, serde_json::to_string(&keys)?));
    }
    Ok(tenants)
}

fn claims(plan: &EdgePlan, key: &EdgeKey) -> anyhow::Result<Claims> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    Ok(Claims {
        tenant: plan.tenant().parse()?,
        name: plan.name.clone(),
        services: Names::of([SERVICE]),
        offers: if plan.offers.is_some() { Names::of([SERVICE]) } else { Names::none() },
        classes: Class::ALL.into(),
        issued: now,
        not_before: None,
        expires: now + TOKEN_LIFETIME.as_secs(),
        id: plan.name.parse()?,
        edge: key.public().id(),
    })
}

impl EdgePlan {
    fn tenant(&self) -> &str {
        self.cell.as_deref().unwrap_or(TENANT)
    }
}

impl World {
    fn edge_file(&self, edge: usize, targets: Targets, dir: &Path) -> EdgeFile<'_> {
        let (plan, place) = (&self.edges[edge], self.edge(edge));
        let service = |(protocol, target)| Service { name: SERVICE.to_owned(), protocol, target };
        let Targets { sink, web } = plan.target.unwrap_or(targets);
        let offered = [("udp", sink), ("tcp", web)];
        let forward =
            |(protocol, listen)| Forward { listen, protocol, service: SERVICE.to_owned() };
        let forwards = [("udp", place.udp), ("tcp", place.tcp)];
        EdgeFile {
            edge: EdgeSection {
                tenant: plan.tenant(),
                key_file: dir.join(KEY_FILE),
                token_file: dir.join(TOKEN_FILE),
                tenant_keys_file: dir.join(TENANT_KEYS_FILE),
            },
            access: Access {
                relays: plan.access.iter().map(|&relay| self.layout.relays[relay].access).collect(),
                nearest: false,
                ca_file: dir.join(CA_FILE),
            },
            admin: Listen { listen: place.admin },
            offer: plan
                .offers
                .map(|priority| Offer { service: SERVICE, priority })
                .into_iter()
                .collect(),
            service: offered.into_iter().filter(|_| plan.offers.is_some()).map(service).collect(),
            forward: forwards.into_iter().filter(|_| plan.forwards).map(forward).collect(),
        }
    }
}

/// Waits until every edge says that it is ready: attached twice where it knows two relays, and its forwards lead
/// somewhere.
fn wait_attached(world: &World, started: Instant, stage: &Stage) -> anyhow::Result<()> {
    loop {
        let edges = 0..world.edges.len();
        let waiting = edges.clone().filter(|&edge| !world.client.is_ready(world.edge(edge).admin));
        let waiting: Vec<usize> = waiting.collect();
        let Some(&first) = waiting.first() else { return Ok(()) };
        for edge in edges {
            world.check_alive(Node::Edge(edge))?;
        }
        if started.elapsed() > ATTACH_TIME_MAX {
            let node = Node::Edge(first);
            bail!("{} is not attached\n{}", world.name(node), world.tail(node));
        }
        stage.status(format!("{} edges are not attached yet", waiting.len()));
        stage.pause(LOOK)?;
    }
}
