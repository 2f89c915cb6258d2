//! A mesh of fake relays around a real scheduler, in virtual time.
//!
//! A fake relay takes updates as a real one has to: whole or not at all, only onto the base they name,
//! only of a greater epoch. It reports each second on the links that it was told of, by the world's
//! truth: who is dead, which directed links are cut, and how far relays are apart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use overway_scheduler_core::{Config, Event, HelloError, Scheduler};
use overway_wire::control::{
    AccessUse, Ack, Endpoint, Goodbye, Hello, Item, Key, LinkReport, OFFERS_VERSION, Offer, Offers,
    Peer, Place, Report, Role, Route, State, Tenant, ToRelay, Update, Window, item, to_relay,
};
use overway_wire::{Class, Epoch, LinkId, LinkIndex, Path, RelayId};

/// How often fake relays report.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A relay as far as the scheduler can tell.
#[derive(Clone, Debug)]
pub(crate) struct FakeRelay {
    pub(crate) hello: Hello,
    pub(crate) items: BTreeMap<Key, Item>,
    pub(crate) epoch: Epoch,
    pub(crate) revision: u64,
    pub(crate) connected: bool,
    /// Sends no reports by itself.
    pub(crate) silent: bool,
    /// What a copy of its disk holds.
    backup: (BTreeMap<Key, Item>, u64, Epoch),
    /// What edges offer there.
    pub(crate) offers: Vec<Offer>,
    /// What edges use of it.
    pub(crate) access: Option<AccessUse>,
    /// A dead relay says nothing, and nobody hears it.
    pub(crate) alive: bool,
    sequence: u64,
    clock_us: i64,
}

pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) now: Instant,
    pub(crate) relays: BTreeMap<RelayId, FakeRelay>,
    pub(crate) removed: BTreeSet<RelayId>,
    /// Directed links on which nothing arrives.
    pub(crate) cut: BTreeSet<LinkId>,
    /// A relay whose heartbeats make others measure an absurd jitter.
    pub(crate) absurd_jitter_of: Option<RelayId>,
    /// Updates that get lost on the way, from now on.
    pub(crate) lose_updates: usize,
    /// Acknowledgements that are still on their way, while they are slow.
    pub(crate) slow_acks: Option<Vec<(RelayId, Ack)>>,
    pub(crate) events: Vec<Event>,
    next_report: Instant,
    term: u64,
}

pub(crate) fn id(relay: u16) -> RelayId {
    RelayId(relay)
}

pub(crate) fn link(from: u16, to: u16, index: u8) -> LinkId {
    LinkId::new(id(from), id(to), LinkIndex::new(index).unwrap())
}

pub(crate) fn hello(relay: u16, lines: u16) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        boot: u32::from(relay) << 8,
        name: format!("relay-{relay}"),
        addresses: (0..lines).map(|line| format!("10.0.{line}.{relay}:4400")).collect(),
        region: "lab".into(),
        provider: format!("p{}", relay % 3),
        capacity_bps: 1_000_000_000,
        ..Hello::default()
    }
}

impl World {
    /// Relays 1 to `count` with one line each, as members that have not said hello.
    pub(crate) fn new(count: u16) -> Self {
        Self::with(Config::default(), count)
    }

