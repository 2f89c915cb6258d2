//! What users feel at this relay: the reports of its edges and of its own gateway, folded by service for the scheduler, and
//! each flow's own for whoever asks.
//!
//! What waits for the scheduler is bounded by services and buckets, however many report and however long nobody takes
//! it. Of flows [`FLOWS_MAX`] are kept, and fewer where their sketches are wide, as edges can make them: the one that was
//! silent longest goes first, and any that was for `FLOW_KEPT`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use overway_quality::{Felt, Fold, Sketch};
use overway_wire::quality::{
    FAR_BYTES_MAX, FLOW_REPORTS_MAX, FlowKind, FlowReport, FlowReports, QUALITY_BYTES_MAX, Quality,
    SERVICE_BYTES_MAX, ServiceQuality,
};
use overway_wire::{AttachmentId, Class, PolicyId};
use prost::Message as _;
use serde::{Deserialize, Serialize};

/// Flows kept, at some four kilobytes each, as a rule.
pub const FLOWS_MAX: usize = 4_096;
/// Buckets of the sketches of all flows, of eight bytes each.
const BUCKETS_MAX: usize = 4 << 20;
/// Flows in one answer.
pub const FLOWS_LISTED_MAX: usize = 1_000;
/// How long a flow is kept after its last report.
const FLOW_KEPT: Duration = Duration::from_secs(300);

/// What users feel at this relay.
#[derive(Debug, Default)]
pub struct QualityStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    fold: Fold,
    /// When the first of what is folded was told.
    began: Option<Instant>,
    flows: BTreeMap<FlowKey, Record>,
    /// The same, the longest unheard first.
    by_age: BTreeSet<(Instant, FlowKey)>,
    /// Of the sketches of all flows.
    buckets: usize,
    stats: QualityStats,
}

/// A flow's number, and the end that measures it: two ends may draw the same.
type FlowKey = (u64, AttachmentId);

/// Cheap to copy, so that whoever asks holds up nobody who reports.
#[derive(Clone, Debug)]
struct Record {
    tenant: PolicyId,
    class: Class,
    report: Arc<FlowReport>,
    last: Arc<Felt>,
    all: Arc<Felt>,
    heard: Instant,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QualityStats {
    /// Reports of flows taken.
    pub reports: u64,
    /// Reports of flows that make no sense, or are too many.
    pub reports_refused: u64,
    /// Reports of flows whose service counts as another, there being too many.
    pub reports_other: u64,
    /// Flows forgotten to make room for others.
    pub flows_forgotten: u64,
    /// Flows kept now.
    pub flows: u64,
}

/// A flow or the streams of a session to one service, as an end at this relay feels it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowBody {
    /// Its number: of datagrams the flow's id, without bit 31; of streams one from 2^32 on.
    pub id: u64,
    /// `datagrams` or `streams`.
    pub kind: String,
    /// The end's attachment at this relay; 1 is the relay's own gateway.
    pub attachment: u16,
    /// The tenant's number; `null` for the mesh's own services.
    pub tenant: Option<u16>,
    /// The service.
    pub service: String,
    /// The class.
    pub class: String,
    /// The far end: a relay, or an edge.
    pub far: String,
    /// For how long it was open at its last report, in seconds.
    pub age_s: f64,
    /// How long ago it was heard of, in seconds.
    pub heard_s: f64,
    /// Whether that was its last word.
    pub ended: bool,
    /// Over its last report, ten seconds as a rule.
    pub last: FeltBody,
    /// Since this relay has first heard of it.
    pub all: FeltBody,
}

/// What was felt. Times are in milliseconds, shares between 0 and 1; what is not known is `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FeltBody {
    /// `one_way`, `half_rtt` or `mixed`.
    pub delay_basis: Option<String>,
    /// Delays.
    pub delay_ms: QuantilesBody,
    /// Time between datagrams beyond the sender's spacing.
    pub gap_ms: QuantilesBody,
    /// Deliveries that were due: frames, or seconds of a stream.
    pub due: u64,
    /// Of these, on time.
    pub on_time: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Share lost; `null` where nothing was due, and of streams, which lose nothing.
    pub loss: Option<f64>,
    /// Intervals between datagrams.
    pub gaps: u64,
    /// Of these, within 60 ms of the spacing.
    pub gaps_good: u64,
    /// Times that it stood still.
    pub stalls: u64,
    /// For how long in one report at most.
    pub stall_ms_max: Option<f64>,
}

/// Quantiles, each within 1/64 of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QuantilesBody {
    /// The median.
    pub p50: Option<f64>,
    /// What 95 of 100 do not exceed.
    pub p95: Option<f64>,
    /// What 99 of 100 do not exceed.
    pub p99: Option<f64>,
    /// The greatest.
    pub max: Option<f64>,
}

