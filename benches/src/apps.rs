//! `mqtt` and `webrtc`: programs that none of us wrote, over edges, while the relays under them die.
//!
//! A lab's mesh and edges of one tenant. A Python program of `benches/peers` is both ends of the application: an MQTT
//! broker (mosquitto) behind one edge, its publisher and subscriber behind two others; or a WebRTC call (aiortc), one end
//! behind each of two edges, ICE, DTLS and media over a UDP forward. The access relay of the near edge, that of the far
//! one, and a transit relay between them if there is one are frozen and killed in turn. The program notes what arrives,
//! and says at its end what came around each blow, and how long nothing came between them. The next blow waits until what
//! the program carries has come evenly for a second, and so does not hit what has not recovered from the last. The excess is that of `failover` and `entry-failover`: the gap less the
//! spacing, the growth of the path's delay, and a round trip of the link in front of the relay that was hit.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use overway::lab::drills::{self, Blow, Scene};
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::{Arrival, Felt, Flows, felt, percentile};
use overway::lab::profile::Profile;
use overway::lab::stage::Stage;
use overway::lab::world::{EdgePlan, Node, Targets, World, WorldOptions};
use overway_wire::Class;
use serde::Deserialize;

use crate::common::{self, Common};

mod program;

use program::Program;

/// Rounds, in each of which every relay that can be hit is frozen once and killed once.
const ROUNDS: usize = 5;
const CALLER: usize = 0;
const FAR: usize = 1;
/// The relays that the edges know, by name, in the default profile.
const NEAR_ACCESS: [&str; 3] = ["frankfurt", "zurich", "ashburn"];
const FAR_ACCESS: [&str; 3] = ["tokyo", "mumbai", "sydney"];
/// The programs tell arrivals of a little less after a blow (`benches/peers/marks.py`).
const WATCH: Duration = Duration::from_millis(2_600);
/// Between messages or frames.
const SPACING: Duration = Duration::from_millis(20);
/// What a silence that is no blow's may last: the program waits so long for an even flow, so a longer one is an outage.
const BETWEEN_MS_MAX: f64 = 1_000.0;
const READY_TIME_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// Where the programs are, from the directory in which one runs benchmarks.
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Arguments of `mqtt` and `webrtc`.
#[derive(Debug, Args)]
pub(crate) struct AppArgs {
    /// Seed of clocks, losses and jitter.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rounds of blows instead of 5.
    #[arg(long, value_name = "COUNT")]
    rounds: Option<u16>,
    /// The Python that has the packages.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
}

/// Which application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum App {
    Mqtt,
    Webrtc,
}

/// What its program says at its end.
#[derive(Debug, Deserialize)]
struct Told {
    blows: Vec<Around>,
    /// The longest time, in nanoseconds, in which nothing came outside of the watches, but for what the program stood
    /// still.
    silence_between: u64,
    /// The longest time in which the program stood still, likewise.
    stood_still: u64,
    sent: u64,
    lost: u64,
    duplicates: Option<u64>,
    tcp_connections_survived: Option<bool>,
    call_stands: Option<bool>,
}

/// What the program saw around a blow; times in nanoseconds of its own clock.
#[derive(Debug, Deserialize)]
struct Around {
    at: u64,
    over: u64,
    /// Numbers, and when each was sent and received.
    arrivals: Vec<(u64, u64, u64)>,
}

impl Told {
    /// Why a blow before which nothing had arrived tells nothing.
    fn unmeasured(&self, about: &str) -> String {
        let seconds = Duration::from_nanos(self.stood_still).as_secs_f64();
        format!(
            "{about}: nothing had arrived in the second before, though all had come evenly until then (the \
             program itself stood still for {seconds:.1} s at most: let less run beside it)"
        )
    }
}

/// A blow, as the benchmark knows it.
#[derive(Debug)]
struct Hit {
    /// For people.
    about: String,
    /// Of the link in front of the relay, on the way that takes longer.
    round_trip: Duration,
}

/// A relay that is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Near,
    Far,
    Transit,
}

