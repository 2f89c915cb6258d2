//! `overway lab`: what the mesh gains and how it heals, for people to watch, and then to play with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use overway_wire::Class;

use super::drills::{self, Blow, FlowPaths, Scene, Strike};
use super::flow::{Felt, Flows, felt};
use super::stage::{Ink, Stage, Stopped};
use super::transfer::{Fetch, Fetched};
use super::world::{Condition, Node, Wire, World};

/// Time for estimates to settle before the mesh is asked what it gains.
const SETTLE: Duration = Duration::from_secs(10);
/// The file that is under way while relays fail: its rate, and how long it takes.
const STREAM_MBPS: f64 = 32.0;
const STREAM_TIME: Duration = Duration::from_secs(20);
/// Time between two blows, for eyes.
const BREATH: Duration = Duration::from_secs(3);
/// How often the board is brought up to date.
const BOARD: Duration = Duration::from_millis(250);
/// How often relays are asked for paths for the board.
const PATHS: Duration = Duration::from_secs(1);
/// Pairs that are shown.
const PAIRS_SHOWN: usize = 5;

/// Shows everything, then stays until the lab is stopped.
///
/// # Errors
/// Something did not come up or come back.
pub(super) fn run(world: &Arc<World>, stage: &Stage) -> anyhow::Result<()> {
    let specs = world.wires().iter().map(|wire| world.voice(wire)).collect();
    let flows = Flows::start(world.sink(), specs)?;
    let scene = Scene { world, stage, flows: &flows };
    let ending = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let board = threads.spawn(|| keep_board(&scene, &ending));
        let shown = show(&scene).and_then(|()| stay(&scene));
        ending.store(true, Ordering::Relaxed);
        // It panicked; that was printed.
        let _ = board.join();
        match shown {
            Err(error) if error.is::<Stopped>() => Ok(()),
            outcome => outcome,
        }
    })
}

fn show(scene: &Scene<'_>) -> anyhow::Result<()> {
    let Scene { world, stage, flows } = *scene;
    scene.wait_flows()?;
    let count = flows.specs().len();
    stage.say(format!("{count} UDP flows of 50 frames/s run through forwarded ports"));
    drills::wait(stage, SETTLE, "the relays measure their links")?;
    show_pairs(scene)?;
    let wire = drills::stream_wire(scene)?;
    let ends = world.path_text(&[wire.entry, wire.exit]);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive rate times a positive time"
    )]
    let bytes = (STREAM_MBPS * 1e6 / 8.0 * STREAM_TIME.as_secs_f64()) as u64;
    let fetch = Fetch::start(wire.tcp, world.seed(), bytes, Some(STREAM_MBPS))?;
    stage.say(format!("a file of {} MB starts over TCP, {ends}", bytes / 1_000_000));
    drills::wait(stage, BREATH, "a file comes through")?;
    let mut strikes = Vec::new();
    for blow in [Blow::Freeze, Blow::Kill] {
        let strike = drills::strike(scene, blow)?;
        stage.say(stage.ink(Ink::Yellow, strike.text(scene)));
        for sample in &strike.samples {
            stage.say(format!("  {}", sample.text(scene)));
        }
        strikes.push(strike);
        drills::wait(stage, BREATH, "it is back; a file comes through")?;
    }
    while !fetch.is_over() {
        let megabytes = fetch.bytes() / 1_000_000;
        stage.status(format!("the rest of the file comes through: {megabytes} MB"));
        stage.pause(Duration::from_millis(100))?;
    }
    summary(scene, &strikes, &fetch.join());
    Ok(())
}

fn show_pairs(scene: &Scene<'_>) -> anyhow::Result<()> {
    let Scene { world, stage, .. } = *scene;
    let pairs = drills::pairs(world)?;
    let (improved, count) = (pairs.mesh.improved, pairs.mesh.pairs);
    let (share, gain) = (pairs.mesh.share() * 100.0, pairs.mesh.median_gain_ms);
    let text = format!(
        "{improved} of {count} ordered pairs ({share:.0} %) are faster over other relays than directly, \
         by {gain:.0} ms in the median"
    );
    stage.say(stage.ink(Ink::Bold, text));
    for pair in pairs.improved.iter().take(PAIRS_SHOWN) {
        stage.say(format!("  {}", stage.ink(Ink::Green, pair.text(world))));
    }
    Ok(())
}

fn summary(scene: &Scene<'_>, strikes: &[Strike], fetched: &Fetched) {
    let stage = scene.stage;
    let (mb, stall) = (fetched.bytes as f64 / 1e6, fetched.stall.as_secs_f64() * 1e3);
    let file = match &fetched.problem {
        None if fetched.is_whole() => {
            let client = fetched.client;
            let text = format!(
                "the file came whole by {client} over one TCP connection: {mb:.0} MB verified by SHA-256, \
                 longest stall {stall:.0} ms"
            );
            stage.ink(Ink::Green, text)
        }
        problem => {
            let why = problem.as_deref().unwrap_or("its bytes are not the right ones");
            stage.ink(Ink::Red, format!("the file did not come whole ({mb:.0} MB): {why}"))
        }
    };
    stage.say(file);
    let samples: usize = strikes.iter().map(|strike| strike.samples.len()).sum();
    let worst = strikes.iter().filter_map(Strike::excess_ms_max).max_by(f64::total_cmp);
    if let Some(worst) = worst {
        stage.say(format!(
            "{samples} flows lost their relay; beyond what the paths themselves explain the worst waited \
             {worst:.0} ms"
        ));
    }
    commands(scene);
}

