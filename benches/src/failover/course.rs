//! Blow after blow on one world, and what each did to every flow.

use std::ops::Range;
use std::time::{Duration, Instant, SystemTime};

use anyhow::bail;
use overway::lab::drills::{Blow, Counters, Quiet, Scene, Strike, strike};
use overway::lab::flow::Flows;
use overway::lab::world::Node;

use super::changes;
use super::rows::{self, Moments, Noticed, Row};
use super::{Seen, steady};
use crate::common::{self, spread};

/// How long [`strike`] waits before the blow at least: what relays notice earlier is not its doing.
const BEFORE_BLOW: Duration = Duration::from_secs(1);
/// How often an undisturbed time looks whether it is over.
const LOOK: Duration = Duration::from_millis(250);

/// Blow after blow on one world.
pub(super) struct Course<'a> {
    scene: Scene<'a>,
    flows_min: usize,
    loaded: bool,
    /// The relays' ids, by number.
    ids: Vec<u16>,
    /// Each victim, and the time from its blow until the next one's; since 1970.
    spans: Vec<(usize, Range<Duration>)>,
}

impl<'a> Course<'a> {
    pub(super) fn new(scene: Scene<'a>, flows_min: usize, loaded: bool) -> anyhow::Result<Self> {
        let relays = 0..scene.world.profile().relays().len();
        let ids = relays.map(|relay| Ok(scene.world.relay_status(relay)?.relay));
        let ids = ids.collect::<anyhow::Result<_>>()?;
        Ok(Self { scene, flows_min, loaded, ids, spans: Vec::new() })
    }

    /// Lets the flows run for a while and counts what goes wrong by itself.
    pub(super) fn undisturbed(&self, span: Duration, quiet: &mut Quiet) -> anyhow::Result<()> {
        let Scene { world, stage, .. } = self.scene;
        steady::wait(&self.scene, self.flows_min)?;
        let since = since_1970();
        quiet.begin(world)?;
        let end = Instant::now() + span;
        while Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
            stage.status(format!("nothing is disturbed for {left:.0} s more"));
            stage.pause(LOOK)?;
        }
        quiet.end(world)?;
        self.false_downs(&(since..since_1970()), None)?;
        let Counters { downs, suspects, self_stalls } = quiet.seen();
        stage.say(format!(
            "undisturbed for {:.0} s: {downs} links down, {suspects} suspect, {self_stalls} relays late",
            span.as_secs_f64()
        ));
        Ok(())
    }

    /// Strikes every blow that there is time for, and notes what it did.
    pub(super) fn run(
        &mut self,
        blows: &[Blow],
        until: Instant,
        seen: &mut Seen,
    ) -> anyhow::Result<()> {
        let outcome = self.blows(blows, until, seen);
        let flows = self.scene.flows;
        seen.duplicates += (0..flows.specs().len()).map(|flow| flows.duplicates(flow)).sum::<u64>();
        seen.own_stall = seen.own_stall.max(flows.own_stall(0, u64::MAX));
        outcome
    }

    fn blows(&mut self, blows: &[Blow], until: Instant, seen: &mut Seen) -> anyhow::Result<()> {
        for (at, &blow) in blows.iter().enumerate() {
            if Instant::now() > until {
                bail!("no time for more than {at} of {} blows", blows.len());
            }
            self.blow(at + 1, blow, seen)?;
            let Some(last) = seen.rows.last() else { continue };
            let same = |row: &Row| row.loaded == self.loaded && row.blow == blow;
            let excess = rows::values(&seen.rows, same, |row| row.sample.excess_ms);
            self.scene.stage.say(format!(
                "  {} of {}; excess of {} p50 / p99 so far {} ms over {} samples; load average {:.1}",
                at + 1,
                blows.len(),
                blow.text(),
                spread(&excess),
                excess.len(),
                last.load_average.unwrap_or(f64::NAN),
            ));
        }
        Ok(())
    }

    /// One blow: calm, strike, and what it did to each flow.
    fn blow(&mut self, number: usize, blow: Blow, seen: &mut Seen) -> anyhow::Result<()> {
        let Scene { world, stage, flows } = self.scene;
        steady::wait(&self.scene, self.flows_min)?;
        let (from, since, epoch) = (flows.now(), since_1970(), epoch(flows));
        let struck = strike(&self.scene, blow)?;
        let span = since..since_1970();
        if let Some((_, last)) = self.spans.last_mut() {
            last.end = since;
        }
        self.spans.push((struck.victim, span.clone()));
        stage.say(struck.text(&self.scene));
        let Strike { victim, blow, samples, own_stall, unsettled } = struck;
        seen.unsettled += unsettled;
        let load_average = common::load_average();
        for sample in samples {
            let mut row = Row {
                loaded: self.loaded,
                number,
                blow,
                victim,
                moments: Moments::of(
                    &flows.arrivals(sample.flow, from, flows.now()),
                    &sample.felt,
                    epoch,
                ),
                sample,
                noticed: Noticed::default(),
                own_stall,
                load_average,
            };
            let log = changes::read(&world.log(Node::Relay(row.front())))?;
            row.noticed = Noticed::of(&log, self.ids[victim], &(since + BEFORE_BLOW..span.end));
            seen.rows.push(row);
        }
        Ok(())
    }

    /// The time of all blows together, and how often in it a link went down that does not touch the
    /// victim. Names these links.
    pub(super) fn bystanders(&self) -> anyhow::Result<(Duration, u64)> {
        let mut downs = 0;
        for (victim, span) in &self.spans {
            downs += self.false_downs(span, Some(*victim))?;
        }
        let time = self.spans.iter().map(|(_, span)| span.end.saturating_sub(span.start)).sum();
        Ok((time, downs))
    }

    /// Counts and names the links that went down within a span and do not touch the victim.
    fn false_downs(&self, span: &Range<Duration>, victim: Option<usize>) -> anyhow::Result<u64> {
        let Scene { world, stage, .. } = self.scene;
        let profile = world.profile();
        let mut count = 0;
        for relay in (0..self.ids.len()).filter(|&relay| Some(relay) != victim) {
            for change in changes::downs(&changes::read(&world.log(Node::Relay(relay)))?, span) {
                let neighbour = self.ids.iter().position(|&id| id == change.neighbour);
                if neighbour.is_some() && neighbour == victim {
                    continue;
                }
                count += 1;
                let (from, to) =
                    (profile.relay_name(relay), neighbour.map(|n| profile.relay_name(n)));
                let after = change.at.saturating_sub(span.start).as_secs_f64();
                let during = match victim {
                    Some(victim) => {
                        format!("{after:.1} s after {} was hit", profile.relay_name(victim))
                    }
                    None => format!("after {after:.1} s"),
                };
                stage.say(format!("{from} found its link to {} down, {during}", to.unwrap_or("?")));
            }
        }
        Ok(count)
    }
}

/// What the flows' clock showed 0 at, since 1970.
fn epoch(flows: &Flows) -> Duration {
    since_1970().saturating_sub(Duration::from_nanos(flows.now()))
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
