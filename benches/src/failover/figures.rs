//! The figures of `failover`.

use std::time::Duration;

use overway::lab::drills::Blow;
use overway::lab::figures::{Figures, Promise};
use overway::lab::profile::Profile;

use super::rows::{self, Row};
use super::{LOADED_FLOWS, Seen, loaded};

/// The promise: excess at p99.
const EXCESS_MS_MAX: f64 = 60.0;
/// Samples of each blow that make a p99.
const SAMPLES_MIN: f64 = 200.0;
/// How long a blow is watched, and looked back on: what a strike does.
const WATCHED: Duration = Duration::from_millis(4_500);

/// The figures; `enough` says whether there were blows for a p99.
pub(super) fn figures(seen: &Seen, profile: &Profile, enough: bool) -> Figures {
    let rows = &seen.rows;
    let mut figures = Figures::default();
    let enough = if enough { Promise::AtLeast(SAMPLES_MIN) } else { Promise::Reported };
    let (freeze, kill) = ((false, Blow::Freeze), (false, Blow::Kill));
    let (gap, excess) = (|row: &Row| row.sample.felt.gap_ms(), |row: &Row| row.sample.excess_ms);
    let settled = |row: &Row| row.sample.settled_excess_ms;
    let bound = Promise::AtMost(EXCESS_MS_MAX);
    let reported = Promise::Reported;
    let lost = |row: &Row| row.sample.felt.lost as f64;
    let mut measured = |name, value, promise| figures.add_measured(name, value, promise);
    measured("freeze_samples", Some(rows::count(rows, freeze)), enough);
    measured("kill_samples", Some(rows::count(rows, kill)), enough);
    measured("freeze_gap_ms_p50", rows::percentile_of(rows, freeze, gap, 0.5), reported);
    measured("freeze_gap_ms_p99", rows::percentile_of(rows, freeze, gap, 0.99), reported);
    measured("freeze_excess_ms_p50", rows::percentile_of(rows, freeze, excess, 0.5), reported);
    measured("freeze_excess_ms_p99", rows::percentile_of(rows, freeze, excess, 0.99), bound);
    measured(
        "freeze_settled_excess_ms_p99",
        rows::percentile_of(rows, freeze, settled, 0.99),
        reported,
    );
    measured("freeze_lost_p50", rows::percentile_of(rows, freeze, lost, 0.5), reported);
    measured("kill_gap_ms_p99", rows::percentile_of(rows, kill, gap, 0.99), reported);
    measured("kill_excess_ms_p99", rows::percentile_of(rows, kill, excess, 0.99), bound);
    measured(
        "kill_settled_excess_ms_p99",
        rows::percentile_of(rows, kill, settled, 0.99),
        reported,
    );
    measured("duplicates", Some(seen.duplicates as f64), Promise::AtMost(0.0));
    let (watched, downs) = seen.bystanders;
    let hours = seen.quiet.total().as_secs_f64() / 3_600.0;
    let false_downs = seen.quiet.seen().downs as f64 / hours;
    measured("unsettled_flows", Some(seen.unsettled as f64), reported);
    measured("false_downs_per_hour", Some(false_downs), Promise::AtMost(0.0));
    measured("undisturbed_s", Some(seen.quiet.total().as_secs_f64()), reported);
    measured("undisturbed_downs", Some(seen.quiet.seen().downs as f64), reported);
    measured("undisturbed_suspects", Some(seen.quiet.seen().suspects as f64), reported);
    measured("bystander_s", Some(watched.as_secs_f64()), reported);
    measured("bystander_downs", Some(downs as f64), reported);
    let loaded = (true, Blow::Freeze);
    let frames = WATCHED.as_secs_f64() / loaded::spacing(LOADED_FLOWS).as_secs_f64();
    let queue = |row: &Row| row.queue_ms(profile);
    measured("loaded_samples", Some(rows::count(rows, loaded)), reported);
    measured("loaded_queue_ms_p50", rows::percentile_of(rows, loaded, queue, 0.5), reported);
    measured("loaded_gap_ms_p99", rows::percentile_of(rows, loaded, gap, 0.99), reported);
    // What waits in queues lengthens the detour's delay, which the excess forgives: it stands here.
    let after = |row: &Row| row.sample.felt.delay_settled.as_secs_f64() * 1e3;
    measured("loaded_delay_after_ms_p99", rows::percentile_of(rows, loaded, after, 0.99), reported);
    measured("loaded_excess_ms_p99", rows::percentile_of(rows, loaded, excess, 0.99), reported);
    measured(
        "loaded_settled_excess_ms_p99",
        rows::percentile_of(rows, loaded, settled, 0.99),
        reported,
    );
    measured("loaded_lost_share", rows::lost_share(rows, true, frames), reported);
    measured("own_stall_ms_max", Some(seen.own_stall.as_secs_f64() * 1e3), reported);
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_names_that_are_promised() {
        let figures = figures(&Seen::default(), &Profile::world(), true);

        let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
        for name in [
            "freeze_samples",
            "kill_samples",
            "freeze_gap_ms_p50",
            "freeze_gap_ms_p99",
            "freeze_excess_ms_p50",
            "freeze_excess_ms_p99",
            "freeze_lost_p50",
            "kill_gap_ms_p99",
            "kill_excess_ms_p99",
            "duplicates",
            "false_downs_per_hour",
            "undisturbed_s",
            "loaded_excess_ms_p99",
            "loaded_lost_share",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(!figures.are_kept());
    }
}
