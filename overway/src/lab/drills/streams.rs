//! A transit relay freezes or dies under a TCP connection.

use std::time::Duration;

use anyhow::{Context, bail};
use overway_wire::{Class, Micros};

use super::{Blow, LOOK, Scene};
use crate::lab::stage::Stopped;
use crate::lab::transfer::{Fetch, Fetched};
use crate::lab::world::Wire;

/// Time for a whole file: a tenth of what a quiet machine of two cores carries.
const FETCH_TIME_MAX: Duration = Duration::from_secs(150);
/// More than the load of one file costs a path.
const MUCH_GAIN: Micros = Micros(20_000);

/// What a file's reader felt.
#[derive(Clone, Debug)]
pub struct StreamFelt {
    /// The file.
    pub fetched: Fetched,
    /// The relay that was hit, and how.
    pub victim: Option<(usize, Blow)>,
    /// The path when half of the file was there.
    pub path: Vec<usize>,
}

impl StreamFelt {
    /// Whether every byte came, over a path with a transit relay.
    pub fn is_ok(&self) -> bool {
        self.fetched.is_whole() && self.path.len() > 2
    }

    /// One line for people.
    pub fn text(&self, scene: &Scene<'_>) -> String {
        let Fetched { client, bytes, stall, took, problem, digest_ok, .. } = &self.fetched;
        let blow = match self.victim {
            Some((relay, blow)) => {
                format!("{} {} half-way", scene.world.profile().relay_name(relay), blow.text())
            }
            None => "undisturbed".to_owned(),
        };
        let verdict = match problem {
            Some(problem) => format!("FAILED: {problem}"),
            None if *digest_ok => "SHA-256 right".to_owned(),
            None => "SHA-256 WRONG".to_owned(),
        };
        let (mb, s) = (*bytes as f64 / 1e6, took.as_secs_f64());
        let (mbps, stall) = (self.fetched.mbps(), stall.as_secs_f64() * 1e3);
        let path = scene.world.path_text(&self.path);
        format!(
            "{mb:.0} MB by {client} over {path}, {blow}: {s:.1} s, {mbps:.0} Mbit/s, \
             longest stall {stall:.0} ms, {verdict}"
        )
    }
}

/// The wire with the shortest path that has a transit relay which is no flow's end, among those on which it gains
/// much; if there is none, the one on which it gains most. A file's own load costs a path something, and is not to
/// tip it over to the direct link.
///
/// # Errors
/// No wire's path has one.
pub fn stream_wire(scene: &Scene<'_>) -> anyhow::Result<Wire> {
    let profile = scene.world.profile();
    let mut found = Vec::new();
    for wire in scene.world.wires() {
        let path = scene.world.path(wire.entry, wire.exit, Class::Interactive)?;
        if let Some(path) = path
            && transit(scene, &path).is_some()
        {
            let (delay, ends) = (profile.path_delay(&path), [wire.entry, wire.exit]);
            let lacking =
                MUCH_GAIN.0.saturating_sub(profile.path_delay(&ends).0.saturating_sub(delay.0));
            found.push((lacking, delay, *wire));
        }
    }
    let best = found.into_iter().min_by_key(|(lacking, delay, wire)| (*lacking, *delay, wire.tcp));
    best.map(|(_, _, wire)| wire).context("no forward's path has a transit relay")
}

/// The first transit relay of a path that is no flow's end.
fn transit(scene: &Scene<'_>, path: &[usize]) -> Option<usize> {
    let ends = scene.ends();
    let middle = path.get(1..path.len().saturating_sub(1))?;
    middle.iter().copied().find(|relay| !ends.contains(relay))
}

/// Fetches a file; if there is a blow, the path's transit relay gets it when half of the file is there,
/// and is restored at the end.
///
/// # Errors
/// The path has no transit relay, or the lab was stopped.
pub fn stream(
    scene: &Scene<'_>,
    wire: &Wire,
    bytes: u64,
    blow: Option<Blow>,
) -> anyhow::Result<StreamFelt> {
    let fetch = Fetch::start(wire.tcp, scene.world.seed(), bytes, None)?;
    let half = match watch(scene, &fetch, bytes / 2) {
        Ok(half) => half,
        Err(stopped) => {
            fetch.end();
            return Err(stopped.into());
        }
    };
    let path = scene.world.path(wire.entry, wire.exit, Class::Interactive)?.unwrap_or_default();
    let mut victim = None;
    if half && let Some(blow) = blow {
        let Some(relay) = transit(scene, &path) else {
            fetch.end();
            bail!("the path {} has no transit relay to be hit", scene.world.path_text(&path));
        };
        blow.hit(scene, relay)?;
        victim = Some((relay, blow));
    }
    let watched = watch(scene, &fetch, u64::MAX);
    if !fetch.is_over() {
        // Stopped, or too slow: the client ends and says what it has.
        fetch.end();
    }
    let fetched = fetch.join();
    if let Some((relay, _)) = victim {
        scene.restore(relay)?;
    }
    watched?;
    Ok(StreamFelt { fetched, victim, path })
}

/// Waits until so many bytes are there, or the fetch is over, or has taken too long; says whether they
/// are there.
fn watch(scene: &Scene<'_>, fetch: &Fetch, bytes: u64) -> Result<bool, Stopped> {
    while !fetch.is_over() && fetch.elapsed() < FETCH_TIME_MAX {
        let there = fetch.bytes();
        if there >= bytes {
            return Ok(true);
        }
        let mbps = there as f64 * 8.0 / 1e6 / fetch.elapsed().as_secs_f64().max(0.1);
        let mb = there as f64 / 1e6;
        scene
            .stage
            .status(format!("a file comes through: {mb:.0} MB, {mbps:.0} Mbit/s on average"));
        scene.stage.pause(LOOK / 4)?;
    }
    Ok(fetch.bytes() >= bytes)
}
