//! Reports to the scheduler: each interval what changed, each half minute everything, and at once when a
//! link goes down or comes up.
//!
//! A link is told again when it differs *materially* ([`change`]) from what was last told, not from what it
//! was a moment ago: a slow drift is told as soon as it has gone far enough.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use overway_wire::control::{LinkReport, Report, State};
use overway_wire::{BitsPerSec, NeighbourLink, RelayId};

use crate::Fib;
use crate::link::Link;
use crate::shard::{Loads, received_bps};

mod change;

/// How often a scheduler may want reports. More often than five times a second says no more, since the
/// fast window is a second long; less often than once a minute, and a dead relay would pass for a live one.
pub const REPORT_INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(200)..=Duration::from_secs(60);
/// Everything is reported this often, whatever changed.
const FULL_INTERVAL: Duration = Duration::from_secs(30);
/// Pause before a lost report is repeated: whoever did not keep up gets a moment.
const REPEAT_AFTER: Duration = Duration::from_millis(100);

/// Pause between reports of links that went down or came up: the first goes at once, and those of the same
/// event, which may be hundreds, together. Each takes a look at every link, and tells every demand.
const URGENT_AFTER: Duration = Duration::from_millis(20);

/// What was reported, and when the next report is due.
#[derive(Debug)]
pub(crate) struct Reporter {
    local: RelayId,
    interval: Duration,
    sequence: u64,
    last: Option<Instant>,
    due: Option<Instant>,
    full_due: Option<Instant>,
    told: BTreeMap<NeighbourLink, LinkReport>,
}

/// The links that there are and those that there should be.
#[derive(Clone, Copy)]
pub(crate) struct Held<'a> {
    pub(crate) links: &'a BTreeMap<NeighbourLink, Link>,
    pub(crate) fib: &'a Fib,
    pub(crate) loads: &'a Loads,
}

impl Reporter {
    pub(crate) fn new(local: RelayId, interval: Duration) -> Self {
        let told = BTreeMap::new();
        Self { local, interval, sequence: 0, last: None, due: None, full_due: None, told }
    }

    /// How often to report from now on.
    pub(crate) fn set_interval(&mut self, interval: Duration) {
        self.interval =
            interval.clamp(*REPORT_INTERVAL_RANGE.start(), *REPORT_INTERVAL_RANGE.end());
    }

    /// Starts over, with a full report at once.
    pub(crate) fn start(&mut self, now: Instant) {
        let fresh = Self::new(self.local, self.interval);
        *self = Self { due: Some(now), full_due: Some(now), ..fresh };
    }

    pub(crate) fn stop(&mut self) {
        self.due = None;
    }

    /// A link went down or came up: the report is due now, or a moment after the last one.
    pub(crate) fn urge(&mut self, now: Instant) {
        let soon = self.last.map_or(now, |last| now.max(last + URGENT_AFTER));
        self.due = self.due.map(|due| due.min(soon));
    }

    /// What was reported last was lost on the way to the scheduler: everything is due again, soon.
    pub(crate) fn repeat(&mut self, now: Instant) {
        self.full_due = Some(now);
        self.due = self.due.map(|due| due.min(now + REPEAT_AFTER));
    }

    /// The process slept through what was due: it is due now, which is no further delay.
    pub(crate) fn postpone(&mut self, now: Instant) {
        self.due = self.due.map(|due| due.max(now));
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The report that is due now, if any. One goes out each interval even if nothing changed, as a sign
    /// that what was reported still holds.
    pub(crate) fn poll(&mut self, held: Held<'_>, now: Instant) -> Option<Report> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        let full = self.full_due.is_none_or(|due| due <= now);
        self.told.retain(|key, _| held.is_held(key));
        let mut links = Vec::new();
        for key in held.keys() {
            let report = held.describe_one(key, now);
            let capacity = held.capacity(key);
            let old = self.told.get(&key);
            if full || old.is_none_or(|old| change::is_material(old, &report, capacity)) {
                self.told.insert(key, report.clone());
                links.push(report);
            }
        }
        if full {
            self.full_due = Some(now + self.until_full());
        }
        self.sequence += 1;
        self.last = Some(now);
        self.due = Some(now + self.interval);
        Some(Report { sequence: self.sequence, full, links, ..Report::default() })
    }

    /// The time from one full report to the next: after the first, each relay waits another part of the
    /// interval, so that the full reports of a thousand relays whose scheduler was lost do not come at once.
    fn until_full(&self) -> Duration {
        /// An odd number near 2^16 over the golden ratio: it scatters successive ids evenly.
        const SCATTER: u16 = 40_503;
        if self.sequence > 0 {
            return FULL_INTERVAL;
        }
        let part = u32::from(self.local.0.wrapping_mul(SCATTER)) + 1;
        FULL_INTERVAL * part / (1 << 16)
    }
}

impl Held<'_> {
    /// Every link that is held or should be, as the scheduler is told of it.
    pub(crate) fn describe(self, now: Instant) -> Vec<LinkReport> {
        self.keys().map(|key| self.describe_one(key, now)).collect()
    }

