//! A tenant, as it is pushed to relays. The crate `overway-tenant` says what it means and reads it strictly.

use prost::Message;

/// Keys of a tenant at once: an old and a new one for each of a few backends.
pub const TENANT_KEYS_MAX: usize = 16;
/// Revoked keys that are remembered, for a clear message; a key that is forgotten is unknown, and refused as well.
pub const TENANT_REVOKED_KEYS_MAX: usize = 64;
/// Revoked tokens of a tenant. One is forgotten when it would have ended; where there are more, a key was lost, and
/// revoking that revokes all of its tokens.
pub const TENANT_REVOKED_TOKENS_MAX: usize = 1_024;

/// A tenant: an application whose edges use the mesh.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Tenant {
    /// Its number, which frames of its edges carry as their policy. From the same numbers as policies' own; never 0.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The policy whose routes its frames take; 0: those of everybody.
    #[prost(uint32, tag = "3")]
    pub route_policy: u32,
    /// The keys whose tokens count, by `kid`; at most [`TENANT_KEYS_MAX`].
    #[prost(message, repeated, tag = "4")]
    pub keys: Vec<TenantKey>,
    /// Names of keys that count no more; at most [`TENANT_REVOKED_KEYS_MAX`].
    #[prost(string, repeated, tag = "5")]
    pub revoked_keys: Vec<String>,
    /// `jti`s of tokens that count no more; at most [`TENANT_REVOKED_TOKENS_MAX`].
    #[prost(string, repeated, tag = "6")]
    pub revoked_tokens: Vec<String>,
    /// What its edges may use together. Absent: whatever they like.
    #[prost(message, optional, tag = "7")]
    pub quota: Option<TenantQuota>,
    /// The policy whose routes its frames take where those of `route_policy` lead nowhere: that of its cell together with
    /// the cell's partners. 0: there is none.
    #[prost(uint32, tag = "8")]
    pub backup_policy: u32,
    /// The name of its cell, for people. Not empty: its edges attach at relays of `route_policy` alone, or of
    /// `backup_policy` where none of those is reached.
    #[prost(string, tag = "9")]
    pub cell: String,
    /// The calendar month (UTC), as [`super::AccessUse::month`], in which its edges have sent what they may; 0: none.
    #[prost(uint32, tag = "10")]
    pub exhausted_month: u32,
}

/// A public key of a tenant.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TenantKey {
    /// Its name.
    #[prost(string, tag = "1")]
    pub kid: String,
    /// The 32 bytes of an Ed25519 key (RFC 8032).
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
}

/// What a tenant's edges may use together; 0: no limit.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct TenantQuota {
    /// Edges attached at one relay at once.
    #[prost(uint32, tag = "1")]
    pub attachments: u32,
    /// Flows that they have open at one relay at once.
    #[prost(uint32, tag = "2")]
    pub flows: u32,
    /// Bits per second that they send at one relay in realtime.
    #[prost(uint64, tag = "3")]
    pub realtime_bps: u64,
    /// The same, interactive.
    #[prost(uint64, tag = "4")]
    pub interactive_bps: u64,
    /// The same, bulk.
    #[prost(uint64, tag = "5")]
    pub bulk_bps: u64,
    /// Bytes that they send in a calendar month (UTC), in the whole mesh.
    #[prost(uint64, tag = "6")]
    pub bytes_per_month: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Item, Sort};

    #[test]
    fn a_tenant_has_these_bytes() {
        let quota = TenantQuota {
            attachments: 1,
            flows: 2,
            realtime_bps: 3,
            interactive_bps: 4,
            bulk_bps: 5,
            bytes_per_month: 6,
        };
        let tenant = Tenant {
            number: 300,
            name: "im".into(),
            route_policy: 9,
            keys: vec![TenantKey { kid: "k".into(), key: vec![7, 8] }],
            revoked_keys: vec!["o".into()],
            revoked_tokens: vec!["t".into()],
            quota: Some(quota),
            backup_policy: 5,
            cell: "eu".into(),
            exhausted_month: 11,
        };
        let item = Item::from(tenant);

        let key = item.key().unwrap();
        assert_eq!((key.sort(), key.relay, key.part), (Sort::Tenant, 300, 0));
        let parts: [&[u8]; 7] = [
            &[0x3a, 46, 0x08, 0xac, 2, 0x12, 2, b'i', b'm', 0x18, 9],
            &[0x22, 7, 0x0a, 1, b'k', 0x12, 2, 7, 8],
            &[0x2a, 1, b'o'],
            &[0x32, 1, b't'],
            &[0x3a, 12],
            &[0x08, 1, 0x10, 2, 0x18, 3, 0x20, 4, 0x28, 5, 0x30, 6],
            &[0x40, 5, 0x4a, 2, b'e', b'u', 0x50, 11],
        ];
        assert_eq!(item.encode_to_vec(), parts.concat());
    }
}
