//! What a tenant's edges may use together at this relay: flows, bytes per second in each class, bytes in a month.
//!
//! A frame must pass all three. Bytes per second are a token bucket for each class. Flows are counted as [`flows`] says.
//! Of the month's bytes a relay knows its own alone; the scheduler adds those of all relays and says when they are used
//! up, and what it said last counts while none answers. A relay over which a tenant has sent all of them by itself needs
//! nobody's word. What was counted is kept on disk ([`super::kept`]), and a relay that starts anew goes on from there. Months are those of UTC, and a new one begins at nothing.

mod flows;

use std::fmt;
use std::time::{Duration, Instant};

use overway_tenant::{Month, Quota};
use overway_wire::access::messages::QuotaLimit;
use overway_wire::{AttachmentId, Class};

use super::admission::Admitted;
use super::stats::AccessDrop;

pub(crate) use flows::FlowName;
use flows::Flows;

/// What may be saved up: a quarter of a second at the full rate,
const BURST: Duration = Duration::from_millis(250);
/// and at least this much, some fifty frames, so that a slow rate can still send an answer at once.
const BURST_BYTES_MIN: u64 = 64 << 10;

/// A limit that a frame is beyond, with what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// Of flows.
    Flows(u32),
    /// Of bits per second in a class.
    Rate(Class, u64),
    /// Of bytes in a month.
    Month(Option<u64>),
}

impl Beyond {
    pub(crate) const fn limit(self) -> QuotaLimit {
        match self {
            Self::Flows(_) => QuotaLimit::Flows,
            Self::Rate(..) => QuotaLimit::Rate,
            Self::Month(_) => QuotaLimit::Month,
        }
    }

    pub(crate) const fn drop_reason(self) -> AccessDrop {
        match self {
            Self::Flows(_) => AccessDrop::QuotaFlows,
            Self::Rate(..) => AccessDrop::QuotaRate,
            Self::Month(_) => AccessDrop::QuotaMonth,
        }
    }
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flows(max) => {
                write!(
                    f,
                    "quota of flows: the tenant has {max} open at this relay, as many as it may"
                )
            }
            Self::Rate(class, bps) => write!(
                f,
                "quota of {class} bits per second: the tenant sends more than {bps} at this relay"
            ),
            Self::Month(Some(bytes)) => write!(
                f,
                "quota of bytes per month: the tenant has sent {bytes} in this one (UTC), as many as it may"
            ),
            Self::Month(None) => f.write_str(
                "quota of bytes per month: the tenant has sent what it may in this one (UTC)",
            ),
        }
    }
}

/// What a tenant's edges may use at this relay, and what they have used of it.
#[derive(Debug)]
pub(crate) struct Allowance {
    quota: Quota,
    buckets: Buckets,
    flows: Flows,
    month: Month,
    /// In this month.
    sent_bytes: u64,
    /// As the scheduler says.
    exhausted: Option<Month>,
}

impl Allowance {
    pub(crate) fn new(admitted: &Admitted, month: Month, now: Instant) -> Self {
        let &Admitted { quota, exhausted, .. } = admitted;
        let buckets = Buckets::new(quota, now);
        Self { quota, buckets, flows: Flows::default(), month, sent_bytes: 0, exhausted }
    }

    /// That of a tenant of which only is known what it has sent in a month.
    pub(crate) fn counted(month: Month, sent_bytes: u64, now: Instant) -> Self {
        let quota = Quota::default();
        let (buckets, flows) = (Buckets::new(quota, now), Flows::default());
        Self { quota, buckets, flows, month, sent_bytes, exhausted: None }
    }

    /// Takes what may have changed.
    pub(crate) fn follow(&mut self, admitted: &Admitted, now: Instant) {
        self.quota = admitted.quota;
        self.exhausted = admitted.exhausted;
        self.buckets.follow(admitted.quota, now);
    }

