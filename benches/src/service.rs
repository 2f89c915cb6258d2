//! `service-failover`: the edge behind which a service is offered is killed or frozen; how long until a consumer's next
//! request succeeds at another endpoint?
//!
//! A lab's mesh and three edges of one tenant: a consumer with a forward, a primary and a backup that offer the service.
//! Requests follow one another, each a connection of its own, as from a client that connects again when it gets no
//! answer. Then the primary's process is killed or frozen, and the time taken from the blow to the end of the first request
//! that succeeds, and to that of a connection to the primary that was open at the blow and waited for an answer. The
//! primary comes back, and the next blow waits until requests go to it again.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use overway::lab::drills::Blow;
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::percentile;
use overway::lab::profile::Profile;
use overway::lab::stage::{Ink, Stage};
use overway::lab::world::{Condition, EdgePlan, Node, World, WorldOptions};

use crate::common::{self, Common, spread};

/// Crashes, and freezes.
const EACH: usize = 20;
/// The promises: p99 in seconds.
const CRASH_S_MAX: f64 = 1.0;
const FREEZE_S_MAX: f64 = 3.0;
const CONSUMER: usize = 0;
const PRIMARY: usize = 1;
/// A client that has no answer by then connects again. Few are less patient; a request to the backup takes 0.45 s by itself.
const REQUEST_MAX: Duration = Duration::from_secs(2);
/// How long the open connection stands before the blow: it reaches the primary in a third of that.
const STANDS: Duration = Duration::from_millis(500);
const BETWEEN: Duration = Duration::from_millis(20);
/// The next request must succeed within this time, or the benchmark ends.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// How long requests may take to go to the primary again.
const BACK_MAX: Duration = Duration::from_secs(60);
/// Requests to the primary in a row before a blow.
const CALM: u32 = 20;
const LOOK: Duration = Duration::from_millis(50);
/// Bytes of an answer's body.
const BODY_BYTES: usize = 1_024;

/// Arguments of `service-failover`.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// Seed of clocks, losses and jitter.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Crashes, and freezes, instead of 20 each.
    #[arg(long, value_name = "COUNT")]
    episodes: Option<u16>,
}

