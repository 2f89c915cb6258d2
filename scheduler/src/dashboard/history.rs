//! An hour of samples, ten seconds apart, in bounded memory: 4 KB for a link, 3 KB for a relay, 7 KB for what users feel of
//! a service in a region and class, at most 34 MB.
//!
//! All series share one row of times, a ring. A series is kept while one of its samples is known. Links come from
//! overviews, so that of a large mesh those are remembered that carry most or are unwell.

use std::collections::BTreeMap;

use overway_quality::{Felt, Sketch};
use overway_scheduler_core::{LinkStatus, Overview, QualityStatus, RelayGlance};
use overway_wire::control::State;
use overway_wire::{BitsPerSec, Class, LinkId, RelayId};

use crate::api::{HistoryBody, ServiceQualityBody, loss_ppm};

/// Samples of a series: an hour.
const SAMPLES: usize = 360;
/// Links with a series; further ones have none until another's hour is over. 18 MB.
const LINKS_MAX: usize = 4_096;
/// Services, regions and classes with a series of what is felt, as for links. 2 MB.
const FELT_MAX: usize = 256;
/// Not known.
const UNKNOWN: u32 = u32::MAX;
/// Bits per second are kept as kilobits.
const KILO: u64 = 1_000;

/// Values of one thing, by the place of their time in the ring; `N` a time.
#[derive(Debug)]
struct Series<const N: usize>(Box<[[u32; N]; SAMPLES]>);

impl<const N: usize> Series<N> {
    fn new() -> Self {
        Self(Box::new([[UNKNOWN; N]; SAMPLES]))
    }

    fn is_known(&self) -> bool {
        self.0.iter().flatten().any(|&value| value != UNKNOWN)
    }
}

/// What users feel of: as [`ServiceQualityBody`] names it, what is `null` there being `None`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FeltKey {
    pub(crate) tenant: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) class: Class,
}

/// What a history is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Mesh,
    Relay(RelayId),
    Link(LinkId),
    Felt(FeltKey),
}

/// The last hour.
#[derive(Debug)]
pub(crate) struct History {
    /// By place; the newest before `next`.
    at_unix_ms: Vec<u64>,
    /// Where the next sample goes.
    next: usize,
    mesh: Series<4>,
    relays: BTreeMap<RelayId, Series<2>>,
    links: BTreeMap<LinkId, Series<3>>,
    /// What all users feel together.
    felt_by_all: Series<5>,
    felt: BTreeMap<FeltKey, Series<5>>,
}

/// Names of what is felt: quantiles, and the share of all frames that were lost.
const FELT: [&str; 5] = [
    "felt_delay_p50_us",
    "felt_delay_p99_us",
    "felt_gap_p99_us",
    "felt_loss_ppm",
    "felt_stall_p99_us",
];

impl Default for History {
    fn default() -> Self {
        Self {
            at_unix_ms: Vec::new(),
            next: 0,
            mesh: Series::new(),
            relays: BTreeMap::new(),
            links: BTreeMap::new(),
            felt_by_all: Series::new(),
            felt: BTreeMap::new(),
        }
    }
}

impl History {
    /// Takes a sample of everything, `felt` being what users felt lately; the oldest goes.
    pub(crate) fn add(&mut self, overview: &Overview, felt: &[QualityStatus], at_unix_ms: u64) {
        let place = self.next;
        match self.at_unix_ms.get_mut(place) {
            Some(at) => *at = at_unix_ms,
            None => self.at_unix_ms.push(at_unix_ms),
        }
        self.next = (place + 1) % SAMPLES;
        self.relays.values_mut().for_each(|series| series.0[place] = [UNKNOWN; 2]);
        self.links.values_mut().for_each(|series| series.0[place] = [UNKNOWN; 3]);
        self.relays.retain(|_, series| series.is_known());
        self.links.retain(|_, series| series.is_known());
        self.mesh.0[place] = mesh(overview);
        self.add_felt(felt, place);
        for (status, glance) in overview.relays.iter().filter(|(status, _)| status.registered) {
            let RelayGlance { received, sent, .. } = glance;
            let series = self.relays.entry(status.id).or_insert_with(Series::new);
            series.0[place] = [kilobits(*sent), kilobits(*received)];
        }
        for link in overview.links.iter().filter(|link| link.known) {
            let has_room = self.links.len() < LINKS_MAX;
            if let Some(series) = self.links.get_mut(&link.id) {
                series.0[place] = sample(link);
            } else if has_room {
                let mut series = Series::new();
                series.0[place] = sample(link);
                self.links.insert(link.id, series);
            }
        }
    }

    fn add_felt(&mut self, felt: &[QualityStatus], place: usize) {
        self.felt.values_mut().for_each(|series| series.0[place] = [UNKNOWN; 5]);
        self.felt.retain(|_, series| series.is_known());
        let mut all = Felt::default();
        for status in felt.iter().filter(|status| !status.felt.is_empty()) {
            all.merge(&status.felt);
            let (key, values) = (FeltKey::new(status), felt_sample(&status.felt));
            let has_room = self.felt.len() < FELT_MAX;
            if let Some(series) = self.felt.get_mut(&key) {
                series.0[place] = values;
            } else if has_room {
                let mut series = Series::new();
                series.0[place] = values;
                self.felt.insert(key, series);
            }
        }
        self.felt_by_all.0[place] = felt_sample(&all);
    }