    /// Which month it is; a new one begins at nothing.
    pub(crate) fn set_month(&mut self, month: Month) {
        if month != self.month {
            self.month = month;
            self.sent_bytes = 0;
        }
    }

    /// Whether a frame of so many bytes may go; if so it is counted.
    pub(crate) fn pass(
        &mut self,
        flow: FlowName,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Beyond> {
        let max = self.quota.bytes_per_month;
        let is_used_up = max.is_some_and(|max| self.sent_bytes >= max);
        if is_used_up || self.exhausted == Some(self.month) {
            return Err(Beyond::Month(max));
        }
        if let Some(max) = self.quota.flows
            && !self.flows.note(flow, max, now)
        {
            return Err(Beyond::Flows(max));
        }
        if !self.buckets.take(flow.class, bytes, now) {
            let bps = self.quota.bps_in(flow.class).unwrap_or_default();
            return Err(Beyond::Rate(flow.class, bps));
        }
        self.sent_bytes = self.sent_bytes.saturating_add(bytes as u64);
        Ok(())
    }

    /// An attachment has ended, and its flows with it.
    pub(crate) fn forget(&mut self, attachment: AttachmentId) {
        self.flows.forget(attachment);
    }

    /// Flows open now, as far as they are counted.
    pub(crate) fn flows(&mut self, now: Instant) -> u32 {
        if self.quota.flows.is_none() {
            self.flows.clear();
        }
        self.flows.count(now)
    }

    /// Bytes sent in this month.
    pub(crate) const fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }
}

/// A tenant's buckets. A frame takes its bytes from its class's, or does not go.
#[derive(Debug)]
struct Buckets {
    quota: Quota,
    buckets: [Option<Bucket>; Class::ALL.len()],
}

/// Fills at a rate up to a burst.
#[derive(Debug)]
struct Bucket {
    bytes_per_second: u64,
    burst: u64,
    level: u64,
    filled: Instant,
}

impl Buckets {
    fn new(quota: Quota, now: Instant) -> Self {
        let bucket = |class| quota.bps_in(class).map(|bps| Bucket::new(bps / 8, now));
        Self { quota, buckets: Class::ALL.map(bucket) }
    }

    /// Takes a quota that may have changed; buckets of one that has start full.
    fn follow(&mut self, quota: Quota, now: Instant) {
        if quota != self.quota {
            *self = Self::new(quota, now);
        }
    }

    /// Whether a frame of so many bytes may go.
    fn take(&mut self, class: Class, bytes: usize, now: Instant) -> bool {
        self.buckets[usize::from(class.code())]
            .as_mut()
            .is_none_or(|bucket| bucket.take(bytes as u64, now))
    }
}

impl Bucket {
    fn new(bytes_per_second: u64, now: Instant) -> Self {
        let saved = u128::from(bytes_per_second) * BURST.as_millis() / 1_000;
        let burst = u64::try_from(saved).unwrap_or(u64::MAX).max(BURST_BYTES_MIN);
        Self { bytes_per_second, burst, level: burst, filled: now }
    }

    fn take(&mut self, bytes: u64, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled);
        let grown = elapsed.as_nanos() * u128::from(self.bytes_per_second) / 1_000_000_000;
        // Less than a byte is not lost: it waits for more.
        if grown > 0 {
            let grown = u64::try_from(grown).unwrap_or(u64::MAX);
            self.level = self.level.saturating_add(grown).min(self.burst);
            self.filled = now;
        }
        let enough = self.level >= bytes;
        if enough {
            self.level -= bytes;
        }
        enough
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use overway_wire::{FlowId, FrameKind};

    use super::*;
    use crate::access::registry::tests::admitted;

    pub(crate) fn flow(attachment: u16, class: Class, flow: u32) -> FlowName {
        let attachment = AttachmentId(attachment);
        FlowName { attachment, kind: FrameKind::Session, class, flow: FlowId(flow) }
    }

    fn month(text: &str) -> Month {
        text.parse().unwrap()
    }