/// Measures and returns the figures.
pub(crate) fn run(
    app: App,
    args: &AppArgs,
    common: &Common,
    stage: &Stage,
) -> anyhow::Result<Figures> {
    let rounds = args.rounds.map_or(if common.quick { 1 } else { ROUNDS }, usize::from);
    app.check(&args.python)?;
    let profile = Profile::world();
    stage.say(format!("profile {}, {}", profile.name(), common::machine()));
    let target = app.free_port()?;
    let world = World::start(&options(app, args.seed, profile, target)?, stage)?;
    let flows = Flows::start(world.sink(), Vec::new())?;
    let scene = Scene { world: &world, stage, flows: &flows };
    let mut program = Program::start(app, &args.python, &world, target)?;
    program.wait_ready(stage)?;
    let mut hits = Vec::new();
    for round in 1..=rounds {
        for blow in [Blow::Freeze, Blow::Kill] {
            for place in [Place::Near, Place::Far, Place::Transit] {
                hits.extend(strike(&scene, (app, &mut program), round, place, blow)?);
            }
        }
    }
    let told = program.end(stage)?;
    let felt = felt_of(&told, &hits)?;
    for (hit, (felt, excess)) in hits.iter().zip(&felt) {
        stage.say(line(hit, felt, *excess));
    }
    figures(app, &told, &felt)
}

fn options(
    app: App,
    seed: u64,
    profile: Profile,
    target: SocketAddr,
) -> anyhow::Result<WorldOptions> {
    let edge = |name: &str, access: [&str; 3], offers: bool| {
        let number = |name: &str| {
            let mut relays = 0..profile.relays().len();
            let found = relays.find(|&relay| profile.relay_name(relay) == name);
            found.context("a relay of the profile")
        };
        Ok::<_, anyhow::Error>(EdgePlan {
            name: name.to_owned(),
            access: access.into_iter().map(number).collect::<anyhow::Result<_>>()?,
            offers: offers.then_some(1),
            forwards: !offers,
            target: offers.then_some(Targets::both(target)),
            cell: None,
        })
    };
    let mut edges = vec![edge("near", NEAR_ACCESS, false)?, edge("far", FAR_ACCESS, true)?];
    if app == App::Mqtt {
        edges.push(edge("subscriber", NEAR_ACCESS, false)?);
    }
    let spawner = common::spawner("info")?;
    Ok(WorldOptions { spawner, profile, seed, dir: None, wires: Vec::new(), edges, workers: 1 })
}

/// One blow, and the relay's return. `None`: there was no relay to hit, for a path may lead over none.
fn strike(
    scene: &Scene<'_>,
    (app, program): (App, &mut Program),
    round: usize,
    place: Place,
    blow: Blow,
) -> anyhow::Result<Option<Hit>> {
    let Scene { world, stage, .. } = *scene;
    wait_whole(scene)?;
    program.wait_steady(stage, &format!("{round}: before {place:?} is {}", blow.text()))?;
    let (near, far) = (world.access_relay(CALLER)?, world.access_relay(FAR)?);
    let victim = match place {
        Place::Near => near,
        Place::Far => far,
        Place::Transit => {
            let path = world.path(near, far, app.class())?.unwrap_or_default();
            let between = path.into_iter().find(|relay| ![near, far].contains(relay));
            let Some(transit) = between else { return Ok(None) };
            transit
        }
    };
    let name = world.profile().relay_name(victim);
    let about = format!("{round}: {name} ({place:?}) is {}", blow.text());
    let mut round_trip = in_front(world, (near, far), victim, app.class())?;
    if app.answers_count() {
        round_trip = round_trip.max(in_front(world, (far, near), victim, app.class())?);
    }
    program.tell("blow")?;
    blow.hit(scene, victim)?;
    let watched = drills::wait(stage, WATCH, &about);
    scene.restore(victim)?;
    watched?;
    stage.say(about.as_str());
    Ok(Some(Hit { about, round_trip }))
}

/// The round trip of the link over which frames come to a relay on their way; none for the first, to which they come over
/// the attachment.
fn in_front(
    world: &World,
    (from, to): (usize, usize),
    victim: usize,
    class: Class,
) -> anyhow::Result<Duration> {
    let path = world.path(from, to, class)?.unwrap_or_default();
    let link = path.windows(2).find(|link| link[1] == victim);
    Ok(link.map_or(Duration::ZERO, |link| world.profile().round_trip(link[0], link[1])))
}

/// What each blow was felt like, and its excess in milliseconds.
fn felt_of(told: &Told, hits: &[Hit]) -> anyhow::Result<Vec<(Felt, f64)>> {
    let blows = &told.blows;
    if blows.len() != hits.len() {
        bail!("the program has seen {} of {} blows", blows.len(), hits.len());
    }
    let one = |(around, hit): (&Around, &Hit)| {
        let arrivals = around.arrivals.iter().map(|&(sequence, sent, received)| Arrival {
            sequence,
            sent,
            received,
            duplicate: false,
        });
        let arrivals: Vec<Arrival> = arrivals.collect();
        let felt =
            felt(&arrivals, around.at, around.over).with_context(|| told.unmeasured(&hit.about))?;
        Ok((felt, felt.excess_ms(SPACING, hit.round_trip)))
    };
    blows.iter().zip(hits).map(one).collect()
}

