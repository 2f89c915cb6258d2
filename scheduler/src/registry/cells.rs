//! The rules of cells.
//!
//! A **cell** is a named set of regions and relays; it stays as long as a policy, a tenant or another cell names it. Its
//! *partners* are the cells that stand in where it has no endpoint or no path itself.
//!
//! ```text
//!   tenants of cell "eu", whose partner is "us"
//!     route policy:  "cell:eu"           regions and relays of "eu"
//!     backup policy: "cell:eu+partners"  those of "eu" and "us"
//! ```
//!
//! These policies are made for the first tenant of a cell and go with the last; nobody else can name one so. They count
//! among the policies that there can be. [`settle`] makes them, after every change of cells or tenants.

use std::collections::{BTreeMap, BTreeSet};

use overway_topology::{POLICIES_MAX, Policy};
use overway_wire::PolicyId;

use super::wishes::{
    CELL_NAME_BYTES_MAX, CELLS_MAX, NAMES_MAX, WishError, check_cell, check_texts, expanded,
    of_wishes,
};
use super::{Registry, RegistryError, check_name};
use crate::store::{CellRecord, PolicyRecord, StoreError, TenantRecord, Wishes, WishesChange};

/// What a change of cells or tenants means for the core, in the order in which it is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Policies that are new, or mean something else.
    pub policies: Vec<(PolicyId, Policy)>,
    /// Tenants that changed, or are gone.
    pub tenants: Vec<(PolicyId, Option<TenantRecord>)>,
    /// Policies that are gone.
    pub gone: Vec<PolicyId>,
}

impl Registry {
    /// Adds a cell, or changes the one of that name. Policies and tenants that name it follow.
    ///
    /// # Errors
    /// If it cannot be, a partner is not there, or there are too many.
    pub fn put_cell(&self, name: &str, cell: &CellRecord) -> Result<Settled, WishError> {
        check_name(name).map_err(|_: RegistryError| WishError::Name { what: "cell" })?;
        if name.len() > CELL_NAME_BYTES_MAX {
            return Err(WishError::LongCell(name.to_owned()));
        }
        check_texts("region", &cell.regions)?;
        let most = cell.relays.len().max(cell.partners.len());
        if most > NAMES_MAX {
            return Err(WishError::TooManyNames(most));
        }
        if cell.regions.is_empty() && cell.relays.is_empty() {
            return Err(WishError::EmptyCell(name.to_owned()));
        }
        if cell.partners.contains(name) {
            return Err(WishError::OwnPartner(name.to_owned()));
        }
        let settled = self.change_settled(|wishes| {
            if !wishes.cells.contains_key(name) && wishes.cells.len() >= CELLS_MAX {
                return Err(WishError::TooManyCells);
            }
            cell.partners.iter().try_for_each(|partner| check_cell(wishes, partner))?;
            wishes.cells.insert(name.to_owned(), cell.clone());
            Ok(())
        });
        settled.map(|((), settled)| settled)
    }

    /// Removes a cell.
    ///
    /// # Errors
    /// If there is none, or a policy, a tenant or a cell names it.
    pub fn remove_cell(&self, name: &str) -> Result<(), WishError> {
        self.change(|snapshot| {
            check_cell(&snapshot.wishes, name)?;
            let users = snapshot.wishes.users_of_cell(name);
            if !users.is_empty() {
                return Err(WishError::CellInUse { cell: name.to_owned(), users });
            }
            let cells = vec![(name.to_owned(), None)];
            Ok((of_wishes(WishesChange { cells, ..WishesChange::default() }), ()))
        })
    }

    /// Changes wishes, and what follows from cells with them.
    pub(super) fn change_settled<T, E: From<StoreError> + From<WishError>>(
        &self,
        edit: impl Fn(&mut Wishes) -> Result<T, E>,
    ) -> Result<(T, Settled), E> {
        self.change(|snapshot| {
            let before = &snapshot.wishes;
            let mut after = before.clone();
            let outcome = edit(&mut after)?;
            settle(&mut after)?;
            let settled = Settled::between(before, &after)?;
            Ok((of_wishes(difference(before, &after)), (outcome, settled)))
        })
    }
}

