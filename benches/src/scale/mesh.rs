//! Fake relays around a scheduler's core, second by second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use overway_scheduler_core::{Config, Scheduler, Stats};
use overway_wire::RelayId;
use overway_wire::control::{
    Ack, Demand, Hello, LinkReport, Report, ToRelay, ToScheduler, VERSION_MAX, VERSION_MIN, item,
    to_relay,
};
use prost::Message;

use super::noise::{self, Place};
use super::threads::Threads;

/// From a relay to the scheduler and back.
const ACK_DELAY: Duration = Duration::from_millis(50);
/// A plan of everything takes longer than this where it is worth waiting for its end, and one of some links less.
const CALM_MS: f64 = 10_000.0;
/// The scheduler is told that it was late from here on.
const LATE: Duration = Duration::from_secs(1);
/// Reports between two that say everything.
const FULL_EVERY: u64 = 30;
/// What a relay's line carries.
const CAPACITY_BPS: u64 = 1_000_000_000;
/// The greatest demand; most are far smaller.
const DEMAND_BPS: f64 = 400_000_000.0;
/// Sources that are looked at in the end for whom they reach.
const LOOKED_AT: usize = 40;

/// What is measured, and at which size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) relays: u16,
    /// Share of the links that change each second.
    pub(crate) changing: f64,
    pub(crate) threads: usize,
    pub(crate) demands: usize,
    pub(crate) seed: u64,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub(super) epochs_ms: Vec<f64>,
    pub(super) report_ms_per_s: f64,
    pub(super) push_bytes_per_relay_s: f64,
    pub(super) report_bytes_per_relay_s: f64,
    pub(super) routes_changed_per_s: f64,
    pub(super) links_judged_per_s: f64,
    pub(super) neighbours_mean: f64,
    pub(super) reachable_share: f64,
}

/// The mesh.
pub(crate) struct Mesh {
    size: Size,
    scheduler: Scheduler,
    rng: fastrand::Rng,
    now: Instant,
    relays: Vec<Fake>,
    acks: VecDeque<(Instant, RelayId, Ack)>,
    tally: Tally,
    before: Stats,
}

/// A relay as far as the scheduler can tell.
struct Fake {
    place: Place,
    /// What it measured last, by peer; nothing yet of those that are new.
    peers: BTreeMap<u16, Option<LinkReport>>,
    revision: u64,
    sequence: u64,
    demands: Vec<Demand>,
}

#[derive(Clone, Debug, Default)]
struct Tally {
    seconds: u32,
    epochs_ms: Vec<f64>,
    report_ms: f64,
    push_bytes: usize,
    report_bytes: usize,
}

impl Mesh {
    pub(crate) fn new(size: Size) -> Self {
        let mut rng = fastrand::Rng::with_seed(size.seed);
        let places = noise::places(size.relays, &mut rng);
        let config = Config { executor: Arc::new(Threads(size.threads)), ..Config::default() };
        let now = Instant::now();
        let fake = |place| Fake {
            place,
            peers: BTreeMap::new(),
            revision: 0,
            sequence: 0,
            demands: demands(size, &mut rng),
        };
        let relays = places.into_iter().map(fake).collect();
        Self {
            size,
            scheduler: Scheduler::new(config, 1, now),
            rng,
            now,
            relays,
            acks: VecDeque::new(),
            tally: Tally::default(),
            before: Stats::default(),
        }
    }

    /// Until links are measured, paths stand, and bounded sets have found who is near.
    pub(super) fn settling_seconds(&self) -> u32 {
        if self.relays.len() > Config::default().full_mesh_max { 60 } else { 20 }
    }

    pub(crate) fn connect(&mut self) {
        let ids: Vec<RelayId> = self.ids().collect();
        for &id in &ids {
            self.scheduler.handle_member(id, format!("relay-{}", id.0));
        }
        for id in ids {
            let hello = hello(id, &self.fake(id).place);
            self.scheduler.handle_hello(id, hello, self.now).expect("the hello is of a member");
            self.report(id);
        }
    }

    /// Whether the last plan was of what changed, and not of everything.
    pub(super) fn is_calm(&self) -> bool {
        self.tally.epochs_ms.last().is_some_and(|&took| took < CALM_MS)
    }

    pub(super) fn begin_measuring(&mut self) {
        self.tally = Tally::default();
        self.before = *self.scheduler.stats();
    }

    /// Every relay reports once, spread over a second.
    pub(crate) fn pass_second(&mut self) {
        let start = self.now;
        let count = u32::from(self.size.relays);
        for (at, id) in (0..).zip(self.ids().collect::<Vec<_>>()) {
            self.advance(start + Duration::from_secs(1) * at / count);
            let began = Instant::now();
            self.report(id);
            self.tally.report_ms += millis(began);
        }
        self.advance(start + Duration::from_secs(1));
        self.tally.seconds += 1;
    }

