//! What users feel, merged over relays: of each service, region and class over the last minutes, and in all.
//!
//! Time is cut into *slots*. Those of the last [`QUALITY_WINDOW_MAX`] are kept, each as one [`Felt`], so a window is a merge
//! of slots. The cost of a relay's word, and the memory, follow the services that there are, and the buckets of sketches,
//! which are bounded; they do not follow users.
//!
//! What a relay could tell nobody for longer than the longest window is of no window: it counts in all.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use overway_quality::{Felt, OTHER};
use overway_wire::quality::{Quality, SERVICE_BYTES_MAX, SERVICES_MAX, ServiceQuality};
use overway_wire::{Class, PolicyId};

/// The longest window that can be asked for.
pub const QUALITY_WINDOW_MAX: Duration = Duration::from_secs(300);
/// Three words of each relay.
const SLOT: Duration = Duration::from_secs(30);
/// Slots of the longest window, and the one that is filled.
const SLOTS: u64 = QUALITY_WINDOW_MAX.as_secs() / SLOT.as_secs() + 1;
/// Records in all. One of datagrams whose delays spread over four powers of two takes some 60 KB, where every slot has its
/// sketches; 320 KB is the most that its edges can make of it.
const RECORDS_MAX: usize = 1_024;
/// Records of one tenant; beyond it its services count as [`OTHER`].
const TENANT_RECORDS_MAX: usize = 256;
/// A record that nothing was heard of for so long goes, with its counts.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);

/// What is told apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualityKey {
    /// The tenant's number; 0 for the mesh's own services.
    pub tenant: PolicyId,
    /// The service; empty: all those that there was no room for.
    pub service: String,
    /// The region of the relays at which its users are; empty if they say none, or there was no room.
    pub region: String,
    /// The class.
    pub class: Class,
}

/// What is known of one service, region and class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QualityStatus {
    /// Which.
    pub key: QualityKey,
    /// The tenant's name, if it has one still.
    pub tenant_name: Option<String>,
    /// What was felt within the window; may be nothing.
    pub felt: Felt,
    /// Counts since the scheduler's start, or since the record was begun; no sketches.
    pub totals: Felt,
}

#[derive(Debug)]
struct Record {
    /// By slot, ascending; at most [`SLOTS`].
    slots: VecDeque<(u64, Felt)>,
    /// Counts alone.
    totals: Felt,
    heard: Instant,
}

/// All records.
#[derive(Debug)]
pub(crate) struct Qualities {
    start: Instant,
    /// The slot in which what is old was last thrown away.
    tidied: u64,
    records: BTreeMap<QualityKey, Record>,
}

/// How a relay's word was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) refused: u64,
    pub(crate) other: u64,
}

impl Record {
    fn add(&mut self, slot: u64, felt: Felt) {
        match self.slots.back_mut().filter(|(last, _)| *last == slot) {
            Some((_, last)) => last.merge(&felt),
            None => self.slots.push_back((slot, felt)),
        }
    }
}