/// What to try, with names and addresses of this lab.
fn commands(scene: &Scene<'_>) {
    let Scene { world, stage, .. } = *scene;
    let Some(wire) = world.wires().first() else { return };
    let path = world.path(wire.entry, wire.exit, Class::Realtime).ok().flatten();
    let path = path.unwrap_or_else(|| vec![wire.entry, wire.exit]);
    let name = |relay: usize| world.profile().relay_name(relay);
    let (a, b) = (name(path[0]), name(path[1]));
    let transit = if path.len() > 2 { b } else { name(world.profile().relays().len() - 1) };
    stage.say("");
    stage.say(stage.ink(Ink::Bold, "The mesh stays up. From another terminal:"));
    let lab = format!("{} lab", program());
    let commands = [
        (format!("curl http://{}/", wire.tcp), "a page through the mesh"),
        (format!("{lab} status"), "processes, forwards, paths"),
        (format!("{lab} cut {a} {b}"), "nothing passes between the two"),
        (format!("{lab} degrade {a} {b} --loss 0.15 --delay 100"), "a bad line"),
        (format!("{lab} freeze {transit}"), "stop the process"),
        (format!("{lab} kill {transit}"), "kill it; `kill scheduler` works too"),
        (format!("{lab} restore"), "undo all of it"),
    ];
    let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    for (command, about) in commands {
        let about = stage.ink(Ink::Dim, format!("# {about}"));
        stage.say(format!("  {command:width$}  {about}"));
    }
    let logs = world.dir().join("logs");
    stage.say(stage.ink(Ink::Dim, format!("Logs are in {}. Ctrl-C ends the lab.", logs.display())));
}

/// How this program was called, so that what is printed can be copied: it need not be installed.
pub(super) fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    if called.contains('/') { called } else { "overway".to_owned() }
}

/// Until the lab is stopped. Says when a process is disturbed or ends by itself, or an edge attaches elsewhere.
fn stay(scene: &Scene<'_>) -> anyhow::Result<()> {
    let Scene { world, stage, .. } = *scene;
    let mut known = changes(world, stage, &[]);
    loop {
        known = changes(world, stage, &known);
        if stage.is_terminal() {
            stage.status("the flows go on:");
        }
        stage.pause(BOARD)?;
    }
}

/// How each process fares, and where edges are attached; says what is other than it was known.
pub(super) fn changes(world: &World, stage: &Stage, known: &[String]) -> Vec<String> {
    let state = |node| {
        let name = world.name(node);
        match (node, world.condition(node).1) {
            (Node::Edge(edge), Condition::Running) => match world.attached(edge).as_slice() {
                [] => format!("{name} is attached nowhere"),
                relays => format!("{name} is attached at {}", world.names_text(relays)),
            },
            (_, condition) => format!("{name} is {condition:?}").to_lowercase(),
        }
    };
    let now: Vec<String> = world.nodes().map(state).collect();
    for (now, _) in now.iter().zip(known).filter(|(now, known)| now != known) {
        stage.say(stage.ink(Ink::Yellow, now));
    }
    now
}

/// Shows each flow's path, delay and losses of the last second.
fn keep_board(scene: &Scene<'_>, ending: &AtomicBool) {
    let mut paths: FlowPaths = Vec::new();
    let mut asked: Option<Instant> = None;
    while !ending.load(Ordering::Relaxed) && scene.stage.is_terminal() {
        if asked.is_none_or(|asked| asked.elapsed() >= PATHS) {
            paths = scene.flow_paths();
            asked = Some(Instant::now());
        }
        let wires = scene.world.wires().iter().enumerate();
        let lines = wires.map(|(flow, wire)| board_line(scene, flow, wire, &paths)).collect();
        scene.stage.set_board(lines);
        std::thread::sleep(BOARD);
    }
}

fn board_line(scene: &Scene<'_>, flow: usize, wire: &Wire, paths: &FlowPaths) -> String {
    let world = scene.world;
    let path = match paths.get(flow) {
        Some(Some(path)) => world.path_text(path),
        Some(None) | None => format!("{} ?", world.path_text(&[wire.entry, wire.exit])),
    };
    format!("  {}  {path}", felt_text(scene.stage, scene.flows, flow))
}

/// What a flow felt in the last second.
pub(super) fn felt_text(stage: &Stage, flows: &Flows, flow: usize) -> String {
    const SECOND_NS: u64 = 1_000_000_000;
    let now = flows.now();
    let arrivals = flows.arrivals(flow, now.saturating_sub(2 * SECOND_NS), now);
    match felt(&arrivals, now.saturating_sub(SECOND_NS), now) {
        Some(Felt { gap, lost, delay_before, .. }) => {
            let [delay, gap] = [delay_before, gap].map(|span| span.as_secs_f64() * 1e3);
            let text = format!("{delay:4.0} ms, longest gap {gap:4.0} ms, {lost} lost");
            let bad = gap > 100.0 || lost > 0;
            if bad { stage.ink(Ink::Yellow, text) } else { text }
        }
        None => stage.ink(Ink::Red, "nothing comes through"),
    }
}
