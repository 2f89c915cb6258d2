//! What the ends of this endpoint feel: reports of flows, and of the streams of each session by service.
//!
//! A flow is measured by each datagram that comes ([`overway_quality::FlowMeter`]). Streams belong to whoever opened them, so
//! theirs is measured at the session under them, by looking at what QUIC has sent and what was acknowledged: ten times
//! a second while something is under way, and else the more seldom the longer nothing is. All streams of a session to one
//! service are one entry, for as long as any of them is open.
//!
//! The entry is also what ends them together when the far end is given up for that service alone ([`GivenUp`]).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use overway_quality::{Felt, Progress, StreamMeter};
use overway_wire::Class;
use overway_wire::quality::{FAR_BYTES_MAX, FlowKind, FlowReport};
use prost::Message as _;
use quinn::Connection;
use tokio::sync::{Notify, watch};

use crate::far::{FarEnd, Party};
use crate::pool::Session;

/// Between looks at a session that has something under way: a stall is 250 ms at the least.
const LOOK_ACTIVE: Duration = Duration::from_millis(100);
/// Between looks at one that has not, at first,
const LOOK_IDLE: Duration = Duration::from_secs(1);
/// and after so many of these: an edge that waits is to sleep.
const LOOKS_IDLE: u32 = 30;
const LOOK_SLEEPING: Duration = Duration::from_secs(5);
/// Entries looked at; the streams of further services and sessions are not measured.
const ENTRIES_MAX: usize = 8_192;
/// Reports of what ended that wait to be taken; the oldest goes.
const ENDED_MAX: usize = 1_024;
/// Numbers of entries begin above those of flows.
const FIRST_NUMBER: u64 = 1 << 32;

/// Reports that waited too long to be taken make room for new ones.
#[derive(Debug, Default)]
pub(crate) struct Ended(Mutex<VecDeque<FlowReport>>);

impl Ended {
    pub(crate) fn push(&self, report: Option<FlowReport>) {
        let Some(report) = report else { return };
        let mut ended = self.lock();
        if ended.len() == ENDED_MAX {
            ended.pop_front();
        }
        ended.push_back(report);
    }

    pub(crate) fn take(&self, out: &mut Reports) {
        while out.has_room()
            && let Some(report) = self.lock().pop_front()
        {
            out.push(report);
        }
    }

    /// A panic elsewhere leaves the queue whole: each change is one call.
    fn lock(&self) -> MutexGuard<'_, VecDeque<FlowReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports as they are taken, up to a number and about so many bytes as a message.
#[derive(Debug)]
pub(crate) struct Reports {
    pub(crate) taken: Vec<FlowReport>,
    pub(crate) count_max: usize,
    bytes_left: usize,
}

impl Reports {
    pub(crate) fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { taken: Vec::new(), count_max, bytes_left: bytes_max }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.taken.len() < self.count_max && self.bytes_left > 0
    }

    pub(crate) fn push(&mut self, report: FlowReport) {
        self.bytes_left = self.bytes_left.saturating_sub(report.encoded_len());
        self.taken.push(report);
    }
}

/// What a flow or an entry is, for its reports.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) service: String,
    pub(crate) class: Class,
    pub(crate) party: Party,
    pub(crate) far: String,
    pub(crate) since: Instant,
}

impl Subject {
    pub(crate) fn new(session: &Session, service: &str, now: Instant) -> Self {
        Self {
            service: service.to_owned(),
            class: session.terms.class,
            party: session.far_end().party(),
            far: far_name(session.far_end()),
            since: now,
        }
    }

    pub(crate) fn report(
        &self,
        (kind, id): (FlowKind, u64),
        felt: &Felt,
        ended: bool,
        now: Instant,
    ) -> FlowReport {
        let age = now.saturating_duration_since(self.since).as_millis();
        FlowReport {
            id,
            kind: kind.into(),
            service: self.service.clone(),
            class: self.class.code().into(),
            far: self.far.clone(),
            age_ms: u64::try_from(age).unwrap_or(u64::MAX),
            ended,
            felt: Some(felt.into()),
        }
    }
}