impl QualityStore {
    /// Takes the reports of an end that is attached here.
    pub fn take_reports(
        &self,
        attachment: AttachmentId,
        tenant: PolicyId,
        reports: FlowReports,
        now: Instant,
    ) {
        let mut inner = self.inner();
        let too_many = reports.flows.len().saturating_sub(FLOW_REPORTS_MAX);
        inner.stats.reports_refused += too_many as u64;
        for report in reports.flows.into_iter().take(FLOW_REPORTS_MAX) {
            match sound(&report) {
                Some((class, felt)) => inner.take((attachment, tenant), class, report, felt, now),
                None => inner.stats.reports_refused += 1,
            }
        }
    }

    /// What is to be told to the scheduler: all that was felt since the last time, in as many messages as it needs.
    pub fn take_words(&self, now: Instant) -> Vec<Quality> {
        let mut inner = self.inner();
        let taken = inner.fold.take();
        let span = inner.began.take().map(|began| now.saturating_duration_since(began));
        drop(inner);
        let span_ms = span.map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        let mut words: Vec<Quality> = Vec::new();
        let mut bytes = 0;
        for (key, felt) in taken {
            let service = ServiceQuality {
                tenant: key.tenant.0.into(),
                service: key.service,
                class: key.class.code().into(),
                felt: Some((&felt).into()),
            };
            let more = service.encoded_len();
            match words.last_mut().filter(|_| bytes + more <= QUALITY_BYTES_MAX) {
                Some(word) => word.services.push(service),
                None => {
                    words.push(Quality { services: vec![service], span_ms });
                    bytes = 0;
                }
            }
            bytes += more;
        }
        words
    }

    /// The flows of that number, one for each end that measures it here.
    pub fn flow(&self, id: u64, now: Instant) -> Vec<FlowBody> {
        let ends = (id, AttachmentId(0))..=(id, AttachmentId(u16::MAX));
        let copied = |(&key, record): (&FlowKey, &Record)| (key, record.clone());
        let found: Vec<(FlowKey, Record)> = self.inner().flows.range(ends).map(copied).collect();
        found.iter().map(|(key, record)| record.body(*key, now)).collect()
    }

    /// The flows heard of last, at most so many; of one service if it is named.
    pub fn flows(&self, service: Option<&str>, count_max: usize, now: Instant) -> Vec<FlowBody> {
        let inner = self.inner();
        let latest = inner.by_age.iter().rev().map(|(_, key)| *key);
        let wanted = latest.filter_map(|key| {
            let record = inner.flows.get(&key)?;
            let named = service.is_none_or(|service| record.report.service == service);
            named.then(|| (key, record.clone()))
        });
        let wanted: Vec<_> = wanted.take(count_max.min(FLOWS_LISTED_MAX)).collect();
        drop(inner);
        wanted.iter().map(|(key, record)| record.body(*key, now)).collect()
    }

    /// Counts since the start.
    pub fn stats(&self) -> QualityStats {
        let inner = self.inner();
        QualityStats { flows: inner.flows.len() as u64, ..inner.stats }
    }

    /// A panic elsewhere leaves at worst one flow in one of the two lists.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A report's class and what was felt, if it makes sense.
fn sound(report: &FlowReport) -> Option<(Class, Felt)> {
    let class = Class::from_code(u8::try_from(report.class).ok()?)?;
    let felt = Felt::try_from(report.felt.as_ref()?).ok().filter(|felt| felt.reports == 1)?;
    let is_text = |text: &str| !text.contains(char::is_control);
    let is_named =
        (1..=SERVICE_BYTES_MAX).contains(&report.service.len()) && is_text(&report.service);
    let is_far = report.far.len() <= FAR_BYTES_MAX && is_text(&report.far);
    let is_known = report.kind() != FlowKind::Unknown;
    (is_named && is_known && is_far).then_some((class, felt))
}

impl Inner {
    fn take(
        &mut self,
        (attachment, tenant): (AttachmentId, PolicyId),
        class: Class,
        mut report: FlowReport,
        felt: Felt,
        now: Instant,
    ) {
        // It is kept once, decoded.
        report.felt = None;
        self.stats.reports += 1;
        self.began.get_or_insert(now);
        if !self.fold.add(tenant, &report.service, class, &felt) {
            self.stats.reports_other += 1;
        }
        let key = (report.id, attachment);
        let mut all = Arc::<Felt>::default();
        if let Some(before) = self.remove(key) {
            self.by_age.remove(&(before.heard, key));
            // Another tenant's edge may have taken over the place.
            if before.tenant == tenant {
                all = before.all;
            }
        }
        Arc::make_mut(&mut all).merge(&felt);
        let (report, last) = (Arc::new(report), Arc::new(felt));
        let record = Record { tenant, class, report, last, all, heard: now };
        self.make_room(record.buckets(), now);
        self.buckets += record.buckets();
        self.flows.insert(key, record);
        self.by_age.insert((now, key));
    }