impl Settled {
    fn between(before: &Wishes, after: &Wishes) -> Result<Self, WishError> {
        let mut settled = Self::default();
        for (&id, policy) in &after.policies {
            let meaning = expanded(after, policy);
            let known = before.policies.get(&id).map(|policy| expanded(before, policy));
            if known.as_ref() != Some(&meaning) {
                check_texts("region", &meaning.regions)?;
                settled.policies.push((id, meaning));
            }
        }
        settled.tenants = changes(&before.tenants, &after.tenants);
        let gone = before.policies.keys().filter(|id| !after.policies.contains_key(id));
        settled.gone = gone.copied().collect();
        Ok(settled)
    }
}

/// Gives tenants of cells the policies of their cells, and takes away those policies that no tenant has.
fn settle(wishes: &mut Wishes) -> Result<(), WishError> {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for cell in wishes.tenants.values().filter_map(|tenant| tenant.cell.as_ref()) {
        check_cell(wishes, cell)?;
        let partners = &wishes.cells[cell].partners;
        wanted.insert(own_policy(cell), [cell.clone()].into());
        if !partners.is_empty() {
            let both = partners.iter().chain([cell]).cloned().collect();
            wanted.insert(backup_policy(cell), both);
        }
    }
    wishes.policies.retain(|_, policy| !policy.is_of_cell() || wanted.contains_key(&policy.name));
    for (name, cells) in wanted {
        let known = wishes.policies.values_mut().find(|policy| policy.name == name);
        if let Some(policy) = known {
            policy.cells = cells;
            continue;
        }
        if wishes.policies.len() >= POLICIES_MAX {
            return Err(WishError::TooManyPolicies);
        }
        wishes.last_policy = wishes.last_policy.checked_add(1).ok_or(WishError::NoPolicyIds)?;
        let policy = PolicyRecord { name, cells, ..PolicyRecord::default() };
        wishes.policies.insert(PolicyId(wishes.last_policy), policy);
    }
    let numbers: BTreeMap<String, PolicyId> =
        wishes.policies.iter().map(|(&id, policy)| (policy.name.clone(), id)).collect();
    let number = |name: String| numbers.get(&name).copied().unwrap_or_default();
    for tenant in wishes.tenants.values_mut() {
        if let Some(cell) = &tenant.cell {
            (tenant.policy, tenant.backup) =
                (number(own_policy(cell)), number(backup_policy(cell)));
        }
    }
    Ok(())
}

// A colon is in no name that an operator gives.
fn own_policy(cell: &str) -> String {
    format!("{}{cell}", PolicyRecord::OF_CELL)
}

fn backup_policy(cell: &str) -> String {
    format!("{}{cell}+partners", PolicyRecord::OF_CELL)
}

/// The change that makes the one of the other. Drains and transit are not looked at.
fn difference(before: &Wishes, after: &Wishes) -> WishesChange {
    WishesChange {
        last_policy: (after.last_policy != before.last_policy).then_some(after.last_policy),
        policies: changes(&before.policies, &after.policies),
        cells: changes(&before.cells, &after.cells),
        tenants: changes(&before.tenants, &after.tenants),
        ..WishesChange::default()
    }
}

