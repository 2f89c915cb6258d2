//! Verbs from other terminals: a loopback HTTP interface of the running lab, and how it is found.
//!
//! The lab writes `lab.json`, with its address, into the user's runtime directory (or the system's
//! temporary one, under the user's number) and into its own directory. A verb reads the file, sends one
//! [`Request`], and prints the [`Answer`]'s text.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use axum::{Json, Router};
use overway_wire::Class;
use serde::{Deserialize, Serialize};

use super::admin::Client;
use super::stage::{Stage, Stop};
use super::world::{Condition, Degradation, Node, World};

/// The file's name.
const FILE: &str = "lab.json";
/// Bytes of the longest request.
const BODY_BYTES_MAX: usize = 4 << 10;

/// What a verb asks of a lab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verb")]
pub(super) enum Request {
    Status,
    Degrade { a: String, b: String, one_way: bool, by: Degradation },
    CutOff { cell: String },
    Freeze { name: String },
    Kill { name: String },
    Restore { name: Option<String> },
    Stop,
}

/// What a lab answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// For people.
    pub(super) text: String,
    /// For programs; `null` unless asked for.
    pub(super) status: Option<Status>,
}

/// The state of a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Status {
    dir: PathBuf,
    scheduler_admin: SocketAddr,
    processes: Vec<ProcessStatus>,
    forwards: Vec<ForwardStatus>,
    /// Lines that were cut or degraded, as names; a relay's from the scheduler too.
    disturbed: Vec<(String, String)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ProcessStatus {
    name: String,
    pid: Option<u32>,
    condition: Condition,
    admin: SocketAddr,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ForwardStatus {
    entry: String,
    exit: String,
    tcp: SocketAddr,
    udp: SocketAddr,
    /// The path that a new connection's frames would take now.
    path: Option<Vec<String>>,
}

/// How a lab is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    address: SocketAddr,
    pid: u32,
    dir: PathBuf,
}

/// A lab that takes verbs. Dropping it removes the files.
#[derive(Debug)]
pub(super) struct Lab {
    found: Found,
    files: Vec<PathBuf>,
}

impl Lab {
    /// Serves verbs until the world ends.
    pub(super) fn open(world: &Arc<World>, stop: Stop) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        // Weak, so that the servers do not keep the mesh alive.
        let shared = Shared { world: Arc::downgrade(world), stop };
        let router = Router::new()
            .route("/v1/lab", post(serve))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(shared);
        let _guard = world.runtime().enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::spawn(async move {
            // It ends with the runtime.
            let _ = axum::serve(listener, router).await;
        });
        let found = Found { address, pid: std::process::id(), dir: world.dir().to_owned() };
        let text = serde_json::to_string_pretty(&found)?;
        let files = vec![world.dir().join(FILE), user_file()?];
        for file in &files {
            std::fs::write(file, &text)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(Self { found, files })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for file in &self.files {
            // Of another lab by now, or gone: both are as they should be.
            if read(file).is_ok_and(|found| found == self.found) {
                let _ = std::fs::remove_file(file);
            }
        }
    }
}

/// Sends a request to the lab in `dir`, or to the one started last.
pub(super) fn ask(dir: Option<&Path>, request: &Request) -> anyhow::Result<Answer> {
    let file = match dir {
        Some(dir) => dir.join(FILE),
        None => user_file()?,
    };
    if !file.exists() {
        bail!("no lab runs ({} is not there); start one with `overway lab`", file.display());
    }
    let found = read(&file)?;
    if !is_alive(found.pid) {
        bail!("the lab of {} has ended without a goodbye", found.dir.display());
    }
    Client::new().perform(found.address, request)
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

fn read(file: &Path) -> anyhow::Result<Found> {
    let text = std::fs::read_to_string(file)?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))
}

/// The file of the user's latest lab.
fn user_file() -> anyhow::Result<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    let dir = match runtime {
        Some(dir) => dir.join("overway"),
        None => {
            let user = rustix::process::getuid().as_raw();
            std::env::temp_dir().join(format!("overway-{user}"))
        }
    };
    make_private(&dir).with_context(|| format!("cannot use {}", dir.display()))?;
    Ok(dir.join(FILE))
}

