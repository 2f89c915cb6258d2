//! The rules of tenants.
//!
//! A tenant has a number of its own, of the same numbers as policies and given only once, because relays and frames
//! may know it longer than the store does. A key's name stands for one key for ever: a revoked one is not taken again,
//! neither under its name nor under another. A revoked token is forgotten when it can no longer be valid.

use overway_scheduler_core::TENANTS_MAX;
use overway_tenant::{
    KEYS_MAX, Kid, LEEWAY, LIFETIME_MAX, NameError, Quota, REVOKED_KIDS_MAX, REVOKED_TOKENS_MAX,
    TenantName, TenantPublicKey, TokenId,
};
use overway_wire::PolicyId;

use super::cells::Settled;
use super::wishes::{no_such_policy, of_wishes};
use super::{Registry, WishError};
use crate::nearest::nearest;
use crate::store::{
    KeyRecord, RevokedKeyRecord, StoreError, TenantRecord, UnixSeconds, Wishes, WishesChange,
};

/// Why something about a tenant was not done.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// A name that cannot be.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A tenant has the name.
    #[error("there is a tenant named \"{0}\" already")]
    Taken(TenantName),
    /// No tenant has that name.
    #[error("no tenant is named {name:?}{hint}: `overway tenant list` shows all")]
    NoSuchTenant {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// There are [`TENANTS_MAX`] tenants.
    #[error("there are {TENANTS_MAX} tenants, which is as many as there can be: remove one first")]
    TooManyTenants,
    /// Every number was given.
    #[error("all 65,535 numbers of policies and tenants were given")]
    NoNumbers,
    /// The policy or cell is not there, or there are too many policies.
    #[error(transparent)]
    Policy(#[from] WishError),
    /// It is of a cell, whose routes it takes.
    #[error(
        "tenant \"{tenant}\" is of cell \"{cell}\", whose routes it takes: `overway tenant cell {tenant}` first"
    )]
    InCell {
        /// Which.
        tenant: TenantName,
        /// Its cell.
        cell: String,
    },
    /// It has a policy of its own.
    #[error("tenant \"{0}\" takes the routes of a policy: `overway tenant policy {0}` first")]
    HasPolicy(TenantName),
    /// A limit of nothing.
    #[error("{0} of 0 would be no quota: leave it out for no limit, or revoke the tenant's keys")]
    ZeroQuota(&'static str),
    /// Another key has the name.
    #[error("the key \"{0}\" is there already and is another: give the new one a name of its own")]
    KidTaken(Kid),
    /// The key was revoked.
    #[error(
        "the key \"{0}\" was revoked, and neither it nor its name is taken again: make a new key"
    )]
    KeyWasRevoked(Kid),
    /// No such key.
    #[error("tenant \"{tenant}\" has no key \"{kid}\"{hint}")]
    NoSuchKey {
        /// Whose.
        tenant: TenantName,
        /// What was asked for.
        kid: Kid,
        /// What may have been meant.
        hint: String,
    },
    /// There are [`KEYS_MAX`] keys.
    #[error("the tenant has {KEYS_MAX} keys, which is as many as it can have: revoke one first")]
    TooManyKeys,
    /// There are [`REVOKED_TOKENS_MAX`] revoked tokens.
    #[error(
        "{REVOKED_TOKENS_MAX} tokens are revoked, which is as many as there can be: add a new key and revoke the one \
         that signed them, which revokes all of its tokens"
    )]
    TooManyTokens,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where a new tenant's traffic may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// Wherever everybody's does.
    Anywhere,
    /// Where the policy of that name allows.
    Policy(&'a str),
    /// Within the cell of that name.
    Cell(&'a str),
}

/// A tenant and its number.
type Numbered = (PolicyId, TenantRecord);

impl Registry {
    /// Adds a tenant without keys. Returns it, and what else changed for it.
    ///
    /// # Errors
    /// If the name cannot be or is taken, there is no such policy or cell, or there are too many.
    pub fn add_tenant(
        &self,
        name: &TenantName,
        place: Place<'_>,
        quota: Quota,
        now: UnixSeconds,
    ) -> Result<(PolicyId, Settled), TenantError> {
        check_quota(quota)?;
        self.change_settled(|wishes| {
            if wishes.tenant(name.as_str()).is_some() {
                return Err(TenantError::Taken(name.clone()));
            }
            if wishes.tenants.len() >= TENANTS_MAX {
                return Err(TenantError::TooManyTenants);
            }
            let number = wishes.last_policy.checked_add(1).ok_or(TenantError::NoNumbers)?;
            let (policy, cell) = match place {
                Place::Anywhere => (PolicyId::default(), None),
                Place::Policy(policy) => (policy_of(wishes, Some(policy))?, None),
                Place::Cell(cell) => (PolicyId::default(), Some(cell.to_owned())),
            };
            let record = TenantRecord {
                name: name.clone(),
                policy,
                backup: PolicyId::default(),
                cell,
                keys: [].into(),
                revoked_keys: Vec::new(),
                revoked_tokens: [].into(),
                quota,
                created: now,
            };
            wishes.last_policy = number;
            wishes.tenants.insert(PolicyId(number), record);
            Ok(PolicyId(number))
        })
    }

    /// Removes a tenant; returns what is gone with it.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn remove_tenant(&self, name: &str) -> Result<Settled, TenantError> {
        let settled = self.change_settled::<_, TenantError>(|wishes| {
            let (number, _) = found(wishes, name)?;
            wishes.tenants.remove(&number);
            Ok(())
        });
        settled.map(|((), settled)| settled)
    }

    /// Puts a tenant into a cell, or into none. Returns its number, and what else changed.
    ///
    /// # Errors
    /// If there is no such tenant or cell, it has a policy, or there are too many policies.
    pub fn set_tenant_cell(
        &self,
        name: &str,
        cell: Option<&str>,
        now: UnixSeconds,
    ) -> Result<(PolicyId, Settled), TenantError> {
        self.change_settled(|wishes| {
            let (number, known) = found(wishes, name)?;
            let mut tenant = known.clone();
            if tenant.cell.is_none() && tenant.policy != PolicyId::default() {
                return Err(TenantError::HasPolicy(tenant.name));
            }
            forget_ended(&mut tenant, now);
            tenant.cell = cell.map(str::to_owned);
            (tenant.policy, tenant.backup) = <_>::default();
            wishes.tenants.insert(number, tenant);
            Ok(number)
        })
    }

    /// Has a tenant's frames take the routes of a policy, or of none.
    ///
    /// # Errors
    /// If there is no such tenant or policy, or the tenant is of a cell.
    pub fn set_tenant_policy(
        &self,
        name: &str,
        policy: Option<&str>,
        now: UnixSeconds,
    ) -> Result<Numbered, TenantError> {
        self.change_tenant(name, now, |wishes, tenant| {
            if let Some(cell) = &tenant.cell {
                let (tenant, cell) = (tenant.name.clone(), cell.clone());
                return Err(TenantError::InCell { tenant, cell });
            }
            tenant.policy = policy_of(wishes, policy)?;
            Ok(())
        })
    }

    /// Limits what a tenant's edges may use together, instead of what was said before.
    ///
    /// # Errors
    /// If there is no such tenant, or a limit is 0.
    pub fn set_tenant_quota(
        &self,
        name: &str,
        quota: Quota,
        now: UnixSeconds,
    ) -> Result<Numbered, TenantError> {
        check_quota(quota)?;
        self.change_tenant(name, now, |_, tenant| {
            tenant.quota = quota;
            Ok(())
        })
    }

    /// Adds a key; with `replaces` revokes another in the same change. A key that is there already stays.
    ///
    /// # Errors
    /// If there is no such tenant, the name is another key's, the key was revoked, or there are too many.
    pub fn add_tenant_key(
        &self,
        name: &str,
        kid: &Kid,
        key: TenantPublicKey,
        replaces: Option<&Kid>,
        now: UnixSeconds,
    ) -> Result<Numbered, TenantError> {
        self.change_tenant(name, now, |_, tenant| {
            if let Some(old) = replaces {
                revoke(tenant, old, now)?;
            }
            let was_revoked =
                |revoked: &&RevokedKeyRecord| revoked.kid == *kid || revoked.key == key;
            if let Some(revoked) = tenant.revoked_keys.iter().find(was_revoked) {
                return Err(TenantError::KeyWasRevoked(revoked.kid.clone()));
            }
            match tenant.keys.get(kid) {
                Some(known) if known.key == key => return Ok(()),
                Some(_) => return Err(TenantError::KidTaken(kid.clone())),
                None if tenant.keys.len() >= KEYS_MAX => return Err(TenantError::TooManyKeys),
                None => {}
            }
            tenant.keys.insert(kid.clone(), KeyRecord { key, added: now });
            Ok(())
        })
    }

    /// Revokes a key, and with it every token that it has signed.
    ///
    /// # Errors
    /// If there is no such tenant or key.
    pub fn revoke_tenant_key(
        &self,
        name: &str,
        kid: &Kid,
        now: UnixSeconds,
    ) -> Result<Numbered, TenantError> {
        self.change_tenant(name, now, |_, tenant| revoke(tenant, kid, now))
    }

    /// Revokes one token.
    ///
    /// # Errors
    /// If there is no such tenant, or too many of its tokens are revoked.
    pub fn revoke_tenant_token(
        &self,
        name: &str,
        id: &TokenId,
        now: UnixSeconds,
    ) -> Result<Numbered, TenantError> {
        self.change_tenant(name, now, |_, tenant| {
            let is_new = !tenant.revoked_tokens.contains_key(id);
            if is_new && tenant.revoked_tokens.len() >= REVOKED_TOKENS_MAX {
                return Err(TenantError::TooManyTokens);
            }
            tenant.revoked_tokens.entry(id.clone()).or_insert(now);
            Ok(())
        })
    }

    /// Changes a tenant, and forgets tokens of which nothing can be left.
    fn change_tenant(
        &self,
        name: &str,
        now: UnixSeconds,
        edit: impl Fn(&Wishes, &mut TenantRecord) -> Result<(), TenantError>,
    ) -> Result<Numbered, TenantError> {
        self.change(|snapshot| {
            let (number, known) = found(&snapshot.wishes, name)?;
            let mut tenant = known.clone();
            forget_ended(&mut tenant, now);
            edit(&snapshot.wishes, &mut tenant)?;
            let changed = (tenant != *known).then(|| (number, Some(tenant.clone())));
            let tenants = changed.into_iter().collect();
            let change = WishesChange { tenants, ..WishesChange::default() };
            Ok((of_wishes(change), (number, tenant)))
        })
    }
}

