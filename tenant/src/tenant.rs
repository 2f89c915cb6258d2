//! What relays and edges know of a tenant.

use std::collections::{BTreeMap, BTreeSet};

use overway_wire::control::{
    self, TENANT_KEYS_MAX, TENANT_REVOKED_KEYS_MAX, TENANT_REVOKED_TOKENS_MAX,
};
use overway_wire::{Class, PolicyId};

use crate::jwk::{JwkError, JwkSet};
use crate::key::TenantPublicKey;
use crate::month::Month;
use crate::name::{Kid, NameError, TenantName, TokenId};

/// Keys of a tenant at once; see [`TENANT_KEYS_MAX`].
pub const KEYS_MAX: usize = TENANT_KEYS_MAX;
/// Revoked keys that are remembered; see [`TENANT_REVOKED_KEYS_MAX`].
pub const REVOKED_KIDS_MAX: usize = TENANT_REVOKED_KEYS_MAX;
/// Revoked tokens of a tenant; see [`TENANT_REVOKED_TOKENS_MAX`].
pub const REVOKED_TOKENS_MAX: usize = TENANT_REVOKED_TOKENS_MAX;

/// Bytes of the longest name of a cell.
pub const CELL_BYTES_MAX: usize = 63;

/// A tenant as relays know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The policy number that frames of its edges carry; never 0, never given again.
    pub number: PolicyId,
    /// The policy whose routes they take; 0: those of everybody.
    pub route_policy: PolicyId,
    /// The policy whose routes they take where those lead nowhere; 0: there is none.
    pub backup_policy: PolicyId,
    /// The name of the cell that its edges and their traffic stay in, at most [`CELL_BYTES_MAX`]; empty: none.
    pub cell: String,
    /// Its name and keys.
    pub keys: TenantKeys,
    /// What its edges may use together.
    pub quota: Quota,
    /// The month in which they have sent what they may, if there is one.
    pub exhausted: Option<Month>,
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

/// What a tenant's edges may use together. `None`: no limit; a limit of 0 cannot be pushed, and is none.
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

/// Why a pushed tenant is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushedTenantError {
    /// A number that frames cannot carry.
    #[error("{0} is no number of a tenant or a policy")]
    Number(u32),
    /// A name of the wrong form.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A key of the wrong length.
    #[error("the key \"{0}\" is not of 32 bytes")]
    Key(Kid),
    /// More of something than there can be.
    #[error("there are {0} of something of which there can be fewer")]
    TooMany(usize),
    /// A cell's name that is too long.
    #[error("the name of its cell has {0} bytes; {CELL_BYTES_MAX} is the most")]
    Cell(usize),
}

impl Tenant {
    /// Its name.
    pub const fn name(&self) -> &TenantName {
        &self.keys.tenant
    }
}

impl TryFrom<&control::Tenant> for Tenant {
    type Error = PushedTenantError;

    fn try_from(pushed: &control::Tenant) -> Result<Self, PushedTenantError> {
        let control::Tenant {
            number,
            name,
            route_policy,
            keys,
            revoked_keys,
            revoked_tokens,
            quota,
            backup_policy,
            cell,
            exhausted_month,
        } = pushed;
        bounded(keys, KEYS_MAX)?;
        bounded(revoked_keys, REVOKED_KIDS_MAX)?;
        bounded(revoked_tokens, REVOKED_TOKENS_MAX)?;
        let id =
            |id: u32| u16::try_from(id).map(PolicyId).map_err(|_| PushedTenantError::Number(id));
        if *number == 0 {
            return Err(PushedTenantError::Number(0));
        }
        let key = |pushed: &control::TenantKey| {
            let kid: Kid = pushed.kid.parse()?;
            match pushed.key.as_slice().try_into() {
                Ok(key) => Ok((kid, TenantPublicKey(key))),
                Err(_) => Err(PushedTenantError::Key(kid)),
            }
        };
        let keys = TenantKeys {
            tenant: name.parse()?,
            keys: keys.iter().map(key).collect::<Result<_, _>>()?,
            revoked_kids: revoked_keys.iter().map(|kid| kid.parse()).collect::<Result<_, _>>()?,
            revoked_tokens: revoked_tokens.iter().map(|id| id.parse()).collect::<Result<_, _>>()?,
        };
        let quota = quota.as_ref().map(Quota::from).unwrap_or_default();
        if cell.len() > CELL_BYTES_MAX {
            return Err(PushedTenantError::Cell(cell.len()));
        }
        let exhausted = (*exhausted_month != 0).then(|| Month::from_number(*exhausted_month));
        Ok(Self {
            number: id(*number)?,
            route_policy: id(*route_policy)?,
            backup_policy: id(*backup_policy)?,
            cell: cell.clone(),
            keys,
            quota,
            exhausted,
        })
    }
}