    pub(crate) fn with(config: Config, count: u16) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let now = Instant::now();
        let mut world = Self {
            scheduler: Scheduler::new(config, 1, now),
            now,
            relays: BTreeMap::new(),
            removed: BTreeSet::new(),
            cut: BTreeSet::new(),
            absurd_jitter_of: None,
            lose_updates: 0,
            slow_acks: None,
            events: Vec::new(),
            next_report: now + REPORT_INTERVAL,
            term: 1,
        };
        for relay in 1..=count {
            world.add(relay, 1);
        }
        world
    }

    /// The same, all connected and settled, with links measured and routes pushed.
    pub(crate) fn running(count: u16) -> Self {
        let mut world = Self::new(count);
        world.connect_all();
        world.advance(Duration::from_secs(15));
        world.events.clear();
        world
    }

    pub(crate) fn add(&mut self, relay: u16, lines: u16) {
        let fake = FakeRelay {
            hello: hello(relay, lines),
            items: BTreeMap::new(),
            epoch: Epoch::default(),
            revision: 0,
            offers: Vec::new(),
            access: None,
            connected: false,
            silent: false,
            backup: (BTreeMap::new(), 0, Epoch::default()),
            alive: true,
            sequence: 0,
            clock_us: i64::from(relay) * 86_400_000_123 - 500_000_000_000,
        };
        self.scheduler.handle_member(id(relay), fake.hello.name.clone());
        self.relays.insert(id(relay), fake);
    }

    pub(crate) fn connect_all(&mut self) {
        for relay in self.relays.keys().copied().collect::<Vec<_>>() {
            self.connect(relay).unwrap();
        }
    }

    pub(crate) fn connect(&mut self, relay: RelayId) -> Result<(), HelloError> {
        self.slow_acks.iter_mut().for_each(|acks| acks.retain(|(of, _)| *of != relay));
        let fake = self.relays.get_mut(&relay).unwrap();
        fake.hello.revision = fake.revision;
        (fake.hello.epoch_term, fake.hello.epoch_sequence) = (fake.epoch.term, fake.epoch.sequence);
        (fake.connected, fake.sequence) = (true, 0);
        let welcome = self.scheduler.handle_hello(relay, fake.hello.clone(), self.now);
        if welcome.is_err() {
            self.relays.get_mut(&relay).unwrap().connected = false;
        }
        welcome.map(|welcome| {
            if welcome.version >= OFFERS_VERSION {
                self.tell_offers(relay);
            }
            self.report(relay);
        })
    }

    /// Edges offer this at a relay now.
    pub(crate) fn offer(&mut self, relay: RelayId, offers: Vec<Offer>) {
        self.relays.get_mut(&relay).unwrap().offers = offers;
        self.tell_offers(relay);
    }

    fn tell_offers(&mut self, relay: RelayId) {
        let offers = Offers { offers: self.relays[&relay].offers.clone() };
        self.scheduler.handle_message(relay, offers.into(), self.now).unwrap();
    }

    pub(crate) fn disconnect(&mut self, relay: RelayId) {
        if std::mem::take(&mut self.relays.get_mut(&relay).unwrap().connected) {
            self.scheduler.handle_disconnected(relay, self.now);
        }
    }

    /// The relay's process dies: its session ends, and its neighbours say so at once.
    pub(crate) fn kill(&mut self, relay: RelayId) {
        self.relays.get_mut(&relay).unwrap().alive = false;
        self.disconnect(relay);
        self.report_all();
    }

    /// The relay's process starts again, with what it had on its disk or without.
    pub(crate) fn restart(&mut self, relay: RelayId, keeps_state: bool) {
        self.disconnect(relay);
        let fake = self.relays.get_mut(&relay).unwrap();
        fake.alive = true;
        fake.hello.boot += 1;
        if !keeps_state {
            fake.items.clear();
            (fake.revision, fake.epoch) = (0, Epoch::default());
        }
    }

    /// Copies the relay's disk.
    pub(crate) fn back_up(&mut self, relay: RelayId) {
        let fake = self.relays.get_mut(&relay).unwrap();
        fake.backup = (fake.items.clone(), fake.revision, fake.epoch);
    }

    /// The relay's process starts again with the copy of its disk.
    pub(crate) fn restore(&mut self, relay: RelayId) {
        self.restart(relay, true);
        let fake = self.relays.get_mut(&relay).unwrap();
        (fake.items, fake.revision, fake.epoch) = fake.backup.clone();
    }

    /// Delivers the acknowledgements that were slow.
    pub(crate) fn deliver_acks(&mut self) {
        for (relay, ack) in self.slow_acks.take().into_iter().flatten() {
            if self.relays.get(&relay).is_some_and(|fake| fake.connected) {
                self.scheduler.handle_message(relay, ack.into(), self.now).unwrap();
            }
        }
    }

    pub(crate) fn goodbye(&mut self, relay: RelayId) {
        self.scheduler.handle_message(relay, Goodbye {}.into(), self.now).unwrap();
    }

    pub(crate) fn remove(&mut self, relay: RelayId) {
        self.scheduler.handle_removed(relay, self.now);
        self.removed.insert(relay);
        self.relays.remove(&relay);
    }

    /// A new scheduler of the next term, which no relay has found yet.
    pub(crate) fn restart_scheduler(&mut self) {
        self.term += 1;
        self.scheduler = Scheduler::new(Config::default(), self.term, self.now);
        for (&relay, fake) in &mut self.relays {
            fake.connected = false;
            self.scheduler.handle_member(relay, fake.hello.name.clone());
        }
        for &relay in &self.removed {
            self.scheduler.handle_removed(relay, self.now);
        }
    }

    /// The scheduler takes a greater term, and closes every connection.
    pub(crate) fn raise_term(&mut self, term: u64) {
        self.term = term;
        self.scheduler.handle_term(term, self.now);
        for fake in self.relays.values_mut() {
            fake.connected = false;
        }
        self.pump();
    }

    /// The relay reports only what the test says.
    pub(crate) fn silence(&mut self, relay: RelayId) {
        self.relays.get_mut(&relay).unwrap().silent = true;
    }

    pub(crate) fn silence_all(&mut self) {
        self.relays.values_mut().for_each(|relay| relay.silent = true);
    }

    pub(crate) fn report_all(&mut self) {
        for relay in self.relays.keys().copied().collect::<Vec<_>>() {
            self.report(relay);
        }
    }

    /// A full report by the world's truth, if the relay can send one.
    pub(crate) fn report(&mut self, relay: RelayId) {
        let fake = &self.relays[&relay];
        if !fake.alive || !fake.connected || fake.silent {
            return;
        }
        let links = fake.peers().map(|peer| self.link_report(relay, peer)).collect();
        let fake = self.relays.get_mut(&relay).unwrap();
        fake.sequence += 1;
        let (sequence, access) = (fake.sequence, fake.access.clone());
        let report = Report { sequence, full: true, links, access, ..Report::default() };
        self.scheduler.handle_message(relay, report.into(), self.now).unwrap();
    }

    fn link_report(&self, reporter: RelayId, peer: &Peer) -> LinkReport {
        let neighbour = RelayId(u16::try_from(peer.neighbour).unwrap());
        let index = LinkIndex::new(u8::try_from(peer.index).unwrap()).unwrap();
        let inbound = LinkId::new(neighbour, reporter, index);
        let heard = self.works(inbound);
        let heard_by = heard && self.works(inbound.reversed());
        let state = |lives| i32::from(if lives { State::Up } else { State::Down });
        let clock = |relay| self.relays.get(&relay).map_or(0, |relay| relay.clock_us);
        let delay_us = i64::from(distance_us(neighbour, reporter));
        let window = Window {
            one_way_diff_us: clock(reporter) - clock(neighbour) + delay_us,
            rtt_us: 2 * distance_us(neighbour, reporter),
            samples: 30,
            jitter_us: if self.absurd_jitter_of == Some(neighbour) { 60_000_001 } else { 0 },
            ..Window::default()
        };
        LinkReport {
            neighbour: peer.neighbour,
            index: peer.index,
            inbound: state(heard),
            outbound: state(heard_by),
            fast: heard.then(|| window.clone()),
            slow: heard.then_some(window),
            received_bps: 0,
            mtu: 0,
        }
    }

    fn works(&self, link: LinkId) -> bool {
        let alive = |relay| self.relays.get(&relay).is_some_and(|relay| relay.alive);
        alive(link.from) && alive(link.to) && !self.cut.contains(&link)
    }

    /// Lets time pass, with everybody's timers and reports.
    pub(crate) fn advance(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.pump();
            let timeout = self.scheduler.poll_timeout().unwrap_or(end);
            self.now = timeout.min(self.next_report).min(end).max(self.now);
            if self.now >= self.next_report {
                self.next_report = self.now + REPORT_INTERVAL;
                self.report_all();
            }
            self.scheduler.handle_timeout(self.now);
            let next = self.scheduler.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a timeout that was handled is past");
            if self.now == end {
                return self.pump();
            }
        }
    }

    /// Delivers updates and their acknowledgements until there are none.
    pub(crate) fn pump(&mut self) {
        while let Some((relay, message)) = self.scheduler.poll_transmit() {
            let fake = self.relays.get_mut(&relay).expect("updates go to members");
            assert!(fake.connected, "updates go to connected relays");
            if self.lose_updates > 0 {
                self.lose_updates -= 1;
                continue;
            }
            let ack = fake.take(message);
            match &mut self.slow_acks {
                Some(acks) => acks.push((relay, ack)),
                None => self.scheduler.handle_message(relay, ack.into(), self.now).unwrap(),
            }
        }
        self.events.extend(std::iter::from_fn(|| self.scheduler.poll_event()));
    }

    /// Every connected relay has exactly what it is to have, but for delays that changed too little to tell.
    pub(crate) fn assert_in_step(&self) {
        for (&relay, fake) in self.relays.iter().filter(|(_, fake)| fake.connected) {
            let intended: BTreeMap<Key, Item> = self.scheduler.pushed(relay).collect();
            assert!(!intended.is_empty(), "{relay} is pushed nothing");
            let held = fake.items.clone().into_iter().map(without_delays);
            let intended = intended.into_iter().map(without_delays);
            let (held, intended): (BTreeMap<_, _>, BTreeMap<_, _>) =
                (held.collect(), intended.collect());
            let keys: BTreeSet<&Key> = held.keys().chain(intended.keys()).collect();
            for key in keys {
                assert_eq!(held.get(key), intended.get(key), "state of {relay}: {key:?}");
            }
        }
    }
}

