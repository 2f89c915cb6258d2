//! Relays joined by perfect virtual links, of which some fall silent: what the source, the relay in
//! front and the destination do about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_probe::{LocalClock, State};
use overway_relay_core::{
    Config, Delivered, DropReason, Event, LocalFrame, Relay, Stats, Transmit,
};
use overway_wire::control::{Item, Peer, Role, Route, RoutePath, Update};
use overway_wire::hop::Lane;
use overway_wire::{
    Address, AttachmentId, BootId, Class, FlowId, FrameKind, LinkIndex, Millis, NeighbourLink,
    Path, PathElement, PolicyId, RelayId, Ticks,
};

const STEP: Duration = Duration::from_millis(1);
const DELAY: Duration = Duration::from_millis(10);

/// A datagram under way.
struct Flying {
    due: Instant,
    from: RelayId,
    to: RelayId,
    transmit: Transmit,
}

/// A full mesh of relays 1 to n, one link a pair (two between those of `parallel`).
struct Mesh {
    now: Instant,
    relays: BTreeMap<RelayId, Relay>,
    flying: VecDeque<Flying>,
    /// Relays that neither send nor receive.
    frozen: BTreeSet<RelayId>,
    /// Directed links that lose everything: from, to, index.
    cut: BTreeSet<(u16, u16, u8)>,
    delivered: Vec<(RelayId, Delivered)>,
    times: Vec<Instant>,
    /// A neighbour whose data lanes take nothing: of whom, to whom.
    full: Option<(RelayId, RelayId)>,
    states: Vec<(RelayId, NeighbourLink, State, State)>,
}

fn path(relays: &[u16]) -> Vec<u8> {
    let steps: Vec<PathElement> = relays
        .iter()
        .map(|&relay| PathElement::new(RelayId(relay), LinkIndex::default()))
        .collect();
    let mut bytes = Vec::new();
    Path::new(&steps).unwrap().encode(&mut bytes);
    bytes
}

fn route(destination: u16, paths: &[&[u16]]) -> Vec<Item> {
    let paths: Vec<RoutePath> =
        paths.iter().map(|steps| RoutePath { steps: path(steps), delay_us: 20_000 }).collect();
    let route = |class: Class| Route {
        destination: destination.into(),
        class: class.code().into(),
        paths: paths.clone(),
    };
    Class::ALL.into_iter().map(|class| route(class).into()).collect()
}

