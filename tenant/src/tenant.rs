//! What relays and edges know of a tenant.

use std::collections::{BTreeMap, BTreeSet};

use overway_wire::{Class, PolicyId};

use crate::jwk::{JwkError, JwkSet};
use crate::key::TenantPublicKey;
use crate::name::{Kid, NameError, TenantName, TokenId};

/// Keys of a tenant at once: an old and a new one for each of a few backends.
pub const KEYS_MAX: usize = 16;
/// Revoked keys that are remembered, for a clear message; a key that is forgotten is unknown, and refused as well.
pub const REVOKED_KIDS_MAX: usize = 64;
/// Revoked tokens of a tenant. One is forgotten when it would have ended; where there are more, a key was lost, and
/// revoking that revokes all of its tokens.
pub const REVOKED_TOKENS_MAX: usize = 1_024;

/// A tenant as relays know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The policy number that frames of its edges carry; never 0, never given again.
    pub number: PolicyId,
    /// The policy whose routes they take; 0: those of everybody.
    pub route_policy: PolicyId,
    /// Its name and keys.
    pub keys: TenantKeys,
    /// What its edges may use together.
    pub quota: Quota,
}

/// A tenant's public keys, and what has been revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantKeys {
    /// Whose they are.
    pub tenant: TenantName,
    /// The keys whose tokens count, at most [`KEYS_MAX`].
    pub keys: BTreeMap<Kid, TenantPublicKey>,
    /// Keys that count no more, at most [`REVOKED_KIDS_MAX`].
    pub revoked_kids: BTreeSet<Kid>,
    /// Tokens that count no more, at most [`REVOKED_TOKENS_MAX`].
    pub revoked_tokens: BTreeSet<TokenId>,
}

/// What a tenant's edges may use together. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Edges attached at one relay at once.
    pub attachments: Option<u32>,
    /// Flows that they have open at one relay at once.
    pub flows: Option<u32>,
    /// Bits per second that they send at one relay, by [`Class::code`].
    pub bps: [Option<u64>; 3],
    /// Bytes that they send in a calendar month (UTC), in the whole mesh.
    pub bytes_per_month: Option<u64>,
}

/// Where the keys of tenants are looked up: one tenant's, or a relay's table of all of them.
pub trait Tenants {
    /// The keys of the tenant of that name, or `None` if there is no such tenant here.
    fn keys_of(&self, tenant: &TenantName) -> Option<&TenantKeys>;
}

/// Why keys cannot be a tenant's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// A key without a name.
    #[error("key {0} of the set has no \"kid\"")]
    NoKid(usize),
    /// A name that is none.
    #[error("key {0} of the set: {1}")]
    Kid(usize, NameError),
    /// A name for two keys.
    #[error("key {0} of the set has the kid \"{1}\", which stands there already")]
    Twice(usize, Kid),
    /// Not a key for us.
    #[error("key {0} of the set: {1}")]
    Key(usize, JwkError),
    /// Too many.
    #[error("the set has {0} keys; {KEYS_MAX} is the most")]
    TooMany(usize),
}

impl TenantKeys {
    /// A tenant with no keys, hence no valid tokens.
    pub const fn new(tenant: TenantName) -> Self {
        Self {
            tenant,
            keys: BTreeMap::new(),
            revoked_kids: BTreeSet::new(),
            revoked_tokens: BTreeSet::new(),
        }
    }

    /// The keys of a JSON Web Key Set, each of which must have a name of its own. Nothing is revoked.
    pub fn from_jwks(tenant: TenantName, set: &JwkSet) -> Result<Self, KeySetError> {
        if set.keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany(set.keys.len()));
        }
        let mut keys = BTreeMap::new();
        for (jwk, place) in set.keys.iter().zip(1..) {
            let kid = jwk.kid.as_deref().ok_or(KeySetError::NoKid(place))?;
            let kid: Kid = kid.parse().map_err(|error| KeySetError::Kid(place, error))?;
            let key =
                TenantPublicKey::from_jwk(jwk).map_err(|error| KeySetError::Key(place, error))?;
            if keys.insert(kid.clone(), key).is_some() {
                return Err(KeySetError::Twice(place, kid));
            }
        }
        Ok(Self { keys, ..Self::new(tenant) })
    }

    /// The keys as a JSON Web Key Set.
    pub fn to_jwks(&self) -> JwkSet {
        JwkSet { keys: self.keys.iter().map(|(kid, key)| key.to_jwk().named(kid)).collect() }
    }
}

impl Tenant {
    /// Its name.
    pub const fn name(&self) -> &TenantName {
        &self.keys.tenant
    }
}

impl Quota {
    /// Bits per second in a class.
    pub const fn bps_in(&self, class: Class) -> Option<u64> {
        self.bps[class.code() as usize]
    }
}

impl Tenants for TenantKeys {
    fn keys_of(&self, tenant: &TenantName) -> Option<&TenantKeys> {
        (self.tenant == *tenant).then_some(self)
    }
}

impl Tenants for Tenant {
    fn keys_of(&self, tenant: &TenantName) -> Option<&TenantKeys> {
        self.keys.keys_of(tenant)
    }
}

impl<T: Tenants> Tenants for BTreeMap<TenantName, T> {
    fn keys_of(&self, tenant: &TenantName) -> Option<&TenantKeys> {
        self.get(tenant)?.keys_of(tenant)
    }
}

impl<T: Tenants> Tenants for std::sync::Arc<T> {
    fn keys_of(&self, tenant: &TenantName) -> Option<&TenantKeys> {
        self.as_ref().keys_of(tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::TenantKey;

    fn named(seed: u8, kid: &str) -> crate::jwk::Jwk {
        TenantKey::from_seed([seed; 32]).public().to_jwk().named(&kid.parse().unwrap())
    }

    #[test]
    fn keys_come_from_a_set_and_go_back_into_one() {
        let set = JwkSet { keys: vec![named(1, "a"), named(2, "b")] };

        let keys = TenantKeys::from_jwks("acme".parse().unwrap(), &set).unwrap();

        assert_eq!(keys.to_jwks(), set);
        assert_eq!(keys.keys_of(&"acme".parse().unwrap()), Some(&keys));
        assert_eq!(keys.keys_of(&"other".parse().unwrap()), None);
    }

    #[test]
    fn a_set_with_a_nameless_or_doubled_key_is_refused() {
        let read = |keys| TenantKeys::from_jwks("acme".parse().unwrap(), &JwkSet { keys });
        let nameless = TenantKey::from_seed([3; 32]).public().to_jwk();

        assert_eq!(read(vec![named(1, "a"), nameless]), Err(KeySetError::NoKid(2)));
        let twice = KeySetError::Twice(2, "a".parse().unwrap());
        assert_eq!(read(vec![named(1, "a"), named(2, "a")]), Err(twice));
        let many = (0..17).map(|n| named(n, &n.to_string())).collect();
        assert_eq!(read(many), Err(KeySetError::TooMany(17)));
    }
}