fn without_delays((key, mut item): (Key, Item)) -> (Key, Item) {
    if let Some(item::Body::Route(route)) = &mut item.body {
        route.paths.iter_mut().for_each(|path| path.delay_us = 0);
    }
    (key, item)
}

impl FakeRelay {
    fn take(&mut self, message: ToRelay) -> Ack {
        let Some(to_relay::Body::Update(update)) = message.body else { panic!("not an update") };
        let epoch = Epoch { term: update.epoch_term, sequence: update.epoch_sequence };
        assert!(epoch > self.epoch, "an update of epoch {epoch}, not above {}", self.epoch);
        if update.base != 0 && update.base != self.revision {
            return Ack { revision: self.revision, resync: true };
        }
        self.epoch = epoch;
        self.apply(update);
        Ack { revision: self.revision, resync: false }
    }

    fn apply(&mut self, update: Update) {
        if update.base == 0 {
            self.items.clear();
        }
        for key in &update.remove {
            self.items.remove(key);
        }
        for item in update.put {
            self.items.insert(item.key().unwrap(), item);
        }
        self.revision = update.revision;
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.bodies().filter_map(|body| match body {
            item::Body::Peer(peer) => Some(peer),
            item::Body::Node(_)
            | item::Body::Route(_)
            | item::Body::Service(_)
            | item::Body::Revoked(_)
            | item::Body::Policy(_)
            | item::Body::Tenant(_)
            | item::Body::TenantService(_)
            | item::Body::AccessRelay(_)
            | item::Body::AccessPrefixes(_) => None,
        })
    }