fn peer(neighbour: u16, index: u8) -> Item {
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

impl Mesh {
    fn new(relays: u16, links: u8, routes: &[(u16, u16, &[&[u16]])]) -> Self {
        let now = Instant::now();
        let mut mesh = Self {
            now,
            relays: BTreeMap::new(),
            flying: VecDeque::new(),
            frozen: BTreeSet::new(),
            cut: BTreeSet::new(),
            delivered: Vec::new(),
            times: Vec::new(),
            full: None,
            states: Vec::new(),
        };
        for id in 1..=relays {
            let clock = LocalClock::new(now, Ticks(u64::from(id) * 1_000_000_000), 0);
            let mut relay = Relay::new(Config::new(RelayId(id), BootId(u32::from(id)), clock));
            let others = (1..=relays).filter(|&other| other != id);
            let pairs = others.flat_map(|other| (0..links).map(move |index| (other, index)));
            let pairs: Vec<(u16, u8)> = pairs.collect();
            let mut put: Vec<Item> =
                pairs.iter().map(|&(other, index)| peer(other, index)).collect();
            for &(_, destination, paths) in routes.iter().filter(|(from, ..)| *from == id) {
                put.extend(route(destination, paths));
            }
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

    fn run(&mut self, time: Duration) {
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

    fn arrive(&mut self) {
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

    fn collect(&mut self) {
        for (&id, relay) in &mut self.relays {
            if self.frozen.contains(&id) {
                continue;
            }
            let full = self.full;
            let writable = |link: NeighbourLink, _| full != Some((id, link.neighbour));
            while let Some(transmit) = relay.poll_transmit(self.now, writable) {
                let to = transmit.link.neighbour;
                if self.cut.contains(&(id.0, to.0, transmit.link.index.value())) {
                    continue;
                }
                self.flying.push_back(Flying { due: self.now + DELAY, from: id, to, transmit });
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
                    Event::LaneWanted(..) | Event::FibChanged | Event::SelfStall(_) => {}
                }
            }
        }
    }

    fn send(&mut self, from: u16, to: u16, class: Class, sequence: u64) {
        let frame = LocalFrame {
            source: AttachmentId::GATEWAY,
            destination: Address::new(RelayId(to), AttachmentId::GATEWAY),
            kind: FrameKind::Datagram,
            class,
            policy: PolicyId::default(),
            flow: FlowId(7),
            sequence,
            budget: Millis(5_000),
            payload: Bytes::from_static(b"payload"),
        };
        let now = self.now;
        self.relays.get_mut(&RelayId(from)).unwrap().handle_frame(frame, now);
        self.collect();
    }

    /// Sends a frame each 20 ms and returns the sequence after the last.
    fn stream(&mut self, class: Class, from_sequence: u64, time: Duration) -> u64 {
        let frames = u64::try_from(time.as_millis() / 20).unwrap();
        for sequence in from_sequence..from_sequence + frames {
            self.send(1, 3, class, sequence);
            self.run(Duration::from_millis(20));
        }
        from_sequence + frames
    }

    fn stats(&self, relay: u16) -> &Stats {
        self.relays[&RelayId(relay)].stats()
    }

    fn longest_gap(&self) -> Duration {
        let pairs = self.times.windows(2);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX)
    }

    fn sequences(&self) -> BTreeSet<u64> {
        self.delivered.iter().map(|(_, delivered)| delivered.sequence).collect()
    }
}

/// From 1 to 3 through 2, with 4 and then direct as backups; and back.
fn through_two() -> Mesh {
    Mesh::new(
        4,
        1,
        &[
            (1, 3, &[&[2, 3], &[4, 3], &[3]]),
            (2, 3, &[&[3], &[4, 3]]),
            (4, 3, &[&[3], &[2, 3]]),
            (2, 1, &[&[1], &[4, 1]]),
            (3, 1, &[&[2, 1], &[4, 1]]),
        ],
    )
}

#[test]
fn a_frame_takes_the_best_path_and_arrives_once() {
    let mut mesh = through_two();

    mesh.send(1, 3, Class::Realtime, 5);
    mesh.run(Duration::from_millis(50));

    let (at, delivered) = &mesh.delivered[0];
    assert_eq!((mesh.delivered.len(), *at, delivered.sequence), (1, RelayId(3), 5));
    assert_eq!(delivered.source, Address::new(RelayId(1), AttachmentId::GATEWAY));
    assert_eq!((mesh.stats(2).frames_forwarded, mesh.stats(4).frames_forwarded), (1, 0));
}

#[test]
fn a_frozen_transit_relay_costs_no_frame_and_at_most_the_promised_gap() {
    for class in [Class::Realtime, Class::Interactive] {
        for phase in 0..20 {
            let mut mesh = through_two();
            mesh.stream(class, 0, Duration::from_secs(1));
            mesh.run(Duration::from_millis(phase));
            mesh.frozen.insert(RelayId(2));
            mesh.flying.retain(|flying| flying.to != RelayId(2));
            let end = mesh.stream(class, 50, Duration::from_secs(1));
            mesh.run(Duration::from_millis(100));

            assert_eq!(mesh.sequences(), (0..end).collect(), "{class} {phase}: nothing is lost");
            let gap = mesh.longest_gap();
            // Spacing and the phase of the test's own pause, a round trip of the link, and the promise.
            let bound = Duration::from_millis(20 + phase) + DELAY * 2 + Duration::from_millis(60);
            assert!(gap <= bound, "{class} {phase}: healed after {gap:?}");
            assert!(mesh.stats(1).copies > 0, "{class}: copies while suspect");
            assert_eq!((mesh.stats(1).suspects, mesh.stats(1).downs), (1, 1));
        }
    }
}

#[test]
fn bulk_frames_are_not_copied_but_moved_once_the_link_is_down() {
    let mut mesh = through_two();
    let frozen_at = mesh.stream(Class::Bulk, 0, Duration::from_secs(1));
    mesh.frozen.insert(RelayId(2));
    mesh.flying.retain(|flying| flying.to != RelayId(2));
    let end = mesh.stream(Class::Bulk, frozen_at, Duration::from_secs(1));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect());
    assert_eq!(mesh.stats(1).copies, 0);
    assert!(mesh.stats(1).replays > 0);
}

#[test]
fn the_relay_in_front_detours_and_the_source_moves_after_its_notice() {
    let mut mesh = through_two();
    let cut_at = mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    mesh.cut.insert((2, 3, 0));
    mesh.cut.insert((3, 2, 0));
    let end = mesh.stream(Class::Realtime, cut_at, Duration::from_secs(1));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect());
    assert!(mesh.stats(2).detours > 0, "2 goes around its dead link by 4");
    assert!(mesh.stats(1).notices_received > 0);
    let forwarded = mesh.stats(2).frames_forwarded;
    mesh.stream(Class::Realtime, end, Duration::from_millis(200));
    assert_eq!(mesh.stats(2).frames_forwarded, forwarded, "1 now goes by 4 from the start");
}

#[test]
fn a_failure_of_one_direction_is_seen_by_the_end_that_is_not_heard() {
    let mut mesh = through_two();
    let cut_at = mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    mesh.cut.insert((1, 2, 0));
    let end = mesh.stream(Class::Realtime, cut_at, Duration::from_secs(1));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect());
    let link = NeighbourLink::new(RelayId(2), LinkIndex::default());
    let (inbound, outbound) = mesh.relays[&RelayId(1)].link_state(link).unwrap();
    assert_eq!((inbound, outbound), (State::Up, State::Down));
}

