//! `bench scale`: the scheduler's own core with thousands of relays, in virtual time.
//!
//! ```text
//!   fake relays --hello, reports--> scheduler core --updates, encoded--> fake relays --acks-->
//! ```
//!
//! Relays are in clusters, as data centres are; their links have the round trips that follow, and 1 % of them change
//! each second by noise of the published kind. Every relay reports what changed each second, everything each thirty,
//! what did not change as it was, and what its users ask it to send. Up to 1,000 relays all probe all; above, the
//! scheduler bounds the sets.
//!
//! Time is the relays' own and passes as fast as the machine can; what is measured is the real time that the
//! scheduler takes: for an epoch from the moment when a plan is due until the last update is encoded, and for the
//! reports of one second. A plan that takes longer than a second takes as much of the relays' time, as in a scheduler's
//! process, and measuring begins once plans are of what changed and not of everything. Memory is that of the whole
//! process, in which the fake relays have a small part.

pub(crate) mod mesh;
mod noise;
pub(crate) mod threads;

use anyhow::Context;
use clap::Args;
use overway::lab::figures::{Figures, Promise};
use overway::lab::flow::percentile;
use overway::lab::stage::Stage;

use crate::common::{Common, machine};
use mesh::{Mesh, Size};

/// Seconds of the mesh's time until which plans must be of what changed.
const SETTLING_MAX: u32 = 3_600;

/// Arguments of `bench scale`.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Relays of the mesh.
    #[arg(long, default_value_t = 5_000)]
    relays: u16,
    /// Seconds of the mesh's time that are measured, after it has settled.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Links that change each second, in percent.
    #[arg(long, default_value_t = 1.0)]
    links_changing: f64,
    /// Threads that plan.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Destinations to which each relay's users send.
    #[arg(long, default_value_t = 8)]
    demands: usize,
    /// Draws everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Measures.
pub(crate) fn run(args: &ScaleArgs, common: &Common, stage: &Stage) -> anyhow::Result<Figures> {
    let relays = if common.quick { args.relays.min(200) } else { args.relays };
    let seconds = if common.quick { args.seconds.min(10) } else { args.seconds };
    stage.say(format!("{relays} relays, {}", machine()));
    let size = Size {
        relays,
        changing: args.links_changing / 100.0,
        threads: args.threads,
        demands: args.demands,
        seed: args.seed,
    };
    let mut mesh = Mesh::new(size);
    mesh.connect();
    let settling = mesh.settling_seconds();
    for second in 0.. {
        if second >= settling && mesh.is_calm() {
            break;
        }
        anyhow::ensure!(second < SETTLING_MAX, "plans were still long after {second} s");
        pass_second(&mut mesh, stage, &format!("second {second}, settling"))?;
    }
    mesh.begin_measuring();
    for second in 0..seconds {
        pass_second(&mut mesh, stage, &format!("second {second} of {seconds}"))?;
    }
    let measured = mesh.finish();
    let mut figures = Figures::default();
    figures.add("relays", f64::from(relays), Promise::Reported);
    figures.add("neighbours_mean", measured.neighbours_mean, Promise::Reported);
    figures.add("pairs_reachable_share", measured.reachable_share, Promise::AtLeast(0.999));
    for (name, share) in [("epoch_ms_p50", 0.5), ("epoch_ms_p99", 0.99)] {
        figures.add_measured(name, percentile(&measured.epochs_ms, share), Promise::Reported);
    }
    figures.add("report_ms_per_s", measured.report_ms_per_s, Promise::Reported);
    figures.add("push_bytes_per_relay_s", measured.push_bytes_per_relay_s, Promise::Reported);
    figures.add("report_bytes_per_relay_s", measured.report_bytes_per_relay_s, Promise::Reported);
    figures.add("routes_changed_per_s", measured.routes_changed_per_s, Promise::Reported);
    figures.add("links_judged_per_s", measured.links_judged_per_s, Promise::Reported);
    let peak = peak_rss_mb().context("how much memory was used")?;
    figures.add("peak_rss_mb", peak, Promise::Reported);
    Ok(figures)
}

fn pass_second(mesh: &mut Mesh, stage: &Stage, which: &str) -> anyhow::Result<()> {
    anyhow::ensure!(!stage.stop().is_set(), "stopped");
    mesh.pass_second();
    stage.status(format!("{which}: {}", mesh.progress()));
    Ok(())
}

/// The greatest resident size that this process had.
fn peak_rss_mb() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    parse_peak(&status).context("/proc/self/status has no VmHWM")
}

fn parse_peak(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_process_status() {
        assert_eq!(parse_peak("Name:\tx\nVmHWM:\t  204800 kB\nVmRSS:\t 1 kB\n"), Some(200.0));
        assert_eq!(parse_peak("Name:\tx\n"), None);
    }

    #[test]
    fn a_small_mesh_settles_and_is_measured() {
        let size = Size { relays: 12, changing: 0.01, threads: 2, demands: 3, seed: 1 };
        let mut mesh = Mesh::new(size);
        mesh.connect();
        (0..15).for_each(|_| mesh.pass_second());
        mesh.begin_measuring();
        (0..5).for_each(|_| mesh.pass_second());

        let measured = mesh.finish();

        assert_eq!(measured.reachable_share.to_bits(), 1.0_f64.to_bits());
        assert!(measured.neighbours_mean > 10.9 && !measured.epochs_ms.is_empty());
        assert!(measured.report_bytes_per_relay_s > 0.0);
    }
}
