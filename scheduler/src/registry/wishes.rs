//! The rules of the operator's wishes.
//!
//! A **drain** is of a member, or of the links between two; it lasts until it is taken back or a member of
//! it is removed. A **policy** has a name, and an id that is never given again, since relays and frames may
//! know it longer than the store does.

use std::collections::BTreeSet;

use overway_scheduler_core::NAME_BYTES_MAX;
use overway_topology::{POLICIES_MAX, Policy};
use overway_wire::{PolicyId, RelayId};

use super::{Registry, RegistryError, check_name, live_member};
use crate::nearest::nearest;
use crate::store::{
    Change, DrainRecord, DrainTarget, PolicyRecord, Snapshot, StoreError, Wishes, WishesChange,
};

/// Drains at once. Who drains more than that takes the mesh down, for which there are better ways.
pub const DRAINS_MAX: usize = 1_024;
/// Cells. There are hardly more legal spaces in the world.
pub const CELLS_MAX: usize = 256;
/// Bytes of the longest name of a cell: what a policy's may have (`POLICY_NAME_BYTES_MAX`), less what is put around it in
/// the names of its tenants' policies.
pub(super) const CELL_NAME_BYTES_MAX: usize = 50;
/// Regions, providers or cells that one policy or cell names.
pub const NAMES_MAX: usize = 256;