impl From<&Tenant> for control::Tenant {
    fn from(tenant: &Tenant) -> Self {
        let Tenant { number, route_policy, backup_policy, cell, keys, quota, exhausted } = tenant;
        let key = |(kid, key): (&Kid, &TenantPublicKey)| control::TenantKey {
            kid: kid.to_string(),
            key: key.0.to_vec(),
        };
        Self {
            number: number.0.into(),
            name: keys.tenant.to_string(),
            route_policy: route_policy.0.into(),
            keys: keys.keys.iter().map(key).collect(),
            revoked_keys: keys.revoked_kids.iter().map(Kid::to_string).collect(),
            revoked_tokens: keys.revoked_tokens.iter().map(TokenId::to_string).collect(),
            quota: (*quota != Quota::default()).then(|| quota.into()),
            backup_policy: backup_policy.0.into(),
            cell: cell.clone(),
            exhausted_month: exhausted.map_or(0, Month::number),
        }
    }
}

fn bounded<T>(list: &[T], max: usize) -> Result<(), PushedTenantError> {
    if list.len() > max { Err(PushedTenantError::TooMany(list.len())) } else { Ok(()) }
}

impl From<&control::TenantQuota> for Quota {
    fn from(pushed: &control::TenantQuota) -> Self {
        let control::TenantQuota {
            attachments,
            flows,
            realtime_bps,
            interactive_bps,
            bulk_bps,
            bytes_per_month,
        } = *pushed;
        let limit = |limit: u64| Some(limit).filter(|&limit| limit != 0);
        let count = |count: u32| Some(count).filter(|&count| count != 0);
        Self {
            attachments: count(attachments),
            flows: count(flows),
            bps: [limit(realtime_bps), limit(interactive_bps), limit(bulk_bps)],
            bytes_per_month: limit(bytes_per_month),
        }
    }
}

impl From<&Quota> for control::TenantQuota {
    fn from(quota: &Quota) -> Self {
        let Quota { attachments, flows, bps, bytes_per_month } = *quota;
        let bps = bps.map(Option::unwrap_or_default);
        Self {
            attachments: attachments.unwrap_or_default(),
            flows: flows.unwrap_or_default(),
            realtime_bps: bps[0],
            interactive_bps: bps[1],
            bulk_bps: bps[2],
            bytes_per_month: bytes_per_month.unwrap_or_default(),
        }
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
    fn a_tenant_is_pushed_and_read_back() {
        let set = JwkSet { keys: vec![named(1, "a")] };
        let keys = TenantKeys {
            revoked_kids: BTreeSet::from(["old".parse().unwrap()]),
            revoked_tokens: BTreeSet::from(["t1".parse().unwrap(), "t2".parse().unwrap()]),
            ..TenantKeys::from_jwks("acme".parse().unwrap(), &set).unwrap()
        };
        let quota = Quota { bps: [None, Some(7), None], flows: Some(3), ..Quota::default() };
        let tenant = Tenant {
            number: PolicyId(20),
            route_policy: PolicyId(9),
            backup_policy: PolicyId(10),
            cell: "eu".into(),
            keys,
            quota,
            exhausted: Some("2026-11".parse().unwrap()),
        };

        let pushed = control::Tenant::from(&tenant);

        assert_eq!(Tenant::try_from(&pushed), Ok(tenant.clone()));
        let refused = |change: fn(&mut control::Tenant)| {
            let mut pushed = pushed.clone();
            change(&mut pushed);
            Tenant::try_from(&pushed).unwrap_err()
        };
        assert_eq!(refused(|it| it.number = 0), PushedTenantError::Number(0));
        assert_eq!(refused(|it| it.route_policy = 65_536), PushedTenantError::Number(65_536));
        assert_eq!(refused(|it| it.name.clear()), PushedTenantError::Name(NameError::Tenant));
        let short = refused(|it| it.keys[0].key.truncate(31));
        assert_eq!(short, PushedTenantError::Key("a".parse().unwrap()));
        assert_eq!(refused(|it| it.backup_policy = 65_536), PushedTenantError::Number(65_536));
        assert_eq!(refused(|it| it.cell = "x".repeat(64)), PushedTenantError::Cell(64));
        let many = refused(|it| it.revoked_tokens = vec!["t".to_owned(); 1_025]);
        assert_eq!(many, PushedTenantError::TooMany(1_025));
        let free = Tenant { quota: Quota::default(), ..tenant };
        assert_eq!(control::Tenant::from(&free).quota, None);
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
