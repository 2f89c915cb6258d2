//! `overway quality` and `overway flow`: what users feel.

use std::process::ExitCode;

use clap::Args;
use overway_relay::quality::{FeltBody, FlowBody};
use overway_scheduler::api::{QualityBody, ServiceQualityBody};

use super::admin::{AdminArgs, Client, RelayArgs};
use super::failure::Failure;
use super::output;
use super::text::Table;

/// Show what users of the mesh's services feel: delay, gaps, loss and stalls, as the ends measure them.
///
/// Examples:
///   overway quality                             each service, region and class, over five minutes
///   overway quality --service voice --window 1m
///   overway quality --by service --json         all regions of a service together
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct QualityArgs {
    /// Only this service.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only this tenant's services.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only users at relays of this region.
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Only this class: realtime, interactive or bulk.
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Of how long: 30s to 5m.
    #[arg(long, value_name = "TIME", default_value = "5m")]
    window: String,
    /// What is told apart: `region`, or `service`, which merges regions.
    #[arg(long, value_name = "WHAT", default_value = "region", value_parser = ["region", "service"])]
    by: String,
    /// Print everything as JSON, as `GET /v1/quality` has it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Show what the ends at a relay feel of their flows, or of one flow.
///
/// Examples:
///   overway flow                        at the relay on this machine: the flows heard of last
///   overway flow 1289345                one, by its id
///   overway flow --service voice --json --relay http://127.0.0.1:9402
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct FlowArgs {
    /// The flow's id.
    #[arg(value_name = "ID", conflicts_with = "service")]
    id: Option<u64>,
    /// Only flows of this service.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Print everything as JSON, as `GET /v1/flows` of the relay has it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    relay: RelayArgs,
}

/// Asks the scheduler and prints.
pub(crate) fn run(args: &QualityArgs) -> Result<ExitCode, Failure> {
    let mut query = vec![("window", args.window.as_str()), ("by", args.by.as_str())];
    query.extend(args.service.as_deref().map(|service| ("service", service)));
    query.extend(args.tenant.as_deref().map(|tenant| ("tenant", tenant)));
    query.extend(args.region.as_deref().map(|region| ("region", region)));
    query.extend(args.class.as_deref().map(|class| ("class", class)));
    let body: QualityBody = Client::new(&args.admin)?.get_with("/v1/quality", &query)?;
    if args.json {
        output::print_json(&body)?;
    } else {
        output::print(&text(&body))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the relay and prints.
pub(crate) fn run_flow(args: &FlowArgs) -> Result<ExitCode, Failure> {
    let client = Client::of_relay(&args.relay)?;
    let flows: Vec<FlowBody> = match (args.id, &args.service) {
        (Some(id), _) => client.get(&format!("/v1/flows/{id}"))?,
        (None, Some(service)) => client.get_with("/v1/flows", &[("service", service)])?,
        (None, None) => client.get("/v1/flows")?,
    };
    if args.json {
        output::print_json(&flows)?;
    } else {
        output::print(&flows_text(&flows))?;
    }
    Ok(ExitCode::SUCCESS)
}

const UNKNOWN: &str = "unknown";

fn number(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| format!("{value:.1}{unit}"))
}

#[expect(clippy::cast_precision_loss, reason = "a share of fewer than 2^53")]
fn share(part: u64, whole: u64) -> String {
    match whole {
        0 => UNKNOWN.to_owned(),
        _ => format!("{:.3}%", part as f64 * 100.0 / whole as f64),
    }
}

fn text(body: &QualityBody) -> String {
    if body.services.is_empty() {
        return format!("nobody has reported in the last {} s\n", body.window_s);
    }
    let heading = [
        "SERVICE",
        "REGION",
        "CLASS",
        "REPORTS",
        "ON TIME",
        "DELAY P50",
        "P99",
        "GAP P99",
        "GAPS GOOD",
        "LOST",
        "STALL P99",
    ];
    let mut table = Table::new(&heading);
    body.services.iter().for_each(|service| table.row(row(service)));
    let mut out = table.render();
    if body.services.iter().any(is_halved) {
        out.push_str("~ half of the round trip, of those without stamps\n");
    }
    out
}

/// Whether delays are halves of round trips, or some of them.
fn is_halved(body: &ServiceQualityBody) -> bool {
    matches!(body.delay_basis.as_deref(), Some("half_rtt" | "mixed"))
}

fn row(body: &ServiceQualityBody) -> [String; 11] {
    let service = body.service.as_deref().unwrap_or("(other)");
    let service = match &body.tenant {
        Some(tenant) => format!("{tenant}/{service}"),
        None => service.to_owned(),
    };
    let sign = if is_halved(body) { "~" } else { "" };
    let delay = |value: Option<f64>| format!("{}{}", sign, number(value, " ms"));
    [
        service,
        body.region.clone().unwrap_or_else(|| "-".to_owned()),
        body.class.clone(),
        body.reports.to_string(),
        share(body.on_time, body.due),
        delay(body.delay_ms.p50),
        delay(body.delay_ms.p99),
        number(body.gap_ms.p99, " ms"),
        share(body.gaps_good, body.gaps),
        if body.loss.p50.is_some() { share(body.lost, body.due) } else { "-".to_owned() },
        number(body.stall_s.p99, " s"),
    ]
}

fn flows_text(flows: &[FlowBody]) -> String {
    if flows.is_empty() {
        return "no flow was reported in the last minutes\n".to_owned();
    }
    let heading = [
        "FLOW",
        "AT",
        "SERVICE",
        "CLASS",
        "FAR END",
        "AGE",
        "HEARD",
        "",
        "DUE",
        "LOST",
        "DELAY P50",
        "P99",
        "GAP MAX",
        "STALLS",
    ];
    let mut table = Table::new(&heading);
    for flow in flows {
        let tenant = flow.tenant.map_or_else(String::new, |tenant| format!("{tenant}/"));
        let ended = if flow.ended { "ended" } else { "open" };
        let head = [
            flow.id.to_string(),
            flow.attachment.to_string(),
            format!("{tenant}{}", flow.service),
            flow.class.clone(),
            flow.far.clone(),
            format!("{:.0} s", flow.age_s),
            format!("{:.0} s ago", flow.heard_s),
        ];
        table.row(head.into_iter().chain([format!("last, {ended}")]).chain(felt(&flow.last)));
        let blank = std::array::from_fn::<_, 7, _>(|_| String::new());
        table.row(blank.into_iter().chain(["in all".to_owned()]).chain(felt(&flow.all)));
    }
    table.render()
}

fn felt(body: &FeltBody) -> [String; 6] {
    [
        body.due.to_string(),
        if body.loss.is_some() { body.lost.to_string() } else { "-".to_owned() },
        number(body.delay_ms.p50, " ms"),
        number(body.delay_ms.p99, " ms"),
        number(body.gap_ms.max, " ms"),
        body.stalls.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_scheduler::api::QuantilesBody;

    #[test]
    fn a_service_is_a_line_and_what_is_unknown_is_said_to_be() {
        let service = ServiceQualityBody {
            tenant: Some("im".into()),
            service: Some("chat".into()),
            region: Some("eu".into()),
            class: "interactive".into(),
            reports: 3,
            delay_ms: QuantilesBody { p50: Some(12.34), p95: Some(20.0), p99: Some(31.0) },
            delay_basis: Some("half_rtt".into()),
            due: 1_000,
            on_time: 999,
            ..ServiceQualityBody::default()
        };

        let shown = text(&QualityBody { window_s: 300, services: vec![service] });

        for part in
            ["im/chat", "99.900%", "~12.3 ms", "~31.0 ms", "unknown", "half of the round trip"]
        {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        let nothing = text(&QualityBody { window_s: 30, ..QualityBody::default() });
        assert_eq!(nothing, "nobody has reported in the last 30 s\n");
    }

    #[test]
    fn a_flow_has_a_line_for_its_last_report_and_one_for_all() {
        let last = FeltBody { due: 500, lost: 2, loss: Some(0.004), ..FeltBody::default() };
        let all = FeltBody { due: 9_000, ..FeltBody::default() };
        let flow = FlowBody { id: 7, service: "voice".into(), last, all, ..FlowBody::default() };

        let shown = flows_text(&[flow]);

        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].contains("last, open  500   2"), "{shown}");
        assert!(lines[2].contains("in all      9000  -"), "{shown}");
    }
}