    pub(crate) fn has_peer(&self, neighbour: u16) -> bool {
        self.peers().any(|peer| peer.neighbour == u32::from(neighbour))
    }

    pub(crate) fn is_candidate(&self, neighbour: u16) -> bool {
        let mut peers = self.peers();
        peers.any(|peer| peer.neighbour == u32::from(neighbour) && peer.role() == Role::Candidate)
    }

    /// Relays of a service; empty if there is none of this name.
    pub(crate) fn service(&self, name: &str) -> Vec<u32> {
        let service = self.bodies().find_map(|body| match body {
            item::Body::Service(service) if service.name == name => Some(service.relays.clone()),
            item::Body::Service(_)
            | item::Body::Node(_)
            | item::Body::Peer(_)
            | item::Body::Route(_)
            | item::Body::Revoked(_)
            | item::Body::Policy(_)
            | item::Body::Tenant(_)
            | item::Body::TenantService(_)
            | item::Body::AccessRelay(_)
            | item::Body::AccessPrefixes(_) => None,
        });
        service.unwrap_or_default()
    }

    /// The relays that a policy allows; none if it is not known.
    pub(crate) fn policy(&self, policy: u32) -> Vec<u32> {
        let policies = self.bodies().filter_map(|body| match body {
            item::Body::Policy(policy) => Some(policy),
            item::Body::Node(_)
            | item::Body::Peer(_)
            | item::Body::Route(_)
            | item::Body::Service(_)
            | item::Body::Revoked(_)
            | item::Body::Tenant(_)
            | item::Body::TenantService(_)
            | item::Body::AccessRelay(_)
            | item::Body::AccessPrefixes(_) => None,
        });
        let mut policies = policies.filter(|known| known.policy == policy);
        policies.next().map(|known| known.relays.clone()).unwrap_or_default()
    }