/// Makes the directory for its owner alone. Another user's, who could name an address of theirs, is
/// refused.
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let about = std::fs::symlink_metadata(dir)?;
    if about.is_dir() && about.uid() == rustix::process::getuid().as_raw() {
        Ok(())
    } else {
        Err(std::io::Error::other("it belongs to another user"))
    }
}

#[derive(Clone, Debug)]
struct Shared {
    world: std::sync::Weak<World>,
    stop: Stop,
}

/// Answers a request. A page in a browser cannot send one: it needs JSON's content type, which browsers
/// ask permission for, and a numeric host.
async fn serve(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(request): Json<Request>,
) -> Result<Json<Answer>, (StatusCode, String)> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if host.parse::<SocketAddr>().is_err() {
        return Err((StatusCode::FORBIDDEN, "the host is no address".to_owned()));
    }
    let Some(world) = shared.world.upgrade() else {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "the lab is ending".to_owned()));
    };
    let stop = shared.stop;
    let done = tokio::task::spawn_blocking(move || perform(&world, &stop, &request)).await;
    match done {
        Ok(Ok(answer)) => Ok(Json(answer)),
        Ok(Err(error)) => Err((StatusCode::BAD_REQUEST, format!("{error:#}"))),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

fn perform(world: &World, stop: &Stop, request: &Request) -> anyhow::Result<Answer> {
    let text = match request {
        Request::Status => {
            let status = status(world);
            return Ok(Answer { text: status.text(), status: Some(status) });
        }
        Request::Degrade { a, b, one_way, by } => degrade(world, a, b, *one_way, by)?,
        Request::CutOff { cell } => cut_off(world, cell)?,
        Request::Freeze { name } => {
            world.freeze(world.node(name)?)?;
            format!("{name} is frozen; `overway lab restore {name}` lets it go on")
        }
        Request::Kill { name } => {
            world.kill(world.node(name)?)?;
            format!("{name} is dead; `overway lab restore {name}` starts it anew")
        }
        Request::Restore { name } => restore(world, name.as_deref())?,
        Request::Stop => {
            stop.set();
            "the lab ends".to_owned()
        }
    };
    Ok(Answer { text, status: None })
}

fn degrade(
    world: &World,
    a: &str,
    b: &str,
    one_way: bool,
    by: &Degradation,
) -> anyhow::Result<String> {
    let [from, to] = [relay(world, a)?, relay(world, b)?];
    world.degrade(Node::Relay(from), to, by)?;
    if !one_way {
        world.degrade(Node::Relay(to), from, by)?;
    }
    let what = if by.cut { "cut" } else { "degraded" };
    let ways = if one_way { "that way only" } else { "and back" };
    Ok(format!("{a} > {b} is {what}, {ways}; `overway lab restore` undoes it"))
}

fn cut_off(world: &World, cell: &str) -> anyhow::Result<String> {
    let cells = world.profile().cells();
    let found = cells.iter().find(|known| known.name == cell).with_context(|| {
        let names: Vec<&str> = cells.iter().map(|cell| cell.name.as_str()).collect();
        format!("there is no cell {cell:?} in this lab's profile; there are: {}", names.join(", "))
    })?;
    let relays = world.profile().relays_of(found);
    world.cut_off(&relays)?;
    let names = world.names_text(&relays);
    Ok(format!(
        "{names} hear no other relay and no scheduler, and are not heard; `overway lab restore` undoes it"
    ))
}

fn relay(world: &World, name: &str) -> anyhow::Result<usize> {
    match world.node(name)? {
        Node::Relay(relay) => Ok(relay),
        Node::Edge(_) => bail!("edges have no lines of their own; name two relays"),
        Node::Scheduler => bail!("the scheduler has no lines to relays; name two relays"),
    }
}

fn restore(world: &World, name: Option<&str>) -> anyhow::Result<String> {
    let nodes = match name {
        Some(name) => vec![world.node(name)?],
        None => world.nodes().collect(),
    };
    let mut done = Vec::new();
    for &node in &nodes {
        let name = world.name(node);
        match world.condition(node).1 {
            Condition::Running => {}
            Condition::Frozen => {
                world.thaw(node)?;
                done.push(format!("{name} goes on"));
            }
            Condition::Dead => {
                world.restart(node, &Stage::silent())?;
                done.push(format!("{name} is started anew"));
            }
        }
    }
    for (from, to) in world.disturbed() {
        if nodes.contains(&from) || nodes.contains(&Node::Relay(to)) {
            world.restore(from, to)?;
            done.push(format!("{} is as it was", world.line_text((from, to))));
        }
    }
    Ok(if done.is_empty() { "there was nothing to restore".to_owned() } else { done.join("\n") })
}

fn status(world: &World) -> Status {
    let name = |relay: usize| world.profile().relay_name(relay).to_owned();
    let processes = world.nodes().map(|node| {
        let (pid, condition) = world.condition(node);
        let admin = match node {
            Node::Relay(relay) => world.relay_admin(relay),
            Node::Edge(edge) => world.edge(edge).admin,
            Node::Scheduler => world.scheduler_admin(),
        };
        ProcessStatus { name: world.name(node).to_owned(), pid, condition, admin }
    });
    let forwards = world.wires().iter().map(|wire| {
        // A frozen entry does not answer, and is not waited for.
        let awake = world.condition(Node::Relay(wire.entry)).1 == Condition::Running;
        let path = awake.then(|| world.path(wire.entry, wire.exit, Class::Interactive));
        let path = path.and_then(Result::ok).flatten();
        ForwardStatus {
            entry: name(wire.entry),
            exit: name(wire.exit),
            tcp: wire.tcp,
            udp: wire.udp,
            path: path.map(|path| path.into_iter().map(name).collect()),
        }
    });
    Status {
        dir: world.dir().to_owned(),
        scheduler_admin: world.scheduler_admin(),
        processes: processes.collect(),
        forwards: forwards.collect(),
        disturbed: world
            .disturbed()
            .into_iter()
            .map(|(from, to)| (world.name(from).to_owned(), name(to)))
            .collect(),
    }
}

impl Status {
    fn text(&self) -> String {
        let Self { dir, scheduler_admin, processes, forwards, disturbed } = self;
        let mut lines = vec![
            format!("directory  {}", dir.display()),
            format!("details    overway status --admin http://{scheduler_admin}"),
        ];
        for process in processes {
            let ProcessStatus { name, pid, condition, admin } = process;
            let pid = pid.map_or("-".to_owned(), |pid| pid.to_string());
            let condition = format!("{condition:?}").to_lowercase();
            lines.push(format!("  {name:16} {condition:8} pid {pid:8} http://{admin}"));
        }
        lines.push("forwards, and the paths that they take now".to_owned());
        for forward in forwards {
            let ForwardStatus { entry, exit, tcp, udp, path } = forward;
            let path = path.as_ref().map_or("not known".to_owned(), |path| path.join(" > "));
            lines.push(format!("  {entry} to {exit}: tcp {tcp}, udp {udp}: {path}"));
        }
        for (from, to) in disturbed {
            lines.push(format!("disturbed: {from} > {to}"));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_json_form() {
        for request in [
            Request::Status,
            Request::Freeze { name: "tokyo".to_owned() },
            Request::Restore { name: None },
            Request::CutOff { cell: "asia".to_owned() },
            Request::Degrade {
                a: "tokyo".to_owned(),
                b: "pune".to_owned(),
                one_way: true,
                by: Degradation { loss: Some(0.15), delay_ms: 100.0, ..Degradation::default() },
            },
        ] {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }
    }

    #[test]
    fn a_directory_of_our_own_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("overway");

        make_private(&dir).unwrap();
        make_private(&dir).unwrap();

        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(base.path().join("file"), "").unwrap();
        assert!(make_private(&base.path().join("file")).is_err());
    }
}