    /// What is remembered of something, oldest first.
    pub(crate) fn of(&self, subject: &Subject) -> HistoryBody {
        let series = match subject {
            Subject::Mesh => {
                let names = ["received_bps", "delay_us", "loss_ppm", "links_unusable"];
                let mut series = self.named(Some(&self.mesh), names);
                series.extend(self.named(Some(&self.felt_by_all), FELT));
                series
            }
            Subject::Relay(id) => self.named(self.relays.get(id), ["sent_bps", "received_bps"]),
            Subject::Link(id) => {
                self.named(self.links.get(id), ["delay_us", "loss_ppm", "received_bps"])
            }
            Subject::Felt(key) => self.named(self.felt.get(key), FELT),
        };
        HistoryBody { at_unix_ms: self.places().map(|at| self.at_unix_ms[at]).collect(), series }
    }

    fn named<const N: usize>(
        &self,
        series: Option<&Series<N>>,
        names: [&str; N],
    ) -> BTreeMap<String, Vec<Option<u64>>> {
        let Some(series) = series else { return BTreeMap::new() };
        let column = |(column, name): (usize, &str)| {
            let unit = if name.ends_with("_bps") { KILO } else { 1 };
            let value = |value: u32| (value != UNKNOWN).then_some(u64::from(value) * unit);
            let values = self.places().map(|at| value(series.0[at][column]));
            (name.to_owned(), values.collect())
        };
        names.into_iter().enumerate().map(column).collect()
    }

    /// Places in the ring, oldest first.
    fn places(&self) -> impl Iterator<Item = usize> {
        let (count, next) = (self.at_unix_ms.len(), self.next);
        (0..count).map(move |at| if count < SAMPLES { at } else { (next + at) % SAMPLES })
    }
}

impl FeltKey {
    fn new(status: &QualityStatus) -> Self {
        let (tenant, service, region) = ServiceQualityBody::names(status);
        Self { tenant, service, region, class: status.key.class }
    }
}

fn felt_sample(felt: &Felt) -> [u32; 5] {
    let at = |sketch: &Sketch, share| sketch.quantile(share).unwrap_or(UNKNOWN);
    // Streams lose nothing, so that where no datagram flow reports a loss is not known rather than none.
    let loss = if felt.loss_ppm.is_empty() { None } else { lost_ppm(felt) };
    [
        at(&felt.delay_us, 0.5),
        at(&felt.delay_us, 0.99),
        at(&felt.gap_us, 0.99),
        loss.unwrap_or(UNKNOWN),
        at(&felt.stall_us, 0.99),
    ]
}

/// Of a million deliveries, lost.
fn lost_ppm(felt: &Felt) -> Option<u32> {
    let ppm = felt.lost.saturating_mul(1_000_000).checked_div(felt.due)?;
    u32::try_from(ppm).ok()
}

fn sample(link: &LinkStatus) -> [u32; 3] {
    // Delay and loss of a dead link are of when it lived.
    let lives = link.usable || link.inbound == State::Up;
    let delay = link.delay.filter(|_| lives).map_or(UNKNOWN, |delay| delay.0);
    let slow = link.slow.filter(|window| lives && window.samples > 0);
    [delay, slow.map_or(UNKNOWN, loss_ppm), kilobits(link.received)]
}

/// Traffic, the median delay and the mean loss of the links that are listed, and how many links are unusable.
fn mesh(overview: &Overview) -> [u32; 4] {
    let listed = || overview.links.iter().filter(|link| link.known && link.usable);
    let received = overview.relays.iter().map(|(_, glance)| glance.received.0);
    let received = BitsPerSec(received.fold(0, u64::saturating_add));
    let mut delays: Vec<u32> =
        listed().filter_map(|link| link.delay).map(|delay| delay.0).collect();
    delays.sort_unstable();
    let delay = delays.get(delays.len() / 2).copied().unwrap_or(UNKNOWN);
    let losses: Vec<u64> = listed()
        .filter_map(|link| link.slow)
        .filter(|window| window.samples > 0)
        .map(|window| u64::from(loss_ppm(window)))
        .collect();
    let mean = losses.iter().sum::<u64>().checked_div(losses.len() as u64);
    let loss = mean.map_or(UNKNOWN, |mean| u32::try_from(mean).unwrap_or(UNKNOWN));
    let unusable = u32::try_from(overview.counts.unusable).unwrap_or(UNKNOWN);
    [kilobits(received), delay, loss, unusable]
}

