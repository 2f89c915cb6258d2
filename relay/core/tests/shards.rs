//! Two relays that are two cores each, side by side.

mod chain;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_probe::LocalClock;
use overway_relay_core::{
    Attachments, Config, DropReason, Event, Handed, Heir, Load, LocalFrame, Relay, Shard,
    SharedLines, Transmit,
};
use overway_wire::control::{Demand, Item, Peer, Role, Route, RoutePath, Update};
use overway_wire::hop::Lane;
use overway_wire::{
    Address, AttachmentId, BootId, Class, FlowId, FrameKind, LinkIndex, Millis, NeighbourLink,
    Path, PathElement, PolicyId, Redundancy, RelayId, Ticks,
};

use chain::Chain;

const STEP: Duration = Duration::from_millis(10);
const LEAD: usize = 0;
const OTHER: usize = 1;

/// Relays 1 and 2, each the lead and shard 1, each shard with a link to its like.
struct Pair {
    now: Instant,
    /// By relay, then by shard.
    cores: [[Relay; 2]; 2],
    delivered: Vec<(usize, usize)>,
}

fn link(relay: usize) -> NeighbourLink {
    NeighbourLink::new(RelayId(u16::try_from(relay + 1).unwrap()), LinkIndex::default())
}

fn update(relay: usize, capacity_bps: u64, workers: u32) -> Update {
    let other = u32::from(link(1 - relay).neighbour.0);
    let peer = Peer {
        neighbour: other,
        remote_address: format!("127.0.0.1:{other}"),
        role: Role::Candidate.into(),
        capacity_bps,
        workers,
        ..Peer::default()
    };
    let mut steps = Vec::new();
    let element = PathElement::new(link(1 - relay).neighbour, LinkIndex::default());
    Path::new(&[element]).unwrap().encode(&mut steps);
    let route = |class: Class| {
        let paths = vec![RoutePath { steps: steps.clone(), ..RoutePath::default() }];
        let class = class.code().into();
        Item::from(Route { destination: other, class, paths, policy: 0 })
    };
    let put = std::iter::once(peer.into()).chain(Class::ALL.map(route)).collect();
    Update { revision: 1, put, ..Update::default() }
}

impl Pair {
    fn new(capacity_bps: u64) -> Self {
        Self::with_line(capacity_bps, 0)
    }

    fn with_line(capacity_bps: u64, line_bps: u64) -> Self {
        let now = Instant::now();
        let relay = |relay: usize| {
            let id = link(relay).neighbour;
            let clock = LocalClock::new(now, Ticks(u64::from(id.0) * 1_000_000_000), 0);
            let lines = Arc::new(SharedLines::new(now));
            let attachments = Arc::new(Attachments::default());
            let [mut lead, mut other] = [0, 1].map(|index| {
                let shard = Shard { index, workers: 2 };
                let lines = Some(Arc::clone(&lines));
                let config = Config::new(id, BootId(u32::from(id.0)), clock);
                let attachments = Arc::clone(&attachments);
                let lines_bps = vec![line_bps];
                Relay::new(Config { shard, lines, attachments, lines_bps, ..config })
            });
            lead.handle_update(update(relay, capacity_bps, 2), now);
            other.handle_fib(Arc::clone(lead.fib()), now);
            [lead, other]
        };
        Self { now, cores: [relay(0), relay(1)], delivered: Vec::new() }
    }

    /// A shard's link stands at both ends, and both have heard one another.
    fn open(&mut self, shard: usize) {
        for relay in 0..2 {
            let core = &mut self.cores[relay][shard];
            core.handle_link_opened(link(1 - relay), self.now);
            for lane in Lane::DATA {
                core.handle_lane((link(1 - relay), lane), true, self.now);
            }
        }
        (0..300).for_each(|_| self.step());
    }

    fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        for core in self.cores.iter_mut().flatten() {
            if core.poll_timeout().is_some_and(|due| due <= now) {
                core.handle_timeout(now);
            }
        }
        self.exchange();
    }

    /// What the cores have to say arrives, at the shard of the same number.
    fn exchange(&mut self) {
        loop {
            let mut moved = false;
            for (relay, shard) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                while let Some(transmit) = self.transmit(relay, shard) {
                    moved = true;
                    let Transmit { lane, message, .. } = transmit;
                    let to = &mut self.cores[1 - relay][shard];
                    to.handle_datagram((link(relay), lane), &message, self.now);
                }
                while let Some(event) = self.cores[relay][shard].poll_event() {
                    if matches!(event, Event::Deliver(_)) {
                        self.delivered.push((relay, shard));
                    }
                }
                while let Some(handed) = self.cores[relay][shard].poll_handed() {
                    moved = true;
                    self.give(relay, shard, handed);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn transmit(&mut self, relay: usize, shard: usize) -> Option<Transmit> {
        self.cores[relay][shard].poll_transmit(self.now, |_, _| true)
    }

    fn give(&mut self, relay: usize, shard: usize, (heir, handed): (Heir, Handed)) {
        let heir = match heir {
            Heir::Shard(heir, _) => usize::from(heir),
            Heir::Others => 1 - shard,
        };
        assert_ne!(heir, shard);
        self.cores[relay][heir].handle_handed(handed, self.now);
    }

    fn send(&mut self, shard: usize, class: Class) {
        self.cores[0][shard].handle_frame(frame(7, class), self.now);
    }
}

fn frame(flow: u32, class: Class) -> LocalFrame {
    LocalFrame {
        source: AttachmentId::GATEWAY,
        destination: Address::new(link(1).neighbour, AttachmentId::GATEWAY),
        alternate: None,
        kind: FrameKind::Datagram,
        class,
        policy: PolicyId::default(),
        redundancy: Redundancy::default(),
        flow: FlowId(flow),
        sequence: 1,
        budget: Millis(u16::MAX),
        payload: Bytes::from_static(&[1; 1_000]),
    }
}

#[test]
fn a_shard_without_a_link_hands_its_frames_to_the_lead() {
    let mut pair = Pair::new(0);
    pair.open(LEAD);

    pair.send(OTHER, Class::Bulk);
    pair.exchange();

    assert_eq!(pair.delivered, [(1, LEAD)]);
    let [lead, other] = &pair.cores[0];
    assert_eq!((other.stats().handed, other.stats().frames_originated), (1, 0));
    assert_eq!((lead.stats().handed, lead.stats().frames_originated), (0, 1));
    let mut counts = lead.counts();
    counts.add(&other.counts());
    assert_eq!((counts.stats.frames_originated, counts.stats.frames_sent), (1, 1));
}

#[test]
fn a_shard_with_a_link_of_its_own_uses_it() {
    let mut pair = Pair::new(0);
    pair.open(LEAD);
    pair.open(OTHER);

    pair.send(OTHER, Class::Bulk);
    pair.exchange();

    assert_eq!(pair.delivered, [(1, OTHER)]);
    assert_eq!(pair.cores[0][OTHER].stats().handed, 0);
}

#[test]
fn what_a_shard_has_heard_and_hears_no_more_is_the_leads_to_judge() {
    let mut pair = Pair::new(0);
    pair.open(LEAD);
    pair.open(OTHER);
    // The shard's connections alone are gone, and a frame was not acknowledged.
    pair.send(OTHER, Class::Interactive);
    let lost = pair.transmit(0, OTHER).unwrap();
    assert_eq!(lost.lane, Lane::of(Class::Interactive));
    pair.cores[0][OTHER].handle_link_closed(link(1), pair.now);

    pair.exchange();

    assert_eq!(pair.delivered, [(1, LEAD)], "the lead's link stands");
}

#[test]
fn what_one_shard_is_told_of_an_end_all_know() {
    let mut pair = Pair::new(0);
    pair.open(LEAD);
    pair.open(OTHER);
    let end = AttachmentId(40);
    let to_end = || LocalFrame {
        destination: Address::new(link(1).neighbour, end),
        ..frame(7, Class::Interactive)
    };
    pair.cores[1][LEAD].handle_attached(end);
    pair.cores[0][OTHER].handle_frame(to_end(), pair.now);
    pair.exchange();
    assert_eq!(pair.delivered, [(1, OTHER)]);

    pair.cores[1][LEAD].handle_detached(end);
    pair.cores[0][OTHER].handle_frame(to_end(), pair.now);
    pair.exchange();
    assert_eq!(pair.delivered.len(), 1);
    assert_eq!(pair.cores[1][OTHER].stats().dropped(DropReason::NoAttachment), 1);
}

#[test]
fn flows_are_taken_apart_where_the_next_link_has_more_shards() {
    let mut chain = Chain::new(Shard::default(), 4);
    let mut shards = BTreeMap::new();
    for _ in 0..2 {
        let messages = chain.batch(Class::Bulk, 64, 1_000);
        let mut stayed = 0;
        chain.transit(Lane::Bulk, messages.into_iter(), |_, _| stayed += 1);
        let mut handed = 0;
        while let Some((heir, Handed::Frame(header, _))) = chain.relays[1].poll_handed() {
            let Heir::Shard(shard, None) = heir else { panic!("{heir:?}") };
            handed += 1;
            let before = shards.insert(header.flow, shard);
            assert!(before.is_none_or(|before| before == shard), "a flow stays on its shard");
        }
        assert_eq!(handed + stayed, 64);
        assert!(stayed < 32, "{stayed}");
    }

    for shard in 1..4 {
        assert!(shards.values().filter(|&&of| of == shard).count() >= 4, "{shards:?}");
    }
}

#[test]
fn a_shard_beyond_those_of_a_link_hands_to_ones_of_the_same_worker() {
    let now = Instant::now();
    for (index, heirs) in [(4, vec![0, 2]), (5, vec![1]), (7, vec![1])] {
        let clock = LocalClock::new(now, Ticks(0), 0);
        let config = Config::new(RelayId(1), BootId(1), clock);
        let mut core = Relay::new(Config { shard: Shard { index, workers: 2 }, ..config });
        // The link has shards 0, 1 and 2.
        core.handle_update(update(0, 0, 3), now);

        let mut seen = BTreeSet::new();
        for flow in 0..64 {
            core.handle_frame(frame(flow, Class::Bulk), now);
            let Some((Heir::Shard(heir, None), Handed::Local(_))) = core.poll_handed() else {
                panic!("not handed")
            };
            seen.insert(heir);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), heirs);
    }
}

#[test]
fn the_leads_report_tells_what_all_shards_carry() {
    let mut pair = Pair::new(0);
    pair.open(LEAD);
    pair.open(OTHER);
    let start = pair.now;
    while pair.now < start + Duration::from_secs(3) {
        pair.send(LEAD, Class::Bulk);
        (0..3).for_each(|_| pair.send(OTHER, Class::Bulk));
        pair.step();
    }
    let now = pair.now;
    for relay in 0..2 {
        let load = pair.cores[relay][OTHER].load(now);
        pair.cores[relay][LEAD].handle_load(1, load);
    }

    let [source, sink] = [0, 1].map(|relay| {
        pair.cores[relay][LEAD].handle_scheduler_connected(now);
        pair.cores[relay][LEAD].poll_report(now).unwrap()
    });

    let [Demand { destination: 2, bps, .. }] = source.demands[..] else {
        panic!("{:?}", source.demands)
    };
    // 400 frames a second of 1,000 bytes and their headers.
    assert!((3_200_000..=3_500_000).contains(&bps), "{bps}");
    let received = sink.links[0].received_bps;
    assert!((3_000_000..=3_700_000).contains(&received), "{received}");
}

#[test]
fn a_load_takes_the_place_of_the_one_before() {
    let mut pair = Pair::new(0);
    let lead = &mut pair.cores[0][LEAD];
    let demand = |bps| Demand { destination: 9, class: 2, policy: 0, bps };
    for bps in [5, 7] {
        let load =
            Load { demands: vec![demand(bps)], self_stalls: 3, detours: 2, ..Load::default() };
        lead.handle_load(1, load);
    }
    lead.handle_scheduler_connected(pair.now);

    let report = lead.poll_report(pair.now).unwrap();

    assert_eq!((report.demands, report.self_stalls), (vec![demand(7)], 3));
    assert_eq!(report.detours, 2);
}

#[test]
fn shards_together_keep_to_their_links_and_their_lines_capacity() {
    keeps_to_a_megabyte(Pair::new(8_000_000));
    keeps_to_a_megabyte(Pair::with_line(0, 8_000_000));
}

fn keeps_to_a_megabyte(mut pair: Pair) {
    pair.open(LEAD);
    pair.open(OTHER);
    let (start, mut sent, mut idle) = (pair.now, [0_usize; 2], 0);
    while pair.now < start + Duration::from_secs(1) {
        for shard in [LEAD, OTHER] {
            (0..20).for_each(|_| pair.send(shard, Class::Bulk));
        }
        // A millisecond, in which neither has another turn.
        pair.now += Duration::from_millis(1);
        let before = sent;
        let order = if sent[LEAD] < sent[OTHER] { [LEAD, OTHER] } else { [OTHER, LEAD] };
        for shard in order {
            while let Some(transmit) = pair.transmit(0, shard) {
                if transmit.lane != Lane::Light {
                    sent[shard] += transmit.message.len();
                }
            }
        }
        idle += usize::from(sent == before);
    }

    let bytes: usize = sent.iter().sum();
    assert!((900_000..=1_010_000).contains(&bytes), "{sent:?}, idle {idle} times");
    assert!(sent.iter().all(|&of| of > 300_000), "{sent:?}");
}