impl Qualities {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, tidied: 0, records: BTreeMap::new() }
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / SLOT.as_secs()
    }

    pub(crate) fn take(&mut self, region: &str, quality: Quality, now: Instant) -> Taken {
        self.tidy(now);
        let is_late = u128::from(quality.span_ms) > QUALITY_WINDOW_MAX.as_millis();
        let (mut taken, slot) = (Taken::default(), self.slot(now));
        taken.refused += quality.services.len().saturating_sub(SERVICES_MAX) as u64;
        for service in quality.services.into_iter().take(SERVICES_MAX) {
            let Some((key, felt)) = read(service, region) else {
                taken.refused += 1;
                continue;
            };
            let key = self.placed(key, &mut taken);
            let record = self.record(key, now);
            record.totals.add_counts(&felt);
            if !is_late {
                record.add(slot, felt);
            }
        }
        taken
    }

    /// The key under which something counts: its own, if there is room for it.
    fn placed(&self, key: QualityKey, taken: &mut Taken) -> QualityKey {
        if self.records.contains_key(&key) {
            return key;
        }
        // One of each class is left for what has no room at all.
        let has_room = self.records.len() < RECORDS_MAX - Class::ALL.len();
        let siblings = self.records.keys().filter(|known| known.tenant == key.tenant).count();
        if has_room && siblings < TENANT_RECORDS_MAX - Class::ALL.len() {
            return key;
        }
        taken.other += 1;
        let tenant = if has_room { key.tenant } else { PolicyId(0) };
        QualityKey { tenant, service: OTHER.to_owned(), region: String::new(), class: key.class }
    }

    fn record(&mut self, key: QualityKey, now: Instant) -> &mut Record {
        let new = || Record { slots: VecDeque::new(), totals: Felt::default(), heard: now };
        let record = self.records.entry(key).or_insert_with(new);
        record.heard = now;
        record
    }

    /// Once a slot, throws away what is too old.
    fn tidy(&mut self, now: Instant) {
        let slot = self.slot(now);
        if self.tidied == slot {
            return;
        }
        self.tidied = slot;
        self.records.retain(|_, record| {
            record.slots.retain(|&(of, _)| of + SLOTS > slot);
            now.saturating_duration_since(record.heard) < FORGET_AFTER
        });
    }

    /// What was felt in the last slots that make up a window, and in the one that is being filled.
    pub(crate) fn within(
        &self,
        window: Duration,
        now: Instant,
    ) -> impl Iterator<Item = (&QualityKey, Felt, &Felt)> {
        let slots = window.min(QUALITY_WINDOW_MAX).as_secs().div_ceil(SLOT.as_secs());
        let first = self.slot(now).saturating_sub(slots);
        self.records.iter().map(move |(key, record)| {
            let mut felt = Felt::default();
            let wanted = record.slots.iter().filter(|(slot, _)| *slot >= first);
            wanted.for_each(|(_, of_slot)| felt.merge(of_slot));
            (key, felt, &record.totals)
        })
    }
}

