//! `bench quality`: what it costs the centre to know what users feel.
//!
//! ```text
//!   users --reports--> 100 relays' own folding, here --words, encoded--> scheduler core, a process of its own
//! ```
//!
//! Each user is a voice flow of 50 frames a second that reports once a minute: a base delay of its own, jitter, now and
//! then loss and gaps, so that no two reports are alike. Relays are of ten regions, users of twenty services of four tenants.
//! Relays fold the reports as they do ([`overway_relay::quality`]) and say what came of it every ten seconds; the centre
//! reads it as the scheduler does, and is asked for all quantiles of five minutes every fifteen seconds, as by a
//! Prometheus. Words of an interval are handed over when all relays have folded theirs: relays have machines of their own,
//! and here they would push the centre out of the processor's caches, the more the more users they have.
//!
//! Time is the relays' own and passes as fast as the machine can. The centre's processor time is that of its process, by
//! getrusage, over the minutes that are measured, and its share is of one processor for as long. The same is done with ten
//! times the users in a new process; the ratio of both is what is promised.

mod centre;
mod users;

use std::time::{Duration, Instant};

use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::stage::Stage;
use overway_quality::REPORT_INTERVAL;
use overway_relay::quality::QualityStore;
use overway_wire::control::ToScheduler;
use overway_wire::quality::FlowReports;
use prost::Message as _;

use crate::common::{Common, machine};
use centre::Centre;
pub(crate) use centre::{CENTRE, main as centre_main};
use users::Users;

/// How often all quantiles are asked for.
const SCRAPE_EVERY: Duration = Duration::from_secs(15);
/// Intervals before it is measured: until every slot of the window is full.
const WARM_UP: Duration = Duration::from_secs(330);

/// Arguments of `bench quality`.
#[derive(Debug, Args)]
pub(crate) struct QualityArgs {
    /// Users, each of which reports once a minute.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    users: u64,
    /// Relays at which they are.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    relays: u16,
    /// Minutes that are measured, after the centre's window is full.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    minutes: u64,
    /// Draws everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What one run has shown.
#[derive(Clone, Copy, Debug)]
struct Measured {
    cpu_share: f64,
    rss_mb: f64,
    word_bytes_per_relay_s: f64,
    fold_us_per_report: f64,
    /// Services, regions and classes that the centre knows.
    records: u64,
}

/// Measures.
pub(crate) fn run(args: &QualityArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let users = if common.quick { args.users.min(60_000) } else { args.users };
    let minutes = if common.quick { 1 } else { args.minutes };
    stage.say(format!("{users} and {} users at {} relays, {}", users * 10, args.relays, machine()));
    let once = measure(args, (users, minutes), stage)?;
    let ten_times = measure(args, (users * 10, minutes), stage)?;
    let mut figures = Figures::default();
    let mut add = |name: &str, value: f64, promise| figures.add(name, value, promise);
    for (suffix, measured) in [("", once), ("_10x", ten_times)] {
        let Measured { cpu_share, rss_mb, word_bytes_per_relay_s, fold_us_per_report, .. } =
            measured;
        add(&format!("centre_cpu_share{suffix}"), cpu_share, Promise::Reported);
        add(&format!("centre_rss_mb{suffix}"), rss_mb, Promise::Reported);
        add(&format!("word_bytes_per_relay_s{suffix}"), word_bytes_per_relay_s, Promise::Reported);
        add(&format!("relay_us_per_report{suffix}"), fold_us_per_report, Promise::Reported);
    }
    #[expect(clippy::cast_precision_loss, reason = "thousands at most")]
    add("centre_records", ten_times.records as f64, Promise::Reported);
    let ratio = ten_times.cpu_share / once.cpu_share;
    add("centre_cpu_ratio_10x", ratio, Promise::AtMost(1.2));
    add("centre_rss_ratio_10x", ten_times.rss_mb / once.rss_mb, Promise::Reported);
    Ok(figures)
}

fn measure(
    args: &QualityArgs,
    (users, minutes): (u64, u64),
    stage: &Stage,
) -> anyhow::Result<Measured> {
    let mut centre = Centre::start(args.relays)?;
    let mut mesh = Mesh::new(users, args);
    let end = WARM_UP + Duration::from_secs(minutes * 60);
    let (mut before, mut scraped) = (Duration::ZERO, Duration::ZERO);
    while mesh.time < end {
        anyhow::ensure!(!stage.stop().is_set(), "stopped");
        stage.status(format!("{users} users: {} of {} s", mesh.time.as_secs(), end.as_secs()));
        if mesh.time == WARM_UP {
            before = centre.usage()?.cpu;
            mesh.begin_measuring();
        }
        mesh.pass_interval(&mut centre)?;
        while scraped + SCRAPE_EVERY <= mesh.time {
            scraped += SCRAPE_EVERY;
            centre.scrape(scraped)?;
        }
    }
    let usage = centre.usage()?;
    let span = end - WARM_UP;
    let relay_seconds = span.as_secs_f64() * f64::from(args.relays);
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 bytes and reports")]
    let (bytes, reports) = (mesh.word_bytes as f64, mesh.reports as f64);
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 bytes")]
    let rss_mb = usage.resident_bytes as f64 / f64::from(1 << 20);
    Ok(Measured {
        cpu_share: (usage.cpu - before).as_secs_f64() / span.as_secs_f64(),
        rss_mb,
        word_bytes_per_relay_s: bytes / relay_seconds,
        fold_us_per_report: mesh.folding.as_secs_f64() * 1e6 / reports,
        records: usage.records,
    })
}

/// The relays and their users.
struct Mesh {
    relays: Vec<QualityStore>,
    users: Users,
    base: Instant,
    /// Of the relays' clocks.
    time: Duration,
    folding: Duration,
    reports: u64,
    word_bytes: u64,
}

impl Mesh {
    fn new(users: u64, args: &QualityArgs) -> Self {
        Self {
            relays: (0..args.relays).map(|_| QualityStore::default()).collect(),
            users: Users::new(users, args.relays, args.seed),
            base: Instant::now(),
            time: Duration::ZERO,
            folding: Duration::ZERO,
            reports: 0,
            word_bytes: 0,
        }
    }

