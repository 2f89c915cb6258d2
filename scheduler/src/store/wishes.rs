//! What the operator wished of the mesh's routes, as the store keeps it.

use std::collections::{BTreeMap, BTreeSet};

use overway_wire::{PolicyId, RelayId};

use super::{TenantRecord, UnixSeconds};

/// Everything that the operator wished and has not taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// What is being drained.
    pub drains: BTreeMap<DrainTarget, DrainRecord>,
    /// Whether a relay may carry others' traffic, where this is not as the relay says.
    pub transit: BTreeMap<RelayId, bool>,
    /// The greatest number of a policy or tenant ever given, 0 if none was: relays and frames may still know an old
    /// one.
    pub last_policy: u16,
    /// Policies, by id.
    pub policies: BTreeMap<PolicyId, PolicyRecord>,
    /// Cells, by name.
    pub cells: BTreeMap<String, CellRecord>,
    /// Tenants, by number.
    pub tenants: BTreeMap<PolicyId, TenantRecord>,
}

/// A change of the wishes: what is named is put, or removed where nothing is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WishesChange {
    /// Drains.
    pub drains: Vec<(DrainTarget, Option<DrainRecord>)>,
    /// Transit.
    pub transit: Vec<(RelayId, Option<bool>)>,
    /// The new greatest number of a policy or tenant.
    pub last_policy: Option<u16>,
    /// Policies.
    pub policies: Vec<(PolicyId, Option<PolicyRecord>)>,
    /// Cells.
    pub cells: Vec<(String, Option<CellRecord>)>,
    /// Tenants.
    pub tenants: Vec<(PolicyId, Option<TenantRecord>)>,
}

/// What can be drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrainTarget {
    /// A relay, with all its links.
    Relay(RelayId),
    /// All links between two relays, both ways; the lesser id first.
    Link(RelayId, RelayId),
}

/// A drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainRecord {
    /// When it began.
    pub since: UnixSeconds,
    /// From when on the thing is not used at all; never, if not given.
    pub deadline: Option<UnixSeconds>,
}

/// A policy as the operator said it. An empty list restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRecord {
    /// Its name, unique among policies.
    pub name: String,
    /// Regions that a path may touch, beside those of the cells.
    pub regions: BTreeSet<String>,
    /// Providers that a path may touch.
    pub providers: BTreeSet<String>,
    /// Cells whose regions a path may touch.
    pub cells: BTreeSet<String>,
}

/// A cell: where a tenant's traffic and records may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CellRecord {
    /// Its regions.
    pub regions: BTreeSet<String>,
    /// Its relays in other regions.
    pub relays: BTreeSet<RelayId>,
    /// The cells that stand in for it.
    pub partners: BTreeSet<String>,
}

impl PolicyRecord {
    /// What the names of policies begin with that cells make for their tenants.
    pub const OF_CELL: &'static str = "cell:";

    /// Whether a cell made it for its tenants.
    pub fn is_of_cell(&self) -> bool {
        self.name.starts_with(Self::OF_CELL)
    }
}

impl DrainTarget {
    /// The links between two relays, in whatever order they are named.
    pub fn link(one: RelayId, other: RelayId) -> Self {
        Self::Link(one.min(other), one.max(other))
    }

    /// Whether it is this relay, or ends there.
    pub fn touches(self, relay: RelayId) -> bool {
        match self {
            Self::Relay(drained) => drained == relay,
            Self::Link(one, other) => one == relay || other == relay,
        }
    }
}

impl Wishes {
    /// The policy of that name.
    pub fn policy(&self, name: &str) -> Option<(PolicyId, &PolicyRecord)> {
        let mut policies = self.policies.iter();
        policies.find(|(_, policy)| policy.name == name).map(|(&id, policy)| (id, policy))
    }

    /// The tenant of that name.
    pub fn tenant(&self, name: &str) -> Option<(PolicyId, &TenantRecord)> {
        let mut tenants = self.tenants.iter();
        let found = tenants.find(|(_, tenant)| tenant.name.as_str() == name);
        found.map(|(&number, tenant)| (number, tenant))
    }

    /// The names of the tenants whose frames take this policy's routes.
    pub fn users_of_policy(&self, policy: PolicyId) -> Vec<String> {
        let users = self.tenants.values().filter(|it| it.policy == policy || it.backup == policy);
        users.map(|tenant| tenant.name.to_string()).collect()
    }

    /// All regions that a policy allows: its own and those of its cells. Empty where it names neither.
    pub fn regions_of(&self, policy: &PolicyRecord) -> BTreeSet<String> {
        let cells = policy.cells.iter().filter_map(|cell| self.cells.get(cell));
        let of_cells = cells.flat_map(|cell| &cell.regions);
        policy.regions.iter().chain(of_cells).cloned().collect()
    }

    /// All relays that a policy allows wherever they are: those of its cells.
    pub fn relays_of(&self, policy: &PolicyRecord) -> BTreeSet<RelayId> {
        let cells = policy.cells.iter().filter_map(|cell| self.cells.get(cell));
        cells.flat_map(|cell| &cell.relays).copied().collect()
    }

    /// The names of the policies of operators that name this cell.
    pub fn policies_of_cell(&self, cell: &str) -> Vec<String> {
        let users = self.policies.values().filter(|it| !it.is_of_cell() && it.cells.contains(cell));
        users.map(|policy| policy.name.clone()).collect()
    }

    /// The names of the tenants that are of this cell.
    pub fn tenants_of_cell(&self, cell: &str) -> Vec<String> {
        let users = self.tenants.values().filter(|tenant| tenant.cell.as_deref() == Some(cell));
        users.map(|tenant| tenant.name.to_string()).collect()
    }

    /// Who names this cell, for people.
    pub fn users_of_cell(&self, cell: &str) -> Vec<String> {
        let policies = self.policies_of_cell(cell).into_iter().map(|name| format!("policy {name}"));
        let tenants = self.tenants_of_cell(cell).into_iter().map(|name| format!("tenant {name}"));
        let partners = self.cells.iter().filter(|(_, other)| other.partners.contains(cell));
        let partners = partners.map(|(name, _)| format!("cell {name}"));
        policies.chain(tenants).chain(partners).collect()
    }

    /// What this change makes of them.
    pub fn apply(&mut self, change: &WishesChange) {
        let WishesChange { drains, transit, last_policy, policies, cells, tenants } = change;
        put_all(&mut self.drains, drains);
        put_all(&mut self.transit, transit);
        put_all(&mut self.policies, policies);
        put_all(&mut self.cells, cells);
        put_all(&mut self.tenants, tenants);
        self.last_policy = last_policy.unwrap_or(self.last_policy);
    }
}

fn put_all<K: Clone + Ord, V: Clone>(held: &mut BTreeMap<K, V>, changes: &[(K, Option<V>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => held.insert(key.clone(), value.clone()),
            None => held.remove(key),
        };
    }
}
