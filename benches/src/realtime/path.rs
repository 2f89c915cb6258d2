//! One mesh with one voice flow, and bulk if asked for.

use std::collections::BTreeSet;
use std::iter::Sum;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overway::lab::flow::{Arrival, FRAME_BYTES, FlowSpec, Flows, Sink};
use overway::lab::stage::Stage;

use crate::chain::plan::{Forward, Line, Plan, Protocol, Quality};
use crate::chain::pour::{Pourer, Pull};
use crate::chain::{Chain, meter};

/// Lines of the first path.
const LINES: usize = 3;
/// One way on each of them.
const DELAY: Duration = Duration::from_millis(15);
/// How much longer each line of the second path is, each way.
const FARTHER: Duration = Duration::from_millis(1);
/// Longest wait in front of a line's bottleneck.
const QUEUE: Duration = Duration::from_millis(100);
/// What is in time: so many times the path's delay, and this besides.
const ON_TIME_FACTOR: f64 = 1.5;
const ON_TIME_BESIDES: Duration = Duration::from_millis(20);
/// The forwards, by their place in the plan.
const VOICE: usize = 0;
const BULK: std::ops::Range<usize> = 1..3;
/// What tells the bytes that a relay sent on its line.
const SENT_BYTES: &str = "overway_relay_line_sent_bytes_total";
/// What tells those of frames that it sent more than once without being asked.
const REDUNDANT_BYTES: &str = "overway_relay_redundancy_bytes_total";

/// What a mesh is to be.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) loss: f64,
    pub(super) rate_mbps: f64,
    /// Further keys of the flow's forward.
    pub(super) keys: String,
    pub(super) bulk: bool,
    pub(super) seed: u64,
}

/// A running mesh with its flow.
pub(super) struct Trial {
    pulls: Vec<Pull>,
    flows: Flows,
    chain: Chain,
    _pourer: Pourer,
    _sink: Arc<Sink>,
    from: Mark,
    to: Mark,
}

/// What there was at a moment.
#[derive(Clone, Debug)]
struct Mark {
    /// The sink's clock.
    nanos: u64,
    at: Instant,
    line_bytes: f64,
    redundant_bytes: f64,
    bulk_bytes: Vec<u64>,
}

/// What flows felt.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    pub(super) sent: u64,
    pub(super) came: u64,
    pub(super) on_time: u64,
    pub(super) delays_ms: Vec<f64>,
    pub(super) line_bytes: f64,
    pub(super) redundant_bytes: f64,
    pub(super) bulk_mbps: Vec<f64>,
    pub(super) own_stall: Duration,
}

impl Trial {
    /// Starts a mesh; returns when frames and bulk come through.
    pub(super) fn start(setting: &Setting, stage: &Stage) -> anyhow::Result<Self> {
        let (sink, pourer) = (Sink::start()?, Pourer::start(None)?);
        let chain = Chain::start(&plan(setting, &sink, &pourer))?;
        let wanted = if setting.bulk { BULK } else { BULK.start..BULK.start };
        let pulls = wanted.map(|forward| chain.pull(forward, stage)).collect::<Result<_, _>>()?;
        let voice = FlowSpec::voice(0, LINES, chain.forward(VOICE));
        let flows = Flows::start(&sink, vec![voice])?;
        let mark = Mark {
            nanos: 0,
            at: Instant::now(),
            line_bytes: 0.0,
            redundant_bytes: 0.0,
            bulk_bytes: Vec::new(),
        };
        let (from, to) = (mark.clone(), mark);
        Ok(Self { pulls, flows, chain, _pourer: pourer, _sink: sink, from, to })
    }

    /// Frames sent from now on count.
    pub(super) fn begin(&mut self) {
        self.from = self.mark();
    }

    /// Frames sent from now on do not.
    pub(super) fn end(&mut self) {
        self.to = self.mark();
    }

    fn mark(&self) -> Mark {
        let (mut line_bytes, mut redundant_bytes) = (0.0, 0.0);
        for relay in 0..self.chain.pids().len() {
            let counters = self.chain.counters(relay).unwrap_or_default();
            let sum = |of: &str| {
                let counters = counters.iter().filter(|(name, _)| name.starts_with(of));
                counters.map(|(_, bytes)| bytes).sum::<f64>()
            };
            line_bytes += sum(SENT_BYTES);
            redundant_bytes += sum(REDUNDANT_BYTES);
        }
        Mark {
            line_bytes,
            redundant_bytes,
            bulk_bytes: self.pulls.iter().map(Pull::bytes).collect(),
            nanos: self.flows.now(),
            at: Instant::now(),
        }
    }

    /// What was felt between begin and end, once all that was under way has come.
    pub(super) fn heard(&self) -> Heard {
        let arrivals = self.flows.arrivals(0, self.from.nanos, u64::MAX);
        let mut heard = heard(&arrivals, self.from.nanos, self.to.nanos);
        let seconds = (self.to.at - self.from.at).as_secs_f64();
        let bulk = self.to.bulk_bytes.iter().zip(&self.from.bulk_bytes);
        heard.bulk_mbps = bulk.map(|(to, from)| (to - from) as f64 * 8.0 / 1e6 / seconds).collect();
        heard.line_bytes = self.to.line_bytes - self.from.line_bytes;
        heard.redundant_bytes = self.to.redundant_bytes - self.from.redundant_bytes;
        heard.own_stall = self.flows.own_stall(self.from.nanos, self.to.nanos);
        heard
    }