/// Forgets revoked tokens of which nothing can be left.
fn forget_ended(tenant: &mut TenantRecord, now: UnixSeconds) {
    // One that was made at the last moment before, by a clock that is as far ahead as it may be, ends then for one that
    // is as far behind.
    let kept = LIFETIME_MAX + 3 * LEEWAY;
    tenant.revoked_tokens.retain(|_, at| now.seconds_since(*at) <= kept.as_secs());
}

/// The tenant of that name.
pub(crate) fn found<'a>(
    wishes: &'a Wishes,
    name: &str,
) -> Result<(PolicyId, &'a TenantRecord), TenantError> {
    wishes.tenant(name).ok_or_else(|| {
        let known = wishes.tenants.values().map(|tenant| tenant.name.as_str());
        TenantError::NoSuchTenant { name: name.to_owned(), hint: nearest(name, known) }
    })
}

fn policy_of(wishes: &Wishes, name: Option<&str>) -> Result<PolicyId, TenantError> {
    let Some(name) = name else { return Ok(PolicyId::default()) };
    let known = wishes.policy(name).map(|(id, _)| id);
    known.ok_or_else(|| no_such_policy(wishes, name).into())
}

fn revoke(tenant: &mut TenantRecord, kid: &Kid, now: UnixSeconds) -> Result<(), TenantError> {
    if tenant.revoked_keys.iter().any(|revoked| revoked.kid == *kid) {
        return Ok(());
    }
    let Some(record) = tenant.keys.remove(kid) else {
        let hint = nearest(kid.as_str(), tenant.keys.keys().map(Kid::as_str));
        let (tenant, kid) = (tenant.name.clone(), kid.clone());
        return Err(TenantError::NoSuchKey { tenant, kid, hint });
    };
    // Revoking must not fail; and a key that is forgotten is not there, and counts for nothing either.
    if tenant.revoked_keys.len() >= REVOKED_KIDS_MAX {
        tenant.revoked_keys.remove(0);
    }
    tenant.revoked_keys.push(RevokedKeyRecord { kid: kid.clone(), key: record.key, at: now });
    Ok(())
}