fn line(hit: &Hit, felt: &Felt, excess_ms: f64) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let growth = ms(felt.delay_detour.saturating_sub(felt.delay_before));
    format!(
        "{}: gap {:.0} ms, excess {excess_ms:.0} ms (the path {growth:.0} ms longer, the link in front {:.0} ms there and back)",
        hit.about,
        felt.gap_ms(),
        ms(hit.round_trip),
    )
}

/// Waits until every edge is attached twice.
fn wait_whole(scene: &Scene<'_>) -> anyhow::Result<()> {
    let started = Instant::now();
    for node in scene.world.nodes() {
        let Node::Edge(edge) = node else { continue };
        while !scene.world.is_edge_whole(edge) {
            scene.world.check_alive(node)?;
            if started.elapsed() > READY_TIME_MAX {
                let (name, tail) = (scene.world.name(node), scene.world.tail(node));
                bail!("{name} is not attached twice after {READY_TIME_MAX:?}\n{tail}");
            }
            scene.stage.status("waiting for the edges' attachments");
            scene.stage.pause(LOOK)?;
        }
    }
    Ok(())
}

fn figures(app: App, told: &Told, felt: &[(Felt, f64)]) -> anyhow::Result<Figures> {
    let Told { blows, sent, lost, duplicates, tcp_connections_survived, call_stands, .. } = told;
    let ms = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64() * 1e3;
    let name = |what: &str| format!("{}_{what}", app.name());
    let mut figures = Figures::default();
    figures.add(&name("blows"), blows.len() as f64, Promise::AtLeast(1.0));
    figures.add(&name("sent"), *sent as f64, Promise::AtLeast(1.0));
    let gaps: Vec<f64> = felt.iter().map(|(felt, _)| felt.gap_ms()).collect();
    let excess: Vec<f64> = felt.iter().map(|(_, excess)| *excess).collect();
    for (what, values) in [("gap_ms", &gaps), ("excess_ms", &excess)] {
        for (which, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            let figure = name(&format!("{what}_{which}"));
            figures.add_measured(&figure, percentile(values, share), Promise::Reported);
        }
    }
    let between = Promise::AtMost(BETWEEN_MS_MAX);
    figures.add(&name("between_gap_ms_max"), ms(told.silence_between), between);
    figures.add(&name("own_stall_ms_max"), ms(told.stood_still), Promise::Reported);
    match app {
        App::Mqtt => {
            figures.add(&name("lost"), *lost as f64, Promise::AtMost(0.0));
            let duplicates = duplicates.context("the program has not counted duplicates")?;
            figures.add(&name("duplicates"), duplicates as f64, Promise::Reported);
            let survived = tcp_connections_survived.context("nor its connections")?;
            figures.add("tcp_connections_survived", survived, Promise::True);
        }
        App::Webrtc => {
            figures.add(&name("lost"), *lost as f64, Promise::Reported);
            let stands = call_stands.context("the program has not said how the call fares")?;
            figures.add(&name("call_stands"), stands, Promise::True);
        }
    }
    Ok(figures)
}

