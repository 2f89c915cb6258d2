//! What probes have told, by path and hop.
//!
//! A probe is *open* from its setting off until all relays of its path have answered, or it is older than [`OPEN_US`] by
//! the tracing relay's clock; then it is counted, on the path that it was on last. So a probe counts once, a copy of it
//! and an answer that comes late count for nothing, and an answer that was lost is made up for by a later one's records.

use std::collections::BTreeMap;

use overway_relay::trace::{Heard, Step, TraceLine, TracedRelay};
use serde::Serialize;

/// A probe of which nothing was heard for so long has gone: the time in which answers are worth something.
const OPEN_US: u64 = 2_000_000;
/// Open probes: two seconds of the densest trace, and as many again.
const OPEN_MAX: usize = 512;
/// Paths that are told apart; beyond it probes count on the last one.
const PATHS_MAX: usize = 16;
/// Delays of a hop that its median is of: the last.
const MEDIAN_MAX: usize = 4_096;

/// Counts lines of a trace.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    begun: Option<(TracedRelay, TracedRelay, String, u64)>,
    sent: u64,
    open: BTreeMap<u64, Open>,
    paths: Vec<PathTally>,
    /// Where probes set off to now.
    current: Option<Vec<Step>>,
    now_us: u64,
    /// Answers to the last probe were waited for.
    ended: bool,
}

/// The path has changed, or is known at last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct News {
    /// The first probe that takes it.
    pub(crate) sequence: u64,
    /// The relays and links after the tracing relay.
    pub(crate) path: Vec<Step>,
}

#[derive(Debug)]
struct Open {
    sent_us: u64,
    path: Vec<Step>,
    addresses: Vec<Option<String>>,
    /// What was written at each hop, the first after the tracing relay first.
    arrivals: Vec<Arrival>,
    /// Round trips by hop, in microseconds.
    answers: Vec<Option<u64>>,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    recovered: bool,
    marked: bool,
    one_way_us: Option<i64>,
    link_us: Option<i64>,
}

#[derive(Debug)]
struct PathTally {
    path: Vec<Step>,
    probes: u64,
    hops: Vec<HopTally>,
}

#[derive(Debug, Default)]
struct HopTally {
    address: Option<String>,
    /// Probes that the relay before it had.
    sent: u64,
    arrived: u64,
    recovered: u64,
    marked: u64,
    one_way: Delays,
    round_trip: Delays,
    link: Delays,
}

/// Delays in milliseconds; mean and deviation as Welford has them (1962).
#[derive(Debug, Default)]
struct Delays {
    count: u64,
    last: f64,
    mean: f64,
    squares: f64,
    best: f64,
    worst: f64,
    recent: Vec<f64>,
}

impl Delays {
    fn add(&mut self, ms: f64) {
        self.best = if self.count == 0 { ms } else { self.best.min(ms) };
        self.worst = if self.count == 0 { ms } else { self.worst.max(ms) };
        let at = usize::try_from(self.count).unwrap_or(0) % MEDIAN_MAX;
        match self.recent.get_mut(at) {
            Some(old) => *old = ms,
            None => self.recent.push(ms),
        }
        self.count += 1;
        self.last = ms;
        let off = ms - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (ms - self.mean);
    }

    fn report(&self) -> Option<DelayReport> {
        let mut sorted = self.recent.clone();
        sorted.sort_by(f64::total_cmp);
        let median = *sorted.get(sorted.len() / 2)?;
        let Self { count, last, mean, squares, best, worst, .. } = *self;
        let round = |ms: f64| (ms * 1e3).round() / 1e3;
        Some(DelayReport {
            samples: count,
            last_ms: round(last),
            avg_ms: round(mean),
            median_ms: round(median),
            best_ms: round(best),
            worst_ms: round(worst),
            stdev_ms: round((squares / count as f64).max(0.0).sqrt()),
        })
    }
}