    #[test]
    fn a_new_flow_beyond_the_quota_is_refused_and_those_that_are_open_go_on() {
        let start = Instant::now();
        let mut admitted = admitted(1, 1, None);
        admitted.quota.flows = Some(2);
        let mut allowance = Allowance::new(&admitted, month("2026-11"), start);
        let mut pass = |number, now| allowance.pass(flow(7, Class::Bulk, number), 100, now);

        assert_eq!(
            [1, 2, 1, 3].map(|number| pass(number, start)),
            [Ok(()), Ok(()), Ok(()), Err(Beyond::Flows(2))]
        );
        let text = Beyond::Flows(2).to_string();
        assert!(text.starts_with("quota of flows: the tenant has 2 open"), "{text}");
        assert_eq!(allowance.flows(start), 2);

        admitted.quota.flows = None;
        allowance.follow(&admitted, start);
        assert_eq!(allowance.pass(flow(7, Class::Bulk, 3), 100, start), Ok(()));
        assert_eq!((allowance.flows(start), allowance.sent_bytes()), (0, 400));
    }

    #[test]
    fn a_months_bytes_are_used_up_here_or_as_the_scheduler_says_and_come_anew_with_the_month() {
        let now = Instant::now();
        let mut admitted = admitted(1, 1, None);
        admitted.quota.bytes_per_month = Some(1_000);
        let mut allowance = Allowance::new(&admitted, month("2026-11"), now);
        let name = flow(7, Class::Bulk, 1);
        assert_eq!(allowance.pass(name, 600, now), Ok(()));
        assert_eq!(allowance.pass(name, 600, now), Ok(()));
        assert_eq!(allowance.pass(name, 1, now), Err(Beyond::Month(Some(1_000))));

        allowance.set_month(month("2026-12"));
        assert_eq!(allowance.pass(name, 100, now), Ok(()));
        admitted.exhausted = Some(month("2026-12"));
        allowance.follow(&admitted, now);
        assert_eq!(allowance.pass(name, 1, now), Err(Beyond::Month(Some(1_000))));
        assert_eq!(allowance.sent_bytes(), 100);
        allowance.set_month(month("2027-01"));
        assert_eq!(allowance.pass(name, 1, now), Ok(()));
    }

    #[test]
    fn a_class_sends_at_its_rate_beyond_its_burst_and_others_are_free() {
        let start = Instant::now();
        let quota = Quota { bps: [None, Some(8_000_000), Some(0)], ..Quota::default() };
        let mut buckets = Buckets::new(quota, start);
        // Five frames each millisecond, for a second.
        let mut sent = |class| -> usize {
            let tries = (0..1_000).map(|ms| start + Duration::from_millis(ms));
            tries.map(|now| (0..5).filter(|_| buckets.take(class, 1_000, now)).count()).sum()
        };

        assert_eq!(sent(Class::Realtime), 5_000);
        // One a millisecond, and 250 that were saved up.
        assert_eq!(sent(Class::Interactive), 1_249);
        // A rate of nothing leaves the least burst.
        assert_eq!(sent(Class::Bulk), 65);
    }

    #[test]
    fn slow_rates_fill_by_and_by_and_a_new_quota_starts_anew() {
        let start = Instant::now();
        let quota = Quota { bps: [Some(80), None, None], ..Quota::default() };
        let mut buckets = Buckets::new(quota, start);
        assert!(buckets.take(Class::Realtime, 64 << 10, start));

        for step in 1..1_000 {
            let now = start + Duration::from_millis(step);
            assert!(!buckets.take(Class::Realtime, 10, now), "{step}");
        }
        assert!(buckets.take(Class::Realtime, 10, start + Duration::from_secs(1)));

        let now = start + Duration::from_secs(1);
        buckets.follow(quota, now);
        assert!(!buckets.take(Class::Realtime, 10, now));
        buckets.follow(Quota::default(), now);
        assert!(buckets.take(Class::Realtime, usize::MAX, now));
    }
}