#[test]
fn a_parallel_link_is_used_before_a_detour() {
    for class in Class::ALL {
        let mut mesh = Mesh::new(3, 2, &[(1, 3, &[&[2, 3], &[3]]), (2, 3, &[&[3]])]);
        let cut_at = mesh.stream(class, 0, Duration::from_secs(1));
        mesh.cut.extend([(1, 2, 0), (2, 1, 0)]);
        let end = mesh.stream(class, cut_at, Duration::from_secs(1));
        mesh.run(Duration::from_millis(100));

        assert_eq!(mesh.sequences(), (0..end).collect());
        // What was under way when the link fell silent is copied around the neighbour, which may be gone.
        let around = if class == Class::Bulk { 0 } else { 5 };
        assert!(mesh.stats(2).frames_forwarded >= end - around, "{class}: the rest went through 2");
        assert_eq!(mesh.stats(1).notices_sent, 0);
    }
}

#[test]
fn a_frozen_neighbour_costs_no_more_for_having_a_parallel_link() {
    for class in [Class::Realtime, Class::Interactive] {
        let mut mesh = Mesh::new(3, 2, &[(1, 3, &[&[2, 3], &[3]]), (2, 3, &[&[3]])]);
        let frozen_at = mesh.stream(class, 0, Duration::from_secs(1));
        mesh.frozen.insert(RelayId(2));
        mesh.flying.retain(|flying| flying.to != RelayId(2));
        let before = mesh.now;
        let mut next = frozen_at;
        while !mesh.sequences().contains(&frozen_at) {
            next = mesh.stream(class, next, Duration::from_millis(20));
            assert!(mesh.now - before < Duration::from_millis(60 + 40 + 20), "healed in time");
        }
        let end = mesh.stream(class, next, Duration::from_secs(1));
        mesh.run(Duration::from_millis(100));

        assert_eq!(mesh.sequences(), (0..end).collect(), "{class}: nothing is lost");
    }
}

#[test]
fn a_parallel_link_not_heard_since_is_no_way_around() {
    let mut mesh = Mesh::new(3, 2, &[(1, 3, &[&[2, 3], &[3]]), (2, 3, &[&[3]])]);
    mesh.frozen.insert(RelayId(2));
    mesh.flying.retain(|flying| flying.to != RelayId(2));
    let end = mesh.stream(Class::Bulk, 0, Duration::from_secs(2));
    mesh.run(Duration::from_millis(100));

    assert_eq!(mesh.sequences(), (0..end).collect(), "the idle link passes for up much longer");
}

#[test]
fn a_closed_link_hands_its_frames_to_the_detour_at_once() {
    let mut mesh = through_two();
    mesh.stream(Class::Interactive, 0, Duration::from_millis(200));
    mesh.send(1, 3, Class::Interactive, 10);
    mesh.flying.clear();
    let link = NeighbourLink::new(RelayId(2), LinkIndex::default());
    let now = mesh.now;
    mesh.relays.get_mut(&RelayId(1)).unwrap().handle_link_closed(link, now);
    mesh.run(Duration::from_millis(50));

    assert!(mesh.sequences().contains(&10));
}

#[test]
fn a_destination_that_is_gone_ends_in_a_counted_drop_and_no_loop() {
    let mut mesh = through_two();
    let frozen_at = mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    mesh.frozen.insert(RelayId(3));
    mesh.stream(Class::Realtime, frozen_at, Duration::from_secs(2));
    let sent: u64 = (1..=4).map(|id| mesh.stats(id).frames_sent).sum();
    mesh.stream(Class::Realtime, 1_000, Duration::from_secs(1));

    let drops: u64 = (1..=4).map(|id| mesh.stats(id).dropped(DropReason::NoPath)).sum();
    let more: u64 = (1..=4).map(|id| mesh.stats(id).frames_sent).sum::<u64>() - sent;
    assert!(drops >= 50, "{drops} dropped for want of a path");
    assert!(more <= 50 * 3, "{more} frames sent for 50 that cannot arrive");
}

