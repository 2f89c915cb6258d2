//! The tenants of the pushed state, as admission reads them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use overway_relay_core::{CellStanding, Fib, FibTenant};
use overway_tenant::{Tenant, TenantName};
use overway_wire::{PolicyId, RelayId};
use tokio::sync::watch;

use super::admission::TenantTable;

/// The tenants that the scheduler has pushed. Read by the access thread, written when the table of the mesh changes.
#[derive(Debug, Default)]
pub struct PushedTenants {
    tenants: ArcSwap<BTreeMap<TenantName, Arc<Tenant>>>,
    /// What this relay is to the tenants' cells, where they have one.
    standings: ArcSwap<BTreeMap<PolicyId, CellStanding>>,
    generation: AtomicU64,
    /// The generation in which each tenant, or its standing, changed last: others' edges are not judged again for it.
    changed_in: ArcSwap<BTreeMap<PolicyId, u64>>,
}

impl PushedTenants {
    /// Follows the table of a relay until the mesh ends.
    pub async fn follow(self: Arc<Self>, local: RelayId, mut fib: watch::Receiver<Arc<Fib>>) {
        let (mut known, mut stood) = (BTreeMap::new(), BTreeMap::new());
        loop {
            let table = Arc::clone(&fib.borrow_and_update());
            let standings = standings(&table, local);
            if table.tenants != known || standings != stood {
                let is_same = |number: &PolicyId| {
                    let same_tenant = known.get(number) == table.tenants.get(number);
                    same_tenant && stood.get(number) == standings.get(number)
                };
                self.replace(&table.tenants, &standings, is_same);
                (known, stood) = (table.tenants.clone(), standings);
            }
            drop(table);
            if fib.changed().await.is_err() {
                return;
            }
        }
    }

    fn replace(
        &self,
        pushed: &BTreeMap<PolicyId, FibTenant>,
        standings: &BTreeMap<PolicyId, CellStanding>,
        is_same: impl Fn(&PolicyId) -> bool,
    ) {
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        let before = self.changed_in.load();
        let changed_in = |number: &PolicyId| {
            let before = before.get(number).filter(|_| is_same(number));
            (*number, before.copied().unwrap_or(generation))
        };
        let changed_in: BTreeMap<PolicyId, u64> = pushed.keys().map(changed_in).collect();
        let mut tenants = BTreeMap::new();
        for (number, tenant) in pushed {
            match Tenant::try_from(&*tenant.pushed) {
                Ok(tenant) => {
                    tenants.insert(tenant.name().clone(), Arc::new(tenant));
                }
                Err(error) => {
                    tracing::warn!(number = number.0, %error, "a pushed tenant makes no sense");
                }
            }
        }
        tracing::debug!(tenants = tenants.len(), "tenants");
        // Before the tenants: one with a cell that is not looked up yet is outside of it.
        self.standings.store(Arc::new(standings.clone()));
        self.tenants.store(Arc::new(tenants));
        self.changed_in.store(Arc::new(changed_in));
        // After the tables: who sees the new number sees the new tenants.
        self.generation.store(generation, Ordering::Release);
    }
}

fn standings(fib: &Fib, local: RelayId) -> BTreeMap<PolicyId, CellStanding> {
    let celled = fib.tenants.iter().filter(|(_, tenant)| !tenant.pushed.cell.is_empty());
    celled.map(|(&number, _)| (number, fib.may_attach(number, local, local))).collect()
}

impl TenantTable for Arc<PushedTenants> {
    fn tenant(&self, name: &TenantName) -> Option<Arc<Tenant>> {
        self.tenants.load().get(name).cloned()
    }

    fn standing(&self, tenant: &Tenant) -> CellStanding {
        if tenant.cell.is_empty() {
            return CellStanding::Own;
        }
        self.standings.load().get(&tenant.number).copied().unwrap_or(CellStanding::Outside)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn changed_in(&self, tenant: PolicyId) -> u64 {
        self.changed_in.load().get(&tenant).copied().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use overway_relay_core::pushed::{Changed, Pushed};
    use overway_wire::control::{self, Item, Update};

    use super::*;

    const LOCAL: RelayId = RelayId(5);

    /// A table of a tenant in a cell of these relays, and another in none.
    fn table(relays: Vec<u32>) -> Arc<Fib> {
        let policy = control::Policy { policy: 9, name: "cell:eu".into(), relays };
        let tenant = control::Tenant {
            number: 20,
            name: "im".into(),
            route_policy: 9,
            cell: "eu".into(),
            ..control::Tenant::default()
        };
        let other =
            control::Tenant { number: 21, name: "shop".into(), ..control::Tenant::default() };
        let put: Vec<Item> = vec![policy.into(), tenant.into(), other.into()];
        let mut pushed = Pushed::default();
        pushed.apply(Update { revision: 1, put, ..Update::default() }).unwrap();
        Arc::new(Fib::default().updated(&pushed, &Changed::Everything, LOCAL))
    }

    #[tokio::test]
    async fn who_is_attached_is_judged_again_when_the_relays_of_a_cell_change() {
        let (tables, fib) = watch::channel(table(vec![4, 5]));
        let tenants = Arc::new(PushedTenants::default());
        let following = tokio::spawn(Arc::clone(&tenants).follow(LOCAL, fib));
        let until = async |standing: CellStanding| {
            loop {
                let tenant = tenants.tenant(&"im".parse().unwrap());
                if tenant.is_some_and(|tenant| tenants.standing(&tenant) == standing) {
                    return tenants.changed_in(PolicyId(20));
                }
                tokio::task::yield_now().await;
            }
        };
        let before = until(CellStanding::Own).await;
        assert!(before <= tenants.generation());

        tables.send_replace(table(vec![4]));

        let after = until(CellStanding::Outside).await;
        assert!(after > before);
        // For one that stays as it was nobody is judged again, and for one that is not there everybody.
        assert_eq!(tenants.changed_in(PolicyId(21)), before);
        assert_eq!(tenants.changed_in(PolicyId(22)), u64::MAX);
        while tenants.generation() < after {
            tokio::task::yield_now().await;
        }
        drop(tables);
        following.await.unwrap();
    }
}