    fn remove(&mut self, key: FlowKey) -> Option<Record> {
        let record = self.flows.remove(&key)?;
        self.buckets -= record.buckets();
        Some(record)
    }

    fn make_room(&mut self, buckets: usize, now: Instant) {
        while let Some(&(heard, key)) = self.by_age.first() {
            let is_old = now.saturating_duration_since(heard) >= FLOW_KEPT;
            let has_room = self.flows.len() < FLOWS_MAX && self.buckets + buckets <= BUCKETS_MAX;
            if !is_old && has_room {
                return;
            }
            self.by_age.pop_first();
            self.remove(key);
            self.stats.flows_forgotten += u64::from(!is_old);
        }
    }
}

impl Record {
    fn buckets(&self) -> usize {
        self.last.buckets() + self.all.buckets()
    }

    fn body(&self, (id, attachment): FlowKey, now: Instant) -> FlowBody {
        let FlowReport { service, far, age_ms, ended, .. } = &*self.report;
        FlowBody {
            id,
            kind: self.report.kind().name().to_owned(),
            attachment: attachment.0,
            tenant: (self.tenant != PolicyId(0)).then_some(self.tenant.0),
            service: service.clone(),
            class: self.class.name().to_owned(),
            far: far.clone(),
            age_s: Duration::from_millis(*age_ms).as_secs_f64(),
            heard_s: now.saturating_duration_since(self.heard).as_secs_f64(),
            ended: *ended,
            last: FeltBody::new(&self.last, self.report.kind()),
            all: FeltBody::new(&self.all, self.report.kind()),
        }
    }
}

impl FeltBody {
    fn new(felt: &Felt, kind: FlowKind) -> Self {
        let loss =
            (felt.due > 0 && kind == FlowKind::Datagrams).then(|| share(felt.lost, felt.due));
        Self {
            delay_basis: felt.delay_basis().map(str::to_owned),
            delay_ms: QuantilesBody::new(&felt.delay_us),
            gap_ms: QuantilesBody::new(&felt.gap_us),
            due: felt.due,
            on_time: felt.on_time,
            lost: felt.lost,
            loss,
            gaps: felt.gaps,
            gaps_good: felt.gaps_good,
            stalls: felt.stalls,
            stall_ms_max: felt.stall_us.max().map(millis),
        }
    }
}

impl QuantilesBody {
    fn new(micros: &Sketch) -> Self {
        let at = |share| micros.quantile(share).map(millis);
        Self { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: micros.max().map(millis) }
    }
}

fn millis(micros: u32) -> f64 {
    f64::from(micros) / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "a share of fewer than 2^53")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: PolicyId = PolicyId(7);

    fn report(id: u64, service: &str) -> FlowReport {
        let mut felt = Felt { reports: 1, one_way: 1, due: 10, on_time: 8, ..Felt::default() };
        (felt.lost, felt.gaps, felt.gaps_good) = (2, 9, 8);
        felt.delay_us.add(40_000);
        felt.loss_ppm.add(200_000);
        FlowReport {
            id,
            kind: FlowKind::Datagrams.into(),
            service: service.into(),
            class: 0,
            far: "r5".into(),
            age_ms: 10_000,
            ended: false,
            felt: Some((&felt).into()),
        }
    }

    fn told(store: &QualityStore, attachment: u16, flows: &[FlowReport], now: Instant) {
        let reports = FlowReports { flows: flows.to_vec() };
        store.take_reports(AttachmentId(attachment), TENANT, reports, now);
    }