    /// One link of one relay changes: the time from its report until the last update is encoded, in milliseconds. The
    /// wait for the epoch is not in it.
    pub(crate) fn one_link_changes(&mut self) -> f64 {
        self.stay_heard();
        let id = RelayId(self.rng.u16(1..=self.size.relays));
        let peers: Vec<u16> = self.fake(id).peers.keys().copied().collect();
        let peer = peers[self.rng.usize(..peers.len())];
        let from = self.relays[usize::from(peer) - 1].place;
        let to = self.fake(id).place;
        let seed = self.size.seed << 32 | u64::from(peer) << 16 | u64::from(id.0);
        let links = vec![noise::measure(peer.into(), &from, &to, seed, &mut self.rng)];
        let fake = self.fake_mut(id);
        fake.peers.insert(peer, links.first().cloned());
        fake.sequence += 1;
        let (sequence, demands) = (fake.sequence, fake.demands.clone());
        let report = Report { sequence, links, demands, ..Report::default() };
        let began = Instant::now();
        let taken = self.scheduler.handle_message(id, report.into(), self.now);
        taken.expect("the report is true");
        let mut spent = millis(began);
        self.tally.epochs_ms.clear();
        self.advance(self.now + Duration::from_millis(1_500));
        spent += self.tally.epochs_ms.first().copied().unwrap_or_default();
        spent
    }

    /// Every relay reports that nothing changed.
    fn stay_heard(&mut self) {
        for id in self.ids() {
            let fake = self.fake_mut(id);
            fake.sequence += 1;
            let (sequence, demands) = (fake.sequence, fake.demands.clone());
            let report = Report { sequence, demands, ..Report::default() };
            let taken = self.scheduler.handle_message(id, report.into(), self.now);
            taken.expect("the report is true");
        }
        self.advance(self.now + Duration::from_millis(1_100));
    }

    pub(super) fn progress(&self) -> String {
        let links: usize = self.relays.iter().map(|fake| fake.peers.len()).sum();
        let last = self.tally.epochs_ms.last().copied().unwrap_or_default();
        let stats = self.scheduler.stats();
        let changed = stats.routes_changed;
        format!(
            "{links} links, {} epochs, the last in {last:.0} ms, {changed} routes changed",
            stats.epochs
        )
    }

    pub(super) fn finish(self) -> Measured {
        let seconds = f64::from(self.tally.seconds.max(1));
        let relays = f64::from(self.size.relays);
        let stats = self.scheduler.stats();
        let rate = |after: u64, before: u64| count(after - before) / seconds;
        let links: usize = self.relays.iter().map(|fake| fake.peers.len()).sum();
        Measured {
            report_ms_per_s: self.tally.report_ms / seconds,
            push_bytes_per_relay_s: size(self.tally.push_bytes) / relays / seconds,
            report_bytes_per_relay_s: size(self.tally.report_bytes) / relays / seconds,
            routes_changed_per_s: rate(stats.routes_changed, self.before.routes_changed),
            links_judged_per_s: rate(stats.links_judged, self.before.links_judged),
            neighbours_mean: size(links) / relays,
            reachable_share: self.reachable_share(),
            epochs_ms: self.tally.epochs_ms,
        }
    }

    fn reachable_share(&self) -> f64 {
        let step = self.relays.len().div_ceil(LOOKED_AT);
        let sources: Vec<RelayId> = self.ids().step_by(step).collect();
        let reached: usize = sources
            .iter()
            .map(|&id| {
                let routes = self.scheduler.routes_from(id);
                routes.iter().map(|route| route.key.destination).collect::<BTreeSet<_>>().len()
            })
            .sum();
        size(reached) / size(sources.len() * (self.relays.len() - 1))
    }

    /// Lets time pass, with what is due at the scheduler.
    fn advance(&mut self, until: Instant) {
        loop {
            let ack = self.acks.front().map(|(at, ..)| *at);
            let due = [ack, self.scheduler.poll_timeout()].into_iter().flatten().min();
            let Some(at) = due.filter(|at| *at <= until) else { break };
            self.now = at.max(self.now);
            if ack == Some(at)
                && let Some((_, id, ack)) = self.acks.pop_front()
            {
                let taken = self.scheduler.handle_message(id, ack.into(), self.now);
                taken.expect("the relay is connected");
                self.deliver();
                continue;
            }
            let plans = self.scheduler.stats().plans;
            let began = Instant::now();
            self.scheduler.handle_timeout(self.now);
            self.deliver();
            if self.scheduler.stats().plans > plans {
                self.tally.epochs_ms.push(millis(began));
            }
            // As in the scheduler's process: the mesh does not wait for a long plan.
            let took = began.elapsed();
            if took >= LATE {
                self.now += took;
                self.scheduler.handle_stall(took, self.now);
            }
        }
        self.now = until.max(self.now);
        while self.scheduler.poll_event().is_some() {}
    }

