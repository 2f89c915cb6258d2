//! Three relays in a row, to look at what the middle one does with a frame.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_probe::LocalClock;
use overway_relay_core::{Config, LocalFrame, Relay, Shard, SharedLines};
use overway_wire::control::{Item, Peer, Role, Route, RoutePath, Update};
use overway_wire::hop::Lane;
use overway_wire::{
    Address, AttachmentId, BootId, Class, FlowId, FrameKind, LinkIndex, Millis, NeighbourLink,
    Path, PathElement, PolicyId, Redundancy, RelayId, Ticks,
};

/// Relays 1, 2 and 3; frames go from the first over the second to the third.
pub(crate) struct Chain {
    pub(crate) now: Instant,
    pub(crate) relays: [Relay; 3],
    sequence: u64,
    /// What relay 2 says to relay 1, on its way until the relays settle.
    back: Vec<(Lane, Bytes)>,
}

impl Chain {
    /// Relays that are this shard each, with so many workers; the third may have others.
    pub(crate) fn new(shard: Shard, third_workers: u8) -> Self {
        let now = Instant::now();
        let relays = [1, 2, 3].map(|id| relay(id, shard, third_workers, now));
        let mut chain = Self { now, relays, sequence: 0, back: Vec::with_capacity(64) };
        // Until all hear one another.
        (0..30).for_each(|_| chain.settle(Duration::from_millis(100)));
        chain
    }

    /// What relay 1 sends to relay 2 for so many frames with payloads of so many bytes, all handed in at once.
    pub(crate) fn batch(&mut self, class: Class, frames: usize, payload: usize) -> Vec<Bytes> {
        let payload = Bytes::from(vec![0; payload]);
        for _ in 0..frames {
            self.sequence += 1;
            let frame = LocalFrame {
                source: AttachmentId::GATEWAY,
                destination: Address::new(RelayId(3), AttachmentId::GATEWAY),
                alternate: None,
                kind: FrameKind::Session,
                class,
                policy: PolicyId::default(),
                redundancy: Redundancy::default(),
                flow: FlowId(u32::try_from(self.sequence % 64).expect("a small number")),
                sequence: self.sequence,
                budget: Millis(2_000),
                payload: payload.clone(),
            };
            self.relays[0].handle_frame(frame, self.now);
        }
        let mut messages = Vec::new();
        while let Some(transmit) = self.relays[0].poll_transmit(self.now, |_, _| true) {
            match transmit.lane {
                Lane::Light => {
                    self.hand((0, transmit.link.neighbour), Lane::Light, &transmit.message);
                }
                Lane::Realtime | Lane::Bulk => messages.push(transmit.message),
            }
        }
        messages
    }

    /// Relay 2 takes messages from relay 1 and says what goes out.
    pub(crate) fn transit(
        &mut self,
        lane: Lane,
        messages: impl Iterator<Item = Bytes>,
        mut out: impl FnMut(Lane, Bytes),
    ) {
        let relay = &mut self.relays[1];
        relay.handle_datagrams((towards(1), lane), messages, self.now);
        while let Some(transmit) = relay.poll_transmit(self.now, |_, _| true) {
            if transmit.link == towards(3) {
                out(transmit.lane, transmit.message);
            } else {
                self.back.push((transmit.lane, transmit.message));
            }
        }
    }

    /// Time passes, and what the relays have to say to one another arrives.
    pub(crate) fn settle(&mut self, time: Duration) {
        self.now += time;
        for (lane, message) in self.back.split_off(0) {
            self.hand((1, RelayId(1)), lane, &message);
        }
        for relay in &mut self.relays {
            if relay.poll_timeout().is_some_and(|due| due <= self.now) {
                relay.handle_timeout(self.now);
            }
        }
        loop {
            let mut moved = false;
            for from in 0..3 {
                while let Some(transmit) = self.relays[from].poll_transmit(self.now, |_, _| true) {
                    moved = true;
                    self.hand((from, transmit.link.neighbour), transmit.lane, &transmit.message);
                }
                while self.relays[from].poll_event().is_some() {}
            }
            if !moved {
                break;
            }
        }
    }

    /// A message arrives: from which of the relays, at whom.
    pub(crate) fn hand(&mut self, (from, to): (usize, RelayId), lane: Lane, message: &Bytes) {
        let from = towards(u16::try_from(from + 1).expect("there are three"));
        let relay = &mut self.relays[usize::from(to.0) - 1];
        relay.handle_datagram((from, lane), message, self.now);
    }
}

fn towards(relay: u16) -> NeighbourLink {
    NeighbourLink::new(RelayId(relay), LinkIndex::default())
}

fn relay(id: u16, shard: Shard, third_workers: u8, now: Instant) -> Relay {
    let clock = LocalClock::new(now, Ticks(u64::from(id) * 1_000_000_000), 0);
    let lines = (shard.workers.max(third_workers) > 1).then(|| Arc::new(SharedLines::new(now)));
    let config = Config::new(RelayId(id), BootId(u32::from(id)), clock);
    let mut relay = Relay::new(Config { shard, lines, ..config });
    let neighbours: &[u16] = match id {
        1 => &[2],
        2 => &[1, 3],
        _ => &[2],
    };
    let peer = |&neighbour: &u16| Peer {
        neighbour: neighbour.into(),
        remote_address: format!("127.0.0.1:{neighbour}"),
        role: Role::Candidate.into(),
        // More than is ever asked for, so that a line that is shared is charged and nothing waits.
        capacity_bps: if shard.workers > 1 { 1_000_000_000_000 } else { 0 },
        workers: if neighbour == 3 { third_workers } else { shard.workers }.into(),
        ..Peer::default()
    };
    let mut put: Vec<Item> = neighbours.iter().map(peer).map(Item::from).collect();
    if id == 1 {
        let steps = [2, 3].map(|id| PathElement::new(RelayId(id), LinkIndex::default()));
        let mut bytes = Vec::new();
        Path::new(&steps).expect("two relays are no loop").encode(&mut bytes);
        put.extend(Class::ALL.map(|class| {
            let path = RoutePath { steps: bytes.clone(), delay_us: 10_000, weight: 0 };
            let class = class.code().into();
            Item::from(Route { destination: 3, class, paths: vec![path], policy: 0 })
        }));
    }
    assert!(!relay.handle_update(Update { revision: 1, put, ..Update::default() }, now).resync);
    for &neighbour in neighbours {
        relay.handle_link_opened(towards(neighbour), now);
        for lane in Lane::DATA {
            relay.handle_lane((towards(neighbour), lane), true, now);
        }
    }
    relay
}
