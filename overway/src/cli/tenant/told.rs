//! Tenants as text.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use overway_scheduler::api::{QuotaBody, RelayUsageBody, TenantBody, TenantUsageBody};

use crate::cli::text::{Table, count, duration, rate};

/// A new tenant, and what it needs next.
pub(super) fn added(tenant: &TenantBody) -> String {
    let TenantBody { name, number, .. } = tenant;
    format!(
        "tenant {name} ({number}) takes {}; {}\nnext:\n  overway tenant keygen --kid KID --out {name}.key\n  \
         overway tenant key add {name} --key {name}.jwks.json\n",
        routes(tenant),
        quota(&tenant.quota)
    )
}

/// One line for each tenant.
pub(super) fn table(tenants: &[TenantBody]) -> String {
    if tenants.is_empty() {
        return "no tenants: nobody attaches; add one with `overway tenant add NAME`\n".to_owned();
    }
    let mut table = Table::new(&["TENANT", "NUMBER", "POLICY", "KEYS", "QUOTA"]);
    for tenant in tenants {
        table.row([
            tenant.name.clone(),
            tenant.number.to_string(),
            tenant.policy.clone().unwrap_or_else(|| "-".to_owned()),
            tenant.keys.len().to_string(),
            quota(&tenant.quota),
        ]);
    }
    table.render()
}

/// Everything about a tenant.
pub(super) fn whole(tenant: &TenantBody) -> String {
    let mut text = format!(
        "tenant {} ({}), made {} ago\ntakes {}\n{}\n",
        tenant.name,
        tenant.number,
        ago(tenant.created_unix),
        routes(tenant),
        quota(&tenant.quota)
    );
    if let Some(used) = &tenant.usage {
        text.push_str(&usage(used, &tenant.quota));
    }
    text.push_str(&keys(tenant));
    for token in &tenant.revoked_tokens {
        let _ = writeln!(text, "revoked token {}, {} ago", token.jti, ago(token.revoked_unix));
    }
    text
}

/// What its edges use, beside what they may.
fn usage(usage: &TenantUsageBody, quota: &QuotaBody) -> String {
    let TenantUsageBody { month, sent_bytes, exhausted, relays } = usage;
    let Some(month) = month else { return "no relay has reported any use\n".to_owned() };
    let of = |limit: Option<u64>| limit.map_or(String::new(), |limit| format!(" of {limit}"));
    let refused = if *exhausted { ": used up, relays refuse more" } else { "" };
    let mut text =
        format!("sent {sent_bytes}{} bytes in {month}{refused}\n", of(quota.bytes_per_month));
    let mut table = Table::new(&["RELAY", "ATTACHMENTS", "FLOWS", "BYTES"]);
    for RelayUsageBody { relay, attachments, flows, sent_bytes } in relays {
        let flows = match quota.flows {
            Some(max) => format!("{flows} of {max}"),
            None => "-".to_owned(),
        };
        let attachments = format!("{attachments}{}", of(quota.attachments.map(u64::from)));
        table.row([relay.clone(), attachments, flows, sent_bytes.to_string()]);
    }
    text.push_str(&table.render());
    text
}

/// A tenant's keys.
pub(super) fn keys(tenant: &TenantBody) -> String {
    let mut text = match tenant.keys.len() {
        0 => format!("{} has no key: none of its tokens counts\n", tenant.name),
        keys => format!("{} has {}\n", tenant.name, count(keys as u64, "key")),
    };
    for held in &tenant.keys {
        let kid = held.key.kid.as_deref().unwrap_or("-");
        let _ = writeln!(text, "key {kid}, added {} ago", ago(held.added_unix));
    }
    for revoked in &tenant.revoked_keys {
        let _ = writeln!(text, "revoked key {}, {} ago", revoked.kid, ago(revoked.revoked_unix));
    }
    text
}

/// Whose routes a tenant takes.
pub(super) fn routes(tenant: &TenantBody) -> String {
    match &tenant.policy {
        Some(_) if let Some(cell) = &tenant.cell => format!("the routes of cell {cell}"),
        Some(policy) => format!("the routes of policy {policy}"),
        None => "everybody's routes".to_owned(),
    }
}

/// What is limited.
pub(super) fn quota(quota: &QuotaBody) -> String {
    let QuotaBody { attachments, flows, realtime_bps, interactive_bps, bulk_bps, bytes_per_month } =
        quota;
    let counted = |limit: &Option<u32>, noun| limit.map(|limit| count(limit.into(), noun));
    let rated = |limit: &Option<u64>, class| limit.map(|bps| format!("{} {class}", rate(bps)));
    let limits = [
        counted(attachments, "attachment"),
        counted(flows, "flow"),
        rated(realtime_bps, "realtime"),
        rated(interactive_bps, "interactive"),
        rated(bulk_bps, "bulk"),
        bytes_per_month.map(|bytes| format!("{} a month", count(bytes, "byte"))),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    if limits.is_empty() { "no quota".to_owned() } else { format!("at most {}", limits.join(", ")) }
}

fn ago(unix: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    duration(Duration::from_secs(now.as_secs().saturating_sub(unix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_tells_its_limits_alone() {
        let none = QuotaBody::default();
        let some = QuotaBody { flows: Some(1), bulk_bps: Some(5_000_000), ..none };

        assert_eq!(quota(&none), "no quota");
        assert_eq!(quota(&some), "at most 1 flow, 5 Mbit/s bulk");
    }

    #[test]
    fn usage_is_told_beside_the_quota() {
        let relay =
            RelayUsageBody { relay: "oslo".into(), attachments: 2, flows: 7, sent_bytes: 900 };
        let used = TenantUsageBody {
            month: Some("2026-11".into()),
            sent_bytes: 1_000,
            exhausted: true,
            relays: vec![relay],
        };
        let quota = QuotaBody {
            attachments: Some(5),
            bytes_per_month: Some(1_000),
            ..QuotaBody::default()
        };

        let text = usage(&used, &quota);

        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "sent 1000 of 1000 bytes in 2026-11: used up, relays refuse more");
        let row: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(row, ["oslo", "2", "of", "5", "-", "900"]);
        assert!(usage(&TenantUsageBody::default(), &quota).contains("no relay has reported"));
    }

    #[test]
    fn a_tenant_without_keys_or_policy_says_so() {
        let tenant = TenantBody { name: "im".into(), number: 7, ..TenantBody::default() };

        let text = added(&tenant);

        assert!(text.starts_with("tenant im (7) takes everybody's routes; no quota\n"), "{text}");
        assert!(keys(&tenant).contains("none of its tokens counts"));
        assert!(table(&[]).contains("overway tenant add"));
    }
}
