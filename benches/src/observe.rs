//! `bench observe`: what metrics and logs cost a transit relay.
//!
//! Two relays, each a process as in [`crate::forward`], take turns on the same core under the same load: one logs errors only
//! and is asked nothing; the other logs everything below *trace* as JSON into a file, and its `/metrics` are read every
//! five seconds, three times as often as Prometheus does unless told otherwise. Which of them begins
//! changes with each round. The overhead of a round is by how much a frame's processor time is greater at the second; what is
//! promised is the median of the rounds, and the interval in which the median lies with 95 % confidence, by order
//! statistics, is said beside it.
//!
//! What users feel is measured at the ends. A transit relay takes no part in it, so that none of its cost is here.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::percentile;
use overway::lab::stage::{Ink, Stage};
use overway_wire::Class;

use crate::common::Common;
use crate::forward::cores::Cores;
use crate::forward::mesh::Mesh;
use crate::forward::peer::Shape;
use crate::forward::stand::{Kind, Load, Reading, Stand};
use crate::forward::traffic::Pace;
use crate::forward::{begin, on_this_thread};

const WARM_UP: Duration = Duration::from_millis(400);
/// The flows of a load, as in `bench forward`.
const FLOWS: u32 = 64;
/// Loads: the end of their figures' names, payload bytes, pace, the most that the overhead may be.
const LOADS: [(&str, usize, Pace, Option<f64>); 2] = [
    ("", 1_200, Pace::Saturated, Some(0.02)),
    ("_20k", 1_200, Pace::PerSecond { frames: 20_000, burst: 20 }, None),
];
/// The two relays that are compared.
const KINDS: [Kind; 2] = [Kind::Relay, Kind::Observed];
/// A relay that does not answer a scrape by then has failed.
const SCRAPE_MAX: Duration = Duration::from_secs(5);

/// Arguments of `bench observe`.
#[derive(Debug, Args)]
pub(crate) struct ObserveArgs {
    /// Rounds, in each of which both relays are measured once. Default: 15, or 2 with --quick.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Milliseconds of each measurement. Default: 5,000, or 1,000 with --quick.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..))]
    span_ms: Option<u64>,
    /// Between two readings of the metrics, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(50..))]
    scrape_ms: u64,
}

/// Overheads of a load's rounds, and how often metrics were read meanwhile.
#[derive(Debug, Default)]
struct Seen {
    overheads: Vec<f64>,
    plain_us: Vec<f64>,
    observed_us: Vec<f64>,
    scrapes: u32,
}

/// Measures.
pub(crate) fn run(args: &ObserveArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let rounds = args.rounds.unwrap_or(if common.quick { 2 } else { 15 });
    let default_ms = if common.quick { 1_000 } else { 5_000 };
    let span = Duration::from_millis(args.span_ms.unwrap_or(default_ms));
    let every = Duration::from_millis(args.scrape_ms).min(span);
    let cores = begin(stage)?;
    let seen = on_this_thread(rounds_of(rounds, (span, every), cores, stage))?;
    let mut figures = Figures::default();
    for ((suffix, _, _, most), seen) in LOADS.iter().zip(seen) {
        let mut add = |name: &str, value, promise| {
            figures.add_measured(&format!("{name}{suffix}"), value, promise);
        };
        let promise = most.map_or(Promise::Reported, Promise::AtMost);
        add("observe_overhead", percentile(&seen.overheads, 0.5), promise);
        let interval = interval(&seen.overheads);
        add("observe_overhead_low", interval.map(|(low, _)| low), Promise::Reported);
        add("observe_overhead_high", interval.map(|(_, high)| high), Promise::Reported);
        add("us_plain", percentile(&seen.plain_us, 0.5), Promise::Reported);
        add("us_observed", percentile(&seen.observed_us, 0.5), Promise::Reported);
        add("scrapes", Some(f64::from(seen.scrapes)), Promise::Reported);
    }
    Ok(figures)
}

