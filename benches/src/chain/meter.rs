//! What processes use of the machine, and what relays count.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// Processor time of some processes, and of everything, at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    at: Instant,
    used: Vec<Duration>,
    own: Duration,
}

/// What was used between two moments, as shares of one core.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Use {
    /// How long it was.
    pub(crate) span: Duration,
    /// Processor time of each process.
    pub(crate) used: Vec<Duration>,
    /// That of the benchmark itself.
    pub(crate) own: Duration,
}

impl Moment {
    /// Looks at these processes.
    pub(crate) fn now(pids: &[u32]) -> Self {
        let used = pids.iter().map(|pid| used(&pid.to_string())).collect();
        Self { at: Instant::now(), used, own: used_by_self() }
    }

    /// What was used since then.
    pub(crate) fn until(&self, later: &Self) -> Use {
        let used = later.used.iter().zip(&self.used);
        Use {
            span: later.at.saturating_duration_since(self.at),
            used: used.map(|(later, earlier)| later.saturating_sub(*earlier)).collect(),
            own: later.own.saturating_sub(self.own),
        }
    }
}

impl Use {
    /// Percentages of a core, for people.
    pub(crate) fn text(&self) -> String {
        let percent = |used: &Duration| {
            format!("{:.0}", used.as_secs_f64() / self.span.as_secs_f64().max(1e-3) * 100.0)
        };
        let each: Vec<String> = self.used.iter().map(percent).collect();
        format!("{} %, the benchmark {} %", each.join(" "), percent(&self.own))
    }
}

fn used_by_self() -> Duration {
    used("self")
}

/// Time on a processor of all threads that a process has now, where the system tells it.
fn used(pid: &str) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let of_task = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        Some(Duration::from_nanos(text.split(' ').next()?.trim().parse().ok()?))
    };
    tasks.filter_map(|task| of_task(task.ok()?)).sum()
}

/// Name and labels to value, of the text that metrics are exposed in.
pub(crate) fn parse_exposition(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    lines.filter_map(read).collect()
}

/// The counters that have grown, as `name +growth`.
pub(crate) fn growth(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Vec<String> {
    let grown = |(name, value): (&String, &f64)| {
        let by = value - before.get(name).copied().unwrap_or(0.0);
        let short = name.strip_prefix("overway_relay_").unwrap_or(name);
        (by > 0.0 && name.contains("_total")).then(|| format!("{short} +{by}"))
    };
    after.iter().filter_map(grown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_by_name_and_labels() {
        let text = "# HELP a b\na_total{reason=\"queue full\"} 3\nb_total 1.5\nc 9\n";
        let after = parse_exposition(text);
        let before = parse_exposition("b_total 1.5\n");

        assert_eq!(growth(&before, &after), ["a_total{reason=\"queue full\"} +3"]);
    }

    #[test]
    fn a_process_uses_time() {
        let before = Moment::now(&[std::process::id()]);
        let mut sum = 0_u64;
        while before.until(&Moment::now(&[std::process::id()])).own.is_zero() {
            sum = sum.wrapping_add(1);
        }
        assert!(sum < u64::MAX);
    }
}
