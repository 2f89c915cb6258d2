//! The one task that looks at the core for dashboards.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use overway_scheduler_core::Overview;
use tokio_util::sync::CancellationToken;

use super::Dashboard;
use crate::api::OverviewBody;
use crate::control::Shared;
use crate::events::unix_ms;

/// Links in an overview: more than a map can show. 150 KB.
pub(crate) const LINKS_MAX: usize = 1_500;
/// Time between samples of the history.
const HISTORY_INTERVAL: Duration = Duration::from_secs(10);
/// What users felt is sampled over so long, the shortest that the core tells: ends report each ten seconds.
const FELT_WINDOW: Duration = Duration::from_secs(30);
/// Least time between overviews while somebody watches.
const WATCHED_INTERVAL: Duration = Duration::from_secs(1);
/// A look is taken so seldom that looks take one of so many parts of the core's time.
const CORE_SHARE: u32 = 20;
/// What a browser is sent a second, at most on average.
const BYTES_PER_SECOND: usize = 100_000;

/// Samples until `stop`, or the driver ends.
///
/// # Errors
/// Never; what it cannot have it goes without.
pub(crate) async fn run(
    shared: Arc<Shared>,
    dashboard: Arc<Dashboard>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut spacing = WATCHED_INTERVAL;
    let mut last_history: Option<Instant> = None;
    let mut last_look = Instant::now();
    loop {
        let is_watched = dashboard.overview.receiver_count() > 0;
        let next = if is_watched { spacing } else { spacing.max(HISTORY_INTERVAL) };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = dashboard.woken.notified() => {
                // Who has just come is not to wait, but must not make looks more frequent.
                let rest = tokio::time::sleep(spacing.saturating_sub(last_look.elapsed()));
                if stop.run_until_cancelled(rest).await.is_none() {
                    return Ok(());
                }
            }
            () = tokio::time::sleep(next.saturating_sub(last_look.elapsed())) => {}
        }
        last_look = Instant::now();
        let is_sample = last_history.is_none_or(|last| last.elapsed() >= HISTORY_INTERVAL);
        let look = move |core: &overway_scheduler_core::Scheduler, now: Instant| {
            let felt = if is_sample { core.quality(FELT_WINDOW, now) } else { Vec::new() };
            (core.overview(LINKS_MAX, now), felt, now.elapsed())
        };
        let Ok((overview, felt, took)) = shared.driver.look(look).await else { return Ok(()) };
        let at = unix_ms(SystemTime::now());
        if is_sample {
            last_history = Some(Instant::now());
            dashboard.history().add(&overview, &felt, at);
        }
        let bytes = publish(&shared, &dashboard, &overview, at);
        spacing = interval(took, bytes);
    }
}

/// Hands the overview to those who watch; how large it is, 0 if nobody does.
fn publish(shared: &Shared, dashboard: &Dashboard, overview: &Overview, at: u64) -> usize {
    if dashboard.overview.receiver_count() == 0 {
        return 0;
    }
    let body = OverviewBody::new(shared.authority.mesh(), overview, at);
    let text = serde_json::to_string(&body).expect("it is JSON by its type");
    let bytes = text.len();
    dashboard.overview.send_replace(text.into());
    bytes
}

/// Time to the next look, by what this one cost.
fn interval(took: Duration, bytes: usize) -> Duration {
    let seconds = u64::try_from(bytes.div_ceil(BYTES_PER_SECOND)).unwrap_or(u64::MAX);
    WATCHED_INTERVAL.max(took.saturating_mul(CORE_SHARE)).max(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_more_is_done_less_often() {
        let millis = Duration::from_millis;

        assert_eq!(interval(millis(1), 10_000), WATCHED_INTERVAL);
        assert_eq!(interval(millis(200), 10_000), Duration::from_secs(4));
        assert_eq!(interval(millis(1), 350_000), Duration::from_secs(4));
    }
}