    fn begin_measuring(&mut self) {
        (self.folding, self.reports, self.word_bytes) = (Duration::ZERO, 0, 0);
    }

    /// A sixth of the users reports, and each relay says what came of it.
    fn pass_interval(&mut self, centre: &mut Centre) -> anyhow::Result<()> {
        self.time += REPORT_INTERVAL;
        let (now, mut words) = (self.base + self.time, Vec::new());
        for (relay, store) in (1..).zip(&self.relays) {
            for (attachment, tenant, report) in self.users.reports_at(relay) {
                let reports = FlowReports { flows: vec![report] };
                let began = Instant::now();
                store.take_reports(attachment, tenant, reports, now);
                self.folding += began.elapsed();
                self.reports += 1;
            }
            for word in store.take_words(now) {
                let bytes = ToScheduler::from(word).encode_to_vec();
                self.word_bytes += bytes.len() as u64;
                words.push((relay, bytes));
            }
        }
        for (relay, bytes) in words {
            centre.tell(relay, self.time, &bytes)?;
        }
        self.users.pass_interval();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use centre::Core;
    use overway_wire::quality::Sketch;

    /// What the centre has to do for one interval, in buckets of lists and of runs: its work.
    fn buckets(users: u64) -> (usize, u64) {
        let args = QualityArgs { users, relays: 2, minutes: 1, seed: 3 };
        let mut mesh = Mesh::new(users, &args);
        let mut core = Core::new(2, mesh.base);
        let (mut buckets, mut reports) = (0, 0);
        for (relay, store) in (1..).zip(&mesh.relays) {
            for (attachment, tenant, report) in mesh.users.reports_at(relay) {
                let reports = FlowReports { flows: vec![report] };
                store.take_reports(attachment, tenant, reports, mesh.base);
            }
            assert_eq!(store.stats().reports_refused, 0);
            for word in store.take_words(mesh.base) {
                let felt = word.services.iter().filter_map(|service| service.felt.as_ref());
                for felt in felt {
                    let sketches = [&felt.delay_us, &felt.gap_us, &felt.loss_ppm, &felt.stall_us];
                    buckets += sketches.iter().copied().flatten().map(work).sum::<usize>();
                    reports += felt.reports;
                }
                let bytes = ToScheduler::from(word).encode_to_vec();
                core.handle(relay, Duration::from_secs(10), &bytes).unwrap();
            }
        }
        assert_eq!(core.reports(Duration::from_secs(10)), reports);
        mesh.users.pass_interval();
        (buckets, reports)
    }

    fn work(sketch: &Sketch) -> usize {
        let width = usize::try_from(sketch.width.max(1)).expect("eight at most");
        sketch.steps.len() + sketch.run.len() / width
    }

    #[test]
    fn ten_times_the_users_report_ten_times_and_are_hardly_more_work() {
        let ((few, once), (many, ten_times)) = (buckets(120_000), buckets(1_200_000));

        assert_eq!(ten_times, once * 10);
        assert!(many * 4 < few * 5, "{few} and {many} buckets");
    }
}