fn check_quota(quota: Quota) -> Result<(), TenantError> {
    let Quota { attachments, flows, bps, bytes_per_month } = quota;
    let [realtime, interactive, bulk] = bps;
    let limits = [
        ("attachments", attachments.map(u64::from)),
        ("flows", flows.map(u64::from)),
        ("realtime_bps", realtime),
        ("interactive_bps", interactive),
        ("bulk_bps", bulk),
        ("bytes_per_month", bytes_per_month),
    ];
    match limits.into_iter().find(|(_, limit)| *limit == Some(0)) {
        Some((name, _)) => Err(TenantError::ZeroQuota(name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::MemoryStore;
    use super::*;
    use crate::store::PolicyRecord;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    fn key(seed: u8) -> TenantPublicKey {
        overway_tenant::TenantKey::from_seed([seed; 32]).public()
    }

    fn kid(name: &str) -> Kid {
        name.parse().unwrap()
    }

    fn registry() -> Registry {
        let registry = Registry::new(MemoryStore::with_conflicts(0));
        let regions = ["eu".to_owned()].into();
        let policy = PolicyRecord { name: "eu".into(), regions, ..PolicyRecord::default() };
        registry.put_policy(&policy).unwrap();
        registry
            .add_tenant(&"im".parse().unwrap(), Place::Anywhere, Quota::default(), NOW)
            .unwrap();
        registry
    }

    #[test]
    fn policies_and_tenants_have_numbers_that_are_given_once() {
        let registry = registry();
        let add = |name: &str, policy: Option<&str>| {
            let name = name.parse().unwrap();
            let place = policy.map_or(Place::Anywhere, Place::Policy);
            registry.add_tenant(&name, place, Quota::default(), NOW).map(|(number, _)| number)
        };

        assert_eq!(registry.remove_tenant("im").unwrap().tenants, [(PolicyId(2), None)]);
        assert_eq!(add("im", Some("eu")).unwrap(), PolicyId(3));
        assert!(matches!(add("im", None), Err(TenantError::Taken(_))));
        assert!(matches!(add("a", Some("us")), Err(TenantError::Policy(_))));
        let us = PolicyRecord { name: "us".into(), ..PolicyRecord::default() };
        let us = PolicyRecord { providers: ["a".to_owned()].into(), ..us };
        assert_eq!(registry.put_policy(&us).unwrap().0, PolicyId(4));
        let gone = registry.remove_tenant("in").unwrap_err().to_string();
        assert!(gone.contains("did you mean \"im\"?"), "{gone}");
    }

    #[test]
    fn a_policy_that_a_tenant_has_stays() {
        let registry = registry();
        let (_, tenant) = registry.set_tenant_policy("im", Some("eu"), NOW).unwrap();
        assert_eq!(tenant.policy, PolicyId(1));

        let refused = registry.remove_policy("eu").unwrap_err().to_string();

        assert!(refused.contains("tenant im"), "{refused}");
        registry.set_tenant_policy("im", None, NOW).unwrap();
        registry.remove_policy("eu").unwrap();
    }

    #[test]
    fn keys_are_rotated_and_a_revoked_one_is_never_taken_again() {
        let registry = registry();
        let add = |name: &str, seed, old: Option<&str>| {
            let old = old.map(kid);
            registry.add_tenant_key("im", &kid(name), key(seed), old.as_ref(), NOW)
        };
        add("a", 1, None).unwrap();
        add("a", 1, None).unwrap();
        assert!(matches!(add("a", 2, None), Err(TenantError::KidTaken(_))));

        let (_, tenant) = add("b", 2, Some("a")).unwrap();

        let known = tenant.tenant(PolicyId(2)).keys;
        assert_eq!(known.keys, [(kid("b"), key(2))].into());
        assert_eq!(known.revoked_kids, [kid("a")].into());
        assert!(matches!(add("a", 3, None), Err(TenantError::KeyWasRevoked(_))));
        assert!(matches!(add("c", 1, None), Err(TenantError::KeyWasRevoked(_))));
        registry.revoke_tenant_key("im", &kid("a"), NOW).unwrap();
        let unknown = registry.revoke_tenant_key("im", &kid("d"), NOW);
        assert!(matches!(unknown, Err(TenantError::NoSuchKey { .. })));
    }

    #[test]
    fn keys_are_bounded_and_revoking_never_fails() {
        let registry = registry();
        let name = |n: u8| kid(&n.to_string());
        let add = |n: u8| registry.add_tenant_key("im", &name(n), key(n), None, NOW);
        for n in 0..16 {
            add(n).unwrap();
        }
        assert!(matches!(add(16), Err(TenantError::TooManyKeys)));

        for n in 0..=80 {
            registry.revoke_tenant_key("im", &name(n), NOW).unwrap();
            add(n + 16).unwrap();
        }

        let wishes = registry.snapshot().unwrap().wishes;
        let (_, tenant) = wishes.tenant("im").unwrap();
        assert_eq!((tenant.keys.len(), tenant.revoked_keys.len()), (16, REVOKED_KIDS_MAX));
        assert_eq!(tenant.revoked_keys.last().unwrap().kid, name(80));
    }

    #[test]
    fn a_revoked_token_is_kept_for_as_long_as_it_could_be_valid() {
        let registry = registry();
        let revoke = |id: &str, at: u64| {
            let id = id.parse().unwrap();
            let (_, tenant) = registry.revoke_tenant_token("im", &id, UnixSeconds(at))?;
            let known = tenant.revoked_tokens.into_keys().map(|id| id.to_string());
            Ok::<_, TenantError>(known.collect::<Vec<_>>())
        };
        let month = (LIFETIME_MAX + 3 * LEEWAY).as_secs();

        assert_eq!(revoke("a", 100).unwrap(), ["a"]);
        assert_eq!(revoke("b", 100 + month).unwrap(), ["a", "b"]);
        assert_eq!(revoke("c", 101 + month).unwrap(), ["b", "c"]);
        for n in 2..REVOKED_TOKENS_MAX {
            revoke(&format!("t{n}"), 101 + month).unwrap();
        }
        assert!(matches!(revoke("d", 101 + month), Err(TenantError::TooManyTokens)));
        revoke("b", 101 + month).unwrap();
    }

    #[test]
    fn a_quota_of_nothing_is_refused() {
        let quota = Quota { bps: [None, Some(0), None], ..Quota::default() };
        let refused = registry().set_tenant_quota("im", quota, NOW).unwrap_err().to_string();
        assert!(refused.contains("interactive_bps"), "{refused}");
    }
}
