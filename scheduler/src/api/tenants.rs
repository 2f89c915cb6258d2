//! Tenants: their keys, what is revoked, their quotas.

use overway_tenant::Jwk;
use serde::{Deserialize, Serialize};

/// `POST /v1/tenants`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantRequest {
    /// Its name: a-z, 0-9 and hyphen.
    pub name: String,
    /// The policy whose routes its frames take; those of everybody if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The cell that its edges, traffic and records stay in, instead of a policy; none if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<String>,
    /// What its edges may use together; whatever they like if not given.
    #[serde(default)]
    pub quota: QuotaBody,
}

/// `PUT /v1/tenants/{name}/policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantPolicyRequest {
    /// The policy whose routes its frames take; `null`: those of everybody.
    pub policy: Option<String>,
}

/// `PUT /v1/tenants/{name}/cell`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantCellRequest {
    /// The cell that its edges, traffic and records stay in; `null`: none.
    pub cell: Option<String>,
}

/// `PUT /v1/tenants/{name}/quota`, and in [`TenantBody`]: what a tenant's edges may use together. What is `null` or
/// not given has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaBody {
    /// Edges attached at one relay at once.
    pub attachments: Option<u32>,
    /// Flows that they have open at one relay at once.
    pub flows: Option<u32>,
    /// Bits per second that they send at one relay in realtime.
    pub realtime_bps: Option<u64>,
    /// The same, interactive.
    pub interactive_bps: Option<u64>,
    /// The same, bulk.
    pub bulk_bps: Option<u64>,
    /// Bytes that they send in a calendar month (UTC), in the whole mesh.
    pub bytes_per_month: Option<u64>,
}

/// `POST /v1/tenants/{name}/keys`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// The public key as a JSON Web Key (RFC 7517, RFC 8037), with its `kid`.
    pub key: Jwk,
    /// The `kid` of a key that is revoked in the same moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

/// `POST /v1/tenants/{name}/revoked-keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedKeyRequest {
    /// The key's name.
    pub kid: String,
}

/// `POST /v1/tenants/{name}/revoked-tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedTokenRequest {
    /// The token's name.
    pub jti: String,
}

/// `GET /v1/tenants`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TenantsBody {
    /// By number.
    pub tenants: Vec<TenantBody>,
}

/// A tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TenantBody {
    /// Its name.
    pub name: String,
    /// Its number, which its frames carry; never given again.
    pub number: u16,
    /// The policy whose routes its frames take; `null`: those of everybody.
    pub policy: Option<String>,
    /// The cell that its edges, traffic and records stay in; `null`: none.
    #[serde(default)]
    pub cell: Option<String>,
    /// What its edges may use together.
    pub quota: QuotaBody,
    /// The keys whose tokens count, by name.
    pub keys: Vec<TenantKeyBody>,
    /// Keys that count no more, the first revoked first.
    pub revoked_keys: Vec<RevokedKeyBody>,
    /// Tokens that count no more, by name.
    pub revoked_tokens: Vec<RevokedTokenBody>,
    /// When it was made, in Unix seconds.
    pub created_unix: u64,
    /// What its edges use; only where one tenant is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TenantUsageBody>,
}

/// What a tenant's edges use, as relays last reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantUsageBody {
    /// The month (UTC) whose bytes are counted, such as `2026-01`; `null` if nothing is known.
    pub month: Option<String>,
    /// Bytes sent in it, in the whole mesh.
    pub sent_bytes: u64,
    /// Whether that is what the tenant may send in a month, so that relays refuse more.
    pub exhausted: bool,
    /// By relay, in order of id.
    pub relays: Vec<RelayUsageBody>,
}

/// What a tenant's edges use of one relay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayUsageBody {
    /// The relay's name.
    pub relay: String,
    /// Edges attached now.
    pub attachments: u32,
    /// Flows open now; counted only where there is a limit.
    pub flows: u32,
    /// Bytes sent there in its month.
    pub sent_bytes: u64,
}

/// A key of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TenantKeyBody {
    /// The key, with its `kid`.
    pub key: Jwk,
    /// When it was added, in Unix seconds.
    pub added_unix: u64,
}

/// A key that counts no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedKeyBody {
    /// Its name.
    pub kid: String,
    /// When it was revoked, in Unix seconds.
    pub revoked_unix: u64,
}

/// A token that counts no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedTokenBody {
    /// Its name.
    pub jti: String,
    /// When it was revoked, in Unix seconds.
    pub revoked_unix: u64,
}
