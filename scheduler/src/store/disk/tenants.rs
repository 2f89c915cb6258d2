//! Tenants as bytes.

use overway_tenant::{Kid, Quota, TenantPublicKey};
use overway_wire::PolicyId;
use overway_wire::control::TenantQuota;
use prost::Message;

use super::super::{KeyRecord, RevokedKeyRecord, StoreError, TenantRecord, UnixSeconds};

#[derive(Clone, PartialEq, Message)]
struct TenantMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    policy: u32,
    #[prost(message, repeated, tag = "3")]
    keys: Vec<KeyMessage>,
    #[prost(message, repeated, tag = "4")]
    revoked_keys: Vec<KeyMessage>,
    #[prost(message, repeated, tag = "5")]
    revoked_tokens: Vec<RevokedTokenMessage>,
    #[prost(message, optional, tag = "6")]
    quota: Option<TenantQuota>,
    #[prost(uint64, tag = "7")]
    created: u64,
    #[prost(uint32, tag = "8")]
    backup: u32,
    #[prost(string, optional, tag = "9")]
    cell: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyMessage {
    #[prost(string, tag = "1")]
    kid: String,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    /// When it was added, or revoked.
    #[prost(uint64, tag = "3")]
    at: u64,
}

#[derive(Clone, PartialEq, Message)]
struct RevokedTokenMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint64, tag = "2")]
    at: u64,
}

pub(super) fn encode(tenant: &TenantRecord) -> Vec<u8> {
    let TenantRecord {
        name,
        policy,
        backup,
        cell,
        keys,
        revoked_keys,
        revoked_tokens,
        quota,
        created,
    } = tenant;
    let key = |kid: &Kid, key: &TenantPublicKey, at: UnixSeconds| KeyMessage {
        kid: kid.to_string(),
        key: key.0.to_vec(),
        at: at.0,
    };
    let message = TenantMessage {
        name: name.to_string(),
        policy: policy.0.into(),
        keys: keys.iter().map(|(kid, record)| key(kid, &record.key, record.added)).collect(),
        revoked_keys: revoked_keys.iter().map(|it| key(&it.kid, &it.key, it.at)).collect(),
        revoked_tokens: revoked_tokens
            .iter()
            .map(|(id, at)| RevokedTokenMessage { id: id.to_string(), at: at.0 })
            .collect(),
        quota: Some(quota.into()),
        created: created.0,
        backup: backup.0.into(),
        cell: cell.clone(),
    };
    message.encode_to_vec()
}

pub(super) fn decode(bytes: &[u8]) -> Result<TenantRecord, StoreError> {
    read(bytes).ok_or(StoreError::Unreadable("tenant"))
}

fn read(bytes: &[u8]) -> Option<TenantRecord> {
    let message = TenantMessage::decode(bytes).ok()?;
    let TenantMessage {
        name,
        policy,
        keys,
        revoked_keys,
        revoked_tokens,
        quota,
        created,
        backup,
        cell,
    } = message;
    let key = |key: KeyMessage| {
        let kid: Kid = key.kid.parse().ok()?;
        Some((kid, TenantPublicKey(key.key.try_into().ok()?), UnixSeconds(key.at)))
    };
    let added = |message| key(message).map(|(kid, key, added)| (kid, KeyRecord { key, added }));
    let revoked = |message| key(message).map(|(kid, key, at)| RevokedKeyRecord { kid, key, at });
    let token = |token: RevokedTokenMessage| Some((token.id.parse().ok()?, UnixSeconds(token.at)));
    Some(TenantRecord {
        name: name.parse().ok()?,
        policy: PolicyId(u16::try_from(policy).ok()?),
        backup: PolicyId(u16::try_from(backup).ok()?),
        cell,
        keys: keys.into_iter().map(added).collect::<Option<_>>()?,
        revoked_keys: revoked_keys.into_iter().map(revoked).collect::<Option<_>>()?,
        revoked_tokens: revoked_tokens.into_iter().map(token).collect::<Option<_>>()?,
        quota: quota.as_ref().map(Quota::from).unwrap_or_default(),
        created: UnixSeconds(created),
    })
}
