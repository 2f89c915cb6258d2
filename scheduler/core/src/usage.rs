//! What tenants' edges have sent in a month over all relays, and whether that is what they may.
//!
//! A relay reports what it has counted in the month so far, over restarts as far as its disk keeps it. So a report that is
//! lost, comes twice or finds another scheduler changes nothing; of a count that ended, what was reported last is kept and
//! added. What a relay counted while no scheduler heard it is lost only as far as it had not saved it when it was killed.
//!
//! Months are what relays say: the core knows no calendar. A tenant has sent what it may *in a month* if the sum of that
//! month says so, and a relay refuses while that is its own month; so a new month needs nobody's word.
//!
//! The caller keeps the counts and hands them in again at its start.

use std::collections::BTreeMap;

use overway_wire::control::{AccessUse, TenantUse};
use overway_wire::{PolicyId, RelayId};

/// Months that are kept of a tenant: clocks of relays differ at the turn of one.
const MONTHS_KEPT: u32 = 2;

/// What a tenant's edges use of one relay, as it last reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayUsage {
    /// The relay.
    pub relay: RelayId,
    /// Edges attached.
    pub attachments: u32,
    /// Flows open; counted only where there is a limit.
    pub flows: u32,
    /// The month whose bytes are counted: [`AccessUse::month`].
    pub month: u32,
    /// Which count `counted_bytes` is: [`AccessUse::boot`].
    pub boot: u32,
    /// Sent in the month by counts before that one.
    pub kept_bytes: u64,
    /// Sent in the month by that one.
    pub counted_bytes: u64,
}

/// What a tenant's edges use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantUsage {
    /// The last month of which something is known; 0: none.
    pub month: u32,
    /// Sent in it over all relays.
    pub sent_bytes: u64,
    /// Whether that is what the tenant may send.
    pub is_exhausted: bool,
    /// By relay.
    pub relays: Vec<RelayUsage>,
}

/// The counts, by tenant and relay: a few dozen bytes for each pair of which something was reported.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    counts: BTreeMap<PolicyId, BTreeMap<RelayId, RelayUsage>>,
}

impl RelayUsage {
    /// Bytes sent in the month over this relay.
    pub const fn sent_bytes(&self) -> u64 {
        self.kept_bytes.saturating_add(self.counted_bytes)
    }

    fn take(&mut self, used: &TenantUse, month: u32, boot: u32) {
        self.attachments = used.attachments;
        self.flows = used.flows;
        if month > self.month {
            (self.month, self.boot, self.kept_bytes, self.counted_bytes) =
                (month, boot, 0, used.sent_bytes);
        } else if month == self.month && boot != self.boot {
            self.kept_bytes = self.sent_bytes();
            (self.boot, self.counted_bytes) = (boot, used.sent_bytes);
        } else if month == self.month {
            self.counted_bytes = self.counted_bytes.max(used.sent_bytes);
        }
    }
}

impl Usage {
    /// Takes what a relay reports of the tenants that there are.
    pub(crate) fn take(
        &mut self,
        relay: RelayId,
        access: &AccessUse,
        is_tenant: impl Fn(PolicyId) -> bool,
    ) {
        for counts in self.counts.values_mut() {
            if let Some(count) = counts.get_mut(&relay) {
                (count.attachments, count.flows) = (0, 0);
            }
        }
        for used in &access.tenants {
            let Ok(number) = u16::try_from(used.tenant).map(PolicyId) else { continue };
            if is_tenant(number) {
                let counts = self.counts.entry(number).or_default();
                let new = RelayUsage { relay, ..RelayUsage::default() };
                counts.entry(relay).or_insert(new).take(used, access.month, access.boot);
                let last = counts.values().map(|count| count.month).max().unwrap_or_default();
                counts.retain(|_, count| count.month + MONTHS_KEPT > last || count.attachments > 0);
            }
        }
    }

    /// Puts what was kept of a tenant.
    pub(crate) fn restore(&mut self, number: PolicyId, kept: impl IntoIterator<Item = RelayUsage>) {
        let kept = kept.into_iter().map(|count| (count.relay, count));
        self.counts.insert(number, kept.collect());
    }

    pub(crate) fn forget(&mut self, number: PolicyId) {
        self.counts.remove(&number);
    }

