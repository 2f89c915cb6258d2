//! `/metrics`: the core's and the shell's counters.
//!
//! Label budget: a metric has one label at most, a relay's name or a value from a fixed list. There is
//! never one for a pair of relays: links and routes grow with the square, and `/v1/status` has them.

mod quality;
pub(crate) mod sample;

use overway_scheduler_core::{
    Absurd, RelayStatus, ReportsRefused, RouteSummary, Stats, Status, TenantSummary,
};
use overway_telemetry::Exposition;

pub(crate) use quality::exposition as quality;

use crate::counters::{Counter, Counters, TIMES_US, Times};

/// Everything that is exported, read at about one moment.
pub(crate) struct Reading<'a> {
    /// The core's counters.
    pub(crate) stats: Stats,
    /// The core's status.
    pub(crate) status: &'a Status,
    /// Tenants and their services.
    pub(crate) tenants: TenantSummary,
    /// The shell's counters.
    pub(crate) counters: &'a Counters,
    /// Open sessions.
    pub(crate) sessions: usize,
    /// Time until the scheduler's own certificate ends, in seconds.
    pub(crate) certificate_s: f64,
}

/// Makes the metrics of a reading.
pub(crate) fn exposition(reading: &Reading<'_>) -> Exposition {
    let mut out = Exposition::new("overway_scheduler");
    core_counters(&mut out, reading.stats);
    shell_counters(&mut out, reading.counters);
    gauges(&mut out, reading);
    relays(&mut out, &reading.status.relays);
    out
}

fn core_counters(out: &mut Exposition, stats: Stats) {
    let (refused, absurd) = overway_telemetry::export_counters!(out, "", stats, Stats {
        hellos: "Hellos that were taken",
        hellos_refused: "Hellos that were refused",
        terms_absurd: "Hellos of a term that no scheduler can have come to",
        terms_raised: "Times that the term was raised while running",
        sessions_lost: "Relays' sessions that ended",
        reports: "Reports that were taken",
        sessions_out_of_step: "Sessions ended because reports did not count up",
        report_links_ignored: "Links in reports that were passed over",
        report_demands_ignored: "Demands in reports that were passed over",
        offers: "Words of relays on what edges offer there",
        offers_refused: "Offers that were passed over: they make no sense, or are too many",
        distances_refused: "Distances to networks that were passed over: they make no sense, or are too many",
        prefixes_refused: "Networks left out because their bucket has too many",
        qualities: "Words of relays on what users feel there",
        qualities_refused: "Services in these that were passed over: what is said of them makes no sense",
        qualities_other: "Services in these that counted as others, there being too many",
        services_refused: "Services left out because their tenant has too many",
        endpoints_refused: "Endpoints left out because their service has too many",
        links_judged: "Links judged, each time that something of one changed",
        doubts: "Times that a relay was doubted, one neighbour having lost it",
        links_added: "Links put into the probe plan",
        links_removed: "Links taken out of the probe plan",
        goodbyes: "Goodbyes of relays",
        plans: "Plans computed",
        plans_urgent: "Plans computed on a change that does not wait",
        placements: "Times that demand was placed on paths",
        weights_changed: "Routes whose shares changed",
        overloads: "Times that a link or relay had to carry more than it can",
        routes_changed: "Routes changed by plans",
        epochs: "Epochs made",
        updates_delta: "Updates sent that change an acknowledged revision",
        updates_full: "Updates sent with the whole state",
        updates_partial: "Updates sent that hold a part only",
        update_bytes: "Bytes of updates sent",
        acks: "Acknowledgements of the update in flight",
        acks_ignored: "Acknowledgements of anything else",
        resyncs: "Relays' requests for the whole state",
        ack_timeouts: "Updates that were not acknowledged in time",
        blind: "Times that no relay was heard",
        stalls: "Times that the scheduler was busy or asleep for longer than its timers allow",
        events_dropped: "Events of the core that were not recorded",
    } and reports_refused, absurd);
    refused_reports(out, refused);
    absurd_links(out, absurd);
}

fn refused_reports(out: &mut Exposition, refused: ReportsRefused) {
    let ReportsRefused { sequence, too_many_links, not_its_link } = refused;
    for (reason, value) in
        [("sequence", sequence), ("too_many_links", too_many_links), ("not_its_link", not_its_link)]
    {
        let help = "Reports that were refused, by reason";
        out.counter("reports_refused_total", help, &[("reason", reason)], value);
    }
}

fn absurd_links(out: &mut Exposition, absurd: Absurd) {
    let Absurd { state, one_way_diff, round_trip, jitter, samples, lost, rate } = absurd;
    for (reason, value) in [
        ("state", state),
        ("one_way_diff", one_way_diff),
        ("round_trip", round_trip),
        ("jitter", jitter),
        ("samples", samples),
        ("lost", lost),
        ("rate", rate),
    ] {
        let help = "Numbers in taken reports that cannot be true, by reason";
        out.counter("report_links_absurd_total", help, &[("reason", reason)], value);
    }
}

