//! Cells of a map, and the tenants in them.
//!
//! | tenant | its cell | partner | where its ends are |
//! | --- | --- | --- | --- |
//! | 20 | the left half | none | the left half |
//! | 21 | the lower right quarter | the left half | mostly there, some in the left half |
//!
//! The upper right quarter is of neither: no frame of a tenant ever touches it, and no relay there is told of their
//! services. Where the map has too few relays for a cell, its tenant has no traffic.

use std::collections::{BTreeMap, BTreeSet};

use overway_topology::Policy;
use overway_wire::control::{Offer, Offers, Tenant};
use overway_wire::{AttachmentId, PolicyId, RelayId};

use crate::geography::Place;

/// The service that a tenant's ends offer.
pub(crate) const SERVICE: &str = "chat";
/// The end that offers it, at each relay of the cell.
const OFFERER: AttachmentId = AttachmentId(2);
/// With fewer, a cell has no room for a failure.
const RELAYS_MIN: usize = 4;

const LEFT: [&str; 2] = ["quarter-00", "quarter-01"];
const LOWER_RIGHT: [&str; 1] = ["quarter-10"];

/// A tenant, as an operator would put it.
#[derive(Clone, Copy, Debug)]
struct Plan {
    tenant: PolicyId,
    cell: &'static str,
    route: PolicyId,
    own: &'static [&'static str],
    /// The policy of the cell and its partner, and the partner's regions.
    backup: Option<(PolicyId, &'static [&'static str])>,
}

const PLANS: [Plan; 2] = [
    Plan { tenant: PolicyId(20), cell: "left", route: PolicyId(9), own: &LEFT, backup: None },
    Plan {
        tenant: PolicyId(21),
        cell: "right",
        route: PolicyId(10),
        own: &LOWER_RIGHT,
        backup: Some((PolicyId(11), &LEFT)),
    },
];

/// A tenant's cell on a map.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// The tenant's number.
    pub(crate) tenant: PolicyId,
    /// The policy of the cell, and the relays that are of it.
    pub(crate) own: (PolicyId, BTreeSet<RelayId>),
    /// The policy of the cell with its partner, if it has one, and the relays of both. Else the cell's.
    pub(crate) allowed: (PolicyId, BTreeSet<RelayId>),
    plan: Plan,
}

/// What an operator puts, by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) policies: Vec<(PolicyId, Policy)>,
    pub(crate) tenants: Vec<(PolicyId, Tenant)>,
}

/// The cells of a map; none where the scenario has none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cells(Vec<Cell>);

impl Plan {
    fn backup_regions(&self) -> impl Iterator<Item = &'static str> {
        let partner = self.backup.map_or(&[][..], |(_, regions)| regions);
        self.own.iter().chain(partner).copied()
    }
}