/// What a trace has found: what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// The tracing relay.
    pub(crate) from: TracedRelay,
    /// The traced relay.
    pub(crate) to: TracedRelay,
    /// The class.
    pub(crate) class: String,
    /// Milliseconds between probes.
    pub(crate) interval_ms: u64,
    /// Probes sent.
    pub(crate) sent: u64,
    /// Whether the traced relay has answered.
    pub(crate) reached: bool,
    /// The paths taken, in the order in which they were first.
    pub(crate) paths: Vec<PathReport>,
}

/// One path.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PathReport {
    /// Whether probes take it now.
    pub(crate) current: bool,
    /// Probes that took it, as far as their fate is known.
    pub(crate) probes: u64,
    /// The relays after the tracing one.
    pub(crate) hops: Vec<HopReport>,
}

/// One relay of a path.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HopReport {
    /// The relay.
    pub(crate) relay: TracedRelay,
    /// The parallel link to it.
    pub(crate) link: u8,
    /// The underlay address that the link leads to; null if not known.
    pub(crate) address: Option<String>,
    /// Probes that arrived.
    pub(crate) arrived: u64,
    /// Of all probes of the path the share that did not arrive, after recovery; null before the first.
    pub(crate) loss: Option<f64>,
    /// Of the probes that the relay before it had the share that the line lost, before recovery.
    pub(crate) line_loss: Option<f64>,
    /// Of those that arrived the share that met a standing queue.
    pub(crate) marked: Option<f64>,
    /// One-way delay from the tracing relay; null if the clocks are not known.
    pub(crate) one_way: Option<DelayReport>,
    /// Round trip from the tracing relay and back.
    pub(crate) round_trip: Option<DelayReport>,
    /// One-way delay of the last link alone, its queues included.
    pub(crate) last_link: Option<DelayReport>,
}

/// Delays in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct DelayReport {
    /// Of how many.
    pub(crate) samples: u64,
    /// The last.
    pub(crate) last_ms: f64,
    /// Their mean.
    pub(crate) avg_ms: f64,
    /// The median of the last 4,096.
    pub(crate) median_ms: f64,
    /// The least.
    pub(crate) best_ms: f64,
    /// The greatest.
    pub(crate) worst_ms: f64,
    /// Their standard deviation.
    pub(crate) stdev_ms: f64,
}

impl Tally {
    /// Takes a line; tells if the path is another.
    pub(crate) fn take(&mut self, line: TraceLine) -> Option<News> {
        match line {
            TraceLine::Begun { from, to, class, interval_ms } => {
                self.begun = Some((from, to, class, interval_ms));
                None
            }
            TraceLine::Sent { sequence } => {
                self.sent = self.sent.max(sequence.saturating_add(1));
                None
            }
            TraceLine::Heard(heard) => self.hear(heard),
            TraceLine::Ended => {
                self.ended = true;
                None
            }
        }
    }

    fn hear(&mut self, heard: Heard) -> Option<News> {
        self.now_us = self.now_us.max(heard.arrived_us);
        let mut news = None;
        if heard.steps == 0 {
            news = self.set_off(heard);
        } else if let Some(open) = self.open.get_mut(&heard.sequence) {
            open.hear(&heard);
            if open.is_done()
                && let Some(open) = self.open.remove(&heard.sequence)
            {
                self.count(&open);
            }
        }
        let old = self.now_us.saturating_sub(OPEN_US);
        while self.open.first_key_value().is_some_and(|(_, first)| first.sent_us <= old)
            || self.open.len() > OPEN_MAX
        {
            let Some((_, open)) = self.open.pop_first() else { break };
            self.count(&open);
        }
        news
    }

    fn set_off(&mut self, heard: Heard) -> Option<News> {
        let Heard { sequence, arrived_us, path, next_address, .. } = heard;
        let is_new = self.current.as_ref() != Some(&path);
        let hops = path.len();
        let mut addresses = vec![None; hops];
        if let Some(first) = addresses.first_mut() {
            *first = next_address;
        }
        let open = Open {
            sent_us: arrived_us,
            path: path.clone(),
            addresses,
            arrivals: Vec::new(),
            answers: vec![None; hops],
        };
        self.open.insert(sequence, open);
        is_new.then(|| {
            self.current = Some(path.clone());
            News { sequence, path }
        })
    }