fn far_name(far: FarEnd) -> String {
    let mut name = far.to_string();
    name.truncate(FAR_BYTES_MAX);
    name
}

/// The streams that are measured.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    inner: Mutex<Inner>,
    /// There is an entry to look at sooner than before.
    added: Notify,
    ended: Ended,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<EntryKey, Entry>,
    numbers: u64,
}

/// The connection's stable id, the service, and by which end the streams were opened.
type EntryKey = (usize, String, Opener);

/// Which end of a session opened a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Opener {
    Here,
    There,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    subject: Subject,
    connection: Connection,
    meter: StreamMeter,
    /// Streams that are open.
    open: usize,
    /// Whether they are given up.
    given_up: watch::Sender<bool>,
    due: Instant,
    interval: Duration,
    idle_looks: u32,
    taken: Instant,
}

/// One stream among those that are measured; dropping it is its end.
#[derive(Debug)]
pub struct Measured {
    streams: Arc<Streams>,
    /// None where there was no room to measure it.
    entered: Option<Entered>,
}

#[derive(Debug)]
struct Entered {
    key: EntryKey,
    /// The entry's; another may have come in its place.
    number: u64,
    given_up: watch::Receiver<bool>,
}

impl Measured {
    /// When the far end is given up for the stream's service. Never for a stream that there was no room to measure.
    pub fn given_up(&self) -> GivenUp {
        let mut given_up = self.entered.as_ref().map(|entered| entered.given_up.clone());
        GivenUp(Some(Box::pin(async move {
            let is_so = match &mut given_up {
                Some(given_up) => given_up.wait_for(|&is_so| is_so).await.is_ok(),
                None => false,
            };
            if !is_so {
                std::future::pending::<()>().await;
            }
        })))
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if let Some(entered) = &self.entered {
            self.streams.leave(entered);
        }
    }
}

type Waiting = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// Ends when the far end is given up for the service of a stream, which is to end then; may be asked again.
pub struct GivenUp(Option<Waiting>);

impl Future for GivenUp {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // None: it was so when it was asked last.
        if let Some(waiting) = &mut self.0 {
            ready!(waiting.as_mut().poll(cx));
            self.0 = None;
        }
        Poll::Ready(())
    }
}

impl fmt::Debug for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GivenUp").finish_non_exhaustive()
    }
}

impl Streams {
    /// Measures a stream of a session from now on.
    pub(crate) fn enter(
        self: &Arc<Self>,
        session: &Session,
        service: &str,
        opener: Opener,
    ) -> Measured {
        let now = Instant::now();
        let key = (session.connection.stable_id(), service.to_owned(), opener);
        let mut inner = self.inner();
        let entered = if let Some(entry) = inner.entries.get_mut(&key) {
            entry.open += 1;
            entry.look_soon(now);
            Some((entry.number, entry.given_up.subscribe()))
        } else if inner.entries.len() < ENTRIES_MAX {
            let number = FIRST_NUMBER + inner.numbers;
            inner.numbers += 1;
            let connection = session.connection.clone();
            let entry = Entry {
                number,
                subject: Subject::new(session, service, now),
                meter: StreamMeter::new(progress(&connection), now),
                connection,
                open: 1,
                given_up: watch::Sender::new(false),
                due: now + LOOK_ACTIVE,
                interval: LOOK_ACTIVE,
                idle_looks: 0,
                taken: now,
            };
            let given_up = entry.given_up.subscribe();
            inner.entries.insert(key.clone(), entry);
            Some((number, given_up))
        } else {
            None
        };
        drop(inner);
        self.added.notify_one();
        let entered = entered.map(|(number, given_up)| Entered { key, number, given_up });
        Measured { streams: Arc::clone(self), entered }
    }

    /// Whether a stream of a service is among them.
    pub(crate) fn has(&self, service: &str) -> bool {
        self.inner().entries.keys().any(|(_, entered, _)| entered == service)
    }