    /// The last month in which a tenant has sent what it may; 0: none. `max` of 0 is no limit.
    pub(crate) fn exhausted(&self, number: PolicyId, max: u64) -> u32 {
        let months = self.months(number);
        let full = |&(_, sent): &(&u32, &u64)| max > 0 && *sent >= max;
        months.iter().rev().find(full).map_or(0, |(&month, _)| month)
    }

    /// What is known of a tenant.
    pub(crate) fn of(&self, number: PolicyId, max: u64) -> TenantUsage {
        let months = self.months(number);
        let (month, sent_bytes) = months.last_key_value().map_or((0, 0), |(&at, &sent)| (at, sent));
        let is_exhausted = month != 0 && self.exhausted(number, max) == month;
        let relays = self.counts.get(&number).into_iter().flat_map(BTreeMap::values);
        TenantUsage { month, sent_bytes, is_exhausted, relays: relays.copied().collect() }
    }

    /// Everything, to be kept.
    pub(crate) fn all(&self) -> impl Iterator<Item = (PolicyId, Vec<RelayUsage>)> {
        self.counts.iter().map(|(&number, counts)| (number, counts.values().copied().collect()))
    }

    fn months(&self, number: PolicyId) -> BTreeMap<u32, u64> {
        let mut months = BTreeMap::new();
        for count in self.counts.get(&number).into_iter().flat_map(BTreeMap::values) {
            let sum: &mut u64 = months.entry(count.month).or_default();
            *sum = sum.saturating_add(count.sent_bytes());
        }
        months
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: PolicyId = PolicyId(20);

    fn report(usage: &mut Usage, relay: u16, (boot, month): (u32, u32), sent_bytes: u64) {
        let used = TenantUse { tenant: 20, attachments: 1, flows: 2, sent_bytes };
        let stranger = TenantUse { tenant: 21, ..used };
        let tenants = vec![used, stranger];
        let access = AccessUse { attachments: 2, tenants, boot, month };
        usage.take(RelayId(relay), &access, |number| number == TENANT);
    }

    #[test]
    fn relays_and_processes_add_up_and_a_report_that_comes_again_changes_nothing() {
        let mut usage = Usage::default();
        report(&mut usage, 1, (7, 100), 300);
        report(&mut usage, 2, (8, 100), 50);
        report(&mut usage, 1, (7, 100), 300);
        assert_eq!(usage.of(TENANT, 0).sent_bytes, 350);
        assert_eq!(usage.exhausted(TENANT, 351), 0);

        report(&mut usage, 1, (9, 100), 1);
        let known = usage.of(TENANT, 351);
        assert_eq!((known.month, known.sent_bytes, known.is_exhausted), (100, 351, true));
        assert_eq!(known.relays[0].attachments, 1);
        assert_eq!(usage.exhausted(TENANT, 351), 100);
        assert_eq!(usage.exhausted(TENANT, 0), 0, "no limit");
        assert_eq!(usage.all().count(), 1, "of a tenant that is none nothing is kept");
    }

    #[test]
    fn a_new_month_begins_at_nothing_while_some_relays_are_still_in_the_last() {
        let mut usage = Usage::default();
        report(&mut usage, 1, (7, 100), 300);
        report(&mut usage, 2, (8, 101), 50);

        let known = usage.of(TENANT, 300);
        assert_eq!((known.month, known.sent_bytes, known.is_exhausted), (101, 50, false));
        assert_eq!(usage.exhausted(TENANT, 300), 100, "for relays that are still in that month");
        report(&mut usage, 1, (7, 101), 10);
        report(&mut usage, 1, (7, 100), 900);
        assert_eq!(usage.of(TENANT, 0).sent_bytes, 60, "a month does not come again");
    }

    #[test]
    fn what_was_kept_counts_after_a_restart() {
        let mut usage = Usage::default();
        report(&mut usage, 1, (7, 100), 300);
        let mut again = Usage::default();
        for (number, kept) in usage.all() {
            again.restore(number, kept);
        }

        report(&mut again, 1, (7, 100), 310);
        assert_eq!(again.of(TENANT, 0).sent_bytes, 310);
        report(&mut again, 1, (8, 100), 5);
        assert_eq!(again.of(TENANT, 0).sent_bytes, 315);
        again.forget(TENANT);
        assert_eq!(again.of(TENANT, 0), TenantUsage::default());
    }
}