impl Cells {
    /// The cells of these places.
    pub(crate) fn of(places: &[Place]) -> Self {
        let cell = |plan: Plan| {
            let of = |regions: Vec<&str>| {
                let there = places.iter().filter(|it| regions.contains(&it.region().as_str()));
                there.map(|place| place.id).collect::<BTreeSet<_>>()
            };
            let (own, allowed) = (of(plan.own.to_vec()), of(plan.backup_regions().collect()));
            let backup = plan.backup.map_or(plan.route, |(policy, _)| policy);
            Cell { tenant: plan.tenant, own: (plan.route, own), allowed: (backup, allowed), plan }
        };
        Self(PLANS.into_iter().map(cell).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each cell.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Cell> {
        self.0.iter()
    }

    /// The cell of a tenant that has room for a failure.
    pub(crate) fn roomy(&self, at: usize) -> Option<&Cell> {
        self.0.get(at).filter(|cell| cell.own.1.len() >= RELAYS_MIN)
    }

    /// That of this tenant.
    pub(crate) fn of_tenant(&self, tenant: PolicyId) -> Option<&Cell> {
        self.0.iter().find(|cell| cell.tenant == tenant)
    }

    /// The relays that the frames of a tenant, or of a policy, may touch; `None`: all.
    pub(crate) fn allowed(&self, number: PolicyId) -> Option<&BTreeSet<RelayId>> {
        let of = |cell: &'_ &Cell| [cell.tenant, cell.allowed.0].contains(&number);
        let wide = self.0.iter().find(of).map(|cell| &cell.allowed.1);
        wide.or_else(|| self.0.iter().find(|cell| cell.own.0 == number).map(|cell| &cell.own.1))
    }

    /// Every policy with the relays that it allows, in order.
    pub(crate) fn policies(&self) -> BTreeMap<PolicyId, &BTreeSet<RelayId>> {
        let both = |cell: &'_ Cell| [cell.own.0, cell.allowed.0];
        let ids = self.0.iter().flat_map(both);
        ids.filter_map(|id| Some((id, self.allowed(id)?))).collect()
    }

    /// What an operator puts of each: policies first. `open` has the policies allow everything, and `unnamed` tenants
    /// have no cell, which must be found out.
    pub(crate) fn wishes(&self, (open, unnamed): (bool, bool)) -> Wishes {
        let policy = |id: PolicyId, regions: Vec<&str>| {
            let regions = regions.into_iter().filter(|_| !open).map(str::to_owned).collect();
            (id, Policy { name: format!("cell-{}", id.0), regions, ..Policy::default() })
        };
        let policies = self.0.iter().flat_map(|Cell { plan, .. }| {
            let backup =
                plan.backup.map(|(id, _)| policy(id, plan.backup_regions().collect::<Vec<_>>()));
            [Some(policy(plan.route, plan.own.to_vec())), backup].into_iter().flatten()
        });
        let tenants = self.0.iter().map(|Cell { plan, .. }| {
            let tenant = Tenant {
                number: plan.tenant.0.into(),
                name: format!("tenant-{}", plan.tenant.0),
                route_policy: plan.route.0.into(),
                backup_policy: plan.backup.map_or(0, |(id, _)| id.0.into()),
                cell: if unnamed { String::new() } else { plan.cell.to_owned() },
                ..Tenant::default()
            };
            (plan.tenant, tenant)
        });
        Wishes { policies: policies.collect(), tenants: tenants.collect() }
    }

    /// What the ends that are attached to a relay offer: one of each tenant whose cell the relay is of.
    pub(crate) fn offers(&self, relay: RelayId) -> Offers {
        let of = self.0.iter().filter(|cell| cell.own.1.contains(&relay));
        let offer = |cell: &Cell| {
            let mut edge = vec![0; overway_wire::control::EDGE_ID_BYTES];
            edge[..2].copy_from_slice(&cell.tenant.0.to_be_bytes());
            edge[2..4].copy_from_slice(&relay.0.to_be_bytes());
            Offer {
                tenant: cell.tenant.0.into(),
                service: SERVICE.to_owned(),
                edge,
                attachment: OFFERER.0.into(),
                weight: 1,
                healthy: true,
                ..Offer::default()
            }
        };
        Offers { offers: of.map(offer).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geography::places;
    use crate::rng::Rng;

    #[test]
    fn cells_are_parts_of_the_map_and_a_partners_relays_are_allowed_beside_the_own() {
        let places = places(40, &mut Rng::new(1));
        let cells = Cells::of(&places);
        let (left, right) = (cells.roomy(0).unwrap(), cells.roomy(1).unwrap());

        assert!(left.own.1.is_disjoint(&right.own.1) && left.own == left.allowed);
        let both: BTreeSet<RelayId> = left.own.1.union(&right.own.1).copied().collect();
        assert_eq!(right.allowed.1, both);
        assert!(both.len() < places.len(), "some are of neither");
        assert_eq!(cells.allowed(right.tenant), Some(&both));
        assert_eq!(cells.allowed(right.own.0), Some(&right.own.1));
        assert_eq!(cells.allowed(PolicyId(0)), None);
        assert_eq!(cells.policies().len(), 3);
    }
}
