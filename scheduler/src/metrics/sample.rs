//! Metrics with made-up values: what the reference is made of, and what tests look at.

use overway_quality::Felt;
use overway_scheduler_core::{
    Improvement, QualityKey, QualityStatus, RelayStatus, RouteSummary, Stats, Status, TenantSummary,
};
use overway_telemetry::Exposition;
use overway_wire::{BitsPerSec, Class, Epoch, PolicyId, RelayId};

use super::{Reading, exposition};
use crate::counters::Counters;

/// Every metric that a scheduler can have, with made-up values: what the reference is made of.
pub fn sample() -> Exposition {
    exposed(1)
}

/// Every metric of what users feel that a scheduler can have, with made-up values.
pub fn quality_sample() -> Exposition {
    let mut felt = Felt::default();
    for sketch in [&mut felt.delay_us, &mut felt.gap_us, &mut felt.loss_ppm, &mut felt.stall_us] {
        sketch.add(1);
    }
    let (service, region) = ("web".to_owned(), "eu".to_owned());
    super::quality(vec![QualityStatus {
        key: QualityKey { tenant: PolicyId(1), service, region, class: Class::Realtime },
        tenant_name: Some("im".to_owned()),
        felt,
        totals: Felt::default(),
    }])
}

fn relay(id: u16) -> RelayStatus {
    RelayStatus {
        id: RelayId(id),
        name: format!("relay-{id}"),
        region: String::new(),
        provider: String::new(),
        software: String::new(),
        location: None,
        addresses: vec![],
        registered: true,
        connected: true,
        draining: false,
        drain: None,
        transit: true,
        transit_override: None,
        neighbours: 9,
        lines: vec![],
        demand: BitsPerSec(1_000),
        last_report_age: Some(std::time::Duration::from_secs(1)),
        attachments: Some(3),
        self_stalls: 0,
        services: vec![],
        revision_acked: 3,
        revision_current: 5,
    }
}

pub(super) fn exposed(relays: u16) -> Exposition {
    let status = Status {
        epoch: Epoch { term: 1, sequence: 2 },
        settling: false,
        relays: (1..=relays).map(relay).collect(),
        links: vec![],
        drains: vec![],
        policies: vec![],
        overloads: vec![],
        routes: RouteSummary { looked_at: 6, without_disjoint: 2, ..RouteSummary::default() },
        improvement: Improvement::default(),
    };
    exposition(&Reading {
        stats: Stats { hellos: 4, ..Stats::default() },
        status: &status,
        tenants: TenantSummary { tenants: 2, services: 3, without_endpoint: 1 },
        counters: &Counters::default(),
        sessions: 2,
        certificate_s: 100.0,
    })
}
