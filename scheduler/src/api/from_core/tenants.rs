//! Tenants.

use overway_scheduler_core::{RelayUsage, TenantUsage};
use overway_tenant::{Month, Quota};
use overway_wire::PolicyId;

use super::{Names, name};
use crate::api::{
    QuotaBody, RelayUsageBody, RevokedKeyBody, RevokedTokenBody, TenantBody, TenantKeyBody,
    TenantUsageBody,
};
use crate::store::{TenantRecord, Wishes};

impl TenantBody {
    /// Makes the bodies of all tenants.
    pub(crate) fn all(wishes: &Wishes) -> Vec<Self> {
        let tenants = wishes.tenants.iter();
        tenants.map(|(&number, record)| Self::new(number, record, wishes)).collect()
    }

    /// Makes the body of a tenant.
    pub(crate) fn new(number: PolicyId, record: &TenantRecord, wishes: &Wishes) -> Self {
        let TenantRecord {
            name,
            policy,
            // Follows from the cell.
            backup: _,
            cell,
            keys,
            revoked_keys,
            revoked_tokens,
            quota,
            created,
        } = record;
        let keys = keys.iter().map(|(kid, record)| TenantKeyBody {
            key: record.key.to_jwk().named(kid),
            added_unix: record.added.0,
        });
        let revoked_keys = revoked_keys
            .iter()
            .map(|it| RevokedKeyBody { kid: it.kid.to_string(), revoked_unix: it.at.0 });
        let revoked_tokens = revoked_tokens
            .iter()
            .map(|(id, at)| RevokedTokenBody { jti: id.to_string(), revoked_unix: at.0 });
        Self {
            name: name.to_string(),
            number: number.0,
            policy: wishes.policies.get(policy).map(|policy| policy.name.clone()),
            cell: cell.clone(),
            quota: QuotaBody::from(*quota),
            keys: keys.collect(),
            revoked_keys: revoked_keys.collect(),
            revoked_tokens: revoked_tokens.collect(),
            created_unix: created.0,
            usage: None,
        }
    }
}

impl TenantUsageBody {
    /// Makes the body of a tenant's usage.
    pub(crate) fn new(usage: &TenantUsage, names: &Names) -> Self {
        let TenantUsage { month, sent_bytes, is_exhausted, relays } = usage;
        let relay = |usage: &RelayUsage| RelayUsageBody {
            relay: name(names, usage.relay),
            attachments: usage.attachments,
            flows: usage.flows,
            sent_bytes: if usage.month == *month { usage.sent_bytes() } else { 0 },
        };
        Self {
            month: (*month != 0).then(|| Month::from_number(*month).to_string()),
            sent_bytes: *sent_bytes,
            exhausted: *is_exhausted,
            relays: relays.iter().map(relay).collect(),
        }
    }
}

impl From<Quota> for QuotaBody {
    fn from(quota: Quota) -> Self {
        let Quota { attachments, flows, bps, bytes_per_month } = quota;
        let [realtime_bps, interactive_bps, bulk_bps] = bps;
        Self { attachments, flows, realtime_bps, interactive_bps, bulk_bps, bytes_per_month }
    }
}

impl From<QuotaBody> for Quota {
    fn from(body: QuotaBody) -> Self {
        let QuotaBody {
            attachments,
            flows,
            realtime_bps,
            interactive_bps,
            bulk_bps,
            bytes_per_month,
        } = body;
        let bps = [realtime_bps, interactive_bps, bulk_bps];
        Self { attachments, flows, bps, bytes_per_month }
    }
}
