//! Which relays are told of a tenant's services: all, or those of its cell and the cell's partners.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overway_wire::control::Tenant;
use overway_wire::{PolicyId, RelayId};

use super::Scheduler;

/// The relays that are told of the services of tenants with a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records(BTreeMap<PolicyId, Arc<BTreeSet<RelayId>>>);

impl Records {
    /// Whether a relay is told of a tenant's services.
    pub(super) fn keeps(&self, relay: RelayId, tenant: PolicyId) -> bool {
        self.0.get(&tenant).is_none_or(|relays| relays.contains(&relay))
    }
}

impl Scheduler {
    /// Follows changes of tenants, policies and relays: a relay that is told no more loses the services, and one that is
    /// told from now on gets them.
    pub(super) fn follow_cells(&mut self) {
        let records = self.records();
        let before = std::mem::replace(&mut self.records, records);
        if before == self.records {
            return;
        }
        let keys: Vec<_> = self.services.keys_by_tenant().collect();
        for (&id, relay) in self.relays.iter_mut().filter(|(_, relay)| relay.registration.is_some())
        {
            for &(tenant, key) in &keys {
                let changed = before.keeps(id, tenant) != self.records.keeps(id, tenant);
                if changed && relay.may_have(key) {
                    relay.push.touch(key);
                }
            }
        }
    }

    fn records(&self) -> Records {
        // Policy 0 allows every relay, and is no cell's.
        let allowed = |policy: u32| {
            let policy = u16::try_from(policy).ok().filter(|&policy| policy != 0)?;
            self.allowed_by(PolicyId(policy))
        };
        let mut made: BTreeMap<[u32; 2], Arc<BTreeSet<RelayId>>> = BTreeMap::new();
        let celled = self.tenants.iter().filter(|(_, tenant)| !tenant.cell.is_empty());
        let of = celled.map(|(&number, tenant)| {
            let Tenant { route_policy, backup_policy, .. } = tenant;
            let limits = [*route_policy, *backup_policy];
            let relays = made.entry(limits).or_insert_with(|| {
                Arc::new(limits.into_iter().filter_map(&allowed).flatten().collect())
            });
            (number, Arc::clone(relays))
        });
        Records(of.collect())
    }
}