impl App {
    const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Webrtc => "webrtc",
        }
    }

    /// That of what it sends.
    const fn class(self) -> Class {
        match self {
            Self::Mqtt => Class::Interactive,
            Self::Webrtc => Class::Realtime,
        }
    }

    /// Whether what arrives has gone both ways: to the broker and back.
    const fn answers_count(self) -> bool {
        match self {
            Self::Mqtt => true,
            Self::Webrtc => false,
        }
    }

    /// Whether what it needs is installed.
    fn check(self, python: &Path) -> anyhow::Result<()> {
        let (module, remedy) = match self {
            Self::Mqtt => ("paho.mqtt.client", "pip install paho-mqtt; apt-get install mosquitto"),
            Self::Webrtc => ("aiortc", "pip install aiortc"),
        };
        let import = Command::new(python).args(["-c", &format!("import {module}")]).output();
        let found = import.is_ok_and(|output| output.status.success());
        if !found {
            let python = python.display();
            bail!(
                "{python} has no {module}: make an environment with `python3 -m venv DIR`, in it \
                 `{remedy}`, and name its Python with --python DIR/bin/python"
            );
        }
        let broker = Path::new("/usr/sbin/mosquitto");
        if self == Self::Mqtt && !broker.exists() {
            let found = Command::new("mosquitto").arg("-h").output();
            found.context("there is no mosquitto: apt-get install mosquitto")?;
        }
        Ok(())
    }

    /// A port of loopback that is free at the moment, for what the far edge offers: the program binds it later.
    fn free_port(self) -> anyhow::Result<SocketAddr> {
        let any = (Ipv4Addr::LOCALHOST, 0);
        let address = match self {
            Self::Mqtt => TcpListener::bind(any)?.local_addr(),
            Self::Webrtc => UdpSocket::bind(any)?.local_addr(),
        };
        Ok(address?)
    }

    /// The program's arguments: the ports that it is to use.
    fn ports(self, world: &World, target: SocketAddr) -> Vec<u16> {
        match self {
            Self::Mqtt => {
                vec![target.port(), world.edge(CALLER).tcp.port(), world.edge(2).tcp.port()]
            }
            Self::Webrtc => vec![target.port(), world.edge(CALLER).udp.port()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arrivals every 20 ms, sent 50 ms before, and 60 ms before from a pause of 300 ms on.
    fn around() -> String {
        let ms = |ms: u64| ms * 1_000_000;
        let before = (0..50).map(|at| [at, ms(1_000 + at * 20), ms(1_050 + at * 20)]);
        let after = (50..150).map(|at| [at, ms(1_270 + at * 20), ms(1_330 + at * 20)]);
        let arrivals: Vec<[u64; 3]> = before.chain(after).collect();
        format!(
            r#"{{"at": {}, "over": {}, "arrivals": {}}}"#,
            ms(2_040),
            ms(4_540),
            serde_json::to_string(&arrivals).unwrap()
        )
    }

    fn hit() -> Hit {
        Hit { about: "tokyo is killed".to_owned(), round_trip: Duration::from_millis(110) }
    }

    #[test]
    fn the_excess_of_a_blow_is_what_paths_do_not_explain() {
        let webrtc = format!(
            r#"{{"blows": [{}], "silence_between": 20000000, "stood_still": 0, "sent": 511, "lost": 3, "call_stands": true}}"#,
            around()
        );
        let told: Told = serde_json::from_str(&webrtc).unwrap();

        let felt = felt_of(&told, &[hit()]).unwrap();

        // 1_330 + 50 x 20 after 1_050 + 49 x 20; less 20, 10 and 110.
        assert!((felt[0].0.gap_ms() - 300.0).abs() < 1e-6);
        assert!((felt[0].1 - 160.0).abs() < 1e-6);
        let line = line(&hit(), &felt[0].0, felt[0].1);
        assert!(line.starts_with("tokyo is killed: gap 300 ms, excess 160 ms (the path 10 ms"));
        assert!(figures(App::Webrtc, &told, &felt).unwrap().are_kept());
        assert!(felt_of(&told, &[hit(), hit()]).is_err(), "a blow was missed");
    }

    #[test]
    fn what_the_programs_say_is_read() {
        let mqtt = r#"{"blows": [{"at": 5, "over": 9, "arrivals": [[1, 2, 3]]}], "silence_between": 20000000, "stood_still": 1500000000, "sent": 329, "lost": 0, "duplicates": 2, "tcp_connections_survived": true}"#;

        let told: Told = serde_json::from_str(mqtt).unwrap();
        let felt = felt_of(&told, &[hit()]).unwrap();
        assert!(figures(App::Mqtt, &told, &felt).unwrap().are_kept());
        let lossy = Told { lost: 1, ..told };
        assert!(figures(App::Mqtt, &lossy, &felt).is_ok_and(|it| !it.are_kept()));
        let silent = Told { silence_between: 1_100_000_000, lost: 0, ..lossy };
        assert!(figures(App::Mqtt, &silent, &felt).is_ok_and(|it| !it.are_kept()), "no blow's");

        let blows = vec![Around { arrivals: Vec::new(), ..silent.blows[0] }];
        let error = felt_of(&Told { blows, ..silent }, &[hit()]).unwrap_err().to_string();
        assert!(error.contains("the program itself stood still for 1.5 s"), "{error}");
    }

    #[test]
    fn the_programs_are_where_they_are_looked_for() {
        for app in [App::Mqtt, App::Webrtc] {
            assert!(Path::new(PROGRAMS).join(format!("{}.py", app.name())).exists());
        }
    }
}
