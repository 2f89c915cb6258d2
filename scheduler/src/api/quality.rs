//! What users feel.

use overway_quality::{Felt, Sketch};
use overway_scheduler_core::{QualityKey, QualityStatus};
use serde::{Deserialize, Serialize};

/// `GET /v1/quality`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QualityBody {
    /// The window that was asked for, in seconds; up to thirty more are in it.
    pub window_s: u64,
    /// By tenant, service, region and class; those without a report in the window are left out.
    pub services: Vec<ServiceQualityBody>,
}

/// What users of one service felt. What is not known is `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceQualityBody {
    /// The tenant's name, its number if it has no name any more; `null` for the mesh's own services.
    pub tenant: Option<String>,
    /// The service; `null`: all those that there was no room for.
    pub service: Option<String>,
    /// The region of the relays at which its users are; `null`: all, or unknown.
    pub region: Option<String>,
    /// The class.
    pub class: String,
    /// Reports of flows and streams; each sends one in ten seconds.
    pub reports: u64,
    /// Delays of deliveries in milliseconds.
    pub delay_ms: QuantilesBody,
    /// `one_way`, `half_rtt` (of streams), or `mixed`.
    pub delay_basis: Option<String>,
    /// Time between datagrams beyond the sender's spacing, in milliseconds.
    pub gap_ms: QuantilesBody,
    /// Share of a flow's frames that was lost in a report, 0 to 1.
    pub loss: QuantilesBody,
    /// Seconds for which a stream stood still in a report.
    pub stall_s: QuantilesBody,
    /// Deliveries that were due: frames, or seconds of streams.
    pub due: u64,
    /// Of these, within 400 ms.
    pub on_time: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Intervals between datagrams.
    pub gaps: u64,
    /// Of these, within 60 ms of the sender's spacing.
    pub gaps_good: u64,
    /// Times that streams stood still.
    pub stalls: u64,
}

/// Quantiles, each within 1/64 of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QuantilesBody {
    /// The median.
    pub p50: Option<f64>,
    /// What 95 of 100 do not exceed.
    pub p95: Option<f64>,
    /// What 99 of 100 do not exceed.
    pub p99: Option<f64>,
}

impl ServiceQualityBody {
    /// Makes the body of what the core knows.
    pub(crate) fn new(status: QualityStatus) -> Self {
        let (tenant, service, region) = Self::names(&status);
        let QualityStatus { key, tenant_name: _, felt, totals: _ } = status;
        let Felt { reports, one_way: _, due, on_time, lost, gaps, gaps_good, stalls, .. } = felt;
        Self {
            tenant,
            service,
            region,
            class: key.class.name().to_owned(),
            reports,
            delay_ms: QuantilesBody::new(&felt.delay_us, 1e3),
            delay_basis: felt.delay_basis().map(str::to_owned),
            gap_ms: QuantilesBody::new(&felt.gap_us, 1e3),
            loss: QuantilesBody::new(&felt.loss_ppm, 1e6),
            stall_s: QuantilesBody::new(&felt.stall_us, 1e6),
            due,
            on_time,
            lost,
            gaps,
            gaps_good,
            stalls,
        }
    }
}

impl ServiceQualityBody {
    /// Tenant, service and region as they are named here.
    pub(crate) fn names(
        status: &QualityStatus,
    ) -> (Option<String>, Option<String>, Option<String>) {
        let QualityKey { tenant, service, region, class: _ } = &status.key;
        let number = || tenant.0.to_string();
        let tenant = (tenant.0 != 0).then(|| status.tenant_name.clone().unwrap_or_else(number));
        let named = |name: &String| (!name.is_empty()).then(|| name.clone());
        (tenant, named(service), named(region))
    }
}

impl QuantilesBody {
    fn new(sketch: &Sketch, unit: f64) -> Self {
        let at = |share| sketch.quantile(share).map(|value| f64::from(value) / unit);
        Self { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
    }
}