fn changes<K: Clone + Ord, V: Clone + PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> Vec<(K, Option<V>)> {
    let gone = before.keys().filter(|key| !after.contains_key(key)).map(|key| (key.clone(), None));
    let put = after.iter().filter(|(key, value)| before.get(key) != Some(value));
    gone.chain(put.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
}

#[cfg(test)]
mod tests {
    use overway_tenant::Quota;
    use overway_wire::RelayId;

    use super::super::TenantError;
    use super::super::tests::MemoryStore;
    use super::*;
    use crate::store::UnixSeconds;

    const NOW: UnixSeconds = UnixSeconds(1);

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn cell(regions: &[&str], relays: &[u16], partners: &[&str]) -> CellRecord {
        CellRecord {
            regions: set(regions),
            relays: relays.iter().map(|&relay| RelayId(relay)).collect(),
            partners: set(partners),
        }
    }

    /// Cells "eu" and "us", and a tenant in the first.
    fn registry() -> (Registry, Settled) {
        let registry = Registry::new(MemoryStore::with_conflicts(0));
        registry.put_cell("us", &cell(&["us-east"], &[], &[])).unwrap();
        registry.put_cell("eu", &cell(&["eu-west"], &[9], &["us"])).unwrap();
        let name = "im".parse().unwrap();
        let place = super::super::tenants::Place::Cell("eu");
        let (_, settled) = registry.add_tenant(&name, place, Quota::default(), NOW).unwrap();
        (registry, settled)
    }

    #[test]
    fn a_tenant_of_a_cell_has_its_policy_and_behind_it_that_of_the_partners() {
        let (registry, settled) = registry();

        let [(own, eu), (backup, both)] = &settled.policies[..] else { panic!("{settled:?}") };
        assert_eq!((eu.name.as_str(), both.name.as_str()), ("cell:eu", "cell:eu+partners"));
        assert_eq!((&eu.regions, &eu.relays), (&set(&["eu-west"]), &[RelayId(9)].into()));
        assert_eq!(both.regions, set(&["eu-west", "us-east"]));
        let [(number, Some(tenant))] = &settled.tenants[..] else { panic!("{settled:?}") };
        assert_eq!((tenant.policy, tenant.backup), (*own, *backup));
        let pushed = tenant.tenant(*number);
        assert_eq!((pushed.cell.as_str(), pushed.backup_policy), ("eu", *backup));
        assert_eq!(registry.snapshot().unwrap().wishes.tenants[number], *tenant);
    }

    #[test]
    fn what_changes_of_a_cell_changes_its_policies_and_a_lost_partner_its_tenants() {
        let (registry, before) = registry();

        let wider = registry.put_cell("us", &cell(&["us-east", "us-west"], &[], &[])).unwrap();
        let [(changed, policy)] = &wider.policies[..] else { panic!("{wider:?}") };
        assert_eq!(*changed, before.policies[1].0);
        assert!(policy.regions.contains("us-west") && wider.tenants.is_empty());

        let alone = registry.put_cell("eu", &cell(&["eu-west"], &[9], &[])).unwrap();
        assert_eq!((&alone.gone[..], alone.policies.len()), (&[*changed][..], 0));
        let [(_, Some(tenant))] = &alone.tenants[..] else { panic!("{alone:?}") };
        assert_eq!((tenant.policy, tenant.backup), (before.policies[0].0, PolicyId(0)));
        registry.remove_cell("us").unwrap();
    }

    #[test]
    fn the_last_tenant_of_a_cell_takes_its_policies_along_and_their_ids_are_not_given_again() {
        let (registry, before) = registry();
        let (_, left) = registry.set_tenant_cell("im", None, NOW).unwrap();
        let ids: Vec<PolicyId> = before.policies.iter().map(|(id, _)| *id).collect();
        assert_eq!(left.gone, ids);
        assert!(matches!(&left.tenants[..], [(_, Some(it))] if it.policy == PolicyId(0)));

        let (_, again) = registry.set_tenant_cell("im", Some("eu"), NOW).unwrap();

        assert!(again.policies.iter().all(|(id, _)| !ids.contains(id)));
        let gone = registry.remove_tenant("im").unwrap();
        assert!(matches!(gone.tenants[..], [(_, None)]) && gone.gone.len() == 2);
        assert!(registry.snapshot().unwrap().wishes.policies.is_empty());
    }

    #[test]
    fn cells_that_cannot_be_and_those_in_use_are_refused() {
        let (registry, _) = registry();
        let cases = [
            (registry.put_cell("asia", &cell(&[], &[], &[])).map(drop), "no region"),
            (registry.put_cell(&"x".repeat(51), &cell(&["a"], &[], &[])).map(drop), "at most 50"),
            (registry.put_cell("eu", &cell(&["a"], &[], &["eu"])).map(drop), "itself"),
            (registry.put_cell("eu", &cell(&["a"], &[], &["asia"])).map(drop), "cell list"),
            (registry.remove_cell("eu"), "tenant im"),
            (registry.remove_cell("us"), "cell eu"),
            (registry.remove_policy("cell:eu").map(drop), "tenant im"),
            (registry.remove_policy("cell:eu+partners").map(drop), "tenant im"),
        ];
        for (refused, words) in cases {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(words), "{words:?} is not in {error:?}");
        }
        let policy = PolicyRecord { name: "cell:x".into(), ..PolicyRecord::default() };
        assert!(matches!(registry.put_policy(&policy), Err(WishError::Name { .. })));
        let refused = registry.set_tenant_policy("im", None, NOW).unwrap_err();
        assert!(matches!(refused, TenantError::InCell { .. }), "{refused}");
        let unknown = registry.set_tenant_cell("im", Some("eux"), NOW).unwrap_err().to_string();
        assert!(unknown.contains("mean \"eu\""), "{unknown}");
    }
}