fn kilobits(rate: BitsPerSec) -> u32 {
    u32::try_from(rate.0 / KILO).unwrap_or(UNKNOWN - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_scheduler_core::{LinkCounts, QualityKey, Scheduler};
    use overway_wire::{LinkIndex, Micros, PolicyId};
    use std::time::Instant;

    fn link(from: u16, received: u64) -> LinkStatus {
        LinkStatus {
            id: id(from),
            usable: true,
            trial: false,
            known: true,
            mtu: 0,
            inbound: State::Up,
            outbound: State::Up,
            fast: None,
            slow: None,
            delay: Some(Micros(7)),
            received: BitsPerSec(received),
            capacity: BitsPerSec(0),
            load: overway_wire::Permille(0),
            role: overway_wire::control::Role::Idle,
        }
    }

    fn id(from: u16) -> LinkId {
        LinkId::new(RelayId(from), RelayId(9_999), LinkIndex::default())
    }

    fn overview(links: Vec<LinkStatus>) -> Overview {
        let core = Scheduler::new(overway_scheduler_core::Config::default(), 1, Instant::now());
        Overview { links, counts: LinkCounts::default(), ..core.overview(0, Instant::now()) }
    }

    #[test]
    fn a_link_has_a_value_for_each_time_and_unknown_where_it_was_not_seen() {
        let mut history = History::default();
        history.add(&overview(vec![]), &[], 1_000);
        history.add(&overview(vec![link(1, 64_999)]), &[], 2_000);
        history.add(&overview(vec![LinkStatus { known: false, ..link(1, 5) }]), &[], 3_000);

        let body = history.of(&Subject::Link(id(1)));

        assert_eq!(body.at_unix_ms, [1_000, 2_000, 3_000]);
        assert_eq!(body.series["received_bps"], [None, Some(64_000), None]);
        assert_eq!(body.series["delay_us"], [None, Some(7), None]);
        assert_eq!(body.series["loss_ppm"], [None; 3]);
        assert!(history.of(&Subject::Link(id(2))).series.is_empty());
        assert_eq!(history.of(&Subject::Mesh).series["delay_us"], [None, Some(7), None]);
    }

    fn felt(service: &str, delay_us: u32, lost: u64) -> QualityStatus {
        let mut felt = Felt { reports: 1, due: 1_000, lost, ..Felt::default() };
        felt.delay_us.add(delay_us);
        felt.loss_ppm.add(u32::try_from(lost * 1_000).unwrap());
        let (service, region) = (service.to_owned(), String::new());
        QualityStatus {
            key: QualityKey { tenant: PolicyId(0), service, region, class: Class::Realtime },
            tenant_name: None,
            felt,
            totals: Felt::default(),
        }
    }

    fn felt_of(service: &str) -> Subject {
        Subject::Felt(FeltKey::new(&felt(service, 0, 0)))
    }

    #[test]
    fn what_users_feel_is_kept_by_service_and_together_and_gaps_nobody_told_of_are_unknown() {
        let mut history = History::default();
        history.add(&overview(vec![]), &[felt("voice", 40, 10), felt("chat", 60, 0)], 1_000);
        history.add(&overview(vec![]), &[felt("voice", 50, 0)], 2_000);

        let voice = history.of(&felt_of("voice")).series;
        assert_eq!(voice["felt_delay_p99_us"], [Some(40), Some(50)]);
        assert_eq!(voice["felt_loss_ppm"], [Some(10_000), Some(0)]);
        assert_eq!(voice["felt_gap_p99_us"], [None; 2]);
        assert_eq!(history.of(&felt_of("chat")).series["felt_delay_p50_us"], [Some(60), None]);
        let all = history.of(&Subject::Mesh).series;
        assert_eq!(all["felt_loss_ppm"], [Some(5_000), Some(0)]);
        assert!(history.of(&felt_of("mail")).series.is_empty());
    }

    #[test]
    fn services_beyond_the_bound_are_not_kept_but_count_together() {
        let mut history = History::default();
        let many: Vec<_> = (0..=FELT_MAX).map(|at| felt(&format!("s{at}"), 7, 0)).collect();

        history.add(&overview(vec![]), &many, 0);

        assert_eq!(history.felt.len(), FELT_MAX);
        assert_eq!(history.of(&Subject::Mesh).series["felt_delay_p50_us"], [Some(7)]);
    }

    #[test]
    fn an_hour_is_kept_and_a_link_that_was_not_seen_in_it_is_forgotten() {
        let mut history = History::default();
        history.add(&overview(vec![link(1, 0)]), &[], 0);
        for at in 1..=SAMPLES as u64 {
            history.add(&overview(vec![]), &[], at);
        }

        let times = history.of(&Subject::Mesh).at_unix_ms;
        assert_eq!((times.len(), times[0], times[SAMPLES - 1]), (SAMPLES, 1, SAMPLES as u64));
        assert!(history.links.is_empty());
    }

    #[test]
    fn links_beyond_the_bound_are_not_kept() {
        let mut history = History::default();
        let many = (0..=LINKS_MAX).map(|from| link(u16::try_from(from).unwrap(), 0)).collect();

        history.add(&overview(many), &[], 0);

        assert_eq!(history.links.len(), LINKS_MAX);
    }
}
