//! Relays joined by virtual links in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_probe::{LocalClock, State};
use overway_relay_core::{Config, Delivered, Event, LocalFrame, Relay, Stats, Traced, Transmit};
use overway_wire::control::{Item, Peer, Role, Route, RoutePath, Update};
use overway_wire::hop::{HopMessage, Lane};
use overway_wire::{
    Address, AttachmentId, BootId, Class, FlowId, FrameKind, LinkIndex, Millis, NeighbourLink,
    Path, PathElement, PolicyId, Redundancy, RelayId, Ticks,
};

pub(crate) const STEP: Duration = Duration::from_millis(1);
pub(crate) const DELAY: Duration = Duration::from_millis(10);
/// Of the version before recovery.
const OLD_HEARTBEAT_BYTES: usize = 54;

/// A datagram under way.
pub(crate) struct Flying {
    pub(crate) due: Instant,
    pub(crate) from: RelayId,
    pub(crate) to: RelayId,
    pub(crate) transmit: Transmit,
}

/// A full mesh of relays 1 to n.
pub(crate) struct Mesh {
    pub(crate) now: Instant,
    pub(crate) relays: BTreeMap<RelayId, Relay>,
    pub(crate) flying: VecDeque<Flying>,
    /// Relays that neither send nor receive.
    pub(crate) frozen: BTreeSet<RelayId>,
    /// Directed links that lose everything: from, to, index.
    pub(crate) cut: BTreeSet<(u16, u16, u8)>,
    pub(crate) delivered: Vec<(RelayId, Delivered)>,
    pub(crate) times: Vec<Instant>,
    pub(crate) traced: Vec<Traced>,
    /// A neighbour whose data lanes take nothing: of whom, to whom.
    pub(crate) full: Option<(RelayId, RelayId)>,
    pub(crate) states: Vec<(RelayId, NeighbourLink, State, State)>,
    /// What every datagram takes beside its link's delay at most.
    pub(crate) jitter: Duration,
    /// What every datagram towards a relay takes beside that.
    pub(crate) slower: BTreeMap<RelayId, Duration>,
    /// Of a million datagrams, of every lane, how many are lost.
    pub(crate) loss_ppm: u64,
    /// Relays of a version that recovers nothing: their heartbeats lack what is complete.
    pub(crate) old: BTreeSet<RelayId>,
    /// Messages of recovery that were sent to such.
    pub(crate) puzzling: u64,
    random: u64,
}

pub(crate) fn path(relays: &[u16]) -> Vec<u8> {
    let steps: Vec<PathElement> = relays
        .iter()
        .map(|&relay| PathElement::new(RelayId(relay), LinkIndex::default()))
        .collect();
    let mut bytes = Vec::new();
    Path::new(&steps).unwrap().encode(&mut bytes);
    bytes
}

pub(crate) fn route(destination: u16, paths: &[&[u16]]) -> Vec<Item> {
    let paths: Vec<(&[u16], u32)> = paths.iter().map(|&steps| (steps, 0)).collect();
    weighted_route(destination, 0, &paths)
}

/// The routes of all classes to a relay under a policy, with the weights of their paths.
pub(crate) fn weighted_route(destination: u16, policy: u32, paths: &[(&[u16], u32)]) -> Vec<Item> {
    let path = |&(steps, weight): &(&[u16], u32)| RoutePath {
        steps: path(steps),
        delay_us: 20_000,
        weight,
    };
    let paths: Vec<RoutePath> = paths.iter().map(path).collect();
    let route = |class: Class| Route {
        destination: destination.into(),
        class: class.code().into(),
        paths: paths.clone(),
        policy,
    };
    Class::ALL.into_iter().map(|class| route(class).into()).collect()
}

pub(crate) fn peer(neighbour: u16, index: u8) -> Item {
    Peer {
        neighbour: neighbour.into(),
        index: index.into(),
        remote_address: format!("127.0.0.1:{neighbour}"),
        // The second link is the dearer one, on no path.
        role: if index == 0 { Role::Candidate.into() } else { Role::Idle.into() },
        ..Peer::default()
    }
    .into()
}