fn shell_counters(out: &mut Exposition, counters: &Counters) {
    let Counters {
        handshakes_retried,
        handshakes_refused,
        handshakes_failed,
        connections_refused,
        certificates_expired,
        slow_relays,
        protocol_errors,
        join_attempts,
        joins,
        joins_limited,
        renewals,
        renewals_refused,
        plan_times,
    } = counters;
    times(out, "plan_seconds", "How long plans took, with the updates made of them", plan_times);
    let mut count = |what: &str, help, counter: &Counter| {
        out.counter(&format!("{what}_total"), help, &[], counter.value());
    };
    count("handshakes_retried", "Handshakes answered with a QUIC Retry", handshakes_retried);
    count("handshakes_refused", "Handshakes refused, too many being open", handshakes_refused);
    count("handshakes_failed", "Handshakes that failed or took too long", handshakes_failed);
    count("connections_refused", "Connections refused, too many being open", connections_refused);
    count(
        "certificates_expired",
        "Sessions ended because the relay's certificate had expired",
        certificates_expired,
    );
    count("slow_relays", "Sessions closed because updates were not taken", slow_relays);
    count("protocol_errors", "Sessions closed because they broke the protocol", protocol_errors);
    count("join_attempts", "Attempts to join", join_attempts);
    count("joins", "Attempts to join that led to a certificate", joins);
    count("joins_limited", "Attempts to join turned away, there being too many", joins_limited);
    count("renewals", "Certificates renewed for relays", renewals);
    count("renewals_refused", "Renewals of certificates refused", renewals_refused);
}

#[expect(clippy::cast_precision_loss, reason = "exact for 285 years of planning")]
fn times(out: &mut Exposition, name: &str, help: &str, times: &Times) {
    let (within, count, sum_us) = times.read();
    let buckets = TIMES_US.into_iter().map(|bound_us| bound_us as f64 / 1e6).zip(within);
    out.histogram(name, help, &[], buckets, (count, sum_us as f64 / 1e6));
}

fn gauges(out: &mut Exposition, reading: &Reading<'_>) {
    let status = reading.status;
    let usable = status.links.iter().filter(|link| link.known && link.usable).count();
    let unusable = status.links.iter().filter(|link| link.known && !link.usable).count();
    let unknown = status.links.len() - usable - unusable;
    let mut set = |what, help, value| out.gauge(what, help, &[], value);
    set("sessions", "Control connections of relays", number(reading.sessions));
    set("members", "Members of the mesh", number(status.relays.len()));
    set("links_usable", "Directed links that routes may use", number(usable));
    set("links_unusable", "Directed links that routes avoid", number(unusable));
    set("links_unknown", "Directed links of which neither end is heard", number(unknown));
    set("drains", "Relays and links that are being drained", number(status.drains.len()));
    let left = status.drains.iter().map(|drain| drain.routes_on_it).max().unwrap_or(0);
    set("drain_routes", "Routes still on what is being drained, the most of any", number(left));
    set("policies", "Policies", number(status.policies.len()));
    let TenantSummary { tenants, services, without_endpoint } = reading.tenants;
    set("tenants", "Tenants", number(tenants));
    set("services", "Services that tenants' edges offer", number(services));
    let help = "Services of which no endpoint is healthy";
    set("services_without_endpoint", help, number(without_endpoint));
    set("overloaded", "Links and relays over their capacity now", number(status.overloads.len()));
    let RouteSummary { looked_at, without_disjoint, indirect, split } = status.routes;
    set("routes", "Routes looked at for the next two", number(looked_at));
    let help = "Routes without a path that shares no relay with the one in use";
    set("routes_without_disjoint", help, number(without_disjoint));
    set("routes_indirect", "Routes whose path goes over other relays", number(indirect));
    set("routes_split", "Routes whose traffic is split over several paths", number(split));
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 bits per second")]
    let demand = status.relays.iter().map(|relay| relay.demand.0).sum::<u64>() as f64 / 8.0;
    set("demand_bytes_per_second", "What sources were asked to send", demand);
    set("settling", "1 while the scheduler waits for relays", f64::from(u8::from(status.settling)));
    set("improved_pairs", "Ordered pairs faster than direct", number(status.improvement.improved));
    set("certificate_remaining_seconds", "Until its certificate ends", reading.certificate_s);
}

fn relays(out: &mut Exposition, relays: &[RelayStatus]) {
    for relay in relays {
        let label = [("relay", relay.name.as_str())];
        let connected = f64::from(u8::from(relay.connected));
        let help = "1 if the relay has a control connection";
        out.gauge("relay_connected", help, &label, connected);
        if let Some(last) = relay.last_report_age {
            let help = "Since the relay's last report";
            out.gauge("relay_report_age_seconds", help, &label, last.as_secs_f64());
        }
        let missing = relay.revision_current.saturating_sub(relay.revision_acked);
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 revisions")]
        let missing = missing as f64;
        out.gauge("relay_revisions_behind", "Revisions not acknowledged", &label, missing);
    }
}

fn number(count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 things")]
    let number = count as f64;
    number
}

#[cfg(test)]
mod tests {
    use super::sample::exposed;

    fn samples(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn numbers_of_core_and_shell_are_exported() {
        let text = exposed(1).render();

        assert!(text.contains("overway_scheduler_hellos_total 4"), "{text}");
        assert!(text.contains("overway_scheduler_sessions 2"), "{text}");
        assert!(text.contains("overway_scheduler_routes_without_disjoint 2"), "{text}");
        assert!(text.contains("overway_scheduler_services_without_endpoint 1"), "{text}");
        assert!(text.contains("overway_scheduler_plan_seconds_bucket{le=\"0.0005\"} 0"), "{text}");
        assert!(text.contains("overway_scheduler_relay_revisions_behind{relay=\"relay-1\"} 2"));
    }

    #[test]
    fn a_relay_costs_three_series_and_a_metric_has_one_label() {
        for (name, labels) in exposed(1).labels() {
            assert!(name.starts_with("overway_scheduler_"), "{name}");
            assert!(labels.len() <= 1, "{name} has {labels:?}");
        }
        let (ten, twenty) = (exposed(10).render(), exposed(20).render());

        assert_eq!(samples(&twenty).len() - samples(&ten).len(), 30);
        assert!(samples(&ten).len() < 140);
    }
}
