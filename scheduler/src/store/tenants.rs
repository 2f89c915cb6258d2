//! Tenants, as the store keeps them.

use std::collections::BTreeMap;

use overway_tenant::{Kid, Quota, Tenant, TenantKeys, TenantName, TenantPublicKey, TokenId};
use overway_wire::PolicyId;

use super::UnixSeconds;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRecord {
    /// Its name, unique among tenants.
    pub name: TenantName,
    /// The policy whose routes its frames take; 0: those of everybody.
    pub policy: PolicyId,
    /// The policy whose routes they take where those lead nowhere: its cell's with the partners. 0: none.
    pub backup: PolicyId,
    /// The cell that it is of, which makes both policies.
    pub cell: Option<String>,
    /// The keys whose tokens count.
    pub keys: BTreeMap<Kid, KeyRecord>,
    /// Keys that count no more, the first revoked first.
    pub revoked_keys: Vec<RevokedKeyRecord>,
    /// Tokens that count no more, and since when.
    pub revoked_tokens: BTreeMap<TokenId, UnixSeconds>,
    /// What its edges may use together.
    pub quota: Quota,
    /// When it was made.
    pub created: UnixSeconds,
}

/// A key of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// The key.
    pub key: TenantPublicKey,
    /// When it was added.
    pub added: UnixSeconds,
}

/// A key that counts no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedKeyRecord {
    /// Its name.
    pub kid: Kid,
    /// The key.
    pub key: TenantPublicKey,
    /// When it was revoked.
    pub at: UnixSeconds,
}

impl TenantRecord {
    /// The tenant as relays are to know it.
    pub fn tenant(&self, number: PolicyId) -> Tenant {
        let keys = TenantKeys {
            tenant: self.name.clone(),
            keys: self.keys.iter().map(|(kid, record)| (kid.clone(), record.key)).collect(),
            revoked_kids: self.revoked_keys.iter().map(|revoked| revoked.kid.clone()).collect(),
            revoked_tokens: self.revoked_tokens.keys().cloned().collect(),
        };
        Tenant {
            number,
            route_policy: self.policy,
            backup_policy: self.backup,
            cell: self.cell.clone().unwrap_or_default(),
            keys,
            quota: self.quota,
            exhausted: None,
        }
    }
}