    fn count(&mut self, open: &Open) {
        let at = self.paths.iter().position(|known| known.path == open.path).unwrap_or_else(|| {
            if self.paths.len() == PATHS_MAX {
                // A mesh in such unrest is told by the news.
                self.paths.remove(0);
            }
            let hops = open.path.iter().map(|_| HopTally::default()).collect();
            self.paths.push(PathTally { path: open.path.clone(), probes: 0, hops });
            self.paths.len() - 1
        });
        self.paths[at].count(open);
    }

    /// Counts what is still open as it stands.
    pub(crate) fn finish(&mut self) {
        for (_, open) in std::mem::take(&mut self.open) {
            // Nobody has had the time to answer a probe that just set off, unless answers were waited for.
            let is_young = !self.ended && self.now_us.saturating_sub(open.sent_us) < OPEN_US;
            if !is_young || !open.arrivals.is_empty() {
                self.count(&open);
            }
        }
    }

    /// What is known so far.
    pub(crate) fn report(&self) -> Report {
        let (from, to, class, interval_ms) = self.begun.clone().unwrap_or_default();
        let reached =
            self.paths.iter().any(|path| path.hops.last().is_some_and(|hop| hop.arrived > 0));
        let paths = self.paths.iter().map(|path| path.report(self.current.as_ref())).collect();
        Report { from, to, class, interval_ms, sent: self.sent, reached, paths }
    }
}

impl Open {
    fn hear(&mut self, heard: &Heard) {
        let Some((source, records)) = heard.records.split_first() else { return };
        if heard.path.len() != self.path.len() || records.len() > heard.path.len() {
            // It took a detour on the way, and what it was to meet counts no more.
            if records.len() <= self.arrivals.len() || records.len() > heard.path.len() {
                return;
            }
        }
        if heard.path != self.path && records.len() > self.arrivals.len() {
            let hops = heard.path.len();
            // Of the hops from the detour on nothing is known.
            let common = self.path.iter().zip(&heard.path).take_while(|(one, other)| one == other);
            let common = common.count();
            self.addresses.truncate(common);
            self.answers.truncate(common);
            self.path.clone_from(&heard.path);
            self.addresses.resize(hops, None);
            self.answers.resize(hops, None);
            self.arrivals.clear();
        }
        if heard.path != self.path {
            return;
        }
        let hop = usize::from(heard.steps);
        if let Some(address) = self.addresses.get_mut(hop) {
            *address = heard.next_address.clone();
        }
        if let Some(answer) = hop.checked_sub(1).and_then(|at| self.answers.get_mut(at)) {
            answer.get_or_insert(heard.arrived_us.saturating_sub(source.clock_us));
        }
        let (mut offset, mut before) = (Some(0_i64), source.clock_us);
        for (at, record) in records.iter().enumerate() {
            let since = |from: u64| record.clock_us.wrapping_sub(from).cast_signed();
            let link_us = record.offset_us.map(|offset| since(before).saturating_sub(offset));
            offset = offset.zip(record.offset_us).map(|(sum, offset)| sum.saturating_add(offset));
            before = record.clock_us;
            if at >= self.arrivals.len() {
                let one_way_us = offset.map(|offset| since(source.clock_us).saturating_sub(offset));
                let (recovered, marked) = (record.recovered, record.marked);
                self.arrivals.push(Arrival { recovered, marked, one_way_us, link_us });
            }
        }
    }

    fn is_done(&self) -> bool {
        self.arrivals.len() == self.path.len() && self.answers.iter().all(Option::is_some)
    }
}