/// A service's share as it counts, if it makes sense.
fn read(service: ServiceQuality, region: &str) -> Option<(QualityKey, Felt)> {
    let ServiceQuality { tenant, service, class, felt } = service;
    let tenant = PolicyId(u16::try_from(tenant).ok()?);
    let class = Class::from_code(u8::try_from(class).ok()?)?;
    if service.len() > SERVICE_BYTES_MAX || service.contains(char::is_control) {
        return None;
    }
    let felt = Felt::try_from(&felt?).ok().filter(|felt| !felt.is_empty())?;
    Some((QualityKey { tenant, service, region: region.to_owned(), class }, felt))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
mod tests {
    use super::*;

    fn of(tenant: u32, service: &str, delays_ms: &[u32]) -> ServiceQuality {
        let mut felt = Felt { reports: 1, due: 10, on_time: 9, lost: 1, ..Felt::default() };
        delays_ms.iter().for_each(|delay| felt.delay_us.add(delay * 1_000));
        ServiceQuality { tenant, service: service.into(), class: 0, felt: Some((&felt).into()) }
    }

    fn words(services: &[ServiceQuality]) -> Quality {
        Quality { services: services.to_vec(), span_ms: 10_000 }
    }

    fn told(qualities: &Qualities, window_s: u64, now: Instant) -> Vec<(String, u64, Option<u32>)> {
        let within = qualities.within(Duration::from_secs(window_s), now);
        let line = |(key, felt, _): (&QualityKey, Felt, &Felt)| {
            let p50 = felt.delay_us.quantile(0.5).map(|micros| (micros + 500) / 1_000);
            (format!("{}/{}@{}", key.tenant.0, key.service, key.region), felt.reports, p50)
        };
        within.map(line).collect()
    }

    #[test]
    fn words_of_relays_merge_by_service_and_region() {
        let start = Instant::now();
        let mut qualities = Qualities::new(start);
        qualities.take("eu", words(&[of(1, "voice", &[10]), of(0, "web", &[5])]), start);
        qualities.take("eu", words(&[of(1, "voice", &[50, 50])]), start);
        qualities.take("us", words(&[of(1, "voice", &[90])]), start);

        let told = told(&qualities, 300, start);

        let near = |found: Option<u32>, ms: u32| found.is_some_and(|found| found.abs_diff(ms) <= 1);
        assert_eq!(
            told.iter().map(|(key, ..)| &**key).collect::<Vec<_>>(),
            ["0/web@eu", "1/voice@eu", "1/voice@us"]
        );
        assert_eq!(told[1].1, 2);
        assert!(near(told[1].2, 50) && near(told[2].2, 90), "{told:?}");
    }

    #[test]
    fn a_window_holds_what_is_young_and_totals_stay() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut qualities = Qualities::new(start);
        for minute in 0..6 {
            qualities.take("eu", words(&[of(1, "voice", &[10])]), at(minute * 60));
        }
        assert_eq!(told(&qualities, 300, at(310))[0].1, 6);
        assert_eq!(told(&qualities, 60, at(310))[0].1, 2);
        assert_eq!(told(&qualities, 300, at(1_200))[0].1, 0);

        qualities.take("us", words(&[of(2, "voice", &[10])]), at(1_200));
        let (_, felt, totals) = qualities.within(QUALITY_WINDOW_MAX, at(1_200)).next().unwrap();
        assert_eq!((felt.is_empty(), totals.reports, totals.due, totals.lost), (true, 6, 60, 6));
        assert!(qualities.records.values().next().unwrap().slots.is_empty());

        qualities.take("us", words(&[of(2, "voice", &[10])]), at(4_200));
        assert_eq!(qualities.records.len(), 1, "forgotten after an hour");
    }

    #[test]
    fn what_nobody_could_be_told_for_long_counts_in_all_and_in_no_window() {
        let start = Instant::now();
        let mut qualities = Qualities::new(start);
        let late = Quality { span_ms: 300_001, ..words(&[of(1, "voice", &[900])]) };
        qualities.take("eu", late, start);
        qualities.take("eu", words(&[of(1, "voice", &[10])]), start);

        let (_, felt, totals) = qualities.within(QUALITY_WINDOW_MAX, start).next().unwrap();
        assert_eq!((felt.reports, totals.reports), (1, 2));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_counted() {
        let start = Instant::now();
        let mut qualities = Qualities::new(start);
        let good = of(1, "voice", &[10]);
        let bad = [
            ServiceQuality { tenant: 70_000, ..good.clone() },
            ServiceQuality { class: 3, ..good.clone() },
            ServiceQuality { felt: None, ..good.clone() },
            ServiceQuality { felt: Some(overway_wire::quality::Felt::default()), ..good.clone() },
            ServiceQuality { service: "x".repeat(256), ..good.clone() },
            ServiceQuality { service: "voice\n".into(), ..good.clone() },
        ];
        assert_eq!(qualities.take("eu", words(&bad), start), Taken { refused: 6, other: 0 });
        let many = vec![good; SERVICES_MAX + 7];
        assert_eq!(qualities.take("eu", words(&many), start), Taken { refused: 7, other: 0 });
        assert_eq!(told(&qualities, 300, start)[0].1, SERVICES_MAX as u64);
    }

    #[test]
    fn names_without_end_take_no_other_tenants_room() {
        let start = Instant::now();
        let mut qualities = Qualities::new(start);
        for number in 0..3_000 {
            qualities.take("eu", words(&[of(1, &format!("drawn-{number}"), &[1])]), start);
        }
        let voice = qualities.take("eu", words(&[of(2, "voice", &[1])]), start);
        assert_eq!(voice, Taken::default());
        assert!(qualities.records.len() <= TENANT_RECORDS_MAX + 1);
        for tenant in 3..300 {
            let services: Vec<_> =
                (0..10).map(|number| of(tenant, &format!("s-{number}"), &[1])).collect();
            qualities.take("eu", words(&services), start);
        }
        assert!(qualities.records.len() <= RECORDS_MAX);
        let all: u64 = told(&qualities, 300, start).iter().map(|(_, reports, _)| reports).sum();
        assert_eq!(all, 3_000 + 1 + 297 * 10);
    }
}