async fn rounds_of(
    rounds: u16,
    (span, every): (Duration, Duration),
    cores: Cores,
    stage: &Stage,
) -> anyhow::Result<Vec<Seen>> {
    let mesh = Mesh::new()?;
    let mut stands = Vec::new();
    for kind in KINDS {
        stands.push(Stand::start(kind, true, &mesh, cores.subject).await?);
    }
    let mut seen: Vec<Seen> = LOADS.iter().map(|_| Seen::default()).collect();
    for round in 0..rounds {
        for (&(name, payload, pace, _), seen) in LOADS.iter().zip(&mut seen) {
            anyhow::ensure!(!stage.stop().is_set(), "stopped");
            stage.status(format!("round {} of {rounds}: 1200{name}", round + 1));
            let shape = Shape { payload, class: Class::Bulk, flows: FLOWS };
            let load = Load { shape, pace, warm_up: WARM_UP, span };
            let mut readings: [Option<Reading>; 2] = [None, None];
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for which in order {
                let scrapes = Cell::new(0);
                let stand = &mut stands[which];
                let admin = stand.admin;
                let reading = tokio::select! {
                    reading = stand.measure(load) => reading,
                    failed = scrape_each(admin, every, &scrapes) => Err(failed),
                };
                let reading = reading.with_context(|| KINDS[which].name())?;
                seen.scrapes += scrapes.get();
                readings[which] = Some(reading);
            }
            if let [Some(plain), Some(observed)] = readings {
                seen.plain_us.push(plain.us_per_frame);
                seen.observed_us.push(observed.us_per_frame);
                seen.overheads.push(observed.us_per_frame / plain.us_per_frame - 1.0);
            }
        }
    }
    if seen.iter().any(|seen| seen.scrapes == 0) {
        stage.say(stage.ink(Ink::Yellow, "no metrics were read: the span is too short for it"));
    }
    Ok(seen)
}

/// Reads the metrics again and again, the first time half an interval from now; ends with what went wrong.
async fn scrape_each(
    admin: Option<SocketAddr>,
    every: Duration,
    scrapes: &Cell<u32>,
) -> anyhow::Error {
    let Some(admin) = admin else { return std::future::pending().await };
    tokio::time::sleep(WARM_UP + every / 2).await;
    loop {
        let read = tokio::task::spawn_blocking(move || scrape(admin)).await;
        match read.map_err(anyhow::Error::from).and_then(|read| read) {
            Ok(()) => scrapes.set(scrapes.get() + 1),
            Err(error) => return error,
        }
        tokio::time::sleep(every).await;
    }
}

/// Reads the metrics once.
fn scrape(admin: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&admin, SCRAPE_MAX).context("the admin port")?;
    stream.set_read_timeout(Some(SCRAPE_MAX))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let is_whole = text.starts_with("HTTP/1.1 200") && text.contains("overway_relay_frames_sent");
    anyhow::ensure!(is_whole, "the relay's metrics make no sense");
    Ok(())
}

/// Where the median lies with 95 % confidence: between the values of that rank from below and from above which a binomial
/// distribution of one half gives. `None` of fewer than six values, of which all together are not enough.
fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = i32::try_from(sorted.len()).ok()?;
    let (mut term, mut tail, mut rank) = (0.5_f64.powi(count), 0.0, 0);
    while tail + term <= 0.025 {
        tail += term;
        rank += 1;
        term *= f64::from(count - rank + 1) / f64::from(rank);
    }
    let rank = usize::try_from(rank).ok()?.checked_sub(1)?;
    Some((sorted[rank], sorted[sorted.len() - 1 - rank]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_median_is_that_of_the_tables() {
        let values = |count: u32| (1..=count).map(f64::from).collect::<Vec<_>>();
        assert_eq!(interval(&values(5)), None);
        assert_eq!(interval(&values(6)), Some((1.0, 6.0)));
        assert_eq!(interval(&values(15)), Some((4.0, 12.0)));
        assert_eq!(interval(&values(20)), Some((6.0, 15.0)));
        assert_eq!(interval(&[]), None);
    }

    #[test]
    fn a_relay_that_is_not_there_cannot_be_read() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(scrape(free).is_err());
    }
}