    #[test]
    fn flows_are_folded_for_the_scheduler_and_kept_for_whoever_asks() {
        let (store, now) = (QualityStore::default(), Instant::now());
        told(&store, 2, &[report(1, "voice"), report(2, "video")], now);
        told(&store, 3, &[report(1, "voice")], now);
        told(&store, 2, &[report(1, "voice")], now + Duration::from_secs(10));

        let words = store.take_words(now + Duration::from_secs(3_600));
        assert_eq!(words[0].span_ms, 3_600_000, "since the first report");
        let told: Vec<_> = words.iter().flat_map(|word| &word.services).collect();
        let reports = |at: usize| told[at].felt.as_ref().unwrap().reports;
        assert_eq!((told.len(), words.len()), (2, 1));
        assert_eq!((&*told[0].service, reports(0)), ("video", 1));
        assert_eq!((&*told[1].service, reports(1), told[1].tenant), ("voice", 3, 7));
        assert!(store.take_words(now).is_empty(), "said once");

        let found = store.flow(1, now + Duration::from_secs(12));
        assert_eq!(found.iter().map(|flow| flow.attachment).collect::<Vec<_>>(), [2, 3]);
        let flow = &found[0];
        assert_eq!((flow.last.due, flow.all.due, flow.last.loss), (10, 20, Some(0.2)));
        assert_eq!((flow.heard_s, flow.tenant, &*flow.far), (2.0, Some(7), "r5"));
        assert_eq!(flow.last.delay_basis.as_deref(), Some("one_way"));
        let ids = |service| {
            let flows = store.flows(service, 9, now);
            flows.iter().map(|flow| (flow.id, flow.attachment)).collect::<Vec<_>>()
        };
        assert_eq!(ids(None), [(1, 2), (2, 2), (1, 3)]);
        assert_eq!(ids(Some("video")), [(2, 2)]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (store, now) = (QualityStore::default(), Instant::now());
        let good = report(1, "voice");
        let bad = [
            FlowReport { kind: 0, ..good.clone() },
            FlowReport { class: 9, ..good.clone() },
            FlowReport { service: String::new(), ..good.clone() },
            FlowReport { service: "voice\x1b[2J".into(), ..good.clone() },
            FlowReport { far: "x".repeat(65), ..good.clone() },
            FlowReport { felt: None, ..good.clone() },
        ];
        told(&store, 2, &bad, now);
        assert_eq!((store.stats().reports_refused, store.stats().reports), (6, 0));

        told(&store, 2, &vec![good; FLOW_REPORTS_MAX + 3], now);
        assert_eq!((store.stats().reports_refused, store.stats().flows), (9, 1));
    }

    #[test]
    fn flows_are_bounded_and_forgotten() {
        let (store, now) = (QualityStore::default(), Instant::now());
        for id in 0..FLOWS_MAX as u64 + 10 {
            told(&store, 2, &[report(id, "voice")], now + Duration::from_micros(id));
        }
        assert_eq!((store.stats().flows, store.stats().flows_forgotten), (FLOWS_MAX as u64, 10));
        assert!(store.flow(9, now).is_empty() && !store.flow(10, now).is_empty());

        told(&store, 2, &[report(1, "voice")], now + FLOW_KEPT + Duration::from_secs(1));
        assert_eq!((store.stats().flows, store.stats().flows_forgotten), (1, 10));
    }

    #[test]
    fn flows_whose_sketches_are_wide_are_fewer() {
        let (store, now) = (QualityStore::default(), Instant::now());
        let felt = widest();
        let buckets = 2 * felt.buckets();
        for id in 0..1_000 {
            let report = FlowReport { felt: Some((&felt).into()), ..report(id, "voice") };
            told(&store, 2, &[report], now + Duration::from_micros(id));
        }

        let flows = usize::try_from(store.stats().flows).unwrap();
        assert_eq!((flows, store.stats().reports_refused), (BUCKETS_MAX / buckets, 0));
        assert!(store.flow(0, now).is_empty() && !store.flow(999, now).is_empty());

        told(&store, 2, &[report(999, "voice")], now + FLOW_KEPT * 2);
        let inner = store.inner();
        assert_eq!(inner.buckets, inner.flows.values().map(Record::buckets).sum::<usize>());
    }

    /// In every bucket there is, of every sketch, something.
    fn widest() -> Felt {
        let mut felt = Felt { reports: 1, due: 1, ..Felt::default() };
        (0..32).for_each(|shift| (0..64).for_each(|top| felt.delay_us.add(top << 26 >> shift)));
        (felt.gap_us, felt.loss_ppm) = (felt.delay_us.clone(), felt.delay_us.clone());
        felt.stall_us = felt.delay_us.clone();
        felt
    }

    #[test]
    fn a_long_word_is_said_in_several_messages() {
        let (store, now) = (QualityStore::default(), Instant::now());
        let mut felt = widest();
        felt.delay_us.add_many(1, u64::MAX);
        (felt.gap_us, felt.loss_ppm) = (felt.delay_us.clone(), felt.delay_us.clone());
        for service in 0..60 {
            let felt = Some((&felt).into());
            let report = FlowReport { felt, ..report(service, &format!("service-{service}")) };
            told(&store, 2, &[report], now);
        }

        let words = store.take_words(now);

        assert!(words.len() > 1, "{}", words.len());
        assert!(words.iter().all(|word| word.encoded_len() <= QUALITY_BYTES_MAX + 8 * 60));
        assert_eq!(words.iter().map(|word| word.services.len()).sum::<usize>(), 60);
    }
}