    /// Encodes and delivers what the scheduler has to send.
    fn deliver(&mut self) {
        while let Some((id, message)) = self.scheduler.poll_transmit() {
            self.tally.push_bytes += message.encode_to_vec().len();
            let revision = self.fake_mut(id).take(message);
            self.acks.push_back((self.now + ACK_DELAY, id, Ack { revision, resync: false }));
        }
    }

    fn report(&mut self, id: RelayId) {
        let (changing, seed) = (self.size.changing, self.size.seed);
        let at = usize::from(id.0) - 1;
        let mut peers = std::mem::take(&mut self.relays[at].peers);
        let fake = &self.relays[at];
        let full = fake.sequence % FULL_EVERY == u64::from(id.0) % FULL_EVERY;
        let mut links = Vec::new();
        for (&peer, measured) in &mut peers {
            let changes = measured.is_none() || self.rng.f64() < changing;
            if changes {
                let from = &self.relays[usize::from(peer) - 1].place;
                let seed = seed << 32 | u64::from(peer) << 16 | u64::from(id.0);
                let noise = &mut self.rng;
                *measured = Some(noise::measure(peer.into(), from, &fake.place, seed, noise));
            }
            links.extend(measured.clone().filter(|_| changes || full));
        }
        let mut demands = fake.demands.clone();
        for demand in &mut demands {
            demand.bps = demand.bps / 100 * self.rng.u64(80..120);
        }
        let fake = self.fake_mut(id);
        fake.peers = peers;
        fake.sequence += 1;
        let report = Report { sequence: fake.sequence, full, links, demands, ..Report::default() };
        let message = ToScheduler::from(report);
        self.tally.report_bytes += message.encoded_len();
        let taken = self.scheduler.handle_message(id, message, self.now);
        taken.expect("the report is true");
    }

    fn ids(&self) -> impl Iterator<Item = RelayId> + use<> {
        (1..=self.size.relays).map(RelayId)
    }

    fn fake(&self, id: RelayId) -> &Fake {
        &self.relays[usize::from(id.0) - 1]
    }

    fn fake_mut(&mut self, id: RelayId) -> &mut Fake {
        &mut self.relays[usize::from(id.0) - 1]
    }
}

impl Fake {
    /// Takes an update; returns the revision that it makes.
    fn take(&mut self, message: ToRelay) -> u64 {
        let Some(to_relay::Body::Update(update)) = message.body else { return self.revision };
        if update.base == 0 {
            self.peers.clear();
        }
        assert!(update.base == 0 || update.base == self.revision, "updates come in order");
        let id = |relay: u32| u16::try_from(relay).expect("relays have ids of 16 bits");
        for key in
            update.remove.iter().filter(|key| key.sort() == overway_wire::control::Sort::Peer)
        {
            self.peers.remove(&id(key.relay));
        }
        for item in &update.put {
            if let Some(item::Body::Peer(peer)) = &item.body {
                self.peers.entry(id(peer.neighbour)).or_default();
            }
        }
        self.revision = update.revision;
        self.revision
    }
}

fn hello(id: RelayId, place: &Place) -> Hello {
    let [high, low] = id.0.to_be_bytes();
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        boot: u32::from(id.0),
        name: format!("relay-{}", id.0),
        software: "bench".to_owned(),
        addresses: vec![format!("10.0.{high}.{low}:4400")],
        region: format!("region-{}", place.cluster),
        provider: format!("provider-{}", place.provider),
        capacity_bps: CAPACITY_BPS,
        price_per_gb: 1_000 * u32::from(place.provider),
        ..Hello::default()
    }
}

/// What a relay's users send: much to few, little to most.
fn demands(size: Size, rng: &mut fastrand::Rng) -> Vec<Demand> {
    let mut demand = || Demand {
        destination: u32::from(rng.u16(1..=size.relays)),
        class: rng.u32(0..3),
        policy: 0,
        bps: bits(DEMAND_BPS * rng.f64().powi(6)),
    };
    (0..size.demands).map(|_| demand()).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are far smaller"
)]
fn bits(rate: f64) -> u64 {
    rate.max(0.0) as u64
}

#[expect(clippy::cast_precision_loss, reason = "counts are far smaller")]
fn count(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far smaller")]
fn size(number: usize) -> f64 {
    number as f64
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}