    /// What the relays of the first path counted since they started.
    pub(super) fn counted(&self) -> Vec<String> {
        let of_relay = |relay: usize| {
            let counters = self.chain.counters(relay).unwrap_or_default();
            let grown = meter::growth(&std::collections::BTreeMap::new(), &counters);
            format!("  relay {relay}: {}", grown.join(", "))
        };
        (0..=LINES).map(of_relay).collect()
    }
}

fn plan(setting: &Setting, sink: &Sink, pourer: &Pourer) -> Plan {
    let line = Quality {
        delay: DELAY,
        loss: setting.loss,
        rate_mbps: Some(setting.rate_mbps),
        queue: QUEUE,
        capacity_mbps: setting.rate_mbps,
    };
    let mut plan = Plan::row(LINES, line, setting.seed);
    let farther = Quality { delay: DELAY + FARTHER, ..line };
    let second = [0, LINES + 1, LINES + 2, LINES];
    let steps = second.windows(2).map(|step| Line { a: step[0], b: step[1], quality: farther });
    plan.lines.extend(steps);
    let forward = |entry, exit, protocol, target, class| Forward {
        entry,
        exit,
        protocol,
        target,
        class,
        more: String::new(),
    };
    let keys = setting.keys.clone();
    let voice = forward(0, LINES, Protocol::Udp, sink.address(), None);
    plan.forwards.push(Forward { more: keys, ..voice });
    let bulk = |entry, exit| forward(entry, exit, Protocol::Tcp, pourer.address(), Some("bulk"));
    plan.forwards.extend([bulk(LINES, 0), bulk(0, LINES)]);
    plan
}

/// What came of the frames that were sent between two moments of the sink's clock.
fn heard(arrivals: &[Arrival], from: u64, to: u64) -> Heard {
    let within = arrivals.iter().filter(|arrival| (from..to).contains(&arrival.sent));
    let first: Vec<&Arrival> = within.filter(|arrival| !arrival.duplicate).collect();
    let sequences: BTreeSet<u64> = first.iter().map(|arrival| arrival.sequence).collect();
    let (Some(least), Some(most)) = (sequences.first(), sequences.last()) else {
        // Nothing came: as many as there should have been were lost.
        let spacing = u64::try_from(overway::lab::flow::SPACING.as_nanos()).unwrap_or(u64::MAX);
        return Heard { sent: (to - from) / spacing, ..Heard::default() };
    };
    let delays = first.iter().map(|arrival| arrival.received.saturating_sub(arrival.sent));
    let delays_ms: Vec<f64> = delays.map(|nanos| nanos as f64 / 1e6).collect();
    let on_time = delays_ms.iter().filter(|&&delay| delay <= deadline_ms()).count() as u64;
    let (sent, came) = (most - least + 1, sequences.len() as u64);
    Heard { sent, came, on_time, delays_ms, ..Heard::default() }
}

/// What is in time, in milliseconds.
fn deadline_ms() -> f64 {
    (DELAY.as_secs_f64() * LINES as f64 * ON_TIME_FACTOR + ON_TIME_BESIDES.as_secs_f64()) * 1e3
}

impl Heard {
    pub(super) fn on_time_share(&self) -> f64 {
        self.on_time as f64 / self.sent.max(1) as f64
    }

    pub(super) fn lost(&self) -> u64 {
        self.sent - self.came
    }

    /// Bytes on all lines for each frame, less its payload on the first path's.
    pub(super) fn overhead_bytes(&self) -> f64 {
        self.line_bytes / self.sent.max(1) as f64 - (FRAME_BYTES * LINES) as f64
    }

    /// Of these, what relays sent more than once without being asked, headers of datagrams left out.
    pub(super) fn redundant_bytes(&self) -> f64 {
        self.redundant_bytes / self.sent.max(1) as f64
    }
}

impl Sum for Heard {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |mut sum, part| {
            sum.sent += part.sent;
            sum.came += part.came;
            sum.on_time += part.on_time;
            sum.delays_ms.extend(part.delays_ms);
            sum.line_bytes += part.line_bytes;
            sum.redundant_bytes += part.redundant_bytes;
            sum.bulk_mbps.extend(part.bulk_mbps);
            sum.own_stall = sum.own_stall.max(part.own_stall);
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_lost_and_repeated_frames_are_told_apart() {
        let ms = 1_000_000;
        let frame = |sequence: u64, delay_ms: u64| Arrival {
            sequence,
            sent: sequence * 20 * ms,
            received: (sequence * 20 + delay_ms) * ms,
            duplicate: false,
        };
        let again = Arrival { duplicate: true, ..frame(2, 90) };
        let arrivals =
            [frame(0, 46), frame(1, 87), frame(3, 46), frame(2, 88), again, frame(6, 46)];

        let heard = heard(&arrivals, 0, 101 * ms);

        assert_eq!((heard.sent, heard.came, heard.on_time, heard.lost()), (4, 4, 3, 0));
        let all = super::heard(&arrivals, 0, 1_000 * ms);
        assert_eq!((all.sent, all.lost()), (7, 2));
        assert!((deadline_ms() - 87.5).abs() < 1e-9);
    }
}
