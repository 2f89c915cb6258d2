//! The tenants of the pushed state, as admission reads them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use overway_relay_core::{Fib, FibTenant};
use overway_tenant::{Tenant, TenantName};
use overway_wire::PolicyId;
use tokio::sync::watch;

use super::admission::TenantTable;

/// The tenants that the scheduler has pushed. Read by the access thread, written when the table of the mesh changes.
#[derive(Debug, Default)]
pub struct PushedTenants {
    tenants: ArcSwap<BTreeMap<TenantName, Arc<Tenant>>>,
    generation: AtomicU64,
}

impl PushedTenants {
    /// Follows the table until the mesh ends.
    pub async fn follow(self: Arc<Self>, mut fib: watch::Receiver<Arc<Fib>>) {
        let mut known = BTreeMap::new();
        loop {
            let tenants = fib.borrow_and_update().tenants.clone();
            if tenants != known {
                self.replace(&tenants);
                known = tenants;
            }
            if fib.changed().await.is_err() {
                return;
            }
        }
    }

    fn replace(&self, pushed: &BTreeMap<PolicyId, FibTenant>) {
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
        self.tenants.store(Arc::new(tenants));
        // After the table: who sees the new number sees the new tenants.
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl TenantTable for Arc<PushedTenants> {
    fn tenant(&self, name: &TenantName) -> Option<Arc<Tenant>> {
        self.tenants.load().get(name).cloned()
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}
