//! The middle relay freezes under a stream: how long is its client without a byte?

use std::time::{Duration, Instant};

use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::{FlowSpec, Flows, Sink, felt, percentile};
use overway::lab::stage::Stage;

use super::{LINES, MIDDLE};
use crate::chain::Chain;
use crate::chain::plan::{Forward, Line, Plan, Protocol, Quality};
use crate::chain::pour::Pourer;
use crate::common::spread;

/// How much farther the other relay is, each way.
const FARTHER: Duration = Duration::from_millis(2);
/// Rate of the stream: what leaves the machine the time to notice a silence when it happens.
const STREAM_MBPS: f64 = 100.0;
/// Before the first freeze: links, windows and estimates settle.
const SETTLE: Duration = Duration::from_secs(6);
/// A freeze lasts so long, and silences that end within it count.
const FREEZE: Duration = Duration::from_secs(3);
/// Between two freezes: sources believe for five seconds that a link is down.
const CALM: Duration = Duration::from_secs(8);
/// Flows of voice beside the stream, evenly apart in time, so that their gaps tell when frames came through again.
const FLOWS: usize = 4;

/// What was felt.
pub(super) struct Stalls {
    /// The stream's longest silence in each freeze, in milliseconds.
    stream_ms: Vec<f64>,
    /// The voice flows' longest gaps, in milliseconds.
    gap_ms: Vec<f64>,
    /// Two round trips of the path.
    allowed_ms: f64,
    whole: bool,
}

/// Freezes the middle relay again and again.
pub(super) fn measure(
    line: Quality,
    freezes: u16,
    seed: u64,
    stage: &Stage,
) -> anyhow::Result<Stalls> {
    let pourer = Pourer::start(Some(STREAM_MBPS))?;
    let sink = Sink::start()?;
    let mut plan = Plan::row(LINES, line, seed);
    let farther = Quality { delay: line.delay + FARTHER, ..line };
    let other = LINES + 1;
    let around = [MIDDLE - 1, MIDDLE + 1].map(|a| Line { a, b: other, quality: farther });
    plan.lines.extend(around);
    // The stream's bytes and the voice frames go the same way.
    let forward = |entry, exit, protocol, target| Forward {
        entry,
        exit,
        protocol,
        target,
        class: None,
        more: String::new(),
    };
    plan.forwards.push(forward(0, LINES, Protocol::Tcp, pourer.address()));
    plan.forwards.push(forward(LINES, 0, Protocol::Udp, sink.address()));
    let chain = Chain::start(&plan)?;
    let pull = chain.pull(0, stage)?;
    let voice = FlowSpec::voice(LINES, 0, chain.forward(1));
    let flows = Flows::start(&sink, vec![voice; FLOWS])?;
    stage.pause(SETTLE)?;
    let round_trip = 2 * line.delay * u32::try_from(LINES).unwrap_or(u32::MAX);
    let mut stalls = Stalls {
        stream_ms: Vec::new(),
        gap_ms: Vec::new(),
        allowed_ms: 2e3 * round_trip.as_secs_f64(),
        whole: true,
    };
    for freeze in 1..=freezes {
        stage.status(format!("freeze {freeze} of {freezes}"));
        let (from, start) = (flows.now(), Instant::now());
        chain.freeze(MIDDLE)?;
        let paused = stage.pause(FREEZE);
        let (to, end) = (flows.now(), Instant::now());
        chain.thaw(MIDDLE)?;
        paused?;
        let second = 1_000_000_000;
        let gaps: Vec<f64> = (0..FLOWS)
            .filter_map(|flow| {
                felt(&flows.arrivals(flow, from.saturating_sub(second), to), from, to)
            })
            .map(|felt| felt.gap_ms())
            .collect();
        let stream_ms = pull.silence(start, end).as_secs_f64() * 1e3;
        let own = flows.own_stall(from, to).as_secs_f64() * 1e3;
        stage.say(format!(
            "freeze {freeze}: the stream stalled {stream_ms:.0} ms, voice {} ms (p50 / p99); own lateness {own:.0} ms",
            spread(&gaps)
        ));
        stalls.stream_ms.push(stream_ms);
        stalls.gap_ms.extend(gaps);
        if freeze < freezes {
            stage.pause(CALM)?;
        }
    }
    stalls.whole = pull.is_whole();
    Ok(stalls)
}

/// Adds what was felt to the figures.
pub(super) fn figures(stalls: &Stalls, figures: &mut Figures, stage: &Stage) {
    let Stalls { stream_ms, gap_ms, allowed_ms, whole } = stalls;
    stage.say(format!(
        "frozen: stream {} ms, voice {} ms (p50 / p99)",
        spread(stream_ms),
        spread(gap_ms)
    ));
    let gap = percentile(gap_ms, 0.99);
    let promise = gap.map_or(Promise::Reported, |gap| Promise::AtMost((gap + allowed_ms).round()));
    figures.add_measured("stream_stall_ms_p99", percentile(stream_ms, 0.99), promise);
    figures.add_measured("stream_stall_ms_p50", percentile(stream_ms, 0.5), Promise::Reported);
    figures.add_measured("voice_gap_ms_p99", gap, Promise::Reported);
    figures.add("stall_stream_whole", *whole, Promise::True);
}