    /// Has the streams be ended that were opened here to a service at a far end; says how many. Those that are opened from
    /// now on are others.
    pub(crate) fn give_up(&self, far: Party, service: &str) -> usize {
        let mut inner = self.inner();
        let of_far = inner.entries.iter().filter(|(_, entry)| entry.subject.party == far);
        let is_such = |key: &&EntryKey| key.1 == service && key.2 == Opener::Here;
        let keys: Vec<EntryKey> = of_far.map(|(key, _)| key).filter(is_such).cloned().collect();
        let given_up: Vec<Entry> =
            keys.iter().filter_map(|key| inner.entries.remove(key)).collect();
        drop(inner);
        let mut streams = 0;
        for mut entry in given_up {
            streams += entry.open;
            entry.given_up.send_replace(true);
            self.ended.push(entry.report(true, Instant::now()));
        }
        streams
    }

    fn leave(&self, entered: &Entered) {
        let mut inner = self.inner();
        let entry = inner.entries.get_mut(&entered.key);
        let Some(entry) = entry.filter(|entry| entry.number == entered.number) else { return };
        entry.open -= 1;
        if entry.open == 0
            && let Some(mut entry) = inner.entries.remove(&entered.key)
        {
            drop(inner);
            self.ended.push(entry.report(true, Instant::now()));
        }
    }

    /// Looks at what is due, for as long as it is polled.
    pub(crate) async fn look(&self) {
        loop {
            let next = self.look_at_due(Instant::now());
            let sleep = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.added.notified() => {}
            }
        }
    }

    fn look_at_due(&self, now: Instant) -> Option<Instant> {
        let mut inner = self.inner();
        for entry in inner.entries.values_mut().filter(|entry| entry.due <= now) {
            entry.look(now);
        }
        inner.entries.values().map(|entry| entry.due).min()
    }

    /// Takes reports: of what has ended first, then of those that were taken longest ago.
    pub(crate) fn take_reports(&self, out: &mut Reports, now: Instant) {
        self.ended.take(out);
        let mut inner = self.inner();
        let mut waiting: Vec<&mut Entry> = inner.entries.values_mut().collect();
        waiting.sort_unstable_by_key(|entry| entry.taken);
        for entry in waiting {
            if !out.has_room() {
                return;
            }
            entry.report(false, now).into_iter().for_each(|report| out.push(report));
        }
    }

    /// A panic elsewhere leaves an entry at worst not looked at.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn look(&mut self, now: Instant) {
        let late_after = self.interval * 3;
        if self.meter.handle_look(progress(&self.connection), late_after, now) {
            (self.interval, self.idle_looks) = (LOOK_ACTIVE, 0);
        } else {
            self.idle_looks = self.idle_looks.saturating_add(1);
            let sleeps = self.idle_looks > LOOKS_IDLE;
            self.interval = if sleeps { LOOK_SLEEPING } else { LOOK_IDLE };
        }
        self.due = now + self.interval;
    }

    fn look_soon(&mut self, now: Instant) {
        self.idle_looks = 0;
        self.due = self.due.min(now + LOOK_ACTIVE);
    }

    fn report(&mut self, ended: bool, now: Instant) -> Option<FlowReport> {
        self.taken = now;
        let felt = self.meter.take()?;
        Some(self.subject.report((FlowKind::Streams, self.number), &felt, ended, now))
    }
}

fn progress(connection: &Connection) -> Progress {
    let stats = connection.stats();
    Progress { sent: stats.frame_tx.stream, acknowledged: stats.frame_rx.acks, rtt: stats.path.rtt }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_what_ended_are_bounded_and_the_oldest_goes() {
        let ended = Ended::default();
        ended.push(None);
        for id in 0..ENDED_MAX as u64 + 3 {
            ended.push(Some(FlowReport { id, ..FlowReport::default() }));
        }
        let mut one = Reports::new(1, 1_000);
        ended.take(&mut one);
        assert_eq!(one.taken.iter().map(|report| report.id).collect::<Vec<_>>(), [3]);

        let (mut few, mut rest) = (Reports::new(9_999, 10), Reports::new(9_999, 1 << 20));
        ended.take(&mut few);
        ended.take(&mut rest);
        assert!((2..=5).contains(&few.taken.len()), "{}", few.taken.len());
        assert_eq!(few.taken.len() + rest.taken.len(), ENDED_MAX - 1);
    }
}