    /// The tenant of this number, if it is known.
    /// The addresses at which edges of a tenant offer a service, as relay and attachment.
    pub(crate) fn endpoints(&self, tenant: u32, name: &str) -> Vec<Vec<(u32, u32)>> {
        let services = self.items.values().filter_map(|item| match &item.body {
            Some(item::Body::TenantService(service)) => Some(service),
            _ => None,
        });
        let mut named = services.filter(|it| it.tenant == tenant && it.name == name);
        let address = |place: Place| (place.relay, place.attachment);
        let endpoint =
            |it: &Endpoint| [it.first, it.second].into_iter().flatten().map(address).collect();
        named.next().map(|it| it.endpoints.iter().map(endpoint).collect()).unwrap_or_default()
    }

    pub(crate) fn tenant(&self, number: u32) -> Option<&Tenant> {
        self.bodies().find_map(|body| match body {
            item::Body::Tenant(tenant) if tenant.number == number => Some(tenant),
            item::Body::Tenant(_)
            | item::Body::TenantService(_)
            | item::Body::AccessRelay(_)
            | item::Body::AccessPrefixes(_)
            | item::Body::Node(_)
            | item::Body::Peer(_)
            | item::Body::Route(_)
            | item::Body::Service(_)
            | item::Body::Revoked(_)
            | item::Body::Policy(_) => None,
        })
    }

    /// Paths to a relay, best first.
    pub(crate) fn paths(&self, destination: u16, class: Class) -> Vec<Path> {
        self.paths_of(destination, class, 0)
    }

    /// Paths to a relay under a policy, best first.
    pub(crate) fn paths_of(&self, destination: u16, class: Class, policy: u32) -> Vec<Path> {
        let route = self.route(destination, class, policy);
        let paths = route.into_iter().flat_map(|route| &route.paths);
        paths.map(|path| Path::decode(&path.steps).unwrap()).collect()
    }

    /// The shares of the paths to a relay.
    pub(crate) fn weights(&self, destination: u16, class: Class) -> Vec<u32> {
        let route = self.route(destination, class, 0);
        route.into_iter().flat_map(|route| &route.paths).map(|path| path.weight).collect()
    }

    fn route(&self, destination: u16, class: Class, policy: u32) -> Option<&Route> {
        let wanted = |route: &&Route| {
            route.destination == u32::from(destination)
                && route.class == u32::from(class.code())
                && route.policy == policy
        };
        let mut routes = self.bodies().filter_map(|body| match body {
            item::Body::Route(route) => Some(route),
            item::Body::Node(_)
            | item::Body::Peer(_)
            | item::Body::Service(_)
            | item::Body::Revoked(_)
            | item::Body::Policy(_)
            | item::Body::Tenant(_)
            | item::Body::TenantService(_)
            | item::Body::AccessRelay(_)
            | item::Body::AccessPrefixes(_) => None,
        });
        routes.find(wanted)
    }

    fn bodies(&self) -> impl Iterator<Item = &item::Body> {
        self.items.values().filter_map(|item| item.body.as_ref())
    }
}

/// Relays stand on a line a millisecond apart, with a detour-worthy direct link between 1 and 2.
fn distance_us(a: RelayId, b: RelayId) -> u32 {
    let (low, high) = (a.min(b).0, a.max(b).0);
    if (low, high) == (1, 2) { 90_000 } else { 10_000 + 1_000 * u32::from(high - low) }
}
