//! `overway metrics`, hidden: the reference of all metrics, made of what processes export.

use std::fmt::Write as _;
use std::process::ExitCode;

use overway_telemetry::{Described, Exposition};

use super::failure::Failure;
use super::output;

const INTRODUCTION: &str = "\
# Metrics

Every process serves its metrics in Prometheus' text format at `/metrics` of its admin interface. This page is made by
`overway metrics > docs/METRICS.md` of what processes export; a test compares it with them. Units are base units. Counters count
since the process's start. `LABELS` are all that a metric has: none is ever of a flow, a client, an edge or a pair of
relays, so that series grow with relays and their links, not with users. Metrics under *Quality* are the scheduler's,
of what users feel.
";

/// Prints the reference.
pub(crate) fn run() -> Result<ExitCode, Failure> {
    output::print(&reference())?;
    Ok(ExitCode::SUCCESS)
}

/// Every kind of process, with all that it can export.
fn samples() -> [(&'static str, Exposition); 4] {
    [
        ("Relay", overway_relay::metrics_sample()),
        ("Scheduler", overway_scheduler::metrics_sample()),
        ("Quality", overway_scheduler::quality_sample()),
        ("Edge", overway_edge::metrics_sample()),
    ]
}

/// The page.
fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    for (process, sample) in samples() {
        let head = "| name | type | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n";
        let _ = write!(text, "\n## {process}\n\n{head}");
        for metric in sample.describe() {
            let Described { name, kind, labels, help } = &metric;
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let (unit, labels) = (unit(name, kind), labels.join(", "));
            let meaning = help.trim_end_matches('.').replace('|', "\\|");
            let _ = writeln!(text, "| `{name}` | {kind} | {unit} | {labels} | {meaning} |");
        }
    }
    text
}

/// The unit that a name says.
fn unit(name: &str, kind: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    match () {
        () if name.ends_with("_bytes_per_second") => "bytes per second",
        () if name.ends_with("_seconds") => "seconds",
        () if name.ends_with("_ratio") => "share, 0 to 1",
        () if name.split('_').any(|word| word == "bytes") => "bytes",
        () if kind == "counter" => "count",
        () => "number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn the_reference_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md");
        let reference = reference();
        if std::env::var_os("OVERWAY_WRITE_REFERENCE").is_some() {
            std::fs::write(path, &reference).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();

        assert!(
            written == reference,
            "docs/METRICS.md is stale: cargo run -p overway -- metrics > docs/METRICS.md"
        );
    }

    #[test]
    fn names_types_and_units_follow_the_rules() {
        for (process, sample) in samples() {
            let prefix = format!("overway_{}_", process.to_lowercase());
            for Described { name, kind, help, .. } in sample.describe() {
                assert!(name.starts_with(&prefix), "{name}");
                assert!(!help.is_empty(), "{name} has no meaning");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
                for word in name.split('_') {
                    let foreign = [
                        "ms", "us", "ns", "millis", "bits", "bps", "kb", "mb", "percent",
                        "permille",
                    ];
                    assert!(!foreign.contains(&word), "{name} is not in a base unit");
                }
            }
        }
    }

    #[test]
    fn labels_stay_within_the_budget() {
        // A relay has tens of neighbours, and a mesh thousands of relays: what is not bounded by either, or by a fixed list,
        // has no label.
        let budget: BTreeSet<&str> = [
            "class",
            "direction",
            "lane",
            "line",
            "link",
            "mode",
            "name",
            "neighbour",
            "percentile",
            "reason",
            "region",
            "relay",
            "service",
            "tenant",
            "transport",
            "version",
            "worker",
            "protocol",
            "state",
            "kind",
            "cause",
            "result",
            "outcome",
        ]
        .into();
        for (_, sample) in samples() {
            for Described { name, labels, .. } in sample.describe() {
                assert!(labels.len() <= 5, "{name} has {labels:?}");
                for label in labels {
                    assert!(budget.contains(label.as_str()), "{name} has the label {label}");
                }
            }
        }
    }

    #[test]
    fn promtool_finds_nothing_wrong() {
        for (process, sample) in samples() {
            let spawned = Command::new("promtool")
                .args(["check", "metrics"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let Ok(mut promtool) = spawned else {
                eprintln!("skipped: promtool is not installed (apt install prometheus)");
                return;
            };
            let text = sample.render();
            promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            let done = promtool.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success(), "{process}: {said}");
        }
    }
}