/// Why a wish was not taken.
#[derive(Debug, thiserror::Error)]
pub enum WishError {
    /// No such member.
    #[error("{0} is not a member of this mesh")]
    NotMember(RelayId),
    /// A link has two ends.
    #[error("a link is between two relays, and {0} is one: name the other end too")]
    SameEnds(RelayId),
    /// There is nothing to take back.
    #[error("it is not being drained: `overway drain` lists what is")]
    NotDrained,
    /// There are [`DRAINS_MAX`] drains.
    #[error("{DRAINS_MAX} drains are under way: end some first")]
    TooManyDrains,
    /// No policy or cell can be called that.
    #[error("a {what}'s name is 1 to 63 of a-z, 0-9 and hyphen, and does not start with a hyphen")]
    Name {
        /// Policy or cell.
        what: &'static str,
    },
    /// An empty or overlong region or provider.
    #[error("a {what} is 1 to {NAME_BYTES_MAX} bytes long, and {given:?} is not")]
    Text {
        /// Region or provider.
        what: &'static str,
        /// What was given.
        given: String,
    },
    /// More than [`NAMES_MAX`] of a kind.
    #[error("{0} names in one list; at most {NAMES_MAX} are allowed")]
    TooManyNames(usize),
    /// A policy that restricts nothing.
    #[error("policy {0:?} would restrict nothing: name regions, providers or cells")]
    EmptyPolicy(String),
    /// A cell without regions and relays.
    #[error(
        "cell {0:?} would have no region, and nothing could be in it: name its regions or relays"
    )]
    EmptyCell(String),
    /// A cell whose name is too long.
    #[error("a cell's name has at most {CELL_NAME_BYTES_MAX} characters, and {0:?} has more")]
    LongCell(String),
    /// A cell that is its own partner.
    #[error("cell {0:?} cannot stand in for itself: name other cells as its partners")]
    OwnPartner(String),
    /// There are as many policies as relays hold.
    #[error(
        "there are {POLICIES_MAX} policies, which is as many as there can be: remove one first"
    )]
    TooManyPolicies,
    /// Every policy id was given.
    #[error("all 65,535 policy ids were given")]
    NoPolicyIds,
    /// There are [`CELLS_MAX`] cells.
    #[error("there are {CELLS_MAX} cells, which is as many as there can be: remove one first")]
    TooManyCells,
    /// No policy has that name.
    #[error("no policy is named {name:?}{hint}: `overway policy list` shows all")]
    NoSuchPolicy {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// No cell has that name.
    #[error("no cell is named {name:?}{hint}: `overway cell list` shows all")]
    NoSuchCell {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// A tenant has the policy.
    #[error("policy {policy:?} is that of tenant {}: give that another first", .tenants.join(", "))]
    PolicyInUse {
        /// The policy.
        policy: String,
        /// The tenants.
        tenants: Vec<String>,
    },
    /// A policy, a tenant or another cell names the cell.
    #[error("cell {cell:?} is named by {}: change or remove that first", .users.join(", "))]
    CellInUse {
        /// The cell.
        cell: String,
        /// Who names it.
        users: Vec<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Registry {
    /// Keeps a drain, or takes it back.
    ///
    /// # Errors
    /// If an end is no member, there are too many, or there is nothing to take back.
    pub fn set_drain(
        &self,
        target: DrainTarget,
        drain: Option<DrainRecord>,
    ) -> Result<(), WishError> {
        self.change(|snapshot| {
            let drains = &snapshot.wishes.drains;
            let is_drained = drains.contains_key(&target);
            if drain.is_none() && !is_drained {
                return Err(WishError::NotDrained);
            }
            if drain.is_some() {
                check_ends(snapshot, target)?;
                if !is_drained && drains.len() >= DRAINS_MAX {
                    return Err(WishError::TooManyDrains);
                }
            }
            let drains = vec![(target, drain)];
            Ok((of_wishes(WishesChange { drains, ..WishesChange::default() }), ()))
        })
    }

    /// Keeps whether a relay may carry others' traffic; `None` leaves it to the relay again.
    ///
    /// # Errors
    /// If the relay is no member.
    pub fn set_transit(&self, relay: RelayId, transit: Option<bool>) -> Result<(), WishError> {
        self.change(|snapshot| {
            check_member(snapshot, relay)?;
            let transit = vec![(relay, transit)];
            Ok((of_wishes(WishesChange { transit, ..WishesChange::default() }), ()))
        })
    }

    /// Adds a policy, or changes the one of that name. Returns its id and what it means for paths.
    ///
    /// # Errors
    /// If it cannot be, names a cell that is not there, or there are too many.
    pub fn put_policy(&self, policy: &PolicyRecord) -> Result<(PolicyId, Policy), WishError> {
        check_policy(policy)?;
        self.change(|snapshot| {
            let wishes = &snapshot.wishes;
            for cell in &policy.cells {
                check_cell(wishes, cell)?;
            }
            let (id, last_policy) = match wishes.policy(&policy.name) {
                Some((id, _)) => (id, None),
                None if wishes.policies.len() >= POLICIES_MAX => {
                    return Err(WishError::TooManyPolicies);
                }
                None => {
                    let id = wishes.last_policy.checked_add(1).ok_or(WishError::NoPolicyIds)?;
                    (PolicyId(id), Some(id))
                }
            };
            let policies = vec![(id, Some(policy.clone()))];
            let change = WishesChange { last_policy, policies, ..WishesChange::default() };
            let meaning = expanded(wishes, policy);
            check_texts("region", &meaning.regions)?;
            Ok((of_wishes(change), (id, meaning)))
        })
    }

    /// Removes the policy of that name, and returns its id.
    ///
    /// # Errors
    /// If there is none, or a tenant has it.
    pub fn remove_policy(&self, name: &str) -> Result<PolicyId, WishError> {
        self.change(|snapshot| {
            let wishes = &snapshot.wishes;
            let (id, _) = wishes.policy(name).ok_or_else(|| no_such_policy(wishes, name))?;
            let tenants = wishes.users_of_policy(id);
            if !tenants.is_empty() {
                return Err(WishError::PolicyInUse { policy: name.to_owned(), tenants });
            }
            let policies = vec![(id, None)];
            Ok((of_wishes(WishesChange { policies, ..WishesChange::default() }), id))
        })
    }
}

/// What a policy means for paths: its cells written out as regions.
pub(crate) fn expanded(wishes: &Wishes, policy: &PolicyRecord) -> Policy {
    Policy {
        name: policy.name.clone(),
        regions: wishes.regions_of(policy),
        relays: wishes.relays_of(policy),
        providers: policy.providers.clone(),
    }
}

/// Why there is no policy of that name, with one that may have been meant.
pub(crate) fn no_such_policy(wishes: &Wishes, name: &str) -> WishError {
    let known = wishes.policies.values().map(|policy| policy.name.as_str());
    WishError::NoSuchPolicy { name: name.to_owned(), hint: nearest(name, known) }
}

/// The change that takes back everything that is about a relay.
pub(super) fn without(wishes: &Wishes, relay: RelayId) -> WishesChange {
    let drains = wishes.drains.keys().filter(|target| target.touches(relay));
    let transit = wishes.transit.keys().filter(|&&id| id == relay);
    WishesChange {
        drains: drains.map(|&target| (target, None)).collect(),
        transit: transit.map(|&id| (id, None)).collect(),
        ..WishesChange::default()
    }
}

pub(super) fn of_wishes(wishes: WishesChange) -> Change {
    Change { wishes, ..Change::default() }
}

fn check_member(snapshot: &Snapshot, relay: RelayId) -> Result<(), WishError> {
    let name = snapshot.members.get(&relay).map(|member| member.name.as_str());
    match name.and_then(|name| live_member(snapshot, name)) {
        Some(member) if member.id == relay => Ok(()),
        Some(_) | None => Err(WishError::NotMember(relay)),
    }
}

fn check_ends(snapshot: &Snapshot, target: DrainTarget) -> Result<(), WishError> {
    match target {
        DrainTarget::Relay(relay) => check_member(snapshot, relay),
        DrainTarget::Link(one, other) if one == other => Err(WishError::SameEnds(one)),
        DrainTarget::Link(one, other) => {
            check_member(snapshot, one)?;
            check_member(snapshot, other)
        }
    }
}

pub(super) fn check_cell(wishes: &Wishes, name: &str) -> Result<(), WishError> {
    if wishes.cells.contains_key(name) {
        return Ok(());
    }
    let known = wishes.cells.keys().map(String::as_str);
    Err(WishError::NoSuchCell { name: name.to_owned(), hint: nearest(name, known) })
}

fn check_policy(policy: &PolicyRecord) -> Result<(), WishError> {
    let PolicyRecord { name, regions, providers, cells } = policy;
    check_name(name).map_err(|_: RegistryError| WishError::Name { what: "policy" })?;
    check_texts("region", regions)?;
    check_texts("provider", providers)?;
    if cells.len() > NAMES_MAX {
        return Err(WishError::TooManyNames(cells.len()));
    }
    if regions.is_empty() && providers.is_empty() && cells.is_empty() {
        return Err(WishError::EmptyPolicy(name.clone()));
    }
    Ok(())
}

pub(super) fn check_texts(what: &'static str, texts: &BTreeSet<String>) -> Result<(), WishError> {
    if texts.len() > NAMES_MAX {
        return Err(WishError::TooManyNames(texts.len()));
    }
    match texts.iter().find(|text| text.is_empty() || text.len() > NAME_BYTES_MAX) {
        Some(text) => Err(WishError::Text { what, given: text.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::MemoryStore;
    use super::*;
    use crate::store::{CellRecord, UnixSeconds};

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn policy(name: &str, regions: &[&str], cells: &[&str]) -> PolicyRecord {
        let (regions, cells) = (set(regions), set(cells));
        PolicyRecord { name: name.to_owned(), regions, providers: set(&[]), cells }
    }

    fn registry_of(names: &[&str]) -> Registry {
        let registry = Registry::new(MemoryStore::with_conflicts(0));
        for (number, name) in (0_u8..).zip(names) {
            let (now, later) = (UnixSeconds(1), UnixSeconds(100));
            registry.invite(name, [number; 32], later, now).unwrap();
            registry.redeem(&[number; 32], [9; 32], now, |_| Ok(())).unwrap();
        }
        registry
    }

    fn drain() -> Option<DrainRecord> {
        Some(DrainRecord { since: UnixSeconds(1), deadline: None })
    }

    #[test]
    fn a_drain_is_kept_until_it_is_taken_back() {
        let registry = registry_of(&["rome", "oslo"]);
        let link = DrainTarget::link(RelayId(2), RelayId(1));
        registry.set_drain(link, drain()).unwrap();
        registry.set_drain(DrainTarget::Relay(RelayId(1)), drain()).unwrap();

        registry.set_drain(link, None).unwrap();

        let left: Vec<_> = registry.snapshot().unwrap().wishes.drains.into_keys().collect();
        assert_eq!(left, [DrainTarget::Relay(RelayId(1))]);
        assert!(matches!(registry.set_drain(link, None), Err(WishError::NotDrained)));
    }

    #[test]
    fn only_members_and_links_with_two_ends_are_drained() {
        let registry = registry_of(&["rome"]);

        let stranger = registry.set_drain(DrainTarget::Relay(RelayId(7)), drain());
        let half = registry.set_drain(DrainTarget::link(RelayId(1), RelayId(1)), drain());

        assert!(matches!(stranger, Err(WishError::NotMember(RelayId(7)))));
        assert!(matches!(half, Err(WishError::SameEnds(RelayId(1)))));
    }

    #[test]
    fn what_was_wished_of_a_relay_goes_with_it() {
        let registry = registry_of(&["rome", "oslo", "bonn"]);
        registry.set_drain(DrainTarget::Relay(RelayId(1)), drain()).unwrap();
        registry.set_drain(DrainTarget::link(RelayId(1), RelayId(2)), drain()).unwrap();
        registry.set_drain(DrainTarget::link(RelayId(2), RelayId(3)), drain()).unwrap();
        registry.set_transit(RelayId(1), Some(false)).unwrap();

        registry.remove("rome").unwrap();

        let wishes = registry.snapshot().unwrap().wishes;
        let left: Vec<_> = wishes.drains.into_keys().collect();
        assert_eq!(left, [DrainTarget::link(RelayId(2), RelayId(3))]);
        assert!(wishes.transit.is_empty());
        assert!(matches!(registry.set_transit(RelayId(1), None), Err(WishError::NotMember(_))));
    }

    #[test]
    fn a_policys_id_stays_with_its_name_and_is_never_given_again() {
        let registry = registry_of(&[]);
        let (first, _) = registry.put_policy(&policy("voice", &["eu"], &[])).unwrap();
        let (same, changed) = registry.put_policy(&policy("voice", &["us"], &[])).unwrap();
        assert_eq!(registry.remove_policy("voice").unwrap(), first);

        let (second, _) = registry.put_policy(&policy("voice", &["eu"], &[])).unwrap();

        assert_eq!((first, same, second), (PolicyId(1), PolicyId(1), PolicyId(2)));
        assert_eq!(changed.regions, set(&["us"]));
    }

    fn cell(regions: &[&str]) -> CellRecord {
        CellRecord { regions: set(regions), ..CellRecord::default() }
    }

    #[test]
    fn a_cell_is_written_out_and_a_change_of_it_changes_its_policies() {
        let registry = registry_of(&[]);
        registry.put_cell("eu", &cell(&["eu-west"])).unwrap();
        let (id, before) = registry.put_policy(&policy("voice", &["ch"], &["eu"])).unwrap();

        let after = registry.put_cell("eu", &cell(&["eu-west", "eu-north"])).unwrap();

        assert_eq!(before.regions, set(&["ch", "eu-west"]));
        let expected = Policy { regions: set(&["ch", "eu-north", "eu-west"]), ..before };
        assert_eq!(after.policies, [(id, expected)]);
        let used = registry.remove_cell("eu");
        assert!(
            matches!(used, Err(WishError::CellInUse { users, .. }) if users == ["policy voice"])
        );
        registry.remove_policy("voice").unwrap();
        registry.remove_cell("eu").unwrap();
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_hint() {
        let registry = registry_of(&[]);
        registry.put_cell("europe", &cell(&["eu-west"])).unwrap();
        registry.put_policy(&policy("voice", &["eu-west"], &[])).unwrap();
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let cases = [
            (registry.put_policy(&policy("Voice", &["a"], &[])).map(drop), "a-z"),
            (registry.put_policy(&policy("other", &[], &[])).map(drop), "restrict nothing"),
            (registry.put_policy(&policy("other", &[""], &[])).map(drop), "region"),
            (registry.put_policy(&policy("other", &[&long], &[])).map(drop), "region"),
            (registry.put_policy(&policy("other", &[], &["euorpe"])).map(drop), "mean \"europe\""),
            (registry.remove_policy("voise").map(drop), "mean \"voice\""),
            (registry.remove_cell("asia"), "no cell is named"),
        ];
        for (refused, words) in cases {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(words), "{words:?} is not in {error:?}");
        }
    }

    #[test]
    fn there_are_as_many_policies_as_relays_hold() {
        let registry = registry_of(&[]);
        for number in 0..POLICIES_MAX {
            registry.put_policy(&policy(&format!("p{number}"), &["eu"], &[])).unwrap();
        }

        let more = registry.put_policy(&policy("more", &["eu"], &[]));

        assert!(matches!(more, Err(WishError::TooManyPolicies)));
        assert!(registry.put_policy(&policy("p0", &["us"], &[])).is_ok());
    }
}
