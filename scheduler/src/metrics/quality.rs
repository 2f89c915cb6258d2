//! `overway_quality_*`: what users feel, by service, region and class.
//!
//! Label budget: `tenant` (a name; empty for the mesh's own services), `service`, `region`, `class`, and `percentile` on four
//! gauges; at most [`SERVICES_EXPORTED_MAX`] combinations of the first four, those with the most reports, tenants in turn:
//! names that one makes up take no other's room. There is never a label for an edge, a flow or a relay.
//!
//! Counters with `_good_total` and `_total` are for burn rates: `deliveries` is on time or not (400 ms, loss is not), `gaps`
//! within 60 ms of the sender's spacing or not.

use std::cmp::Reverse;

use overway_quality::{Felt, Sketch};
use overway_scheduler_core::QualityStatus;
use overway_telemetry::Exposition;

/// Services, regions and classes exported; further ones are counted in one gauge. At most 21 series each.
const SERVICES_EXPORTED_MAX: usize = 64;

/// Quantiles as labels, and as shares. A label `quantile` is for summaries, which have sums besides.
const QUANTILES: [(&str, f64); 3] = [("50", 0.5), ("95", 0.95), ("99", 0.99)];

/// Makes the metrics of what was felt over the longest window.
pub(crate) fn exposition(mut felt: Vec<QualityStatus>) -> Exposition {
    let mut out = Exposition::new("overway_quality");
    let left_out = felt.len().saturating_sub(SERVICES_EXPORTED_MAX);
    felt.sort_by_key(|status| (status.key.tenant, Reverse(status.totals.reports)));
    let by_tenant = felt.chunk_by(|one, other| one.key.tenant == other.key.tenant);
    let mut ranked: Vec<_> = by_tenant.flat_map(|of_one| of_one.iter().enumerate()).collect();
    ranked.sort_by_key(|(rank, status)| (*rank, Reverse(status.totals.reports)));
    ranked.truncate(SERVICES_EXPORTED_MAX);
    ranked.sort_by(|(_, one), (_, other)| one.key.cmp(&other.key));
    ranked.iter().for_each(|(_, status)| service(&mut out, status));
    let help = "Services, regions and classes beyond those that are exported";
    out.gauge("services_left_out", help, &[], super::number(left_out));
    out
}

fn service(out: &mut Exposition, status: &QualityStatus) {
    let QualityStatus { key, tenant_name, felt, totals } = status;
    let number = key.tenant.0.to_string();
    let tenant = match (key.tenant.0, tenant_name) {
        (0, _) => "",
        (_, Some(name)) => name,
        (_, None) => &number,
    };
    let service = if key.service.is_empty() { "(other)" } else { &key.service };
    let labels = [
        ("tenant", tenant),
        ("service", service),
        ("region", key.region.as_str()),
        ("class", key.class.name()),
    ];
    let Felt { reports, due, on_time, lost, gaps, gaps_good, stalls, .. } = *totals;
    for (name, help, value) in [
        ("reports_total", "Reports of users' flows and streams", reports),
        ("deliveries_total", "Deliveries that were due: frames, or seconds of streams", due),
        ("deliveries_good_total", "Of these, those within 400 ms", on_time),
        ("deliveries_lost_total", "Of these, those that were lost", lost),
        ("gaps_total", "Intervals between datagrams", gaps),
        ("gaps_good_total", "Of these, those within 60 ms of the sender's spacing", gaps_good),
        ("stalls_total", "Times that streams stood still", stalls),
    ] {
        out.counter(name, help, &labels, value);
    }
    let help = "Delay of deliveries in the last five minutes: one way, or half of the round trip";
    quantiles(out, ("delay_seconds", help), &labels, &felt.delay_us);
    let help = "Time between datagrams beyond the spacing, in the last five minutes";
    quantiles(out, ("gap_seconds", help), &labels, &felt.gap_us);
    let help = "Share of a flow's frames lost in a report, in the last five minutes";
    quantiles(out, ("loss_ratio", help), &labels, &felt.loss_ppm);
    let help = "Time that a stream stood still in a report, in the last five minutes";
    quantiles(out, ("stall_seconds", help), &labels, &felt.stall_us);
}

/// Quantiles of millionths; none where there is no value.
fn quantiles(
    out: &mut Exposition,
    (name, help): (&str, &str),
    labels: &[(&str, &str); 4],
    sketch: &Sketch,
) {
    for (label, share) in QUANTILES {
        let Some(value) = sketch.quantile(share) else { return };
        let [tenant, service, region, class] = *labels;
        let labels = [tenant, service, region, class, ("percentile", label)];
        out.gauge(name, help, &labels, f64::from(value) / 1e6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_scheduler_core::QualityKey;
    use overway_wire::{Class, PolicyId};

    fn status(number: u16) -> QualityStatus {
        let mut felt = Felt { reports: 1, ..Felt::default() };
        (0..100).for_each(|_| felt.delay_us.add(40));
        felt.loss_ppm.add(50);
        let (service, region) = (format!("service-{number}"), "eu".to_owned());
        let reports = u64::from(number) + 1;
        let totals = Felt { reports, due: 100, on_time: 99, ..Felt::default() };
        QualityStatus {
            key: QualityKey { tenant: PolicyId(3), service, region, class: Class::Realtime },
            tenant_name: Some("im".to_owned()),
            felt,
            totals,
        }
    }

    #[test]
    fn what_users_feel_is_exported_for_burn_rates_and_eyes() {
        let text = exposition(vec![status(1)]).render();

        let labels = "{tenant=\"im\",service=\"service-1\",region=\"eu\",class=\"realtime\"";
        for line in [
            format!("overway_quality_deliveries_total{labels}}} 100"),
            format!("overway_quality_deliveries_good_total{labels}}} 99"),
            format!("overway_quality_delay_seconds{labels},percentile=\"99\"}} 0.00004"),
            format!("overway_quality_loss_ratio{labels},percentile=\"50\"}} 0.00005"),
            "overway_quality_services_left_out 0".to_owned(),
        ] {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        assert!(!text.contains("gap_seconds"), "nothing was felt of gaps");
    }

    #[test]
    fn names_that_a_tenant_makes_up_take_no_others_room() {
        let mut felt: Vec<_> = (100..300).map(status).collect();
        let mut quiet = status(1);
        (quiet.key.tenant, quiet.tenant_name) = (PolicyId(4), Some("quiet".to_owned()));
        felt.push(quiet);

        let text = exposition(felt).render();

        assert!(text.contains("overway_quality_reports_total{tenant=\"quiet\""), "{text}");
        assert!(text.contains("overway_quality_services_left_out 137"));
    }

    #[test]
    fn services_beyond_the_budget_are_left_out_and_counted() {
        let text = exposition((0..100).map(status).collect()).render();

        let series = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(series("overway_quality_reports_total{"), SERVICES_EXPORTED_MAX);
        assert!(text.contains("service-99") && !text.contains("service-35\""));
        assert!(text.contains("overway_quality_services_left_out 36"));
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(lines <= SERVICES_EXPORTED_MAX * 21 + 1, "{lines}");
    }
}