/// Measures and returns the figures.
pub(crate) fn run(args: &ServiceArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let each = args.episodes.map_or(if common.quick { 2 } else { EACH }, usize::from);
    let profile = Profile::world();
    stage.say(format!("profile {}, {}", profile.name(), common::machine()));
    let world = World::start(&options(args.seed, profile)?, stage)?;
    let (mut crashes, mut freezes) = (Taken::default(), Taken::default());
    let mut ended = Ok(());
    for round in 1..=each {
        for (blow, taken) in [(Blow::Kill, &mut crashes), (Blow::Freeze, &mut freezes)] {
            match strike(&world, blow, stage) {
                Ok((next, open)) => {
                    taken.next.push(next);
                    taken.open.push(open);
                }
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
            let (what, next, open) = (blow.text(), spread(&taken.next), spread(&taken.open));
            stage.say(format!(
                "{round}: primary {what}: p50 / p99 so far {next} s to the next success, {open} s to the end of what was open"
            ));
        }
        if ended.is_err() {
            break;
        }
    }
    if let Err(error) = &ended {
        stage.say(stage.ink(Ink::Red, format!("ended early: {error:#}")));
    }
    let enough = if each >= EACH { Promise::AtLeast(EACH as f64) } else { Promise::Reported };
    let mut figures = Figures::default();
    for (name, taken, most) in
        [("crash", &crashes, CRASH_S_MAX), ("freeze", &freezes, FREEZE_S_MAX)]
    {
        let Taken { next, open } = taken;
        figures.add(&format!("{name}_samples"), next.len() as f64, enough);
        figures.add_measured(&format!("{name}_s_p50"), percentile(next, 0.5), Promise::Reported);
        let p99 = percentile(next, 0.99);
        figures.add_measured(&format!("{name}_s_p99"), p99, Promise::AtMost(most));
        for (which, part) in [("p50", 0.5), ("p99", 0.99)] {
            let ends = percentile(open, part);
            figures.add_measured(&format!("{name}_open_s_{which}"), ends, Promise::Reported);
        }
    }
    figures.add("completed", ended.is_ok(), Promise::True);
    Ok(figures)
}

fn options(seed: u64, profile: Profile) -> anyhow::Result<WorldOptions> {
    let relays = 0..profile.relays().len();
    let named = |name: &str| {
        let mut relays = relays.clone();
        relays.find(|&relay| profile.relay_name(relay) == name).context("a relay of the profile")
    };
    let edge = |name: &str, relays: [&str; 3], offers: Option<u32>| {
        let access = relays.into_iter().map(named).collect::<anyhow::Result<_>>()?;
        Ok::<_, anyhow::Error>(EdgePlan {
            name: name.to_owned(),
            access,
            forwards: offers.is_none(),
            target: None,
            cell: None,
            offers,
        })
    };
    let edges = vec![
        edge("consumer", ["frankfurt", "zurich", "ashburn"], None)?,
        edge("primary", ["ashburn", "chicago", "zurich"], Some(1))?,
        edge("backup", ["tokyo", "mumbai", "sydney"], Some(2))?,
    ];
    let spawner = common::spawner("info")?;
    Ok(WorldOptions { spawner, profile, seed, dir: None, wires: Vec::new(), edges, workers: 1 })
}

/// Seconds from blows to what followed.
#[derive(Default)]
struct Taken {
    next: Vec<f64>,
    open: Vec<f64>,
}

/// One blow; the seconds until a request succeeded, and until a connection ended that was open.
fn strike(world: &World, blow: Blow, stage: &Stage) -> anyhow::Result<(f64, f64)> {
    let node = Node::Edge(PRIMARY);
    wait_primary(world, stage)?;
    let open = open(world.edge(CONSUMER).tcp).context("a connection before the blow")?;
    stage.pause(STANDS)?;
    let start = Instant::now();
    let ended = std::thread::spawn(move || {
        let ended = has_ended(open);
        ended.map(|()| start.elapsed().as_secs_f64())
    });
    match blow {
        Blow::Kill => world.kill(node)?,
        Blow::Freeze => world.freeze(node)?,
    }
    let forward = world.edge(CONSUMER).tcp;
    while request(forward).is_err() {
        if start.elapsed() > RECOVERY_MAX {
            bail!("no request succeeds {RECOVERY_MAX:?} after the primary was {}", blow.text());
        }
        stage.pause(BETWEEN)?;
    }
    let taken = start.elapsed().as_secs_f64();
    let ended = ended.join().map_err(|_| anyhow::anyhow!("the open connection's thread failed"))?;
    let ended = ended.with_context(|| {
        format!("what was open when the primary was {} did not end", blow.text())
    })?;
    match world.condition(node).1 {
        Condition::Frozen => world.thaw(node)?,
        Condition::Dead => world.restart(node, stage)?,
        Condition::Running => {}
    }
    Ok((taken, ended))
}

/// Waits until requests in a row are served by the primary.
fn wait_primary(world: &World, stage: &Stage) -> anyhow::Result<()> {
    let (started, forward) = (Instant::now(), world.edge(CONSUMER).tcp);
    let mut calm = 0;
    while calm < CALM {
        let before = world.edge_served(PRIMARY).unwrap_or(0);
        let answered = request(forward).is_ok();
        let served = world.edge_served(PRIMARY).is_ok_and(|after| after > before);
        calm = if answered && served { calm + 1 } else { 0 };
        if started.elapsed() > BACK_MAX {
            bail!("requests do not go to the primary after {BACK_MAX:?}");
        }
        stage.status(format!("{calm} of {CALM} requests in a row went to the primary"));
        stage.pause(if calm == 0 { LOOK } else { BETWEEN })?;
    }
    Ok(())
}

/// A connection on which an answer is waited for: the end of the request is never sent.
fn open(forward: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&forward, REQUEST_MAX)?;
    stream.set_read_timeout(Some(RECOVERY_MAX))?;
    stream.write_all(b"GET /bytes/1 HTTP/1.1\r\n")?;
    Ok(stream)
}

/// Waits until a connection ends, with or without an error.
fn has_ended(mut stream: TcpStream) -> io::Result<()> {
    match stream.read(&mut [0; 1]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
        Ok(1..) => Err(io::Error::other("it was answered")),
        Ok(0) | Err(_) => Ok(()),
    }
}

/// One request on a connection of its own.
fn request(forward: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&forward, REQUEST_MAX)?;
    stream.set_read_timeout(Some(REQUEST_MAX))?;
    let head =
        format!("GET /bytes/{BODY_BYTES} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(1 << 16).read_to_end(&mut answer)?;
    let whole = answer.starts_with(b"HTTP/1.1 200") && answer.len() > BODY_BYTES;
    if whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
