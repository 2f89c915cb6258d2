//! Drains, policies and overloads.

use std::collections::BTreeSet;

use overway_scheduler_core::{DrainStage, DrainStatus, Drainable, OverloadStatus, RelayStatus};
use overway_topology::{RelayAttributes, Resource};
use overway_wire::PolicyId;

use super::{Names, millis, name};
use crate::api::{CellBody, DrainBody, OverloadBody, PolicyBody};
use crate::registry::expanded;
use crate::store::{CellRecord, PolicyRecord, Wishes};

impl DrainBody {
    /// Makes the body of a drain.
    pub(crate) fn new(status: &DrainStatus, names: &Names) -> Self {
        let DrainStatus { target, stage: far, remaining, routes_on_it, attachments } = status;
        let (kind, relays) = match *target {
            Drainable::Relay(relay) => ("relay", vec![name(names, relay)]),
            Drainable::Link(one, other) => ("link", vec![name(names, one), name(names, other)]),
        };
        Self {
            kind: kind.to_owned(),
            relays,
            stage: stage(*far).to_owned(),
            routes_left: *routes_on_it as u64,
            attachments_left: *attachments,
            empty: *routes_on_it == 0 && *attachments == 0,
            deadline_in_ms: remaining.map(millis),
        }
    }
}

/// How far a drain is.
pub(super) fn stage(stage: DrainStage) -> &'static str {
    match stage {
        DrainStage::Leaving => "leaving",
        DrainStage::Over => "over",
        DrainStage::Undone => "undone",
    }
}

impl OverloadBody {
    /// Makes the body of an overload.
    pub(crate) fn new(status: &OverloadStatus, names: &Names) -> Self {
        let OverloadStatus { resource, rate, capacity, lasts } = status;
        let (kind, relays, index) = match *resource {
            Resource::Link(link) => ("link", vec![link.from, link.to], link.index.value()),
            Resource::Sending(relay) => ("sending", vec![relay], 0),
            Resource::Receiving(relay) => ("receiving", vec![relay], 0),
            Resource::LineSending(relay, line) => ("line_sending", vec![relay], line.value()),
            Resource::LineReceiving(relay, line) => ("line_receiving", vec![relay], line.value()),
        };
        Self {
            kind: kind.to_owned(),
            relays: relays.into_iter().map(|relay| name(names, relay)).collect(),
            index,
            rate_bps: rate.0,
            capacity_bps: capacity.0,
            lasts_ms: millis(*lasts),
        }
    }
}

impl PolicyBody {
    /// Makes the bodies of all policies.
    pub(crate) fn all(wishes: &Wishes, relays: &[RelayStatus]) -> Vec<Self> {
        let policies = wishes.policies.iter();
        policies.map(|(&id, policy)| Self::new(id, policy, wishes, relays)).collect()
    }

    /// Makes the body of a policy.
    pub(crate) fn new(
        id: PolicyId,
        record: &PolicyRecord,
        wishes: &Wishes,
        relays: &[RelayStatus],
    ) -> Self {
        let policy = expanded(wishes, record);
        let allowed = |relay: &&RelayStatus| {
            relay.registered
                && policy.allows(
                    relay.id,
                    &RelayAttributes {
                        provider: relay.provider.clone(),
                        region: relay.region.clone(),
                        ..RelayAttributes::default()
                    },
                )
        };
        let PolicyRecord { name, regions, providers, cells } = record;
        Self {
            id: id.0,
            name: name.clone(),
            regions: list(regions),
            providers: list(providers),
            cells: list(cells),
            regions_in_force: list(&policy.regions),
            relays: relays.iter().filter(allowed).map(|relay| relay.name.clone()).collect(),
        }
    }
}

impl CellBody {
    /// Makes the body of a cell.
    pub(crate) fn new(cell: &str, record: &CellRecord, wishes: &Wishes, names: &Names) -> Self {
        let CellRecord { regions, relays, partners } = record;
        // One that has left the mesh has no name any more.
        let relays = relays.iter().filter_map(|relay| names.get(relay).cloned());
        Self {
            name: cell.to_owned(),
            regions: list(regions),
            relays: relays.collect(),
            partners: list(partners),
            policies: wishes.policies_of_cell(cell),
            tenants: wishes.tenants_of_cell(cell),
        }
    }
}

fn list(set: &BTreeSet<String>) -> Vec<String> {
    set.iter().cloned().collect()
}
