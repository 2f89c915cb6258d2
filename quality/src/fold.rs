//! Many flows folded into few services, within bounds.

use std::collections::BTreeMap;

use overway_wire::quality::SERVICES_MAX;
use overway_wire::{Class, PolicyId};

use crate::felt::Felt;

/// Services of one tenant and class; further ones count as [`OTHER`], so that a tenant whose edges draw names takes no
/// other's room.
pub const TENANT_SERVICES_MAX: usize = 64;
/// The name of all services that there is no room for.
pub const OTHER: &str = "";

/// What a fold tells apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The tenant's number; 0 for the mesh's own services.
    pub tenant: PolicyId,
    /// The service's name, or [`OTHER`].
    pub service: String,
    /// The class.
    pub class: Class,
}

/// What was felt of each service since it was last taken; at most [`SERVICES_MAX`].
#[derive(Debug, Default)]
pub struct Fold {
    services: BTreeMap<(PolicyId, Class), BTreeMap<String, Felt>>,
    count: usize,
}

impl Fold {
    /// Adds what was felt of a service; says whether it counts under its own name.
    pub fn add(&mut self, tenant: PolicyId, service: &str, class: Class, felt: &Felt) -> bool {
        let known = self.services.get_mut(&(tenant, class));
        if let Some(known) = known.and_then(|services| services.get_mut(service)) {
            known.merge(felt);
            return true;
        }
        let siblings = self.services.get(&(tenant, class)).map_or(0, BTreeMap::len);
        // One of each class is left for what has no room at all.
        let has_room = self.count < SERVICES_MAX - Class::ALL.len();
        let (tenant, name) = match (has_room, siblings) {
            (true, ..TENANT_SERVICES_MAX) => (tenant, service),
            (true, _) => (tenant, OTHER),
            (false, _) => (PolicyId(0), OTHER),
        };
        let services = self.services.entry((tenant, class)).or_default();
        let before = services.len();
        services.entry(name.to_owned()).or_default().merge(felt);
        self.count += services.len() - before;
        name == service
    }

    /// Whether nothing was felt.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// All of it; the fold begins anew.
    pub fn take(&mut self) -> impl Iterator<Item = (Key, Felt)> + use<> {
        self.count = 0;
        std::mem::take(&mut self.services).into_iter().flat_map(|((tenant, class), services)| {
            let key = move |service| Key { tenant, service, class };
            services.into_iter().map(move |(service, felt)| (key(service), felt))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn felt() -> Felt {
        Felt { reports: 1, due: 2, on_time: 2, ..Felt::default() }
    }

    #[test]
    fn flows_of_one_service_count_together_and_of_two_tenants_apart() {
        let mut fold = Fold::default();
        for tenant in [1, 1, 2] {
            assert!(fold.add(PolicyId(tenant), "voice", Class::Realtime, &felt()));
        }

        let taken: Vec<(Key, Felt)> = fold.take().collect();

        let told = taken.iter().map(|(key, felt)| (key.tenant.0, &*key.service, felt.reports));
        assert_eq!(told.collect::<Vec<_>>(), [(1, "voice", 2), (2, "voice", 1)]);
        assert!(fold.is_empty());
    }

    #[test]
    fn names_without_end_take_no_other_tenants_room_and_lose_nothing() {
        let mut fold = Fold::default();
        for number in 0..1_000 {
            fold.add(PolicyId(1), &format!("drawn-{number}"), Class::Bulk, &felt());
        }
        assert!(fold.add(PolicyId(2), "voice", Class::Realtime, &felt()));
        for tenant in 3..100 {
            for number in 0..10 {
                fold.add(PolicyId(tenant), &format!("service-{number}"), Class::Bulk, &felt());
            }
        }

        let taken: Vec<(Key, Felt)> = fold.take().collect();

        assert!(taken.len() <= SERVICES_MAX, "{}", taken.len());
        assert_eq!(taken.iter().map(|(_, felt)| felt.reports).sum::<u64>(), 1_000 + 1 + 97 * 10);
        let other = |tenant| {
            let found =
                taken.iter().find(|(key, _)| key.tenant.0 == tenant && key.service == OTHER);
            found.map_or(0, |(_, felt)| felt.reports)
        };
        assert_eq!(other(1), 1_000 - 64);
        assert!(other(0) > 0);
    }
}