    fn keys(&self) -> impl Iterator<Item = NeighbourLink> {
        let Self { links, fib, loads: _ } = *self;
        let strangers = links.keys().filter(|key| !fib.peers.contains_key(key));
        fib.peers.keys().chain(strangers).copied()
    }

    fn is_held(self, key: &NeighbourLink) -> bool {
        self.fib.peers.contains_key(key) || self.links.contains_key(key)
    }

    fn capacity(self, key: NeighbourLink) -> BitsPerSec {
        BitsPerSec(self.fib.peers.get(&key).map_or(0, |peer| peer.capacity_bps))
    }

    /// A link as the scheduler is told of it; one that does not stand is down both ways.
    fn describe_one(self, key: NeighbourLink, now: Instant) -> LinkReport {
        let mut report = LinkReport {
            neighbour: u32::from(key.neighbour.0),
            index: u32::from(key.index.value()),
            inbound: State::Down.into(),
            outbound: State::Down.into(),
            ..LinkReport::default()
        };
        if let Some(link) = self.links.get(&key) {
            let (fast, slow) = link.probe.windows(now);
            report.set_inbound(link.probe.inbound().into());
            report.set_outbound(link.outbound().into());
            report.mtu = link.mtu().bytes.into();
            report.fast = (fast.samples > 0).then(|| fast.into());
            report.slow = (slow.samples > 0).then(|| slow.into());
            report.received_bps = link.probe.received_bps(now).0 + received_bps(self.loads, key);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When full reports came, after the first.
    fn full_reports(relay: u16, interval: Duration) -> Vec<Duration> {
        let (links, fib, loads) = (BTreeMap::new(), Fib::default(), Loads::new());
        let (held, start) = (Held { links: &links, fib: &fib, loads: &loads }, Instant::now());
        let mut reporter = Reporter::new(RelayId(relay), Duration::from_secs(1));
        reporter.set_interval(interval);
        reporter.start(start);
        let mut full = Vec::new();
        while let Some(now) = reporter.due().filter(|&due| due <= start + 4 * FULL_INTERVAL) {
            if reporter.poll(held, now).unwrap().full {
                full.push(now - start);
            }
        }
        full
    }

    #[test]
    fn full_reports_come_each_half_minute_and_relays_take_turns() {
        let turns: Vec<Duration> = (1..=60)
            .map(|relay| {
                let full = full_reports(relay, Duration::from_secs(1));
                assert_eq!(full[0], Duration::ZERO);
                assert!(full[1] <= FULL_INTERVAL + Duration::from_secs(1));
                assert!(full[1..].windows(2).all(|pair| pair[1] - pair[0] == FULL_INTERVAL));
                full[1]
            })
            .collect();

        for second in 0..30 {
            let at = Duration::from_secs(second);
            let count =
                turns.iter().filter(|&&turn| turn > at && turn <= at + Duration::from_secs(1));
            assert!(count.count() <= 4, "many of 60 relays in second {second}: {turns:?}");
        }
    }

    #[test]
    fn what_is_urgent_is_told_at_once_and_what_follows_together() {
        let (links, fib, loads) = (BTreeMap::new(), Fib::default(), Loads::new());
        let (held, start) = (Held { links: &links, fib: &fib, loads: &loads }, Instant::now());
        let mut reporter = Reporter::new(RelayId(1), Duration::from_secs(1));
        reporter.start(start);
        assert!(reporter.poll(held, start).is_some());
        let event = start + Duration::from_millis(300);

        let mut reports = 0;
        for ms in 0..100 {
            let now = event + Duration::from_millis(ms);
            reporter.urge(now);
            reports += usize::from(reporter.poll(held, now).is_some());
            assert!(ms > 0 || reports == 1, "the first goes at once");
        }

        assert_eq!(reports, 5);
    }

    #[test]
    fn the_wanted_interval_is_kept_within_its_range() {
        let (links, fib, loads) = (BTreeMap::new(), Fib::default(), Loads::new());
        let (held, start) = (Held { links: &links, fib: &fib, loads: &loads }, Instant::now());
        for (wanted, kept) in [(1, 200), (500, 500), (600_000, 60_000)] {
            let mut reporter = Reporter::new(RelayId(1), Duration::from_secs(1));
            reporter.set_interval(Duration::from_millis(wanted));
            reporter.start(start);
            assert!(reporter.poll(held, start).is_some());
            assert_eq!(reporter.due(), Some(start + Duration::from_millis(kept)));
        }
    }
}
