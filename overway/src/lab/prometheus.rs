//! The scrape configuration of a lab's processes, for a Prometheus that is to look at it.

use std::path::Path;

use anyhow::Context;

use super::world::{Node, World};

/// Writes it; whoever waits for the file sees it whole or not at all.
pub(super) fn write(world: &World, path: &Path) -> anyhow::Result<()> {
    let targets: Vec<Target> = world
        .nodes()
        .map(|node| {
            let job = match node {
                Node::Scheduler => "overway-scheduler",
                Node::Relay(_) => "overway-relay",
                Node::Edge(_) => "overway-edge",
            };
            Target {
                job,
                name: world.name(node).to_owned(),
                address: world.admin(node).to_string(),
            }
        })
        .collect();
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    std::fs::write(&temporary, text(&targets))
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A process's admin interface.
struct Target {
    job: &'static str,
    name: String,
    address: String,
}

/// Names are made of letters, digits and hyphens, so that nothing needs quoting beyond the quotes. Jobs and
/// `instance` are as in `deploy/prometheus/prometheus.yml`, whose rules and dashboards fit therefore.
fn text(targets: &[Target]) -> String {
    let mut text = String::from(
        "# The processes of one run of `overway lab`.\n\
         global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nscrape_configs:\n",
    );
    let mut last = None;
    for Target { job, name, address } in targets {
        if last != Some(job) {
            text.push_str(&format!("  - job_name: {job}\n    static_configs:\n"));
            last = Some(job);
        }
        text.push_str(&format!(
            "      - targets: [\"{address}\"]\n        labels: {{ instance: \"{name}\" }}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_is_a_target_of_its_job() {
        let target = |job, name: &str, address: &str| Target {
            job,
            name: name.to_owned(),
            address: address.to_owned(),
        };

        let text = text(&[
            target("overway-scheduler", "scheduler", "127.0.0.1:1"),
            target("overway-relay", "oslo", "127.0.0.1:2"),
            target("overway-relay", "rome", "127.0.0.1:3"),
        ]);

        assert_eq!(
            text.split_once("scrape_configs:\n").unwrap().1,
            "  - job_name: overway-scheduler\n    static_configs:\n\
             \x20     - targets: [\"127.0.0.1:1\"]\n        labels: { instance: \"scheduler\" }\n\
             \x20 - job_name: overway-relay\n    static_configs:\n\
             \x20     - targets: [\"127.0.0.1:2\"]\n        labels: { instance: \"oslo\" }\n\
             \x20     - targets: [\"127.0.0.1:3\"]\n        labels: { instance: \"rome\" }\n"
        );
    }
}