impl PathTally {
    fn count(&mut self, open: &Open) {
        self.probes += 1;
        let millis = |us: i64| us as f64 / 1e3;
        for (at, hop) in self.hops.iter_mut().enumerate() {
            if let Some(address) = open.addresses.get(at).cloned().flatten() {
                hop.address = Some(address);
            }
            if at > open.arrivals.len() {
                continue;
            }
            hop.sent += 1;
            let Some(arrival) = open.arrivals.get(at) else { continue };
            hop.arrived += 1;
            hop.recovered += u64::from(arrival.recovered);
            hop.marked += u64::from(arrival.marked);
            arrival.one_way_us.into_iter().for_each(|us| hop.one_way.add(millis(us)));
            arrival.link_us.into_iter().for_each(|us| hop.link.add(millis(us)));
            let answer = open.answers.get(at).copied().flatten();
            answer.into_iter().for_each(|us| hop.round_trip.add(us as f64 / 1e3));
        }
    }

    fn report(&self, current: Option<&Vec<Step>>) -> PathReport {
        let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
        let hop = |(step, hop): (&Step, &HopTally)| HopReport {
            relay: step.relay.clone(),
            link: step.link,
            address: hop.address.clone(),
            arrived: hop.arrived,
            loss: share(self.probes - hop.arrived, self.probes),
            line_loss: share(hop.sent - hop.arrived + hop.recovered, hop.sent),
            marked: share(hop.marked, hop.arrived),
            one_way: hop.one_way.report(),
            round_trip: hop.round_trip.report(),
            last_link: hop.link.report(),
        };
        PathReport {
            current: current == Some(&self.path),
            probes: self.probes,
            hops: self.path.iter().zip(&self.hops).map(hop).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_relay::trace::Record;

    fn path(relays: &[u16]) -> Vec<Step> {
        let relay = |&id| TracedRelay { id, name: Some(format!("relay-{id}")) };
        relays.iter().map(|id| Step { relay: relay(id), link: 0 }).collect()
    }

    /// What the relay after so many steps says; each step takes ten milliseconds, and clocks are a second apart.
    fn heard(sequence: u64, steps: u8, relays: &[u16], lost_at: Option<u8>) -> TraceLine {
        let sent = 1_000_000 + sequence * 100_000;
        let record = |step: u8| Record {
            relay: if step == 0 { 1 } else { relays[usize::from(step) - 1] },
            link: 0,
            recovered: lost_at == Some(step),
            marked: false,
            copy: false,
            clock_us: sent + u64::from(step) * 1_010_000,
            offset_us: (step > 0).then_some(1_000_000),
        };
        TraceLine::Heard(Heard {
            sequence,
            from: if steps == 0 { 1 } else { relays[usize::from(steps) - 1] },
            arrived_us: sent + u64::from(steps) * 20_000,
            steps,
            path: path(relays),
            next_address: (usize::from(steps) < relays.len())
                .then(|| format!("192.0.2.{}:4433", relays[usize::from(steps)])),
            records: (0..=steps).map(record).collect(),
        })
    }

    #[test]
    fn each_hop_has_its_delay_its_address_and_what_its_line_lost() {
        let mut tally = Tally::default();
        for sequence in 0..10 {
            tally.take(TraceLine::Sent { sequence });
            for steps in 0..=2 {
                let lost_at = (sequence < 2).then_some(2);
                let news = tally.take(heard(sequence, steps, &[2, 3], lost_at));
                assert_eq!(news.is_some(), sequence == 0 && steps == 0);
            }
        }
        let report = tally.report();

        assert!(report.reached && report.sent == 10 && report.paths.len() == 1);
        let hops = &report.paths[0].hops;
        for (hop, delay) in hops.iter().zip([10.0, 20.0]) {
            assert_eq!(hop.loss, Some(0.0));
            let one_way = hop.one_way.unwrap();
            assert_eq!((one_way.avg_ms, one_way.best_ms, one_way.worst_ms), (delay, delay, delay));
            assert_eq!((one_way.median_ms, one_way.stdev_ms, one_way.samples), (delay, 0.0, 10));
            assert_eq!(hop.round_trip.unwrap().last_ms, 2.0 * delay);
            assert_eq!(hop.last_link.unwrap().avg_ms, 10.0);
        }
        assert_eq!((hops[0].line_loss, hops[1].line_loss), (Some(0.0), Some(0.2)));
        assert_eq!(hops[1].address.as_deref(), Some("192.0.2.3:4433"));
    }

    #[test]
    fn a_probe_that_is_lost_is_lost_at_the_hop_that_it_did_not_reach() {
        let mut tally = Tally::default();
        for sequence in 0..10 {
            for steps in 0..=if sequence == 3 { 1 } else { 2 } {
                tally.take(heard(sequence, steps, &[2, 3], None));
            }
        }
        tally.take(heard(100, 0, &[2, 3], None));

        let hops = &tally.report().paths[0].hops;

        assert_eq!((hops[0].loss, hops[1].loss), (Some(0.0), Some(0.1)));
        assert_eq!((hops[0].line_loss, hops[1].line_loss), (Some(0.0), Some(0.1)));
    }

    #[test]
    fn probes_of_which_nothing_came_back_are_lost_once_the_trace_has_ended() {
        let lost_at_first = |ended: bool| {
            let mut tally = Tally::default();
            for sequence in 0..10 {
                for steps in 0..=if sequence % 2 == 0 { 0 } else { 2 } {
                    tally.take(heard(sequence, steps, &[2, 3], None));
                }
            }
            if ended {
                tally.take(TraceLine::Ended);
            }
            tally.finish();
            tally.report().paths[0].hops[0].loss
        };

        assert_eq!((lost_at_first(true), lost_at_first(false)), (Some(0.5), Some(0.0)));
    }

    #[test]
    fn an_answer_that_is_lost_hides_nothing_that_a_later_one_tells() {
        let mut tally = Tally::default();
        tally.take(heard(0, 0, &[2, 3], None));
        tally.take(heard(0, 2, &[2, 3], Some(1)));
        tally.finish();

        let hops = &tally.report().paths[0].hops;

        assert_eq!((hops[0].arrived, hops[0].line_loss), (1, Some(1.0)));
        assert!(hops[0].one_way.is_some() && hops[0].round_trip.is_none());
    }

    #[test]
    fn a_change_of_path_is_told_and_counted_apart() {
        let mut tally = Tally::default();
        let feed = |tally: &mut Tally, sequence, relays: &[u16]| {
            let count = u8::try_from(relays.len()).unwrap();
            let mut news =
                (0..=count).map(|steps| tally.take(heard(sequence, steps, relays, None)));
            news.next().unwrap().inspect(|_| assert!(news.by_ref().all(|one| one.is_none())))
        };
        assert!(feed(&mut tally, 0, &[2, 3]).is_some());
        tally.take(heard(1, 0, &[2, 3], None));
        // Relay 2 sends the second probe around.
        tally.take(heard(1, 1, &[2, 3], None));
        tally.take(heard(1, 2, &[2, 4, 3], None));
        tally.take(heard(1, 3, &[2, 4, 3], None));
        let news = feed(&mut tally, 2, &[4, 3]).unwrap();
        for steps in 1..=2 {
            tally.take(heard(2, steps, &[4, 3], None));
        }
        tally.finish();

        let report = tally.report();

        assert_eq!((news.sequence, news.path.len()), (2, 2));
        assert_eq!(report.paths.len(), 3);
        assert!(report.paths[2].current && !report.paths[0].current);
        assert_eq!(report.paths[1].hops.len(), 3);
        let address = |at: usize| report.paths[1].hops[at].address.as_deref();
        assert_eq!(address(0), Some("192.0.2.2:4433"));
        assert_eq!((address(1), address(2)), (None, Some("192.0.2.3:4433")));
        assert!(report.paths.iter().all(|path| path.hops.iter().all(|hop| hop.loss == Some(0.0))));
    }

    #[test]
    fn without_clocks_there_are_round_trips_alone() {
        let mut tally = Tally::default();
        for steps in 0..=1 {
            let TraceLine::Heard(mut heard) = heard(0, steps, &[2], None) else { unreachable!() };
            heard.records.iter_mut().for_each(|record| record.offset_us = None);
            tally.take(TraceLine::Heard(heard));
        }

        let hop = &tally.report().paths[0].hops[0];

        assert!(hop.one_way.is_none() && hop.last_link.is_none());
        assert_eq!(hop.round_trip.unwrap().avg_ms, 20.0);
    }
}