#[test]
fn a_process_that_slept_blames_itself() {
    for slept in [100, 400, 700, 2_000] {
        let mut mesh = through_two();
        mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
        let before = mesh.stats(1).downs;
        mesh.frozen.insert(RelayId(1));
        mesh.run(Duration::from_millis(slept));
        mesh.frozen.remove(&RelayId(1));
        mesh.run(Duration::from_millis(500));

        assert!(mesh.stats(1).self_stalls > 0);
        let link = NeighbourLink::new(RelayId(4), LinkIndex::default());
        let (inbound, _) = mesh.relays[&RelayId(1)].link_state(link).unwrap();
        assert_eq!(inbound, State::Up, "{slept} ms: it hears the others");
        let called_down = mesh
            .states
            .iter()
            .filter(|(at, _, inbound, _)| *at == RelayId(1) && *inbound == State::Down)
            .count();
        assert_eq!(called_down, 0, "{slept} ms: it calls nobody down");
        assert!(mesh.stats(1).downs >= before);
    }
}

#[test]
fn frames_behind_a_full_lane_are_copied_as_soon_as_the_link_is_suspect() {
    let mut mesh = through_two();
    let frozen_at = mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    mesh.frozen.insert(RelayId(2));
    mesh.flying.retain(|flying| flying.to != RelayId(2));
    mesh.full = Some((RelayId(1), RelayId(2)));
    let sent = mesh.now;
    mesh.send(1, 3, Class::Realtime, frozen_at);
    while !mesh.sequences().contains(&frozen_at) {
        mesh.run(STEP);
        assert!(mesh.now - sent < Duration::from_millis(60) + DELAY * 2, "copied while suspect");
    }
}

#[test]
fn a_lane_that_is_replaced_sends_again_what_was_under_way() {
    let mut mesh = through_two();
    mesh.stream(Class::Interactive, 0, Duration::from_millis(200));
    mesh.send(1, 3, Class::Interactive, 10);
    mesh.flying.retain(|flying| flying.transmit.lane == Lane::Light);
    let key = (NeighbourLink::new(RelayId(2), LinkIndex::default()), Lane::Bulk);
    let now = mesh.now;
    let relay = mesh.relays.get_mut(&RelayId(1)).unwrap();
    relay.handle_lane(key, false, now);
    relay.handle_lane(key, true, now);
    mesh.run(Duration::from_millis(50));

    assert!(mesh.sequences().contains(&10));
}

#[test]
fn a_backlog_that_is_read_after_a_stall_makes_one_stall() {
    let mut mesh = through_two();
    mesh.stream(Class::Realtime, 0, Duration::from_secs(1));
    let waiting: Vec<Flying> = mesh.flying.drain(..).filter(|it| it.to == RelayId(1)).collect();
    mesh.now += Duration::from_secs(4);
    let before = mesh.stats(1).self_stalls;

    let now = mesh.now;
    let relay = mesh.relays.get_mut(&RelayId(1)).unwrap();
    for Flying { from, transmit, .. } in &waiting {
        let key = (NeighbourLink::new(*from, transmit.link.index), transmit.lane);
        relay.handle_datagram(key, &transmit.message, now);
    }

    assert!(waiting.len() >= 2, "{} wait", waiting.len());
    assert_eq!(mesh.stats(1).self_stalls, before + 1);
}

#[test]
fn frames_that_do_not_name_their_sender_are_dropped() {
    let mut mesh = through_two();
    let now = mesh.now;
    mesh.send(1, 3, Class::Realtime, 5);
    let message = mesh.flying.back().unwrap().transmit.message.clone();
    let relay = mesh.relays.get_mut(&RelayId(2)).unwrap();
    let from_four = NeighbourLink::new(RelayId(4), LinkIndex::default());
    let before = relay.stats().dropped(DropReason::WrongHop);

    relay.handle_datagram((from_four, Lane::Realtime), &message, now);
    assert_eq!(relay.stats().dropped(DropReason::WrongHop), before + 1);

    let from_one = NeighbourLink::new(RelayId(1), LinkIndex::default());
    relay.handle_datagram((from_one, Lane::Bulk), &message, now);
    assert_eq!(relay.stats().dropped(DropReason::WrongLane), 1);
}