/// A frame from the gateway of one relay to that of another.
pub(crate) fn frame(to: u16, class: Class, sequence: u64) -> LocalFrame {
    LocalFrame {
        source: AttachmentId::GATEWAY,
        destination: Address::new(RelayId(to), AttachmentId::GATEWAY),
        alternate: None,
        kind: FrameKind::Datagram,
        class,
        policy: PolicyId::default(),
        redundancy: Redundancy::default(),
        flow: FlowId(7),
        sequence,
        budget: Millis(5_000),
        payload: Bytes::from_static(b"payload"),
    }
}

impl Mesh {
    pub(crate) fn new(relays: u16, links: u8, routes: &[(u16, u16, &[&[u16]])]) -> Self {
        Self::with(relays, links, |id| {
            let own = routes.iter().filter(|(from, ..)| *from == id);
            own.flat_map(|&(_, destination, paths)| route(destination, paths)).collect()
        })
    }

    /// A mesh whose relays are told of their peers and of these items.
    pub(crate) fn with(relays: u16, links: u8, items: impl Fn(u16) -> Vec<Item>) -> Self {
        Self::configured(relays, links, items, |_| {})
    }

    /// A mesh whose relays are told of their peers and of these items, and configured like this.
    pub(crate) fn configured(
        relays: u16,
        links: u8,
        items: impl Fn(u16) -> Vec<Item>,
        configure: impl Fn(&mut Config),
    ) -> Self {
        let now = Instant::now();
        let mut mesh = Self {
            now,
            relays: BTreeMap::new(),
            flying: VecDeque::new(),
            frozen: BTreeSet::new(),
            cut: BTreeSet::new(),
            delivered: Vec::new(),
            times: Vec::new(),
            traced: Vec::new(),
            full: None,
            states: Vec::new(),
            jitter: Duration::ZERO,
            slower: BTreeMap::new(),
            loss_ppm: 0,
            old: BTreeSet::new(),
            puzzling: 0,
            random: 1,
        };
        for id in 1..=relays {
            let clock = LocalClock::new(now, Ticks(u64::from(id) * 1_000_000_000), 0);
            let mut config = Config::new(RelayId(id), BootId(u32::from(id)), clock);
            configure(&mut config);
            let mut relay = Relay::new(config);
            let others = (1..=relays).filter(|&other| other != id);
            let pairs = others.flat_map(|other| (0..links).map(move |index| (other, index)));
            let pairs: Vec<(u16, u8)> = pairs.collect();
            let mut put: Vec<Item> =
                pairs.iter().map(|&(other, index)| peer(other, index)).collect();
            put.extend(items(id));
            let update = Update { revision: 1, put, ..Update::default() };
            assert!(!relay.handle_update(update, now).resync);
            for (other, index) in pairs {
                let link = NeighbourLink::new(RelayId(other), LinkIndex::new(index).unwrap());
                relay.handle_link_opened(link, now);
                for lane in Lane::DATA {
                    relay.handle_lane((link, lane), true, now);
                }
            }
            mesh.relays.insert(RelayId(id), relay);
        }
        mesh.run(Duration::from_secs(3));
        mesh.states.clear();
        mesh
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.arrive();
            let now = self.now;
            for (&id, relay) in &mut self.relays {
                if self.frozen.contains(&id) {
                    continue;
                }
                if relay.poll_timeout().is_some_and(|due| due <= now) {
                    relay.handle_timeout(now);
                }
            }
            self.collect();
        }
    }

    pub(crate) fn arrive(&mut self) {
        let (due, later): (VecDeque<_>, VecDeque<_>) =
            self.flying.drain(..).partition(|flying| flying.due <= self.now);
        self.flying = later;
        for Flying { from, to, transmit, .. } in due {
            let key = (NeighbourLink::new(from, transmit.link.index), transmit.lane);
            if self.frozen.contains(&to) {
                continue;
            }
            self.relays.get_mut(&to).unwrap().handle_datagram(key, &transmit.message, self.now);
        }
    }

    pub(crate) fn collect(&mut self) {
        for (&id, relay) in &mut self.relays {
            if self.frozen.contains(&id) {
                continue;
            }
            let full = self.full;
            let writable = |link: NeighbourLink, _| full != Some((id, link.neighbour));
            while let Some(mut transmit) = relay.poll_transmit(self.now, writable) {
                let to = transmit.link.neighbour;
                match HopMessage::decode(&transmit.message).unwrap() {
                    HopMessage::Data { .. } | HopMessage::Bundle { .. } => {}
                    HopMessage::Heartbeat(_) if self.old.contains(&id) => {
                        transmit.message.truncate(OLD_HEARTBEAT_BYTES);
                    }
                    HopMessage::Heartbeat(_) => {}
                    HopMessage::Nack { .. }
                    | HopMessage::Tail { .. }
                    | HopMessage::Received { .. }
                    | HopMessage::Padding
                    | HopMessage::Repair(_)
                    | HopMessage::Twin { .. } => {
                        self.puzzling += u64::from(self.old.contains(&to));
                    }
                }
                if self.cut.contains(&(id.0, to.0, transmit.link.index.value())) {
                    continue;
                }
                self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if (self.random >> 20) % 1_000_000 < self.loss_ppm {
                    continue;
                }
                let micros = u64::try_from(self.jitter.as_micros()).unwrap() + 1;
                let jitter = Duration::from_micros((self.random >> 33) % micros);
                let slower = self.slower.get(&to).copied().unwrap_or_default();
                let due = self.now + DELAY + jitter + slower;
                self.flying.push_back(Flying { due, from: id, to, transmit });
            }
            while let Some(event) = relay.poll_event() {
                match event {
                    Event::Deliver(delivered) => {
                        self.delivered.push((id, delivered));
                        self.times.push(self.now);
                    }
                    Event::LinkChanged { link, inbound, outbound } => {
                        self.states.push((id, link, inbound, outbound));
                    }
                    Event::Traced(traced) => self.traced.push(*traced),
                    Event::LaneWanted(..) | Event::FibChanged | Event::SelfStall(_) => {}
                }
            }
        }
    }

    pub(crate) fn send(&mut self, from: u16, to: u16, class: Class, sequence: u64) {
        self.send_frame(from, frame(to, class, sequence));
    }

    pub(crate) fn send_frame(&mut self, from: u16, frame: LocalFrame) {
        let now = self.now;
        self.relays.get_mut(&RelayId(from)).unwrap().handle_frame(frame, now);
        self.collect();
    }

    pub(crate) fn update(&mut self, relay: u16, update: Update) {
        let now = self.now;
        assert!(!self.relay(relay).handle_update(update, now).resync);
    }

    pub(crate) fn relay(&mut self, relay: u16) -> &mut Relay {
        self.relays.get_mut(&RelayId(relay)).unwrap()
    }

    /// Sends a frame each 20 ms and returns the sequence after the last.
    pub(crate) fn stream(&mut self, class: Class, from_sequence: u64, time: Duration) -> u64 {
        let frames = u64::try_from(time.as_millis() / 20).unwrap();
        for sequence in from_sequence..from_sequence + frames {
            self.send(1, 3, class, sequence);
            self.run(Duration::from_millis(20));
        }
        from_sequence + frames
    }

    pub(crate) fn stats(&self, relay: u16) -> &Stats {
        self.relays[&RelayId(relay)].stats()
    }

    pub(crate) fn longest_gap(&self) -> Duration {
        let pairs = self.times.windows(2);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX)
    }

    pub(crate) fn sequences(&self) -> BTreeSet<u64> {
        self.delivered.iter().map(|(_, delivered)| delivered.sequence).collect()
    }
}
