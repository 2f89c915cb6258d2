//! Reports to the scheduler: each second what changed, each half minute everything, and at once when a
//! link goes down or comes up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overway_wire::NeighbourLink;
use overway_wire::control::{LinkReport, Report, State, Window};

use crate::Fib;
use crate::link::Link;

/// Everything is reported this often, whatever changed.
const FULL_INTERVAL: Duration = Duration::from_secs(30);
/// Changes of times below this are not worth a report: a tenth of what a route would notice.
const CHANGE_US: u32 = 100;

/// Pause before a lost report is repeated: whoever did not keep up gets a moment.
const REPEAT_AFTER: Duration = Duration::from_millis(100);

/// What was reported, and when the next report is due.
#[derive(Debug)]
pub(crate) struct Reporter {
    interval: Duration,
    sequence: u64,
    due: Option<Instant>,
    full_due: Option<Instant>,
    sent: BTreeMap<NeighbourLink, LinkReport>,
}

impl Reporter {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, sequence: 0, due: None, full_due: None, sent: BTreeMap::new() }
    }

    /// Starts over, with a full report at once.
    pub(crate) fn start(&mut self, now: Instant) {
        *self = Self { due: Some(now), full_due: Some(now), ..Self::new(self.interval) };
    }

    pub(crate) fn stop(&mut self) {
        self.due = None;
    }

    /// A link went down or came up: the report is due now.
    pub(crate) fn urge(&mut self, now: Instant) {
        self.due = self.due.map(|due| due.min(now));
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
    pub(crate) fn poll(
        &mut self,
        links: &BTreeMap<NeighbourLink, Link>,
        fib: &Fib,
        self_stalls: u64,
        now: Instant,
    ) -> Option<Report> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        let full = self.full_due.is_none_or(|due| due <= now);
        let mut reports = describe_all(links, fib, now);
        self.sent.retain(|key, _| fib.peers.contains_key(key) || links.contains_key(key));
        if !full {
            reports
                .retain(|(key, report)| self.sent.get(key).is_none_or(|old| differ(old, report)));
        }
        for (key, report) in &reports {
            self.sent.insert(*key, report.clone());
        }
        if full {
            self.full_due = Some(now + FULL_INTERVAL);
        }
        self.sequence += 1;
        self.due = Some(now + self.interval);
        let links = reports.into_iter().map(|(_, report)| report).collect();
        Some(Report { sequence: self.sequence, full, links, self_stalls })
    }
}

/// Every link that is held or should be.
pub(crate) fn describe_all(
    links: &BTreeMap<NeighbourLink, Link>,
    fib: &Fib,
    now: Instant,
) -> Vec<(NeighbourLink, LinkReport)> {
    let held = fib.peers.keys().chain(links.keys().filter(|key| !fib.peers.contains_key(key)));
    held.map(|&key| (key, describe(key, links.get(&key), now))).collect()
}

/// A link as the scheduler is told of it; one that does not stand is down both ways.
fn describe(key: NeighbourLink, link: Option<&Link>, now: Instant) -> LinkReport {
    let mut report = LinkReport {
        neighbour: u32::from(key.neighbour.0),
        index: u32::from(key.index.value()),
        inbound: State::Down.into(),
        outbound: State::Down.into(),
        ..LinkReport::default()
    };
    if let Some(link) = link {
        let (fast, slow) = link.probe.windows(now);
        report.set_inbound(link.probe.inbound().into());
        report.set_outbound(link.probe.outbound().into());
        report.fast = (fast.samples > 0).then(|| fast.into());
        report.slow = (slow.samples > 0).then(|| slow.into());
        report.received_bps = link.probe.received_bps(now).0;
    }
    report
}

fn differ(old: &LinkReport, new: &LinkReport) -> bool {
    let states = |report: &LinkReport| (report.inbound, report.outbound);
    let load = |report: &LinkReport| report.received_bps / 100_000;
    states(old) != states(new)
        || load(old) != load(new)
        || windows_differ(old.fast.as_ref(), new.fast.as_ref())
        || windows_differ(old.slow.as_ref(), new.slow.as_ref())
}

fn windows_differ(old: Option<&Window>, new: Option<&Window>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old.is_some() != new.is_some() };
    old.one_way_diff_us.abs_diff(new.one_way_diff_us) > u64::from(CHANGE_US)
        || old.rtt_us.abs_diff(new.rtt_us) > CHANGE_US
        || old.jitter_us.abs_diff(new.jitter_us) > CHANGE_US
        || old.lost != new.lost
        || old.samples.abs_diff(new.samples) > old.samples / 10
}
