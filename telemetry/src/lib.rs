//! Metrics in the Prometheus text format, the one place that names the `prometheus` crate.
//!
//! Counters live as plain numbers where they are counted; an [`Exposition`] is built from them at each
//! scrape. Nothing is registered and nothing can be counted twice.

#[cfg(feature = "admin")]
pub mod admin;
pub mod log;
#[cfg(feature = "admin")]
pub mod reload;

use std::collections::BTreeMap;
use std::net::IpAddr;

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder as _, TextEncoder};

/// The target of spans that are exported where a process traces (the feature `otlp` of the program). They are for what
/// is rare, never for a frame, and of level *debug*, so that logs have none of them.
pub const SPANS: &str = "overway::span";

/// The content type of [`Exposition::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// What a metric is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// What it means.
    pub help: String,
}

/// Metric families of one scrape.
#[derive(Debug, Default)]
pub struct Exposition {
    prefix: &'static str,
    families: BTreeMap<String, MetricFamily>,
}

impl Exposition {
    /// Starts a scrape; `prefix` stands before every name, as in `overway_relay`.
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix, families: BTreeMap::new() }
    }

    /// Adds a counter; `name` ends in `_total`.
    #[expect(clippy::cast_precision_loss, reason = "the format has floats; 2^53 counts are enough")]
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        let mut metric = labelled(labels);
        metric.set_counter(counter);
        self.push(name, help, MetricType::COUNTER, metric);
    }

    /// Adds a gauge, in a base unit.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = labelled(labels);
        metric.set_gauge(gauge);
        self.push(name, help, MetricType::GAUGE, metric);
    }

    /// Adds a histogram of something in a base unit. `buckets` are upper bounds, ascending, each with how many did
    /// not exceed it; the bucket without a bound is added.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        (count, sum): (u64, f64),
    ) {
        let bucket = |(bound, within)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(within);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.into_iter().map(bucket).collect());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum);
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.push(name, help, MetricType::HISTOGRAM, metric);
    }

    fn push(&mut self, name: &str, help: &str, kind: MetricType, metric: Metric) {
        let name = format!("{}_{name}", self.prefix);
        let family = self.families.entry(name.clone()).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name);
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        family.mut_metric().push(metric);
    }

    /// Label names of each family, for a test that holds the label budget.
    pub fn labels(&self) -> BTreeMap<String, Vec<String>> {
        let names = |metric: &Metric| {
            metric.get_label().iter().map(|label| label.name().to_owned()).collect::<Vec<_>>()
        };
        let first = |family: &MetricFamily| family.get_metric().first().map(names);
        let families = self.families.iter();
        families.map(|(name, family)| (name.clone(), first(family).unwrap_or_default())).collect()
    }

    /// What every family is, by name.
    pub fn describe(&self) -> Vec<Described> {
        let mut labels = self.labels();
        let described = |(name, family): (&String, &MetricFamily)| Described {
            name: name.clone(),
            kind: match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::GAUGE => "gauge",
                MetricType::HISTOGRAM => "histogram",
                MetricType::SUMMARY => "summary",
                MetricType::UNTYPED => "untyped",
            },
            labels: labels.remove(name).unwrap_or_default(),
            help: family.help().to_owned(),
        };
        self.families.iter().map(described).collect()
    }

    /// The text format.
    pub fn render(self) -> String {
        let families: Vec<MetricFamily> = self.families.into_values().collect();
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("writing to a vector does not fail, and every family has a metric");
        String::from_utf8(text).expect("the text format is UTF-8")
    }
}

/// Exports the counters of a plain struct: `NAME` becomes `<prefix>NAME_total`. The struct is
/// destructured, so that a forgotten field does not compile; fields that are no counters are named after
/// `and`, and are the macro's value.
#[macro_export]
macro_rules! export_counters {
    ($out:expr, $prefix:literal, $stats:expr, $kind:path {
        $($field:ident: $help:literal,)+
    } and $($rest:ident),+) => {{
        let $kind { $($field,)+ $($rest,)+ } = $stats;
        $($out.counter(concat!($prefix, stringify!($field), "_total"), $help, &[], $field);)+
        ($($rest),+)
    }};
    ($out:expr, $prefix:literal, $stats:expr, $kind:path {
        $($field:ident: $help:literal,)+
    }) => {{
        let $kind { $($field,)+ } = $stats;
        $($out.counter(concat!($prefix, stringify!($field), "_total"), $help, &[], $field);)+
    }};
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let mut metric = Metric::default();
    metric.set_label(
        labels
            .iter()
            .map(|&(name, value)| {
                let mut label = LabelPair::default();
                label.set_name(name.to_owned());
                label.set_value(value.to_owned());
                label
            })
            .collect(),
    );
    metric
}

/// Whether an HTTP request's `Host` is this machine by address or as `localhost`. An admin server without
/// access control refuses others, or a page in the operator's browser could reach it under a name of its
/// own that resolves to loopback (DNS rebinding).
pub fn is_local_host(host: &str) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        Some(_) | None => host,
    };
    let address = bare.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_are_rendered_with_help_and_type() {
        let mut exposition = Exposition::new("overway_test");
        exposition.counter("frames_total", "Frames.", &[("class", "bulk")], 3);
        exposition.counter("frames_total", "Frames.", &[("class", "realtime")], 4);
        exposition.gauge("delay_seconds", "Delay.", &[], 0.25);

        let text = exposition.render();

        assert_eq!(
            text,
            "# HELP overway_test_delay_seconds Delay.\n\
             # TYPE overway_test_delay_seconds gauge\n\
             overway_test_delay_seconds 0.25\n\
             # HELP overway_test_frames_total Frames.\n\
             # TYPE overway_test_frames_total counter\n\
             overway_test_frames_total{class=\"bulk\"} 3\n\
             overway_test_frames_total{class=\"realtime\"} 4\n"
        );
    }

    #[test]
    fn a_histogram_has_its_buckets_count_and_sum() {
        let mut exposition = Exposition::new("overway_test");
        exposition.histogram("wait_seconds", "Wait.", &[], [(0.5, 1), (1.0, 3)], (4, 7.5));

        let text = exposition.render();

        assert_eq!(
            text,
            "# HELP overway_test_wait_seconds Wait.\n\
             # TYPE overway_test_wait_seconds histogram\n\
             overway_test_wait_seconds_bucket{le=\"0.5\"} 1\n\
             overway_test_wait_seconds_bucket{le=\"1\"} 3\n\
             overway_test_wait_seconds_bucket{le=\"+Inf\"} 4\n\
             overway_test_wait_seconds_sum 7.5\n\
             overway_test_wait_seconds_count 4\n"
        );
    }

    #[test]
    fn addresses_and_localhost_are_local_hosts() {
        for host in ["127.0.0.1:9400", "localhost:9400", "localhost", "[::1]:9400", "127.0.0.1"] {
            assert!(is_local_host(host), "{host}");
        }
        for host in ["evil.example:9400", "localhost.evil.example", "", "127.0.0.1.nip.io:80"] {
            assert!(!is_local_host(host), "{host}");
        }
    }
}
